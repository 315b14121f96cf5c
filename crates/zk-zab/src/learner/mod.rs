//! The learner's side of Zab: followers and observers.

mod broadcast;
mod discovery;
mod master;
mod sync;

use std::collections::VecDeque;

use tracing::{debug, info, warn};
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{Epoch, ServerId, Zxid};

use crate::bugs::{Bug, seeded};
use crate::core::{Core, Exit};
use crate::rotation::jitter_ms;
use crate::{Action, History, LearnerPort, LearnerStatus, LinkId, ServingRole};
use master::ObserverMaster;
use sync::Sync;

/// How many `SYNC` and `REVALIDATE` packets may wait for what was committed before them. One for each
/// request that this server sent; the request layer has a limit far below.
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
    /// Who feeds it: the leader, or the follower that an observer is behind.
    master: ServerId,
    port: LearnerPort,
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
    /// A reconfiguration named the leader, which may hear of that later than this server.
    appointed: bool,
    sync: Sync,
    /// `SYNC` and `REVALIDATE` packets, each with the last transaction that was committed before it.
    held: VecDeque<(Zxid, QuorumPacket)>,
    /// The observers behind this follower.
    observers: ObserverMaster,
}

/// How soon to dial a leader again that a reconfiguration named, in ms.
const NAMED_RETRY_MS: i64 = 10;

impl Learner {
    /// Dials the leader, or an observer master.
    pub(crate) fn new(
        core: &mut Core,
        leader: ServerId,
        observer: bool,
        has_no_say: bool,
        appointed: bool,
    ) -> Self {
        let mut learner = Self {
            leader,
            master: leader,
            port: LearnerPort::Quorum,
            observer,
            link: LinkId(0), // none has this number
            link_is_open: false,
            phase: Phase::Dialing,
            since_ms: core.now_ms,
            heard_ms: core.now_ms,
            epoch: Epoch(0),
            promised: false,
            has_no_say,
            appointed,
            sync: Sync::default(),
            held: VecDeque::new(),
            observers: ObserverMaster::default(),
        };
        match learner.choose_master(core) {
            0 => learner.dial(core),
            delay_ms => learner.phase = Phase::Waiting { until_ms: core.now_ms + delay_ms },
        }
        learner
    }

    /// Decides whom to dial next: the leader; or, for an observer, the observer masters in turn, and
    /// the leader when none of them could be used for a while. Gives how long to wait before that, in ms.
    fn choose_master(&mut self, core: &mut Core) -> i64 {
        let turn = (self.observer && core.config.observer_masters)
            .then(|| {
                let voters = &core.config.members.voters;
                core.rotation.next(core.now_ms, core.config.id, self.leader, voters)
            })
            .flatten();
        let patience_ms = core.sync_limit_ms().min(core.init_limit_ms() / 2);
        let (master, port, may_wait) = match turn {
            Some(turn) if !(turn.is_round_over && turn.failing_ms > patience_ms) => {
                (turn.master, LearnerPort::ObserverMaster, turn.is_round_over)
            }
            Some(_) | None => (self.leader, LearnerPort::Quorum, self.observer),
        };
        (self.master, self.port) = (master, port);
        if may_wait { jitter_ms(core.id(), core.now_ms, core.config.reconnect_delay_ms) } else { 0 }
    }

    /// The last dial led nowhere.
    fn dial_again(&mut self, core: &mut Core) {
        let delay_ms = self.choose_master(core);
        // Who is named has been told as this server was, and leads in a moment.
        let retry_ms = if self.appointed { NAMED_RETRY_MS } else { i64::MAX };
        let until_ms = core.now_ms + core.config.connect_retry_ms.min(retry_ms) + delay_ms;
        self.phase = Phase::Waiting { until_ms };
    }

    fn dial(&mut self, core: &mut Core) {
        self.link = core.link_id();
        self.link_is_open = true;
        self.phase = Phase::Dialing;
        core.act(Action::Connect { link: self.link, server: self.master, port: self.port });
    }

    pub(crate) fn leader(&self) -> ServerId {
        self.leader
    }

