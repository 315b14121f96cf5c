//! Where a connection's frames wait for its socket.
//!
//! The core pushes frames under its locks, so a push never does more than append. Whoever called the
//! core flushes afterwards everything it touched: for a write that is the store thread itself, which
//! saves the connection's task from being woken for every reply.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BytesMut};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use zk_processor::Outbox;

use crate::context::{Context, Counters};

/// Unsent bytes at which a client counts as one that does not read: its connection is closed, its
/// session lives on. Requests stop being served long before; watch events and the replies of one batch
/// of large reads are what can get here.
const UNSENT_MAX: usize = 128 << 20;

/// Bytes that may pile up while another thread is in the middle of a flush. More requests wait for its
/// end: only that tells whether the client reads.
const UNFLUSHED_MAX: usize = 1 << 20;

thread_local! {
    /// Outboxes that the core pushed to on this thread since the last flush.
    static TOUCHED: RefCell<Vec<Arc<ConnectionOutbox>>> = const { RefCell::new(Vec::new()) };
}

/// Sends what the core has pushed on this thread.
pub fn flush_touched(context: &Context) {
    loop {
        let Some(outbox) = TOUCHED.with_borrow_mut(Vec::pop) else { return };
        outbox.flush(context);
    }
}

/// One connection's outgoing half.
#[derive(Debug)]
pub(crate) struct ConnectionOutbox {
    stream: OwnedWriteHalf,
    state: Mutex<State>,
    /// Wakes the connection's task: something of [`Signals`] changed.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    unsent: BytesMut,
    /// On this thread's list, or being flushed: whoever does it sees what is pushed meanwhile.
    touched: bool,
    flushing: bool,
    signals: Signals,
    /// Of the frames since the last flush.
    sizes: Option<Sizes>,
}

/// Lengths of frames, without the length itself.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    last: u64,
    min: u64,
    max: u64,
}

impl Sizes {
    /// With one more.
    fn with(sizes: Option<Self>, len: u64) -> Self {
        let Self { min, max, .. } = sizes.unwrap_or(Self { last: len, min: len, max: len });
        Self { last: len, min: min.min(len), max: max.max(len) }
    }

    fn publish(self, counters: &Counters) {
        let Counters { last_response_bytes, min_response_bytes, max_response_bytes, .. } = counters;
        last_response_bytes.store(self.last, Ordering::Relaxed);
        // A lost update would be made up for by the next response; none is worth a contended line.
        if self.max > max_response_bytes.load(Ordering::Relaxed) {
            max_response_bytes.fetch_max(self.max, Ordering::Relaxed);
        }
        let min = min_response_bytes.load(Ordering::Relaxed);
        if min == 0 || self.min < min {
            min_response_bytes.store(self.min, Ordering::Relaxed);
        }
    }
}

/// What the connection's task has to know.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Signals {
    /// The socket is full: wait until it is writable, then flush.
    pub(crate) stalled: bool,
    /// Another thread's flush is behind: wait for its end.
    pub(crate) behind: bool,
    /// Close when everything is sent.
    pub(crate) closing: bool,
    /// Everything that will be sent is sent, or cannot be.
    pub(crate) done: bool,
    /// The client may be read again.
    pub(crate) resumed: bool,
}

impl ConnectionOutbox {
    pub(crate) fn new(stream: OwnedWriteHalf) -> Arc<Self> {
        Arc::new(Self { stream, state: Mutex::default(), wake: Notify::new() })
    }

