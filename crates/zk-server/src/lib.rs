//! The server: sockets, disk, clock and threads around the core.
//!
//! # Invariants
//!
//! - The shell decides nothing about the protocol: bytes go to [`zk_processor::Node`], and what it
//!   answers is done.
//! - One thread writes the log. A reply to a write leaves after its sync; an error of the disk ends the
//!   process.
//! - Nothing is unbounded: frames by `jute.maxbuffer`, requests by the core's limits, replies by the
//!   outbox's.
//! - A panic anywhere ends the process: a server that has lost a thread must not go on answering.

pub mod actions;
pub mod admin;
pub mod client;
pub mod context;
mod exit;
pub mod log;
pub mod membership;
pub mod quorum;
mod server;
mod socket;
pub mod storage;
pub mod version;

pub use exit::Exit;
pub use server::{Running, StartError, run, start};

/// Ends the process at once, after an error that was logged: nothing may be answered any more.
pub(crate) fn abort() -> ! {
    std::process::abort()
}
