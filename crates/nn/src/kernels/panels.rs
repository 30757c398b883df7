//! Activations quantized for the products with packed weights.

use bytemuck::{Pod, Zeroable};

use super::simd::{Lanes, TILE_TOKENS, dispatch};
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
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
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
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
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
    tokens: usize,
    sizes: PanelSizes,
}

/// Sizes of panels: as many tokens as possible are in panels of the first size, as many of the rest
/// in panels of the second, and what is left is a panel of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PanelSizes {
    sizes: &'static [usize],
    /// True if what is left is padded to a panel of the last size.
    padded: bool,
}

impl PanelSizes {
    /// Returns the sizes for products by lanes, which keep a sum per token in registers.
    fn by_lanes(simd: Simd) -> Self {
        Self { sizes: if simd.is_wide() { &[8] } else { &[4] }, padded: false }
    }

    /// Returns the sizes for products of bytes. With few tokens, lanes are faster than tiles, and
    /// their sums are the same.
    fn of_bytes(simd: Simd) -> Self {
        match simd.tiles {
            None => Self::by_lanes(simd),
            Some(_) => {
                Self { sizes: if simd.is_wide() { &[TILE_TOKENS, 8] } else { &[TILE_TOKENS, 4] }, padded: false }
            }
        }
    }

    /// Returns the sizes for products of bfloat16: with tiles, all panels are whole, because the
    /// lanes' sums have another order.
    fn of_bf16(simd: Simd) -> Self {
        match simd.tiles {
            None => Self::by_lanes(simd),
            Some(_) => Self { sizes: &[TILE_TOKENS], padded: true },
        }
    }

    /// Returns the number of tokens with those that are padded.
    fn with_padding(self, tokens: usize) -> usize {
        match self {
            Self { sizes: [.., size], padded: true } => tokens.next_multiple_of(*size),
            _ => tokens,
        }
    }

    /// Returns the number of tokens in the next panel, given `left` remaining tokens.
    #[inline(always)]
    fn next(self, left: usize) -> usize {
        self.sizes.iter().copied().find(|size| *size <= left).unwrap_or(left)
    }

    /// Returns the token and the index within its row of the group at each position of [`Panels`],
    /// from `position` on.
    #[inline(always)]
    fn places(self, position: usize, tokens: usize, per_row: usize) -> impl Iterator<Item = (usize, usize)> {
        // The panel of the position: its first token and its size, which is not 0 behind all tokens.
        let (mut first, mut size) = (0, tokens.max(1));
        for most in self.sizes {
            let end = first + (tokens - first) / most * most;
            if position < end * per_row {
                size = *most;
                break;
            }
            (first, size) = (end, (tokens - end).max(1));
        }
        first += (position - first * per_row) / (size * per_row) * size;
        let within = position - first * per_row;
        let (mut token, mut index) = (within % size, within / size);
        std::iter::from_fn(move || {
            let place = (first + token, index);
            token += 1;
            if token == size {
                (token, index) = (0, index + 1);
            }
            if index == per_row {
                (first, index) = (first + size, 0);
                size = self.next(tokens - first);
            }
            Some(place)
        })
    }
}

/// Rows of floats to quantize.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    x: &'a [f32],
    inputs: usize,
    sizes: PanelSizes,
}

impl<G: Group> Panels<G> {
    /// Quantizes rows of `inputs` floats in place of the previous content. Rows are padded with
    /// zeros to a multiple of 32 inputs.
    pub(crate) fn quantize(&mut self, workers: &Workers<'_>, x: &[f32], inputs: usize) {
        let simd = workers.simd();
        (self.per_row, self.tokens, self.sizes) = (inputs.div_ceil(GROUP), x.len() / inputs, G::sizes(simd));
        self.groups.resize(self.sizes.with_padding(self.tokens) * self.per_row, G::default());
        let rows = Rows { x, inputs, sizes: self.sizes };
        workers.chunks(&mut self.groups, GROUPS_PER_PIECE, 1, |piece, groups| {
            G::quantize_all(simd, rows, piece * GROUPS_PER_PIECE, groups);
        });
    }

    /// Returns the number of rows.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the number of groups in a row.
    pub(super) fn per_row(&self) -> usize {
        self.per_row
    }

    /// Returns the number of tokens in the panel whose first token is `token`.
    #[inline(always)]
    pub(super) fn size(&self, token: usize) -> usize {
        self.sizes.next(self.tokens - token)
    }

