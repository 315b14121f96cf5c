//! What a million znodes cost: memory, and time per operation.
//!
//! `cargo run --release -p zk-tree --example tree_bench [znodes]`

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a measurement needs a clock and its numbers are small"
)]

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use zk_proto::acl::Acl;
use zk_proto::txn::{CreateTxn, DeleteTxn, LoggedTxn, SetDataTxn, Txn, TxnHeader};
use zk_proto::{OpCode, SessionId, Xid, Zxid};
use zk_tree::{CheckpointItem, Database, TreeConfig, WatchKind, WatcherId};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Resident memory in bytes, as Linux tells; 0 elsewhere.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()).unwrap_or(0)
        * 1024
}

/// What this thread has run, without the times it had to wait for a processor; Linux only.
fn ran() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0))
}

struct Bench {
    database: Database,
    zxid: i64,
}

impl Bench {
    fn apply(&mut self, op: OpCode, txn: Txn) -> Duration {
        self.zxid += 1;
        let header =
            TxnHeader { client_id: SessionId(1), cxid: Xid(1), zxid: Zxid(self.zxid), time: 0, op };
        let txn = LoggedTxn { header, txn, digest: None };
        let start = Instant::now();
        self.database.apply(&txn, &mut |_, _| {});
        start.elapsed()
    }

    fn create(&mut self, path: String, data: &Bytes, acl: &[Acl]) -> Duration {
        let data = Some(data.clone());
        let txn =
            CreateTxn { path, data, acl: acl.to_vec(), ephemeral: false, parent_cversion: -1 };
        self.apply(OpCode::CREATE, Txn::Create(txn))
    }

    /// Every change since the last one; the longest wait for a lock and the number of items.
    fn checkpoint(&mut self) -> (Duration, Duration, usize) {
        let start = Instant::now();
        let mut checkpoint = self.database.begin_checkpoint();
        let mut longest = start.elapsed();
        let mut count = 0;
        loop {
            let mut items: Vec<CheckpointItem> = Vec::new();
            let chunk = Instant::now();
            let more = self.database.checkpoint_chunk(&mut checkpoint, 1000, &mut items);
            longest = longest.max(chunk.elapsed());
            checkpoint.run_unlocked();
            count += items.len();
            if !more {
                break;
            }
        }
        let end = Instant::now();
        let spent = self.database.end_checkpoint(checkpoint, true);
        longest = longest.max(end.elapsed());
        drop(spent);
        (start.elapsed(), longest, count)
    }
}

/// Each call timed alone, the worst of them, and the processor time per call since `from`, the
/// caller's own work included.
fn report(what: &str, times: &[Duration], from: Duration) {
    let ran = (ran() - from).as_nanos() / times.len() as u128;
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |permille: usize| sorted[(sorted.len() - 1) * permille / 1000].as_nanos();
    println!(
        "{what:24} ran {ran:6} ns  p50 {:6}  p99 {:6}  p99.9 {:7}  max {:9}",
        at(500),
        at(990),
        at(999),
        at(1000),
    );
}

fn main() {
    let count: u64 =
        std::env::args().nth(1).map_or(1_000_000, |arg| arg.parse().expect("a number"));
    let before = resident();
    let mut bench = Bench { database: Database::new(TreeConfig::default()), zxid: 0 };
    let data = Bytes::from(vec![b'x'; 100]);
    let acl = Acl::open();
    let path = |i: u64| format!("/bench/d{:03}/node{:06}", i % 100, i / 100);

    bench.create("/bench".into(), &data, &acl);
    for dir in 0..100 {
        bench.create(format!("/bench/d{dir:03}"), &data, &acl);
    }
    let mut times = Vec::with_capacity(count as usize);
    let own = resident();
    let from = ran();
    times.extend((0..count).map(|i| bench.create(path(i), &data, &acl)));
    let after = resident();
    report("create", &times, from);
    // The times themselves are resident by now.
    let measured = after - before - (times.len() * size_of::<Duration>()).min(after - own);
    println!("resident {} MB, {} bytes per znode", after >> 20, measured as u64 / count);

    let mut state = 1_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % count
    };
    let paths: Vec<String> = (0..100_000).map(|_| path(random())).collect();
    for what in ["find cold", "find warm"] {
        let paths = if what == "find cold" { &paths[..] } else { &paths[..1000] };
        let rounds = 100_000 / paths.len();
        let from = ran();
        let mut bytes = 0;
        for _ in 0..rounds {
            for path in paths {
                bytes += bench.database.tree.find(path).map_or(0, |node| node.stat().data_length);
            }
        }
        println!("{what:24} ran {:6} ns ({bytes})", (ran() - from).as_nanos() / 100_000);
    }

    times.clear();
    let from = ran();
    times.extend(paths.iter().map(|path| {
        let txn = SetDataTxn { path: path.clone(), data: Some(data.clone()), version: 1 };
        bench.apply(OpCode::SET_DATA, Txn::SetData(txn))
    }));
    report("setData", &times, from);

    let (total, longest, items) = bench.checkpoint();
    println!(
        "checkpoint of {items}: {total:?}, longest step {longest:?}; resident {} MB",
        resident() >> 20
    );

    // Changes while a checkpoint holds everything.
    for path in &paths {
        let txn = SetDataTxn { path: path.clone(), data: Some(data.clone()), version: 2 };
        bench.apply(OpCode::SET_DATA, Txn::SetData(txn));
    }
    let running = bench.database.begin_checkpoint();
    times.clear();
    let from = ran();
    times.extend(paths.iter().map(|path| {
        let txn = SetDataTxn { path: path.clone(), data: Some(data.clone()), version: 3 };
        bench.apply(OpCode::SET_DATA, Txn::SetData(txn))
    }));
    report("setData, saving images", &times, from);
    drop(bench.database.end_checkpoint(running, true));

    times.clear();
    let from = ran();
    times.extend(paths.iter().map(|path| {
        let start = Instant::now();
        bench.database.watches.add(path, WatcherId(1), WatchKind::Data);
        start.elapsed()
    }));
    report("watch", &times, from);
    times.clear();
    let from = ran();
    times.extend(paths.iter().map(|path| {
        let txn = SetDataTxn { path: path.clone(), data: Some(data.clone()), version: 4 };
        bench.apply(OpCode::SET_DATA, Txn::SetData(txn))
    }));
    report("setData, watched", &times, from);

    // In order of paths, as storage does it; from memory.
    let nodes = bench.database.tree.iter();
    let mut stored: Vec<_> = nodes
        .map(|(path, node)| {
            (path, node.data().map(<[u8]>::to_vec), node.acl_shared(), node.stat_persisted())
        })
        .collect();
    stored.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    // Side by side, as in a file's blocks.
    let stored: Vec<_> = stored.iter().map(Clone::clone).collect();
    let from = ran();
    let mut loaded = Database::new(TreeConfig::default());
    for (path, data, acl, stat) in &stored {
        loaded.load_znode(path, data.as_deref(), acl, stat);
    }
    loaded.finish_load(bench.database.tree.last_zxid()).expect("it was a tree");
    println!(
        "load: ran {:?}; digests agree: {}",
        ran() - from,
        loaded.tree.digest() == bench.database.tree.digest()
    );
    drop(loaded);

    times.clear();
    let from = ran();
    times.extend(
        (0..count).map(|i| bench.apply(OpCode::DELETE, Txn::Delete(DeleteTxn { path: path(i) }))),
    );
    report("delete", &times, from);
}
