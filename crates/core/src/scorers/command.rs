//! A command: a program of the user's that rates steps, such as an exact verifier.
//!
//! The shell starts the command once for each answer. For every step the command reads a line of JSON from its
//! standard input, `{"problem": TEXT, "before": [TEXT, ...], "step": TEXT}`, and writes a line that holds a
//! number from 0 (bad) to 1 (good). It may keep a state: the steps of one answer come in order, and a rejected
//! step is followed by another with the same steps before it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::channel::oneshot;
use serde_json::json;

use super::{Rating, Ratings, StepScorer, problem};
use crate::{Error, Prompt, Recipe, Result, Setting};

pub(super) const NAME: &str = "command";
pub(super) const ABOUT: &str = "a program, step_command, that reads a step as JSON and replies with its rating";

/// The setting for the command.
pub static STEP_COMMAND: Setting =
    Setting::text("step_command", "In step_scorer=command, the shell command that rates steps", "COMMAND")
        .with_default_text("")
        .with_default_about("none")
        .host_only();

/// The longest time for a rating.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between looks at whether a rating is still wanted.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) static SCORER: Recipe<dyn StepScorer> = Recipe {
    name: NAME,
    title: NAME,
    about: ABOUT,
    needs: &[],
    settings: &[&STEP_COMMAND],
    make: |_, values| {
        let command: String = values.get(&STEP_COMMAND);
        if command.trim().is_empty() {
            let limit = "a shell command where `step_scorer` is `command`".into();
            return Err(Error::Setting { name: STEP_COMMAND.name, limit, value: "none".into() });
        }
        Ok(Arc::new(Verifier { command, limit: LIMIT }))
    },
};

struct Verifier {
    command: String,
    limit: Duration,
}

#[async_trait]
impl StepScorer for Verifier {
    async fn open(&self, prompt: &Prompt) -> Result<Box<dyn Rating>> {
        let process = Some(Process::start(&self.command, self.limit)?);
        Ok(Box::new(Verifying { problem: problem(prompt)?, process }))
    }
}

/// The rating of one answer.
struct Verifying {
    problem: String,
    /// The command; `None` after an error.
    process: Option<Process>,
}

#[async_trait]
impl Rating for Verifying {
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings> {
        let mut values = Vec::with_capacity(steps.len() - from);
        for at in from..steps.len() {
            let line = json!({"problem": self.problem, "before": steps[..at], "step": steps[at]}).to_string();
            let mut process = self.process.take().ok_or_else(|| failure("the command has failed".into()))?;
            let (sender, reply) = oneshot::channel();
            thread::Builder::new().name(NAME.into()).spawn(move || {
                let value = process.ask(line, || !sender.is_canceled());
                // Nobody waits for the rating of an answer that was dropped.
                drop(sender.send(value.map(|value| (value, process))));
            })?;
            let (value, process) = reply.await.map_err(|_| failure("the command's thread ended".into()))??;
            self.process = Some(process);
            values.push(value);
        }
        Ok(Ratings { values, tokens: 0 })
    }
}

/// The running command, which ends with this value.
struct Process {
    child: Child,
    /// The command's standard input; `None` once it is closed.
    input: Option<ChildStdin>,
    replies: mpsc::Receiver<std::io::Result<String>>,
    limit: Duration,
}

