//! The log as a whole: what was appended comes back, whatever a crash or a disk did meanwhile.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small test values")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use zk_proto::{Epoch, Zxid};

use super::*;
use crate::identity::lock;

const STORE: StoreId = StoreId(0x5702e);

/// In memory where that is possible: these tests open thousands of logs, and none asks the disk.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn try_open(folder: &Path, segment_bytes: u64) -> Result<Log, LogError> {
    Log::open(lock(folder).unwrap(), STORE, LogConfig { segment_bytes, force_sync: true })
}

fn open(folder: &Path) -> Log {
    try_open(folder, 16 * PAGE).unwrap()
}

fn txn(zxid: i64, len: usize) -> Write {
    let payload: Vec<u8> = (0..len).map(|at| (zxid as usize * 31 + at * 7) as u8).collect();
    Write::Txn { zxid: Zxid(zxid), payload: payload.into() }
}

/// A snapshot, and the epoch that makes it count.
fn install(zxid: i64, staged: u64, epoch: i32) -> [Write; 2] {
    let install = Write::InstallSnapshot { zxid: Zxid(zxid), staged: StagedId(staged) };
    [install, Write::CurrentEpoch(Epoch(epoch))]
}

fn read(log: &Log, after: i64) -> Vec<Write> {
    let reader = log.handle().read_after(Zxid(after)).unwrap();
    reader.map(|txn| txn.map(|(zxid, payload)| Write::Txn { zxid, payload }).unwrap()).collect()
}

fn segments(folder: &Path) -> BTreeMap<u64, PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter_map(|path| Some((Segment::seq_of(&path)?, path))).collect()
}

/// SplitMix64.
struct Prng(u64);

impl Prng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[test]
fn what_was_appended_is_read_back_after_reopening() {
    let folder = folder();
    let mut log = open(folder.path());
    assert_eq!((log.last(), log.epochs()), (Zxid::ZERO, Epochs::default()));
    assert_eq!(read(&log, 0), []);
    log.append(&[]).unwrap();
    log.append(&[Write::AcceptedEpoch(Epoch(3)), txn(1, 0), txn(2, 300)]).unwrap();
    log.append(&[Write::CurrentEpoch(Epoch(2)), txn(5, 5000)]).unwrap();
    for _ in 0..3 {
        assert_eq!(log.last(), Zxid(5));
        let epochs = Epochs { accepted: Epoch(3), current: Epoch(2) };
        assert_eq!(log.epochs(), epochs);
        assert_eq!(log.handle().bounds(), (Zxid(0), Zxid(5)));
        assert_eq!(read(&log, 0), [txn(1, 0), txn(2, 300), txn(5, 5000)]);
        assert_eq!(read(&log, 2), [txn(5, 5000)]);
        assert_eq!(read(&log, 5), []);
        drop(log);
        log = open(folder.path());
    }
    log.append(&[txn(6, 1)]).unwrap();
    drop(log);
    assert_eq!(read(&open(folder.path()), 2), [txn(5, 5000), txn(6, 1)]);
}

#[test]
fn segments_are_prepared_recycled_and_never_change_size() {
    let folder = folder();
    let mut log = open(folder.path());
    let mut inodes = std::collections::BTreeSet::new();
    let mut zxid = 0;
    for round in 0..60 {
        let handle = log.handle();
        for _ in 0..20 {
            let batch: Vec<_> = (1..=10).map(|at| txn(zxid + at, 100)).collect();
            zxid += 10;
            log.append(&batch).unwrap();
            if log.needs_next() {
                handle.prepare_next().unwrap();
                assert!(!log.needs_next());
            }
        }
        handle.purge(Zxid(zxid - 100), 500).unwrap();
        let (begins, last) = handle.bounds();
        assert_eq!(last, Zxid(zxid));
        assert!(begins <= Zxid(zxid - 500) || begins == Zxid::ZERO, "{begins} {last}");
        assert!(zxid - begins.0 < 500 + 2 * 700, "purge keeps too much: {begins} {last}");
        for path in segments(folder.path()).values() {
            let metadata = fs::metadata(path).unwrap();
            assert_eq!(metadata.len(), 16 * PAGE);
            inodes.insert(metadata.ino());
        }
        if round % 7 == 0 {
            drop((log, handle));
            log = open(folder.path());
            let next = log.segment.seq + 1;
            assert_ne!(log.needs_next(), segments(folder.path()).contains_key(&next));
        }
        let expected: Vec<_> = (begins.0 + 1..=zxid).map(|zxid| txn(zxid, 100)).collect();
        assert_eq!(read(&log, begins.0), expected);
        // A reader that starts in the middle finds its place through the marks.
        assert_eq!(read(&log, zxid - 123), expected[expected.len() - 123..]);
    }
    let asked = log.handle().bounds().0.0 - 1;
    assert!(matches!(
        log.handle().read_after(Zxid(asked)).unwrap_err(),
        LogError::Purged { asked: a, .. } if a == Zxid(asked)
    ));
    assert!(inodes.len() < 12, "files are not recycled: {} of them", inodes.len());
}

#[test]
fn purge_keeps_what_the_state_does_not_have() {
    let folder = folder();
    let mut log = open(folder.path());
    for zxid in 1..=40 {
        log.append(&[txn(zxid, 8000)]).unwrap();
    }
    let handle = log.handle();
    assert_eq!(handle.purge(Zxid(0), 0).unwrap(), 0);
    assert!(handle.purge(Zxid(17), 0).unwrap() >= 1);
    let begins = handle.bounds().0;
    assert!(begins <= Zxid(17), "{begins}");
    assert_eq!(read(&log, 17).len(), 23);
    handle.purge(Zxid(40), 0).unwrap();
    assert_eq!(segments(folder.path()).len(), 1, "the segment being written stays");
    drop((log, handle));
    let log = open(folder.path());
    assert_eq!(log.last(), Zxid(40));
    assert_eq!(log.handle().bounds().1, Zxid(40));
}

#[test]
fn epochs_survive_the_purge_of_the_segment_that_held_them() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[Write::AcceptedEpoch(Epoch(7)), Write::CurrentEpoch(Epoch(6))]).unwrap();
    for zxid in 1..=30 {
        log.append(&[txn(zxid, 8000)]).unwrap();
    }
    assert!(log.handle().purge(Zxid(30), 0).unwrap() > 1);
    drop(log);
    assert_eq!(open(folder.path()).epochs(), Epochs { accepted: Epoch(7), current: Epoch(6) });
}

