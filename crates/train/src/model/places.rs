//! The tensors of a layer and its products.

use std::ops::Range;

use wsd_nn::arch::{Blueprint, Expert, SINKS, StoredLinear, StoredNorm};
use wsd_nn::kernels::dense::{Matrix, Output, Precision};

use super::norm::NormPlace;
use super::options::ModelOptions;
use super::vector::{Vector, add_rows};
use crate::adapters::{LowRank, Trained};
use crate::layout::Layout;

/// The ranges of a layer's tensors; `None` where the architecture has none.
pub(super) struct LayerPlaces {
    pub(super) pre_attention: Option<NormPlace>,
    pub(super) post_attention: Option<NormPlace>,
    pub(super) pre_mlp: Option<NormPlace>,
    pub(super) post_mlp: Option<NormPlace>,
    /// Norms of queries and of keys.
    pub(super) qk_norm: Option<[NormPlace; 2]>,
    pub(super) qkv: Linear,
    pub(super) output: Linear,
    /// The scores of heads that have no position.
    pub(super) sinks: Option<Vector>,
    /// The product that rates experts; `None` for a dense model.
    pub(super) router: Option<Linear>,
    /// The experts; one for a dense model.
    pub(super) experts: Vec<ExpertPlaces>,
}

/// One feed-forward part.
pub(super) struct ExpertPlaces {
    /// The gate, if there is one, and the other branch.
    pub(super) gates: Linear,
    pub(super) down: Linear,
}

/// A product with a matrix `(outputs, inputs)`, and its bias.
pub(super) struct Linear {
    pub(super) weight: Range<usize>,
    pub(super) bias: Option<Range<usize>>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    precision: Precision,
    /// True where the matrix changes as a whole.
    pub(super) trains_weight: bool,
    pub(super) trains_bias: bool,
    /// Low-rank changes, each of some of the outputs.
    pub(super) changes: Vec<(Range<usize>, LowRank)>,
}

/// The numbers that a backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    /// The weights.
    pub(super) weights: &'a [f32],
    /// The parameters that low-rank changes consist of.
    pub(super) parameters: &'a [f32],
}

