//! Dialogs written as one text of turns, as in HH-RLHF (Bai et al. 2022, arXiv 2204.05862).

use wsd_core::{ChatRole, Message};

use crate::python;

/// Divides a dialog of turns `\n\nHuman:` and `\n\nAssistant:` into messages. `None` for a text
/// without a turn of a person.
///
/// ```
/// let messages = wsd_eval::transcript("\n\nHuman: Hi\n\nAssistant: Hello.").unwrap();
/// assert_eq!(messages[1].content, "Hello.");
/// assert_eq!(wsd_eval::transcript("Hi"), None);
/// ```
#[must_use]
pub fn transcript(text: &str) -> Option<Vec<Message>> {
    let mut messages = Vec::new();
    for turn in text.split("\n\nHuman:").skip(1) {
        let mut parts = turn.split("\n\nAssistant:");
        messages.push(Message::new(ChatRole::User, python::strip(parts.next()?)));
        messages.extend(parts.map(|answer| Message::new(ChatRole::Assistant, python::strip(answer))));
    }
    (!messages.is_empty()).then_some(messages)
}
