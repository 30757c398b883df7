//! The command line.

mod adapt;
mod analyze;
mod answer;
mod batch;
mod bench;
mod calibrate;
mod chart;
mod chat;
mod compare;
mod compress;
mod constraint;
mod data;
mod eval;
mod foreign;
mod generate;
mod lab;
mod merge;
mod output;
mod pairs;
mod progress;
mod prompt;
mod prompts;
mod report;
mod score;
mod serve;
mod settings_file;
mod sweep;
mod train;
mod tuning;
mod wrap;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use wsd::config::{ConfigError, DEFAULT_FILE, Partial, Settings};
use wsd::hub::{self, HubOptions, Progress, stderr_progress};
use wsd::models::builtin_checkpoint;
use wsd_nn::Checkpoint;

use output::Color;
pub(crate) use output::{Closed, note};

const EXAMPLES: &str = "\
Examples:
  wsd compare
      The large model alone, the small one alone, and both together, on a few questions.
  wsd generate \"Where does the bread come from?\"
      One answer, opened by the draft model and finished by the base model.
  wsd chat --pair smollm2-135m+gemma3-270m
      A conversation with real models, downloaded at first use; wsd pairs lists more.
  wsd score --prompt \"Where does the duck live?\" --response \"The home of the duck is the river.\"
      The base's confidence in an answer, and the position where it would take over.
  wsd serve
      A server for programs and browsers, on http://127.0.0.1:8080.
  wsd completions bash > ~/.local/share/bash-completion/completions/wsd
      Tab completion.

Every setting can stand in a file, wsd.toml in the working folder or the one named by --config:
  [models]
  base = \"meta-llama/Llama-3.1-8B\"
  draft = \"./my-aligned-1b\"
  [decode]
  threshold = 0.7
  [sampling]
  temperature = 0.7";

/// Weak-to-Strong Decoding: a small aligned model opens the answer, a large base model takes over
/// once it is confident.
#[derive(Parser, Debug)]
#[command(name = "wsd", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Answer a question by each model alone and by both together, side by side
    #[command(after_help = compare::EXAMPLES)]
    Compare(Box<compare::CompareArgs>),
    /// Answer a prompt, or a file of prompts
    #[command(after_help = generate::EXAMPLES)]
    Generate(Box<generate::GenerateArgs>),
    /// Show the base's confidence in a given response, and where it would take over
    #[command(after_help = score::EXAMPLES)]
    Score(Box<score::ScoreArgs>),
    /// Answer clients of OpenAI's protocol, and show the author of each token on a page
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::ServeCommand>),
    /// Measure the engine, the strategies, or a running server
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Train a model: from nothing, on answers, or on preferences
    #[command(after_help = train::EXAMPLES)]
    Train(train::TrainArgs),
    /// Merge fine-tunes of one model into one model
    #[command(after_help = merge::EXAMPLES)]
    Merge(merge::MergeArgs),
    /// Make the embedding and the head of a model products of smaller matrices
    #[command(after_help = compress::EXAMPLES)]
    Compress(Box<compress::CompressArgs>),
    /// Adapt a model, offline, to a stream of unlabelled texts of changing domains
    #[command(after_help = adapt::EXAMPLES)]
    Adapt(Box<adapt::AdaptArgs>),
    /// Hold a conversation in the terminal
    #[command(after_help = chat::EXAMPLES)]
    Chat(Box<chat::ChatArgs>),
    /// List tested pairs of models for --pair
    #[command(after_help = pairs::EXAMPLES)]
    Pairs(pairs::PairsArgs),
    /// Measure systems on public benchmarks
    #[command(after_help = eval::EXAMPLES)]
    Eval(Box<eval::EvalArgs>),
    /// Try windows and thresholds on prompts that are drafted and scored once
    #[command(after_help = sweep::EXAMPLES)]
    Sweep(Box<sweep::SweepArgs>),
    /// Propose window and threshold for a pair of models
    #[command(after_help = calibrate::EXAMPLES)]
    Calibrate(Box<calibrate::CalibrateArgs>),
    /// Analyze a pair on prompts: layers, positions, switches, openings of growing length
    #[command(after_help = analyze::EXAMPLES)]
    Analyze(Box<analyze::AnalyzeArgs>),
    /// Build preference data from real prompts
    #[command(subcommand, after_help = data::EXAMPLES)]
    Data(data::Data),
    /// The closed world that the built-in pair comes from, and measurements in it
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Print a script that completes wsd's commands and options in a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a manual page for each command into a folder
    #[command(after_help = MAN)]
    Man {
        /// The folder, which is made where it is missing
        folder: PathBuf,
    },
}

const COMPLETIONS: &str = "\
Examples:
  wsd completions bash > ~/.local/share/bash-completion/completions/wsd
  wsd completions zsh > \"${fpath[1]}/_wsd\"
  wsd completions fish > ~/.config/fish/completions/wsd.fish
  source <(wsd completions bash)";

