//! A snapshot on its way to be the state, held back until it may count.
//!
//! What the snapshot replaces, log and state, may be needed to elect a leader until this server has the
//! new leader's whole history (ZOOKEEPER-2872, 3642). So it goes to the log in one piece with all that
//! comes up to the next current epoch, and not before; a crash until then leaves what was there. Only
//! promises to a leader count at once.
//!
//! # Invariants
//!
//! - Writes keep their order, but that an accepted epoch may overtake what is held back.
//! - What is held back is written with the epoch that it waits for, or never.

use zk_proto::Zxid;
use zk_storage::{StagedId, Write};

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<S> {
    /// Append this.
    Append(Vec<Write>),
    /// Append this, which installs a snapshot and ends with the epoch that makes it count; then make the
    /// snapshot the state.
    Install(Vec<Write>, S),
    /// Another snapshot came before this one could count.
    Discard(S),
}

/// The snapshot that waits for its epoch, if there is one, and the writes behind it. `S` is a
/// [`StagedState`](zk_storage::StagedState).
#[derive(Debug)]
pub(super) struct Held<S> {
    install: Option<Install<S>>,
}

#[derive(Debug)]
struct Install<S> {
    staged: S,
    /// The first one installs it.
    writes: Vec<Write>,
}

impl<S> Held<S> {
    /// Nothing is held back.
    pub(super) fn new() -> Self {
        Self { install: None }
    }

    /// A snapshot is to be installed. It takes the place of one that still waits, and of what stands
    /// behind that: it is of a later sync, with the whole history up to its zxid.
    pub(super) fn install(
        &mut self,
        zxid: Zxid,
        id: StagedId,
        staged: S,
        mut run: impl FnMut(Step<S>),
    ) {
        let writes = vec![Write::InstallSnapshot { zxid, staged: id }];
        let before = self.install.replace(Install { staged, writes });
        if let Some(Install { staged, .. }) = before {
            run(Step::Discard(staged));
        }
    }

    /// The next writes, none of which installs a snapshot.
    pub(super) fn append(&mut self, writes: Vec<Write>, mut run: impl FnMut(Step<S>)) {
        if self.install.is_none() {
            return run(Step::Append(writes));
        }
        let mut now = Vec::new();
        for write in writes {
            let Some(mut install) = self.install.take() else {
                now.push(write);
                continue;
            };
            match write {
                Write::AcceptedEpoch(_) => now.push(write),
                Write::CurrentEpoch(_) => {
                    if !now.is_empty() {
                        run(Step::Append(std::mem::take(&mut now)));
                    }
                    install.writes.push(write);
                    run(Step::Install(install.writes, install.staged));
                    continue;
                }
                Write::Txn { .. } | Write::Truncate { .. } | Write::InstallSnapshot { .. } => {
                    install.writes.push(write);
                }
            }
            self.install = Some(install);
        }
        if !now.is_empty() {
            run(Step::Append(now));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]

    use bytes::Bytes;
    use zk_proto::Epoch;
    use zk_storage::{LogConfig, StorageConfig};

    use super::*;

    /// Names of staged snapshots; only storage makes them.
    fn ids() -> [StagedId; 2] {
        let folder = tempfile::tempdir().unwrap();
        let log = LogConfig { segment_bytes: 1 << 16, force_sync: false };
        let (data_dir, data_log_dir) = (folder.path().to_owned(), folder.path().to_owned());
        let opened = zk_storage::open(&StorageConfig { data_dir, data_log_dir, log }).unwrap();
        [1, 2].map(|applied| {
            let meta = zk_storage::Meta { applied: Zxid(applied), digest: 0, time_ms: 0 };
            opened.state.stage().unwrap().finish(meta).unwrap().id()
        })
    }

    fn txn(zxid: i64) -> Write {
        Write::Txn { zxid: Zxid(zxid), payload: Bytes::from(zxid.to_string()) }
    }

    fn truncate(zxid: i64) -> Write {
        Write::Truncate { zxid: Zxid(zxid) }
    }

    fn accepted(epoch: i32) -> Write {
        Write::AcceptedEpoch(Epoch(epoch))
    }

    fn current(epoch: i32) -> Write {
        Write::CurrentEpoch(Epoch(epoch))
    }

    /// What follows from a batch.
    fn fed(held: &mut Held<char>, writes: &[Write]) -> Vec<Step<char>> {
        let mut steps = Vec::new();
        held.append(writes.to_vec(), |step| steps.push(step));
        steps
    }

    fn installed(held: &mut Held<char>, zxid: i64, id: StagedId, name: char) -> Vec<Step<char>> {
        let mut steps = Vec::new();
        held.install(Zxid(zxid), id, name, |step| steps.push(step));
        steps
    }

    #[test]
    fn without_a_snapshot_everything_goes_on_as_it_is() {
        let mut held = Held::new();
        let writes = [txn(1), accepted(1), current(1), truncate(1)];
        assert_eq!(fed(&mut held, &writes), [Step::Append(writes.to_vec())]);
    }

    #[test]
    fn a_snapshot_waits_for_its_epoch_and_takes_along_what_is_behind_it() {
        let [id, _] = ids();
        let mut held = Held::new();
        assert_eq!(fed(&mut held, &[txn(1)]), [Step::Append(vec![txn(1)])]);
        assert_eq!(installed(&mut held, 5, id, 'a'), []);
        assert_eq!(fed(&mut held, &[txn(6), txn(7)]), []);
        assert_eq!(fed(&mut held, &[truncate(6)]), []);
        // The leader is gone; a promise to the next one counts at once.
        assert_eq!(fed(&mut held, &[accepted(3)]), [Step::Append(vec![accepted(3)])]);
        let unit = |behind: &[Write]| {
            let install = Write::InstallSnapshot { zxid: Zxid(5), staged: id };
            [&[install], behind].concat()
        };
        assert_eq!(
            fed(&mut held, &[txn(8), accepted(4), txn(9), current(4), txn(10), accepted(5)]),
            [
                Step::Append(vec![accepted(4)]),
                Step::Install(
                    unit(&[txn(6), txn(7), truncate(6), txn(8), txn(9), current(4)]),
                    'a'
                ),
                Step::Append(vec![txn(10), accepted(5)]),
            ]
        );
        // Nothing is held back any more.
        let more = [txn(11), current(5)];
        assert_eq!(fed(&mut held, &more), [Step::Append(more.to_vec())]);
        // A batch that ends with the epoch.
        assert_eq!(installed(&mut held, 5, id, 'b'), []);
        assert_eq!(fed(&mut held, &[current(5)]), [Step::Install(unit(&[current(5)]), 'b')]);
    }

    #[test]
    fn a_second_snapshot_takes_the_place_of_the_first() {
        let [first, second] = ids();
        let mut held = Held::new();
        assert_eq!(installed(&mut held, 5, first, 'a'), []);
        assert_eq!(fed(&mut held, &[txn(6)]), []);
        assert_eq!(installed(&mut held, 3, second, 'b'), [Step::Discard('a')]);
        let install = Write::InstallSnapshot { zxid: Zxid(3), staged: second };
        assert_eq!(
            fed(&mut held, &[txn(4), current(2)]),
            [Step::Install(vec![install, txn(4), current(2)], 'b')]
        );
    }
}
