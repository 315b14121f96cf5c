//! Each rule by itself.

use bytes::{Bytes, BytesMut};
use zk_testkit::vectors::read;

use super::*;
use crate::Members;

const EPOCH: i64 = 3;
const ZXID: i64 = 0x3_0000_0007;

fn ids(range: impl IntoIterator<Item = i64>) -> BTreeSet<ServerId> {
    range.into_iter().map(ServerId).collect()
}

/// A server of an ensemble of five: 1, 2 and 3 vote, 8 and 9 observe.
fn config(id: i64) -> PeerConfig {
    let members = Members {
        voters: ids([1, 2, 3]),
        observers: ids([8, 9]),
        text: "servers\n".into(),
        version: 0x1a,
        ..Members::default()
    };
    PeerConfig::new(ServerId(id), members)
}

/// One that is LOOKING for the first time, at 1,000 ms, its first votes sent.
fn looking(id: i64, standing: Standing) -> Election {
    let mut election = Election::new(&config(id));
    let (zxid, epoch) = match standing {
        Standing::Voter | Standing::NonVoting | Standing::Observer => (ZXID, EPOCH),
        Standing::Fresh => (0, 0),
    };
    election.start(1000, Zxid(zxid), Epoch(i32::try_from(epoch).unwrap()), standing);
    sent(&mut election);
    election
}

fn sent(election: &mut Election) -> Vec<(i64, Notification)> {
    std::iter::from_fn(|| election.poll_notification()).map(|(to, sent)| (to.0, sent)).collect()
}

fn to(sent: &[(i64, Notification)]) -> Vec<i64> {
    sent.iter().map(|(to, _)| *to).collect()
}

fn vote(leader: i64, zxid: i64, round: i64, peer_epoch: i64) -> Vote {
    Vote { leader: ServerId(leader), zxid: Zxid(zxid), peer_epoch, round }
}

fn says(state: PeerState, vote: Vote) -> Notification {
    Notification {
        state,
        leader: vote.leader,
        zxid: vote.zxid,
        round: vote.round,
        peer_epoch: vote.peer_epoch,
        version: Notification::VERSION,
        config: Some("servers\nversion=1a".into()),
    }
}

/// Sent one message, in which everything but the round is as the receiver has it.
fn hears(election: &mut Election, from: i64, state: PeerState, leader: i64, round: i64) {
    let told = says(state, vote(leader, ZXID, round, EPOCH));
    election.on_notification(1000, ServerId(from), &told);
}

use PeerState::{Following, Leading, Looking, Observing};

#[test]
fn the_order_of_votes_is_epoch_then_zxid_then_id() {
    let order = [
        vote(5, i64::MIN, 0, i64::MIN),
        vote(3, 9, 0, 0),
        vote(1, 1, 0, 1),
        vote(2, 1, 0, 1),
        vote(1, 2, 0, 1),
        vote(1, 0, 0, 2),
    ];
    for (at, lower) in order.iter().enumerate() {
        assert!(!lower.is_more_recent(lower));
        for higher in &order[at + 1..] {
            assert!(
                higher.is_more_recent(lower) && !lower.is_more_recent(higher),
                "{higher:?} {lower:?}"
            );
            // Rounds have no part in it.
            let late = Vote { round: 7, ..*lower };
            assert!(higher.is_more_recent(&late) && !late.is_more_recent(higher));
        }
    }
}

