//! Writes on their way to the store thread.

use std::sync::{Condvar, Mutex, MutexGuard};

use zk_processor::Action;
use zk_storage::Write;
use zk_zab::Token;

/// The writes that wait. Its length is bounded by the requests that may be outstanding: the core stops
/// reading clients before it grows.
#[derive(Debug, Default)]
pub struct StoreQueue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    writes: Vec<Write>,
    last: Option<Token>,
    stopping: bool,
    /// The store thread sleeps: it has to be woken.
    idle: bool,
}

impl StoreQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// Waits for writes and takes them all, with the token of the last one. `None`: the server stops
    /// and nothing is left.
    pub fn take(&self, writes: &mut Vec<Write>) -> Option<Token> {
        writes.clear();
        let mut state = self.state();
        loop {
            if let Some(token) = state.last.take() {
                std::mem::swap(&mut state.writes, writes);
                return Some(token);
            }
            if state.stopping {
                return None;
            }
            state.idle = true;
            state = self.filled.wait(state).expect("no holder of this lock panics");
            state.idle = false;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.state().last.is_none()
    }

    /// Lets the store thread end when it has written everything.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.filled.notify_one();
    }
}

/// Adds writes, and wakes the store thread once, when dropped.
#[derive(Debug)]
pub struct Batch<'q> {
    queue: &'q StoreQueue,
    pushed: bool,
}

impl<'q> Batch<'q> {
    /// Nothing yet.
    #[must_use]
    pub fn new(queue: &'q StoreQueue) -> Self {
        Self { queue, pushed: false }
    }

    /// Called under the core's writer lock, so writes are queued in the order of their tokens.
    pub fn push(&mut self, action: Action) {
        let Action::Persist { token, write } = action;
        let write = match write {
            zk_zab::Write::Append { zxid, txn } => Write::Txn { zxid, payload: txn },
            zk_zab::Write::AcceptedEpoch(epoch) => Write::AcceptedEpoch(epoch),
            zk_zab::Write::CurrentEpoch(epoch) => Write::CurrentEpoch(epoch),
            zk_zab::Write::Truncate(zxid) => Write::Truncate { zxid },
        };
        let mut state = self.queue.state();
        state.writes.push(write);
        state.last = Some(token);
        self.pushed = true;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.pushed && self.queue.state().idle {
            self.queue.filled.notify_one();
        }
    }
}
