//! Tools and calls of tools, said in the terms of chat completions.

use serde_json::{Value, json};

use crate::serve::error::ApiError;
use crate::serve::fields::Fields;

/// Returns a function that a model may call.
pub(super) fn function(name: &Value, description: &Value, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
}

/// Returns the message of a model that calls one function.
pub(super) fn call_message(call: &Value) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [call]})
}

/// Returns a call of a function; `arguments` is JSON text.
pub(super) fn call(id: &Value, name: &Value, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// Returns the message that holds the result of a call.
pub(super) fn result_message(id: &Value, content: &Value) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": content})
}

/// Replaces `tools` by the functions among them, as `convert` finds them. Tools of other kinds run
/// at the provider, and are skipped. Without a function, the choice among tools is dropped too.
pub(super) fn keep_functions(fields: &mut Fields, convert: fn(&Value) -> Option<Value>) -> Result<(), ApiError> {
    let Some(tools) = fields.take::<Vec<Value>>("tools")? else { return Ok(()) };
    let functions: Vec<_> = tools.iter().filter_map(convert).collect();
    if functions.is_empty() {
        fields.take::<Value>("tool_choice")?;
    } else {
        fields.set("tools", functions.into());
    }
    Ok(())
}