    /// Who feeds it, if it is an observer.
    pub(crate) fn learner_master(&self) -> Option<ServerId> {
        self.observer.then_some(self.master)
    }

    /// The observers behind this follower.
    pub(crate) fn observers(&self) -> Vec<LearnerStatus> {
        self.observers.observers()
    }

    /// The links of observers, to be closed: the role is over.
    pub(crate) fn observer_links(&self) -> Vec<LinkId> {
        self.observers.links().collect()
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

    /// A link was accepted on the observer master port.
    pub(crate) fn on_observer_link_up(&mut self, core: &mut Core, link: LinkId) {
        if self.is_serving() && !self.observer && core.config.observer_masters {
            self.observers.on_link_up(core, link);
        } else {
            debug!(link = link.0, "an observer came to a server that feeds none");
            core.close(link);
        }
    }

    pub(crate) fn on_link_down(&mut self, core: &mut Core, link: LinkId) -> Result<(), Exit> {
        if self.open_link() != Some(link) {
            self.observers.on_link_down(link);
            return Ok(());
        }
        self.link_is_open = false;
        // Who does not feed observers yet, or does not lead yet, hangs up at once.
        let may_come = self.port == LearnerPort::ObserverMaster || self.appointed;
        let is_refused = self.phase == Phase::Discovery && may_come;
        if self.phase == Phase::Dialing || is_refused {
            self.dial_again(core);
            return Ok(());
        }
        Err(Exit::Leave("the leader's link is gone"))
    }

    pub(crate) fn on_progress(&mut self, core: &Core, link: LinkId) {
        if link == self.link {
            self.heard_ms = core.now_ms;
        } else {
            self.observers.on_progress(core, link);
        }
    }

    pub(crate) fn tick(&mut self, core: &mut Core, history: &dyn History) -> Result<(), Exit> {
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
                    self.dial(core);
                }
            }
            // A follower that feeds observers has an epoch, and says so at once.
            Phase::Discovery
                if self.port == LearnerPort::ObserverMaster
                    && now_ms - self.heard_ms > core.sync_limit_ms() =>
            {
                core.close(self.link);
                self.link_is_open = false;
                self.dial_again(core);
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
                self.observers.tick(core, history);
            }
        }
        Ok(())
    }

    pub(crate) fn on_packet(
        &mut self,
        core: &mut Core,
        link: LinkId,
        packet: QuorumPacket,
        history: &dyn History,
    ) -> Result<(), Exit> {
        if link != self.link {
            self.observers.on_packet(core, link, packet, history);
            return Ok(());
        }
        self.heard_ms = core.now_ms;
        let packet_type = packet.packet_type;
        let handled = match self.phase {
            Phase::Broadcast => self.on_broadcast_packet(core, packet),
            Phase::Synchronization | Phase::Persisting | Phase::Synced => {
                self.on_sync_packet(core, packet)
            }
            Phase::EpochAcked => self.on_method(core, &packet),
            Phase::Discovery => self.on_leader_info(core, &packet),
            Phase::Dialing | Phase::Waiting { .. } | Phase::AcceptingEpoch => {
                Ok(Err("the leader did not wait for its turn"))
            }
        };
        handled.map_err(|exit| self.excused(exit))?.map_err(|why| {
            warn!(leader = %self.leader, master = %self.master, %packet_type, phase = ?self.phase, why, "unexpected packet");
            Exit::Leave(why)
        })
    }

    /// That a leader does not have what is committed means that data are lost. One of upstream's followers
    /// may only be late: it truncates observers that are ahead of it.
    fn excused(&self, exit: Exit) -> Exit {
        match exit {
            Exit::Halt(_) if self.port == LearnerPort::ObserverMaster => {
                Exit::Leave("the observer master is behind this server")
            }
            Exit::Halt(_) | Exit::Leave(_) | Exit::Follow(_) => exit,
        }
    }

    /// Delivers what is committed and on disk, and tells the observers behind this server; what the leader
    /// said in between keeps its place.
    pub(crate) fn deliver(&mut self, core: &mut Core) {
        self.release(core);
        while let Some((zxid, txn)) = core.deliver_next() {
            self.observers.relay(core, zxid, &txn);
            self.release(core);
        }
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
