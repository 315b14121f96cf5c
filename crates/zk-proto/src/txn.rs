//! `org.apache.zookeeper.txn`: what is proposed, logged and applied.

use bytes::{Bytes, BytesMut};
use zk_jute::{Buffer, DecodeError, DecodeErrorKind, Field, Reader, Record, records};

use crate::acl::Acl;
use crate::{ErrorCode, OpCode, SessionId, Xid, Zxid};

records! {
    /// Before every transaction's body; `time` is the leader's wall clock in ms, and becomes the
    /// znodes' ctime and mtime.
    #[derive(Copy)]
    TxnHeader { client_id: SessionId, cxid: Xid, zxid: Zxid, time: i64, op: OpCode }
    /// The digest of the whole tree after the transaction (facts, section 4.5).
    #[derive(Copy)]
    TxnDigest { version: i32, tree_digest: i64 }

    /// A session begins; the timeout in ms.
    #[derive(Copy)]
    CreateSessionTxn { timeout_ms: i32 }
    /// A session ends, and its ephemeral znodes with it.
    CloseSessionTxn { paths_to_delete: Vec<String> }
    /// A request failed; it still has its place in the order.
    #[derive(Copy)]
    ErrorTxn { err: ErrorCode }
    /// create and create2. `parent_cversion` is the parent's new one; −1: one more than before.
    CreateTxn { path: String, data: Buffer, acl: Vec<Acl>, ephemeral: bool, parent_cversion: i32 }
    /// [`CreateTxn`] as servers before 3.3 logged it.
    CreateTxnV0 { path: String, data: Buffer, acl: Vec<Acl>, ephemeral: bool }
    /// createContainer
    CreateContainerTxn { path: String, data: Buffer, acl: Vec<Acl>, parent_cversion: i32 }
    /// createTTL; `ttl` in ms
    CreateTtlTxn { path: String, data: Buffer, acl: Vec<Acl>, parent_cversion: i32, ttl: i64 }
    /// delete and deleteContainer
    DeleteTxn { path: String }
    /// setData and reconfig; `version` is the new one.
    SetDataTxn { path: String, data: Buffer, version: i32 }
    /// setACL; `version` is the new aversion.
    SetAclTxn { path: String, acl: Vec<Acl>, version: i32 }
    /// check, within a multi
    CheckVersionTxn { path: String, version: i32 }

    /// One operation of a multi: its type, and its body as bytes.
    SubTxn { op: OpCode, body: Buffer }
    /// multi
    MultiTxnRecord { txns: Vec<SubTxn> }
}

impl TxnDigest {
    /// The version of the digest that is computed.
    pub const VERSION: i32 = 2;
}

/// A transaction's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Txn {
    /// A session begins.
    CreateSession(CreateSessionTxn),
    /// A session ends. `None`: logged by a server with `closeSessionTxn.enabled=false`; every server
    /// deletes what it knows to belong to the session.
    CloseSession(Option<CloseSessionTxn>),
    /// A request failed.
    Error(ErrorTxn),
    /// create, create2
    Create(CreateTxn),
    /// createContainer
    CreateContainer(CreateContainerTxn),
    /// createTTL
    CreateTtl(CreateTtlTxn),
    /// delete, deleteContainer
    Delete(DeleteTxn),
    /// setData, reconfig
    SetData(SetDataTxn),
    /// setACL
    SetAcl(SetAclTxn),
    /// check
    Check(CheckVersionTxn),
    /// multi: each operation with its type. In one that failed, upstream logs the operations before
    /// the failed one as they were prepared; whoever applies it must look for an error first.
    Multi(Vec<(OpCode, Self)>),
}

impl Txn {
    /// Reads the body of a transaction of type `op`. A multi within a multi is refused, so the depth
    /// is bounded.
    ///
    /// # Errors
    /// The type is none of a transaction's, or the body is not of its form.
    pub fn parse(op: OpCode, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match op {
            OpCode::MULTI => {
                let record = MultiTxnRecord::parse(reader)?;
                let mut txns = Vec::with_capacity(record.txns.len());
                for sub in record.txns {
                    let body = sub.body.unwrap_or_default();
                    txns.push((sub.op, Self::parse_single(sub.op, &mut Reader::new(&body))?));
                }
                Ok(Self::Multi(txns))
            }
            OpCode(_) => Self::parse_single(op, reader),
        }
    }

