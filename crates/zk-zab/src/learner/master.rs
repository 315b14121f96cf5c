//! Observers behind a follower (ZOOKEEPER-3140).
//!
//! A follower that serves is a leader to observers, as far as they can tell: it names its leader's
//! epoch, brings them up to date from its own log, and tells them, in order, what it has delivered
//! itself. So an observer is never ahead of its follower. What observers ask for the request layer hands
//! on to the leader. Upstream keeps a ring of recent packets for them; here the log is that.

use bytes::Bytes;
use tracing::{debug, info, warn};
use zk_proto::quorum::{AckEpoch, PacketType, QuorumPacket};
use zk_proto::{Epoch, Record, ServerId, Zxid};

use crate::core::Core;
use crate::leader::{LEARNERS_MAX, STRANGERS_MAX, introduction};
use crate::packet::{
    bare, epoch_zxid, inform_and_activate, leader_info, new_leader, txn, up_to_date,
};
use crate::{Action, History, LearnerPhase, LearnerStatus, LinkId};

/// How far an observer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody knows whose link it is.
    New,
    /// `LEADERINFO` is sent.
    EpochSent,
    /// `ACKEPOCH` came, with this last zxid: it may be ahead of what is delivered here.
    Waiting(Zxid),
    /// The history and `NEWLEADER` are sent. From here on it hears of what is delivered.
    Syncing,
    /// `UPTODATE` is sent.
    UpToDate,
}

/// An observer's connection.
#[derive(Debug)]
struct ObserverLink {
    link: LinkId,
    state: State,
    /// Meaningless while it is [`State::New`].
    id: ServerId,
    acked: Zxid,
    since_ms: i64,
    heard_ms: i64,
}

/// `Err`: the link is to be closed, and why.
type Handled = Result<(), &'static str>;

/// What a follower has for the observers behind it.
#[derive(Debug, Default)]
pub(super) struct ObserverMaster {
    /// The leader's.
    epoch: Epoch,
    /// What was committed when this follower began to serve: all of the history before its epoch.
    initial: Zxid,
    links: Vec<ObserverLink>,
    /// Reconfigurations that are committed and not delivered, with the leaders that they name.
    activations: Vec<(Zxid, ServerId)>,
    next_ping_ms: i64,
}

impl ObserverMaster {
    /// Of a follower that begins to serve.
    pub(super) fn new(core: &Core, epoch: Epoch) -> Self {
        let initial = core.tail.committed();
        Self { epoch, initial, next_ping_ms: core.now_ms, ..Self::default() }
    }

    fn position(&self, link: LinkId) -> Option<usize> {
        self.links.iter().position(|observer| observer.link == link)
    }

    pub(super) fn on_link_up(&mut self, core: &mut Core, link: LinkId) {
        let strangers = self.links.iter().filter(|observer| observer.state == State::New).count();
        if strangers >= STRANGERS_MAX || self.links.len() >= LEARNERS_MAX {
            warn!(link = link.0, "too many connections of observers");
            core.close(link);
            return;
        }
        let now_ms = core.now_ms;
        self.links.push(ObserverLink {
            link,
            state: State::New,
            id: ServerId(0),
            acked: Zxid::ZERO,
            since_ms: now_ms,
            heard_ms: now_ms,
        });
    }

    /// Forgets a link that is gone; whether it was an observer's.
    pub(super) fn on_link_down(&mut self, link: LinkId) -> bool {
        let Some(at) = self.position(link) else { return false };
        let gone = self.links.remove(at);
        if gone.state != State::New {
            info!(observer = %gone.id, link = link.0, "an observer is gone");
        }
        true
    }

    pub(super) fn on_progress(&mut self, core: &Core, link: LinkId) {
        if let Some(at) = self.position(link) {
            self.links[at].heard_ms = core.now_ms;
        }
    }

    fn drop_link(&mut self, core: &mut Core, at: usize, why: &str) {
        let gone = self.links.remove(at);
        warn!(observer = %gone.id, link = gone.link.0, state = ?gone.state, why, "an observer's link is closed");
        core.close(gone.link);
    }

