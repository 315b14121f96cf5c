//! The state on disk: checkpoints, staged snapshots, and what a crash leaves of them.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small test values")]

use std::collections::BTreeMap;
use std::path::Path;

use zk_proto::data::StatPersisted;
use zk_testkit::copy_folder;

use super::*;
use crate::identity::lock;

const STORE: StoreId = StoreId(0x5702e);

fn open(folder: &Path) -> State {
    State::open(lock(folder).unwrap(), STORE, None).unwrap()
}

fn meta(applied: i64) -> Meta {
    Meta { applied: Zxid(applied), digest: applied.cast_unsigned() * 3, time_ms: applied * 5 }
}

fn znode(data: &[u8], czxid: i64) -> ZnodeValue<'_> {
    ZnodeValue {
        data: (!data.is_empty()).then_some(data),
        acl: b"",
        stat: StatPersisted { czxid, ..StatPersisted::default() },
    }
}

/// Znodes' data and czxid, and sessions.
type Content = (BTreeMap<String, (Vec<u8>, i64)>, BTreeMap<i64, i32>);

fn content(snapshot: &StateSnapshot<'_>) -> Content {
    let mut content = Content::default();
    let mut paths = Vec::new();
    snapshot
        .scan(|item| {
            match item {
                StateItem::Znode { path, value } => {
                    assert!(content.1.is_empty(), "znodes come first");
                    paths.push(path.to_owned());
                    let data = value.data.unwrap_or_default().to_vec();
                    content.0.insert(path.to_owned(), (data, value.stat.czxid));
                }
                StateItem::Session { id, timeout_ms } => {
                    content.1.insert(id.0, timeout_ms);
                }
            }
            Ok::<(), StorageError>(())
        })
        .unwrap();
    assert!(paths.is_sorted());
    content
}

#[test]
fn checkpoints_add_up_and_a_snapshot_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = open(folder.path());
    assert_eq!((state.meta(), content(&state.snapshot())), (None, Content::default()));
    let mut model = Content::default();
    let mut random = 1_u64;
    let mut draw = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % limit
    };
    // More than enough for merges of older checkpoints to go on beside.
    for checkpoint in 1..=60 {
        let before = model.clone();
        let mut changed: BTreeMap<String, Option<(Vec<u8>, i64)>> = BTreeMap::new();
        for _ in 0..200 {
            let path = format!("/{}/{}", draw(10), draw(100));
            let data = vec![b'x'; usize::try_from(draw(300)).unwrap()];
            changed.insert(path, (draw(4) > 0).then_some((data, checkpoint)));
        }
        let snapshot = state.snapshot();
        let mut writer = state.begin_checkpoint();
        for (path, change) in &changed {
            match change {
                Some((data, czxid)) => {
                    writer.put_znode(path, &znode(data, *czxid)).unwrap();
                    model.0.insert(path.clone(), (data.clone(), *czxid));
                }
                None => {
                    writer.delete_znode(path).unwrap();
                    model.0.remove(path);
                }
            }
        }
        let (closed, opened) = (checkpoint - 7, checkpoint);
        writer.delete_session(SessionId(closed)).unwrap();
        writer.put_session(SessionId(opened), 4000).unwrap();
        model.1.remove(&closed);
        model.1.insert(opened, 4000);
        writer.finish(meta(checkpoint)).unwrap();
        assert_eq!(state.meta(), Some(meta(checkpoint)));
        assert_eq!(content(&snapshot), before);
        assert_eq!(snapshot.meta().map(|meta| meta.applied.0).unwrap_or(0), checkpoint - 1);
        drop(snapshot);
        if checkpoint % 9 == 0 {
            drop(state);
            state = open(folder.path());
        }
        assert_eq!(state.meta(), Some(meta(checkpoint)));
        assert_eq!(content(&state.snapshot()), model, "checkpoint {checkpoint}");
    }
}

