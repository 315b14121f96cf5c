use std::collections::VecDeque;

use bytes::Bytes;
use tracing::info;
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{Epoch, ServerId, Zxid};

use crate::log_tail::LogTail;
use crate::packet::{bare, txn};
use crate::quorum::QuorumVerifier;
use crate::reconfig::Next;
use crate::rotation::Rotation;
use crate::sync_plan::{self, Method, Plan, Request};
use crate::{Action, Durable, History, LinkId, Members, PeerConfig, Token, Write};

/// Why a role is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Back to an election.
    Leave(&'static str),
    /// A reconfiguration names another leader: to be followed, or to become, without an election.
    Follow(ServerId),
    /// The process must stop.
    Halt(String),
}

/// What follows from a write that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The log has everything up to this zxid.
    Logged(Zxid),
    /// The snapshot is on disk. It does not count yet.
    Installed,
    /// Nothing: a later write has undone it, or nobody waits for it.
    Nothing,
    AcceptedEpoch(Epoch),
    CurrentEpoch(Epoch),
}

/// A write that is on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    token: Token,
    asked_ms: i64,
    /// It may replace the whole state, which takes time.
    large: bool,
    /// The role that asked: nobody else may take it for a promise kept.
    pub(crate) generation: u64,
    pub(crate) done: Done,
}

/// A snapshot on its way. It counts, with the writes behind it, once an epoch behind it is on disk.
#[derive(Debug, Clone, Copy)]
struct Install {
    link: LinkId,
    zxid: Zxid,
    on_disk: bool,
    /// The log behind it is on disk up to here.
    logged: Zxid,
}

/// What a peer has in every role: its durable state, what is on the way there, and its way out.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: PeerConfig,
    pub(crate) verifier: QuorumVerifier,
    pub(crate) now_ms: i64,
    pub(crate) accepted_epoch: Epoch,
    pub(crate) current_epoch: Epoch,
    /// The greatest epoch that some member was heard to have accepted: a new one must pass it.
    pub(crate) epoch_seen: Epoch,
    /// When this server last made way, as a leader, for a member that had accepted a later epoch.
    pub(crate) made_way_ms: Option<i64>,
    /// The configuration that takes over when its transaction is committed.
    pub(crate) next: Option<Next>,
    /// Without reconfiguration: the version of the configuration in the last `NEWLEADER`.
    pub(crate) config_version_seen: i64,
    /// Its log is not known to be whole: it never had the whole history of a leader, and nobody said
    /// that it is new.
    pub(crate) incomplete: bool,
    /// It should not lead if somebody else can: its disk is nearly full.
    pub(crate) reluctant: bool,
    pub(crate) tail: LogTail,
    /// The log is on disk up to here.
    persisted: Zxid,
    installing: Option<Install>,
    pending: VecDeque<Pending>,
    next_token: Token,
    next_link: LinkId,
    /// Names the role; the next one has another.
    pub(crate) generation: u64,
    /// Which observer master is next.
    pub(crate) rotation: Rotation,
    pub(crate) actions: VecDeque<Action>,
}

/// Below every zxid: nothing is on disk.
const NOTHING: Zxid = Zxid(i64::MIN);

impl Core {
    pub(crate) fn new(config: PeerConfig, durable: Durable, keep: usize, now_ms: i64) -> Self {
        let last_logged = durable.last_logged();
        let empty = last_logged == Zxid::ZERO;
        let synced = durable.current_epoch > Epoch(0);
        Self {
            verifier: QuorumVerifier::new(&config.members),
            now_ms,
            accepted_epoch: durable.accepted_epoch.max(durable.current_epoch),
            current_epoch: durable.current_epoch,
            epoch_seen: Epoch(0),
            made_way_ms: None,
            next: None,
            config_version_seen: 0,
            // With an accepted epoch, what is in the log may be the first part of a leader's history.
            // Without, it is that of a server that was alone.
            incomplete: !durable.initialized
                && !synced
                && (empty || durable.accepted_epoch > Epoch(0)),
            tail: LogTail::new(durable.applied, durable.tail, keep),
            persisted: last_logged,
            reluctant: false,
            installing: None,
            pending: VecDeque::new(),
            next_token: Token(1),
            next_link: LinkId(1),
            generation: 1,
            rotation: Rotation::default(),
            actions: VecDeque::new(),
            config,
        }
    }

