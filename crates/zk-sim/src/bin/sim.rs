//! The simulator's command line; `scripts/sim` builds and runs it.

use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Parser, Subcommand};
use zk_sim::bugs::{Hunt, IMPOSSIBLE, SEEDED, hunt_all, sow};
use zk_sim::markers::Marker;
use zk_sim::runner::{Outcome, Plan, Summary, run, run_many};
use zk_sim::scenario::play;
use zk_sim::swarm::Scenario;
use zk_sim::trace::Words;
use zk_zab::bugs::Bug;

/// With fewer seeds than this a situation may be missing by chance.
const MARKERS_NEED: u64 = 2000;

/// The last events that a failure shows.
const LAST_EVENTS: usize = 60;

#[derive(Parser)]
#[command(
    name = "sim",
    about = "Simulates ensembles: the production core, with faults as a seed draws them"
)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs many seeds.
    Run {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Stop after so many failures.
        #[arg(long, default_value_t = 10)]
        failures: usize,
        /// A summary for machines.
        #[arg(long)]
        json: bool,
    },
    /// Runs one seed and tells what happens.
    Replay {
        /// The seed.
        seed: u64,
        /// Wait for Enter after each page.
        #[arg(long)]
        step: bool,
        /// The log of the servers too, at this level (`debug`, `info`, ...).
        #[arg(long)]
        log: Option<String>,
        /// Only the last so many events.
        #[arg(long)]
        last: Option<usize>,
    },
    /// Runs the seeds of a file: a number and a reason in each line.
    Fixed {
        /// The file.
        #[arg(default_value = "crates/zk-sim/seeds.txt")]
        file: std::path::PathBuf,
    },
    /// Lists the situations that a run must have met.
    Markers,
    /// Puts known bugs back, one at a time: each must be found. Needs a build with them.
    Bugs {
        /// How many seeds may be needed to find one.
        #[arg(long, default_value_t = 5000)]
        seeds: u64,
        /// A few hundred seeds only, and no failure if they find nothing.
        #[arg(long)]
        quick: bool,
        /// Only these, by number.
        #[arg(long, value_delimiter = ',')]
        only: Vec<u8>,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// A table for machines.
        #[arg(long)]
        json: bool,
    },
    /// Plays the script of a known bug, and tells what happens.
    Script {
        /// The bug's number.
        number: u8,
        /// Each variant draws what the script leaves open.
        #[arg(long, default_value_t = 0)]
        variant: u64,
        /// With the bug; needs a build with it.
        #[arg(long)]
        sown: bool,
        /// Only the last so many events.
        #[arg(long)]
        last: Option<usize>,
    },
}

fn commit() -> String {
    let out = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn report(outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    let again = run(Scenario::draw(outcome.seed), Words::Keep(LAST_EVENTS));
    println!("seed {} failed", outcome.seed);
    println!("  checker: {}", violation.checker);
    println!("  found:   {}", violation.message);
    println!("  last events:");
    for line in &again.words {
        println!("    {line}");
    }
    println!("  commit:  {}", commit());
    println!("  replay:  scripts/sim replay {}\n", outcome.seed);
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Task::Run { seeds, from, jobs, failures, json } => {
            let plan = Plan { from, seeds, jobs, failures_max: failures };
            run_seeds(&plan, json)
        }
        Task::Replay { seed, step, log, last } => replay(seed, step, log.as_deref(), last),
        Task::Fixed { file } => fixed(&file),
        Task::Bugs { seeds, quick, only, jobs, json } => {
            bugs(if quick { seeds.min(300) } else { seeds }, !quick, &only, jobs, json)
        }
        Task::Script { number, variant, sown, last } => script(number, variant, sown, last),
        Task::Markers => {
            for marker in Marker::ALL {
                println!("{marker:?}: {}", marker.text());
            }
            ExitCode::SUCCESS
        }
    }
}

