//! Tensors by name.

use std::collections::BTreeMap;

use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::format::Format;

/// All tensors of a checkpoint, under their Hugging Face names.
///
/// # Examples
/// ```
/// use wsd_nn::{Format, Tensor, Weights};
///
/// let bytes = Format::F32.quantize(&[1.0, 2.0, 3.0, 4.0])?;
/// let weights = Weights::new("memory", [Tensor::new("m", Format::F32, vec![2, 2], bytes)?]);
/// let found = weights.require(&[("m".into(), vec![2, 2])])?;
/// assert_eq!(found[0].to_f32(), [1.0, 2.0, 3.0, 4.0]);
/// assert!(weights.require(&[("m".into(), vec![4, 1])]).is_err());
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// The name of the file or folder, for messages.
    file: String,
    tensors: BTreeMap<String, Tensor>,
    /// The reasons why other tensors cannot be read, by name.
    unread: BTreeMap<String, String>,
}

impl Weights {
    /// Makes a set of tensors; `file` names their source in messages. A later tensor replaces an
    /// earlier one of the same name.
    pub fn new(file: impl Into<String>, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Self { file: file.into(), tensors, unread: BTreeMap::new() }
    }

    /// The same set, which explains the absence of the tensors in `unread`: names and reasons.
    pub(super) fn with_unread(self, unread: BTreeMap<String, String>) -> Self {
        Self { unread, ..self }
    }

    /// Other tensors, with the source and the unread ones of this set.
    pub(super) fn with_tensors(&self, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        Self::new(&*self.file, tensors).with_unread(self.unread.clone())
    }

    /// Makes other tensors of each.
    pub(super) fn try_flat_map(self, map: impl Fn(Tensor) -> Result<Vec<Tensor>>) -> Result<Self> {
        let tensors = self.tensors.into_values().map(map).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(self.file, tensors.into_iter().flatten()).with_unread(self.unread))
    }

    /// Returns the tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Returns all names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns all tensors, in alphabetical order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.values()
    }

    /// Returns the size of all tensors together, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.iter().map(|tensor| tensor.bytes().len()).sum()
    }

    /// Returns the number of values in all tensors together.
    pub fn parameters(&self) -> u64 {
        self.iter().map(|tensor| tensor.shape.iter().map(|&length| length as u64).product::<u64>()).sum()
    }

    /// Copies all tensors into memory of their own.
    pub(super) fn in_memory(self) -> Self {
        let tensors = self.tensors.into_values().map(Tensor::in_memory).collect::<Vec<_>>();
        Self::new(self.file, tensors).with_unread(self.unread)
    }

    /// Returns the number of matrices that cannot be written in `format`, because their rows are
    /// not a multiple of its blocks, and the number of all matrices.
    pub fn unfit_for(&self, format: Format) -> (usize, usize) {
        let matrices = || self.iter().filter(|tensor| tensor.is_matrix());
        (matrices().filter(|tensor| !tensor.fits(format)).count(), matrices().count())
    }

    /// Converts matrices as [`crate::Checkpoint::with_matrices_in`] does.
    pub(super) fn with_matrices_in(self, format: Format) -> Result<Self> {
        self.try_flat_map(|tensor| {
            let is_converted = tensor.is_matrix() && tensor.fits(format);
            Ok(vec![if is_converted { tensor.in_format(format)? } else { tensor }])
        })
    }

    /// Returns the tensor of this name.
    ///
    /// # Errors
    /// [`Error::Tensors`] if it is missing.
    pub(crate) fn take(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::Tensors { file: self.file.clone(), problems: vec![format!("`{name}` is missing")] };
        self.get(name).cloned().ok_or_else(missing)
    }

    /// The part of this set with these names and shapes.
    ///
    /// # Errors
    /// Those of [`Weights::require`].
    pub(crate) fn only(&self, wanted: &[(String, Vec<usize>)]) -> Result<Self> {
        Ok(self.with_tensors(self.require(wanted)?))
    }

    /// Returns the tensors with these names and shapes, in this order.
    ///
    /// # Errors
    /// [`Error::Tensors`] with all tensors that are missing or have another shape.
    pub fn require(&self, wanted: &[(String, Vec<usize>)]) -> Result<Vec<Tensor>> {
        let mut problems = Vec::new();
        let mut found = Vec::with_capacity(wanted.len());
        for (name, shape) in wanted {
            match self.get(name) {
                Some(tensor) if tensor.shape == *shape => found.push(tensor.clone()),
                Some(tensor) => problems.push(format!("`{name}` has shape {:?}, expected {shape:?}", tensor.shape)),
                None if self.unread.contains_key(name) => problems.push(format!("`{name}` {}", self.unread[name])),
                None => problems.push(format!("`{name}` is missing, expected with shape {shape:?}")),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(Error::Tensors { file: self.file.clone(), problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Tensor {
        let bytes = Format::F32.quantize(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        Tensor::new("m", Format::F32, vec![3, 2], bytes).unwrap()
    }

    #[test]
    fn one_error_names_every_wrong_tensor() {
        let weights = Weights::new("folder", [matrix()]);
        let wanted = [("m".into(), vec![2, 3]), ("n".into(), vec![1]), ("o".into(), vec![2])];
        let error = weights.require(&wanted).unwrap_err().to_string();
        let expected = "folder: the weights do not fit the model:\n  `m` has shape [3, 2], expected [2, 3]\n  \
                        `n` is missing, expected with shape [1]\n  `o` is missing, expected with shape [2]";
        assert_eq!(error, expected);
        assert_eq!(weights.require(&[("m".into(), vec![3, 2])]).unwrap().len(), 1);
    }

    #[test]
    fn matrices_that_cannot_be_written_are_counted() {
        let vector = Tensor::new("v", Format::F32, vec![3], vec![0; 12]).unwrap();
        let wide = Tensor::new("w", Format::F32, vec![1, 64], vec![0; 256]).unwrap();
        let weights = Weights::new("folder", [matrix(), vector, wide]);
        assert_eq!((weights.unfit_for(Format::Q8_0), weights.unfit_for(Format::F16)), ((1, 2), (0, 2)));
        assert_eq!(weights.with_matrices_in(Format::Q8_0).unwrap().unfit_for(Format::Q8_0), (1, 2));
    }
}
