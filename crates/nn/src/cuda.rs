//! The executor on an NVIDIA GPU: kernels compiled when a model is loaded, a paged KV cache, and
//! recorded steps.
//!
//! A step of few rows is five launches per layer: queries, keys and values with rotation and
//! storing; attention; its output with the residual sum and the next norm; the gated product; its
//! output likewise. Steps of a size that occurs again are recorded once and launched as a whole.

mod answers;
mod args;
pub mod arithmetic;
mod compiler;
mod driver;
mod libraries;
mod matrix;
mod model;
mod pages;
mod products;
mod program;
mod queue;
mod room;
mod rotation;
mod step;
mod storage;

#[cfg(test)]
#[path = "../tests/cases/mod.rs"]
mod cases;
#[cfg(any(test, feature = "stand-in"))]
mod emulator;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Instant;

use wsd_core::Layer;

use crate::adapter::{Adapter, LowRank};
use crate::arch::{self, Blueprint, Head};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::executor::{self, Answer, Ask, Executor, Span};
use crate::format::Format;
use driver::{Gpu, Graph};
use model::{Loader, Weights};
use pages::PAGE;
use program::{Kernels, MOST_ROWS, Request};
use rotation::Rotations;
use step::{Asked, Input, splits};
use storage::{Cache, Scratch};

/// Tokens run at once when a slot is run again.
const RERUN_TOKENS: usize = 256;
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

/// A kind of recorded step: its rows, the parts of its positions, and its questions.
type Recorded = (usize, usize, Asked);

impl Cuda {
    /// Loads the model of a checkpoint onto the GPU with this number.
    ///
    /// Matrices keep the format of the file, or are converted to `dtype`. Activations are F32 or
    /// F16 if all matrices are, else BF16.
    ///
    /// # Errors
    /// A configuration that cannot be run; [`Error::Tensors`] naming all that are missing or
    /// misshapen; [`Error::DeviceMissing`]; [`Error::DeviceMemory`].
    pub fn load(checkpoint: &Checkpoint, number: usize, dtype: Option<Format>) -> Result<Self> {
        Self::load_onto(&Gpu::open(number)?, checkpoint, dtype)
    }

    /// Tells whether the driver is installed, whatever else is missing.
    pub(crate) fn has_driver() -> bool {
        libraries::has_driver()
    }

    /// The product's name of the GPU.
    pub(crate) fn gpu_name(&self) -> &str {
        self.gpu.name()
    }

    fn load_onto(gpu: &Gpu, checkpoint: &Checkpoint, dtype: Option<Format>) -> Result<Self> {
        let checkpoint = &*checkpoint.without_factors()?;
        let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
        let blueprint = arch::blueprint(&checkpoint.config)?.with_heads(shape);
        Self::load_blueprint(gpu, checkpoint, blueprint, dtype)
    }

    /// Loads a model of a blueprint that is not, or not only, that of the configuration.
    fn load_blueprint(gpu: &Gpu, checkpoint: &Checkpoint, blueprint: Blueprint, dtype: Option<Format>) -> Result<Self> {
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

    fn value_bytes(&self) -> usize {
        self.compute.block_bytes()
    }

    /// Returns the spans that are not empty, after a check of all of them, on their sides of the border.
    fn admit<'a>(&mut self, spans: &[Span<'a>]) -> Result<Vec<Span<'a>>> {
        executor::check(&self.blueprint, spans, |slot| {
            self.cache.pages.get(slot).map(pages::Slot::cached).unwrap_or_default()
        })?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        spans.iter().try_for_each(|span| self.cross_border(span))?;
        Ok(spans)
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
        input.ask(asks);
        let wanted = input.pick.len();
        let recorded = input.recorded_rows().filter(|_| spans.iter().all(|span| span.layer == Layer::Final));
        if let Some(rows) = recorded {
            input.fill(rows);
        }
        self.make_room(&input)?;
        self.scratch.input.write(0, &input.numbers())?;
        let splits = splits(input.rows, input.longest);
        let key = (input.rows, splits, input.asked());
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

impl Executor for Cuda {
    fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        let spans = self.admit(spans)?;
        if spans.is_empty() { Ok(Vec::new()) } else { self.run(&spans) }
    }

    fn answer(&mut self, spans: &[Span<'_>], asks: &[Ask]) -> Result<Option<Vec<Answer>>> {
        let is_final = spans.iter().all(|span| span.layer == Layer::Final);
        if asks.is_empty() || !is_final || self.blueprint.head(Head::VOCABULARY).is_none() {
            return Ok(None);
        }
        let spans = self.admit(spans)?;
        let count = self.step(&spans, asks)?;
        self.read_answers(&asks[..count.min(asks.len())]).map(Some)
    }

    fn answered_logits(&mut self, row: usize) -> Result<Vec<f32>> {
        self.read_logits(row)
    }

    fn adapt(&mut self, adapter: &Adapter) -> Result<()> {
        adapter.refuse_routed("an NVIDIA GPU")?;
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