fn run_seeds(plan: &Plan, json: bool) -> ExitCode {
    let begun = Instant::now();
    let summary = run_many(plan, &|done, failed| {
        if let Some(outcome) = failed
            && !json
        {
            report(outcome);
        }
        if done % 500 == 0 {
            let rate = done as f64 / begun.elapsed().as_secs_f64();
            eprintln!("{done} seeds, {rate:.0} in a second");
        }
    });
    let took = begun.elapsed().as_secs_f64();
    let never: Vec<Marker> =
        Marker::ALL.iter().copied().filter(|marker| summary.markers.count(*marker) == 0).collect();
    let complete = summary.seeds < MARKERS_NEED || never.is_empty();
    if json {
        print_json(&summary, took, &never);
    } else {
        print_text(&summary, took);
    }
    if summary.failures.is_empty() && complete {
        ExitCode::SUCCESS
    } else {
        if !complete {
            eprintln!("some situations were never met: {never:?}");
        }
        ExitCode::FAILURE
    }
}

fn print_json(summary: &Summary, took: f64, never: &[Marker]) {
    let markers: serde_json::Map<_, _> = Marker::ALL
        .iter()
        .map(|marker| (format!("{marker:?}"), summary.markers.count(*marker).into()))
        .collect();
    let failures: Vec<_> = summary
        .failures
        .iter()
        .map(|(seed, violation)| {
            serde_json::json!({
                "seed": seed, "checker": violation.checker, "message": violation.message,
            })
        })
        .collect();
    println!(
        "{}",
        serde_json::json!({
            "commit": commit(),
            "seeds": summary.seeds,
            "seconds": took,
            "simulated_seconds": summary.simulated_us / 1_000_000,
            "steps": summary.steps,
            "commits": summary.commits,
            "repeated": summary.repeated,
            "failures": failures,
            "markers": markers,
            "never_met": never.iter().map(|marker| format!("{marker:?}")).collect::<Vec<_>>(),
        })
    );
}

fn print_text(summary: &Summary, took: f64) {
    println!("situations met:");
    for marker in Marker::ALL {
        println!("{:>10}  {}", summary.markers.count(*marker), marker.text());
    }
    println!(
        "{} seeds in {took:.1} s ({:.0} in a second), {} of them twice; {} simulated hours, {} steps, {} transactions; {} failed (commit {})",
        summary.seeds,
        summary.seeds as f64 / took,
        summary.repeated,
        summary.simulated_us / 3_600_000_000,
        summary.steps,
        summary.commits,
        summary.failures.len(),
        commit(),
    );
    let mut kinds = std::collections::BTreeMap::<&str, Vec<u64>>::new();
    for (seed, violation) in &summary.failures {
        kinds.entry(violation.checker).or_default().push(*seed);
    }
    for (checker, mut seeds) in kinds {
        seeds.sort_unstable();
        println!("  {checker}: {} seeds, {:?}", seeds.len(), &seeds[..seeds.len().min(8)]);
    }
}

fn replay(seed: u64, step: bool, log: Option<&str>, last: Option<usize>) -> ExitCode {
    if let Some(level) = log {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(level))
            .without_time()
            .with_writer(std::io::stdout)
            .init();
    }
    let scenario = Scenario::draw(seed);
    println!("{scenario:#?}");
    let words = match (step, last) {
        (true, _) => Words::Keep(usize::MAX),
        (false, Some(last)) => Words::Keep(last),
        (false, None) => Words::Print,
    };
    let outcome = run(scenario, words);
    for (count, line) in (1..).zip(&outcome.words) {
        println!("{line}");
        if step && count % 40 == 0 {
            println!("-- Enter: more; q: to the end --");
            let mut answer = String::new();
            if std::io::stdin().read_line(&mut answer).is_err() || answer.trim() == "q" {
                break;
            }
        }
    }
    println!(
        "trace {:016x}, {} steps, {} transactions",
        outcome.hash, outcome.steps, outcome.commits
    );
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("FAILED {}: {}", violation.checker, violation.message);
            ExitCode::FAILURE
        }
    }
}

