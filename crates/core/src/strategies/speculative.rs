//! Speculation: the draft writes ahead, the base checks many tokens in one step, and the text is the base's alone.
//!
//! The draft proposes its likeliest tokens; the base says of each position what it would have written there
//! ([`Session::choices`]), and the proposals are kept as far as they are just that. The base's own token follows. So the answer is,
//! token for token, the one that the base gives by itself, greedy or sampled. It is the rule of Leviathan, Kalman and Matias
//! (arXiv 2211.17192, algorithm 1) for a draft that puts all its probability on one token `x`: `x` is accepted with probability
//! `p(x)`, and otherwise what is drawn is distributed as `p` without `x`.
//!
//! How far ahead is decided as it goes: with `a` the share of proposals that were accepted, a round of `k` yields
//! `(1 - a^(k+1)) / (1 - a)` tokens (their equation 1) and takes `k` steps of the draft and one of the base over `k + 1` tokens,
//! whose times are measured. The `k` with the least time per token is taken, 0 among them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::future::try_join;

use super::{render, to_the_end, write_chunk, write_on};
use crate::strategy::Parts;
use crate::{
    Answer, Bridge, Call, CallKind, Engine, FinishReason, Flow, Generation, Job, Result, Role, Sampling, Session, Step,
    Strategy, Token, TokenRecord,
};

/// The most tokens proposed at once.
const MOST_AHEAD: usize = 16;
/// The most of them while little is known of the draft.
const AT_FIRST: usize = 4;
/// Tokens that the base writes by itself where the draft does not pay, before it is given another chance: twice as many each
/// time, from the first of these to the second.
const REST_TOKENS: [usize; 2] = [4, 64];
/// In every so many turns the base writes one token alone, so that it is known what that takes.
const MEASURE_TURNS: usize = 16;
/// Tokens that a draft reads along with its first step of a round: what the round before may leave it.
const READ_ALONG: usize = 2;
/// What a measurement weighs after each later one.
const MEMORY: f64 = 0.9;

struct Speculative {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
}

pub(crate) fn make(mut parts: Parts) -> Arc<dyn Strategy> {
    let base = parts.engines.swap_remove(1);
    let draft = parts.engines.swap_remove(0);
    Arc::new(Speculative { draft, base })
}

#[async_trait]
impl Strategy for Speculative {
    fn speaker(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let prompt = render(self.base.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        answer.begin(self.base.codec(), &prompt.tokens, 0);
        let mut base = self.base.open(&prompt.tokens).await?;
        let mut draft = self.draft.open(&prompt.tokens).await?;
        try_join(base.warm(), draft.warm()).await?;
        let pair = Pair { draft, prompts: [prompt.tokens.len(); 2], draft_limit: self.draft.card().max_len };
        speculate(base.as_mut(), pair, self.base.card().max_len, job, answer).await
    }
}

/// Whether the draft's tokens are the base's and the base tells what it would choose.
pub(super) fn can_speculate(draft: &dyn Engine, base: &dyn Engine) -> bool {
    base.card().caps.logits && Bridge::passes_ids(draft.codec(), base.codec())
}

/// The draft beside a base that writes.
pub(super) struct Pair {
    /// Holds its prompt and any beginning of the answer, or of another one.
    pub(super) draft: Box<dyn Session>,
    /// Tokens of the draft's and of the base's prompt.
    pub(super) prompts: [usize; 2],
    /// Tokens that the draft's context holds.
    pub(super) draft_limit: usize,
}

/// Let the base write on until the answer ends, the draft ahead of it.
pub(super) async fn speculate(
    base: &mut dyn Session,
    mut pair: Pair,
    limit: usize,
    job: &Job,
    answer: &mut Answer,
) -> Result<FinishReason> {
    let mut pace = Pace::default();
    loop {
        let room = answer.room().min(limit - base.tokens().len());
        let behind = pair.follow(base.tokens());
        if room == 0 {
            return Ok(FinishReason::Length);
        }
        if pair.draft.tokens().len() + MOST_AHEAD > pair.draft_limit {
            return to_the_end(base, Role::Base, job, answer).await;
        }
        let done = match pace.turn() {
            Turn::Ahead(count) if room > 1 => {
                let catches_up = behind > READ_ALONG;
                round(base, pair.draft.as_mut(), count.min(room - 1), catches_up, &mut pace, job, answer).await?
            }
            Turn::Ahead(_) => alone(base, 1, &mut pace, job, answer).await?,
            Turn::Alone(count) => alone(base, count.min(room), &mut pace, job, answer).await?,
        };
        if let Some(reason) = done {
            return Ok(reason);
        }
    }
}

/// The base writes some tokens by itself.
async fn alone(
    base: &mut dyn Session,
    count: usize,
    pace: &mut Pace,
    job: &Job,
    answer: &mut Answer,
) -> Result<Option<FinishReason>> {
    let started = Instant::now();
    let (written, done) = write_on(base, count, Role::Base, job, answer).await?;
    pace.alone(written, started.elapsed().as_secs_f64());
    Ok(done)
}

/// The draft proposes, the base chooses.
async fn round(
    base: &mut dyn Session,
    draft: &mut dyn Session,
    ahead: usize,
    catches_up: bool,
    pace: &mut Pace,
    job: &Job,
    answer: &mut Answer,
) -> Result<Option<FinishReason>> {
    let started = Instant::now();
    let plan = Generation { max_tokens: ahead, sampling: Sampling::default(), top_logprobs: 0 };
    let (proposed, _) = write_chunk(draft, &plan, answer).await?;
    let drafted = started.elapsed().as_secs_f64();

    let (started, from) = (Instant::now(), base.tokens().len());
    base.append(&proposed);
    let plan = Generation { max_tokens: 1, sampling: job.sampling.of(Role::Base), top_logprobs: job.top_logprobs };
    let choices = base.choices(from, &plan).await?;
    let checked = started.elapsed().as_secs_f64();
    base.truncate(from);
    let (mut accepted, mut done) = (0, None);
    for (index, choice) in choices.into_iter().enumerate() {
        let Step::Token(sampled) = choice else {
            done = Some(FinishReason::Stop);
            break;
        };
        let token = sampled.token;
        base.append(&[token]);
        if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, Role::Base)).await? {
            done = Some(reason);
            break;
        }
        if proposed.get(index) != Some(&token) {
            break;
        }
        accepted += 1;
    }
    // What the draft reads of what the base wrote alone is the price of another chance, not of a token.
    let drafted = (!catches_up).then_some(drafted);
    pace.round(proposed.len(), accepted, drafted, checked);
    let call = Call::since(started, Role::Base, CallKind::Check, proposed.len() + 1);
    answer.call(Call { accepted: Some(accepted), seconds: checked, ..call }).await;
    Ok(done)
}

