//! The paper's analyses (arXiv 2506.07434) of a pair on given prompts: the base's probability of the
//! drafted tokens at every layer, its confidence and perplexity by position, the place of the switch, and
//! answers that it continues after openings of growing length.

mod summary;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wsd_core::{ChatRole, Engine, Job, Message, Models, Prompt, Recipe, Seat, Values};
use wsd_lab::data::{Journal, Record, RowSettings, complete, in_order};
use wsd_lab::three_pass::{Continuation, DraftRun};

pub use summary::{Analysis, Curve, Place, Prefix};

use crate::EvalError;
use crate::journal_rows::{Written, read_rows};
use crate::likelihood::text_logprobs;
use crate::raters::{Rated, Rater};

/// Prompts to analyze.
pub struct Analyzing<'a> {
    /// Models in the seats of draft and base.
    pub models: &'a Models,
    /// Rows of the input.
    pub records: &'a [Record],
    /// One job for each record.
    pub jobs: &'a [Job],
    /// An aligned answer to each prompt of the input, where there is one.
    pub aligned: &'a [Option<String>],
    /// The label of each prompt, such as `harmless`; empty without one.
    pub labels: &'a [String],
    /// The most tokens in a draft.
    pub max_draft_tokens: usize,
    /// Numbers of drafted tokens after which the base continues.
    pub prefixes: &'a [usize],
    /// Number of layers of the base to read out, evenly spread, the last one always; 0 for none.
    pub layers: usize,
    /// Rater of the continued answers.
    pub rater: Arc<dyn Rater>,
    /// Number of prompts at a time.
    pub parallel: usize,
}

/// Measurements of one prompt. Log-probabilities are natural and the base's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Text of the draft.
    pub output: String,
    /// Text of each drafted token in the base's vocabulary.
    pub pieces: Vec<String>,
    /// Log-probabilities of the last `logprobs.len()` drafted tokens.
    pub logprobs: Vec<f64>,
    /// Log-probabilities of the same tokens after some of the layers: number of layers, values.
    pub layers: Vec<(usize, Vec<f64>)>,
    /// Log-probabilities of the tokens of the base's own greedy answer.
    #[serde(rename = "own_logprobs")]
    pub own: Vec<f64>,
    /// Log-probabilities of the tokens of the aligned answer of the input.
    #[serde(rename = "aligned_logprobs")]
    pub aligned: Vec<f64>,
    /// Answers that the base continues after openings of growing length.
    pub prefixes: Vec<Continued>,
}

/// An answer whose opening is the draft's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Continued {
    /// Number of drafted tokens kept, and the whole text.
    #[serde(flatten)]
    pub answer: Continuation,
    /// Score of the rater.
    pub score: Option<f64>,
}

impl Analyzing<'_> {
    /// Measures every prompt that has no row in the journal yet. `on_row` is called after each
    /// row, with the error if the row failed.
    ///
    /// # Errors
    /// [`EvalError`]; [`wsd_core::Error::MissingModel`] inside one without draft or base.
    pub async fn run(
        &self,
        mut journal: Journal,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let (base, draft) = (self.models.require("analyze", Seat::BASE)?, self.models.require("analyze", Seat::DRAFT)?);
        let settings = &journal.settings().clone();
        let work = async |row: usize| {
            let measured = self.measured(row, base.as_ref(), draft.as_ref()).await?;
            Ok(Written { row: measured, wsd: RowSettings { settings } })
        };
        in_order(self.records, &mut journal, self.parallel, work, on_row).await?;
        Ok(journal.close()?)
    }

    async fn measured(&self, row: usize, base: &dyn Engine, draft: &dyn Engine) -> wsd_core::Result<Measured> {
        let job = &self.jobs[row];
        let run = DraftRun::generate(draft, base, job, self.max_draft_tokens).await?;
        let aligned = match &self.aligned[row] {
            Some(text) => text_logprobs(base, &job.prompt, text).await?,
            None => Vec::new(),
        };
        let own = complete(&Recipe::find("base")?.build(self.models, &Values::default())?, job.clone()).await?;
        let (list, drafted) = run.opening(run.drafted());
        let mut detokenizer = base.codec().detokenizer(&list[..list.len() - drafted.len()]);
        let mut measured = Measured {
            output: run.text(base, run.drafted())?,
            pieces: drafted.iter().map(|&token| detokenizer.push(token)).collect::<wsd_core::Result<_>>()?,
            logprobs: run.logprobs().to_vec(),
            own: own.tokens.iter().filter_map(|token| token.logprob).collect(),
            aligned,
            ..Measured::default()
        };
        if let (Some(all), 1.., false) = (base.layers(), self.layers, run.logprobs().is_empty()) {
            let mut session = base.open(&list).await?;
            for layers in spread(all, self.layers) {
                let values = session.score_after(list.len() - run.logprobs().len(), layers).await?;
                measured.layers.push((layers, values));
            }
        }
        for &kept in self.prefixes.iter().filter(|&&kept| kept <= run.drafted()) {
            let answer = run.continuation(kept, self.models, base, job).await?;
            let score = self.score(job, &self.labels[row], &answer.output).await?;
            measured.prefixes.push(Continued { answer, score });
        }
        Ok(measured)
    }

    async fn score(&self, job: &Job, label: &str, answer: &str) -> wsd_core::Result<Option<f64>> {
        let conversation = match &job.prompt {
            Prompt::Chat(messages) | Prompt::ChatWith(messages, _) => messages.clone(),
            Prompt::Raw(text) => vec![Message::new(ChatRole::User, text)],
            Prompt::Tokens(_) => Vec::new(),
        };
        let rated = Rated { conversation: &conversation, answer, label, finish_reason: None };
        Ok(self.rater.rate(&rated).await?.score)
    }
}

/// `count` numbers from 0 to `last`, evenly spread, `last` included.
fn spread(last: usize, count: usize) -> Vec<usize> {
    if count <= 1 {
        return vec![last];
    }
    let steps = count.min(last + 1).saturating_sub(1).max(1);
    let mut numbers: Vec<_> = (0..=steps).map(|step| step * last / steps).collect();
    numbers.dedup();
    numbers
}

/// Reads the rows of a file; `None` for a row that failed.
///
/// # Errors
/// I/O errors; [`EvalError::Sample`] for a row that is no measurement.
pub fn read_measured(path: &Path) -> Result<Vec<Option<Measured>>, EvalError> {
    read_rows(path)
}
