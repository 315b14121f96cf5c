//! Whole ensembles of peers, with simulated networks and disks: [`swarm`] runs random ones,
//! [`scenarios`] particular ones, [`reconfig`] those that change while they run.

mod confused;
mod disk;
mod harness;
mod observer_masters;
mod reconfig;
mod recorded;
mod rig;
mod scenarios;
mod swarm;
