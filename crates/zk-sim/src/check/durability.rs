//! Disks: what may be said depends on what is written.

use zk_proto::{Epoch, Zxid};

use super::{Verdict, fail};
use crate::disk::Disk;

/// D1: a proposal is acknowledged when it is on the disk.
///
/// # Errors
/// It is not.
pub fn a_proposal_is_acknowledged_when_it_is_on_disk(
    member: usize,
    zxid: Zxid,
    disk: &Disk,
) -> Verdict {
    if !disk.has(zxid) {
        return fail(
            "D1 a proposal is acknowledged when it is on disk",
            format!("member {member} acknowledges {zxid}; its disk ends at {}", disk.durable_end()),
        );
    }
    Ok(())
}

/// D1, D2: a leader's history is acknowledged (`NEWLEADER`) when all of it and then the epoch are on
/// the disk.
///
/// # Errors
/// They are not.
pub fn a_history_is_acknowledged_when_all_of_it_is_on_disk(
    member: usize,
    epoch: Epoch,
    history: Option<Zxid>,
    disk: &Disk,
) -> Verdict {
    const CHECKER: &str = "D1 D2 a history is acknowledged when all of it is on disk";
    if disk.current_epoch != epoch {
        return fail(
            CHECKER,
            format!(
                "member {member} acknowledges the leader of epoch {epoch}; on its disk the current epoch is {}",
                disk.current_epoch
            ),
        );
    }
    if disk.is_staging() {
        return fail(
            CHECKER,
            format!("member {member} acknowledges epoch {epoch} with half a snapshot"),
        );
    }
    match history {
        Some(history) if disk.has(history) => Ok(()),
        Some(history) => fail(
            CHECKER,
            format!(
                "member {member} acknowledges epoch {epoch}, whose history ends at {history}; its disk ends at {}",
                disk.durable_end()
            ),
        ),
        None => fail(
            CHECKER,
            format!("member {member} acknowledges epoch {epoch}, which nobody offered"),
        ),
    }
}

/// D2: the current epoch is on the disk behind the history that it is about, never before it.
///
/// # Errors
/// It is before.
pub fn an_epoch_is_written_behind_its_history(
    member: usize,
    epoch: Epoch,
    history: Option<Zxid>,
    disk: &Disk,
) -> Verdict {
    let Some(history) = history else { return Ok(()) };
    if !disk.has(history) {
        return fail(
            "D2 an epoch is written behind its history",
            format!(
                "on the disk of member {member} the current epoch is {epoch}, whose history ends at {history}; the log ends at {}",
                disk.durable_end()
            ),
        );
    }
    Ok(())
}

/// D1: an epoch is promised (`ACKEPOCH`) when the promise is on the disk.
///
/// # Errors
/// It is not.
pub fn an_epoch_is_promised_when_it_is_on_disk(
    member: usize,
    epoch: Epoch,
    disk: &Disk,
) -> Verdict {
    if disk.accepted_epoch != epoch {
        return fail(
            "D1 an epoch is promised when it is on disk",
            format!(
                "member {member} promises epoch {epoch}; on its disk is {}",
                disk.accepted_epoch
            ),
        );
    }
    Ok(())
}

/// D5: a vote, or an `ACKEPOCH`, speaks of the log as it will be on the disk. `end`: where that log ends.
///
/// # Errors
/// It does not.
pub fn a_vote_speaks_of_the_own_log(member: usize, zxid: Zxid, end: Zxid) -> Verdict {
    if zxid > end && zxid.counter() != 0 {
        return fail(
            "D5 a vote speaks of the own log",
            format!("member {member} says that its log ends at {zxid}; it ends at {end}"),
        );
    }
    Ok(())
}

/// D5: what a tree holds is in the log on the same disk.
///
/// # Errors
/// It is not.
pub fn memory_is_never_ahead_of_the_disk(member: usize, applied: Zxid, disk: &Disk) -> Verdict {
    if applied.counter() != 0 && !disk.has(applied) {
        return fail(
            "D5 memory is never ahead of the disk",
            format!(
                "the tree of member {member} is at {applied}; its disk ends at {}",
                disk.durable_end()
            ),
        );
    }
    Ok(())
}
