//! Sessions.

use std::collections::{BTreeMap, VecDeque};

use zk_proto::txn::{Txn, TxnHeader};
use zk_proto::{SessionId, Xid, Zxid};
use zk_session::LocalSessionMode;

use super::{Verdict, fail};

/// How often a session was heard of is kept at most.
const HEARD_MAX: usize = 64;

#[derive(Debug, Default)]
struct Session {
    begun: Option<Zxid>,
    ended: Option<Zxid>,
    timeout_ms: i32,
    /// When frames of it were taken by servers that serve, in µs.
    heard: VecDeque<i64>,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    /// What becomes of new ones.
    pub(super) local: LocalSessionMode,
    sessions: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// A server took frames of the session.
    pub fn heard(&mut self, id: SessionId, now_us: i64) {
        let session = self.sessions.entry(id).or_default();
        if session.heard.len() == HEARD_MAX {
            session.heard.pop_front();
        }
        session.heard.push_back(now_us);
    }

    /// Whether a server has taken frames of the session.
    #[must_use]
    pub fn was_heard_of(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.heard.is_empty())
    }

    /// Whether all servers know, or knew, the session.
    #[must_use]
    pub fn has_begun(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.begun.is_some())
    }

    /// S7: a client came back to its local session, at the server where it lives and in the role in which it
    /// began, and was refused.
    ///
    /// # Errors
    /// The session should still be there.
    pub fn a_local_session_lives_for_its_timeout(
        &self,
        id: SessionId,
        timeout_ms: i32,
        now_us: i64,
    ) -> Verdict {
        let Some(session) = self.sessions.get(&id).filter(|session| session.begun.is_none()) else {
            return Ok(()); // it became global, or was never heard of
        };
        let Some(heard) = session.heard.back() else { return Ok(()) };
        if now_us - heard < i64::from(timeout_ms) * 1000 {
            return fail(
                "S7 a local session lives for its timeout",
                format!(
                    "session {id} with a timeout of {timeout_ms} ms was refused {} ms after it was heard of",
                    (now_us - heard) / 1000
                ),
            );
        }
        Ok(())
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn has_ended(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.ended.is_some())
    }

    /// Sessions that have begun and not ended.
    pub fn live(&self) -> impl Iterator<Item = SessionId> {
        let live = |session: &Session| session.begun.is_some() && session.ended.is_none();
        self.sessions.iter().filter(move |(_, session)| live(session)).map(|(id, _)| *id)
    }

    /// S2, S4: a transaction is committed: its session has begun and not ended.
    ///
    /// # Errors
    /// It has not begun, or it has ended, or it begins again.
    pub fn sessions_begin_once_and_end_for_ever(
        &mut self,
        header: &TxnHeader,
        txn: &Txn,
    ) -> Verdict {
        const CHECKER: &str = "S2 S4 sessions begin once and end for ever";
        let TxnHeader { client_id: id, zxid, .. } = *header;
        match txn {
            Txn::CreateSession(created) => {
                let session = self.sessions.entry(id).or_default();
                if let Some(begun) = session.begun {
                    return fail(CHECKER, format!("session {id} begins at {begun} and at {zxid}"));
                }
                session.begun = Some(zxid);
                session.timeout_ms = created.timeout_ms;
            }
            Txn::CloseSession(_) => {
                // It may expire while its client closes it: the second end changes nothing.
                let session = self.sessions.entry(id).or_default();
                if session.begun.is_none() {
                    return fail(CHECKER, format!("session {id} ends at {zxid} and never began"));
                }
                session.ended.get_or_insert(zxid);
            }
            Txn::Error(_) => {}
            // One that failed changes nothing either.
            Txn::Multi(txns) if txns.iter().any(|(_, txn)| matches!(txn, Txn::Error(_))) => {}
            Txn::Create(_)
            | Txn::CreateContainer(_)
            | Txn::CreateTtl(_)
            | Txn::Delete(_)
            | Txn::SetData(_)
            | Txn::SetAcl(_)
            | Txn::Check(_)
            | Txn::Multi(_) => match self.sessions.get(&id) {
                Some(Session { begun: Some(_), ended: None, .. }) => {}
                Some(Session { ended: Some(ended), .. }) => {
                    return fail(
                        CHECKER,
                        format!("{zxid} is of session {id}, which ended at {ended}"),
                    );
                }
                // A local session writes what is nobody's.
                Some(_) | None
                    if self.local != LocalSessionMode::Disabled && !creates_ephemeral(txn) => {}
                Some(_) | None => {
                    return fail(CHECKER, format!("{zxid} is of session {id}, which never began"));
                }
            },
        }
        Ok(())
    }

    /// S3: a session is ended by the leader after its timeout, not before. `calm_us`: since when nothing
    /// has failed; before that, who heard of it may be gone. `slack_us`: how long it takes until the
    /// leader hears what another server has heard.
    ///
    /// # Errors
    /// It is too early.
    pub fn no_session_expires_before_its_timeout(
        &self,
        header: &TxnHeader,
        now_us: i64,
        calm_us: i64,
        slack_us: i64,
    ) -> Verdict {
        if header.cxid != Xid(0) {
            return Ok(());
        }
        let Some(session) = self.sessions.get(&header.client_id) else { return Ok(()) };
        let timeout_us = i64::from(session.timeout_ms) * 1000;
        if calm_us > now_us - timeout_us - 2 * slack_us {
            return Ok(());
        }
        let heard = session.heard.iter().rev().find(|at| **at <= now_us - slack_us);
        if let Some(heard) = heard
            && now_us - heard < timeout_us - slack_us
        {
            return fail(
                "S3 no session expires before its timeout",
                format!(
                    "session {} with a timeout of {} ms expires {} ms after it was heard of",
                    header.client_id,
                    session.timeout_ms,
                    (now_us - heard) / 1000
                ),
            );
        }
        Ok(())
    }
}

fn creates_ephemeral(txn: &Txn) -> bool {
    match txn {
        Txn::Create(txn) => txn.ephemeral,
        Txn::Multi(txns) => txns.iter().any(|(_, txn)| creates_ephemeral(txn)),
        _ => false, // it creates nothing, or nothing of a session's
    }
}

/// S4, S5: what a client is given when it connects is what it asked for.
///
/// # Errors
/// It gets another session, or its own with a wrong password.
pub fn a_session_is_given_to_its_owner(
    asked: SessionId,
    right_password: bool,
    given: SessionId,
    timeout_ms: i32,
) -> Verdict {
    if timeout_ms == 0 || asked == SessionId(0) {
        return Ok(()); // refused, or new
    }
    if given != asked {
        return fail(
            "S4 no session takes the place of another",
            format!("a client asks for session {asked} and is given {given}"),
        );
    }
    if !right_password {
        return fail(
            "S5 a session is given to who knows its password",
            format!("a client gets session {asked} with a wrong password"),
        );
    }
    Ok(())
}
