//! The network between the servers: every server dials its peers through ports of its own here, so that
//! each directed link can be cut, delayed or refused while it is in use.
//!
//! A cut link holds bytes back instead of losing them, which is what TCP makes of lost packets. What is
//! dialled while the link is cut is accepted and goes nowhere.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use zk_testkit::free_port;

/// How one direction of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Bytes arrive after so long.
    Open(Duration),
    /// Nothing arrives, and nobody is told.
    Cut,
    /// Connections are reset, and refused from now on.
    Reset,
}

impl Flow {
    pub(crate) const FREE: Self = Self::Open(Duration::ZERO);
}

/// Which port of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Quorum,
    Election,
}

/// What is said of a directed link, or of a server's being up.
type State<T> = Arc<watch::Sender<T>>;

/// A server's real ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Real {
    pub(crate) quorum: u16,
    pub(crate) election: u16,
}

impl Real {
    pub(crate) fn free() -> Self {
        Self { quorum: free_port(), election: free_port() }
    }
}

/// All links of an ensemble; members are counted from 0.
pub(crate) struct Network {
    /// Dropped last: its tasks end with it.
    _runtime: Runtime,
    flows: Vec<Vec<State<Flow>>>,
    up: Vec<State<bool>>,
    ports: Vec<Vec<Real>>,
}

/// One listener: `from` dials it to reach `to`.
struct Door {
    port: u16,
    kind: Port,
    target: SocketAddr,
    /// Where `to` would reach `from`: the election handshake names an address to dial back.
    back: u16,
    there: watch::Receiver<Flow>,
    back_flow: watch::Receiver<Flow>,
    up: watch::Receiver<bool>,
}

impl Network {
    /// Links between servers that listen on these ports.
    pub(crate) fn new(real: &[Real]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let count = real.len();
        let state = |value| Arc::new(watch::Sender::new(value));
        let flows: Vec<Vec<State<Flow>>> =
            (0..count).map(|_| (0..count).map(|_| state(Flow::FREE)).collect()).collect();
        let up: Vec<State<bool>> =
            (0..count).map(|_| Arc::new(watch::Sender::new(false))).collect();
        let ports: Vec<Vec<Real>> =
            (0..count).map(|_| (0..count).map(|_| Real::free()).collect()).collect();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                for kind in [Port::Quorum, Port::Election] {
                    let pick = |real: &Real| match kind {
                        Port::Quorum => real.quorum,
                        Port::Election => real.election,
                    };
                    let door = Door {
                        port: pick(&ports[from][to]),
                        kind,
                        target: (Ipv4Addr::LOCALHOST, pick(&real[to])).into(),
                        back: ports[to][from].election,
                        there: flows[from][to].subscribe(),
                        back_flow: flows[to][from].subscribe(),
                        up: up[to].subscribe(),
                    };
                    runtime.spawn(door.run());
                }
            }
        }
        Self { _runtime: runtime, flows, up, ports }
    }

    /// The ports at which `from` finds `to`.
    pub(crate) fn ports(&self, from: usize, to: usize) -> Real {
        self.ports[from][to]
    }

    /// Says how the direction is from now on.
    pub(crate) fn set(&self, from: usize, to: usize, flow: Flow) {
        self.flows[from][to].send_replace(flow);
    }

    /// Both directions between two members.
    pub(crate) fn set_both(&self, one: usize, two: usize, flow: Flow) {
        self.set(one, two, flow);
        self.set(two, one, flow);
    }

    /// Everything flows again.
    pub(crate) fn heal(&self) {
        for flow in self.flows.iter().flatten() {
            flow.send_replace(Flow::FREE);
        }
    }

    /// Whether the server runs: nobody listens for one that does not.
    pub(crate) fn set_up(&self, member: usize, up: bool) {
        self.up[member].send_replace(up);
    }
}

impl Door {
    async fn run(mut self) {
        loop {
            if self.up.wait_for(|up| *up).await.is_err() {
                return;
            }
            let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let mut up = self.up.clone();
            loop {
                tokio::select! {
                    gone = up.wait_for(|up| !*up) => {
                        if gone.is_err() {
                            return;
                        }
                        break;
                    }
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let (there, back) = (self.there.clone(), self.back_flow.clone());
                        let (target, kind, back_port) = (self.target, self.kind, self.back);
                        tokio::spawn(async move {
                            drop(carry(stream, target, kind, back_port, there, back).await);
                        });
                    }
                }
            }
        }
    }
}

/// Carries one connection to its end.
async fn carry(
    near: TcpStream,
    target: SocketAddr,
    kind: Port,
    back_port: u16,
    mut there: watch::Receiver<Flow>,
    mut back: watch::Receiver<Flow>,
) -> io::Result<()> {
    if *there.borrow() == Flow::Reset || *back.borrow() == Flow::Reset {
        return reset(&near);
    }
    // The handshake of TCP needs both directions.
    open(&mut there).await?;
    open(&mut back).await?;
    let Ok(far) = TcpStream::connect(target).await else { return reset(&near) };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    // Reset, not closed: what ends here is a fault.
    let (mut near_read, near_write) = near.into_split();
    let (far_read, mut far_write) = far.into_split();
    if kind == Port::Election {
        let first = redirected(&mut near_read, back_port);
        let first = tokio::select! {
            first = first => first?,
            () = resets(there.clone()) => return Ok(()),
        };
        far_write.write_all(&first).await?;
    }
    tokio::select! {
        result = async {
            tokio::try_join!(
                pump(near_read, far_write, there.clone()),
                pump(far_read, near_write, back.clone()),
            )
        } => result.map(|_| ()),
        () = resets(there.clone()) => Ok(()),
        () = resets(back.clone()) => Ok(()),
    }
}

fn reset(stream: &TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}

/// Waits until the direction is not cut; gives the delay.
async fn open(flow: &mut watch::Receiver<Flow>) -> io::Result<Duration> {
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionReset);
    match *flow.wait_for(|flow| *flow != Flow::Cut).await.map_err(gone)? {
        Flow::Open(delay) => Ok(delay),
        Flow::Cut | Flow::Reset => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

async fn resets(mut flow: watch::Receiver<Flow>) {
    drop(flow.wait_for(|flow| *flow == Flow::Reset).await);
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer).await?;
        // What was on its way when the link was cut waits, and so does the end.
        let delay = open(&mut flow).await?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
            open(&mut flow).await?;
        }
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..len]).await?;
    }
}

/// Reads the first message of an election connection and puts the port of the link back into it.
async fn redirected(near: &mut OwnedReadHalf, back_port: u16) -> io::Result<Vec<u8>> {
    const LONGEST: usize = 2048;
    let mut first = vec![0; 8];
    near.read_exact(&mut first).await?;
    let version = i64::from_be_bytes(first[..8].try_into().expect("eight bytes"));
    if version >= 0 {
        return Ok(first); // a sid alone: the form before 3.5
    }
    first.resize(20, 0);
    near.read_exact(&mut first[8..]).await?;
    let len = i32::from_be_bytes(first[16..20].try_into().expect("four bytes"));
    match usize::try_from(len) {
        Ok(len) if (1..=LONGEST).contains(&len) => {
            let mut address = vec![0; len];
            near.read_exact(&mut address).await?;
            let address = format!("127.0.0.1:{back_port}");
            let len = i32::try_from(address.len()).expect("a short text");
            first.truncate(16);
            first.extend_from_slice(&len.to_be_bytes());
            first.extend_from_slice(address.as_bytes());
        }
        Ok(_) | Err(_) => {} // nonsense goes through as it is
    }
    Ok(first)
}
