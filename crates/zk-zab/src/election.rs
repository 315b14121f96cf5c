//! Whom to follow: upstream's `FastLeaderElection` (facts, sections 3.2 and 3.15).
//!
//! A server that is LOOKING proposes whoever has the most recent history: the greatest peer epoch,
//! then zxid, then id. It begins with itself, tells every voter, and takes over each better vote that
//! it hears of. When a quorum proposes the same in the same round, and nothing better can be expected,
//! that server leads. Who comes late asks, and joins when a quorum says that it follows the same
//! leader, and that leader says so itself.
//!
//! An election promises little: that whoever leads had the votes of a quorum at some time. Two may
//! believe to lead, even in one round. That only one of them gets an epoch, and that its history is
//! complete, is for discovery to see to.
//!
//! # Where it differs from upstream
//!
//! Upstream's servers cannot tell, except by the first point that it took less time:
//!
//! - A decision does not wait for votes that cannot come. When every voter has voted in this round,
//!   or refuses connections, or has no say ([`Standing::NonVoting`]), nothing better is left.
//! - Who may have lost data votes when all others are LOOKING and have been heard. Upstream's never
//!   does; it waits for the file `initialize`.
//! - Only a server's last word counts. Upstream goes on counting its vote in this round when it has
//!   meanwhile said that it follows somebody, and its following somebody when it is LOOKING again.
//! - A server believes others that it leads only when they follow the vote that it casts now, not one
//!   that it cast before a restart.
//! - Who has no vote decides by established leaders only. Voters that are LOOKING tell upstream's
//!   observers of the leader that they have just lost.
//! - Answers to non-voters go only to those that are LOOKING, and not while they are in a later round:
//!   upstream's observers would answer the answer, for ever. Those that asked too early are told again
//!   when the answer is worth more; upstream leaves it to them to ask again.
//! - A server that decides tells those that voted for it: that it leads, and they need not wait for
//!   others; or that it follows, and they would wait for it in vain.
//! - A voter without weight takes over the vote of any that has some. Upstream's keeps its own while that
//!   is the more recent one, and learns of the leader by asking again.
//! - What a LOOKING voter said shortly before this server is LOOKING too counts. Upstream answers it,
//!   forgets it, and learns of it again when it is sent again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};
use zk_proto::quorum::{Notification, PeerState};
use zk_proto::{Epoch, ServerId, Zxid};

use crate::reconfig::Electorate;
use crate::{Members, PeerConfig};

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod model;
#[cfg(test)]
mod swarm;
#[cfg(test)]
mod tests;

/// The zxid that says that its sender has no say (`-1` upstream: an empty database that may not be
/// taken for a new one).
const NO_SAY: Zxid = Zxid(-1);

/// The id, zxid and epoch in the votes of those that have none to give.
const NOBODY: i64 = i64::MIN;

/// For how many times `finalizeWait` the voters of the next configuration are waited for.
const NEXT_WAIT: i64 = 4;

/// For how many times `finalizeWait` a round may last in which those may be elected that only come.
const ROUND_WAIT: i64 = 2 * NEXT_WAIT;

/// How many answers to servers that are not in the configuration may wait to be sent.
const STRANGERS_MAX: usize = 16;

/// Who should lead, and why.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Vote {
    /// The one.
    pub(crate) leader: ServerId,
    /// The last zxid in its log.
    pub(crate) zxid: Zxid,
    /// Its current epoch; once it leads, the epoch that it leads in.
    pub(crate) peer_epoch: i64,
    /// The round in which it is proposed.
    pub(crate) round: i64,
}

impl Vote {
    fn of(notification: &Notification) -> Self {
        Self {
            leader: notification.leader,
            zxid: notification.zxid,
            peer_epoch: notification.peer_epoch,
            round: notification.round,
        }
    }

    /// The total order, in which rounds do not count. Weights do: see [`Election::beats`].
    fn is_more_recent(&self, other: &Self) -> bool {
        (self.peer_epoch, self.zxid, self.leader) > (other.peer_epoch, other.zxid, other.leader)
    }

    /// Whether both propose the same server for the same reason, in whatever round.
    fn same_candidate(&self, other: &Self) -> bool {
        (self.peer_epoch, self.zxid, self.leader) == (other.peer_epoch, other.zxid, other.leader)
    }
}

