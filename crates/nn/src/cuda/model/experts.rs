//! Mixtures of experts on a GPU.

use super::super::driver::Buffer;
use super::super::matrix::{Matrix, TILE};
use super::Linear;
use super::loader::{Loader, Piece, natural};
use crate::arch::{LayerParts, StoredLinear, StoredNorm};
use crate::error::Result;

/// A mixture of experts.
pub(in crate::cuda) struct Mixture {
    pub(in crate::cuda) router: Linear,
    /// Gate and up, whose rows alternate.
    pub(in crate::cuda) gates: Stack,
    pub(in crate::cuda) down: Stack,
}

/// The same linear layer of every expert, one after another in a matrix.
pub(in crate::cuda) struct Stack {
    pub(in crate::cuda) matrix: Matrix,
    /// One value for each stored output.
    pub(in crate::cuda) bias: Option<Buffer>,
    /// Outputs of an expert.
    pub(in crate::cuda) outputs: usize,
    /// Outputs of an expert as they are stored: whole tiles.
    pub(in crate::cuda) stored: usize,
}

impl Loader<'_> {
    /// Loads the mixture of a layer whose modules are within `prefix`.
    pub(super) fn mixture(
        &self,
        prefix: &str,
        parts: &LayerParts<StoredNorm, StoredLinear>,
        router: &StoredLinear,
    ) -> Result<Mixture> {
        let router = self.linear(vec![self.piece(prefix, router, natural(router.rows.len()))?])?;
        let (mut gates, mut downs) = (Vec::new(), Vec::new());
        for expert in &parts.experts {
            let mut rows = natural(expert.down.rows.len());
            rows.resize(rows.len().next_multiple_of(TILE), None);
            downs.push(self.piece(prefix, &expert.down, rows)?);
            gates.push(self.gates(prefix, expert)?);
        }
        let width = gates[0].rows.len();
        Ok(Mixture { router, gates: self.stack(gates, width)?, down: self.stack(downs, self.blueprint.hidden)? })
    }

    /// Puts the matrices of experts, of as many rows each, into one.
    fn stack(&self, mut pieces: Vec<Piece>, outputs: usize) -> Result<Stack> {
        let stored = pieces[0].rows.len();
        let format = pieces[0].tensors[0].format;
        let mut tensors = pieces.iter_mut().flat_map(|piece| &mut piece.tensors);
        if tensors.any(|tensor| tensor.format != format) {
            for tensor in pieces.iter_mut().flat_map(|piece| &mut piece.tensors) {
                *tensor = tensor.clone().in_format(self.compute)?;
            }
        }
        let bias: Option<Vec<Vec<f32>>> = pieces.iter().map(Piece::stored_bias).collect();
        let bias = bias.map(|bias| self.gpu.upload(&bias.concat())).transpose()?;
        let mut whole = pieces.remove(0);
        pieces.into_iter().for_each(|piece| whole.append(piece));
        Ok(Stack { matrix: Matrix::new(self.gpu, &whole.tensors, &whole.rows)?, bias, outputs, stored })
    }
}
