//! Random ensembles. `PADDOCK_SEEDS=n` runs so many, `PADDOCK_SEED=n` that one alone, and then with
//! `PADDOCK_TRACE=1` every step is printed.

use std::collections::BTreeMap;

use zk_testkit::{Prng, property_of};

use crate::harness::{Cluster, TICK_MS, Weather, grouped, members};

/// Faults for some seconds, then none: everybody must serve, and new transactions must get through.
pub(crate) fn run(
    prng: &Prng,
    groups: Option<&[&[u64]]>,
    reconfigured: bool,
    trace: bool,
) -> Cluster {
    let mut prng = prng.clone();
    let reconfig_every = if reconfigured { *prng.pick(&[10, 50, 200]) } else { 0 };
    let voters = *prng.pick(&[1, 3, 3, 3, 5]);
    let observers = if prng.chance(30) { 1 } else { 0 };
    let members =
        groups.map_or_else(|| members(voters, observers), |groups| grouped(groups, observers));
    let weather = Weather {
        delay_ms_max: *prng.pick(&[2, 10, 30, 60]),
        sync_ms_max: *prng.pick(&[1, 5, 20, 80]),
        proposals: *prng.pick(&[0, 10, 40]),
        fault_every: *prng.pick(&[10, 30, 100]),
        checkpoint_every: *prng.pick(&[0, 10, 60, 300]),
        reconfig_every,
        forgets: prng.clone().chance(50),
    };
    let fault_ms = 2_000 + i64::try_from(prng.below(6_000)).expect("small");
    let force_snapshots = prng.chance(5);
    let short_epochs = prng.chance(10);
    let mut cluster = Cluster::new(members, prng, weather);
    cluster.config.force_snapshot_sync = force_snapshots;
    if short_epochs {
        cluster.config.counter_limit = 20;
    }
    cluster.trace = trace;
    if reconfigured {
        cluster.config.reconfig_enabled = true;
        for _ in 0..cluster.prng.below(3) {
            cluster.add_server();
        }
    }
    cluster.start_all();
    let end_ms = cluster.now_ms + fault_ms;
    while cluster.now_ms < end_ms {
        cluster.run_until(cluster.now_ms + TICK_MS);
        let every = cluster.weather.fault_every;
        if cluster.prng.below(every) == 0 {
            cluster.fault();
        }
    }
    // Inside the assumptions about time, from here on.
    cluster.weather.delay_ms_max = 10;
    cluster.weather.sync_ms_max = 5;
    cluster.weather.proposals = 0;
    cluster.weather.reconfig_every = 0;
    cluster.heal();
    let progress = cluster.progress(10_000);
    let halted: Vec<_> =
        cluster.servers.iter().filter_map(|server| server.halted.clone()).collect();
    assert!(halted.is_empty(), "{halted:?}");
    if let Err(why) = progress {
        panic!("{why}");
    }
    // And it stays so.
    cluster.calm = !short_epochs;
    cluster.run_until(cluster.now_ms + 2_000);
    if let Err(why) = cluster.progress(1_000) {
        panic!("{why}");
    }
    let (first, others) = cluster.servers.split_first().expect("a server");
    for other in others {
        assert_eq!(first.state, other.state);
    }
    cluster
}

#[allow(clippy::disallowed_methods, reason = "how much to run is for whoever runs it to say")]
#[test]
fn ensembles_agree_and_recover() {
    let seeds =
        std::env::var("PADDOCK_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let seen = std::cell::RefCell::new(BTreeMap::<&str, u64>::new());
    let count = std::cell::Cell::new(0);
    property_of("ensembles agree and recover", seeds, |prng| {
        let trace = std::env::var_os("PADDOCK_TRACE").is_some();
        let cluster = run(prng, None, false, trace);
        for (mark, times) in &cluster.seen {
            *seen.borrow_mut().entry(mark).or_default() += times;
        }
        count.set(count.get() + 1);
    });
    demand(count.get(), &seen.borrow(), &[]);
}

#[allow(clippy::disallowed_methods, reason = "how much to run is for whoever runs it to say")]
#[test]
fn ensembles_agree_while_they_change() {
    let seeds =
        std::env::var("PADDOCK_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let seen = std::cell::RefCell::new(BTreeMap::<&str, u64>::new());
    let count = std::cell::Cell::new(0);
    property_of("ensembles agree while they change", seeds, |prng| {
        let trace = std::env::var_os("PADDOCK_TRACE").is_some();
        let cluster = run(prng, None, true, trace);
        for (mark, times) in &cluster.seen {
            *seen.borrow_mut().entry(mark).or_default() += times;
        }
        count.set(count.get() + 1);
    });
    demand(
        count.get(),
        &seen.borrow(),
        &[
            "a reconfiguration was proposed",
            "a reconfiguration was committed",
            "a configuration was activated",
        ],
    );
}

/// What must have happened somewhere, or the runs prove nothing.
fn demand(count: u64, seen: &BTreeMap<&str, u64>, more: &[&str]) {
    if count < 100 {
        return;
    }
    println!("{seen:#?}");
    let marks = [
        "DIFF",
        "TRUNC",
        "a leader was established",
        "a snapshot was sent",
        "a tree was switched",
        "history was sent from disk",
    ];
    for mark in marks.iter().chain(more) {
        assert!(seen.get(mark).is_some_and(|times| *times >= 10), "{mark}: {seen:?}");
    }
}

#[allow(clippy::disallowed_methods, reason = "how much to print is for whoever runs it to say")]
#[test]
fn ensembles_with_groups_and_weights_agree_and_recover() {
    let shapes: [&[&[u64]]; 4] = [
        &[&[1, 1, 1], &[1, 1, 1], &[1, 1, 1]],
        &[&[1, 1, 1], &[2, 1], &[0, 0]],
        &[&[3, 1, 1, 1, 0]],
        &[&[1, 1], &[1, 1]],
    ];
    property_of("ensembles with groups and weights agree and recover", 80, |prng| {
        let trace = std::env::var_os("PADDOCK_TRACE").is_some();
        let mut draw = prng.clone();
        run(prng, Some(*draw.pick(&shapes)), false, trace);
    });
}
