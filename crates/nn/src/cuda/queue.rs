//! The launches of a step.

mod answers;
mod experts;

use wsd_core::Layer as Depth;

use super::args::{AnglesArgs, AttentionArgs, EmbedArgs, GateArgs, HeadsArgs, LinearArgs, NormArgs};
use super::driver::{Buffer, Gpu};
use super::matrix::{self, Matrix, padded};
use super::model::{self, FeedForward, Layer, Linear, Norm};
use super::program::{self, Epilogue, ExpertKernels};
use super::stage::Stage;
use super::step::{Input, LISTS, MOST_PARTS, chain_splits};
use crate::arch::QkNorm;
use crate::error::Result;
use crate::executor::Span;

impl Stage {
    /// Queues the kernels of a step. Spans that read other layers than the last are served only if
    /// they are given.
    pub(super) fn queue(&self, input: &Input, spans: &[Span<'_>], splits: usize) -> Result<()> {
        let rows = input.rows;
        let queue =
            Queue { stage: self, input, rows, splits, list: |index: usize| self.scratch.input.at(4 * index * rows) };
        queue.run(spans)
    }
}

/// The launches of one step.
struct Queue<'a, L: Fn(usize) -> u64> {
    stage: &'a Stage,
    input: &'a Input,
    rows: usize,
    splits: usize,
    /// The address of a list of the input, by its number.
    list: L,
}

/// The norms around a residual sum.
struct Sum<'a> {
    /// The norm of what is added.
    post: Option<&'a Norm>,
    /// The norm of the sum.
    next: Option<&'a Norm>,
    /// True if the norm `next` is left to the layer that reads the sum; `sums` then has its squares.
    folds: bool,
    sums: &'a Buffer,
}

/// Lists of the input, in the order of [`Input::numbers`].
const TOKEN: usize = 0;
const POSITION: usize = 1;
const PLACE: usize = 2;
const SLOT: usize = 3;
const BASE: usize = 4;
const MASK: usize = 5;
const IS_LONG: usize = 6;
const PICK: usize = 7;
const ASK: usize = 8;
const HEAT: usize = 9;
const BITS: usize = LISTS;

