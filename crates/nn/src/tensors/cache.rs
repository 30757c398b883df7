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

    /// A copy of the first `len` positions.
    pub(super) fn beginning(&self, len: usize) -> Result<Self> {
        let tokens = self.tokens[..self.tokens.len().min(len)].to_vec();
        let layers = self.layers.iter().map(|layer| layer.beginning(tokens.len())).collect::<Result<_>>()?;
        Ok(Self { tokens, long: self.long, layers })
    }
}

/// Rotated keys, and values, of one layer: `(kv_heads, capacity, head_dim)` each, made with the first positions.
#[derive(Clone, Default)]
pub(super) struct LayerCache {
    buffers: Option<[Tensor; 2]>,
}

/// Keys and values of the first `len` positions, in buffers with room for `capacity`.
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
    fn beginning(&self, len: usize) -> Result<Self> {
        let buffers = self.buffers.as_ref().filter(|_| len > 0).map(|buffers| moved(buffers, len, len)).transpose()?;
        Ok(Self { buffers })
    }

    /// Write the keys and values of positions from `start` on, `(kv_heads, tokens, head_dim)` each; returns those of
    /// all positions up to their end, without a copy.
    pub(super) fn append(&mut self, start: usize, fresh: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let end = start + fresh[0].dim(1)?;
        let capacity = self.buffers.as_ref().map_or(0, |[keys, _]| keys.dims()[1]);
        if end > capacity {
            let capacity = end.next_power_of_two().max(FIRST_POSITIONS);
            self.buffers = Some(moved(self.buffers.as_ref().unwrap_or(fresh), start, capacity)?);
        }
        let [keys, values] =
            self.buffers.as_ref().expect("invariant: there is at least one token, so there was room to make");
        for (buffer, fresh) in [keys, values].into_iter().zip(fresh) {
            buffer.slice_set(&fresh.contiguous()?, 1, start)?;
        }
        Ok([keys.narrow(1, 0, end)?, values.narrow(1, 0, end)?])
    }
}
