//! Activations as the products with packed weights take them.

use half::bf16;
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
    /// Sums of the numbers of a group.
    pub(super) sums: Vec<i32>,
}

impl Int8 {
    /// Round rows of `inputs` floats, a multiple of 32, in place of what was there. A group with a number that
    /// is not finite has a scale that is not either.
    pub fn set(&mut self, simd: Simd, x: &[f32]) {
        let groups = x.len() / GROUP;
        self.values.resize(x.len(), 0);
        self.scales.resize(groups, 0.0);
        self.sums.resize(groups, 0);
        let groups = self.scales.par_chunks_mut(GROUPS_PER_TASK).zip(self.sums.par_chunks_mut(GROUPS_PER_TASK));
        let values = self.values.par_chunks_mut(GROUPS_PER_TASK * GROUP);
        x.par_chunks(GROUPS_PER_TASK * GROUP).zip(values).zip(groups).for_each(|((x, values), (scales, sums))| {
            round(simd, x, values, scales, sums);
        });
    }
}

on_each_simd! {
    fn round(x: &[f32], values: &mut [u8], scales: &mut [f32], sums: &mut [i32]) = round_body
}

#[inline(always)]
fn round_body<V: Lanes>(x: &[f32], values: &mut [u8], scales: &mut [f32], sums: &mut [i32]) {
    let groups = x.as_chunks::<GROUP>().0.iter().zip(values.as_chunks_mut::<GROUP>().0);
    for ((x, values), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        let (mut most, mut poison) = (0.0f32, 0.0);
        for x in x {
            most = most.max(x.abs());
            poison += x * 0.0;
        }
        *scale = most / 127.0 + poison;
        let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
        *sum = 0;
        for (value, x) in values.iter_mut().zip(x) {
            let rounded = (x * inverse).round_ties_even() as i32 as i8;
            *sum += i32::from(rounded);
            *value = rounded.cast_unsigned();
        }
    }
}

/// Rows of activations in bfloat16, in place of what was there.
pub fn to_bf16(x: &[f32], out: &mut Vec<u8>) {
    out.clear();
    out.extend(x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
}
