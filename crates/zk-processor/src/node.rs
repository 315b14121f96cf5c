//! One server without its sockets, disk and clock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use zk_proto::acl::Perms;
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::proto::{RequestHeader, SetSaslResponse, SyncResponse};
use zk_proto::txn::{CreateSessionTxn, ErrorTxn, LoggedTxn, Txn, TxnDigest, TxnHeader};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, Reader, Record, Request, RequestError, SessionId, Xid, Zxid};
use zk_session::{SessionTracker, check_password, password};
use zk_tree::{Checkpoint, DIGEST_VERSION, Database, Outcome, WatchEvent, WatcherId};
use zk_zab::{Action as PeerAction, Input, Peer, Token, Write};

use crate::auth::AuthOutcome;
use crate::client::{Client, ClientState, Outbox, Pending, Phase};
use crate::outstanding::OutstandingChanges;
use crate::prep::Prep;
use crate::reads::Read;
use crate::reaper::Reaper;
use crate::stats::Stats;
use crate::{NodeConfig, Now, reply, writes};

/// Transactions applied under one hold of the tree's write lock: about 50 µs of work, which is what a
/// reader may have to wait.
const APPLY_BATCH: usize = 64;

/// Requests of one connection that may wait for an answer before it is not read any more. A client
/// that pipelines more is served as fast, just not buffered further.
const PENDING_MAX: usize = 2048;

/// What the shell has to do.
#[derive(Debug)]
pub enum Action {
    /// Put `write` behind the writes before it, make it durable, then call [`Node::on_persisted`].
    Persist {
        /// The write's name.
        token: Token,
        /// The write.
        write: Write,
    },
}

/// Whether a connection is to be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Continue,
    /// Keep what has been read, and read no further until [`Outbox::resume`] (or the end).
    Wait,
    /// Close the connection at once; `0` says why.
    Close(&'static str),
}

/// What became of a batch of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whether to read on.
    pub flow: Flow,
    /// How many reads were answered at once, for the latency that only the shell can measure.
    pub reads: u64,
}

/// A server at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// The last transaction that was applied.
    pub zxid: Zxid,
    /// Znodes, as upstream counts them.
    pub node_count: usize,
    /// Connections.
    pub connections: usize,
    /// Requests on their way.
    pub outstanding: usize,
    /// Sessions.
    pub sessions: usize,
    /// Paths with a change on its way.
    pub outstanding_changes: usize,
}

#[derive(Debug)]
enum InFlight {
    Txn { txn: LoggedTxn, origin: Option<Arc<Client>> },
    /// Not a transaction, but in their order.
    Sync { path: Option<String>, origin: Arc<Client> },
}

/// What only one thread at a time may touch: everything that writes depend on (R4).
#[derive(Debug)]
struct Writer {
    peer: Peer,
    sessions: SessionTracker,
    changes: OutstandingChanges,
    reaper: Reaper,
    in_flight: VecDeque<InFlight>,
    clients: HashMap<WatcherId, Arc<Client>>,
    by_session: HashMap<SessionId, Arc<Client>>,
    /// Transactions are encoded here; what has been proposed is split off.
    buffer: BytesMut,
}

/// A server: processors, sessions, tree and Zab peer. See the crate's documentation.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    db: RwLock<Database>,
    writer: Mutex<Writer>,
    stats: Stats,
    next_client: AtomicU64,
    connections: AtomicUsize,
    outstanding: AtomicUsize,
    accepts_writes: AtomicBool,
}

const NOT_POISONED: &str = "no holder of this lock panics: a panic ends the process";

/// A request as it came in, decoded before any lock is taken.
struct Incoming {
    xid: Xid,
    op: OpCode,
    request: Result<Request, RequestError>,
}

impl Incoming {
    fn decode(frame: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let RequestHeader { xid, op } = RequestHeader::parse(&mut reader).ok()?;
        Some(Self { xid, op, request: Request::decode(op, &reader.take_rest()) })
    }

    fn is_write(&self) -> bool {
        is_write(self.op)
    }
}

