//! `wsd compress`: a model with an embedding and a head of lower rank, tuned to stay close to the
//! original, and a report of what that costs and saves.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;
use wsd::train::compress::{CompressOptions, CompressedTable, FACTORIZATIONS, Factorization, Size, Usage, compress};
use wsd::train::fidelity::{Fidelity, fidelity};
use wsd::train::{
    AdapterEntry, Choice, Example, Finished, Layout, ModelOptions, Objective, Reporter as _, RunLock, Steps, Task,
    Term, TrainableModel, Trainer, TrainerOptions, merge, save_checkpoint, save_folder,
};
use wsd_core::Values;
use wsd_core::files::write_whole;
use wsd_nn::{Checkpoint, Device, arch};

use super::progress::Rows;
use super::train::reporter::ConsoleReporter;
use super::train::stop_on_interrupt;
use super::tuning::TuningArgs;
use super::{Ending, GlobalArgs, note, open, settings_file, usage};
use report::{Cost, Report};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd compress --model pilot --output small --eval held-out.jsonl
      Tables of half the size, and perplexity and divergence from the original.
  wsd compress --model pilot --output small --text corpus.jsonl --steps 300 --eval held-out.jsonl
      The same, tuned for 300 steps to stay close to the original; the same command resumes.
  wsd compress --model pilot --output small --text corpus.jsonl --method weighted
      Tables that keep what the texts use: far closer to the original before any tuning.
  wsd compress --model pilot --output small-svd --method svd --rank 28
  wsd generate --draft small/model --prompt 'Hello'";

/// The targets of a tuning that leaves the layers as they are.
const TABLES: [&str; 4] = ["embed_tokens", "lm_head", "projection", "kept"];

#[derive(Args, Debug)]
pub(crate) struct CompressArgs {
    /// The model: a folder, a .gguf file or a Hugging Face name
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The folder to write; the model is in its folder `model`
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "direction", value_parser = methods(), long_help = about())]
    method: String,
    /// Share of a table's values that its product has at most
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    share: f64,
    /// The rank of the products, instead of a share
    #[arg(long, value_name = "K", conflicts_with = "share")]
    rank: Option<usize>,
    /// Rows of the most frequent tokens of the texts that stay as they are; their size is part of the share
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep: usize,
    /// Passes of `direction` over the rows of a table
    #[arg(long, value_name = "N", default_value_t = 30)]
    epochs: usize,
    /// Texts to tune on, and whose tokens `weighted` and --keep count, a JSON object per line
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Steps of tuning by distillation of the original; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    steps: usize,
    /// Texts to measure on, held out
    #[arg(long, value_name = "FILE")]
    eval: Vec<PathBuf>,
    /// Tensors that the tuning changes
    #[arg(long, value_name = "WHAT", default_value = "all", value_parser = ["all", "tables"])]
    tune: String,
    #[command(flatten)]
    tuning: TuningArgs,
}

fn methods() -> Vec<&'static str> {
    FACTORIZATIONS.iter().map(|method| method.name).collect()
}

fn about() -> String {
    FACTORIZATIONS.iter().map(|method| format!("- {}: {}", method.name, method.about)).collect::<Vec<_>>().join("\n")
}

