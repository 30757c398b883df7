//! Activations quantized for the products with packed weights.

use super::simd::{Lanes, dispatch};
use super::{Simd, Workers};
use crate::format::blocks::GROUP;

/// Number format that activations are quantized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantization {
    /// [`Int8Group`].
    Int8,
    /// [`Bf16Group`].
    Bf16,
    /// [`F32Group`].
    F32,
}

impl Quantization {
    /// Returns true if rows of `inputs` can be multiplied.
    pub(super) fn fits(self, inputs: usize) -> bool {
        inputs > 0 && (self != Self::Bf16 || inputs.is_multiple_of(4))
    }
}

/// Groups that one thread quantizes at a time.
const GROUPS_PER_PIECE: usize = 128;
/// Largest magnitude of a group that is quantized to zeros: the inverse of its scale would not be
/// finite.
const SMALLEST: f32 = 1e-30;

/// Index of the sum of a whole group among the sums of an [`Int8Group`].
pub(super) const WHOLE: usize = 2;

/// A group of signed bytes with one scale, as in ggml's Q8_0. If an input is not finite, neither is
/// the scale.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Int8Group {
    /// Four inputs each.
    pub(super) values: [[u8; 4]; GROUP / 4],
    pub(super) scale: f32,
    /// Sums of the values in each half of the group, and in all of it.
    pub(super) sums: [i32; WHOLE + 1],
    /// The sums times the scale.
    pub(super) scaled_sums: [f32; WHOLE + 1],
}

/// A group of bfloat16, rounded to nearest even; two inputs each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bf16Group(pub(super) [[u8; 4]; GROUP / 2]);

/// A group of floats, as they were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct F32Group(pub(super) [f32; GROUP]);

/// Quantized activations `(tokens, inputs)` in panels.
///
/// A panel holds the tokens that are multiplied together: the first group of each, then the second
/// of each, and so on. A product reads it from front to back.
#[derive(Debug, Default)]
pub(crate) struct Panels<G> {
    groups: Vec<G>,
    per_row: usize,
}

/// Returns the number of tokens in the next panel, given `left` remaining tokens.
#[inline(always)]
pub(super) fn panel_tokens<S: Lanes>(left: usize) -> usize {
    left.min(if S::WIDE { 8 } else { 4 })
}

impl<G: Group> Panels<G> {
    /// Quantizes rows of `inputs` floats in place of the previous content. Rows are padded with
    /// zeros to a multiple of 32 inputs.
    pub(crate) fn quantize(&mut self, workers: &Workers<'_>, x: &[f32], inputs: usize) {
        self.per_row = inputs.div_ceil(GROUP);
        self.groups.resize(x.len() / inputs * self.per_row, G::default());
        let simd = workers.simd();
        workers.chunks(&mut self.groups, GROUPS_PER_PIECE, 1, |piece, groups| {
            G::quantize_all(simd, x, inputs, piece * GROUPS_PER_PIECE, groups);
        });
    }

    /// Returns the number of rows.
    pub(super) fn tokens(&self) -> usize {
        self.groups.len() / self.per_row
    }

    /// Returns the number of groups in a row.
    pub(super) fn per_row(&self) -> usize {
        self.per_row
    }

    /// Returns the panel of `C` tokens whose first is `token`.
    #[inline(always)]
    pub(super) fn panel<const C: usize>(&self, token: usize) -> &[[G; C]] {
        self.groups[token * self.per_row..][..C * self.per_row].as_chunks().0
    }
}

dispatch! {
    fn quantize_int8(x: &[f32], inputs: usize, first: usize, groups: &mut [Int8Group]) = quantize_body
}

dispatch! {
    fn quantize_bf16(x: &[f32], inputs: usize, first: usize, groups: &mut [Bf16Group]) = quantize_body
}

dispatch! {
    fn copy_f32(x: &[f32], inputs: usize, first: usize, groups: &mut [F32Group]) = quantize_body
}

#[inline(always)]
fn quantize_body<S: Lanes>(_: S, x: &[f32], inputs: usize, first: usize, groups: &mut [impl Group]) {
    for (position, group) in (first..).zip(groups) {
        let (token, index) = place::<S>(position, x.len() / inputs, inputs.div_ceil(GROUP));
        let x = &x[token * inputs..][..inputs][index * GROUP..];
        *group = match x.first_chunk() {
            Some(whole) => Group::quantize(whole),
            None => {
                let mut padded = [0.0; GROUP];
                padded[..x.len()].copy_from_slice(x);
                Group::quantize(&padded)
            }
        };
    }
}

