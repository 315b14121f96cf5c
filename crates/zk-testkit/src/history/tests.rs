use super::*;
use crate::{Prng, property_of};

/// Writes histories down: one step of time an event.
#[derive(Default)]
struct Book {
    history: History,
    now_us: u64,
}

const MS: u64 = 1000;

fn stat(czxid: i64, mzxid: i64, version: i32, owner: i64) -> Stat {
    Stat {
        czxid,
        mzxid,
        ctime: 0,
        mtime: 0,
        version,
        cversion: 0,
        aversion: 0,
        ephemeral_owner: owner,
        data_length: 0,
        num_children: 0,
        pzxid: czxid,
    }
}

fn tag(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn create(path: &str, data: &str) -> Op {
    Op::Create { path: path.into(), data: tag(data), ephemeral: false, sequential: false }
}

fn ephemeral(path: &str, data: &str) -> Op {
    Op::Create { path: path.into(), data: tag(data), ephemeral: true, sequential: false }
}

fn sequential(path: &str, data: &str) -> Op {
    Op::Create { path: path.into(), data: tag(data), ephemeral: false, sequential: true }
}

fn set(path: &str, data: &str) -> Op {
    Op::Set { path: path.into(), data: tag(data), version: -1 }
}

fn delete(path: &str) -> Op {
    Op::Delete { path: path.into(), version: -1 }
}

fn get(path: &str) -> Op {
    Op::Get { path: path.into(), watch: false }
}

fn get_and_watch(path: &str) -> Op {
    Op::Get { path: path.into(), watch: true }
}

fn exists(path: &str) -> Op {
    Op::Exists { path: path.into(), watch: false }
}

fn created(path: &str, zxid: i64, owner: i64) -> Answer {
    Answer::Created { path: path.into(), stat: stat(zxid, zxid, 0, owner) }
}

fn data(text: &str, stat: Stat) -> Answer {
    Answer::Data { data: tag(text), stat }
}

fn with_children(mut stat: Stat, count: i32, pzxid: i64) -> Stat {
    (stat.num_children, stat.pzxid) = (count, pzxid);
    stat
}

impl Book {
    fn sessions(count: usize) -> Self {
        let mut book = Self::default();
        for number in 1..=count {
            let session = SessionId(i64::try_from(number).unwrap());
            book.history.sessions.push(SessionLog {
                session,
                timeout_ms: 1000,
                events: Vec::new(),
            });
            book.what(number, What::Connected { server: 1, began_us: 0 });
        }
        book
    }

    fn what(&mut self, session: usize, what: What) -> &mut Self {
        self.now_us += MS;
        let event = Event { at_us: self.now_us, what };
        self.history.sessions[session - 1].events.push(event);
        self
    }

    fn ask(&mut self, session: usize, xid: i32, op: Op) -> &mut Self {
        self.what(session, What::Invoke { xid, op })
    }

    fn ok(&mut self, session: usize, xid: i32, zxid: i64, answer: Answer) -> &mut Self {
        self.what(session, What::Reply { xid, zxid: Zxid(zxid), result: Ok(answer) })
    }

    fn refused(&mut self, session: usize, xid: i32, zxid: i64, code: ErrorCode) -> &mut Self {
        let result = Err(Failure { code, part: 0 });
        self.what(session, What::Reply { xid, zxid: Zxid(zxid), result })
    }

    /// Asked and answered.
    fn done(&mut self, session: usize, xid: i32, op: Op, zxid: i64, answer: Answer) -> &mut Self {
        self.ask(session, xid, op).ok(session, xid, zxid, answer)
    }

    fn fired(&mut self, session: usize, kind: EventType, path: &str) -> &mut Self {
        self.what(session, What::Fired { kind, path: path.into() })
    }

    fn report(&self) -> Report {
        check(&self.history, &Options::default())
    }

    #[track_caller]
    fn is_fine(&self) {
        let report = self.report();
        assert!(report.violations.is_empty(), "{report}");
    }

    /// The rule is broken, and no other; the message says so.
    #[track_caller]
    fn breaks(&self, rule: &str, message: &str) {
        let report = self.report();
        assert!(!report.violations.is_empty(), "{rule} was not missed");
        for violation in &report.violations {
            assert_eq!(violation.rule, rule, "{report}");
        }
        let said = report.violations.iter().any(|violation| violation.text.contains(message));
        assert!(said, "{message:?} is not in {report}");
    }
}

/// Two sessions, and /a created at zxid 1 with "a0".
fn with_a() -> Book {
    let mut book = Book::sessions(2);
    book.done(1, 1, create("/a", "a0"), 1, created("/a", 1, 0));
    book
}

#[test]
fn a_plain_history_is_fine() {
    let mut book = with_a();
    book.done(2, 1, get("/a"), 1, data("a0", stat(1, 1, 0, 0)))
        .done(2, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0)))
        .done(1, 2, get("/a"), 1, data("a0", stat(1, 1, 0, 0))) // stale, and honest about it
        .done(1, 3, Op::Sync, 2, Answer::Done)
        .done(1, 4, delete("/a"), 3, Answer::Done)
        .ask(1, 5, exists("/a"))
        .refused(1, 5, 3, ErrorCode::NO_NODE);
    book.is_fine();
    let report = book.report();
    assert_eq!((report.writes, report.reads, report.syncs, report.refused), (3, 2, 1, 1));
}

