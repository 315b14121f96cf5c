//! Transactions become changes (`DataTree.processTxn`).

use zk_proto::acl::Acl;
use zk_proto::data::Stat;
use zk_proto::txn::{CloseSessionTxn, LoggedTxn, SetAclTxn, SetDataTxn, Txn, TxnHeader};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, Zxid, path};

use crate::database::Database;
use crate::tree::{CreateArgs, can_be_deleted, container_owner, owner_of, ttl_owner, visible_stat};
use crate::watch::Table;

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done and has nothing to tell.
    Done,
    /// The stat of the znode that was created or changed, just after that.
    Stat(Stat),
    /// It failed: it says so itself, or it could not be applied.
    Error(ErrorCode),
    /// What came of each operation of a multi.
    Multi(Vec<Self>),
}

/// Something that a watch was waiting for.
#[derive(Debug, Clone, Copy)]
pub struct WatchEvent<'a> {
    /// What happened.
    pub event_type: EventType,
    /// The znode it happened to.
    pub path: &'a str,
    /// The transaction that it came with.
    pub zxid: Zxid,
    /// Who may hear of it: the READ permission in this ACL decides (facts, section 2.6).
    pub acl: &'a [Acl],
}

type Events<'a> = &'a mut dyn FnMut(crate::WatcherId, &WatchEvent<'_>);

impl Database {
    /// Applies a committed transaction and calls `events` for each watcher of each event, in order,
    /// once per watcher and event.
    ///
    /// A transaction that cannot be applied gives upstream's error. Two things upstream would not
    /// survive are refused without a change: paths that no znode can have
    /// ([`ErrorCode::BAD_ARGUMENTS`], also for deleting ZooKeeper's own znodes), and operations
    /// that a multi cannot hold ([`ErrorCode::UNIMPLEMENTED`] for the whole of it).
    pub fn apply(
        &mut self,
        txn: &LoggedTxn,
        events: &mut dyn FnMut(crate::WatcherId, &WatchEvent<'_>),
    ) -> Outcome {
        let header = &txn.header;
        let outcome = match &txn.txn {
            Txn::Multi(txns) => self.apply_multi(header, txns, events),
            single @ (Txn::CreateSession(_)
            | Txn::CloseSession(_)
            | Txn::Error(_)
            | Txn::Create(_)
            | Txn::CreateContainer(_)
            | Txn::CreateTtl(_)
            | Txn::Delete(_)
            | Txn::SetData(_)
            | Txn::SetAcl(_)
            | Txn::Check(_)) => self.apply_single(header, header.op, single, events),
        };
        self.tree.applied(header.zxid);
        outcome
    }

    fn apply_multi(
        &mut self,
        header: &TxnHeader,
        txns: &[(OpCode, Txn)],
        events: Events<'_>,
    ) -> Outcome {
        if txns.iter().any(|(_, txn)| !fits_multi(txn)) {
            return Outcome::Error(ErrorCode::UNIMPLEMENTED);
        }
        if !txns.iter().any(|(_, txn)| matches!(txn, Txn::Error(_))) {
            return Outcome::Multi(
                txns.iter().map(|(op, txn)| self.apply_single(header, *op, txn, events)).collect(),
            );
        }
        let mut code = ErrorCode::OK;
        Outcome::Multi(
            txns.iter()
                .map(|(_, txn)| match txn {
                    Txn::Error(error) => {
                        code = ErrorCode::RUNTIME_INCONSISTENCY;
                        Outcome::Error(error.err)
                    }
                    Txn::CreateSession(_)
                    | Txn::CloseSession(_)
                    | Txn::Create(_)
                    | Txn::CreateContainer(_)
                    | Txn::CreateTtl(_)
                    | Txn::Delete(_)
                    | Txn::SetData(_)
                    | Txn::SetAcl(_)
                    | Txn::Check(_)
                    | Txn::Multi(_) => Outcome::Error(code),
                })
                .collect(),
        )
    }

    fn apply_single(
        &mut self,
        header: &TxnHeader,
        op: OpCode,
        txn: &Txn,
        events: Events<'_>,
    ) -> Outcome {
        let &TxnHeader { client_id: session, zxid, time, .. } = header;
        match txn {
            Txn::CreateSession(txn) => {
                self.tree.put_session(session, txn.timeout_ms);
                Outcome::Done
            }
            Txn::CloseSession(txn) => self.close_session(header, txn.as_ref(), events),
            Txn::Error(txn) => Outcome::Error(txn.err),
            Txn::Create(txn) => {
                let args = CreateArgs {
                    path: &txn.path,
                    data: txn.data.as_deref(),
                    acl: &txn.acl,
                    owner: owner_of(txn.ephemeral, session),
                    parent_cversion: txn.parent_cversion,
                    zxid,
                    time,
                };
                let outcome = self.create(&args, events);
                // Only for this operation, as upstream: the znode may be another session's, made
                // after the picture was taken (facts, section 4.3).
                if op == OpCode::CREATE && outcome == Outcome::Error(ErrorCode::NODE_EXISTS) {
                    let parent_path = path::parent(&txn.path);
                    if txn.path != "/"
                        && let Some(parent) = self.tree.id(parent_path)
                    {
                        self.tree.raise_cversion(parent, parent_path, txn.parent_cversion, zxid);
                    }
                }
                outcome
            }
            Txn::CreateContainer(txn) => {
                let args = CreateArgs {
                    path: &txn.path,
                    data: txn.data.as_deref(),
                    acl: &txn.acl,
                    owner: container_owner(),
                    parent_cversion: txn.parent_cversion,
                    zxid,
                    time,
                };
                self.create(&args, events)
            }
            Txn::CreateTtl(txn) => {
                let Some(owner) = ttl_owner(txn.ttl) else {
                    return Outcome::Error(ErrorCode::BAD_ARGUMENTS);
                };
                let args = CreateArgs {
                    path: &txn.path,
                    data: txn.data.as_deref(),
                    acl: &txn.acl,
                    owner,
                    parent_cversion: txn.parent_cversion,
                    zxid,
                    time,
                };
                self.create(&args, events)
            }
            Txn::Delete(txn) => self.delete(&txn.path, zxid, events),
            Txn::SetData(txn) => self.set_data(header, txn, events),
            Txn::SetAcl(txn) => self.set_acl(txn),
            Txn::Check(_) => Outcome::Done,
            Txn::Multi(_) => Outcome::Error(ErrorCode::UNIMPLEMENTED),
        }
    }

    fn create(&mut self, args: &CreateArgs<'_>, events: Events<'_>) -> Outcome {
        let created = match self.tree.create(args) {
            Ok(created) => created,
            Err(error) => return Outcome::Error(error),
        };
        let (path, zxid) = (args.path, args.zxid);
        let (acl, parent_acl) =
            (self.tree.nodes[created.id].acl, self.tree.nodes[created.parent].acl);
        self.trigger(Table::Data, EventType::NodeCreated, path, zxid, acl, events);
        let parent = path::parent(path);
        self.trigger(
            Table::Child,
            EventType::NodeChildrenChanged,
            parent,
            zxid,
            parent_acl,
            events,
        );
        Outcome::Stat(created.stat)
    }

    fn delete(&mut self, path: &str, zxid: Zxid, events: Events<'_>) -> Outcome {
        if !can_be_deleted(path) {
            return Outcome::Error(ErrorCode::BAD_ARGUMENTS);
        }
        if let Some(id) = self.tree.id(path)
            && !self.tree.nodes[id].children().is_empty()
        {
            // See the crate's caveats. The leaves first.
            let doomed = self.tree.subtree(id);
            for &id in doomed.iter().skip(1).rev() {
                let path = self.tree.path_of(id);
                self.delete_leaf(&path, zxid, events);
            }
        }
        self.delete_leaf(path, zxid, events)
    }

    fn delete_leaf(&mut self, path: &str, zxid: Zxid, events: Events<'_>) -> Outcome {
        let deleted = match self.tree.delete(path, zxid) {
            Ok(deleted) => deleted,
            Err(error) => return Outcome::Error(error),
        };
        self.trigger(Table::Data, EventType::NodeDeleted, path, zxid, deleted.acl, events);
        // A connection with both watches hears of the deletion once.
        std::mem::swap(&mut self.notified, &mut self.notified_again);
        self.notified_again.sort_unstable();
        self.watches.trigger(Table::Child, EventType::NodeDeleted, path, &mut self.notified);
        let event = WatchEvent {
            event_type: EventType::NodeDeleted,
            path,
            zxid,
            acl: self.tree.acls.get(deleted.acl),
        };
        for &watcher in &self.notified {
            if self.notified_again.binary_search(&watcher).is_err() {
                events(watcher, &event);
            }
        }
        let parent = path::parent(path);
        let parent_acl = deleted.parent_acl;
        self.trigger(
            Table::Child,
            EventType::NodeChildrenChanged,
            parent,
            zxid,
            parent_acl,
            events,
        );
        self.tree.acls.release(deleted.acl);
        Outcome::Done
    }

    fn set_data(&mut self, header: &TxnHeader, txn: &SetDataTxn, events: Events<'_>) -> Outcome {
        let Some(id) = self.tree.id(&txn.path) else { return Outcome::Error(ErrorCode::NO_NODE) };
        let (zxid, time) = (header.zxid, header.time);
        // The root's other name is no other path.
        let path = if txn.path.is_empty() { "/" } else { &txn.path };
        let grown = self.tree.replace_data(id, path, txn.data.as_deref(), |node| {
            node.mzxid = zxid.0;
            node.mtime = time;
            node.version = txn.version;
        });
        let stat = visible_stat(&self.tree.nodes[id], self.tree.config().extended_types);
        self.tree.add_usage(path, grown, 0);
        let acl = self.tree.nodes[id].acl;
        self.trigger(Table::Data, EventType::NodeDataChanged, path, zxid, acl, events);
        Outcome::Stat(stat)
    }

    fn set_acl(&mut self, txn: &SetAclTxn) -> Outcome {
        let Some(id) = self.tree.id(&txn.path) else { return Outcome::Error(ErrorCode::NO_NODE) };
        let path = if txn.path.is_empty() { "/" } else { &txn.path };
        self.tree.set_acl_of(id, path, &txn.acl, |node| node.aversion = txn.version);
        Outcome::Stat(visible_stat(&self.tree.nodes[id], self.tree.config().extended_types))
    }

    /// What the transaction lists goes first, then whatever else belongs to the session.
    fn close_session(
        &mut self,
        header: &TxnHeader,
        txn: Option<&CloseSessionTxn>,
        events: Events<'_>,
    ) -> Outcome {
        if let Some(txn) = txn {
            for path in &txn.paths_to_delete {
                self.delete(path, header.zxid, events);
            }
        }
        let rest: Vec<String> = self.tree.ephemerals(header.client_id).collect();
        for path in rest {
            self.delete(&path, header.zxid, events);
        }
        self.tree.remove_session(header.client_id);
        Outcome::Done
    }

    /// Leaves in `notified` who was notified.
    fn trigger(
        &mut self,
        table: Table,
        event_type: EventType,
        path: &str,
        zxid: Zxid,
        acl: u32,
        events: Events<'_>,
    ) {
        self.watches.trigger(table, event_type, path, &mut self.notified);
        if self.notified.is_empty() {
            return;
        }
        let event = WatchEvent { event_type, path, zxid, acl: self.tree.acls.get(acl) };
        for &watcher in &self.notified {
            events(watcher, &event);
        }
    }
}

fn fits_multi(txn: &Txn) -> bool {
    match txn {
        Txn::Error(_)
        | Txn::Create(_)
        | Txn::CreateContainer(_)
        | Txn::CreateTtl(_)
        | Txn::Delete(_)
        | Txn::SetData(_)
        | Txn::Check(_) => true,
        Txn::CreateSession(_) | Txn::CloseSession(_) | Txn::SetAcl(_) | Txn::Multi(_) => false,
    }
}
