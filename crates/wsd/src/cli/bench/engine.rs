//! `wsd bench engine`: time and memory of the embedded engine's operations on one model.

mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use wsd::nn::kernels::Simd;
use wsd::nn::shapes::{Recipe, SHAPES, Shape};
use wsd::nn::{Checkpoint, Device, Executor, Format, KvFormat, load, measure};
use wsd::process;
use wsd::train::save_checkpoint;

use super::table::median;
use crate::cli::output::{Output, note};
use crate::cli::{Ending, GlobalArgs, usage};

use report::{Figure, Report};

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

/// The seed of random models, which are the same in every run.
pub(super) const SEED: u64 = 1;
/// Numbers of tokens scored at once.
const SCORED: [usize; 4] = [2, 4, 8, 16];
/// Prompt lengths in tokens.
const PREFILLED: [usize; 2] = [128, 512];
/// Bytes read to measure memory bandwidth: more than any processor's cache holds.
const BANDWIDTH_BYTES: usize = 512 << 20;

#[derive(Args, Debug)]
pub(crate) struct EngineBench {
    /// A shape of random weights (tiny, 150m, 1b, 3b, 8b), a Hugging Face folder, or a GGUF file
    #[arg(value_name = "MODEL", default_value = "150m")]
    model: String,
    /// Number format the weights are converted to [default: q8_0 for random weights, else the model's]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Format>,
    /// Number format of cached keys and values: f16, bf16, f32 or q8_0 [default: f16, on a GPU the type of activations]
    #[arg(long, value_name = "TYPE", value_parser = kv_format)]
    kv_dtype: Option<KvFormat>,
    /// The device to measure: cpu, cuda, cuda:N or cuda:0,1, and others this program was built for
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Processor threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Tokens of context before those decoded or scored; may be repeated
    #[arg(long, value_name = "N", default_values_t = [128])]
    context: Vec<usize>,
    /// Tokens decoded in each run
    #[arg(long, value_name = "N", default_value_t = 32)]
    tokens: usize,
    /// Rounds of all measurements; medians are reported
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Write the random model to this folder (f32, f16 or bf16) and measure nothing
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Share of tokens with the same argmax as in the model saved without this, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "save")]
    agreement: f64,
    /// Print every run and the medians as one JSON object
    #[arg(long)]
    json: bool,
}

/// An operation to measure.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Decode { context: usize },
    Prefill { tokens: usize },
    Score { context: usize, tokens: usize },
}

/// A loaded model, with the cost of loading it.
struct Subject {
    executor: Box<dyn Executor>,
    format: String,
    load_seconds: f64,
    weight_bytes: usize,
    /// Bytes of weights that a decoding step reads.
    step_bytes: usize,
}

pub(super) fn run(bench: &EngineBench, global: &GlobalArgs) -> Result<Ending> {
    if let Some(folder) = &bench.save {
        let shape = Shape::find(&bench.model)
            .ok_or_else(|| usage(format!("only a random shape can be saved, got `{}`", bench.model)))?;
        let recipe = Recipe { seed: SEED, agreement: bench.agreement };
        save_checkpoint(folder, &shape.model(bench.dtype.unwrap_or(Format::BF16), recipe)?, None)?;
        return Ok(Ending::Done);
    }
    if bench.tokens == 0 || bench.repeats == 0 || bench.context.is_empty() {
        return Err(usage("the numbers of tokens, repeats and contexts must be at least 1, got 0"));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(bench.threads.unwrap_or(0)).build()?;
    let report = pool.install(|| measure_all(bench))?;
    let text = if bench.json { format!("{}\n", serde_json::to_string(&report)?) } else { report.text() };
    Output::stdout(global.color).text(&text)?;
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
                let checkpoint = Checkpoint::open(path)?;
                checkpoint.warnings.iter().for_each(|warning| note(warning));
                (checkpoint, bench.dtype, opened)
            }
            None => {
                let shapes = SHAPES.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", ");
                let name = &bench.model;
                bail!("`{name}` must be a file, a folder or a shape\n  hint: the shapes are {shapes}")
            }
        };
        let executor = load(&bench.device, &checkpoint, dtype, bench.kv_dtype)?.executor;
        let load_seconds = opened.elapsed().as_secs_f64();
        let (mut weight_bytes, mut step_bytes) = (checkpoint.weights.total_bytes(), measure::step_bytes(&checkpoint)?);
        let stored = main_format(&checkpoint);
        if let Some(dtype) = dtype {
            let scale = |bytes: usize| (bytes as f64 * bits(dtype) / bits(stored)) as usize;
            (weight_bytes, step_bytes) = (scale(weight_bytes), scale(step_bytes));
        }
        drop(checkpoint);
        if shape.is_some() {
            // Making the random weights took memory that loading a file would not take.
            process::reset_peak();
        }
        Ok(Self { executor, format: dtype.unwrap_or(stored).to_string(), load_seconds, weight_bytes, step_bytes })
    }

    /// Times one run of an operation, in seconds.
    fn time(&mut self, operation: Operation, tokens: usize) -> Result<f64> {
        let model = &mut *self.executor;
        Ok(match operation {
            Operation::Decode { context } => measure::decode(model, context, tokens)?,
            Operation::Prefill { tokens } => measure::prefill(model, tokens)?,
            Operation::Score { context, tokens } => measure::score(model, context, tokens)?,
        })
    }
}

