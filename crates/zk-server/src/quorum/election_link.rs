//! The election port: one connection with each other member, which carries votes.
//!
//! Between two servers the connection that the one with the greater id made is the one that stays: a
//! dialer with the smaller id only says who it is, and is dialled back. Votes replace each other: a
//! server has one place for what is unsent, and what was sent last is said again on a new connection.
//!
//! Nothing that comes in is trusted: who dials has a moment to say who it is, frames have a limit, and
//! what breaks a rule costs its own connection.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Decoder;
use zk_proto::ServerId;
use zk_proto::quorum::Notification;

use super::address::{self, HostPort, joined};
use super::hello::{self, Hello, NAMELESS};
use super::tasks::Tasks;
use super::unknown::{UNKNOWN_MAX, Unknown};
use crate::client::Framing;
use crate::socket::{give_up_after, set_options};

/// The longest frame that upstream reads, too.
const FRAME_LEN_MAX: usize = 512 << 10;

/// Servers that no configuration names: observers without an id, and those that want to join.
const STRANGERS_MAX: usize = 64;

/// A connection that is younger than this is not made anew for a dialer that asks to be dialled back:
/// the two have crossed.
const CROSSED: Duration = Duration::from_secs(1);

/// How long to wait before a lost connection is made again: longer when the one before did not last. A
/// server that is being killed may still accept one, and lose it.
const REDIAL_AFTER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// A connection that stood for so long did last.
const LASTING: Duration = Duration::from_millis(100);

/// How long a server with a greater id may take to dial back before it is asked again, and how often
/// it is asked.
const DIAL_BACK: Duration = Duration::from_millis(100);
const DIAL_BACK_TRIES: u32 = 3;

/// How long to wait after the system could not give a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

const READ_LEN: usize = 4 << 10;

/// Whom the election port reports to.
pub(crate) trait Voter: Send + Sync {
    /// A server said something.
    fn on_notification(self: Arc<Self>, from: ServerId, notification: Notification);
    /// A server's election port answered, or did not.
    fn on_reachable(self: Arc<Self>, server: ServerId, reachable: bool);
}

/// How the election port is set up.
#[derive(Debug, Clone)]
pub(crate) struct ElectionConfig {
    pub(crate) id: ServerId,
    /// Whether to tell others more than one address.
    pub(crate) multi_address: bool,
    /// How long a dial may take.
    pub(crate) connect_timeout: Duration,
    /// How long a dialer may take to say who it is.
    pub(crate) handshake_timeout: Duration,
    pub(crate) keep_alive: bool,
    /// How long what was sent may stay without an acknowledgement of the other machine, where there is
    /// another address to take; `None`: as long as the system has patience.
    pub(crate) silence_max: Option<Duration>,
}

/// The connections between this server and the other members.
pub(crate) struct Elections {
    config: ElectionConfig,
    tasks: Tasks,
    servers: Mutex<Servers>,
}

#[derive(Debug, Default)]
struct Servers {
    /// The election addresses of all members, this one included.
    members: BTreeMap<ServerId, Vec<HostPort>>,
    /// What this server begins with when it dials.
    hello: Bytes,
    known: BTreeMap<ServerId, Arc<Server>>,
    /// How many observers without an id were given one.
    nameless: i64,
}

/// Another server.
#[derive(Debug)]
struct Server {
    id: ServerId,
    is_member: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unsent: Option<Bytes>,
    /// Said again on the next connection, if nothing newer is to be said.
    last_sent: Option<Bytes>,
    standing: Option<Arc<Standing>>,
    /// It is being dialled; told when it asks to be dialled.
    dialling: Option<Arc<Notify>>,
    /// Connections in a row that did not last.
    lost: usize,
    /// The other addresses that it was seen at, and that were warned of.
    suspects: VecDeque<IpAddr>,
}

/// A connection that stands.
#[derive(Debug)]
struct Standing {
    since: Instant,
    /// There is something to send.
    wake: Notify,
    /// Another one has taken its place.
    replaced: Notify,
}

/// How many suspicious addresses of one server are warned of.
const SUSPECTS_MAX: usize = 8;

impl Server {
    fn new(id: ServerId, is_member: bool) -> Arc<Self> {
        Arc::new(Self { id, is_member: AtomicBool::new(is_member), state: Mutex::default() })
    }

