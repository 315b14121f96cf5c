//! What the quorum engine asks about the stored transactions when it plans how to bring a learner up to
//! date.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zk_proto::Zxid;
use zk_zab::History;

use crate::txn_log::LogHandle;

/// The log and the size of the state, for planning. Nothing here waits for a write or a checkpoint;
/// [`History::floor`] may read a few hundred kilobytes.
#[derive(Debug, Clone)]
pub struct StoredHistory {
    pub(crate) log: LogHandle,
    pub(crate) state_bytes: Arc<AtomicU64>,
}

impl History for StoredHistory {
    fn begins(&self) -> Zxid {
        self.log.bounds().0
    }

    fn floor(&self, zxid: Zxid) -> Option<Zxid> {
        self.log.floor(zxid).unwrap_or_else(|err| {
            // As if it were purged: a snapshot serves instead.
            tracing::error!(%err, %zxid, "the transaction log cannot be read");
            None
        })
    }

    fn bytes_after(&self, after: Zxid) -> u64 {
        self.log.bytes_after(after)
    }

    fn snapshot_bytes(&self) -> u64 {
        self.state_bytes.load(Ordering::Relaxed)
    }
}