#[test]
fn votes_of_those_with_a_leader_agree_without_round_and_zxid() {
    let base = vote(1, 5, 3, 2);
    let others = [vote(2, 5, 3, 2), vote(1, 6, 3, 2), vote(1, 5, 4, 2), vote(1, 5, 3, 3)];
    let word = |state, version, vote| Word { vote, state, version };
    for (state, other_state, version, other_version, expected) in [
        // With one that is LOOKING everything counts, but the format.
        (Looking, Looking, 0, 0, [false; 4]),
        (Looking, Following, 0, 2, [false; 4]),
        (Leading, Looking, 2, 0, [false; 4]),
        // Without: leader and epoch.
        (Following, Leading, 2, 2, [false, true, true, false]),
        (Following, Following, 0, 0, [false, true, true, false]),
        (Following, Following, 1, 2, [false, true, true, false]),
        // Epochs of before ZOOKEEPER-1732 mean something else.
        (Following, Leading, 0, 2, [false, true, true, true]),
        (Following, Leading, 2, 0, [false, true, true, true]),
    ] {
        let one = word(state, version, base);
        assert!(one.agrees(&word(other_state, other_version, base)));
        for (other, expected) in others.iter().zip(expected) {
            let other = word(other_state, other_version, *other);
            assert_eq!(one.agrees(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.agrees(&one), expected);
        }
    }
}

#[test]
fn a_server_begins_with_itself_and_tells_the_other_voters() {
    let mut election = Election::new(&config(2));
    election.start(0, Zxid(ZXID), Epoch(3), Standing::Voter);
    let told = sent(&mut election);
    assert_eq!(to(&told), [1, 3]);
    assert_eq!(told[0].1, says(Looking, vote(2, ZXID, 1, EPOCH)));
    assert_eq!(election.decision(), None);
    // Every election is another round.
    election.start(0, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(sent(&mut election)[1].1, says(Looking, vote(2, ZXID, 2, EPOCH)));
    assert_eq!(election.round(), 2);
}

#[test]
fn those_without_a_vote_say_so_in_upstreams_numbers() {
    let mut observer = Election::new(&config(8));
    observer.start(0, Zxid(ZXID), Epoch(3), Standing::Observer);
    let told = sent(&mut observer);
    assert_eq!(to(&told), [1, 2, 3]);
    assert_eq!(told[0].1, says(Looking, vote(i64::MIN, i64::MIN, 1, i64::MIN)));

    let mut non_voting = Election::new(&config(2));
    non_voting.start(0, Zxid(ZXID), Epoch(3), Standing::NonVoting);
    let told = sent(&mut non_voting);
    assert_eq!(to(&told), [1, 3]);
    assert_eq!(told[0].1, says(Looking, vote(2, -1, 1, EPOCH)));

    // A participant that is in no configuration yet.
    let mut joiner = Election::new(&config(4));
    joiner.start(0, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(sent(&mut joiner)[0].1, says(Looking, vote(i64::MIN, ZXID, 1, EPOCH)));
    hears(&mut joiner, 1, Looking, 1, 1);
    hears(&mut joiner, 2, Looking, 1, 1);
    hears(&mut joiner, 3, Looking, 1, 1);
    assert_eq!((joiner.decision(), sent(&mut joiner)), (None, Vec::new()));
    hears(&mut joiner, 1, Leading, 1, 1);
    hears(&mut joiner, 2, Following, 1, 1);
    assert_eq!(joiner.decision(), Some(vote(1, ZXID, 1, EPOCH)));
}

#[test]
fn a_better_vote_is_taken_over_and_told() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 1, Looking, 1, 1);
    assert_eq!(sent(&mut election), [], "it is not better");
    hears(&mut election, 3, Looking, 3, 1);
    let told = sent(&mut election);
    assert_eq!(to(&told), [1, 3]);
    assert_eq!(told[0].1, says(Looking, vote(3, ZXID, 1, EPOCH)));
    hears(&mut election, 3, Looking, 3, 1);
    assert_eq!(sent(&mut election), [], "nothing new");
}

#[test]
fn a_later_round_is_joined_with_the_own_vote_or_a_better_one() {
    // In the old round 2 had taken over a vote for 3, which counts no longer.
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    sent(&mut election);
    hears(&mut election, 1, Looking, 1, 5);
    let told = sent(&mut election);
    assert_eq!(to(&told), [1, 3]);
    assert_eq!(told[0].1, says(Looking, vote(2, ZXID, 5, EPOCH)));
    assert_eq!(election.round(), 5);
    election.tick(1199);
    assert_eq!(election.decision(), None, "the vote of 3 was of another round");
    hears(&mut election, 3, Looking, 3, 6);
    assert_eq!(sent(&mut election)[0].1, says(Looking, vote(3, ZXID, 6, EPOCH)));
    assert_eq!(election.in_round.len(), 2);
}

#[test]
fn an_earlier_round_is_answered_and_does_not_count() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 1, Looking, 1, 4);
    sent(&mut election);
    hears(&mut election, 3, Looking, 3, 3);
    assert_eq!(sent(&mut election), [(3, says(Looking, vote(2, ZXID, 4, EPOCH)))]);
    hears(&mut election, 3, Looking, 2, 3);
    election.tick(10_000);
    assert_eq!(election.decision(), None);
}

#[test]
fn with_every_vote_in_there_is_nothing_to_wait_for() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    assert_eq!(election.decision(), None, "1 may have a better vote");
    hears(&mut election, 1, Looking, 1, 1);
    assert_eq!(election.decision(), Some(vote(3, ZXID, 1, EPOCH)), "1 has not, and 2 of 3 agree");
    assert_eq!(election.decision(), None, "taken once");
}

#[test]
fn who_refuses_connections_is_not_waited_for() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    election.on_reachable(1010, ServerId(1), false);
    assert_eq!(election.decision(), Some(vote(3, ZXID, 1, EPOCH)));

    // Known before there was a quorum.
    let mut election = looking(2, Standing::Voter);
    election.on_reachable(1000, ServerId(1), false);
    hears(&mut election, 3, Looking, 3, 1);
    assert!(election.decision().is_some());

    // But it has been heard of since.
    let mut election = looking(2, Standing::Voter);
    election.on_reachable(1000, ServerId(1), false);
    hears(&mut election, 1, Looking, 1, 0);
    hears(&mut election, 3, Looking, 3, 1);
    assert_eq!(election.decision(), None);
    election.tick(1200);
    assert!(election.decision().is_some());

    // Nor is anything hurried for a leader that refuses, or follows another one.
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    hears(&mut election, 3, Following, 1, 1);
    hears(&mut election, 1, Looking, 3, 1);
    assert_eq!(election.decision(), None);
    election.tick(1200);
    assert!(election.decision().is_some());
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    election.on_reachable(1000, ServerId(3), false);
    hears(&mut election, 1, Looking, 3, 1);
    assert_eq!(election.decision(), None);
    election.tick(1200);
    assert!(election.decision().is_some());
}

#[test]
fn who_has_no_say_is_not_waited_for_nor_counted() {
    let mut election = looking(2, Standing::Voter);
    let none = says(Looking, vote(3, -1, 1, 0));
    election.on_notification(1000, ServerId(3), &none);
    election.tick(1300);
    assert_eq!(election.decision(), None, "one of three");
    hears(&mut election, 1, Looking, 2, 1);
    assert_eq!(election.decision(), Some(vote(2, ZXID, 1, EPOCH)));

    // Its round means nothing, and its vote for someone else neither.
    let mut election = looking(2, Standing::Voter);
    election.on_notification(1000, ServerId(3), &says(Looking, vote(2, -1, 9, 99)));
    assert_eq!((election.round(), sent(&mut election)), (1, vec![]));
}

#[test]
fn otherwise_a_quorum_must_stand_for_the_finalize_wait() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    election.tick(1199);
    assert_eq!(election.decision(), None);
    election.tick(1200);
    assert_eq!(election.decision(), Some(vote(3, ZXID, 1, EPOCH)));
}

