//! Ablation of window and threshold at little more than the cost of one setting.
//!
//! The draft and the base's scores do not depend on the rule, so both are computed once per item.
//! Cells of the grid that switch at the same token share the base's continuation.

use std::collections::BTreeSet;

use serde::Serialize;
use wsd_core::{MAX_DRAFT_TOKENS, Result, Rule, Seat};

use super::{EvalError, Evaluation, RunFolder};
use crate::data::RowSettings;
use crate::data::in_order;
use crate::three_pass::{Continuation, DraftRun};

/// Windows and thresholds to try, in all combinations.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Window lengths, in tokens.
    pub windows: Vec<usize>,
    /// Thresholds for the geometric mean of the probabilities in the window, in (0, 1].
    pub thresholds: Vec<f64>,
}

impl Default for Grid {
    /// Windows of 1 to 12 tokens, thresholds from 0.5 to 0.95 in steps of 0.05.
    fn default() -> Self {
        Self { windows: (1..=12).collect(), thresholds: (10..20).map(|step| f64::from(step) / 20.0).collect() }
    }
}

impl Grid {
    /// Returns the rule of every cell, in row-major order: window by window.
    ///
    /// # Errors
    /// [`wsd_core::Error::Setting`] for a window or threshold out of range.
    ///
    /// ```
    /// use wsd_lab::eval::Grid;
    /// let grid = Grid { windows: vec![4, 6], thresholds: vec![0.7, 0.8, 0.9] };
    /// assert_eq!(grid.rules()?.len(), 6);
    /// # Ok::<(), wsd_core::Error>(())
    /// ```
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let cells = self.windows.iter().flat_map(|&window| self.thresholds.iter().map(move |&p| (window, p)));
        cells.map(|(window, threshold)| Rule::parse(window, threshold)).collect()
    }
}

#[derive(Serialize)]
struct Row<'a> {
    output: String,
    wsd: RowSettings<'a>,
    /// Number of tokens kept in each cell, in row-major order.
    kept: Vec<usize>,
    #[serde(rename = "branches")]
    continuations: Vec<Continuation>,
    drafted: usize,
}

impl Evaluation {
    /// Answers every item in every cell of a grid. `on_row` is called after each row, with the
    /// error if the row failed.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn ablation(
        &self,
        grid: &Grid,
        folder: &RunFolder,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let (Some(base), Some(draft)) = (self.models.get(Seat::BASE), self.models.get(Seat::DRAFT)) else {
            return Err(EvalError::NoPair);
        };
        let rules = grid.rules()?;
        let mut journal = self.journal(&folder.file("ablation.jsonl"), self.settings.clone())?;
        let max_draft_tokens = self.values.get(&MAX_DRAFT_TOKENS);
        let work = async |row: usize| {
            let job = self.job(row, &[]);
            let run = DraftRun::generate(draft.as_ref(), base.as_ref(), &job, max_draft_tokens).await?;
            let kept: Vec<_> = rules.iter().map(|&rule| run.kept(rule)).collect();
            let mut continuations = Vec::new();
            for kept in kept.iter().copied().collect::<BTreeSet<_>>() {
                continuations.push(run.continuation(kept, &self.models, base.as_ref(), &job).await?);
            }
            let (output, drafted) = (run.text(base.as_ref(), run.drafted())?, run.drafted());
            Ok(Row { output, wsd: RowSettings { settings: &self.settings }, kept, continuations, drafted })
        };
        in_order(&self.records, &mut journal, self.parallel, work, on_row).await?;
        Ok(journal.close()?)
    }
}
