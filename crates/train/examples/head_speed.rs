//! Trains a draft head for a base and measures it beside a draft model.
//!
//! ```text
//! cargo run --release -p wsd-train --example head_speed -- \
//!     models/base models/pilot head.toml prompts.jsonl
//! ```
//!
//! `head.toml` is a run file of `wsd train head`; its run is done first, or gone on with. The prompts are
//! rows with `messages`. Prints, per way to decode, tokens per step of the base, the share of proposals
//! accepted, and microseconds per token, best of three rounds in turns.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measurements")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::{Map, Value};
use wsd_core::{
    CallKind, ChatRole, HEAD_DEPTH, HEAD_LEAST, HEAD_NODES, HEAD_WIDTH, Job, Message, Models, Prompt, Recipe,
    SPECULATE, Seat, Terms, Trace, Values, run,
};
use wsd_nn::{Checkpoint, Device, LoadOptions, Local, TemplateChoice, arch};
use wsd_train::draft_head::{Features, HeadFile, HeadTask, HeadTrainer, base_tables, save, train};
use wsd_train::{Encoder, Reporter};

struct Print;

impl Reporter for Print {
    fn progress(&mut self, row: &Map<String, Value>, total: usize, left: f64) {
        println!("{total} steps, {left:.0} s left: {}", Value::Object(row.clone()));
    }
}

/// Runs the training of `file` and writes the head into its folder.
fn make(base: &Checkpoint, file: &HeadFile) {
    let (folder, blueprint) = (&file.run.output, arch::blueprint(&base.config).unwrap());
    fs_err::create_dir_all(folder).unwrap();
    let encoder = Encoder::try_new(base, &TemplateChoice::Plain, blueprint.vocab, Some(file.run.data.max_length));
    let [examples, evaluation] = file.sequences(&encoder.unwrap(), &mut Vec::new()).unwrap();
    let (all, stop) = (examples.iter().chain(&evaluation).collect::<Vec<_>>(), AtomicBool::new(false));
    let features = Features::open(folder, (base, Device::Cpu), &all, false, (&stop, &mut Print));
    let config = file.config(base).unwrap();
    let longest = all.iter().map(|sequence| sequence.tokens.len()).max().unwrap();
    let (tables, sizes) = (base_tables(base).unwrap(), (file.run.seed, file.run.threads, longest));
    let mut trainer = HeadTrainer::try_new(&config.plan(&blueprint), tables, &file.run.optimizer, sizes).unwrap();
    let mut task = HeadTask {
        folder: folder.clone(),
        examples: examples.iter().collect(),
        evaluation: evaluation.iter().collect(),
        features: features.unwrap().unwrap(),
        head: file.head.clone(),
        steps: file.run.steps.clone(),
        seed: file.run.seed,
        stop: &stop,
    };
    let started = Instant::now();
    train(&mut task, &mut trainer, &mut Print).unwrap();
    println!("{} parameters, trained in {:.0} s", trainer.layout().len(), started.elapsed().as_secs_f64());
    let weights = (trainer.layout(), trainer.state.parameters.as_slice());
    save(&folder.join("head"), &config, weights, file.run.format().unwrap()).unwrap();
}

/// A way to decode.
struct Way {
    name: &'static str,
    strategy: &'static str,
    values: Values,
    /// The least seconds of a round.
    seconds: f64,
    tokens: usize,
    steps: usize,
    proposed: usize,
    accepted: usize,
}

fn headed(width: usize, depth: usize, nodes: usize, least: f64) -> Values {
    let values = Values::default().with(&HEAD_WIDTH, width).unwrap().with(&HEAD_DEPTH, depth).unwrap();
    values.with(&HEAD_NODES, nodes).unwrap().with(&HEAD_LEAST, least).unwrap()
}

