//! The report of a compression.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use wsd::lab::stats::median;
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
#[derive(Serialize)]
pub(super) struct Cost {
    bytes: [usize; 2],
    parameters: [u64; 2],
    /// The median of samples of decoding.
    seconds_per_token: [f64; 2],
}

impl Cost {
    /// Measures both models on a CPU.
    pub(super) fn measure(original: &Checkpoint, model: &Checkpoint) -> Result<Self> {
        let models = [original, model];
        let mut executors: Vec<Box<dyn Executor>> = Vec::new();
        for model in models {
            executors.push(load(&Device::Cpu, model, None, None)?.executor);
        }
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..SAMPLES {
            for (executor, samples) in executors.iter_mut().zip(&mut samples) {
                samples.push(measure::decode(executor.as_mut(), CONTEXT, TOKENS)?);
            }
        }
        Ok(Self {
            bytes: models.map(|model| model.weights.total_bytes()),
            parameters: models.map(|model| model.weights.parameters()),
            seconds_per_token: samples.map(|samples| median(&samples).unwrap_or(f64::NAN)),
        })
    }
}

/// All measures of a compression.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) tables: Vec<CompressedTable>,
    /// Without tuning.
    pub(super) before: Option<Fidelity>,
    /// After the tuning, if there was one.
    pub(super) after: Option<Fidelity>,
    #[serde(flatten)]
    pub(super) cost: Cost,
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for CompressedTable { name, rank, values: [whole, product], kept, likeness } in &self.tables {
            let share = 100.0 * *product as f64 / *whole as f64;
            let Likeness { cosine, rmse } = likeness;
            let kept = if *kept > 0 { format!(" and {kept} rows") } else { String::new() };
            lines.push(format!(
                "{name}: rank {rank}{kept}, {share:.1} % of {whole} values; mean cosine {cosine:.4}, RMSE {rmse:.5}"
            ));
        }
        for (when, found) in [("before tuning", self.before), ("after tuning", self.after)] {
            let Some(Fidelity { perplexity, original, divergence }) = found else { continue };
            let more = 100.0 * (perplexity / original - 1.0);
            lines.push(format!(
                "{when}: perplexity {perplexity:.3} ({more:+.1} % of {original:.3}), divergence {divergence:.4} nats"
            ));
        }
        let Cost { bytes, parameters, seconds_per_token: seconds } = &self.cost;
        let saved = |[before, after]: [f64; 2]| 100.0 * (1.0 - after / before);
        lines.push(format!("memory saved: {:.1} % of {} bytes of weights", saved(bytes.map(|it| it as f64)), bytes[0]));
        lines.push(format!("parameters saved: {:.1} % of {}", saved(parameters.map(|it| it as f64)), parameters[0]));
        lines.push(format!("time saved: {:.1} % of {:.3} ms per decoded token", saved(*seconds), 1e3 * seconds[0]));
        lines.join("\n") + "\n"
    }
}

/// Reads the tables of an interrupted compression.
pub(super) fn read_tables(path: &Path) -> Result<Vec<CompressedTable>> {
    let tables = serde_json::from_slice(&wsd_core::Input::DESCRIPTION.read(path)?);
    tables.with_context(|| format!("{}: it describes no tables\n  hint: begin in another --output", path.display()))
}
