//! Ensembles that change while they run.

use zk_proto::{Epoch, Zxid};
use zk_testkit::Prng;
use zk_zab::Members;

use crate::harness::{Cluster, Weather, members, of_roles};

/// Three voters that may be changed, and servers that are started beside them.
fn calm(voters: usize) -> Cluster {
    slow(voters, 2, 1)
}

/// The same, with messages that take up to `delay_ms_max`.
fn slow(voters: usize, delay_ms_max: u64, seed: u64) -> Cluster {
    let weather = Weather {
        delay_ms_max,
        sync_ms_max: 2,
        proposals: 0,
        fault_every: 1,
        checkpoint_every: 0,
        reconfig_every: 0,
        forgets: true,
    };
    let mut cluster = Cluster::new(members(voters, 0), Prng::new(seed), weather);
    cluster.config.reconfig_enabled = true;
    cluster.start_all();
    cluster.progress(10_000).expect("nothing is wrong");
    cluster
}

fn voters(cluster: &Cluster, index: usize) -> Vec<i64> {
    cluster.servers[index].peer.members().voters.iter().map(|id| id.0).collect()
}

/// Changes the ensemble, and waits until all have it.
fn change(cluster: &mut Cluster, roles: &[(usize, &str)]) {
    let leader = cluster.leader().expect("a leader");
    let zxid = cluster.reconfigure(leader, roles).expect("the leader takes it");
    cluster.progress(5_000).expect("it goes on");
    for server in &cluster.servers {
        let members = server.peer.members();
        assert!(members.version >= zxid.0, "server {}: {members:?}", server.id);
        assert!(!server.peer.is_reconfiguring());
    }
}

const VOTES: &str = "participant";

/// Of its own, or of one that came to nothing before. And that epoch goes on: who follows it is not sent
/// away because the members have a number now.
#[test]
fn the_first_configuration_gets_the_number_of_its_epoch() {
    for seed in 0..100 {
        let cluster = slow(3, 20, seed);
        let epochs: Vec<_> = cluster.established.keys().collect();
        let [epoch] = *epochs else { panic!("seed {seed}: {epochs:?}") };
        let number = Zxid(cluster.servers[0].peer.members().version);
        assert!(number.counter() == 0 && number.0 > 0 && number.epoch() <= *epoch, "seed {seed}");
        for server in &cluster.servers {
            assert_eq!(server.peer.members().version, number.0, "seed {seed}");
        }
    }
}

#[test]
fn a_server_joins_and_votes() {
    let mut cluster = calm(3);
    let joiner = cluster.add_server();
    cluster.start(joiner);
    cluster.progress(2_000).expect("it follows without a vote");
    assert_eq!(voters(&cluster, joiner), [1, 2, 3], "it has learned who votes");
    change(&mut cluster, &[(0, VOTES), (1, VOTES), (2, VOTES), (3, VOTES)]);
    assert_eq!(voters(&cluster, 0), [1, 2, 3, 4]);
    // Two of four are no quorum any more.
    let leader = cluster.leader().expect("a leader");
    let others: Vec<_> = (0..4).filter(|index| *index != leader).collect();
    cluster.crash(others[0], 9);
    cluster.crash(others[1], 9);
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(cluster.leader(), None);
    cluster.start(others[0]);
    cluster.start(others[1]);
    cluster.progress(3_000).expect("they are back");
}

#[test]
fn the_leader_leaves_and_is_followed_by_the_one_it_names() {
    let mut cluster = calm(3);
    let leader = cluster.leader().expect("a leader");
    let others: Vec<_> =
        (0..3).filter(|index| *index != leader).map(|index| (index, VOTES)).collect();
    let epoch = cluster.servers[leader].peer.status().current_epoch;
    let since_ms = cluster.now_ms;
    cluster.reconfigure(leader, &others).expect("the leader takes it");
    while cluster.leader().is_none_or(|now| now == leader) {
        cluster.run_until(cluster.now_ms + 1);
        assert!(cluster.now_ms < since_ms + 300, "nobody leads");
    }
    cluster.progress(3_000).expect("it goes on");
    let new = cluster.leader().expect("a leader");
    assert_eq!(
        cluster.servers[new].peer.status().current_epoch,
        Epoch(epoch.0 + 1),
        "one election"
    );
    // Who left follows without a vote, and nothing waits for it.
    assert!(!voters(&cluster, leader).contains(&cluster.servers[leader].id.0));
    cluster.crash(leader, 9);
    let zxid = cluster.propose(new).expect("a leader");
    cluster.run_until(cluster.now_ms + 100);
    assert!(cluster.servers[new].state.iter().any(|(own, _)| *own == zxid));
}

