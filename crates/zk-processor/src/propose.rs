//! Requests become transactions, and transactions go to the peer.

use std::sync::Arc;

use bytes::BytesMut;
use zk_proto::acl::Id;
use zk_proto::txn::{ErrorTxn, LoggedTxn, Txn, TxnDigest, TxnHeader};
use zk_proto::{ErrorCode, OpCode, Request, SessionId, Xid, Zxid};
use zk_session::Owner;
use zk_tree::{DIGEST_VERSION, DataTree};
use zk_zab::Input;

use crate::Now;
use crate::client::Client;
use crate::node::{InFlight, Node, Writer};
use crate::prep::Prep;
use crate::role::Role;
use crate::stats::Stats;

/// Transactions are encoded into chunks of this size, which live as long as one transaction in them.
const CHUNK: usize = 64 << 10;

/// Whose write it is.
pub(crate) struct Asker<'a> {
    pub(crate) session: SessionId,
    /// Through whom it came.
    pub(crate) from: Owner,
    pub(crate) ids: &'a [Id],
    /// The connection, if it is one of this server.
    pub(crate) origin: Option<&'a Arc<Client>>,
}

/// The header of the next transaction.
pub(crate) fn header(
    writer: &Writer,
    session: SessionId,
    xid: Xid,
    op: OpCode,
    now: Now,
) -> TxnHeader {
    // A standalone server has no epochs: there the counter simply runs on.
    let zxid = Zxid(writer.peer.last_proposed().0 + 1);
    TxnHeader { client_id: session, cxid: xid, zxid, time: now.wall_ms, op }
}

impl Node {
    /// Prepares and proposes a client's write.
    pub(crate) fn submit(
        &self,
        writer: &mut Writer,
        tree: &DataTree,
        asker: &Asker<'_>,
        xid: Xid,
        request: Request,
        now: Now,
    ) {
        let &Asker { session, from, ids, origin } = asker;
        let closes = matches!(request, Request::CloseSession);
        let mut header = header(writer, session, xid, request.op(), now);
        let mut prep = Prep {
            config: &self.config,
            tree,
            changes: &mut writer.changes,
            sessions: &mut writer.sessions,
            session,
            from,
            is_member: self.is_member,
            auth: ids,
            zxid: header.zxid,
            wall_ms: now.wall_ms,
            stats: &self.stats,
        };
        let txn = prep.request(request).unwrap_or_else(|err| {
            header.op = OpCode::ERROR;
            Txn::Error(ErrorTxn { err })
        });
        if closes {
            writer.sessions.set_closing(session);
        }
        self.propose(writer, header, txn, origin, now);
    }

    /// Prepares and proposes a write that no client asked for; whether it was worth it.
    pub(crate) fn submit_internal(
        &self,
        writer: &mut Writer,
        session: SessionId,
        op: OpCode,
        now: Now,
        prepare: impl FnOnce(&mut Prep<'_>) -> Result<Txn, ErrorCode>,
    ) -> bool {
        if !writer.peer.may_propose() {
            return false; // the next leader's to do
        }
        let header = header(writer, session, Xid(0), op, now);
        let prepared = prepare(&mut Prep {
            config: &self.config,
            tree: &self.db().tree,
            changes: &mut writer.changes,
            sessions: &mut writer.sessions,
            session,
            from: Owner::LOCAL,
            is_member: self.is_member,
            auth: &[],
            zxid: header.zxid,
            wall_ms: now.wall_ms,
            stats: &self.stats,
        });
        // What has become impossible is not worth a transaction: nobody waits for its answer.
        let Ok(txn) = prepared else { return false };
        self.propose(writer, header, txn, None, now);
        true
    }

    /// Hands a transaction to the peer. [`Self::run`] is to be called afterwards, when no lock but the
    /// writer's is held.
    pub(crate) fn propose(
        &self,
        writer: &mut Writer,
        header: TxnHeader,
        txn: Txn,
        origin: Option<&Arc<Client>>,
        now: Now,
    ) {
        // An error changes nothing, and upstream logs it without a digest.
        let changes = !matches!(txn, Txn::Error(_));
        let digest = writer
            .changes
            .digest()
            .filter(|_| changes)
            .map(|digest| TxnDigest { version: DIGEST_VERSION, tree_digest: digest.cast_signed() });
        let txn = LoggedTxn { header, txn, digest };
        if writer.buffer.capacity() < CHUNK / 16 {
            writer.buffer = BytesMut::with_capacity(CHUNK);
        }
        txn.encode(&mut writer.buffer);
        let bytes = writer.buffer.split().freeze();
        writer.in_flight.push_back(InFlight::Txn { txn, origin: origin.cloned() });
        if let Role::Leader(leading) = &mut writer.role {
            leading.last_txn = header.zxid;
        }
        Stats::add(&self.stats.proposals, 1);
        if self.is_member {
            self.stats.proposal_size.record(bytes.len());
        }
        writer.step(now, Input::Propose { zxid: header.zxid, txn: bytes });
    }
}
