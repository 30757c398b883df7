//! `wsd lab`: the closed world and what is measured in it.

mod pairs;
mod world;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, Look};

#[derive(Subcommand, Debug)]
pub(crate) enum Lab {
    /// Write a closed world: corpora, alignment data, evaluation
    World(world::WorldArgs),
    /// Pick preference pairs from sampled answers, by the oracle
    #[command(after_help = pairs::EXAMPLES)]
    Pairs(pairs::PairsArgs),
}

pub(crate) async fn run(lab: Lab, look: &Look) -> Result<Ending> {
    match lab {
        Lab::Pairs(args) => pairs::run(&args, look),
        Lab::World(args) => world::run(&args, look),
    }
}