    pub(crate) fn id(&self) -> ServerId {
        self.config.id
    }

    /// Whether it votes in the configuration in force, or in the next one.
    pub(crate) fn is_voter(&self, server: ServerId) -> bool {
        self.verifier.is_voter(server)
            || self.next.as_ref().is_some_and(|next| next.members.voters.contains(&server))
    }

    /// Whether its word makes a difference in one of them.
    pub(crate) fn has_weight(&self, server: ServerId) -> bool {
        self.verifier.has_weight(server)
            || self.next.as_ref().is_some_and(|next| next.verifier.has_weight(server))
    }

    /// Whether that is the next one alone.
    pub(crate) fn has_weight_only_next(&self, server: ServerId) -> bool {
        !self.verifier.has_weight(server) && self.has_weight(server)
    }

    pub(crate) fn is_member(&self, server: ServerId) -> bool {
        self.is_voter(server) || self.config.members.observers.contains(&server)
    }

    /// The version of the configuration, as far as this server has seen.
    pub(crate) fn config_version(&self) -> i64 {
        self.config.members.version.max(self.config_version_seen)
    }

    /// The membership in a leader's `NEWLEADER`.
    pub(crate) fn members_text(&self, with_next: bool) -> String {
        match &self.next {
            Some(next) if with_next => next.members.to_text(),
            Some(_) | None => {
                let Members { text, .. } = &self.config.members;
                format!("{text}version={:x}", self.config_version())
            }
        }
    }

    pub(crate) fn init_limit_ms(&self) -> i64 {
        self.config.init_limit_ticks.saturating_mul(self.config.tick_ms)
    }

    pub(crate) fn sync_limit_ms(&self) -> i64 {
        self.config.sync_limit_ticks.saturating_mul(self.config.tick_ms)
    }

