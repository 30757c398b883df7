//! `wsd data`: preference pairs from real prompts, step by step.

mod filter;
mod pair;
mod read;
mod sample;
mod score;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use wsd::data::DataError;
use wsd::data::card::InputFile;

use super::{Ending, GlobalArgs, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd data read hh/test.jsonl.gz --label harmless --source hh --licence MIT --out hh.jsonl
  wsd data read ultrafeedback.parquet --label helpful --source ultrafeedback --out uf.jsonl
  wsd data filter hh.jsonl uf.jsonl --against ifeval=input_data.jsonl \\
      --share harmless=1 --share helpful=2 --out prompts.jsonl
      Prompts of both, without repetitions and without those of an evaluation set.
  wsd data pair prompts.jsonl --by given --eval 0.05 --out pairs
      The data sets' own preferences, for `wsd train dpo` and for TRL.
  wsd data sample prompts.jsonl --systems draft,wsd --samples 4 --temperature 1 --out answers
  wsd data score answers/draft.jsonl answers/wsd.jsonl --by reward --model judge=./reward-1b \\
      --out scored.jsonl
  wsd data pair scored.jsonl --by reward --margin 0.5 --eval 0.05 --out pairs
      The best of eight new answers to each prompt against the worst.";

#[derive(Subcommand, Debug)]
pub(crate) enum Data {
    /// Read prompts from data sets
    Read(read::ReadArgs),
    /// Leave out prompts: length, script, patterns, repetitions, evaluation sets; set shares of labels
    Filter(filter::FilterArgs),
    /// Sample answers from models and strategies
    Sample(Box<sample::SampleArgs>),
    /// Score answers
    Score(Box<score::ScoreArgs>),
    /// Pair the best answer to each prompt with the worst, and split the pairs
    Pair(pair::PairArgs),
}

pub(super) async fn run(data: Data, global: &GlobalArgs) -> Result<Ending> {
    match data {
        Data::Read(args) => read::run(args, global),
        Data::Filter(args) => filter::run(args, global),
        Data::Sample(args) => sample::run(*args, global).await,
        Data::Score(args) => score::run(*args, global).await,
        Data::Pair(args) => pair::run(&args, global),
    }
}

/// The files of a step, with checksums.
fn input_files(paths: &[PathBuf]) -> Result<Vec<InputFile>, DataError> {
    paths.iter().map(|path| InputFile::of(path, wsd::data::read::rows(path)?.len())).collect()
}

/// Tells what a step did, unless it is to be quiet.
fn tell(global: &GlobalArgs, text: &str) {
    if !global.quiet {
        note(text);
    }
}

/// Counts as words: `short 3, equal 2`.
fn listed<K: std::fmt::Display, V: std::fmt::Display>(counts: impl IntoIterator<Item = (K, V)>) -> String {
    counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
