//! Trying whether a server can continue given tokens, and score them.

use serde_json::Value;
use wsd_core::{Prompt, Sampled, Sampling, Token};

use super::reading::Reading;
use super::{Failed, Greeting, PLAIN, Probe};
use crate::remote::RemoteError;
use crate::remote::dialect::{Piece, ScoreAsk, Way, WriteAsk};
use crate::remote::fault::Fault;

/// Two scores of one token, or a score and what the server itself said when it wrote it, may be this far apart.
const TOLERANCE: f64 = 0.05;

impl Probe<'_> {
    /// A prompt to try things with.
    pub(super) fn sample(&self, reading: &Reading) -> Result<Vec<Token>, RemoteError> {
        let rendered = reading.text.render(&Prompt::Raw(PLAIN.into()));
        rendered
            .map(|rendered| rendered.tokens)
            .map_err(|error| self.fault("encoding a text for it", error.to_string()))
    }

    /// Let it continue given tokens, which a service that only chats cannot.
    pub(super) async fn try_writing(
        &self,
        greeting: &Greeting,
        reading: &Reading,
        sample: &[Token],
    ) -> Result<Vec<Sampled>, Failed> {
        let phase = "trying to continue given tokens";
        let ask = WriteAsk {
            model: &greeting.model,
            list: sample,
            max_tokens: 1,
            sampling: Sampling::default(),
            top: 0,
            end_tokens: &reading.end_tokens,
        };
        let written = self.write(greeting, &ask).await;
        let pieces = written.map_err(|fault| match fault {
            Fault::Status { status: 404 | 405 | 501, .. } => {
                let hint = "hint: WSD continues and scores token lists, which a service that only chats cannot do; run vLLM, SGLang or llama-server";
                self.fault(phase, format!("{fault}\n  {hint}")).into()
            }
            fault => self.failed(phase, &fault),
        })?;
        let limit = reading.vocab.or(greeting.vocab).unwrap_or(usize::MAX);
        let tokens: Vec<_> = pieces.into_iter().flat_map(|piece| piece.tokens).collect();
        match tokens.iter().find(|sampled| sampled.token as usize >= limit) {
            Some(sampled) => Err(self
                .fault(phase, format!("it wrote token {}, and its tokenizer has {limit}", sampled.token))
                .into()),
            None => Ok(tokens),
        }
    }

    async fn write(&self, greeting: &Greeting, ask: &WriteAsk<'_>) -> Result<Vec<Piece>, Fault> {
        let (dialect, post) = (greeting.dialect, greeting.dialect.write(ask));
        let (mut pieces, mut seen) = (Vec::new(), 0);
        let mut read = |event: &Value| -> Result<(), Fault> {
            let piece = dialect.piece(ask, event, seen).map_err(Fault::Unreadable)?;
            seen += piece.tokens.len();
            pieces.push(piece);
            Ok(())
        };
        if dialect.facts().streams {
            let mut events = self.http.stream(self.target, post.path, &post.body).await?;
            while let Some(event) = events.next().await? {
                read(&event)?;
            }
        } else {
            read(&self.http.post(self.target, post.path, &post.body).await?)?;
        }
        match pieces.iter().any(|piece| piece.stop.is_some()) {
            true => Ok(pieces),
            false => Err(Fault::Broken("the stream ended before the answer did".into())),
        }
    }

    /// The best way of scoring that proves itself, or why there is none.
    pub(super) async fn try_scoring(
        &self,
        greeting: &Greeting,
        reading: &Reading,
        sample: &[Token],
        written: &[Sampled],
    ) -> Result<(Option<Way>, String), Failed> {
        // The last token is one that the server wrote: what it thinks of that is known.
        let list: Vec<_> = sample.iter().copied().chain(written.iter().map(|sampled| sampled.token)).collect();
        let known = written.last().map(|sampled| sampled.logprob).filter(|logprob| !logprob.is_nan());
        let (mut best, mut expected, mut reason) = (None, Vec::from_iter(known), String::new());
        for &way in greeting.dialect.facts().ways {
            let proven = match self.allowed(way, greeting, reading) {
                Ok(way) => self.prove(greeting, &list, way, &expected).await.map(|scores| (way, scores)),
                Err(why) => Err(Fault::Unreadable(why)),
            };
            match proven {
                Ok((way, scores)) => (best, expected) = (Some(way), scores),
                Err(fault @ (Fault::Connect(_) | Fault::Broken(_) | Fault::Late { .. })) => {
                    return Err(self.failed("trying to score", &fault));
                }
                Err(Fault::Unreadable(why)) => reason = why,
                Err(fault) => reason = fault.to_string(),
            }
        }
        Ok((best, reason))
    }

    /// A way of scoring with all that it needs, or why the user does not want it.
    fn allowed(&self, way: Way, greeting: &Greeting, reading: &Reading) -> Result<Way, String> {
        let Way::Forced { width, .. } = way else { return Ok(way) };
        if !self.options.teacher_forcing {
            let name = greeting.dialect.facts().name;
            return Err(format!(
                "{name} returns no scores of a prompt\n  hint: --teacher-forcing asks it for one token at a time: exact, and as slow as writing"
            ));
        }
        match reading.text.tokenizer().encode(".").as_deref() {
            Ok(&[harmless]) => Ok(Way::Forced { width, harmless }),
            _ => Err("no token of its vocabulary is a plain full stop, which teacher forcing needs".into()),
        }
    }

    /// Score a list twice, from an empty cache and from a full one, and compare the last scores with those that are known.
    async fn prove(&self, greeting: &Greeting, list: &[Token], way: Way, known: &[f64]) -> Result<Vec<f64>, Fault> {
        let scores = self.scores(greeting, list, way).await?;
        let again = self.scores(greeting, list, way).await?;
        let near = |a: &[f64], b: &[f64]| a.iter().rev().zip(b.iter().rev()).all(|(a, b)| (a - b).abs() <= TOLERANCE);
        if !near(&scores, &again) {
            return Err(Fault::Unreadable("it scores the same tokens differently from one time to the next".into()));
        }
        if !near(&scores, known) {
            let (known, last) = (known.last(), scores.last());
            return Err(Fault::Unreadable(format!(
                "it wrote a token with the log-probability {known:?} and scores it {last:?}"
            )));
        }
        Ok(scores)
    }

    /// The scores of a list; of its last two tokens where each takes a call.
    async fn scores(&self, greeting: &Greeting, list: &[Token], way: Way) -> Result<Vec<f64>, Fault> {
        let spans = match way {
            Way::Forced { .. } => {
                (list.len().saturating_sub(2).max(1)..list.len()).map(|from| (from, from + 1)).collect()
            }
            _ => vec![(1, list.len())],
        };
        let mut scores = Vec::new();
        for (from, end) in spans {
            let ask = ScoreAsk { model: &greeting.model, list: &list[..end], from, top: 0, way };
            let scored = match self.score(greeting, &ask).await? {
                None => self.score(greeting, &ask.widened(greeting.vocab)).await?,
                scored => scored,
            };
            let scored = scored.ok_or_else(|| Fault::Unreadable("there is no score in it".into()))?;
            scores.extend(scored.into_iter().map(|scored| scored.logprob));
        }
        Ok(scores)
    }

    async fn score(&self, greeting: &Greeting, ask: &ScoreAsk<'_>) -> Result<Option<Vec<Sampled>>, Fault> {
        let post = greeting.dialect.score(ask);
        let reply = self.http.post(self.target, post.path, &post.body).await?;
        greeting.dialect.scores(ask, &reply).map_err(Fault::Unreadable)
    }
}
