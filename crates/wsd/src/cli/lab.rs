//! `wsd lab`: the closed world and what is measured in it.

mod eval;
mod pairs;
mod report;
mod world;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, GlobalArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum Lab {
    /// Measure systems on the items of a closed world: the table, its figures, the ablation
    #[command(after_help = eval::EXAMPLES)]
    Eval(Box<eval::EvalArgs>),
    /// Make the report on one or more runs again
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Write a closed world: corpora, alignment data, evaluation
    World(world::WorldArgs),
    /// Pick preference pairs from sampled answers, by the oracle
    #[command(after_help = pairs::EXAMPLES)]
    Pairs(pairs::PairsArgs),
}

pub(crate) async fn run(lab: Lab, look: &GlobalArgs) -> Result<Ending> {
    match lab {
        Lab::Pairs(args) => pairs::run(&args, look),
        Lab::Eval(args) => eval::run(*args, look).await,
        Lab::Report(args) => report::run(&args, look),
        Lab::World(args) => world::run(&args, look),
    }
}
