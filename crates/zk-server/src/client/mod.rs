//! The client port: listening, connections, framing, outboxes.

mod connection;
mod framing;
mod large;
mod listener;
mod outbox;
mod throttle;

pub(crate) use framing::Framing;
pub use listener::{Limits, Listener};
pub use outbox::flush_touched;
