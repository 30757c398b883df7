//! Room for a step on the device: its buffers, and the pages of its sequences.

use super::Cuda;
use super::args::CopyArgs;
use super::driver::Buffer;
use super::pages::{self, PAGE};
use super::step::{Asked, Input, LISTS};
use super::storage::{CANDIDATE_BYTES, CHOOSE_BLOCKS, Scratch};
use crate::error::{Error, Result};
use crate::executor::{CANDIDATES, Span};

impl Cuda {
    /// Makes buffers that are large enough for a step.
    pub(super) fn make_room(&mut self, input: &Input) -> Result<()> {
        let numbers = LISTS * input.rows + input.bits.len();
        if input.rows > self.scratch.rows || 4 * numbers > self.scratch.input.bytes() {
            self.grow_scratch(input.rows.max(numbers / 32))?;
        }
        let asked = input.asked();
        if asked == Asked::Candidates && self.scratch.candidates.is_none() {
            let (rows, parts) = (self.scratch.rows, 8 * CHOOSE_BLOCKS * CANDIDATES);
            self.scratch.candidates = Some([self.gpu.alloc(rows * CANDIDATE_BYTES)?, self.gpu.alloc(rows * parts)?]);
        }
        if asked == Asked::Nothing { Ok(()) } else { self.make_logits(4 * input.rows * self.blueprint.vocab) }
    }

    pub(super) fn grow_scratch(&mut self, rows: usize) -> Result<()> {
        self.graphs.clear();
        self.scratch = Scratch::new(&self.gpu, &self.blueprint, self.types, rows.next_power_of_two())?;
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

    /// Makes room for the spans and tells the device which pages they have.
    pub(super) fn reserve(&mut self, spans: &[Span<'_>]) -> Result<()> {
        let mut copies = Vec::new();
        let positions = self.cache.pages.total() * PAGE;
        let reserved = spans.iter().try_for_each(|span| {
            self.cache.pages.slot(span.slot);
            self.cache.pages.reserve(span.slot, span.start + span.tokens.len(), &mut copies)
        });
        // A slot has its new pages even if a later one finds none.
        self.copy_pages(&copies)?;
        reserved.map_err(|full| {
            let (device, wanted) = (self.gpu.name().to_owned(), full.wanted * PAGE);
            Error::CacheFull { device, wanted, positions }
        })?;
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

    pub(super) fn copy_args(&self, moves: &Buffer, count: usize) -> CopyArgs {
        CopyArgs {
            cache: self.cache.data.at(0),
            layer_bytes: self.cache.layer_bytes as u64,
            moves: moves.at(0),
            count: count as i32,
            padding: 0,
        }
    }
}