/// Whether an operation goes through prep (or, as sync, keeps the order with those that do).
fn is_write(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::CREATE
            | OpCode::CREATE2
            | OpCode::CREATE_CONTAINER
            | OpCode::CREATE_TTL
            | OpCode::DELETE
            | OpCode::SET_DATA
            | OpCode::SET_ACL
            | OpCode::MULTI
            | OpCode::RECONFIG
            | OpCode::SYNC
            | OpCode::CLOSE_SESSION
    )
}

/// Whether an operation makes the log grow for good: what is refused while the disk is nearly full.
/// Deletes and the end of sessions free more than they take.
fn grows(op: OpCode) -> bool {
    is_write(op) && !matches!(op, OpCode::DELETE | OpCode::SYNC | OpCode::CLOSE_SESSION)
}

impl Node {
    /// A standalone server whose tree and log end with the same transaction.
    #[must_use]
    pub fn standalone(config: NodeConfig, db: Database, now: Now) -> Self {
        let mut sessions = SessionTracker::new(config.session);
        for (id, timeout_ms) in db.tree.sessions() {
            sessions.track(*id, *timeout_ms, now.mono_ms());
        }
        let writer = Writer {
            peer: Peer::recover_standalone(db.tree.last_zxid()),
            sessions,
            changes: OutstandingChanges::new(config.digest_enabled.then(|| db.tree.digest())),
            reaper: Reaper::new(&config, now),
            in_flight: VecDeque::new(),
            clients: HashMap::new(),
            by_session: HashMap::new(),
            buffer: BytesMut::new(),
        };
        Self {
            config,
            db: RwLock::new(db),
            writer: Mutex::new(writer),
            stats: Stats::default(),
            next_client: AtomicU64::new(1),
            connections: AtomicUsize::new(0),
            outstanding: AtomicUsize::new(0),
            accepts_writes: AtomicBool::new(true),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect(NOT_POISONED)
    }

    fn db(&self) -> RwLockReadGuard<'_, Database> {
        self.db.read().expect(NOT_POISONED)
    }

    fn db_mut(&self) -> RwLockWriteGuard<'_, Database> {
        self.db.write().expect(NOT_POISONED)
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Looks at the tree and the watches. Writes wait meanwhile: keep it short.
    pub fn read<T>(&self, look: impl FnOnce(&Database) -> T) -> T {
        look(&self.db())
    }

