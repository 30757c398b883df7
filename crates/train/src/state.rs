//! Where a run stands, on disk: `checkpoint-<step>` folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use wsd_core::files::write_folder;

use super::optimizer::Learner;
use crate::error::{Error, Result};
use wsd_nn::files::write_folder;

const FILE: &str = "state.safetensors";
const PREFIX: &str = "checkpoint-";
/// The key of the file's metadata that holds [`Progress`].
const PROGRESS: &str = "progress";

/// What a run that goes on needs to know, besides its settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// The weights that learn, and the optimizer's memory.
    pub learner: Learner,
    /// What the evaluations so far came to.
    pub stopping: Stopping,
}

/// What of a [`State`] is not a tensor.
#[derive(Serialize, Deserialize)]
struct Progress {
    step: usize,
    stopping: Stopping,
}

/// Whether the loss on the evaluation set still falls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stopping {
    /// The lowest loss; in single precision, which JSON gives back to the bit.
    pub best: Option<f32>,
    /// Evaluations since then.
    pub since: usize,
}

impl Stopping {
    /// Take in a loss; whether the run is to end.
    pub fn see(&mut self, loss: f64, patience: usize) -> bool {
        let loss = loss as f32;
        if self.best.is_none_or(|best| loss < best) {
            *self = Self { best: Some(loss), since: 0 };
        } else {
            self.since += 1;
        }
        patience > 0 && self.since >= patience
    }
}

impl State {
    /// Write a checkpoint into the run's folder, whole or not at all, and remove all but the last `keep`.
    ///
    /// # Errors
    /// Those of the file system; the checkpoints before it are then as they were.
    pub fn save(&self, run: &Path, keep: usize) -> Result<()> {
        write_folder(&run.join(format!("{PREFIX}{}", self.step)), |folder| -> Result<()> {
            let Learner { weights, means, squares, .. } = &self.learner;
            let tensors = [("weights", weights), ("means", means), ("squares", squares)].map(|(name, values)| {
                let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
                view.map(|view| (name, view)).map_err(|error| damaged(folder, &error))
            });
            let tensors = tensors.into_iter().collect::<Result<Vec<_>>>()?;
            let about = Progress { step: self.step, stopping: self.stopping.clone() };
            let about = serde_json::to_string(&about).map_err(|error| damaged(folder, &error))?;
            // One entry: several would be written in any order.
            let about = HashMap::from([(PROGRESS.to_owned(), about)]);
            let bytes = safetensors::serialize(tensors, Some(about)).map_err(|error| damaged(folder, &error))?;
            fs_err::write(folder.join(FILE), bytes)?;
            Result::<()>::Ok(())
        })?;
        let mut saved = saved(run)?;
        for (_, old) in saved.drain(..saved.len().saturating_sub(keep.max(1))) {
            fs_err::remove_dir_all(old)?;
        }
        Ok(())
    }

    /// Read the latest checkpoint of a run into a state that has not begun; `false` where there is none.
    ///
    /// # Errors
    /// Those of the file system; a checkpoint of another model.
    pub fn load_latest(&mut self, run: &Path) -> Result<bool> {
        let Some((_, folder)) = saved(run)?.pop() else { return Ok(false) };
        let bytes = fs_err::read(folder.join(FILE))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&folder, &error))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&folder, &error))?;
        let about = header.metadata().as_ref().and_then(|about| about.get(PROGRESS));
        let about = about.ok_or_else(|| damaged(&folder, &"it does not say its step"))?;
        let about: Progress = serde_json::from_str(about).map_err(|error| damaged(&folder, &error))?;
        let Learner { weights, means, squares, .. } = &mut self.learner;
        for (name, values) in [("weights", weights), ("means", means), ("squares", squares)] {
            let tensor = tensors.tensor(name).map_err(|error| damaged(&folder, &error))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [values.len()] {
                return Err(damaged(&folder, &format!("`{name}` is that of another model")));
            }
            for (value, bytes) in values.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        (self.step, self.stopping) = (about.step, about.stopping);
        Ok(true)
    }
}

/// The checkpoints of a run by their steps, the latest last.
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

fn damaged(folder: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::malformed(&folder.join(FILE), "training state", reason)
}
