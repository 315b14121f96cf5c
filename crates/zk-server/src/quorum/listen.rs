//! Binding the ports between members, with patience: the process that had them may be about to end.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;
use zk_config::Member;
use zk_proto::ServerId;

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

/// Binds this member's port and serves every address of it with `serve`, and follows it when its line
/// names another: the new one is listened on before the old one is closed. Of several addresses those count
/// that can be had; when it is none of the first ones the server stops: it could take no part in elections. A
/// server that is no member any more stays where it is, and so does one that cannot move yet.
pub(crate) async fn run<S, F>(context: Arc<Context>, id: ServerId, port: Port, serve: S)
where
    S: Fn(TcpListener) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let ensemble = &context.config.ensemble;
    let mut changes = context.membership.changes();
    let mut sockets = Sockets::default();
    let mut addresses = Vec::new();
    loop {
        let own = changes.borrow_and_update().member(id).map(|own| port.addresses(own));
        if let Some(wanted) = own.filter(|wanted| *wanted != addresses) {
            let mut tries = 0;
            while let Err(error) =
                sockets.become_those(&wanted, ensemble.quorum_listen_on_all_ips, &serve).await
            {
                tries += 1;
                let text = format!(
                    "cannot listen on the {} {} of server.{id}: {error}. Is another server with this myid running on this machine, or is this not the machine of that server.N line?",
                    port.name(),
                    joined(&wanted),
                );
                let is_first = addresses.is_empty();
                if is_first && ensemble.election_port_bind_retry.is_some_and(|max| tries >= max) {
                    if sockets.settle_for_less(&wanted) {
                        tracing::error!("{text} Members reach it at the other addresses");
                        break;
                    }
                    context.end(Exit::QuorumPort, text);
                    return;
                }
                tracing::warn!("{text} Trying again");
                tokio::select! {
                    () = sleep(RETRY) => {}
                    // It may have been named wrongly.
                    Ok(()) = changes.changed() => break,
                }
            }
            if sockets.are_at.as_ref() != Some(&wanted) {
                continue;
            }
            tracing::info!(address = joined(&wanted), "listening on the {}", port.name());
            addresses = wanted;
        }
        if changes.changed().await.is_err() {
            return; // the server is gone
        }
    }
}

/// What is listened on.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Each with what serves it.
    bound: BTreeMap<SocketAddr, JoinSet<()>>,
    /// Where that is in words, once all of it was bound.
    are_at: Option<Vec<HostPort>>,
}

impl Sockets {
    /// Listens on all of `addresses`, then on nothing else. After an error it listens on those that can be had, and on
    /// what there was before.
    pub(super) async fn become_those<S, F>(
        &mut self,
        addresses: &[HostPort],
        on_all_ips: bool,
        serve: &S,
    ) -> io::Result<()>
    where
        S: Fn(TcpListener) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let (targets, mut failed) = resolve_all(addresses, on_all_ips).await;
        let mut elsewhere = None;
        let mut there = Vec::new();
        for target in targets {
            if self.bound.contains_key(&target) {
                there.push(target);
                continue;
            }
            match self.bind(target).await {
                Ok(listener) => {
                    let mut task = JoinSet::new();
                    task.spawn(serve(listener));
                    self.bound.insert(target, task);
                    there.push(target);
                }
                // A name may mean more than this machine has (no IPv6, for one).
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    elsewhere = Some(error);
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed.or(elsewhere.filter(|_| there.is_empty())) {
            return Err(error);
        }
        self.bound.retain(|address, _| there.contains(address));
        self.are_at = Some(addresses.to_vec());
        Ok(())
    }

    /// What is listened on has to do for these addresses; whether it is anything.
    pub(super) fn settle_for_less(&mut self, addresses: &[HostPort]) -> bool {
        self.are_at = Some(addresses.to_vec()).filter(|_| !self.bound.is_empty());
        self.are_at.is_some()
    }

    /// Listens on nothing any more.
    pub(super) async fn close(&mut self) {
        for (_, mut task) in std::mem::take(&mut self.bound) {
            task.shutdown().await;
        }
        self.are_at = None;
    }

    /// Binds one address. Of the same port there may be one already: all addresses, in the place of which
    /// comes one of them, or the other way round. There is an instant without any then.
    async fn bind(&mut self, target: SocketAddr) -> io::Result<TcpListener> {
        match bind(target) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let same = |address: &&SocketAddr| address.port() == target.port();
                let same: Vec<_> = self.bound.keys().filter(same).copied().collect();
                if same.is_empty() {
                    return Err(error);
                }
                for address in same {
                    if let Some(mut task) = self.bound.remove(&address) {
                        task.shutdown().await;
                    }
                }
                bind(target)
            }
            bound => bound,
        }
    }
}

