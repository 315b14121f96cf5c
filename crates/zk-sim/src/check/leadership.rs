//! Epochs and their leaders.

use std::collections::BTreeMap;

use zk_proto::{Epoch, ServerId, Zxid};
use zk_zab::QuorumVerifier;

use super::log::Ledger;
use super::{Verdict, fail};

/// What is known of an epoch.
#[derive(Debug, Clone, Copy)]
struct Reign {
    member: usize,
    life: u32,
    /// Where the leader's log ended when it offered its history.
    history: Zxid,
}

/// All epochs.
#[derive(Debug, Default)]
pub struct Leadership {
    reigns: BTreeMap<Epoch, Reign>,
    /// Epochs whose leaders served.
    established: BTreeMap<Epoch, usize>,
}

impl Leadership {
    /// Z1: a leader offers its history (`NEWLEADER`) for this epoch, and no other member ever does.
    /// Z9: everything that is committed is in that history. Whether it is the first time.
    ///
    /// # Errors
    /// One of them does not hold.
    pub fn one_leader_in_an_epoch_with_all_that_is_committed(
        &mut self,
        (member, life): (usize, u32),
        epoch: Epoch,
        log_end: Zxid,
        committed: Zxid,
        ledger: &Ledger,
    ) -> Result<bool, super::Violation> {
        if let Some(reign) = self.reigns.get(&epoch) {
            if (reign.member, reign.life) != (member, life) {
                return fail(
                    "Z1 one established leader per epoch",
                    format!(
                        "member {member} (life {life}) offers its history for epoch {epoch}; member {} (life {}) did before",
                        reign.member, reign.life
                    ),
                );
            }
            return Ok(false);
        }
        if !ledger.is_in_chain_of(committed, log_end) && committed.epoch() < epoch {
            return fail(
                "Z9 a new leader's log contains all that was committed",
                format!(
                    "member {member} offers its history up to {log_end} for epoch {epoch}; {committed} is committed and not in it"
                ),
            );
        }
        // What it proposed itself in this epoch is not history.
        let mut history = log_end;
        while history.epoch() >= epoch {
            history = ledger.get(history).map_or(Zxid::ZERO, |proposed| proposed.before);
        }
        self.reigns.insert(epoch, Reign { member, life, history });
        Ok(true)
    }

    /// Where the history ended that this epoch began with.
    #[must_use]
    pub fn history(&self, epoch: Epoch) -> Option<Zxid> {
        self.reigns.get(&epoch).map(|reign| reign.history)
    }

    /// Whether this process offered its history for the epoch.
    #[must_use]
    pub fn is_of(&self, epoch: Epoch, member: usize, life: u32) -> bool {
        self.reigns.get(&epoch).is_some_and(|reign| (reign.member, reign.life) == (member, life))
    }

    /// Z1: a member serves as the leader of an epoch.
    ///
    /// # Errors
    /// Another one did.
    pub fn one_leader_serves_in_an_epoch(&mut self, member: usize, epoch: Epoch) -> Verdict {
        let by = *self.established.entry(epoch).or_insert(member);
        if by != member {
            return fail(
                "Z1 one established leader per epoch",
                format!("members {by} and {member} serve as leaders of epoch {epoch}"),
            );
        }
        Ok(())
    }

    /// Z1: who has no weight never leads, not even an epoch that comes to nothing.
    ///
    /// # Errors
    /// It does.
    pub fn who_leads_has_weight(member: usize, id: ServerId, verifier: &QuorumVerifier) -> Verdict {
        if !verifier.has_weight(id) {
            return fail(
                "Z1 who leads has weight",
                format!("member {member} leads, and has no weight: {verifier:?}"),
            );
        }
        Ok(())
    }

    /// The newest epoch for which a history was offered.
    #[must_use]
    pub fn newest_offered(&self) -> Epoch {
        self.reigns.keys().next_back().copied().unwrap_or_default()
    }

    /// The newest epoch in which somebody served.
    #[must_use]
    pub fn newest(&self) -> Epoch {
        self.established.keys().next_back().copied().unwrap_or_default()
    }

    /// Z8: a leader that proposes for the first time has delivered everything before it.
    ///
    /// # Errors
    /// It has not.
    pub fn a_new_primary_has_delivered_what_was_before_it(
        member: usize,
        first: Zxid,
        before: Zxid,
        applied: Zxid,
    ) -> Verdict {
        if applied != before && applied != Zxid::new(first.epoch(), 0) {
            return fail(
                "Z8 a new primary has delivered what was before it",
                format!(
                    "member {member} proposes {first} behind {before}, and its tree is at {applied}"
                ),
            );
        }
        Ok(())
    }

    /// Z11: epochs never go back, and the current one is never ahead of the accepted one.
    ///
    /// # Errors
    /// They do.
    pub fn epochs_never_go_back(
        member: usize,
        what: &str,
        before: Epoch,
        after: Epoch,
        accepted: Epoch,
    ) -> Verdict {
        const CHECKER: &str = "Z11 epochs never go back";
        if after < before {
            return fail(
                CHECKER,
                format!("member {member}: {what} epoch from {before} to {after}"),
            );
        }
        if after > accepted {
            return fail(
                CHECKER,
                format!(
                    "member {member}: {what} epoch {after} was never accepted ({accepted} was)"
                ),
            );
        }
        Ok(())
    }
}
