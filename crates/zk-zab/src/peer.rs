use tracing::{error, info, warn};
use zk_proto::quorum::{Notification, PeerState};
use zk_proto::{ServerId, Zxid};

use crate::bugs::{Bug, seeded};
use crate::core::{Core, Done, Exit};
use crate::election::{Election, Standing, Vote};
use crate::leader::Leader;
use crate::learner::Learner;
use crate::looking::Looking;
use crate::rotation::jitter_ms;
use crate::{
    Action, Durable, History, Input, LinkId, Members, PeerConfig, PeerStatus, ServingRole, Token,
};

/// What a peer does.
#[derive(Debug)]
enum Role {
    Looking(Looking),
    Leading(Box<Leader>),
    Following(Box<Learner>),
    Observing(Box<Learner>),
    /// It stopped for good.
    Halted,
}

/// How long after an election that came to nothing the next one is decided, in ms: doubled up to 320
/// while that goes on.
const RETRY_MIN_MS: i64 = 10;
const RETRY_DOUBLINGS_MAX: u32 = 5;

/// A member of an ensemble, or a server on its own. See the crate's documentation.
#[derive(Debug)]
pub struct Peer {
    core: Core,
    /// `None`: a server on its own.
    election: Option<Election>,
    role: Role,
    /// Its disk does not answer.
    stuck: bool,
    last_tick_ms: i64,
    decided_ms: i64,
    /// How many elections in a row came to nothing.
    failures: u32,
    /// The next one is not decided before.
    decide_at_ms: i64,
    /// An observer that has lost its leader does not ask for one before.
    look_at_ms: Option<i64>,
    election_ms: Option<i64>,
    sync_ms: Option<i64>,
}

impl Peer {
    /// A server on its own, with everything up to `last_logged` in its log and committed: with a
    /// quorum of one, what is logged is committed.
    #[must_use]
    pub fn recover_standalone(last_logged: Zxid) -> Self {
        let id = ServerId(0);
        let members = Members { voters: [id].into(), ..Members::default() };
        let durable = Durable { applied: last_logged, ..Durable::default() };
        let core = Core::new(PeerConfig::new(id, members), durable, 0, 0);
        let leader = Leader::standalone(&core);
        Self::new(core, None, Role::Leading(Box::new(leader)))
    }

    /// A member of an ensemble, in its first election.
    #[must_use]
    pub fn member(config: PeerConfig, durable: Durable, now_ms: i64) -> Self {
        let keep = config.commit_log_count;
        let election = Election::new(&config);
        let core = Core::new(config, durable, keep, now_ms);
        let looking = Looking::new(&core);
        let mut peer = Self::new(core, Some(election), Role::Looking(looking));
        peer.core.recover_next();
        peer.core.recover_proposed();
        peer.tell_members();
        peer.start_election();
        peer.drain_notifications();
        peer
    }

    fn new(core: Core, election: Option<Election>, role: Role) -> Self {
        Self {
            last_tick_ms: core.now_ms,
            decided_ms: core.now_ms,
            failures: 0,
            decide_at_ms: core.now_ms,
            look_at_ms: None,
            core,
            election,
            role,
            stuck: false,
            election_ms: None,
            sync_ms: None,
        }
    }

    /// Takes one input; what follows from it comes out of [`Self::poll_action`]. `now_ms` is on a
    /// clock that never goes back.
    ///
    /// # Panics
    /// A proposal that is not the one behind the last one, or to a peer that does not lead.
    pub fn step(&mut self, now_ms: i64, input: Input, history: &dyn History) {
        self.core.now_ms = now_ms;
        let result = self.take(input, history);
        if let Err(exit) = result {
            self.exit(exit);
        }
        if self.election.is_some() {
            if self.tell_members() && matches!(self.role, Role::Looking(_)) {
                self.start_election();
            }
            self.follow_election(history);
            self.drain_notifications();
        }
    }

    /// Tells the election who is in the ensemble now; whether that is news.
    fn tell_members(&mut self) -> bool {
        let members = &self.core.config.members;
        let next = self.core.next.as_ref().map(|next| &next.members);
        self.election.as_mut().is_some_and(|election| election.set_members(members, next))
    }

