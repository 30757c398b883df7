//! Results of every system, as a table and a figure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{DOWNSTREAM, HHH, Run, Sample, points};
use crate::eval::{SYSTEMS, System, color};
use crate::plot::{Bar, Bars, Page};
use crate::stats::{Estimate, bootstrap, mean, mean_of_means, median};
use crate::world::{Reason, Task};

/// Results of all systems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Number of runs (worlds or training seeds) that the results average.
    pub runs: usize,
    /// Number of items of each task in one run.
    pub items: BTreeMap<Task, usize>,
    /// Results by system, in the order of [`SYSTEMS`].
    pub systems: Vec<SystemResult>,
}

/// Results of one system. Shares are in `[0, 1]`; intervals are 95 % confidence intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemResult {
    /// Name of the system.
    pub system: String,
    /// Share of answers that pass, by task.
    pub tasks: BTreeMap<Task, Estimate>,
    /// Mean of the shares of the helpful, harmless and honest tasks.
    pub hhh: Option<Estimate>,
    /// Mean number of tokens in an answer.
    pub tokens: f64,
    /// Share of the answers' tokens written by the draft.
    pub by_draft: f64,
    /// Statistics of the switch; `None` for systems without a hand-over.
    pub switches: Option<Switches>,
    /// Time per answer, relative to the base alone.
    pub time: Option<Estimate>,
    /// Time per token, relative to the base alone.
    pub time_per_token: Option<Estimate>,
    /// Number of answers by task and reason of their grade.
    pub reasons: BTreeMap<Task, BTreeMap<Reason, usize>>,
    /// Number of rows with an error; they count as failed.
    pub errors: usize,
}

/// Statistics of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switches {
    /// Share of the helpful prompts on which the base took over.
    pub reached: f64,
    /// Median 0-based index of the last drafted token, over the answers to HHH prompts that have a
    /// switch.
    pub median: Option<f64>,
    /// Median index of the last drafted token on the two downstream tasks.
    pub downstream_median: Option<f64>,
}

impl Table {
    /// Computes the results of several runs.
    #[must_use]
    pub fn of(runs: &[Run]) -> Self {
        let known = SYSTEMS.iter().filter(|system| runs.iter().any(|run| run.samples.contains_key(system.name)));
        let mut items = BTreeMap::new();
        for sample in runs.iter().take(1).flat_map(|run| run.samples.values().next()).flatten() {
            *items.entry(sample.item.task).or_insert(0) += 1;
        }
        Self { runs: runs.len(), items, systems: known.map(|system| SystemResult::of(system, runs)).collect() }
    }

    /// Formats the results as a markdown table with a note on the method.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = "| | helpful | harmless | honest | **HHH** | facts | sums | by the draft | switch | time |\n\
                        |---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for result in &self.systems {
            let cell = |task| result.tasks.get(&task).map_or("–".into(), percent);
            let [helpful, harmless, honest] = HHH.map(cell);
            let [facts, sums] = DOWNSTREAM.map(cell);
            let hhh = result.hhh.as_ref().map_or("–".into(), percent);
            let switch = result.switches.map_or("–".into(), |switches| {
                let at = switches.median.map_or("never".into(), |at| format!("token {at:.0}"));
                format!("{at}, {:.0} %", 100.0 * switches.reached)
            });
            let time = result
                .time
                .map_or("–".into(), |time| format!("{:.2} [{:.2}, {:.2}]", time.value, time.low, time.high));
            let _ = writeln!(
                text,
                "| {} | {helpful} | {harmless} | {honest} | **{hhh}** | {facts} | {sums} | {:.0} % | {switch} | \
                {time} |",
                title(&result.system),
                100.0 * result.by_draft
            );
        }
        let items: Vec<_> = self.items.iter().map(|(task, count)| format!("{count} {}", name(*task))).collect();
        let runs = if self.runs == 1 { "One run".into() } else { format!("The mean of {} runs", self.runs) };
        let _ = write!(
            text,
            "\n{runs} of {} items, greedy. Shares in percent with 95 % intervals (bootstrap over items, 2000 draws); \
            HHH is the mean \
             of the three before it. *By the draft*: share of the answers' tokens. *Switch*: median index of the \
             last drafted token on \
             the first three tasks, and the share of helpful prompts on which the base took over. *Time*: seconds \
             for an answer, \
             relative to the base alone: for each prompt the systems answer by turns, one request at a time; medians \
             of the rounds, \
             summed over prompts.\n",
            items.join(", ")
        );
        text
    }

    /// Renders the results as bars.
    #[must_use]
    pub fn figure(&self) -> Page {
        let bars = |title: &str, named, of: &dyn Fn(&SystemResult) -> Option<Estimate>| Bars {
            title: title.into(),
            bars: self.systems.iter().map(|result| bar(result, of(result))).collect(),
            named,
            most: 100.0,
            decimals: 0,
        };
        let task = |task: Task, named| bars(name(task), named, &move |result| result.tasks.get(&task).copied());
        let panels = vec![
            task(Task::Helpful, true).into(),
            task(Task::Harmless, false).into(),
            task(Task::Honest, false).into(),
            bars("HHH", true, &|result| result.hhh).into(),
            task(Task::Facts, false).into(),
            task(Task::Sums, false).into(),
        ];
        let note = format!("answers that pass, in percent, with 95 % intervals; runs: {}", self.runs);
        Page { title: "What each system gets right".into(), note, columns: 3, panels }
    }
}

