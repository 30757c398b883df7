//! The user's messages: a line editor on a terminal, plain lines otherwise.

use std::io::{ErrorKind, IsTerminal as _};

use anyhow::Result;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};

use crate::cli::prompt::utf8;

/// The result of reading a line.
pub(super) enum Line {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// A line that is not UTF-8, which is lost.
    Invalid,
    End,
}

/// A reader of lines.
pub(super) enum Lines {
    Editor(Box<DefaultEditor>),
    Pipe(BufReader<Stdin>),
}

impl Lines {
    pub(super) fn open() -> Result<Self> {
        if std::io::stdin().is_terminal() {
            Ok(Self::Editor(Box::new(DefaultEditor::new()?)))
        } else {
            Ok(Self::Pipe(BufReader::new(tokio::io::stdin())))
        }
    }

    /// True on a terminal.
    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    pub(super) async fn next(&mut self) -> Result<Line> {
        match self {
            // This blocks the thread, which has nothing else to do until the user answers.
            Self::Editor(editor) => match editor.readline("> ") {
                Ok(line) => {
                    editor.add_history_entry(&line)?;
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => Ok(Line::Invalid),
                Err(error) => Err(error.into()),
            },
            Self::Pipe(pipe) => {
                let mut bytes = Vec::new();
                tokio::select! {
                    Ok(()) = tokio::signal::ctrl_c() => return Ok(Line::Interrupted),
                    read = pipe.read_until(b'\n', &mut bytes) => read?,
                };
                if bytes.is_empty() {
                    return Ok(Line::End);
                }
                Ok(Line::Text(utf8(bytes)?.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}
