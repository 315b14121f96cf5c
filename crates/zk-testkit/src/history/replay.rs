//! The reference tree, and what every answer must have seen of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zk_proto::data::Stat;
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, SessionId, Zxid};

use super::{Answer, Checker, Failure, Op, name, parent, sequence};

/// What is known to have happened to each path, in the order of zxids.
#[derive(Default)]
pub(super) struct Changes<'h> {
    /// To the znode itself.
    pub(super) own: BTreeMap<&'h str, Vec<(Zxid, EventType)>>,
    /// To its list of children.
    pub(super) children: BTreeMap<&'h str, Vec<Zxid>>,
    /// Paths that may have changed at zxids that nobody knows.
    pub(super) uncertain: BTreeSet<&'h str>,
}

/// A znode that exists. `None`: not known.
struct Here<'h> {
    czxid: Option<i64>,
    mzxid: Option<i64>,
    version: Option<i32>,
    data: Option<&'h Bytes>,
    owner: SessionId,
    /// Who wrote it last.
    by: usize,
}

/// Unanswered requests of one kind for one path whose zxids are not known: how many there are, by the
/// time at which they were sent, and how many of them explained something already.
#[derive(Default)]
struct Doubts {
    sent_us: Vec<u64>,
    used: usize,
    /// Of creates: the sessions with which what they made would go.
    owners: BTreeSet<SessionId>,
}

impl Doubts {
    /// Takes `count` of them that had been sent at `at_us`, if there are so many.
    fn take(&mut self, count: usize, at_us: u64) -> bool {
        let fits = count == 0
            || self.sent_us.get(self.used + count - 1).is_some_and(|sent_us| *sent_us <= at_us);
        if fits {
            self.used += count;
        }
        fits
    }
}

#[derive(Default)]
struct PathDoubts {
    creates: Doubts,
    sets: Doubts,
    deletes: Doubts,
}

/// Who looks at the tree: which call, at which zxid, and when it had its answer.
#[derive(Clone, Copy)]
struct View {
    call: usize,
    zxid: Zxid,
    at_us: u64,
}

struct World<'c, 'h> {
    checker: &'c mut Checker<'h>,
    nodes: BTreeMap<&'h str, Here<'h>>,
    children: BTreeMap<&'h str, BTreeSet<&'h str>>,
    /// The zxid of the last known change of the list of children.
    pzxids: BTreeMap<&'h str, Zxid>,
    ephemerals: BTreeMap<SessionId, BTreeSet<&'h str>>,
    /// Sessions that are gone, with the zxid by which they were.
    gone: BTreeMap<SessionId, Zxid>,
    doubts: BTreeMap<&'h str, PathDoubts>,
    /// Unanswered sequential creates, by the path without the number.
    sequential: BTreeMap<&'h str, Doubts>,
    changes: Changes<'h>,
}

/// C3, C5, C6, S1 and S2: replays the writes in the order of their zxids and compares every answer with the
/// state at its zxid.
pub(super) fn reads_equal_the_state_at_their_zxid<'h>(checker: &mut Checker<'h>) -> Changes<'h> {
    let mut steps = Vec::new();
    for (index, call) in checker.calls.iter().enumerate() {
        if let (true, Some(zxid)) = (call.op.is_write(), call.effective()) {
            let at_us = call.reply.map_or(u64::MAX, |reply| reply.at_us);
            steps.push((zxid, false, at_us, index));
        } else if let Some(reply) = call.reply {
            steps.push((reply.zxid, true, reply.at_us, index));
        }
    }
    steps.sort_unstable();
    let mut world = World {
        checker,
        nodes: BTreeMap::new(),
        children: BTreeMap::new(),
        pzxids: BTreeMap::new(),
        ephemerals: BTreeMap::new(),
        gone: BTreeMap::new(),
        doubts: BTreeMap::new(),
        sequential: BTreeMap::new(),
        changes: Changes::default(),
    };
    world.gather_doubts();
    for (zxid, looks, at_us, index) in steps {
        let view = View { call: index, zxid, at_us };
        let call = &world.checker.calls[index];
        let (op, answer) = (call.op, call.answer());
        match (looks, &call.reply) {
            (true, Some(reply)) => match reply.result {
                Ok(answer) => world.compare(view, op, answer),
                Err(failure) => world.justify(view, op, *failure),
            },
            (_, _) => world.apply(view, op, answer),
        }
    }
    world.changes
}