#[test]
fn a_reader_outlives_the_purge_and_reuse_of_what_it_reads() {
    let folder = folder();
    let mut log = open(folder.path());
    let handle = log.handle();
    for zxid in 1..=30 {
        log.append(&[txn(zxid, 8000)]).unwrap();
    }
    let reader = handle.read_after(Zxid::ZERO).unwrap();
    for zxid in 31..=100 {
        log.append(&[txn(zxid, 8000)]).unwrap();
        handle.purge(Zxid(zxid), 0).unwrap();
        handle.prepare_next().unwrap();
    }
    let zxids: Vec<_> = reader.map(|txn| txn.unwrap().0.0).collect();
    assert_eq!(zxids, (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[txn(1, 10)]).unwrap();
    log.handle().prepare_next().unwrap();
    log.append(&[txn(2, 100_000), txn(3, 100_000)]).unwrap();
    log.append(&[txn(4, 10)]).unwrap();
    drop(log);
    let log = open(folder.path());
    assert_eq!(read(&log, 0), [txn(1, 10), txn(2, 100_000), txn(3, 100_000), txn(4, 10)]);
}

#[test]
fn truncated_transactions_never_come_back() {
    let folder = folder();
    let mut log = open(folder.path());
    for zxid in 1..=30 {
        log.append(&[txn(zxid, 8000)]).unwrap();
    }
    log.append(&[Write::Truncate { zxid: Zxid(12) }]).unwrap();
    assert_eq!((log.last(), log.handle().bounds()), (Zxid(12), (Zxid(0), Zxid(12))));
    // The same zxid again, with other content; then a shorter truncation.
    log.append(&[txn(13, 7), txn(14, 7), Write::Truncate { zxid: Zxid(13) }, txn(20, 1)]).unwrap();
    for _ in 0..2 {
        let mut expected: Vec<_> = (1..=12).map(|zxid| txn(zxid, 8000)).collect();
        expected.extend([txn(13, 7), txn(20, 1)]);
        assert_eq!(log.last(), Zxid(20));
        for after in 0..=20 {
            let expected: Vec<_> = expected
                .iter()
                .filter(|write| matches!(write, Write::Txn { zxid, .. } if zxid.0 > after))
                .cloned()
                .collect();
            assert_eq!(read(&log, after), expected, "after {after}");
        }
        drop(log);
        log = open(folder.path());
    }
    // Segments that hold only void transactions above the applied zxid stay.
    assert_eq!(log.handle().purge(Zxid(20), 0).unwrap(), 2);
}

#[test]
#[should_panic(expected = "zxid 0x3 is appended after 0x3")]
fn a_zxid_that_does_not_rise_is_refused() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[txn(3, 1), txn(3, 1)]).unwrap();
}

#[test]
#[should_panic(expected = "the accepted epoch went back")]
fn an_epoch_that_goes_back_is_refused() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[Write::AcceptedEpoch(Epoch(2)), Write::AcceptedEpoch(Epoch(1))]).unwrap();
}

#[test]
fn a_full_disk_refuses_the_batch_and_leaves_the_log_usable() {
    let folder = folder();
    let mut log = open(folder.path());
    Arc::get_mut(&mut log.handle.shared).unwrap().segment_bytes = 1 << 50;
    log.append(&[txn(1, 60_000 - 200)]).unwrap();
    for _ in 0..2 {
        let err = log.append(&[txn(2, 8000)]).unwrap_err();
        assert!(matches!(err, LogError::DiskFull { bytes, .. } if bytes == 1 << 50), "{err}");
        assert!(!err.is_fatal());
    }
    assert!(matches!(log.handle().prepare_next(), Err(LogError::DiskFull { .. })));
    log.append(&[txn(2, 100)]).unwrap();
    Arc::get_mut(&mut log.handle.shared).unwrap().segment_bytes = 16 * PAGE;
    log.append(&[txn(3, 8000)]).unwrap();
    drop(log);
    let log = open(folder.path());
    assert_eq!(read(&log, 0), [txn(1, 60_000 - 200), txn(2, 100), txn(3, 8000)]);
    assert!(!folder.path().join("new.tmp").exists());
}

#[test]
fn without_forced_syncs_a_closed_log_is_whole() {
    let folder = folder();
    let config = LogConfig { segment_bytes: 16 * PAGE, force_sync: false };
    let mut log = Log::open(lock(folder.path()).unwrap(), STORE, config).unwrap();
    for zxid in 1..=100 {
        log.append(&[txn(zxid, 1000)]).unwrap();
    }
    drop(log);
    assert_eq!(read(&open(folder.path()), 0).len(), 100);
}

/// A log of three batches in its second segment, and the watermark as it was before the last one.
struct Sample {
    folder: TempDir,
    segment: PathBuf,
    content: Vec<u8>,
    watermark_before: Vec<u8>,
    watermark: Vec<u8>,
    /// Where each record of the second segment starts, and where the last one ends.
    offsets: Vec<u64>,
    /// Where the last batch starts.
    last_batch: u64,
}

impl Sample {
    fn new() -> Self {
        let folder = folder();
        let mut log = open(folder.path());
        log.append(&[txn(1, 60_000)]).unwrap();
        log.append(&[txn(2, 1500)]).unwrap();
        let mut offsets = vec![RECORDS_AT];
        offsets.push(RECORDS_AT + START_LEN);
        offsets.push(log.end);
        let batches = [[txn(3, 90), txn(4, 0)], [txn(5, 13), txn(6, 200)]];
        let (mut watermark_before, mut last_batch) = (Vec::new(), 0);
        for batch in &batches {
            log.note_watermark().unwrap();
            watermark_before = fs::read(folder.path().join("watermark")).unwrap();
            last_batch = log.end;
            log.append(batch).unwrap();
            offsets.push(last_batch + record_len(batch[0].payload_len()) as u64);
            offsets.push(log.end);
        }
        drop(log);
        let segment = segments(folder.path()).into_values().nth(1).unwrap();
        let content = fs::read(&segment).unwrap();
        let watermark = fs::read(folder.path().join("watermark")).unwrap();
        Self { folder, segment, content, watermark_before, watermark, offsets, last_batch }
    }

