//! Large requests (`zookeeper.largeRequestThreshold`): how many bytes of them may be in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::framing::claimed_len;
use crate::context::{Context, Counters};

/// A frame that counts as long as anything of it is in use: until the write that it asks for has been
/// applied.
struct Counted {
    frame: Bytes,
    context: Arc<Context>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let in_flight = &self.context.counters.large_request_bytes;
        in_flight.fetch_sub(count(self.frame.len()), Ordering::Relaxed);
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn is_large(context: &Context, len: usize) -> bool {
    let threshold = context.config.limits.large_request_threshold_bytes;
    threshold.is_some_and(|threshold| len > threshold as usize)
}

/// Whether the frame that begins here, of which only the length has to be there, is one too many.
pub(crate) fn is_too_much(context: &Context, unread: &[u8]) -> bool {
    let Some(len) = claimed_len(unread).filter(|len| is_large(context, *len)) else { return false };
    let in_flight = context.counters.large_request_bytes.load(Ordering::Relaxed);
    in_flight.saturating_add(count(len)) > i64::from(context.config.limits.large_request_max_bytes)
}

/// A large request was refused.
pub(crate) fn count_refused(context: &Context) {
    Counters::add(&context.counters.large_requests_rejected, 1);
}

/// Counts a frame from now on, if it is large.
pub(crate) fn counted(context: &Arc<Context>, frame: Bytes) -> Bytes {
    if !is_large(context, frame.len()) {
        return frame;
    }
    context.counters.large_request_bytes.fetch_add(count(frame.len()), Ordering::Relaxed);
    Bytes::from_owner(Counted { frame, context: Arc::clone(context) })
}
