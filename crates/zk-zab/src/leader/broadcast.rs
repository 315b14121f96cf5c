use std::collections::BTreeSet;

use bytes::Bytes;
use tracing::{info, warn};
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{ServerId, Zxid};

use super::discovery::Handled;
use super::{Deposed, Leader, LearnerLink, LinkState};
use crate::core::{Core, Exit};
use crate::packet::{bare, commit_and_activate, inform_and_activate, txn as txn_packet};
use crate::reconfig::keeps_leader;
use crate::{Action, Members, QuorumVerifier};

/// Upstream steps down instead of proposing a transaction with the counter's last value.
const COUNTER_MAX: u32 = u32::MAX - 1;

impl Leader {
    fn counter_max(core: &Core) -> u32 {
        core.config.counter_limit.min(COUNTER_MAX)
    }

    /// Whether there is a zxid for another transaction.
    pub(crate) fn may_propose(&self, core: &Core) -> bool {
        self.is_serving()
            && self.deposed.is_none()
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
        core.note_proposal(zxid, &txn);
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
        while self.deposed.is_none()
            && let Some((zxid, bytes)) = core.tail.next_uncommitted()
        {
            let zxid = *zxid;
            let own = (core.persisted() >= zxid).then(|| core.id());
            let acks =
                self.links.iter().filter(|learner| !learner.observer && learner.acked >= zxid);
            if !core.may_commit(zxid, acks.map(|learner| learner.id).chain(own)) {
                break;
            }
            let activated = core.next.take_if(|next| next.since == zxid);
            let leader = activated.as_ref().map(|next| self.designate(core, &next.members, zxid));
            let early = core.config.early_commits;
            for learner in &mut self.links {
                if !learner.takes_part() {
                    continue;
                }
                let packet = match (learner.observer, leader) {
                    (false, None) => bare(PacketType::COMMIT, zxid),
                    (true, None) => txn_packet(PacketType::INFORM, zxid, bytes),
                    (false, Some(leader)) => commit_and_activate(zxid, leader),
                    (true, Some(leader)) => inform_and_activate(zxid, leader, bytes),
                };
                if !early && !learner.observer && learner.state != LinkState::UpToDate {
                    learner.held_commits.push(packet);
                    continue;
                }
                core.actions.push_back(Action::Send { link: learner.link, packet });
            }
            core.tail.commit_next();
            if let Some(next) = activated {
                core.activate(next.members);
            }
        }
        core.deliver();
    }

    /// Who leads when these members are in force: this server, if it may; otherwise the follower that
    /// has acknowledged most of what is proposed, so that little of it is lost.
    pub(super) fn designate(&mut self, core: &Core, next: &Members, zxid: Zxid) -> ServerId {
        let own = core.id();
        if keeps_leader(&core.config.members, next, own) {
            return own;
        }
        let candidates = self.links.iter().filter(|learner| {
            let synced = matches!(learner.state, LinkState::Synced | LinkState::UpToDate);
            synced
                && !learner.observer
                && learner.acked >= zxid
                && next.voters.contains(&learner.id)
        });
        let leader = candidates.max_by_key(|learner| (learner.acked, learner.id));
        let heir = leader.map_or(own, |learner| learner.id);
        self.deposed = Some(Deposed { since_ms: core.now_ms, heir });
        info!(leader = %heir, "this server does not lead in the next configuration");
        heir
    }

    /// Whether a quorum of these members is here and up to date, so that they can decide at once.
    pub(crate) fn is_synced_quorum(&self, own: ServerId, members: &Members) -> bool {
        let synced = self.links.iter().filter(|learner| {
            !learner.observer && matches!(learner.state, LinkState::Synced | LinkState::UpToDate)
        });
        let servers = synced.map(|learner| learner.id).chain([own]).collect::<BTreeSet<_>>();
        QuorumVerifier::new(members).contains_quorum(&servers)
    }

    /// Whether the next configuration, in which they vote, waits for servers that came as observers. They
    /// acknowledge nothing; but they count for a new leader, and have its whole history then.
    fn needs_observers(&self, core: &Core) -> bool {
        let followers = self.links.iter().filter(|link| link.is_known() && !link.observer);
        let servers = followers.map(|link| link.id).chain([core.id()]);
        core.next.as_ref().is_some_and(|next| !next.verifier.is_quorum(servers))
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
        if let Some(deposed) = self.deposed {
            // Its followers are told first. Those that stay have no reason to go: it has moved, or they have
            // known of the configuration before.
            return if now_ms - deposed.since_ms > core.config.tick_ms {
                Err(self.leave(core, "a reconfiguration names another leader"))
            } else {
                Ok(())
            };
        }
        if !self.is_quorum(core, true, LearnerLink::is_known) {
            return Err(Exit::Leave("too many followers are gone"));
        }
        if self.needs_observers(core) {
            return Err(Exit::Leave("observers are to vote, and have to learn of it"));
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
