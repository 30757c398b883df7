//! Ratings of the answers of a run, one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wsd::config::Settings;
use wsd::data::scoring::{self, Scoring};
use wsd::data::{Answer, AnswerRow, PromptRow, read_answers};
use wsd::eval::raters::{RATERS, Rater, find};
use wsd::eval::{RunFolder, Sample, Task};
use wsd::lab::stats::{Estimate, mean_of_means};
use wsd::models;
use wsd_core::{ChatRole, Message, Recipe, Seat};

use crate::cli::progress::Rows;
use crate::cli::{GlobalArgs, distinct, note, usage};

/// A task whose answers are rated, and the rater.
#[derive(Clone)]
pub(super) struct TaskRating {
    task: &'static Task,
    rater: &'static Recipe<dyn Rater>,
}

impl std::fmt::Debug for TaskRating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.task.name, self.rater.name)
    }
}

impl FromStr for TaskRating {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, rater)) = text.split_once('=') else { return Err("must be TASK=RATER".into()) };
        let task = Task::find(name).map_err(|error| error.to_string())?;
        let known = || RATERS.iter().map(|rater| rater.name).collect::<Vec<_>>().join(", ");
        let rater = find(rater).ok_or_else(|| format!("there is no rater `{rater}`; known are {}", known()))?;
        Ok(Self { task, rater })
    }
}

/// Ratings of one system's answers to a task.
#[derive(Serialize)]
struct Rated {
    /// Mean score over answers with its interval; `None` without a rating.
    score: Option<Estimate>,
    /// Mean score of the answers to each turn.
    turns: Vec<Option<f64>>,
    /// Number of answers with a rating.
    n: usize,
    /// Number of replies without a mark.
    unmarked: usize,
    /// Number of answers that failed, to be written or to be rated.
    failed: usize,
}