fn bar(result: &SystemResult, share: Option<Estimate>) -> Bar {
    let system = System::find(&result.system);
    Bar {
        name: title(&result.system).into(),
        value: share.map(|share| 100.0 * share.value),
        interval: share.map(|share| (100.0 * share.low, 100.0 * share.high)),
        color: system.map_or(color::BASE, |system| system.color),
    }
}

fn title(system: &str) -> &str {
    System::find(system).map_or(system, |system| system.title)
}

pub(super) fn name(task: Task) -> &'static str {
    match task {
        Task::Helpful => "helpful",
        Task::Harmless => "harmless",
        Task::Honest => "honest",
        Task::Facts => "downstream facts",
        Task::Sums => "downstream sums",
    }
}

fn percent(share: &Estimate) -> String {
    format!("{:.1} [{:.1}, {:.1}]", 100.0 * share.value, 100.0 * share.low, 100.0 * share.high)
}

impl SystemResult {
    fn of(system: &System, runs: &[Run]) -> Self {
        let rows: Vec<&[Sample]> =
            runs.iter().filter_map(|run| run.samples.get(system.name)).map(Vec::as_slice).collect();
        let passes = |task: Task| {
            let of_run = |rows: &&[Sample]| -> Vec<f64> {
                rows.iter().filter(|row| row.item.task == task).map(|row| points(&row.item, &row.output)).collect()
            };
            rows.iter().map(of_run).collect::<Vec<_>>()
        };
        let tasks = HHH.into_iter().chain(DOWNSTREAM);
        let tasks = tasks.filter_map(|task| Some((task, mean_of_means(&passes(task))?))).collect();
        let hhh = mean_of_means(&HHH.map(passes).concat());
        let mut reasons: BTreeMap<Task, BTreeMap<Reason, usize>> = BTreeMap::new();
        for row in rows.iter().copied().flatten() {
            let found = row.item.grade(&row.output).reason;
            *reasons.entry(row.item.task).or_default().entry(found).or_default() += 1;
        }
        let usage = || rows.iter().copied().flatten().filter_map(|row| Some(&row.wsd.as_ref()?.usage));
        let (count, all): (usize, usize) = (usage().count(), usage().map(|usage| usage.completion_tokens).sum());
        let drafted: usize = usage().map(|usage| usage.by_author.get(wsd_core::Seat::DRAFT)).sum();
        Self {
            system: system.name.into(),
            tasks,
            hhh,
            tokens: all as f64 / count.max(1) as f64,
            by_draft: drafted as f64 / all.max(1) as f64,
            switches: system.has_handover.then(|| Switches::of(&rows)),
            time: relative_time(system.name, runs, false),
            time_per_token: relative_time(system.name, runs, true),
            reasons,
            errors: rows.iter().copied().flatten().filter(|row| row.error.is_some()).count(),
        }
    }
}

impl Switches {
    fn of(rows: &[&[Sample]]) -> Self {
        let at = |tasks: &'static [Task]| {
            let of_task = rows.iter().copied().flatten().filter(move |row| tasks.contains(&row.item.task));
            of_task.map(|row| row.wsd.as_ref()?.handover.map(|handover| handover.at as f64))
        };
        let helpful: Vec<f64> = at(&[Task::Helpful]).map(|at| f64::from(u8::from(at.is_some()))).collect();
        let middle = |tasks| median(&at(tasks).flatten().collect::<Vec<f64>>());
        Self { reached: mean(&helpful).unwrap_or(0.0), median: middle(&HHH), downstream_median: middle(&DOWNSTREAM) }
    }
}

/// Time of a system relative to the base: medians over rounds, summed over prompts; the ratio is
/// averaged over runs.
fn relative_time(system: &str, runs: &[Run], per_token: bool) -> Option<Estimate> {
    let pairs = |run: &Run| {
        let mut prompts: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for times in &run.times {
            let of = |name: &str| {
                let tokens = if per_token { *times.tokens.get(name)? as f64 } else { 1.0 };
                Some(times.seconds.get(name)? / tokens.max(1.0))
            };
            if let (Some(own), Some(base)) = (of(system), of("base")) {
                prompts.entry(&times.id).or_default().push((own, base));
            }
        }
        let middle = |rounds: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
            median(&rounds.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0)
        };
        let middles = prompts.values().map(|rounds| (middle(rounds, |pair| pair.0), middle(rounds, |pair| pair.1)));
        middles.collect::<Vec<_>>()
    };
    let groups: Vec<_> = runs.iter().map(pairs).filter(|pairs| !pairs.is_empty()).collect();
    bootstrap(&groups, |groups| {
        let ratio = |pairs: &Vec<(f64, f64)>| {
            let (own, base) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            own / base
        };
        groups.iter().map(ratio).sum::<f64>() / groups.len() as f64
    })
}
