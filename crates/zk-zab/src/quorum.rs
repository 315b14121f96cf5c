use std::collections::{BTreeMap, BTreeSet};

use zk_proto::ServerId;

use crate::Members;

/// Says which sets of servers may decide. Without groups: those with more than half of the voters
/// (upstream's `QuorumMaj`). With groups (`QuorumHierarchical`): those that win more than half of the
/// groups that have any weight, and a group is won with more than half of its weight.
///
/// Either way two of these sets have a server in common, and its word has weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumVerifier {
    voters: BTreeSet<ServerId>,
    hierarchy: Option<Hierarchy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// The weight of each group that has any.
    totals: Vec<u128>,
    /// Of each voter with a weight: its group, as an index, and the weight.
    places: BTreeMap<ServerId, (usize, u64)>,
}

impl Hierarchy {
    fn new(members: &Members) -> Self {
        let mut hierarchy = Self { totals: Vec::new(), places: BTreeMap::new() };
        for group in members.groups.values() {
            // Whoever is in the group has its part in the total, even if it never votes.
            let total = group.iter().map(|server| u128::from(members.weight(*server))).sum();
            if total == 0 {
                continue;
            }
            let index = hierarchy.totals.len();
            hierarchy.totals.push(total);
            for server in group.intersection(&members.voters) {
                let weight = members.weight(*server);
                if weight > 0 {
                    hierarchy.places.insert(*server, (index, weight));
                }
            }
        }
        hierarchy
    }

    fn is_quorum(&self, servers: impl Iterator<Item = ServerId>) -> bool {
        let mut sums = vec![0_u128; self.totals.len()];
        for server in servers {
            if let Some((group, weight)) = self.places.get(&server) {
                sums[*group] += u128::from(*weight);
            }
        }
        let won = sums.iter().zip(&self.totals).filter(|(sum, total)| **sum > **total / 2).count();
        won > self.totals.len() / 2
    }
}

impl QuorumVerifier {
    /// The quorums of these members.
    #[must_use]
    pub fn new(members: &Members) -> Self {
        Self {
            voters: members.voters.clone(),
            hierarchy: members.is_hierarchical().then(|| Hierarchy::new(members)),
        }
    }

