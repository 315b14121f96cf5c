//! One file of the log: a page that names it, then records.
//!
//! A segment has its full size, all of it written, before its first record: an append changes
//! neither the file's size nor its extents, so a sync is a write of data and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use zk_proto::Zxid;

use crate::disk::{free_bytes, in_memory, sync_folder};
use crate::identity::StoreId;
use crate::txn_log::error::{LogError, Problem};

/// What an append is rounded up to, and the size of a segment's first page.
pub(crate) const PAGE: u64 = PAGE_LEN as u64;
const PAGE_LEN: usize = 4096;
/// Where the first record stands.
pub(crate) const RECORDS_AT: u64 = PAGE;

const MAGIC: [u8; 8] = *b"PDKTXLOG";
const FORMAT: u32 = 1;
/// Zeros are written and synced in steps, so that a sync of the log beside it waits for little.
const FILL_STEP: usize = 1 << 20;

/// An open segment. Its bytes are never changed but by the one [`Log`](super::Log) behind its end.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) len: u64,
    /// First value of each record's checksum. It differs between any two segments of a store, so a
    /// record left over from a file's earlier use never passes for one of its present use.
    pub(crate) seed: u32,
}

impl Segment {
    pub(crate) fn path_of(folder: &Path, seq: u64) -> PathBuf {
        folder.join(format!("{seq:016x}.log"))
    }

    /// The number in a segment's file name.
    pub(crate) fn seq_of(path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        if name.len() == 16 { u64::from_str_radix(name, 16).ok() } else { None }
    }

    /// Makes a segment from nothing. Without room for it, nothing is left behind.
    pub(crate) fn create(
        folder: &Path,
        store: StoreId,
        seq: u64,
        len: u64,
    ) -> Result<Self, LogError> {
        let temporary = folder.join("new.tmp");
        let filled = zero_filled(&temporary, len);
        filled.and_then(|file| Self::name(file, &temporary, folder, store, seq, len)).map_err(
            |source| {
                if let Err(err) = fs::remove_file(&temporary)
                    && err.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(file = %temporary.display(), %err, "cannot remove");
                }
                if source.kind() == io::ErrorKind::StorageFull {
                    LogError::DiskFull { path: folder.to_owned(), bytes: len }
                } else {
                    LogError::io("create", &Self::path_of(folder, seq))(source)
                }
            },
        )
    }

    /// Makes a segment from a file that is no longer needed.
    pub(crate) fn recycle(
        spare: &Path,
        folder: &Path,
        store: StoreId,
        seq: u64,
    ) -> Result<Self, LogError> {
        let file = OpenOptions::new().read(true).write(true).open(spare);
        file.and_then(|file| {
            let len = file.metadata()?.len();
            Self::name(file, spare, folder, store, seq, len)
        })
        .map_err(LogError::io("recycle", spare))
    }

    /// Writes the header, then gives the file its name: a file named like a segment has its header.
    fn name(
        file: File,
        from: &Path,
        folder: &Path,
        store: StoreId,
        seq: u64,
        len: u64,
    ) -> io::Result<Self> {
        let path = Self::path_of(folder, seq);
        let (page, seed) = header(store, seq, len);
        file.write_all_at(&page, 0)?;
        file.sync_all()?;
        fs::rename(from, &path)?;
        sync_folder(folder)?;
        Ok(Self { seq, path, file, len, seed })
    }

    /// Opens an existing segment and checks its header.
    pub(crate) fn open(path: &Path, store: StoreId, seq: u64) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(LogError::io("open", path))?;
        let len = file.metadata().map_err(LogError::io("read", path))?.len();
        let mut page = [0; PAGE_LEN];
        match file.read_exact_at(&mut page, 0) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(err) => return Err(LogError::io("read", path)(err)),
        }
        let (expected, seed) = header(store, seq, len);
        if page != expected {
            return Err(explain_header(path, store, seq, len, &page));
        }
        Ok(Self { seq, path: path.to_owned(), file, len, seed })
    }
}