impl<L: Fn(usize) -> u64> Queue<'_, L> {
    fn run(&self, spans: &[Span<'_>]) -> Result<()> {
        let Stage { blueprint, scratch, weights, gpu, kernels, layers, .. } = self.stage;
        let folds = self.stage.folds(self.rows);
        self.angles()?;
        // Of a later stage, what the one before it has left.
        let mut sums = Some(scratch.sums[1].at(0)).filter(|_| folds);
        if let Some(embedding) = &weights.embedding {
            sums = None;
            self.embed(embedding)?;
            self.collect(spans, Some(0))?;
        }
        for (index, layer) in layers.clone().zip(&weights.layers) {
            self.heads(index, layer, sums)?;
            self.attend(index, layer)?;
            let (post, mut next) = (layer.norms.post_attention.as_ref(), layer.norms.pre_mlp.as_ref());
            if blueprint.parallel {
                // Both parts read the residual stream as it is before the layer.
                let args = NormArgs { out: scratch.x.at(0), ..self.norm(next.take()) };
                gpu.launch(kernels.norm, [self.rows, 1, 1], &args)?;
                self.begin_feed_forward(&layer.feed_forward, None)?;
            }
            sums =
                self.add(&layer.output, scratch.attended.at(0), &Sum { post, next, folds, sums: &scratch.sums[0] })?;
            if !blueprint.parallel {
                self.begin_feed_forward(&layer.feed_forward, sums)?;
            }
            let after = weights.layers.get(index + 1 - layers.start);
            let next = after.map_or(weights.next_norm.as_ref(), |layer| layer.norms.pre_attention.as_ref());
            let post = layer.norms.post_mlp.as_ref();
            let sum = Sum { post, next, folds, sums: &scratch.sums[1] };
            sums = self.end_feed_forward(&layer.feed_forward, &sum)?;
            self.collect(spans, Some(index + 1))?;
        }
        if self.stage.is_last() { self.end(spans) } else { Ok(()) }
    }

    /// Writes the wanted rows of the last layer, and answers questions about them.
    fn end(&self, spans: &[Span<'_>]) -> Result<()> {
        if spans.is_empty() || spans.iter().all(|span| span.layer == Depth::Final) {
            let count = if spans.is_empty() { self.rows } else { self.input.pick.len() };
            self.finish(0, count, Some(&self.stage.weights.final_norm))?;
            if self.input.ask.is_empty() { Ok(()) } else { self.choose(count) }
        } else {
            self.collect(spans, None)
        }
    }

    /// Computes the angles of all positions.
    fn angles(&self) -> Result<()> {
        let Stage { kernels, scratch, gpu, rotations, .. } = self.stage;
        let angles = AnglesArgs {
            position: (self.list)(POSITION),
            is_long: (self.list)(IS_LONG),
            frequencies: rotations.frequencies.at(0),
            out: scratch.angles.at(0),
            rows: self.rows as i32,
            ropes: rotations.pairs.len() as i32,
            factors: rotations.factors.at(0),
        };
        gpu.launch(kernels.angles, [rotations.pairs.len(), self.rows, 1], &angles)
    }

    /// Embeds the tokens and norms them.
    fn embed(&self, embedding: &Matrix) -> Result<()> {
        let Stage { blueprint, kernels, scratch, weights, gpu, .. } = self.stage;
        let embed = EmbedArgs {
            matrix: embedding.args(),
            token: (self.list)(TOKEN),
            h: scratch.h.at(0),
            positions: address(weights.positions.as_ref()),
            position: (self.list)(POSITION),
            scale: blueprint.embedding_scale,
            width: blueprint.hidden as i32,
        };
        gpu.launch(kernels.embed(embedding.format)?, [self.rows, 1, 1], &embed)?;
        let first = weights.layers.first().and_then(|layer| layer.norms.pre_attention.as_ref());
        gpu.launch(kernels.norm, [self.rows, 1, 1], &NormArgs { out: scratch.x.at(0), ..self.norm(first) })
    }

    /// The norm of the residual stream.
    fn norm(&self, norm: Option<&Norm>) -> NormArgs {
        let Stage { blueprint, scratch, .. } = self.stage;
        NormArgs {
            h: scratch.h.at(0),
            weight: address(norm.map(|norm| &norm.weight)),
            shift: address(norm.and_then(|norm| norm.shift.as_ref())),
            width: blueprint.hidden as i32,
            stride: padded(blueprint.hidden) as i32,
            epsilon: blueprint.norms.eps,
            scale: blueprint.residual_scale,
            is_centered: i32::from(blueprint.norms.centered),
            ..NormArgs::default()
        }
    }

    /// Writes hidden states of the rows that spans want at a depth.
    fn collect(&self, spans: &[Span<'_>], depth: Option<usize>) -> Result<()> {
        if spans.iter().all(|span| span.layer == Depth::Final) {
            return Ok(());
        }
        let mut first = 0;
        for span in spans {
            if span.layer.depth() == depth {
                let norm = span.layer.is_normed().then_some(&self.stage.weights.final_norm);
                self.finish(first, span.rows.len(), norm)?;
            }
            first += span.rows.len();
        }
        Ok(())
    }

    /// Writes picked rows of the residual stream, normed if there is a norm.
    fn finish(&self, first: usize, count: usize, norm: Option<&Norm>) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let Stage { blueprint, kernels, scratch, gpu, .. } = self.stage;
        let wide = scratch.hidden.at(4 * first * blueprint.hidden);
        // The input of a head too, of which only the first rows are read.
        let out = if first == 0 { scratch.x.at(0) } else { 0 };
        let args = NormArgs { wide, out, pick: (self.list)(PICK) + 4 * first as u64, ..self.norm(norm) };
        gpu.launch(kernels.norm, [count, 1, 1], &args)
    }

    /// Computes queries, keys and values, and stores the latter two.
    fn heads(&self, index: usize, layer: &Layer, sums: Option<u64>) -> Result<()> {
        let Stage { blueprint, kernels, scratch, gpu, rotations, cache, .. } = self.stage;
        let rope = rotations.index(blueprint.layers[index].rope);
        let angles = scratch.angles.at(8 * rope * self.rows * (blueprint.head_dim / 2));
        let stored = LinearArgs {
            q: scratch.q.at(0),
            cache: self.pages(index),
            slot: (self.list)(SLOT),
            place: (self.list)(PLACE),
            table: cache.table.at(0),
            table_stride: cache.table_stride as i32,
            angles,
            pairs: rotations.pairs[rope].at(0),
            ..self.input_args(scratch.x.at(0), sums, blueprint.hidden)
        };
        if self.is_few(&layer.heads) && model::rotates_directly(blueprint, self.stage.types.kv) {
            return self.apply(&layer.heads, Epilogue::Heads, stored);
        }
        let stride = layer.heads.outputs;
        let bias = self.wide(&layer.heads, stored, stride)?;
        let at = |norm: &Option<Norm>| address(norm.as_ref().map(|norm| &norm.weight));
        let args = HeadsArgs {
            input: scratch.wide.at(0),
            bias,
            query_norm: at(&layer.norms.query_norm),
            key_norm: at(&layer.norms.key_norm),
            order: rotations.orders[rope].at(0),
            q: stored.q,
            cache: stored.cache,
            slot: stored.slot,
            place: stored.place,
            table: stored.table,
            angles,
            pairs: stored.pairs,
            stride: stride as i32,
            table_stride: stored.table_stride,
            is_full_norm: i32::from(blueprint.qk_norm == QkNorm::Full),
            epsilon: blueprint.norms.eps,
            is_centered: i32::from(blueprint.norms.centered),
            padding: 0,
        };
        gpu.launch(kernels.place_heads, [self.rows, 1, 1], &args)
    }

    fn attend(&self, index: usize, layer: &Layer) -> Result<()> {
        let Stage { blueprint, kernels, scratch, gpu, cache, .. } = self.stage;
        let args = AttentionArgs {
            q: scratch.q.at(0),
            cache: self.pages(index),
            slot: (self.list)(SLOT),
            base: (self.list)(BASE),
            position: (self.list)(POSITION),
            mask: (self.list)(MASK),
            table: cache.table.at(0),
            bits: (self.list)(BITS),
            table_stride: cache.table_stride as i32,
            window: blueprint.layers[index].window.map_or(0, |window| i32::try_from(window).unwrap_or(0)),
            stride: padded(blueprint.query_width()) as i32,
            scale: blueprint.attention_scale,
            cap: blueprint.attention_softcap.unwrap_or(0.0),
            partial: scratch.partial.at(0),
            weights: scratch.weights.at(0),
            count: scratch.count.at(0),
            out: scratch.attended.at(0),
            sinks: address(layer.sinks.as_ref()),
            ..AttentionArgs::default()
        };
        let groups = blueprint.heads / program::group(blueprint);
        let mut singles = self.input.singles();
        for chain in &self.input.chains {
            let Some(kernel) = kernels.attend_chain else {
                singles.push(chain.clone());
                continue;
            };
            let (rows, blocks) = (chain.len(), chain.len().div_ceil(64));
            let longest = self.input.position[chain.end - 1] as usize + 1;
            let splits = chain_splits(rows, blocks * blueprint.heads, longest);
            let args = AttentionArgs { first: chain.start as i32, rows: rows as i32, splits: splits as i32, ..args };
            gpu.launch(kernel, [blocks, blueprint.heads, splits], &args)?;
        }
        for range in singles {
            let splits = if range.len() * self.splits > MOST_PARTS { 1 } else { self.splits };
            let args = AttentionArgs { first: range.start as i32, splits: splits as i32, ..args };
            gpu.launch(kernels.attend, [groups, splits, range.len()], &args)?;
        }
        Ok(())
    }

    /// The cached pages of a layer.
    fn pages(&self, index: usize) -> u64 {
        let Stage { cache, layers, .. } = self.stage;
        cache.data.at((index - layers.start) * cache.layer_bytes)
    }

    /// Adds a linear layer's output to the residual stream and writes the input of the next norm.
    /// Returns the sums of squares if that norm is still to be applied.
    fn add(&self, linear: &Linear, x: u64, sum: &Sum<'_>) -> Result<Option<u64>> {
        let Stage { blueprint, scratch, .. } = self.stage;
        let input = LinearArgs { x, ..self.input_args(x, None, blueprint.hidden) };
        if let Some(next) = sum.next.filter(|_| sum.folds) {
            let sums = sum.sums.at(0);
            let args = LinearArgs {
                h: scratch.h.at(0),
                narrowed: scratch.x.at(0),
                gain: next.weight.at(0),
                sums_out: sums,
                stride: blueprint.hidden as i32,
                stride_narrowed: padded(blueprint.hidden) as i32,
                ..input
            };
            self.apply(linear, Epilogue::Residual, args)?;
            return Ok(Some(sums));
        }
        let bias = self.wide(linear, input, blueprint.hidden)?;
        self.sum(NormArgs { added: scratch.wide.at(0), bias, ..self.norm(sum.next) }, sum)?;
        Ok(None)
    }

    /// Adds what `args` name to the residual stream and writes the input of the next norm.
    fn sum(&self, args: NormArgs, sum: &Sum<'_>) -> Result<()> {
        let Stage { kernels, scratch, gpu, .. } = self.stage;
        let args = NormArgs {
            post: address(sum.post.map(|post| &post.weight)),
            post_shift: address(sum.post.and_then(|post| post.shift.as_ref())),
            out: scratch.x.at(0),
            ..args
        };
        gpu.launch(kernels.norm, [self.rows, 1, 1], &args)
    }

    /// Computes the feed-forward part up to what the layer adds to the residual stream.
    fn begin_feed_forward(&self, part: &FeedForward, sums: Option<u64>) -> Result<()> {
        match part {
            FeedForward::Dense { gates, .. } => self.gate(gates, sums),
            FeedForward::Mixture(mixture) => self.mix(mixture),
        }
    }

    /// Adds the feed-forward part's output to the residual stream as [`Queue::add`] does.
    fn end_feed_forward(&self, part: &FeedForward, sum: &Sum<'_>) -> Result<Option<u64>> {
        match part {
            FeedForward::Dense { down, .. } => self.add(down, self.stage.scratch.gated.at(0), sum),
            FeedForward::Mixture(_) => self.add_mixture(sum).map(|()| None),
        }
    }

    /// Computes the gated product of the feed-forward part, or without a gate its activation.
    fn gate(&self, gates: &Linear, sums: Option<u64>) -> Result<()> {
        let Stage { blueprint, kernels, scratch, gpu, .. } = self.stage;
        let stride = padded(blueprint.ffn);
        let input = self.input_args(scratch.x.at(0), sums, blueprint.hidden);
        if blueprint.gated && self.is_few(gates) {
            let args = LinearArgs { narrowed: scratch.gated.at(0), stride_narrowed: stride as i32, ..input };
            return self.apply(gates, Epilogue::Gate, args);
        }
        let bias = self.wide(gates, input, gates.outputs)?;
        let args = GateArgs {
            input: scratch.wide.at(0),
            bias,
            out: scratch.gated.at(0),
            width: blueprint.ffn as i32,
            stride_in: gates.outputs as i32,
            stride: stride as i32,
            padding: 0,
        };
        gpu.launch(kernels.gate, [blueprint.ffn.div_ceil(256), self.rows, 1], &args)
    }

    /// Launches a kernel of experts.
    fn launch_experts(&self, launch: impl FnOnce(&Gpu, &ExpertKernels) -> Result<()>) -> Result<()> {
        self.stage.kernels.experts.as_ref().map_or(Ok(()), |kernels| launch(&self.stage.gpu, kernels))
    }

    /// The input of a linear layer, whose norm is still to be applied if there are `sums`.
    fn input_args(&self, x: u64, sums: Option<u64>, width: usize) -> LinearArgs {
        LinearArgs {
            x,
            sums: sums.unwrap_or(0),
            parts: width.div_ceil(matrix::TILE) as i32,
            inverse_width: 1.0 / width as f32,
            epsilon: self.stage.blueprint.norms.eps,
            ..LinearArgs::default()
        }
    }

    fn is_few(&self, linear: &Linear) -> bool {
        self.stage.is_few(linear, self.rows)
    }

    /// Applies a linear layer to few rows with a last step.
    fn apply(&self, linear: &Linear, epilogue: Epilogue, args: LinearArgs) -> Result<()> {
        self.stage.apply(linear, epilogue, args, self.rows)
    }

    /// Writes a linear layer's output as floats to `scratch.wide`. Returns the address of a bias
    /// that is still to be added.
    fn wide(&self, linear: &Linear, args: LinearArgs, stride: usize) -> Result<u64> {
        let out = self.stage.scratch.wide.at(0);
        let is_finished = self.stage.product(linear, LinearArgs { out, stride: stride as i32, ..args }, self.rows)?;
        Ok(linear.bias.as_ref().filter(|_| !is_finished).map_or(0, |bias| bias.at(0)))
    }
}

/// The address of a buffer; 0 for none.
fn address(buffer: Option<&Buffer>) -> u64 {
    buffer.map_or(0, |buffer| buffer.at(0))
}
