//! Followers that feed observers, and observers that choose among them.

use bytes::Bytes;
use zk_proto::quorum::{Notification, PacketType, PeerState, QuorumPacket};
use zk_proto::{ServerId, Zxid};
use zk_zab::{Action, Input, LearnerPort, LinkId, PeerConfig};

use crate::disk::Disk;
use crate::harness::members;
use crate::rig::{Rig, ack, ack_epoch, follower_info, info, leader_info, packet, words, z};

/// Three voters and an observer, server 4.
fn config(id: i64) -> PeerConfig {
    PeerConfig {
        tick_ms: 100,
        observer_masters: true,
        ..PeerConfig::new(ServerId(id), members(3, 1))
    }
}

fn log(zxids: &[i64]) -> Disk {
    let log = zxids.iter().map(|zxid| (Zxid(*zxid), Bytes::from_static(b"t"))).collect();
    Disk { log, ..Disk::default() }
}

fn proposal(zxid: i64) -> QuorumPacket {
    packet(PacketType::PROPOSAL, zxid, Some(Bytes::from_static(b"t")))
}

fn commit(zxid: i64) -> QuorumPacket {
    packet(PacketType::COMMIT, zxid, None)
}

/// A follower of server 2 that serves in epoch 3 with this log, all of it committed.
fn follower(disk: Disk) -> (Rig, LinkId) {
    let mut rig = Rig::with(config(1), disk);
    let actions = rig.vote(2, 2, 3);
    let link = dialled(&actions).expect("it dials the leader").0;
    rig.step(Input::LinkUp { link });
    let last = rig.peer.status().last_logged.0;
    rig.packet(link, leader_info(3));
    rig.packet(link, packet(PacketType::DIFF, last, None));
    for zxid in rig.disk.log.clone().iter().map(|(zxid, _)| zxid.0) {
        // Committed, and nothing new.
        rig.packet(link, commit(zxid));
    }
    rig.packet(link, packet(PacketType::NEW_LEADER, z(3, 0), None));
    rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
    assert!(rig.peer.serving().is_some());
    (rig, link)
}

/// A link on the observer master port.
fn accept(rig: &mut Rig) -> LinkId {
    let link = rig.peer.accept();
    assert_eq!(words(&rig.step(Input::ObserverLinkUp { link })), "");
    link
}

fn observer_info(accepted: i32) -> QuorumPacket {
    info(PacketType::OBSERVER_INFO, accepted, 4)
}

/// An observer with this last zxid, which is brought up to date; what that took.
fn observer(rig: &mut Rig, zxid: i64) -> (LinkId, String) {
    let link = accept(rig);
    assert_eq!(
        words(&rig.packet(link, observer_info(2))),
        format!("{}:LEADERINFO {}", link.0, Zxid(z(3, 0)))
    );
    let synchronized = words(&rig.packet(link, ack_epoch(2, zxid)));
    if !synchronized.is_empty() {
        assert_eq!(
            words(&rig.packet(link, ack(z(3, 0)))),
            format!("{}:UPTODATE {}", link.0, Zxid(-1))
        );
        assert_eq!(words(&rig.packet(link, ack(z(3, 0)))), "", "that of UPTODATE");
    }
    (link, synchronized)
}

/// Whom the actions dial.
fn dialled(actions: &[Action]) -> Option<(LinkId, ServerId, LearnerPort)> {
    actions.iter().find_map(|action| match action {
        Action::Connect { link, server, port } => Some((*link, *server, *port)),
        _ => None,
    })
}

