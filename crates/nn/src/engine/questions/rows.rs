//! Whole rows of log-probabilities.

use wsd_core::{Row, log_softmax};

use super::Reader;
use crate::engine::list::List;

/// Returns the log-probabilities of all tokens after each position.
pub(in crate::engine) struct Rows;

impl Reader for Rows {
    type Item = Row;

    fn read(&self, _: &List, _: usize, logits: &mut [f32]) -> Option<Row> {
        log_softmax(logits)?;
        Some(logits.to_vec())
    }
}
