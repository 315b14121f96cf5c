//! What a follower does for the observers behind it: it hands on what they ask the leader for, and the
//! leader's answers (`ObserverMaster` upstream).
//!
//! To the leader all of this is the follower's own, so it cannot tell when a session has moved from one
//! of these observers to another, or to the follower itself. The follower can: what comes late from
//! where the session was has no effect.

use zk_proto::proto::DeleteRequest;
use zk_proto::quorum::{
    ForwardedRequest, PacketType, QuorumPacket, SessionTimeout, decode_touched_sessions,
};
use zk_proto::{OpCode, Record, SessionId};
use zk_zab::LinkId;

use crate::Now;
use crate::connect::close_old_connection;
use crate::leader::Unreadable;
use crate::node::{Action, Node, Writer};
use crate::role::{Asker, Role};
use crate::stats::Stats;

/// A request that the leader can only fail, in the place of this one, with whose session and number it
/// comes back. One that cannot be read would not do: upstream's leader makes no transaction of that, and
/// the observer would wait for ever.
fn spoilt(request: &ForwardedRequest) -> ForwardedRequest {
    let ForwardedRequest { session_id, cxid, .. } = *request;
    let body = DeleteRequest { path: "/".into(), version: -1 }.to_bytes();
    ForwardedRequest { session_id, cxid, op: OpCode::DELETE, body }
}

impl Node {
    /// An observer's packet for the request layer.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn on_observer_packet(
        &self,
        writer: &mut Writer,
        link: LinkId,
        packet: QuorumPacket,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) -> Result<(), Unreadable> {
        let data = packet.data.clone().unwrap_or_default();
        match packet.packet_type {
            PacketType::REQUEST => {
                let request = ForwardedRequest::decode(&data).map_err(|_| Unreadable)?;
                self.on_observer_request(writer, link, &request, packet, actions);
            }
            PacketType::REVALIDATE => {
                let asked = SessionTimeout::decode(&data).map_err(|_| Unreadable)?;
                let id = asked.session_id;
                close_old_connection(writer, id);
                let Role::Learner(learning) = &mut writer.role else { return Ok(()) };
                learning.touches.detach(id);
                learning.behind.insert(id, link);
                learning.revalidations.push_back((id, Asker::Observer(link)));
                actions(Action::Send { link: learning.link, packet });
            }
            PacketType::PING => {
                let touched = decode_touched_sessions(&data).map_err(|_| Unreadable)?;
                let Role::Learner(learning) = &mut writer.role else { return Ok(()) };
                for SessionTimeout { session_id, timeout_ms } in touched {
                    learning.touches.touch(session_id, timeout_ms, now.mono_ms());
                }
            }
            _ => {} // nothing else comes here: see `zk_zab::Action::Pass`
        }
        Ok(())
    }

    fn on_observer_request(
        &self,
        writer: &mut Writer,
        link: LinkId,
        request: &ForwardedRequest,
        packet: QuorumPacket,
        actions: &mut dyn FnMut(Action),
    ) {
        let id = request.session_id;
        let is_here = writer.by_session.contains_key(&id);
        let Role::Learner(learning) = &mut writer.role else { return };
        Stats::add(&self.stats.requests_forwarded, 1);
        let leader = learning.link;
        if request.op == OpCode::SYNC {
            learning.sync_askers.push_back(Some(link));
            return actions(Action::Send { link: leader, packet });
        }
        let has_moved = is_here || learning.behind.get(&id).is_some_and(|owner| *owner != link);
        if has_moved {
            let data = Some(spoilt(request).to_bytes());
            return actions(Action::Send { link: leader, packet: QuorumPacket { data, ..packet } });
        }
        learning.behind.insert(id, link);
        actions(Action::Send { link: leader, packet });
    }
}

/// Forgets an observer whose link is gone.
pub(crate) fn forget(behind: &mut hashbrown::HashMap<SessionId, LinkId>, link: LinkId) {
    behind.retain(|_, owner| *owner != link);
}
