//! Forward and backward pass of a draft head over the features of its base.
//!
//! The loss is that of FSPAD (arXiv 2408.15562): smooth L1 between the branch that predicts features and
//! the base's, and the cross-entropy of the token that the other branch predicts under the base's
//! distribution.

use wsd_nn::arch::{Activation, DraftPlan, FUSION, SAMPLING};
use wsd_nn::kernels::elementwise::{exponentials, gate, gate_backward, log_sum_exp};

use super::buffer::sized;
use super::decoder::Decoder;
use super::layer::{Activations, Backward, LayerRun, Scratch};
use super::logits::{Table, uncap};
use super::norm::NormPlace;
use super::places::{Linear, Read};
use super::shard::Span;
use super::threads::{Buffers, WorkerThreads};
use super::{ModelOptions, decoder};
use crate::adapters::Trained;
use crate::error::Result;
use crate::layout::Layout;
use crate::objectives::{LossOutput, Measure};

/// The frozen tables of the base: its embedding as its first layer reads it, and its vocabulary head.
pub struct DraftBase {
    /// `(vocab, hidden)`.
    pub embedding: Vec<f32>,
    /// `(vocab, hidden)`; `None` for one that equals the embedding.
    pub head: Option<Vec<f32>>,
    /// The factor on logits.
    pub scale: f32,
    /// The soft limit of logits.
    pub cap: Option<f32>,
}

/// The weights of the parts of the loss.
#[derive(Clone, Copy, Debug)]
pub struct DraftLoss {
    /// The weight of the smooth L1 distance of features.
    pub feature_weight: f32,
    /// The weight of the cross-entropy of tokens.
    pub token_weight: f32,
}

/// A sequence with the base's features.
#[derive(Clone, Debug)]
pub struct DraftExample<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// The positions whose tokens are drafted, ascending. A token is drafted from the feature of the
    /// second one before it, so positions below 2 do not count.
    pub targets: Vec<usize>,
    /// The features of all tokens, `(tokens, hidden)`.
    pub features: Vec<f32>,
    /// The features that the head reads: those with noise; empty for the same.
    pub inputs: Vec<f32>,
}

impl DraftExample<'_> {
    /// The number of drafted tokens.
    #[must_use]
    pub fn drafted(&self) -> usize {
        self.targets.iter().filter(|position| **position >= 2).count()
    }
}

/// A draft head in training.
pub struct DraftModel {
    decoder: Decoder,
    layout: Layout,
    fusion: Linear,
    sampling: Option<Sampling>,
    branches: usize,
    base: DraftBase,
    workers: WorkerThreads<Worker>,
}

/// The places of feature sampling.
struct Sampling {
    norm: NormPlace,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The buffers of one thread.
#[derive(Default)]
struct Worker {
    gradient: Vec<f32>,
    embedded: Vec<f32>,
    /// Embedding and feature of each pair.
    pairs: Vec<f32>,
    fused: Vec<f32>,
    fused_normed: Vec<f32>,
    /// Gate and gated branch of feature sampling, side by side.
    gates: Vec<f32>,
    gated: Vec<f32>,
    /// The input of the layer.
    x: Vec<f32>,
    /// The outputs of the branches of each pair.
    out: Vec<f32>,
    activations: Activations,
    scratch: Scratch,
}

impl DraftModel {
    /// Makes the buffers for a plan; `max_len` is the length of the longest sequence.
    ///
    /// # Errors
    /// [`crate::Error::Threads`].
    pub fn try_new(plan: &DraftPlan, base: DraftBase, max_len: usize, threads: usize) -> Result<Self> {
        let layout = Layout::of(plan.tensors());
        // A decoder of whose parts only the layer is used.
        let options = ModelOptions { threads, max_len, trained: &|_| Trained::Whole, ..ModelOptions::default() };
        let decoder = decoder(&plan.layer, &layout, &options)?;
        let linear = |name: String| Linear::new(&layout, &[name], &options);
        let part = |part: &str| format!("{SAMPLING}.{part}");
        let norm = NormPlace::new(&layout, &part("norm"), options.trained);
        let sampling = norm.map(|norm| Sampling {
            norm,
            gate: linear(part("gate_proj")),
            up: linear(part("up_proj")),
            down: linear(part("down_proj")),
        });
        let (fusion, branches, workers) =
            (linear(FUSION.to_owned()), plan.branches(), WorkerThreads::try_new(threads)?);
        Ok(Self { decoder, layout, fusion, sampling, branches, base, workers })
    }

