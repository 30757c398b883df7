//! What is concluded from run folders: pure functions of their rows, so that a report can be made again at any time.

mod curves;
mod heat;
mod table;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub use curves::{Curve, Curves};
pub use heat::Ablation;
pub use table::{Line, Switches, Table};

use crate::eval::{EvalError, Positions, RunFolder, SYSTEMS, Times};
use crate::world::{Item, Task};

/// The three tasks that alignment is about, in the order of their names: helpful, harmless, honest.
pub const HHH: [Task; 3] = [Task::Helpful, Task::Harmless, Task::Honest];
/// The two that alignment must not harm.
pub const DOWNSTREAM: [Task; 2] = [Task::Facts, Task::Sums];

/// A row of samples.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    /// What was asked.
    #[serde(flatten)]
    pub item: Item,
    /// The answer; nothing where there was none.
    #[serde(default)]
    pub output: String,
    /// Why there was none.
    pub error: Option<String>,
    /// How it came about.
    pub wsd: Option<Made>,
}

/// What a report needs to know of how an answer came about.
#[derive(Clone, Debug, Deserialize)]
pub struct Made {
    /// The switch, where there was one.
    pub handover: Option<wsd_core::Handover>,
    /// Tokens counted by author.
    pub usage: wsd_core::Usage,
}

/// A row of positions.
#[derive(Clone, Debug, Deserialize)]
struct PositionsRow {
    #[serde(default)]
    positions: Positions,
}

/// Everything in a run folder.
#[derive(Debug, Default)]
pub struct Run {
    /// The answers of each system that has any.
    pub samples: BTreeMap<String, Vec<Sample>>,
    /// How long things took.
    pub times: Vec<Times>,
    /// How likely the base finds answers.
    pub positions: Vec<Positions>,
    /// The cells of the ablation.
    pub ablation: Vec<heat::Row>,
}

impl Run {
    /// Read a run folder.
    ///
    /// # Errors
    /// Those of reading; a row that is none is named with its line.
    pub fn read(folder: &RunFolder) -> io::Result<Self> {
        let mut samples = BTreeMap::new();
        for system in SYSTEMS {
            let rows: Vec<Sample> = folder.rows(&folder.samples(system.name))?;
            if !rows.is_empty() {
                samples.insert(system.name.to_owned(), rows);
            }
        }
        let positions: Vec<PositionsRow> = folder.rows(&folder.file("positions.jsonl"))?;
        Ok(Self {
            samples,
            times: folder.rows(&folder.file("times.jsonl"))?,
            positions: positions.into_iter().map(|row| row.positions).filter(|row| !row.reference.is_empty()).collect(),
            ablation: folder.rows(&folder.file("ablation.jsonl"))?,
        })
    }
}

/// A file of a report.
#[derive(Debug, Serialize)]
pub struct Page {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub text: String,
}

/// The files of a report on some runs: the table as JSON, markdown and a figure; the curves and the ablation as JSON and a figure,
/// where there are rows for them.
///
/// # Errors
/// Those of writing JSON.
pub fn report(runs: &[Run]) -> Result<Vec<Page>, EvalError> {
    let json = |value: serde_json::Result<String>| value.map(|text| text + "\n");
    let table = Table::of(runs);
    let mut pages = vec![
        Page { name: "results.json", text: json(serde_json::to_string_pretty(&table))? },
        Page { name: "results.md", text: table.markdown() },
        Page { name: "figure.svg", text: table.figure().svg() },
    ];
    if runs.iter().any(|run| !run.positions.is_empty()) {
        let curves = Curves::of(runs);
        pages.push(Page { name: "positions.json", text: json(serde_json::to_string(&curves))? });
        pages.push(Page { name: "positions.svg", text: curves.figure().svg() });
    }
    if runs.iter().any(|run| !run.ablation.is_empty()) {
        let ablation = Ablation::of(runs)?;
        pages.push(Page { name: "ablation.json", text: json(serde_json::to_string(&ablation))? });
        pages.push(Page { name: "ablation.svg", text: ablation.figure().svg() });
    }
    Ok(pages)
}

/// 1 for an answer that the oracle passes, 0 for one that it does not.
fn points(item: &Item, answer: &str) -> f64 {
    f64::from(u8::from(item.grade(answer).pass))
}
