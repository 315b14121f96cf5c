use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zk_proto::SessionId;

use crate::tracker::{Heard, SessionConfig, SessionTracker};

/// What becomes of new sessions in an ensemble (`localSessionsEnabled`,
/// `localSessionsUpgradingEnabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalSessionMode {
    /// They are global: every server knows them.
    #[default]
    Disabled,
    /// They are local, and stay so: no ephemeral znode can be theirs.
    Enabled,
    /// They are local until they ask for an ephemeral znode; that makes them global.
    Upgrading,
}

impl LocalSessionMode {
    /// Upgrading counts for nothing where there is nothing to upgrade.
    #[must_use]
    pub fn from_config(enabled: bool, upgrading: bool) -> Self {
        match (enabled, upgrading) {
            (false, _) => Self::Disabled,
            (true, false) => Self::Enabled,
            (true, true) => Self::Upgrading,
        }
    }
}

/// The sessions that this server alone knows, and what it must know about those of others
/// (`UpgradeableSessionTracker`, `LocalSessionTracker`).
///
/// A local session is in no log and no snapshot. It expires here, and is gone with the server's role.
#[derive(Debug)]
pub struct LocalSessions {
    mode: LocalSessionMode,
    tracker: SessionTracker,
    /// The top byte of this server's ids.
    server: i64,
    /// Global sessions that have ended a while ago at most, oldest first.
    ended: VecDeque<(i64, SessionId)>,
    ended_ids: BTreeSet<SessionId>,
    memory_ms: i64,
}

impl LocalSessions {
    /// None yet.
    #[must_use]
    pub fn new(config: SessionConfig, mode: LocalSessionMode) -> Self {
        Self {
            mode,
            tracker: SessionTracker::new(config),
            server: config.first_id.0 >> 56,
            ended: VecDeque::new(),
            ended_ids: BTreeSet::new(),
            memory_ms: config.max_timeout_ms.into(),
        }
    }

    /// What becomes of new sessions.
    #[must_use]
    pub fn mode(&self) -> LocalSessionMode {
        self.mode
    }

    /// A client has begun a session, which lives here. Its connection notes in what is returned that it
    /// was heard of.
    pub fn begin(&mut self, id: SessionId, timeout_ms: i32, now_ms: i64) -> Heard {
        self.tracker.track(id, timeout_ms, now_ms);
        self.tracker.heard(id).expect("it is followed from now on")
    }

    /// Whether the session lives here.
    #[must_use]
    pub fn contains(&self, id: SessionId) -> bool {
        self.tracker.is_alive(id)
    }

    /// A client comes back to its session, with a timeout that counts from now on. `None` if it does
    /// not live here: it may be global.
    pub fn reattach(&mut self, id: SessionId, timeout_ms: i32, now_ms: i64) -> Option<Heard> {
        self.tracker.reattach(id, timeout_ms, now_ms)
    }

    /// Where the session's connection notes that it was heard of, if it lives here.
    #[must_use]
    pub fn heard(&self, id: SessionId) -> Option<Heard> {
        self.tracker.heard(id)
    }

    /// From now on the session is none of this server's: whoever calls makes it global, with the
    /// timeout that is returned, in ms. `None` if it does not live here; so it is upgraded once.
    pub fn upgrade(&mut self, id: SessionId) -> Option<i32> {
        let timeout_ms = self.tracker.timeout_ms(id)?;
        self.tracker.remove(id);
        Some(timeout_ms)
    }

    /// The session is closed. Whether it was one of these.
    pub fn end(&mut self, id: SessionId) -> bool {
        let was_here = self.contains(id);
        self.tracker.remove(id);
        was_here
    }

    /// The sessions whose timeout has passed at `now_ms`; they are gone.
    pub fn expire(&mut self, now_ms: i64) -> Vec<SessionId> {
        while self.ended.front().is_some_and(|(at, _)| at + self.memory_ms < now_ms) {
            if let Some((_, id)) = self.ended.pop_front() {
                self.ended_ids.remove(&id);
            }
        }
        let expired = self.tracker.expire(now_ms);
        for id in &expired {
            self.tracker.remove(*id);
        }
        expired
    }

    /// A global session has ended. A leader remembers that for a while: it could not tell a request
    /// that was forwarded before its learner knew from one of a local session.
    pub fn note_ended(&mut self, id: SessionId, now_ms: i64) {
        if self.mode != LocalSessionMode::Disabled && self.ended_ids.insert(id) {
            self.ended.push_back((now_ms, id));
        }
    }

