//! SMILE (Tang et al. 2024, arXiv 2408.10174): the base and, in each linear layer, experts of low rank
//! of which a router chooses by the energy of the input in their right singular spaces.
//!
//! The singular vectors of each change `W_i - W = U S V` give the expert `E_i(x) = U S V x` of rank `k`
//! and the router's rows, the first rows of `V`. Embeddings, heads, norms and biases stay the base's.

use nalgebra::DMatrix;
use wsd_nn::adapter::{ROUTED, RoutedNames};
use wsd_nn::{Checkpoint, Format, Tensor, arch};

use super::{Expert, check};
use crate::error::{Error, Result};
use crate::svd::{Svd, truncated_svd};

/// The sizes of a routed mixture.
#[derive(Clone, Copy, Debug)]
pub struct SmileOptions {
    /// Rank of each expert.
    pub rank: usize,
    /// Rows of the router for each expert.
    pub router_rank: usize,
    /// Experts that each token takes.
    pub experts_per_token: usize,
    /// The number format of the experts and of the router.
    pub format: Format,
}

/// Returns the matrices of routed experts over a base, and the configuration of their adapter.
///
/// # Errors
/// Those of [`super::merge`]; ranks of 0, or more experts per token than there are.
pub fn smile(
    base: &Checkpoint,
    experts: &[Expert],
    options: SmileOptions,
    mut report: impl FnMut(usize, usize),
) -> Result<(Vec<Tensor>, serde_json::Value)> {
    check(base, experts, None)?;
    let SmileOptions { rank, router_rank, experts_per_token, .. } = options;
    if rank == 0 {
        return Err(Error::setting("rank", "at least 1", rank));
    }
    if router_rank == 0 || router_rank > rank {
        return Err(Error::setting("router_rank", format!("from 1 to the rank, {rank}"), router_rank));
    }
    if experts_per_token == 0 || experts_per_token > experts.len() {
        let limit = format!("from 1 to the number of experts, {}", experts.len());
        return Err(Error::setting("experts_per_token", limit, experts_per_token));
    }
    let blueprint = arch::blueprint(&base.config)?;
    let modules = arch::tensors(&blueprint).into_iter().filter_map(|(name, shape)| {
        let module = name.strip_suffix(".weight")?;
        (shape.len() == 2 && arch::layer_module(module).is_some()).then(|| module.to_owned())
    });
    let modules: Vec<String> = modules.collect();
    let mut tensors = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        report(index, modules.len());
        tensors.extend(routed(base, experts, options, module)?);
    }
    report(modules.len(), modules.len());
    let config = serde_json::json!({
        "peft_type": ROUTED, "r": rank, "router_rank": router_rank, "num_experts": experts.len(),
        "num_experts_per_tok": experts_per_token, "experts": experts.iter().map(|it| &it.name).collect::<Vec<_>>(),
    });
    Ok((tensors, config))
}

/// The matrices of a module: those of its experts one after the other, or none if no expert changes it.
fn routed(base: &Checkpoint, experts: &[Expert], options: SmileOptions, module: &str) -> Result<Vec<Tensor>> {
    let name = format!("{module}.weight");
    let Some(weight) = base.weights.get(&name) else { return Ok(Vec::new()) };
    let (values, outputs, inputs) = (weight.to_f32(), weight.rows(), weight.columns());
    let rank = options.rank.min(outputs.min(inputs));
    let (mut router, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_changed = false;
    for expert in experts {
        let change = expert.values(weight, &values)?.into_iter().zip(&values).map(|(expert, base)| expert - base);
        let change = DMatrix::from_row_iterator(outputs, inputs, change);
        is_changed |= change.iter().any(|value| *value != 0.0);
        let Svd { u, s, v } = truncated_svd(&change, rank);
        router.extend(v.rows(0, options.router_rank.min(rank)).transpose().iter().copied());
        a.extend((DMatrix::from_diagonal(&s.into()) * v).transpose().iter().copied());
        b.push(u);
    }
    if !is_changed {
        return Ok(Vec::new());
    }
    // Rows of `b` hold the experts side by side.
    let b = (0..outputs).flat_map(|row| b.iter().flat_map(move |u| u.row(row).iter().copied().collect::<Vec<_>>()));
    let RoutedNames { a: a_name, b: b_name, router: router_name } = RoutedNames::of(module);
    let tensor = |name: String, rows: usize, values: Vec<f32>| -> Result<Tensor> {
        let shape = vec![rows, values.len() / rows];
        Ok(Tensor::new(name, options.format, shape, options.format.quantize(&values)?)?)
    };
    Ok(vec![
        tensor(a_name, experts.len() * rank, a)?,
        tensor(b_name, outputs, b.collect())?,
        tensor(router_name, router.len() / inputs, router)?,
    ])
}
