//! Who a folder belongs to: its lock against a second server, and the store id that keeps the
//! folders of two servers from being mixed up.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use crate::disk::sync_folder;
use crate::error::StorageError;

/// Drawn once, when a server's folders are made; in every segment and in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub(crate) u64);

impl StoreId {
    pub(crate) fn random() -> io::Result<Self> {
        random_u64().map(Self)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

pub(crate) fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Format of a folder's `identity` file and of everything beside it.
const FORMAT: u32 = 1;

/// Holds the folder until dropped, or until the process ends in any way.
#[derive(Debug)]
pub(crate) struct FolderLock {
    folder: PathBuf,
    _file: File,
}

impl FolderLock {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes the folder where it is missing and locks it.
pub(crate) fn lock(folder: &Path) -> Result<FolderLock, StorageError> {
    fs::create_dir_all(folder).map_err(StorageError::io("create", folder))?;
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(StorageError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only for the message: the lock itself is the kernel's.
            if file.read_to_string(&mut holder).is_err() || holder.is_empty() {
                "unknown".clone_into(&mut holder);
            }
            return Err(StorageError::InUse { path: folder.to_owned(), pid: holder });
        }
        Err(errno) => return Err(StorageError::io("lock", &path)(errno.into())),
    }
    file.set_len(0).map_err(StorageError::io("write", &path))?;
    write!(file, "{}", std::process::id()).map_err(StorageError::io("write", &path))?;
    Ok(FolderLock { folder: folder.to_owned(), _file: file })
}

/// The folder's store id; `None` where the folder is new.
pub(crate) fn read(folder: &Path) -> Result<Option<StoreId>, StorageError> {
    let path = folder.join("identity");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(StorageError::io("read", &path)(err)),
    };
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
    };
    match (field("format ").parse::<u32>(), field("store ").parse()) {
        (Ok(FORMAT), Ok(id)) => Ok(Some(id)),
        (Ok(found), _) if found > FORMAT => {
            Err(StorageError::Format { path, found, known: FORMAT })
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(StorageError::Identity { path }),
    }
}

/// When the folder got its store id; `None` where it has none, or that cannot be known.
pub(crate) fn made(folder: &Path) -> Option<SystemTime> {
    fs::metadata(folder.join("identity")).and_then(|metadata| metadata.modified()).ok()
}

/// Gives the folder its store id, durably.
pub(crate) fn write(folder: &Path, id: StoreId) -> Result<(), StorageError> {
    let (path, temporary) = (folder.join("identity"), folder.join("identity.tmp"));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            write!(file, "paddock\nformat {FORMAT}\nstore {id}\n")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| sync_folder(folder));
    written.map_err(StorageError::io("write", &path))?;
    // The folder itself may be as new as its content.
    let parent = folder.parent().unwrap_or(folder);
    sync_folder(parent).map_err(StorageError::io("sync", parent))
}
