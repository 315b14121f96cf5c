//! zk-storage
