//! Group commit: everything that queued up while the last sync ran goes to disk with the next one.

use std::sync::Arc;
use std::time::Instant;

use zk_storage::Log;

use super::queue::Batch;
use crate::client::flush_touched;
use crate::context::{Context, Counters};

/// Writes and syncs until the queue is stopped and empty. Completions are handed to the core, and the
/// replies they bring are sent, on this thread: nobody else has to be woken for them.
///
/// An error of the disk ends the process: what is on it is unknown, and a second attempt could only
/// make believe (D3).
pub fn run(context: &Arc<Context>, mut log: Log) {
    let mut writes = Vec::new();
    let handle = log.handle();
    while let Some(token) = context.queue.take(&mut writes) {
        let begun = Instant::now();
        if let Err(error) = log.append(&writes) {
            tracing::error!(%error, "the transaction log cannot be written: the server stops, nothing acknowledged is lost");
            crate::abort();
        }
        let took = begun.elapsed();
        observe(context, took, writes.len());
        let mut batch = Batch::new(&context.queue);
        context.node.on_persisted(token, context.clock.now(), &mut |action| batch.push(action));
        drop(batch);
        flush_touched(context);
        if log.needs_next() {
            let handle = handle.clone();
            // A segment is used up every few hundred thousand transactions: a thread for each is cheap.
            let prepared =
                std::thread::Builder::new().name("log-segment".into()).spawn(move || {
                    if let Err(error) = handle.prepare_next() {
                        tracing::warn!(%error, "the next log segment could not be prepared");
                    }
                });
            if let Err(error) = prepared {
                tracing::warn!(%error, "the next log segment could not be prepared");
            }
        }
        if context.queue.is_empty()
            && let Err(error) = log.note_watermark()
        {
            tracing::warn!(%error, "the log's watermark could not be noted");
        }
    }
}

fn observe(context: &Context, took: std::time::Duration, count: usize) {
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    context.counters.fsync.record(took_us);
    context.counters.batch_size.record(count as u64);
    let threshold_ms = context.config.storage.fsync_warning_threshold_ms;
    if took_us / 1000 > threshold_ms {
        Counters::add(&context.counters.fsync_threshold_exceeded, 1);
        tracing::warn!(
            took_ms = took_us / 1000,
            threshold_ms,
            "syncing the transaction log took long: every write waits for it; is the disk shared?"
        );
    }
}
