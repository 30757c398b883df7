//! Chat templates of Hugging Face: conversations in the form that a model was tuned on.

use std::iter::successors;
use std::thread;

use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};

use super::turns::alternating;
use super::{ChatInputs, ChatRole, Message, TemplateVariables, ToolCall};
use crate::{Error, Result};

mod clock;
mod json;
mod namespace;
mod python;
mod source;
#[cfg(test)]
mod tests;

/// The budget of one rendering, in instructions: a part for any conversation, a part for each
/// message and one for its length. 64 bytes of text cost as much as one instruction. Comparing two
/// texts costs one however long they are, so the longest time grows with the square of the budget;
/// published templates need at most about 100 instructions for a message.
const FUEL: u64 = 1 << 16;
const FUEL_PER_MESSAGE: u64 = 1 << 10;
/// The bytes of a message that buy one more instruction.
const BYTES_PER_FUEL: u64 = 8;
/// The most macros and blocks nested inside one another; published templates stay below ten.
const RECURSION_LIMIT: usize = 100;
/// The mark that is put after the final message to find its end in the rendered text, as
/// transformers does. Its trailing space shows whether the template trims messages.
const END_MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// The largest source accepted, in bytes; published templates have up to 20 KiB.
const MAX_SOURCE_BYTES: usize = 128 << 10;
/// The most `~` operators in a source. The engine compiles a chain `a ~ b ~ c` in quadratic time;
/// published templates have up to 50 in all.
const MAX_CONCATENATIONS: usize = 1000;
/// The stack of the thread that compiles or renders, in bytes of address space. The engine recurses
/// over chains like `----1` or `a.b.c`, up to one level per byte of source; a level takes 0.3 to
/// 0.5 KiB.
const STACK_BYTES: usize = MAX_SOURCE_BYTES << 10;
const TEMPLATE: &str = "chat";

/// The special tokens that a template may name. An absent one is undefined in the template, as in
/// transformers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    /// The token `bos_token`: the beginning of a text.
    pub bos: Option<String>,
    /// The token `eos_token`: the end of a text or of a message.
    pub eos: Option<String>,
    /// The token `pad_token`: padding of batches.
    pub pad: Option<String>,
    /// The token `unk_token`: text that the vocabulary lacks.
    pub unk: Option<String>,
}

/// A chat template in Jinja, rendered as transformers' `apply_chat_template` does.
///
/// A template is an untrusted program: it has access to the conversation and the special tokens
/// only, a budget of instructions and bytes ends its loops and pays for every text before it is
/// built, and its recursion is limited.
///
/// ```
/// use wsd_core::{ChatRole, ChatTemplate, Message, Specials};
///
/// let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}\
///     {% if add_generation_prompt %}<assistant>{% endif %}";
/// let template = ChatTemplate::parse("demo", source, Specials::default())?;
/// let mut chat = vec![Message::new(ChatRole::User, "Hi")];
/// assert_eq!(template.render(&chat)?, "<user>Hi</><assistant>");
///
/// // A final message of the assistant is continued.
/// chat.push(Message::new(ChatRole::Assistant, "Hello, "));
/// assert_eq!(template.render(&chat)?, "<user>Hi</><assistant>Hello, ");
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    name: String,
    environment: Environment<'static>,
    source: String,
}

impl ChatTemplate {
    /// Compiles `source`; `name`, a file or a model, is for error messages.
    ///
    /// # Errors
    /// [`Error::Template`] with the line number if the source is not valid Jinja, or too large.
    pub fn parse(name: &str, source: &str, specials: Specials) -> Result<Self> {
        let mut template =
            Self { name: name.to_owned(), environment: environment(specials), source: source.to_owned() };
        if source.len() > MAX_SOURCE_BYTES {
            let length = source.len();
            return Err(template.refusal(&format!("the source has {length} bytes, more than {MAX_SOURCE_BYTES}")));
        }
        let concatenations = source.matches('~').count();
        if concatenations > MAX_CONCATENATIONS {
            return Err(
                template.refusal(&format!("the source has {concatenations} `~`, more than {MAX_CONCATENATIONS}"))
            );
        }
        with_stack(name, move || {
            let compiled = template.environment.add_template_owned(TEMPLATE, source::prepared(source));
            compiled.map_err(|error| template.error(&error))?;
            Ok(template)
        })
    }