    fn end(&self) -> u64 {
        *self.offsets.last().unwrap()
    }

    /// Opens the log with the segment and the watermark as given.
    fn open_with(&self, content: &[u8], watermark: &[u8]) -> Result<Log, LogError> {
        fs::write(&self.segment, content).unwrap();
        fs::write(self.folder.path().join("watermark"), watermark).unwrap();
        try_open(self.folder.path(), 16 * PAGE)
    }

    /// The record that byte `at` belongs to: its index and offset.
    fn record_at(&self, at: u64) -> (usize, u64) {
        let index = self.offsets.partition_point(|&offset| offset <= at) - 1;
        (index, self.offsets[index])
    }
}

#[test]
fn a_flipped_bit_in_acknowledged_data_is_named() {
    let sample = Sample::new();
    for at in 0..sample.end() {
        let mut content = sample.content.clone();
        content[at as usize] ^= 1 << (at % 8);
        let opened = sample.open_with(&content, &sample.watermark);
        // Only the first page's unused part holds nothing.
        let expected = if at < RECORDS_AT { 0 } else { sample.record_at(at).1 };
        let Err(LogError::Corrupt { path, offset, .. }) = opened else {
            panic!("byte {at}: {opened:?}");
        };
        assert_eq!((path, offset), (sample.segment.clone(), expected), "byte {at}");
    }
    // Behind the end there is nothing to lose.
    for at in sample.end()..sample.end() + 500 {
        let mut content = sample.content.clone();
        content[at as usize] ^= 1 << (at % 8);
        let log = sample.open_with(&content, &sample.watermark).unwrap();
        assert_eq!(log.last(), Zxid(6), "byte {at}");
    }
}

#[test]
fn the_error_says_where_and_what_to_do() {
    let sample = Sample::new();
    let mut content = sample.content.clone();
    content[sample.offsets[4] as usize + 25] ^= 1;
    let err = sample.open_with(&content, &sample.watermark).unwrap_err();
    let text = err.to_string();
    let offset = format!("at byte {}", sample.offsets[4]);
    for part in ["0000000000000002.log", &offset, "zxid 0x4", "expected checksum", "backup"] {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn a_bad_record_in_the_last_batch_is_torn_unless_the_watermark_says_otherwise() {
    let sample = Sample::new();
    let no_watermark = Vec::new();
    for (at, watermark) in (RECORDS_AT..sample.end())
        .flat_map(|at| [(at, &sample.watermark_before), (at, &no_watermark)])
    {
        let mut content = sample.content.clone();
        content[at as usize] ^= 1 << (at % 8);
        let opened = sample.open_with(&content, watermark);
        if at < sample.last_batch {
            assert!(matches!(opened, Err(LogError::Corrupt { .. })), "byte {at}: {opened:?}");
        } else {
            // Records 0 and 1 are the start and zxid 2.
            let (index, offset) = sample.record_at(at);
            let mut log = opened.unwrap();
            assert_eq!((log.last(), log.end), (Zxid(index as i64), offset), "byte {at}");
            // The same again is not continued by what the torn write left behind it.
            let again = if index == 4 { txn(5, 13) } else { txn(6, 200) };
            log.append(std::slice::from_ref(&again)).unwrap();
            drop(log);
            assert_eq!(read(&open(sample.folder.path()), index as i64), [again], "byte {at}");
        }
    }
}

#[test]
fn what_a_torn_write_left_behind_the_end_is_never_read_as_its_continuation() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[txn(1, 100)]).unwrap();
    // Its record ends with a page, where an append does not overwrite what follows.
    let (bad, len) = (log.end, 2 * PAGE - log.end - record_len(0) as u64);
    let again = txn(2, len as usize);
    log.append(&[again.clone(), txn(3, 10)]).unwrap();
    assert_eq!(log.end, 2 * PAGE + record_len(10) as u64);
    let path = log.segment.path.clone();
    drop(log);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"torn", bad).unwrap();
    fs::remove_file(folder.path().join("watermark")).unwrap();

    let mut log = open(folder.path());
    assert_eq!(log.last(), Zxid(1));
    log.append(std::slice::from_ref(&again)).unwrap();
    drop(log);
    assert_eq!(read(&open(folder.path()), 1), [again]);
}

#[test]
fn two_torn_writes_at_one_place_do_not_make_a_whole_one() {
    let folder = folder();
    let mut log = open(folder.path());
    // The record of the next opening begins eight bytes before a sector ends: these are the same
    // whatever the opening.
    let len = 3 * 512 - 8 - START_LEN as usize - record_len(0);
    log.append(&[txn(1, len)]).unwrap();
    let (path, end) = (log.segment.path.clone(), log.end);
    assert_eq!(end % 512, 504);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sector = |at: u64| {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, at / 512 * 512).unwrap();
        bytes
    };
    let before = sector(end);
    drop(log);
    log = open(folder.path());
    log.append(&[txn(2, 10)]).unwrap();
    drop(log);
    let torn = |bytes: &[u8], at: u64| {
        file.write_all_at(bytes, at / 512 * 512).unwrap();
        fs::remove_file(folder.path().join("watermark")).unwrap();
    };
    // Only its second sector was written.
    torn(&before, end);
    log = open(folder.path());
    assert_eq!(log.last(), Zxid(1));
    let behind = sector(end + 8);
    log.append(&[txn(3, 10)]).unwrap();
    drop(log);
    // And now only the first.
    torn(&behind, end + 8);
    assert_eq!(open(folder.path()).last(), Zxid(1));
}

