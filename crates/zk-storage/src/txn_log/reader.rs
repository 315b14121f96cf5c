//! Reading records back: one segment at a time ([`Scanner`]), or the log's live transactions
//! ([`Reader`]).

use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use zk_proto::Zxid;

use crate::disk::in_memory;
use crate::txn_log::error::{LogError, Problem};
use crate::txn_log::index::{Position, Truncation};
use crate::txn_log::record::{self, CHECKSUM_LEN, HEADER_LEN, Header, Kind};
use crate::txn_log::segment::{RECORDS_AT, Segment};

/// How much is read at once.
const CHUNK: u64 = 1 << 20;

/// Reads a segment's records in order, up to a limit or the first that is none.
#[derive(Debug)]
pub(crate) struct Scanner {
    pub(crate) segment: Arc<Segment>,
    /// Where the next record starts.
    pub(crate) offset: u64,
    limit: u64,
    chunk: Bytes,
    chunk_at: u64,
}

/// A verified record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
    pub(crate) zxid: i64,
    pub(crate) payload: Bytes,
    pub(crate) checksum: u32,
}

/// What stands at the scanner's place.
#[derive(Debug)]
pub(crate) enum Step {
    Record(Record),
    Limit,
    Bad(Problem),
}

impl Scanner {
    pub(crate) fn new(segment: Arc<Segment>, offset: u64, limit: u64) -> Self {
        Self { segment, offset, limit, chunk: Bytes::new(), chunk_at: 0 }
    }

    pub(crate) fn step(&mut self) -> Result<Step, LogError> {
        if self.offset == self.limit {
            return Ok(Step::Limit);
        }
        let Some(header) = self.header_at(self.offset)? else {
            return Ok(Step::Bad(Problem::NoRecord));
        };
        let len = header.record_len();
        if let Err(problem) = self.verify(self.offset, len)? {
            return Ok(Step::Bad(problem));
        }
        let offset = self.offset;
        self.offset += len;
        let range = self.load(offset, len)?;
        let (_, checksum) =
            self.chunk[range.clone()].split_last_chunk().expect("a record holds its checksum");
        let checksum = u32::from_le_bytes(*checksum);
        let payload_at = range.start + HEADER_LEN;
        let payload = self.chunk.slice(payload_at..payload_at + header.payload_len as usize);
        Ok(Step::Record(Record { offset, kind: header.kind, zxid: header.zxid, checksum, payload }))
    }

    /// The header at `offset`, if one that fits in front of the limit stands there.
    fn header_at(&mut self, offset: u64) -> Result<Option<Header>, LogError> {
        if self.limit.saturating_sub(offset) < HEADER_LEN as u64 {
            return Ok(None);
        }
        let range = self.load(offset, HEADER_LEN as u64)?;
        let header = Header::parse(self.chunk[range].first_chunk().expect("as many as asked for"));
        Ok(header.filter(|header| header.record_len() <= self.limit - offset))
    }

    fn verify(&mut self, offset: u64, len: u64) -> Result<Result<(), Problem>, LogError> {
        let range = self.load(offset - CHECKSUM_LEN as u64, len + CHECKSUM_LEN as u64)?;
        Ok(record::verify(self.segment.seed, &self.chunk[range]))
    }

    /// Has the bytes at `at`, which lie inside the segment, in the chunk, and says where.
    fn load(&mut self, at: u64, len: u64) -> Result<Range<usize>, LogError> {
        if at < self.chunk_at || at + len > self.chunk_at + self.chunk.len() as u64 {
            // From a little before: the next question is for the checksum in front.
            let from = at.saturating_sub(CHECKSUM_LEN as u64);
            let until = (at + len).max(from + CHUNK).min(self.segment.len);
            let mut chunk = vec![0; in_memory(until - from)];
            let read = self.segment.file.read_exact_at(&mut chunk, from);
            read.map_err(LogError::io("read", &self.segment.path))?;
            (self.chunk, self.chunk_at) = (chunk.into(), from);
        }
        let start = in_memory(at - self.chunk_at);
        Ok(start..start + in_memory(len))
    }