    /// The same template with a fixed time for `strftime_now`, in seconds since 1970 (UTC), so that
    /// runs are reproducible.
    #[must_use]
    pub fn with_date(mut self, unix_seconds: i64) -> Self {
        self.environment
            .add_function("strftime_now", move |format: &str| strftime(format, clock::of_unix(unix_seconds)));
        self
    }

    /// The same template with variables for every rendering that does not set them itself.
    #[must_use]
    pub fn with_variables(mut self, variables: &TemplateVariables) -> Self {
        for (name, value) in variables.iter() {
            self.environment.add_global(name.to_owned(), json::value(value));
        }
        self
    }

    /// Renders a conversation, up to the beginning of the assistant's next message.
    ///
    /// A generation prompt is added unless the last message is the assistant's. In that case the
    /// text ends with that message, to be continued (`continue_final_message` of transformers).
    ///
    /// # Errors
    /// [`Error::Chat`] for a conversation without messages; [`Error::Template`] if the template
    /// refuses the conversation, fails, exceeds its budget, or drops the message to be continued.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        self.render_with(messages, &ChatInputs::default())
    }

    /// Renders a conversation as [`ChatTemplate::render`] does, with tools and further variables.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`].
    pub fn render_with(&self, messages: &[Message], inputs: &ChatInputs) -> Result<String> {
        match messages.split_last() {
            None => Err(Error::Chat("the chat has no messages\n  hint: give at least one of the user".to_owned())),
            Some((last, before)) if last.role == ChatRole::Assistant => self.continue_message(before, last, inputs),
            Some(_) => self.run(messages, inputs, true),
        }
    }

    /// The source.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation with every message complete and without a generation prompt.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`].
    pub fn render_whole(&self, messages: &[Message]) -> Result<String> {
        self.run(messages, &ChatInputs::default(), false)
    }

    /// Renders a conversation with every message complete and a generation prompt, for a model that
    /// writes about the conversation.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`].
    pub fn render_about(&self, messages: &[Message]) -> Result<String> {
        self.run(messages, &ChatInputs::default(), true)
    }

    fn continue_message(&self, before: &[Message], last: &Message, inputs: &ChatInputs) -> Result<String> {
        if !self.source.contains("content") {
            return Err(self.refusal("cannot continue the final message: the template does not read `content`"));
        }
        let marked = Message { content: format!("{}{END_MARK}", last.content), ..last.clone() };
        let mut text = self.run(&[before, &[marked]].concat(), inputs, false)?;
        let mark = text.rfind(END_MARK.trim_end()).filter(|_| text.contains(python::strip_both(&last.content)));
        let Some(mark) = mark else {
            return Err(self.refusal("cannot continue the final message: the template drops or changes part of it"));
        };
        let kept = &text[..mark];
        // A template that keeps the mark's trailing space also keeps the message's.
        let end = if text[mark..].starts_with(END_MARK) { mark } else { python::strip_end(kept).len() };
        text.truncate(end);
        Ok(text)
    }

    /// Renders messages as they are or, if the template raises an error for them, in turns.
    fn run(&self, messages: &[Message], inputs: &ChatInputs, add_generation_prompt: bool) -> Result<String> {
        let attempt = |messages: &[Message]| self.attempt(messages, inputs, add_generation_prompt);
        let error = match attempt(messages)? {
            Rendered::Text(text) => return Ok(text),
            Rendered::Failed(error) => error,
        };
        if raised(&error).is_some() {
            let mut forms: Vec<_> = [true, false].iter().filter_map(|&keeps| alternating(messages, keeps)).collect();
            forms.dedup();
            for turns in forms {
                if let Rendered::Text(text) = attempt(&turns)? {
                    return Ok(text);
                }
            }
        }
        // What a template refuses in any form is refused for its first reason.
        Err(self.error(&error))
    }

    /// Renders messages as they are.
    fn attempt(&self, messages: &[Message], inputs: &ChatInputs, add_generation_prompt: bool) -> Result<Rendered> {
        let tools = inputs.tools.as_ref().map_or(&[][..], |tools| &tools.definitions);
        let further = || inputs.variables.iter();
        let calls = messages.iter().flat_map(|message| &message.tool_calls);
        let bytes = messages.iter().map(|message| message.content.len()).sum::<usize>()
            + calls.clone().map(|call| call.arguments.len()).sum::<usize>()
            + tools.iter().chain(further().map(|(_, value)| value)).map(|json| json.to_string().len()).sum::<usize>();
        let items = (messages.len() + calls.count() + tools.len()) as u64;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + items * FUEL_PER_MESSAGE + bytes as u64 / BYTES_PER_FUEL));
        let messages: Value = messages.iter().map(variables).collect();
        let mut variables: Vec<_> = further().map(|(name, value)| (name, json::value(value))).collect();
        variables.extend([("messages", messages), ("add_generation_prompt", Value::from(add_generation_prompt))]);
        if !tools.is_empty() {
            variables.push(("tools", tools.iter().map(json::value).collect()));
        }
        let variables = Value::from_pairs(variables);
        with_stack(&self.name, || {
            let rendered = environment.get_template(TEMPLATE).and_then(|template| template.render(variables));
            Ok(rendered.map_or_else(Rendered::Failed, Rendered::Text))
        })
    }

    fn error(&self, error: &minijinja::Error) -> Error {
        if let Some(Raised(message)) = raised(error) {
            return self.refusal(message);
        }
        let innermost = causes(error).filter_map(|cause| cause.downcast_ref()).last().unwrap_or(error);
        let mut message = innermost.kind().to_string();
        if innermost.kind() == ErrorKind::OutOfFuel {
            message =
                "it needs more steps than a chat of this length is given\n  hint: the template may loop".to_owned();
        } else if let Some(detail) = innermost.detail() {
            message = format!("{message}: {detail}");
        }
        match innermost.line() {
            Some(line) if innermost.kind() != ErrorKind::OutOfFuel => self.refusal(&format!("{message} (line {line})")),
            _ => self.refusal(&message),
        }
    }

    fn refusal(&self, message: &str) -> Error {
        Error::Template { name: self.name.clone(), message: message.to_owned() }
    }
}

