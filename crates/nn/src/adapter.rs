//! LoRA adapters in PEFT's form: `adapter_config.json` and `adapter_model.safetensors` in a folder.
//!
//! An adapter changes a linear layer `W` to `W + scale * B * A`, with matrices `A` of `(rank,
//! inputs)` and `B` of `(outputs, rank)` (Hu et al. 2021, arXiv 2106.09685).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::arch::{self, Blueprint};
use crate::checkpoint::{self, Tensor};
use crate::error::{Error, Result};

/// The file that holds rank and scale.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file that holds the matrices.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The prefix of every tensor's name; the module's name follows.
pub const PREFIX: &str = "base_model.model.";
/// The end of the name of a matrix `A`.
pub const LORA_A: &str = ".lora_A.weight";
/// The end of the name of a matrix `B`.
pub const LORA_B: &str = ".lora_B.weight";

/// Changes of low rank to linear layers of a model.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The folder, for messages.
    file: String,
    modules: BTreeMap<String, LowRank>,
}

/// A matrix as the product of two: `scale * b * a`.
#[derive(Clone, Debug)]
pub(crate) struct LowRank {
    /// `(rank, inputs)`.
    pub(crate) a: Tensor,
    /// `(outputs, rank)`.
    pub(crate) b: Tensor,
    /// Factor on the product.
    pub(crate) scale: f32,
}

/// Returns the names of a module's matrices `A` and `B` in an adapter file.
///
/// ```
/// let [a, _] = wsd_nn::adapter::names("model.layers.0.self_attn.q_proj");
/// assert_eq!(a, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
/// ```
#[must_use]
pub fn names(module: &str) -> [String; 2] {
    [LORA_A, LORA_B].map(|suffix| format!("{PREFIX}{module}{suffix}"))
}

impl Adapter {
    /// Opens a folder.
    ///
    /// # Errors
    /// Missing files; [`Error::Unsupported`] for parts of PEFT that are not implemented, by their
    /// key or tensor; [`Error::Tensors`] naming all matrices without a partner or of another rank.
    pub fn open(folder: &Path) -> Result<Self> {
        let place = folder.join(CONFIG_FILE);
        let file = place.display().to_string();
        let config: Map<String, Value> = serde_json::from_slice(&wsd_core::Input::DESCRIPTION.read(&place)?)
            .map_err(|error| Error::malformed(&file, "JSON", error.to_string()))?;
        let (rank, scale) = rank_and_scale(&file, &config)?;
        let place = folder.join(WEIGHTS_FILE);
        let file = place.display().to_string();
        let modules = pair(&file, checkpoint::read_safetensors(&place)?, rank, scale)?;
        Ok(Self { file, modules })
    }

    /// The modules it changes and their matrices, each of which is checked to fit a linear layer of
    /// the model.
    ///
    /// # Errors
    /// [`Error::Tensors`] naming all modules that the model does not have or that have other sizes.
    pub(crate) fn modules(&self, blueprint: &Blueprint) -> Result<impl Iterator<Item = (&str, &LowRank)>> {
        let shapes: BTreeMap<_, _> = arch::tensors(blueprint).into_iter().collect();
        let problem = |(module, LowRank { a, b, .. }): (&String, &LowRank)| {
            let found = [b.shape[0], a.shape[1]];
            match shapes.get(&format!("{module}.weight")).filter(|_| module != "model.embed_tokens") {
                Some(shape) if shape[..] == found => None,
                Some(shape) => Some(format!("`{module}` is changed with shape {found:?}, expected {shape:?}")),
                None => Some(format!("`{module}` is not a linear layer of the model")),
            }
        };
        let problems: Vec<_> = self.modules.iter().filter_map(problem).collect();
        if problems.is_empty() {
            Ok(self.modules.iter().map(|(module, change)| (module.as_str(), change)))
        } else {
            Err(Error::Tensors { file: self.file.clone(), problems })
        }
    }
}

