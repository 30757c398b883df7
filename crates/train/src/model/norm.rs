//! The norms of a decoder, forward and backward.

use std::ops::Range;

use wsd_nn::arch::Norms;
use wsd_nn::kernels::Simd;
use wsd_nn::kernels::elementwise::{self, NormGradients};

use super::vector::{Vector, add_rows};
use crate::adapters::Trained;
use crate::layout::Layout;

/// The weight and the bias of a norm.
#[derive(Default)]
pub(super) struct NormPlace {
    pub(super) weight: Vector,
    pub(super) bias: Option<Vector>,
}

impl NormPlace {
    /// The norm of a module, if there is one.
    pub(super) fn new(layout: &Layout, module: &str, trained: &dyn Fn(&str) -> Trained) -> Option<Self> {
        let vector = |part: &str| Vector::new(layout, &format!("{module}.{part}"), trained);
        Some(Self { weight: vector("weight")?, bias: vector("bias") })
    }
}

/// A norm with its weights.
#[derive(Clone, Copy)]
pub(super) struct NormRun<'a> {
    pub(super) simd: Simd,
    pub(super) norms: &'a Norms,
    pub(super) weights: &'a [f32],
    pub(super) place: &'a NormPlace,
}

impl NormRun<'_> {
    /// Sets `out` to the normed rows of `x`.
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32]) {
        elementwise::norm(self.simd, out, x, self.parameters());
        if let Some(bias) = &self.place.bias {
            let bias = self.values(&bias.range);
            for row in out.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }

    /// Adds to `x_gradients`, those of the input `x`, given those of the `output`, and to those of the
    /// weights in `gradient`.
    pub(super) fn backward(&self, x: &[f32], output: &[f32], gradient: &mut [f32], x_gradients: &mut [f32]) {
        if let Some(bias) = &self.place.bias {
            add_rows(&mut gradient[bias.gradient.clone()], output);
        }
        let weight = &mut gradient[self.place.weight.gradient.clone()];
        let mut gradients = NormGradients { output, x: x_gradients, weight };
        elementwise::norm_backward(self.simd, &mut gradients, x, self.parameters());
    }

    fn parameters(&self) -> elementwise::Norm<'_> {
        let Norms { offset, eps, centered, .. } = *self.norms;
        elementwise::Norm { weight: self.values(&self.place.weight.range), offset, eps, is_centered: centered }
    }

    fn values(&self, range: &Range<usize>) -> &[f32] {
        &self.weights[range.clone()]
    }
}
