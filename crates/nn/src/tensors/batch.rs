//! What a step of the decoder runs: pieces of sequences end to end, where their tokens stand and what each may look at.

use candle_core::{Device, Result, Tensor};

use crate::arch::{Blueprint, RopePlan};

/// A run of tokens and where it stands in its sequence.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Token ids, each below [`Blueprint::vocab`]; at least one.
    pub tokens: &'a [u32],
    /// Position of the first token.
    pub start: usize,
    /// The sequence is a long one: [`Blueprint::is_long`].
    pub long: bool,
}

/// Pieces of sequences end to end, with all that does not depend on weights.
pub struct Batch {
    /// Token ids, `(tokens)`.
    pub(super) ids: Tensor,
    /// Tokens of each piece.
    pub(super) lengths: Vec<usize>,
    /// Per rotary embedding of the blueprint.
    pub(super) rotations: Vec<Rotation>,
    /// Windows that occur in the model, and for each what the pieces see through it.
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
    /// The first position that any of them sees, and how many follow up to the last token's own.
    pub(super) first: usize,
    pub(super) count: usize,
    /// 0 where a token sees a position, minus infinity elsewhere: `(tokens, count)`. None where all see all.
    pub(super) mask: Option<Tensor>,
}

impl Batch {
    /// These pieces, in this order.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(plan: &Blueprint, pieces: &[Piece<'_>], device: &Device) -> Result<Self> {
        let ids: Vec<u32> = pieces.iter().flat_map(|piece| piece.tokens).copied().collect();
        let rotations = plan.ropes.iter().map(|rope| Rotation::new(rope, pieces, device));
        let mut windows: Vec<_> = plan.layers.iter().map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let views = |window: Option<usize>| {
            let view = |piece: &Piece<'_>| View::new(piece, window, device);
            Ok((window, pieces.iter().map(view).collect::<Result<_>>()?))
        };
        Ok(Self {
            ids: Tensor::new(ids, device)?,
            lengths: pieces.iter().map(|piece| piece.tokens.len()).collect(),
            rotations: rotations.collect::<Result<_>>()?,
            views: windows.into_iter().map(views).collect::<Result<_>>()?,
        })
    }

    /// Whole sequences, for scoring and training without a cache.
    ///
    /// # Errors
    /// What the device says.
    pub fn whole<'a>(plan: &Blueprint, sequences: &[&'a [u32]], device: &Device) -> Result<Self> {
        let piece = |tokens: &&'a [u32]| Piece { tokens, start: 0, long: plan.is_long(tokens.len()) };
        let pieces: Vec<_> = sequences.iter().map(piece).collect();
        Self::new(plan, &pieces, device)
    }

    /// What each piece sees through a window of the blueprint.
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
            for position in piece.start..piece.start + piece.tokens.len() {
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
        let (start, tokens) = (piece.start, piece.tokens.len());
        let first_seen = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        let first = first_seen(start);
        let count = start + tokens - first;
        let mask = (tokens > 1).then(|| {
            let mut mask = vec![f32::NEG_INFINITY; tokens * count];
            for (row, position) in mask.chunks_exact_mut(count).zip(start..) {
                row[first_seen(position) - first..=position - first].fill(0.0);
            }
            Tensor::from_vec(mask, (tokens, count), device)
        });
        Ok(Self { first, count, mask: mask.transpose()? })
    }
}
