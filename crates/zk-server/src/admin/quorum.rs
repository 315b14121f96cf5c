//! What a member of an ensemble tells about the ensemble: its role, its learners, how it got there.
//!
//! The core tells how it stands ([`PeerStatus`]); what happened over time is learned by looking at that
//! often ([`run`]): no step of the protocol pays for a metric.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value as Json, json};
use zk_processor::Histogram;
use zk_proto::quorum::PeerState;
use zk_proto::{ServerId, Zxid};
use zk_zab::{LearnerPhase, LearnerStatus, PeerStatus};

use crate::context::Context;
use crate::membership::InForce;
use crate::version::BANNER;

/// How often the member is looked at: a state that lasts shorter may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How this server stands in its ensemble; `None` when it is alone.
pub(super) fn standing(context: &Context) -> Option<PeerStatus> {
    context.config.member_id().map(|_| context.node.quorum_status())
}

/// Whether clients are served by a quorum.
pub(super) fn is_serving(standing: Option<&PeerStatus>) -> bool {
    standing.is_none_or(|status| status.serving)
}

/// Whether reads are served without a quorum.
pub(super) fn is_read_only(context: &Context, standing: Option<&PeerStatus>) -> bool {
    !is_serving(standing) && context.node.is_read_only()
}

/// What `Mode:` and `zk_server_state` say of a server that serves (`ZooKeeperServer.getState`).
pub(super) fn mode(standing: Option<&PeerStatus>, read_only: bool) -> &'static str {
    if read_only {
        return "read-only";
    }
    match standing.map(|status| status.state) {
        None => "standalone",
        Some(PeerState::Looking) => "leaderelection",
        Some(PeerState::Leading) => "leader",
        Some(PeerState::Following) => "follower",
        Some(PeerState::Observing) => "observer",
    }
}

/// What `zk_peer_state` says (`QuorumPeer.getDetailedPeerState`).
pub(super) fn peer_state(status: &PeerStatus) -> String {
    let state = state_name(status.state);
    match status.state {
        PeerState::Looking => state.into(),
        PeerState::Leading | PeerState::Following | PeerState::Observing => {
            let phase = if status.serving { "broadcast" } else { "synchronization" };
            format!("{state} - {phase}")
        }
    }
}

fn state_name(state: PeerState) -> &'static str {
    match state {
        PeerState::Looking => "looking",
        PeerState::Leading => "leading",
        PeerState::Following => "following",
        PeerState::Observing => "observing",
    }
}

/// The learners of a leader, counted as upstream does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Learners {
    /// All of them, whatever they are doing.
    pub(super) all: usize,
    /// Those that take part and are no observers.
    pub(super) synced_followers: usize,
    /// Those among them that have no vote.
    pub(super) synced_non_voting: usize,
    /// Observers that take part.
    pub(super) synced_observers: usize,
}

impl Learners {
    pub(super) fn count(learners: &[LearnerStatus], in_force: &InForce) -> Self {
        let mut count = Self { all: learners.len(), ..Self::default() };
        let synced = learners.iter().filter(|learner| learner.phase == LearnerPhase::Broadcast);
        for learner in synced {
            if !learner.voter && in_force.members.observers.contains(&learner.id) {
                count.synced_observers += 1;
            } else {
                count.synced_followers += 1;
                count.synced_non_voting += usize::from(!learner.voter);
            }
        }
        count
    }
}

/// Last, least and most bytes of a leader's proposals; -1 stands for none (`BufferStats`).
pub(super) fn proposal_sizes(context: &Context) -> [i64; 3] {
    let sizes = &context.node.stats().proposal_size;
    [sizes.last(), sizes.min(), sizes.max()]
        .map(|bytes| i64::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(-1))
}

/// What happened to this server as a member.
#[derive(Debug, Default)]
pub struct QuorumCounters {
    /// Its elections, in µs.
    pub(super) election: Histogram,
    /// Catching up with the leader, in µs.
    pub(super) follower_sync: Histogram,
    /// The same of an observer.
    pub(super) observer_sync: Histogram,
    /// Times without service, in µs.
    pub(super) unavailable: Histogram,
    /// Those that ended in leading.
    pub(super) leader_unavailable: Histogram,
    seen: Mutex<Seen>,
}

/// The last look.
#[derive(Debug, Default)]
struct Seen {
    state: Option<PeerState>,
    round: i64,
    serving: bool,
    looked: u64,
    unavailable_since_ms: Option<i64>,
    leading_since_ms: Option<i64>,
    election_counted: bool,
}

impl QuorumCounters {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// How often it began to look for a leader.
    pub(super) fn looked(&self) -> u64 {
        self.seen().looked
    }

    /// Since when it leads and serves, in ms of the clock of the looks.
    pub(super) fn leading_since_ms(&self) -> Option<i64> {
        self.seen().leading_since_ms
    }

