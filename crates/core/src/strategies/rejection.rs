//! Rejection of the base's tokens: the base draws a token `v`, and where a rule rejects it the aligned draft
//! draws another.
//!
//! With the base's distribution `p` and the draft's `q`, `v` is rejected
//!
//! - `relative`: where `p(v) < max q - level`, the rejection criterion of Hammal, Zweigenbaum and Corro
//!   (arXiv 2604.16146): a token that is unlikely because many would do is no error;
//! - `knapsack`: where `p(v) < level`, the dual form of KAD by the same authors (arXiv 2510.27017);
//! - `confidence`: where `max p < level`, the rule of Nudging, token by token.
//!
//! So `P(v) = p(v) [kept] + (1 - p(kept)) q(v)`. The probabilities of the rule are those of the plain
//! softmax; the request's temperature and filters apply to both draws. Where the vocabularies differ, or an
//! engine returns no rows, the models exchange text: the draft then writes one token and the base reads its
//! text, and an end of text that the base draws is kept.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::try_join;

use crate::distribution::{self as rows, NoToken};
use crate::fused::{Fused, Fusion, Next, Place};
use crate::relay::{Exchange, Relay};
use crate::steps::{generation, write_to_end};
use crate::{
    Answer, Bridge, Call, CallKind, Caps, Engine, Error, FinishReason, Flow, Generation, Job, Models, Need, Recipe,
    Result, Row, Sampled, Seat, Setting, Step, Stop, Strategy, TokenRecord, Values, Written, pick,
};

/// The setting for the rule.
pub static REJECTION_RULE: Setting = Setting::choice(
    "rejection_rule",
    "In rejection, where the base's token is replaced by one of the draft's",
    &[
        ("relative", "where its probability is below the draft's highest by more than rejection_level"),
        ("knapsack", "where its probability is below rejection_level (KAD)"),
        ("confidence", "where the base's highest probability is below rejection_level (Nudging, token by token)"),
    ],
);

/// The setting for the level of the rule.
pub static REJECTION_LEVEL: Setting =
    Setting::number("rejection_level", "In rejection, the probability that the rule compares with", 0.0..=1.0)
        .with_default_number(0.4)
        .with_placeholder("P");

pub(super) static RECIPE: Recipe = Recipe {
    name: "rejection",
    title: "rejection",
    about: "the draft replaces the base's tokens that a rule rejects (arXiv 2604.16146; KAD, arXiv 2510.27017)",
    needs: &[
        Need::with(Seat::DRAFT, Caps { score: true, ..Caps::GENERATE }),
        Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE }),
    ],
    settings: &[&REJECTION_RULE, &REJECTION_LEVEL],
    make,
};

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| models.require(RECIPE.name, seat));
    let (base, draft) = (base?, draft?);
    let level = values.get(&REJECTION_LEVEL);
    let rule = match values.get::<&str>(&REJECTION_RULE) {
        "knapsack" => Rejection { rule: Rule::Knapsack, level },
        "confidence" => Rejection { rule: Rule::Confidence, level },
        _ => Rejection { rule: Rule::Relative, level },
    };
    let has_rows = base.card().caps.logits && draft.card().caps.logits;
    if has_rows && Bridge::passes_ids(draft.codec(), base.codec()) {
        let models = vec![(Seat::BASE, base), (Seat::DRAFT, draft)];
        return Ok(Arc::new(Fused { models, fusion: Arc::new(rule), finish: None }));
    }
    Ok(Arc::new(ByText { base, draft, rule }))
}

/// The quantity that is compared with the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Relative,
    Knapsack,
    Confidence,
}

/// The rule.
#[derive(Clone, Copy, Debug)]
struct Rejection {
    rule: Rule,
    level: f64,
}

impl Rejection {
    /// Tells whether a token of the base is kept: its probability, the base's highest one, and the draft's
    /// highest one, which the rules but `relative` do not read.
    fn keeps(&self, token: f64, base: f64, draft: f64) -> bool {
        match self.rule {
            Rule::Relative => token >= draft - self.level,
            Rule::Knapsack => token >= self.level,
            Rule::Confidence => base >= self.level,
        }
    }

    /// The token that the base draws, with its probability and that of its most likely one.
    fn drawn(base: &Row, place: &Place<'_>) -> Result<(Sampled, f64, f64), NoToken> {
        let sampled = pick(&mut base.clone(), place.list, place.sampling).ok_or(NoToken)?;
        let probability = sampled.logprob.unwrap_or(f64::NEG_INFINITY).exp();
        Ok((sampled, probability, rows::most_likely(base)?.1))
    }
}

