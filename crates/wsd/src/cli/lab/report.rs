//! `wsd lab report`: what run folders come to.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wsd::lab::eval::RunFolder;
use wsd::lab::report::{Run, report};

use super::super::output::Output;
use super::super::{Ending, GlobalArgs, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd lab report run
      Grade the answers of a run again and write its report anew.
  wsd lab report run-1 run-2 run-3 --out docs/lab
      One report on several worlds or training seeds: the means of the runs.";

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Run folders of `wsd lab eval`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where the report goes [default: the run folder, where there is one]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs, look: &GlobalArgs) -> Result<Ending> {
    let out = match (&args.out, &args.runs[..]) {
        (Some(out), _) | (None, [out]) => out,
        _ => bail!("several runs need a folder for their report\n  hint: name one with --out"),
    };
    write(&args.runs, out, look)
}

/// Write the report on some runs and print its table.
pub(super) fn write(runs: &[PathBuf], out: &Path, look: &GlobalArgs) -> Result<Ending> {
    let read = runs.iter().map(|path| {
        let run = Run::read(&RunFolder::new(path)).with_context(|| path.display().to_string())?;
        if run.samples.is_empty() {
            bail!("{}: there are no samples in it", path.display());
        }
        Ok(run)
    });
    let pages = report(&read.collect::<Result<Vec<_>>>()?)?;
    let folder = RunFolder::new(out);
    for page in &pages {
        folder.write(page.name, &page.text)?;
        if page.name.ends_with(".md") {
            Output::stdout(look.color).text(&page.text)?;
        }
    }
    if !look.quiet {
        let names: Vec<_> = pages.iter().map(|page| page.name).collect();
        note(&format!("wrote {} in {}", names.join(", "), out.display()));
    }
    Ok(Ending::Done)
}
