//! Against a server of a few lines that answers as scripted.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::create_mode::CreateMode;
use zk_proto::data::Stat;
use zk_proto::proto::{AuthPacket, RequestHeader, SetWatches2};
use zk_proto::{ErrorCode, OpCode, Reader, Record, SessionId, Xid, Zxid};

use crate::{Client, ConnectError, EventKind, KeeperState, Options, State};

const STAT: Stat = Stat {
    czxid: 1,
    mzxid: 2,
    ctime: 3,
    mtime: 4,
    version: 5,
    cversion: 6,
    aversion: 7,
    ephemeral_owner: 0,
    data_length: 1,
    num_children: 0,
    pzxid: 9,
};

struct Server {
    listener: TcpListener,
}

struct Peer {
    stream: TcpStream,
    connect: ConnectRequest,
}

impl Server {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Accepts a connection and answers the handshake.
    async fn accept(&self, timeout_ms: i32) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let connect = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(0),
            timeout_ms: 0,
            session_id: SessionId(0),
            password: None,
            read_only: None,
        };
        let mut peer = Peer { stream, connect };
        peer.connect = ConnectRequest::decode(&peer.frame().await.unwrap()).unwrap();
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session_id: SessionId(if timeout_ms > 0 { 0x77 } else { 0 }),
            password: Some(Bytes::from_static(b"0123456789abcdef")),
            read_only: Some(false),
        };
        peer.send(&response.to_bytes()).await;
        peer
    }
}

