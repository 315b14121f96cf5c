//! The transaction log: one durable stream of transactions, epochs and truncations.
//!
//! [`Log`] writes and belongs to one thread. [`LogHandle`] does the rest from any other: it makes
//! the next segment ahead of need, purges, and reads.
//!
//! # Invariants
//!
//! - An append that returned is on disk, unless syncing is configured off.
//! - Segments are numbered without a gap, and each is durable before the next one is begun.
//! - A file named like a segment has its header; it is in use from its first record on.
//! - What a reader is reading is never overwritten: its segment is removed instead of recycled.
//! - A truncation leads to a transaction that is there, or to where the log begins; never below what
//!   the state has.
//! - An installed snapshot has a current epoch behind it, in its own batch. One that lacks it is part of
//!   a torn write: opening the log cuts it off, and what stands before it counts again.

mod error;
mod index;
mod purge;
mod reader;
mod record;
mod recover;
mod segment;
mod watermark;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use zk_proto::{Epoch, Zxid};

use crate::disk::in_memory;
use crate::identity::{FolderLock, StoreId};
use crate::state::StagedId;
pub use error::{LogError, Problem};
use index::{Change, Index, Mark, Truncation};
pub(crate) use index::{Install, Position};
pub use reader::Reader;
use record::{CHECKSUM_LEN, Kind, Start, record_len};
use segment::{PAGE, RECORDS_AT, Segment};
use watermark::Watermark;

/// The first segment of a new log is small, so that a new server starts at once.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;
/// A reader finds its place in a segment to within so many bytes. Tests have small segments.
const MARK_EVERY_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 256 << 10 };
/// Offsets within a segment fit 32 bits.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;
const START_LEN: u64 = record_len(Start::LEN) as u64;

/// How the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// Size of a segment, rounded up to a page. A batch that is larger gets one of its own size.
    pub segment_bytes: u64,
    /// `forceSync`: whether each append waits for the disk. Without it an acknowledged transaction
    /// may be lost with the machine's power, and at a crash of the process only none is.
    pub force_sync: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, force_sync: true }
    }
}

/// One durable step. Steps take effect in the order appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A transaction; its zxid is above that of every one before it.
    Txn {
        /// Its zxid.
        zxid: Zxid,
        /// Header and body, opaque here.
        payload: Bytes,
    },
    /// The epoch that this server promised to follow; never goes back.
    AcceptedEpoch(Epoch),
    /// The epoch that this server's history belongs to; never goes back.
    CurrentEpoch(Epoch),
    /// Voids every transaction above the zxid. If there is none of that zxid, the one before it
    /// becomes the last.
    Truncate {
        /// The last zxid that may stay.
        zxid: Zxid,
    },
    /// Voids every transaction: a snapshot takes their place, which may be of any zxid, below or above
    /// the last one too. Epochs stay.
    ///
    /// What it voids may be all that is left of committed transactions above its zxid, until the log
    /// holds the leader's history up to its epoch (ZOOKEEPER-2872, 3642). So a
    /// [`Self::CurrentEpoch`] must follow in the same batch: after a crash all up to that is there, or
    /// nothing of it.
    InstallSnapshot {
        /// What the snapshot is of; the last zxid from here on.
        zxid: Zxid,
        /// Where it is: [`State::install`](crate::State::install) it when the batch is durable.
        staged: StagedId,
    },
}

impl Write {
    fn payload_len(&self) -> usize {
        match self {
            Self::Txn { payload, .. } => payload.len(),
            Self::InstallSnapshot { .. } => StagedId::LEN,
            Self::AcceptedEpoch(_) | Self::CurrentEpoch(_) | Self::Truncate { .. } => 0,
        }
    }
}

/// The two epochs of a Zab peer, as last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// Promised to a leader.
    pub accepted: Epoch,
    /// Of the history.
    pub current: Epoch,
}

/// The log's only writer.
#[derive(Debug)]
pub struct Log {
    handle: LogHandle,
    config: LogConfig,
    /// The segment being written. Its end and content are in the shared list only when durable.
    segment: Arc<Segment>,
    end: u64,
    durable_end: u64,
    last: Zxid,
    epochs: Epochs,
    nonce: u64,
    /// What the next append must begin with: nothing was written since the log was opened.
    pending_start: Option<Start>,
    /// A sync or write failed: what is on disk is unknown.
    failed: bool,
    watermark: Watermark,
    /// The four bytes in front of the batch, then the batch.
    buf: Vec<u8>,
    /// What the state has: no truncation may go below.
    applied: Arc<AtomicI64>,
    /// Removed at the first append.
    initialize: Option<PathBuf>,
}

