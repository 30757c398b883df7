//! Nudging (Fei, Razeghi, Singh, arXiv 2410.09300), WSD's closest rival: the two models write by turns.
//!
//! Where the base's likeliest token has a probability below a threshold, the draft writes the next word or words; elsewhere
//! the base writes. Read from the authors' `completion_with_nudging`:
//!
//! - *The draft's turn.* It writes up to 16 tokens after the answer so far. If it ends within them, they end the answer.
//!   Otherwise its first word is kept, and each further one until the base may go on before it: because its likeliest token
//!   there reaches the threshold, or begins that very word. The last word may be a part of one: it is never kept, unless it is
//!   the only one. If the base may nowhere go on, the draft has the next turn too.
//! - *The base's turn.* It writes until its likeliest token is below the threshold, or the text ends: the end is the draft's
//!   to say. Its first token stands where it began the draft's word.
//!
//! The models meet in text, so any two vocabularies do. The authors' guards against repetition are left out.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;

use super::{for_one_vocabulary, render, to_the_end, write_chunk};
use crate::strategy::Parts;
use crate::{
    Answer, Call, CallKind, Detokenizer, Engine, FinishReason, Flow, Generation, Job, Rendered, Result, Role, Sampled,
    Session, Step, Stop, Strategy, TextCodec, Token, TokenRecord,
};

/// Tokens that the draft writes in a turn, of which the first words are kept.
const TURN_TOKENS: usize = 16;

struct Nudging {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    threshold: f64,
}

pub(crate) fn make(mut parts: Parts) -> Arc<dyn Strategy> {
    let base = parts.engines.swap_remove(1);
    let draft = parts.engines.swap_remove(0);
    Arc::new(Nudging { draft, base, threshold: parts.options.nudge_threshold })
}

#[async_trait]
impl Strategy for Nudging {
    fn speaker(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        for_one_vocabulary(&job.prompt, self.draft.codec(), self.base.codec())?;
        let prompt = render(self.base.as_ref(), job)?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        answer.begin(self.base.codec(), &prompt.tokens, 0);
        let mut duet = Duet {
            base: self.base.open(&prompt.tokens).await?,
            draft: self.draft.open(&draft_prompt.tokens).await?,
            script: Script { text: String::new(), reading: self.base.codec().detokenizer(&prompt.tokens) },
            models: self,
            job,
            prompt,
            draft_prompt,
        };
        loop {
            match duet.draft_turn(answer).await? {
                Turn::Draft => {}
                Turn::Base { agreed } => {
                    if let Some(reason) = duet.base_turn(agreed, answer).await? {
                        return Ok(reason);
                    }
                }
                Turn::Alone => return to_the_end(duet.base.as_mut(), Role::Base, job, answer).await,
                Turn::Done(reason) => return Ok(reason),
            }
        }
    }
}

/// What follows a turn of the draft's.
enum Turn {
    /// Another one.
    Draft,
    /// The base's; `agreed` where its first token begins the draft's word.
    Base { agreed: bool },
    /// The base alone: the draft's context is full.
    Alone,
    /// Nothing.
    Done(FinishReason),
}

/// Two models at one answer.
struct Duet<'a> {
    models: &'a Nudging,
    job: &'a Job,
    prompt: Rendered,
    draft_prompt: Rendered,
    base: Box<dyn Session>,
    draft: Box<dyn Session>,
    script: Script,
}

/// The answer so far, as text, and what turns the base's tokens into it.
struct Script {
    text: String,
    reading: Detokenizer,
}

impl Script {
    async fn write(&mut self, mut sampled: Sampled, by: Role, top: usize, answer: &mut Answer) -> Result<Flow> {
        self.text.push_str(&self.reading.push(sampled.token)?);
        sampled.top.truncate(top);
        answer.token(TokenRecord::new(sampled, by)).await
    }
}

