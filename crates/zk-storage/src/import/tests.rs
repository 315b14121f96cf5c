#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fs;
use std::path::Path;

use bytes::{BufMut as _, Bytes, BytesMut};
use tempfile::TempDir;
use zk_proto::log_file::LogEnd;
use zk_proto::persistence::{ADLER32_START, FileHeader, adler32};
use zk_proto::{Epoch, Record as _, Zxid};

use super::*;
use crate::error::StorageError;
use crate::recover::{Before, StorageConfig, look, open};
use crate::txn_log::{Epochs, LogConfig};

fn config(dir: &Path) -> StorageConfig {
    let log = LogConfig { segment_bytes: 1 << 16, force_sync: false };
    StorageConfig { data_dir: dir.to_owned(), data_log_dir: dir.to_owned(), log }
}

/// An entry as far as it is looked into here.
fn entry(zxid: Zxid, body: &str) -> Bytes {
    let mut entry = BytesMut::new();
    entry.put_i64(1);
    entry.put_i32(2);
    entry.put_i64(zxid.0);
    entry.put_slice(body.as_bytes());
    entry.freeze()
}

/// Log files, each with its transactions.
fn logs(files: &[&[(i32, u32, &str)]]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("version-2")).unwrap();
    for (number, txns) in files.iter().enumerate() {
        let mut file = BytesMut::new();
        FileHeader::LOG.encode(&mut file);
        for (epoch, counter, body) in *txns {
            let entry = entry(Zxid::new(Epoch(*epoch), *counter), body);
            file.put_i64(adler32(ADLER32_START, &entry).into());
            file.put_i32(i32::try_from(entry.len()).unwrap());
            file.put_slice(&entry);
            file.put_u8(b'B');
        }
        let (epoch, counter, _) = txns[0];
        let zxid = Zxid::new(Epoch(epoch), counter).0;
        // Every other one has space left.
        file.put_bytes(0, number % 2 * 5000);
        fs::write(dir.path().join(format!("version-2/log.{zxid:x}")), file).unwrap();
    }
    dir
}

fn files(dir: &TempDir) -> ApacheFiles {
    ApacheFiles::find(&config(dir.path())).unwrap().unwrap()
}

/// Epochs and counters of what is read behind a zxid.
fn read(dir: &TempDir, after: (i32, u32)) -> Result<Vec<(i32, u32)>, ImportError> {
    let mut log = files(dir).read_log(Zxid::new(Epoch(after.0), after.1), None);
    let mut found = Vec::new();
    while let Some(txn) = log.next_txn()? {
        found.push((txn.zxid.epoch().0, txn.zxid.counter()));
    }
    Ok(found)
}

#[test]
fn logs_go_on_from_file_to_file_and_from_epoch_to_epoch() {
    let dir = logs(&[
        &[(0, 1, "a"), (0, 2, "b")],
        &[(0, 3, "c"), (0, 4, "d"), (2, 1, "e")],
        &[(2, 2, "f")],
        &[(3, 1, "g"), (3, 2, "h")],
    ]);
    let all = [(0, 1), (0, 2), (0, 3), (0, 4), (2, 1), (2, 2), (3, 1), (3, 2)];
    assert_eq!(read(&dir, (0, 0)).unwrap(), all);
    for (index, after) in all.iter().enumerate() {
        assert_eq!(read(&dir, *after).unwrap(), all[index + 1..]);
    }
    // A leader's zxid before its first transaction.
    assert_eq!(read(&dir, (3, 0)).unwrap(), all[6..]);

    let mut log = files(&dir).read_log(Zxid(3), None);
    while log.next_txn().unwrap().is_some() {}
    let known: Vec<_> = log.files().iter().map(|file| (file.known, file.txns)).collect();
    assert_eq!(known, [(1, 2), (0, 1), (0, 2)], "the first file is not needed");
    assert!(log.files().iter().all(|file| file.end == LogEnd::Clean && !file.rest));
    assert_eq!(log.bytes_read(), log.files().iter().map(|file| file.len).sum::<u64>());
}