#[test]
fn c1_a_later_write_with_a_lower_zxid() {
    let mut book = with_a();
    book.done(1, 2, create("/b", "b0"), 5, created("/b", 5, 0)).done(
        2,
        1,
        create("/c", "c0"),
        4,
        created("/c", 4, 0),
    );
    book.breaks(
        "C1",
        "session 0x2 xid 1 (create /c b\"c0\") acknowledged at zxid 0x4 began after 0x5",
    );
}

#[test]
fn c1_one_zxid_for_two_writes() {
    let mut book = with_a();
    book.ask(1, 2, create("/b", "b0"))
        .ask(2, 1, create("/c", "c0"))
        .ok(1, 2, 2, created("/b", 2, 0))
        .ok(2, 1, 2, created("/c", 2, 0));
    book.breaks("C1", "have one zxid");
}

#[test]
fn c1_an_unanswered_write_that_was_seen_counts_from_when_it_was() {
    let mut book = with_a();
    book.ask(1, 2, set("/a", "a1"))
        .what(1, What::Lost)
        .done(2, 1, get("/a"), 9, data("a1", stat(1, 9, 1, 0)))
        .done(2, 2, create("/b", "b0"), 8, created("/b", 8, 0));
    let report = book.report();
    assert!(report.violations.iter().any(|violation| violation.rule == "C1"), "{report}");
    assert_eq!(report.resolved, 1);
}

#[test]
fn c2_replies_out_of_order() {
    let mut book = with_a();
    book.ask(2, 1, exists("/a"))
        .ask(2, 2, exists("/a"))
        .ok(2, 2, 1, Answer::Stat(stat(1, 1, 0, 0)))
        .ok(2, 1, 1, Answer::Stat(stat(1, 1, 0, 0)));
    book.breaks("C2", "a reply to xid 2 where xid 1 was first in line");
}

#[test]
fn c2_a_reply_to_nothing() {
    let mut book = with_a();
    book.ok(2, 7, 1, Answer::Done);
    book.breaks("C2", "xid 7, which nobody waits for");
}

#[test]
fn c2_an_unanswered_write_takes_effect_behind_a_later_one() {
    let mut book = with_a();
    book.ask(1, 2, set("/a", "late"))
        .what(1, What::Lost)
        .what(1, What::Connected { server: 2, began_us: 0 })
        .done(1, 3, create("/b", "b0"), 2, created("/b", 2, 0))
        .done(2, 1, get("/a"), 3, data("late", stat(1, 3, 1, 0)));
    book.breaks(
        "C2",
        "session 0x1 xid 3 (create /b b\"b0\") acknowledged at zxid 0x2 was sent after",
    );
}

