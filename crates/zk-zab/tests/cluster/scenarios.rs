//! Particular ensembles: bugs that others had (their numbers are upstream's), and what an operator
//! must be able to rely on.

use bytes::Bytes;
use zk_proto::quorum::{Notification, PacketType, PeerState};
use zk_proto::{Epoch, ServerId, Zxid};
use zk_testkit::Prng;
use zk_zab::{Action, Input, Members, Token};

use crate::disk::Disk;
use crate::harness::{Cluster, Weather, grouped, members};
use crate::rig::{Rig, ack, ack_epoch, follower_info, leader_info, packet, words, z};

/// An ensemble in which nothing goes wrong by itself.
fn calm(members: Members) -> Cluster {
    let weather = Weather {
        delay_ms_max: 2,
        sync_ms_max: 2,
        proposals: 0,
        fault_every: 1,
        checkpoint_every: 0,
        reconfig_every: 0,
        forgets: false,
    };
    Cluster::new(members, Prng::new(1), weather)
}

fn established(voters: usize, observers: usize) -> Cluster {
    established_of(members(voters, observers))
}

fn established_of(members: Members) -> Cluster {
    let mut cluster = calm(members);
    cluster.start_all();
    cluster.progress(1_000).expect("nothing is wrong");
    cluster
}

fn serving(cluster: &Cluster) -> usize {
    cluster.servers.iter().filter(|server| server.up && server.serving.is_some()).count()
}

/// Until the leader of a quorum serves; how long it took.
fn until_led(cluster: &mut Cluster, within_ms: i64) -> Option<i64> {
    let start_ms = cluster.now_ms;
    while cluster.now_ms - start_ms < within_ms {
        cluster.run_until(cluster.now_ms + 1);
        if cluster.leader().is_some() {
            return Some(cluster.now_ms - start_ms);
        }
    }
    None
}

#[test]
fn a_dead_leader_is_replaced_in_a_few_round_trips() {
    for voters in [3, 5] {
        let mut cluster = established(voters, 0);
        let leader = cluster.leader().unwrap();
        cluster.crash(leader, 0);
        let took_ms = until_led(&mut cluster, 2_000).expect("another leader");
        // One-way delays are up to 2 ms, and so are syncs: election, three exchanges, two syncs.
        assert!(took_ms <= 40, "{voters} voters: {took_ms} ms");
        let new = cluster.leader().unwrap();
        assert!(cluster.propose(new).is_some());
    }
}

#[test]
fn a_minority_does_not_serve() {
    for (voters, dead) in [(3, 2), (5, 3), (2, 1)] {
        let mut cluster = established(voters, 0);
        for index in 0..dead {
            cluster.crash(index, 9);
        }
        cluster.run_until(cluster.now_ms + 3_000);
        assert_eq!(serving(&cluster), 0);
        cluster.start(0);
        cluster.run_until(cluster.now_ms + 1_000);
        assert_eq!(serving(&cluster), voters - dead + 1);
    }
}

/// Two groups of three are a quorum, and so are two servers in each of them: four of nine.
#[test]
fn a_whole_group_may_be_lost_and_one_more_in_each_of_the_others() {
    let groups: [&[u64]; 3] = [&[1; 3]; 3];
    for lost in [[0, 1, 2], [3, 4, 5], [6, 7, 8]] {
        let mut cluster = established_of(grouped(&groups, 0));
        let rest: Vec<usize> = (0..9).filter(|index| !lost.contains(index)).collect();
        for index in [lost[0], lost[1], lost[2], rest[0], rest[5]] {
            cluster.crash(index, 9);
        }
        until_led(&mut cluster, 5_000).expect("a leader of four");
        cluster.run_until(cluster.now_ms + 1_000);
        assert_eq!(serving(&cluster), 4);
        let before = cluster.delivered.len();
        let leader = cluster.leader().unwrap();
        cluster.propose(leader).unwrap();
        cluster.run_until(cluster.now_ms + 50);
        assert_eq!(cluster.delivered.len(), before + 1);
        // One more is too many, although five of nine come back: of two groups each only a part.
        cluster.crash(rest[1], 9);
        cluster.start(lost[0]);
        cluster.run_until(cluster.now_ms + 3_000);
        assert_eq!(serving(&cluster), 0, "one of three, two of three, one of three");
        cluster.start(lost[1]);
        cluster.run_until(cluster.now_ms + 3_000);
        assert_eq!(serving(&cluster), 5);
        for index in [lost[2], rest[0], rest[1], rest[5]] {
            cluster.start(index);
        }
        cluster.progress(2_000).unwrap();
    }
}

