//! Binding the ports between members, with patience: the process that had them may be about to end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;
use zk_config::Member;

use super::address::{HostPort, joined};
use crate::Exit;
use crate::context::Context;

/// Between two attempts, as upstream has it.
const RETRY: Duration = Duration::from_secs(1);

const BACKLOG: u32 = 1024;

/// One of a member's two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Election,
    Quorum,
}

impl Port {
    fn name(self) -> &'static str {
        match self {
            Self::Election => "election port",
            Self::Quorum => "quorum port",
        }
    }

    pub(crate) fn addresses(self, member: &Member) -> Vec<HostPort> {
        let port = |address: &zk_config::MemberAddress| match self {
            Self::Election => address.election_port,
            Self::Quorum => address.quorum_port,
        };
        let addresses = member.addresses.iter();
        addresses
            .map(|address| HostPort { host: address.host.clone(), port: port(address) })
            .collect()
    }
}

/// Binds this member's port and serves every address of it with `serve`. When that cannot be done the
/// server stops: it could take no part in elections.
pub(crate) async fn run<S, F>(context: Arc<Context>, own: Member, port: Port, serve: S)
where
    S: Fn(TcpListener) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let ensemble = &context.config.ensemble;
    let addresses = port.addresses(&own);
    let mut tries = 0;
    let listeners = loop {
        let error = match bind_all(&addresses, ensemble.quorum_listen_on_all_ips).await {
            Ok(listeners) => break listeners,
            Err(error) => error,
        };
        tries += 1;
        let text = format!(
            "cannot listen on the {} {} of server.{}: {error}. Is another server with this myid running on this machine, or is this not the machine of that server.N line?",
            port.name(),
            joined(&addresses),
            own.id
        );
        if ensemble.election_port_bind_retry.is_some_and(|max| tries >= max) {
            context.end(Exit::QuorumPort, text);
            return;
        }
        tracing::warn!("{text} Trying again");
        sleep(RETRY).await;
    };
    let mut tasks = JoinSet::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "listening on the {}", port.name());
        }
        tasks.spawn(serve(listener));
    }
    while tasks.join_next().await.is_some() {}
}

pub(super) async fn bind_all(
    addresses: &[HostPort],
    on_all_ips: bool,
) -> io::Result<Vec<TcpListener>> {
    let mut targets = Vec::new();
    for address in addresses {
        if on_all_ips || address.is_wildcard() {
            targets.push(wildcard(address.port));
        } else {
            targets.extend(address.resolve().await?);
        }
    }
    targets.sort_unstable();
    targets.dedup();
    let mut listeners = Vec::new();
    let mut elsewhere = None;
    for target in targets {
        match bind(target) {
            Ok(listener) => listeners.push(listener),
            // A name may mean more than this machine has (no IPv6, for one).
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                elsewhere = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match elsewhere {
        Some(error) if listeners.is_empty() => Err(error),
        Some(_) | None => Ok(listeners),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Every address of the machine, of both families where it has both.
pub(crate) fn wildcard(port: u16) -> SocketAddr {
    let has_v6 = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let any: IpAddr =
        if has_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_bound_at_every_address_that_it_has_here() {
        let localhost = HostPort { host: "localhost".into(), port: 0 };
        let bound = bind_all(std::slice::from_ref(&localhost), false).await.unwrap();
        assert!(!bound.is_empty());
        assert!(bound.iter().all(|socket| socket.local_addr().unwrap().ip().is_loopback()));
        let all = bind_all(&[localhost], true).await.unwrap();
        assert!(all[0].local_addr().unwrap().ip().is_unspecified());
    }

    #[tokio::test]
    async fn what_is_taken_or_elsewhere_is_an_error() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = taken.local_addr().unwrap().port();
        let here = HostPort { host: "127.0.0.1".into(), port };
        let error = bind_all(&[here], false).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let elsewhere = HostPort { host: "192.0.2.1".into(), port };
        let error = bind_all(&[elsewhere], false).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
