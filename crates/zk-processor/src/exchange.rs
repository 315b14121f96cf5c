//! One connection, locked together with the tree: here its requests are answered.

use std::sync::Arc;

use zk_proto::acl::Id;
use zk_proto::proto::{SetSaslResponse, SyncResponse};
use zk_proto::txn::LoggedTxn;
use zk_proto::{ErrorCode, OpCode, Record, Request, Xid, Zxid};
use zk_tree::{Database, Outcome};

use crate::Now;
use crate::auth::AuthOutcome;
use crate::client::{Client, ClientState, Pending, Phase};
use crate::node::Node;
use crate::reads::Read;
use crate::reply;
use crate::serve::PENDING_MAX;
use crate::stats::{Stats, Tally};

/// Both locks are held, the tree's and the connection's: a reply, the zxid in it and the watch that
/// came with it are of one moment.
pub(crate) struct Exchange<'a> {
    pub(crate) node: &'a Node,
    pub(crate) db: &'a Database,
    pub(crate) client: &'a Arc<Client>,
    pub(crate) state: &'a mut ClientState,
    pub(crate) now: Now,
    pub(crate) tally: &'a mut Tally,
}

/// Whether a write failed because it came through somebody who is not its session's owner any more.
fn has_moved(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Error(err) => *err == ErrorCode::SESSION_MOVED,
        Outcome::Multi(outcomes) => outcomes.iter().any(has_moved),
        Outcome::Done | Outcome::Stat(_) => false,
    }
}

/// The leader knows nothing of a local session, and says of its ephemeral znode that the session has
/// expired. The client is told the reason. (One of upstream's followers does so except in a multi.)
fn refused_as_local(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Error(ErrorCode::SESSION_EXPIRED) => {
            Outcome::Error(ErrorCode::EPHEMERAL_ON_LOCAL_SESSION)
        }
        Outcome::Multi(outcomes) => Outcome::Multi(outcomes.iter().map(refused_as_local).collect()),
        Outcome::Error(_) | Outcome::Done | Outcome::Stat(_) => outcome.clone(),
    }
}

