//! Weak-to-Strong Decoding, incrementally.
//!
//! The reference drafts 512 tokens, scores all of them, and lets the base continue from the first
//! position whose window passes. Here drafting and scoring alternate in chunks and stop at the
//! switch. The tokens are the same for every chunk length, because a score depends only on the
//! tokens before it. Each token is emitted as soon as it is scored, because every token up to the
//! switch is kept. The base's KV cache holds the scored tokens, so it continues without a second
//! prefill.
//!
//! If one of the two engines is remote, the draft model generates the next chunk while the base
//! scores the current one, and both prompts are prefilled at the same time. Chunk lengths follow
//! from measured costs ([`crate::chunks`]); if every scoring call recomputes the whole list, each
//! chunk is twice as long as the one before, so that the total work stays linear in the length.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::{Either, select, try_join};

use crate::chunks::{Chunks, Round, Sizing};
use crate::handover::{THRESHOLD, WINDOW};
use crate::speculation::{Speculation, Speculator, can_speculate};
use crate::steps::{check_vocabularies, render, write_to_end};
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{
    Answer, Bridge, Call, CallKind, Caps, Edit, Engine, FinishReason, Flow, Generation, Handover, Job, Models, Need,
    Recipe, Result, Rule, Sampling, Seat, Session, Setting, Step, Stop, Strategy, Token, TokenRecord, Values, Window,
};

/// The setting for the maximum number of drafted tokens.
pub static MAX_DRAFT_TOKENS: Setting =
    Setting::integer("max_draft_tokens", "At most this many tokens are drafted", 1..=MAX_TOKENS_LIMIT)
        .with_default_integer(512)
        .with_placeholder("TOKENS");

/// The setting for the chunk length.
pub static CHUNK_TOKENS: Setting = Setting::integer(
    "chunk_tokens",
    "Number of draft tokens that the base scores per call; changes only the speed, unless a remote draft samples",
    1..=MAX_TOKENS_LIMIT,
)
.with_default_about("at first 8 or the window's length if longer, then chosen from measured costs")
.with_placeholder("TOKENS")
.speed_only();

/// The setting for a draft that ends before the window passes: with `continue`, the base continues
/// after the whole draft (the paper's rule); with `stop`, the drafted text is the answer.
pub static ON_DRAFT_END: Setting = Setting::choice(
    "on_draft_end",
    "What to do if the draft ends before the threshold is reached",
    &[
        ("continue", "the base continues after the whole draft, as in the paper"),
        ("stop", "the draft is the whole answer"),
    ],
);

/// The setting for speculative decoding after the switch.
pub static SPECULATE: Setting = Setting::flag(
    "speculate",
    "After the base takes over, the draft proposes tokens and the base verifies them (speculative decoding); \
     changes only the speed; ignored if the vocabularies differ",
    true,
)
.speed_only();

pub(super) static RECIPE: Recipe = Recipe {
    name: "wsd",
    title: "wsd",
    about: "the draft opens the answer, the base takes over once it is confident",
    needs: &[Need::any(Seat::DRAFT), Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE })],
    settings: &[&WINDOW, &THRESHOLD, &MAX_DRAFT_TOKENS, &CHUNK_TOKENS, &ON_DRAFT_END, &SPECULATE],
    make,
};

struct Wsd {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    rule: Rule,
    max_draft_tokens: usize,
    chunk_tokens: Option<usize>,
    stops_at_draft_end: bool,
    speculates: bool,
}

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let draft = models.require(RECIPE.name, Seat::DRAFT)?;
    let base = models.require(RECIPE.name, Seat::BASE)?;
    Ok(Arc::new(Wsd {
        rule: Rule::from_values(values),
        max_draft_tokens: values.get(&MAX_DRAFT_TOKENS),
        chunk_tokens: values.get(&CHUNK_TOKENS),
        stops_at_draft_end: values.get::<&str>(&ON_DRAFT_END) == "stop",
        speculates: values.get::<bool>(&SPECULATE) && can_speculate(draft.as_ref(), base.as_ref()),
        draft,
        base,
    }))
}

