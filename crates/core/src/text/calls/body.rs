//! The text of calls between their marks.

use serde_json::{Map, Value, json};

use super::Tools;
use super::format::{Body, CallFormat};
use super::json::{blanks, object, value_end};

/// A call as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// JSON text, which later text only makes longer.
    pub(super) arguments: String,
}

/// The calls of a body as far as they were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) calls: Vec<Call>,
    /// The place behind the last call; `None` while the body is incomplete.
    pub(super) end: Option<usize>,
    /// True for a text that cannot become a call any more.
    pub(super) is_other: bool,
}

impl Body {
    /// Reads the calls at the start of `text`. `is_last` tells that no more text follows.
    pub(super) fn read(&self, text: &str, format: &CallFormat, tools: &Tools, is_last: bool) -> Calls {
        match self {
            Self::Json => json_calls(text, format, tools),
            Self::Mistral if text.trim_start().starts_with(['[', '{']) => json_calls(text, format, tools),
            Self::Mistral => named_calls(text, format),
            Self::Gemma { quote } => between(text, format, is_last, |inside| gemma_call(inside, quote)),
            Self::Tags => between(text, format, is_last, |inside| tags_call(inside, tools)),
        }
    }

    /// Spells arguments as Gemma does.
    fn gemma(arguments: &str, quote: &str) -> String {
        serde_json::from_str(arguments).map_or_else(|_| arguments.to_owned(), |value| gemma_value(&value, quote))
    }

    /// Spells arguments as tags.
    fn tags(arguments: &str) -> String {
        let Ok(Value::Object(fields)) = serde_json::from_str(arguments) else {
            return format!("\n<parameter=PARAMETER>\n{arguments}\n</parameter>");
        };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        fields.iter().map(|(key, value)| format!("\n<parameter={key}>\n{}\n</parameter>", text(value))).collect()
    }
}

impl CallFormat {
    /// Spells a call, whose arguments are JSON text.
    ///
    /// ```
    /// use wsd_core::scripted::Pieces;
    /// use wsd_core::{BosTokens, TextCodec};
    ///
    /// let codec = TextCodec::new("demo", std::sync::Arc::new(Pieces::letters("a")), None, BosTokens::default());
    /// let call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    /// assert_eq!(codec.call_format().spell("add", "{\"a\": 1}"), call);
    /// ```
    #[must_use]
    pub fn spell(&self, name: &str, arguments: &str) -> String {
        let (body, Self { open, close, arguments: field, .. }) = (&self.body, self);
        match body {
            Body::Json if open.is_empty() => format!("{{\"name\": \"{name}\", \"{field}\": {arguments}}}"),
            Body::Json => format!("{open}\n{{\"name\": \"{name}\", \"{field}\": {arguments}}}\n{close}"),
            Body::Mistral => format!("{open}[{{\"name\": \"{name}\", \"{field}\": {arguments}}}]"),
            Body::Gemma { quote } => format!("{open}call:{name}{}{close}", Body::gemma(arguments, quote)),
            Body::Tags => format!("{open}\n<function={name}>{}\n</function>\n{close}", Body::tags(arguments)),
        }
    }
}

/// Reads objects, one after another or in a list, with the mark behind them if there is one.
fn json_calls(text: &str, format: &CallFormat, tools: &Tools) -> Calls {
    let mut calls = Calls::default();
    let mut at = blanks(text);
    let is_list = text[at..].starts_with('[');
    at += usize::from(is_list);
    loop {
        at += blanks(&text[at..]);
        if text[at..].is_empty() {
            return calls;
        }
        let Some(read) = object(text, at) else {
            calls.is_other = calls.calls.is_empty();
            calls.end = Some(at);
            return calls;
        };
        let complete = |name: &str| read.fields.iter().find(|field| field.name == name && field.is_complete);
        let name = complete("name").and_then(|field| serde_json::from_str::<String>(&text[field.value.clone()]).ok());
        let keys = [format.arguments, "arguments", "parameters"];
        let arguments = read.fields.iter().find(|field| keys.contains(&field.name.as_str()));
        let is_whole = read.end.is_some() && !read.is_broken;
        match (name, read.end) {
            // Without a mark, only the name of a tool tells a call from other JSON.
            (Some(name), _) if !format.open.is_empty() || tools.names().any(|known| known == name) => {
                let written = arguments.map_or("", |field| &text[field.value.clone()]);
                let written = match written.strip_prefix('"') {
                    // Some models write the arguments as a text of JSON.
                    Some(_) => serde_json::from_str(written).unwrap_or_default(),
                    None => written.to_owned(),
                };
                let none = written.is_empty() && is_whole;
                calls.calls.push(Call { name, arguments: if none { "{}".into() } else { written } });
            }
            (None, None) => {}
            _ => calls.is_other = calls.calls.is_empty(),
        }
        let Some(end) = read.end else { return calls };
        if read.is_broken {
            return Calls { end: Some(end), ..calls };
        }
        if calls.is_other {
            return calls;
        }
        at = end + blanks(&text[end..]);
        let next = &text[at..];
        match (is_list, next.chars().next()) {
            (true, Some(',')) => at += 1,
            (true, Some(']')) => return closed(calls, text, at + 1, format),
            (false, Some(';')) if format.open.is_empty() => at += 1,
            (false, Some('{')) => {}
            (true, None) => return calls,
            _ => return closed(calls, text, at, format),
        }
    }
}