    pub(super) fn on_packet(
        &mut self,
        core: &mut Core,
        link: LinkId,
        packet: QuorumPacket,
        history: &dyn History,
    ) {
        let Some(at) = self.position(link) else { return };
        self.links[at].heard_ms = core.now_ms;
        let packet_type = packet.packet_type;
        let handled = match self.links[at].state {
            State::New => self.on_info(core, at, &packet),
            State::EpochSent => self.on_ack_epoch(core, at, &packet, history),
            State::Waiting(_) => Err("it did not wait for its turn"),
            State::Syncing => self.on_new_leader_ack(core, at, &packet),
            State::UpToDate => Self::on_broadcast_packet(core, link, packet),
        };
        if let Err(why) = handled
            && let Some(at) = self.position(link)
        {
            debug!(link = link.0, %packet_type, "unexpected packet");
            self.drop_link(core, at, why);
        }
    }

    /// An observer's first packet.
    fn on_info(&mut self, core: &mut Core, at: usize, packet: &QuorumPacket) -> Handled {
        let it = introduction(core, packet)?;
        it.check_config_version(core)?;
        if !it.observer {
            return Err("only observers are served on the observer master port");
        }
        if it.accepted_epoch > self.epoch {
            return Err("it has accepted a later epoch than this follower's leader has");
        }
        if let Some(other) =
            self.links.iter().position(|other| other.state != State::New && other.id == it.id)
        {
            // The link that this observer had before; or two servers have the same id.
            let link = self.links[at].link;
            self.drop_link(core, other, "the observer has come back on another link");
            return match self.position(link) {
                Some(at) => self.admit(core, at, it.id),
                None => Ok(()),
            };
        }
        self.admit(core, at, it.id)
    }

    fn admit(&mut self, core: &mut Core, at: usize, id: ServerId) -> Handled {
        let observer = &mut self.links[at];
        observer.id = id;
        observer.state = State::EpochSent;
        info!(observer = %id, link = observer.link.0, "an observer is here");
        core.send(observer.link, leader_info(self.epoch));
        Ok(())
    }

    fn on_ack_epoch(
        &mut self,
        core: &mut Core,
        at: usize,
        packet: &QuorumPacket,
        history: &dyn History,
    ) -> Handled {
        if packet.packet_type != PacketType::ACK_EPOCH {
            return Err("it did not acknowledge the epoch");
        }
        if !matches!(packet.data.as_ref().map(AckEpoch::decode), Some(Ok(_))) {
            return Err("its acknowledgement of the epoch cannot be read");
        }
        let zxid = packet.zxid.max(Zxid::ZERO);
        if zxid.epoch() > self.epoch {
            return Err("it has transactions of a later epoch than this follower's leader has");
        }
        self.links[at].state = State::Waiting(zxid);
        self.synchronize(core, at, history);
        Ok(())
    }

    /// Sends an observer everything that it needs, once it is known what that is.
    fn synchronize(&mut self, core: &mut Core, at: usize, history: &dyn History) {
        let State::Waiting(zxid) = self.links[at].state else { return };
        let target = core.tail.delivered();
        // What is committed is not to be truncated. An observer hears of transactions of this epoch when
        // they are committed: they come here, too. What it has of earlier ones, and the history that was
        // committed with this epoch has not, never was.
        let of_this_epoch = zxid.epoch() == self.epoch && zxid.counter() > 0;
        if zxid > target && (of_this_epoch || target < self.initial) {
            return;
        }
        let ObserverLink { id, link, .. } = self.links[at];
        let plan = core.begin_sync((id, link), zxid, target, history);
        core.send_from_memory(link, &plan, target, false);
        let members = core.members_text(false);
        core.send(link, new_leader(self.epoch, &members));
        let observer = &mut self.links[at];
        observer.state = State::Syncing;
        observer.heard_ms = core.now_ms;
    }

