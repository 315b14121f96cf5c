//! The request processors: what every client operation means.
//!
//! A [`Node`] is one server without its sockets, disk and clock. Frames of clients go in through
//! [`Node::on_frames`], packets of other servers through [`Node::on_packets`], completions of writes
//! through [`Node::on_persisted`], time through [`Node::on_tick`]; out come writes for the log and
//! packets for other servers ([`Action`]) and frames in the clients' outboxes ([`Outbox`]).
//!
//! A write is *prepared* (checked against the tree and the changes that are on their way, made into a
//! transaction that cannot fail any more), *proposed*, persisted, *delivered* and *applied*. A read is
//! answered at once from the tree, unless its session has a write on its way: then it waits for that.
//!
//! # Roles
//!
//! A server on its own and a leader prepare and propose. A leader does so for its learners' clients,
//! too: a forwarded write becomes a transaction, or an error transaction, whatever is wrong with it,
//! because the learner waits for that. It alone knows when a session was last heard of, and through whom
//! its requests come: a write that comes through somebody else fails with `SESSION_MOVED`, and the
//! connection that it came from is closed without an answer.
//!
//! A follower or observer answers reads, forwards everything else, and finds the client of a
//! transaction by its order: the leader keeps the order of a link, so the oldest write that was
//! forwarded is answered by the next transaction with its session and number. `SYNC` packets carry no
//! number at all: the leader sends each right behind the commit that it waits for, and a learner takes a
//! sync for answered when a write that it forwarded later comes back.
//!
//! # Local sessions
//!
//! Where `localSessionsEnabled` is set a new session is known to the server that it came to, and to
//! nobody else: it begins and ends without a transaction, expires there, and goes with the server's
//! role. Its reads, watches and writes are like any other; a leader lets a write pass whose session it
//! does not know, if that can be another server's. An ephemeral znode needs an owner that all servers
//! know: with `localSessionsUpgradingEnabled` the session becomes global by a createSession in front of
//! the create, once and for good, and without it the create fails with `EPHEMERAL_ON_LOCAL_SESSION`.
//!
//! When the quorum is lost every client is closed, and what it waited for with it. The tree stays. With
//! [`ReadOnlyMode`] it is served again after a while, as it is, to clients that asked for no more: their sessions are
//! this server's own, and end with the election (`read_only.rs`).
//!
//! # Invariants
//!
//! - T1: a session's requests are answered in the order sent; a read waits for its session's earlier
//!   writes ([`client`]), also for those of an earlier connection, at whatever server: the connect
//!   response waits for them. (Behind one of upstream's leaders: for those of this server.)
//! - T2: writes take effect in zxid order, and a multi is seen whole or not at all: one batch is
//!   applied under the tree's write lock.
//! - T3: a read that sets a watch and the registration are one step under the tree's read lock.
//! - T4: an outbox holds a watch event before any reply that shows the change: events, then replies,
//!   are queued before the write lock is released.
//! - T5: the zxid in a session's replies never goes back: it is read under the lock of the reply.
//! - Locks are taken in the order reaper, writer, tree, client, outbox, watch table, and never held
//!   while waiting for anything else.
//! - What is prepared can be applied: nothing that reached the log can stop a server.
//! - A session is in at most one table: the local one of one server, or the leader's; what is in a
//!   local one is in no transaction but as the author of a write, and is not told to a leader.
//! - What the peer asks for is done in its order, and nothing is decided about the quorum here.

mod auth;
pub mod client;
mod config;
mod connect;
mod deliver;
mod exchange;
mod leader;
mod learner;
mod local;
mod node;
mod observers;
mod outstanding;
mod peer;
mod prep;
mod propose;
mod read_only;
mod reads;
mod reaper;
mod reply;
mod role;
mod serve;
mod stats;
mod writes;

pub use auth::{Authenticator, DigestAlgorithm};
pub use client::{Client, ClientInfo, Outbox};
pub use config::{ContainerConfig, NodeConfig, Now, ReadOnlyMode, ReconfigConfig};
pub use node::{Action, Flow, GlobalSessions, KnownSessions, Node, Served, Status};
pub use role::ServerRole;
pub use stats::{Histogram, HistogramSnapshot, Sizes, Stats};