impl Process {
    fn start(command: &str, limit: Duration) -> Result<Self> {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().map_err(|error| failure(format!("`sh` could not be started: {error}")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, replies) = mpsc::channel();
        let started = Self { child, input, replies, limit };
        thread::Builder::new().name(NAME.into()).spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(started)
    }

    /// Sends a line and waits for the rating while it is wanted.
    fn ask(&mut self, line: String, is_wanted: impl Fn() -> bool) -> Result<f64> {
        let sent = Instant::now();
        let wrote = self.input.as_mut().map(|input| input.write_all((line + "\n").as_bytes()));
        let reply = loop {
            match self.replies.recv_timeout(PAUSE.min(self.limit)) {
                Ok(reply) => break reply?,
                Err(mpsc::RecvTimeoutError::Timeout) if sent.elapsed() < self.limit && is_wanted() => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(failure(format!("it gave no rating within {} s", self.limit.as_secs_f64())));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(failure(self.end())),
            }
        };
        if let Some(Err(error)) = wrote {
            return Err(failure(format!("it does not read its input: {error}")));
        }
        let rating = reply.trim().parse().ok().filter(|rating| (0.0..=1.0).contains(rating));
        rating.ok_or_else(|| failure(format!("a rating must be a number from 0 to 1, got `{}`", reply.trim())))
    }

    /// Describes the end of a command that closed its output.
    fn end(&mut self) -> String {
        for _ in 0..20 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!("it ended ({status}) before it rated a step");
            }
            thread::sleep(PAUSE);
        }
        "it closed its output before it rated a step".into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What the shell started reads the end of its input.
        self.input = None;
        let ended = self.child.kill().and_then(|()| self.child.wait());
        // A process that is gone already is what is wanted.
        drop(ended);
    }
}

fn failure(message: String) -> Error {
    Error::Scorer { scorer: NAME, message }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::executor::block_on;

    use super::*;

    fn rate(command: &str, steps: &[&str]) -> Result<Vec<f64>> {
        let verifier = Verifier { command: command.into(), limit: Duration::from_millis(300) };
        let steps: Vec<String> = steps.iter().map(|&step| step.to_owned()).collect();
        block_on(verifier.score(&Prompt::Raw("2 + 2?".into()), &steps))
    }

    #[test]
    fn the_command_reads_the_problem_the_steps_before_and_the_step() {
        let counting = r#"while read -r line; do
            echo "$line" | grep -qF '"problem":"2 + 2?"' || exit 1
            case "$line" in
                *'"step":"one\n"'*) echo 0.25 ;;
                *'"before":["one\n"]'*) echo ' 1 ' ;;
                *) echo 0 ;;
            esac
        done"#;
        assert_eq!(rate(counting, &["one\n", "two", "three"]).unwrap(), [0.25, 1.0, 0.0]);
    }

    #[test]
    fn failures_of_the_command_are_told() {
        for (command, told) in [
            ("while read -r line; do echo fine; done", "a rating must be a number from 0 to 1, got `fine`"),
            ("while read -r line; do echo 1.5; done", "a rating must be a number from 0 to 1, got `1.5`"),
            ("read -r line; exit 3", "it ended (exit status: 3) before it rated a step"),
            ("read -r line; exec tail -f /dev/null > /dev/null", "it closed its output before it rated a step"),
            ("read -r line; read -r line", "it gave no rating within 0.3 s"),
        ] {
            let error = rate(command, &["a step"]).unwrap_err().to_string();
            assert_eq!(error, format!("step scorer `command`: {told}"), "{command}");
        }
    }

    #[test]
    fn a_dropped_answer_ends_its_command() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let verifier =
            Verifier { command: format!("echo $$ > '{}'; exec tail -f /dev/null", file.display()), limit: LIMIT };
        let mut rating = block_on(verifier.open(&Prompt::Raw("a".into()))).unwrap();
        let written = || fs_err::read_to_string(&file).ok().filter(|text| text.ends_with('\n'));
        let within_limit = |is_so: &dyn Fn() -> bool| {
            let started = Instant::now();
            while !is_so() && started.elapsed() < LIMIT {
                thread::sleep(PAUSE);
            }
            is_so()
        };
        assert!(within_limit(&|| written().is_some()));
        assert!(rating.rate(&["a step".to_owned()], 0).now_or_never().is_none());
        drop(rating);
        let pid = written().unwrap();
        let runs = || Command::new("kill").args(["-0", pid.trim()]).stderr(Stdio::null()).status().unwrap().success();
        assert!(within_limit(&|| !runs()));
    }
}
