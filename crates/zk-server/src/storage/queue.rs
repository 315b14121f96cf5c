//! Writes on their way to the store thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

use zk_proto::Zxid;
use zk_storage::{StagedState, Write};
use zk_zab::Token;

use crate::context::Context;

/// The writes that wait. Its length is bounded by the requests that may be outstanding: the core stops
/// reading clients before it grows; a learner's by what its leader's limits let through.
#[derive(Debug, Default)]
pub struct StoreQueue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    writes: Vec<Write>,
    last: Option<Token>,
    /// What came behind a snapshot, and the snapshot.
    later: VecDeque<Work>,
    stopping: bool,
    /// The store thread sleeps: it has to be woken.
    idle: bool,
}

/// What the store thread does next.
#[derive(Debug)]
pub enum Work {
    /// Writes for the log, up to this one.
    Append(Vec<Write>, Token),
    /// A snapshot from the leader becomes the state.
    Install {
        /// The write's name.
        token: Token,
        /// The zxid that it is of.
        zxid: Zxid,
        /// The snapshot; `None` when there is none, which would be a bug of the core's.
        staged: Option<StagedState>,
    },
}

impl StoreQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// Puts a write behind those before it. Called under the core's writer lock, so they are queued in
    /// the order of their tokens. [`Self::wake`] has to follow.
    pub fn push(&self, context: &Context, token: Token, write: zk_zab::Write) {
        let write = match write {
            zk_zab::Write::Append { zxid, txn } => Write::Txn { zxid, payload: txn },
            zk_zab::Write::AcceptedEpoch(epoch) => Write::AcceptedEpoch(epoch),
            zk_zab::Write::CurrentEpoch(epoch) => Write::CurrentEpoch(epoch),
            zk_zab::Write::Truncate(zxid) => Write::Truncate { zxid },
            zk_zab::Write::InstallSnapshot { link, zxid } => {
                let staged = context.quorum().staged.take(link);
                let install = Work::Install { token, zxid, staged };
                self.state().later.push_back(install);
                return;
            }
        };
        let mut state = self.state();
        match state.later.back_mut() {
            None => {
                state.writes.push(write);
                state.last = Some(token);
            }
            Some(Work::Append(writes, last)) => {
                writes.push(write);
                *last = token;
            }
            Some(Work::Install { .. }) => {
                state.later.push_back(Work::Append(vec![write], token));
            }
        }
    }

    /// Wakes the store thread if it sleeps.
    pub fn wake(&self) {
        if self.state().idle {
            self.filled.notify_one();
        }
    }

    /// Waits for work. `spare` is what the last work's writes were in: it is used again. `None`: the
    /// server stops and nothing is left.
    pub fn take(&self, mut spare: Vec<Write>) -> Option<Work> {
        spare.clear();
        let mut state = self.state();
        loop {
            if let Some(token) = state.last.take() {
                std::mem::swap(&mut state.writes, &mut spare);
                return Some(Work::Append(spare, token));
            }
            if let Some(work) = state.later.pop_front() {
                return Some(work);
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
        let state = self.state();
        state.last.is_none() && state.later.is_empty()
    }

    /// Lets the store thread end when it has written everything.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.filled.notify_one();
    }
}
