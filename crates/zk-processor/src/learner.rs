//! What a follower or an observer does for its clients: everything but reads is the leader's to decide.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::acl::Id;
use zk_proto::quorum::{ForwardedRequest, PacketType, QuorumPacket, SessionTimeout, SessionValid};
use zk_proto::{OpCode, Record, SessionId, Xid, Zxid};

use crate::client::Client;
use crate::leader::Unreadable;
use crate::node::{Action, Node, Writer};
use crate::peer::packet;
use crate::role::{Asker, Forwarded, Learning, Role};

impl Learning {
    /// Sends a client's write to the leader.
    pub(crate) fn forward(
        &mut self,
        session: SessionId,
        xid: Xid,
        op: OpCode,
        body: Bytes,
        ids: Option<&[Id]>,
        origin: &Arc<Client>,
        actions: &mut dyn FnMut(Action),
    ) {
        let origin = Arc::clone(origin);
        self.forwarded.push_back(Forwarded::Write { session, xid, op, origin });
        self.send_request(session, xid, op, body, ids, actions);
    }

    /// Sends a client's sync to the leader.
    pub(crate) fn forward_sync(
        &mut self,
        session: SessionId,
        xid: Xid,
        path: Option<String>,
        body: Bytes,
        ids: &[Id],
        origin: &Arc<Client>,
        actions: &mut dyn FnMut(Action),
    ) {
        self.forwarded.push_back(Forwarded::Sync { path, origin: Arc::clone(origin) });
        self.sync_askers.push_back(None);
        self.send_request(session, xid, OpCode::SYNC, body, Some(ids), actions);
    }

    fn send_request(
        &self,
        session_id: SessionId,
        cxid: Xid,
        op: OpCode,
        body: Bytes,
        ids: Option<&[Id]>,
        actions: &mut dyn FnMut(Action),
    ) {
        let request = ForwardedRequest { session_id, cxid, op, body };
        let packet = QuorumPacket {
            packet_type: PacketType::REQUEST,
            zxid: Zxid(-1),
            data: Some(request.to_bytes()),
            authinfo: ids.map(<[Id]>::to_vec),
        };
        actions(Action::Send { link: self.link, packet });
    }

    /// Asks the leader whether a session is still there, and claims it.
    pub(crate) fn revalidate(
        &mut self,
        id: SessionId,
        timeout_ms: i32,
        client: &Arc<Client>,
        actions: &mut dyn FnMut(Action),
    ) {
        self.revalidations.push_back((id, Asker::Client(Arc::clone(client))));
        self.behind.remove(&id);
        let asked = SessionTimeout { session_id: id, timeout_ms };
        let packet = packet(PacketType::REVALIDATE, Zxid(-1), Some(asked.to_bytes()));
        actions(Action::Send { link: self.link, packet });
    }
}

impl Node {
    /// The leader's packet for the request layer.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn on_leader_packet(
        &self,
        writer: &mut Writer,
        packet: QuorumPacket,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), Unreadable> {
        let Role::Learner(learning) = &mut writer.role else { return Ok(()) };
        match packet.packet_type {
            PacketType::SYNC => match learning.sync_askers.pop_front() {
                Some(Some(link)) => actions(Action::Send { link, packet }),
                // [`Self::apply_due`] does what follows from it.
                Some(None) | None => learning.syncs_granted += 1,
            },
            PacketType::REVALIDATE => {
                let data = packet.data.clone().unwrap_or_default();
                let answer = SessionValid::decode(&data).map_err(|_| Unreadable)?;
                self.on_revalidated(writer, answer, packet, actions);
            }
            PacketType::PING => {
                let mut data = bytes::BytesMut::new();
                learning.touches.take(|session_id, timeout_ms| {
                    SessionTimeout { session_id, timeout_ms }.encode(&mut data);
                });
                let packet = QuorumPacket { data: Some(data.freeze()), ..packet };
                actions(Action::Send { link: learning.link, packet });
            }
            _ => {} // nothing else comes here: see `zk_zab::Action::Pass`
        }
        Ok(())
    }

    fn on_revalidated(
        &self,
        writer: &mut Writer,
        answer: SessionValid,
        packet: QuorumPacket,
        actions: &mut dyn FnMut(Action),
    ) {
        let SessionValid { session_id: id, valid } = answer;
        let after = writer.peer.committed();
        let Role::Learner(learning) = &mut writer.role else { return };
        let Some(index) = learning.revalidations.iter().position(|(asked, _)| *asked == id) else {
            return; // an answer to nothing
        };
        let client = match learning.revalidations.remove(index) {
            Some((_, Asker::Client(client))) => client,
            Some((_, Asker::Observer(link))) => return actions(Action::Send { link, packet }),
            None => return,
        };
        if valid {
            learning.forwarded.push_back(Forwarded::Reattach { id, origin: client, after });
        } else {
            self.refuse(&client, &mut client.state());
        }
    }
}
