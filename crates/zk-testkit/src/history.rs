//! A checker of recorded histories: what clients asked, what they were told and when, held against the
//! guarantees of ZooKeeper.
//!
//! Every reply carries a zxid, so the order of writes need not be searched for: the zxid is the witness.
//! Writes are sorted by it and replayed through a reference tree of this module's own; every read is
//! compared with the tree at its reply's zxid. That costs O(n log n), whatever the number of clients.
//!
//! What a history cannot know is allowed for, and nothing else is: a request without a reply took effect
//! once or never, and a session that ended without an answered closeSession ended at some zxid behind the
//! last that it was told. Where an answer shows such a request's effect, its zxid is taken from there.
//!
//! | rule | what it says |
//! |---|---|
//! | C1 | a write that began after a reply has a higher zxid than that reply |
//! | C2 | a session is answered in the order in which it asked, and its writes take effect in it |
//! | C3 | a read equals the state at its reply's zxid |
//! | C4 | a session's zxid never goes back, not across reconnects either |
//! | C5 | a write that was acknowledged took effect once, a refused one never, an unanswered one at most once |
//! | C6 | the operations of a multi take effect together |
//! | C7 | behind a sync, every write shows that had been answered before it began |
//! | C8 | sequence numbers below a parent increase with the zxid |
//! | S1 | the ephemerals of a session go together, not before it ends |
//! | S2 | no ephemeral outlives its session |
//! | S3 | no session expires that was heard of within its timeout |
//! | W1 | a watch's event comes before any reply that shows the change |
//! | W2 | a one-shot watch fires at most once, and for a change only |
//!
//! # Invariants
//!
//! - No I/O and no clock: times are microseconds on one clock that the recorder chose.
//! - A history that a correct server can produce is never blamed. Where more than one explanation is
//!   possible the kinder one is believed.
//! - The recorder gives every create and every setData data of its own (a tag): it is how an answer tells
//!   which request it shows.

mod order;
mod replay;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use zk_proto::data::Stat;
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, SessionId, Zxid};

/// What was recorded of one run, from an empty ensemble on.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every session that any client had.
    pub sessions: Vec<SessionLog>,
    /// From this time on no ephemeral may be seen of a session that had ended before: all members have
    /// applied its end. In microseconds; `None`: never known.
    pub settled_us: Option<u64>,
}

/// One session, as its client saw it.
#[derive(Debug, Clone)]
pub struct SessionLog {
    /// Its id.
    pub session: SessionId,
    /// What was agreed, in ms.
    pub timeout_ms: u32,
    /// In the order in which the client saw them.
    pub events: Vec<Event>,
}

/// Something that a client did or saw.
#[derive(Debug, Clone)]
pub struct Event {
    /// When, in microseconds.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// What a client did or saw.
#[derive(Debug, Clone)]
pub enum What {
    /// A server took the session.
    Connected {
        /// Which.
        server: u64,
        /// When the connect request was sent, in microseconds.
        began_us: u64,
    },
    /// The connection is gone: whatever waits on it gets no reply.
    Lost,
    /// A server said that the session has expired.
    Expired,
    /// A request was sent.
    Invoke {
        /// Its number.
        xid: i32,
        /// What it asks for.
        op: Op,
    },
    /// Its reply came.
    Reply {
        /// The request's number.
        xid: i32,
        /// The zxid in the header.
        zxid: Zxid,
        /// How it went.
        result: Result<Answer, Failure>,
    },
    /// A ping was answered: the session was heard of, no earlier than when the ping was sent.
    Ping {
        /// When it was sent, in microseconds.
        began_us: u64,
        /// The zxid in the header.
        zxid: Zxid,
    },
    /// A watch fired.
    Fired {
        /// Why.
        kind: EventType,
        /// For which path.
        path: String,
    },
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// create2
    Create {
        /// The path asked for: with `sequential`, without its number.
        path: String,
        /// The tag.
        data: Bytes,
        /// Whether it goes with the session.
        ephemeral: bool,
        /// Whether the server appends a number.
        sequential: bool,
    },
    /// setData
    Set {
        /// The znode.
        path: String,
        /// The tag.
        data: Bytes,
        /// The version that is expected; -1: any.
        version: i32,
    },
    /// delete
    Delete {
        /// The znode.
        path: String,
        /// The version that is expected; -1: any.
        version: i32,
    },
    /// check, within a multi
    Check {
        /// The znode.
        path: String,
        /// The version that is expected; -1: any.
        version: i32,
    },
    /// multi
    Multi(Vec<Self>),
    /// getData
    Get {
        /// The znode.
        path: String,
        /// Whether a data watch is set.
        watch: bool,
    },
    /// exists
    Exists {
        /// The znode.
        path: String,
        /// Whether a data watch, or one for its creation, is set.
        watch: bool,
    },
    /// getChildren2
    Children {
        /// The znode.
        path: String,
        /// Whether a child watch is set.
        watch: bool,
    },
    /// sync
    Sync,
    /// setWatches, after a reconnect
    SetWatches {
        /// The last zxid that the session was told.
        relative: Zxid,
        /// Data watches.
        data: Vec<String>,
        /// Watches for a creation.
        exist: Vec<String>,
        /// Child watches.
        child: Vec<String>,
    },
    /// closeSession
    Close,
}

/// What a successful reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// create2
    Created {
        /// The path that was made.
        path: String,
        /// Its stat.
        stat: Stat,
    },
    /// setData, exists
    Stat(Stat),
    /// getData
    Data {
        /// The data.
        data: Bytes,
        /// The stat.
        stat: Stat,
    },
    /// getChildren2
    Children {
        /// Their names, in any order.
        names: Vec<String>,
        /// The parent's stat.
        stat: Stat,
    },
    /// delete, check, sync, setWatches, closeSession
    Done,
    /// multi: one answer for each operation
    Multi(Vec<Self>),
}