#[test]
fn whole_records_that_do_not_continue_each_other_are_refused() {
    let start = Start {
        previous_end: 0,
        previous_checksum: 0,
        accepted_epoch: 2,
        current_epoch: 1,
        nonce: 1,
    };
    let start_bytes = |start: Start| start.to_bytes().to_vec();
    let first = (Kind::Start, 4, start_bytes(start));
    let end = RECORDS_AT + START_LEN;
    let checksum = {
        let folder = folder();
        let bytes = write_raw(folder.path(), std::slice::from_ref(&first));
        last_checksum(&bytes)
    };
    let second = Start { previous_end: end, previous_checksum: checksum, ..start };
    let empty = Vec::new;
    let cases = [
        (true, (Kind::Txn, 5, empty())),
        (false, (Kind::Txn, 4, empty())),
        (true, (Kind::Truncate, 4, empty())),
        (false, (Kind::Truncate, 5, empty())),
        (true, (Kind::Install, 5, StagedId(3).to_bytes().to_vec())),
        (true, (Kind::Install, 3, StagedId(3).to_bytes().to_vec())),
        (false, (Kind::Install, 4, vec![0; 8])),
        (false, (Kind::Install, 4, vec![1; 7])),
        (true, (Kind::AcceptedEpoch, 2, empty())),
        (false, (Kind::AcceptedEpoch, 1, empty())),
        (false, (Kind::AcceptedEpoch, 1 << 40, empty())),
        (true, (Kind::CurrentEpoch, 1, empty())),
        (false, (Kind::CurrentEpoch, 0, empty())),
        (true, (Kind::Start, 4, start_bytes(second))),
        (false, (Kind::Start, 5, start_bytes(second))),
        (false, (Kind::Start, 4, empty())),
        (false, (Kind::Start, 4, start_bytes(Start { previous_end: 0, ..second }))),
        (false, (Kind::Start, 4, start_bytes(Start { previous_checksum: 0, ..second }))),
        (false, (Kind::Start, 4, start_bytes(Start { accepted_epoch: 3, ..second }))),
        (false, (Kind::Start, 4, start_bytes(Start { current_epoch: 0, ..second }))),
    ];
    for (continues, record) in cases {
        let folder = folder();
        write_raw(folder.path(), &[first.clone(), record.clone()]);
        match try_open(folder.path(), 16 * PAGE) {
            Ok(_) => assert!(continues, "{record:?}"),
            Err(LogError::Corrupt { offset, problem: Problem::Unconnected, .. }) => {
                assert!(!continues && offset == end, "{record:?}");
            }
            Err(err) => panic!("{record:?}: {err}"),
        }
    }
}

/// Makes a log of one segment with these records, and returns what was written behind its header.
fn write_raw(folder: &Path, records: &[(Kind, i64, Vec<u8>)]) -> Vec<u8> {
    let segment = Segment::create(folder, STORE, 1, 16 * PAGE).unwrap();
    let mut bytes = vec![0; CHECKSUM_LEN];
    for (kind, zxid, payload) in records {
        record::encode(&mut bytes, segment.seed, *kind, *zxid, 4096, payload);
    }
    segment.file.write_all_at(&bytes[CHECKSUM_LEN..], RECORDS_AT).unwrap();
    bytes
}

#[test]
fn a_reader_starts_near_its_place() {
    let folder = folder();
    let mut log = try_open(folder.path(), 1024 * PAGE).unwrap();
    for zxid in 1..=100 {
        log.append(&[txn(zxid, 20_000)]).unwrap();
    }
    for _ in 0..2 {
        for after in [0, 1, 50, 99, 100] {
            let expected: Vec<_> = (after + 1..=100).map(|zxid| txn(zxid, 20_000)).collect();
            assert_eq!(read(&log, after), expected);
        }
        let mut reader = log.handle().read_after(Zxid(80)).unwrap();
        let (_, from, to) = reader.rest.next().unwrap();
        let place = RECORDS_AT + START_LEN + 80 * record_len(20_000) as u64;
        assert!((place - MARK_EVERY_BYTES - 20_100..=place).contains(&from) && to == log.end);
        drop((log, reader));
        log = try_open(folder.path(), 1024 * PAGE).unwrap();
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_appended() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[txn(1, 1)]).unwrap();
    let Segment { seq, len, seed, ref path, .. } = *log.segment;
    // A file that cannot be written stands for a disk that fails.
    let (path, file) = (path.clone(), fs::File::open(path).unwrap());
    log.segment = Arc::new(Segment { seq, path, file, len, seed });
    let err = log.append(&[txn(2, 1)]).unwrap_err();
    assert!(err.is_fatal() && matches!(err, LogError::Io { op: "write", .. }), "{err}");
    let again = std::panic::AssertUnwindSafe(|| log.append(&[txn(2, 1)]));
    assert!(std::panic::catch_unwind(again).is_err());
    drop(log);
    assert_eq!(open(folder.path()).last(), Zxid(1));
}

#[test]
fn a_shortened_or_missing_segment_is_named() {
    let sample = Sample::new();
    for len in [0, 10, PAGE, sample.content.len() as u64 - 1] {
        let opened = sample.open_with(&sample.content[..len as usize], &sample.watermark);
        assert!(matches!(opened, Err(LogError::Corrupt { offset: 0, .. })), "{len}: {opened:?}");
    }
    fs::remove_file(&sample.segment).unwrap();
    let opened = try_open(sample.folder.path(), 16 * PAGE);
    assert!(matches!(&opened, Err(LogError::MissingSegment { path }) if *path == sample.segment));

    let sample = Sample::new();
    let first = Segment::path_of(sample.folder.path(), 1);
    fs::remove_file(&first).unwrap();
    // That the log begins later is for whoever knows what is applied to judge.
    let log = sample.open_with(&sample.content, &sample.watermark).unwrap();
    assert_eq!(log.handle().bounds(), (Zxid(1), Zxid(6)));
    drop(log);
    // With nothing left in it, it is no new log either.
    let mut content = sample.content.clone();
    content[RECORDS_AT as usize..].fill(0);
    let opened = sample.open_with(&content, &[]);
    assert!(matches!(opened, Err(LogError::Corrupt { offset: RECORDS_AT, .. })), "{opened:?}");
    let watermark = sample.folder.path().join("watermark");
    fs::write(watermark, &sample.watermark).unwrap();
    fs::remove_file(&sample.segment).unwrap();
    let opened = try_open(sample.folder.path(), 16 * PAGE);
    assert!(matches!(opened, Err(LogError::MissingSegment { .. })), "{opened:?}");
}

