//! One client connection: who it is, what it waits for, and where its frames go.
//!
//! `PendingRequests` keeps a session's FIFO (T1): while a write of the session is on its way, whatever
//! the client sends afterwards waits behind it, and is answered right after it, in order.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::BytesMut;
use zk_proto::acl::Id;
use zk_proto::{ErrorCode, OpCode, Request, SessionId, Xid, Zxid};
use zk_session::Heard;
use zk_tree::WatcherId;

use crate::Now;
use crate::auth::Authenticator;

/// Where a connection's frames go. No method waits for anything: a client that does not read is the
/// shell's to close.
pub trait Outbox: Send + Sync + Debug {
    /// Appends bytes: `write` is called once, with the buffer to append to.
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut));

    /// Closes the connection when everything pushed so far has been sent.
    fn close(&self);

    /// The client may be read again after [`crate::Flow::Wait`].
    fn resume(&self);
}

/// What waits in a session's FIFO.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A write on its way; its reply is made when it is applied. `local`: it asks for an ephemeral
    /// znode of a session that stays local.
    Write { xid: Xid, op: OpCode, local: bool, since: Now },
    /// A read (or a ping) behind one, with who the client was when it asked.
    Read { xid: Xid, request: Box<Request>, auth: Arc<[Id]>, since: Now },
    /// A request that is answered with an error in its turn.
    Fail { xid: Xid, op: OpCode, err: ErrorCode, close: bool, since: Now },
    /// The end of a local session, which nobody else is told.
    Close { xid: Xid, since: Now },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first frame has not come.
    Handshake,
    /// The session is being created.
    Connecting,
    /// Requests are served.
    Open,
    /// Nothing more is accepted; the connection closes when the outbox is empty.
    Closing,
}

#[derive(Debug)]
pub(crate) struct ClientState {
    pub(crate) phase: Phase,
    pub(crate) session: SessionId,
    pub(crate) timeout_ms: i32,
    pub(crate) heard: Option<Heard>,
    pub(crate) auth: Arc<[Id]>,
    /// What the connect request said in its last field; the answer says as much.
    pub(crate) read_only: Option<bool>,
    pub(crate) pending: VecDeque<Pending>,
    /// The shell does not read until [`Outbox::resume`].
    pub(crate) waiting: bool,
    pub(crate) info: ClientInfo,
}

/// What `cons` shows about a connection.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// Its session; 0 before there is one.
    pub session: SessionId,
    /// The negotiated timeout, in ms.
    pub timeout_ms: i32,
    /// Requests without an answer.
    pub queued: usize,
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// When it was established, in ms of the wall clock.
    pub established_ms: i64,
    /// The last operation that was answered; `None`: none yet.
    pub last_op: Option<OpCode>,
    /// The last request's number; −1: none yet.
    pub last_cxid: i32,
    /// The zxid of the last reply.
    pub last_zxid: Zxid,
    /// When the last reply was made, in ms of the monotonic clock.
    pub last_response_ms: i64,
    /// Latencies in ms: last, least, most; and their sum over `latency_count` replies.
    pub last_latency_ms: i64,
    /// The least.
    pub min_latency_ms: i64,
    /// The most.
    pub max_latency_ms: i64,
    /// Their sum.
    pub total_latency_ms: i64,
    /// How many were summed up.
    pub latency_count: i64,
}

impl ClientInfo {
    fn new(now: Now) -> Self {
        Self {
            session: SessionId(0),
            timeout_ms: 0,
            queued: 0,
            received: 0,
            sent: 0,
            established_ms: now.wall_ms,
            last_op: None,
            last_cxid: -1,
            last_zxid: Zxid(-1),
            last_response_ms: 0,
            last_latency_ms: 0,
            min_latency_ms: 0,
            max_latency_ms: 0,
            total_latency_ms: 0,
            latency_count: 0,
        }
    }

    /// A request was answered.
    pub(crate) fn replied(&mut self, xid: Xid, op: OpCode, zxid: Zxid, since: Now, now: Now) {
        let latency_ms = ((now.mono_us - since.mono_us) / 1000).max(0);
        self.sent += 1;
        self.last_op = Some(op);
        if xid.0 >= 0 {
            self.last_cxid = xid.0; // pings and their like have no number of their own
        }
        self.last_zxid = zxid;
        self.last_response_ms = now.mono_ms();
        self.last_latency_ms = latency_ms;
        self.min_latency_ms =
            if self.latency_count == 0 { latency_ms } else { self.min_latency_ms.min(latency_ms) };
        self.max_latency_ms = self.max_latency_ms.max(latency_ms);
        self.total_latency_ms += latency_ms;
        self.latency_count += 1;
    }

    /// What `crst` does.
    fn reset(&mut self) {
        let fresh = Self::new(Now { mono_us: 0, wall_ms: self.established_ms });
        let Self { session, timeout_ms, queued, .. } = *self;
        *self = Self { session, timeout_ms, queued, ..fresh };
    }
}

/// A connection, shared by the shell's tasks and the node.
#[derive(Debug)]
pub struct Client {
    /// Its number in this process.
    pub id: WatcherId,
    /// The client's address as text, as the `ip` scheme has it.
    pub address: String,
    pub(crate) outbox: Box<dyn Outbox>,
    state: Mutex<ClientState>,
}

impl Client {
    pub(crate) fn new(id: WatcherId, address: String, outbox: Box<dyn Outbox>, now: Now) -> Self {
        let auth = Authenticator::initial_ids(&address).into();
        let state = Mutex::new(ClientState {
            phase: Phase::Handshake,
            session: SessionId(0),
            timeout_ms: 0,
            heard: None,
            auth,
            read_only: None,
            pending: VecDeque::new(),
            waiting: false,
            info: ClientInfo::new(now),
        });
        Self { id, address, outbox, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// Nothing more is accepted, and what waits is not answered.
    pub(crate) fn hang_up(&self) {
        let mut state = self.state();
        state.phase = Phase::Closing;
        state.pending.clear();
        self.outbox.close();
    }

    /// What is known about the connection.
    #[must_use]
    pub fn info(&self) -> ClientInfo {
        let state = self.state();
        ClientInfo {
            session: state.session,
            timeout_ms: state.timeout_ms,
            queued: state.pending.len(),
            ..state.info.clone()
        }
    }

    /// Forgets what has been counted.
    pub fn reset_info(&self) {
        self.state().info.reset();
    }

    /// Whether a session has been established on it.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.state().session.0 != 0
    }
}
