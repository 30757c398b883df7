//! Execution of programs that a model wrote: in a process of its own, with limits, and only where the
//! user allows it.
//!
//! The limits are those of a Unix shell (`ulimit`): processor time, memory, size of written files, open
//! files. Wall-clock time is limited from outside, and the whole process group is killed at its end, so
//! that processes which the program started end with it. This guards against accidents, not against
//! attacks: the program can read files and use the network as the user can.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Limits for one program.
#[derive(Clone, Copy, Debug)]
pub struct Execution {
    /// Wall-clock seconds, and processor seconds.
    pub seconds: u64,
    /// Virtual memory, in MiB.
    pub memory_mib: u64,
}

impl Default for Execution {
    /// Ten seconds and 2 GiB.
    fn default() -> Self {
        Self { seconds: 10, memory_mib: 2048 }
    }
}

/// End of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended without an error.
    Passed,
    /// It ended with an error; the last line that it wrote to its error stream.
    Failed(String),
    /// It ran longer than its limit.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
}

impl Outcome {
    /// A word for tables.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Passed => "passed".into(),
            Self::Failed(line) => format!("failed: {line}"),
            Self::TimedOut => "timed out".into(),
            Self::NotStarted(error) => format!("not started: {error}"),
        }
    }
}

/// Pause between looks at a running program.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of the error stream that are read.
const ERROR_BYTES: usize = 1 << 16;

impl Execution {
    /// Runs a Python program in an empty temporary folder.
    #[must_use]
    pub fn python(&self, program: &str) -> Outcome {
        let folder = std::env::temp_dir().join(format!("wsd-eval-{}-{:?}", std::process::id(), Instant::now()));
        let folder = folder.to_string_lossy().replace([' ', '{', '}', ':', ','], "");
        let outcome = self.in_folder(program, std::path::Path::new(&folder));
        let _ = fs_err::remove_dir_all(&folder);
        outcome.unwrap_or_else(|error| Outcome::NotStarted(error.to_string()))
    }

    fn in_folder(&self, program: &str, folder: &std::path::Path) -> std::io::Result<Outcome> {
        fs_err::create_dir_all(folder)?;
        let errors = folder.join("stderr");
        let limits = format!(
            "ulimit -c 0 && ulimit -t {} && ulimit -v {} && ulimit -f 65536 && ulimit -n 64 && exec python3 -I -",
            self.seconds,
            self.memory_mib << 10
        );
        let mut child = Command::new("/bin/sh")
            .args(["-c", &limits])
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs_err::File::create(&errors)?.into_parts().0)
            .process_group(0)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it is read whole closes its input.
            let _ = stdin.write_all(program.as_bytes());
        }
        let status = self.wait(&mut child)?;
        kill_group(&child);
        let Some(status) = status else {
            let _ = child.wait();
            return Ok(Outcome::TimedOut);
        };
        if status.success() {
            return Ok(Outcome::Passed);
        }
        let written = fs_err::read(&errors)?;
        let end = String::from_utf8_lossy(&written[written.len().saturating_sub(ERROR_BYTES)..]).into_owned();
        let last = end.lines().rev().find(|line| !line.trim().is_empty());
        Ok(Outcome::Failed(last.map_or_else(|| status.to_string(), str::to_owned)))
    }

    /// Waits for the end; `None` if the time is up.
    fn wait(&self, child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
        let end = Instant::now() + Duration::from_secs(self.seconds);
        while Instant::now() < end {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(None)
    }
}

/// Kills all processes of the child's group.
fn kill_group(child: &Child) {
    let group = format!("-{}", child.id());
    let mut kill = Command::new("kill");
    let _ = kill.args(["-KILL", "--", &group]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str) -> Outcome {
        Execution { seconds: 2, memory_mib: 512 }.python(program)
    }

    #[test]
    fn programs_pass_fail_and_are_stopped() {
        if Command::new("python3").arg("-V").output().is_err() {
            eprintln!("skipped: there is no python3");
            return;
        }
        assert_eq!(run("assert 1 + 1 == 2\n"), Outcome::Passed);
        assert_eq!(run("raise ValueError('no')\n"), Outcome::Failed("ValueError: no".into()));
        assert!(matches!(run("while True: pass\n"), Outcome::TimedOut | Outcome::Failed(_)));
        assert!(matches!(run("x = [0] * (1 << 30)\n"), Outcome::Failed(_)));
        assert_eq!(run("import os, time\nif os.fork() == 0: time.sleep(60)\n"), Outcome::Passed);
        assert!(matches!(run("import time\nopen('a', 'w').write('x')\ntime.sleep(9)\n"), Outcome::TimedOut));
    }
}
