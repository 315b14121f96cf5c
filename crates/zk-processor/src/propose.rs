//! Requests become transactions, and transactions go to the peer.

use std::sync::Arc;

use bytes::BytesMut;
use zk_proto::txn::{ErrorTxn, LoggedTxn, Txn, TxnDigest, TxnHeader};
use zk_proto::{ErrorCode, OpCode, Request, SessionId, Xid, Zxid};
use zk_tree::DIGEST_VERSION;
use zk_zab::{Action as PeerAction, Input};

use crate::Now;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::node::{Action, InFlight, Node, Writer};
use crate::prep::Prep;
use crate::stats::Stats;

/// Transactions are encoded into chunks of this size, which live as long as one transaction in them.
const CHUNK: usize = 64 << 10;

/// The header of the next transaction.
pub(crate) fn header(
    writer: &Writer,
    session: SessionId,
    xid: Xid,
    op: OpCode,
    now: Now,
) -> TxnHeader {
    // Without a leader there are no epochs: the counter simply runs on.
    let zxid = Zxid(writer.peer.last_proposed().0 + 1);
    TxnHeader { client_id: session, cxid: xid, zxid, time: now.wall_ms, op }
}

impl Node {
    /// Prepares and proposes a client's write.
    pub(crate) fn submit(
        &self,
        writer: &mut Writer,
        exchange: &Exchange<'_>,
        xid: Xid,
        request: Request,
        actions: &mut dyn FnMut(Action),
    ) {
        let (state, now) = (&*exchange.state, exchange.now);
        let closes = matches!(request, Request::CloseSession);
        let mut header = header(writer, state.session, xid, request.op(), now);
        let mut prep = Prep {
            config: &self.config,
            tree: &exchange.db.tree,
            changes: &mut writer.changes,
            sessions: &writer.sessions,
            session: state.session,
            auth: &state.auth,
            zxid: header.zxid,
            wall_ms: now.wall_ms,
            stats: &self.stats,
        };
        let txn = prep.request(request).unwrap_or_else(|err| {
            header.op = OpCode::ERROR;
            Txn::Error(ErrorTxn { err })
        });
        if closes {
            writer.sessions.set_closing(state.session);
        }
        self.propose(writer, header, txn, Some(exchange.client), actions);
    }

    /// Prepares and proposes a write that no client asked for; whether it was worth it.
    pub(crate) fn submit_internal(
        &self,
        writer: &mut Writer,
        session: SessionId,
        op: OpCode,
        now: Now,
        actions: &mut dyn FnMut(Action),
        prepare: impl FnOnce(&mut Prep<'_>) -> Result<Txn, ErrorCode>,
    ) -> bool {
        let header = header(writer, session, Xid(0), op, now);
        let prepared = prepare(&mut Prep {
            config: &self.config,
            tree: &self.db().tree,
            changes: &mut writer.changes,
            sessions: &writer.sessions,
            session,
            auth: &[],
            zxid: header.zxid,
            wall_ms: now.wall_ms,
            stats: &self.stats,
        });
        // What has become impossible is not worth a transaction: nobody waits for its answer.
        let Ok(txn) = prepared else { return false };
        self.propose(writer, header, txn, None, actions);
        true
    }

    pub(crate) fn propose(
        &self,
        writer: &mut Writer,
        header: TxnHeader,
        txn: Txn,
        origin: Option<&Arc<Client>>,
        actions: &mut dyn FnMut(Action),
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
        Stats::add(&self.stats.proposals, 1);
        writer.peer.step(Input::Propose { zxid: header.zxid, txn: bytes });
        while let Some(action) = writer.peer.poll_action() {
            match action {
                PeerAction::Persist { token, write } => actions(Action::Persist { token, write }),
                PeerAction::Deliver { .. } => {
                    unreachable!("nothing is delivered before it is on disk")
                }
            }
        }
    }
}
