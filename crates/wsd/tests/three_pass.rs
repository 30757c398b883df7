//! WSD over real weights against an independent script that does the paper's three passes with transformers
//! (`scripts/three_pass.py`, `scripts/bf16_goldens.py`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wsd_core::{
    CHUNK_TOKENS, Completion, Engine, FinishReason, Job, Models, Prompt, Recipe, Rule, Seat, Terms, Token, Trace,
    Values, run,
};
use wsd_nn::{Checkpoint, Format, KvFormat, LoadOptions, Local};

#[derive(serde::Deserialize)]
struct ThreePasses {
    base: String,
    draft: String,
    max_tokens: usize,
    runs: Vec<Run>,
}

#[derive(serde::Deserialize)]
struct Run {
    prompt: String,
    logprobs: Vec<f64>,
    switch_at: Option<usize>,
    kept_ids: Vec<Token>,
    continued_ids: Vec<Token>,
    text: String,
    finish: FinishReason,
}

fn weights() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("WSD_DATA").map_or(beside, PathBuf::from).join("weights");
    if !folder.is_dir() {
        eprintln!("skipped: no data folder (set WSD_DATA)");
        return None;
    }
    Some(folder)
}

fn load(folder: &Path, dtype: Option<Format>) -> Arc<Local> {
    let options = LoadOptions {
        dtype,
        kv_dtype: Some(KvFormat::F32),
        ..LoadOptions::new(folder.file_name().unwrap().to_string_lossy())
    };
    Arc::new(Local::load(Checkpoint::open(folder).unwrap(), &options).unwrap())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn complete(models: &Models, job: Job, values: &Values) -> Completion {
    Trace::collect(run(Recipe::find("wsd").unwrap().build(models, values).unwrap(), job)).await.unwrap()
}

fn agrees(golden: &str) {
    let Some(weights) = weights() else { return };
    let golden: ThreePasses = serde_json::from_str(golden).unwrap();
    let name = |path: &str| weights.join(Path::new(path).file_name().unwrap());
    let models = Models::default()
        .with(Seat::BASE, load(&name(&golden.base), None))
        .with(Seat::DRAFT, load(&name(&golden.draft), None));
    for run in &golden.runs {
        for chunk_tokens in [1, 5, 8, 64] {
            let job = Job {
                prompt: Prompt::Raw(run.prompt.clone()),
                terms: Terms { max_tokens: golden.max_tokens, ..Terms::default() },
            };
            let got = wait(complete(&models, job, &Values::default().with(&CHUNK_TOKENS, chunk_tokens).unwrap()));
            let ids: Vec<_> = got.tokens.iter().map(|token| token.id).collect();
            let context = format!("{:?} by {chunk_tokens}", run.prompt);
            assert_eq!(got.handover.map(|handover| handover.at), run.switch_at, "{context}");
            assert_eq!(ids, [run.kept_ids.clone(), run.continued_ids.clone()].concat(), "{context}");
            assert_eq!(got.text, run.text, "{context}");
            assert_eq!(got.finish_reason, run.finish, "{context}");
            for (token, want) in got.tokens.iter().zip(&run.logprobs).filter(|(token, _)| token.by == Seat::DRAFT) {
                assert!((token.logprob.unwrap() - want).abs() < 1e-4, "{context}");
            }
            if let Some(at) = run.switch_at.filter(|_| chunk_tokens <= 8) {
                let drafted: usize =
                    got.calls.iter().filter(|call| call.to == Seat::DRAFT).map(|call| call.tokens).sum();
                // A draft token spells at least one character, and the draft stops a word or so after the switch.
                let kept: usize = got.tokens[..=at].iter().map(|token| token.text.chars().count()).sum();
                assert!(drafted <= kept + 2 * chunk_tokens + 16, "{drafted} drafted for {kept} characters, {context}");
            }
        }
    }
}

#[test]
fn characters_from_pieces() {
    agrees(include_str!("goldens/three_pass.json"));
}

#[test]
fn pieces_from_characters() {
    agrees(include_str!("goldens/three_pass_swapped.json"));
}

#[test]
fn to_the_end_of_the_text() {
    agrees(include_str!("goldens/three_pass_swapped_long.json"));
}

#[derive(serde::Deserialize)]
struct Bf16 {
    models: Vec<Bf16Model>,
}

#[derive(serde::Deserialize)]
struct Bf16Model {
    model: String,
    prompts: Vec<Bf16Prompt>,
    pairs: Vec<Pair>,
}

/// Prompt, response, log-probabilities in bfloat16, the switch in bfloat16 and in float32, and the
/// margin of the latter.
type Pair = (Vec<Token>, Vec<Token>, Vec<f64>, Option<usize>, Option<usize>, f64);

#[derive(serde::Deserialize)]
struct Bf16Prompt {
    ids: Vec<Token>,
    logprobs: Vec<Option<f64>>,
}

/// Weights in bfloat16. transformers rounds every intermediate value to bfloat16 too, which moves
/// its own log-probabilities by up
/// to 0.2 from its float32 ones; ours stay float32 between the matrices, so they lie between the
/// two and cannot follow either to
/// the last digit. The switch is what must agree.
#[test]
fn bfloat16_switches_where_transformers_does() {
    let Some(weights) = weights() else { return };
    let golden: Bf16 = serde_json::from_str(include_str!("goldens/bf16.json")).unwrap();
    for model in golden.models {
        let engine = load(&weights.join(Path::new(&model.model).file_name().unwrap()), Some(Format::BF16));
        let score =
            |ids: &[Token], from: usize| wait(async { engine.open(ids).await.unwrap().score(from).await.unwrap() });
        let mut differences = vec![];
        for prompt in &model.prompts {
            let got = score(&prompt.ids, 1);
            differences.extend(got.iter().zip(&prompt.logprobs[1..]).map(|(got, want)| (got - want.unwrap()).abs()));
        }
        let (mut as_bf16, mut as_f32) = (0, 0);
        for (prompt, response, logprobs, bf16_switch, f32_switch, _) in &model.pairs {
            let got = score(&[prompt.clone(), response.clone()].concat(), prompt.len());
            differences.extend(got.iter().zip(logprobs).map(|(got, want)| (got - want).abs()));
            let at = Rule::default().accept_index(&got);
            as_bf16 += usize::from(at == *bf16_switch);
            as_f32 += usize::from(at == *f32_switch);
        }
        differences.sort_by(f64::total_cmp);
        let within = differences.partition_point(|&d| d <= 5e-2) as f64 / differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        println!(
            "{}: switch as bf16 {as_bf16}/100, as f32 {as_f32}/100; log-probabilities within 0.05: {:.2} %, mean \
            difference {mean:.4}, largest {:.3}",
            model.model,
            within * 100.0,
            differences.last().unwrap()
        );
        assert!(as_bf16 >= 99 && as_f32 >= 99);
        assert!(within > 0.95 && mean < 0.02);
    }
}

/// Q8_0 against float32, by log-probabilities of the same texts.
#[test]
fn eight_bit_weights_stay_close() {
    let Some(weights) = weights() else { return };
    let golden: Bf16 = serde_json::from_str(include_str!("goldens/bf16.json")).unwrap();
    for model in golden.models {
        let folder = weights.join(Path::new(&model.model).file_name().unwrap());
        let (exact, eight) = (load(&folder, None), load(&folder, Some(Format::Q8_0)));
        let (mut sum, mut count) = (0.0, 0);
        for (prompt, response, ..) in &model.pairs {
            let ids = [prompt.clone(), response.clone()].concat();
            let score =
                |engine: &Local| wait(async { engine.open(&ids).await.unwrap().score(prompt.len()).await.unwrap() });
            for (one, other) in score(&exact).iter().zip(score(&eight)) {
                sum += (one - other).abs();
                count += 1;
            }
        }
        println!("{}: Q8_0 moves log-probabilities by {:.4} nats on average", model.model, sum / f64::from(count));
        assert!(sum / f64::from(count) < 0.05);
    }
}