impl CompressArgs {
    fn method(&self) -> Result<&'static Factorization> {
        Factorization::find(&self.method).context("invariant: one of the table")
    }

    /// Checks that there are texts if, and only if, something reads them.
    fn check_texts(&self) -> Result<()> {
        let readers =
            [("--steps", self.steps > 0), ("--method weighted", self.method()?.needs_texts), ("--keep", self.keep > 0)];
        let reader = readers.iter().find(|(_, reads)| *reads).map(|(name, _)| name);
        match (reader, self.text.is_empty()) {
            (Some(name), true) => Err(usage(format!("`{name}` needs texts\n  hint: name a file of them with --text"))),
            (None, false) => {
                let all = readers.map(|(name, _)| format!("`{name}`")).join(", ");
                Err(usage(format!("`--text` is for one of {all}\n  hint: add one of them")))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) async fn run(args: CompressArgs, global: &GlobalArgs) -> Result<Ending> {
    args.tuning.check()?;
    args.check_texts()?;
    let stop = Arc::new(AtomicBool::new(false));
    tokio::spawn(stop_on_interrupt(stop.clone()));
    let (original, source) = open(&args.model, global)?;
    let reporter = ConsoleReporter { quiet: global.quiet };
    tokio::task::spawn_blocking(move || Job { args, original, source, reporter, stop }.run()).await?
}

/// A compression in progress.
struct Job {
    args: CompressArgs,
    original: Checkpoint,
    /// The folder or file of the original.
    source: PathBuf,
    reporter: ConsoleReporter,
    stop: Arc<AtomicBool>,
}

impl Job {
    fn run(mut self) -> Result<Ending> {
        let (output, options) = (self.args.output.clone(), self.options()?);
        options.check(&self.original)?;
        fs_err::create_dir_all(&output)?;
        let _lock = RunLock::acquire(&output)?;
        if output.join("model").exists() {
            bail!("{}: the folder holds a compressed model\n  hint: name another with --output", output.display());
        }
        let reader = self.args.tuning.reader(&self.original, &output, true)?;
        let (texts, held_out) = (reader.read(&self.args.text)?, reader.read(&self.args.eval)?);
        self.begin()?;
        let Some(tables) = self.factored(options, &texts)? else { return self.stopped() };
        let factored = Checkpoint::open(&output.join("factored"))?;
        let before = self.measure(&factored, &held_out)?;
        if self.args.steps > 0 && !self.tune(&factored, texts)? {
            return self.stopped();
        }
        let end = if self.args.steps > 0 { "tuned" } else { "factored" };
        let model = Checkpoint::open(&output.join(end))?;
        let after = if self.args.steps > 0 { self.measure(&model, &held_out)? } else { None };
        self.reporter.note("measuring memory and speed of both models");
        let cost = Cost::measure(&merge::in_format(&self.original, self.args.tuning.dtype)?, &model)?;
        let report = Report { tables, before, after, cost };
        write_whole(&output.join("report.json"), (serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
        fs_err::rename(output.join(end), output.join("model"))?;
        print!("{}", report.text());
        self.reporter.note(&format!("the model is in {}", output.join("model").display()));
        Ok(Ending::Done)
    }

    fn stopped(&mut self) -> Result<Ending> {
        self.reporter.note("stopped; the same command goes on");
        Ok(Ending::Interrupted)
    }

    fn options(&self) -> Result<CompressOptions> {
        let CompressArgs { share, rank, keep, epochs, tuning, .. } = &self.args;
        let method = self.args.method()?;
        let size = rank.map_or(Size::Share(*share), Size::Rank);
        Ok(CompressOptions { method, size, epochs: *epochs, seed: tuning.seed, usage: None, kept: *keep })
    }

    /// Notes the settings in the folder, or checks that those there are the same.
    fn begin(&self) -> Result<()> {
        let CompressArgs { model, method, share, rank, keep, epochs, text, steps, tune, .. } = &self.args;
        let own = json!({
            "model": model, "method": method, "share": share, "rank": rank, "keep": keep, "epochs": epochs,
            "text": text, "steps": steps, "tune": tune,
        });
        settings_file::begin(&self.args.output, &[self.args.tuning.settings(), own])
    }

    /// Writes the factored model, unless an interrupted compression has done so. Returns its tables, or
    /// `None` if it was stopped.
    fn factored(&mut self, mut options: CompressOptions, texts: &[Example]) -> Result<Option<Vec<CompressedTable>>> {
        let (folder, file) = (self.args.output.join("factored"), self.args.output.join("tables.json"));
        if folder.exists() && file.exists() {
            return report::read_tables(&file).map(Some);
        }
        if options.method.needs_texts || options.kept > 0 {
            options.usage = self.usage(texts)?;
            if options.usage.is_none() {
                return Ok(None);
            }
        }
        let quiet = self.reporter.quiet;
        let report = |name: &str, done: usize, all: usize| {
            if !quiet {
                note(&match done {
                    0 => format!("{name}: singular vectors"),
                    _ => format!("{name}: pass {done} of {all}"),
                });
            }
        };
        let (compressed, tables) = compress(&self.original, &options, report)?;
        write_whole(&file, (serde_json::to_string_pretty(&tables)? + "\n").as_bytes())?;
        save_checkpoint(&folder, &merge::in_format(&compressed, self.args.tuning.dtype)?, Some(&self.source))?;
        Ok(Some(tables))
    }

    /// Reads how texts use the tables. Returns `None` if it was stopped.
    fn usage(&mut self, texts: &[Example]) -> Result<Option<Usage>> {
        self.reporter.note("reading how the texts use the vocabulary:");
        let mut executor = wsd_nn::load(&Device::Cpu, &self.original, None, None)?.executor;
        let mut rows = Rows::new(texts.len(), 0, self.reporter.quiet);
        let usage = Usage::of(&mut *executor, texts, &self.stop, || rows.advance(1))?;
        rows.stop();
        Ok(usage)
    }

    /// The weights of the original, with its blueprint.
    fn teacher(&self) -> Result<(arch::Blueprint, Vec<f32>)> {
        let blueprint = arch::blueprint(&self.original.config)?;
        let weights = Layout::new(&blueprint).read(&self.original)?;
        Ok((blueprint, weights))
    }

    /// Measures a model beside the original.
    fn measure(&mut self, model: &Checkpoint, examples: &[Example]) -> Result<Option<Fidelity>> {
        if examples.is_empty() {
            return Ok(None);
        }
        let (blueprint, (original, reference)) = (arch::blueprint(&model.config)?, self.teacher()?);
        let (threads, max_len) = (self.args.tuning.threads(), self.args.tuning.max_length);
        let options = ModelOptions { threads, max_len, recompute: true, ..ModelOptions::default() };
        let weights = Layout::new(&blueprint).read(model)?;
        let mut trainable = TrainableModel::try_new(&blueprint, &options)?.with_teacher(&original)?;
        self.reporter.note("measuring perplexity and divergence on the held-out texts:");
        let mut rows = Rows::new(examples.len(), 0, self.reporter.quiet);
        let found = fidelity(&mut trainable, [&weights, &reference], examples, |count| rows.advance(count))?;
        rows.stop();
        Ok(Some(found))
    }

    /// Tunes the factored model to the distributions of the original on texts. Returns false if it was
    /// stopped.
    fn tune(&mut self, factored: &Checkpoint, texts: Vec<Example>) -> Result<bool> {
        let args = &self.args;
        let folder = args.output.join("tuning");
        fs_err::create_dir_all(&folder)?;
        let blueprint = arch::blueprint(&factored.config)?;
        let adapter = AdapterEntry::find(if args.tune == "all" { "full" } else { "partial" });
        let mut adapter = Choice::of(adapter.context("invariant: the table has it")?);
        if args.tune != "all" {
            let names = TABLES.map(str::to_owned).to_vec();
            adapter.values = Values::default().with(adapter.entry.settings[0], names)?;
        }
        let options = TrainerOptions {
            adapter,
            seed: args.tuning.seed,
            threads: self.args.tuning.threads(),
            max_len: args.tuning.max_length,
            ..TrainerOptions::default()
        };
        let (original, reference) = self.teacher()?;
        let trainer = Trainer::try_new(&blueprint, Layout::new(&blueprint).read(factored)?, &options)?;
        let mut trainer = trainer.with_teacher(&original, reference)?;
        let objective = Objective::find("distill").context("invariant: the table has it")?;
        let steps = Steps {
            max_steps: Some(args.steps),
            batch_size: args.tuning.batch_size,
            learning_rate: args.tuning.learning_rate,
            save_steps: 100,
            save_total_limit: 1,
            ..Steps::default()
        };
        let terms = vec![Term::new(&Choice::of(objective), texts)];
        let mut task = Task { folder, terms, steps, seed: args.tuning.seed, stop: &self.stop };
        if wsd::train::run(&mut task, &mut trainer, &mut self.reporter)? == Finished::Stopped {
            return Ok(false);
        }
        let layout = trainer.layout().clone();
        let source: Option<&Path> = Some(&self.source);
        let to = args.output.join("tuned");
        save_folder(&to, factored, source, (&layout, trainer.weights()), args.tuning.dtype)?;
        Ok(true)
    }
}
