//! Weak-to-Strong Decoding, incrementally.
//!
//! The reference drafts 512 tokens, scores all, and lets the base continue from the first position whose window passes. Here
//! the draft is written and scored in chunks and ends at the switch; for every chunk length the tokens are the same, because a
//! position's score depends on nothing that follows it. A token is sent on as soon as its score is known: everything up to
//! the switch is kept. The base's cache holds the scored tokens, so it continues without a second prefill.
//!
//! Where one of the two computes elsewhere, the draft writes the next chunk while the base reads this one, and both prompts are
//! prefilled at the same time. How long a chunk is, costs decide ([`super::chunks`]); where a scoring call reads the list anew,
//! each is twice as long as the one before.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::{Either, select, try_join};

use super::chunks::{Chunks, Round, Sizing};
use super::speculative::{Pair, can_speculate, speculate};
use super::{for_one_vocabulary, render, to_the_end};
use crate::strategy::Parts;
use crate::{
    Answer, Bridge, Call, CallKind, Edit, Engine, FinishReason, Flow, Generation, Handover, Job, OnDraftEnd, Options,
    Result, Role, Sampling, Session, Step, Stop, Strategy, Token, TokenRecord, Window,
};

struct Wsd {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    options: Options,
}

pub(crate) fn make(mut parts: Parts) -> Arc<dyn Strategy> {
    let base = parts.engines.swap_remove(1);
    let draft = parts.engines.swap_remove(0);
    Arc::new(Wsd { draft, base, options: parts.options })
}

#[async_trait]
impl Strategy for Wsd {
    fn speaker(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let (draft_text, base_text) = (self.draft.codec(), self.base.codec());
        for_one_vocabulary(&job.prompt, draft_text, base_text)?;
        let prompt = render(self.base.as_ref(), job)?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        let base = self.base.open(&prompt.tokens).await?;
        let draft = self.draft.open(&draft_prompt.tokens).await?;
        answer.begin(base_text, &prompt.tokens, 0);
        let bridge = Bridge::new(draft_text, base_text, &draft_prompt, &prompt);
        let mut reader = Reader {
            base,
            max_len: self.base.card().max_len,
            top_logprobs: job.top_logprobs,
            window: Window::new(self.options.rule),
            kept: 0,
            seconds: 0.0,
        };
        let mut writer = self.writer(draft, job);
        match self.opening(&mut writer, &mut reader, bridge, answer).await? {
            (Verdict::Unsure, stop) if self.options.on_draft_end == OnDraftEnd::Stop => {
                Ok(if stop == Some(Stop::End) { FinishReason::Stop } else { FinishReason::Length })
            }
            (Verdict::Unsure | Verdict::Sure, _) if self.options.speculate && self.can_speculate() => {
                let prompts = [draft_prompt.tokens.len(), prompt.tokens.len()];
                let pair = Pair { draft: writer.draft, prompts, draft_limit: self.draft.card().max_len };
                speculate(reader.base.as_mut(), pair, reader.max_len, job, answer).await
            }
            (Verdict::Unsure | Verdict::Sure, _) => {
                drop(writer);
                to_the_end(reader.base.as_mut(), Role::Base, job, answer).await
            }
            (Verdict::Done(reason), _) => Ok(reason),
        }
    }
}

impl Wsd {
    fn can_speculate(&self) -> bool {
        can_speculate(self.draft.as_ref(), self.base.as_ref())
    }

    /// Whether the two can work at the same time.
    fn side_by_side(&self) -> bool {
        self.draft.card().cost.is_remote || self.base.card().cost.is_remote
    }

    fn writer(&self, draft: Box<dyn Session>, job: &Job) -> Writer {
        let sampling = job.sampling.of(Role::Draft);
        let first = self.options.chunk_tokens;
        let sizing = if self.base.card().cost.rescores_from_start {
            Sizing::Times(2)
        } else if first.is_some() || (self.draft.card().cost.is_remote && sampling.temperature > 0.0) {
            // What a server samples may depend on where it is asked to go on: with clocks in it, no answer would come twice.
            Sizing::Times(1)
        } else {
            Sizing::Costs { side_by_side: self.side_by_side() }
        };
        Writer {
            draft,
            sampling,
            chunks: Chunks::new(first, self.options.rule.window(), sizing, job.max_tokens),
            left: self.options.max_draft_tokens,
            call: None,
        }
    }

    /// Let the draft write and the base read until it is sure, or nothing more is drafted.
    async fn opening(
        &self,
        writer: &mut Writer,
        reader: &mut Reader,
        mut bridge: Bridge<'_>,
        answer: &mut Answer,
    ) -> Result<(Verdict, Option<Stop>)> {
        let side_by_side = self.side_by_side();
        let prompt = reader.base.tokens().to_vec();
        let mut chunk = match side_by_side {
            true => try_join(writer.write(), reader.base.warm()).await?.0,
            false => writer.write().await?,
        };
        loop {
            writer.report(answer).await;
            let edit = bridge.push(&chunk.tokens, chunk.stop.is_some())?;
            if reader.kept == 0 && !edit.append.is_empty() {
                answer.begin(self.base.codec(), &prompt[..edit.keep], bridge.overlap(edit.keep)?);
            }
            let (verdict, next) = match (chunk.stop, side_by_side) {
                (None, true) => read_while_writing(reader.read(edit, answer), writer.write()).await?,
                _ => (reader.read(edit, answer).await?, None),
            };
            if !matches!((&verdict, chunk.stop), (Verdict::Unsure, None)) {
                writer.report(answer).await;
                return Ok((verdict, chunk.stop));
            }
            let round = Round { tokens: chunk.tokens.len(), write: chunk.seconds, read: reader.seconds };
            writer.chunks.read(round);
            chunk = match next {
                Some(chunk) => chunk?,
                None => writer.write().await?,
            };
        }
    }
}

