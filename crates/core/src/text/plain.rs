//! The paper's plain form of conversations, which any base model can continue: no chat template, no
//! examples.

use super::{ChatRole, Message};
use crate::{Error, Result};

/// The strings that end a base model's turn in the plain form.
pub const PLAIN_STOPS: [&str; 9] = [
    "\n\n[User]",
    "\n\n[System]",
    "\n\n[Assistant]",
    "\n[User]",
    "\n[System]",
    "\n[Assistant]",
    "[User]",
    "[System]",
    "[Assistant]",
];

/// Renders a conversation in the plain form, up to the assistant's next message or within its last
/// one.
pub(super) fn render(messages: &[Message]) -> Result<String> {
    let mut text = String::new();
    for message in messages {
        let head = match message.role {
            ChatRole::System => "System",
            ChatRole::User => "User",
            ChatRole::Assistant => "Assistant",
            ChatRole::Tool => "Tool",
        };
        text.push_str(&format!("\n\n[{head}]\n{}", message.content.trim()));
    }
    match messages.last() {
        Some(Message { role: ChatRole::Assistant, content, .. }) => text.push_str(&content[content.trim_end().len()..]),
        _ if messages.iter().any(|message| message.role == ChatRole::User) => text.push_str("\n\n[Assistant]\n"),
        _ => return Err(Error::Chat("the conversation must have a message of the user\n  hint: add one".into())),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: &[(ChatRole, &str)]) -> Vec<Message> {
        messages.iter().map(|(role, content)| Message::new(*role, *content)).collect()
    }

    #[test]
    fn messages_get_headings_and_are_stripped() {
        let text = render(&chat(&[
            (ChatRole::System, "Be kind."),
            (ChatRole::User, " Hello \n"),
            (ChatRole::Assistant, "Hi."),
            (ChatRole::User, "Who are you?"),
        ]));
        assert_eq!(
            text.unwrap(),
            "\n\n[System]\nBe kind.\n\n[User]\nHello\n\n[Assistant]\nHi.\n\n[User]\nWho are you?\n\n[Assistant]\n"
        );
    }

    #[test]
    fn a_prefill_keeps_its_trailing_white_space() {
        let text = render(&chat(&[(ChatRole::User, "Hello"), (ChatRole::Assistant, "\nSure, ")])).unwrap();
        assert_eq!(text, "\n\n[User]\nHello\n\n[Assistant]\nSure, ");
    }

    #[test]
    fn instructions_may_come_last() {
        let text = render(&chat(&[(ChatRole::User, "Hello"), (ChatRole::System, "Be kind.")])).unwrap();
        assert_eq!(text, "\n\n[User]\nHello\n\n[System]\nBe kind.\n\n[Assistant]\n");
    }

    #[test]
    fn a_conversation_without_a_question_is_refused() {
        assert!(render(&chat(&[(ChatRole::System, "Be kind.")])).is_err());
    }
}
