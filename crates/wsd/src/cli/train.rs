//! `wsd train`: a run of an objective, a tokenizer, an export.

mod command;
mod cues;
mod curves;
mod export;
mod head;
pub(super) mod reporter;
mod sensitivity;
mod switch;
pub(super) mod template;
mod tokenizer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use wsd_core::files::write_whole;
use wsd_core::{Head, Input};
use wsd_nn::arch::Blueprint;
use wsd_nn::gpu::Arithmetic;
use wsd_nn::{Checkpoint, arch};
use wsd_train::data::report_refusals;
use wsd_train::{
    Encoder, Example, Finished, Layout, Needs, Objective, REWARD, Reporter as _, RunFile, RunLock, Task, Term, Trainer,
};

use super::output::note;
use super::{Ending, GlobalArgs, open, usage};
pub(crate) use command::TrainArgs;
use command::{Action, RunArgs, Tool};
use reporter::ConsoleReporter;

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd train tokenizer --input corpus.jsonl --vocab-size 2048 --eos '</s>' --output tokenizer
  wsd train pretrain --config base.toml
  wsd train sft --config sft.toml
  wsd train sft --config sft.toml --device cuda
      Losses and gradients on an NVIDIA GPU.
  wsd train dpo --config dpo.toml --resume
      Resume from the latest checkpoint.
  wsd train head --config head.toml
      A draft head on the features of a base, for `--strategy head --head FOLDER`.
  wsd train switch --input run/switch.jsonl --output switch.toml
      A learned switch from what `wsd lab eval --parts switch` wrote.
  wsd train export --model pilot/model --output pilot.gguf --dtype q8_0
      For llama.cpp, and for `--draft pilot.gguf`.
  wsd train export --model base --adapter pilot/adapter --output merged
      A folder of the base with the adapter merged into its weights.
  wsd train cues --input answers.jsonl --output cued.jsonl
  wsd train sensitivity --model pilot/model --input answers.jsonl --cued cued.jsonl
      The change of the model's distributions by cues that should not matter.";

pub(crate) async fn run(args: TrainArgs, look: &GlobalArgs) -> Result<Ending> {
    let (objective, args) = match args.action {
        Action::Run(objective, args) => (objective, args),
        Action::Tool(Tool::Tokenizer(args)) => return tokenizer::run(&args),
        Action::Tool(Tool::Export(args)) => return export::run(&args, look),
        Action::Tool(Tool::Head(args)) => return head::run(args, look).await,
        Action::Tool(Tool::Switch(args)) => return switch::run(&args, look.quiet).map(|()| Ending::Done),
        Action::Tool(Tool::Cues(args)) => return cues::run(&args, look),
        Action::Tool(Tool::Sensitivity(args)) => return sensitivity::run(&args, look),
    };
    let path = look.config.as_deref().ok_or_else(|| usage("a run needs its file: --config run.toml"))?;
    let mut file = RunFile::read(path, objective)?;
    file.device = args.device.unwrap_or(file.device);
    let gpu = file.open_gpu()?;
    let start = Start::open(&file, look)?;
    let session = Session { file, gpu, start, args: args.run, quiet: look.quiet, stop: Arc::default() };
    tokio::task::spawn_blocking(move || session.run()).await?
}

/// Sets the flag at the first Ctrl-C, and ends the process at the second.
pub(super) async fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Ordering::Relaxed);
        note("stopping after this step; press Ctrl-C again to stop at once");
        let _ = tokio::signal::ctrl_c().await;
        std::process::exit(130);
    }
}

/// The start model.
struct Start {
    checkpoint: Checkpoint,
    /// The folder of its tokenizer and configuration.
    folder: PathBuf,
    has_weights: bool,
    /// The model that the trained one stays close to, if it is another than the start.
    teacher: Option<Checkpoint>,
}

impl Start {
    fn open(file: &RunFile, look: &GlobalArgs) -> Result<Self> {
        let model = &file.model;
        let teacher = model.teacher.as_deref().map(|name| open(name, look)).transpose()?.map(|(teacher, _)| teacher);
        if let (Some(config), Some(folder)) = (&model.config, &model.tokenizer) {
            let checkpoint = Checkpoint::untrained(config.clone(), folder)?;
            return Ok(Self { checkpoint, folder: folder.clone(), has_weights: false, teacher });
        }
        let (checkpoint, folder) = open(model.from.as_deref().unwrap_or_default(), look)?;
        checkpoint.warnings.iter().for_each(|warning| note(warning));
        Ok(Self { checkpoint, folder, has_weights: true, teacher })
    }

