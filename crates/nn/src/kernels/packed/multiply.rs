//! Products of matrices in tiles and panels of activations.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Packed, Quantized, tile};
use crate::format::blocks::{BlockFormat, GROUP};
use crate::format::{BlockVisitor, Format};
use crate::kernels::disjoint::Disjoint;
use crate::kernels::panels::{Bf16Group, F32Group, Int8Group, Panels, Quantization};
use crate::kernels::simd::{LANES, Lanes, PANELS, Prepared, TILE_BYTES, TILE_TOKENS, Tile, TileSums, Tiles, dispatch};
use crate::kernels::{Simd, WORK_PER_PIECE, Workers};

/// A matrix to multiply with, and the place of the result.
pub(crate) struct Product<'a> {
    /// `(outputs, inputs)`.
    pub(crate) weight: &'a Packed,
    /// `(outputs)`.
    pub(crate) bias: Option<&'a [f32]>,
    /// `(tokens, outputs)`.
    pub(crate) out: &'a mut [f32],
}

/// Computes `out = x * weight^T + bias` for matrices that share their input, in one loop over all
/// threads.
///
/// # Panics
/// If lengths do not fit together, or a matrix needs another quantization.
pub(crate) fn multiply(workers: &Workers<'_>, x: Quantized<'_>, products: &mut [Product<'_>]) {
    let simd = workers.simd();
    let mut tiled = Vec::with_capacity(products.len());
    let (mut tiles, mut tile_work) = (0, 1);
    for Product { weight, bias, out } in products {
        let Packed { outputs, inputs, .. } = **weight;
        let tokens = x.tokens(weight);
        assert!(out.len() == tokens * outputs, "shape of a product");
        assert!(bias.is_none_or(|bias| bias.len() == outputs), "shape of a bias");
        let out = Disjoint::new(out);
        tiled.push(TiledProduct { x, weight, bias: *bias, tokens, out, first: tiles, unit: simd.tiles });
        tiles += weight.tiles();
        tile_work = tile_work.max(tokens * inputs * LANES);
    }
    workers.share(tiles, WORK_PER_PIECE.div_ceil(tile_work), |range| {
        for product in &tiled {
            let (start, end) = (range.start.max(product.first), range.end.min(product.first + product.weight.tiles()));
            if start < end {
                run(simd, product, start - product.first..end - product.first);
            }
        }
    });
}

/// One of the products that [`multiply`] computes together.
struct TiledProduct<'a> {
    x: Quantized<'a>,
    weight: &'a Packed,
    bias: Option<&'a [f32]>,
    tokens: usize,
    out: Disjoint<'a, f32>,
    /// Number of tiles in the products before this one.
    first: usize,
    /// The unit that multiplies whole panels.
    unit: Option<Tiles>,
}

impl TiledProduct<'_> {
    /// Writes the sums of a tile's rows for one token.
    #[inline(always)]
    fn write(&self, tile: usize, token: usize, mut sums: [f32; LANES]) {
        let first = tile * LANES;
        let count = LANES.min(self.weight.outputs - first);
        if let Some(bias) = self.bias {
            for (sum, bias) in sums.iter_mut().zip(&bias[first..first + count]) {
                *sum += bias;
            }
        }
        let start = token * self.weight.outputs + first;
        // SAFETY: these are outputs of this tile's rows. A tile is given to one thread, once, and
        // no other call of this function by that thread is under way.
        #[allow(unsafe_code)]
        let out = unsafe { self.out.range(start..start + count) };
        out.copy_from_slice(&sums[..count]);
    }
}

impl Quantized<'_> {
    /// Returns the number of tokens.
    ///
    /// # Panics
    /// If `weight` needs another quantization, or rows of another length.
    fn tokens(&self, weight: &Packed) -> usize {
        let (quantization, tokens, groups) = match self {
            Self::Int8(x) => (Quantization::Int8, x.tokens(), x.per_row()),
            Self::Bf16(x) => (Quantization::Bf16, x.tokens(), x.per_row()),
            Self::F32(x) => (Quantization::F32, x.tokens(), x.per_row()),
        };
        assert_eq!(
            (quantization, groups),
            (weight.quantization(), weight.inputs.div_ceil(GROUP)),
            "activations of a product"
        );
        tokens
    }
}

/// A range of a product's tiles, to be computed with weights of a block format.
struct BlockTiles<'a> {
    simd: Simd,
    product: &'a TiledProduct<'a>,
    x: &'a Panels<Int8Group>,
    tiles: Range<usize>,
}

