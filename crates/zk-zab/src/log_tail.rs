use std::collections::VecDeque;

use bytes::Bytes;
use zk_proto::Zxid;

/// The end of the log, in memory: every transaction that is not delivered, and the last ones that
/// are, for learners that lag a little.
///
/// ```text
///   base │ delivered … │ committed … │ only logged …
///        └ entries[0]  └ [delivered]  └ [committed]
/// ```
#[derive(Debug)]
pub(crate) struct LogTail {
    entries: VecDeque<(Zxid, Bytes)>,
    /// The zxid before the first entry.
    base: Zxid,
    /// How many entries are delivered.
    delivered: usize,
    /// How many are known to be committed.
    committed: usize,
    /// How many delivered ones are kept.
    keep: usize,
}

impl LogTail {
    /// The log behind `base`, which is delivered.
    pub(crate) fn new(base: Zxid, entries: Vec<(Zxid, Bytes)>, keep: usize) -> Self {
        Self { entries: entries.into(), base, delivered: 0, committed: 0, keep }
    }

    /// Everything behind this zxid is in memory. It is itself delivered.
    pub(crate) fn base(&self) -> Zxid {
        self.base
    }

    /// The last transaction.
    pub(crate) fn last(&self) -> Zxid {
        self.zxid_before(self.entries.len())
    }

    /// The last one that was delivered.
    pub(crate) fn delivered(&self) -> Zxid {
        self.zxid_before(self.delivered)
    }

    /// The last one that is known to be committed.
    pub(crate) fn committed(&self) -> Zxid {
        self.zxid_before(self.committed)
    }

    /// How many are not known to be committed.
    pub(crate) fn uncommitted_len(&self) -> usize {
        self.entries.len() - self.committed
    }

    fn zxid_before(&self, index: usize) -> Zxid {
        match index.checked_sub(1) {
            Some(last) => self.entries[last].0,
            None => self.base,
        }
    }

    /// Puts a transaction behind the last one.
    ///
    /// # Panics
    /// It is not behind the last one: the order of everything would be lost.
    pub(crate) fn push(&mut self, zxid: Zxid, txn: Bytes) {
        assert!(zxid > self.last(), "{zxid} logged after {}", self.last());
        self.entries.push_back((zxid, txn));
    }

    /// The first one that is not known to be committed.
    pub(crate) fn next_uncommitted(&self) -> Option<&(Zxid, Bytes)> {
        self.entries.get(self.committed)
    }

    /// The first uncommitted one is committed.
    pub(crate) fn commit_next(&mut self) {
        assert!(self.committed < self.entries.len(), "committed what is not in the log");
        self.committed += 1;
    }

    /// Everything up to `zxid` is committed.
    pub(crate) fn commit_to(&mut self, zxid: Zxid) {
        self.committed = self.committed.max(self.index_behind(zxid));
    }

    /// The next one to deliver: committed, and not delivered.
    pub(crate) fn next_undelivered(&self) -> Option<&(Zxid, Bytes)> {
        if self.delivered < self.committed { self.entries.get(self.delivered) } else { None }
    }

    /// [`Self::next_undelivered`] is delivered.
    pub(crate) fn deliver_next(&mut self) {
        assert!(self.delivered < self.committed, "delivered what is not committed");
        self.delivered += 1;
        while self.delivered > self.keep
            && let Some((zxid, _)) = self.entries.pop_front()
        {
            self.base = zxid;
            self.delivered -= 1;
            self.committed -= 1;
        }
    }

    /// Of what is delivered, forgets what lies between these two: a hole.
    pub(crate) fn punch_hole(&mut self, after: Zxid, before: Zxid) {
        let end = self.index_behind(Zxid(before.0 - 1)).min(self.delivered);
        let range = self.index_behind(after)..end;
        if !range.is_empty() {
            self.delivered -= range.len();
            self.committed -= range.len();
            self.entries.drain(range);
        }
    }