/// Its followers hear that it leads before it does.
#[test]
fn the_one_that_is_named_may_hear_of_it_last() {
    for seed in 1..200 {
        let mut cluster = slow(3, 40, seed);
        let leader = cluster.leader().expect("a leader");
        let others: Vec<_> =
            (0..3).filter(|index| *index != leader).map(|index| (index, VOTES)).collect();
        let epoch = cluster.servers[leader].peer.status().current_epoch;
        cluster.reconfigure(leader, &others).expect("the leader takes it");
        while cluster.leader().is_none_or(|now| now == leader) {
            cluster.run_until(cluster.now_ms + 1);
        }
        cluster.progress(3_000).expect("it goes on");
        let new = cluster.leader().expect("a leader");
        let now = cluster.servers[new].peer.status().current_epoch;
        assert_eq!(now, Epoch(epoch.0 + 1), "one election, seed {seed}");
    }
}

/// Who becomes an observer and a voter again has begun more elections than others, of which they know
/// nothing.
#[test]
fn the_one_that_is_named_leads_whatever_rounds_the_others_are_in() {
    for other in 0..5 {
        let mut cluster = calm(5);
        let leader = cluster.leader().expect("a leader");
        if other == leader {
            continue;
        }
        for role in ["observer", VOTES, "observer", VOTES] {
            let roles: Vec<_> =
                (0..5).map(|index| (index, if index == other { role } else { VOTES })).collect();
            change(&mut cluster, &roles);
        }
        let leader = cluster.leader().expect("a leader");
        let others: Vec<_> =
            (0..5).filter(|index| *index != leader).map(|index| (index, VOTES)).collect();
        let epoch = cluster.servers[leader].peer.status().current_epoch;
        let since_ms = cluster.now_ms;
        cluster.reconfigure(leader, &others).expect("the leader takes it");
        while cluster.leader().is_none_or(|now| now == leader) {
            cluster.run_until(cluster.now_ms + 1);
            assert!(cluster.now_ms < since_ms + 300, "nobody leads, {other} was an observer");
        }
        cluster.progress(3_000).expect("it goes on");
        let new = cluster.leader().expect("a leader");
        let now = cluster.servers[new].peer.status().current_epoch;
        assert_eq!(now, Epoch(epoch.0 + 1), "one election");
    }
}

#[test]
fn voters_become_observers_and_back() {
    let mut cluster = calm(5);
    let leader = cluster.leader().expect("a leader");
    let other = (leader + 1) % 5;
    let with = |role: &'static str| -> Vec<_> {
        (0..5).map(|index| (index, if index == other { role } else { VOTES })).collect()
    };
    for role in ["observer", VOTES, "observer"] {
        change(&mut cluster, &with(role));
        let observes =
            cluster.servers[other].peer.members().observers.contains(&cluster.servers[other].id);
        assert_eq!(observes, role == "observer");
    }
    // A leader that becomes an observer.
    change(
        &mut cluster,
        &[(leader, "observer"), ((leader + 2) % 5, VOTES), ((leader + 3) % 5, VOTES)],
    );
    assert_ne!(cluster.leader(), Some(leader));
}