    /// The places of tensors in weights and gradients.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Computes the losses of examples, one output each. A `gradient` is set to that of the mean over
    /// all drafted tokens.
    pub fn pass(
        &mut self,
        weights: &[f32],
        examples: &[DraftExample<'_>],
        loss: DraftLoss,
        gradient: Option<&mut [f32]>,
    ) -> Vec<LossOutput> {
        let Self { workers, decoder, fusion, sampling, branches, base, .. } = self;
        let drafted = examples.iter().map(DraftExample::drafted).sum::<usize>().max(1);
        let head = Parts { decoder, fusion, sampling: sampling.as_ref(), branches: *branches, base, weights, loss };
        workers.run((examples, |example| example.tokens.len()), gradient, |worker, share| {
            share.iter().map(|example| worker.run(&head, example, drafted)).collect()
        })
    }
}

/// The read-only parts that all threads share.
struct Parts<'a> {
    decoder: &'a Decoder,
    fusion: &'a Linear,
    sampling: Option<&'a Sampling>,
    branches: usize,
    base: &'a DraftBase,
    weights: &'a [f32],
    loss: DraftLoss,
}

impl Parts<'_> {
    fn hidden(&self) -> usize {
        self.decoder.blueprint.hidden
    }

    fn read(&self) -> Read<'_> {
        Read { weights: self.weights, parameters: &[] }
    }

    /// The base's output head.
    fn table(&self) -> Table<'_> {
        let DraftBase { embedding, head, scale, cap } = self.base;
        Table {
            matrix: head.as_ref().unwrap_or(embedding),
            inputs: self.hidden(),
            scale: *scale,
            cap: *cap,
            precision: self.decoder.precision,
        }
    }

    /// The base's logits of states, `(rows, vocab)`.
    fn logits(&self, states: &[f32]) -> Vec<f32> {
        let table = self.table();
        let mut logits = vec![0.0; states.len() / self.hidden() * table.outputs()];
        table.forward(self.decoder.simd, states, &mut logits);
        logits
    }
}

impl Buffers for Worker {
    fn gradient(&mut self) -> &mut Vec<f32> {
        &mut self.gradient
    }
}

impl Worker {
    /// Computes the loss of an example, one of those whose drafted tokens are `drafted` together, and
    /// adds the gradient, unless that is empty.
    fn run(&mut self, parts: &Parts<'_>, example: &DraftExample<'_>, drafted: usize) -> LossOutput {
        let positions: Vec<_> = example.targets.iter().copied().filter(|position| *position >= 2).collect();
        let Some(last) = positions.last() else {
            return LossOutput { measures: Vec::new(), logprob_gradients: Vec::new() };
        };
        // A pair `i` reads the feature of token `i` and token `i + 1`, and drafts token `i + 2`.
        let count = last - 1;
        self.fuse(parts, example, count);
        let long = parts.decoder.blueprint.is_long(count);
        let spans = [Span { rows: 0..count, long }];
        let run = LayerRun { decoder: parts.decoder, index: 0, read: parts.read(), spans: &spans };
        run.forward(&self.x, &mut self.activations, &mut self.out, &mut self.scratch);
        let pairs: Vec<_> = positions.iter().map(|position| position - 2).collect();
        let (output, branch_gradients) = self.losses(parts, example, &pairs, drafted);
        if !self.gradient.is_empty() {
            let mut to = Backward { gradient: &mut self.gradient, scratch: &mut self.scratch };
            let x = run.branches_backward(&self.x, &mut self.activations, &branch_gradients, &mut to);
            self.fuse_backward(parts, x);
        }
        output
    }

