//! Opening a log: verify everything, cut a torn tail, refuse damage to what was acknowledged.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zk_proto::{Epoch, Zxid};

use crate::disk::in_memory;
use crate::identity::{FolderLock, StoreId, random_u64};
use crate::state::StagedId;
use crate::txn_log::error::{LogError, Problem};
use crate::txn_log::index::{Change, Index, Install, Mark, Position, Truncation};
use crate::txn_log::reader::{Record, Scanner, Step, first_record};
use crate::txn_log::record::{Kind, Start};
use crate::txn_log::segment::{PAGE, RECORDS_AT, Segment};
use crate::txn_log::watermark::Watermark;
use crate::txn_log::{
    Epochs, FIRST_SEGMENT_BYTES, Inner, Log, LogConfig, LogHandle, MARK_EVERY_BYTES, Next,
    SEGMENT_BYTES_MAX, START_LEN, Shared,
};

impl Log {
    /// Opens the log in a folder; makes a new one where there is none.
    ///
    /// A bad record at the end is a write that a crash cut short: the log ends before it; or before
    /// the installed snapshot in the same batch, if the current epoch that closes it is not there. A bad
    /// record that was acknowledged is an error.
    pub(crate) fn open(
        lock: FolderLock,
        store: StoreId,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        let folder = lock.folder();
        let segment_bytes = config.segment_bytes.clamp(2 * PAGE, SEGMENT_BYTES_MAX);
        let segment_bytes = segment_bytes.next_multiple_of(PAGE);
        let (mut watermark, acknowledged) = Watermark::open(folder)?;
        let mut segments = open_segments(folder, store)?;
        if segments.is_empty() {
            if let Some(acknowledged) = acknowledged {
                let path = Segment::path_of(folder, acknowledged.seq);
                return Err(LogError::MissingSegment { path });
            }
            let len = segment_bytes.min(FIRST_SEGMENT_BYTES);
            segments.push(Arc::new(Segment::create(folder, store, 1, len)?));
        }

        let (starts, unused) = split_unused(&mut segments)?;
        let mut walk = Walk::of(&segments, &starts, None)?;
        let Tail { end, problem, .. } = walk.tail;
        let read = walk.index.last;
        // A torn batch may be cut in front of its bad record.
        let unfinished = walk.unfinished;
        if unfinished.is_some() {
            walk = Walk::of(&segments, &starts, unfinished)?;
        }
        let Walk { index, epochs, tail: Tail { end: cut, checksum, .. }, .. } = walk;
        let segment = segments.pop().expect("a new log has its first segment");
        let (is_new, last) = (index.used.is_empty(), index.last);
        let position = Position { seq: segment.seq, offset: end };
        let damage = |segment: &Segment, offset, problem| {
            Err(LogError::Corrupt { path: segment.path.clone(), offset, after: read, problem })
        };
        if let Some(unused) = &unused
            && (acknowledged.is_some_and(|acknowledged| acknowledged.seq == unused.seq)
                || Scanner::was_durable(Arc::clone(unused), RECORDS_AT)?)
        {
            return damage(unused, RECORDS_AT, Problem::NoRecord);
        }
        if let Some(acknowledged) = acknowledged
            && acknowledged.seq > segment.seq
        {
            let path = Segment::path_of(folder, segment.seq + 1);
            return Err(LogError::MissingSegment { path });
        }
        if acknowledged.is_some_and(|acknowledged| acknowledged > position)
            || (is_new && segment.seq != 1)
            || Scanner::was_durable(Arc::clone(&segment), end)?
        {
            return damage(&segment, end, problem);
        }
        let position = Position { seq: segment.seq, offset: cut };
        if unfinished.is_some()
            && (acknowledged.is_some_and(|acknowledged| acknowledged > position)
                || Scanner::was_durable(Arc::clone(&segment), cut)?)
        {
            // Its batch was acknowledged, and so was the current epoch that is not there.
            return damage(&segment, cut, Problem::Unconnected);
        }
        if problem != Problem::NoRecord || unfinished.is_some() {
            let path = segment.path.display();
            tracing::info!(segment = %path, end = cut, %last, "cut a write that never completed");
        }
        let end = cut;

        // Where the next record will stand, nothing of a torn one may stay: if the sector with the
        // beginning of that new record were all that is written, it could make the torn one whole.
        wipe(&segment, end, START_LEN).map_err(LogError::io("write", &segment.path))?;
        // Only now may anything be built on what was read: it may have come from the page cache of
        // a system on which the last process died before its sync.
        segment.file.sync_data().map_err(LogError::io("sync", &segment.path))?;
        watermark.note(position)?;

        let nonce = random_u64().map_err(LogError::io("read", Path::new("/dev/urandom")))?;
        let pending_start = Some(Start {
            previous_end: if is_new { 0 } else { end },
            previous_checksum: checksum,
            accepted_epoch: epochs.accepted.0,
            current_epoch: epochs.current.0,
            nonce,
        });
        let next = match unused.map(Arc::try_unwrap) {
            Some(Ok(next)) => Next::Ready(next),
            Some(Err(_)) | None => Next::Absent,
        };
        let inner = Mutex::new(Inner { index, next });
        let shared = Shared { lock, store, segment_bytes, inner, maintenance: Mutex::new(()) };
        Ok(Self {
            handle: LogHandle { shared: Arc::new(shared) },
            config,
            segment,
            end,
            durable_end: end,
            last,
            epochs,
            nonce,
            pending_start,
            failed: false,
            watermark,
            buf: checksum.to_le_bytes().to_vec(),
            applied: Arc::default(),
            initialize: None,
        })
    }
}

