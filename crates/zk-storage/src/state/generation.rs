//! Which generation of the state is the current one: a file that is replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::disk::sync_folder;
use crate::error::StorageError;
use crate::state::StagedId;

/// A state among those that lie side by side while one takes another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// What a new server begins with. Its column family is RocksDB's own, which cannot be dropped.
    pub(crate) const FIRST: Self = Self(0);

    /// That of a staged snapshot.
    pub(crate) fn of(staged: StagedId) -> Self {
        Self(staged.0)
    }

    /// Its column family.
    pub(crate) fn name(self) -> String {
        if self == Self::FIRST { "default".to_owned() } else { format!("{:016x}", self.0) }
    }
}

const FILE: &str = "generation";

/// The current one; the first where nothing was written.
pub(crate) fn read(folder: &Path) -> Result<Generation, StorageError> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Generation::FIRST),
        Err(err) => return Err(StorageError::io("read", &path)(err)),
    };
    // The line end tells that it is whole.
    let number = text.strip_suffix('\n').filter(|number| number.len() == 16);
    let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
    let bad = || StorageError::BadState { path: folder.to_owned(), what: FILE.to_owned() };
    number.map(Generation).ok_or_else(bad)
}

/// Makes it the current one, durably.
pub(crate) fn write(folder: &Path, generation: Generation) -> Result<(), StorageError> {
    let (path, temporary) = (folder.join(FILE), folder.join("generation.tmp"));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            writeln!(file, "{:016x}", generation.0)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| sync_folder(folder));
    written.map_err(StorageError::io("write", &path))
}
