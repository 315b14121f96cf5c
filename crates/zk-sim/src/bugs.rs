//! Known bugs of the protocol, put back on purpose: the simulator must find each of them.
//!
//! The switches are compiled into `zk-zab` and `zk-processor` only with `--cfg seeded_bugs`.
