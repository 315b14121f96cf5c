//! What must hold, whatever happens: one file for each family of promises.
//!
//! The ids (Z1, D1, C1, ...) are those of the list of invariants in `ARCHITECTURE.md`. Checkers look at
//! what can be observed: packets on links, writes to disks, the zxid and digest of each member's tree,
//! frames at clients. They share no code with what they check, but for the codecs.

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
                format!("at {zxid} member {member} has digest {digest:x}, member {by} has {known:x}"),
            );
        }
        Ok(())
    }
}
