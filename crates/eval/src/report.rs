//! Results of a run: pure functions of the rows in its folder.

mod diversity;
mod markdown;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wsd_core::{FinishReason, Seat};
use wsd_lab::plot::{Bar, Bars, Page};
use wsd_lab::stats::{Estimate, bootstrap, mean, median, standard_error};

pub use diversity::{distinct, self_bleu};

use crate::{EvalError, Execution, Outcome, Response, RunFolder, Sample, Score, Task, Verdict};

/// Version of the layout of `results.json`.
const FORMAT: u32 = 1;

/// Results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this layout.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// Results by task, in the order of the run.
    pub tasks: Vec<TaskResults>,
}

/// Results of the systems on one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResults {
    /// Name of the task.
    pub task: String,
    /// Results of each system.
    pub systems: Vec<SystemResults>,
}

/// Results of one system on one task. Shares are in `[0, 1]`; intervals are 95 % bootstrap
/// intervals over items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemResults {
    /// Name of the system.
    pub system: String,
    /// Points reached divided by points possible, by metric.
    pub metrics: BTreeMap<String, Estimate>,
    /// Standard error of each metric's mean over items.
    pub standard_errors: BTreeMap<String, f64>,
    /// Number of rows, failed ones included.
    pub n: usize,
    /// Number of rows with an error; they count as wrong.
    pub failed: usize,
    /// Statistics of written answers; `None` for a scored task.
    pub answers: Option<Answers>,
    /// Settings that the answers depend on.
    pub settings: Map<String, Value>,
}

/// Statistics of the answers of one system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Mean number of tokens.
    pub tokens: f64,
    /// Share of the tokens by author.
    pub by_author: BTreeMap<String, f64>,
    /// Share of the answers that reached the token limit.
    pub cut: f64,
    /// Share of the answers in which the base took over at a switch.
    pub switched: f64,
    /// Median 0-based index of the token at which the base took over.
    pub median_switch: Option<f64>,
    /// Number of answers without a switch by reason: `draft_ended`, `cut`, or `no_rule` for a
    /// strategy that has none.
    pub no_switch: BTreeMap<String, usize>,
    /// Distinct n-grams of words divided by all, for n = 1, 2, 3 (Li et al. 2016, arXiv 1510.03055).
    pub distinct: [f64; 3],
    /// Mean self-BLEU of the answers to an item, where items are answered several times (Zhu et al. 2018,
    /// arXiv 1802.01886).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_bleu: Option<f64>,
    /// Mean seconds for an answer, under the run's concurrency.
    pub seconds: f64,
    /// Seconds of this system divided by those of the base alone on the same rows of the same run.
    pub time_to_base: Option<f64>,
}

/// A row together with its verdict.
#[derive(Clone, Debug)]
pub struct Graded {
    /// The row.
    pub sample: Sample,
    /// The verdict.
    pub verdict: Verdict,
}

/// Grades the rows of a system. A row with an error gets no points. Programs are executed only under
/// the limits of `execution`.
#[must_use]
pub fn grade(task: &Task, samples: Vec<Sample>, execution: Option<Execution>) -> Vec<Graded> {
    let graded = samples.into_iter().map(|sample| {
        let response = Response { text: &sample.output, choices: &sample.scores };
        let mut verdict = match (task.program, execution) {
            (Some(program), Some(limits)) => {
                let outcome = limits.python(&program(&sample.item, &sample.output));
                let pass = Score::of(outcome == Outcome::Passed);
                Verdict::default().with(task.metrics[0].name, pass).noted(outcome.text())
            }
            _ => (task.grade)(&sample.item, response),
        };
        if let Some(error) = &sample.error {
            verdict.scores.values_mut().for_each(|score| score.sum = 0.0);
            verdict.note.clone_from(error);
        }
        Graded { sample, verdict }
    });
    graded.collect()
}

