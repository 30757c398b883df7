//! A session over HTTP: the list is sent whole, and the server's prefix cache makes that cheap.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use wsd_core::{Card, Error, Generation, Result, Row, Sampled, Sampling, Session, Step, Stop, Token, splitmix64};

use super::attempts::{Attempts, Route};
use super::dialect::{Delta, GenerateRequest, Post, ScoreRequest, Scoring};
use super::fault::Fault;
use super::http::Events;
use super::shared::Shared;

/// Factor by which k grows when a token is not among the top-k.
const WIDENING: usize = 32;
const NO_SCORE: &str = "there is no score in it";

pub(super) struct Remote {
    shared: Arc<Shared>,
    route: Route,
    /// The scope of the server's cached prefixes; 0 for that of all who set none.
    scope: u64,
    tokens: Vec<Token>,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>, scope: u64, tokens: &[Token]) -> Self {
        Self { route: Route::new(shared.clone()), shared, scope, tokens: tokens.to_vec() }
    }

    /// Scores `tokens[from..]`, in one call or in one per token.
    async fn scores(&mut self, from: usize, top: usize) -> Result<Vec<Sampled>> {
        let shared = self.shared.clone();
        let mut attempts = Attempts::new(shared.clone(), "scoring");
        let scoring = shared.scoring.filter(|_| from > 0 && from <= self.tokens.len());
        let impossible = || format!("nothing can be scored from position {from} on");
        let scoring = scoring.ok_or_else(|| attempts.misread(&self.route, impossible()))?;
        if !matches!(scoring, Scoring::Forced { .. }) {
            let request = ScoreRequest { model: &shared.model, list: &self.tokens, from, top, scoring };
            return score(&shared, &mut attempts, &mut self.route, self.scope, request).await;
        }
        let mut scored = Vec::with_capacity(self.tokens.len() - from);
        for position in from..self.tokens.len() {
            let list = &self.tokens[..=position];
            let request = ScoreRequest { model: &shared.model, list, from: position, top, scoring };
            scored.extend(score(&shared, &mut attempts, &mut self.route, self.scope, request).await?);
        }
        Ok(scored)
    }

    /// The error of a reply without a score in it.
    fn unscored(&self) -> Error {
        Attempts::new(self.shared.clone(), "scoring").misread(&self.route, NO_SCORE.into())
    }
}

/// Returns a request whose prefix the server shares within the scope only.
fn in_scope(shared: &Shared, scope: u64, mut post: Post) -> Post {
    if scope > 0 {
        shared.dialect.separate(&mut post, scope);
    }
    post
}

/// Scores with one request, and again by another method where the first does not return the scores.
async fn score(
    shared: &Shared,
    attempts: &mut Attempts,
    route: &mut Route,
    scope: u64,
    mut request: ScoreRequest<'_>,
) -> Result<Vec<Sampled>> {
    loop {
        let post = shared.dialect.score(&request).map_err(|why| attempts.misread(route, why))?;
        let post = in_scope(shared, scope, post);
        let reply = attempts.post(route, &post).await?;
        let scores = shared.dialect.parse_scores(&request, &reply).map_err(|why| attempts.misread(route, why))?;
        if let Some(scores) = scores {
            return Ok(scores);
        }
        match &mut request.scoring {
            Scoring::Forced { width, .. } if *width < shared.card.vocab => {
                *width = width.saturating_mul(WIDENING).min(shared.card.vocab);
            }
            scoring @ Scoring::Rows => *scoring = Scoring::Prompt,
            _ => return Err(attempts.misread(route, NO_SCORE.into())),
        }
    }
}

#[async_trait]
impl Session for Remote {
    fn card(&self) -> &Card {
        &self.shared.card
    }

    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    async fn warm(&mut self) -> Result<()> {
        // Scoring that reads no cache gains nothing from a prefill.
        if self.shared.card.cost.rescores_from_start || !self.shared.card.caps.score || self.tokens.len() < 2 {
            return Ok(());
        }
        self.scores(self.tokens.len() - 1, 0).await.map(drop)
    }

    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, Result<Step>> {
        let attempts = Attempts::new(self.shared.clone(), "continuing");
        let generating = Generating {
            session: self,
            generation,
            attempts,
            left: generation.max_tokens,
            ready: VecDeque::new(),
            request: None,
            stop: None,
        };
        stream::unfold(Some(generating), |generating| async {
            let mut generating = generating?;
            let step = generating.step().await;
            let more = matches!(step, Ok(Step::Token(_)));
            Some((step, more.then_some(generating)))
        })
        .boxed()
    }

    async fn score(&mut self, from: usize) -> Result<Vec<f64>> {
        let scored = self.scores(from, 0).await?;
        scored.into_iter().map(|scored| scored.logprob).collect::<Option<_>>().ok_or_else(|| self.unscored())
    }

    async fn score_top(&mut self, from: usize, top: usize) -> Result<Vec<Sampled>> {
        self.scores(from, top).await
    }

    async fn logits(&mut self, _from: usize) -> Result<Vec<Row>> {
        let attempts = Attempts::new(self.shared.clone(), "requesting rows of logits");
        Err(attempts.misread(&self.route, "rows of logits are not sent over a network".into()))
    }
}

/// A continuation in progress: a series of requests, each resuming at the end of the list.
struct Generating<'a> {
    session: &'a mut Remote,
    generation: &'a Generation,
    attempts: Attempts,
    /// Tokens still to be returned.
    left: usize,
    /// Tokens received and not yet returned.
    ready: VecDeque<Sampled>,
    /// The request in flight.
    request: Option<InFlight>,
    /// The end to report after the tokens in `ready`.
    stop: Option<Stop>,
}

