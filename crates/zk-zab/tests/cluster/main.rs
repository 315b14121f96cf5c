//! Whole ensembles of peers, with simulated networks and disks: [`swarm`] runs random ones,
//! [`scenarios`] particular ones.

mod confused;
mod disk;
mod harness;
mod recorded;
mod rig;
mod scenarios;
mod swarm;