impl Linear {
    /// The product of matrices that lie side by side in `layout`.
    pub(super) fn new(layout: &Layout, names: &[String], options: &ModelOptions<'_>) -> Self {
        let trained = options.trained;
        let joined = |suffix: &str| {
            let mut places = names.iter().filter_map(|name| layout.get(&format!("{name}.{suffix}")));
            let first = places.next()?;
            let end = places.next_back().unwrap_or(first).range.end;
            Some((first.range.start..end, first.shape.last().copied().unwrap_or(1)))
        };
        let (weight, inputs) = joined("weight").unwrap_or((0..0, 1));
        let is_whole = |suffix: &str| names.iter().any(|name| trained(&format!("{name}.{suffix}")) == Trained::Whole);
        let change = |name: &String| {
            let name = format!("{name}.weight");
            let Trained::LowRank(change) = trained(&name) else { return None };
            let Range { start, end } = layout.get(&name)?.range;
            Some(((start - weight.start) / inputs..(end - weight.start) / inputs, change))
        };
        let mut changes: Vec<_> = names.iter().filter_map(change).collect();
        // Parts that share a matrix share its change.
        changes.dedup();
        Self {
            inputs,
            outputs: weight.len() / inputs,
            precision: options.precision,
            bias: joined("bias").map(|(range, _)| range),
            trains_weight: is_whole("weight"),
            trains_bias: is_whole("bias"),
            changes,
            weight,
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
        self.precision.multiply(1.0, Matrix::dense(x, self.inputs), weight.transposed(), to);
    }

    /// Adds the gradients of what is trained to `gradient` and sets that of the input `x`, given
    /// that of the output, `out`.
    pub(super) fn backward(
        &self,
        read: Read<'_>,
        gradient: &mut [f32],
        (x, out): (&[f32], &[f32]),
        x_gradient: &mut [f32],
    ) {
        let out_matrix = Matrix::dense(out, self.outputs);
        if self.trains_weight {
            let to = Output::add(&mut gradient[self.weight.clone()], self.inputs);
            self.precision.multiply(1.0, out_matrix.transposed(), Matrix::dense(x, self.inputs), to);
        }
        for (outputs, change) in &self.changes {
            let out = Matrix::new(&out[outputs.start..], out.len() / self.outputs, outputs.len(), self.outputs);
            let (x, precision) = (Matrix::dense(x, self.inputs), self.precision);
            change_backward((change, precision), read.parameters, gradient, (x, out));
        }
        if let Some(bias) = self.bias.as_ref().filter(|_| self.trains_bias) {
            add_rows(&mut gradient[bias.clone()], out);
        }
        let weight = Matrix::dense(&read.weights[self.weight.clone()], self.inputs);
        self.precision.multiply(1.0, out_matrix, weight, Output::set(x_gradient, self.inputs));
    }
}

/// Adds the gradients of the factors of a low-rank change, given inputs `x` and the gradient `out` of the
/// outputs: with `s` the scale, `s * (out * B)^T * x` and `s * out^T * (x * A^T)`.
fn change_backward(
    (change, precision): (&LowRank, Precision),
    parameters: &[f32],
    gradient: &mut [f32],
    (x, out): (Matrix<'_>, Matrix<'_>),
) {
    let LowRank { a, b, rank, scale } = change;
    let inputs = a.len() / rank;
    let (matrix_a, matrix_b) =
        (Matrix::dense(&parameters[a.clone()], inputs), Matrix::dense(&parameters[b.clone()], *rank));
    let mut narrow = vec![0.0; x.rows() * rank];
    precision.multiply(1.0, out, matrix_b, Output::set(&mut narrow, *rank));
    let to_a = Output::add(&mut gradient[a.clone()], inputs);
    precision.multiply(*scale, Matrix::dense(&narrow, *rank).transposed(), x, to_a);
    precision.multiply(1.0, x, matrix_a.transposed(), Output::set(&mut narrow, *rank));
    let to_b = Output::add(&mut gradient[b.clone()], *rank);
    precision.multiply(*scale, out.transposed(), Matrix::dense(&narrow, *rank), to_b);
}

impl LayerPlaces {
    /// Finds the parts of a layer in `layout`. Parts that share a matrix or lie side by side are one
    /// product.
    pub(super) fn new(blueprint: &Blueprint, layout: &Layout, index: usize, options: &ModelOptions<'_>) -> Self {
        let trained = options.trained;
        let parts = blueprint.layer();
        let named = |module: &str| format!("model.layers.{index}.{module}");
        let norm = |part: Option<StoredNorm>| NormPlace::new(layout, &named(part?.module), trained);
        let linear = |parts: &[&StoredLinear]| {
            let names: Vec<_> = parts.iter().map(|part| named(&part.module)).collect();
            Linear::new(layout, &names, options)
        };
        let expert = |expert: &Expert<StoredLinear>| ExpertPlaces {
            gates: linear(&expert.gate.iter().chain([&expert.up]).collect::<Vec<_>>()),
            down: linear(&[&expert.down]),
        };
        Self {
            pre_attention: norm(parts.pre_attention),
            post_attention: norm(parts.post_attention),
            pre_mlp: norm(parts.pre_mlp),
            post_mlp: norm(parts.post_mlp),
            qk_norm: norm(parts.query_norm).zip(norm(parts.key_norm)).map(<[_; 2]>::from),
            qkv: linear(&[&parts.query, &parts.key, &parts.value]),
            output: linear(&[&parts.output]),
            sinks: Vector::new(layout, &named(SINKS), trained),
            router: parts.router.as_ref().map(|router| linear(&[router])),
            experts: parts.experts.iter().map(expert).collect(),
        }
    }

    /// The width of the outputs of the feed-forward part.
    pub(super) fn outputs(&self) -> usize {
        self.experts[0].down.outputs
    }
}