#[test]
fn who_weighs_more_than_all_others_of_its_group_is_needed() {
    let mut cluster = established_of(grouped(&[&[1, 1, 5, 1, 1]], 0));
    for index in [0, 1, 3, 4] {
        cluster.crash(index, 9);
    }
    cluster.run_until(cluster.now_ms + 2_000);
    assert_eq!((serving(&cluster), cluster.leader()), (1, Some(2)));
    for index in [0, 1, 3, 4] {
        cluster.start(index);
    }
    cluster.progress(2_000).unwrap();
    cluster.crash(2, 9);
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(serving(&cluster), 0);
}

/// A nearly full disk is no reason to go where nobody else could lead.
#[test]
fn a_reluctant_leader_stays_while_the_others_are_no_quorum() {
    for (weights, stays) in
        [([1, 1, 5, 1, 1], true), ([1, 1, 1, 1, 1], false), ([1, 1, 2, 0, 0], true)]
    {
        let mut cluster = established_of(grouped(&[&weights], 0));
        // Where it can, server 3 leads, and the others follow it.
        for index in [0, 1, 3, 4] {
            cluster.crash(index, 9);
        }
        cluster.run_until(cluster.now_ms + 2_000);
        for index in [0, 1, 3, 4] {
            cluster.start(index);
        }
        cluster.progress(5_000).unwrap();
        let leader = cluster.leader().unwrap();
        assert!(leader == 2 || !stays, "{weights:?}");
        cluster.servers[leader].peer.set_reluctant(true);
        cluster.run_until(cluster.now_ms + 3_000);
        let led_by_others = cluster.leader().is_some_and(|other| other != leader);
        assert_eq!(led_by_others, !stays, "{weights:?}");
        assert_eq!(serving(&cluster), 5);
    }
}

/// It takes part, and what it has and says counts for nothing, even when it has more than all others.
#[test]
fn who_has_no_weight_follows_and_is_truncated() {
    let mut cluster = established_of(grouped(&[&[1, 1, 1, 0], &[0, 0]], 0));
    let old = cluster.leader().unwrap();
    assert!(old < 3);
    let heavy: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    for other in &heavy {
        cluster.blocked.insert((old, *other));
    }
    let lost = cluster.propose(old).unwrap();
    cluster.run_until(cluster.now_ms + 50);
    let has_it =
        |cluster: &Cluster| (0..6).filter(|it| cluster.servers[*it].disk.has(lost)).count();
    assert_eq!(has_it(&cluster), 4, "four of six have it");
    assert!(cluster.delivered.iter().all(|(zxid, _)| *zxid != lost), "and it is not committed");
    cluster.crash(old, 9);
    let took_ms = until_led(&mut cluster, 2_000).expect("one that has less");
    assert!(heavy.contains(&cluster.leader().unwrap()));
    // They hear nothing of the end of its links, so it takes syncLimit, and no time but that.
    assert!(took_ms <= 540, "they do not wait for those without weight: {took_ms} ms");
    cluster.blocked.clear();
    cluster.start(old);
    cluster.progress(2_000).unwrap();
    assert_eq!(has_it(&cluster), 0);
    assert!(cluster.seen["TRUNC"] >= 4, "{:?}", cluster.seen);
    // Without them nothing is different.
    for index in 3..6 {
        cluster.crash(index, 9);
    }
    cluster.crash(heavy[0], 9);
    cluster.run_until(cluster.now_ms + 2_000);
    assert_eq!(serving(&cluster), 2);
    // And nothing goes on with them alone.
    for index in 3..6 {
        cluster.start(index);
    }
    cluster.crash(heavy[1], 9);
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(serving(&cluster), 0);
}

/// Those that count have lost their data, all of them, and one without weight has what it was told:
/// nobody may take it away from there. What is no transaction can go.
#[test]
fn what_only_a_server_without_weight_has_is_not_thrown_away() {
    for (history, goes_on) in [(vec![], true), (vec![z(1, 1), z(1, 2)], false)] {
        let mut cluster = calm(grouped(&[&[1, 1, 1, 0]], 0));
        for server in &mut cluster.servers {
            server.disk = Disk { lost: true, ..Disk::default() };
        }
        cluster.servers[3].disk = disk(&history, history.len(), 1);
        cluster.delivered.clone_from(&cluster.servers[3].disk.stored.1);
        cluster.start_all();
        cluster.run_until(cluster.now_ms + 10_000);
        assert_eq!(serving(&cluster), if goes_on { 4 } else { 0 }, "{history:?}");
        assert!(history.iter().all(|zxid| cluster.servers[3].disk.has(Zxid(*zxid))));
    }
}

#[test]
fn a_server_on_its_own_may_be_an_ensemble() {
    let cluster = established(1, 0);
    assert_eq!(cluster.servers[0].peer.status().current_epoch, Epoch(1));
}

