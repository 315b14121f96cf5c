//! Known bugs of the protocol, put back on purpose: the simulator must find each of them.
//!
//! The switches ([`zk_zab::bugs`]) are compiled only with `--cfg seeded_bugs`; without it this module
//! finds nothing. Those that live in the order of writes on a disk are in [`crate::disk`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use zk_zab::bugs::Bug;

use crate::check::Violation;
use crate::runner::run;
use crate::scenario::{self, STUCK, play};
use crate::swarm::Scenario;
use crate::trace::Words;

/// Whether this build can have bugs.
pub const SEEDED: bool = cfg!(seeded_bugs);

/// Bugs of the list that this design cannot have: number, issue, and why.
pub const IMPOSSIBLE: &[(u8, &str, &str)] = &[(
    18,
    "ZOOKEEPER-3526",
    "a read-only member makes no transactions: only a leader with a quorum does, sessions' ends too",
)];

/// What came of a bug.
#[derive(Debug)]
pub struct Hunt {
    /// The bug.
    pub bug: Bug,
    /// How many variants of its script found it, and what it was found by first.
    pub script: (u64, Option<Violation>),
    /// The seed that found it, and what it was found by.
    pub swarm: Option<(u64, Violation)>,
}

/// From now on this bug, or none, is active on this thread.
pub fn sow(bug: Option<Bug>) {
    #[cfg(seeded_bugs)]
    zk_zab::bugs::sow(bug);
    #[cfg(not(seeded_bugs))]
    let _none = bug;
}

/// Looks for one bug: with its script, and with seeds from 0 on, up to `seeds`.
#[must_use]
pub fn hunt(bug: Bug, seeds: u64) -> Hunt {
    sow(Some(bug));
    let mut script = (0, None);
    for variant in 0..scenario::VARIANTS {
        let found = play(bug, variant, Words::Off).violation;
        if let Some(violation) = found.filter(|violation| violation.checker != STUCK) {
            script.0 += 1;
            script.1.get_or_insert(violation);
        }
    }
    let swarm = (0..seeds).find_map(|seed| {
        let violation = run(Scenario::draw(seed), Words::Off).violation?;
        // What is found without the bug, too, is something else.
        sow(None);
        let clean = run(Scenario::draw(seed), Words::Off).violation.is_none();
        sow(Some(bug));
        clean.then_some((seed, violation))
    });
    sow(None);
    Hunt { bug, script, swarm }
}

/// Looks for these bugs on `jobs` threads. `progress` is told of each.
pub fn hunt_all(
    bugs: &[Bug],
    seeds: u64,
    jobs: usize,
    progress: &(dyn Fn(&Hunt) + Sync),
) -> Vec<Hunt> {
    let next = AtomicUsize::new(0);
    let hunts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = hunt(*bug, seeds);
                    progress(&hunt);
                    hunts.lock().expect("no holder of this lock panics").push(hunt);
                }
            });
        }
    });
    let mut hunts = hunts.into_inner().expect("no holder of this lock panics");
    hunts.sort_by_key(|hunt| hunt.bug);
    hunts
}
