//! The user's messages: a line editor on a terminal, plain lines otherwise.

use std::io::{ErrorKind, IsTerminal as _};

use anyhow::Result;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};

use super::command::completions;
use crate::cli::prompt::utf8;

/// The mark around a message of several lines.
const FENCE: &str = "\"\"\"";

/// The result of reading a message.
pub(super) enum Line {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// A line that is not UTF-8, which is lost.
    Invalid,
    End,
}

/// A reader of messages.
pub(super) enum Lines {
    Editor(Box<Editor<Messages, DefaultHistory>>),
    Pipe(BufReader<Stdin>),
}

/// The line editor's rules for messages: those of several lines, and the names of commands.
pub(super) struct Messages;

impl Helper for Messages {}
impl Highlighter for Messages {}
impl Hinter for Messages {
    type Hint = String;
}

impl Completer for Messages {
    type Candidate = String;

    fn complete(&self, line: &str, place: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..place];
        Ok((0, if typed.starts_with('/') { completions(typed) } else { Vec::new() }))
    }
}

impl Validator for Messages {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_open(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// Tells whether a message goes on in the next line.
fn is_open(text: &str) -> bool {
    text.matches(FENCE).count() % 2 == 1 || text.ends_with('\\')
}

/// Removes the marks that join lines.
fn joined(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r', '\\']).replace("\\\n", "\n");
    let inside = text.trim().strip_prefix(FENCE).and_then(|text| text.strip_suffix(FENCE));
    inside.map_or(text.clone(), |inside| inside.trim_matches('\n').to_owned())
}

impl Lines {
    pub(super) fn open() -> Result<Self> {
        if std::io::stdin().is_terminal() {
            let mut editor = Editor::new()?;
            editor.set_helper(Some(Messages));
            Ok(Self::Editor(Box::new(editor)))
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
                    Ok(Line::Text(joined(&line)))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => Ok(Line::Invalid),
                Err(error) => Err(error.into()),
            },
            Self::Pipe(pipe) => {
                let mut bytes = Vec::new();
                loop {
                    let read = tokio::select! {
                        Ok(()) = tokio::signal::ctrl_c() => return Ok(Line::Interrupted),
                        read = pipe.read_until(b'\n', &mut bytes) => read?,
                    };
                    if bytes.is_empty() {
                        return Ok(Line::End);
                    }
                    let text = utf8(bytes.clone())?.replace("\r\n", "\n");
                    if read == 0 || !is_open(text.trim_end_matches('\n')) {
                        return Ok(Line::Text(joined(&text)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_may_have_several_lines() {
        for (text, open, want) in [
            ("one", false, "one"),
            ("one \\", true, "one "),
            ("one\\\ntwo", false, "one\ntwo"),
            ("\"\"\"\none\n two", true, "\"\"\"\none\n two"),
            ("\"\"\"\none\n\n two\n\"\"\"", false, "one\n\n two"),
        ] {
            assert_eq!((is_open(text), joined(text).as_str()), (open, want), "{text:?}");
        }
    }
}
