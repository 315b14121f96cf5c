//! The files `currentEpoch` and `acceptedEpoch` (facts, section 3.14).

use std::fs;
use std::io;
use std::path::PathBuf;

use zk_proto::{Epoch, Zxid};

use super::error::ImportError;
use super::files::{ACCEPTED_EPOCH, ApacheFiles, CURRENT_EPOCH};
use crate::txn_log::Epochs;

impl ApacheFiles {
    /// The epochs of a server whose last transaction is `last`, as upstream finds them when it starts:
    /// those in the files; where a file is missing, the transaction's; and where the current one is
    /// behind the transaction's, the one that was about to be written.
    ///
    /// A standalone server (`is_member` is false) never reads the files; there they only count as far
    /// as they make sense.
    ///
    /// # Errors
    /// The files contradict each other or the transaction, or are none.
    pub fn epochs(&self, last: Zxid, is_member: bool) -> Result<Epochs, ImportError> {
        if !is_member {
            let at_least = |name: &str| {
                let stored = self.epoch(name).ok().flatten().map(|(epoch, _)| epoch);
                stored.unwrap_or_default().max(last.epoch())
            };
            let current = at_least(CURRENT_EPOCH);
            return Ok(Epochs { accepted: at_least(ACCEPTED_EPOCH).max(current), current });
        }
        let missing = |name: &str| (last.epoch(), self.snapshot_folder.join(name));
        let (mut current, mut path) =
            self.epoch(CURRENT_EPOCH)?.unwrap_or_else(|| missing(CURRENT_EPOCH));
        if last.epoch() > current
            && let Some((about_to_be, temporary)) = self.epoch(&format!("{CURRENT_EPOCH}.tmp"))?
        {
            (current, path) = (about_to_be, temporary);
        }
        if last.epoch() > current {
            return Err(ImportError::EpochBehind { path, current, last });
        }
        let (accepted, path) =
            self.epoch(ACCEPTED_EPOCH)?.unwrap_or_else(|| missing(ACCEPTED_EPOCH));
        if accepted < current {
            return Err(ImportError::AcceptedBehind { path, accepted, current });
        }
        Ok(Epochs { accepted, current })
    }

    fn epoch(&self, name: &str) -> Result<Option<(Epoch, PathBuf)>, ImportError> {
        let path = self.snapshot_folder.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(ImportError::io("read", &path)(err)),
        };
        let line = text.lines().next().unwrap_or_default();
        match line.parse() {
            Ok(epoch) if epoch >= 0 => Ok(Some((Epoch(epoch), path))),
            Ok(_) | Err(_) => Err(ImportError::Epoch { path, text: line.to_owned() }),
        }
    }
}