/// A request in flight.
struct InFlight {
    /// The stream; `None` where the reply came whole.
    events: Option<Events>,
    sent: Sent,
    /// Tokens that its events have brought.
    seen: usize,
}

/// The list and limit of a request.
#[derive(Clone, Copy)]
struct Sent {
    /// Length of the list, in tokens.
    list_len: usize,
    max_tokens: usize,
}

impl Generating<'_> {
    async fn step(&mut self) -> Result<Step> {
        loop {
            if self.left == 0 || self.session.tokens.len() >= self.session.shared.card.max_len {
                return Ok(Step::End(Stop::Length));
            }
            if let Some(sampled) = self.ready.pop_front() {
                self.left -= 1;
                self.session.tokens.push(sampled.token);
                return Ok(Step::Token(sampled));
            }
            if let Some(stop) = self.stop {
                return Ok(Step::End(stop));
            }
            match self.receive().await {
                Ok(delta) => self.take(delta)?,
                Err(fault) => {
                    self.request = None;
                    self.attempts.recover(&mut self.session.route, fault).await?;
                }
            }
        }
    }

    /// The next part of the answer, from the request in flight or from a new one.
    async fn receive(&mut self) -> Result<Delta, Fault> {
        let shared = self.session.shared.clone();
        let list_len = self.session.tokens.len();
        let max_tokens = self.left.min(shared.card.max_len - list_len).min(shared.dialect.facts().slice);
        let sent = self.request.as_ref().map_or(Sent { list_len, max_tokens }, |request| request.sent);
        let request = GenerateRequest {
            model: &shared.model,
            list: &self.session.tokens[..sent.list_len],
            max_tokens: sent.max_tokens,
            sampling: at_position(&self.generation.sampling, sent.list_len),
            top: self.generation.top_logprobs,
            end_tokens: &shared.card.end_tokens,
        };
        let (event, seen) = match &mut self.request {
            Some(InFlight { events: Some(events), seen, .. }) => (self.attempts.in_time(events.next()).await?, *seen),
            _ => {
                let post = in_scope(&shared, self.session.scope, shared.dialect.generate(&request));
                let (event, events) = if shared.dialect.facts().streams {
                    let mut events = self.attempts.stream(&self.session.route, &post).await?;
                    (self.attempts.in_time(events.next()).await?, Some(events))
                } else {
                    (Some(self.attempts.post_once(&self.session.route, &post).await?), None)
                };
                self.request = Some(InFlight { events, sent, seen: 0 });
                (event, 0)
            }
        };
        let event: Value = event.ok_or_else(|| Fault::Broken("the stream ended before the answer did".into()))?;
        shared.dialect.parse_delta(&request, &event, seen).map_err(Fault::Unreadable)
    }

    /// Moves the tokens of a part into `ready` and notes the end of the answer, or of this request.
    fn take(&mut self, delta: Delta) -> Result<()> {
        let shared = self.session.shared.clone();
        let mut tokens = delta.tokens;
        if let Some(text) = &delta.text {
            // A partial UTF-8 character at the end comes again, whole, with the next request.
            let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
            let ids = shared.codec.tokenizer().encode(text)?;
            tokens = ids.into_iter().map(|token| Sampled { token, logprob: None, top: Vec::new() }).collect();
        }
        let vocab = shared.card.vocab;
        if let Some(Sampled { token, .. }) = tokens.iter().find(|sampled| sampled.token as usize >= vocab) {
            let why = format!("it wrote token {token}, which is outside the vocabulary of {vocab} entries");
            return Err(self.attempts.misread(&self.session.route, why));
        }
        if !tokens.is_empty() {
            self.attempts.progressed();
        }
        // An end token may arrive like any other token.
        let end = tokens.iter().position(|sampled| shared.card.end_tokens.contains(&sampled.token));
        let stop = if end.is_some() { Some(Stop::End) } else { delta.stop };
        tokens.truncate(end.unwrap_or(usize::MAX));
        let seen = self.request.as_mut().map_or(0, |request| {
            request.seen += tokens.len();
            request.seen
        });
        self.ready.extend(tokens);
        match stop {
            Some(Stop::End) => self.stop = Some(Stop::End),
            // A request that filled its limit is followed by another. One that brought no token
            // means that the server's context is full.
            Some(Stop::Length) if seen == 0 => self.stop = Some(Stop::Length),
            Some(Stop::Length) => self.request = None,
            None => {}
        }
        Ok(())
    }
}

/// Sampling settings for a request that starts at `position` of the list. A server restarts its
/// random numbers with each request, so each position gets a seed of its own, hashed from the
/// user's seed and the position.
fn at_position(sampling: &Sampling, position: usize) -> Sampling {
    Sampling { seed: splitmix64(splitmix64(sampling.seed) ^ position as u64), ..sampling.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_seed_and_position_has_random_numbers_of_its_own() {
        let seeds = || [0, 1, 2, 3, u64::MAX].into_iter();
        let of = |seed| (0..1000).map(move |position| at_position(&Sampling { seed, ..Sampling::default() }, position));
        // The narrowest engine reads 31 bits.
        let all: HashSet<_> = seeds().flat_map(of).map(|sampling| sampling.seed & u64::from(u32::MAX >> 1)).collect();
        assert!(all.len() >= 4990, "{} of 5000", all.len());
        assert!(of(7).eq(of(7)));
    }
}