/// What part a server has in elections.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It votes.
    Voter,
    /// A voter with nothing stored, and nobody said that it is new. It votes until another voter
    /// shows that there is data, which this one may have lost.
    Fresh,
    /// A voter that may have lost data: it joins an established leader, and has no say before. But when
    /// every other voter is LOOKING as well, and was heard, no data can be missed: then it votes for the
    /// best that is left.
    NonVoting,
    /// No voter.
    Observer,
}

/// What a server said last.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
struct Word {
    vote: Vote,
    state: PeerState,
    /// The format of the notification; 0 for votes in this round, whatever their format was, as
    /// upstream has it.
    version: i32,
}

impl Word {
    fn looking(vote: Vote) -> Self {
        Self { vote, state: PeerState::Looking, version: 0 }
    }

    /// Whether both count for the same leader (`Vote.equals` upstream). Servers with a leader may
    /// have come to it in different rounds, by votes with different zxids; and before there were
    /// format versions they did not tell the new epoch (ZOOKEEPER-1732, ZOOKEEPER-1805).
    fn agrees(&self, other: &Self) -> bool {
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote;
        }
        self.vote.leader == other.vote.leader
            && ((self.version > 0) != (other.version > 0)
                || self.vote.peer_epoch == other.vote.peer_epoch)
    }
}

type Words = BTreeMap<ServerId, Word>;

fn agreeing(words: &Words, word: &Word) -> BTreeSet<ServerId> {
    words.iter().filter(|(_, other)| word.agrees(other)).map(|(server, _)| *server).collect()
}

/// One server's part in all its elections, and its answers between them.
#[derive(Debug, Clone)]
pub(crate) struct Election {
    id: ServerId,
    electorate: Electorate,
    observers: BTreeSet<ServerId>,
    config: String,
    interval_min_ms: i64,
    interval_max_ms: i64,
    finalize_wait_ms: i64,

    now_ms: i64,
    standing: Standing,
    /// Another voter showed data while this server had none.
    outvoted: bool,
    /// [`Standing::NonVoting`], but it votes in this round.
    votes_after_all: bool,
    state: PeerState,
    /// Not before the first [`Election::start`].
    started: bool,
    silent: bool,
    /// The logical clock.
    round: i64,
    round_since_ms: i64,
    /// What it votes at the beginning of a round.
    own: Vote,
    /// What it votes now, while LOOKING.
    proposal: Vote,
    /// The vote of its last election, while not LOOKING.
    current: Vote,
    decision: Option<Vote>,
    /// There is a decision, or was one that has been taken: nothing changes it.
    decided: bool,
    /// A reconfiguration said so.
    appointed: bool,
    /// The leader of the last election is established, as far as this server knows.
    settled: bool,
    /// Who agreed with the decision.
    backers: BTreeSet<ServerId>,
    deserted: bool,
    /// What was said in this round (upstream's `recvset`), the own vote with it.
    in_round: Words,
    /// What those said that have a leader (upstream's `outofelection`).
    established: Words,
    /// Voters that said that they have no say.
    abstaining: BTreeSet<ServerId>,
    /// Voters that voted for who is none, and were reported for it.
    strange: BTreeSet<ServerId>,
    /// What is known of the voters' election ports.
    reachable: BTreeMap<ServerId, bool>,
    /// Since when a quorum agrees with the proposal.
    agreed_since_ms: Option<i64>,
    resend_at_ms: i64,
    resend_interval_ms: i64,
    /// Members that asked, and should hear from this server again when it has more to tell.
    asked: BTreeSet<ServerId>,
    /// What LOOKING voters said while this server was not, and when: it is about to be, if they have
    /// noticed the end of the leader first. They say it only once.
    overheard: BTreeMap<ServerId, (i64, Notification)>,
    /// The newest unsent message to each; older ones mean nothing then.
    out: BTreeMap<ServerId, Notification>,
}

