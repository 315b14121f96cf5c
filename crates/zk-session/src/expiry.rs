use std::collections::BTreeMap;

use zk_proto::SessionId;

/// Sessions by the tick at which they are to be looked at. Deadlines are rounded up to ticks, so that
/// many sessions share a bucket (`ExpiryQueue`).
#[derive(Debug, Default)]
pub(crate) struct ExpiryQueue {
    buckets: BTreeMap<i64, Vec<SessionId>>,
}

/// The tick after `deadline_ms`: real expiry is within (timeout, timeout + tick].
pub(crate) fn bucket(deadline_ms: i64, tick_ms: i64) -> i64 {
    (deadline_ms / tick_ms + 1) * tick_ms
}

impl ExpiryQueue {
    pub(crate) fn insert(&mut self, bucket: i64, id: SessionId) {
        self.buckets.entry(bucket).or_default().push(id);
    }

    /// Takes out the sessions of every bucket up to `now_ms`, oldest bucket first.
    pub(crate) fn take_due(&mut self, now_ms: i64) -> Vec<SessionId> {
        let mut due = Vec::new();
        while let Some(entry) = self.buckets.first_entry().filter(|entry| *entry.key() <= now_ms) {
            due.append(&mut entry.remove());
        }
        due
    }
}
