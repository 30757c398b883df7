//! `wsd train export`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use wsd::hub::{self, HubOptions};
use wsd_nn::{Checkpoint, Format};

use super::super::output::note;
use super::super::{Ending, GlobalArgs};

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The model: a folder, a .gguf file or a Hugging Face name
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The GGUF file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Number format of the matrices: f32, f16, bf16, q8_0, q4_0 or q4_k
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    dtype: Format,
}

pub(super) fn run(args: &ExportArgs, look: &GlobalArgs) -> Result<Ending> {
    let path = hub::resolve(&args.model, &HubOptions::from_env(), look.progress().as_mut())?;
    let checkpoint = Checkpoint::open(&path)?;
    checkpoint.save_gguf(&args.output, args.dtype)?;
    if !look.quiet {
        let (unfit, matrices) = checkpoint.weights.unfit_for(args.dtype);
        let kept = if unfit > 0 {
            format!("; {unfit} of {matrices} matrices are not in whole blocks of it and stay as they are")
        } else {
            String::new()
        };
        note(&format!("{} in {}{kept}", args.dtype, args.output.display()));
    }
    Ok(Ending::Done)
}
