//! A matcher that follows a list of tokens as it is edited.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher as Parser;
use wsd_core::{Error, Matcher, Next, Result, Token, common_prefix};

use crate::pieces::{Pieces, refused};

/// Masks that are kept along the path, the latest ones: as many as a draft proposes, and its own.
const KEPT_MASKS: usize = 32;

/// A matcher whose parser stands behind a list of tokens. To read another list, it goes back to the
/// common prefix.
pub(crate) struct Matching {
    pieces: Arc<Pieces>,
    end_tokens: Vec<Token>,
    state: Mutex<State>,
}

struct State {
    parser: Parser,
    /// The tokens that the parser has read behind the lead.
    path: Vec<Token>,
    /// The continuations that are allowed after a number of tokens of the path.
    known: Vec<(usize, Next)>,
}

impl fmt::Debug for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matching").finish_non_exhaustive()
    }
}

impl Matching {
    /// A matcher of what follows `lead`.
    pub(crate) fn new(mut parser: Parser, pieces: Arc<Pieces>, end_tokens: Vec<Token>, lead: &[u8]) -> Result<Self> {
        parser.consume_tokens(&pieces.spell(lead)).map_err(|error| Error::Guide(error.to_string()))?;
        let state = Mutex::new(State { parser, path: Vec::new(), known: Vec::new() });
        Ok(Self { pieces, end_tokens, state })
    }

    /// Computes what may follow the parser's path.
    fn compute(&self, parser: &mut Parser) -> Result<Next> {
        let Some((mut mask, may_end)) = self.pieces.next(parser)? else { return Ok(Next::End) };
        if may_end {
            self.end_tokens.iter().for_each(|&token| mask.allow(token));
        }
        Ok(Next::Tokens(Arc::new(mask)))
    }
}

impl Matcher for Matching {
    fn next(&self, answer: &[Token]) -> Result<Next> {
        // Whatever stands behind a token that is no text follows the end of the answer.
        let text = answer.iter().position(|&token| !self.pieces.is_text(token)).unwrap_or(answer.len());
        if text < answer.len() {
            return Ok(Next::End);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { parser, path, known } = &mut *state;
        let common = common_prefix(path, answer);
        if common == answer.len()
            && let Some((_, next)) = known.iter().find(|(at, _)| *at == common)
        {
            return Ok(next.clone());
        }
        known.retain(|(at, _)| *at <= common);
        let fault = |parser: &Parser| refused(parser, "the parser stopped");
        parser.rollback(path.len() - common).map_err(|_| fault(parser))?;
        path.truncate(common);
        // A parser that has refused a token reads no other one.
        if parser.validate_tokens(&answer[common..]).map_err(|_| fault(parser))? < answer.len() - common {
            return Ok(Next::End);
        }
        parser.consume_tokens(&answer[common..]).map_err(|_| fault(parser))?;
        path.extend(&answer[common..]);
        let next = self.compute(parser)?;
        if known.len() == KEPT_MASKS {
            known.remove(0);
        }
        known.push((path.len(), next.clone()));
        Ok(next)
    }
}
