//! The parent: starts children, and keeps the inputs that they do not survive.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::child::{CORPUS, COUNT, CURRENT, name};
use crate::targets::Target;

/// The longest time for one input.
const MAX_SECONDS: u64 = 5;
/// The most memory of a child, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// The time for a child to start, which may load models.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const PAGE_BYTES: u64 = 4096;

/// Runs a target for some time; returns false if there was a finding.
pub(crate) fn run(target: &'static Target, time: Duration, mut seed: u64) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let findings = PathBuf::from("fuzz/findings").join(target.name);
    let (started, mut count, mut found) = (Instant::now(), 0u64, 0);
    while started.elapsed() < time {
        let left = (time - started.elapsed()).as_secs_f64();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["child", target.name, &folder.path().display().to_string(), &seed.to_string(), &left.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let fault = watch(&mut child, folder.path())?;
        count += fs_err::read_to_string(folder.path().join(COUNT)).ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
        let _ = fs_err::remove_file(folder.path().join(COUNT));
        let Some(fault) = fault else { break };
        let input = fs_err::read(folder.path().join(CURRENT)).unwrap_or_default();
        fs_err::create_dir_all(&findings)?;
        let kept = findings.join(format!("{fault}-{}", name(&input)));
        fs_err::write(&kept, input)?;
        println!("{}: {fault}: {}", target.name, kept.display());
        (found, seed) = (found + 1, seed + 1);
    }
    let corpus = fs_err::read_dir(folder.path().join(CORPUS)).map_or(0, Iterator::count) + (target.seeds)()?.len();
    println!("{}: {count} inputs, corpus of {corpus}, {found} findings", target.name);
    Ok(found == 0)
}

/// Waits for the end of a child; returns the name of the fault that ended it.
fn watch(child: &mut Child, folder: &Path) -> Result<Option<&'static str>> {
    let (current, began) = (folder.join(CURRENT), SystemTime::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((!status.success()).then_some("crash"));
        }
        let changed = fs_err::metadata(&current).and_then(|metadata| metadata.modified()).ok();
        let idle = match changed.filter(|changed| *changed > began) {
            Some(changed) => changed.elapsed().unwrap_or_default().saturating_sub(Duration::from_secs(MAX_SECONDS)),
            None => began.elapsed().unwrap_or_default().saturating_sub(START),
        };
        let fault = if resident_bytes(child.id()) > MAX_BYTES {
            Some("memory")
        } else {
            (idle > Duration::ZERO).then_some("hang")
        };
        if fault.is_some() {
            child.kill()?;
            child.wait()?;
            return Ok(fault);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads the resident set of a process; 0 where the system does not tell it.
fn resident_bytes(id: u32) -> u64 {
    let pages = fs_err::read_to_string(format!("/proc/{id}/statm")).ok();
    pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}
