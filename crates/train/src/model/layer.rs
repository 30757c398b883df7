//! Forward and backward pass of one decoder layer.

use std::ops::Range;

use wsd_nn::kernels::rotate;

use super::attention::{Attended, AttentionScratch, Heads};
use super::buffer::{sized, zeroed};
use super::decoder::Decoder;
use super::expert::Passages;
use super::feed_forward::{FeedForward, FeedForwardScratch};
use super::norm::NormPlace;
use super::places::Read;
use super::shard::Span;

/// Activations saved for the backward pass, one row per token.
#[derive(Default)]
pub(super) struct Activations {
    normed: Vec<f32>,
    /// Queries, keys and values before the norms of queries and keys; empty without these norms.
    raw: Vec<f32>,
    qkv: Vec<f32>,
    log_sums: Vec<f32>,
    attended: Vec<f32>,
    /// The output of attention before its norm.
    projected: Vec<f32>,
    /// The residual stream between attention and the feed-forward part.
    middle: Vec<f32>,
    middle_normed: Vec<f32>,
    feed_forward: Passages,
    /// The output of the feed-forward part before its norm.
    lowered: Vec<f32>,
}

/// Buffers that all layers share.
#[derive(Default)]
pub(super) struct Scratch {
    attention: AttentionScratch,
    feed_forward: FeedForwardScratch,
    /// Rows of the width of the queries.
    attended: Vec<f32>,
    qkv: Vec<f32>,
    /// Rows of the width of the residual stream.
    narrow: Vec<f32>,
    /// Rows of the width of the residual stream.
    other: Vec<f32>,
    /// Rows of the width of the residual stream.
    part: Vec<f32>,
    /// The gradients of the output of a layer of parallel parts.
    output: Vec<f32>,
}

/// The buffers that a backward pass writes.
pub(super) struct Backward<'a> {
    /// The gradient, to be added to.
    pub(super) gradient: &'a mut [f32],
    pub(super) scratch: &'a mut Scratch,
}

/// One layer applied to the sequences of a shard.
pub(super) struct LayerRun<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) index: usize,
    pub(super) read: Read<'a>,
    pub(super) spans: &'a [Span],
}

