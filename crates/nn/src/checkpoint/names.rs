//! Architectures whose checkpoints have other names of tensors, or other forms, than Llama's.

mod gpt_oss;

use serde_json::{Map, Value};

use super::tensor::Tensor;
use super::weights::Weights;
use crate::arch::{self, Blueprint};
use crate::error::{Error, Result};

/// The names and forms that tensors have in the files of a model, where these differ from those of
/// [`crate::arch`]. The default has no difference.
///
/// ```
/// let config = serde_json::json!({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2,
///     "vocab_size": 9, "n_positions": 4});
/// let blueprint = wsd_nn::arch::blueprint(config.as_object().expect("an object"))?;
/// let spelling = wsd_nn::Spelling::of(&blueprint);
/// let [ours, stored] = ["model.layers.0.mlp.up_proj", "transformer.h.0.mlp.c_fc"];
/// assert_eq!((spelling.stored_name(ours), spelling.name(stored)), (stored.to_owned(), ours.to_owned()));
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Spelling {
    rules: Option<&'static Rules>,
    heads: usize,
}

/// The differences of an architecture.
#[derive(Debug)]
struct Rules {
    model_type: &'static str,
    /// Parts of names between dots, each with its replacement. They are replaced in this order, and by
    /// the first of those with the same replacement in names to be stored.
    parts: &'static [(&'static str, &'static str)],
    /// Modules whose matrices are stored as `(inputs, outputs)`.
    transposed: &'static [&'static str],
    /// The module whose rows are a query, a key and a value of each head in turn.
    by_head: Option<&'static str>,
    /// The form of experts of which one tensor holds the parts of all.
    experts: Option<Stacked>,
}

/// The form of experts in one tensor.
#[derive(Debug)]
struct Stacked {
    /// Divides a tensor that holds the parts of all experts; returns none for another tensor.
    divide: fn(&Tensor) -> Result<Vec<Tensor>>,
    /// Stacks the parts of experts among tensors.
    stack: fn(Vec<Tensor>) -> Result<Vec<Tensor>>,
}

/// Parts of the names of tensors of adapters that have no row for each output of a module.
const OF_INPUTS: [&str; 2] = [".lora_A.", ".oft_R."];

