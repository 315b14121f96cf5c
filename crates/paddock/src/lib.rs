//! paddock
