//! multi and multiRead: operations and results, each behind a header, until a header says done.

use bytes::BytesMut;
use zk_jute::{Buffer, DecodeError, DecodeErrorKind, Field, Reader, Record, records};

use crate::acl::Acl;
use crate::create_mode::CreateMode;
use crate::data::Stat;
use crate::proto::{
    CheckVersionRequest, Create2Response, CreateRequest, CreateResponse, CreateTtlRequest,
    DeleteRequest, ErrorResponse, GetChildrenRequest, GetChildrenResponse, GetDataRequest,
    GetDataResponse, SetDataRequest, SetDataResponse,
};
use crate::{ErrorCode, OpCode};

records! {
    /// Before every operation and result.
    #[derive(Copy)]
    MultiHeader { op: OpCode, done: bool, err: ErrorCode }
}

const END: MultiHeader = MultiHeader { op: OpCode::ERROR, done: true, err: ErrorCode(-1) };

/// One write of a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiOp {
    /// create, create2 or createContainer, as `op` says.
    Create {
        /// Which of the three.
        op: OpCode,
        /// Its body.
        request: CreateRequest,
    },
    /// createTTL
    CreateTtl(CreateTtlRequest),
    /// delete
    Delete(DeleteRequest),
    /// setData
    SetData(SetDataRequest),
    /// check
    Check(CheckVersionRequest),
}

impl MultiOp {
    /// The operation's number.
    #[must_use]
    pub fn op(&self) -> OpCode {
        match self {
            Self::Create { op, .. } => *op,
            Self::CreateTtl(_) => OpCode::CREATE_TTL,
            Self::Delete(_) => OpCode::DELETE,
            Self::SetData(_) => OpCode::SET_DATA,
            Self::Check(_) => OpCode::CHECK,
        }
    }
}

/// One read of a multiRead; their watch flags mean nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiReadOp {
    /// getData
    GetData(GetDataRequest),
    /// getChildren
    GetChildren(GetChildrenRequest),
}

/// The body of a multi or multiRead request: reads and writes do not mix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiRequest {
    /// Writes, as one transaction. An empty list is legal and of this kind.
    Write(Vec<MultiOp>),
    /// Reads, each answered for itself.
    Read(Vec<MultiReadOp>),
}

/// A mode that has an operation of its own makes it that one, else the number says what it is
/// (`Op.create`), and what its result is made for. Upstream demands an ACL, if only an empty one, and
/// the TTL where the flag says that there is one (`CreateOptions`).
fn parse_create(op: OpCode, reader: &mut Reader<'_>) -> Result<MultiOp, DecodeError> {
    let path = Option::<String>::parse_field(reader, "path")?;
    let data = Buffer::parse_field(reader, "data")?;
    let acl = Option::<Vec<Acl>>::parse_field(reader, "acl")?;
    let flags = i32::parse_field(reader, "flags")?;
    let mode = mode(flags)?;
    let acl = acl.ok_or(DecodeError::new("acl", DecodeErrorKind::Null))?;
    if mode.is_ttl() {
        return Err(DecodeError::new("flags", DecodeErrorKind::Unknown(flags)));
    }
    let path = path.ok_or(DecodeError::new("path", DecodeErrorKind::Null))?;
    let op = if mode == CreateMode::Container { OpCode::CREATE_CONTAINER } else { op };
    Ok(MultiOp::Create { op, request: CreateRequest { path, data, acl, flags } })
}

fn parse_create_ttl(reader: &mut Reader<'_>) -> Result<MultiOp, DecodeError> {
    let request = CreateTtlRequest::parse(reader)?;
    Ok(if mode(request.flags)?.is_ttl() {
        MultiOp::CreateTtl(request)
    } else {
        let CreateTtlRequest { path, data, acl, flags, .. } = request;
        let op = match mode(flags)? {
            CreateMode::Container => OpCode::CREATE_CONTAINER,
            CreateMode::Persistent
            | CreateMode::Ephemeral
            | CreateMode::PersistentSequential
            | CreateMode::EphemeralSequential
            | CreateMode::PersistentWithTtl
            | CreateMode::PersistentSequentialWithTtl => OpCode::CREATE,
        };
        MultiOp::Create { op, request: CreateRequest { path, data, acl, flags } }
    })
}

fn mode(flags: i32) -> Result<CreateMode, DecodeError> {
    CreateMode::from_flag(flags).ok_or(DecodeError::new("flags", DecodeErrorKind::Unknown(flags)))
}