const RULES: &[Rules] = &[
    Rules {
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
    Rules {
        model_type: "gpt2",
        parts: &[
            (".transformer.h.", ".model.layers."),
            (".transformer.wte.", ".model.embed_tokens."),
            (".transformer.wpe.", ".model.embed_positions."),
            (".transformer.ln_f.", ".model.norm."),
            // The files of a model without head have no prefix.
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
    Rules {
        model_type: "granitemoehybrid",
        parts: &[
            (".shared_mlp.input_linear.", ".mlp.gate_up_proj."),
            (".shared_mlp.output_linear.", ".mlp.down_proj."),
        ],
        transposed: &[],
        by_head: None,
        experts: None,
    },
    Rules {
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
    Rules {
        model_type: "gpt_oss",
        parts: &[(".mlp.router.", ".mlp.gate.")],
        transposed: &[],
        by_head: None,
        experts: Some(Stacked { divide: gpt_oss::divide, stack: gpt_oss::stack }),
    },
];

impl Spelling {
    /// The spelling of the files of a model.
    #[must_use]
    pub fn of(blueprint: &Blueprint) -> Self {
        Self::find(blueprint.model_type, blueprint.heads)
    }

    fn find(model_type: &str, heads: usize) -> Self {
        Self { rules: RULES.iter().find(|rules| rules.model_type == model_type), heads }
    }

    /// Tells whether some names or forms differ.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.rules.is_some()
    }

    /// Tells whether some matrices are stored as `(inputs, outputs)`.
    #[must_use]
    pub fn is_transposed(&self) -> bool {
        self.rules.is_some_and(|rules| !rules.transposed.is_empty())
    }

    /// Returns the name that [`crate::arch`] gives to a tensor or module of a file.
    #[must_use]
    pub fn name(&self, stored: &str) -> String {
        let parts = self.rules.map_or(&[][..], |rules| rules.parts);
        replaced(stored, parts.iter().map(|(part, ours)| (*part, *ours)))
    }

    /// Returns the name of a tensor or module in a file.
    #[must_use]
    pub fn stored_name(&self, name: &str) -> String {
        let parts = self.rules.map_or(&[][..], |rules| rules.parts);
        replaced(name, parts.iter().map(|(part, ours)| (*ours, *part)))
    }

    /// Gives the tensors of a file the names and forms of [`crate::arch`].
    ///
    /// # Errors
    /// [`Error::Tensors`] for a fused matrix without a row for each part of a head.
    pub(crate) fn tensors(&self, tensor: Tensor) -> Result<Vec<Tensor>> {
        let stacked = self.rules.and_then(|rules| rules.experts.as_ref());
        let parts = stacked.map_or(Ok(Vec::new()), |stacked| (stacked.divide)(&tensor))?;
        if parts.is_empty() { Ok(vec![self.tensor(tensor)?]) } else { Ok(parts) }
    }

    /// Gives a tensor of a file, or of an adapter's, the name and form of [`crate::arch`]. One that has
    /// the name already stays as it is.
    ///
    /// # Errors
    /// Those of a fused matrix without a row for each part of a head.
    pub fn tensor(&self, tensor: Tensor) -> Result<Tensor> {
        let name = self.name(&tensor.name);
        if name == tensor.name {
            return Ok(tensor);
        }
        // Row `part, head, row` stands at `head, part, row`.
        self.reformed(tensor.renamed(name), |row, heads, size| {
            let (part, head, row) = (row / (heads * size), row / size % heads, row % size);
            (head * 3 + part) * size + row
        })
    }

    /// Gives the tensors of a model the names and forms of files.
    ///
    /// # Errors
    /// [`Error::Tensors`] for tensors that no file of the architecture could have.
    pub fn stored(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let tensors = match self.rules.and_then(|rules| rules.experts.as_ref()) {
            Some(stacked) => (stacked.stack)(tensors)?,
            None => tensors,
        };
        tensors.into_iter().map(|tensor| self.stored_tensor(tensor)).collect()
    }

    /// Gives a tensor of a model or an adapter the name and form of files, in which experts may be no
    /// modules of their own.
    ///
    /// # Errors
    /// Those of [`Spelling::stored`].
    pub fn stored_tensor(&self, tensor: Tensor) -> Result<Tensor> {
        let name = self.stored_name(&tensor.name);
        let tensor = self.reformed(tensor, |row, heads, size| {
            let (head, part, row) = (row / (3 * size), row / size % 3, row % size);
            (part * heads + head) * size + row
        })?;
        Ok(tensor.renamed(name))
    }

    /// Transposes a matrix, or reorders the rows of a fused one by `place`, which returns the old place
    /// of a row, given the numbers of heads and of rows of each part of a head.
    fn reformed(&self, tensor: Tensor, place: impl Fn(usize, usize, usize) -> usize) -> Result<Tensor> {
        let Some(rules) = self.rules else { return Ok(tensor) };
        let is_matrix = |module: &&str| tensor.name.ends_with(&format!("{module}weight"));
        if tensor.shape.len() == 2 && rules.transposed.iter().any(is_matrix) {
            return tensor.transposed();
        }
        let has_outputs = !OF_INPUTS.iter().any(|part| tensor.name.contains(part));
        if has_outputs && rules.by_head.is_some_and(|module| tensor.name.contains(module)) {
            let (heads, rows) = (self.heads, tensor.shape.first().copied().unwrap_or(0));
            let size = rows / (3 * heads.max(1));
            if size * 3 * heads != rows {
                let name = &tensor.name;
                let problem =
                    format!("`{name}` has {rows} rows, expected a query, a key and a value for each of {heads} heads");
                return Err(Error::Tensors { file: "checkpoint".into(), problems: vec![problem] });
            }
            return tensor.permuted(|row| place(row, heads, size));
        }
        Ok(tensor)
    }
}

/// Replaces parts of a name, each once.
fn replaced<'a>(name: &str, parts: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let dotted = parts.fold(format!(".{name}."), |name, (part, other)| name.replacen(part, other, 1));
    dotted.trim_matches('.').to_owned()
}

/// Gives the tensors of a checkpoint the names and forms of [`crate::arch`].
pub(super) fn in_our_spelling(config: &Map<String, Value>, weights: Weights) -> Result<Weights> {
    let heads = ["num_attention_heads", "n_head"].iter().find_map(|key| config.get(*key)?.as_u64()).unwrap_or(0);
    let spelling = Spelling::find(arch::model_type(config).unwrap_or_default(), heads as usize);
    if spelling.differs() { weights.try_flat_map(|tensor| spelling.tensors(tensor)) } else { Ok(weights) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

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
            let spelling = Spelling::find(model_type, 2);
            assert_eq!(spelling.name(stored), ours);
            assert_eq!(spelling.name(&spelling.stored_name(ours)), ours);
            assert!(spelling.stored_name(ours).ends_with(stored), "{ours}");
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
            let weights = Weights::new("test", [tensor.clone()]);
            let weights = in_our_spelling(config.as_object().unwrap(), weights).unwrap();
            let ours = weights.iter().next().unwrap().clone();
            let stored = Spelling::find(model_type, 2).stored(vec![ours.clone()]).unwrap();
            assert_eq!((&stored[0].shape, stored[0].to_f32()), (&tensor.shape, tensor.to_f32()));
            ours
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