/// A reply that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub code: ErrorCode,
    /// Which operation of a multi; 0 for all others.
    pub part: usize,
}

/// What differs between systems under test.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether C7 is required. Apache's sync is answered by a leader that does not know yet that another
    /// one has been elected (known and documented upstream).
    pub strict_sync: bool,
    /// By how much a session may seem to expire early, in ms: what a follower has heard reaches the
    /// leader with the next ping, and both go by ticks.
    pub expiry_slack_ms: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { strict_sync: true, expiry_slack_ms: 0 }
    }
}

/// A guarantee that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its id in the table above.
    pub rule: &'static str,
    /// What happened, with the requests and zxids that show it.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// What came out of a check. The counts are there so that a run which exercised nothing can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong; empty is what one wants. No more than [`VIOLATIONS_MAX`] of each rule.
    pub violations: Vec<Violation>,
    /// Writes that were acknowledged.
    pub writes: usize,
    /// Writes without a reply.
    pub unanswered: usize,
    /// Of these, how many are known to have taken effect.
    pub resolved: usize,
    /// Requests that were refused.
    pub refused: usize,
    /// Reads that were compared with the reference tree.
    pub reads: usize,
    /// Syncs that were answered.
    pub syncs: usize,
    /// Watches that fired.
    pub fired: usize,
    /// Sessions that went on with another server or connection.
    pub reconnects: usize,
    /// Sessions that a server called expired.
    pub expired: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes, {} unanswered ({} took effect), {} refused, {} reads, {} syncs, {} watch \
             events, {} reconnects, {} sessions expired: {} violations",
            self.writes,
            self.unanswered,
            self.resolved,
            self.refused,
            self.reads,
            self.syncs,
            self.fired,
            self.reconnects,
            self.expired,
            self.violations.len(),
        )?;
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// How many violations of one rule are listed.
pub const VIOLATIONS_MAX: usize = 10;

/// Checks everything.
#[must_use]
pub fn check(history: &History, options: &Options) -> Report {
    let mut checker = Checker::read(history, *options);
    order::data_tells_which_write_it_is(&mut checker);
    order::a_write_that_began_after_a_reply_has_a_higher_zxid(&mut checker);
    order::writes_of_a_session_take_effect_in_its_order(&mut checker);
    order::a_sync_shows_what_was_answered_before(&mut checker);
    order::sequence_numbers_increase_with_the_zxid(&mut checker);
    order::no_session_expires_that_was_heard_of(&mut checker);
    let changes = replay::reads_equal_the_state_at_their_zxid(&mut checker);
    watches::events_come_before_what_they_announce(&mut checker, &changes);
    checker.report
}

