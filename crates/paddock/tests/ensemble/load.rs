//! Clients that write down everything they do and see.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, PASSWORD_LEN};
use zk_proto::multi::{MultiOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::proto::{
    CheckVersionRequest, Create2Response, CreateRequest, DeleteRequest, ExistsRequest,
    ExistsResponse, GetChildren2Request, GetChildren2Response, GetDataRequest, GetDataResponse,
    SetDataRequest, SetDataResponse, SetWatches, SyncRequest, WatcherEvent,
};
use zk_proto::watch::EventType;
use zk_proto::{Buffer, ErrorCode, OpCode, Record, SessionId, Xid, Zxid};
use zk_testkit::history::{Answer, Event, Failure, History, Op, SessionLog, What};
use zk_testkit::{Prng, RawClient, Reply};

/// How long a client waits for a reply before it tries another server.
const REPLY_PATIENCE: Duration = Duration::from_millis(1200);

/// Znodes that everybody writes.
pub(crate) const REGISTERS: u64 = 12;

/// Znodes that come and go.
const DOORS: u64 = 8;

/// What all clients of one run share.
pub(crate) struct Field {
    pub(crate) servers: Vec<(u64, SocketAddr)>,
    pub(crate) timeout_ms: i32,
    began: Instant,
    tags: AtomicU64,
    stop: AtomicBool,
    /// Replies that came, for progress lines and floors.
    pub(crate) replies: AtomicU64,
    /// Connections that were lost although nobody gave them up.
    pub(crate) losses: AtomicU64,
    /// The longest wait for a reply, in microseconds.
    pub(crate) slowest_us: AtomicU64,
}

impl Field {
    pub(crate) fn new(servers: Vec<(u64, SocketAddr)>, timeout_ms: i32) -> Arc<Self> {
        Arc::new(Self {
            servers,
            timeout_ms,
            began: Instant::now(),
            tags: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            replies: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
        })
    }

    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    fn tag(&self) -> Bytes {
        Bytes::from(format!("t{}", self.tags.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// A sync on a session of its own.
    fn sync(self: &Arc<Self>, server: u64, address: SocketAddr) -> io::Result<Vec<SessionLog>> {
        let mut reader = Player::new(self, server);
        reader.connect_to(server, address)?;
        reader.send(Op::Sync)?;
        reader.drain(0)?;
        reader.close()?;
        Ok(reader.logs())
    }

    /// The whole tree, and the session that read it.
    fn read_all(
        self: &Arc<Self>,
        server: u64,
        address: SocketAddr,
    ) -> io::Result<(Tree, Vec<SessionLog>)> {
        let mut reader = Player::new(self, server);
        reader.connect_to(server, address)?;
        let tree = reader.walk("/h")?;
        reader.close()?;
        Ok((tree, reader.logs()))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Paths with their data.
type Tree = Vec<(String, Bytes)>;

/// Again and again for a while: an ensemble on a busy machine may have to elect a leader at any time.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => {
                assert!(Instant::now() < deadline, "a healed server is not reached: {error}")
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The connect request of a new session.
pub(crate) fn connect_request(timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: SessionId(0),
        password: Buffer::Some(Bytes::from_static(&[0; PASSWORD_LEN])),
        read_only: Some(false),
    }
}

/// A client: one session after the other.
pub(crate) struct Player {
    field: Arc<Field>,
    prng: Prng,
    /// Sessions that are over.
    finished: Vec<SessionLog>,
    log: Option<SessionLog>,
    connection: Option<RawClient>,
    password: Buffer,
    told: Zxid,
    next_xid: i32,
    data_watches: BTreeSet<String>,
    exist_watches: BTreeSet<String>,
    child_watches: BTreeSet<String>,
    /// Names that were listed last, to have something to delete.
    listed: Vec<String>,
    /// Requests that were sent on this connection and not answered yet.
    waiting: std::collections::VecDeque<(i32, Op, u64)>,
}

impl Player {
    pub(crate) fn new(field: &Arc<Field>, seed: u64) -> Self {
        Self {
            field: Arc::clone(field),
            prng: Prng::new(seed),
            finished: Vec::new(),
            log: None,
            connection: None,
            password: None,
            told: Zxid::ZERO,
            next_xid: 1,
            data_watches: BTreeSet::new(),
            exist_watches: BTreeSet::new(),
            child_watches: BTreeSet::new(),
            listed: Vec::new(),
            waiting: std::collections::VecDeque::new(),
        }
    }

    fn note(&mut self, what: What) {
        let at_us = self.field.now_us();
        if let Some(log) = &mut self.log {
            log.events.push(Event { at_us, what });
        }
    }

    fn forget_session(&mut self) {
        self.finished.extend(self.log.take());
        self.connection = None;
        self.told = Zxid::ZERO;
        self.next_xid = 1;
        self.data_watches.clear();
        self.exist_watches.clear();
        self.child_watches.clear();
        self.waiting.clear();
    }

    pub(crate) fn lose(&mut self) {
        if self.connection.take().is_some() {
            self.note(What::Lost);
        }
        self.waiting.clear();
    }

    /// Goes to a server, with the session if there is one. `Ok(false)`: the session has expired.
    pub(crate) fn connect_to(&mut self, server: u64, address: SocketAddr) -> io::Result<bool> {
        let began_us = self.field.now_us();
        let mut client = RawClient::connect(address)?;
        client.set_read_timeout(REPLY_PATIENCE)?;
        let mut request = connect_request(self.field.timeout_ms);
        if let Some(log) = &self.log {
            request.session_id = log.session;
            request.password = self.password.clone();
            request.last_zxid_seen = self.told;
        }
        let response = client.handshake(&request)?;
        if response.timeout_ms == 0 {
            self.note(What::Expired);
            self.forget_session();
            return Ok(false);
        }
        match &self.log {
            Some(log) => assert_eq!(
                log.session, response.session_id,
                "a session id was silently replaced (S4)"
            ),
            None => {
                let timeout_ms = u32::try_from(response.timeout_ms).unwrap();
                let session = response.session_id;
                self.log = Some(SessionLog { session, timeout_ms, events: Vec::new() });
            }
        }
        self.password = response.password;
        self.connection = Some(client);
        self.note(What::Connected { server, began_us });
        let again = Op::SetWatches {
            relative: self.told,
            data: self.data_watches.iter().cloned().collect(),
            exist: self.exist_watches.iter().cloned().collect(),
            child: self.child_watches.iter().cloned().collect(),
        };
        if !self.data_watches.is_empty()
            || !self.exist_watches.is_empty()
            || !self.child_watches.is_empty()
        {
            self.send(again)?;
            self.drain(0)?;
        }
        Ok(true)
    }

    /// Goes to any server.
    fn connect(&mut self) -> bool {
        let (server, address) = *self.prng.pick(&self.field.servers.clone());
        match self.connect_to(server, address) {
            Ok(alive) => alive,
            Err(_) => {
                self.lose();
                std::thread::sleep(Duration::from_millis(30 + self.prng.below(100)));
                false
            }
        }
    }

    pub(crate) fn send(&mut self, op: Op) -> io::Result<()> {
        let (xid, code, body) = match &op {
            Op::SetWatches { .. } => (Xid::SET_WATCHES.0, OpCode::SET_WATCHES, encode(&op)),
            other => {
                self.next_xid += 1;
                (self.next_xid - 1, code(other), encode(other))
            }
        };
        self.note(What::Invoke { xid, op: op.clone() });
        let now_us = self.field.now_us();
        self.waiting.push_back((xid, op, now_us));
        match &mut self.connection {
            Some(client) => client.send_as(Xid(xid), code, &body),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads until no more than so many requests wait.
    pub(crate) fn drain(&mut self, left: usize) -> io::Result<()> {
        while self.waiting.len() > left {
            self.read_one()?;
        }
        Ok(())
    }

    fn read_one(&mut self) -> io::Result<()> {
        let Some(client) = &mut self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let reply = client.read_reply()?;
        let Reply { header, .. } = reply;
        if header.xid == Xid::NOTIFICATION {
            self.fired(reply.body_as());
            return Ok(());
        }
        let Some((_, op, sent_us)) = self.waiting.pop_front() else {
            self.note(What::Reply {
                xid: header.xid.0,
                zxid: header.zxid,
                result: Ok(Answer::Done),
            });
            return Ok(());
        };
        if header.xid == Xid::PING {
            self.note(What::Ping { began_us: sent_us, zxid: header.zxid });
            self.told = self.told.max(header.zxid);
            return Ok(());
        }
        let result = result(&op, &reply);
        let over =
            header.err == ErrorCode::SESSION_EXPIRED || header.err == ErrorCode::SESSION_MOVED;
        // What was set is known to the server from this reply on.
        match (&op, &result) {
            (Op::Get { path, watch: true }, Ok(_)) | (Op::Exists { path, watch: true }, Ok(_)) => {
                self.data_watches.insert(path.clone());
            }
            (Op::Exists { path, watch: true }, Err(failure))
                if failure.code == ErrorCode::NO_NODE =>
            {
                self.exist_watches.insert(path.clone());
            }
            (Op::Children { path, watch }, Ok(Answer::Children { names, .. })) => {
                if *watch {
                    self.child_watches.insert(path.clone());
                }
                self.listed = names.iter().map(|name| format!("{path}/{name}")).collect();
            }
            (_, _) => {}
        }
        if !over {
            self.told = self.told.max(header.zxid);
        }
        self.note(What::Reply { xid: header.xid.0, zxid: header.zxid, result });
        let waited = self.field.now_us() - sent_us;
        self.field.slowest_us.fetch_max(waited, Ordering::Relaxed);
        self.field.replies.fetch_add(1, Ordering::Relaxed);
        if over { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn fired(&mut self, event: WatcherEvent) {
        let kind = match event.event_type {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            _ => return, // the session's own state
        };
        match kind {
            EventType::NodeCreated => {
                self.exist_watches.remove(&event.path);
            }
            EventType::NodeDataChanged => {
                self.data_watches.remove(&event.path);
            }
            EventType::NodeChildrenChanged => {
                self.child_watches.remove(&event.path);
            }
            EventType::NodeDeleted => {
                self.data_watches.remove(&event.path);
                self.child_watches.remove(&event.path);
            }
        }
        self.note(What::Fired { kind, path: event.path });
    }

    pub(crate) fn ping(&mut self) -> io::Result<()> {
        let now_us = self.field.now_us();
        let Some(client) = &mut self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        client.send_as(Xid::PING, OpCode::PING, &[])?;
        self.waiting.push_back((Xid::PING.0, Op::Sync, now_us));
        self.drain(0)
    }

    /// One request that must be answered, on whatever server does; retried until it is.
    pub(crate) fn insist(&mut self, op: impl Fn() -> Op, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            assert!(Instant::now() < deadline, "not answered in time: {}", op());
            if self.connection.is_none() && !self.connect() {
                continue;
            }
            if self.send(op()).and_then(|()| self.drain(0)).is_ok() {
                return;
            }
            self.lose();
        }
    }

    fn draw(&mut self) -> Vec<Op> {
        let prng = &mut self.prng;
        let register = |prng: &mut Prng| format!("/h/r{}", prng.below(REGISTERS));
        let door = |prng: &mut Prng| format!("/h/d/{}", prng.below(DOORS));
        let session = self.log.as_ref().map_or(0, |log| log.session.0);
        let watch = prng.chance(40);
        let version = if prng.chance(60) { -1 } else { i32::try_from(prng.below(60)).unwrap() };
        let tag = || self.field.tag();
        let set = |path: String, version| Op::Set { path, data: tag(), version };
        match prng.below(20) {
            0..4 => vec![set(register(prng), -1)],
            4 => vec![set(register(prng), version)],
            5..9 => vec![Op::Get { path: register(prng), watch }],
            9 => vec![Op::Exists { path: door(prng), watch }],
            10 => vec![Op::Create {
                path: door(prng),
                data: tag(),
                ephemeral: false,
                sequential: false,
            }],
            11 => vec![Op::Delete { path: door(prng), version: -1 }],
            12 => vec![Op::Create {
                path: "/h/q/n-".into(),
                data: tag(),
                ephemeral: prng.chance(30),
                sequential: true,
            }],
            13 => vec![Op::Children { path: "/h/q".into(), watch }],
            14 => {
                // Below /h/q the list stays short, else every listing is long.
                self.listed.sort();
                let some = 2.min(self.listed.len());
                let gone: Vec<String> = self.listed.drain(..some).collect();
                gone.into_iter().map(|path| Op::Delete { path, version: -1 }).collect()
            }
            15 => vec![Op::Create {
                path: format!("/h/e/{session:x}-{}", prng.below(3)),
                data: tag(),
                ephemeral: true,
                sequential: false,
            }],
            16 => vec![Op::Children { path: "/h/e".into(), watch }],
            17 => {
                let (one, two) = (register(prng), register(prng));
                if one == two {
                    return vec![set(one, -1)];
                }
                vec![Op::Multi(vec![set(one, -1), set(two, -1)])]
            }
            18 => {
                let (one, two) = (door(prng), door(prng));
                if one == two {
                    return vec![Op::Exists { path: one, watch: false }];
                }
                let made =
                    Op::Create { path: one, data: tag(), ephemeral: false, sequential: false };
                vec![Op::Multi(vec![made, Op::Delete { path: two, version: -1 }])]
            }
            _ => vec![Op::Sync, Op::Get { path: register(prng), watch: false }],
        }
    }

    /// Plays until it is told to stop; `pace` is the mean time between batches.
    fn play(mut self, pace: Duration) -> Self {
        let pace_us = u64::try_from(pace.as_micros()).unwrap();
        while !self.field.stopped() {
            if self.connection.is_none() && !self.connect() {
                continue;
            }
            let batch = 1 + self.prng.below(6);
            let mut outcome = Ok(());
            for _ in 0..batch {
                for op in self.draw() {
                    outcome = outcome.and_then(|()| self.send(op));
                }
            }
            match self.prng.below(400) {
                0 => {
                    // Goes away without waiting for the replies.
                    self.lose();
                    continue;
                }
                1 => outcome = outcome.and_then(|()| self.drain(0)).and_then(|()| self.close()),
                _ => outcome = outcome.and_then(|()| self.drain(0)),
            }
            if outcome.is_err() {
                self.field.losses.fetch_add(1, Ordering::Relaxed);
                self.lose();
            }
            std::thread::sleep(Duration::from_micros(self.prng.below(2 * pace_us + 1)));
        }
        self
    }

    /// Keeps a session with its ephemerals, and does nothing but ping: it must never expire.
    fn keep(mut self) -> Self {
        let mut made = None;
        let mut pinged = Instant::now();
        while !self.field.stopped() {
            if self.connection.is_none() && !self.connect() {
                continue;
            }
            let session = self.log.as_ref().map(|log| log.session.0);
            let outcome = if made == session {
                self.ping()
            } else {
                let path = format!("/h/e/keep-{:x}", session.unwrap_or_default());
                let data = self.field.tag();
                let op = Op::Create { path, data, ephemeral: true, sequential: false };
                self.send(op).and_then(|()| self.drain(0))
            };
            match outcome {
                Ok(()) => made = session,
                Err(_) => self.lose(),
            }
            pinged = pinged.max(Instant::now());
            std::thread::sleep(Duration::from_millis(100));
        }
        self
    }

    /// Ends the session.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.send(Op::Close)?;
        self.drain(0)?;
        self.forget_session();
        Ok(())
    }

    /// Walks everything below `path`; gives what was found.
    pub(crate) fn walk(&mut self, path: &str) -> io::Result<Tree> {
        let mut found = Vec::new();
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            self.send(Op::Get { path: path.clone(), watch: false })?;
            self.send(Op::Children { path: path.clone(), watch: false })?;
            self.drain(0)?;
            let data = self.last_data();
            found.push((path, data));
            todo.append(&mut self.listed);
        }
        found.sort();
        Ok(found)
    }

    fn last_data(&self) -> Bytes {
        let events = self.log.iter().flat_map(|log| log.events.iter().rev());
        let data = events.filter_map(|event| match &event.what {
            What::Reply { result: Ok(Answer::Data { data, .. }), .. } => Some(data.clone()),
            _ => None,
        });
        data.into_iter().next().unwrap_or_default()
    }

    pub(crate) fn has_session(&self) -> bool {
        self.log.is_some()
    }

    fn logs(mut self) -> Vec<SessionLog> {
        self.forget_session();
        self.finished
    }
}

/// Clients at work.
pub(crate) struct Load {
    pub(crate) field: Arc<Field>,
    threads: Vec<JoinHandle<Player>>,
    setup: Vec<SessionLog>,
}

impl Load {
    /// Prepares the tree and starts the clients; two more do nothing but keep their sessions.
    pub(crate) fn start(field: Arc<Field>, players: usize, pace: Duration, seed: u64) -> Self {
        let mut setup = Player::new(&field, seed);
        let folders = ["/h", "/h/d", "/h/e", "/h/q"].map(str::to_owned);
        let registers = (0..REGISTERS).map(|number| format!("/h/r{number}"));
        for path in folders.into_iter().chain(registers) {
            let make = || Op::Create {
                path: path.clone(),
                data: field.tag(),
                ephemeral: false,
                sequential: false,
            };
            setup.insist(make, Duration::from_secs(20));
        }
        setup.close().expect("nothing is broken yet");
        let threads =
            (0..players + 2)
                .map(|number| {
                    let player = Player::new(&field, seed.wrapping_add(1 + number as u64));
                    std::thread::spawn(move || {
                        if number < players { player.play(pace) } else { player.keep() }
                    })
                })
                .collect();
        Self { field, threads, setup: setup.logs() }
    }

    /// Waits until the clients have had so many more replies, however busy the machine is.
    pub(crate) fn await_replies(&self, more: u64) {
        let replies = || self.field.replies.load(Ordering::Relaxed);
        let (enough, deadline) = (replies() + more, Instant::now() + Duration::from_secs(30));
        while replies() < enough {
            assert!(Instant::now() < deadline, "the clients get too few replies: {}", replies());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the clients: every second one closes its session, the others leave theirs to expire. When all
    /// are over, reads everything from every server and gives the history.
    pub(crate) fn finish(self, servers: &[(u64, SocketAddr)]) -> History {
        self.field.stop();
        let mut sessions = self.setup;
        let mut left = Vec::new();
        for (number, thread) in self.threads.into_iter().enumerate() {
            let mut player = thread.join().expect("a client that did not panic");
            if number % 2 == 0 && player.connection.is_some() {
                drop(player.close());
            }
            player.lose();
            if player.has_session() {
                left.push(player);
            } else {
                sessions.extend(player.logs());
            }
        }
        // The leader rounds up to a tick. After an election it gives a full timeout more: then they are
        // asked again below.
        let timeout_ms = u64::try_from(self.field.timeout_ms).expect("a positive timeout");
        std::thread::sleep(Duration::from_millis(timeout_ms * 3 / 2));
        let (server, address) = servers[0];
        for mut player in left {
            let alive = patiently(|| player.connect_to(server, address));
            assert!(!alive, "a session lives on long after its timeout");
            sessions.extend(player.logs());
        }
        for (server, address) in servers {
            sessions.extend(patiently(|| self.field.sync(*server, *address)));
        }
        let settled_us = Some(self.field.now_us());
        let mut trees = Vec::new();
        for (server, address) in servers {
            let (tree, logs) = patiently(|| self.field.read_all(*server, *address));
            trees.push((server, tree));
            sessions.extend(logs);
        }
        for (server, tree) in &trees[1..] {
            assert!(*tree == trees[0].1, "server {server} has another tree than {}", trees[0].0);
        }
        History { sessions, settled_us }
    }
}

fn code(op: &Op) -> OpCode {
    match op {
        Op::Create { .. } => OpCode::CREATE2,
        Op::Set { .. } => OpCode::SET_DATA,
        Op::Delete { .. } => OpCode::DELETE,
        Op::Check { .. } => OpCode::CHECK,
        Op::Multi(_) => OpCode::MULTI,
        Op::Get { .. } => OpCode::GET_DATA,
        Op::Exists { .. } => OpCode::EXISTS,
        Op::Children { .. } => OpCode::GET_CHILDREN2,
        Op::Sync => OpCode::SYNC,
        Op::SetWatches { .. } => OpCode::SET_WATCHES,
        Op::Close => OpCode::CLOSE_SESSION,
    }
}

fn create_request(path: &str, data: &Bytes, ephemeral: bool, sequential: bool) -> CreateRequest {
    let flags = i32::from(ephemeral) + 2 * i32::from(sequential);
    CreateRequest { path: path.into(), data: Some(data.clone()), acl: Acl::open(), flags }
}

fn encode(op: &Op) -> Bytes {
    match op {
        Op::Create { path, data, ephemeral, sequential } => {
            create_request(path, data, *ephemeral, *sequential).to_bytes()
        }
        Op::Set { path, data, version } => {
            let data = Some(data.clone());
            SetDataRequest { path: path.clone(), data, version: *version }.to_bytes()
        }
        Op::Delete { path, version } => {
            DeleteRequest { path: path.clone(), version: *version }.to_bytes()
        }
        Op::Check { path, version } => {
            CheckVersionRequest { path: path.clone(), version: *version }.to_bytes()
        }
        Op::Multi(parts) => {
            let part = |op: &Op| match op {
                Op::Create { path, data, ephemeral, sequential } => MultiOp::Create {
                    op: OpCode::CREATE2,
                    request: create_request(path, data, *ephemeral, *sequential),
                },
                Op::Set { path, data, version } => {
                    let data = Some(data.clone());
                    MultiOp::SetData(SetDataRequest { path: path.clone(), data, version: *version })
                }
                Op::Delete { path, version } => {
                    MultiOp::Delete(DeleteRequest { path: path.clone(), version: *version })
                }
                Op::Check { path, version } => {
                    MultiOp::Check(CheckVersionRequest { path: path.clone(), version: *version })
                }
                other => panic!("{other} in a multi"),
            };
            MultiRequest::Write(parts.iter().map(part).collect()).to_bytes()
        }
        Op::Get { path, watch } => GetDataRequest { path: path.clone(), watch: *watch }.to_bytes(),
        Op::Exists { path, watch } => {
            ExistsRequest { path: path.clone(), watch: *watch }.to_bytes()
        }
        Op::Children { path, watch } => {
            GetChildren2Request { path: path.clone(), watch: *watch }.to_bytes()
        }
        Op::Sync => SyncRequest { path: Some("/h".into()) }.to_bytes(),
        Op::SetWatches { relative, data, exist, child } => SetWatches {
            relative_zxid: *relative,
            data_watches: data.clone(),
            exist_watches: exist.clone(),
            child_watches: child.clone(),
        }
        .to_bytes(),
        Op::Close => Bytes::new(),
    }
}

fn result(op: &Op, reply: &Reply) -> Result<Answer, Failure> {
    if let Op::Multi(_) = op
        && !reply.body.is_empty()
    {
        let MultiResponse(results) = reply.body_as();
        let failed = results.iter().enumerate().find_map(|(part, result)| match result {
            // Those before and behind the one that failed say so with these two.
            MultiResult::Error(ErrorCode::OK | ErrorCode::RUNTIME_INCONSISTENCY) => None,
            MultiResult::Error(code) => Some(Failure { code: *code, part }),
            _ => None,
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        let answer = |result: MultiResult| match result {
            MultiResult::Create2(path, stat) => Answer::Created { path, stat },
            MultiResult::SetData(stat) => Answer::Stat(stat),
            _ => Answer::Done,
        };
        return Ok(Answer::Multi(results.into_iter().map(answer).collect()));
    }
    if reply.header.err != ErrorCode::OK {
        return Err(Failure { code: reply.header.err, part: 0 });
    }
    Ok(match op {
        Op::Create { .. } => {
            let Create2Response { path, stat } = reply.body_as();
            Answer::Created { path, stat }
        }
        Op::Set { .. } => Answer::Stat(reply.body_as::<SetDataResponse>().stat),
        Op::Exists { .. } => Answer::Stat(reply.body_as::<ExistsResponse>().stat),
        Op::Get { .. } => {
            let GetDataResponse { data, stat } = reply.body_as();
            Answer::Data { data: data.unwrap_or_default(), stat }
        }
        Op::Children { .. } => {
            let GetChildren2Response { children: names, stat } = reply.body_as();
            Answer::Children { names, stat }
        }
        Op::Delete { .. }
        | Op::Check { .. }
        | Op::Multi(_)
        | Op::Sync
        | Op::SetWatches { .. }
        | Op::Close => Answer::Done,
    })
}
