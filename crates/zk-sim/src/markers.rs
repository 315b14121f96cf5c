//! Situations that a run of many seeds must have met: one that never occurs means that the simulator
//! does not test what it should.

macro_rules! markers {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)*) => {
        /// A situation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Marker { $($(#[$meta])* $name,)* }

        impl Marker {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it is, in words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

markers! {
    /// An epoch began.
    LeaderServes = "a leader began to serve";
    /// Another member than before.
    LeaderChanged = "another member became leader";
    /// With proposals under way.
    LeaderChangedWithOutstanding = "the leader changed while proposals were outstanding";
    /// They were in the new leader's history.
    OutstandingSurvived = "a proposal of an old leader was committed by the next";
    /// They were not.
    OutstandingDiscarded = "a proposal of an old leader was cut off a log";
    /// Nothing was missing.
    SyncEmptyDiff = "a learner was synchronised with an empty DIFF";
    /// Something was.
    SyncDiff = "a learner was synchronised with DIFF and transactions";
    /// Too much was there.
    SyncTrunc = "a learner was synchronised with TRUNC";
    /// And something was missing.
    SyncTruncAndMore = "a learner was synchronised with TRUNC and transactions";
    /// Too far behind.
    SyncSnap = "a learner was synchronised with SNAP";
    /// Older than the leader's memory.
    HistoryFromDisk = "transactions for a learner were read from the log on disk";
    /// A snapshot became a member's state.
    SnapshotInstalled = "a snapshot was installed";
    /// A crash came before.
    SnapshotDiscarded = "a staged snapshot was discarded by a crash";
    /// Without a vote.
    ObserverInformed = "an observer was informed";
    /// The same, by a follower.
    ObserverInformedByFollower = "an observer was informed by a follower";
    /// From its log.
    ObserverMasterDiff = "an observer was synchronised by a follower with DIFF and transactions";
    /// From its state.
    ObserverMasterSnap = "an observer was synchronised by a follower with SNAP";
    /// And on to the leader.
    RequestByObserverMaster = "an observer forwarded a request to a follower";
    /// The answer's way back.
    SyncByObserverMaster = "a follower handed a SYNC on to an observer";
    /// The same for sessions.
    RevalidatedByObserverMaster = "a follower handed the leader's word on a session on to an observer";
    /// As a member with data.
    LostDataMemberRejoined = "a member that lost its data was brought up to date";
    /// The rest of a power loss.
    PowerLossLostWrites = "a power loss took unsynced writes";
    /// The other part.
    PowerLossKeptSome = "a power loss left some of the unsynced writes";
    /// All at once.
    PowerLossOfAll = "all members lost power";
    /// Found again.
    RestartReplayedLog = "a member restarted from a stored tree and a log behind it";
    /// L2.
    WedgedLeaderSteppedDown = "a leader with a wedged disk stepped down";
    /// L2.
    WedgedLearnerLeft = "a learner with a wedged disk left its leader";
    /// D3.
    FsyncErrorStopped = "a failed sync ended a process";
    /// Nearly full.
    WritesRefused = "writes were refused because a disk was nearly full";
    /// Full.
    DiskFullStopped = "a full disk ended a process";
    /// And another one led.
    PausedLeaderDeposed = "a leader was paused and found itself deposed";
    /// Without a quorum.
    LeaderCutOff = "a leader was cut off from a quorum";
    /// One way.
    AsymmetricCut = "a connection was cut in one direction";
    /// Then they flowed.
    StalledPacketsArrived = "packets that a cut had held up arrived";
    /// A connection broke.
    LinkReset = "a link between members was reset";
    /// Back and forth.
    ClockJumped = "a wall clock jumped";
    /// Faster than the wait.
    FastDecision = "an election was decided without waiting";
    /// ZOOKEEPER-1277.
    Rollover = "an epoch ended because its counter was used up";
    /// By others' disks.
    CommittedBeforeOwnDisk = "a leader committed what was not on its own disk yet";
    /// Through a learner.
    RequestForwarded = "a learner forwarded a request";
    /// Somewhere else.
    SessionRevalidated = "a session was taken up at another server";
    /// S6.
    SessionMovedError = "a request was refused because its session had moved";
    /// Expired.
    SessionExpired = "a session expired";
    /// With ephemerals.
    EphemeralsExpired = "an expired session took ephemeral znodes with it";
    /// By itself.
    SessionClosed = "a client closed its session";
    /// For an ephemeral znode.
    SessionUpgraded = "a local session became global";
    /// And stays so.
    EphemeralRefused = "an ephemeral znode was refused to a local session";
    /// Its connection was lost.
    LocalSessionTakenUp = "a local session was taken up again";
    /// Too late.
    SessionRefused = "a client came back too late for its session";
    /// S5.
    WrongPasswordRefused = "a wrong password was refused";
    /// The old connection was still there.
    SessionTakenOver = "a client moved without closing its old connection";
    /// On a learner.
    WatchFiredOnLearner = "a watch fired on a learner";
    /// On a leader.
    WatchFiredOnLeader = "a watch fired on a leader";
    /// After a reconnect.
    WatchCaughtUp = "setWatches caught up with a change";
    /// And stays.
    PersistentWatchFired = "a persistent watch fired";
    /// From its last state.
    ReadOnlyRead = "a member without a quorum served a read";
    /// It could not.
    ReadOnlyWriteRefused = "a member without a quorum refused a write";
    /// To the same server.
    ReadOnlySessionTakenUp = "a client came back to its session at a member without a quorum";
    /// The next election.
    ReadOnlyEnded = "a member without a quorum got a leader, and its readers had to go";
    /// As a whole.
    MultiApplied = "a multi was applied";
    /// Not at all.
    MultiFailed = "a multi failed";
    /// Numbered.
    SequentialCreated = "a sequential znode was created";
    /// C7.
    SyncOnLearner = "a sync was answered by a learner";
    /// From the past.
    StaleRead = "a read showed less than what was committed";
    /// It was done.
    LostReplyCommitted = "a write whose reply was lost was committed";
    /// It was not.
    LostReplyNotCommitted = "a write whose reply was lost was never committed";
    /// A stored tree.
    CheckpointTaken = "a checkpoint was taken";
    /// And the log behind it went.
    LogPurged = "a log was purged";
    /// Another ensemble.
    Reconfigured = "a reconfiguration was committed";
    /// Groups and weights.
    HierarchicalCommit = "a transaction was committed by groups and weights";
    /// Half of the voters or fewer.
    CommittedByFew = "a transaction was committed by groups and weights before a majority had it";
    /// It counts for nothing.
    WeightlessFollowed = "a voter without weight followed a leader";
    /// R5.
    ReconnectRefusedBehind = "a server refused a client that had seen more than it";
}

/// How often each situation was met.
#[derive(Debug, Clone)]
pub struct Markers(Vec<u64>);

impl Default for Markers {
    fn default() -> Self {
        Self(vec![0; Marker::ALL.len()])
    }
}

impl Markers {
    /// It was met.
    pub fn met(&mut self, marker: Marker) {
        self.0[marker as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, marker: Marker) -> u64 {
        self.0[marker as usize]
    }

    /// Adds what another run met.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }
}
