//! A session over HTTP: the list is sent whole, and the server's prefix cache does the rest.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use wsd_core::{Generation, Result, Row, Sampled, Sampling, Session, Step, Stop, Token};

use super::Shared;
use super::asking::{Asking, Dialogue};
use super::dialect::{Piece, ScoreAsk, Way, WriteAsk};
use super::fault::Fault;
use super::http::Events;

/// How much wider each further look at the likeliest tokens is.
const WIDER: usize = 32;

pub(super) struct Remote {
    shared: Arc<Shared>,
    dialogue: Dialogue,
    tokens: Vec<Token>,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>, tokens: &[Token]) -> Self {
        Self { dialogue: Dialogue::new(shared.clone()), shared, tokens: tokens.to_vec() }
    }

    /// Score `list[from..]` in one call, or in one for each token.
    async fn scores(&mut self, from: usize, top: usize) -> Result<Vec<Sampled>> {
        let shared = self.shared.clone();
        let mut asking = Asking::new(shared.clone(), "scoring");
        let way = shared.way.filter(|_| from > 0 && from <= self.tokens.len());
        let way = way
            .ok_or_else(|| asking.misread(&self.dialogue, format!("nothing can be scored from position {from} on")))?;
        if !matches!(way, Way::Forced { .. }) {
            let ask = ScoreAsk { model: &shared.model, list: &self.tokens, from, top, way };
            return score(&shared, &mut asking, &mut self.dialogue, ask).await;
        }
        let mut scored = Vec::with_capacity(self.tokens.len() - from);
        for position in from..self.tokens.len() {
            let ask = ScoreAsk { model: &shared.model, list: &self.tokens[..=position], from: position, top, way };
            scored.extend(score(&shared, &mut asking, &mut self.dialogue, ask).await?);
        }
        Ok(scored)
    }
}

/// One scoring, again in another way where the first does not give the scores.
async fn score(
    shared: &Shared,
    asking: &mut Asking,
    dialogue: &mut Dialogue,
    mut ask: ScoreAsk<'_>,
) -> Result<Vec<Sampled>> {
    loop {
        let reply = asking.whole(dialogue, &shared.dialect.score(&ask)).await?;
        match shared.dialect.scores(&ask, &reply).map_err(|why| asking.misread(dialogue, why))? {
            Some(scores) => return Ok(scores),
            None => match &mut ask.way {
                Way::Forced { width, .. } if *width < shared.card.vocab => {
                    *width = width.saturating_mul(WIDER).min(shared.card.vocab);
                }
                way @ Way::Rows => *way = Way::Prompt,
                _ => return Err(asking.misread(dialogue, "there is no score in it".into())),
            },
        }
    }
}

#[async_trait]
impl Session for Remote {
    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    async fn warm(&mut self) -> Result<()> {
        // Where scoring reads no cache there is nothing to be made ready for it.
        if self.shared.card.cost.rescores_from_start || !self.shared.card.caps.score || self.tokens.len() < 2 {
            return Ok(());
        }
        self.scores(self.tokens.len() - 1, 0).await.map(drop)
    }

    fn generate<'a>(&'a mut self, plan: &'a Generation) -> BoxStream<'a, Result<Step>> {
        let asking = Asking::new(self.shared.clone(), "continuing");
        let writing = Writing {
            session: self,
            plan,
            asking,
            left: plan.max_tokens,
            ready: VecDeque::new(),
            source: None,
            ended: None,
        };
        stream::unfold(Some(writing), |writing| async {
            let mut writing = writing?;
            let step = writing.next().await;
            let more = matches!(step, Ok(Step::Token(_)));
            Some((step, more.then_some(writing)))
        })
        .boxed()
    }

    async fn score(&mut self, from: usize) -> Result<Vec<f64>> {
        Ok(self.scores(from, 0).await?.into_iter().map(|scored| scored.logprob).collect())
    }

    async fn score_top(&mut self, from: usize, top: usize) -> Result<Vec<Sampled>> {
        self.scores(from, top).await
    }

    async fn logits(&mut self, _from: usize) -> Result<Vec<Row>> {
        let asking = Asking::new(self.shared.clone(), "asking for rows of logits");
        Err(asking.misread(&self.dialogue, "no row of logits crosses a network".into()))
    }
}

/// A continuation under way: one request after another until it has its tokens, each going on where the last one ended.
struct Writing<'a> {
    session: &'a mut Remote,
    plan: &'a Generation,
    asking: Asking,
    /// Tokens still wanted.
    left: usize,
    /// Tokens that have come and are not handed out.
    ready: VecDeque<Sampled>,
    source: Option<Source>,
    /// How it ends once what is ready is handed out.
    ended: Option<Stop>,
}