#[test]
fn c3_a_read_that_is_older_than_its_zxid() {
    let mut book = with_a();
    book.done(1, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0))).done(
        2,
        1,
        get("/a"),
        2,
        data("a0", stat(1, 1, 0, 0)),
    );
    book.breaks("C3", "it saw /a with mzxid 1, version 0");
}

#[test]
fn c3_a_read_from_the_future() {
    let mut book = with_a();
    book.done(1, 2, set("/a", "a1"), 3, Answer::Stat(stat(1, 3, 1, 0))).done(
        2,
        1,
        get("/a"),
        2,
        data("a1", stat(1, 3, 1, 0)),
    );
    book.breaks("C3", "mzxid 3");
}

#[test]
fn c3_data_that_nobody_wrote() {
    let mut book = with_a();
    book.done(2, 1, get("/a"), 1, data("ghost", stat(1, 1, 0, 0)));
    book.breaks("C3", "was never written");
}

#[test]
fn c3_an_acknowledged_znode_is_not_there() {
    let mut book = with_a();
    book.ask(2, 1, exists("/a")).refused(2, 1, 1, ErrorCode::NO_NODE);
    book.breaks("C3", "/a is not there, but /a was last written by session 0x1 xid 1");
}

#[test]
fn c3_a_deleted_znode_is_there() {
    let mut book = with_a();
    book.done(1, 2, delete("/a"), 2, Answer::Done).done(
        2,
        1,
        exists("/a"),
        2,
        Answer::Stat(stat(1, 1, 0, 0)),
    );
    book.breaks("C3", "/a does not exist");
}

#[test]
fn c3_lists_of_children() {
    let list = |names: &[&str], count, pzxid| Answer::Children {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        stat: with_children(stat(1, 1, 0, 0), count, pzxid),
    };
    let children = Op::Children { path: "/a".into(), watch: false };
    let mut book = with_a();
    book.done(1, 2, create("/a/x", "x"), 2, created("/a/x", 2, 0))
        .done(1, 3, create("/a/y", "y"), 3, created("/a/y", 3, 0))
        .done(2, 1, children.clone(), 2, list(&["x"], 1, 2))
        .done(2, 2, children.clone(), 3, list(&["y", "x"], 2, 3));
    book.is_fine();
    let before = book.history.clone();
    book.done(2, 3, children.clone(), 3, list(&["x"], 2, 3));
    book.breaks("C3", "/a/y is not there");
    book.history = before.clone();
    book.done(2, 3, children.clone(), 3, list(&["x", "y", "z"], 2, 3));
    book.breaks("C3", "/a/z is listed, but no write put it there");
    book.history = before.clone();
    book.done(2, 3, children.clone(), 3, list(&["x", "y"], 2, 2));
    book.breaks("C3", "/a has pzxid 3, not 2");
    book.history = before;
    book.done(2, 3, children, 3, list(&["x", "y"], 3, 3));
    book.breaks("C3", "/a has 2 children, not 3");
}

#[test]
fn c3_an_unanswered_delete_or_create_may_explain_what_is_seen() {
    let mut book = with_a();
    book.ask(1, 2, delete("/a"))
        .ask(1, 3, create("/b", "b0"))
        .what(1, What::Lost)
        .done(2, 1, exists("/a"), 1, Answer::Stat(stat(1, 1, 0, 0)))
        .ask(2, 2, exists("/a"))
        .refused(2, 2, 3, ErrorCode::NO_NODE)
        .done(2, 3, exists("/b"), 3, Answer::Stat(stat(3, 3, 0, 0)));
    book.is_fine();
    // It was gone: it cannot come back.
    book.done(2, 4, exists("/a"), 4, Answer::Stat(stat(1, 1, 0, 0)));
    book.breaks("C3", "it saw /a created at 1, but /a does not exist");
}

