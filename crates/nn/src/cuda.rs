//! The executor on an NVIDIA GPU: kernels compiled when a model is loaded, a paged KV cache, and
//! recorded steps.
//!
//! A step of few rows is five launches per layer: queries, keys and values with rotation and
//! storing; attention; its output with the residual sum and the next norm; the gated product; its
//! output likewise. Steps of a size that occurs again are recorded once and launched as a whole.

mod args;
mod compiler;
mod driver;
mod libraries;
mod matrix;
mod model;
mod pages;
mod program;
mod step;

#[cfg(test)]
#[path = "../tests/cases/mod.rs"]
mod cases;
#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Instant;

use wsd_core::Layer;

use crate::adapter::{Adapter, LowRank};
use crate::arch::{self, Blueprint, Head, QkNorm, RopePlan};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::executor::{self, Answer, Ask, Executor, Span};
use crate::format::Format;
use args::{
    AnglesArgs, AttentionArgs, ChooseArgs, CopyArgs, EmbedArgs, FinishArgs, GateArgs, HeadsArgs, LinearArgs,
    NarrowArgs, NormArgs, WidenArgs,
};
use driver::{Buffer, Gpu, Graph, Product};
use matrix::padded;
use model::{Linear, Loader, Rotation, Weights};
use pages::{PAGE, Pages};
use program::{Epilogue, Kernels, MOST_ROWS, Request};
use step::{Input, LISTS, MOST_PARTS, splits};

/// Tokens run at once when a slot is run again.
const RERUN_TOKENS: usize = 256;
/// The part of the free memory that the cache of a model takes at most.
const CACHE_SHARE: f64 = 0.4;
/// Positions that the cache of a model holds at most.
const MOST_CACHED: usize = 1 << 19;
/// Rows up to which block formats are read in several passes rather than widened.
const PASS_ROWS: usize = 64;
/// Values of a matrix that are widened at once.
const PANEL_VALUES: usize = 32 << 20;
/// Blocks of a row of the kernel that answers questions.
const CHOOSE_BLOCKS: usize = 32;
/// Rows that output heads are applied to at once.
const PROJECT_ROWS: usize = 256;

/// A model on an NVIDIA GPU.
pub struct Cuda {
    blueprint: Blueprint,
    tensors: HashMap<String, Tensor>,
    dtype: Option<Format>,
    compute: Format,
    /// The most rows that the kernels of all layers take at once.
    most_rows: usize,
    changes: HashMap<String, Vec<LowRank>>,
    // Declared before the GPU's other parts, as they hold it.
    graphs: HashMap<Recorded, Graph>,
    weights: Weights,
    kernels: Kernels,
    rotations: Rotations,
    cache: Cache,
    scratch: Scratch,
    gpu: Gpu,
}

/// A kind of recorded step: its rows, the parts of its positions, and true if it answers questions.
type Recorded = (usize, usize, bool);

/// Tables of rotary embeddings.
struct Rotations {
    /// `(ropes + 1, 2, head_dim / 2)`.
    frequencies: Buffer,
    factors: Buffer,
    /// Per rope, and last for layers without one: `(head_dim / 2, 2)` dimensions of pairs, and the
    /// row of each dimension.
    pairs: Vec<Buffer>,
    orders: Vec<Buffer>,
}

/// Cached keys and values, and their table of pages.
struct Cache {
    pages: Pages,
    /// `(layers, pages, 2, kv_heads, PAGE, head_stride)`.
    data: Buffer,
    /// Bytes of a layer.
    layer_bytes: usize,
    /// `(table_rows, table_stride)` numbers of pages.
    table: Buffer,
    table_rows: usize,
    table_stride: usize,
}

/// Buffers of a step of at most `rows` rows.
struct Scratch {
    rows: usize,
    input: Buffer,
    angles: Buffer,
    h: Buffer,
    x: Buffer,
    q: Buffer,
    attended: Buffer,
    gated: Buffer,
    wide: Buffer,
    sums: [Buffer; 2],
    partial: Buffer,
    weights: Buffer,
    count: Buffer,
    hidden: Buffer,
    /// Answers, and partial ones of each block.
    chosen: Buffer,
    chosen_parts: Buffer,
    panel: Option<Buffer>,
    logits: Option<Buffer>,
}

impl Cuda {
    /// Loads the model of a checkpoint onto the GPU with this number.
    ///
    /// Matrices keep the format of the file, or are converted to `dtype`. Activations are F32 if
    /// all matrices are, F16 if most are, else BF16.
    ///
    /// # Errors
    /// A configuration that cannot be run; [`Error::Tensors`] naming all that are missing or
    /// misshapen; [`Error::DeviceMissing`]; [`Error::DeviceMemory`].
    pub fn load(checkpoint: &Checkpoint, number: usize, dtype: Option<Format>) -> Result<Self> {
        Self::load_onto(&Gpu::open(number)?, checkpoint, dtype)
    }

