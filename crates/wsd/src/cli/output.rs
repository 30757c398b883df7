//! Standard output and the error stream: text, colors, and closed pipes.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use clap::ValueEnum;
use wsd_core::{Author, Seat};

/// The choice of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A text style: the escape code that switches it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style(pub(crate) &'static str);

/// The draft's tokens: yellow.
pub(crate) const DRAFT: Style = Style("\x1b[33m");
/// The base's tokens: cyan.
pub(crate) const BASE: Style = Style("\x1b[36m");
/// Tokens of several models together: magenta.
const FUSED: Style = Style("\x1b[35m");
/// Notes beside the answer: faint.
pub(crate) const FAINT: Style = Style("\x1b[2m");
/// Ends every style.
const PLAIN: &str = "\x1b[0m";

/// The style of an author's text.
pub(crate) fn style(author: Author) -> Style {
    match author {
        Author::Seat(Seat::DRAFT) => DRAFT,
        Author::Seat(_) => BASE,
        Author::Fused => FUSED,
    }
}

/// The error of a closed standard output. The reader has gone, so the program ends silently.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct Closed;

/// An output stream for people or programs.
pub(crate) struct Output {
    stream: Box<dyn io::Write>,
    color: bool,
    terminal: bool,
    width: Option<usize>,
    /// Rows of the terminal, where what was shown can be replaced.
    height: Option<usize>,
    /// The style that is switched on.
    style: Option<Style>,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout(color: Color) -> Self {
        Self::new(Box::new(io::stdout()), io::stdout().is_terminal(), color)
    }

    /// The error stream.
    pub(crate) fn stderr(color: Color) -> Self {
        Self::new(Box::new(io::stderr()), io::stderr().is_terminal(), color)
    }

    fn new(stream: Box<dyn io::Write>, terminal: bool, color: Color) -> Self {
        let wanted = || {
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            terminal && !dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        };
        let color = match color {
            Color::Auto => wanted(),
            Color::Always => true,
            Color::Never => false,
        };
        let size = terminal.then(terminal_size::terminal_size).flatten();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            stream,
            color,
            terminal,
            width: size.map(|(width, _)| width.0.into()),
            height: size.filter(|_| !is_dumb).map(|(_, height)| height.0.into()),
            style: None,
        }
    }

    /// Captures the output of `write`, as on a terminal of `width` columns.
    #[cfg(test)]
    pub(crate) fn captured(width: Option<usize>, color: bool, write: impl FnOnce(&mut Self)) -> String {
        #[derive(Clone, Default)]
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shared = Shared::default();
        let terminal = width.is_some();
        let height = width.map(|_| 24);
        write(&mut Self { stream: Box::new(shared.clone()), color, terminal, width, height, style: None });
        String::from_utf8(shared.0.lock().unwrap().clone()).unwrap()
    }

    /// True where text is colored.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// True on a terminal, and where colors are forced.
    pub(crate) fn for_people(&self) -> bool {
        self.terminal || self.color
    }

    /// Columns of the terminal; `None` for a pipe or file.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Rows of a terminal on which what was shown can be replaced; `None` elsewhere.
    pub(crate) fn height(&self) -> Option<usize> {
        self.height
    }

    /// Removes the last `lines` lines of a terminal.
    pub(crate) fn remove(&mut self, lines: usize) -> Result<()> {
        // ECMA-48: CPL moves to the beginning of an earlier line, ED erases from there to the end.
        if lines > 0 { self.text(&format!("\x1b[{lines}F\x1b[J")) } else { Ok(()) }
    }

    /// Writes text unchanged.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.plain()?;
        self.send(text)
    }

    /// Writes text that a model generated. On a terminal its control characters are replaced.
    pub(crate) fn model_text(&mut self, style: Style, text: &str) -> Result<()> {
        if self.color && self.style != Some(style) {
            self.plain()?;
            self.send(style.0)?;
            self.style = Some(style);
        }
        if self.for_people() { self.send(&harmless(text)) } else { self.send(text) }
    }

    /// Switches the current style off.
    pub(crate) fn plain(&mut self) -> Result<()> {
        if self.style.take().is_some() { self.send(PLAIN) } else { Ok(()) }
    }

    fn send(&mut self, text: &str) -> Result<()> {
        match self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
            result => Ok(result?),
        }
    }
}

/// Writes a line to the error stream. A closed stream is ignored.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Replaces control characters other than line breaks and tabs.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_model_are_replaced() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\tc"), "a\u{FFFD}[2Jb\u{FFFD}\n\tc");
    }
}
