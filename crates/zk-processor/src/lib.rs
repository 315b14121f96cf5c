//! The request processors: what every client operation means.
//!
//! A [`Node`] is one server without its sockets, disk and clock. Frames of clients go in through
//! [`Node::on_frames`], completions of writes through [`Node::on_persisted`], time through
//! [`Node::on_tick`]; out come writes for the log ([`Action`]) and frames in the clients' outboxes
//! ([`Outbox`]).
//!
//! A write is *prepared* (checked against the tree and the changes that are on their way, made into a
//! transaction that cannot fail any more), *proposed*, persisted, *delivered* and *applied*. A read is
//! answered at once from the tree, unless its session has a write on its way: then it waits for that.
//!
//! # Invariants
//!
//! - T1: a session's requests are answered in the order sent; a read waits for its session's earlier
//!   writes ([`client`]), also for those of an earlier connection: the connect response waits for them.
//! - T2: writes take effect in zxid order, and a multi is seen whole or not at all: one batch is
//!   applied under the tree's write lock.
//! - T3: a read that sets a watch and the registration are one step under the tree's read lock.
//! - T4: an outbox holds a watch event before any reply that shows the change: events, then replies,
//!   are queued before the write lock is released.
//! - T5: the zxid in a session's replies never goes back: it is read under the lock of the reply.
//! - Locks are taken in the order reaper, writer, tree, client, outbox, watch table, and never held
//!   while waiting for anything else.
//! - What is prepared can be applied: nothing that reached the log can stop a server.

mod auth;
pub mod client;
mod config;
mod connect;
mod deliver;
mod exchange;
mod leader;
mod learner;
mod node;
mod outstanding;
mod peer;
mod prep;
mod propose;
mod reads;
mod reaper;
mod reply;
mod role;
mod serve;
mod stats;
mod writes;

pub use auth::{Authenticator, DigestAlgorithm};
pub use client::{Client, ClientInfo, Outbox};
pub use config::{ContainerConfig, NodeConfig, Now};
pub use node::{Action, Flow, Node, Served, Status};
pub use role::ServerRole;
pub use stats::{Histogram, HistogramSnapshot, Sizes, Stats};
