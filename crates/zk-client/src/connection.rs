use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zk_proto::connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN};
use zk_proto::proto::{AuthPacket, ReplyHeader, RequestHeader, WatcherEvent};
use zk_proto::{Buffer, ErrorCode, OpCode, Reader, Record, SessionId, Xid, Zxid};

use crate::watches::{WatchChange, Watches};
use crate::{EventKind, KeeperState, State, WatchedEvent, four_letter_word};

/// The longest frame that is believed; upstream's client reads up to `jute.maxbuffer`, 1 MB and change.
const MAX_FRAME: usize = 128 << 20;
/// More than this waits in the channel instead.
const MAX_OUTPUT: usize = 1 << 20;

/// A reply; its error code is not yet judged.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) err: ErrorCode,
    pub(crate) body: Bytes,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Length, xid (still to be set), type and body.
    pub(crate) frame: BytesMut,
    pub(crate) watch: Option<WatchChange>,
    pub(crate) done: oneshot::Sender<Reply>,
}

/// What handles ask the connection's task for.
#[derive(Debug)]
pub(crate) enum Command {
    Request(Outgoing),
    Auth { scheme: String, auth: Buffer, done: oneshot::Sender<Reply> },
    Close(oneshot::Sender<()>),
}

/// What handles can see of the session.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: watch::Sender<State>,
    pub(crate) session: Mutex<Session>,
    pub(crate) subscribers: Mutex<Vec<mpsc::UnboundedSender<WatchedEvent>>>,
    pub(crate) last_error: Mutex<String>,
    /// When the newest request, ping or connect that the server has answered was sent.
    pub(crate) confirmed: Mutex<Option<Instant>>,
}

/// The session as negotiated.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) password: Bytes,
    pub(crate) timeout: Duration,
    /// The server of the last connection.
    pub(crate) server: Option<std::net::SocketAddr>,
}

impl Session {
    pub(crate) fn none(timeout: Duration) -> Self {
        Self {
            id: SessionId(0),
            password: Bytes::from_static(&[0; PASSWORD_LEN]),
            timeout,
            server: None,
        }
    }
}

impl Shared {
    fn confirm(&self, sent: Instant) {
        *self.confirmed.lock().expect("nobody panics with it") = Some(sent);
    }

    fn emit(&self, event: &WatchedEvent) {
        let mut subscribers = self.subscribers.lock().expect("nobody panics with it");
        subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn session_event(&self, state: KeeperState) {
        self.emit(&WatchedEvent { kind: EventKind::None, state, path: None, zxid: -1 });
    }
}

/// How a connection ended.
enum End {
    /// Try again, at the next server.
    Lost,
    /// Try again, at this server: it can write.
    Better(usize),
    Closed,
    Expired,
    AuthFailed,
}

struct InFlight {
    xid: Xid,
    sent: Instant,
    watch: Option<WatchChange>,
    done: oneshot::Sender<Reply>,
}

/// The task that owns the session.
pub(crate) struct Connection {
    pub(crate) hosts: Vec<String>,
    pub(crate) next_host: usize,
    pub(crate) chroot: String,
    pub(crate) requested_timeout: Duration,
    pub(crate) can_be_read_only: bool,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inner: Inner,
}

/// What outlives a connection to a server.
#[derive(Default)]
pub(crate) struct Inner {
    last_zxid: Zxid,
    last_xid: i32,
    /// A session that was only ever known to a read-only server exists nowhere else.
    seen_read_write: bool,
    auths: Vec<(String, Buffer)>,
    watches: Watches,
    /// Requests that wait for a connection.
    waiting: VecDeque<Command>,
    closing: Option<oneshot::Sender<()>>,
    /// All handles are gone.
    abandoned: bool,
}

impl Inner {
    /// `attached`: the session is known to a server already.
    pub(crate) fn new(attached: bool) -> Self {
        Self { seen_read_write: attached, ..Self::default() }
    }

