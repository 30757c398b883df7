//! Checkpoints of GGUF files in the form of a Hugging Face folder, for programs that write one.

use serde_json::{Value, json};

use super::{Checkpoint, Tensor};
use crate::arch::{self, Blueprint};
use crate::checkpoint::Weights;
use crate::error::{Error, Result};
use crate::format::Format;

/// Factor, low and high factor and original length of the scaling in published Llama 3.1 to 3.3.
const LLAMA3_SCALINGS: [(f64, f64, f64, u64); 2] = [(8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192)];
/// The largest relative difference of two divisors of a frequency that count as equal.
const SAME_DIVISOR: f32 = 1e-3;

impl Checkpoint {
    /// Undoes what GGUF files change: the order of rows for interleaved RoPE, the 1 in Gemma's norm
    /// weights, and the scaling that is stored as divisors. Other checkpoints stay as they are.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for divisors of no published scaling: a `config.json` has no key for
    /// them.
    ///
    /// # Examples
    /// ```
    /// # use std::path::Path;
    /// use wsd_nn::Checkpoint;
    ///
    /// let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    /// let file = Checkpoint::open(&fixtures.join("gguf/mistral-f16.gguf"))?.in_standard_form()?;
    /// let folder = Checkpoint::open(&fixtures.join("mistral"))?;
    /// let query = "model.layers.0.self_attn.q_proj.weight";
    /// let [ours, theirs] = [file, folder].map(|checkpoint| checkpoint.weights.get(query).map(|q| q.to_f32()));
    /// assert_eq!(ours, theirs);
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    pub fn in_standard_form(mut self) -> Result<Self> {
        if !self.config.keys().any(|key| key.starts_with("wsd_")) {
            return Ok(self);
        }
        let blueprint = arch::blueprint(&self.config)?;
        let interleaved = self.config.shift_remove("wsd_rope_interleaved").is_some();
        let folded = self.config.shift_remove("wsd_norm_offset_folded").is_some();
        if let Some(divisors) = self.config.shift_remove("wsd_rope_factors") {
            let scaling = self.llama3_scaling(&divisors, &blueprint)?;
            self.config.insert("rope_scaling".into(), scaling);
        }
        let is_stored = |tensor: &&Tensor| !tensor.name.starts_with("rope_f");
        let tensors = self.weights.iter().filter(is_stored).map(|tensor| {
            let has = |part: &str| tensor.name.contains(part);
            if interleaved && (has(".q_proj.") || has(".k_proj.")) {
                halves(tensor, blueprint.head_dim)
            } else if folded && tensor.name.ends_with("norm.weight") {
                let values: Vec<_> = tensor.to_f32().iter().map(|value| value - 1.0).collect();
                Tensor::new(&*tensor.name, Format::F32, tensor.shape.clone(), Format::F32.quantize(&values)?)
            } else {
                Ok(tensor.clone())
            }
        });
        self.weights = Weights::new(&*self.name, tensors.collect::<Result<Vec<_>>>()?);
        Ok(self)
    }

    /// Finds the published scaling that has these divisors.
    fn llama3_scaling(&self, divisors: &Value, blueprint: &Blueprint) -> Result<Value> {
        let published = LLAMA3_SCALINGS.map(|(factor, low, high, original)| {
            json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original})
        });
        let own = blueprint.ropes[0].frequencies(false);
        let is_same = |scaling: &Value| {
            let mut config = self.config.clone();
            config.insert("rope_scaling".into(), scaling.clone());
            let frequencies = arch::blueprint(&config).map(|blueprint| blueprint.ropes[0].frequencies(false));
            frequencies
                .is_ok_and(|found| found.iter().zip(&own).all(|(found, own)| (found / own - 1.0).abs() < SAME_DIVISOR))
        };
        published.into_iter().find(is_same).ok_or_else(|| Error::Unsupported {
            file: self.name.clone(),
            what: "scaling of RoPE (`rope_freqs`)".into(),
            found: divisors.to_string().chars().take(60).collect(),
            supported: "those of Llama 3.1 to 3.3\n  hint: use the Hugging Face folder the file was made from".into(),
        })
    }
}

/// Moves rows `2i` and `2i + 1` of each head to `i` and `i + head_dim / 2`, in new memory.
fn halves(tensor: &Tensor, head_dim: usize) -> Result<Tensor> {
    tensor.permuted(|row| {
        let (head, within) = (row / head_dim * head_dim, row % head_dim);
        head + 2 * (within % (head_dim / 2)) + within / (head_dim / 2)
    })
}
