//! The operations that kernels are written in.

use half::f16;

/// Lanes of every sum.
pub(crate) const LANES: usize = 16;
/// Bytes of a vector that holds four inputs for each of sixteen rows.
pub(crate) const VECTOR_BYTES: usize = 4 * LANES;

/// Returns the calls of [`Lanes::dot_small`] with weights of `bits` bits whose sums fit into 16
/// bits: each adds two products of a weight and an input, whose magnitude is at most 127.
pub(crate) const fn small_dots(bits: u32) -> usize {
    let most = (1 << bits) - 1;
    i16::MAX as usize / (2 * most * 127)
}

/// Operations on sixteen lanes. A value of a type that implements it is the witness that the
/// processor has the instructions; implementations keep their constructors to themselves.
///
/// Operations that read bytes take numbers in little-endian order at any address.
pub(crate) trait Lanes: Copy {
    /// Registers suffice for the sums of four rows by four tokens.
    const WIDE: bool;
    /// A unit for products of tiles may stand beside these lanes.
    const TILES: bool;
    /// Factor of the inputs' sum that [`Lanes::dot_biased`] leaves in a result.
    const BIAS: i32;
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `i32`, one per row.
    type Ints: Copy;
    /// Sums of products of small weights: [`Lanes::Ints`], or two of 16 bits per row.
    type Small: Copy;
    /// [`VECTOR_BYTES`] bytes: four for each of sixteen rows.
    type Bytes: Copy;

    /// Returns `value` in all lanes.
    fn splat(self, value: f32) -> Self::Floats;
    /// Widens a half-precision number and returns it in all lanes.
    #[inline(always)]
    fn splat_f16(self, from: [u8; 2]) -> Self::Floats {
        self.splat(f16::from_le_bytes(from).to_f32())
    }
    /// Loads sixteen `f32`.
    fn load(self, from: &[f32; LANES]) -> Self::Floats;
    /// Loads sixteen `f32` from bytes.
    fn load_f32_bytes(self, from: &[u8; 4 * LANES]) -> Self::Floats;
    /// Loads sixteen bfloat16 and widens them.
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::Floats;
    /// Loads sixteen half-precision numbers and widens them.
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::Floats;
    /// Loads sixteen signed bytes and converts them.
    fn load_i8(self, from: &[u8; LANES]) -> Self::Floats;
    /// Loads sixteen unsigned bytes and converts them.
    fn load_u8(self, from: &[u8; LANES]) -> Self::Floats;
    /// Returns the lanes in order.
    fn to_array(self, floats: Self::Floats) -> [f32; LANES];
    /// Returns `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Returns `a * b + sum`.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;

    /// Returns the sum of all lanes: halves are added to each other until one lane is left.
    #[inline(always)]
    fn sum(self, floats: Self::Floats) -> f32 {
        let mut lanes = self.to_array(floats);
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// Returns [`Lanes::sum`] of each of four.
    #[inline(always)]
    fn sum_four(self, [a, b, c, d]: [Self::Floats; 4]) -> [f32; 4] {
        [self.sum(a), self.sum(b), self.sum(c), self.sum(d)]
    }

    /// Writes [`Lanes::sum`] of each to `sums`, which is as long.
    #[inline(always)]
    fn sums(self, floats: &[Self::Floats], sums: &mut [f32]) {
        let (fours, rest) = sums.as_chunks_mut::<4>();
        let (floats_by_four, floats_left) = floats.as_chunks::<4>();
        for (sums, floats) in fours.iter_mut().zip(floats_by_four) {
            *sums = self.sum_four(*floats);
        }
        for (sum, floats) in rest.iter_mut().zip(floats_left) {
            *sum = self.sum(*floats);
        }
    }

    /// Returns `value` in all lanes.
    fn splat_i32(self, value: i32) -> Self::Ints;
    /// Loads sixteen `i32`.
    fn load_i32(self, from: &[i32; LANES]) -> Self::Ints;
    /// Converts to floats, rounding to nearest even.
    fn to_floats(self, ints: Self::Ints) -> Self::Floats;
    /// Loads bytes, and prefetches bytes further ahead, for code that reads a tile sequentially.
    fn load_bytes(self, from: &[u8; VECTOR_BYTES]) -> Self::Bytes;
    /// Returns bytes in order.
    fn to_bytes(self, bytes: Self::Bytes) -> [u8; VECTOR_BYTES];
    /// Returns zeros.
    fn zero_bytes(self) -> Self::Bytes;
    /// Shifts each pair of bytes left by `places` bits, right if negative, then keeps the bits of
    /// `mask` in each byte.
    fn shift_and_mask(self, bytes: Self::Bytes, places: i32, mask: u8) -> Self::Bytes;
    /// Returns the bits that are set in either.
    fn or(self, bytes: Self::Bytes, others: Self::Bytes) -> Self::Bytes;
    /// Returns the entries of a table at indices below 16.
    fn look_up(self, table: &[u8; 16], indices: Self::Bytes) -> Self::Bytes;
    /// Returns the sums to add products of small weights to with [`Lanes::dot_small`].
    fn begin_small(self, sums: Self::Ints) -> Self::Small;
    /// Adds to each row's sum its four bytes times the four signed bytes of `x`, none of them -128.
    /// [`small_dots`] tells how often between [`Lanes::begin_small`] and [`Lanes::end_small`] if
    /// sums have 16 bits.
    fn dot_small(self, small: Self::Small, weights: Self::Bytes, x: [u8; 4]) -> Self::Small;
    /// Returns the sums that [`Lanes::begin_small`] was given and the products since.
    fn end_small(self, sums: Self::Ints, small: Self::Small) -> Self::Ints;
    /// Adds to each row's sum its four weights times the four signed bytes of `x`. A weight from
    /// -127 to 127 is stored as a byte, 128 larger. The result is too large by [`Lanes::BIAS`]
    /// times the sum of `x`.
    fn dot_biased(self, sums: Self::Ints, weights: Self::Bytes, x: [u8; 4]) -> Self::Ints;

    /// Adds to each row's sum its two bfloat16 times the two of `x`.
    ///
    /// # Panics
    /// If the processor has no instruction for it: [`Simd::has_bf16`](super::Simd::has_bf16).
    #[inline(always)]
    fn dot_bf16(self, _sums: Self::Floats, _weights: Self::Bytes, _x: [u8; 4]) -> Self::Floats {
        unreachable!("invariant: matrices are stored in tiles of bfloat16 only where there are instructions for it")
    }
}

/// Returns `sum(a[i] * b[i])` over 16 lanes; the tail, padded with zeros, is added last. Equal
/// lengths.
#[inline(always)]
pub(crate) fn dot<S: Lanes>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    let mut sum = simd.splat(0.0);
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        sum = simd.mul_add(simd.load(a), simd.load(b), sum);
    }
    if !a_tail.is_empty() {
        sum = simd.mul_add(simd.load(&padded(a_tail)), simd.load(&padded(b_tail)), sum);
    }
    simd.sum(sum)
}

/// Pads fewer than sixteen floats with zeros.
#[inline(always)]
pub(crate) fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut block = [0.0; LANES];
    for (to, from) in block.iter_mut().zip(tail) {
        *to = *from;
    }
    block
}