/// Zeros so many bytes, or those that the segment has there.
fn wipe(segment: &Segment, at: u64, len: u64) -> io::Result<()> {
    let mut bytes = vec![0; in_memory(len.min(segment.len - at))];
    segment.file.read_exact_at(&mut bytes, at)?;
    if bytes.iter().any(|byte| *byte != 0) {
        bytes.fill(0);
        segment.file.write_all_at(&bytes, at)?;
    }
    Ok(())
}

/// Opens the folder's segments, oldest first, and removes what an unfinished one left.
fn open_segments(folder: &Path, store: StoreId) -> Result<Vec<Arc<Segment>>, LogError> {
    let mut paths: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(LogError::io("list", folder))? {
        let path = entry.map_err(LogError::io("list", folder))?.path();
        if let Some(seq) = Segment::seq_of(&path) {
            paths.push((seq, path));
        } else if path.file_name().is_some_and(|name| name == "new.tmp") {
            fs::remove_file(&path).map_err(LogError::io("remove", &path))?;
        }
    }
    paths.sort_unstable();
    for pair in paths.windows(2) {
        if pair[0].0 + 1 != pair[1].0 {
            let path = Segment::path_of(folder, pair[0].0 + 1);
            return Err(LogError::MissingSegment { path });
        }
    }
    paths.iter().map(|(seq, path)| Segment::open(path, store, *seq).map(Arc::new)).collect()
}

/// The first record of each segment in use, and the prepared one behind them.
fn split_unused(
    segments: &mut Vec<Arc<Segment>>,
) -> Result<(Vec<(Record, Start)>, Option<Arc<Segment>>), LogError> {
    let mut starts = Vec::new();
    let mut without: Option<usize> = None;
    for (index, segment) in segments.iter().enumerate() {
        let start = first_record(segment)?.and_then(|record| {
            let start = Start::from_bytes(&record.payload)?;
            (record.kind == Kind::Start).then_some((record, start))
        });
        match (start, without) {
            (Some(start), None) => starts.push(start),
            (None, None) => without = Some(index),
            // A segment is prepared only after the one before it was in use.
            (Some(_) | None, Some(without)) => {
                return Err(LogError::Corrupt {
                    path: segments[without].path.clone(),
                    offset: RECORDS_AT,
                    after: starts.last().map_or(Zxid::ZERO, |(record, _)| Zxid(record.zxid)),
                    problem: Problem::NoRecord,
                });
            }
        }
    }
    let is_new = starts.is_empty();
    let unused = if is_new || without.is_none() { None } else { segments.pop() };
    Ok((starts, unused))
}

/// Where the records read so far end, with which checksum, and what stands behind.
#[derive(Debug, Clone, Copy)]
struct Tail {
    end: u64,
    checksum: u32,
    problem: Problem,
}

/// Where the records of a segment end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// Here: all before this is to be whole.
    Known(u64),
    /// Where the first bad one stands.
    Unknown,
}

/// What reading the whole log finds out.
struct Walk {
    index: Index,
    epochs: Epochs,
    tail: Tail,
    /// An installed snapshot that no current epoch stands behind.
    unfinished: Option<Position>,
}

impl Walk {
    fn new(starts: &[(Record, Start)]) -> Self {
        // What the purged segments said is in the first one kept.
        let (last, epochs) = starts
            .first()
            .map_or_else(Default::default, |(record, start)| (Zxid(record.zxid), epochs_of(start)));
        let tail = Tail { end: RECORDS_AT, checksum: 0, problem: Problem::NoRecord };
        Self { index: Index::new(last), epochs, tail, unfinished: None }
    }

