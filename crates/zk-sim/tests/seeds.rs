//! A few seeds with every change; `scripts/sim run` does many more.

use zk_sim::runner::{Plan, run, run_many};
use zk_sim::swarm::Scenario;
use zk_sim::trace::Words;

#[test]
fn seeds_pass() {
    let plan = Plan { from: 0, seeds: 60, jobs: 2, failures_max: 5 };
    let summary = run_many(&plan, &|_, _| {});
    assert_eq!(summary.seeds, plan.seeds);
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
    assert!(summary.commits > 2000, "only {} transactions: it tests nothing", summary.commits);
}

#[test]
fn fixed_seeds_pass() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().expect("a seed").parse().expect("a number");
        let outcome = run(Scenario::draw(seed), Words::Off);
        assert!(outcome.violation.is_none(), "{line}: {:?}", outcome.violation);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let hash = |seed| run(Scenario::draw(seed), Words::Off).hash;
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
    // Words change nothing.
    assert_eq!(run(Scenario::draw(5), Words::Keep(10)).hash, hash(5));
}
