//! Norms, forward and backward.

use wsd_nn::gpu::{Norm, NormGradients, Rows, View};

use super::run::Run;
use crate::error::Result;
use crate::model::norm::NormPlace;

impl<'a> Run<'a> {
    /// A norm with its weights.
    fn norm_of(&self, place: &NormPlace) -> Norm<'a> {
        let norms = &self.decoder.blueprint.norms;
        Norm {
            weight: self.weights.vector(&place.weight.range),
            bias: place.bias.as_ref().map(|bias| self.weights.vector(&bias.range)),
            offset: norms.offset,
            eps: norms.eps,
            is_centered: norms.centered,
        }
    }

    /// Rows of the width of a norm, `parts` of them in each of the rows of `x`, which begin `stride`
    /// floats apart.
    fn norm_rows(&self, place: &NormPlace, x: View<'_, f32>, layout: Option<(usize, usize)>) -> Rows {
        let width = place.weight.range.len();
        match layout {
            Some((stride, columns)) => Rows { count: self.tokens(), stride, parts: columns / width, width },
            None => Rows::dense(x.len(), width),
        }
    }

    /// Sets `out` to the normed rows of `x`. `layout` is the distance of rows and the columns that are
    /// normed, where rows have others too.
    pub(super) fn norm(
        &self,
        place: &NormPlace,
        (x, out): (View<'_, f32>, View<'_, f32>),
        layout: Option<(usize, usize)>,
    ) -> Result<()> {
        Ok(self.arithmetic.norm(self.norm_of(place), self.norm_rows(place, x, layout), x, out)?)
    }

    /// Sets or adds the gradient of a norm's input `x`, given that of the output, and adds those of the
    /// weights.
    pub(super) fn norm_backward(
        &self,
        place: &NormPlace,
        x: View<'_, f32>,
        (output, to, adds): (View<'_, f32>, View<'_, f32>, bool),
        layout: Option<(usize, usize)>,
    ) -> Result<()> {
        let bias = place.bias.as_ref().and_then(|bias| self.gradient_of(&bias.gradient));
        let weight = self.gradient_of(&place.weight.gradient);
        let gradients = NormGradients { output, x: to, adds, weight, bias };
        Ok(self.arithmetic.norm_backward(self.norm_of(place), self.norm_rows(place, x, layout), x, &gradients)?)
    }
}