    fn is_member(&self) -> bool {
        self.is_member.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// What `standing` has to send, if it is still the connection to use.
    fn take_unsent(&self, standing: &Arc<Standing>) -> Option<Bytes> {
        let mut state = self.state();
        if !state.standing.as_ref().is_some_and(|current| Arc::ptr_eq(current, standing)) {
            return None;
        }
        let frame = state.unsent.take()?;
        state.last_sent = Some(frame.clone());
        Some(frame)
    }
}

impl Elections {
    pub(crate) fn new(
        config: ElectionConfig,
        members: BTreeMap<ServerId, Vec<HostPort>>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let elections = Self { config, tasks, servers: Mutex::default() };
        elections.activate(members);
        Arc::new(elections)
    }

    /// These are the members now. Those that have gone are hung up on: who still has something to say is
    /// heard as any other stranger. Where a member has only moved, what stands with it stays; it is dialled
    /// at the new address when that is lost.
    pub(crate) fn activate(&self, members: BTreeMap<ServerId, Vec<HostPort>>) {
        let mut servers = self.servers();
        // Who is no member is where it was.
        if let Some(own) = members.get(&self.config.id)
            && servers.members.get(&self.config.id) != Some(own)
        {
            servers.hello = self.hello(own);
        } else if servers.hello.is_empty() {
            servers.hello = self.hello(&[]);
        }
        servers.known.retain(|id, server| {
            let is_member = members.contains_key(id);
            if !server.is_member.swap(is_member, Ordering::Relaxed) || is_member {
                return true;
            }
            let mut state = server.state();
            if let Some(standing) = state.standing.take() {
                standing.replaced.notify_one();
            }
            state.dialling.is_some() // whoever dials forgets it afterwards
        });
        for id in members.keys().filter(|id| **id != self.config.id) {
            servers.known.entry(*id).or_insert_with(|| Server::new(*id, true));
        }
        servers.members = members;
    }

