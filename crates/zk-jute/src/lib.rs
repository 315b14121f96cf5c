//! The jute encoding: what ZooKeeper's records look like on the wire and on disk.
//!
//! Integers are big-endian two's complement; a string or buffer is an `int` length and that many
//! bytes; a vector is an `int` count and its elements; a record is its fields in order, without
//! tags, padding or length (`org.apache.jute.BinaryInputArchive`).
//!
//! A record is declared once, as its field list, which reads like its line in `zookeeper.jute`:
//!
//! ```
//! use zk_jute::{Buffer, Record, records};
//!
//! records! {
//!     /// A request that names a znode and carries data.
//!     SetDataRequest { path: String, data: Buffer, version: i32 }
//! }
//!
//! let request = SetDataRequest { path: "/a".into(), data: None, version: -1 };
//! let frame = request.to_bytes();
//! assert_eq!(SetDataRequest::decode(&frame).unwrap(), request);
//! ```
//!
//! # Invariants
//!
//! - Decoding never panics, never reads outside its frame and never allocates more than the frame's
//!   own size: a length or count is compared with the bytes that are left before it is believed.
//! - A buffer shares the frame it was decoded from; nothing is copied.
//! - A null buffer (length −1) and an empty one (length 0) are different values and survive a round
//!   trip. A null string or vector is the same as an empty one only where a record says so.

#![warn(clippy::indexing_slicing)]

mod encode;
mod error;
mod parse;
mod record;

pub use encode::{put_bool, put_buffer, put_count, put_int, put_long, put_string};
pub use error::{DecodeError, DecodeErrorKind};
pub use parse::Reader;
pub use record::{Field, Record};

use bytes::Bytes;

/// Opaque bytes, or null. Null and empty differ on the wire.
pub type Buffer = Option<Bytes>;

#[doc(hidden)]
pub use bytes::{Bytes as __Bytes, BytesMut as __BytesMut};
