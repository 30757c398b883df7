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

use crate::Task;

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
    &judged::TRUTHFULQA_GEN,
];
