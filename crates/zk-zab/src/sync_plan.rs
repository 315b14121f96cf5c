//! How a leader brings a learner up to date (facts, section 3.5).

use zk_proto::Zxid;

use crate::History;
use crate::log_tail::LogTail;

/// What a learner gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// It has what the leader has, up to somewhere.
    Diff,
    /// It has more than that: forget what is behind this zxid.
    Trunc(Zxid),
    /// Everything anew.
    Snap,
}

/// A whole synchronization, but for what is proposed and not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) method: Method,
    /// From disk: the transactions above the first zxid up to the second. Not with
    /// [`Method::Snap`], which takes those along.
    pub(crate) history: Option<(Zxid, Zxid)>,
    /// From memory: the transactions above this zxid up to the target.
    pub(crate) memory_after: Zxid,
}

/// What decides about a plan.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The learner's last transaction.
    pub(crate) learner: Zxid,
    /// The last transaction of the leader that counts as committed.
    pub(crate) target: Zxid,
    pub(crate) tail: &'a LogTail,
    pub(crate) history: &'a dyn History,
    /// `snapshotSizeFactor`.
    pub(crate) size_factor: f64,
    /// `forceSnapshotSync`.
    pub(crate) force_snapshot: bool,
}

/// Upstream's decision, with one rule made safer: it truncates a learner only to a transaction of
/// the same epoch as its last one. Whoever has a transaction has all of that epoch before it; of
/// another epoch it may have something else.
pub(crate) fn plan(request: &Request<'_>) -> Plan {
    let &Request { learner, target, tail, history, .. } = request;
    if request.force_snapshot {
        return snap(tail);
    }
    // No transaction has this zxid: the learner has a state of that moment.
    let between_epochs = learner.counter() == 0;
    let last_common = if learner >= target {
        target
    } else {
        let floor = match tail.floor(learner) {
            Some(zxid) => Some(zxid),
            None => history.floor(learner),
        };
        let Some(floor) = floor else { return snap(tail) };
        floor
    };
    let method = if last_common == learner || between_epochs {
        Method::Diff
    } else if last_common.epoch() == learner.epoch() {
        Method::Trunc(last_common)
    } else {
        return snap(tail);
    };
    let start = last_common.min(learner);
    if start >= tail.base() {
        return Plan { method, history: None, memory_after: start };
    }
    if too_much(history.bytes_after(start), history.snapshot_bytes(), request.size_factor) {
        return snap(tail);
    }
    Plan { method, history: Some((start, tail.base())), memory_after: tail.base() }
}

fn snap(tail: &LogTail) -> Plan {
    Plan { method: Method::Snap, history: None, memory_after: tail.delivered() }
}

/// Whether a snapshot is cheaper than reading so much of the log.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn too_much(log_bytes: u64, snapshot_bytes: u64, factor: f64) -> bool {
    factor < 0.0 || log_bytes as f64 > snapshot_bytes as f64 * factor
}
