//! Rotary embeddings: the order of dimensions, and tables for kernels.

use super::driver::{Buffer, Gpu};
use super::matrix::{ALTERNATE, TILE};
use crate::arch::{Blueprint, RopePlan};
use crate::error::Result;

/// The order of the dimensions of a rotary embedding.
pub(super) struct Rotation {
    /// Pairs that rotate together, and after them the pairs that do not rotate.
    pub(super) pairs: Vec<[usize; 2]>,
    /// The number of the former.
    pub(super) rotating: usize,
}

impl Rotation {
    /// The order of a rotary embedding; of none, that in which nothing rotates.
    pub(super) fn new(rope: Option<&RopePlan>, head_dim: usize) -> Self {
        let rotating = rope.map_or(0, |rope| rope.dims / 2);
        let is_interleaved = rope.is_some_and(|rope| rope.interleaved);
        let turning =
            (0..rotating).map(|pair| if is_interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + rotating] });
        let still = (rotating..head_dim / 2).map(|pair| [2 * pair, 2 * pair + 1]);
        Self { pairs: turning.chain(still).collect(), rotating }
    }

    /// The dimension of each row of a head's matrix: the two of a pair are rows `i` and `i + 8` of
    /// a tile, where one thread has both. Heads that are no whole number of tiles keep their order.
    pub(super) fn rows(&self) -> Vec<usize> {
        let dims = 2 * self.pairs.len();
        if !dims.is_multiple_of(TILE) {
            return (0..dims).collect();
        }
        let side = |pairs: &[[usize; 2]], which: usize| pairs.iter().map(|pair| pair[which]).collect::<Vec<_>>();
        self.pairs.chunks(ALTERNATE).flat_map(|pairs| [side(pairs, 0), side(pairs, 1)].concat()).collect()
    }
}

/// Tables of rotary embeddings.
pub(super) struct Rotations {
    /// `(ropes + 1, 2, head_dim / 2)`.
    pub(super) frequencies: Buffer,
    pub(super) factors: Buffer,
    /// Per rope, and last for layers without one: `(head_dim / 2, 2)` dimensions of pairs, and the
    /// row of each dimension.
    pub(super) pairs: Vec<Buffer>,
    pub(super) orders: Vec<Buffer>,
}

impl Rotations {
    pub(super) fn new(gpu: &Gpu, blueprint: &Blueprint) -> Result<Self> {
        let (half, mut frequencies, mut factors) = (blueprint.head_dim / 2, Vec::new(), Vec::new());
        let (mut pairs, mut orders) = (Vec::new(), Vec::new());
        for rope in blueprint.ropes.iter().map(Some).chain([None]) {
            let rotation = Rotation::new(rope, blueprint.head_dim);
            for long in [false, true] {
                frequencies.extend(rope.map_or(Vec::new(), |rope| rope.frequencies(long)));
                frequencies.extend(vec![-1.0; half - rotation.rotating]);
            }
            factors.push(rope.map_or(1.0, RopePlan::attention_factor));
            let numbers: Vec<i32> = rotation.pairs.concat().into_iter().map(|dim| dim as i32).collect();
            pairs.push(gpu.upload(&numbers)?);
            let mut order = vec![0i32; blueprint.head_dim];
            rotation.rows().into_iter().enumerate().for_each(|(row, dim)| order[dim] = row as i32);
            orders.push(gpu.upload(&order)?);
        }
        Ok(Self { frequencies: gpu.upload(&frequencies)?, factors: gpu.upload(&factors)?, pairs, orders })
    }

    /// The index of a layer's rotation; the last one is none.
    pub(super) fn index(&self, rope: Option<usize>) -> usize {
        rope.unwrap_or(self.pairs.len() - 1)
    }
}
