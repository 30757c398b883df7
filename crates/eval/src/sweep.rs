//! Window and threshold over given prompts: each prompt is drafted and scored once, and every cell of a
//! grid is a pure function of the log-probabilities.

mod cells;

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wsd_core::{Engine, Job, Models, Recipe, Rule, Seat, Values, splitmix64};
use wsd_lab::data::{Journal, Record, RowSettings, complete, in_order};
use wsd_lab::three_pass::{Continuation, DraftRun};

pub use cells::{Cell, Sweep};

use crate::EvalError;
use crate::journal_rows::{Written, read_rows};
use crate::likelihood::text_logprobs;

/// A drafted answer with the base's scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Text of the draft.
    pub output: String,
    /// Tokens of the draft in the base's vocabulary.
    pub tokens: Vec<u32>,
    /// The base's natural log-probabilities of the last `logprobs.len()` tokens.
    pub logprobs: Vec<f64>,
    /// Seconds spent on drafting and on scoring.
    pub seconds: [f64; 2],
    /// Answers of the base after as many drafted tokens as a cell keeps, where answers are graded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continuations: Vec<Continuation>,
    /// Texts to compare the draft with, where they were wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrast: Option<Contrast>,
}

/// The base's log-probabilities of two texts besides the draft.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// Log-probabilities of the base's own answer, sampled at temperature 1.
    pub own: Vec<f64>,
    /// Seconds spent on the base's own answer.
    pub own_seconds: f64,
    /// Log-probabilities of the draft's words in random order.
    pub shuffled: Vec<f64>,
}

impl Draft {
    /// Index of the last drafted token that a rule keeps; `None` if its window never passes.
    #[must_use]
    pub fn switch(&self, rule: Rule) -> Option<usize> {
        let unscored = self.tokens.len() - self.logprobs.len().min(self.tokens.len());
        rule.accept_index(&self.logprobs).map(|at| unscored + at)
    }

    /// Number of drafted tokens that a rule keeps.
    #[must_use]
    pub fn kept(&self, rule: Rule) -> usize {
        self.switch(rule).map_or(self.tokens.len(), |at| at + 1)
    }
}

/// Prompts to draft and score.
pub struct Drafting<'a> {
    /// Models in the seats of draft and base.
    pub models: &'a Models,
    /// Rows of the input.
    pub records: &'a [Record],
    /// One job for each record.
    pub jobs: &'a [Job],
    /// The most tokens in a draft, besides the limit of its answer.
    pub max_draft_tokens: usize,
    /// Rules after whose switches the base continues, so that answers can be graded; none to draft only.
    pub continued: &'a [Rule],
    /// True to score the base's own answer and shuffled words too.
    pub contrasted: bool,
    /// Number of prompts at a time.
    pub parallel: usize,
}

impl Drafting<'_> {
    /// Drafts and scores every prompt that has no row in the journal yet. `on_row` is called after
    /// each row, with the error if the row failed.
    ///
    /// # Errors
    /// [`EvalError`]; [`wsd_core::Error::MissingModel`] inside one without draft or base.
    pub async fn run(
        &self,
        mut journal: Journal,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let (base, draft) = (self.models.require("wsd", Seat::BASE)?, self.models.require("wsd", Seat::DRAFT)?);
        let settings = &journal.settings().clone();
        let work = async |row: usize| {
            let job = &self.jobs[row];
            // A draft is part of its answer.
            let most = self.max_draft_tokens.min(job.terms.max_tokens);
            let run = DraftRun::generate(draft.as_ref(), base.as_ref(), job, most).await?;
            let mut continuations = Vec::new();
            let kept: BTreeSet<_> = self.continued.iter().map(|&rule| run.kept(rule)).collect();
            for kept in kept {
                continuations.push(run.continuation(kept, self.models, base.as_ref(), job).await?);
            }
            let output = run.text(base.as_ref(), run.drafted())?;
            let mut contrast = None;
            if self.contrasted {
                contrast = Some(self.contrast(base.as_ref(), job, &output, row as u64).await?);
            }
            let draft = Draft {
                output,
                tokens: run.opening(run.drafted()).1.to_vec(),
                logprobs: run.logprobs().to_vec(),
                seconds: run.seconds(),
                continuations,
                contrast,
            };
            Ok(Written { row: draft, wsd: RowSettings { settings } })
        };
        in_order(self.records, &mut journal, self.parallel, work, on_row).await?;
        Ok(journal.close()?)
    }

    /// Scores the base's own answer and the shuffled words of a draft.
    async fn contrast(&self, base: &dyn Engine, job: &Job, draft: &str, seed: u64) -> wsd_core::Result<Contrast> {
        let mut own = job.clone();
        own.terms.sampling.temperature = 1.0;
        own.terms.max_tokens = self.max_draft_tokens.min(own.terms.max_tokens);
        let strategy = Recipe::find("base")?.build(self.models, &Values::default())?;
        let own = complete(&strategy, own).await?;
        Ok(Contrast {
            own: own.tokens.iter().filter_map(|token| token.logprob).collect(),
            own_seconds: own.timings.writing.get(Seat::BASE),
            shuffled: text_logprobs(base, &job.prompt, &shuffled(draft, seed)).await?,
        })
    }
}

/// The words of a text in an order drawn from a seed, separated by spaces.
fn shuffled(text: &str, seed: u64) -> String {
    let words = text.split_whitespace().enumerate();
    let mut words: Vec<_> = words.map(|(at, word)| (splitmix64(seed ^ splitmix64(at as u64)), word)).collect();
    words.sort_unstable();
    words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

/// Reads the drafts of a file; `None` for a row that failed.
///
/// # Errors
/// I/O errors; [`EvalError::Sample`] for a row that is no draft.
pub fn read_drafts(path: &Path) -> Result<Vec<Option<Draft>>, EvalError> {
    read_rows(path)
}
