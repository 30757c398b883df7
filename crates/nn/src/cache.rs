//! The KV cache of a sequence on the CPU: pages that sequences with a common prefix share.

use std::ops::Range;
use std::sync::Arc;

use crate::executor::Cached;
use crate::kernels::KvFormat;

/// Positions per page.
pub(crate) const PAGE: usize = 256;

/// The shape of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) layers: usize,
    /// Key and value heads per layer.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    pub(crate) format: KvFormat,
}

/// The KV cache of one sequence. A clone shares its pages until either changes one.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The tokens cached, to run them again when [`Slot::long`] changes.
    pub(crate) tokens: Vec<u32>,
    /// Keys were rotated as those of a long sequence are.
    pub(crate) long: bool,
    /// The first position of a tree, until the slot is reduced to a chain.
    pub(crate) fork: Option<usize>,
    pub(crate) layers: Vec<LayerCache>,
}

/// The cache of one layer, head by head.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    pub(crate) heads: Vec<HeadCache>,
}

/// Rotated keys, and values, of one head.
#[derive(Clone, Debug)]
pub(crate) struct HeadCache {
    pub(crate) keys: Rows,
    pub(crate) values: Rows,
}

/// One row per position, in pages of [`PAGE`] positions; only the last page may have fewer.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    format: KvFormat,
    row_bytes: usize,
    pages: Vec<Arc<Vec<u8>>>,
}

impl Rows {
    fn new(format: KvFormat, head_dim: usize) -> Self {
        Self { format, row_bytes: format.row_bytes(head_dim), pages: Vec::new() }
    }

    /// Returns the bytes of positions of one page.
    pub(crate) fn get(&self, positions: Range<usize>) -> &[u8] {
        let Range { start, end } = positions;
        let page = &self.pages[start / PAGE];
        &page[start % PAGE * self.row_bytes..][..(end - start) * self.row_bytes]
    }

    /// Copies the row of a position to the end of `rows`.
    pub(crate) fn copy_row(&self, position: usize, rows: &mut Vec<u8>) {
        rows.extend_from_slice(self.get(position..position + 1));
    }

    /// Adds a position.
    fn push(&mut self, row: &[f32]) {
        if self.pages.last().is_none_or(|page| page.len() == PAGE * self.row_bytes) {
            self.pages.push(Arc::default());
        }
        if let Some(page) = self.pages.last_mut() {
            self.format.append(row, Arc::make_mut(page));
        }
    }

    /// Keeps the first `len` positions.
    fn truncate(&mut self, len: usize) {
        self.pages.truncate(len.div_ceil(PAGE));
        let left = (len % PAGE) * self.row_bytes;
        if let Some(page) = self.pages.get_mut(len / PAGE).filter(|page| page.len() > left) {
            Arc::make_mut(page).truncate(left);
        }
    }

    /// Copies the row of a position over that of another.
    fn copy_within(&mut self, from: usize, to: usize) {
        let row = self.get(from..from + 1).to_vec();
        let page = Arc::make_mut(&mut self.pages[to / PAGE]);
        page[to % PAGE * self.row_bytes..][..row.len()].copy_from_slice(&row);
    }
}

impl LayerCache {
    /// Adds positions: `(positions, heads, head_dim)`.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32], head_dim: usize) {
        let heads = self.heads.len();
        let rows = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
        for (index, (key, value)) in rows.enumerate() {
            let head = &mut self.heads[index % heads];
            head.keys.push(key);
            head.values.push(value);
        }
    }
}

impl Slot {
    /// An empty cache.
    pub(crate) fn new(shape: CacheShape) -> Self {
        let rows = Rows::new(shape.format, shape.head_dim);
        let head = HeadCache { keys: rows.clone(), values: rows };
        let layer = LayerCache { heads: vec![head; shape.heads] };
        Self { tokens: Vec::new(), long: false, fork: None, layers: vec![layer; shape.layers] }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn cached(&self) -> Cached {
        Cached { len: self.len(), fork: self.fork }
    }

    /// Returns the first `len` positions, which share their pages with this cache.
    pub(crate) fn prefix(&self, len: usize) -> Self {
        let mut prefix = self.clone();
        prefix.truncate(len);
        prefix
    }

    /// Keeps the first `len` positions.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.fork = self.fork.filter(|fork| *fork < len);
        self.rows_mut().for_each(|rows| rows.truncate(len));
    }

    /// Keeps the first `len` positions and those of `path`, which ascend from at least `len`.
    pub(crate) fn keep(&mut self, len: usize, path: &[usize]) {
        for (to, &from) in (len..).zip(path) {
            self.tokens[to] = self.tokens[from];
            self.rows_mut().for_each(|rows| rows.copy_within(from, to));
        }
        self.fork = None;
        self.truncate(len + path.len());
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = &mut Rows> {
        let heads = self.layers.iter_mut().flat_map(|layer| &mut layer.heads);
        heads.flat_map(|head| [&mut head.keys, &mut head.values])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: CacheShape = CacheShape { layers: 1, heads: 2, head_dim: 16, format: KvFormat::F32 };

    fn slot(len: usize) -> Slot {
        let mut slot = Slot::new(SHAPE);
        for position in 0..len {
            slot.tokens.push(position as u32);
            let row: Vec<f32> = (0..32).map(|index| (position * 32 + index) as f32).collect();
            slot.layers[0].append(&row, &row, 16);
        }
        slot
    }

    /// The first number of a position's key in the second head.
    fn number(slot: &Slot, position: usize) -> f32 {
        bytemuck::pod_read_unaligned(&slot.layers[0].heads[1].keys.get(position..position + 1)[..4])
    }

    #[test]
    fn a_prefix_shares_pages_until_it_grows() {
        let whole = slot(600);
        let mut prefix = whole.prefix(300);
        let pages = |slot: &Slot| slot.layers[0].heads[0].keys.pages.clone();
        assert!(Arc::ptr_eq(&pages(&whole)[0], &pages(&prefix)[0]));
        assert_eq!(prefix.len(), 300);
        prefix.tokens.push(7);
        prefix.layers[0].append(&[5.0; 32], &[6.0; 32], 16);
        assert_eq!([number(&prefix, 299), number(&prefix, 300)], [(299 * 32 + 16) as f32, 5.0]);
        assert_eq!(number(&whole, 300), (300 * 32 + 16) as f32, "the whole is unchanged");
        assert_eq!(number(&whole, 599), (599 * 32 + 16) as f32);
    }

    #[test]
    fn a_path_is_kept_across_pages() {
        let mut slot = slot(270);
        slot.keep(255, &[257, 260, 269]);
        assert_eq!(slot.tokens[254..], [254, 257, 260, 269]);
        let numbers: Vec<f32> = (254..258).map(|position| number(&slot, position)).collect();
        assert_eq!(numbers, [254, 257, 260, 269].map(|position| (position * 32 + 16) as f32));
        slot.truncate(256);
        assert_eq!(slot.layers[0].heads[0].keys.pages.len(), 1);
        slot.truncate(0);
        assert!(slot.layers[0].heads[0].keys.pages.is_empty());
    }
}
