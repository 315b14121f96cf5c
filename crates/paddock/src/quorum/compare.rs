//! Whether members have the same tree: a pure function over what they answered.
//!
//! # Invariants
//!
//! - Digests are compared at equal zxids alone.
//! - The newest zxid that two members both know decides between them: what a member held before it was
//!   repaired says nothing of what it holds.

use std::collections::{BTreeMap, BTreeSet};

/// The digests that a member knows, by zxid.
pub(super) type Points = BTreeMap<u64, i64>;

/// What the digests of all members come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Comparison {
    /// All have the same tree at this zxid, the newest that all of them know.
    Equal { zxid: u64 },
    /// They do not.
    Different(Difference),
    /// There is no zxid that all of them know.
    NothingCommon,
}

/// Members with different trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where that was seen: the newest zxid known to most of them.
    pub(super) zxid: u64,
    /// The members by their digest there, the largest group first.
    pub(super) groups: Vec<(i64, Vec<u64>)>,
    /// Of each member that is not in the majority, where it parted from it; by where that was, the first
    /// one first. Empty when there is no majority.
    pub(super) astray: Vec<Astray>,
}

/// A member that differs from the majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Astray {
    pub(super) id: u64,
    /// The first zxid from which on it differs, as far as is known.
    pub(super) since: u64,
    /// The last zxid before it where it was equal.
    pub(super) equal_at: Option<u64>,
}

/// Compares members by what each of them knows.
pub(super) fn compare(members: &BTreeMap<u64, Points>) -> Comparison {
    let Some(zxid) = deciding(members) else {
        return match newest_of_all(members) {
            Some(zxid) => Comparison::Equal { zxid },
            None => Comparison::NothingCommon,
        };
    };
    let groups = groups_at(members, zxid);
    let present: usize = groups.iter().map(|(_, ids)| ids.len()).sum();
    let majority = groups.first().filter(|(_, ids)| ids.len() * 2 > present);
    let mut astray: Vec<Astray> = majority.map_or_else(Vec::new, |(_, majority)| {
        let others = groups.iter().skip(1).flat_map(|(_, ids)| ids);
        others.map(|id| parting(members, majority, *id, zxid)).collect()
    });
    astray.sort_by_key(|astray| (astray.since, astray.id));
    Comparison::Different(Difference { zxid, groups, astray })
}

/// The newest zxid that every member knows; with fewer than two of them there is nothing to compare.
fn newest_of_all(members: &BTreeMap<u64, Points>) -> Option<u64> {
    let first = members.values().next().filter(|_| members.len() > 1)?;
    let known_to_all = |zxid: &&u64| members.values().all(|points| points.contains_key(*zxid));
    first.keys().rev().find(known_to_all).copied()
}

/// The newest zxid that both know.
fn newest_of_two(one: &Points, other: &Points) -> Option<u64> {
    one.keys().rev().find(|zxid| other.contains_key(zxid)).copied()
}

/// Of the zxids at which two members differ that have nothing newer in common, the one that most members
/// know; the newest of several. None when no two members differ.
fn deciding(members: &BTreeMap<u64, Points>) -> Option<u64> {
    let mut differing = BTreeSet::new();
    for (id, one) in members {
        for other in members.range(id + 1..).map(|(_, other)| other) {
            let newest = newest_of_two(one, other);
            differing.extend(newest.filter(|zxid| one.get(zxid) != other.get(zxid)));
        }
    }
    let known_to = |zxid: &u64| members.values().filter(|points| points.contains_key(zxid)).count();
    differing.into_iter().max_by_key(|zxid| (known_to(zxid), *zxid))
}

/// Who has which digest; the largest group first, of equal ones that with the lowest id.
fn groups_at(members: &BTreeMap<u64, Points>, zxid: u64) -> Vec<(i64, Vec<u64>)> {
    let mut groups: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for (id, points) in members {
        if let Some(digest) = points.get(&zxid) {
            groups.entry(*digest).or_default().push(*id);
        }
    }
    let mut groups: Vec<(i64, Vec<u64>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, ids)| (usize::MAX - ids.len(), ids.first().copied()));
    groups
}

