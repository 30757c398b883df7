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

use crate::steps::{check_vocabularies, generation, render, write_to_end};
use crate::{
    Answer, Call, CallKind, Caps, Detokenizer, Engine, FinishReason, Flow, Generation, Guide, Job, Models, Need,
    Recipe, Rendered, Result, Sampled, Seat, Session, Setting, Step, Stop, Strategy, TextCodec, Token, TokenRecord,
    Values, common_prefix,
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

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        check_vocabularies(&job.prompt, self.draft.codec(), self.base.codec())?;
        let prompt = render(self.base.as_ref(), job)?;
        let guide = job.terms.guide(self.base.as_ref(), b"", prompt.tokens.len())?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        answer.begin(self.base.codec(), &prompt.tokens, 0);
        let mut duet = Duet {
            base: self.base.open(&prompt.tokens).await?,
            draft: self.draft.open(&draft_prompt.tokens).await?,
            written: Written { text: String::new(), detokenizer: self.base.codec().detokenizer(&prompt.tokens) },
            models: self,
            job,
            guide,
            prompt,
            draft_prompt,
        };
        let reason = duet.write(answer).await?;
        answer.reused(duet.base.reused_tokens()).await;
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
    models: &'a Nudging,
    job: &'a Job,
    /// The constraint on the base's list.
    guide: Option<Guide>,
    prompt: Rendered,
    draft_prompt: Rendered,
    base: Box<dyn Session>,
    draft: Box<dyn Session>,
    written: Written,
}

/// The answer so far, as text.
struct Written {
    text: String,
    /// The decoder of the base's tokens, behind the text.
    detokenizer: Detokenizer,
}