impl Exchange<'_> {
    fn zxid(&self) -> Zxid {
        self.db.tree.last_zxid()
    }

    /// Answers a read from the tree as it is.
    pub(crate) fn answer(&mut self, xid: Xid, request: &Request, since: Now) {
        self.answer_as(None, xid, request, since);
    }

    /// Whoever the connection was when it asked: `None` stands for whoever it is now.
    fn answer_as(&mut self, ids: Option<&[Id]>, xid: Xid, request: &Request, since: Now) {
        let read = Read {
            db: self.db,
            auth: &self.node.config.auth,
            client: self.client,
            ids: ids.unwrap_or(&self.state.auth),
            session: self.state.session,
        };
        let zxid = self.zxid();
        let xid = if matches!(request, Request::Ping) { Xid::PING } else { xid };
        let events = read.catch_up(request);
        let mut len = 0;
        self.client.outbox.push(&mut |out| {
            let start = out.len();
            reply::read(out, xid, zxid, |out| read.run(request, out));
            len = out.len() - start;
        });
        self.state.info.replied(xid, request.op(), zxid, since, self.now);
        self.tally.sent(events + 1, len);
    }

    /// Puts `pending` behind what the session waits for, or answers it at once.
    pub(crate) fn enqueue(&mut self, pending: Pending) {
        self.state.pending.push_back(pending);
        if self.state.pending.len() == 1 {
            self.drain();
        }
    }

    /// Answers what waits in the session's FIFO, up to the next write that is on its way.
    fn drain(&mut self) {
        while let Some(pending) = self.state.pending.pop_front() {
            match pending {
                write @ Pending::Write { .. } => {
                    self.state.pending.push_front(write);
                    break;
                }
                Pending::Read { xid, request, auth, since } => {
                    self.answer_as(Some(&auth), xid, &request, since);
                    self.tally.read(since, self.now);
                }
                Pending::Fail { xid, op, err, close, since } => {
                    // To upstream's answer to an unknown operation no zxid was ever given.
                    let zxid = if err == ErrorCode::UNIMPLEMENTED { Zxid(-1) } else { self.zxid() };
                    self.client.outbox.push(&mut |out| reply::empty(out, xid, zxid, err));
                    self.state.info.replied(xid, op, zxid, since, self.now);
                    self.tally.sent(1, 0);
                    self.tally.read(since, self.now);
                    if close {
                        self.close();
                    }
                }
                Pending::Close { xid, since } => {
                    let (zxid, ok) = (self.zxid(), ErrorCode::OK);
                    self.client.outbox.push(&mut |out| reply::empty(out, xid, zxid, ok));
                    self.state.info.replied(xid, OpCode::CLOSE_SESSION, zxid, since, self.now);
                    self.tally.sent(1, 0);
                    self.tally.read(since, self.now);
                    self.db.watches.remove_watcher(self.client.id);
                    self.close();
                }
            }
        }
        let left = self.state.pending.len();
        let roomy = left == 0 || (left < PENDING_MAX / 2 && !self.node.is_crowded());
        if self.state.waiting && roomy {
            self.state.waiting = false;
            self.client.outbox.resume();
        }
    }

    /// Nothing more is accepted or answered.
    fn close(&mut self) {
        self.state.phase = Phase::Closing;
        self.state.pending.clear();
        self.client.outbox.close();
    }

    /// The session's oldest request, which must be the write that took effect: whatever is in front of
    /// a write is answered at once. Nothing waits on a connection that is gone.
    fn pop_write(&mut self) -> Option<(Xid, OpCode, bool, Now)> {
        match self.state.pending.pop_front()? {
            Pending::Write { xid, op, local, since } => Some((xid, op, local, since)),
            Pending::Read { .. } | Pending::Fail { .. } | Pending::Close { .. } => {
                unreachable!("what is no write waits for nothing")
            }
        }
    }

    /// Answers a write that has been applied, and the reads that waited for it.
    pub(crate) fn complete(&mut self, txn: &LoggedTxn, outcome: &Outcome) {
        let Some((xid, op, local, since)) = self.pop_write() else { return };
        assert_eq!(xid, txn.header.cxid, "replies of {} are out of order", self.state.session);
        let refused;
        let outcome = if local {
            refused = refused_as_local(outcome);
            &refused
        } else {
            outcome
        };
        if has_moved(outcome) {
            self.give_up();
            return;
        }
        let zxid = self.zxid();
        let body = &txn.txn;
        self.client.outbox.push(&mut |out| reply::write(out, xid, zxid, op, body, outcome));
        self.state.info.replied(xid, op, zxid, since, self.now);
        self.tally.sent(1, 0);
        self.tally.update(since, self.now);
        self.drain();
    }

    /// The client has gone on to another server: what it hears here would only confuse it
    /// (ZOOKEEPER-710).
    fn give_up(&mut self) {
        Stats::add(&self.node.stats.sessions_moved, 1);
        self.close();
    }

    /// Answers a sync whose turn has come, and the reads that waited for it.
    pub(crate) fn synced(&mut self, path: Option<String>) {
        let Some((xid, op, _, since)) = self.pop_write() else { return };
        let zxid = self.zxid();
        let response = SyncResponse { path };
        self.client.outbox.push(&mut |out| {
            reply::frame(out, xid, zxid, ErrorCode::OK, |out| response.encode(out));
        });
        self.state.info.replied(xid, op, zxid, since, self.now);
        self.tally.sent(1, 0);
        self.tally.read(since, self.now);
        self.drain();
    }

    /// # Errors
    /// The connection is to be closed at once.
    pub(crate) fn authenticate(
        &mut self,
        xid: Xid,
        scheme: &str,
        auth: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        let (config, stats) = (&self.node.config.auth, &self.node.stats);
        let ensemble = scheme == "ensemble" && config.ensemble_names.is_some();
        let key = self.db.tree.find("/key").and_then(zk_tree::ZnodeRef::data);
        let err = match config.authenticate(scheme, auth, &self.client.address, key) {
            AuthOutcome::Granted(ids) => {
                if ensemble {
                    let skipped = auth.unwrap_or_default().is_empty()
                        || config.ensemble_names.as_ref().is_some_and(Vec::is_empty);
                    let counter = if skipped {
                        &stats.ensemble_auth_skip
                    } else {
                        &stats.ensemble_auth_success
                    };
                    Stats::add(counter, 1);
                }
                let mut all = self.state.auth.to_vec();
                for id in ids {
                    if !all.contains(&id) {
                        all.push(id);
                    }
                }
                self.state.auth = all.into();
                ErrorCode::OK
            }
            AuthOutcome::Failed => {
                Stats::add(&stats.auth_failures, 1);
                ErrorCode::AUTH_FAILED
            }
            AuthOutcome::WrongEnsemble => {
                Stats::add(&stats.ensemble_auth_fail, 1);
                return Err("the client belongs to another ensemble");
            }
        };
        self.answer_out_of_turn(xid, err);
        Ok(())
    }

    /// Without a SASL configuration: there is nothing to negotiate.
    pub(crate) fn answer_sasl(&mut self, xid: Xid) {
        let response = SetSaslResponse { token: None };
        self.client.outbox.push(&mut |out| {
            reply::frame(out, xid, Zxid::ZERO, ErrorCode::OK, |out| response.encode(out));
        });
        self.tally.sent(1, 0);
    }

    /// Whether the connection has an id of a scheme that is asked for
    /// (`AuthenticationHelper.enforceAuthentication`).
    pub(crate) fn is_authenticated_enough(&self) -> bool {
        let schemes = &self.node.config.enforce_auth_schemes;
        schemes.is_empty() || self.state.auth.iter().any(|id| schemes.contains(&id.scheme))
    }

    pub(crate) fn refuse_unauthenticated(&mut self, xid: Xid) {
        self.answer_out_of_turn(xid, ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH);
    }

    /// Not in the session's FIFO and without a zxid; the end, if it is an error.
    fn answer_out_of_turn(&mut self, xid: Xid, err: ErrorCode) {
        self.client.outbox.push(&mut |out| reply::empty(out, xid, Zxid::ZERO, err));
        self.tally.sent(1, 0);
        if err != ErrorCode::OK {
            self.state.phase = Phase::Closing;
            self.client.outbox.close();
        }
    }
}
