//! `wsd bench serve`: speed and evenness of a running server, and its overhead over the library.

mod client;
mod library;
mod load;
mod questions;
mod report;
mod sample;
mod target;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use wsd::config::SharedArgs;
use wsd_core::MAX_TOKENS;

use self::client::Server;
use self::library::Library;
use self::load::{Load, drive};
use self::questions::Questions;
use self::report::{Figures, table};
use self::target::Target;
use crate::cli::output::Output;
use crate::cli::{Ending, GlobalArgs, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd serve & wsd bench serve --concurrency 1 --concurrency 16 --repeats 5
      One request at a time and sixteen, in turn five times; medians of both.
  wsd bench serve --library --concurrency 1
      The server beside the same models in this process: the overhead of HTTP.
  wsd bench serve --rate 20 --rate 200 --requests 1000
      An open loop: 20 and then 200 requests per second, whether or not earlier ones are answered.
  wsd bench serve --json | jq '.medians[0].first_token_p99_ms'
      Every run and every figure.";

#[derive(Args, Debug)]
pub(crate) struct ServeBench {
    #[command(flatten)]
    questions: Questions,
    /// Requests in each run
    #[arg(long, value_name = "N", default_value_t = 100)]
    requests: usize,
    /// Clients that each send a request after the last answer; may be repeated [default: 16]
    #[arg(long, value_name = "N")]
    concurrency: Vec<usize>,
    /// Requests per second of an open loop, at random moments; may be repeated
    #[arg(long, value_name = "R")]
    rate: Vec<f64>,
    /// Rounds of all measurements; medians are reported
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeats: usize,
    /// Measure the models of the settings below in this process too, without a server
    #[arg(long)]
    library: bool,
    /// Print every run and the medians as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SharedArgs,
}

/// Default tokens in an answer: enough to measure the time per token.
const DEFAULT_MAX_TOKENS: usize = 64;

pub(super) async fn run(mut bench: ServeBench, global: &GlobalArgs) -> Result<Ending> {
    bench.settings.0.set_default(&MAX_TOKENS, DEFAULT_MAX_TOKENS)?;
    let loads = bench.loads()?;
    let settings = global.settings(bench.settings.0.clone())?;
    let mut targets = vec![Target::Server(Server::new(&bench.questions, &settings))];
    if bench.library {
        let sessions = bench.concurrency.iter().copied().max().unwrap_or(1).max(64);
        targets.insert(0, Target::Library(Library::load(&bench.questions, &settings, sessions, global)?));
    }
    let measured: Vec<_> = loads.iter().flat_map(|load| targets.iter().map(move |target| (load, target))).collect();
    let mut runs = vec![Vec::new(); measured.len()];
    for _ in 0..bench.repeats {
        for ((load, target), runs) in measured.iter().zip(&mut runs) {
            runs.push(drive(target, load, bench.requests).await?);
        }
    }
    let names = measured.iter().map(|(load, target)| format!("{} {load}", target.name()));
    let medians: Vec<(String, Figures)> = names.zip(runs.iter().map(|runs| Figures::median(runs))).collect();
    let text = if bench.json {
        let medians: Vec<_> = medians.iter().map(|(name, figures)| figures.json(name)).collect();
        let runs: Vec<_> = runs
            .iter()
            .zip(&medians)
            .map(|(runs, median)| {
                runs.iter().map(|figures| figures.json(median["run"].as_str().unwrap_or_default())).collect::<Vec<_>>()
            })
            .collect();
        format!("{}\n", json!({"medians": medians, "runs": runs.concat()}))
    } else {
        table(&medians)
    };
    Output::stdout(global.color).text(&text)?;
    Ok(Ending::Done)
}

impl ServeBench {
    fn loads(&self) -> Result<Vec<Load>> {
        let given = self.concurrency.iter().map(|&clients| Load::Clients(clients));
        let mut loads: Vec<_> = given.chain(self.rate.iter().map(|&rate| Load::Rate(rate))).collect();
        if loads.is_empty() {
            loads.push(Load::Clients(16));
        }
        let positive = loads.iter().all(|load| match *load {
            Load::Clients(clients) => clients > 0,
            Load::Rate(rate) => rate > 0.0 && rate.is_finite(),
        });
        if !positive || self.requests == 0 || self.repeats == 0 || self.questions.prompt.is_empty() {
            let limit = "the numbers of requests, repeats, clients and prompts must be at least 1, and rates above 0";
            return Err(usage(limit));
        }
        Ok(loads)
    }
}
