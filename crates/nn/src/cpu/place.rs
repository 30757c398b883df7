//! The places of a step's tokens: their sequences, positions, and the positions that they see.

use crate::executor::Span;

/// The place of a token.
pub(super) struct Place {
    pub(super) span: usize,
    /// Its rotary position: the number of tokens before it on its path.
    pub(super) position: usize,
    pub(super) visibility: Visibility,
}

/// The cached positions that a token sees, before a window narrows them.
pub(super) enum Visibility {
    /// All positions through its own, which are contiguous.
    Prefix,
    /// The positions before its span, and these: its ancestors in a tree and itself.
    Ancestors(Vec<usize>),
}

/// Computes the places of a span's tokens.
pub(super) fn places(index: usize, span: &Span<'_>) -> Vec<Place> {
    let place = |(token, position)| {
        // A token whose ancestors are all tokens before it sees contiguous positions, also in a tree.
        let visibility = if position == span.start + token {
            Visibility::Prefix
        } else {
            Visibility::Ancestors(span.ancestors(token).into_iter().map(|token| span.start + token).collect())
        };
        Place { span: index, position, visibility }
    };
    span.positions().into_iter().enumerate().map(place).collect()
}
