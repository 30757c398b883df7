//! Progress through a file of prompts: a bar on a terminal, occasional lines elsewhere.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use wsd::lab::data::{Journal, JournalError, Record};

use super::counted;
use super::output::note;

/// A reporter of written rows.
pub(crate) struct Rows {
    total: usize,
    /// Rows that were there at the start.
    before: usize,
    done: usize,
    started: Instant,
    quiet: bool,
    bar: Option<ProgressBar>,
}

/// Tells that the `rows` of a file are all there, so that no model is loaded for it.
pub(crate) fn tell_whole(file: &Path, rows: usize, quiet: bool) {
    if !quiet {
        note(&format!("{} has its {} already", file.display(), counted(rows, "row")));
    }
}

/// Tells whether the file of a journal has the rows of all records, and says so. Asked before models are
/// loaded, which takes long.
///
/// # Errors
/// Those of [`Journal::check`].
pub(crate) fn is_whole(
    file: &Path,
    records: &[Record],
    settings: &Map<String, Value>,
    quiet: bool,
) -> Result<bool, JournalError> {
    let is_whole = Journal::check(file, records, settings)? == records.len();
    if is_whole {
        tell_whole(file, records.len(), quiet);
    }
    Ok(is_whole)
}

impl Rows {
    /// Starts with `done` of `total` rows there already.
    pub(crate) fn new(total: usize, done: usize, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} rows, {eta} left");
            let bar = ProgressBar::new(total as u64).with_position(done as u64);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            bar
        });
        if !quiet && done > 0 {
            note(&format!("resuming after {}", counted(done, "row")));
        } else if !quiet && bar.is_none() {
            note(&format!("{} to do", counted(total, "row")));
        }
        if let Some(bar) = &bar {
            bar.tick();
        }
        Self { total, before: done, done, started: Instant::now(), quiet, bar }
    }

    /// Counts further rows.
    pub(crate) fn advance(&mut self, count: usize) {
        self.done += count;
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        } else if !self.quiet && self.done * 10 / self.total > (self.done - count) * 10 / self.total {
            let speed = (self.done - self.before) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
            note(&format!("{} of {}, {speed:.1} rows/s", self.done, counted(self.total, "row")));
        }
    }

    /// Reports that row `row` is written, and its error if it failed.
    pub(crate) fn on_row(&mut self, row: usize, error: Option<&wsd_core::Error>) {
        if let Some(error) = error {
            self.note(&format!("row {}: {error}", row + 1));
        }
        self.advance(1);
    }

    /// Writes a line beside the bar.
    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    /// Removes the bar.
    pub(crate) fn stop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
