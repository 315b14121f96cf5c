//! What operators and their tools ask: four-letter words and metrics.
//!
//! # Invariants
//!
//! - Names, order and shape of everything told are ZooKeeper's (facts, section 2.13 and appendix A), for
//!   monitors parse them; what ZooKeeper has no name for is called `paddock_*`.
//! - A figure that is not measured is not shown. Zero means that it did not happen.
//! - Nobody who asks can make the server hold more than a bounded amount of memory or connections.

pub mod four_letter;
mod http;
pub mod metrics;
mod process;
pub mod quorum;

#[cfg(test)]
pub(crate) mod testing;