#[test]
fn a_hole_is_found_within_an_epoch_and_at_its_beginning() {
    let dir = logs(&[&[(1, 1, "a"), (1, 2, "b")], &[(1, 4, "d")]]);
    for (after, last) in [((1, 0), (1, 2)), ((1, 1), (1, 2)), ((1, 2), (1, 2))] {
        match read(&dir, after).unwrap_err() {
            ImportError::Hole { after, next, next_file, .. } => {
                assert_eq!(after, Zxid::new(Epoch(last.0), last.1));
                assert_eq!(next, Zxid::new(Epoch(1), 4));
                assert!(next_file.ends_with("log.100000004"));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(read(&dir, (1, 3)).unwrap(), [(1, 4)]);
    let dir = logs(&[&[(1, 1, "a")], &[(2, 2, "b")]]);
    assert!(matches!(read(&dir, (1, 0)), Err(ImportError::Hole { .. })));
}

#[test]
fn what_was_logged_twice_counts_once_and_two_histories_do_not_mix() {
    let dir =
        logs(&[&[(1, 1, "a"), (1, 2, "b"), (1, 3, "c")], &[(1, 2, "b"), (1, 3, "c"), (1, 4, "d")]]);
    assert_eq!(read(&dir, (1, 0)).unwrap(), [(1, 1), (1, 2), (1, 3), (1, 4)]);
    assert_eq!(read(&dir, (1, 2)).unwrap(), [(1, 3), (1, 4)]);
    let dir = logs(&[&[(1, 1, "a"), (1, 2, "b"), (1, 3, "c")], &[(1, 2, "other"), (1, 3, "c")]]);
    assert!(matches!(read(&dir, (1, 0)), Err(ImportError::Order { .. })));
}

#[test]
fn something_behind_the_zeros_is_told() {
    let dir = logs(&[&[(1, 1, "a")]]);
    let path = dir.path().join("version-2/log.100000001");
    let mut file = fs::read(&path).unwrap();
    file.resize(file.len() + (2 << 20), 0);
    file.push(1);
    fs::write(&path, file).unwrap();
    let mut log = files(&dir).read_log(Zxid::new(Epoch(1), 0), None);
    while log.next_txn().unwrap().is_some() {}
    assert!(log.files()[0].rest);
}

#[test]
fn an_import_counts_when_it_is_finished_and_not_before() {
    let dir = logs(&[&[(1, 1, "a"), (1, 2, "b")]]);
    let config = config(dir.path());
    let txns = |importer: &mut Importer| {
        for counter in 1..=2 {
            let zxid = Zxid::new(Epoch(1), counter);
            importer.append(zxid, entry(zxid, "x")).unwrap();
        }
    };
    for begun in 0..3 {
        assert!(matches!(look(&config).unwrap(), Before::Apache(_)), "{begun}");
        let mut importer = Importer::new(&config).unwrap();
        // Locked as long as it goes on.
        assert!(matches!(Importer::new(&config).map(drop), Err(StorageError::InUse { .. })));
        if begun > 0 {
            txns(&mut importer);
        }
        if begun > 1 {
            importer.flush().unwrap();
        }
    }
    let mut importer = Importer::new(&config).unwrap();
    txns(&mut importer);
    let epochs = Epochs { accepted: Epoch(4), current: Epoch(1) };
    importer.finish(epochs).unwrap();
    assert!(matches!(look(&config).unwrap(), Before::Ours(Some(_))));
    // As after a crash before the state's folder was given its id, and the marker taken away.
    fs::remove_file(dir.path().join("paddock-state/identity")).unwrap();
    fs::write(dir.path().join("paddock-state/importing"), "").unwrap();
    fs::write(dir.path().join("paddock-log/importing"), "").unwrap();
    let mut opened = open(&config).unwrap();
    let durable = opened.take_durable().unwrap();
    assert_eq!(durable.last_logged(), Zxid::new(Epoch(1), 2));
    assert_eq!(opened.log.epochs(), epochs);
    assert!(!opened.is_new);
    for folder in ["paddock-log", "paddock-state"] {
        assert!(!dir.path().join(folder).join("importing").exists());
    }
    drop(opened);
    assert!(matches!(Importer::new(&config).map(drop), Err(StorageError::InUse { .. })));
}

#[test]
fn files_of_nobody_are_not_removed() {
    let dir = logs(&[&[(1, 1, "a")]]);
    let log = dir.path().join("paddock-log");
    fs::create_dir(&log).unwrap();
    fs::write(log.join("00000001.log"), "somebody's").unwrap();
    let refused = Importer::new(&config(dir.path())).map(drop);
    assert!(matches!(refused, Err(StorageError::Identity { .. })), "{refused:?}");
    assert_eq!(fs::read(log.join("00000001.log")).unwrap(), b"somebody's");
}
