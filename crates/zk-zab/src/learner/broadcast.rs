use tracing::{error, warn};
use zk_proto::quorum::{PacketType, QuorumPacket};

use super::discovery::Handled;
use super::sync::follows;
use super::{HELD_MAX, Learner};
use crate::Action;
use crate::core::{Core, Exit};

impl Learner {
    /// A packet behind `UPTODATE`.
    pub(super) fn on_broadcast_packet(
        &mut self,
        core: &mut Core,
        packet: QuorumPacket,
    ) -> Result<Handled, Exit> {
        let link = self.link;
        match packet.packet_type {
            PacketType::PROPOSAL if !self.observer => {
                let Some(txn) = packet.data else { return Ok(Err("a proposal without data")) };
                if !follows(core.tail.last(), packet.zxid) {
                    warn!(zxid = %packet.zxid, after = %core.tail.last(), "a hole in the proposals");
                    return Ok(Err("a proposal is not the one after the last"));
                }
                core.append(packet.zxid, txn);
            }
            PacketType::COMMIT | PacketType::COMMIT_AND_ACTIVATE if !self.observer => {
                let next = core.tail.next_uncommitted().map(|(zxid, _)| *zxid);
                if next != Some(packet.zxid) {
                    warn!(zxid = %packet.zxid, ?next, "a commit out of order");
                    return Ok(Err("a commit is not of the first proposal"));
                }
                core.tail.commit_next();
                core.deliver();
            }
            PacketType::INFORM if self.observer => {
                let Some(txn) = packet.data else { return Ok(Err("a transaction without data")) };
                if !follows(core.tail.last(), packet.zxid) {
                    warn!(zxid = %packet.zxid, after = %core.tail.last(), "a hole in the history");
                    return Ok(Err("a transaction is not the one after the last"));
                }
                core.append(packet.zxid, txn);
                core.tail.commit_to(packet.zxid);
            }
            PacketType::PING | PacketType::REVALIDATE => core.act(Action::Pass { link, packet }),
            PacketType::SYNC => {
                if self.held.len() >= HELD_MAX {
                    return Ok(Err("more SYNC packets than requests"));
                }
                self.held.push_back((core.tail.committed(), packet));
                self.release(core);
            }
            PacketType::INFORM_AND_ACTIVATE => {
                error!("a reconfiguration, which this version does not know");
                return Ok(Err("a reconfiguration"));
            }
            _ => return Ok(Err("a packet that no leader sends")), // a peer's number
        }
        Ok(Ok(()))
    }

    /// Passes on what waited for transactions that are delivered now.
    pub(crate) fn release(&mut self, core: &mut Core) {
        while let Some((zxid, _)) = self.held.front()
            && *zxid <= core.tail.delivered()
            && let Some((_, packet)) = self.held.pop_front()
        {
            core.act(Action::Pass { link: self.link, packet });
        }
    }
}
