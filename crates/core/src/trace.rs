//! What happened while an answer was written: events as they come, and their sum.

use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use crate::{Role, Rule, Sampled, Token};

/// A token of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The id in the vocabulary of the model that continues: the base's, or the draft's where it writes alone.
    pub id: Token,
    /// The text it adds; empty for a token that only begins a character.
    pub text: String,
    /// The base's natural log-probability of it under the plain softmax (the draft's where it writes alone).
    pub logprob: Option<f64>,
    /// Who wrote it.
    pub by: Role,
    /// The geometric mean of the base's probabilities over the window that ends here, while the switch was undecided.
    pub confidence: Option<f64>,
    /// The likeliest tokens here with their log-probabilities, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(Token, f64)>,
}

impl TokenRecord {
    /// A token that was sampled or scored; its text and confidence are not known yet.
    #[must_use]
    pub fn new(sampled: Sampled, by: Role) -> Self {
        let Sampled { token, logprob, top } = sampled;
        Self { logprob, top, ..Self::unscored(token, by) }
    }

    /// A token that nothing is known of but its author.
    #[must_use]
    pub fn unscored(id: Token, by: Role) -> Self {
        Self { id, text: String::new(), logprob: None, by, confidence: None, top: Vec::new() }
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

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-text token or a stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
}

/// What an engine was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// Write tokens.
    Generate,
    /// Score tokens.
    Score,
    /// Say what it would choose where tokens were proposed.
    Check,
}

/// One request to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The engine asked.
    pub to: Role,
    /// What for.
    pub kind: CallKind,
    /// Tokens written or scored.
    pub tokens: usize,
    /// How long it took.
    pub seconds: f64,
    /// How many of the proposed tokens were what the base chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<usize>,
}

impl Call {
    /// A call that began at `since` and ends now.
    #[must_use]
    pub fn since(since: Instant, to: Role, kind: CallKind, tokens: usize) -> Self {
        Self { to, kind, tokens, seconds: since.elapsed().as_secs_f64(), accepted: None }
    }
}

/// An item of a decoding's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt is rendered: its length in tokens of the model that continues.
    Prompt {
        /// Tokens in the prompt.
        tokens: usize,
    },
    /// A token that is certain to be kept.
    Token(TokenRecord),
    /// The base takes over after the last token.
    Handover(Handover),
    /// An engine was asked.
    Call(Call),
    /// The answer is complete. Always the last event.
    Done(FinishReason),
}

/// Tokens counted by author.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens in the answer.
    pub completion_tokens: usize,
    /// Tokens of the answer that the draft wrote.
    pub draft_tokens: usize,
    /// Tokens of the answer that the base wrote.
    pub base_tokens: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Where the time went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From the request to its end.
    pub total: f64,
    /// From the request to the first token.
    pub first_token: Option<f64>,
    /// The draft writing.
    pub draft: f64,
    /// The base scoring.
    pub score: f64,
    /// The base writing.
    pub base: f64,
    /// Tokens that the draft proposed to a base that wrote: how many changes with the times measured, as these do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub proposed_tokens: usize,
    /// How many of them the base chose.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted_tokens: usize,
}

/// A whole answer: the `--json` object of the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The answer's text.
    pub text: String,
    /// Its tokens; their texts joined are `text`.
    pub tokens: Vec<TokenRecord>,
    /// The switch, where it came.
    pub handover: Option<Handover>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Tokens counted.
    pub usage: Usage,
    /// Time spent.
    pub timings: Timings,
    /// What the engines were asked, in order.
    pub calls: Vec<Call>,
}

/// Sums events up to a [`Completion`].
#[derive(Debug)]
pub struct Trace {
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
            finish_reason: FinishReason::Length,
            usage: Usage::default(),
            timings: Timings::default(),
            calls: Vec::new(),
        };
        Self { started: Instant::now(), first_token: None, completion }
    }

    /// The sum of all events of a stream, or its first error.
    ///
    /// # Errors
    /// The stream's.
    pub async fn collect<E>(events: impl Stream<Item = Result<Event, E>>) -> Result<Completion, E> {
        let sum = |mut trace: Self, event| {
            trace.push(&event);
            std::future::ready(Ok(trace))
        };
        Ok(events.try_fold(Self::new(), sum).await?.finish())
    }

    /// Take in an event.
    pub fn push(&mut self, event: &Event) {
        let answer = &mut self.completion;
        match event {
            Event::Prompt { tokens } => answer.usage.prompt_tokens = *tokens,
            Event::Token(token) => {
                self.first_token.get_or_insert_with(|| self.started.elapsed());
                answer.text.push_str(&token.text);
                answer.usage.completion_tokens += 1;
                *match token.by {
                    Role::Draft => &mut answer.usage.draft_tokens,
                    Role::Base => &mut answer.usage.base_tokens,
                } += 1;
                answer.tokens.push(token.clone());
            }
            Event::Handover(handover) => answer.handover = Some(*handover),
            Event::Call(call) => {
                *match (call.to, call.kind) {
                    (Role::Draft, _) => &mut answer.timings.draft,
                    (Role::Base, CallKind::Score) => &mut answer.timings.score,
                    (Role::Base, CallKind::Generate | CallKind::Check) => &mut answer.timings.base,
                } += call.seconds;
                if let Some(accepted) = call.accepted {
                    answer.timings.proposed_tokens += call.tokens - 1;
                    answer.timings.accepted_tokens += accepted;
                }
                answer.calls.push(*call);
            }
            Event::Done(reason) => {
                answer.finish_reason = *reason;
                answer.timings.total = self.started.elapsed().as_secs_f64();
                answer.timings.first_token = self.first_token.map(|t| t.as_secs_f64());
            }
        }
    }

    /// The sum.
    #[must_use]
    pub fn finish(self) -> Completion {
        self.completion
    }
}
