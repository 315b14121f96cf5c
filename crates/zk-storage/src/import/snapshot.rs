//! Reading a snapshot file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use bytes::BytesMut;
use flate2::read::GzDecoder;
use zk_proto::snapshot::{FileTrailer, SnapshotDecoder, SnapshotItem};

use super::error::SnapshotProblem;
use super::files::{ApacheFiles, Packing, SnapshotFile};
use super::snappy::SnappyReader;
use super::{CHUNK, FIELD_LEN_MAX};

/// What a snapshot said beside its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRead {
    /// What stands behind the znodes.
    pub trailer: FileTrailer,
    /// Znodes whose ACL is not in the snapshot's table: transactions behind it set them.
    pub missing_acls: u64,
}

impl ApacheFiles {
    /// Reads a whole snapshot and hands every session and znode to `take`, with how many of the file's
    /// bytes are read. They count for nothing unless this returns well: only then all checksums were
    /// right.
    ///
    /// # Errors
    /// The first error of `take`, or a [`SnapshotProblem`].
    pub fn read_snapshot<E: From<SnapshotProblem>>(
        &self,
        file: &SnapshotFile,
        mut take: impl FnMut(SnapshotItem, u64) -> Result<(), E>,
    ) -> Result<SnapshotRead, E> {
        let bad = |reason: String| SnapshotProblem { path: file.path.clone(), reason };
        let failed = |error: io::Error| bad(error.to_string());
        let read = Rc::new(Cell::new(0));
        let input = Counted { input: File::open(&file.path).map_err(failed)?, read: read.clone() };
        let mut input: Box<dyn Read> = match file.packing {
            Packing::Plain => Box::new(input),
            Packing::Gzip => Box::new(GzDecoder::new(io::BufReader::with_capacity(CHUNK, input))),
            Packing::Snappy => {
                Box::new(SnappyReader::new(io::BufReader::with_capacity(CHUNK, input)))
            }
        };
        let mut decoder = SnapshotDecoder::in_file(FIELD_LEN_MAX);
        let mut buffer = BytesMut::new();
        loop {
            match decoder.decode(&mut buffer).map_err(|error| bad(error.to_string()))? {
                Some(SnapshotItem::End) => break,
                Some(item) => take(item, read.get())?,
                None => {
                    if read_more(&mut input, &mut buffer).map_err(failed)? == 0 {
                        let reason = format!(
                            "it ends in the middle of the tree, after {} of its bytes",
                            read.get()
                        );
                        return Err(bad(reason).into());
                    }
                }
            }
        }
        // To its end, where compressed files have checksums of their own.
        while buffer.len() <= FileTrailer::LEN_MAX {
            if read_more(&mut input, &mut buffer).map_err(failed)? == 0 {
                break;
            }
        }
        let trailer = FileTrailer::parse(decoder.checksum(), &buffer.freeze())
            .map_err(|error| bad(error.to_string()))?;
        Ok(SnapshotRead { trailer, missing_acls: decoder.missing_acls() })
    }
}

/// Adds what there is to the buffer, up to a chunk; returns how much that was.
pub(super) fn read_more(input: &mut impl Read, buffer: &mut BytesMut) -> io::Result<usize> {
    let len = buffer.len();
    buffer.resize(len + CHUNK, 0);
    let read = loop {
        match input.read(&mut buffer[len..]) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    buffer.truncate(len + *read.as_ref().unwrap_or(&0));
    read
}

struct Counted<R> {
    input: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(out)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}
