//! `wsd eval`: systems on public benchmarks.

mod judging;
mod rating;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use wsd::config::{Settings, SharedArgs};
use wsd::eval::alpaca::{WinRates, read_annotations};
use wsd::eval::raters::JUDGE_PROMPT;
use wsd::eval::report::Results;
use wsd::eval::{Candidate, EvalError, Execution, Form, ReadOptions, RunFolder, Source, System, TASKS, Task, TaskRun};
use wsd::models;
use wsd_core::{ChatRole, MAX_TOKENS, Message, STRATEGY};

use super::output::Output;
use super::progress::{Rows, tell_whole};
use super::{Ending, GlobalArgs, note, resumable, usage};
use judging::Judging;
use rating::TaskRating;

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd eval gsm8k=gsm8k/test.jsonl --out run --limit 100
      Base, draft and WSD on 100 word problems, with 4 worked examples of gsm8k/train.jsonl.
  wsd eval ifeval=input_data.jsonl --out run --systems base,in_context,draft,wsd,nudging
      Five systems side by side. The same command resumes after an interruption.
  wsd eval arc_easy=ARC-Easy-Test.jsonl --out run --strategy base
      One system. Choices are scored, nothing is written.
  wsd eval --list
      Every task with the file that it reads.";

/// A task and its file.
#[derive(Clone, Debug)]
pub(super) struct TaskFile {
    pub(super) task: &'static Task,
    pub(super) path: PathBuf,
}

impl FromStr for TaskFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, path)) = text.split_once('=') else {
            return Err("must be TASK=FILE\n  hint: `wsd eval --list` lists the tasks".into());
        };
        let task = Task::find(name).map_err(|error| error.to_string())?;
        Ok(Self { task, path: path.into() })
    }
}

/// The choice of `--form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FormChoice {
    /// The text as it stands.
    Raw,
    /// One message of a user, in each model's own form.
    Chat,
}

impl From<FormChoice> for Form {
    fn from(choice: FormChoice) -> Self {
        match choice {
            FormChoice::Raw => Self::Raw,
            FormChoice::Chat => Self::Chat,
        }
    }
}

/// The options for the items of a task.
#[derive(Args, Debug, Default)]
pub(super) struct TaskOptions {
    /// At most this many items of each task, evenly spread over the file [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Worked examples above each question [default: the task's]
    #[arg(long, value_name = "N")]
    pub(super) shots: Option<usize>,
    /// A task's file of worked examples [default: the task's usual file beside its own]
    #[arg(long, hide_short_help = true, value_name = "TASK=FILE")]
    pub(super) examples: Vec<TaskFile>,
    /// The form of the prompts [default: the task's]
    #[arg(long, hide_short_help = true, value_enum, value_name = "FORM")]
    pub(super) form: Option<FormChoice>,
    /// Answers to each item, with seeds that count up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) samples: u16,
    /// Items answered at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) parallel: u16,
}

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    /// Benchmarks, each with its file
    #[arg(value_name = "TASK=FILE", required_unless_present_any = ["list", "annotations"])]
    tasks: Vec<TaskFile>,
    /// The run folder; answers that are there are kept
    #[arg(long, value_name = "FOLDER", required_unless_present_any = ["list", "annotations"])]
    out: Option<PathBuf>,
    /// List the tasks
    #[arg(long)]
    list: bool,
    /// Print the win rates of a file of AlpacaEval's annotations, as JSON
    #[arg(long, hide_short_help = true, value_name = "FILE", conflicts_with_all = ["tasks", "list"])]
    annotations: Option<PathBuf>,
    /// The systems, separated by commas: strategies, and in_context for the base with examples
    /// [default: base, draft and wsd; or the one of --strategy]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(System::all().map(|system| system.name)),
        conflicts_with = "strategy"
    )]
    systems: Vec<String>,
    /// Execute programs that the models wrote, in a process with limits (HumanEval)
    #[arg(long)]
    allow_execution: bool,
    /// The task whose answers a judge compares with those of the base: the model of --model judge=MODEL
    /// sees each pair in both orders
    #[arg(long, hide_short_help = true, value_name = "TASK")]
    judge: Vec<String>,
    /// Answers to compare with instead of the base's: a list of {"instruction", "output"} as AlpacaEval's
    /// model_outputs.json
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "judge")]
    against: Option<PathBuf>,
    /// Rate the answers to a task one by one: grade, guard and reward by --model judge=MODEL, likelihood by the
    /// base, rules and length without a model; may be repeated
    #[arg(long, hide_short_help = true, value_name = "TASK=RATER")]
    rate: Vec<TaskRating>,
    /// Text that a judge is shown by grade and guard, with {question} and {answer}
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "rate")]
    judge_prompt: Option<PathBuf>,
    #[command(flatten)]
    options: TaskOptions,
    #[command(flatten)]
    settings: SharedArgs,
}

