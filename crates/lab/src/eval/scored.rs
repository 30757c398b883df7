//! Scored drafts: at each position of a draft, the features of the learned switch, and the grade of the answer
//! with the base taking over there. `wsd train switch` learns from them.

use serde::Serialize;
use wsd_core::{ALTERNATIVES, FeatureWindow, Features, Rule, Seat};

use super::{EvalError, Evaluation, RunFolder};
use crate::data::RowSettings;
use crate::data::in_order;
use crate::three_pass::DraftRun;

/// Number of drafted tokens whose positions are tried.
const TOKENS: usize = 32;

/// A position of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Position {
    #[serde(flatten)]
    features: Features,
    /// True if the answer passes with the base taking over there.
    good: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    output: String,
    wsd: RowSettings<'a>,
    positions: Vec<Position>,
}

impl Evaluation {
    /// Writes the scored draft of every item to `switch.jsonl`. `on_row` is called after each row, with the
    /// error if the row failed.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn scored_drafts(
        &self,
        folder: &RunFolder,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let (Some(base), Some(draft)) = (self.models.get(Seat::BASE), self.models.get(Seat::DRAFT)) else {
            return Err(EvalError::NoPair);
        };
        let window = Rule::from_values(&self.values).window();
        let mut journal = self.journal(&folder.file("switch.jsonl"), self.settings.clone())?;
        let work = async |row: usize| {
            let job = self.job(row, &[]);
            let run = DraftRun::generate(draft.as_ref(), base.as_ref(), &job, TOKENS).await?;
            let (list, drafted) = run.opening(run.drafted());
            // A token without a context has no features.
            let from = (list.len() - drafted.len()).max(1);
            let scored = if list.len() > from {
                base.open(&list).await?.score_top(from, ALTERNATIVES).await?
            } else {
                Vec::new()
            };
            let unscored = drafted.len() - scored.len();
            let (mut features, mut positions) = (FeatureWindow::new(window), Vec::new());
            for (at, token) in scored.iter().enumerate() {
                let logprob = token.logprob.unwrap_or(f64::NEG_INFINITY);
                let Some(features) = features.push(token.token, logprob, &token.top) else { continue };
                let answer = run.continuation(unscored + at + 1, &self.models, base.as_ref(), &job).await?;
                positions.push(Position { features, good: self.items[row].grade(&answer.output).pass });
            }
            let output = run.text(base.as_ref(), run.drafted())?;
            Ok(Row { output, wsd: RowSettings { settings: &self.settings }, positions })
        };
        in_order(&self.records, &mut journal, self.parallel, work, on_row).await?;
        Ok(journal.close()?)
    }
}
