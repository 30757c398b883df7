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

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::{render, to_the_end, write_chunk, write_on};
use crate::strategy::Parts;
use crate::{
    Answer, Bridge, Call, CallKind, Engine, FinishReason, Flow, Job, Plan, Result, Role, Sampling, Session, Step,
    Strategy, Token, TokenRecord,
};

/// The most tokens proposed at once.
const MOST_AHEAD: usize = 16;
/// Tokens that the base writes by itself before the draft is given another chance: twice as many each time, from the first of
/// these to the second.
const ALONE_TOKENS: [usize; 2] = [4, 64];
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
        answer.begin(self.base.text(), &prompt.tokens, 0);
        let mut base = self.base.open(&prompt.tokens).await?;
        let draft = self.draft.open(&prompt.tokens).await?;
        let pair = Pair { draft, prompts: [prompt.tokens.len(); 2], draft_limit: self.draft.card().max_len };
        speculate(base.as_mut(), pair, self.base.card().max_len, job, answer).await
    }
}

/// Whether the draft's tokens are the base's and the base tells what it would choose.
pub(super) fn can_speculate(draft: &dyn Engine, base: &dyn Engine) -> bool {
    base.card().caps.logits && Bridge::passes_ids(draft.text(), base.text())
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
        let ahead = pace.ahead().min(room.saturating_sub(1));
        let behind = pair.follow(base.tokens());
        if room == 0 {
            return Ok(FinishReason::Length);
        }
        if pair.draft.tokens().len() + MOST_AHEAD > pair.draft_limit {
            return to_the_end(base, Role::Base, job, answer).await;
        }
        let done = if ahead == 0 {
            let count = if pace.is_new() { 1 } else { pace.patience() };
            alone(base, count.min(room), &mut pace, job, answer).await?
        } else {
            pace.catches_up = behind > READ_ALONG;
            round(base, pair.draft.as_mut(), ahead, &mut pace, job, answer).await?
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
    pace: &mut Pace,
    job: &Job,
    answer: &mut Answer,
) -> Result<Option<FinishReason>> {
    let started = Instant::now();
    let plan = Plan { max_tokens: ahead, sampling: Sampling::default(), top_logprobs: 0 };
    let (proposed, _) = write_chunk(draft, &plan, answer).await?;
    let drafted = started.elapsed().as_secs_f64();

    let (started, from) = (Instant::now(), base.tokens().len());
    base.append(&proposed);
    let plan = Plan { max_tokens: 1, sampling: job.sampling.of(Role::Base), top_logprobs: job.top_logprobs };
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
    pace.round(proposed.len(), accepted, [drafted, checked]);
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

/// What was measured, and what follows from it.
#[derive(Debug, Default)]
struct Pace {
    proposed: f64,
    accepted: f64,
    /// Seconds of the draft, per token.
    draft: Mean,
    /// Seconds of the base for one token.
    one: Mean,
    /// Seconds of the base for a round, and the tokens of it.
    check: Mean,
    checked: Mean,
    /// How often in a row the base was left alone since a proposal was accepted.
    refused: u32,
    /// The draft reads in this round what the base wrote alone: the price of another chance, not of a token.
    catches_up: bool,
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
    fn is_new(&self) -> bool {
        self.one.get().is_none()
    }

    /// Tokens that the base writes alone before the draft is given another chance.
    fn patience(&mut self) -> usize {
        let [least, most] = ALONE_TOKENS;
        let count = least.saturating_mul(1 << self.refused.min(16)).min(most);
        self.refused += 1;
        count
    }

    fn alone(&mut self, tokens: usize, seconds: f64) {
        if tokens > 0 {
            self.one.add(seconds / tokens as f64);
        }
        // What the draft was worth is forgotten by and by, so that it is tried again.
        self.forget();
    }

    fn round(&mut self, proposed: usize, accepted: usize, [drafted, checked]: [f64; 2]) {
        self.forget();
        self.proposed += proposed.min(accepted + 1) as f64;
        self.accepted += accepted as f64;
        if accepted > 0 {
            self.refused = 0;
        }
        // The first round reads the prompt as well.
        if !self.catches_up && self.check.get().is_some() {
            self.draft.add(drafted / proposed.max(1) as f64);
        }
        self.check.add(checked);
        self.checked.add((proposed + 1) as f64);
    }

    fn forget(&mut self) {
        self.proposed *= MEMORY;
        self.accepted *= MEMORY;
    }

    /// How many tokens to propose next.
    fn ahead(&self) -> usize {
        let Some(one) = self.one.get() else { return 0 };
        let (Some(draft), Some(check), Some(checked)) = (self.draft.get(), self.check.get(), self.checked.get()) else {
            return 4;
        };
        // One token that was accepted, one that was not: what is believed before much is known.
        let share = (self.accepted + 1.0) / (self.proposed + 2.0);
        let more = ((check - one) / (checked - 1.0).max(1.0)).max(0.0);
        let per_token = |ahead: usize| {
            let tokens = (0..=ahead).map(|power| share.powi(power as i32)).sum::<f64>();
            (ahead as f64 * draft + one + more * ahead as f64) / tokens
        };
        let best = (0..=MOST_AHEAD).min_by(|a, b| per_token(*a).total_cmp(&per_token(*b)));
        best.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After many rounds with a share of accepted tokens and the costs of a draft's step and of the base's, which takes
    /// `slope` longer for every further token.
    fn settled(share: f64, draft: f64, slope: f64) -> usize {
        let mut pace = Pace::default();
        pace.alone(1, 1.0);
        for index in 0..200 {
            let ahead = pace.ahead();
            if ahead == 0 {
                pace.alone(8, 8.0);
                continue;
            }
            let lucky = |place: usize| ((index * 31 + place * 17) % 100) as f64 / 100.0 < share;
            let accepted = (0..ahead).take_while(|place| lucky(*place)).count();
            pace.round(ahead, accepted, [draft * ahead as f64, 1.0 + slope * ahead as f64]);
        }
        pace.ahead()
    }

    #[test]
    fn a_good_cheap_draft_is_let_far_ahead_and_a_bad_or_dear_one_not_at_all() {
        assert!(settled(0.95, 0.02, 0.02) >= 8);
        assert!((2..=8).contains(&settled(0.6, 0.05, 0.05)));
        assert_eq!(settled(0.05, 0.3, 0.1), 0);
        assert_eq!(settled(0.9, 1.5, 0.1), 0);
    }

    #[test]
    fn a_draft_that_was_bad_is_tried_again() {
        let mut pace = Pace::default();
        pace.alone(1, 1.0);
        for _ in 0..50 {
            pace.round(4, 0, [0.4, 1.1]);
        }
        assert_eq!(pace.ahead(), 0);
        (0..100).for_each(|_| pace.alone(8, 8.0));
        assert!(pace.ahead() > 0);
    }

    #[test]
    fn the_price_of_a_chance_is_not_that_of_a_token() {
        let mut pace = Pace::default();
        pace.alone(1, 1.0);
        pace.round(4, 1, [9.0, 1.1]);
        pace.round(4, 3, [0.4, 1.1]);
        pace.catches_up = true;
        pace.round(4, 3, [9.0, 1.1]);
        assert_eq!(pace.draft.get(), Some(0.1));
        assert!(pace.ahead() > 0);
    }

    #[test]
    fn a_draft_that_is_never_right_is_asked_less_and_less() {
        let mut pace = Pace::default();
        assert_eq!(
            [4, 8, 16, 32, 64, 64].map(|want| (pace.patience(), want)).map(|(got, want)| got == want),
            [true; 6]
        );
        pace.round(4, 1, [0.4, 1.1]);
        assert_eq!(pace.patience(), 4);
    }
}
