//! Against what an ensemble of Apache ZooKeeper 3.9.5 said (`zk-proto/testdata`).

use std::collections::BTreeMap;

use bytes::Bytes;
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{Record, ServerId, Zxid};
use zk_testkit::vectors;
use zk_zab::{Action, Input, LinkId, Members};

use crate::disk::Disk;
use crate::rig::{Rig, words};

/// The recorded packets, by the names that the file gives them.
struct Recorded(BTreeMap<String, Bytes>);

impl Recorded {
    fn read() -> Self {
        let path = format!("{}/../zk-proto/testdata/quorum.txt", env!("CARGO_MANIFEST_DIR"));
        let vectors = vectors::read(path).into_iter();
        Self(vectors.map(|vector| (vector.name, vector.bytes)).collect())
    }

    fn bytes(&self, name: &str) -> &Bytes {
        self.0.get(name).unwrap_or_else(|| panic!("no {name:?} was recorded"))
    }

    fn leader_said(&self, name: &str) -> QuorumPacket {
        let name = format!("{name}, leader to learner");
        QuorumPacket::decode(self.bytes(&name)).expect("a packet")
    }

    fn learner_said(&self, name: &str) -> QuorumPacket {
        let name = format!("{name}, learner to leader");
        QuorumPacket::decode(self.bytes(&name)).expect("a packet")
    }

    /// The ensemble that was recorded.
    fn members(&self) -> Members {
        let text = self.leader_said("NEWLEADER").data.expect("the configuration");
        let text = String::from_utf8(text.to_vec()).expect("text");
        let (text, version) = text.rsplit_once("version=").expect("a version");
        assert_eq!(version, "100000000");
        Members {
            voters: [1, 2, 3].map(ServerId).into(),
            observers: [4].map(ServerId).into(),
            text: text.to_owned(),
            ..Members::default()
        }
    }
}

/// The one packet that is sent.
fn sent(actions: &[Action]) -> QuorumPacket {
    let packets: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Send { packet, .. } => Some(packet.clone()),
            _ => None,
        })
        .collect();
    let [packet] = packets.as_slice() else { panic!("{}", words(actions)) };
    packet.clone()
}

fn all_sent(actions: &[Action]) -> Vec<QuorumPacket> {
    let packet = |action: &Action| match action {
        Action::Send { packet, .. } => Some(packet.clone()),
        _ => None,
    };
    actions.iter().filter_map(packet).collect()
}

/// Connects a learner that has elected server 2.
fn connect(rig: &mut Rig, voters: &[i64]) -> (LinkId, Vec<Action>) {
    let mut actions = Vec::new();
    for from in voters {
        actions.extend(rig.vote(*from, 2, 3));
    }
    let link = actions.iter().find_map(|action| match action {
        Action::Connect { link, .. } => Some(*link),
        _ => None,
    });
    let link = link.expect("it dials");
    let actions = rig.step(Input::LinkUp { link });
    (link, actions)
}

#[test]
fn a_follower_answers_an_apache_leader_as_an_apache_follower_does() {
    let recorded = Recorded::read();
    let mut rig = Rig::new(1, recorded.members(), Disk::default());
    let (link, actions) = connect(&mut rig, &[2]);
    assert_eq!(sent(&actions), recorded.learner_said("FOLLOWERINFO"));
    let actions = rig.packet(link, recorded.leader_said("LEADERINFO"));
    assert_eq!(sent(&actions), recorded.learner_said("ACKEPOCH"));
    let actions = rig.packet(link, recorded.leader_said("DIFF"));
    assert_eq!(words(&actions), "");
    let actions = rig.packet(link, recorded.leader_said("NEWLEADER"));
    assert_eq!(sent(&actions), recorded.learner_said("ACK"));
    let actions = rig.packet(link, recorded.leader_said("UPTODATE"));
    assert_eq!(sent(&actions), recorded.learner_said("ACK"));
    assert_eq!(words(&actions), "1:ACK 0x100000000; serve");
    let actions = rig.packet(link, recorded.leader_said("PING"));
    assert_eq!(words(&actions), "pass 1:PING");

    let proposal = recorded.leader_said("PROPOSAL createSession");
    let actions = rig.packet(link, proposal.clone());
    assert_eq!(words(&actions), "1:ACK 0x100000001");
    let actions = rig.packet(link, recorded.leader_said("COMMIT"));
    let txn = proposal.data.unwrap();
    assert_eq!(actions, [Action::Deliver { zxid: Zxid(0x1_0000_0001), txn }]);
    let actions = rig.packet(link, recorded.leader_said("PROPOSAL create"));
    assert_eq!(words(&actions), "1:ACK 0x100000002");
    assert_eq!(words(&rig.packet(link, recorded.leader_said("SYNC"))), "pass 1:SYNC");
    assert_eq!(words(&rig.packet(link, recorded.leader_said("REVALIDATE"))), "pass 1:REVALIDATE");
    // One is missing in the file between these two.
    let actions = rig.packet(link, recorded.leader_said("PROPOSAL setData"));
    assert!(words(&actions).starts_with("1:close; stop"), "{}", words(&actions));
}

