//! Known bugs of the protocol, to be put back on purpose: a simulation that does not find them proves
//! nothing.
//!
//! Only a build with `--cfg seeded_bugs` can have one, and only a simulator makes such a build. In
//! every other one [`seeded`] is `false` at compile time.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $issues:literal, $text:literal;)*) => {
        /// A bug that a coordination server has had.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its number in the list of regression scenarios; from 101 on they are of this engine's own past.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// Where upstream knows it from; empty: nowhere.
            #[must_use]
            pub const fn issues(self) -> &'static str {
                match self {
                    $(Self::$name => $issues,)*
                }
            }

            /// What it does here.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

bugs! {
    /// ZOOKEEPER-2845: a peer that leaves its role forgets what is logged and not committed, and votes
    /// without it. The log still has it.
    RetainedDatabase = 1, "ZOOKEEPER-2845", "a vote without the own logged transactions";
    /// ZOOKEEPER-3911: `NEWLEADER` is acknowledged when it comes.
    EarlyAck = 2, "ZOOKEEPER-3911", "NEWLEADER acknowledged before anything is on disk";
    /// ZOOKEEPER-4646: `NEWLEADER` is acknowledged with the first part of the history on disk.
    PartialAck = 3, "ZOOKEEPER-4646", "NEWLEADER acknowledged when a part of the history is on disk";
    /// ZOOKEEPER-4643: the epoch is written when the synchronization begins, before the history.
    EpochBeforeHistory = 4, "ZOOKEEPER-4643", "currentEpoch written before the history";
    /// ZOOKEEPER-4685: proposals are acknowledged before `NEWLEADER` is.
    AckRace = 5, "ZOOKEEPER-4685", "proposals acknowledged before NEWLEADER";
    /// ZOOKEEPER-4394, 3023: a `COMMIT` between `NEWLEADER` and its acknowledgement is the end.
    CommitBehindNewLeader = 6, "ZOOKEEPER-4394, 3023", "a COMMIT behind NEWLEADER kills the follower";
    /// ZOOKEEPER-4712, 4541: what an earlier role asked for is written some time after its end.
    OutlivingWrites = 7, "ZOOKEEPER-4712, 4541", "writes of an earlier role reach the log late";
    /// ZOOKEEPER-4785: what comes between `NEWLEADER` and `UPTODATE` is acknowledged, not logged.
    LostInDiff = 8, "ZOOKEEPER-4785", "a transaction behind NEWLEADER acknowledged and not logged";
    /// ZOOKEEPER-4925: what was committed between `NEWLEADER` and `UPTODATE` is not in memory when
    /// this peer leads, and learners take a history with a hole.
    HoleInMemory = 9, "ZOOKEEPER-4925", "a hole in the committed log, spread by a new leader";
    /// ZOOKEEPER-5094: `TRUNC` cuts the log at once, and the memory when the synchronization goes on.
    InterruptedTruncate = 10, "ZOOKEEPER-5094", "an interrupted TRUNC leaves memory ahead of the log";
    /// ZOOKEEPER-3642: a snapshot whose leader dies stays in memory, and never gets to the disk.
    SnapshotInMemory = 11, "ZOOKEEPER-3642", "a snapshot in memory only, then DIFF on top";
    /// ZOOKEEPER-2872: the log is removed when a snapshot begins to be installed.
    HalfSnapshot = 12, "ZOOKEEPER-2872", "an interrupted snapshot has removed the log";
    /// ZOOKEEPER-3104: `NEWLEADER` goes out directly behind a snapshot.
    EarlyNewLeader = 13, "ZOOKEEPER-3104", "NEWLEADER sent before the history behind SNAP";
    /// ZOOKEEPER-1154, 2832: a learner keeps what the leader does not have.
    DivergentTail = 14, "ZOOKEEPER-1154, 2832", "a divergent tail is not truncated";
    /// ZOOKEEPER-1156, 1489: truncation takes one transaction too many.
    TruncateTooFar = 15, "ZOOKEEPER-1156, 1489", "a log is truncated too far";
    /// ZOOKEEPER-3701: with little room on the disk (what is appended has its own, allocated before)
    /// truncation fails, and nobody notices.
    FailedTruncate = 16, "ZOOKEEPER-3701", "TRUNC fails for want of room, and the member joins";
    /// ZOOKEEPER-2846: after a snapshot was installed the log on disk still has what was before it, with
    /// a gap, and learners take it.
    GapInLog = 17, "ZOOKEEPER-2846", "DIFF from a log on disk that has a gap";
    /// ZOOKEEPER-4352: with nothing in memory everything counts as in memory.
    EmptyMemory = 19, "ZOOKEEPER-4352", "DIFF of nothing where SNAP is needed";
    /// ZOOKEEPER-5010: a session's end that comes in a synchronization leaves its ephemeral znodes.
    StaleEphemeral = 20, "ZOOKEEPER-5010", "an ephemeral znode stays after DIFF";
    /// A reconfiguration, and what comes behind it, is committed by the ensemble before it alone.
    OldQuorumDecides = 101, "", "a reconfiguration committed without the next quorum";
    /// Who starts again does not know of the reconfiguration in its own log.
    ForgottenReconfiguration = 102, "", "a logged reconfiguration forgotten by a restart";
}

/// Whether this bug is in this build, and active.
#[cfg(not(seeded_bugs))]
#[inline]
#[must_use]
pub const fn seeded(_: Bug) -> bool {
    false
}

#[cfg(seeded_bugs)]
thread_local! {
    static SOWN: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is in this build, and active.
#[cfg(seeded_bugs)]
#[must_use]
pub fn seeded(bug: Bug) -> bool {
    SOWN.get() == Some(bug)
}

/// From now on this bug, or none, is active on this thread.
#[cfg(seeded_bugs)]
pub fn sow(bug: Option<Bug>) {
    SOWN.set(bug);
}
