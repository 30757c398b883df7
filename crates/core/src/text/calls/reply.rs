//! A reader of answers: text, reasoning and calls, as they are written.

use super::body::Call;
use super::format::Body;
use super::{CallFormat, Tools};

/// The marks around reasoning in the answers of a model.
#[derive(Clone, Copy, Debug)]
pub(in crate::text) struct Marks {
    /// The mark before the reasoning.
    pub(in crate::text) open: &'static str,
    /// The mark between the reasoning and the text. A template that has it has these marks.
    close: &'static str,
    /// The mark before the text of an answer without reasoning; empty if there is none.
    direct: &'static str,
}

/// The marks that templates have.
const REASONING: [Marks; 3] = [
    Marks { open: "<think>", close: "</think>", direct: "" },
    Marks { open: "[THINK]", close: "[/THINK]", direct: "" },
    // The channels of gpt-oss. Its prompt ends with the name of the speaker.
    Marks {
        open: "<|channel|>analysis<|message|>",
        close: "<|start|>assistant<|channel|>final<|message|>",
        direct: "<|channel|>final<|message|>",
    },
];

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text for the reader.
    Text(String),
    /// Text in which the model reasons.
    Reasoning(String),
    /// The beginning of a call, which is number `index` of the answer.
    Call {
        /// The number, from 0.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of the arguments of call `index`, as JSON text.
    Arguments {
        /// The number, from 0.
        index: usize,
        /// The text.
        text: String,
    },
}

/// A reader of one answer. The parts it returns are the same however the text is cut.
///
/// ```
/// use std::sync::Arc;
/// use serde_json::json;
/// use wsd_core::scripted::Pieces;
/// use wsd_core::{BosTokens, ChatInputs, Part, TextCodec, Tools};
///
/// let codec = TextCodec::new("demo", Arc::new(Pieces::letters("a")), None, BosTokens::default());
/// let add = json!({"type": "function", "function": {"name": "add"}});
/// let tools = Tools { definitions: vec![add], format: codec.call_format() };
/// let mut reply = codec.reply(&ChatInputs { tools: Some(tools), ..ChatInputs::default() });
/// assert_eq!(reply.push("One moment. <tool_"), [Part::Text("One moment. ".into())]);
/// let parts = reply.push("call>{\"name\": \"add\", \"arguments\": {\"a\":");
/// assert_eq!(parts[0], Part::Call { index: 0, name: "add".into() });
/// assert_eq!(parts[1], Part::Arguments { index: 0, text: "{\"a\":".into() });
/// assert_eq!(reply.push(" 1}}</tool_call>"), [Part::Arguments { index: 0, text: " 1}".into() }]);
/// assert!(reply.finish().is_empty() && reply.calls() == 1);
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    tools: Option<Tools>,
    marks: Option<Marks>,
    state: State,
    /// Text that was not returned yet.
    pending: String,
    /// The calls returned so far, with the arguments that were sent.
    sent: Vec<Call>,
    /// True where white space is no part of the text: before an answer with tools, and behind
    /// reasoning and calls.
    trims: bool,
    /// True where an answer that begins with JSON of the name of a tool is a call, whatever the form.
    is_bare: bool,
    /// True for an answer of calls alone, in which text is a call that was cut off.
    must_call: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The state before any text, in which reasoning or an unmarked call may begin.
    Start,
    Reasoning,
    Text,
    /// Within calls, of which the first is number `first`.
    Calls {
        first: usize,
        marked: Marked,
    },
}

/// A mark and the form of the calls behind it.
type Marked = (&'static str, &'static CallFormat);

/// The forms of calls that begin an answer without the mark of its template, each with what stands
/// before them. The last one fits always.
static BARE: [(&str, CallFormat); 3] =
    [("<|python_tag|>", CallFormat::bare("")), ("```json", CallFormat::bare("```")), ("", CallFormat::bare(""))];

impl Reply {
    /// The marks of reasoning that a template has.
    pub(in crate::text) fn marks(source: &str) -> Option<Marks> {
        REASONING.into_iter().find(|marks| source.contains(marks.close))
    }

    /// A reader of an answer that may call `tools`. If `begins`, it begins within the reasoning.
    pub(in crate::text) fn new(tools: Option<&Tools>, marks: Option<Marks>, begins: bool) -> Self {
        let is_bare = tools.is_some();
        let state = if begins { State::Reasoning } else { State::Start };
        let (tools, pending, sent) = (tools.cloned(), String::new(), Vec::new());
        let (trims, must_call) = (begins || tools.is_some(), false);
        Self { tools, marks, state, pending, sent, trims, is_bare, must_call }
    }

    /// The same reader for an answer under a grammar, which has no reasoning. If it `must_call`, its
    /// calls may have no marks, and what is no call yet at its end is left out.
    #[must_use]
    pub fn constrained(mut self, must_call: bool) -> Self {
        let is_unmarked = self.tools.as_ref().is_some_and(|tools| tools.format.open.is_empty());
        self.is_bare = must_call || is_unmarked;
        self.must_call = must_call;
        (self.state, self.marks) = (State::Start, None);
        self
    }

