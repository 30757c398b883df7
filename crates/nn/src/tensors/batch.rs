//! The input of a step of the decoder: pieces of sequences end to end, with their positions and
//! visibilities.

use candle_core::{Device, Result, Tensor};

use crate::arch::{Blueprint, RopePlan};
use crate::executor::Span;

/// Consecutive tokens of a sequence, or a tree of its continuations.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Token ids, each below [`Blueprint::vocab`]; at least one.
    pub tokens: &'a [u32],
    /// Position of the first token.
    pub start: usize,
    /// The sequence is a long one: [`Blueprint::is_long`].
    pub long: bool,
    /// Parents of the tokens in a tree; see [`Span::parents`].
    pub parents: Option<&'a [u32]>,
}

impl Piece<'_> {
    fn span(&self) -> Span<'_> {
        Span { parents: self.parents, ..Span::chain(0, self.start, self.tokens) }
    }
}

/// Pieces of sequences end to end, with all that does not depend on weights.
pub struct Batch {
    /// Token ids, `(tokens)`.
    pub(super) ids: Tensor,
    /// Positions of the tokens, `(tokens)`.
    pub(super) positions: Tensor,
    /// Tokens of each piece.
    pub(super) lengths: Vec<usize>,
    /// The angles for each rotary embedding of the blueprint.
    pub(super) rotations: Vec<Rotation>,
    /// Windows that occur in the model, and for each the view of every piece through it.
    views: Vec<(Option<usize>, Vec<View>)>,
}

/// Cosines and sines of the angles by which tokens are rotated, `(tokens, 1, dims / 2)` each.
pub(super) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    pub(super) interleaved: bool,
}

/// The positions that the tokens of a piece see.
pub(super) struct View {
    /// The first position that any of them sees.
    pub(super) first: usize,
    /// The number of positions from there through the last token's own.
    pub(super) count: usize,
    /// 0 where a token sees a position, minus infinity elsewhere: `(tokens, count)`. `None` if
    /// every token sees every position.
    pub(super) mask: Option<Tensor>,
}

impl Batch {
    /// Joins pieces in this order.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(blueprint: &Blueprint, pieces: &[Piece<'_>], device: &Device) -> Result<Self> {
        let ids: Vec<u32> = pieces.iter().flat_map(|piece| piece.tokens).copied().collect();
        let positions = pieces.iter().flat_map(|piece| piece.span().positions());
        let positions: Vec<u32> = positions.map(|position| position as u32).collect();
        let rotations = blueprint.ropes.iter().map(|rope| Rotation::new(rope, pieces, device));
        let mut windows: Vec<_> = blueprint.layers.iter().map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let views = |window: Option<usize>| {
            let view = |piece: &Piece<'_>| View::new(piece, window, device);
            Ok((window, pieces.iter().map(view).collect::<Result<_>>()?))
        };
        Ok(Self {
            ids: Tensor::new(ids, device)?,
            positions: Tensor::new(positions, device)?,
            lengths: pieces.iter().map(|piece| piece.tokens.len()).collect(),
            rotations: rotations.collect::<Result<_>>()?,
            views: windows.into_iter().map(views).collect::<Result<_>>()?,
        })
    }

    /// Joins whole sequences, for scoring and training without a cache.
    ///
    /// # Errors
    /// Those of the device.
    pub fn whole<'a>(blueprint: &Blueprint, sequences: &[&'a [u32]], device: &Device) -> Result<Self> {
        let piece =
            |tokens: &&'a [u32]| Piece { tokens, start: 0, long: blueprint.is_long(tokens.len()), parents: None };
        let pieces: Vec<_> = sequences.iter().map(piece).collect();
        Self::new(blueprint, &pieces, device)
    }

    /// Returns the view of each piece through a window of the blueprint.
    pub(super) fn views(&self, window: Option<usize>) -> &[View] {
        self.views.iter().find(|(other, _)| *other == window).map_or(&[], |(_, views)| views)
    }
}

impl Rotation {
    fn new(rope: &RopePlan, pieces: &[Piece<'_>], device: &Device) -> Result<Self> {
        let frequencies = [false, true].map(|long| rope.frequencies(long));
        let factor = rope.attention_factor();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for piece in pieces {
            for position in piece.span().positions() {
                for frequency in &frequencies[usize::from(piece.long)] {
                    // The product in single precision, as the reference implementations have it.
                    let angle = f64::from(position as f32 * frequency);
                    cos.push(angle.cos() as f32 * factor);
                    sin.push(angle.sin() as f32 * factor);
                }
            }
        }
        let pairs = rope.dims / 2;
        let table = |values: Vec<f32>| Tensor::from_vec(values, ((), 1, pairs), device);
        Ok(Self { cos: table(cos)?, sin: table(sin)?, interleaved: rope.interleaved })
    }
}

impl View {
    fn new(piece: &Piece<'_>, window: Option<usize>, device: &Device) -> Result<Self> {
        let (start, tokens, span) = (piece.start, piece.tokens.len(), piece.span());
        let first_seen = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        let first = first_seen(start);
        let count = start + tokens - first;
        let mask = (tokens > 1).then(|| {
            let mut mask = vec![f32::NEG_INFINITY; tokens * count];
            for (token, position) in span.positions().into_iter().enumerate() {
                let row = &mut mask[token * count..][..count];
                let seen = first_seen(position);
                row[seen.min(start) - first..start - first].fill(0.0);
                // The window keeps the last ancestors.
                let ancestors = span.ancestors(token);
                let beyond = seen.saturating_sub(start).min(ancestors.len());
                ancestors[beyond..].iter().for_each(|token| row[start + token - first] = 0.0);
            }
            Tensor::from_vec(mask, (tokens, count), device)
        });
        Ok(Self { first, count, mask: mask.transpose()? })
    }
}
