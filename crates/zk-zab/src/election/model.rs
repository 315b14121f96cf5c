//! A member as upstream's code behaves: it always waits for `finalizeWait`, counts what it counted,
//! and knows nothing of what this crate does differently. Its threads take turns here.

use std::collections::VecDeque;

use super::*;
use crate::QuorumVerifier;

const FINALIZE_WAIT_MS: i64 = 200;

#[derive(Debug)]
pub(super) struct Upstream {
    id: ServerId,
    voters: BTreeSet<ServerId>,
    verifier: QuorumVerifier,
    interval_max_ms: i64,
    round: i64,
    own: Vote,
    proposal: Vote,
    current: Vote,
    state: PeerState,
    queue: VecDeque<(ServerId, Notification)>,
    in_round: Words,
    established: Words,
    /// While a quorum stands: until when nothing may come.
    finalizing_until_ms: Option<i64>,
    poll_until_ms: i64,
    interval_ms: i64,
    decision: Option<Vote>,
    out: VecDeque<(ServerId, Notification)>,
}

impl Upstream {
    pub(super) fn new(config: &PeerConfig) -> Self {
        let nothing = Vote { leader: config.id, zxid: Zxid(0), peer_epoch: 0, round: 0 };
        Self {
            id: config.id,
            voters: config.members.voters.clone(),
            verifier: QuorumVerifier::new(&config.members),
            interval_max_ms: config.notification_interval_max_ms,
            round: 0,
            own: nothing,
            proposal: nothing,
            current: nothing,
            state: PeerState::Looking,
            queue: VecDeque::new(),
            in_round: Words::new(),
            established: Words::new(),
            finalizing_until_ms: None,
            poll_until_ms: 0,
            interval_ms: 0,
            decision: None,
            out: VecDeque::new(),
        }
    }

    pub(super) fn start(&mut self, now_ms: i64, zxid: Zxid, epoch: Epoch, observer: bool) {
        self.own = if observer {
            Vote {
                leader: ServerId(i64::MIN),
                zxid: Zxid(i64::MIN),
                peer_epoch: i64::MIN,
                round: 0,
            }
        } else {
            Vote { leader: self.id, zxid, peer_epoch: i64::from(epoch.0), round: 0 }
        };
        self.round += 1;
        self.state = PeerState::Looking;
        self.decision = None;
        self.queue.clear();
        self.in_round.clear();
        self.established.clear();
        self.finalizing_until_ms = None;
        self.interval_ms = 200;
        self.propose(self.own);
        self.run(now_ms);
        self.poll_until_ms = now_ms + self.interval_ms;
    }

    pub(super) fn on_notification(&mut self, now_ms: i64, from: ServerId, told: &Notification) {
        if !self.voters.contains(&from) {
            self.send(from, Vote { round: self.round, ..self.current }, self.state);
            return;
        }
        if self.state == PeerState::Looking {
            self.queue.push_back((from, told.clone()));
            if told.state == PeerState::Looking && told.round < self.round {
                self.send(from, self.proposal, PeerState::Looking);
            }
            self.run(now_ms);
        } else if told.state == PeerState::Looking {
            self.send(from, self.current, self.state);
        }
    }

    pub(super) fn tick(&mut self, now_ms: i64) {
        self.run(now_ms);
    }

    pub(super) fn decision(&mut self) -> Option<Vote> {
        self.decision.take()
    }

    pub(super) fn leave(&mut self, state: PeerState) {
        self.state = state;
    }

    pub(super) fn settle(&mut self, state: PeerState, epoch: Epoch) {
        self.state = state;
        self.current.peer_epoch = i64::from(epoch.0);
    }

    pub(super) fn poll_notification(&mut self) -> Option<(ServerId, Notification)> {
        self.out.pop_front()
    }

