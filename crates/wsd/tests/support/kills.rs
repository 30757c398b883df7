//! Kills of a command at random moments.

use std::process::Command;
use std::time::{Duration, Instant};

/// Kills that a command must survive.
const KILLS: u32 = 20;

/// Runs a command to its end, which must be a success. Returns the time.
pub(crate) fn finish(mut command: Command) -> Duration {
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed()
}

/// Begins a command again and again and kills it, at moments that follow from `seed`. They are spread such
/// that a command of the length `whole` passes through all of its parts.
pub(crate) fn strike(seed: u64, whole: Duration, command: impl Fn() -> Command) {
    let most = whole.div_f64(f64::from(KILLS).sqrt());
    let mut early = 0;
    for number in 0..KILLS {
        let mut child = command().spawn().unwrap();
        let share = wsd_core::splitmix64(seed * 1000 + u64::from(number)) as f64 / u64::MAX as f64;
        std::thread::sleep(most.mul_f64(share));
        early += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(early > 0, "no kill came before the end");
    println!("{early} of {KILLS} kills came before the end of {:?}", command());
}