    /// The server at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let writer = self.writer();
        let db = self.db();
        Status {
            zxid: db.tree.last_zxid(),
            node_count: db.tree.node_count(),
            connections: writer.clients.len(),
            outstanding: self.outstanding.load(Ordering::Relaxed),
            sessions: writer.sessions.len(),
            outstanding_changes: writer.changes.len(),
        }
    }

    /// The connections, by number.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.writer().clients.values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// The sessions by the tick at which they expire, for `dump`.
    #[must_use]
    pub fn sessions_by_expiry(&self) -> BTreeMap<i64, Vec<SessionId>> {
        self.writer().sessions.by_expiry()
    }

    /// Refuses writes that make the log grow, or accepts them again: the shell watches the disk.
    pub fn accept_writes(&self, accept: bool) {
        self.accepts_writes.store(accept, Ordering::Relaxed);
    }

    /// Begins to take down what changed since the last checkpoint, as of this moment.
    pub fn begin_checkpoint(&self) -> Checkpoint {
        self.db_mut().begin_checkpoint()
    }

    /// Ends a checkpoint; if it is not safe on disk, what it took counts as changed again.
    pub fn end_checkpoint(&self, checkpoint: Checkpoint, safe: bool) {
        let spent = self.db_mut().end_checkpoint(checkpoint, safe);
        drop(spent); // outside the lock: it may be large
    }

    /// A client connected from `address`.
    pub fn open(&self, address: String, outbox: Box<dyn Outbox>, now: Now) -> Arc<Client> {
        let id = WatcherId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let client = Arc::new(Client::new(id, address, outbox, now));
        self.writer().clients.insert(id, Arc::clone(&client));
        self.connections.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// The connection is gone. Its session lives on until it expires.
    pub fn on_closed(&self, client: &Arc<Client>) {
        let mut writer = self.writer();
        writer.clients.remove(&client.id);
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let db = self.db();
        let mut state = client.state();
        state.phase = Phase::Closing;
        // Under the tree's lock: no read of this connection can set a watch after this.
        state.pending.clear();
        db.watches.remove_watcher(client.id);
        let session = state.session;
        if writer.by_session.get(&session).is_some_and(|owner| owner.id == client.id) {
            writer.by_session.remove(&session);
        }
    }

    /// Frames came in from a client, without their lengths. Takes them from the front as far as they
    /// can be served now.
    pub fn on_frames(
        &self,
        client: &Arc<Client>,
        frames: &mut VecDeque<Bytes>,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Served {
        let flow = |flow| Served { flow, reads: 0 };
        loop {
            let mut state = client.state();
            match state.phase {
                Phase::Handshake => {
                    drop(state);
                    let Some(frame) = frames.pop_front() else { return flow(Flow::Continue) };
                    if let Err(why) = self.connect(client, &frame, now, actions) {
                        return flow(Flow::Close(why));
                    }
                }
                Phase::Connecting => {
                    state.waiting = true;
                    return flow(Flow::Wait);
                }
                Phase::Closing => {
                    frames.clear();
                    return flow(Flow::Wait);
                }
                Phase::Open => {
                    let limit = self.config.global_outstanding_limit;
                    let crowded = self.outstanding.load(Ordering::Relaxed) > limit;
                    if state.pending.len() >= PENDING_MAX || (crowded && !state.pending.is_empty()) {
                        state.waiting = true;
                        return flow(Flow::Wait);
                    }
                    drop(state);
                    return self.serve(client, frames, now, actions);
                }
            }
        }
    }

    fn serve(
        &self,
        client: &Arc<Client>,
        frames: &mut VecDeque<Bytes>,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Served {
        let mut served = Served { flow: Flow::Continue, reads: 0 };
        let mut requests = Vec::with_capacity(frames.len());
        for frame in frames.drain(..) {
            match Incoming::decode(&frame) {
                Some(request) => requests.push(request),
                None => {
                    served.flow = Flow::Close("a frame is too short for a request header");
                    break;
                }
            }
        }
        let received = requests.len() as u64;
        Stats::add(&self.stats.packets_received, received);

        let mut writer = requests.iter().any(Incoming::is_write).then(|| self.writer());
        let db = self.db();
        let mut state = client.state();
        if let Some(heard) = &state.heard {
            heard.touch(now.mono_ms());
        }
        state.info.received += received;
        let mut body = BytesMut::new();
        let mut sent = 0;
        for Incoming { xid, op, request } in requests {
            if state.phase != Phase::Open {
                break;
            }
            let request = match request {
                Ok(Request::Auth(packet)) => {
                    let auth = packet.auth.as_deref().unwrap_or_default();
                    if let Err(why) = self.authenticate(client, &mut state, xid, &packet.scheme, auth)
                    {
                        served.flow = Flow::Close(why);
                        break;
                    }
                    sent += 1;
                    continue;
                }
                Ok(Request::Sasl(request)) if request.token.is_some() => {
                    client.outbox.push(&mut |out| {
                        reply::frame(out, |out| {
                            reply::header(out, xid, Zxid::ZERO, ErrorCode::OK);
                            SetSaslResponse { token: None }.encode(out);
                        });
                    });
                    sent += 1;
                    continue;
                }
                Ok(Request::Sasl(_)) => {
                    served.flow = Flow::Close("a SASL request without a token");
                    break;
                }
                Err(RequestError::Body(_)) if matches!(op, OpCode::AUTH | OpCode::SASL) => {
                    served.flow = Flow::Close("an authentication request that cannot be decoded");
                    break;
                }
                request => request,
            };
            let fail = |err, close| Pending::Fail { xid, op, err, close, since: now };
            let refuse = grows(op) && !self.accepts_writes.load(Ordering::Relaxed);
            match (request, &mut writer) {
                (_, _) if refuse => {
                    sent += self.enqueue(client, &mut state, &db, fail(ErrorCode::SYSTEM_ERROR, false), now);
                }
                (Ok(request), Some(writer)) if is_write(op) => {
                    state.pending.push_back(Pending::Write { xid, op, since: now });
                    if op == OpCode::CLOSE_SESSION {
                        state.phase = Phase::Closing;
                    }
                    if let Request::Sync(request) = request {
                        self.sync(writer, client, request.path);
                    } else {
                        self.submit(writer, &db, client, &state, xid, &request, now, actions);
                    }
                }
                (Err(RequestError::Body(_)), Some(writer)) if is_write(op) => {
                    state.pending.push_back(Pending::Write { xid, op, since: now });
                    let header = self.header(writer, state.session, xid, OpCode::ERROR, now);
                    let txn = Txn::Error(ErrorTxn { err: ErrorCode::MARSHALLING_ERROR });
                    self.propose(writer, header, txn, Some(client), actions);
                }
                (Ok(request), _) => {
                    if state.pending.is_empty() {
                        sent += self.answer(client, &mut state, &db, xid, &request, now, now, &mut body);
                        served.reads += 1;
                    } else {
                        let request = Box::new(request);
                        state.pending.push_back(Pending::Read { xid, request, since: now });
                    }
                }
                (Err(RequestError::Body(_)), _) => {
                    let pending = fail(ErrorCode::MARSHALLING_ERROR, false);
                    sent += self.enqueue(client, &mut state, &db, pending, now);
                }
                (Err(RequestError::UnknownOp(_)), _) => {
                    let pending = fail(ErrorCode::UNIMPLEMENTED, true);
                    sent += self.enqueue(client, &mut state, &db, pending, now);
                }
            }
        }
        Stats::add(&self.stats.packets_sent, sent);
        drop(state);
        drop(db);
        if let Some(writer) = &mut writer {
            self.deliver_syncs(writer, now);
        }
        served
    }

    /// Behind what the session waits for, or answered at once.
    fn enqueue(
        &self,
        client: &Client,
        state: &mut ClientState,
        db: &Database,
        pending: Pending,
        now: Now,
    ) -> u64 {
        state.pending.push_back(pending);
        if state.pending.len() == 1 { self.drain(client, state, db, now) } else { 0 }
    }

    /// Answers what waits in a session's FIFO, up to the next write that is on its way. Gives the
    /// number of frames pushed.
    fn drain(&self, client: &Client, state: &mut ClientState, db: &Database, now: Now) -> u64 {
        let mut sent = 0;
        let mut body = BytesMut::new();
        while let Some(pending) =
            state.pending.pop_front_if(|pending| !matches!(pending, Pending::Write { .. }))
        {
            match pending {
                Pending::Write { .. } => unreachable!("writes stay"),
                Pending::Read { xid, request, since } => {
                    sent += self.answer(client, state, db, xid, &request, since, now, &mut body);
                    self.measure(&self.stats.read_latency, since, now);
                }
                Pending::Fail { xid, op, err, close, since } => {
                    let zxid = db.tree.last_zxid();
                    client.outbox.push(&mut |out| reply::empty(out, xid, zxid, err));
                    state.info.replied(xid, op, zxid, since, now);
                    sent += 1;
                    if close {
                        state.phase = Phase::Closing;
                        state.pending.clear();
                        client.outbox.close();
                    }
                }
            }
        }
        if state.waiting && state.pending.len() < PENDING_MAX / 2 {
            state.waiting = false;
            client.outbox.resume();
        }
        sent
    }

    #[allow(clippy::too_many_arguments, reason = "everything a read is about, once")]
    fn answer(
        &self,
        client: &Client,
        state: &mut ClientState,
        db: &Database,
        xid: Xid,
        request: &Request,
        since: Now,
        now: Now,
        body: &mut BytesMut,
    ) -> u64 {
        body.clear();
        let read = Read::new(db, &self.config.auth, client, state);
        let answer = read.run(request, body);
        let zxid = db.tree.last_zxid();
        let xid = if matches!(request, Request::Ping) { Xid::PING } else { xid };
        client.outbox.push(&mut |out| {
            reply::frame(out, |out| {
                reply::header(out, xid, zxid, answer.err);
                if answer.err == ErrorCode::OK {
                    out.extend_from_slice(body);
                }
            });
        });
        state.info.replied(xid, request.op(), zxid, since, now);
        answer.events + 1
    }

    fn authenticate(
        &self,
        client: &Client,
        state: &mut ClientState,
        xid: Xid,
        scheme: &str,
        auth: &[u8],
    ) -> Result<(), &'static str> {
        let answer = |err| {
            client.outbox.push(&mut |out| reply::empty(out, xid, Zxid::ZERO, err));
        };
        let ensemble = scheme == "ensemble" && self.config.auth.ensemble_names.is_some();
        match self.config.auth.authenticate(scheme, auth, &client.address) {
            AuthOutcome::Granted(ids) => {
                if ensemble {
                    let skipped = auth.is_empty()
                        || self.config.auth.ensemble_names.as_ref().is_some_and(Vec::is_empty);
                    let counter = if skipped {
                        &self.stats.ensemble_auth_skip
                    } else {
                        &self.stats.ensemble_auth_success
                    };
                    Stats::add(counter, 1);
                }
                let mut all = state.auth.to_vec();
                for id in ids {
                    if !all.contains(&id) {
                        all.push(id);
                    }
                }
                state.auth = all.into();
                answer(ErrorCode::OK);
            }
            AuthOutcome::Failed => {
                Stats::add(&self.stats.auth_failures, 1);
                answer(ErrorCode::AUTH_FAILED);
                state.phase = Phase::Closing;
                client.outbox.close();
            }
            AuthOutcome::WrongEnsemble => {
                Stats::add(&self.stats.ensemble_auth_fail, 1);
                return Err("the client belongs to another ensemble");
            }
        }
        Ok(())
    }

    fn header(
        &self,
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

    /// Prepares and proposes a client's write.
    #[allow(clippy::too_many_arguments, reason = "everything a write is about, once")]
    fn submit(
        &self,
        writer: &mut Writer,
        db: &Database,
        client: &Arc<Client>,
        state: &ClientState,
        xid: Xid,
        request: &Request,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        let mut header = self.header(writer, state.session, xid, request.op(), now);
        let mut prep = Prep {
            config: &self.config,
            tree: &db.tree,
            changes: &mut writer.changes,
            sessions: &writer.sessions,
            session: state.session,
            auth: &state.auth,
            zxid: header.zxid,
            wall_ms: now.wall_ms,
        };
        let txn = match prep.request(request) {
            Ok(txn) => txn,
            Err(err) => {
                if err == ErrorCode::QUOTA_EXCEEDED {
                    Stats::add(&self.stats.quota_exceeded, 1);
                }
                header.op = OpCode::ERROR;
                Txn::Error(ErrorTxn { err })
            }
        };
        if matches!(request, Request::CloseSession) {
            writer.sessions.set_closing(state.session);
        }
        self.propose(writer, header, txn, Some(client), actions);
    }

    /// Prepares and proposes a write that no client asked for.
    fn submit_internal(
        &self,
        writer: &mut Writer,
        session: SessionId,
        op: OpCode,
        now: Now,
        actions: &mut dyn FnMut(Action),
        prepare: impl FnOnce(&mut Prep<'_>) -> Result<Txn, ErrorCode>,
    ) {
        let db = self.db();
        let header = self.header(writer, session, Xid(0), op, now);
        let mut prep = Prep {
            config: &self.config,
            tree: &db.tree,
            changes: &mut writer.changes,
            sessions: &writer.sessions,
            session,
            auth: &[],
            zxid: header.zxid,
            wall_ms: now.wall_ms,
        };
        // What has become impossible is not worth a transaction: nobody waits for its answer.
        if let Ok(txn) = prepare(&mut prep) {
            drop(db);
            self.propose(writer, header, txn, None, actions);
        }
    }

    fn propose(
        &self,
        writer: &mut Writer,
        header: TxnHeader,
        txn: Txn,
        origin: Option<&Arc<Client>>,
        actions: &mut dyn FnMut(Action),
    ) {
        let digest = writer
            .changes
            .digest()
            .map(|digest| TxnDigest { version: DIGEST_VERSION, tree_digest: digest.cast_signed() });
        let txn = LoggedTxn { header, txn, digest };
        txn.encode(&mut writer.buffer);
        let bytes = writer.buffer.split().freeze();
        writer.in_flight.push_back(InFlight::Txn { txn, origin: origin.cloned() });
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Stats::add(&self.stats.proposals, 1);
        writer.peer.step(Input::Propose { zxid: header.zxid, txn: bytes });
        while let Some(action) = writer.peer.poll_action() {
            match action {
                PeerAction::Persist { token, write } => actions(Action::Persist { token, write }),
                PeerAction::Deliver { .. } => unreachable!("nothing is delivered before it is on disk"),
            }
        }
    }

    fn sync(&self, writer: &mut Writer, client: &Arc<Client>, path: Option<String>) {
        writer.in_flight.push_back(InFlight::Sync { path, origin: Arc::clone(client) });
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// All writes up to `token` are on disk.
    pub fn on_persisted(&self, token: Token, now: Now, actions: &mut dyn FnMut(Action)) {
        let mut writer = self.writer();
        writer.peer.step(Input::Persisted { token });
        while let Some(action) = writer.peer.poll_action() {
            match action {
                PeerAction::Deliver { zxid } => self.deliver(&mut writer, zxid, now),
                PeerAction::Persist { token, write } => actions(Action::Persist { token, write }),
            }
        }
    }

    /// Applies everything up to `zxid`, and what is in its order.
    fn deliver(&self, writer: &mut Writer, zxid: Zxid, now: Now) {
        let due = |entry: &mut InFlight| match entry {
            InFlight::Txn { txn, .. } => txn.header.zxid <= zxid,
            InFlight::Sync { .. } => true,
        };
        loop {
            let mut db = self.db_mut();
            for _ in 0..APPLY_BATCH {
                let Some(entry) = writer.in_flight.pop_front_if(due) else { return };
                self.outstanding.fetch_sub(1, Ordering::Relaxed);
                match entry {
                    InFlight::Txn { txn, origin } => self.apply(writer, &mut db, &txn, origin, now),
                    InFlight::Sync { path, origin } => self.synced(&db, &origin, path, now),
                }
            }
        }
    }

    /// A sync with nothing before it is answered at once.
    fn deliver_syncs(&self, writer: &mut Writer, now: Now) {
        if matches!(writer.in_flight.front(), Some(InFlight::Sync { .. })) {
            self.deliver(writer, Zxid(i64::MIN), now);
        }
    }

    fn synced(&self, db: &Database, client: &Client, path: Option<String>, now: Now) {
        let mut state = client.state();
        let Some(Pending::Write { xid, op, since }) = pop_write(&mut state) else { return };
        let zxid = db.tree.last_zxid();
        let response = SyncResponse { path };
        client.outbox.push(&mut |out| {
            reply::frame(out, |out| {
                reply::header(out, xid, zxid, ErrorCode::OK);
                response.encode(out);
            });
        });
        state.info.replied(xid, op, zxid, since, now);
        let sent = 1 + self.drain(client, &mut state, db, now);
        Stats::add(&self.stats.packets_sent, sent);
    }

    fn apply(
        &self,
        writer: &mut Writer,
        db: &mut Database,
        txn: &LoggedTxn,
        origin: Option<Arc<Client>>,
        now: Now,
    ) {
        let clients = &writer.clients;
        let mut events = 0;
        let outcome = db.apply(txn, &mut |watcher, event| {
            let Some(client) = clients.get(&watcher) else { return };
            if self.notify(client, event) {
                events += 1;
            }
        });
        Stats::add(&self.stats.packets_sent, events);
        Stats::add(&self.stats.commits, 1);
        self.compare_digest(writer, db, txn);
        writer.changes.applied(txn.header.zxid);
        match &txn.txn {
            Txn::CreateSession(created) => {
                if let Some(client) = origin {
                    self.session_created(&client, txn.header.client_id, *created);
                }
            }
            Txn::CloseSession(_) => self.session_closed(writer, db, txn, origin.as_deref(), now),
            Txn::Error(_)
            | Txn::Create(_)
            | Txn::CreateContainer(_)
            | Txn::CreateTtl(_)
            | Txn::Delete(_)
            | Txn::SetData(_)
            | Txn::SetAcl(_)
            | Txn::Check(_)
            | Txn::Multi(_) => {
                if let Some(client) = origin {
                    self.complete(&client, db, txn, &outcome, now);
                }
            }
        }
    }

    /// Queues an event for a connection that may read what it is about.
    fn notify(&self, client: &Client, event: &WatchEvent<'_>) -> bool {
        let mut state = client.state();
        if self.config.auth.check(event.acl, Perms::READ, &state.auth).is_err() {
            return false;
        }
        client.outbox.push(&mut |out| reply::event(out, event));
        state.info.sent += 1;
        Stats::add(&self.stats.watch_events, 1);
        let counter = match event.event_type {
            EventType::NodeCreated => &self.stats.node_created_watches,
            EventType::NodeDeleted => &self.stats.node_deleted_watches,
            EventType::NodeDataChanged => &self.stats.node_changed_watches,
            EventType::NodeChildrenChanged => &self.stats.node_children_watches,
        };
        Stats::add(counter, 1);
        true
    }

    /// The tree must have become what prep said it would. If it did not, that is counted and the
    /// prediction starts over: a wrong prediction is no reason to lose a server that has the data.
    fn compare_digest(&self, writer: &mut Writer, db: &Database, txn: &LoggedTxn) {
        let Some(digest) = txn.digest else { return };
        if digest.tree_digest.cast_unsigned() == db.tree.digest() {
            return;
        }
        debug_assert!(false, "digest of {:?} is not as predicted", txn.header);
        Stats::add(&self.stats.digest_mismatches, 1);
        if writer.in_flight.is_empty() {
            writer.changes.reset_digest(db.tree.digest());
        }
    }

    /// Answers a write that has been applied, and the reads that waited for it.
    fn complete(&self, client: &Client, db: &Database, txn: &LoggedTxn, outcome: &Outcome, now: Now) {
        let mut state = client.state();
        let Some(Pending::Write { xid, op, since }) = pop_write(&mut state) else { return };
        assert_eq!(xid, txn.header.cxid, "replies of {} are out of order", state.session);
        let zxid = db.tree.last_zxid();
        client.outbox.push(&mut |out| {
            reply::write(out, xid, zxid, op, &txn.txn, outcome);
        });
        state.info.replied(xid, op, zxid, since, now);
        self.measure(&self.stats.update_latency, since, now);
        let sent = 1 + self.drain(client, &mut state, db, now);
        Stats::add(&self.stats.packets_sent, sent);
    }

    fn measure(&self, histogram: &crate::Histogram, since: Now, now: Now) {
        let latency = u64::try_from(now.mono_us - since.mono_us).unwrap_or_default();
        histogram.record(latency);
        self.stats.latency.record(latency);
    }

    /// The first frame of a connection.
    fn connect(
        &self,
        client: &Arc<Client>,
        frame: &Bytes,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), &'static str> {
        let mut reader = Reader::new(frame);
        let Ok(request) = ConnectRequest::parse(&mut reader) else {
            return Err("the first frame is no connect request");
        };
        Stats::add(&self.stats.packets_received, 1);
        let mut writer = self.writer();
        if request.last_zxid_seen > self.db().tree.last_zxid() {
            return Err("the client has seen a zxid that this server has not reached");
        }
        let timeout_ms = writer.sessions.negotiate(request.timeout_ms);
        let mut state = client.state();
        state.info.received += 1;
        state.read_only = request.read_only;
        state.timeout_ms = timeout_ms;
        if request.session_id.0 == 0 {
            let id = writer.sessions.next_id();
            writer.sessions.track(id, timeout_ms, now.mono_ms());
            state.phase = Phase::Connecting;
            state.session = id;
            state.heard = writer.sessions.heard(id);
            drop(state);
            writer.by_session.insert(id, Arc::clone(client));
            let header = self.header(&writer, id, Xid(0), OpCode::CREATE_SESSION, now);
            let txn = Txn::CreateSession(CreateSessionTxn { timeout_ms });
            self.propose(&mut writer, header, txn, Some(client), actions);
            return Ok(());
        }
        let id = request.session_id;
        drop(state);
        // The old connection goes before the password is looked at, as upstream has it: it is the same
        // client in all likelihood, and a wrong guess costs it no more than a reconnect.
        if let Some(old) = writer.by_session.remove(&id) {
            old.state().phase = Phase::Closing;
            old.outbox.close();
        }
        let given = request.password.as_deref().unwrap_or_default();
        let heard = if check_password(id, given) {
            writer.sessions.reattach(id, timeout_ms, now.mono_ms())
        } else {
            None
        };
        let mut state = client.state();
        if heard.is_some() {
            state.heard = heard;
            Stats::add(&self.stats.revalidations, 1);
            writer.by_session.insert(id, Arc::clone(client));
            self.connected(client, &mut state, id);
        } else {
            let response = ConnectResponse::expired(request.read_only.map(|_| false));
            client.outbox.push(&mut |out| reply::connect(out, &response));
            state.phase = Phase::Closing;
            client.outbox.close();
        }
        Ok(())
    }

    fn session_created(&self, client: &Client, id: SessionId, txn: CreateSessionTxn) {
        let mut state = client.state();
        if state.phase != Phase::Connecting {
            return; // gone again; its session expires by itself
        }
        state.timeout_ms = txn.timeout_ms;
        self.connected(client, &mut state, id);
    }

    fn connected(&self, client: &Client, state: &mut ClientState, id: SessionId) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: state.timeout_ms,
            session_id: id,
            password: Some(Bytes::copy_from_slice(&password(id))),
            read_only: state.read_only.map(|_| false),
        };
        state.session = id;
        state.phase = Phase::Open;
        state.info.sent += 1;
        client.outbox.push(&mut |out| reply::connect(out, &response));
        Stats::add(&self.stats.packets_sent, 1);
        Stats::add(&self.stats.connection_requests, 1);
        if state.waiting {
            state.waiting = false;
            client.outbox.resume();
        }
    }

    fn session_closed(
        &self,
        writer: &mut Writer,
        db: &Database,
        txn: &LoggedTxn,
        origin: Option<&Client>,
        now: Now,
    ) {
        let id = txn.header.client_id;
        writer.sessions.remove(id);
        if let Some(client) = origin {
            self.complete(client, db, txn, &Outcome::Done, now);
        }
        if let Some(client) = writer.by_session.remove(&id) {
            client.state().phase = Phase::Closing;
            db.watches.remove_watcher(client.id);
            client.outbox.close();
        }
    }

    /// Time has passed: sessions expire, containers go. To be called a few times in each tick.
    pub fn on_tick(&self, now: Now, actions: &mut dyn FnMut(Action)) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        for id in writer.sessions.expire(now.mono_ms()) {
            Stats::add(&self.stats.sessions_expired, 1);
            self.submit_internal(writer, id, OpCode::CLOSE_SESSION, now, actions, |prep| {
                Ok(writes::close_session::prepare(prep))
            });
        }
        let due = writer.reaper.due(&self.config, &self.db().tree, now);
        for path in due {
            Stats::add(&self.stats.containers_deleted, 1);
            let internal = SessionId(0);
            self.submit_internal(writer, internal, OpCode::DELETE_CONTAINER, now, actions, |prep| {
                writes::delete::prepare_container(prep, &path)
            });
        }
    }
}

/// The session's oldest request that waits for an answer, which must be the write that was applied.
fn pop_write(state: &mut ClientState) -> Option<Pending> {
    // Nothing waits on a connection that is gone.
    state.pending.pop_front_if(|pending| matches!(pending, Pending::Write { .. }))
}
