//! Second looks: while the base writes, the draft is asked whether it would refuse or turn.
//!
//! A model that is aligned in its first tokens only follows whatever has begun; the aligned model, asked
//! again in the middle, still refuses (Any-Depth Alignment, arXiv 2510.18081). At certain places of the
//! base's text the draft therefore writes a few tokens after the answer so far. If they hold a phrase of
//! refusal or doubt, they are kept and the draft writes on until the window passes again; otherwise they
//! are dropped, and the base goes on as if nothing had been asked. The paper's rule differs: it asks the
//! aligned model itself, behind its own header tokens, and has no second model.

use std::time::Instant;

use futures::StreamExt as _;

use crate::relay::Relay;
use crate::steps::generation;
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{
    Answer, Call, CallKind, FinishReason, Flow, Handover, Job, Look, Result, Rule, Sampled, Seat, Setting, Step, Stop,
    Token, TokenRecord, Values, Window,
};

/// The setting for second looks.
pub static SECOND_LOOK: Setting = Setting::choice(
    "second_look",
    "When to ask the draft, while the base writes, whether it would refuse or turn; it then writes on",
    &[
        ("off", "never, as in the paper"),
        ("doubt", "where the base's token is less likely than look_confidence"),
        ("interval", "after every look_every tokens"),
    ],
);

/// The setting for the probability below which a token of the base is doubted.
pub static LOOK_CONFIDENCE: Setting = Setting::number(
    "look_confidence",
    "In second_look=doubt, the probability below which a token is doubted",
    0.0..=1.0,
)
.with_default_number(0.5)
.with_placeholder("P");

/// The setting for the tokens between looks.
pub static LOOK_EVERY: Setting =
    Setting::integer("look_every", "In second_look=interval, tokens of the base between looks", 1..=MAX_TOKENS_LIMIT)
        .with_default_integer(8)
        .with_placeholder("TOKENS");

/// The setting for the tokens of a look.
pub static LOOK_TOKENS: Setting =
    Setting::integer("look_tokens", "Tokens that the draft writes in a second look", 1..=256)
        .with_default_integer(8)
        .with_placeholder("TOKENS");

/// The setting for the part of the answer that is looked at.
pub static LOOK_WITHIN: Setting = Setting::integer(
    "look_within",
    "Second looks are taken within this many tokens of the base after the switch",
    1..=MAX_TOKENS_LIMIT,
)
.with_default_integer(32)
.with_placeholder("TOKENS");

/// The setting for the phrases of a refusal or a doubt.
pub static LOOK_PHRASES: Setting = Setting::texts(
    "look_phrases",
    "A phrase, in any case of letters, by which a second look recognizes that the draft would refuse or turn; may be \
     repeated",
)
.with_default_about("sorry, afraid, cannot, can't, unable, do not know, don't know, not sure");

/// The phrases where none are set.
const PHRASES: [&str; 8] = ["sorry", "afraid", "cannot", "can't", "unable", "do not know", "don't know", "not sure"];

/// The settings of second looks, in the order of the help.
pub(crate) const SETTINGS: [&Setting; 6] =
    [&SECOND_LOOK, &LOOK_CONFIDENCE, &LOOK_EVERY, &LOOK_TOKENS, &LOOK_WITHIN, &LOOK_PHRASES];

/// The places where the draft is asked.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Looks before each token of the base whose log-probability is below this.
    Doubt(f64),
    /// Looks after every run of this many tokens of the base.
    Interval(usize),
}

/// Second looks, as set.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    when: When,
    tokens: usize,
    within: usize,
    /// Phrases in lower case.
    phrases: Vec<String>,
}

/// The end of a stretch of the base's text.
enum Stretch {
    /// A look is due; with the token that is doubted, which is in neither list nor answer.
    Due(Option<Sampled>),
    /// The answer has ended.
    Done(FinishReason),
    /// No look is due within the limit.
    Over,
}

