use tracing::info;
use zk_proto::Record;
use zk_proto::quorum::{LeaderInfo, PROTOCOL_VERSION, PacketType, QuorumPacket};

use super::{Learner, Phase};
use crate::core::{Core, Exit};
use crate::packet::{NONE, ack_epoch, learner_info};

/// `Err`: the link is to be closed, and why.
pub(super) type Handled = Result<(), &'static str>;

impl Learner {
    /// The leader is there.
    pub(super) fn introduce(&mut self, core: &mut Core) {
        let packet_type =
            if self.observer { PacketType::OBSERVER_INFO } else { PacketType::FOLLOWER_INFO };
        // The version of what is in force: a number that some leader gave it is only seen, and lost
        // with a restart, as upstream without reconfiguration has it.
        let version = core.config.members.version;
        let packet = learner_info(packet_type, core.accepted_epoch, core.id(), version);
        self.phase = Phase::Discovery;
        self.heard_ms = core.now_ms;
        core.send(self.link, packet);
    }

    /// The leader says in which epoch it leads.
    pub(super) fn on_leader_info(
        &mut self,
        core: &mut Core,
        packet: &QuorumPacket,
    ) -> Result<Handled, Exit> {
        if packet.packet_type != PacketType::LEADER_INFO {
            return Ok(Err("the leader did not propose an epoch"));
        }
        let version = packet.data.as_ref().map(LeaderInfo::decode);
        if !matches!(version, Some(Ok(info)) if info.protocol_version >= PROTOCOL_VERSION) {
            return Ok(Err("the leader speaks a protocol without epochs"));
        }
        self.epoch = packet.zxid.epoch();
        if self.epoch < core.accepted_epoch {
            return Ok(Err("the leader's epoch is earlier than one that was accepted"));
        }
        info!(leader = %self.leader, epoch = %self.epoch, accepted_epoch = %core.accepted_epoch,
            "the leader proposes an epoch");
        if self.epoch > core.accepted_epoch || core.promise_is_pending() {
            // One that is asked for a second time, because an earlier role did not see it done, says
            // as little as one from another leader.
            self.promised = self.epoch == core.accepted_epoch;
            self.phase = Phase::AcceptingEpoch;
            core.accept_epoch(self.epoch);
        } else {
            // It may have been accepted from another leader.
            self.acknowledge_epoch(core, NONE);
        }
        Ok(Ok(()))
    }

    /// The epoch is accepted, and that is on disk.
    pub(crate) fn on_epoch_accepted(&mut self, core: &mut Core) {
        if self.phase == Phase::AcceptingEpoch {
            // A server that may have lost its data is not to be counted either.
            let none = self.promised || self.has_no_say;
            self.acknowledge_epoch(core, if none { NONE } else { core.current_epoch.0 });
        }
    }

    fn acknowledge_epoch(&mut self, core: &mut Core, current_epoch: i32) {
        self.phase = Phase::EpochAcked;
        self.heard_ms = core.now_ms;
        core.send(self.link, ack_epoch(core.tail.last(), current_epoch));
    }
}
