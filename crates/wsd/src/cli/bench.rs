//! `wsd bench`: speed of the engine, of the strategies, and of a running server.

mod engine;
mod pair;
mod serve;
mod table;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, GlobalArgs};

/// The subject of a measurement.
#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Measure the engine on one model: decoding, scoring, prefill, loading, memory
    #[command(after_help = engine::EXAMPLES)]
    Engine(engine::EngineBench),
    /// Measure the strategies on a pair: WSD, the base alone, and the paper's three passes
    #[command(after_help = pair::EXAMPLES)]
    Wsd(Box<pair::PairBench>),
    /// Load a running server with chat completions
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::ServeBench>),
}

pub(super) async fn run(bench: Bench, global: &GlobalArgs) -> Result<Ending> {
    match bench {
        Bench::Engine(bench) => engine::run(&bench, global),
        Bench::Wsd(bench) => pair::run(*bench, global).await,
        Bench::Serve(bench) => serve::run(*bench, global).await,
    }
}
