//! Architectures whose checkpoints have other names of tensors, or other forms, than Llama's.

use serde_json::{Map, Value};

use super::Checkpoint;
use super::tensor::Tensor;
use super::weights::Weights;
use crate::arch;
use crate::error::{Error, Result};

type Divide = fn(&Tensor) -> Result<Vec<Tensor>>;

/// The spelling of an architecture.
struct Spelling {
    model_type: &'static str,
    /// Parts of names between dots, each with its replacement. They are replaced in this order.
    parts: &'static [(&'static str, &'static str)],
    /// Modules whose matrices are stored as `(inputs, outputs)`.
    transposed: &'static [&'static str],
    /// The module whose rows are a query, a key and a value of each head in turn.
    by_head: Option<&'static str>,
    /// Divides a tensor that holds the parts of all experts; returns none for another tensor.
    experts: Option<Divide>,
}

const SPELLINGS: &[Spelling] = &[
    Spelling {
        model_type: "gpt_neox",
        parts: &[
            (".gpt_neox.layers.", ".model.layers."),
            (".gpt_neox.embed_in.", ".model.embed_tokens."),
            (".gpt_neox.final_layer_norm.", ".model.norm."),
            (".embed_out.", ".lm_head."),
            (".attention.query_key_value.", ".self_attn.qkv_proj."),
            (".attention.dense.", ".self_attn.o_proj."),
            (".mlp.dense_h_to_4h.", ".mlp.up_proj."),
            (".mlp.dense_4h_to_h.", ".mlp.down_proj."),
        ],
        transposed: &[],
        by_head: Some(".qkv_proj."),
        experts: None,
    },
    Spelling {
        model_type: "gpt2",
        parts: &[
            (".transformer.", "."),
            (".h.", ".model.layers."),
            (".wte.", ".model.embed_tokens."),
            (".wpe.", ".model.embed_positions."),
            (".ln_f.", ".model.norm."),
            (".ln_1.", ".input_layernorm."),
            (".ln_2.", ".post_attention_layernorm."),
            (".attn.c_attn.", ".self_attn.qkv_proj."),
            (".attn.c_proj.", ".self_attn.o_proj."),
            (".mlp.c_fc.", ".mlp.up_proj."),
            (".mlp.c_proj.", ".mlp.down_proj."),
        ],
        transposed: &[".qkv_proj.", ".o_proj.", ".up_proj.", ".down_proj."],
        by_head: None,
        experts: None,
    },
    Spelling {
        model_type: "granitemoehybrid",
        parts: &[
            (".shared_mlp.input_linear.", ".mlp.gate_up_proj."),
            (".shared_mlp.output_linear.", ".mlp.down_proj."),
        ],
        transposed: &[],
        by_head: None,
        experts: None,
    },
    Spelling {
        model_type: "mixtral",
        parts: &[
            (".block_sparse_moe.", ".mlp."),
            (".w1.", ".gate_proj."),
            (".w3.", ".up_proj."),
            (".w2.", ".down_proj."),
        ],
        transposed: &[],
        by_head: None,
        experts: None,
    },
    Spelling {
        model_type: "gpt_oss",
        parts: &[(".mlp.router.", ".mlp.gate.")],
        transposed: &[],
        by_head: None,
        experts: Some(gpt_oss_experts),
    },
];

/// Divides the parts of all experts of gpt-oss: matrices `(experts, inputs, outputs)`, or `(experts,
/// outputs, inputs)` in MXFP4, and biases `(experts, outputs)`. The rows of gate and up alternate.
fn gpt_oss_experts(tensor: &Tensor) -> Result<Vec<Tensor>> {
    let Some((layer, part)) = tensor.name.split_once(".mlp.experts.") else { return Ok(Vec::new()) };
    let (part, kind) = match part.strip_suffix("_bias") {
        Some(part) => (part, "bias"),
        None => (part.trim_end_matches("_blocks"), "weight"),
    };
    let mut parts = Vec::new();
    for (expert, own) in tensor.divided().into_iter().enumerate() {
        let is_packed = tensor.name.ends_with("_blocks");
        let own = if kind == "weight" && !is_packed { own.transposed()? } else { own };
        let name = |part: &str| format!("{layer}.mlp.experts.{expert}.{part}.{kind}");
        if part == "gate_up_proj" {
            let half = own.shape[0] / 2;
            let [gate, up] = own.permuted(|row| row % half * 2 + row / half)?.halved();
            parts.extend([gate.renamed(name("gate_proj")), up.renamed(name("up_proj"))]);
        } else {
            parts.push(own.renamed(name(part)));
        }
    }
    Ok(parts)
}

impl Spelling {
    /// Returns the name that [`crate::arch`] gives to a tensor.
    fn name(&self, stored: &str) -> String {
        let name = self.parts.iter().fold(format!(".{stored}"), |name, (part, ours)| name.replacen(part, ours, 1));
        name[1..].to_owned()
    }

