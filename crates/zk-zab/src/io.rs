use bytes::Bytes;
use zk_proto::quorum::{Notification, QuorumPacket};
use zk_proto::{Epoch, ServerId, Zxid};

use crate::Members;

/// Names a write, so that its completion can be told. Tokens grow: a completion stands for every
/// write up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names one connection on a quorum port. It is never used again: a reconnect is another link, so a
/// late packet of the old one cannot be mistaken for one of the new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What the peer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed. To be given every 10 ms or so: every wait of the protocol ends at one.
    Tick,
    /// An election message came.
    Notification {
        /// Who sent it, as its connection said.
        from: ServerId,
        /// What it said.
        notification: Notification,
    },
    /// Whether a member's election port can be reached: `false` when it refused a connection, so that
    /// nobody need wait for its vote.
    Reachable {
        /// The member.
        server: ServerId,
        /// Whether it can be reached.
        reachable: bool,
    },
    /// A link is there: one that was accepted (its id is from [`crate::Peer::accept`]), or the one
    /// that [`Action::Connect`] asked for.
    LinkUp {
        /// The link.
        link: LinkId,
    },
    /// A link was accepted on the observer master port; its id is from [`crate::Peer::accept`].
    ObserverLinkUp {
        /// The link.
        link: LinkId,
    },
    /// A link is gone, or the one that [`Action::Connect`] asked for could not be made. Comes once for
    /// every link, except for those that [`Action::Close`] ended.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A packet came. `SNAP` is not among them: see [`Input::SnapshotReceived`].
    Packet {
        /// The link.
        link: LinkId,
        /// The packet.
        packet: QuorumPacket,
    },
    /// A `SNAP` packet and the whole stream behind it came, and are staged: [`Write::InstallSnapshot`]
    /// can make them the state. A peer that has everything in the snapshot does not ask for that; the
    /// staged state can be dropped once the link serves or is gone, unless it was asked for by then.
    SnapshotReceived {
        /// The link.
        link: LinkId,
        /// The zxid of the `SNAP` packet.
        zxid: Zxid,
        /// The configuration in the snapshot, if there is one.
        members: Option<Members>,
    },
    /// A long transfer on a link goes on: bytes of a snapshot came in, or went out. To be given about
    /// every second, so that a limit ends a transfer that stands still, and not one that is long.
    Progress {
        /// The link.
        link: LinkId,
    },
    /// A transaction to agree on; only a serving leader is asked. Its zxid is the one after the last.
    Propose {
        /// The transaction's id.
        zxid: Zxid,
        /// Header, body and digest as they are logged.
        txn: Bytes,
    },
    /// All writes up to `token` are on disk.
    Persisted {
        /// The last of them.
        token: Token,
    },
}

/// A change of the durable stream. Writes take effect in the order they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A transaction behind the last one.
    Append {
        /// Its id.
        zxid: Zxid,
        /// Its bytes.
        txn: Bytes,
    },
    /// The highest epoch that the peer has promised to.
    AcceptedEpoch(Epoch),
    /// The epoch whose leader's history the peer has.
    CurrentEpoch(Epoch),
    /// Everything behind `Zxid` is void.
    Truncate(Zxid),
    /// The snapshot staged for `link` becomes the state, and the log goes on behind `zxid`: what is in
    /// it is void, above `zxid` too. It takes effect with the next [`Self::CurrentEpoch`]: if that is
    /// not on disk, this and the writes in between have not happened (what the snapshot replaces may be
    /// needed to elect a leader: ZOOKEEPER-2872, 3642). Only [`Self::AcceptedEpoch`] is a promise that
    /// counts at once, here too.
    InstallSnapshot {
        /// The link that it came on.
        link: LinkId,
        /// The zxid that it is of.
        zxid: Zxid,
    },
}

/// Where a learner finds who feeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnerPort {
    /// The quorum port, of the leader.
    Quorum,
    /// The observer master port, of a follower.
    ObserverMaster,
}