/// Everybody is replaced: who comes back with the old configuration finds the new ensemble, and cannot
/// lead the old one beside it.
#[test]
fn the_old_quorum_does_not_come_back() {
    let mut cluster = calm(3);
    for _ in 0..3 {
        let joiner = cluster.add_server();
        cluster.start(joiner);
    }
    cluster.progress(2_000).expect("they follow");
    let old = 0..3;
    change(&mut cluster, &[(3, VOTES), (4, VOTES), (5, VOTES)]);
    cluster.progress(2_000).expect("it goes on");
    for index in old.clone() {
        cluster.crash(index, 9);
    }
    // What they know is what is in their logs, which they read when they start.
    let lone: Vec<_> = (3..6).collect();
    for index in &lone {
        cluster.crash(*index, 9);
    }
    for index in old {
        cluster.start(index);
    }
    cluster.run_until(cluster.now_ms + 5_000);
    assert_eq!(cluster.leader(), None, "three of those that were replaced");
    for index in lone {
        cluster.start(index);
    }
    cluster.progress(3_000).expect("the new ones lead");
    assert!(cluster.leader().is_some_and(|leader| leader >= 3));
}

/// A reconfiguration that is not committed is completed by a leader that has it, and forgotten by those
/// that have to truncate it.
#[test]
fn an_interrupted_reconfiguration_is_completed_or_forgotten() {
    for reached in [true, false] {
        let mut cluster = calm(3);
        let leader = cluster.leader().expect("a leader");
        let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
        if !reached {
            for other in &others {
                cluster.blocked.insert((leader, *other));
            }
        }
        let roles: Vec<_> = others.iter().map(|index| (*index, VOTES)).collect();
        let zxid = cluster.reconfigure(leader, &roles).expect("the leader takes it");
        if reached {
            // It is on a follower's disk, and nobody has heard that it is on another one.
            while !cluster.servers[others[0]].disk.has(zxid) {
                cluster.run_until(cluster.now_ms + 1);
            }
        } else {
            cluster.run_until(cluster.now_ms + 20);
            assert!(cluster.servers[leader].disk.has(zxid));
        }
        cluster.crash(leader, 9);
        // Until the others have given it up, so that nothing of it is on its way any more.
        cluster.run_until(cluster.now_ms + 1_500);
        cluster.blocked.clear();
        cluster.start(leader);
        cluster.progress(3_000).expect("it goes on");
        let expected = if reached { 2 } else { 3 };
        for index in 0..3 {
            assert_eq!(
                voters(&cluster, index).len(),
                expected,
                "server {}, reached: {reached}",
                index + 1
            );
            assert!(!cluster.servers[index].peer.is_reconfiguring());
        }
    }
}

/// Three servers have stopped, of which these have a file that says that the last one and two more were to be
/// the ensemble; their logs say nothing of it.
fn stopped_amid_a_change(knowing: &[usize]) -> Cluster {
    let mut cluster = calm(3);
    let version = cluster.servers[0].peer.members().version + 1;
    let next = of_roles([(2, VOTES), (3, VOTES), (4, VOTES)], version);
    for index in 0..3 {
        cluster.crash(index, 9);
    }
    for index in knowing {
        cluster.servers[*index].proposed = Some(next.clone());
    }
    cluster
}

#[test]
fn a_proposal_that_only_files_tell_of_is_completed() {
    let mut cluster = stopped_amid_a_change(&[0, 1, 2]);
    for index in 0..3 {
        cluster.start(index);
    }
    cluster.run_until(cluster.now_ms + 5_000);
    assert_eq!(cluster.leader(), None, "the other two may lead already");
    for _ in 3..5 {
        let index = cluster.add_server();
        cluster.start(index);
    }
    cluster.progress(5_000).expect("a quorum of each");
    for index in 0..5 {
        assert_eq!(voters(&cluster, index), [3, 4, 5], "server {}", index + 1);
        assert!(!cluster.servers[index].peer.is_reconfiguring());
    }
    assert!(cluster.leader().is_some_and(|leader| leader >= 2));
}

/// The one that leads does not know of it. (Server 3 would: with its id it is elected, and waits for servers 4 and
/// 5, as upstream's does, until the file is moved away.)
#[test]
fn a_proposal_that_no_leader_has_is_forgotten_whatever_a_file_says() {
    for knows in 0..2 {
        let mut cluster = stopped_amid_a_change(&[knows]);
        for index in 0..3 {
            cluster.start(index);
        }
        cluster.progress(20_000).expect("the others are a quorum");
        for index in 0..3 {
            assert_eq!(voters(&cluster, index), [1, 2, 3], "server {}", index + 1);
            assert!(!cluster.servers[index].peer.is_reconfiguring());
        }
    }
}

