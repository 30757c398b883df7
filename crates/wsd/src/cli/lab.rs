//! `wsd lab`: the closed world and what is measured in it.

mod world;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, Look};

#[derive(Subcommand, Debug)]
pub(crate) enum Lab {
    /// Write a closed world: corpora, alignment data, evaluation
    World(world::WorldArgs),
}

pub(crate) async fn run(lab: Lab, look: &Look) -> Result<Ending> {
    match lab {
        Lab::World(args) => world::run(&args, look),
    }
}
