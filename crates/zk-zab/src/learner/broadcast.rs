use tracing::warn;
use zk_proto::ServerId;
use zk_proto::quorum::{PacketType, QuorumPacket};

use super::discovery::Handled;
use super::sync::follows;
use super::{HELD_MAX, Learner};
use crate::core::{Core, Exit};
use crate::packet::designated_leader;
use crate::reconfig::{keeps_leader, members_in};
use crate::{Action, Members};

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
                core.note_proposal(packet.zxid, &txn);
                core.append(packet.zxid, txn);
            }
            PacketType::COMMIT | PacketType::COMMIT_AND_ACTIVATE if !self.observer => {
                let next = core.tail.next_uncommitted().map(|(zxid, _)| *zxid);
                if next != Some(packet.zxid) {
                    warn!(zxid = %packet.zxid, ?next, "a commit out of order");
                    return Ok(Err("a commit is not of the first proposal"));
                }
                let mut leader = None;
                if packet.packet_type == PacketType::COMMIT_AND_ACTIVATE {
                    let Some((designated, _)) = designated_leader(packet.data.as_ref()) else {
                        return Ok(Err("a reconfiguration without a leader"));
                    };
                    leader = Some(designated);
                    self.observers.note_activation(packet.zxid, designated);
                }
                core.tail.commit_next();
                self.deliver(core);
                if let Some(leader) = leader
                    && let Some(next) = core.next.take_if(|next| next.since == packet.zxid)
                {
                    self.activate(core, next.members, Some(leader))?;
                }
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
            PacketType::INFORM_AND_ACTIVATE if self.observer => {
                let Some((leader, txn)) = designated_leader(packet.data.as_ref()) else {
                    return Ok(Err("a reconfiguration without a leader"));
                };
                if !follows(core.tail.last(), packet.zxid) {
                    warn!(zxid = %packet.zxid, after = %core.tail.last(), "a hole in the history");
                    return Ok(Err("a transaction is not the one after the last"));
                }
                let members = members_in(&txn);
                core.append(packet.zxid, txn);
                core.tail.commit_to(packet.zxid);
                if let Some(members) = members {
                    self.activate(core, members, Some(leader))?;
                }
            }
            PacketType::PING => core.act(Action::Pass { link, packet }),
            PacketType::SYNC | PacketType::REVALIDATE => {
                if self.held.len() >= HELD_MAX {
                    return Ok(Err("more answers than requests"));
                }
                self.held.push_back((core.tail.committed(), packet));
                self.release(core);
            }
            _ => return Ok(Err("a packet that no leader sends")), // a peer's number
        }
        Ok(Ok(()))
    }

    /// These members are in force. `leader` is who leads them, if the leader has said so.
    pub(super) fn activate(
        &self,
        core: &mut Core,
        members: Members,
        leader: Option<ServerId>,
    ) -> Result<(), Exit> {
        if members.version <= core.config.members.version {
            return Ok(());
        }
        let is_role_kept = !core.changes_role(self.observer, &members);
        let is_leader_kept = match leader {
            Some(leader) => leader == self.leader,
            None => keeps_leader(&core.config.members, &members, self.leader),
        };
        core.activate(members);
        match leader {
            _ if is_role_kept && is_leader_kept => Ok(()), // whoever was named
            Some(leader) => Err(Exit::Follow(leader)),
            None => Err(Exit::Leave(
                "the leader or this server's part is another one in the new configuration",
            )),
        }
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
