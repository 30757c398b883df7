//! The answer being written: tokens in, events out. Text that may still become part of a stop
//! string is held back.

use std::collections::VecDeque;

use futures::SinkExt as _;
use futures::channel::mpsc;

use crate::{
    Call, Detokenizer, DraftEnd, Event, FinishReason, Handover, Look, Result, StopMatch, Stops, TextCodec, Token,
    TokenRecord,
};

/// The state of an answer after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// The answer continues.
    More,
    /// The answer is complete.
    Done(FinishReason),
}

/// The answer being written. It decodes tokens, applies stop strings and the token limit, and sends
/// events.
#[derive(Debug)]
pub struct Answer {
    events: mpsc::Sender<Result<Event>>,
    stops: Stops,
    max_tokens: usize,
    /// Length of the prompt, in tokens.
    prompt: usize,
    /// Number of tokens written so far.
    written: usize,
    /// The decoder of tokens; `None` before [`Answer::begin`].
    detokenizer: Option<Detokenizer>,
    /// Number of bytes of the next decoded text that belong to the prompt.
    skip: usize,
    /// Tokens whose text may still become part of a stop string, and other events between
    /// them. They are sent later.
    held: VecDeque<Event>,
    /// The joined text of the held tokens.
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
            prompt: 0,
            written: 0,
            detokenizer: None,
            skip: 0,
            held: VecDeque::new(),
            held_text: String::new(),
        }
    }

    /// Returns the number of tokens that may still be written.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.max_tokens - self.written
    }

    /// Returns the number of tokens written so far.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Reports the length of the prompt, in tokens.
    pub async fn prompt(&mut self, tokens: usize) {
        self.prompt = tokens;
        self.send(Event::Prompt { tokens }).await;
    }

    /// The length of the prompt, in tokens; 0 before it is reported.
    pub(crate) fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// Reports the number of tokens that the output engine had in its cache.
    pub async fn reused(&mut self, tokens: usize) {
        self.send(Event::Reused { tokens: tokens.min(self.prompt) }).await;
    }

    /// Starts decoding tokens that continue `context`. The first `skip` bytes of their text belong
    /// to the prompt and are left out.
    pub fn begin(&mut self, codec: &TextCodec, context: &[Token], skip: usize) {
        self.detokenizer = Some(codec.detokenizer(context));
        self.skip = skip;
    }

    /// Writes one token and fills in its text. Returns [`Flow::Done`] at a stop string and at the token
    /// limit.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
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
        match self.stops.find(&self.held_text) {
            StopMatch::Cut(at) => {
                self.stop(at).await;
                Ok(Flow::Done(FinishReason::Stop))
            }
            StopMatch::Hold(at) => {
                self.release(at, false).await;
                if self.written < self.max_tokens { Ok(Flow::More) } else { Ok(Flow::Done(FinishReason::Length)) }
            }
        }
    }

    /// Reports that the base takes over after the token written last.
    pub async fn handover(&mut self, handover: Handover) {
        self.after_tokens(Event::Handover(handover)).await;
    }

    /// Reports that the draft ended after the token written last, before the window passed.
    pub async fn draft_end(&mut self, end: DraftEnd) {
        self.after_tokens(Event::DraftEnd(end)).await;
    }

    /// Reports that the draft was asked in the middle of the base's text.
    pub async fn look(&mut self, look: Look) {
        self.after_tokens(Event::Look(look)).await;
    }

    /// Sends an event once the tokens before it are sent.
    async fn after_tokens(&mut self, event: Event) {
        if self.held.is_empty() {
            self.send(event).await;
        } else {
            self.held.push_back(event);
        }
    }

    /// Reports a call of an engine.
    pub async fn call(&mut self, call: Call) {
        self.send(Event::Call(call)).await;
    }

    /// Ends the answer: sends the held events up to the first stop string, if there is one, and the
    /// reason. An incomplete character at the end is dropped.
    pub(crate) async fn finish(mut self, reason: FinishReason) {
        let stop_at = self.stops.find_first(&self.held_text);
        match stop_at {
            Some(at) => self.stop(at).await,
            None => self.release(usize::MAX, false).await,
        }
        let reason = if stop_at.is_some() { FinishReason::Stop } else { reason };
        self.send(Event::Done(reason)).await;
    }

    /// Sends the held text before the stop string at `at`, and names that string.
    async fn stop(&mut self, at: usize) {
        let stop = self.stops.starting(&self.held_text[at..]).map(str::to_owned);
        self.release(at, true).await;
        if let Some(text) = stop {
            self.send(Event::StopString(text)).await;
        }
    }

    /// Sends the held events whose text ends within the first `at` bytes of the held text. If `is_stop`,
    /// a stop string begins at `at`: a token across that position is shortened, and all after it is
    /// dropped.
    async fn release(&mut self, at: usize, is_stop: bool) {
        // The number of bytes of the held text that were sent.
        let mut end = 0;
        while let Some(event) = self.held.front() {
            if let Event::Token(token) = event {
                let len = token.text.len();
                if end + len > at || (is_stop && end >= at) {
                    break;
                }
                end += len;
            }
            if let Some(event) = self.held.pop_front() {
                self.send(event).await;
            }
        }
        if is_stop {
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

    /// Sends an event. An error is ignored: the receiver is dropped only together with this future.
    async fn send(&mut self, event: Event) {
        let _ = self.events.send(Ok(event)).await;
    }
}