impl Election {
    pub(crate) fn new(config: &PeerConfig) -> Self {
        let nothing = Vote { leader: config.id, zxid: Zxid::ZERO, peer_epoch: 0, round: 0 };
        Self {
            id: config.id,
            electorate: Electorate::new(&config.members, None),
            observers: config.members.observers.clone(),
            config: config.members.to_text(),
            interval_min_ms: config.notification_interval_min_ms.max(1),
            interval_max_ms: config.notification_interval_max_ms.max(1),
            finalize_wait_ms: config.finalize_wait_ms,
            now_ms: 0,
            standing: Standing::Observer,
            outvoted: false,
            votes_after_all: false,
            state: PeerState::Looking,
            started: false,
            silent: false,
            round: 0,
            round_since_ms: 0,
            own: nothing,
            proposal: nothing,
            current: nothing,
            decision: None,
            decided: false,
            appointed: false,
            settled: false,
            backers: BTreeSet::new(),
            deserted: false,
            in_round: Words::new(),
            established: Words::new(),
            abstaining: BTreeSet::new(),
            strange: BTreeSet::new(),
            reachable: BTreeMap::new(),
            agreed_since_ms: None,
            resend_at_ms: 0,
            resend_interval_ms: 0,
            asked: BTreeSet::new(),
            overheard: BTreeMap::new(),
            out: BTreeMap::new(),
        }
    }

    /// LOOKING, from now on: a new round, in which the server proposes itself. `own_zxid` is the last
    /// in its log, `own_epoch` its current epoch.
    pub(crate) fn start(
        &mut self,
        now_ms: i64,
        own_zxid: Zxid,
        own_epoch: Epoch,
        standing: Standing,
    ) {
        self.now_ms = now_ms;
        self.standing = match standing {
            Standing::Fresh if self.outvoted => Standing::NonVoting,
            Standing::Voter | Standing::Fresh | Standing::NonVoting | Standing::Observer => {
                standing
            }
        };
        let leader = if self.electorate.is_voter(self.id) { self.id } else { ServerId(NOBODY) };
        let (leader, zxid, peer_epoch) = match self.standing {
            Standing::Voter | Standing::Fresh => (leader, own_zxid, i64::from(own_epoch.0)),
            Standing::NonVoting => (leader, NO_SAY, i64::from(own_epoch.0)),
            Standing::Observer => (ServerId(NOBODY), Zxid(NOBODY), NOBODY),
        };
        self.own = Vote { leader, zxid, peer_epoch, round: 0 };
        self.state = PeerState::Looking;
        self.started = true;
        self.established.clear();
        self.abstaining.clear();
        self.strange.clear();
        self.asked.clear();
        self.begin_round();
        info!(
            round = self.round,
            zxid = %own_zxid,
            epoch = %own_epoch,
            standing = ?self.standing,
            "LOOKING for a leader"
        );
        for (from, (heard_ms, notification)) in std::mem::take(&mut self.overheard) {
            // Older ones are of an election that has ended.
            if now_ms.saturating_sub(heard_ms) < self.interval_min_ms
                && notification.round >= self.round
            {
                self.on_notification(now_ms, from, &notification);
            }
        }
    }

    /// Who is in the ensemble from now on, and who comes next; whether that is news. An election that is
    /// going on has to be started again.
    pub(crate) fn set_members(&mut self, members: &Members, next: Option<&Members>) -> bool {
        if self.electorate.is_of(members, next) {
            return false;
        }
        self.electorate = Electorate::new(members, next);
        self.config = members.to_text();
        self.observers.clone_from(&members.observers);
        let electorate = &self.electorate;
        for words in [&mut self.in_round, &mut self.established] {
            words.retain(|voter, _| electorate.is_voter(*voter));
        }
        self.abstaining.retain(|voter| electorate.is_voter(*voter));
        self.reachable.retain(|voter, _| electorate.is_voter(*voter));
        self.overheard.retain(|voter, _| electorate.is_voter(*voter));
        true
    }

    /// Ends an election that has just begun: a reconfiguration says whom to follow. Nobody has heard of the
    /// election yet, and nobody is to: one who is told at another moment would take it for a change of mind. All are
    /// told the same, so all count as backers, whatever rounds they are in, until they show that they are not.
    pub(crate) fn appoint(&mut self, leader: ServerId) {
        self.out.clear();
        let backers = self.electorate.voters().clone();
        self.decide(Vote { leader, round: self.round, ..self.own }, backers);
        self.appointed = true;
    }

    /// Whether the leader of this election was named by a reconfiguration.
    pub(crate) fn is_appointed(&self) -> bool {
        self.appointed
    }

    fn begin_round(&mut self) {
        // At the end of the numbers, where only a confused member can have brought it, rounds are
        // no longer told apart. Elections take longer then, but still end.
        self.round = self.round.saturating_add(1);
        self.round_since_ms = self.now_ms;
        self.decision = None;
        self.decided = false;
        self.appointed = false;
        self.settled = false;
        self.deserted = false;
        self.votes_after_all = false;
        self.backers.clear();
        self.in_round.clear();
        self.out.clear();
        self.resend_interval_ms = self.interval_min_ms;
        self.propose(self.own);
        self.consider();
    }

