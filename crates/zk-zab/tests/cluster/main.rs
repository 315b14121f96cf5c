//! Whole ensembles of peers, with simulated networks and disks: [`swarm`] runs random ones,
//! [`scenarios`] particular ones.

mod disk;
mod harness;
mod scenarios;
mod swarm;