    fn take(&mut self, input: Input, history: &dyn History) -> Result<(), Exit> {
        let core = &mut self.core;
        match input {
            Input::Propose { zxid, txn } => {
                let Role::Leading(leader) = &mut self.role else {
                    panic!("{zxid} proposed to a peer that does not lead");
                };
                leader.propose(core, zxid, txn);
                Ok(())
            }
            Input::Persisted { token } => self.on_persisted(token, history),
            Input::Packet { link, packet } => match &mut self.role {
                Role::Leading(leader) => leader.on_packet(core, link, packet, history),
                Role::Following(learner) | Role::Observing(learner) => {
                    learner.on_packet(core, link, packet, history)
                }
                Role::Looking(looking) => {
                    looking.on_packet(core, link, packet);
                    Ok(())
                }
                Role::Halted => Ok(()),
            },
            Input::Tick => self.on_tick(history),
            Input::Notification { from, notification } => self.on_notification(from, &notification),
            Input::Reachable { server, reachable } => {
                if let Some(election) = &mut self.election {
                    election.on_reachable(core.now_ms, server, reachable);
                }
                Ok(())
            }
            Input::LinkUp { link } => {
                match &mut self.role {
                    Role::Looking(_) if self.stuck => core.close(link),
                    Role::Looking(looking) => looking.on_link_up(core, link),
                    Role::Leading(leader) => leader.on_link_up(core, link, core.now_ms),
                    Role::Following(learner) | Role::Observing(learner) => {
                        learner.on_link_up(core, link);
                    }
                    Role::Halted => core.close(link),
                }
                Ok(())
            }
            Input::ObserverLinkUp { link } => {
                match &mut self.role {
                    Role::Following(learner) => learner.on_observer_link_up(core, link),
                    Role::Looking(_) | Role::Leading(_) | Role::Observing(_) | Role::Halted => {
                        core.close(link);
                    }
                }
                Ok(())
            }
            Input::LinkDown { link } => match &mut self.role {
                Role::Looking(looking) => {
                    looking.on_link_down(link);
                    Ok(())
                }
                Role::Leading(leader) => leader.on_link_down(core, link, history),
                Role::Following(learner) | Role::Observing(learner) => {
                    learner.on_link_down(core, link)
                }
                Role::Halted => Ok(()),
            },
            Input::Progress { link } => {
                match &mut self.role {
                    Role::Leading(leader) => leader.on_progress(core, link),
                    Role::Following(learner) | Role::Observing(learner) => {
                        learner.on_progress(core, link);
                    }
                    Role::Looking(_) | Role::Halted => {}
                }
                Ok(())
            }
            Input::SnapshotReceived { link, zxid, members } => match &mut self.role {
                Role::Following(learner) | Role::Observing(learner) => {
                    learner.on_snapshot(core, link, zxid, members)
                }
                Role::Leading(leader) => leader.on_snapshot(core, link, history),
                Role::Looking(_) | Role::Halted => Ok(()),
            },
        }
    }

    fn on_persisted(&mut self, token: Token, history: &dyn History) -> Result<(), Exit> {
        let core = &mut self.core;
        let was_incomplete = core.incomplete;
        let mut result = Ok(());
        while let Some(pending) = core.poll_done(token) {
            // What an earlier role asked for is on disk, and no more than that: it is no answer to
            // a leader that came later.
            if pending.generation != core.generation || result.is_err() {
                continue;
            }
            match (&mut self.role, pending.done) {
                (Role::Following(learner) | Role::Observing(learner), Done::Logged(zxid)) => {
                    learner.on_logged(core, zxid);
                }
                (Role::Following(learner) | Role::Observing(learner), Done::AcceptedEpoch(_)) => {
                    learner.on_epoch_accepted(core);
                }
                (Role::Following(learner) | Role::Observing(learner), Done::CurrentEpoch(_)) => {
                    learner.on_epoch_current(core);
                }
                (Role::Leading(leader), Done::AcceptedEpoch(_)) => {
                    result = leader.on_epoch_accepted(core, history);
                }
                (Role::Leading(leader), Done::CurrentEpoch(_)) => {
                    result = leader.on_epoch_current(core, history);
                }
                // A leader looks at the whole of its log below.
                (Role::Leading(_), Done::Logged(_))
                | (Role::Looking(_) | Role::Halted, _)
                | (_, Done::Installed | Done::Nothing) => {}
            }
        }
        match &mut self.role {
            Role::Leading(leader) => leader.maybe_commit(core),
            Role::Following(learner) | Role::Observing(learner) => {
                learner.deliver(core);
            }
            Role::Looking(_) | Role::Halted => core.deliver(),
        }
        if was_incomplete && !self.core.incomplete && matches!(self.role, Role::Looking(_)) {
            // Its leader was gone before this was on disk: it has a history now, and a vote.
            self.start_election();
        }
        if self.stuck && !self.core.disk_is_stuck() {
            warn!("the disk answers again");
            self.stuck = false;
            if let Some(election) = &mut self.election {
                election.silence(false);
            }
            if matches!(self.role, Role::Looking(_)) {
                self.start_election();
            }
        }
        result
    }