/// A request under way.
struct Source {
    events: Option<Events>,
    /// What was sent: the list's length, and the tokens asked for.
    sent: (usize, usize),
    seen: usize,
}

impl Writing<'_> {
    async fn next(&mut self) -> Result<Step> {
        loop {
            if self.left == 0 || self.session.tokens.len() >= self.session.shared.card.max_len {
                return Ok(Step::End(Stop::Length));
            }
            if let Some(sampled) = self.ready.pop_front() {
                self.left -= 1;
                self.session.tokens.push(sampled.token);
                return Ok(Step::Token(sampled));
            }
            if let Some(stop) = self.ended {
                return Ok(Step::End(stop));
            }
            match self.event().await {
                Ok(piece) => self.take_in(piece)?,
                Err(fault) => {
                    self.source = None;
                    self.asking.recover(&mut self.session.dialogue, fault).await?;
                }
            }
        }
    }

    /// The next event of the request under way, or of a new one.
    async fn event(&mut self) -> Result<Piece, Fault> {
        let shared = self.session.shared.clone();
        let length = self.session.tokens.len();
        let wanted = self.left.min(shared.card.max_len - length).min(shared.dialect.facts().slice);
        let (sent, tokens) = self.source.as_ref().map_or((length, wanted), |source| source.sent);
        let ask = WriteAsk {
            model: &shared.model,
            list: &self.session.tokens[..sent],
            max_tokens: tokens,
            sampling: at(self.plan.sampling, sent),
            top: self.plan.top_logprobs,
            end_tokens: &shared.card.end_tokens,
        };
        let (event, seen) = match &mut self.source {
            Some(Source { events: Some(events), seen, .. }) => (self.asking.in_time(events.next()).await?, *seen),
            _ => {
                let post = shared.dialect.write(&ask);
                let (event, events) = if shared.dialect.facts().streams {
                    let mut events = self.asking.stream(&self.session.dialogue, &post).await?;
                    (self.asking.in_time(events.next()).await?, Some(events))
                } else {
                    (Some(self.asking.once(&self.session.dialogue, &post).await?), None)
                };
                self.source = Some(Source { events, sent: (sent, tokens), seen: 0 });
                (event, 0)
            }
        };
        let event: Value = event.ok_or_else(|| Fault::Broken("the stream ended before the answer did".into()))?;
        shared.dialect.piece(&ask, &event, seen).map_err(Fault::Unreadable)
    }

    fn take_in(&mut self, piece: Piece) -> Result<()> {
        let shared = self.session.shared.clone();
        let mut tokens = piece.tokens;
        if let Some(text) = &piece.text {
            // Half a character is not text, and comes again with its other half.
            let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
            let ids = shared.text.tokenizer().encode(text)?;
            tokens = ids.into_iter().map(|token| Sampled { token, logprob: f64::NAN, top: Vec::new() }).collect();
        }
        let outside = tokens.iter().find(|sampled| sampled.token as usize >= shared.card.vocab);
        if let Some(Sampled { token, .. }) = outside {
            let why =
                format!("it wrote token {token}, which is outside the vocabulary of {} entries", shared.card.vocab);
            return Err(self.asking.misread(&self.session.dialogue, why));
        }
        if !tokens.is_empty() {
            self.asking.progressed();
        }
        // A token that ends the text may come as any other.
        let end = tokens.iter().position(|sampled| shared.card.end_tokens.contains(&sampled.token));
        let stop = if end.is_some() { Some(Stop::End) } else { piece.stop };
        tokens.truncate(end.unwrap_or(usize::MAX));
        let source = self.source.as_mut();
        let total = source.map_or(0, |source| {
            source.seen += tokens.len();
            source.seen
        });
        self.ready.extend(tokens);
        match stop {
            Some(Stop::End) => self.ended = Some(Stop::End),
            // A part that is full is followed by the next one; an empty one shows that there is no more room.
            Some(Stop::Length) if total == 0 => self.ended = Some(Stop::Length),
            Some(Stop::Length) => self.source = None,
            None => {}
        }
        Ok(())
    }
}

/// The settings at a position of the list: a server's random numbers begin anew with each request, so each has a seed of its own.
fn at(sampling: Sampling, position: usize) -> Sampling {
    let mixed =
        (sampling.seed ^ (position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    Sampling { seed: mixed ^ (mixed >> 31), ..sampling }
}