impl Looks {
    /// The looks that the settings ask for.
    pub(crate) fn from_values(values: &Values) -> Option<Self> {
        let when = match values.get::<&str>(&SECOND_LOOK) {
            "doubt" => When::Doubt(values.get::<f64>(&LOOK_CONFIDENCE).ln()),
            "interval" => When::Interval(values.get(&LOOK_EVERY)),
            _ => return None,
        };
        let mut phrases: Vec<String> = values.get(&LOOK_PHRASES);
        if phrases.is_empty() {
            phrases = PHRASES.map(str::to_owned).to_vec();
        }
        phrases.iter_mut().for_each(|phrase| *phrase = phrase.to_lowercase());
        Some(Self { when, tokens: values.get(&LOOK_TOKENS), within: values.get(&LOOK_WITHIN), phrases })
    }

    /// Lets the base write within the limit, and the draft where it takes over. Returns the reason why the
    /// answer ended, if it did.
    pub(crate) async fn run(
        &self,
        relay: &mut Relay<'_>,
        rule: Rule,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<Option<FinishReason>> {
        let mut left = self.within;
        loop {
            let doubted = match self.stretch(relay, &mut left, job, answer).await? {
                Stretch::Due(doubted) => doubted,
                Stretch::Done(reason) => return Ok(Some(reason)),
                Stretch::Over => return Ok(None),
            };
            let done = match self.look(relay, doubted.as_ref(), job, answer).await? {
                Some((drafted, stop)) => {
                    Again { looks: self, window: Window::new(rule), job }.write(relay, (drafted, stop), answer).await?
                }
                None => self.keep(relay, doubted, job, answer).await?,
            };
            if done.is_some() {
                return Ok(done);
            }
        }
    }

    /// Lets the base write until a look is due.
    async fn stretch(
        &self,
        relay: &mut Relay<'_>,
        left: &mut usize,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<Stretch> {
        if *left == 0 {
            return Ok(Stretch::Over);
        }
        let (started, mut asked, mut end) = (Instant::now(), 0, None);
        let mut generation = generation(&job.terms, Seat::BASE, None, answer, answer.remaining().min(*left));
        if let When::Interval(every) = self.when {
            generation.max_tokens = generation.max_tokens.min(every);
        }
        let mut kept = Vec::new();
        let mut steps = relay.base.session.generate(&generation);
        while end.is_none() {
            match steps.next().await.transpose()? {
                Some(Step::Token(sampled)) => {
                    asked += 1;
                    *left -= 1;
                    if self.doubts(&sampled) {
                        end = Some(Stretch::Due(Some(sampled)));
                    } else {
                        kept.push(sampled.clone());
                        if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, Seat::BASE)).await? {
                            end = Some(Stretch::Done(reason));
                        }
                    }
                }
                Some(Step::End(Stop::End)) => end = Some(Stretch::Done(FinishReason::Stop)),
                Some(Step::End(Stop::Length)) | None => break,
            }
        }
        drop(steps);
        kept.iter().try_for_each(|sampled| relay.note(sampled.token))?;
        if let Some(Stretch::Due(_)) = end {
            relay.base.session.truncate(relay.base.session.tokens().len() - 1);
        }
        answer.call(Call::since(started, Seat::BASE, CallKind::Generate, asked)).await;
        Ok(match end {
            Some(end) => end,
            None if relay.base.space() == 0 => Stretch::Done(FinishReason::Length),
            None if *left > 0 => Stretch::Due(None),
            None => Stretch::Over,
        })
    }

    /// Tells whether a token of the base is doubted.
    fn doubts(&self, sampled: &Sampled) -> bool {
        match self.when {
            When::Doubt(least) => sampled.logprob.is_some_and(|logprob| logprob < least),
            When::Interval(_) => false,
        }
    }

