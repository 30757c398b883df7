//! Tables of the vocabulary that are products of two matrices, for programs that need whole ones.

use std::borrow::Cow;

use super::{Checkpoint, Tensor};
use crate::arch::{
    self, EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, EMBEDDING_RANK, HEAD_FACTOR, HEAD_KEPT, HEAD_RANK, Head,
    KEPT_TOKENS,
};
use crate::error::Result;
use crate::format::Format;
use crate::kernels::dense::{Matrix, Output, multiply};

impl Checkpoint {
    /// Multiplies factored tables out, in new memory: F32, or BF16 or F16 if their rows are. Models
    /// without factors stay as they are.
    ///
    /// # Errors
    /// A configuration that cannot be run; factors that are missing or misshapen.
    pub fn without_factors(&self) -> Result<Cow<'_, Self>> {
        let blueprint = arch::blueprint(&self.config)?;
        if blueprint.factors == arch::Factors::default() {
            return Ok(Cow::Borrowed(self));
        }
        let head = Head::VOCABULARY.weight();
        let parts = [EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, &head, HEAD_FACTOR, HEAD_KEPT];
        let wanted = arch::tensors(&blueprint).into_iter().filter(|(name, _)| parts.contains(&&**name));
        let factored: Vec<_> = self.weights.require(&wanted.collect::<Vec<_>>())?;
        let find = |name: &str| factored.iter().find(|tensor| tensor.name == name);
        let mut tensors: Vec<Tensor> = self.weights.iter().cloned().collect();
        // The second factor of an embedding is transposed, that of a head is not.
        let tables = [(EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, true), (&head, HEAD_FACTOR, HEAD_KEPT, false)];
        for (name, of_factor, of_kept, is_transposed) in tables {
            let Some((rows, factor)) = find(name).zip(find(of_factor)) else { continue };
            let (left, right, [vocab, rank]) = (rows.to_f32(), factor.to_f32(), [rows.shape[0], rows.shape[1]]);
            let hidden = blueprint.hidden;
            let right =
                if is_transposed { Matrix::dense(&right, rank).transposed() } else { Matrix::dense(&right, hidden) };
            let mut values = vec![0.0; vocab * hidden];
            multiply(1.0, Matrix::dense(&left, rank), right, Output::set(&mut values, hidden));
            let own = find(of_kept).map(Tensor::to_f32).unwrap_or_default();
            for (token, own) in blueprint.factors.kept.iter().zip(own.chunks_exact(hidden)) {
                let row = &mut values[*token as usize * hidden..][..hidden];
                row.iter_mut().zip(own).for_each(|(value, own)| *value += own);
            }
            let is_short = matches!(rows.format, Format::BF16 | Format::F16);
            let format = if is_short { rows.format } else { Format::F32 };
            tensors.push(Tensor::new(name, format, vec![vocab, hidden], format.quantize(&values)?)?);
        }
        tensors.retain(|tensor| ![EMBEDDING_FACTOR, EMBEDDING_KEPT, HEAD_FACTOR, HEAD_KEPT].contains(&&*tensor.name));
        let mut whole = self.clone();
        whole.weights = self.weights.with_tensors(tensors);
        [EMBEDDING_RANK, HEAD_RANK, KEPT_TOKENS].iter().for_each(|key| drop(whole.config.shift_remove(*key)));
        Ok(Cow::Owned(whole))
    }
}