    fn on_tick(&mut self, history: &dyn History) -> Result<(), Exit> {
        let core = &mut self.core;
        let Some(election) = &mut self.election else { return Ok(()) };
        election.tick(core.now_ms);
        let since_ms = core.now_ms - self.last_tick_ms;
        self.last_tick_ms = core.now_ms;
        if since_ms > core.sync_limit_ms() {
            // Everybody else has gone on without this server.
            return match self.role {
                Role::Looking(_) | Role::Halted => Ok(()),
                Role::Leading(_) | Role::Following(_) | Role::Observing(_) => {
                    Err(Exit::Leave("the process stood still for longer than syncLimit"))
                }
            };
        }
        if !self.stuck && core.disk_is_stuck() {
            error!("the disk does not answer: no part in anything until it does");
            self.stuck = true;
            election.silence(true);
            return Err(Exit::Leave("the disk does not answer"));
        }
        if self.look_at_ms.is_some_and(|at_ms| core.now_ms >= at_ms) {
            self.start_election();
        }
        let core = &mut self.core;
        match &mut self.role {
            Role::Looking(looking) => {
                looking.tick(core);
                Ok(())
            }
            Role::Leading(leader) => leader.tick(core, history),
            Role::Following(learner) | Role::Observing(learner) => learner.tick(core, history),
            Role::Halted => Ok(()),
        }
    }

    fn on_notification(&mut self, from: ServerId, notification: &Notification) -> Result<(), Exit> {
        // A member that was away learns of the ensemble that it comes back to. A number alone is no news: the first
        // epoch gives one, and who follows its leader learns it in time (`QuorumMaj.equals` upstream).
        if self.core.config.reconfig_enabled
            && self.serving().is_none()
            && let Some(members) = notification.config.as_deref().map(Members::from_text)
            && !members.is_like(&self.core.config.members)
            && (self.core.is_member(from) || self.core.belongs_to(&members, from))
        {
            self.core.activate(members);
            if self.tell_members() {
                match self.role {
                    Role::Looking(_) => self.start_election(),
                    Role::Leading(_) | Role::Following(_) | Role::Observing(_) => {
                        return Err(Exit::Leave("another configuration is in force"));
                    }
                    Role::Halted => {}
                }
            }
        }
        if let Some(election) = &mut self.election {
            election.on_notification(self.core.now_ms, from, notification);
        }
        Ok(())
    }

    /// After each step: the election may have ended, or its result may have come to nothing.
    fn follow_election(&mut self, history: &dyn History) {
        let Some(election) = &mut self.election else { return };
        match &self.role {
            Role::Looking(_) if !self.stuck && self.core.now_ms >= self.decide_at_ms => {
                if let Some(vote) = election.decision()
                    && let Err(exit) = self.take_role(vote, history)
                {
                    self.exit(exit);
                }
            }
            Role::Leading(_) | Role::Following(_) | Role::Observing(_)
                if self.sync_ms.is_none() =>
            {
                if election.deserted() {
                    self.exit(Exit::Leave("the election came to nothing"));
                } else {
                    self.maybe_settle();
                }
            }
            Role::Looking(_)
            | Role::Halted
            | Role::Leading(_)
            | Role::Following(_)
            | Role::Observing(_) => {}
        }
    }

