//! Sessions: their ids, passwords and timeouts, and when they expire.
//!
//! Time is an argument, in ms of a clock that only has to be monotonic.
//!
//! # Invariants
//!
//! - No session expires before its timeout has passed since it was last heard of; it does expire
//!   within one tick after that, when [`SessionTracker::expire`] is called on time.
//! - A session that is closing or gone never comes back.
//! - A session is local or global; what is local becomes global once, and never the other way.
//! - What a learner heard of a session reaches the leader's tracker, also when the client has left.
//! - Two starts of one server never give the same id, as long as `first_id` differs and the ids of
//!   restored sessions are tracked before new ones are made.

mod expiry;
mod local;
mod password;
mod touch;
mod tracker;

pub use local::{LocalSessionMode, LocalSessions};
pub use password::{check_password, password};
pub use touch::TouchTable;
pub use tracker::{Heard, Owner, SessionConfig, SessionTracker, first_id};