impl Fusion for Rejection {
    fn is_lazy(&self) -> bool {
        self.rule != Rule::Relative
    }

    fn first(&self, base: &Row, place: &Place<'_>) -> Result<Option<Next>, NoToken> {
        let (sampled, token, best) = Self::drawn(base, place)?;
        Ok(self.keeps(token, best, 0.0).then(|| Next::Token(sampled.token, Seat::BASE.into())))
    }

    fn next(&self, models: &[Row], place: &Place<'_>) -> Result<Next, NoToken> {
        let (sampled, token, best) = Self::drawn(&models[0], place)?;
        if self.keeps(token, best, rows::most_likely(&models[1])?.1) {
            return Ok(Next::Token(sampled.token, Seat::BASE.into()));
        }
        let sampling = place.sampling.for_seat(Seat::DRAFT, place.sampling.prompt);
        let other = pick(&mut models[1].clone(), place.list, &sampling).ok_or(NoToken)?;
        Ok(Next::Token(other.token, Seat::DRAFT.into()))
    }
}

/// The same by text.
struct ByText {
    base: Arc<dyn Engine>,
    draft: Arc<dyn Engine>,
    rule: Rejection,
}

#[async_trait]
impl Strategy for ByText {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let models = (self.draft.as_ref(), self.base.as_ref());
        let mut relay = Relay::begin(models, Exchange::Ids, job, answer).await?;
        loop {
            let turn = match self.rule.rule {
                _ if relay.base.space() == 0 => Turn::Done(FinishReason::Length),
                Rule::Relative => self.both_draw(&mut relay, job, answer).await?,
                Rule::Knapsack | Rule::Confidence => self.base_writes(&mut relay, job, answer).await?,
            };
            let turn = match turn {
                Turn::Rejected(drawn) => self.draft_writes(drawn, &mut relay, job, answer).await?,
                turn => turn,
            };
            if let Turn::Done(reason) = turn {
                answer.reused(relay.base.session.reused_tokens()).await;
                return Ok(reason);
            }
        }
    }
}

/// The end of a turn.
enum Turn {
    /// The answer goes on.
    More,
    /// A token of the base was rejected; with what the draft drew in its place, if it was asked.
    Rejected(Option<Written>),
    /// The answer has ended.
    Done(FinishReason),
}

impl From<Flow> for Turn {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::More => Self::More,
            Flow::Done(reason) => Self::Done(reason),
        }
    }
}

/// The most tokens of the draft that spell one character.
const CHARACTER_TOKENS: usize = 8;

impl ByText {
    /// Lets both models draw a token at the same time, and keeps the base's unless it is rejected.
    async fn both_draw(&self, relay: &mut Relay<'_>, job: &Job, answer: &mut Answer) -> Result<Turn> {
        relay.follow()?;
        let of_base = asking(generation(&job.terms, Seat::BASE, None, answer, 1));
        let of_draft = asking(relay.drafting(&job.terms, 1));
        let (base, draft) = try_join(relay.base.session.write(&of_base), relay.draft.session.write(&of_draft)).await?;
        answer.call(Call::new(Seat::DRAFT, CallKind::Generate, draft.tokens.len(), draft.seconds)).await;
        answer.call(Call::new(Seat::BASE, CallKind::Generate, base.tokens.len(), base.seconds)).await;
        let highest = draft.tokens.first().map(|drawn| highest(drawn, self.draft.as_ref())).transpose()?;
        match base.tokens.into_iter().next() {
            Some(drawn) if self.keeps(&drawn, highest.unwrap_or(0.0))? => {
                Ok(relay.write(drawn, Seat::BASE, job.terms.top_logprobs, answer).await?.into())
            }
            Some(_) => {
                relay.base.session.truncate(relay.base.session.tokens().len() - 1);
                Ok(Turn::Rejected(Some(draft)))
            }
            None if base.stop == Stop::End => Ok(Turn::Done(FinishReason::Stop)),
            None => Ok(Turn::Done(FinishReason::Length)),
        }
    }

