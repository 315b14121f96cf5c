//! A shell without sockets, disk and clock: outboxes that are read back, writes that are completed
//! when the test says so, and time that passes when the test says so.
//!
//! Every transaction that is proposed is decoded again, and applied to a second database when it is
//! completed: that must succeed, and give the digest that was predicted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes, BytesMut};
use zk_processor::{Action, Client, Flow, Node, NodeConfig, Now, Outbox};
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::proto::{ReplyHeader, RequestHeader, WatcherEvent};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{ErrorCode, OpCode, Reader, Record, Request, ServerId, SessionId, Xid, Zxid};
use zk_session::{SessionConfig, first_id, password};
use zk_tree::{Database, Outcome, TreeConfig};
use zk_zab::{Token, Write};

pub(crate) const TICK_MS: i64 = 2000;
pub(crate) const START: Now = Now { mono_us: 5_000_000, wall_ms: 1_700_000_000_000 };

/// Frames handed over in one call.
pub(crate) const FRAMES_MAX: usize = 16;

pub(crate) fn first_session() -> SessionId {
    first_id(ServerId(1), START.wall_ms)
}

pub(crate) fn config() -> NodeConfig {
    NodeConfig::new(SessionConfig {
        tick_ms: TICK_MS,
        min_timeout_ms: 4000,
        max_timeout_ms: 40_000,
        first_id: first_session(),
    })
}

#[derive(Debug, Default)]
pub(crate) struct OutboxState {
    bytes: BytesMut,
    pub(crate) closing: bool,
    pub(crate) resumed: bool,
}

/// One connection's outbox. As the shell's, it takes nothing after it was closed.
#[derive(Debug, Default)]
pub(crate) struct FakeOutbox(pub(crate) Mutex<OutboxState>);

#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<FakeOutbox>);

impl Outbox for Handle {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        let mut state = self.0.0.lock().unwrap();
        if !state.closing {
            write(&mut state.bytes);
        }
    }

    fn close(&self) {
        self.0.0.lock().unwrap().closing = true;
    }

    fn resume(&self) {
        self.0.0.lock().unwrap().resumed = true;
    }
}

/// What came out of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Connected(ConnectResponse),
    Expired(ConnectResponse),
    Event {
        zxid: Zxid,
        event: WatcherEvent,
    },
    Reply {
        op: OpCode,
        header: ReplyHeader,
        body: Bytes,
    },
    /// Everything was said.
    Closed,
    /// Closed at once.
    Refused(&'static str),
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Arc<Client>,
    pub(crate) outbox: Arc<FakeOutbox>,
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) paused: bool,
    pub(crate) closed: bool,
    connected: bool,
    deaf: bool,
    /// By number and operation; what goes out of turn is answered out of turn.
    asked: Vec<(Xid, OpCode)>,
    next_xid: i32,
    pub(crate) session: SessionId,
    pub(crate) reads: u64,
    pub(crate) messages: Vec<Message>,
}

/// A node with its fake shell.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) now: Now,
    /// Everything that was proposed and not completed, oldest first.
    writes: VecDeque<(Token, LoggedTxn)>,
    /// Everything that was completed.
    pub(crate) log: Vec<LoggedTxn>,
    pub(crate) replica: Database,
    connections: BTreeMap<String, Connection>,
}

impl World {
    pub(crate) fn new(config: NodeConfig) -> Self {
        let tree = tree_config(&config);
        Self::with_database(config, Database::new(tree), Database::new(tree))
    }