fn fixed(file: &std::path::Path) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let mut result = ExitCode::SUCCESS;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let Some(Ok(seed)) = line.split_whitespace().next().map(str::parse) else {
            eprintln!("no seed: {line}");
            return ExitCode::FAILURE;
        };
        let outcome = run(Scenario::draw(seed), Words::Off);
        println!("{} {line}", if outcome.violation.is_some() { "FAILED" } else { "ok" });
        if outcome.violation.is_some() {
            report(&outcome);
            result = ExitCode::FAILURE;
        }
    }
    result
}

fn bugs(seeds: u64, strict: bool, only: &[u8], jobs: usize, json: bool) -> ExitCode {
    if !SEEDED {
        eprintln!("this build has no bugs to find: use scripts/sim bugs");
        return ExitCode::FAILURE;
    }
    let bugs: Vec<Bug> = Bug::ALL
        .iter()
        .copied()
        .filter(|bug| only.is_empty() || only.contains(&bug.number()))
        .collect();
    let begun = Instant::now();
    let hunts = hunt_all(&bugs, seeds, jobs, &|hunt| {
        let took = begun.elapsed().as_secs();
        let seed = hunt.swarm.as_ref().map(|(seed, _)| seed + 1);
        eprintln!("{took:>4} s  {:?}: script {}, seeds {seed:?}", hunt.bug, hunt.script.0);
    });
    if json {
        print_hunts_json(&hunts);
    } else {
        print_hunts(&hunts);
    }
    let found = |hunt: &Hunt| hunt.script.0 > 0 && (!strict || hunt.swarm.is_some());
    if hunts.iter().all(found) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn script(number: u8, variant: u64, sown: bool, last: Option<usize>) -> ExitCode {
    let Some(bug) = Bug::ALL.iter().copied().find(|bug| bug.number() == number) else {
        eprintln!("there is no bug with this number");
        return ExitCode::FAILURE;
    };
    if sown {
        sow(Some(bug));
    }
    let outcome = play(bug, variant, last.map_or(Words::Print, Words::Keep));
    outcome.words.iter().for_each(|line| println!("{line}"));
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("FAILED {}: {}", violation.checker, violation.message);
            ExitCode::FAILURE
        }
    }
}

fn print_hunts(hunts: &[Hunt]) {
    println!(
        "| bug | ZOOKEEPER- | what it does | found by the script as | seeds | found by the swarm as |"
    );
    println!("|---|---|---|---|---|---|");
    for Hunt { bug, script: (_, script), swarm } in hunts {
        let script = script.as_ref().map_or("not found", |violation| violation.checker);
        let (seeds, checker) = swarm.as_ref().map_or(("-".to_owned(), "not found"), |found| {
            ((found.0 + 1).to_string(), found.1.checker)
        });
        let issues = bug.issues().trim_start_matches("ZOOKEEPER-");
        println!(
            "| {} | {issues} | {} | {script} | {seeds} | {checker} |",
            bug.number(),
            bug.text()
        );
    }
    for (number, issue, why) in IMPOSSIBLE {
        let issue = issue.trim_start_matches("ZOOKEEPER-");
        println!("| {number} | {issue} | cannot be: {why} | | | |");
    }
}

fn print_hunts_json(hunts: &[Hunt]) {
    let rows: Vec<_> = hunts
        .iter()
        .map(|Hunt { bug, script: (variants, script), swarm }| {
            serde_json::json!({
                "number": bug.number(),
                "issues": bug.issues(),
                "bug": format!("{bug:?}"),
                "text": bug.text(),
                "script_variants": variants,
                "script_checker": script.as_ref().map(|violation| violation.checker),
                "seeds": swarm.as_ref().map(|(seed, _)| seed + 1),
                "swarm_checker": swarm.as_ref().map(|(_, violation)| violation.checker),
            })
        })
        .collect();
    println!("{}", serde_json::json!({ "commit": commit(), "bugs": rows }));
}
