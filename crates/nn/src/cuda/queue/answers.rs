//! The launches that answer questions about logits.

use super::super::args::{CandidatesArgs, ChooseArgs};
use super::super::stage::Stage;
use super::super::step::Asked;
use super::super::storage::{CANDIDATE_BYTES, CHOOSE_BLOCKS};
use super::{ASK, HEAT, Queue};
use crate::arch::Head;
use crate::error::Result;

impl<L: Fn(usize) -> u64> Queue<'_, L> {
    /// Answers the questions about the first `count` rows.
    pub(super) fn choose(&self, count: usize) -> Result<()> {
        let Stage { blueprint, kernels, scratch, gpu, weights, .. } = self.stage;
        let Some(logits) = &scratch.logits else { return Ok(()) };
        let Some(head) = weights.heads.iter().position(|(head, _)| *head == Head::VOCABULARY) else { return Ok(()) };
        self.stage.project_on_device(head, count, logits.at(0))?;
        let [out, parts] = scratch.candidates.as_ref().map_or([0, 0], |both| [both[0].at(0), both[1].at(0)]);
        let args = ChooseArgs {
            logits: logits.at(0),
            ask: (self.list)(ASK),
            heat: (self.list)(HEAT),
            partial: scratch.chosen_parts.at(0),
            count: scratch.count.at(0),
            out: scratch.chosen.at(0),
            sums: out,
            width: blueprint.vocab as i32,
            stride: blueprint.vocab as i32,
            sums_stride: (CANDIDATE_BYTES / 8) as i32,
            padding: 0,
        };
        gpu.launch(kernels.choose, [CHOOSE_BLOCKS, count, 1], &args)?;
        if self.input.asked() != Asked::Candidates {
            return Ok(());
        }
        let ChooseArgs { logits, ask, count: counter, width, stride, .. } = args;
        let args = CandidatesArgs { logits, ask, parts, out, count: counter, width, stride };
        gpu.launch(kernels.find_candidates, [CHOOSE_BLOCKS, count, 1], &args)
    }
}