    /// Forgets everything behind `zxid`.
    ///
    /// # Panics
    /// Something behind it is committed.
    pub(crate) fn truncate(&mut self, zxid: Zxid) {
        assert!(zxid >= self.committed(), "{} is committed, truncated to {zxid}", self.committed());
        self.entries.truncate(self.index_behind(zxid));
    }

    /// A state at `zxid` takes the place of everything.
    pub(crate) fn reset(&mut self, zxid: Zxid) {
        self.entries.clear();
        self.base = zxid;
        self.delivered = 0;
        self.committed = 0;
    }

    /// The greatest zxid in memory at or below `zxid`; `None` when that is below [`Self::base`].
    pub(crate) fn floor(&self, zxid: Zxid) -> Option<Zxid> {
        if zxid < self.base { None } else { Some(self.zxid_before(self.index_behind(zxid))) }
    }

    /// Whether the log has it, or had it before what is in memory.
    pub(crate) fn has(&self, zxid: Zxid) -> bool {
        zxid <= self.delivered() || self.floor(zxid) == Some(zxid)
    }

    /// Those above `zxid` that are in memory.
    pub(crate) fn after(&self, zxid: Zxid) -> impl Iterator<Item = &(Zxid, Bytes)> {
        self.entries.range(self.index_behind(zxid)..)
    }

    /// The index of the first entry above `zxid`.
    fn index_behind(&self, zxid: Zxid) -> usize {
        self.entries.partition_point(|(own, _)| *own <= zxid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(base: i64, zxids: &[i64], keep: usize) -> LogTail {
        LogTail::new(
            Zxid(base),
            zxids.iter().map(|zxid| (Zxid(*zxid), Bytes::new())).collect(),
            keep,
        )
    }

    #[test]
    fn what_is_not_delivered_stays_and_some_that_is() {
        let mut tail = tail(3, &[4, 5, 6, 7], 2);
        assert_eq!((tail.delivered(), tail.committed(), tail.last()), (Zxid(3), Zxid(3), Zxid(7)));
        assert_eq!(tail.next_undelivered(), None);
        tail.commit_to(Zxid(6));
        for zxid in 4..=6 {
            assert_eq!(tail.next_undelivered().map(|(zxid, _)| *zxid), Some(Zxid(zxid)));
            tail.deliver_next();
        }
        assert_eq!(tail.next_undelivered(), None);
        assert_eq!((tail.base(), tail.delivered(), tail.last()), (Zxid(4), Zxid(6), Zxid(7)));
        assert_eq!(tail.uncommitted_len(), 1);
        assert_eq!(tail.after(Zxid(5)).count(), 2);
        assert_eq!(tail.floor(Zxid(3)), None);
        assert_eq!(tail.floor(Zxid(4)), Some(Zxid(4)));
        assert_eq!(tail.floor(Zxid(99)), Some(Zxid(7)));
        assert!(tail.has(Zxid(1)) && tail.has(Zxid(7)) && !tail.has(Zxid(8)));
    }

    #[test]
    fn truncating_and_resetting() {
        let mut tail = tail(3, &[4, 5, 6, 7], 2);
        tail.commit_to(Zxid(4));
        tail.truncate(Zxid(5));
        assert_eq!((tail.last(), tail.committed()), (Zxid(5), Zxid(4)));
        tail.push(Zxid(8), Bytes::new());
        assert!(!tail.has(Zxid(7)));
        tail.reset(Zxid(20));
        assert_eq!(
            (tail.last(), tail.delivered(), tail.committed()),
            (Zxid(20), Zxid(20), Zxid(20))
        );
    }

    #[test]
    #[should_panic(expected = "is committed")]
    fn what_is_committed_is_never_truncated() {
        let mut tail = tail(3, &[4, 5], 2);
        tail.commit_to(Zxid(5));
        tail.truncate(Zxid(4));
    }
}