    /// Tells whether the answer's text is its only part.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tools.is_none() && self.marks.is_none()
    }

    /// Returns the number of calls so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.sent.len()
    }

    /// Tells whether the special token `piece` is part of the answer: the mark of a call or of
    /// reasoning, which some vocabularies have as control tokens.
    #[must_use]
    pub fn reads(&self, piece: &str) -> bool {
        let format = self.tools.as_ref().map(|tools| tools.format);
        let call =
            format.is_some_and(|format| [format.open, format.close, "[ARGS]", "<|python_tag|>"].contains(&piece));
        let reasoning = self.marks.is_some_and(|marks| marks.open.contains(piece) || marks.close.contains(piece));
        (call || reasoning) && !piece.is_empty()
    }

    /// Takes in text and returns the parts that are settled.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.pending.push_str(text);
        self.read(false)
    }

    /// Returns what is left at the end of the answer.
    pub fn finish(&mut self) -> Vec<Part> {
        self.read(true)
    }

    fn read(&mut self, is_last: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        while self.step(is_last, &mut parts) {}
        parts.retain(|part| !(self.must_call && matches!(part, Part::Text(_))));
        parts
    }

    /// Reads on until the state changes. Returns false once nothing is left to read.
    fn step(&mut self, is_last: bool, parts: &mut Vec<Part>) -> bool {
        match self.state.clone() {
            State::Start => self.start(is_last),
            State::Reasoning => {
                let close = self.marks.map_or("", |marks| marks.close);
                let (text, found) = self.through(close, is_last);
                parts.extend(self.trimmed(&text).map(Part::Reasoning));
                if found {
                    (self.state, self.trims, self.marks) = (State::Start, true, None);
                }
                found
            }
            State::Text => {
                let open = self.tools.as_ref().map_or("", |tools| tools.format.open);
                let (text, found) = self.through(open, is_last);
                parts.extend(self.trimmed(&text).map(Part::Text));
                if let (true, Some(tools)) = (found, &self.tools) {
                    self.state = State::Calls { first: self.sent.len(), marked: (tools.format.open, tools.format) };
                }
                found
            }
            State::Calls { first, marked } => self.calls_step(first, marked, is_last, parts),
        }
    }

    /// Decides how the answer begins. Returns true once that is known.
    fn start(&mut self, is_last: bool) -> bool {
        let text = self.pending.trim_start();
        let of_mark = |(mark, format): &'static (&'static str, CallFormat)| {
            Some((*mark, text.strip_prefix(mark)?, format)).filter(|_| self.is_bare)
        };
        let bare = BARE.iter().find_map(of_mark);
        let begins = |mark: &str| !mark.is_empty() && mark.starts_with(text);
        if let Some(marks) = self.marks {
            if let Some(rest) = text.strip_prefix(marks.open) {
                self.pending = rest.to_owned();
                (self.state, self.trims) = (State::Reasoning, true);
                return true;
            }
            if let Some(rest) = text.strip_prefix(marks.direct).filter(|_| !marks.direct.is_empty()) {
                self.pending = rest.to_owned();
                self.marks = None;
                return true;
            }
            if [marks.open, marks.direct].into_iter().any(begins) && !is_last {
                return false;
            }
        }
        let rest = bare.map_or(text, |(_, rest, _)| rest).trim_start();
        let waits = rest.is_empty() || (self.is_bare && BARE.iter().any(|(mark, _)| begins(mark)));
        if waits && !is_last {
            return false;
        }
        self.state = match bare {
            Some((mark, after, format)) if rest.starts_with(['{', '[']) => {
                self.pending = after.to_owned();
                State::Calls { first: self.sent.len(), marked: (mark, format) }
            }
            _ => State::Text,
        };
        true
    }

    /// Takes the text before `mark`, and tells whether the mark was found, which is taken too. Text
    /// that may be the beginning of the mark is left.
    fn through(&mut self, mark: &str, is_last: bool) -> (String, bool) {
        if let Some(at) = (!mark.is_empty()).then(|| self.pending.find(mark)).flatten() {
            let rest = self.pending.split_off(at + mark.len());
            let mut text = std::mem::replace(&mut self.pending, rest);
            text.truncate(at);
            return (text, true);
        }
        let starts = (0..mark.len()).rev().map(|length| &mark[..length]).find(|start| self.pending.ends_with(start));
        let held = if is_last { 0 } else { starts.map_or(0, str::len) };
        let rest = self.pending.split_off(self.pending.len() - held);
        (std::mem::replace(&mut self.pending, rest), false)
    }

    /// Returns text, without the white space at its start where that is no part of it.
    fn trimmed(&mut self, text: &str) -> Option<String> {
        let text = if self.trims { text.trim_start() } else { text };
        self.trims &= text.is_empty();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn calls_step(&mut self, first: usize, (mark, format): Marked, is_last: bool, parts: &mut Vec<Part>) -> bool {
        let Some(tools) = &self.tools else { return false };
        let read = format.body.read(&self.pending, format, tools, is_last);
        let failed = read.is_other || (is_last && read.calls.is_empty());
        if failed && self.sent.len() == first {
            // No call: the mark stands as it was written, and what follows is read again.
            parts.extend((!mark.is_empty()).then(|| Part::Text(mark.to_owned())));
            (self.state, self.trims, self.is_bare) = (State::Text, false, false);
            return !self.pending.is_empty();
        }
        for (place, call) in read.calls.into_iter().enumerate() {
            let index = first + place;
            if index == self.sent.len() {
                parts.push(Part::Call { index, name: call.name.clone() });
                self.sent.push(Call { name: call.name, arguments: String::new() });
            }
            let sent = &mut self.sent[index].arguments;
            if let Some(more) = call.arguments.strip_prefix(sent.as_str()).filter(|more| !more.is_empty()) {
                parts.push(Part::Arguments { index, text: more.to_owned() });
                sent.push_str(more);
            }
        }
        let Some(end) = read.end else { return false };
        self.pending.drain(..end);
        (self.state, self.trims) = (State::Text, true);
        true
    }
}

impl CallFormat {
    /// The form of a call that only the name of a tool tells from other JSON; `close` may stand behind it.
    const fn bare(close: &'static str) -> Self {
        Self { name: "JSON", signs: &[], open: "", close, body: Body::Json, arguments: "arguments" }
    }
}

#[cfg(test)]
mod tests;
