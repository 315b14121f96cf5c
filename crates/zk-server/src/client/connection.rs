//! One client connection: bytes in, frames to the core, bytes out.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::codec::Decoder;
use zk_processor::{Client, Flow, ServerRole};
use zk_proto::SessionId;

use super::framing::Framing;
use super::large;
use super::outbox::{ConnectionOutbox, Handle, flush_touched};
use super::throttle::Throttle;
use crate::actions::Batch;
use crate::admin::four_letter;
use crate::context::{Context, Counters};

/// Room made for one read. Larger requests make it grow as they come in.
const READ_LEN: usize = 16 << 10;

/// How often to look whether there is service again.
const LOOK: Duration = Duration::from_millis(10);

/// Frames served under one hold of the tree's lock. Also what bounds the replies that pile up before
/// anyone looks whether the client reads them.
const FRAMES_MAX: usize = 64;

/// How long a closed connection is kept, so that its last bytes arrive: closing at once would throw
/// them away if the client has sent something that was not read.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that is to be closed may take no further byte of what was said before. Its session
/// may be over, so nothing else ends its connection.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the answer to a four-letter word may take to be sent by a server that serves nobody.
const ANSWER: Duration = Duration::from_secs(2);

/// Where a connect request has its session's id.
const SESSION_ID_AT: usize = 4 + 8 + 4;

/// Why a connection ended, for the log.
#[derive(Debug)]
enum End {
    /// The client closed it.
    ByClient,
    /// Everything was said.
    Done,
    /// A rule was broken.
    Refused(String),
    /// The socket failed.
    Io(io::Error),
    /// No session in time.
    Sessionless,
}

/// Serves one connection to its end.
pub(crate) async fn run(
    context: Arc<Context>,
    throttle: Option<Arc<Throttle>>,
    mut stream: TcpStream,
    peer: SocketAddr,
) {
    let mut unread = BytesMut::new();
    if context.quorum.is_some() && !serves_clients(&context) {
        match before_service(&context, &mut stream, &mut unread).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%peer, %error, "connection lost");
                return;
            }
        }
    }
    let (reader, writer) = stream.into_split();
    let outbox = ConnectionOutbox::new(writer);
    let address = peer.ip().to_canonical().to_string();
    let handle = Box::new(Handle(Arc::clone(&outbox)));
    let client = context.node.open(address, handle, context.clock.now());
    context.counters.peers.insert(client.id, peer);
    let mut connection = Connection {
        reader,
        outbox: &outbox,
        client: &client,
        context: &context,
        // What has come already was no four-letter word, and is looked at as if it came now.
        held_back: !unread.is_empty(),
        first: unread.is_empty(),
        unread,
        frames: VecDeque::new(),
        paused: false,
        throttle,
    };
    let end = connection.serve().await;
    let reader = connection.reader;
    context.node.on_closed(&client);
    context.counters.peers.remove(client.id);
    Counters::add(&context.counters.connection_drops, 1);
    match end {
        End::ByClient => tracing::debug!(%peer, "the client closed its connection"),
        End::Io(error) => tracing::debug!(%peer, %error, "connection lost"),
        // Whoever wants more than reads comes again and again.
        End::Refused(why) if context.node.is_read_only() => {
            tracing::info!(%peer, %why, "connection closed");
        }
        End::Refused(why) => tracing::warn!(%peer, %why, "connection closed"),
        End::Sessionless => {
            Counters::add(&context.counters.sessionless_expired, 1);
            tracing::info!(%peer, "connection closed: no session in time");
        }
        End::Done => linger(reader).await,
    }
}

/// Whether this member has a quorum, and its role lets it serve clients (`leaderServes`), or serves reads without one.
fn serves_clients(context: &Context) -> bool {
    context.node.is_read_only()
        || context.node.is_serving()
            && (context.config.ensemble.leader_serves
                || context.node.status().role != ServerRole::Leader)
}

