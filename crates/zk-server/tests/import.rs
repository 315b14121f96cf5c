//! Data folders that Apache ZooKeeper wrote (`conformance/record/data`), taken over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use zk_config::ServerConfig;
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::txn::LoggedTxn;
use zk_proto::{Epoch, SessionId, Zxid};
use zk_server::storage::import::{Imported, Report, check};
use zk_server::storage::{Recovered, RecoveryError, recover, recover_member};
use zk_storage::import::{ImportError, Importer};
use zk_storage::{LogConfig, StorageConfig, Write};
use zk_testkit::vectors::{self, Vector};
use zk_tree::{DataTree, TreeConfig};

const TREE: TreeConfig =
    TreeConfig { extended_types: ExtendedTypes::Enabled, digest_enabled: true };

/// What a client can see of a znode.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// As the dump has them.
    stat: Vec<i64>,
    acl: Vec<Acl>,
    data: Option<Bytes>,
}

/// A recorded data folder, and what Apache's own server made of it.
struct Golden {
    dir: TempDir,
    last: Zxid,
    znodes: BTreeMap<String, Seen>,
    node_count: usize,
    sessions: BTreeMap<SessionId, i32>,
    vectors: Vec<Vector>,
}

impl Golden {
    fn new(name: &str) -> Self {
        let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let vectors = vectors::read(path);
        let dir = tempfile::tempdir().unwrap();
        vectors::write_files(&vectors, dir.path());
        let (mut znodes, mut sessions, mut last) = (BTreeMap::new(), BTreeMap::new(), None);
        for vector in &vectors {
            match vector.kind.as_str() {
                "Znode" => {
                    znodes.insert(vector.name.clone(), seen(vector));
                }
                "Session" => {
                    let id = SessionId(i64::from_str_radix(&vector.name, 16).unwrap());
                    sessions.insert(id, vector.field("timeout").unwrap().parse().unwrap());
                }
                "Server" => last = Some(zxid(vector.field("zxid").unwrap())),
                _ => {} // the files, and what only one has
            }
        }
        assert!(znodes.len() > 20, "{name}");
        // As upstream counts: the root has two names.
        let node_count = znodes.len() + 1;
        Self { node_count, dir, last: last.unwrap(), znodes, sessions, vectors }
    }

    fn config(&self) -> StorageConfig {
        storage(self.dir.path())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("version-2").join(name)
    }

    fn recover(&self) -> Recovered {
        recover(&self.config(), TREE).unwrap()
    }

    /// The tree is Apache's, and so are the sessions.
    fn check(&self, tree: &DataTree) {
        for (path, expected) in &self.znodes {
            let znode = tree.find(path).unwrap_or_else(|| panic!("{path} is missing"));
            let stat = znode.stat();
            let found = Seen {
                stat: vec![
                    stat.czxid,
                    stat.mzxid,
                    stat.ctime,
                    stat.mtime,
                    stat.version.into(),
                    stat.cversion.into(),
                    stat.aversion.into(),
                    stat.ephemeral_owner,
                    stat.pzxid,
                ],
                acl: znode.acl().to_vec(),
                data: znode.data().map(Bytes::copy_from_slice),
            };
            assert_eq!(found, *expected, "{path}");
        }
        let paths: Vec<_> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths.len(), self.znodes.len(), "more than Apache has: {paths:?}");
        assert_eq!(tree.last_zxid(), self.last);
        assert_eq!(*tree.sessions(), self.sessions);
    }

    /// The dry run.
    fn report(&self, is_member: bool) -> Report {
        let mut config = ServerConfig::embedded_default(self.dir.path().to_str());
        config.data_dir = self.dir.path().to_owned();
        config.data_log_dir = self.dir.path().to_owned();
        config.tree.extended_types_enabled = true;
        check(&config, is_member)
    }

    fn imported(&self, is_member: bool) -> Imported {
        match self.report(is_member) {
            Report::Import(imported) => *imported,
            other => panic!("not to be imported: {other:?}"),
        }
    }

    /// Why a server does not start on it.
    fn refused(&self, is_member: bool) -> ImportError {
        let recovered = if is_member {
            recover_member(&self.config(), TREE)
        } else {
            recover(&self.config(), TREE)
        };
        match recovered.map(|_| ()) {
            Err(RecoveryError::Import(error)) => {
                assert!(!self.dir.path().join("paddock-log/identity").exists());
                error
            }
            other => panic!("{other:?}"),
        }
    }
}

