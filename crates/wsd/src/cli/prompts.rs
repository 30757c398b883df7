//! Prompts to draft and score, from a file of rows or from a benchmark.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use wsd::config::Settings;
use wsd::eval::{Item, Task};
use wsd::lab::data::{Record, read_rows};
use wsd_core::Job;

use super::eval::{TaskFile, TaskOptions};
use super::prompt::of_row;
use super::usage;

/// The options for the prompts.
#[derive(Args, Debug)]
pub(super) struct PromptsArgs {
    /// The prompts: JSON lines or a JSON list as for `wsd generate --input`, or TASK=FILE for those of a
    /// benchmark
    #[arg(value_name = "PROMPTS")]
    prompts: String,
    /// The folder for drafts and results; drafts that are there are kept
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: PathBuf,
    /// At most this many prompts, evenly spread [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Prompts at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) parallel: u16,
}

/// Prompts with their requests.
pub(super) struct Prompts {
    pub(super) records: Vec<Record>,
    pub(super) jobs: Vec<Job>,
    /// The most prompts taken, where there is such a limit.
    pub(super) limit: Option<u32>,
    /// The benchmark and its items, if the prompts are one's.
    pub(super) task: Option<(&'static Task, Vec<Item>)>,
}

impl PromptsArgs {
    /// Reads the prompts.
    pub(super) fn read(&self, settings: &Settings) -> Result<Prompts> {
        let path = Path::new(&self.prompts);
        if !path.exists() && self.prompts.contains('=') {
            let file: TaskFile = self.prompts.parse().map_err(|fault: String| usage(fault))?;
            let options = TaskOptions { limit: self.limit, parallel: self.parallel, ..TaskOptions::default() };
            let run = options.plan(&file, settings)?.run;
            let records = run.records()?;
            let jobs = run.jobs(&records, &[]);
            return Ok(Prompts { records, jobs, limit: self.limit, task: Some((run.task, run.items)) });
        }
        let mut records = read_rows(path)?;
        let (count, limit) = (records.len(), self.limit.map_or(usize::MAX, |limit| limit as usize));
        let limit = limit.min(count);
        let mut place = 0..count;
        records.retain(|_| place.next().is_some_and(|i| (i + 1) * limit / count > i * limit / count));
        let jobs = records.iter().enumerate().map(|(row, record)| {
            let prompt = of_row(record.prompt(), &settings.prompt);
            let prompt = prompt.with_context(|| format!("{}: row {}", path.display(), row + 1))?;
            Ok(settings.job_with(prompt, record.values().clone()))
        });
        let jobs = jobs.collect::<Result<_>>()?;
        Ok(Prompts { records, jobs, limit: self.limit, task: None })
    }
}
