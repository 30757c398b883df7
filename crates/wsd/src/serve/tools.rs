//! The tools of a request: `tools`, `tool_choice`, `parallel_tool_calls`, and calls in its messages.

mod answer;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use wsd_core::{CallFormat, ChatInputs, Message, Prompt, TemplateVariables, ToolCall, Tools};
use wsd_grammar::{Calls, Form};

pub(super) use answer::{AnswerReader, delta};

use super::error::ApiError;
use super::fields::Fields;

/// The most tools in a request, as in OpenAI's API.
const MAX_TOOLS: usize = 128;
/// The most bytes of their descriptions.
const MAX_BYTES: usize = 256 << 10;
/// The most characters in the name of a tool.
const MAX_NAME: usize = 64;

/// The tools of a request, which of them the answer may call, and what else templates read.
pub(super) struct ToolUse {
    /// With the tools that the answer may call.
    inputs: Arc<ChatInputs>,
    choice: Choice,
    is_parallel: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    None,
    Auto,
    Required,
    Named(String),
}

impl ToolUse {
    /// No tools.
    pub(super) fn none() -> Self {
        Self { inputs: Arc::default(), choice: Choice::Auto, is_parallel: true }
    }

    /// Takes the fields. Calls are written in `format`.
    pub(super) fn take(
        fields: &mut Fields,
        format: &'static CallFormat,
        variables: TemplateVariables,
    ) -> Result<Self, ApiError> {
        let tools = tools(fields)?;
        let choice = choice(fields, &tools)?;
        // A named tool is called once, as in OpenAI's API.
        let is_parallel = fields.take("parallel_tool_calls")?.unwrap_or(true) && !matches!(choice, Choice::Named(_));
        if fields.take::<Vec<Value>>("functions")?.is_some_and(|functions| !functions.is_empty()) {
            let way =
                "is not supported by this server; send each as `tools`: {\"type\": \"function\", \"function\": ...}";
            return Err(ApiError::unknown("functions", way));
        }
        let calls = fields.take::<Value>("function_call")?;
        if calls.is_some_and(|choice| choice != "none" && choice != "auto") {
            return Err(ApiError::unknown("function_call", "is not supported by this server; send `tool_choice`"));
        }
        let is_callable = !tools.is_empty() && choice != Choice::None;
        let tools = is_callable.then_some(Tools { definitions: tools, format });
        Ok(Self { inputs: Arc::new(ChatInputs { tools, variables }), choice, is_parallel })
    }

    /// The tools that the answer may call.
    pub(super) fn callable(&self) -> Option<&Tools> {
        self.inputs.tools.as_ref()
    }

    /// The inputs of templates besides the messages.
    pub(super) fn inputs(&self) -> &ChatInputs {
        &self.inputs
    }

    /// Tells whether the answer must be a call.
    pub(super) fn must_call(&self) -> bool {
        self.callable().is_some() && self.choice != Choice::Auto
    }

    /// Returns the prompt of a conversation with these tools.
    pub(super) fn prompt(&self, messages: Vec<Message>) -> Prompt {
        Prompt::ChatWith(messages, self.inputs.clone())
    }

