//! Progress of downloads, on the error stream.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// A reporter of the preparation of a model. Downloads come one file at a time.
pub trait Progress {
    /// Starts a file, or restarts it after a broken connection. `total` is its size in bytes, if
    /// the server reports it.
    fn start(&mut self, file: &str, total: Option<u64>);
    /// Adds received bytes of the file. Those of an earlier download come as one step.
    fn advance(&mut self, bytes: u64);
    /// Completes the file.
    fn finish(&mut self);
    /// Shows a message to the user, such as the reason for a pause.
    fn note(&mut self, _text: &str) {}
}

/// The silent reporter.
impl Progress for () {
    fn start(&mut self, _file: &str, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self) {}
}

/// Returns bars on a terminal and lines otherwise, on the error stream.
pub fn stderr_progress() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(Bars::default()) } else { Box::new(Lines::new(std::io::stderr())) }
}

/// A progress bar for each file, drawn only on a terminal.
#[derive(Default)]
pub struct Bars {
    bar: Option<ProgressBar>,
}

impl Progress for Bars {
    fn start(&mut self, file: &str, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        let bar = self.bar.get_or_insert_with(ProgressBar::no_length);
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(file.to_owned());
        bar.reset();
        if let Some(total) = total {
            bar.set_length(total);
        }
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }
}

/// One line for each tenth of a file, for logs.
pub struct Lines<W: Write> {
    output: W,
    file: String,
    total: Option<u64>,
    bytes: u64,
    tenths: u64,
}

impl<W: Write> Lines<W> {
    /// Writes lines to `output`. Write errors are ignored.
    pub fn new(output: W) -> Self {
        Self { output, file: String::new(), total: None, bytes: 0, tenths: 0 }
    }

    fn line(&mut self, text: &str) {
        let line = format!("{}: {text}", self.file);
        self.note(&line);
    }
}

impl<W: Write> Progress for Lines<W> {
    fn start(&mut self, file: &str, total: Option<u64>) {
        (self.file, self.total, self.bytes, self.tenths) = (file.to_owned(), total, 0, 0);
        match total {
            Some(total) => self.line(&format!("downloading {}", indicatif::HumanBytes(total))),
            None => self.line("downloading"),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        let Some(total) = self.total.filter(|total| *total > 0) else { return };
        let tenths = (u128::from(self.bytes) * 10 / u128::from(total)) as u64;
        if tenths > self.tenths && tenths < 10 {
            self.tenths = tenths;
            self.line(&format!("{} %", tenths * 10));
        }
    }

    fn finish(&mut self) {
        self.line("done");
    }

    fn note(&mut self, text: &str) {
        // A closed error stream must not stop a download.
        let _ = writeln!(self.output, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_tenth() {
        let mut text = Vec::new();
        let mut lines = Lines::new(&mut text);
        lines.start("a.bin", Some(1000));
        for _ in 0..100 {
            lines.advance(10);
        }
        lines.finish();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 11, "{text}");
        assert_eq!((lines[1], lines[9], lines[10]), ("a.bin: 10 %", "a.bin: 90 %", "a.bin: done"));
    }

    #[test]
    fn an_empty_file_and_an_unknown_size() {
        let mut text = Vec::new();
        let mut lines = Lines::new(&mut text);
        for total in [Some(0), None] {
            lines.start("a", total);
            lines.advance(7);
            lines.finish();
        }
        assert_eq!(String::from_utf8(text).unwrap(), "a: downloading 0 B\na: done\na: downloading\na: done\n");
    }
}