#[test]
fn an_observer_hears_what_its_follower_has_delivered_and_in_that_order() {
    let (mut rig, leader) = follower(log(&[z(2, 1), z(2, 2)]));
    let (link, synchronized) = observer(&mut rig, z(2, 1));
    let at = |epoch, counter| Zxid(z(epoch, counter));
    assert_eq!(
        synchronized,
        format!(
            "{0}:DIFF {1}; {0}:PROPOSAL {1}; {0}:COMMIT {1}; {0}:NEWLEADER {2}",
            link.0,
            at(2, 2),
            at(3, 0)
        )
    );
    let status = rig.peer.status();
    assert_eq!(status.learners.len(), 1);
    assert!(status.learners[0].id == ServerId(4) && !status.learners[0].voter);
    // What is on no disk here is not told, and what the leader says in between keeps its place.
    rig.slow_disk = true;
    for packet in [proposal(z(3, 1)), proposal(z(3, 2)), commit(z(3, 1))] {
        assert_eq!(words(&rig.packet(leader, packet)), "");
    }
    assert_eq!(words(&rig.packet(leader, packet(PacketType::SYNC, 0, None))), "");
    assert_eq!(words(&rig.packet(leader, packet(PacketType::REVALIDATE, -1, None))), "");
    assert_eq!(words(&rig.packet(leader, commit(z(3, 2)))), "");
    let came = words(&rig.sync());
    let (first, second) = (at(3, 1), at(3, 2));
    assert_eq!(
        came,
        format!(
            "{0}:ACK {first}; {0}:ACK {second}; deliver {first}; {1}:INFORM {first}; pass {0}:SYNC; \
             pass {0}:REVALIDATE; deliver {second}; {1}:INFORM {second}",
            leader.0, link.0
        )
    );
    // What it says is for the request layer.
    for packet_type in [PacketType::REQUEST, PacketType::REVALIDATE, PacketType::PING] {
        let passed = words(&rig.packet(link, packet(packet_type, -1, None)));
        assert_eq!(passed, format!("pass {}:{packet_type}", link.0));
    }
    assert!(words(&rig.wait(50)).contains(&format!("{}:PING", link.0)));
}

#[test]
fn only_observers_of_this_epoch_are_fed() {
    let (mut rig, _) = follower(log(&[z(2, 1)]));
    for first in
        [follower_info(2, 3), info(PacketType::OBSERVER_INFO, 2, 1), observer_info(4), ack(0)]
    {
        let link = accept(&mut rig);
        assert_eq!(
            words(&rig.packet(link, first.clone())),
            format!("{}:close", link.0),
            "{first:?}"
        );
    }
    // Nor who does not keep to the order, or acknowledges what it has no say in.
    let link = accept(&mut rig);
    rig.packet(link, observer_info(2));
    assert_eq!(words(&rig.packet(link, ack(z(3, 0)))), format!("{}:close", link.0));
    let (link, _) = observer(&mut rig, z(2, 1));
    assert_eq!(words(&rig.packet(link, ack(z(3, 1)))), format!("{}:close", link.0));
    assert!(rig.peer.serving().is_some() && rig.peer.status().learners.is_empty());
    // Who says nothing goes, and so does who comes back, on its old link.
    let silent = accept(&mut rig);
    let (first, _) = observer(&mut rig, z(2, 1));
    let second = accept(&mut rig);
    let came = words(&rig.packet(second, observer_info(2)));
    assert_eq!(came, format!("{}:close; {}:LEADERINFO {}", first.0, second.0, Zxid(z(3, 0))));
    let leader = LinkId(1);
    for _ in 0..12 {
        rig.packet(leader, packet(PacketType::PING, z(3, 0), None));
        rig.wait(100);
    }
    let came = words(&rig.step(Input::LinkDown { link: leader }));
    assert!(!came.contains(&format!("{}:close", silent.0)), "it was closed before: {came}");
}

#[test]
fn an_observer_that_is_ahead_is_waited_for_and_never_cut_back() {
    let (mut rig, leader) = follower(log(&[z(2, 1)]));
    let (link, synchronized) = observer(&mut rig, z(3, 2));
    assert_eq!(synchronized, "", "what it has is committed, and comes here, too");
    for zxid in [z(3, 1), z(3, 2)] {
        rig.packet(leader, proposal(zxid));
        rig.packet(leader, commit(zxid));
    }
    let (end, epoch) = (Zxid(z(3, 2)), Zxid(z(3, 0)));
    assert_eq!(words(&rig.wait(10)), format!("{0}:DIFF {end}; {0}:NEWLEADER {epoch}", link.0));
    // What it has of an earlier epoch and this one has not was never committed.
    let (mut rig, _) = follower(log(&[z(2, 1)]));
    let (link, synchronized) = observer(&mut rig, z(2, 7));
    let end = Zxid(z(2, 1));
    assert_eq!(synchronized, format!("{0}:TRUNC {end}; {0}:NEWLEADER {epoch}", link.0));
}

