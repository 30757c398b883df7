//! The cache and the buffers of a step on a device.

use super::driver::{Buffer, Gpu};
use super::matrix::{self, padded};
use super::pages::{PAGE, Pages};
use super::program::{self, MOST_ROWS, Types};
use super::step::{MOST_CHAIN_PARTS, MOST_PARTS};
use crate::arch::{Blueprint, Experts};
use crate::error::{Error, Result};
use crate::executor::CANDIDATES;
use crate::format::Format;

/// The part of the free memory that the cache of a model takes at most.
const CACHE_SHARE: f64 = 0.4;
/// Positions that the cache of a model holds at most.
const MOST_CACHED: usize = 1 << 19;
/// Values of a matrix that are widened at once.
pub(super) const PANEL_VALUES: usize = 32 << 20;
/// Blocks of a row of the kernel that answers questions.
pub(super) const CHOOSE_BLOCKS: usize = 32;
/// Bytes of the candidates of a row: a token and its key each, and before them the sums of the row.
pub(super) const CANDIDATE_BYTES: usize = 8 * (1 + CANDIDATES);

/// Cached keys and values, and their table of pages.
pub(super) struct Cache {
    pub(super) pages: Pages,
    /// Pages, layer after layer; `cache.cuh` describes one.
    pub(super) data: Buffer,
    /// Bytes of a layer.
    pub(super) layer_bytes: usize,
    /// `(table_rows, table_stride)` numbers of pages.
    pub(super) table: Buffer,
    pub(super) table_rows: usize,
    pub(super) table_stride: usize,
}

/// Buffers of a step of at most `rows` rows.
pub(super) struct Scratch {
    pub(super) rows: usize,
    pub(super) input: Buffer,
    pub(super) angles: Buffer,
    pub(super) h: Buffer,
    pub(super) x: Buffer,
    pub(super) q: Buffer,
    pub(super) attended: Buffer,
    pub(super) gated: Buffer,
    pub(super) wide: Buffer,
    pub(super) sums: [Buffer; 2],
    pub(super) partial: Buffer,
    pub(super) weights: Buffer,
    pub(super) count: Buffer,
    pub(super) hidden: Buffer,
    /// Answers, and partial ones of each block.
    pub(super) chosen: Buffer,
    pub(super) chosen_parts: Buffer,
    /// Those of experts, for a model that has them.
    pub(super) experts: Option<ExpertScratch>,
    pub(super) panel: Option<Buffer>,
    pub(super) logits: Option<Buffer>,
    /// The candidates of rows, and those of each block.
    pub(super) candidates: Option<[Buffer; 2]>,
}

/// Buffers of the choices of experts: of each row those it passes.
pub(super) struct ExpertScratch {
    pub(super) place: Buffer,
    pub(super) share: Buffer,
    /// Runs of choices of one expert.
    pub(super) groups: Buffer,
    /// Inputs by place, and the outputs of the experts.
    pub(super) gathered: Buffer,
    pub(super) written: Buffer,
}

impl ExpertScratch {
    fn new(gpu: &Gpu, blueprint: &Blueprint, experts: &Experts, (rows, value): (usize, usize)) -> Result<Self> {
        let (choices, hidden) = (rows * experts.used, blueprint.hidden);
        Ok(Self {
            place: gpu.alloc(4 * choices)?,
            share: gpu.alloc(4 * choices)?,
            groups: gpu.alloc(16 * program::most_groups(rows, experts, 8))?,
            gathered: gpu.alloc(value * choices * padded(hidden))?,
            written: gpu.alloc(4 * choices * hidden)?,
        })
    }
}

impl Cache {
    pub(super) fn new(gpu: &Gpu, blueprint: &Blueprint, types: Types) -> Result<Self> {
        let page = types.page_bytes(blueprint);
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

    /// Makes a larger table, into which all slots are written again.
    pub(super) fn grow_table(&mut self, gpu: &Gpu) -> Result<()> {
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
    pub(super) fn update_table(&mut self, slot: u64) -> Result<()> {
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
    pub(super) fn new(gpu: &Gpu, blueprint: &Blueprint, types: Types, rows: usize) -> Result<Self> {
        let (value, hidden, query) = (types.value_bytes(), blueprint.hidden, blueprint.query_width());
        let (stride, half) = (program::head_stride(blueprint), blueprint.head_dim / 2);
        // Experts write their gated products without passing `wide`, which has the router's outputs.
        let dense = 2 * blueprint.ffn.next_multiple_of(matrix::TILE / 2);
        let (rated, used) = blueprint.experts.map_or((dense, 1), |experts| (experts.count, experts.used));
        let wide = rated.max(query + 2 * blueprint.kv_width()).max(hidden);
        let experts = |experts| ExpertScratch::new(gpu, blueprint, experts, (rows, value));
        let sums = || gpu.alloc(4 * MOST_ROWS * hidden.div_ceil(matrix::TILE));
        Ok(Self {
            rows,
            input: gpu.alloc(4 * rows.max(64) * 64)?,
            angles: gpu.alloc(8 * rows * half * (blueprint.ropes.len() + 1))?,
            h: gpu.alloc(4 * rows * hidden)?,
            x: gpu.alloc(value * rows * padded(hidden))?,
            q: gpu.alloc(value * rows * blueprint.heads * stride)?,
            attended: gpu.alloc(value * rows * padded(query))?,
            gated: gpu.alloc(value * rows * used * padded(blueprint.ffn))?,
            wide: gpu.alloc(4 * rows * wide)?,
            sums: [sums()?, sums()?],
            partial: gpu.alloc(4 * MOST_CHAIN_PARTS * query)?,
            weights: gpu.alloc(8 * MOST_CHAIN_PARTS * blueprint.heads)?,
            count: gpu.alloc(4 * MOST_PARTS.max(rows) * blueprint.heads)?,
            hidden: gpu.alloc(4 * rows * hidden)?,
            chosen: gpu.alloc(8 * rows)?,
            chosen_parts: gpu.alloc(16 * CHOOSE_BLOCKS * rows)?,
            experts: blueprint.experts.as_ref().map(experts).transpose()?,
            panel: (types.compute != Format::F32).then(|| gpu.alloc(value * PANEL_VALUES)).transpose()?,
            logits: None,
            candidates: None,
        })
    }
}
