//! The memory that passes take on a device.

use wsd_nn::Format;

use super::attention::BLOCK;
use crate::model::decoder::{Decoders, Model};
use crate::objectives::Needs;

/// Tokens that are computed at once, unless one example alone has more.
pub(super) const SHARD_TOKENS: usize = 2048;

/// Bytes of a float.
const FLOAT: usize = 4;

/// The bytes that passes of these needs take where operands are of this format, and an example and a
/// sequence have at most `longest` tokens.
pub(super) fn bytes(compute: Format, decoders: Decoders<'_>, needs: &[Needs], longest: [usize; 2]) -> usize {
    let operand = compute.block_bytes();
    let Model { decoder, layout, changing } = decoders.model;
    let (blueprint, layers) = (&decoder.blueprint, &decoder.layers);
    let [example, sequence] = longest;
    let linears = layers.iter().flat_map(|layer| {
        let expert = &layer.experts[0];
        [&layer.qkv, &layer.output, &expert.gates, &expert.down]
    });
    let factors = linears.flat_map(|linear| &linear.changes).map(|(_, change)| change.a.len() + change.b.len());
    let parameters: usize = factors.sum();
    let gradient = if changing.is_empty() { parameters } else { layout.len() };
    let reads_reference = needs.contains(&Needs::RowsAndReference);
    let reference = if reads_reference { decoders.reference.layout.len() } else { 0 };
    let weights = operand * (layout.len() + parameters + reference) + FLOAT * gradient;

    let (hidden, ffn, query) = (blueprint.hidden, blueprint.ffn, blueprint.query_width());
    let heads = query + 2 * blueprint.kv_width();
    let gates = if blueprint.gated { 2 * ffn } else { ffn };
    let raw = if layers.iter().any(|layer| layer.qk_norm.is_some()) { heads } else { 0 };
    let layer = operand * (2 * hidden + heads + query + ffn) + FLOAT * (3 * hidden + gates + raw);
    let kept = if decoder.recompute { 1 } else { layers.len() };
    let states = FLOAT * (layers.len() + 1) * hidden;
    let scratch = FLOAT * (heads + ffn.max(query) + 5 * hidden) + operand * (gates.max(heads) + query);
    let lists = if needs.iter().any(|needs| needs.rows()) { 2 } else { 1 };
    let head = blueprint.vocab * (FLOAT * lists + operand) + hidden * (2 * FLOAT + operand);
    // Scores and probabilities, and the gradients of both.
    let attention = blueprint.kv_heads * BLOCK.min(sequence) * sequence * 2 * (FLOAT + operand);
    weights + SHARD_TOKENS.max(example) * (kept * layer + states + scratch + head) + attention
}
