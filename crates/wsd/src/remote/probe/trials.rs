//! Trials: whether a server can continue given tokens, and score them.

use serde_json::Value;
use wsd_core::{Prompt, Sampled, Sampling, Token};

use super::codec::FoundCodec;
use super::{Failed, PLAIN, Probe, ServerInfo};
use crate::remote::dialect::{self, Delta, GenerateRequest, ScoreRequest, Scoring};
use crate::remote::error::RemoteError;
use crate::remote::fault::Fault;

/// Largest difference allowed between two scores of a token, or between its score and the
/// log-probability that the server reported when it sampled it.
const TOLERANCE: f64 = 0.05;

impl Probe<'_> {
    /// The prompt of the trials, in tokens.
    pub(super) fn sample(&self, found: &FoundCodec) -> Result<Vec<Token>, RemoteError> {
        let rendered = found.codec.render(&Prompt::Raw(PLAIN.into()));
        rendered
            .map(|rendered| rendered.tokens)
            .map_err(|error| self.fault("encoding a text for it", error.to_string()))
    }

    /// Generates one token after the sample, which a service that only chats cannot do.
    pub(super) async fn try_generating(
        &self,
        server: &ServerInfo,
        found: &FoundCodec,
        sample: &[Token],
    ) -> Result<Vec<Sampled>, Failed> {
        let phase = "trying to continue given tokens";
        let request = GenerateRequest {
            model: &server.model,
            list: sample,
            max_tokens: 1,
            sampling: Sampling::default(),
            top: 0,
            end_tokens: &found.end_tokens,
        };
        let deltas = self.generate(server, &request).await.map_err(|fault| match fault {
            Fault::Status { status: 404 | 405 | 501, .. } => {
                let hint = "hint: WSD continues and scores token lists, which a service that only chats cannot do";
                self.fault(phase, format!("{fault}\n  {hint}; run {}", dialect::programs())).into()
            }
            fault => self.failed(phase, &fault),
        })?;
        let limit = found.vocab.or(server.vocab).unwrap_or(usize::MAX);
        let tokens: Vec<_> = deltas.into_iter().flat_map(|delta| delta.tokens).collect();
        match tokens.iter().find(|sampled| sampled.token as usize >= limit) {
            Some(sampled) => {
                Err(self.fault(phase, format!("its tokens must be below {limit}, got {}", sampled.token)).into())
            }
            None => Ok(tokens),
        }
    }

    async fn generate(&self, server: &ServerInfo, request: &GenerateRequest<'_>) -> Result<Vec<Delta>, Fault> {
        let (dialect, post) = (server.dialect, server.dialect.generate(request));
        let (mut deltas, mut seen) = (Vec::new(), 0);
        let mut read = |event: &Value| -> Result<(), Fault> {
            let delta = dialect.parse_delta(request, event, seen).map_err(Fault::Unreadable)?;
            seen += delta.tokens.len();
            deltas.push(delta);
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
        if deltas.iter().any(|delta| delta.stop.is_some()) {
            Ok(deltas)
        } else {
            Err(Fault::Broken("the stream ended before the answer did".into()))
        }
    }

    /// Proves each method of scoring. Returns the last that works, or why none does.
    pub(super) async fn try_scoring(
        &self,
        server: &ServerInfo,
        found: &FoundCodec,
        sample: &[Token],
        written: &[Sampled],
    ) -> Result<(Option<Scoring>, String), Failed> {
        // The last token is one that the server sampled, so its log-probability may be known.
        let list: Vec<_> = sample.iter().copied().chain(written.iter().map(|sampled| sampled.token)).collect();
        let known = written.last().and_then(|sampled| sampled.logprob);
        let facts = server.dialect.facts();
        let (mut best, mut expected, mut reason) = (None, Vec::from_iter(known), facts.unscored());
        for &scoring in facts.scorings {
            let proven = match self.allowed(scoring, server, found) {
                Ok(scoring) => self.prove(server, &list, scoring, &expected).await.map(|scores| (scoring, scores)),
                Err(why) => Err(Fault::Unreadable(why)),
            };
            match proven {
                Ok((scoring, scores)) => (best, expected) = (Some(scoring), scores),
                Err(fault @ (Fault::Connect(_) | Fault::Broken(_) | Fault::Late { .. })) => {
                    return Err(self.failed("trying to score", &fault));
                }
                Err(Fault::Unreadable(why)) => reason = why,
                Err(fault) => reason = fault.to_string(),
            }
        }
        Ok((best, reason))
    }

    /// The method with all its parameters, or why it may not be used.
    fn allowed(&self, scoring: Scoring, server: &ServerInfo, found: &FoundCodec) -> Result<Scoring, String> {
        let Scoring::Forced { width, .. } = scoring else { return Ok(scoring) };
        if !self.options.teacher_forcing {
            let why = server.dialect.facts().unscored();
            let hint = "hint: --teacher-forcing scores one token per request: exact, and as slow as generating";
            return Err(format!("{why}\n  {hint}"));
        }
        match found.codec.tokenizer().encode(".").as_deref() {
            Ok(&[ascii_token]) => Ok(Scoring::Forced { width, ascii_token }),
            _ => Err("no token of its vocabulary is a plain full stop, which teacher forcing needs".into()),
        }
    }

    /// Scores a list twice, with an empty and with a filled cache, and compares the last scores
    /// with the known ones.
    async fn prove(
        &self,
        server: &ServerInfo,
        list: &[Token],
        scoring: Scoring,
        known: &[f64],
    ) -> Result<Vec<f64>, Fault> {
        let scores = self.scores(server, list, scoring).await?;
        let again = self.scores(server, list, scoring).await?;
        let near = |a: &[f64], b: &[f64]| a.iter().rev().zip(b.iter().rev()).all(|(a, b)| (a - b).abs() <= TOLERANCE);
        if !near(&scores, &again) {
            return Err(Fault::Unreadable("two scores of the same tokens differ".into()));
        }
        if !near(&scores, known) {
            let (known, last) = (known.last(), scores.last());
            return Err(Fault::Unreadable(format!("the score of a token must be {known:?}, got {last:?}")));
        }
        Ok(scores)
    }

    /// Scores a list, or only its last two tokens where each takes a call.
    async fn scores(&self, server: &ServerInfo, list: &[Token], scoring: Scoring) -> Result<Vec<f64>, Fault> {
        let spans = match scoring {
            Scoring::Forced { .. } => {
                (list.len().saturating_sub(2).max(1)..list.len()).map(|from| (from, from + 1)).collect()
            }
            _ => vec![(1, list.len())],
        };
        let mut scores = Vec::new();
        for (from, end) in spans {
            let request = ScoreRequest { model: &server.model, list: &list[..end], from, top: 0, scoring };
            let scored = match self.score(server, &request).await? {
                None => self.score(server, &request.widened(server.vocab)).await?,
                scored => scored,
            };
            let scored =
                scored.and_then(|scored| scored.into_iter().map(|scored| scored.logprob).collect::<Option<_>>());
            let scored: Vec<_> = scored.ok_or_else(|| Fault::Unreadable("there is no score in it".into()))?;
            scores.extend(scored);
        }
        Ok(scores)
    }

    async fn score(&self, server: &ServerInfo, request: &ScoreRequest<'_>) -> Result<Option<Vec<Sampled>>, Fault> {
        let post = server.dialect.score(request).map_err(Fault::Unreadable)?;
        let reply = self.http.post(self.target, post.path, &post.body).await?;
        server.dialect.parse_scores(request, &reply).map_err(Fault::Unreadable)
    }
}
