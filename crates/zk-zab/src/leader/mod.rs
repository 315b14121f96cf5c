//! The leader's side of Zab: discovery, synchronization and broadcast.

mod broadcast;
mod discovery;
mod sync;

use std::collections::BTreeSet;

use tracing::{debug, info, warn};
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{Epoch, ServerId, Zxid};

use crate::core::{Core, Exit};
use crate::packet::{bare, epoch_zxid};
use crate::{Action, History, LearnerPhase, LearnerStatus, LinkId, QuorumVerifier, ServingRole};

pub(crate) use discovery::introduction;

/// How many connections may be open that have not said yet whose they are. More than an ensemble has
/// members, so that members are never locked out by each other.
pub(crate) const STRANGERS_MAX: usize = 64;

/// How many learners there may be. Ids beyond 255 do not fit into session ids.
pub(crate) const LEARNERS_MAX: usize = 255;

/// How many of them may be in no configuration: members must not find their places taken by others.
pub(crate) const GUESTS_MAX: usize = 64;

/// How far a leader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It waits until a quorum has said which epochs it accepted.
    Discovery,
    /// It waits until a quorum has accepted the new epoch.
    EpochAcks,
    /// It waits until a quorum has its history.
    Synchronization,
    /// It is established.
    Broadcast,
}

/// How far a link has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LinkState {
    /// Nobody knows whose it is.
    New,
    /// Another link says that it is of the same learner; this one's first packet waits.
    Duplicate(QuorumPacket),
    /// It waits for an epoch.
    Known,
    /// `LEADERINFO` is sent.
    EpochSent,
    /// `ACKEPOCH` came, with the learner's last zxid.
    EpochAcked(Zxid),
    /// The history and `NEWLEADER` are sent. From here on it takes part in broadcast.
    Syncing,
    /// `NEWLEADER` is acknowledged.
    Synced,
    /// `UPTODATE` is sent.
    UpToDate,
}

/// The end of a leader in a reconfiguration.
#[derive(Debug, Clone, Copy)]
struct Deposed {
    since_ms: i64,
    /// Who leads now: its followers were told so. None of them was fit if that is this server.
    heir: ServerId,
}

/// A learner's connection.
#[derive(Debug)]
struct LearnerLink {
    link: LinkId,
    state: LinkState,
    /// Meaningless while it is [`LinkState::New`].
    id: ServerId,
    /// It takes `INFORM` instead of `PROPOSAL` and `COMMIT`.
    observer: bool,
    accepted_epoch: Epoch,
    /// Its `ACKEPOCH` counts.
    epoch_acked: bool,
    /// It has transactions that the leader lacks, but no weight.
    ahead: bool,
    /// It has transactions that the leader lacks, and votes in the next configuration only.
    ahead_in_next: bool,
    /// What it gets as committed before `NEWLEADER`.
    sync_target: Zxid,
    /// Everything up to here is on its disk.
    acked: Zxid,
    /// So it said before it acknowledged `NEWLEADER`; it counts from then on.
    acked_early: Zxid,
    /// What was committed since `NEWLEADER`, until `UPTODATE` is sent: see
    /// [`crate::PeerConfig::early_commits`].
    held_commits: Vec<QuorumPacket>,
    /// What was proposed at some moment and is not acknowledged, and when that was.
    lag: Option<(Zxid, i64)>,
    since_ms: i64,
    heard_ms: i64,
}

impl LearnerLink {
    fn is_known(&self) -> bool {
        match self.state {
            LinkState::New | LinkState::Duplicate(_) => false,
            LinkState::Known
            | LinkState::EpochSent
            | LinkState::EpochAcked(_)
            | LinkState::Syncing
            | LinkState::Synced
            | LinkState::UpToDate => true,
        }
    }

    /// Whether it gets what is proposed and committed now.
    fn takes_part(&self) -> bool {
        match self.state {
            LinkState::Syncing | LinkState::Synced | LinkState::UpToDate => true,
            LinkState::New
            | LinkState::Duplicate(_)
            | LinkState::Known
            | LinkState::EpochSent
            | LinkState::EpochAcked(_) => false,
        }
    }
}

/// A leader, from the end of its election.
#[derive(Debug)]
pub(crate) struct Leader {
    phase: Phase,
    phase_since_ms: i64,
    /// The epoch that it leads in, once there is one.
    epoch: Epoch,
    /// The last transaction that was logged when it began to lead: with everything before it, its
    /// initial history, which is committed once a quorum has it.
    initial: Zxid,
    /// Its epoch when it began to lead.
    initial_epoch: Epoch,
    /// Its own promise not to follow older leaders is on disk.
    accepted: bool,
    /// Its own history is on disk, as that of this epoch.
    synced: bool,
    /// It may have lost its data, and with them what it promised to others.
    lost_data: bool,
    /// A reconfiguration made somebody else the leader: nothing more is committed here, and its
    /// followers are about to leave.
    deposed: Option<Deposed>,
    last_proposed: Zxid,
    links: Vec<LearnerLink>,
    next_ping_ms: i64,
    /// It is a server on its own: there are no epochs.
    standalone: bool,
}

