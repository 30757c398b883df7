//! Reward-guided speculative decoding (RSD, arXiv 2501.19324): the draft writes a step, a scorer rates it,
//! and the base writes the step anew where the rating is too low.
//!
//! A step ends with the token that completes `step_end`, a blank line, on decoded text; the ids are kept. With
//! the draft's distribution `P_m` over steps, the base's `P_M` and the probability `omega` of acceptance for a
//! rating, a step is distributed as `omega(r(y)) P_m(y) + (1 - E[omega(r)]) P_M(y)`: the result is meant to be
//! biased to the reward. The base does not check accepted steps; it prefills them when it writes the next
//! time. The authors' rule that cuts all answers after some rounds without a finished one is left out. A step
//! without text has no rating, so the base writes it.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::relay::{Exchange, Relay};
use crate::scorers::{Rating, STEP_COMMAND, STEP_SCORERS, find_scorer};
use crate::steps::{generation, write_to_end};
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{
    Answer, Call, CallKind, Engine, Error, FinishReason, Flow, Job, Models, Need, Recipe, Result, Sampling, Seat,
    Setting, Step, StepScorer, Stop, Strategy, Token, TokenRecord, Values, splitmix64,
};

/// The setting for the scorer.
pub static STEP_SCORER: Setting =
    Setting::choice("step_scorer", "In reward, the rating of a step of the answer, from 0 to 1", STEP_SCORERS);

/// The setting for the decision.
pub static REWARD_CRITERION: Setting = Setting::choice(
    "reward_criterion",
    "In reward, the probability with which a step with rating r is accepted",
    &[
        ("threshold", "1 if r is at least reward_threshold, else 0"),
        ("constant", "reward_share, whatever the rating"),
        ("clip", "r"),
        ("sigmoid", "1 / (1 + exp(-r))"),
        ("logistic", "1 / (1 + exp(-s (r - t))) with t = reward_threshold and s = reward_slope"),
    ],
);

/// The setting for the least rating.
pub static REWARD_THRESHOLD: Setting =
    Setting::number("reward_threshold", "In reward, the rating from which a step is accepted", 0.0..=1.0)
        .with_default_number(0.7)
        .with_placeholder("R");

/// The setting for the constant probability.
pub static REWARD_SHARE: Setting =
    Setting::number("reward_share", "In reward_criterion=constant, the probability of acceptance", 0.0..=1.0)
        .with_default_number(0.5)
        .with_placeholder("P");

/// The setting for the slope of the logistic function.
pub static REWARD_SLOPE: Setting =
    Setting::positive("reward_slope", "In reward_criterion=logistic, the slope at the threshold, times 4", 1000.0)
        .with_default_number(20.0);

/// The setting for the text that ends a step.
pub static STEP_END: Setting = Setting::text("step_end", "In reward, the text that ends a step", "TEXT")
    .with_default_text("\n\n")
    .with_default_about("a blank line");

/// The setting for the longest step.
pub static MAX_STEP_TOKENS: Setting = Setting::integer(
    "max_step_tokens",
    "In reward, a step ends after this many tokens at the latest",
    1..=MAX_TOKENS_LIMIT,
)
.with_default_integer(512)
.with_placeholder("TOKENS");

pub(super) static RECIPE: Recipe = Recipe {
    name: "reward",
    title: "reward",
    about: "the draft writes steps, the base those that a scorer rejects (RSD, arXiv 2501.19324)",
    needs: &[Need::any(Seat::DRAFT), Need::any(Seat::BASE), Need::any(Seat::JUDGE).required_if(has_judge)],
    settings: &[
        &STEP_SCORER,
        &STEP_COMMAND,
        &REWARD_CRITERION,
        &REWARD_THRESHOLD,
        &REWARD_SHARE,
        &REWARD_SLOPE,
        &STEP_END,
        &MAX_STEP_TOKENS,
    ],
    make,
};

/// Tells whether the scorer asks the model in the seat judge.
fn has_judge(values: &Values) -> bool {
    let scorer = find_scorer(values.get(&STEP_SCORER));
    scorer.is_ok_and(|scorer| scorer.needs.iter().any(|need| need.seat == Seat::JUDGE))
}

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let scorer = find_scorer(values.get(&STEP_SCORER))?;
    let step_end: String = values.get(&STEP_END);
    if step_end.is_empty() {
        let limit = "a text of at least one character".into();
        return Err(Error::Setting { name: STEP_END.name, limit, value: "\"\"".into() });
    }
    Ok(Arc::new(Reward {
        draft: models.require(RECIPE.name, Seat::DRAFT)?,
        base: models.require(RECIPE.name, Seat::BASE)?,
        scorer_seat: scorer.needs.first().map(|need| need.seat),
        scorer: scorer.build(models, values)?,
        criterion: Criterion::from_values(values),
        step_end,
        max_step_tokens: values.get(&MAX_STEP_TOKENS),
    }))
}

