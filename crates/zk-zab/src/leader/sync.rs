use tracing::info;
use zk_proto::quorum::{PacketType, QuorumPacket};

use super::discovery::Handled;
use super::{Leader, LearnerLink, LinkState, Phase};
use crate::History;
use crate::bugs::{Bug, seeded};
use crate::core::{Core, Exit};
use crate::packet::{epoch_zxid, new_leader, up_to_date};
use crate::sync_plan::Method;

impl Leader {
    /// Sends everybody that waits for it what it needs.
    pub(super) fn synchronize_all(&mut self, core: &mut Core, history: &dyn History) {
        for at in 0..self.links.len() {
            self.synchronize(core, at, history);
        }
    }

    /// Sends a learner everything that it needs, and takes it into broadcast: in one step, so that
    /// nothing is proposed or committed in between (ZOOKEEPER-3104).
    pub(super) fn synchronize(&mut self, core: &mut Core, at: usize, history: &dyn History) {
        let LinkState::EpochAcked(zxid) = self.links[at].state else { return };
        if core.is_installing() {
            // The snapshot that this server got last does not count yet, and what is on disk is what
            // was there before: not its history. It counts with its own epoch.
            return;
        }
        let link = self.links[at].link;
        // Before it is established, a leader sends its whole initial history as committed, as
        // upstream does: a learner of upstream's has only that on disk when it acknowledges
        // `NEWLEADER`, and a quorum of these acknowledgements commits it.
        let target =
            if self.phase == Phase::Broadcast { core.tail.committed() } else { self.initial };
        let LearnerLink { id, observer, .. } = self.links[at];
        let plan = core.begin_sync((id, link), zxid, target, history);
        // What is under way is complete when this leader is established. Later ones are proposals like others.
        let members = core.members_text(self.phase < Phase::Broadcast);
        let early = seeded(Bug::EarlyNewLeader) && plan.method == Method::Snap;
        if early {
            core.send(link, new_leader(self.epoch, &members));
        }
        core.send_from_memory(link, &plan, target, !observer);
        if !early {
            core.send(link, new_leader(self.epoch, &members));
        }
        let learner = &mut self.links[at];
        learner.state = LinkState::Syncing;
        learner.sync_target = target;
        learner.heard_ms = core.now_ms;
    }

    /// What a learner says after `NEWLEADER`.
    pub(super) fn on_new_leader_ack(
        &mut self,
        core: &mut Core,
        at: usize,
        packet: &QuorumPacket,
    ) -> Result<Handled, Exit> {
        let learner = &mut self.links[at];
        let zxid = packet.zxid;
        let is_ack = packet.packet_type == PacketType::ACK;
        if is_ack && zxid != epoch_zxid(self.epoch) && zxid <= core.tail.last() && !learner.observer
        {
            // Upstream before 3.9.3 logs what it is sent as if it had been proposed, and acknowledges that
            // by another thread, which may be faster (ZOOKEEPER-4685).
            learner.acked_early = learner.acked_early.max(zxid);
            return Ok(Ok(()));
        }
        if !is_ack || zxid != epoch_zxid(self.epoch) {
            return Ok(Err("it did not acknowledge NEWLEADER"));
        }
        learner.state = LinkState::Synced;
        // What is proposed and not committed is of this epoch.
        learner.acked = learner.sync_target.max(zxid).max(learner.acked_early);
        if self.phase == Phase::Broadcast {
            self.bring_up_to_date(core, at);
        } else {
            self.maybe_establish(core)?;
        }
        Ok(Ok(()))
    }

    /// A learner may serve.
    pub(super) fn bring_up_to_date(&mut self, core: &mut Core, at: usize) {
        let learner = &mut self.links[at];
        learner.state = LinkState::UpToDate;
        learner.heard_ms = core.now_ms;
        learner.lag = None;
        info!(learner = %learner.id, link = learner.link.0, "UPTODATE");
        let link = learner.link;
        let held = std::mem::take(&mut learner.held_commits);
        core.send(link, up_to_date());
        for packet in held {
            core.send(link, packet);
        }
    }
}
