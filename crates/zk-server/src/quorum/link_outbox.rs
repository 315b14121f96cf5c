//! What waits to be sent to one learner, or to the leader.
//!
//! The core pushes packets under its lock, so a push does no more than append. Whoever called the core
//! flushes afterwards; a task of the link's own works only while the socket is full, and on what has
//! to be read from storage first ([`Expansion`]): packets pushed behind such a thing wait behind it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use zk_proto::Record;
use zk_proto::quorum::QuorumPacket;
use zk_zab::LinkId;

/// Unsent bytes at which the other side counts as one that does not read: the link is closed. A
/// learner that is sent a snapshot has this much time to take it, measured in writes.
const UNSENT_MAX: usize = 256 << 20;

/// A buffer that was larger than this is given back when it is empty.
const KEPT: usize = 256 << 10;

/// The bytes of something that is read from storage, as they come; an error ends the link. It has
/// been sent whole when the sender is gone without an error.
pub(crate) type Expansion = mpsc::Receiver<Result<Bytes, String>>;

/// One link's outgoing half.
#[derive(Debug)]
pub(crate) struct LinkOutbox {
    id: LinkId,
    stream: OwnedWriteHalf,
    state: Mutex<State>,
    /// Wakes the link's own task.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// To be sent now.
    unsent: BytesMut,
    /// To be sent afterwards.
    behind: VecDeque<Behind>,
    /// The length of all that is unsent.
    len: usize,
    flushing: bool,
    /// The socket is full.
    stalled: bool,
    /// Nothing is to be sent any more.
    closed: bool,
}

/// What comes out of storage, and the packets behind it.
#[derive(Debug)]
struct Behind {
    /// The link's task has it, once its turn has come.
    expansion: Option<Expansion>,
    packets: BytesMut,
}

/// How often a transfer that goes on is told of.
pub(crate) const PROGRESS: Duration = Duration::from_secs(1);

/// Tells of a long transfer, not too often.
struct Progress<F> {
    tell: F,
    told: Instant,
}

impl<F: FnMut()> Progress<F> {
    fn made(&mut self) {
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            (self.tell)();
        }
    }
}

/// What the link's task has to do.
enum Work {
    Wait,
    Flush,
    Send(Expansion),
    End,
}

