//! Watches: what must have fired before which reply.

use std::collections::{BTreeMap, BTreeSet};

use zk_proto::watch::EventType;
use zk_proto::{SessionId, Zxid};

use super::replay::Changes;
use super::{Answer, Checker, Event, Op, SessionLog, What};

/// What a one-shot watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A change of the data, or the end.
    Data,
    /// The creation.
    Exist,
    /// A change of the list of children, or the end.
    Child,
}

/// The watches of one session, while it is replayed.
struct Watches<'c, 'h> {
    changes: &'c Changes<'h>,
    /// When each was set.
    set: BTreeMap<(&'h str, Kind), Zxid>,
    /// By which zxid each must have fired.
    due: BTreeSet<(Zxid, &'h str, Kind)>,
}

/// W1 and W2.
pub(super) fn events_come_before_what_they_announce(
    checker: &mut Checker<'_>,
    changes: &Changes<'_>,
) {
    let history = checker.history;
    for log in &history.sessions {
        let mut problems = Vec::new();
        let watches = Watches { changes, set: BTreeMap::new(), due: BTreeSet::new() };
        watches.replay(log, &mut problems);
        for (rule, text) in problems {
            checker.fail(rule, format!("session {}: {text}", log.session));
        }
    }
}

impl<'h> Watches<'_, 'h> {
    fn replay(mut self, log: &'h SessionLog, problems: &mut Vec<(&'static str, String)>) {
        let mut waiting = std::collections::VecDeque::new();
        for Event { what, .. } in &log.events {
            match what {
                What::Invoke { op, .. } => {
                    if let Op::SetWatches { data, exist, child, relative } = op {
                        for (paths, kind) in
                            [(data, Kind::Data), (exist, Kind::Exist), (child, Kind::Child)]
                        {
                            for path in paths {
                                self.watch(path, kind, *relative);
                            }
                        }
                    }
                    waiting.push_back(op);
                }
                What::Reply { zxid, result, xid } => {
                    let op = waiting.pop_front();
                    if let Some(op @ Op::SetWatches { exist, .. }) = op {
                        // What was created and deleted again is not announced.
                        for path in exist {
                            if self.set.contains_key(&(path.as_str(), Kind::Exist)) {
                                self.forget(path, Kind::Exist);
                                self.watch(path, Kind::Exist, *zxid);
                            }
                        }
                        debug_assert!(!op.is_write());
                    }
                    self.all_due_fired(*zxid, &format!("the reply to xid {xid}"), problems);
                    match (op, result) {
                        (Some(Op::Get { path, watch: true }), Ok(_))
                        | (Some(Op::Exists { path, watch: true }), Ok(Answer::Stat(_))) => {
                            self.watch(path, Kind::Data, *zxid);
                        }
                        (Some(Op::Exists { path, watch: true }), Err(_)) => {
                            self.watch(path, Kind::Exist, *zxid);
                        }
                        (Some(Op::Children { path, watch: true }), Ok(_)) => {
                            self.watch(path, Kind::Child, *zxid);
                        }
                        (_, _) => {}
                    }
                }
                What::Ping { zxid, .. } => {
                    self.all_due_fired(*zxid, "the reply to a ping", problems)
                }
                What::Lost | What::Expired => {
                    waiting.clear();
                    self.set.clear();
                    self.due.clear();
                }
                What::Connected { .. } => {}
                What::Fired { kind, path } => self.fired(*kind, path, log.session, problems),
            }
        }
    }

    fn watch(&mut self, path: &'h str, kind: Kind, at: Zxid) {
        if self.set.contains_key(&(path, kind)) {
            return; // one is enough, and the earlier one is due first
        }
        self.set.insert((path, kind), at);
        if let Some(due) = self.due_after(path, kind, at) {
            self.due.insert((due, path, kind));
        }
    }

    fn due_after(&self, path: &str, kind: Kind, at: Zxid) -> Option<Zxid> {
        let own = self.changes.own.get(path).map_or(&[][..], Vec::as_slice);
        let next = &own[own.partition_point(|(zxid, _)| *zxid <= at)..];
        let first = |wanted: &[EventType]| {
            next.iter().find(|(_, kind)| wanted.contains(kind)).map(|(zxid, _)| *zxid)
        };
        match kind {
            Kind::Data => first(&[EventType::NodeDataChanged, EventType::NodeDeleted]),
            Kind::Exist => first(&[EventType::NodeCreated]),
            Kind::Child => {
                let lists = self.changes.children.get(path).map_or(&[][..], Vec::as_slice);
                let list = lists.get(lists.partition_point(|zxid| *zxid <= at)).copied();
                match (list, first(&[EventType::NodeDeleted])) {
                    (Some(list), Some(end)) => Some(list.min(end)),
                    (list, end) => list.or(end),
                }
            }
        }
    }

    fn forget(&mut self, path: &'h str, kind: Kind) -> Option<Zxid> {
        let at = self.set.remove(&(path, kind))?;
        if let Some(due) = self.due_after(path, kind, at) {
            self.due.remove(&(due, path, kind));
        }
        Some(at)
    }

    fn all_due_fired(
        &mut self,
        zxid: Zxid,
        reply: &str,
        problems: &mut Vec<(&'static str, String)>,
    ) {
        while let Some((due, path, kind)) =
            self.due.first().copied().filter(|(due, ..)| *due <= zxid)
        {
            let text = format!(
                "{reply} has zxid {zxid}, but the {kind:?} watch of {path} has not fired for the change at {due}"
            );
            problems.push(("W1", text));
            self.forget(path, kind);
        }
    }

    fn fired(
        &mut self,
        event: EventType,
        path: &'h str,
        session: SessionId,
        problems: &mut Vec<(&'static str, String)>,
    ) {
        let kinds: &[Kind] = match event {
            EventType::NodeCreated => &[Kind::Exist],
            EventType::NodeDataChanged => &[Kind::Data],
            EventType::NodeChildrenChanged => &[Kind::Child],
            EventType::NodeDeleted => &[Kind::Data, Kind::Child],
        };
        let mut spurious = None;
        let mut fired = false;
        for kind in kinds {
            if let Some(at) = self.forget(path, *kind) {
                fired = true;
                let certain = !self.changes.uncertain.contains(path);
                if certain && self.due_after(path, *kind, at).is_none() {
                    spurious = Some(at);
                }
            }
        }
        if !fired {
            let text = format!("{event:?} of {path} without a watch that waits for it");
            problems.push(("W2", text));
        } else if let Some(at) = spurious {
            let text =
                format!("{event:?} of {path}, but nothing changed it after {at} ({session})");
            problems.push(("W2", text));
        }
    }
}
