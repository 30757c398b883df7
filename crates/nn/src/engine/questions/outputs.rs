//! Outputs of heads.

use super::hidden::finite;
use super::{Output, Reader};
use crate::arch::Head;
use crate::engine::list::List;

/// Returns the output of a head at each position.
pub(in crate::engine) struct Outputs {
    pub(in crate::engine) head: Head,
}

impl Reader for Outputs {
    type Item = Vec<f32>;

    fn output(&self) -> Output {
        Output::Head(self.head)
    }

    fn read(&self, _: &List, _: usize, outputs: &mut [f32]) -> Option<Vec<f32>> {
        finite(outputs)
    }
}
