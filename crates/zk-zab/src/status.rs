use zk_proto::quorum::PeerState;
use zk_proto::{Epoch, ServerId, Zxid};

use crate::LinkId;

/// How far a learner has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LearnerPhase {
    /// It has not said which epoch it accepts.
    Discovery,
    /// It is being brought up to date.
    Synchronization,
    /// It takes part.
    Broadcast,
}

/// A learner as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnerStatus {
    /// Which one.
    pub id: ServerId,
    /// Its link.
    pub link: LinkId,
    /// Whether it votes.
    pub voter: bool,
    /// How far it is.
    pub phase: LearnerPhase,
    /// The last transaction that it acknowledged; an observer acknowledges none.
    pub acked: Zxid,
    /// When it was last heard of, on the clock of the inputs, in ms.
    pub heard_ms: i64,
}

/// A peer at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// This server.
    pub id: ServerId,
    /// What it does.
    pub state: PeerState,
    /// Whether it serves clients.
    pub serving: bool,
    /// Its leader, once there is one.
    pub leader: Option<ServerId>,
    /// Who feeds an observer: the leader, or a follower.
    pub learner_master: Option<ServerId>,
    /// The promised epoch.
    pub accepted_epoch: Epoch,
    /// The epoch of its history.
    pub current_epoch: Epoch,
    /// The round of its last election.
    pub round: i64,
    /// The last transaction that it was asked to log.
    pub last_logged: Zxid,
    /// The last one that it knows to be committed.
    pub committed: Zxid,
    /// The last one that it delivered.
    pub delivered: Zxid,
    /// Proposals of this leader that are not committed.
    pub outstanding: usize,
    /// Learners of this leader, by id.
    pub learners: Vec<LearnerStatus>,
    /// How long the last election took, in ms; `None` before the first.
    pub election_ms: Option<i64>,
    /// How long it took from the end of the election until clients were served, in ms.
    pub sync_ms: Option<i64>,
}
