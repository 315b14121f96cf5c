//! What goes wrong, one thing at a time, under load; and that all is well again afterwards.

use std::thread::sleep;
use std::time::{Duration, Instant};

use zk_testkit::Prng;

use crate::cluster::{Cluster, Mode};
use crate::proxy::Flow;
use crate::say;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillLeader,
    KillFollower,
    /// Every server at once.
    KillAll,
    /// One server again and again, as soon as it serves or before.
    KillInARow,
    PauseLeader,
    PauseFollower,
    /// Longer than the others wait for it.
    PauseLeaderLong,
    IsolateLeader,
    IsolateFollower,
    /// The leader is heard by nobody, and hears all.
    LeaderUnheard,
    /// The leader hears nobody, and is heard by all.
    LeaderDeaf,
    /// One follower and the leader do not hear each other; all others do.
    LinkCut,
    /// Nobody hears anybody.
    FullSplit,
    /// As many as there can be without a quorum, the leader among them.
    MinorityWithLeader,
    /// Everybody sees one server, and that one is all they see.
    Bridge,
    /// Connections are reset again and again.
    Resets,
    /// Links take their time.
    Delay,
    /// Each server in turn is asked to stop, and started again.
    RollingRestart,
    /// The leader is killed while it is cut off.
    KillIsolatedLeader,
    /// The leader is killed, and the next one as soon as it leads.
    KillLeadersInARow,
    /// Everything stands still for a while, as when a machine is suspended.
    PauseAll,
    /// A follower loses its folder.
    WipeFollower,
}

/// What every ensemble gets.
pub(crate) const ALL: [Fault; 22] = [
    Fault::KillLeader,
    Fault::PauseFollower,
    Fault::IsolateLeader,
    Fault::KillFollower,
    Fault::LeaderUnheard,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::IsolateFollower,
    Fault::Resets,
    Fault::LeaderDeaf,
    Fault::KillInARow,
    Fault::LinkCut,
    Fault::RollingRestart,
    Fault::FullSplit,
    Fault::PauseLeaderLong,
    Fault::Delay,
    Fault::MinorityWithLeader,
    Fault::Bridge,
    Fault::KillIsolatedLeader,
    Fault::KillLeadersInARow,
    Fault::PauseAll,
    Fault::WipeFollower,
];

/// How long an ensemble may take to be well again.
const RECOVERY: Duration = Duration::from_secs(25);

