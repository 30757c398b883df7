//! `wsd train head`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use wsd_nn::{Checkpoint, Device, arch};
use wsd_train::data::report_refusals;
use wsd_train::draft_head::{self, Features, HeadFile, HeadTask, HeadTrainer};
use wsd_train::{Encoder, Finished, Reporter as _, Sequence};

use super::super::output::note;
use super::super::{Ending, GlobalArgs, open, usage};
use super::command::RunArgs;
use super::reporter::ConsoleReporter;
use super::{Beginning, curves, stop_on_interrupt, take_folder, template};

/// The folder of the head in that of a run.
const RESULT: &str = "head";

pub(super) async fn run(args: RunArgs, look: &GlobalArgs) -> Result<Ending> {
    let path = look.config.as_deref().ok_or_else(|| usage("a run needs its file: --config head.toml"))?;
    let file = HeadFile::read(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    tokio::spawn(stop_on_interrupt(stop.clone()));
    let (base, _) = open(file.run.model.from.as_deref().unwrap_or_default(), look)?;
    base.warnings.iter().for_each(|warning| note(warning));
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
        let Self { file, base, stop, .. } = self;
        let (run, folder) = (&file.run, &file.run.output);
        let mut reporter = ConsoleReporter { quiet: self.quiet };
        let _lock = take_folder(folder, &self.args, &mut reporter)?;
        let begin = Beginning { folder, result: RESULT, resume: self.args.resume };
        let has_begun = begin.or_compare(&file.resolved()?, |before| file.changes_since(before))?;
        let [examples, evaluation] = self.sequences(&mut reporter)?;
        let sequences: Vec<_> = examples.iter().chain(&evaluation).collect();
        let reported = (&**stop, &mut reporter as &mut dyn wsd_train::Reporter);
        let Some(features) = Features::open(folder, (base, Device::default()), &sequences, has_begun, reported)? else {
            reporter.note("stopped before all features are there; --resume goes on");
            return Ok(Ending::Interrupted);
        };
        let config = file.config(base)?;
        let plan = config.plan(&arch::blueprint(&base.config)?);
        let max_len = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(1);
        let sizes = (run.seed, run.threads, max_len);
        let mut trainer = HeadTrainer::try_new(&plan, draft_head::base_tables(base)?, &run.optimizer, sizes)?;
        let mut task = HeadTask {
            folder: folder.clone(),
            examples: examples.iter().collect(),
            evaluation: evaluation.iter().collect(),
            features,
            head: file.head.clone(),
            steps: run.steps.clone(),
            seed: run.seed,
            stop,
        };
        let (parameters, schedule) = (trainer.layout().len(), run.steps.schedule(examples.len()));
        reporter.note(&format!(
            "a head of {parameters} parameters; {} sequences, {} to evaluate on; {} steps",
            examples.len(),
            evaluation.len(),
            schedule.total_steps,
        ));
        schedule.warning().iter().for_each(|warning| reporter.note(warning));
        let finished = draft_head::train(&mut task, &mut trainer, &mut reporter)?;
        curves::draw(folder, &format!("head {}", folder.display()))?;
        if finished == Finished::Stopped {
            reporter.note(&format!("stopped after step {}; --resume goes on", trainer.state.step));
            return Ok(Ending::Interrupted);
        }
        let to = folder.join(RESULT);
        draft_head::save(&to, &config, (trainer.layout(), &trainer.state.parameters), run.format()?)?;
        reporter.note(&format!("the draft head is in {}", to.display()));
        Ok(Ending::Done)
    }

    /// The sequences to learn from and to evaluate on.
    fn sequences(&self, reporter: &mut ConsoleReporter) -> Result<[Vec<Sequence>; 2]> {
        let (run, vocab) = (&self.file.run, arch::blueprint(&self.base.config)?.vocab);
        let form = template::choose(&run.model.template)?;
        let encoder = Encoder::try_new(&self.base, &form, vocab, Some(run.data.max_length))?;
        let encoder = encoder.with_template_setting(template::SETTING);
        let mut refused = Vec::new();
        let both = self.file.sequences(&encoder, &mut refused)?;
        if let Some(message) = report_refusals(&run.output, &refused, run.data.skip_refused)? {
            reporter.note(&message);
        }
        if both[0].is_empty() {
            bail!("there is no answer to learn from\n  hint: `data.train` needs rows of prompts and answers");
        }
        Ok(both)
    }
}
