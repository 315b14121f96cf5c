//! How far long work is, and what of it was done when it stops.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Read,
    Created,
    Overwritten,
    Deleted,
    AclsSet,
    Unchanged,
    Skipped,
    Ephemerals,
    Bytes,
}

const COUNTS: [(Count, &str); 9] = [
    (Count::Read, "read"),
    (Count::Created, "created"),
    (Count::Overwritten, "overwritten"),
    (Count::Deleted, "deleted"),
    (Count::AclsSet, "ACLs set"),
    (Count::Unchanged, "unchanged"),
    (Count::Skipped, "skipped"),
    (Count::Ephemerals, "ephemeral left out"),
    (Count::Bytes, "bytes"),
];

#[derive(Debug, Default)]
struct Shared {
    counts: [AtomicU64; COUNTS.len()],
}

/// The counters of one command; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
    started: Instant,
    /// On a terminal the line is written over itself.
    terminal: bool,
    shown: bool,
}

impl Progress {
    /// `asked`: show it whether or not standard error is a terminal.
    pub(crate) fn new(asked: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            shared: Arc::new(Shared::default()),
            started: Instant::now(),
            terminal,
            shown: asked || terminal,
        }
    }

    pub(crate) fn add(&self, count: Count, number: u64) {
        self.shared.counts[count as usize].fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, count: Count) -> u64 {
        self.shared.counts[count as usize].load(Ordering::Relaxed)
    }

    /// `5 created, 2 skipped`: what is not zero.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for (count, name) in COUNTS {
            let number = self.get(count);
            if number > 0 {
                let separator = if text.is_empty() { "" } else { ", " };
                write!(text, "{separator}{number} {name}").expect("a string takes all");
            }
        }
        if text.is_empty() { "nothing".to_owned() } else { text }
    }

    pub(crate) fn json(&self) -> Value {
        let mut map = Map::new();
        for (count, name) in COUNTS {
            let number = self.get(count);
            if number > 0 {
                map.insert(name.replace(' ', "_").to_lowercase(), number.into());
            }
        }
        Value::Object(map)
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let done = self.get(Count::Read);
        let rate = if seconds > 0.0 {
            f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / seconds
        } else {
            0.0
        };
        format!("{} in {seconds:.1} s, {rate:.0}/s", self.summary())
    }

    /// Shows the line now and then, until it is dropped.
    pub(crate) fn show(&self) -> Shown {
        let (progress, interval) =
            (self.clone(), Duration::from_millis(if self.terminal { 250 } else { 1000 }));
        let task = self.shown.then(|| {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let end = if progress.terminal { "\x1b[K\r" } else { "\n" };
                    write!(std::io::stderr().lock(), "{}{end}", progress.line()).ok();
                }
            })
        });
        Shown {
            task,
            clear: self.terminal,
            last: (self.shown && !self.terminal).then(|| self.clone()),
        }
    }
}

/// Shows progress until it is dropped.
pub(crate) struct Shown {
    task: Option<tokio::task::JoinHandle<()>>,
    clear: bool,
    last: Option<Progress>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            if self.clear {
                write!(std::io::stderr().lock(), "\x1b[K").ok();
            }
        }
        if let Some(progress) = &self.last {
            writeln!(std::io::stderr().lock(), "{}", progress.line()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_not_zero() {
        let progress = Progress::new(false);
        assert_eq!(progress.summary(), "nothing");
        progress.add(Count::Created, 5);
        progress.clone().add(Count::AclsSet, 2);
        assert_eq!(progress.summary(), "5 created, 2 ACLs set");
        assert_eq!(progress.json().to_string(), r#"{"created":5,"acls_set":2}"#);
    }

    #[test]
    fn every_count_has_its_place() {
        for (at, (count, _)) in COUNTS.iter().enumerate() {
            assert_eq!(*count as usize, at);
        }
    }
}
