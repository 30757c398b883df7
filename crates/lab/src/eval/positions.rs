//! How likely the base finds well-behaved answers, token by token, and how likely its own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wsd_core::{Engine, Job, Models, Options, Prompt, Recipe, Role, Sampling};

use super::{Contest, EvalError, RunFolder};
use crate::data::{complete, in_order};
use crate::world::Task;

/// Tokens of each answer that are looked at.
const TOKENS: usize = 64;

/// The base's natural log-probabilities of the tokens of three answers to one prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Positions {
    /// Of the well-behaved answer that the item came with.
    pub reference: Vec<f64>,
    /// Of what the pilot answers.
    pub pilot: Vec<f64>,
    /// Of what the base itself answers, sampled at temperature 1.
    pub own: Vec<f64>,
}

#[derive(Serialize)]
struct Row<'a> {
    output: String,
    wsd: Made<'a>,
    positions: Positions,
}

#[derive(Serialize)]
pub(super) struct Made<'a> {
    pub(super) settings: &'a Map<String, Value>,
}

impl Contest {
    /// Look at the answers to every item of the three tasks that alignment is about.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn positions(
        &self,
        folder: &RunFolder,
        told: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let base = self.models.get(Role::Base).ok_or(EvalError::NoPair)?;
        let mut journal = self.journal(&folder.file("positions.jsonl"), self.settings.clone())?;
        let work = async |row: usize| {
            let item = &self.items[row];
            if !matches!(item.task, Task::Helpful | Task::Harmless | Task::Honest) {
                let (output, positions) = (String::new(), Positions::default());
                return Ok(Row { output, wsd: Made { settings: &self.settings }, positions });
            }
            let job = Job { max_tokens: TOKENS, ..self.job(row, &super::SYSTEMS[0]) };
            let own = Job { sampling: Sampling { temperature: 1.0, ..job.sampling }, ..job.clone() };
            let (own, pilot) =
                (answer(&self.models, "base", own).await?, answer(&self.models, "draft", job.clone()).await?);
            let positions = Positions {
                reference: likelihoods(base.as_ref(), &job.prompt, &item.reference).await?,
                pilot: likelihoods(base.as_ref(), &job.prompt, &pilot.text).await?,
                own: own.tokens.iter().filter_map(|token| token.logprob).collect(),
            };
            Ok(Row { output: own.text, wsd: Made { settings: &self.settings }, positions })
        };
        in_order(&self.records, &mut journal, self.parallel, work, told).await?;
        Ok(journal.close()?)
    }
}

async fn answer(models: &Models, recipe: &str, job: Job) -> wsd_core::Result<wsd_core::Completion> {
    complete(&Recipe::find(recipe)?.build(models, Options::default())?, job).await
}

/// The base's log-probabilities of the first tokens of a text after a prompt.
async fn likelihoods(base: &dyn Engine, prompt: &Prompt, text: &str) -> wsd_core::Result<Vec<f64>> {
    let rendered = base.codec().render(prompt)?;
    let mut list = base.codec().encode_after(&rendered, text)?;
    let from = rendered.tokens.iter().zip(&list).take_while(|(a, b)| a == b).count();
    list.truncate((from + TOKENS).min(base.card().max_len));
    if from >= list.len() {
        return Ok(Vec::new());
    }
    base.open(&list).await?.score(from.max(1)).await
}
