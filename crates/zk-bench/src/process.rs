use std::fs;

use crate::Failure;

/// Clock ticks a second in /proc: fixed at 100 by the kernel's interface on the platforms we run on.
const TICKS: f64 = 100.0;

/// CPU time that a process has used, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuTime {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl std::ops::Add for CpuTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }
}

impl CpuTime {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }

    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) rss: u64,
    /// The highest it has been.
    pub(crate) peak: u64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rss: self.rss + other.rss, peak: self.peak + other.peak }
    }
}

/// What all of `pids` have used; `None` if there is none.
pub(crate) fn cpu_times(pids: &[u32]) -> Result<Option<CpuTime>, Failure> {
    sum(pids, cpu_time)
}

/// The memory of all of `pids`; `None` if there is none.
pub(crate) fn memories(pids: &[u32]) -> Result<Option<Memory>, Failure> {
    sum(pids, memory)
}

fn sum<T: std::ops::Add<Output = T>>(
    pids: &[u32],
    measure: impl Fn(u32) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let mut all = None;
    for pid in pids {
        let one = measure(*pid)?;
        all = Some(match all {
            Some(all) => all + one,
            None => one,
        });
    }
    Ok(all)
}

/// All threads of `pid`, those that ended included.
pub(crate) fn cpu_time(pid: u32) -> Result<CpuTime, Failure> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(Failure::io(&path))?;
    parse_stat(&stat).ok_or_else(|| Failure::new(format!("{path} is not what it should be")))
}

fn parse_stat(stat: &str) -> Option<CpuTime> {
    // The command name may contain anything, parentheses too; the numbers follow the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || Some(fields.next()?.parse::<u64>().ok()? as f64 / TICKS);
    Some(CpuTime { user: next()?, system: next()? })
}

pub(crate) fn memory(pid: u32) -> Result<Memory, Failure> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(Failure::io(&path))?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(rss), Some(peak)) => Ok(Memory { rss, peak }),
        _ => Err(Failure::new(format!("{path} has no memory figures: is the process gone?"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_name_does_not_confuse_the_fields() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 1234 567 0 0 20 0";
        let cpu = parse_stat(stat).unwrap();
        assert_eq!((cpu.user, cpu.system), (12.34, 5.67));
        assert!(parse_stat("12 (x) S 1 2").is_none());
    }

    #[test]
    fn this_process_has_memory() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.rss > 100_000 && memory.peak >= memory.rss);
    }
}
