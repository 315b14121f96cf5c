//! Learners and leaders that say what they should not: it costs them their link.

use bytes::Bytes;
use zk_proto::quorum::{LearnerInfo, PacketType, PeerState, QuorumPacket};
use zk_proto::{Record, ServerId, Zxid};
use zk_testkit::property_of;
use zk_zab::{Action, Input, LinkId};

use crate::disk::Disk;
use crate::harness::members;
use crate::rig::{Rig, ack, ack_epoch, follower_info, info, leader_info, packet, words, z};

fn closed(actions: &[Action], link: LinkId) -> bool {
    words(actions) == format!("{}:close", link.0)
}

/// The leader goes on with its follower.
fn still_leads(rig: &mut Rig, follower: LinkId) {
    let zxid = rig.peer.last_proposed().next();
    let actions = rig.step(Input::Propose { zxid, txn: Bytes::from_static(b"txn") });
    assert!(words(&actions).contains(&format!("{}:PROPOSAL {zxid}", follower.0)));
    let actions = rig.packet(follower, ack(zxid.0));
    assert!(words(&actions).ends_with(&format!("deliver {zxid}")), "{}", words(&actions));
}

#[test]
fn a_learner_has_to_be_another_member() {
    let (mut rig, follower) = Rig::leading();
    let ancient = LearnerInfo { server_id: ServerId(3), protocol_version: 0x10, config_version: 0 };
    let newer =
        LearnerInfo { server_id: ServerId(3), protocol_version: 0x10000, config_version: z(9, 9) };
    for first in [
        follower_info(0, 2), // this server itself
        follower_info(0, -1),
        follower_info(i32::MAX, 3), // it would use up all epochs
        follower_info(-1, 3),
        packet(PacketType::FOLLOWER_INFO, 0, None),
        packet(PacketType::FOLLOWER_INFO, 0, Some(Bytes::from_static(b"1234567"))),
        packet(PacketType::FOLLOWER_INFO, 0, Some(ancient.to_bytes())),
        packet(PacketType::FOLLOWER_INFO, 0, Some(newer.to_bytes())),
        packet(PacketType(77), 0, None),
        ack(0),
        leader_info(5),
    ] {
        let link = rig.accept();
        let actions = rig.packet(link, first.clone());
        assert!(closed(&actions, link), "{first:?}: {}", words(&actions));
        still_leads(&mut rig, follower);
    }
}

/// So an ensemble grows server by server: the new one first, then those that are to count it.
#[test]
fn who_is_no_member_follows_without_a_vote() {
    let (mut rig, follower) = Rig::leading();
    let link = rig.accept();
    let actions = rig.packet(link, follower_info(0, 9));
    assert!(words(&actions).contains(&format!("{}:LEADERINFO", link.0)), "{}", words(&actions));
    still_leads(&mut rig, follower);
    let learners = rig.peer.status().learners;
    let stranger = learners.iter().find(|learner| learner.id == ServerId(9)).expect("it is here");
    assert!(!stranger.voter);
}

#[test]
fn every_packet_has_its_time() {
    let (mut rig, follower) = Rig::leading();
    let steps = [follower_info(0, 3), ack_epoch(0, 0), ack(z(1, 0))];
    let wrong = [
        packet(PacketType::REQUEST, -1, Some(Bytes::from_static(b"x"))),
        packet(PacketType::PROPOSAL, z(1, 1), None),
        packet(PacketType::COMMIT, z(1, 1), None),
        packet(PacketType::ACK_EPOCH, z(1, 1), None),
        packet(PacketType::ACK_EPOCH, z(1, 1), Some(Bytes::from_static(b"abc"))),
        packet(PacketType(-3), 0, None),
        ack(z(1, 7)),
        ack(z(7, 1)),
    ];
    for done in 0..=steps.len() {
        for wrong in &wrong {
            if done == steps.len() && wrong.packet_type == PacketType::REQUEST {
                continue;
            }
            let link = rig.accept();
            for step in &steps[..done] {
                rig.packet(link, step.clone());
            }
            let actions = rig.packet(link, wrong.clone());
            assert!(closed(&actions, link), "{done}, {wrong:?}: {}", words(&actions));
            // That costs nobody else anything.
            assert_eq!(rig.peer.status().learners.len(), 1);
        }
    }
    still_leads(&mut rig, follower);
}

#[test]
fn two_learners_with_one_id() {
    let (mut rig, follower) = Rig::leading();
    let second = rig.accept();
    assert_eq!(words(&rig.packet(second, follower_info(0, 1))), "");
    let mut actions = Vec::new();
    for _ in 0..6 {
        actions.extend(rig.wait(50));
        rig.packet(follower, packet(PacketType::PING, z(1, 0), Some(Bytes::new())));
    }
    actions.retain(|action| matches!(action, Action::Close { .. }));
    assert_eq!(actions, [Action::Close { link: second }]);
    still_leads(&mut rig, follower);
}

