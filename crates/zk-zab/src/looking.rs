use tracing::{debug, warn};
use zk_proto::quorum::QuorumPacket;

use crate::LinkId;
use crate::core::Core;
use crate::leader::STRANGERS_MAX;

/// A connection that came before it is known who leads.
#[derive(Debug)]
pub(crate) struct Early {
    pub(crate) link: LinkId,
    pub(crate) since_ms: i64,
    /// The learner's first packet.
    pub(crate) info: Option<QuorumPacket>,
}

/// A server without a leader.
///
/// Who decided earlier may dial it already: those connections wait for its own decision.
#[derive(Debug)]
pub(crate) struct Looking {
    pub(crate) since_ms: i64,
    early: Vec<Early>,
}

impl Looking {
    pub(crate) fn new(core: &Core) -> Self {
        Self { since_ms: core.now_ms, early: Vec::new() }
    }

    pub(crate) fn on_link_up(&mut self, core: &mut Core, link: LinkId) {
        if self.early.len() >= STRANGERS_MAX {
            warn!(link = link.0, "too many connections of learners");
            core.close(link);
            return;
        }
        self.early.push(Early { link, since_ms: core.now_ms, info: None });
    }

    pub(crate) fn on_link_down(&mut self, link: LinkId) {
        self.early.retain(|early| early.link != link);
    }

    pub(crate) fn on_packet(&mut self, core: &mut Core, link: LinkId, packet: QuorumPacket) {
        let Some(at) = self.early.iter().position(|early| early.link == link) else { return };
        if self.early[at].info.is_none() {
            self.early[at].info = Some(packet);
        } else {
            warn!(link = link.0, packet_type = %packet.packet_type, "a learner did not wait for its turn");
            self.early.remove(at);
            core.close(link);
        }
    }

    pub(crate) fn tick(&mut self, core: &mut Core) {
        let oldest_ms = core.now_ms - core.init_limit_ms();
        self.early.retain(|early| {
            let keep = early.since_ms >= oldest_ms;
            if !keep {
                debug!(link = early.link.0, "a connection waited in vain for this server to lead");
                core.close(early.link);
            }
            keep
        });
    }

    /// The connections, for whoever comes next.
    pub(crate) fn into_early(self) -> Vec<Early> {
        self.early
    }
}