/// Everything about the log but writing to it; for other threads. Clones share one log.
#[derive(Debug, Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lock: FolderLock,
    store: StoreId,
    segment_bytes: u64,
    inner: Mutex<Inner>,
    /// Held by whoever creates, renames or removes files.
    maintenance: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    index: Index,
    next: Next,
}

/// The segment after the one being written.
#[derive(Debug)]
enum Next {
    Absent,
    Ready(Segment),
    /// The writer has it and is about to use it.
    Taken,
}

impl Log {
    /// From now on no truncation goes below this, and `initialize` goes with the first append.
    pub(crate) fn attach(&mut self, applied: Arc<AtomicI64>, initialize: Option<PathBuf>) {
        (self.applied, self.initialize) = (applied, initialize);
    }

    /// A handle for the threads beside the writer.
    #[must_use]
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// The last zxid of the log.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// The epochs as last written.
    #[must_use]
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Whether [`LogHandle::prepare_next`] has work to do: ask after an append.
    #[must_use]
    pub fn needs_next(&self) -> bool {
        matches!(self.handle.shared.inner().next, Next::Absent)
    }

    /// Writes the batch in one piece and waits until it is durable.
    ///
    /// # Errors
    /// [`LogError::DiskFull`] when it needs a segment and there is no room for one: nothing was
    /// written. Every other error is fatal ([`LogError::is_fatal`]): whether the batch is on disk is
    /// unknown, no second attempt can find out, and the process must end.
    ///
    /// [`LogError::BelowState`] is fatal too, though nothing was written then.
    ///
    /// # Panics
    /// When the batch breaks the order of zxids or epochs, installs a snapshot without a current epoch
    /// behind it, or comes after a fatal error.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), LogError> {
        assert!(!self.failed, "nothing may be appended after a fatal error");
        let closing = writes
            .iter()
            .rev()
            .find(|write| matches!(write, Write::InstallSnapshot { .. } | Write::CurrentEpoch(_)));
        assert!(
            !matches!(closing, Some(Write::InstallSnapshot { .. })),
            "a snapshot is installed without the current epoch that makes it count"
        );
        if writes.is_empty() {
            return Ok(());
        }
        let batch_len: u64 =
            writes.iter().map(|write| record_len(write.payload_len()) as u64).sum();
        let result = self.truncations(writes).and_then(|truncations| {
            self.make_room(START_LEN + batch_len)?;
            self.write(writes, &truncations)
        });
        self.failed = result.as_ref().is_err_and(LogError::is_fatal);
        if result.is_ok()
            && let Some(path) = self.initialize.take()
        {
            remove_initialize(&path);
        }
        result
    }

    /// Where each truncation of the batch leads.
    fn truncations(&self, writes: &[Write]) -> Result<Vec<Zxid>, LogError> {
        let mut truncations = Vec::new();
        if !writes.iter().any(|write| matches!(write, Write::Truncate { .. })) {
            return Ok(truncations);
        }
        let mut bottom = Zxid(self.applied.load(Ordering::Acquire));
        // What the batch itself adds, and up to where what stands before it still counts.
        let (mut added, mut installed, mut durable) = (Vec::new(), false, Zxid(i64::MAX));
        for write in writes {
            match write {
                Write::Txn { zxid, .. } => added.push(*zxid),
                Write::InstallSnapshot { zxid, .. } => {
                    (bottom, installed) = (*zxid, true);
                    added.clear();
                }
                Write::Truncate { zxid } => {
                    let below = |applied| LogError::BelowState {
                        path: self.handle.shared.folder().to_owned(),
                        zxid: *zxid,
                        applied,
                    };
                    if *zxid < bottom {
                        return Err(below(bottom));
                    }
                    added.retain(|added| added <= zxid);
                    let to = match added.last() {
                        Some(last) => *last,
                        None if installed => bottom,
                        None => self
                            .handle
                            .floor(durable.min(*zxid))?
                            .ok_or_else(|| below(self.handle.bounds().0))?,
                    };
                    durable = durable.min(to);
                    truncations.push(to);
                }
                Write::AcceptedEpoch(_) | Write::CurrentEpoch(_) => {}
            }
        }
        Ok(truncations)
    }

    /// Notes how far the log is acknowledged. Appends do so now and then; call it also when the log
    /// falls idle, so that damage to the last batch is told from a torn write.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note_watermark(&mut self) -> Result<(), LogError> {
        if self.failed {
            return Ok(());
        }
        self.watermark.note(self.durable_position())
    }

    fn durable_position(&self) -> Position {
        Position { seq: self.segment.seq, offset: self.durable_end }
    }

    fn write(&mut self, writes: &[Write], truncations: &[Zxid]) -> Result<(), LogError> {
        let (seq, seed, from) = (self.segment.seq, self.segment.seed, self.end);
        let durable = u32::try_from(self.durable_end).expect("a segment is below 4 GiB");
        let (mut txns, mut changes) = (0, Vec::new());
        let mut truncations = truncations.iter();
        let mut marked = self.handle.shared.inner().index.marked(seq);
        // The four bytes in front stay from the batch before.
        let front = self.buf.len() - CHECKSUM_LEN;
        self.buf.copy_within(front.., 0);
        self.buf.truncate(CHECKSUM_LEN);
        if from == RECORDS_AT {
            let at = Position { seq, offset: from };
            changes.push(Change::Mark(Mark { at, before: self.last }));
            marked = Some(from);
        }
        if let Some(start) = self.pending_start.take() {
            let payload = start.to_bytes();
            record::encode(&mut self.buf, seed, Kind::Start, self.last.0, durable, &payload);
        }
        for write in writes {
            let offset = from + (self.buf.len() - CHECKSUM_LEN) as u64;
            let at = Position { seq, offset };
            match write {
                Write::Txn { zxid, payload } => {
                    assert!(*zxid > self.last, "zxid {zxid} is appended after {}", self.last);
                    if marked.is_none_or(|marked| offset >= marked + MARK_EVERY_BYTES) {
                        changes.push(Change::Mark(Mark { at, before: self.last }));
                        marked = Some(offset);
                    }
                    record::encode(&mut self.buf, seed, Kind::Txn, zxid.0, durable, payload);
                    self.last = *zxid;
                    txns += 1;
                }
                Write::AcceptedEpoch(epoch) => {
                    assert!(*epoch >= self.epochs.accepted, "the accepted epoch went back");
                    let value = i64::from(epoch.0);
                    record::encode(&mut self.buf, seed, Kind::AcceptedEpoch, value, durable, &[]);
                    self.epochs.accepted = *epoch;
                }
                Write::CurrentEpoch(epoch) => {
                    assert!(*epoch >= self.epochs.current, "the current epoch went back");
                    let value = i64::from(epoch.0);
                    record::encode(&mut self.buf, seed, Kind::CurrentEpoch, value, durable, &[]);
                    self.epochs.current = *epoch;
                }
                Write::Truncate { zxid } => {
                    assert!(*zxid <= self.last, "nothing to truncate: {zxid} is not in the log");
                    let to = *truncations.next().expect("one for each");
                    changes.push(Change::Truncate(Truncation { at, to }));
                    marked = Some(offset);
                    record::encode(&mut self.buf, seed, Kind::Truncate, to.0, durable, &[]);
                    self.last = to;
                }
                Write::InstallSnapshot { zxid, staged } => {
                    let install = Install { at, zxid: *zxid, staged: *staged };
                    changes.push(Change::Install(install));
                    (marked, txns) = (Some(offset), 0);
                    let payload = staged.to_bytes();
                    record::encode(&mut self.buf, seed, Kind::Install, zxid.0, durable, &payload);
                    self.last = *zxid;
                }
            }
        }
        let installed = changes.iter().rev().find_map(|change| match change {
            Change::Install(install) => Some(install.zxid),
            Change::Mark(_) | Change::Truncate(_) => None,
        });
        let len = self.buf.len();
        self.end += (len - CHECKSUM_LEN) as u64;

        // Whole pages: a page of a recycled file that is not in memory need not be read before a
        // part of it is overwritten. The zeros behind the end mean "nothing here".
        let pages_end = self.end.next_multiple_of(PAGE);
        self.buf.resize(len + in_memory(pages_end - self.end), 0);
        let file = &self.segment.file;
        let path = &self.segment.path;
        file.write_all_at(&self.buf[CHECKSUM_LEN..], from).map_err(LogError::io("write", path))?;
        self.buf.truncate(len);
        // A segment's first batch is synced in any case: see `prepare_next`. So is a snapshot: the
        // state is about to change for good.
        if self.config.force_sync || from == RECORDS_AT || installed.is_some() {
            file.sync_data().map_err(LogError::io("sync", path))?;
            self.durable_end = self.end;
        }

        let mut inner = self.handle.shared.inner();
        inner.publish(&self.segment, self.end, changes, txns, self.last);
        drop(inner);
        if let Some(zxid) = installed {
            // The state is there as soon as it is installed, or recovered.
            self.applied.store(zxid.0, Ordering::Release);
            // If this batch were taken for a torn one, another log would meet the new state.
            return self.watermark.note(self.durable_position());
        }
        self.watermark.maybe_note(self.durable_position())
    }

    /// Goes on to the next segment where this one has no room for so many bytes.
    fn make_room(&mut self, len: u64) -> Result<(), LogError> {
        if self.end + len <= self.segment.len {
            return Ok(());
        }
        let next = self.take_next(RECORDS_AT + len)?;
        if self.durable_end < self.end {
            let synced = self.segment.file.sync_data();
            synced.map_err(LogError::io("sync", &self.segment.path))?;
        }
        self.pending_start = Some(Start {
            previous_end: self.end,
            previous_checksum: last_checksum(&self.buf),
            accepted_epoch: self.epochs.accepted.0,
            current_epoch: self.epochs.current.0,
            nonce: self.nonce,
        });
        self.segment = Arc::new(next);
        (self.end, self.durable_end) = (RECORDS_AT, RECORDS_AT);
        self.buf.clear();
        self.buf.extend_from_slice(&[0; CHECKSUM_LEN]);
        Ok(())
    }

    /// The prepared segment; one made now where it is missing or too small.
    fn take_next(&mut self, len: u64) -> Result<Segment, LogError> {
        let shared = &self.handle.shared;
        let seq = self.segment.seq + 1;
        if let Some(next) = shared.inner().take_next(len) {
            return Ok(next);
        }
        // The one in the making may be the one wanted.
        let _maintenance = shared.maintenance();
        if let Some(next) = shared.inner().take_next(len) {
            return Ok(next);
        }
        tracing::warn!(seq, len, "no segment was ready: an append waits for a new one");
        assert!(len < SEGMENT_BYTES_MAX, "a batch is far below {SEGMENT_BYTES_MAX} bytes");
        let len = shared.segment_bytes.max(len.next_multiple_of(PAGE));
        // One that is too small has the same name, and is replaced.
        let made = Segment::create(shared.folder(), shared.store, seq, len)?;
        shared.inner().next = Next::Taken;
        Ok(made)
    }
}

