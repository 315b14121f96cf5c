//! What tests share: a seeded random source, a loop for properties, golden files, files of recorded
//! packets, a client that speaks bytes, ports to listen on, and a checker of what many clients recorded.
//!
//! Tests use it as a development dependency; nothing that ships depends on it, but for the simulator,
//! which is a test itself. The repository's own rules are checked in `tests/tidy.rs`.
//!
//! # Invariants
//!
//! - A failing property prints the seed that repeats it; the same seed draws the same values on every
//!   machine.
//! - A golden file is written only when `REWRITE=1` asks for it; recorded packets are never written
//!   from here.
//! - [`RawClient`] does nothing by itself: no pings, no reconnects, no watches. What it did not send
//!   was not sent, and every read gives up after a time.

mod files;
pub mod golden;
pub mod history;
mod ports;
mod prng;
mod property;
mod raw_client;
pub mod vectors;

pub use files::copy_folder;
pub use ports::free_port;
pub use prng::Prng;
pub use property::{property, property_of};
pub use raw_client::{RawClient, Reply};