/// It knows none of those that lead by now, and nobody whom it knows is there.
#[test]
fn who_was_away_is_found_by_those_that_it_does_not_know() {
    let mut cluster = calm(3);
    cluster.weather.forgets = false;
    for _ in 3..5 {
        let joiner = cluster.add_server();
        cluster.start(joiner);
    }
    cluster.progress(2_000).expect("they follow");
    let leader = cluster.leader().expect("a leader");
    let away = (leader + 1) % 3;
    cluster.crash(away, 9);
    let roles = [(away, VOTES), (3, VOTES), (4, VOTES)];
    cluster.reconfigure(leader, &roles).expect("the leader takes it");
    cluster.run_until(cluster.now_ms + 2_000);
    assert_eq!(voters(&cluster, 3), [i64::try_from(away + 1).expect("small"), 4, 5]);
    for index in (0..5).filter(|index| *index != away) {
        cluster.crash(index, 9);
    }
    for index in [away, 3, 4] {
        cluster.start(index);
    }
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(voters(&cluster, away), voters(&cluster, 3));
    assert!(cluster.servers[away].serving.is_some(), "it has found them");
}

/// ZOOKEEPER-3829: servers are replaced one after the other, each change by a leader that is itself new.
#[test]
fn a_rolling_change_leaves_a_leader_that_commits() {
    let mut cluster = calm(3);
    let mut members = vec![0, 1, 2];
    for _ in 0..6 {
        let joiner = cluster.add_server();
        cluster.start(joiner);
        cluster.progress(3_000).expect("it follows");
        let leader = cluster.leader().expect("a leader");
        members.push(joiner);
        let roles: Vec<_> = members.iter().map(|index| (*index, VOTES)).collect();
        change(&mut cluster, &roles);
        // The leader goes, then its server is ended.
        members.retain(|index| *index != leader);
        let roles: Vec<_> = members.iter().map(|index| (*index, VOTES)).collect();
        change(&mut cluster, &roles);
        let new = cluster.leader().expect("a leader");
        assert!(cluster.propose(new).is_some());
    }
    let expected: Vec<_> = members.iter().map(|index| cluster.servers[*index].id).collect();
    assert!(cluster.servers[8].peer.members().voters.iter().eq(&expected));
}

/// Of two reconfigurations in a log the first one is in force: the ensemble before it must not decide with
/// the second one alone.
#[test]
fn a_configuration_between_two_is_not_skipped() {
    let mut cluster = calm(4);
    let leader = cluster.leader().expect("a leader");
    let others: Vec<_> = (0..4).filter(|index| *index != leader).collect();
    change(&mut cluster, &[(leader, VOTES)]);
    // Those that were replaced are to vote again. The one that has to agree does not.
    cluster.servers[leader].wedged = true;
    let roles: Vec<_> = others.iter().map(|index| (*index, VOTES)).collect();
    let zxid = cluster.reconfigure(leader, &roles).expect("the leader takes it");
    cluster.run_until(cluster.now_ms + 50);
    for index in 0..4 {
        assert_eq!(cluster.servers[index].disk.has(zxid), index != leader);
        cluster.crash(index, 0);
    }
    for index in &others {
        cluster.start(*index);
    }
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(cluster.leader(), None, "it is not committed");
    cluster.start(leader);
    cluster.progress(3_000).expect("everybody is back");
}