#[test]
fn c3_what_was_only_listed_may_be_an_ephemeral_of_an_unanswered_create() {
    let list = |names: &[&str], count| Answer::Children {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        stat: with_children(stat(1, 1, 0, 0), count, 2),
    };
    let children = Op::Children { path: "/a".into(), watch: false };
    let mut book = with_a();
    book.ask(1, 2, ephemeral("/a/e", "e0")).what(1, What::Lost).done(
        2,
        1,
        children.clone(),
        2,
        list(&["e"], 1),
    );
    let before = book.history.clone();
    // Too early for its session to have ended.
    book.done(2, 2, children.clone(), 3, list(&[], 0));
    book.breaks("C3", "/a/e is not there");
    book.history = before;
    book.now_us += 2000 * MS;
    book.done(2, 2, children, 3, list(&[], 0));
    book.is_fine();
}

#[test]
fn c4_a_zxid_that_goes_back() {
    let mut book = with_a();
    book.done(2, 1, exists("/a"), 7, Answer::Stat(stat(1, 1, 0, 0)))
        .what(2, What::Lost)
        .what(2, What::Connected { server: 2, began_us: 0 })
        .done(2, 2, exists("/a"), 6, Answer::Stat(stat(1, 1, 0, 0)));
    book.breaks("C4", "session 0x2: the reply to xid 2 has zxid 0x6, after it was told 0x7");
}

#[test]
fn c5_a_refused_write_took_effect() {
    let mut book = with_a();
    book.ask(1, 2, set("/a", "a1")).refused(1, 2, 2, ErrorCode::THROTTLED_OP).done(
        2,
        1,
        get("/a"),
        3,
        data("a1", stat(1, 2, 1, 0)),
    );
    let report = book.report();
    assert_eq!(report.violations[0].rule, "C5", "{report}");
    assert!(report.violations[0].text.contains("a refused write took effect"), "{report}");
}

#[test]
fn c5_a_write_that_took_effect_twice() {
    let mut book = with_a();
    book.ask(1, 2, set("/a", "a1"))
        .what(1, What::Lost)
        .done(2, 1, get("/a"), 2, data("a1", stat(1, 2, 1, 0)))
        .done(2, 2, get("/a"), 3, data("a1", stat(1, 3, 2, 0)));
    let report = book.report();
    assert_eq!(report.violations[0].rule, "C5", "{report}");
    assert!(report.violations[0].text.contains("it took effect twice"), "{report}");
}

#[test]
fn c5_a_lost_update_shows_in_the_version() {
    let mut book = with_a();
    book.done(1, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0))).done(
        2,
        1,
        set("/a", "a2"),
        3,
        Answer::Stat(stat(1, 3, 1, 0)),
    );
    book.breaks("C5", "it met version 0, but /a was last written by session 0x1 xid 2");
}

#[test]
fn c5_a_version_too_far_needs_an_unanswered_write() {
    let mut book = with_a();
    book.done(2, 1, set("/a", "a2"), 3, Answer::Stat(stat(1, 3, 2, 0)));
    book.breaks("C3", "it met version 1");
    let mut book = with_a();
    book.ask(1, 2, set("/a", "a1")).what(1, What::Lost).done(
        2,
        1,
        set("/a", "a2"),
        3,
        Answer::Stat(stat(1, 3, 2, 0)),
    );
    book.is_fine();
    book.done(2, 2, set("/a", "a3"), 4, Answer::Stat(stat(1, 4, 4, 0)));
    book.breaks("C3", "it met version 3");
}

#[test]
fn c5_a_refusal_without_its_reason() {
    let mut book = with_a();
    book.ask(1, 2, Op::Set { path: "/a".into(), data: tag("a1"), version: 0 }).refused(
        1,
        2,
        2,
        ErrorCode::BAD_VERSION,
    );
    book.breaks("C5", "/a had that version");
    let mut book = with_a();
    book.ask(1, 2, create("/b", "b0")).refused(1, 2, 2, ErrorCode::NODE_EXISTS);
    book.breaks("C3", "/b is there, but no write put it there");
    let mut book = with_a();
    book.ask(1, 2, delete("/a")).refused(1, 2, 2, ErrorCode::NOT_EMPTY);
    book.breaks("C5", "it had no children");
}

