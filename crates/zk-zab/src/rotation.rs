//! Whom an observer dials: one follower after the other (`QuorumPeer.findLearnerMaster` upstream).

use std::collections::BTreeSet;

use zk_proto::ServerId;

/// Where an observer is in its round of the observer masters.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    turn: usize,
    /// How many in a row could not be used, and since when that is so.
    failed: usize,
    failing_since_ms: i64,
}

/// Who comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) master: ServerId,
    /// All others were tried since one of them could be used.
    pub(crate) is_round_over: bool,
    /// For how long none of them could be used.
    pub(crate) failing_ms: i64,
}

impl Rotation {
    /// The next master of `own`; `None` when nobody but the leader is there.
    pub(crate) fn next(
        &mut self,
        now_ms: i64,
        own: ServerId,
        leader: ServerId,
        voters: &BTreeSet<ServerId>,
    ) -> Option<Turn> {
        let mut masters: Vec<ServerId> =
            voters.iter().copied().filter(|voter| *voter != leader).collect();
        // Upstream shuffles. An order that depends on both is as good: observers spread over the
        // followers, and again over the others when one is lost.
        masters.sort_by_key(|voter| (scatter(own.0 ^ scatter(voter.0).cast_signed()), *voter));
        let turn = self.turn % masters.len().max(1);
        let master = *masters.get(turn)?;
        self.turn = turn + 1;
        let is_round_over = self.failed > 0 && self.failed.is_multiple_of(masters.len());
        if self.failed == 0 {
            self.failing_since_ms = now_ms;
        }
        self.failed += 1;
        Some(Turn { master, is_round_over, failing_ms: now_ms - self.failing_since_ms })
    }

    /// The last one that was asked for served.
    pub(crate) fn served(&mut self) {
        self.failed = 0;
    }
}

/// As random as numbers have to be that spread things, and the same every time (`splitmix64`).
fn scatter(number: i64) -> u64 {
    let mut mixed = number.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A time below `max_ms` that differs from server to server and from time to time.
pub(crate) fn jitter_ms(own: ServerId, now_ms: i64, max_ms: i64) -> i64 {
    let Ok(max) = u64::try_from(max_ms) else { return 0 };
    let random = scatter(scatter(own.0).cast_signed() ^ now_ms);
    random.checked_rem(max).and_then(|ms| i64::try_from(ms).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn voters(count: i64) -> BTreeSet<ServerId> {
        (1..=count).map(ServerId).collect()
    }

    #[test]
    fn every_follower_has_its_turn_and_the_leader_has_none() {
        let mut rotation = Rotation::default();
        let voters = voters(5);
        let next =
            |rotation: &mut Rotation| rotation.next(7, ServerId(9), ServerId(3), &voters).unwrap();
        let first: Vec<Turn> = (0..4).map(|_| next(&mut rotation)).collect();
        assert!(first.iter().all(|turn| !turn.is_round_over));
        let met: BTreeSet<ServerId> = first.iter().map(|turn| turn.master).collect();
        assert_eq!(met, [1, 2, 4, 5].map(ServerId).into());
        assert_eq!(next(&mut rotation), Turn { is_round_over: true, ..first[0] });
        assert_eq!(next(&mut rotation), first[1]);
        rotation.served();
        let then: Vec<Turn> = (0..5).map(|_| next(&mut rotation)).collect();
        assert_eq!(then[..4], [first[2], first[3], first[0], first[1]]);
        assert!(then[4].is_round_over && then[4].failing_ms == 0);
        let late = rotation.next(50, ServerId(9), ServerId(3), &voters).unwrap();
        assert_eq!(late.failing_ms, 43);
    }

    #[test]
    fn a_leader_alone_is_no_observer_master() {
        assert_eq!(Rotation::default().next(0, ServerId(2), ServerId(1), &voters(1)), None);
    }

    #[test]
    fn observers_spread() {
        let mut count: BTreeMap<ServerId, usize> = BTreeMap::new();
        for own in 6..106 {
            let turn = Rotation::default().next(0, ServerId(own), ServerId(1), &voters(5)).unwrap();
            *count.entry(turn.master).or_default() += 1;
        }
        assert!(
            count.len() == 4 && count.values().all(|count| (12..40).contains(count)),
            "{count:?}"
        );
    }

    #[test]
    fn delays_stay_below_their_limit() {
        let delays: BTreeSet<i64> =
            (0..100).map(|now_ms| jitter_ms(ServerId(4), now_ms, 50)).collect();
        assert!(delays.len() > 20 && delays.iter().all(|ms| (0..50).contains(ms)));
        assert_eq!((jitter_ms(ServerId(4), 7, 0), jitter_ms(ServerId(4), 7, -5)), (0, 0));
    }
}