/// What the draft wrote in one go.
struct Chunk {
    tokens: Vec<Token>,
    /// What writing them took.
    seconds: f64,
    /// Why nothing follows it, where nothing does.
    stop: Option<Stop>,
}

/// The draft, writing in chunks.
struct Writer {
    draft: Box<dyn Session>,
    sampling: Sampling,
    chunks: Chunks,
    /// Tokens that may still be drafted.
    left: usize,
    /// The call under way or just over, not yet reported.
    call: Option<Call>,
}

impl Writer {
    /// Write the next chunk.
    async fn write(&mut self) -> Result<Chunk> {
        let plan =
            Generation { max_tokens: self.chunks.next().min(self.left), sampling: self.sampling, top_logprobs: 0 };
        let started = Instant::now();
        let called = |tokens| Call::since(started, Role::Draft, CallKind::Generate, tokens);
        let call = self.call.insert(called(0));
        let (mut tokens, mut stop) = (Vec::new(), Stop::Length);
        let mut steps = self.draft.generate(&plan);
        while let Some(step) = steps.next().await {
            match step? {
                Step::Token(sampled) => tokens.push(sampled.token),
                Step::End(end) => stop = end,
            }
            *call = called(tokens.len());
        }
        drop(steps);
        let seconds = call.seconds;
        self.left -= tokens.len();
        let last = stop == Stop::End || tokens.len() < plan.max_tokens || self.left == 0;
        Ok(Chunk { tokens, seconds, stop: last.then_some(stop) })
    }

    /// Record the last call, whether it came to its end or not.
    async fn report(&mut self, answer: &mut Answer) {
        if let Some(call) = self.call.take() {
            answer.call(call).await;
        }
    }
}

/// Let the base read one chunk while the draft writes the next, which is given up where the verdict needs no more.
async fn read_while_writing(
    reading: impl Future<Output = Result<Verdict>>,
    writing: impl Future<Output = Result<Chunk>>,
) -> Result<(Verdict, Option<Result<Chunk>>)> {
    futures::pin_mut!(reading, writing);
    match select(reading, writing).await {
        Either::Left((verdict, writing)) => match verdict? {
            Verdict::Unsure => Ok((Verdict::Unsure, Some(writing.await))),
            verdict => Ok((verdict, None)),
        },
        Either::Right((chunk, reading)) => Ok((reading.await?, Some(chunk))),
    }
}

/// What the base makes of a chunk.
enum Verdict {
    /// The window has not passed.
    Unsure,
    /// The window passed: the list ends with the token at which it did.
    Sure,
    /// The answer is complete.
    Done(FinishReason),
}

/// The base reading what the draft writes.
struct Reader {
    base: Box<dyn Session>,
    max_len: usize,
    top_logprobs: usize,
    window: Window,
    /// Tokens of the answer so far.
    kept: usize,
    /// What scoring the last chunk took.
    seconds: f64,
}

impl Reader {
    /// Take an edit over into the base's list, score what is new, and write it into the answer up to the switch.
    async fn read(&mut self, edit: Edit, answer: &mut Answer) -> Result<Verdict> {
        self.base.truncate(edit.keep);
        let room = self.max_len - edit.keep;
        self.base.append(&edit.append[..edit.append.len().min(room)]);
        for (i, record) in self.score(edit.keep, answer).await?.into_iter().enumerate() {
            let seen = record.logprob.and_then(|logprob| self.window.push(logprob));
            let flow = answer.token(TokenRecord { confidence: seen.map(|seen| seen.confidence), ..record }).await?;
            self.kept += 1;
            let passed = seen.filter(|seen| seen.passed);
            if let Some(seen) = passed {
                answer.handover(Handover::new(self.kept - 1, seen.confidence, self.window.rule())).await;
            }
            if let Flow::Done(reason) = flow {
                return Ok(Verdict::Done(reason));
            }
            if passed.is_some() {
                self.base.truncate(edit.keep + i + 1);
                return Ok(Verdict::Sure);
            }
        }
        Ok(if edit.append.len() > room { Verdict::Done(FinishReason::Length) } else { Verdict::Unsure })
    }

    /// Score the list from `keep` on. A token that has nothing before it has no score.
    async fn score(&mut self, keep: usize, answer: &mut Answer) -> Result<Vec<TokenRecord>> {
        self.seconds = 0.0;
        if keep == self.base.tokens().len() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let from = keep.max(1);
        let scored = self.base.score_top(from, self.top_logprobs).await?;
        let call = Call::since(started, Role::Base, CallKind::Score, scored.len());
        self.seconds = call.seconds;
        answer.call(call).await;
        let first = self.base.tokens()[keep..from].iter().map(|&token| TokenRecord::unscored(token, Role::Draft));
        Ok(first.chain(scored.into_iter().map(|scored| TokenRecord::new(scored, Role::Draft))).collect())
    }
}
