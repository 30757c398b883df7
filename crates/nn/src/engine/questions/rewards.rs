//! Outputs of the reward head.

use super::hidden::finite;
use super::{Output, Reader};
use crate::arch::Head;
use crate::engine::list::List;

/// Returns the reward head's output at each position.
pub(in crate::engine) struct Rewards;

impl Reader for Rewards {
    type Item = Vec<f32>;

    fn output(&self) -> Output {
        Output::Head(Head::Reward)
    }

    fn read(&self, _: &List, _: usize, rewards: &mut [f32]) -> Option<Vec<f32>> {
        finite(rewards)
    }
}