#[test]
fn observers_follow_and_do_not_count() {
    let mut cluster = established(3, 1);
    let leader = cluster.leader().unwrap();
    for index in (0..3).filter(|index| *index != leader) {
        cluster.crash(index, 9);
    }
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(serving(&cluster), 0, "a leader and an observer are no quorum");
}

/// What a dead leader did not get through is taken back when it returns (ZOOKEEPER-1154, 2832).
#[test]
fn a_divergent_tail_is_truncated() {
    let mut cluster = established(3, 0);
    let old = cluster.leader().unwrap();
    for other in 0..3 {
        cluster.blocked.insert((old, other));
    }
    let lost: Vec<Zxid> = (0..3).filter_map(|_| cluster.propose(old)).collect();
    cluster.run_until(cluster.now_ms + 100);
    assert!(lost.iter().all(|zxid| cluster.servers[old].disk.has(*zxid)));
    cluster.crash(old, 9);
    until_led(&mut cluster, 2_000).unwrap();
    let new = cluster.leader().unwrap();
    cluster.propose(new).unwrap();
    cluster.run_until(cluster.now_ms + 50);
    cluster.blocked.clear();
    cluster.start(old);
    cluster.progress(2_000).unwrap();
    assert_eq!(cluster.seen.get("TRUNC"), Some(&1));
    let disk = &cluster.servers[old].disk;
    assert!(!lost.iter().any(|zxid| disk.has(*zxid)));
}

/// What a quorum has is committed, whoever dies next, even if nobody was told.
#[test]
fn what_a_quorum_has_survives_its_leader() {
    let mut cluster = established(3, 0);
    let old = cluster.leader().unwrap();
    let zxid = cluster.propose(old).unwrap();
    // The followers have it on disk, and their acknowledgements do not arrive.
    for other in 0..3 {
        cluster.blocked.insert((other, old));
    }
    cluster.run_until(cluster.now_ms + 50);
    cluster.crash(old, 0);
    cluster.blocked.clear();
    until_led(&mut cluster, 2_000).unwrap();
    cluster.run_until(cluster.now_ms + 100);
    for index in (0..3).filter(|index| *index != old) {
        assert!(cluster.servers[index].state.iter().any(|(own, _)| *own == zxid));
    }
}

#[test]
fn a_stuck_disk_ends_a_leader() {
    let mut cluster = established(3, 0);
    let old = cluster.leader().unwrap();
    cluster.servers[old].wedged = true;
    // Its followers could go on for ever.
    let zxid = cluster.propose(old).unwrap();
    cluster.run_until(cluster.now_ms + 400);
    assert_eq!(cluster.leader(), Some(old), "it may take syncLimit");
    cluster.run_until(cluster.now_ms + 400);
    let new = cluster.leader().expect("another leader");
    assert_ne!(new, old);
    assert_eq!(cluster.servers[old].peer.status().state, PeerState::Looking);
    assert!(cluster.servers[new].state.iter().any(|(own, _)| *own == zxid));
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(cluster.leader(), Some(new), "it does not disturb the others");
    cluster.servers[old].wedged = false;
    cluster.progress(2_000).unwrap();
}

#[test]
fn a_leader_that_stood_still_steps_down() {
    let mut cluster = established(3, 0);
    let old = cluster.leader().unwrap();
    cluster.pause(old, 3_000);
    cluster.run_until(cluster.now_ms + 2_900);
    let others: Vec<_> = (0..3).filter(|index| *index != old).collect();
    assert!(others.iter().any(|index| cluster.servers[*index].peer.may_propose()));
    cluster.run_until(cluster.now_ms + 120);
    assert!(!cluster.servers[old].peer.may_propose());
    cluster.progress(2_000).unwrap();
}

/// ZOOKEEPER-1277.
#[test]
fn an_epoch_ends_before_its_counter_does() {
    let mut cluster = calm(members(3, 0));
    cluster.config.counter_limit = 10;
    cluster.start_all();
    cluster.progress(1_000).unwrap();
    let mut gap_ms = 0;
    for _ in 0..100 {
        let since_ms = cluster.now_ms;
        while cluster.leader().is_none_or(|leader| cluster.propose(leader).is_none()) {
            cluster.run_until(cluster.now_ms + 1);
        }
        gap_ms = gap_ms.max(cluster.now_ms - since_ms);
        cluster.run_until(cluster.now_ms + 1);
    }
    assert!(gap_ms < 100, "a gap of {gap_ms} ms");
    let epoch = cluster.servers[0].peer.status().current_epoch;
    assert!(epoch >= Epoch(10), "{epoch}");
    cluster.progress(1_000).unwrap();
    assert!(cluster.delivered.iter().all(|(zxid, _)| zxid.counter() <= 10));
}

