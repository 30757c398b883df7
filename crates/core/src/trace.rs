//! The events of an answer as they are streamed, and their sum.

mod sums;
mod work;

use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};

pub use sums::{SecondsBySeat, Timings, TokensByAuthor, Usage};
pub use work::Work;

use crate::{Author, Rule, Sampled, Seat, Source, Token};

/// A token of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The id in the vocabulary of the strategy's output engine: the base's, unless the draft
    /// writes alone.
    pub id: Token,
    /// The text that the token adds; empty for a token that ends within a character.
    pub text: String,
    /// The token's natural log-probability under the plain softmax of the output engine.
    pub logprob: Option<f64>,
    /// The author.
    pub by: Author,
    /// The geometric mean of the base's probabilities over the window that ends here; `None` before
    /// the first full window and after the switch.
    pub confidence: Option<f64>,
    /// The learned probability that the base continues well from here; `None` without a learned switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<f64>,
    /// True where the window reached the threshold and did not count, because it repeats what stands
    /// just before it; see [`crate::SKIP_REPETITIONS`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats: bool,
    /// The most likely tokens at this position with their natural log-probabilities, as many as
    /// were requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(Token, f64)>,
}

impl TokenRecord {
    /// A token that was sampled or scored; its text and confidence are filled in later.
    #[must_use]
    pub fn new(sampled: Sampled, by: impl Into<Author>) -> Self {
        let Sampled { token, logprob, top } = sampled;
        Self { logprob, top, ..Self::unscored(token, by) }
    }

    /// A token without a log-probability.
    #[must_use]
    pub fn unscored(id: Token, by: impl Into<Author>) -> Self {
        Self {
            id,
            text: String::new(),
            logprob: None,
            by: by.into(),
            confidence: None,
            switch: None,
            repeats: false,
            top: Vec::new(),
        }
    }
}

/// The switch from draft to base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    /// 0-based index of the token at which the window passed.
    pub at: usize,
    /// The window's geometric mean there.
    pub confidence: f64,
    /// Tokens in the window.
    pub window: usize,
    /// The threshold it reached.
    pub threshold: f64,
}

impl Handover {
    /// The switch at token `at` under `rule`.
    #[must_use]
    pub fn new(at: usize, confidence: f64, rule: Rule) -> Self {
        Self { at, confidence, window: rule.window(), threshold: rule.threshold() }
    }
}

/// The end of the draft before the window passed. The base may continue after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftEnd {
    /// Number of tokens of the answer up to the end of the draft.
    pub at: usize,
    /// [`FinishReason::Stop`] for the draft's end-of-text token, [`FinishReason::Length`] for
    /// `max_draft_tokens` or a full context.
    pub reason: FinishReason,
}

/// A second look: the draft was asked in the middle of the base's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// 0-based index of the token before which it was asked.
    pub at: usize,
    /// The text that the draft would write.
    pub text: String,
    /// True if the draft writes on from here.
    pub taken: bool,
}

/// The reason why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-text token or a stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
}

impl FinishReason {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The kind of a request to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// Writing tokens.
    Generate,
    /// Scoring tokens.
    Score,
    /// Checking proposed tokens against the engine's own choices.
    Check,
}

/// Tokens that a source proposed for one check, or for all of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// The source.
    pub by: Source,
    /// Tokens proposed.
    pub tokens: usize,
    /// Those of them that were confirmed.
    pub accepted: usize,
}

/// One request to an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The seat of the engine.
    pub to: Seat,
    /// The kind of call.
    pub kind: CallKind,
    /// Tokens written or scored.
    pub tokens: usize,
    /// Duration in seconds.
    pub seconds: f64,
    /// Proposed tokens that the engine confirmed, for a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<usize>,
    /// Proposed tokens by source, for a check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<Proposed>,
    /// Tokens of the list that were new to the model in this call, where a strategy counts them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prefilled: usize,
    /// Tokens written in this call that the answer does not hold, where a strategy counts them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub discarded: usize,
}

impl Call {
    /// A call that began at `since` and ends now.
    #[must_use]
    pub fn since(since: Instant, to: Seat, kind: CallKind, tokens: usize) -> Self {
        Self::new(to, kind, tokens, since.elapsed().as_secs_f64())
    }

    /// A call that took `seconds`.
    #[must_use]
    pub fn new(to: Seat, kind: CallKind, tokens: usize, seconds: f64) -> Self {
        Self { to, kind, tokens, seconds, accepted: None, proposals: Vec::new(), prefilled: 0, discarded: 0 }
    }
}