    /// The election is decided.
    fn take_role(&mut self, vote: Vote, history: &dyn History) -> Result<(), Exit> {
        let Some(election) = &mut self.election else { return Ok(()) };
        let core = &mut self.core;
        let Role::Looking(looking) = &mut self.role else { return Ok(()) };
        let looking = std::mem::replace(looking, Looking::new(core));
        self.decided_ms = core.now_ms;
        let took_ms = core.now_ms - looking.since_ms;
        self.election_ms = Some(took_ms);
        let lost_data = match election.standing() {
            Standing::NonVoting => true,
            // It heard of no data while it voted, but joins those that have some: what it promised to
            // other leaders may be lost with its own.
            Standing::Fresh => vote.zxid > Zxid::ZERO || vote.peer_epoch > 0,
            Standing::Voter | Standing::Observer => false,
        };
        let leads = vote.leader == core.id();
        // Who is in no configuration follows without a vote, as upstream's does before it is added.
        let observes = core.config.members.observers.contains(&core.id());
        let state = match (leads, observes) {
            (true, _) => PeerState::Leading,
            (false, false) => PeerState::Following,
            (false, true) => PeerState::Observing,
        };
        info!(leader = %vote.leader, round = vote.round, zxid = %vote.zxid, epoch = vote.peer_epoch,
            took_ms, ?state, "elected");
        election.leave(state);
        if leads {
            let mut leader =
                Box::new(Leader::new(core, election.standing() == Standing::NonVoting));
            let mut early = Vec::new();
            for link in looking.into_early() {
                leader.on_link_up(core, link.link, link.since_ms);
                early.extend(link.info.map(|info| (link.link, info)));
            }
            self.role = Role::Leading(leader);
            let Role::Leading(leader) = &mut self.role else { return Ok(()) };
            leader.maybe_propose_epoch(core, history)?;
            for (link, info) in early {
                leader.on_packet(core, link, info, history)?;
            }
            return Ok(());
        }
        for link in looking.into_early() {
            core.close(link.link);
        }
        let learner =
            Box::new(Learner::new(core, vote.leader, observes, lost_data, election.is_appointed()));
        self.role = if observes { Role::Observing(learner) } else { Role::Following(learner) };
        Ok(())
    }

    /// Once it serves, its votes name the leader's epoch.
    fn maybe_settle(&mut self) {
        let Some(election) = &mut self.election else { return };
        let (state, epoch) = match &self.role {
            Role::Leading(leader) if leader.is_serving() => {
                (PeerState::Leading, self.core.current_epoch)
            }
            Role::Following(learner) if learner.is_serving() => {
                (PeerState::Following, learner.epoch())
            }
            Role::Observing(learner) if learner.is_serving() => {
                (PeerState::Observing, learner.epoch())
            }
            Role::Looking(_)
            | Role::Halted
            | Role::Leading(_)
            | Role::Following(_)
            | Role::Observing(_) => return,
        };
        self.sync_ms = Some(self.core.now_ms - self.decided_ms);
        self.failures = 0;
        election.settle(state, epoch);
    }

    /// The role is over.
    fn exit(&mut self, exit: Exit) {
        let served = self.serving().is_some();
        let why = match &exit {
            Exit::Leave(why) => why,
            Exit::Follow(_) => "a reconfiguration names another leader",
            Exit::Halt(_) => "this server has to stop",
        };
        let observed = matches!(self.role, Role::Observing(_));
        let core = &mut self.core;
        let looking = Looking::new(core);
        let role = std::mem::replace(&mut self.role, Role::Looking(looking));
        match role {
            Role::Leading(leader) => {
                if served {
                    warn!(epoch = %core.current_epoch, zxid = %leader.last_proposed(), why,
                        "no longer LEADING");
                } else {
                    info!(why, "no longer LEADING");
                }
                for link in leader.into_links() {
                    core.close(link);
                }
            }
            Role::Following(learner) | Role::Observing(learner) => {
                learner.log_end(served, why);
                for link in learner.open_link().into_iter().chain(learner.observer_links()) {
                    core.close(link);
                }
            }
            Role::Looking(looking) => {
                for early in looking.into_early() {
                    core.close(early.link);
                }
            }
            Role::Halted => {}
        }
        if served {
            core.act(Action::StopServing { why });
        }
        core.generation += 1;
        if seeded(Bug::RetainedDatabase) {
            core.tail.truncate(core.tail.committed());
        }
        self.sync_ms = None;
        if !served {
            // What made the election come to nothing may do so again, at once.
            self.failures = self.failures.saturating_add(1);
            let wait_ms = RETRY_MIN_MS << self.failures.saturating_sub(1).min(RETRY_DOUBLINGS_MAX);
            self.decide_at_ms = core.now_ms + wait_ms;
        }
        if let Exit::Halt(why) = exit {
            error!(why, "this server has to stop");
            self.role = Role::Halted;
            if let Some(election) = &mut self.election {
                election.silence(true);
            }
            self.core.act(Action::Halt { why });
            return;
        }
        self.tell_members();
        match jitter_ms(self.core.id(), self.core.now_ms, self.core.config.election_delay_ms) {
            delay_ms if observed && delay_ms > 0 && matches!(exit, Exit::Leave(_)) => {
                self.look_at_ms = Some(self.core.now_ms + delay_ms);
            }
            _ => self.start_election(), // voters are waited for
        }
        if let (Exit::Follow(leader), Some(election)) = (exit, &mut self.election) {
            election.appoint(leader);
        }
    }