#[async_trait]
impl Strategy for Wsd {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let (draft_codec, base_codec) = (self.draft.codec(), self.base.codec());
        check_vocabularies(&job.prompt, draft_codec, base_codec)?;
        let prompt = render(self.base.as_ref(), job)?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        let base = self.base.open(&prompt.tokens).await?;
        let draft = self.draft.open(&draft_prompt.tokens).await?;
        answer.begin(base_codec, &prompt.tokens, 0);
        let bridge = Bridge::new(draft_codec, base_codec, &draft_prompt, &prompt);
        let mut reader = Reader {
            base,
            max_len: self.base.card().max_len,
            top_logprobs: job.terms.top_logprobs,
            window: Window::new(self.rule),
            kept: 0,
            seconds: 0.0,
        };
        let mut writer = self.writer(draft, job);
        match self.opening(&mut writer, &mut reader, bridge, answer).await? {
            (Verdict::Done(reason), _) => Ok(reason),
            (Verdict::Unsure, stop) if self.stops_at_draft_end => {
                Ok(if stop == Some(Stop::End) { FinishReason::Stop } else { FinishReason::Length })
            }
            _ if self.speculates => {
                let draft = Speculator {
                    session: writer.draft,
                    prompt: draft_prompt.tokens.len(),
                    base_prompt: prompt.tokens.len(),
                    max_len: self.draft.card().max_len,
                };
                Speculation::new(reader.base.as_mut(), draft, reader.max_len, &job.terms).run(answer).await
            }
            _ => {
                drop(writer);
                write_to_end(reader.base.as_mut(), Seat::BASE, &job.terms, answer).await
            }
        }
    }
}

impl Wsd {
    /// Tells whether the two engines can compute at the same time.
    fn is_parallel(&self) -> bool {
        self.draft.card().cost.is_remote || self.base.card().cost.is_remote
    }

    fn writer(&self, draft: Box<dyn Session>, job: &Job) -> Writer {
        let sampling = job.terms.sampling.for_seat(Seat::DRAFT);
        let first = self.chunk_tokens;
        let sizing = if self.base.card().cost.rescores_from_start {
            Sizing::Times(2)
        } else if first.is_some() || (self.draft.card().cost.is_remote && sampling.temperature > 0.0) {
            // A server's samples may depend on where each request starts, so lengths derived from
            // measured times would make answers irreproducible.
            Sizing::Times(1)
        } else {
            Sizing::Costs { is_parallel: self.is_parallel() }
        };
        Writer {
            draft,
            sampling,
            chunks: Chunks::new(first, self.rule.window(), sizing, job.terms.max_tokens),
            left: self.max_draft_tokens,
            call: None,
        }
    }

    /// Alternates drafting and scoring until the window passes, the draft ends or the answer is
    /// complete. Also returns the reason why the draft ended, if it did.
    async fn opening(
        &self,
        writer: &mut Writer,
        reader: &mut Reader,
        mut bridge: Bridge<'_>,
        answer: &mut Answer,
    ) -> Result<(Verdict, Option<Stop>)> {
        let is_parallel = self.is_parallel();
        let prompt = reader.base.tokens().to_vec();
        let mut chunk =
            if is_parallel { try_join(writer.write(), reader.base.warm()).await?.0 } else { writer.write().await? };
        loop {
            writer.report(answer).await;
            let edit = bridge.push(&chunk.tokens, chunk.stop.is_some())?;
            if reader.kept == 0 && !edit.append.is_empty() {
                answer.begin(self.base.codec(), &prompt[..edit.keep], bridge.overlap(edit.keep)?);
            }
            let (verdict, next) = if is_parallel && chunk.stop.is_none() {
                read_while_writing(reader.read(edit, answer), writer.write()).await?
            } else {
                (reader.read(edit, answer).await?, None)
            };
            if !matches!((&verdict, chunk.stop), (Verdict::Unsure, None)) {
                writer.report(answer).await;
                return Ok((verdict, chunk.stop));
            }
            writer.chunks.record(Round { tokens: chunk.tokens.len(), write: chunk.seconds, read: reader.seconds });
            chunk = match next {
                Some(chunk) => chunk?,
                None => writer.write().await?,
            };
        }
    }
}

