//! The KV cache of a sequence on the device.

use candle_core::{Result, Tensor};

use crate::executor::Cached;

/// Capacity of a new cache in positions; it doubles from there.
const FIRST_POSITIONS: usize = 256;

/// The KV cache of one sequence.
pub(super) struct Slot {
    /// The tokens cached. The contents of the buffers beyond them are unused.
    pub(super) tokens: Vec<u32>,
    /// Keys were rotated as those of a long sequence are.
    pub(super) long: bool,
    /// The first position of a tree, until the slot is reduced to a chain.
    pub(super) fork: Option<usize>,
    pub(super) layers: Vec<LayerCache>,
}

impl Slot {
    pub(super) fn new(layers: usize) -> Self {
        Self { tokens: Vec::new(), long: false, fork: None, layers: vec![LayerCache::default(); layers] }
    }

    /// A copy of the first `len` positions.
    pub(super) fn prefix(&self, len: usize) -> Result<Self> {
        let tokens = self.tokens[..self.tokens.len().min(len)].to_vec();
        let layers = self.layers.iter().map(|layer| layer.prefix(tokens.len())).collect::<Result<_>>()?;
        Ok(Self { tokens, long: self.long, fork: self.fork.filter(|fork| *fork < len), layers })
    }

    pub(super) fn cached(&self) -> Cached {
        Cached { len: self.tokens.len(), fork: self.fork }
    }

    /// Keeps the first `len` positions.
    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.fork = self.fork.filter(|fork| *fork < len);
    }

    /// Keeps the first `len` positions and those of `path`, which ascend from at least `len`.
    pub(super) fn keep(&mut self, len: usize, path: &[usize]) -> Result<()> {
        self.layers.iter().try_for_each(|layer| layer.keep(len, path))?;
        let accepted: Vec<_> = path.iter().map(|position| self.tokens[*position]).collect();
        self.tokens.truncate(len);
        self.tokens.extend(accepted);
        self.fork = None;
        Ok(())
    }
}

/// Rotated keys, and values, of one layer: `(kv_heads, capacity, head_dim)` each, made with the
/// first positions.
#[derive(Clone, Default)]
pub(super) struct LayerCache {
    buffers: Option<[Tensor; 2]>,
}

/// Copies the first `len` positions to new buffers of `capacity` positions.
fn moved(buffers: &[Tensor; 2], len: usize, capacity: usize) -> Result<[Tensor; 2]> {
    let moved = |buffer: &Tensor| -> Result<Tensor> {
        let (heads, _, head_dim) = buffer.dims3()?;
        let moved = Tensor::zeros((heads, capacity, head_dim), buffer.dtype(), buffer.device())?;
        if len > 0 {
            moved.slice_set(&buffer.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
        }
        Ok(moved)
    };
    Ok([moved(&buffers[0])?, moved(&buffers[1])?])
}

impl LayerCache {
    fn prefix(&self, len: usize) -> Result<Self> {
        let buffers = self.buffers.as_ref().filter(|_| len > 0).map(|buffers| moved(buffers, len, len)).transpose()?;
        Ok(Self { buffers })
    }

    /// Moves the positions of `path` to `len` and after.
    fn keep(&self, len: usize, path: &[usize]) -> Result<()> {
        let Some(buffers) = self.buffers.as_ref().filter(|_| !path.is_empty()) else { return Ok(()) };
        let path: Vec<u32> = path.iter().map(|position| *position as u32).collect();
        for buffer in buffers {
            let path = Tensor::new(&path[..], buffer.device())?;
            buffer.slice_set(&buffer.index_select(&path, 1)?, 1, len)?;
        }
        Ok(())
    }

    /// Writes the keys and values of positions from `start` on, `(kv_heads, tokens, head_dim)`
    /// each, and returns those of all positions up to their end, without a copy.
    pub(super) fn append(&mut self, start: usize, fresh: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let end = start + fresh[0].dim(1)?;
        let capacity = self.buffers.as_ref().map_or(0, |[keys, _]| keys.dims()[1]);
        if end > capacity {
            let capacity = end.next_power_of_two().max(FIRST_POSITIONS);
            self.buffers = Some(moved(self.buffers.as_ref().unwrap_or(fresh), start, capacity)?);
        }
        let [keys, values] =
            self.buffers.as_ref().expect("invariant: there is at least one token, so buffers were made");
        for (buffer, fresh) in [keys, values].into_iter().zip(fresh) {
            buffer.slice_set(&fresh.contiguous()?, 1, start)?;
        }
        Ok([keys.narrow(1, 0, end)?, values.narrow(1, 0, end)?])
    }
}
