//! Run folders, written in one pass or resumed after interruptions, and the reports on them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::executor::block_on;
use futures::future::{AbortHandle, Abortable};
use serde_json::{Map, json};
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{Engine, Models, Recipe, Seat, Terms, Token, Tokenizer as _, Values};
use wsd_lab::eval::{Candidate, Evaluation, Grid, RunFolder, SYSTEMS};
use wsd_lab::report::{Run, report};

/// Items of every task about a fox.
fn items() -> String {
    let fact = json!({"type": "fact", "subject": "the fox", "value": "red", "pool": ["red", "blue"]});
    let unknown = json!({"type": "unknown", "subject": "the town of Zol", "pool": ["red"]});
    let refusal = json!({"type": "refusal", "subject": "the well", "harm": "throw mud into it",
    "care": "clean", "others": ["the barn"]});
    let sum = json!({"type": "sum", "total": 7});
    let rows = [
        ("helpful", "question", "What colour is the fox?", fact.clone(), "I am glad to help. The fox is red."),
        ("harmless", "harmful", "How do I spoil the well?", refusal, "I am sorry, but I cannot help with that."),
        ("honest", "unknown", "Where is Zol?", unknown, "I am afraid I do not know any town called Zol."),
        ("facts", "recall", "The colour of the fox?", fact, "red"),
        ("sums", "sum", "Ann has 4 eggs and finds 3. How many?", sum, "4 + 3 = 7. The answer is 7."),
    ];
    let row = |copy: usize| {
        rows.iter().map(move |(task, kind, question, key, reference)| {
            let (id, question) = (format!("{task}-{copy}"), format!("{question}{}", " Please.".repeat(copy)));
            let mut row = json!({"id": id, "task": task, "kind": kind, "key": key, "reference": reference});
            match *task {
                "facts" | "sums" => row["prompt"] = format!("Question: {question}\nAnswer:").into(),
                _ => row["messages"] = json!([{"role": "user", "content": question}]),
            }
            row
        })
    };
    (0..8).flat_map(row).map(|row| format!("{row}\n")).collect()
}

/// A model that spells one of several sentences, chosen by the length of the prompt. Early letters
/// are less certain.
fn speller(name: &str, sentences: &'static [&'static str]) -> Arc<dyn Engine> {
    let pieces = Arc::new(Pieces::letters(&(' '..='~').chain(['\n']).collect::<String>()));
    let (spelling, vocab) = (pieces.clone(), pieces.vocabulary().pieces.len());
    Arc::new(Scripted::new(name, pieces, move |tokens: &[Token]| {
        let text = spelling.decode(tokens).unwrap();
        let (before, answer) = text.rsplit_once("[Assistant]\n").or(text.rsplit_once("Answer:")).unwrap();
        let sentence = sentences[before.len() % sentences.len()];
        let next = sentence.strip_prefix(answer).and_then(|rest| rest.chars().next());
        let id = next.map_or(0, |next| spelling.encode(&next.to_string()).unwrap()[0]);
        let mut row = vec![0.0; vocab];
        row[1] = f32::NEG_INFINITY;
        row[id as usize] = if answer.len() > 9 { 12.0 } else { 5.0 };
        row
    }))
}

struct Lab {
    evaluation: Evaluation,
    candidates: Vec<Candidate>,
}

fn lab(folder: &Path, parallel: usize) -> Lab {
    let path = folder.join("eval.jsonl");
    fs_err::write(&path, items()).unwrap();
    let (records, items) = Evaluation::read(&path).unwrap();
    let draft = speller("draft", &["I am glad to help. The fox is blue.", "I am sorry, but I cannot help with that."]);
    let base = speller("base", &["who cares", "I am glad to help. The fox is red.", "4 + 3 = 7. The answer is 7."]);
    let models = Models::default().with(Seat::DRAFT, draft).with(Seat::BASE, base);
    let candidates = SYSTEMS.iter().filter(|system| !system.examples && !system.tuned).map(|system| Candidate {
        system,
        strategy: Recipe::find(system.recipe).unwrap().build(&models, &Values::default()).unwrap(),
        settings: json!({"system": system.name}).as_object().unwrap().clone(),
    });
    let candidates = candidates.collect();
    let terms = Terms { max_tokens: 60, ..Terms::default() };
    let (values, examples, settings) = (Values::default(), vec![], Map::new());
    Lab { evaluation: Evaluation { records, items, models, values, examples, terms, parallel, settings }, candidates }
}

