//! `wsd lab world`: the files of a closed world.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use wsd::lab::world::{Release, World};

use crate::cli::{Ending, GlobalArgs, note};

#[derive(Args, Debug)]
pub(crate) struct WorldArgs {
    /// The world's seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The folder for the corpora, the alignment data, the prompts and the evaluation
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Documents in the corpus
    #[arg(long, value_name = "N", default_value_t = Release::default().documents)]
    documents: usize,
}

pub(super) fn run(args: &WorldArgs, global: &GlobalArgs) -> Result<Ending> {
    let world = World::new(args.seed);
    let release = Release { documents: args.documents, ..Release::default() };
    release.write(&world, &args.out).with_context(|| args.out.display().to_string())?;
    if !global.quiet {
        note(&format!("a world of {} facts in {}", world.facts(), args.out.display()));
    }
    Ok(Ending::Done)
}
