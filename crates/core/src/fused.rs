//! Writing by several models at once: each token is chosen from the rows of all of them.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::future::try_join_all;

use crate::distribution::NoToken;
use crate::finish::{Finish, Opening};
use crate::relay::Side;
use crate::speculation::Rest;
use crate::steps::{render, write_to_end};
use crate::{
    Answer, Author, Call, CallKind, Engine, Error, FinishReason, Flow, Handover, Job, Result, Row, Sampled, Sampling,
    Seat, Session, Strategy, Token, TokenRecord, Window, pick, splitmix64, top_tokens,
};

/// The choice of a token from rows of natural log-probabilities.
pub(crate) trait Fusion: Send + Sync {
    /// True if some tokens follow from the base's row alone, so that the base is asked first.
    fn is_lazy(&self) -> bool {
        false
    }

    /// Chooses the next token from the base's row alone; `None` where the other models must be asked.
    /// Called for lazy rules only.
    fn first(&self, _base: &Row, _place: &Place<'_>) -> Result<Option<Next>, NoToken> {
        Ok(None)
    }

    /// Makes the distribution of the next token from the rows of all models, the base's first.
    fn next(&self, rows: &[Row], place: &Place<'_>) -> Result<Next, NoToken>;
}

/// The next token, chosen or to be drawn.
pub(crate) enum Next {
    /// A token still to be drawn from this row, by the request's sampling.
    Row(Row, Author),
    /// A token already chosen.
    Token(Token, Author),
}

/// The position of a token, with the random numbers that belong to it.
pub(crate) struct Place<'a> {
    /// The base's list before the token.
    pub(crate) list: &'a [Token],
    /// The request's sampling, for the base.
    pub(crate) sampling: &'a Sampling,
    /// Tokens that end a text.
    pub(crate) ends: &'a [Token],
}

impl Place<'_> {
    /// A uniform number in 0..1, another one for each `stream`. Stream 0 is what [`pick`] draws with.
    pub(crate) fn uniform(&self, stream: u64) -> f64 {
        let seed = if stream == 0 { self.sampling.seed } else { self.sampling.seed ^ splitmix64(stream) };
        Sampling { seed, ..self.sampling.clone() }.uniform(self.list.len())
    }
}

/// Models of one vocabulary, the base first, and the rule that fuses them.
pub(crate) struct Fused {
    /// The models by seat, the base first.
    pub(crate) models: Vec<(Seat, Arc<dyn Engine>)>,
    /// The rule.
    pub(crate) fusion: Arc<dyn Fusion>,
    /// The window with which the base takes over, and what follows; `None` to fuse every token.
    pub(crate) finish: Option<Finish>,
}

/// A model that takes part.
struct Member {
    seat: Seat,
    session: Box<dyn Session>,
    max_len: usize,
    /// Rows asked for.
    rows: usize,
    /// Seconds spent.
    seconds: f64,
}

impl Member {
    /// The row after the list, normalized.
    async fn row(&mut self) -> Result<Row> {
        let started = Instant::now();
        let rows = self.session.logits(self.session.tokens().len()).await?;
        self.rows += 1;
        self.seconds += started.elapsed().as_secs_f64();
        rows.into_iter().next_back().ok_or_else(|| {
            let engine = self.session.card().name.clone();
            Error::Engine { engine, message: "returned no row".into() }
        })
    }

    fn is_full(&self) -> bool {
        self.session.tokens().len() >= self.max_len
    }
}

#[async_trait]
impl Strategy for Fused {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.models[0].1
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let started = Instant::now();
        let (mut members, mut prompts) = (Vec::new(), Vec::new());
        for (seat, engine) in &self.models {
            let prompt = render(engine.as_ref(), job)?;
            let session = engine.open(&prompt.tokens).await?;
            members.push(Member { seat: *seat, session, max_len: engine.card().max_len, rows: 0, seconds: 0.0 });
            prompts.push(prompt);
        }
        answer.prompt(prompts[0].tokens.len()).await;
        answer.begin(self.models[0].1.codec(), &prompts[0].tokens, 0);
        let end = self.write(&mut members, job, answer).await?;
        let call = |member: &Member| Call::new(member.seat, CallKind::Generate, member.rows, member.seconds);
        for call in members.iter().map(call).collect::<Vec<_>>() {
            answer.call(call).await;
        }
        let reason = match (end, &self.finish) {
            (End::Answer(reason), _) => reason,
            (End::Switched, Some(finish)) => {
                let mut sides = self.models.iter().zip(members).zip(prompts).map(|(((_, engine), member), prompt)| {
                    Side { engine: engine.as_ref(), session: member.session, prompt }
                });
                let (Some(base), Some(draft)) = (sides.next(), sides.next()) else { return Ok(FinishReason::Length) };
                let seconds = started.elapsed().as_secs_f64();
                let opening = Opening { draft, base, rest: Rest::default(), seconds, guide: None };
                return finish.run(opening, job, answer).await;
            }
            _ => write_to_end(members[0].session.as_mut(), Seat::BASE, &job.terms, None, answer).await?,
        };
        answer.reused(members[0].session.reused_tokens()).await;
        Ok(reason)
    }
}