impl Op {
    /// Whether it changes the tree.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Set { .. }
            | Self::Delete { .. }
            | Self::Multi(_)
            | Self::Close => true,
            Self::Check { .. }
            | Self::Get { .. }
            | Self::Exists { .. }
            | Self::Children { .. }
            | Self::Sync
            | Self::SetWatches { .. } => false,
        }
    }

    /// A multi's operations, or the one that it is.
    fn parts(&self) -> &[Self] {
        match self {
            Self::Multi(parts) => parts,
            Self::Create { .. }
            | Self::Set { .. }
            | Self::Delete { .. }
            | Self::Check { .. }
            | Self::Get { .. }
            | Self::Exists { .. }
            | Self::Children { .. }
            | Self::Sync
            | Self::SetWatches { .. }
            | Self::Close => std::slice::from_ref(self),
        }
    }

    /// The path that it names.
    fn path(&self) -> Option<&str> {
        match self {
            Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. }
            | Self::Check { path, .. }
            | Self::Get { path, .. }
            | Self::Exists { path, .. }
            | Self::Children { path, .. } => Some(path),
            Self::Multi(_) | Self::Sync | Self::SetWatches { .. } | Self::Close => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, data, ephemeral, sequential } => {
                let kind = if *ephemeral { " ephemeral" } else { "" };
                let number = if *sequential { " sequential" } else { "" };
                write!(f, "create{kind}{number} {path} {data:?}")
            }
            Self::Set { path, data, version } => write!(f, "set {path} {data:?} if {version}"),
            Self::Delete { path, version } => write!(f, "delete {path} if {version}"),
            Self::Check { path, version } => write!(f, "check {path} if {version}"),
            Self::Multi(parts) => {
                write!(f, "multi [")?;
                for part in parts {
                    write!(f, " {part};")?;
                }
                write!(f, " ]")
            }
            Self::Get { path, .. } => write!(f, "get {path}"),
            Self::Exists { path, .. } => write!(f, "exists {path}"),
            Self::Children { path, .. } => write!(f, "children {path}"),
            Self::Sync => write!(f, "sync"),
            Self::SetWatches { relative, .. } => write!(f, "setWatches since {relative}"),
            Self::Close => write!(f, "closeSession"),
        }
    }
}

/// A request with what became of it.
struct Call<'h> {
    session: SessionId,
    xid: i32,
    op: &'h Op,
    invoked_us: u64,
    reply: Option<Reply<'h>>,
    /// Without a reply, but its effect was seen: at which zxid, and when first.
    seen: Option<(Zxid, u64)>,
    /// Names that the server chose, by operation.
    made: BTreeMap<usize, &'h str>,
}

#[derive(Clone, Copy)]
struct Reply<'h> {
    at_us: u64,
    zxid: Zxid,
    result: &'h Result<Answer, Failure>,
}

impl<'h> Call<'h> {
    /// The zxid at which it is known to have taken effect.
    fn effective(&self) -> Option<Zxid> {
        match &self.reply {
            Some(reply) => reply.result.is_ok().then_some(reply.zxid),
            None => self.seen.map(|(zxid, _)| zxid),
        }
    }

    /// Its answer, if it succeeded.
    fn answer(&self) -> Option<&'h Answer> {
        self.reply.and_then(|reply| reply.result.as_ref().ok())
    }

    /// The path that its operation `part` made or changed, once known.
    fn path_of(&self, part: usize) -> Option<&'h str> {
        match self.op.parts().get(part)? {
            Op::Create { sequential: true, .. } => self.made.get(&part).copied(),
            other => other.path(),
        }
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} xid {} ({})", self.session, self.xid, self.op)?;
        match (&self.reply, self.seen) {
            (Some(reply), _) => match reply.result {
                Ok(_) => write!(f, " acknowledged at zxid {}", reply.zxid),
                Err(failure) => write!(f, " refused with {} at zxid {}", failure.code, reply.zxid),
            },
            (None, Some((zxid, _))) => write!(f, " unanswered, seen at zxid {zxid}"),
            (None, None) => write!(f, " unanswered"),
        }
    }
}

/// What is known about a session from its own log.
struct Life {
    /// The highest zxid that it was told while it lived.
    told: Zxid,
    /// When it was heard of last: the latest time of sending of anything that was answered.
    heard_us: u64,
    /// From when on it may have ended without saying so.
    may_end_us: u64,
    /// When its client knew that it had ended: closed, or called expired.
    ended_us: Option<u64>,
}

struct Checker<'h> {
    history: &'h History,
    options: Options,
    calls: Vec<Call<'h>>,
    lives: BTreeMap<SessionId, Life>,
    /// Sessions whose closeSession was answered: the zxid of their end is known.
    closed: BTreeSet<SessionId>,
    report: Report,
    listed: BTreeMap<&'static str, usize>,
}

impl<'h> Checker<'h> {
    /// Pairs requests and replies; C2's first half and C4 fall out of it.
    fn read(history: &'h History, options: Options) -> Self {
        let mut checker = Self {
            history,
            options,
            calls: Vec::new(),
            lives: BTreeMap::new(),
            closed: BTreeSet::new(),
            report: Report::default(),
            listed: BTreeMap::new(),
        };
        for log in &history.sessions {
            checker.read_session(log);
        }
        for call in &checker.calls {
            match (&call.reply, call.op) {
                (Some(reply), _) if reply.result.is_err() => checker.report.refused += 1,
                (Some(_), Op::Sync) => checker.report.syncs += 1,
                (Some(_), op) if op.is_write() => checker.report.writes += 1,
                (Some(_), Op::SetWatches { .. }) => {}
                (Some(_), _) => checker.report.reads += 1,
                (None, op) if op.is_write() => checker.report.unanswered += 1,
                (None, _) => {}
            }
        }
        checker
    }