    /// The architecture, with a reward head if an objective needs one.
    fn blueprint(&self, file: &RunFile) -> Result<Blueprint> {
        let blueprint = arch::blueprint(&self.checkpoint.config)?;
        if !file.objectives.iter().any(|table| table.choice.entry.needs == Needs::Rewards) {
            return Ok(blueprint);
        }
        let (vocabulary, reward) = ([blueprint.vocab, blueprint.hidden], [1, blueprint.hidden]);
        let own = Head::VOCABULARY.weight();
        let has_own = !self.has_weights || self.checkpoint.weights.get(&own).is_some();
        Ok(blueprint.with_heads(|name| match name {
            REWARD => Some(&reward[..]),
            name => (name == own && has_own).then_some(&vocabulary[..]),
        }))
    }

    /// The weights, random ones if it has none.
    fn weights(&self, (blueprint, layout): (&Blueprint, &Layout), seed: u64) -> Result<Vec<f32>> {
        if self.has_weights {
            return Ok(layout.read(&self.checkpoint)?);
        }
        let spread = self.checkpoint.config.get("initializer_range").and_then(Value::as_f64);
        Ok(wsd_train::random(blueprint, layout, spread.unwrap_or(wsd_train::INITIALIZER_RANGE), seed))
    }
}

/// One call of the command for an objective.
struct Session {
    file: RunFile,
    /// The GPU that computes; the CPU without one.
    gpu: Option<Arithmetic>,
    start: Start,
    args: RunArgs,
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Session {
    fn run(&self) -> Result<Ending> {
        let file = &self.file;
        let mut reporter = ConsoleReporter { quiet: self.quiet };
        let _lock = take_folder(&file.output, &self.args, &mut reporter)?;
        let begin = Beginning { folder: &file.output, result: "model", resume: self.args.resume };
        if !begin.or_compare(&file.resolved()?, |before| file.changes_since(before))? {
            wsd_train::remove_reference(&file.output)?;
        }
        let terms = self.terms(&mut reporter)?;
        let mut trainer = self.trainer(&terms)?;
        let (folder, steps) = (file.output.clone(), file.steps.clone());
        let mut task = Task { folder, terms, steps, seed: file.seed, stop: &self.stop };
        reporter.note(&summary(&task, &trainer));
        if let Some((name, bytes)) = trainer.require_memory(&task.terms)? {
            reporter.note(&format!("computing on {name}, with about {} MiB of its memory", bytes.div_ceil(1 << 20)));
        }
        if let Some(warning) = task.schedule().warning() {
            reporter.note(&warning);
        }
        wsd_train::prepare(&mut task, &mut trainer, &mut reporter)?;
        // Before the first step there is nothing to keep, so Ctrl-C ends the process at once.
        tokio::runtime::Handle::current().spawn(stop_on_interrupt(self.stop.clone()));
        let finished = wsd_train::run(&mut task, &mut trainer, &mut reporter)?;
        curves::draw(&file.output, &format!("{} {}", self.objective().name, file.output.display()))?;
        if finished == Finished::Stopped {
            reporter.note(&format!("stopped after step {}; --resume goes on", trainer.state.step));
            return Ok(Ending::Interrupted);
        }
        self.save(&mut trainer, &mut reporter)?;
        Ok(Ending::Done)
    }

    fn objective(&self) -> &'static Objective {
        self.file.objectives[0].choice.entry
    }

    /// The data of all objectives.
    fn terms(&self, reporter: &mut ConsoleReporter) -> Result<Vec<Term>> {
        let file = &self.file;
        let vocab = arch::blueprint(&self.start.checkpoint.config)?.vocab;
        let max_len = if file.data.packing { None } else { Some(file.data.max_length) };
        let form = template::choose(&file.model.template)?;
        let encoder = Encoder::try_new(&self.start.checkpoint, &form, vocab, max_len)?;
        let encoder = encoder.with_template_setting(template::SETTING);
        let mut refused = Vec::new();
        let terms = file.read_terms(&encoder, &mut refused)?;
        if let Some(message) = report_refusals(&file.output, &refused, file.data.skip_refused)? {
            reporter.note(&message);
        }
        if let Some(term) = terms.iter().find(|term| term.examples.is_empty()) {
            bail!("there is no example to learn from for {}", term.objective.name);
        }
        Ok(terms)
    }

