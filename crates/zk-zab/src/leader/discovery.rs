use tracing::{debug, info, warn};
use zk_proto::quorum::{AckEpoch, LearnerInfo, PROTOCOL_VERSION, PacketType, QuorumPacket};
use zk_proto::{Epoch, Record, ServerId, Zxid};

use super::{GUESTS_MAX, Leader, LearnerLink, LinkState, Phase};
use crate::core::{Core, Exit};
use crate::packet::{NONE, epoch_zxid, leader_info};
use crate::reconfig::Next;
use crate::{History, Members, QuorumVerifier};

/// How far a learner's accepted epoch may be ahead of what is on disk here. No real one comes near: a
/// member accepts only what a leader with a quorum proposed. Whoever reaches the quorum port can claim
/// any; with the limit it takes 32,768 elections to use up all epochs.
const EPOCH_LEAD_MAX: i32 = 1 << 16;

/// How many ticks pass between two times that a leader makes way for a member that has accepted a later
/// epoch. Meanwhile such a member is left out, as upstream leaves it out until the next election:
/// somebody who claims to be a member that is away must not keep the others from serving.
const MAKE_WAY_TICKS: i64 = 20;

/// `Err`: the link is to be closed, and why.
pub(super) type Handled = Result<(), &'static str>;

/// Who a learner is, by its first packet.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) id: ServerId,
    pub(crate) observer: bool,
    pub(crate) accepted_epoch: Epoch,
    /// The version of the configuration that is in force where it comes from.
    pub(crate) config_version: i64,
}

impl Introduction {
    /// Refuses who knows better than this server who is in the ensemble.
    pub(crate) fn check_config_version(&self, core: &Core) -> Result<(), &'static str> {
        if self.config_version > core.config_version() {
            return Err("its configuration is newer than this server's");
        }
        Ok(())
    }
}

/// Reads a learner's first packet, and refuses who cannot be served here.
pub(crate) fn introduction(
    core: &Core,
    packet: &QuorumPacket,
) -> Result<Introduction, &'static str> {
    let observer = match packet.packet_type {
        PacketType::FOLLOWER_INFO => false,
        PacketType::OBSERVER_INFO => true,
        _ => return Err("its first packet does not say who it is"), // a peer's number
    };
    let Some(info) = packet.data.as_ref().and_then(LearnerInfo::decode_tolerantly) else {
        return Err("it has no id");
    };
    if info.protocol_version < PROTOCOL_VERSION {
        return Err("it speaks a protocol without epochs");
    }
    if info.server_id == core.id() {
        return Err("it has the id of this server: two servers have the same myid");
    }
    if info.server_id.0 < 0 {
        return Err("its id is negative");
    }
    // It has no vote. So an ensemble can grow server by server, with and without reconfiguration.
    if !core.is_member(info.server_id) {
        warn!(learner = %info.server_id, "a server that is not in the configuration follows");
    }
    let accepted_epoch = packet.zxid.epoch();
    let known = core.accepted_epoch.max(core.current_epoch);
    if accepted_epoch.0 < 0 || accepted_epoch.0.saturating_sub(known.0) > EPOCH_LEAD_MAX {
        return Err("the epoch that it accepted is impossible");
    }
    Ok(Introduction {
        id: info.server_id,
        observer,
        accepted_epoch,
        config_version: info.config_version,
    })
}

impl Leader {
    /// A learner's first packet.
    pub(super) fn on_info(
        &mut self,
        core: &mut Core,
        at: usize,
        packet: QuorumPacket,
        history: &dyn History,
    ) -> Result<Handled, Exit> {
        let introduction = match introduction(core, &packet) {
            Ok(introduction) => introduction,
            Err(why) => return Ok(Err(why)),
        };
        if core.activate_next(introduction.config_version) {
            return Err(Exit::Leave("the next configuration is in force"));
        }
        if let Err(why) = introduction.check_config_version(core) {
            return Ok(Err(why));
        }
        let Introduction { id, observer, accepted_epoch, .. } = introduction;
        let guests =
            self.links.iter().filter(|other| other.is_known() && !core.is_member(other.id));
        if !core.is_member(id) && guests.count() >= GUESTS_MAX {
            return Ok(Err("too many servers follow that are not in the configuration"));
        }
        let learner = &mut self.links[at];
        learner.id = id;
        learner.observer = observer;
        learner.accepted_epoch = accepted_epoch;
        if self.links.iter().any(|other| other.is_known() && other.id == id) {
            debug!(learner = %id, "a second link of a learner");
            let learner = &mut self.links[at];
            learner.state = LinkState::Duplicate(packet);
            learner.since_ms = core.now_ms;
            return Ok(Ok(()));
        }
        self.admit(core, at, history)?;
        Ok(Ok(()))
    }