    fn next_xid(&mut self) -> Xid {
        self.last_xid = if self.last_xid == i32::MAX { 1 } else { self.last_xid + 1 };
        Xid(self.last_xid)
    }
}

/// Sends a completion; that nobody waits for it any more is no error.
fn complete(done: oneshot::Sender<Reply>, reply: Reply) {
    drop(done.send(reply));
}

pub(crate) fn frame(op: OpCode, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut frame = BytesMut::with_capacity(128);
    frame.extend_from_slice(&[0; 4]);
    RequestHeader { xid: Xid(0), op }.encode(&mut frame);
    body(&mut frame);
    let length = i32::try_from(frame.len() - 4).expect("a request is below 2 GiB");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

fn set_xid(frame: &mut BytesMut, xid: Xid) {
    frame[4..8].copy_from_slice(&xid.0.to_be_bytes());
}

impl Connection {
    /// Runs until the session is over or nobody holds a handle.
    pub(crate) async fn run(mut self) {
        let mut backoff = Duration::from_millis(100);
        let mut tried = 0;
        let end = loop {
            if self.inner.abandoned && self.inner.closing.is_none() {
                break End::Closed;
            }
            let host = self.next_host % self.hosts.len();
            self.next_host = host + 1;
            tried += 1;
            let end = match self.connect(host).await {
                Ok(Some(stream)) => {
                    backoff = Duration::from_millis(100);
                    tried = 0;
                    self.serve(stream, host).await
                }
                Ok(None) => End::Expired,
                Err(error) => {
                    let mut last = self.shared.last_error.lock().expect("nobody panics with it");
                    *last = format!("{}: {error}", self.hosts[host]);
                    End::Lost
                }
            };
            match end {
                End::Lost => {}
                End::Better(host) => self.next_host = host,
                End::Closed | End::Expired | End::AuthFailed => break end,
            }
            self.fail_waiting(ErrorCode::CONNECTION_LOSS);
            if self.inner.closing.is_some() {
                break End::Closed; // the server cannot be told; it will expire the session
            }
            if tried >= self.hosts.len() {
                tried = 0;
                self.pause(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(1));
            }
        };
        let (state, event, code) = match end {
            End::Closed | End::Lost | End::Better(_) => {
                (State::Closed, KeeperState::Closed, ErrorCode::SESSION_EXPIRED)
            }
            End::Expired => (State::Closed, KeeperState::Expired, ErrorCode::SESSION_EXPIRED),
            End::AuthFailed => (State::AuthFailed, KeeperState::AuthFailed, ErrorCode::AUTH_FAILED),
        };
        self.shared.state.send_replace(state);
        self.shared.session_event(event);
        self.fail_waiting(code);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.take(command);
            self.fail_waiting(code);
        }
        if let Some(done) = self.inner.closing.take() {
            done.send(()).ok(); // nobody has to wait for it
        }
    }

    /// Keeps a command until there is a connection.
    fn take(&mut self, command: Command) {
        match command {
            Command::Close(done) => self.inner.closing = Some(done),
            Command::Auth { .. } | Command::Request(_) => self.inner.waiting.push_back(command),
        }
    }

    fn fail_waiting(&mut self, err: ErrorCode) {
        while let Ok(command) = self.commands.try_recv() {
            self.take(command);
        }
        for command in std::mem::take(&mut self.inner.waiting) {
            match command {
                Command::Request(Outgoing { watch, done, .. }) => {
                    self.finish(watch, done, err, Bytes::new())
                }
                // It is sent with the next connection; what is lost is only the answer.
                Command::Auth { scheme, auth, done } => {
                    self.inner.auths.push((scheme, auth));
                    complete(done, Reply { err, body: Bytes::new() });
                }
                Command::Close(_) => unreachable!("take() keeps it elsewhere"),
            }
        }
    }

    /// Completes a request and does what its answer means for watches.
    fn finish(
        &mut self,
        watch: Option<WatchChange>,
        done: oneshot::Sender<Reply>,
        err: ErrorCode,
        body: Bytes,
    ) {
        let mut err = err;
        if let Some(change) = watch {
            let (changed, events) = self.inner.watches.apply(change, err);
            err = changed;
            for (kind, path) in events {
                let path = Some(self.client_path(path));
                self.shared.emit(&WatchedEvent {
                    kind,
                    state: self.keeper_state(),
                    path,
                    zxid: -1,
                });
            }
        }
        complete(done, Reply { err, body });
    }

    fn keeper_state(&self) -> KeeperState {
        match *self.shared.state.borrow() {
            State::Connected => KeeperState::SyncConnected,
            State::ConnectedReadOnly => KeeperState::ConnectedReadOnly,
            State::Connecting => KeeperState::Disconnected,
            State::Closed => KeeperState::Closed,
            State::AuthFailed => KeeperState::AuthFailed,
        }
    }

    fn client_path(&self, path: String) -> String {
        match path.strip_prefix(&self.chroot) {
            Some("") => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            Some(_) | None => path,
        }
    }

    async fn pause(&mut self, duration: Duration) {
        let mut over = pin!(sleep(duration));
        while self.inner.closing.is_none() {
            tokio::select! {
                () = &mut over => return,
                command = self.commands.recv(), if !self.inner.abandoned => match command {
                    Some(command) => self.take(command),
                    None => { self.inner.abandoned = true; return; }
                },
            }
        }
    }

    /// Connects to a server and gets, or re-attaches to, the session. `None`: the session has expired.
    async fn connect(&mut self, host: usize) -> io::Result<Option<TcpStream>> {
        let host = self.hosts[host].clone();
        let session = self.shared.session.lock().expect("nobody panics with it").clone();
        let limit = self.requested_timeout / u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.inner.last_zxid,
            timeout_ms: i32::try_from(self.requested_timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: if self.inner.seen_read_write { session.id } else { SessionId(0) },
            password: Some(session.password),
            read_only: Some(self.can_be_read_only),
        };
        let attempt = async move {
            let mut stream = TcpStream::connect(&host).await?;
            stream.set_nodelay(true)?;
            let sent = Instant::now();
            let mut out = BytesMut::from(&[0; 4][..]);
            request.encode(&mut out);
            let length = i32::try_from(out.len() - 4).expect("45 bytes");
            out[..4].copy_from_slice(&length.to_be_bytes());
            stream.write_all(&out).await?;
            let length = stream.read_i32().await?;
            let Some(length) = usize::try_from(length).ok().filter(|length| *length < 4096) else {
                return Err(io::Error::other("the answer is not a ZooKeeper server's"));
            };
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let response = ConnectResponse::decode(&body.into()).map_err(io::Error::other)?;
            Ok((stream, response, sent))
        };
        let mut attempt = pin!(timeout(limit, attempt));
        let attempted = loop {
            tokio::select! {
                attempted = &mut attempt => break attempted,
                command = self.commands.recv(), if !self.inner.abandoned => match command {
                    Some(command) => {
                        self.take(command);
                        if self.inner.closing.is_some() && self.inner.waiting.is_empty() {
                            return Err(io::ErrorKind::ConnectionAborted.into());
                        }
                    }
                    None => self.inner.abandoned = true,
                },
            }
        };
        let (stream, response, sent) = match attempted {
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other(
                    "the server closed the connection instead of giving a session",
                ));
            }
            Ok(result) => result?,
        };
        if response.timeout_ms <= 0 {
            return Ok(None);
        }
        self.shared.confirm(sent);
        let read_only = response.read_only.unwrap_or(false);
        self.inner.seen_read_write |= !read_only;
        *self.shared.session.lock().expect("nobody panics with it") = Session {
            id: response.session_id,
            password: response.password.unwrap_or_default(),
            timeout: Duration::from_millis(u64::try_from(response.timeout_ms).expect("positive")),
            server: stream.peer_addr().ok(),
        };
        let (state, event) = if read_only {
            (State::ConnectedReadOnly, KeeperState::ConnectedReadOnly)
        } else {
            (State::Connected, KeeperState::SyncConnected)
        };
        self.shared.state.send_replace(state);
        self.shared.session_event(event);
        Ok(Some(stream))
    }

    /// Exchanges requests and replies until the connection ends.
    async fn serve(&mut self, stream: TcpStream, host: usize) -> End {
        let mut link = Link::default();
        for (scheme, auth) in &self.inner.auths {
            link.send_auth(scheme, auth);
        }
        for body in self.inner.watches.set_again(self.inner.last_zxid) {
            let mut frame = frame(OpCode::SET_WATCHES2, |out| out.extend_from_slice(&body));
            set_xid(&mut frame, Xid::SET_WATCHES);
            link.out.extend_from_slice(&frame);
        }
        for command in std::mem::take(&mut self.inner.waiting) {
            self.send(command, &mut link);
        }
        if self.inner.closing.is_some() {
            self.send_close(&mut link);
        }
        let end = self.exchange(stream, host, &mut link).await;
        let err = match end {
            End::Lost | End::Better(_) => {
                self.shared.state.send_replace(State::Connecting);
                self.shared.session_event(KeeperState::Disconnected);
                ErrorCode::CONNECTION_LOSS
            }
            End::Closed => ErrorCode::CONNECTION_LOSS,
            End::Expired => ErrorCode::SESSION_EXPIRED,
            End::AuthFailed => ErrorCode::AUTH_FAILED,
        };
        for InFlight { watch, done, .. } in link.in_flight {
            self.finish(watch, done, err, Bytes::new());
        }
        for done in link.auths_in_flight.into_iter().flatten() {
            complete(done, Reply { err, body: Bytes::new() });
        }
        end
    }

    fn send(&mut self, command: Command, link: &mut Link) {
        match command {
            Command::Request(Outgoing { mut frame, watch, done }) => {
                let xid = self.inner.next_xid();
                set_xid(&mut frame, xid);
                link.out.extend_from_slice(&frame);
                link.in_flight.push_back(InFlight { xid, sent: Instant::now(), watch, done });
            }
            Command::Auth { scheme, auth, done } => {
                link.send_auth(&scheme, &auth);
                *link.auths_in_flight.back_mut().expect("just sent") = Some(done);
                self.inner.auths.push((scheme, auth));
            }
            Command::Close(done) => {
                self.inner.closing = Some(done);
                self.send_close(link);
            }
        }
    }

    fn send_close(&mut self, link: &mut Link) {
        let mut frame = frame(OpCode::CLOSE_SESSION, |_| ());
        let xid = self.inner.next_xid();
        set_xid(&mut frame, xid);
        link.out.extend_from_slice(&frame);
        link.close_xid = Some(xid);
    }

    async fn exchange(&mut self, stream: TcpStream, host: usize, link: &mut Link) -> End {
        let negotiated = self.shared.session.lock().expect("nobody panics with it").timeout;
        // As upstream: silence for two thirds of the timeout means that another server can still save it.
        let read_timeout = negotiated * 2 / 3;
        let ping_after = (read_timeout / 2).min(Duration::from_secs(10));
        let (mut reader, mut writer) = stream.into_split();
        let mut input = BytesMut::with_capacity(64 * 1024);
        let (mut heard, mut sent) = (Instant::now(), Instant::now());
        let read_only = *self.shared.state.borrow() == State::ConnectedReadOnly;
        let hosts = if read_only { self.hosts.clone() } else { Vec::new() };
        let mut better = pin!(find_read_write(hosts, host));
        loop {
            let wake = (heard + read_timeout).min(sent + ping_after);
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) | Err(_) => return if link.close_xid.is_some() { End::Closed } else { End::Lost },
                    Ok(_) => {
                        heard = Instant::now();
                        if let Some(end) = self.received(&mut input, link) {
                            return end;
                        }
                    }
                },
                wrote = writer.write_buf(&mut link.out), if link.out.has_remaining() => match wrote {
                    Ok(_) => sent = Instant::now(),
                    Err(_) => return End::Lost,
                },
                command = self.commands.recv(), if link.out.len() < MAX_OUTPUT && link.close_xid.is_none() => {
                    match command {
                        Some(command) => {
                            self.send(command, link);
                            while link.out.len() < MAX_OUTPUT && link.close_xid.is_none() {
                                let Ok(command) = self.commands.try_recv() else { break };
                                self.send(command, link);
                            }
                        }
                        None => {
                            self.inner.abandoned = true;
                            return End::Closed;
                        }
                    }
                },
                host = &mut better, if read_only => return End::Better(host),
                () = sleep_until(wake) => {
                    if heard.elapsed() >= read_timeout {
                        let mut last = self.shared.last_error.lock().expect("nobody panics with it");
                        *last = "the server fell silent".to_owned();
                        return End::Lost;
                    }
                    let mut frame = frame(OpCode::PING, |_| ());
                    set_xid(&mut frame, Xid::PING);
                    link.out.extend_from_slice(&frame);
                    sent = Instant::now();
                    link.pings.push_back(sent);
                }
            }
        }
    }

    /// Takes every whole frame out of `input`.
    fn received(&mut self, input: &mut BytesMut, link: &mut Link) -> Option<End> {
        while input.len() >= 4 {
            let length = i32::from_be_bytes([input[0], input[1], input[2], input[3]]);
            let Some(length) = usize::try_from(length).ok().filter(|length| *length <= MAX_FRAME)
            else {
                return Some(End::Lost);
            };
            if input.len() < 4 + length {
                input.reserve(4 + length - input.len());
                return None;
            }
            input.advance(4);
            let frame = input.split_to(length).freeze();
            if let Some(end) = self.frame(&frame, link) {
                return Some(end);
            }
        }
        None
    }

    fn frame(&mut self, frame: &Bytes, link: &mut Link) -> Option<End> {
        let mut reader = Reader::new(frame);
        let Ok(header) = ReplyHeader::parse(&mut reader) else { return Some(End::Lost) };
        let body = reader.take_rest();
        match header.xid {
            Xid::PING => {
                if let Some(sent) = link.pings.pop_front() {
                    self.shared.confirm(sent);
                }
            }
            Xid::AUTH => {
                let done = link.auths_in_flight.pop_front().flatten();
                if let Some(done) = done {
                    complete(done, Reply { err: header.err, body });
                }
                if header.err != ErrorCode::OK {
                    return Some(End::AuthFailed);
                }
            }
            Xid::NOTIFICATION => {
                let Ok(event) = WatcherEvent::decode(&body) else { return Some(End::Lost) };
                if let Some(kind) = EventKind::from_code(event.event_type) {
                    self.inner.watches.triggered(kind, &event.path);
                    let path = Some(self.client_path(event.path));
                    let state = self.keeper_state();
                    self.shared.emit(&WatchedEvent { kind, state, path, zxid: header.zxid.0 });
                }
            }
            Xid::SET_WATCHES => {}
            xid => {
                if header.zxid.0 > 0 {
                    self.inner.last_zxid = header.zxid;
                }
                match link.in_flight.pop_front() {
                    Some(InFlight { xid: expected, sent, watch, done }) if expected == xid => {
                        self.shared.confirm(sent);
                        self.finish(watch, done, header.err, body);
                    }
                    None if link.close_xid == Some(xid) => return Some(End::Closed),
                    // Out of step: nothing that follows can be trusted.
                    Some(InFlight { watch, done, .. }) => {
                        self.finish(watch, done, ErrorCode::CONNECTION_LOSS, Bytes::new());
                        return Some(End::Lost);
                    }
                    None => return Some(End::Lost),
                }
            }
        }
        None
    }
}

