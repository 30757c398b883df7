//! Remote engines against real servers. `scripts/live_vllm.sh` and `scripts/live_llama_server.sh`
//! run these tests: they set the addresses of the servers, and `WSD_LIVE_MODELS` to a folder with
//! `tiny_base`, `tiny_draft` and `hf_reference.json`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wsd::config::{Partial, Settings};
use wsd::hub::Progress;
use wsd::models;
use wsd_core::{
    CallKind, Completion, Generation, Job, Models, Prompt, Recipe, Sampling, Seat, Step, THRESHOLD, Terms, Token,
    Trace, Values, run,
};

/// Thresholds to try in turn: random models agree so rarely that half the prompts switch only at a
/// small one.
const THRESHOLDS: [f64; 6] = [0.01, 0.003, 0.001, 0.0007, 0.0003, 0.0001];

const PROMPTS: [&str; 20] = [
    "What is free software?",
    "Who may change the document?",
    "How do I copy a program?",
    "Why is there a license?",
    "Tell me about patents.",
    "Give me a list of rights.",
    "What does the user get?",
    "May I sell it?",
    "Is there a warranty?",
    "Name three freedoms.",
    "What is a derived work?",
    "How is source code given?",
    "Where is the copyright notice?",
    "Who wrote this?",
    "Explain the terms to a child.",
    "What about fonts?",
    "Can a company use it?",
    "What happens at the end?",
    "Is it allowed to link?",
    "Ünïcödé: 語言模型?",
];

struct Stderr;

impl Progress for Stderr {
    fn start(&mut self, _file: &str, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self) {}
    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }
}

/// The address of a live server, and the folder of models.
fn live(name: &str) -> Option<(String, PathBuf)> {
    match (std::env::var(name), std::env::var("WSD_LIVE_MODELS")) {
        (Ok(address), Ok(models)) => Some((address, models.into())),
        _ => {
            eprintln!(
                "skipped: {name} and WSD_LIVE_MODELS are not set; see scripts/live_vllm.sh and \
                 scripts/live_llama_server.sh"
            );
            None
        }
    }
}

fn settings(models: &Path, base: Option<&str>, draft: Option<&str>) -> Settings {
    let folder = |name: &str| models.join(name).display().to_string();
    let partial: Partial = serde_json::from_value(json!({
        "models": {
            "base": base.map_or(folder("tiny_base"), str::to_owned),
            "draft": draft.map_or(folder("tiny_draft"), str::to_owned),
        },
        "remote": {
            "base_tokenizer": folder("tiny_base"), "draft_tokenizer": folder("tiny_draft"), "teacher_forcing": true,
        },
    }))
    .unwrap();
    partial.resolve().unwrap()
}

fn load(models: &Path, base: Option<&str>, draft: Option<&str>) -> Models {
    let settings = settings(models, base, draft);
    tokio::task::block_in_place(|| models::load(&settings, settings.recipe.needs, 8, &mut Stderr)).unwrap()
}

async fn complete(models: &Models, prompt: &str, threshold: f64) -> Completion {
    let values = Values::default().with(&THRESHOLD, threshold).unwrap();
    let prompt = Prompt::Chat(vec![wsd_core::Message::new(wsd_core::ChatRole::User, prompt)]);
    let job = Job {
        prompt,
        terms: Terms { max_tokens: 100, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    };
    let mut events = run(Recipe::find("wsd").unwrap().build(models, &values).unwrap(), job);
    let mut trace = Trace::new();
    while let Some(event) = events.next().await {
        trace.push(&event.unwrap());
    }
    trace.finish()
}

/// The embedded pair's answers at the first threshold at which half of them switch.
async fn embedded_answers(embedded: &Models) -> (f64, Vec<Completion>) {
    for threshold in THRESHOLDS {
        let mut answers = Vec::new();
        for prompt in PROMPTS {
            answers.push(complete(embedded, prompt, threshold).await);
        }
        if answers.iter().filter(|answer| answer.handover.is_some()).count() >= PROMPTS.len() / 2 {
            return (threshold, answers);
        }
    }
    panic!("fewer than half the prompts switch at every threshold");
}

/// Checks that both pairs answer every prompt with the same switch and the same tokens.
async fn same_answers(pair: &str, models: &Models, embedded: &Models) {
    let (threshold, wanted) = embedded_answers(embedded).await;
    let (mut switches, mut worst, mut calls) = (Vec::new(), 0f64, Vec::new());
    for (prompt, want) in PROMPTS.into_iter().zip(&wanted) {
        let got = complete(models, prompt, threshold).await;
        let ids = |completion: &Completion| completion.tokens.iter().map(|token| token.id).collect::<Vec<_>>();
        let at = |completion: &Completion| completion.handover.map(|handover| handover.at);
        assert_eq!((at(&got), ids(&got), &got.text), (at(want), ids(want), &want.text), "{pair}: {prompt}");
        let both = got.tokens.iter().zip(&want.tokens).filter_map(|(got, want)| got.logprob.zip(want.logprob));
        worst = both.map(|(got, want)| (got - want).abs()).fold(worst, f64::max);
        let scored = got.calls.iter().filter(|call| call.kind == CallKind::Score).count();
        if models.get(Seat::BASE).unwrap().clone().card().cost.rescores_from_start
            && at(&got).is_some_and(|at| at <= 40)
        {
            assert!(scored <= 3, "{scored} scoring calls for a switch at {:?}", at(&got));
        }
        calls.push(scored);
        switches.push(at(&got).map_or("-".to_owned(), |at| at.to_string()));
    }
    eprintln!(
        "{pair}: {} prompts, switch and tokens equal to the embedded engines'\n  threshold {threshold}, switches at \
         {}\n  scoring calls {calls:?}; largest difference of a log-probability {worst:.1e}",
        PROMPTS.len(),
        switches.join(" ")
    );
    assert!(worst < 1e-3);
}

fn reference(models: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(models.join("hf_reference.json")).unwrap()).unwrap()
}