impl Leader {
    pub(crate) fn new(core: &Core, lost_data: bool) -> Self {
        Self {
            phase: Phase::Discovery,
            phase_since_ms: core.now_ms,
            epoch: Epoch(0),
            initial: core.tail.last(),
            initial_epoch: core.current_epoch,
            accepted: false,
            synced: false,
            lost_data,
            deposed: None,
            last_proposed: core.tail.last(),
            links: Vec::new(),
            next_ping_ms: core.now_ms,
            standalone: false,
        }
    }

    /// The leader of a quorum of one: established from the first moment.
    pub(crate) fn standalone(core: &Core) -> Self {
        Self {
            phase: Phase::Broadcast,
            accepted: true,
            synced: true,
            standalone: true,
            ..Self::new(core, false)
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    pub(crate) fn last_proposed(&self) -> Zxid {
        if self.standalone && self.last_proposed.counter() == u32::MAX {
            // A server on its own goes on in the next epoch, as upstream's does.
            return epoch_zxid(Epoch(self.last_proposed.epoch().0.saturating_add(1)));
        }
        self.last_proposed
    }

    /// Whether `counts` is true of a quorum of the voters, with or without the leader's `own` word. While a
    /// reconfiguration is under way that takes a quorum of each configuration: in the next one observers
    /// count that will vote, for they may not know yet that they will.
    fn is_quorum(&self, core: &Core, own: bool, counts: impl Fn(&LearnerLink) -> bool) -> bool {
        let own = own.then(|| core.id());
        let of = |verifier: &QuorumVerifier, links: &mut dyn Iterator<Item = &LearnerLink>| {
            verifier.contains_quorum(&links.map(|link| link.id).chain(own).collect())
        };
        let known = || self.links.iter().filter(|link| counts(link));
        of(&core.verifier, &mut known().filter(|link| !link.observer))
            && core.next.as_ref().is_none_or(|next| of(&next.verifier, &mut known()))
    }

    /// Whether `counts` is true of every voter but the leader.
    fn is_everybody(&self, core: &Core, counts: impl Fn(&LearnerLink) -> bool) -> bool {
        let all = self.links.iter().filter(|link| counts(link)).map(|link| link.id);
        let all: BTreeSet<ServerId> = all.chain([core.id()]).collect();
        core.verifier.voters().is_subset(&all)
            && core.next.as_ref().is_none_or(|next| next.members.voters.is_subset(&all))
    }

    fn position(&self, link: LinkId) -> Option<usize> {
        self.links.iter().position(|known| known.link == link)
    }

    /// A connection was accepted.
    pub(crate) fn on_link_up(&mut self, core: &mut Core, link: LinkId, since_ms: i64) {
        let strangers = self.links.iter().filter(|link| !link.is_known()).count();
        if strangers >= STRANGERS_MAX || self.links.len() >= STRANGERS_MAX + LEARNERS_MAX {
            warn!(link = link.0, links = self.links.len(), "too many connections of learners");
            core.close(link);
            return;
        }
        self.links.push(LearnerLink {
            link,
            state: LinkState::New,
            id: ServerId(0),
            observer: false,
            accepted_epoch: Epoch(0),
            epoch_acked: false,
            ahead: false,
            ahead_in_next: false,
            sync_target: Zxid::ZERO,
            acked: Zxid::ZERO,
            acked_early: Zxid::ZERO,
            held_commits: Vec::new(),
            lag: None,
            since_ms,
            heard_ms: core.now_ms,
        });
    }

    /// A link is gone.
    pub(crate) fn on_link_down(
        &mut self,
        core: &mut Core,
        link: LinkId,
        history: &dyn History,
    ) -> Result<(), Exit> {
        let Some(at) = self.position(link) else { return Ok(()) };
        let gone = self.links.remove(at);
        if !gone.is_known() {
            return Ok(());
        }
        info!(learner = %gone.id, link = link.0, "a learner's link is gone");
        self.after_loss(core, &gone, history)
    }

    /// Hangs up on a learner.
    fn drop_link(
        &mut self,
        core: &mut Core,
        at: usize,
        why: &'static str,
        history: &dyn History,
    ) -> Result<(), Exit> {
        let gone = self.links.remove(at);
        core.close(gone.link);
        if !gone.is_known() {
            warn!(link = gone.link.0, why, "a connection is closed");
            return Ok(());
        }
        warn!(learner = %gone.id, link = gone.link.0, why, "a learner's link is closed");
        self.after_loss(core, &gone, history)
    }

    fn after_loss(
        &mut self,
        core: &mut Core,
        gone: &LearnerLink,
        history: &dyn History,
    ) -> Result<(), Exit> {
        if let Some(at) = self
            .links
            .iter()
            .position(|link| matches!(&link.state, LinkState::Duplicate(_) if link.id == gone.id))
        {
            self.admit_duplicate(core, at, history)?;
        }
        if self.deposed.is_some() {
            // The others are still to be told: what is queued for them goes with their links.
            return if self.links.iter().any(|link| link.is_known() && !link.observer) {
                Ok(())
            } else {
                Err(self.leave(core, "a reconfiguration names another leader"))
            };
        }
        // Who has lost its leader's link looks for a quorum that follows that leader. There is none
        // any more, and will not be, if this was needed for it.
        if !gone.observer && !self.standalone && !self.is_quorum(core, true, LearnerLink::is_known)
        {
            return Err(Exit::Leave("too many followers are gone"));
        }
        Ok(())
    }

    /// The end: an election, unless a reconfiguration says who is next. What else this server voted for would
    /// call into question what it has told its followers.
    fn leave(&self, core: &Core, why: &'static str) -> Exit {
        match self.deposed {
            Some(Deposed { heir, .. }) if heir != core.id() => Exit::Follow(heir),
            Some(_) | None => Exit::Leave(why),
        }
    }

    /// A packet came.
    pub(crate) fn on_packet(
        &mut self,
        core: &mut Core,
        link: LinkId,
        packet: QuorumPacket,
        history: &dyn History,
    ) -> Result<(), Exit> {
        let Some(at) = self.position(link) else { return Ok(()) };
        let learner = &mut self.links[at];
        learner.heard_ms = core.now_ms;
        let packet_type = packet.packet_type;
        let handled = match &learner.state {
            LinkState::New => self.on_info(core, at, packet, history)?,
            LinkState::EpochSent => self.on_ack_epoch(core, at, &packet, history)?,
            LinkState::Syncing => self.on_new_leader_ack(core, at, &packet)?,
            // A follower acknowledges what is proposed as soon as it has acknowledged `NEWLEADER`,
            // and does not wait until it may serve.
            LinkState::Synced if packet_type == PacketType::ACK => {
                self.on_ack(core, at, packet.zxid)?
            }
            LinkState::UpToDate => self.on_broadcast_packet(core, at, packet)?,
            LinkState::Duplicate(_)
            | LinkState::Known
            | LinkState::EpochAcked(_)
            | LinkState::Synced => Err("it did not wait for its turn"),
        };
        match (handled, self.position(link)) {
            (Err(why), Some(at)) => {
                debug!(link = link.0, %packet_type, "unexpected packet");
                self.drop_link(core, at, why, history)
            }
            (Ok(()), _) | (Err(_), None) => Ok(()),
        }
    }

    /// A snapshot from a learner.
    pub(crate) fn on_snapshot(
        &mut self,
        core: &mut Core,
        link: LinkId,
        history: &dyn History,
    ) -> Result<(), Exit> {
        match self.position(link) {
            Some(at) => self.drop_link(core, at, "a learner sent a snapshot", history),
            None => Ok(()),
        }
    }

    /// A long transfer on a link goes on.
    pub(crate) fn on_progress(&mut self, core: &Core, link: LinkId) {
        if let Some(at) = self.position(link) {
            self.links[at].heard_ms = core.now_ms;
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, core: &mut Core, history: &dyn History) -> Result<(), Exit> {
        if self.standalone {
            return Ok(());
        }
        let now_ms = core.now_ms;
        if self.phase < Phase::Broadcast && now_ms - self.phase_since_ms > core.init_limit_ms() {
            return Err(Exit::Leave(match self.phase {
                Phase::Discovery => "no quorum of followers came within initLimit",
                Phase::EpochAcks => "no quorum accepted the epoch within initLimit",
                Phase::Synchronization | Phase::Broadcast => {
                    "no quorum was brought up to date within initLimit"
                }
            }));
        }
        let mut at = 0;
        while at < self.links.len() {
            let link = self.links[at].link;
            if let Some(why) = self.overdue(core, at) {
                self.drop_link(core, at, why, history)?;
            } else if matches!(self.links[at].state, LinkState::Duplicate(_)) {
                self.tick_duplicate(core, at, history)?;
            }
            // Links may be gone, this one or others.
            at = self.position(link).map_or(at, |position| position + 1);
        }
        if self.phase == Phase::Broadcast {
            self.tick_broadcast(core)?;
        }
        Ok(())
    }

    /// Why a link has to be closed, if so.
    fn overdue(&mut self, core: &Core, at: usize) -> Option<&'static str> {
        let now_ms = core.now_ms;
        let last_proposed = self.last_proposed;
        let learner = &mut self.links[at];
        match learner.state {
            LinkState::New => (now_ms - learner.since_ms > core.init_limit_ms())
                .then_some("it did not say whose it is within initLimit"),
            // It is the leader who is not ready.
            LinkState::Known | LinkState::EpochAcked(_) | LinkState::Synced => None,
            LinkState::Duplicate(_) => None,
            LinkState::EpochSent | LinkState::Syncing => (now_ms - learner.heard_ms
                > core.init_limit_ms())
            .then_some("nothing was heard within initLimit"),
            LinkState::UpToDate => {
                if learner.lag.is_some_and(|(zxid, _)| learner.acked >= zxid) {
                    learner.lag = None;
                }
                if !learner.observer && learner.lag.is_none() && learner.acked < last_proposed {
                    learner.lag = Some((last_proposed, now_ms));
                }
                let limit_ms = core.sync_limit_ms();
                if now_ms - learner.heard_ms > limit_ms {
                    Some("nothing was heard within syncLimit")
                } else if learner.lag.is_some_and(|(_, since_ms)| now_ms - since_ms > limit_ms) {
                    Some("a proposal was not acknowledged within syncLimit")
                } else {
                    None
                }
            }
        }
    }

    /// One of this leader's writes of an epoch is on disk.
    pub(crate) fn on_epoch_accepted(
        &mut self,
        core: &mut Core,
        history: &dyn History,
    ) -> Result<(), Exit> {
        self.accepted = true;
        self.maybe_synchronize(core, history)
    }

    pub(crate) fn on_epoch_current(
        &mut self,
        core: &mut Core,
        history: &dyn History,
    ) -> Result<(), Exit> {
        self.synced = true;
        self.synchronize_all(core, history);
        self.maybe_establish(core)
    }

    fn enter(&mut self, core: &Core, phase: Phase) {
        self.phase = phase;
        self.phase_since_ms = core.now_ms;
    }

    /// A quorum has this leader's history: it is committed, and the leader is established.
    fn maybe_establish(&mut self, core: &mut Core) -> Result<(), Exit> {
        let synced = |link: &LearnerLink| link.state == LinkState::Synced;
        if self.phase != Phase::Synchronization
            || !self.synced
            || !self.is_quorum(core, true, synced)
        {
            return Ok(());
        }
        self.enter(core, Phase::Broadcast);
        self.last_proposed = epoch_zxid(self.epoch);
        core.tail.commit_to(self.initial);
        core.deliver();
        // A reconfiguration that was under way is complete with that.
        if let Some(next) = core.next.take() {
            self.designate(core, &next.members, Zxid::ZERO);
            core.activate(next.members);
        }
        info!(epoch = %self.epoch, zxid = %self.initial, "LEADING: the epoch is established");
        core.act(Action::Serve { role: ServingRole::Leader });
        for at in 0..self.links.len() {
            if self.links[at].state == LinkState::Synced {
                self.bring_up_to_date(core, at);
            }
        }
        self.next_ping_ms = core.now_ms + core.config.tick_ms / 2;
        Ok(())
    }

    /// Every link, to be closed: the role is over.
    pub(crate) fn into_links(self) -> impl Iterator<Item = LinkId> {
        self.links.into_iter().map(|link| link.link)
    }

    pub(crate) fn learners(&self, core: &Core) -> Vec<LearnerStatus> {
        let mut learners: Vec<LearnerStatus> = self
            .links
            .iter()
            .filter(|link| link.is_known())
            .map(|link| LearnerStatus {
                id: link.id,
                link: link.link,
                voter: !link.observer && core.verifier.is_voter(link.id),
                phase: match link.state {
                    LinkState::New
                    | LinkState::Duplicate(_)
                    | LinkState::Known
                    | LinkState::EpochSent => LearnerPhase::Discovery,
                    LinkState::EpochAcked(_) | LinkState::Syncing | LinkState::Synced => {
                        LearnerPhase::Synchronization
                    }
                    LinkState::UpToDate => LearnerPhase::Broadcast,
                },
                acked: link.acked,
                heard_ms: link.heard_ms,
            })
            .collect();
        learners.sort_by_key(|learner| learner.id);
        learners
    }

    /// Tells every learner that this leader is alive.
    fn ping(&mut self, core: &mut Core) {
        let packet = bare(PacketType::PING, self.last_proposed);
        for learner in &self.links {
            if learner.state == LinkState::UpToDate {
                core.send(learner.link, packet.clone());
            }
        }
    }
}