#[test]
fn a_learner_that_comes_back_takes_its_old_links_place() {
    // At once, when the old link's end is noticed.
    let (mut rig, old) = Rig::leading();
    let new = rig.accept();
    assert_eq!(words(&rig.packet(new, follower_info(1, 1))), "");
    let actions = rig.step(Input::LinkDown { link: old });
    assert_eq!(words(&actions), format!("{}:LEADERINFO 0x100000000", new.0));
    assert!(rig.peer.may_propose());
    // After a tick, when nothing is heard on the old one.
    let (mut rig, old) = Rig::leading();
    let new = rig.accept();
    rig.packet(new, follower_info(1, 1));
    let actions = rig.wait(120);
    let expected = format!("{}:close; {}:LEADERINFO 0x100000000", old.0, new.0);
    assert!(words(&actions).contains(&expected), "{}", words(&actions));
    assert!(rig.peer.may_propose());
}

#[test]
fn strangers_are_few_and_do_not_stay() {
    let (mut rig, follower) = Rig::leading();
    for _ in 0..64 {
        rig.accept();
    }
    let one_more = rig.peer.accept();
    let actions = rig.step(Input::LinkUp { link: one_more });
    assert!(closed(&actions, one_more));
    let mut closes = 0;
    for _ in 0..30 {
        let actions = rig.wait(50);
        rig.packet(follower, packet(PacketType::PING, z(1, 0), Some(Bytes::new())));
        closes += actions.iter().filter(|action| matches!(action, Action::Close { .. })).count();
    }
    assert_eq!(closes, 64);
    still_leads(&mut rig, follower);
    // While there is no leader, too.
    let mut rig = Rig::new(2, members(3, 0), Disk::default());
    let links: Vec<_> = (0..64).map(|_| rig.accept()).collect();
    let one_more = rig.peer.accept();
    assert!(closed(&rig.step(Input::LinkUp { link: one_more }), one_more));
    rig.packet(links[0], follower_info(0, 1));
    assert!(closed(&rig.packet(links[0], follower_info(0, 1)), links[0]));
    let actions = rig.wait(1200);
    let closes = actions.iter().filter(|action| matches!(action, Action::Close { .. })).count();
    assert_eq!(closes, 63);
}

/// Somebody says once after the other to have accepted an epoch that is as late as can be.
#[test]
fn what_strangers_claim_uses_up_no_epochs() {
    let (mut rig, follower) = Rig::leading();
    let latest = 1 + (1 << 16);
    for (nth, accepted) in [latest, latest, latest + 1, 2 * latest].into_iter().enumerate() {
        let link = rig.accept();
        let id = 1000 + i64::try_from(nth).unwrap();
        let actions = rig.packet(link, info(PacketType::OBSERVER_INFO, accepted, id));
        assert_eq!(closed(&actions, link), accepted > latest, "{}", words(&actions));
    }
    still_leads(&mut rig, follower);
    rig.step(Input::LinkDown { link: follower });
    assert_eq!(rig.peer.status().state, PeerState::Looking);
    assert_eq!(rig.lead().1, 2);
}

/// Whoever says to be member 3, which is away, can end a leader's role, but not again and again.
#[test]
fn a_leader_makes_way_for_a_later_epoch_once_in_a_while() {
    let (mut rig, _) = Rig::leading();
    let claim = |rig: &mut Rig, accepted| {
        let link = rig.accept();
        rig.packet(link, follower_info(accepted, 3));
        rig.step(Input::LinkDown { link });
        rig.peer.status().state
    };
    assert_eq!(claim(&mut rig, 50), PeerState::Looking);
    let (follower, epoch) = rig.lead();
    assert_eq!(epoch, 51);
    for _ in 0..20 {
        assert_eq!(claim(&mut rig, 60), PeerState::Leading);
        rig.wait(100);
        rig.packet(follower, packet(PacketType::PING, z(51, 0), Some(Bytes::new())));
    }
    rig.wait(50);
    assert_eq!(claim(&mut rig, 60), PeerState::Looking);
    assert_eq!(rig.lead().1, 61);
}

#[test]
fn strangers_take_no_members_place() {
    let (mut rig, follower) = Rig::leading();
    for id in 0..70 {
        let link = rig.accept();
        let actions = rig.packet(link, info(PacketType::OBSERVER_INFO, 0, 1000 + id));
        assert_eq!(closed(&actions, link), id >= 64, "{id}: {}", words(&actions));
    }
    let link = rig.accept();
    let actions = rig.packet(link, follower_info(0, 3));
    assert!(words(&actions).contains(&format!("{}:LEADERINFO", link.0)), "{}", words(&actions));
    still_leads(&mut rig, follower);
}