    fn read_session(&mut self, log: &'h SessionLog) {
        let session = log.session;
        let mut waiting: VecDeque<usize> = VecDeque::new();
        let mut told = Zxid::ZERO;
        let (mut heard_us, mut close_us, mut ended_us) = (0, None, None);
        let mut connected = false;
        for Event { at_us, what } in &log.events {
            let at_us = *at_us;
            match what {
                What::Connected { began_us, .. } => {
                    self.report.reconnects += usize::from(connected);
                    connected = true;
                    heard_us = heard_us.max(*began_us);
                }
                What::Lost => waiting.clear(),
                What::Expired => {
                    self.report.expired += 1;
                    waiting.clear();
                    ended_us = Some(at_us);
                }
                What::Invoke { xid, op } => {
                    waiting.push_back(self.calls.len());
                    if *op == Op::Close {
                        close_us = close_us.or(Some(at_us));
                    }
                    self.calls.push(Call {
                        session,
                        xid: *xid,
                        op,
                        invoked_us: at_us,
                        reply: None,
                        seen: None,
                        made: BTreeMap::new(),
                    });
                }
                What::Reply { xid, zxid, result } => {
                    let Some(index) = waiting.pop_front() else {
                        self.fail(
                            "C2",
                            format!(
                                "session {session}: a reply to xid {xid}, which nobody waits for"
                            ),
                        );
                        continue;
                    };
                    let call = &mut self.calls[index];
                    call.reply = Some(Reply { at_us, zxid: *zxid, result });
                    if let Ok(answer) = result {
                        call.note_names(answer);
                    }
                    let (invoked_us, expected, op) = (call.invoked_us, call.xid, call.op);
                    if expected != *xid {
                        let text = format!(
                            "session {session}: a reply to xid {xid} where xid {expected} was first in line"
                        );
                        self.fail("C2", text);
                    }
                    // A refusal of the session itself says nothing about its being alive.
                    let alive = match result {
                        Ok(_) => *op != Op::Close,
                        Err(failure) => {
                            failure.code != ErrorCode::SESSION_EXPIRED
                                && failure.code != ErrorCode::SESSION_MOVED
                        }
                    };
                    if alive {
                        heard_us = heard_us.max(invoked_us);
                        self.zxid_goes_on(session, &mut told, *zxid, *xid);
                    } else if result.is_ok() {
                        ended_us = ended_us.or(Some(at_us));
                        self.closed.insert(session);
                    }
                }
                What::Ping { began_us, zxid } => {
                    heard_us = heard_us.max(*began_us);
                    self.zxid_goes_on(session, &mut told, *zxid, -2);
                }
                What::Fired { .. } => self.report.fired += 1,
            }
        }
        let timeout_us =
            u64::from(log.timeout_ms.saturating_sub(self.options.expiry_slack_ms)) * 1000;
        let may_expire_us = heard_us + timeout_us;
        let may_end_us = close_us.map_or(may_expire_us, |close| may_expire_us.min(close));
        self.lives.insert(session, Life { told, heard_us, may_end_us, ended_us });
    }

    /// C4.
    fn zxid_goes_on(&mut self, session: SessionId, told: &mut Zxid, zxid: Zxid, xid: i32) {
        if zxid < *told && zxid.0 > 0 {
            let text = format!(
                "session {session}: the reply to xid {xid} has zxid {zxid}, after it was told {told}"
            );
            self.fail("C4", text);
        }
        *told = zxid.max(*told);
    }

    fn fail(&mut self, rule: &'static str, text: String) {
        let count = self.listed.entry(rule).or_default();
        *count += 1;
        if *count <= VIOLATIONS_MAX {
            self.report.violations.push(Violation { rule, text });
        }
    }
}

impl<'h> Call<'h> {
    fn note_names(&mut self, answer: &'h Answer) {
        match answer {
            Answer::Created { path, .. } => {
                self.made.insert(0, path);
            }
            Answer::Multi(answers) => {
                for (part, answer) in answers.iter().enumerate() {
                    if let Answer::Created { path, .. } = answer {
                        self.made.insert(part, path);
                    }
                }
            }
            Answer::Stat(_) | Answer::Data { .. } | Answer::Children { .. } | Answer::Done => {}
        }
    }
}

/// The path above, empty for the root's children.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The part behind the last slash.
fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// How many digits a sequence number has.
const SEQUENCE_LEN: usize = 10;

/// A sequential name without its number, and the number.
fn sequence(path: &str) -> Option<(&str, i64)> {
    let at = path.len().checked_sub(SEQUENCE_LEN)?;
    let (prefix, digits) = path.split_at_checked(at)?;
    digits.parse().ok().map(|number| (prefix, number))
}
