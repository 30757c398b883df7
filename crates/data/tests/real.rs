//! Real data sets, which are not part of this project: `WSD_DATA` names their folder.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use wsd_data::PromptRow;
use wsd_data::contamination::EvaluationSets;
use wsd_data::duplicates::{Duplicates, MinHash, SHINGLE, jaccard};
use wsd_data::pairs::{By, Pairing};
use wsd_data::read::Reader;
use wsd_data::text::{normalized, shingles};

/// The prompts of a file; `None`, said so, without the data.
fn prompts(source: &str, name: &str) -> Option<Vec<PromptRow>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("WSD_DATA").map_or(beside, PathBuf::from).join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    let read = Reader { source: source.into(), ..Reader::default() }.read(&[path]).unwrap();
    assert_eq!(read.refused, []);
    Some(read.prompts)
}

#[test]
fn common_data_sets_are_read_whole() {
    for (name, rows, answers) in [
        ("hh_rlhf/test.jsonl.gz", 2312, 2),
        ("ultrafeedback_sample/train_clean.jsonl", 1000, 2),
        ("rasbt_instruct/instruction-data-with-preference.json", 1100, 2),
        ("alpaca_eval/alpaca_eval_ques.json", 805, 0),
        ("xstest/xstest_prompts.csv", 450, 0),
    ] {
        let Some(prompts) = prompts("d", name) else { return };
        assert_eq!(prompts.len(), rows, "{name}");
        assert!(prompts.iter().all(|prompt| prompt.answers.len() == answers), "{name}");
    }
}

#[test]
fn preferences_of_hh_become_pairs() {
    let Some(prompts) = prompts("hh", "hh_rlhf/test.jsonl.gz") else { return };
    let answers = prompts.iter().flat_map(|prompt| {
        let bare = PromptRow { answers: Vec::new(), ..prompt.clone() };
        prompt.answers.iter().map(move |answer| wsd_data::AnswerRow { prompt: bare.clone(), answer: answer.clone() })
    });
    let pairing = Pairing { by: vec![By { label: None, score: "given".into() }], margin: 0.0 };
    let paired = pairing.pair(&answers.collect::<Vec<_>>()).unwrap();
    assert_eq!(paired.pairs.len() + paired.left_out.len(), 2312);
    assert_eq!(paired.counts()["single"], 4, "four rows have an empty answer");
}

/// Numbers of prompts in an evaluation set by length of the runs of words, counted by
/// `scripts/contamination_check.py`.
const CONTAMINATED: [(usize, usize); 3] = [(5, 559), (8, 7), (13, 2)];

/// The rows found by `scripts/contamination_check.py`, which was written without looking at this one.
#[test]
fn contamination_equals_another_implementation() {
    let sources = [
        ("hh", "hh_rlhf/test.jsonl.gz"),
        ("uf", "ultrafeedback_sample/train_clean.jsonl"),
        ("rasbt", "rasbt_instruct/instruction-data-with-preference.json"),
    ];
    let Some(prompts) = sources.iter().map(|(source, name)| prompts(source, name)).collect::<Option<Vec<_>>>() else {
        return;
    };
    let sets = [prompts_of("ae", "alpaca_eval/alpaca_eval_ques.json"), prompts_of("xs", "xstest/xstest_prompts.csv")];
    for (n, count) in CONTAMINATED {
        let mut known = EvaluationSets::new(n);
        sets.iter().flatten().for_each(|text| known.add(&text.source, &text.id, &text.text()));
        let found = prompts.iter().flatten().filter(|prompt| known.overlap(&prompt.text()).is_some()).count();
        assert_eq!(found, count, "n = {n}");
    }
}

fn prompts_of(source: &str, name: &str) -> Vec<PromptRow> {
    prompts(source, name).unwrap_or_default()
}

#[test]
fn duplicates_equal_a_comparison_of_all_pairs() {
    let Some(prompts) = prompts("rasbt", "rasbt_instruct/instruction-data.json") else { return };
    let texts: Vec<_> = prompts.iter().map(PromptRow::text).collect();
    let sets: Vec<BTreeSet<u64>> = texts.iter().map(|text| shingles(&normalized(text), SHINGLE)).collect();
    let mut seen = Duplicates::new(0.7);
    let found: Vec<_> = texts.iter().map(|text| seen.add(text).is_some()).collect();
    let mut kept: Vec<&BTreeSet<u64>> = Vec::new();
    for (set, found) in sets.iter().zip(&found) {
        let repeats = kept.iter().any(|other| jaccard(set, other) >= 0.7);
        assert_eq!(*found, repeats);
        if !repeats {
            kept.push(set);
        }
    }
    assert!(kept.len() < texts.len() && kept.len() > texts.len() / 2, "{} of {}", kept.len(), texts.len());
    // The estimate of 128 hashes has a standard error of at most 0.044.
    let errors = sets.windows(2).map(|pair| {
        let [a, b] = pair else { return 0.0 };
        (MinHash::of(a).similarity(&MinHash::of(b)) - jaccard(a, b)).abs()
    });
    assert!(errors.fold(0.0, f64::max) < 0.25);
}
