//! zk-bench
