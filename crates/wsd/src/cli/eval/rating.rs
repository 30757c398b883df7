//! Ratings of the answers of a run, one by one.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, json};
use wsd::config::Settings;
use wsd::data::scoring::{NamedRaters, Scoring};
use wsd::data::{Answer, AnswerRow, PromptRow, read_answers};
use wsd::eval::raters::{RATERS, Rater, find};
use wsd::eval::{RunFolder, Sample, Task};
use wsd::lab::stats::{Estimate, mean_of_means};
use wsd::models;
use wsd_core::{ChatRole, Message, Recipe, Seat};

use crate::cli::progress::Rows;
use crate::cli::{GlobalArgs, note, usage};

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

/// Rates the answers of every system, and writes `ratings/TASK.RATER.json`.
pub(super) async fn run(
    ratings: &[TaskRating],
    folder: &RunFolder,
    settings: &Settings,
    parallel: usize,
    global: &GlobalArgs,
) -> Result<()> {
    let needs = models::needs(ratings.iter().map(|rating| rating.rater));
    let loaded = models::load(settings, &needs, parallel, global.progress().as_mut())?;
    let judge = settings.model(Seat::JUDGE).map(|model| model.name.clone());
    for TaskRating { task, rater } in ratings {
        let built = rater.build(&loaded, &settings.values)?;
        let mut found = BTreeMap::new();
        for system in folder.systems(task.name) {
            let turns = [folder.read(task.name, system.name)?, folder.read_next_turn(task.name, system.name)?];
            let unanswered = turns.iter().flatten().filter(|sample| sample.error.is_some()).count();
            let rows: Vec<_> = turns.iter().enumerate().flat_map(|(turn, samples)| rows(task, turn, samples)).collect();
            let raters: NamedRaters = vec![(rater.name, built.clone())];
            let path = folder.file(&format!("ratings/{}/{}/{}.jsonl", task.name, rater.name, system.name));
            if let Some(parent) = path.parent() {
                fs_err::create_dir_all(parent)?;
            }
            let record = json!({"rater": rater.name, "judge": judge, "system": system.name, "task": task.name});
            let record: Map<_, _> = record.as_object().cloned().unwrap_or_default();
            if !global.quiet {
                note(&format!("{}, {}, {}:", task.name, system.name, rater.name));
            }
            let mut progress = Rows::new(rows.len(), 0, global.quiet);
            let scoring = Scoring { rows: &rows, raters, parallel };
            let missing = scoring.run(&path, record, |row, error| progress.on_row(row, error)).await?;
            progress.stop();
            let rated = rated(&read_answers(&[path])?.rows, rater.name, missing.failed + unanswered);
            tell(task, system.name, rater.name, &rated);
            found.insert(system.name, rated);
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
