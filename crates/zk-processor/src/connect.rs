//! Sessions begin, move and expire; containers go.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::txn::{CreateSessionTxn, Txn};
use zk_proto::{OpCode, Reader, Record, SessionId, Xid, Zxid};
use zk_session::{LocalSessionMode, Owner, check_password, password};
use zk_zab::Input;

use crate::client::{Client, ClientState, Phase};
use crate::node::{Action, InFlight, Node, Writer};
use crate::role::{Forwarded, Role};
use crate::stats::Stats;
use crate::{Now, propose, reaper, reply, writes};

/// Sessions that expire, or containers that go, under one hold of the writer's lock.
const EXPIRY_BATCH: usize = 64;

/// Why a connection is closed with its write undone.
pub(crate) const HANDS_OVER: &str =
    "the leader makes way for another one: a reconfiguration names it, or its zxids are used up";

/// A client comes back to a session: its old connection goes before the password is looked at, as upstream has it. It
/// is the same client in all likelihood, and a wrong guess costs it no more than a reconnect.
pub(crate) fn close_old_connection(writer: &mut Writer, id: SessionId) {
    if let Some(old) = writer.by_session.remove(&id) {
        old.state().phase = Phase::Closing;
        old.outbox.close();
    }
}

impl Node {
    /// The first frame of a connection.
    pub(crate) fn connect(
        &self,
        client: &Arc<Client>,
        frame: &Bytes,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), &'static str> {
        let mut reader = Reader::new(frame);
        let Ok(request) = ConnectRequest::parse(&mut reader) else {
            return Err("the first frame is no connect request");
        };
        Stats::add(&self.stats.packets_received, 1);
        Stats::add(&self.stats.connection_requests, 1);
        let mut writer = self.writer();
        if matches!(writer.role, Role::Idle) {
            Stats::add(&self.stats.closed_not_serving, 1);
            return Err("nobody is served: there is no leader with a quorum");
        }
        let read_only = matches!(writer.role, Role::ReadOnly(_));
        if read_only && request.read_only != Some(true) {
            return Err("the server is read-only, and the client wants one that can write");
        }
        if !self.has_reached(&writer, request.last_zxid_seen) {
            return Err("the client has seen a zxid that this server has not reached");
        }
        let timeout_ms = writer.sessions.negotiate(request.timeout_ms);
        let mut state = client.state();
        state.info.received += 1;
        state.read_only = request.read_only;
        state.timeout_ms = timeout_ms;
        state.phase = Phase::Connecting;
        drop(state);
        if read_only {
            return self.connect_read_only(&mut writer, client, &request, now);
        }
        if request.session_id.0 == 0 && writer.local.mode() != LocalSessionMode::Disabled {
            self.begin_local(&mut writer, client, timeout_ms, now);
        } else if request.session_id.0 == 0 {
            self.begin_session(&mut writer, client, timeout_ms, now, actions)?;
        } else {
            self.take_up(&mut writer, client, &request, timeout_ms, now, actions);
        }
        self.run(&mut writer, now, actions);
        Ok(())
    }

    /// Whether everything that a client has seen is here. The zxid that an epoch begins with stands for
    /// no transaction: some leaders show it before there is one.
    fn has_reached(&self, writer: &Writer, seen: Zxid) -> bool {
        seen <= self.db().tree.last_zxid() || (seen.counter() == 0 && seen <= writer.epoch_start)
    }

    fn begin_session(
        &self,
        writer: &mut Writer,
        client: &Arc<Client>,
        timeout_ms: i32,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), &'static str> {
        let id = writer.sessions.next_id();
        let op = OpCode::CREATE_SESSION;
        let txn = CreateSessionTxn { timeout_ms };
        let heard = match &mut writer.role {
            Role::Learner(learning) => {
                let heard = learning.touches.attach(id, timeout_ms, now.mono_ms());
                learning.forward(id, Xid(0), op, txn.to_bytes(), None, client, actions);
                Some(heard)
            }
            Role::Leader(_) => {
                if !writer.peer.may_propose() {
                    return Err(HANDS_OVER);
                }
                writer.sessions.track(id, timeout_ms, now.mono_ms());
                writer.sessions.set_owner(id, Owner::LOCAL);
                let header = propose::header(writer, id, Xid(0), op, now);
                self.propose(writer, header, Txn::CreateSession(txn), Some(client), now);
                writer.sessions.heard(id)
            }
            Role::ReadOnly(_) | Role::Idle => None,
        };
        let mut state = client.state();
        state.session = id;
        state.heard = heard;
        drop(state);
        writer.by_session.insert(id, Arc::clone(client));
        Ok(())
    }

    /// A client comes back to its session.
    fn take_up(
        &self,
        writer: &mut Writer,
        client: &Arc<Client>,
        request: &ConnectRequest,
        timeout_ms: i32,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        let id = request.session_id;
        Stats::add(&self.stats.revalidations, 1);
        close_old_connection(writer, id);
        let given = request.password.as_deref().unwrap_or_default();
        let mut state = client.state();
        if !check_password(id, given) {
            self.refuse(client, &mut state);
            return;
        }
        let local = writer.local.reattach(id, timeout_ms, now.mono_ms());
        match &mut writer.role {
            Role::Learner(learning) => {
                if local.is_some() || learning.is_creating(id) {
                    // Not before what its last connection asked for, and behind its createSession.
                    let (origin, after) = (Arc::clone(client), Zxid::ZERO);
                    learning.forwarded.push_back(Forwarded::Reattach { id, origin, after });
                } else {
                    learning.revalidate(id, timeout_ms, client, actions);
                }
                learning.touches.detach(id);
            }
            Role::Leader(_) | Role::ReadOnly(_) | Role::Idle => {
                let heard =
                    local.or_else(|| writer.sessions.reattach(id, timeout_ms, now.mono_ms()));
                if heard.is_none() {
                    self.refuse(client, &mut state);
                    return;
                }
                writer.sessions.set_owner(id, Owner::LOCAL);
                state.heard = heard;
                let origin = Arc::clone(client);
                writer.in_flight.push_back(InFlight::Reattach { id, origin });
            }
        }
        state.session = id;
        drop(state);
        writer.by_session.insert(id, Arc::clone(client));
    }

    /// What the session's earlier connections asked for has been applied.
    pub(crate) fn reattached(&self, writer: &Writer, client: &Client, id: SessionId) {
        let mut state = client.state();
        if state.phase != Phase::Connecting {
            return; // gone again
        }
        if writer.local.contains(id) || writer.sessions.is_alive(id) {
            self.connected(client, &mut state, id);
        } else {
            self.refuse(client, &mut state);
        }
    }

    pub(crate) fn session_created(&self, client: &Client, id: SessionId, txn: CreateSessionTxn) {
        let mut state = client.state();
        if state.phase != Phase::Connecting {
            return; // gone again; its session expires by itself
        }
        state.timeout_ms = txn.timeout_ms;
        self.connected(client, &mut state, id);
    }

    pub(crate) fn connected(&self, client: &Client, state: &mut ClientState, id: SessionId) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: state.timeout_ms,
            session_id: id,
            password: Some(Bytes::copy_from_slice(&password(id))),
            read_only: state.read_only.map(|_| self.is_read_only()),
        };
        state.phase = Phase::Open;
        self.say_hello(client, state, &response);
        if state.waiting {
            state.waiting = false;
            client.outbox.resume();
        }
    }

    /// The session is not there any more, or is not this client's.
    pub(crate) fn refuse(&self, client: &Client, state: &mut ClientState) {
        let response = ConnectResponse::expired(state.read_only.map(|_| self.is_read_only()));
        state.phase = Phase::Closing;
        self.say_hello(client, state, &response);
        client.outbox.close();
    }

    fn say_hello(&self, client: &Client, state: &mut ClientState, response: &ConnectResponse) {
        client.outbox.push(&mut |out| reply::connect(out, response));
        state.info.sent += 1;
        Stats::add(&self.stats.packets_sent, 1);
    }

    /// Time has passed: sessions expire, containers go, and the peer looks at its clocks. To be called
    /// every 10 ms or so in an ensemble, a few times in each tick otherwise.
    pub fn on_tick(&self, now: Now, actions: &mut dyn FnMut(Action)) {
        let (mut leads, mut reign, mut expired) = (false, 0, Vec::new());
        self.tell(now, actions, |writer| {
            writer.step(now, Input::Tick);
            leads = matches!(writer.role, Role::Leader(_));
            reign = writer.reign;
            self.expire_local(writer, now);
            // Only one who leads follows those of all servers, and a read-only server its own.
            expired = writer.sessions.expire(now.mono_ms());
            if matches!(writer.role, Role::ReadOnly(_)) {
                self.expire_read_only(writer, &expired);
            }
            self.maybe_begin_read_only(writer, now);
        });
        if !leads {
            return;
        }
        // Looked for without the writer's lock: that may take a while.
        let due = self.reaper().due(&self.config, now, || {
            reaper::candidates(&self.config, &self.db().tree, now.wall_ms)
        });
        // After a partition there may be very many: others get their turn in between, and the role may
        // change: then it is the next leader's to decide.
        for ids in expired.chunks(EXPIRY_BATCH) {
            let mut writer = self.writer();
            if writer.reign != reign {
                return;
            }
            Stats::add(&self.stats.sessions_expired, ids.len() as u64);
            for id in ids {
                // From here on its requests are dropped, as upstream does.
                if let Some(client) = writer.by_session.get(id) {
                    client.state().phase = Phase::Closing;
                }
                let op = OpCode::CLOSE_SESSION;
                self.submit_internal(&mut writer, *id, op, now, |prep| {
                    Ok(writes::close_session::prepare(prep))
                });
            }
            self.run(&mut writer, now, actions);
        }
        for paths in due.chunks(EXPIRY_BATCH) {
            let mut writer = self.writer();
            if writer.reign != reign {
                return;
            }
            for path in paths {
                let op = OpCode::DELETE_CONTAINER;
                if self.submit_internal(&mut writer, SessionId(0), op, now, |prep| {
                    writes::delete::prepare_container(prep, path.clone())
                }) {
                    Stats::add(&self.stats.containers_deleted, 1);
                }
            }
            self.run(&mut writer, now, actions);
        }
    }
}
