use std::collections::BTreeSet;

use bytes::Bytes;
use zk_proto::{Epoch, ServerId, Zxid};

/// Who is in the ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Those who vote.
    pub voters: BTreeSet<ServerId>,
    /// Those who follow without a vote.
    pub observers: BTreeSet<ServerId>,
    /// The membership as text, without its last line (facts, section 3.11): a `server.N=...` line for
    /// each, each with a line end.
    pub text: String,
    /// The version, which is the text's last line; 0 until there was a leader.
    pub version: i64,
}

impl Members {
    /// The whole text, as `NEWLEADER` and `/zookeeper/config` have it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}version={:x}", self.text, self.version)
    }
}

/// What an operator can set of the peer. Limits are in ticks, as upstream has them.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// This server (`myid`).
    pub id: ServerId,
    /// The ensemble.
    pub members: Members,
    /// `tickTime`, in ms.
    pub tick_ms: i64,
    /// `initLimit`.
    pub init_limit_ticks: i64,
    /// `syncLimit`.
    pub sync_limit_ticks: i64,
    /// `connectToLearnerMasterLimit`; 0: `initLimit`.
    pub connect_limit_ticks: i64,
    /// `leaderConnectDelayDuringRetryMs`.
    pub connect_retry_ms: i64,
    /// `fastleader.minNotificationInterval`.
    pub notification_interval_min_ms: i64,
    /// `fastleader.maxNotificationInterval`.
    pub notification_interval_max_ms: i64,
    /// How long a quorum of equal votes must stand while members that have not voted may still be
    /// there (upstream's `finalizeWait`).
    pub finalize_wait_ms: i64,
    /// `commitLogCount`: committed transactions kept in memory for learners that lag.
    pub commit_log_count: usize,
    /// `snapshotSizeFactor`; negative: never send from the log on disk.
    pub snapshot_size_factor: f64,
    /// `zookeeper.forceSnapshotSync`.
    pub force_snapshot_sync: bool,
    /// The last counter of an epoch: a leader that has used it steps down, so that a new epoch begins
    /// (ZOOKEEPER-1277). Everything but a simulation leaves it at the most that there is.
    pub counter_limit: u32,
    /// Whether a leader sends a follower what is committed between `NEWLEADER` and `UPTODATE`, as upstream's
    /// do. Upstream's followers before 3.9.3 leave when such a `COMMIT` comes (ZOOKEEPER-4394), and under load
    /// one always does: a server keeps it until `UPTODATE` is sent.
    pub early_commits: bool,
    /// Whether learners that are in no configuration may join (they do before a reconfiguration).
    pub accept_unknown_learners: bool,
}

impl PeerConfig {
    /// Upstream's defaults.
    #[must_use]
    pub fn new(id: ServerId, members: Members) -> Self {
        Self {
            id,
            members,
            tick_ms: 2000,
            init_limit_ticks: 10,
            sync_limit_ticks: 5,
            connect_limit_ticks: 0,
            connect_retry_ms: 100,
            notification_interval_min_ms: 200,
            notification_interval_max_ms: 2000,
            finalize_wait_ms: 200,
            commit_log_count: 500,
            snapshot_size_factor: 0.33,
            force_snapshot_sync: false,
            counter_limit: u32::MAX,
            early_commits: true,
            accept_unknown_learners: false,
        }
    }
}

/// What a server finds on its disk when it starts.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// The epoch that it has promised to.
    pub accepted_epoch: Epoch,
    /// The epoch of its history.
    pub current_epoch: Epoch,
    /// The zxid of the tree: it is committed.
    pub applied: Zxid,
    /// Every transaction in the log above `applied`, in order. Whether they are committed is not known.
    pub tail: Vec<(Zxid, Bytes)>,
    /// Whether an empty server may vote although others have data (upstream's file `initialize`):
    /// the operator says that it is new, and has not lost what it had.
    pub initialized: bool,
}

impl Durable {
    /// The last transaction in the log.
    #[must_use]
    pub fn last_logged(&self) -> Zxid {
        self.tail.last().map_or(self.applied, |(zxid, _)| *zxid)
    }
}
