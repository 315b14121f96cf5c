//! What a leader does for its learners: it prepares what they forward, and keeps their sessions.

use zk_proto::acl::Id;
use zk_proto::quorum::{
    ForwardedRequest, PacketType, QuorumPacket, SessionTimeout, SessionValid,
    decode_touched_sessions,
};
use zk_proto::txn::{CreateSessionTxn, ErrorTxn, Txn};
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Zxid};
use zk_session::Owner;
use zk_zab::LinkId;

use crate::node::{Action, InFlight, Node, Writer};
use crate::peer::packet;
use crate::propose::Asker;
use crate::role::{Leading, Role};
use crate::serve::{grows, is_write};
use crate::stats::Stats;
use crate::{Now, propose};

/// A packet that cannot be read.
pub(crate) struct Unreadable;

/// Who a link is to the sessions.
fn owner(link: LinkId) -> Owner {
    Owner(link.0.wrapping_add(1))
}

fn sync_packet() -> QuorumPacket {
    packet(PacketType::SYNC, Zxid::ZERO, None)
}

impl Leading {
    /// A packet was sent. With a commit it is the turn of the syncs that wait for it, before the next
    /// one: learners match their requests with what comes back by its order.
    pub(crate) fn sent(
        &mut self,
        link: LinkId,
        packet_type: PacketType,
        zxid: Zxid,
        actions: &mut dyn FnMut(Action),
    ) {
        let commits = matches!(
            packet_type,
            PacketType::COMMIT
                | PacketType::COMMIT_AND_ACTIVATE
                | PacketType::INFORM
                | PacketType::INFORM_AND_ACTIVATE
        );
        if self.syncs.is_empty() || !commits {
            return;
        }
        let Some(syncs) = self.syncs.get_mut(&link) else { return };
        while syncs.front().is_some_and(|after| *after <= zxid) {
            syncs.pop_front();
            actions(Action::Send { link, packet: sync_packet() });
        }
        if syncs.is_empty() {
            self.syncs.remove(&link);
        }
    }

    /// A learner's sync waits for what was proposed before it (`Leader.processSync`).
    fn sync(&mut self, link: LinkId, committed: Zxid, actions: &mut dyn FnMut(Action)) {
        if self.last_txn <= committed {
            actions(Action::Send { link, packet: sync_packet() });
        } else {
            let syncs = self.syncs.entry(link).or_default();
            syncs.push_back(self.last_txn);
        }
    }
}

impl Node {
    /// A learner's packet for the request layer.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn on_learner_packet(
        &self,
        writer: &mut Writer,
        link: LinkId,
        packet: QuorumPacket,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), Unreadable> {
        let data = packet.data.unwrap_or_default();
        match packet.packet_type {
            PacketType::REQUEST => {
                let request = ForwardedRequest::decode(&data).map_err(|_| Unreadable)?;
                let ids = packet.authinfo.unwrap_or_default();
                self.on_request(writer, link, request, &ids, now, actions);
            }
            PacketType::REVALIDATE => {
                let asked = SessionTimeout::decode(&data).map_err(|_| Unreadable)?;
                self.on_revalidate(writer, link, asked, now);
            }
            PacketType::PING => {
                for touched in decode_touched_sessions(&data).map_err(|_| Unreadable)? {
                    let SessionTimeout { session_id, timeout_ms } = touched;
                    writer.sessions.reattach(session_id, timeout_ms, now.mono_ms());
                }
            }
            _ => {} // nothing else comes here: see `zk_zab::Action::Pass`
        }
        Ok(())
    }

    fn on_request(
        &self,
        writer: &mut Writer,
        link: LinkId,
        request: ForwardedRequest,
        ids: &[Id],
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        Stats::add(&self.stats.learner_requests, 1);
        let ForwardedRequest { session_id: session, cxid: xid, op, body } = request;
        if op == OpCode::SYNC {
            let committed = writer.peer.committed();
            if let Role::Leader(leading) = &mut writer.role {
                leading.sync(link, committed, actions);
            }
            return;
        }
        // The learner's clients are closed when this server steps down, which it does by itself.
        if !writer.peer.may_propose() {
            return;
        }
        let fail = |writer: &mut Writer, err| {
            let header = propose::header(writer, session, xid, OpCode::ERROR, now);
            self.propose(writer, header, Txn::Error(ErrorTxn { err }), None, now);
        };
        match op {
            OpCode::CREATE_SESSION => {
                let Ok(created) = CreateSessionTxn::decode(&body) else {
                    return fail(writer, ErrorCode::MARSHALLING_ERROR);
                };
                // A local session that becomes global may do so too late (or, at one of upstream's
                // learners, twice): nothing would end it again.
                if writer.sessions.is_closing(session) || writer.local.has_ended(session) {
                    return fail(writer, ErrorCode::SESSION_EXPIRED);
                }
                writer.sessions.track(session, created.timeout_ms, now.mono_ms());
                writer.sessions.set_owner(session, owner(link));
                let header = propose::header(writer, session, xid, op, now);
                self.propose(writer, header, Txn::CreateSession(created), None, now);
            }
            // Upstream's learners let their clients ask for these, and wait for a transaction.
            OpCode::CHECK | OpCode::DELETE_CONTAINER => fail(writer, ErrorCode::UNIMPLEMENTED),
            op if grows(op) && !self.accepts_writes() => fail(writer, ErrorCode::SYSTEM_ERROR),
            op if is_write(op) => match Request::decode(op, &body) {
                Ok(request) => {
                    let asker = Asker { session, from: owner(link), ids, origin: None };
                    self.submit(writer, &self.db().tree, &asker, xid, request, now);
                }
                Err(_) => fail(writer, ErrorCode::MARSHALLING_ERROR),
            },
            _ => {} // from a peer: no learner waits for anything else
        }
    }

    /// A client has come to a learner with its session, or says so. It is claimed at once, and answered
    /// when what the session asked for before has taken effect.
    fn on_revalidate(&self, writer: &mut Writer, link: LinkId, asked: SessionTimeout, now: Now) {
        Stats::add(&self.stats.learner_revalidations, 1);
        let SessionTimeout { session_id: id, timeout_ms } = asked;
        if writer.sessions.reattach(id, timeout_ms, now.mono_ms()).is_some() {
            writer.sessions.set_owner(id, owner(link));
            // Upstream waits for the next request of the connection that was left.
            if let Some(left) = writer.by_session.remove(&id) {
                Stats::add(&self.stats.sessions_moved, 1);
                left.hang_up();
            }
        }
        writer.in_flight.push_back(InFlight::Revalidate { link, id });
    }

    /// The turn of a session that was asked about.
    pub(crate) fn revalidated(
        &self,
        writer: &Writer,
        link: LinkId,
        id: SessionId,
        actions: &mut dyn FnMut(Action),
    ) {
        let valid = SessionValid { session_id: id, valid: writer.sessions.is_alive(id) };
        let packet = packet(PacketType::REVALIDATE, Zxid(-1), Some(valid.to_bytes()));
        actions(Action::Send { link, packet });
    }
}
