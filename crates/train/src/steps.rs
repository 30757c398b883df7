//! The `[train]` table of a run file; names are those of transformers and TRL.

use serde::{Deserialize, Serialize};
use wsd_nn::kernels::dense::Precision;

use crate::schedule::{Decay, Schedule};

/// The settings of the training loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Steps {
    /// Passes over all examples; `max_steps` takes precedence.
    pub num_train_epochs: f64,
    /// The total number of steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Examples per batch.
    #[serde(alias = "per_device_train_batch_size")]
    pub batch_size: usize,
    /// Batches per step, whose gradients are summed.
    pub gradient_accumulation_steps: usize,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The decay of the learning rate.
    pub lr_scheduler_type: Decay,
    /// The share of the peak learning rate that remains at the end.
    pub min_lr_rate: f64,
    /// The number of warm-up steps.
    pub warmup_steps: usize,
    /// Warm-up steps as a share of all steps, if `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// The gradient's norm is clipped to this value; 0 for no clipping.
    pub max_grad_norm: f64,
    /// Steps between two rows of metrics.
    pub logging_steps: usize,
    /// Steps between two evaluations; 0 for one evaluation at the end.
    pub eval_steps: usize,
    /// Steps between two checkpoints; 0 for one checkpoint at the end.
    pub save_steps: usize,
    /// The number of checkpoints to keep.
    pub save_total_limit: usize,
    /// Evaluations without a lower loss after which the run ends; 0 to never end early.
    pub early_stopping_patience: usize,
    /// Keep only the inputs of layers for the backward pass, and compute the rest again.
    pub gradient_checkpointing: bool,
    /// Round the factors of matrix products to bfloat16.
    pub bf16: bool,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            num_train_epochs: 1.0,
            max_steps: None,
            batch_size: 16,
            gradient_accumulation_steps: 1,
            learning_rate: 1e-4,
            lr_scheduler_type: Decay::Cosine,
            min_lr_rate: 0.0,
            warmup_steps: 0,
            warmup_ratio: 0.03,
            max_grad_norm: 1.0,
            logging_steps: 10,
            eval_steps: 0,
            save_steps: 500,
            save_total_limit: 2,
            early_stopping_patience: 0,
            gradient_checkpointing: false,
            bf16: false,
        }
    }
}

impl Steps {
    /// The examples of each objective that one step grades.
    #[must_use]
    pub fn examples_per_step(&self) -> usize {
        (self.batch_size * self.gradient_accumulation_steps).max(1)
    }

    /// The precision of matrix products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        if self.bf16 { Precision::Bf16 } else { Precision::F32 }
    }

    /// The learning rates of a run over this many examples.
    #[must_use]
    pub fn schedule(&self, examples: usize) -> Schedule {
        let epochs = (examples as f64 * self.num_train_epochs / self.examples_per_step() as f64).ceil() as usize;
        let total_steps = self.max_steps.unwrap_or(epochs.max(1));
        let warmup = (total_steps as f64 * self.warmup_ratio).ceil() as usize;
        Schedule {
            peak: self.learning_rate,
            floor: self.min_lr_rate,
            warmup_steps: if self.warmup_steps > 0 { self.warmup_steps } else { warmup },
            total_steps,
            decay: self.lr_scheduler_type,
        }
    }
}
