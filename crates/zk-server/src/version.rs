//! What the server says it is.

/// The version banner, in the shape that monitors and clients parse: `x.y.z-`, then a date that go-zk
/// accepts.
pub const BANNER: &str = "3.9.5-paddock, built on 11/22/2026 00:00 UTC";