impl<'h> World<'_, 'h> {
    fn gather_doubts(&mut self) {
        let mut parts = Vec::new();
        for call in &self.checker.calls {
            if call.reply.is_none() && call.seen.is_none() {
                parts.extend(call.op.parts().iter().map(|op| (call.invoked_us, call.session, op)));
            } else if call.reply.is_none() {
                // Its zxid is known, but not every name.
                for (part, op) in call.op.parts().iter().enumerate() {
                    if call.path_of(part).is_none() {
                        parts.push((call.invoked_us, call.session, op));
                    }
                }
            }
        }
        parts.sort_by_key(|(sent_us, ..)| *sent_us);
        for (sent_us, session, op) in parts {
            match op {
                Op::Create { path, ephemeral, sequential: true, .. } => {
                    let doubts = self.sequential.entry(path).or_default();
                    doubts.sent_us.push(sent_us);
                    doubts.owners.extend(ephemeral.then_some(session));
                    self.changes.uncertain.insert(parent(path));
                }
                Op::Create { path, ephemeral, .. } => {
                    let doubts = &mut self.doubts.entry(path).or_default().creates;
                    doubts.sent_us.push(sent_us);
                    doubts.owners.extend(ephemeral.then_some(session));
                    self.changes.uncertain.extend([path.as_str(), parent(path)]);
                }
                Op::Set { path, .. } => {
                    self.doubts.entry(path).or_default().sets.sent_us.push(sent_us);
                    self.changes.uncertain.insert(path);
                }
                Op::Delete { path, .. } => {
                    self.doubts.entry(path).or_default().deletes.sent_us.push(sent_us);
                    self.changes.uncertain.extend([path.as_str(), parent(path)]);
                }
                Op::Check { .. }
                | Op::Multi(_)
                | Op::Get { .. }
                | Op::Exists { .. }
                | Op::Children { .. }
                | Op::Sync
                | Op::SetWatches { .. }
                | Op::Close => {}
            }
        }
        // Ephemerals whose sessions ended without saying when.
        for call in &self.checker.calls {
            let closed = self.checker.closed.contains(&call.session);
            for (part, op) in call.op.parts().iter().enumerate() {
                if let (Op::Create { path, ephemeral: true, .. }, false) = (op, closed) {
                    let made = call.path_of(part).unwrap_or(path);
                    self.changes.uncertain.extend([made, parent(made)]);
                }
            }
        }
    }

    fn fail(&mut self, rule: &'static str, view: View, why: &str) {
        let call = &self.checker.calls[view.call];
        let text = format!("{call}: {why}");
        self.checker.fail(rule, text);
    }

    /// C6 where a multi is concerned, C3 otherwise.
    fn read_rule(&self, by: Option<usize>) -> &'static str {
        let multi = by.is_some_and(|by| self.checker.calls[by].op.parts().len() > 1);
        if multi { "C6" } else { "C3" }
    }

    fn wrote(&self, path: &str) -> String {
        match self.nodes.get(path) {
            Some(here) => format!("{path} was last written by {}", self.checker.calls[here.by]),
            None => format!("{path} does not exist"),
        }
    }

    fn changed(&mut self, path: &'h str, zxid: Zxid, kind: EventType) {
        self.changes.own.entry(path).or_default().push((zxid, kind));
        if kind != EventType::NodeDataChanged {
            self.changes.children.entry(parent(path)).or_default().push(zxid);
            self.pzxids.insert(parent(path), zxid);
        }
    }

    fn put(&mut self, path: &'h str, here: Here<'h>) {
        if here.owner.0 != 0 {
            self.ephemerals.entry(here.owner).or_default().insert(path);
        }
        self.children.entry(parent(path)).or_default().insert(name(path));
        self.nodes.insert(path, here);
    }

    fn remove(&mut self, path: &'h str) {
        if let Some(here) = self.nodes.remove(path) {
            if let Some(paths) = self.ephemerals.get_mut(&here.owner) {
                paths.remove(path);
            }
            if let Some(names) = self.children.get_mut(parent(path)) {
                names.remove(name(path));
            }
        }
    }

    /// The session is gone by `zxid`; so are its ephemerals.
    fn end(&mut self, session: SessionId, zxid: Zxid, known: bool) {
        self.gone.entry(session).or_insert(zxid);
        for path in self.ephemerals.remove(&session).unwrap_or_default() {
            if known {
                self.changed(path, zxid, EventType::NodeDeleted);
            }
            self.remove(path);
        }
    }

    /// Whether the session may have ended by then without an answered closeSession.
    fn may_have_ended(&self, session: SessionId, view: View) -> bool {
        let life = self.checker.lives.get(&session);
        life.is_some_and(|life| view.zxid > life.told && view.at_us >= life.may_end_us)
    }

    /// The znode is not there. `false`: that has no explanation.
    fn is_absent(&mut self, path: &'h str, view: View) -> bool {
        let Some(here) = self.nodes.get(path) else { return true };
        let (owner, vague) = (here.owner, here.czxid.is_none());
        let deleted =
            self.doubts.get_mut(path).is_some_and(|doubts| doubts.deletes.take(1, view.at_us));
        if deleted || (vague && self.may_have_been_of_the_gone(path, view)) {
            self.remove(path);
        } else if owner.0 != 0 && self.may_have_ended(owner, view) {
            self.end(owner, view.zxid, false);
        } else {
            return false;
        }
        true
    }

    /// Whether a znode of which only the name was seen may have gone with its session.
    fn may_have_been_of_the_gone(&self, path: &str, view: View) -> bool {
        let plain = self.doubts.get(path).map(|doubts| &doubts.creates);
        let numbered = sequence(path).and_then(|(prefix, _)| self.sequential.get(prefix));
        let mut owners = [plain, numbered].into_iter().flatten().flat_map(|doubts| &doubts.owners);
        owners.any(|owner| self.gone.contains_key(owner) || self.may_have_ended(*owner, view))
    }

    /// The znode is there, whatever it holds. `false`: that has no explanation.
    fn is_present(&mut self, path: &'h str, view: View) -> bool {
        if self.nodes.contains_key(path) || path.is_empty() {
            return true;
        }
        let one =
            self.doubts.get_mut(path).is_some_and(|doubts| doubts.creates.take(1, view.at_us));
        let listed =
            self.children.get(parent(path)).is_some_and(|names| names.contains(name(path)));
        let explained = listed || one || self.is_sequential_in_doubt(path, view);
        if explained {
            // Of whose session it is, a later answer says.
            let owner = SessionId(0);
            let by = view.call;
            self.put(path, Here { czxid: None, mzxid: None, version: None, data: None, owner, by });
        }
        explained
    }

    fn absent(&mut self, path: &'h str, view: View, rule: &'static str) {
        if self.is_absent(path, view) {
            return;
        }
        let here = &self.nodes[path];
        let early = here.owner.0 != 0;
        let rule = if early { "S1" } else { rule };
        let rule = if rule == "C3" { self.read_rule(Some(here.by)) } else { rule };
        let why = format!("{} is not there, but {}", path, self.wrote(path));
        self.fail(rule, view, &why);
    }

    fn present(&mut self, path: &'h str, view: View, rule: &'static str) -> bool {
        let present = self.is_present(path, view);
        if !present {
            let why = format!("{path} is there, but no write put it there");
            self.fail(rule, view, &why);
        }
        present
    }

    /// The znode is there with this stat, and with this data if it was read.
    fn shows(&mut self, path: &'h str, stat: &'h Stat, data: Option<&'h Bytes>, view: View) {
        let owner = SessionId(stat.ephemeral_owner);
        if let Some(settled_us) = self.checker.history.settled_us
            && let Some(ended_us) = self.checker.lives.get(&owner).and_then(|life| life.ended_us)
            && ended_us <= settled_us
            && self.checker.calls[view.call].invoked_us >= settled_us
        {
            let why = format!("{path} belongs to session {owner}, which had ended everywhere");
            self.fail("S2", view, &why);
            return;
        }
        if stat.mzxid > view.zxid.0 || stat.pzxid > view.zxid.0 {
            let why =
                format!("mzxid {:x}, pzxid {:x} from beyond the reply", stat.mzxid, stat.pzxid);
            self.fail("C3", view, &why);
            return;
        }
        // A znode of another creation than the known one: the known one was deleted in between.
        let other = self
            .nodes
            .get(path)
            .is_some_and(|here| here.czxid.is_some_and(|czxid| czxid != stat.czxid));
        if (other && !self.is_absent(path, view)) || !self.is_present(path, view) {
            let rule = match self.gone.get(&owner) {
                Some(_) if owner.0 != 0 => "S2",
                _ => self.read_rule(self.nodes.get(path).map(|here| here.by)),
            };
            let why =
                format!("it saw {path} created at {:x}, but {}", stat.czxid, self.wrote(path));
            self.fail(rule, view, &why);
            return;
        }
        let here = &self.nodes[path];
        let same = here.mzxid.is_none_or(|mzxid| mzxid == stat.mzxid)
            && here.version.is_none_or(|version| version == stat.version)
            && data.is_none_or(|data| here.data.is_none_or(|known| known == data))
            && (here.owner == owner || here.czxid.is_none());
        let sets = match (here.mzxid, here.version) {
            (Some(mzxid), Some(version)) if stat.mzxid > mzxid && stat.version > version => {
                usize::try_from(stat.version - version).ok()
            }
            _ => None, // not newer than what is known
        };
        let later = sets.is_some_and(|count| {
            self.doubts.get_mut(path).is_some_and(|doubts| doubts.sets.take(count, view.at_us))
        });
        if !same && !later {
            let here = &self.nodes[path];
            let rule = self.read_rule(Some(here.by));
            let why = format!(
                "it saw {path} with mzxid {:x}, version {}, owner {owner}, data {data:?}, but {} (version {:?})",
                stat.mzxid,
                stat.version,
                self.wrote(path),
                here.version,
            );
            self.fail(rule, view, &why);
            return;
        }
        if let Some(zxid) = self.gone.get(&owner).filter(|_| owner.0 != 0) {
            let why = format!("{path} belongs to session {owner}, which was gone by {zxid}");
            self.fail("S2", view, &why);
        }
        let known = self.nodes.get_mut(path).expect("found above");
        let (old, by) = (if later { None } else { known.data }, known.by);
        let data = data.or(old);
        let (czxid, mzxid, version) = (Some(stat.czxid), Some(stat.mzxid), Some(stat.version));
        self.put(path, Here { czxid, mzxid, version, data, owner, by });
    }

    /// A read.
    fn compare(&mut self, view: View, op: &'h Op, answer: &'h Answer) {
        match (op, answer) {
            (Op::Get { path, .. }, Answer::Data { data, stat }) => {
                self.shows(path, stat, Some(data), view);
                self.counts_children(path, stat, view);
            }
            (Op::Exists { path, .. }, Answer::Stat(stat)) => {
                self.shows(path, stat, None, view);
                self.counts_children(path, stat, view);
            }
            (Op::Children { path, .. }, Answer::Children { names, stat }) => {
                self.shows(path, stat, None, view);
                self.lists(path, names, view);
                self.counts_children(path, stat, view);
            }
            (Op::Sync | Op::SetWatches { .. }, Answer::Done) => {}
            (_, _) => self.fail("C3", view, "the answer is of another kind than the request"),
        }
    }

    fn lists(&mut self, path: &'h str, names: &'h [String], view: View) {
        let listed: BTreeSet<_> = names.iter().map(String::as_str).collect();
        let known = self.children.get(path).cloned().unwrap_or_default();
        for missing in known.difference(&listed) {
            match self.child(path, missing) {
                Some(child) => self.absent(child, view, "C3"),
                None => {
                    self.children.entry(path).or_default().remove(missing);
                }
            }
        }
        for found in listed.difference(&known) {
            let full = format!("{path}/{found}");
            if let Some((child, _)) = self.doubts.get_key_value(full.as_str()) {
                let child = *child;
                self.present(child, view, "C3");
            } else if self.is_sequential_in_doubt(&full, view) {
                // Its path is nowhere in the history: the name will do.
                self.children.entry(path).or_default().insert(found);
            } else {
                let why = format!("{full} is listed, but no write put it there");
                self.fail(self.read_rule(None), view, &why);
            }
        }
        if listed.len() != names.len() {
            self.fail("C3", view, "a name is listed twice");
        }
    }

    /// A child's path as the tree knows it.
    fn child(&self, path: &str, name: &str) -> Option<&'h str> {
        self.nodes.get_key_value(format!("{path}/{name}").as_str()).map(|(path, _)| *path)
    }

    /// An unanswered sequential create may have made this one.
    fn is_sequential_in_doubt(&mut self, path: &str, view: View) -> bool {
        sequence(path).is_some_and(|(prefix, _)| {
            self.sequential.get_mut(prefix).is_some_and(|doubts| doubts.take(1, view.at_us))
        })
    }

    fn counts_children(&mut self, path: &'h str, stat: &Stat, view: View) {
        if self.changes.uncertain.contains(path) || !self.nodes.contains_key(path) {
            return;
        }
        let count = self.children.get(path).map_or(0, BTreeSet::len);
        if i32::try_from(count) != Ok(stat.num_children) {
            let why = format!("{path} has {count} children, not {}", stat.num_children);
            self.fail("C3", view, &why);
        }
        let born = self.nodes[path].czxid.unwrap_or_default();
        let pzxid = self.pzxids.get(path).map_or(born, |zxid| zxid.0.max(born));
        if pzxid != stat.pzxid {
            let why = format!("{path} has pzxid {pzxid:x}, not {:x}", stat.pzxid);
            self.fail("C3", view, &why);
        }
    }

    /// A refusal must have had its reason at its zxid.
    fn justify(&mut self, view: View, op: &'h Op, failure: Failure) {
        let Some(part) = op.parts().get(failure.part) else {
            self.fail("C5", view, "an operation that is not there was refused");
            return;
        };
        let Some(path) = part.path() else { return };
        let touched = |earlier: &Op| {
            earlier.path().is_some_and(|other| {
                other == path || parent(other) == path || other == parent(path)
            })
        };
        if op.parts()[..failure.part].iter().any(touched) {
            return; // the multi's own operations changed what it met
        }
        match (failure.code, part) {
            (ErrorCode::NO_NODE, Op::Create { .. }) => self.absent(parent(path), view, "C3"),
            (ErrorCode::NO_NODE, _) => self.absent(path, view, "C3"),
            (ErrorCode::NODE_EXISTS, _) => {
                self.present(path, view, "C3");
            }
            (
                ErrorCode::BAD_VERSION,
                Op::Set { version, .. } | Op::Delete { version, .. } | Op::Check { version, .. },
            ) => {
                if self.present(path, view, "C3") {
                    let is = self.nodes[path].version;
                    let may_differ = is != Some(*version)
                        || self
                            .doubts
                            .get_mut(path)
                            .is_some_and(|doubts| doubts.sets.take(1, view.at_us));
                    if !may_differ {
                        let why = format!("{path} had that version: {}", self.wrote(path));
                        self.fail("C5", view, &why);
                    } else if is == Some(*version) {
                        self.forget_content(path, view);
                    }
                }
            }
            (ErrorCode::NOT_EMPTY, _) => {
                let empty = self.children.get(path).is_none_or(BTreeSet::is_empty);
                if empty && !self.changes.uncertain.contains(path) {
                    self.fail("C5", view, "it had no children");
                }
            }
            // Other codes are no statement about the tree.
            (_, _) => {}
        }
    }

    /// An unanswered write was there: what the znode holds is not known any more.
    fn forget_content(&mut self, path: &'h str, view: View) {
        if let Some(here) = self.nodes.get_mut(path) {
            (here.mzxid, here.version, here.data, here.by) = (None, None, None, view.call);
        }
    }

    fn apply(&mut self, view: View, op: &'h Op, answer: Option<&'h Answer>) {
        let session = self.checker.calls[view.call].session;
        if *op == Op::Close {
            self.end(session, view.zxid, true);
            return;
        }
        if let Some(by) = self.gone.get(&session).copied() {
            self.fail("S2", view, &format!("its session was gone by {by}"));
        }
        for (part, op) in op.parts().iter().enumerate() {
            let answer = match answer {
                Some(Answer::Multi(answers)) => answers.get(part),
                other => other,
            };
            let Some(path) = self.checker.calls[view.call].path_of(part) else { continue };
            match op {
                Op::Create { .. } => self.apply_create(view, path, op, answer),
                Op::Set { data, version, .. } => self.apply_set(view, path, data, *version, answer),
                Op::Delete { version, .. } => self.apply_delete(view, path, *version),
                Op::Check { version, .. } => {
                    if self.present(path, view, "C5") {
                        self.has_version(view, path, *version);
                    }
                }
                Op::Multi(_)
                | Op::Get { .. }
                | Op::Exists { .. }
                | Op::Children { .. }
                | Op::Sync
                | Op::SetWatches { .. }
                | Op::Close => self.fail("C5", view, "no operation of a multi"),
            }
        }
    }

    fn apply_create(&mut self, view: View, path: &'h str, op: &'h Op, answer: Option<&'h Answer>) {
        let Op::Create { data, ephemeral, .. } = op else { return };
        self.absent(path, view, "C5");
        self.present(parent(path), view, "C5");
        if let Some(Answer::Created { stat, .. }) = answer
            && (stat.czxid != view.zxid.0 || stat.mzxid != view.zxid.0 || stat.version != 0)
        {
            let why = format!("{path}'s stat has czxid {:x}, version {}", stat.czxid, stat.version);
            self.fail("C5", view, &why);
        }
        self.remove(path);
        let owner = if *ephemeral { self.checker.calls[view.call].session } else { SessionId(0) };
        let zxid = Some(view.zxid.0);
        let here = Here {
            czxid: zxid,
            mzxid: zxid,
            version: Some(0),
            data: Some(data),
            owner,
            by: view.call,
        };
        self.put(path, here);
        self.changed(path, view.zxid, EventType::NodeCreated);
    }

    fn apply_set(
        &mut self,
        view: View,
        path: &'h str,
        data: &'h Bytes,
        expected: i32,
        answer: Option<&'h Answer>,
    ) {
        if !self.present(path, view, "C5") {
            return;
        }
        let stat = match answer {
            Some(Answer::Stat(stat)) => Some(stat),
            _ => None, // unanswered
        };
        if let Some(stat) = stat {
            if stat.mzxid != view.zxid.0 {
                self.fail("C5", view, &format!("{path}'s stat has mzxid {:x}", stat.mzxid));
            }
            self.has_version(view, path, stat.version - 1);
            if expected != -1 && stat.version != expected + 1 {
                self.fail("C5", view, &format!("{path} has version {} now", stat.version));
            }
        } else {
            self.has_version(view, path, expected);
        }
        let here = self.nodes.get_mut(path).expect("present");
        let counted = here.version.map(|version| version + 1);
        here.version = stat.map_or(counted, |stat| Some(stat.version));
        (here.mzxid, here.data, here.by) = (Some(view.zxid.0), Some(data), view.call);
        if stat.is_none() && expected == -1 {
            // Unanswered sets may hide before it.
            let hidden = self
                .doubts
                .get(path)
                .is_some_and(|doubts| doubts.sets.used < doubts.sets.sent_us.len());
            if hidden {
                self.nodes.get_mut(path).expect("present").version = None;
            }
        }
        self.changed(path, view.zxid, EventType::NodeDataChanged);
    }

    fn apply_delete(&mut self, view: View, path: &'h str, version: i32) {
        if !self.present(path, view, "C5") {
            return;
        }
        self.has_version(view, path, version);
        for name in self.children.get(path).cloned().unwrap_or_default() {
            if let Some(child) = self.child(path, name) {
                self.absent(child, view, "C5");
            }
        }
        self.remove(path);
        self.changed(path, view.zxid, EventType::NodeDeleted);
    }

    /// The znode had this version before the write; -1 is any.
    fn has_version(&mut self, view: View, path: &'h str, version: i32) {
        let Some(known) = self.nodes.get(path).and_then(|here| here.version) else { return };
        let hidden = usize::try_from(version - known).ok();
        let fits = version == -1
            || version == known
            || hidden.is_some_and(|count| {
                self.doubts.get_mut(path).is_some_and(|doubts| doubts.sets.take(count, view.at_us))
            });
        if !fits {
            let rule = if version < known { "C5" } else { "C3" };
            let why =
                format!("it met version {version}, but {} (version {known})", self.wrote(path));
            self.fail(rule, view, &why);
        }
    }
}