fn kv_format(name: &str) -> Result<KvFormat, String> {
    let known = KvFormat::ALL.map(KvFormat::name).join(", ");
    KvFormat::parse(name).ok_or_else(|| format!("known are {known}"))
}

/// The number format of the largest tensor.
fn main_format(checkpoint: &Checkpoint) -> Format {
    let largest = checkpoint.weights.iter().max_by_key(|tensor| tensor.bytes().len());
    largest.map_or(Format::F32, |tensor| tensor.format)
}

/// Bits per weight.
fn bits(format: Format) -> f64 {
    8.0 * format.block_bytes() as f64 / format.block_values() as f64
}

impl Operation {
    /// All operations, in the order of measurement.
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

    /// Tokens processed in the reported time.
    fn tokens(self) -> usize {
        match self {
            Self::Decode { .. } => 1,
            Self::Prefill { tokens } | Self::Score { tokens, .. } => tokens,
        }
    }
}

/// Runs all measurements.
fn measure_all(bench: &EngineBench) -> Result<Report> {
    let mut subject = Subject::load(bench)?;
    // One token, so that the peak after loading includes its buffers; later figures add KV caches.
    subject.time(Operation::Decode { context: 1 }, 1)?;
    let loaded_peak_bytes = process::peak_bytes();
    let operations = Operation::all(&bench.context);
    let mut times = vec![Vec::new(); operations.len()];
    let (mut bandwidths, mut shares, mut peak_bytes) = (Vec::new(), Vec::new(), None);
    for _ in 0..bench.repeats {
        for (operation, times) in operations.iter().zip(&mut times) {
            times.push(subject.time(*operation, bench.tokens)?);
        }
        // Read before the bandwidth measurement allocates its own memory.
        peak_bytes = peak_bytes.or_else(process::peak_bytes);
        let bandwidth = subject.executor.read_bandwidth(BANDWIDTH_BYTES)?;
        let mut timed = operations.iter().zip(&times);
        let decoded = timed.find(|(operation, _)| matches!(operation, Operation::Decode { .. }));
        if let Some(seconds) = decoded.and_then(|(_, times)| times.last()) {
            shares.push(subject.step_bytes as f64 / bandwidth / seconds);
        }
        bandwidths.push(bandwidth);
    }
    let figure = |(operation, runs): (&Operation, Vec<f64>)| {
        let seconds = median(runs.clone());
        Figure { name: operation.name(), seconds, tokens_per_second: operation.tokens() as f64 / seconds, runs }
    };
    let share = |peak: Option<u64>| peak.map(|peak| peak as f64 / subject.weight_bytes as f64);
    Ok(Report {
        model: bench.model.clone(),
        format: subject.format.clone(),
        threads: rayon::current_num_threads(),
        device: bench.device.to_string(),
        instructions: format!("{:?}", Simd::detect()),
        repeats: bench.repeats,
        load_seconds: subject.load_seconds,
        weight_bytes: subject.weight_bytes,
        step_bytes: subject.step_bytes,
        loaded_peak_bytes,
        loaded_peak_share: share(loaded_peak_bytes),
        peak_bytes,
        peak_share: share(peak_bytes),
        read_bytes_per_second: median(bandwidths),
        decode_share_of_limit: median(shares),
        figures: operations.iter().zip(times).map(figure).collect(),
    })
}
