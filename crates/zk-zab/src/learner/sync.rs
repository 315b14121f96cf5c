use tracing::{info, warn};
use zk_proto::Zxid;
use zk_proto::quorum::{PacketType, QuorumPacket};

use super::discovery::Handled;
use super::master::ObserverMaster;
use super::{Learner, Phase};
use crate::bugs::{Bug, seeded};
use crate::core::{Core, Done, Exit};
use crate::packet::{designated_leader, epoch_zxid};
use crate::reconfig::Next;
use crate::{Action, LearnerPort, LinkId, Members, Write};

/// A synchronization as it goes on.
#[derive(Debug, Default)]
pub(super) struct Sync {
    /// Up to here the log is the leader's.
    pub(super) at: Zxid,
    /// Up to here it is committed, once the leader is established.
    pub(super) committed: Zxid,
    /// What comes next may be in the log already.
    overlaps: bool,
    /// Up to here a snapshot has it all.
    snapshot: Option<Zxid>,
    /// Up to here the leader counts everything as acknowledged with `NEWLEADER`.
    acked: Zxid,
    /// The configuration that the establishing of this epoch puts in force, without a transaction that is here.
    complete: Option<Members>,
}

impl Learner {
    /// `DIFF` or `TRUNC`, the first packet of a synchronization. (`SNAP` comes by
    /// [`Self::on_snapshot`].)
    pub(super) fn on_method(
        &mut self,
        core: &mut Core,
        packet: &QuorumPacket,
    ) -> Result<Handled, Exit> {
        let last = core.tail.last();
        match packet.packet_type {
            PacketType::DIFF => self.begin_sync(core, "DIFF", last),
            PacketType::TRUNC => {
                let to = packet.zxid;
                if to > last {
                    return Ok(Err("the leader truncates behind the end of the log"));
                }
                // Nobody has a transaction with a zxid like that of an epoch's beginning.
                let found = core.tail.has(to) || to.counter() == 0;
                if !found {
                    // The leader believes that this log has `to`. What was behind it goes, as it
                    // should; the next synchronization begins where the log ends then.
                    core.truncate(to)?;
                    return Ok(Err("the leader truncates to a transaction that is not in the log"));
                }
                // Nothing goes yet: a leader truncates what it has not committed, or committed and not applied, and
                // then proposes it again. What is the same may be committed here, and must not leave this disk.
                self.begin_sync(core, "TRUNC", to);
                self.sync.overlaps = true;
                if seeded(Bug::InterruptedTruncate) {
                    self.sync.overlaps = false;
                    core.persist(Write::Truncate(to), Done::Nothing);
                }
            }
            _ => return Ok(Err("the leader did not begin to synchronize")), // a peer's number
        }
        Ok(Ok(()))
    }

    /// `SNAP`, and everything behind it.
    pub(crate) fn on_snapshot(
        &mut self,
        core: &mut Core,
        link: LinkId,
        zxid: Zxid,
        members: Option<Members>,
    ) -> Result<(), Exit> {
        if link != self.link {
            return Ok(());
        }
        self.heard_ms = core.now_ms;
        if self.phase != Phase::EpochAcked {
            warn!(leader = %self.leader, phase = ?self.phase, "unexpected snapshot");
            return Err(Exit::Leave("the leader sent a snapshot out of turn"));
        }
        if core.tail.has(zxid) {
            // The log has all that the snapshot has, and may have more that is committed. The same
            // transaction has the same history everywhere: what follows is compared.
            info!(leader = %self.leader, snapshot = %zxid, last_logged = %core.tail.last(),
                "the snapshot is older than what is here, and not needed");
            self.begin_sync(core, "SNAP", zxid);
            self.sync.overlaps = true;
        } else if self.port == LearnerPort::ObserverMaster && zxid < core.tail.committed() {
            return Err(Exit::Leave("the observer master is behind this server"));
        } else {
            core.install_snapshot(link, zxid, members);
            self.begin_sync(core, "SNAP", zxid);
        }
        self.sync.snapshot = Some(zxid);
        Ok(())
    }

    fn begin_sync(&mut self, core: &mut Core, method: &'static str, at: Zxid) {
        info!(leader = %self.leader, method, zxid = %at, delivered = %core.tail.delivered(),
            "synchronizing");
        self.phase = Phase::Synchronization;
        self.sync =
            Sync { at, committed: at, overlaps: false, snapshot: None, acked: at, complete: None };
        if seeded(Bug::EpochBeforeHistory) {
            core.persist(Write::CurrentEpoch(self.epoch), Done::Nothing);
        }
    }

