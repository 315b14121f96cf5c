//! Logs: who proposed a transaction, and what stands before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use zk_proto::txn::LoggedTxn;
use zk_proto::{Epoch, Zxid};

use super::{Verdict, fail};

/// A transaction as its proposer made it.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// What it follows.
    pub before: Zxid,
    /// The member that proposed it.
    pub by: usize,
    /// The log entry.
    pub bytes: Bytes,
    /// The same, decoded.
    pub txn: LoggedTxn,
}

/// Every transaction that was ever proposed.
#[derive(Debug, Default)]
pub struct Ledger {
    proposed: BTreeMap<Zxid, Proposed>,
    /// Who leads an epoch, as its first proposal says.
    leaders: BTreeMap<Epoch, (usize, u32)>,
}

/// Whether an entry is new to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    /// Its proposer logs it: this is the proposal.
    Proposed {
        /// Whether it is the first of its epoch.
        first: bool,
    },
    /// It is known.
    Again,
}

impl Ledger {
    /// The transaction with this zxid.
    #[must_use]
    pub fn get(&self, zxid: Zxid) -> Option<&Proposed> {
        self.proposed.get(&zxid)
    }

    /// Who proposed first in this epoch.
    #[must_use]
    pub fn leader(&self, epoch: Epoch) -> Option<usize> {
        self.leaders.get(&epoch).map(|(member, _)| *member)
    }

    /// Member `member`, in its life `life`, asks its disk for a transaction behind `before`.
    ///
    /// # Errors
    /// Z3, Z5 to Z7, Z12, Z13: it was not proposed, or is not what was proposed, or stands behind
    /// something else than at its proposer.
    pub fn every_log_is_a_prefix_of_what_was_proposed(
        &mut self,
        (member, life): (usize, u32),
        leads: bool,
        before: Zxid,
        zxid: Zxid,
        bytes: &Bytes,
    ) -> Result<Logged, super::Violation> {
        const CHECKER: &str = "Z3 Z5 Z6 Z7 Z12 Z13 every log is a chain of what was proposed";
        if let Some(known) = self.proposed.get(&zxid) {
            if known.before != before {
                return fail(
                    CHECKER,
                    format!(
                        "member {member} logs {zxid} behind {before}; it was proposed behind {}",
                        known.before
                    ),
                );
            }
            if known.bytes != bytes {
                return fail(
                    CHECKER,
                    format!("member {member} logs another {zxid} than was proposed"),
                );
            }
            if known.by == member
                && leads
                && self.leaders.get(&zxid.epoch()) == Some(&(member, life))
            {
                return fail(CHECKER, format!("member {member} proposes {zxid} again"));
            }
            return Ok(Logged::Again);
        }
        if !leads {
            return fail(CHECKER, format!("member {member} logs {zxid}, which nobody proposed"));
        }
        let epoch = zxid.epoch();
        let first = !self.leaders.contains_key(&epoch);
        let leader = *self.leaders.entry(epoch).or_insert((member, life));
        if leader != (member, life) && epoch != Epoch(0) {
            return fail(
                "Z1 one leader proposes in an epoch",
                format!(
                    "member {member} (life {life}) proposes {zxid}; member {} (life {}) did before",
                    leader.0, leader.1
                ),
            );
        }
        let follows =
            zxid.0 == before.0 + 1 || (zxid.counter() == 1 && zxid.epoch() > before.epoch());
        if !follows {
            return fail(
                CHECKER,
                format!("member {member} proposes {zxid} behind {before}: a gap"),
            );
        }
        let txn = match LoggedTxn::decode(bytes) {
            Ok(txn) => txn,
            Err(error) => return fail(CHECKER, format!("{zxid} cannot be decoded: {error}")),
        };
        if txn.header.zxid != zxid {
            return fail(CHECKER, format!("{zxid} says that it is {}", txn.header.zxid));
        }
        self.proposed.insert(zxid, Proposed { before, by: member, bytes: bytes.clone(), txn });
        Ok(Logged::Proposed { first })
    }

    /// Z12, for what is on a disk: a transaction stands behind what it was proposed behind. (The zxid of
    /// an epoch's beginning is that of a state, and no transaction's.)
    ///
    /// # Errors
    /// It does not.
    pub fn a_log_on_disk_has_no_gap(&self, member: usize, zxid: Zxid, behind: Zxid) -> Verdict {
        let Some(known) = self.proposed.get(&zxid) else { return Ok(()) };
        if known.before == behind || (behind.counter() == 0 && known.before < behind) {
            return Ok(());
        }
        fail(
            "Z12 a log on disk has no gap",
            format!(
                "on the disk of member {member} {zxid} is behind {behind}; it was proposed behind {}",
                known.before
            ),
        )
    }

    /// A server on its own has lost what is behind `end`: without epochs it uses these numbers again.
    pub fn forget_above(&mut self, end: Zxid) {
        self.proposed.retain(|zxid, _| *zxid <= end);
        self.leaders.clear();
    }

    /// Whether `zxid` is `other`, or stands before it in its chain.
    #[must_use]
    pub fn is_in_chain_of(&self, zxid: Zxid, other: Zxid) -> bool {
        let mut at = other;
        while at > zxid {
            match self.proposed.get(&at) {
                Some(proposed) => at = proposed.before,
                None => return false,
            }
        }
        at == zxid
    }

    /// Z12, for what a member tells others: packets carry what was proposed.
    ///
    /// # Errors
    /// They do not.
    pub fn packets_carry_what_was_proposed(&self, zxid: Zxid, bytes: &Bytes) -> Verdict {
        const CHECKER: &str = "Z3 Z13 packets carry what was proposed";
        match self.proposed.get(&zxid) {
            Some(known) if known.bytes == bytes => Ok(()),
            Some(_) => fail(CHECKER, format!("another {zxid} than was proposed is sent")),
            None => fail(CHECKER, format!("{zxid} is sent, which nobody proposed")),
        }
    }
}
