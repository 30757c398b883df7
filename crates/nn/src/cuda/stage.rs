//! Consecutive layers of a model on a card.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::args::CopyArgs;
use super::driver::{Gpu, Graph, Kernel};
use super::matrix::padded;
use super::model::{self, Weights};
use super::pages::PAGE;
use super::program::{Kernels, MOST_ROWS, Types};
use super::rotation::Rotations;
use super::step::{Asked, Input, LISTS};
use super::storage::{CANDIDATE_BYTES, CHOOSE_BLOCKS, Cache, Scratch};
use crate::arch::Blueprint;
use crate::error::Result;
use crate::executor::{CANDIDATES, Span};

/// Consecutive layers of a model on a card, with what is before the first and behind the last layer.
pub(super) struct Stage {
    // Declared before the others, whose memory it works on.
    graphs: HashMap<Recorded, Graph>,
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) types: Types,
    pub(super) layers: Range<usize>,
    /// The most rows that the kernels of all layers of the model take at once.
    pub(super) most_rows: usize,
    pub(super) weights: Weights,
    pub(super) kernels: Kernels,
    pub(super) rotations: Rotations,
    pub(super) cache: Cache,
    pub(super) scratch: Scratch,
    pub(super) gpu: Gpu,
}

/// A kind of recorded step: its rows, the parts of its positions, and its questions.
type Recorded = (usize, usize, Asked);

/// A step, as each stage runs it.
pub(super) struct Step<'a> {
    pub(super) input: &'a Input,
    pub(super) spans: &'a [Span<'a>],
    /// The parts that positions are divided into.
    pub(super) splits: usize,
    /// Steps of its size are recorded.
    pub(super) is_recorded: bool,
}

impl Stage {
    pub(super) fn new(
        gpu: &Gpu,
        (blueprint, types): (&Arc<Blueprint>, Types),
        (layers, most_rows): (Range<usize>, usize),
        (weights, kernels): (Weights, Kernels),
        pages: usize,
    ) -> Result<Self> {
        let rotations = Rotations::new(gpu, blueprint)?;
        let cache = Cache::new(gpu, blueprint, types, (layers.len(), pages))?;
        let scratch = Scratch::new(gpu, blueprint, types, (MOST_ROWS, weights.panel_values()))?;
        let (blueprint, gpu, graphs) = (blueprint.clone(), gpu.clone(), HashMap::new());
        Ok(Self { graphs, blueprint, types, layers, most_rows, weights, kernels, rotations, cache, scratch, gpu })
    }

    /// True if it ends with the output heads.
    pub(super) fn is_last(&self) -> bool {
        self.layers.end == self.blueprint.layers.len()
    }

    /// True if norms cost no launch of their own in a step of so many rows.
    pub(super) fn folds(&self, rows: usize) -> bool {
        rows <= self.most_rows && model::folds_norms(&self.blueprint, self.types.compute)
    }

    /// Replaces the weights and their kernels.
    pub(super) fn replace(&mut self, weights: Weights, kernels: Kernels, most_rows: usize) {
        self.graphs.clear();
        (self.weights, self.kernels, self.most_rows) = (weights, kernels, most_rows);
    }

    /// Queues its layers of a step.
    pub(super) fn run(&mut self, step: &Step<'_>) -> Result<()> {
        let Step { input, spans, splits, is_recorded } = *step;
        self.scratch.input.write(0, &input.numbers())?;
        let asked = if self.is_last() { input.asked() } else { Asked::Nothing };
        let key = (input.rows, splits, asked);
        if let Some(graph) = self.graphs.get(&key).filter(|_| is_recorded) {
            return graph.replay();
        }
        self.queue(input, spans, splits)?;
        if is_recorded {
            // What is loaded at its first use has been loaded now, which cannot be recorded.
            let graph = self.gpu.record(|| self.queue(input, &[], splits))?;
            self.graphs.insert(key, graph);
        }
        Ok(())
    }

