//! Requests become transactions, and transactions go to the peer.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use zk_proto::acl::Id;
use zk_proto::txn::{ErrorTxn, LoggedTxn, Txn, TxnDigest, TxnHeader};
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Xid, Zxid};
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

const HEADER_LEN: usize = 32;

/// [`LoggedTxn::encode`], with the header put together before the buffer is asked for room.
fn encode(txn: &LoggedTxn, out: &mut BytesMut) {
    let LoggedTxn { header, txn, digest } = txn;
    let mut bytes = [0; HEADER_LEN];
    let mut rest = &mut bytes[..];
    rest.put_i64(header.client_id.0);
    rest.put_i32(header.cxid.0);
    rest.put_i64(header.zxid.0);
    rest.put_i64(header.time);
    rest.put_i32(header.op.0);
    out.extend_from_slice(&bytes);
    txn.encode(out);
    if let Some(digest) = digest {
        digest.encode(out);
    }
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
            peer: &writer.peer,
            changes: &mut writer.changes,
            sessions: &mut writer.sessions,
            local: &writer.local,
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
            peer: &writer.peer,
            changes: &mut writer.changes,
            sessions: &mut writer.sessions,
            local: &writer.local,
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
        encode(&txn, &mut writer.buffer);
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

#[cfg(test)]
mod tests {
    use zk_proto::txn::SetDataTxn;

    use super::*;

    /// Written by hand here, from a field list in `zk_proto`: they must agree.
    #[test]
    fn what_is_put_together_by_hand_is_what_the_record_is() {
        let header = TxnHeader {
            client_id: SessionId(0x1122_3344_5566_7788),
            cxid: Xid(9),
            zxid: Zxid(0x3_0000_0004),
            time: 5,
            op: OpCode::SET_DATA,
        };
        let txn = Txn::SetData(SetDataTxn { path: "/a".into(), data: None, version: 6 });
        for digest in [None, Some(TxnDigest { version: 2, tree_digest: -7 })] {
            let txn = LoggedTxn { header, txn: txn.clone(), digest };
            let (mut own, mut expected) = (BytesMut::from("x"), BytesMut::from("x"));
            encode(&txn, &mut own);
            txn.encode(&mut expected);
            assert_eq!(own, expected);
        }
    }
}