#[test]
fn a_better_vote_restarts_the_wait() {
    let mut election = Election::new(&PeerConfig {
        members: Members { voters: ids(1..=5), ..Members::default() },
        ..config(2)
    });
    let at = |election: &mut Election, now_ms, from, leader| {
        let told = says(Looking, vote(leader, ZXID, 1, EPOCH));
        election.on_notification(now_ms, ServerId(from), &told);
    };
    election.start(1000, Zxid(ZXID), Epoch(3), Standing::Voter);
    at(&mut election, 1000, 3, 3);
    at(&mut election, 1010, 1, 3);
    at(&mut election, 1200, 4, 4);
    election.tick(1210);
    assert_eq!(election.decision(), None, "3 is no longer the best");
    at(&mut election, 1300, 3, 4);
    election.tick(1499);
    assert_eq!(election.decision(), None);
    election.tick(1500);
    assert_eq!(election.decision(), Some(vote(4, ZXID, 1, EPOCH)));
}

#[test]
fn a_better_leader_in_the_same_round_is_waited_for() {
    let five = || {
        let mut election = Election::new(&PeerConfig {
            members: Members { voters: ids(1..=5), ..Members::default() },
            ..config(2)
        });
        election.start(1000, Zxid(ZXID), Epoch(3), Standing::Voter);
        hears(&mut election, 1, Looking, 4, 1);
        hears(&mut election, 3, Looking, 4, 1);
        election
    };
    // Others decided for 5; nobody else says so yet.
    let mut election = five();
    hears(&mut election, 4, Looking, 4, 1);
    election.tick(1199);
    let led = says(Leading, vote(5, ZXID, 1, EPOCH + 1));
    election.on_notification(1199, ServerId(5), &led);
    election.tick(1398);
    assert_eq!(election.decision(), None);
    election.tick(1399);
    assert_eq!(election.decision(), Some(vote(4, ZXID, 1, EPOCH)), "but not for ever");

    // With a new epoch the candidate itself is no better.
    let mut election = five();
    election.on_notification(1000, ServerId(5), &says(Following, vote(4, ZXID, 1, EPOCH + 1)));
    assert_eq!(election.decision(), None);
    hears(&mut election, 4, Looking, 4, 1);
    assert_eq!(election.decision(), Some(vote(4, ZXID, 1, EPOCH)));
}

#[test]
fn a_single_voter_elects_itself_at_once() {
    let mut election = Election::new(&PeerConfig {
        members: Members { voters: ids([1]), ..Members::default() },
        ..config(1)
    });
    election.start(0, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(election.decision(), Some(vote(1, ZXID, 1, EPOCH)));
    assert_eq!(sent(&mut election), []);
}

#[test]
fn a_latecomer_joins_when_a_quorum_and_the_leader_say_so() {
    // Rounds and zxids are those of the elections in which they found their leader.
    let established = |state, zxid, round| says(state, vote(1, zxid, round, 7));
    let mut election = looking(2, Standing::Voter);
    election.on_notification(1000, ServerId(3), &established(Following, 5, 8));
    election.tick(2000);
    assert_eq!(election.decision(), None);
    election.on_notification(1000, ServerId(1), &established(Leading, 6, 9));
    assert_eq!(election.decision(), Some(vote(1, 6, 9, 7)));
    assert_eq!(election.round(), 9, "it takes part in the next election in their round");

    // The epochs differ: one of them is not where the other is.
    let mut election = looking(2, Standing::Voter);
    election.on_notification(1000, ServerId(3), &says(Following, vote(1, 5, 8, 6)));
    election.on_notification(1000, ServerId(1), &established(Leading, 5, 8));
    assert_eq!(election.decision(), None);
    // A format without the new epochs.
    let old = Notification { version: 0, ..says(Following, vote(1, 5, 8, 6)) };
    election.on_notification(1000, ServerId(3), &old);
    assert_eq!(election.decision().map(|vote| vote.leader), Some(ServerId(1)));

    // A quorum, but the leader is dead, or says otherwise.
    let mut election = Election::new(&PeerConfig {
        members: Members { voters: ids(1..=5), ..Members::default() },
        ..config(2)
    });
    election.start(1000, Zxid(ZXID), Epoch(3), Standing::Voter);
    for from in [3, 4, 5] {
        election.on_notification(1000, ServerId(from), &established(Following, 5, 8));
    }
    election.on_notification(1000, ServerId(1), &established(Following, 5, 8));
    assert_eq!(election.decision(), None);
    election.on_notification(1000, ServerId(1), &established(Leading, 5, 8));
    assert!(election.decision().is_some());
}

#[test]
fn in_the_same_round_votes_of_both_kinds_count_together() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    sent(&mut election);
    hears(&mut election, 3, Leading, 3, 1);
    assert_eq!(election.decision(), Some(vote(3, ZXID, 1, EPOCH)), "2 votes for 3, and 3 leads");

    // The own vote is for another one, and only one follows: no quorum.
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 1, Leading, 1, 1);
    assert_eq!(election.decision(), None);
    // Two do, though the epoch is new on one: in the same round that does not matter.
    election.on_notification(1000, ServerId(3), &says(Following, vote(1, ZXID, 1, EPOCH + 1)));
    assert!(election.decision().is_some());
}

#[test]
fn others_can_make_a_server_leader_only_by_its_present_vote() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 1, Following, 2, 1);
    assert_eq!(election.decision(), Some(vote(2, ZXID, 1, EPOCH)), "together with its own vote");

    // What it was elected for in its former life; rounds begin with 1 again.
    for old in [vote(2, 7, 1, EPOCH), vote(2, ZXID, 1, EPOCH - 1), vote(2, ZXID, 2, EPOCH)] {
        let mut election = looking(2, Standing::Voter);
        for from in [1, 3] {
            election.on_notification(1000, ServerId(from), &says(Following, old));
        }
        election.tick(9000);
        assert_eq!(election.decision(), None, "{old:?}");
    }

    let mut election = looking(2, Standing::NonVoting);
    for from in [1, 3] {
        election.on_notification(1000, ServerId(from), &says(Following, vote(2, -1, 1, EPOCH)));
    }
    assert_eq!(election.decision(), None);
}