impl Results {
    /// Grades the answers of a run folder to some tasks, writes each verdict beside its answer into
    /// `verdicts/`, and computes the results.
    ///
    /// # Errors
    /// I/O errors; [`EvalError::Sample`] for a row that cannot be parsed.
    pub fn of(folder: &RunFolder, tasks: &[&'static Task], execution: Option<Execution>) -> Result<Self, EvalError> {
        let tasks = tasks.iter().map(|task| TaskResults::of(folder, task, execution)).collect::<Result<_, _>>()?;
        Ok(Self { format: FORMAT, version: env!("CARGO_PKG_VERSION").into(), tasks })
    }

    /// Formats the results as markdown tables, one for each task.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown::tables(self)
    }

    /// Draws the first metric of each task as bars, one for each system.
    #[must_use]
    pub fn figure(&self) -> Page {
        let panels = self.tasks.iter().filter_map(|task| {
            let metric = Task::find(&task.task).ok()?.metrics.first()?;
            let bar = |system: &SystemResults| {
                let share = system.metrics.get(metric.name);
                Bar {
                    name: system.system.clone(),
                    value: share.map(|share| 100.0 * share.value),
                    interval: share.map(|share| (100.0 * share.low, 100.0 * share.high)),
                    ..Bar::default()
                }
            };
            let title = format!("{}, {}", task.task, metric.name);
            let bars = task.systems.iter().map(bar).collect();
            // Scored tasks have fewer systems, so each chart has its own labels.
            Some(Bars { title, bars, named: true, most: 100.0, decimals: 0 }.into())
        });
        let note = "in percent, with 95 % intervals".into();
        Page { title: "Results".into(), note, columns: 3, panels: panels.collect() }
    }

    /// The results of one system in the shape of lm-evaluation-harness's `results.json`.
    #[must_use]
    pub fn lm_eval(&self, system: &str) -> Value {
        let (mut results, mut samples) = (Map::new(), Map::new());
        for (task, found) in self.tasks.iter().filter_map(|task| Some((&task.task, task.system(system)?))) {
            let mut row = Map::from_iter([("alias".to_owned(), json!(task))]);
            let metrics = Task::find(task).map_or(&[][..], |task| task.metrics);
            for metric in metrics.iter().filter(|metric| !metric.lm_eval.is_empty()) {
                let Some(estimate) = found.metrics.get(metric.name) else { continue };
                let (name, filter) = metric.lm_eval.split_once(',').unwrap_or((metric.lm_eval, "none"));
                row.insert(format!("{name},{filter}"), json!(estimate.value));
                row.insert(format!("{name}_stderr,{filter}"), json!(found.standard_errors.get(metric.name)));
            }
            results.insert(task.clone(), row.into());
            samples.insert(task.clone(), json!({"original": found.n, "effective": found.n}));
        }
        json!({"results": results, "n-samples": samples, "wsd_version": self.version})
    }
}

impl TaskResults {
    fn of(folder: &RunFolder, task: &'static Task, execution: Option<Execution>) -> Result<Self, EvalError> {
        let mut graded = Vec::new();
        for system in folder.systems(task.name) {
            let rows = grade(task, folder.read(task.name, system.name)?, execution);
            folder.write_verdicts(task.name, system.name, &rows)?;
            graded.push((system.name, rows));
        }
        let base = graded.iter().find(|(name, _)| *name == "base").map(|(_, rows)| rows.as_slice());
        let systems = graded.iter().map(|(name, rows)| SystemResults::of(name, task, rows, base)).collect();
        Ok(Self { task: task.name.into(), systems })
    }

    /// The results of a system.
    #[must_use]
    pub fn system(&self, name: &str) -> Option<&SystemResults> {
        self.systems.iter().find(|system| system.system == name)
    }
}

impl SystemResults {
    fn of(system: &str, task: &Task, rows: &[Graded], base: Option<&[Graded]>) -> Self {
        let (mut metrics, mut errors) = (BTreeMap::new(), BTreeMap::new());
        for metric in task.metrics {
            let scores = || rows.iter().filter_map(|row| row.verdict.scores.get(metric.name).copied());
            if let Some(estimate) = ratio(scores().collect()) {
                metrics.insert(metric.name.to_owned(), estimate);
            }
            let means: Vec<f64> = scores().filter(|score| score.count > 0.0).map(|s| s.sum / s.count).collect();
            if let Some(error) = standard_error(&means) {
                errors.insert(metric.name.to_owned(), error);
            }
        }
        let details = rows.iter().find_map(|row| row.sample.wsd.as_ref());
        Self {
            system: system.into(),
            metrics,
            standard_errors: errors,
            n: rows.len(),
            failed: rows.iter().filter(|row| row.sample.error.is_some()).count(),
            answers: Answers::of(rows, base),
            settings: details.map(|details| details.settings.clone()).unwrap_or_default(),
        }
    }
}