/// The probability of acceptance as a function of the rating.
#[derive(Clone, Copy, Debug)]
enum Criterion {
    Threshold(f64),
    Constant(f64),
    Clip,
    Sigmoid,
    Logistic { threshold: f64, slope: f64 },
}

impl Criterion {
    fn from_values(values: &Values) -> Self {
        let threshold = values.get(&REWARD_THRESHOLD);
        match values.get::<&str>(&REWARD_CRITERION) {
            "constant" => Self::Constant(values.get(&REWARD_SHARE)),
            "clip" => Self::Clip,
            "sigmoid" => Self::Sigmoid,
            "logistic" => Self::Logistic { threshold, slope: values.get(&REWARD_SLOPE) },
            _ => Self::Threshold(threshold),
        }
    }

    /// The probability with which a step with this rating is accepted.
    fn acceptance(self, rating: f64) -> f64 {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Self::Threshold(threshold) => f64::from(u8::from(rating >= threshold)),
            Self::Constant(share) => share,
            Self::Clip => rating.clamp(0.0, 1.0),
            Self::Sigmoid => logistic(rating),
            Self::Logistic { threshold, slope } => logistic(slope * (rating - threshold)),
        }
    }
}

struct Reward {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    scorer: Arc<dyn StepScorer>,
    scorer_seat: Option<Seat>,
    criterion: Criterion,
    step_end: String,
    max_step_tokens: usize,
}

#[async_trait]
impl Strategy for Reward {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let models = (self.draft.as_ref(), self.base.as_ref());
        let relay = Relay::begin(models, Exchange::Ids, job, answer).await?;
        let rating = self.scorer.open(&job.prompt).await?;
        let mut writing = Writing { models: self, job, relay, rating, steps: Vec::new(), known: 0 };
        let reason = writing.run(answer).await?;
        answer.reused(writing.relay.base.session.reused_tokens()).await;
        Ok(reason)
    }
}

/// A step that the draft wrote.
struct Drafted {
    tokens: Vec<Token>,
    stop: Stop,
    /// True if the draft's context was full.
    is_cut: bool,
    /// The call, to be reported once the step is accepted or not.
    call: Call,
}

/// An answer in progress.
struct Writing<'a> {
    models: &'a Reward,
    job: &'a Job,
    relay: Relay<'a>,
    rating: Box<dyn Rating>,
    /// The texts of the steps so far.
    steps: Vec<String>,
    /// Length of the base's list when it last wrote: what lies behind is new to it.
    known: usize,
}

