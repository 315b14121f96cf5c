//! The process and its machine, from `/proc`.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// The unit of times in `/proc`: Linux shows user space 100 a second on every architecture that we
/// build for (`USER_HZ`), whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process at one moment. What cannot be found out is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Process {
    /// Time spent on processors, in s.
    pub(crate) cpu_seconds: f64,
    /// Threads.
    pub(crate) threads: u64,
    /// Memory in use, in bytes.
    pub(crate) resident_bytes: u64,
    /// Address space, in bytes.
    pub(crate) virtual_bytes: u64,
    /// Open file descriptors.
    pub(crate) open_fds: u64,
    /// How many may be open; 0: any number.
    pub(crate) max_fds: u64,
    /// The machine's memory, in bytes.
    pub(crate) memory_total_bytes: u64,
    /// What is left of it, in bytes.
    pub(crate) memory_free_bytes: u64,
}

impl Process {
    /// This process, now.
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            cpu_seconds: cpu_ticks(&stat) / TICKS_PER_SECOND,
            threads: field(&status, "Threads:"),
            resident_bytes: field(&status, "VmRSS:") * 1024,
            virtual_bytes: field(&status, "VmSize:") * 1024,
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or_default(),
            memory_total_bytes: field(&memory, "MemTotal:") * 1024,
            memory_free_bytes: field(&memory, "MemAvailable:") * 1024,
        }
    }
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// User and system time out of `/proc/self/stat`. The second field, the program's name, may hold
/// anything: what counts begins behind its last parenthesis.
fn cpu_ticks(stat: &str) -> f64 {
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}

fn open_fds() -> u64 {
    // Linux 6.2 and later keep the number; before, the length is 0 and counting is all there is.
    let told = fs::metadata("/proc/self/fd").map(|folder| folder.len()).unwrap_or_default();
    if told > 0 {
        return told;
    }
    let counted = fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
    (counted as u64).saturating_sub(1) // the one that counted
}

/// The bytes of all files in `folder` and below. What cannot be read, or is gone by now, counts 0.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_understood() {
        let status = "Name:\tpaddock\nVmSize:\t  20000 kB\nVmRSS:\t   1234 kB\nThreads:\t17\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (1234, 17));
        assert_eq!(field(status, "VmSwap:"), 0);
        let stat = "1 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 17 0 1 2 3";
        assert!((cpu_ticks(stat) - 300.0).abs() < f64::EPSILON);
        assert!(cpu_ticks("").abs() < f64::EPSILON);
    }

    #[test]
    fn this_process_is_alive() {
        let process = Process::now();
        assert!(process.threads >= 1 && process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.memory_total_bytes > process.memory_free_bytes, "{process:?}");
        let before = Process::now().open_fds;
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(Process::now().open_fds >= before + 25, "{} files", files.len());
    }

    #[test]
    fn folders_are_summed_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("a"), [0; 10]).unwrap();
        fs::write(dir.path().join("in/b"), [0; 32]).unwrap();
        assert_eq!(folder_bytes(dir.path()), 42);
        assert_eq!(folder_bytes(&dir.path().join("missing")), 0);
    }
}
