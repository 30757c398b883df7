//! A command: a program of the user's that rates steps, such as an exact verifier.
//!
//! The shell starts the command once for each answer. For every step the command reads a line of JSON from its
//! standard input, `{"problem": TEXT, "before": [TEXT, ...], "step": TEXT}`, and writes a line that holds a
//! number from 0 (bad) to 1 (good). It may keep a state: the steps of one answer come in order, and a rejected
//! step is followed by another with the same steps before it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
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
        let mut process = Process::start(&self.command, self.limit)?;
        let (sender, questions) = mpsc::channel::<Question>();
        spawn(move || {
            for Question { line, reply } in questions {
                let rating = process.ask(line, || !reply.is_canceled());
                let failed = rating.is_err();
                // Nobody waits for the rating of an answer that was dropped.
                let _ = reply.send(rating);
                if failed {
                    return;
                }
            }
        })?;
        Ok(Box::new(Verifying { problem: problem(prompt)?, questions: sender }))
    }
}

/// A line for the command, and the place for the rating.
struct Question {
    line: String,
    reply: oneshot::Sender<Result<f64>>,
}

/// The rating of one answer. The thread that asks the command ends with it, and the command with the
/// thread.
struct Verifying {
    problem: String,
    questions: mpsc::Sender<Question>,
}

#[async_trait]
impl Rating for Verifying {
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings> {
        let ended = || failure("it has failed before".into());
        let mut values = Vec::with_capacity(steps.len() - from);
        for at in from..steps.len() {
            let line = json!({"problem": self.problem, "before": steps[..at], "step": steps[at]}).to_string();
            let (reply, rating) = oneshot::channel();
            self.questions.send(Question { line, reply }).map_err(|_| ended())?;
            values.push(rating.await.map_err(|_| ended())??);
        }
        Ok(Ratings { values, tokens: 0 })
    }
}

/// The running command, which ends with this value. It is read and written by threads of their own, so
/// that a command that does neither is given up too.
struct Process {
    child: Child,
    lines: mpsc::Sender<String>,
    replies: mpsc::Receiver<std::io::Result<String>>,
    limit: Duration,
}

impl Process {
    fn start(command: &str, limit: Duration) -> Result<Self> {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().map_err(|error| failure(format!("`sh` could not be started: {error}")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        // One line ahead is known; a command that writes more waits, as for a full pipe.
        let ((lines, to_write), (sender, replies)) = (mpsc::channel::<String>(), mpsc::sync_channel(1));
        let started = Self { child, lines, replies, limit };
        spawn(move || {
            let Some(mut input) = input else { return };
            // A command that reads no more is known by its output.
            while to_write.recv().is_ok_and(|line| input.write_all((line + "\n").as_bytes()).is_ok()) {}
        })?;
        spawn(move || {
            let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
            for line in lines {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(started)
    }

    /// Sends a line and waits for the rating while it is wanted.
    fn ask(&mut self, line: String, is_wanted: impl Fn() -> bool) -> Result<f64> {
        if let Some(early) = self.replies.try_iter().find_map(std::io::Result::ok) {
            return Err(failure(format!("it wrote a line for which there was no step: `{}`", early.trim())));
        }
        let sent = Instant::now();
        let reply = self.lines.send(line).map_or(Err(mpsc::RecvTimeoutError::Disconnected), |()| {
            loop {
                match self.replies.recv_timeout(PAUSE.min(self.limit)) {
                    Err(mpsc::RecvTimeoutError::Timeout) if sent.elapsed() < self.limit && is_wanted() => {}
                    reply => return reply,
                }
            }
        });
        let reply = match reply {
            Ok(reply) => reply?,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(failure(format!("it gave no rating within {} s", self.limit.as_secs_f64())));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(failure(self.end())),
        };
        let rating = reply.trim().parse().ok().filter(|rating| (0.0..=1.0).contains(rating));
        rating.ok_or_else(|| failure(format!("a rating must be a number from 0 to 1, got `{}`", reply.trim())))
    }

    /// Describes the end of a command that closed its output or its input.
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
        // A process that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a thread of the scorer.
fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name(NAME.into()).spawn(work)?;
    Ok(())
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
            ("exec tail -f /dev/null", "it gave no rating within 0.3 s"),
            ("read -r line; read -r line", "it gave no rating within 0.3 s"),
        ] {
            let error = rate(command, &["a step"]).unwrap_err().to_string();
            assert_eq!(error, format!("step scorer `command`: {told}"), "{command}");
        }
    }

    #[test]
    fn a_command_that_reads_nothing_is_given_up_and_a_line_too_many_is_told() {
        // More than a pipe holds.
        let long = "word ".repeat(100_000);
        let told = rate("exec tail -f /dev/null", &[&long]).unwrap_err().to_string();
        assert_eq!(told, "step scorer `command`: it gave no rating within 0.3 s");
        // The second line of a step may come before or after the next question; there is one more each time.
        let twice = Verifier { command: "while read -r line; do echo 1; echo 0; done".into(), limit: LIMIT };
        let mut rating = block_on(twice.open(&Prompt::Raw("a".into()))).unwrap();
        let steps = ["one".to_owned()];
        let told = (0..1000).find_map(|_| block_on(rating.rate(&steps, 0)).err()).unwrap().to_string();
        assert!(told.starts_with("step scorer `command`: it wrote a line for which there was no step: `"), "{told}");
        let told = block_on(rating.rate(&steps, 0)).unwrap_err().to_string();
        assert_eq!(told, "step scorer `command`: it has failed before");
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
