//! What a server does for its clients, and what it must remember for that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use zk_proto::txn::TxnHeader;
use zk_proto::{OpCode, SessionId, Xid, Zxid};
use zk_session::TouchTable;
use zk_zab::LinkId;

use crate::client::Client;

/// What a server does for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRole {
    /// Nothing: it belongs to an ensemble and has no leader.
    NotServing,
    /// Reads alone, from its last state: it belongs to an ensemble and has had no leader for a while.
    ReadOnly,
    /// It is no member of an ensemble, and does everything.
    Standalone,
    /// It prepares and proposes.
    Leader,
    /// It reads, and forwards everything else.
    Follower,
    /// The same, without a vote.
    Observer,
}

/// The same with what is remembered.
#[derive(Debug)]
pub(crate) enum Role {
    Idle,
    ReadOnly(ReadOnly),
    Leader(Leading),
    Learner(Learning),
}

/// A read-only server's. Its sessions are its own: the tracker knows them, and no log does.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    /// The election that it belongs to: the one that began then.
    pub(crate) looking_since_ms: i64,
}

/// A leader's, also of a quorum of one.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    /// The last transaction that was proposed in this role; 0: none yet.
    pub(crate) last_txn: Zxid,
    /// For each link, the syncs that wait: each for the commit of what was proposed before it.
    pub(crate) syncs: BTreeMap<LinkId, VecDeque<Zxid>>,
}

/// A follower's or observer's.
#[derive(Debug)]
pub(crate) struct Learning {
    /// To the leader.
    pub(crate) link: LinkId,
    pub(crate) observer: bool,
    pub(crate) touches: TouchTable,
    /// What the leader was asked for, in the order in which it was sent.
    pub(crate) forwarded: VecDeque<Forwarded>,
    /// Whose sessions it was asked about.
    pub(crate) revalidations: VecDeque<(SessionId, Asker)>,
    /// Whose syncs it was asked for, in the order in which it answers: an observer's, or (`None`) those
    /// of a client here.
    pub(crate) sync_askers: VecDeque<Option<LinkId>>,
    /// Sessions whose connection is at an observer behind this follower, and that observer's link.
    pub(crate) behind: HashMap<SessionId, LinkId>,
    /// `SYNC` packets that came, less syncs that were answered. Below zero after a write that was
    /// forwarded behind a sync was delivered before the packet came: that write says as much.
    pub(crate) syncs_granted: i64,
    /// The last transaction that was applied.
    pub(crate) applied: Zxid,
}

/// Who waits for the leader's word about a session.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A client here.
    Client(Arc<Client>),
    /// An observer behind this follower.
    Observer(LinkId),
}

#[derive(Debug)]
pub(crate) enum Forwarded {
    /// It comes back as a transaction.
    Write {
        session: SessionId,
        xid: Xid,
        op: OpCode,
        origin: Arc<Client>,
    },
    Sync {
        path: Option<String>,
        origin: Arc<Client>,
    },
    /// Nothing to come back, but in this order, and not before `after` is applied: a client that has
    /// come back to its session must see what its last connection asked for.
    Reattach {
        id: SessionId,
        origin: Arc<Client>,
        after: Zxid,
    },
}

impl Learning {
    pub(crate) fn new(link: LinkId, observer: bool, applied: Zxid) -> Self {
        Self {
            link,
            observer,
            touches: TouchTable::default(),
            forwarded: VecDeque::new(),
            revalidations: VecDeque::new(),
            sync_askers: VecDeque::new(),
            behind: HashMap::new(),
            syncs_granted: 0,
            applied,
        }
    }

    /// Whether the leader has been asked for this session, and has not answered yet.
    pub(crate) fn is_creating(&self, id: SessionId) -> bool {
        self.forwarded.iter().any(|entry| match entry {
            Forwarded::Write { session, op, .. } => *session == id && *op == OpCode::CREATE_SESSION,
            Forwarded::Sync { .. } | Forwarded::Reattach { .. } => false,
        })
    }

    /// Whether this transaction is the answer to the oldest write that was forwarded. The leader keeps
    /// the order of a link, and gives every write one transaction.
    pub(crate) fn is_answer(&self, header: &TxnHeader) -> bool {
        let oldest = self.forwarded.iter().find_map(|entry| match entry {
            Forwarded::Write { session, xid, op, .. } => Some((*session, *xid, *op)),
            Forwarded::Sync { .. } | Forwarded::Reattach { .. } => None,
        });
        oldest.is_some_and(|(session, xid, op)| {
            (session, xid) == (header.client_id, header.cxid)
                && (header.op == op || header.op == OpCode::ERROR)
        })
    }

    /// Whether the front has its turn without a transaction.
    pub(crate) fn has_turn(&self) -> bool {
        match self.forwarded.front() {
            Some(Forwarded::Sync { .. }) => self.syncs_granted > 0,
            Some(Forwarded::Reattach { after, .. }) => *after <= self.applied,
            Some(Forwarded::Write { .. }) | None => false,
        }
    }
}