/// Why the first page is not the expected one.
fn explain_header(path: &Path, expected: StoreId, seq: u64, len: u64, page: &[u8]) -> LogError {
    let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
    let format = u32::from_le_bytes(page[8..12].try_into().expect("four bytes"));
    let found = StoreId(u64_at(16));
    // Every format keeps these fields and their checksum.
    let is_header =
        page[..8] == MAGIC && page[40..44] == crc32fast::hash(&page[..40]).to_le_bytes();
    if is_header && format > FORMAT {
        return LogError::Format { path: path.to_owned(), found: format, known: FORMAT };
    }
    if header(found, seq, len).0 == page {
        return LogError::Foreign { path: path.to_owned(), expected, found };
    }
    LogError::Corrupt {
        path: path.to_owned(),
        offset: 0,
        after: Zxid::ZERO,
        problem: Problem::SegmentHeader,
    }
}

fn header(store: StoreId, seq: u64, len: u64) -> ([u8; PAGE_LEN], u32) {
    let mut page = [0; PAGE_LEN];
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    page[16..24].copy_from_slice(&store.0.to_le_bytes());
    page[24..32].copy_from_slice(&seq.to_le_bytes());
    page[32..40].copy_from_slice(&len.to_le_bytes());
    let seed = crc32fast::hash(&page[..40]);
    page[40..44].copy_from_slice(&seed.to_le_bytes());
    (page, seed)
}

fn zero_filled(path: &Path, len: u64) -> io::Result<File> {
    // A full disk is found out about before anything is written, and without filling it further.
    if free_bytes(path.parent().unwrap_or(path))? < len {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    let zeros = vec![0; FILL_STEP];
    let mut at = 0;
    while at < len {
        let step = (FILL_STEP as u64).min(len - at);
        file.write_all_at(&zeros[..in_memory(step)], at)?;
        file.sync_data()?;
        at += step;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId(7);

    #[test]
    fn seeds_differ_between_segments_and_stores() {
        let mut seeds: Vec<u32> = (1..1000).map(|seq| header(STORE, seq, 4096).1).collect();
        seeds.push(header(StoreId(8), 1, 4096).1);
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), count);
    }

    #[test]
    fn a_segment_is_recognized_and_anything_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let made = Segment::create(folder.path(), STORE, 0x1f, 3 * PAGE).unwrap();
        assert_eq!(Segment::seq_of(&made.path), Some(0x1f));
        let opened = Segment::open(&made.path, STORE, 0x1f).unwrap();
        assert_eq!((opened.seed, opened.len), (made.seed, 3 * PAGE));

        let open = |store, seq| Segment::open(&made.path, store, seq).unwrap_err();
        assert!(matches!(open(StoreId(8), 0x1f), LogError::Foreign { found: STORE, .. }));
        assert!(matches!(open(STORE, 0x20), LogError::Corrupt { offset: 0, .. }));
        let mut later = header(STORE, 0x1f, 3 * PAGE).0;
        later[8] = 2;
        let checksum = crc32fast::hash(&later[..40]);
        later[40..44].copy_from_slice(&checksum.to_le_bytes());
        made.file.write_all_at(&later, 0).unwrap();
        assert!(matches!(open(STORE, 0x1f), LogError::Format { found: 2, .. }));
        made.file.write_all_at(&header(STORE, 0x1f, 3 * PAGE).0, 0).unwrap();
        made.file.set_len(2 * PAGE).unwrap();
        assert!(matches!(open(STORE, 0x1f), LogError::Corrupt { offset: 0, .. }));
        made.file.set_len(10).unwrap();
        assert!(matches!(open(STORE, 0x1f), LogError::Corrupt { offset: 0, .. }));
    }

    #[test]
    fn a_recycled_segment_keeps_its_size_and_has_another_seed() {
        let folder = tempfile::tempdir().unwrap();
        let made = Segment::create(folder.path(), STORE, 1, 3 * PAGE).unwrap();
        let spare = folder.path().join("spare");
        fs::rename(&made.path, &spare).unwrap();
        let recycled = Segment::recycle(&spare, folder.path(), STORE, 2).unwrap();
        assert_eq!(recycled.len, made.len);
        assert_ne!(recycled.seed, made.seed);
        assert!(!spare.exists());
        assert_eq!(Segment::open(&recycled.path, STORE, 2).unwrap().seed, recycled.seed);
    }
}
