//! Results of run folders. A report is a pure function of the rows, so it can be regenerated at any
//! time.

mod curves;
mod heat;
mod table;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub use curves::{Curve, Curves};
pub use heat::{Ablation, AblationRow};
pub use table::{Switches, SystemResult, Table};

use crate::eval::{EvalError, Positions, RunFolder, SYSTEMS, TIMES, Times};
use crate::world::{Item, Task};

/// The three alignment tasks: helpful, harmless, honest.
pub const HHH: [Task; 3] = [Task::Helpful, Task::Harmless, Task::Honest];
/// The two downstream tasks, which measure the cost of alignment.
pub const DOWNSTREAM: [Task; 2] = [Task::Facts, Task::Sums];

/// A row of a samples file.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    /// The item that was answered.
    #[serde(flatten)]
    pub item: Item,
    /// Text of the answer; empty if the row failed.
    #[serde(default)]
    pub output: String,
    /// Message of the error if the row failed.
    pub error: Option<String>,
    /// Origin of the answer; absent if the row failed.
    pub wsd: Option<SampleDetails>,
}

/// Origin of an answer: its switch and token counts.
#[derive(Clone, Debug, Deserialize)]
pub struct SampleDetails {
    /// The switch; `None` if the base did not take over.
    pub handover: Option<wsd_core::Handover>,
    /// Token counts by author.
    pub usage: wsd_core::Usage,
}

/// A row of the positions file.
#[derive(Clone, Debug, Deserialize)]
struct PositionsRow {
    #[serde(default)]
    positions: Positions,
}

/// Contents of a run folder.
#[derive(Debug, Default)]
pub struct Run {
    /// Answers by name of the system; systems without answers are absent.
    pub samples: BTreeMap<String, Vec<Sample>>,
    /// Response times.
    pub times: Vec<Times>,
    /// Log-probabilities by position.
    pub positions: Vec<Positions>,
    /// Answers of the ablation.
    pub ablation: Vec<AblationRow>,
}

impl Run {
    /// Reads a run folder; missing files count as empty.
    ///
    /// # Errors
    /// I/O errors, and [`crate::eval::RowError`] inside one for a row that cannot be parsed.
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
            times: folder.rows(&folder.file(TIMES))?,
            positions: positions.into_iter().map(|row| row.positions).filter(|row| !row.reference.is_empty()).collect(),
            ablation: folder.rows(&folder.file("ablation.jsonl"))?,
        })
    }
}

/// A file of a report.
#[derive(Debug, Serialize)]
pub struct ReportFile {
    /// File name.
    pub name: &'static str,
    /// Content of the file.
    pub text: String,
}

/// Generates the files of a report on several runs: the table as JSON, markdown and figure, and, if
/// the runs have rows for them, the curves and the ablation as JSON and figure.
///
/// # Errors
/// [`EvalError::Json`].
pub fn report(runs: &[Run]) -> Result<Vec<ReportFile>, EvalError> {
    let json = |value: serde_json::Result<String>| value.map(|text| text + "\n");
    let table = Table::of(runs);
    let mut files = vec![
        ReportFile { name: "results.json", text: json(serde_json::to_string_pretty(&table))? },
        ReportFile { name: "results.md", text: table.markdown() },
        ReportFile { name: "figure.svg", text: table.figure().svg() },
    ];
    if runs.iter().any(|run| !run.positions.is_empty()) {
        let curves = Curves::of(runs);
        files.push(ReportFile { name: "positions.json", text: json(serde_json::to_string(&curves))? });
        files.push(ReportFile { name: "positions.svg", text: curves.figure().svg() });
    }
    if runs.iter().any(|run| !run.ablation.is_empty()) {
        let ablation = Ablation::of(runs)?;
        files.push(ReportFile { name: "ablation.json", text: json(serde_json::to_string(&ablation))? });
        files.push(ReportFile { name: "ablation.svg", text: ablation.figure().svg() });
    }
    Ok(files)
}

/// Score of an answer: 1 if the oracle passes it, else 0.
fn points(item: &Item, answer: &str) -> f64 {
    f64::from(u8::from(item.grade(answer).pass))
}
