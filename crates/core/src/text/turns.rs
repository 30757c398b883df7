//! Conversations for templates in which user and assistant must take turns.

use super::{ChatRole, Message};

/// Returns the same conversation with consecutive messages of instructions, and of the user, joined,
/// and instructions behind the first message made the user's; without `keeps_system` those of the
/// first message too. Agents send instructions in the middle and several messages in a row, which
/// templates such as Gemma's and Mistral's refuse. `None` if nothing changes.
pub(super) fn alternating(messages: &[Message], keeps_system: bool) -> Option<Vec<Message>> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let is_first = turns.iter().all(|turn| turn.role == ChatRole::System);
        let role = match message.role {
            ChatRole::System if !(is_first && keeps_system) => ChatRole::User,
            role => role,
        };
        let joins = [ChatRole::System, ChatRole::User].contains(&role);
        match turns.last_mut().filter(|last| joins && last.role == role) {
            Some(last) => last.content = format!("{}\n\n{}", last.content, message.content),
            None => turns.push(Message { role, ..message.clone() }),
        }
    }
    (turns != messages).then_some(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(turns: &[(ChatRole, &str)]) -> Vec<Message> {
        turns.iter().map(|&(role, content)| Message::new(role, content)).collect()
    }

    #[test]
    fn turns_alternate_and_no_word_is_lost() {
        use ChatRole::{Assistant, System, User};
        let given = chat(&[
            (System, "a"),
            (System, "b"),
            (User, "c"),
            (User, "d"),
            (System, "e"),
            (Assistant, "f"),
            (System, "g"),
            (User, "h"),
        ]);
        let kept = chat(&[(System, "a\n\nb"), (User, "c\n\nd\n\ne"), (Assistant, "f"), (User, "g\n\nh")]);
        assert_eq!(alternating(&given, true), Some(kept.clone()));
        let without = chat(&[(User, "a\n\nb\n\nc\n\nd\n\ne"), (Assistant, "f"), (User, "g\n\nh")]);
        assert_eq!(alternating(&given, false), Some(without));
        assert_eq!(alternating(&kept, true), None);
    }
}
