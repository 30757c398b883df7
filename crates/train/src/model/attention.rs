//! Attention of one sequence, forward and backward, a block of queries at a time.
//!
//! Probabilities are not kept: the backward pass computes them again from the scores and the
//! logarithms of their sums (Dao et al. 2022, arXiv 2205.14135, section 3.1).

use wsd_nn::arch::Blueprint;
use wsd_nn::kernels::dense::{Matrix, Output, multiply};
use wsd_nn::kernels::elementwise::{exponentials, inner, softmax, softmax_backward};
use wsd_nn::kernels::{Simd, softcap};

/// Queries per block.
const BLOCK: usize = 64;

/// Queries, keys and values of a sequence, and the attention window.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub(super) blueprint: &'a Blueprint,
    pub(super) simd: Simd,
    /// A token attends to itself and the `window - 1` tokens before it.
    pub(super) window: Option<usize>,
    /// The sink of each head, a score that takes a share of the softmax; empty without sinks.
    pub(super) sinks: &'a [f32],
    /// Rotated queries, rotated keys and values, `(tokens, width)`.
    pub(super) qkv: &'a [f32],
    /// Floats per row of `qkv`.
    pub(super) width: usize,
    pub(super) tokens: usize,
}

/// Buffers for the scores of a block.
#[derive(Default)]
pub(super) struct AttentionScratch {
    scores: Vec<f32>,
    probabilities: Vec<f32>,
    gradients: Vec<f32>,
}

/// The output of [`Heads::forward`] and the loss's gradient there.
#[derive(Clone, Copy)]
pub(super) struct Attended<'a> {
    /// `(tokens, heads * head_dim)`.
    pub(super) output: &'a [f32],
    /// `(tokens, heads * head_dim)`.
    pub(super) gradient: &'a [f32],
    /// `(heads, tokens)`.
    pub(super) log_sums: &'a [f32],
}

/// A block of queries of one head, and the keys that any of them attends to.
struct Block {
    first: usize,
    queries: usize,
    first_key: usize,
    keys: usize,
    /// Offset of the head's query in a row.
    query_at: usize,
    /// Offset of the head's key in a row.
    key_at: usize,
    /// Offset of the head's value in a row.
    value_at: usize,
}

