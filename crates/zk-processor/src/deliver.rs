//! Committed transactions are applied, their events and replies queued.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::error;
use zk_proto::acl::Perms;
use zk_proto::txn::{ErrorTxn, LoggedTxn, Txn};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, SessionId, Zxid};
use zk_tree::{DIGEST_VERSION, Database, Outcome, WatchEvent};
use zk_zab::bugs::{Bug, seeded};

use crate::client::{Client, Phase};
use crate::exchange::Exchange;
use crate::node::{Action, InFlight, Node, Writer};
use crate::role::{Forwarded, Role};
use crate::stats::{Stats, Tally};
use crate::{Now, reply};

/// Transactions applied under one hold of the tree's write lock: about 50 µs of work, which is what a
/// reader may have to wait.
const APPLY_BATCH: usize = 64;

impl Writer {
    /// Whether something can take effect now.
    fn has_turn(&self) -> bool {
        let waiting = match &self.role {
            Role::Leader(_) => {
                self.in_flight.front().is_some_and(|entry| !matches!(entry, InFlight::Txn { .. }))
            }
            Role::Learner(learning) => learning.has_turn(),
            Role::ReadOnly(_) | Role::Idle => false,
        };
        waiting || !self.due.is_empty()
    }
}

/// What is done under one hold of the tree's lock, and what that adds up to.
struct Applying<'a> {
    now: Now,
    tally: &'a mut Tally,
    actions: &'a mut dyn FnMut(Action),
}

