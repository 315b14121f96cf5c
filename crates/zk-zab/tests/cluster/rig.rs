//! One peer, to which a test says everything that the others would.

use std::fmt::Write as _;

use bytes::Bytes;
use zk_proto::quorum::{
    AckEpoch, LeaderInfo, LearnerInfo, Notification, PROTOCOL_VERSION, PacketType, PeerState,
    QuorumPacket,
};
use zk_proto::{Epoch, Record, ServerId, Zxid};
use zk_zab::{Action, Durable, Input, LinkId, Members, Peer, PeerConfig, Token, Write};

use crate::disk::{Disk, Queued};
use crate::harness::members;

pub(crate) struct Rig {
    pub(crate) peer: Peer,
    pub(crate) now_ms: i64,
    pub(crate) disk: Disk,
    /// Writes stay on their way until [`Rig::sync`].
    pub(crate) slow_disk: bool,
}

pub(crate) fn packet(packet_type: PacketType, zxid: i64, data: Option<Bytes>) -> QuorumPacket {
    QuorumPacket { packet_type, zxid: Zxid(zxid), data, authinfo: None }
}

pub(crate) fn info(packet_type: PacketType, accepted: i32, id: i64) -> QuorumPacket {
    let data = LearnerInfo {
        server_id: ServerId(id),
        protocol_version: PROTOCOL_VERSION,
        config_version: 0,
    };
    packet(packet_type, i64::from(accepted) << 32, Some(data.to_bytes()))
}

pub(crate) fn follower_info(accepted: i32, id: i64) -> QuorumPacket {
    info(PacketType::FOLLOWER_INFO, accepted, id)
}

pub(crate) fn leader_info(epoch: i32) -> QuorumPacket {
    let data = LeaderInfo { protocol_version: PROTOCOL_VERSION };
    packet(PacketType::LEADER_INFO, i64::from(epoch) << 32, Some(data.to_bytes()))
}

pub(crate) fn ack_epoch(current: i32, zxid: i64) -> QuorumPacket {
    packet(PacketType::ACK_EPOCH, zxid, Some(AckEpoch { current_epoch: current }.to_bytes()))
}

pub(crate) fn ack(zxid: i64) -> QuorumPacket {
    packet(PacketType::ACK, zxid, None)
}

pub(crate) fn z(epoch: i64, counter: i64) -> i64 {
    (epoch << 32) | counter
}

impl Rig {
    pub(crate) fn new(id: i64, members: Members, disk: Disk) -> Self {
        let config = PeerConfig { tick_ms: 100, ..PeerConfig::new(ServerId(id), members) };
        Self::with(config, disk)
    }

    pub(crate) fn with(config: PeerConfig, disk: Disk) -> Self {
        let durable: Durable = disk.recover();
        let mut rig =
            Self { peer: Peer::member(config, durable, 0), now_ms: 0, disk, slow_disk: false };
        rig.drain();
        rig
    }

    /// A peer of three servers that leads, as far as its election goes: it is the one with this id,
    /// has one vote, and another server refuses connections.
    pub(crate) fn elected(id: i64, members: Members, disk: Disk, voter: i64, dead: i64) -> Self {
        let mut rig = Self::new(id, members, disk);
        rig.vote(voter, id, dead);
        assert_eq!(rig.peer.status().state, PeerState::Leading);
        rig
    }

    /// `from` votes for `leader`; nobody else is there.
    pub(crate) fn vote(&mut self, from: i64, leader: i64, dead: i64) -> Vec<Action> {
        let status = self.peer.status();
        let (zxid, epoch) = if ServerId(leader) == status.id {
            (status.last_logged, status.current_epoch)
        } else {
            (Zxid(i64::MAX >> 8), Epoch(0x7fff))
        };
        let mut actions = self.step(Input::Reachable { server: ServerId(dead), reachable: false });
        let notification = Notification {
            state: PeerState::Looking,
            leader: ServerId(leader),
            zxid,
            round: self.peer.status().round,
            peer_epoch: i64::from(epoch.0),
            version: Notification::VERSION,
            config: Some(String::new()),
        };
        actions.extend(self.step(Input::Notification { from: ServerId(from), notification }));
        actions
    }

    /// A leader of three that is established with server 1, on the link that is returned.
    pub(crate) fn leading() -> (Self, LinkId) {
        Self::leading_with(|_| ())
    }

    /// The same, whose configuration is changed.
    pub(crate) fn leading_with(change: impl FnOnce(&mut PeerConfig)) -> (Self, LinkId) {
        let mut config = PeerConfig { tick_ms: 100, ..PeerConfig::new(ServerId(2), members(3, 0)) };
        change(&mut config);
        let mut rig = Self::with(config, Disk::default());
        let (link, _) = rig.lead();
        (rig, link)
    }