    /// Returns the constraint on the answer, given the one on its text.
    pub(super) fn constraint(
        &self,
        text: Option<(&'static str, Form)>,
    ) -> Result<Option<(&'static str, Form)>, ApiError> {
        let Some(tools) = self.callable() else { return Ok(text) };
        let or = match (self.must_call(), text) {
            (true, _) => None,
            (false, None) => return Ok(None),
            (false, Some((_, Form::Schema(schema)))) => Some(schema),
            (false, Some((name, _))) => {
                let message = "must be left out with `tools`, unless it is a JSON schema or `tool_choice` is none";
                return Err(ApiError::parameter(name, message));
            }
        };
        Ok(Some(("tools", Form::Calls(self.calls(tools, or)))))
    }

    /// Returns the grammar of calls, or of an answer under the schema `or`.
    fn calls(&self, tools: &Tools, or: Option<Value>) -> Calls {
        let format = tools.format;
        let has_marks = format.is_json() && !format.open.is_empty();
        let mark = |text: String| if has_marks { text } else { String::new() };
        let may_call = |name: &&str| !matches!(&self.choice, Choice::Named(only) if only != name);
        let schema = |name: &str| {
            let tool = tools.definitions.iter().find(|tool| tool["function"]["name"] == name)?;
            tool["function"].get("parameters").cloned()
        };
        Calls {
            tools: tools.names().filter(may_call).map(|name| (name.to_owned(), schema(name))).collect(),
            open: mark(format!("{}\n", format.open)),
            close: mark(format!("\n{}", format.close)),
            between: if has_marks { "\n" } else { "; " }.to_owned(),
            arguments: format.arguments.to_owned(),
            is_parallel: self.is_parallel,
            or,
        }
    }
}

/// Takes `tools`.
fn tools(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let given = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    if given.len() > MAX_TOOLS {
        return Err(ApiError::parameter("tools", format!("must have at most {MAX_TOOLS} tools, got {}", given.len())));
    }
    let mut tools: Vec<Value> = Vec::with_capacity(given.len());
    for (index, value) in given.into_iter().enumerate() {
        let tool = tool(value, index)?;
        if tools.iter().any(|other| other["function"]["name"] == tool["function"]["name"]) {
            let message = format!("must differ from the names of the other tools, got {}", tool["function"]["name"]);
            return Err(ApiError::parameter(format!("tools[{index}].function.name"), message));
        }
        tools.push(tool);
    }
    let bytes: usize = tools.iter().map(|tool| tool.to_string().len()).sum();
    if bytes > MAX_BYTES {
        return Err(ApiError::parameter("tools", format!("must have at most {MAX_BYTES} bytes, got {bytes}")));
    }
    Ok(tools)
}

/// Reads a tool, and returns it in the form that templates read.
fn tool(value: Value, index: usize) -> Result<Value, ApiError> {
    let mut tool = Fields::new(value, format!("tools[{index}]"))?;
    let kind = tool.take::<String>("type")?.unwrap_or_else(|| "function".into());
    if kind != "function" {
        let message = format!("must be `function`, got {kind}: this server runs no tools of its own");
        return Err(ApiError::parameter(tool.name("type"), message));
    }
    let mut function = Fields::new(tool.need("function")?, tool.name("function"))?;
    tool.finish()?;
    let name: String = function.need("name")?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-' || letter == '.';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
        let message = format!("must have 1 to {MAX_NAME} letters, digits, `_`, `-` and `.`, got {:?}", name);
        return Err(ApiError::parameter(function.name("name"), message));
    }
    let mut description = Map::from_iter([("name".to_owned(), json!(name))]);
    description.extend(function.take::<String>("description")?.map(|about| ("description".to_owned(), json!(about))));
    match function.take::<Value>("parameters")? {
        None => {}
        Some(schema @ Value::Object(_)) => drop(description.insert("parameters".into(), schema)),
        Some(_) => return Err(ApiError::parameter(function.name("parameters"), "must be a JSON schema: an object")),
    }
    // Forced calls always follow their schema; calls that the model chooses to make are its own.
    function.take::<bool>("strict")?;
    function.finish()?;
    Ok(json!({"type": "function", "function": description}))
}

/// Takes `tool_choice`.
fn choice(fields: &mut Fields, tools: &[Value]) -> Result<Choice, ApiError> {
    const EXPECTED: &str =
        "must be `none`, `auto`, `required` or {\"type\": \"function\", \"function\": {\"name\": ...}}";
    let choice = match fields.take::<Value>("tool_choice")? {
        None => return Ok(Choice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Choice::None,
            "auto" => Choice::Auto,
            "required" => Choice::Required,
            _ => return Err(ApiError::parameter("tool_choice", format!("{EXPECTED}, got {word}"))),
        },
        Some(value @ Value::Object(_)) => {
            let mut choice = Fields::new(value, "tool_choice")?;
            let kind: String = choice.need("type")?;
            if kind != "function" {
                return Err(ApiError::parameter("tool_choice.type", format!("must be `function`, got {kind}")));
            }
            let mut function = Fields::new(choice.need("function")?, "tool_choice.function")?;
            choice.finish()?;
            let name = function.need("name")?;
            function.finish()?;
            Choice::Named(name)
        }
        Some(_) => return Err(ApiError::parameter("tool_choice", EXPECTED)),
    };
    let names: Vec<_> = tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect();
    match &choice {
        Choice::Required | Choice::Named(_) if names.is_empty() => {
            Err(ApiError::parameter("tool_choice", "must be `none` or `auto` without `tools`"))
        }
        Choice::Named(name) if !names.contains(&name.as_str()) => {
            let message = format!("must be one of {}, got {name}", names.join(", "));
            Err(ApiError::parameter("tool_choice.function.name", message))
        }
        _ => Ok(choice),
    }
}

