//! What the operating system says about this process: memory, CPU time, open files.

use std::fs;
use std::time::Duration;

use crate::metrics::exposition::{Exposition, Kind};

/// Figures of this process. A figure that could not be read is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ProcessSample {
    /// Resident memory.
    pub(crate) resident_bytes: Option<u64>,
    /// Most resident memory so far.
    pub(crate) resident_peak_bytes: Option<u64>,
    /// CPU time in user and kernel mode.
    pub(crate) cpu_time: Option<Duration>,
    /// Open file descriptors.
    pub(crate) open_files: Option<u64>,
    /// The limit of open file descriptors.
    pub(crate) max_files: Option<u64>,
}

impl ProcessSample {
    /// Reads `/proc/self`. Takes microseconds, except for the list of open files, which takes about one per file.
    #[must_use]
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident_bytes: status_bytes(&status, "VmRSS:"),
            resident_peak_bytes: status_bytes(&status, "VmHWM:"),
            cpu_time: cpu_time(),
            open_files: open_files(),
            max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }

    /// Writes them under the names that Prometheus has for every process.
    pub(crate) fn write(&self, exposition: &mut Exposition) {
        let mut gauge = |name: &str, help: &str, value: Option<u64>| {
            if let Some(value) = value {
                exposition.single(name, Kind::Gauge, help, value);
            }
        };
        gauge("process_resident_memory_bytes", "Resident memory.", self.resident_bytes);
        gauge("process_resident_memory_peak_bytes", "Most so far.", self.resident_peak_bytes);
        gauge("process_open_fds", "Open file descriptors.", self.open_files);
        gauge("process_max_fds", "Limit of open file descriptors.", self.max_files);
        if let Some(time) = self.cpu_time {
            let help = "CPU time in user and kernel mode.";
            let name = "process_cpu_seconds_total";
            exposition.single(name, Kind::Counter, help, time.as_secs_f64());
        }
    }
}

/// A line such as `VmRSS:     1234 kB`.
fn status_bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// User and system time from `/proc/self/stat`, in clock ticks (usually hundredths of a second).
fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks = cpu_ticks(&stat)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let nanoseconds = (ticks % per_second) * 1_000_000_000 / per_second;
    Some(Duration::from_secs(ticks / per_second) + Duration::from_nanos(nanoseconds))
}

/// Fields 14 and 15. The second field, the command's name, may contain spaces and brackets: count after its end.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn open_files() -> Option<u64> {
    // The directory itself is open while it is read.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?;
    u64::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let first = ProcessSample::read();
        assert!(first.resident_bytes.is_some_and(|bytes| bytes > 100 * 1024));
        assert!(first.resident_peak_bytes >= first.resident_bytes);
        assert!(first.open_files.is_some_and(|count| count >= 3));
        assert!(first.max_files >= first.open_files);
        let again = ProcessSample::read();
        assert!(again.cpu_time >= first.cpu_time);
    }

    #[test]
    fn status_lines_are_kilobytes() {
        let status = "Name:\tpetrel\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(status_bytes(status, "VmRSS:"), Some(1024 * 1024));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
        assert_eq!(status_bytes("VmRSS: much", "VmRSS:"), None);
    }

    #[test]
    fn cpu_ticks_are_found_behind_a_strange_command_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 11 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(711));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
    }
}
