//! Ensembles of real server processes: killed, paused, cut off from each other, with full disks and with
//! nonsense at their doors. Clients keep asking meanwhile and write down what they are told; the history is
//! checked afterwards (`zk_testkit::history`), and the members must agree.
//!
//! | variable | meaning |
//! |---|---|
//! | `PADDOCK_ENSEMBLE_ROUNDS` | how many faults each ensemble gets (default: a few of each; thousands for a release) |
//! | `PADDOCK_ENSEMBLE_SEED` | repeats the order of faults of a run; the seed is printed |
//! | `PADDOCK_ENSEMBLE_FAULTS` | the only faults, by name, separated by commas |
//! | `PADDOCK_ENSEMBLE_SERVER` | `apache` runs Apache ZooKeeper 3.9.5 from the conformance cache: proves the harness |
//! | `PADDOCK_ENSEMBLE_BIN` | another binary than the one that was built |
//! | `PADDOCK_ENSEMBLE_KEEP` | keeps the folders with logs and data |
//!
//! Progress is printed: `cargo test --release --workspace --test ensemble -- --nocapture`.

mod bad_input;
mod cluster;
mod faults;
mod load;
mod local_sessions;
mod observer_masters;
mod proxy;
mod read_only;
mod reconfig;
mod several_addresses;
#[path = "../common/small_disk.rs"]
mod small_disk;
mod verify;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use cluster::{Cluster, Member, Mode, Plan, System};
use faults::Fault;
use load::{Field, Load};
use zk_testkit::Prng;
use zk_testkit::history::{self, History, Options};

/// A progress line: also when the test captures its output, a stuck run shows where it is.
pub(crate) fn say(text: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = BEGAN.get_or_init(Instant::now);
    let line = format!("[{:7.2} s] {text}\n", began.elapsed().as_secs_f64());
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// One ensemble at a time: their timing is part of what is tested.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

pub(crate) fn seed() -> u64 {
    number("PADDOCK_ENSEMBLE_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").subsec_nanos().into()
    })
}

/// The client addresses.
pub(crate) fn addresses(cluster: &Cluster) -> Vec<(u64, SocketAddr)> {
    cluster.members.iter().map(|member| (member.id, member.address())).collect()
}

/// Checks a history; it must have exercised something.
pub(crate) fn assert_sound(history: &History, cluster: &Cluster, floor: usize) {
    let options = Options {
        // Apache's sync is answered by a leader that has not noticed yet that it is none any more.
        strict_sync: cluster.system == System::Paddock,
        // What a follower heard is with the leader after half a tick; expiry goes by whole ticks.
        expiry_slack_ms: 2 * cluster.plan.tick_ms,
    };
    let report = history::check(history, &options);
    say(&format!("{report}"));
    assert!(report.violations.is_empty(), "the history is not that of a correct ensemble");
    assert!(report.writes >= floor && report.reads >= floor, "too little was asked: {report}");
}

