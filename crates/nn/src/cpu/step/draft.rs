//! A step of the layer of a draft head.

use super::Step;
use crate::activation::Activation;
use crate::cpu::layer::{FLOATS_PER_PIECE, Norm};
use crate::cpu::linear::{self, Linear};
use crate::cpu::step::Scratch;
use crate::kernels;

/// The part of a draft head before its layer: it makes one input of an embedding and a feature.
pub(in crate::cpu) struct Fusion {
    /// From the embedding and the feature, in this order, to the width of the base.
    pub(in crate::cpu) linear: Linear,
    pub(in crate::cpu) sampling: Option<Sampling>,
}

/// Feature sampling: `h + down(SiLU(gate(e)) * up(norm(h)))` for an input `h` and an embedding `e`.
pub(in crate::cpu) struct Sampling {
    pub(in crate::cpu) norm: Norm,
    pub(in crate::cpu) gate: Linear,
    pub(in crate::cpu) up: Linear,
    pub(in crate::cpu) down: Linear,
}

impl Step<'_> {
    /// Runs the layer of a draft head over the embedded tokens and the `features` before them, `(tokens,
    /// hidden)`. Returns the prediction of the token after each, in the space of the base's output head,
    /// and that of its feature; both are the same without partial alignment.
    pub(in crate::cpu) fn draft(mut self, fusion: &Fusion, features: &[f32]) -> [Vec<f32>; 2] {
        self.fuse(fusion, features);
        self.attention(0);
        self.residual(None);
        self.feed_forward(&self.model.layers[0]);
        let width = self.model.blueprint.hidden;
        let Scratch { x, output, .. } = &*self.scratch;
        let branches = output.len() / x.len().max(1);
        let branch = |index: usize| {
            let rows = x.chunks_exact(width).zip(output.chunks_exact(branches * width));
            let sums = rows.flat_map(|(x, output)| x.iter().zip(&output[index * width..]).map(|(x, y)| x + y));
            sums.collect()
        };
        [branch(0), branch(branches - 1)]
    }

    /// Replaces the embeddings in the residual stream by the input of the layer.
    fn fuse(&mut self, fusion: &Fusion, features: &[f32]) {
        let (workers, width) = (self.workers, self.model.blueprint.hidden);
        let Scratch { x, normed, aside, query: gate, key: up, activations, .. } = &mut *self.scratch;
        aside.clear();
        for (embedding, feature) in x.chunks_exact(width).zip(features.chunks_exact(width)) {
            aside.extend_from_slice(embedding);
            aside.extend_from_slice(feature);
        }
        if let Some(sampling) = &fusion.sampling {
            linear::apply(workers, x, activations, [(&sampling.gate, &mut *gate)]);
        }
        linear::apply(workers, aside, activations, [(&fusion.linear, &mut *x)]);
        let Some(Sampling { norm, up: up_linear, down, .. }) = &fusion.sampling else { return };
        normed.clear();
        normed.extend_from_slice(x);
        norm.apply(workers, normed);
        linear::apply(workers, normed, activations, [(up_linear, &mut *up)]);
        let simd = workers.simd();
        workers.chunks(gate, FLOATS_PER_PIECE, 1, |index, gate| {
            let up = &up[index * FLOATS_PER_PIECE..][..gate.len()];
            kernels::gate(simd, gate, up, Activation::Silu);
        });
        linear::apply(workers, gate, activations, [(down, &mut *normed)]);
        kernels::add(workers.simd(), x, normed);
    }
}
