//! Zab: the order in which an ensemble agrees on transactions.
//!
//! A [`Peer`] is a state machine: [`Peer::step`] takes an [`Input`], [`Peer::poll_action`] yields what
//! the shell has to do about it. It knows no socket, disk, clock or thread, and nothing of the tree: to
//! it a transaction is a zxid and opaque bytes.
//!
//! A standalone server is a peer that leads a quorum of one. It has no election and no learners, and
//! the same path for writes: propose, persist, deliver.
//!
//! # Invariants
//!
//! - Transactions are delivered in zxid order, each once, without a gap.
//! - Nothing is delivered before it is on the disks of a quorum.

mod config;
mod core;
mod election;
mod history;
mod io;
mod leader;
mod learner;
mod log_tail;
mod looking;
mod packet;
mod peer;
mod quorum;
mod status;
mod sync_plan;

pub use config::{Durable, Members, PeerConfig};
pub use history::{History, NoHistory};
pub use io::{Action, Input, LinkId, ServingRole, Token, Write};
pub use peer::Peer;
pub use quorum::QuorumVerifier;
pub use status::{LearnerPhase, LearnerStatus, PeerStatus};
