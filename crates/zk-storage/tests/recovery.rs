//! Opening what a server left: state and log together, and what does not belong together.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a failing test may panic, and its values are small"
)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use zk_proto::data::StatPersisted;
use zk_proto::{Epoch, Zxid};
use zk_storage::{
    LogConfig, LogError, Meta, Opened, StateItem, StorageConfig, StorageError, Write, ZnodeValue,
};
use zk_zab::History;

fn config(data_dir: &Path, data_log_dir: &Path) -> StorageConfig {
    let log = LogConfig { segment_bytes: 64 << 10, force_sync: true };
    StorageConfig { data_dir: data_dir.to_owned(), data_log_dir: data_log_dir.to_owned(), log }
}

fn open(folder: &TempDir) -> Result<Opened, StorageError> {
    zk_storage::open(&config(folder.path(), folder.path()))
}

fn txn(zxid: i64) -> Write {
    Write::Txn { zxid: Zxid(zxid), payload: vec![zxid as u8; 100].into() }
}

fn checkpoint(opened: &Opened, applied: i64) {
    let mut writer = opened.state.begin_checkpoint();
    let stat = StatPersisted { czxid: applied, ..StatPersisted::default() };
    writer.put_znode("/a", &ZnodeValue { data: Some(b"x"), acl: b"acl", stat }).unwrap();
    writer.finish(Meta { applied: Zxid(applied), digest: 1, time_ms: 2 }).unwrap();
}

fn replay(opened: Opened) -> Vec<i64> {
    opened.replay.map(|txn| txn.unwrap().0.0).collect()
}

fn refused(folder: &TempDir) -> StorageError {
    match open(folder) {
        Ok(_) => panic!("opened"),
        Err(err) => err,
    }
}

/// Ten transactions, the state as of the fourth.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder).unwrap();
    opened.log.append(&(1..=10).map(txn).collect::<Vec<_>>()).unwrap();
    checkpoint(&opened, 4);
    folder
}

#[test]
fn a_new_folder_is_empty_and_what_was_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let deeper = folder.path().join("a/b");
    let opened = zk_storage::open(&config(&deeper, &deeper)).unwrap();
    assert_eq!((opened.log.last(), opened.state.meta()), (Zxid::ZERO, None));
    assert_eq!(replay(opened), []);

    let folder = sample();
    for _ in 0..2 {
        let opened = open(&folder).unwrap();
        assert_eq!(opened.log.last(), Zxid(10));
        let meta = Meta { applied: Zxid(4), digest: 1, time_ms: 2 };
        assert_eq!(opened.state.meta(), Some(meta));
        let mut znodes = Vec::new();
        let scanned = opened.state.snapshot().scan(|item| {
            let StateItem::Znode { path, value } = item else { panic!("{item:?}") };
            znodes.push((path.to_owned(), value.data.unwrap().to_vec(), value.acl.to_vec()));
            Ok::<(), StorageError>(())
        });
        scanned.unwrap();
        assert_eq!(znodes, [("/a".to_owned(), b"x".to_vec(), b"acl".to_vec())]);
        assert_eq!(replay(opened), [5, 6, 7, 8, 9, 10]);
    }
}

#[test]
fn two_servers_cannot_share_a_folder() {
    let folder = sample();
    let other = tempfile::tempdir().unwrap();
    let opened = open(&folder).unwrap();
    let err = refused(&folder);
    assert!(
        matches!(&err, StorageError::InUse { pid, .. } if *pid == std::process::id().to_string())
    );
    assert_eq!(err.exit_code(), 3);
    // Nor only one of the two folders.
    for config in [config(other.path(), folder.path()), config(folder.path(), other.path())] {
        let err = zk_storage::open(&config).err().unwrap();
        assert!(matches!(err, StorageError::InUse { .. }), "{err}");
    }
    drop(opened);
    open(&folder).unwrap();
}

#[test]
fn apaches_data_is_explained_and_left_alone() {
    for (name, refused_in) in [("snapshot.0", 0), ("log.100000001", 1)] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let version_2 = dirs[refused_in].path().join("version-2");
        fs::create_dir(&version_2).unwrap();
        fs::write(version_2.join("currentEpoch"), "1").unwrap();
        let config = config(dirs[0].path(), dirs[1].path());
        drop(zk_storage::open(&config).unwrap());
        for dir in &dirs {
            for folder in ["paddock-log", "paddock-state"] {
                if dir.path().join(folder).exists() {
                    fs::remove_dir_all(dir.path().join(folder)).unwrap();
                }
            }
        }
        fs::write(version_2.join(name), "data").unwrap();
        let err = zk_storage::open(&config).err().unwrap();
        assert!(matches!(&err, StorageError::ApacheData { path } if path.ends_with(name)), "{err}");
        assert!(err.to_string().contains("empty folder"), "{err}");
        assert_eq!(err.exit_code(), 3);
        assert_eq!(fs::read_dir(dirs[0].path()).unwrap().count(), 1 - refused_in);
    }
    // Beside our own data it is history.
    let folder = sample();
    fs::create_dir(folder.path().join("version-2")).unwrap();
    fs::write(folder.path().join("version-2/snapshot.0"), "data").unwrap();
    open(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let err = zk_storage::open(&config(&file, folder.path())).err().unwrap();
    assert!(matches!(&err, StorageError::Io { path, .. } if path.starts_with(&file)), "{err}");
    assert_eq!(err.exit_code(), 3);
}

#[test]
fn folders_of_two_servers_are_not_mixed() {
    let (one, two) = (sample(), sample());
    let err = zk_storage::open(&config(one.path(), two.path())).err().unwrap();
    assert!(matches!(err, StorageError::Mismatch { .. }), "{err}");
    // Nor single files of theirs.
    let segment = "paddock-log/0000000000000001.log";
    fs::copy(one.path().join(segment), two.path().join(segment)).unwrap();
    let err = refused(&two);
    assert!(matches!(err, StorageError::Log(LogError::Foreign { .. })), "{err}");
}