    /// Lets the base write until one of its tokens is rejected.
    async fn base_writes(&self, relay: &mut Relay<'_>, job: &Job, answer: &mut Answer) -> Result<Turn> {
        let generation = asking(generation(&job.terms, Seat::BASE, None, answer, answer.remaining()));
        let (started, mut asked, mut kept, mut turn) = (Instant::now(), 0, Vec::new(), Turn::More);
        let mut steps = relay.base.session.generate(&generation);
        while matches!(turn, Turn::More) {
            match steps.next().await.transpose()? {
                Some(Step::Token(mut drawn)) => {
                    asked += 1;
                    if self.keeps(&drawn, 0.0)? {
                        kept.push(drawn.token);
                        drawn.top.truncate(job.terms.top_logprobs);
                        turn = answer.token(TokenRecord::new(drawn, Seat::BASE)).await?.into();
                    } else {
                        turn = Turn::Rejected(None);
                    }
                }
                Some(Step::End(Stop::End)) => turn = Turn::Done(FinishReason::Stop),
                Some(Step::End(Stop::Length)) | None => turn = Turn::Done(FinishReason::Length),
            }
        }
        drop(steps);
        kept.into_iter().try_for_each(|token| relay.note(token))?;
        if matches!(turn, Turn::Rejected(_)) {
            relay.base.session.truncate(relay.base.session.tokens().len() - 1);
        }
        answer.call(Call::since(started, Seat::BASE, CallKind::Generate, asked)).await;
        Ok(turn)
    }

    /// Lets the draft write one token, or as many as spell a character. The first one may be `drawn` and
    /// told already.
    async fn draft_writes(
        &self,
        mut drawn: Option<Written>,
        relay: &mut Relay<'_>,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<Turn> {
        if drawn.is_none() {
            relay.follow()?;
        }
        let (one, told) = (relay.drafting(&job.terms, 1), usize::from(drawn.is_some()));
        let (started, mut drafted, mut tokens) = (Instant::now(), Vec::new(), Vec::new());
        while tokens.is_empty() && drafted.len() < CHARACTER_TOKENS {
            let written = match drawn.take() {
                Some(drawn) => drawn,
                None => relay.draft.session.write(&one).await?,
            };
            if written.tokens.is_empty() && drafted.is_empty() && written.stop == Stop::End {
                return Ok(Turn::Done(FinishReason::Stop));
            }
            if written.tokens.is_empty() {
                break;
            }
            drafted.extend(written.ids());
            tokens = relay.base_tokens(&drafted, Stop::Length)?;
        }
        if drafted.len() > told {
            answer.call(Call::since(started, Seat::DRAFT, CallKind::Generate, drafted.len() - told)).await;
        }
        if tokens.is_empty() {
            // The draft's context is full, or it writes no text.
            return Ok(Turn::Done(
                write_to_end(relay.base.session.as_mut(), Seat::BASE, &job.terms, None, answer).await?,
            ));
        }
        let (from, space) = (relay.base.session.tokens().len(), relay.base.space());
        relay.base.session.append(&tokens[..tokens.len().min(space)]);
        let started = Instant::now();
        let scored = relay.base.session.score_top(from, job.terms.top_logprobs).await?;
        answer.call(Call::since(started, Seat::BASE, CallKind::Score, scored.len())).await;
        for sampled in scored {
            if let Flow::Done(reason) = relay.write(sampled, Seat::DRAFT, job.terms.top_logprobs, answer).await? {
                return Ok(Turn::Done(reason));
            }
        }
        Ok(Turn::More)
    }

    /// Tells whether the base's token is kept; `draft` is the draft's highest probability.
    fn keeps(&self, drawn: &Sampled, draft: f64) -> Result<bool> {
        let best = highest(drawn, self.base.as_ref())?;
        let token = drawn.logprob.ok_or_else(|| unscored(self.base.as_ref()))?.exp();
        Ok(self.rule.keeps(token, best, draft))
    }
}

/// The same generation, which also returns the most likely token at each position.
fn asking(mut generation: Generation) -> Generation {
    generation.top_logprobs = generation.top_logprobs.max(1);
    generation
}

/// The highest probability at the position of a token.
fn highest(drawn: &Sampled, engine: &dyn Engine) -> Result<f64> {
    drawn.top.first().map(|(_, logprob)| logprob.exp()).ok_or_else(|| unscored(engine))
}

/// The error of an engine that generated without log-probabilities.
fn unscored(engine: &dyn Engine) -> Error {
    Error::Lacks { engine: engine.card().name.clone(), need: "log-probabilities of the tokens it generates" }
}
