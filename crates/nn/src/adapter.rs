//! Adapters in PEFT's form: `adapter_config.json` and `adapter_model.safetensors` in a folder.
//!
//! An adapter changes a linear layer `W` to `W + scale * B * A`, with matrices `A` of `(rank,
//! inputs)` and `B` of `(outputs, rank)` (Hu et al. 2021, arXiv 2106.09685). Routed experts (SMILE,
//! Tang et al. 2024, arXiv 2408.10174) stand in such a folder too: `A` and `B` hold all experts, and a
//! router weighs them for each token.

mod config;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::arch::{self, Blueprint, EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, HEAD_FACTOR, HEAD_KEPT};
use crate::checkpoint::{self, Spelling, Tensor};
use crate::error::{Error, Result};
use config::rank_and_scale;

pub use config::refuse_changed_base;

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

/// The `peft_type` of routed experts.
pub const ROUTED: &str = "SMILE";

/// Names of a module's matrices in the file of routed experts.
pub struct RoutedNames {
    /// `(experts * rank, inputs)`.
    pub a: String,
    /// `(outputs, experts * rank)`.
    pub b: String,
    /// `(experts * router rank, inputs)`.
    pub router: String,
}

impl RoutedNames {
    const ENDS: [&str; 3] = [".smile_A.weight", ".smile_B.weight", ".smile_router.weight"];

    /// Returns the names for a module.
    #[must_use]
    pub fn of(module: &str) -> Self {
        let [a, b, router] = Self::ENDS.map(|end| format!("{PREFIX}{module}{end}"));
        Self { a, b, router }
    }
}

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
    /// The choice among experts, whose rows of `a` follow each other.
    pub(crate) router: Option<Router>,
}

/// The choice among experts of low rank by the energy of a layer's input in their spaces.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    /// `(experts * router rank, inputs)`.
    pub(crate) rows: Tensor,
    pub(crate) experts: usize,
    /// Experts that each token takes.
    pub(crate) per_token: usize,
}

impl Router {
    /// Computes the factor of each expert for one token from the products of [`Router::rows`] and its
    /// input: the softmax of the norms of each expert's products, over all experts, of which the
    /// largest `per_token` are kept and divided by their sum.
    pub(crate) fn factors(&self, products: &[f32]) -> Vec<f32> {
        let norms = products.chunks_exact(products.len() / self.experts);
        let norms: Vec<f32> = norms.map(|rows| rows.iter().map(|x| x * x).sum::<f32>().sqrt()).collect();
        let most = norms.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut factors: Vec<f32> = norms.iter().map(|norm| (norm - most).exp()).collect();
        let mut order: Vec<usize> = (0..self.experts).collect();
        order.sort_by(|one, other| factors[*other].total_cmp(&factors[*one]));
        order[self.per_token..].iter().for_each(|expert| factors[*expert] = 0.0);
        let total: f32 = factors.iter().sum();
        factors.iter_mut().for_each(|factor| *factor /= total);
        factors
    }
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
    /// Opens a folder, whose modules have the names of the model's files or of [`crate::arch`].
    ///
    /// # Errors
    /// Missing files; [`Error::Unsupported`] for parts of PEFT that are not implemented, by their
    /// key or tensor; [`Error::Tensors`] naming all matrices without a partner or of another rank.
    pub fn open(folder: &Path, spelling: &Spelling) -> Result<Self> {
        let place = folder.join(CONFIG_FILE);
        let file = place.display().to_string();
        let config: Map<String, Value> = checkpoint::read_json(&place)?;
        let weights = folder.join(WEIGHTS_FILE);
        let weights_file = weights.display().to_string();
        let tensors = checkpoint::read_safetensors(&weights)?.into_iter().map(|tensor| respelled(spelling, tensor));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let modules = if config.get("peft_type").is_some_and(|kind| kind == ROUTED) {
            let counts = ["num_experts", "num_experts_per_tok"].map(|key| config.get(key).and_then(Value::as_u64));
            let [Some(experts @ 1..), Some(per_token @ 1..)] = counts else {
                let reason = "must be whole numbers above 0".to_owned();
                return Err(Error::malformed(&file, "keys `num_experts` and `num_experts_per_tok`", reason));
            };
            let sizes = (experts as usize, per_token.min(experts) as usize);
            routed(&weights_file, tensors, sizes)?
        } else {
            let (rank, scale) = rank_and_scale(&file, &config)?;
            pair(&weights_file, tensors, rank, scale)?
        };
        Ok(Self { file: weights_file, modules })
    }

    /// Checks that every module is a linear layer of the model, of the same sizes.
    ///
    /// # Errors
    /// [`Error::Tensors`] naming all modules that the model does not have or that have other sizes.
    pub fn check(&self, blueprint: &Blueprint) -> Result<()> {
        self.modules(blueprint).map(drop)
    }

