//! `wsd bench engine`: what the embedded engine takes for each thing it is asked, on one model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use wsd::nn::kernels::Simd;
use wsd::nn::shapes::{Recipe, SHAPES, Shape};
use wsd::nn::train::save_checkpoint;
use wsd::nn::{Checkpoint, Cpu, CpuOptions, Format, measure};
use wsd::process;

use super::table::{aligned, median, short};
use crate::cli::output::Output;
use crate::cli::{Ending, GlobalArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd bench engine 1b
      A Llama model of 1.1 billion random weights in Q8_0.
  wsd bench engine 150m --dtype bf16 --threads 1
      Another shape and format, on one thread.
  wsd bench engine ./gemma-2-9b.Q4_K_M.gguf --context 128 --context 4096
      A model of your own, after short and long contexts.
  wsd bench engine 1b --dtype bf16 --save random-1b
      Write the random model as a Hugging Face folder, for other programs to be measured with.";

/// Random models are always the same.
pub(super) const SEED: u64 = 1;
/// Tokens that are scored at once.
const SCORED: [usize; 4] = [2, 4, 8, 16];
/// Tokens of prompts.
const PREFILLED: [usize; 2] = [128, 512];
/// Bytes read to see how fast memory is: more than any cache holds.
const BANDWIDTH_BYTES: usize = 512 << 20;

#[derive(Args, Debug)]
pub(crate) struct EngineBench {
    /// A shape of random weights (tiny, 150m, 1b, 3b, 8b), a Hugging Face folder, or a GGUF file
    #[arg(value_name = "MODEL", default_value = "150m")]
    model: String,
    /// Number format the weights are converted to [default: q8_0 for random weights, else the model's]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Format>,
    /// Processor threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Tokens that stand before those written or scored; may be repeated
    #[arg(long, value_name = "N", default_values_t = [128])]
    context: Vec<usize>,
    /// Tokens written in each run
    #[arg(long, value_name = "N", default_value_t = 32)]
    tokens: usize,
    /// Run everything so many times, in turn, and tell the medians
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Write the random model to this folder (f32, f16 or bf16), and measure nothing
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// How often the likeliest token of the model written is that of one written without this, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "save")]
    agreement: f64,
    /// Print one JSON object: every run and the medians
    #[arg(long)]
    json: bool,
}

/// One thing that is asked.
#[derive(Clone, Copy, Debug)]
enum Question {
    Decode { context: usize },
    Prefill { tokens: usize },
    Score { context: usize, tokens: usize },
}

/// A model that is ready, and what became of the machine.
struct Subject {
    cpu: Cpu,
    format: String,
    load_seconds: f64,
    weight_bytes: usize,
    /// Bytes of weights that a step reads.
    step_bytes: usize,
}

pub(super) fn run(bench: &EngineBench, look: &GlobalArgs) -> Result<Ending> {
    if let Some(folder) = &bench.save {
        let shape = Shape::find(&bench.model).with_context(|| format!("`{}` is no shape to be saved", bench.model))?;
        let recipe = Recipe { seed: SEED, agreement: bench.agreement };
        save_checkpoint(folder, &shape.model(bench.dtype.unwrap_or(Format::BF16), recipe)?)?;
        return Ok(Ending::Done);
    }
    if bench.tokens == 0 || bench.repeats == 0 || bench.context.is_empty() {
        bail!("there is nothing to measure: tokens, repeats and contexts must be above 0");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(bench.threads.unwrap_or(0)).build()?;
    let report = pool.install(|| report(bench))?;
    let text = if bench.json { format!("{report}\n") } else { text(&report) };
    Output::stdout(look.color).text(&text)?;
    Ok(Ending::Done)
}

impl Subject {
    fn load(bench: &EngineBench) -> Result<Self> {
        let path = Path::new(&bench.model);
        let shape = Shape::find(&bench.model).filter(|_| !path.exists());
        let (checkpoint, dtype, opened) = match shape {
            Some(shape) => {
                let recipe = Recipe { seed: SEED, agreement: 1.0 };
                let checkpoint = shape.model(bench.dtype.unwrap_or(Format::Q8_0), recipe)?;
                (checkpoint, None, Instant::now())
            }
            None if path.exists() => {
                let opened = Instant::now();
                (Checkpoint::open(path)?, bench.dtype, opened)
            }
            None => bail!(
                "`{}` is no file, no folder and no shape\n  hint: the shapes are {}",
                bench.model,
                SHAPES.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", ")
            ),
        };
        let cpu = Cpu::load_with(&checkpoint, CpuOptions { dtype, ..CpuOptions::default() })?;
        let load_seconds = opened.elapsed().as_secs_f64();
        let (mut weight_bytes, mut step_bytes) = (checkpoint.weights.total_bytes(), measure::step_bytes(&checkpoint)?);
        let stored = matrices(&checkpoint);
        if let Some(dtype) = dtype {
            let scale = |bytes: usize| (bytes as f64 * bits(dtype) / bits(stored)) as usize;
            (weight_bytes, step_bytes) = (scale(weight_bytes), scale(step_bytes));
        }
        drop(checkpoint);
        if shape.is_some() {
            // The random weights were made in memory: what matters is what stays.
            process::reset_peak();
        }
        Ok(Self { cpu, format: dtype.unwrap_or(stored).to_string(), load_seconds, weight_bytes, step_bytes })
    }

    /// One sample, in seconds.
    fn ask(&mut self, question: Question, tokens: usize) -> Result<f64> {
        let cpu = &mut self.cpu;
        Ok(match question {
            Question::Decode { context } => measure::decode(cpu, context, tokens)?,
            Question::Prefill { tokens } => measure::prefill(cpu, tokens)?,
            Question::Score { context, tokens } => measure::score(cpu, context, tokens)?,
        })
    }
}

/// The format that most bytes are in.
fn matrices(checkpoint: &Checkpoint) -> Format {
    let largest = checkpoint.weights.iter().max_by_key(|tensor| tensor.bytes().len());
    largest.map_or(Format::F32, |tensor| tensor.format)
}

fn bits(format: Format) -> f64 {
    8.0 * format.block_bytes() as f64 / format.block_values() as f64
}

impl Question {
    /// All, in the order they are asked in.
    fn all(contexts: &[usize]) -> Vec<Self> {
        let mut all: Vec<_> = PREFILLED.map(|tokens| Self::Prefill { tokens }).into();
        for &context in contexts {
            all.push(Self::Decode { context });
            all.extend(SCORED.map(|tokens| Self::Score { context, tokens }));
        }
        all
    }

    fn name(self) -> String {
        match self {
            Self::Decode { context } => format!("decode@{context}"),
            Self::Prefill { tokens } => format!("prefill {tokens}"),
            Self::Score { context, tokens } => format!("score {tokens}@{context}"),
        }
    }

    /// Tokens that its time is for.
    fn tokens(self) -> usize {
        match self {
            Self::Decode { .. } => 1,
            Self::Prefill { tokens } | Self::Score { tokens, .. } => tokens,
        }
    }
}

/// Everything measured.
fn report(bench: &EngineBench) -> Result<Value> {
    let mut subject = Subject::load(bench)?;
    // What a first token takes beside the weights; later figures have keys and values of many
    // positions in memory.
    subject.ask(Question::Decode { context: 1 }, 1)?;
    let loaded = process::peak_bytes();
    let questions = Question::all(&bench.context);
    let (mut times, mut bandwidths, mut shares) = (vec![Vec::new(); questions.len()], Vec::new(), Vec::new());
    let mut peak = None;
    for _ in 0..bench.repeats {
        for (question, times) in questions.iter().zip(&mut times) {
            times.push(subject.ask(*question, bench.tokens)?);
        }
        // Before memory is filled to see how fast it is.
        peak = peak.or_else(process::peak_bytes);
        let bandwidth = measure::read_bandwidth(BANDWIDTH_BYTES)?;
        let decoded = questions.iter().zip(&times).find(|(question, _)| matches!(question, Question::Decode { .. }));
        if let Some(seconds) = decoded.and_then(|(_, times)| times.last()) {
            shares.push(subject.step_bytes as f64 / bandwidth / seconds);
        }
        bandwidths.push(bandwidth);
    }
    let rows = questions.iter().zip(&times).map(|(question, times)| {
        let seconds = median(times.clone());
        json!({"name": question.name(), "seconds": seconds, "tokens_per_second": question.tokens() as f64 / seconds, "runs": times})
    });
    let share = |peak: Option<u64>| peak.map(|peak| peak as f64 / subject.weight_bytes as f64);
    Ok(json!({
        "model": bench.model, "format": subject.format, "threads": rayon::current_num_threads(),
        "instructions": format!("{:?}", Simd::detect()), "repeats": bench.repeats,
        "load_seconds": subject.load_seconds, "weight_bytes": subject.weight_bytes, "step_bytes": subject.step_bytes,
        "loaded_peak_bytes": loaded, "loaded_peak_share": share(loaded), "peak_bytes": peak, "peak_share": share(peak),
        "read_bytes_per_second": median(bandwidths), "decode_share_of_limit": median(shares),
        "figures": rows.collect::<Vec<_>>(),
    }))
}

/// The report for people.
fn text(report: &Value) -> String {
    let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    let word = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    let head = ["", "ms", "tokens/s"].map(str::to_owned);
    let lines = report["figures"].as_array().into_iter().flatten().map(|row| {
        let value = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        [name, short(1e3 * value("seconds")), short(value("tokens_per_second"))]
    });
    format!(
        "{} in {}, {} threads, {}; medians of {}\n\n{}\nload {} s; memory {} MB at most to the first token, {} times the weights, and {} times in all\n\
         memory is read at {} GB/s, of which writing uses {} %\n",
        word("model"),
        word("format"),
        report["threads"],
        word("instructions"),
        report["repeats"],
        aligned(std::iter::once(head).chain(lines)),
        short(number("load_seconds")),
        short(number("loaded_peak_bytes") / 1e6),
        short(number("loaded_peak_share")),
        short(number("peak_share")),
        short(number("read_bytes_per_second") / 1e9),
        short(100.0 * number("decode_share_of_limit")),
    )
}
