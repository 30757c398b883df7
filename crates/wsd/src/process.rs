//! Resource usage of this process, from Linux' `/proc`.

/// Clock ticks per second in `/proc/self/stat`.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes per page in `/proc/self/statm`.
const PAGE_BYTES: u64 = 4096;

/// Resources in use at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Processor time of all threads since the start, user and system.
    pub processor_seconds: f64,
    /// Resident set size, in bytes.
    pub resident_bytes: u64,
    /// Open files and sockets.
    pub open_files: usize,
}

/// Reads the current usage; `None` on systems without `/proc`.
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

/// Reads the most files and sockets that this process may have open, from proc(5), `limits`.
#[must_use]
pub fn max_open_files() -> Option<usize> {
    let limits = fs_err::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Reads the peak resident set size in bytes, since the start or the last [`reset_peak`].
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Resets [`peak_bytes`] to the current size, where the system allows it.
pub fn reset_peak() {
    // Writing 5 resets the peak: proc(5), `clear_refs`.
    let _ = fs_err::write("/proc/self/clear_refs", "5");
}

/// Sum of fields 14 and 15 of `stat`, proc(5). Field 2 is the program's name, which may hold spaces
/// and brackets, so fields are counted from its last closing bracket.
fn processor_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_program_name_is_skipped() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(processor_seconds(stat), Some(3.0));
        assert_eq!(processor_seconds("7 (x"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_usage() {
        let usage = read().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_files > 2 && usage.processor_seconds >= 0.0);
        assert!(max_open_files().unwrap() >= usage.open_files);
        assert!(peak_bytes().unwrap() >= usage.resident_bytes / 2);
    }
}
