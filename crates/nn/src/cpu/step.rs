//! One ragged step: all tokens through a layer at once, attention by sequence.

use super::Weights;
use super::layer::LayerWeights;
use super::linear::{self, Activations};
use crate::arch::Blueprint;
use crate::cache::{LayerCache, Slot};
use crate::executor::Span;
use crate::kernels::{self, Attention, Rotation, Workers};

/// Floats that are worth a piece of work of their own in an elementwise pass.
const FLOATS_PER_PIECE: usize = 1 << 12;
/// Multiplications that are in attention.
const ATTENTION_PER_PIECE: usize = 1 << 14;

/// Buffers kept from step to step. Each is `(tokens, width)` of the step at hand.
#[derive(Default)]
pub(super) struct Scratch {
    /// The residual stream.
    x: Vec<f32>,
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    output: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    activations: Activations,
    /// Per rotary embedding: cosines and sines, `(tokens, dims / 2)` each.
    angles: Vec<[Vec<f32>; 2]>,
}

/// A step under way.
pub(super) struct Step<'a> {
    plan: &'a Blueprint,
    weights: &'a Weights,
    workers: &'a Workers<'a>,
    scratch: &'a mut Scratch,
    /// Of each span.
    slots: &'a mut [Slot],
    spans: &'a [Span<'a>],
    /// Of each token: its span, and its position.
    places: Vec<(usize, usize)>,
}