    fn hello(&self, own: &[HostPort]) -> Bytes {
        hello::encode(self.config.id, own, self.config.multi_address).freeze()
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// Which servers a connection stands with.
    pub(crate) fn connected(&self) -> Vec<ServerId> {
        let servers = self.servers();
        let standing = servers.known.values().filter(|server| server.state().standing.is_some());
        standing.map(|server| server.id).collect()
    }

    /// Sends a vote, in place of one that is still unsent; dials if need be.
    pub(crate) fn notify(
        self: &Arc<Self>,
        voter: &Arc<dyn Voter>,
        to: ServerId,
        notification: &Notification,
    ) {
        let Some(server) = self.servers().known.get(&to).cloned() else { return };
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        notification.encode(&mut frame);
        let len = u32::try_from(frame.len() - size_of::<i32>()).expect("a vote is short");
        frame[..size_of::<i32>()].copy_from_slice(&len.to_be_bytes());
        let mut state = server.state();
        state.unsent = Some(frame.freeze());
        match &state.standing {
            Some(standing) => standing.wake.notify_one(),
            None => {
                drop(state);
                self.dial(voter, &server, Vec::new(), Duration::ZERO);
            }
        }
    }

    /// Dials a server after a moment, unless that is being done. `offered` is where it says that it is.
    fn dial(
        self: &Arc<Self>,
        voter: &Arc<dyn Voter>,
        server: &Arc<Server>,
        offered: Vec<HostPort>,
        after: Duration,
    ) {
        let again = Arc::new(Notify::new());
        {
            let mut state = server.state();
            if state.dialling.is_some() {
                return;
            }
            state.dialling = Some(Arc::clone(&again));
        }
        let (elections, voter, server) = (Arc::clone(self), Arc::clone(voter), Arc::clone(server));
        self.tasks.spawn(async move {
            sleep(after).await;
            let mut tries = 0;
            while tries < DIAL_BACK_TRIES {
                let connected = tokio::select! {
                    biased;
                    connected = elections.connect(&server, &offered) => connected,
                    // It is there: what was dialled before that may have no answer for long.
                    () = again.notified() => continue,
                };
                tries += 1;
                match connected {
                    Ok(Some(stream)) => {
                        elections.serve(&voter, &server, stream, BytesMut::new()).await;
                        return;
                    }
                    Ok(None) => sleep(DIAL_BACK).await,
                    Err(error) => {
                        tracing::debug!(server = %server.id, %error, "the election port does not answer");
                        server.state().dialling = None;
                        elections.forget(&server);
                        voter.on_reachable(server.id, false);
                        return;
                    }
                }
                if server.state().standing.is_some() {
                    break; // it dialled back
                }
            }
            server.state().dialling = None;
            elections.forget(&server);
        });
    }

    /// Dials and says who this is. `None`: the other one has the greater id, and dials back.
    async fn connect(
        &self,
        server: &Server,
        offered: &[HostPort],
    ) -> io::Result<Option<TcpStream>> {
        let ElectionConfig { connect_timeout, keep_alive, .. } = &self.config;
        let (mut addresses, hello) = {
            let servers = self.servers();
            // What the configuration says goes before what somebody said who may not be it.
            let addresses = servers.members.get(&server.id).cloned().unwrap_or_default();
            (addresses, servers.hello.clone())
        };
        for offer in offered {
            if !addresses.contains(offer) {
                addresses.push(offer.clone());
            }
        }
        let mut stream = address::connect(&addresses, *connect_timeout, *keep_alive).await?;
        timeout(*connect_timeout, stream.write_all(&hello)).await??;
        Ok((server.id < self.config.id).then_some(stream))
    }

    /// Uses a connection until it is lost or another one takes its place.
    async fn serve(
        self: &Arc<Self>,
        voter: &Arc<dyn Voter>,
        server: &Arc<Server>,
        stream: TcpStream,
        unread: BytesMut,
    ) {
        let standing = Arc::new(Standing {
            since: Instant::now(),
            wake: Notify::new(),
            replaced: Notify::new(),
        });
        {
            let mut state = server.state();
            state.dialling = None;
            if let Some(before) = state.standing.replace(Arc::clone(&standing)) {
                before.replaced.notify_one();
            }
            if state.unsent.is_none() {
                state.unsent = state.last_sent.clone();
            }
        }
        if let Some(max) = self.config.silence_max
            && self.servers().members.get(&server.id).is_some_and(|addresses| addresses.len() > 1)
            && let Err(error) = give_up_after(&stream, max)
        {
            tracing::warn!(server = %server.id, %error, "a way that leads nowhere any more will be noticed late");
        }
        let peer = stream.peer_addr().ok();
        tracing::debug!(server = %server.id, ?peer, "election connection made");
        Arc::clone(voter).on_reachable(server.id, true);
        let (reader, writer) = stream.into_split();
        let lost = tokio::select! {
            error = read(voter, server.id, reader, unread) => Some(error),
            error = write(server, &standing, writer) => Some(error),
            () = standing.replaced.notified() => None,
        };
        let Some(error) = lost else { return };
        tracing::info!(server = %server.id, %error, "election connection lost");
        let after = {
            let mut state = server.state();
            if !state.standing.as_ref().is_some_and(|current| Arc::ptr_eq(current, &standing)) {
                return; // replaced at the same moment
            }
            state.standing = None;
            if standing.since.elapsed() >= LASTING {
                state.lost = 0;
            }
            let after = REDIAL_AFTER[state.lost.min(REDIAL_AFTER.len() - 1)];
            state.lost += 1;
            after
        };
        if server.is_member() {
            // Whether it is still there decides how long an election waits for it.
            self.dial(voter, server, Vec::new(), after);
        } else {
            self.forget(server);
        }
    }

    /// A server that no configuration names is known as long as it has a connection.
    fn forget(&self, server: &Server) {
        if server.is_member() {
            return;
        }
        let mut servers = self.servers();
        let state = server.state();
        if state.standing.is_none() && state.dialling.is_none() {
            servers.known.remove(&server.id);
        }
    }

    /// Serves the election port until it is dropped.
    pub(crate) async fn listen(self: Arc<Self>, voter: Arc<dyn Voter>, listener: TcpListener) {
        let mut unknown = Unknown::default();
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no election connection could be accepted: raise the limit of open files?");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let (elections, voter) = (Arc::clone(&self), Arc::clone(&voter));
            let handshake = self.tasks.spawn(async move {
                let ip = peer.ip().to_canonical();
                match elections.greet(stream).await {
                    Ok((stream, hello, unread)) => {
                        elections.admit(&voter, stream, hello, unread, ip);
                    }
                    Err(why) => tracing::warn!(%peer, %why, "election connection refused"),
                }
            });
            if unknown.push(handshake) {
                tracing::warn!(
                    max = UNKNOWN_MAX,
                    "too many connections on the election port say nothing: the oldest was closed"
                );
            }
        }
    }

    /// Waits for a dialer to say who it is.
    async fn greet(&self, mut stream: TcpStream) -> Result<(TcpStream, Hello, BytesMut), String> {
        let mut unread = BytesMut::new();
        let greeting = async {
            set_options(&stream, self.config.keep_alive).map_err(text)?;
            loop {
                if let Some(hello) = hello::take(&mut unread).map_err(text)? {
                    return Ok(hello);
                }
                if stream.read_buf(&mut unread).await.map_err(text)? == 0 {
                    return Err("it was closed before it said who it is".to_owned());
                }
            }
        };
        match timeout(self.config.handshake_timeout, greeting).await {
            Ok(hello) => hello.map(|hello| (stream, hello, unread)),
            Err(_) => Err("it did not say in time who it is".to_owned()),
        }
    }

