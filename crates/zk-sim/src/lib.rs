//! A whole ensemble on one thread, with a network, disks and clocks that fail as a seed says.
//!
//! Everything between the bytes of clients and the writes for the log is the production code: each
//! member is a [`zk_processor::Node`] with its Zab peer, tree and sessions. What is simulated is what
//! the shell does: [`network`], [`disk`], [`clock`]; and clients. A run has two phases. First faults
//! happen, as the seed draws them ([`swarm`]), and nothing may go wrong that can be seen ([`check`]).
//! Then all faults end, and within ten simulated seconds the ensemble must be of use again.
//!
//! The same seed gives the same run, on every machine: a failure is a number. Situations that matter
//! are counted ([`markers`]), so that a simulator that has stopped to meet them is noticed.
//!
//! # Invariants
//!
//! - No clock, no thread, no random source but the seed, and no order that differs from run to run: the
//!   same seed twice has the same trace, which is tried with some of the seeds of every run.
//! - Nothing that the production code decides is decided here.
//! - What clients cannot know is never assumed: a write without a reply may have happened or not.

pub mod bugs;
pub mod check;
pub mod clock;
pub mod disk;
mod ensemble;
pub mod markers;
mod nemesis;
pub mod network;
pub mod runner;
pub mod scenario;
pub mod swarm;
pub mod trace;
mod workload;
