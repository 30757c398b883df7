//! How long each system takes for the same prompts, one at a time, by turns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Contest, Entrant, EvalError, RunFolder};
use crate::data::complete;

/// One prompt, answered once by every system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The item.
    pub id: String,
    /// The round, from 0.
    pub round: usize,
    /// Seconds from the request to its end, by system.
    pub seconds: BTreeMap<String, f64>,
    /// Tokens of the answer, by system.
    pub tokens: BTreeMap<String, usize>,
}

impl Contest {
    /// Measure `prompts` items, spread over all of them, in some rounds: for each prompt the systems answer one after the other,
    /// and nothing else is asked of the models meanwhile. The first round is not counted; it warms up. Nothing is done where a
    /// measurement is there.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn times(
        &self,
        entrants: &[Entrant],
        folder: &RunFolder,
        prompts: usize,
        rounds: usize,
    ) -> Result<(), EvalError> {
        if folder.file("times.jsonl").exists() {
            return Ok(());
        }
        let step = self.records.len().div_ceil(prompts.max(1)).max(1);
        let mut rows = String::new();
        for round in 0..=rounds {
            for row in (0..self.records.len()).step_by(step) {
                let (mut seconds, mut tokens) = (BTreeMap::new(), BTreeMap::new());
                for entrant in entrants {
                    let done = complete(&entrant.strategy, self.job(row, entrant.system)).await?;
                    seconds.insert(entrant.system.name.to_owned(), done.timings.total);
                    tokens.insert(entrant.system.name.to_owned(), done.usage.completion_tokens);
                }
                if round > 0 {
                    let times = Times { id: self.items[row].id.clone(), round: round - 1, seconds, tokens };
                    rows.push_str(&format!("{}\n", serde_json::to_string(&times)?));
                }
            }
        }
        folder.write("times.jsonl", &rows)
    }
}