    fn on_new_leader_ack(&mut self, core: &mut Core, at: usize, packet: &QuorumPacket) -> Handled {
        if packet.packet_type != PacketType::ACK || packet.zxid != epoch_zxid(self.epoch) {
            return Err("it did not acknowledge NEWLEADER");
        }
        let observer = &mut self.links[at];
        observer.state = State::UpToDate;
        observer.acked = packet.zxid;
        info!(learner = %observer.id, link = observer.link.0, "UPTODATE");
        core.send(observer.link, up_to_date());
        Ok(())
    }

    /// What an observer that serves says.
    fn on_broadcast_packet(core: &mut Core, link: LinkId, packet: QuorumPacket) -> Handled {
        match packet.packet_type {
            // Of `UPTODATE`.
            PacketType::ACK if packet.zxid.counter() == 0 => Ok(()),
            PacketType::ACK => Err("an observer acknowledged a proposal"),
            PacketType::REQUEST | PacketType::REVALIDATE | PacketType::PING => {
                core.act(Action::Pass { link, packet });
                Ok(())
            }
            _ => Err("a packet that no learner sends"), // a peer's number
        }
    }

    /// A reconfiguration is committed.
    pub(super) fn note_activation(&mut self, zxid: Zxid, leader: ServerId) {
        self.activations.push((zxid, leader));
    }

    /// A transaction is delivered.
    pub(super) fn relay(&mut self, core: &mut Core, zxid: Zxid, bytes: &Bytes) {
        let activation = self.activations.first().filter(|(since, _)| *since <= zxid).copied();
        let packet = match activation {
            Some((since, leader)) => {
                self.activations.remove(0);
                debug_assert_eq!(since, zxid, "reconfigurations are delivered in order");
                inform_and_activate(zxid, leader, bytes)
            }
            None => txn(PacketType::INFORM, zxid, bytes),
        };
        for observer in &self.links {
            if matches!(observer.state, State::Syncing | State::UpToDate) {
                core.send(observer.link, packet.clone());
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, core: &mut Core, history: &dyn History) {
        let mut at = 0;
        while at < self.links.len() {
            if let Some(why) = overdue(core, &self.links[at]) {
                self.drop_link(core, at, why);
                continue;
            }
            self.synchronize(core, at, history);
            at += 1;
        }
        if core.now_ms < self.next_ping_ms {
            return;
        }
        self.next_ping_ms = core.now_ms + core.config.tick_ms / 2;
        let ping = bare(PacketType::PING, core.tail.delivered());
        for observer in &self.links {
            if observer.state == State::UpToDate {
                core.send(observer.link, ping.clone());
            }
        }
    }

    /// Every link, to be closed: the role is over.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.links.iter().map(|observer| observer.link)
    }

    pub(super) fn observers(&self) -> Vec<LearnerStatus> {
        let known = self.links.iter().filter(|observer| observer.state != State::New);
        let mut observers: Vec<LearnerStatus> = known
            .map(|observer| LearnerStatus {
                id: observer.id,
                link: observer.link,
                voter: false,
                phase: match observer.state {
                    State::New | State::EpochSent => LearnerPhase::Discovery,
                    State::Waiting(_) | State::Syncing => LearnerPhase::Synchronization,
                    State::UpToDate => LearnerPhase::Broadcast,
                },
                acked: observer.acked,
                heard_ms: observer.heard_ms,
            })
            .collect();
        observers.sort_by_key(|observer| observer.id);
        observers
    }
}

/// Why a link has to be closed, if so.
fn overdue(core: &Core, observer: &ObserverLink) -> Option<&'static str> {
    let (now_ms, init_limit_ms) = (core.now_ms, core.init_limit_ms());
    match observer.state {
        State::New => (now_ms - observer.since_ms > init_limit_ms)
            .then_some("it did not say whose it is within initLimit"),
        State::EpochSent | State::Syncing => (now_ms - observer.heard_ms > init_limit_ms)
            .then_some("nothing was heard within initLimit"),
        State::Waiting(_) => (now_ms - observer.heard_ms > init_limit_ms)
            .then_some("this follower did not get as far as the observer is within initLimit"),
        State::UpToDate => (now_ms - observer.heard_ms > core.sync_limit_ms())
            .then_some("nothing was heard within syncLimit"),
    }
}