const MAN: &str = "\
Examples:
  wsd man ~/.local/share/man/man1 && man wsd-generate
      The manual pages of this version.";

/// The options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct GlobalArgs {
    /// Read settings from this file [default: wsd.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use of colors
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Print only answers and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Tell more, as which sampling was taken from a model's files
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    verbose: bool,
}

impl GlobalArgs {
    /// Reads the settings: the options of a command, then those of the file.
    fn settings(&self, flags: Partial) -> Result<Settings, ConfigError> {
        // The options are checked first, so that an error names the file only for its own settings.
        let flags = flags.with_pair()?;
        flags.clone().resolve()?;
        let file = Partial::load(self.config.as_deref())?;
        let overridden = file.overridden_by(&flags);
        if !overridden.is_empty() && !self.quiet {
            let path = self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE)).display();
            let keys = overridden.join("` and `");
            note(&format!("note: `{keys}` of {path} left out: `raw` excludes the settings of a chat"));
        }
        let is_from_file = file.names_models() && !flags.names_models();
        let mut settings = flags.or(file).resolve()?;
        settings.models_from = is_from_file.then(|| self.config.clone().unwrap_or_else(|| DEFAULT_FILE.into()));
        Ok(settings)
    }

    /// Returns a reporter for downloads.
    fn progress(&self) -> Box<dyn Progress> {
        if self.quiet { Box::new(()) } else { stderr_progress() }
    }
}

impl CommandLine {
    /// Parses the program's arguments. Ends the program after help and after an error.
    pub(crate) fn of_arguments() -> Self {
        Self::try_parse_from(foreign::with_joined_flags(std::env::args_os()))
            .unwrap_or_else(|error| foreign::exit(error))
    }
}

/// A command line that is wrong in a way that its parser does not see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// The error of a wrong command line.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// A number of things: "1 row", "2 rows".
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{end}")
}

/// The items in their order without those whose name stood before.
pub(crate) fn distinct<T, N: Ord>(items: impl IntoIterator<Item = T>, name: impl Fn(&T) -> N) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(name(item))).collect()
}

/// The end of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The command is done.
    Done,
    /// The user interrupted it.
    Interrupted,
}

/// Finds a model by a path or a name and opens it, with the names of Hugging Face's tensors. Returns its folder
/// or file too; the name of a built-in model, which has none.
fn open(name: &str, global: &GlobalArgs) -> Result<(Checkpoint, PathBuf)> {
    if let Some(checkpoint) = builtin_checkpoint(name) {
        return Ok((checkpoint?.in_standard_form()?, name.into()));
    }
    let path = hub::resolve(name, &HubOptions::from_env(), global.progress().as_mut())?;
    Ok((Checkpoint::open(&path)?.in_standard_form()?, path))
}

/// Runs work whose results so far are kept. Returns `None` if the user stopped it.
pub(crate) async fn resumable<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    tokio::select! {
        biased;
        Ok(()) = tokio::signal::ctrl_c() => {
            note("stopped; the same command resumes there");
            Ok(None)
        }
        result = work => result.map(Some),
    }
}

/// Runs a command.
pub(crate) async fn run(line: CommandLine) -> Result<Ending> {
    match line.command {
        Command::Compare(args) => compare::run(*args, &line.global).await,
        Command::Generate(args) => generate::run(*args, &line.global).await,
        Command::Score(args) => score::run(*args, &line.global).await,
        Command::Chat(args) => chat::run(*args, &line.global).await,
        Command::Serve(args) => serve::run(*args, &line.global).await,
        Command::Train(args) => train::run(args, &line.global).await,
        Command::Eval(args) => eval::run(*args, &line.global).await,
        Command::Merge(args) => merge::run(&args, &line.global),
        Command::Adapt(args) => adapt::run(*args, &line.global).await,
        Command::Compress(args) => compress::run(*args, &line.global).await,
        Command::Sweep(args) => sweep::run(*args, &line.global).await,
        Command::Calibrate(args) => calibrate::run(*args, &line.global).await,
        Command::Analyze(args) => analyze::run(*args, &line.global).await,
        Command::Data(data) => data::run(data, &line.global).await,
        Command::Lab(lab) => lab::run(lab, &line.global).await,
        Command::Bench(bench) => bench::run(bench, &line.global).await,
        Command::Pairs(args) => pairs::run(&args, &line.global),
        Command::Man { folder } => {
            fs_err::create_dir_all(&folder)?;
            clap_mangen::generate_to(CommandLine::command(), &folder)?;
            Ok(Ending::Done)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "wsd", &mut script);
            output::Output::stdout(Color::Never).text(&String::from_utf8_lossy(&script))?;
            Ok(Ending::Done)
        }
    }
}

#[cfg(test)]
mod tests;
