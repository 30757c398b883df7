//! `wsd lab`: closed worlds, and the measurement of systems in them.

mod eval;
mod pairs;
mod report;
mod world;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, GlobalArgs};

/// The task.
#[derive(Subcommand, Debug)]
pub(crate) enum Lab {
    /// Measure systems on the items of a closed world: the table, its figures, the ablation
    #[command(after_help = eval::EXAMPLES)]
    Eval(Box<eval::EvalArgs>),
    /// Write the report on one or more runs again
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Write a closed world: corpora, alignment data, evaluation
    World(world::WorldArgs),
    /// Pick preference pairs from sampled answers, by the oracle
    #[command(after_help = pairs::EXAMPLES)]
    Pairs(pairs::PairsArgs),
}

pub(crate) async fn run(lab: Lab, global: &GlobalArgs) -> Result<Ending> {
    match lab {
        Lab::Pairs(args) => pairs::run(&args, global),
        Lab::Eval(args) => eval::run(*args, global).await,
        Lab::Report(args) => report::run(&args, global),
        Lab::World(args) => world::run(&args, global),
    }
}
