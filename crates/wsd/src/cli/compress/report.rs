//! The report of a compression.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use wsd::train::compress::{CompressedTable, Likeness};
use wsd::train::fidelity::Fidelity;
use wsd_nn::{Checkpoint, Device, Executor, load, measure};

/// Tokens in the cache while decoding is timed.
const CONTEXT: usize = 32;
/// Tokens of a sample.
const TOKENS: usize = 24;
/// Samples of each model, by turns.
const SAMPLES: usize = 5;

/// Memory and time of a model before and after.
pub(super) struct Cost {
    bytes: [usize; 2],
    parameters: [u64; 2],
    /// Seconds per decoded token, the median of samples.
    seconds: [f64; 2],
}

impl Cost {
    /// Measures both models on a CPU.
    pub(super) fn measure(original: &Checkpoint, model: &Checkpoint) -> Result<Self> {
        let models = [original, model];
        let mut executors: Vec<Box<dyn Executor>> = Vec::new();
        for model in models {
            executors.push(load(Device::Cpu, model, None, None)?);
        }
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..SAMPLES {
            for (executor, samples) in executors.iter_mut().zip(&mut samples) {
                samples.push(measure::decode(executor.as_mut(), CONTEXT, TOKENS)?);
            }
        }
        let median = |mut samples: Vec<f64>| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        };
        Ok(Self {
            bytes: models.map(|model| model.weights.total_bytes()),
            parameters: models.map(|model| model.weights.parameters()),
            seconds: samples.map(median),
        })
    }
}

/// All measures of a compression.
pub(super) struct Report {
    pub(super) tables: Vec<CompressedTable>,
    /// Without tuning.
    pub(super) before: Option<Fidelity>,
    /// After the tuning, if there was one.
    pub(super) after: Option<Fidelity>,
    pub(super) cost: Cost,
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for CompressedTable { name, rank, values: [whole, product], likeness } in &self.tables {
            let share = 100.0 * *product as f64 / *whole as f64;
            let Likeness { cosine, rmse } = likeness;
            lines.push(format!(
                "{name}: rank {rank}, {share:.1} % of {whole} values; mean cosine {cosine:.4}, RMSE {rmse:.5}"
            ));
        }
        for (when, found) in [("before tuning", self.before), ("after tuning", self.after)] {
            let Some(Fidelity { perplexity, original, divergence }) = found else { continue };
            let more = 100.0 * (perplexity / original - 1.0);
            lines.push(format!(
                "{when}: perplexity {perplexity:.3} ({more:+.1} % of {original:.3}), divergence {divergence:.4} nats"
            ));
        }
        let Cost { bytes, parameters, seconds } = &self.cost;
        let saved = |[before, after]: [f64; 2]| 100.0 * (1.0 - after / before);
        lines.push(format!("memory saved: {:.1} % of {} bytes of weights", saved(bytes.map(|it| it as f64)), bytes[0]));
        lines.push(format!("parameters saved: {:.1} % of {}", saved(parameters.map(|it| it as f64)), parameters[0]));
        lines.push(format!("time saved: {:.1} % of {:.3} ms per decoded token", saved(*seconds), 1e3 * seconds[0]));
        lines.join("\n") + "\n"
    }

    pub(super) fn json(&self) -> Value {
        let fidelity = |found: Option<Fidelity>| {
            found.map(|it| json!({"perplexity": it.perplexity, "original": it.original, "divergence": it.divergence}))
        };
        let Cost { bytes, parameters, seconds } = &self.cost;
        json!({
            "tables": tables_json(&self.tables), "before": fidelity(self.before), "after": fidelity(self.after),
            "bytes": bytes, "parameters": parameters, "seconds_per_token": seconds,
        })
    }
}

pub(super) fn tables_json(tables: &[CompressedTable]) -> Value {
    let table = |table: &CompressedTable| {
        let CompressedTable { name, rank, values, likeness: Likeness { cosine, rmse } } = table;
        json!({"name": name, "rank": rank, "values": values, "cosine": cosine, "rmse": rmse})
    };
    tables.iter().map(table).collect()
}

/// Reads what [`tables_json`] wrote.
pub(super) fn read_tables(path: &Path) -> Result<Vec<CompressedTable>> {
    let rows: Vec<Map<String, Value>> = serde_json::from_slice(&wsd_core::Input::DESCRIPTION.read(path)?)?;
    let table = |row: &Map<String, Value>| {
        let count = |value: &Value| value.as_u64().map(|count| count as usize);
        let number = |key: &str| row.get(key).and_then(Value::as_f64);
        let values = row.get("values")?.as_array()?;
        Some(CompressedTable {
            name: row.get("name")?.as_str()?.to_owned(),
            rank: count(row.get("rank")?)?,
            values: [count(values.first()?)?, count(values.get(1)?)?],
            likeness: Likeness { cosine: number("cosine")?, rmse: number("rmse")? },
        })
    };
    let tables: Option<Vec<_>> = rows.iter().map(table).collect();
    tables.with_context(|| format!("{}: it describes no tables\n  hint: begin in another --output", path.display()))
}
