//! Reconfiguration: which configurations decide, and when the next one takes over
//! (`Leader.tryToCommit`, `QuorumPeer.processReconfig` upstream).
//!
//! A reconfiguration is a transaction. From its proposal on, everything needs a quorum of both
//! configurations; when it is committed the next one is in force alone. A server finds the next one where
//! it found the transaction: in its log, which is also where it goes with it when the log is truncated.
//! So no quorum of the old configuration can go on without knowing of the new one: one of its servers
//! has the transaction, and the leader that they elect has it too.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use tracing::{info, warn};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{OpCode, ServerId, Zxid};

use crate::bugs::{Bug, seeded};
use crate::core::Core;
use crate::{Action, Members, QuorumVerifier};

/// Where the operation's number stands in a logged transaction.
const OP_AT: std::ops::Range<usize> = 28..32;

/// A configuration that is not in force yet.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) members: Members,
    pub(crate) verifier: QuorumVerifier,
    /// What comes with this transaction and behind it needs its quorum too.
    pub(crate) since: Zxid,
}

/// Who elects: the voters in force. While a reconfiguration is under way those that come are asked too
/// (`QuorumPeer.getCurrentAndNextConfigVoters` upstream): they may be in force already. Their quorum is
/// waited for, but not for ever, since they may not know that they are to vote; no leader gets an epoch
/// without them.
#[derive(Debug, Clone)]
pub(crate) struct Electorate {
    verifier: QuorumVerifier,
    next: Option<QuorumVerifier>,
    /// Those in force and those that come.
    voters: BTreeSet<ServerId>,
    /// The versions of both.
    versions: (i64, Option<i64>),
}

impl Electorate {
    pub(crate) fn new(current: &Members, next: Option<&Members>) -> Self {
        let come = next.map(|next| &next.voters).into_iter().flatten();
        Self {
            verifier: QuorumVerifier::new(current),
            next: next.map(QuorumVerifier::new),
            voters: current.voters.iter().chain(come).copied().collect(),
            versions: Self::versions(current, next),
        }
    }

    fn versions(current: &Members, next: Option<&Members>) -> (i64, Option<i64>) {
        (current.version, next.map(|next| next.version))
    }

    /// Whether it is of these configurations.
    pub(crate) fn is_of(&self, current: &Members, next: Option<&Members>) -> bool {
        self.versions == Self::versions(current, next)
    }

    pub(crate) fn voters(&self) -> &BTreeSet<ServerId> {
        &self.voters
    }

    pub(crate) fn is_voter(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Whether it may be elected in a round.
    ///
    /// Of those that only come, every other round: they alone may have what is committed, if the next
    /// configuration is in force already. But those that do not know of it elect none of them, and may be
    /// needed for a quorum.
    pub(crate) fn may_lead(&self, server: ServerId, round: i64) -> bool {
        self.verifier.has_weight(server)
            || Self::is_round_for_all(round)
                && self.next.as_ref().is_some_and(|next| next.has_weight(server))
    }

    fn is_round_for_all(round: i64) -> bool {
        round % 2 == 0
    }

    /// Whether a round may come to nothing because not everybody knows whom it is for.
    pub(crate) fn is_divided(&self, round: i64) -> bool {
        self.next.is_some() && Self::is_round_for_all(round)
    }

    pub(crate) fn contains_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.verifier.contains_quorum(servers)
    }

    /// Whether those that come agree as well.
    pub(crate) fn contains_next_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.next.as_ref().is_none_or(|next| next.contains_quorum(servers))
    }
}

/// The members that a logged transaction brings, if it is a reconfiguration.
pub(crate) fn members_in(txn: &Bytes) -> Option<Members> {
    if txn.get(OP_AT)? != OpCode::RECONFIG.0.to_be_bytes() {
        return None;
    }
    let Ok(LoggedTxn { header, txn: Txn::SetData(set), .. }) = LoggedTxn::decode(txn) else {
        warn!("a reconfiguration that cannot be read");
        return None;
    };
    let data = set.data.unwrap_or_default();
    let Ok(text) = std::str::from_utf8(&data) else {
        warn!(zxid = %header.zxid, "a configuration that is no text");
        return None;
    };
    Some(Members::from_text(text))
}

/// Where a server is in a configuration, for those that follow it.
fn quorum_addresses(members: &Members, server: ServerId) -> Option<Vec<(String, u16)>> {
    let member = members.servers().remove(&server)?;
    // No name is looked up here; but this one is known.
    let host = |host: String| if host == "localhost" { "127.0.0.1".to_owned() } else { host };
    let addresses = member.addresses.into_iter();
    let mut addresses: Vec<_> =
        addresses.map(|address| (host(address.host), address.quorum_port)).collect();
    addresses.sort();
    Some(addresses)
}

