//! The tokens that a generation would choose at given positions.

use wsd_core::{Generation, Sampled, Step, Stop, Token, pick, top_tokens};

use super::Reader;
use crate::engine::list::List;
use crate::executor::{Answer, Ask};

/// Chooses a token after each position, as a generation there would.
pub(in crate::engine) struct Choices {
    pub(in crate::engine) generation: Generation,
    /// Tokens that end a text.
    pub(in crate::engine) end_tokens: Vec<Token>,
}

impl Reader for Choices {
    type Item = Step;

    fn ask(&self, _: &List, _: usize) -> Option<Ask> {
        let Generation { sampling, top_logprobs, .. } = &self.generation;
        (sampling.is_argmax() && *top_logprobs == 0).then_some(Ask::Argmax)
    }

    fn read_answer(&self, Answer { token, logprob }: Answer) -> Option<Step> {
        let is_end = self.end_tokens.contains(&token);
        let sampled = Sampled { token, logprob: Some(logprob), top: Vec::new() };
        Some(if is_end { Step::End(Stop::End) } else { Step::Token(sampled) })
    }

    fn read(&self, list: &List, position: usize, logits: &mut [f32]) -> Option<Step> {
        let top = top_tokens(logits, self.generation.top_logprobs)?;
        let mut sampled = pick(logits, &list.through(position), &self.generation.sampling)?;
        sampled.top = top;
        let is_end = self.end_tokens.contains(&sampled.token);
        Some(if is_end { Step::End(Stop::End) } else { Step::Token(sampled) })
    }
}