/// That of earlier epochs may be committed here, and not on this disk yet.
#[test]
fn what_is_committed_and_not_on_disk_is_not_cut_off_an_observer() {
    let mut rig = Rig::with(config(1), Disk::default());
    let actions = rig.vote(2, 2, 3);
    let leader = dialled(&actions).unwrap().0;
    rig.step(Input::LinkUp { link: leader });
    rig.packet(leader, leader_info(3));
    rig.packet(leader, packet(PacketType::DIFF, z(2, 1), None));
    rig.packet(leader, packet(PacketType::NEW_LEADER, z(3, 0), None));
    // Committed by others, and told with `NEWLEADER` acknowledged.
    rig.slow_disk = true;
    rig.packet(leader, proposal(z(3, 1)));
    rig.packet(leader, commit(z(3, 1)));
    rig.packet(leader, packet(PacketType::UP_TO_DATE, -1, None));
    assert_eq!(rig.peer.status().delivered, Zxid(0));
    let (link, synchronized) = observer(&mut rig, z(2, 9));
    assert_eq!(synchronized, "", "nothing is known yet");
    let came = words(&rig.sync());
    assert!(came.contains(&format!("deliver {}", Zxid(z(3, 1)))), "{came}");
    let came = words(&rig.wait(10));
    assert!(came.starts_with(&format!("{}:snapshot {}", link.0, Zxid(z(3, 1)))), "{came}");
}

#[test]
fn observers_go_with_the_role_of_their_follower() {
    let (mut rig, leader) = follower(log(&[z(2, 1)]));
    let (link, _) = observer(&mut rig, z(2, 1));
    let came = words(&rig.step(Input::LinkDown { link: leader }));
    assert!(came.contains(&format!("{}:close", link.0)) && came.contains("stop"), "{came}");
    // Who does not follow feeds nobody.
    let link = rig.peer.accept();
    assert_eq!(words(&rig.step(Input::ObserverLinkUp { link })), format!("{}:close", link.0));
    let (mut rig, _) = Rig::leading_with(|config| config.observer_masters = true);
    let link = rig.peer.accept();
    assert_eq!(words(&rig.step(Input::ObserverLinkUp { link })), format!("{}:close", link.0));
    // An end of an observer is no end of the role.
    let (mut rig, _) = follower(log(&[z(2, 1)]));
    let (link, _) = observer(&mut rig, z(2, 1));
    assert_eq!(words(&rig.step(Input::LinkDown { link })), "");
    assert!(rig.peer.serving().is_some());
}

/// Server 2 leads, as the observer hears.
fn told(rig: &mut Rig) -> Vec<Action> {
    let mut actions = Vec::new();
    for (from, state) in [(2, PeerState::Leading), (3, PeerState::Following)] {
        let notification = Notification {
            state,
            leader: ServerId(2),
            zxid: Zxid(z(2, 1)),
            round: 7,
            peer_epoch: 3,
            version: Notification::VERSION,
            config: Some(String::new()),
        };
        actions.extend(rig.step(Input::Notification { from: ServerId(from), notification }));
    }
    actions
}

/// Until the next dial, in this time: whom.
fn next_dial(rig: &mut Rig, within_ms: i64) -> (LinkId, ServerId, LearnerPort) {
    for _ in 0..within_ms / 10 {
        if let Some(dial) = dialled(&rig.wait(10)) {
            return dial;
        }
    }
    panic!("nobody is dialled within {within_ms} ms");
}

#[test]
fn an_observer_goes_from_follower_to_follower_and_to_the_leader_in_the_end() {
    let mut rig = Rig::with(config(4), Disk::default());
    let actions = told(&mut rig);
    let (mut link, first, port) = dialled(&actions).expect("it dials a follower");
    assert_eq!(port, LearnerPort::ObserverMaster);
    assert!([1, 3].contains(&first.0), "not the leader: {first}");
    let mut met = vec![first];
    let begin_ms = rig.now_ms;
    for round in 0.. {
        // One refuses, the other hangs up when it hears who it is; and once nobody says anything.
        if round % 2 == 1 {
            rig.step(Input::LinkUp { link });
        }
        if round == 3 {
            assert_eq!(words(&rig.wait(510)), format!("{}:close", link.0));
        } else {
            assert_eq!(words(&rig.step(Input::LinkDown { link })), "");
        }
        let (next, server, port) = next_dial(&mut rig, 200);
        link = next;
        if port == LearnerPort::Quorum {
            assert_eq!(server, ServerId(2));
            break;
        }
        assert_ne!(Some(&server), met.last(), "they take turns");
        met.push(server);
    }
    // syncLimit, and a little.
    let took_ms = rig.now_ms - begin_ms;
    assert!((500..1500).contains(&took_ms) && met.len() > 3, "{took_ms} ms: {met:?}");
    assert_eq!(rig.peer.status().learner_master, Some(ServerId(2)));
}

