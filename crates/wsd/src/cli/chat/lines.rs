//! Where the user's turns come from: a line editor on a terminal, plain lines otherwise.

use std::io::{ErrorKind, IsTerminal as _};

use anyhow::Result;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};

use super::prompt::utf8;

/// What came.
pub(super) enum Line {
    Text(String),
    Interrupted,
    /// Bytes that are not UTF-8 were typed; the line is lost.
    NoText,
    End,
}

/// Turns, one by one.
pub(super) enum Lines {
    Editor(Box<DefaultEditor>),
    Pipe(BufReader<Stdin>),
}

impl Lines {
    pub(super) fn open() -> Result<Self> {
        Ok(match std::io::stdin().is_terminal() {
            true => Self::Editor(Box::new(DefaultEditor::new()?)),
            false => Self::Pipe(BufReader::new(tokio::io::stdin())),
        })
    }

    /// Whether a person is typing.
    pub(super) fn interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    pub(super) async fn next(&mut self) -> Result<Line> {
        match self {
            // Nothing else is to be done while a person thinks, so the thread may wait here.
            Self::Editor(editor) => match editor.readline("> ") {
                Ok(line) => {
                    editor.add_history_entry(&line)?;
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => Ok(Line::NoText),
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