    /// A packet between the method and `UPTODATE`.
    pub(super) fn on_sync_packet(
        &mut self,
        core: &mut Core,
        packet: QuorumPacket,
    ) -> Result<Handled, Exit> {
        let QuorumPacket { packet_type, zxid, data, .. } = packet;
        match packet_type {
            PacketType::PROPOSAL => match data {
                Some(txn) => self.on_sync_txn(core, zxid, txn),
                None => Ok(Err("a proposal without data")),
            },
            PacketType::INFORM if self.observer => {
                let Some(txn) = data else { return Ok(Err("a transaction without data")) };
                let handled = self.on_sync_txn(core, zxid, txn)?;
                Ok(handled.and_then(|()| self.on_sync_commit(zxid)))
            }
            PacketType::INFORM_AND_ACTIVATE if self.observer => {
                let Some((_, txn)) = designated_leader(data.as_ref()) else {
                    return Ok(Err("a reconfiguration without a leader"));
                };
                let handled = self.on_sync_txn(core, zxid, txn)?;
                Ok(handled.and_then(|()| self.on_sync_commit(zxid)))
            }
            PacketType::COMMIT | PacketType::COMMIT_AND_ACTIVATE => {
                if seeded(Bug::CommitBehindNewLeader) && self.phase == Phase::Persisting {
                    return Err(Exit::Halt("a COMMIT of a proposal that is not known".to_owned()));
                }
                Ok(self.on_sync_commit(zxid))
            }
            PacketType::NEW_LEADER if self.phase == Phase::Synchronization => {
                if zxid != epoch_zxid(self.epoch) {
                    return Ok(Err("NEWLEADER is of another epoch"));
                }
                // What the leader does not have is not in the history of this epoch.
                core.truncate(self.sync.at)?;
                if let Some(members) = &data {
                    self.note_members(core, members);
                }
                info!(leader = %self.leader, epoch = %self.epoch, zxid = %self.sync.at,
                    committed = %self.sync.committed, "the leader's history is here");
                self.sync.overlaps = false;
                self.sync.acked = self.sync.committed;
                self.phase = Phase::Persisting;
                core.set_current_epoch(self.epoch);
                if seeded(Bug::EarlyAck) {
                    self.on_epoch_current(core);
                }
                Ok(Ok(()))
            }
            PacketType::UP_TO_DATE if self.phase == Phase::Synced => {
                let committed = self.sync.committed;
                if let Some(next) = core.next.take_if(|next| next.since <= committed) {
                    self.activate(core, next.members, None)?;
                }
                if let Some(complete) = self.sync.complete.take() {
                    self.activate(core, complete, None)?;
                }
                if core.changes_role(self.observer, &core.config.members) {
                    return Err(Exit::Leave("this server's part has become another one meanwhile"));
                }
                self.serve(core);
                Ok(Ok(()))
            }
            // Upstream answers no ping before it is up to date.
            PacketType::PING => Ok(Ok(())),
            _ => Ok(Err("a packet that does not belong to a synchronization")), // a peer's number
        }
    }

    fn on_sync_txn(
        &mut self,
        core: &mut Core,
        zxid: Zxid,
        txn: bytes::Bytes,
    ) -> Result<Handled, Exit> {
        // Upstream decides what to send behind a snapshot before it looks how far the snapshot reaches
        // (`LearnerHandler.run`): under load some of it is in there.
        if self.sync.snapshot.is_some_and(|snapshot| zxid <= snapshot) {
            return Ok(Ok(()));
        }
        if !follows(self.sync.at, zxid) {
            warn!(leader = %self.leader, zxid = %zxid, after = %self.sync.at, "a hole in the history");
            return Ok(Err("the leader's history has a hole"));
        }
        if self.sync.overlaps && core.tail.has(zxid) {
            self.sync.at = zxid;
            return Ok(Ok(()));
        }
        // Only an overlap leaves anything behind it.
        core.truncate(self.sync.at)?;
        self.sync.overlaps = false;
        self.sync.at = zxid;
        core.note_proposal(zxid, &txn);
        if seeded(Bug::LostInDiff) && self.phase != Phase::Synchronization {
            core.tail.push(zxid, txn);
            core.persist(Write::AcceptedEpoch(core.accepted_epoch), Done::Logged(zxid));
            return Ok(Ok(()));
        }
        core.append(zxid, txn);
        Ok(Ok(()))
    }