impl<'a> Step<'a> {
    /// Embeds the tokens of spans, which are valid and not empty, each with its slot.
    pub(super) fn new(
        plan: &'a Blueprint,
        weights: &'a Weights,
        workers: &'a Workers<'a>,
        scratch: &'a mut Scratch,
        slots: &'a mut [Slot],
        spans: &'a [Span<'a>],
    ) -> Self {
        let places = spans.iter().enumerate();
        let places =
            places.flat_map(|(index, span)| (0..span.tokens.len()).map(move |token| (index, span.start + token)));
        let mut step = Self { plan, weights, workers, scratch, slots, spans, places: places.collect() };
        step.embed();
        step.set_angles();
        for (span, slot) in spans.iter().zip(&mut *step.slots) {
            slot.tokens.extend_from_slice(span.tokens);
        }
        step
    }

    /// All layers, to the wanted rows after the final norm.
    pub(super) fn run(mut self) -> Vec<f32> {
        (0..self.plan.layers.len()).for_each(|index| self.layer(index));
        self.finish()
    }

    fn embed(&mut self) {
        let width = self.plan.hidden;
        self.scratch.x.resize(self.places.len() * width, 0.0);
        let tokens = self.spans.iter().flat_map(|span| span.tokens);
        for (row, token) in self.scratch.x.chunks_exact_mut(width).zip(tokens) {
            self.weights.embedding.dequantize_row(*token as usize, row);
            if self.plan.embedding_scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= self.plan.embedding_scale);
            }
        }
    }

    fn set_angles(&mut self) {
        self.scratch.angles.resize_with(self.plan.ropes.len(), Default::default);
        for (rope, [cos, sin]) in self.plan.ropes.iter().zip(&mut self.scratch.angles) {
            let frequencies = [false, true].map(|long| rope.frequencies(long));
            let factor = rope.attention_factor();
            cos.clear();
            sin.clear();
            for (span, position) in &self.places {
                for frequency in &frequencies[usize::from(self.slots[*span].long)] {
                    // The product in single precision, as the reference implementations have it.
                    let angle = f64::from(*position as f32 * frequency);
                    cos.push(angle.cos() as f32 * factor);
                    sin.push(angle.sin() as f32 * factor);
                }
            }
        }
    }

    /// The whole of one layer.
    fn layer(&mut self, index: usize) {
        let layer = &self.weights.layers[index];
        self.project_heads(layer);
        self.rotate(index);
        self.append(index);
        self.attend(index);
        let Scratch { attended, output, activations, .. } = &mut *self.scratch;
        linear::apply(self.workers, attended, activations, [(&layer.output, output)]);
        self.residual(layer.post_attention.as_deref());
        self.feed_forward(layer);
        self.residual(layer.post_mlp.as_deref());
    }

    /// Queries, keys and values of all tokens.
    fn project_heads(&mut self, layer: &LayerWeights) {
        let (workers, plan) = (self.workers, self.plan);
        let Scratch { x, normed, query, key, value, activations, .. } = &mut *self.scratch;
        let input = pre_norm(workers, plan, layer.pre_attention.as_deref(), x, normed);
        let layers = [(&layer.query, &mut *query), (&layer.key, &mut *key), (&layer.value, value)];
        linear::apply(workers, input, activations, layers);
        for (heads, weight) in [(query, &layer.query_norm), (key, &layer.key_norm)] {
            if let Some(weight) = weight {
                norm(workers, heads, weight, plan.norms.eps);
            }
        }
    }

    fn rotate(&mut self, index: usize) {
        let plan = self.plan;
        let rope = plan.layers[index].rope;
        let (pairs, interleaved) = (plan.ropes[rope].dims / 2, plan.ropes[rope].interleaved);
        let Scratch { query, key, angles, .. } = &mut *self.scratch;
        let [cos, sin] = &angles[rope];
        for (heads, width) in [(query, plan.query_width()), (key, plan.kv_width())] {
            let angles = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
            for (heads, (cos, sin)) in heads.chunks_exact_mut(width).zip(angles) {
                kernels::rotate(heads, plan.head_dim, Rotation { cos, sin, interleaved });
            }
        }
    }

    fn append(&mut self, index: usize) {
        let width = self.plan.kv_width();
        let mut first = 0;
        for (span, slot) in self.spans.iter().zip(&mut *self.slots) {
            let range = first * width..(first + span.tokens.len()) * width;
            let (keys, values) = (&self.scratch.key[range.clone()], &self.scratch.value[range]);
            slot.layers[index].append(keys, values, self.plan.head_dim);
            first += span.tokens.len();
        }
    }

    /// A task is one token in one key and value head.
    fn attend(&mut self, index: usize) {
        let plan = self.plan;
        let simd = self.workers.simd();
        let window = plan.layers[index].window.unwrap_or(usize::MAX);
        let caches: Vec<&LayerCache> = self.slots.iter().map(|slot| &slot.layers[index]).collect();
        let width = plan.query_width() / plan.kv_heads;
        let places = &self.places;
        let Scratch { query, attended, .. } = &mut *self.scratch;
        attended.resize(query.len(), 0.0);
        let positions: usize = places.iter().map(|(_, position)| window.min(position + 1)).sum();
        let tasks_per_piece = ATTENTION_PER_PIECE.div_ceil(2 * positions / places.len() * width);
        self.workers.chunks(attended, tasks_per_piece * width, 1, |piece, attended| {
            let mut scores = Vec::new();
            for (task, out) in (piece * tasks_per_piece..).zip(attended.chunks_exact_mut(width)) {
                let (span, position) = places[task / plan.kv_heads];
                let seen = window.min(position + 1);
                let head = &caches[span].heads[task % plan.kv_heads];
                let start = (position + 1 - seen) * plan.head_dim;
                let attention = Attention {
                    queries: &query[task * width..][..width],
                    keys: &head.keys[start..],
                    values: &head.values[start..],
                    seen,
                    head_dim: plan.head_dim,
                    scale: plan.attention_scale,
                    softcap: plan.attention_softcap,
                };
                kernels::attend(simd, attention, &mut scores, out);
            }
        });
    }

    /// From the residual stream into `output`.
    fn feed_forward(&mut self, layer: &LayerWeights) {
        let (workers, plan) = (self.workers, self.plan);
        let Scratch { x, normed, output, gate, up, activations, .. } = &mut *self.scratch;
        let input = pre_norm(workers, plan, layer.pre_mlp.as_deref(), x, normed);
        linear::apply(workers, input, activations, [(&layer.gate, &mut *gate), (&layer.up, &mut *up)]);
        let simd = workers.simd();
        workers.chunks(gate, FLOATS_PER_PIECE, 1, |index, gate| {
            let up = &up[index * FLOATS_PER_PIECE..][..gate.len()];
            kernels::gate(simd, gate, up, plan.activation);
        });
        linear::apply(workers, gate, activations, [(&layer.down, output)]);
    }

    /// Adds `output`, normed where the layer has a norm there, to the residual stream.
    fn residual(&mut self, post_norm: Option<&[f32]>) {
        let Scratch { x, output, .. } = &mut *self.scratch;
        if let Some(weight) = post_norm {
            norm(self.workers, output, weight, self.plan.norms.eps);
        }
        kernels::add(self.workers.simd(), x, output);
    }

    /// The wanted rows after the final norm.
    fn finish(self) -> Vec<f32> {
        let width = self.plan.hidden;
        let mut wanted = Vec::with_capacity(self.spans.iter().map(|span| span.rows.len()).sum::<usize>() * width);
        let mut first = 0;
        for span in self.spans {
            let rows = (first + span.rows.start) * width..(first + span.rows.end) * width;
            wanted.extend_from_slice(&self.scratch.x[rows]);
            first += span.tokens.len();
        }
        norm(self.workers, &mut wanted, &self.weights.final_norm, self.plan.norms.eps);
        wanted
    }
}

/// `x` normed into `normed`, or `x` itself where there is no norm.
fn pre_norm<'a>(
    workers: &Workers<'_>,
    plan: &Blueprint,
    weight: Option<&[f32]>,
    x: &'a [f32],
    normed: &'a mut Vec<f32>,
) -> &'a [f32] {
    let Some(weight) = weight else { return x };
    normed.clear();
    normed.extend_from_slice(x);
    norm(workers, normed, weight, plan.norms.eps);
    normed
}

fn norm(workers: &Workers<'_>, x: &mut [f32], weight: &[f32], eps: f32) {
    let (simd, rows) = (workers.simd(), FLOATS_PER_PIECE.div_ceil(weight.len()));
    workers.chunks(x, rows * weight.len(), 1, |_, x| kernels::rms_norm(simd, x, weight, eps));
}
