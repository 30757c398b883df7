//! `wsd train head`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use wsd::hub::{self, HubOptions};
use wsd::models::builtin_checkpoint;
use wsd_core::Input;
use wsd_core::files::write_whole;
use wsd_nn::arch::{self, DraftPlan};
use wsd_nn::draft::{BaseMark, DraftConfig};
use wsd_nn::{Checkpoint, Device};
use wsd_train::data::report_refusals;
use wsd_train::draft_head::{self, Features, HeadFile, HeadTask, HeadTrainer};
use wsd_train::{Encoder, Example, Finished, Reporter as _, RunLock, Sequence};

use super::super::{Ending, GlobalArgs, usage};
use super::command::RunArgs;
use super::reporter::ConsoleReporter;
use super::{curves, stop_on_interrupt, template};

pub(super) async fn run(args: RunArgs, look: &GlobalArgs) -> Result<Ending> {
    let path = look.config.as_deref().ok_or_else(|| usage("a run needs its file: --config head.toml"))?;
    let file = HeadFile::read(path)?;
    let name = file.run.model.from.clone().unwrap_or_default();
    let base = match builtin_checkpoint(&name) {
        Some(checkpoint) => checkpoint?,
        None => Checkpoint::open(&hub::resolve(&name, &HubOptions::from_env(), look.progress().as_mut())?)?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    tokio::spawn(stop_on_interrupt(stop.clone()));
    let session = Session { file, base, args, quiet: look.quiet, stop };
    tokio::task::spawn_blocking(move || session.run()).await?
}

/// One call of the command.
struct Session {
    file: HeadFile,
    base: Checkpoint,
    args: RunArgs,
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Session {
    fn run(&self) -> Result<Ending> {
        let folder = &self.file.run.output;
        let mut reporter = ConsoleReporter { quiet: self.quiet };
        fs_err::create_dir_all(folder)?;
        let _lock = RunLock::acquire(folder)?;
        if self.args.skip_damaged {
            for name in wsd_train::set_aside_damaged(folder)? {
                reporter.note(&format!("{name} is damaged, and passed over"));
            }
        }
        let has_begun = self.open_folder(folder)?;
        let [examples, evaluation] = self.sequences(&mut reporter)?;
        let sequences: Vec<_> = examples.iter().chain(&evaluation).collect();
        let mark = BaseMark::of(&self.base)?;
        let Some(features) = self.features((&mark, has_begun), &sequences, &mut reporter)? else {
            reporter.note("stopped before all features are there; --resume goes on");
            return Ok(Ending::Interrupted);
        };
        let (plan, config) = self.plan(mark)?;
        let max_len = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(1);
        let run = &self.file.run;
        let sizes = (run.seed, run.threads, max_len);
        let mut trainer = HeadTrainer::try_new(&plan, draft_head::base_tables(&self.base)?, &run.optimizer, sizes)?;
        let mut task = HeadTask {
            folder: folder.clone(),
            examples: examples.iter().collect(),
            evaluation: evaluation.iter().collect(),
            features,
            head: self.file.head.clone(),
            steps: run.steps.clone(),
            seed: run.seed,
            stop: &self.stop,
        };
        let (count, steps) = (trainer.layout().len(), run.steps.schedule(examples.len()).total_steps);
        reporter.note(&format!(
            "a head of {count} parameters; {} sequences, {} to evaluate on; {steps} steps",
            examples.len(),
            evaluation.len(),
        ));
        let finished = draft_head::train(&mut task, &mut trainer, &mut reporter)?;
        curves::draw(folder, &format!("head {}", folder.display()))?;
        if finished == Finished::Stopped {
            reporter.note(&format!("stopped after step {}; --resume goes on", trainer.state.step));
            return Ok(Ending::Interrupted);
        }
        let to = folder.join("head");
        draft_head::save(&to, &config, (trainer.layout(), &trainer.state.parameters), run.format()?)?;
        reporter.note(&format!("the draft head is in {}", to.display()));
        Ok(Ending::Done)
    }

    /// Begins a run in its folder, or checks that the run in it is the same. Returns true for a run that
    /// has begun, which is one with a checkpoint.
    fn open_folder(&self, folder: &Path) -> Result<bool> {
        let path = folder.join("config.toml");
        if wsd_train::saved(folder)?.is_empty() && !folder.join("head").exists() {
            write_whole(&path, self.file.resolved()?.as_bytes())?;
            return Ok(false);
        }
        if !self.args.resume {
            bail!(
                "there is a run in {} already\n  hint: --resume goes on with it; or name another `output`",
                folder.display()
            );
        }
        let before = Input::SETTINGS.read_text(&path)?;
        let changes =
            self.file.changes_since(&before).with_context(|| format!("{} cannot be compared", path.display()))?;
        if !changes.is_empty() {
            bail!(
                "{}: the run has begun with other settings: {}\n  hint: set them back, or name another `output`",
                path.display(),
                changes.join("; ")
            );
        }
        Ok(true)
    }

    /// The sequences to learn from and to evaluate on.
    fn sequences(&self, reporter: &mut ConsoleReporter) -> Result<[Vec<Sequence>; 2]> {
        let run = &self.file.run;
        let vocab = arch::blueprint(&self.base.config)?.vocab;
        let form = template::choose(&run.model.template)?;
        let encoder = Encoder::try_new(&self.base, &form, vocab, Some(run.data.max_length))?;
        let mut refused = Vec::new();
        let terms = run.read_terms(&encoder, &mut refused)?;
        if let Some(message) = report_refusals(&run.output, &refused, run.data.skip_refused)? {
            reporter.note(&message);
        }
        let sequences = |examples: Vec<Example>| {
            let sequences = examples.into_iter().flat_map(|example| example.sequences);
            sequences.filter(|sequence| sequence.positions().any(|position| position >= 2)).collect::<Vec<_>>()
        };
        let term = terms.into_iter().next().context("a run needs rows")?;
        let both = [sequences(term.examples), sequences(term.evaluation)];
        if both[0].is_empty() {
            bail!("there is no answer to learn from\n  hint: `data.train` needs rows of prompts and answers");
        }
        Ok(both)
    }

    fn features(
        &self,
        (mark, has_begun): (&BaseMark, bool),
        sequences: &[&Sequence],
        reporter: &mut ConsoleReporter,
    ) -> Result<Option<Features>> {
        let mut executor = wsd_nn::load(Device::default(), &self.base, None, None)?;
        let folder = &self.file.run.output;
        Ok(Features::open(folder, (mark, executor.as_mut()), sequences, has_begun, (&self.stop, reporter))?)
    }

    /// The architecture of the head and its description.
    fn plan(&self, base: BaseMark) -> Result<(DraftPlan, DraftConfig)> {
        let (table, blueprint) = (&self.file.head, arch::blueprint(&self.base.config)?);
        let intermediate_size = table.intermediate_size.unwrap_or(blueprint.ffn);
        let (feature_sampling, partial_alignment) = (table.feature_sampling, table.partial_alignment);
        let plan = DraftPlan::new(&blueprint, intermediate_size).with_branches(feature_sampling, partial_alignment);
        Ok((plan, DraftConfig { base, intermediate_size, feature_sampling, partial_alignment }))
    }
}
