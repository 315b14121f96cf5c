//! One client connection: bytes in, frames to the core, bytes out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
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

/// Frames served under one hold of the tree's lock.
const FRAMES_MAX: usize = 128;

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
    let outbox = ConnectionOutbox::new(stream);
    let address = peer.ip().to_canonical().to_string();
    let handle = Box::new(Handle(Arc::clone(&outbox)));
    let client = context.node.open(address, handle, context.clock.now());
    let mut connection = Connection {
        outbox: &outbox,
        client: &client,
        context: &context,
        unread: BytesMut::new(),
        frames: VecDeque::new(),
        paused: false,
        first: true,
    };
    let end = connection.serve().await;
    context.node.on_closed(&client);
    Counters::add(&context.counters.connection_drops, 1);
    match end {
        End::ByClient => tracing::debug!(%peer, "the client closed its connection"),
        End::Io(error) => tracing::debug!(%peer, %error, "connection lost"),
        End::Refused(why) => tracing::warn!(%peer, %why, "connection closed"),
        End::Sessionless => {
            Counters::add(&context.counters.sessionless_expired, 1);
            tracing::info!(%peer, "connection closed: no session in time");
        }
        End::Done => linger(outbox.stream()).await,
    }
}

struct Connection<'a> {
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
            let interest = match (self.paused || signals.closing, signals.stalled) {
                (_, true) => Some(Interest::WRITABLE),
                (false, false) => Some(Interest::READABLE),
                (true, false) => None,
            };
            let event = self.event(interest);
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
                Ok(Event::Writable) => self.outbox.flush(self.context),
                Ok(Event::Readable) => {
                    if let Err(end) = self.read() {
                        return end;
                    }
                }
                Err(error) => return End::Io(error),
            }
        }
    }

    async fn event(&self, interest: Option<Interest>) -> io::Result<Event> {
        let Some(interest) = interest else {
            self.outbox.woken().await;
            return Ok(Event::Woken);
        };
        tokio::select! {
            biased;
            () = self.outbox.woken() => Ok(Event::Woken),
            ready = self.outbox.stream().ready(interest) => {
                ready.map(|_| if interest == Interest::READABLE { Event::Readable } else { Event::Writable })
            }
        }
    }

    fn read(&mut self) -> Result<(), End> {
        self.unread.reserve(READ_LEN);
        match self.outbox.stream().try_read_buf(&mut self.unread) {
            Ok(0) => return Err(End::ByClient),
            Ok(len) => Counters::add(&self.context.counters.bytes_received, len as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
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

    /// Gives the core what is there, until it is all served or the core asks to wait.
    fn process(&mut self) -> Result<(), End> {
        let mut framing =
            Framing { max_len: self.context.config.limits.jute_max_buffer_bytes as usize };
        loop {
            while self.frames.len() < FRAMES_MAX {
                match framing.decode(&mut self.unread) {
                    Ok(Some(frame)) => self.frames.push_back(frame),
                    Ok(None) => break,
                    Err(error) => {
                        return Err(End::Refused(error.to_string()));
                    }
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
        if self.unread.is_empty() {
            self.unread = BytesMut::new(); // an idle connection keeps no buffer
            if self.frames.is_empty() {
                self.frames = VecDeque::new();
            }
        }
        Ok(())
    }

    fn measure(&self, arrived_us: i64, reads: u64) {
        let stats = self.context.node.stats();
        let elapsed = u64::try_from(self.context.clock.now().mono_us - arrived_us).unwrap_or_default();
        stats.read_latency.record_many(elapsed, reads);
        stats.latency.record_many(elapsed, reads);
    }
}

enum Event {
    Woken,
    Readable,
    Writable,
}

/// Says "that was all" and waits a moment for the client to close, reading what it still sends.
async fn linger(stream: &TcpStream) {
    if rustix::net::shutdown(stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + LINGER;
    let mut sink = [0; 512];
    while let Ok(Ok(())) = timeout_at(deadline, stream.readable()).await {
        match stream.try_read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