    /// Whether `servers` may decide; who is no voter does not count.
    #[must_use]
    pub fn contains_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.is_quorum(servers.iter().copied())
    }

    /// The same of servers that each come once.
    #[must_use]
    pub fn is_quorum(&self, servers: impl IntoIterator<Item = ServerId>) -> bool {
        let servers = servers.into_iter();
        match &self.hierarchy {
            None => servers.filter(|server| self.is_voter(*server)).count() > self.voters.len() / 2,
            Some(hierarchy) => hierarchy.is_quorum(servers),
        }
    }

    /// Whether this server votes.
    #[must_use]
    pub fn is_voter(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Whether this server's word can make a difference. A voter without weight takes part in
    /// everything that voters do, but nothing waits for it, and it is never elected.
    #[must_use]
    pub fn has_weight(&self, server: ServerId) -> bool {
        match &self.hierarchy {
            None => self.is_voter(server),
            Some(hierarchy) => hierarchy.places.contains_key(&server),
        }
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

    /// Groups of `(server, weight)`.
    fn groups(groups: &[&[(i64, u64)]]) -> Members {
        let mut members = Members::default();
        for (group, servers) in (1..).zip(groups) {
            for (server, weight) in *servers {
                members.voters.insert(ServerId(*server));
                members.weights.insert(ServerId(*server), *weight);
                members.groups.entry(group).or_default().insert(ServerId(*server));
            }
        }
        members
    }

    #[test]
    fn more_than_half_of_the_weight_in_more_than_half_of_the_groups() {
        let nine = groups(&[
            &[(1, 1), (2, 1), (3, 1)],
            &[(4, 1), (5, 1), (6, 1)],
            &[(7, 1), (8, 1), (9, 1)],
        ]);
        let unequal = groups(&[&[(1, 3), (2, 1), (3, 1)], &[(4, 1), (5, 1)], &[(6, 0), (7, 0)]]);
        for (members, servers, expected) in [
            (&nine, &[1, 2, 4, 5][..], true),
            (&nine, &[1, 4, 7], false),
            (&nine, &[1, 2, 3, 4, 7], false), // five of nine, but of one group only
            (&nine, &[1, 2, 3, 4, 5, 6], true),
            (&nine, &[1, 2, 4, 7, 8], true),
            (&nine, &[], false),
            // One server is most of its group; half of a group is not enough; no weight is nothing.
            (&unequal, &[1, 4, 5], true),
            (&unequal, &[1, 4, 6, 7], false),
            (&unequal, &[2, 3, 4, 5, 6, 7], false),
            (&unequal, &[1, 6, 7], false),
            // Two groups count, so both are needed.
            (&unequal, &[1, 2, 3], false),
        ] {
            let verifier = QuorumVerifier::new(members);
            assert_eq!(verifier.contains_quorum(&set(servers)), expected, "{servers:?}");
        }
        let verifier = QuorumVerifier::new(&unequal);
        assert!(verifier.is_voter(ServerId(6)) && !verifier.has_weight(ServerId(6)));
        assert!(verifier.has_weight(ServerId(2)) && !verifier.has_weight(ServerId(10)));
    }

    #[test]
    fn one_group_of_equals_is_a_majority() {
        for size in 1..=6_i64 {
            let majority =
                Members { voters: (1..=size).map(ServerId).collect(), ..Members::default() };
            let one = [(1, majority.voters.clone())].into();
            let (plain, grouped) = (
                QuorumVerifier::new(&majority),
                QuorumVerifier::new(&Members { groups: one, ..majority }),
            );
            for bits in 0..1 << size {
                let servers = subset(size, bits);
                assert_eq!(plain.contains_quorum(&servers), grouped.contains_quorum(&servers));
            }
        }
    }

    #[test]
    fn who_only_has_weight_is_missing_in_every_quorum() {
        let mut members = groups(&[&[(1, 1), (2, 1), (3, 1)]]);
        members.voters.remove(&ServerId(3));
        let verifier = QuorumVerifier::new(&members);
        assert!(verifier.contains_quorum(&set(&[1, 2])));
        assert!(!verifier.contains_quorum(&set(&[1, 3])));
        // Without a line for it it weighs nothing.
        members.weights.clear();
        assert!(!QuorumVerifier::new(&members).contains_quorum(&set(&[1])));
        assert!(QuorumVerifier::new(&members).contains_quorum(&set(&[1, 2])));
    }

    #[test]
    fn weights_of_any_size_add_up() {
        let most = u64::try_from(i64::MAX).unwrap();
        let verifier = QuorumVerifier::new(&groups(&[&[(1, most), (2, most), (3, most)]]));
        assert!(verifier.contains_quorum(&set(&[1, 3])));
        assert!(!verifier.contains_quorum(&set(&[2])));
    }

    fn subset(size: i64, bits: i64) -> BTreeSet<ServerId> {
        (0..size).filter(|bit| bits >> bit & 1 == 1).map(|bit| ServerId(bit + 1)).collect()
    }

    /// By counting: in a group each server casts as many ballots as it weighs. A group with ballots is
    /// for `servers` or not, and so is the ensemble.
    fn counted(members: &Members, servers: &BTreeSet<ServerId>) -> bool {
        let mut balance = 0;
        for group in members.groups.values() {
            let mut ballots = 0_i64;
            let mut any = false;
            for server in group {
                for _ in 0..members.weights[server] {
                    any = true;
                    ballots += if servers.contains(server) { 1 } else { -1 };
                }
            }
            if any {
                balance += if ballots > 0 { 1 } else { -1 };
            }
        }
        balance > 0
    }

    #[test]
    fn quorums_are_what_the_definition_says_and_share_a_server() {
        let mut random = zk_testkit::Prng::new(7);
        let (mut quorums, mut others, mut without_weight) = (0_u32, 0_u32, 0_u32);
        for _ in 0..400 {
            let size = i64::try_from(2 + random.below(7)).unwrap();
            let count = 1 + random.below(4);
            let mut members = Members::default();
            for server in (1..=size).map(ServerId) {
                members.voters.insert(server);
                members.weights.insert(server, *random.pick(&[0, 0, 1, 1, 1, 2, 5]));
                let group = i64::try_from(random.below(count)).unwrap();
                members.groups.entry(group).or_default().insert(server);
            }
            let verifier = QuorumVerifier::new(&members);
            let weightless: BTreeSet<ServerId> =
                members.voters.iter().copied().filter(|it| !verifier.has_weight(*it)).collect();
            without_weight += u32::from(!weightless.is_empty());
            for bits in 0..1 << size {
                let (inside, outside) = (subset(size, bits), subset(size, !bits));
                let is = verifier.contains_quorum(&inside);
                assert_eq!(is, counted(&members, &inside), "{inside:?} of {members:?}");
                // With every superset of a quorum being one, this is what makes any two meet.
                assert!(!(is && verifier.contains_quorum(&outside)), "{inside:?} of {members:?}");
                let heavy = inside.difference(&weightless).copied().collect();
                assert_eq!(is, verifier.contains_quorum(&heavy), "{inside:?} of {members:?}");
                if !is {
                    others += 1;
                    continue;
                }
                quorums += 1;
                for one_more in &outside {
                    let mut more = inside.clone();
                    more.insert(*one_more);
                    assert!(verifier.contains_quorum(&more), "{more:?} of {members:?}");
                }
            }
        }
        assert!(quorums > 1000 && others > 1000 && without_weight > 100);
    }
}