    /// `replica` is the same as `database`.
    pub(crate) fn with_database(config: NodeConfig, database: Database, replica: Database) -> Self {
        Self {
            node: Node::standalone(config, database, START),
            now: START,
            writes: VecDeque::new(),
            log: Vec::new(),
            replica,
            connections: BTreeMap::new(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.connections.keys().cloned().collect()
    }

    pub(crate) fn connection(&self, name: &str) -> &Connection {
        self.connections.get(name).unwrap_or_else(|| panic!("no connection {name}"))
    }

    fn connection_mut(&mut self, name: &str) -> &mut Connection {
        self.connections.get_mut(name).unwrap_or_else(|| panic!("no connection {name}"))
    }

    /// A TCP connection, without a handshake.
    pub(crate) fn open(&mut self, name: &str, address: &str) {
        let outbox = Arc::new(FakeOutbox::default());
        let handle = Box::new(Handle(Arc::clone(&outbox)));
        let client = self.node.open(address.to_owned(), handle, self.now);
        let connection = Connection::new(client, outbox);
        let old = self.connections.insert(name.to_owned(), connection);
        assert!(old.is_none_or(|old| old.closed), "{name} is still open");
    }

    /// Opens a connection and begins a session.
    pub(crate) fn connect(&mut self, name: &str) {
        self.open(name, "127.0.0.1");
        self.send_frame(name, connect_request(SessionId(0)).to_bytes());
    }

    /// Opens a connection and comes back to a session.
    pub(crate) fn reconnect(&mut self, name: &str, session: SessionId) {
        self.open(name, "127.0.0.1");
        self.send_frame(name, connect_request(session).to_bytes());
    }

    /// Sends a request; its number.
    pub(crate) fn send(&mut self, name: &str, request: &Request) -> Xid {
        self.send_all(name, std::slice::from_ref(request))[0]
    }

    /// Sends requests that arrive together; their numbers.
    pub(crate) fn send_all(&mut self, name: &str, requests: &[Request]) -> Vec<Xid> {
        let connection = self.connection_mut(name);
        let xids = requests
            .iter()
            .map(|request| {
                let mut body = BytesMut::new();
                request.encode(&mut body);
                connection.ask(request.op(), &body)
            })
            .collect();
        self.serve(name);
        xids
    }

    /// Sends an operation with any body; its number.
    pub(crate) fn send_raw(&mut self, name: &str, op: OpCode, body: &[u8]) -> Xid {
        let xid = self.connection_mut(name).ask(op, body);
        self.serve(name);
        xid
    }

    pub(crate) fn send_frame(&mut self, name: &str, frame: Bytes) {
        let connection = self.connection_mut(name);
        if connection.connected
            && let Ok(RequestHeader { xid, op }) = RequestHeader::parse(&mut Reader::new(&frame))
        {
            connection.asked.push((xid, op));
        }
        connection.frames.push_back(frame);
        self.serve(name);
    }

    /// Gives the node what has been read, as the shell's tasks do.
    fn serve(&mut self, name: &str) {
        let Self { node, now, writes, connections, .. } = self;
        let connection = connections.get_mut(name).expect("it exists");
        while !connection.paused && !connection.closed && !connection.frames.is_empty() {
            let behind = connection.frames.split_off(FRAMES_MAX.min(connection.frames.len()));
            let served =
                node.on_frames(&connection.client, &mut connection.frames, *now, &mut |action| {
                    writes.push_back(proposed(action));
                });
            connection.frames.extend(behind);
            connection.reads += served.reads;
            match served.flow {
                Flow::Continue => {}
                Flow::Wait => connection.paused = true,
                Flow::Close(why) => {
                    connection.take_messages();
                    connection.messages.push(Message::Refused(why));
                    connection.closed = true;
                    node.on_closed(&connection.client);
                }
            }
        }
        self.settle();
    }

    /// Does what outboxes ask for, until nothing is left to do.
    fn settle(&mut self) {
        let mut resumed = Vec::new();
        for (name, connection) in &mut self.connections {
            connection.take_messages();
            let mut state = connection.outbox.0.lock().unwrap();
            if std::mem::take(&mut state.resumed) {
                resumed.push(name.clone());
            }
            if state.closing && !connection.closed {
                drop(state);
                connection.closed = true;
                connection.messages.push(Message::Closed);
                self.node.on_closed(&connection.client);
            }
        }
        for name in resumed {
            self.connection_mut(&name).paused = false;
            self.serve(&name);
        }
    }

    /// From here on nothing that comes out of a connection is read back: it sends what was not asked.
    pub(crate) fn deafen(&mut self, name: &str) {
        self.connection_mut(name).deaf = true;
    }

    /// The connection breaks.
    pub(crate) fn lose(&mut self, name: &str) {
        let connection = self.connections.get_mut(name).expect("it exists");
        assert!(!connection.closed, "{name} is closed already");
        connection.closed = true;
        self.node.on_closed(&connection.client);
    }

    pub(crate) fn writes_waiting(&self) -> usize {
        self.writes.len()
    }

    /// What was proposed and not completed.
    pub(crate) fn proposed(&self) -> impl Iterator<Item = &LoggedTxn> {
        self.writes.iter().map(|(_, txn)| txn)
    }

    /// Completes the oldest `count` writes with one call.
    pub(crate) fn persist(&mut self, count: usize) {
        let mut last = None;
        for _ in 0..count.min(self.writes.len()) {
            let (token, txn) = self.writes.pop_front().expect("counted");
            self.apply_to_replica(&txn);
            self.log.push(txn);
            last = Some(token);
        }
        if let Some(token) = last {
            let writes = &mut self.writes;
            self.node.on_persisted(token, self.now, &mut |action| {
                writes.push_back(proposed(action));
            });
        }
        self.settle();
    }

    pub(crate) fn persist_all(&mut self) {
        while !self.writes.is_empty() {
            self.persist(usize::MAX);
        }
    }

    fn apply_to_replica(&mut self, txn: &LoggedTxn) {
        assert!(txn.header.zxid > self.replica.tree.last_zxid(), "the order goes back");
        let outcome = self.replica.apply(txn, &mut |_, _| {});
        let failed = match &outcome {
            Outcome::Error(_) => true,
            Outcome::Multi(outcomes) => {
                outcomes.iter().any(|outcome| matches!(outcome, Outcome::Error(_)))
            }
            Outcome::Done | Outcome::Stat(_) => false,
        };
        let may_fail = match &txn.txn {
            Txn::Error(_) => true,
            Txn::Multi(txns) => txns.iter().any(|(_, txn)| matches!(txn, Txn::Error(_))),
            _ => false, // whatever else prep has let through
        };
        assert_eq!(failed, may_fail, "{txn:?} gave {outcome:?}");
        if let Some(digest) = txn.digest {
            let actual = self.replica.tree.digest().cast_signed();
            assert_eq!(digest.tree_digest, actual, "the digest of {txn:?} was not predicted");
        }
    }

    /// Lets time pass in small steps, telling the node.
    pub(crate) fn pass(&mut self, ms: i64) {
        let mut left_ms = ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(500);
            left_ms -= step_ms;
            self.now.mono_us += step_ms * 1000;
            self.now.wall_ms += step_ms;
            let writes = &mut self.writes;
            self.node.on_tick(self.now, &mut |action| writes.push_back(proposed(action)));
            self.settle();
        }
    }

    /// What has come out of a connection since the last call.
    pub(crate) fn take(&mut self, name: &str) -> Vec<Message> {
        std::mem::take(&mut self.connection_mut(name).messages)
    }

    /// The only thing that has come out of a connection since the last call: a reply.
    pub(crate) fn reply(&mut self, name: &str) -> (ReplyHeader, Bytes) {
        match &self.take(name)[..] {
            [Message::Reply { header, body, .. }] => (*header, body.clone()),
            other => panic!("one reply was expected at {name}: {other:?}"),
        }
    }

    /// Sends a request, completes everything, and gives the reply.
    pub(crate) fn ask(&mut self, name: &str, request: &Request) -> (ReplyHeader, Bytes) {
        self.send(name, request);
        self.persist_all();
        self.reply(name)
    }

    /// [`Self::ask`], for the error code alone.
    pub(crate) fn ask_err(&mut self, name: &str, request: &Request) -> ErrorCode {
        self.ask(name, request).0.err
    }

    /// What must hold whenever everything is completed.
    pub(crate) fn check(&self) {
        assert!(self.writes.is_empty());
        let stats = self.node.stats();
        assert_eq!(stats.digest_mismatches.load(std::sync::atomic::Ordering::Relaxed), 0);
        let status = self.node.status();
        assert_eq!(status.outstanding, 0);
        assert_eq!(status.outstanding_changes, 0);
        let open = self.connections.values().filter(|connection| !connection.closed);
        assert_eq!(status.connections, open.clone().count());
        for connection in open {
            assert_eq!(connection.client.info().queued, 0, "something waits for nothing");
            assert!(!connection.paused || connection.frames.is_empty(), "frames wait for nothing");
        }
        self.node.read(|db| {
            assert_eq!(db.tree.digest(), self.replica.tree.digest());
            assert_eq!(db.tree.last_zxid(), self.replica.tree.last_zxid());
            assert_eq!(db.tree.sessions(), self.replica.tree.sessions());
            assert_eq!(status.sessions, db.tree.sessions().len());
            assert_eq!(db.tree.node_count(), self.replica.tree.node_count());
            for (path, znode) in self.replica.tree.iter() {
                let own = db.tree.find(&path).unwrap_or_else(|| panic!("{path} is missing"));
                assert_eq!(own.stat(), znode.stat(), "{path}");
                assert_eq!((own.data(), own.acl()), (znode.data(), znode.acl()), "{path}");
            }
            let watching: Vec<_> = db.watches.by_watcher().into_iter().map(|(id, _)| id).collect();
            let is_open =
                |id| self.connections.values().any(|open| !open.closed && open.client.id == id);
            assert!(watching.into_iter().all(is_open), "a closed connection watches");
        });
    }
}

impl Connection {
    pub(crate) fn new(client: Arc<Client>, outbox: Arc<FakeOutbox>) -> Self {
        Self {
            client,
            outbox,
            frames: VecDeque::new(),
            paused: false,
            closed: false,
            connected: false,
            deaf: false,
            asked: Vec::new(),
            next_xid: 1,
            session: SessionId(0),
            reads: 0,
            messages: Vec::new(),
        }
    }