    /// Computes the input of the layer for the first `count` pairs.
    fn fuse(&mut self, parts: &Parts<'_>, example: &DraftExample<'_>, count: usize) {
        let (hidden, weights) = (parts.hidden(), parts.weights);
        let features = if example.inputs.is_empty() { &example.features } else { &example.inputs };
        self.embedded.clear();
        self.pairs.clear();
        for (token, feature) in example.tokens[1..=count].iter().zip(features.chunks_exact(hidden)) {
            let embedding = &parts.base.embedding[*token as usize * hidden..][..hidden];
            self.embedded.extend_from_slice(embedding);
            self.pairs.extend_from_slice(embedding);
            self.pairs.extend_from_slice(feature);
        }
        parts.fusion.forward(weights, &self.pairs, sized(&mut self.fused, count * hidden));
        self.x.clone_from(&self.fused);
        let Some(Sampling { norm: place, gate: gate_linear, up, down }) = parts.sampling else { return };
        let ffn = gate_linear.outputs;
        let normed = sized(&mut self.fused_normed, count * hidden);
        parts.decoder.norm(weights, place).forward(&self.fused, normed);
        let mut halves = [vec![0.0; count * ffn], vec![0.0; count * ffn]];
        gate_linear.forward(weights, &self.embedded, &mut halves[0]);
        up.forward(weights, normed, &mut halves[1]);
        self.gates.clear();
        for (gate, up) in halves[0].chunks_exact(ffn).zip(halves[1].chunks_exact(ffn)) {
            self.gates.extend_from_slice(gate);
            self.gates.extend_from_slice(up);
        }
        gate(parts.decoder.simd, sized(&mut self.gated, count * ffn), &self.gates, ffn, Activation::Silu);
        let mut added = vec![0.0; count * hidden];
        down.forward(weights, &self.gated, &mut added);
        self.x.iter_mut().zip(added).for_each(|(x, added)| *x += added);
    }

    /// Adds the gradients of everything before the layer, given those with respect to its input `x`.
    fn fuse_backward(&mut self, parts: &Parts<'_>, mut x: Vec<f32>) {
        let (hidden, weights) = (parts.hidden(), parts.weights);
        if let Some(Sampling { norm: place, gate: gate_linear, up, down }) = parts.sampling {
            let ffn = gate_linear.outputs;
            let mut gated = vec![0.0; self.gated.len()];
            down.backward(parts.read(), &mut self.gradient, (&self.gated, &x), &mut gated);
            gate_backward(parts.decoder.simd, &mut self.gates, &gated, ffn, Activation::Silu);
            let half = |index: usize| -> Vec<f32> {
                self.gates.chunks_exact(2 * ffn).flat_map(|row| row[index * ffn..][..ffn].to_vec()).collect()
            };
            let (gates, ups) = (half(0), half(1));
            let mut unused = vec![0.0; x.len()];
            gate_linear.backward(parts.read(), &mut self.gradient, (&self.embedded, &gates), &mut unused);
            let mut normed = vec![0.0; x.len()];
            up.backward(parts.read(), &mut self.gradient, (&self.fused_normed, &ups), &mut normed);
            parts.decoder.norm(weights, place).backward(&self.fused, &normed, &mut self.gradient, &mut x);
        }
        let mut unused = vec![0.0; x.len() / hidden * 2 * hidden];
        parts.fusion.backward(parts.read(), &mut self.gradient, (&self.pairs, &x), &mut unused);
    }