#[test]
fn only_the_last_word_of_a_server_counts() {
    // 3 voted for 2, then found that it has a leader.
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 2, 1);
    hears(&mut election, 3, Following, 1, 7);
    election.tick(5000);
    assert_eq!(election.decision(), None);
    // It is LOOKING again, before its dead leader's word is in.
    hears(&mut election, 3, Looking, 3, 0);
    hears(&mut election, 1, Leading, 1, 7);
    assert_eq!(election.decision(), None);
    // The same with one that lost its say.
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 2, 1);
    election.on_notification(1000, ServerId(3), &says(Looking, vote(3, -1, 1, 0)));
    election.tick(5000);
    assert_eq!(election.decision(), None);
}

#[test]
fn observers_do_not_count_and_get_an_answer() {
    let mut election = looking(2, Standing::Voter);
    let nothing = says(Looking, vote(i64::MIN, i64::MIN, 1, i64::MIN));
    for observer in [8, 9] {
        election.on_notification(1000, ServerId(observer), &nothing);
        hears(&mut election, observer, Looking, 2, 1);
        hears(&mut election, observer, Following, 2, 1);
    }
    let told = sent(&mut election);
    assert_eq!(told, [8, 9].map(|to| (to, says(Looking, vote(2, ZXID, 1, EPOCH)))));
    election.tick(1199);
    assert_eq!(election.decision(), None);
    hears(&mut election, 1, Looking, 2, 1);
    election.tick(1400);
    election.decision().unwrap();
    election.leave(Leading);
    assert_eq!(
        sent(&mut election),
        [1, 8, 9].map(|to| (to, says(Leading, vote(2, ZXID, 1, EPOCH)))),
        "its follower, and without being asked again the observers"
    );
    election.settle(Leading, Epoch(4));
    let settled = says(Leading, vote(2, ZXID, 1, 4));
    assert_eq!(sent(&mut election), [1, 8, 9].map(|to| (to, settled.clone())));
    // Established: one answer to one question, also to those that nobody knows.
    for who in [8, 77] {
        election.on_notification(2000, ServerId(who), &nothing);
        assert_eq!(sent(&mut election), [(who, settled.clone())]);
    }
    assert!(election.asked.is_empty());
}

#[test]
fn two_servers_that_do_not_know_each_other_do_not_talk_for_ever() {
    let of = |id: i64| {
        let members = Members { voters: ids([id]), ..Members::default() };
        let mut election = Election::new(&PeerConfig { members, ..config(id) });
        election.start(0, Zxid(ZXID), Epoch(3), Standing::Voter);
        election.decision().unwrap();
        election.leave(Leading);
        election
    };
    let (mut one, mut two) = (of(1), of(2));
    one.on_notification(0, ServerId(2), &says(Looking, vote(2, 0, 1, 0)));
    let (_, answer) = one.poll_notification().unwrap();
    two.on_notification(0, ServerId(1), &answer);
    assert_eq!(two.poll_notification(), None);

    // Upstream's observer answers each message of an earlier round.
    let mut election = looking(2, Standing::Voter);
    election.on_notification(0, ServerId(8), &says(Looking, vote(i64::MIN, 0, 2, i64::MIN)));
    assert_eq!(sent(&mut election), []);
}

#[test]
fn an_observer_joins_an_established_leader_only() {
    let mut observer = looking(8, Standing::Observer);
    for from in [1, 2, 3] {
        // What upstream's voters say while they look for another one.
        hears(&mut observer, from, Looking, 1, 1);
    }
    observer.tick(9000);
    assert_eq!(observer.decision(), None);
    assert!(observer.in_round.is_empty());
    hears(&mut observer, 2, Following, 2, 4);
    hears(&mut observer, 3, Following, 2, 4);
    assert_eq!(observer.decision(), None, "2 says that it follows");
    hears(&mut observer, 2, Leading, 2, 4);
    assert_eq!(observer.decision(), Some(vote(2, ZXID, 4, EPOCH)));
    observer.leave(Observing);
    sent(&mut observer);
    hears(&mut observer, 1, Looking, 1, 1);
    assert_eq!(sent(&mut observer), [(1, says(Observing, vote(2, ZXID, 4, EPOCH)))]);
}

#[test]
fn observing_says_nothing() {
    let mut election = looking(2, Standing::Voter);
    for from in [1, 3] {
        hears(&mut election, from, Observing, 2, 1);
    }
    election.tick(9000);
    assert_eq!(election.decision(), None);
}

#[test]
fn between_elections_those_that_look_are_told_the_leader() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, 1);
    hears(&mut election, 1, Looking, 1, 1);
    election.decision().unwrap();
    sent(&mut election);
    election.leave(Following);
    assert_eq!(sent(&mut election), [], "who took part knows");
    hears(&mut election, 1, Looking, 1, 4);
    assert_eq!(sent(&mut election), [(1, says(Following, vote(3, ZXID, 1, EPOCH)))]);
    for state in [Following, Leading, Observing] {
        hears(&mut election, 3, state, 3, 1);
    }
    assert_eq!(sent(&mut election), []);
    election.settle(Following, Epoch(4));
    let settled = says(Following, vote(3, ZXID, 1, 4));
    assert_eq!(sent(&mut election), [(1, settled.clone())], "it may need the new epoch");
    hears(&mut election, 1, Looking, 1, 4);
    assert_eq!(sent(&mut election), [(1, settled)]);
    election.tick(100_000);
    assert_eq!(sent(&mut election), []);
    assert_eq!(election.decision(), None);
}

