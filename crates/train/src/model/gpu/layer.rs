//! Forward and backward pass of one decoder layer.

use wsd_nn::gpu::{Array, Gates, Heads, Operand, View};

use super::attention::{Attention, AttentionScratch};
use super::linear::LinearScratch;
use super::run::Run;
use crate::error::Result;
use crate::model::norm::NormPlace;
use crate::model::places::{ExpertPlaces, LayerPlaces};

/// Activations saved for the backward pass, one row per token.
#[derive(Default)]
pub(super) struct Activations {
    normed: Array<Operand>,
    /// Queries, keys and values before the norms of queries and keys; empty without these norms.
    raw: Array<f32>,
    qkv: Array<Operand>,
    attended: Array<Operand>,
    /// The output of attention before its norm.
    projected: Array<f32>,
    /// The residual stream between attention and the feed-forward part.
    middle: Array<f32>,
    middle_normed: Array<Operand>,
    gates: Array<f32>,
    gated: Array<Operand>,
    /// The output of the feed-forward part before its norm.
    lowered: Array<f32>,
}

/// Buffers that all layers share.
#[derive(Default)]
pub(super) struct Scratch {
    attention: AttentionScratch,
    linear: LinearScratch,
    qkv: Array<f32>,
    /// Rows of the width of the queries or of the feed-forward part.
    wide: Array<f32>,
    operand: Array<Operand>,
    /// Rows of the width of the residual stream.
    narrow: Array<f32>,
    other: Array<f32>,
    part: Array<f32>,
    /// The gradients of the output of a layer of parallel parts.
    output: Array<f32>,
}

/// One layer applied to the sequences of a shard.
pub(super) struct Layer<'a> {
    run: Run<'a>,
    places: &'a LayerPlaces,
    index: usize,
}

impl<'a> Layer<'a> {
    pub(super) fn new(run: Run<'a>, index: usize) -> Self {
        Self { run, places: &run.decoder.layers[index], index }
    }

    /// Sets `out` to the layer's output for `x`, both `(tokens, hidden)`.
    pub(super) fn forward(
        &self,
        x: View<'_, f32>,
        kept: &mut Activations,
        out: View<'_, f32>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (run, places, blueprint) = (&self.run, self.places, &self.run.decoder.blueprint);
        self.operand(places.pre_attention.as_ref(), x, &mut scratch.other, &mut kept.normed)?;
        self.project_heads(kept, scratch)?;
        let attended = run.sized(&mut scratch.wide, blueprint.query_width())?;
        self.attention(&kept.qkv).forward(attended, &mut scratch.attention)?;
        let operand = run.sized(&mut kept.attended, blueprint.query_width())?;
        run.arithmetic.narrow(attended, operand)?;
        let projected = run.sized(&mut kept.projected, blueprint.hidden)?;
        run.linear(&places.output, operand, projected, &mut scratch.linear)?;
        let output = self.normed(places.post_attention.as_ref(), projected, &mut scratch.other)?;
        let middle = run.sized(&mut kept.middle, blueprint.hidden)?;
        run.arithmetic.combine(Some(x), blueprint.residual_scale, output, middle)?;

        let input = if blueprint.parallel { x } else { middle };
        let normed = self.operand(places.pre_mlp.as_ref(), input, &mut scratch.other, &mut kept.middle_normed)?;
        let ExpertPlaces { gates, down } = self.expert();
        let rows = run.sized(&mut kept.gates, gates.outputs)?;
        run.linear(gates, normed, rows, &mut scratch.linear)?;
        let gated = run.sized(&mut scratch.wide, blueprint.ffn)?;
        run.arithmetic.gate(self.gates(), rows, gated)?;
        let operand = run.sized(&mut kept.gated, blueprint.ffn)?;
        run.arithmetic.narrow(gated, operand)?;
        let lowered = run.sized(&mut kept.lowered, blueprint.hidden)?;
        run.linear(down, operand, lowered, &mut scratch.linear)?;
        let output = self.normed(places.post_mlp.as_ref(), lowered, &mut scratch.other)?;
        Ok(run.arithmetic.combine(Some(middle), blueprint.residual_scale, output, out)?)
    }

