//! `wsd merge`: fine-tunes of one base become one model.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use wsd::train::merge::{self, Expert, ExpertSource, MERGES, MergeMethod, MergeOptions, SmileOptions};
use wsd::train::{save_checkpoint, save_tensors};
use wsd_nn::adapter::{CONFIG_FILE, WEIGHTS_FILE};
use wsd_nn::{Adapter, Checkpoint, Format, Spelling, arch};

use super::{Ending, GlobalArgs, note, open, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd merge ties --base ./base --model ./helpful --model ./harmless --model ./honest \\
      --density 0.2 --output merged
      One model of three, by arithmetic on their weights.
  wsd merge smile --base ./base --model ./helpful --model ./harmless --rank 64 --output routed
      The base with routed experts of low rank: a folder that --draft takes.
  wsd merge task_arithmetic --base ./base --model ./harmless/adapter --weight -1 --output unlearned
      A LoRA adapter counts as an expert too.";

/// The method that is not computed weight by weight.
const SMILE: &str = "smile";

#[derive(Args, Debug)]
pub(crate) struct MergeArgs {
    /// The method
    #[arg(value_name = "METHOD", value_parser = methods(), long_help = about_methods())]
    method: String,
    /// The model that all others were tuned from: a folder, a .gguf file or a Hugging Face name
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// A fine-tune of the base, or the folder of a LoRA adapter of it; may be repeated
    #[arg(long = "model", value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// The weight of each model, in their order [default: 1 each]
    #[arg(long = "weight", value_name = "W", allow_negative_numbers = true)]
    weights: Vec<f32>,
    /// The folder to write
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Factor on the sum of changes
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    scale: f32,
    /// Share of changes that ties and dare keep
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    density: f32,
    /// Position of slerp between the base, 0, and the model, 1
    #[arg(long, value_name = "T", default_value_t = 0.5)]
    t: f32,
    /// Seed of dare's choices
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Rank of the experts of smile
    #[arg(long, value_name = "K", default_value_t = 64)]
    rank: usize,
    /// Rows of the router of smile for each expert
    #[arg(long, value_name = "K", default_value_t = 8)]
    router_rank: usize,
    /// Experts that each token takes in smile
    #[arg(long, value_name = "N", default_value_t = 1)]
    experts_per_token: usize,
    /// Number format of the weights: bf16, f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    dtype: Format,
}

fn methods() -> Vec<&'static str> {
    MERGES.iter().map(|method| method.name).chain([SMILE]).collect()
}

fn about_methods() -> String {
    let lines = MERGES.iter().map(|method| format!("- {}: {}", method.name, method.about));
    let smile = format!("- {SMILE}: the base plus experts of low rank, chosen for each token (arXiv 2408.10174)");
    lines.chain([smile]).collect::<Vec<_>>().join("\n")
}

pub(crate) fn run(args: &MergeArgs, global: &GlobalArgs) -> Result<Ending> {
    if !args.weights.is_empty() && args.weights.len() != args.models.len() {
        let (models, weights) = (args.models.len(), args.weights.len());
        return Err(usage(format!("`--weight` must be given once for each of {models} models, got {weights}")));
    }
    if args.output.exists() {
        bail!("{}: the folder exists\n  hint: name another with --output", args.output.display());
    }
    let (base, source) = open(&args.base, global)?;
    let spelling = Spelling::of(&arch::blueprint(&base.config)?);
    let weights = args.weights.iter().copied().chain(std::iter::repeat(1.0));
    let experts = args.models.iter().zip(weights).map(|(name, weight)| {
        let adapter = Path::new(name).join(CONFIG_FILE);
        let is_adapter = adapter.is_file() && !Path::new(name).join("config.json").exists();
        let source = if is_adapter {
            ExpertSource::Adapter(Adapter::open(Path::new(name), &spelling)?)
        } else {
            ExpertSource::Model(Box::new(open(name, global)?.0))
        };
        Ok(Expert { name: name.clone(), weight, source })
    });
    let experts = experts.collect::<Result<Vec<_>>>()?;
    match MERGES.iter().find(|method| method.name == args.method) {
        Some(method) => by_weights(args, method, (&base, &source), &experts)?,
        None => by_routing(args, (&base, &source), &experts, global)?,
    }
    if !global.quiet {
        note(&format!("{} models by {} in {}", experts.len(), args.method, args.output.display()));
    }
    Ok(Ending::Done)
}

fn by_weights(
    args: &MergeArgs,
    method: &MergeMethod,
    (base, source): (&Checkpoint, &Path),
    experts: &[Expert],
) -> Result<()> {
    let options = MergeOptions { scale: args.scale, density: args.density, t: args.t, seed: args.seed };
    let merged = merge::merge(base, experts, method, options, args.dtype)?;
    Ok(save_checkpoint(&args.output, &merged, Some(source))?)
}

fn by_routing(
    args: &MergeArgs,
    (base, source): (&Checkpoint, &Path),
    experts: &[Expert],
    global: &GlobalArgs,
) -> Result<()> {
    let MergeArgs { rank, router_rank, experts_per_token, .. } = *args;
    let options = SmileOptions { rank, router_rank, experts_per_token, format: args.dtype };
    let progress = |done: usize, all: usize| {
        if !global.quiet && (done == all || done.is_multiple_of(50)) {
            note(&format!("{done} of {all} linear layers"));
        }
    };
    let (matrices, config) = merge::smile(base, experts, options, progress)?;
    let partial = args.output.with_extension("partial");
    save_checkpoint(&partial, &merge::in_format(base, args.dtype)?, Some(source))?;
    save_tensors(&partial.join(WEIGHTS_FILE), &matrices)?;
    fs_err::write(partial.join(CONFIG_FILE), serde_json::to_string_pretty(&config)? + "\n")?;
    Ok(fs_err::rename(&partial, &args.output)?)
}
