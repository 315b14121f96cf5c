//! A snapshot takes the place of state and log: after a crash at any point both are as before, or both
//! as after.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a failing test may panic, and its values are small"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use zk_proto::data::StatPersisted;
use zk_proto::{Epoch, Zxid};
use zk_storage::{
    Epochs, LogConfig, Meta, Opened, StagedState, State, StateItem, StorageConfig, StorageError,
    Write, ZnodeValue,
};
use zk_testkit::copy_folder;

fn try_open(folder: &Path) -> Result<Opened, StorageError> {
    let log = LogConfig { segment_bytes: 64 << 10, force_sync: true };
    let (data_dir, data_log_dir) = (folder.to_owned(), folder.to_owned());
    let config = StorageConfig { data_dir, data_log_dir, log };
    for _ in 0..500 {
        match zk_storage::open(&config) {
            // A child of another test shares this process's locks until it is on its own.
            Err(StorageError::InUse { .. }) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened,
        }
    }
    panic!("{} stays in use", folder.display());
}

fn open(folder: &Path) -> Opened {
    try_open(folder).unwrap_or_else(|err| panic!("{err}"))
}

/// A history that goes on from a snapshot, or from nothing: its number is in all that belongs to it.
type Lineage = i64;

fn payload(lineage: Lineage, zxid: i64) -> Vec<u8> {
    let rest = (0..zxid % 100).map(|at| (zxid * 31 + at) as u8);
    lineage.to_be_bytes().into_iter().chain(zxid.to_be_bytes()).chain(rest).collect()
}

fn txn(lineage: Lineage, zxid: i64) -> Write {
    Write::Txn { zxid: Zxid(zxid), payload: payload(lineage, zxid).into() }
}

