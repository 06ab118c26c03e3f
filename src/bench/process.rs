//! CPU time and memory of the broker's process, from the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::bench::error::BenchError;

/// A process on this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pid: u32,
}

/// Its figures at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct ProcessFigures {
    /// CPU time of the whole process, in nanoseconds, as coarse as the kernel's clock tick.
    coarse_cpu_nanos: u64,
    /// CPU time of each thread that lives, in nanoseconds.
    threads: BTreeMap<u64, u64>,
    /// Resident memory.
    pub(super) resident_bytes: u64,
    /// Resident memory that no file stands behind.
    pub(super) anonymous_bytes: u64,
}

impl Process {
    /// The process with this id; fails when it cannot be looked at.
    pub(super) fn open(pid: u32) -> Result<Self, BenchError> {
        let process = Self { pid };
        process.figures()?;
        Ok(process)
    }

    /// Takes the figures.
    pub(super) fn figures(self) -> Result<ProcessFigures, BenchError> {
        self.read().map_err(|source| BenchError::Process { pid: self.pid, source })
    }

    fn read(self) -> io::Result<ProcessFigures> {
        let root = format!("/proc/{}", self.pid);
        let status = fs::read_to_string(format!("{root}/status"))?;
        let stat = fs::read_to_string(format!("{root}/stat"))?;
        let coarse_cpu_nanos = cpu_ticks(&stat).unwrap_or(0) * (1_000_000_000 / ticks_per_second());
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("{root}/task"))? {
            let entry = entry?;
            // A thread that ended meanwhile has no figures, and the coarse ones are used.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(id), Some(nanos)) = (id, nanos) {
                threads.insert(id, nanos);
            }
        }
        Ok(ProcessFigures {
            coarse_cpu_nanos,
            threads,
            resident_bytes: kibibytes(&status, "VmRSS:").unwrap_or(0) * 1024,
            anonymous_bytes: kibibytes(&status, "RssAnon:").unwrap_or(0) * 1024,
        })
    }
}

impl ProcessFigures {
    /// CPU time used between `earlier` and here, in nanoseconds. Exact unless a thread ended in between.
    pub(super) fn cpu_nanos_since(&self, earlier: &Self) -> u64 {
        let coarse = self.coarse_cpu_nanos.saturating_sub(earlier.coarse_cpu_nanos);
        let is_complete = !self.threads.is_empty()
            && earlier.threads.keys().all(|id| self.threads.contains_key(id));
        if !is_complete {
            return coarse;
        }
        let spent = |(id, nanos): (&u64, &u64)| {
            nanos.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0))
        };
        self.threads.iter().map(spent).sum()
    }
}

/// utime and stime of `/proc/PID/stat`; the name before them may contain anything, so they are found from its end.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 2 0 0 0 30 12 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(42));
    }

    #[test]
    fn time_of_threads_counts_when_none_ended() {
        let earlier = ProcessFigures {
            coarse_cpu_nanos: 10,
            threads: BTreeMap::from([(1, 100), (2, 50)]),
            ..ProcessFigures::default()
        };
        let mut later = ProcessFigures {
            coarse_cpu_nanos: 30,
            threads: BTreeMap::from([(1, 107), (2, 50), (3, 5)]),
            ..ProcessFigures::default()
        };
        assert_eq!(later.cpu_nanos_since(&earlier), 12);
        later.threads.remove(&2);
        assert_eq!(later.cpu_nanos_since(&earlier), 20);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_process_has_memory() {
        let process = Process::open(std::process::id()).unwrap();
        assert!(process.figures().unwrap().resident_bytes > 100_000);
    }
}