    /// Whether a global session of this id has ended, as far as is remembered.
    #[must_use]
    pub fn has_ended(&self, id: SessionId) -> bool {
        self.ended_ids.contains(&id)
    }

    /// Whether a session that a leader does not know may be a local one of another server
    /// (`LeaderSessionTracker.checkSession`).
    #[must_use]
    pub fn may_be_elsewhere(&self, id: SessionId) -> bool {
        self.mode != LocalSessionMode::Disabled && id.0 >> 56 != self.server && !self.has_ended(id)
    }

    /// How many sessions live here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// The sessions by the tick at which they expire if they are not heard of again, for `dump`.
    #[must_use]
    pub fn by_expiry(&self) -> BTreeMap<i64, Vec<SessionId>> {
        self.tracker.by_expiry()
    }

    /// The role ends, and all of them with it.
    pub fn clear(&mut self) {
        self.tracker.clear();
        self.ended = VecDeque::new();
        self.ended_ids = BTreeSet::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(0x0100_0000_0000_0010);
    const ELSEWHERE: SessionId = SessionId(0x0200_0000_0000_0010);
    /// A server id of 128 or more makes ids negative.
    const FAR: SessionId = SessionId(i64::MIN | 0x10);

    fn sessions(mode: LocalSessionMode) -> LocalSessions {
        let config =
            SessionConfig { tick_ms: 100, min_timeout_ms: 200, max_timeout_ms: 2000, first_id: A };
        LocalSessions::new(config, mode)
    }

    #[test]
    fn upgrading_needs_local_sessions() {
        assert_eq!(LocalSessionMode::from_config(false, true), LocalSessionMode::Disabled);
        assert_eq!(LocalSessionMode::from_config(true, false), LocalSessionMode::Enabled);
        assert_eq!(LocalSessionMode::from_config(true, true), LocalSessionMode::Upgrading);
    }

    #[test]
    fn a_session_is_upgraded_once_and_with_its_latest_timeout() {
        let mut sessions = sessions(LocalSessionMode::Upgrading);
        sessions.begin(A, 300, 0);
        sessions.reattach(A, 500, 10).unwrap();
        assert!(sessions.contains(A));
        assert_eq!(sessions.upgrade(A), Some(500));
        assert_eq!(sessions.upgrade(A), None);
        assert!(!sessions.contains(A) && sessions.reattach(A, 300, 20).is_none());
        assert!(sessions.expire(10_000).is_empty(), "it is the leader's to expire now");
        assert!(!sessions.end(A));
    }

    #[test]
    fn a_session_expires_here_and_is_gone() {
        let mut sessions = sessions(LocalSessionMode::Enabled);
        let heard = sessions.begin(A, 300, 0);
        heard.touch(1000);
        assert!(sessions.expire(1290).is_empty());
        assert_eq!(sessions.expire(1400), [A]);
        assert!(sessions.is_empty() && sessions.reattach(A, 300, 1400).is_none());
        sessions.begin(A, 300, 2000);
        assert!(sessions.end(A) && !sessions.end(A));
    }

    #[test]
    fn who_is_unknown_may_be_another_servers_session_unless_it_has_ended() {
        let mut sessions = sessions(LocalSessionMode::Enabled);
        assert!(sessions.may_be_elsewhere(ELSEWHERE) && sessions.may_be_elsewhere(FAR));
        assert!(!sessions.may_be_elsewhere(A), "it would be here");
        sessions.note_ended(ELSEWHERE, 100);
        sessions.note_ended(ELSEWHERE, 150);
        assert!(!sessions.may_be_elsewhere(ELSEWHERE) && sessions.may_be_elsewhere(FAR));
        sessions.expire(2100);
        assert!(sessions.has_ended(ELSEWHERE));
        sessions.expire(2101);
        assert!(!sessions.has_ended(ELSEWHERE) && sessions.ended.is_empty());
        sessions.note_ended(ELSEWHERE, 3000);
        sessions.clear();
        assert!(!sessions.has_ended(ELSEWHERE));
    }

    #[test]
    fn without_local_sessions_who_is_unknown_is_nobody() {
        let mut sessions = sessions(LocalSessionMode::Disabled);
        assert!(!sessions.may_be_elsewhere(ELSEWHERE));
        sessions.note_ended(ELSEWHERE, 0);
        assert!(sessions.ended.is_empty(), "it costs nothing");
    }
}
