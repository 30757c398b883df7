//! The progress of a run, on disk as `checkpoint-<step>` folders.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use wsd_core::files::write_folder;

use crate::checksum;
use crate::error::{Error, Result};
use crate::optimizers::Optimizer;

const FILE: &str = "state.safetensors";
const PREFIX: &str = "checkpoint-";
/// The tensor that holds the parameters, beside those of the optimizer's state.
const PARAMETERS: &str = "weights";
/// The name of the tensor of [`State::average`].
const AVERAGE: &str = "average";
/// The key of the file's metadata that holds [`Progress`].
const PROGRESS: &str = "progress";

/// Everything that a run needs to resume, besides its settings.
pub struct State {
    /// The number of steps done.
    pub step: usize,
    /// The parameters.
    pub parameters: Vec<f32>,
    /// The parameters of a teacher that follows the model; empty without one.
    pub average: Vec<f32>,
    /// The optimizer and its state.
    pub optimizer: Box<dyn Optimizer>,
    /// The evaluations so far.
    pub stopping: EarlyStopping,
}

/// The part of a [`State`] that is not a tensor.
#[derive(Serialize, Deserialize)]
struct Progress {
    step: usize,
    stopping: EarlyStopping,
}

/// Watches the loss on the evaluation set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// The lowest loss; in single precision, which JSON reproduces to the bit.
    pub best: Option<f32>,
    /// The number of evaluations since then.
    pub since: usize,
}

impl EarlyStopping {
    /// Takes in a loss. Returns true after `patience` evaluations without a lower one; never for 0.
    ///
    /// ```
    /// let mut stopping = wsd_train::EarlyStopping::default();
    /// assert_eq!([2.0, 1.0, 1.5, 1.2].map(|loss| stopping.observe(loss, 2)), [false, false, false, true]);
    /// let mut stopping = wsd_train::EarlyStopping::default();
    /// assert_eq!([f64::NAN, 2.0, 1.0].map(|loss| stopping.observe(loss, 2)), [false; 3]);
    /// ```
    pub fn observe(&mut self, loss: f64, patience: usize) -> bool {
        let loss = loss as f32;
        // No loss is lower than one that is not a number.
        if self.best.is_none_or(|best| loss < best || best.is_nan()) {
            *self = Self { best: Some(loss), since: 0 };
        } else {
            self.since += 1;
        }
        patience > 0 && self.since >= patience
    }
}

impl State {
    /// Writes a checkpoint into the run's folder, whole or not at all, with its SHA-256, and removes
    /// all but the last `keep`.
    ///
    /// # Errors
    /// Those of the file system; earlier checkpoints are then as they were.
    pub fn save(&mut self, run: &Path, keep: usize) -> Result<()> {
        let progress = Progress { step: self.step, stopping: self.stopping.clone() };
        write_folder(&run.join(format!("{PREFIX}{}", self.step)), |folder| -> Result<()> {
            let mut tensors = vec![(PARAMETERS, view(folder, &self.parameters)?)];
            if !self.average.is_empty() {
                tensors.push((AVERAGE, view(folder, &self.average)?));
            }
            for (name, values) in self.optimizer.state() {
                tensors.push((name, view(folder, values)?));
            }
            let progress = serde_json::to_string(&progress).map_err(|error| damaged(folder, &error))?;
            // A single entry, because a map of several would be written in any order.
            let metadata = HashMap::from([(PROGRESS.to_owned(), progress)]);
            let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| damaged(folder, &error))?;
            checksum::write(&folder.join(FILE), &bytes)
        })?;
        let mut saved = saved(run)?;
        for (_, old) in saved.drain(..saved.len().saturating_sub(keep.max(1))) {
            fs_err::remove_dir_all(old)?;
        }
        Ok(())
    }

    /// Loads the latest checkpoint of a run; returns false if there is none.
    ///
    /// # Errors
    /// Those of the file system; a damaged checkpoint, with the name of the last whole one; a
    /// checkpoint of another model or optimizer.
    pub fn load_latest(&mut self, run: &Path) -> Result<bool> {
        let Some((_, folder)) = saved(run)?.pop() else { return Ok(false) };
        let bytes = checksum::read(&folder.join(FILE)).map_err(|error| with_last_whole(error, run))?;
        self.read(&folder, &bytes)?;
        Ok(true)
    }

    /// Takes in the bytes of the state in a checkpoint's folder.
    fn read(&mut self, folder: &Path, bytes: &[u8]) -> Result<()> {
        let damaged = |reason: &dyn Display| damaged(folder, reason);
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
        let progress = header.metadata().as_ref().and_then(|metadata| metadata.get(PROGRESS));
        let progress = progress.ok_or_else(|| damaged(&"it lacks its step"))?;
        let progress: Progress = serde_json::from_str(progress).map_err(|error| damaged(&error))?;
        let parameters = [(PARAMETERS, &mut *self.parameters), (AVERAGE, &mut *self.average)];
        let parameters = parameters.into_iter().filter(|(_, values)| !values.is_empty());
        for (name, values) in parameters.chain(self.optimizer.state()) {
            let tensor = tensors.tensor(name).map_err(|error| damaged(&error))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [values.len()] {
                return Err(damaged(&format!("`{name}` belongs to another model")));
            }
            for (value, bytes) in values.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        (self.step, self.stopping) = (progress.step, progress.stopping);
        Ok(())
    }
}

/// Adds to an error of the latest checkpoint the name of the last one that is whole.
fn with_last_whole(error: Error, run: &Path) -> Error {
    let whole = saved(run).unwrap_or_default().into_iter().rev().find(|(_, folder)| is_whole(folder));
    let Error::Malformed { file, at, reason } = error else { return error };
    let hint = match whole {
        Some((step, _)) => format!("{PREFIX}{step} is whole; --resume --skip-damaged goes on from it"),
        None => "no checkpoint of the run is whole; begin again in another folder".into(),
    };
    Error::Malformed { file, at, reason: format!("{reason}\n  hint: {hint}") }
}

fn is_whole(folder: &Path) -> bool {
    checksum::read(&folder.join(FILE)).is_ok()
}

/// Renames the damaged checkpoints after the last whole one, so that a run resumes from that.
/// Returns their new names.
///
/// # Errors
/// Those of the file system.
pub fn set_aside_damaged(run: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (step, folder) in saved(run)?.into_iter().rev().take_while(|(_, folder)| !is_whole(folder)) {
        let name = format!("damaged-{PREFIX}{step}");
        fs_err::rename(&folder, run.join(&name))?;
        names.push(name);
    }
    Ok(names)
}

/// The steps and folders of a run's checkpoints, in the order of steps.
///
/// # Errors
/// Those of the file system.
pub fn saved(run: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let mut saved = Vec::new();
    for entry in fs_err::read_dir(run)? {
        let path = entry?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse().ok());
        saved.extend(step.map(|step: usize| (step, path)));
    }
    saved.sort_unstable();
    Ok(saved)
}

fn view<'v>(folder: &Path, values: &'v [f32]) -> Result<TensorView<'v>> {
    let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
    view.map_err(|error| damaged(folder, &error))
}

fn damaged(folder: &Path, reason: &dyn Display) -> Error {
    Error::malformed(&folder.join(FILE), "training state", reason)
}
