//! Keys and values of the positions a sequence has been through.

/// The cache of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The tokens cached, to run them anew where [`Slot::long`] changes.
    pub(crate) tokens: Vec<u32>,
    /// Keys were rotated as those of a long sequence are.
    pub(crate) long: bool,
    pub(crate) layers: Vec<LayerCache>,
}

/// Rotated keys, and values, of one layer: `(positions, kv_heads, head_dim)` each. Memory grows as positions come.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl Slot {
    pub(crate) fn new(layers: usize) -> Self {
        Self { tokens: Vec::new(), long: false, layers: vec![LayerCache::default(); layers] }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Keep the first `len` positions, of `kv_width` floats each.
    pub(crate) fn truncate(&mut self, len: usize, kv_width: usize) {
        self.tokens.truncate(len);
        for layer in &mut self.layers {
            layer.keys.truncate(len.saturating_mul(kv_width));
            layer.values.truncate(len.saturating_mul(kv_width));
        }
    }
}
