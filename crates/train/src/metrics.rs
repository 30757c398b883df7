//! The metrics of a run: `metrics.jsonl`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use wsd_core::files::write_whole;

use crate::error::Result;
use crate::objectives::LossOutput;

/// The name of the file in a run's folder.
pub const FILE: &str = "metrics.jsonl";

/// Weighted means of measures.
#[derive(Clone, Debug, Default)]
pub struct Means(BTreeMap<&'static str, Mean>);

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Means {
    /// Adds the measures of examples.
    pub fn add(&mut self, outputs: &[LossOutput]) {
        for measure in outputs.iter().flat_map(|output| &output.measures) {
            let mean = self.0.entry(measure.name).or_default();
            mean.sum += measure.sum;
            mean.weight += measure.weight;
        }
    }

    /// The mean of one measure.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|mean| mean.sum / mean.weight.max(f64::MIN_POSITIVE))
    }

    /// All means, with a prefix before their names.
    #[must_use]
    pub fn values(&self, prefix: &str) -> Map<String, Value> {
        self.0.keys().map(|name| (format!("{prefix}{name}"), json!(self.get(name)))).collect()
    }
}

/// The file, open for appending.
#[derive(Debug)]
pub struct Metrics {
    file: fs_err::File,
}

impl Metrics {
    /// Opens the metrics of a run that resumes after `step`, and removes the rows of later steps.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(run: &Path, step: usize) -> Result<Self> {
        let path = run.join(FILE);
        let before = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let kept = |line: &&str| {
            let row: Option<Value> = serde_json::from_str(line).ok();
            row.and_then(|row| row.get("step")?.as_u64()).is_some_and(|at| at <= step as u64)
        };
        let kept: String = before.split_inclusive('\n').filter(kept).collect();
        write_whole(&path, kept.as_bytes())?;
        Ok(Self { file: fs_err::OpenOptions::new().append(true).open(&path)? })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn add(&mut self, row: &Map<String, Value>) -> Result<()> {
        let line = serde_json::to_string(row).unwrap_or_default() + "\n";
        Ok(self.file.write_all(line.as_bytes())?)
    }
}

/// A row with its step, and the time in seconds since 1970.
pub(crate) fn stamped(step: usize) -> Map<String, Value> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut row = Map::new();
    row.insert("step".into(), json!(step));
    row.insert("time".into(), json!(time.as_secs_f64()));
    row
}