#[test]
fn a_gap_between_segments_is_named() {
    let folder = folder();
    let mut log = open(folder.path());
    for zxid in 1..=30 {
        log.append(&[txn(zxid, 8000)]).unwrap();
    }
    drop(log);
    let path = Segment::path_of(folder.path(), 2);
    fs::remove_file(&path).unwrap();
    let err = try_open(folder.path(), 16 * PAGE).unwrap_err();
    assert!(
        matches!(&err, LogError::MissingSegment { path: missing } if *missing == path),
        "{err}"
    );
}

#[test]
fn a_damaged_first_record_of_the_last_segment_is_not_taken_for_an_unused_one() {
    let sample = Sample::new();
    let mut content = sample.content.clone();
    content[RECORDS_AT as usize + 3] ^= 1;
    // Known through the watermark, through later records, and through a prepared segment behind.
    for watermark in [&sample.watermark, &sample.watermark_before, &Vec::new()] {
        let opened = sample.open_with(&content, watermark);
        assert!(matches!(opened, Err(LogError::Corrupt { offset: RECORDS_AT, .. })), "{opened:?}");
    }
    content[sample.offsets[2] as usize..].fill(0);
    assert_eq!(sample.open_with(&content, &[]).unwrap().last(), Zxid(1), "a torn first batch");
    let opened = sample.open_with(&content, &sample.watermark);
    assert!(matches!(opened, Err(LogError::Corrupt { offset: RECORDS_AT, .. })), "{opened:?}");
    Segment::create(sample.folder.path(), STORE, 3, 16 * PAGE).unwrap();
    let opened = sample.open_with(&content, &[]);
    assert!(matches!(opened, Err(LogError::Corrupt { offset: RECORDS_AT, .. })), "{opened:?}");
}

#[test]
fn a_range_ends_where_it_should_whatever_comes_later() {
    let folder = folder();
    let mut log = open(folder.path());
    let handle = log.handle();
    for zxid in 1..=30 {
        log.append(&[txn(zxid * 10, 8000)]).unwrap();
    }
    let reader = |after, to| handle.read_range(Zxid(after), Zxid(to)).unwrap();
    let zxids = |reader: Reader| reader.map(|txn| txn.unwrap().0.0).collect::<Vec<_>>();
    assert_eq!(zxids(reader(0, 300)), (1..=30).map(|zxid| zxid * 10).collect::<Vec<_>>());
    assert_eq!(zxids(reader(50, 80)), [60, 70, 80]);
    assert_eq!(zxids(reader(55, 89)), [60, 70, 80]);
    assert_eq!(zxids(reader(80, 80)), []);
    assert_eq!(zxids(reader(90, 80)), []);
    assert_eq!(zxids(reader(300, 400)), []);
    let early = reader(100, 250);
    for zxid in 31..=60 {
        log.append(&[txn(zxid * 10, 8000)]).unwrap();
        handle.purge(Zxid(zxid * 10), 0).unwrap();
        handle.prepare_next().unwrap();
    }
    assert_eq!(zxids(early), (11..=25).map(|zxid| zxid * 10).collect::<Vec<_>>());
    let purged = handle.read_range(Zxid(100), Zxid(250)).unwrap_err();
    assert!(matches!(purged, LogError::Purged { asked: Zxid(100), .. }), "{purged}");
    assert_eq!(handle.floor(Zxid(100)).unwrap(), None);
}

#[test]
fn a_floor_reads_no_more_than_a_span() {
    let folder = folder();
    let mut log = try_open(folder.path(), 256 * PAGE).unwrap();
    for batch in 0..100 {
        // Larger than a span, as one batch.
        let batch: Vec<_> = (1..=20).map(|at| txn(batch * 100 + at, 900)).collect();
        log.append(&batch).unwrap();
    }
    for _ in 0..2 {
        let handle = log.handle();
        for zxid in [0, 1, 20, 50, 5010, 5020, 5099, 9919, 9920] {
            let (_, reader) = handle.shared.inner().index.span(Zxid(zxid));
            let len: u64 = reader.rest.map(|(_, from, to)| to - from).sum();
            assert!(len <= MARK_EVERY_BYTES + 2000, "{len} bytes for {zxid}");
            let expected = zxid.min(zxid / 100 * 100 + 20);
            assert_eq!(handle.floor(Zxid(zxid)).unwrap(), Some(Zxid(expected)));
        }
        drop((log, handle));
        log = try_open(folder.path(), 256 * PAGE).unwrap();
    }
}

#[test]
fn a_truncation_leads_to_what_is_there() {
    let folder = folder();
    let mut log = open(folder.path());
    log.append(&[txn(10, 1), txn(20, 1), txn(30, 1)]).unwrap();
    log.append(&[Write::Truncate { zxid: Zxid(25) }]).unwrap();
    assert_eq!(log.last(), Zxid(20));
    log.append(&[txn(40, 1), txn(50, 1), Write::Truncate { zxid: Zxid(45) }]).unwrap();
    assert_eq!(log.last(), Zxid(40));
    log.append(&[txn(60, 1), Write::Truncate { zxid: Zxid(39) }, txn(41, 1)]).unwrap();
    // What the first one of a batch voids is not where the second one leads.
    let first = Write::Truncate { zxid: Zxid(20) };
    log.append(&[first, txn(45, 1), Write::Truncate { zxid: Zxid(42) }, txn(43, 1)]).unwrap();
    assert_eq!(read(&log, 0), [txn(10, 1), txn(20, 1), txn(43, 1)]);
    log.append(&[Write::Truncate { zxid: Zxid(5) }]).unwrap();
    assert_eq!(log.last(), Zxid(0));
    drop(log);
    assert_eq!(open(folder.path()).last(), Zxid(0));
}

