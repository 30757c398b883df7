//! Attention of the sequences of a shard, forward and backward, a block of queries at a time.
//!
//! Probabilities are not kept: the backward pass computes them again. The query heads that have a
//! key head of their own each are one set of products; those that share it are computed one after
//! another.

use wsd_nn::gpu::{Array, Matrix, Operand, Output, Scores, View};

use super::run::Run;
use crate::error::Result;
use crate::model::attention::first_seen;

/// Queries per block.
pub(super) const BLOCK: usize = 512;

/// Buffers for the scores of a block.
#[derive(Default)]
pub(super) struct AttentionScratch {
    scores: Array<f32>,
    probabilities: Array<Operand>,
    gradients: Array<f32>,
    score_gradients: Array<Operand>,
}

/// Attention of one layer: queries, keys and values of all tokens, rotated.
pub(super) struct Attention<'a> {
    pub(super) run: Run<'a>,
    pub(super) window: Option<usize>,
    pub(super) qkv: View<'a, Operand>,
}

/// A block of queries of a sequence, of one of the heads that share a key.
struct Block {
    /// The row of its first query, and that of its first key.
    rows: [usize; 2],
    scores: Scores,
    /// The first query head.
    head: usize,
}

/// A part of the rows of queries, keys and values.
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

impl<'a> Attention<'a> {
    /// Sets `out`, `(tokens, heads * head_dim)`.
    pub(super) fn forward(&self, out: View<'_, f32>, scratch: &mut AttentionScratch) -> Result<()> {
        for block in self.blocks() {
            let (_, probabilities) = self.probabilities(&block, &mut scratch.scores, &mut scratch.probabilities)?;
            self.run.arithmetic.multiply(
                1.0,
                block.matrix(probabilities),
                self.part(&block, Part::Values),
                self.outputs(&block, out),
            )?;
        }
        Ok(())
    }

    /// Sets the gradients of queries, keys and values, given that of the output.
    pub(super) fn backward(
        &self,
        output: View<'_, Operand>,
        gradients: View<'_, f32>,
        scratch: &mut AttentionScratch,
    ) -> Result<()> {
        let (arithmetic, scale) = (self.run.arithmetic, self.run.decoder.blueprint.attention_scale);
        arithmetic.zero(gradients)?;
        for block in self.blocks() {
            let (scores, probabilities) =
                self.probabilities(&block, &mut scratch.scores, &mut scratch.probabilities)?;
            let given = self.output(&block, output);
            let pulled = arithmetic.sized(&mut scratch.gradients, block.scores.area())?;
            arithmetic.multiply(1.0, given, self.part(&block, Part::Values).transposed(), block.area(pulled))?;
            let pushed = arithmetic.sized(&mut scratch.score_gradients, block.scores.area())?;
            arithmetic.softmax_backward(block.scores, (scores, probabilities), pulled, pushed)?;
            let [probabilities, pushed] = [probabilities, pushed].map(|values| block.matrix(values));
            let to = |part| self.gradient(&block, part, gradients);
            arithmetic.multiply(1.0, probabilities.transposed(), given, to(Part::Values))?;
            arithmetic.multiply(scale, pushed.transposed(), self.part(&block, Part::Queries), to(Part::Keys))?;
            arithmetic.multiply(scale, pushed, self.part(&block, Part::Keys), to(Part::Queries))?;
        }
        Ok(())
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let blueprint = &self.run.decoder.blueprint;
        let (products, window, cap) = (blueprint.kv_heads, self.window, blueprint.attention_softcap);
        let shared = blueprint.heads / blueprint.kv_heads;
        self.run.spans.iter().flat_map(move |span| {
            let (start, tokens) = (span.rows.start, span.rows.len());
            (0..tokens).step_by(BLOCK).flat_map(move |first| {
                let (queries, first_key) = (BLOCK.min(tokens - first), first_seen(first, window));
                let keys = first + queries - first_key;
                let scores = Scores { products, queries, keys, first, first_key, window, cap };
                (0..shared).map(move |head| Block { rows: [start + first, start + first_key], scores, head })
            })
        })
    }