    /// Takes a message. `from` is who the connection is with.
    pub(crate) fn on_notification(
        &mut self,
        now_ms: i64,
        from: ServerId,
        notification: &Notification,
    ) {
        self.now_ms = now_ms;
        if !self.started || self.silent || from == self.id {
            return;
        }
        debug!(%from, ?notification, round = self.round, state = ?self.state, "notification");
        if !self.electorate.is_voter(from) {
            self.answer_non_voter(from, notification);
            return;
        }
        if self.state != PeerState::Looking {
            self.note_desertion(from, notification);
            if notification.state == PeerState::Looking {
                if !self.settled {
                    self.asked.insert(from);
                }
                self.overheard.insert(from, (now_ms, notification.clone()));
                self.send(from, self.current, self.state);
            } else {
                self.overheard.remove(&from);
            }
            return;
        }
        if self.reachable.insert(from, true) == Some(false) {
            // What it was sent before is lost, and nobody answers an equal round.
            self.send(from, self.proposal, PeerState::Looking);
        }
        if notification.state == PeerState::Looking {
            if self.votes() && notification.round < self.round {
                self.send(from, self.proposal, PeerState::Looking);
            }
            if notification.zxid == NO_SAY {
                self.asked.insert(from);
            }
        }
        if self.decided {
            return;
        }
        if !self.electorate.is_voter(notification.leader) {
            if self.strange.insert(from) {
                warn!(
                    member = %from,
                    leader = %notification.leader,
                    "a vote for a server that is no voter here is ignored: compare the servers' configurations"
                );
            }
            return;
        }
        self.in_round.remove(&from);
        self.established.remove(&from);
        self.abstaining.remove(&from);
        match notification.state {
            PeerState::Looking => self.on_vote(from, notification),
            PeerState::Following | PeerState::Leading => self.on_established(from, notification),
            PeerState::Observing => {}
        }
        self.consider();
    }

    fn answer_non_voter(&mut self, from: ServerId, notification: &Notification) {
        if notification.state != PeerState::Looking {
            return;
        }
        if self.observers.contains(&from) {
            if !self.settled {
                self.asked.insert(from);
            }
        } else {
            let stranger =
                |to: &&ServerId| !self.electorate.is_voter(**to) && !self.observers.contains(*to);
            if self.out.keys().filter(stranger).count() >= STRANGERS_MAX {
                return;
            }
        }
        if self.state != PeerState::Looking {
            self.send(from, Vote { round: self.round, ..self.current }, self.state);
        } else if self.votes() && notification.round <= self.round {
            self.send(from, self.proposal, PeerState::Looking);
        }
    }

    /// A vote of a voter that is LOOKING.
    fn on_vote(&mut self, from: ServerId, notification: &Notification) {
        let vote = Vote::of(notification);
        if self.standing == Standing::Fresh && (vote.zxid > Zxid::ZERO || vote.peer_epoch > 0) {
            self.give_up_voting(from, &vote);
        }
        if vote.zxid == NO_SAY {
            self.abstaining.insert(from);
        } else if self.votes() {
            self.weigh(from, vote);
        } else if self.standing == Standing::NonVoting {
            self.in_round.insert(from, Word::looking(vote)); // of whatever round
        }
        self.maybe_vote_after_all();
    }

    /// Takes over a vote if it is better.
    fn weigh(&mut self, from: ServerId, vote: Vote) {
        if vote.round < self.round {
            return;
        }
        if vote.round > self.round {
            self.round = vote.round;
            self.round_since_ms = self.now_ms;
            self.in_round.clear();
            // Who was heard in an earlier round may be gone.
            self.votes_after_all = false;
            self.propose(if self.votes() && self.beats(&vote, &self.own) {
                vote
            } else {
                self.own
            });
        } else if self.beats(&vote, &self.proposal) {
            self.propose(vote);
        }
        self.in_round.insert(from, Word::looking(vote));
    }

