//! The answer being written: tokens in, events out, nothing let out that a stop string may still take back.

use std::collections::VecDeque;

use futures::SinkExt as _;
use futures::channel::mpsc;

use crate::{
    Call, Detokenizer, Event, FinishReason, Handover, Result, StopMatch, Stops, TextCodec, Token, TokenRecord,
};

/// Whether to go on after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// The answer goes on.
    More,
    /// The answer is complete.
    Done(FinishReason),
}

/// Collects the tokens of one answer, turns them into text, watches stop strings and the limit, and sends events on.
#[derive(Debug)]
pub struct Answer {
    events: mpsc::Sender<Result<Event>>,
    stops: Stops,
    max_tokens: usize,
    written: usize,
    detokenizer: Option<Detokenizer>,
    /// Bytes of the prompt that the first tokens still spell.
    skip: usize,
    /// Tokens and hand-overs whose text may still turn out to be a stop string.
    held: VecDeque<Event>,
    held_text: String,
}

impl Answer {
    /// An answer of at most `max_tokens` that sends its events to `events`.
    #[must_use]
    pub(crate) fn new(events: mpsc::Sender<Result<Event>>, stops: Stops, max_tokens: usize) -> Self {
        Self {
            events,
            stops,
            max_tokens,
            written: 0,
            detokenizer: None,
            skip: 0,
            held: VecDeque::new(),
            held_text: String::new(),
        }
    }

    /// Tokens that may still be written.
    #[must_use]
    pub fn room(&self) -> usize {
        self.max_tokens - self.written
    }

    /// Say how long the prompt is.
    pub async fn prompt(&mut self, tokens: usize) {
        self.send(Event::Prompt { tokens }).await;
    }

    /// The tokens that follow continue `context`; the first `skip` bytes of their text belong to the prompt.
    pub fn begin(&mut self, text: &TextCodec, context: &[Token], skip: usize) {
        self.detokenizer = Some(text.detokenizer(context));
        self.skip = skip;
    }

    /// Write one token; its text is filled in here.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub async fn token(&mut self, mut record: TokenRecord) -> Result<Flow> {
        let mut text = match &mut self.detokenizer {
            Some(detokenizer) => detokenizer.push(record.id)?,
            None => String::new(),
        };
        let skipped = text.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|&end| end <= self.skip).last();
        self.skip -= skipped.unwrap_or(0);
        text.drain(..skipped.unwrap_or(0));

        self.written += 1;
        self.held_text.push_str(&text);
        record.text = text;
        self.held.push_back(Event::Token(record));
        match self.stops.look(&self.held_text) {
            StopMatch::Cut(at) => {
                self.let_out(at, true).await;
                Ok(Flow::Done(FinishReason::Stop))
            }
            StopMatch::Hold(at) => {
                self.let_out(at, false).await;
                if self.written < self.max_tokens { Ok(Flow::More) } else { Ok(Flow::Done(FinishReason::Length)) }
            }
        }
    }

    /// The base takes over after the last token.
    pub async fn handover(&mut self, handover: Handover) {
        if self.held.is_empty() {
            self.send(Event::Handover(handover)).await;
        } else {
            self.held.push_back(Event::Handover(handover));
        }
    }

    /// Record what an engine was asked.
    pub async fn call(&mut self, call: Call) {
        self.send(Event::Call(call)).await;
    }

    /// End the answer: what was held goes out, up to a stop string. A character that is still incomplete is not text.
    pub(crate) async fn finish(mut self, reason: FinishReason) {
        let cut = self.stops.last_look(&self.held_text);
        self.let_out(cut.unwrap_or(usize::MAX), cut.is_some()).await;
        let reason = if cut.is_some() { FinishReason::Stop } else { reason };
        self.send(Event::Done(reason)).await;
    }

    /// Send held events whose text ends within the first `at` bytes of the held text; with `cut`, shorten the one that
    /// straddles it and forget the rest.
    async fn let_out(&mut self, at: usize, cut: bool) {
        let mut end = 0;
        while let Some(event) = self.held.front() {
            if let Event::Token(token) = event {
                let len = token.text.len();
                if end + len > at || (cut && end >= at) {
                    break;
                }
                end += len;
            }
            if let Some(event) = self.held.pop_front() {
                self.send(event).await;
            }
        }
        if cut {
            if let Some(Event::Token(mut token)) = self.held.pop_front()
                && end < at
            {
                token.text.truncate(at - end);
                self.send(Event::Token(token)).await;
            }
            self.held.clear();
            self.held_text.clear();
        } else {
            self.held_text.drain(..end.min(self.held_text.len()));
        }
    }

    /// A reader that has gone away is noticed when its stream, and with it this future, is dropped.
    async fn send(&mut self, event: Event) {
        let _ = self.events.send(Ok(event)).await;
    }
}
