//! The text that a request wants continued, before it is checked.

use serde_json::Value;

/// A conversation or a text.
pub(super) enum Source {
    /// The messages of a conversation.
    Messages(Vec<Given>),
    /// A text, verbatim.
    Text(String),
}

/// A message of a request, with its path there.
pub(super) struct Given {
    pub(super) path: String,
    pub(super) value: Value,
}
