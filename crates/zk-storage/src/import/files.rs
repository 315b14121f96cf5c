//! Which files there are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zk_proto::Zxid;

use super::error::ImportError;
use super::log::last_in;
use crate::recover::StorageConfig;

/// Upstream's folder within dataDir and dataLogDir.
const FOLDER: &str = "version-2";
const SNAPSHOT: &str = "snapshot.";
const LOG: &str = "log.";
const EPOCHS: [&str; 2] = [CURRENT_EPOCH, ACCEPTED_EPOCH];
pub(super) const CURRENT_EPOCH: &str = "currentEpoch";
pub(super) const ACCEPTED_EPOCH: &str = "acceptedEpoch";

/// How a snapshot is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Snappy,
}

/// A snapshot, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Where it is.
    pub path: PathBuf,
    /// All up to this one is in it.
    pub zxid: Zxid,
    /// Its size, packed as it is.
    pub len: u64,
    pub(super) packing: Packing,
}

/// A transaction log, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// The first transaction in it.
    pub first: Zxid,
    /// Its size, with the zeros at its end.
    pub len: u64,
}

/// What Apache ZooKeeper has left in dataDir and dataLogDir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApacheFiles {
    /// Newest first.
    pub snapshots: Vec<SnapshotFile>,
    /// Oldest first.
    pub logs: Vec<LogFile>,
    /// Where the epochs are.
    pub(super) snapshot_folder: PathBuf,
    /// When the newest of all was last written to.
    pub(super) modified: SystemTime,
}

impl ApacheFiles {
    /// Looks for them; `None` where there are none.
    ///
    /// # Errors
    /// A folder cannot be listed, or a file is in the other folder than where it belongs.
    pub fn find(config: &StorageConfig) -> Result<Option<Self>, ImportError> {
        let snapshot_folder = config.data_dir.join(FOLDER);
        let log_folder = config.data_log_dir.join(FOLDER);
        let mut found = Self {
            snapshots: Vec::new(),
            logs: Vec::new(),
            snapshot_folder: snapshot_folder.clone(),
            modified: SystemTime::UNIX_EPOCH,
        };
        let apart = !same_folder(&snapshot_folder, &log_folder);
        let mut has_epoch = false;
        for (path, name) in list(&snapshot_folder)? {
            has_epoch |= EPOCHS.contains(&name.as_str());
            if let Some((zxid, packing)) = snapshot_name(&name) {
                let len = found.note(&path)?;
                found.snapshots.push(SnapshotFile { path, zxid, len, packing });
            } else if apart && log_name(&name).is_some() {
                return Err(ImportError::Misplaced {
                    path,
                    folder: "dataDir",
                    right: "dataLogDir",
                });
            }
        }
        for (path, name) in list(&log_folder)? {
            if let Some(first) = log_name(&name) {
                let len = found.note(&path)?;
                found.logs.push(LogFile { path, first, len });
            } else if apart && snapshot_name(&name).is_some() {
                return Err(ImportError::Misplaced {
                    path,
                    folder: "dataLogDir",
                    right: "dataDir",
                });
            }
        }
        // Of the same zxid the plain one first: nothing can be wrong with its packing.
        found.snapshots.sort_by_key(|file| (std::cmp::Reverse(file.zxid), file.packing as u8));
        found.logs.sort_by_key(|file| file.first);
        let nothing = found.snapshots.is_empty() && found.logs.is_empty() && !has_epoch;
        Ok((!nothing).then_some(found))
    }

    /// The greatest zxid that a file is named after.
    #[must_use]
    pub fn newest_name(&self) -> Zxid {
        let snapshot = self.snapshots.first().map(|file| file.zxid);
        snapshot.max(self.logs.last().map(|file| file.first)).unwrap_or_default()
    }

    /// Whether Apache ZooKeeper has written more than a store has that was made at that time: the greatest
    /// zxid in its files, if that is above `last`. Reads the newest log when that is newer than the store.
    #[must_use]
    pub fn newer_than(&self, last: Zxid, made: SystemTime) -> Option<Zxid> {
        let mut newest = self.newest_name();
        if self.modified > made
            && let Some(log) = self.logs.last()
        {
            newest = newest.max(last_in(log).unwrap_or_default());
        }
        (newest > last).then_some(newest)
    }

    fn note(&mut self, path: &Path) -> Result<u64, ImportError> {
        let metadata = fs::metadata(path).map_err(ImportError::io("look at", path))?;
        let modified = metadata.modified().map_err(ImportError::io("look at", path))?;
        self.modified = self.modified.max(modified);
        Ok(metadata.len())
    }
}

/// The same folder under two names counts as one; what is not there has no other name.
fn same_folder(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn list(folder: &Path) -> Result<Vec<(PathBuf, String)>, ImportError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(ImportError::io("list", folder)(err)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ImportError::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((entry.path(), name));
    }
    Ok(found)
}

/// Half-written ones end with `.tmp` and are none.
fn snapshot_name(name: &str) -> Option<(Zxid, Packing)> {
    let rest = name.strip_prefix(SNAPSHOT)?;
    let (zxid, packing) = match rest.split_once('.') {
        None => (rest, Packing::Plain),
        Some((zxid, "gz")) => (zxid, Packing::Gzip),
        Some((zxid, "snappy")) => (zxid, Packing::Snappy),
        Some(_) => return None,
    };
    Some((hex(zxid)?, packing))
}

fn log_name(name: &str) -> Option<Zxid> {
    hex(name.strip_prefix(LOG)?)
}

fn hex(text: &str) -> Option<Zxid> {
    i64::from_str_radix(text, 16).ok().filter(|zxid| *zxid >= 0).map(Zxid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        assert_eq!(snapshot_name("snapshot.0"), Some((Zxid(0), Packing::Plain)));
        assert_eq!(snapshot_name("snapshot.1f.gz"), Some((Zxid(31), Packing::Gzip)));
        let long = snapshot_name("snapshot.500000001.snappy");
        assert_eq!(long, Some((Zxid(0x5_0000_0001), Packing::Snappy)));
        for name in
            ["snapshot", "snapshot.", "snapshot.x", "snapshot.5.tmp", "snapshot.-5", "log.5"]
        {
            assert_eq!(snapshot_name(name), None, "{name}");
        }
        assert_eq!(log_name("log.2a"), Some(Zxid(42)));
        for name in ["log.", "log.5.bak", "snapshot.5", "logs.5"] {
            assert_eq!(log_name(name), None, "{name}");
        }
    }
}
