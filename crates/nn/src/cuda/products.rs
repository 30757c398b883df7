//! Linear layers and output heads.

use super::args::{FinishArgs, LinearArgs, NarrowArgs, WidenArgs};
use super::driver::Product;
use super::matrix::{self, padded};
use super::model::Linear;
use super::program::Epilogue;
use super::stage::Stage;
use crate::arch::Head;
use crate::error::Result;

/// Rows up to which block formats are read in several passes rather than widened.
const PASS_ROWS: usize = 64;

impl Stage {
    /// A linear layer of this many rows reads its weights by this crate's kernels.
    pub(super) fn is_few(&self, linear: &Linear, rows: usize) -> bool {
        rows <= linear.most_rows()
    }

    /// Applies a linear layer to few rows with a last step.
    pub(super) fn apply(&self, linear: &Linear, epilogue: Epilogue, args: LinearArgs, rows: usize) -> Result<()> {
        for part in &linear.parts {
            let matrix = &part.matrix;
            let kernel = self.kernels.linear(matrix.format, epilogue, rows)?;
            let bias = linear.bias.as_ref().map_or(0, |bias| bias.at(4 * part.first));
            // Whole tiles are counted; other outputs are reached by their address.
            let is_tiled = part.first.is_multiple_of(matrix::TILE);
            let args = LinearArgs {
                matrix: matrix.args(),
                bias,
                rows: rows as i32,
                first_tile: if is_tiled { (part.first / matrix::TILE) as i32 } else { 0 },
                out: if is_tiled { args.out } else { args.out + 4 * part.first as u64 },
                ..args
            };
            self.gpu.launch(kernel, [matrix.outputs.div_ceil(matrix::TILE), 1, 1], &args)?;
        }
        Ok(())
    }

    /// Writes a linear layer's output as floats to `args.out`. Returns true if bias, factor and
    /// soft cap are applied.
    pub(super) fn product(&self, linear: &Linear, args: LinearArgs, rows: usize) -> Result<bool> {
        let most = linear.most_rows().max(1);
        let is_block = linear.parts.iter().any(|part| part.matrix.format.block_values() > 1);
        if rows <= most || (is_block && rows <= PASS_ROWS && args.sums == 0) {
            for first in (0..rows).step_by(most) {
                let args = LinearArgs {
                    x: args.x + (first * linear.inputs * self.types.value_bytes()) as u64,
                    out: args.out + 4 * (first * args.stride as usize) as u64,
                    ..args
                };
                self.apply(linear, Epilogue::Out, args, most.min(rows - first))?;
            }
            return Ok(true);
        }
        for part in &linear.parts {
            let matrix = &part.matrix;
            let (mut first, mut w) = (0, matrix.args().low);
            while first < matrix.outputs {
                let mut outputs = matrix.outputs - first;
                if matrix.format.block_values() > 1 {
                    let Some(panel) = &self.scratch.panel else { return Ok(false) };
                    let most = panel.bytes() / self.types.value_bytes() / matrix.inputs;
                    outputs = outputs.min(most / matrix::TILE * matrix::TILE);
                    let panel = panel.at(0);
                    let (first, rows) = (first as i32, outputs as i32);
                    let widen = WidenArgs { matrix: matrix.args(), out: panel, first, rows };
                    let grid = [(matrix.inputs / matrix::CHUNK).div_ceil(8), outputs.div_ceil(matrix::TILE), 1];
                    self.gpu.launch(self.kernels.widen(matrix.format)?, grid, &widen)?;
                    w = panel;
                }
                self.gpu.product(&Product {
                    w,
                    x: args.x,
                    out: args.out + 4 * (part.first + first) as u64,
                    outputs,
                    rows,
                    inputs: matrix.inputs,
                    stride: args.stride as usize,
                    format: self.types.compute,
                })?;
                first += outputs;
            }
        }
        Ok(false)
    }

    /// Applies a head to hidden states of the host, at most as many as the buffers hold rows of logits
    /// for.
    pub(super) fn project_rows(&mut self, head: usize, hidden: &[f32], out: &mut [f32]) -> Result<()> {
        let width = self.blueprint.hidden;
        let rows = hidden.len() / width;
        self.make_scratch(rows, 0)?;
        self.make_logits(size_of_val(out))?;
        let Some(logits) = &self.scratch.logits else { return Ok(()) };
        self.scratch.hidden.write(0, hidden)?;
        let (input, out_of_it) = (self.scratch.hidden.at(0), self.scratch.x.at(0));
        let narrow = NarrowArgs { input, out: out_of_it, width: width as i32, stride: padded(width) as i32 };
        self.gpu.launch(self.kernels.narrow_rows, [rows, 1, 1], &narrow)?;
        self.project_on_device(head, rows, logits.at(0))?;
        logits.read(0, out)
    }

    /// Applies a head to the first rows of `scratch.x`.
    pub(super) fn project_on_device(&self, head: usize, rows: usize, out: u64) -> Result<()> {
        let (head, linear) = &self.weights.heads[head];
        let is_vocabulary = *head == Head::VOCABULARY;
        let cap = self.blueprint.final_softcap.filter(|_| is_vocabulary).unwrap_or(0.0);
        let factor = Some(self.blueprint.logit_scale).filter(|scale| is_vocabulary && *scale != 1.0).unwrap_or(0.0);
        let x = self.scratch.x.at(0);
        let args = LinearArgs { x, out, stride: linear.outputs as i32, cap, factor, ..LinearArgs::default() };
        let is_finished = self.product(linear, args, rows)?;
        let bias = linear.bias.as_ref().map_or(0, |bias| bias.at(0));
        if is_finished || (bias == 0 && cap == 0.0 && factor == 0.0) {
            return Ok(());
        }
        let finish = FinishArgs { x: out, bias, width: linear.outputs as i32, cap, factor, padding: 0 };
        self.gpu.launch(self.kernels.finish, [linear.outputs.div_ceil(256), rows, 1], &finish)
    }
}
