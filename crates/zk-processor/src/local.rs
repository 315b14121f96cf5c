//! Local sessions: they begin, end and expire on one server, and become global when they must.

use std::sync::Arc;

use zk_proto::create_mode::CreateMode;
use zk_proto::multi::{MultiOp, MultiRequest};
use zk_proto::proto::CreateRequest;
use zk_proto::txn::{CreateSessionTxn, Txn};
use zk_proto::{OpCode, Record, Request, SessionId, Xid};
use zk_session::{LocalSessionMode, Owner};

use crate::Now;
use crate::client::{Client, Pending, Phase};
use crate::connect::HANDS_OVER;
use crate::exchange::Exchange;
use crate::node::{Action, Node, Writer};
use crate::propose;
use crate::role::Role;
use crate::stats::Stats;

/// Whether a request needs a session that all servers know: it creates an ephemeral znode
/// (`QuorumZooKeeperServer.checkUpgradeSession`).
fn needs_global_session(request: &Request) -> bool {
    let is_ephemeral = |request: &CreateRequest| {
        CreateMode::from_flag(request.flags).is_some_and(CreateMode::is_ephemeral)
    };
    if let Request::Create(request) | Request::Create2(request) = request {
        return is_ephemeral(request);
    }
    let Request::Multi(MultiRequest::Write(ops)) = request else { return false };
    ops.iter().any(|op| match op {
        MultiOp::Create { op, request } => {
            matches!(*op, OpCode::CREATE | OpCode::CREATE2) && is_ephemeral(request)
        }
        MultiOp::CreateTtl(_) | MultiOp::Delete(_) | MultiOp::SetData(_) | MultiOp::Check(_) => {
            false
        }
    })
}

impl Node {
    /// A client begins a session that only this server knows: there is nothing to wait for.
    pub(crate) fn begin_local(
        &self,
        writer: &mut Writer,
        client: &Arc<Client>,
        timeout_ms: i32,
        now: Now,
    ) {
        let id = writer.sessions.next_id();
        let mut state = client.state();
        state.session = id;
        state.heard = Some(writer.local.begin(id, timeout_ms, now.mono_ms()));
        self.connected(client, &mut state, id);
        drop(state);
        writer.by_session.insert(id, Arc::clone(client));
    }

    /// A client's write is about to go its way: if its session is local and may not be so for this, it
    /// becomes global first. The createSession goes before the write, on the same way, with the same
    /// order. Whether the session is local and stays so although the write needs another one.
    ///
    /// # Errors
    /// The connection is to be closed at once.
    pub(crate) fn upgrade_if_needed(
        &self,
        writer: &mut Writer,
        exchange: &mut Exchange<'_>,
        request: &Request,
        actions: &mut dyn FnMut(Action),
    ) -> Result<bool, &'static str> {
        let (id, now) = (exchange.state.session, exchange.now);
        if writer.local.is_empty() || !needs_global_session(request) {
            return Ok(false);
        }
        match writer.local.mode() {
            LocalSessionMode::Disabled => return Ok(false),
            LocalSessionMode::Enabled => return Ok(writer.local.contains(id)),
            LocalSessionMode::Upgrading => {}
        }
        // It takes a zxid of its own.
        if matches!(writer.role, Role::Leader(_)) && !writer.peer.may_propose() {
            return Err(HANDS_OVER);
        }
        let Some(timeout_ms) = writer.local.upgrade(id) else { return Ok(false) };
        Stats::add(&self.stats.sessions_upgraded, 1);
        let txn = CreateSessionTxn { timeout_ms };
        let (op, client) = (OpCode::CREATE_SESSION, exchange.client);
        exchange.state.heard = match &mut writer.role {
            Role::Learner(learning) => {
                // Nobody waits for it, but it has its place in the order.
                learning.forward(id, Xid(0), op, txn.to_bytes(), None, client, actions);
                Some(learning.touches.attach(id, timeout_ms, now.mono_ms()))
            }
            Role::Leader(_) => {
                writer.sessions.track(id, timeout_ms, now.mono_ms());
                writer.sessions.set_owner(id, Owner::LOCAL);
                let header = propose::header(writer, id, Xid(0), op, now);
                self.propose(writer, header, Txn::CreateSession(txn), None, now);
                writer.sessions.heard(id)
            }
            Role::ReadOnly(_) | Role::Idle => None,
        };
        Ok(false)
    }

    /// A client closes its session, if it is a local one: nobody else is told. It is answered when what
    /// it asked for before has been.
    pub(crate) fn close_local(
        &self,
        writer: &mut Writer,
        exchange: &mut Exchange<'_>,
        xid: Xid,
    ) -> bool {
        let id = exchange.state.session;
        if !writer.local.end(id) {
            return false;
        }
        writer.by_session.remove(&id);
        exchange.state.phase = Phase::Closing;
        exchange.enqueue(Pending::Close { xid, since: exchange.now });
        true
    }

    /// Local sessions end whose clients have not been heard of. What they wait for is not answered.
    pub(crate) fn expire_local(&self, writer: &mut Writer, now: Now) {
        let expired = writer.local.expire(now.mono_ms());
        if expired.is_empty() {
            return;
        }
        Stats::add(&self.stats.sessions_expired, expired.len() as u64);
        let left: Vec<_> =
            expired.iter().filter_map(|id: &SessionId| writer.by_session.remove(id)).collect();
        let db = self.db();
        for client in left {
            client.hang_up();
            db.watches.remove_watcher(client.id);
        }
    }
}
