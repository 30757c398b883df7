//! Keys and values of the positions a sequence has been through, on the device.

use candle_core::{Result, Tensor};

/// Positions that a cache first has room for; it doubles from there.
const FIRST_POSITIONS: usize = 256;

/// The cache of one sequence.
pub(super) struct Slot {
    /// The tokens cached. What the buffers hold beyond them is room.
    pub(super) tokens: Vec<u32>,
    /// Keys were rotated as those of a long sequence are.
    pub(super) long: bool,
    pub(super) layers: Vec<LayerCache>,
}

impl Slot {
    pub(super) fn new(layers: usize) -> Self {
        Self { tokens: Vec::new(), long: false, layers: vec![LayerCache::default(); layers] }
    }
}

/// Rotated keys, and values, of one layer: `(kv_heads, capacity, head_dim)` each, made with the first positions.
#[derive(Clone, Default)]
pub(super) struct LayerCache {
    buffers: Option<[Tensor; 2]>,
}

impl LayerCache {
    /// Write the keys and values of positions from `start` on, `(kv_heads, tokens, head_dim)` each; returns those of
    /// all positions up to their end, without a copy.
    pub(super) fn append(&mut self, start: usize, fresh: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let (heads, tokens, head_dim) = fresh[0].dims3()?;
        let end = start + tokens;
        let capacity = self.buffers.as_ref().map_or(0, |[keys, _]| keys.dims()[1]);
        if end > capacity {
            let capacity = end.next_power_of_two().max(FIRST_POSITIONS);
            let grow = |index: usize| -> Result<Tensor> {
                let grown = Tensor::zeros((heads, capacity, head_dim), fresh[index].dtype(), fresh[index].device())?;
                if let Some(buffers) = self.buffers.as_ref().filter(|_| start > 0) {
                    grown.slice_set(&buffers[index].narrow(1, 0, start)?.contiguous()?, 1, 0)?;
                }
                Ok(grown)
            };
            self.buffers = Some([grow(0)?, grow(1)?]);
        }
        let [keys, values] =
            self.buffers.as_ref().expect("invariant: there is at least one token, so there was room to make");
        for (buffer, fresh) in [keys, values].into_iter().zip(fresh) {
            buffer.slice_set(&fresh.contiguous()?, 1, start)?;
        }
        Ok([keys.narrow(1, 0, end)?, values.narrow(1, 0, end)?])
    }
}