    /// Keeps the connection, or dials back.
    fn admit(
        self: &Arc<Self>,
        voter: &Arc<dyn Voter>,
        stream: TcpStream,
        hello: Hello,
        unread: BytesMut,
        ip: IpAddr,
    ) {
        if hello.id == self.config.id {
            tracing::warn!(
                %ip, address = joined(&hello.addresses), id = %hello.id,
                "election connection refused: the other server has the id of this one. Two servers have the same number in their myid files; give each its own"
            );
            return;
        }
        let Some(server) = self.server(hello.id) else {
            tracing::warn!(%ip, id = %hello.id, max = STRANGERS_MAX, "election connection refused: too many servers that no server.N line names");
            return;
        };
        let (elections, voter) = (Arc::clone(self), Arc::clone(voter));
        if server.is_member() {
            let (elections, server) = (Arc::clone(self), Arc::clone(&server));
            self.tasks.spawn(async move { elections.suspect(&server, ip).await });
        }
        if server.id < self.config.id {
            drop(stream);
            let crossed = |standing: &Arc<Standing>| standing.since.elapsed() < CROSSED;
            let (is_crossed, dialling) = {
                let state = server.state();
                (state.standing.as_ref().is_some_and(crossed), state.dialling.clone())
            };
            match dialling {
                _ if is_crossed => {}
                Some(again) => again.notify_one(),
                None => self.dial(&voter, &server, hello.addresses, Duration::ZERO),
            }
            return;
        }
        self.tasks.spawn(async move { elections.serve(&voter, &server, stream, unread).await });
    }

    /// The server that a dialer says it is. `None`: there are too many that nobody knows.
    fn server(&self, id: ServerId) -> Option<Arc<Server>> {
        let mut servers = self.servers();
        let id = if id == NAMELESS {
            servers.nameless += 1;
            ServerId(-servers.nameless)
        } else {
            id
        };
        if let Some(server) = servers.known.get(&id) {
            return Some(Arc::clone(server));
        }
        let strangers = servers.known.values().filter(|server| !server.is_member()).count();
        if strangers >= STRANGERS_MAX {
            return None;
        }
        let server = Server::new(id, false);
        servers.known.insert(id, Arc::clone(&server));
        Some(server)
    }

    /// Says so when a member connects from where the configuration does not have it: two servers may
    /// have the same id, and only one of them can take part.
    async fn suspect(&self, server: &Server, ip: IpAddr) {
        let addresses = self.servers().members.get(&server.id).cloned();
        let Some(addresses) = addresses else { return };
        let mut known = Vec::new();
        for address in &addresses {
            match address.resolve().await {
                Ok(found) => known.extend(found.iter().map(|found| found.ip().to_canonical())),
                Err(_) => return, // nothing to compare with
            }
        }
        if known.contains(&ip) || ip.is_loopback() {
            return;
        }
        {
            let suspects = &mut server.state().suspects;
            if suspects.contains(&ip) || suspects.len() >= SUSPECTS_MAX {
                return;
            }
            suspects.push_back(ip);
        }
        tracing::warn!(
            id = %server.id, from = %ip, configured = joined(&addresses),
            "a server connected to the election port from an address that its server.N line does not have. If two servers have this number in their myid files, give each its own"
        );
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Hands votes on until the connection is lost, which it says why.
async fn read(
    voter: &Arc<dyn Voter>,
    from: ServerId,
    mut reader: OwnedReadHalf,
    mut unread: BytesMut,
) -> String {
    let mut framing = Framing { max_len: FRAME_LEN_MAX };
    let mut warned = false;
    loop {
        loop {
            let frame = match framing.decode(&mut unread) {
                Ok(Some(frame)) if frame.is_empty() => return "an empty frame came".to_owned(),
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return error.to_string(),
            };
            match Notification::decode(&frame) {
                Ok(notification) => Arc::clone(voter).on_notification(from, notification),
                Err(error) if !warned => {
                    warned = true;
                    tracing::warn!(server = %from, %error, "an election message that cannot be read was ignored; further ones on this connection will be, too");
                }
                Err(_) => {}
            }
        }
        unread.reserve(READ_LEN);
        match reader.read_buf(&mut unread).await {
            Ok(0) => return "the other side closed it".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// Sends what there is to send until the connection is lost.
async fn write(server: &Server, standing: &Arc<Standing>, mut writer: OwnedWriteHalf) -> String {
    loop {
        while let Some(frame) = server.take_unsent(standing) {
            if let Err(error) = writer.write_all(&frame).await {
                return error.to_string();
            }
        }
        standing.wake.notified().await;
    }
}

#[cfg(test)]
mod tests;
