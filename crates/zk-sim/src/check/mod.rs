//! What must hold, whatever happens: one file for each family of promises.
//!
//! Checkers look at what can be observed: packets on links, writes to disks, the zxid and digest of each
//! member's tree, frames at clients. They share no code with what they check, but for the codecs. Each
//! names what it checks:
//!
//! - **Zab.** Z1 one leader per epoch. Z2 committed prefixes agree. Z3 what is delivered was proposed. Z4
//!   agreement. Z5 total order. Z6, Z7 local and global primary order. Z8 primary integrity. Z9 a new
//!   leader has all that was committed. Z10 what is committed is never truncated. Z11 epochs and applied
//!   zxids never go back. Z12 logs have no gap. Z13 the same zxid is the same transaction and tree.
//! - **Durability.** D1 acknowledged is on disk. D2 history, then epoch, then acknowledgement. D3 a failed
//!   sync ends the process. D5 memory is never ahead of the disk. D7 what is received is what was stored.
//! - **Clients.** C1 writes are linearizable. C2 first in, first out in a session. C3 a read equals the
//!   state at its zxid. C4 a session never sees an older zxid. C5 done once, or once or never if nobody
//!   said. C6 a multi is whole. C7 reads after sync. C8 sequence names are unique and increase.
//! - **Sessions.** S1, S2 ephemerals end with their session. S3 no expiry before the timeout. S4 no second
//!   life. S7 local sessions stay out of the log, and live for their timeout where they began. S5 a password is asked for. S6 a moved session's old connection changes nothing.
//! - **Watches.** W1 events before replies that show the change. W2 once. W3 none missed. W4 in order.
//! - **Liveness.** L1 without faults an ensemble is of use within ten seconds. L2 no zombies.

pub mod client;
pub mod commit;
pub mod durability;
pub mod leadership;
pub mod log;
pub mod model;
pub mod session;
pub mod watch;

use std::collections::BTreeMap;

use zk_proto::Zxid;
use zk_session::LocalSessionMode;

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    /// What was checked: ids, and the promise as a sentence.
    pub checker: &'static str,
    /// What was found.
    pub message: String,
}

/// `Ok`, or what is wrong.
pub type Verdict = Result<(), Violation>;

/// A violation.
///
/// # Errors
/// Always: that is what it is for.
pub fn fail<T>(checker: &'static str, message: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { checker, message: message.into() })
}

/// The state of all checkers.
#[derive(Debug, Default)]
pub struct Checks {
    /// Who proposed what, behind what.
    pub ledger: log::Ledger,
    /// Epochs and their leaders.
    pub leadership: leadership::Leadership,
    /// What is committed.
    pub commits: commit::Commits,
    /// The committed state at every zxid.
    pub model: model::Model,
    /// What clients asked for, and what came of it.
    pub clients: client::Clients,
    /// Sessions.
    pub sessions: session::Sessions,
    /// The digest that the first member had at each zxid.
    digests: BTreeMap<Zxid, (u64, usize)>,
}

impl Checks {
    /// Of an ensemble that has seen nothing.
    #[must_use]
    pub fn new(local: LocalSessionMode) -> Self {
        let mut checks = Self::default();
        checks.clients.local = local;
        checks.sessions.local = local;
        checks
    }

    /// Z13: the same zxid, the same tree, on every member.
    ///
    /// # Errors
    /// Two trees differ.
    pub fn trees_at_the_same_zxid_are_equal(
        &mut self,
        member: usize,
        zxid: Zxid,
        digest: u64,
    ) -> Verdict {
        const CHECKER: &str = "Z13 trees at the same zxid are equal";
        let (known, by) = *self.digests.entry(zxid).or_insert((digest, member));
        if known != digest {
            return fail(
                CHECKER,
                format!(
                    "at {zxid} member {member} has digest {digest:x}, member {by} has {known:x}"
                ),
            );
        }
        Ok(())
    }
}
