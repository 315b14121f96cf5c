//! Frames of clients: what is answered at once, what waits, and what becomes a transaction.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::proto::RequestHeader;
use zk_proto::txn::{ErrorTxn, Txn};
use zk_proto::{
    DecodeError, DecodeErrorKind, ErrorCode, OpCode, Reader, Record, Request, RequestError, Xid,
};
use zk_session::Owner;

use crate::client::{Client, Pending, Phase};
use crate::connect::HANDS_OVER;
use crate::exchange::Exchange;
use crate::node::{Action, Flow, InFlight, Node, Served, Writer};
use crate::propose::Asker;
use crate::role::{Learning, Role};
use crate::stats::{Stats, Tally};
use crate::{Now, propose, writes};

/// Requests of one connection that may wait for an answer before it is not read any more. A client
/// that pipelines more is served as fast, just not buffered further.
pub(crate) const PENDING_MAX: usize = 2048;

/// Bytes of replies to one batch of frames; the frames behind wait for the next call, so that the
/// shell can send in between.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// A request header's length, in bytes.
const HEADER_LEN: usize = 8;

/// A request as it came in, decoded before any lock is taken.
struct Incoming {
    xid: Xid,
    op: OpCode,
    request: Result<Request, RequestError>,
}

impl Incoming {
    fn decode(frame: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let RequestHeader { xid, op } = RequestHeader::parse(&mut reader).ok()?;
        Some(Self { xid, op, request: Request::decode(op, &reader.take_rest()) })
    }
}

/// Whether an operation goes through prep (or, as sync, keeps the order with those that do).
pub(crate) fn is_write(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::CREATE
            | OpCode::CREATE2
            | OpCode::CREATE_CONTAINER
            | OpCode::CREATE_TTL
            | OpCode::DELETE
            | OpCode::SET_DATA
            | OpCode::SET_ACL
            | OpCode::MULTI
            | OpCode::RECONFIG
            | OpCode::SYNC
            | OpCode::CLOSE_SESSION
    )
}

/// Whether an operation makes the log grow for good: what is refused while the disk is nearly full.
/// Deletes and the end of sessions free more than they take.
pub(crate) fn grows(op: OpCode) -> bool {
    is_write(op) && !matches!(op, OpCode::DELETE | OpCode::SYNC | OpCode::CLOSE_SESSION)
}