#[test]
fn an_observer_acknowledges_no_proposal() {
    let mut rig = Rig::elected(2, members(3, 1), Disk::default(), 1, 3);
    let follower = rig.accept();
    rig.packet(follower, follower_info(0, 1));
    let observer = rig.accept();
    rig.packet(observer, info(PacketType::OBSERVER_INFO, 0, 4));
    rig.packet(observer, ack_epoch(0, 0));
    // Not even an observer's promise counts.
    assert_eq!(rig.peer.status().current_epoch.0, 0);
    rig.packet(follower, ack_epoch(0, 0));
    rig.packet(observer, ack(z(1, 0)));
    assert!(!rig.peer.may_propose());
    rig.packet(follower, ack(z(1, 0)));
    assert!(rig.peer.may_propose());
    let zxid = Zxid(z(1, 1));
    let actions = rig.step(Input::Propose { zxid, txn: Bytes::from_static(b"txn") });
    assert_eq!(words(&actions), format!("{}:PROPOSAL {zxid}", follower.0));
    assert!(closed(&rig.packet(observer, ack(z(1, 1))), observer));
}

#[test]
fn whoever_is_followed_may_be_confused_as_well() {
    let proposal = |zxid| packet(PacketType::PROPOSAL, zxid, Some(Bytes::from_static(b"txn")));
    for (what, wrong) in [
        ("a hole", proposal(z(1, 2))),
        ("an old proposal", proposal(z(1, 0))),
        ("a proposal of an epoch's middle", proposal(z(2, 2))),
        ("no data", packet(PacketType::PROPOSAL, z(1, 1), None)),
        ("a commit of nothing", packet(PacketType::COMMIT, z(1, 1), None)),
        ("an observer's packet", packet(PacketType::INFORM, z(1, 1), Some(Bytes::new()))),
        ("a second LEADERINFO", leader_info(2)),
        ("a second DIFF", packet(PacketType::DIFF, 0, None)),
        ("a learner's packet", follower_info(0, 3)),
        ("no packet at all", packet(PacketType(99), 0, None)),
    ] {
        let (mut rig, link) = Rig::serving(Disk::default(), 1);
        let actions = rig.packet(link, wrong);
        let expected = format!("{}:close; stop", link.0);
        assert!(words(&actions).starts_with(&expected), "{what}: {}", words(&actions));
    }
    for (what, packets) in [
        ("an earlier epoch", vec![leader_info(-3)]),
        ("no epoch", vec![packet(PacketType::LEADER_INFO, z(1, 0), None)]),
        ("DIFF at once", vec![packet(PacketType::DIFF, 0, None)]),
        (
            "NEWLEADER without a method",
            vec![leader_info(1), packet(PacketType::NEW_LEADER, z(1, 0), None)],
        ),
        (
            "NEWLEADER of another epoch",
            vec![
                leader_info(1),
                packet(PacketType::DIFF, 0, None),
                packet(PacketType::NEW_LEADER, z(2, 0), None),
            ],
        ),
        (
            "a truncation behind the end",
            vec![leader_info(1), packet(PacketType::TRUNC, z(1, 9), None)],
        ),
        (
            "a commit without a proposal",
            vec![
                leader_info(1),
                packet(PacketType::DIFF, 0, None),
                packet(PacketType::COMMIT, z(1, 1), None),
            ],
        ),
        (
            "UPTODATE before NEWLEADER",
            vec![
                leader_info(1),
                packet(PacketType::DIFF, 0, None),
                packet(PacketType::UP_TO_DATE, -1, None),
            ],
        ),
    ] {
        let (mut rig, link) = Rig::following(Disk::default());
        let mut actions = Vec::new();
        for packet in packets {
            actions = rig.packet(link, packet);
        }
        assert!(closed(&actions, link), "{what}: {}", words(&actions));
    }
}

#[test]
fn nothing_that_a_peer_says_stops_this_one() {
    property_of("random packets", 300, |prng| {
        let mut rig = match prng.index(3) {
            0 => Rig::leading().0,
            1 => Rig::serving(Disk::default(), 1).0,
            _ => Rig::new(2, members(3, 1), Disk::default()),
        };
        let mut links: Vec<LinkId> = (1..4).map(LinkId).collect();
        for _ in 0..200 {
            if prng.chance(10) {
                links.push(rig.accept());
            }
            let zxid = match prng.index(4) {
                0 => prng.edgy_i64(),
                _ => z(prng.next_i64() & 3, prng.next_i64() & 3),
            };
            let len = *prng.pick(&[0, 4, 8, 12, 20, 24]);
            let mut data = prng.bytes(len);
            if let Some(low) = data.get_mut(..8) {
                // Ids of members, often.
                low.copy_from_slice(&(prng.next_i64() & 3).to_be_bytes());
            }
            if prng.chance(50) && data.len() == 20 {
                data[8..12].copy_from_slice(&[0, 1, 0, 0]);
                data[12..].fill(0);
            }
            let packet = QuorumPacket {
                packet_type: PacketType(prng.next_i32().rem_euclid(22)),
                zxid: Zxid(zxid),
                data: prng.chance(80).then(|| data.into()),
                authinfo: None,
            };
            let link = *prng.pick(&links);
            match prng.index(20) {
                0 => rig.step(Input::SnapshotReceived { link, zxid: Zxid(zxid), members: None }),
                1 => rig.step(Input::LinkDown { link }),
                2 => rig.step(Input::Progress { link }),
                3 => rig.wait(20),
                _ => rig.packet(link, packet),
            };
        }
    });
}
