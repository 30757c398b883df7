//! Tables of the vocabulary that are products of two matrices, for programs that need whole ones.

use std::borrow::Cow;

use super::{Checkpoint, Tensor, Weights};
use crate::arch::{self, EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_RANK, HEAD_FACTOR, HEAD_RANK, Head};
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
        let whole = |factor: Tensor, name: &str, is_transposed: bool| -> Result<Tensor> {
            let rank = factor.shape[usize::from(!is_transposed)];
            let rows = self.weights.require(&[(name.to_owned(), vec![blueprint.vocab, rank])])?.remove(0);
            let factor = if is_transposed { factor.to_f32() } else { factor.transposed()?.to_f32() };
            let mut values = vec![0.0; blueprint.vocab * blueprint.hidden];
            let (values_of_rows, hidden) = (rows.to_f32(), blueprint.hidden);
            let to = Output::set(&mut values, hidden);
            multiply(1.0, Matrix::dense(&values_of_rows, rank), Matrix::dense(&factor, hidden), to);
            let is_short = matches!(rows.format, Format::BF16 | Format::F16);
            let format = if is_short { rows.format } else { Format::F32 };
            Tensor::new(name, format, vec![blueprint.vocab, hidden], format.quantize(&values)?)
        };
        let mut tensors: Vec<Tensor> = self.weights.iter().cloned().collect();
        for (name, of_factor, is_transposed) in [(EMBEDDING, EMBEDDING_FACTOR, false), (&head, HEAD_FACTOR, true)] {
            if let Some(factor) = self.weights.get(of_factor).filter(|factor| factor.shape.len() == 2) {
                tensors.push(whole(factor.clone(), name, is_transposed)?);
            }
        }
        tensors.retain(|tensor| ![EMBEDDING_FACTOR, HEAD_FACTOR].contains(&&*tensor.name));
        let mut whole = self.clone();
        whole.weights = Weights::new(&*self.name, tensors);
        [EMBEDDING_RANK, HEAD_RANK].iter().for_each(|key| drop(whole.config.shift_remove(*key)));
        Ok(Cow::Owned(whole))
    }
}
