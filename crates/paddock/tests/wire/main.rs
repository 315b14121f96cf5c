//! Bad input and bad clients: each gets the answer that ZooKeeper's protocol has for it, the server
//! stays up, and other clients do not notice.

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod pace;
mod requests;
mod sessions;

use bytes::{Bytes, BytesMut};
use common::{create, get_data, set_data};
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN};
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest};
use zk_proto::proto::{
    AddWatchRequest, CheckWatchesRequest, CreateTtlRequest, DeleteRequest, ExistsRequest,
    GetAclRequest, GetAllChildrenNumberRequest, GetChildrenRequest, GetEphemeralsRequest,
    ReconfigRequest, RemoveWatchesRequest, RequestHeader, SetAclRequest, SetWatches, SetWatches2,
    SyncRequest,
};
use zk_proto::{ErrorCode, OpCode, Record, SessionId, Xid, Zxid};
use zk_testkit::RawClient;

/// `jute.maxbuffer` unless configured.
const FRAME_MAX: usize = 0xf_ffff;

const EPHEMERAL: i32 = 1;

/// A persistent, recursive watch.
const RECURSIVE: i32 = 1;

fn connect_request(session: SessionId, password: &[u8], timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: session,
        password: Some(Bytes::copy_from_slice(password)),
        read_only: Some(false),
    }
}

fn new_session() -> ConnectRequest {
    connect_request(SessionId(0), &[0; PASSWORD_LEN], 60_000)
}

fn again(session: &ConnectResponse) -> ConnectRequest {
    let password = session.password.clone().unwrap();
    connect_request(session.session_id, &password, session.timeout_ms)
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

fn request(xid: i32, op: OpCode, body: &[u8]) -> Vec<u8> {
    let mut payload = BytesMut::new();
    RequestHeader { xid: Xid(xid), op }.encode(&mut payload);
    payload.extend_from_slice(body);
    framed(&payload)
}

/// Sends a body as it is and gives the error that answers it; events may come before.
fn error_of(client: &mut RawClient, op: OpCode, body: &[u8]) -> ErrorCode {
    client.send_as(Xid(77), op, body).unwrap();
    loop {
        let reply = client.read_reply().unwrap();
        if reply.header.xid != Xid::NOTIFICATION {
            assert_eq!(reply.header.xid, Xid(77));
            return reply.header.err;
        }
    }
}

/// A body of each operation that has one, well formed.
fn bodies() -> Vec<(OpCode, Bytes)> {
    let path = || "/witness".to_owned();
    let list = || vec!["/a".to_owned(), "/b".to_owned()];
    let write = MultiOp::SetData(set_data("/none", b"x"));
    let check = MultiOp::Check(zk_proto::proto::CheckVersionRequest { path: path(), version: -7 });
    let read = MultiReadOp::GetData(get_data("/witness"));
    vec![
        (OpCode::CREATE, create("/new", b"x", 0).to_bytes()),
        (OpCode::CREATE2, create("/new", b"x", 0).to_bytes()),
        (OpCode::CREATE_CONTAINER, create("/new", b"x", 4).to_bytes()),
        (
            OpCode::CREATE_TTL,
            CreateTtlRequest {
                path: "/new".into(),
                data: None,
                acl: Acl::open(),
                flags: 5,
                ttl: 9,
            }
            .to_bytes(),
        ),
        (OpCode::DELETE, DeleteRequest { path: "/none".into(), version: -1 }.to_bytes()),
        (OpCode::EXISTS, ExistsRequest { path: path(), watch: false }.to_bytes()),
        (OpCode::GET_DATA, get_data("/witness").to_bytes()),
        (OpCode::SET_DATA, set_data("/none", b"x").to_bytes()),
        (OpCode::GET_ACL, GetAclRequest { path: path() }.to_bytes()),
        (
            OpCode::SET_ACL,
            SetAclRequest { path: "/none".into(), acl: Acl::open(), version: -1 }.to_bytes(),
        ),
        (OpCode::GET_CHILDREN, GetChildrenRequest { path: path(), watch: false }.to_bytes()),
        (OpCode::GET_CHILDREN2, GetChildrenRequest { path: path(), watch: false }.to_bytes()),
        (OpCode::SYNC, SyncRequest { path: Some(path()) }.to_bytes()),
        (OpCode::MULTI, MultiRequest::Write(vec![check, write]).to_bytes()),
        (OpCode::MULTI_READ, MultiRequest::Read(vec![read]).to_bytes()),
        (
            OpCode::RECONFIG,
            ReconfigRequest {
                joining_servers: None,
                leaving_servers: Some("1".into()),
                new_members: None,
                cur_config_id: -1,
            }
            .to_bytes(),
        ),
        (OpCode::CHECK_WATCHES, CheckWatchesRequest { path: path(), watcher_type: 1 }.to_bytes()),
        (OpCode::REMOVE_WATCHES, RemoveWatchesRequest { path: path(), watcher_type: 1 }.to_bytes()),
        (
            OpCode::SET_WATCHES,
            SetWatches {
                relative_zxid: Zxid(i64::MAX),
                data_watches: list(),
                exist_watches: list(),
                child_watches: list(),
            }
            .to_bytes(),
        ),
        (
            OpCode::SET_WATCHES2,
            SetWatches2 {
                relative_zxid: Zxid(i64::MAX),
                data_watches: list(),
                exist_watches: list(),
                child_watches: list(),
                persistent_watches: list(),
                persistent_recursive_watches: list(),
            }
            .to_bytes(),
        ),
        (OpCode::ADD_WATCH, AddWatchRequest { path: "/none".into(), mode: 0 }.to_bytes()),
        (OpCode::GET_EPHEMERALS, GetEphemeralsRequest { prefix_path: Some(path()) }.to_bytes()),
        (OpCode::GET_ALL_CHILDREN_NUMBER, GetAllChildrenNumberRequest { path: path() }.to_bytes()),
    ]
}
