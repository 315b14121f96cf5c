//! Bringing the state on disk up to date, in the background and in small steps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use zk_proto::Zxid;
use zk_storage::{CheckpointWriter, LogHandle, Meta, State, StorageError, ZnodeValue};
use zk_tree::CheckpointItem;

use crate::context::{Context, Counters};

/// How often to look whether enough has changed.
const INTERVAL: Duration = Duration::from_millis(200);

/// Changed bytes that make a checkpoint due: what a restart has to replay at most, about.
const DUE_BYTES: u64 = 32 << 20;

/// How old a change may get before it is in a checkpoint: bounds the log that is kept.
const DUE_AGE: Duration = Duration::from_secs(60);

/// Znodes taken under one hold of the tree's read lock: about 50 µs.
const CHUNK: usize = 128;

/// Takes checkpoints until `stop` says so or is gone.
pub fn run(context: &Arc<Context>, state: &State, log: &LogHandle, stop: &Receiver<()>) {
    let mut last = Instant::now();
    let mut last_zxid = state.meta().map_or(Zxid::ZERO, |meta| meta.applied);
    let storage = &context.config.storage;
    let due_bytes = storage.snap_size_limit_bytes.map_or(DUE_BYTES, |limit| limit.min(DUE_BYTES));
    loop {
        match stop.recv_timeout(INTERVAL) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        guard_disk(context);
        let (zxid, count, bytes) = context
            .node
            .read(|db| (db.tree.last_zxid(), db.tree.dirty_count(), db.tree.dirty_bytes() as u64));
        // A new epoch makes it large at once, which does no harm; a snapshot may make it negative.
        let txns = zxid.0 - last_zxid.0;
        let due =
            txns >= storage.snap_count.into() || bytes >= due_bytes || last.elapsed() >= DUE_AGE;
        if count == 0 || !due {
            continue;
        }
        last = Instant::now();
        last_zxid = zxid;
        match take(context, state, log) {
            Ok(()) => {}
            Err(StorageError::Superseded) => {
                tracing::debug!(
                    "a checkpoint was given up: a snapshot from the leader took its place"
                );
            }
            Err(error) => {
                Counters::add(&context.counters.checkpoint_errors, 1);
                tracing::error!(%error, "no checkpoint could be taken; the log keeps everything, and the next try is due soon");
            }
        }
        if context.quorum.is_some()
            && let Err(error) = state.reclaim()
        {
            tracing::warn!(%error, "the space of a replaced state could not be freed; it is tried again");
        }
    }
}

fn take(context: &Context, state: &State, log: &LogHandle) -> Result<(), StorageError> {
    let begun = Instant::now();
    // In this order: a snapshot that becomes the state between the two, or later, is found out when the
    // writer finishes.
    let mut writer = state.begin_checkpoint();
    let Some(mut checkpoint) = context.node.begin_checkpoint() else {
        return Ok(()); // a snapshot from the leader is becoming the state
    };
    if context.quorum.is_some() {
        // What is not in the log any more after this is in the files: see `membership`. A configuration that
        // is in the tree has been activated when the core can be asked.
        drop(context.node.quorum_status());
        context.membership.write_files();
    }
    let meta = Meta {
        applied: checkpoint.zxid(),
        digest: checkpoint.digest(),
        time_ms: context.clock.now().wall_ms,
    };
    let mut written = 0usize;
    let result = (|| {
        let mut items = Vec::with_capacity(CHUNK);
        loop {
            items.clear();
            checkpoint.run_unlocked();
            let more =
                context.node.read(|db| db.checkpoint_chunk(&mut checkpoint, CHUNK, &mut items));
            for item in &items {
                write_item(&mut writer, item)?;
            }
            written += items.len();
            if !more {
                return writer.finish(meta);
            }
        }
    })();
    context.node.end_checkpoint(checkpoint, result.is_ok());
    result?;
    let took = begun.elapsed();
    context.counters.checkpoint.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    tracing::debug!(zxid = %meta.applied, written, took_ms = took.as_millis(), "checkpoint");
    if context.config.storage.purge_interval_ms.is_none() {
        return Ok(());
    }
    if let Err(error) = log.purge(meta.applied, RETAIN_TXNS) {
        tracing::warn!(%error, "the transaction log could not be purged");
    }
    Ok(())
}

/// Puts what changed into the checkpoint that is being written.
pub(super) fn write_item(
    writer: &mut CheckpointWriter<'_>,
    item: &CheckpointItem,
) -> Result<(), StorageError> {
    match item {
        CheckpointItem::PutZnode { path, data, acl, stat } => {
            let acl = super::acl::encode(acl);
            let value = ZnodeValue { data: data.as_deref(), acl: &acl, stat: *stat };
            writer.put_znode(path, &value)
        }
        CheckpointItem::DeleteZnode { path } => writer.delete_znode(path),
        CheckpointItem::PutSession(id, timeout_ms) => writer.put_session(*id, *timeout_ms),
        CheckpointItem::DeleteSession(id) => writer.delete_session(*id),
    }
}

/// Transactions kept behind the checkpoint, for members that were away for a while.
const RETAIN_TXNS: u64 = 100_000;

/// Free space below which writes that grow are refused: two log segments and some room for the state.
const RESERVE_BYTES: u64 = 256 << 20;

fn guard_disk(context: &Context) {
    let config = &context.config;
    let low = [&config.data_dir, &config.data_log_dir]
        .into_iter()
        .filter_map(|dir| zk_storage::free_bytes(dir).ok().map(|free| (dir, free)))
        .find(|(_, free)| *free < RESERVE_BYTES);
    let was_low = context.disk_low.swap(low.is_some(), std::sync::atomic::Ordering::Relaxed);
    match (low, was_low) {
        (Some((dir, free_bytes)), false) => {
            tracing::error!(
                dir = %dir.display(), free_bytes, reserve_bytes = RESERVE_BYTES,
                "the disk is nearly full: writes are refused, reads and deletes are served. Free some space; writes are accepted again by themselves"
            );
            context.node.accept_writes(false);
        }
        (None, true) => {
            tracing::info!("the disk has room again: writes are accepted");
            context.node.accept_writes(true);
        }
        (Some(_), true) | (None, false) => {}
    }
}
