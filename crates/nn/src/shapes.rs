//! Models of random weights in the shapes of real models, made in memory.
//!
//! `wsd bench` and the tests use them to measure speed without a download; nothing else needs this
//! module.
//!
//! The next token of such a model is a fixed function of the last one, with a probability near 1:
//! its layers cost as much as those of a real model but change the residual stream little, and its
//! output matrix maps each token to its successor. Two models agree on the successors of a chosen
//! share of tokens, which sets the acceptance rate of a draft.

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use wsd_core::splitmix64;

use crate::arch;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::format::Format;

/// Sizes of a Llama model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name of the shape.
    pub name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    vocab: usize,
}

/// All shapes.
pub static SHAPES: &[Shape] = &[
    Shape { name: "tiny", hidden: 256, layers: 6, heads: 8, kv_heads: 4, ffn: 704, vocab: 2048 },
    Shape { name: "150m", hidden: 768, layers: 12, heads: 12, kv_heads: 4, ffn: 3072, vocab: 32000 },
    Shape { name: "1b", hidden: 2048, layers: 16, heads: 32, kv_heads: 8, ffn: 8192, vocab: 32000 },
    Shape { name: "3b", hidden: 3072, layers: 28, heads: 24, kv_heads: 8, ffn: 8192, vocab: 32000 },
    Shape { name: "8b", hidden: 4096, layers: 32, heads: 32, kv_heads: 8, ffn: 14336, vocab: 32000 },
];

/// The standard deviation of most weights.
const SPREAD: f32 = 0.02;
/// The standard deviation of weights that write to the residual stream: small beside embeddings of
/// size 1, so that its direction stays.
const FAINT: f32 = 5e-4;
/// The approximate logit of a token's successor; other logits are below 1.
const SURE: f32 = 14.0;
/// The context length, in tokens.
const CONTEXT: usize = 8192;

/// The parameters of a model of random weights.
///
/// # Examples
/// ```
/// use wsd_nn::Format;
/// use wsd_nn::shapes::{Recipe, Shape};
///
/// let shape = Shape::find("tiny").expect("a shape");
/// let base = shape.model(Format::Q8_0, Recipe { seed: 7, agreement: 1.0 })?;
/// let draft = shape.model(Format::Q8_0, Recipe { seed: 7, agreement: 0.8 })?;
/// assert_eq!(base.config, draft.config);
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The seed of the weights and of the successors.
    pub seed: u64,
    /// The share of tokens, from 0 to 1, with the same successor as in the model with this seed and
    /// agreement 1.
    pub agreement: f64,
}

impl Shape {
    /// Finds a shape by name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    /// Returns the size of the vocabulary.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Makes a model of this shape with its matrices in `format`. Tokens beyond single bytes are
    /// words that spell their id.
    ///
    /// # Errors
    /// [`Error::Quantize`] for a format that cannot be written.
    pub fn model(&self, format: Format, recipe: Recipe) -> Result<Checkpoint> {
        let config = self.config();
        let blueprint = arch::blueprint(&config)?;
        let before = recipe.predecessors(self.vocab);
        let embedding = |token: usize, size: f32| noise(recipe.seed, token, self.hidden, size);
        let (mut tensors, head) = (Vec::new(), arch::Head::VOCABULARY.weight());
        for (index, (name, shape)) in arch::tensors(&blueprint).into_iter().enumerate() {
            let [rows, columns] = shape[..] else {
                let ones = Format::F32.quantize(&vec![1.0; shape[0]])?;
                tensors.push(Tensor::new(name, Format::F32, shape, ones)?);
                continue;
            };
            let is_faint = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
            let row = |row: usize| match name.as_str() {
                "model.embed_tokens.weight" => embedding(row, 1.0),
                name if name == head => embedding(before[row], SURE / self.hidden as f32),
                _ => noise(recipe.seed + 1 + index as u64, row, columns, if is_faint { FAINT } else { SPREAD }),
            };
            let rows = (0..rows).into_par_iter().map(|index| format.quantize(&row(index)));
            let bytes = rows.collect::<Result<Vec<_>>>()?.concat();
            tensors.push(Tensor::new(name, format, shape, bytes)?);
        }
        Ok(Checkpoint::bare(self.name, config, tensors, self.tokenizer()?))
    }

