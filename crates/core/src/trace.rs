//! The events of an answer as they are streamed, and their sum.

mod work;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// Counts of tokens. In JSON the counts by author are `draft_tokens`, `base_tokens`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens in the answer.
    pub completion_tokens: usize,
    /// Tokens in the answer by author.
    #[serde(flatten)]
    pub by_author: TokensByAuthor,
}

/// Tokens of an answer counted by author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensByAuthor(BTreeMap<Author, usize>);

impl Default for TokensByAuthor {
    /// Zero for draft and base, which readers of JSON may rely on.
    fn default() -> Self {
        Self([Seat::DRAFT, Seat::BASE].map(|seat| (seat.into(), 0)).into())
    }
}

impl TokensByAuthor {
    /// The tokens that `author` wrote.
    #[must_use]
    pub fn get(&self, author: impl Into<Author>) -> usize {
        self.0.get(&author.into()).copied().unwrap_or(0)
    }

    /// Adds tokens of `author`.
    pub fn add(&mut self, author: impl Into<Author>, tokens: usize) {
        *self.0.entry(author.into()).or_default() += tokens;
    }

    /// Iterates over the authors with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Author, usize)> {
        self.0.iter().map(|(&author, &tokens)| (author, tokens))
    }
}

impl Serialize for TokensByAuthor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(author, tokens)| (format!("{author}_tokens"), tokens)))
    }
}

impl<'de> Deserialize<'de> for TokensByAuthor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let counts = BTreeMap::<String, usize>::deserialize(deserializer)?;
        let author = |name: &str| Author::find(name.strip_suffix("_tokens")?);
        Ok(Self(counts.into_iter().filter_map(|(name, tokens)| Some((author(&name)?, tokens))).collect()))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Times of an answer, in seconds. In JSON the times of writing are `draft`, `base`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Time from the request to its end.
    pub total: f64,
    /// Time from the request to the first token.
    pub first_token: Option<f64>,
    /// Time spent in scoring calls.
    pub score: f64,
    /// Tokens that were proposed to the base during speculation. Not reproducible: the number of
    /// proposals depends on measured times.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub proposed_tokens: usize,
    /// Proposed tokens that the base confirmed. Not reproducible either.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted_tokens: usize,
    /// Proposals to the base by source. Not reproducible either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<Proposed>,
    /// Steps of the base that wrote tokens. Not reproducible where it speculated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base_steps: usize,
    /// Tokens of the prompt that the output engine read from its prefix cache. Not reproducible
    /// either: other requests fill the cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: usize,
    /// Time that each model spent writing.
    #[serde(flatten)]
    pub writing: SecondsBySeat,
}

impl Timings {
    /// Adds the steps of a call of the base and what was proposed for it.
    fn add_base_call(&mut self, call: &Call) {
        self.base_steps += match call.kind {
            CallKind::Generate => call.tokens,
            CallKind::Check => 1,
            CallKind::Score => 0,
        };
        let Some(accepted) = call.accepted else { return };
        self.proposed_tokens += call.tokens - 1;
        self.accepted_tokens += accepted;
        for proposed in &call.proposals {
            match self.proposals.iter_mut().find(|sum| sum.by == proposed.by) {
                Some(sum) => {
                    sum.tokens += proposed.tokens;
                    sum.accepted += proposed.accepted;
                }
                None => self.proposals.push(*proposed),
            }
        }
    }
}

/// Seconds by seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondsBySeat(BTreeMap<Seat, f64>);

impl Default for SecondsBySeat {
    /// Zero for draft and base, which readers of JSON may rely on.
    fn default() -> Self {
        Self([Seat::DRAFT, Seat::BASE].map(|seat| (seat, 0.0)).into())
    }
}

impl SecondsBySeat {
    /// The seconds of the model in `seat`.
    #[must_use]
    pub fn get(&self, seat: Seat) -> f64 {
        self.0.get(&seat).copied().unwrap_or(0.0)
    }

    /// Adds seconds to `seat`.
    pub fn add(&mut self, seat: Seat, seconds: f64) {
        *self.0.entry(seat).or_default() += seconds;
    }
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
        Self { started: Instant::now(), first_token: None, completion }
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
                answer.text.push_str(&token.text);
                answer.usage.completion_tokens += 1;
                answer.usage.by_author.add(token.by, 1);
                answer.tokens.push(token.clone());
            }
            // After a second look the base may take over again.
            Event::Handover(handover) => drop(answer.handover.get_or_insert(*handover)),
            Event::DraftEnd(end) => answer.draft_end = Some(*end),
            Event::Look(look) => answer.looks.push(look.clone()),
            Event::Call(call) => {
                match call.kind {
                    CallKind::Score => answer.timings.score += call.seconds,
                    CallKind::Generate | CallKind::Check => answer.timings.writing.add(call.to, call.seconds),
                }
                if call.to == Seat::BASE {
                    answer.timings.add_base_call(call);
                }
                answer.calls.push(call.clone());
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

    /// Returns the sum of the events.
    #[must_use]
    pub fn finish(self) -> Completion {
        self.completion
    }
}