/// A member that lost its data does not help to elect somebody who never had it.
#[test]
fn lost_data_is_not_voted_away() {
    let mut cluster = established(3, 0);
    let leader = cluster.leader().unwrap();
    let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    let (behind, loser) = (others[0], others[1]);
    // Only the leader and one other have this.
    cluster.crash(behind, 9);
    let zxid = cluster.propose(leader).unwrap();
    cluster.run_until(cluster.now_ms + 50);
    assert!(cluster.servers[loser].disk.has(zxid));
    cluster.crash(loser, 9);
    cluster.crash(leader, 9);
    cluster.servers[loser].disk = Disk { lost: true, ..Disk::default() };
    cluster.start(loser);
    cluster.start(behind);
    cluster.run_until(cluster.now_ms + 5_000);
    assert_eq!(serving(&cluster), 0, "two of three, but who knows what was committed?");
    cluster.start(leader);
    cluster.progress(2_000).unwrap();
    assert!(cluster.servers[loser].state.iter().any(|(own, _)| *own == zxid));
}

/// One member saw the first leader of a new ensemble, the others did not, or lost what they had: who
/// waits for a quorum of members with data would wait for ever.
#[test]
fn with_everybody_there_one_member_with_data_is_enough() {
    for history in [vec![], vec![z(1, 1), z(1, 2)]] {
        let mut cluster = calm(members(3, 0));
        for server in &mut cluster.servers {
            server.disk = Disk { lost: true, ..Disk::default() };
        }
        cluster.servers[1].disk = disk(&history, history.len(), 1);
        cluster.delivered.clone_from(&cluster.servers[1].disk.stored.1);
        cluster.start(0);
        cluster.start(1);
        cluster.run_until(cluster.now_ms + 5_000);
        assert_eq!(serving(&cluster), 0, "the third may have more, or have promised this epoch");
        cluster.start(2);
        cluster.progress(2_000).unwrap();
        for server in &cluster.servers {
            assert_eq!(server.peer.status().current_epoch, Epoch(2));
            let state: Vec<_> = server.state.iter().map(|(zxid, _)| zxid.0).collect();
            assert!(state.starts_with(&history), "{state:?}");
        }
    }
}

/// A server that accepted an epoch that nobody led in could never join again.
#[test]
fn a_later_epoch_is_passed() {
    let mut cluster = established(3, 0);
    let leader = cluster.leader().unwrap();
    let other = (leader + 1) % 3;
    cluster.crash(other, 9);
    cluster.servers[other].disk.accepted = Epoch(40);
    cluster.start(other);
    cluster.progress(2_000).unwrap();
    let epochs: Vec<_> =
        cluster.servers.iter().map(|server| server.peer.status().current_epoch).collect();
    assert_eq!(epochs, [Epoch(41); 3]);
    assert_eq!(cluster.seen.get("a leader was established"), Some(&2), "once");
}

fn bytes(zxid: i64) -> Bytes {
    Bytes::from(format!("{zxid}"))
}

fn txn(zxid: i64) -> Option<Bytes> {
    Some(bytes(zxid))
}

/// A disk with these transactions, of which the first `applied` are in the tree.
fn disk(zxids: &[i64], applied: usize, epoch: i32) -> Disk {
    let log: Vec<_> = zxids.iter().map(|zxid| (Zxid(*zxid), bytes(*zxid))).collect();
    let stored = log[..applied].to_vec();
    Disk {
        accepted: Epoch(epoch),
        current: Epoch(epoch),
        stored: (stored.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid), stored),
        log,
        ..Disk::default()
    }
}

/// Transactions, then the epoch, then `NEWLEADER`'s acknowledgement, then those of what is not
/// committed: ZOOKEEPER-3911, 4643, 4646, 4685, 4785, 4394.
#[test]
fn a_learner_acknowledges_in_order() {
    let (mut rig, link) = Rig::following(Disk::default());
    rig.slow_disk = true;
    rig.packet(link, leader_info(1));
    assert_eq!(words(&rig.sync()), "1:ACKEPOCH 0x0");
    rig.packet(link, packet(PacketType::DIFF, z(1, 1), None));
    for counter in 1..=3 {
        rig.packet(link, packet(PacketType::PROPOSAL, z(1, counter), txn(z(1, counter))));
    }
    rig.packet(link, packet(PacketType::COMMIT, z(1, 1), None));
    rig.packet(link, packet(PacketType::NEW_LEADER, z(1, 0), None));
    // This one comes behind NEWLEADER, as does the commit of an earlier one.
    rig.packet(link, packet(PacketType::PROPOSAL, z(1, 4), txn(z(1, 4))));
    assert_eq!(words(&rig.packet(link, packet(PacketType::COMMIT, z(1, 2), None))), "");
    // AcceptedEpoch was 1, the transactions are 2 to 4, the epoch is 5.
    for token in 2..=4 {
        rig.disk.sync_one();
        assert_eq!(words(&rig.step(Input::Persisted { token: Token(token) })), "");
    }
    rig.disk.sync_one();
    let actions = rig.step(Input::Persisted { token: Token(5) });
    assert_eq!(words(&actions), "1:ACK 0x100000000; 1:ACK 0x100000002; 1:ACK 0x100000003");
    assert_eq!(words(&rig.sync()), "1:ACK 0x100000004");
    assert_eq!(
        words(&rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None))),
        "deliver 0x100000001; deliver 0x100000002; 1:ACK 0x100000000; serve"
    );
    assert_eq!(
        words(&rig.packet(link, packet(PacketType::COMMIT, z(1, 3), None))),
        "deliver 0x100000003"
    );
}