    /// Whether what stands at `bad` was durable once: some later record of this segment is whole and
    /// says so. A torn write leaves none, since each record was written when all but its own batch
    /// was on disk.
    pub(crate) fn was_durable(segment: Arc<Segment>, bad: u64) -> Result<bool, LogError> {
        let limit = segment.len;
        let mut scanner = Self::new(segment, bad, limit);
        let mut at = bad + 8;
        while at + HEADER_LEN as u64 <= limit {
            if let Some(header) = scanner.header_at(at)?
                && u64::from(header.durable) > bad
                && u64::from(header.durable) <= at
                && scanner.verify(at, header.record_len())?.is_ok()
            {
                return Ok(true);
            }
            at = scanner.skip_zeros(at + 8);
        }
        Ok(false)
    }

    /// The next multiple of eight, from `at` on, where the chunk in memory is not zero, or its end.
    fn skip_zeros(&self, at: u64) -> u64 {
        let Some(from) = at.checked_sub(self.chunk_at) else { return at };
        let Some(rest) = self.chunk.get(in_memory(from)..) else { return at };
        let zeros = rest.chunks_exact(8).take_while(|eight| *eight == [0; 8]).count();
        at + 8 * zeros as u64
    }
}

/// The transactions of the log behind a zxid, in order: those that a later truncation voided are
/// left out. It ends where the log ended when the reader was made, and may outlive a purge: the space
/// of what is purged meanwhile is free only when the reader is dropped.
#[derive(Debug)]
pub struct Reader {
    after: Zxid,
    /// The last zxid that is wanted.
    to: Zxid,
    /// Segments yet to read, with where to begin and end in each.
    pub(crate) rest: vec::IntoIter<(Arc<Segment>, u64, u64)>,
    scanner: Option<Scanner>,
    truncations: Vec<Truncation>,
}

impl Reader {
    pub(crate) fn new(
        after: Zxid,
        to: Zxid,
        pieces: Vec<(Arc<Segment>, u64, u64)>,
        truncations: Vec<Truncation>,
    ) -> Self {
        Self { after, to, rest: pieces.into_iter(), scanner: None, truncations }
    }

    fn stop(&mut self) {
        (self.scanner, self.rest) = (None, Vec::new().into_iter());
    }

    fn step(&mut self) -> Result<Option<(Zxid, Bytes)>, LogError> {
        if self.after >= self.to {
            self.stop();
        }
        loop {
            let Some(scanner) = &mut self.scanner else {
                let Some((segment, from, to)) = self.rest.next() else { return Ok(None) };
                self.scanner = Some(Scanner::new(segment, from, to));
                continue;
            };
            match scanner.step()? {
                Step::Limit => self.scanner = None,
                Step::Bad(problem) => {
                    let (path, offset) = (scanner.segment.path.clone(), scanner.offset);
                    return Err(LogError::Corrupt { path, offset, after: self.after, problem });
                }
                Step::Record(record) => {
                    let at = Position { seq: scanner.segment.seq, offset: record.offset };
                    let zxid = Zxid(record.zxid);
                    let is_live = record.kind == Kind::Txn
                        && zxid > self.after
                        && !self.truncations.iter().any(|later| later.at > at && later.to < zxid);
                    if is_live && zxid > self.to {
                        self.stop();
                    } else if is_live {
                        self.after = zxid;
                        return Ok(Some((zxid, record.payload)));
                    }
                }
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<(Zxid, Bytes), LogError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.stop();
        }
        step.transpose()
    }
}

/// The first record of a segment, if one was ever written.
pub(crate) fn first_record(segment: &Arc<Segment>) -> Result<Option<Record>, LogError> {
    match Scanner::new(Arc::clone(segment), RECORDS_AT, segment.len).step()? {
        Step::Record(record) => Ok(Some(record)),
        Step::Limit | Step::Bad(_) => Ok(None),
    }
}