impl BlockVisitor for BlockTiles<'_> {
    type Out = ();

    fn visit<F: BlockFormat>(self) {
        run_blocks::<F>(self.simd, self.product, self.x, self.tiles);
    }
}

/// Computes a range of a product's tiles.
fn run(simd: Simd, product: &TiledProduct<'_>, tiles: Range<usize>) {
    match product.x {
        Quantized::Int8(x) => {
            product.weight.format.visit_block(BlockTiles { simd, product, x, tiles });
        }
        Quantized::Bf16(x) => match product.unit {
            Some(unit) => bf16_in_tiles(unit, product, x, tiles),
            None => run_bf16(simd, product, x, tiles),
        },
        Quantized::F32(x) => run_f32(simd, product, x, tiles),
    }
}

dispatch! {
    fn run_blocks[F: BlockFormat](product: &TiledProduct<'_>, x: &Panels<Int8Group>, tiles: Range<usize>) = blocks_body
}

dispatch! {
    fn run_bf16(product: &TiledProduct<'_>, x: &Panels<Bf16Group>, tiles: Range<usize>) = bf16_body
}

dispatch! {
    fn run_f32(product: &TiledProduct<'_>, x: &Panels<F32Group>, tiles: Range<usize>) = f32_body
}

#[inline(always)]
fn blocks_body<S: Lanes, F: BlockFormat>(
    simd: S,
    product: &TiledProduct<'_>,
    x: &Panels<Int8Group>,
    tiles: Range<usize>,
) {
    let unit = product.unit.filter(|_| S::TILES && product.tokens >= TILE_TOKENS);
    let unit = unit.map(|unit| unit.prepare(F::SHAPE.run));
    all_panels(simd, product, tiles, &BlockKernel { x, unit, format: PhantomData::<F> });
}

#[inline(always)]
fn bf16_body<S: Lanes>(simd: S, product: &TiledProduct<'_>, x: &Panels<Bf16Group>, tiles: Range<usize>) {
    all_panels(simd, product, tiles, &Bf16Kernel(x));
}

#[inline(always)]
fn f32_body<S: Lanes>(simd: S, product: &TiledProduct<'_>, x: &Panels<F32Group>, tiles: Range<usize>) {
    let is_f16 = product.weight.format == Format::F16;
    all_panels(simd, product, tiles, &F32Kernel { x, is_f16 });
}

/// The product of a tile and a panel of activations.
trait TileKernel {
    /// Returns the number of tokens in the panel whose first token is `token`.
    fn size(&self, token: usize) -> usize;

    /// Returns the sums of a tile's rows for `C` tokens from `token` on.
    fn sums<S: Lanes, const C: usize>(&self, simd: S, tile: &[u8], token: usize) -> [S::Floats; C];

    /// Returns [`TileKernel::sums`] for the tokens that a unit for tiles takes at once.
    #[inline(always)]
    fn sums_in_tiles<S: Lanes>(&self, _simd: S, _tile: &[u8], _token: usize) -> [S::Floats; TILE_TOKENS] {
        unreachable!("invariant: no panels are as large where there is no unit")
    }
}

struct BlockKernel<'a, F> {
    x: &'a Panels<Int8Group>,
    unit: Option<Prepared>,
    format: PhantomData<F>,
}
struct Bf16Kernel<'a>(&'a Panels<Bf16Group>);
struct F32Kernel<'a> {
    x: &'a Panels<F32Group>,
    /// Weights are of half precision rather than bfloat16.
    is_f16: bool,
}

impl<F: BlockFormat> TileKernel for BlockKernel<'_, F> {
    #[inline(always)]
    fn size(&self, token: usize) -> usize {
        self.x.size(token)
    }

    #[inline(always)]
    fn sums<S: Lanes, const C: usize>(&self, simd: S, tile: &[u8], token: usize) -> [S::Floats; C] {
        tile::blocks::<S, F, C, _>(simd, tile, self.x.panel(token), tile::ByLanes)
    }

    #[inline(always)]
    fn sums_in_tiles<S: Lanes>(&self, simd: S, tile: &[u8], token: usize) -> [S::Floats; TILE_TOKENS] {
        let Some(unit) = &self.unit else { unreachable!("invariant: panels are as large where there is a unit") };
        tile::blocks::<S, F, TILE_TOKENS, _>(simd, tile, self.x.panel(token), unit)
    }
}