impl LayerRun<'_> {
    /// Sets `out` to the layer's output for `x`, both `(tokens, hidden)`. A layer whose feed-forward part
    /// has outputs of several branches, as that of a draft head, has an output of each: the residual
    /// stream is added to all of them.
    pub(super) fn forward(&self, x: &[f32], kept: &mut Activations, out: &mut Vec<f32>, scratch: &mut Scratch) {
        let (blueprint, places) = (&self.decoder.blueprint, &self.decoder.layers[self.index]);
        let (hidden, tokens) = (blueprint.hidden, x.len() / blueprint.hidden);
        let normed = self.norm(places.pre_attention.as_ref(), x, &mut kept.normed);
        places.qkv.forward(self.read.weights, normed, sized(&mut kept.qkv, tokens * places.qkv.outputs));
        self.norm_heads(kept);
        self.rotate(&mut kept.qkv, false);
        self.attend(kept, tokens, &mut scratch.attention);
        places.output.forward(self.read.weights, &kept.attended, sized(&mut kept.projected, tokens * hidden));
        let output = self.norm(places.post_attention.as_ref(), &kept.projected, &mut scratch.other);
        sum(sized(&mut kept.middle, x.len()), x, output, blueprint.residual_scale);

        let input = if blueprint.parallel { x } else { &kept.middle };
        let normed = self.norm(places.pre_mlp.as_ref(), input, &mut kept.middle_normed);
        let lowered = sized(&mut kept.lowered, tokens * places.outputs());
        self.feed_forward().forward(normed, &mut kept.feed_forward, lowered, &mut scratch.feed_forward);
        let output = self.norm(places.post_mlp.as_ref(), &kept.lowered, &mut scratch.other);
        let width = places.outputs();
        let rows = sized(out, tokens * width).chunks_exact_mut(width);
        for ((out, middle), output) in rows.zip(kept.middle.chunks_exact(hidden)).zip(output.chunks_exact(width)) {
            for (out, output) in out.chunks_exact_mut(hidden).zip(output.chunks_exact(hidden)) {
                sum(out, middle, output, blueprint.residual_scale);
            }
        }
    }

    /// Backpropagates through the layer: replaces `gradients`, with respect to its output, by those
    /// with respect to its input `x`, and adds the weight gradients. Overwrites parts of `kept`.
    pub(super) fn backward(&self, x: &[f32], kept: &mut Activations, gradients: &mut [f32], to: &mut Backward<'_>) {
        if !self.decoder.blueprint.parallel {
            self.feed_forward_backward(x, kept, (None, &mut *gradients), to);
            return self.attention_backward(x, kept, gradients, to);
        }
        let mut output = std::mem::take(&mut to.scratch.output);
        output.clear();
        output.extend_from_slice(gradients);
        self.attention_backward(x, kept, gradients, to);
        self.feed_forward_backward(x, kept, (Some(&output), gradients), to);
        to.scratch.output = output;
    }

    /// Backpropagates through a layer of several branches, given the gradients with respect to all of
    /// them, `(tokens, branches * hidden)`. Returns those with respect to the input.
    pub(super) fn branches_backward(
        &self,
        x: &[f32],
        kept: &mut Activations,
        branches: &[f32],
        to: &mut Backward<'_>,
    ) -> Vec<f32> {
        let hidden = self.decoder.blueprint.hidden;
        let mut gradients = vec![0.0; x.len()];
        let rows = branches.chunks_exact(self.decoder.layers[self.index].outputs());
        for (gradient, row) in gradients.chunks_exact_mut(hidden).zip(rows) {
            for branch in row.chunks_exact(hidden) {
                gradient.iter_mut().zip(branch).for_each(|(to, from)| *to += from);
            }
        }
        self.feed_forward_backward(x, kept, (Some(branches), &mut gradients), to);
        self.attention_backward(x, kept, &mut gradients, to);
        gradients
    }

    /// Adds to `gradients` those of the feed-forward part's input, given those of the layer's output:
    /// `output`, or `gradients` themselves.
    fn feed_forward_backward(
        &self,
        x: &[f32],
        kept: &mut Activations,
        (output, gradients): (Option<&[f32]>, &mut [f32]),
        to: &mut Backward<'_>,
    ) {
        let (blueprint, places) = (&self.decoder.blueprint, &self.decoder.layers[self.index]);
        let Backward { gradient, scratch } = to;
        let post = NormStep { place: places.post_mlp.as_ref(), x: &kept.lowered };
        let output = self.part_gradients(output.unwrap_or(gradients), &mut scratch.part);
        let lowered = self.norm_input(post, output, gradient, &mut scratch.other);
        let input = if blueprint.parallel { x } else { &kept.middle };
        let normed = if places.pre_mlp.is_some() { &kept.middle_normed } else { input };
        let narrow = sized(&mut scratch.narrow, gradients.len());
        let (kept, scratch) = (&mut kept.feed_forward, &mut scratch.feed_forward);
        self.feed_forward().backward((normed, lowered), kept, (&mut **gradient, &mut *narrow), scratch);
        self.norm_backward(NormStep { place: places.pre_mlp.as_ref(), x: input }, narrow, gradient, gradients);
    }

    fn attention_backward(&self, x: &[f32], kept: &mut Activations, gradients: &mut [f32], to: &mut Backward<'_>) {
        let (blueprint, places, read) = (&self.decoder.blueprint, &self.decoder.layers[self.index], self.read);
        let Backward { gradient, scratch } = to;
        let tokens = gradients.len() / blueprint.hidden;
        let post = NormStep { place: places.post_attention.as_ref(), x: &kept.projected };
        let output = self.part_gradients(gradients, &mut scratch.part);
        let projected = self.norm_input(post, output, gradient, &mut scratch.other);
        let attended = sized(&mut scratch.attended, tokens * blueprint.query_width());
        places.output.backward(read, gradient, (&kept.attended, projected), attended);
        let qkv = zeroed(&mut scratch.qkv, kept.qkv.len());
        for span in self.spans {
            let (heads, sums) = self.heads(&kept.qkv, span);
            let rows = span.rows.start * blueprint.query_width()..span.rows.end * blueprint.query_width();
            let own = span.rows.start * heads.width..span.rows.end * heads.width;
            let (output, attended) = (&kept.attended[rows.clone()], &attended[rows]);
            let given = Attended { output, gradient: attended, log_sums: &kept.log_sums[sums] };
            let sinks = places.sinks.as_ref().map_or(0..0, |sinks| sinks.gradient.clone());
            heads.backward(given, &mut qkv[own], &mut gradient[sinks], &mut scratch.attention);
        }
        self.rotate(qkv, true);
        self.norm_heads_backward(&kept.raw, gradient, qkv, &mut scratch.other);
        let normed = if places.pre_attention.is_some() { &kept.normed } else { x };
        let narrow = sized(&mut scratch.narrow, gradients.len());
        places.qkv.backward(read, gradient, (normed, qkv), narrow);
        self.norm_backward(NormStep { place: places.pre_attention.as_ref(), x }, narrow, gradient, gradients);
    }

    fn feed_forward(&self) -> FeedForward<'_> {
        FeedForward::new(self.decoder, self.index, self.read)
    }

    fn attend(&self, kept: &mut Activations, tokens: usize, scratch: &mut AttentionScratch) {
        let blueprint = &self.decoder.blueprint;
        sized(&mut kept.attended, tokens * blueprint.query_width());
        sized(&mut kept.log_sums, tokens * blueprint.heads);
        for span in self.spans {
            let (heads, sums) = self.heads(&kept.qkv, span);
            let rows = span.rows.start * blueprint.query_width()..span.rows.end * blueprint.query_width();
            heads.forward(&mut kept.attended[rows], &mut kept.log_sums[sums], scratch);
        }
    }

    /// The heads of one sequence, and the range of its logarithms of sums.
    fn heads<'q>(&'q self, qkv: &'q [f32], span: &Span) -> (Heads<'q>, Range<usize>) {
        let blueprint = &self.decoder.blueprint;
        let width = blueprint.query_width() + 2 * blueprint.kv_width();
        let Range { start, end } = span.rows;
        let sinks = self.decoder.layers[self.index].sinks.as_ref().map_or(0..0, |sinks| sinks.range.clone());
        let heads = Heads {
            blueprint,
            simd: self.decoder.simd,
            window: blueprint.layers[self.index].window,
            sinks: &self.read.weights[sinks],
            qkv: &qkv[start * width..end * width],
            width,
            tokens: end - start,
        };
        (heads, start * blueprint.heads..end * blueprint.heads)
    }

    /// Applies the rotary embedding to queries and keys, or its inverse if `back`.
    fn rotate(&self, qkv: &mut [f32], back: bool) {
        let blueprint = &self.decoder.blueprint;
        let (width, rotated) =
            (blueprint.query_width() + 2 * blueprint.kv_width(), blueprint.query_width() + blueprint.kv_width());
        for span in self.spans {
            let Some(rope) = blueprint.layers[self.index].rope else { return };
            let table = &self.decoder.rotary[rope][usize::from(span.long)];
            let rows = qkv[span.rows.start * width..span.rows.end * width].chunks_exact_mut(width);
            for (position, row) in rows.enumerate() {
                rotate(&mut row[..rotated], blueprint.head_dim, table.at(position, back));
            }
        }
    }

    /// `x` normed into `buffer`, or `x` itself without a norm.
    fn norm<'s>(&self, place: Option<&NormPlace>, x: &'s [f32], buffer: &'s mut Vec<f32>) -> &'s [f32] {
        let Some(place) = place else { return x };
        let out = sized(buffer, x.len());
        self.decoder.norm(self.read.weights, place).forward(x, out);
        out
    }

    /// From the gradients of a residual sum to those of the part that it adds.
    fn part_gradients<'s>(&self, gradients: &'s [f32], buffer: &'s mut Vec<f32>) -> &'s [f32] {
        let scale = self.decoder.blueprint.residual_scale;
        if scale == 1.0 {
            return gradients;
        }
        let part = sized(buffer, gradients.len());
        part.iter_mut().zip(gradients).for_each(|(part, gradient)| *part = scale * gradient);
        part
    }

    /// From the gradients of a norm's output to those of its input, in `buffer`.
    fn norm_input<'s>(
        &self,
        step: NormStep<'_>,
        output: &'s [f32],
        gradient: &mut [f32],
        buffer: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        if step.place.is_none() {
            return output;
        }
        let x = zeroed(buffer, step.x.len());
        self.norm_backward(step, output, gradient, x);
        x
    }

    /// Adds to `x_gradients`, those of a norm's input, given those of its output, and to the
    /// weight's.
    fn norm_backward(&self, step: NormStep<'_>, output: &[f32], gradient: &mut [f32], x_gradients: &mut [f32]) {
        let Some(place) = step.place else {
            x_gradients.iter_mut().zip(output).for_each(|(to, from)| *to += from);
            return;
        };
        self.decoder.norm(self.read.weights, place).backward(step.x, output, gradient, x_gradients);
    }

    /// The columns of a row that hold queries, and those that hold keys.
    fn parts(&self) -> [Range<usize>; 2] {
        let (query, kv) = (self.decoder.blueprint.query_width(), self.decoder.blueprint.kv_width());
        [0..query, query..query + kv]
    }

    fn norm_heads(&self, kept: &mut Activations) {
        let Some(places) = &self.decoder.layers[self.index].qk_norm else { return };
        let width = self.decoder.blueprint.query_width() + 2 * self.decoder.blueprint.kv_width();
        kept.raw.clear();
        kept.raw.extend_from_slice(&kept.qkv);
        for (row, raw) in kept.qkv.chunks_exact_mut(width).zip(kept.raw.chunks_exact(width)) {
            for (part, place) in self.parts().into_iter().zip(places) {
                self.decoder.norm(self.read.weights, place).forward(&raw[part.clone()], &mut row[part]);
            }
        }
    }

    fn norm_heads_backward(&self, raw: &[f32], gradient: &mut [f32], qkv: &mut [f32], buffer: &mut Vec<f32>) {
        let Some(places) = &self.decoder.layers[self.index].qk_norm else { return };
        let width = self.decoder.blueprint.query_width() + 2 * self.decoder.blueprint.kv_width();
        for (row, raw) in qkv.chunks_exact_mut(width).zip(raw.chunks_exact(width)) {
            for (part, place) in self.parts().into_iter().zip(places) {
                let row = &mut row[part.clone()];
                let output = sized(buffer, row.len());
                output.copy_from_slice(row);
                row.fill(0.0);
                self.decoder.norm(self.read.weights, place).backward(&raw[part], output, gradient, row);
            }
        }
    }
}

/// A norm, if the architecture has it at this point, and its input.
#[derive(Clone, Copy)]
struct NormStep<'a> {
    place: Option<&'a NormPlace>,
    x: &'a [f32],
}

/// Sets `out = a + scale * b`.
fn sum(out: &mut [f32], a: &[f32], b: &[f32], scale: f32) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + scale * b;
    }
}
