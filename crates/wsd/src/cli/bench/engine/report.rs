//! The report of `wsd bench engine`.

use serde::Serialize;

use crate::cli::bench::table::{aligned, short};

/// All figures of one model. Memory figures are absent on systems without `/proc`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) format: String,
    pub(super) threads: usize,
    pub(super) device: String,
    /// The SIMD instruction set in use.
    pub(super) instructions: String,
    pub(super) repeats: usize,
    pub(super) load_seconds: f64,
    pub(super) weight_bytes: usize,
    /// Bytes of weights that a decoding step reads.
    pub(super) step_bytes: usize,
    /// Peak resident set after loading and one token.
    pub(super) loaded_peak_bytes: Option<u64>,
    /// The same, divided by the bytes of the weights.
    pub(super) loaded_peak_share: Option<f64>,
    /// Peak resident set after the first round of measurements.
    pub(super) peak_bytes: Option<u64>,
    /// The same, divided by the bytes of the weights.
    pub(super) peak_share: Option<f64>,
    /// Memory bandwidth.
    pub(super) read_bytes_per_second: f64,
    /// Speed of decoding, divided by the limit that memory bandwidth sets.
    pub(super) decode_share_of_limit: f64,
    pub(super) figures: Vec<Figure>,
}

/// The time of one operation.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    /// Median time in seconds.
    pub(super) seconds: f64,
    pub(super) tokens_per_second: f64,
    /// Seconds of each run.
    pub(super) runs: Vec<f64>,
}

impl Report {
    /// The report for people.
    pub(super) fn text(&self) -> String {
        let head = ["", "ms", "tokens/s"].map(str::to_owned);
        let lines = self
            .figures
            .iter()
            .map(|figure| [figure.name.clone(), short(1e3 * figure.seconds), short(figure.tokens_per_second)]);
        let known = |value: Option<f64>| short(value.unwrap_or(f64::NAN));
        format!(
            "{} in {} on {}, {} threads, {}; medians of {}\n\n{}\n\
             load {} s; memory {} MB at most to the first token, {} times the weights, and {} times in all\n\
             memory is read at {} GB/s, of which writing uses {} %\n",
            self.model,
            self.format,
            self.device,
            self.threads,
            self.instructions,
            self.repeats,
            aligned(std::iter::once(head).chain(lines)),
            short(self.load_seconds),
            known(self.loaded_peak_bytes.map(|bytes| bytes as f64 / 1e6)),
            known(self.loaded_peak_share),
            known(self.peak_share),
            short(self.read_bytes_per_second / 1e9),
            short(100.0 * self.decode_share_of_limit),
        )
    }
}