#[test]
fn a_truncation_below_the_state_is_refused() {
    let folder = folder();
    let mut log = open(folder.path());
    let applied = Arc::new(AtomicI64::new(0));
    log.attach(Arc::clone(&applied), None);
    log.append(&[txn(10, 1), txn(20, 1), txn(30, 1)]).unwrap();
    applied.store(20, Ordering::Release);
    let batch = [txn(40, 1), Write::Truncate { zxid: Zxid(19) }];
    let err = log.append(&batch).unwrap_err();
    assert!(matches!(err, LogError::BelowState { zxid: Zxid(19), applied: Zxid(20), .. }), "{err}");
    assert!(err.is_fatal() && err.to_string().contains("zxid 0x13"), "{err}");
    drop(log);
    let mut log = open(folder.path());
    log.attach(applied, None);
    assert_eq!(log.last(), Zxid(30), "nothing of the batch was written");
    log.append(&[Write::Truncate { zxid: Zxid(20) }]).unwrap();
    // Behind a snapshot, what it is of is the limit.
    let [install, epoch] = install(12, 1, 0);
    let truncate = Write::Truncate { zxid: Zxid(14) };
    log.append(&[install, txn(14, 1), txn(15, 1), truncate, epoch]).unwrap();
    log.append(&[Write::Truncate { zxid: Zxid(12) }]).unwrap();
    assert_eq!((log.last(), log.handle().bounds()), (Zxid(12), (Zxid(12), Zxid(12))));
    let err = log.append(&[Write::Truncate { zxid: Zxid(11) }]).unwrap_err();
    assert!(matches!(err, LogError::BelowState { applied: Zxid(12), .. }), "{err}");
}

#[test]
fn a_snapshot_voids_everything_before_it() {
    for zxid in [0, 15, 30, 100] {
        let folder = folder();
        let mut log = open(folder.path());
        log.append(&[Write::AcceptedEpoch(Epoch(3)), Write::CurrentEpoch(Epoch(2))]).unwrap();
        for zxid in 1..=30 {
            log.append(&[txn(zxid, 8000)]).unwrap();
        }
        let old = log.handle().read_after(Zxid(4)).unwrap();
        let (staged, used) = (StagedId(7), segments(folder.path()).len());
        log.append(&install(zxid, staged.0, 2)).unwrap();
        assert_eq!(log.handle().bounds(), (Zxid(zxid), Zxid(zxid)));
        log.append(&[txn(zxid + 2, 10)]).unwrap();
        for purge in [false, true] {
            drop(log);
            log = open(folder.path());
            let handle = log.handle();
            assert_eq!(log.epochs(), Epochs { accepted: Epoch(3), current: Epoch(2) });
            assert_eq!(handle.bounds(), (Zxid(zxid), Zxid(zxid + 2)));
            assert_eq!(
                handle.install().map(|found| (found.zxid, found.staged)),
                Some((Zxid(zxid), staged))
            );
            assert_eq!(read(&log, zxid), [txn(zxid + 2, 10)]);
            assert_eq!(handle.floor(Zxid(zxid + 1)).unwrap(), Some(Zxid(zxid)));
            if zxid > 0 {
                assert_eq!(handle.floor(Zxid(zxid - 1)).unwrap(), None);
                assert!(matches!(handle.read_after(Zxid(zxid - 1)), Err(LogError::Purged { .. })));
            }
            if !purge {
                // However much is to be kept, and whatever the state has.
                assert_eq!(handle.purge(Zxid(0), 1000).unwrap(), used - 1);
            }
        }
        // Who reads what was there before goes on.
        assert_eq!(
            old.map(|txn| txn.unwrap().0.0).collect::<Vec<_>>(),
            (5..=30).collect::<Vec<_>>()
        );
        // With the segment that says so, the log forgets where it came from.
        for step in 0..20 {
            log.append(&[txn(zxid + 3 + step, 8000)]).unwrap();
        }
        log.handle().purge(Zxid(zxid + 22), 0).unwrap();
        assert!(log.handle().install().is_none() && log.handle().bounds().0 > Zxid(zxid));
        drop(log);
        let log = open(folder.path());
        assert!(log.handle().install().is_none());
        assert_eq!(log.last(), Zxid(zxid + 22));
    }
}

#[test]
fn without_forced_syncs_a_snapshot_is_durable_all_the_same() {
    let folder = folder();
    let config = LogConfig { segment_bytes: 16 * PAGE, force_sync: false };
    let mut log = Log::open(lock(folder.path()).unwrap(), STORE, config).unwrap();
    log.append(&[txn(1, 1)]).unwrap();
    log.append(&[txn(2, 1)]).unwrap();
    assert!(log.durable_end < log.end);
    log.append(&install(9, 1, 0)).unwrap();
    assert_eq!(log.durable_end, log.end);
}

#[test]
#[should_panic(expected = "without the current epoch")]
fn a_snapshot_without_an_epoch_behind_it_is_refused() {
    let folder = folder();
    let [install, epoch] = install(9, 1, 1);
    open(folder.path()).append(&[epoch, install, txn(10, 1)]).unwrap();
}

/// Writes the batch behind what is there, of which only the first `kept` records reach the disk.
fn append_torn(folder: &Path, batch: &[Write], kept: usize) {
    let mut log = open(folder);
    let before = contents(folder);
    log.append(batch).unwrap();
    let segment = log.segment.path.clone();
    let lost: usize = batch[kept..].iter().map(|write| record_len(write.payload_len())).sum();
    let from = in_memory(log.end) - lost;
    drop(log);
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    let old = before.get(&segment).map_or(&[][..], Vec::as_slice);
    let now = fs::read(&segment).unwrap();
    let lost: Vec<u8> = (from..now.len()).map(|at| old.get(at).copied().unwrap_or(0)).collect();
    file.write_all_at(&lost, from as u64).unwrap();
    fs::write(folder.join("watermark"), &before[&folder.join("watermark")]).unwrap();
}

