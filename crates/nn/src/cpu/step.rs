//! One ragged step: all tokens through a layer at once, attention by sequence.

mod draft;

use super::attention::LayerAttention;
use super::experts::{ExpertScratch, Mixture};
use super::layer::{LayerWeights, Norm};
use super::linear::{self, Activations};
use super::model::{Embedding, Model};
use super::place::{Place, places};
use crate::cache::Slot;
use crate::executor::Span;
use crate::kernels::{self, Rotation, Workers};
pub(super) use draft::{Fusion, Sampling};

/// Buffers kept from step to step. Each holds `(tokens, width)` of the current step.
#[derive(Default)]
pub(super) struct Scratch {
    /// The residual stream.
    x: Vec<f32>,
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    /// Attention to parts of the cache.
    parts: Vec<f32>,
    output: Vec<f32>,
    /// The output of attention, while that of a parallel feed-forward part is computed.
    aside: Vec<f32>,
    experts: ExpertScratch,
    activations: Activations,
    /// Rows of a factored embedding.
    inner: Vec<f32>,
    /// Cosines and sines per rotary embedding, `(tokens, dims / 2)` each.
    angles: Vec<[Vec<f32>; 2]>,
}

/// The state of a step.
pub(super) struct Step<'a> {
    model: &'a Model,
    workers: &'a Workers<'a>,
    scratch: &'a mut Scratch,
    /// The cache of each span.
    slots: &'a mut [Slot],
    spans: &'a [Span<'a>],
    /// The place of each token.
    places: Vec<Place>,
    /// The returned rows, span after span.
    rows: Vec<f32>,
}