#[test]
fn nothing_is_delivered_before_it_is_on_the_own_disk() {
    let (mut rig, link) = Rig::serving(Disk::default(), 1);
    rig.slow_disk = true;
    for counter in 1..=2 {
        let zxid = z(1, counter);
        rig.packet(link, packet(PacketType::PROPOSAL, zxid, txn(zxid)));
    }
    assert_eq!(words(&rig.packet(link, packet(PacketType::COMMIT, z(1, 1), None))), "");
    // It stands behind that commit, and comes behind its transaction.
    assert_eq!(words(&rig.packet(link, packet(PacketType::SYNC, 0, None))), "");
    assert_eq!(
        words(&rig.sync()),
        "1:ACK 0x100000001; 1:ACK 0x100000002; deliver 0x100000001; pass 1:SYNC"
    );
    assert_eq!(words(&rig.packet(link, packet(PacketType::SYNC, 0, None))), "pass 1:SYNC");
}

/// What was asked of the disk for one leader is no answer to the next one (ZOOKEEPER-4712).
#[test]
fn an_earlier_roles_writes_are_no_acknowledgements() {
    let (mut rig, link) = Rig::serving(Disk::default(), 1);
    rig.slow_disk = true;
    rig.packet(link, packet(PacketType::PROPOSAL, z(1, 1), txn(z(1, 1))));
    rig.step(Input::LinkDown { link });
    rig.now_ms += 400;
    let actions = rig.vote(2, 2, 3);
    let actions = [actions, rig.step(Input::Tick)].concat();
    assert_eq!(words(&actions), "connect 2");
    rig.step(Input::LinkUp { link: zk_zab::LinkId(2) });
    let link = zk_zab::LinkId(2);
    rig.packet(link, leader_info(2));
    // The disk has the old proposal, and then the promise.
    rig.disk.sync_one();
    assert_eq!(words(&rig.step(Input::Persisted { token: Token(3) })), "");
    assert_eq!(words(&rig.sync()), "2:ACKEPOCH 0x100000001");
    rig.packet(link, packet(PacketType::DIFF, z(1, 1), None));
    rig.packet(link, packet(PacketType::NEW_LEADER, z(2, 0), None));
    assert_eq!(words(&rig.sync()), "2:ACK 0x200000000");
    let actions = rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
    assert_eq!(words(&actions), "deliver 0x100000001; 2:ACK 0x200000000; serve");
}

#[test]
fn committed_transactions_are_not_truncated() {
    let (mut rig, link) = Rig::following(disk(&[z(1, 1), z(1, 2), z(1, 3)], 2, 1));
    rig.packet(link, leader_info(2));
    rig.packet(link, packet(PacketType::TRUNC, z(1, 1), None));
    let actions = rig.packet(link, packet(PacketType::NEW_LEADER, z(2, 0), None));
    assert_eq!(words(&actions), "1:close; halt");
    let Some(Action::Halt { why }) = actions.last() else { panic!() };
    assert!(why.contains("0x100000001") && why.contains("0x100000002"), "{why}");
    assert_eq!(words(&rig.wait(5000)), "", "it is silent for good");
}

/// Upstream's leader plans with what it has applied, which may be less than what it has told others to commit.
#[test]
fn what_is_proposed_again_behind_a_truncation_stays() {
    let log = [z(1, 1), z(1, 2), z(1, 3)];
    let (mut rig, link) = Rig::following(disk(&log, 2, 1));
    rig.packet(link, leader_info(2));
    rig.packet(link, packet(PacketType::TRUNC, z(1, 1), None));
    for zxid in [z(1, 2), z(1, 3)] {
        rig.packet(link, packet(PacketType::PROPOSAL, zxid, txn(zxid)));
        rig.packet(link, packet(PacketType::COMMIT, zxid, None));
    }
    let actions = rig.packet(link, packet(PacketType::NEW_LEADER, z(2, 0), None));
    assert_eq!(words(&actions), "1:ACK 0x200000000");
    let actions = rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
    assert_eq!(words(&actions), "deliver 0x100000003; 1:ACK 0x200000000; serve");
    let logged: Vec<i64> = rig.disk.log.iter().map(|(zxid, _)| zxid.0).collect();
    assert_eq!(logged, log);
}

