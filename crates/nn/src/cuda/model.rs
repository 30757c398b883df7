//! The weights of a model on a GPU, arranged for the kernels.

mod experts;
mod loader;

use std::sync::Arc;

use super::driver::Buffer;
use super::matrix::{Matrix, TILE};
use super::program::{Epilogue, MOST_USED, Types, Uses, most_rows};
use super::storage::PANEL_VALUES;
use crate::arch::{Blueprint, Head, LayerParts, QkNorm};
use crate::format::Format;
use crate::kernels::KvFormat;
pub(super) use experts::{Mixture, Stack};
pub(super) use loader::Loader;

/// A linear layer: matrices whose outputs follow one another, and their bias.
pub(super) struct Linear {
    pub(super) parts: Vec<Part>,
    /// One value for each stored output.
    pub(super) bias: Option<Buffer>,
    /// Outputs, as they are stored.
    pub(super) outputs: usize,
    /// Inputs, padded.
    pub(super) inputs: usize,
}

impl Linear {
    /// The most rows that its kernels take at once.
    pub(super) fn most_rows(&self) -> usize {
        self.parts.iter().map(|part| most_rows(part.matrix.format)).min().unwrap_or(0)
    }
}

/// A part of a linear layer.
pub(super) struct Part {
    pub(super) matrix: Arc<Matrix>,
    /// The first output.
    pub(super) first: usize,
}

/// A norm, with the architecture's offset added to its weight.
pub(super) struct Norm {
    pub(super) weight: Buffer,
    pub(super) shift: Option<Buffer>,
}

/// A layer.
pub(super) struct Layer {
    pub(super) norms: LayerParts<Norm, ()>,
    /// A score for each query head.
    pub(super) sinks: Option<Buffer>,
    /// Queries, keys and values.
    pub(super) heads: Linear,
    pub(super) output: Linear,
    pub(super) feed_forward: FeedForward,
}

/// The feed-forward part of a layer.
pub(super) enum FeedForward {
    /// One expert.
    Dense {
        /// Gate and up, whose rows alternate; without a gate only up.
        gates: Linear,
        down: Linear,
    },
    Mixture(Box<Mixture>),
}

/// The weights of consecutive layers, and what is before the first and behind the last one.
pub(super) struct Weights {
    /// The embedding; in the first stage alone.
    pub(super) embedding: Option<Arc<Matrix>>,
    /// The embedding of positions.
    pub(super) positions: Option<Buffer>,
    pub(super) layers: Vec<Layer>,
    /// The norm of what the last of these layers leaves.
    pub(super) next_norm: Option<Norm>,
    pub(super) final_norm: Norm,
    /// The output heads; in the last stage alone.
    pub(super) heads: Vec<(Head, Linear)>,
}

/// The first property of a model that this executor does not have.
pub(super) fn missing(blueprint: &Blueprint) -> Option<&'static str> {
    let has_experts = blueprint.experts.is_some();
    let properties = [
        (has_experts && !blueprint.gated, "experts without a gate"),
        (blueprint.experts.is_some_and(|experts| experts.used > MOST_USED), "more than 64 experts for a token"),
    ];
    properties.into_iter().find(|(is_there, _)| *is_there).map(|(_, name)| name)
}

/// The kernel of queries, keys and values can rotate and store them itself.
pub(super) fn rotates_directly(blueprint: &Blueprint, kv: KvFormat) -> bool {
    // Bytes are stored by whole rows, whose scales depend on all of their numbers.
    let by_numbers = kv != KvFormat::Q8_0;
    by_numbers && blueprint.head_dim.is_multiple_of(TILE) && blueprint.qk_norm == QkNorm::None
}

/// Norms cost no launch of their own: both of a layer are on the inputs, where activations have a
/// wide range.
pub(super) fn folds_norms(blueprint: &Blueprint, compute: Format) -> bool {
    let norms = &blueprint.norms;
    let on_inputs = norms.pre_attention.is_some() && norms.pre_mlp.is_some();
    let is_centered = norms.centered || norms.bias;
    let is_plain =
        !is_centered && !blueprint.parallel && blueprint.residual_scale == 1.0 && blueprint.experts.is_none();
    let on_outputs = norms.post_attention.is_some() || norms.post_mlp.is_some();
    is_plain && on_inputs && !on_outputs && compute != Format::F16
}

impl Weights {
    /// The formats and last steps that the kernels must have.
    pub(super) fn uses(&self, blueprint: &Blueprint, types: Types) -> Uses {
        let mut uses = Uses::default();
        // A step of more rows than its kernel takes is done in passes without a last step of its own.
        let mut add = |linear: &Linear, epilogue: Epilogue| {
            for part in &linear.parts {
                uses.linear.extend([epilogue, Epilogue::Out].map(|epilogue| (part.matrix.format.name(), epilogue)));
            }
        };
        let heads = if rotates_directly(blueprint, types.kv) { Epilogue::Heads } else { Epilogue::Out };
        let sums = if folds_norms(blueprint, types.compute) { Epilogue::Residual } else { Epilogue::Out };
        for layer in &self.layers {
            add(&layer.heads, heads);
            add(&layer.output, sums);
            match &layer.feed_forward {
                FeedForward::Dense { gates, down } => {
                    add(gates, if blueprint.gated { Epilogue::Gate } else { Epilogue::Out });
                    add(down, sums);
                }
                FeedForward::Mixture(mixture) => add(&mixture.router, Epilogue::Out),
            }
        }
        self.heads.iter().for_each(|(_, head)| add(head, Epilogue::Out));
        for layer in &self.layers {
            if let FeedForward::Mixture(mixture) = &layer.feed_forward {
                let Mixture { gates, down, .. } = &**mixture;
                uses.experts.insert((gates.matrix.format.name(), Epilogue::Gate));
                uses.experts.insert((down.matrix.format.name(), Epilogue::Out));
            }
        }
        uses
    }

    /// The most rows that the kernels of these layers take at once.
    pub(super) fn most_rows(&self) -> usize {
        self.linears().map(Linear::most_rows).min().unwrap_or(0)
    }

    /// Values of the largest matrix of blocks that is widened to be multiplied, or of a part of it.
    pub(super) fn panel_values(&self) -> usize {
        let heads = self.heads.iter().map(|(_, head)| head);
        let parts = self.linears().chain(heads).flat_map(|linear| &linear.parts);
        let blocks = parts.filter(|part| part.matrix.format.block_values() > 1);
        let values = blocks.map(|part| part.matrix.outputs.next_multiple_of(TILE) * part.matrix.inputs);
        values.max().unwrap_or(0).min(PANEL_VALUES)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|layer| {
            let feed_forward = match &layer.feed_forward {
                FeedForward::Dense { gates, down } => vec![gates, down],
                FeedForward::Mixture(mixture) => vec![&mixture.router],
            };
            [&layer.heads, &layer.output].into_iter().chain(feed_forward)
        })
    }
}