/// In which role a peer serves clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingRole {
    /// It prepares and proposes.
    Leader,
    /// It forwards writes to the leader behind this link, and votes.
    Follower(LinkId),
    /// It forwards writes to the leader, or the follower, behind this link, without a vote.
    Observer(LinkId),
}

/// What has to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put `write` behind the writes before it, then answer with [`Input::Persisted`].
    Persist {
        /// The write's name.
        token: Token,
        /// The write.
        write: Write,
    },
    /// The next transaction is committed and in this peer's log: apply it.
    Deliver {
        /// Its zxid.
        zxid: Zxid,
        /// Its bytes.
        txn: Bytes,
    },
    /// The snapshot staged for `link` is on disk, with the [`Write::CurrentEpoch`] that makes it count:
    /// it takes the place of the tree. Comes only while nothing is served, perhaps after the link is
    /// gone; not for a snapshot whose place another one took before that.
    SwitchTree {
        /// The link that it came on.
        link: LinkId,
        /// The zxid that it is of.
        zxid: Zxid,
    },
    /// Send an election message, or drop it. One to the same server that is still unsent may be replaced.
    Notify {
        /// To whom.
        to: ServerId,
        /// The message.
        notification: Notification,
    },
    /// Dial a member, and answer with [`Input::LinkUp`] or [`Input::LinkDown`].
    Connect {
        /// The link's name.
        link: LinkId,
        /// Whom to dial.
        server: ServerId,
        /// At which of its ports.
        port: LearnerPort,
    },
    /// Hang up, without sending what is still queued, and give no further input for it.
    Close {
        /// The link.
        link: LinkId,
    },
    /// Put a packet behind everything else on the link.
    Send {
        /// The link.
        link: LinkId,
        /// The packet.
        packet: QuorumPacket,
    },
    /// In the link's order: every transaction above `after` up to `to`, read from the log, each as
    /// `PROPOSAL` and `COMMIT`. All of them are on disk. If it cannot be done the link goes down.
    SendHistory {
        /// The link.
        link: LinkId,
        /// Up to here the learner has it.
        after: Zxid,
        /// The last one.
        to: Zxid,
    },
    /// In the link's order: `SNAP` with the zxid of the newest stored state (at the moment of this
    /// action: that is not above `to`), the snapshot, then the transactions above that zxid up to
    /// `to` as in [`Action::SendHistory`].
    SendSnapshot {
        /// The link.
        link: LinkId,
        /// The last transaction.
        to: Zxid,
    },
    /// A packet of the request layer came on a link that is ready for it. From a learner: `REQUEST`,
    /// `REVALIDATE`, and `PING` with the sessions it heard from. From the leader: `REVALIDATE`, `SYNC`
    /// (both behind the [`Action::Deliver`] of what was committed before them), and `PING`, to be answered.
    /// To an observer its follower is the leader; a follower gets the packets of observers behind it,
    /// and has to hand them on.
    Pass {
        /// The link.
        link: LinkId,
        /// The packet.
        packet: QuorumPacket,
    },
    /// Open for clients.
    Serve {
        /// In which role.
        role: ServingRole,
    },
    /// Close for clients: every connection goes, its requests unanswered.
    StopServing {
        /// What happened, for the log.
        why: &'static str,
    },
    /// These members may be the ensemble, now or soon: those that come are reached at these addresses too.
    /// Another such action takes the place of this one, and so does the next [`Action::Activate`].
    Propose {
        /// The members.
        members: Members,
    },
    /// The ensemble is another one from now on: these members are reached at other addresses, this
    /// server may have to listen elsewhere, and the next start should find them.
    Activate {
        /// The members.
        members: Members,
    },
    /// Nothing that this server could do is safe: it must stop. `why` tells the operator what
    /// happened and what to do.
    Halt {
        /// What happened, and what to do.
        why: String,
    },
}