#[test]
fn a_truncation_to_nowhere_is_planned_again() {
    // The leader believes that this server has 1:4.
    let (mut rig, link) = Rig::following(disk(&[z(1, 1), z(1, 2), z(2, 1)], 1, 2));
    rig.packet(link, leader_info(3));
    let actions = rig.packet(link, packet(PacketType::TRUNC, z(1, 4), None));
    assert_eq!(words(&actions), "1:close");
    assert_eq!(rig.peer.status().last_logged, Zxid(z(1, 2)));
}

#[test]
fn an_old_snapshot_takes_nothing_away() {
    let log = [z(1, 1), z(1, 2), z(1, 3), z(1, 4)];
    let (mut rig, link) = Rig::following(disk(&log, 2, 1));
    rig.packet(link, leader_info(2));
    rig.step(Input::SnapshotReceived { link, zxid: Zxid(z(1, 1)), members: None });
    // Up to 1:3 it is the same.
    for zxid in [z(1, 2), z(1, 3), z(2, 1)] {
        rig.packet(link, packet(PacketType::PROPOSAL, zxid, txn(zxid)));
        rig.packet(link, packet(PacketType::COMMIT, zxid, None));
    }
    let actions = rig.packet(link, packet(PacketType::NEW_LEADER, z(2, 0), None));
    assert_eq!(words(&actions), "1:ACK 0x200000000");
    let actions = rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
    assert_eq!(
        words(&actions),
        "deliver 0x100000003; deliver 0x200000001; 1:ACK 0x200000000; serve"
    );
    let logged: Vec<i64> = rig.disk.log.iter().map(|(zxid, _)| zxid.0).collect();
    assert_eq!(logged, [z(1, 1), z(1, 2), z(1, 3), z(2, 1)]);
}

/// ZOOKEEPER-2872, 3642: until the epoch behind it is on disk, a snapshot has not happened.
#[test]
fn a_snapshot_counts_with_the_epoch_behind_it() {
    let log = [z(1, 1), z(1, 2)];
    let (mut rig, link) = Rig::following(disk(&log, 2, 1));
    rig.packet(link, leader_info(4));
    let zxid = Zxid(z(3, 7));
    assert_eq!(words(&rig.step(Input::SnapshotReceived { link, zxid, members: None })), "");
    let next = z(3, 8);
    rig.packet(link, packet(PacketType::PROPOSAL, next, txn(next)));
    rig.packet(link, packet(PacketType::COMMIT, next, None));
    let mut crashed = rig.disk.clone();
    crashed.crash(9);
    assert_eq!(crashed.recover().last_logged(), Zxid(z(1, 2)));
    let actions = rig.packet(link, packet(PacketType::NEW_LEADER, z(4, 0), None));
    assert_eq!(words(&actions), "switch 0x300000007; 1:ACK 0x400000000");
    let actions = rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
    assert_eq!(words(&actions), "deliver 0x300000008; 1:ACK 0x400000000; serve");
}

/// A leader of upstream's under load sends again what its snapshot has: it decided what to send behind the
/// snapshot before it looked how far that reaches.
#[test]
fn what_a_snapshot_has_may_be_sent_again() {
    let (mut rig, link) = Rig::following(disk(&[z(1, 1), z(1, 2)], 2, 1));
    rig.packet(link, leader_info(4));
    rig.step(Input::SnapshotReceived { link, zxid: Zxid(z(3, 7)), members: None });
    for zxid in [z(3, 6), z(3, 7), z(3, 8)] {
        rig.packet(link, packet(PacketType::PROPOSAL, zxid, txn(zxid)));
        rig.packet(link, packet(PacketType::COMMIT, zxid, None));
    }
    let actions = rig.packet(link, packet(PacketType::NEW_LEADER, z(4, 0), None));
    assert_eq!(words(&actions), "switch 0x300000007; 1:ACK 0x400000000");
    let actions = rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
    assert_eq!(words(&actions), "deliver 0x300000008; 1:ACK 0x400000000; serve");
    // Behind the snapshot there are no holes.
    let (mut rig, link) = Rig::following(disk(&[], 0, 1));
    rig.packet(link, leader_info(4));
    rig.step(Input::SnapshotReceived { link, zxid: Zxid(z(3, 7)), members: None });
    let actions = rig.packet(link, packet(PacketType::PROPOSAL, z(3, 9), txn(z(3, 9))));
    assert!(words(&actions).contains("close"), "{}", words(&actions));
}