    /// Looks at the member; `now_ms` is the monotonic clock.
    pub(super) fn look(&self, status: &PeerStatus, now_ms: i64) {
        let mut seen = self.seen();
        let looking = status.state == PeerState::Looking;
        let looked_before = seen.state.is_none_or(|state| state == PeerState::Looking);
        if !looking && !looked_before && status.round != seen.round {
            // Elections take less than the time between two looks.
            seen.looked += 1;
            seen.state = Some(PeerState::Looking);
            (seen.serving, seen.election_counted, seen.leading_since_ms) = (false, false, None);
        }
        if looking && seen.state != Some(PeerState::Looking) {
            seen.looked += 1;
        }
        if looking {
            seen.election_counted = false;
        } else if !seen.election_counted {
            seen.election_counted = true;
            if seen.state.is_none() {
                seen.looked += 1; // it was over before the first look
            }
            record_ms(&self.election, status.election_ms);
        }
        let leading = status.state == PeerState::Leading && status.serving;
        if status.serving && !seen.serving {
            match status.state {
                PeerState::Following => record_ms(&self.follower_sync, status.sync_ms),
                PeerState::Observing => record_ms(&self.observer_sync, status.sync_ms),
                PeerState::Looking | PeerState::Leading => {}
            }
            // Before the first look there was nothing: the start counts from there.
            let since = seen.unavailable_since_ms.take().unwrap_or(now_ms);
            record_ms(&self.unavailable, Some(now_ms - since));
            if leading {
                record_ms(&self.leader_unavailable, Some(now_ms - since));
            }
        } else if !status.serving && seen.unavailable_since_ms.is_none() {
            seen.unavailable_since_ms = Some(now_ms);
        }
        if leading {
            seen.leading_since_ms.get_or_insert(now_ms);
        } else {
            seen.leading_since_ms = None;
        }
        seen.state = Some(status.state);
        seen.round = status.round;
        seen.serving = status.serving;
    }
}

fn record_ms(histogram: &Histogram, ms: Option<i64>) {
    if let Some(ms) = ms {
        histogram.record(u64::try_from(ms).unwrap_or_default().saturating_mul(1000));
    }
}

/// Looks at a member for as long as it runs. Ends at once in a standalone server.
pub async fn run(context: Arc<Context>) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut read_only = false;
    while let Some(status) = standing(&context) {
        context.counters.quorum.look(&status, context.clock.now().mono_ms());
        if read_only != context.node.is_read_only() {
            read_only = !read_only;
            if read_only {
                let zxid = context.node.status().zxid;
                tracing::warn!(%zxid, "there is no leader: clients that want no more may read");
            } else {
                tracing::info!("no longer read-only: connections of readers were closed");
            }
        }
        interval.tick().await;
    }
}

/// The answer to `quor`: one JSON object, for `paddock quorum status`. A server answers it whether it
/// serves or not: what it knows matters most when nobody serves.
pub(super) fn quor(context: &Context, standing: Option<&PeerStatus>) -> String {
    let now_ms = context.clock.now().mono_ms();
    let mut answer = match standing {
        None => {
            let zxid = hex(context.node.status().zxid);
            json!({ "mode": "standalone", "serving": true, "delivered": zxid })
        }
        Some(status) => {
            let mode = match (status.serving, is_read_only(context, standing)) {
                (false, false) => "not serving",
                (_, read_only) => mode(standing, read_only),
            };
            member(status, mode, &context.membership.current(), now_ms)
        }
    };
    if let Some(fields) = answer.as_object_mut() {
        // As `hash` shows those of the past; a string, because JSON's numbers are doubles to many readers.
        let (zxid, digest) = context.node.read(|db| (db.tree.last_zxid(), db.tree.digest()));
        let digest =
            context.config.storage.digest_enabled.then(|| digest.cast_signed().to_string());
        fields.insert("digest".into(), digest.into());
        fields.insert("digest_zxid".into(), hex(zxid).into());
        fields.insert("version".into(), BANNER.into());
        fields.insert("disk_low".into(), context.disk_low.load(Ordering::Relaxed).into());
    }
    answer.to_string() + "\n"
}

fn member(status: &PeerStatus, mode: &str, in_force: &InForce, now_ms: i64) -> Json {
    let learner = |learner: &LearnerStatus| {
        json!({
            "id": learner.id.0,
            "voter": learner.voter,
            "phase": match learner.phase {
                LearnerPhase::Discovery => "discovery",
                LearnerPhase::Synchronization => "synchronization",
                LearnerPhase::Broadcast => "broadcast",
            },
            "acked": hex(learner.acked),
            "silent_ms": (now_ms - learner.heard_ms).max(0),
        })
    };
    let id = |id: ServerId| id.0;
    json!({
        "mode": mode,
        "serving": status.serving,
        "id": id(status.id),
        "state": state_name(status.state),
        "leader": status.leader.map(id),
        "learner_master": status.learner_master.map(id),
        "accepted_epoch": status.accepted_epoch.0,
        "current_epoch": status.current_epoch.0,
        "round": status.round,
        "last_logged": hex(status.last_logged),
        "committed": hex(status.committed),
        "delivered": hex(status.delivered),
        "outstanding": status.outstanding,
        "election_ms": status.election_ms,
        "sync_ms": status.sync_ms,
        "quorum_size": in_force.members.voters.len(),
        "learners": status.learners.iter().map(learner).collect::<Vec<_>>(),
        "membership": in_force.members.to_text(),
    })
}

fn hex(zxid: Zxid) -> String {
    format!("0x{:x}", zxid.0)
}

#[cfg(test)]
mod tests;