    /// Makes a byte-level BPE. Its only merge exists because some programs require one.
    fn tokenizer(&self) -> Result<Tokenizer> {
        let mut bytes: Vec<_> = ByteLevel::alphabet().into_iter().map(String::from).collect();
        bytes.sort_unstable();
        let words = (bytes.len() + 1..self.vocab).map(|id| format!("\u{120}{id}"));
        let pieces = bytes.iter().cloned().chain(["ab".to_owned()]).chain(words).take(self.vocab);
        let vocab: Map<String, Value> = pieces.enumerate().map(|(id, piece)| (piece, id.into())).collect();
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": bytes, "decoder": bytes,
            "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]},
        });
        let fault = |error: tokenizers::Error| Error::Tokenizer { file: self.name.into(), reason: error.to_string() };
        Tokenizer::from_bytes(tokenizer.to_string()).map_err(fault)
    }

    /// Returns its `config.json`.
    #[must_use]
    pub fn config(&self) -> Map<String, Value> {
        let config = json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.ffn, "vocab_size": self.vocab, "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": false, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        });
        config.as_object().cloned().unwrap_or_default()
    }
}

impl Recipe {
    /// Returns the predecessor of each token. All tokens form one cycle.
    fn predecessors(&self, vocab: usize) -> Vec<usize> {
        let next = |token: usize| (token * 20261 + 7919) % vocab;
        let mut before = vec![0; vocab];
        (0..vocab).for_each(|token| before[next(token)] = token);
        let differs = |token: &usize| {
            (splitmix64(self.seed ^ *token as u64) >> 11) as f64 >= self.agreement * (1u64 << 53) as f64
        };
        // The tokens in which this model differs exchange their successors.
        let differing: Vec<usize> = (0..vocab).filter(differs).collect();
        for (index, token) in differing.iter().enumerate() {
            before[next(*token)] = differing[(index + 1) % differing.len()];
        }
        before
    }
}

/// Makes a row of nearly normal numbers with standard deviation `size`.
fn noise(seed: u64, row: usize, columns: usize, size: f32) -> Vec<f32> {
    let start = splitmix64(splitmix64(seed) ^ row as u64);
    let number = |column: usize| {
        // The sum of four uniform numbers is nearly normal; its variance is 4/12 of the square of their range.
        let bits = splitmix64(start.wrapping_add(column as u64));
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 3.0f32.sqrt() * size
    };
    (0..columns).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Executor as _, Span};

    #[test]
    fn models_agree_as_often_as_they_are_asked_to() {
        let shape = Shape { name: "test", hidden: 128, layers: 2, heads: 4, kv_heads: 2, ffn: 96, vocab: 2000 };
        let recipe = |agreement| Recipe { seed: 3, agreement };
        let (whole, same) = (recipe(1.0).predecessors(shape.vocab), recipe(0.8).predecessors(shape.vocab));
        let share = whole.iter().zip(&same).filter(|(a, b)| a == b).count() as f64 / shape.vocab as f64;
        assert!((share - 0.8).abs() < 0.05, "{share}");
        for before in [&whole, &same] {
            let mut cpu =
                Cpu::load(&shape.model(Format::Q8_0, recipe(if before == &whole { 1.0 } else { 0.8 })).unwrap())
                    .unwrap();
            let tokens = [5, 700, 1999, 42];
            let hidden = cpu.forward(&[Span { rows: 0..tokens.len(), ..Span::chain(0, 0, &tokens) }]).unwrap();
            let mut logits = Vec::new();
            cpu.project(arch::Head::VOCABULARY, &hidden, &mut logits).unwrap();
            for (row, token) in logits.chunks(shape.vocab).zip(tokens) {
                let argmax = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
                assert_eq!(before[argmax], token as usize);
                let total: f32 = row.iter().map(|logit| (logit - row[argmax]).exp()).sum();
                assert!(total < 1.2, "the model is not sure: {}", 1.0 / total);
            }
        }
    }
}