    /// Server 2 of three wins an election and is established with server 1, on the link that is returned, in
    /// this epoch.
    pub(crate) fn lead(&mut self) -> (LinkId, i32) {
        self.vote(1, 2, 3);
        let link = self.accept();
        self.packet(link, follower_info(0, 1));
        let epoch = self.peer.status().accepted_epoch.0;
        self.packet(link, ack_epoch(0, 0));
        self.packet(link, ack(z(i64::from(epoch), 0)));
        assert!(self.peer.may_propose());
        (link, epoch)
    }

    /// A follower of server 2, whose `LEADERINFO` it waits for on the link that is returned.
    pub(crate) fn following(disk: Disk) -> (Self, LinkId) {
        let mut rig = Self::new(1, members(3, 0), disk);
        let actions = rig.vote(2, 2, 3);
        let link = actions
            .iter()
            .find_map(|action| match action {
                Action::Connect { link, server: leader, .. } => {
                    assert_eq!(*leader, ServerId(2));
                    Some(*link)
                }
                _ => None,
            })
            .expect("it dials the leader");
        rig.step(Input::LinkUp { link });
        (rig, link)
    }

    /// A follower that serves in this epoch, having got nothing by its synchronization.
    pub(crate) fn serving(disk: Disk, epoch: i32) -> (Self, LinkId) {
        let (mut rig, link) = Self::following(disk);
        let last = rig.peer.status().last_logged.0;
        rig.packet(link, leader_info(epoch));
        rig.packet(link, packet(PacketType::DIFF, last, None));
        rig.packet(link, packet(PacketType::NEW_LEADER, z(i64::from(epoch), 0), None));
        rig.packet(link, packet(PacketType::UP_TO_DATE, -1, None));
        assert!(rig.peer.serving().is_some());
        (rig, link)
    }

    pub(crate) fn accept(&mut self) -> LinkId {
        let link = self.peer.accept();
        self.step(Input::LinkUp { link });
        link
    }

    pub(crate) fn packet(&mut self, link: LinkId, packet: QuorumPacket) -> Vec<Action> {
        self.step(Input::Packet { link, packet })
    }

    /// Everything that came of an input, but for writes.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Action> {
        self.peer.step(self.now_ms, input, &self.disk);
        self.drain()
    }

    pub(crate) fn wait(&mut self, ms: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            actions.extend(self.step(Input::Tick));
        }
        actions
    }

    fn drain(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        loop {
            while let Some(action) = self.peer.poll_action() {
                match action {
                    Action::Persist { token, write } => {
                        let state = match &write {
                            Write::InstallSnapshot { zxid, .. } => {
                                Some(vec![(*zxid, Bytes::from_static(b"all before"))])
                            }
                            _ => None,
                        };
                        self.disk.queue.push_back(Queued { token, write, state });
                    }
                    other => actions.push(other),
                }
            }
            if self.slow_disk || self.disk.queue.is_empty() {
                return actions;
            }
            let token = self.sync_all();
            self.peer.step(self.now_ms, Input::Persisted { token }, &self.disk);
        }
    }

    fn sync_all(&mut self) -> Token {
        let mut token = Token(0);
        while !self.disk.queue.is_empty() {
            token = self.disk.sync_one();
        }
        token
    }

    /// What is on its way gets to disk.
    pub(crate) fn sync(&mut self) -> Vec<Action> {
        if self.disk.queue.is_empty() {
            return Vec::new();
        }
        let token = self.sync_all();
        self.step(Input::Persisted { token })
    }
}

/// What a peer does, in words. Notifications are left out: elections have tests of their own.
pub(crate) fn words(actions: &[Action]) -> String {
    let mut words = String::new();
    for action in actions {
        match action {
            Action::Send { link, packet } => {
                let QuorumPacket { packet_type, zxid, .. } = packet;
                write!(words, "{}:{packet_type} {zxid}", link.0)
            }
            Action::Deliver { zxid, .. } => write!(words, "deliver {zxid}"),
            Action::Close { link } => write!(words, "{}:close", link.0),
            Action::Pass { link, packet } => {
                write!(words, "pass {}:{}", link.0, packet.packet_type)
            }
            Action::Serve { .. } => write!(words, "serve"),
            Action::StopServing { .. } => write!(words, "stop"),
            Action::Halt { .. } => write!(words, "halt"),
            Action::Connect { server: leader, .. } => write!(words, "connect {leader}"),
            Action::SendHistory { link, after, to } => {
                write!(words, "{}:history {after} {to}", link.0)
            }
            Action::SendSnapshot { link, to } => write!(words, "{}:snapshot {to}", link.0),
            Action::Propose { .. } => continue,
            Action::Activate { members } => write!(words, "activate {:x}", members.version),
            Action::SwitchTree { zxid, .. } => write!(words, "switch {zxid}"),
            Action::Notify { .. } => continue,
            Action::Persist { .. } => unreachable!("the rig takes them"),
        }
        .expect("a String");
        words.push_str("; ");
    }
    words.trim_end_matches("; ").to_owned()
}
