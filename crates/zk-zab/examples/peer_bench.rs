//! How long a leader and a follower take for a transaction, disk and network aside.
//!
//! `cargo run --release -p zk-zab --example peer_bench`

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::time::Instant;

use bytes::Bytes;
use zk_proto::quorum::{
    AckEpoch, LeaderInfo, LearnerInfo, Notification, PROTOCOL_VERSION, PacketType, PeerState,
    QuorumPacket,
};
use zk_proto::{Record, ServerId, Zxid};
use zk_zab::{Action, Durable, Input, LinkId, Members, NoHistory, Peer, PeerConfig, Token, Write};

const ROUNDS: i64 = 20_000;
/// How many proposals are in flight.
const BATCH: i64 = 64;

fn packet(packet_type: PacketType, zxid: i64, data: Option<Bytes>) -> QuorumPacket {
    QuorumPacket { packet_type, zxid: Zxid(zxid), data, authinfo: None }
}

/// Takes every action, and answers writes at once; the last token and how many actions there were.
fn drain(peer: &mut Peer) -> (Option<Token>, u64) {
    let (mut last, mut count) = (None, 0);
    while let Some(action) = peer.poll_action() {
        if let Action::Persist { token, write } = &action {
            last = Some(*token);
            if !matches!(write, Write::Append { .. }) {
                peer.step(0, Input::Persisted { token: *token }, &NoHistory);
            }
        }
        count += 1;
    }
    (last, count)
}

fn member(id: i64, vote_from: i64, leader: i64) -> Peer {
    let members = Members { voters: [1, 2, 3].map(ServerId).into(), ..Members::default() };
    let mut peer = Peer::member(PeerConfig::new(ServerId(id), members), Durable::default(), 0);
    let vote = |peer: &mut Peer, from: i64| {
        let notification = Notification {
            state: PeerState::Looking,
            leader: ServerId(leader),
            zxid: Zxid::ZERO,
            round: 1,
            peer_epoch: 0,
            version: 2,
            config: None,
        };
        peer.step(0, Input::Notification { from: ServerId(from), notification }, &NoHistory);
    };
    vote(&mut peer, vote_from);
    vote(&mut peer, if vote_from == 1 { 2 } else { 1 });
    vote(&mut peer, 3);
    drain(&mut peer);
    peer
}

fn leader() -> (Peer, [LinkId; 2]) {
    let mut peer = member(3, 1, 3);
    let links = [1, 2].map(|id| {
        let link = peer.accept();
        let info = LearnerInfo {
            server_id: ServerId(id),
            protocol_version: PROTOCOL_VERSION,
            config_version: 0,
        };
        peer.step(0, Input::LinkUp { link }, &NoHistory);
        for packet in [
            packet(PacketType::FOLLOWER_INFO, 0, Some(info.to_bytes())),
            packet(PacketType::ACK_EPOCH, 0, Some(AckEpoch { current_epoch: 0 }.to_bytes())),
            packet(PacketType::ACK, 1 << 32, None),
        ] {
            peer.step(0, Input::Packet { link, packet }, &NoHistory);
            drain(&mut peer);
        }
        link
    });
    assert!(peer.may_propose(), "{:?}", peer.status());
    (peer, links)
}

fn follower() -> (Peer, LinkId) {
    let mut peer = member(1, 2, 3);
    let link = LinkId(1);
    let info = LeaderInfo { protocol_version: PROTOCOL_VERSION };
    peer.step(0, Input::LinkUp { link }, &NoHistory);
    for packet in [
        packet(PacketType::LEADER_INFO, 1 << 32, Some(info.to_bytes())),
        packet(PacketType::DIFF, 0, None),
        packet(PacketType::NEW_LEADER, 1 << 32, None),
        packet(PacketType::UP_TO_DATE, -1, None),
    ] {
        peer.step(0, Input::Packet { link, packet }, &NoHistory);
        drain(&mut peer);
    }
    assert!(peer.serving().is_some(), "{:?}", peer.status());
    (peer, link)
}

fn report(what: &str, inputs: i64, actions: u64, start: Instant) {
    let ns = start.elapsed().as_nanos() as f64 / inputs as f64;
    let each = inputs as f64 / (ROUNDS * BATCH) as f64;
    println!("{what}: {ns:.0} ns an input, {each:.2} inputs a transaction, {actions} actions");
}

fn main() {
    let txn = Bytes::from(vec![7; 200]);
    let (mut peer, links) = leader();
    let (mut inputs, mut actions) = (0, 0);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let first = peer.last_proposed().0 + 1;
        for zxid in first..first + BATCH {
            peer.step(0, Input::Propose { zxid: Zxid(zxid), txn: txn.clone() }, &NoHistory);
        }
        let (token, count) = drain(&mut peer);
        let token = token.expect("writes");
        peer.step(0, Input::Persisted { token }, &NoHistory);
        actions += count;
        for link in links {
            for zxid in first..first + BATCH {
                let packet = packet(PacketType::ACK, zxid, None);
                peer.step(0, Input::Packet { link, packet }, &NoHistory);
            }
        }
        actions += drain(&mut peer).1;
        inputs += 3 * BATCH + 1;
    }
    report("leader of two followers", inputs, actions, start);

    let (mut peer, link) = follower();
    let (mut inputs, mut actions) = (0, 0);
    let mut next = (1 << 32) + 1;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for zxid in next..next + BATCH {
            let packet = packet(PacketType::PROPOSAL, zxid, Some(txn.clone()));
            peer.step(0, Input::Packet { link, packet }, &NoHistory);
        }
        let (token, count) = drain(&mut peer);
        let token = token.expect("writes");
        peer.step(0, Input::Persisted { token }, &NoHistory);
        actions += count;
        for zxid in next..next + BATCH {
            let packet = packet(PacketType::COMMIT, zxid, None);
            peer.step(0, Input::Packet { link, packet }, &NoHistory);
        }
        actions += drain(&mut peer).1;
        next += BATCH;
        inputs += 2 * BATCH + 1;
    }
    report("follower", inputs, actions, start);
}
