//! How far the log was acknowledged, noted beside it.
//!
//! Each record tells what was durable when it was written; only the last batch has no record behind
//! it to speak for it. The watermark does. It is written now and then, without a sync, after the
//! sync of what it names: it may lag behind the truth, and is never ahead of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::txn_log::error::LogError;
use crate::txn_log::index::Position;

/// How often an append may note it: an extra system call now and then, not with each batch.
const INTERVAL: Duration = Duration::from_millis(100);
const LEN: usize = 20;

#[derive(Debug)]
pub(crate) struct Watermark {
    file: File,
    path: PathBuf,
    written: Option<(Position, Instant)>,
}

impl Watermark {
    /// Opens the file, and reads what it says.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Option<Position>), LogError> {
        let path = folder.join("watermark");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(LogError::io("open", &path))?;
        let mut bytes = [0; LEN];
        let position = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Position::from_bytes(&bytes),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(err) => return Err(LogError::io("read", &path)(err)),
        };
        Ok((Self { file, path, written: None }, position))
    }

    /// Notes `position`, unless something was noted a moment ago.
    pub(crate) fn maybe_note(&mut self, position: Position) -> Result<(), LogError> {
        if self.written.is_some_and(|(_, at)| at.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.note(position)
    }

    /// Notes `position`, which is durable.
    pub(crate) fn note(&mut self, position: Position) -> Result<(), LogError> {
        if self.written.is_some_and(|(written, _)| written == position) {
            return Ok(());
        }
        let written = self.file.write_all_at(&position.to_bytes(), 0);
        written.map_err(LogError::io("write", &self.path))?;
        self.written = Some((position, Instant::now()));
        Ok(())
    }
}

impl Position {
    fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.seq.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; LEN]) -> Option<Self> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (offset, _) = rest.split_first_chunk()?;
        let position = Self { seq: u64::from_le_bytes(*seq), offset: u64::from_le_bytes(*offset) };
        (position.to_bytes() == *bytes).then_some(position)
    }
}
