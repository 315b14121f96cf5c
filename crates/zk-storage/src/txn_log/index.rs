//! What is where in the log, in memory: enough to begin reading near any zxid.
//!
//! # Invariants
//!
//! - Marks rise in position, and never fall in zxid: a truncation or an installed snapshot takes those
//!   away that stand among what it voids.
//! - So the live transactions up to a zxid stand in front of the first mark above it.

use std::sync::Arc;

use zk_proto::Zxid;

use crate::state::StagedId;
use crate::txn_log::reader::Reader;
use crate::txn_log::segment::{RECORDS_AT, Segment};

/// A place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
}

/// At `at`, every earlier transaction above `to` became void.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Truncation {
    pub(crate) at: Position,
    pub(crate) to: Zxid,
}

/// At `at`, every earlier transaction became void: a snapshot of `zxid` took their place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Install {
    pub(crate) at: Position,
    pub(crate) zxid: Zxid,
    pub(crate) staged: StagedId,
}

/// A record starts at `at`, and `before` was the log's last zxid in front of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Position,
    pub(crate) before: Zxid,
}

/// What writing or reading the stream changes in the index, in the stream's order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Mark(Mark),
    Truncate(Truncation),
    Install(Install),
}

/// A segment with records.
#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    /// The last zxid of the log before this segment.
    pub(crate) previous_last: Zxid,
    /// About how many transactions it has that matter.
    pub(crate) txns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Oldest first. The last one is being written.
    pub(crate) used: Vec<Used>,
    marks: Vec<Mark>,
    truncations: Vec<Truncation>,
    /// The last one, as long as its segment is there.
    install: Option<Install>,
    /// Last zxid of the log.
    pub(crate) last: Zxid,
}

impl Index {
    /// For a log whose first segment begins behind `last`.
    pub(crate) fn new(last: Zxid) -> Self {
        Self { last, ..Self::default() }
    }

    /// Every live transaction above this zxid is in the log.
    pub(crate) fn begins(&self) -> Zxid {
        match (self.install, self.used.first()) {
            (Some(install), _) => install.zxid,
            (None, Some(used)) => used.previous_last,
            (None, None) => self.last,
        }
    }

    pub(crate) fn install(&self) -> Option<Install> {
        self.install
    }

    /// The segment is in use from now on.
    pub(crate) fn begin_segment(&mut self, segment: Arc<Segment>) {
        self.used.push(Used { segment, end: RECORDS_AT, previous_last: self.last, txns: 0 });
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Mark(mark) => self.marks.push(mark),
            Change::Truncate(truncation) => {
                let Truncation { at, to } = truncation;
                let kept = self.marks.partition_point(|mark| mark.before <= to);
                self.marks.truncate(kept);
                self.marks.push(Mark { at, before: to });
                self.truncations.push(truncation);
            }
            Change::Install(install) => {
                self.marks = vec![Mark { at: install.at, before: install.zxid }];
                self.truncations.clear();
                self.install = Some(install);
                for used in &mut self.used {
                    used.txns = 0;
                }
            }
        }
    }

    /// Where the last mark in this segment stands, if there is one.
    pub(crate) fn marked(&self, seq: u64) -> Option<u64> {
        self.marks.last().filter(|mark| mark.at.seq == seq).map(|mark| mark.at.offset)
    }

    /// Whether the oldest segment may go: all it holds is void, or in the state (up to `applied`) and
    /// so many transactions stay without it.
    pub(crate) fn oldest_may_go(&self, applied: Zxid, retain_txns: u64) -> bool {
        let [oldest, next, ..] = &self.used[..] else { return false };
        let is_void = self.install.is_some_and(|install| oldest.segment.seq < install.at.seq);
        let txns: u64 = self.used.iter().map(|used| used.txns).sum();
        is_void || (next.previous_last <= applied && txns - oldest.txns >= retain_txns)
    }

    /// Takes the oldest segment off the log.
    pub(crate) fn remove_oldest(&mut self) -> Arc<Segment> {
        let Used { segment, .. } = self.used.remove(0);
        self.truncations.retain(|truncation| truncation.at.seq > segment.seq);
        self.install = self.install.filter(|install| install.at.seq > segment.seq);
        // The first one that stays is not above where the log now begins: it stands where a segment
        // begins, or was put there by what took that one away.
        self.marks.retain(|mark| mark.at.seq > segment.seq);
        segment
    }

    /// The mark to begin at when looking for what is above `zxid`, and the one behind it.
    fn around(&self, zxid: Zxid) -> (Option<&Mark>, Option<&Mark>) {
        let behind = self.marks.partition_point(|mark| mark.before <= zxid);
        (behind.checked_sub(1).and_then(|at| self.marks.get(at)), self.marks.get(behind))
    }

    /// The pieces of segments from one place up to another, or to the end.
    fn pieces(&self, from: Position, to: Option<Position>) -> Vec<(Arc<Segment>, u64, u64)> {
        let to = to.unwrap_or(Position { seq: u64::MAX, offset: u64::MAX });
        let used = self.used.iter().map(|used| (used.segment.seq, used));
        used.filter(|(seq, _)| (from.seq..=to.seq).contains(seq))
            .map(|(seq, used)| {
                let begin = if seq == from.seq { from.offset } else { RECORDS_AT };
                let end = if seq == to.seq { to.offset } else { used.end };
                (Arc::clone(&used.segment), begin, end)
            })
            .collect()
    }

    /// The live transactions above `after`, which is not below where the log begins, up to `to`.
    pub(crate) fn reader(&self, after: Zxid, to: Zxid) -> Reader {
        let pieces = match self.around(after).0 {
            Some(mark) if after < self.last && after < to => self.pieces(mark.at, None),
            Some(_) | None => Vec::new(),
        };
        Reader::new(after, to, pieces, self.truncations.clone())
    }

    /// The last zxid in front of a short piece of the log, and that piece, in which every live
    /// transaction stands that is above it and at most `zxid`.
    pub(crate) fn span(&self, zxid: Zxid) -> (Zxid, Reader) {
        let (mark, behind) = self.around(zxid);
        let Some(mark) = mark else {
            return (self.begins(), Reader::new(zxid, zxid, Vec::new(), Vec::new()));
        };
        let pieces = self.pieces(mark.at, behind.map(|mark| mark.at));
        (mark.before, Reader::new(mark.before, zxid, pieces, self.truncations.clone()))
    }

    /// About how many bytes of the log hold what is above `after`.
    pub(crate) fn bytes_after(&self, after: Zxid) -> u64 {
        let Some(mark) = self.around(after).0.filter(|_| after < self.last) else { return 0 };
        self.pieces(mark.at, None).iter().map(|(_, from, to)| to - from).sum()
    }
}