/// Lets one fault happen, ends it, and waits until all is well. Gives how long that took.
pub(crate) fn happen(cluster: &mut Cluster, fault: Fault, prng: &mut Prng) -> Duration {
    let count = cluster.count();
    let leader = cluster.await_leader();
    let others: Vec<usize> = (0..count).filter(|index| *index != leader).collect();
    let follower = *prng.pick(&others);
    let session_round_ms = u64::from(cluster.plan.tick_ms) * u64::from(cluster.plan.sync_limit); // syncLimit in ms
    let short = Duration::from_millis(100 + prng.below(500));
    let long = Duration::from_millis(session_round_ms + 300 + prng.below(session_round_ms / 2));
    let any = if prng.chance(50) { short } else { long };
    match fault {
        Fault::KillLeader => {
            cluster.kill(leader);
            sleep(short);
        }
        Fault::KillFollower => {
            cluster.kill(follower);
            sleep(short);
        }
        Fault::KillAll => {
            for index in 0..count {
                cluster.kill(index);
            }
        }
        Fault::KillInARow => {
            for _ in 0..4 {
                cluster.kill(follower);
                cluster.start_member(follower);
                sleep(Duration::from_millis(prng.below(700)));
            }
            cluster.kill(follower);
        }
        Fault::PauseLeader => {
            cluster.pause(leader);
            sleep(short);
        }
        Fault::PauseLeaderLong => {
            cluster.pause(leader);
            sleep(long);
        }
        Fault::PauseFollower => {
            cluster.pause(follower);
            sleep(any);
        }
        Fault::IsolateLeader => {
            cluster.separate(&[leader], Flow::Cut);
            sleep(long);
        }
        Fault::IsolateFollower => {
            cluster.separate(&[follower], Flow::Cut);
            sleep(any);
        }
        Fault::LeaderUnheard => {
            for other in &others {
                cluster.net().set(leader, *other, Flow::Cut);
            }
            sleep(long);
        }
        Fault::LeaderDeaf => {
            for other in &others {
                cluster.net().set(*other, leader, Flow::Cut);
            }
            sleep(long);
        }
        Fault::LinkCut => {
            cluster.net().set_both(leader, follower, Flow::Cut);
            sleep(long);
        }
        Fault::FullSplit => {
            for index in 0..count {
                cluster.separate(&[index], Flow::Cut);
            }
            sleep(any);
        }
        Fault::MinorityWithLeader => {
            let minority = (cluster.plan.voters - 1) / 2;
            let mut group = vec![leader];
            group.extend(others.iter().take(minority - 1));
            cluster.separate(&group, Flow::Cut);
            sleep(long);
        }
        Fault::Bridge => {
            let bridge = follower;
            for one in (0..count).filter(|index| *index != bridge) {
                for two in (0..one).filter(|index| *index != bridge) {
                    cluster.net().set_both(one, two, Flow::Cut);
                }
            }
            sleep(long);
        }
        Fault::Resets => {
            for _ in 0..4 {
                let (one, two) = (prng.index(count), prng.index(count));
                cluster.net().set_both(one, two, Flow::Reset);
                sleep(Duration::from_millis(50 + prng.below(150)));
                cluster.net().set_both(one, two, Flow::FREE);
            }
            for index in 0..count {
                cluster.separate(&[index], Flow::Reset);
            }
            sleep(Duration::from_millis(100));
        }
        Fault::Delay => {
            for index in 0..count {
                let delay = Duration::from_millis(5 + prng.below(40));
                cluster.separate(&[index], Flow::Open(delay));
            }
            sleep(long);
        }
        Fault::RollingRestart => {
            for index in 0..count {
                cluster.terminate(index);
                cluster.start_member(index);
                cluster.await_that("a restarted server serves", RECOVERY, || cluster.status(index));
            }
        }
        Fault::KillLeadersInARow => {
            cluster.kill(leader);
            let next = cluster.await_leader();
            cluster.kill(next);
        }
        Fault::PauseAll => {
            for index in 0..count {
                cluster.pause(index);
            }
            sleep(any);
        }
        Fault::WipeFollower => {
            cluster.kill(follower);
            sleep(short);
            cluster.members[follower].wipe();
        }
        Fault::KillIsolatedLeader => {
            cluster.separate(&[leader], Flow::Cut);
            sleep(short);
            cluster.kill(leader);
            sleep(short);
        }
    }
    cluster.heal();
    cluster.await_serving(&format!("all is well again after {fault:?}"), RECOVERY)
}

/// Where the election left things, for a progress line.
pub(crate) fn story(cluster: &Cluster) -> String {
    let leader = cluster.leader().map(|index| cluster.members[index].id);
    let zxid = leader.and_then(|id| cluster.status(usize::try_from(id).ok()? - 1));
    let zxid = zxid.map(|status| status.zxid.to_string()).unwrap_or_default();
    format!("leader {leader:?} at {zxid}")
}

/// Kills the leader of an ensemble at work; gives how long it took until a survivor acknowledged a write
/// on a new session.
pub(crate) fn time_without_a_leader(cluster: &mut Cluster) -> Duration {
    let leader = cluster.await_leader();
    let survivors: Vec<usize> = (0..cluster.count()).filter(|index| *index != leader).collect();
    let began = Instant::now();
    cluster.kill(leader);
    while !cluster.writes_anywhere(&survivors) {
        assert!(began.elapsed() < RECOVERY, "no survivor acknowledges a write");
        sleep(Duration::from_millis(1));
    }
    let took = began.elapsed();
    cluster.start_member(leader);
    cluster.await_serving("the killed leader comes back", RECOVERY);
    let back = cluster.status(leader).expect("it serves");
    assert!(back.mode != Mode::Standalone);
    say(&format!("a survivor acknowledged a write after {} ms", took.as_millis()));
    took
}