/// Faults under load, then the reckoning.
fn suffer(plan: Plan, rounds: usize, only: &[Fault]) {
    let _alone = alone();
    let seed = seed();
    let rounds = number("PADDOCK_ENSEMBLE_ROUNDS")
        .map_or(rounds, |number| usize::try_from(number).expect("a number of rounds"));
    let chosen = std::env::var("PADDOCK_ENSEMBLE_FAULTS").ok();
    let mut faults: Vec<Fault> = only.to_vec();
    if let Some(chosen) = &chosen {
        faults.retain(|fault| chosen.split(',').any(|name| name == format!("{fault:?}")));
        assert!(!faults.is_empty(), "{chosen} names no fault of {only:?}");
    }
    say(&format!(
        "{} voters, {} observers, {rounds} faults; PADDOCK_ENSEMBLE_SEED={seed} repeats their order",
        plan.voters, plan.observers
    ));
    let mut prng = Prng::new(seed);
    let mut cluster = Cluster::start(plan);
    let field = Field::new(addresses(&cluster), 3000);
    let load = Load::start(field, 8, Duration::from_millis(12), prng.next_u64());
    let mut recoveries: BTreeMap<Fault, Vec<u64>> = BTreeMap::new();
    for round in 0..rounds {
        if round % faults.len() == 0 && round > 0 {
            prng.shuffle(&mut faults);
        }
        let fault = faults[round % faults.len()];
        let before = load.field.replies.load(Ordering::Relaxed);
        let took = faults::happen(&mut cluster, fault, &mut prng);
        recoveries.entry(fault).or_default().push(u64::try_from(took.as_millis()).unwrap());
        // All clients find their way again before the next one.
        load.await_replies(100);
        let replies = load.field.replies.load(Ordering::Relaxed) - before;
        let story = faults::story(&cluster);
        say(&format!(
            "{round}: {fault:?}, well after {} ms, {replies} replies, {story}",
            took.as_millis()
        ));
    }
    let servers = addresses(&cluster);
    let history = load.finish(&servers);
    cluster.await_serving("a fresh write works", Duration::from_secs(10));
    let zxid = cluster.await_agreement();
    cluster.assert_alive();
    for member in &cluster.members {
        // Apache counts some after it was killed: its snapshots are fuzzy.
        let differs = member.metric("zk_digest_mismatches_count").unwrap_or_default();
        let fine = differs == 0.0 || cluster.system == System::Apache;
        assert!(fine, "server {} has counted {differs} wrong digests", member.id);
    }
    say(&format!("all members agree at {zxid}; recoveries in ms: {recoveries:?}"));
    assert_sound(&history, &cluster, 100 + 20 * rounds);
}

#[test]
fn three_servers_under_faults() {
    suffer(Plan::default(), faults::ALL.len(), &faults::ALL);
}

#[test]
fn five_servers_and_an_observer_under_faults() {
    let faults = [
        Fault::MinorityWithLeader,
        Fault::Bridge,
        Fault::KillLeader,
        Fault::KillAll,
        Fault::PauseLeader,
        Fault::LeaderUnheard,
    ];
    suffer(Plan { voters: 5, observers: 1, ..Plan::default() }, faults.len(), &faults);
}

/// What is left to a member whose disk fills up: nothing, or less than a server keeps free.
const NEARLY_NOTHING: u64 = 64 << 20;

/// The disk of one member after the other fills up under load; the others go on without it. Each case: is
/// it the leader's, and how many bytes are left.
fn fill_disks(cases: &[(bool, u64)]) {
    let _alone = alone();
    let seed = seed();
    let plan = Plan { proxied: false, ..Plan::default() };
    let mut cluster = Cluster::prepare(plan);
    for index in 0..cluster.count() {
        if !cluster.give_small_disk(index) {
            return;
        }
    }
    cluster.start_all();
    cluster.await_serving("the ensemble starts", Duration::from_secs(30));
    let field = Field::new(addresses(&cluster), 3000);
    let load = Load::start(field, 6, Duration::from_millis(5), seed);
    for &(of_leader, left) in cases {
        let leader = cluster.await_leader();
        let full = if of_leader { leader } else { (leader + 1) % cluster.count() };
        let member = &cluster.members[full];
        let noticed = ["the disk is nearly full", "cannot be written"];
        let told = |member: &Member| noticed.map(|text| member.said(text)).iter().sum::<usize>();
        let before = told(member);
        cluster.disk(full).leave(left);
        if cluster.system == System::Paddock {
            cluster.await_that("the full disk is noticed", Duration::from_secs(15), || {
                (told(member) > before || member.has_ended()).then_some(())
            });
        }
        let others: Vec<usize> = (0..cluster.count()).filter(|index| *index != full).collect();
        let began = Instant::now();
        cluster.await_that("writes go on", Duration::from_secs(15), || {
            cluster.writes_anywhere(&others).then_some(())
        });
        let took = began.elapsed();
        // Enough work for the full disk to be met, and not only noticed.
        load.await_replies(1000);
        let room = "the disk has room again";
        let before = cluster.members[full].said(room);
        cluster.disk(full).clear();
        if cluster.system == System::Paddock {
            let member = &cluster.members[full];
            cluster.await_that("the room is noticed", Duration::from_secs(15), || {
                (member.said(room) > before || member.has_ended()).then_some(())
            });
        }
        let ended = cluster.revive(full);
        cluster.await_serving("all serve again", Duration::from_secs(25));
        let (id, which) =
            (cluster.members[full].id, if of_leader { "the leader" } else { "a follower" });
        say(&format!(
            "{left} bytes were left to server {id}, {which}: writes after {} ms, ended {ended}, {}",
            took.as_millis(),
            faults::story(&cluster)
        ));
    }
    let servers = addresses(&cluster);
    let history = load.finish(&servers);
    cluster.await_agreement();
    assert_sound(&history, &cluster, 200);
}

