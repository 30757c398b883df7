//! Log-probabilities of rows of logits.

use super::args::{LogprobsArgs, LogprobsBackArgs};
use super::{Arithmetic, Operand, View};
use crate::error::Result;

/// Rows of logits and their targets.
#[derive(Clone, Copy)]
pub struct Logits<'a> {
    /// The logits, `(targets, vocabulary)`. They become the log-probabilities of all tokens where
    /// `is_rows`, and else get their soft limit.
    pub values: View<'a, f32>,
    /// The token of each row.
    pub targets: View<'a, i32>,
    /// The logarithm of each row's sum of exponentials.
    pub log_sums: View<'a, f32>,
    /// The log-probabilities of all tokens are wanted, not only those of the targets.
    pub is_rows: bool,
    /// The soft limit of logits.
    pub cap: Option<f32>,
}

impl Arithmetic {
    /// Computes log-probabilities; sets `out` to those of the targets.
    ///
    /// # Errors
    /// Those of the device.
    pub fn logprobs(&self, logits: &Logits<'_>, out: View<'_, f32>) -> Result<()> {
        let rows = logits.targets.len();
        let args = LogprobsArgs {
            logits: logits.values.address(logits.values.len())?,
            target: logits.targets.address(rows)?,
            logprob: out.address(rows)?,
            log_sum: logits.log_sums.address(rows)?,
            width: (logits.values.len() / rows.max(1)) as i32,
            is_rows: i32::from(logits.is_rows),
            cap: logits.cap.unwrap_or(0.0),
            padding: 0,
        };
        self.launch(self.kernels.logprob_rows, [rows, 1], &args)
    }

    /// Sets `out` to the gradient of logits, given that of the log-probabilities that were computed of
    /// them.
    ///
    /// # Errors
    /// Those of the device.
    pub fn logprobs_backward(&self, logits: &Logits<'_>, given: View<'_, f32>, out: View<'_, Operand>) -> Result<()> {
        let (rows, all) = (logits.targets.len(), logits.values.len());
        let args = LogprobsBackArgs {
            logits: logits.values.address(all)?,
            log_sum: logits.log_sums.address(rows)?,
            given: given.address(if logits.is_rows { all } else { rows })?,
            target: logits.targets.address(rows)?,
            out: out.address(all)?,
            width: (all / rows.max(1)) as i32,
            is_rows: i32::from(logits.is_rows),
            cap: logits.cap.unwrap_or(0.0),
            padding: 0,
        };
        self.launch(self.kernels.logprob_rows_backward, [rows, 1], &args)
    }
}