#[test]
fn a_checkpoint_of_many_files_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    let data = vec![7; 1 << 20];
    for round in 1..=2 {
        let mut writer = state.begin_checkpoint();
        for name in 10..40 {
            writer.put_znode(&format!("/{name}"), &znode(&data, round)).unwrap();
        }
        assert!(writer.tables.files.len() > 2);
        writer.finish(meta(round)).unwrap();
    }
    let (znodes, _) = content(&state.snapshot());
    assert_eq!(znodes.len(), 30);
    assert!(znodes.values().all(|(found, czxid)| *found == data && *czxid == 2));
}

#[test]
fn an_unfinished_checkpoint_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    let mut writer = state.begin_checkpoint();
    writer.put_znode("/a", &znode(b"x", 1)).unwrap();
    drop(writer);
    assert_eq!(content(&state.snapshot()), Content::default());
    state.begin_checkpoint().finish(meta(4)).unwrap();
    assert_eq!(state.meta(), Some(meta(4)));
    let left = fs::read_dir(State::tables(&state.lock)).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn entries_out_of_order_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    let mut writer = state.begin_checkpoint();
    writer.put_znode("/b", &znode(b"x", 1)).unwrap();
    assert!(writer.put_znode("/a", &znode(b"x", 1)).is_err());
    assert!(writer.delete_znode("/b").is_err());
}

#[test]
#[should_panic(expected = "the applied zxid went back")]
fn an_applied_zxid_that_goes_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    state.begin_checkpoint().finish(meta(4)).unwrap();
    drop(state.begin_checkpoint().finish(meta(3)));
}

#[test]
fn a_flipped_bit_in_a_table_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    let mut writer = state.begin_checkpoint();
    for name in 1000..2000 {
        writer.put_znode(&format!("/{name}"), &znode(&[7; 100], 1)).unwrap();
    }
    writer.finish(meta(1)).unwrap();
    let size = content(&state.snapshot()).0.len();
    assert_eq!(size, 1000);
    drop(state);
    let tables: Vec<_> = fs::read_dir(folder.path().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    let [table] = &tables[..] else { panic!("{tables:?}") };
    let mut bytes = fs::read(table).unwrap();
    bytes[50_000] ^= 1;
    fs::write(table, bytes).unwrap();
    let state = open(folder.path());
    let err = state.snapshot().scan(|_| Ok::<(), StorageError>(())).unwrap_err();
    assert!(matches!(&err, StorageError::RocksDb { .. }), "{err}");
    assert!(err.to_string().contains("Corruption"), "{err}");
}

fn families(state: &State) -> Vec<String> {
    let mut names = Db::list_cf(&state.table_options, state.db.path()).unwrap();
    names.sort_unstable();
    names
}

/// A model of a snapshot, of several runs.
fn snapshot_content(czxid: i64) -> Content {
    let znode = |name: i64| (format!("/s/{name}"), (vec![name as u8; 200], czxid));
    let sessions = (0..20).map(|id| (id * 7 - 50, 4000)).collect();
    ((0..1500).map(znode).chain([("/".to_owned(), (Vec::new(), 0))]).collect(), sessions)
}

/// Stages it in an order that is none, some of it twice.
fn stage(state: &State, content: &Content, applied: i64) -> StagedState {
    let mut writer = state.stage().unwrap();
    let (znodes, sessions) = content;
    let paths: Vec<_> = znodes.keys().collect();
    for at in 0..2 * paths.len() {
        let path = paths[at * 677 % paths.len()];
        let (data, czxid) = &znodes[path];
        let is_last = at >= paths.len();
        let data = if is_last { &data[..] } else { b"overwritten" };
        writer.put_znode(path, &znode(data, *czxid)).unwrap();
        if at % 100 == 0 {
            for (id, timeout_ms) in sessions {
                writer.put_session(SessionId(*id), timeout_ms + i32::from(!is_last)).unwrap();
            }
        }
    }
    writer.finish(meta(applied)).unwrap()
}

fn checkpoint(state: &State, path: &str, applied: i64) {
    let mut writer = state.begin_checkpoint();
    writer.put_znode(path, &znode(b"x", applied)).unwrap();
    writer.finish(meta(applied)).unwrap();
}