impl RunFolder {
    /// Writes the verdicts on a system's answers to a task.
    fn write_verdicts(&self, task: &str, system: &str, rows: &[Graded]) -> Result<(), EvalError> {
        let line = |row: &Graded| {
            let item = &row.sample.item;
            let scores: Map<String, Value> =
                row.verdict.scores.iter().map(|(name, score)| (name.clone(), json!(score.sum / score.count))).collect();
            format!("{}\n", json!({"id": item.id, "sample": item.sample, "scores": scores, "note": row.verdict.note}))
        };
        self.write(&format!("verdicts/{task}/{system}.jsonl"), &rows.iter().map(line).collect::<String>())
    }
}

/// Points reached divided by points possible, with the interval; `None` without a point.
fn ratio(scores: Vec<Score>) -> Option<Estimate> {
    let total = |scores: &[Score]| {
        let (sum, count) = scores.iter().fold((0.0, 0.0), |all, score| (all.0 + score.sum, all.1 + score.count));
        if count > 0.0 { sum / count } else { 0.0 }
    };
    let possible: f64 = scores.iter().map(|score| score.count).sum();
    if possible > 0.0 { bootstrap(&[scores], |groups| total(&groups[0])) } else { None }
}

impl Answers {
    fn of(rows: &[Graded], base: Option<&[Graded]>) -> Option<Self> {
        let details: Vec<_> = rows.iter().filter_map(|row| row.sample.wsd.as_ref()).collect();
        let usage: Vec<_> = details.iter().filter_map(|details| details.usage.as_ref()).collect();
        if usage.is_empty() {
            return None;
        }
        let count = usage.len() as f64;
        let tokens: usize = usage.iter().map(|usage| usage.completion_tokens).sum();
        let mut by_author: BTreeMap<String, f64> = BTreeMap::new();
        for (author, tokens_of) in usage.iter().flat_map(|usage| usage.by_author.iter()) {
            *by_author.entry(author.to_string()).or_default() += tokens_of as f64 / tokens.max(1) as f64;
        }
        let switches: Vec<f64> =
            details.iter().filter_map(|details| details.handover.map(|handover| handover.at as f64)).collect();
        let mut no_switch: BTreeMap<String, usize> = BTreeMap::new();
        for details in details.iter().filter(|details| details.handover.is_none()) {
            *no_switch.entry(reason(details).to_owned()).or_default() += 1;
        }
        let is_cut = |details: &&&crate::SampleDetails| details.finish_reason == Some(FinishReason::Length);
        let seconds = seconds(rows);
        Some(Self {
            tokens: tokens as f64 / count,
            by_author,
            cut: details.iter().filter(is_cut).count() as f64 / count,
            switched: switches.len() as f64 / count,
            median_switch: median(&switches),
            no_switch,
            distinct: [1, 2, 3].map(|n| distinct(rows.iter().map(|row| row.sample.output.as_str()), n)),
            self_bleu: repeated(rows),
            seconds: seconds.values().sum::<f64>() / count,
            time_to_base: base.and_then(|base| time_to(&seconds, &self::seconds(base))),
        })
    }
}

/// Mean self-BLEU over items with several answers.
fn repeated(rows: &[Graded]) -> Option<f64> {
    let mut items: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.sample.error.is_none()) {
        items.entry(&row.sample.item.id).or_default().push(&row.sample.output);
    }
    mean(&items.values().filter_map(|texts| self_bleu(texts)).collect::<Vec<_>>())
}

