//! Weak-to-Strong Decoding, incrementally.
//!
//! The reference drafts 512 tokens, scores all of them, and lets the base continue from the first
//! position whose window passes. Here drafting and scoring alternate in chunks and stop at the
//! switch. The tokens are the same for every chunk length, because a score depends only on the
//! tokens before it. Each token is emitted as soon as it is scored, because every token up to the
//! switch is kept. The base's KV cache holds the scored tokens, so it continues without a second
//! prefill.
//!
//! If one of the two engines is remote or on a GPU, the draft model generates the next chunk while
//! the base scores the current one, and both prompts are prefilled at the same time. Chunk lengths
//! follow from measured costs ([`crate::chunks`]); if every scoring call recomputes the whole list,
//! each chunk is twice as long as the one before, so that the total work stays linear in the length.

mod drafter;
mod scorer;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::future::{Either, select, try_join};

use drafter::{Chunk, Drafter};
use scorer::{Begin, Scorer, Verdict};

use crate::chunks::{Chunks, Round, Sizing};
use crate::finish::{Finish, Opening};
use crate::handover::{SKIP_REPETITIONS, THRESHOLD, WINDOW};
use crate::look;
use crate::relay::Side;
use crate::speculation::{Rest, SPECULATE};
use crate::steps::{check_vocabularies, render};
use crate::switch::{
    FeatureWindow, LEARNED_AGREEMENT, LEARNED_BIAS, LEARNED_CONFIDENCE, LEARNED_ENTROPY, LearnedSwitch, SWITCH_RULE,
};
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{
    Answer, Bridge, Caps, DraftEnd, Engine, FinishReason, Guide, Job, Models, Need, Recipe, Result, Rule, Seat,
    Session, Setting, Stop, Strategy, Values, Window, token_bytes,
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
.with_default_about("at first 4 on one machine, else 8 or the window's length if longer; then by measured costs")
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

pub(super) static RECIPE: Recipe = Recipe {
    name: "wsd",
    title: "wsd",
    about: "the draft opens the answer, the base takes over once it is confident",
    needs: &[Need::any(Seat::DRAFT), Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE })],
    settings: &{
        let [a, b, c, d, e, f] = look::SETTINGS;
        [
            &WINDOW,
            &THRESHOLD,
            &SKIP_REPETITIONS,
            &SWITCH_RULE,
            &LEARNED_BIAS,
            &LEARNED_CONFIDENCE,
            &LEARNED_ENTROPY,
            &LEARNED_AGREEMENT,
            &MAX_DRAFT_TOKENS,
            &CHUNK_TOKENS,
            &ON_DRAFT_END,
            a,
            b,
            c,
            d,
            e,
            f,
            &SPECULATE,
        ]
    },
    make,
};

struct Wsd {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    rule: Rule,
    skips_repetitions: bool,
    learned: Option<LearnedSwitch>,
    max_draft_tokens: usize,
    chunk_tokens: Option<usize>,
    stops_at_draft_end: bool,
    finish: Finish,
}

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let draft = models.require(RECIPE.name, Seat::DRAFT)?;
    let base = models.require(RECIPE.name, Seat::BASE)?;
    Ok(Arc::new(Wsd {
        rule: Rule::from_values(values),
        skips_repetitions: values.get(&SKIP_REPETITIONS),
        learned: LearnedSwitch::from_values(values),
        max_draft_tokens: values.get(&MAX_DRAFT_TOKENS),
        chunk_tokens: values.get(&CHUNK_TOKENS),
        stops_at_draft_end: values.get::<&str>(&ON_DRAFT_END) == "stop",
        finish: Finish::from_values(values, draft.as_ref(), base.as_ref()),
        draft,
        base,
    }))
}

#[async_trait]
impl Strategy for Wsd {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    fn follows_grammars(&self) -> bool {
        self.finish.is_plain()
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let started = Instant::now();
        let (draft_codec, base_codec) = (self.draft.codec(), self.base.codec());
        check_vocabularies(&job.prompt, draft_codec, base_codec)?;
        let prompt = render(self.base.as_ref(), job)?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        let base_session = self.base.open(&prompt.tokens).await?;
        let draft_session = self.draft.open(&draft_prompt.tokens).await?;
        answer.begin(base_codec, &prompt.tokens, 0);
        // Both are made at once, so that an engine that cannot follow the grammar is named early.
        let guide = job.terms.guide(self.draft.as_ref(), b"", draft_prompt.tokens.len())?;
        job.terms.guide(self.base.as_ref(), b"", 0)?;
        let bridge = Bridge::new(draft_codec, base_codec, &draft_prompt, &prompt);
        let mut scorer = Scorer {
            session: base_session,
            max_len: self.base.card().max_len,
            top_logprobs: job.terms.top_logprobs,
            window: Window::new(self.rule),
            skips_repetitions: self.skips_repetitions,
            learned: self.learned.map(|learned| (learned, FeatureWindow::new(self.rule.window()))),
            begin: Begin { at: prompt.tokens.len(), overlap: 0 },
            emitted: 0,
            seconds: 0.0,
            profile: self.base.profile(),
            computed: 0,
            rest: Rest::default(),
        };
        let mut drafter = self.drafter(draft_session, job, guide);
        let reason = match self.draft_until_switch(&mut drafter, &mut scorer, bridge, answer).await? {
            Drafted::Complete(reason) => reason,
            Drafted::Ended(reason) if self.stops_at_draft_end => reason,
            _ => {
                let guide = self.base_guide(&scorer, job)?;
                let draft = Side { engine: self.draft.as_ref(), session: drafter.session, prompt: draft_prompt };
                let base = Side { engine: self.base.as_ref(), session: scorer.session, prompt: prompt.clone() };
                let seconds = started.elapsed().as_secs_f64();
                let opening = Opening { draft, base, rest: scorer.rest, seconds, guide };
                return self.finish.run(opening, job, answer).await;
            }
        };
        answer.reused(scorer.session.reused_tokens()).await;
        Ok(reason)
    }
}

