//! The KV cache of a sequence on the CPU.

use crate::executor::Cached;

/// The KV cache of one sequence.
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

/// The cache of one layer, head by head: the keys and the values of a head are contiguous.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    pub(crate) heads: Vec<HeadCache>,
}

/// Rotated keys, and values, of one head: `(positions, head_dim)` each. Memory grows with the
/// positions.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl LayerCache {
    /// Adds positions: `(positions, heads, head_dim)`.
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

impl HeadCache {
    /// Gathers from another cache its first `prefix` floats and the positions of `path`. Attention
    /// then reads the keys and values of a path in a tree as it reads those of a chain, in the same
    /// order and with equal bits.
    pub(crate) fn set(&mut self, from: &Self, prefix: usize, path: &[usize], head_dim: usize) {
        let gather = |to: &mut Vec<f32>, from: &[f32]| {
            to.clear();
            to.extend_from_slice(&from[..prefix]);
            path.iter().for_each(|position| to.extend_from_slice(&from[position * head_dim..][..head_dim]));
        };
        gather(&mut self.keys, &from.keys);
        gather(&mut self.values, &from.values);
    }
}

impl Slot {
    /// An empty cache for a model of `layers` layers with `heads` key and value heads each.
    pub(crate) fn new(layers: usize, heads: usize) -> Self {
        let layer = LayerCache { heads: vec![HeadCache::default(); heads] };
        Self { tokens: Vec::new(), long: false, fork: None, layers: vec![layer; layers] }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn cached(&self) -> Cached {
        Cached { len: self.len(), fork: self.fork }
    }

    /// A copy of the first `len` positions, whose heads have `head_dim` floats.
    pub(crate) fn prefix(&self, len: usize, head_dim: usize) -> Self {
        let part = |all: &[f32]| all[..all.len().min(len.saturating_mul(head_dim))].to_vec();
        let head = |head: &HeadCache| HeadCache { keys: part(&head.keys), values: part(&head.values) };
        let layer = |layer: &LayerCache| LayerCache { heads: layer.heads.iter().map(head).collect() };
        let tokens = self.tokens[..self.tokens.len().min(len)].to_vec();
        let layers = self.layers.iter().map(layer).collect();
        Self { tokens, long: self.long, fork: self.fork.filter(|fork| *fork < len), layers }
    }

    /// Keeps the first `len` positions, whose heads have `head_dim` floats.
    pub(crate) fn truncate(&mut self, len: usize, head_dim: usize) {
        self.tokens.truncate(len);
        self.fork = self.fork.filter(|fork| *fork < len);
        for head in self.layers.iter_mut().flat_map(|layer| &mut layer.heads) {
            head.keys.truncate(len.saturating_mul(head_dim));
            head.values.truncate(len.saturating_mul(head_dim));
        }
    }

    /// Keeps the first `len` positions and those of `path`, which ascend from at least `len`.
    pub(crate) fn keep(&mut self, len: usize, path: &[usize], head_dim: usize) {
        for (to, &from) in (len..).zip(path) {
            self.tokens[to] = self.tokens[from];
            for head in self.layers.iter_mut().flat_map(|layer| &mut layer.heads) {
                for floats in [&mut head.keys, &mut head.values] {
                    floats.copy_within(from * head_dim..(from + 1) * head_dim, to * head_dim);
                }
            }
        }
        self.fork = None;
        self.truncate(len + path.len(), head_dim);
    }
}