    fn parse_single(op: OpCode, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::CREATE_SESSION => Self::CreateSession(Record::parse(reader)?),
            OpCode::CLOSE_SESSION => Self::CloseSession(match reader.remaining() {
                0 => None,
                _ => Some(Record::parse(reader)?), // any body: the list
            }),
            OpCode::ERROR => Self::Error(Record::parse(reader)?),
            OpCode::CREATE | OpCode::CREATE2 => Self::Create(parse_create(reader)?),
            OpCode::CREATE_CONTAINER => Self::CreateContainer(Record::parse(reader)?),
            OpCode::CREATE_TTL => Self::CreateTtl(Record::parse(reader)?),
            OpCode::DELETE | OpCode::DELETE_CONTAINER => Self::Delete(Record::parse(reader)?),
            OpCode::SET_DATA | OpCode::RECONFIG => Self::SetData(Record::parse(reader)?),
            OpCode::SET_ACL => Self::SetAcl(Record::parse(reader)?),
            OpCode::CHECK => Self::Check(Record::parse(reader)?),
            OpCode(unknown) => {
                return Err(DecodeError::new("type", DecodeErrorKind::Unknown(unknown)));
            }
        })
    }

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::CreateSession(txn) => txn.encode(out),
            Self::CloseSession(txn) => {
                if let Some(txn) = txn {
                    txn.encode(out);
                }
            }
            Self::Error(txn) => txn.encode(out),
            Self::Create(txn) => txn.encode(out),
            Self::CreateContainer(txn) => txn.encode(out),
            Self::CreateTtl(txn) => txn.encode(out),
            Self::Delete(txn) => txn.encode(out),
            Self::SetData(txn) => txn.encode(out),
            Self::SetAcl(txn) => txn.encode(out),
            Self::Check(txn) => txn.encode(out),
            Self::Multi(txns) => {
                zk_jute::put_count(out, txns.len());
                for (op, txn) in txns {
                    op.encode_field(out);
                    let mut body = BytesMut::new();
                    txn.encode(&mut body);
                    zk_jute::put_buffer(out, Some(&body));
                }
            }
        }
    }
}

/// Whether nothing but a digest is left: what a server that logs closeSession without its list puts
/// behind the header. Its version would be the list's count, and two paths that are not empty do not
/// fit the 8 bytes behind it.
fn is_digest_alone(reader: &Reader<'_>) -> bool {
    reader.remaining() == TxnDigest::MIN_LEN
        && reader.peek_int().is_some_and(|version| version == TxnDigest::VERSION)
}

/// With the parent's cversion; where that is missing, the old form.
fn parse_create(reader: &mut Reader<'_>) -> Result<CreateTxn, DecodeError> {
    let CreateTxnV0 { path, data, acl, ephemeral } = CreateTxnV0::parse(reader)?;
    let parent_cversion =
        if reader.remaining() == 0 { -1 } else { reader.int("parentCVersion")? };
    Ok(CreateTxn { path, data, acl, ephemeral, parent_cversion })
}

/// A transaction as it is proposed and logged: header, body, and the digest if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedTxn {
    /// The header.
    pub header: TxnHeader,
    /// The body.
    pub txn: Txn,
    /// The tree's digest after it, where the proposer computes digests. A failed request
    /// ([`Txn::Error`]) has none even there; a failed multi has.
    pub digest: Option<TxnDigest>,
}

impl LoggedTxn {
    /// Reads a whole entry. Bytes that are too few for a digest are tolerated, as upstream does.
    ///
    /// # Errors
    /// Header or body cannot be read.
    pub fn decode(entry: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(entry);
        let header = TxnHeader::parse(&mut reader)?;
        let txn = if header.op == OpCode::CLOSE_SESSION && is_digest_alone(&reader) {
            Txn::CloseSession(None)
        } else {
            Txn::parse(header.op, &mut reader)?
        };
        let digest = TxnDigest::parse(&mut reader).ok();
        Ok(Self { header, txn, digest })
    }

    /// Appends the entry to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        self.header.encode(out);
        self.txn.encode(out);
        if let Some(digest) = &self.digest {
            digest.encode(out);
        }
    }
}
