//! Zab: the order in which an ensemble agrees on transactions, in the messages of Apache ZooKeeper.
//!
//! A [`Peer`] is a state machine: [`Peer::step`] takes an [`Input`], [`Peer::poll_action`] yields what
//! the shell has to do about it. It knows no socket, disk, clock or thread, and nothing of the tree: to
//! it a transaction is a zxid and opaque bytes. The same inputs always give the same actions.
//!
//! # The protocol
//!
//! **Election.** Whoever has no leader is LOOKING. Votes go around until a quorum proposes the server
//! with the most recent history (`election.rs`). An election promises little: that this server had the
//! votes of a quorum at some time. Everything else is for the next three phases to make sure of.
//!
//! **Discovery.** Followers dial whom they elected, and say which epoch they accepted last. When a quorum
//! is there, the leader proposes an epoch later than all of these. Who accepts it will not follow a leader
//! of an earlier one, and says how recent its own history is: the epoch of the last leader whose
//! history it had, and its last zxid. If one is more recent than the leader's, the leader gives up.
//! With a quorum of promises nobody else can lead in this epoch, and, as any two quorums share a server,
//! everything that was ever committed is in the leader's history.
//!
//! **Synchronization.** Each learner's log is made equal to the leader's: with what is missing (`DIFF`),
//! after what is too much is gone (`TRUNC`), or with a snapshot (`SNAP`); `sync_plan.rs` decides. In the
//! same step the learner is taken into broadcast, so that nothing falls in between. `NEWLEADER` ends it.
//! The learner acknowledges that when the whole history, and then the epoch, is on its disk. With a
//! quorum of these, the leader's own among them, the initial history is committed, and the leader is
//! established: it serves, and tells its learners that they are up to date.
//!
//! **Broadcast.** The leader gives each transaction the next zxid of its epoch, logs it and proposes it.
//! Followers log it and acknowledge it when it is on disk. Once a quorum has it on disk it is committed,
//! in order; observers hear of it only then. Pings go to all learners. A leader that does not hear from
//! a quorum steps down, a learner that does not hear from its leader goes back to an election.
//!
//! **Observers** can be fed by followers instead of the leader (`learner/master.rs`): each dials one of the
//! followers, in an order of its own, and goes on to the next when that one is lost. When none of them
//! answers the leader is dialled.
//!
//! **Quorums** are majorities of the voters, or, with groups and weights, what wins more than half of the
//! groups ([`QuorumVerifier`]). A voter without weight does what voters do and is waited for by nobody:
//! its promises, acknowledgements and votes make no quorum, it is never elected, and when it has more
//! than the leader it is truncated, once a quorum has made sure that this is not committed.
//!
//! A server on its own is a leader with a quorum of one, without an election, epochs and learners:
//! [`Peer::recover_standalone`]. Writes take the same path.
//!
//! # Durability
//!
//! [`Action::Persist`] puts a write behind the others, and [`Input::Persisted`] tells when all up to one
//! are on disk. What follows then is kept as data beside the write, with the generation of the role
//! that asked for it. A completion that comes in a later role still says what is in the log; it is never
//! an acknowledgement to another leader.
//!
//! What is not committed is never delivered. So truncating the log undoes nothing that the tree has,
//! and if a leader demands more, committed data is lost somewhere, and the peer halts. Upstream applies
//! what it has logged when it starts and during synchronization, and reloads its tree to truncate.
//!
//! # Invariants
//!
//! - Transactions are delivered in zxid order, each once, without a gap; the same zxid is the same
//!   transaction everywhere.
//! - What is delivered is on the disks of a quorum, and on this server's.
//! - Any two quorums have a server in common, and who leads has weight.
//! - There is one established leader in an epoch, and its history has all that was committed before.
//! - Accepted and current epoch never go back, and no promise is told before it is on disk.
//! - The order of writes in a synchronization is: snapshot, truncation, transactions, epoch. The
//!   acknowledgement of `NEWLEADER` comes behind all of them, and those of proposals behind that one
//!   (ZOOKEEPER-3911, 4643, 4646, 4685, 4785, 4394).
//! - A peer whose disk does not answer for `syncLimit` takes part in nothing until it does.
//! - What a peer says wrongly costs its link. Nothing that it says makes this crate panic; only the
//!   shell's own mistakes do.
//!
//! # Caveats
//!
//! - **Java learners commit only what they were told.** They have on disk, when they acknowledge
//!   `NEWLEADER`, what came with a `COMMIT`. So a leader sends its whole initial history as committed,
//!   as upstream does, although it is not until a quorum has it; and our learners believe a `COMMIT`
//!   before `UPTODATE` only from `UPTODATE` on.
//! - **A snapshot of a leader that is not established** may hold what never gets committed, if the leader
//!   is upstream's. (Ours sends only what it delivered.) If another one then truncates below it, the peer
//!   halts.
//! - **Not every snapshot is installed.** One that is older than the log is only compared with it:
//!   what is committed and on this disk never leaves it.
//! - **Acknowledgements count one by one, in order.** A follower that leaves one out loses its link.
//! - **A leader steps down for a member that has accepted a later epoch**, as upstream's does not: that
//!   member could not join until the next election. The next epoch passes that one, so it happens once; and
//!   not again for 20 ticks, whoever claims to be a member.
//! - **A leader that is cut off** may believe to be established after a later one is. It cannot commit
//!   anything, and notices within `syncLimit`; reads from it are as stale as upstream's.
//! - **The configuration is static.** A follower with a newer one is refused, a reconfiguration from a
//!   leader ends the link. The version in `NEWLEADER` is remembered until a restart, as upstream without
//!   `reconfigEnabled` has it.
//! - Nothing here is authenticated: whoever can reach the quorum port with a member's id is that member.

pub mod bugs;
mod config;
mod core;
mod election;
mod history;
mod io;
mod leader;
mod learner;
mod log_tail;
mod looking;
mod packet;
mod peer;
mod quorum;
mod reconfig;
mod rotation;
mod status;
mod sync_plan;

pub use config::{Durable, Members, PeerConfig};
pub use history::{History, NoHistory};
pub use io::{Action, Input, LearnerPort, LinkId, ServingRole, Token, Write};
pub use peer::Peer;
pub use quorum::QuorumVerifier;
pub use status::{LearnerPhase, LearnerStatus, PeerStatus};
