//! The node as a whole, with a shell made of queues and a clock set by hand.

mod ensemble;
mod harness;
mod local;
mod model;
mod noise;
mod observer_masters;
mod properties;
mod quorum;
mod read_only;
mod reconfig;
mod script;
mod scripts;
mod threads;
mod traps;
