//! ZooKeeper's vocabulary: ids, opcodes, error codes, paths, ACLs and every record of the client
//! protocol, the transaction log and the quorum protocol.
//!
//! Modules are named after those of `zookeeper.jute`: [`data`], [`proto`], [`txn`], [`quorum`],
//! [`persistence`].
//! [`snapshot`] and [`log_file`] take upstream's files apart.
//! The three irregular encodings are written by hand: [`connect`] (an optional last field),
//! [`multi`] (a list ended by a header) and [`txn`] (a body whose type is in the header before it).
//!
//! # Invariants
//!
//! - What a peer sends is data until it is decoded: no function here panics on any input.
//! - Numbers that a peer may invent (opcodes, error codes) stay open newtypes; the closed enums made
//!   from them are for `match`.
//! - Encoding then decoding gives the same value; decoding then encoding gives the same bytes, but
//!   for the places named in the documentation (null strings and vectors read as empty).

#![warn(clippy::indexing_slicing)]

pub mod acl;
pub mod connect;
pub mod create_mode;
pub mod data;
mod error_code;
mod ids;
pub mod log_file;
pub mod membership;
pub mod multi;
mod opcode;
pub mod path;
pub mod persistence;
pub mod properties;
pub mod proto;
pub mod quorum;
mod request;
pub mod snapshot;
pub mod txn;
pub mod watch;

pub use error_code::ErrorCode;
pub use ids::{Epoch, ServerId, SessionId, Xid, Zxid};
pub use opcode::OpCode;
pub use request::{Request, RequestError};
pub use zk_jute::{Buffer, DecodeError, DecodeErrorKind, Field, Reader, Record};
