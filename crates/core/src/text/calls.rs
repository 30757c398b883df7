//! Calls of tools: the form in which each family of models writes them, and a reader of answers.

mod body;
mod format;
mod json;
mod reply;

use serde_json::Value;

pub use format::CallFormat;
pub use reply::{Part, Reply};

use super::{ChatRole, Message};

/// The tools that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools {
    /// Each tool in the form of OpenAI's `tools`: `{"type": "function", "function": {...}}`.
    pub definitions: Vec<Value>,
    /// The form of calls, that of the model which begins the answer.
    pub format: &'static CallFormat,
}

impl Tools {
    /// Iterates over the names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().filter_map(|tool| tool["function"]["name"].as_str())
    }

    /// Returns the schema of a tool's parameters; `None` for a tool without one.
    pub(super) fn parameters(&self, name: &str) -> Option<&Value> {
        let tool = self.definitions.iter().find(|tool| tool["function"]["name"] == name)?;
        tool["function"].get("parameters")
    }
}

/// Returns a conversation for a template that does not know tools: they are described in the first
/// message, and calls and their results become text.
pub(super) fn described(messages: &[Message], tools: Option<&Tools>, own: &'static CallFormat) -> Vec<Message> {
    let format = tools.map_or(own, |tools| tools.format);
    let mut flat: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for message in messages {
        let (role, content) = match message.role {
            ChatRole::Tool => {
                (ChatRole::User, format!("<tool_response>\n{}\n</tool_response>", message.content.trim()))
            }
            role => (role, message.content.clone()),
        };
        let calls = message.tool_calls.iter().map(|call| format.spell(&call.name, &call.arguments));
        let parts = std::iter::once(content).filter(|text| !text.is_empty()).chain(calls);
        let content = parts.collect::<Vec<_>>().join("\n");
        // Templates expect that user and assistant alternate.
        match flat.last_mut().filter(|last| after_result && last.role == role) {
            Some(last) => last.content = format!("{}\n{content}", last.content),
            None => flat.push(Message::new(role, content)),
        }
        after_result = message.role == ChatRole::Tool;
    }
    if let (Some(tools), Some(first)) = (tools, flat.first_mut()) {
        let list = tools.definitions.iter().map(|tool| tool["function"].to_string()).collect::<Vec<_>>().join("\n");
        let example = format.spell("NAME", "{\"PARAMETER\": VALUE}");
        let about = format!(
            "You may call these functions, one described in each line:\n{list}\nA call is written as\n{example}"
        );
        first.content = match first.role {
            ChatRole::System => format!("{}\n\n{about}", first.content),
            _ => format!("{about}\n\n{}", first.content),
        };
    }
    flat
}