impl Written {
    /// Writes a token, with at most `top` alternatives, into the answer.
    async fn push(&mut self, mut sampled: Sampled, by: Seat, top: usize, answer: &mut Answer) -> Result<Flow> {
        self.text.push_str(&self.detokenizer.push(sampled.token)?);
        sampled.top.truncate(top);
        answer.token(TokenRecord::new(sampled, by)).await
    }
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
                    let guide = self.guide.as_ref();
                    return write_to_end(self.base.as_mut(), Seat::BASE, &self.job.terms, guide, answer).await;
                }
                Turn::Done(reason) => return Ok(reason),
            }
        }
    }

    /// Lets the draft write and keeps its first words; returns the next turn.
    async fn draft_turn(&mut self, answer: &mut Answer) -> Result<Turn> {
        let known = list(self.models.draft.codec(), &self.draft_prompt, &self.written.text)?;
        let common = common_prefix(self.draft.tokens(), &known);
        self.draft.truncate(common);
        self.draft.append(&known[common..]);
        let sampling = self.job.terms.sampling.for_seat(Seat::DRAFT, self.draft_prompt.tokens.len());
        // The models exchange text, so the draft's guide begins with the text so far.
        let lead = self.written.text.as_bytes();
        let guide = self.job.terms.guide(self.models.draft.as_ref(), lead, known.len())?;
        let generation = Generation { max_tokens: TURN_TOKENS, sampling, top_logprobs: 0, guide };
        let written = self.draft.write(&generation).await?;
        let (stop, drafted) = (written.stop, written.ids());
        answer.call(Call::new(Seat::DRAFT, CallKind::Generate, drafted.len(), written.seconds)).await;
        if stop == Stop::Length && drafted.len() < TURN_TOKENS {
            return Ok(Turn::Alone);
        }
        let text = self.spell(&drafted, stop)?;
        if text.is_empty() {
            return Ok(Turn::Done(FinishReason::Stop));
        }

        let (from, tokens) = (self.base.tokens().len(), self.base_tokens(&text)?);
        let space = self.models.base.card().max_len - from;
        self.base.append(&tokens[..tokens.len().min(space)]);
        let started = Instant::now();
        let scored = self.base.score_top(from, self.job.terms.top_logprobs.max(1)).await?;
        answer.call(Call::since(started, Seat::BASE, CallKind::Score, scored.len())).await;
        let (kept, turn) = match stop {
            Stop::End => (scored.len(), Turn::Done(FinishReason::Stop)),
            Stop::Length => self.first_words(&text, &scored)?,
        };
        self.base.truncate(from + kept);
        for sampled in scored.into_iter().take(kept) {
            if let Flow::Done(reason) =
                self.written.push(sampled, Seat::DRAFT, self.job.terms.top_logprobs, answer).await?
            {
                return Ok(Turn::Done(reason));
            }
        }
        Ok(if kept == space { Turn::Done(FinishReason::Length) } else { turn })
    }

    /// Decodes what the draft wrote, without the white space that belongs to its prompt form.
    fn spell(&self, drafted: &[Token], stop: Stop) -> Result<String> {
        let text = self.models.draft.codec().tokenizer().decode(drafted)?;
        // An incomplete character is not text.
        let text = text.trim_end_matches('\u{FFFD}');
        let text = if self.prompt.strip_start && self.written.text.is_empty() { text.trim_start() } else { text };
        Ok(if self.prompt.strip_end && stop == Stop::End { text.trim_end() } else { text }.to_owned())
    }

    /// Encodes `text` for the base as a continuation of the answer so far: as part of the whole,
    /// where that leaves the earlier tokens unchanged.
    fn base_tokens(&self, text: &str) -> Result<Vec<Token>> {
        let base = self.models.base.codec();
        let before = list(base, &self.prompt, &self.written.text)?;
        let whole = list(base, &self.prompt, &format!("{}{text}", self.written.text))?;
        match whole.strip_prefix(&before[..]) {
            Some(tokens) => Ok(tokens.to_vec()),
            None => base.tokenizer().encode(text),
        }
    }

    /// Chooses how many of the tokens of the draft's `text` are kept, and the next turn.
    fn first_words(&self, text: &str, scored: &[Sampled]) -> Result<(usize, Turn)> {
        let starts = word_starts(text);
        let (mut detokenizer, mut read, mut last) = (self.written.detokenizer.clone(), 0, None);
        for (index, token) in scored.iter().enumerate() {
            // The base can continue only before words that begin with a token.
            if starts.contains(&read) {
                last = Some(index);
                let word = &text[read..];
                if let Some(&(most_likely, logprob)) = token.top.first().filter(|_| word != " ") {
                    let piece = detokenizer.clone().push(most_likely)?;
                    let agreed = !piece.is_empty() && word.starts_with(&piece);
                    if agreed || logprob.exp() >= self.models.threshold {
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
        let mut steps = self.base.generate(&generation);
        while done.is_none() && !unsure {
            match steps.next().await.transpose()? {
                Some(Step::Token(sampled)) => {
                    asked += 1;
                    let sure = sampled.top.first().is_some_and(|(_, logprob)| logprob.exp() >= self.models.threshold);
                    unsure = !(sure || agreed && asked == 1);
                    if !unsure && let Flow::Done(reason) = self.written.push(sampled, Seat::BASE, top, answer).await? {
                        done = Some(reason);
                    }
                }
                Some(Step::End(Stop::End)) | None => break,
                Some(Step::End(Stop::Length)) => done = Some(FinishReason::Length),
            }
        }
        drop(steps);
        if unsure {
            self.base.truncate(self.base.tokens().len() - 1);
        }
        answer.call(Call::since(started, Seat::BASE, CallKind::Generate, asked)).await;
        Ok(done)
    }
}

/// Encodes a prompt and the answer so far.
fn list(text: &TextCodec, prompt: &Rendered, answer: &str) -> Result<Vec<Token>> {
    if prompt.text.is_empty() {
        return Ok([&prompt.tokens[..], &text.tokenizer().encode(answer)?].concat());
    }
    text.encode_after(prompt, answer)
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