#[test]
fn votes_are_sent_again_ever_more_rarely() {
    let mut election = looking(2, Standing::Voter);
    let times: Vec<i64> = (1000..200_000)
        .filter(|&now_ms| {
            election.tick(now_ms);
            let told = sent(&mut election);
            assert!(told.is_empty() || to(&told) == [1, 3]);
            !told.is_empty()
        })
        .collect();
    let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(times[0], 1200);
    assert_eq!(gaps[..5], [400, 800, 1600, 2000, 2000]);
    election.start(500_000, Zxid(ZXID), Epoch(3), Standing::Voter);
    sent(&mut election);
    election.tick(500_200);
    assert_eq!(to(&sent(&mut election)), [1, 3], "from the beginning");
}

#[test]
fn a_new_connection_ends_a_long_wait() {
    let mut election = looking(2, Standing::Voter);
    for now_ms in 1000..50_000 {
        election.tick(now_ms);
    }
    sent(&mut election);
    election.on_reachable(50_000, ServerId(3), true);
    assert_eq!(to(&sent(&mut election)), [3]);
    election.tick(50_200);
    assert_eq!(to(&sent(&mut election)), [1, 3]);
}

#[test]
fn a_vote_that_came_just_before_this_server_is_looking_counts() {
    let follower = || {
        let mut election = looking(2, Standing::Voter);
        hears(&mut election, 1, Looking, 3, 1);
        hears(&mut election, 3, Looking, 3, 1);
        assert!(election.decision().is_some());
        election.leave(Following);
        election.settle(Following, Epoch(4));
        sent(&mut election);
        // The leader is dead, and member 1 has noticed first. It says so once.
        let vote = says(Looking, vote(1, ZXID + 9, 2, EPOCH));
        election.on_notification(1000, ServerId(1), &vote);
        election.on_reachable(1000, ServerId(3), false);
        sent(&mut election);
        election
    };
    let mut election = follower();
    election.start(1001, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(election.decision(), Some(vote(1, ZXID + 9, 2, EPOCH)), "at once");

    let mut election = follower();
    election.start(1300, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(election.decision(), None, "what is old is of another election");
    election.tick(9000);
    assert_eq!(election.decision(), None);

    let mut election = follower();
    election.on_notification(1000, ServerId(1), &says(Following, vote(3, ZXID, 1, 4)));
    election.start(1001, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(election.decision(), None, "it has found the leader again");
}

#[test]
fn who_comes_back_is_told_the_vote() {
    let mut election = looking(2, Standing::Voter);
    let told = [(3, says(Looking, vote(2, ZXID, 1, EPOCH)))];
    election.on_reachable(1000, ServerId(3), false);
    assert_eq!(sent(&mut election), []);
    election.on_reachable(1000, ServerId(3), true);
    assert_eq!(sent(&mut election), told);
    election.on_reachable(1000, ServerId(3), true);
    assert_eq!(sent(&mut election), told, "it may have lost the first one with the connection");
    election.on_reachable(1000, ServerId(3), false);
    hears(&mut election, 3, Looking, 1, 1);
    assert_eq!(sent(&mut election), told, "it cannot know it");
    for nobody in [2, 8, 77] {
        election.on_reachable(1000, ServerId(nobody), true);
    }
    assert_eq!((sent(&mut election), election.reachable.len()), (vec![], 1));
}

#[test]
fn an_empty_server_votes_until_there_is_data() {
    let empty = |leader, round| says(Looking, vote(leader, 0, round, 0));
    let mut election = looking(2, Standing::Fresh);
    election.on_notification(1000, ServerId(3), &empty(3, 1));
    election.on_notification(1000, ServerId(1), &empty(1, 1));
    assert_eq!(election.decision(), Some(vote(3, 0, 1, 0)), "a new ensemble");

    for data in [vote(3, 1, 1, 0), vote(3, 0, 1, 1), vote(1, ZXID, 7, EPOCH)] {
        let mut election = looking(2, Standing::Fresh);
        sent(&mut election);
        election.on_notification(1000, ServerId(3), &says(Looking, data));
        let told = sent(&mut election);
        assert_eq!(to(&told), [1, 3]);
        assert_eq!(told[0].1, says(Looking, vote(2, -1, 1, 0)));
        assert_eq!(election.standing(), Standing::NonVoting);
        // Its former votes, and those for it, do not help.
        election.on_notification(1000, ServerId(3), &empty(2, 1));
        hears(&mut election, 3, Looking, 3, 1);
        election.tick(1100);
        assert_eq!((election.decision(), sent(&mut election)), (None, vec![]));
        election.tick(1200);
        assert_eq!(sent(&mut election)[0].1.zxid, Zxid(-1), "it goes on asking");
        // Nor when it looks again.
        election.start(2000, Zxid::ZERO, Epoch(0), Standing::Fresh);
        assert_eq!(sent(&mut election)[0].1.zxid, Zxid(-1));
        hears(&mut election, 1, Following, 3, 5);
        hears(&mut election, 3, Leading, 3, 5);
        assert_eq!(election.decision(), Some(vote(3, ZXID, 5, EPOCH)));
        // What it got from the leader makes it a voter.
        election.start(9000, Zxid(ZXID), Epoch(3), Standing::Voter);
        assert_eq!(sent(&mut election)[0].1, says(Looking, vote(2, ZXID, 6, EPOCH)));
    }

    // An observer's numbers, or a stranger's, are no data; established servers are joined.
    let mut election = looking(2, Standing::Fresh);
    hears(&mut election, 8, Looking, 3, 1);
    hears(&mut election, 77, Looking, 3, 1);
    hears(&mut election, 3, Leading, 3, 5);
    assert_eq!(election.standing(), Standing::Fresh);
    hears(&mut election, 1, Following, 3, 5);
    assert_eq!(election.decision(), Some(vote(3, ZXID, 5, EPOCH)));
}

/// 1 saw the first leader of a new ensemble; 2 and 3 did not, and would wait for two that vote.
#[test]
fn one_that_may_have_lost_data_votes_when_all_others_are_looking() {
    let mut election = looking(2, Standing::Fresh);
    election.on_notification(1000, ServerId(1), &says(Looking, vote(1, 0, 4, 1)));
    assert_eq!(sent(&mut election)[0].1, says(Looking, vote(2, -1, 1, 0)));
    assert_eq!(election.decision(), None, "3 may have data");
    election.on_notification(1000, ServerId(3), &says(Looking, vote(3, -1, 2, 0)));
    let told = sent(&mut election);
    assert_eq!(to(&told), [1, 3]);
    assert_eq!(told[0].1, says(Looking, vote(1, 0, 4, 1)), "the best, in the latest round");
    assert_eq!(election.decision(), Some(vote(1, 0, 4, 1)));
    assert_eq!(election.standing(), Standing::NonVoting);

    // Nothing came of it. The others have to be heard again.
    election.leave(Following);
    election.start(2000, Zxid::ZERO, Epoch(0), Standing::Fresh);
    election.on_notification(2000, ServerId(3), &says(Looking, vote(3, -1, 4, 0)));
    assert_eq!(sent(&mut election)[0].1, says(Looking, vote(2, -1, 5, 0)));
    election.on_notification(2000, ServerId(1), &says(Looking, vote(1, 0, 4, 1)));
    assert_eq!(sent(&mut election)[0].1, says(Looking, vote(1, 0, 5, 1)));
    assert_eq!(election.decision(), None, "1 may not be there any more");
    // In the next round too.
    election.on_notification(2000, ServerId(3), &says(Looking, vote(1, 0, 6, 1)));
    assert_eq!(sent(&mut election)[0].1, says(Looking, vote(2, -1, 6, 0)));
    election.on_notification(2000, ServerId(1), &says(Looking, vote(1, 0, 6, 1)));
    assert_eq!(election.decision(), Some(vote(1, 0, 6, 1)));
}

#[test]
fn when_nobody_has_a_say_one_is_chosen_all_the_same() {
    let mut election = looking(2, Standing::NonVoting);
    election.on_notification(1000, ServerId(1), &says(Looking, vote(1, -1, 1, 0)));
    election.on_notification(1000, ServerId(3), &says(Looking, vote(3, -1, 1, 0)));
    assert_eq!(sent(&mut election)[0].1, says(Looking, vote(2, 0, 1, EPOCH)));
    election.on_notification(1000, ServerId(3), &says(Looking, vote(2, 0, 1, EPOCH)));
    election.on_notification(1000, ServerId(1), &says(Looking, vote(2, 0, 1, EPOCH)));
    assert_eq!(election.decision(), Some(vote(2, 0, 1, EPOCH)));
}

#[test]
fn one_that_has_no_say_is_told_when_there_is_a_leader() {
    let mut election = looking(2, Standing::Voter);
    election.on_notification(1000, ServerId(1), &says(Looking, vote(1, -1, 1, 0)));
    hears(&mut election, 3, Looking, 3, 1);
    assert!(election.decision().is_some());
    sent(&mut election);
    election.leave(Following);
    assert_eq!(sent(&mut election), [(1, says(Following, vote(3, ZXID, 1, EPOCH)))]);
    election.settle(Following, Epoch(4));
    assert_eq!(sent(&mut election), [(1, says(Following, vote(3, ZXID, 1, 4)))]);
}

#[test]
fn a_silent_server_sends_and_counts_nothing() {
    let mut election = looking(2, Standing::Voter);
    election.silence(true);
    for from in [1, 3] {
        hears(&mut election, from, Looking, 3, 4);
        election.on_reachable(1000, ServerId(from), true);
    }
    election.tick(9000);
    election.start(9000, Zxid(ZXID), Epoch(3), Standing::Voter);
    hears(&mut election, 8, Looking, 3, 1);
    assert_eq!((election.decision(), sent(&mut election), election.round()), (None, vec![], 2));
    election.silence(false);
    assert_eq!(election.round(), 3, "who is LOOKING does not answer an equal round");
    assert_eq!(to(&sent(&mut election)), [1, 3]);
    election.silence(false);
    assert_eq!(sent(&mut election), []);

    // Also while it follows.
    hears(&mut election, 1, Following, 1, 3);
    hears(&mut election, 3, Leading, 3, 3);
    hears(&mut election, 1, Following, 3, 3);
    election.decision().unwrap();
    election.leave(Following);
    election.silence(true);
    hears(&mut election, 1, Looking, 1, 3);
    assert_eq!(sent(&mut election), []);
    election.silence(false);
    hears(&mut election, 1, Looking, 1, 3);
    assert_eq!(sent(&mut election).len(), 1);
}

#[test]
fn nonsense_changes_nothing() {
    let mut election = Election::new(&config(2));
    hears(&mut election, 3, Looking, 3, 1);
    election.tick(0);
    assert_eq!(sent(&mut election), [], "not before it has started");
    let mut election = looking(2, Standing::Voter);
    let before = format!("{:?}", (&election.proposal, &election.in_round, &election.established));
    for from in [1, 3] {
        // For a leader that nobody knows, or an observer.
        for leader in [0, 8, 77, i64::MIN, i64::MAX, -1] {
            for state in [Looking, Following, Leading, Observing] {
                hears(&mut election, from, state, leader, 9);
            }
        }
    }
    // From a stranger, or by its own name.
    for from in [2, 77, i64::MIN, i64::MAX, -1] {
        for state in [Looking, Following, Leading, Observing] {
            hears(&mut election, from, state, 3, 9);
        }
    }
    election.tick(1199);
    let after = format!("{:?}", (&election.proposal, &election.in_round, &election.established));
    assert_eq!((election.decision(), after), (None, before));

    // A flood from strangers, of which none can be told, takes no memory.
    for stranger in 100..100_000 {
        hears(&mut election, stranger, Looking, 3, 1);
    }
    assert!(sent(&mut election).len() <= STRANGERS_MAX + 2);
    assert!(election.asked.is_empty());
}

#[test]
fn the_end_of_the_rounds_is_survived() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 3, Looking, 3, i64::MAX);
    assert_eq!(election.round(), i64::MAX);
    election.start(2000, Zxid(ZXID), Epoch(3), Standing::Voter);
    hears(&mut election, 3, Looking, 3, i64::MAX);
    hears(&mut election, 1, Looking, 1, i64::MAX);
    assert_eq!(election.decision(), Some(vote(3, ZXID, i64::MAX, EPOCH)));
}

#[test]
fn a_leader_that_looks_again_is_not_waited_for() {
    let following = || {
        let mut election = looking(2, Standing::Voter);
        hears(&mut election, 3, Looking, 3, 1);
        hears(&mut election, 1, Looking, 1, 1);
        election.decision().unwrap();
        election.leave(Following);
        election
    };
    let mut election = following();
    hears(&mut election, 3, Looking, 3, 1);
    hears(&mut election, 1, Looking, 1, 2);
    assert!(!election.deserted(), "3 is not so far, and 1 does not matter");
    hears(&mut election, 3, Looking, 3, 2);
    assert!(election.deserted());
    assert_eq!(sent(&mut election).len(), 2, "and everybody is answered");
    election.settle(Following, Epoch(4));
    assert!(!election.deserted(), "it leads after all");
    hears(&mut election, 3, Looking, 3, 9);
    assert!(!election.deserted(), "links tell from now on");

    let mut election = following();
    hears(&mut election, 3, Looking, 3, 0);
    assert!(election.deserted(), "it has restarted");

    let mut election = following();
    election.on_notification(1000, ServerId(3), &says(Looking, vote(1, ZXID + 1, 1, EPOCH)));
    assert!(election.deserted(), "it has found a better one");

    let mut election = following();
    hears(&mut election, 3, Leading, 3, 1);
    hears(&mut election, 1, Following, 1, 1);
    assert!(!election.deserted());
    hears(&mut election, 3, Following, 1, 1);
    assert!(election.deserted(), "it follows");

    let mut election = following();
    election.on_reachable(1000, ServerId(1), false);
    assert!(!election.deserted());
    election.on_reachable(1000, ServerId(3), false);
    assert!(election.deserted(), "it is not there");
    let mut election = following();
    election.settle(Following, Epoch(4));
    election.on_reachable(1000, ServerId(3), false);
    assert!(!election.deserted());
}

#[test]
fn who_would_follow_a_follower_is_told() {
    let mut election = looking(2, Standing::Voter);
    hears(&mut election, 1, Looking, 2, 1);
    hears(&mut election, 3, Looking, 3, 1);
    assert!(election.decision().is_some(), "1 has yet to find that 3 is better");
    sent(&mut election);
    election.leave(Following);
    assert_eq!(sent(&mut election), [(1, says(Following, vote(3, ZXID, 1, EPOCH)))]);
}

#[test]
fn a_leader_without_those_that_chose_it_need_not_wait() {
    let mut election = looking(3, Standing::Voter);
    hears(&mut election, 1, Looking, 3, 1);
    hears(&mut election, 2, Looking, 3, 1);
    election.decision().unwrap();
    election.leave(Leading);
    hears(&mut election, 1, Looking, 3, 1);
    hears(&mut election, 1, Looking, 1, 2);
    hears(&mut election, 2, Looking, 2, 1);
    assert!(!election.deserted(), "2 and 3 are a quorum; a lower vote is an old one");
    election.on_notification(1000, ServerId(2), &says(Looking, vote(2, ZXID + 1, 1, EPOCH)));
    assert!(election.deserted());
    election.start(2000, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert!(!election.deserted());
}

#[test]
fn a_newer_configuration_in_a_message_changes_nothing() {
    let mut election = looking(2, Standing::Voter);
    for config in ["server.1=x\nversion=ffff", "", "\u{0}"] {
        let newer =
            Notification { config: Some(config.into()), ..says(Looking, vote(1, ZXID, 1, EPOCH)) };
        election.on_notification(1000, ServerId(1), &newer);
    }
    hears(&mut election, 3, Looking, 2, 1);
    assert_eq!(election.decision(), Some(vote(2, ZXID, 1, EPOCH)));
    hears(&mut election, 1, Looking, 1, 0);
    let told = sent(&mut election);
    assert_eq!(told[0].1.config.as_deref(), Some("servers\nversion=1a"));
}

/// Servers 1 and 2 of a new ensemble elect 2, observer 4 joins, server 3 comes late: the same
/// happened when the vectors were recorded.
/// One of five voters in two groups: 3 has no weight, and 4 and 5 are a group without.
fn weighted(id: i64) -> Election {
    let members = Members {
        voters: ids(1..=5),
        groups: [(1, ids([1, 2, 3])), (2, ids([4, 5]))].into(),
        weights: [3, 4, 5].map(|id| (ServerId(id), 0)).into(),
        ..config(id).members
    };
    let mut election = Election::new(&PeerConfig::new(ServerId(id), members));
    election.start(1000, Zxid(ZXID), Epoch(3), Standing::Voter);
    assert_eq!(to(&sent(&mut election)).len(), 4, "it votes, and everybody hears of it");
    election
}

#[test]
fn who_has_no_weight_is_voted_for_by_nobody_else_and_not_waited_for() {
    let mut election = weighted(1);
    // Not in the same round, whatever it has, nor in a later one.
    let best = vote(5, ZXID + 9, 1, 7);
    election.on_notification(1000, ServerId(5), &says(Looking, best));
    election.on_notification(1000, ServerId(3), &says(Looking, Vote { round: 4, ..best }));
    assert_eq!(election.round(), 4);
    assert_eq!(sent(&mut election).pop().unwrap().1, says(Looking, vote(1, ZXID, 4, EPOCH)));
    // They do not count either: three of five voters are no quorum here.
    for id in [3, 4, 5] {
        hears(&mut election, id, Looking, 1, 4);
    }
    election.tick(10_000);
    assert_eq!(election.decision(), None);
    // Two of five are one, and the others' votes are nothing to wait for.
    hears(&mut election, 2, Looking, 2, 4);
    assert_eq!(election.proposal, vote(2, ZXID, 4, EPOCH));
    assert_eq!(election.decision(), Some(vote(2, ZXID, 4, EPOCH)));
    let mut silent = weighted(1);
    hears(&mut silent, 2, Looking, 2, 1);
    assert_eq!(silent.decision(), Some(vote(2, ZXID, 1, EPOCH)), "4 and 5 have said nothing");
}

#[test]
fn who_has_no_weight_follows_and_does_not_lead() {
    let mut election = weighted(5);
    // Less than it has itself, but of somebody that may lead.
    election.on_notification(1000, ServerId(1), &says(Looking, vote(1, ZXID - 1, 1, EPOCH)));
    assert_eq!(sent(&mut election).pop().unwrap().1, says(Looking, vote(1, ZXID - 1, 1, EPOCH)));
    election.on_notification(1000, ServerId(2), &says(Looking, vote(1, ZXID - 1, 1, EPOCH)));
    assert_eq!(election.decision(), Some(vote(1, ZXID - 1, 1, EPOCH)));
    // Others with other weights may choose it; it does not agree.
    let mut election = weighted(5);
    for id in [1, 2] {
        election.on_notification(1000, ServerId(id), &says(Looking, vote(5, ZXID, 1, EPOCH)));
        election.tick(10_000);
        election.on_notification(1000, ServerId(id), &says(Following, vote(5, ZXID, 1, EPOCH)));
    }
    election.tick(20_000);
    assert_eq!(election.decision(), None);
    // But it does not stay away from an ensemble that another one of them leads.
    election.on_notification(1000, ServerId(1), &says(Following, vote(4, ZXID, 1, EPOCH)));
    election.on_notification(1000, ServerId(2), &says(Following, vote(4, ZXID, 1, EPOCH)));
    election.on_notification(1000, ServerId(4), &says(Leading, vote(4, ZXID, 1, EPOCH)));
    assert_eq!(election.decision(), Some(vote(4, ZXID, 1, EPOCH)));
}

#[test]
fn messages_are_those_of_upstream() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../zk-proto/testdata/election.txt");
    let recorded: Vec<Bytes> = read(path)
        .into_iter()
        .filter(|vector| vector.kind == "Notification")
        .map(|vector| vector.bytes)
        .collect();
    let text = Notification::decode(&recorded[0]).unwrap().config.unwrap();
    let members = Members {
        voters: ids(1..=3),
        observers: ids([4]),
        text: text.strip_suffix("version=0").unwrap().to_owned(),
        ..Members::default()
    };
    let mut servers: BTreeMap<i64, Election> = (1..=4)
        .map(|id| (id, Election::new(&PeerConfig { members: members.clone(), ..config(id) })))
        .collect();
    let mut produced: BTreeSet<Bytes> = BTreeSet::new();
    let mut run = |servers: &mut BTreeMap<i64, Election>, up: &[i64], now_ms: i64| {
        loop {
            let mut messages = Vec::new();
            for &id in up {
                let server = servers.get_mut(&id).unwrap();
                server.tick(now_ms);
                if let Some(vote) = server.decision() {
                    assert_eq!(vote, Vote { leader: ServerId(2), ..vote });
                    server.leave(match id {
                        2 => Leading,
                        4 => Observing,
                        _ => Following, // the other voters
                    });
                }
                messages.extend(sent(server).into_iter().map(|(to, told)| (id, to, told)));
            }
            if messages.is_empty() {
                return;
            }
            for (from, to, told) in messages {
                let mut bytes = BytesMut::new();
                told.encode(&mut bytes);
                let bytes = bytes.freeze();
                produced.insert(bytes.clone());
                if up.contains(&to) {
                    let told = Notification::decode(&bytes).unwrap();
                    servers.get_mut(&to).unwrap().on_notification(now_ms, ServerId(from), &told);
                }
            }
        }
    };
    for id in [1, 2] {
        servers.get_mut(&id).unwrap().start(0, Zxid::ZERO, Epoch(0), Standing::Fresh);
    }
    run(&mut servers, &[1, 2], 0);
    run(&mut servers, &[1, 2], 200);
    servers.get_mut(&4).unwrap().start(300, Zxid::ZERO, Epoch(0), Standing::Observer);
    run(&mut servers, &[1, 2, 4], 300);
    servers.get_mut(&3).unwrap().start(400, Zxid::ZERO, Epoch(0), Standing::Fresh);
    run(&mut servers, &[1, 2, 3, 4], 400);
    // 3 asks the voters alone; the observer was asked by a server that took it for one.
    let asks = says(Looking, vote(3, 0, 1, 0));
    servers.get_mut(&4).unwrap().on_notification(500, ServerId(3), &asks);
    run(&mut servers, &[1, 2, 3, 4], 500);
    for (at, bytes) in recorded.iter().enumerate() {
        assert!(produced.contains(bytes), "recorded notification {at} was not produced");
    }
}
