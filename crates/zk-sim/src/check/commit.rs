//! What is committed.

use std::collections::BTreeSet;

use zk_proto::{ServerId, Zxid};
use zk_zab::QuorumVerifier;

use super::log::Ledger;
use super::{Verdict, fail};

/// Everything that any member has treated as committed, in order.
#[derive(Debug, Default)]
pub struct Commits {
    order: Vec<Zxid>,
}

impl Commits {
    /// The last one.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.order.last().copied().unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, zxid: Zxid) -> bool {
        zxid == Zxid::ZERO || self.order.binary_search(&zxid).is_ok()
    }

    /// The last one at or below `zxid`.
    #[must_use]
    pub fn floor(&self, zxid: Zxid) -> Zxid {
        let above = self.order.partition_point(|commit| *commit <= zxid);
        above.checked_sub(1).map_or(Zxid::ZERO, |last| self.order[last])
    }

    /// Z2, Z4, Z5: what a member commits is a prefix of what others do, or goes on behind it. Gives what
    /// is new, in order.
    ///
    /// # Errors
    /// It is neither.
    pub fn committed_prefixes_agree(
        &mut self,
        member: usize,
        zxid: Zxid,
        ledger: &Ledger,
    ) -> Result<Vec<Zxid>, super::Violation> {
        const CHECKER: &str = "Z2 Z4 Z5 committed prefixes agree";
        let last = self.last();
        if zxid <= last {
            if !self.contains(zxid) {
                return fail(
                    CHECKER,
                    format!(
                        "member {member} commits {zxid}, which is not among what was committed up to {last}"
                    ),
                );
            }
            return Ok(Vec::new());
        }
        let mut new = Vec::new();
        let mut at = zxid;
        while at > last {
            new.push(at);
            match ledger.get(at) {
                Some(proposed) => at = proposed.before,
                None => {
                    return fail(
                        CHECKER,
                        format!("member {member} commits {at}, which nobody proposed"),
                    );
                }
            }
        }
        if at != last {
            return fail(
                CHECKER,
                format!(
                    "member {member} commits {zxid}, behind which {last} is not: it was committed"
                ),
            );
        }
        new.reverse();
        self.order.extend(&new);
        Ok(new)
    }

    /// D1: when the first one treats a transaction as committed, it is on the disks of a quorum.
    ///
    /// # Errors
    /// It is not.
    pub fn what_is_committed_is_on_the_disks_of_a_quorum(
        member: usize,
        zxid: Zxid,
        holders: &BTreeSet<ServerId>,
        verifier: &QuorumVerifier,
    ) -> Verdict {
        if !verifier.contains_quorum(holders) {
            return fail(
                "D1 what is committed is on the disks of a quorum",
                format!(
                    "member {member} commits {zxid}, which is on the disks of {holders:?}: {verifier:?}"
                ),
            );
        }
        Ok(())
    }

    /// Z10: what leaves a disk was not committed.
    ///
    /// # Errors
    /// It was.
    pub fn committed_transactions_stay_on_a_disk(
        &self,
        member: usize,
        kept: Zxid,
        before: Zxid,
    ) -> Verdict {
        // Everything on a disk is a chain: the last committed one of it is enough.
        let lost = self.floor(before);
        if lost > kept && self.contains(lost) {
            return fail(
                "Z10 committed transactions stay on a disk",
                format!(
                    "member {member}: the log went back from {before} to {kept}; {lost} is committed"
                ),
            );
        }
        Ok(())
    }
}
