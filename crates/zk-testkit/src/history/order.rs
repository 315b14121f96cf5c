//! What follows from zxids and times alone.

use std::collections::BTreeMap;

use zk_proto::{SessionId, Zxid};

use super::{Answer, Checker, Event, Op, What, parent, sequence};

/// Data is a tag: whoever reads it has seen the write that it came from, at the znode's mzxid. C5, and how
/// unanswered writes get their zxids.
pub(super) fn data_tells_which_write_it_is(checker: &mut Checker<'_>) {
    let mut tags = BTreeMap::new();
    for (index, call) in checker.calls.iter().enumerate() {
        for (part, op) in call.op.parts().iter().enumerate() {
            if let Op::Create { data, .. } | Op::Set { data, .. } = op {
                let twice = tags.insert(data, (index, part));
                assert!(twice.is_none(), "the recorder wrote {data:?} twice: it is no tag");
            }
        }
    }
    for reader in 0..checker.calls.len() {
        let call = &checker.calls[reader];
        let (Some(reply), Op::Get { path, .. }) = (call.reply, call.op) else { continue };
        let Ok(Answer::Data { data, stat }) = reply.result else { continue };
        let at = Zxid(stat.mzxid);
        let Some(&(index, part)) = tags.get(data) else {
            let text = format!("{call}: {data:?} was never written");
            checker.fail("C3", text);
            continue;
        };
        let writer = &mut checker.calls[index];
        let fits = match &writer.op.parts()[part] {
            Op::Create { path: asked, sequential, .. } => {
                stat.mzxid == stat.czxid
                    && if *sequential {
                        sequence(path).is_some_and(|(prefix, _)| prefix == asked)
                    } else {
                        asked == path
                    }
            }
            other => other.path() == Some(path) && stat.mzxid > stat.czxid,
        };
        let wrong = match (&writer.reply, writer.seen) {
            _ if !fits => Some("another znode or another kind of write"),
            (Some(reply), _) if reply.result.is_err() => Some("a refused write took effect"),
            (Some(reply), _) if reply.zxid != at => {
                Some("it took effect at another zxid, or twice")
            }
            (None, Some((seen, _))) if seen != at => Some("it took effect twice"),
            _ => None, // as it should be
        };
        if wrong.is_none() && writer.reply.is_none() {
            let first = writer.seen.map_or(reply.at_us, |(_, first)| first.min(reply.at_us));
            if writer.seen.is_none() {
                checker.report.resolved += 1;
            }
            writer.seen = Some((at, first));
            if let Op::Create { sequential: true, .. } = &writer.op.parts()[part] {
                writer.made.insert(part, path);
            }
        }
        if let Some(wrong) = wrong {
            let (writer, reader) = (&checker.calls[index], &checker.calls[reader]);
            let text = format!("{writer} is what {reader} read with mzxid {at}: {wrong}");
            checker.fail("C5", text);
        }
    }
}

/// C1: real time. Reads count as replies too: what they showed had been committed by then.
pub(super) fn a_write_that_began_after_a_reply_has_a_higher_zxid(checker: &mut Checker<'_>) {
    let mut zxids = BTreeMap::new();
    let mut problems = Vec::new();
    let mut replies = Vec::new();
    let mut writes = Vec::new();
    for (index, call) in checker.calls.iter().enumerate() {
        if let Some(reply) = call.reply.filter(|reply| reply.zxid.0 > 0) {
            replies.push((reply.at_us, reply.zxid, index));
        }
        if let Some((zxid, at_us)) = call.seen {
            replies.push((at_us, zxid, index));
        }
        if let Some(zxid) = call.effective().filter(|_| call.op.is_write()) {
            writes.push((call.invoked_us, zxid, index));
            if let Some(other) = zxids.insert(zxid, index) {
                let other = &checker.calls[other];
                problems.push(format!("{call} and {other} have one zxid"));
            }
        }
    }
    replies.sort_unstable();
    writes.sort_unstable();
    let mut replies = replies.into_iter().peekable();
    let mut highest = None;
    for (invoked_us, zxid, index) in writes {
        while let Some((_, told, by)) = replies.next_if(|(at_us, ..)| *at_us < invoked_us) {
            highest = highest.max(Some((told, by)));
        }
        if let Some((told, by)) = highest.filter(|(told, _)| *told >= zxid) {
            let (write, earlier) = (&checker.calls[index], &checker.calls[by]);
            problems.push(format!(
                "{write} began after {told} had been told in the reply to {earlier}"
            ));
        }
    }
    for text in problems {
        checker.fail("C1", text);
    }
}