impl Fused {
    /// Writes tokens until the answer ends, the base takes over, or a context is full.
    async fn write(&self, members: &mut [Member], job: &Job, answer: &mut Answer) -> Result<End> {
        let mut ends: Vec<_> = self.models.iter().flat_map(|(_, model)| model.card().end_tokens.clone()).collect();
        ends.dedup();
        let sampling = job.terms.sampling.for_seat(Seat::BASE, answer.prompt_len());
        let sampling = sampling.spelled_by(self.models[0].1.codec());
        let (mut window, mut written) = (self.finish.as_ref().map(|finish| Window::new(finish.rule())), 0);
        loop {
            if members[0].is_full() {
                return Ok(End::Answer(FinishReason::Length));
            }
            if members[1..].iter().any(Member::is_full) {
                return Ok(End::Alone);
            }
            let (sampled, by) = self.choose(members, &ends, &sampling, job.terms.top_logprobs).await?;
            if ends.contains(&sampled.token) {
                return Ok(End::Answer(FinishReason::Stop));
            }
            let seen = window.as_mut().zip(sampled.logprob).and_then(|(window, logprob)| window.push(logprob));
            let token = sampled.token;
            let record = TokenRecord { confidence: seen.map(|seen| seen.confidence), ..TokenRecord::new(sampled, by) };
            let flow = answer.token(record).await?;
            written += 1;
            members.iter_mut().for_each(|member| member.session.append(&[token]));
            let passed = seen.filter(|seen| seen.passed).zip(window.as_ref());
            if let Some((seen, window)) = passed {
                answer.handover(Handover::new(written - 1, seen.confidence, window.rule())).await;
            }
            match flow {
                Flow::Done(reason) => return Ok(End::Answer(reason)),
                Flow::More if passed.is_some() => return Ok(End::Switched),
                Flow::More => {}
            }
        }
    }

    /// Chooses the next token.
    async fn choose(
        &self,
        members: &mut [Member],
        ends: &[Token],
        sampling: &Sampling,
        top_logprobs: usize,
    ) -> Result<(Sampled, Author)> {
        let list = members[0].session.tokens().to_vec();
        let place = Place { list: &list, sampling, ends };
        let not_finite =
            |_| Error::NotFinite { engine: self.models[0].1.card().name.clone(), position: place.list.len() };
        let (mut rows, mut next) = (Vec::new(), None);
        if self.fusion.is_lazy() {
            rows.push(members[0].row().await?);
            next = self.fusion.first(&rows[0], &place).map_err(not_finite)?;
        }
        let next = match next {
            Some(next) => next,
            None => {
                let asked = rows.len();
                rows.extend(try_join_all(members[asked..].iter_mut().map(Member::row)).await?);
                self.fusion.next(&rows, &place).map_err(not_finite)?
            }
        };
        let (token, by) = match next {
            Next::Token(token, by) => (token, by),
            Next::Row(mut row, by) => {
                let sampled = pick(&mut row, &list, sampling).ok_or(NoToken).map_err(not_finite)?;
                (sampled.token, by)
            }
        };
        let base = &rows[0];
        let top = top_tokens(base, top_logprobs).ok_or(NoToken).map_err(not_finite)?;
        let logprob = base.get(token as usize).map(|&logprob| f64::from(logprob).min(0.0));
        Ok((Sampled { token, logprob, top }, by))
    }
}

/// The end of the fused part of an answer.
enum End {
    /// The answer has ended.
    Answer(FinishReason),
    /// The context of another model is full, so the base writes alone.
    Alone,
    /// The window passed: the base takes over.
    Switched,
}
