//! `wsd train export`.

use std::path::{Path, PathBuf};

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
    /// An adapter in PEFT's layout, to be merged into the model
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// The file to write, named *.gguf; any other name with --adapter is a Hugging Face folder
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Number format of the matrices, such as f16, q8_0, q4_k or iq4_nl
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    dtype: Format,
}

pub(super) fn run(args: &ExportArgs, look: &GlobalArgs) -> Result<Ending> {
    let path = hub::resolve(&args.model, &HubOptions::from_env(), look.progress().as_mut())?;
    let checkpoint = Checkpoint::open(&path)?;
    let is_gguf = args.output.extension().is_some_and(|extension| extension == "gguf");
    match &args.adapter {
        None => export_gguf(&checkpoint, args, look.quiet)?,
        Some(adapter) if is_gguf => {
            // A GGUF file is written from a checkpoint, so the merged one takes the way over a
            // folder.
            let folder = args.output.with_extension("merged");
            merge(&checkpoint, &path, adapter, (&folder, Format::F32))?;
            let exported = Checkpoint::open(&folder).map_err(Into::into);
            let exported = exported.and_then(|checkpoint| export_gguf(&checkpoint, args, look.quiet));
            fs_err::remove_dir_all(&folder)?;
            exported?;
        }
        Some(adapter) => {
            merge(&checkpoint, &path, adapter, (&args.output, args.dtype))?;
            if !look.quiet {
                note(&format!("{} in {}", args.dtype, args.output.display()));
            }
        }
    }
    Ok(Ending::Done)
}

fn export_gguf(checkpoint: &Checkpoint, args: &ExportArgs, quiet: bool) -> Result<()> {
    checkpoint.save_gguf(&args.output, args.dtype)?;
    if !quiet {
        let (unfit, matrices) = checkpoint.weights.unfit_for(args.dtype);
        let kept = if unfit > 0 {
            format!("; {unfit} of {matrices} matrices are not in whole blocks of it and stay as they are")
        } else {
            String::new()
        };
        note(&format!("{} in {}{kept}", args.dtype, args.output.display()));
    }
    Ok(())
}

/// Writes a Hugging Face folder of a model with an adapter merged into its weights.
fn merge(checkpoint: &Checkpoint, source: &Path, adapter: &Path, (to, format): (&Path, Format)) -> Result<()> {
    let checkpoint = &checkpoint.clone().in_standard_form()?;
    let layout = wsd_train::Layout::new(&wsd_nn::arch::blueprint(&checkpoint.config)?);
    let (mut adapter, parameters) = wsd_train::adapters::load(adapter, &layout, layout.read(checkpoint)?)?;
    let weights = adapter.merge(&parameters);
    Ok(wsd_train::save_folder(to, checkpoint, Some(source), (&layout, weights), format)?)
}