fn install_record(staged: &StagedState) -> Install {
    use crate::txn_log::Position;
    Install { at: Position { seq: 1, offset: 0 }, zxid: staged.meta().applied, staged: staged.id() }
}

#[test]
fn an_installed_snapshot_takes_the_place_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = open(folder.path());
    for applied in 1..=30 {
        checkpoint(&state, &format!("/{applied}"), applied);
    }
    let mut before = content(&state.snapshot());
    let mut expected_size = state.bytes_cell().load(Ordering::Relaxed);
    assert!(expected_size > 0);
    // Below, at and above the applied zxid; the second and later ones replace another snapshot.
    for (round, applied) in [20, 21, 500].into_iter().enumerate() {
        let received = snapshot_content(applied * 3);
        let staged = stage(&state, &received, applied);
        assert_eq!(staged.meta(), meta(applied));
        let old = state.snapshot();
        assert_eq!(content(&old), before);
        assert_eq!(state.bytes_cell().load(Ordering::Relaxed), expected_size);
        // The old one goes on until then.
        let installed = staged.id();
        state.install(staged).unwrap();
        assert_eq!(state.meta(), Some(meta(applied)));
        assert_eq!(content(&old), before, "a snapshot that is being read stays");
        assert_eq!(old.meta().map(|meta| meta.applied.0), before_applied(round));
        drop(old);
        assert_eq!(content(&state.snapshot()), received);
        state.reclaim().unwrap();
        let first = state.family(Generation::FIRST);
        assert_eq!(state.size(&first), 0, "the first generation takes no space");
        drop(first);
        expected_size = state.bytes_cell().load(Ordering::Relaxed);
        assert!(expected_size > 1500 * 200, "{expected_size}");
        let mut names = [Generation::of(installed).name(), "default".to_owned()];
        names.sort_unstable();
        assert_eq!(families(&state), names);

        checkpoint(&state, "/more", applied + 1);
        before = received;
        before.0.insert("/more".to_owned(), (b"x".to_vec(), applied + 1));
        expected_size = state.bytes_cell().load(Ordering::Relaxed);
        for _ in 0..2 {
            drop(state);
            state = open(folder.path());
            assert_eq!(state.meta(), Some(meta(applied + 1)));
            assert_eq!(content(&state.snapshot()), before);
            assert_eq!(families(&state), names);
        }
        expected_size = expected_size.min(state.bytes_cell().load(Ordering::Relaxed));
    }

    fn before_applied(round: usize) -> Option<i64> {
        [Some(30), Some(21), Some(22)][round]
    }
}

#[test]
fn what_is_staged_and_not_installed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    checkpoint(&state, "/a", 4);
    let before = content(&state.snapshot());
    let is_as_before = |state: &State| {
        assert_eq!(families(state), ["default"]);
        assert_eq!((state.meta(), content(&state.snapshot())), (Some(meta(4)), before.clone()));
        assert_eq!(fs::read_dir(State::tables(&state.lock)).unwrap().count(), 0);
    };
    let mut writer = state.stage().unwrap();
    for name in 0..2000 {
        writer.put_znode(&format!("/{name}"), &znode(&[1; 100], 1)).unwrap();
    }
    assert_eq!(families(&state).len(), 2);
    drop(writer);
    is_as_before(&state);

    let staged = stage(&state, &snapshot_content(1), 9);
    state.discard(staged);
    is_as_before(&state);

    // As a crash leaves it.
    let staged = stage(&state, &snapshot_content(1), 9);
    let mut writer = state.stage().unwrap();
    for name in 0..2000 {
        writer.put_znode(&format!("/{name}"), &znode(&[1; 100], 1)).unwrap();
    }
    std::mem::forget(writer);
    assert_eq!(families(&state).len(), 3);
    drop((state, staged));
    is_as_before(&open(folder.path()));
}

