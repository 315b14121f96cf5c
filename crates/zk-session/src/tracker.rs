use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use zk_proto::{ErrorCode, ServerId, SessionId};

use crate::expiry::{ExpiryQueue, bucket};

/// Limits of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// The unit of expiry, in ms.
    pub tick_ms: i64,
    /// The shortest timeout that a client can negotiate, in ms.
    pub min_timeout_ms: i32,
    /// The longest one, in ms.
    pub max_timeout_ms: i32,
    /// The first id to give; see [`first_id`].
    pub first_id: SessionId,
}

/// The first session id of a server that starts at `start_ms` (`SessionTrackerImpl.
/// initializeNextSessionId`): 40 bits of time, and the server's id in the top byte.
#[must_use]
pub fn first_id(server_id: ServerId, start_ms: i64) -> SessionId {
    let time = start_ms.cast_unsigned() << 24 >> 8;
    let id = time.cast_signed() | (server_id.0 << 56);
    SessionId(if id == i64::MIN { id + 1 } else { id })
}

/// When a session was last heard of, shared with its connection: a touch is one store, and nobody
/// waits for the tracker.
#[derive(Debug, Clone)]
pub struct Heard(Arc<AtomicI64>);

impl Heard {
    /// Not heard of since the last look.
    const NEVER: i64 = i64::MIN;

    pub(crate) fn new(now_ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ms)))
    }

    /// The session was heard of at `now_ms`.
    pub fn touch(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }

    fn at(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it was touched since the last call.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(Self::NEVER, Ordering::Relaxed) != Self::NEVER
    }
}

/// Through whom a session's requests come: one that comes through somebody else comes from a
/// connection that the client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// The server's own connections. Among themselves they need no owner: an older one is closed when
    /// the client comes back.
    pub const LOCAL: Self = Self(0);
}

#[derive(Debug)]
struct Session {
    timeout_ms: i32,
    closing: bool,
    /// `None`: whoever comes first.
    owner: Option<Owner>,
    heard: Heard,
    /// The bucket of the queue that counts for it.
    queued: i64,
}

/// All sessions of an ensemble, as its leader (or a standalone server) keeps them.
#[derive(Debug)]
pub struct SessionTracker {
    config: SessionConfig,
    next_id: SessionId,
    sessions: BTreeMap<SessionId, Session>,
    expiry: ExpiryQueue,
}

