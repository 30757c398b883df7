//! Judgements of a model on the answers of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use wsd::config::Settings;
use wsd::eval::judge::{Judgements, items};
use wsd::eval::{Candidate, Form, RunFolder, Sample, Source, System, Task, TaskRun};
use wsd::models;
use wsd_core::{Models, Need, Recipe, Seat, Strategy, Values};

use crate::cli::progress::Rows;
use crate::cli::{GlobalArgs, note, usage};

/// Tasks whose answers are judged.
pub(super) struct Judging<'a> {
    /// Tasks of the run.
    pub(super) tasks: &'a [&'static Task],
    /// Names of the tasks to judge.
    pub(super) named: &'a [String],
    /// File of answers to compare with; the base's answers if absent.
    pub(super) against: Option<&'a Path>,
    pub(super) folder: &'a RunFolder,
}

impl Judging<'_> {
    /// Checks before anything runs that there is a judge and that the tasks are those of the run.
    pub(super) fn check(&self, settings: &Settings) -> Result<()> {
        if !self.named.is_empty() && settings.model(Seat::JUDGE).is_none() {
            return Err(usage(
                "`--judge` needs a model\n  hint: name one with --model judge=MODEL: a file, a folder or an address",
            ));
        }
        let is_known = |name: &&String| self.tasks.iter().any(|task| task.name == name.as_str());
        match self.named.iter().find(|name| !is_known(name)) {
            Some(name) => Err(usage(format!("`--judge` must be a task of this run, got {name}"))),
            None => Ok(()),
        }
    }

    /// Compares the answers of every system with the reference's, and writes `judgements/TASK.json`.
    pub(super) async fn run(&self, settings: &Settings, parallel: usize, global: &GlobalArgs) -> Result<()> {
        let Some(judge) = settings.model(Seat::JUDGE) else { return Ok(()) };
        let tasks = self.named.iter().map(|name| Task::find(name)).collect::<Result<Vec<_>, _>>()?;
        let work = tasks.iter().map(|&task| self.plan(task, &judge.name, parallel)).collect::<Result<Vec<_>>>()?;
        let mut strategy = None;
        if work.iter().flatten().any(|comparison| comparison.left > 0) {
            let loaded = models::load(settings, &[Need::any(Seat::JUDGE)], parallel, global.progress().as_mut())?;
            let models = Models::default().with(Seat::BASE, loaded.require("judge", Seat::JUDGE)?);
            strategy = Some(Recipe::find("base")?.build(&models, &Values::default())?);
        }
        for (task, work) in tasks.into_iter().zip(work) {
            let mut found = BTreeMap::new();
            for comparison in work {
                let judgements = comparison.run(strategy.as_ref(), global).await?;
                tell(task, comparison.judged.name, &judgements);
                found.insert(comparison.judged.name, judgements);
            }
            let text = format!("{}\n", serde_json::to_string_pretty(&found)?);
            self.folder.write(&format!("judgements/{}.json", task.name), &text)?;
        }
        Ok(())
    }

    /// The comparisons of a task: one for each system.
    fn plan(&self, task: &'static Task, judge: &str, parallel: usize) -> Result<Vec<Comparison>> {
        let references = self.references(task)?;
        let mut work = Vec::new();
        for system in self.folder.systems(task.name) {
            if self.against.is_none() && system.name == "base" {
                continue;
            }
            let items = items(&self.folder.read(task.name, system.name)?, &references);
            if items.is_empty() {
                bail!("{}: no item of {} has an answer to compare with", task.name, system.name);
            }
            let run =
                TaskRun { task, items, form: Form::Chat, before: Vec::new(), values: Values::default(), parallel };
            let settings = [("judge", judge), ("system", system.name), ("task", task.name)];
            let settings = settings.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect();
            let judging = System::find("base")?;
            // The replies stand in a folder of their own, in which the judge answers as the base.
            let folder = RunFolder::new(&self.folder.file(&format!("judgements/{}", system.name)));
            let left = run.left(&judging, &settings, &folder)?;
            work.push(Comparison { judged: system, judging, run, folder, settings, left });
        }
        Ok(work)
    }

    /// The answers to compare with, by item.
    fn references(&self, task: &Task) -> Result<BTreeMap<String, String>> {
        let of = |sample: Sample| (sample.item.id, sample.output);
        let Some(path) = self.against else {
            return Ok(self.folder.read(task.name, "base")?.into_iter().map(of).collect());
        };
        let source = Source::read(path)?;
        let rows = source.rows()?;
        let answers = rows.iter().map(|row| Ok((row.text("instruction")?.to_owned(), row.text("output")?.to_owned())));
        let answers = answers.collect::<Result<BTreeMap<_, _>, wsd::eval::SourceError>>()?;
        let mut found = BTreeMap::new();
        for system in self.folder.systems(task.name) {
            for sample in self.folder.read(task.name, system.name)? {
                if let Some(answer) = answers.get(&sample.item.prompt) {
                    found.insert(sample.item.id, answer.clone());
                }
            }
        }
        Ok(found)
    }
}

/// The answers of a system beside others, for a judge.
struct Comparison {
    /// The system whose answers are judged.
    judged: System,
    /// The system that the judge's replies are filed under.
    judging: System,
    run: TaskRun,
    folder: RunFolder,
    settings: Map<String, Value>,
    /// Replies that are not there yet.
    left: usize,
}

impl Comparison {
    /// Asks the judge for the replies that are not there yet, and counts all.
    async fn run(&self, judge: Option<&Arc<dyn Strategy>>, global: &GlobalArgs) -> Result<Judgements> {
        let (task, all) = (self.run.task.name, self.run.rows());
        if let Some(strategy) = judge.filter(|_| self.left > 0) {
            if !global.quiet {
                note(&format!("{task}, {}, judge:", self.judged.name));
            }
            let (system, settings) = (self.judging, self.settings.clone());
            let candidate = Candidate { system, strategy: strategy.clone(), settings };
            let mut rows = Rows::new(all, all - self.left, global.quiet);
            self.run.run(&candidate, &self.folder, |row, error| rows.on_row(row, error)).await?;
            rows.stop();
        }
        Ok(Judgements::of(&self.folder.read(task, self.judging.name)?))
    }
}

/// Tells the result, with the replies that could not be used.
fn tell(task: &Task, system: &str, found: &Judgements) {
    let rate = found.win_rate.map_or("no usable reply".into(), |rate| {
        format!("wins {:.1} % [{:.1}, {:.1}]", 100.0 * rate.value, 100.0 * rate.low, 100.0 * rate.high)
    });
    let Judgements { n, unmarked, failed, .. } = found;
    note(&format!("{}, {system}: {rate} of {n} items; {unmarked} replies without a mark, {failed} failed", task.name));
}