    fn trainer(&self, terms: &[Term]) -> Result<Trainer> {
        let file = &self.file;
        let blueprint = self.start.blueprint(file)?;
        let examples = || terms.iter().flat_map(|term| term.examples.iter().chain(&term.evaluation));
        let lengths = examples().flat_map(|example| &example.sequences).map(|sequence| sequence.tokens.len());
        let needs_reference = terms.iter().any(|term| term.objective.needs == Needs::RowsAndReference);
        let teacher = self.start.teacher.as_ref();
        let options = wsd_train::TrainerOptions {
            adapter: file.adapter.clone(),
            optimizer: file.optimizer.clone(),
            seed: file.seed,
            threads: file.threads,
            gpu: self.gpu.clone(),
            max_len: file.data.max_length.max(lengths.max().unwrap_or(0)),
            recompute: file.steps.gradient_checkpointing,
            precision: file.steps.precision(),
            keeps_reference: needs_reference && teacher.is_none(),
        };
        let weights = self.start.weights((&blueprint, &Layout::new(&blueprint)), file.seed)?;
        let trainer = Trainer::try_new(&blueprint, weights, &options)?;
        let Some(teacher) = teacher else { return Ok(trainer) };
        let blueprint = arch::blueprint(&teacher.config)?;
        Ok(trainer.with_teacher(&blueprint, Layout::new(&blueprint).read(teacher)?)?)
    }

    /// Writes the trained model, and its adapter by itself if it has one.
    fn save(&self, trainer: &mut Trainer, reporter: &mut ConsoleReporter) -> Result<()> {
        let (file, start) = (&self.file, &self.start);
        let adapter = file.output.join("adapter");
        let base = file.model.from.as_deref().unwrap_or_default();
        if trainer.save_adapter(&adapter, &file.adapter, base)? {
            reporter.note(&format!("the adapter is in {}", adapter.display()));
        }
        let model = file.output.join("model");
        let layout = trainer.layout().clone();
        let source = Some(start.folder.as_path());
        let mut checkpoint = start.checkpoint.clone();
        if layout.get(REWARD).is_some() {
            wsd_train::name_reward_head(&mut checkpoint.config);
        }
        wsd_train::save_folder(&model, &checkpoint, source, (&layout, trainer.weights()), file.format()?)?;
        reporter.note(&format!("the model is in {}", model.display()));
        Ok(())
    }
}

/// Makes and locks the folder of a run, and passes over damaged checkpoints in it if told to.
fn take_folder(folder: &Path, args: &RunArgs, reporter: &mut ConsoleReporter) -> Result<RunLock> {
    fs_err::create_dir_all(folder)?;
    let lock = RunLock::acquire(folder)?;
    if args.skip_damaged {
        for name in wsd_train::set_aside_damaged(folder)? {
            reporter.note(&format!("{name} is damaged, and passed over"));
        }
    }
    Ok(lock)
}

/// The beginning of a run.
struct Beginning<'a> {
    folder: &'a Path,
    /// The folder within it that a finished run leaves.
    result: &'a str,
    resume: bool,
}

impl Beginning<'_> {
    /// Begins a run of these settings, or checks that the run in the folder is the same. Returns true for
    /// a run that has begun, which it has with its first checkpoint.
    fn or_compare(
        &self,
        settings: &str,
        changes_since: impl Fn(&str) -> wsd_train::Result<Vec<String>>,
    ) -> Result<bool> {
        let path = self.folder.join("config.toml");
        if wsd_train::saved(self.folder)?.is_empty() && !self.folder.join(self.result).exists() {
            write_whole(&path, settings.as_bytes())?;
            return Ok(false);
        }
        if !self.resume {
            bail!(
                "there is a run in {} already\n  hint: --resume goes on with it; or name another `output`",
                self.folder.display()
            );
        }
        let before = Input::SETTINGS.read_text(&path)?;
        let changes = changes_since(&before).with_context(|| format!("{} cannot be compared", path.display()))?;
        if !changes.is_empty() {
            bail!(
                "{}: the run has begun with other settings: {}\n  hint: set them back, or name another `output`",
                path.display(),
                changes.join("; ")
            );
        }
        Ok(true)
    }
}

/// The objectives and the sizes of a run.
fn summary(task: &Task<'_>, trainer: &Trainer) -> String {
    let term = |term: &Term| {
        let tokens: usize = term.examples.iter().map(Example::tokens).sum();
        let (examples, evaluation) = (term.examples.len(), term.evaluation.len());
        format!("{}: {examples} examples of {tokens} tokens, {evaluation} to evaluate on", term.objective.name)
    };
    let terms: Vec<_> = task.terms.iter().map(term).collect();
    format!(
        "{}; {} parameters for {} weights; {} steps",
        terms.join("; "),
        trainer.parameter_layout().len(),
        trainer.layout().len(),
        task.schedule().total_steps,
    )
}
