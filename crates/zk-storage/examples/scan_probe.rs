//! probe
#![allow(missing_docs, clippy::unwrap_used)]
use std::time::Instant;
use zk_proto::{Zxid, data::StatPersisted};
use zk_storage::*;
fn main() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = StorageConfig { data_dir: folder.path().to_owned(), data_log_dir: folder.path().to_owned(), log: LogConfig::default() };
    let opened = open(&config).unwrap();
    let data = [7_u8; 100];
    let mut writer = opened.state.begin_checkpoint();
    for n in 0..1_000_000 {
        writer.put_znode(&format!("/bench/node-{n:010}"), &ZnodeValue { data: Some(&data), acl: b"", stat: StatPersisted::default() }).unwrap();
    }
    writer.finish(Meta { applied: Zxid(0), digest: 0, time_ms: 0 }).unwrap();
    for _ in 0..5 {
        let cpu = || std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
        let (t, c) = (Instant::now(), cpu());
        let mut n = 0;
        opened.state.snapshot().scan(|_| { n += 1; Ok::<(), StorageError>(()) }).unwrap();
        println!("{n} {:?} cpu {}", t.elapsed(), (cpu() - c) / 1_000_000);
    }
}