#[test]
fn an_observer_answers_an_apache_leader_as_an_apache_observer_does() {
    let recorded = Recorded::read();
    let mut rig = Rig::new(4, recorded.members(), Disk::default());
    // An observer needs a quorum that says that it has a leader.
    let mut actions = Vec::new();
    for (from, state) in
        [(1, zk_proto::quorum::PeerState::Following), (2, zk_proto::quorum::PeerState::Leading)]
    {
        let notification = zk_proto::quorum::Notification {
            state,
            leader: ServerId(2),
            zxid: Zxid(0),
            round: 1,
            peer_epoch: 1,
            version: 2,
            config: Some(String::new()),
        };
        actions.extend(rig.step(Input::Notification { from: ServerId(from), notification }));
    }
    let link = LinkId(1);
    assert_eq!(words(&actions), "connect 2");
    let actions = rig.step(Input::LinkUp { link });
    assert_eq!(sent(&actions), recorded.learner_said("OBSERVERINFO"));
    let actions = rig.packet(link, recorded.leader_said("LEADERINFO"));
    assert_eq!(sent(&actions), recorded.learner_said("ACKEPOCH"));
    rig.packet(link, recorded.leader_said("DIFF"));
    let actions = rig.packet(link, recorded.leader_said("NEWLEADER"));
    assert_eq!(sent(&actions), recorded.learner_said("ACK"));
    let actions = rig.packet(link, recorded.leader_said("UPTODATE"));
    assert_eq!(words(&actions), "1:ACK 0x100000000; serve");
    for (name, zxid) in [("INFORM createSession", 1), ("INFORM create", 2)] {
        let inform = recorded.leader_said(name);
        let actions = rig.packet(link, inform.clone());
        let zxid = Zxid(0x1_0000_0000 + zxid);
        assert_eq!(actions, [Action::Deliver { zxid, txn: inform.data.unwrap() }]);
    }
}

#[test]
fn an_apache_learner_hears_from_this_leader_what_it_heard_from_an_apache_leader() {
    let recorded = Recorded::read();
    let mut rig = Rig::elected(2, recorded.members(), Disk::default(), 1, 3);
    let follower = rig.accept();
    let actions = rig.packet(follower, recorded.learner_said("FOLLOWERINFO"));
    assert_eq!(sent(&actions), recorded.leader_said("LEADERINFO"));
    let actions = rig.packet(follower, recorded.learner_said("ACKEPOCH"));
    let expected = [recorded.leader_said("DIFF"), recorded.leader_said("NEWLEADER")];
    assert_eq!(all_sent(&actions), expected);
    let actions = rig.packet(follower, recorded.learner_said("ACK"));
    assert_eq!(words(&actions), "serve; 1:UPTODATE 0xffffffffffffffff");
    assert_eq!(sent(&actions), recorded.leader_said("UPTODATE"));
    // Of UPTODATE.
    assert_eq!(words(&rig.packet(follower, recorded.learner_said("ACK"))), "");

    let observer = rig.accept();
    let actions = rig.packet(observer, recorded.learner_said("OBSERVERINFO"));
    assert_eq!(sent(&actions), recorded.leader_said("LEADERINFO"));
    let actions = rig.packet(observer, recorded.learner_said("ACKEPOCH"));
    assert_eq!(all_sent(&actions)[1], recorded.leader_said("NEWLEADER"));
    let actions = rig.packet(observer, recorded.learner_said("ACK"));
    assert_eq!(sent(&actions), recorded.leader_said("UPTODATE"));
    rig.packet(observer, recorded.learner_said("ACK"));

    let actions = rig.wait(60);
    assert_eq!(all_sent(&actions), [recorded.leader_said("PING"), recorded.leader_said("PING")]);
    assert_eq!(words(&rig.packet(follower, recorded.learner_said("PING"))), "pass 1:PING");

    for request in ["REQUEST create", "REVALIDATE", "REQUEST sync"] {
        let packet = recorded.learner_said(request);
        let actions = rig.packet(follower, packet.clone());
        assert_eq!(actions, [Action::Pass { link: follower, packet }]);
    }
    for (name, zxid) in [("createSession", 0x1_0000_0001), ("create", 0x1_0000_0002)] {
        let proposal = recorded.leader_said(&format!("PROPOSAL {name}"));
        let zxid = Zxid(zxid);
        let txn = proposal.data.clone().unwrap();
        let actions = rig.step(Input::Propose { zxid, txn });
        assert_eq!(sent(&actions), proposal);
        let ack =
            QuorumPacket { packet_type: PacketType::ACK, zxid, ..recorded.learner_said("ACK") };
        let actions = rig.packet(follower, ack);
        let inform = recorded.leader_said(&format!("INFORM {name}"));
        let commit = QuorumPacket { zxid, ..recorded.leader_said("COMMIT") };
        assert_eq!(all_sent(&actions), [commit, inform]);
        assert!(words(&actions).ends_with(&format!("deliver {zxid}")), "{}", words(&actions));
    }
}