    /// Returns the panel of `C` tokens whose first is `token`.
    #[inline(always)]
    pub(super) fn panel<const C: usize>(&self, token: usize) -> &[[G; C]] {
        self.groups[token * self.per_row..][..C * self.per_row].as_chunks().0
    }
}

/// Returns the bits of the nearest bfloat16, or of the even one of two.
#[inline(always)]
pub(super) fn nearest_bf16(x: f32) -> u16 {
    // The upper half of a float's bits is a bfloat16. Adding just less than half of its last place,
    // and one more if it is odd, carries into it exactly when the nearest value, or the even one of
    // two, is the next. A NaN would lose its low bits, and with them perhaps its nature: it gets a
    // bit that stays.
    let bits = x.to_bits();
    let nearest = if x.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
    (nearest >> 16) as u16
}

dispatch! {
    fn quantize_int8(rows: Rows<'_>, first: usize, groups: &mut [Int8Group]) = quantize_body
}

dispatch! {
    fn quantize_bf16(rows: Rows<'_>, first: usize, groups: &mut [Bf16Group]) = quantize_body
}

dispatch! {
    fn copy_f32(rows: Rows<'_>, first: usize, groups: &mut [F32Group]) = quantize_body
}

#[inline(always)]
fn quantize_body<S: Lanes>(_: S, Rows { x, inputs, sizes }: Rows<'_>, first: usize, groups: &mut [impl Group]) {
    let (tokens, per_row) = (sizes.with_padding(x.len() / inputs), inputs.div_ceil(GROUP));
    for ((token, index), group) in sizes.places(first, tokens, per_row).zip(groups) {
        let Some(x) = x.chunks_exact(inputs).nth(token) else {
            // The token is padding.
            *group = Default::default();
            continue;
        };
        let x = &x[index * GROUP..];
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

/// A group of quantized activations.
pub(crate) trait Group: Copy + Default + Send {
    /// Quantizes the inputs of one group.
    fn quantize(x: &[f32; GROUP]) -> Self;
    /// Quantizes the groups at positions from `first` on of [`Panels`].
    fn quantize_all(simd: Simd, rows: Rows<'_>, first: usize, groups: &mut [Self]);
    /// Returns the sizes of panels for products on `simd`.
    fn sizes(simd: Simd) -> PanelSizes;
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

    fn quantize_all(simd: Simd, rows: Rows<'_>, first: usize, groups: &mut [Self]) {
        quantize_int8(simd, rows, first, groups);
    }

    fn sizes(simd: Simd) -> PanelSizes {
        PanelSizes::of_bytes(simd)
    }
}

impl Group for Bf16Group {
    #[inline(always)]
    fn quantize(x: &[f32; GROUP]) -> Self {
        let mut out = [0; GROUP];
        for (x, out) in x.iter().zip(&mut out) {
            *out = nearest_bf16(*x).to_le();
        }
        Self(bytemuck::cast(out))
    }

    fn quantize_all(simd: Simd, rows: Rows<'_>, first: usize, groups: &mut [Self]) {
        quantize_bf16(simd, rows, first, groups);
    }

    fn sizes(simd: Simd) -> PanelSizes {
        PanelSizes::of_bf16(simd)
    }
}

impl Group for F32Group {
    #[inline(always)]
    fn quantize(x: &[f32; GROUP]) -> Self {
        Self(*x)
    }

    fn quantize_all(simd: Simd, rows: Rows<'_>, first: usize, groups: &mut [Self]) {
        copy_f32(simd, rows, first, groups);
    }

    fn sizes(simd: Simd) -> PanelSizes {
        PanelSizes::by_lanes(simd)
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn places_are_those_of_all_groups_of_all_panels() {
        let all = Simd::all().into_iter().flat_map(|simd| [PanelSizes::of_bytes(simd), PanelSizes::of_bf16(simd)]);
        for (sizes, (tokens, per_row)) in
            all.flat_map(|sizes| [(1, 1), (3, 5), (8, 2), (23, 3), (31, 1), (64, 4)].map(|shape| (sizes, shape)))
        {
            let (mut expected, mut first, tokens) = (Vec::new(), 0, sizes.with_padding(tokens));
            while first < tokens {
                let size = sizes.next(tokens - first);
                expected.extend((0..per_row).flat_map(|index| (first..first + size).map(move |token| (token, index))));
                first += size;
            }
            for position in 0..expected.len() {
                let rest = &expected[position..];
                assert!(sizes.places(position, tokens, per_row).take(rest.len()).eq(rest.iter().copied()), "{sizes:?}");
            }
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
        for simd in Simd::all().into_iter().filter(|simd| simd.tiles.is_none()) {
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