fn storage(dir: &Path) -> StorageConfig {
    let log = LogConfig { segment_bytes: 1 << 16, force_sync: false };
    StorageConfig { data_dir: dir.to_owned(), data_log_dir: dir.to_owned(), log }
}

fn zxid(text: &str) -> Zxid {
    Zxid(i64::from_str_radix(text, 16).unwrap())
}

fn seen(vector: &Vector) -> Seen {
    let stat = vector.field("stat").unwrap().split(' ').map(|number| number.parse().unwrap());
    let acl = vector.field("acl").unwrap().split(',').map(|entry| {
        let mut parts = entry.splitn(3, ':');
        let mut part = || parts.next().unwrap();
        Acl { perms: Perms(part().parse().unwrap()), id: Id::new(part(), part()) }
    });
    let data = (vector.field("data") != Some("null")).then(|| vector.bytes.clone());
    Seen { stat: stat.collect(), acl: acl.collect(), data }
}

/// Every file below a folder that is not ours, with its content.
fn apaches(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir.join("version-2")).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_recorded_folder_gives_the_tree_that_apache_has() {
    for name in ["plain", "gz", "snappy", "before_3_9"] {
        println!("{name}");
        let golden = Golden::new(name);
        assert_eq!(golden.sessions.len(), 2);
        let files = apaches(golden.dir.path());
        let would_be = golden.imported(false);
        // The snapshot's own, and one for each transaction that is no error: one of them a failed multi.
        assert_eq!((would_be.digests.compared, would_be.digests.differ), (16, 0), "{name}");
        assert_eq!((would_be.last, would_be.applied), (golden.last, golden.last));
        assert_eq!(
            (would_be.znodes, would_be.ephemerals, would_be.sessions),
            (golden.node_count, 2, 2)
        );
        assert_eq!(would_be.warnings(), Vec::<String>::new());
        assert!(!golden.dir.path().join("paddock-log").exists(), "a dry run leaves nothing");

        let recovered = golden.recover();
        golden.check(&recovered.db.tree);
        let digest = recovered.db.tree.digest();
        drop(recovered);
        // From the store alone.
        fs::rename(golden.file(""), golden.dir.path().join("aside")).unwrap();
        let again = golden.recover();
        golden.check(&again.db.tree);
        assert_eq!(again.db.tree.digest(), digest);
        fs::rename(golden.dir.path().join("aside"), golden.file("")).unwrap();
        assert_eq!(apaches(golden.dir.path()), files, "Apache's files are as they were");
        drop(again);
        assert!(matches!(golden.report(false), Report::HasOwn(_)));
    }
}

#[test]
fn a_member_applies_nothing_that_may_not_be_committed() {
    let golden = Golden::new("leader");
    let committed = golden.vectors.iter().find(|vector| vector.kind == "Committed").unwrap();
    let committed = zxid(&committed.name);
    assert!(committed < golden.last);
    let recovered = recover_member(&golden.config(), TREE).unwrap();
    assert_eq!(recovered.db.tree.last_zxid(), Zxid::ZERO);
    let durable = recovered.member.unwrap().durable;
    assert_eq!(durable.last_logged(), golden.last);
    assert_eq!((durable.accepted_epoch, durable.current_epoch), (Epoch(1), Epoch(1)));
    assert!(!durable.initialized);
    // Applied, it is what Apache has.
    let mut db = recovered.db;
    for (_, payload) in &durable.tail {
        db.apply(&LoggedTxn::decode(payload).unwrap(), &mut |_, _| {});
    }
    let sessions = db.tree.sessions().clone();
    let expected = Golden { sessions, ..Golden::new("leader") };
    expected.check(&db.tree);

    // A leader that has never heard of the end has it taken back.
    let mut log = recovered.log;
    log.append(&[Write::Truncate { zxid: committed }]).unwrap();
    drop((log, recovered.state));
    let mut truncated = recover_member(&golden.config(), TREE).unwrap();
    let durable = truncated.member.take().unwrap().durable;
    assert_eq!(durable.last_logged(), committed);

    let standalone = Golden::new("leader");
    let mut standalone = Golden { sessions: BTreeMap::new(), ..standalone };
    let recovered = standalone.recover();
    standalone.sessions.clone_from(recovered.db.tree.sessions());
    standalone.check(&recovered.db.tree);
}

