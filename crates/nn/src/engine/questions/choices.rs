//! The tokens that a generation would choose at given positions.

use wsd_core::{Generation, Result, Sampled, Step, Stop, Token, pick_candidates};

use super::Reader;
use crate::engine::list::List;
use crate::executor::{Answer, Ask, CANDIDATES};

/// Chooses a token after each position, as a generation there would.
pub(in crate::engine) struct Choices {
    pub(in crate::engine) generation: Generation,
    /// Tokens that end a text.
    pub(in crate::engine) end_tokens: Vec<Token>,
}

impl Reader for Choices {
    type Item = Result<Step>;

    fn ask(&self, _: &List, _: usize) -> Option<Ask> {
        let Generation { sampling, top_logprobs, guide, .. } = &self.generation;
        let is_plain = *top_logprobs == 0 && guide.is_none();
        let ask = if sampling.is_argmax() {
            Some(Ask::Argmax)
        } else {
            sampling.may_read_candidates(CANDIDATES).then_some(Ask::Candidates { temperature: sampling.temperature })
        };
        ask.filter(|_| is_plain)
    }

    fn read_answer(&self, list: &List, position: usize, answer: &Answer) -> Option<Result<Step>> {
        let sampled = match &answer.candidates {
            None => Sampled { token: answer.token, logprob: Some(answer.logprob), top: Vec::new() },
            Some(found) => pick_candidates(found, list.through(position).len(), &self.generation.sampling)?,
        };
        let is_end = self.end_tokens.contains(&sampled.token);
        Some(Ok(if is_end { Step::End(Stop::End) } else { Step::Token(sampled) }))
    }

    fn read(&self, list: &List, position: usize, logits: &mut [f32]) -> Option<Result<Step>> {
        self.generation.choose(logits, &list.through(position), &self.end_tokens)
    }
}
