//! Group commit: everything that queued up while the last sync ran goes to disk with the next one.

use std::sync::Arc;
use std::time::Instant;

use zk_storage::{Log, StagedState, State, Write};

use super::held::{Held, Step};
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
    // What is still held back when the server stops has not happened: the next start drops it.
    let mut held = Held::new();
    let handle = log.handle();
    while let Some(work) = context.queue.take(spare) {
        spare = Vec::new();
        let run = |step| spare = take_step(context, &mut log, state, step);
        // What is held back is told as done, too: the core counts a snapshot and the writes behind it
        // only from the completion of the current epoch on, and acknowledges nothing of them before.
        let token = match work {
            Work::Append(writes, token) => {
                held.append(writes, run);
                token
            }
            Work::Install { token, zxid, staged } => {
                let staged = staged.expect("the core installs what was staged");
                held.install(zxid, staged.id(), staged, run);
                token
            }
        };
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

/// Returns what the step's writes were in.
fn take_step(
    context: &Context,
    log: &mut Log,
    state: &State,
    step: Step<StagedState>,
) -> Vec<Write> {
    match step {
        Step::Append(writes) => {
            append(context, log, &writes);
            writes
        }
        Step::Install(writes, staged) => {
            append(context, log, &writes);
            if let Err(error) = state.install(staged) {
                tracing::error!(%error, "a snapshot could not become the state: the server stops; the next start goes on from here");
                crate::abort();
            }
            // They may be many: the memory is not kept for the next ones.
            Vec::new()
        }
        Step::Discard(staged) => {
            state.discard(staged);
            Vec::new()
        }
    }
}

fn append(context: &Context, log: &mut Log, writes: &[Write]) {
    let begun = Instant::now();
    if let Err(error) = log.append(writes) {
        tracing::error!(%error, "the transaction log cannot be written: the server stops, nothing acknowledged is lost");
        crate::abort();
    }
    observe(context, begun.elapsed(), writes.len());
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
