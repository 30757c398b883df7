//! Preference data from real prompts: readers of common data sets, filters, deduplication,
//! decontamination, pairs of answers, and a card that tells their origin.
//!
//! Every step takes files of rows and writes one, so that steps can be repeated, left out and
//! inspected. Models are used only through [`wsd_core`].

pub mod card;
pub mod contamination;
pub mod duplicates;
mod error;
pub mod filter;
pub mod forms;
mod ids;
mod output;
pub mod pairs;
mod parquet;
pub mod read;
mod row;
pub mod sampling;
pub mod scoring;
pub mod share;
pub mod text;

pub use error::DataError;
pub use output::Output;
pub use row::{Answer, AnswerRow, Answers, PromptRow, read_answers, read_prompts};