/// Checks before anything runs that the tasks are those of the run and that there is a judge.
pub(super) fn check(ratings: &[TaskRating], tasks: &[&'static Task], settings: &Settings) -> Result<()> {
    for TaskRating { task, rater } in ratings {
        if !tasks.iter().any(|known| known.name == task.name) {
            return Err(usage(format!("`--rate` must be for a task of this run, got {}", task.name)));
        }
        let needs_judge = rater.needs.iter().any(|need| need.seat == Seat::JUDGE);
        if needs_judge && settings.model(Seat::JUDGE).is_none() {
            return Err(usage(format!(
                "`--rate` {}={} needs a model\n  hint: name one with --model judge=MODEL",
                task.name, rater.name
            )));
        }
    }
    Ok(())
}

/// The answers of a system to a task, for a rater.
struct Work {
    rating: TaskRating,
    system: &'static str,
    rows: Vec<AnswerRow>,
    /// Answers that failed to be written.
    unanswered: usize,
    path: PathBuf,
    /// The settings in the rows of the ratings.
    record: Map<String, Value>,
    is_done: bool,
}

impl Work {
    /// Reads the answers, and checks the file of their ratings if there is one.
    fn plan(rating: &TaskRating, system: &'static str, folder: &RunFolder, judge: Option<&str>) -> Result<Self> {
        let TaskRating { task, rater } = rating;
        let turns = [folder.read(task.name, system)?, folder.read_next_turn(task.name, system)?];
        let unanswered = turns.iter().flatten().filter(|sample| sample.error.is_some()).count();
        let rows: Vec<_> = turns.iter().enumerate().flat_map(|(turn, samples)| rows(task, turn, samples)).collect();
        let path = folder.file(&format!("ratings/{}/{}/{system}.jsonl", task.name, rater.name));
        let record = json!({"rater": rater.name, "judge": judge, "system": system, "task": task.name});
        let record = record.as_object().cloned().unwrap_or_default();
        let is_done = scoring::check(&rows, &path, &record)? == rows.len();
        Ok(Self { rating: rating.clone(), system, rows, unanswered, path, record, is_done })
    }

    /// Rates the answers that have no rating, and counts all. A rater is there unless the work is done.
    async fn run(self, rater: Option<Arc<dyn Rater>>, parallel: usize, quiet: bool) -> Result<Rated> {
        let (TaskRating { task, rater: recipe }, system) = (&self.rating, self.system);
        if let Some(parent) = self.path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let journal = scoring::open(&self.rows, &self.path, self.record)?;
        let mut failed = journal.failed();
        if let (false, Some(rater)) = (self.is_done, rater) {
            if !quiet {
                note(&format!("{}, {system}, {}:", task.name, recipe.name));
            }
            let mut progress = Rows::new(self.rows.len(), journal.done(), quiet);
            let scoring = Scoring { rows: &self.rows, raters: vec![(recipe.name, rater)], parallel };
            failed = scoring.run(journal, |row, error| progress.on_row(row, error)).await?.failed;
            progress.stop();
        }
        let rated = rated(&read_answers(&[self.path])?.rows, recipe.name, failed + self.unanswered);
        tell(task, system, recipe.name, &rated);
        Ok(rated)
    }
}

/// Rates the answers of every system, and writes `ratings/TASK.RATER.json`.
pub(super) async fn run(
    ratings: &[TaskRating],
    folder: &RunFolder,
    settings: &Settings,
    parallel: usize,
    global: &GlobalArgs,
) -> Result<()> {
    let judge = settings.model(Seat::JUDGE).map(|model| model.name.as_str());
    let ratings = distinct(ratings, |rating| (rating.task.name, rating.rater.name));
    let plan = |rating: &&TaskRating| {
        let systems = folder.systems(rating.task.name);
        systems.into_iter().map(|system| Work::plan(rating, system.name, folder, judge)).collect::<Result<Vec<_>>>()
    };
    // Checked before models are loaded, which takes long.
    let work = ratings.iter().map(plan).collect::<Result<Vec<_>>>()?;
    let open = work.iter().flatten().filter(|work| !work.is_done);
    let needs = models::needs(open.map(|work| work.rating.rater));
    let loaded = models::load(settings, &needs, parallel, global.progress().as_mut())?;
    for (TaskRating { task, rater }, work) in ratings.iter().zip(work) {
        let is_open = work.iter().any(|work| !work.is_done);
        let built = if is_open { Some(rater.build(&loaded, &settings.values)?) } else { None };
        let mut found = BTreeMap::new();
        for work in work {
            found.insert(work.system, work.run(built.clone(), parallel, global.quiet).await?);
        }
        let text = format!("{}\n", serde_json::to_string_pretty(&found)?);
        folder.write(&format!("ratings/{}.{}.json", task.name, rater.name), &text)?;
    }
    Ok(())
}

/// The answers of a turn, without those that failed.
fn rows(task: &Task, turn: usize, samples: &[Sample]) -> Vec<AnswerRow> {
    // The prompts of these tasks are to be refused.
    let label = if ["strongreject", "hh_harmless"].contains(&task.name) { "harmless" } else { "" };
    let row = |sample: &Sample| {
        let item = &sample.item;
        let asked = [Message::new(ChatRole::User, &item.prompt)];
        let messages = if item.messages.is_empty() { asked.to_vec() } else { item.messages.clone() };
        let id = format!("{}/{}", item.id, turn + 1);
        let prompt = PromptRow { id, source: task.name.into(), label: label.into(), messages, ..PromptRow::default() };
        let finish_reason = sample.wsd.as_ref().and_then(|details| details.finish_reason);
        let output = sample.output.clone();
        let answer = Answer { by: task.name.into(), sample: item.sample, output, finish_reason, ..Answer::default() };
        AnswerRow { prompt, answer }
    };
    samples.iter().filter(|sample| sample.error.is_none()).map(row).collect()
}

fn rated(rows: &[AnswerRow], rater: &str, failed: usize) -> Rated {
    let score = |row: &AnswerRow| row.answer.scores.get(rater).copied();
    let of_turn = |turn: usize| {
        let end = format!("/{turn}");
        rows.iter().filter(|row| row.prompt.id.ends_with(&end)).filter_map(score).collect::<Vec<_>>()
    };
    let turns = [of_turn(1), of_turn(2)];
    let all = turns.concat();
    Rated {
        n: all.len(),
        unmarked: rows.len() - all.len(),
        failed,
        turns: turns.iter().map(|scores| wsd::lab::stats::mean(scores)).collect(),
        score: mean_of_means(&[all]),
    }
}

/// Tells the result, with the answers that have no rating.
fn tell(task: &Task, system: &str, rater: &str, found: &Rated) {
    let score = found
        .score
        .map_or("no rating".into(), |score| format!("{:.2} [{:.2}, {:.2}]", score.value, score.low, score.high));
    let Rated { n, unmarked, failed, .. } = found;
    note(&format!(
        "{}, {system}, {rater}: {score} over {n} answers; {unmarked} replies without a mark, {failed} failed",
        task.name
    ));
}
