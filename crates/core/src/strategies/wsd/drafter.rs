//! The draft model of an answer, which generates in chunks.

use std::time::Instant;

use futures::StreamExt as _;

use crate::chunks::Chunks;
use crate::{Answer, Call, CallKind, Generation, Guide, Profile, Result, Sampling, Seat, Session, Step, Stop, Token};

/// Tokens drafted in one call.
pub(super) struct Chunk {
    pub(super) tokens: Vec<Token>,
    /// Duration of the call, in seconds.
    pub(super) seconds: f64,
    /// The reason why the draft ends with this chunk, if it does.
    pub(super) stop: Option<Stop>,
}

/// A session of the draft model that generates in chunks.
pub(super) struct Drafter {
    pub(super) session: Box<dyn Session>,
    pub(super) sampling: Sampling,
    pub(super) guide: Option<Guide>,
    pub(super) chunks: Chunks,
    /// Number of tokens that may still be drafted.
    pub(super) remaining: usize,
    /// Number of tokens that the draft has computed.
    pub(super) computed: usize,
    /// The measured speed of the draft.
    pub(super) profile: Profile,
    /// The call in progress or just finished, not yet reported.
    pub(super) call: Option<Call>,
}

impl Drafter {
    /// Generates the next chunk. `self.call` is updated after every token, so that a cancelled call
    /// is reported with the tokens generated so far.
    pub(super) async fn draft_chunk(&mut self) -> Result<Chunk> {
        let max_tokens = self.chunks.next().min(self.remaining);
        let (sampling, guide) = (self.sampling.clone(), self.guide.clone());
        let generation = Generation { max_tokens, sampling, top_logprobs: 0, guide };
        let lacking = self.session.tokens().len() - self.computed;
        let started = Instant::now();
        let call_so_far = |tokens| Call::since(started, Seat::DRAFT, CallKind::Generate, tokens);
        let call = self.call.insert(call_so_far(0));
        let (mut tokens, mut stop) = (Vec::new(), Stop::Length);
        let mut steps = self.session.generate(&generation);
        while let Some(step) = steps.next().await {
            match step? {
                Step::Token(sampled) => tokens.push(sampled.token),
                Step::End(end) => stop = end,
            }
            *call = call_so_far(tokens.len());
        }
        drop(steps);
        self.computed = self.session.tokens().len().saturating_sub(1);
        let seconds = call.seconds;
        self.profile.record_writing(lacking, tokens.len().max(1), seconds);
        self.remaining -= tokens.len();
        let is_last = stop == Stop::End || tokens.len() < generation.max_tokens || self.remaining == 0;
        Ok(Chunk { tokens, seconds, stop: is_last.then_some(stop) })
    }

    /// Reports the last call, finished or cancelled, unless it was reported before.
    pub(super) async fn report(&mut self, answer: &mut Answer) {
        if let Some(call) = self.call.take() {
            answer.call(call).await;
        }
    }
}
