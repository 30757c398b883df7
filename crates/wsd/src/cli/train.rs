//! `wsd train`: models from nothing, from answers, from preferences.

mod curves;
mod examples;
mod export;
mod run_file;
mod tokenizer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use wsd::hub::{self, HubOptions};
use wsd_nn::{Checkpoint, TemplateChoice, arch};
use wsd_train::{
    self as train, Encoder, Finished, Layout, Learner, Learns, Native, NativeOptions, Objective, State, Task, Tuning,
    Watch,
};

use super::output::note;
use super::{Ending, GlobalArgs};
use examples::Examples;
use run_file::RunFile;

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd train tokenizer --input corpus.jsonl --vocab-size 2048 --eos '</s>' --output tokenizer
  wsd train pretrain --config base.toml
  wsd train sft --config sft.toml
  wsd train dpo --config dpo.toml --resume
      Go on after the last checkpoint.
  wsd train export --model pilot/model --output pilot.gguf --dtype q8_0
      For llama.cpp, and for `--draft pilot.gguf`.";

/// What to train.
#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Learn to predict every next token of texts
    Pretrain(RunArgs),
    /// Learn to answer: to predict the assistant's tokens
    Sft(RunArgs),
    /// Learn to prefer the chosen answer to the rejected one
    Dpo(RunArgs),
    /// Learn a vocabulary: byte-level BPE
    Tokenizer(tokenizer::TokenizerArgs),
    /// Write a model as a GGUF file
    Export(export::ExportArgs),
}

/// A run, described by the file that `--config` names.
#[derive(Args, Debug)]
struct RunArgs {
    /// Go on after the last checkpoint of the run's folder
    #[arg(long)]
    resume: bool,
}

pub(crate) async fn run(args: TrainArgs, look: &GlobalArgs) -> Result<Ending> {
    let (name, args) = match args.what {
        What::Pretrain(args) => ("pretrain", args),
        What::Sft(args) => ("sft", args),
        What::Dpo(args) => ("dpo", args),
        What::Tokenizer(args) => return tokenizer::run(&args),
        What::Export(args) => return export::run(&args, look),
    };
    let objective = Objective::find(name).context("invariant: every objective is in the table")?;
    let path = look.config.as_deref().context("a run needs its file: --config run.toml")?;
    let file = RunFile::read(path, objective)?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            told.store(true, Ordering::Relaxed);
            note("stopping after this step; once more stops at once");
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(130);
        }
    });
    let source = Source::open(&file, look)?;
    let quiet = look.quiet;
    let work = move || work(&file, objective, &source, args.resume, quiet, &stop);
    tokio::task::spawn_blocking(work).await?
}

/// The model that is trained, as it is before.
struct Source {
    checkpoint: Checkpoint,
    /// Where its small files lie.
    folder: PathBuf,
    /// It has weights.
    trained: bool,
}

impl Source {
    fn open(file: &RunFile, look: &GlobalArgs) -> Result<Self> {
        let model = &file.model;
        if let (Some(config), Some(folder)) = (&model.config, &model.tokenizer) {
            let checkpoint = Checkpoint::untrained(config.clone(), folder)?;
            return Ok(Self { checkpoint, folder: folder.clone(), trained: false });
        }
        let name = model.from.as_deref().unwrap_or_default();
        let folder = hub::resolve(name, &HubOptions::from_env(), look.progress().as_mut())?;
        let checkpoint = Checkpoint::open(&folder)?;
        if let Some(key) = checkpoint.config.keys().find(|key| key.starts_with("wsd_")) {
            bail!(
                "{name}: a GGUF file of this architecture holds its weights in another order (`{key}`)\n  hint: train the \
                 Hugging Face folder it was made from"
            );
        }
        Ok(Self { checkpoint, folder, trained: true })
    }

    fn weights(&self, layout: &Layout, seed: u64) -> Result<Vec<f32>> {
        if self.trained {
            return Ok(layout.read(&self.checkpoint)?);
        }
        let spread = self.checkpoint.config.get("initializer_range").and_then(Value::as_f64);
        let plan = arch::blueprint(&self.checkpoint.config)?;
        Ok(train::random(&plan, layout, spread.unwrap_or(train::INITIALIZER_RANGE), seed))
    }
}