/// Returns the token and the index within its row of the group at a position of [`Panels`].
#[inline(always)]
fn place<S: Lanes>(position: usize, tokens: usize, per_row: usize) -> (usize, usize) {
    let most = panel_tokens::<S>(tokens);
    // All panels before this one are of the largest size.
    let first = position / (most * per_row) * most;
    let (size, within) = (panel_tokens::<S>(tokens - first), position - first * per_row);
    (first + within % size, within / size)
}

/// A group of quantized activations.
pub(crate) trait Group: Copy + Default + Send {
    /// Quantizes the inputs of one group.
    fn quantize(x: &[f32; GROUP]) -> Self;
    /// Quantizes the groups at positions from `first` on of [`Panels`], of rows of `inputs` floats.
    fn quantize_all(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]);
}

impl Group for Int8Group {
    #[inline(always)]
    fn quantize(x: &[f32; GROUP]) -> Self {
        // The comparison in `max` drops NaN. `poison` is 0 for finite inputs and NaN otherwise, and
        // makes the scale NaN.
        let (mut most, mut poison) = (0.0f32, 0.0);
        for x in x {
            most = most.max(x.abs());
            poison += x * 0.0;
        }
        let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
        let (mut values, mut sums) = ([0; GROUP], [0; WHOLE + 1]);
        let halves = x.as_chunks::<{ GROUP / 2 }>().0.iter().zip(values.as_chunks_mut::<{ GROUP / 2 }>().0);
        for ((x, values), sum) in halves.zip(&mut sums) {
            for (value, x) in values.iter_mut().zip(x) {
                let rounded = (x * inverse).round_ties_even() as i32 as i8;
                *sum += i32::from(rounded);
                *value = rounded.cast_unsigned();
            }
        }
        let scale = most / 127.0 + poison;
        sums[WHOLE] = sums[0] + sums[1];
        Self { values: bytemuck::cast(values), scale, sums, scaled_sums: sums.map(|sum| scale * sum as f32) }
    }

    fn quantize_all(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]) {
        quantize_int8(simd, x, inputs, first, groups);
    }
}

impl Group for Bf16Group {
    #[inline(always)]
    fn quantize(x: &[f32; GROUP]) -> Self {
        let mut out = [0; GROUP];
        for (x, out) in x.iter().zip(&mut out) {
            // The upper half of a float's bits is a bfloat16. Adding just less than half of its
            // last place, and one more if it is odd, carries into it exactly when the nearest
            // value, or the even one of two, is the next. A NaN would lose its low bits, and with
            // them perhaps its nature: it gets a bit that stays.
            let bits = x.to_bits();
            let nearest = if x.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
            *out = ((nearest >> 16) as u16).to_le();
        }
        Self(bytemuck::cast(out))
    }

    fn quantize_all(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]) {
        quantize_bf16(simd, x, inputs, first, groups);
    }
}

impl Group for F32Group {
    #[inline(always)]
    fn quantize(x: &[f32; GROUP]) -> Self {
        Self(*x)
    }

    fn quantize_all(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]) {
        copy_f32(simd, x, inputs, first, groups);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::simd::Portable;
    use super::*;

    #[test]
    fn place_finds_every_group_of_every_panel() {
        fn check<S: Lanes>(tokens: usize, per_row: usize) {
            let mut first = 0;
            while first < tokens {
                let size = panel_tokens::<S>(tokens - first);
                for (token, group) in (0..size).flat_map(|token| (0..per_row).map(move |group| (token, group))) {
                    let position = first * per_row + group * size + token;
                    assert_eq!(place::<S>(position, tokens, per_row), (first + token, group));
                }
                first += size;
            }
            assert_eq!(first, tokens);
        }
        for (tokens, per_row) in [(1, 1), (3, 5), (8, 2), (23, 3), (31, 1), (64, 4)] {
            check::<Portable>(tokens, per_row);
            #[cfg(target_arch = "x86_64")]
            check::<super::super::simd::Avx512<true>>(tokens, per_row);
        }
    }

    #[test]
    fn floats_are_rounded_to_the_nearest_bfloat16() {
        let mut x: Vec<f32> = (0..70_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9))).collect();
        x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-44]);
        x.extend([0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0xffff_ffff].map(f32::from_bits));
        for simd in Simd::all() {
            let mut panels = Panels::<Bf16Group>::default();
            panels.quantize(&Workers::alone(simd), &x, x.len());
            let out =
                panels.panel::<1>(0).iter().flat_map(|[group]| bytemuck::cast_ref::<_, [[u8; 2]; GROUP]>(&group.0));
            for (x, out) in x.iter().zip(out) {
                assert_eq!(*out, bf16::from_f32(*x).to_le_bytes(), "{simd:?}: {x} {:x}", x.to_bits());
            }
        }
    }
}
