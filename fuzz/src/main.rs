//! Mutation of the inputs that wsd reads from outside.
//!
//! A child process runs mutated inputs of one target; its parent watches it and keeps each input
//! that made it abort, hang or take too much memory. Inputs that lead to an outcome of a new kind (a
//! message with other words) join the corpus, in place of the coverage that needs a nightly compiler.
//!
//!     cargo run -p wsd-fuzz -- run gguf --minutes 10

mod child;
mod mutation;
mod parent;
mod targets;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use targets::{TARGETS, Target};

const USAGE: &str = "usage: wsd-fuzz list | run TARGET --minutes M [--seed S] | replay TARGET FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; returns false if it found a fault.
fn command(arguments: &[&str]) -> Result<bool> {
    match arguments {
        ["list"] => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(true)
        }
        ["run", name, options @ ..] => {
            let minutes: f64 = option(options, "--minutes")?.unwrap_or("1").parse()?;
            let seed: u64 = option(options, "--seed")?.unwrap_or("1").parse()?;
            parent::run(find(name)?, Duration::from_secs_f64(minutes * 60.0), seed)
        }
        ["child", name, folder, seed, seconds] => {
            child::run(find(name)?, Path::new(folder), seed.parse()?, Duration::from_secs_f64(seconds.parse()?))?;
            Ok(true)
        }
        ["replay", name, file] => {
            println!("{}", find(name)?.open()?(&fs_err::read(file)?));
            Ok(true)
        }
        _ => bail!(USAGE),
    }
}

fn find(name: &str) -> Result<&'static Target> {
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .with_context(|| format!("there is no target `{name}`\n  hint: known are {}", names()))
}

fn option<'a>(arguments: &[&'a str], name: &str) -> Result<Option<&'a str>> {
    let Some(at) = arguments.iter().position(|argument| *argument == name) else { return Ok(None) };
    arguments.get(at + 1).copied().map(Some).with_context(|| format!("{name} needs a value"))
}