fn znode(number: i64, put: impl FnOnce(&ZnodeValue<'_>) -> Result<(), StorageError>) {
    let data = number.to_be_bytes();
    let stat = StatPersisted::default();
    put(&ZnodeValue { data: Some(&data), acl: b"", stat }).unwrap();
}

fn meta(applied: i64) -> Meta {
    Meta { applied: Zxid(applied), digest: 0, time_ms: 0 }
}

const FILLERS: i64 = 300;

fn filler(lineage: Lineage, number: i64) -> (String, i64) {
    (format!("/{lineage}-{}", number * 7 % FILLERS), lineage)
}

fn checkpoint(state: &State, applied: i64) {
    let mut writer = state.begin_checkpoint();
    znode(applied, |value| writer.put_znode("/last", value));
    writer.finish(meta(applied)).unwrap();
}

fn stage(state: &State, lineage: Lineage, zxid: i64) -> StagedState {
    let mut writer = state.stage().unwrap();
    znode(zxid, |value| writer.put_znode("/last", value));
    for number in 0..FILLERS {
        let (path, value) = filler(lineage, number);
        znode(value, |value| writer.put_znode(&path, value));
    }
    znode(lineage, |value| writer.put_znode("/lineage", value));
    writer.finish(meta(zxid)).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recovered {
    lineage: Lineage,
    applied: i64,
    last: i64,
    epochs: Epochs,
}

/// Checks that state and log belong together, and says what they are.
fn recovered(opened: &mut Opened) -> Recovered {
    let mut znodes: BTreeMap<String, i64> = BTreeMap::new();
    let scanned = opened.state.snapshot().scan(|item| {
        let StateItem::Znode { path, value } = item else { panic!("{item:?}") };
        let number = i64::from_be_bytes(value.data.unwrap().try_into().unwrap());
        znodes.insert(path.to_owned(), number);
        Ok::<(), StorageError>(())
    });
    scanned.unwrap();
    let applied = opened.state.meta().map_or(0, |meta| meta.applied.0);
    let lineage = znodes.remove("/lineage").unwrap_or_default();
    assert_eq!(znodes.remove("/last").unwrap_or_default(), applied);
    let count = if lineage == 0 { 0 } else { FILLERS };
    assert_eq!(znodes, (0..count).map(|number| filler(lineage, number)).collect());

    let durable = opened.take_durable().unwrap();
    assert_eq!(durable.applied, Zxid(applied));
    let mut last = applied;
    for (zxid, found) in durable.tail {
        last += 1;
        assert_eq!((zxid, &found[..]), (Zxid(last), &payload(lineage, last)[..]));
    }
    assert_eq!(opened.log.last(), Zxid(last));
    let epochs = opened.log.epochs();
    assert_eq!((durable.accepted_epoch, durable.current_epoch), (epochs.accepted, epochs.current));
    Recovered { lineage, applied, last, epochs }
}

/// What a crash at this moment leaves.
fn image(folder: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    copy_folder(folder, image.path());
    image
}

fn epochs(accepted: i32, current: i32) -> Epochs {
    Epochs { accepted: Epoch(accepted), current: Epoch(current) }
}

const BEFORE: Recovered = Recovered {
    lineage: 0,
    applied: 4,
    last: 10,
    epochs: Epochs { accepted: Epoch(3), current: Epoch(2) },
};

/// Ten transactions, of which the state has four.
fn sample() -> (TempDir, Opened) {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(folder.path());
    opened.log.append(&[Write::AcceptedEpoch(Epoch(3)), Write::CurrentEpoch(Epoch(2))]).unwrap();
    opened.log.append(&(1..=10).map(|zxid| txn(0, zxid)).collect::<Vec<_>>()).unwrap();
    checkpoint(&opened.state, 4);
    (folder, opened)
}

/// Where the folder's images are taken while a snapshot is installed, and what is done at NEWLEADER.
struct Images {
    staging: TempDir,
    staged: TempDir,
    logged: TempDir,
    installed: TempDir,
}

/// From a snapshot of this zxid on.
fn install(zxid: i64) -> Images {
    let (folder, mut opened) = sample();
    let mut writer = opened.state.stage().unwrap();
    znode(1, |value| writer.put_znode("/a", value));
    let staging = image(folder.path());
    drop(writer);
    let snapshot = stage(&opened.state, 1, zxid);
    let staged = image(folder.path());
    let batch = [
        Write::InstallSnapshot { zxid: Zxid(zxid), staged: snapshot.id() },
        txn(1, zxid + 1),
        txn(1, zxid + 2),
        Write::CurrentEpoch(Epoch(3)),
    ];
    opened.log.append(&batch).unwrap();
    let logged = image(folder.path());
    opened.state.install(snapshot).unwrap();
    let installed = image(folder.path());
    // And on.
    opened.log.append(&[txn(1, zxid + 3)]).unwrap();
    checkpoint(&opened.state, zxid + 2);
    opened.state.reclaim().unwrap();
    drop(opened);
    let expected =
        Recovered { lineage: 1, applied: zxid + 2, last: zxid + 3, epochs: epochs(3, 3) };
    assert_eq!(recovered(&mut open(folder.path())), expected);
    Images { staging, staged, logged, installed }
}

/// It is this, and stays it; and the next snapshot can be installed.
fn check(image: &Path, expected: Recovered) {
    for _ in 0..2 {
        assert_eq!(recovered(&mut open(image)), expected);
    }
    let mut opened = open(image);
    let snapshot = stage(&opened.state, 2, 5);
    let write = Write::InstallSnapshot { zxid: Zxid(5), staged: snapshot.id() };
    opened.log.append(&[write, Write::CurrentEpoch(expected.epochs.current)]).unwrap();
    opened.state.install(snapshot).unwrap();
    drop(opened);
    let expected = Recovered { lineage: 2, applied: 5, last: 5, epochs: expected.epochs };
    assert_eq!(recovered(&mut open(image)), expected);
}

/// Below, at and above what is applied and what is logged.
const ZXIDS: [i64; 6] = [0, 2, 4, 7, 10, 25];

#[test]
fn a_crash_at_any_step_is_before_or_after() {
    for zxid in ZXIDS {
        let images = install(zxid);
        let after = Recovered { lineage: 1, applied: zxid, last: zxid + 2, epochs: epochs(3, 3) };
        // While it is being written down which state counts.
        for part in ["", "0", "0123456789abcdef"] {
            let between = image(images.logged.path());
            fs::write(between.path().join("paddock-state/generation.tmp"), part).unwrap();
            check(between.path(), after);
        }
        let between = image(images.logged.path());
        let file = "paddock-state/generation";
        fs::copy(images.installed.path().join(file), between.path().join(file)).unwrap();
        check(between.path(), after);

        check(images.staging.path(), BEFORE);
        check(images.staged.path(), BEFORE);
        check(images.logged.path(), after);
        check(images.installed.path(), after);
    }
}

#[test]
fn a_torn_switch_is_none_or_whole() {
    for zxid in [2, 25] {
        let images = install(zxid);
        let segment = "paddock-log/0000000000000001.log";
        let old = fs::read(images.staged.path().join(segment)).unwrap();
        let new = fs::read(images.logged.path().join(segment)).unwrap();
        let from = (0..old.len()).find(|&at| old[at] != new[at]).unwrap();
        let to = (0..old.len()).rev().find(|&at| old[at] != new[at]).unwrap() + 1;
        let mut seen = BTreeMap::new();
        // Every prefix, of bytes rather than of sectors.
        for cut in (from..=to).step_by(4).chain([to]) {
            let torn = image(images.logged.path());
            let file = fs::OpenOptions::new().write(true).open(torn.path().join(segment)).unwrap();
            file.write_all_at(&old[cut..to], cut as u64).unwrap();
            fs::copy(
                images.staged.path().join("paddock-log/watermark"),
                torn.path().join("paddock-log/watermark"),
            )
            .unwrap();
            let found = recovered(&mut open(torn.path()));
            assert_eq!(recovered(&mut open(torn.path())), found);
            if (cut - from) % 64 == 0 {
                check(torn.path(), found);
            }
            *seen.entry((found.lineage, found.last, found.epochs.current.0)).or_insert(0) += 1;
        }
        let legal = [(0, 10, 2), (1, zxid + 2, 3)];
        assert_eq!(seen.into_keys().collect::<Vec<_>>(), legal);
    }
}

#[test]
fn a_state_that_is_not_the_one_the_log_goes_on_from_is_refused() {
    let images = install(7);
    let state = |image: &TempDir| image.path().join("paddock-state");
    // From before the snapshot was received, though its zxid would do.
    let (earlier, opened) = sample();
    checkpoint(&opened.state, 8);
    drop(opened);
    let mixed = image(images.installed.path());
    for path in ["db", "generation"] {
        let path = state(&mixed).join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
    fs::create_dir(state(&mixed).join("db")).unwrap();
    copy_folder(&state(&earlier).join("db"), &state(&mixed).join("db"));
    // Its store is another; what is compared first is what the log goes on from.
    let err = try_open(mixed.path()).err().unwrap();
    assert!(matches!(err, StorageError::MissingSnapshot { zxid: Zxid(7), .. }), "{err}");
    assert!(err.to_string().contains("zxid 0x7") && err.exit_code() == 1, "{err}");

    fs::remove_dir_all(state(&mixed)).unwrap();
    let err = try_open(mixed.path()).err().unwrap();
    assert!(matches!(err, StorageError::MissingSnapshot { .. }), "{err}");
}

#[test]
fn the_old_log_is_purged_behind_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(folder.path());
    for zxid in 1..=3000 {
        opened.log.append(&[txn(0, zxid)]).unwrap();
    }
    let handle = opened.log.handle();
    assert_eq!(handle.purge(Zxid(0), 0).unwrap(), 0);
    let snapshot = stage(&opened.state, 1, 50);
    let write = Write::InstallSnapshot { zxid: Zxid(50), staged: snapshot.id() };
    opened.log.append(&[write, Write::CurrentEpoch(Epoch(0))]).unwrap();
    // Before the state is the snapshot already: nothing needs what was before.
    assert!(handle.purge(Zxid(0), 1_000_000).unwrap() > 3);
    drop((opened, handle));
    let mut opened = open(folder.path());
    let expected = Recovered { lineage: 1, applied: 50, last: 50, epochs: epochs(0, 0) };
    assert_eq!(recovered(&mut opened), expected);
    assert_eq!(opened.log.handle().bounds(), (Zxid(50), Zxid(50)));
}

const FOLDER_VAR: &str = "ZK_STORAGE_INSTALL_FOLDER";
const ROUNDS: u32 = 60;

/// Where a lineage begins: up and down.
fn base(lineage: Lineage) -> i64 {
    if lineage == 0 { 0 } else { lineage * 7919 % 900 }
}

/// The child: works until it is killed, and says what is acknowledged.
fn work(folder: &Path) {
    let mut opened = open(folder);
    let Recovered { mut lineage, mut last, .. } = recovered(&mut opened);
    let handle = opened.log.handle();
    let mut out = std::io::stdout().lock();
    for step in 1.. {
        let mut say = |lineage: Lineage, last: i64| {
            writeln!(out, "{lineage} {last}").unwrap();
            out.flush().unwrap();
        };
        let batch: Vec<_> =
            (last + 1..=last + 1 + step % 9).map(|zxid| txn(lineage, zxid)).collect();
        last += batch.len() as i64;
        opened.log.append(&batch).unwrap();
        say(lineage, last);
        if step % 3 == 0 {
            checkpoint(&opened.state, last);
            handle.prepare_next().unwrap();
            handle.purge(Zxid(last), 20).unwrap();
        }
        if step % 5 == 0 {
            (lineage, last) = (lineage + 1, base(lineage + 1));
            let snapshot = stage(&opened.state, lineage, last);
            let write = Write::InstallSnapshot { zxid: Zxid(last), staged: snapshot.id() };
            let mut batch = vec![write];
            batch.extend((0..step % 4).map(|at| txn(lineage, last + 1 + at)));
            last += batch.len() as i64 - 1;
            batch.push(Write::CurrentEpoch(Epoch(lineage as i32)));
            opened.log.append(&batch).unwrap();
            say(lineage, last);
            opened.state.install(snapshot).unwrap();
            opened.state.reclaim().unwrap();
        }
    }
}

#[test]
fn a_killed_process_is_before_or_after() {
    if let Some(folder) = std::env::var_os(FOLDER_VAR) {
        work(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut checked = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_is_before_or_after", "--nocapture"])
            .env(FOLDER_VAR, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let parse = |line: &str| {
            let (lineage, last) = line.split_once(' ')?;
            Some((lineage.parse::<i64>().ok()?, last.parse::<i64>().ok()?))
        };
        let pause = Duration::from_micros(u64::from(round * 7919 % 5_000));
        let mut acknowledged = checked;
        if round % 8 == 0 {
            // While it recovers.
            std::thread::sleep(4 * pause);
        } else {
            // After so many acknowledgements, with which it comes to the next snapshot or behind it.
            let lines = lines.by_ref().map_while(|line| parse(&line.unwrap()).or(Some((0, 0))));
            for said in lines.filter(|said| *said > checked).take(round as usize * 5 % 17) {
                acknowledged = acknowledged.max(said);
            }
            std::thread::sleep(pause);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may be cut off, and then says less.
        for line in lines {
            acknowledged = parse(&line.unwrap()).unwrap_or(acknowledged).max(acknowledged);
        }
        let found = recovered(&mut open(folder.path()));
        assert_eq!(i64::from(found.epochs.current.0), found.lineage);
        let found = (found.lineage, found.last);
        assert!(found >= acknowledged, "{found:?} of {acknowledged:?}, round {round}");
        checked = found;
    }
    assert!(checked.0 > 25, "only {checked:?}: this proves little");
}
