use std::collections::BTreeMap;

use zk_proto::SessionId;

/// Sessions by the tick at which they are to be looked at. Deadlines are rounded up to ticks, so that
/// many sessions share a bucket (`ExpiryQueue`).
///
/// Nothing is searched for and taken out before its time: each session knows the bucket that counts,
/// and an entry in another one means nothing.
#[derive(Debug, Default)]
pub(crate) struct ExpiryQueue {
    buckets: BTreeMap<i64, Vec<SessionId>>,
}

/// The tick after `deadline_ms`: real expiry is within (timeout, timeout + tick].
pub(crate) fn bucket(deadline_ms: i64, tick_ms: i64) -> i64 {
    let tick_ms = tick_ms.max(1);
    (deadline_ms.div_euclid(tick_ms) + 1) * tick_ms
}

impl ExpiryQueue {
    pub(crate) fn insert(&mut self, bucket: i64, id: SessionId) {
        self.buckets.entry(bucket).or_default().push(id);
    }

    /// Takes out the entries of every bucket up to `now_ms` with their bucket, oldest bucket first.
    pub(crate) fn take_due(&mut self, now_ms: i64) -> Vec<(i64, SessionId)> {
        let mut due = Vec::new();
        while let Some(entry) = self.buckets.first_entry().filter(|entry| *entry.key() <= now_ms) {
            let (bucket, ids) = entry.remove_entry();
            due.extend(ids.into_iter().map(|id| (bucket, id)));
        }
        due
    }

    /// How many entries there are, with those that mean nothing.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }
}