    /// Members of a new ensemble that has committed nothing would wait for each other for ever: those
    /// that saw its first leader have an epoch, and the others take that for data. What is elected by
    /// this is safe by discovery, where a server that may have lost data counts only with all others.
    fn maybe_vote_after_all(&mut self) {
        if self.standing != Standing::NonVoting || self.votes_after_all {
            return;
        }
        let heard = |voter: &ServerId| {
            let word = self.in_round.get(voter);
            word.is_some_and(|word| word.state == PeerState::Looking)
                || self.abstaining.contains(voter)
        };
        if !self.electorate.voters().iter().all(|voter| *voter == self.id || heard(voter)) {
            return;
        }
        let mut best = Vote { zxid: Zxid::ZERO, ..self.own };
        let mut round = self.round;
        for Word { vote, .. } in self.in_round.values() {
            round = round.max(vote.round);
            if self.beats(vote, &best) {
                best = *vote;
            }
        }
        self.round = round;
        info!(
            leader = %best.leader,
            round = self.round,
            "this server may have lost its data, but votes: all others are LOOKING, and none is missed"
        );
        self.in_round.retain(|_, word| word.vote.round == round);
        self.votes_after_all = true;
        self.propose(best);
    }

    /// This server is empty, and the ensemble is not.
    fn give_up_voting(&mut self, from: ServerId, vote: &Vote) {
        warn!(
            member = %from,
            zxid = %vote.zxid,
            epoch = vote.peer_epoch,
            "this server has no data and another member of the ensemble has: it does not vote, so that \
             data cannot be lost with it, and waits for the others to elect a leader. If this server \
             is new, and has not lost its data, create the file `initialize` in its dataDir and \
             restart it"
        );
        self.standing = Standing::NonVoting;
        self.outvoted = true;
        self.own.zxid = NO_SAY;
        self.in_round.remove(&self.id);
        self.propose(self.own);
    }

    /// A voter that follows or leads.
    fn on_established(&mut self, from: ServerId, notification: &Notification) {
        let vote = Vote::of(notification);
        let word = Word { vote, state: notification.state, version: notification.version };
        if vote.round == self.round {
            self.in_round.insert(from, Word { version: 0, ..word });
            let backers = agreeing(&self.in_round, &word);
            if self.electorate.contains_quorum(&backers) && self.leads(&self.in_round, &vote) {
                self.decide(vote, backers);
                return;
            }
            if self.has_better(&vote) {
                self.agreed_since_ms = None;
            }
        }
        self.established.insert(from, word);
        let backers = agreeing(&self.established, &word);
        if self.electorate.contains_quorum(&backers) && self.leads(&self.established, &vote) {
            self.round = vote.round;
            self.decide(vote, backers);
        }
    }

    /// Whether the leader that others follow does lead, by its own word. Without it they would elect
    /// a dead server again and again.
    fn leads(&self, words: &Words, vote: &Vote) -> bool {
        if vote.leader == self.id {
            return self.may_lead(self.id)
                && self.votes()
                && vote.round == self.round
                && vote.same_candidate(&self.own);
        }
        words.get(&vote.leader).is_some_and(|word| word.state == PeerState::Leading)
    }

    /// A member's election port is there, or it refused a connection.
    pub(crate) fn on_reachable(&mut self, now_ms: i64, server: ServerId, reachable: bool) {
        self.now_ms = now_ms;
        if !self.electorate.is_voter(server) || server == self.id {
            return;
        }
        self.reachable.insert(server, reachable);
        let follows = matches!(self.state, PeerState::Following | PeerState::Observing);
        if !reachable && follows && !self.settled && server == self.current.leader {
            self.deserted = true;
        }
        if !self.started || self.silent || self.state != PeerState::Looking {
            return;
        }
        if reachable {
            // A new connection: whoever is behind it may know nothing of this election, and is not to
            // be told when a long silence has made the interval long.
            self.resend_interval_ms = self.interval_min_ms;
            self.resend_at_ms = self.resend_at_ms.min(now_ms.saturating_add(self.interval_min_ms));
            self.send(server, self.proposal, PeerState::Looking);
        }
        self.consider();
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        if !self.started || self.silent || self.decided || self.state != PeerState::Looking {
            return;
        }
        self.consider();
        let lasts_ms = now_ms.saturating_sub(self.round_since_ms);
        if !self.decided
            && self.electorate.is_divided(self.round)
            && lasts_ms >= self.finalize_wait_ms.saturating_mul(ROUND_WAIT)
        {
            info!(
                round = self.round,
                "no leader in a round for those that come: the next one is without them"
            );
            self.begin_round();
        } else if !self.decided && now_ms >= self.resend_at_ms {
            debug!(round = self.round, after_ms = self.resend_interval_ms, "votes again");
            self.resend_interval_ms =
                self.resend_interval_ms.saturating_mul(2).min(self.interval_max_ms);
            self.broadcast();
        }
    }

