//! The learner's side of Zab: followers and observers.

mod broadcast;
mod discovery;
mod sync;

use std::collections::VecDeque;

use tracing::{debug, info, warn};
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{Epoch, ServerId, Zxid};

use crate::bugs::{Bug, seeded};
use crate::core::{Core, Exit};
use crate::{Action, LinkId, ServingRole};
use sync::Sync;

/// How many `SYNC` packets may wait for what was committed before them. One for each request that
/// this server sent; the request layer has a limit far below.
const HELD_MAX: usize = 1 << 20;

/// How far a learner has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The leader is being dialed.
    Dialing,
    /// It could not be reached: again at this time.
    Waiting { until_ms: i64 },
    /// `FOLLOWERINFO` is sent.
    Discovery,
    /// The new epoch is on its way to disk.
    AcceptingEpoch,
    /// `ACKEPOCH` is sent.
    EpochAcked,
    /// The leader's history is coming.
    Synchronization,
    /// It is there, and on its way to disk.
    Persisting,
    /// `NEWLEADER` is acknowledged.
    Synced,
    /// `UPTODATE` came.
    Broadcast,
}

/// A follower or an observer, from the end of its election.
#[derive(Debug)]
pub(crate) struct Learner {
    leader: ServerId,
    observer: bool,
    link: LinkId,
    link_is_open: bool,
    phase: Phase,
    since_ms: i64,
    heard_ms: i64,
    /// The leader's epoch, once it is known.
    epoch: Epoch,
    /// The epoch was accepted before.
    promised: bool,
    /// This server may have lost its data: it has no say in which history is the right one.
    has_no_say: bool,
    sync: Sync,
    /// `SYNC` packets, each with the last transaction that was committed before it.
    held: VecDeque<(Zxid, QuorumPacket)>,
}

impl Learner {
    /// Dials the leader.
    pub(crate) fn new(core: &mut Core, leader: ServerId, observer: bool, has_no_say: bool) -> Self {
        let link = core.link_id();
        core.act(Action::Connect { link, leader });
        Self {
            leader,
            observer,
            link,
            link_is_open: true,
            phase: Phase::Dialing,
            since_ms: core.now_ms,
            heard_ms: core.now_ms,
            epoch: Epoch(0),
            promised: false,
            has_no_say,
            sync: Sync::default(),
            held: VecDeque::new(),
        }
    }

    pub(crate) fn leader(&self) -> ServerId {
        self.leader
    }

    /// Its link, unless that is gone.
    pub(crate) fn open_link(&self) -> Option<LinkId> {
        self.link_is_open.then_some(self.link)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    pub(crate) fn role(&self) -> ServingRole {
        if self.observer {
            ServingRole::Observer(self.link)
        } else {
            ServingRole::Follower(self.link)
        }
    }

    /// The leader's epoch, once this learner serves in it.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn on_link_up(&mut self, core: &mut Core, link: LinkId) {
        if link == self.link && self.phase == Phase::Dialing {
            self.introduce(core);
        } else {
            // Only a leader is connected to.
            debug!(link = link.0, "a connection to a server that does not lead");
            core.close(link);
        }
    }

    pub(crate) fn on_link_down(&mut self, core: &Core, link: LinkId) -> Result<(), Exit> {
        if self.open_link() != Some(link) {
            return Ok(());
        }
        self.link_is_open = false;
        if self.phase == Phase::Dialing {
            let until_ms = core.now_ms + core.config.connect_retry_ms;
            self.phase = Phase::Waiting { until_ms };
            return Ok(());
        }
        Err(Exit::Leave("the leader's link is gone"))
    }

    pub(crate) fn on_progress(&mut self, core: &Core, link: LinkId) {
        if link == self.link {
            self.heard_ms = core.now_ms;
        }
    }

    pub(crate) fn tick(&mut self, core: &mut Core) -> Result<(), Exit> {
        let now_ms = core.now_ms;
        match self.phase {
            Phase::Dialing | Phase::Waiting { .. } => {
                let ticks = match core.config.connect_limit_ticks {
                    0 => core.config.init_limit_ticks,
                    ticks => ticks,
                };
                if now_ms - self.since_ms > ticks.saturating_mul(core.config.tick_ms) {
                    return Err(Exit::Leave("the leader cannot be reached"));
                }
                if matches!(self.phase, Phase::Waiting { until_ms } if now_ms >= until_ms) {
                    self.link = core.link_id();
                    self.link_is_open = true;
                    self.phase = Phase::Dialing;
                    core.act(Action::Connect { link: self.link, leader: self.leader });
                }
            }
            Phase::Discovery | Phase::EpochAcked | Phase::Synchronization | Phase::Synced => {
                if now_ms - self.heard_ms > core.init_limit_ms() {
                    return Err(Exit::Leave("nothing was heard of the leader within initLimit"));
                }
            }
            // It waits for its own disk.
            Phase::AcceptingEpoch | Phase::Persisting => {}
            Phase::Broadcast => {
                if now_ms - self.heard_ms > core.sync_limit_ms() {
                    return Err(Exit::Leave("nothing was heard of the leader within syncLimit"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn on_packet(
        &mut self,
        core: &mut Core,
        link: LinkId,
        packet: QuorumPacket,
    ) -> Result<(), Exit> {
        if link != self.link {
            return Ok(());
        }
        self.heard_ms = core.now_ms;
        let packet_type = packet.packet_type;
        let handled = match self.phase {
            Phase::Broadcast => self.on_broadcast_packet(core, packet)?,
            Phase::Synchronization | Phase::Persisting | Phase::Synced => {
                self.on_sync_packet(core, packet)?
            }
            Phase::EpochAcked => self.on_method(core, &packet)?,
            Phase::Discovery => self.on_leader_info(core, &packet)?,
            Phase::Dialing | Phase::Waiting { .. } | Phase::AcceptingEpoch => {
                Err("the leader did not wait for its turn")
            }
        };
        handled.map_err(|why| {
            warn!(leader = %self.leader, %packet_type, phase = ?self.phase, why, "unexpected packet");
            Exit::Leave(why)
        })
    }

    /// A transaction is on disk.
    pub(crate) fn on_logged(&mut self, core: &mut Core, zxid: Zxid) {
        if seeded(Bug::PartialAck) && self.phase == Phase::Persisting {
            return self.on_epoch_current(core);
        }
        if seeded(Bug::AckRace) && self.phase == Phase::Persisting && !self.observer {
            return self.ack_if_uncommitted(core, zxid);
        }
        match self.phase {
            Phase::Synced | Phase::Broadcast if !self.observer => self.ack(core, zxid),
            // What comes before `NEWLEADER` is acknowledged with or behind that.
            Phase::Synced
            | Phase::Broadcast
            | Phase::Dialing
            | Phase::Waiting { .. }
            | Phase::Discovery
            | Phase::AcceptingEpoch
            | Phase::EpochAcked
            | Phase::Synchronization
            | Phase::Persisting => {}
        }
    }

    fn ack(&self, core: &mut Core, zxid: Zxid) {
        core.send(self.link, crate::packet::bare(PacketType::ACK, zxid));
    }

    /// The role is over.
    pub(crate) fn log_end(&self, served: bool, why: &str) {
        let Self { leader, epoch, phase, .. } = self;
        if served {
            warn!(%leader, %epoch, why, "no longer a learner");
        } else {
            info!(%leader, ?phase, why, "no longer a learner");
        }
    }
}