/// Takes the calls of an assistant's message.
pub(super) fn calls(message: &mut Fields) -> Result<Vec<ToolCall>, ApiError> {
    let given = message.take::<Vec<Value>>("tool_calls")?.unwrap_or_default();
    if given.len() > MAX_TOOLS {
        let message = (message.name("tool_calls"), format!("must have at most {MAX_TOOLS} calls, got {}", given.len()));
        return Err(ApiError::parameter(message.0, message.1));
    }
    let path = message.name("tool_calls");
    given.into_iter().enumerate().map(|(index, value)| call(value, format!("{path}[{index}]"))).collect()
}

/// Reads a call.
fn call(value: Value, path: String) -> Result<ToolCall, ApiError> {
    let mut call = Fields::new(value, path)?;
    let id = call.take::<String>("id")?.unwrap_or_default();
    call.unsupported(&[("type", &["\"function\""])])?;
    // The place in a stream, which some clients keep.
    call.take::<Value>("index")?;
    let mut function = Fields::new(call.need("function")?, call.name("function"))?;
    call.finish()?;
    let name = function.need("name")?;
    let arguments = match function.take::<Value>("arguments")? {
        None => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text,
        Some(value) => value.to_string(),
    };
    if serde_json::from_str::<Value>(&arguments).is_err() {
        return Err(ApiError::parameter(function.name("arguments"), "must be JSON text"));
    }
    function.finish()?;
    Ok(ToolCall { id, name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(body: Value) -> Result<ToolUse, ApiError> {
        let codec = wsd_core::TextCodec::new(
            "m",
            Arc::new(wsd_core::scripted::Pieces::letters("a")),
            None,
            wsd_core::BosTokens::default(),
        );
        let mut fields = Fields::new(body, "").unwrap();
        let taken = ToolUse::take(&mut fields, codec.call_format(), TemplateVariables::default())?;
        fields.finish()?;
        Ok(taken)
    }

    fn named(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}, "strict": true}})
    }

    #[test]
    fn choices_tell_what_must_be_called() {
        for (choice, callable, must) in [
            (json!(null), true, false),
            (json!("auto"), true, false),
            (json!("none"), false, false),
            (json!("required"), true, true),
            (json!({"type": "function", "function": {"name": "b"}}), true, true),
        ] {
            let used = taken(json!({"tools": [named("a"), named("b")], "tool_choice": choice})).unwrap();
            assert_eq!((used.callable().is_some(), used.must_call()), (callable, must), "{choice}");
            let names = used.callable().map(|tools| used.calls(tools, None).tools.len());
            assert_eq!(names, callable.then_some(if choice.is_object() { 1 } else { 2 }));
            assert_eq!(used.is_parallel, !choice.is_object());
        }
        let schema = || Some(("response_format", Form::Schema(json!({}))));
        let used = taken(json!({"tools": [named("a")]})).unwrap();
        assert!(matches!(used.constraint(schema()), Ok(Some(("tools", Form::Calls(calls)))) if calls.or.is_some()));
        assert!(used.constraint(Some(("grammar", Form::Regex("a".into())))).is_err());
        assert!(matches!(used.constraint(None), Ok(None)));
        assert!(matches!(ToolUse::none().constraint(schema()), Ok(Some(("response_format", _)))));
    }

    #[test]
    fn faults_name_their_field() {
        let long = "x".repeat(65);
        for (body, message) in [
            (
                json!({"tools": [named("a"), named("a")]}),
                "`tools[1].function.name` must differ from the names of the other tools, got \"a\"",
            ),
            (
                json!({"tools": [{"type": "web_search"}]}),
                "`tools[0].type` must be `function`, got web_search: this server runs no tools of its own",
            ),
            (json!({"tools": [{"type": "function"}]}), "`tools[0].function` must be given"),
            (
                json!({"tools": [named(&long)]}),
                &format!(
                    "`tools[0].function.name` must have 1 to 64 letters, digits, `_`, `-` and `.`, got \"{long}\""
                ),
            ),
            (json!({"tools": vec![named("a"); 129]}), "`tools` must have at most 128 tools, got 129"),
            (json!({"tool_choice": "required"}), "`tool_choice` must be `none` or `auto` without `tools`"),
            (
                json!({"tools": [named("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
                "`tool_choice.function.name` must be one of a, got b",
            ),
            (
                json!({"functions": [{"name": "a"}]}),
                "`functions` is not supported by this server; send each as `tools`: {\"type\": \"function\", \
                 \"function\": ...}",
            ),
            (
                json!({"function_call": {"name": "a"}}),
                "`function_call` is not supported by this server; send `tool_choice`",
            ),
        ] {
            let error = taken(body.clone()).err().unwrap();
            assert_eq!(error.body()["error"]["message"], message, "{body}");
        }
        assert!(taken(json!({"tools": [], "functions": [], "function_call": "auto", "tool_choice": "none"})).is_ok());
    }
}