#[test]
fn a_snapshot_with_parts_of_later_transactions_is_set_right() {
    // The later picture as one of every earlier zxid: the log goes over it again.
    for start in 0..0x1b {
        let golden = Golden::new("plain");
        fs::remove_file(golden.file("snapshot.0")).unwrap();
        fs::rename(golden.file("snapshot.1b"), golden.file(&format!("snapshot.{start:x}")))
            .unwrap();
        let member = golden.imported(true);
        assert_eq!((member.applied, member.last), (Zxid(0x1b), golden.last), "{start:x}");
        assert_eq!((member.digests.compared, member.digests.differ), (16 + 1, 0), "{start:x}");
        let member = recover_member(&golden.config(), TREE).unwrap();
        assert_eq!(member.db.tree.last_zxid(), Zxid(0x1b));
        let durable = member.member.unwrap().durable;
        assert_eq!((durable.applied, durable.last_logged()), (Zxid(0x1b), golden.last));
        drop((member.db, member.log, member.state));
        for folder in ["paddock-log", "paddock-state"] {
            fs::remove_dir_all(golden.dir.path().join(folder)).unwrap();
        }
        golden.check(&golden.recover().db.tree);
    }
}

#[test]
fn parts_of_transactions_that_no_log_has_are_reported() {
    let golden = Golden::new("plain");
    fs::remove_file(golden.file("snapshot.0")).unwrap();
    fs::remove_file(golden.file("log.1c")).unwrap();
    fs::rename(golden.file("snapshot.1b"), golden.file("snapshot.15")).unwrap();
    let log = fs::read(golden.file("log.1")).unwrap();
    // Without the last transaction, which closed the session.
    let end = log.iter().rposition(|byte| *byte == b'B').unwrap();
    fs::write(golden.file("log.1"), &log[..end]).unwrap();
    let imported = golden.imported(true);
    assert_eq!((imported.applied, imported.last), (Zxid(0x1a), Zxid(0x1a)));
    assert_eq!(imported.mixed_up_to, Zxid(0x1b));
    assert!(imported.warnings()[0].contains("up to zxid 0x1b"), "{:?}", imported.warnings());
}

#[test]
fn a_torn_end_is_no_loss() {
    let golden = Golden::new("plain");
    let log = fs::read(golden.file("log.1c")).unwrap();
    let end = log.iter().rposition(|byte| *byte == b'B').unwrap();
    for cut in [end, end - 1, end - 20] {
        for zeros in [0, 3000] {
            let torn = [&log[..cut], &vec![0; zeros]].concat();
            fs::write(golden.file("log.1c"), torn).unwrap();
            let imported = golden.imported(false);
            assert_eq!(imported.last, Zxid(golden.last.0 - 1));
            assert_eq!((imported.digests.compared, imported.digests.differ), (15, 0));
        }
    }
    fs::write(golden.file("log.1c"), b"").unwrap();
    let recovered = golden.recover();
    assert_eq!(recovered.db.tree.last_zxid(), Zxid(0x1b));
    assert_eq!(fs::read(golden.file("log.1c")).unwrap(), b"", "not even an empty file is touched");
}

#[test]
fn a_damaged_log_is_named() {
    let golden = Golden::new("plain");
    let mut log = fs::read(golden.file("log.1c")).unwrap();
    let middle = 60;
    log[middle] ^= 0x10;
    fs::write(golden.file("log.1c"), log).unwrap();
    let error = golden.refused(false);
    assert!(matches!(&error, ImportError::Log { path, .. } if path.ends_with("log.1c")), "{error}");
    // What was begun counts for nothing: with the file restored it is imported.
    vectors::write_files(&golden.vectors, golden.dir.path());
    golden.check(&golden.recover().db.tree);
}

