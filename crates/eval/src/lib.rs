//! Evaluation on public benchmarks: a table of tasks, each with a reader of the benchmark's own file
//! format and a pure grader, resumable runs of several systems, and reports with intervals.
//!
//! Models are used only through [`wsd_core`]. No benchmark is part of this crate: files are named by
//! their paths.

pub mod alpaca;
pub mod analysis;
pub mod calibration;
mod error;
mod execution;
mod item;
mod journal_rows;
pub mod judge;
mod likelihood;
mod python;
pub mod raters;
pub mod report;
mod run;
mod sample;
mod source;
pub mod sweep;
mod system;
mod task;
pub mod tasks;
mod text;
mod transcript;
mod verdict;

pub use error::{EvalError, SourceError};
pub use execution::{Execution, Outcome};
pub use item::{Form, Item};
pub use likelihood::{ChoiceScore, score_choices};
pub use run::{Candidate, RunFolder, TaskRun};
pub use sample::{Sample, SampleDetails};
pub use source::{Row, Source};
pub use system::{IN_CONTEXT, System};
pub use task::{Export, Metric, ReadOptions, Task};
pub use tasks::TASKS;
pub use text::punkt::has_nltk_parameters;
pub use transcript::transcript;
pub use verdict::{Response, Score, Verdict};
