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
        let arguments = embedded(closed(schema), &format!("/properties/{}", self.arguments));
        prepared(json!({
            "type": "object",
            "properties": {"name": {"const": name}, &self.arguments: arguments},
            "required": ["name", &self.arguments],
            "additionalProperties": false,
        }))
    }
}

/// Returns the schema of arguments without properties that it does not list, where a tool's schema
/// only lists them: models that may add more do not end.
fn closed(mut schema: Value) -> Value {
    const LISTS: [&str; 7] = ["type", "properties", "required", "title", "description", "$schema", "$defs"];
    if let Value::Object(fields) = &mut schema
        && let Some(Value::Object(properties)) = fields.get("properties")
        && fields.keys().all(|key| LISTS.contains(&key.as_str()))
    {
        let mut required = fields.get("required").and_then(Value::as_array).into_iter().flatten();
        if required.all(|name| name.as_str().is_some_and(|name| properties.contains_key(name))) {
            fields.insert("additionalProperties".into(), false.into());
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_that_a_tool_lists() {
        let list = json!({"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]});
        let closed_list = closed(list.clone());
        assert_eq!(closed_list["additionalProperties"], false);
        assert_eq!(closed_list["properties"], list["properties"]);
        for open in [
            object(),
            json!(true),
            json!({"properties": {"a": {}}, "required": ["b"]}),
            json!({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}),
            json!({"properties": {"a": {}}, "additionalProperties": true}),
        ] {
            assert_eq!(closed(open.clone()), open);
        }
    }
}
