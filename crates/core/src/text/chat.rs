//! A conversation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    /// Instructions to the model; newer clients call this role `developer`.
    #[serde(alias = "developer")]
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

impl ChatRole {
    /// The name that chat templates and the wire formats use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl fmt::Display for ChatRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The author.
    pub role: ChatRole,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message of `role` with the text `content`.
    pub fn new(role: ChatRole, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }

    /// Tells whether this message, if it is the last one, is the beginning of an answer to be
    /// continued.
    pub(super) fn begins_answer(&self) -> bool {
        self.role == ChatRole::Assistant && !self.content.trim().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_written_by_name() {
        for role in [ChatRole::System, ChatRole::User, ChatRole::Assistant] {
            let json = serde_json::to_string(&role).unwrap();
            assert_eq!(json, format!("\"{role}\""));
            assert_eq!(serde_json::from_str::<ChatRole>(&json).unwrap(), role);
        }
        assert_eq!(serde_json::from_str::<ChatRole>("\"developer\"").unwrap(), ChatRole::System);
        assert!(serde_json::from_str::<ChatRole>("\"tool\"").is_err());
    }
}
