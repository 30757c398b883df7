//! The grammar of answers that call tools.

use serde_json::{Value, json};

use crate::schema::{embedded, object, prepared};

/// The most calls in an answer.
const MAX_CALLS: usize = 16;

/// Calls of tools, and the form in which they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls {
    /// The name of each tool and the schema of its arguments, if it has one.
    pub tools: Vec<(String, Option<Value>)>,
    /// The text before a call.
    pub open: String,
    /// The text behind it.
    pub close: String,
    /// The text between two calls.
    pub between: String,
    /// The field with the arguments.
    pub arguments: String,
    /// True for several calls in one answer.
    pub is_parallel: bool,
    /// The schema of an answer that may be written in place of the calls.
    pub or: Option<Value>,
}

impl Calls {
    /// Spells the grammar in Lark's syntax.
    pub(crate) fn to_lark(&self) -> String {
        let text = |text: &str| if text.is_empty() { String::new() } else { json!(text).to_string() };
        let more = if self.is_parallel {
            format!("({} call){{0,{}}}", text(&self.between), MAX_CALLS - 1)
        } else {
            String::new()
        };
        let or = self.or.as_ref().map(|schema| format!("answer: %json {}\n", prepared(schema.clone())));
        let start = if or.is_some() { "answer | calls" } else { "calls" };
        let names: Vec<_> = (0..self.tools.len()).map(|index| format!("tool_{index}")).collect();
        let mut lark = format!(
            "start: {start}\ncalls: call {more}\ncall: {} tool {}\ntool: {}\n{}",
            text(&self.open),
            text(&self.close),
            names.join(" | "),
            or.unwrap_or_default(),
        );
        for (rule, (name, schema)) in names.iter().zip(&self.tools) {
            lark += &format!("{rule}: %json {}\n", self.call(name, schema.clone().unwrap_or_else(object)));
        }
        lark
    }

    /// Returns the schema of a call.
    fn call(&self, name: &str, schema: Value) -> Value {
        let arguments = embedded(schema, &format!("/properties/{}", self.arguments));
        prepared(json!({
            "type": "object",
            "properties": {"name": {"const": name}, &self.arguments: arguments},
            "required": ["name", &self.arguments],
            "additionalProperties": false,
        }))
    }
}