impl Peer {
    async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body.into())
    }

    async fn send(&mut self, body: &[u8]) {
        let mut out = BytesMut::new();
        out.put_i32(body.len() as i32);
        out.put_slice(body);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn request(&mut self) -> (Xid, OpCode, Bytes) {
        let frame = self.frame().await.expect("the client sends a request");
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::parse(&mut reader).unwrap();
        let rest = reader.take_rest();
        (header.xid, header.op, rest)
    }

    async fn reply(&mut self, xid: Xid, zxid: i64, err: ErrorCode, body: &[u8]) {
        let mut out = BytesMut::new();
        out.put_i32(xid.0);
        out.put_i64(zxid);
        out.put_i32(err.0);
        out.put_slice(body);
        self.send(&out).await;
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut out = (text.len() as i32).to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

const LONG: Duration = Duration::from_secs(30);

async fn pair(server: &Server, chroot: &str) -> (Client, Peer) {
    let client =
        Client::open(&format!("{}{chroot}", server.address()), Options::default()).unwrap();
    let peer = server.accept(30_000).await;
    client.wait_connected(LONG).await.unwrap();
    (client, peer)
}

#[tokio::test]
async fn calls_are_pipelined_and_the_chroot_is_invisible() {
    let server = Server::new().await;
    let (client, mut peer) = pair(&server, "/app").await;
    let create = client.create("/a", Some(b"x"), &Acl::open(), CreateMode::Persistent);
    let children = client.get_children("/", false);
    let missing = client.exists("/b", false);
    // Both are on the wire before anything is awaited.
    let (first, op, body) = peer.request().await;
    assert_eq!((op, &body[..10]), (OpCode::CREATE, &string("/app/a")[..]));
    let (second, op, body) = peer.request().await;
    assert_eq!((op, &body[..8]), (OpCode::GET_CHILDREN, &string("/app")[..]));
    let (third, ..) = peer.request().await;
    peer.reply(first, 5, ErrorCode::OK, &string("/app/a")).await;
    peer.reply(second, 5, ErrorCode::NO_NODE, &[]).await;
    peer.reply(third, 5, ErrorCode::NO_NODE, &[]).await;
    assert_eq!(create.await.unwrap(), "/a");
    let error = children.await.unwrap_err();
    assert_eq!(
        (error.code, error.to_string().as_str()),
        (ErrorCode::NO_NODE, "KeeperErrorCode = NoNode for /")
    );
    assert_eq!(missing.await.unwrap(), None);
}

#[tokio::test]
async fn a_reconnect_restores_session_auth_and_watches() {
    let server = Server::new().await;
    let (client, mut peer) = pair(&server, "/app").await;
    let mut events = client.events();
    let auth = client.add_auth("digest", Some(b"me:secret"));
    let (xid, op, _) = peer.request().await;
    assert_eq!((xid, op), (Xid::AUTH, OpCode::AUTH));
    peer.reply(Xid::AUTH, 0, ErrorCode::OK, &[]).await;
    auth.await.unwrap();
    let get = client.get_data("/w", true);
    let (xid, ..) = peer.request().await;
    let mut body = (-1i32).to_be_bytes().to_vec();
    body.extend_from_slice(&STAT.to_bytes());
    peer.reply(xid, 42, ErrorCode::OK, &body).await;
    assert_eq!(get.await.unwrap(), (None, STAT));

    let unanswered = client.delete("/w", 3);
    peer.request().await;
    drop(peer);
    assert_eq!(unanswered.await.unwrap_err().code, ErrorCode::CONNECTION_LOSS);
    assert_eq!(events.recv().await.unwrap().state, KeeperState::Disconnected);

    let mut peer = server.accept(30_000).await;
    assert_eq!(peer.connect.session_id, SessionId(0x77));
    assert_eq!(peer.connect.last_zxid_seen, Zxid(42));
    assert_eq!(peer.connect.password.as_deref(), Some(&b"0123456789abcdef"[..]));
    let (_, op, body) = peer.request().await;
    assert_eq!(op, OpCode::AUTH);
    let packet = AuthPacket::decode(&body).unwrap();
    assert_eq!(
        (packet.scheme.as_str(), packet.auth.as_deref()),
        ("digest", Some(&b"me:secret"[..]))
    );
    let (xid, op, body) = peer.request().await;
    assert_eq!((xid, op), (Xid::SET_WATCHES, OpCode::SET_WATCHES2));
    let again = SetWatches2::decode(&body).unwrap();
    assert_eq!((again.relative_zxid, again.data_watches), (Zxid(42), vec!["/app/w".to_owned()]));
    peer.reply(Xid::AUTH, 0, ErrorCode::OK, &[]).await;
    let mut event = 3i32.to_be_bytes().to_vec();
    event.extend_from_slice(&3i32.to_be_bytes());
    event.extend_from_slice(&string("/app/w"));
    peer.reply(Xid::NOTIFICATION, 43, ErrorCode::OK, &event).await;
    assert_eq!(events.recv().await.unwrap().state, KeeperState::SyncConnected);
    let event = events.recv().await.unwrap();
    assert_eq!((event.kind, event.path.as_deref()), (EventKind::NodeDataChanged, Some("/w")));
    assert_eq!(
        event.to_string(),
        "WatchedEvent state:SyncConnected type:NodeDataChanged path:/w zxid: 43"
    );
}

#[tokio::test]
async fn expiry_and_refused_auth_end_the_client() {
    let server = Server::new().await;
    let (client, peer) = pair(&server, "").await;
    drop(peer);
    let peer = server.accept(0).await;
    assert_eq!(peer.connect.session_id, SessionId(0x77));
    client.states().wait_for(|state| *state == State::Closed).await.unwrap();
    assert_eq!(client.delete("/a", -1).await.unwrap_err().code, ErrorCode::SESSION_EXPIRED);
    client.close().await;

    let (client, mut peer) = pair(&server, "").await;
    let (auth, get) = (client.add_auth("digest", None), client.get_data("/a", false));
    peer.request().await;
    peer.reply(Xid::AUTH, 0, ErrorCode::AUTH_FAILED, &[]).await;
    assert_eq!(auth.await.unwrap_err().code, ErrorCode::AUTH_FAILED);
    assert_eq!(get.await.unwrap_err().code, ErrorCode::AUTH_FAILED);
    assert_eq!(client.state(), State::AuthFailed);
    assert_eq!(client.get_data("/a", false).await.unwrap_err().code, ErrorCode::AUTH_FAILED);
}

#[tokio::test]
async fn close_waits_for_what_was_sent_before() {
    let server = Server::new().await;
    let (client, mut peer) = pair(&server, "").await;
    let delete = client.delete("/a", -1);
    let other = client.clone();
    let closing = tokio::spawn(async move { other.close().await });
    let (first, ..) = peer.request().await;
    let (second, op, _) = peer.request().await;
    assert_eq!(op, OpCode::CLOSE_SESSION);
    peer.reply(first, 1, ErrorCode::OK, &[]).await;
    peer.reply(second, 2, ErrorCode::OK, &[]).await;
    delete.await.unwrap();
    closing.await.unwrap();
    assert_eq!(client.state(), State::Closed);
}

#[tokio::test]
async fn silence_is_pinged_and_then_given_up() {
    let server = Server::new().await;
    let client = Client::open(&server.address(), Options::default()).unwrap();
    let mut peer = server.accept(600).await;
    let (xid, op, _) = peer.request().await;
    assert_eq!((xid, op), (Xid::PING, OpCode::PING));
    // It gets no answer: the client goes away by itself and comes back.
    let again = server.accept(600).await;
    assert_eq!(again.connect.session_id, SessionId(0x77));
    drop(client);
}

#[tokio::test]
async fn an_answer_proves_that_the_session_was_alive_when_it_was_asked_for() {
    let server = Server::new().await;
    let (client, mut peer) = pair(&server, "").await;
    let first = client.alive_until().unwrap();
    let delete = client.delete("/a", -1);
    let (xid, ..) = peer.request().await;
    let before = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.alive_until().unwrap(), first, "not answered yet");
    peer.reply(xid, 1, ErrorCode::OK, &[]).await;
    delete.await.unwrap();
    let second = client.alive_until().unwrap();
    assert!(first < second && second < before + LONG, "from the sending, not from the answer");
    drop(peer);
    client.states().wait_for(|state| *state == State::Connecting).await.unwrap();
    assert_eq!(client.alive_until().unwrap(), second, "a lost connection proves nothing");
}

#[tokio::test]
async fn a_reply_out_of_step_ends_the_connection() {
    let server = Server::new().await;
    let (client, mut peer) = pair(&server, "").await;
    let delete = client.delete("/a", -1);
    let (xid, ..) = peer.request().await;
    peer.reply(Xid(xid.0 + 1), 1, ErrorCode::OK, &[]).await;
    assert_eq!(delete.await.unwrap_err().code, ErrorCode::CONNECTION_LOSS);
    server.accept(30_000).await;
}

#[tokio::test]
async fn no_server_is_said_so() {
    let server = Server::new().await;
    let address = server.address();
    drop(server);
    let error = Client::connect(&address, Duration::from_millis(300), false).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}