    fn load_onto(gpu: &Gpu, checkpoint: &Checkpoint, dtype: Option<Format>) -> Result<Self> {
        let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
        let blueprint = arch::blueprint(&checkpoint.config)?.with_heads(shape);
        if let Some(property) = model::missing(&blueprint) {
            return Err(Error::DeviceLacks { device: gpu.name().to_owned(), property });
        }
        let required = checkpoint.weights.require(&arch::tensors(&blueprint))?;
        let compute = compute_format(&required, dtype);
        let tensors = required.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let changes = HashMap::new();
        let loader = Loader { gpu, blueprint: &blueprint, tensors: &tensors, compute, dtype, changes: &changes };
        let weights = loader.load()?;
        let kernels = load_kernels(gpu, &blueprint, compute, &weights)?;
        let rotations = Rotations::new(gpu, &blueprint)?;
        let cache = Cache::new(gpu, &blueprint, compute)?;
        let scratch = Scratch::new(gpu, &blueprint, compute, MOST_ROWS)?;
        let (graphs, most_rows) = (HashMap::new(), weights.most_rows());
        Ok(Self {
            blueprint,
            tensors,
            dtype,
            compute,
            most_rows,
            changes,
            graphs,
            weights,
            kernels,
            rotations,
            cache,
            scratch,
            gpu: gpu.clone(),
        })
    }

    /// Describes the device and what the model takes of it.
    #[must_use]
    pub fn summary(&self) -> String {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        let positions = self.cache.pages_total() * PAGE;
        format!(
            "{}: weights {:.2} GiB, cache of {positions} positions {:.2} GiB",
            self.gpu.name(),
            gib(self.weights.bytes()),
            gib(self.cache.data.bytes())
        )
    }

    fn value_bytes(&self) -> usize {
        self.compute.block_bytes()
    }

    /// Runs the cached tokens again if a span takes its sequence across the border of
    /// [`Blueprint::is_long`].
    fn cross_border(&mut self, span: &Span<'_>) -> Result<()> {
        let long = self.blueprint.is_long(span.end());
        let slot = self.cache.pages.slot(span.slot);
        if std::mem::replace(&mut slot.long, long) == long || slot.tokens.is_empty() {
            return Ok(());
        }
        let tokens = slot.tokens.clone();
        self.cache.pages.truncate(span.slot, 0);
        for (index, tokens) in tokens.chunks(RERUN_TOKENS).enumerate() {
            self.run(&[Span::chain(span.slot, index * RERUN_TOKENS, tokens)])?;
        }
        Ok(())
    }

    /// Runs spans, which are valid and not empty. Returns the wanted rows.
    fn run(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        let wanted = self.step(spans, &[])?;
        let mut hidden = vec![0.0f32; wanted * self.blueprint.hidden];
        self.scratch.hidden.read(0, &mut hidden)?;
        Ok(hidden)
    }