    /// Returns the change of a module's weight, `(outputs, inputs)`, or `None` for a module that is not
    /// changed, or by routed experts, which have no matrix.
    #[must_use]
    pub fn change(&self, module: &str) -> Option<Vec<f32>> {
        let LowRank { a, b, scale, .. } = self.modules.get(module).filter(|change| change.router.is_none())?;
        let (a, b, inputs) = (a.to_f32(), b.to_f32(), a.columns());
        let mut change = vec![0.0; b.len() / (a.len() / inputs) * inputs];
        for (row, factors) in change.chunks_exact_mut(inputs).zip(b.chunks_exact(a.len() / inputs)) {
            for (a, factor) in a.chunks_exact(inputs).zip(factors) {
                row.iter_mut().zip(a).for_each(|(row, a)| *row += scale * factor * a);
            }
        }
        Some(change)
    }

    /// Returns an error if experts are routed, which only a CPU runs.
    pub(crate) fn refuse_routed(&self, device: &str) -> Result<()> {
        if self.modules.values().all(|change| change.router.is_none()) {
            return Ok(());
        }
        Err(Error::Unsupported {
            file: self.file.clone(),
            what: format!("an adapter on {device}"),
            found: "routed experts (SMILE)".into(),
            supported: "LoRA; on a CPU also routed experts: --device cpu".into(),
        })
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
            match shapes.get(&format!("{module}.weight")).filter(|_| !is_table_part(module)) {
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

/// Gives a tensor of an adapter the name and form that belong to a module of [`crate::arch`].
///
/// # Errors
/// Those of [`Spelling::tensor`].
pub fn respelled(spelling: &Spelling, tensor: Tensor) -> Result<Tensor> {
    let Some(name) = tensor.name.strip_prefix(PREFIX).map(of_text_model) else { return Ok(tensor) };
    let tensor = spelling.tensor(tensor.renamed(name))?;
    let name = format!("{PREFIX}{}", tensor.name);
    Ok(tensor.renamed(name))
}

/// Returns the name that [`crate::arch`] gives to a tensor of an adapter, without [`PREFIX`].
#[must_use]
pub fn own_name(spelling: &Spelling, stored: &str) -> String {
    spelling.name(&of_text_model(stored))
}

/// Adapters of a model of several parts name the text model within it.
fn of_text_model(name: &str) -> String {
    checkpoint::text_tensor_name(name).unwrap_or_else(|| name.to_owned())
}

/// True for the embedding, the second factors of tables and their kept rows, which are no linear layers of their own.
fn is_table_part(module: &str) -> bool {
    [EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, HEAD_FACTOR, HEAD_KEPT].contains(&&*format!("{module}.weight"))
}

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
            Some(b) => drop(modules.insert(module, LowRank { a, b, scale, router: None })),
            None => problems.push(format!("`{}` is missing", names(&module)[1])),
        }
    }
    problems.extend(ups.into_keys().map(|module| format!("`{}` is missing", names(&module)[0])));
    if problems.is_empty() { Ok(modules) } else { Err(Error::Tensors { file: file.to_owned(), problems }) }
}

/// Finds the three matrices of each module of routed experts.
fn routed(file: &str, tensors: Vec<Tensor>, (experts, per_token): (usize, usize)) -> Result<BTreeMap<String, LowRank>> {
    let mut parts: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
    let mut problems = Vec::new();
    for tensor in tensors {
        let module = tensor.name.strip_prefix(PREFIX).unwrap_or_default();
        let found = RoutedNames::ENDS.iter().enumerate();
        let place = found.filter_map(|(place, end)| Some((place, module.strip_suffix(end)?.to_owned()))).next();
        match place {
            Some((place, module)) if tensor.shape.len() == 2 => parts.entry(module).or_default()[place] = Some(tensor),
            _ => problems.push(format!("`{}` is not a matrix of routed experts", tensor.name)),
        }
    }
    let mut modules = BTreeMap::new();
    for (module, matrices) in parts {
        let [Some(a), Some(b), Some(rows)] = matrices else {
            problems.push(format!("`{module}` lacks one of {}", RoutedNames::ENDS.join(", ")));
            continue;
        };
        let fits = a.rows() == b.columns() && a.columns() == rows.columns();
        if !fits || [a.rows(), rows.rows()].iter().any(|rows| *rows == 0 || !rows.is_multiple_of(experts)) {
            problems.push(format!("`{module}` has matrices of other shapes than {experts} experts have"));
            continue;
        }
        let router = Some(Router { rows, experts, per_token });
        modules.insert(module, LowRank { a, b, scale: 1.0, router });
    }
    if problems.is_empty() { Ok(modules) } else { Err(Error::Tensors { file: file.to_owned(), problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

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