/// Hears a connection to a server that serves nobody: a four-letter word is answered, a client is turned
/// away, so that it tries another server at once; but not before the change of a leader has had its time.
/// `true`: there is service meanwhile.
async fn before_service(
    context: &Arc<Context>,
    stream: &mut TcpStream,
    unread: &mut BytesMut,
) -> io::Result<bool> {
    let limit = Duration::from_millis(context.config.sessionless_timeout_ms.into());
    let hear = async {
        loop {
            if stream.read_buf(unread).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            match four_letter::detect(unread, &context.config.four_letter_words) {
                four_letter::Detected::Incomplete => {}
                four_letter::Detected::No => return Ok(None),
                four_letter::Detected::Word(word) => return Ok(Some(word)),
            }
        }
    };
    let word = match timeout(limit, hear).await {
        Ok(heard) => heard?,
        Err(_) => {
            Counters::add(&context.counters.sessionless_expired, 1);
            return Ok(false);
        }
    };
    let Some(word) = word else {
        while !serves_clients(context) && context.node.expects_leader(context.clock.now()) {
            sleep(LOOK).await;
        }
        let serves = serves_clients(context);
        if !serves {
            Counters::add(&context.counters.connection_rejected, 1);
        }
        return Ok(serves);
    };
    let text = four_letter::answer(context, &word);
    timeout(ANSWER, stream.write_all(text.as_bytes())).await??;
    // Closing at once would throw the answer away if something unread has come.
    stream.shutdown().await?;
    let mut sink = [0; 512];
    let deadline = Instant::now() + LINGER;
    while let Ok(Ok(1..)) = timeout_at(deadline, stream.read(&mut sink)).await {}
    Ok(false)
}

struct Connection<'a> {
    reader: OwnedReadHalf,
    outbox: &'a ConnectionOutbox,
    client: &'a Arc<Client>,
    context: &'a Arc<Context>,
    unread: BytesMut,
    frames: VecDeque<Bytes>,
    /// The core asked not to be given more.
    paused: bool,
    /// Frames are left because the client did not read its replies.
    held_back: bool,
    /// Nothing but a four-letter word or the first frame has come.
    first: bool,
    /// What the connect request has to pass; `None` afterwards.
    throttle: Option<Arc<Throttle>>,
}

