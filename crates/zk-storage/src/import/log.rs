//! Reading the transaction logs, one file after the other.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;

use bytes::{Buf as _, Bytes, BytesMut};
use zk_proto::Zxid;
use zk_proto::log_file::{LogDecoder, LogEnd, LogItem};

use super::FIELD_LEN_MAX;
use super::error::ImportError;
use super::files::{ApacheFiles, LogFile};
use super::snapshot::read_more;

/// Where the zxid stands in an entry: behind the session and the cxid.
const ZXID_AT: usize = 12;

/// Of so many transactions it is known what they were, should they come again.
const RECENT: usize = 100_000;

/// A transaction of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApacheTxn {
    /// Its zxid.
    pub zxid: Zxid,
    /// Header, body and digest: the same bytes that our log holds.
    pub entry: Bytes,
}

/// What was found in a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFileRead {
    /// Which one.
    pub path: PathBuf,
    /// Its size, with the zeros at its end.
    pub len: u64,
    /// How many transactions were new in it.
    pub txns: u64,
    /// How many are in the snapshot, or came before.
    pub known: u64,
    /// How it ends.
    pub end: LogEnd,
    /// Something stands behind the zeros at its end.
    pub rest: bool,
}

impl ApacheFiles {
    /// Reads the transactions above `after`, which come from a snapshot, in `after_file`; without one
    /// `after` is zero and the log has to begin at the beginning.
    #[must_use]
    pub fn read_log(&self, after: Zxid, after_file: Option<PathBuf>) -> ApacheLog {
        // The newest that begins at or before the next one; earlier files hold nothing that counts.
        let from = self.logs.iter().rposition(|file| file.first.0 <= after.0 + 1).unwrap_or(0);
        ApacheLog {
            files: self.logs[from..].to_vec().into(),
            open: None,
            read: Vec::new(),
            base: after,
            last: after,
            last_file: after_file,
            recent: VecDeque::new(),
        }
    }
}

/// The transactions of several log files, in order and without a hole; made by
/// [`ApacheFiles::read_log`].
#[derive(Debug)]
pub struct ApacheLog {
    files: VecDeque<LogFile>,
    open: Option<OpenFile>,
    read: Vec<LogFileRead>,
    base: Zxid,
    last: Zxid,
    last_file: Option<PathBuf>,
    /// Zxids and checksums of what was read last.
    recent: VecDeque<(Zxid, u32)>,
}

#[derive(Debug)]
struct OpenFile {
    input: File,
    decoder: LogDecoder,
    buffer: BytesMut,
}

impl ApacheLog {
    /// The files that were read so far, the last one perhaps in part.
    #[must_use]
    pub fn files(&self) -> &[LogFileRead] {
        &self.read
    }