#[test]
fn a_snapshot_that_the_log_goes_on_from_is_installed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    checkpoint(&state, "/a", 4);
    let lost = stage(&state, &snapshot_content(2), 9);
    let staged = stage(&state, &snapshot_content(1), 9);
    let install = install_record(&staged);
    drop((state, lost, staged));
    let open_with = |install| State::open(lock(folder.path()).unwrap(), STORE, Some(install));
    // Not any of the same zxid, nor one of another zxid.
    for other in [Install { staged: StagedId(1), ..install }, Install { zxid: Zxid(8), ..install }]
    {
        let other_folder = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), other_folder.path());
        let err =
            State::open(lock(other_folder.path()).unwrap(), STORE, Some(other)).err().unwrap();
        assert!(matches!(err, StorageError::MissingSnapshot { zxid, .. } if zxid == other.zxid));
    }
    for round in 0..3 {
        let state = open_with(install).unwrap();
        let applied = if round == 0 { 9 } else { 12 };
        assert_eq!(state.meta(), Some(meta(applied)));
        assert_eq!(families(&state).len(), 2);
        if round == 0 {
            assert_eq!(content(&state.snapshot()), snapshot_content(1));
            checkpoint(&state, "/more", 12);
        }
    }
    // Its segment may be purged.
    assert_eq!(open(folder.path()).meta(), Some(meta(12)));
}

#[test]
fn a_checkpoint_of_a_replaced_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    checkpoint(&state, "/a", 4);
    let staged = stage(&state, &snapshot_content(1), 2);
    let mut writer = state.begin_checkpoint();
    writer.put_znode("/b", &znode(b"x", 1)).unwrap();
    state.install(staged).unwrap();
    assert!(matches!(writer.finish(meta(5)), Err(StorageError::Superseded)));
    assert_eq!((state.meta(), content(&state.snapshot())), (Some(meta(2)), snapshot_content(1)));
    checkpoint(&state, "/c", 3);
    assert_eq!(fs::read_dir(State::tables(&state.lock)).unwrap().count(), 0);
}

#[test]
fn a_file_that_names_no_generation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    let staged = stage(&state, &snapshot_content(1), 2);
    state.install(staged).unwrap();
    drop(state);
    let path = folder.path().join("generation");
    let good = fs::read_to_string(&path).unwrap();
    let missing = format!("{:016x}\n", 1);
    for bad in ["", "x", &good[..16], &good[1..], "000000000000000g\n", &missing] {
        fs::write(&path, bad).unwrap();
        let err = State::open(lock(folder.path()).unwrap(), STORE, None).err().unwrap();
        assert!(matches!(err, StorageError::BadState { .. }), "{bad:?}: {err}");
    }
    fs::write(&path, good).unwrap();
    assert_eq!(open(folder.path()).meta(), Some(meta(2)));
}

#[test]
fn znodes_and_sessions_are_scanned_apart() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    let expected = snapshot_content(5);
    let staged = stage(&state, &expected, 2);
    state.install(staged).unwrap();
    let snapshot = state.snapshot();
    let mut found = Content::default();
    let take = |path: &str, value: ZnodeValue<'_>| {
        let data = value.data.unwrap_or_default().to_vec();
        found.0.insert(path.to_owned(), (data, value.stat.czxid));
        Ok::<(), StorageError>(())
    };
    snapshot.scan_znodes(take).unwrap();
    let take = |id: SessionId, timeout_ms| {
        found.1.insert(id.0, timeout_ms);
        Ok::<(), StorageError>(())
    };
    snapshot.scan_sessions(take).unwrap();
    assert_eq!(found, expected);
}

/// One bit of its list of files is enough for RocksDB to read it for ever.
#[test]
fn a_manifest_without_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let db = folder.path().join("db");
    let manifest = fs::read_dir(&db)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST-"))
        .unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    // A record is a checksum, a length and a type, of which 5 is one that only recycled logs have.
    let second = 7 + usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    assert_eq!(bytes[second + 6], 1);
    bytes[second + 6] = 5;
    fs::write(&manifest, bytes).unwrap();
    let result = super::families(&options().unwrap(), &db, Duration::from_secs(2));
    assert!(matches!(result, Err(StorageError::EndlessManifest { seconds: 2, .. })), "{result:?}");
}