/// Goes back from `zxid` as long as the member differs from the majority.
fn parting(members: &BTreeMap<u64, Points>, majority: &[u64], id: u64, zxid: u64) -> Astray {
    let mut astray = Astray { id, since: zxid, equal_at: None };
    let Some(own) = members.get(&id) else { return astray };
    for (at, digest) in own.range(..zxid).rev() {
        let mut theirs = majority.iter().filter_map(|other| members.get(other)?.get(at)).peekable();
        if theirs.peek().is_none() {
            continue; // nobody to compare with there
        }
        if theirs.any(|other| other == digest) {
            astray.equal_at = Some(*at);
            break;
        }
        astray.since = *at;
    }
    astray
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1, 2, ... with what each knows.
    fn members<const N: usize>(all: [&[(u64, i64)]; N]) -> BTreeMap<u64, Points> {
        (1..).zip(all.map(|points| points.iter().copied().collect())).collect()
    }

    fn difference(all: &BTreeMap<u64, Points>) -> Difference {
        match compare(all) {
            Comparison::Different(difference) => difference,
            other @ (Comparison::Equal { .. } | Comparison::NothingCommon) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_common_zxid_counts() {
        let all = members([
            &[(128, 1), (256, 2), (384, 3), (400, 9)],
            &[(128, 1), (256, 2), (384, 3)],
            &[(256, 2), (384, 3), (401, 8)],
        ]);
        assert_eq!(compare(&all), Comparison::Equal { zxid: 384 });
        let behind = members([&[(128, 1), (256, 2)], &[(128, 1), (256, 2)], &[(128, 1)]]);
        assert_eq!(compare(&behind), Comparison::Equal { zxid: 128 });
    }

    #[test]
    fn without_a_common_zxid_nothing_is_known() {
        for all in [
            members([&[(128, 1)], &[(256, 1)]]),
            members([&[(128, 1)], &[]]),
            members([&[(128, 1)]]),
            members([&[(128, 1), (256, 2)], &[(128, 1)], &[(256, 2)]]),
            BTreeMap::new(),
        ] {
            assert_eq!(compare(&all), Comparison::NothingCommon, "{all:?}");
        }
    }

    #[test]
    fn the_minority_is_named_with_where_it_parted() {
        let all = members([
            &[(128, 1), (256, 2), (384, 3), (512, 4)],
            &[(128, 1), (256, 2), (384, 7), (512, 8)],
            &[(128, 1), (256, 2), (384, 3), (512, 4), (513, 5)],
        ]);
        let Difference { zxid, groups, astray } = difference(&all);
        assert_eq!((zxid, groups), (512, vec![(4, vec![1, 3]), (8, vec![2])]));
        assert_eq!(astray, [Astray { id: 2, since: 384, equal_at: Some(256) }]);
    }

    #[test]
    fn of_several_the_first_that_parted_comes_first() {
        let all = members([
            &[(128, 1), (256, 9), (384, 9)],
            &[(128, 1), (256, 2), (384, 8)],
            &[(128, 1), (256, 2), (384, 3)],
            &[(256, 2), (384, 3)],
            &[(256, 2), (384, 3)],
        ]);
        let astray = difference(&all).astray;
        let expected = [
            Astray { id: 1, since: 256, equal_at: Some(128) },
            Astray { id: 2, since: 384, equal_at: Some(256) },
        ];
        assert_eq!(astray, expected);
        // Whoever differs wherever it can be compared.
        let always = members([&[(256, 3)], &[(256, 3)], &[(128, 1), (256, 2)]]);
        let expected = [Astray { id: 3, since: 256, equal_at: None }];
        assert_eq!(difference(&always).astray, expected);
    }

    #[test]
    fn without_a_majority_nobody_is_blamed() {
        let all = members([&[(128, 1), (256, 2)], &[(128, 1), (256, 3)]]);
        let Difference { zxid, groups, astray } = difference(&all);
        assert_eq!((zxid, groups.len(), astray.len()), (256, 2, 0));
    }

    #[test]
    fn a_pair_that_differs_is_found_among_members_that_lag() {
        // The third knows neither of the two newest zxids.
        let all = members([
            &[(128, 1), (256, 2), (384, 3)],
            &[(128, 1), (256, 2), (384, 4)],
            &[(128, 1), (256, 2)],
        ]);
        assert_eq!(difference(&all).zxid, 384);
        // Two differ from the rest at different zxids: most members know the older one.
        let all = members([
            &[(128, 1), (256, 2), (384, 3)],
            &[(128, 1), (256, 2), (384, 4)],
            &[(128, 1), (256, 9)],
        ]);
        let Difference { zxid, groups, astray } = difference(&all);
        assert_eq!((zxid, groups), (256, vec![(2, vec![1, 2]), (9, vec![3])]));
        assert_eq!(astray, [Astray { id: 3, since: 256, equal_at: Some(128) }]);
    }

    #[test]
    fn what_was_repaired_does_not_count() {
        let all = members([
            &[(128, 1), (256, 2), (384, 3)],
            &[(128, 1), (256, 7), (384, 3)],
            &[(128, 1), (256, 2), (384, 3)],
        ]);
        assert_eq!(compare(&all), Comparison::Equal { zxid: 384 });
    }
}