#[test]
fn a_lost_log_is_refused_and_a_lost_state_made_again_from_a_whole_log() {
    let folder = sample();
    fs::remove_dir_all(folder.path().join("paddock-state")).unwrap();
    let opened = open(&folder).unwrap();
    assert_eq!(opened.state.meta(), None);
    checkpoint(&opened, 10);
    assert_eq!(replay(opened), (1..=10).collect::<Vec<_>>());

    fs::remove_dir_all(folder.path().join("paddock-log")).unwrap();
    let err = refused(&folder);
    assert!(matches!(err, StorageError::MissingLog { .. }), "{err}");
    assert_eq!(err.exit_code(), 1);
}

#[test]
fn transactions_missing_between_state_and_log_are_named() {
    // An old state beside a purged log.
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder).unwrap();
    for zxid in 1..=2000 {
        opened.log.append(&[txn(zxid)]).unwrap();
    }
    checkpoint(&opened, 10);
    assert!(opened.log.handle().purge(Zxid(2000), 100).unwrap() > 0);
    drop(opened);
    let err = refused(&folder);
    assert!(matches!(err, StorageError::MissingTxns { applied: Zxid(10), .. }), "{err}");

    // A state ahead of the log.
    let folder = sample();
    checkpoint(&open(&folder).unwrap(), 11);
    let err = refused(&folder);
    assert!(matches!(
        err,
        StorageError::MissingTxns { applied: Zxid(11), begins: Zxid(0), last: Zxid(10), .. }
    ));
    assert_eq!(err.exit_code(), 1);
}

#[test]
fn an_identity_file_of_another_kind_is_refused() {
    let folder = sample();
    let path = folder.path().join("paddock-log/identity");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("format 1", "format 2")).unwrap();
    let err = refused(&folder);
    assert!(matches!(err, StorageError::Format { found: 2, known: 1, .. }), "{err}");
    for bad in ["", "paddock\nformat 1\nstore xyz\n", "format one"] {
        fs::write(&path, bad).unwrap();
        let err = refused(&folder);
        assert!(matches!(err, StorageError::Identity { .. }), "{bad:?}: {err}");
    }
    fs::write(&path, text).unwrap();
    open(&folder).unwrap();
}

#[test]
fn the_file_initialize_counts_while_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let initialize = folder.path().join("initialize");
    let opened = open(&folder).unwrap();
    assert!(opened.is_new && !opened.initialized);
    drop(opened);
    fs::write(&initialize, "").unwrap();
    for _ in 0..2 {
        let mut opened = open(&folder).unwrap();
        assert!(opened.is_new && opened.initialized);
        assert!(opened.take_durable().unwrap().initialized);
    }
    // An epoch is something already.
    let mut opened = open(&folder).unwrap();
    assert!(initialize.exists());
    opened.log.append(&[Write::AcceptedEpoch(Epoch(1))]).unwrap();
    assert!(!initialize.exists());
    drop(opened);
    fs::write(&initialize, "").unwrap();
    let opened = open(&folder).unwrap();
    assert!(!opened.is_new && !opened.initialized && !initialize.exists());
}

#[test]
fn a_member_finds_its_history_and_its_tail() {
    let folder = sample();
    let mut opened = open(&folder).unwrap();
    let durable = opened.take_durable().unwrap();
    assert_eq!((durable.applied, durable.last_logged()), (Zxid(4), Zxid(10)));
    let zxids: Vec<_> = durable.tail.iter().map(|(zxid, _)| zxid.0).collect();
    assert_eq!(zxids, [5, 6, 7, 8, 9, 10]);
    assert_eq!(durable.tail[2].1, vec![7; 100]);

    let history = opened.history();
    let begins = |history: &dyn History| history.begins();
    assert_eq!(begins(&history), Zxid(0));
    assert_eq!(history.floor(Zxid(8)), Some(Zxid(8)));
    assert_eq!(history.floor(Zxid(1 << 40)), Some(Zxid(10)));
    assert_eq!(history.floor(Zxid(-1)), None);
    assert!((1000..1 << 20).contains(&history.bytes_after(Zxid(0))));
    assert_eq!(history.bytes_after(Zxid(10)), 0);
    let before = history.snapshot_bytes();
    assert!(before > 0);
    // It goes along with what is stored.
    opened.log.append(&[txn(11)]).unwrap();
    checkpoint(&opened, 11);
    assert_eq!(history.floor(Zxid(1 << 40)), Some(Zxid(11)));
    assert!(history.snapshot_bytes() > before);
    // And is in the way of nothing: the last one is dropped by whoever is the last to need it.
    drop(opened);
    assert_eq!(history.begins(), Zxid(0));
}

#[test]
fn a_truncation_below_a_checkpoint_is_refused() {
    let folder = sample();
    let mut opened = open(&folder).unwrap();
    opened.log.append(&[Write::Truncate { zxid: Zxid(8) }]).unwrap();
    checkpoint(&opened, 7);
    let err = opened.log.append(&[Write::Truncate { zxid: Zxid(6) }]).unwrap_err();
    assert!(matches!(err, LogError::BelowState { applied: Zxid(7), .. }), "{err}");
    drop(opened);
    let mut opened = open(&folder).unwrap();
    assert_eq!(opened.log.last(), Zxid(8));
    let err = opened.log.append(&[Write::Truncate { zxid: Zxid(6) }]).unwrap_err();
    assert!(matches!(err, LogError::BelowState { applied: Zxid(7), .. }), "{err}");
}