impl Record for MultiRequest {
    const NAME: &'static str = "MultiRequest";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        loop {
            let header = MultiHeader::parse(reader)?;
            if header.done {
                break;
            }
            match header.op {
                OpCode::CREATE | OpCode::CREATE2 | OpCode::CREATE_CONTAINER => {
                    writes.push(parse_create(header.op, reader)?);
                }
                OpCode::CREATE_TTL => writes.push(parse_create_ttl(reader)?),
                OpCode::DELETE => writes.push(MultiOp::Delete(DeleteRequest::parse(reader)?)),
                OpCode::SET_DATA => writes.push(MultiOp::SetData(SetDataRequest::parse(reader)?)),
                OpCode::CHECK => writes.push(MultiOp::Check(CheckVersionRequest::parse(reader)?)),
                OpCode::GET_DATA => {
                    reads.push(MultiReadOp::GetData(GetDataRequest::parse(reader)?))
                }
                OpCode::GET_CHILDREN => {
                    reads.push(MultiReadOp::GetChildren(GetChildrenRequest::parse(reader)?));
                }
                OpCode(unknown) => {
                    return Err(DecodeError::new("type", DecodeErrorKind::Unknown(unknown)));
                }
            }
            if !writes.is_empty() && !reads.is_empty() {
                return Err(DecodeError::new("type", DecodeErrorKind::Unknown(header.op.0)));
            }
        }
        Ok(if reads.is_empty() { Self::Write(writes) } else { Self::Read(reads) })
    }

    fn encode(&self, out: &mut BytesMut) {
        let header = |op, out: &mut BytesMut| {
            MultiHeader { op, done: false, err: ErrorCode(-1) }.encode(out)
        };
        match self {
            Self::Write(ops) => {
                for op in ops {
                    header(op.op(), out);
                    match op {
                        MultiOp::Create { request, .. } => request.encode(out),
                        MultiOp::CreateTtl(request) => request.encode(out),
                        MultiOp::Delete(request) => request.encode(out),
                        MultiOp::SetData(request) => request.encode(out),
                        MultiOp::Check(request) => request.encode(out),
                    }
                }
            }
            Self::Read(ops) => {
                for op in ops {
                    match op {
                        MultiReadOp::GetData(request) => {
                            header(OpCode::GET_DATA, out);
                            request.encode(out);
                        }
                        MultiReadOp::GetChildren(request) => {
                            header(OpCode::GET_CHILDREN, out);
                            request.encode(out);
                        }
                    }
                }
            }
        }
        END.encode(out);
    }
}

/// One result of a multi or multiRead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiResult {
    /// create: the path.
    Create(String),
    /// create2, createContainer and createTTL: path and stat.
    Create2(String, Stat),
    /// delete
    Delete,
    /// check
    Check,
    /// setData
    SetData(Stat),
    /// getData of a multiRead
    GetData(Buffer, Stat),
    /// getChildren of a multiRead
    GetChildren(Vec<String>),
    /// The operation failed, or stands before (`OK`) or behind (`RUNTIME_INCONSISTENCY`) one that did.
    Error(ErrorCode),
}

/// The body of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiResponse(pub Vec<MultiResult>);

impl Record for MultiResponse {
    const NAME: &'static str = "MultiResponse";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut results = Vec::new();
        loop {
            let header = MultiHeader::parse(reader)?;
            if header.done {
                return Ok(Self(results));
            }
            results.push(match header.op {
                OpCode::CREATE => MultiResult::Create(CreateResponse::parse(reader)?.path),
                OpCode::CREATE2 => {
                    let response = Create2Response::parse(reader)?;
                    MultiResult::Create2(response.path, response.stat)
                }
                OpCode::DELETE => MultiResult::Delete,
                OpCode::CHECK => MultiResult::Check,
                OpCode::SET_DATA => MultiResult::SetData(SetDataResponse::parse(reader)?.stat),
                OpCode::GET_DATA => {
                    let response = GetDataResponse::parse(reader)?;
                    MultiResult::GetData(response.data, response.stat)
                }
                OpCode::GET_CHILDREN => {
                    MultiResult::GetChildren(GetChildrenResponse::parse(reader)?.children)
                }
                OpCode::ERROR => MultiResult::Error(ErrorResponse::parse(reader)?.err),
                OpCode(unknown) => {
                    return Err(DecodeError::new("type", DecodeErrorKind::Unknown(unknown)));
                }
            });
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        let header = |op, out: &mut BytesMut| {
            MultiHeader { op, done: false, err: ErrorCode::OK }.encode(out);
        };
        for result in &self.0 {
            match result {
                MultiResult::Create(path) => {
                    header(OpCode::CREATE, out);
                    zk_jute::put_string(out, path);
                }
                MultiResult::Create2(path, stat) => {
                    header(OpCode::CREATE2, out);
                    zk_jute::put_string(out, path);
                    stat.encode(out);
                }
                MultiResult::Delete => header(OpCode::DELETE, out),
                MultiResult::Check => header(OpCode::CHECK, out),
                MultiResult::SetData(stat) => {
                    header(OpCode::SET_DATA, out);
                    stat.encode(out);
                }
                MultiResult::GetData(data, stat) => {
                    header(OpCode::GET_DATA, out);
                    zk_jute::put_buffer(out, data.as_deref());
                    stat.encode(out);
                }
                MultiResult::GetChildren(children) => {
                    header(OpCode::GET_CHILDREN, out);
                    zk_jute::put_count(out, children.len());
                    for child in children {
                        zk_jute::put_string(out, child);
                    }
                }
                MultiResult::Error(err) => {
                    MultiHeader { op: OpCode::ERROR, done: false, err: *err }.encode(out);
                    ErrorResponse { err: *err }.encode(out);
                }
            }
        }
        END.encode(out);
    }
}