/// The systems where none are named.
const DEFAULT_SYSTEMS: [&str; 3] = ["base", "draft", "wsd"];

pub(crate) async fn run(args: EvalArgs, global: &GlobalArgs) -> Result<Ending> {
    if let Some(path) = &args.annotations {
        let Some(rates) = WinRates::of(&read_annotations(&Source::read(path)?)?) else {
            bail!("{}: no annotation has a `preference`", path.display());
        };
        Output::stdout(global.color).text(&format!("{}\n", serde_json::to_string_pretty(&rates)?))?;
        return Ok(Ending::Done);
    }
    let Some(out) = args.out.as_deref().filter(|_| !args.list) else {
        let rows = TASKS.iter().map(|task| format!("{:<16} {}; reads {}\n", task.name, task.about, task.file));
        Output::stdout(global.color).text(&rows.collect::<String>())?;
        return Ok(Ending::Done);
    };
    let settings = global.settings(args.settings.0.clone())?;
    if settings.prompt.prefill.is_some() {
        return Err(usage("`prefill` must be left out: answers are graded as they are"));
    }
    let systems = systems(&args, &settings)?;
    // Files are read before models are loaded, so that a wrong one is told at once.
    let plans = args.tasks.iter().map(|file| args.options.plan(file, &settings)).collect::<Result<Vec<_>>>()?;
    let tasks: Vec<_> = plans.iter().map(|plan| plan.run.task).collect();
    let folder = RunFolder::new(out);
    if tasks.iter().any(|task| task.name == "ifeval") && !wsd::eval::has_nltk_parameters() {
        note("NLTK's data was not found: sentences are divided by common abbreviations (docs/eval.md)");
    }
    let judging = Judging { tasks: &tasks, named: &args.judge, against: args.against.as_deref(), folder: &folder };
    judging.check(&settings)?;
    rating::check(&args.rate, &tasks, &settings)?;
    let rating_settings = with_judge_prompt(&settings, args.judge_prompt.as_deref())?;
    if resumable(answer(&settings, &systems, &plans, &folder, global)).await?.is_none() {
        return Ok(Ending::Interrupted);
    }
    let parallel = args.options.parallel.into();
    if !args.judge.is_empty() && resumable(judging.run(&settings, parallel, global)).await?.is_none() {
        return Ok(Ending::Interrupted);
    }
    let rating = rating::run(&args.rate, &folder, &rating_settings, parallel, global);
    if !args.rate.is_empty() && resumable(rating).await?.is_none() {
        return Ok(Ending::Interrupted);
    }
    report(&folder, &tasks, args.allow_execution.then(Execution::default), global)
}

/// The settings with the text of a file that a judge is shown.
pub(super) fn with_judge_prompt(settings: &Settings, path: Option<&Path>) -> Result<Settings> {
    let mut settings = settings.clone();
    if let Some(path) = path {
        let text = wsd_core::Input::SETTINGS.read_text(path)?;
        if let Some(place) = ["{question}", "{answer}"].iter().find(|place| !text.contains(**place)) {
            bail!("{}: the text must contain {place}", path.display());
        }
        settings.values.set(&JUDGE_PROMPT, wsd_core::Value::from(text))?;
    }
    Ok(settings)
}

/// The systems to compare.
fn systems(args: &EvalArgs, settings: &Settings) -> Result<Vec<System>, EvalError> {
    if args.systems.is_empty() && args.settings.0.is_set(&STRATEGY) {
        return Ok(vec![System { name: settings.recipe.name, recipe: settings.recipe }]);
    }
    let named: Vec<_> = args.systems.iter().map(String::as_str).collect();
    let names = if named.is_empty() { DEFAULT_SYSTEMS.to_vec() } else { named };
    // The order of the table, so that reports do not depend on the order of the names.
    let mut systems = names.into_iter().map(System::find).collect::<Result<Vec<_>, _>>()?;
    systems.sort_by_key(|system| System::all().position(|other| other.name == system.name));
    systems.dedup_by_key(|system| system.name);
    Ok(systems)
}

/// A task with its items, and the settings that its answers depend on besides those of the models.
pub(super) struct Planned {
    pub(super) run: TaskRun,
    settings: Map<String, Value>,
}

