//! Linear layers of the model.

use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::kernels::{self, Bf16Group, Int8Group, Packed, Panels, Product, Quantization, Quantized, Simd, Workers};

/// A matrix in its file, and its bias.
pub(super) struct Stored {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Vec<f32>>,
}

/// A matrix as it is multiplied with, and its bias.
pub(super) struct Linear {
    weight: Weight,
    bias: Option<Vec<f32>>,
}

/// Where the numbers of a matrix are.
enum Weight {
    /// In their file, as they are.
    Mapped(Tensor),
    /// In tiles.
    Packed(Packed),
}

/// Scratch for the quantized input of a product.
#[derive(Default)]
pub(super) struct Activations {
    int8: Panels<Int8Group>,
    bf16: Panels<Bf16Group>,
}

impl Linear {
    /// `exact` matrices are multiplied as they are stored, with floats that nothing rounds.
    pub(super) fn new(Stored { weight, bias }: Stored, simd: Simd, exact: bool) -> Result<Self> {
        let packed = if exact { None } else { Packed::try_new(weight.view(), simd)? };
        let weight = match packed {
            Some(packed) => {
                weight.leave_memory();
                Weight::Packed(packed)
            }
            None => Weight::Mapped(weight),
        };
        Ok(Self { weight, bias })
    }

    fn outputs(&self) -> usize {
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

/// Layers that share their input: `(tokens, inputs)` to `(tokens, outputs)` each, in place of what the outputs held.
pub(super) fn apply<const N: usize>(
    workers: &Workers<'_>,
    x: &[f32],
    scratch: &mut Activations,
    mut layers: [(&Linear, &mut Vec<f32>); N],
) {
    for (layer, out) in &mut layers {
        // Every element is written, so what a longer step left behind need not be cleared.
        out.resize(x.len() / layer.inputs() * layer.outputs(), 0.0);
        if let Weight::Mapped(weight) = &layer.weight {
            kernels::linear(workers, x, weight.view(), layer.bias.as_deref(), out);
        }
    }
    for quantization in [Quantization::Int8, Quantization::Bf16] {
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
        }
    }
}