impl TileKernel for Bf16Kernel<'_> {
    #[inline(always)]
    fn size(&self, token: usize) -> usize {
        self.0.size(token)
    }

    #[inline(always)]
    fn sums<S: Lanes, const C: usize>(&self, simd: S, tile: &[u8], token: usize) -> [S::Floats; C] {
        tile::bf16(simd, tile, self.0.panel(token))
    }
}

impl TileKernel for F32Kernel<'_> {
    #[inline(always)]
    fn size(&self, token: usize) -> usize {
        self.x.size(token)
    }

    #[inline(always)]
    fn sums<S: Lanes, const C: usize>(&self, simd: S, tile: &[u8], token: usize) -> [S::Floats; C] {
        let x = self.x.panel(token);
        if self.is_f16 { tile::halves(simd, tile, x, S::load_f16) } else { tile::halves(simd, tile, x, S::load_bf16) }
    }
}

/// Multiplies tiles by all panels.
#[inline(always)]
fn all_panels<S: Lanes>(simd: S, product: &TiledProduct<'_>, tiles: Range<usize>, kernel: &impl TileKernel) {
    for tile in tiles {
        let mut token = 0;
        while token < product.tokens {
            match kernel.size(token) {
                1 => some_tokens::<S, 1>(simd, product, tile, &mut token, kernel),
                2 => some_tokens::<S, 2>(simd, product, tile, &mut token, kernel),
                3 => some_tokens::<S, 3>(simd, product, tile, &mut token, kernel),
                5 if S::WIDE => some_tokens::<S, 5>(simd, product, tile, &mut token, kernel),
                6 if S::WIDE => some_tokens::<S, 6>(simd, product, tile, &mut token, kernel),
                7 if S::WIDE => some_tokens::<S, 7>(simd, product, tile, &mut token, kernel),
                8 if S::WIDE => some_tokens::<S, 8>(simd, product, tile, &mut token, kernel),
                TILE_TOKENS if S::TILES => {
                    let sums = kernel.sums_in_tiles(simd, product.weight.tile(tile), token);
                    write_all(simd, product, tile, &mut token, sums);
                }
                _ => some_tokens::<S, 4>(simd, product, tile, &mut token, kernel),
            }
        }
    }
}

/// Multiplies one tile by a panel of `C` tokens.
#[inline(always)]
fn some_tokens<S: Lanes, const C: usize>(
    simd: S,
    product: &TiledProduct<'_>,
    tile: usize,
    token: &mut usize,
    kernel: &impl TileKernel,
) {
    let sums: [S::Floats; C] = kernel.sums(simd, product.weight.tile(tile), *token);
    write_all(simd, product, tile, token, sums);
}

/// Writes the sums of a tile's rows for the next `C` tokens.
#[inline(always)]
fn write_all<S: Lanes, const C: usize>(
    simd: S,
    product: &TiledProduct<'_>,
    tile: usize,
    token: &mut usize,
    sums: [S::Floats; C],
) {
    for sums in sums {
        product.write(tile, *token, simd.to_array(sums));
        *token += 1;
    }
}

/// Computes a range of a product's tiles with a unit for products of tiles.
fn bf16_in_tiles(unit: Tiles, product: &TiledProduct<'_>, x: &Panels<Bf16Group>, tiles: Range<usize>) {
    let unit = unit.prepare(TILE_BYTES);
    for tile in tiles {
        let mut token = 0;
        while token < product.tokens {
            if product.tokens - token > (PANELS - 1) * TILE_TOKENS {
                some_panels::<PANELS>(&unit, product, x, tile, &mut token);
            } else {
                some_panels::<1>(&unit, product, x, tile, &mut token);
            }
        }
    }
}

/// Multiplies one tile by the next `P` panels.
fn some_panels<const P: usize>(
    unit: &Prepared,
    product: &TiledProduct<'_>,
    x: &Panels<Bf16Group>,
    tile: usize,
    token: &mut usize,
) {
    let rows: &[Tile] = product.weight.tile(tile).as_chunks().0.as_chunks().0;
    let panels =
        std::array::from_fn(|panel| bytemuck::must_cast_slice(x.panel::<TILE_TOKENS>(*token + panel * TILE_TOKENS)));
    let mut sums: [TileSums<f32>; P] = [[[0.0; LANES]; TILE_TOKENS]; P];
    unit.dot_bf16(rows, panels, &mut sums);
    for sums in sums.into_iter().flatten() {
        if *token < product.tokens {
            product.write(tile, *token, sums);
        }
        *token += 1;
    }
}