    /// Whom to lead or follow: once in each election, to be followed by [`Election::leave`].
    pub(crate) fn decision(&mut self) -> Option<Vote> {
        self.decision.take()
    }

    /// The election is over: from now on the server is in `state`, and says so to those that ask.
    pub(crate) fn leave(&mut self, state: PeerState) {
        self.state = state;
        self.settled = false;
        self.deserted = false;
        // The other voters take part in the election, and will find its result themselves; but not
        // those that would follow this server when it does not lead.
        // And a leader tells its followers, which may wait for somebody that it need not wait for.
        let concerned = |voter: &ServerId| {
            self.in_round.get(voter).is_some_and(|word| word.vote.leader == self.id)
        };
        let others = self.electorate.voters().iter().filter(|voter| **voter != self.id);
        let (tell, leave_out): (Vec<_>, Vec<_>) =
            others.partition(|voter| concerned(voter) || self.abstaining.contains(voter));
        for voter in leave_out {
            self.asked.remove(voter);
        }
        self.asked.extend(tell);
        self.tell_those_that_asked();
    }

    /// The leader is established in this epoch. Everybody's votes say so from then on, so that a
    /// latecomer finds a quorum of equal ones (ZOOKEEPER-1732, ZOOKEEPER-1805).
    pub(crate) fn settle(&mut self, state: PeerState, epoch: Epoch) {
        self.state = state;
        self.settled = true;
        self.deserted = false;
        self.current.peer_epoch = i64::from(epoch.0);
        self.tell_those_that_asked();
        self.asked.clear();
    }

    /// Between [`Election::leave`] and [`Election::settle`]: nothing will come of this election,
    /// because the chosen leader refuses connections, is in another election or has another leader, or,
    /// on that leader, because so many of those that chose it have gone that no quorum is left
    /// (compare ZOOKEEPER-3109). There is no need to wait for `initLimit` then. It says nothing about
    /// links: once the epoch is agreed on with a quorum they tell more.
    pub(crate) fn deserted(&self) -> bool {
        self.deserted
    }

    /// The next message to send, and to whom.
    pub(crate) fn poll_notification(&mut self) -> Option<(ServerId, Notification)> {
        self.out.pop_first()
    }

    /// The logical clock.
    pub(crate) fn round(&self) -> i64 {
        self.round
    }

    /// What part the server has, which is another one than it started with when it found that it
    /// lost its data.
    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// While silent the server sends nothing and counts nothing: its disk does not answer, so it can
    /// promise nothing. When that is over it begins a new round, as it does not know what it missed.
    pub(crate) fn silence(&mut self, silent: bool) {
        let ends = self.silent && !silent;
        self.silent = silent;
        if silent {
            self.out.clear();
        } else if ends && self.started && self.state == PeerState::Looking {
            self.established.clear();
            self.abstaining.clear();
            self.begin_round();
        }
    }

    /// Whether it takes part in choosing.
    fn votes(&self) -> bool {
        match self.standing {
            Standing::Voter | Standing::Fresh => self.electorate.is_voter(self.id),
            Standing::NonVoting => self.votes_after_all,
            Standing::Observer => false,
        }
    }

    fn propose(&mut self, vote: Vote) {
        self.proposal = Vote { round: self.round, ..vote };
        self.agreed_since_ms = None;
        if self.votes() {
            self.in_round.insert(self.id, Word::looking(self.proposal));
        }
        self.broadcast();
    }

    /// Decides, when a quorum agrees with the proposal and nothing better is to be expected.
    fn consider(&mut self) {
        if self.decided
            || !self.started
            || self.silent
            || self.state != PeerState::Looking
            || !self.votes()
            || !self.may_lead(self.proposal.leader)
        {
            return;
        }
        let backers = agreeing(&self.in_round, &Word::looking(self.proposal));
        if !self.electorate.contains_quorum(&backers) {
            self.agreed_since_ms = None;
            return;
        }
        let since_ms = *self.agreed_since_ms.get_or_insert(self.now_ms);
        let waited_ms = self.now_ms.saturating_sub(since_ms);
        if !self.electorate.contains_next_quorum(&backers)
            && waited_ms < self.finalize_wait_ms.saturating_mul(NEXT_WAIT)
        {
            return;
        }
        let waited = waited_ms >= self.finalize_wait_ms;
        if waited || self.nothing_better_can_come() {
            self.decide(self.proposal, backers);
        }
    }

