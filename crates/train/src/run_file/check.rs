//! The limits of the keys of a run file that no entry declares.

use super::RunFile;
use crate::error::{Error, Result};
use crate::objectives::{Needs, TargetTokens, Weight};

impl RunFile {
    pub(super) fn check(&self) -> Result<()> {
        self.check_counts()?;
        self.check_numbers()?;
        match (&self.model.from, &self.model.config, &self.model.tokenizer) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            _ => return Err(form("`[model]` needs `from`, or `config` and `tokenizer` for a model of random weights")),
        }
        let reads_teacher = |table: &super::ObjectiveTable| table.choice.entry.needs == Needs::RowsAndReference;
        if let Some(teacher) = self.model.teacher.as_ref().filter(|_| !self.objectives.iter().any(reads_teacher)) {
            let limit = "left out where no objective reads it, as distill and starft do";
            return Err(Error::setting("model.teacher", limit, teacher));
        }
        let learns_everything = |table: &super::ObjectiveTable| table.choice.entry.targets == TargetTokens::Everything;
        if self.data.packing && !self.objectives.iter().all(learns_everything) {
            return Err(form(
                "`data.packing` is for pretrain: other objectives keep each text to itself, without padding",
            ));
        }
        self.format().map(drop)
    }

    fn check_counts(&self) -> Result<()> {
        let steps = &self.steps;
        let files = self.objectives.iter().map(|table| self.train_files(table).len()).min();
        let counts = [
            ("train.batch_size", steps.batch_size, 1),
            ("train.gradient_accumulation_steps", steps.gradient_accumulation_steps, 1),
            ("train.save_total_limit", steps.save_total_limit, 1),
            ("train.max_steps", steps.max_steps.unwrap_or(1), 1),
            ("threads", self.threads, 1),
            ("data.max_length", self.data.max_length, 2),
        ];
        if let Some((name, value, least)) = counts.into_iter().find(|(_, value, least)| value < least) {
            return Err(Error::setting(name, format!("at least {least}"), value));
        }
        if files == Some(0) {
            return Err(form("`data.train` must name a file"));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        let steps = &self.steps;
        let numbers = [
            ("train.learning_rate", steps.learning_rate, 0.0..1e3),
            ("train.min_lr_rate", steps.min_lr_rate, 0.0..1.0 + 1e-9),
            ("train.warmup_ratio", steps.warmup_ratio, 0.0..1.0),
            ("train.max_grad_norm", steps.max_grad_norm, 0.0..f64::MAX),
            ("train.num_train_epochs", steps.num_train_epochs, f64::MIN_POSITIVE..1e9),
        ];
        let weights = self.objectives.iter().flat_map(|table| {
            let Weight { start, end } = table.weight;
            [("objective.weight", start, 0.0..1e9), ("objective.final_weight", end, 0.0..1e9)]
        });
        match numbers.into_iter().chain(weights).find(|(_, value, range)| !range.contains(value)) {
            Some((name, value, range)) => {
                Err(Error::setting(name, format!("at least {} and below {}", range.start, range.end), value))
            }
            None => Ok(()),
        }
    }
}

fn form(text: &str) -> Error {
    Error::Form(text.to_owned())
}
