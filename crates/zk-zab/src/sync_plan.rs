//! How a leader brings a learner up to date (facts, section 3.5).

use zk_proto::Zxid;

use crate::History;
use crate::bugs::{Bug, seeded};
use crate::log_tail::LogTail;

/// What a learner gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// It has what the leader has, up to somewhere.
    Diff,
    /// It has more than that: forget what is behind this zxid.
    Trunc(Zxid),
    /// Everything anew.
    Snap,
}

/// A whole synchronization, but for what is proposed and not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) method: Method,
    /// From disk: the transactions above the first zxid up to the second. Not with
    /// [`Method::Snap`], which takes those along.
    pub(crate) history: Option<(Zxid, Zxid)>,
    /// From memory: the transactions above this zxid up to the target.
    pub(crate) memory_after: Zxid,
}

/// What decides about a plan.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The learner's last transaction.
    pub(crate) learner: Zxid,
    /// The last transaction of the leader that counts as committed.
    pub(crate) target: Zxid,
    pub(crate) tail: &'a LogTail,
    pub(crate) history: &'a dyn History,
    /// `snapshotSizeFactor`.
    pub(crate) size_factor: f64,
    /// `forceSnapshotSync`.
    pub(crate) force_snapshot: bool,
}

/// Upstream's decision, with one rule made safer: it truncates a learner only to a transaction of
/// the same epoch as its last one. Whoever has a transaction has all of that epoch before it; of
/// another epoch it may have something else.
pub(crate) fn plan(request: &Request<'_>) -> Plan {
    let &Request { learner, target, tail, history, .. } = request;
    if request.force_snapshot {
        return snap(tail);
    }
    // No transaction has this zxid: the learner has a state of that moment.
    let between_epochs = learner.counter() == 0;
    if seeded(Bug::EmptyMemory) && tail.base() == tail.last() && learner < target {
        return Plan { method: Method::Diff, history: None, memory_after: tail.base() };
    }
    let last_common = if learner >= target {
        target
    } else {
        let floor = match tail.floor(learner) {
            Some(zxid) => Some(zxid),
            None => history.floor(learner),
        };
        let Some(floor) = floor else { return snap(tail) };
        floor
    };
    let method = if last_common == learner || between_epochs || seeded(Bug::DivergentTail) {
        Method::Diff
    } else if last_common.epoch() == learner.epoch() {
        Method::Trunc(last_common)
    } else {
        return snap(tail);
    };
    let start = last_common.min(learner);
    if start >= tail.base() {
        return Plan { method, history: None, memory_after: start };
    }
    if too_much(history.bytes_after(start), history.snapshot_bytes(), request.size_factor) {
        return snap(tail);
    }
    Plan { method, history: Some((start, tail.base())), memory_after: tail.base() }
}

fn snap(tail: &LogTail) -> Plan {
    Plan { method: Method::Snap, history: None, memory_after: tail.delivered() }
}