    fn start_election(&mut self) {
        self.look_at_ms = None;
        let Some(election) = &mut self.election else { return };
        let core = &self.core;
        let standing = if !core.is_voter(core.id()) {
            Standing::Observer
        } else if core.incomplete {
            Standing::Fresh
        } else {
            Standing::Voter
        };
        let mut zxid = core.tail.last();
        if core.reluctant && zxid.counter() > 0 {
            // Less than it has, which harms nobody: whoever has as much is preferred.
            zxid = Zxid(zxid.0 - 1);
        }
        election.start(core.now_ms, zxid, core.current_epoch, standing);
    }

    fn drain_notifications(&mut self) {
        let Some(election) = &mut self.election else { return };
        while let Some((to, notification)) = election.poll_notification() {
            self.core.actions.push_back(Action::Notify { to, notification });
        }
    }

    /// Whether this server should not lead if somebody else can, because its disk is nearly full: it
    /// could not accept writes. It steps down when a quorum of followers has all that it has.
    pub fn set_reluctant(&mut self, reluctant: bool) {
        self.core.reluctant = reluctant;
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.core.actions.pop_front()
    }

    /// Names an accepted connection, before its [`Input::LinkUp`].
    pub fn accept(&mut self) -> LinkId {
        self.core.link_id()
    }

    /// The last transaction that was proposed, or, before the first one, the zxid that the epoch
    /// begins with. Of a peer that does not serve as leader: the last that it was asked to log.
    #[must_use]
    pub fn last_proposed(&self) -> Zxid {
        match &self.role {
            Role::Leading(leader) => leader.last_proposed(),
            Role::Looking(_) | Role::Following(_) | Role::Observing(_) | Role::Halted => {
                self.core.tail.last()
            }
        }
    }

    /// Whether a transaction can be proposed: by a leader that serves, and has a zxid left. If it has
    /// none it steps down as soon as everything is committed, and a new epoch begins.
    #[must_use]
    pub fn may_propose(&self) -> bool {
        match &self.role {
            Role::Leading(leader) => leader.may_propose(&self.core),
            Role::Looking(_) | Role::Following(_) | Role::Observing(_) | Role::Halted => false,
        }
    }

    /// Since when it looks for a leader, in ms; `None` when it has one, or has stopped for good. An election that
    /// came to nothing counts from its end.
    #[must_use]
    pub fn looking_since_ms(&self) -> Option<i64> {
        match &self.role {
            Role::Looking(looking) => Some(looking.since_ms),
            Role::Leading(_) | Role::Following(_) | Role::Observing(_) | Role::Halted => None,
        }
    }

    /// In which role it serves clients, if it does.
    #[must_use]
    pub fn serving(&self) -> Option<ServingRole> {
        match &self.role {
            Role::Leading(leader) => leader.is_serving().then_some(ServingRole::Leader),
            Role::Following(learner) | Role::Observing(learner) => {
                learner.is_serving().then(|| learner.role())
            }
            Role::Looking(_) | Role::Halted => None,
        }
    }

    /// The last transaction that is known to be committed.
    #[must_use]
    pub fn committed(&self) -> Zxid {
        self.core.tail.committed()
    }

    /// Whether a reconfiguration is under way: another one has to wait.
    #[must_use]
    pub fn is_reconfiguring(&self) -> bool {
        self.core.next.is_some()
    }