impl Drop for Log {
    /// What was written becomes durable and the watermark exact.
    fn drop(&mut self) {
        if self.failed {
            return;
        }
        let result =
            self.segment.file.sync_data().map_err(LogError::io("sync", &self.segment.path));
        let result = result.and_then(|()| {
            self.durable_end = self.end;
            self.note_watermark()
        });
        if let Err(err) = result {
            tracing::error!(%err, "the log is not closed cleanly");
        }
    }
}

impl LogHandle {
    /// Makes the next segment ready, so that no append waits for it. Takes a while: a new segment is
    /// written in full. Does nothing when it is ready, nor before the log's first append.
    ///
    /// # Errors
    /// [`LogError::DiskFull`], or that a file cannot be made. The log goes on with what it has.
    pub fn prepare_next(&self) -> Result<(), LogError> {
        let shared = &self.shared;
        let _maintenance = shared.maintenance();
        let seq = {
            let inner = shared.inner();
            match inner.next {
                Next::Ready(_) | Next::Taken => return Ok(()),
                // Recovery relies on it: what is prepared follows a segment that is durably in use.
                Next::Absent => match inner.index.used.last() {
                    Some(used) => used.segment.seq + 1,
                    None => return Ok(()),
                },
            }
        };
        let next = match shared.spares()?.pop() {
            Some(spare) => Segment::recycle(&spare, shared.folder(), shared.store, seq)?,
            None => Segment::create(shared.folder(), shared.store, seq, shared.segment_bytes)?,
        };
        shared.inner().next = Next::Ready(next);
        Ok(())
    }

