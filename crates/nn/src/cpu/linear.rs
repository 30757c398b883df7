//! Linear layers of the model, each a sum of terms.

use crate::adapter::LowRank;
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::kernels::{
    self, Bf16Group, F32Group, Int8Group, Packed, Panels, Product, Quantization, Quantized, Simd, Workers,
};

/// A matrix in its file, and its bias.
pub(super) struct Stored {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Vec<f32>>,
}

/// A linear layer: a matrix ready to multiply, its bias, and further terms of the sum.
pub(super) struct Linear {
    weight: Weight,
    bias: Option<Vec<f32>>,
    /// Functions of the input that are added to the output.
    terms: Vec<LowRank>,
}

/// The storage of a matrix.
enum Weight {
    /// In the file, unchanged.
    Mapped(Tensor),
    /// In tiles.
    Packed(Packed),
}

/// Scratch of a product: its quantized input, and the vectors within terms.
#[derive(Default)]
pub(super) struct Activations {
    int8: Panels<Int8Group>,
    bf16: Panels<Bf16Group>,
    f32: Panels<F32Group>,
    /// `(tokens, rank)`.
    inner: Vec<f32>,
    /// `(tokens, outputs)`.
    added: Vec<f32>,
}

impl Linear {
    /// Prepares a matrix. If `exact`, it is multiplied as it is stored with unrounded floats.
    pub(super) fn new(Stored { weight, bias }: Stored, simd: Simd, exact: bool) -> Result<Self> {
        let packed = if exact { None } else { Packed::try_new(weight.view(), simd)? };
        let weight = match packed {
            Some(packed) => {
                weight.leave_memory();
                Weight::Packed(packed)
            }
            None => Weight::Mapped(weight),
        };
        Ok(Self { weight, bias, terms: Vec::new() })
    }

    /// Adds a low-rank change of the module that this layer is a part of; the layer has the
    /// module's outputs from `start` on.
    pub(super) fn add(&mut self, change: &LowRank, start: usize) {
        let b = change.b.narrow_rows(start, self.outputs());
        self.terms.push(LowRank { b, ..change.clone() });
    }

    pub(super) fn outputs(&self) -> usize {
        match &self.weight {
            Weight::Mapped(weight) => weight.rows(),
            Weight::Packed(weight) => weight.outputs(),
        }
    }

    fn inputs(&self) -> usize {
        match &self.weight {
            Weight::Mapped(weight) => weight.columns(),
            Weight::Packed(weight) => weight.inputs(),
        }
    }
}

/// Applies layers to the same input: `(tokens, inputs)` to `(tokens, outputs)` each, in place of
/// what the outputs held.
pub(super) fn apply<const N: usize>(
    workers: &Workers<'_>,
    x: &[f32],
    scratch: &mut Activations,
    mut layers: [(&Linear, &mut Vec<f32>); N],
) {
    for (layer, out) in &mut layers {
        // Every element is written, so remains of a longer step need not be cleared.
        out.resize(x.len() / layer.inputs() * layer.outputs(), 0.0);
        if let Weight::Mapped(weight) = &layer.weight {
            kernels::linear(workers, x, weight.view(), layer.bias.as_deref(), out);
        }
    }
    for quantization in [Quantization::Int8, Quantization::Bf16, Quantization::F32] {
        let mut products = Vec::with_capacity(N);
        for (layer, out) in &mut layers {
            if let Weight::Packed(weight) = &layer.weight
                && weight.quantization() == quantization
            {
                products.push(Product { weight, bias: layer.bias.as_deref(), out });
            }
        }
        if let [Product { weight, .. }, ..] = products[..] {
            kernels::multiply(workers, scratch.quantize(workers, x, weight), &mut products);
        }
    }
    for (layer, out) in layers {
        layer.terms.iter().for_each(|term| term.apply(workers, x, scratch, out));
    }
}

impl LowRank {
    /// Adds `scale * b * a * x` to `out`, or of experts those that the router chooses.
    fn apply(&self, workers: &Workers<'_>, x: &[f32], scratch: &mut Activations, out: &mut [f32]) {
        let Self { a, b, scale, router } = self;
        let Activations { inner, added, .. } = scratch;
        inner.resize(x.len() / a.columns() * a.rows(), 0.0);
        kernels::linear(workers, x, a.view(), None, inner);
        match router {
            None => inner.iter_mut().for_each(|value| *value *= scale),
            Some(router) => {
                added.resize(x.len() / a.columns() * router.rows.rows(), 0.0);
                kernels::linear(workers, x, router.rows.view(), None, added);
                let products = added.chunks_exact(router.rows.rows());
                for (inner, products) in inner.chunks_exact_mut(a.rows()).zip(products) {
                    let factors = router.factors(products);
                    for (inner, factor) in inner.chunks_exact_mut(a.rows() / router.experts).zip(factors) {
                        inner.iter_mut().for_each(|value| *value *= factor);
                    }
                }
            }
        }
        added.resize(out.len(), 0.0);
        kernels::linear(workers, inner, b.view(), None, added);
        kernels::add(workers.simd(), out, added);
    }
}

impl Activations {
    /// Quantizes rows to the format that a matrix is multiplied with.
    fn quantize(&mut self, workers: &Workers<'_>, x: &[f32], weight: &Packed) -> Quantized<'_> {
        match weight.quantization() {
            Quantization::Int8 => {
                self.int8.quantize(workers, x, weight.inputs());
                Quantized::Int8(&self.int8)
            }
            Quantization::Bf16 => {
                self.bf16.quantize(workers, x, weight.inputs());
                Quantized::Bf16(&self.bf16)
            }
            Quantization::F32 => {
                self.f32.quantize(workers, x, weight.inputs());
                Quantized::F32(&self.f32)
            }
        }
    }
}
