//! Nudging (Fei, Razeghi, Singh, arXiv 2410.09300): the two models take turns.
//!
//! If the base's most likely token has a probability below a threshold, the draft writes the next
//! word or words; otherwise the base writes. The rule follows the authors'
//! `completion_with_nudging`:
//!
//! - *The draft's turn.* It writes up to 16 tokens after the answer so far. If its text ends within
//!   them, they end the answer. Otherwise its first word is kept, and each further word until the
//!   base may continue before it: because the base's most likely token there reaches the threshold,
//!   or is a prefix of that word. The last word may be incomplete and is kept only if it is the
//!   only one. If the base may continue nowhere, the draft has the next turn too.
//! - *The base's turn.* It writes until its most likely token is below the threshold or its text
//!   ends; only the draft can end the answer. The base's first token is always kept if it is a
//!   prefix of the draft's word.
//!
//! The models exchange text, so their vocabularies may differ. The authors' guards against
//! repetition are left out.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::relay::{Exchange, Relay};
use crate::steps::{generation, write_to_end};
use crate::{
    Answer, Call, CallKind, Caps, Engine, FinishReason, Flow, Generation, Guide, Job, Models, Need, Recipe, Result,
    Sampled, Seat, Setting, Step, Stop, Strategy, TokenRecord, Values,
};

/// The most tokens that the draft writes in a turn, of which only the first words are kept.
const TURN_TOKENS: usize = 16;

/// The setting for the probability from which on the base writes.
pub static NUDGE_THRESHOLD: Setting = Setting::number(
    "nudge_threshold",
    "In nudging, the base writes where its most likely token has at least this probability",
    0.0..=1.0,
)
.with_default_number(0.4)
.with_placeholder("P");

pub(super) static RECIPE: Recipe = Recipe {
    name: "nudging",
    title: "nudging",
    about: "the draft writes the next words wherever the base is unsure (arXiv 2410.09300)",
    needs: &[Need::any(Seat::DRAFT), Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE })],
    settings: &[&NUDGE_THRESHOLD],
    make,
};

struct Nudging {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    threshold: f64,
}

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    Ok(Arc::new(Nudging {
        draft: models.require(RECIPE.name, Seat::DRAFT)?,
        base: models.require(RECIPE.name, Seat::BASE)?,
        threshold: values.get(&NUDGE_THRESHOLD),
    }))
}

#[async_trait]
impl Strategy for Nudging {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    fn follows_grammars(&self) -> bool {
        true
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let models = (self.draft.as_ref(), self.base.as_ref());
        let relay = Relay::begin(models, Exchange::Text, job, answer).await?;
        let guide = job.terms.guide(relay.base.engine, b"", relay.base.prompt.tokens.len())?;
        let mut duet = Duet { threshold: self.threshold, job, relay, guide };
        let reason = duet.write(answer).await?;
        answer.reused(duet.relay.base.session.reused_tokens()).await;
        Ok(reason)
    }
}

/// The turn that follows one of the draft's.
enum Turn {
    /// The draft writes again.
    Draft,
    /// The base writes.
    Base {
        /// True if the base's first token is a prefix of the draft's next word.
        agreed: bool,
    },
    /// The base writes to the end, because the draft's context is full.
    Alone,
    /// The answer has ended.
    Done(FinishReason),
}

/// Two models that write one answer.
struct Duet<'a> {
    threshold: f64,
    job: &'a Job,
    relay: Relay<'a>,
    /// The constraint on the base's list.
    guide: Option<Guide>,
}