impl Duet<'_> {
    async fn draft_turn(&mut self, answer: &mut Answer) -> Result<Turn> {
        let known = list(self.models.draft.codec(), &self.draft_prompt, &self.script.text)?;
        let common = self.draft.tokens().iter().zip(&known).take_while(|(a, b)| a == b).count();
        self.draft.truncate(common);
        self.draft.append(&known[common..]);
        let plan = Generation { max_tokens: TURN_TOKENS, sampling: self.job.sampling.of(Role::Draft), top_logprobs: 0 };
        let (written, stop) = write_chunk(self.draft.as_mut(), &plan, answer).await?;
        if stop == Stop::Length && written.len() < TURN_TOKENS {
            return Ok(Turn::Alone);
        }
        let text = self.spell(&written, stop)?;
        if text.is_empty() {
            return Ok(Turn::Done(FinishReason::Stop));
        }

        let (from, tokens) = (self.base.tokens().len(), self.base_tokens(&text)?);
        let room = self.models.base.card().max_len - from;
        self.base.append(&tokens[..tokens.len().min(room)]);
        let started = Instant::now();
        let scored = self.base.score_top(from, self.job.top_logprobs.max(1)).await?;
        answer.call(Call::since(started, Role::Base, CallKind::Score, scored.len())).await;
        let (kept, turn) = match stop {
            Stop::End => (scored.len(), Turn::Done(FinishReason::Stop)),
            Stop::Length => self.first_words(&text, &scored)?,
        };
        self.base.truncate(from + kept);
        for sampled in scored.into_iter().take(kept) {
            if let Flow::Done(reason) = self.script.write(sampled, Role::Draft, self.job.top_logprobs, answer).await? {
                return Ok(Turn::Done(reason));
            }
        }
        Ok(if kept == room { Turn::Done(FinishReason::Length) } else { turn })
    }

    /// What the draft wrote, as text, less what is its form's.
    fn spell(&self, written: &[Token], stop: Stop) -> Result<String> {
        let text = self.models.draft.codec().tokenizer().decode(written)?;
        // Half a character is not text.
        let text = text.trim_end_matches('\u{FFFD}');
        let text = if self.prompt.strip_start && self.script.text.is_empty() { text.trim_start() } else { text };
        Ok(if self.prompt.strip_end && stop == Stop::End { text.trim_end() } else { text }.to_owned())
    }

    /// How the base spells `text` after the answer so far: as in the whole, where that leaves the tokens before it alone.
    fn base_tokens(&self, text: &str) -> Result<Vec<Token>> {
        let base = self.models.base.codec();
        let before = list(base, &self.prompt, &self.script.text)?;
        let whole = list(base, &self.prompt, &format!("{}{text}", self.script.text))?;
        match whole.strip_prefix(&before[..]) {
            Some(tokens) => Ok(tokens.to_vec()),
            None => base.tokenizer().encode(text),
        }
    }

    /// How many of the tokens that spell the draft's `text` are kept, and whose turn is next.
    fn first_words(&self, text: &str, scored: &[Sampled]) -> Result<(usize, Turn)> {
        let starts = word_starts(text);
        let (mut reading, mut read, mut last) = (self.script.reading.clone(), 0, None);
        for (place, token) in scored.iter().enumerate() {
            // A word that begins within a token cannot be parted from the one before it.
            if starts.contains(&read) {
                last = Some(place);
                let word = &text[read..];
                if let Some(&(likeliest, logprob)) = token.top.first().filter(|_| word != " ") {
                    let piece = reading.clone().push(likeliest)?;
                    let agreed = !piece.is_empty() && word.starts_with(&piece);
                    if agreed || logprob.exp() >= self.models.threshold {
                        return Ok((place, Turn::Base { agreed }));
                    }
                }
            }
            read += reading.push(token.token)?.len();
        }
        Ok((last.unwrap_or(scored.len()), Turn::Draft))
    }

    /// Let the base write until it is unsure, or its text ends; `agreed` lets its first token pass.
    async fn base_turn(&mut self, agreed: bool, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let top = self.job.top_logprobs;
        let plan = Generation {
            max_tokens: answer.room(),
            sampling: self.job.sampling.of(Role::Base),
            top_logprobs: top.max(1),
        };
        let (started, mut asked, mut done, mut unsure) = (Instant::now(), 0, None, false);
        let mut steps = self.base.generate(&plan);
        while done.is_none() && !unsure {
            match steps.next().await.transpose()? {
                Some(Step::Token(sampled)) => {
                    asked += 1;
                    let sure = sampled.top.first().is_some_and(|(_, logprob)| logprob.exp() >= self.models.threshold);
                    unsure = !(sure || agreed && asked == 1);
                    if !unsure && let Flow::Done(reason) = self.script.write(sampled, Role::Base, top, answer).await? {
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
        answer.call(Call::since(started, Role::Base, CallKind::Generate, asked)).await;
        Ok(done)
    }
}

/// The tokens of a prompt and the answer so far.
fn list(text: &TextCodec, prompt: &Rendered, answer: &str) -> Result<Vec<Token>> {
    if prompt.text.is_empty() {
        return Ok([&prompt.tokens[..], &text.tokenizer().encode(answer)?].concat());
    }
    text.encode_after(prompt, answer)
}

/// Where the words after the first begin: at the space before each. A space at the end begins a word that is yet to come.
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
