use std::collections::BTreeSet;

use zk_proto::ServerId;

use crate::Members;

/// Says which sets of servers may decide: those with more than half of the voters (upstream's
/// `QuorumMaj`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumVerifier {
    voters: BTreeSet<ServerId>,
}

impl QuorumVerifier {
    /// The majorities of these members.
    #[must_use]
    pub fn new(members: &Members) -> Self {
        Self { voters: members.voters.clone() }
    }

    /// Whether more than half of the voters are in `servers`; who is no voter does not count.
    #[must_use]
    pub fn contains_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.voters.intersection(servers).count() > self.voters.len() / 2
    }

    /// Whether this server votes.
    #[must_use]
    pub fn is_voter(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Everybody who votes.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<ServerId> {
        &self.voters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[i64]) -> BTreeSet<ServerId> {
        ids.iter().copied().map(ServerId).collect()
    }

    #[test]
    fn a_quorum_is_more_than_half_of_the_voters() {
        for (voters, servers, expected) in [
            (&[1][..], &[1][..], true),
            (&[1], &[2], false),
            (&[1, 2], &[1], false),
            (&[1, 2], &[1, 2], true),
            (&[1, 2, 3], &[1, 3], true),
            (&[1, 2, 3], &[3], false),
            (&[1, 2, 3, 4], &[1, 2], false),
            (&[1, 2, 3, 4], &[1, 2, 4], true),
            (&[1, 2, 3], &[1, 7, 8, 9], false),
            (&[], &[], false),
            (&[], &[1], false),
        ] {
            let members =
                Members { voters: set(voters), observers: set(&[9]), ..Members::default() };
            let verifier = QuorumVerifier::new(&members);
            assert_eq!(
                verifier.contains_quorum(&set(servers)),
                expected,
                "{servers:?} of {voters:?}"
            );
        }
    }

    #[test]
    fn two_quorums_have_a_server_in_common() {
        for size in 1..=7_i64 {
            let members =
                Members { voters: (1..=size).map(ServerId).collect(), ..Members::default() };
            let verifier = QuorumVerifier::new(&members);
            let subset = |bits: i64| -> BTreeSet<ServerId> {
                (0..size).filter(|bit| bits >> bit & 1 == 1).map(|bit| ServerId(bit + 1)).collect()
            };
            for bits in 0..1 << size {
                let (inside, outside) = (subset(bits), subset(!bits));
                assert!(!(verifier.contains_quorum(&inside) && verifier.contains_quorum(&outside)));
            }
        }
    }
}