#[test]
fn c6_half_of_a_multi() {
    let both = Op::Multi(vec![create("/x", "x"), create("/y", "y")]);
    let answer = Answer::Multi(vec![created("/x", 2, 0), created("/y", 2, 0)]);
    let mut book = with_a();
    book.done(1, 2, both.clone(), 2, answer)
        .done(2, 1, exists("/x"), 2, Answer::Stat(stat(2, 2, 0, 0)))
        .ask(2, 2, exists("/y"))
        .refused(2, 2, 2, ErrorCode::NO_NODE);
    book.breaks("C6", "/y is not there");
    // Without a reply: whoever sees one half must see the other.
    let mut book = with_a();
    book.ask(1, 2, both)
        .what(1, What::Lost)
        .done(2, 1, get("/x"), 2, data("x", stat(2, 2, 0, 0)))
        .ask(2, 2, exists("/y"))
        .refused(2, 2, 3, ErrorCode::NO_NODE);
    book.breaks("C6", "/y is not there");
}

#[test]
fn c7_a_sync_that_shows_too_little() {
    let mut book = with_a();
    book.done(1, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0))).done(
        2,
        1,
        Op::Sync,
        1,
        Answer::Done,
    );
    book.breaks("C7", "session 0x2 xid 1 (sync) acknowledged at zxid 0x1 began after the reply to");
    let lenient = Options { strict_sync: false, ..Options::default() };
    assert!(check(&book.history, &lenient).violations.is_empty());
}

#[test]
fn c8_a_sequence_number_twice_or_backwards() {
    for (first, second) in [(5, 5), (6, 5)] {
        let mut book = with_a();
        let path = |number: i32| format!("/a/s{number:010}");
        book.done(1, 2, sequential("/a/s", "s1"), 2, created(&path(first), 2, 0)).done(
            1,
            3,
            sequential("/a/t", "s2"),
            3,
            created(&format!("/a/t{second:010}"), 3, 0),
        );
        book.breaks("C8", "and later session 0x1 xid 3");
    }
}

/// /e is an ephemeral of session 1.
fn with_ephemeral() -> Book {
    let mut book = Book::sessions(2);
    book.done(1, 1, ephemeral("/e", "e0"), 1, created("/e", 1, 1));
    book.done(1, 2, ephemeral("/f", "f0"), 2, created("/f", 2, 1));
    book
}

#[test]
fn s1_an_ephemeral_goes_before_its_session() {
    let mut book = with_ephemeral();
    book.ask(2, 1, exists("/e")).refused(2, 1, 3, ErrorCode::NO_NODE).done(
        1,
        3,
        exists("/f"),
        4,
        Answer::Stat(stat(2, 2, 0, 1)),
    );
    book.breaks("S1", "/e is not there, but /e was last written by session 0x1 xid 1");
}

#[test]
fn s1_ephemerals_go_together() {
    let mut book = with_ephemeral();
    book.what(1, What::Lost);
    book.now_us += 2000 * MS;
    book.ask(2, 1, exists("/e")).refused(2, 1, 3, ErrorCode::NO_NODE);
    book.is_fine();
    book.done(2, 2, exists("/f"), 4, Answer::Stat(stat(2, 2, 0, 1)));
    book.breaks("S2", "it saw /f created at 2");
}

#[test]
fn s2_an_ephemeral_outlives_a_closed_session() {
    let mut book = with_ephemeral();
    book.done(1, 3, Op::Close, 3, Answer::Done).done(
        2,
        1,
        exists("/e"),
        3,
        Answer::Stat(stat(1, 1, 0, 1)),
    );
    book.breaks("S2", "it saw /e created at 1");
}

#[test]
fn s2_an_ephemeral_that_is_there_when_all_has_settled() {
    let mut book = with_ephemeral();
    book.what(1, What::Lost);
    book.now_us += 2000 * MS;
    book.what(1, What::Expired);
    book.done(2, 1, exists("/e"), 3, Answer::Stat(stat(1, 1, 0, 1)));
    book.is_fine();
    book.history.settled_us = Some(book.now_us);
    book.done(2, 2, exists("/e"), 3, Answer::Stat(stat(1, 1, 0, 1)));
    book.breaks("S2", "which had ended everywhere");
}