#[test]
fn a_full_disk_stops_one_member_and_not_the_ensemble() {
    fill_disks(&[(false, 0), (true, 0), (false, NEARLY_NOTHING)]);
}

#[test]
fn a_leader_whose_disk_is_nearly_full_does_not_stop_the_ensemble() {
    fill_disks(&[(true, NEARLY_NOTHING)]);
}

/// How long an ensemble is without a leader that was killed.
#[test]
fn a_killed_leader_is_replaced_soon() {
    let _alone = alone();
    let rounds = number("PADDOCK_ENSEMBLE_ROUNDS").unwrap_or(5);
    let plan = Plan { tick_ms: 500, proxied: false, ..Plan::default() };
    let mut cluster = Cluster::start(plan);
    let mut times: Vec<u64> = (0..rounds)
        .map(|_| u64::try_from(faults::time_without_a_leader(&mut cluster).as_millis()).unwrap())
        .collect();
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    say(&format!(
        "a write after the leader's end: median {median} ms, worst {worst} ms of {rounds}"
    ));
    cluster.await_agreement();
    // Far above what is measured on a machine at rest: this one may be busy.
    assert!(median < 3000, "{times:?}");
}

/// The roles are there, and each answers clients.
#[test]
fn every_role_serves() {
    let _alone = alone();
    let plan = Plan { observers: 1, proxied: false, ..Plan::default() };
    let cluster = Cluster::start(plan);
    let modes: Vec<Mode> =
        cluster.members.iter().map(|member| member.status().expect("it serves").mode).collect();
    let count = |mode| modes.iter().filter(|is| **is == mode).count();
    assert_eq!((count(Mode::Leader), count(Mode::Follower), count(Mode::Observer)), (1, 2, 1));
    for member in &cluster.members {
        assert!(member.acknowledges_a_write(), "server {} takes writes", member.id);
    }
    cluster.await_agreement();
}

/// Two of five servers go on, and three of them do not: it is the weights that count.
#[test]
fn groups_and_weights_decide_what_a_quorum_is() {
    let _alone = alone();
    let mut plan = Plan { voters: 5, proxied: false, ..Plan::default() };
    // With the highest ids, 4 and 5 would lead if they could.
    let groups = ["group.1=1:2:3", "group.2=4:5", "weight.4=0", "weight.5=0"];
    plan.lines.extend(groups.map(str::to_owned));
    let mut cluster = Cluster::start(plan);
    let leader = cluster.await_leader();
    assert!(leader < 3, "server {} leads without weight", leader + 1);
    for gone in [3, 4, leader] {
        cluster.kill(gone);
    }
    let left: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    cluster.await_that("two of five go on", Duration::from_secs(20), || {
        cluster.writes_anywhere(&left).then_some(())
    });
    cluster.kill(left[0]);
    cluster.start_member(3);
    cluster.start_member(4);
    cluster.await_that("three of five do not", Duration::from_secs(20), || {
        [left[1], 3, 4].iter().all(|index| cluster.status(*index).is_none()).then_some(())
    });
    // Not later either, when they have found each other.
    std::thread::sleep(Duration::from_secs(3));
    assert!([left[1], 3, 4].iter().all(|index| cluster.status(*index).is_none()));
    cluster.start_all();
    cluster.await_serving("all serve again", Duration::from_secs(30));
    assert!(cluster.await_leader() < 3);
    cluster.await_agreement();
}
