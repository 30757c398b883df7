//! Where a run stands, on disk: `checkpoint-<step>` folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::files::write_folder;
use super::optimizer::Learner;
use crate::error::{Error, Result};

const FILE: &str = "state.safetensors";
const PREFIX: &str = "checkpoint-";

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

/// Whether the loss on the evaluation set still falls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stopping {
    /// The lowest loss.
    pub best: Option<f64>,
    /// Evaluations since then.
    pub since: usize,
}

impl Stopping {
    /// Take in a loss; whether the run is to end.
    pub fn see(&mut self, loss: f64, patience: usize) -> bool {
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
        write_folder(&run.join(format!("{PREFIX}{}", self.step)), |folder| {
            let Learner { weights, means, squares, .. } = &self.learner;
            let tensors = [("weights", weights), ("means", means), ("squares", squares)].map(|(name, values)| {
                let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
                view.map(|view| (name, view)).map_err(|error| damaged(folder, &error))
            });
            let tensors = tensors.into_iter().collect::<Result<Vec<_>>>()?;
            let about = [
                ("step", self.step.to_string()),
                ("stopping", serde_json::to_string(&self.stopping).unwrap_or_default()),
            ];
            let about: HashMap<_, _> = about.map(|(key, value)| (key.to_owned(), value)).into();
            let bytes = safetensors::serialize(tensors, Some(about)).map_err(|error| damaged(folder, &error))?;
            Ok(fs_err::write(folder.join(FILE), bytes)?)
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
        let about = header.metadata().clone().unwrap_or_default();
        let about = |key: &str| about.get(key).map(String::as_str).unwrap_or_default();
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
        self.step = about("step").parse().map_err(|_| damaged(&folder, &"it does not say its step"))?;
        self.stopping = serde_json::from_str(about("stopping")).map_err(|error| damaged(&folder, &error))?;
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
    Error::malformed(&folder.join(FILE).display().to_string(), "training state", reason.to_string())
}
