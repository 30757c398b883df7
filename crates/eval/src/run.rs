//! A run: the answers of several systems to the items of several tasks, in a folder that an
//! interrupted run resumes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use wsd_core::files::write_whole;
use wsd_core::{Engine, Job, Message, Strategy, Terms, Values};
use wsd_lab::data::{Answering, Journal, Record, RowJobs, RowSettings, in_order};

use crate::{ChoiceScore, EvalError, Form, Item, Sample, System, Task, score_choices};

/// Paths of a run's files.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Names the run folder at a path, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Path of a system's answers to a task.
    #[must_use]
    pub fn samples(&self, task: &str, system: &str) -> PathBuf {
        self.path.join("samples").join(task).join(format!("{system}.jsonl"))
    }

    /// Path of a system's answers to the second turns of a task.
    #[must_use]
    pub fn next_turn(&self, task: &str, system: &str) -> PathBuf {
        self.path.join("samples").join(task).join("turn_2").join(format!("{system}.jsonl"))
    }

    /// Path of the file `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, name: &str, text: &str) -> Result<(), EvalError> {
        let path = self.file(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(write_whole(&path, text.as_bytes())?)
    }

    /// Reads a system's answers to a task; none if there is no file.
    ///
    /// # Errors
    /// I/O errors; [`EvalError::Sample`] for a row that cannot be parsed.
    pub fn read(&self, task: &str, system: &str) -> Result<Vec<Sample>, EvalError> {
        Self::read_file(&self.samples(task, system))
    }

    /// Reads a system's answers to the second turns of a task; none if there is no file.
    ///
    /// # Errors
    /// Those of [`RunFolder::read`].
    pub fn read_next_turn(&self, task: &str, system: &str) -> Result<Vec<Sample>, EvalError> {
        Self::read_file(&self.next_turn(task, system))
    }

    fn read_file(path: &Path) -> Result<Vec<Sample>, EvalError> {
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs_err::read_to_string(path)?;
        let rows = text.lines().enumerate().map(|(index, line)| {
            let fault = |source| EvalError::Sample { path: path.into(), line: index + 1, source };
            serde_json::from_str(line).map_err(fault)
        });
        rows.collect()
    }

    /// The systems that have answers to a task, in the order of [`System::all`].
    #[must_use]
    pub fn systems(&self, task: &str) -> Vec<System> {
        System::all().filter(|system| self.samples(task, system.name).exists()).collect()
    }
}

/// A system with its strategy.
pub struct Candidate {
    /// The system.
    pub system: System,
    /// The strategy over its models.
    pub strategy: Arc<dyn Strategy>,
    /// Settings that its answers depend on.
    pub settings: Map<String, Value>,
}

/// A task with the items to answer.
pub struct TaskRun {
    /// The task.
    pub task: &'static Task,
    /// Items, each as often as it is answered.
    pub items: Vec<Item>,
    /// Form of the prompts.
    pub form: Form,
    /// Messages above each conversation of every system, such as instructions.
    pub before: Vec<Message>,
    /// Settings of terms and sampling, below those of the items.
    pub values: Values,
    /// Number of items answered concurrently.
    pub parallel: usize,
}

/// A row of a scored item.
#[derive(Serialize)]
struct ScoredRow<'a> {
    output: String,
    scores: Vec<ChoiceScore>,
    wsd: RowSettings<'a>,
}

impl TaskRun {
    /// True if the items' choices are scored and nothing is written.
    #[must_use]
    pub fn is_scored(&self) -> bool {
        self.items.iter().any(|item| !item.choices.is_empty())
    }

