//! A ZooKeeper client: one session, kept over reconnects, with every operation of the protocol.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use zk_client::Client;
//! use zk_proto::acl::Acl;
//! use zk_proto::create_mode::CreateMode;
//!
//! let client = Client::connect("localhost:2181/app", Duration::from_secs(30), false).await?;
//! client.create("/a", Some(b"data"), &Acl::open(), CreateMode::Persistent).await?;
//! let (data, stat) = client.get_data("/a", true).await?;
//! # Ok(()) }
//! ```
//!
//! A request is sent when its method is called, not when the returned future is awaited: several calls
//! before the first await are pipelined, and answered in that order.
//!
//! # Invariants
//!
//! - Requests reach the server in the order of the calls, and every one completes exactly once: with its
//!   reply, with `CONNECTION_LOSS` when the connection ends first (whether it took effect is then
//!   unknown), or with `SESSION_EXPIRED` or `AUTH_FAILED`, after which the client is of no more use.
//! - Watches and authentications are set again after a reconnect before any request is sent.
//! - An event reaches the subscribers before the reply of any later request completes.
//! - Dropping all handles without [`Client::close`] ends the connection, not the session: the server
//!   expires it.

mod client;
mod connection;
mod error;
mod event;
mod four_letter;
mod hosts;
mod watches;

pub use client::{Client, Options};
pub use error::{ConnectError, ZkError, code_message};
pub use event::{EventKind, KeeperState, State, WatchedEvent};
pub use four_letter::four_letter_word;
pub use hosts::{ConnectString, ConnectStringError};
pub use zk_proto::ErrorCode;

#[cfg(test)]
mod tests;
