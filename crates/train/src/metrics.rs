//! Numbers of a run as they come: `metrics.jsonl`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use wsd_core::files::write_whole;

use super::model::Graded;
use crate::error::Result;
use wsd_nn::files::write_whole;

/// The file in a run's folder.
pub const FILE: &str = "metrics.jsonl";

/// Sums of measures until they are written.
#[derive(Clone, Debug, Default)]
pub struct Means(BTreeMap<&'static str, [f64; 2]>);

impl Means {
    /// Take in what examples were graded.
    pub fn add(&mut self, graded: &[Graded]) {
        for measure in graded.iter().flat_map(|graded| &graded.measures) {
            let [sum, weight] = self.0.entry(measure.name).or_default();
            *sum += measure.sum;
            *weight += measure.weight;
        }
    }

    /// The mean of one measure.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|[sum, weight]| sum / weight.max(f64::MIN_POSITIVE))
    }

    /// All means, their names after a prefix.
    #[must_use]
    pub fn values(&self, prefix: &str) -> Map<String, Value> {
        self.0.keys().map(|name| (format!("{prefix}{name}"), json!(self.get(name)))).collect()
    }
}

/// The file, open to be added to.
#[derive(Debug)]
pub struct Metrics {
    file: fs_err::File,
}

impl Metrics {
    /// Open the metrics of a run that stands at `step`; later lines, of steps that are to be done again, are dropped.
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

    /// Add a line.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn add(&mut self, row: &Map<String, Value>) -> Result<()> {
        let line = serde_json::to_string(row).unwrap_or_default() + "\n";
        Ok(self.file.write_all(line.as_bytes())?)
    }
}
