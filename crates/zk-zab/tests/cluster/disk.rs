//! A disk: what is durable, and what is on its way there.

use std::collections::VecDeque;

use bytes::Bytes;
use zk_proto::{Epoch, Zxid};
use zk_zab::{Durable, History, Token, Write};

/// A tree: everything that was ever applied.
pub(crate) type State = Vec<(Zxid, Bytes)>;

/// A snapshot that counts once an epoch behind it is there.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    state: State,
    zxid: Zxid,
    log: Vec<(Zxid, Bytes)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) token: Token,
    pub(crate) write: Write,
    /// What a snapshot has in it.
    pub(crate) state: Option<State>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// A checkpoint of the tree, and its zxid.
    pub(crate) stored: (Zxid, State),
    /// The log begins behind this.
    pub(crate) begins: Zxid,
    pub(crate) log: Vec<(Zxid, Bytes)>,
    pub(crate) install: Option<Install>,
    /// It is empty, and should not be.
    pub(crate) lost: bool,
    pub(crate) queue: VecDeque<Queued>,
}

impl Disk {
    /// The oldest write in the queue becomes durable.
    pub(crate) fn sync_one(&mut self) -> Token {
        let Queued { token, write, state } = self.queue.pop_front().expect("something to sync");
        match write {
            Write::AcceptedEpoch(epoch) => {
                assert!(epoch >= self.accepted, "accepted {epoch} after {}", self.accepted);
                self.accepted = epoch;
            }
            Write::CurrentEpoch(epoch) => {
                assert!(epoch >= self.current, "epoch {epoch} after {}", self.current);
                assert!(epoch <= self.accepted, "epoch {epoch} is not accepted");
                self.current = epoch;
                if let Some(Install { state, zxid, log }) = self.install.take() {
                    assert!(zxid >= self.stored.0, "an older snapshot");
                    self.stored = (zxid, state);
                    self.begins = zxid;
                    self.log = log;
                }
            }
            Write::Append { zxid, txn } => {
                let (log, base) = self.log_now();
                let last = log.last().map_or(base, |(zxid, _)| *zxid);
                assert!(
                    zxid.0 == last.0 + 1 || zxid.epoch() > last.epoch() && zxid.counter() == 1,
                    "a hole in the log: {zxid} behind {last}"
                );
                log.push((zxid, txn));
            }
            Write::Truncate(zxid) => {
                let (log, base) = self.log_now();
                assert!(zxid >= base);
                log.retain(|(own, _)| *own <= zxid);
            }
            Write::InstallSnapshot { zxid, .. } => {
                let state = state.expect("staged");
                self.install = Some(Install { state, zxid, log: Vec::new() });
            }
        }
        token
    }

    fn log_now(&mut self) -> (&mut Vec<(Zxid, Bytes)>, Zxid) {
        match &mut self.install {
            Some(install) => (&mut install.log, install.zxid),
            None => (&mut self.log, self.begins),
        }
    }

    /// The power is gone: only the first `keep` of the queued writes make it.
    pub(crate) fn crash(&mut self, keep: usize) {
        for _ in 0..keep.min(self.queue.len()) {
            self.sync_one();
        }
        self.queue.clear();
        self.install = None;
    }

    pub(crate) fn recover(&self) -> Durable {
        Durable {
            accepted_epoch: self.accepted,
            current_epoch: self.current,
            applied: self.stored.0,
            tail: self.log.iter().filter(|(zxid, _)| *zxid > self.stored.0).cloned().collect(),
            initialized: !self.lost,
        }
    }

    pub(crate) fn installing(&self) -> bool {
        self.install.is_some()
            || self.queue.iter().any(|queued| matches!(queued.write, Write::InstallSnapshot { .. }))
    }

    /// A checkpoint of the tree; the log before it may go.
    pub(crate) fn checkpoint(&mut self, state: &State, purge: bool) {
        let Some((zxid, _)) = state.last() else { return };
        if self.installing() || *zxid < self.stored.0 || !self.has(*zxid) {
            return;
        }
        self.stored = (*zxid, state.clone());
        if purge {
            self.begins = *zxid;
            self.log.retain(|(own, _)| own > zxid);
        }
    }

    /// Whether the transaction survives a crash.
    pub(crate) fn has(&self, zxid: Zxid) -> bool {
        self.stored.1.iter().any(|(own, _)| *own == zxid)
            || self.log.iter().any(|(own, _)| *own == zxid)
    }

    pub(crate) fn read(&self, after: Zxid, to: Zxid) -> Option<State> {
        let entries = self.log.iter().filter(|(zxid, _)| *zxid > after && *zxid <= to);
        (after >= self.begins).then(|| entries.cloned().collect())
    }
}

impl History for Disk {
    fn begins(&self) -> Zxid {
        self.begins
    }

    fn floor(&self, zxid: Zxid) -> Option<Zxid> {
        let found = self.log.iter().map(|(own, _)| *own).rfind(|own| *own <= zxid);
        found.or((zxid >= self.begins).then_some(self.begins))
    }

    fn bytes_after(&self, after: Zxid) -> u64 {
        10 * self.log.iter().filter(|(zxid, _)| *zxid > after).count() as u64
    }

    fn snapshot_bytes(&self) -> u64 {
        10 * self.stored.1.len() as u64
    }
}
