//! The table of tasks, one file each.

mod arc;
mod choices;
pub mod gsm8k;
mod hellaswag;
mod humaneval;
pub mod ifeval;
mod judged;
mod mmlu;
mod refusal;
mod safety;
mod truthfulqa;

pub use refusal::is_refusal;

use crate::{EvalError, Task};

/// Every task, in the order of the help.
pub static TASKS: &[&Task] = &[
    &ifeval::IFEVAL,
    &gsm8k::GSM8K,
    &gsm8k::GSM8K_ZERO,
    &humaneval::HUMANEVAL,
    &mmlu::MMLU,
    &arc::ARC_EASY,
    &arc::ARC_CHALLENGE,
    &hellaswag::HELLASWAG,
    &truthfulqa::TRUTHFULQA_MC1,
    &truthfulqa::TRUTHFULQA_MC2,
    &safety::XSTEST,
    &safety::STRONGREJECT,
    &safety::HH_HARMLESS,
    &judged::ALPACA_EVAL,
    &judged::ARENA_HARD,
    &judged::MT_BENCH,
    &judged::TRUTHFULQA_GEN,
];

impl Task {
    /// Finds a task by name.
    ///
    /// # Errors
    /// [`EvalError::UnknownTask`], with the known names.
    ///
    /// ```
    /// assert_eq!(wsd_eval::Task::find("gsm8k")?.metrics[0].name, "strict");
    /// # Ok::<(), wsd_eval::EvalError>(())
    /// ```
    pub fn find(name: &str) -> Result<&'static Self, EvalError> {
        TASKS.iter().copied().find(|task| task.name == name).ok_or_else(|| EvalError::UnknownTask {
            name: name.to_owned(),
            known: wsd_core::known_names(name, TASKS.iter().map(|task| task.name)),
        })
    }
}