#[test]
fn in_place_of_a_damaged_snapshot_comes_an_older_one() {
    let golden = Golden::new("plain");
    let whole = fs::read(golden.file("snapshot.1b")).unwrap();
    for at in (0..whole.len()).step_by(7).chain(whole.len() - 13..whole.len() - 5) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x08;
        // Of the header only the magic counts, as for upstream; yet the checksum has it all.
        fs::write(golden.file("snapshot.1b"), damaged).unwrap();
        let imported = golden.imported(false);
        assert_eq!(imported.snapshot.as_ref().unwrap().zxid, Zxid::ZERO, "byte {at}");
        assert_eq!((imported.last, imported.znodes), (golden.last, golden.node_count));
        assert_eq!(imported.digests.differ, 0, "byte {at}");
        assert!(imported.warnings()[0].contains("snapshot.1b cannot be used"));
    }
    for cut in (0..whole.len()).step_by(11) {
        fs::write(golden.file("snapshot.1b"), &whole[..cut]).unwrap();
        assert_eq!(golden.imported(false).snapshot.unwrap().zxid, Zxid::ZERO, "cut at {cut}");
    }
    golden.check(&golden.recover().db.tree);
}

#[test]
fn a_damaged_packed_snapshot_is_never_taken_for_whole() {
    for (name, snapshot) in [("gz", "snapshot.1b.gz"), ("snappy", "snapshot.1b.snappy")] {
        let golden = Golden::new(name);
        let whole = fs::read(golden.file(snapshot)).unwrap();
        let mut harmless = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(golden.file(snapshot), damaged).unwrap();
            match golden.report(false) {
                Report::Refused(ImportError::Hole {
                    after: Zxid::ZERO,
                    skipped,
                    next_file,
                    ..
                }) => {
                    assert_eq!(skipped.len(), 1);
                    assert!(next_file.ends_with("log.1c"));
                }
                // The time in gzip's header, or where else the same bytes can be copied from: it unpacks to
                // what it was.
                Report::Import(imported) => {
                    assert_eq!((imported.digests.compared, imported.digests.differ), (16, 0));
                    harmless += 1;
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
        assert!(harmless < whole.len() / 10, "{harmless} of {}", whole.len());
        for cut in (0..whole.len()).step_by(5) {
            fs::write(golden.file(snapshot), &whole[..cut]).unwrap();
            assert!(matches!(golden.report(false), Report::Refused(_)), "cut at {cut}");
        }
        fs::remove_file(golden.file("log.1c")).unwrap();
        let error = golden.refused(false);
        assert!(error.to_string().contains(snapshot), "{error}");
        assert!(matches!(error, ImportError::NoSnapshot(_)));
    }
}

#[test]
fn a_hole_is_refused_with_names() {
    let golden = Golden::new("plain");
    fs::remove_file(golden.file("log.1")).unwrap();
    fs::remove_file(golden.file("snapshot.1b")).unwrap();
    let error = golden.refused(false);
    let text = error.to_string();
    assert!(
        matches!(error, ImportError::Hole { after: Zxid::ZERO, next: Zxid(0x1c), .. }),
        "{text}"
    );
    for part in ["snapshot.0", "log.1c", "0x1c", "Restore"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // With neither snapshot there is nothing to begin from either.
    fs::remove_file(golden.file("snapshot.0")).unwrap();
    let error = golden.refused(true);
    assert!(error.to_string().contains("there is no snapshot"), "{error}");
    // But a log from the first transaction on needs none.
    vectors::write_files(&golden.vectors, golden.dir.path());
    fs::remove_file(golden.file("snapshot.1b")).unwrap();
    fs::remove_file(golden.file("snapshot.0")).unwrap();
    golden.check(&golden.recover().db.tree);
}

#[test]
fn an_import_that_was_cut_short_counts_for_nothing() {
    let golden = Golden::new("plain");
    let mut importer = Importer::new(&golden.config()).unwrap();
    importer.append(Zxid(7), Bytes::from_static(b"half")).unwrap();
    importer.flush().unwrap();
    drop(importer);
    golden.check(&golden.recover().db.tree);

    // Nor when Apache's files are gone by then.
    let golden = Golden::new("plain");
    drop(Importer::new(&golden.config()).unwrap());
    fs::remove_dir_all(golden.file("")).unwrap();
    let recovered = golden.recover();
    assert_eq!(recovered.db.tree.last_zxid(), Zxid::ZERO);
    assert_eq!(recovered.db.tree.iter().count(), 4);
}

#[test]
fn logs_in_a_folder_of_their_own() {
    let golden = Golden::new("plain");
    let logs = tempfile::tempdir().unwrap();
    let config = StorageConfig { data_log_dir: logs.path().to_owned(), ..golden.config() };
    // Configured so, and not moved.
    let Err(RecoveryError::Import(error)) = recover(&config, TREE).map(|_| ()) else {
        panic!("it should be refused")
    };
    assert!(matches!(error, ImportError::Misplaced { .. }), "{error}");
    fs::create_dir(logs.path().join("version-2")).unwrap();
    for name in ["log.1", "log.1c"] {
        fs::rename(golden.file(name), logs.path().join("version-2").join(name)).unwrap();
    }
    golden.check(&recover(&config, TREE).unwrap().db.tree);
}

#[test]
fn epochs_are_as_upstream_finds_them() {
    let set = |golden: &Golden, name: &str, text: Option<&str>| match text {
        Some(text) => fs::write(golden.file(name), text).unwrap(),
        None => fs::remove_file(golden.file(name)).unwrap(),
    };
    let epochs = |golden: &Golden| {
        let epochs = golden.imported(true).epochs;
        (epochs.accepted.0, epochs.current.0)
    };
    let golden = Golden::new("leader");
    assert_eq!(epochs(&golden), (1, 1));
    set(&golden, "acceptedEpoch", Some("7"));
    assert_eq!(epochs(&golden), (7, 1));
    set(&golden, "currentEpoch", Some("3\n"));
    assert_eq!(epochs(&golden), (7, 3));
    set(&golden, "acceptedEpoch", Some("2"));
    assert!(matches!(golden.refused(true), ImportError::AcceptedBehind { .. }));
    set(&golden, "acceptedEpoch", None);
    set(&golden, "currentEpoch", None);
    assert_eq!(epochs(&golden), (1, 1));
    // About to be written when it ended.
    set(&golden, "acceptedEpoch", Some("1"));
    set(&golden, "currentEpoch", Some("0"));
    let error = golden.refused(true);
    assert!(matches!(error, ImportError::EpochBehind { current: Epoch(0), .. }), "{error}");
    set(&golden, "currentEpoch.tmp", Some("1"));
    assert_eq!(epochs(&golden), (1, 1));
    set(&golden, "currentEpoch", Some("one"));
    assert!(matches!(golden.refused(true), ImportError::Epoch { .. }));
    // A standalone server never looks at them.
    let imported = golden.imported(false);
    assert_eq!((imported.epochs.accepted, imported.epochs.current), (Epoch(1), Epoch(1)));
    assert_eq!(imported.applied, golden.last);
}

#[test]
fn what_apache_writes_afterwards_is_noticed() {
    let golden = Golden::new("plain");
    let last = golden.recover().log.last();
    let files = || zk_storage::import::ApacheFiles::find(&golden.config()).unwrap().unwrap();
    let made =
        fs::metadata(golden.dir.path().join("paddock-log/identity")).unwrap().modified().unwrap();
    assert_eq!(files().newer_than(last, made), None);
    // In a file that was there, of which the name tells nothing.
    let longer = Golden::new("plain");
    fs::write(golden.file("log.1c"), fs::read(longer.file("log.1c")).unwrap()).unwrap();
    assert_eq!(files().newer_than(last, made), None);
    assert_eq!(files().newer_than(Zxid(last.0 - 1), made), Some(last));
    // In a new one.
    fs::write(golden.file("log.30"), b"").unwrap();
    assert_eq!(files().newer_than(last, made), Some(Zxid(0x30)));
}
