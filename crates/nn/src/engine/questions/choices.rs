//! The tokens that a generation would choose at given positions.

use wsd_core::{Generation, Step, Stop, Token, pick, top_tokens};

use super::Reader;
use crate::engine::list::List;

/// Chooses a token after each position, as a generation there would.
pub(in crate::engine) struct Choices {
    pub(in crate::engine) generation: Generation,
    /// Tokens that end a text.
    pub(in crate::engine) end_tokens: Vec<Token>,
}

impl Reader for Choices {
    type Item = Step;

    fn read(&self, list: &List, position: usize, logits: &mut [f32]) -> Option<Step> {
        let top = top_tokens(logits, self.generation.top_logprobs)?;
        let mut sampled = pick(logits, &list.through(position), &self.generation.sampling)?;
        sampled.top = top;
        let is_end = self.end_tokens.contains(&sampled.token);
        Some(if is_end { Step::End(Stop::End) } else { Step::Token(sampled) })
    }
}
