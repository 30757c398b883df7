//! What goes to standard output: text, colours where they are wanted, and a reader that may leave.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use clap::ValueEnum;
use wsd_core::{Author, Seat};

/// When to colour.
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

/// How text is marked on a terminal: the codes that switch it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style(pub(crate) &'static str);

/// The draft's tokens: yellow.
pub(crate) const DRAFT: Style = Style("\x1b[33m");
/// The base's tokens: cyan.
pub(crate) const BASE: Style = Style("\x1b[36m");
/// Tokens by several models together: magenta.
const FUSED: Style = Style("\x1b[35m");
/// Remarks beside the answer.
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

/// The reader of standard output has gone: nothing is wrong, and nothing more is to be said.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct Closed;

/// A stream for people or programs.
pub(crate) struct Output {
    stream: Box<dyn io::Write>,
    color: bool,
    terminal: bool,
    width: Option<usize>,
    open: Option<Style>,
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
        let width = terminal.then(terminal_size::terminal_size).flatten();
        Self { stream, color, terminal, width: width.map(|(width, _)| width.0.into()), open: None }
    }

    /// What `write` writes, as on a terminal `width` columns wide.
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
        write(&mut Self { stream: Box::new(shared.clone()), color, terminal, width, open: None });
        String::from_utf8(shared.0.lock().unwrap().clone()).unwrap()
    }

    /// Whether text is coloured.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// Whether a person is looking: a terminal, or colours asked for.
    pub(crate) fn for_people(&self) -> bool {
        self.terminal || self.color
    }

    /// Columns of the terminal; nothing where there is none.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Write text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.plain()?;
        self.send(text)
    }

    /// Write text that a model made. On a terminal, control characters in it are shown and do
    /// nothing.
    pub(crate) fn model_text(&mut self, style: Style, text: &str) -> Result<()> {
        if self.color && self.open != Some(style) {
            self.plain()?;
            self.send(style.0)?;
            self.open = Some(style);
        }
        match self.for_people() {
            true => self.send(&harmless(text)),
            false => self.send(text),
        }
    }

    /// End the style that is on.
    pub(crate) fn plain(&mut self) -> Result<()> {
        if self.open.take().is_some() { self.send(PLAIN) } else { Ok(()) }
    }

    fn send(&mut self, text: &str) -> Result<()> {
        match self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
            result => Ok(result?),
        }
    }
}

/// A line on the error stream. Where that is closed, no one is there to be told.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Text whose control characters, line breaks and tabs apart, are replaced.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\tc"), "a\u{FFFD}[2Jb\u{FFFD}\n\tc");
    }
}