impl Connection<'_> {
    async fn serve(&mut self) -> End {
        let sessionless = Instant::now()
            + Duration::from_millis(self.context.config.sessionless_timeout_ms.into());
        let mut has_session = false;
        let mut farewell = None;
        loop {
            let signals = self.outbox.signals();
            if signals.done {
                return End::Done;
            }
            if signals.resumed {
                self.paused = false;
            }
            if signals.resumed || (self.held_back && !signals.stalled && !signals.behind) {
                if let Err(end) = self.process() {
                    return end;
                }
                continue;
            }
            // A client that does not read its replies is not read either.
            let wanted = match (signals.stalled, self.paused || signals.behind || signals.closing) {
                (true, _) => Wanted::Write,
                (false, false) => Wanted::Read,
                (false, true) => Wanted::Nothing,
            };
            let deadline = if signals.closing {
                Some(*farewell.get_or_insert_with(|| Instant::now() + FAREWELL))
            } else if has_session {
                None
            } else {
                Some(sessionless)
            };
            let event = self.event(wanted);
            let ready = match deadline {
                None => event.await,
                Some(deadline) => match timeout_at(deadline, event).await {
                    Ok(ready) => ready,
                    Err(_) if signals.closing => {
                        return End::Refused("the client does not read what it was sent".into());
                    }
                    Err(_) if self.client.has_session() => Ok(Event::Woken),
                    Err(_) => return End::Sessionless,
                },
            };
            has_session = has_session || self.client.has_session();
            match ready {
                Ok(Event::Woken) => {}
                Ok(Event::Writable) => {
                    farewell = None;
                    self.outbox.flush(self.context);
                    self.keep_alive();
                }
                Ok(Event::Readable) => {
                    if let Err(end) = self.read().await {
                        return end;
                    }
                }
                Err(error) => return End::Io(error),
            }
        }
    }

    /// A client that takes what it was sent is there, though its pings wait to be read.
    fn keep_alive(&self) {
        let (mut none, now) = (VecDeque::new(), self.context.clock.now());
        let mut batch = Batch::new(self.context);
        self.context.node.on_frames(self.client, &mut none, now, &mut |action| batch.push(action));
    }

    async fn event(&self, wanted: Wanted) -> io::Result<Event> {
        let ready = async {
            match wanted {
                Wanted::Read => self.reader.readable().await.map(|()| Event::Readable),
                Wanted::Write => self.outbox.stream().writable().await.map(|()| Event::Writable),
                Wanted::Nothing => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.outbox.woken() => Ok(Event::Woken),
            ready = ready => ready,
        }
    }

    /// Reads what there is. The read is polled once: unlike a bare system call, that remembers when the
    /// socket was emptied, and spares the next call that would only find nothing.
    async fn read_once(&mut self) -> io::Result<Option<usize>> {
        self.unread.reserve(READ_LEN);
        let mut read = pin!(self.reader.read_buf(&mut self.unread));
        match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
            Poll::Ready(len) => len.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        match self.read_once().await {
            Ok(Some(0)) => return Err(End::ByClient),
            Ok(Some(len)) => Counters::add(&self.context.counters.bytes_received, len as u64),
            Ok(None) => {
                self.free_idle();
                return Ok(());
            }
            Err(error) => return Err(End::Io(error)),
        }
        if self.first {
            match four_letter::detect(&mut self.unread, &self.context.config.four_letter_words) {
                four_letter::Detected::Incomplete => return Ok(()),
                four_letter::Detected::No => self.first = false,
                four_letter::Detected::Word(word) => {
                    let text = four_letter::answer(self.context, &word);
                    self.outbox.finish_with(text.as_bytes(), self.context);
                    return Ok(());
                }
            }
        }
        self.process()
    }

    /// Gives the core what is there, until it is all served, the core asks to wait, or the client does
    /// not read its replies.
    fn process(&mut self) -> Result<(), End> {
        let mut framing =
            Framing { max_len: self.context.config.limits.jute_max_buffer_bytes as usize };
        self.held_back = false;
        while !self.paused {
            if self.outbox.holds_back() {
                self.held_back = true;
                return Ok(());
            }
            while self.frames.len() < FRAMES_MAX {
                if large::is_too_much(self.context, &self.unread) {
                    if !self.frames.is_empty() {
                        break;
                    }
                    large::count_refused(self.context);
                    return Err(End::Refused(
                        "too many bytes of large requests are in flight".into(),
                    ));
                }
                match framing.decode(&mut self.unread) {
                    Ok(Some(frame)) => self.frames.push_back(large::counted(self.context, frame)),
                    Ok(None) => break,
                    // What came before it is served first.
                    Err(_) if !self.frames.is_empty() => break,
                    Err(error) => return Err(End::Refused(error.to_string())),
                }
            }
            let Some(frame) = self.frames.front() else { break };
            if let Some(throttle) = self.throttle.take() {
                let id = frame.get(SESSION_ID_AT..).and_then(<[u8]>::first_chunk);
                let session = SessionId(id.map_or(0, |id| i64::from_be_bytes(*id)));
                if !throttle.admits(session, self.context.clock.now().mono_ms()) {
                    Counters::add(&self.context.counters.connection_rejected, 1);
                    return Err(End::Refused(
                        "too many sessions begin: see connection_throttle_tokens".into(),
                    ));
                }
            }
            let arrived = self.context.clock.now();
            let mut batch = Batch::new(self.context);
            let served = self.context.node.on_frames(
                self.client,
                &mut self.frames,
                arrived,
                &mut |action| {
                    batch.push(action);
                },
            );
            drop(batch); // wakes the store thread
            if served.reads > 0 {
                self.measure(arrived.mono_us, served.reads);
            }
            flush_touched(self.context);
            match served.flow {
                Flow::Continue => {}
                Flow::Wait => {
                    self.paused = true;
                    break;
                }
                Flow::Close(why) => return Err(End::Refused(why.to_owned())),
            }
        }
        self.free_idle();
        Ok(())
    }

    /// An idle connection keeps no buffers.
    fn free_idle(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    fn measure(&self, arrived_us: i64, reads: u64) {
        let stats = self.context.node.stats();
        let elapsed =
            u64::try_from(self.context.clock.now().mono_us - arrived_us).unwrap_or_default();
        stats.read_latency.record_many(elapsed, reads);
        stats.latency.record_many(elapsed, reads);
    }
}

/// What to wait for, besides being woken.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Read,
    Write,
    Nothing,
}

enum Event {
    Woken,
    Readable,
    Writable,
}

/// Says "that was all" and waits a moment for the client to close, reading what it still sends.
async fn linger(mut reader: OwnedReadHalf) {
    if rustix::net::shutdown(reader.as_ref(), rustix::net::Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + LINGER;
    let mut sink = [0; 512];
    while let Ok(Ok(1..)) = timeout_at(deadline, reader.read(&mut sink)).await {}
}