impl Pair {
    /// Make the draft's list end as the base's does; by how many tokens it did not.
    fn follow(&mut self, base: &[Token]) -> usize {
        let [draft_prompt, base_prompt] = self.prompts;
        let answer = &base[base_prompt..];
        let same = self.draft.tokens()[draft_prompt..].iter().zip(answer).take_while(|(a, b)| a == b).count();
        self.draft.truncate(draft_prompt + same);
        self.draft.append(&answer[same..]);
        answer.len() - same
    }
}

/// Who writes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The base, so many tokens.
    Alone(usize),
    /// The draft proposes so many.
    Ahead(usize),
}

/// What was measured, and what follows from it.
#[derive(Debug, Default)]
struct Pace {
    turns: usize,
    proposed: f64,
    accepted: f64,
    /// Seconds of the draft, per token.
    draft: Mean,
    /// Seconds of the base for one token.
    one: Mean,
    /// Seconds of the base for a round, and the tokens of it.
    check: Mean,
    checked: Mean,
    /// How often the base was left alone for long, less the rounds since that paid.
    rests: u32,
    /// It was left alone for long just now.
    is_rested: bool,
}

/// A mean in which what is older weighs less.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum = self.sum * MEMORY + value;
        self.weight = self.weight * MEMORY + 1.0;
    }

    fn get(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Pace {
    /// Who is to write next.
    fn turn(&mut self) -> Turn {
        self.turns += 1;
        if self.turns % MEASURE_TURNS == 1 {
            return Turn::Alone(1);
        }
        let Some(costs) = self.costs() else { return Turn::Ahead(AT_FIRST) };
        // One token that was accepted, one that was not: what is believed before much is known.
        let share = (self.accepted + 1.0) / (self.proposed + 2.0);
        let rested = std::mem::take(&mut self.is_rested);
        match costs.best(share, 0..=MOST_AHEAD) {
            // Whatever is believed, a chance is given: what can be won is known, if it should go well.
            0 if rested => Turn::Ahead(costs.best(1.0, 1..=AT_FIRST)),
            0 => Turn::Alone(self.rest()),
            ahead => {
                self.rests = self.rests.saturating_sub(1);
                Turn::Ahead(ahead)
            }
        }
    }

    /// Tokens that the base writes alone before the draft is given another chance.
    fn rest(&mut self) -> usize {
        let [least, most] = REST_TOKENS;
        let count = least.saturating_mul(1 << self.rests.min(16)).min(most);
        self.is_rested = true;
        self.rests += 1;
        count
    }

    fn alone(&mut self, tokens: usize, seconds: f64) {
        if tokens > 0 {
            self.one.add(seconds / tokens as f64);
        }
    }

    /// The seconds of the draft, where they are a measure of its steps, and of the base.
    fn round(&mut self, proposed: usize, accepted: usize, drafted: Option<f64>, checked: f64) {
        self.proposed = self.proposed * MEMORY + proposed.min(accepted + 1) as f64;
        self.accepted = self.accepted * MEMORY + accepted as f64;
        // The first round may read the prompt as well.
        if let Some(drafted) = drafted.filter(|_| self.check.get().is_some()) {
            self.draft.add(drafted / proposed.max(1) as f64);
        }
        self.check.add(checked);
        self.checked.add((proposed + 1) as f64);
    }

    /// What things take, once it is known.
    fn costs(&self) -> Option<Costs> {
        let (draft, one) = (self.draft.get()?, self.one.get()?);
        let (check, checked) = (self.check.get()?, self.checked.get()?);
        Some(Costs { draft, one, more: ((check - one) / (checked - 1.0).max(1.0)).max(0.0) })
    }
}

/// Seconds of a token by the draft, of one by the base, and of a further one in the same step of the base.
#[derive(Clone, Copy, Debug)]
struct Costs {
    draft: f64,
    one: f64,
    more: f64,
}

impl Costs {
    /// The number of proposals, of these, with the least time per token where each is accepted with probability `share`.
    fn best(self, share: f64, numbers: RangeInclusive<usize>) -> usize {
        let per_token = |ahead: usize| {
            let tokens = (0..=ahead).map(|power| share.powi(power as i32)).sum::<f64>();
            (self.one + (self.draft + self.more) * ahead as f64) / tokens
        };
        numbers.min_by(|a, b| per_token(*a).total_cmp(&per_token(*b))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds per token of a long answer, and how far ahead the draft was let at its end: with a share of proposals that are
    /// right, the costs of a draft's step and of each further token in a step of the base, which takes 1 second.
    fn settled(share: f64, draft: f64, more: f64) -> (f64, usize) {
        let (mut pace, mut seconds, mut tokens, mut last) = (Pace::default(), 0.0, 0, 0);
        let mut state = 1u64;
        while tokens < 20_000 {
            match pace.turn() {
                Turn::Alone(count) => {
                    pace.alone(count, count as f64);
                    (seconds, tokens) = (seconds + count as f64, tokens + count);
                    last = if count > 1 { 0 } else { last };
                }
                Turn::Ahead(ahead) => {
                    let mut is_right = |_: &usize| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        ((state >> 33) as f64) < share * (1u64 << 31) as f64
                    };
                    let accepted = (0..ahead).take_while(&mut is_right).count();
                    let times = [draft * ahead as f64, 1.0 + more * ahead as f64];
                    pace.round(ahead, accepted, Some(times[0]), times[1]);
                    (seconds, tokens, last) = (seconds + times[0] + times[1], tokens + accepted + 1, ahead);
                }
            }
        }
        (seconds / tokens as f64, last)
    }

    #[test]
    fn whatever_the_draft_is_worth_the_pace_comes_near_the_best() {
        for share in [0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99] {
            for (draft, more) in [(0.02, 0.02), (0.1, 0.1), (0.25, 0.1), (0.5, 0.05), (1.5, 0.1)] {
                let costs = Costs { draft, one: 1.0, more };
                let ahead = costs.best(share, 0..=MOST_AHEAD);
                let steps = 1.0 + (draft + more) * ahead as f64;
                let best = steps / (0..=ahead).map(|power| share.powi(power as i32)).sum::<f64>();
                let (seconds, _) = settled(share, draft, more);
                assert!(seconds < best * 1.1, "{share} {draft} {more}: {seconds} for {best}");
            }
        }
    }

    #[test]
    fn a_good_cheap_draft_is_let_far_ahead() {
        assert!(settled(0.95, 0.02, 0.02).1 >= 8);
        assert!((1..=8).contains(&settled(0.6, 0.05, 0.05).1));
    }

    #[test]
    fn a_draft_that_was_bad_is_tried_again() {
        let mut pace = Pace::default();
        pace.alone(1, 1.0);
        (0..50).for_each(|_| pace.round(4, 0, Some(0.4), 1.1));
        pace.turns = 1;
        let turns: Vec<_> = (0..9).map(|_| pace.turn()).collect();
        let rests = [4, 8, 16, 32].map(Turn::Alone);
        assert_eq!(turns.iter().copied().step_by(2).take(4).collect::<Vec<_>>(), rests);
        assert!(turns.iter().skip(1).step_by(2).all(|turn| *turn == Turn::Ahead(AT_FIRST)), "{turns:?}");
        (0..4).for_each(|_| pace.round(4, 4, Some(0.4), 1.1));
        assert!(matches!(pace.turn(), Turn::Ahead(2..)));
    }

    #[test]
    fn the_price_of_a_chance_is_not_that_of_a_token() {
        let mut pace = Pace::default();
        pace.alone(1, 1.0);
        pace.round(4, 1, Some(9.0), 1.1);
        pace.round(4, 3, Some(0.4), 1.1);
        pace.round(4, 3, None, 1.1);
        assert_eq!(pace.draft.get(), Some(0.1));
    }
}