    /// Writes the token that was doubted after all.
    async fn keep(
        &self,
        relay: &mut Relay<'_>,
        doubted: Option<Sampled>,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<Option<FinishReason>> {
        let Some(sampled) = doubted else { return Ok(None) };
        relay.base.session.append(&[sampled.token]);
        match relay.write(sampled, Seat::BASE, job.terms.top_logprobs, answer).await? {
            Flow::Done(reason) => Ok(Some(reason)),
            Flow::More => Ok(None),
        }
    }

    /// Lets the draft write after the answer so far. Returns its tokens if it would refuse or turn.
    async fn look(
        &self,
        relay: &mut Relay<'_>,
        doubted: Option<&Sampled>,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<Option<(Vec<Token>, Stop)>> {
        let prefilled = relay.follow()?;
        let generation = relay.drafting(&job.terms, self.tokens);
        let agreed = doubted.filter(|_| relay.passes_ids()).map(|sampled| sampled.token);
        let (started, mut drafted, mut stop) = (Instant::now(), Vec::new(), Stop::Length);
        let mut steps = relay.draft.session.generate(&generation);
        while let Some(step) = steps.next().await {
            match step? {
                Step::Token(sampled) => drafted.push(sampled.token),
                Step::End(end) => stop = end,
            }
            // The draft would write what the base writes.
            if agreed.is_some() && drafted.first() == agreed.as_ref() {
                break;
            }
        }
        drop(steps);
        let text = relay.spell(&drafted, stop)?;
        let low = text.to_lowercase();
        let taken = self.phrases.iter().any(|phrase| low.contains(phrase));
        let discarded = if taken { 0 } else { drafted.len() };
        let call = Call::since(started, Seat::DRAFT, CallKind::Generate, drafted.len());
        answer.call(Call { prefilled, discarded, ..call }).await;
        answer.look(Look { at: answer.written(), text, taken }).await;
        Ok(taken.then_some((drafted, stop)))
    }
}

/// The draft writes again, until the window passes.
struct Again<'a> {
    looks: &'a Looks,
    window: Window,
    job: &'a Job,
}

impl Again<'_> {
    /// Writes the draft's tokens, and lets it write more. The tokens of the look are kept whole.
    async fn write(
        &mut self,
        relay: &mut Relay<'_>,
        (mut drafted, mut stop): (Vec<Token>, Stop),
        answer: &mut Answer,
    ) -> Result<Option<FinishReason>> {
        loop {
            let tokens = relay.base_tokens(&drafted, stop)?;
            let (from, space) = (relay.base.session.tokens().len(), relay.base.space());
            relay.base.session.append(&tokens[..tokens.len().min(space)]);
            let started = Instant::now();
            let scored = relay.base.session.score_top(from, self.job.terms.top_logprobs).await?;
            answer.call(Call::since(started, Seat::BASE, CallKind::Score, scored.len())).await;
            let mut passed = None;
            for sampled in scored {
                let seen = sampled.logprob.and_then(|logprob| self.window.push(logprob));
                passed = passed.or(seen.filter(|seen| seen.passed));
                let confidence = seen.map(|seen| seen.confidence);
                let record = TokenRecord { confidence, ..TokenRecord::new(sampled, Seat::DRAFT) };
                if let Flow::Done(reason) = relay.push(record, self.job.terms.top_logprobs, answer).await? {
                    return Ok(Some(reason));
                }
            }
            if let Some(seen) = passed {
                let at = answer.written().saturating_sub(1);
                answer.handover(Handover::new(at, seen.confidence, self.window.rule())).await;
                return Ok(None);
            }
            match stop {
                _ if tokens.len() > space => return Ok(Some(FinishReason::Length)),
                Stop::End => return Ok(Some(FinishReason::Stop)),
                Stop::Length if tokens.is_empty() || relay.base.space() == 0 => return Ok(None),
                Stop::Length => {}
            }
            relay.follow()?;
            let generation = relay.drafting(&self.job.terms, self.looks.tokens);
            let written = relay.draft.session.write(&generation).await?;
            answer.call(Call::new(Seat::DRAFT, CallKind::Generate, written.tokens.len(), written.seconds)).await;
            (drafted, stop) = (written.ids(), written.stop);
        }
    }
}
