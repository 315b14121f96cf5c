//! zk-cli