    /// Scaled scores of a block, before their soft limit, and their probabilities.
    fn probabilities<'s>(
        &self,
        block: &Block,
        scores: &'s mut Array<f32>,
        out: &'s mut Array<Operand>,
    ) -> Result<(View<'s, f32>, View<'s, Operand>)> {
        let arithmetic = self.run.arithmetic;
        let scores = arithmetic.sized(scores, block.scores.area())?;
        let out = arithmetic.sized(out, block.scores.area())?;
        let keys_of = self.part(block, Part::Keys).transposed();
        let scale = self.run.decoder.blueprint.attention_scale;
        arithmetic.multiply(scale, self.part(block, Part::Queries), keys_of, block.area(scores))?;
        arithmetic.softmax(block.scores, scores, out)?;
        Ok((scores, out))
    }

    /// The row, column, rows and distance of heads of a part.
    fn place(&self, block: &Block, part: Part) -> (usize, usize, usize) {
        let blueprint = &self.run.decoder.blueprint;
        let (size, query, kv) = (blueprint.head_dim, blueprint.query_width(), blueprint.kv_width());
        let shared = blueprint.heads / blueprint.kv_heads;
        let (row, column, step) = match part {
            Part::Queries => (block.rows[0], block.head * size, shared * size),
            Part::Keys => (block.rows[1], query, size),
            Part::Values => (block.rows[1], query + kv, size),
        };
        let rows = if matches!(part, Part::Queries) { block.scores.queries } else { block.scores.keys };
        (row * self.width() + column, rows, step)
    }

    fn part(&self, block: &Block, part: Part) -> Matrix<'a> {
        let (start, rows, step) = self.place(block, part);
        Matrix::new(self.qkv.skip(start), rows, self.run.decoder.blueprint.head_dim, self.width()).every(step)
    }

    fn gradient<'g>(&self, block: &Block, part: Part, gradients: View<'g, f32>) -> Output<'g> {
        let (start, _, step) = self.place(block, part);
        Output::add(gradients.skip(start), self.width()).every(step, block.scores.products)
    }

    /// Where the outputs of a block begin, the distance of rows, and that of heads.
    fn output_place(&self, block: &Block) -> (usize, usize, usize) {
        let blueprint = &self.run.decoder.blueprint;
        let (size, stride) = (blueprint.head_dim, blueprint.query_width());
        (block.rows[0] * stride + block.head * size, stride, blueprint.heads / blueprint.kv_heads * size)
    }

    fn outputs<'o>(&self, block: &Block, out: View<'o, f32>) -> Output<'o> {
        let (start, stride, step) = self.output_place(block);
        Output::set(out.skip(start), stride).every(step, block.scores.products)
    }

    fn output<'o>(&self, block: &Block, output: View<'o, Operand>) -> Matrix<'o> {
        let (start, stride, step) = self.output_place(block);
        Matrix::new(output.skip(start), block.scores.queries, self.run.decoder.blueprint.head_dim, stride).every(step)
    }

    /// Floats per row of queries, keys and values.
    fn width(&self) -> usize {
        let blueprint = &self.run.decoder.blueprint;
        blueprint.query_width() + 2 * blueprint.kv_width()
    }
}

impl Block {
    /// A value for each score.
    fn matrix<'s>(&self, values: View<'s, Operand>) -> Matrix<'s> {
        let Scores { queries, keys, .. } = self.scores;
        Matrix::new(values, queries, keys, keys).every(queries * keys)
    }

    /// A list for all scores.
    fn area<'s>(&self, scores: View<'s, f32>) -> Output<'s> {
        let Scores { products, queries, keys, .. } = self.scores;
        Output::set(scores, keys).every(queries * keys, products)
    }
}
