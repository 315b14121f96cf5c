use bytes::Bytes;
use tracing::{info, warn};
use zk_proto::Zxid;
use zk_proto::quorum::{PacketType, QuorumPacket};

use super::discovery::Handled;
use super::{Leader, LearnerLink, LinkState};
use crate::Action;
use crate::core::{Core, Exit};
use crate::packet::{bare, txn as txn_packet};

/// Upstream steps down instead of proposing a transaction with the counter's last value.
const COUNTER_MAX: u32 = u32::MAX - 1;

impl Leader {
    fn counter_max(core: &Core) -> u32 {
        core.config.counter_limit.min(COUNTER_MAX)
    }

    /// Whether there is a zxid for another transaction.
    pub(crate) fn may_propose(&self, core: &Core) -> bool {
        self.is_serving()
            && (self.standalone || self.last_proposed.counter() < Self::counter_max(core))
    }

    /// A transaction to agree on.
    ///
    /// # Panics
    /// It is not the one after the last.
    pub(crate) fn propose(&mut self, core: &mut Core, zxid: Zxid, txn: Bytes) {
        assert!(self.is_serving(), "{zxid} proposed to a leader that does not serve");
        if self.standalone {
            assert!(zxid > self.last_proposed, "{zxid} proposed after {}", self.last_proposed);
        } else {
            assert!(
                zxid.0 == self.last_proposed.0 + 1 && self.may_propose(core),
                "{zxid} proposed after {}",
                self.last_proposed
            );
        }
        self.last_proposed = zxid;
        for learner in &self.links {
            if learner.takes_part() && !learner.observer {
                core.send(learner.link, txn_packet(PacketType::PROPOSAL, zxid, &txn));
            }
        }
        core.append(zxid, txn);
    }

    /// A follower has a proposal on disk. They are acknowledged one by one, in order. Upstream before
    /// 3.9.3 also acknowledges what it got before `NEWLEADER`.
    pub(super) fn on_ack(
        &mut self,
        core: &mut Core,
        at: usize,
        zxid: Zxid,
    ) -> Result<Handled, Exit> {
        let learner = &mut self.links[at];
        if zxid.counter() == 0 {
            // It acknowledges `UPTODATE`.
            return Ok(Ok(()));
        }
        if learner.observer {
            return Ok(Err("an observer acknowledged a proposal"));
        }
        if zxid <= learner.acked {
            return Ok(Ok(()));
        }
        let expected = Zxid(learner.acked.0 + 1);
        if zxid != expected || zxid > self.last_proposed {
            warn!(learner = %learner.id, zxid = %zxid, expected = %expected,
                last_proposed = %self.last_proposed, "an acknowledgement out of order");
            return Ok(Err("it acknowledged what it should not have"));
        }
        learner.acked = zxid;
        self.maybe_commit(core);
        Ok(Ok(()))
    }

    /// Commits what a quorum has on disk.
    pub(crate) fn maybe_commit(&mut self, core: &mut Core) {
        if !self.is_serving() {
            return;
        }
        let majority = core.verifier.voters().len() / 2;
        while let Some((zxid, bytes)) = core.tail.next_uncommitted() {
            let zxid = *zxid;
            let own = usize::from(core.persisted() >= zxid);
            let acks =
                self.links.iter().filter(|learner| learner.voter && learner.acked >= zxid).count();
            if own + acks <= majority && !(self.standalone && own == 1) {
                break;
            }
            let early = core.config.early_commits;
            for learner in &mut self.links {
                if !learner.takes_part() {
                    continue;
                }
                if !early && !learner.observer && learner.state != LinkState::UpToDate {
                    learner.held_commits.push(zxid);
                    continue;
                }
                let packet = if learner.observer {
                    txn_packet(PacketType::INFORM, zxid, bytes)
                } else {
                    bare(PacketType::COMMIT, zxid)
                };
                core.actions.push_back(Action::Send { link: learner.link, packet });
            }
            core.tail.commit_next();
        }
        core.deliver();
    }

    /// What a learner that serves says.
    pub(super) fn on_broadcast_packet(
        &mut self,
        core: &mut Core,
        at: usize,
        packet: QuorumPacket,
    ) -> Result<Handled, Exit> {
        let link = self.links[at].link;
        match packet.packet_type {
            PacketType::ACK => self.on_ack(core, at, packet.zxid),
            PacketType::REQUEST | PacketType::REVALIDATE | PacketType::PING => {
                core.act(Action::Pass { link, packet });
                Ok(Ok(()))
            }
            _ => Ok(Err("a packet that no learner sends")), // a peer's number
        }
    }

    pub(super) fn tick_broadcast(&mut self, core: &mut Core) -> Result<(), Exit> {
        let now_ms = core.now_ms;
        if now_ms >= self.next_ping_ms {
            self.next_ping_ms = now_ms + core.config.tick_ms / 2;
            self.ping(core);
        }
        if !self.is_quorum(core, true, LearnerLink::is_known) {
            return Err(Exit::Leave("too many followers are gone"));
        }
        let has_all = |link: &LearnerLink| {
            link.state == LinkState::UpToDate && link.acked >= core.tail.last()
        };
        if core.reluctant && self.is_quorum(core, false, has_all) {
            return Err(Exit::Leave("the disk is nearly full, and others can lead"));
        }
        if !self.may_propose(core) && core.tail.uncommitted_len() == 0 {
            info!(zxid = %self.last_proposed, "the counter of zxids is used up");
            return Err(Exit::Leave("the counter of zxids is used up"));
        }
        Ok(())
    }
}
