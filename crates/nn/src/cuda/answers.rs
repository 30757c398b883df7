//! Answers to questions about logits, read from the device.

use wsd_core::Candidates;

use super::stage::Stage;
use super::storage::CANDIDATE_BYTES;
use crate::error::Result;
use crate::executor::{Answer, Ask};

/// Entries of a row's candidates: sums, and keys with their tokens.
const ENTRIES: usize = CANDIDATE_BYTES / 8;

impl Stage {
    /// The answers to the questions of the last step.
    pub(super) fn read_answers(&self, asks: &[Ask]) -> Result<Vec<Answer>> {
        let mut chosen = vec![[0u32; 2]; asks.len()];
        self.scratch.chosen.read(0, &mut chosen)?;
        let wants_candidates = |ask: &Ask| matches!(ask, Ask::Candidates { .. });
        let mut entries = Vec::new();
        if let Some([buffer, _]) = self.scratch.candidates.as_ref().filter(|_| asks.iter().any(wants_candidates)) {
            entries.resize(asks.len() * ENTRIES, [0u32; 2]);
            buffer.read(0, &mut entries)?;
        }
        let answer = |((row, ask), [logprob, token]): ((usize, &Ask), [u32; 2])| {
            let own = entries.chunks_exact(ENTRIES).nth(row).filter(|_| wants_candidates(ask));
            let logprob = f64::from(f32::from_bits(logprob)).min(0.0);
            Answer { token, logprob, candidates: own.map(candidates) }
        };
        Ok(asks.iter().enumerate().zip(chosen).map(answer).collect())
    }

    /// The logits of a row of the last step that answered questions.
    pub(super) fn read_logits(&self, row: usize) -> Result<Vec<f32>> {
        let vocab = self.blueprint.vocab;
        let mut logits = vec![0.0; vocab];
        if let Some(buffer) = &self.scratch.logits {
            buffer.read(4 * row * vocab, &mut logits)?;
        }
        Ok(logits)
    }
}

/// The candidates in the entries of a row.
fn candidates(entries: &[[u32; 2]]) -> Candidates {
    let [log_sum_exp, mass] = entries[0].map(|bits| f64::from(f32::from_bits(bits)));
    let found = entries[1..].iter().filter(|[key, _]| *key != 0);
    Candidates { tokens: found.map(|[key, token]| (*token, value_of(*key))).collect(), log_sum_exp, mass }
}

/// The value of a key of `candidates.cuh`.
fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 0x8000_0000 } else { !key })
}
