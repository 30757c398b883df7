//! The executor on NVIDIA GPUs: kernels compiled when a model is loaded, a paged KV cache, and
//! recorded steps.
//!
//! A step of few rows is five launches per layer: queries, keys and values with rotation and
//! storing; attention; its output with the residual sum and the next norm; the gated product; its
//! output likewise. Steps of a size that occurs again are recorded once and launched as a whole.
//!
//! Consecutive layers are a stage on a card. A model that one card does not hold has several, which
//! hand the residual stream on.

mod answers;
mod args;
pub mod arithmetic;
mod compiler;
mod division;
mod driver;
mod libraries;
mod load;
mod matrix;
mod model;
mod pages;
mod products;
mod program;
mod queue;
mod room;
mod rotation;
mod stage;
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
use std::sync::Arc;
use std::time::Instant;

use wsd_core::Layer;

use crate::adapter::{Adapter, LowRank};
use crate::arch::{Blueprint, Head};
use crate::checkpoint::Tensor;
use crate::error::{Error, Result};
use crate::executor::{self, Answer, Ask, Executor, Span};
use crate::format::Format;
pub use load::CudaOptions;
use pages::Pages;
use program::Types;
use stage::{Stage, Step};
use step::{Input, splits};

/// Tokens run at once when a slot is run again.
const RERUN_TOKENS: usize = 256;
/// Rows that output heads are applied to at once.
const PROJECT_ROWS: usize = 256;

/// A model on NVIDIA GPUs.
pub struct Cuda {
    blueprint: Arc<Blueprint>,
    tensors: HashMap<String, Tensor>,
    dtype: Option<Format>,
    types: Types,
    changes: HashMap<String, Vec<LowRank>>,
    pages: Pages,
    /// In the order of their layers.
    stages: Vec<Stage>,
}

impl Cuda {
    /// Tells whether the driver is installed, whatever else is missing.
    pub(crate) fn has_driver() -> bool {
        libraries::has_driver()
    }

