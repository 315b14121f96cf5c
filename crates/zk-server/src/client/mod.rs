//! The client port: listening, connections, framing, outboxes.

mod connection;
mod framing;
mod listener;
mod outbox;

pub use listener::{Limits, Listener};
pub use outbox::flush_touched;