impl LinkOutbox {
    pub(crate) fn new(id: LinkId, stream: OwnedWriteHalf) -> Arc<Self> {
        Arc::new(Self { id, stream, state: Mutex::default(), wake: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Bytes that were not sent yet.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.state().len
    }

    /// Puts a packet behind everything else.
    pub(crate) fn push(&self, packet: &QuorumPacket) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let state = &mut *state;
        let out = match state.behind.back_mut() {
            Some(behind) => &mut behind.packets,
            None => &mut state.unsent,
        };
        let before = out.len();
        packet.encode(out);
        state.len += out.len() - before;
        if state.len > UNSENT_MAX {
            tracing::warn!(
                link = self.id.0,
                unsent_bytes = state.len,
                "the other side of a quorum link does not read: the link is closed"
            );
            self.close_locked(state);
        }
    }

    /// Puts what storage will tell behind everything else.
    pub(crate) fn push_expansion(&self, expansion: Expansion) {
        let mut state = self.state();
        if !state.closed {
            state.behind.push_back(Behind { expansion: Some(expansion), packets: BytesMut::new() });
        }
    }

    /// Hangs up; nothing more is sent. The reader of the link finds its end.
    pub(crate) fn close(&self) {
        self.close_locked(&mut self.state());
    }

    fn close_locked(&self, state: &mut State) {
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        state.unsent = BytesMut::new();
        state.behind.clear();
        state.len = 0;
        if rustix::net::shutdown(self.stream.as_ref(), rustix::net::Shutdown::Both).is_err() {
            tracing::debug!(link = self.id.0, "there was no connection any more");
        }
        self.wake.notify_one();
    }

    /// Sends as much as the socket takes. Nothing is locked during the system call.
    pub(crate) fn flush(&self) {
        let mut state = self.state();
        if state.flushing {
            return; // whoever flushes sees what was pushed meanwhile
        }
        state.flushing = true;
        state.stalled = false;
        while !state.unsent.is_empty() && !state.stalled {
            let mut sending = std::mem::take(&mut state.unsent);
            drop(state);
            let sent = self.stream.try_write(&sending);
            state = self.state();
            if state.closed {
                break;
            }
            match sent {
                Ok(len) => {
                    sending.advance(len);
                    state.len -= len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.stalled = true,
                Err(_) => {
                    self.close_locked(&mut state); // the reader finds out what happened
                    break;
                }
            }
            if !sending.is_empty() {
                sending.unsplit(std::mem::take(&mut state.unsent));
                state.unsent = sending;
            } else if state.unsent.is_empty() && sending.capacity() <= KEPT {
                state.unsent = sending;
            }
        }
        state.flushing = false;
        let wake = state.stalled || (state.unsent.is_empty() && !state.behind.is_empty());
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    fn work(&self) -> Work {
        let mut state = self.state();
        if state.closed {
            return Work::End;
        }
        if state.stalled {
            return Work::Flush;
        }
        if state.flushing || !state.unsent.is_empty() {
            return Work::Wait;
        }
        match state.behind.front_mut() {
            Some(behind) => match behind.expansion.take() {
                Some(expansion) => Work::Send(expansion),
                None => Work::Wait,
            },
            None => Work::Wait,
        }
    }

    /// The link's own task: it ends with the link. `progress` hears now and then that a long transfer
    /// goes on.
    pub(crate) async fn run(self: Arc<Self>, progress: impl FnMut() + Send) {
        let mut progress = Progress { tell: progress, told: Instant::now() };
        loop {
            match self.work() {
                Work::End => return,
                Work::Wait => self.wake.notified().await,
                Work::Flush => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        ready = self.stream.writable() => match ready {
                            Ok(()) => {
                                self.flush();
                                progress.made();
                            }
                            Err(_) => self.close(),
                        }
                    }
                }
                Work::Send(expansion) => match self.send(expansion, &mut progress).await {
                    Ok(()) => {
                        self.expanded();
                        self.flush();
                    }
                    Err(error) => {
                        if !self.is_closed() {
                            tracing::warn!(link = self.id.0, %error, "what a learner is missing could not be sent: the link is closed");
                        }
                        self.close();
                    }
                },
            }
        }
    }

    /// While it runs nobody else writes: `unsent` is empty, and packets are put behind.
    async fn send(
        &self,
        mut expansion: Expansion,
        progress: &mut Progress<impl FnMut() + Send>,
    ) -> Result<(), String> {
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = expansion.recv() => chunk,
                () = self.wake.notified() => {
                    if self.is_closed() {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                match self.stream.try_write(&chunk) {
                    Ok(len) => {
                        chunk.advance(len);
                        progress.made();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.stream.writable().await.map_err(|error| error.to_string())?;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }

    /// The packets behind what was expanded have their turn.
    fn expanded(&self) {
        let mut state = self.state();
        if let Some(behind) = state.behind.pop_front() {
            state.unsent = behind.packets;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use zk_proto::Zxid;
    use zk_proto::quorum::PacketType;

    use super::super::packets;
    use super::*;

    async fn pair() -> (Arc<LinkOutbox>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (_, writer) = accepted.into_split();
        (LinkOutbox::new(LinkId(1), writer), dialled)
    }

    fn packet(zxid: i64, len: usize) -> QuorumPacket {
        QuorumPacket {
            packet_type: PacketType::PROPOSAL,
            zxid: Zxid(zxid),
            data: Some(vec![b'x'; len].into()),
            authinfo: None,
        }
    }

    fn encoded(zxids: impl IntoIterator<Item = i64>) -> Bytes {
        let mut out = BytesMut::new();
        zxids.into_iter().for_each(|zxid| packet(zxid, 10).encode(&mut out));
        out.freeze()
    }

    async fn read_zxids(stream: &mut TcpStream, count: usize) -> Vec<i64> {
        let (mut unread, mut out) = (BytesMut::new(), VecDeque::new());
        while out.len() < count {
            let read = timeout(Duration::from_secs(10), stream.read_buf(&mut unread)).await;
            assert!(read.expect("nothing came").unwrap() > 0, "closed after {}", out.len());
            packets::take(&mut unread, 1 << 20, &mut out).unwrap();
        }
        out.into_iter().map(|packet| packet.zxid.0).collect()
    }

    #[tokio::test]
    async fn packets_keep_their_order_around_what_comes_from_storage() {
        let (outbox, mut other) = pair().await;
        let task = tokio::spawn(Arc::clone(&outbox).run(|| {}));
        outbox.push(&packet(1, 10));
        let (first, expansion) = mpsc::channel(1);
        outbox.push_expansion(expansion);
        outbox.push(&packet(4, 10));
        let (second, expansion) = mpsc::channel(1);
        outbox.push_expansion(expansion);
        outbox.push(&packet(7, 10));
        outbox.flush();
        assert_eq!(read_zxids(&mut other, 1).await, [1]);
        // The later one is ready before the earlier one, and has to wait.
        second.send(Ok(encoded([5, 6]))).await.unwrap();
        drop(second);
        first.send(Ok(encoded([2]))).await.unwrap();
        outbox.flush();
        assert_eq!(read_zxids(&mut other, 1).await, [2]);
        outbox.push(&packet(8, 10));
        outbox.flush();
        first.send(Ok(encoded([3]))).await.unwrap();
        drop(first);
        assert_eq!(read_zxids(&mut other, 6).await, [3, 4, 5, 6, 7, 8]);
        assert_eq!(outbox.len(), 0);
        outbox.push(&packet(9, 10));
        outbox.flush();
        assert_eq!(read_zxids(&mut other, 1).await, [9]);
        outbox.close();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_socket_loses_nothing() {
        let (outbox, mut other) = pair().await;
        tokio::spawn(Arc::clone(&outbox).run(|| {}));
        for zxid in 0..200 {
            outbox.push(&packet(zxid, 100_000));
            outbox.flush();
        }
        let (more, expansion) = mpsc::channel(1);
        outbox.push_expansion(expansion);
        outbox.push(&packet(201, 10));
        tokio::spawn(async move { more.send(Ok(encoded([200]))).await });
        let expected: Vec<i64> = (0..=201).collect();
        assert_eq!(read_zxids(&mut other, 202).await, expected);
        assert_eq!(outbox.len(), 0);
    }

    #[tokio::test]
    async fn a_link_whose_history_cannot_be_read_is_closed() {
        let (outbox, mut other) = pair().await;
        let task = tokio::spawn(Arc::clone(&outbox).run(|| {}));
        let (history, expansion) = mpsc::channel(1);
        outbox.push_expansion(expansion);
        outbox.push(&packet(4, 10));
        outbox.flush();
        history.send(Ok(encoded([1]))).await.unwrap();
        history.send(Err("purged".into())).await.unwrap();
        assert_eq!(read_zxids(&mut other, 1).await, [1]);
        assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 0, "nothing behind the gap");
        task.await.unwrap();
        assert!(outbox.is_closed());
    }

    #[tokio::test]
    async fn one_that_does_not_read_is_closed() {
        let (outbox, _other) = pair().await;
        let task = tokio::spawn(Arc::clone(&outbox).run(|| {}));
        let large = packet(1, 1 << 20);
        for _ in 0..=UNSENT_MAX >> 20 {
            outbox.push(&large);
        }
        assert!(outbox.is_closed());
        assert_eq!(outbox.len(), 0);
        outbox.push(&large);
        assert_eq!(outbox.len(), 0);
        task.await.unwrap();
    }
}