impl Writing<'_> {
    /// Writes steps until the answer ends.
    async fn run(&mut self, answer: &mut Answer) -> Result<FinishReason> {
        loop {
            if self.relay.base.space() == 0 {
                return Ok(FinishReason::Length);
            }
            let drafted = self.draft_step(answer).await?;
            if drafted.is_cut {
                let base = self.relay.base.session.as_mut();
                return write_to_end(base, Seat::BASE, &self.job.terms, None, answer).await;
            }
            let done = if self.accepts(&drafted, answer).await? {
                self.accept(drafted, answer).await?
            } else {
                self.base_step(answer).await?
            };
            if let Some(reason) = done {
                return Ok(reason);
            }
        }
    }

    /// The most tokens of the next step.
    fn most(&self, answer: &Answer) -> usize {
        self.models.max_step_tokens.min(answer.remaining()).min(self.relay.base.space())
    }

    /// Lets the draft write a step after the answer so far.
    async fn draft_step(&mut self, answer: &Answer) -> Result<Drafted> {
        let prefilled = self.relay.follow()?;
        let generation = self.relay.drafting(&self.job.terms, self.most(answer));
        let codec = self.relay.draft.engine.codec();
        let mut detokenizer = codec.detokenizer(self.relay.draft.session.tokens());
        let (started, mut tokens, mut text, mut stop) = (Instant::now(), Vec::new(), String::new(), None);
        let step_end = &self.models.step_end;
        let mut steps = self.relay.draft.session.generate(&generation);
        while !text.trim_start().contains(step_end) {
            match steps.next().await.transpose()? {
                Some(Step::Token(sampled)) => {
                    tokens.push(sampled.token);
                    text.push_str(&detokenizer.push(sampled.token)?);
                }
                Some(Step::End(end)) => stop = Some(end),
                None => break,
            }
        }
        drop(steps);
        let is_cut = stop == Some(Stop::Length) && tokens.len() < generation.max_tokens;
        let call = Call::since(started, Seat::DRAFT, CallKind::Generate, tokens.len());
        Ok(Drafted { tokens, stop: stop.unwrap_or(Stop::Length), is_cut, call: Call { prefilled, ..call } })
    }

    /// Rates a step and decides. An accepted step is added to the steps.
    async fn accepts(&mut self, drafted: &Drafted, answer: &mut Answer) -> Result<bool> {
        let text = self.relay.spell(&drafted.tokens, drafted.stop)?;
        let has_text = !text.trim().is_empty();
        let mut accepted = false;
        if has_text {
            self.steps.push(text);
            let started = Instant::now();
            // A step that the scorer's context does not hold is the base's to write.
            let ratings = match self.rating.rate(&self.steps, self.steps.len() - 1).await {
                Err(Error::PromptTooLong { .. }) => None,
                rated => Some(rated?),
            };
            if let Some(seat) = self.models.scorer_seat {
                let tokens = ratings.as_ref().map_or(0, |ratings| ratings.tokens);
                answer.call(Call::since(started, seat, CallKind::Score, tokens)).await;
            }
            if let Some(ratings) = ratings {
                let rating = ratings.values.last().copied().unwrap_or(0.0);
                accepted = self.uniform() < self.models.criterion.acceptance(rating);
            }
        }
        if has_text && !accepted {
            self.steps.pop();
        }
        let discarded = if accepted { 0 } else { drafted.tokens.len() };
        answer.call(Call { discarded, ..drafted.call.clone() }).await;
        Ok(accepted)
    }

    /// A uniform number in 0..1 for the decision about the next step.
    fn uniform(&self) -> f64 {
        let sampling = &self.job.terms.sampling;
        let seed = sampling.seed ^ splitmix64(u64::from_le_bytes(*b"criteria"));
        Sampling { seed, ..sampling.clone() }.uniform(self.relay.base.session.tokens().len())
    }

    /// Puts a step of the draft into the answer.
    async fn accept(&mut self, drafted: Drafted, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let tokens = self.relay.base_tokens(&drafted.tokens, drafted.stop)?;
        let space = self.relay.base.space();
        for &token in &tokens[..tokens.len().min(space)] {
            self.relay.base.session.append(&[token]);
            if let Flow::Done(reason) = self.relay.push(TokenRecord::unscored(token, Seat::DRAFT), 0, answer).await? {
                return Ok(Some(reason));
            }
        }
        Ok(match drafted.stop {
            _ if tokens.len() > space => Some(FinishReason::Length),
            Stop::End => Some(FinishReason::Stop),
            Stop::Length => None,
        })
    }

    /// Lets the base write a step, which goes out token by token.
    async fn base_step(&mut self, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let generation = generation(&self.job.terms, Seat::BASE, None, answer, self.most(answer));
        let prefilled = self.relay.base.session.tokens().len() - self.known.min(self.relay.base.session.tokens().len());
        let mut detokenizer = self.relay.detokenizer();
        let (started, mut kept, mut text, mut done) = (Instant::now(), Vec::new(), String::new(), None);
        let step_end = &self.models.step_end;
        let mut steps = self.relay.base.session.generate(&generation);
        while done.is_none() && !text.trim_start().contains(step_end) {
            match steps.next().await.transpose()? {
                Some(Step::Token(sampled)) => {
                    kept.push(sampled.token);
                    text.push_str(&detokenizer.push(sampled.token)?);
                    if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, Seat::BASE)).await? {
                        done = Some(reason);
                    }
                }
                Some(Step::End(Stop::End)) => done = Some(FinishReason::Stop),
                Some(Step::End(Stop::Length)) | None => break,
            }
        }
        drop(steps);
        kept.iter().try_for_each(|&token| self.relay.note(token))?;
        self.known = self.relay.base.session.tokens().len();
        let call = Call::since(started, Seat::BASE, CallKind::Generate, kept.len());
        answer.call(Call { prefilled, ..call }).await;
        if done.is_none() && kept.is_empty() {
            done = Some(FinishReason::Length);
        }
        if !text.is_empty() {
            self.steps.push(text);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_criterion_has_its_probability() {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (criterion, rating, want) in [
            (Criterion::Threshold(0.7), 0.7, 1.0),
            (Criterion::Threshold(0.7), 0.699, 0.0),
            (Criterion::Constant(0.3), 0.9, 0.3),
            (Criterion::Clip, 0.4, 0.4),
            (Criterion::Sigmoid, 0.5, logistic(0.5)),
            (Criterion::Logistic { threshold: 0.7, slope: 10.0 }, 0.7, 0.5),
            (Criterion::Logistic { threshold: 0.7, slope: 10.0 }, 0.8, logistic(1.0)),
        ] {
            assert!((criterion.acceptance(rating) - want).abs() < 1e-12, "{criterion:?} at {rating}");
        }
    }
}
