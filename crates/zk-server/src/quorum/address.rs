//! Addresses of members: written as names, resolved anew whenever they are dialled.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::socket::set_options;

/// A host, as it was written, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl HostPort {
    /// `host:port` or `[host]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once("]:")?,
            None => text.rsplit_once(':')?,
        };
        let port = port.parse().ok()?;
        (!host.is_empty() && port != 0).then(|| Self { host: host.to_owned(), port })
    }

    /// Whether it says "here" instead of where: members that listen on all addresses may send it.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// What the name means now.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

/// Several addresses, for the log.
pub(crate) fn joined(addresses: &[HostPort]) -> String {
    addresses.iter().map(HostPort::to_string).collect::<Vec<_>>().join("|")
}

/// The longest wait before the next address of the same server is tried beside the earlier ones.
const STAGGER: Duration = Duration::from_millis(250);

/// Dials all addresses of a server; the first that answers is taken.
///
/// # Errors
/// The last address's, when none answers within `limit`.
pub(crate) async fn connect(
    addresses: &[HostPort],
    limit: Duration,
    keep_alive: bool,
) -> io::Result<TcpStream> {
    let dial = async {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address is known");
        let mut targets = Vec::new();
        for address in addresses {
            match address.resolve().await {
                Ok(found) => targets.extend(found),
                Err(error) => failed = error,
            }
        }
        let mut targets = targets.into_iter();
        let mut dials = JoinSet::new();
        loop {
            if let Some(target) = targets.next() {
                dials.spawn(TcpStream::connect(target));
            }
            let next = match targets.len() {
                0 => dials.join_next().await,
                _ => match timeout(STAGGER, dials.join_next()).await {
                    Ok(joined) => joined,
                    Err(_) => continue, // the next one beside it
                },
            };
            match next {
                Some(Ok(Ok(stream))) if !met_itself(&stream) => return Ok(stream),
                Some(Ok(Ok(_))) => failed = io::ErrorKind::ConnectionRefused.into(),
                Some(Ok(Err(error))) => failed = error,
                Some(Err(error)) => failed = io::Error::other(error),
                None if targets.len() == 0 => return Err(failed),
                None => {}
            }
        }
    };
    let stream = match timeout(limit, dial).await {
        Ok(dialled) => dialled?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    set_options(&stream, keep_alive)?;
    Ok(stream)
}

/// A dial to a port of this machine that nobody listens on may be given that very port for its own
/// end, and then connects to itself.
fn met_itself(stream: &TcpStream) -> bool {
    stream.local_addr().ok() == stream.peer_addr().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (text, host, port) in [
            ("zk1:3888", "zk1", 3888),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[2001:db8::1]:3888", "2001:db8::1", 3888),
        ] {
            let parsed = HostPort::parse(text).unwrap();
            assert_eq!(parsed, at(host, port));
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "zk1", "zk1:", ":1", "zk1:0", "zk1:70000", "[::1]", "zk1:port", "[::1:2"] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
        assert!(at("0.0.0.0", 1).is_wildcard() && at("::", 1).is_wildcard());
        assert!(!at("127.0.0.1", 1).is_wildcard() && !at("zk1", 1).is_wildcard());
    }

    #[tokio::test]
    async fn the_address_that_answers_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refused = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let limit = Duration::from_secs(5);
        let both = [at("127.0.0.1", refused.port()), at("localhost", good.port())];
        assert_eq!(connect(&both, limit, true).await.unwrap().peer_addr().unwrap(), good);
        let error = connect(&both[..1], limit, false).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(&[], limit, false).await.is_err());
        let nowhere = [at("no-such-host.invalid", 1), at("127.0.0.1", good.port())];
        assert!(connect(&nowhere, limit, false).await.is_ok(), "one name may be unknown");
    }
}
