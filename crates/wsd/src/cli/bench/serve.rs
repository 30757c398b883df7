//! `wsd bench serve`: how fast a running server answers, how evenly, and what it adds to the
//! library.

mod client;
mod library;
mod load;
mod report;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use wsd::config::Partial;

use self::client::Server;
use self::library::Library;
use self::load::{Load, Target, drive};
use self::report::{Figures, table};
use crate::cli::output::Output;
use crate::cli::{Ending, GlobalArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd serve & wsd bench serve --concurrency 1 --concurrency 16 --repeats 5
      One request at a time and sixteen, in turn five times; medians of both.
  wsd bench serve --library --concurrency 1
      Beside the server, the same models in this process: what HTTP adds.
  wsd bench serve --rate 20 --rate 200 --requests 1000
      Requests that come whether or not earlier ones are answered, 20 and then 200 in a second.
  wsd bench serve --json | jq '.medians[0].first_token_p99_ms'
      Every run and every figure.";

#[derive(Args, Debug)]
pub(crate) struct ServeBench {
    #[command(flatten)]
    asks: Asks,
    /// Requests in each run
    #[arg(long, value_name = "N", default_value_t = 100)]
    requests: usize,
    /// This many clients, each of which asks again once it is answered; may be repeated [default: 16]
    #[arg(long, value_name = "N")]
    concurrency: Vec<usize>,
    /// So many requests in a second, at random moments, answered or not; may be repeated
    #[arg(long, value_name = "R")]
    rate: Vec<f64>,
    /// Run everything so many times, in turn, and tell the medians
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeats: usize,
    /// Measure the same models in this process too, without a server; the settings below say which
    #[arg(long)]
    library: bool,
    /// Print one JSON object: every run and the medians
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Partial,
}

/// What is asked, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asks {
    /// Where the server listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    server: String,
    /// Ask for whole answers instead of streams
    #[arg(long)]
    whole: bool,
    /// What to ask; may be repeated, and is asked in turn
    #[arg(long, value_name = "TEXT", default_values_t = ["What colour is a fox?".to_owned(), "Where does a duck live?".to_owned()])]
    prompt: Vec<String>,
}

impl Asks {
    /// The prompt of this request.
    fn prompt(&self, index: usize) -> &str {
        &self.prompt[index % self.prompt.len()]
    }
}

/// Tokens in an answer where nothing is said: enough to see a pace, few enough not to wait long.
const MAX_TOKENS: usize = 64;

pub(super) async fn run(mut bench: ServeBench, look: &GlobalArgs) -> Result<Ending> {
    bench.settings.decode.max_tokens.get_or_insert(MAX_TOKENS);
    let loads = bench.loads()?;
    let settings = look.settings(bench.settings.clone())?;
    let mut targets = vec![Target::Server(Server::new(&bench.asks, &settings))];
    if bench.library {
        let sessions = bench.concurrency.iter().copied().max().unwrap_or(1).max(64);
        targets.insert(0, Target::Library(Library::load(&bench.asks, &settings, sessions, look)?));
    }
    let plans: Vec<_> = loads.iter().flat_map(|load| targets.iter().map(move |target| (load, target))).collect();
    let mut runs = vec![Vec::new(); plans.len()];
    for _ in 0..bench.repeats {
        for ((load, target), runs) in plans.iter().zip(&mut runs) {
            runs.push(drive(target, load, bench.requests).await?);
        }
    }
    let names = plans.iter().map(|(load, target)| format!("{} {load}", target.name()));
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
    Output::stdout(look.color).text(&text)?;
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
        if !positive || self.requests == 0 || self.repeats == 0 || self.asks.prompt.is_empty() {
            bail!("there is nothing to measure: requests, repeats, clients and rates must be above 0");
        }
        Ok(loads)
    }
}
