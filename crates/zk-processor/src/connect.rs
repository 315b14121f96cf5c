//! Sessions begin, move and expire; containers go.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::txn::{CreateSessionTxn, Txn};
use zk_proto::{OpCode, Reader, Record, SessionId, Xid};
use zk_session::{check_password, password};

use crate::client::{Client, ClientState, Phase};
use crate::node::{Action, InFlight, Node, Writer};
use crate::stats::Stats;
use crate::{Now, propose, reaper, reply, writes};

/// Sessions that expire, or containers that go, under one hold of the writer's lock.
const EXPIRY_BATCH: usize = 64;

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
        if request.last_zxid_seen > self.db().tree.last_zxid() {
            return Err("the client has seen a zxid that this server has not reached");
        }
        let timeout_ms = writer.sessions.negotiate(request.timeout_ms);
        let mut state = client.state();
        state.info.received += 1;
        state.read_only = request.read_only;
        state.timeout_ms = timeout_ms;
        state.phase = Phase::Connecting;
        if request.session_id.0 == 0 {
            let id = writer.sessions.next_id();
            writer.sessions.track(id, timeout_ms, now.mono_ms());
            state.session = id;
            state.heard = writer.sessions.heard(id);
            drop(state);
            writer.by_session.insert(id, Arc::clone(client));
            let header = propose::header(&writer, id, Xid(0), OpCode::CREATE_SESSION, now);
            let txn = Txn::CreateSession(CreateSessionTxn { timeout_ms });
            self.propose(&mut writer, header, txn, Some(client), actions);
        } else {
            drop(state);
            self.take_up(&mut writer, client, &request, now);
            self.deliver_waiting(&mut writer, now);
        }
        self.note_outstanding(&writer);
        Ok(())
    }

    /// A client comes back to its session.
    fn take_up(
        &self,
        writer: &mut Writer,
        client: &Arc<Client>,
        request: &ConnectRequest,
        now: Now,
    ) {
        let id = request.session_id;
        Stats::add(&self.stats.revalidations, 1);
        // The old connection goes before the password is looked at, as upstream has it: it is the same
        // client in all likelihood, and a wrong guess costs it no more than a reconnect.
        if let Some(old) = writer.by_session.remove(&id) {
            old.state().phase = Phase::Closing;
            old.outbox.close();
        }
        let mut state = client.state();
        let given = request.password.as_deref().unwrap_or_default();
        let heard = check_password(id, given)
            .then(|| writer.sessions.reattach(id, state.timeout_ms, now.mono_ms()))
            .flatten();
        if heard.is_none() {
            self.refuse(client, &mut state);
            return;
        }
        state.session = id;
        state.heard = heard;
        drop(state);
        writer.by_session.insert(id, Arc::clone(client));
        writer.in_flight.push_back(InFlight::Reattach { id, origin: Arc::clone(client) });
    }

    /// What the session's earlier connections asked for has been applied.
    pub(crate) fn reattached(&self, writer: &Writer, client: &Client, id: SessionId) {
        let mut state = client.state();
        if state.phase != Phase::Connecting {
            return; // gone again
        }
        if writer.sessions.check(id).is_ok() {
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

    fn connected(&self, client: &Client, state: &mut ClientState, id: SessionId) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: state.timeout_ms,
            session_id: id,
            password: Some(Bytes::copy_from_slice(&password(id))),
            read_only: state.read_only.map(|_| false),
        };
        state.phase = Phase::Open;
        self.say_hello(client, state, &response);
        if state.waiting {
            state.waiting = false;
            client.outbox.resume();
        }
    }

    /// The session is not there any more, or is not this client's.
    fn refuse(&self, client: &Client, state: &mut ClientState) {
        let response = ConnectResponse::expired(state.read_only.map(|_| false));
        state.phase = Phase::Closing;
        self.say_hello(client, state, &response);
        client.outbox.close();
    }

    fn say_hello(&self, client: &Client, state: &mut ClientState, response: &ConnectResponse) {
        client.outbox.push(&mut |out| reply::connect(out, response));
        state.info.sent += 1;
        Stats::add(&self.stats.packets_sent, 1);
    }

    /// Time has passed: sessions expire, containers go. To be called a few times in each tick.
    pub fn on_tick(&self, now: Now, actions: &mut dyn FnMut(Action)) {
        // Looked for without the writer's lock: that may take a while.
        let due = self.reaper().due(&self.config, now, || {
            reaper::candidates(&self.config, &self.db().tree, now.wall_ms)
        });
        let expired = self.writer().sessions.expire(now.mono_ms());
        Stats::add(&self.stats.sessions_expired, expired.len() as u64);
        // After a partition there may be very many: others get their turn in between.
        for ids in expired.chunks(EXPIRY_BATCH) {
            let mut writer = self.writer();
            for id in ids {
                // From here on its requests are dropped, as upstream does.
                if let Some(client) = writer.by_session.get(id) {
                    client.state().phase = Phase::Closing;
                }
                let op = OpCode::CLOSE_SESSION;
                self.submit_internal(&mut writer, *id, op, now, actions, |prep| {
                    Ok(writes::close_session::prepare(prep))
                });
            }
            self.note_outstanding(&writer);
        }
        for paths in due.chunks(EXPIRY_BATCH) {
            let mut writer = self.writer();
            for path in paths {
                let op = OpCode::DELETE_CONTAINER;
                if self.submit_internal(&mut writer, SessionId(0), op, now, actions, |prep| {
                    writes::delete::prepare_container(prep, path.clone())
                }) {
                    Stats::add(&self.stats.containers_deleted, 1);
                }
            }
            self.note_outstanding(&writer);
        }
    }
}