    /// Backpropagates through the layer: replaces `gradients`, with respect to its output, by those
    /// with respect to its input `x`, and adds the weight gradients. Overwrites parts of `kept`.
    pub(super) fn backward(
        &self,
        x: View<'_, f32>,
        kept: &mut Activations,
        gradients: View<'_, f32>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        if !self.run.decoder.blueprint.parallel {
            self.feed_forward_backward(x, kept, (gradients, gradients), scratch)?;
            return self.attention_backward(x, kept, gradients, scratch);
        }
        let mut array = std::mem::take(&mut scratch.output);
        let output = self.run.sized(&mut array, self.run.decoder.blueprint.hidden)?;
        self.run.arithmetic.combine(None, 1.0, gradients, output)?;
        self.attention_backward(x, kept, gradients, scratch)?;
        self.feed_forward_backward(x, kept, (output, gradients), scratch)?;
        scratch.output = array;
        Ok(())
    }

    /// Adds to `gradients` those of the feed-forward part's input, given those of the layer's output.
    fn feed_forward_backward(
        &self,
        x: View<'_, f32>,
        kept: &Activations,
        (output, gradients): (View<'_, f32>, View<'_, f32>),
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (run, places, blueprint) = (&self.run, self.places, &self.run.decoder.blueprint);
        let ExpertPlaces { gates, down } = self.expert();
        let output = self.part_gradients(output, &mut scratch.part)?;
        let lowered = run.rows(&kept.lowered, blueprint.hidden);
        let lowered = self.norm_input(places.post_mlp.as_ref(), lowered, output, &mut scratch.other)?;
        let wide = run.sized(&mut scratch.wide, blueprint.ffn)?;
        run.linear_backward(down, (run.rows(&kept.gated, blueprint.ffn), lowered), wide, &mut scratch.linear)?;
        let rows = run.rows(&kept.gates, gates.outputs);
        run.arithmetic.gate_backward(self.gates(), rows, wide)?;
        let narrow = run.sized(&mut scratch.narrow, blueprint.hidden)?;
        let normed = run.rows(&kept.middle_normed, blueprint.hidden);
        run.linear_backward(gates, (normed, rows), narrow, &mut scratch.linear)?;
        let input = if blueprint.parallel { x } else { run.rows(&kept.middle, blueprint.hidden) };
        self.add_input(places.pre_mlp.as_ref(), input, narrow, gradients)
    }

    fn attention_backward(
        &self,
        x: View<'_, f32>,
        kept: &Activations,
        gradients: View<'_, f32>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (run, places, blueprint) = (&self.run, self.places, &self.run.decoder.blueprint);
        let output = self.part_gradients(gradients, &mut scratch.part)?;
        let projected = run.rows(&kept.projected, blueprint.hidden);
        let projected = self.norm_input(places.post_attention.as_ref(), projected, output, &mut scratch.other)?;
        let (width, attended) = (blueprint.query_width(), run.rows(&kept.attended, blueprint.query_width()));
        let wide = run.sized(&mut scratch.wide, width)?;
        run.linear_backward(&places.output, (attended, projected), wide, &mut scratch.linear)?;
        let operand = run.sized(&mut scratch.operand, width)?;
        run.arithmetic.narrow(wide, operand)?;
        let qkv = run.sized(&mut scratch.qkv, places.qkv.outputs)?;
        self.attention(&kept.qkv).backward(operand, qkv, &mut scratch.attention)?;
        self.rotate(qkv, true)?;
        for (place, start, columns) in self.head_norms() {
            let raw = run.rows(&kept.raw, places.qkv.outputs).skip(start);
            let own = qkv.skip(start);
            run.norm_backward(place, raw, (own, own, false), Some((places.qkv.outputs, columns)))?;
        }
        let narrow = run.sized(&mut scratch.narrow, blueprint.hidden)?;
        let normed = run.rows(&kept.normed, blueprint.hidden);
        run.linear_backward(&places.qkv, (normed, qkv), narrow, &mut scratch.linear)?;
        self.add_input(places.pre_attention.as_ref(), x, narrow, gradients)
    }

    /// Sets queries, keys and values, normed and rotated.
    fn project_heads(&self, kept: &mut Activations, scratch: &mut Scratch) -> Result<()> {
        let (run, places) = (&self.run, self.places);
        let width = places.qkv.outputs;
        let normed = run.rows(&kept.normed, run.decoder.blueprint.hidden);
        let qkv = run.sized(&mut scratch.qkv, width)?;
        run.linear(&places.qkv, normed, qkv, &mut scratch.linear)?;
        if places.qk_norm.is_some() {
            let raw = run.sized(&mut kept.raw, width)?;
            run.arithmetic.combine(None, 1.0, qkv, raw)?;
            for (place, start, columns) in self.head_norms() {
                run.norm(place, (raw.skip(start), qkv.skip(start)), Some((width, columns)))?;
            }
        }
        self.rotate(qkv, false)?;
        let operand = run.sized(&mut kept.qkv, width)?;
        Ok(run.arithmetic.narrow(qkv, operand)?)
    }

    /// The norms of queries and of keys, if there are any, with the first column and their number.
    fn head_norms(&self) -> impl Iterator<Item = (&NormPlace, usize, usize)> {
        let (query, kv) = (self.run.decoder.blueprint.query_width(), self.run.decoder.blueprint.kv_width());
        let places = self.places.qk_norm.iter().flatten();
        places.zip([(0, query), (query, kv)]).map(|(place, (start, columns))| (place, start, columns))
    }

    /// Applies the rotary embedding to queries and keys, or its inverse if `back`.
    fn rotate(&self, qkv: View<'_, f32>, back: bool) -> Result<()> {
        let (run, blueprint) = (&self.run, &self.run.decoder.blueprint);
        let Some(rope) = blueprint.layers[self.index].rope else { return Ok(()) };
        let [table, _] = &run.decoder.rotary[rope];
        let heads = Heads {
            angles: run.weights.angles(rope),
            places: run.inputs.angles,
            stride: self.places.qkv.outputs,
            count: blueprint.heads + blueprint.kv_heads,
            size: blueprint.head_dim,
            pairs: table.pairs,
            interleaved: table.interleaved,
        };
        Ok(run.arithmetic.rotate(&heads, qkv, back)?)
    }

    fn attention<'q>(&'q self, qkv: &'q Array<Operand>) -> Attention<'q> {
        let window = self.run.decoder.blueprint.layers[self.index].window;
        Attention { run: self.run, window, qkv: self.run.rows(qkv, self.places.qkv.outputs) }
    }

    fn expert(&self) -> &'a ExpertPlaces {
        &self.places.experts[0]
    }

    fn gates(&self) -> Gates {
        let blueprint = &self.run.decoder.blueprint;
        Gates { width: blueprint.ffn, activation: blueprint.activation, is_gated: blueprint.gated }
    }

    /// `x` normed into `buffer`, or `x` itself without a norm.
    fn normed<'s>(
        &self,
        place: Option<&NormPlace>,
        x: View<'s, f32>,
        buffer: &'s mut Array<f32>,
    ) -> Result<View<'s, f32>> {
        let Some(place) = place else { return Ok(x) };
        let out = self.run.sized(buffer, self.run.decoder.blueprint.hidden)?;
        self.run.norm(place, (x, out), None)?;
        Ok(out)
    }

    /// `x`, normed if there is a norm, as an operand.
    fn operand<'s>(
        &self,
        place: Option<&NormPlace>,
        x: View<'_, f32>,
        buffer: &mut Array<f32>,
        to: &'s mut Array<Operand>,
    ) -> Result<View<'s, Operand>> {
        let normed = self.normed(place, x, buffer)?;
        let operand = self.run.sized(to, self.run.decoder.blueprint.hidden)?;
        self.run.arithmetic.narrow(normed, operand)?;
        Ok(operand)
    }

    /// From the gradients of a residual sum to those of the part that it adds.
    fn part_gradients<'s>(&self, gradients: View<'s, f32>, buffer: &'s mut Array<f32>) -> Result<View<'s, f32>> {
        let (hidden, scale) = (self.run.decoder.blueprint.hidden, self.run.decoder.blueprint.residual_scale);
        if scale == 1.0 {
            return Ok(gradients);
        }
        let part = self.run.sized(buffer, hidden)?;
        self.run.arithmetic.combine(None, scale, gradients, part)?;
        Ok(part)
    }

    /// From the gradients of a norm's output to those of its input `x`, in `buffer`.
    fn norm_input<'s>(
        &self,
        place: Option<&NormPlace>,
        x: View<'_, f32>,
        output: View<'s, f32>,
        buffer: &'s mut Array<f32>,
    ) -> Result<View<'s, f32>> {
        let Some(place) = place else { return Ok(output) };
        let to = self.run.sized(buffer, self.run.decoder.blueprint.hidden)?;
        self.run.norm_backward(place, x, (output, to, false), None)?;
        Ok(to)
    }

    /// Adds to `to` the gradients of a norm's input `x`, given those of its output.
    fn add_input(
        &self,
        place: Option<&NormPlace>,
        x: View<'_, f32>,
        output: View<'_, f32>,
        to: View<'_, f32>,
    ) -> Result<()> {
        match place {
            Some(place) => self.run.norm_backward(place, x, (output, to, true), None),
            None => Ok(self.run.arithmetic.combine(Some(to), 1.0, output, to)?),
        }
    }
}
