//! A process that appends, checkpoints and purges is killed at random points, again and again. What
//! is recovered holds every transaction it acknowledged, in order, and nothing half done.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a failing test may panic, and its values are small"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use zk_proto::Zxid;
use zk_proto::data::StatPersisted;
use zk_storage::{
    LogConfig, Meta, Opened, StateItem, StorageConfig, StorageError, Write, ZnodeValue,
};

const FOLDER_VAR: &str = "ZK_STORAGE_CRASH_FOLDER";
const ROUNDS: u32 = 100;
const PATHS: i64 = 500;

/// What a transaction does: the znode `zxid % PATHS` gets the zxid as its data, or goes.
fn apply(tree: &mut BTreeMap<String, i64>, zxid: i64) -> (String, Option<i64>) {
    let path = format!("/{:04}", zxid.wrapping_mul(7) % PATHS);
    let value = (zxid % 5 != 0).then_some(zxid);
    match value {
        Some(zxid) => tree.insert(path.clone(), zxid),
        None => tree.remove(&path),
    };
    (path, value)
}

fn payload(zxid: i64) -> Vec<u8> {
    (0..20 + zxid % 300).map(|at| (zxid * 31 + at) as u8).collect()
}

/// The tree as recovered, its last zxid and what it was opened from.
fn recover(folder: &Path) -> (BTreeMap<String, i64>, i64, Opened) {
    let log = LogConfig { segment_bytes: 128 << 10, force_sync: true };
    let config =
        StorageConfig { data_dir: folder.to_owned(), data_log_dir: folder.to_owned(), log };
    let mut opened = zk_storage::open(&config).unwrap_or_else(|err| panic!("{err}"));
    let mut tree = BTreeMap::new();
    let scanned = opened.state.snapshot().scan(|item| {
        let StateItem::Znode { path, value } = item else { panic!("{item:?}") };
        let data = value.data.unwrap().try_into().unwrap();
        assert_eq!(value.stat.mzxid, i64::from_be_bytes(data));
        tree.insert(path.to_owned(), value.stat.mzxid);
        Ok::<(), StorageError>(())
    });
    scanned.unwrap();
    let mut last = opened.state.meta().map_or(0, |meta| meta.applied.0);
    for txn in opened.replay.by_ref() {
        let (zxid, found) = txn.unwrap();
        last += 1;
        assert_eq!((zxid, &found[..]), (Zxid(last), &payload(last)[..]));
        apply(&mut tree, last);
    }
    assert_eq!(opened.log.last(), Zxid(last));
    (tree, last, opened)
}

/// The child: works until it is killed, and says what is acknowledged.
fn work(folder: &Path) {
    let (mut tree, mut last, mut opened) = recover(folder);
    let (state, handle) = (&opened.state, opened.log.handle());
    let applied = AtomicI64::new(state.meta().map_or(0, |meta| meta.applied.0));
    let (changes_tx, changes_rx) = std::sync::mpsc::sync_channel::<(i64, Changes)>(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (zxid, changes) in changes_rx {
                handle.prepare_next().unwrap();
                let mut writer = state.begin_checkpoint();
                for (path, value) in &changes {
                    match value {
                        Some(mzxid) => {
                            let stat = StatPersisted { mzxid: *mzxid, ..StatPersisted::default() };
                            let data = mzxid.to_be_bytes();
                            let znode = ZnodeValue { data: Some(&data), acl: b"", stat };
                            writer.put_znode(path, &znode).unwrap();
                        }
                        None => writer.delete_znode(path).unwrap(),
                    }
                }
                writer.finish(Meta { applied: Zxid(zxid), digest: 0, time_ms: 0 }).unwrap();
                applied.store(zxid, Ordering::SeqCst);
                handle.purge(Zxid(zxid), 300).unwrap();
            }
        });
        let mut changes = Changes::new();
        // What was replayed is in no checkpoint yet.
        for zxid in applied.load(Ordering::SeqCst) + 1..=last {
            let (path, value) = apply(&mut BTreeMap::new(), zxid);
            changes.insert(path, value);
        }
        let mut out = std::io::stdout().lock();
        loop {
            let batch_len = 1 + last.wrapping_mul(0x9e37) % 40;
            let batch: Vec<_> = (last + 1..=last + batch_len)
                .map(|zxid| Write::Txn { zxid: Zxid(zxid), payload: payload(zxid).into() })
                .collect();
            opened.log.append(&batch).unwrap();
            for zxid in last + 1..=last + batch_len {
                let (path, value) = apply(&mut tree, zxid);
                changes.insert(path, value);
            }
            last += batch_len;
            writeln!(out, "{last}").unwrap();
            out.flush().unwrap();
            match changes_tx.try_send((last, std::mem::take(&mut changes))) {
                Ok(()) => {}
                Err(err) => match err {
                    std::sync::mpsc::TrySendError::Full((_, kept)) => changes = kept,
                    std::sync::mpsc::TrySendError::Disconnected(_) => panic!("the background died"),
                },
            }
        }
    });
}

type Changes = BTreeMap<String, Option<i64>>;

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    if let Some(folder) = std::env::var_os(FOLDER_VAR) {
        work(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    let mut checked = 0;
    let mut torn = 0;
    let mut purged = false;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_loses_nothing_acknowledged", "--nocapture"])
            .env(FOLDER_VAR, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some are killed while they recover, the others soon after.
        let until =
            Instant::now() + Duration::from_micros(u64::from(round * round * 7919 % 60_000));
        let mut acknowledged = 0;
        if round % 8 == 0 {
            std::thread::sleep(until - Instant::now());
        } else {
            for line in lines.by_ref() {
                acknowledged = line.unwrap().parse().unwrap_or(acknowledged);
                if acknowledged > checked && Instant::now() > until {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too. A line may be cut off.
        for line in lines {
            let line = line.unwrap();
            if let Ok(zxid) = line.parse::<i64>()
                && zxid > acknowledged
                && zxid - acknowledged <= 40
            {
                acknowledged = zxid;
            }
        }

        let (tree, last, opened) = recover(folder.path());
        assert!(last >= acknowledged.max(checked), "{last} of {acknowledged}, round {round}");
        torn += i64::from(last > acknowledged);
        purged |= opened.log.handle().bounds().0 > Zxid::ZERO;
        for zxid in checked + 1..=last {
            apply(&mut expected, zxid);
        }
        assert_eq!(tree, expected, "round {round}");
        checked = last;
    }
    assert!(checked > 1000, "only {checked} transactions: this proves little");
    assert!(purged, "nothing was ever purged");
    assert!(torn > 0, "no kill ever fell between an append and its acknowledgement");
}
