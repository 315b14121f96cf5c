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

mod io;
mod peer;

pub use io::{Action, Input, Token, Write};
pub use peer::Peer;
