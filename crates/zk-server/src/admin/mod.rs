//! Operations.
pub mod four_letter;
pub mod metrics;