impl Node {
    /// Applies what is committed, and gives what is in its order its turn. Whether there was anything.
    pub(crate) fn apply_due(
        &self,
        writer: &mut Writer,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> bool {
        if !writer.has_turn() {
            return false;
        }
        let mut tally = Tally::default();
        while writer.has_turn() {
            let mut db = self.db_mut();
            for _ in 0..APPLY_BATCH {
                let applying = Applying { now, tally: &mut tally, actions };
                if !self.take_turn(writer, &mut db, applying) {
                    break;
                }
            }
            self.note_outstanding(writer);
        }
        tally.flush(&self.stats);
        true
    }

    fn take_turn(&self, writer: &mut Writer, db: &mut Database, applying: Applying<'_>) -> bool {
        let Applying { now, tally, actions } = applying;
        let due = writer.due.front().map(|(zxid, _)| *zxid);
        match (writer.in_flight.front(), due) {
            (Some(InFlight::Txn { txn, .. }), Some(zxid)) => {
                let own = txn.header.zxid;
                assert!(own >= zxid, "{zxid} is delivered behind {own}");
                if own == zxid
                    && let Some(InFlight::Txn { txn, origin }) = writer.in_flight.pop_front()
                {
                    writer.due.pop_front();
                    self.apply(writer, db, &txn, origin.as_ref(), now, tally);
                    return true;
                }
            }
            (Some(InFlight::Txn { .. }), None) => return false,
            (Some(_), _) => {
                self.waiting_turn(writer, db, now, tally, actions);
                return true;
            }
            (None, _) => {}
        }
        if let Role::Learner(learning) = &mut writer.role
            && learning.has_turn()
        {
            if let Some(entry) = learning.forwarded.pop_front() {
                self.forwarded_turn(writer, db, entry, now, tally);
            }
            return true;
        }
        let Some((zxid, bytes)) = writer.due.pop_front() else { return false };
        match LoggedTxn::decode(&bytes) {
            Ok(txn) => {
                let origin = self.find_origin(writer, db, &txn, now, tally);
                self.apply(writer, db, &txn, origin.as_ref(), now, tally);
            }
            Err(error) => {
                let why = format!(
                    "the committed transaction {zxid} cannot be decoded: {error}. It is of a newer \
                     release, or was damaged in memory before it was logged. Install the release \
                     that the rest of the ensemble runs"
                );
                self.halt(writer, why, actions);
            }
        }
        true
    }

    /// The turn of something prepared here that is no transaction.
    fn waiting_turn(
        &self,
        writer: &mut Writer,
        db: &Database,
        now: Now,
        tally: &mut Tally,
        actions: &mut dyn FnMut(Action),
    ) {
        match writer.in_flight.pop_front() {
            Some(InFlight::Sync { path, origin }) => {
                self.exchange(db, &origin, now, tally, |exchange| exchange.synced(path));
            }
            Some(InFlight::Reattach { id, origin }) => self.reattached(writer, &origin, id),
            Some(InFlight::Revalidate { link, id }) => self.revalidated(writer, link, id, actions),
            Some(InFlight::Txn { .. }) | None => unreachable!("somebody has looked"),
        }
    }

    /// The connection that asked for a transaction that was prepared elsewhere.
    fn find_origin(
        &self,
        writer: &mut Writer,
        db: &Database,
        txn: &LoggedTxn,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Arc<Client>> {
        let Role::Learner(learning) = &mut writer.role else { return None };
        learning.applied = txn.header.zxid;
        if !learning.is_answer(&txn.header) {
            return None;
        }
        loop {
            let Role::Learner(learning) = &mut writer.role else { return None };
            match learning.forwarded.pop_front()? {
                // Without its session the client can do nothing more.
                Forwarded::Write { origin, op: OpCode::CREATE_SESSION, .. }
                    if txn.header.op == OpCode::ERROR =>
                {
                    origin.hang_up();
                    return None;
                }
                Forwarded::Write { origin, .. } => return Some(origin),
                // What was forwarded before it has had its turn with the leader.
                entry @ (Forwarded::Sync { .. } | Forwarded::Reattach { .. }) => {
                    self.forwarded_turn(writer, db, entry, now, tally);
                }
            }
        }
    }

    /// The turn of something forwarded that is no transaction.
    fn forwarded_turn(
        &self,
        writer: &mut Writer,
        db: &Database,
        entry: Forwarded,
        now: Now,
        tally: &mut Tally,
    ) {
        let Role::Learner(learning) = &mut writer.role else { return };
        match entry {
            Forwarded::Sync { path, origin } => {
                learning.syncs_granted -= 1;
                self.exchange(db, &origin, now, tally, |exchange| exchange.synced(path));
            }
            Forwarded::Reattach { id, origin, after } => {
                let mut state = origin.state();
                if state.phase != Phase::Connecting {
                    return; // gone again
                }
                // The leader was not asked about one that was still being created, and may have been closed
                // behind that.
                let local = writer.local.heard(id);
                let is_asked = after != Zxid::ZERO;
                if local.is_none() && !is_asked && !db.tree.sessions().contains_key(&id) {
                    self.refuse(&origin, &mut state);
                    return;
                }
                let attach = || learning.touches.attach(id, state.timeout_ms, now.mono_ms());
                state.heard = Some(local.unwrap_or_else(attach));
                self.connected(&origin, &mut state, id);
            }
            Forwarded::Write { .. } => unreachable!("a write comes back as a transaction"),
        }
    }

    pub(crate) fn exchange(
        &self,
        db: &Database,
        client: &Arc<Client>,
        now: Now,
        tally: &mut Tally,
        act: impl FnOnce(&mut Exchange<'_>),
    ) {
        let mut state = client.state();
        act(&mut Exchange { node: self, db, client, state: &mut state, now, tally });
    }

    fn apply(
        &self,
        writer: &mut Writer,
        db: &mut Database,
        txn: &LoggedTxn,
        origin: Option<&Arc<Client>>,
        now: Now,
        tally: &mut Tally,
    ) {
        let missed;
        let txn = if seeded(Bug::StaleEphemeral)
            && matches!(writer.role, Role::Idle)
            && matches!(txn.txn, Txn::CloseSession(_))
        {
            let txn_of_nothing = Txn::Error(ErrorTxn { err: ErrorCode::OK });
            missed = LoggedTxn { header: txn.header, txn: txn_of_nothing, digest: None };
            &missed
        } else {
            txn
        };
        let clients = &writer.clients;
        let outcome = db.apply(txn, &mut |watcher, event| {
            if let Some(client) = clients.get(&watcher) {
                self.notify(client, event, tally);
            }
        });
        tally.commits += 1;
        self.compare_digest(writer, db, txn);
        writer.changes.applied(txn.header.zxid);
        match &txn.txn {
            Txn::CreateSession(created) => {
                if let Some(client) = origin {
                    self.session_created(client, txn.header.client_id, *created);
                }
            }
            Txn::CloseSession(_) => {
                self.complete(db, origin, txn, &Outcome::Done, now, tally);
                self.session_closed(writer, db, txn.header.client_id, now);
            }
            Txn::Error(_)
            | Txn::Create(_)
            | Txn::CreateContainer(_)
            | Txn::CreateTtl(_)
            | Txn::Delete(_)
            | Txn::SetData(_)
            | Txn::SetAcl(_)
            | Txn::Check(_)
            | Txn::Multi(_) => self.complete(db, origin, txn, &outcome, now, tally),
        }
    }

    fn complete(
        &self,
        db: &Database,
        origin: Option<&Arc<Client>>,
        txn: &LoggedTxn,
        outcome: &Outcome,
        now: Now,
        tally: &mut Tally,
    ) {
        if let Some(client) = origin {
            self.exchange(db, client, now, tally, |exchange| exchange.complete(txn, outcome));
        }
    }

    /// Queues an event for a connection that may read what it is about.
    fn notify(&self, client: &Client, event: &WatchEvent<'_>, tally: &mut Tally) {
        let mut state = client.state();
        if self.config.auth.check(event.acl, Perms::READ, &state.auth).is_err() {
            return;
        }
        client.outbox.push(&mut |out| reply::event(out, event));
        state.info.sent += 1;
        tally.sent(1, 0);
        Stats::add(&self.stats.watch_events, 1);
        let counter = match event.event_type {
            EventType::NodeCreated => &self.stats.node_created_watches,
            EventType::NodeDeleted => &self.stats.node_deleted_watches,
            EventType::NodeDataChanged => &self.stats.node_changed_watches,
            EventType::NodeChildrenChanged => &self.stats.node_children_watches,
        };
        Stats::add(counter, 1);
    }

    /// The tree must have become what prep said it would, here or at the leader. If it did not, that is counted and the
    /// prediction starts over: a wrong prediction is no reason to lose a server that has the data.
    fn compare_digest(&self, writer: &mut Writer, db: &Database, txn: &LoggedTxn) {
        let Some(digest) = txn.digest else { return };
        let is_comparable =
            self.config.digest_enabled && digest.version == DIGEST_VERSION && !writer.is_fuzzy;
        if !is_comparable || digest.tree_digest.cast_unsigned() == db.tree.digest() {
            return;
        }
        debug_assert!(false, "digest of {:?} is not as predicted", txn.header);
        Stats::add(&self.stats.digest_mismatches, 1);
        // Once the trees differ they do so at every transaction.
        let count = self.stats.digest_mismatches.load(Ordering::Relaxed);
        if count.is_power_of_two() {
            error!(
                zxid = %txn.header.zxid,
                count,
                predicted = format_args!("{:x}", digest.tree_digest),
                digest = format_args!("{:x}", db.tree.digest()),
                "the tree is not what the leader said that it would be: compare the members with \
                 `paddock quorum verify`"
            );
        }
        if writer.in_flight.is_empty() {
            writer.changes.reset_digest(db.tree.digest());
        }
    }

    /// A session is gone, and its connection with it, if it has one here.
    fn session_closed(&self, writer: &mut Writer, db: &Database, id: SessionId, now: Now) {
        writer.sessions.remove(id);
        writer.local.end(id);
        writer.local.note_ended(id, now.mono_ms());
        if let Role::Learner(learning) = &mut writer.role {
            learning.touches.remove(id);
            learning.behind.remove(&id);
        }
        if let Some(client) = writer.by_session.remove(&id) {
            client.state().phase = Phase::Closing;
            db.watches.remove_watcher(client.id);
            client.outbox.close();
        }
    }
}