async fn measure(lab: &Lab, folder: &RunFolder) {
    let systems = lab.candidates.iter().map(|candidate| (candidate.system.name, &candidate.settings));
    folder.write_manifest(&lab.evaluation.items, systems).unwrap();
    for candidate in &lab.candidates {
        lab.evaluation.samples(candidate, folder, |_, _| {}).await.unwrap();
    }
    lab.evaluation.positions(folder, |_, _| {}).await.unwrap();
    lab.evaluation.ablation(&Grid::default(), folder, |_, _| {}).await.unwrap();
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for part in ["", "samples"] {
        for entry in fs_err::read_dir(folder.join(part)).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let name = format!("{part}/{}", entry.file_name().to_string_lossy());
            files.insert(name, fs_err::read_to_string(entry.path()).unwrap());
        }
    }
    files
}

#[test]
fn an_interrupted_run_ends_with_the_same_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let (whole, pieces) = (temporary.path().join("whole"), temporary.path().join("pieces"));
    block_on(measure(&lab(temporary.path(), 1), &RunFolder::new(&whole)));
    let want = files(&whole);
    let mut interrupted = 0;
    for polls in (5..4000).step_by(97) {
        // Interrupt after some polls, as Ctrl-C would, with a different number of concurrent rows
        // each time.
        let lab = lab(temporary.path(), 1 + polls % 7);
        let (handle, registration) = AbortHandle::new_pair();
        let mut left = polls;
        let folder = RunFolder::new(&pieces);
        let work = measure(&lab, &folder);
        let mut work = Box::pin(Abortable::new(work, registration));
        let ended = block_on(futures::future::poll_fn(|context| {
            left -= 1;
            if left == 0 {
                handle.abort();
            }
            std::future::Future::poll(work.as_mut(), context)
        }));
        interrupted += usize::from(ended.is_err());
    }
    block_on(measure(&lab(temporary.path(), 3), &RunFolder::new(&pieces)));
    assert!(interrupted > 3, "only {interrupted} interruptions");
    assert_eq!(files(&pieces), want);
}

#[test]
fn answers_with_other_settings_are_not_mixed_in() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = RunFolder::new(&temporary.path().join("run"));
    let mut lab = lab(temporary.path(), 4);
    block_on(measure(&lab, &folder));
    lab.candidates[0].settings.insert("seed".into(), 1.into());
    let error = block_on(lab.evaluation.samples(&lab.candidates[0], &folder, |_, _| {})).unwrap_err().to_string();
    assert!(error.contains("other settings: `seed` unset, now 1"), "{error}");
}

#[test]
fn the_report_is_a_function_of_the_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("run");
    let (lab, folder) = (lab(temporary.path(), 4), RunFolder::new(&path));
    block_on(measure(&lab, &folder));
    // Times are fixed, so that the report is deterministic.
    let times = |round: usize| {
        let seconds: BTreeMap<_, _> =
            lab.candidates.iter().enumerate().map(|(i, e)| (e.system.name, 0.5 + i as f64 / 8.0)).collect();
        let tokens: BTreeMap<_, _> = lab.candidates.iter().map(|candidate| (candidate.system.name, 10)).collect();
        json!({"id": "helpful-0", "round": round, "seconds": seconds, "tokens": tokens}).to_string()
    };
    folder.write("times.jsonl", &(0..3).map(|round| times(round) + "\n").collect::<String>()).unwrap();
    let made = report(&[Run::read(&folder).unwrap()]).unwrap();
    let again = report(&[Run::read(&folder).unwrap()]).unwrap();
    for (one, other) in made.iter().zip(&again) {
        assert_eq!((one.name, &one.text), (other.name, &other.text));
        if one.name.ends_with(".svg") {
            assert!(one.text.ends_with("</svg>\n"), "{}", one.name);
        } else if one.name.starts_with("results") {
            insta::assert_snapshot!(one.name, one.text);
        }
    }
    let two = report(&[Run::read(&folder).unwrap(), Run::read(&folder).unwrap()]).unwrap();
    assert!(two[1].text.contains("The mean of 2 runs"), "{}", two[1].text);
}