    /// Number of rows that a system writes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.items.len() * (1 + usize::from(self.task.follow_up.is_some()))
    }

    /// Keeps `limit` items, evenly spread over the file.
    pub fn limit(&mut self, limit: usize) {
        let count = self.items.len();
        let limit = limit.min(count);
        let mut place = 0..count;
        self.items.retain(|_| place.next().is_some_and(|i| (i + 1) * limit / count > i * limit / count));
    }

    /// Repeats each item `samples` times with seeds that count up from `seed`.
    pub fn repeat(&mut self, samples: usize, seed: u64) {
        if samples > 1 {
            let repeated = self.items.iter().flat_map(|item| {
                (0..samples).map(|sample| Item { sample, seed: Some(seed.wrapping_add(sample as u64)), ..item.clone() })
            });
            self.items = repeated.collect();
        }
    }

    /// Answers or scores every item with a candidate; rows that `folder` has already are kept.
    /// `on_row` is called after each row with its index, and with the error if the row failed.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn run(
        &self,
        candidate: &Candidate,
        folder: &RunFolder,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let (mut on_row, system) = (on_row, &candidate.system);
        self.write(candidate, &folder.samples(self.task.name, system.name), &mut on_row).await?;
        let Some(next) = self.second_turn(system, folder)? else { return Ok(()) };
        next.write(candidate, &folder.next_turn(self.task.name, system.name), &mut on_row).await
    }

    /// Counts the rows that `system` has yet to write in `folder` with these settings.
    ///
    /// # Errors
    /// [`EvalError::Journal`] for answers to other items or of other settings.
    pub fn left(&self, system: &System, settings: &Map<String, Value>, folder: &RunFolder) -> Result<usize, EvalError> {
        let answered = Journal::check(&folder.samples(self.task.name, system.name), &self.records()?, settings)?;
        if answered < self.items.len() {
            return Ok(self.rows() - answered);
        }
        let Some(next) = self.second_turn(system, folder)? else { return Ok(0) };
        let path = folder.next_turn(self.task.name, system.name);
        Ok(next.items.len() - Journal::check(&path, &next.records()?, settings)?)
    }

    /// The second turns that follow the answers in `folder`; `None` for a task without them.
    fn second_turn(&self, system: &System, folder: &RunFolder) -> Result<Option<Self>, EvalError> {
        let Some(follow_up) = self.task.follow_up else { return Ok(None) };
        let samples = folder.read(self.task.name, system.name)?;
        let answered = samples.iter().filter(|sample| sample.error.is_none());
        let items: Vec<_> = answered.filter_map(|sample| follow_up(&sample.item, &sample.output)).collect();
        Ok(Some(Self { items, before: self.before.clone(), values: self.values.clone(), ..*self }))
    }

    /// Answers or scores the items and writes the rows to `path`.
    async fn write(
        &self,
        candidate: &Candidate,
        path: &Path,
        on_row: &mut impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let records = self.records()?;
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let mut journal = Journal::open(path, &records, candidate.settings.clone())?;
        if self.is_scored() {
            let engine = candidate.strategy.output_engine();
            let work = async |row: usize| self.score(engine.as_ref(), row, &candidate.settings).await;
            in_order(&records, &mut journal, self.parallel, work, on_row).await?;
        } else {
            let jobs = self.jobs(&records, &candidate.system.messages_before());
            let answering = Answering { parallel: self.parallel, timings: true, full: false };
            let rows = RowJobs { strategy: &candidate.strategy, records: &records, jobs: &jobs };
            answering.answer(rows, &mut journal, on_row).await?;
        }
        Ok(journal.close()?)
    }

    /// The items as rows of prompts.
    ///
    /// # Errors
    /// [`EvalError::Item`].
    pub fn records(&self) -> Result<Vec<Record>, EvalError> {
        self.items.iter().map(Item::record).collect()
    }

    /// The request of each row. `examples` are messages above each conversation, besides the run's own.
    #[must_use]
    pub fn jobs(&self, records: &[Record], examples: &[Message]) -> Vec<Job> {
        let before = [examples, &self.before].concat();
        let job = |record: &Record| {
            let terms = Terms::from_values(&record.values().clone().or(self.values.clone()));
            Job { prompt: self.form.prompt(record.prompt(), &before), terms }
        };
        records.iter().map(job).collect()
    }

    async fn score<'a>(
        &self,
        engine: &dyn Engine,
        row: usize,
        settings: &'a Map<String, Value>,
    ) -> wsd_core::Result<ScoredRow<'a>> {
        let item = &self.items[row];
        let scores = score_choices(engine, &item.prompt, &item.choices).await?;
        let best = scores.iter().enumerate().max_by(|(i, a), (j, b)| a.logprob.total_cmp(&b.logprob).then(j.cmp(i)));
        let output = best.map_or(String::new(), |(index, _)| item.choices[index].clone());
        Ok(ScoredRow { output, scores, wsd: RowSettings { settings } })
    }
}
