//! The step that scores answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use wsd_eval::raters::{Rated, Rater};
use wsd_lab::data::{Journal, Record, RowSettings, in_order};

use crate::{Answer, AnswerRow, DataError};

/// Raters by name.
pub type NamedRaters = Vec<(&'static str, Arc<dyn Rater>)>;

/// Answers to score.
pub struct Scoring<'a> {
    /// The answers.
    pub rows: &'a [AnswerRow],
    /// The raters, which all rate each answer.
    pub raters: NamedRaters,
    /// Number of answers rated at a time.
    pub parallel: usize,
}

/// Fields added to a scored row.
#[derive(Serialize)]
struct Scored<'a> {
    output: &'a str,
    scores: BTreeMap<String, f64>,
    /// Texts of raters that write.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    replies: BTreeMap<&'static str, String>,
    wsd: RowSettings<'a>,
}

/// Counts of rows of which something is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Rows that failed; each holds its error.
    pub failed: usize,
    /// Ratings of this call without a mark.
    pub unmarked: usize,
}

/// Opens or creates the file at `path` for the scores of `rows`; rows that it has are kept.
///
/// # Errors
/// [`DataError::Journal`] for scores of other answers or with other settings.
pub fn open(rows: &[AnswerRow], path: &Path, settings: Map<String, Value>) -> Result<Journal, DataError> {
    Ok(Journal::open(path, &records(rows)?, settings)?)
}

/// Counts the scored rows in the file at `path`, which may be missing and then is not created.
///
/// # Errors
/// Those of [`open`].
pub fn check(rows: &[AnswerRow], path: &Path, settings: &Map<String, Value>) -> Result<usize, DataError> {
    Ok(Journal::check(path, &records(rows)?, settings)?)
}

impl Scoring<'_> {
    /// Rates every answer that has no row in the journal, which [`open`] has opened. A row has the scores
    /// of earlier raters too. `on_row` is called after each row, with the error if it failed.
    ///
    /// # Errors
    /// [`DataError`]; an engine's error is written into its row instead.
    pub async fn run(
        &self,
        mut journal: Journal,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<Missing, DataError> {
        let records = records(self.rows)?;
        let settings = &journal.settings().clone();
        let unmarked = std::sync::atomic::AtomicUsize::new(0);
        let work = async |row: usize| {
            let scored = self.scored(&self.rows[row], settings).await?;
            let rated = self.raters.iter().filter(|(name, _)| scored.scores.contains_key(*name)).count();
            unmarked.fetch_add(self.raters.len() - rated, std::sync::atomic::Ordering::Relaxed);
            Ok(scored)
        };
        in_order(&records, &mut journal, self.parallel, work, on_row).await?;
        let failed = journal.failed();
        journal.close()?;
        Ok(Missing { failed, unmarked: unmarked.into_inner() })
    }

    async fn scored<'a>(&self, row: &'a AnswerRow, settings: &'a Map<String, Value>) -> wsd_core::Result<Scored<'a>> {
        let Answer { output, finish_reason, scores, .. } = &row.answer;
        let (mut scores, mut replies) = (scores.clone(), BTreeMap::new());
        let (conversation, label, finish_reason) = (&row.prompt.messages[..], &row.prompt.label, *finish_reason);
        for (name, rater) in &self.raters {
            let rating = rater.rate(&Rated { conversation, answer: output, label, finish_reason }).await?;
            scores.remove(*name);
            scores.extend(rating.score.map(|score| ((*name).to_owned(), score)));
            if !rating.reply.is_empty() {
                replies.insert(*name, rating.reply);
            }
        }
        Ok(Scored { output, scores, replies, wsd: RowSettings { settings } })
    }
}

/// The rows of answers up to their texts.
fn records(rows: &[AnswerRow]) -> Result<Vec<Record>, DataError> {
    rows.iter().map(record).collect()
}

/// The row of an answer up to its text.
fn record(row: &AnswerRow) -> Result<Record, DataError> {
    let mut value = serde_json::to_value(row)?;
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("output");
        fields.shift_remove("scores");
    }
    Record::parse(&value.to_string()).map_err(|source| DataError::Prompt { id: row.prompt.id.clone(), source })
}