    /// Computes the loss of some pairs, and the gradient of its share in the mean over `drafted` tokens
    /// with respect to the outputs of all branches.
    fn losses(
        &self,
        parts: &Parts<'_>,
        example: &DraftExample<'_>,
        pairs: &[usize],
        drafted: usize,
    ) -> (LossOutput, Vec<f32>) {
        let (hidden, stride) = (parts.hidden(), parts.branches * parts.hidden());
        let DraftLoss { feature_weight, token_weight } = parts.loss;
        let rows = |from: &[f32], stride: usize, at: &dyn Fn(usize) -> usize| -> Vec<f32> {
            pairs.iter().flat_map(|pair| from[pair * stride + at(*pair)..][..hidden].to_vec()).collect()
        };
        let predicted = rows(&self.out, stride, &|_| 0);
        let aligned = rows(&self.out, stride, &|_| stride - hidden);
        let truth = rows(&example.features, hidden, &|_| hidden);
        let mut branches = vec![0.0; self.out.len()];

        let mut regression = 0.0;
        let share = feature_weight / (hidden * drafted) as f32;
        for (row, pair) in pairs.iter().enumerate() {
            let to = &mut branches[pair * stride + stride - hidden..][..hidden];
            let values = aligned[row * hidden..].iter().zip(&truth[row * hidden..]);
            for (to, (value, truth)) in to.iter_mut().zip(values) {
                let error = value - truth;
                regression += f64::from(if error.abs() < 1.0 { 0.5 * error * error } else { error.abs() - 0.5 });
                *to += share * error.clamp(-1.0, 1.0);
            }
        }
        let (entropy, right, gradients) = self.token_loss(parts, &predicted, &truth, token_weight / drafted as f32);
        for (pair, from) in pairs.iter().zip(gradients.chunks_exact(hidden)) {
            branches[pair * stride..][..hidden].iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
        let (count, regression) = (pairs.len() as f64, regression / hidden as f64);
        let loss = f64::from(feature_weight) * regression + f64::from(token_weight) * entropy;
        let measure = |name, sum| Measure { name, sum, weight: count };
        let measures = vec![
            measure("loss", loss),
            measure("feature_loss", regression),
            measure("token_loss", entropy),
            measure("agreement", right as f64),
        ];
        (LossOutput { measures, logprob_gradients: Vec::new() }, branches)
    }

    /// The sum of the cross-entropies of `predicted` states under the base's distributions at the states
    /// `truth`, the number of equal argmaxes, and the gradients, times `share`, with respect to
    /// `predicted`.
    fn token_loss(&self, parts: &Parts<'_>, predicted: &[f32], truth: &[f32], share: f32) -> (f64, usize, Vec<f32>) {
        let simd = parts.decoder.simd;
        let (mut own, mut wanted) = (parts.logits(predicted), parts.logits(truth));
        let vocab = own.len() * parts.hidden() / predicted.len();
        let (mut entropy, mut right) = (0.0, 0);
        for (own, wanted) in own.chunks_exact_mut(vocab).zip(wanted.chunks_exact_mut(vocab)) {
            right += usize::from(argmax(own) == argmax(wanted));
            let mut sums = [[0.0]; 2];
            log_sum_exp(simd, own, &mut sums[0]);
            log_sum_exp(simd, wanted, &mut sums[1]);
            let [[own_sum], [wanted_sum]] = sums;
            exponentials(simd, wanted, wanted_sum);
            let terms = own.iter().zip(&*wanted).map(|(logit, p)| f64::from(*p) * f64::from(logit - own_sum));
            entropy -= terms.sum::<f64>();
            let capped = parts.base.cap.map(|cap| (cap, own.to_vec()));
            exponentials(simd, own, own_sum);
            own.iter_mut().zip(&*wanted).for_each(|(q, p)| *q = share * (*q - p));
            if let Some((cap, logits)) = capped {
                uncap(own, cap, logits.into_iter());
            }
        }
        let mut gradients = vec![0.0; predicted.len()];
        if !self.gradient.is_empty() {
            parts.table().backward(&own, &mut gradients);
        }
        (entropy, right, gradients)
    }
}

fn argmax(row: &[f32]) -> Option<usize> {
    row.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).map(|(index, _)| index)
}
