use std::fmt::Debug;

use zk_proto::Zxid;

/// What is in the log on disk, for those who plan how to bring a learner up to date.
///
/// It may lag behind what was asked to be persisted, by what has not been reported as persisted.
pub trait History: Send + Sync + Debug {
    /// Every live transaction above this zxid is in the log. The zxid itself counts as in it: it is
    /// that of the state below, or 0.
    fn begins(&self) -> Zxid;

    /// The greatest zxid in the log at or below `zxid`; `None` when that is below [`Self::begins`].
    fn floor(&self, zxid: Zxid) -> Option<Zxid>;

    /// About how many bytes the transactions above `after` take.
    fn bytes_after(&self, after: Zxid) -> u64;

    /// About how many bytes a snapshot takes.
    fn snapshot_bytes(&self) -> u64;
}

/// The log of a peer that has no learners: nobody ever asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn begins(&self) -> Zxid {
        Zxid::ZERO
    }

    fn floor(&self, _: Zxid) -> Option<Zxid> {
        None
    }

    fn bytes_after(&self, _: Zxid) -> u64 {
        0
    }

    fn snapshot_bytes(&self) -> u64 {
        0
    }
}
