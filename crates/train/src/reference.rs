//! Sums of log-probabilities under the reference model, which is the model at the start of a run, for
//! objectives that need them. They are computed once and kept in a file, so that no second model
//! stays in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::checksum;
use crate::error::{Error, Result};
use crate::example::Example;
use crate::objectives::Needs;
use crate::task::Task;
use crate::trainer::Trainer;

/// Name of the file in a run's folder.
const FILE: &str = "reference.safetensors";
/// The most parts that the sums are computed in.
const PARTS: usize = 100;
/// The least time between two reports of progress.
const PAUSE: Duration = Duration::from_secs(5);

/// Sets [`Example::reference`] for all objectives that need it: from the file in the run's folder,
/// or else by computing it with `trainer`, which then must not have made a step. Calls `note` with the
/// progress in words.
///
/// # Errors
/// Those of the file system; a file for other data.
pub(crate) fn fill(task: &mut Task<'_>, trainer: &mut Trainer, note: &mut dyn FnMut(&str)) -> Result<()> {
    let terms = task.terms.iter_mut().filter(|term| term.objective.needs == Needs::TargetsAndReference);
    let examples = terms.flat_map(|term| term.examples.iter_mut().chain(&mut term.evaluation));
    let examples: Vec<&mut Example> = examples.collect();
    if examples.is_empty() {
        return Ok(());
    }
    let path = task.folder.join(FILE);
    let with_baselines: Vec<&Example> =
        examples.iter().flat_map(|example| std::iter::once(&**example).chain(example.baseline.as_deref())).collect();
    let sequences: usize = with_baselines.iter().map(|example| example.sequences.len()).sum();
    let all = if path.exists() {
        read(&path, &checksum::read(&path)?, sequences)?
    } else {
        let all = compute(&with_baselines, trainer, task.steps.batch_size, note)?;
        write(&path, &all)?;
        all
    };
    let mut all = all.into_iter();
    for example in examples {
        example.reference = all.by_ref().take(example.sequences.len()).collect();
        if let Some(baseline) = &mut example.baseline {
            baseline.reference = all.by_ref().take(baseline.sequences.len()).collect();
        }
    }
    Ok(())
}

/// Computes the sums in parts, and tells the progress once in a while.
fn compute(
    examples: &[&Example],
    trainer: &mut Trainer,
    batch_size: usize,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<f64>> {
    let all = examples.len();
    note(&format!("log-probabilities of {all} examples under the reference model, once for the run"));
    let part = all.div_ceil(PARTS).next_multiple_of(batch_size.max(1));
    let (mut sums, mut done, mut told) = (Vec::new(), 0, Instant::now());
    for examples in examples.chunks(part) {
        sums.extend(trainer.sums(examples, batch_size)?);
        done += examples.len();
        if told.elapsed() >= PAUSE && done < all {
            note(&format!("reference model: {done} of {all} examples"));
            told = Instant::now();
        }
    }
    Ok(sums)
}

/// Removes the file of reference sums from the folder of a run that has made no step, because its
/// data may have changed since the file was written.
///
/// # Errors
/// Those of the file system.
pub fn remove_reference(run: &Path) -> Result<()> {
    let path = run.join(FILE);
    for path in [&path, &checksum::path_of_sum(&path)] {
        match fs_err::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn write(path: &Path, sums: &[f64]) -> Result<()> {
    let fault = |error: safetensors::SafeTensorError| malformed(path, &error.to_string());
    let view = TensorView::new(Dtype::F64, vec![sums.len()], bytemuck::cast_slice(sums)).map_err(fault)?;
    checksum::write(path, &safetensors::serialize([("logps", view)], None).map_err(fault)?)
}

fn read(path: &Path, bytes: &[u8], sequences: usize) -> Result<Vec<f64>> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| malformed(path, &error.to_string()))?;
    let tensor = tensors.tensor("logps").map_err(|error| malformed(path, &error.to_string()))?;
    if tensor.dtype() != Dtype::F64 || tensor.shape() != [sequences] {
        return Err(malformed(path, &format!("it is not for {sequences} sequences: the data has changed")));
    }
    Ok(tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

fn malformed(path: &Path, reason: &str) -> Error {
    Error::malformed(path, "reference", reason)
}
