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

impl State {
    /// Lets the parser stand behind `answer`. Returns false if that is outside of the language.
    fn follow(&mut self, answer: &[Token]) -> Result<bool> {
        let Self { parser, path, known } = self;
        let common = common_prefix(path, answer);
        known.retain(|(at, _)| *at <= common);
        let fault = |parser: &Parser| refused(parser, "the parser stopped");
        parser.rollback(path.len() - common).map_err(|_| fault(parser))?;
        path.truncate(common);
        // A parser that has refused a token reads no other one.
        if parser.validate_tokens(&answer[common..]).map_err(|_| fault(parser))? < answer.len() - common {
            return Ok(false);
        }
        parser.consume_tokens(&answer[common..]).map_err(|_| fault(parser))?;
        path.extend(&answer[common..]);
        Ok(true)
    }

    /// The continuations after `answer`, if they were computed.
    fn known(&self, answer: &[Token]) -> Option<&Next> {
        let (_, next) = self.known.iter().find(|(at, _)| *at == answer.len())?;
        self.path.starts_with(answer).then_some(next)
    }
}

impl Matcher for Matching {
    fn next(&self, answer: &[Token]) -> Result<Next> {
        // Whatever stands behind a token that is no text follows the end of the answer.
        if !answer.iter().all(|&token| self.pieces.is_text(token)) {
            return Ok(Next::End);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = state.known(answer) {
            return Ok(next.clone());
        }
        if !state.follow(answer)? {
            return Ok(Next::End);
        }
        let next = self.compute(&mut state.parser)?;
        if state.known.len() == KEPT_MASKS {
            state.known.remove(0);
        }
        state.known.push((answer.len(), next.clone()));
        Ok(next)
    }

    fn allows(&self, answer: &[Token], token: Token) -> Result<bool> {
        // The parser knows no end tokens, and reads nothing behind one.
        if !answer.iter().chain([&token]).all(|&token| self.pieces.is_text(token)) {
            return Ok(self.next(answer)?.allows(token));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = state.known(answer) {
            return Ok(next.allows(token));
        }
        let is_valid = |parser: &mut Parser| match parser.validate_tokens(&[token]) {
            Ok(count) => Ok(count == 1),
            Err(_) => Err(refused(parser, "the parser stopped")),
        };
        Ok(state.follow(answer)? && is_valid(&mut state.parser)?)
    }
}
