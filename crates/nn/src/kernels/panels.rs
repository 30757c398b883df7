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

/// `1.5 * 2^23`, whose sum with a number below `2^22` has no bits for a fraction.
const ROUND: f32 = 12_582_912.0;

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
        // Bits of magnitudes are ordered as they are, and those that are not finite are the largest.
        let most = x.iter().fold(0, |most, x| most.max(x.abs().to_bits()));
        let most = f32::from_bits(most);
        let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
        // The sum of a small number and `ROUND` is rounded to a whole number in its lowest bits.
        let (mut values, mut sums) = ([0; GROUP], [0; WHOLE + 1]);
        for (value, x) in values.iter_mut().zip(x) {
            *value = (x * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i8;
        }
        for (sum, half) in sums.iter_mut().zip(values.as_chunks::<{ GROUP / 2 }>().0) {
            *sum = half.iter().map(|value| i32::from(*value)).sum();
        }
        sums[WHOLE] = sums[0] + sums[1];
        // Not a number unless all inputs are finite.
        let scale = most / 127.0 + most * 0.0;
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
    fn floats_are_rounded_to_the_nearest_step_of_their_group() {
        let mut x: Vec<f32> = (0..64 * GROUP).map(|i| (i as f32 * 0.7).sin() * 1.3f32.powi(i as i32 / 64)).collect();
        // With a scale of 1, halves are ties.
        x.extend((0..GROUP).map(|i| if i == 0 { -127.0 } else { i as f32 - 16.5 }));
        x.extend([1e-31; GROUP]);
        for simd in Simd::all() {
            let mut panels = Panels::<Int8Group>::default();
            panels.quantize(&Workers::alone(simd), &x, x.len());
            for (x, [group]) in x.as_chunks::<GROUP>().0.iter().zip(panels.panel::<1>(0)) {
                let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
                let values = x.map(|x| (x * inverse).round_ties_even() as i8);
                let sum = |part: &[i8]| part.iter().map(|value| i32::from(*value)).sum::<i32>();
                let sums = [sum(&values[..GROUP / 2]), sum(&values[GROUP / 2..]), sum(&values)];
                assert_eq!(bytemuck::cast::<_, [i8; GROUP]>(group.values), values, "{simd:?}: {x:?}");
                assert_eq!((group.scale, group.sums), (most / 127.0, sums), "{simd:?}: {x:?}");
                assert_eq!(group.scaled_sums, sums.map(|sum| most / 127.0 * sum as f32), "{simd:?}: {x:?}");
            }
        }
    }

    #[test]
    fn an_input_that_is_not_finite_makes_the_scale_of_its_group_nan() {
        for (place, input) in [(0, f32::NAN), (17, -f32::NAN), (31, f32::INFINITY), (5, f32::NEG_INFINITY)] {
            let mut x = [f32::MAX; GROUP];
            x[place] = input;
            let Int8Group { scale, scaled_sums, .. } = Int8Group::quantize(&x);
            assert!(scale.is_nan() && scaled_sums.iter().all(|sum| sum.is_nan()), "{input}");
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
