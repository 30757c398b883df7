//! The numbers of a training run, under the names that TRL and transformers give them.

use serde::{Deserialize, Serialize};

use super::schedule::Decay;

/// How a run proceeds, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Steps {
    /// Times that all examples are seen; `max_steps` goes before it.
    pub num_train_epochs: f64,
    /// Steps in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Examples run at once.
    #[serde(alias = "per_device_train_batch_size")]
    pub batch_size: usize,
    /// Batches whose gradients are summed up for one step.
    pub gradient_accumulation_steps: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub lr_scheduler_type: Decay,
    /// The share of it that is left in the end.
    pub min_lr_rate: f64,
    /// Steps until it is reached.
    pub warmup_steps: usize,
    /// The same as a share of all steps, where `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// Decay of matrices.
    pub weight_decay: f64,
    /// Memory of the gradient's mean.
    pub adam_beta1: f64,
    /// Memory of its squares' mean.
    pub adam_beta2: f64,
    /// Added to the root of the latter.
    pub adam_epsilon: f64,
    /// Longer gradients are shortened to this; 0 for never.
    pub max_grad_norm: f64,
    /// Steps between two lines of the metrics.
    pub logging_steps: usize,
    /// Steps between two evaluations; 0 for one at the end only.
    pub eval_steps: usize,
    /// Steps between two checkpoints; 0 for none.
    pub save_steps: usize,
    /// Checkpoints kept.
    pub save_total_limit: usize,
    /// Evaluations without a better loss after which the run ends; 0 for never.
    pub early_stopping_patience: usize,
    /// Keep only the input of each layer, and compute the rest again for the gradient.
    pub gradient_checkpointing: bool,
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
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            logging_steps: 10,
            eval_steps: 0,
            save_steps: 500,
            save_total_limit: 2,
            early_stopping_patience: 0,
            gradient_checkpointing: false,
        }
    }
}

/// How the preference of the chosen answer is learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preference {
    /// How little the model may leave its reference.
    pub beta: f64,
    /// The share of pairs that are taken to be the wrong way round.
    pub label_smoothing: f64,
    /// Weight of the next-token loss of the chosen answer.
    #[serde(alias = "rpo_alpha")]
    pub sft_weight: f64,
}

impl Default for Preference {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0, sft_weight: 0.0 }
    }
}

/// Adapters: low-rank changes of matrices that stay as they are (Hu et al. 2021, arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank of the change.
    pub r: usize,
    /// The change counts `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Last parts of the names of matrices that change.
    pub target_modules: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { r: 16, lora_alpha: 32.0, target_modules: targets.map(str::to_owned).to_vec() }
    }
}
