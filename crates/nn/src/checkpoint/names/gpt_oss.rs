//! The experts of gpt-oss, of which one tensor holds a part of all.

use std::collections::BTreeMap;

use super::Tensor;
use crate::error::Result;

/// Divides the parts of all experts of gpt-oss: matrices `(experts, inputs, outputs)`, or `(experts,
/// outputs, inputs)` in MXFP4, and biases `(experts, outputs)`. The rows of gate and up alternate.
pub(super) fn divide(tensor: &Tensor) -> Result<Vec<Tensor>> {
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

/// Stacks the parts of experts as [`divide`] found them, matrices as `(experts, inputs, outputs)`.
pub(super) fn stack(tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let mut stored = Vec::new();
    // By the name of the stacked tensor: the experts' own tensors, those of gates before those of ups.
    let mut parts: BTreeMap<String, BTreeMap<usize, BTreeMap<String, Tensor>>> = BTreeMap::new();
    for tensor in tensors {
        let Some((stacked, expert, part)) = place(&tensor.name) else {
            stored.push(tensor);
            continue;
        };
        parts.entry(stacked).or_default().entry(expert).or_default().insert(part, tensor);
    }
    for (name, experts) in parts {
        let own = experts.values().map(|parts| joined(&parts.values().collect::<Vec<_>>()));
        let own = own.collect::<Result<Vec<_>>>()?;
        let shape = [own.len()].into_iter().chain(own[0].shape.iter().copied()).collect();
        let bytes = own.iter().flat_map(Tensor::bytes).copied().collect();
        stored.push(Tensor::new(name, own[0].format, shape, bytes)?);
    }
    Ok(stored)
}

/// Returns the name of the stacked tensor, the index of the expert, and the name of its part.
fn place(name: &str) -> Option<(String, usize, String)> {
    let (layer, rest) = name.split_once(".mlp.experts.")?;
    let (expert, rest) = rest.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    let module = if part == "down_proj" { part } else { "gate_up_proj" };
    let end = if kind == "bias" { "_bias" } else { "" };
    Some((format!("{layer}.mlp.experts.{module}{end}"), expert.parse().ok()?, part.to_owned()))
}

/// One expert's part of a stacked tensor: a matrix is transposed, and rows of gate and up alternate.
fn joined(parts: &[&Tensor]) -> Result<Tensor> {
    let Tensor { name, format, shape, .. } = parts[0];
    let rows = shape[0];
    let bytes = parts.iter().flat_map(|part| part.bytes()).copied().collect();
    let shape = [rows * parts.len()].into_iter().chain(shape.iter().skip(1).copied()).collect();
    let whole = Tensor::new(&**name, *format, shape, bytes)?;
    let whole = whole.permuted(|row| row % parts.len() * rows + row / parts.len())?;
    if whole.shape.len() == 2 { whole.transposed() } else { Ok(whole) }
}
