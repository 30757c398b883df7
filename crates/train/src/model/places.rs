//! The tensors of a layer and its products.

use std::ops::Range;

use wsd_nn::arch::{Blueprint, StoredLinear, StoredNorm};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use crate::layout::Layout;

/// The ranges of a layer's tensors; `None` where the architecture has none.
pub(super) struct LayerPlaces {
    pub(super) pre_attention: Option<Range<usize>>,
    pub(super) post_attention: Option<Range<usize>>,
    pub(super) pre_mlp: Option<Range<usize>>,
    pub(super) post_mlp: Option<Range<usize>>,
    /// Norms of queries and of keys.
    pub(super) qk_norm: Option<[Range<usize>; 2]>,
    pub(super) qkv: Linear,
    pub(super) output: Linear,
    pub(super) gates: Linear,
    pub(super) down: Linear,
}

/// A product with a matrix `(outputs, inputs)`, and its bias.
pub(super) struct Linear {
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    inputs: usize,
    pub(super) outputs: usize,
    /// True where the matrix changes.
    trained: bool,
}

impl Linear {
    /// The product of matrices that lie side by side in `layout`.
    pub(super) fn new(layout: &Layout, names: &[String], trained: &dyn Fn(&str) -> bool) -> Self {
        let joined = |suffix: &str| {
            let mut places = names.iter().filter_map(|name| layout.get(&format!("{name}.{suffix}")));
            let first = places.next()?;
            let end = places.next_back().unwrap_or(first).range.end;
            Some((first.range.start..end, first.shape.last().copied().unwrap_or(1)))
        };
        let (weight, inputs) = joined("weight").unwrap_or((0..0, 1));
        Self {
            inputs,
            outputs: weight.len() / inputs,
            weight,
            bias: joined("bias").map(|(range, _)| range),
            trained: names.iter().any(|name| trained(&format!("{name}.weight"))),
        }
    }

    /// Sets `out = x * weight^T + bias`.
    pub(super) fn forward(&self, weights: &[f32], x: &[f32], out: &mut [f32]) {
        let weight = Matrix::dense(&weights[self.weight.clone()], self.inputs);
        let to = match &self.bias {
            Some(bias) => {
                out.chunks_exact_mut(self.outputs).for_each(|out| out.copy_from_slice(&weights[bias.clone()]));
                Output::add(out, self.outputs)
            }
            None => Output::set(out, self.outputs),
        };
        multiply(1.0, Matrix::dense(x, self.inputs), weight.transposed(), to);
    }

    /// Adds the gradients of matrix and bias to `gradient` and sets that of the input `x`, given
    /// that of the output, `out`.
    pub(super) fn backward(
        &self,
        weights: &[f32],
        gradient: &mut [f32],
        (x, out): (&[f32], &[f32]),
        x_gradient: &mut [f32],
    ) {
        let out_matrix = Matrix::dense(out, self.outputs);
        if self.trained {
            let to = Output::add(&mut gradient[self.weight.clone()], self.inputs);
            multiply(1.0, out_matrix.transposed(), Matrix::dense(x, self.inputs), to);
        }
        if let Some(bias) = &self.bias {
            for out in out.chunks_exact(self.outputs) {
                gradient[bias.clone()].iter_mut().zip(out).for_each(|(to, from)| *to += from);
            }
        }
        let weight = Matrix::dense(&weights[self.weight.clone()], self.inputs);
        multiply(1.0, out_matrix, weight, Output::set(x_gradient, self.inputs));
    }
}

impl LayerPlaces {
    /// Finds the parts of a layer in `layout`. Parts that share a matrix or lie side by side are one
    /// product.
    pub(super) fn new(blueprint: &Blueprint, layout: &Layout, index: usize, trained: &dyn Fn(&str) -> bool) -> Self {
        let parts = blueprint.layer();
        let named = |module: &str| format!("model.layers.{index}.{module}");
        let norm = |part: Option<StoredNorm>| {
            layout.get(&format!("{}.weight", named(part?.module))).map(|place| place.range.clone())
        };
        let linear = |parts: &[&StoredLinear]| {
            let names: Vec<_> = parts.iter().map(|part| named(&part.module)).collect();
            Linear::new(layout, &names, trained)
        };
        let expert = &parts.experts[0];
        Self {
            pre_attention: norm(parts.pre_attention),
            post_attention: norm(parts.post_attention),
            pre_mlp: norm(parts.pre_mlp),
            post_mlp: norm(parts.post_mlp),
            qk_norm: norm(parts.query_norm).zip(norm(parts.key_norm)).map(<[_; 2]>::from),
            qkv: linear(&[&parts.query, &parts.key, &parts.value]),
            output: linear(&[&parts.output]),
            gates: linear(&expert.gate.iter().chain([&expert.up]).collect::<Vec<_>>()),
            down: linear(&[&expert.down]),
        }
    }
}
