//! Committed transactions are applied, their events and replies queued.

use std::sync::Arc;

use zk_proto::acl::Perms;
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::watch::EventType;
use zk_proto::{SessionId, Zxid};
use zk_tree::{Database, Outcome, WatchEvent};
use zk_zab::{Action as PeerAction, Input, Token};

use crate::client::{Client, Phase};
use crate::exchange::Exchange;
use crate::node::{Action, InFlight, Node, Writer};
use crate::stats::{Stats, Tally};
use crate::{Now, reply};

/// Transactions applied under one hold of the tree's write lock: about 50 µs of work, which is what a
/// reader may have to wait.
const APPLY_BATCH: usize = 64;

impl Node {
    /// All writes up to `token` are on disk.
    pub fn on_persisted(&self, token: Token, now: Now, actions: &mut dyn FnMut(Action)) {
        let mut writer = self.writer();
        writer.peer.step(Input::Persisted { token });
        while let Some(action) = writer.peer.poll_action() {
            match action {
                PeerAction::Deliver { zxid } => self.deliver(&mut writer, zxid, now),
                PeerAction::Persist { token, write } => actions(Action::Persist { token, write }),
            }
        }
    }

    /// What is in the order of transactions without being one has its turn at once when nothing is
    /// before it.
    pub(crate) fn deliver_waiting(&self, writer: &mut Writer, now: Now) {
        self.deliver(writer, Zxid(i64::MIN), now);
    }

    /// Applies everything up to `zxid`, and what is in its order.
    fn deliver(&self, writer: &mut Writer, zxid: Zxid, now: Now) {
        let is_due = |entry: &InFlight| match entry {
            InFlight::Txn { txn, .. } => txn.header.zxid <= zxid,
            InFlight::Sync { .. } | InFlight::Reattach { .. } => true,
        };
        let mut tally = Tally::default();
        while writer.in_flight.front().is_some_and(is_due) {
            let mut db = self.db_mut();
            for _ in 0..APPLY_BATCH {
                if !writer.in_flight.front().is_some_and(is_due) {
                    break;
                }
                let Some(entry) = writer.in_flight.pop_front() else { break };
                match entry {
                    InFlight::Txn { txn, origin } => {
                        self.apply(writer, &mut db, &txn, origin.as_ref(), now, &mut tally);
                    }
                    InFlight::Sync { path, origin } => {
                        self.exchange(&db, &origin, now, &mut tally, |exchange| {
                            exchange.synced(path)
                        });
                    }
                    InFlight::Reattach { id, origin } => self.reattached(writer, &origin, id),
                }
            }
            self.note_outstanding(writer);
        }
        tally.flush(&self.stats);
    }

    fn exchange(
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
                self.session_closed(writer, db, txn.header.client_id);
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

    /// The tree must have become what prep said it would. If it did not, that is counted and the
    /// prediction starts over: a wrong prediction is no reason to lose a server that has the data.
    fn compare_digest(&self, writer: &mut Writer, db: &Database, txn: &LoggedTxn) {
        let Some(digest) = txn.digest else { return };
        if digest.tree_digest.cast_unsigned() == db.tree.digest() {
            return;
        }
        debug_assert!(false, "digest of {:?} is not as predicted", txn.header);
        Stats::add(&self.stats.digest_mismatches, 1);
        if writer.in_flight.is_empty() {
            writer.changes.reset_digest(db.tree.digest());
        }
    }

    /// A session is gone, and its connection with it, if it has one here.
    fn session_closed(&self, writer: &mut Writer, db: &Database, id: SessionId) {
        writer.sessions.remove(id);
        if let Some(client) = writer.by_session.remove(&id) {
            client.state().phase = Phase::Closing;
            db.watches.remove_watcher(client.id);
            client.outbox.close();
        }
    }
}