/// The rank of every module, and the factor on its product: `alpha / r`, or `alpha / sqrt(r)` for
/// rank-stabilized LoRA (Kalajdzievski 2023, arXiv 2312.03732).
fn rank_and_scale(file: &str, config: &Map<String, Value>) -> Result<(usize, f32)> {
    let is_set = |value: &&Value| match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !matches!(text.as_str(), "" | "none"),
        Value::Number(_) => true,
    };
    let refuse = |key: &str, value: &Value| Error::Unsupported {
        file: file.to_owned(),
        what: format!("`{key}`"),
        found: value.to_string(),
        supported: "LoRA with one rank and without biases".into(),
    };
    if let Some(kind) = config.get("peft_type").filter(|kind| *kind != "LORA") {
        return Err(refuse("peft_type", kind));
    }
    for key in UNSUPPORTED {
        if let Some(value) = config.get(*key).filter(is_set) {
            return Err(refuse(key, value));
        }
    }
    let wrong = |key: &str, limit: &str| Error::malformed(file, format!("key `{key}`"), format!("must be {limit}"));
    let rank = config.get("r").and_then(Value::as_u64).filter(|rank| *rank > 0);
    let rank = rank.ok_or_else(|| wrong("r", "a whole number above 0"))? as usize;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).ok_or_else(|| wrong("lora_alpha", "a number"))?;
    let is_stabilized = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let divisor = if is_stabilized { (rank as f64).sqrt() } else { rank as f64 };
    Ok((rank, (alpha / divisor) as f32))
}

/// Keys of PEFT that change what an adapter computes and are not implemented.
const UNSUPPORTED: &[&str] = &[
    "use_dora",
    "use_qalora",
    "bias",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "layer_replication",
    "corda_config",
    "eva_config",
];

/// Finds the two matrices of each module.
fn pair(file: &str, tensors: Vec<Tensor>, rank: usize, scale: f32) -> Result<BTreeMap<String, LowRank>> {
    let (mut downs, mut ups, mut problems) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for tensor in tensors {
        let module = tensor.name.strip_prefix(PREFIX);
        let [a, b] = [LORA_A, LORA_B].map(|suffix| module.and_then(|name| name.strip_suffix(suffix)));
        match (a.map(str::to_owned), b.map(str::to_owned), &tensor.shape[..]) {
            (Some(module), _, [found, _]) if *found == rank => drop(downs.insert(module, tensor)),
            (_, Some(module), [_, found]) if *found == rank => drop(ups.insert(module, tensor)),
            (None, None, _) => problems.push(format!("`{}` is not a matrix of LoRA", tensor.name)),
            (.., shape) => problems.push(format!("`{}` has shape {shape:?}, expected rank {rank}", tensor.name)),
        }
    }
    let mut modules = BTreeMap::new();
    for (module, a) in downs {
        match ups.remove(&module) {
            Some(b) => drop(modules.insert(module, LowRank { a, b, scale })),
            None => problems.push(format!("`{}` is missing", names(&module)[1])),
        }
    }
    problems.extend(ups.into_keys().map(|module| format!("`{}` is missing", names(&module)[0])));
    if problems.is_empty() { Ok(modules) } else { Err(Error::Tensors { file: file.to_owned(), problems }) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::Format;

    fn config(changes: &Value) -> Result<(usize, f32)> {
        let mut config = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none", "use_dora": false, "rank_pattern": {},
            "modules_to_save": null, "target_modules": ["q_proj"],
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        rank_and_scale("file", config.as_object().unwrap())
    }

    #[test]
    fn scale_is_alpha_by_rank_or_its_root() {
        assert_eq!(config(&json!({})).unwrap(), (4, 4.0));
        assert_eq!(config(&json!({"use_rslora": true})).unwrap(), (4, 8.0));
    }

    #[test]
    fn other_parts_of_peft_are_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("LOHA")),
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("rank_pattern", json!({"q_proj": 8})),
            ("modules_to_save", json!(["lm_head"])),
            ("r", json!(0)),
            ("lora_alpha", json!("much")),
        ] {
            let error = config(&json!({key: value})).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn tensors_are_paired_and_all_faults_named() {
        let tensor = |name: String, shape: [usize; 2]| {
            let bytes = vec![0; 4 * shape[0] * shape[1]];
            Tensor::new(name, Format::F32, shape.to_vec(), bytes).unwrap()
        };
        let [a, b] = names("x");
        let good = vec![tensor(a.clone(), [4, 6]), tensor(b.clone(), [8, 4])];
        assert_eq!(pair("file", good, 4, 1.0).unwrap().keys().collect::<Vec<_>>(), ["x"]);
        let bad = vec![
            tensor(a, [4, 6]),
            tensor(names("y")[1].clone(), [8, 3]),
            tensor(names("z")[1].clone(), [8, 4]),
            tensor("base_model.model.x.lora_magnitude_vector".into(), [1, 8]),
        ];
        let error = pair("file", bad, 4, 1.0).unwrap_err().to_string();
        for part in [b, "[8, 3], expected rank 4".into(), names("z")[0].clone(), "lora_magnitude_vector".into()] {
            assert!(error.contains(&part), "{error}");
        }
    }
}