    fn on_sync_commit(&mut self, zxid: Zxid) -> Handled {
        if zxid > self.sync.at {
            return Err("the leader committed what it did not propose");
        }
        self.sync.committed = self.sync.committed.max(zxid);
        Ok(())
    }

    /// The leader's history is on disk, as that of its epoch.
    pub(crate) fn on_epoch_current(&mut self, core: &mut Core) {
        if self.phase != Phase::Persisting {
            return;
        }
        self.phase = Phase::Synced;
        self.heard_ms = core.now_ms;
        self.ack(core, epoch_zxid(self.epoch));
        if self.observer {
            return;
        }
        // What is proposed and was not committed before `NEWLEADER` is acknowledged one by one, but
        // never before `NEWLEADER` (ZOOKEEPER-4685).
        let uncommitted: Vec<Zxid> = core
            .tail
            .after(self.sync.acked)
            .map(|(zxid, _)| *zxid)
            .take_while(|zxid| *zxid <= core.persisted())
            .collect();
        for zxid in uncommitted {
            self.ack(core, zxid);
        }
    }

    /// Only for a bug: the acknowledgement of a proposal, before that of `NEWLEADER`.
    pub(super) fn ack_if_uncommitted(&self, core: &mut Core, zxid: Zxid) {
        if zxid > self.sync.acked {
            self.ack(core, zxid);
        }
    }

    fn serve(&mut self, core: &mut Core) {
        self.phase = Phase::Broadcast;
        core.tail.commit_to(self.sync.committed);
        core.deliver();
        if self.observer {
            core.rotation.served();
        } else {
            self.observers = ObserverMaster::new(core, self.epoch);
        }
        if seeded(Bug::HoleInMemory) {
            core.tail.punch_hole(self.sync.acked, core.tail.delivered());
        }
        self.ack(core, epoch_zxid(self.epoch));
        info!(leader = %self.leader, epoch = %self.epoch, zxid = %core.tail.last(),
            committed = %core.tail.committed(), "UPTODATE");
        core.act(Action::Serve { role: self.role() });
    }

    /// The leader's configuration came with `NEWLEADER`.
    fn note_members(&mut self, core: &mut Core, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else {
            warn!("the leader's configuration is no text");
            return;
        };
        let theirs = Members::from_text(text);
        if core.config.reconfig_enabled {
            // A version is the zxid of the transaction that brought it, or of the beginning of the epoch that
            // gave it a number. Upstream's leaders tell observers of one that is only proposed, too: it is not
            // in the history that is here. One of an earlier epoch is complete when this one is established.
            let since = Zxid(theirs.version);
            let forgotten =
                |next: &mut Next| next.since == Zxid::ZERO && next.members.version > theirs.version;
            core.next.take_if(forgotten); // no transaction has brought it, and the leader does not know it
            if since <= self.sync.at && since.counter() > 0 {
                core.expect(theirs, since);
            } else if theirs.version > 0 && (since.counter() == 0 || since.epoch() < self.epoch) {
                self.sync.complete = Some(theirs);
            }
            return;
        }
        core.config_version_seen = core.config_version_seen.max(theirs.version);
        let own = &core.config.members;
        if !theirs.agrees(own) {
            warn!(
                ?theirs,
                ?own,
                "the leader's configuration has other members than this server's, or other groups or weights"
            );
        }
    }
}

/// Whether `zxid` can be the one behind `last`.
pub(super) fn follows(last: Zxid, zxid: Zxid) -> bool {
    // Upstream's learners take a history with a hole.
    if (seeded(Bug::HoleInMemory) || seeded(Bug::GapInLog)) && zxid > last {
        return true;
    }
    zxid.0 == last.0.wrapping_add(1) && zxid.counter() != 0
        || zxid.epoch() > last.epoch() && zxid.counter() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_no_holes() {
        let at = |epoch: i64, counter: i64| Zxid((epoch << 32) | counter);
        assert!(follows(at(3, 4), at(3, 5)));
        assert!(follows(at(3, 0), at(3, 1)));
        assert!(follows(at(3, 4), at(4, 1)));
        assert!(follows(at(3, 4), at(9, 1)));
        assert!(!follows(at(3, 4), at(3, 6)));
        assert!(!follows(at(3, 4), at(3, 4)));
        assert!(!follows(at(3, 4), at(4, 2)));
        assert!(!follows(at(3, 4), at(4, 0)));
        assert!(!follows(at(3, 4), at(2, 1)));
        assert!(!follows(at(3, 0xffff_ffff), at(4, 0)));
        assert!(!follows(Zxid(i64::MAX), Zxid(i64::MIN)));
    }
}