/// What the addresses mean now, and why one of them means nothing.
async fn resolve_all(
    addresses: &[HostPort],
    on_all_ips: bool,
) -> (Vec<SocketAddr>, Option<io::Error>) {
    let mut targets = Vec::new();
    let mut failed = None;
    for address in addresses {
        if on_all_ips || address.is_wildcard() {
            targets.push(wildcard(address.port));
        } else {
            match address.resolve().await {
                Ok(found) => targets.extend(found),
                Err(error) => failed = Some(error),
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    (targets, failed)
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

    /// Serves nothing.
    async fn idle(listener: TcpListener) {
        let _open = listener;
        std::future::pending::<()>().await;
    }

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    fn ports(sockets: &Sockets) -> Vec<u16> {
        sockets.bound.keys().map(SocketAddr::port).collect()
    }

    fn is_open(port: u16) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    #[tokio::test]
    async fn a_name_is_bound_at_every_address_that_it_has_here() {
        let localhost = at("localhost", 0);
        let mut sockets = Sockets::default();
        sockets.become_those(std::slice::from_ref(&localhost), false, &idle).await.unwrap();
        assert!(!sockets.bound.is_empty());
        assert!(sockets.bound.keys().all(|address| address.ip().is_loopback()));
        let (all, failed) = resolve_all(&[localhost], true).await;
        assert!(all[0].ip().is_unspecified() && failed.is_none());
    }

    #[tokio::test]
    async fn what_is_taken_or_elsewhere_is_an_error() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut sockets = Sockets::default();
        let here = at("127.0.0.1", port);
        let error = sockets.become_those(&[here], false, &idle).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let elsewhere = at("192.0.2.1", port);
        let error = sockets.become_those(&[elsewhere], false, &idle).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(sockets.are_at.is_none());
    }

    #[tokio::test]
    async fn of_several_addresses_those_count_that_can_be_had() {
        let [taken, free, other] = [(); 3].map(|()| zk_testkit::free_port());
        let _taken = bind(([127, 0, 0, 1], taken).into()).unwrap();
        let nobody = at("nobody.invalid", free);
        let mut sockets = Sockets::default();
        let none = [nobody.clone(), at("127.0.0.1", taken)];
        assert!(sockets.become_those(&none, false, &idle).await.is_err());
        assert!(!sockets.settle_for_less(&none));
        for wanting in [nobody, at("127.0.0.1", taken)] {
            let mut sockets = Sockets::default();
            let some = [wanting, at("127.0.0.1", other)];
            assert!(sockets.become_those(&some, false, &idle).await.is_err());
            assert!(is_open(other));
            assert!(sockets.settle_for_less(&some));
            assert_eq!(sockets.are_at.as_deref(), Some(&some[..]));
            sockets.close().await;
        }
    }

    #[tokio::test]
    async fn the_new_one_is_there_before_the_old_one_goes() {
        let [first, second, third] = [(); 3].map(|()| zk_testkit::free_port());
        let mut sockets = Sockets::default();
        sockets.become_those(&[at("127.0.0.1", first)], false, &idle).await.unwrap();
        // While the new one cannot be had, the old one stays.
        let taken = bind(([127, 0, 0, 1], second).into()).unwrap();
        let both = [at("127.0.0.1", second), at("127.0.0.1", third)];
        assert!(sockets.become_those(&both, false, &idle).await.is_err());
        assert!(is_open(first));
        drop(taken);
        sockets.become_those(&both, false, &idle).await.unwrap();
        assert_eq!(sockets.are_at.as_deref(), Some(&both[..]));
        let mut expected = [second, third];
        expected.sort_unstable();
        assert_eq!(ports(&sockets), expected);
        assert!(is_open(second) && is_open(third));
        while is_open(first) {
            sleep(Duration::from_millis(5)).await; // its task is about to end
        }
        // Every address in the place of one, with the same port, and back.
        for host in ["0.0.0.0", "127.0.0.1"] {
            sockets.become_those(&[at(host, second)], false, &idle).await.unwrap();
            assert_eq!(ports(&sockets), [second]);
            assert!(is_open(second));
        }
    }
}
