//! Room for a step: the buffers of each stage, and the pages of its sequences.

use super::Cuda;
use super::pages::PAGE;
use super::step::Input;
use crate::error::{Error, Result};
use crate::executor::Span;

impl Cuda {
    /// Makes buffers that are large enough for a step.
    pub(super) fn make_room(&mut self, input: &Input) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.make_room(input))
    }

    /// Makes room for numbers that move what is cached.
    pub(super) fn make_moves(&mut self, numbers: usize) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.make_scratch(0, numbers))
    }

    /// Makes room for the spans and tells each card which pages they have.
    pub(super) fn reserve(&mut self, spans: &[Span<'_>]) -> Result<()> {
        self.make_moves(2 * spans.len())?;
        let mut copies = Vec::new();
        let reserved = spans.iter().try_for_each(|span| {
            self.pages.slot(span.slot);
            self.pages.reserve(span.slot, span.start + span.tokens.len(), &mut copies)
        });
        // A slot has its new pages even if a later one finds none.
        self.stages.iter().try_for_each(|stage| stage.copy_pages(&copies))?;
        reserved.map_err(|full| {
            let devices: Vec<_> = self.stages.iter().map(|stage| stage.gpu.name()).collect();
            let (wanted, positions) = (full.wanted * PAGE, self.pages.total() * PAGE);
            Error::CacheFull { device: devices.join(", "), wanted, positions }
        })?;
        let rows = self.pages.rows();
        if self.stages.iter().any(|stage| stage.cache.table_rows < rows) {
            // A slot is written again when it is in a step.
            self.pages.forget_tables();
            self.stages.iter_mut().try_for_each(|stage| stage.make_table(rows))?;
        }
        spans.iter().try_for_each(|span| self.write_table(span.slot))
    }

    /// Writes the numbers of a slot's pages that changed.
    fn write_table(&mut self, slot: u64) -> Result<()> {
        let Some(slot) = self.pages.get_mut(slot) else { return Ok(()) };
        let fresh = &slot.pages[slot.stale.min(slot.pages.len())..];
        let first = slot.pages.len() - fresh.len();
        self.stages.iter().try_for_each(|stage| stage.cache.write_table(slot.row, first, fresh))?;
        slot.stale = slot.pages.len();
        Ok(())
    }
}