/// The largest difference from transformers' scores from position `from` on, and the number of
/// greedy tokens, which must be equal.
async fn against_transformers(models: &Models, reference: &Value, name: &str, from: usize) -> (f64, usize) {
    let ids: Vec<Token> = serde_json::from_value(reference[name]["ids"].clone()).unwrap();
    let want: Vec<Option<f64>> = serde_json::from_value(reference[name]["logprobs"].clone()).unwrap();
    let greedy: Vec<Token> = serde_json::from_value(reference[name]["greedy"].clone()).unwrap();
    let base = models.get(Seat::BASE).unwrap().clone();
    let mut session = base.open(&ids).await.unwrap();
    let got = session.score(from).await.unwrap();
    let worst = got.iter().zip(&want[from..]).map(|(got, want)| (got - want.unwrap()).abs()).fold(0.0, f64::max);
    let generation =
        Generation { max_tokens: greedy.len(), sampling: Sampling::default(), top_logprobs: 0, guide: None };
    let mut written = Vec::new();
    let mut steps = session.generate(&generation);
    while let Some(Step::Token(sampled)) = steps.next().await.transpose().unwrap() {
        written.push(sampled.token);
    }
    assert_eq!(written, greedy[..written.len()], "{name}");
    (worst, written.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm_scores_as_transformers_and_answers_as_the_embedded_engine() {
    let Some((vllm, folder)) = live("WSD_LIVE_VLLM") else { return };
    let (remote, embedded) = (load(&folder, Some(&vllm), None), load(&folder, None, None));
    for name in ["a", "b"] {
        let (worst, greedy) = against_transformers(&remote, &reference(&folder), name, 1).await;
        eprintln!(
            "vLLM, sequence {name}: largest difference from transformers {worst:.1e}; {greedy} greedy tokens equal"
        );
        assert!(worst < 1e-4);
    }
    same_answers("base on vLLM, draft embedded", &remote, &embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm_stops_when_the_stream_is_dropped() {
    let Some((vllm, folder)) = live("WSD_LIVE_VLLM") else { return };
    let host = vllm.split("://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let running = async || {
        let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
        stream
            .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find(|line| line.starts_with("vllm:num_requests_running")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let base = load(&folder, Some(&vllm), None).get(Seat::BASE).unwrap().clone();
    let mut session = base.open(&[0, 5, 9]).await.unwrap();
    let generation = Generation {
        max_tokens: 900,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        top_logprobs: 0,
        guide: None,
    };
    let mut steps = session.generate(&generation);
    for _ in 0..3 {
        steps.next().await.unwrap().unwrap();
    }
    let during = running().await;
    drop(steps);
    let left = Instant::now();
    while running().await > 0.0 {
        assert!(left.elapsed() < Duration::from_secs(20), "it continues");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!(
        "vLLM: {during} request running before the stream was dropped, none {} ms after",
        left.elapsed().as_millis()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_drafts_as_the_embedded_engine() {
    let Some((draft, folder)) = live("WSD_LIVE_LLAMA_DRAFT") else { return };
    let embedded = load(&folder, None, None);
    same_answers("base embedded, draft on llama-server", &load(&folder, None, Some(&draft)), &embedded).await;
    if let Some((vllm, _)) = live("WSD_LIVE_VLLM") {
        same_answers("base on vLLM, draft on llama-server", &load(&folder, Some(&vllm), Some(&draft)), &embedded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_scores_by_teacher_forcing() {
    let Some((base, folder)) = live("WSD_LIVE_LLAMA_BASE") else { return };
    let (remote, embedded) = (load(&folder, Some(&base), None), load(&folder, None, None));
    for (name, from) in [("a", 1), ("b", 200)] {
        let (worst, greedy) = against_transformers(&remote, &reference(&folder), name, from).await;
        eprintln!(
            "llama-server, sequence {name} from {from} on: largest difference from transformers {worst:.1e}; {greedy} \
             greedy tokens equal"
        );
        assert!(worst < 1e-4);
    }
    same_answers("base on llama-server by teacher forcing, draft embedded", &remote, &embedded).await;
}
