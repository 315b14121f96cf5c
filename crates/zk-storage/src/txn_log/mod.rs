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

mod error;
mod purge;
mod reader;
mod record;
mod recover;
mod segment;
mod watermark;

#[cfg(test)]
mod tests;

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use zk_proto::{Epoch, Zxid};

use crate::disk::in_memory;
use crate::identity::{FolderLock, StoreId};
pub use error::{LogError, Problem};
pub use reader::Reader;
use record::{CHECKSUM_LEN, Kind, Start, record_len};
use segment::{PAGE, RECORDS_AT, Segment};
use watermark::Watermark;

/// The first segment of a new log is small, so that a new server starts at once.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;
/// A reader finds its place in a segment to within so many bytes.
const MARK_EVERY_BYTES: u64 = 256 << 10;
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
    /// Voids every transaction above the zxid, which becomes the last one.
    Truncate {
        /// The last zxid that stays.
        zxid: Zxid,
    },
}

impl Write {
    fn payload_len(&self) -> usize {
        match self {
            Self::Txn { payload, .. } => payload.len(),
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

/// A place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    seq: u64,
    offset: u64,
}

/// At `at`, every earlier transaction above `to` became void.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Truncation {
    at: Position,
    to: Zxid,
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
    /// Segments with records, oldest first. The last one is being written.
    used: Vec<Used>,
    next: Next,
    truncations: Vec<Truncation>,
    /// Last zxid of the log.
    last: Zxid,
}

/// A segment with records, and what the reader and the purge need to know of them.
#[derive(Debug)]
struct Used {
    segment: Arc<Segment>,
    end: u64,
    /// The last zxid of the log before this segment.
    previous_last: Zxid,
    /// The highest zxid in this segment or before it, voided ones included.
    highest: Zxid,
    txns: u64,
    /// Now and then: where a record starts, and the highest zxid before it.
    marks: Vec<(Zxid, u64)>,
}

impl Used {
    fn new(segment: Arc<Segment>, previous_last: Zxid, highest: Zxid) -> Self {
        Self { segment, end: RECORDS_AT, previous_last, highest, txns: 0, marks: Vec::new() }
    }

    /// Takes note that the records up to `end` are in the log.
    fn extend(&mut self, end: u64, highest: Zxid, txns: u64) {
        let marked = self.marks.last().map_or(RECORDS_AT, |&(_, offset)| offset);
        if self.end >= marked + MARK_EVERY_BYTES {
            self.marks.push((self.highest, self.end));
        }
        self.end = end;
        self.highest = self.highest.max(highest);
        self.txns += txns;
    }
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
    /// # Panics
    /// When the batch breaks the order of zxids or epochs, or after a fatal error.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), LogError> {
        assert!(!self.failed, "nothing may be appended after a fatal error");
        if writes.is_empty() {
            return Ok(());
        }
        let batch_len: u64 =
            writes.iter().map(|write| record_len(write.payload_len()) as u64).sum();
        let result = self.make_room(START_LEN + batch_len).and_then(|()| self.write(writes));
        self.failed = result.as_ref().is_err_and(LogError::is_fatal);
        result
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

    fn write(&mut self, writes: &[Write]) -> Result<(), LogError> {
        let (seq, seed, from) = (self.segment.seq, self.segment.seed, self.end);
        let durable = u32::try_from(self.durable_end).expect("a segment is below 4 GiB");
        let (mut txns, mut highest, mut truncations) = (0, Zxid::ZERO, Vec::new());
        // The four bytes in front stay from the batch before.
        let front = self.buf.len() - CHECKSUM_LEN;
        self.buf.copy_within(front.., 0);
        self.buf.truncate(CHECKSUM_LEN);
        if let Some(start) = self.pending_start.take() {
            let payload = start.to_bytes();
            record::encode(&mut self.buf, seed, Kind::Start, self.last.0, durable, &payload);
        }
        for write in writes {
            match write {
                Write::Txn { zxid, payload } => {
                    assert!(*zxid > self.last, "zxid {zxid} is appended after {}", self.last);
                    record::encode(&mut self.buf, seed, Kind::Txn, zxid.0, durable, payload);
                    self.last = *zxid;
                    txns += 1;
                    highest = *zxid;
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
                    let offset = from + (self.buf.len() - CHECKSUM_LEN) as u64;
                    truncations.push(Truncation { at: Position { seq, offset }, to: *zxid });
                    record::encode(&mut self.buf, seed, Kind::Truncate, zxid.0, durable, &[]);
                    self.last = *zxid;
                }
            }
        }
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
        // A segment's first batch is synced in any case: see `prepare_next`.
        if self.config.force_sync || from == RECORDS_AT {
            file.sync_data().map_err(LogError::io("sync", path))?;
            self.durable_end = self.end;
        }

        let mut inner = self.handle.shared.inner();
        inner.publish(&self.segment, self.end, highest, txns, truncations, self.last);
        drop(inner);
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
                Next::Absent => match inner.used.last() {
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
        (inner.begins(), inner.last)
    }

    /// Reads the live transactions above `after`, up to the present end of the log.
    ///
    /// # Errors
    /// [`LogError::Purged`] when some of them are gone.
    pub fn read_after(&self, after: Zxid) -> Result<Reader, LogError> {
        let inner = self.shared.inner();
        if after < inner.begins() {
            return Err(LogError::Purged { asked: after, begins: inner.begins() });
        }
        let behind = inner.used.iter().skip_while(|used| used.highest <= after);
        let rest: Vec<_> = behind
            .map(|used| {
                let mark = used.marks.partition_point(|&(highest, _)| highest <= after);
                let from = mark.checked_sub(1).map_or(RECORDS_AT, |mark| used.marks[mark].1);
                (Arc::clone(&used.segment), from, used.end)
            })
            .collect();
        let truncations = inner.truncations.clone();
        Ok(Reader { after, rest: rest.into_iter(), scanner: None, truncations })
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
    fn begins(&self) -> Zxid {
        self.used.first().map_or(self.last, |used| used.previous_last)
    }

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
        highest: Zxid,
        txns: u64,
        truncations: Vec<Truncation>,
        last: Zxid,
    ) {
        if self.used.last().is_none_or(|used| used.segment.seq < segment.seq) {
            let before = self.used.last().map_or(Zxid::ZERO, |used| used.highest);
            self.used.push(Used::new(Arc::clone(segment), self.last, before));
            if matches!(self.next, Next::Taken) {
                self.next = Next::Absent;
            }
        }
        let used = self.used.last_mut().expect("pushed above if there was none");
        used.extend(end, highest, txns);
        self.truncations.extend(truncations);
        self.last = last;
    }
}

fn last_checksum(buf: &[u8]) -> u32 {
    u32::from_le_bytes(*buf.last_chunk().expect("the buffer keeps the last checksum"))
}
