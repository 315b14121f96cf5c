//! Transaction log files as upstream writes them (facts, section 4.2): a [`FileHeader`], then records.
//!
//! | part of a record | bytes |
//! |---|---|
//! | Adler-32 of the entry, as a long | 8 |
//! | length of the entry | 4 |
//! | the entry: a [`LoggedTxn`](crate::txn::LoggedTxn) | |
//! | `B` | 1 |
//!
//! A file is filled with zeros ahead of need, so a record of nothing is its end. So is a record without
//! its `B`: a write that a crash cut short, and that nobody was told of.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use zk_jute::Field as _;

use crate::persistence::{ADLER32_START, FileHeader, adler32};

const PREFIX_LEN: usize = 12;
const END_MARK: u8 = b'B';

/// A piece of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// A transaction, whose checksum is right.
    Txn {
        /// Where its record begins in the file.
        offset: u64,
        /// The checksum.
        checksum: u32,
        /// Header, body and digest, not looked into.
        entry: Bytes,
    },
    /// No more is to be read.
    End(LogEnd),
}

/// How a log file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// Behind a record, or with zeros.
    Clean,
    /// With a record, or a header, of which a part is missing.
    Torn {
        /// Where it begins.
        offset: u64,
    },
}

/// Why bytes are no transaction log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFileError {
    /// It begins with something else than a log's header.
    Magic(i32),
    /// A record that claims such a length.
    Length {
        /// Where the record begins.
        offset: u64,
        /// The claim.
        len: i32,
    },
    /// An entry is whole, and not what was written.
    Checksum {
        /// Where its record begins.
        offset: u64,
        /// The checksum before it.
        written: i64,
        /// Its own.
        computed: u32,
    },
}

impl fmt::Display for LogFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(found) => {
                write!(f, "the file begins with {found:08x}, which no transaction log does")
            }
            Self::Length { offset, len } => {
                write!(f, "the record at byte {offset} claims a length of {len}")
            }
            Self::Checksum { offset, written, computed } => write!(
                f,
                "the record at byte {offset} has the checksum {computed:08x}, and {written:08x} was \
                 written down"
            ),
        }
    }
}

impl std::error::Error for LogFileError {}

/// Reads a log file from bytes that come bit by bit.
#[derive(Debug)]
pub struct LogDecoder {
    len_max: usize,
    has_header: bool,
    offset: u64,
}