/// Whether a snapshot is cheaper than reading so much of the log.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn too_much(log_bytes: u64, snapshot_bytes: u64, factor: f64) -> bool {
    factor < 0.0 || log_bytes as f64 > snapshot_bytes as f64 * factor
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use zk_proto::Epoch;

    use super::*;

    fn z(epoch: i32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    /// A leader's log on disk.
    #[derive(Debug)]
    struct Log {
        begins: Zxid,
        entries: Vec<Zxid>,
        snapshot_bytes: u64,
    }

    impl History for Log {
        fn begins(&self) -> Zxid {
            self.begins
        }

        fn floor(&self, zxid: Zxid) -> Option<Zxid> {
            let found = self.entries.iter().copied().rfind(|own| *own <= zxid);
            found.or((zxid >= self.begins).then_some(self.begins))
        }

        fn bytes_after(&self, after: Zxid) -> u64 {
            self.entries.iter().filter(|zxid| **zxid > after).count() as u64
        }

        fn snapshot_bytes(&self) -> u64 {
            self.snapshot_bytes
        }
    }

    struct Case<'a> {
        /// The leader's whole history.
        leader: &'a [Zxid],
        /// How many of it are before its log on disk, before its memory, and how many are delivered.
        begins: usize,
        base: usize,
        delivered: usize,
        target: usize,
        learner: Zxid,
    }

    fn at(history: &[Zxid], len: usize) -> Zxid {
        len.checked_sub(1).map_or(Zxid::ZERO, |last| history[last])
    }

    impl Case<'_> {
        fn tail(&self) -> LogTail {
            let entries = self.leader[self.base..].iter().map(|zxid| (*zxid, Bytes::new()));
            let mut tail = LogTail::new(at(self.leader, self.base), entries.collect(), usize::MAX);
            tail.commit_to(at(self.leader, self.delivered));
            while tail.next_undelivered().is_some() {
                tail.deliver_next();
            }
            tail
        }

        fn plan(&self, size_factor: f64, force_snapshot: bool) -> Plan {
            let history = Log {
                begins: at(self.leader, self.begins),
                entries: self.leader[self.begins..].to_vec(),
                snapshot_bytes: 100,
            };
            plan(&Request {
                learner: self.learner,
                target: at(self.leader, self.target),
                tail: &self.tail(),
                history: &history,
                size_factor,
                force_snapshot,
            })
        }

        /// What a learner has after it did what it was told.
        fn apply(&self, plan: &Plan, learner: &[Zxid]) -> Vec<Zxid> {
            let mut log = learner.to_vec();
            let mut have = self.learner;
            match plan.method {
                Method::Diff => {}
                Method::Trunc(to) => {
                    log.retain(|zxid| *zxid <= to);
                    assert!(to.counter() == 0 || log.last() == Some(&to), "TRUNC to nowhere");
                    have = to;
                }
                Method::Snap => {
                    // With the log up to what is delivered.
                    log = self.leader[..self.delivered].to_vec();
                    have = at(self.leader, self.delivered);
                    assert_eq!(plan.history, None);
                }
            }
            if let Some((after, to)) = plan.history {
                assert!(after >= at(self.leader, self.begins), "that is not on disk any more");
                assert!(to <= at(self.leader, self.delivered), "that may not be on disk yet");
                assert!(after < to);
                log.extend(self.leader.iter().filter(|zxid| **zxid > after && **zxid <= to));
                have = to;
            }
            // Nothing may be in between.
            assert!(!self.leader.iter().any(|zxid| *zxid > have && *zxid <= plan.memory_after));
            log.extend(self.tail().after(plan.memory_after).map(|(zxid, _)| *zxid));
            log
        }
    }

    /// All histories of three epochs that can be: each leader begins with some history of the epochs
    /// before its own, and puts its transactions behind that.
    fn for_each_history(mut check: impl FnMut(&[Vec<Zxid>; 4])) {
        let with = |initial: &[Zxid], epoch: i32, count: u32| -> Vec<Zxid> {
            let own = (1..=count).map(|counter| z(epoch, counter));
            initial.iter().copied().chain(own).collect()
        };
        for second_has in 0..=3 {
            let second_initial = with(&[], 1, second_has);
            for (third_from, third_has) in [(1, 0), (1, 1), (1, 3), (2, 0), (2, 1), (2, 2)] {
                let third_initial = match third_from {
                    1 => with(&[], 1, third_has),
                    _ => with(&second_initial, 2, third_has), // the second
                };
                check(&[Vec::new(), Vec::new(), second_initial.clone(), third_initial]);
            }
        }
    }

    #[test]
    fn every_learner_ends_with_the_leaders_history() {
        let mut methods = [0_u64; 3];
        for_each_history(|initial| {
            let log = |epoch: i32, count: u32| -> Vec<Zxid> {
                let before = initial[usize::try_from(epoch).unwrap()].iter().copied();
                before.chain((1..=count).map(|counter| z(epoch, counter))).collect()
            };
            for (leader_epoch, leader_count) in [(1, 2), (1, 3), (2, 0), (2, 2), (3, 0), (3, 2)] {
                let leader = log(leader_epoch, leader_count);
                for (learner_epoch, learner_count) in
                    (1..=leader_epoch).flat_map(|epoch| (0..4).map(move |count| (epoch, count)))
                {
                    let learner = log(learner_epoch, learner_count);
                    let last = at(&learner, learner.len());
                    // With a snapshot that was made before the epoch's first transaction.
                    let zxids = [last, z(learner_epoch, 0)];
                    for learner_zxid in &zxids[..if learner_count == 0 { 2 } else { 1 }] {
                        for delivered in 0..=leader.len() {
                            for base in 0..=delivered {
                                for begins in 0..=base {
                                    for target in [delivered, leader.len()] {
                                        // An established epoch's initial history is committed, in that of
                                        // every later leader, and nothing else of earlier epochs.
                                        let before =
                                            &initial[usize::try_from(learner_epoch).unwrap()];
                                        let common = leader.strip_prefix(&before[..]).is_some_and(
                                            |behind| {
                                                behind.iter().all(|zxid| {
                                                    zxid.epoch() >= Epoch(learner_epoch)
                                                })
                                            },
                                        );
                                        if *learner_zxid != last
                                            && !(common && target >= before.len())
                                        {
                                            continue;
                                        }
                                        let case = Case {
                                            leader: &leader,
                                            begins,
                                            base,
                                            delivered,
                                            target,
                                            learner: *learner_zxid,
                                        };
                                        let plan = case.plan(1.0, false);
                                        let result = case.apply(&plan, &learner);
                                        assert_eq!(
                                            result, leader,
                                            "{plan:?} for {learner:?} at {learner_zxid}, delivered \
                                             {delivered}, base {base}, begins {begins}, target {target}"
                                        );
                                        methods[match plan.method {
                                            Method::Diff => 0,
                                            Method::Trunc(_) => 1,
                                            Method::Snap => 2,
                                        }] += 1;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        });
        assert!(methods.iter().all(|count| *count > 1000), "{methods:?}");
    }

    #[test]
    fn plans_are_upstreams() {
        let history: Vec<Zxid> = (1..=5)
            .map(|counter| z(1, counter))
            .chain((1..=5).map(|counter| z(3, counter)))
            .collect();
        let case = |learner: Zxid| Case {
            leader: &history,
            begins: 1,
            base: 4,
            delivered: 8,
            target: 9,
            learner,
        };
        let diff = |memory_after| Plan { method: Method::Diff, history: None, memory_after };
        let snap = Plan { method: Method::Snap, history: None, memory_after: z(3, 3) };
        for (learner, expected) in [
            (z(3, 4), diff(z(3, 4))),
            (z(3, 3), diff(z(3, 3))),
            (z(1, 4), diff(z(1, 4))),
            // It has the state between two epochs.
            (z(3, 0), diff(z(1, 5))),
            // From disk, and what is behind from memory.
            (
                z(1, 2),
                Plan {
                    method: Method::Diff,
                    history: Some((z(1, 2), z(1, 4))),
                    memory_after: z(1, 4),
                },
            ),
            // More than the leader has committed.
            (
                z(3, 5),
                Plan { method: Method::Trunc(z(3, 4)), history: None, memory_after: z(3, 4) },
            ),
            (
                z(3, 9),
                Plan { method: Method::Trunc(z(3, 4)), history: None, memory_after: z(3, 4) },
            ),
            // What an earlier leader did not get through.
            (
                z(1, 9),
                Plan { method: Method::Trunc(z(1, 5)), history: None, memory_after: z(1, 5) },
            ),
            // An epoch that the leader knows nothing of: it may lack something of the one before.
            (z(2, 1), snap),
            (z(4, 1), snap),
            // Before the log.
            (Zxid::ZERO, snap),
        ] {
            assert_eq!(case(learner).plan(1.0, false), expected, "{learner}");
        }
        // Too much of the log, or none at all.
        assert_eq!(case(z(1, 2)).plan(0.05, false), snap);
        assert_eq!(case(z(1, 2)).plan(-1.0, false), snap);
        assert_eq!(case(z(1, 4)).plan(-1.0, false), diff(z(1, 4)), "memory is no log");
        assert_eq!(case(z(3, 4)).plan(1.0, true), snap);
    }
}