    pub(crate) fn stream(&self) -> &OwnedWriteHalf {
        &self.stream
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Whether replies wait for the client to read, or may be about to: nothing more is to be served
    /// then, until [`Self::woken`] or the socket is writable.
    pub(crate) fn holds_back(&self) -> bool {
        let mut state = self.state();
        state.signals.behind = state.flushing && state.unsent.len() > UNFLUSHED_MAX;
        state.signals.stalled || state.signals.behind
    }

    /// What changed; `resumed` is taken.
    pub(crate) fn signals(&self) -> Signals {
        let mut state = self.state();
        let signals = state.signals;
        state.signals.resumed = false;
        signals
    }

    /// Sends `bytes` as the last thing on this connection.
    pub(crate) fn finish_with(&self, bytes: &[u8], context: &Context) {
        let mut state = self.state();
        state.unsent.extend_from_slice(bytes);
        state.signals.closing = true;
        drop(state);
        self.flush(context);
    }

    /// Sends as much as the socket takes. Nothing is locked during the system call, so a push never
    /// waits for it.
    pub(crate) fn flush(&self, context: &Context) {
        let mut state = self.state();
        state.touched = false;
        if let Some(sizes) = state.sizes.take() {
            sizes.publish(&context.counters);
        }
        if state.flushing {
            return;
        }
        state.flushing = true;
        state.signals.stalled = false;
        let mut wake = false;
        while !state.unsent.is_empty() && !state.signals.done {
            let mut sending = std::mem::take(&mut state.unsent);
            drop(state);
            let sent = self.stream.try_write(&sending);
            state = self.state();
            match sent {
                Ok(len) => {
                    Counters::add(&context.counters.response_bytes, len as u64);
                    sending.advance(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.signals.stalled = true;
                }
                Err(_) => {
                    state.signals.done = true; // the reader finds out what happened, and says so
                    sending.clear();
                }
            }
            if !sending.is_empty() {
                sending.unsplit(std::mem::take(&mut state.unsent));
                state.unsent = sending;
            }
            if state.signals.stalled {
                wake = true;
                break;
            }
        }
        if state.unsent.is_empty() {
            state.unsent = BytesMut::new(); // an idle connection keeps no buffer
        }
        if state.signals.closing && state.unsent.is_empty() {
            state.signals.done = true;
        }
        state.flushing = false;
        wake |= state.signals.done || std::mem::take(&mut state.signals.behind);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }
}

/// The core's end of an outbox.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<ConnectionOutbox>);

impl Handle {
    fn touch(&self, state: &mut State) {
        if !state.touched {
            state.touched = true;
            TOUCHED.with_borrow_mut(|touched| touched.push(Arc::clone(&self.0)));
        }
    }
}

impl Outbox for Handle {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        let mut state = self.0.state();
        if state.signals.closing || state.signals.done {
            return;
        }
        if state.unsent.len() > UNSENT_MAX {
            state.signals.done = true;
            state.unsent = BytesMut::new();
        } else {
            let before = state.unsent.len();
            write(&mut state.unsent);
            let len = (state.unsent.len() - before).saturating_sub(size_of::<i32>());
            state.sizes = Some(Sizes::with(state.sizes, len as u64));
        }
        self.touch(&mut state);
    }

    fn close(&self) {
        let mut state = self.0.state();
        state.signals.closing = true;
        self.touch(&mut state);
    }

    fn resume(&self) {
        self.0.state().signals.resumed = true;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::admin::testing::context;

    /// Only the end of another thread's flush tells whether the client reads.
    #[tokio::test]
    async fn replies_do_not_pile_up_behind_a_flush() {
        let context = context("");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_reader, writer) = listener.accept().await.unwrap().0.into_split();
        let outbox = ConnectionOutbox::new(writer);
        let handle = Handle(Arc::clone(&outbox));

        outbox.state().flushing = true; // by another thread, for as long as it takes
        handle.push(&mut |bytes| bytes.put_bytes(0, 10));
        assert!(!outbox.holds_back());
        handle.push(&mut |bytes| bytes.put_bytes(0, UNFLUSHED_MAX));
        flush_touched(&context);
        assert!(outbox.holds_back());
        assert!(outbox.signals().behind);

        outbox.state().flushing = false;
        outbox.flush(&context);
        outbox.woken().await;
        assert!(!outbox.signals().behind);
        assert_eq!(outbox.holds_back(), outbox.signals().stalled);
    }
}