    pub(crate) fn ask(&mut self, op: OpCode, body: &[u8]) -> Xid {
        let xid = match op {
            OpCode::PING => Xid::PING,
            OpCode::AUTH => Xid::AUTH,
            OpCode::SET_WATCHES | OpCode::SET_WATCHES2 => Xid::SET_WATCHES,
            _ => {
                // numbered
                let xid = Xid(self.next_xid);
                self.next_xid += 1;
                xid
            }
        };
        self.asked.push((xid, op));
        let mut frame = BytesMut::new();
        RequestHeader { xid, op }.encode(&mut frame);
        frame.extend_from_slice(body);
        self.frames.push_back(frame.freeze());
        xid
    }

    /// Reads back what is in the outbox.
    pub(crate) fn take_messages(&mut self) {
        let mut bytes = std::mem::take(&mut self.outbox.0.lock().unwrap().bytes).freeze();
        while !bytes.is_empty() {
            let len = usize::try_from(bytes.get_i32()).expect("a length");
            let frame = bytes.split_to(len);
            if self.deaf {
                continue;
            }
            let message = self.read_back(&frame);
            self.messages.push(message);
        }
    }

    fn read_back(&mut self, frame: &Bytes) -> Message {
        if !self.connected {
            self.connected = true;
            let Ok(response) = ConnectResponse::decode(frame) else {
                let header = ReplyHeader::decode(frame).expect("a reply header at least");
                return Message::Reply { op: OpCode::CREATE_SESSION, header, body: Bytes::new() };
            };
            if response.session_id == SessionId(0) {
                return Message::Expired(response);
            }
            self.session = response.session_id;
            return Message::Connected(response);
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::parse(&mut reader).expect("a reply header");
        let body = reader.take_rest();
        if header.xid == Xid::NOTIFICATION {
            assert_eq!(header.err, ErrorCode::OK);
            let event = WatcherEvent::decode(&body).expect("an event");
            return Message::Event { zxid: header.zxid, event };
        }
        let at = self.asked.iter().position(|(xid, _)| *xid == header.xid);
        let at = at.unwrap_or_else(|| panic!("a reply to nothing: {header:?}"));
        // What is in the FIFO must be answered in its order; auth and SASL are out of it.
        let in_turn = |op: OpCode| !matches!(op, OpCode::AUTH | OpCode::SASL);
        let (_, op) = self.asked[at];
        let before = self.asked[..at].iter().any(|(_, op)| in_turn(*op));
        let enforced = header.err == ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH;
        assert!(!in_turn(op) || !before || enforced, "out of order: {header:?}");
        self.asked.remove(at);
        Message::Reply { op, header, body }
    }
}

/// The tree that goes with a node's configuration.
pub(crate) fn tree_config(config: &NodeConfig) -> TreeConfig {
    TreeConfig { extended_types: config.extended_types, digest_enabled: config.digest_enabled }
}

/// A client's usual connect request; with the right password.
pub(crate) fn connect_request(session: SessionId) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 10_000,
        session_id: session,
        password: Some(Bytes::copy_from_slice(&password(session))),
        read_only: Some(false),
    }
}

/// What is logged is what will be read back.
fn proposed(action: Action) -> (Token, LoggedTxn) {
    let Action::Persist { token, write: Write::Append { zxid, txn } } = action else {
        panic!("{action:?} of a standalone server")
    };
    let decoded = LoggedTxn::decode(&txn).expect("what is logged can be read");
    assert_eq!(decoded.header.zxid, zxid);
    let mut encoded = BytesMut::new();
    decoded.encode(&mut encoded);
    assert_eq!(encoded, txn, "what is logged is not what is read");
    (token, decoded)
}
