//! Progress of a run on the terminal.

use serde_json::{Map, Value};
use wsd_train::Reporter;

use super::super::output::note;

/// Writes progress to standard error, a line per row of metrics.
pub(in crate::cli) struct ConsoleReporter {
    pub(in crate::cli) quiet: bool,
}

impl Reporter for ConsoleReporter {
    fn progress(&mut self, row: &Map<String, Value>, total_steps: usize, seconds_left: f64) {
        if self.quiet {
            return;
        }
        let step = row.get("step").and_then(Value::as_u64).unwrap_or_default();
        let shown = row.iter().filter(|(key, _)| !matches!(key.as_str(), "step" | "epoch" | "time"));
        let shown: String = shown.map(|(key, value)| format!("  {key} {}", short(value))).collect();
        note(&format!("step {step} of {total_steps}{shown}  {} left", duration(seconds_left)));
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }
}

/// A number with about four digits.
fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number != 0.0 && number.abs() < 1e-3 => format!("{number:.2e}"),
        Some(number) if number.abs() >= 1e4 => format!("{number:.0}"),
        Some(number) => format!("{number:.4}"),
        None => value.to_string(),
    }
}

/// A duration in its two largest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