/// Reason for which an answer has no switch.
fn reason(details: &crate::SampleDetails) -> &'static str {
    let has_rule = details.settings.contains_key(wsd_core::WINDOW.name);
    let by_base = details.usage.as_ref().map_or(0, |usage| usage.by_author.get(Seat::BASE));
    match details.finish_reason {
        _ if !has_rule => "no_rule",
        Some(FinishReason::Length) if by_base == 0 => "cut",
        _ => "draft_ended",
    }
}

/// Seconds of each answered row, by item and sample.
fn seconds(rows: &[Graded]) -> BTreeMap<(&str, usize), f64> {
    let of_row = |row: &'_ Graded| row.sample.wsd.as_ref()?.timings.as_ref().map(|timings| timings.total);
    rows.iter().filter_map(|row| Some(((row.sample.item.id.as_str(), row.sample.item.sample), of_row(row)?))).collect()
}

/// Sum of `own` divided by the sum of `base`, over the rows that both have.
fn time_to(own: &BTreeMap<(&str, usize), f64>, base: &BTreeMap<(&str, usize), f64>) -> Option<f64> {
    let both = own.iter().filter_map(|(row, own)| Some((own, base.get(row)?)));
    let (own, base) = both.fold((0.0, 0.0), |sum, (own, base)| (sum.0 + own, sum.1 + base));
    (base > 0.0).then(|| own / base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::gsm8k::GSM8K_ZERO;

    /// Two rows of WSD and of the base: one right answer, and one row that failed.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let rows = |system: &str, handover: Value, seconds: f64| {
            let usage = json!({"prompt_tokens": 3, "completion_tokens": 8, "draft_tokens": 6, "base_tokens": 2});
            let timings = json!({"total": seconds, "first_token": 0.1, "score": 0.0, "draft": 0.1, "base": 0.1});
            let wsd = json!({
                "handover": handover,
                "finish_reason": "stop",
                "usage": usage,
                "timings": timings,
                "settings": {"window": 6},
            });
            let row = |id: &str, more: (&str, Value), wsd: Value| {
                let doc = json!({"answer": "#### 4"});
                let mut row = json!({"id": id, "prompt": "?", "max_tokens": 9, "doc": doc, "wsd": wsd});
                row[more.0] = more.1;
                format!("{row}\n")
            };
            let right = row("0", ("output", json!("It is #### 4")), wsd);
            let text = right + &row("1", ("error", json!("too long")), Value::Null);
            let path = RunFolder::new(folder.path()).samples("gsm8k_zero", system);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        rows("base", Value::Null, 2.0);
        rows("wsd", json!({"at": 5, "confidence": 0.9, "window": 6, "threshold": 0.8}), 3.0);
        folder
    }

    #[test]
    fn failed_rows_count_as_wrong_and_are_shown() {
        let folder = folder();
        let results = Results::of(&RunFolder::new(folder.path()), &[&GSM8K_ZERO], None).unwrap();
        let wsd = results.tasks[0].system("wsd").unwrap();
        assert_eq!((wsd.n, wsd.failed, wsd.metrics["strict"].value), (2, 1, 0.5));
        let answers = wsd.answers.as_ref().unwrap();
        assert_eq!((answers.switched, answers.median_switch, answers.time_to_base), (1.0, Some(5.0), Some(1.5)));
        assert_eq!((answers.by_author["draft"], answers.tokens), (0.75, 8.0));
        let base = results.tasks[0].system("base").unwrap().answers.as_ref().unwrap();
        assert_eq!(base.no_switch.get("draft_ended"), Some(&1));
        assert!(results.markdown().contains("| wsd | 50.0 [0.0, 100.0] |"), "{}", results.markdown());
        assert_eq!(results.lm_eval("wsd")["results"]["gsm8k_zero"]["exact_match,strict-match"], 0.5);
        assert!(results.figure().svg().contains("gsm8k_zero, strict"));
        let verdicts = fs_err::read_to_string(folder.path().join("verdicts/gsm8k_zero/wsd.jsonl")).unwrap();
        assert!(verdicts.lines().nth(1).unwrap().contains("too long"), "{verdicts}");
    }
}
