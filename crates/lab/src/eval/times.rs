//! Response times of all systems on the same prompts, interleaved and one request at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Candidate, EvalError, Evaluation, RunFolder};
use crate::data::complete;

/// The file of response times in a run folder.
pub const TIMES: &str = "times.jsonl";

/// Times of one prompt answered once by every system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Identifier of the item.
    pub id: String,
    /// Number of the round, from 0.
    pub round: usize,
    /// Seconds from the request to the end of the answer, by system.
    pub seconds: BTreeMap<String, f64>,
    /// Number of tokens in the answer, by system.
    pub tokens: BTreeMap<String, usize>,
}

impl Evaluation {
    /// Measures `prompts` evenly spaced items in `rounds` rounds after one warm-up round. For each
    /// prompt the systems answer one after the other, with no other request running. Does nothing
    /// if the folder already holds times.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn times(
        &self,
        candidates: &[Candidate],
        folder: &RunFolder,
        prompts: usize,
        rounds: usize,
    ) -> Result<(), EvalError> {
        if folder.file(TIMES).exists() {
            return Ok(());
        }
        let step = self.records.len().div_ceil(prompts.max(1)).max(1);
        let mut rows = String::new();
        for round in 0..=rounds {
            for row in (0..self.records.len()).step_by(step) {
                let (mut seconds, mut tokens) = (BTreeMap::new(), BTreeMap::new());
                for candidate in candidates {
                    let done = complete(&candidate.strategy, self.job_of(row, candidate.system)).await?;
                    seconds.insert(candidate.system.name.to_owned(), done.timings.total);
                    tokens.insert(candidate.system.name.to_owned(), done.usage.completion_tokens);
                }
                if round > 0 {
                    let times = Times { id: self.items[row].id.clone(), round: round - 1, seconds, tokens };
                    rows.push_str(&format!("{}\n", serde_json::to_string(&times)?));
                }
            }
        }
        folder.write(TIMES, &rows)
    }
}
