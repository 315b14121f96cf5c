//! zk-processor
