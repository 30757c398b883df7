//! Prompts from arguments, standard input and rows of files.

use std::io::{IsTerminal as _, Read as _};
use std::str::FromStr;

use anyhow::{Result, bail};
use wsd::config::PromptSettings;
use wsd::lab::data::RecordPrompt;
use wsd_core::{ChatRole, Message, Prompt, Token};

use super::output::note;
use super::usage;

/// The most bytes read from standard input; any context is shorter.
const STDIN_LIMIT: u64 = 64 << 20;

/// Token ids on the command line: numbers separated by commas or spaces, with or without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenIds(pub(crate) Vec<Token>);

impl FromStr for TokenIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inside = text.trim().trim_start_matches('[').trim_end_matches(']');
        let words = inside.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let ids: Result<Vec<_>, _> =
            words.map(|word| word.parse().map_err(|_| format!("`{word}` is not a token id"))).collect();
        match ids?.as_slice() {
            [] => Err("it has no token id".into()),
            ids => Ok(Self(ids.to_vec())),
        }
    }
}

/// Reads all of standard input as text. `what` names it in messages.
pub(crate) fn read_stdin(what: &str, quiet: bool) -> Result<String> {
    utf8(read_stdin_bytes(what, quiet)?)
}

/// Reads all bytes of standard input, up to a limit.
pub(crate) fn read_stdin_bytes(what: &str, quiet: bool) -> Result<Vec<u8>> {
    if std::io::stdin().is_terminal() && !quiet {
        note(&format!("reading {what} from standard input; Ctrl-D ends it"));
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(STDIN_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STDIN_LIMIT {
        bail!("standard input is too long: it has more than {STDIN_LIMIT} bytes, the limit for {what}");
    }
    Ok(bytes)
}

/// Decodes bytes of standard input.
pub(crate) fn utf8(bytes: Vec<u8>) -> Result<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => bail!("standard input is not UTF-8: invalid byte at offset {}", error.utf8_error().valid_up_to()),
    }
}

/// A text or a conversation that makes no prompt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PromptError {
    /// The text has nothing but blanks.
    #[error("the prompt is empty")]
    Empty,
    /// A conversation under `raw`.
    #[error("a conversation needs a chat form\n  hint: leave out --raw, or give the text as `prompt`")]
    Raw,
}

/// Returns the prompt for one text.
fn parse_text(text: &str, settings: &PromptSettings) -> Result<Prompt, PromptError> {
    if settings.raw {
        return Ok(Prompt::Raw(text.to_owned()));
    }
    let text = without_line_end(text);
    if text.trim().is_empty() {
        return Err(PromptError::Empty);
    }
    of_messages(vec![Message::new(ChatRole::User, text)], settings)
}

/// Returns the prompt for one text of the command line.
pub(crate) fn of_text(text: &str, settings: &PromptSettings) -> Result<Prompt> {
    parse_text(text, settings).map_err(|error| usage(error.to_string()))
}

/// Returns a text without its last line break, which shells and editors add.
pub(crate) fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// Returns the prompt for a conversation.
pub(crate) fn of_messages(messages: Vec<Message>, settings: &PromptSettings) -> Result<Prompt, PromptError> {
    if settings.raw {
        return Err(PromptError::Raw);
    }
    Ok(Prompt::Chat(settings.complete(messages)))
}

/// Returns the user's last message.
pub(crate) fn last_text(prompt: &Prompt) -> Option<&str> {
    let Prompt::Chat(messages) = prompt else { return None };
    let mut asked = messages.iter().rev().filter(|message| message.role == ChatRole::User);
    asked.next().map(|message| message.content.as_str())
}

/// Returns the prompt for a row of a file.
pub(crate) fn of_row(prompt: &RecordPrompt, settings: &PromptSettings) -> Result<Prompt, PromptError> {
    match prompt {
        RecordPrompt::Text(text) => parse_text(text, settings),
        RecordPrompt::Messages(messages) => of_messages(messages.clone(), settings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_all_common_spellings() {
        for text in ["1,2,3", "[1, 2, 3]", "1 2 3\n"] {
            assert_eq!(text.parse(), Ok(TokenIds(vec![1, 2, 3])), "{text}");
        }
        for text in ["", "[]", "1,x", "-1", "4294967296"] {
            assert!(text.parse::<TokenIds>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_system_message_of_a_row_is_kept() {
        let settings = PromptSettings { system: Some("default".into()), prefill: Some("Sure".into()), raw: false };
        let own = vec![Message::new(ChatRole::System, "own"), Message::new(ChatRole::User, "Hi")];
        let Prompt::Chat(messages) = of_messages(own, &settings).unwrap() else { panic!("a chat") };
        let texts: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(texts, ["own", "Hi", "Sure"]);
        let Prompt::Chat(messages) = of_text("Hi\r\n", &settings).unwrap() else { panic!("a chat") };
        assert_eq!((messages.len(), messages[1].content.as_str()), (3, "Hi"));
    }

    #[test]
    fn raw_text_is_verbatim() {
        let raw = PromptSettings { raw: true, ..PromptSettings::default() };
        assert_eq!(of_text(" a\n", &raw).unwrap(), Prompt::Raw(" a\n".into()));
    }
}
