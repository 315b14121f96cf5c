//! One client connection: bytes in, frames to the core, bytes out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::Decoder;
use zk_processor::{Client, Flow};

use super::framing::Framing;
use super::outbox::{ConnectionOutbox, Handle, flush_touched};
use crate::admin::four_letter;
use crate::context::{Context, Counters};
use crate::storage;

/// Room made for one read. Larger requests make it grow as they come in.
const READ_LEN: usize = 16 << 10;

/// Frames served under one hold of the tree's lock. Also what bounds the replies that pile up before
/// anyone looks whether the client reads them.
const FRAMES_MAX: usize = 64;

/// How long a closed connection is kept, so that its last bytes arrive: closing at once would throw
/// them away if the client has sent something that was not read.
const LINGER: Duration = Duration::from_secs(1);

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
pub(crate) async fn run(context: Arc<Context>, stream: TcpStream, peer: SocketAddr) {
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
        unread: BytesMut::new(),
        frames: VecDeque::new(),
        paused: false,
        first: true,
    };
    let end = connection.serve().await;
    let reader = connection.reader;
    context.node.on_closed(&client);
    context.counters.peers.remove(client.id);
    Counters::add(&context.counters.connection_drops, 1);
    match end {
        End::ByClient => tracing::debug!(%peer, "the client closed its connection"),
        End::Io(error) => tracing::debug!(%peer, %error, "connection lost"),
        End::Refused(why) => tracing::warn!(%peer, %why, "connection closed"),
        End::Sessionless => {
            Counters::add(&context.counters.sessionless_expired, 1);
            tracing::info!(%peer, "connection closed: no session in time");
        }
        End::Done => linger(reader).await,
    }
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
    /// Nothing but a four-letter word or the first frame has come.
    first: bool,
}

impl Connection<'_> {
    async fn serve(&mut self) -> End {
        let deadline = Instant::now()
            + Duration::from_millis(self.context.config.sessionless_timeout_ms.into());
        let mut has_session = false;
        loop {
            let signals = self.outbox.signals();
            if signals.done {
                return End::Done;
            }
            if signals.resumed {
                self.paused = false;
                if let Err(end) = self.process() {
                    return end;
                }
                continue;
            }
            // A client that does not read its replies is not read either.
            let wanted = match (signals.stalled, self.paused || signals.closing) {
                (true, _) => Wanted::Write,
                (false, false) => Wanted::Read,
                (false, true) => Wanted::Nothing,
            };
            let event = self.event(wanted);
            let ready = if has_session {
                event.await
            } else {
                let in_time = timeout_at(deadline, event).await;
                has_session = self.client.has_session();
                match in_time {
                    Ok(ready) => ready,
                    Err(_) if has_session => continue,
                    Err(_) => return End::Sessionless,
                }
            };
            match ready {
                Ok(Event::Woken) => {}
                Ok(Event::Writable) => {
                    self.outbox.flush(self.context);
                    // What was left because the client did not read.
                    if let Err(end) = self.process() {
                        return end;
                    }
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
            match four_letter::detect(&mut self.unread) {
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
        while !self.paused && !self.outbox.is_stalled() {
            while self.frames.len() < FRAMES_MAX {
                match framing.decode(&mut self.unread) {
                    Ok(Some(frame)) => self.frames.push_back(frame),
                    Ok(None) => break,
                    // What came before it is served first.
                    Err(_) if !self.frames.is_empty() => break,
                    Err(error) => return Err(End::Refused(error.to_string())),
                }
            }
            if self.frames.is_empty() {
                break;
            }
            let arrived = self.context.clock.now();
            let mut batch = storage::Batch::new(&self.context.queue);
            let served = self.context.node.on_frames(self.client, &mut self.frames, arrived, &mut |action| {
                batch.push(action);
            });
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
        let elapsed = u64::try_from(self.context.clock.now().mono_us - arrived_us).unwrap_or_default();
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
