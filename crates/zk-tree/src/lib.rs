//! zk-tree
