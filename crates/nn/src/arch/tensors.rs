//! The names and shapes of the tensors of a model.

use super::{Blueprint, Head, LayerParts, StoredLinear, StoredNorm};

/// The prefix of the names of all tensors in layers.
pub(super) const LAYERS: &str = "model.layers.";
/// The name of the embedding, or of its rows in the space of its factor.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The name of the second factor of an embedding, `(hidden, rank)`, and of a head tied to it.
pub const EMBEDDING_FACTOR: &str = "model.embed_tokens.projection.weight";
/// The name of the second factor of a vocabulary head, `(rank, hidden)`.
pub const HEAD_FACTOR: &str = "lm_head.projection.weight";
/// The name of the rows that are added to those of kept tokens, `(tokens, hidden)`, in the embedding
/// and a head tied to it.
pub const EMBEDDING_KEPT: &str = "model.embed_tokens.kept.weight";
/// The name of those in a vocabulary head of its own.
pub const HEAD_KEPT: &str = "lm_head.kept.weight";
/// The name of the embedding of positions.
pub const POSITIONS: &str = "model.embed_positions.weight";
/// The name of the sinks within a layer.
pub const SINKS: &str = "self_attn.sinks";

/// Splits the name of a tensor or a module in a layer into the index of the layer and the name
/// within it.
pub fn layer_module(name: &str) -> Option<(usize, &str)> {
    let (index, name) = name.strip_prefix(LAYERS)?.split_once('.')?;
    Some((index.parse().ok()?, name))
}

/// Lists every tensor that a file of the model must have: its name and its shape, matrices as
/// `(outputs, inputs)`.
///
/// # Examples
/// ```
/// # use std::path::Path;
/// use wsd_nn::{Checkpoint, arch};
///
/// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
/// let checkpoint = Checkpoint::open(&path)?;
/// let needed = arch::tensors(&arch::blueprint(&checkpoint.config)?);
/// assert_eq!(checkpoint.weights.require(&needed)?.len(), needed.len());
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[must_use]
pub fn tensors(plan: &Blueprint) -> Vec<(String, Vec<usize>)> {
    let width = |rank: Option<usize>| rank.unwrap_or(plan.hidden);
    let kept = |name: &str| {
        let count = plan.factors.kept.len();
        (count > 0).then(|| (name.to_owned(), vec![count, plan.hidden]))
    };
    let mut list = vec![
        (EMBEDDING.to_owned(), vec![plan.vocab, width(plan.factors.embedding)]),
        ("model.norm.weight".to_owned(), vec![plan.hidden]),
    ];
    if let Some(rank) = plan.factors.embedding {
        list.push((EMBEDDING_FACTOR.to_owned(), vec![plan.hidden, rank]));
        list.extend(kept(EMBEDDING_KEPT));
    }
    if plan.norms.bias {
        list.push(("model.norm.bias".to_owned(), vec![plan.hidden]));
    }
    if plan.positions {
        list.push((POSITIONS.to_owned(), vec![plan.max_len, plan.hidden]));
    }
    for head in &plan.output_heads {
        let is_embedding = plan.tied && head.head == Head::VOCABULARY;
        if !is_embedding {
            let rank = plan.factors.head.filter(|_| head.head == Head::VOCABULARY);
            list.push((head.head.weight(), vec![head.outputs, width(rank)]));
            if let Some(rank) = rank {
                list.push((HEAD_FACTOR.to_owned(), vec![rank, plan.hidden]));
                list.extend(kept(HEAD_KEPT));
            }
        }
        if head.bias {
            list.push((head.head.bias(), vec![head.outputs]));
        }
    }
    for index in 0..plan.layers.len() {
        let layer = layer_tensors(plan, &plan.layer());
        list.extend(layer.into_iter().map(|(name, shape)| (format!("{LAYERS}{index}.{name}"), shape)));
    }
    list
}

/// Lists the tensors of one layer of these parts. Parts of a fused matrix share an entry.
pub(super) fn layer_tensors(
    blueprint: &Blueprint,
    parts: &LayerParts<StoredNorm, StoredLinear>,
) -> Vec<(String, Vec<usize>)> {
    let mut norms: Vec<_> = parts.norms().collect();
    // A norm may serve two parts.
    norms.dedup_by_key(|norm| norm.module);
    let mut list = Vec::new();
    for norm in norms {
        list.push((format!("{}.weight", norm.module), vec![norm.width]));
        if norm.bias {
            list.push((format!("{}.bias", norm.module), vec![norm.width]));
        }
    }
    if blueprint.sinks {
        list.push((SINKS.to_owned(), vec![blueprint.heads]));
    }
    let mut linears: Vec<_> = parts.linears().collect();
    linears.dedup_by_key(|linear| &linear.module);
    for linear in linears {
        list.push((format!("{}.weight", linear.module), vec![linear.module_rows, linear.inputs]));
        if linear.bias {
            list.push((format!("{}.bias", linear.module), vec![linear.module_rows]));
        }
    }
    list
}