    /// Hands the residual stream of a step on to the stage of the next layers: itself, and the input
    /// of the next norm or what is behind it.
    pub(super) fn hand_on(&self, next: &Self, rows: usize) -> Result<()> {
        let (from, to, width) = (&self.scratch, &next.scratch, self.blueprint.hidden);
        from.h.send(&to.h, 4 * rows * width)?;
        from.x.send(&to.x, self.types.value_bytes() * rows * padded(width))?;
        let [_, squares] = &from.sums;
        if self.folds(rows) { squares.send(&to.sums[1], squares.bytes()) } else { Ok(()) }
    }

    /// Makes buffers that are large enough for a step.
    pub(super) fn make_room(&mut self, input: &Input) -> Result<()> {
        self.make_scratch(input.rows, LISTS * input.rows + input.bits.len())?;
        let asked = if self.is_last() { input.asked() } else { Asked::Nothing };
        if asked == Asked::Candidates && self.scratch.candidates.is_none() {
            let (rows, parts) = (self.scratch.rows, 8 * CHOOSE_BLOCKS * CANDIDATES);
            self.scratch.candidates = Some([self.gpu.alloc(rows * CANDIDATE_BYTES)?, self.gpu.alloc(rows * parts)?]);
        }
        if asked == Asked::Nothing { Ok(()) } else { self.make_logits(4 * input.rows * self.blueprint.vocab) }
    }

    /// Makes buffers for so many rows and numbers of input.
    pub(super) fn make_scratch(&mut self, rows: usize, numbers: usize) -> Result<()> {
        if rows <= self.scratch.rows && 4 * numbers <= self.scratch.input.bytes() {
            return Ok(());
        }
        self.graphs.clear();
        let rows = rows.max(numbers / 32).max(self.scratch.rows);
        let sizes = (rows.next_power_of_two(), self.weights.panel_values());
        self.scratch = Scratch::new(&self.gpu, &self.blueprint, self.types, sizes)?;
        Ok(())
    }

    pub(super) fn make_logits(&mut self, bytes: usize) -> Result<()> {
        if self.scratch.logits.as_ref().is_none_or(|logits| logits.bytes() < bytes) {
            self.graphs.clear();
            self.scratch.logits = None;
            self.scratch.logits = Some(self.gpu.alloc(bytes.next_power_of_two())?);
        }
        Ok(())
    }

    /// Makes an empty table with at least so many rows.
    pub(super) fn make_table(&mut self, rows: usize) -> Result<()> {
        self.graphs.clear();
        self.cache.make_table(&self.gpu, rows.next_power_of_two())
    }

    /// Copies pages, from one to another.
    pub(super) fn copy_pages(&self, copies: &[[u32; 2]]) -> Result<()> {
        self.move_cached(self.kernels.copy_pages, copies.as_flattened(), (copies.len(), copies.len()))
    }

    /// Moves positions of a slot, in their order: places of the list of its pages.
    pub(super) fn move_positions(&self, pages: &[u32], moves: &[[usize; 2]]) -> Result<()> {
        let place = |place: &usize| [pages[place / PAGE], *place as u32];
        let places: Vec<u32> = moves.as_flattened().iter().flat_map(place).collect();
        self.move_cached(self.kernels.move_positions, &places, (moves.len(), 2 * self.blueprint.kv_heads))
    }

    /// Launches a kernel that moves what is cached. The input of the step lends its memory, as an
    /// allocation would wait for the work of other models.
    fn move_cached(&self, kernel: Kernel<CopyArgs>, moves: &[u32], (count, blocks): (usize, usize)) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.scratch.input.write(0, moves)?;
        let args = CopyArgs {
            cache: self.cache.data.at(0),
            layer_bytes: self.cache.layer_bytes as u64,
            moves: self.scratch.input.at(0),
            count: count as i32,
            padding: 0,
        };
        self.gpu.launch(kernel, [blocks, self.layers.len(), 1], &args)
    }
}