/// The end of one run of a template.
enum Rendered {
    Text(String),
    /// The template, or what it calls, raised an error.
    Failed(minijinja::Error),
}

/// An error and what caused it, outermost first.
fn causes(error: &minijinja::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    successors(Some(error as &(dyn std::error::Error + 'static)), |cause| cause.source())
}

/// The message that a template raised, if that is the cause of an error.
fn raised(error: &minijinja::Error) -> Option<&Raised> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The message of `raise_exception`, with which a template refuses a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn environment(specials: Specials) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default());
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_unknown_method_callback(python::call_method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter(namespace::FILTER, namespace::stored);
    environment.add_filter("trim", python::trim);
    environment.add_test("sequence", python::is_sequence);
    environment.add_test("iterable", python::is_iterable);
    environment.add_function("raise_exception", |message: Value| -> Result<Value, minijinja::Error> {
        let raised = Raised(message.to_string());
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(raised))
    });
    environment.add_function("strftime_now", |format: &str| strftime(format, clock::now()));
    let Specials { bos, eos, pad, unk } = specials;
    for (name, token) in [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("unk_token", unk)] {
        if let Some(token) = token {
            environment.add_global(name, token);
        }
    }
    for name in ["tools", "documents"] {
        environment.add_global(name, ());
    }
    environment
}

fn strftime(format: &str, moment: NaiveDateTime) -> Result<String, minijinja::Error> {
    clock::strftime(format, moment).map_err(|directive| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know `{directive}`"))
    })
}

fn variables(message: &Message) -> Value {
    let Message { role, content, tool_calls, tool_call_id, name } = message;
    let mut fields = vec![("role", Value::from(role.name())), ("content", Value::from(content.as_str()))];
    if !tool_calls.is_empty() {
        fields.push(("tool_calls", tool_calls.iter().map(call_variables).collect()));
    }
    let named = [("tool_call_id", tool_call_id), ("name", name)];
    fields.extend(named.into_iter().filter_map(|(field, value)| Some((field, Value::from(value.as_deref()?)))));
    Value::from_pairs(fields)
}

/// The variables of a call, whose arguments templates read as an object.
fn call_variables(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str::<serde_json::Value>(&call.arguments);
    let arguments =
        arguments.map_or_else(|_| Value::from(call.arguments.as_str()), |arguments| json::value(&arguments));
    let function = Value::from_pairs([("name", Value::from(call.name.as_str())), ("arguments", arguments)]);
    Value::from_pairs([("id", Value::from(call.id.as_str())), ("type", "function".into()), ("function", function)])
}

/// Runs `work` on a thread whose stack suffices for the deepest source and the deepest value. A
/// panic of the engine becomes an error of template `name`.
fn with_stack<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        let panicked = || Error::Template { name: name.to_owned(), message: "the template engine panicked".to_owned() };
        worker.join().unwrap_or_else(|_| Err(panicked()))
    })
}
