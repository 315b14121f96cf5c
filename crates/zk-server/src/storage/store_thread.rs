//! Group commit: everything that queued up while the last sync ran goes to disk with the next one.

use std::sync::Arc;
use std::time::Instant;

use zk_storage::{Log, State, Write};

use super::queue::Work;
use crate::actions::Batch;
use crate::client::flush_touched;
use crate::context::{Context, Counters};

/// Writes and syncs until the queue is stopped and empty. Completions are handed to the core, and the
/// replies they bring are sent, on this thread: nobody else has to be woken for them.
///
/// An error of the disk ends the process: what is on it is unknown, and a second attempt could only
/// make believe (D3).
pub fn run(context: &Arc<Context>, mut log: Log, state: &State) {
    let mut spare = Vec::new();
    let handle = log.handle();
    while let Some(work) = context.queue.take(spare) {
        let begun = Instant::now();
        let (token, writes) = match work {
            Work::Append(writes, token) => {
                append(&mut log, &writes);
                (token, writes)
            }
            Work::Install { token, zxid, staged } => {
                let staged = staged.expect("the core installs what was staged");
                append(&mut log, &[Write::InstallSnapshot { zxid, staged: staged.id() }]);
                if let Err(error) = state.install(staged) {
                    tracing::error!(%error, "a snapshot could not become the state: the server stops; the next start goes on from here");
                    crate::abort();
                }
                (token, Vec::new())
            }
        };
        observe(context, begun.elapsed(), writes.len().max(1));
        spare = writes;
        let mut batch = Batch::new(context);
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

fn append(log: &mut Log, writes: &[Write]) {
    if let Err(error) = log.append(writes) {
        tracing::error!(%error, "the transaction log cannot be written: the server stops, nothing acknowledged is lost");
        crate::abort();
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