/// C2's second half: a session's writes have the order in which it sent them, answered or not.
pub(super) fn writes_of_a_session_take_effect_in_its_order(checker: &mut Checker<'_>) {
    let mut last: BTreeMap<SessionId, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, call) in checker.calls.iter().enumerate() {
        let Some(zxid) = call.effective().filter(|_| call.op.is_write()) else { continue };
        if let Some(before) = last.insert(call.session, index) {
            let before = &checker.calls[before];
            if before.effective() >= Some(zxid) {
                problems.push(format!("{call} was sent after {before}"));
            }
        }
    }
    for text in problems {
        checker.fail("C2", text);
    }
}

/// C7.
pub(super) fn a_sync_shows_what_was_answered_before(checker: &mut Checker<'_>) {
    if !checker.options.strict_sync {
        return;
    }
    let mut writes = Vec::new();
    let mut syncs = Vec::new();
    for (index, call) in checker.calls.iter().enumerate() {
        let Some(reply) = call.reply.filter(|reply| reply.result.is_ok()) else { continue };
        if call.op.is_write() {
            writes.push((reply.at_us, reply.zxid, index));
        } else if *call.op == Op::Sync {
            syncs.push((call.invoked_us, reply.zxid, index));
        }
    }
    writes.sort_unstable();
    syncs.sort_unstable();
    let mut writes = writes.into_iter().peekable();
    let mut highest = None;
    for (invoked_us, zxid, index) in syncs {
        while let Some((_, told, by)) = writes.next_if(|(at_us, ..)| *at_us < invoked_us) {
            highest = highest.max(Some((told, by)));
        }
        if let Some((_, by)) = highest.filter(|(told, _)| *told > zxid) {
            let (sync, write) = (&checker.calls[index], &checker.calls[by]);
            checker.fail("C7", format!("{sync} began after the reply to {write}"));
        }
    }
}

/// C8.
pub(super) fn sequence_numbers_increase_with_the_zxid(checker: &mut Checker<'_>) {
    let mut made = Vec::new();
    for (index, call) in checker.calls.iter().enumerate() {
        let Some(zxid) = call.effective() else { continue };
        for (part, op) in call.op.parts().iter().enumerate() {
            let Op::Create { sequential: true, .. } = op else { continue };
            if let Some(path) = call.made.get(&part).copied() {
                made.push((parent(path), zxid, part, path, index));
            }
        }
    }
    made.sort_unstable();
    for pair in made.windows(2) {
        let &[(above, .., first, one), (also, .., second, two)] = pair else { continue };
        if above != also {
            continue;
        }
        let number = |path| sequence(path).map(|(_, number)| number);
        if number(first) >= number(second) {
            let (one, two) = (&checker.calls[one], &checker.calls[two]);
            checker.fail("C8", format!("{one} made {first}, and later {two} made {second}"));
        }
    }
}

/// S3, from the expired client's side.
pub(super) fn no_session_expires_that_was_heard_of(checker: &mut Checker<'_>) {
    for log in &checker.history.sessions {
        for Event { at_us, what } in &log.events {
            let life = &checker.lives[&log.session];
            if matches!(what, What::Expired) && *at_us < life.may_end_us {
                let text = format!(
                    "session {} was called expired {} ms after it had been heard of; its timeout is {} ms",
                    log.session,
                    at_us.saturating_sub(life.heard_us) / 1000,
                    log.timeout_ms
                );
                checker.fail("S3", text);
            }
        }
    }
}