impl Heads<'_> {
    /// Sets `out`, `(tokens, heads * head_dim)`, and `log_sums`, `(heads, tokens)`.
    pub(super) fn forward(&self, out: &mut [f32], log_sums: &mut [f32], scratch: &mut AttentionScratch) {
        let (size, stride) = (self.blueprint.head_dim, self.blueprint.query_width());
        for (head, log_sums) in log_sums.chunks_exact_mut(self.tokens).enumerate() {
            for block in self.blocks(head) {
                let scores = self.scores(&block, &mut scratch.scores);
                for (row, scores) in scores.chunks_exact_mut(block.keys).enumerate() {
                    let seen = self.seen(&block, row);
                    let mut log_sum = [0.0];
                    softmax(self.simd, &mut scores[seen.clone()], &mut log_sum);
                    if let Some(sink) = self.sinks.get(head) {
                        let total = log_sum_of(log_sum[0], *sink);
                        let share = (log_sum[0] - total).exp();
                        scores[seen.clone()].iter_mut().for_each(|score| *score *= share);
                        log_sum[0] = total;
                    }
                    log_sums[block.first + row] = log_sum[0];
                    scores[..seen.start].fill(0.0);
                    scores[seen.end..].fill(0.0);
                }
                let out = &mut out[block.first * stride + head * size..];
                multiply(1.0, Matrix::dense(scores, block.keys), self.values(&block), Output::set(out, stride));
            }
        }
    }

    /// Sets the gradients of queries in `qkv_gradients`, `(tokens, width)`, and adds those of keys and
    /// values, and of sinks that change to `sink_gradients`.
    pub(super) fn backward(
        &self,
        attended: Attended<'_>,
        qkv_gradients: &mut [f32],
        sink_gradients: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let Attended { output, gradient, log_sums } = attended;
        let (size, stride) = (self.blueprint.head_dim, self.blueprint.query_width());
        let scale = self.blueprint.attention_scale;
        for (head, log_sums) in log_sums.chunks_exact(self.tokens).enumerate() {
            for block in self.blocks(head) {
                let start = block.first * stride + head * size;
                let (output, gradient) = (&output[start..], &gradient[start..]);
                let gradients = Matrix::new(gradient, block.queries, size, stride);
                let area = block.queries * block.keys;
                scratch.probabilities.resize(area.max(scratch.probabilities.len()), 0.0);
                scratch.gradients.resize(area.max(scratch.gradients.len()), 0.0);
                let capped = self.scores(&block, &mut scratch.scores);
                let probabilities = &mut scratch.probabilities[..area];
                let scores = &mut scratch.gradients[..area];
                let values = self.values(&block).transposed();
                multiply(1.0, gradients, values, Output::set(scores, block.keys));
                for row in 0..block.queries {
                    let seen = self.seen(&block, row);
                    let cut = row * block.keys..(row + 1) * block.keys;
                    let probabilities = &mut probabilities[cut.clone()];
                    probabilities.fill(0.0);
                    probabilities[seen.clone()].copy_from_slice(&capped[cut.clone()][seen.clone()]);
                    exponentials(self.simd, &mut probabilities[seen], log_sums[block.first + row]);
                    let mut mean = [0.0];
                    inner(self.simd, &output[row * stride..][..size], &gradient[row * stride..][..size], &mut mean);
                    softmax_backward(self.simd, &mut scores[cut], probabilities, mean[0]);
                    // The value of a sink is zero.
                    if let Some(gradient) = sink_gradients.get_mut(head) {
                        *gradient -= (self.sinks[head] - log_sums[block.first + row]).exp() * mean[0];
                    }
                }
                if let Some(cap) = self.blueprint.attention_softcap {
                    for (score, capped) in scores.iter_mut().zip(&*capped) {
                        *score *= 1.0 - (capped / cap).powi(2);
                    }
                }
                let (scores, probabilities) =
                    (Matrix::dense(scores, block.keys), Matrix::dense(probabilities, block.keys));
                let keys_from = block.first_key * self.width;
                let to = Output::add(&mut qkv_gradients[keys_from + block.value_at..], self.width);
                multiply(1.0, probabilities.transposed(), gradients, to);
                let to = Output::add(&mut qkv_gradients[keys_from + block.key_at..], self.width);
                multiply(scale, scores.transposed(), self.queries(&block), to);
                let queries_from = block.first * self.width;
                let to = Output::set(&mut qkv_gradients[queries_from + block.query_at..], self.width);
                multiply(scale, scores, self.keys(&block), to);
            }
        }
    }

    fn blocks(&self, head: usize) -> impl Iterator<Item = Block> {
        let (blueprint, tokens, window) = (self.blueprint, self.tokens, self.window);
        let shared = head / (blueprint.heads / blueprint.kv_heads) * blueprint.head_dim;
        let key_at = blueprint.query_width() + shared;
        (0..tokens).step_by(BLOCK).map(move |first| {
            let queries = BLOCK.min(tokens - first);
            let first_key = first_seen(first, window);
            Block {
                first,
                queries,
                first_key,
                keys: first + queries - first_key,
                query_at: head * blueprint.head_dim,
                key_at,
                value_at: key_at + blueprint.kv_width(),
            }
        })
    }

    /// Scaled and capped scores of a block, `(queries, keys)`, including those of keys outside the
    /// window.
    fn scores<'s>(&self, block: &Block, buffer: &'s mut Vec<f32>) -> &'s mut [f32] {
        let area = block.queries * block.keys;
        buffer.resize(area.max(buffer.len()), 0.0);
        let scores = &mut buffer[..area];
        let keys = self.keys(block).transposed();
        multiply(self.blueprint.attention_scale, self.queries(block), keys, Output::set(scores, block.keys));
        if let Some(cap) = self.blueprint.attention_softcap {
            softcap(self.simd, scores, cap);
        }
        scores
    }

    /// The keys that a row attends to, counted from the block's first.
    fn seen(&self, block: &Block, row: usize) -> std::ops::Range<usize> {
        let position = block.first + row;
        first_seen(position, self.window) - block.first_key..position + 1 - block.first_key
    }

    fn queries(&self, block: &Block) -> Matrix<'_> {
        self.part(block.first, block.queries, block.query_at)
    }

    fn keys(&self, block: &Block) -> Matrix<'_> {
        self.part(block.first_key, block.keys, block.key_at)
    }

    fn values(&self, block: &Block) -> Matrix<'_> {
        self.part(block.first_key, block.keys, block.value_at)
    }

    fn part(&self, first: usize, tokens: usize, at: usize) -> Matrix<'_> {
        Matrix::new(&self.qkv[first * self.width + at..], tokens, self.blueprint.head_dim, self.width)
    }
}

/// The logarithm of the sum of exponentials of two numbers.
fn log_sum_of(one: f32, other: f32) -> f32 {
    let most = one.max(other);
    most + ((one - most).exp() + (other - most).exp()).ln()
}

pub(super) fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}