/// Tokens drafted in one call.
struct Chunk {
    tokens: Vec<Token>,
    /// Time it took, in seconds.
    seconds: f64,
    /// The reason why nothing follows, if the draft ends here.
    stop: Option<Stop>,
}

/// A session of the draft model that generates in chunks.
struct Writer {
    draft: Box<dyn Session>,
    sampling: Sampling,
    chunks: Chunks,
    /// Tokens that may still be drafted.
    left: usize,
    /// The call in progress or just finished, not yet reported.
    call: Option<Call>,
}

impl Writer {
    /// Writes the next chunk. The call is updated after every token, so that a cancelled call is
    /// reported with the tokens generated so far.
    async fn write(&mut self) -> Result<Chunk> {
        let generation =
            Generation { max_tokens: self.chunks.next().min(self.left), sampling: self.sampling, top_logprobs: 0 };
        let started = Instant::now();
        let called = |tokens| Call::since(started, Seat::DRAFT, CallKind::Generate, tokens);
        let call = self.call.insert(called(0));
        let (mut tokens, mut stop) = (Vec::new(), Stop::Length);
        let mut steps = self.draft.generate(&generation);
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
        let last = stop == Stop::End || tokens.len() < generation.max_tokens || self.left == 0;
        Ok(Chunk { tokens, seconds, stop: last.then_some(stop) })
    }

    /// Reports the last call, complete or cut off.
    async fn report(&mut self, answer: &mut Answer) {
        if let Some(call) = self.call.take() {
            answer.call(call).await;
        }
    }
}

/// Scores one chunk while the next is being drafted. If the verdict ends the draft, the next chunk
/// is cancelled.
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

/// The result of scoring a chunk.
enum Verdict {
    /// The window has not passed.
    Unsure,
    /// The window passed; the base's list was truncated after the token at which it did.
    Sure,
    /// The answer is complete.
    Done(FinishReason),
}

/// A session of the base that scores drafted tokens.
struct Reader {
    base: Box<dyn Session>,
    max_len: usize,
    top_logprobs: usize,
    window: Window,
    /// Tokens in the answer so far.
    kept: usize,
    /// Time that scoring the last chunk took, in seconds.
    seconds: f64,
}

impl Reader {
    /// Applies an edit to the base's list, scores the appended tokens, and emits them up to the
    /// switch.
    async fn read(&mut self, edit: Edit, answer: &mut Answer) -> Result<Verdict> {
        self.base.truncate(edit.keep);
        let space = self.max_len - edit.keep;
        self.base.append(&edit.append[..edit.append.len().min(space)]);
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
        Ok(if edit.append.len() > space { Verdict::Done(FinishReason::Length) } else { Verdict::Unsure })
    }

    /// Scores the tokens from position `keep` on. The first token of a list has no context, so it
    /// gets no score.
    async fn score(&mut self, keep: usize, answer: &mut Answer) -> Result<Vec<TokenRecord>> {
        self.seconds = 0.0;
        if keep == self.base.tokens().len() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let from = keep.max(1);
        let scored = self.base.score_top(from, self.top_logprobs).await?;
        let call = Call::since(started, Seat::BASE, CallKind::Score, scored.len());
        self.seconds = call.seconds;
        answer.call(call).await;
        let first = self.base.tokens()[keep..from].iter().map(|&token| TokenRecord::unscored(token, Seat::DRAFT));
        Ok(first.chain(scored.into_iter().map(|scored| TokenRecord::new(scored, Seat::DRAFT))).collect())
    }
}
