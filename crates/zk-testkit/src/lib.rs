//! zk-testkit