impl<'a> Step<'a> {
    /// Embeds the tokens of spans, which are valid and not empty, each with its slot.
    pub(super) fn new(
        model: &'a Model,
        workers: &'a Workers<'a>,
        scratch: &'a mut Scratch,
        slots: &'a mut [Slot],
        spans: &'a [Span<'a>],
    ) -> Self {
        let places = spans.iter().enumerate().flat_map(|(index, span)| places(index, span)).collect();
        let rows = spans.iter().map(|span| span.rows.len()).sum::<usize>() * model.blueprint.hidden;
        let mut step = Self { model, workers, scratch, slots, spans, places, rows: vec![0.0; rows] };
        step.embed();
        step.set_angles();
        for (span, slot) in spans.iter().zip(&mut *step.slots) {
            slot.tokens.extend_from_slice(span.tokens);
            slot.fork = span.fork();
        }
        step
    }

    /// The same step with its tokens at other places.
    pub(super) fn at(mut self, places: Vec<Place>) -> Self {
        self.places = places;
        self.set_angles();
        self
    }

    /// Runs all layers and returns the wanted rows.
    pub(super) fn run(mut self) -> Vec<f32> {
        self.collect(Some(0));
        for index in 0..self.model.blueprint.layers.len() {
            self.layer(index);
            self.collect(Some(index + 1));
        }
        self.collect(None);
        self.finish()
    }

    /// Copies the residual stream of the wanted rows of spans that ask for it at `depth`.
    fn collect(&mut self, depth: Option<usize>) {
        let width = self.model.blueprint.hidden;
        let (mut token, mut row) = (0, 0);
        for span in self.spans {
            if span.layer.depth() == depth {
                let from = (token + span.rows.start) * width..(token + span.rows.end) * width;
                self.rows[row * width..][..from.len()].copy_from_slice(&self.scratch.x[from]);
            }
            token += span.tokens.len();
            row += span.rows.len();
        }
    }

    /// Returns the wanted rows; those of spans that ask for it are normed.
    fn finish(mut self) -> Vec<f32> {
        let mut rest = &mut self.rows[..];
        for alike in self.spans.chunk_by(|one, other| one.layer == other.layer) {
            let floats = alike.iter().map(|span| span.rows.len()).sum::<usize>() * self.model.blueprint.hidden;
            let (rows, later) = std::mem::take(&mut rest).split_at_mut(floats);
            if alike[0].layer.is_normed() {
                self.model.final_norm.iter().for_each(|norm| norm.apply(self.workers, rows));
            }
            rest = later;
        }
        self.rows
    }

    fn embed(&mut self) {
        let width = self.model.blueprint.hidden;
        let Embedding { rows, factor, kept } = &self.model.embedding;
        let Scratch { x, inner, activations, .. } = &mut *self.scratch;
        let tokens = self.spans.iter().flat_map(|span| span.tokens);
        let out = if factor.is_some() { &mut *inner } else { &mut *x };
        out.resize(self.places.len() * rows.columns(), 0.0);
        for (row, token) in out.chunks_exact_mut(rows.columns()).zip(tokens) {
            rows.dequantize_row(*token as usize, row);
        }
        if let Some(factor) = factor {
            linear::apply(self.workers, inner, activations, [(factor, &mut *x)]);
        }
        if let Some(kept) = kept {
            let tokens = self.spans.iter().flat_map(|span| span.tokens);
            let mut own = vec![0.0; width];
            for (row, token) in x.chunks_exact_mut(width).zip(tokens) {
                let Ok(index) = self.model.blueprint.factors.kept.binary_search(token) else { continue };
                kept.dequantize_row(index, &mut own);
                kernels::add(self.model.simd, row, &own);
            }
        }
        if self.model.blueprint.embedding_scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= self.model.blueprint.embedding_scale);
        }
        if let Some(positions) = &self.model.positions {
            let mut embedding = vec![0.0; width];
            for (row, place) in self.scratch.x.chunks_exact_mut(width).zip(&self.places) {
                positions.dequantize_row(place.position, &mut embedding);
                kernels::add(self.model.simd, row, &embedding);
            }
        }
    }

    fn set_angles(&mut self) {
        self.scratch.angles.resize_with(self.model.blueprint.ropes.len(), Default::default);
        for (rope, [cos, sin]) in self.model.blueprint.ropes.iter().zip(&mut self.scratch.angles) {
            let frequencies = [false, true].map(|long| rope.frequencies(long));
            let factor = rope.attention_factor();
            cos.clear();
            sin.clear();
            for Place { span, position, .. } in &self.places {
                for frequency in &frequencies[usize::from(self.slots[*span].long)] {
                    // The product in single precision, as the reference implementations have it.
                    let angle = f64::from(*position as f32 * frequency);
                    cos.push(angle.cos() as f32 * factor);
                    sin.push(angle.sin() as f32 * factor);
                }
            }
        }
    }

    /// Runs one layer.
    fn layer(&mut self, index: usize) {
        let layer = &self.model.layers[index];
        let parts = &layer.parts;
        self.attention(index);
        if !self.model.blueprint.parallel {
            self.residual(parts.post_attention.as_ref());
            self.feed_forward(layer);
        } else {
            self.exchange();
            self.feed_forward(layer);
            self.exchange();
            self.residual(parts.post_attention.as_ref());
            self.exchange();
        }
        self.residual(parts.post_mlp.as_ref());
    }

    /// Computes the attention part of a layer, from the residual stream into `output`.
    fn attention(&mut self, index: usize) {
        let layer = &self.model.layers[index];
        self.project_heads(layer);
        self.rotate(index);
        self.append(index);
        self.attend(index);
        let Scratch { attended, output, activations, .. } = &mut *self.scratch;
        linear::apply(self.workers, attended, activations, [(&layer.parts.output, output)]);
    }

    /// Exchanges the output of a part with the one that was put aside.
    fn exchange(&mut self) {
        std::mem::swap(&mut self.scratch.output, &mut self.scratch.aside);
    }

    /// Computes queries, keys and values of all tokens.
    fn project_heads(&mut self, layer: &LayerWeights) {
        let workers = self.workers;
        let Scratch { x, normed, query, key, value, activations, .. } = &mut *self.scratch;
        let parts = &layer.parts;
        let input = pre_norm(workers, parts.pre_attention.as_ref(), x, normed);
        let layers = [(&parts.query, &mut *query), (&parts.key, &mut *key), (&parts.value, value)];
        linear::apply(workers, input, activations, layers);
        for (heads, norm) in [(query, &parts.query_norm), (key, &parts.key_norm)] {
            norm.iter().for_each(|norm| norm.apply(workers, heads));
        }
    }

    fn rotate(&mut self, index: usize) {
        let blueprint = &self.model.blueprint;
        let Some(rope) = blueprint.layers[index].rope else { return };
        let (pairs, interleaved) = (blueprint.ropes[rope].dims / 2, blueprint.ropes[rope].interleaved);
        let Scratch { query, key, angles, .. } = &mut *self.scratch;
        let [cos, sin] = &angles[rope];
        for (heads, width) in [(query, blueprint.query_width()), (key, blueprint.kv_width())] {
            let angles = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
            for (heads, (cos, sin)) in heads.chunks_exact_mut(width).zip(angles) {
                kernels::rotate(heads, blueprint.head_dim, Rotation { cos, sin, interleaved });
            }
        }
    }

    fn append(&mut self, index: usize) {
        let width = self.model.blueprint.kv_width();
        let mut first = 0;
        for (span, slot) in self.spans.iter().zip(&mut *self.slots) {
            let range = first * width..(first + span.tokens.len()) * width;
            let (keys, values) = (&self.scratch.key[range.clone()], &self.scratch.value[range]);
            slot.layers[index].append(keys, values, self.model.blueprint.head_dim);
            first += span.tokens.len();
        }
    }

    /// Computes attention.
    fn attend(&mut self, index: usize) {
        let attention = LayerAttention {
            simd: self.model.simd,
            blueprint: &self.model.blueprint,
            format: self.model.kv,
            window: self.model.blueprint.layers[index].window.unwrap_or(usize::MAX),
            sinks: &self.model.layers[index].sinks,
            caches: self.slots.iter().map(|slot| &slot.layers[index]).collect(),
            places: &self.places,
            spans: self.spans,
        };
        let Scratch { query, attended, parts, .. } = &mut *self.scratch;
        attended.resize(query.len(), 0.0);
        attention.apply(self.workers, query, parts, attended);
    }

    /// Computes the feed-forward part, from the residual stream into `output`.
    fn feed_forward(&mut self, layer: &LayerWeights) {
        let (workers, blueprint, parts) = (self.workers, &self.model.blueprint, &layer.parts);
        let Scratch { x, normed, output, experts, activations, .. } = &mut *self.scratch;
        let input = pre_norm(workers, parts.pre_mlp.as_ref(), x, normed);
        let activation = blueprint.activation;
        match (&parts.router, blueprint.experts) {
            (Some(router), Some(plan)) => {
                let mixture = Mixture { experts: &parts.experts, router, plan, activation, hidden: blueprint.hidden };
                mixture.apply(workers, input, (experts, activations), output);
            }
            _ => parts.experts[0].apply(workers, activation, (experts, activations), (input, output)),
        }
    }

    /// Adds `output` to the residual stream, after a norm if the layer has one there.
    fn residual(&mut self, post_norm: Option<&Norm>) {
        let Scratch { x, output, .. } = &mut *self.scratch;
        post_norm.into_iter().for_each(|norm| norm.apply(self.workers, output));
        let scale = self.model.blueprint.residual_scale;
        if scale != 1.0 {
            output.iter_mut().for_each(|value| *value *= scale);
        }
        kernels::add(self.workers.simd(), x, output);
    }
}

/// Returns `x` normed, in `normed`, or `x` itself without a norm.
fn pre_norm<'a>(workers: &Workers<'_>, norm: Option<&Norm>, x: &'a [f32], normed: &'a mut Vec<f32>) -> &'a [f32] {
    let Some(norm) = norm else { return x };
    normed.clear();
    normed.extend_from_slice(x);
    norm.apply(workers, normed);
    normed
}
