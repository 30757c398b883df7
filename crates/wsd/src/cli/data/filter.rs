//! `wsd data filter`: the prompts to keep.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;
use regex::Regex;
use serde_json::json;
use wsd::data::card::{Card, InputFile, Step};
use wsd::data::contamination::EvaluationSets;
use wsd::data::filter::{Filter, Filtered};
use wsd::data::read::Reader;
use wsd::data::share::Share;
use wsd::data::text::SCRIPT_NAMES;
use wsd::data::{Output, read_prompts};
use wsd::eval::{ReadOptions, Source, Task};

use super::{input_files, listed, tell};
use crate::cli::{Ending, GlobalArgs};

#[derive(Args, Debug)]
pub(crate) struct FilterArgs {
    /// Files that `wsd data read` or `filter` wrote
    #[arg(value_name = "PROMPTS", required = true)]
    files: Vec<PathBuf>,
    /// The file of prompts to write; those left out are listed beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The fewest words of a conversation
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_words: usize,
    /// The most words of a conversation
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_words: usize,
    /// The script that most letters must belong to
    #[arg(long, value_name = "SCRIPT", value_parser = PossibleValuesParser::new(SCRIPT_NAMES))]
    script: Option<String>,
    /// Pattern (regular expression) that no message may contain; may be repeated
    #[arg(long, value_name = "REGEX")]
    exclude: Vec<Regex>,
    /// Jaccard similarity of runs of five characters from which on a prompt repeats an earlier one; above 1
    /// only equal words do
    #[arg(long, value_name = "J", default_value_t = 0.7)]
    near: f64,
    /// Evaluation set that prompts must not overlap with: a file as for `wsd data read`, or TASK=FILE as for
    /// `wsd eval`; may be repeated
    #[arg(long, value_name = "[TASK=]FILE")]
    against: Vec<Against>,
    /// Words in a run that must not stand in an evaluation set
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=100))]
    ngram: u16,
    /// Share of a label, relative to the others', as harmless=0.4; may be repeated
    #[arg(long, value_name = "LABEL=WEIGHT")]
    share: Vec<Share>,
    /// At most this many prompts, evenly spread [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// An evaluation set.
#[derive(Clone, Debug)]
struct Against {
    task: Option<&'static Task>,
    path: PathBuf,
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').filter(|_| !Path::new(text).exists()) {
            Some((name, path)) => {
                let task = Task::find(name).map_err(|error| error.to_string())?;
                Ok(Self { task: Some(task), path: path.into() })
            }
            None => Ok(Self { task: None, path: text.into() }),
        }
    }
}

impl Against {
    /// Adds the texts of the set, and returns its file.
    fn add_to(&self, sets: &mut EvaluationSets) -> Result<InputFile> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut rows = 0;
        let mut add = |set: &str, id: &str, text: String| {
            rows += 1;
            sets.add(set, id, &text);
        };
        match self.task {
            Some(task) => {
                for item in task.items(&Source::read(&self.path)?, &ReadOptions { shots: Some(0), examples: None })? {
                    let messages = item.messages.iter().map(|message| message.content.as_str());
                    let texts: Vec<_> = std::iter::once(item.prompt.as_str()).chain(messages).collect();
                    add(task.name, &item.id, texts.join("\n"));
                }
            }
            None => {
                let read =
                    Reader { source: name.clone(), ..Reader::default() }.read(std::slice::from_ref(&self.path))?;
                read.prompts.iter().for_each(|prompt| add(&name, &prompt.id, prompt.text()));
            }
        }
        Ok(InputFile::of(&self.path, rows)?)
    }
}

pub(super) fn run(args: FilterArgs, global: &GlobalArgs) -> Result<Ending> {
    let output = Output::at(&args.out)?;
    let mut sets = EvaluationSets::new(args.ngram.into());
    let sets_files = args.against.iter().map(|set| set.add_to(&mut sets)).collect::<Result<Vec<_>>>()?;
    let settings = json!({
        "min_words": args.min_words,
        "max_words": args.max_words,
        "script": args.script,
        "exclude": args.exclude.iter().map(Regex::as_str).collect::<Vec<_>>(),
        "near": args.near,
        "ngram": args.ngram,
        "against": sets_files,
        "share": args.share.iter().map(|share| format!("{}={}", share.label, share.weight)).collect::<Vec<_>>(),
        "limit": args.limit,
    });
    let filter = Filter {
        min_words: args.min_words,
        max_words: args.max_words,
        script: args.script,
        exclude: args.exclude,
        near: args.near,
        sets,
        shares: args.share,
        limit: args.limit.map(|limit| limit as usize),
    };
    let prompts = read_prompts(&args.files)?;
    let before = prompts.len();
    let filtered = filter.apply(prompts)?;
    let mut step = Step::new("filter", input_files(&args.files)?);
    step.settings = settings.as_object().cloned().unwrap_or_default();
    step.counts.insert("before".into(), before.into());
    step.counts.insert("kept".into(), filtered.kept.len().into());
    step.counts.extend(filtered.counts().into_iter().map(|(rule, count)| (rule.to_owned(), count.into())));
    if !filtered.contamination.is_empty() {
        step.counts.insert("contamination".into(), json!(filtered.contamination));
    }
    output.write(&filtered.kept, &Card::of(&args.files)?.with(step))?;
    output.write_left_out("removed", &filtered.removed)?;
    report(&filtered, before, &output, global);
    Ok(Ending::Done)
}

fn report(filtered: &Filtered, before: usize, output: &Output, global: &GlobalArgs) {
    let kept = filtered.kept.len();
    let mut labels = std::collections::BTreeMap::new();
    for prompt in filtered.kept.iter().filter(|prompt| !prompt.label.is_empty()) {
        *labels.entry(prompt.label.as_str()).or_insert(0) += 1;
    }
    tell(global, &format!("{kept} of {before} prompts in {}; {}", output.path().display(), listed(labels)));
    if kept < before {
        tell(global, &format!("left out: {}", listed(filtered.counts())));
    }
    for (set, report) in &filtered.contamination {
        tell(global, &format!("{set}: {} prompts overlap with its {} texts", report.prompts, report.texts));
        for (id, overlap) in &report.examples {
            tell(global, &format!("  {id} and {}: \"{}\"", overlap.item, overlap.gram));
        }
    }
}