    /// Reads all segments, the last one up to `cut` or its end.
    fn of(
        segments: &[Arc<Segment>],
        starts: &[(Record, Start)],
        cut: Option<Position>,
    ) -> Result<Self, LogError> {
        let mut walk = Self::new(starts);
        for (index, (segment, start)) in segments.iter().zip(starts).enumerate() {
            let limit = match starts.get(index + 1) {
                Some((_, next)) => Limit::Known(next.previous_end.min(segment.len)),
                None => match cut {
                    Some(cut) => Limit::Known(cut.offset),
                    None => Limit::Unknown,
                },
            };
            walk.segment(segment, start, limit)?;
        }
        Ok(walk)
    }

    /// Reads one segment to its end.
    fn segment(
        &mut self,
        segment: &Arc<Segment>,
        (_, start): &(Record, Start),
        limit: Limit,
    ) -> Result<(), LogError> {
        if self.index.used.is_empty() {
            // Nothing is left of what stood before the first segment.
            self.tail.end = start.previous_end;
            self.tail.checksum = start.previous_checksum;
        }
        self.index.begin_segment(Arc::clone(segment));
        let to = match limit {
            Limit::Known(end) => end,
            Limit::Unknown => segment.len,
        };
        let mut scanner = Scanner::new(Arc::clone(segment), RECORDS_AT, to);
        let problem = loop {
            match scanner.step()? {
                Step::Limit => break Problem::NoRecord,
                Step::Bad(problem) if limit == Limit::Unknown => break problem,
                Step::Bad(problem) => return Err(self.damage(segment, scanner.offset, problem)),
                Step::Record(record) => {
                    let at = Position { seq: segment.seq, offset: record.offset };
                    if !self.record(at, &record) {
                        return Err(self.damage(segment, record.offset, Problem::Unconnected));
                    }
                    let used = self.index.used.last_mut().expect("begun above");
                    used.end = scanner.offset;
                    used.txns += u64::from(record.kind == Kind::Txn);
                    (self.tail.end, self.tail.checksum) = (scanner.offset, record.checksum);
                }
            }
        };
        self.tail.problem = problem;
        Ok(())
    }

    /// Takes note of a record; false if it does not continue what came before.
    fn record(&mut self, at: Position, record: &Record) -> bool {
        let zxid = Zxid(record.zxid);
        let marked = self.index.marked(at.seq);
        let far = marked.is_none_or(|marked| at.offset >= marked + MARK_EVERY_BYTES);
        if at.offset == RECORDS_AT || (far && record.kind == Kind::Txn) {
            self.index.apply(Change::Mark(Mark { at, before: self.index.last }));
        }
        let epoch = i32::try_from(record.zxid).map(Epoch);
        match record.kind {
            Kind::Start => Start::from_bytes(&record.payload).is_some_and(|start| {
                // A writer begins with it: it is never within a batch.
                self.unfinished.is_none()
                    && zxid == self.index.last
                    && epochs_of(&start) == self.epochs
                    && start.previous_end == self.tail.end
                    && start.previous_checksum == self.tail.checksum
            }),
            Kind::Txn => {
                let continues = zxid > self.index.last;
                self.index.last = zxid;
                continues
            }
            Kind::AcceptedEpoch => {
                let before = self.epochs.accepted;
                self.epochs.accepted = epoch.unwrap_or(before);
                epoch.is_ok_and(|epoch| epoch >= before)
            }
            Kind::CurrentEpoch => {
                let before = self.epochs.current;
                self.epochs.current = epoch.unwrap_or(before);
                self.unfinished = None;
                epoch.is_ok_and(|epoch| epoch >= before)
            }
            Kind::Truncate => {
                let continues = zxid <= self.index.last;
                self.index.apply(Change::Truncate(Truncation { at, to: zxid }));
                self.index.last = zxid;
                continues
            }
            Kind::Install => {
                let staged = StagedId::from_bytes(&record.payload);
                if let Some(staged) = staged {
                    self.index.apply(Change::Install(Install { at, zxid, staged }));
                    self.index.last = zxid;
                    self.unfinished.get_or_insert(at);
                }
                staged.is_some()
            }
        }
    }

    fn damage(&self, segment: &Segment, offset: u64, problem: Problem) -> LogError {
        LogError::Corrupt { path: segment.path.clone(), offset, after: self.index.last, problem }
    }
}

fn epochs_of(start: &Start) -> Epochs {
    Epochs { accepted: Epoch(start.accepted_epoch), current: Epoch(start.current_epoch) }
}
