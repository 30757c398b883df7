//! The base's log-probabilities of aligned answers, the pilot's answers and its own samples, by
//! token position.

use serde::{Deserialize, Serialize};
use wsd_core::{Engine, Job, Models, Prompt, Recipe, Seat, Values, common_prefix};

use super::{EvalError, Evaluation, RunFolder};
use crate::data::RowSettings;
use crate::data::{complete, in_order};
use crate::world::Task;

/// Number of leading tokens scored in each answer.
const TOKENS: usize = 64;

/// The base's natural log-probabilities of the tokens of three answers to one prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Positions {
    /// Log-probabilities of the item's aligned reference answer.
    pub reference: Vec<f64>,
    /// Log-probabilities of the pilot's answer.
    pub pilot: Vec<f64>,
    /// Log-probabilities of the base's own answer, sampled at temperature 1.
    pub own: Vec<f64>,
}

#[derive(Serialize)]
struct Row<'a> {
    output: String,
    wsd: RowSettings<'a>,
    positions: Positions,
}

impl Evaluation {
    /// Scores three answers to every item of the helpful, harmless and honest tasks. `on_row` is
    /// called after each row, with the error if the row failed.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn positions(
        &self,
        folder: &RunFolder,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let base = self.models.get(Seat::BASE).ok_or(EvalError::NoPair)?;
        let mut journal = self.journal(&folder.file("positions.jsonl"), self.settings.clone())?;
        let work = async |row: usize| {
            let (item, wsd) = (&self.items[row], RowSettings { settings: &self.settings });
            if !matches!(item.task, Task::Helpful | Task::Harmless | Task::Honest) {
                return Ok(Row { output: String::new(), wsd, positions: Positions::default() });
            }
            let mut job = self.job(row, &[]);
            job.terms.max_tokens = TOKENS;
            let mut own = job.clone();
            own.terms.sampling.temperature = 1.0;
            let own = answer(&self.models, "base", own).await?;
            let pilot = answer(&self.models, "draft", job.clone()).await?;
            let positions = Positions {
                reference: log_probabilities(base.as_ref(), &job.prompt, &item.reference).await?,
                pilot: log_probabilities(base.as_ref(), &job.prompt, &pilot.text).await?,
                own: own.tokens.iter().filter_map(|token| token.logprob).collect(),
            };
            Ok(Row { output: own.text, wsd, positions })
        };
        in_order(&self.records, &mut journal, self.parallel, work, on_row).await?;
        Ok(journal.close()?)
    }
}

async fn answer(models: &Models, recipe: &str, job: Job) -> wsd_core::Result<wsd_core::Completion> {
    complete(&Recipe::find(recipe)?.build(models, &Values::default())?, job).await
}

/// The base's log-probabilities of the first [`TOKENS`] tokens of a text after a prompt.
async fn log_probabilities(base: &dyn Engine, prompt: &Prompt, text: &str) -> wsd_core::Result<Vec<f64>> {
    let rendered = base.codec().render(prompt)?;
    let mut list = base.codec().encode_after(&rendered, text)?;
    let from = common_prefix(&rendered.tokens, &list);
    list.truncate((from + TOKENS).min(base.card().max_len));
    if from >= list.len() {
        return Ok(Vec::new());
    }
    base.open(&list).await?.score(from.max(1)).await
}