fn ways() -> Vec<Way> {
    let way = |(name, strategy, values)| Way {
        name,
        strategy,
        values,
        seconds: f64::INFINITY,
        tokens: 0,
        steps: 0,
        proposed: 0,
        accepted: 0,
    };
    let speculate = |word: &'static str| Values::default().with(&SPECULATE, word).unwrap();
    let list = [
        ("base alone", "base", Values::default()),
        ("speculative, the pilot", "speculative", speculate("draft")),
        ("speculative, all sources", "speculative", speculate("auto")),
        ("head, the default tree", "head", headed(10, 5, 60, 0.0)),
        ("head, paths above 0.1", "head", headed(10, 5, 60, 0.1)),
        ("head, paths above 0.3", "head", headed(3, 5, 16, 0.3)),
        ("head, a chain of 6", "head", headed(1, 5, 7, 0.0)),
        ("head, a chain above 0.3", "head", headed(1, 5, 7, 0.3)),
        ("head, a chain of 3", "head", headed(1, 2, 4, 0.0)),
    ];
    list.into_iter().map(way).collect()
}

fn prompts(path: &Path) -> Vec<Prompt> {
    let text = fs_err::read_to_string(path).unwrap();
    let question = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        Prompt::Chat(vec![Message::new(ChatRole::User, row["messages"][0]["content"].as_str().unwrap())])
    };
    text.lines().map(question).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, draft, file, questions] = &arguments[..] else { panic!("BASE DRAFT HEAD.toml PROMPTS.jsonl") };
    let open = |path: &str| Checkpoint::open(Path::new(path)).unwrap();
    let file = HeadFile::read(Path::new(file)).unwrap();
    make(&open(base), &file);
    let folder = file.run.output.join("head");
    let options = |name| LoadOptions { template: TemplateChoice::Plain, threads: Some(2), ..LoadOptions::new(name) };
    let base = Local::load(open(base), &LoadOptions { draft_head: Some(folder), ..options("base") }).unwrap();
    let draft = Local::load(open(draft), &options("draft")).unwrap();
    let models = Models::default().with(Seat::BASE, Arc::new(base)).with(Seat::DRAFT, Arc::new(draft));
    let (prompts, mut ways, mut texts) = (prompts(Path::new(questions)), ways(), Vec::new());
    for round in 0..3 {
        for (index, way) in ways.iter_mut().enumerate() {
            let (mut seconds, mut answers) = (0.0, Vec::new());
            (way.tokens, way.steps, way.proposed, way.accepted) = (0, 0, 0, 0);
            let strategy = Recipe::find(way.strategy).unwrap().build(&models, &way.values).unwrap();
            for prompt in &prompts {
                let job = Job { prompt: prompt.clone(), terms: Terms { max_tokens: 96, ..Terms::default() } };
                let started = Instant::now();
                let done = futures::executor::block_on(Trace::collect(run(strategy.clone(), job))).unwrap();
                seconds += started.elapsed().as_secs_f64();
                way.tokens += done.tokens.len();
                for call in done.calls.iter().filter(|call| call.to == Seat::BASE) {
                    way.steps += if call.kind == CallKind::Check { 1 } else { call.tokens };
                    way.accepted += call.accepted.unwrap_or(0);
                    way.proposed += call.proposals.iter().map(|proposed| proposed.tokens).sum::<usize>();
                }
                answers.push(done.text);
            }
            way.seconds = way.seconds.min(seconds);
            if (round, index) == (0, 0) {
                texts = answers;
            } else {
                assert!(answers == texts, "{}: another text than the base's", way.name);
            }
        }
    }
    let alone = ways[0].seconds;
    println!("| way | tokens per step | proposed | accepted | us per token | time |\n|---|---|---|---|---|---|");
    for Way { name, seconds, tokens, steps, proposed, accepted, .. } in &ways {
        let (per_step, per_token) = (*tokens as f64 / *steps as f64, seconds / *tokens as f64 * 1e6);
        let share = 100.0 * *accepted as f64 / (*proposed).max(1) as f64;
        println!("| {name} | {per_step:.2} | {proposed} | {share:.0} % | {per_token:.0} | {:.2} |", seconds / alone);
    }
}