    fn run(&mut self, now_ms: i64) {
        while self.state == PeerState::Looking && self.decision.is_none() {
            let next = self.queue.pop_front();
            if let Some(until_ms) = self.finalizing_until_ms {
                match next {
                    None if now_ms < until_ms => return,
                    None => self.decide(self.proposal),
                    Some((from, told)) if self.beats(&Vote::of(&told), &self.proposal) => {
                        self.queue.push_back((from, told));
                        self.finalizing_until_ms = None;
                        self.poll_until_ms = now_ms + self.interval_ms;
                    }
                    // Lost, but the wait begins again.
                    Some(_) => self.finalizing_until_ms = Some(now_ms + FINALIZE_WAIT_MS),
                }
                continue;
            }
            match next {
                None if now_ms < self.poll_until_ms => return,
                None => {
                    self.send_all();
                    self.interval_ms = (self.interval_ms * 2).min(self.interval_max_ms);
                    self.poll_until_ms = now_ms + self.interval_ms;
                }
                Some((from, told)) => {
                    self.poll_until_ms = now_ms + self.interval_ms;
                    self.process(now_ms, from, &told);
                }
            }
        }
    }

    fn process(&mut self, now_ms: i64, from: ServerId, told: &Notification) {
        if !self.voters.contains(&told.leader) {
            return;
        }
        let vote = Vote::of(told);
        match told.state {
            PeerState::Looking => {
                if told.zxid == Zxid(-1) || told.round < self.round {
                    return;
                }
                if told.round > self.round {
                    self.round = told.round;
                    self.in_round.clear();
                    self.propose(if self.beats(&vote, &self.own) { vote } else { self.own });
                } else if self.beats(&vote, &self.proposal) {
                    self.propose(vote);
                }
                self.in_round.insert(from, Word::looking(vote));
                if self.quorum(&self.in_round, &Word::looking(self.proposal)) {
                    self.finalizing_until_ms = Some(now_ms + FINALIZE_WAIT_MS);
                }
            }
            PeerState::Following | PeerState::Leading => {
                let word = Word { vote, state: told.state, version: told.version };
                if vote.round == self.round {
                    self.in_round.insert(from, Word { version: 0, ..word });
                    if self.quorum(&self.in_round, &word) && self.leads(&self.in_round, &vote) {
                        self.decide(vote);
                        return;
                    }
                }
                self.established.insert(from, word);
                if self.quorum(&self.established, &word) && self.leads(&self.established, &vote) {
                    self.round = vote.round;
                    self.decide(vote);
                }
            }
            PeerState::Observing => {}
        }
    }

    fn quorum(&self, words: &Words, word: &Word) -> bool {
        self.verifier.contains_quorum(&agreeing(words, word))
    }

    /// Upstream's `totalOrderPredicate`: who has no weight keeps its own vote while it has more.
    fn beats(&self, vote: &Vote, other: &Vote) -> bool {
        self.verifier.has_weight(vote.leader) && vote.is_more_recent(other)
    }

    fn leads(&self, words: &Words, vote: &Vote) -> bool {
        if vote.leader == self.id {
            return vote.round == self.round;
        }
        words.get(&vote.leader).is_some_and(|word| word.state == PeerState::Leading)
    }

    fn decide(&mut self, vote: Vote) {
        self.finalizing_until_ms = None;
        self.current = vote;
        self.decision = Some(vote);
        self.queue.clear();
    }

    fn propose(&mut self, vote: Vote) {
        self.proposal = Vote { round: self.round, ..vote };
        self.send_all();
    }

    /// To itself too, which is how its own vote gets counted.
    fn send_all(&mut self) {
        for voter in self.voters.clone() {
            if voter == self.id {
                let told = Self::notification(self.proposal, PeerState::Looking);
                self.queue.push_back((voter, told));
            } else {
                self.send(voter, self.proposal, PeerState::Looking);
            }
        }
    }

    fn send(&mut self, to: ServerId, vote: Vote, state: PeerState) {
        self.out.push_back((to, Self::notification(vote, state)));
    }

    fn notification(vote: Vote, state: PeerState) -> Notification {
        Notification {
            state,
            leader: vote.leader,
            zxid: vote.zxid,
            round: vote.round,
            peer_epoch: vote.peer_epoch,
            version: Notification::VERSION,
            config: Some("version=0".into()),
        }
    }
}