/// A leader that has its history from an interrupted snapshot does not send what is on its disk.
#[test]
fn a_leader_with_an_interrupted_snapshot_waits_for_its_own_epoch() {
    let (mut rig, link) = Rig::following(disk(&[z(1, 1), z(1, 2)], 1, 1));
    rig.packet(link, leader_info(3));
    rig.step(Input::SnapshotReceived { link, zxid: Zxid(z(2, 5)), members: None });
    rig.step(Input::LinkDown { link });
    rig.now_ms += 400;
    rig.step(Input::Tick);
    rig.vote(2, 1, 3);
    rig.step(Input::Tick);
    assert_eq!(rig.peer.status().state, PeerState::Leading);
    rig.slow_disk = true;
    let link = rig.accept();
    rig.packet(link, follower_info(3, 2));
    rig.sync();
    assert_eq!(words(&rig.packet(link, ack_epoch(1, z(1, 9)))), "", "not yet");
    let actions = rig.sync();
    let expected =
        format!("switch 0x200000005; {0}:snapshot 0x200000005; {0}:NEWLEADER 0x400000000", link.0);
    assert_eq!(words(&actions), expected);
}

#[test]
fn a_more_recent_history_takes_over() {
    let mut rig = Rig::elected(2, members(3, 0), disk(&[z(1, 1)], 1, 1), 1, 3);
    let link = rig.accept();
    rig.packet(link, follower_info(1, 1));
    let actions = rig.packet(link, ack_epoch(1, z(1, 2)));
    assert_eq!(words(&actions), format!("{}:close", link.0));
    assert_eq!(rig.peer.status().state, PeerState::Looking);
}

/// Whoever accepted an epoch refuses every one before it.
#[test]
fn a_new_epoch_passes_all_that_were_accepted() {
    for (own, others, expected) in [(3, 7, 8), (7, 3, 8), (0, 0, 1)] {
        let mut rig = Rig::elected(2, members(3, 0), disk(&[], 0, own), 1, 3);
        let link = rig.accept();
        let actions = rig.packet(link, follower_info(others, 1));
        let expected = format!("{}:LEADERINFO {}", link.0, Zxid(z(expected, 0)));
        assert_eq!(words(&actions), expected);
    }
}

/// Acknowledgements of an epoch that was accepted before do not count, nor do those of a server
/// that has no say.
#[test]
fn some_promises_do_not_count() {
    for acknowledgement in [ack_epoch(-1, 0), ack_epoch(0, -1)] {
        let mut rig = Rig::elected(2, members(3, 0), Disk::default(), 1, 3);
        let link = rig.accept();
        rig.packet(link, follower_info(0, 1));
        assert_eq!(words(&rig.packet(link, acknowledgement)), "");
        assert_eq!(rig.peer.status().current_epoch, Epoch(0));
        let third = rig.accept();
        rig.packet(third, follower_info(0, 3));
        let actions = rig.packet(third, ack_epoch(0, 0));
        assert!(words(&actions).contains("NEWLEADER"), "{}", words(&actions));
    }
}

/// Everything that is sent to a learner goes before what is proposed later (ZOOKEEPER-3104).
#[test]
fn a_learner_in_synchronization_takes_part() {
    let (mut rig, follower) = Rig::leading();
    let late = rig.accept();
    rig.packet(late, follower_info(0, 3));
    let one = Zxid(z(1, 1));
    rig.step(Input::Propose { zxid: one, txn: Bytes::from_static(b"1") });
    let actions = rig.packet(late, ack_epoch(0, 0));
    let expected = "2:DIFF 0x0; 2:PROPOSAL 0x100000001; 2:NEWLEADER 0x100000000"
        .replace('2', &late.0.to_string());
    assert_eq!(words(&actions), expected);
    let actions = rig.packet(follower, ack(one.0));
    assert_eq!(
        words(&actions),
        format!("{}:COMMIT {one}; {}:COMMIT {one}; deliver {one}", follower.0, late.0)
    );
    let two = Zxid(z(1, 2));
    let actions = rig.step(Input::Propose { zxid: two, txn: Bytes::from_static(b"2") });
    assert_eq!(
        words(&actions),
        format!("{}:PROPOSAL {two}; {}:PROPOSAL {two}", follower.0, late.0)
    );
    // Its acknowledgements count from its first one.
    rig.packet(late, ack(z(1, 0)));
    assert_eq!(words(&rig.packet(late, ack(one.0))), "");
    let actions = rig.packet(late, ack(two.0));
    assert!(words(&actions).ends_with(&format!("deliver {two}")), "{}", words(&actions));
}

