//! Ports for servers that tests start.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

/// Below those that systems give to outgoing connections, of which every test makes some.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port that nobody listens on, and that nobody else in this process was given. Where it begins to
/// look is a matter of chance, so that another process rarely looks at the same ports.
///
/// # Panics
/// When all are taken.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: LazyLock<AtomicU32> = LazyLock::new(|| {
        let now = UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos());
        AtomicU32::new((now ^ std::process::id()) % u32::from(COUNT))
    });
    (0..COUNT)
        .map(|_| {
            let number = GIVEN.fetch_add(1, Ordering::Relaxed) % u32::from(COUNT);
            FIRST + u16::try_from(number).expect("it is below COUNT")
        })
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .expect("a port is free")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_or_while_it_is_taken() {
        let first = free_port();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let given: BTreeSet<_> = (0..100).map(|_| free_port()).collect();
        assert_eq!(given.len(), 100);
        assert!(!given.contains(&first));
        assert!(!given.contains(&held.local_addr().unwrap().port()));
    }
}
