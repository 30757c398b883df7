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
    /// The result of a call that the model made.
    Tool,
}

impl ChatRole {
    /// The name that chat templates and the wire formats use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
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
    /// The calls that the assistant made behind the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result a tool's message is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the tool, in its own message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolCall {
    /// The name of the call, to which a result refers.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Arguments of the call, as JSON text.
    pub arguments: String,
}

impl Message {
    /// A message of `role` with the text `content`.
    pub fn new(role: ChatRole, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None, name: None }
    }

    /// Tells whether this message, if it is the last one, is the beginning of an answer to be
    /// continued.
    pub(super) fn begins_answer(&self) -> bool {
        self.role == ChatRole::Assistant && !self.content.trim().is_empty()
    }

    /// Tells whether the message is part of a call of a tool.
    pub(super) fn has_call(&self) -> bool {
        self.role == ChatRole::Tool || !self.tool_calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_written_by_name() {
        for role in [ChatRole::System, ChatRole::User, ChatRole::Assistant, ChatRole::Tool] {
            let json = serde_json::to_string(&role).unwrap();
            assert_eq!(json, format!("\"{role}\""));
            assert_eq!(serde_json::from_str::<ChatRole>(&json).unwrap(), role);
        }
        assert_eq!(serde_json::from_str::<ChatRole>("\"developer\"").unwrap(), ChatRole::System);
        assert!(serde_json::from_str::<ChatRole>("\"function\"").is_err());
    }
}
