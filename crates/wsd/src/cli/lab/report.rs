//! `wsd lab report`: the report on run folders.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wsd::lab::eval::RunFolder;
use wsd::lab::report::{Run, report};

use crate::cli::output::Output;
use crate::cli::{Ending, GlobalArgs, note, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd lab report run
      Grade the answers of a run and write its report again.
  wsd lab report run-1 run-2 run-3 --out docs/lab
      One report on several worlds or training seeds: the means of the runs.";

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Run folders of `wsd lab eval`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The folder of the report [default: the run folder, if it is only one]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs, global: &GlobalArgs) -> Result<Ending> {
    let out = match (&args.out, &args.runs[..]) {
        (Some(out), _) | (None, [out]) => out,
        _ => return Err(usage("several runs need a folder for their report\n  hint: name one with --out")),
    };
    write(&args.runs, out, global)
}

/// Writes the report on some runs and prints its table.
pub(super) fn write(runs: &[PathBuf], out: &Path, global: &GlobalArgs) -> Result<Ending> {
    let read = runs.iter().map(|path| {
        let run = Run::read(&RunFolder::new(path)).with_context(|| path.display().to_string())?;
        if run.samples.is_empty() {
            bail!("{}: it has no samples", path.display());
        }
        Ok(run)
    });
    let pages = report(&read.collect::<Result<Vec<_>>>()?)?;
    let folder = RunFolder::new(out);
    for page in &pages {
        folder.write(page.name, &page.text)?;
        if page.name.ends_with(".md") {
            Output::stdout(global.color).text(&page.text)?;
        }
    }
    if !global.quiet {
        let names: Vec<_> = pages.iter().map(|page| page.name).collect();
        note(&format!("wrote {} in {}", names.join(", "), out.display()));
    }
    Ok(Ending::Done)
}
