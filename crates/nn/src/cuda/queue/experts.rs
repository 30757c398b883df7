//! The launches of a mixture of experts.

use super::super::args::{ExpertsArgs, GatherArgs, LinearArgs, MatrixArgs, NormArgs, RouteArgs};
use super::super::matrix::{self, padded};
use super::super::model::{Mixture, Stack};
use super::super::program::{self, Epilogue};
use super::{Queue, Sum, address};
use crate::error::Result;

impl<L: Fn(usize) -> u64> Queue<'_, L> {
    /// Computes the outputs of the experts that each row of `scratch.x` passes.
    pub(super) fn mix(&self, mixture: &Mixture) -> Result<()> {
        let (blueprint, scratch) = (&self.stage.blueprint, &self.stage.scratch);
        let (Some(plan), Some(buffers)) = (blueprint.experts, &scratch.experts) else { return Ok(()) };
        // Group sizes are those of the kernel with fewer rows.
        let of = |stack: &Stack| program::rows_at_once(stack.matrix.format, self.rows);
        let most = of(&mixture.gates).min(of(&mixture.down));
        let groups = program::most_groups(self.rows, &plan, most);
        self.route(mixture, (most, groups))?;
        let [x, gathered] = [&scratch.x, &buffers.gathered].map(|buffer| buffer.at(0));
        // The choices of one row need no copies of it.
        let is_shared = self.rows == 1;
        if !is_shared {
            let (width, stride) = (blueprint.hidden as i32, padded(blueprint.hidden) as i32);
            let args = GatherArgs { x, out: gathered, place: buffers.place.at(0), width, stride };
            self.launch_experts(|gpu, kernels| gpu.launch(kernels.gather, [plan.used, self.rows, 1], &args))?;
        }
        let gates = LinearArgs {
            x: if is_shared { x } else { gathered },
            narrowed: scratch.gated.at(0),
            stride_narrowed: padded(blueprint.ffn) as i32,
            ..LinearArgs::default()
        };
        let gates = ExpertsArgs { linear: gates, is_shared: i32::from(is_shared), ..ExpertsArgs::default() };
        self.apply_experts(&mixture.gates, Epilogue::Gate, (most, groups), gates)?;
        let down = LinearArgs {
            x: scratch.gated.at(0),
            out: buffers.written.at(0),
            stride: blueprint.hidden as i32,
            ..LinearArgs::default()
        };
        let down = ExpertsArgs { linear: down, ..ExpertsArgs::default() };
        self.apply_experts(&mixture.down, Epilogue::Out, (most, groups), down)
    }

    /// Chooses the experts of each row and arranges the choices in groups of at most `most`.
    fn route(&self, mixture: &Mixture, (most, groups): (usize, usize)) -> Result<()> {
        let scratch = &self.stage.scratch;
        let Some(buffers) = &scratch.experts else { return Ok(()) };
        let input = LinearArgs { x: scratch.x.at(0), ..LinearArgs::default() };
        let bias = self.wide(&mixture.router, input, mixture.router.outputs)?;
        let args = RouteArgs {
            ratings: scratch.wide.at(0),
            bias,
            place: buffers.place.at(0),
            share: buffers.share.at(0),
            groups: buffers.groups.at(0),
            count: scratch.count.at(0),
            rows: self.rows as i32,
            most: most as i32,
            group_count: groups as i32,
            padding: 0,
        };
        self.launch_experts(|gpu, kernels| gpu.launch(kernels.route, [self.rows.div_ceil(8), 1, 1], &args))
    }

    /// Applies the linear layer of each group's expert.
    fn apply_experts(
        &self,
        stack: &Stack,
        epilogue: Epilogue,
        (most, groups): (usize, usize),
        args: ExpertsArgs,
    ) -> Result<()> {
        let Some(buffers) = &self.stage.scratch.experts else { return Ok(()) };
        let matrix = MatrixArgs { outputs: stack.outputs as i32, ..stack.matrix.args() };
        let linear = LinearArgs { matrix, bias: address(stack.bias.as_ref()), ..args.linear };
        let args = ExpertsArgs { linear, groups: buffers.groups.at(0), stored: stack.stored as i32, ..args };
        let grid = [stack.outputs.div_ceil(matrix::TILE), groups, 1];
        self.launch_experts(|gpu, kernels| {
            gpu.launch(kernels.linear(stack.matrix.format, epilogue, most)?, grid, &args)
        })
    }

    /// Adds the weighted outputs of experts to the residual stream and writes the input of the next
    /// norm.
    pub(super) fn add_mixture(&self, sum: &Sum<'_>) -> Result<()> {
        let Some(buffers) = &self.stage.scratch.experts else { return Ok(()) };
        let [added, place, share] = [&buffers.written, &buffers.place, &buffers.share].map(|buffer| buffer.at(0));
        self.sum(NormArgs { added, place, share, ..self.norm(sum.next) }, sum)
    }
}