    /// How many bytes of them were read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        let current = self.open.as_ref().map_or(0, |open| open.decoder.offset());
        let behind = self.read.len() - usize::from(self.open.is_some());
        self.read[..behind].iter().map(|file| file.len).sum::<u64>() + current
    }

    /// The next transaction; `None` at the end of the last file.
    ///
    /// # Errors
    /// A file cannot be read or is damaged, a transaction is missing, or histories are mixed.
    pub fn next_txn(&mut self) -> Result<Option<ApacheTxn>, ImportError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some((checksum, entry)) = self.next_entry()? else { continue };
            let path = || self.read.last().expect("a file is open").path.clone();
            let Some(zxid) = zxid_of(&entry) else {
                let reason = format!("the record behind it has {} bytes", entry.len());
                return Err(ImportError::Txn { path: path(), zxid: self.last, reason });
            };
            if zxid <= self.last {
                // Servers may log one twice when they are brought up to date. Upstream applies it twice,
                // which is the same.
                let before = self.recent.binary_search_by_key(&zxid, |(zxid, _)| *zxid);
                let same = match before {
                    Ok(index) => self.recent[index].1 == checksum,
                    // In the snapshot, or too long ago to tell.
                    Err(0) => true,
                    Err(_) => zxid <= self.base,
                };
                if !same {
                    return Err(ImportError::Order { path: path(), zxid, last: self.last });
                }
                self.read.last_mut().expect("a file is open").known += 1;
                continue;
            }
            if !follows(self.last, zxid) {
                return Err(ImportError::Hole {
                    after: self.last,
                    after_file: self.last_file.clone(),
                    next: zxid,
                    next_file: path(),
                    skipped: Vec::new(),
                });
            }
            self.last = zxid;
            self.last_file = Some(path());
            self.read.last_mut().expect("a file is open").txns += 1;
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((zxid, checksum));
            return Ok(Some(ApacheTxn { zxid, entry }));
        }
    }

    /// Goes on to the next file; false if there is none.
    fn open_next(&mut self) -> Result<bool, ImportError> {
        let Some(LogFile { path, len, .. }) = self.files.pop_front() else { return Ok(false) };
        let input = File::open(&path).map_err(ImportError::io("open", &path))?;
        let decoder = LogDecoder::new(FIELD_LEN_MAX);
        self.open = Some(OpenFile { input, decoder, buffer: BytesMut::new() });
        self.read.push(LogFileRead {
            path,
            len,
            txns: 0,
            known: 0,
            end: LogEnd::Clean,
            rest: false,
        });
        Ok(true)
    }

    /// The next entry of the open file; `None` when that has ended.
    fn next_entry(&mut self) -> Result<Option<(u32, Bytes)>, ImportError> {
        let open = self.open.as_mut().expect("a file is open");
        let file = self.read.last_mut().expect("a file is open");
        let end = loop {
            let item = open.decoder.decode(&mut open.buffer).map_err(|problem| {
                ImportError::Log { path: file.path.clone(), after: self.last, problem }
            })?;
            match item {
                Some(LogItem::Txn { checksum, entry, .. }) => return Ok(Some((checksum, entry))),
                Some(LogItem::End(end)) => break end,
                None => {
                    let read = read_more(&mut open.input, &mut open.buffer)
                        .map_err(ImportError::io("read", &file.path))?;
                    if read == 0 {
                        break open.decoder.end(&open.buffer);
                    }
                }
            }
        };
        file.end = end;
        if end == LogEnd::Clean {
            file.rest = loop {
                if open.buffer.iter().any(|byte| *byte != 0) {
                    break true;
                }
                open.buffer.clear();
                let read = read_more(&mut open.input, &mut open.buffer)
                    .map_err(ImportError::io("read", &file.path))?;
                if read == 0 {
                    break false;
                }
            };
        }
        self.open = None;
        Ok(None)
    }
}

/// The last transaction that can be read in a log.
pub(super) fn last_in(file: &LogFile) -> Option<Zxid> {
    let (mut input, mut buffer) = (File::open(&file.path).ok()?, BytesMut::new());
    let (mut decoder, mut last) = (LogDecoder::new(FIELD_LEN_MAX), None);
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Some(LogItem::Txn { entry, .. })) => last = zxid_of(&entry).or(last),
            Ok(None) if read_more(&mut input, &mut buffer).ok()? > 0 => {}
            Ok(Some(LogItem::End(_)) | None) | Err(_) => return last,
        }
    }
}

fn zxid_of(entry: &Bytes) -> Option<Zxid> {
    let mut rest = entry.get(ZXID_AT..).filter(|rest| rest.len() >= 8)?;
    Some(Zxid(rest.get_i64()))
}

/// Whether nothing can be missing between the two: within an epoch the counter goes up by one for
/// every transaction, failed ones included, and it begins with one.
///
/// How far an earlier epoch went is not to be seen in a later one.
fn follows(last: Zxid, next: Zxid) -> bool {
    next.counter() == if next.epoch() == last.epoch() { last.counter().wrapping_add(1) } else { 1 }
}
