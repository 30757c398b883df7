//! The subcommands of `wsd train`: one per objective, from their table, and the tools.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Subcommand};
use wsd_nn::Device;
use wsd_train::{OBJECTIVES, Objective};

use super::{cues, export, sensitivity, switch, tokenizer};

/// The action to take.
#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    pub(super) action: Action,
}

/// A subcommand.
#[derive(Debug)]
pub(super) enum Action {
    /// A run of an objective.
    Run(&'static Objective, ObjectiveArgs),
    /// Any other command.
    Tool(Tool),
}

/// The subcommands that are not runs.
#[derive(Subcommand, Debug)]
pub(super) enum Tool {
    /// Learn a vocabulary: byte-level BPE
    Tokenizer(tokenizer::TokenizerArgs),
    /// Write a model as a GGUF file, or merge an adapter into a model
    Export(export::ExportArgs),
    /// Train a draft head, which proposes tokens to its base from the base's own features: FSPAD, EAGLE
    Head(RunArgs),
    /// Learn a switch for `wsd` from scored drafts: logistic regression
    Switch(switch::SwitchArgs),
    /// Put spurious cues around the prompts of rows: flattery, length, persona, formatting
    Cues(cues::CuesArgs),
    /// Measure how much cues change a model's distributions over the same answers
    Sensitivity(sensitivity::SensitivityArgs),
}

/// A run of an objective, described by the file that `--config` names.
#[derive(Args, Debug)]
pub(super) struct ObjectiveArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// The device that computes losses and gradients, in place of the file's: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<Device>,
}

/// A run, described by the file that `--config` names.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// Go on after the last checkpoint of the run's folder
    #[arg(long)]
    pub(super) resume: bool,
    /// With --resume: pass over damaged checkpoints and go on after the last whole one
    #[arg(long, requires = "resume")]
    pub(super) skip_damaged: bool,
}

impl Subcommand for Action {
    fn augment_subcommands(command: Command) -> Command {
        // The arguments bring their own description, so the objective's comes after.
        let run =
            |objective: &&Objective| ObjectiveArgs::augment_args(Command::new(objective.name)).about(objective.about);
        Tool::augment_subcommands(command.subcommands(OBJECTIVES.iter().map(run)))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Objective::find(name).is_some() || Tool::has_subcommand(name)
    }
}

impl FromArgMatches for Action {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        if let Some((name, args)) = matches.subcommand()
            && let Some(objective) = Objective::find(name)
        {
            return Ok(Self::Run(objective, ObjectiveArgs::from_arg_matches(args)?));
        }
        Tool::from_arg_matches(matches).map(Self::Tool)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
