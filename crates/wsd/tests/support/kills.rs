//! Kills of a command at random moments.

use std::process::Command;
use std::time::{Duration, Instant};

/// Kills to survive: their number, and the seed of their moments.
#[derive(Clone, Copy)]
pub(crate) struct Kills {
    pub(crate) count: u32,
    pub(crate) seed: u64,
}

/// Runs a command to its end, which must be a success. Returns the time.
pub(crate) fn finish(mut command: Command) -> Duration {
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed()
}

impl Kills {
    /// Begins a command again and again and kills it. Moments are spread such that a command of the length
    /// `whole` passes through all of its parts. Returns the number of kills before its end.
    pub(crate) fn strike(self, whole: Duration, command: impl Fn() -> Command) -> usize {
        let most = whole.div_f64(f64::from(self.count).sqrt());
        let strike = |number: u32| {
            let mut child = command().spawn().unwrap();
            let share = wsd_core::splitmix64(self.seed * 1000 + u64::from(number)) as f64 / u64::MAX as f64;
            std::thread::sleep(most.mul_f64(share));
            let is_early = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            is_early
        };
        (0..self.count).filter(|number| strike(*number)).count()
    }
}
