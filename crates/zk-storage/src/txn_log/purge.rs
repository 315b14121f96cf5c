//! Giving up the segments that nobody needs: one is kept for the next use, the rest are removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zk_proto::Zxid;

use crate::disk::sync_folder;
use crate::txn_log::error::LogError;
use crate::txn_log::segment::Segment;
use crate::txn_log::{LogHandle, Shared};

/// With the prepared segment, enough that a steady load makes no new files.
const SPARES_MAX: usize = 1;

impl LogHandle {
    /// Gives up the oldest segments while all they hold is in the state (up to `applied`) and the
    /// log keeps at least `retain_txns` transactions, for learners that lag behind. What stands before
    /// an installed snapshot goes in any case. Returns how many.
    ///
    /// # Errors
    /// When a file cannot be renamed or removed. The log stays whole.
    pub fn purge(&self, applied: Zxid, retain_txns: u64) -> Result<usize, LogError> {
        let shared = &self.shared;
        let _maintenance = shared.maintenance();
        let mut purged = 0;
        loop {
            let oldest = {
                let mut inner = shared.inner();
                if !inner.index.oldest_may_go(applied, retain_txns) {
                    return Ok(purged);
                }
                inner.index.remove_oldest()
            };
            // No new reader can find it; one that has it keeps it from being overwritten.
            if Arc::strong_count(&oldest) == 1 && oldest.len == shared.segment_bytes {
                shared.make_spare(&oldest)?;
            } else {
                remove(&oldest.path)?;
            }
            // One by one: after a power cut no younger segment is gone before an older one.
            sync_folder(shared.folder()).map_err(LogError::io("sync", shared.folder()))?;
            purged += 1;
        }
    }
}

impl Shared {
    /// Keeps a segment's file for later, or removes it where enough are kept.
    pub(super) fn make_spare(&self, segment: &Segment) -> Result<(), LogError> {
        if self.spares()?.len() >= SPARES_MAX {
            return remove(&segment.path);
        }
        let spare = segment.path.with_extension("spare");
        fs::rename(&segment.path, &spare).map_err(LogError::io("rename", &segment.path))
    }

    /// The files kept for recycling; those of another size are removed.
    pub(super) fn spares(&self) -> Result<Vec<PathBuf>, LogError> {
        let mut spares = Vec::new();
        let entries = fs::read_dir(self.folder()).map_err(LogError::io("list", self.folder()))?;
        for entry in entries {
            let entry = entry.map_err(LogError::io("list", self.folder()))?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "spare") {
                let len = entry.metadata().map_err(LogError::io("read", &path))?.len();
                if len == self.segment_bytes {
                    spares.push(path);
                } else {
                    remove(&path)?;
                }
            }
        }
        Ok(spares)
    }
}

fn remove(path: &Path) -> Result<(), LogError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path)(err)),
        Ok(()) | Err(_) => Ok(()),
    }
}