/// Whether a leader goes on when `next` takes the place of `current`: as a voter, at the same address.
pub(crate) fn keeps_leader(current: &Members, next: &Members, leader: ServerId) -> bool {
    next.voters.contains(&leader)
        && quorum_addresses(current, leader) == quorum_addresses(next, leader)
}

impl Core {
    /// Looks for reconfigurations that are logged, and not known to be committed.
    pub(crate) fn recover_next(&mut self) {
        if seeded(Bug::ForgottenReconfiguration) {
            return;
        }
        let logged = self.tail.after(self.tail.delivered());
        let found: Vec<_> =
            logged.filter_map(|(zxid, txn)| Some((*zxid, members_in(txn)?))).collect();
        for (zxid, members) in found {
            self.expect(members, zxid);
        }
    }

    /// A file tells of a reconfiguration, whose transaction may be gone: until a leader says that it is in
    /// force, or has a history without it, everything takes its quorum too.
    pub(crate) fn recover_proposed(&mut self) {
        let Some(members) = self.config.proposed.take() else { return };
        let logged = self.next.as_ref().map(|next| next.members.version);
        if logged.is_none_or(|logged| logged < members.version) {
            self.expect(members, Zxid::ZERO);
        }
    }

    /// A transaction is proposed: it may be a reconfiguration.
    pub(crate) fn note_proposal(&mut self, zxid: Zxid, txn: &Bytes) {
        if let Some(members) = members_in(txn) {
            self.expect(members, zxid);
        }
    }

    /// Whether these members can take the place of those in force.
    fn is_news(&self, members: &Members) -> bool {
        members.version > self.config.members.version && !members.voters.is_empty()
    }

    /// From `since` on the quorums of these members count as well: they are in the history that is here.
    ///
    /// No leader proposes a reconfiguration before the one under way is committed, so of two in one history the
    /// earlier one is in force, and its quorums are needed: those of the ensemble before it may have been
    /// replaced by then.
    pub(crate) fn expect(&mut self, members: Members, since: Zxid) {
        if !self.is_news(&members) {
            return;
        }
        if let Some(mut next) = self.next.take() {
            match next.members.version.cmp(&members.version) {
                Ordering::Equal => {
                    // What a file told of has its transaction now.
                    next.since = next.since.max(since);
                    self.next = Some(next);
                    return;
                }
                Ordering::Greater => {
                    self.next = Some(next);
                    return self.activate(members);
                }
                Ordering::Less => self.activate(next.members),
            }
        }
        info!(version = format_args!("{:x}", members.version), members = %members.text, "another configuration is proposed");
        self.act(Action::Propose { members: members.clone() });
        self.next = Some(Next { verifier: QuorumVerifier::new(&members), members, since });
    }

    /// Whether a transaction that these servers have on disk is committed.
    pub(crate) fn may_commit(&self, zxid: Zxid, servers: impl Iterator<Item = ServerId>) -> bool {
        let next = self.next.as_ref().filter(|next| next.since <= zxid);
        match next.filter(|_| !seeded(Bug::OldQuorumDecides)) {
            None => self.verifier.is_quorum(servers),
            Some(next) => {
                let servers = servers.collect();
                self.verifier.contains_quorum(&servers) && next.verifier.contains_quorum(&servers)
            }
        }
    }

    /// These members are in force.
    pub(crate) fn activate(&mut self, members: Members) {
        if !self.is_news(&members) {
            return;
        }
        if self.next.as_ref().is_some_and(|next| next.members.version <= members.version) {
            self.next = None;
        }
        info!(version = format_args!("{:x}", members.version), members = %members.text, "another configuration is in force");
        self.verifier = QuorumVerifier::new(&members);
        self.config.members = members.clone();
        self.act(Action::Activate { members });
    }

    /// Whether somebody who is no member here may tell of these members: it is one of them, and so is this server, where
    /// it is known to be. So it is found by an ensemble of others than those that it knew, and does not
    /// take one for its own that happens to be at addresses where its own was.
    pub(crate) fn belongs_to(&self, members: &Members, from: ServerId) -> bool {
        let own = quorum_addresses(members, self.id());
        own.is_some()
            && own == quorum_addresses(&self.config.members, self.id())
            && members.servers().contains_key(&from)
    }

    /// Another member says that the configuration of this version is in force; whether it is the next one.
    pub(crate) fn activate_next(&mut self, version: i64) -> bool {
        let known = self.next.take_if(|next| next.members.version == version);
        let is_next = known.is_some();
        if let Some(next) = known {
            self.activate(next.members);
        }
        is_next
    }

    /// Whether this server's part is another one in these members: it is an observer and was none, or
    /// the other way round. Who is not among them follows without a vote.
    pub(crate) fn changes_role(&self, observes: bool, members: &Members) -> bool {
        observes != members.observers.contains(&self.id())
    }
}