impl Node {
    /// Frames came in from a client, without their lengths. Takes them from the front as far as they
    /// can be served now: with [`Flow::Continue`] and frames left, call again after sending what is in
    /// the outbox.
    pub fn on_frames(
        &self,
        client: &Arc<Client>,
        frames: &mut VecDeque<Bytes>,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Served {
        let flow = |flow| Served { flow, reads: 0 };
        loop {
            let mut state = client.state();
            match state.phase {
                Phase::Handshake => {
                    drop(state);
                    let Some(frame) = frames.pop_front() else { return flow(Flow::Continue) };
                    if let Err(why) = self.connect(client, &frame, now, actions) {
                        return flow(Flow::Close(why));
                    }
                }
                Phase::Connecting => {
                    state.waiting = true;
                    return flow(Flow::Wait);
                }
                Phase::Closing => {
                    frames.clear();
                    return flow(Flow::Wait);
                }
                Phase::Open => {
                    // Something is pending in either case, and whatever answers the last of it resumes.
                    let crowded = self.is_crowded() && !state.pending.is_empty();
                    if crowded || state.pending.len() >= PENDING_MAX {
                        state.waiting = true;
                        return flow(Flow::Wait);
                    }
                    drop(state);
                    return self.serve(client, frames, now, actions);
                }
            }
        }
    }

    fn serve(
        &self,
        client: &Arc<Client>,
        frames: &mut VecDeque<Bytes>,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Served {
        let mut requests = Vec::with_capacity(frames.len());
        requests.extend(frames.iter().map_while(Incoming::decode));
        let decoded = requests.len();

        let writes = requests.iter().any(|request| is_write(request.op));
        let mut writer = writes.then(|| self.writer());
        let db = self.db();
        let mut state = client.state();
        if let Some(heard) = &state.heard {
            heard.touch(now.mono_ms());
        }
        let mut tally = Tally::default();
        let mut exchange =
            Exchange { node: self, db: &db, client, state: &mut state, now, tally: &mut tally };
        let mut served = Served { flow: Flow::Continue, reads: 0 };
        let mut taken = 0;
        for (incoming, frame) in requests.into_iter().zip(&*frames) {
            if exchange.state.phase != Phase::Open || exchange.tally.reply_bytes > REPLY_BYTES_MAX {
                break;
            }
            taken += 1;
            let writer = writer.as_deref_mut();
            let result =
                self.serve_one(&mut exchange, incoming, frame, writer, &mut served, actions);
            if let Err(why) = result {
                served.flow = Flow::Close(why);
                break;
            }
        }
        if taken == decoded && frames.len() > decoded && state.phase == Phase::Open {
            served.flow = Flow::Close("a frame is too short for a request header");
        }
        state.info.received += taken as u64;
        if state.phase == Phase::Open {
            frames.drain(..taken);
        } else {
            frames.clear();
        }
        drop(state);
        drop(db);
        if let Some(writer) = &mut writer {
            self.run(writer, now, actions);
        }
        drop(writer);
        Stats::add(&self.stats.packets_received, taken as u64);
        tally.flush(&self.stats);
        served
    }

    /// # Errors
    /// Why the connection is to be closed at once.
    fn serve_one(
        &self,
        exchange: &mut Exchange<'_>,
        incoming: Incoming,
        frame: &Bytes,
        mut writer: Option<&mut Writer>,
        served: &mut Served,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), &'static str> {
        let Incoming { xid, op, request } = incoming;
        let now = exchange.now;
        if matches!(op, OpCode::AUTH | OpCode::SASL) {
            return authenticate(exchange, xid, request);
        }
        if !exchange.is_authenticated_enough() {
            exchange.refuse_unauthenticated(xid);
            return Ok(());
        }
        let fail = |err| Pending::Fail { xid, op, err, close: false, since: now };
        if let Some(writer) = &mut writer
            && matches!(writer.role, Role::ReadOnly(_))
            && is_write(op)
        {
            self.answer_read_only(writer, exchange, xid, op);
            return Ok(());
        }
        if grows(op) && !self.accepts_writes() {
            exchange.enqueue(fail(ErrorCode::SYSTEM_ERROR));
            return Ok(());
        }
        match (request, writer) {
            (Ok(request), Some(writer)) if is_write(op) => {
                if op == OpCode::CLOSE_SESSION && self.close_local(writer, exchange, xid) {
                    return Ok(());
                }
                if let Err(err) = self.check_eagerly(exchange, &request) {
                    exchange.enqueue(fail(err));
                    return Ok(());
                }
                let local = self.upgrade_if_needed(writer, exchange, &request, actions)?;
                if let Role::Learner(learning) = &mut writer.role {
                    self.forward(learning, exchange, xid, request, local, frame, actions);
                } else {
                    return self.write(writer, exchange, xid, request, local);
                }
            }
            // Nothing was prepared, but it has its zxid, as upstream has it.
            (Err(RequestError::Body(error)), Some(writer))
                if is_write(op)
                    && op != OpCode::SYNC
                    && matches!(writer.role, Role::Leader(_))
                    && unreadable(op, error).1 =>
            {
                if !writer.peer.may_propose() {
                    return Err(HANDS_OVER);
                }
                let write = Pending::Write { xid, op, local: false, since: now };
                exchange.state.pending.push_back(write);
                let session = exchange.state.session;
                let header = propose::header(writer, session, xid, OpCode::ERROR, now);
                let txn = Txn::Error(ErrorTxn { err: unreadable(op, error).0 });
                self.propose(writer, header, txn, Some(exchange.client), now);
            }
            (Ok(request), _) => {
                if exchange.state.pending.is_empty() {
                    exchange.answer(xid, &request, now);
                    served.reads += 1;
                } else {
                    exchange.state.pending.push_back(Pending::Read {
                        xid,
                        request: Box::new(request),
                        auth: Arc::clone(&exchange.state.auth),
                        since: now,
                    });
                }
            }
            // Neither is the leader asked for what it could not read.
            (Err(RequestError::Body(error)), _) => exchange.enqueue(fail(unreadable(op, error).0)),
            (Err(RequestError::UnknownOp(_)), _) => {
                let err = ErrorCode::UNIMPLEMENTED;
                // Whatever comes behind it is not looked at, and what came before is answered first.
                exchange.state.phase = Phase::Closing;
                exchange.enqueue(Pending::Fail { xid, op, err, close: true, since: now });
            }
        }
        Ok(())
    }
}

impl Node {
    /// With `enableEagerACLCheck`: what can be refused by the tree of this member (`authWriteRequest`). A
    /// client's own requests that are on their way may change that, so behind those the leader is asked
    /// all the same; upstream does not wait for them.
    ///
    /// # Errors
    /// `NO_AUTH`, `INVALID_ACL`.
    fn check_eagerly(&self, exchange: &Exchange<'_>, request: &Request) -> Result<(), ErrorCode> {
        let is_asked = self.is_member && self.config.eager_acl_check;
        if !is_asked || !exchange.state.pending.is_empty() {
            return Ok(());
        }
        writes::check_acl(&self.config.auth, &exchange.db.tree, request, &exchange.state.auth)
    }

