//! `wsd data read`: prompts from data sets.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use wsd::data::card::{Card, SourceNote, Step};
use wsd::data::forms::{FORMS, Form};
use wsd::data::read::{Reader, Refused};
use wsd::data::{DataError, Output};

use super::tell;
use crate::cli::{Ending, GlobalArgs, note};

/// Refused rows that a message lists.
const LISTED: usize = 5;

#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// Files of one data set: JSON lines, a JSON list, CSV or Parquet; JSON and CSV may be compressed by gzip
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The file of prompts to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of the data set, which begins the ids of its prompts [default: the first file's name]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Purpose of the prompts: helpful, harmless, honest or another word
    #[arg(long, value_name = "LABEL", default_value = "")]
    label: String,
    /// Licence of the data set, for the card
    #[arg(long, value_name = "TEXT", default_value = "")]
    licence: String,
    /// Form of the rows [default: told by the keys of each row]
    #[arg(long, value_name = "FORM", value_parser = PossibleValuesParser::new(FORMS.iter().map(|form| form.name)))]
    form: Option<String>,
    /// Key of the prompt, for rows of no known form
    #[arg(long, value_name = "KEY", conflicts_with = "form")]
    prompt_key: Option<String>,
    /// At most this many prompts, evenly spread [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on without rows that have no prompt; they are listed beside the output
    #[arg(long)]
    skip_refused: bool,
}

pub(super) fn run(args: ReadArgs, global: &GlobalArgs) -> Result<Ending> {
    let output = Output::at(&args.out)?;
    let source = args.source.unwrap_or_else(|| stem(&args.files));
    let reader = Reader {
        source: source.clone(),
        label: args.label.clone(),
        form: args.form.as_deref().and_then(Form::find),
        prompt_key: args.prompt_key.clone(),
        limit: args.limit.map(|limit| limit as usize),
    };
    let read = reader.read(&args.files)?;
    if !read.refused.is_empty() {
        let message = refusals(&read.refused);
        if !args.skip_refused {
            bail!("{message}\n  hint: --skip-refused goes on without them");
        }
        note(&message);
    }
    if read.prompts.is_empty() {
        let reasons = if read.refused.is_empty() { "the files have no rows" } else { "all rows were refused" };
        let hint = "name the key of the prompt with --prompt-key";
        return Err(DataError::Empty { what: "prompt", of: read.refused.len(), reasons: reasons.into(), hint }.into());
    }
    let mut step = Step::new("read", read.files);
    let (label, licence, prompts) = (args.label, args.licence, read.prompts.len());
    step.source = Some(SourceNote { name: source, label, licence, prompts });
    step.settings.insert("form".into(), json!(args.form));
    step.settings.insert("prompt_key".into(), json!(args.prompt_key));
    step.settings.insert("limit".into(), json!(args.limit));
    step.settings.retain(|_, value| !value.is_null());
    let answers: usize = read.prompts.iter().map(|prompt| prompt.answers.len()).sum();
    for (name, count) in [("prompts", prompts), ("answers", answers), ("refused", read.refused.len())] {
        step.counts.insert(name.into(), count.into());
    }
    output.write(&read.prompts, &Card::default().with(step))?;
    output.write_left_out("refused", &read.refused)?;
    tell(global, &format!("{prompts} prompts with {answers} answers in {}", output.path().display()));
    Ok(Ending::Done)
}

/// Name of the first file without its endings.
fn stem(files: &[PathBuf]) -> String {
    let name = files.first().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

fn refusals(refused: &[Refused]) -> String {
    let listed = refused.iter().take(LISTED).map(|Refused { at, reason }| format!("\n  {at}: {reason}"));
    let mut text = format!("{} rows have no prompt:{}", refused.len(), listed.collect::<String>());
    if refused.len() > LISTED {
        text.push_str(&format!("\n  and {} more rows", refused.len() - LISTED));
    }
    text
}
