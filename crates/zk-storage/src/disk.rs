//! Small helpers around the file system.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// Bytes that this process may still write to the file system of `path`.
///
/// The log's current and prepared segments are outside of it: they have their space already. A
/// server that refuses writes while this is below a reserve never meets a full disk.
///
/// # Errors
/// When `path` cannot be reached.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A length or offset of bytes in memory.
pub(crate) fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("what is in memory has an address")
}

/// Makes creations, renames and removals in the folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
