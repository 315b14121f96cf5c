//! Runs seeds, one or many.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use crate::check::Violation;
use crate::ensemble::Ensemble;
use crate::markers::Markers;
use crate::swarm::Scenario;
use crate::trace::{Trace, Words};

/// One seed in so many is run twice, and must do the same.
const REPEAT_EVERY: u64 = 50;

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// What it met.
    pub markers: Markers,
    /// Everything that happened, as one number.
    pub hash: u64,
    /// How much happened.
    pub steps: u64,
    /// Simulated time, in µs.
    pub simulated_us: i64,
    /// Transactions committed.
    pub commits: usize,
    /// The last words, where they were wanted.
    pub words: Vec<String>,
}

thread_local! {
    /// Where and why this thread panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let backtrace = std::env::var_os("RUST_BACKTRACE")
                .map(|_| format!("\n{}", std::backtrace::Backtrace::force_capture()));
            let words = format!("{info}{}", backtrace.unwrap_or_default());
            PANIC.with(|panic| *panic.borrow_mut() = Some(words));
        }));
    });
}

/// Runs a scenario.
#[must_use]
pub fn run(scenario: Scenario, words: Words) -> Outcome {
    drive(scenario, words, Ensemble::run)
}

/// Runs a scenario as `drive` will have it.
pub(crate) fn drive(
    scenario: Scenario,
    words: Words,
    drive: impl FnOnce(&mut Ensemble),
) -> Outcome {
    catch_panics();
    let seed = scenario.seed;
    let trace = Trace::new(words);
    let told = trace.clone();
    let ran = catch_unwind(AssertUnwindSafe(move || {
        let mut ensemble = Ensemble::new(scenario, told);
        drive(&mut ensemble);
        let simulated_us = ensemble.now_us();
        let commits = ensemble.checks.commits.len();
        (ensemble.violation, ensemble.markers, simulated_us, commits)
    }));
    let (violation, markers, simulated_us, commits) = ran.unwrap_or_else(|_| {
        let message = PANIC.with(|panic| panic.borrow_mut().take()).unwrap_or_default();
        // What a server checks by itself in builds like this one.
        let checker = if message.contains("is not as predicted") {
            "Z13 a transaction makes of every tree what its leader predicted"
        } else {
            "R10 nothing panics"
        };
        let violation = Violation { checker, message };
        (Some(violation), Markers::default(), 0, 0)
    });
    Outcome {
        seed,
        violation,
        markers,
        hash: trace.hash(),
        steps: trace.steps(),
        simulated_us,
        commits,
        words: trace.kept(),
    }
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed, with what went wrong first.
    pub failures: Vec<(u64, Violation)>,
    /// What they met.
    pub markers: Markers,
    /// Steps in all.
    pub steps: u64,
    /// Simulated time in all, in µs.
    pub simulated_us: i64,
    /// Transactions committed in all.
    pub commits: usize,
    /// Seeds that were run twice.
    pub repeated: u64,
}

/// How to run many seeds.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On so many threads.
    pub jobs: usize,
    /// Stop after so many failures.
    pub failures_max: usize,
}

/// Runs many seeds. `progress` is told now and then how many are done, and of each failure.
pub fn run_many(plan: &Plan, progress: &(dyn Fn(u64, Option<&Outcome>) + Sync)) -> Summary {
    let next = AtomicU64::new(plan.from);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let lock = || summary.lock().expect("no holder of this lock panics");
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= plan.from + plan.seeds {
                        return;
                    }
                    let mut outcome = run(Scenario::draw(seed), Words::Off);
                    let repeat = seed.is_multiple_of(REPEAT_EVERY);
                    if repeat && outcome.violation.is_none() {
                        let again = run(Scenario::draw(seed), Words::Off);
                        if again.hash != outcome.hash {
                            outcome.violation = Some(Violation {
                                checker: "the same seed gives the same run",
                                message: format!(
                                    "trace {:x} after {} steps, then {:x} after {}",
                                    outcome.hash, outcome.steps, again.hash, again.steps
                                ),
                            });
                        }
                    }
                    let mut summary = lock();
                    summary.seeds += 1;
                    summary.steps += outcome.steps;
                    summary.simulated_us += outcome.simulated_us;
                    summary.commits += outcome.commits;
                    summary.repeated += u64::from(repeat);
                    summary.markers.add(&outcome.markers);
                    if let Some(violation) = &outcome.violation {
                        summary.failures.push((seed, violation.clone()));
                        progress(summary.seeds, Some(&outcome));
                        if summary.failures.len() >= plan.failures_max {
                            stop.store(true, Ordering::Relaxed);
                        }
                    } else {
                        progress(summary.seeds, None);
                    }
                }
            });
        }
    });
    summary.into_inner().expect("no holder of this lock panics")
}