impl Duet<'_> {
    /// Writes the answer in turns.
    async fn write(&mut self, answer: &mut Answer) -> Result<FinishReason> {
        loop {
            match self.draft_turn(answer).await? {
                Turn::Draft => {}
                Turn::Base { agreed } => {
                    if let Some(reason) = self.base_turn(agreed, answer).await? {
                        return Ok(reason);
                    }
                }
                Turn::Alone => {
                    let (base, guide) = (self.relay.base.session.as_mut(), self.guide.as_ref());
                    return write_to_end(base, Seat::BASE, &self.job.terms, guide, answer).await;
                }
                Turn::Done(reason) => return Ok(reason),
            }
        }
    }

    /// Lets the draft write and keeps its first words; returns the next turn.
    async fn draft_turn(&mut self, answer: &mut Answer) -> Result<Turn> {
        self.relay.follow()?;
        let guide = self.relay.draft_guide(&self.job.terms)?;
        let drafting = Generation { guide, ..self.relay.drafting(&self.job.terms, TURN_TOKENS) };
        let written = self.relay.draft.session.write(&drafting).await?;
        let (stop, drafted) = (written.stop, written.ids());
        answer.call(Call::new(Seat::DRAFT, CallKind::Generate, drafted.len(), written.seconds)).await;
        if stop == Stop::Length && drafted.len() < TURN_TOKENS {
            return Ok(Turn::Alone);
        }
        let text = self.relay.spell(&drafted, stop)?;
        if text.is_empty() {
            return Ok(Turn::Done(FinishReason::Stop));
        }

        let (tokens, space) = (self.relay.encode(&text)?, self.relay.base.space());
        let base = &mut self.relay.base.session;
        let from = base.tokens().len();
        base.append(&tokens[..tokens.len().min(space)]);
        let started = Instant::now();
        let scored = base.score_top(from, self.job.terms.top_logprobs.max(1)).await?;
        answer.call(Call::since(started, Seat::BASE, CallKind::Score, scored.len())).await;
        let (kept, turn) = match stop {
            Stop::End => (scored.len(), Turn::Done(FinishReason::Stop)),
            Stop::Length => self.first_words(&text, &scored)?,
        };
        self.relay.base.session.truncate(from + kept);
        for sampled in scored.into_iter().take(kept) {
            if let Flow::Done(reason) =
                self.relay.write(sampled, Seat::DRAFT, self.job.terms.top_logprobs, answer).await?
            {
                return Ok(Turn::Done(reason));
            }
        }
        Ok(if kept == space { Turn::Done(FinishReason::Length) } else { turn })
    }

    /// Chooses how many of the tokens of the draft's `text` are kept, and the next turn.
    fn first_words(&self, text: &str, scored: &[Sampled]) -> Result<(usize, Turn)> {
        let starts = word_starts(text);
        let (mut detokenizer, mut read, mut last) = (self.relay.detokenizer(), 0, None);
        for (index, token) in scored.iter().enumerate() {
            // The base can continue only before words that begin with a token.
            if starts.contains(&read) {
                last = Some(index);
                let word = &text[read..];
                if let Some(&(most_likely, logprob)) = token.top.first().filter(|_| word != " ") {
                    let piece = detokenizer.clone().push(most_likely)?;
                    let agreed = !piece.is_empty() && word.starts_with(&piece);
                    if agreed || logprob.exp() >= self.threshold {
                        return Ok((index, Turn::Base { agreed }));
                    }
                }
            }
            read += detokenizer.push(token.token)?.len();
        }
        Ok((last.unwrap_or(scored.len()), Turn::Draft))
    }

    /// Lets the base write until its most likely token is below the threshold, or its text ends. If
    /// `agreed`, the first token is kept in any case.
    async fn base_turn(&mut self, agreed: bool, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let top = self.job.terms.top_logprobs;
        let (terms, guide) = (&self.job.terms, self.guide.as_ref());
        let mut generation = generation(terms, Seat::BASE, guide, answer, answer.remaining());
        generation.top_logprobs = top.max(1);
        let (started, mut asked, mut done, mut unsure) = (Instant::now(), 0, None, false);
        let mut kept = Vec::new();
        let mut steps = self.relay.base.session.generate(&generation);
        while done.is_none() && !unsure {
            match steps.next().await.transpose()? {
                Some(Step::Token(mut sampled)) => {
                    asked += 1;
                    let sure = sampled.top.first().is_some_and(|(_, logprob)| logprob.exp() >= self.threshold);
                    unsure = !(sure || agreed && asked == 1);
                    if !unsure {
                        kept.push(sampled.token);
                        sampled.top.truncate(top);
                        if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, Seat::BASE)).await? {
                            done = Some(reason);
                        }
                    }
                }
                Some(Step::End(Stop::End)) | None => break,
                Some(Step::End(Stop::Length)) => done = Some(FinishReason::Length),
            }
        }
        drop(steps);
        kept.into_iter().try_for_each(|token| self.relay.note(token))?;
        if unsure {
            let base = &mut self.relay.base.session;
            base.truncate(base.tokens().len() - 1);
        }
        answer.call(Call::since(started, Seat::BASE, CallKind::Generate, asked)).await;
        Ok(done)
    }
}

/// Returns the byte at which each word after the first begins, which is that of the space before
/// it. A space at the end begins an empty word.
fn word_starts(text: &str) -> Vec<usize> {
    let leading = text.len() - text.trim_start_matches(' ').len();
    let spaces = text.match_indices(' ').map(|(at, _)| at);
    spaces.filter(|&at| at >= leading && text.as_bytes().get(at + 1) != Some(&b' ')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_at_the_last_space_before_them() {
        assert_eq!(word_starts(" Sure, I can  help. "), [6, 8, 13, 19]);
        assert!(word_starts("  one").is_empty());
        assert!(word_starts("one\ntwo").is_empty());
    }
}
