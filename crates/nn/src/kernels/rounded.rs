//! Activations as the products with packed weights take them.

use rayon::prelude::*;

use super::lanes::{Lanes, on_each_simd};
use super::{Simd, packed::GROUP};

/// What activations are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Whole numbers of eight bits with a scale to a group.
    Int8,
    /// bfloat16.
    Bf16,
}

/// Groups that one thread rounds at a time.
const GROUPS_PER_TASK: usize = 1 << 11;
/// Groups in which no number is larger are taken for zero: the scale's inverse must be finite.
const SMALLEST: f32 = 1e-30;

/// Rows of activations in whole numbers: every 32 of a row share a scale, as ggml's Q8_0 has it.
#[derive(Debug, Default)]
pub struct Int8 {
    /// The numbers, `(tokens, inputs)`.
    pub(super) values: Vec<u8>,
    /// `(tokens, inputs / GROUP)`.
    pub(super) scales: Vec<f32>,
    /// Sums of the numbers of a group, of its first half and of its second.
    pub(super) sums: Vec<[i32; 2]>,
}

impl Int8 {
    /// Round rows of `inputs` floats, a multiple of 32, in place of what was there. A group with a number that
    /// is not finite has a scale that is not either.
    pub fn set(&mut self, simd: Simd, x: &[f32]) {
        let groups = x.len() / GROUP;
        self.values.resize(x.len(), 0);
        self.scales.resize(groups, 0.0);
        self.sums.resize(groups, [0; 2]);
        let groups = self.scales.par_chunks_mut(GROUPS_PER_TASK).zip(self.sums.par_chunks_mut(GROUPS_PER_TASK));
        let values = self.values.par_chunks_mut(GROUPS_PER_TASK * GROUP);
        x.par_chunks(GROUPS_PER_TASK * GROUP).zip(values).zip(groups).for_each(|((x, values), (scales, sums))| {
            round(simd, x, values, scales, sums);
        });
    }
}

on_each_simd! {
    fn round(x: &[f32], values: &mut [u8], scales: &mut [f32], sums: &mut [[i32; 2]]) = round_body
}

#[inline(always)]
fn round_body<V: Lanes>(x: &[f32], values: &mut [u8], scales: &mut [f32], sums: &mut [[i32; 2]]) {
    let groups = x.as_chunks::<GROUP>().0.iter().zip(values.as_chunks_mut::<GROUP>().0);
    for ((x, values), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        let (mut most, mut poison) = (0.0f32, 0.0);
        for x in x {
            most = most.max(x.abs());
            poison += x * 0.0;
        }
        *scale = most / 127.0 + poison;
        let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
        let halves = x.as_chunks::<{ GROUP / 2 }>().0.iter().zip(values.as_chunks_mut::<{ GROUP / 2 }>().0);
        for ((x, values), sum) in halves.zip(sum) {
            *sum = 0;
            for (value, x) in values.iter_mut().zip(x) {
                let rounded = (x * inverse).round_ties_even() as i32 as i8;
                *sum += i32::from(rounded);
                *value = rounded.cast_unsigned();
            }
        }
    }
}

/// Rows of activations in bfloat16, to the nearest, in place of what was there.
pub fn to_bf16(simd: Simd, x: &[f32], out: &mut Vec<u8>) {
    const FLOATS: usize = GROUPS_PER_TASK * GROUP;
    out.resize(2 * x.len(), 0);
    x.par_chunks(FLOATS).zip(out.par_chunks_mut(2 * FLOATS)).for_each(|(x, out)| narrow(simd, x, out));
}

on_each_simd! {
    fn narrow(x: &[f32], out: &mut [u8]) = narrow_body
}

#[inline(always)]
fn narrow_body<V: Lanes>(x: &[f32], out: &mut [u8]) {
    for (x, out) in x.iter().zip(out.as_chunks_mut::<2>().0) {
        let bits = x.to_bits();
        // A NaN stays one although it loses its low bits; between two neighbours the even one is taken.
        let nearest = if x.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
        *out = ((nearest >> 16) as u16).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn floats_become_the_nearest_bfloat16() {
        let mut x: Vec<f32> = (0..70_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9))).collect();
        x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-44]);
        x.extend([0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0xffff_ffff].map(f32::from_bits));
        for simd in Simd::all() {
            let mut out = vec![7];
            to_bf16(simd, &x, &mut out);
            for (x, out) in x.iter().zip(out.as_chunks::<2>().0) {
                assert_eq!(*out, bf16::from_f32(*x).to_le_bytes(), "{simd:?}: {x} {:x}", x.to_bits());
            }
        }
    }
}