/// What belongs to one connection to a server.
#[derive(Default)]
struct Link {
    out: BytesMut,
    in_flight: VecDeque<InFlight>,
    /// When the pings were sent that wait for their answers.
    pings: VecDeque<Instant>,
    auths_in_flight: VecDeque<Option<oneshot::Sender<Reply>>>,
    close_xid: Option<Xid>,
}

impl Link {
    fn send_auth(&mut self, scheme: &str, auth: &Buffer) {
        let packet = AuthPacket { auth_type: 0, scheme: scheme.to_owned(), auth: auth.clone() };
        let mut frame = frame(OpCode::AUTH, |out| packet.encode(out));
        set_xid(&mut frame, Xid::AUTH);
        self.out.extend_from_slice(&frame);
        self.auths_in_flight.push_back(None);
    }
}

/// While a read-only server serves us, asks the others whether they can write; never returns otherwise.
async fn find_read_write(hosts: Vec<String>, current: usize) -> usize {
    let mut wait = Duration::from_millis(100);
    let mut host = current;
    if hosts.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        sleep(wait).await;
        host = (host + 1) % hosts.len();
        let answer = four_letter_word(&hosts[host], "isro", Duration::from_secs(1)).await;
        if answer.is_ok_and(|answer| answer.trim() == "rw") {
            return host;
        }
        wait = (wait * 2).min(Duration::from_secs(60));
    }
}

/// A place to start in the list of hosts, so that clients spread.
pub(crate) fn any_host(hosts: usize) -> usize {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    usize::try_from(random % hosts as u64).expect("below the number of hosts")
}
