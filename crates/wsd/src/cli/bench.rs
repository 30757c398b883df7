//! `wsd bench`: how fast the engine, the strategies and a running server are.

mod engine;
mod pair;
mod serve;
mod table;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, GlobalArgs};

/// What to measure.
#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Measure the engine on one model: writing, scoring, prompts, loading, memory
    #[command(after_help = engine::EXAMPLES)]
    Engine(engine::EngineBench),
    /// Measure the strategies on a pair: WSD, the base alone, and the paper's three passes
    #[command(after_help = pair::EXAMPLES)]
    Wsd(Box<pair::PairBench>),
    /// Load a running server with chat completions
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::ServeBench>),
}

pub(super) async fn run(bench: Bench, look: &GlobalArgs) -> Result<Ending> {
    match bench {
        Bench::Engine(bench) => engine::run(&bench, look),
        Bench::Wsd(bench) => pair::run(*bench, look).await,
        Bench::Serve(bench) => serve::run(*bench, look).await,
    }
}