    /// A second link of a learner waits for the end of the first one. If that is still heard of there
    /// are two servers with one id.
    pub(super) fn tick_duplicate(
        &mut self,
        core: &mut Core,
        at: usize,
        history: &dyn History,
    ) -> Result<(), Exit> {
        let LearnerLink { id, since_ms, link, .. } = self.links[at];
        let other = self.links.iter().position(|other| other.is_known() && other.id == id);
        let Some(other) = other else { return self.admit_duplicate(core, at, history) };
        if core.now_ms - since_ms <= core.config.tick_ms {
            return Ok(());
        }
        if self.links[other].heard_ms > since_ms {
            let why = "its id is that of a connected learner: do two servers have the same myid?";
            return self.drop_link(core, at, why, history);
        }
        debug!(learner = %id, link = link.0, "a learner's new link takes the old one's place");
        // That admits the new link.
        self.drop_link(core, other, "the learner has come back on another link", history)
    }

    pub(super) fn admit_duplicate(
        &mut self,
        core: &mut Core,
        at: usize,
        history: &dyn History,
    ) -> Result<(), Exit> {
        self.admit(core, at, history)
    }

    /// It is known whose link this is.
    fn admit(&mut self, core: &mut Core, at: usize, history: &dyn History) -> Result<(), Exit> {
        let learner = &mut self.links[at];
        learner.state = LinkState::Known;
        learner.heard_ms = core.now_ms;
        let LearnerLink { link, id, observer, accepted_epoch, .. } = *learner;
        info!(learner = %id, link = link.0, accepted_epoch = %accepted_epoch, observer, "a learner is here");
        if self.phase == Phase::Discovery {
            core.epoch_seen = core.epoch_seen.max(accepted_epoch);
            return self.maybe_propose_epoch(core, history);
        }
        if accepted_epoch > self.epoch && core.is_member(id) {
            // It refuses this epoch, and would refuse it from whoever leads next.
            warn!(learner = %id, accepted_epoch = %accepted_epoch, epoch = %self.epoch,
                "a learner has accepted a later epoch");
            let since_ms = core.made_way_ms.map(|ms| core.now_ms - ms);
            if since_ms.is_none_or(|ms| ms > MAKE_WAY_TICKS * core.config.tick_ms) {
                core.made_way_ms = Some(core.now_ms);
                core.epoch_seen = core.epoch_seen.max(accepted_epoch);
                return Err(Exit::Leave("a learner has accepted a later epoch"));
            }
        }
        self.send_epoch(core, at);
        // Whoever has accepted this epoch before does not count as accepting it now.
        let may_count = |link: &LearnerLink| link.epoch_acked || link.accepted_epoch < self.epoch;
        if self.phase == Phase::EpochAcks
            && !observer
            && accepted_epoch == self.epoch
            && !self.is_quorum(core, true, |link| link.is_known() && may_count(link))
        {
            return Err(Exit::Leave("a follower has accepted this epoch from somebody else"));
        }
        Ok(())
    }

    /// Once a quorum is there: an epoch that is later than all that were accepted.
    pub(crate) fn maybe_propose_epoch(
        &mut self,
        core: &mut Core,
        history: &dyn History,
    ) -> Result<(), Exit> {
        if self.phase != Phase::Discovery || !self.is_quorum(core, true, LearnerLink::is_known) {
            return Ok(());
        }
        let latest = core.accepted_epoch.max(core.current_epoch).max(core.epoch_seen);
        let Some(epoch) = latest.0.checked_add(1) else {
            return Err(Exit::Halt(format!("there is no epoch after {latest}")));
        };
        self.epoch = Epoch(epoch);
        self.enter(core, Phase::EpochAcks);
        info!(epoch = %self.epoch, "a new epoch is proposed");
        core.accept_epoch(self.epoch);
        for at in 0..self.links.len() {
            if self.links[at].state == LinkState::Known {
                self.send_epoch(core, at);
            }
        }
        self.maybe_synchronize(core, history)
    }

    fn send_epoch(&mut self, core: &mut Core, at: usize) {
        self.links[at].state = LinkState::EpochSent;
        core.send(self.links[at].link, leader_info(self.epoch));
    }

