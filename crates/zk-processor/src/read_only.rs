//! Reads without a quorum (`ReadOnlyZooKeeperServer`; facts, section 2.9).
//!
//! A member that has looked for a leader for [`grace_ms`] serves its tree as it is. What it shows was committed: only
//! that is ever applied (R5), so it may be old, and is never wrong. When the election ends, well or not, every
//! connection is closed and the sessions that began here are forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zk_proto::connect::ConnectRequest;
use zk_proto::{ErrorCode, OpCode, SessionId, Xid};
use zk_session::check_password;

use crate::client::{Client, Pending, Phase};
use crate::connect::close_old_connection;
use crate::exchange::Exchange;
use crate::node::{Node, Writer};
use crate::reply;
use crate::role::{ReadOnly, Role};
use crate::stats::Stats;
use crate::{Now, ReadOnlyMode};

/// Shorter elections than this, in ms, interrupt the service and no more (`QuorumPeer.run`).
const GRACE_MIN_MS: i64 = 2000;

impl Node {
    /// How long a member looks for a leader before it serves reads without one, in ms.
    fn grace_ms(&self) -> i64 {
        self.config.session.tick_ms.max(GRACE_MIN_MS)
    }

    /// To be called at each tick.
    pub(crate) fn maybe_begin_read_only(&self, writer: &mut Writer, now: Now) {
        let enabled = self.config.read_only_mode != ReadOnlyMode::Disabled;
        if !enabled || writer.halted || !matches!(writer.role, Role::Idle) {
            return;
        }
        let Some(looking_since_ms) = writer.peer.looking_since_ms() else { return };
        if now.mono_ms() - looking_since_ms < self.grace_ms() {
            return;
        }
        // Ids of sessions here are never those of sessions that the ensemble knows.
        for id in self.db().tree.sessions().keys() {
            writer.sessions.skip_id(*id);
        }
        writer.role = Role::ReadOnly(ReadOnly { looking_since_ms });
        writer.reign += 1;
        self.read_only.store(true, Ordering::Relaxed);
    }

    /// Ends what belonged to an election that is over. To be called before anything that the peer asks for is done.
    pub(crate) fn maybe_end_read_only(&self, writer: &mut Writer) {
        if let Role::ReadOnly(ReadOnly { looking_since_ms }) = writer.role
            && writer.peer.looking_since_ms() != Some(looking_since_ms)
        {
            self.stop_serving(writer);
        }
    }

    /// Ends it in any case.
    pub(crate) fn end_read_only(&self, writer: &mut Writer) {
        if matches!(writer.role, Role::ReadOnly(_)) {
            self.stop_serving(writer);
        }
    }

    /// A client that is content with reads begins a session, or comes back to one.
    ///
    /// # Errors
    /// Why the connection is to be closed without an answer.
    pub(crate) fn connect_read_only(
        &self,
        writer: &mut Writer,
        client: &Arc<Client>,
        request: &ConnectRequest,
        now: Now,
    ) -> Result<(), &'static str> {
        let own = self.config.read_only_mode == ReadOnlyMode::Enabled;
        let id = match (request.session_id, own) {
            (SessionId(0), true) => writer.sessions.next_id(),
            (SessionId(0), false) => {
                self.refuse_global_session(client);
                return Ok(());
            }
            // Nobody here can say whether it lives. Upstream takes up what its tree does not know when there are no
            // local sessions: it must be the ensemble's, too.
            (id, _) if !own || self.db().tree.sessions().contains_key(&id) => {
                return Err("the server is read-only, and the session is the ensemble's");
            }
            (id, _) => {
                Stats::add(&self.stats.revalidations, 1);
                close_old_connection(writer, id);
                id
            }
        };
        let mut state = client.state();
        if request.session_id == SessionId(0) {
            writer.sessions.track(id, state.timeout_ms, now.mono_ms());
            state.heard = writer.sessions.heard(id);
        } else if check_password(id, request.password.as_deref().unwrap_or_default()) {
            state.heard = writer.sessions.reattach(id, state.timeout_ms, now.mono_ms());
        }
        if state.heard.is_none() {
            self.refuse(client, &mut state);
            return Ok(());
        }
        state.session = id;
        self.connected(client, &mut state, id);
        drop(state);
        writer.by_session.insert(id, Arc::clone(client));
        Ok(())
    }

    /// A session of the ensemble would be a write. The client, which waits for a connect response, is told so in a
    /// reply, as upstream has it: for it the connection is broken, and it tries another server.
    fn refuse_global_session(&self, client: &Client) {
        let zxid = self.db().tree.last_zxid();
        let mut state = client.state();
        client.outbox.push(&mut |out| reply::empty(out, Xid(0), zxid, ErrorCode::NOT_READ_ONLY));
        state.info.sent += 1;
        state.phase = Phase::Closing;
        client.outbox.close();
        drop(state);
        Stats::add(&self.stats.packets_sent, 1);
    }

    /// A write, a sync, or the end of the session: the one thing among them that can be done here.
    pub(crate) fn answer_read_only(
        &self,
        writer: &mut Writer,
        exchange: &mut Exchange<'_>,
        xid: Xid,
        op: OpCode,
    ) {
        let ends = op == OpCode::CLOSE_SESSION;
        let err = if ends { ErrorCode::OK } else { ErrorCode::NOT_READ_ONLY };
        let since = exchange.now;
        exchange.enqueue(Pending::Fail { xid, op, err, close: ends, since });
        if ends {
            exchange.db.watches.remove_watcher(exchange.client.id);
            forget(writer, exchange.state.session);
        }
    }

    /// Sessions that were not heard of in time: nobody else knows them, so they are gone with that.
    pub(crate) fn expire_read_only(&self, writer: &mut Writer, ids: &[SessionId]) {
        Stats::add(&self.stats.sessions_expired, ids.len() as u64);
        for id in ids {
            if let Some(client) = forget(writer, *id) {
                client.hang_up();
                self.db().watches.remove_watcher(client.id);
            }
        }
    }
}

/// A session of this server alone is over; gives its connection.
fn forget(writer: &mut Writer, id: SessionId) -> Option<Arc<Client>> {
    writer.sessions.remove(id);
    writer.by_session.remove(&id)
}