/// The one that came has what was committed since. Those that left, of which one has not heard of that,
/// and its own file, know less than its log.
#[test]
fn one_that_comes_may_be_the_only_one_with_everything() {
    let mut cluster = calm(3);
    let joiner = cluster.add_server();
    cluster.start(joiner);
    cluster.progress(2_000).expect("it follows");
    let leader = cluster.leader().expect("a leader");
    let ignorant = (leader + 1) % 3;
    cluster.crash(ignorant, 9);
    let zxid = cluster.reconfigure(leader, &[(joiner, VOTES)]).expect("the leader takes it");
    cluster.run_until(cluster.now_ms + 500);
    assert!(!cluster.servers[ignorant].disk.has(zxid));
    cluster.crash(leader, 9);
    cluster.crash((leader + 2) % 3, 9);
    let last = cluster.propose(joiner).expect("it leads");
    cluster.run_until(cluster.now_ms + 50);
    assert!(cluster.servers[joiner].state.iter().any(|(zxid, _)| *zxid == last));
    cluster.crash(joiner, 9);
    cluster.start_all();
    cluster.progress(5_000).expect("everybody is back");
    assert_eq!(cluster.leader(), Some(joiner));
    assert!(cluster.servers[ignorant].state.iter().any(|(zxid, _)| *zxid == last));
}

/// One that would come is ahead of all; but a voter that is needed has not heard that it comes, and would not
/// elect it. What it has is not committed for the same reason.
#[test]
fn one_that_may_never_come_is_not_waited_for() {
    let mut cluster = calm(2);
    let joiner = cluster.add_server();
    cluster.start(joiner);
    cluster.progress(2_000).expect("it follows");
    let leader = cluster.leader().expect("a leader");
    let other = 1 - leader;
    cluster.blocked.insert((leader, other));
    let roles = [(other, VOTES), (joiner, VOTES)];
    let zxid = cluster.reconfigure(leader, &roles).expect("the leader takes it");
    cluster.run_until(cluster.now_ms + 20);
    cluster.servers[leader].wedged = true;
    let last = cluster.propose(leader).expect("it leads");
    cluster.run_until(cluster.now_ms + 20);
    for (index, (has_change, has_last)) in
        [(leader, (true, false)), (other, (false, false)), (joiner, (true, true))]
    {
        let disk = &cluster.servers[index].disk;
        assert_eq!(
            (disk.has(zxid), disk.has(last)),
            (has_change, has_last),
            "server {}",
            index + 1
        );
    }
    for index in 0..3 {
        cluster.crash(index, 0);
    }
    cluster.blocked.clear();
    cluster.start_all();
    cluster.progress(5_000).expect("everybody is back");
    assert_eq!(voters(&cluster, leader).len(), 2, "the leader had it");
    assert!(!cluster.servers[joiner].disk.has(last));
}

/// Servers are to vote that have just become observers, which acknowledge nothing.
#[test]
fn observers_that_are_missed_become_voters() {
    let mut cluster = calm(1);
    for joiner in [cluster.add_server(), cluster.add_server()] {
        cluster.start(joiner);
    }
    cluster.progress(2_000).expect("they follow");
    cluster.blocked.extend([(0, 1), (0, 2)]);
    let observed = [(0, VOTES), (1, "observer"), (2, "observer")];
    cluster.reconfigure(0, &observed).expect("the leader takes it");
    cluster.run_until(cluster.now_ms + 20);
    assert_eq!(voters(&cluster, 0), [1]);
    let zxid = cluster.reconfigure(0, &[(0, VOTES), (1, VOTES), (2, VOTES)]);
    let zxid = zxid.expect("they follow, as far as the leader knows");
    // One after the other, so that there is always a quorum of them.
    for joiner in [1, 2] {
        cluster.blocked.remove(&(0, joiner));
        cluster.run_until(cluster.now_ms + 100);
    }
    cluster.progress(5_000).expect("they vote");
    for server in &cluster.servers {
        assert_eq!(server.peer.members().version, zxid.0);
    }
    assert_eq!(voters(&cluster, 0), [1, 2, 3]);
}

/// A leader that moves to another address names itself, and goes there by another election.
#[test]
fn a_leader_that_moves_leads_again() {
    let mut cluster = calm(1);
    let members = Members::from_text("server.1=h0:2889:3888:participant;2181");
    cluster.reconfigure_to(0, &members).expect("it leads");
    cluster.progress(3_000).expect("it goes on");
    let status = cluster.servers[0].peer.status();
    assert_eq!(status.current_epoch, Epoch(2));
    assert_eq!(cluster.servers[0].peer.members().text, members.text);
}