impl LogDecoder {
    /// Waits for a file in which no entry takes more than `len_max` bytes.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        Self { len_max, has_header: false, offset: 0 }
    }

    /// How far the file is read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next item off the front of `input`; `None` until it is whole there. Nothing is to be
    /// read after [`LogItem::End`].
    ///
    /// # Errors
    /// What is there is damaged, or more than the limit allows.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<LogItem>, LogFileError> {
        if !self.has_header {
            if input.len() < FileHeader::MIN_LEN {
                return Ok(None);
            }
            let bytes = self.take(input, FileHeader::MIN_LEN);
            let magic = bytes.clone().get_i32();
            if bytes.iter().all(|byte| *byte == 0) {
                // Space was made, and nothing was written to it.
                return Ok(Some(LogItem::End(LogEnd::Torn { offset: 0 })));
            }
            if magic != FileHeader::LOG_MAGIC {
                return Err(LogFileError::Magic(magic));
            }
            self.has_header = true;
        }
        let offset = self.offset;
        let Some(mut prefix) = input.get(..PREFIX_LEN) else { return Ok(None) };
        let (written, claimed) = (prefix.get_i64(), prefix.get_i32());
        if claimed == 0 {
            let end = if written == 0 { LogEnd::Clean } else { LogEnd::Torn { offset } };
            return Ok(Some(LogItem::End(end)));
        }
        let len = usize::try_from(claimed)
            .ok()
            .filter(|len| *len <= self.len_max)
            .ok_or(LogFileError::Length { offset, len: claimed })?;
        match input.get(PREFIX_LEN + len) {
            None => return Ok(None),
            Some(&END_MARK) => {}
            Some(_) => return Ok(Some(LogItem::End(LogEnd::Torn { offset }))),
        }
        let entry = self.take(input, PREFIX_LEN + len + 1).slice(PREFIX_LEN..PREFIX_LEN + len);
        let computed = adler32(ADLER32_START, &entry);
        if written != i64::from(computed) {
            return Err(LogFileError::Checksum { offset, written, computed });
        }
        Ok(Some(LogItem::Txn { offset, checksum: computed, entry }))
    }

    /// How the file ends whose last bytes are `rest`, when [`Self::decode`] waits for more and there
    /// is none.
    #[must_use]
    pub fn end(&self, rest: &[u8]) -> LogEnd {
        if self.has_header && rest.iter().all(|byte| *byte == 0) {
            LogEnd::Clean
        } else {
            LogEnd::Torn { offset: self.offset }
        }
    }

    fn take(&mut self, input: &mut BytesMut, len: usize) -> Bytes {
        self.offset += len as u64;
        input.split_to(len).freeze()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;
    use zk_jute::Record as _;

    use super::*;

    const LEN_MAX: usize = 1000;

    fn header() -> BytesMut {
        let mut file = BytesMut::new();
        FileHeader::LOG.encode(&mut file);
        file
    }

    fn put(file: &mut BytesMut, entry: &[u8]) {
        file.put_i64(adler32(ADLER32_START, entry).into());
        file.put_i32(entry.len().try_into().unwrap());
        file.put_slice(entry);
        file.put_u8(END_MARK);
    }

    /// The entries, and how the file ends.
    fn read(file: &[u8], piece: usize) -> Result<(Vec<(u64, Bytes)>, LogEnd), LogFileError> {
        let mut decoder = LogDecoder::new(LEN_MAX);
        let (mut entries, mut input) = (Vec::new(), BytesMut::new());
        let mut pieces = file.chunks(piece);
        loop {
            match decoder.decode(&mut input)? {
                Some(LogItem::Txn { offset, entry, .. }) => entries.push((offset, entry)),
                Some(LogItem::End(end)) => return Ok((entries, end)),
                None => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return Ok((entries, decoder.end(&input))),
                },
            }
        }
    }

    fn two() -> (BytesMut, Vec<(u64, Bytes)>) {
        let mut file = header();
        put(&mut file, b"first");
        put(&mut file, b"the second");
        (file, vec![(16, Bytes::from("first")), (34, Bytes::from("the second"))])
    }

    #[test]
    fn records_come_one_by_one_whatever_the_pieces() {
        let (mut file, entries) = two();
        for zeros in [0, 1, 5000] {
            file.put_bytes(0, zeros);
            for piece in [1, 7, 100_000] {
                assert_eq!(read(&file, piece), Ok((entries.clone(), LogEnd::Clean)));
            }
        }
    }

    #[test]
    fn a_torn_record_ends_the_file_wherever_it_is_cut() {
        let (file, entries) = two();
        // The first four bytes of a checksum are zeros, like space that is not used yet.
        for len in 39..file.len() {
            let torn = Ok((entries[..1].to_vec(), LogEnd::Torn { offset: 34 }));
            assert_eq!(read(&file[..len], 9), torn, "cut at {len}");
            // The same in a file that had space.
            let mut padded = BytesMut::from(&file[..len]);
            padded.put_bytes(0, 100);
            assert_eq!(read(&padded, 9).map(|(entries, _)| entries.len()), Ok(1), "cut at {len}");
        }
        for len in 0..16 {
            assert_eq!(read(&file[..len], 9), Ok((vec![], LogEnd::Torn { offset: 0 })));
        }
        assert_eq!(read(&[0; 5000], 9), Ok((vec![], LogEnd::Torn { offset: 0 })));
    }

    #[test]
    fn what_is_damaged_is_named() {
        let (mut file, _) = two();
        file[30] ^= 1;
        let error = read(&file, 9).unwrap_err();
        assert!(matches!(error, LogFileError::Checksum { offset: 16, .. }), "{error}");
        let (mut file, _) = two();
        file[24] = 0x80;
        let error = read(&file, 9).unwrap_err();
        assert!(matches!(error, LogFileError::Length { offset: 16, .. }), "{error}");
        let (mut file, _) = two();
        file[25] = 1;
        let error = read(&file, 9).unwrap_err();
        assert!(matches!(error, LogFileError::Length { offset: 16, len: 0x01_0005 }), "{error}");
        let mut file = BytesMut::new();
        FileHeader::SNAPSHOT.encode(&mut file);
        assert_eq!(read(&file, 9), Err(LogFileError::Magic(FileHeader::SNAPSHOT_MAGIC)));
    }
}