    /// Runs spans, which are valid and not empty, and answers questions about the wanted rows if
    /// there are any. Returns the number of the rows.
    fn step(&mut self, spans: &[Span<'_>], asks: &[Ask]) -> Result<usize> {
        self.reserve(spans)?;
        let pages = &self.cache.pages;
        let with_slots = spans.iter().filter_map(|span| {
            let slot = pages.get(span.slot)?;
            Some((span, slot.row, slot.long))
        });
        let mut input = Input::new(with_slots);
        input.ask.extend(asks.iter().map(|ask| match ask {
            Ask::Logprob(token) => *token as i32,
            Ask::Argmax => -1,
        }));
        let (wanted, answers) = (input.pick.len(), !asks.is_empty());
        let recorded = input.recorded_rows().filter(|_| spans.iter().all(|span| span.layer == Layer::Final));
        if let Some(rows) = recorded {
            input.fill(rows);
        }
        self.make_room(&input, answers)?;
        self.scratch.input.write(0, &input.numbers())?;
        let splits = splits(input.rows, input.longest);
        let key = (input.rows, splits, answers);
        match self.graphs.get(&key).filter(|_| recorded.is_some()) {
            Some(graph) => graph.replay()?,
            None => {
                self.queue(&input, spans, splits)?;
                if recorded.is_some() {
                    // What is loaded at its first use has been loaded now, which cannot be recorded.
                    let graph = self.gpu.record(|| self.queue(&input, &[], splits))?;
                    self.graphs.insert(key, graph);
                }
            }
        }
        for span in spans {
            if let Some(slot) = self.cache.pages.get_mut(span.slot) {
                slot.tokens.extend_from_slice(span.tokens);
                slot.fork = span.fork();
            }
        }
        Ok(wanted)
    }

    /// Makes buffers that are large enough for a step.
    fn make_room(&mut self, input: &Input, answers: bool) -> Result<()> {
        let numbers = LISTS * input.rows + input.bits.len();
        if input.rows > self.scratch.rows || 4 * numbers > self.scratch.input.bytes() {
            let rows = input.rows.max(numbers / 32).next_power_of_two();
            self.graphs.clear();
            self.scratch = Scratch::new(&self.gpu, &self.blueprint, self.compute, rows)?;
        }
        if answers { self.make_logits(4 * input.rows * self.blueprint.vocab) } else { Ok(()) }
    }

    fn make_logits(&mut self, bytes: usize) -> Result<()> {
        if self.scratch.logits.as_ref().is_none_or(|logits| logits.bytes() < bytes) {
            self.graphs.clear();
            self.scratch.logits = None;
            self.scratch.logits = Some(self.gpu.alloc(bytes.next_power_of_two())?);
        }
        Ok(())
    }

    /// Makes room for the spans and tells the device which pages they have.
    fn reserve(&mut self, spans: &[Span<'_>]) -> Result<()> {
        let mut copies = Vec::new();
        for span in spans {
            self.cache.pages.slot(span.slot);
            let end = span.start + span.tokens.len();
            self.cache.pages.reserve(span.slot, end, &mut copies).map_err(|full| Error::CacheFull {
                device: self.gpu.name().to_owned(),
                wanted: full.wanted * PAGE,
                positions: self.cache.pages_total() * PAGE,
            })?;
        }
        self.copy_pages(&copies)?;
        if self.cache.pages.rows() > self.cache.table_rows {
            self.cache.grow_table(&self.gpu)?;
            self.graphs.clear();
        }
        for span in spans {
            self.cache.update_table(span.slot)?;
        }
        Ok(())
    }

    fn copy_pages(&self, copies: &[pages::PageCopy]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let moves: Vec<i32> = copies.concat().into_iter().map(|page| page as i32).collect();
        let moves_on_device = self.gpu.upload(&moves)?;
        let args = self.copy_args(&moves_on_device, copies.len());
        self.gpu.launch(self.kernels.copy_pages, [copies.len(), self.blueprint.layers.len(), 1], &args)
    }

    fn copy_args(&self, moves: &Buffer, count: usize) -> CopyArgs {
        CopyArgs {
            cache: self.cache.data.at(0),
            layer_stride: (self.cache.layer_bytes / self.value_bytes()) as u64,
            moves: moves.at(0),
            count: count as i32,
            padding: 0,
        }
    }

    /// Queues the kernels of a step. Spans that read other layers than the last are served only if
    /// they are given.
    fn queue(&self, input: &Input, spans: &[Span<'_>], splits: usize) -> Result<()> {
        let rows = input.rows;
        let queue =
            Queue { cuda: self, input, rows, splits, list: |index: usize| self.scratch.input.at(4 * index * rows) };
        queue.run(spans)
    }
}

/// The launches of one step.
struct Queue<'a, L: Fn(usize) -> u64> {
    cuda: &'a Cuda,
    input: &'a Input,
    rows: usize,
    splits: usize,
    /// The address of a list of the input, by its number.
    list: L,
}

/// The norms around a residual sum.
struct Sum<'a> {
    /// The norm of what is added.
    post: Option<&'a Buffer>,
    /// The norm of the sum.
    next: Option<&'a Buffer>,
    /// The latter is left to the layer that reads it, with `sums` of squares.
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
const BITS: usize = LISTS;

impl<L: Fn(usize) -> u64> Queue<'_, L> {
    fn run(&self, spans: &[Span<'_>]) -> Result<()> {
        let Cuda { blueprint, scratch, weights, .. } = self.cuda;
        let folds = self.rows <= self.cuda.most_rows && model::folds_norms(blueprint, self.cuda.compute);
        self.begin()?;
        self.collect(spans, Layer::After(0))?;
        let mut sums = None;
        for (index, layer) in weights.layers.iter().enumerate() {
            self.heads(index, sums)?;
            self.attend(index)?;
            let (attended, gated) = (scratch.attended.at(0), scratch.gated.at(0));
            let (post, next) = (layer.norms.post_attention.as_ref(), layer.norms.pre_mlp.as_ref());
            sums = self.add(&layer.output, attended, &Sum { post, next, folds, sums: &scratch.sums[0] })?;
            self.gate(&layer.gates, sums)?;
            let after = weights.layers.get(index + 1);
            let next = after.map_or(Some(&weights.final_norm), |layer| layer.norms.pre_attention.as_ref());
            let post = layer.norms.post_mlp.as_ref();
            sums = self.add(&layer.down, gated, &Sum { post, next, folds, sums: &scratch.sums[1] })?;
            self.collect(spans, Layer::After(index + 1))?;
        }
        if spans.is_empty() || spans.iter().all(|span| span.layer == Layer::Final) {
            let count = if spans.is_empty() { self.rows } else { self.input.pick.len() };
            self.finish(0, count, Some(&weights.final_norm))?;
            if self.input.ask.is_empty() { Ok(()) } else { self.choose(count) }
        } else {
            self.collect(spans, Layer::Final)
        }
    }

    /// Embeds the tokens, norms them and computes the angles of their positions.
    fn begin(&self) -> Result<()> {
        let Cuda { blueprint, kernels, scratch, weights, gpu, rotations, .. } = self.cuda;
        let angles = AnglesArgs {
            position: (self.list)(POSITION),
            is_long: (self.list)(IS_LONG),
            frequencies: rotations.frequencies.at(0),
            out: scratch.angles.at(0),
            rows: self.rows as i32,
            ropes: rotations.pairs.len() as i32,
            factors: rotations.factors.at(0),
        };
        gpu.launch(kernels.angles, [rotations.pairs.len(), self.rows, 1], &angles)?;
        let embed = EmbedArgs {
            matrix: weights.embedding.args(),
            token: (self.list)(TOKEN),
            h: scratch.h.at(0),
            scale: blueprint.embedding_scale,
            width: blueprint.hidden as i32,
        };
        gpu.launch(kernels.embed(weights.embedding.format)?, [self.rows, 1, 1], &embed)?;
        let first = weights.layers.first().and_then(|layer| layer.norms.pre_attention.as_ref());
        gpu.launch(kernels.norm, [self.rows, 1, 1], &NormArgs { out: scratch.x.at(0), ..self.norm(first) })
    }

    /// The norm of the residual stream.
    fn norm(&self, weight: Option<&Buffer>) -> NormArgs {
        let Cuda { blueprint, scratch, .. } = self.cuda;
        NormArgs {
            h: scratch.h.at(0),
            weight: weight.map_or(0, |weight| weight.at(0)),
            width: blueprint.hidden as i32,
            stride: padded(blueprint.hidden) as i32,
            epsilon: blueprint.norms.eps,
            ..NormArgs::default()
        }
    }

    /// Writes hidden states of the rows that spans want of a layer.
    fn collect(&self, spans: &[Span<'_>], layer: Layer) -> Result<()> {
        if spans.iter().all(|span| span.layer == Layer::Final) {
            return Ok(());
        }
        let mut first = 0;
        for span in spans {
            if span.layer == layer {
                let weight = (layer == Layer::Final).then_some(&self.cuda.weights.final_norm);
                self.finish(first, span.rows.len(), weight)?;
            }
            first += span.rows.len();
        }
        Ok(())
    }

    /// Writes picked rows of the residual stream, normed if there is a weight.
    fn finish(&self, first: usize, count: usize, weight: Option<&Buffer>) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let Cuda { blueprint, kernels, scratch, gpu, .. } = self.cuda;
        let wide = scratch.hidden.at(4 * first * blueprint.hidden);
        // The input of a head too, of which only the first rows are read.
        let out = if first == 0 { scratch.x.at(0) } else { 0 };
        let args = NormArgs { wide, out, pick: (self.list)(PICK) + 4 * first as u64, ..self.norm(weight) };
        gpu.launch(kernels.norm, [count, 1, 1], &args)
    }

    /// Answers the questions about the first `count` rows.
    fn choose(&self, count: usize) -> Result<()> {
        let Cuda { blueprint, kernels, scratch, gpu, .. } = self.cuda;
        let Some(logits) = &scratch.logits else { return Ok(()) };
        let Some(head) = self.cuda.weights.heads.iter().position(|(head, _)| *head == Head::VOCABULARY) else {
            return Ok(());
        };
        self.cuda.project_on_device(head, count, logits.at(0))?;
        let args = ChooseArgs {
            logits: logits.at(0),
            ask: (self.list)(ASK),
            partial: scratch.chosen_parts.at(0),
            count: scratch.count.at(0),
            out: scratch.chosen.at(0),
            width: blueprint.vocab as i32,
            stride: blueprint.vocab as i32,
        };
        gpu.launch(kernels.choose, [CHOOSE_BLOCKS, count, 1], &args)
    }

    /// Computes queries, keys and values, and stores the latter two.
    fn heads(&self, index: usize, sums: Option<u64>) -> Result<()> {
        let Cuda { blueprint, kernels, scratch, weights, gpu, rotations, cache, .. } = self.cuda;
        let (layer, rope) = (&weights.layers[index], rotations.index(blueprint.layers[index].rope));
        let angles = scratch.angles.at(8 * rope * self.rows * (blueprint.head_dim / 2));
        let stored = LinearArgs {
            q: scratch.q.at(0),
            cache: cache.data.at(index * cache.layer_bytes),
            slot: (self.list)(SLOT),
            place: (self.list)(PLACE),
            table: cache.table.at(0),
            table_stride: cache.table_stride as i32,
            angles,
            pairs: rotations.pairs[rope].at(0),
            ..self.input_args(scratch.x.at(0), sums, blueprint.hidden)
        };
        if self.is_few(&layer.heads) && model::rotates_directly(blueprint) {
            return self.apply(&layer.heads, Epilogue::Heads, stored);
        }
        let stride = layer.heads.outputs;
        let bias = self.wide(&layer.heads, stored, stride)?;
        let at = |norm: &Option<Buffer>| norm.as_ref().map_or(0, |norm| norm.at(0));
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
        };
        gpu.launch(kernels.place_heads, [self.rows, 1, 1], &args)
    }

    fn attend(&self, index: usize) -> Result<()> {
        let Cuda { blueprint, kernels, scratch, gpu, cache, .. } = self.cuda;
        let args = AttentionArgs {
            q: scratch.q.at(0),
            cache: cache.data.at(index * cache.layer_bytes),
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
            ..AttentionArgs::default()
        };
        let groups = blueprint.heads / program::group(blueprint);
        let mut singles = self.input.singles();
        for chain in &self.input.chains {
            let Some(kernel) = kernels.attend_chain else {
                singles.push(chain.clone());
                continue;
            };
            let args = AttentionArgs { first: chain.start as i32, rows: chain.len() as i32, splits: 1, ..args };
            gpu.launch(kernel, [chain.len().div_ceil(64), blueprint.heads, 1], &args)?;
        }
        for range in singles {
            let splits = if range.len() * self.splits > MOST_PARTS { 1 } else { self.splits };
            let args = AttentionArgs { first: range.start as i32, splits: splits as i32, ..args };
            gpu.launch(kernels.attend, [groups, splits, range.len()], &args)?;
        }
        Ok(())
    }

    /// Adds a linear layer's output to the residual stream and writes the input of the next norm.
    /// Returns the sums of squares if that norm is still to be applied.
    fn add(&self, linear: &Linear, x: u64, sum: &Sum<'_>) -> Result<Option<u64>> {
        let Cuda { blueprint, kernels, scratch, gpu, .. } = self.cuda;
        let input = LinearArgs { x, ..self.input_args(x, None, blueprint.hidden) };
        if let Some(next) = sum.next.filter(|_| sum.folds) {
            let sums = sum.sums.at(0);
            let args = LinearArgs {
                h: scratch.h.at(0),
                narrowed: scratch.x.at(0),
                gain: next.at(0),
                sums_out: sums,
                stride: blueprint.hidden as i32,
                stride_narrowed: padded(blueprint.hidden) as i32,
                ..input
            };
            self.apply(linear, Epilogue::Residual, args)?;
            return Ok(Some(sums));
        }
        let bias = self.wide(linear, input, blueprint.hidden)?;
        let args = NormArgs {
            added: scratch.wide.at(0),
            bias,
            post: sum.post.map_or(0, |post| post.at(0)),
            out: scratch.x.at(0),
            ..self.norm(sum.next)
        };
        gpu.launch(kernels.norm, [self.rows, 1, 1], &args)?;
        Ok(None)
    }

    /// Computes the gated product of the feed-forward part.
    fn gate(&self, gates: &Linear, sums: Option<u64>) -> Result<()> {
        let Cuda { blueprint, kernels, scratch, gpu, .. } = self.cuda;
        let stride = padded(blueprint.ffn);
        let input = self.input_args(scratch.x.at(0), sums, blueprint.hidden);
        if self.is_few(gates) {
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

    /// The input of a linear layer, whose norm is still to be applied if there are `sums`.
    fn input_args(&self, x: u64, sums: Option<u64>, width: usize) -> LinearArgs {
        LinearArgs {
            x,
            sums: sums.unwrap_or(0),
            parts: width.div_ceil(matrix::TILE) as i32,
            inverse_width: 1.0 / width as f32,
            epsilon: self.cuda.blueprint.norms.eps,
            ..LinearArgs::default()
        }
    }

    fn is_few(&self, linear: &Linear) -> bool {
        self.cuda.is_few(linear, self.rows)
    }

    /// Applies a linear layer to few rows with a last step.
    fn apply(&self, linear: &Linear, epilogue: Epilogue, args: LinearArgs) -> Result<()> {
        self.cuda.apply(linear, epilogue, args, self.rows)
    }

    /// Writes a linear layer's output as floats to `scratch.wide`. Returns the address of a bias
    /// that is still to be added.
    fn wide(&self, linear: &Linear, args: LinearArgs, stride: usize) -> Result<u64> {
        let out = self.cuda.scratch.wide.at(0);
        let is_finished = self.cuda.product(linear, LinearArgs { out, stride: stride as i32, ..args }, self.rows)?;
        Ok(linear.bias.as_ref().filter(|_| !is_finished).map_or(0, |bias| bias.at(0)))
    }
}

impl Cuda {
    /// A linear layer of this many rows reads its weights by this crate's kernels.
    fn is_few(&self, linear: &Linear, rows: usize) -> bool {
        rows <= linear.most_rows()
    }

    /// Applies a linear layer to few rows with a last step.
    fn apply(&self, linear: &Linear, epilogue: Epilogue, args: LinearArgs, rows: usize) -> Result<()> {
        for part in &linear.parts {
            let matrix = &part.matrix;
            let kernel = self.kernels.linear(matrix.format, epilogue, rows)?;
            let bias = linear.bias.as_ref().map_or(0, |bias| bias.at(4 * part.first));
            // Whole tiles are counted; other outputs are reached by their address.
            let is_tiled = part.first.is_multiple_of(matrix::TILE);
            let args = LinearArgs {
                matrix: matrix.args(),
                bias,
                rows: rows as i32,
                first_tile: if is_tiled { (part.first / matrix::TILE) as i32 } else { 0 },
                out: if is_tiled { args.out } else { args.out + 4 * part.first as u64 },
                ..args
            };
            self.gpu.launch(kernel, [matrix.outputs.div_ceil(matrix::TILE), 1, 1], &args)?;
        }
        Ok(())
    }

    /// Writes a linear layer's output as floats to `args.out`. Returns true if bias and soft cap
    /// are applied.
    fn product(&self, linear: &Linear, args: LinearArgs, rows: usize) -> Result<bool> {
        let most = linear.most_rows().max(1);
        let is_block = linear.parts.iter().any(|part| part.matrix.format.block_values() > 1);
        if rows <= most || (is_block && rows <= PASS_ROWS && args.sums == 0) {
            for first in (0..rows).step_by(most) {
                let args = LinearArgs {
                    x: args.x + (first * linear.inputs * self.value_bytes()) as u64,
                    out: args.out + 4 * (first * args.stride as usize) as u64,
                    ..args
                };
                self.apply(linear, Epilogue::Out, args, most.min(rows - first))?;
            }
            return Ok(true);
        }
        for part in &linear.parts {
            let matrix = &part.matrix;
            let (mut first, mut w) = (0, matrix.args().low);
            while first < matrix.outputs {
                let mut outputs = matrix.outputs - first;
                if matrix.format.block_values() > 1 {
                    let panel = self.scratch.panel.as_ref().map_or(0, |panel| panel.at(0));
                    outputs = outputs.min(PANEL_VALUES / matrix.inputs / matrix::TILE * matrix::TILE);
                    let (first, rows) = (first as i32, outputs as i32);
                    let widen = WidenArgs { matrix: matrix.args(), out: panel, first, rows };
                    let grid = [(matrix.inputs / matrix::CHUNK).div_ceil(8), outputs.div_ceil(matrix::TILE), 1];
                    self.gpu.launch(self.kernels.widen(matrix.format)?, grid, &widen)?;
                    w = panel;
                }
                self.gpu.product(&Product {
                    w,
                    x: args.x,
                    out: args.out + 4 * (part.first + first) as u64,
                    outputs,
                    rows,
                    inputs: matrix.inputs,
                    stride: args.stride as usize,
                    format: self.compute,
                })?;
                first += outputs;
            }
        }
        Ok(false)
    }

    /// Applies a head to at most [`PROJECT_ROWS`] hidden states.
    fn project_rows(&mut self, head: usize, hidden: &[f32], out: &mut [f32]) -> Result<()> {
        let width = self.blueprint.hidden;
        let rows = hidden.len() / width;
        if rows > self.scratch.rows {
            self.graphs.clear();
            self.scratch = Scratch::new(&self.gpu, &self.blueprint, self.compute, rows.next_power_of_two())?;
        }
        self.make_logits(size_of_val(out))?;
        let Some(logits) = &self.scratch.logits else { return Ok(()) };
        self.scratch.hidden.write(0, hidden)?;
        let (input, out_of_it) = (self.scratch.hidden.at(0), self.scratch.x.at(0));
        let narrow = NarrowArgs { input, out: out_of_it, width: width as i32, stride: padded(width) as i32 };
        self.gpu.launch(self.kernels.narrow_rows, [rows, 1, 1], &narrow)?;
        self.project_on_device(head, rows, logits.at(0))?;
        logits.read(0, out)
    }

    /// Applies a head to the first rows of `scratch.x`.
    fn project_on_device(&self, head: usize, rows: usize, out: u64) -> Result<()> {
        let (head, linear) = &self.weights.heads[head];
        let cap = self.blueprint.final_softcap.filter(|_| *head == Head::VOCABULARY).unwrap_or(0.0);
        let x = self.scratch.x.at(0);
        let args = LinearArgs { x, out, stride: linear.outputs as i32, cap, ..LinearArgs::default() };
        let is_finished = self.product(linear, args, rows)?;
        let bias = linear.bias.as_ref().map_or(0, |bias| bias.at(0));
        if is_finished || (bias == 0 && cap == 0.0) {
            return Ok(());
        }
        let finish = FinishArgs { x: out, bias, width: linear.outputs as i32, cap };
        self.gpu.launch(self.kernels.finish, [linear.outputs.div_ceil(256), rows, 1], &finish)
    }
}

/// Chooses the type of activations.
fn compute_format(tensors: &[Tensor], dtype: Option<Format>) -> Format {
    if let Some(format @ (Format::F32 | Format::F16 | Format::BF16)) = dtype {
        return format;
    }
    if dtype.is_some() {
        return Format::BF16;
    }
    let matrices = || tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    let all = |format: Format| matrices().all(|tensor| tensor.format == format);
    // Block formats have no more digits than bfloat16.
    [Format::F32, Format::F16].into_iter().find(|format| all(*format)).unwrap_or(Format::BF16)
}

fn load_kernels(gpu: &Gpu, blueprint: &Blueprint, compute: Format, weights: &Weights) -> Result<Kernels> {
    let uses = weights.uses(blueprint, compute);
    Kernels::load(gpu, &Request { blueprint, compute, uses: &uses, embedding: weights.embedding.format })
}

impl Rotations {
    fn new(gpu: &Gpu, blueprint: &Blueprint) -> Result<Self> {
        let (half, mut frequencies, mut factors) = (blueprint.head_dim / 2, Vec::new(), Vec::new());
        let (mut pairs, mut orders) = (Vec::new(), Vec::new());
        for rope in blueprint.ropes.iter().map(Some).chain([None]) {
            let rotation = Rotation::new(rope, blueprint.head_dim);
            for long in [false, true] {
                frequencies.extend(rope.map_or(Vec::new(), |rope| rope.frequencies(long)));
                frequencies.extend(vec![-1.0; half - rotation.rotating]);
            }
            factors.push(rope.map_or(1.0, RopePlan::attention_factor));
            let numbers: Vec<i32> = rotation.pairs.concat().into_iter().map(|dim| dim as i32).collect();
            pairs.push(gpu.upload(&numbers)?);
            let mut order = vec![0i32; blueprint.head_dim];
            rotation.rows().into_iter().enumerate().for_each(|(row, dim)| order[dim] = row as i32);
            orders.push(gpu.upload(&order)?);
        }
        Ok(Self { frequencies: gpu.upload(&frequencies)?, factors: gpu.upload(&factors)?, pairs, orders })
    }
}

impl Rotations {
    /// The index of a layer's rotation; the last one is none.
    fn index(&self, rope: Option<usize>) -> usize {
        rope.unwrap_or(self.pairs.len() - 1)
    }
}

impl Cache {
    fn new(gpu: &Gpu, blueprint: &Blueprint, compute: Format) -> Result<Self> {
        let page = 2 * blueprint.kv_heads * PAGE * program::head_stride(blueprint) * compute.block_bytes();
        let (free, _) = gpu.memory()?;
        let layers = blueprint.layers.len().max(1);
        let most = (free as f64 * CACHE_SHARE) as usize / (page * layers);
        let count = most.min(MOST_CACHED / PAGE).min(64 * blueprint.max_len.div_ceil(PAGE) + 65);
        let least = blueprint.max_len.min(512).div_ceil(PAGE) + 1;
        if count < least {
            return Err(Error::DeviceMemory { device: gpu.name().to_owned(), bytes: least * page * layers, free });
        }
        let (table_rows, table_stride) = (128, blueprint.max_len.div_ceil(PAGE) + 1);
        Ok(Self {
            pages: Pages::new(count),
            data: gpu.alloc(count * page * layers)?,
            layer_bytes: count * page,
            table: gpu.alloc(4 * table_rows * table_stride)?,
            table_rows,
            table_stride,
        })
    }

    fn pages_total(&self) -> usize {
        self.pages.total()
    }

    /// Makes a larger table, into which all slots are written again.
    fn grow_table(&mut self, gpu: &Gpu) -> Result<()> {
        self.table_rows = self.pages.rows().next_power_of_two();
        self.table = gpu.alloc(4 * self.table_rows * self.table_stride)?;
        for slot in self.pages.all() {
            if let Some(slot) = self.pages.get_mut(slot) {
                slot.stale = 0;
            }
            self.update_table(slot)?;
        }
        Ok(())
    }

    /// Writes the numbers of a slot's pages that changed.
    fn update_table(&mut self, slot: u64) -> Result<()> {
        let Some(slot) = self.pages.get_mut(slot) else { return Ok(()) };
        let fresh = slot.stale.min(slot.pages.len());
        if fresh < slot.pages.len() {
            self.table.write(4 * (slot.row * self.table_stride + fresh), &slot.pages[fresh..])?;
        }
        slot.stale = slot.pages.len();
        Ok(())
    }
}

impl Scratch {
    fn new(gpu: &Gpu, blueprint: &Blueprint, compute: Format, rows: usize) -> Result<Self> {
        let (value, hidden, query) = (compute.block_bytes(), blueprint.hidden, blueprint.query_width());
        let (stride, half) = (program::head_stride(blueprint), blueprint.head_dim / 2);
        let gates = 2 * blueprint.ffn.next_multiple_of(matrix::TILE / 2);
        let wide = gates.max(query + 2 * blueprint.kv_width()).max(hidden);
        let sums = || gpu.alloc(4 * MOST_ROWS * hidden.div_ceil(matrix::TILE));
        Ok(Self {
            rows,
            input: gpu.alloc(4 * rows.max(64) * 64)?,
            angles: gpu.alloc(8 * rows * half * (blueprint.ropes.len() + 1))?,
            h: gpu.alloc(4 * rows * hidden)?,
            x: gpu.alloc(value * rows * padded(hidden))?,
            q: gpu.alloc(value * rows * blueprint.heads * stride)?,
            attended: gpu.alloc(value * rows * padded(query))?,
            gated: gpu.alloc(value * rows * padded(blueprint.ffn))?,
            wide: gpu.alloc(4 * rows * wide)?,
            sums: [sums()?, sums()?],
            partial: gpu.alloc(4 * MOST_PARTS * query)?,
            weights: gpu.alloc(8 * MOST_PARTS * blueprint.heads)?,
            count: gpu.alloc(4 * MOST_PARTS.max(rows) * blueprint.heads)?,
            hidden: gpu.alloc(4 * rows * hidden)?,
            chosen: gpu.alloc(8 * rows)?,
            chosen_parts: gpu.alloc(16 * CHOOSE_BLOCKS * rows)?,
            panel: (compute != Format::F32).then(|| gpu.alloc(value * PANEL_VALUES)).transpose()?,
            logits: None,
        })
    }
}

impl Executor for Cuda {
    fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        executor::check(&self.blueprint, spans, |slot| {
            self.cache.pages.get(slot).map(pages::Slot::cached).unwrap_or_default()
        })?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        spans.iter().try_for_each(|span| self.cross_border(span))?;
        if spans.is_empty() { Ok(Vec::new()) } else { self.run(&spans) }
    }

    fn answer(&mut self, spans: &[Span<'_>], asks: &[Ask]) -> Result<Option<Vec<Answer>>> {
        executor::check(&self.blueprint, spans, |slot| {
            self.cache.pages.get(slot).map(pages::Slot::cached).unwrap_or_default()
        })?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        let is_final = spans.iter().all(|span| span.layer == Layer::Final);
        if asks.is_empty() || !is_final || self.blueprint.head(Head::VOCABULARY).is_none() {
            return Ok(None);
        }
        spans.iter().try_for_each(|span| self.cross_border(span))?;
        let count = self.step(&spans, asks)?;
        let mut chosen = vec![[0u32; 2]; count];
        self.scratch.chosen.read(0, &mut chosen)?;
        let answer =
            |[logprob, token]: [u32; 2]| Answer { token, logprob: f64::from(f32::from_bits(logprob)).min(0.0) };
        Ok(Some(chosen.into_iter().map(answer).collect()))
    }

    fn adapt(&mut self, adapter: &Adapter) -> Result<()> {
        let mut changes = self.changes.clone();
        for (module, change) in adapter.modules(&self.blueprint)? {
            changes.entry(module.to_owned()).or_default().push(change.clone());
        }
        let Self { gpu, blueprint, tensors, compute, dtype, .. } = &*self;
        let loader = Loader { gpu, blueprint, tensors, compute: *compute, dtype: *dtype, changes: &changes };
        let weights = loader.load()?;
        let kernels = load_kernels(gpu, blueprint, *compute, &weights)?;
        self.graphs.clear();
        self.most_rows = weights.most_rows();
        (self.weights, self.kernels, self.changes) = (weights, kernels, changes);
        // Cached keys and values belong to the model without the adapter.
        self.cache.pages.clear();
        Ok(())
    }

    fn project(&mut self, head: Head, hidden: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let width = self.blueprint.hidden;
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Rows { floats: hidden.len(), width });
        }
        let index = self.weights.heads.iter().position(|(other, _)| *other == head);
        let index = index.ok_or(Error::MissingHead { head: head.module() })?;
        let outputs = self.weights.heads[index].1.outputs;
        out.resize(hidden.len() / width * outputs, 0.0);
        let rows = hidden.chunks(PROJECT_ROWS * width).zip(out.chunks_mut(PROJECT_ROWS * outputs));
        for (hidden, out) in rows {
            self.project_rows(index, hidden, out)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()> {
        self.cache.pages.copy(from, to, len);
        Ok(())
    }

    fn truncate(&mut self, slot: u64, len: usize) {
        self.cache.pages.truncate(slot, len);
    }

    fn keep(&mut self, slot: u64, len: usize, path: &[usize]) -> Result<()> {
        if path.is_empty() {
            self.truncate(slot, len);
            return Ok(());
        }
        let Some(entry) = self.cache.pages.get_mut(slot) else { return Ok(()) };
        let mut moves = Vec::with_capacity(4 * path.len());
        for (to, &from) in (len..).zip(path) {
            entry.tokens[to] = entry.tokens[from];
            let page = |place: usize| [entry.pages[place / PAGE] as i32, place as i32];
            moves.extend([page(from), page(to)].concat());
        }
        entry.fork = None;
        let moves = self.gpu.upload(&moves)?;
        let args = self.copy_args(&moves, path.len());
        self.gpu.launch(
            self.kernels.move_positions,
            [2 * self.blueprint.kv_heads, self.blueprint.layers.len(), 1],
            &args,
        )?;
        self.truncate(slot, len + path.len());
        Ok(())
    }

    fn release(&mut self, slot: u64) {
        self.cache.pages.release(slot);
    }

    fn cached(&self, slot: u64) -> usize {
        self.cache.pages.get(slot).map_or(0, |slot| slot.tokens.len())
    }

    fn slots(&self) -> usize {
        self.cache.pages.len()
    }

    fn read_bandwidth(&self, bytes: usize) -> Result<f64> {
        let [from, to] = [self.gpu.alloc(bytes)?, self.gpu.alloc(bytes)?];
        let mut best = 0.0f64;
        for _ in 0..5 {
            from.read(0, &mut [0u8])?;
            let started = Instant::now();
            (0..4).try_for_each(|_| to.copy_from(&from))?;
            to.read(0, &mut [0u8])?;
            // A copy reads and writes each byte.
            best = best.max(8.0 * bytes as f64 / started.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}
