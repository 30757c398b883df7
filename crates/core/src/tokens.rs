//! Token ids, the items that a generation yields, and lists of ids.

/// A token id in the vocabulary of a model.
pub type Token = u32;

/// The upper limit of every setting that counts tokens.
pub const MAX_TOKENS_LIMIT: u64 = 1 << 20;

/// A token that was sampled, or given and scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token, in the engine's vocabulary.
    pub token: Token,
    /// Its natural log-probability under the plain softmax, independent of the sampling settings.
    /// `None` if an engine does not report it for a token it sampled; always present for a scored
    /// token.
    pub logprob: Option<f64>,
    /// The most likely tokens at its position with their natural log-probabilities, most likely
    /// first; as many as were requested.
    pub top: Vec<(Token, f64)>,
}

/// The reason why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// An end-of-text token was sampled. It is neither yielded nor kept.
    End,
    /// The token limit was reached, or the context is full.
    Length,
}

/// An item of a generation's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The next token, already at the end of the session's list.
    Token(Sampled),
    /// The last item of every stream.
    End(Stop),
}

/// Returns the length of the longest common prefix of two lists.
///
/// ```
/// assert_eq!(wsd_core::common_prefix(&[5, 6, 7], &[5, 6, 9, 7]), 2);
/// assert_eq!(wsd_core::common_prefix(&[5], &[]), 0);
/// ```
#[must_use]
pub fn common_prefix<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