/// An item of the stream of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt was rendered.
    Prompt {
        /// Tokens in the prompt, in the vocabulary of the output engine.
        tokens: usize,
    },
    /// A token that is certain to be kept.
    Token(TokenRecord),
    /// The base takes over after the last token. After a second look it may do so again.
    Handover(Handover),
    /// The draft ended after the last token, and no window had passed.
    DraftEnd(DraftEnd),
    /// The draft was asked in the middle of the base's text; see [`crate::SECOND_LOOK`].
    Look(Look),
    /// A call of an engine ended.
    Call(Call),
    /// The output engine read a part of the prompt from its prefix cache.
    Reused {
        /// Tokens of the prompt that were not computed.
        tokens: usize,
    },
    /// The answer ends before this stop string.
    StopString(String),
    /// The answer is complete. This is always the last event.
    Done(FinishReason),
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A whole answer: the `--json` object of the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The answer's text.
    pub text: String,
    /// The answer's tokens; their texts, joined, are `text`.
    pub tokens: Vec<TokenRecord>,
    /// The switch, if the base took over.
    pub handover: Option<Handover>,
    /// The end of the draft, if it came before the window passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_end: Option<DraftEnd>,
    /// The reason why the answer ended.
    pub finish_reason: FinishReason,
    /// The stop string that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_string: Option<String>,
    /// Tokens counted.
    pub usage: Usage,
    /// Time spent.
    pub timings: Timings,
    /// Calls of engines, in order.
    pub calls: Vec<Call>,
    /// Second looks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
}

impl Completion {
    /// The tokens that the base wrote per step, where it speculated.
    #[must_use]
    pub fn tokens_per_base_step(&self) -> Option<f64> {
        let (tokens, steps) = (self.usage.by_author.get(Seat::BASE), self.timings.base_steps);
        (self.timings.proposed_tokens > 0 && steps > 0).then(|| tokens as f64 / steps as f64)
    }
}

/// An accumulator of events into a [`Completion`].
///
/// ```
/// use wsd_core::{Event, FinishReason, Seat, TokenRecord, Trace};
///
/// let mut trace = Trace::new();
/// let token = TokenRecord { text: "Hello".into(), ..TokenRecord::unscored(7, Seat::DRAFT) };
/// for event in [Event::Prompt { tokens: 3 }, Event::Token(token), Event::Done(FinishReason::Stop)] {
///     trace.push(&event);
/// }
/// let completion = trace.finish();
/// assert_eq!((completion.text.as_str(), completion.usage.by_author.get(Seat::DRAFT)), ("Hello", 1));
/// ```
#[derive(Clone, Debug)]
pub struct Trace {
    /// False for sums alone.
    keeps_records: bool,
    started: Instant,
    first_token: Option<Duration>,
    completion: Completion,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// A trace that begins now.
    #[must_use]
    pub fn new() -> Self {
        let completion = Completion {
            text: String::new(),
            tokens: Vec::new(),
            handover: None,
            draft_end: None,
            finish_reason: FinishReason::Length,
            stop_string: None,
            usage: Usage::default(),
            timings: Timings::default(),
            calls: Vec::new(),
            looks: Vec::new(),
        };
        Self { keeps_records: true, started: Instant::now(), first_token: None, completion }
    }

    /// A trace that begins now and keeps neither the text nor records of tokens, calls and looks: its
    /// size does not grow with the answer.
    #[must_use]
    pub fn sums() -> Self {
        Self { keeps_records: false, ..Self::new() }
    }

    /// Collects all events of a stream.
    ///
    /// # Errors
    /// The first error of the stream.
    pub async fn collect<E>(events: impl Stream<Item = Result<Event, E>>) -> Result<Completion, E> {
        let sum = |mut trace: Self, event| {
            trace.push(&event);
            std::future::ready(Ok(trace))
        };
        Ok(events.try_fold(Self::new(), sum).await?.finish())
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event) {
        let answer = &mut self.completion;
        match event {
            Event::Prompt { tokens } => answer.usage.prompt_tokens = *tokens,
            Event::Token(token) => {
                self.first_token.get_or_insert_with(|| self.started.elapsed());
                answer.usage.completion_tokens += 1;
                answer.usage.by_author.add(token.by, 1);
                if self.keeps_records {
                    answer.text.push_str(&token.text);
                    answer.tokens.push(token.clone());
                }
            }
            // After a second look the base may take over again.
            Event::Handover(handover) => drop(answer.handover.get_or_insert(*handover)),
            Event::DraftEnd(end) => answer.draft_end = Some(*end),
            Event::Look(look) => answer.looks.extend(self.keeps_records.then(|| look.clone())),
            Event::Call(call) => {
                match call.kind {
                    CallKind::Score => answer.timings.score += call.seconds,
                    CallKind::Generate | CallKind::Check => answer.timings.writing.add(call.to, call.seconds),
                }
                if call.to == Seat::BASE {
                    answer.timings.add_base_call(call);
                }
                answer.calls.extend(self.keeps_records.then(|| call.clone()));
            }
            Event::StopString(text) => answer.stop_string = Some(text.clone()),
            Event::Reused { tokens } => answer.timings.cached_tokens = *tokens,
            Event::Done(reason) => {
                answer.finish_reason = *reason;
                answer.timings.total = self.started.elapsed().as_secs_f64();
                answer.timings.first_token = self.first_token.map(|t| t.as_secs_f64());
            }
        }
    }

    /// The sum of the events so far.
    #[must_use]
    pub fn completion(&self) -> &Completion {
        &self.completion
    }

    /// Returns the sum of the events.
    #[must_use]
    pub fn finish(self) -> Completion {
        self.completion
    }
}
