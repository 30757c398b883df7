//! Answers read into items, token by token.

use std::sync::Arc;

use wsd_core::{Completion, FinishReason, TokenRecord};

use super::form::{Form, Line};
use super::item::{Item, Kind, Part, Said};
use crate::serve::app::App;
use crate::serve::request::GenerationRequest;
use crate::serve::tools::AnswerReader;

/// The items of an answer that is being read.
pub(crate) struct Items {
    app: Arc<App>,
    /// The reader of tokens; `None` where all of them are text.
    reader: Option<AnswerReader>,
    pub(super) list: Vec<Item>,
}

impl Items {
    /// No items yet, of an answer to `request`.
    pub(super) fn new(app: Arc<App>, request: &GenerationRequest) -> Self {
        Self { app, reader: request.answer_reader(), list: Vec::new() }
    }

    /// Begins the answer. One of text alone begins with its only item.
    pub(super) fn begin<F: Form>(&mut self, form: &mut F) -> Vec<Line> {
        if self.reader.is_some() { Vec::new() } else { self.open(form, Kind::Text, String::new()) }
    }

    /// Takes in a token, and returns the lines that report it.
    pub(super) fn token<F: Form>(&mut self, form: &mut F, token: &TokenRecord) -> Vec<Line> {
        match self.reader.as_mut().map(|reader| reader.push(token)) {
            Some(parts) => self.parts(form, parts),
            None => self.more(form, Kind::Text, &token.text),
        }
    }

    /// Ends the answer.
    pub(super) fn finish<F: Form>(&mut self, form: &mut F, reason: FinishReason) -> Vec<Line> {
        let parts = self.reader.as_mut().map(AnswerReader::finish).unwrap_or_default();
        let mut lines = self.parts(form, parts);
        if self.list.is_empty() {
            lines.extend(self.open(form, Kind::Text, String::new()));
        }
        if let Some(last) = self.list.last_mut() {
            last.is_cut = reason == FinishReason::Length;
        }
        lines.extend(self.close(form));
        lines
    }

    /// Reads a whole answer.
    pub(super) fn read<F: Form>(mut self, form: &mut F, answer: Completion) -> Said {
        for token in &answer.tokens {
            self.token(form, token);
        }
        self.finish(form, answer.finish_reason);
        Said { answer, items: self.list }
    }

    fn parts<F: Form>(&mut self, form: &mut F, parts: Vec<wsd_core::Part>) -> Vec<Line> {
        let lines = parts.into_iter().flat_map(|part| match part {
            wsd_core::Part::Text(text) => self.more(form, Kind::Text, &text),
            wsd_core::Part::Reasoning(text) => self.more(form, Kind::Reasoning, &text),
            wsd_core::Part::Call { name, .. } => self.open(form, Kind::Call, name),
            wsd_core::Part::Arguments { text, .. } => self.more(form, Kind::Call, &text),
        });
        lines.collect()
    }

    /// Ends the last item and begins another one.
    fn open<F: Form>(&mut self, form: &mut F, kind: Kind, name: String) -> Vec<Line> {
        let mut lines = self.close(form);
        let item = Item { kind, id: self.app.next_call_id(), name, text: String::new(), is_cut: false };
        lines.extend(form.part(self.list.len(), &Part::Begin(&item)));
        self.list.push(item);
        lines
    }

    fn close<F: Form>(&self, form: &mut F) -> Vec<Line> {
        let last = self.list.len().saturating_sub(1);
        self.list.last().map_or_else(Vec::new, |item| form.part(last, &Part::End(item)))
    }

    /// Adds text to the last item, or to a new one if that is of another kind.
    fn more<F: Form>(&mut self, form: &mut F, kind: Kind, text: &str) -> Vec<Line> {
        if text.is_empty() {
            return Vec::new();
        }
        let continues = self.list.last().is_some_and(|item| item.kind == kind);
        let mut lines = if continues { Vec::new() } else { self.open(form, kind, String::new()) };
        let last = self.list.len().saturating_sub(1);
        if let Some(item) = self.list.last_mut() {
            item.text.push_str(text);
            lines.extend(form.part(last, &Part::More(item, text)));
        }
        lines
    }
}