#[test]
fn s3_a_session_that_came_back_in_time_has_expired() {
    let mut book = with_ephemeral();
    book.what(1, What::Lost);
    book.now_us += 900 * MS;
    book.what(1, What::Expired);
    book.breaks("S3", "session 0x1 was called expired 90");
    let slack = Options { expiry_slack_ms: 100, ..Options::default() };
    assert!(check(&book.history, &slack).violations.is_empty());
}

/// Seen once, when a leader was killed between a closeSession's commit and its reply.
#[test]
fn s3_an_unanswered_close_may_have_ended_the_session() {
    let mut book = with_ephemeral();
    book.now_us += 100 * MS;
    book.ask(1, 2, Op::Close);
    book.what(1, What::Lost);
    book.now_us += 10 * MS;
    book.what(1, What::Expired);
    book.is_fine();
}

#[test]
fn s3_pings_keep_a_session() {
    let mut book = with_ephemeral();
    book.now_us += 900 * MS;
    let began_us = book.now_us;
    book.what(1, What::Ping { began_us, zxid: Zxid(2) });
    book.now_us += 900 * MS;
    book.ask(2, 1, exists("/e")).refused(2, 1, 3, ErrorCode::NO_NODE);
    book.breaks("S1", "/e is not there");
}

#[test]
fn w1_data_before_its_event() {
    let mut book = with_a();
    book.done(2, 1, get_and_watch("/a"), 1, data("a0", stat(1, 1, 0, 0)))
        .done(1, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0)))
        .done(2, 2, get("/a"), 2, data("a1", stat(1, 2, 1, 0)))
        .fired(2, EventType::NodeDataChanged, "/a");
    let report = book.report();
    assert_eq!(report.violations[0].rule, "W1", "{report}");
    let text = &report.violations[0].text;
    assert!(text.contains("the Data watch of /a has not fired for the change at 0x2"), "{text}");
}

#[test]
fn w1_a_child_watch_and_one_for_a_creation() {
    let mut book = with_a();
    let children = Op::Children { path: "/a".into(), watch: true };
    let none = Answer::Children { names: Vec::new(), stat: stat(1, 1, 0, 0) };
    book.done(2, 1, children, 1, none)
        .ask(2, 2, Op::Exists { path: "/a/x".into(), watch: true })
        .refused(2, 2, 1, ErrorCode::NO_NODE)
        .done(1, 2, create("/a/x", "x"), 2, created("/a/x", 2, 0));
    let before = book.history.clone();
    book.fired(2, EventType::NodeCreated, "/a/x")
        .fired(2, EventType::NodeChildrenChanged, "/a")
        .done(2, 3, Op::Sync, 2, Answer::Done);
    book.is_fine();
    book.history = before;
    book.done(2, 3, Op::Sync, 2, Answer::Done);
    book.breaks("W1", "the Exist watch of /a/x");
    book.breaks("W1", "the Child watch of /a ");
}

#[test]
fn w1_holds_across_a_reconnect_with_set_watches() {
    let mut book = with_a();
    book.done(2, 1, get_and_watch("/a"), 1, data("a0", stat(1, 1, 0, 0)))
        .what(2, What::Lost)
        .done(1, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0)))
        .what(2, What::Connected { server: 2, began_us: 0 });
    let again = Op::SetWatches {
        relative: Zxid(1),
        data: vec!["/a".into()],
        exist: Vec::new(),
        child: Vec::new(),
    };
    book.ask(2, -8, again);
    let before = book.history.clone();
    book.fired(2, EventType::NodeDataChanged, "/a").ok(2, -8, 2, Answer::Done);
    book.is_fine();
    book.history = before;
    book.ok(2, -8, 2, Answer::Done);
    book.breaks("W1", "the reply to xid -8");
}