#[test]
fn a_torn_switch_to_a_snapshot_has_not_happened() {
    // In the segment of what was before, and in a new one; and behind another snapshot.
    for (fill, earlier) in [(10, false), (50_000, false), (10, true), (50_000, true)] {
        for zxid in [0, 12, 100] {
            let [install_it, current] = install(zxid, 7, 5);
            let batch = [
                Write::AcceptedEpoch(Epoch(5)),
                install_it,
                txn(zxid + 1, fill),
                Write::Truncate { zxid: Zxid(zxid) },
                txn(zxid + 2, 10),
                current,
                txn(zxid + 3, 10),
            ];
            for kept in 0..=batch.len() {
                let context = format!("{kept} records of {batch:?}");
                let folder = folder();
                let mut log = open(folder.path());
                log.append(&[Write::AcceptedEpoch(Epoch(3)), Write::CurrentEpoch(Epoch(2))])
                    .unwrap();
                if earlier {
                    log.append(&install(9, 6, 3)).unwrap();
                }
                for zxid in 10..=14 {
                    log.append(&[txn(zxid, 3000)]).unwrap();
                }
                let before = (log.handle().bounds(), log.epochs(), read(&log, 9));
                drop(log);
                append_torn(folder.path(), &batch, kept);
                // A recovery leaves it as it found it.
                for _ in 0..2 {
                    let log = open(folder.path());
                    let handle = log.handle();
                    let installed = handle.install().map(|install| install.staged);
                    if kept < 6 {
                        let (bounds, mut epochs, txns) = before.clone();
                        // What stands in front of the snapshot counts for itself.
                        epochs.accepted = Epoch(if kept == 0 { 3 } else { 5 });
                        assert_eq!((handle.bounds(), log.epochs()), (bounds, epochs), "{context}");
                        assert_eq!(read(&log, 9), txns, "{context}");
                        assert_eq!(handle.floor(Zxid(13)).unwrap(), Some(Zxid(13)), "{context}");
                        assert_eq!(installed, earlier.then_some(StagedId(6)), "{context}");
                    } else {
                        let last = zxid + if kept == 6 { 2 } else { 3 };
                        let both = Epochs { accepted: Epoch(5), current: Epoch(5) };
                        assert_eq!(handle.bounds(), (Zxid(zxid), Zxid(last)), "{context}");
                        assert_eq!((log.epochs(), installed), (both, Some(StagedId(7))));
                    }
                }
                // And it goes on, in place of what was cut.
                let mut log = open(folder.path());
                let last = log.last().0;
                let next = [txn(last + 1, 5), txn(last + 2, 900)];
                log.append(&next).unwrap();
                let mut expected = read(&log, log.handle().bounds().0.0);
                for at in 3..60 {
                    drop(log);
                    log = open(folder.path());
                    assert_eq!(read(&log, log.handle().bounds().0.0), expected, "{context}");
                    // Over every place where a record of the torn batch stands.
                    expected.push(txn(last + at, 8 * (at as usize % 5)));
                    log.append(&expected[expected.len() - 1..]).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_snapshot_that_was_acknowledged_and_lacks_its_epoch_is_damage() {
    let whole = [install(9, 6, 3).to_vec(), vec![txn(10, 5)]].concat();
    for (noted, behind) in [(true, false), (false, true)] {
        let folder = folder();
        let mut log = open(folder.path());
        log.append(&[txn(1, 5)]).unwrap();
        log.note_watermark().unwrap();
        let (at, watermark) = (log.end, fs::read(folder.path().join("watermark")).unwrap());
        log.append(&whole).unwrap();
        // It does not wait for its time.
        let noted_now = fs::read(folder.path().join("watermark")).unwrap();
        let bad = at + record_len(StagedId::LEN) as u64;
        if behind {
            log.append(&[txn(11, 5)]).unwrap();
        }
        let segment = log.segment.path.clone();
        drop(log);
        let watermark = if noted { noted_now } else { watermark };
        fs::write(folder.path().join("watermark"), watermark).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
        file.write_all_at(&[0xff], bad + 4).unwrap();
        let err = try_open(folder.path(), 16 * PAGE).unwrap_err();
        assert!(matches!(err, LogError::Corrupt { offset, .. } if offset == bad), "{err}");
    }
    // Whole records that no writer leaves.
    let start = Start {
        previous_end: 0,
        previous_checksum: 0,
        accepted_epoch: 2,
        current_epoch: 1,
        nonce: 1,
    };
    let records = [
        (Kind::Start, 4, start.to_bytes().to_vec()),
        (Kind::Install, 3, StagedId(3).to_bytes().to_vec()),
    ];
    let at = RECORDS_AT + START_LEN;
    let end = at + record_len(StagedId::LEN) as u64;
    let checksum = {
        let folder = folder();
        last_checksum(&write_raw(folder.path(), &records))
    };
    let second = Start { previous_end: end, previous_checksum: checksum, ..start };
    for (record, offset) in [
        ((Kind::Start, 3, second.to_bytes().to_vec()), Some(end)),
        ((Kind::CurrentEpoch, 1, Vec::new()), None),
    ] {
        let folder = folder();
        write_raw(folder.path(), &[&records[..], &[record]].concat());
        match (try_open(folder.path(), 16 * PAGE), offset) {
            (Ok(log), None) => assert_eq!(log.last(), Zxid(3)),
            (
                Err(LogError::Corrupt { offset, problem: Problem::Unconnected, .. }),
                Some(expected),
            ) => {
                assert_eq!(offset, expected);
            }
            (opened, _) => panic!("{:?}", opened.map(drop)),
        }
    }
    // The watermark stands behind it.
    let folder = folder();
    write_raw(folder.path(), &records);
    let (mut watermark, _) = Watermark::open(folder.path()).unwrap();
    watermark.note(Position { seq: 1, offset: end }).unwrap();
    let err = try_open(folder.path(), 16 * PAGE).unwrap_err();
    assert!(matches!(err, LogError::Corrupt { offset, .. } if offset == at), "{err}");
    watermark.note(Position { seq: 1, offset: at }).unwrap();
    assert_eq!(open(folder.path()).last(), Zxid(4));
}

/// Random appends, preparations, purges, reopenings and torn writes against a list.
#[test]
fn a_crash_keeps_every_acknowledged_write_and_a_prefix_of_the_rest() {
    for seed in 0..80 {
        crash_and_recover(seed);
    }
}

fn crash_and_recover(seed: u64) {
    let folder = folder();
    let mut prng = Prng(seed);
    let mut model = Model::default();
    let mut log = open(folder.path());
    for step in 0..120 {
        let context = format!("seed {seed}, step {step}");
        match prng.below(10) {
            0 => log.handle().prepare_next().unwrap(),
            1 => {
                let back = model.last - prng.below(50) as i64;
                model.applied = model.floor(back.max(model.applied));
                log.handle().purge(Zxid(model.applied), prng.below(30)).unwrap();
            }
            2 => {
                drop(log);
                log = open(folder.path());
            }
            3..=5 => {
                let batch = model.batch(&mut prng);
                let before = contents(folder.path());
                log.append(&batch).unwrap();
                drop(log);
                tear(folder.path(), &before, &mut prng);
                log = open(folder.path());
                // Some prefix of the batch made it, and with a snapshot what it counts with.
                let legal = (0..=batch.len()).filter(|&kept| is_closed(&batch[..kept]));
                let kept = legal.into_iter().find(|&kept| {
                    let mut model = model.clone();
                    batch[..kept].iter().for_each(|write| model.apply(write));
                    model.is(&log)
                });
                let kept = kept.unwrap_or_else(|| panic!("{context}: not a prefix of {batch:?}"));
                batch[..kept].iter().for_each(|write| model.apply(write));
            }
            _ => {
                let batch = model.batch(&mut prng);
                log.append(&batch).unwrap();
                batch.iter().for_each(|write| model.apply(write));
            }
        }
        assert!(model.is(&log), "{context}");
    }
}

/// Whether an epoch stands behind every snapshot.
fn is_closed(writes: &[Write]) -> bool {
    let kind = |write: &Write| match write {
        Write::InstallSnapshot { .. } => Some(false),
        Write::CurrentEpoch(_) => Some(true),
        Write::Txn { .. } | Write::AcceptedEpoch(_) | Write::Truncate { .. } => None,
    };
    writes.iter().rev().find_map(kind).unwrap_or(true)
}

#[derive(Clone, Default)]
struct Model {
    txns: BTreeMap<i64, Bytes>,
    last: i64,
    /// What the snapshot was of that all this goes on from.
    base: i64,
    /// Up to here it was purged, or could have been.
    applied: i64,
    epochs: Epochs,
}

impl Model {
    fn batch(&self, prng: &mut Prng) -> Vec<Write> {
        let mut after = self.clone();
        let len = 1 + prng.below(8);
        let batch = (0..len).map(|_| {
            let write = match prng.below(14) {
                0 => Write::AcceptedEpoch(Epoch(after.epochs.accepted.0 + prng.below(3) as i32)),
                1 => Write::CurrentEpoch(Epoch(after.epochs.current.0 + prng.below(3) as i32)),
                2 => {
                    let back = prng.below(8) as i64;
                    Write::Truncate { zxid: Zxid((after.last - back).max(after.applied)) }
                }
                3 if prng.below(4) == 0 => {
                    let zxid = Zxid((after.last - 20 + prng.below(40) as i64).max(0));
                    Write::InstallSnapshot { zxid, staged: StagedId(1 + prng.below(9)) }
                }
                _ => {
                    let len = if prng.below(10) == 0 { prng.below(9000) } else { prng.below(300) };
                    txn(after.last + 1 + prng.below(3) as i64, len as usize)
                }
            };
            after.apply(&write);
            write
        });
        let mut batch: Vec<_> = batch.collect();
        if !is_closed(&batch) {
            batch.push(Write::CurrentEpoch(after.epochs.current));
        }
        batch
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Txn { zxid, payload } => {
                self.txns.insert(zxid.0, payload.clone());
                self.last = zxid.0;
            }
            Write::AcceptedEpoch(epoch) => self.epochs.accepted = *epoch,
            Write::CurrentEpoch(epoch) => self.epochs.current = *epoch,
            Write::Truncate { zxid } => {
                self.txns.retain(|found, _| *found <= zxid.0);
                self.last = self.floor(zxid.0);
            }
            Write::InstallSnapshot { zxid, .. } => {
                self.txns.clear();
                (self.last, self.base, self.applied) = (zxid.0, zxid.0, zxid.0);
            }
        }
    }

    fn floor(&self, zxid: i64) -> i64 {
        self.txns.range(..=zxid).next_back().map_or(self.base, |(zxid, _)| *zxid)
    }

    /// The log says the same of everything that it holds.
    fn is(&self, log: &Log) -> bool {
        let handle = log.handle();
        let (begins, last) = handle.bounds();
        last == Zxid(self.last)
            && log.last() == last
            && log.epochs() == self.epochs
            && begins.0 >= self.base
            && begins.0 <= self.applied.max(self.base)
            && self.reads(&handle, begins.0, i64::MAX)
            // Every place where something may be, and what has another answer than its neighbour.
            && (begins.0..=self.last + 1).rev().take(60).all(|zxid| {
                handle.floor(Zxid(zxid)).unwrap() == Some(Zxid(self.floor(zxid)))
                    && self.bytes_after(zxid) <= handle.bytes_after(Zxid(zxid))
            })
            && self.reads(&handle, (self.last - 17).max(begins.0), self.last - 5)
            && (begins.0 == 0 || handle.floor(Zxid(begins.0 - 1)).unwrap().is_none())
    }

    fn bytes_after(&self, after: i64) -> u64 {
        self.txns.range(after + 1..).map(|(_, payload)| record_len(payload.len()) as u64).sum()
    }

    fn reads(&self, handle: &LogHandle, after: i64, to: i64) -> bool {
        let expected = self.txns.range(after + 1..).take_while(|(zxid, _)| **zxid <= to);
        let expected: Vec<_> = expected.map(|(zxid, payload)| (*zxid, payload.clone())).collect();
        let found = handle.read_range(Zxid(after), Zxid(to)).unwrap();
        let found: Vec<_> =
            found.map(Result::unwrap).map(|(zxid, bytes)| (zxid.0, bytes)).collect();
        found == expected
    }
}

/// Everything in the folder.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Undoes a random choice of the 512-byte sectors written since `before`, and the watermark: a
/// power cut before the sync returned.
fn tear(folder: &Path, before: &BTreeMap<PathBuf, Vec<u8>>, prng: &mut Prng) {
    let lost_of_four = prng.below(5);
    for (path, now) in contents(folder) {
        if Segment::seq_of(&path).is_none() {
            if let Some(old) = before.get(&path) {
                fs::write(&path, old).unwrap();
            }
            continue;
        }
        // A segment that was made in time for this batch was durable before it, and empty.
        let mut old = before.get(&path).cloned().unwrap_or_else(|| {
            let mut empty = now.clone();
            empty[RECORDS_AT as usize..].fill(0);
            empty
        });
        old.resize(now.len(), 0);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        for at in (0..now.len()).step_by(512) {
            let sector = at..at + 512;
            if now[sector.clone()] != old[sector.clone()] && prng.below(4) < lost_of_four {
                file.write_all_at(&old[sector], at as u64).unwrap();
            }
        }
    }
}
