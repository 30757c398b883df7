//! What this process takes of its machine, where the system tells.

/// Ticks of Linux' processor clock in a second, as it tells them to programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page, which `/proc/self/statm` counts in.
const PAGE_BYTES: u64 = 4096;

/// A look at the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Processor time of all threads so far, in the program and on its behalf.
    pub processor_seconds: f64,
    /// Memory that is not elsewhere.
    pub resident_bytes: u64,
    /// Files and sockets that are open.
    pub open_files: usize,
}

/// Look now; `None` where there is no `/proc`.
#[must_use]
pub fn read() -> Option<Usage> {
    let read = |name: &str| fs_err::read_to_string(format!("/proc/self/{name}")).ok();
    let pages: u64 = read("statm")?.split(' ').nth(1)?.parse().ok()?;
    let open_files = fs_err::read_dir("/proc/self/fd").ok()?.count();
    Some(Usage {
        processor_seconds: processor_seconds(&read("stat")?)?,
        resident_bytes: pages * PAGE_BYTES,
        open_files,
    })
}

/// The most memory that was ever held, or since [`forget_peak`].
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Let [`peak_bytes`] count from now on, where the system allows it.
pub fn forget_peak() {
    // 5 is for the peak: proc(5), clear_refs.
    let _ = fs_err::write("/proc/self/clear_refs", "5");
}

/// Fields 14 and 15 of proc(5)'s `stat`. The name before them may hold anything, so count from its closing bracket.
fn processor_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(processor_seconds(stat), Some(3.0));
        assert_eq!(processor_seconds("7 (x"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_there() {
        let usage = read().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_files > 2 && usage.processor_seconds >= 0.0);
        assert!(peak_bytes().unwrap() >= usage.resident_bytes / 2);
    }
}