/// ZOOKEEPER-4394: followers of upstream's before 3.9.3 leave when a commit comes between `NEWLEADER` and `UPTODATE`.
#[test]
fn a_follower_gets_no_commit_before_it_is_up_to_date() {
    let (mut rig, follower) = Rig::leading_with(|config| config.early_commits = false);
    let (one, two, three) = (z(1, 1), z(1, 2), z(1, 3));
    rig.step(Input::Propose { zxid: Zxid(one), txn: Bytes::from_static(b"1") });
    rig.packet(follower, ack(one));
    rig.step(Input::Propose { zxid: Zxid(two), txn: Bytes::from_static(b"2") });
    let late = rig.accept();
    let of_late = |words: &str| {
        let words = words.split("; ").map(|word| format!("{}:{word}", late.0));
        words.collect::<Vec<String>>().join("; ")
    };
    rig.packet(late, follower_info(0, 3));
    let actions = words(&rig.packet(late, ack_epoch(0, 0)));
    let (committed, proposed) = ("0x100000001", "0x100000002");
    let expected = format!(
        "DIFF {committed}; PROPOSAL {committed}; COMMIT {committed}; PROPOSAL {proposed}; NEWLEADER 0x100000000"
    );
    assert_eq!(actions, of_late(&expected));
    let actions = words(&rig.packet(follower, ack(two)));
    assert_eq!(actions, format!("{}:COMMIT {proposed}; deliver {proposed}", follower.0));
    // What is proposed it may have already, and must not cut off: it gets it at once.
    let actions = rig.step(Input::Propose { zxid: Zxid(three), txn: Bytes::from_static(b"3") });
    assert!(words(&actions).ends_with(&of_late("PROPOSAL 0x100000003")), "{}", words(&actions));
    let actions = words(&rig.packet(late, ack(z(1, 0))));
    let (up_to_date, commits) = actions.split_once("; ").expect("several");
    assert!(up_to_date.starts_with(&of_late("UPTODATE")), "{up_to_date}");
    assert_eq!(commits, of_late(&format!("COMMIT {proposed}")));
    rig.packet(late, ack(two));
    let actions = words(&rig.packet(late, ack(three)));
    assert!(actions.contains(&of_late("COMMIT 0x100000003")), "{actions}");
}

/// ZOOKEEPER-4685: learners of upstream's before 3.9.3 acknowledge what they get before `NEWLEADER`, and may do
/// so before they acknowledge that.
#[test]
fn acknowledgements_of_a_synchronization_do_no_harm() {
    let (mut rig, follower) = Rig::leading();
    let (one, two, three) = (z(1, 1), z(1, 2), z(1, 3));
    rig.step(Input::Propose { zxid: Zxid(one), txn: Bytes::from_static(b"1") });
    rig.packet(follower, ack(one));
    rig.step(Input::Propose { zxid: Zxid(two), txn: Bytes::from_static(b"2") });
    let late = rig.accept();
    rig.packet(late, follower_info(0, 3));
    // The first is committed, the second is not.
    rig.packet(late, ack_epoch(0, 0));
    rig.step(Input::Propose { zxid: Zxid(three), txn: Bytes::from_static(b"3") });
    assert_eq!(words(&rig.packet(late, ack(one))), "");
    // It counts with NEWLEADER's, and not before.
    assert_eq!(words(&rig.packet(late, ack(two))), "");
    let actions = words(&rig.packet(late, ack(z(1, 0))));
    assert!(actions.contains(&format!("{}:UPTODATE", late.0)), "{actions}");
    for zxid in [one, two] {
        assert!(!words(&rig.packet(late, ack(zxid))).contains("close"));
    }
    let actions = words(&rig.packet(late, ack(three)));
    assert!(actions.ends_with("deliver 0x100000003"), "{actions}");
    // What was not proposed cannot be on a disk.
    assert!(words(&rig.packet(late, ack(z(1, 4)))).contains("close"));
}

/// A member that lost its data may have promised the next epoch to another leader, and not know it.
#[test]
fn a_promise_of_a_member_without_data_counts_only_where_nobody_has_any() {
    for (zxid, epoch, counts) in [(0, 0, true), (z(2, 5), 2, false), (0, 1, false)] {
        let disk = Disk { lost: true, ..Disk::default() };
        let mut rig = Rig::new(1, members(3, 0), disk);
        let mut actions = Vec::new();
        for (from, state) in [(2, PeerState::Leading), (3, PeerState::Following)] {
            let notification = Notification {
                state,
                leader: ServerId(2),
                zxid: Zxid(zxid),
                round: 7,
                peer_epoch: epoch,
                version: Notification::VERSION,
                config: Some(String::new()),
            };
            actions.extend(rig.step(Input::Notification { from: ServerId(from), notification }));
        }
        let link = actions
            .iter()
            .find_map(|action| match action {
                Action::Connect { link, .. } => Some(*link),
                _ => None,
            })
            .expect("it joins the leader");
        rig.step(Input::LinkUp { link });
        let answer = rig.packet(link, leader_info(3));
        let [Action::Send { packet, .. }] = &answer[..] else { panic!("{answer:?}") };
        assert_eq!(*packet, ack_epoch(if counts { 0 } else { -1 }, 0), "{zxid:x} {epoch}");
    }
}
