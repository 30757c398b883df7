//! The `wsd` program.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use wsd::config::ConfigError;

use cli::{Closed, CommandLine, Ending, note};

/// What the shell is told.
mod code {
    pub(super) const FAILURE: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    /// 128 and the number of the interrupt signal, as shells have it.
    pub(super) const INTERRUPTED: u8 = 130;
}

fn main() -> ExitCode {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What is guarded against becomes an error, which is told as such.
        if !wsd::core::is_guarded() {
            tell(panic);
        }
    }));
    let line = CommandLine::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let ending = runtime.block_on(cli::run(line));
    // A thread that still waits for standard input is not waited for.
    runtime.shutdown_background();
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => code::INTERRUPTED.into(),
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Tell what went wrong, and why, and what to do.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // An error that passes on its cause's words has said them.
        if !told.contains(&cause) {
            told.push_str(if told.is_empty() { "error: " } else { "\n  because: " });
            told.push_str(&cause);
        }
    }
    note(&told);
    if error.is::<ConfigError>() { code::USAGE.into() } else { code::FAILURE.into() }
}
