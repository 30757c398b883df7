//! The cache and the buffers of a step on a device.

use super::driver::{Buffer, Gpu};
use super::matrix::{self, padded};
use super::pages::PAGE;
use super::program::{self, MOST_ROWS, Types};
use super::step::{MOST_CHAIN_PARTS, MOST_PARTS};
use crate::arch::{Blueprint, Experts};
use crate::error::{Error, Result};
use crate::executor::CANDIDATES;

/// The part of the free memory that the cache of a model takes at most.
const CACHE_SHARE: f64 = 0.4;
/// Positions that the cache of a model holds at most.
const MOST_CACHED: usize = 1 << 19;
/// The most values of a matrix that are widened at once.
pub(super) const PANEL_VALUES: usize = 32 << 20;
/// Blocks of a row of the kernel that answers questions.
pub(super) const CHOOSE_BLOCKS: usize = 32;
/// Bytes of the candidates of a row: a token and its key each, and before them the sums of the row.
pub(super) const CANDIDATE_BYTES: usize = 8 * (1 + CANDIDATES);

/// Cached keys and values of a card's layers, and the table of pages.
pub(super) struct Cache {
    /// Pages, layer after layer; `cache.cuh` describes one.
    pub(super) data: Buffer,
    /// Bytes of a layer.
    pub(super) layer_bytes: usize,
    /// `(table_rows, table_stride)` numbers of pages.
    pub(super) table: Buffer,
    pub(super) table_rows: usize,
    pub(super) table_stride: usize,
}

/// Buffers of a step of at most `rows` rows. `panel` has room for widened values of a matrix.
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
    /// The number of pages that a card has room for, of a cache of so many layers.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] for less than [`least_pages`].
    pub(super) fn count_pages(gpu: &Gpu, blueprint: &Blueprint, types: Types, layers: usize) -> Result<usize> {
        let bytes = types.page_bytes(blueprint) * layers;
        let (free, _) = gpu.memory()?;
        let count = ((free as f64 * CACHE_SHARE) as usize / bytes.max(1)).min(MOST_CACHED / PAGE);
        let least = least_pages(blueprint);
        if count < least {
            return Err(Error::DeviceMemory { device: gpu.name().to_owned(), bytes: least * bytes, free });
        }
        Ok(count.min(64 * blueprint.max_len.div_ceil(PAGE) + 65))
    }

    /// The cache of so many layers in so many pages.
    pub(super) fn new(gpu: &Gpu, blueprint: &Blueprint, types: Types, (layers, pages): (usize, usize)) -> Result<Self> {
        let layer_bytes = pages * types.page_bytes(blueprint);
        let (table_rows, table_stride) = (128, blueprint.max_len.div_ceil(PAGE) + 1);
        Ok(Self {
            data: gpu.alloc(layers * layer_bytes)?,
            layer_bytes,
            table: gpu.alloc(4 * table_rows * table_stride)?,
            table_rows,
            table_stride,
        })
    }

    /// Makes an empty table.
    pub(super) fn make_table(&mut self, gpu: &Gpu, rows: usize) -> Result<()> {
        self.table = gpu.alloc(4 * rows * self.table_stride)?;
        self.table_rows = rows;
        Ok(())
    }

    /// Writes numbers of pages into a row of the table.
    pub(super) fn write_table(&self, row: usize, first: usize, pages: &[u32]) -> Result<()> {
        if pages.is_empty() { Ok(()) } else { self.table.write(4 * (row * self.table_stride + first), pages) }
    }
}

/// The pages of the smallest cache.
fn least_pages(blueprint: &Blueprint) -> usize {
    blueprint.max_len.min(512).div_ceil(PAGE) + 1
}

/// Free bytes that a card must have for the smallest cache of a layer.
pub(super) fn least_cache(blueprint: &Blueprint, types: Types) -> usize {
    let bytes = least_pages(blueprint) * types.page_bytes(blueprint);
    (bytes as f64 / CACHE_SHARE).ceil() as usize
}

impl Scratch {
    pub(super) fn new(gpu: &Gpu, blueprint: &Blueprint, types: Types, (rows, panel): (usize, usize)) -> Result<Self> {
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
            panel: (panel > 0).then(|| gpu.alloc(value * panel)).transpose()?,
            logits: None,
            candidates: None,
        })
    }
}