    /// Every vote in a round began as the own vote of some voter, and this server has seen one of
    /// each that can have cast any. Those without weight never begin one that counts.
    ///
    /// It is better to wait for a candidate that refuses connections, or has found another leader; and
    /// when others have already decided for a better one in this round, as a quorum is about to say.
    fn nothing_better_can_come(&self) -> bool {
        let candidate = self.proposal.leader;
        let refuses = |server: &ServerId| self.reachable.get(server) == Some(&false);
        !refuses(&candidate)
            && self.in_round.get(&candidate).is_none_or(|word| word.vote.leader == candidate)
            && self.electorate.voters().iter().all(|voter| match self.in_round.get(voter) {
                Some(word) => !self.has_better(&word.vote),
                None => !self.may_lead(*voter) || self.abstaining.contains(voter) || refuses(voter),
            })
    }

    /// Whether a server may be elected: a voter without weight must not be, so that it can be a
    /// machine that is slow or far away.
    fn may_lead(&self, server: ServerId) -> bool {
        self.electorate.may_lead(server, self.round)
    }

    /// Whether one vote is to be preferred. Those for servers without weight beat none, and are
    /// beaten by all others: their own, which nobody else takes over.
    fn beats(&self, vote: &Vote, other: &Vote) -> bool {
        self.may_lead(vote.leader) && (!self.may_lead(other.leader) || vote.is_more_recent(other))
    }

    /// Whether a vote in this round is for a better candidate; with a leader's new epoch it is not.
    fn has_better(&self, vote: &Vote) -> bool {
        vote.leader != self.proposal.leader && self.beats(vote, &self.proposal)
    }

    fn decide(&mut self, vote: Vote, backers: BTreeSet<ServerId>) {
        debug!(
            leader = %vote.leader,
            round = vote.round,
            zxid = %vote.zxid,
            epoch = vote.peer_epoch,
            backers = ?backers.iter().map(|server| server.0).collect::<Vec<_>>(),
            "elected"
        );
        self.current = vote;
        self.backers = backers;
        self.decision = Some(vote);
        self.decided = true;
    }

    /// A voter spoke while this server waits for its leader, or its followers.
    fn note_desertion(&mut self, from: ServerId, notification: &Notification) {
        if self.settled {
            return;
        }
        let vote = Vote::of(notification);
        let gone = match vote.round.cmp(&self.round) {
            // One that follows a leader that was appointed may have counted further.
            Ordering::Greater => {
                notification.state == PeerState::Looking || vote.leader != self.current.leader
            }
            // After it was in this one: it has restarted, or found another leader.
            Ordering::Less => self.in_round.contains_key(&from),
            Ordering::Equal => match notification.state {
                // Within a round votes only get better; others are old.
                PeerState::Looking => {
                    vote.leader != self.current.leader && self.beats(&vote, &self.current)
                }
                PeerState::Following | PeerState::Leading => vote.leader != self.current.leader,
                PeerState::Observing => false,
            },
        };
        if !gone {
            return;
        }
        if self.current.leader == self.id {
            self.backers.remove(&from);
            self.deserted = !self.electorate.contains_quorum(&self.backers);
        } else if self.current.leader == from {
            self.deserted = true;
        }
    }

    fn tell_those_that_asked(&mut self) {
        for server in self.asked.clone() {
            self.send(server, self.current, self.state);
        }
    }

    fn broadcast(&mut self) {
        self.resend_at_ms = self.now_ms.saturating_add(self.resend_interval_ms);
        for voter in self.electorate.voters().clone() {
            if voter != self.id {
                self.send(voter, self.proposal, PeerState::Looking);
            }
        }
    }

    fn send(&mut self, to: ServerId, vote: Vote, state: PeerState) {
        if self.silent {
            return;
        }
        let notification = Notification {
            state,
            leader: vote.leader,
            zxid: vote.zxid,
            round: vote.round,
            peer_epoch: vote.peer_epoch,
            version: Notification::VERSION,
            config: Some(self.config.clone()),
        };
        self.out.insert(to, notification);
    }
}
