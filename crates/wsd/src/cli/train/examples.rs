//! Files of rows to examples of an objective.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::json;
use wsd_nn::files::write_whole;
use wsd_train::data::{TrainingRow, read_rows};
use wsd_train::{Encoder, Example, Learns, Objective, Sequence, wrapped};

use super::super::output::note;
use super::run_file::DataTable;

/// Refused rows that are told; all are in a file of the run.
const TOLD: usize = 20;

/// A row that cannot be learned from.
struct Refusal {
    file: PathBuf,
    line: usize,
    reason: String,
}

/// Turns rows into examples.
pub(super) struct Examples<'a> {
    pub(super) objective: &'static Objective,
    pub(super) encoder: &'a Encoder,
    pub(super) data: &'a DataTable,
    /// The run's folder, for what is refused.
    pub(super) folder: &'a Path,
}

impl Examples<'_> {
    /// What is learned from, and what is only looked at.
    pub(super) fn read(&self, quiet: bool) -> Result<[Vec<Example>; 2]> {
        let mut refusals = Vec::new();
        let [train, eval] = [&self.data.train, &self.data.eval].map(|files| self.files(files, &mut refusals));
        let [train, eval] = [train?, eval?];
        if !refusals.is_empty() {
            self.report(&refusals, quiet)?;
        }
        if train.is_empty() {
            bail!("there is nothing to learn from");
        }
        Ok([train, eval])
    }

    fn files(&self, files: &[PathBuf], refusals: &mut Vec<Refusal>) -> Result<Vec<Example>> {
        let mut examples = Vec::new();
        for file in files {
            let rows = read_rows(file)?;
            let refusal = |line, reason: String| Refusal { file: file.clone(), line, reason };
            refusals.extend(rows.refused.iter().map(|(line, fault)| refusal(*line, fault.to_string())));
            for (line, row) in &rows.read {
                match self.example(row) {
                    Ok(example) => examples.push(example),
                    Err(reason) => refusals.push(refusal(*line, reason)),
                }
            }
        }
        if self.data.packing {
            let documents: Vec<Sequence> =
                examples.into_iter().flat_map(|example: Example| example.sequences).collect();
            examples = wrapped(&documents, self.data.max_length).into_iter().map(Example::of).collect();
        }
        Ok(examples)
    }

    fn example(&self, row: &TrainingRow) -> Result<Example, String> {
        let encoder = self.encoder;
        let sequence = match (self.objective.learns, row) {
            (Learns::Everything, TrainingRow::Text(text)) => encoder.document(text),
            (Learns::Everything, TrainingRow::Completion { prompt, completion }) => {
                encoder.document(&format!("{prompt}{completion}"))
            }
            (Learns::Everything, TrainingRow::Chat { messages, .. }) => encoder.conversation(messages),
            (Learns::Answers, row @ (TrainingRow::Completion { .. } | TrainingRow::Chat { .. })) => {
                return self.answer(row).map(Example::of);
            }
            (Learns::Preferences, TrainingRow::Preference(pair)) => {
                let sequences = pair.iter().map(|side| self.answer(side)).collect::<Result<_, _>>()?;
                return Ok(Example { sequences, reference: Vec::new() });
            }
            (Learns::Answers, _) => return Err("sft needs `messages`, or `prompt` and `completion`".into()),
            (Learns::Preferences, _) => return Err("dpo needs `prompt`, `chosen` and `rejected`".into()),
            (Learns::Everything, TrainingRow::Preference(_)) => {
                return Err("pretrain needs `text` or `messages`".into());
            }
        };
        sequence.map(Example::of).map_err(|error| error.to_string())
    }

    fn answer(&self, row: &TrainingRow) -> Result<Sequence, String> {
        match row {
            TrainingRow::Completion { prompt, completion } => self.encoder.completion(prompt, completion),
            TrainingRow::Chat { messages, learned_from } => self.encoder.chat(messages, *learned_from),
            TrainingRow::Text(_) | TrainingRow::Preference(_) => return Err("there is no answer in it".into()),
        }
        .map_err(|error| error.to_string())
    }

    fn report(&self, refusals: &[Refusal], quiet: bool) -> Result<()> {
        let rows = refusals.iter().map(|Refusal { file, line, reason }| {
            json!({"file": file, "line": line, "reason": reason}).to_string() + "\n"
        });
        let path = self.folder.join("refused.jsonl");
        write_whole(&path, rows.collect::<String>().as_bytes())?;
        let told = refusals
            .iter()
            .take(TOLD)
            .map(|Refusal { file, line, reason }| format!("\n  {}:{line}: {reason}", file.display()));
        let mut told: String = told.collect();
        if refusals.len() > TOLD {
            told.push_str(&format!("\n  and {} more: {}", refusals.len() - TOLD, path.display()));
        }
        let told = format!("{} rows cannot be learned from:{told}", refusals.len());
        if !self.data.skip_refused {
            bail!("{told}\n  hint: `skip_refused = true` in `[data]` goes on without them");
        }
        if !quiet {
            note(&told);
        }
        Ok(())
    }
}
