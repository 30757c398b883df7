//! `wsd bench serve`: how fast a running server answers, and how evenly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::output::Output;
use super::{Ending, Look};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd serve & wsd bench serve --requests 200 --concurrency 16
      Answers and tokens in a second, and how long the first token and the whole answer take.
  wsd bench serve --concurrency 1 --model base
      One request at a time, to the base alone.";

/// What to measure.
#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Load a running server with streamed chat completions
    #[command(after_help = EXAMPLES)]
    Serve(ServeLoad),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServeLoad {
    /// Where the server listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    server: String,
    /// Requests in all
    #[arg(long, value_name = "N", default_value_t = 100)]
    requests: usize,
    /// Requests on the way at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    concurrency: usize,
    /// The model, which is a strategy of the server's
    #[arg(long, value_name = "NAME", default_value = "wsd")]
    model: String,
    /// At most this many tokens in an answer
    #[arg(long, short = 'n', value_name = "TOKENS", default_value_t = 64)]
    max_tokens: usize,
    /// What to ask; may be repeated, and is asked in turn
    #[arg(long, value_name = "TEXT", default_values_t = ["What colour is a fox?".to_owned(), "Where does a duck live?".to_owned()])]
    prompt: Vec<String>,
}

/// How one request went.
struct Sample {
    status: u16,
    first_token: Option<Duration>,
    whole: Duration,
    tokens: usize,
}

pub(crate) async fn run(bench: Bench, look: &Look) -> Result<Ending> {
    let Bench::Serve(load) = bench;
    if load.concurrency == 0 || load.requests == 0 || load.prompt.is_empty() {
        bail!("there is nothing to measure: `requests` and `concurrency` must be at least 1");
    }
    let load = Arc::new(load);
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..load.concurrency {
        let (load, next) = (load.clone(), next.clone());
        clients.spawn(async move {
            let mut samples = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= load.requests {
                    return Ok::<_, anyhow::Error>(samples);
                }
                samples.push(ask(&load, index).await?);
            }
        });
    }
    let mut samples = Vec::new();
    while let Some(client) = clients.join_next().await {
        samples.extend(client??);
    }
    let seconds = started.elapsed().as_secs_f64();
    Output::stdout(look.color).text(&format!("{}\n", report(&samples, seconds)))?;
    Ok(Ending::Done)
}

/// Ask once, on a connection of its own, and read the stream to its end.
async fn ask(load: &ServeLoad, index: usize) -> Result<Sample> {
    let body = json!({
        "model": load.model, "stream": true, "stream_options": {"include_usage": true}, "max_tokens": load.max_tokens,
        "messages": [{"role": "user", "content": load.prompt[index % load.prompt.len()]}],
    });
    let started = Instant::now();
    let stream = TcpStream::connect(&load.server).await.with_context(|| format!("cannot reach {}", load.server))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions")
        .header(header::HOST, &load.server)
        .header(header::CONTENT_TYPE, "application/json");
    let request = match std::env::var("WSD_API_KEY") {
        Ok(key) => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
        Err(_) => request,
    };
    let response = sender.send_request(request.body(Full::<Bytes>::from(body.to_string()))?).await?;
    let status = response.status().as_u16();
    let (mut body, mut text, mut first_token) = (response.into_body(), Vec::new(), None);
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| &data[..]));
        // The first event says who speaks; the second holds the first text.
        if first_token.is_none() && text.windows(6).filter(|window| window == b"data: ").count() > 1 {
            first_token = Some(started.elapsed());
        }
    }
    let text = String::from_utf8_lossy(&text);
    let count = text
        .rsplit_once("\"completion_tokens\":")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    Ok(Sample { status, first_token, whole: started.elapsed(), tokens: count.unwrap_or(0) })
}

fn report(samples: &[Sample], seconds: f64) -> serde_json::Value {
    let mut statuses = BTreeMap::new();
    for sample in samples {
        *statuses.entry(sample.status.to_string()).or_insert(0) += 1;
    }
    let good = || samples.iter().filter(|sample| sample.status == 200);
    let tokens: usize = good().map(|sample| sample.tokens).sum();
    json!({
        "seconds": seconds, "statuses": statuses, "answers_per_second": good().count() as f64 / seconds,
        "tokens_per_second": tokens as f64 / seconds, "tokens": tokens,
        "first_token_ms": spread(good().filter_map(|sample| sample.first_token).collect()),
        "answer_ms": spread(good().map(|sample| sample.whole).collect()),
        "refusal_ms": spread(samples.iter().filter(|sample| sample.status == 429).map(|sample| sample.whole).collect()),
    })
}

/// Median, 99th percentile and maximum, in milliseconds.
fn spread(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map(|time| (time.as_secs_f64() * 1e5).round() / 100.0)
    };
    json!({"p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}
