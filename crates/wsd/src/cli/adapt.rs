//! `wsd adapt`: a model that adapts itself, offline, to a stream of unlabelled texts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Map, Value, json};
use wsd::config::ConfigError;
use wsd::train::adapt::{AdaptOptions, Adaptation, Domain};
use wsd::train::{
    ADAPTERS, AdapterEntry, Choice, Finished, Layout, Objective, Reporter as _, RunLock, Term, Trainer, TrainerOptions,
    save_folder,
};
use wsd_core::files::write_whole;
use wsd_nn::{Checkpoint, arch};

use super::train::reporter::ConsoleReporter;
use super::train::stop_on_interrupt;
use super::tuning::{TextReader, TuningArgs};
use super::{Ending, GlobalArgs, open, settings_file};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd adapt --model pilot --stream news.jsonl --stream law.jsonl \\
      --eval old=old.jsonl --eval law=law-held-out.jsonl --output adapted
      Perplexity on both after each domain; adapted/after-2-law holds the model. The same command
      resumes.

A reconstruction of OoPk (arXiv 2506.19022), whose code and numbers are not published, for texts.";

/// The name of the scores in a snapshot.
const SCORES: &str = "scores.json";

#[derive(Args, Debug)]
pub(crate) struct AdaptArgs {
    /// The model: a folder, a .gguf file or a Hugging Face name
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Unlabelled texts of one domain, a JSON object per line; may be repeated, in the order of the stream
    #[arg(long, value_name = "FILE", required = true)]
    stream: Vec<PathBuf>,
    /// Texts to measure perplexity on after each domain; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    eval: Vec<(String, PathBuf)>,
    /// The folder to write; a snapshot after each domain is in it
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// The tensors that adapt, as in run files
    #[arg(long, value_name = "ADAPTER", default_value = "orthogonal", value_parser = adapters())]
    adapter: String,
    /// Distributions of the teacher to learn: soft, or hard for its likeliest token
    #[arg(long, value_name = "KIND", default_value = "soft", value_parser = ["soft", "hard"])]
    labels: String,
    /// Share of tokens that the student reads masked
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    mask: f64,
    /// Share of the teacher that stays in a step
    #[arg(long, value_name = "M", default_value_t = 0.999)]
    momentum: f64,
    /// Begin each domain with the weights of the start and a new optimizer
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    tuning: TuningArgs,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let parts = text.split_once('=').filter(|(name, file)| !name.is_empty() && !file.is_empty());
    parts.map(|(name, file)| (name.to_owned(), file.into())).ok_or_else(|| "must be NAME=FILE".to_owned())
}

fn adapters() -> Vec<&'static str> {
    ADAPTERS.iter().map(|entry| entry.name).collect()
}

/// Checks that no set of held-out texts has the name of another.
fn check_names(eval: &[(String, PathBuf)]) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    match eval.iter().find(|(name, _)| !seen.insert(name)) {
        Some((name, _)) => {
            let limit = "sets of different names".to_owned();
            Err(wsd_core::Error::Setting { name: "eval", limit, value: format!("`{name}` twice") }.into())
        }
        None => Ok(()),
    }
}

pub(crate) async fn run(args: AdaptArgs, global: &GlobalArgs) -> Result<Ending> {
    args.tuning.check()?;
    check_names(&args.eval)?;
    let stop = Arc::new(AtomicBool::new(false));
    tokio::spawn(stop_on_interrupt(stop.clone()));
    let (model, source) = open(&args.model, global)?;
    let reporter = ConsoleReporter { quiet: global.quiet };
    tokio::task::spawn_blocking(move || Job { args, model, source, stop }.run(reporter)).await?
}