    /// A client's write, or its sync, where they are prepared.
    fn write(
        &self,
        writer: &mut Writer,
        exchange: &mut Exchange<'_>,
        xid: Xid,
        request: Request,
        local: bool,
    ) -> Result<(), &'static str> {
        let (op, now) = (request.op(), exchange.now);
        if let Request::Sync(request) = request {
            exchange.state.pending.push_back(Pending::Write { xid, op, local, since: now });
            let origin = Arc::clone(exchange.client);
            writer.in_flight.push_back(InFlight::Sync { path: request.path, origin });
            return Ok(());
        }
        if !writer.peer.may_propose() {
            return Err(HANDS_OVER);
        }
        exchange.state.pending.push_back(Pending::Write { xid, op, local, since: now });
        if op == OpCode::CLOSE_SESSION {
            exchange.state.phase = Phase::Closing;
        }
        let asker = Asker {
            session: exchange.state.session,
            from: Owner::LOCAL,
            ids: &exchange.state.auth,
            origin: Some(exchange.client),
        };
        self.submit(writer, &exchange.db.tree, &asker, xid, request, now);
        Ok(())
    }

    /// The same where they are the leader's to prepare.
    fn forward(
        &self,
        learning: &mut Learning,
        exchange: &mut Exchange<'_>,
        xid: Xid,
        request: Request,
        local: bool,
        frame: &Bytes,
        actions: &mut dyn FnMut(Action),
    ) {
        let (op, since) = (request.op(), exchange.now);
        let body = frame.slice(HEADER_LEN..);
        Stats::add(&self.stats.requests_forwarded, 1);
        exchange.state.pending.push_back(Pending::Write { xid, op, local, since });
        if op == OpCode::CLOSE_SESSION {
            exchange.state.phase = Phase::Closing;
        }
        let (session, ids) = (exchange.state.session, &exchange.state.auth);
        if let Request::Sync(request) = request {
            let path = request.path;
            learning.forward_sync(session, xid, path, body, ids, exchange.client, actions);
        } else {
            learning.forward(session, xid, op, body, Some(ids), exchange.client, actions);
        }
    }
}

/// The error of a request whose body is not of its form, and whether the attempt has a zxid where
/// writes are prepared. Upstream takes the zxid when it has read the body: what it finds missing
/// afterwards has one. A multi has one in any case, but for a create whose ACL is null.
fn unreadable(op: OpCode, error: DecodeError) -> (ErrorCode, bool) {
    let is_null = error.kind == DecodeErrorKind::Null;
    match op {
        OpCode::MULTI => (ErrorCode::MARSHALLING_ERROR, !is_null || error.field != "acl"),
        OpCode::SET_DATA | OpCode::SET_ACL if is_null => (ErrorCode::BAD_ARGUMENTS, true),
        // Nobody watches what has no name.
        OpCode::REMOVE_WATCHES | OpCode::CHECK_WATCHES if is_null => (ErrorCode::NO_WATCHER, false),
        OpCode(_) => (ErrorCode::MARSHALLING_ERROR, is_null),
    }
}

/// Whoever a client is, it says so out of turn: this counts for what it sends afterwards.
fn authenticate(
    exchange: &mut Exchange<'_>,
    xid: Xid,
    request: Result<Request, RequestError>,
) -> Result<(), &'static str> {
    match request {
        Ok(Request::Auth(packet)) => {
            exchange.authenticate(xid, &packet.scheme, packet.auth.as_deref())
        }
        Ok(Request::Sasl(request)) if request.token.is_some() => {
            exchange.answer_sasl(xid);
            Ok(())
        }
        Ok(Request::Sasl(_)) => Err("a SASL request without a token"),
        // No scheme has this name.
        Err(RequestError::Body(error)) if error.kind == DecodeErrorKind::Null => {
            exchange.authenticate(xid, "", None)
        }
        Ok(_) | Err(_) => Err("an authentication request that cannot be decoded"),
    }
}