    fn tensors(&self, tensor: Tensor, heads: usize) -> Result<Vec<Tensor>> {
        let parts = self.experts.map_or(Ok(Vec::new()), |divide| divide(&tensor))?;
        if parts.is_empty() { Ok(vec![self.tensor(tensor, heads)?]) } else { Ok(parts) }
    }

    fn tensor(&self, tensor: Tensor, heads: usize) -> Result<Tensor> {
        let name = self.name(&tensor.name);
        let tensor = tensor.renamed(name);
        let is = |module: &&str| tensor.name.contains(*module);
        if self.transposed.iter().any(is) && tensor.shape.len() == 2 {
            return tensor.transposed();
        }
        if self.by_head.as_ref().is_some_and(is) {
            let size = tensor.shape[0] / (3 * heads.max(1));
            if size * 3 * heads != tensor.shape[0] {
                let problem = format!(
                    "`{}` has {} rows, expected a query, a key and a value for each of {heads} heads",
                    tensor.name, tensor.shape[0]
                );
                return Err(Error::Tensors { file: "checkpoint".into(), problems: vec![problem] });
            }
            // Row `part, head, row` stands at `head, part, row`.
            return tensor.permuted(|row| {
                let (part, head, row) = (row / (heads * size), row / size % heads, row % size);
                (head * 3 + part) * size + row
            });
        }
        Ok(tensor)
    }
}

/// Gives the tensors of a checkpoint the names and forms of [`crate::arch`].
pub(super) fn in_our_spelling(config: &Map<String, Value>, weights: Weights) -> Result<Weights> {
    let model_type = arch::model_type(config).unwrap_or_default();
    let Some(spelling) = SPELLINGS.iter().find(|spelling| spelling.model_type == model_type) else {
        return Ok(weights);
    };
    let heads = ["num_attention_heads", "n_head"].iter().find_map(|key| config.get(*key)?.as_u64()).unwrap_or(0);
    weights.try_flat_map(|tensor| spelling.tensors(tensor, heads as usize))
}

impl Checkpoint {
    /// Tells whether the tensors have other names or forms here than in files of the architecture.
    #[must_use]
    pub fn is_respelled(&self) -> bool {
        let model_type = arch::model_type(&self.config).unwrap_or_default();
        SPELLINGS.iter().any(|spelling| spelling.model_type == model_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    fn name(model_type: &str, stored: &str) -> String {
        SPELLINGS.iter().find(|spelling| spelling.model_type == model_type).unwrap().name(stored)
    }

    #[test]
    fn names_become_ours() {
        for (model_type, stored, ours) in [
            ("gpt_neox", "gpt_neox.layers.3.attention.dense.bias", "model.layers.3.self_attn.o_proj.bias"),
            ("gpt_neox", "embed_out.weight", "lm_head.weight"),
            ("gpt2", "h.0.attn.c_attn.weight", "model.layers.0.self_attn.qkv_proj.weight"),
            ("gpt2", "transformer.h.11.mlp.c_proj.bias", "model.layers.11.mlp.down_proj.bias"),
            ("gpt2", "transformer.wpe.weight", "model.embed_positions.weight"),
            (
                "mixtral",
                "model.layers.0.block_sparse_moe.experts.7.w3.weight",
                "model.layers.0.mlp.experts.7.up_proj.weight",
            ),
            ("mixtral", "model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.mlp.gate.weight"),
            ("gpt_oss", "model.layers.0.mlp.router.bias", "model.layers.0.mlp.gate.bias"),
        ] {
            assert_eq!(name(model_type, stored), ours);
        }
    }

    #[test]
    fn heads_are_regrouped_and_matrices_transposed() {
        let tensor = |name: &str, shape: Vec<usize>| {
            let values: Vec<_> = (0..shape.iter().product::<usize>()).map(|value| value as f32).collect();
            Tensor::new(name, Format::F32, shape, Format::F32.quantize(&values).unwrap()).unwrap()
        };
        let weights = |model_type: &str, tensor: Tensor| {
            let config = serde_json::json!({"model_type": model_type, "num_attention_heads": 2});
            let weights = Weights::new("test", [tensor]);
            let weights = in_our_spelling(config.as_object().unwrap(), weights).unwrap();
            weights.iter().next().unwrap().clone()
        };
        let regrouped = weights("gpt_neox", tensor("gpt_neox.layers.0.attention.query_key_value.weight", vec![12, 1]));
        assert_eq!(regrouped.to_f32(), [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0]);
        let transposed = weights("gpt2", tensor("h.0.mlp.c_fc.weight", vec![2, 3]));
        assert_eq!(
            (transposed.shape.as_slice(), transposed.to_f32()),
            (&[3, 2][..], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0])
        );
    }
}