impl SessionTracker {
    /// No sessions yet.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            config,
            next_id: config.first_id,
            sessions: BTreeMap::new(),
            expiry: ExpiryQueue::default(),
        }
    }

    /// The timeout that a client gets when it asks for `requested_ms`.
    #[must_use]
    pub fn negotiate(&self, requested_ms: i32) -> i32 {
        requested_ms.max(self.config.min_timeout_ms).min(self.config.max_timeout_ms)
    }

    /// An id that no session has had.
    pub fn next_id(&mut self) -> SessionId {
        let id = self.next_id;
        self.next_id = SessionId(id.0.wrapping_add(1));
        id
    }

    /// Follows a session from now on. One that is already followed keeps its state.
    pub fn track(&mut self, id: SessionId, timeout_ms: i32, now_ms: i64) {
        self.skip_id(id);
        if self.sessions.contains_key(&id) {
            return;
        }
        let heard = Heard::new(now_ms);
        let queued = bucket(now_ms + i64::from(timeout_ms), self.config.tick_ms);
        self.expiry.insert(queued, id);
        let session = Session { timeout_ms, closing: false, owner: None, heard, queued };
        self.sessions.insert(id, session);
    }

    /// This session exists: its id is not given to another one. It can be one that this server would
    /// give next, if the clock went back. Those behind it may have been given as well, to sessions that
    /// are closed: the ids go on with those of the millisecond after its own.
    pub fn skip_id(&mut self, id: SessionId) {
        if id.0 >> 56 == self.next_id.0 >> 56 && id >= self.next_id {
            self.next_id = SessionId(((id.0 >> 16).wrapping_add(1)) << 16);
        }
    }

    /// Follows no session any more. Ids go on.
    pub fn clear(&mut self) {
        self.sessions = BTreeMap::new();
        self.expiry = ExpiryQueue::default();
    }

    /// A client comes back to its session, or was heard of elsewhere: touches it, and from now on
    /// `timeout_ms` counts. `None` if the session is closing or gone.
    pub fn reattach(&mut self, id: SessionId, timeout_ms: i32, now_ms: i64) -> Option<Heard> {
        let session = self.sessions.get_mut(&id).filter(|session| !session.closing)?;
        session.timeout_ms = timeout_ms;
        session.heard.touch(now_ms);
        let due = bucket(now_ms + i64::from(timeout_ms), self.config.tick_ms);
        // A later bucket is found when the one that it is in is due.
        if due < session.queued {
            session.queued = due;
            self.expiry.insert(due, id);
        }
        Some(session.heard.clone())
    }

    /// Where the session's connection notes that it was heard of.
    #[must_use]
    pub fn heard(&self, id: SessionId) -> Option<Heard> {
        self.sessions.get(&id).map(|session| session.heard.clone())
    }

    /// Whether a request of this session that came through `from` may be prepared. The first one of a
    /// session without an owner makes `from` the owner.
    ///
    /// # Errors
    /// `SESSION_EXPIRED` while it is closing, `UNKNOWN_SESSION` afterwards, `SESSION_MOVED` if somebody
    /// else is the owner.
    pub fn check(&mut self, id: SessionId, from: Owner) -> Result<(), ErrorCode> {
        match self.sessions.get_mut(&id) {
            None => Err(ErrorCode::UNKNOWN_SESSION),
            Some(session) if session.closing => Err(ErrorCode::SESSION_EXPIRED),
            Some(session) => {
                let owner = *session.owner.get_or_insert(from);
                if owner == from { Ok(()) } else { Err(ErrorCode::SESSION_MOVED) }
            }
        }
    }

    /// [`Self::check`] for what belongs to a session: an unknown one has expired.
    ///
    /// # Errors
    /// `SESSION_EXPIRED` or `SESSION_MOVED`.
    pub fn check_global(&mut self, id: SessionId, from: Owner) -> Result<(), ErrorCode> {
        self.check(id, from).map_err(|err| match err {
            ErrorCode::UNKNOWN_SESSION => ErrorCode::SESSION_EXPIRED,
            other => other, // an open value
        })
    }

    /// Whether the session is there and not closing.
    #[must_use]
    pub fn is_alive(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.closing)
    }

    /// Whether the session is there, and about to end.
    #[must_use]
    pub fn is_closing(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.closing)
    }

    /// The session's timeout in ms, if it is there and not closing.
    #[must_use]
    pub fn timeout_ms(&self, id: SessionId) -> Option<i32> {
        let session = self.sessions.get(&id).filter(|session| !session.closing)?;
        Some(session.timeout_ms)
    }

    /// The session's requests come through `owner` from now on.
    pub fn set_owner(&mut self, id: SessionId, owner: Owner) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.closing) {
            session.owner = Some(owner);
        }
    }

    /// A closeSession is on its way; nothing else of this session is accepted.
    pub fn set_closing(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = true;
        }
    }

    /// The session is closed.
    pub fn remove(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// The sessions whose timeout has passed at `now_ms`; they are closing from now on.
    pub fn expire(&mut self, now_ms: i64) -> Vec<SessionId> {
        let mut expired = Vec::new();
        for (taken_from, id) in self.expiry.take_due(now_ms) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.closing || session.queued != taken_from {
                continue;
            }
            let due =
                bucket(session.heard.at() + i64::from(session.timeout_ms), self.config.tick_ms);
            if due <= now_ms {
                session.closing = true;
                expired.push(id);
            } else {
                session.queued = due;
                self.expiry.insert(due, id);
            }
        }
        expired
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sessions by the tick at which they expire if they are not heard of again, for `dump`.
    #[must_use]
    pub fn by_expiry(&self) -> BTreeMap<i64, Vec<SessionId>> {
        let mut buckets: BTreeMap<i64, Vec<SessionId>> = BTreeMap::new();
        for (id, session) in &self.sessions {
            let due = session.heard.at() + i64::from(session.timeout_ms);
            buckets.entry(bucket(due, self.config.tick_ms)).or_default().push(*id);
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(0x0100_0000_0000_0010);

    fn tracker() -> SessionTracker {
        SessionTracker::new(SessionConfig {
            tick_ms: 100,
            min_timeout_ms: 200,
            max_timeout_ms: 2000,
            first_id: A,
        })
    }

    #[test]
    fn timeouts_are_clamped() {
        let tracker = tracker();
        assert_eq!([1, 500, i32::MAX, -1].map(|ms| tracker.negotiate(ms)), [200, 500, 2000, 200]);
    }

    #[test]
    fn a_session_expires_after_its_timeout_and_within_a_tick() {
        for start in [0, 1, 99, 100, 12_345] {
            let mut tracker = tracker();
            tracker.track(A, 300, start);
            let expired_at = (start..).find(|now| !tracker.expire(*now).is_empty()).unwrap();
            assert!(expired_at > start + 300 && expired_at <= start + 400, "{start}: {expired_at}");
            assert_eq!(tracker.check(A, Owner::LOCAL), Err(ErrorCode::SESSION_EXPIRED));
            assert!(tracker.expire(expired_at + 10_000).is_empty(), "expired twice");
        }
    }

    #[test]
    fn touching_puts_expiry_off() {
        let mut tracker = tracker();
        tracker.track(A, 300, 0);
        let heard = tracker.heard(A).unwrap();
        for now in (0..5000).step_by(10) {
            heard.touch(now);
            assert!(tracker.expire(now).is_empty());
        }
        assert!(tracker.expire(5290).is_empty());
        assert_eq!(tracker.expire(5400), [A]);
    }

    #[test]
    fn coming_back_with_a_shorter_timeout_counts_from_then() {
        let mut tracker = tracker();
        tracker.track(A, 2000, 0);
        tracker.reattach(A, 200, 100).unwrap();
        assert_eq!(tracker.expire(400), [A]);
        assert!(tracker.reattach(A, 200, 400).is_none(), "an expired session came back");
        tracker.remove(A);
        assert!(tracker.reattach(A, 200, 400).is_none());
        assert_eq!(tracker.check(A, Owner::LOCAL), Err(ErrorCode::UNKNOWN_SESSION));
        assert_eq!(tracker.check_global(A, Owner::LOCAL), Err(ErrorCode::SESSION_EXPIRED));
    }

    #[test]
    fn coming_back_often_does_not_fill_the_queue() {
        let mut tracker = tracker();
        tracker.track(A, 2000, 0);
        for now in 0..100_000 {
            let timeout_ms = if now % 2 == 0 { 200 } else { 2000 };
            tracker.reattach(A, timeout_ms, now).unwrap();
            assert!(tracker.expire(now).is_empty());
            assert!(tracker.expiry.len() <= 22, "{} entries", tracker.expiry.len());
        }
        assert_eq!(tracker.expire(110_000), [A]);
        assert_eq!(tracker.expiry.len(), 0);
    }

    /// Random sessions against the definition: a session expires at the first look that is a tick or
    /// more after its timeout has passed, and never before it has.
    #[test]
    fn expiry_is_what_its_definition_says() {
        use zk_testkit::property;

        property("expiry", |prng| {
            let mut tracker = tracker();
            let mut model: BTreeMap<SessionId, (i64, i32)> = BTreeMap::new();
            let mut now = prng.edgy_i64().rem_euclid(1_000_000);
            for _ in 0..300 {
                now += i64::try_from(prng.below(60)).unwrap();
                let id = SessionId(A.0 + i64::try_from(prng.below(6)).unwrap());
                let timeout_ms = tracker.negotiate(prng.edgy_i32());
                match prng.below(6) {
                    0 => {
                        tracker.track(id, timeout_ms, now);
                        model.entry(id).or_insert((now, timeout_ms));
                    }
                    1 => {
                        let came_back = tracker.reattach(id, timeout_ms, now).is_some();
                        assert_eq!(came_back, model.contains_key(&id));
                        model.entry(id).and_modify(|session| *session = (now, timeout_ms));
                    }
                    2 => {
                        if let Some(heard) = tracker.heard(id) {
                            heard.touch(now);
                        }
                        model.entry(id).and_modify(|session| session.0 = now);
                    }
                    3 if prng.chance(20) => {
                        tracker.remove(id);
                        model.remove(&id);
                    }
                    _ => {
                        let expired = tracker.expire(now);
                        for id in &expired {
                            let (heard, timeout_ms) = model.remove(id).unwrap();
                            assert!(now > heard + i64::from(timeout_ms), "expired too early");
                            assert_eq!(
                                tracker.check(*id, Owner::LOCAL),
                                Err(ErrorCode::SESSION_EXPIRED)
                            );
                            tracker.remove(*id);
                        }
                        for (heard, timeout_ms) in model.values() {
                            assert!(now < heard + i64::from(*timeout_ms) + 100, "expired too late");
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn ids_are_never_given_twice() {
        let mut tracker = tracker();
        tracker.track(SessionId(A.0 + 5), 300, 0);
        tracker.track(SessionId(0x0200_0000_0000_0000), 300, 0);
        assert_eq!(tracker.next_id(), SessionId((A.0 | 0xffff) + 1));
        assert_eq!(tracker.next_id(), SessionId((A.0 | 0xffff) + 2));
    }

    #[test]
    fn only_its_owner_speaks_for_a_session() {
        const LINK: Owner = Owner(7);
        let mut tracker = tracker();
        tracker.track(A, 300, 0);
        assert_eq!(tracker.check(A, LINK), Ok(()), "the first one becomes the owner");
        assert_eq!(tracker.check(A, Owner::LOCAL), Err(ErrorCode::SESSION_MOVED));
        tracker.set_owner(A, Owner::LOCAL);
        assert_eq!(tracker.check_global(A, LINK), Err(ErrorCode::SESSION_MOVED));
        assert_eq!(tracker.check_global(A, Owner::LOCAL), Ok(()));
        tracker.set_closing(A);
        assert_eq!(tracker.check(A, LINK), Err(ErrorCode::SESSION_EXPIRED));
        assert!(!tracker.is_alive(A));
    }

    #[test]
    fn ids_go_on_when_everything_is_forgotten() {
        let mut tracker = tracker();
        assert_eq!(tracker.next_id(), A);
        tracker.track(A, 300, 0);
        tracker.clear();
        assert!(tracker.is_empty() && tracker.expire(10_000).is_empty());
        tracker.skip_id(SessionId(A.0 + 3));
        tracker.skip_id(SessionId(A.0 + 1));
        assert_eq!(tracker.next_id(), SessionId((A.0 | 0xffff) + 1));
    }

    #[test]
    fn the_top_byte_of_an_id_is_the_server() {
        let id = first_id(ServerId(5), 1_700_000_000_000);
        assert_eq!(id.0 >> 56, 5);
        assert_ne!(first_id(ServerId(5), 1_700_000_000_001), id);
        assert_ne!(first_id(ServerId(128), 0).0, i64::MIN);
    }
}
