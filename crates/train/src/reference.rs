//! What a model gave to texts before it was trained: computed once, so that no second model stays in memory.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use wsd_core::files::write_whole;

use super::Task;
use super::model::{Example, Graded, Measure, Trainee};
use super::objective::sums;
use crate::error::{Error, Result};
use wsd_nn::files::write_whole;

const FILE: &str = "reference.safetensors";

impl Task<'_> {
    /// Give each example what the log-probabilities of its texts come to under `weights`, read from the run's folder where
    /// they were computed before.
    ///
    /// # Errors
    /// What the device says, or the file system.
    pub fn refer(&mut self, trainee: &mut dyn Trainee, weights: &[f32]) -> Result<()> {
        let path = self.folder.join(FILE);
        let examples: Vec<&mut Example> = self.examples.iter_mut().chain(&mut self.evaluation).collect();
        let texts: usize = examples.iter().map(|example| example.sequences.len()).sum();
        let computed = match fs_err::read(&path) {
            Ok(bytes) => read(&path, &bytes, texts)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let examples: Vec<&Example> = examples.iter().map(|example| &**example).collect();
                let computed = compute(trainee, weights, &examples, self.steps.batch_size)?;
                write(&path, &computed)?;
                computed
            }
            Err(error) => return Err(error.into()),
        };
        let mut rest = computed.into_iter();
        for example in examples {
            example.reference = rest.by_ref().take(example.sequences.len()).collect();
        }
        Ok(())
    }
}

/// Remove what was computed in a folder whose run has not begun: its data may have changed.
///
/// # Errors
/// Those of the file system.
pub fn forget_reference(run: &Path) -> Result<()> {
    match fs_err::remove_file(run.join(FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// For each text of each example.
fn compute(trainee: &mut dyn Trainee, weights: &[f32], examples: &[&Example], batch_size: usize) -> Result<Vec<f64>> {
    let grade = |_: &Example, logprobs: &[&[f32]]| {
        let measure = |sum| Measure { name: "reference", sum, weight: 1.0 };
        Graded { measures: sums(logprobs).into_iter().map(measure).collect(), slopes: Vec::new() }
    };
    let mut computed = Vec::new();
    for batch in examples.chunks(batch_size) {
        let graded = trainee.pass(weights, batch, &grade, None)?;
        computed.extend(graded.iter().flat_map(|graded| &graded.measures).map(|measure| measure.sum));
    }
    Ok(computed)
}

fn write(path: &Path, computed: &[f64]) -> Result<()> {
    let fault = |error: safetensors::SafeTensorError| damaged(path, &error.to_string());
    let view = TensorView::new(Dtype::F64, vec![computed.len()], bytemuck::cast_slice(computed)).map_err(fault)?;
    Ok(write_whole(path, &safetensors::serialize([("logps", view)], None).map_err(fault)?)?)
}

fn read(path: &Path, bytes: &[u8], texts: usize) -> Result<Vec<f64>> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(path, &error.to_string()))?;
    let tensor = tensors.tensor("logps").map_err(|error| damaged(path, &error.to_string()))?;
    if tensor.dtype() != Dtype::F64 || tensor.shape() != [texts] {
        return Err(damaged(path, &format!("it is not that of {texts} texts: the data has changed")));
    }
    Ok(tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::malformed(path, "reference", reason)
}