#[test]
fn w2_a_watch_fires_twice() {
    let mut book = with_a();
    book.done(2, 1, get_and_watch("/a"), 1, data("a0", stat(1, 1, 0, 0)))
        .done(1, 2, set("/a", "a1"), 2, Answer::Stat(stat(1, 2, 1, 0)))
        .done(1, 3, set("/a", "a2"), 3, Answer::Stat(stat(1, 3, 2, 0)))
        .fired(2, EventType::NodeDataChanged, "/a");
    book.is_fine();
    book.fired(2, EventType::NodeDataChanged, "/a");
    book.breaks("W2", "without a watch that waits for it");
}

#[test]
fn w2_a_watch_fires_for_nothing() {
    let mut book = with_a();
    book.done(2, 1, get_and_watch("/a"), 1, data("a0", stat(1, 1, 0, 0))).fired(
        2,
        EventType::NodeDataChanged,
        "/a",
    );
    book.breaks("W2", "nothing changed it after 0x1");
}

#[test]
#[should_panic(expected = "twice: it is no tag")]
fn a_recorder_without_tags_is_told() {
    let mut book = with_a();
    book.ask(1, 2, set("/a", "a0"));
    drop(book.report());
}

// ---- histories of a correct server

/// A correct server with members that lag behind, and clients that lose replies.
struct Model {
    book: Book,
    /// The tree after each zxid.
    states: Vec<BTreeMap<String, (Bytes, Stat)>>,
    told: Vec<i64>,
    xids: Vec<i32>,
    tags: u32,
    /// How many requests of a hundred get no reply.
    lost_percent: u64,
}

const PATHS: [&str; 4] = ["/a", "/b", "/c", "/d"];

impl Model {
    fn new(sessions: usize) -> Self {
        Self {
            book: Book::sessions(sessions),
            states: vec![BTreeMap::new()],
            told: vec![0; sessions],
            xids: vec![0; sessions],
            tags: 0,
            lost_percent: 15,
        }
    }

    fn zxid(&self) -> i64 {
        i64::try_from(self.states.len()).unwrap() - 1
    }

    fn tag(&mut self) -> Bytes {
        self.tags += 1;
        tag(&format!("t{}", self.tags))
    }

    /// What `op` does to `tree` at `zxid`, or why it does not.
    fn run(
        tree: &mut BTreeMap<String, (Bytes, Stat)>,
        op: &Op,
        zxid: i64,
        session: usize,
    ) -> Result<Answer, Failure> {
        let fails = |code| Err(Failure { code, part: 0 });
        match op {
            Op::Create { path, data, ephemeral, .. } => {
                if tree.contains_key(path) {
                    return fails(ErrorCode::NODE_EXISTS);
                }
                let owner = if *ephemeral { i64::try_from(session).unwrap() } else { 0 };
                let stat = stat(zxid, zxid, 0, owner);
                tree.insert(path.clone(), (data.clone(), stat.clone()));
                Ok(Answer::Created { path: path.clone(), stat })
            }
            Op::Set { path, data, version } => {
                let Some((known, stat)) = tree.get_mut(path) else {
                    return fails(ErrorCode::NO_NODE);
                };
                if *version != -1 && *version != stat.version {
                    return fails(ErrorCode::BAD_VERSION);
                }
                known.clone_from(data);
                (stat.mzxid, stat.version) = (zxid, stat.version + 1);
                Ok(Answer::Stat(stat.clone()))
            }
            Op::Delete { path, version } => {
                let Some((_, stat)) = tree.get(path) else { return fails(ErrorCode::NO_NODE) };
                if *version != -1 && *version != stat.version {
                    return fails(ErrorCode::BAD_VERSION);
                }
                tree.remove(path);
                Ok(Answer::Done)
            }
            Op::Multi(parts) => {
                let mut copy = tree.clone();
                let mut answers = Vec::new();
                for (part, op) in parts.iter().enumerate() {
                    match Self::run(&mut copy, op, zxid, session) {
                        Ok(answer) => answers.push(answer),
                        Err(failure) => return Err(Failure { part, ..failure }),
                    }
                }
                *tree = copy;
                Ok(Answer::Multi(answers))
            }
            Op::Close => {
                let owner = i64::try_from(session).unwrap();
                tree.retain(|_, (_, stat)| stat.ephemeral_owner != owner);
                Ok(Answer::Done)
            }
            Op::Get { path, .. } => match tree.get(path) {
                Some((data, stat)) => Ok(Answer::Data { data: data.clone(), stat: stat.clone() }),
                None => fails(ErrorCode::NO_NODE),
            },
            Op::Exists { path, .. } => match tree.get(path) {
                Some((_, stat)) => Ok(Answer::Stat(stat.clone())),
                None => fails(ErrorCode::NO_NODE),
            },
            Op::Check { .. } | Op::Children { .. } | Op::Sync | Op::SetWatches { .. } => {
                Ok(Answer::Done)
            }
        }
    }

