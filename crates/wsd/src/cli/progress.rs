//! How far a file of prompts is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::note;

/// Counts rows as they are written.
pub(crate) struct Rows {
    total: usize,
    before: usize,
    done: usize,
    started: Instant,
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl Rows {
    /// `done` of `total` rows are there already.
    pub(crate) fn new(total: usize, done: usize, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} rows, {eta} left");
            let bar = ProgressBar::new(total as u64).with_position(done as u64);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            bar
        });
        if done > 0 && !quiet {
            note(&format!("going on after {done} rows that are answered"));
        }
        Self { total, before: done, done, started: Instant::now(), quiet, bar }
    }

    /// One more row is written.
    fn advance(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        } else if !self.quiet && self.done * 10 / self.total > (self.done - 1) * 10 / self.total {
            let speed = (self.done - self.before) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
            note(&format!("{} of {} rows, {speed:.1} rows/s", self.done, self.total));
        }
    }

    /// Row `row` is written, with what it failed of.
    pub(crate) fn told(&mut self, row: usize, error: Option<&wsd_core::Error>) {
        if let Some(error) = error {
            self.note(&format!("row {}: {error}", row + 1));
        }
        self.advance();
    }

    /// Say something that is not progress.
    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    /// Leave the terminal as it was.
    pub(crate) fn stop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