impl Wsd {
    /// Tells whether the two engines can compute at the same time.
    fn is_parallel(&self) -> bool {
        [&self.draft, &self.base].into_iter().any(|engine| engine.card().cost.is_parallel())
    }

    /// Makes the guide of the base, which continues after the tokens in its list.
    fn base_guide(&self, scorer: &Scorer, job: &Job) -> Result<Option<Guide>> {
        if job.terms.grammar.is_none() {
            return Ok(None);
        }
        let (list, tokenizer) = (scorer.session.tokens(), self.base.codec().tokenizer().as_ref());
        let answer = list.get(scorer.begin.at..).unwrap_or_default().iter();
        let bytes = answer.map(|&token| token_bytes(tokenizer, token)).collect::<Result<Vec<_>>>()?.concat();
        let lead = bytes.get(scorer.begin.overlap..).unwrap_or_default();
        job.terms.guide(self.base.as_ref(), lead, list.len())
    }

    /// Makes the drafter and chooses how its chunk lengths change.
    fn drafter(&self, session: Box<dyn Session>, job: &Job, guide: Option<Guide>) -> Drafter {
        let sampling = job.terms.sampling.for_seat(Seat::DRAFT, session.tokens().len());
        let sizing = if self.base.card().cost.rescores_from_start {
            Sizing::Times(2)
        } else if self.chunk_tokens.is_some() || (self.draft.card().cost.is_remote && sampling.temperature > 0.0) {
            // A server's samples may depend on where each request starts, so lengths derived from
            // measured times would make answers irreproducible.
            Sizing::Times(1)
        } else {
            Sizing::Costs { is_parallel: self.is_parallel() }
        };
        Drafter {
            session,
            sampling,
            guide,
            chunks: Chunks::new(self.chunk_tokens, self.rule.window(), sizing, job.terms.max_tokens),
            remaining: self.max_draft_tokens,
            computed: 0,
            profile: self.draft.profile(),
            call: None,
        }
    }

    /// Alternates drafting and scoring until the window passes, the draft model stops or the answer
    /// is complete.
    async fn draft_until_switch(
        &self,
        drafter: &mut Drafter,
        scorer: &mut Scorer,
        mut bridge: Bridge<'_>,
        answer: &mut Answer,
    ) -> Result<Drafted> {
        let is_parallel = self.is_parallel();
        let prompt = scorer.session.tokens().to_vec();
        let mut chunk = if is_parallel {
            // Both prompts are prefilled at the same time.
            try_join(drafter.draft_chunk(), scorer.session.warm()).await?.0
        } else {
            drafter.draft_chunk().await?
        };
        loop {
            drafter.report(answer).await;
            let edit = bridge.push(&chunk.tokens, chunk.stop.is_some())?;
            if scorer.emitted == 0 && !edit.append.is_empty() {
                // The first edit may replace the prompt's last tokens.
                scorer.begin = Begin { at: edit.keep, overlap: bridge.overlap(edit.keep)? };
                answer.begin(self.base.codec(), &prompt[..edit.keep], scorer.begin.overlap);
            }
            let (verdict, next) = if is_parallel && chunk.stop.is_none() {
                score_while_drafting(scorer.score_chunk(edit, answer), drafter.draft_chunk()).await?
            } else {
                (scorer.score_chunk(edit, answer).await?, None)
            };
            let end = match (verdict, chunk.stop) {
                (Verdict::NotPassed, None) => None,
                (Verdict::NotPassed, Some(stop)) => {
                    let reason = if stop == Stop::End { FinishReason::Stop } else { FinishReason::Length };
                    answer.draft_end(DraftEnd { at: scorer.emitted, reason }).await;
                    Some(Drafted::Ended(reason))
                }
                (Verdict::Passed, _) => Some(Drafted::Switched),
                (Verdict::AnswerComplete(reason), _) => Some(Drafted::Complete(reason)),
            };
            if let Some(end) = end {
                // Drafting of the next chunk may have been cancelled.
                drafter.report(answer).await;
                return Ok(end);
            }
            drafter.chunks.record(Round {
                tokens: chunk.tokens.len(),
                draft_seconds: chunk.seconds,
                score_seconds: scorer.seconds,
            });
            chunk = match next {
                Some(chunk) => chunk?,
                None => drafter.draft_chunk().await?,
            };
        }
    }
}

/// The outcome of drafting.
enum Drafted {
    /// The window passed: the base takes over.
    Switched,
    /// The draft model ended before the window passed: at its end-of-text token, or at a limit.
    Ended(FinishReason),
    /// The answer is complete.
    Complete(FinishReason),
}

/// Scores a chunk while the next one is drafted. Drafting is cancelled if it is still running when
/// the verdict is other than [`Verdict::NotPassed`].
async fn score_while_drafting(
    scoring: impl Future<Output = Result<Verdict>>,
    drafting: impl Future<Output = Result<Chunk>>,
) -> Result<(Verdict, Option<Result<Chunk>>)> {
    futures::pin_mut!(scoring, drafting);
    match select(scoring, drafting).await {
        Either::Left((verdict, drafting)) => match verdict? {
            Verdict::NotPassed => Ok((Verdict::NotPassed, Some(drafting.await))),
            verdict => Ok((verdict, None)),
        },
        Either::Right((chunk, scoring)) => Ok((scoring.await?, Some(chunk))),
    }
}
