//! What an append costs beside a bare write and sync of as many bytes, and what checkpoints cost and
//! do to appends.
//!
//! `cargo run --release -p zk-storage --example log_bench -- [--json] [--dir DIR] [--seconds N]
//! [--znodes N]`
//!
//! Bare writes and appends take turns within one run, so that both meet the same disk. The folder
//! should be on the disk that is asked about.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, and small numbers"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zk_proto::Zxid;
use zk_proto::data::StatPersisted;
use zk_storage::{
    LogConfig, LogHandle, Meta, State, StateItem, StorageConfig, StorageError, Write, ZnodeValue,
};

const PAYLOAD_BYTES: usize = 250;
const TURN: Duration = Duration::from_millis(250);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut is_json = false;
    let (mut dir, mut seconds, mut znodes) = (PathBuf::from("."), 8, 1_000_000);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--json" => is_json = true,
            "--dir" => dir = value()?.into(),
            "--seconds" => seconds = value()?.parse()?,
            "--znodes" => znodes = value()?.parse()?,
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    fs::create_dir_all(&dir)?;
    let folder = tempfile::tempdir_in(&dir)?;
    let mut results = Vec::new();
    for batch in [1, 20, 500] {
        results.push(appends(folder.path(), batch, seconds)?);
    }
    results.push(open_empty(folder.path())?);
    if znodes > 0 {
        results.extend(checkpoints(folder.path(), znodes, seconds)?);
    }
    for result in results {
        if is_json {
            println!("{result}");
        } else {
            let fields = result.as_object().ok_or("each result is an object")?;
            let texts: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            println!("{}", texts.join("  "));
        }
    }
    Ok(())
}

fn config(folder: &Path) -> StorageConfig {
    StorageConfig {
        data_dir: folder.to_owned(),
        data_log_dir: folder.to_owned(),
        log: LogConfig::default(),
    }
}

/// Latencies of one kind of step, and the CPU time of the thread meanwhile.
#[derive(Default)]
struct Timed {
    micros: Vec<f64>,
    cpu: Duration,
    wall: Duration,
}

impl Timed {
    fn turn(
        &mut self,
        length: Duration,
        mut step: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (cpu, start) = (thread_cpu()?, Instant::now());
        while start.elapsed() < length {
            let before = Instant::now();
            step()?;
            self.micros.push(before.elapsed().as_secs_f64() * 1e6);
        }
        self.cpu += thread_cpu()? - cpu;
        self.wall += start.elapsed();
        Ok(())
    }

