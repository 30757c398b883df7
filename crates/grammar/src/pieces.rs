//! The bytes of a vocabulary, as a trie, made once for each tokenizer.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher as Parser, ParserFactory};
use wsd_core::{Error, Mask, Result, Token, Tokenizer, token_bytes};

const NOTHING: &str = "no token of the vocabulary can follow";

/// The error of a parser, in its own words if it has any.
pub(crate) fn refused(parser: &Parser, otherwise: &str) -> Error {
    let own = parser.get_error().map(|error| error.replace("<non-verbose/>", "").trim().to_owned());
    Error::Guide(own.unwrap_or_else(|| otherwise.to_owned()))
}

/// A vocabulary prepared for matching.
pub(crate) struct Pieces {
    pub(crate) factory: ParserFactory,
    /// True for each id that stands for text.
    is_text: Vec<bool>,
}

/// A tokenizer and its pieces.
type Known = (Weak<dyn Tokenizer>, Arc<Pieces>);

impl Pieces {
    /// Returns the pieces of a tokenizer, kept as long as the tokenizer is.
    pub(crate) fn of(tokenizer: &Arc<dyn Tokenizer>) -> Result<Arc<Self>> {
        static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
        // The lock is held while pieces are made, so that requests at the same time share them.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(tokenizer, _)| tokenizer.strong_count() > 0);
        let found = known.iter().find(|(other, _)| std::ptr::addr_eq(other.as_ptr(), Arc::as_ptr(tokenizer)));
        if let Some((_, pieces)) = found {
            return Ok(pieces.clone());
        }
        let pieces = Arc::new(Self::new(tokenizer.as_ref())?);
        known.push((Arc::downgrade(tokenizer), pieces.clone()));
        Ok(pieces)
    }

    fn new(tokenizer: &dyn Tokenizer) -> Result<Self> {
        let size = tokenizer.vocabulary().pieces.len();
        let words = (0..size).map(|id| token_bytes(tokenizer, id as Token)).collect::<Result<Vec<_>>>()?;
        let is_text = words.iter().map(|word| !word.is_empty()).collect();
        // Ids behind the vocabulary: the end, because models of one vocabulary may end texts by
        // different tokens, and the bytes that no token stands for by itself, so that any text can be
        // spelled.
        let end = size as Token;
        let lacking = (0..=u8::MAX).map(|byte| vec![byte]).filter(|byte| !words.contains(byte));
        let extra: Vec<_> = std::iter::once(b"\xFF<end>".to_vec()).chain(lacking).collect();
        let words = [words, extra].concat();
        let made = wsd_core::guard(|| {
            let trie = TokTrie::from(&TokRxInfo::new(words.len() as Token, end), &words);
            let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SlicedBiasComputer::json_slices();
            ParserFactory::new(&env, InferenceCapabilities::default(), &slices).map_err(|error| error.to_string())
        });
        let fault = |message: String| Error::Guide(format!("the vocabulary cannot be matched: {message}"));
        let mut factory = made.and_then(|made| made).map_err(fault)?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory, is_text })
    }

    /// Tells whether a token stands for text.
    pub(crate) fn is_text(&self, token: Token) -> bool {
        self.is_text.get(token as usize).copied().unwrap_or(false)
    }

    /// Computes the tokens that may follow, and whether the text may end; `None` where it must.
    pub(crate) fn next(&self, parser: &mut Parser) -> Result<Option<(Mask, bool)>> {
        if parser.is_stopped() && !parser.is_error() {
            return Ok(None);
        }
        let Ok(words) = parser.compute_mask() else { return Err(refused(parser, NOTHING)) };
        let (mut mask, end) = (Mask::from_words(words.as_slice().to_vec()), self.is_text.len());
        let may_end = mask.allows(end as Token);
        (end..words.len()).for_each(|id| mask.forbid(id as Token));
        match (mask.first(), may_end) {
            (None, true) => Ok(None),
            (None, false) => Err(refused(parser, NOTHING)),
            _ => Ok(Some((mask, may_end))),
        }
    }

    /// Spells bytes as tokens.
    pub(crate) fn spell(&self, bytes: &[u8]) -> Vec<Token> {
        self.factory.tok_env().tok_trie().greedy_tokenize(bytes)
    }
}