fn work(
    file: &RunFile,
    objective: &'static Objective,
    source: &Source,
    resume: bool,
    quiet: bool,
    stop: &AtomicBool,
) -> Result<Ending> {
    let checkpoint = &source.checkpoint;
    let plan = arch::blueprint(&checkpoint.config)?;
    open_folder(&file.output, &file.resolved()?, resume)?;
    let max_len = if file.data.packing { None } else { Some(file.data.max_length) };
    let encoder = Encoder::new(checkpoint, &template(&file.model.template)?, plan.vocab, max_len)?;
    let examples = Examples { objective, encoder: &encoder, data: &file.data, folder: &file.output };
    let [examples, evaluation] = examples.read(quiet)?;

    let layout = Layout::new(&plan);
    let start = source.weights(&layout, file.seed)?;
    let (mut tuning, learnt, learning) = Tuning::new(&layout, start, file.lora.as_ref(), file.seed)?;
    let mut trainee = Native::new(
        &plan,
        &NativeOptions {
            threads: file.threads.unwrap_or(1),
            max_len: file.data.max_length.max(longest(&examples)).max(longest(&evaluation)),
            recompute: file.train.gradient_checkpointing,
            trained: &|name| tuning.changes(name),
        },
    )?;
    let mut task = Task {
        folder: file.output.clone(),
        objective,
        steps: file.train.clone(),
        preference: file.dpo.clone(),
        seed: file.seed,
        examples,
        evaluation,
        stop,
    };
    let mut watch = Teller { quiet };
    watch.note(&summary(&task, &layout, &learning));
    if objective.learns == Learns::Preferences {
        task.refer(&mut trainee, tuning.weights(&learnt))?;
    }
    let mut state = State { learner: Learner::new(&learning, learnt), ..State::default() };
    if state.load_latest(&file.output)? {
        watch.note(&format!("going on after step {}", state.step));
    }
    let finished = train::run(&mut task, &mut trainee, &mut tuning, &mut state, &mut watch)?;
    curves::draw(&file.output, &format!("{} {}", objective.name, file.output.display()))?;
    if finished == Finished::Stopped {
        watch.note(&format!("stopped after step {}; --resume goes on", state.step));
        return Ok(Ending::Interrupted);
    }
    let model = file.output.join("model");
    let weights = tuning.weights(&state.learner.weights);
    train::save_folder(&model, checkpoint, Some(&source.folder), &layout, weights, file.format()?)?;
    watch.note(&format!("the model is in {}", model.display()));
    Ok(Ending::Done)
}

/// Make the run's folder, or see that it is the same run that is to go on. A run has begun with its first checkpoint.
fn open_folder(folder: &Path, resolved: &str, resume: bool) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    let path = folder.join("config.toml");
    if train::saved(folder)?.is_empty() && !folder.join("model").exists() {
        train::forget_reference(folder)?;
        return Ok(wsd_nn::files::write_whole(&path, resolved.as_bytes())?);
    }
    match fs_err::read_to_string(&path)? {
        _ if !resume => bail!(
            "there is a run in {} already\n  hint: --resume goes on with it; or name another `output`",
            folder.display()
        ),
        before if before != resolved => {
            bail!("{}: the run has begun with other settings\n  hint: compare it with yours", path.display())
        }
        _ => Ok(()),
    }
}

fn template(name: &str) -> Result<TemplateChoice> {
    Ok(match name {
        "own" => TemplateChoice::Own,
        "plain" => TemplateChoice::Plain,
        path => TemplateChoice::Source { name: path.into(), text: fs_err::read_to_string(path)? },
    })
}

fn longest(examples: &[train::Example]) -> usize {
    examples.iter().flat_map(|example| &example.sequences).map(|sequence| sequence.tokens.len()).max().unwrap_or(0)
}

fn summary(task: &Task<'_>, layout: &Layout, learning: &Layout) -> String {
    let tokens: usize = task.examples.iter().map(train::Example::tokens).sum();
    format!(
        "{}: {} examples of {tokens} tokens, {} to evaluate on; {} of {} weights learn; {} steps",
        task.objective.name,
        task.examples.len(),
        task.evaluation.len(),
        learning.len(),
        layout.len(),
        task.schedule().total_steps,
    )
}

/// Tells of a run, a line at a time.
struct Teller {
    quiet: bool,
}

impl Watch for Teller {
    fn progress(&mut self, row: &Map<String, Value>, total_steps: usize, left: f64) {
        if self.quiet {
            return;
        }
        let step = row.get("step").and_then(Value::as_u64).unwrap_or_default();
        let shown = row.iter().filter(|(key, _)| !matches!(key.as_str(), "step" | "epoch" | "time"));
        let shown: String = shown.map(|(key, value)| format!("  {key} {}", short(value))).collect();
        note(&format!("step {step} of {total_steps}{shown}  {} left", duration(left)));
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }
}

/// Four digits.
fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number != 0.0 && number.abs() < 1e-3 => format!("{number:.2e}"),
        Some(number) if number.abs() >= 1e4 => format!("{number:.0}"),
        Some(number) => format!("{number:.4}"),
        None => value.to_string(),
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