    /// The log holds every live transaction above the first and up to the second zxid.
    #[must_use]
    pub fn bounds(&self) -> (Zxid, Zxid) {
        let inner = self.shared.inner();
        (inner.index.begins(), inner.index.last)
    }

    /// Reads the live transactions above `after`, up to the present end of the log.
    ///
    /// # Errors
    /// [`LogError::Purged`] when some of them are gone.
    pub fn read_after(&self, after: Zxid) -> Result<Reader, LogError> {
        self.read_range(after, Zxid(i64::MAX))
    }

    /// Reads the live transactions above `after` up to `to`, as the log is at this moment.
    ///
    /// Later appends and purges change nothing of what the reader gives: it holds the segments open.
    /// It does not notice later truncations, so `to` should be a committed zxid.
    ///
    /// # Errors
    /// [`LogError::Purged`] when some of them are gone.
    pub fn read_range(&self, after: Zxid, to: Zxid) -> Result<Reader, LogError> {
        let inner = self.shared.inner();
        let begins = inner.index.begins();
        if after < begins {
            return Err(LogError::Purged { asked: after, begins });
        }
        Ok(inner.index.reader(after, to))
    }

    /// The greatest zxid in the log at or below `zxid`; where the log begins counts as in it. `None`
    /// for what is below that. Reads a few hundred kilobytes at most, and none for the log's last.
    ///
    /// # Errors
    /// When these cannot be read.
    pub fn floor(&self, zxid: Zxid) -> Result<Option<Zxid>, LogError> {
        let (mut floor, reader) = {
            let inner = self.shared.inner();
            if zxid < inner.index.begins() {
                return Ok(None);
            }
            if zxid >= inner.index.last {
                return Ok(Some(inner.index.last));
            }
            inner.index.span(zxid)
        };
        for txn in reader {
            floor = txn?.0;
        }
        Ok(Some(floor))
    }

