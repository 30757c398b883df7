//! `wsd train tokenizer`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use wsd_core::Prompt;
use wsd_train::data::{TrainingRow, read_rows};
use wsd_train::{VocabularyOptions, train_tokenizer};

use super::super::Ending;

#[derive(Args, Debug)]
pub(super) struct TokenizerArgs {
    /// Files of rows to learn from; may be repeated
    #[arg(long, required = true, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// The folder to make, with tokenizer.json and tokenizer_config.json
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Entries of the vocabulary
    #[arg(long, value_name = "N", default_value_t = 2048)]
    vocab_size: usize,
    /// The token that ends a text or a turn
    #[arg(long, value_name = "TOKEN", default_value = "<|endoftext|>")]
    eos: String,
    /// The token that begins a text
    #[arg(long, value_name = "TOKEN")]
    bos: Option<String>,
    /// The token that fills a batch
    #[arg(long, value_name = "TOKEN")]
    pad: Option<String>,
    /// Another special token; may be repeated
    #[arg(long, value_name = "TOKEN")]
    special: Vec<String>,
    /// A file with the Jinja template that conversations are written by
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Positions that a model with this tokenizer will have
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    model_max_length: usize,
}

pub(super) fn run(args: &TokenizerArgs) -> Result<Ending> {
    let mut special = Vec::new();
    for token in args.pad.iter().chain(&args.bos).chain([&args.eos]).chain(&args.special) {
        if !special.contains(token) {
            special.push(token.clone());
        }
    }
    let options = VocabularyOptions {
        size: args.vocab_size,
        special,
        bos: args.bos.clone(),
        eos: args.eos.clone(),
        pad: args.pad.clone(),
        chat_template: args.chat_template.as_ref().map(|path| wsd_core::Input::SETTINGS.read_text(path)).transpose()?,
        model_max_length: args.model_max_length,
    };
    let mut texts = Vec::new();
    for path in &args.input {
        let rows = read_rows(path)?;
        if let Some((line, fault)) = rows.refused.first() {
            bail!("{}:{line}: {fault}", path.display());
        }
        rows.read.into_iter().for_each(|(_, row)| collect(row, &mut texts));
    }
    train_tokenizer(&options, &texts, &args.output)?;
    Ok(Ending::Done)
}

/// Collects the texts of a row.
fn collect(row: TrainingRow, texts: &mut Vec<String>) {
    match row {
        TrainingRow::Text(text) => texts.push(text),
        TrainingRow::Completion { prompt, completion } => texts.extend([prompt, completion]),
        TrainingRow::Chat { messages, .. } => texts.extend(messages.into_iter().map(|message| message.content)),
        TrainingRow::Labelled { answer, .. } => collect(*answer, texts),
        TrainingRow::Steps { prompt, steps, .. } => {
            match prompt {
                Prompt::Raw(text) => texts.push(text),
                Prompt::Chat(messages) | Prompt::ChatWith(messages, _) => {
                    texts.extend(messages.into_iter().map(|message| message.content))
                }
                Prompt::Tokens(_) => {}
            }
            texts.extend(steps);
        }
        TrainingRow::Preference(pair) => [pair.chosen, pair.rejected].into_iter().for_each(|row| collect(row, texts)),
    }
}