    /// Returns the spans that are not empty, after a check of all of them, on their sides of the border.
    fn admit<'a>(&mut self, spans: &[Span<'a>]) -> Result<Vec<Span<'a>>> {
        executor::check(&self.blueprint, spans, |slot| {
            self.pages.get(slot).map(pages::Slot::cached).unwrap_or_default()
        })?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        spans.iter().try_for_each(|span| self.cross_border(span))?;
        Ok(spans)
    }

    /// Runs the cached tokens again if a span takes its sequence across the border of
    /// [`Blueprint::is_long`].
    fn cross_border(&mut self, span: &Span<'_>) -> Result<()> {
        let long = self.blueprint.is_long(span.end());
        let slot = self.pages.slot(span.slot);
        if std::mem::replace(&mut slot.long, long) == long || slot.tokens.is_empty() {
            return Ok(());
        }
        let tokens = slot.tokens.clone();
        self.pages.truncate(span.slot, 0);
        for (index, tokens) in tokens.chunks(RERUN_TOKENS).enumerate() {
            self.run(&[Span::chain(span.slot, index * RERUN_TOKENS, tokens)])?;
        }
        Ok(())
    }

    /// Runs spans, which are valid and not empty. Returns the wanted rows.
    fn run(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        let wanted = self.step(spans, &[])?;
        let width = self.blueprint.hidden;
        let mut hidden = vec![0.0f32; wanted * width];
        let mut first = 0;
        for spans in spans.chunk_by(|one, next| self.stage_of(one.layer) == self.stage_of(next.layer)) {
            let end = first + spans.iter().map(|span| span.rows.len()).sum::<usize>();
            let stage = &self.stages[self.stage_of(spans[0].layer)];
            stage.scratch.hidden.read(4 * first * width, &mut hidden[first * width..end * width])?;
            first = end;
        }
        Ok(hidden)
    }

    /// The index of the stage that leaves the hidden states of a layer.
    fn stage_of(&self, layer: Layer) -> usize {
        let last = self.stages.len() - 1;
        let holds = |depth: usize| self.stages.iter().position(|stage| depth <= stage.layers.end);
        layer.depth().and_then(holds).unwrap_or(last)
    }

    /// Runs spans, which are valid and not empty, and answers questions about the wanted rows if
    /// there are any. Returns the number of the rows.
    fn step(&mut self, spans: &[Span<'_>], asks: &[Ask]) -> Result<usize> {
        self.reserve(spans)?;
        let with_slots = spans.iter().filter_map(|span| {
            let slot = self.pages.get(span.slot)?;
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
        let splits = splits(input.rows, input.longest);
        let step = Step { input: &input, spans, splits, is_recorded: recorded.is_some() };
        for index in 0..self.stages.len() {
            if let Some(before) = index.checked_sub(1) {
                self.stages[before].hand_on(&self.stages[index], input.rows)?;
            }
            self.stages[index].run(&step)?;
        }
        for span in spans {
            if let Some(slot) = self.pages.get_mut(span.slot) {
                slot.tokens.extend_from_slice(span.tokens);
                slot.fork = span.fork();
            }
        }
        Ok(wanted)
    }

    /// The stage that ends with the output heads.
    fn last(&mut self) -> &mut Stage {
        self.stages.last_mut().expect("invariant: a model has a stage")
    }
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
        self.last().read_answers(&asks[..count.min(asks.len())]).map(Some)
    }

    fn answered_logits(&mut self, row: usize) -> Result<Vec<f32>> {
        self.last().read_logits(row)
    }

    fn adapt(&mut self, adapter: &Adapter) -> Result<()> {
        adapter.refuse_routed("an NVIDIA GPU")?;
        let mut changes = self.changes.clone();
        for (module, change) in adapter.modules(&self.blueprint)? {
            changes.entry(module.to_owned()).or_default().push(change.clone());
        }
        let division: Vec<_> = self.stages.iter().map(|stage| (stage.gpu.clone(), stage.layers.clone())).collect();
        let loaded = self.load_stages(&division, &changes)?;
        let most_rows = loaded.iter().map(|(weights, _)| weights.most_rows()).min().unwrap_or(0);
        let stages = self.stages.iter_mut().zip(loaded);
        stages.for_each(|(stage, (weights, kernels))| stage.replace(weights, kernels, most_rows));
        self.changes = changes;
        // Cached keys and values belong to the model without the adapter.
        self.pages.clear();
        Ok(())
    }

    fn project(&mut self, head: Head, hidden: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let width = self.blueprint.hidden;
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Rows { floats: hidden.len(), width });
        }
        let stage = self.last();
        let index = stage.weights.heads.iter().position(|(other, _)| *other == head);
        let index = index.ok_or(Error::MissingHead { head: head.module() })?;
        let outputs = stage.weights.heads[index].1.outputs;
        out.resize(hidden.len() / width * outputs, 0.0);
        let rows = hidden.chunks(PROJECT_ROWS * width).zip(out.chunks_mut(PROJECT_ROWS * outputs));
        for (hidden, out) in rows {
            stage.project_rows(index, hidden, out)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()> {
        self.pages.copy(from, to, len);
        Ok(())
    }

    fn truncate(&mut self, slot: u64, len: usize) {
        self.pages.truncate(slot, len);
    }

    fn keep(&mut self, slot: u64, len: usize, path: &[usize]) -> Result<()> {
        if path.is_empty() {
            self.truncate(slot, len);
            return Ok(());
        }
        if let Err(error) = self.make_moves(4 * path.len()) {
            self.release(slot);
            return Err(error);
        }
        let Some(entry) = self.pages.get_mut(slot) else { return Ok(()) };
        let moves: Vec<_> = path.iter().copied().zip(len..).map(|(from, to)| [from, to]).collect();
        moves.iter().for_each(|[from, to]| entry.tokens[*to] = entry.tokens[*from]);
        entry.fork = None;
        self.stages.iter().try_for_each(|stage| stage.move_positions(&entry.pages, &moves))?;
        self.truncate(slot, len + path.len());
        Ok(())
    }

    fn release(&mut self, slot: u64) {
        self.pages.release(slot);
    }

    fn cached(&self, slot: u64) -> usize {
        self.pages.get(slot).map_or(0, |slot| slot.tokens.len())
    }

    fn slots(&self) -> usize {
        self.pages.len()
    }

    fn read_bandwidth(&self, bytes: usize) -> Result<f64> {
        let [from, to] = [self.stages[0].gpu.alloc(bytes)?, self.stages[0].gpu.alloc(bytes)?];
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