    /// About how many bytes of the log hold the transactions above `after`.
    #[must_use]
    pub fn bytes_after(&self, after: Zxid) -> u64 {
        self.shared.inner().index.bytes_after(after)
    }

    /// The last snapshot that the log goes on from, as long as that is in it.
    pub(crate) fn install(&self) -> Option<Install> {
        self.shared.inner().index.install()
    }

    /// Whether nothing was ever appended.
    pub(crate) fn is_new(&self) -> bool {
        self.shared.inner().index.used.is_empty()
    }
}

impl Shared {
    fn folder(&self) -> &Path {
        self.lock.folder()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds this lock")
    }

    fn maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().expect("nothing panics while it holds this lock")
    }
}

impl Inner {
    fn take_next(&mut self, len: u64) -> Option<Segment> {
        match std::mem::replace(&mut self.next, Next::Taken) {
            Next::Ready(next) if next.len >= len => Some(next),
            other @ (Next::Ready(_) | Next::Absent | Next::Taken) => {
                self.next = other;
                None
            }
        }
    }

    /// Shows readers and purge what has just been made durable.
    fn publish(
        &mut self,
        segment: &Arc<Segment>,
        end: u64,
        changes: Vec<Change>,
        txns: u64,
        last: Zxid,
    ) {
        if self.index.used.last().is_none_or(|used| used.segment.seq < segment.seq) {
            self.index.begin_segment(Arc::clone(segment));
            if matches!(self.next, Next::Taken) {
                self.next = Next::Absent;
            }
        }
        for change in changes {
            self.index.apply(change);
        }
        let used = self.index.used.last_mut().expect("pushed above if there was none");
        used.end = end;
        used.txns += txns;
        self.index.last = last;
    }
}

/// That it could not be removed only matters if the data is lost before the next start tries again.
pub(crate) fn remove_initialize(path: &Path) {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %err, "cannot remove");
        }
        Ok(()) | Err(_) => {}
    }
}

fn last_checksum(buf: &[u8]) -> u32 {
    u32::from_le_bytes(*buf.last_chunk().expect("the buffer keeps the last checksum"))
}