    /// Whether a quorum of these members follows this leader and is up to date, so that they could
    /// decide at once. `false` of a peer that does not lead.
    #[must_use]
    pub fn is_synced_quorum(&self, members: &Members) -> bool {
        match &self.role {
            Role::Leading(leader) => leader.is_synced_quorum(self.core.id(), members),
            Role::Looking(_) | Role::Following(_) | Role::Observing(_) | Role::Halted => false,
        }
    }

    /// The ensemble that is in force.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.core.config.members
    }

    /// What it is at this moment.
    #[must_use]
    pub fn status(&self) -> PeerStatus {
        let core = &self.core;
        let (state, leader) = match &self.role {
            Role::Looking(_) | Role::Halted => (PeerState::Looking, None),
            Role::Leading(_) => (PeerState::Leading, Some(core.id())),
            Role::Following(learner) => (PeerState::Following, Some(learner.leader())),
            Role::Observing(learner) => (PeerState::Observing, Some(learner.leader())),
        };
        let (outstanding, learners) = match &self.role {
            Role::Leading(leader) => (core.tail.uncommitted_len(), leader.learners(core)),
            Role::Following(learner) => (0, learner.observers()),
            Role::Looking(_) | Role::Observing(_) | Role::Halted => (0, Vec::new()),
        };
        let learner_master = match &self.role {
            Role::Observing(learner) => learner.learner_master(),
            Role::Looking(_) | Role::Leading(_) | Role::Following(_) | Role::Halted => None,
        };
        PeerStatus {
            id: core.id(),
            state,
            serving: self.serving().is_some(),
            leader,
            learner_master,
            accepted_epoch: core.accepted_epoch,
            current_epoch: core.current_epoch,
            round: self.election.as_ref().map_or(0, Election::round),
            last_logged: core.tail.last(),
            committed: core.tail.committed(),
            delivered: core.tail.delivered(),
            outstanding,
            learners,
            election_ms: self.election_ms,
            sync_ms: self.sync_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{NoHistory, Write};

    fn propose(peer: &mut Peer, zxid: i64) -> Token {
        peer.step(0, Input::Propose { zxid: Zxid(zxid), txn: Bytes::new() }, &NoHistory);
        match peer.poll_action() {
            Some(Action::Persist { token, write: Write::Append { zxid: logged, .. } }) => {
                assert_eq!(logged, Zxid(zxid));
                token
            }
            other => panic!("{other:?}"),
        }
    }

    fn persisted(peer: &mut Peer, token: Token) -> Vec<i64> {
        peer.step(0, Input::Persisted { token }, &NoHistory);
        std::iter::from_fn(|| peer.poll_action())
            .map(|action| match action {
                Action::Deliver { zxid, .. } => zxid.0,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn nothing_is_delivered_before_it_is_on_disk() {
        let mut peer = Peer::recover_standalone(Zxid(4));
        assert_eq!(peer.serving(), Some(ServingRole::Leader));
        assert_eq!((peer.committed(), peer.last_proposed()), (Zxid(4), Zxid(4)));
        let first = propose(&mut peer, 5);
        let second = propose(&mut peer, 6);
        let third = propose(&mut peer, 7);
        assert_eq!(peer.poll_action(), None);
        assert_eq!(persisted(&mut peer, second), [5, 6]);
        assert_eq!(persisted(&mut peer, first), [0_i64; 0], "delivered twice");
        assert_eq!(persisted(&mut peer, third), [7]);
        assert_eq!((peer.committed(), peer.last_proposed()), (Zxid(7), Zxid(7)));
    }

    #[test]
    #[should_panic(expected = "proposed after")]
    fn the_order_never_goes_back() {
        let mut peer = Peer::recover_standalone(Zxid(4));
        propose(&mut peer, 4);
    }

    #[test]
    fn a_server_on_its_own_goes_on_in_the_next_epoch() {
        let mut peer = Peer::recover_standalone(Zxid(0xffff_fffe));
        let last = propose(&mut peer, 0xffff_ffff);
        assert_eq!(peer.last_proposed(), Zxid(0x1_0000_0000));
        assert!(peer.may_propose());
        let next = propose(&mut peer, 0x1_0000_0001);
        assert_eq!(persisted(&mut peer, last), [0xffff_ffff]);
        assert_eq!(persisted(&mut peer, next), [0x1_0000_0001]);
    }
}