fn served(rig: &mut Rig, link: LinkId, method: PacketType, zxid: i64) -> String {
    rig.step(Input::LinkUp { link });
    rig.packet(link, leader_info(3));
    let came = words(&rig.packet(link, packet(method, zxid, None)));
    if !came.is_empty() {
        return came;
    }
    let came = words(&rig.packet(link, packet(PacketType::NEW_LEADER, z(3, 0), None)));
    if came.contains("close") {
        return came;
    }
    words(&rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None)))
}

/// One of upstream's followers truncates observers that are ahead of it.
#[test]
fn a_follower_that_is_late_takes_nothing_from_an_observer() {
    let mut rig = Rig::with(config(4), log(&[z(2, 1)]));
    let actions = told(&mut rig);
    let (link, first, _) = dialled(&actions).unwrap();
    assert!(served(&mut rig, link, PacketType::DIFF, z(2, 1)).contains("serve"));
    assert_eq!(rig.peer.status().learner_master, Some(first));
    for zxid in [z(3, 1), z(3, 2)] {
        let inform = packet(PacketType::INFORM, zxid, Some(Bytes::from_static(b"t")));
        assert_eq!(words(&rig.packet(link, inform)), format!("deliver {}", Zxid(zxid)));
    }
    rig.step(Input::LinkDown { link });
    let mut actions = told(&mut rig);
    actions.extend(rig.wait(50));
    let (link, second, _) = dialled(&actions).expect("it dials the next one");
    assert_ne!(first, second);
    let came = served(&mut rig, link, PacketType::TRUNC, z(3, 1));
    assert!(came.contains("close") && !came.contains("halt"), "{came}");
    assert_eq!(rig.peer.status().last_logged, Zxid(z(3, 2)));
    // The leader itself is believed.
    let mut rig = Rig::with(PeerConfig { observer_masters: false, ..config(4) }, log(&[z(2, 1)]));
    let actions = told(&mut rig);
    let (link, leader, port) = dialled(&actions).unwrap();
    assert_eq!((leader, port), (ServerId(2), LearnerPort::Quorum));
    assert!(served(&mut rig, link, PacketType::DIFF, z(2, 1)).contains("serve"));
    let inform = packet(PacketType::INFORM, z(3, 1), Some(Bytes::from_static(b"t")));
    rig.packet(link, inform);
    rig.step(Input::LinkDown { link });
    let mut actions = told(&mut rig);
    actions.extend(rig.wait(50));
    let (link, ..) = dialled(&actions).unwrap();
    assert!(served(&mut rig, link, PacketType::TRUNC, z(2, 1)).contains("halt"));
}

#[test]
fn an_observer_waits_before_it_asks_and_before_it_dials() {
    let delays = PeerConfig {
        observer_masters: false,
        reconnect_delay_ms: 400,
        election_delay_ms: 400,
        ..config(4)
    };
    let mut rig = Rig::with(delays, Disk::default());
    let began_ms = rig.now_ms;
    assert_eq!(dialled(&told(&mut rig)), None, "it waits first");
    let (link, ..) = next_dial(&mut rig, 400);
    assert!(rig.now_ms > began_ms);
    assert!(served(&mut rig, link, PacketType::DIFF, 0).contains("serve"));
    let asks =
        |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Notify { .. }));
    let lost = rig.step(Input::LinkDown { link });
    assert!(!asks(&lost), "{lost:?}");
    let waited = (0..40).take_while(|_| !asks(&rig.wait(10))).count();
    assert!((1..40).contains(&waited), "{waited}");
}