impl TaskOptions {
    /// Reads a task's items.
    pub(super) fn plan(&self, file: &TaskFile, settings: &Settings) -> Result<Planned> {
        let source = Source::read(&file.path)?;
        let examples = self.examples.iter().find(|examples| examples.task.name == file.task.name);
        let examples = examples.map(|examples| Source::read(&examples.path)).transpose()?;
        let options = ReadOptions { shots: self.shots, examples };
        let usual = if settings.prompt.raw { Form::Raw } else { file.task.form };
        let form = self.form.map_or(usual, Form::from);
        let system = settings.prompt.system.iter().map(|text| Message::new(ChatRole::System, text));
        let mut run = TaskRun {
            task: file.task,
            items: file.task.items(&source, &options)?,
            form,
            before: system.collect(),
            values: settings.values.clone(),
            parallel: self.parallel.into(),
        };
        for item in &mut run.items {
            if settings.values.is_set(&MAX_TOKENS) {
                item.max_tokens = settings.max_tokens();
            }
            item.stop.extend(settings.terms().stop);
        }
        run.limit(self.limit.map_or(usize::MAX, |limit| limit as usize));
        run.repeat(self.samples.into(), settings.terms().sampling.seed);
        let more = json!({
            "task": file.task.name,
            "file_sha256": source.sha256(),
            "examples_sha256": options.examples.as_ref().map(Source::sha256),
            "shots": self.shots,
            "form": form,
            "limit": self.limit,
            "samples": Some(self.samples).filter(|samples| *samples > 1),
        });
        let more = more.as_object().cloned().unwrap_or_default();
        Ok(Planned { run, settings: more.into_iter().filter(|(_, value)| !value.is_null()).collect() })
    }
}

/// Answers every task with every system.
async fn answer(
    settings: &Settings,
    systems: &[System],
    plans: &[Planned],
    folder: &RunFolder,
    global: &GlobalArgs,
) -> Result<()> {
    let mut work = Vec::new();
    for plan in plans {
        for system in systems.iter().filter(|system| is_measured(system, &plan.run)) {
            let mut record = Settings { recipe: system.recipe, ..settings.clone() }.record();
            record.insert("system".into(), system.name.into());
            record.extend(plan.settings.clone());
            // Checked before models are loaded, which takes long.
            let left = plan.run.left(system, &record, folder)?;
            if left == 0 {
                tell_whole(&folder.samples(plan.run.task.name, system.name), plan.run.items.len(), global.quiet);
            } else {
                work.push((&plan.run, system, record, left));
            }
        }
    }
    let needs = models::needs(work.iter().map(|(_, system, ..)| system.recipe));
    let sessions = plans.iter().map(|plan| plan.run.parallel).max().unwrap_or(1);
    let loaded = models::load(settings, &needs, sessions, global.progress().as_mut())?;
    // Every strategy is built first, so that one that cannot work is refused before the others run.
    let work = work.into_iter().map(|(run, system, settings_of, left)| {
        let strategy = system.recipe.build(&loaded, &settings.values)?;
        Ok((run, Candidate { system: *system, strategy, settings: settings_of }, left))
    });
    for (run, candidate, left) in work.collect::<Result<Vec<_>>>()? {
        if !global.quiet {
            note(&format!("{}, {}:", run.task.name, candidate.system.name));
        }
        let mut rows = Rows::new(run.rows(), run.rows() - left, global.quiet);
        run.run(&candidate, folder, |row, error| rows.on_row(row, error)).await?;
        rows.stop();
    }
    Ok(())
}

/// Tells whether a system is measured on a task. Choices are scored by each model alone, and examples
/// of conversations have no place above a raw text.
fn is_measured(system: &System, run: &TaskRun) -> bool {
    let has_examples = !system.messages_before().is_empty();
    let is_scorer = system.recipe.is_alone() && !has_examples;
    if run.is_scored() { is_scorer } else { run.form == Form::Chat || !has_examples }
}

/// Grades the answers of a run and writes its report.
fn report(
    folder: &RunFolder,
    tasks: &[&'static Task],
    execution: Option<Execution>,
    global: &GlobalArgs,
) -> Result<Ending> {
    let results = Results::of(folder, tasks, execution)?;
    for task in tasks {
        let Some(export) = task.export else { continue };
        for system in folder.systems(task.name) {
            let mut samples = folder.read(task.name, system.name)?;
            samples.extend(folder.read_next_turn(task.name, system.name)?);
            let (name, text) = export(system.name, &samples);
            folder.write(&format!("{}/{}/{name}", task.name, system.name), &text)?;
        }
    }
    let json = |value: serde_json::Result<String>| value.map(|text| text + "\n");
    folder.write("results.json", &json(serde_json::to_string_pretty(&results))?)?;
    folder.write("results.md", &results.markdown())?;
    folder.write("results.svg", &results.figure().svg())?;
    let names: BTreeSet<_> = results.tasks.iter().flat_map(|task| &task.systems).map(|row| &row.system).collect();
    for name in names {
        let text = json(serde_json::to_string_pretty(&results.lm_eval(name)))?;
        folder.write(&format!("lm_eval/{name}.json"), &text)?;
    }
    Output::stdout(global.color).text(&results.markdown())?;
    if execution.is_none() {
        for task in tasks.iter().filter(|task| task.program.is_some()) {
            note(&format!(
                "{}: nothing was graded, because its answers are programs; the same command with --allow-execution \
                 runs them and keeps the answers",
                task.name
            ));
        }
    }
    if !global.quiet {
        note(&format!("wrote {}", folder.file("results.json").display()));
    }
    Ok(Ending::Done)
}
