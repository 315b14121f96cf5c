//! Accepting connections, within limits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection;
use super::throttle::Throttle;
use crate::context::{Context, Counters};
use crate::membership;
use crate::quorum::{self, HostPort};
use crate::socket::set_options;

/// How long to wait after the system could not give a connection: it is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long to wait before a client port that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The system's usual backlog.
const BACKLOG: u32 = 1024;

/// How many connections there are, in all and for each address.
#[derive(Debug, Default)]
pub struct Limits {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// One connection's place within the limits, given back when dropped.
#[derive(Debug)]
struct Place {
    limits: Arc<Limits>,
    address: IpAddr,
}

impl Limits {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        all_max: Option<u32>,
        each_max: Option<u32>,
    ) -> Option<Place> {
        let mut counts = self.counts();
        let same = counts.by_address.get(&address).copied().unwrap_or_default();
        if all_max.is_some_and(|max| counts.all >= max) || each_max.is_some_and(|max| same >= max) {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, same + 1);
        Some(Place { limits: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// A bound client port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: Arc<Limits>,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(address: SocketAddr, backlog: Option<u32>) -> io::Result<Self> {
        Self::bind_within(address, backlog, Arc::default())
    }

    /// Another one, which shares this one's limits with it.
    fn bind_within(
        address: SocketAddr,
        backlog: Option<u32>,
        limits: Arc<Limits>,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { socket: socket.listen(backlog.unwrap_or(BACKLOG))?, limits })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves connections until it is dropped, and follows the client port of this server's line: the new
    /// one is listened on before the old one takes no more connections. Those that there are stay, as
    /// upstream has it (`ServerCnxnFactory.reconfigure`); so does the old port while the new one cannot be
    /// had, which upstream gives up.
    pub async fn run(self, context: Arc<Context>) {
        let throttle = context.config.limits.connection_throttle.clone();
        let throttle = throttle.map(|config| {
            let local_sessions = context.node.makes_local_sessions();
            Arc::new(Throttle::new(config, local_sessions, context.clock.now().mono_ms()))
        });
        let mut configured = context.config.client_listener.clone();
        let mut changes = context.membership.changes();
        changes.mark_changed(); // one that came before this task did
        let limits = Arc::clone(&self.limits);
        let mut address = self.socket.local_addr().ok();
        let mut serving = JoinSet::new();
        serving.spawn(self.serve(Arc::clone(&context), throttle.clone()));
        let mut retry = false;
        loop {
            let changed = async {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await; // the server is gone, and this with it
                }
            };
            if retry {
                drop(timeout(RETRY, changed).await); // either way it is tried again
            } else {
                changed.await;
            }
            let wanted = membership::client_listener(&context.config, &changes.borrow_and_update());
            let Some(listener) = wanted.clone().filter(|_| wanted != configured) else {
                retry = false;
                continue;
            };
            match Self::bind_other(&context, &listener, address, &limits, &mut serving).await {
                Ok(None) => {}
                Ok(Some(other)) => {
                    address = other.socket.local_addr().ok();
                    let mut before = JoinSet::new();
                    std::mem::swap(&mut before, &mut serving);
                    serving.spawn(other.serve(Arc::clone(&context), throttle.clone()));
                    before.shutdown().await;
                    if let Some(address) = address {
                        context.serves_clients_at(address);
                        tracing::info!(%address, "serving clients at another address");
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        address = %listener, %error,
                        "cannot listen for clients where the line of this server has it; clients are served where they were. Trying again"
                    );
                    retry = true;
                    continue;
                }
            }
            (configured, retry) = (wanted, false);
        }
    }

    /// Binds another address; `None` when it is the one that is bound.
    async fn bind_other(
        context: &Context,
        listener: &zk_config::Listener,
        bound: Option<SocketAddr>,
        limits: &Arc<Limits>,
        serving: &mut JoinSet<()>,
    ) -> io::Result<Option<Self>> {
        let host = listener.host.clone().filter(|_| !listener.is_any_address());
        let address = match host {
            None => quorum::wildcard(listener.port),
            Some(host) => {
                let found = HostPort { host, port: listener.port }.resolve().await?;
                *found.first().expect("a name without an address is an error")
            }
        };
        if Some(address) == bound && !serving.is_empty() {
            return Ok(None);
        }
        let backlog = context.config.client_port_listen_backlog;
        let bind = || Self::bind_within(address, backlog, Arc::clone(limits));
        match bind() {
            // Other addresses of the same port: they cannot be had while it is bound.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && bound.is_some_and(|bound| bound.port() == address.port()) =>
            {
                serving.shutdown().await;
                bind().map(Some)
            }
            other => other.map(Some),
        }
    }

    async fn serve(self, context: Arc<Context>, throttle: Option<Arc<Throttle>>) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => self.admit(&context, throttle.as_ref(), stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted: raise the limit of open files?");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn admit(
        &self,
        context: &Arc<Context>,
        throttle: Option<&Arc<Throttle>>,
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        let limits = &context.config.limits;
        let Some(place) = self.limits.admit(peer.ip(), limits.max_cnxns, limits.max_client_cnxns)
        else {
            Counters::add(&context.counters.connection_rejected, 1);
            tracing::warn!(
                %peer, max_cnxns = ?limits.max_cnxns, max_client_cnxns = ?limits.max_client_cnxns,
                "connection closed: too many connections in all or from this address"
            );
            return;
        };
        let keep_alive = context.config.client_tcp_keep_alive;
        if let Err(error) = set_options(&stream, keep_alive) {
            tracing::debug!(%peer, %error, "connection lost");
            return;
        }
        let context = Arc::clone(context);
        let throttle = throttle.cloned();
        tokio::spawn(async move {
            connection::run(context, throttle, stream, peer).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let limits = Arc::new(Limits::default());
        let [a, b] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let first = limits.admit(a, Some(2), Some(1));
        assert!(first.is_some());
        assert!(limits.admit(a, Some(2), Some(1)).is_none(), "two from one address");
        let second = limits.admit(b, Some(2), Some(1));
        assert!(limits.admit(a, Some(2), None).is_none(), "three in all");
        drop((first, second));
        assert!(limits.admit(a, Some(2), Some(1)).is_some());
        assert!(limits.counts().by_address.is_empty());
    }
}