    /// A learner has accepted the epoch.
    pub(super) fn on_ack_epoch(
        &mut self,
        core: &mut Core,
        at: usize,
        packet: &QuorumPacket,
        history: &dyn History,
    ) -> Result<Handled, Exit> {
        if packet.packet_type != PacketType::ACK_EPOCH {
            return Ok(Err("it did not acknowledge the epoch"));
        }
        let Some(Ok(ack)) = packet.data.as_ref().map(AckEpoch::decode) else {
            return Ok(Err("its acknowledgement of the epoch cannot be read"));
        };
        // A server that may have lost its data says -1, and counts only with all others.
        let has_say = ack.current_epoch != NONE && packet.zxid >= Zxid::ZERO;
        let learner = &mut self.links[at];
        let newer =
            has_say && (Epoch(ack.current_epoch), packet.zxid) > (self.initial_epoch, self.initial);
        let voter = core.is_voter(learner.id);
        learner.epoch_acked = has_say && voter;
        learner.state = LinkState::EpochAcked(packet.zxid.max(Zxid::ZERO));
        if self.phase == Phase::EpochAcks {
            if voter && newer && core.has_weight_only_next(learner.id) {
                learner.ahead_in_next = true;
            } else if voter && newer && !core.has_weight(learner.id) {
                // It cannot lead. What a quorum does not have was never committed, and goes when that
                // has accepted the epoch; but those that have lost their data are no such quorum.
                learner.ahead = packet.zxid > Zxid::ZERO;
                info!(learner = %learner.id, epoch = ack.current_epoch, zxid = %packet.zxid,
                    own_epoch = %self.initial_epoch, own_zxid = %self.initial,
                    "the history of a follower without weight is more recent");
            } else if learner.epoch_acked && newer {
                info!(learner = %learner.id, epoch = ack.current_epoch, zxid = %packet.zxid,
                    own_epoch = %self.initial_epoch, own_zxid = %self.initial,
                    "a follower's history is more recent");
                return Err(Exit::Leave("a follower's history is more recent"));
            }
            self.maybe_synchronize(core, history)?;
        } else {
            self.synchronize(core, at, history);
        }
        Ok(Ok(()))
    }

    /// Whether nobody else can lead in the epoch. A quorum has promised so, of servers that have kept
    /// what they promised before; or every voter has, and none of them this epoch to somebody else.
    /// Either way the history of each has been compared, as far as it has one.
    fn is_epoch_accepted(&self, core: &Core) -> bool {
        let promises = |link: &LearnerLink| {
            matches!(link.state, LinkState::EpochAcked(_))
                && link.accepted_epoch < self.epoch
                && !link.ahead
        };
        self.accepted
            && (self.is_quorum(core, !self.lost_data, |link| link.epoch_acked)
                || self.is_everybody(core, promises))
    }

    /// Whether the reconfiguration under way may be committed, as far as those can say that have accepted the
    /// epoch: they will not acknowledge it to an earlier leader any more. While it is not committed nothing
    /// behind it is.
    fn may_be_in_force(&self, core: &Core, next: &Next) -> bool {
        let since = Zxid(next.members.version);
        let lacks = |server: &ServerId| {
            self.links.iter().any(|link| {
                let LinkState::EpochAcked(zxid) = link.state else { return false };
                link.id == *server && link.epoch_acked && zxid < since
            })
        };
        let may_have_it = |verifier: &QuorumVerifier| {
            verifier.is_quorum(verifier.voters().iter().copied().filter(|server| !lacks(server)))
        };
        // What no transaction has brought is an epoch's first configuration.
        since.counter() == 0 || may_have_it(&core.verifier) && may_have_it(&next.verifier)
    }

    /// Whether somebody has committed transactions that this server lacks, although it cannot know them from
    /// the configuration in force.
    fn is_behind_next(&self, core: &Core) -> bool {
        self.links.iter().any(|link| link.ahead_in_next)
            && core.next.as_ref().is_some_and(|next| self.may_be_in_force(core, next))
    }

    /// Once the epoch is accepted.
    pub(super) fn maybe_synchronize(
        &mut self,
        core: &mut Core,
        history: &dyn History,
    ) -> Result<(), Exit> {
        if self.phase != Phase::EpochAcks || !self.is_epoch_accepted(core) {
            return Ok(());
        }
        if self.is_behind_next(core) {
            // Others may show that it is not.
            let is_awaited = |link: &LearnerLink| {
                core.is_voter(link.id)
                    && matches!(link.state, LinkState::Known | LinkState::EpochSent)
            };
            if self.links.iter().any(is_awaited) {
                return Ok(());
            }
            return Err(Exit::Leave("the history of one that is to vote is more recent"));
        }
        self.enter(core, Phase::Synchronization);
        info!(epoch = %self.epoch, zxid = %self.initial, "the epoch is accepted by a quorum");
        if core.config_version() == 0 && core.next.is_none() {
            // Upstream gives an unnumbered configuration the zxid of its first NEWLEADER.
            let version = epoch_zxid(self.epoch).0;
            if core.config.reconfig_enabled {
                core.expect(Members { version, ..core.config.members.clone() }, Zxid::ZERO);
            } else {
                core.config_version_seen = version;
            }
        }
        core.set_current_epoch(self.epoch);
        self.synchronize_all(core, history);
        self.maybe_establish(core)
    }
}
