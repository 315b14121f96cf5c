//! zk-zab