    pub(crate) fn link_id(&mut self) -> LinkId {
        let link = self.next_link;
        self.next_link = LinkId(link.0 + 1);
        link
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn send(&mut self, link: LinkId, packet: QuorumPacket) {
        self.actions.push_back(Action::Send { link, packet });
    }

    pub(crate) fn close(&mut self, link: LinkId) {
        self.actions.push_back(Action::Close { link });
    }

    pub(crate) fn persist(&mut self, write: Write, done: Done) {
        let token = self.next_token;
        self.next_token = Token(token.0 + 1);
        let large = matches!(write, Write::InstallSnapshot { .. })
            || (self.installing.is_some() && matches!(write, Write::CurrentEpoch(_)));
        self.pending.push_back(Pending {
            token,
            asked_ms: self.now_ms,
            large,
            generation: self.generation,
            done,
        });
        self.actions.push_back(Action::Persist { token, write });
    }

    /// Logs a transaction behind the last one.
    pub(crate) fn append(&mut self, zxid: Zxid, txn: Bytes) {
        self.tail.push(zxid, txn.clone());
        self.persist(Write::Append { zxid, txn }, Done::Logged(zxid));
    }

    /// Forgets what is logged behind `zxid`, if there is anything.
    pub(crate) fn truncate(&mut self, zxid: Zxid) -> Result<(), Exit> {
        if self.tail.last() <= zxid {
            return Ok(());
        }
        self.may_truncate(zxid)?;
        info!(from = %self.tail.last(), to = %zxid, "log truncated");
        self.tail.truncate(zxid);
        self.next.take_if(|next| next.since > zxid);
        self.persisted = self.persisted.min(zxid);
        if let Some(install) = &mut self.installing {
            install.logged = install.logged.min(zxid);
        }
        for pending in &mut self.pending {
            if matches!(pending.done, Done::Logged(logged) if logged > zxid) {
                pending.done = Done::Nothing;
            }
        }
        self.persist(Write::Truncate(zxid), Done::Nothing);
        Ok(())
    }

    /// Fails if something behind `zxid` is committed.
    fn may_truncate(&self, zxid: Zxid) -> Result<(), Exit> {
        let committed = self.tail.committed();
        if zxid < committed {
            return Err(Exit::Halt(format!(
                "the leader has history only up to {zxid}, but transactions up to {committed} were \
                 committed and applied here: the other members have lost committed data. Keep this \
                 server's data; restore the others from it, or, to accept the loss, delete the data \
                 of this server and restart it"
            )));
        }
        Ok(())
    }

    /// Whether a promise is on its way to disk: it counts only from there.
    pub(crate) fn promise_is_pending(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending.done, Done::AcceptedEpoch(_)))
    }

    /// Puts the snapshot that came on `link` in the place of everything.
    pub(crate) fn install_snapshot(&mut self, link: LinkId, zxid: Zxid, members: Option<Members>) {
        self.tail.reset(zxid);
        self.next = None;
        if let Some(members) = members.filter(|_| self.config.reconfig_enabled) {
            self.expect(members, zxid);
        }
        self.persisted = NOTHING;
        for pending in &mut self.pending {
            if matches!(pending.done, Done::Logged(_) | Done::Installed) {
                pending.done = Done::Nothing;
            }
        }
        self.installing = Some(Install { link, zxid, on_disk: false, logged: zxid });
        self.persist(Write::InstallSnapshot { link, zxid }, Done::Installed);
    }

    /// Whether a snapshot took the place of everything in memory, and not yet on disk.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    pub(crate) fn accept_epoch(&mut self, epoch: Epoch) {
        self.accepted_epoch = epoch;
        self.persist(Write::AcceptedEpoch(epoch), Done::AcceptedEpoch(epoch));
    }

    pub(crate) fn set_current_epoch(&mut self, epoch: Epoch) {
        self.current_epoch = epoch;
        self.persist(Write::CurrentEpoch(epoch), Done::CurrentEpoch(epoch));
    }

    /// The next write that is done, when all up to `token` are. What it means for the durable state
    /// is noted; what it means for the role is for the caller to see to.
    pub(crate) fn poll_done(&mut self, token: Token) -> Option<Pending> {
        let pending = *self.pending.front().filter(|pending| pending.token <= token)?;
        self.pending.pop_front();
        match (pending.done, &mut self.installing) {
            (Done::Logged(zxid), None) => self.persisted = zxid,
            (Done::Logged(zxid), Some(install)) => install.logged = zxid,
            (Done::Installed, Some(install)) => install.on_disk = true,
            (Done::CurrentEpoch(_), install) => {
                self.incomplete = false;
                if let Some(done) = install.take_if(|install| install.on_disk) {
                    self.persisted = done.logged;
                    let Install { link, zxid, .. } = done;
                    self.actions.push_back(Action::SwitchTree { link, zxid });
                }
            }
            (Done::Installed, None) | (Done::AcceptedEpoch(_) | Done::Nothing, _) => {}
        }
        Some(pending)
    }

    /// Delivers what is committed and on disk.
    pub(crate) fn deliver(&mut self) {
        while self.deliver_next().is_some() {}
    }

    /// Delivers the next transaction, if it is committed and on disk: which one.
    pub(crate) fn deliver_next(&mut self) -> Option<(Zxid, Bytes)> {
        let next = self.tail.next_undelivered().filter(|(zxid, _)| *zxid <= self.persisted);
        let (zxid, txn) = next?.clone();
        self.actions.push_back(Action::Deliver { zxid, txn: txn.clone() });
        self.tail.deliver_next();
        Some((zxid, txn))
    }

    /// Begins to bring a learner that has everything up to `zxid` to `target`, up to what is in memory; the
    /// rest is for [`Self::send_from_memory`].
    pub(crate) fn begin_sync(
        &mut self,
        (learner, link): (ServerId, LinkId),
        zxid: Zxid,
        target: Zxid,
        history: &dyn History,
    ) -> Plan {
        let plan = sync_plan::plan(&Request {
            learner: zxid,
            target,
            tail: &self.tail,
            history,
            size_factor: self.config.snapshot_size_factor,
            force_snapshot: self.config.force_snapshot_sync,
        });
        info!(
            %learner,
            link = link.0,
            method = ?plan.method,
            learner_zxid = %zxid,
            from_disk = plan.history.is_some(),
            after = %plan.memory_after,
            committed = %target,
            to = %self.tail.last(),
            "a learner is brought up to date"
        );
        match plan.method {
            Method::Diff => self.send(link, bare(PacketType::DIFF, target)),
            Method::Trunc(to) => self.send(link, bare(PacketType::TRUNC, to)),
            Method::Snap => self.act(Action::SendSnapshot { link, to: plan.memory_after }),
        }
        if let Some((after, to)) = plan.history {
            self.act(Action::SendHistory { link, after, to });
        }
        plan
    }

    /// What is in memory: as committed up to `target`, and behind that as proposed, for who votes on it.
    pub(crate) fn send_from_memory(
        &mut self,
        link: LinkId,
        plan: &Plan,
        target: Zxid,
        with_proposed: bool,
    ) {
        for (zxid, bytes) in self.tail.after(plan.memory_after) {
            let committed = *zxid <= target;
            if !committed && !with_proposed {
                break;
            }
            let packet = txn(PacketType::PROPOSAL, *zxid, bytes);
            self.actions.push_back(Action::Send { link, packet });
            if committed {
                let packet = bare(PacketType::COMMIT, *zxid);
                self.actions.push_back(Action::Send { link, packet });
            }
        }
    }

    pub(crate) fn persisted(&self) -> Zxid {
        self.persisted
    }

    /// Whether the oldest write takes longer than a disk may: nobody should rely on this server.
    pub(crate) fn disk_is_stuck(&self) -> bool {
        self.pending.front().is_some_and(|oldest| {
            let limit = if oldest.large { self.init_limit_ms() } else { self.sync_limit_ms() };
            self.now_ms - oldest.asked_ms > limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Core {
        let config = PeerConfig::new(ServerId(1), Members::default());
        Core::new(config, Durable { applied: Zxid(3), ..Durable::default() }, 0, 0)
    }

    fn done(core: &mut Core, token: u64) {
        while core.poll_done(Token(token)).is_some() {}
    }

    #[test]
    fn what_is_truncated_does_not_come_back() {
        let mut core = core();
        for zxid in 4..=6 {
            core.append(Zxid(zxid), Bytes::new());
        }
        done(&mut core, 1);
        assert_eq!(core.persisted(), Zxid(4));
        core.truncate(Zxid(4)).unwrap();
        core.append(Zxid(5), Bytes::new());
        done(&mut core, 3);
        assert_eq!(core.persisted(), Zxid(4), "those are gone");
        done(&mut core, 5);
        assert_eq!(core.persisted(), Zxid(5));
    }

    #[test]
    fn a_snapshot_counts_with_an_epoch_that_was_asked_for_behind_it() {
        let mut core = core();
        core.set_current_epoch(Epoch(1));
        core.append(Zxid(4), Bytes::new());
        core.install_snapshot(LinkId(7), Zxid(9), None);
        core.append(Zxid(10), Bytes::new());
        core.set_current_epoch(Epoch(2));
        core.actions.clear();
        done(&mut core, 4);
        assert!(core.persisted() < Zxid(3), "neither the old log nor the new one");
        assert!(core.actions.is_empty());
        // Another one takes its place, before it counted.
        core.install_snapshot(LinkId(8), Zxid(12), None);
        done(&mut core, 5);
        core.set_current_epoch(Epoch(3));
        core.actions.clear();
        assert!(core.is_installing());
        done(&mut core, 7);
        assert_eq!(core.actions, [Action::SwitchTree { link: LinkId(8), zxid: Zxid(12) }]);
        assert_eq!((core.persisted(), core.is_installing()), (Zxid(12), false));
    }
}