/// Ends calls at `at`, behind the mark that follows if there is one.
fn closed(mut calls: Calls, text: &str, at: usize, format: &CallFormat) -> Calls {
    let rest = text[at..].trim_start();
    let behind = rest.strip_prefix(format.close).map(|rest| text.len() - rest.len());
    // A part of the mark may stand at the end.
    calls.end = behind.or((!format.close.starts_with(rest)).then_some(at));
    if format.close.is_empty() && rest.is_empty() {
        calls.end = None;
    }
    calls
}

/// Reads `NAME[ARGS]{...}` or `NAME{...}`.
fn named_calls(text: &str, format: &CallFormat) -> Calls {
    let mut calls = Calls::default();
    let open = text.find('{');
    let head = &text[..open.unwrap_or(text.len())];
    let name = head.split('[').next().unwrap_or(head).trim();
    // Names have no spaces.
    if name.contains(char::is_whitespace) || (name.is_empty() && open.is_some()) {
        return Calls { is_other: true, end: Some(0), ..calls };
    }
    let Some(open) = open else { return calls };
    let length = value_end(&text[open..]);
    let arguments = text[open..length.map_or(text.len(), |length| open + length)].to_owned();
    calls.calls.push(Call { name: name.to_owned(), arguments });
    match length {
        Some(length) => closed(calls, text, open + length, format),
        None => calls,
    }
}

/// Reads a call once its closing mark, or the end of the answer, is there.
fn between(text: &str, format: &CallFormat, is_last: bool, read: impl Fn(&str) -> Option<Call>) -> Calls {
    let (inside, end) = match text.find(format.close) {
        Some(at) => (&text[..at], Some(at + format.close.len())),
        None if is_last => (text, Some(text.len())),
        None => return Calls::default(),
    };
    let call = read(inside);
    Calls { is_other: call.is_none(), calls: call.into_iter().collect(), end }
}

fn tags_call(text: &str, tools: &Tools) -> Option<Call> {
    let (name, mut rest) = text.split_once("<function=")?.1.split_once('>')?;
    let mut arguments = Map::new();
    let types = tools.parameters(name.trim());
    while let Some((_, after)) = rest.split_once("<parameter=") {
        let (key, after) = after.split_once('>')?;
        let (value, after) = after.split_once("</parameter>").unwrap_or((after, ""));
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let is_text = types.is_some_and(|types| types["properties"][key]["type"] == "string");
        let read = serde_json::from_str(value).ok().filter(|_| !is_text);
        arguments.insert(key.trim().to_owned(), read.unwrap_or_else(|| json!(value)));
        rest = after;
    }
    Some(Call { name: name.trim().to_owned(), arguments: Value::from(arguments).to_string() })
}

fn gemma_call(text: &str, quote: &str) -> Option<Call> {
    let (name, _) = text.trim().strip_prefix("call:")?.split_once('{')?;
    let start = text.find('{')?;
    let (value, _) = read_gemma(&text[start..], quote, 0)?;
    Some(Call { name: name.trim().to_owned(), arguments: value.to_string() })
}

/// The most values inside one another.
const MAX_DEPTH: usize = 64;

/// Reads one of Gemma's values, and returns what follows it.
fn read_gemma<'a>(text: &'a str, quote: &str, depth: usize) -> Option<(Value, &'a str)> {
    let text = text.trim_start();
    if depth > MAX_DEPTH {
        return None;
    }
    if let Some(rest) = text.strip_prefix(quote) {
        let (inside, rest) = rest.split_once(quote)?;
        return Some((json!(inside), rest));
    }
    if text.starts_with('"') {
        let end = value_end(text)?;
        return Some((serde_json::from_str(&text[..end]).ok()?, &text[end..]));
    }
    let is_list = text.starts_with('[');
    if !is_list && !text.starts_with('{') {
        let end = text.find([',', '}', ']']).unwrap_or(text.len());
        let word = text[..end].trim();
        return Some((serde_json::from_str(word).unwrap_or_else(|_| json!(word)), &text[end..]));
    }
    let (mut items, mut fields, mut rest) = (Vec::new(), Map::new(), &text[1..]);
    loop {
        rest = rest.trim_start().trim_start_matches(',').trim_start();
        if let Some(rest) = rest.strip_prefix(['}', ']']) {
            return Some((if is_list { items.into() } else { fields.into() }, rest));
        }
        let mut key = String::new();
        if !is_list {
            let (name, after) = match rest.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
                Some((name, after)) => (name, after.trim_start().strip_prefix(':')?),
                None => rest.split_once(':')?,
            };
            (key, rest) = (name.trim().to_owned(), after);
        }
        let (value, after) = read_gemma(rest, quote, depth + 1)?;
        if after.len() == rest.len() {
            return None;
        }
        rest = after;
        if is_list { items.push(value) } else { drop(fields.insert(key, value)) }
    }
}

fn gemma_value(value: &Value, quote: &str) -> String {
    match value {
        Value::String(text) => format!("{quote}{text}{quote}"),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(|item| gemma_value(item, quote)).collect::<Vec<_>>().join(","))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key}:{}", gemma_value(value, quote)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        value => value.to_string(),
    }
}
