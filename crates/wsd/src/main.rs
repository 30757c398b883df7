//! The `wsd` program.

mod cli;

use std::process::ExitCode;

use wsd::config::ConfigError;
use wsd::core::Error;
use wsd::data::DataError;
use wsd::eval::EvalError;
use wsd::models::ModelError;
use wsd::train;

use cli::{Closed, CommandLine, Ending, Usage, note};

/// Exit codes.
mod code {
    /// The command failed.
    pub(super) const FAILURE: u8 = 1;
    /// The command line or the settings are wrong.
    pub(super) const USAGE: u8 = 2;
    /// The user interrupted the command: 128 plus the signal's number, as in shells.
    pub(super) const INTERRUPTED: u8 = 130;
}

fn main() -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A guarded panic becomes an error, which is reported as one.
        if !wsd::core::is_guarded() {
            hook(panic);
        }
    }));
    let line = CommandLine::of_arguments();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let ending = runtime.block_on(cli::run(line));
    // Does not wait for a thread that reads standard input.
    runtime.shutdown_background();
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => code::INTERRUPTED.into(),
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// True for values and models that do not fit a strategy.
fn is_wrong_setting(error: &Error) -> bool {
    matches!(
        error,
        Error::Setting { .. } | Error::UnknownRecipe { .. } | Error::MissingModel { .. } | Error::ChainOrder { .. }
    )
}

/// True where the command line or the settings are at fault, by the type of the error.
fn is_usage(error: &anyhow::Error) -> bool {
    let core = error.downcast_ref().or_else(|| match error.downcast_ref()? {
        ModelError::Settings(error) => Some(error),
        _ => None,
    });
    let core = core.or_else(|| match error.downcast_ref()? {
        EvalError::Engine(error) => Some(error),
        _ => None,
    });
    core.is_some_and(is_wrong_setting)
        || error.is::<ConfigError>()
        || error.is::<Usage>()
        || matches!(error.downcast_ref(), Some(train::Error::Setting { .. } | train::Error::RunFile { .. }))
        || matches!(error.downcast_ref(), Some(DataError::Setting { .. }))
        || matches!(error.downcast_ref(), Some(EvalError::UnknownTask { .. } | EvalError::UnknownSystem { .. }))
}

/// Reports an error with its causes, and returns the exit code.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // An error that contains its cause's message has reported it.
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "error: " } else { "\n  because: " });
            text.push_str(&cause);
        }
    }
    note(&text);
    if is_usage(error) { code::USAGE.into() } else { code::FAILURE.into() }
}
