//! Compiled grammars, kept for later requests with the same text.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher as Parser, TokenParser};
use wsd_core::{Error, Grammar, Matcher, Result, TextCodec, Token};

use crate::Form;
use crate::matching::Matching;
use crate::pieces::Pieces;

/// The most grammars that are kept.
const MAX_KEPT: usize = 64;
/// The most bytes of their texts.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// Returns a grammar; one with the same text as an earlier one is that one, with what was compiled
/// for it. Errors name the grammar `name`.
///
/// # Errors
/// [`Error::Setting`] for a grammar above the limits.
pub fn grammar(name: &'static str, form: &Form) -> Result<Arc<dyn Grammar>> {
    static KEPT: Mutex<VecDeque<Arc<Compiled>>> = Mutex::new(VecDeque::new());
    let text = form.to_lark(name)?;
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let known = kept.iter().position(|grammar| grammar.text == text && grammar.name == name);
    let grammar = known.and_then(|index| kept.remove(index)).unwrap_or_else(|| {
        let is_schema = matches!(form, Form::Schema(_) | Form::Calls(_));
        Arc::new(Compiled { name, text, is_schema, parsers: Mutex::default() })
    });
    // The latest stand at the end.
    kept.push_back(grammar.clone());
    while kept.len() > MAX_KEPT || kept.iter().map(|grammar| grammar.text.len()).sum::<usize>() > MAX_KEPT_BYTES {
        kept.pop_front();
    }
    Ok(grammar)
}

/// A grammar, with a parser at its start for each vocabulary it was used with.
struct Compiled {
    name: &'static str,
    /// The grammar in Lark's syntax.
    text: String,
    is_schema: bool,
    parsers: Mutex<Vec<(Weak<Pieces>, Parser)>>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("name", &self.name).field("text", &self.text).finish_non_exhaustive()
    }
}

impl Compiled {
    /// Returns a parser at the start of the grammar. Parsers of one grammar and vocabulary share the
    /// states of their lexer, so that later requests find them computed.
    fn parser(&self, pieces: &Arc<Pieces>) -> Result<Parser> {
        let mut parsers = self.parsers.lock().unwrap_or_else(PoisonError::into_inner);
        // A parser that failed has reached a limit, and so would those that share its states.
        parsers.retain(|(pieces, parser)| pieces.strong_count() > 0 && !parser.is_error());
        let known = parsers.iter().find(|(other, _)| std::ptr::addr_eq(other.as_ptr(), Arc::as_ptr(pieces)));
        if let Some((_, parser)) = known {
            return Ok(parser.clone());
        }
        let made = wsd_core::guard(|| {
            let parser = pieces.factory.create_parser(TopLevelGrammar::from_lark(self.text.clone()))?;
            let mut parser = Parser::new(Ok::<TokenParser, _>(parser));
            // A language without a text is found at its start.
            let is_empty = !parser.is_accepting()? && pieces.next(&mut parser).is_err();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((parser, is_empty))
        });
        let refused = |reason: &str| Error::Setting {
            name: self.name,
            limit: if self.is_schema {
                "a JSON schema that answers can meet"
            } else {
                "a grammar that answers can meet"
            }
            .into(),
            value: format!("one that cannot be used: {}", shown(reason)),
        };
        let (parser, is_empty) = made.map_err(|panic| refused(&panic))?.map_err(|error| refused(&error.to_string()))?;
        if is_empty {
            return Err(refused("no answer in this vocabulary can begin"));
        }
        parsers.push((Arc::downgrade(pieces), parser.clone()));
        Ok(parser)
    }
}

/// Characters of a reason that are shown.
const SHOWN: usize = 300;

/// Returns the beginning of a reason, which may quote the whole grammar.
fn shown(reason: &str) -> String {
    let reason = reason.trim();
    match reason.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &reason[..end]),
        None => reason.to_owned(),
    }
}

impl Grammar for Compiled {
    fn matcher(&self, codec: &TextCodec, end_tokens: &[Token], lead: &[u8]) -> Result<Arc<dyn Matcher>> {
        let pieces = Pieces::of(codec.tokenizer())?;
        let parser = self.parser(&pieces)?;
        Ok(Arc::new(Matching::new(parser, pieces, end_tokens.to_vec(), lead)?))
    }
}
