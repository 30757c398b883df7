//! The table of tasks, one file each.

pub mod gsm8k;
pub mod ifeval;

use crate::Task;

/// Every task, in the order of the help.
pub static TASKS: &[&Task] = &[&gsm8k::GSM8K, &gsm8k::GSM8K_ZERO, &ifeval::IFEVAL];
