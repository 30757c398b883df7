//! Activations as the products with packed weights take them.

use super::simd::{Lanes, dispatch};
use super::{Crew, Simd};

/// What activations are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// [`Int8`].
    Int8,
    /// [`Bf16`].
    Bf16,
}

/// Inputs of a token that are rounded together.
pub(super) const GROUP: usize = 32;
/// Groups that one thread rounds at a time.
const GROUPS_PER_PIECE: usize = 128;
/// Groups in which no number is larger are taken for zero: the scale's inverse must be finite.
const SMALLEST: f32 = 1e-30;

/// Whole numbers of eight bits that share a scale, as ggml's Q8_0 has it. A group with a number that is not finite has a scale
/// that is not either.
#[derive(Clone, Copy, Debug, Default)]
pub struct Int8 {
    pub(super) values: [[u8; 4]; GROUP / 4],
    pub(super) scale: f32,
    /// Of the numbers of its first half and of its second.
    pub(super) sums: [i32; 2],
}

/// Pairs of bfloat16, to the nearest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bf16(pub(super) [[u8; 4]; GROUP / 2]);

/// Rows of rounded activations `(tokens, inputs)`. Tokens that are multiplied together make a panel, which holds the first group of
/// each, then the second of each, and so on: whoever multiplies reads straight on.
#[derive(Debug, Default)]
pub struct Panels<G> {
    groups: Vec<G>,
    per_row: usize,
}

impl Int8 {
    /// Of all numbers.
    #[inline(always)]
    pub(super) fn sum(&self) -> i32 {
        self.sums[0] + self.sums[1]
    }
}

/// Tokens of the next panel where so many are left.
#[inline(always)]
pub(super) fn panel<S: Lanes>(left: usize) -> usize {
    left.min(if S::WIDE { 8 } else { 4 })
}

impl<G: Group> Panels<G> {
    /// Round rows of `inputs` floats in place of what was there; what a row lacks to a multiple of 32 is zero.
    pub fn set(&mut self, crew: &Crew<'_>, x: &[f32], inputs: usize) {
        self.per_row = inputs.div_ceil(GROUP);
        self.groups.resize(x.len() / inputs * self.per_row, G::default());
        let simd = crew.simd();
        crew.chunks(&mut self.groups, GROUPS_PER_PIECE, 1, |piece, groups| {
            G::round(simd, x, inputs, piece * GROUPS_PER_PIECE, groups);
        });
    }

    /// Rows held.
    pub(super) fn tokens(&self) -> usize {
        self.groups.len() / self.per_row
    }

    /// Groups of a row.
    pub(super) fn per_row(&self) -> usize {
        self.per_row
    }

    /// The panel of `C` tokens that begins with one.
    #[inline(always)]
    pub(super) fn of<const C: usize>(&self, token: usize) -> &[[G; C]] {
        self.groups[token * self.per_row..][..C * self.per_row].as_chunks().0
    }
}

dispatch! {
    fn round_int8(x: &[f32], inputs: usize, first: usize, groups: &mut [Int8]) = round_body
}

dispatch! {
    fn round_bf16(x: &[f32], inputs: usize, first: usize, groups: &mut [Bf16]) = round_body
}

#[inline(always)]
fn round_body<S: Lanes>(_: S, x: &[f32], inputs: usize, first: usize, groups: &mut [impl Group]) {
    for (position, group) in (first..).zip(groups) {
        let (token, index) = place::<S>(position, x.len() / inputs, inputs.div_ceil(GROUP));
        let x = &x[token * inputs..][..inputs][index * GROUP..];
        *group = match x.first_chunk() {
            Some(whole) => Group::of(whole),
            None => {
                let mut padded = [0.0; GROUP];
                padded[..x.len()].copy_from_slice(x);
                Group::of(&padded)
            }
        };
    }
}

/// The token, and the group of its row, that lies at a position of [`Panels`].
#[inline(always)]
fn place<S: Lanes>(position: usize, tokens: usize, per_row: usize) -> (usize, usize) {
    let most = panel::<S>(tokens);
    // Panels before this one are as large as they can be.
    let first = position / (most * per_row) * most;
    let (size, within) = (panel::<S>(tokens - first), position - first * per_row);
    (first + within % size, within / size)
}

/// The activations of a group, rounded.
pub trait Group: Copy + Default + Send {
    /// All that there is to round.
    fn of(x: &[f32; GROUP]) -> Self;
    /// The groups from number `first` on, in the order of [`Panels`].
    fn round(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]);
}

impl Group for Int8 {
    #[inline(always)]
    fn of(x: &[f32; GROUP]) -> Self {
        let (mut most, mut poison) = (0.0f32, 0.0);
        for x in x {
            most = most.max(x.abs());
            poison += x * 0.0;
        }
        let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
        let (mut values, mut sums) = ([0; GROUP], [0; 2]);
        let halves = x.as_chunks::<{ GROUP / 2 }>().0.iter().zip(values.as_chunks_mut::<{ GROUP / 2 }>().0);
        for ((x, values), sum) in halves.zip(&mut sums) {
            for (value, x) in values.iter_mut().zip(x) {
                let rounded = (x * inverse).round_ties_even() as i32 as i8;
                *sum += i32::from(rounded);
                *value = rounded.cast_unsigned();
            }
        }
        Self { values: bytemuck::cast(values), scale: most / 127.0 + poison, sums }
    }

    fn round(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]) {
        round_int8(simd, x, inputs, first, groups);
    }
}

impl Group for Bf16 {
    #[inline(always)]
    fn of(x: &[f32; GROUP]) -> Self {
        let mut out = [0; GROUP];
        for (x, out) in x.iter().zip(&mut out) {
            let bits = x.to_bits();
            // A NaN stays one although it loses its low bits; between two neighbours the even one is taken.
            let nearest = if x.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
            *out = ((nearest >> 16) as u16).to_le();
        }
        Self(bytemuck::cast(out))
    }

    fn round(simd: Simd, x: &[f32], inputs: usize, first: usize, groups: &mut [Self]) {
        round_bf16(simd, x, inputs, first, groups);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::simd::Portable;
    use super::*;

    #[test]
    fn each_group_is_where_its_panel_has_it() {
        fn check<S: Lanes>(tokens: usize, per_row: usize) {
            let mut first = 0;
            while first < tokens {
                let size = panel::<S>(tokens - first);
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
    fn floats_become_the_nearest_bfloat16() {
        let mut x: Vec<f32> = (0..70_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9))).collect();
        x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-44]);
        x.extend([0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0xffff_ffff].map(f32::from_bits));
        for simd in Simd::all() {
            let mut panels = Panels::<Bf16>::default();
            panels.set(&Crew::alone(simd), &x, x.len());
            let out = panels.of::<1>(0).iter().flat_map(|[group]| bytemuck::cast_ref::<_, [[u8; 2]; GROUP]>(&group.0));
            for (x, out) in x.iter().zip(out) {
                assert_eq!(*out, bf16::from_f32(*x).to_le_bytes(), "{simd:?}: {x} {:x}", x.to_bits());
            }
        }
    }
}
