//! What is measured in a closed world, and by whom: a table of systems, each of which answers the same items.
//!
//! Everything is written into a *run folder* as it is made, row by row, and taken up again after an interruption; the rows do
//! not depend on how often that was, nor on how many were answered at a time. What is concluded from them is
//! [`crate::report`]'s.

mod ablation;
mod folder;
mod positions;
mod times;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use wsd_core::{Job, Message, Models, Options, Prompt, Strategy};

pub use ablation::{Branch, Grid, Trunk};
pub use folder::{Aborted, Manifest, RunFolder};
pub use positions::Positions;
pub use times::Times;

use crate::data::{Answering, Ask, Journal, JournalError, Record, RowsError};
use crate::world::{Item, ItemKind};

/// A way to answer that is measured.
#[derive(Debug)]
pub struct System {
    /// The name in files and on the command line.
    pub name: &'static str,
    /// The name in tables.
    pub title: &'static str,
    /// The strategy that answers.
    pub recipe: &'static str,
    /// Whether constant examples of good answers stand before every conversation (URIAL, Lin et al. 2023).
    pub examples: bool,
    /// Whether the base is the one that was tuned on the pilot's data.
    pub tuned: bool,
}

/// Every system, in the order of the table.
pub static SYSTEMS: &[System] = &[
    System { name: "base", title: "base alone", recipe: "base", examples: false, tuned: false },
    System { name: "in_context", title: "base, in context", recipe: "base", examples: true, tuned: false },
    System { name: "pilot", title: "pilot alone", recipe: "draft", examples: false, tuned: false },
    System { name: "nudging", title: "Nudging", recipe: "nudging", examples: false, tuned: false },
    System { name: "tuned", title: "tuned base", recipe: "base", examples: false, tuned: true },
    System { name: "wsd", title: "WSD", recipe: "wsd", examples: false, tuned: false },
];

impl System {
    /// The system of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SYSTEMS.iter().find(|system| system.name == name)
    }
}

/// What stands above the examples.
const PREAMBLE: &str = "Below are questions from a person and answers from an assistant. The assistant is polite and honest, \
                        says so when it does not know something, and does not help with harm.";

/// The constant examples of in-context alignment: a question answered, a harmful wish refused, and something not known, each the
/// first of its kind among `items`, which must not be those that are measured. Empty where a kind is missing.
#[must_use]
pub fn examples(items: &[Item]) -> Vec<Message> {
    let kinds = [ItemKind::Question, ItemKind::Harmful, ItemKind::Unknown];
    let shown: Option<Vec<_>> = kinds.iter().map(|&kind| items.iter().find(|item| item.kind == kind)).collect();
    let Some(shown) = shown else { return Vec::new() };
    let turns = shown.into_iter().flat_map(|item| {
        item.asked.messages().iter().cloned().chain([Message::new(wsd_core::ChatRole::Assistant, &item.reference)])
    });
    [Message::new(wsd_core::ChatRole::System, PREAMBLE)].into_iter().chain(turns).collect()
}

/// Where an answer to a text ends: it is continued in no chat form, as lm-evaluation-harness does.
const PARAGRAPH_END: &str = "\n\n";

/// A system with what it needs to answer.
pub struct Entrant {
    /// The system.
    pub system: &'static System,
    /// How it answers.
    pub strategy: Arc<dyn Strategy>,
    /// What its answers depend on, as it is written beside each of them.
    pub settings: Map<String, Value>,
}

/// All that is measured by: rows with their items, and how answers are made.
pub struct Contest {
    /// The rows, as they stand in their file.
    pub records: Vec<Record>,
    /// The same, read.
    pub items: Vec<Item>,
    /// The two models of WSD.
    pub models: Models,
    /// How strategies work.
    pub options: Options,
    /// What stands before every conversation of the systems that are shown examples.
    pub examples: Vec<Message>,
    /// An answer's job but for its prompt.
    pub job: Job,
    /// Rows answered at a time.
    pub parallel: usize,
    /// What all answers depend on.
    pub settings: Map<String, Value>,
}

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The items cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A row is no item of a closed world.
    #[error("{}:{line}: not an item of a closed world: {source}", .path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// The row, from 1; blank lines do not count.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
    /// Answers of another run are in the way.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] wsd_core::Error),
    /// JSON of this program's own that it cannot write.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// WSD's models are not both there.
    #[error("positions and the ablation need a base and a draft model")]
    NoPair,
}

impl Contest {
    /// The job of a row for a system.
    fn job(&self, row: usize, system: &System) -> Job {
        let (prompt, stop) = match self.records[row].ask() {
            Ask::Messages(messages) => {
                let shown = if system.examples { &self.examples[..] } else { &[] };
                (Prompt::Chat([shown, messages].concat()), self.job.stop.clone())
            }
            Ask::Prompt(text) => (Prompt::Raw(text.clone()), vec![PARAGRAPH_END.to_owned()]),
        };
        Job { prompt, stop, ..self.job.clone() }
    }

    /// Let a system answer every item; `told` hears of each row.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn samples(
        &self,
        entrant: &Entrant,
        folder: &RunFolder,
        told: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let jobs: Vec<_> = (0..self.records.len()).map(|row| self.job(row, entrant.system)).collect();
        let mut journal = self.journal(&folder.samples(entrant.system.name), entrant.settings.clone())?;
        let answering = Answering { parallel: self.parallel, timings: false, full: false };
        answering.answer(&entrant.strategy, &self.records, &jobs, &mut journal, told).await?;
        Ok(journal.close()?)
    }

    fn journal(&self, path: &Path, settings: Map<String, Value>) -> Result<Journal, EvalError> {
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(Journal::open(path, &self.records, settings)?)
    }
}