/// An adaptation of a model.
struct Job {
    args: AdaptArgs,
    model: Checkpoint,
    /// The folder or file of the model.
    source: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Job {
    fn run(&self, mut reporter: ConsoleReporter) -> Result<Ending> {
        let args = &self.args;
        let options = self.options();
        options.check()?;
        fs_err::create_dir_all(&args.output)?;
        let _lock = RunLock::acquire(&args.output)?;
        let reader = args.tuning.reader(&self.model, &args.output, false)?;
        let examples = args.stream.iter().map(|file| reader.read(std::slice::from_ref(file)));
        let examples = examples.collect::<Result<Vec<_>>>()?;
        let held_out = self.held_out(&reader)?;
        let mut trainer = self.trainer()?;
        self.begin()?;
        let names: Vec<String> = args.stream.iter().map(|path| stem(path)).collect();
        let domains = names.iter().zip(examples).map(|(name, examples)| Domain { name: name.clone(), examples });
        let adaptation = Adaptation {
            folder: args.output.clone(),
            domains: domains.collect(),
            loss: self.consistency()?,
            options,
            stop: &self.stop,
        };
        if !args.output.join(SCORES).exists() {
            trainer.start_teacher();
            let scores = scores(&mut trainer, &held_out, args.tuning.batch_size)?;
            write_whole(&args.output.join(SCORES), serde_json::to_string(&scores)?.as_bytes())?;
        }
        let mut ended = |trainer: &mut Trainer, index: usize| {
            self.snapshot(trainer, &held_out, &self.snapshot_folder(index, &names[index]))
        };
        if adaptation.run(&mut trainer, &mut reporter, &mut ended)? == Finished::Stopped {
            reporter.note("stopped; the same command goes on");
            return Ok(Ending::Interrupted);
        }
        let rows = self.rows(&names)?;
        write_whole(&args.output.join("report.json"), (serde_json::to_string_pretty(&rows)? + "\n").as_bytes())?;
        print!("{}", table(&rows));
        Ok(Ending::Done)
    }

    /// Notes the settings in the folder, or checks that those there are the same.
    fn begin(&self) -> Result<()> {
        let AdaptArgs { model, stream, eval, adapter, labels, mask, momentum, reset, .. } = &self.args;
        let own = json!({
            "method": "OoPk for texts, a reconstruction", "model": model, "stream": stream, "eval": eval,
            "adapter": adapter, "labels": labels, "mask": mask, "momentum": momentum, "reset": reset,
        });
        settings_file::begin(&self.args.output, &[self.args.tuning.settings(), own])
    }

    fn trainer(&self) -> Result<Trainer> {
        let blueprint = arch::blueprint(&self.model.config)?;
        let options = TrainerOptions {
            adapter: Choice::of(AdapterEntry::find(&self.args.adapter).context("invariant: one of the table")?),
            seed: self.args.tuning.seed,
            threads: self.args.tuning.threads(),
            max_len: self.args.tuning.max_length,
            ..TrainerOptions::default()
        };
        Ok(Trainer::try_new(&blueprint, Layout::new(&blueprint).read(&self.model)?, &options)?)
    }

    fn consistency(&self) -> Result<Term> {
        let mut choice = Choice::of(Objective::find("distill").context("invariant: the table has it")?);
        if self.args.labels == "hard" {
            choice.values = choice.values.with(choice.entry.settings[0], "hard")?;
        }
        Ok(Term::new(&choice, Vec::new()))
    }

    fn options(&self) -> AdaptOptions {
        let AdaptArgs { mask, momentum, reset, .. } = self.args;
        let TuningArgs { batch_size, learning_rate, seed, .. } = self.args.tuning;
        let special = &self.model.special;
        let tokens = [&special.unk, &special.pad, &special.eos, &special.bos].into_iter().flatten();
        let mask_token = tokens.filter_map(|token| self.model.tokenizer.token_to_id(token)).next();
        AdaptOptions {
            batch_size,
            learning_rate,
            mask_share: mask,
            mask_token: mask_token.or(self.model.end_tokens.first().copied()).unwrap_or(0),
            momentum,
            resets: reset,
            save_steps: 100,
            seed,
        }
    }

    fn held_out(&self, reader: &TextReader<'_>) -> Result<Vec<(String, Term)>> {
        let objective = Objective::find("pretrain").context("invariant: the table has it")?;
        let term = |(name, file): &(String, PathBuf)| {
            Ok((name.clone(), Term::new(&Choice::of(objective), reader.read(std::slice::from_ref(file))?)))
        };
        self.args.eval.iter().map(term).collect()
    }

    fn snapshot_folder(&self, index: usize, name: &str) -> PathBuf {
        self.args.output.join(format!("after-{}-{name}", index + 1))
    }

    /// Writes the adapted model and its perplexities, unless they are there.
    fn snapshot(&self, trainer: &mut Trainer, held_out: &[(String, Term)], to: &Path) -> Result<()> {
        if to.join(SCORES).exists() {
            return Ok(());
        }
        let scores = scores(trainer, held_out, self.args.tuning.batch_size)?;
        let layout = trainer.layout().clone();
        let weights = (&layout, trainer.teacher_weights());
        save_folder(to, &self.model, Some(&self.source), weights, self.args.tuning.dtype)?;
        Ok(write_whole(&to.join(SCORES), serde_json::to_string(&scores)?.as_bytes())?)
    }

    /// The perplexities before and after each domain.
    fn rows(&self, names: &[String]) -> Result<Vec<(String, Map<String, Value>)>> {
        let folders = names.iter().enumerate().map(|(index, name)| (name.clone(), self.snapshot_folder(index, name)));
        let all = [("before".to_owned(), self.args.output.clone())].into_iter().chain(folders);
        let read = |(name, folder): (String, PathBuf)| {
            Ok((name, serde_json::from_slice(&wsd_core::Input::DESCRIPTION.read(&folder.join(SCORES))?)?))
        };
        all.map(read).collect()
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "domain".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The perplexity of the teacher on each set.
fn scores(trainer: &mut Trainer, held_out: &[(String, Term)], batch_size: usize) -> Result<Map<String, Value>> {
    let score =
        |(name, term): &(String, Term)| Ok((name.clone(), json!(trainer.teacher_loss(term, batch_size)?.exp())));
    held_out.iter().map(score).collect()
}

/// Perplexities as a table, with the change since the start.
fn table(rows: &[(String, Map<String, Value>)]) -> String {
    let Some((_, before)) = rows.first() else { return String::new() };
    let mut text = format!("{:<20}", "perplexity after");
    before.keys().for_each(|name| text.push_str(&format!(" {name:>22}")));
    for (stage, scores) in rows {
        text.push_str(&format!("\n{stage:<20}"));
        for (name, start) in before {
            let number = |value: Option<&Value>| value.and_then(Value::as_f64).unwrap_or(f64::NAN);
            let (now, start) = (number(scores.get(name)), number(Some(start)));
            text.push_str(&format!(" {:>22}", format!("{now:.3} ({:+.1} %)", 100.0 * (now / start - 1.0))));
        }
    }
    text + "\n"
}