    fn percentile(&mut self, percent: f64) -> f64 {
        self.micros.sort_by(f64::total_cmp);
        let at = ((self.micros.len() - 1) as f64 * percent / 100.0) as usize;
        rounded(self.micros[at])
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.micros.len() as f64
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// CPU time of the calling thread.
fn thread_cpu() -> Result<Duration, Failure> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().ok_or("schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

fn resident_mb() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// Appends, with the work of the background thread done between the turns and not timed.
struct Appender {
    opened: zk_storage::Opened,
    zxid: i64,
    batch: usize,
}

impl Appender {
    fn append(&mut self) -> Result<(), Failure> {
        let payload = bytes::Bytes::from_static(&[0xa5; PAYLOAD_BYTES]);
        let first = self.zxid + 1;
        self.zxid += self.batch as i64;
        let writes: Vec<_> = (first..=self.zxid)
            .map(|zxid| Write::Txn { zxid: Zxid(zxid), payload: payload.clone() })
            .collect();
        Ok(self.opened.log.append(&writes)?)
    }
}

fn appends(folder: &Path, batch: usize, seconds: u64) -> Result<Value, Failure> {
    let folder = tempfile::tempdir_in(folder)?;
    let (path, len) = (folder.path().join("bare"), 64 << 20);
    let bare_file = File::create_new(&path)?;
    bare_file.write_all_at(&vec![0; len], 0)?;
    bare_file.sync_all()?;
    // As many bytes as the log writes: 24 around each payload, to a multiple of eight.
    let bytes = vec![0x5a; batch * (PAYLOAD_BYTES + 24).next_multiple_of(8)];
    let mut at = 0;

    let opened = zk_storage::open(&config(folder.path()))?;
    let handle = opened.log.handle();
    let mut appender = Appender { opened, zxid: 0, batch };
    let (mut bare, mut log) = (Timed::default(), Timed::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let background = scope.spawn(|| maintain(&handle, &stop));
        let mut run = || {
            appender.append()?;
            for _ in 0..seconds * 2 {
                bare.turn(TURN, || {
                    if at + bytes.len() > len {
                        at = 0;
                    }
                    bare_file.write_all_at(&bytes, at as u64)?;
                    at += bytes.len();
                    Ok(bare_file.sync_data()?)
                })?;
                log.turn(TURN, || appender.append())?;
            }
            Ok::<(), Failure>(())
        };
        let result = run();
        stop.store(true, Ordering::Relaxed);
        background.join().map_err(|_| "the background thread panicked")??;
        result
    })?;
    Ok(json!({
        "measure": "append",
        "txns_per_batch": batch,
        "bare_p50_us": bare.percentile(50.0),
        "log_p50_us": log.percentile(50.0),
        "ratio_p50": rounded(log.percentile(50.0) / bare.percentile(50.0)),
        "bare_p99_us": bare.percentile(99.0),
        "log_p99_us": log.percentile(99.0),
        "txns_per_s": ((log.micros.len() * batch) as f64 / log.wall.as_secs_f64()).round(),
        "cpu_us_per_txn_beside_bare": rounded((log.cpu_micros() - bare.cpu_micros()) / batch as f64),
    }))
}

/// What a server does in the background: the next segment, and the purge.
fn maintain(handle: &LogHandle, stop: &AtomicBool) -> Result<(), zk_storage::LogError> {
    while !stop.load(Ordering::Relaxed) {
        handle.prepare_next()?;
        handle.purge(handle.bounds().1, 100_000)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn open_empty(folder: &Path) -> Result<Value, Failure> {
    let folder = tempfile::tempdir_in(folder)?;
    let start = Instant::now();
    let mut opened = zk_storage::open(&config(folder.path()))?;
    let open_ms = start.elapsed();
    opened.log.append(&[Write::Txn { zxid: Zxid(1), payload: bytes::Bytes::new() }])?;
    Ok(json!({
        "measure": "start_empty",
        "open_ms": millis(open_ms),
        "open_and_append_ms": millis(start.elapsed()),
    }))
}

fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

/// A checkpoint of the changed znodes, each given by its number.
fn checkpoint(
    state: &State,
    applied: i64,
    numbers: impl Iterator<Item = usize>,
) -> Result<(), StorageError> {
    let mut writer = state.begin_checkpoint();
    let data = [applied as u8; 100];
    let stat = StatPersisted { mzxid: applied, ..StatPersisted::default() };
    let mut path = String::new();
    for number in numbers {
        use std::fmt::Write as _;
        path.clear();
        write!(path, "/bench/node-{number:010}").expect("writing to a string");
        writer.put_znode(&path, &ZnodeValue { data: Some(&data), acl: b"", stat })?;
    }
    writer.finish(Meta { applied: Zxid(applied), digest: 0, time_ms: 0 })
}

fn checkpoints(folder: &Path, znodes: usize, seconds: u64) -> Result<Vec<Value>, Failure> {
    let folder = tempfile::tempdir_in(folder)?;
    let opened = zk_storage::open(&config(folder.path()))?;
    let start = Instant::now();
    checkpoint(&opened.state, 0, 0..znodes)?;
    let full = start.elapsed();

    let mut appender = Appender { opened, zxid: 0, batch: 20 };
    let handle = appender.opened.log.handle();
    appender.append()?;
    handle.prepare_next()?;
    // One in a hundred changes between two checkpoints.
    let changed = znodes / 100;
    let (mut quiet, mut busy) = (Timed::default(), Timed::default());
    let mut incremental = Timed::default();
    for turn in 0..seconds * 2 {
        quiet.turn(TURN, || appender.append())?;
        let stop = AtomicBool::new(false);
        let opened = &mut appender.opened;
        let (state, log) = (&opened.state, &mut opened.log);
        let zxid = &mut appender.zxid;
        std::thread::scope(|scope| {
            let background = scope.spawn(|| {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    let first = (turn as usize * 31 + round * 7) % 100;
                    checkpoint(state, 0, (first..znodes).step_by(100))?;
                    incremental.micros.push(before.elapsed().as_secs_f64() * 1e6);
                    round += 1;
                    std::thread::sleep(Duration::from_millis(100));
                }
                Ok::<(), StorageError>(())
            });
            let result = busy.turn(TURN, || {
                let payload = bytes::Bytes::from_static(&[0xa5; PAYLOAD_BYTES]);
                let writes: Vec<_> = (*zxid + 1..=*zxid + 20)
                    .map(|zxid| Write::Txn { zxid: Zxid(zxid), payload: payload.clone() })
                    .collect();
                *zxid += 20;
                Ok(log.append(&writes)?)
            });
            stop.store(true, Ordering::Relaxed);
            background.join().map_err(|_| "the background thread panicked")??;
            result
        })?;
        handle.prepare_next()?;
    }
    drop((appender, handle));

    let start = Instant::now();
    let opened = zk_storage::open(&config(folder.path()))?;
    let open = start.elapsed();
    let (start, cpu_before) = (Instant::now(), thread_cpu()?);
    let mut seen = 0;
    opened.state.snapshot().scan(|item| {
        if let StateItem::Znode { value, .. } = item {
            seen += usize::from(value.data.is_some_and(|data| data.len() == 100));
        }
        Ok::<(), StorageError>(())
    })?;
    let (scan, scan_cpu) = (start.elapsed(), thread_cpu()? - cpu_before);
    assert_eq!(seen, znodes, "every znode is read back");
    let start = Instant::now();
    let replayed = opened.replay.map(|txn| txn.map(|_| ())).collect::<Result<Vec<_>, _>>()?.len();
    let replay = start.elapsed();
    Ok(vec![
        json!({
            "measure": "checkpoint",
            "znodes": znodes,
            "full_ms": millis(full),
            "changed_znodes": changed,
            "changed_p50_ms": rounded(incremental.percentile(50.0) / 1e3),
            "changed_max_ms": rounded(incremental.percentile(100.0) / 1e3),
            "append_p50_us": quiet.percentile(50.0),
            "append_p50_us_beside": busy.percentile(50.0),
            "append_p99_us": quiet.percentile(99.0),
            "append_p99_us_beside": busy.percentile(99.0),
            "ratio_p99": rounded(busy.percentile(99.0) / quiet.percentile(99.0)),
        }),
        json!({
            "measure": "recovery",
            "znodes": znodes,
            "open_ms": millis(open),
            "scan_ms": millis(scan),
            "scan_cpu_ms": millis(scan_cpu),
            "replayed_txns": replayed,
            "replay_ms": millis(replay),
            "rss_mb": resident_mb()?,
        }),
    ])
}
