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

/// The cache of one layer, head by head: what attention reads of a head lies together.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    pub(crate) heads: Vec<HeadCache>,
}

/// Rotated keys, and values, of one head: `(positions, head_dim)` each. Memory grows as positions come.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl LayerCache {
    /// Add positions: `(positions, heads, head_dim)`.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32], head_dim: usize) {
        let heads = self.heads.len();
        let rows = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
        for (index, (key, value)) in rows.enumerate() {
            let head = &mut self.heads[index % heads];
            head.keys.extend_from_slice(key);
            head.values.extend_from_slice(value);
        }
    }
}

impl Slot {
    /// Nothing yet, for a model of so many layers, each with so many heads of keys and values.
    pub(crate) fn new(layers: usize, heads: usize) -> Self {
        let layer = LayerCache { heads: vec![HeadCache::default(); heads] };
        Self { tokens: Vec::new(), long: false, layers: vec![layer; layers] }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// A copy of the first `len` positions, whose heads have `head_dim` floats.
    pub(crate) fn beginning(&self, len: usize, head_dim: usize) -> Self {
        let part = |all: &[f32]| all[..all.len().min(len.saturating_mul(head_dim))].to_vec();
        let head = |head: &HeadCache| HeadCache { keys: part(&head.keys), values: part(&head.values) };
        let layer = |layer: &LayerCache| LayerCache { heads: layer.heads.iter().map(head).collect() };
        let tokens = self.tokens[..self.tokens.len().min(len)].to_vec();
        Self { tokens, long: self.long, layers: self.layers.iter().map(layer).collect() }
    }

    /// Keep the first `len` positions, whose heads have `head_dim` floats.
    pub(crate) fn truncate(&mut self, len: usize, head_dim: usize) {
        self.tokens.truncate(len);
        for head in self.layers.iter_mut().flat_map(|layer| &mut layer.heads) {
            head.keys.truncate(len.saturating_mul(head_dim));
            head.values.truncate(len.saturating_mul(head_dim));
        }
    }
}