    fn draw(&mut self, prng: &mut Prng) -> Op {
        let path = (*prng.pick(&PATHS)).to_owned();
        let version = if prng.chance(50) { -1 } else { i32::try_from(prng.below(3)).unwrap() };
        match prng.below(8) {
            0 => {
                Op::Create { path, data: self.tag(), ephemeral: prng.chance(50), sequential: false }
            }
            1 | 2 => Op::Set { path, data: self.tag(), version },
            3 => Op::Delete { path, version },
            4 => Op::Multi(vec![
                Op::Set { path: "/a".into(), data: self.tag(), version: -1 },
                Op::Set { path: "/b".into(), data: self.tag(), version: -1 },
            ]),
            5 => Op::Exists { path, watch: false },
            _ => Op::Get { path, watch: false },
        }
    }

    fn step(&mut self, prng: &mut Prng) {
        let session = prng.index(self.told.len()) + 1;
        self.xids[session - 1] += 1;
        let xid = self.xids[session - 1];
        let op = self.draw(prng);
        self.book.ask(session, xid, op.clone());
        let lost = prng.chance(self.lost_percent);
        let (zxid, result) = if op.is_write() {
            if lost && prng.chance(50) {
                (0, Ok(Answer::Done)) // it never arrived
            } else {
                let zxid = self.zxid() + 1;
                let mut tree = self.states.last().unwrap().clone();
                let result = Self::run(&mut tree, &op, zxid, session);
                self.states.push(tree);
                (zxid, result)
            }
        } else {
            let behind = i64::try_from(prng.below(3)).unwrap();
            let zxid = (self.zxid() - behind).max(self.told[session - 1]);
            let mut tree = self.states[usize::try_from(zxid).unwrap()].clone();
            (zxid, Self::run(&mut tree, &op, zxid, session))
        };
        if lost {
            self.book.what(session, What::Lost);
            self.book.what(session, What::Connected { server: 1, began_us: self.book.now_us });
        } else {
            self.told[session - 1] = zxid;
            self.book.what(session, What::Reply { xid, zxid: Zxid(zxid), result });
        }
    }
}

#[test]
fn no_history_of_a_correct_server_is_blamed() {
    property_of("no false alarm", 400, |prng| {
        let mut model = Model::new(3);
        for _ in 0..120 {
            model.step(prng);
        }
        model.book.is_fine();
    });
}

#[test]
fn a_server_that_forgets_a_write_is_caught() {
    let (mut caught, mut forgotten) = (0, 0);
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut model = Model { lost_percent: 0, ..Model::new(3) };
        for _ in 0..60 {
            model.step(&mut prng);
        }
        // The last write is undone.
        let before = model.states[model.states.len() - 2].clone();
        let last = model.states.last_mut().unwrap();
        if *last == before {
            continue; // it was refused
        }
        *last = before;
        for _ in 0..60 {
            model.step(&mut prng);
        }
        forgotten += 1;
        caught += u32::from(!model.book.report().violations.is_empty());
    }
    // A set that nobody read before somebody deleted the znode is not missed.
    assert!(forgotten > 50 && caught * 20 >= forgotten * 19, "{caught} of {forgotten} caught");
}
