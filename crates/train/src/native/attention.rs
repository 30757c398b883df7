//! Attention of one sequence, forward and backward, a block of queries at a time.
//!
//! The probabilities are not kept: backward makes them anew from the logarithms of their sums (Dao et al. 2022,
//! arXiv 2205.14135, section 3.1).

use wsd_nn::arch::Blueprint;
use wsd_nn::kernels::dense::{Matrix, multiply};
use wsd_nn::kernels::elementwise::{exponentials, inner, softmax, softmax_backward};
use wsd_nn::kernels::{Simd, softcap};

/// Queries of a block.
const BLOCK: usize = 64;

/// Queries, keys and values of a sequence, and what may be seen.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub(super) plan: &'a Blueprint,
    pub(super) simd: Simd,
    /// A token sees itself and the `window - 1` before it.
    pub(super) window: Option<usize>,
    /// Rotated queries, rotated keys and values, `(tokens, width)`.
    pub(super) qkv: &'a [f32],
    /// What a row of `qkv` holds.
    pub(super) width: usize,
    pub(super) tokens: usize,
}

/// Room for the scores of a block.
#[derive(Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    probabilities: Vec<f32>,
    gradients: Vec<f32>,
}

/// A block of queries of one head, and the keys that any of them sees.
struct Block {
    first: usize,
    queries: usize,
    first_key: usize,
    keys: usize,
    /// Where the head's queries, keys and values begin in a row.
    query_at: usize,
    key_at: usize,
    value_at: usize,
}

impl Heads<'_> {
    /// `out` is `(tokens, heads * head_dim)`, `log_sums` `(heads, tokens)`.
    pub(super) fn forward(&self, out: &mut [f32], log_sums: &mut [f32], scratch: &mut Scratch) {
        let (size, stride) = (self.plan.head_dim, self.plan.query_width());
        for (head, log_sums) in log_sums.chunks_exact_mut(self.tokens).enumerate() {
            for block in self.blocks(head) {
                let scores = self.scores(&block, &mut scratch.scores);
                for (row, scores) in scores.chunks_exact_mut(block.keys).enumerate() {
                    let seen = self.seen(&block, row);
                    let mut log_sum = [0.0];
                    softmax(self.simd, &mut scores[seen.clone()], &mut log_sum);
                    log_sums[block.first + row] = log_sum[0];
                    scores[..seen.start].fill(0.0);
                    scores[seen.end..].fill(0.0);
                }
                let out = &mut out[block.first * stride + head * size..];
                multiply(1.0, Matrix::dense(scores, block.keys), self.values(&block), 0.0, out, stride);
            }
        }
    }

    /// `output` is what [`Heads::forward`] gave and `gradient` the loss's slope there. Sets the slopes of queries in
    /// `slopes`, `(tokens, width)`, and adds those of keys and values.
    pub(super) fn backward(
        &self,
        [output, gradient]: [&[f32]; 2],
        log_sums: &[f32],
        slopes: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (size, stride) = (self.plan.head_dim, self.plan.query_width());
        let scale = self.plan.attention_scale;
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
                multiply(1.0, gradients, self.values(&block).transposed(), 0.0, scores, block.keys);
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
                }
                if let Some(cap) = self.plan.attention_softcap {
                    for (score, capped) in scores.iter_mut().zip(&*capped) {
                        *score *= 1.0 - (capped / cap).powi(2);
                    }
                }
                let (scores, probabilities) =
                    (Matrix::dense(scores, block.keys), Matrix::dense(probabilities, block.keys));
                let keys_from = block.first_key * self.width;
                multiply(
                    1.0,
                    probabilities.transposed(),
                    gradients,
                    1.0,
                    &mut slopes[keys_from + block.value_at..],
                    self.width,
                );
                multiply(
                    scale,
                    scores.transposed(),
                    self.queries(&block),
                    1.0,
                    &mut slopes[keys_from + block.key_at..],
                    self.width,
                );
                let to = &mut slopes[block.first * self.width + block.query_at..];
                multiply(scale, scores, self.keys(&block), 0.0, to, self.width);
            }
        }
    }

    fn blocks(&self, head: usize) -> impl Iterator<Item = Block> {
        let (plan, tokens, window) = (self.plan, self.tokens, self.window);
        let shared = head / (plan.heads / plan.kv_heads) * plan.head_dim;
        let key_at = plan.query_width() + shared;
        (0..tokens).step_by(BLOCK).map(move |first| {
            let queries = BLOCK.min(tokens - first);
            let first_key = first_seen(first, window);
            Block {
                first,
                queries,
                first_key,
                keys: first + queries - first_key,
                query_at: head * plan.head_dim,
                key_at,
                value_at: key_at + plan.kv_width(),
            }
        })
    }

    /// Scaled and capped scores of a block, `(queries, keys)`, of unseen keys too.
    fn scores<'s>(&self, block: &Block, room: &'s mut Vec<f32>) -> &'s mut [f32] {
        let area = block.queries * block.keys;
        room.resize(area.max(room.len()), 0.0);
        let scores = &mut room[..area];
        let keys = self.keys(block).transposed();
        multiply(self.plan.attention_scale, self.queries(block), keys, 0.0, scores, block.keys);
        if let Some(cap) = self.plan.attention_softcap {
            softcap(self.simd, scores, cap);
        }
        scores
    }

    /// The keys, counted from the block's first, that a row sees.
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
        Matrix::new(&self.qkv[first * self.width + at..], tokens, self.plan.head_dim, self.width)
    }
}

fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}
