//! `wsd data pair`: pairs to train on, with a card.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use wsd::data::card::{Card, Step};
use wsd::data::pairs::{By, Pairing, split};
use wsd::data::{Answers, Output, read_answers};
use wsd_core::files::write_whole;

use super::{input_files, listed, tell};
use crate::cli::{Ending, GlobalArgs, usage};

#[derive(Args, Debug)]
pub(crate) struct PairArgs {
    /// Files of scored answers, or prompts whose data set prefers an answer (score `given`)
    #[arg(value_name = "ANSWERS", required = true)]
    files: Vec<PathBuf>,
    /// The folder for train.jsonl, eval.jsonl and README.md
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Score that decides, for all prompts or for those of a label, as harmless=guard; may be repeated
    /// [default: the only score that the answers have]
    #[arg(long, value_name = "[LABEL=]SCORE")]
    by: Vec<By>,
    /// The smallest difference of the two scores; equal scores never make a pair
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    margin: f64,
    /// Share of the pairs of each label to evaluate on
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    eval: f64,
    /// Seed of the split
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(args: &PairArgs, global: &GlobalArgs) -> Result<Ending> {
    if !(0.0..1.0).contains(&args.eval) {
        return Err(usage(format!("`--eval` must be at least 0 and below 1, got {}", args.eval)));
    }
    if args.margin.is_nan() || args.margin < 0.0 {
        return Err(usage(format!("`--margin` must be at least 0, got {}", args.margin)));
    }
    let [train, evaluation] = ["train", "eval"].map(|name| Output::at(&args.out.join(format!("{name}.jsonl"))));
    let (train, evaluation) = (train?, evaluation?);
    let answers = read_answers(&args.files)?;
    let pairing = Pairing { by: deciding(&args.by, &answers)?, margin: args.margin };
    let paired = pairing.pair(&answers.rows)?;
    let counts = paired.counts();
    let (left_out, pairs) = (paired.left_out, paired.pairs.len());
    let (to_train, to_evaluate) = split(paired.pairs, args.eval, args.seed);
    let mut step = Step::new("pair", input_files(&args.files)?);
    let by: Vec<_> = pairing.by.iter().map(|by| json!({"label": by.label, "score": by.score})).collect();
    step.settings = json!({"by": by, "margin": args.margin, "eval": args.eval, "seed": args.seed})
        .as_object()
        .cloned()
        .unwrap_or_default();
    let rows = [("pairs", pairs), ("train", to_train.len()), ("eval", to_evaluate.len()), ("failed", answers.failed)];
    step.counts.extend(rows.map(|(name, count)| (name.to_owned(), count.into())));
    step.counts.extend(counts.iter().map(|(reason, count)| ((*reason).to_owned(), (*count).into())));
    let card = Card::of(&args.files)?.with(step);
    train.write(&to_train, &card)?;
    evaluation.write(&to_evaluate, &card)?;
    train.write_left_out("left_out", &left_out)?;
    write_whole(&args.out.join("README.md"), card.markdown(&to_train, &to_evaluate).as_bytes())?;
    let (trained, evaluated) = (to_train.len(), to_evaluate.len());
    tell(global, &format!("{trained} pairs to train on and {evaluated} to evaluate on in {}", args.out.display()));
    if !left_out.is_empty() {
        tell(global, &format!("prompts without a pair: {}", listed(counts)));
    }
    Ok(Ending::Done)
}

/// The scores that decide: those named, or the only one that there is.
fn deciding(named: &[By], answers: &Answers) -> Result<Vec<By>> {
    let known = answers.score_names();
    let names = || if known.is_empty() { "none".into() } else { known.iter().copied().collect::<Vec<_>>().join(", ") };
    if let Some(by) = named.iter().find(|by| !known.contains(by.score.as_str())) {
        return Err(usage(format!("`--by` must be a score of the answers ({}), got {}", names(), by.score)));
    }
    match (named, known.len()) {
        ([], 1) => Ok(known.iter().map(|score| By { label: None, score: (*score).to_owned() }).collect()),
        ([], _) => Err(usage(format!("`--by` must name a score of the answers; they have: {}", names()))),
        (named, _) => Ok(named.to_vec()),
    }
}
