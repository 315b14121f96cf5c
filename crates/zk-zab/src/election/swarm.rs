//! Random ensembles: messages late or lost, servers that stop and come back, some without their disks,
//! some as upstream has them. What follows an election is as simple here as it can be: links are
//! there at once or not at all, and a new leader's quorum takes over its history in one step.

use std::collections::VecDeque;

use zk_testkit::Prng;

use super::model::Upstream;
use super::*;
use crate::Members;
use crate::QuorumVerifier;

const TICK_MS: i64 = 10;
/// How long a follower tries to reach a leader that does not lead.
const CONNECT_LIMIT_MS: i64 = 1000;
/// How long a leader waits for a quorum.
const INIT_LIMIT_MS: i64 = 2000;

#[derive(Debug)]
enum Member {
    Ours(Box<Election>),
    Upstream(Box<Upstream>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Looking,
    Learning { leader: i64, since_ms: i64, established: bool },
    Leading { since_ms: i64, established: bool },
}

#[derive(Debug)]
struct Server {
    member: Member,
    up: bool,
    observer: bool,
    role: Role,
    zxid: Zxid,
    accepted: Epoch,
    current: Epoch,
}

impl Server {
    fn has_data(&self) -> bool {
        self.zxid > Zxid(0) || self.accepted > Epoch(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    voters: i64,
    observers: i64,
    /// How many in a hundred are as upstream has them.
    upstream: u64,
    delay_max_ms: u64,
    /// Groups of voters and their weights; none: a majority decides.
    groups: &'static [&'static [(i64, u64)]],
}

#[derive(Debug)]
struct Ensemble {
    verifier: QuorumVerifier,
    random: Prng,
    now_ms: i64,
    shape: Shape,
    servers: BTreeMap<i64, Server>,
    /// What is under way, in the order of each link, with its time of arrival.
    links: BTreeMap<(i64, i64), VecDeque<(i64, Notification)>>,
    /// The newest message of one of upstream's servers that was lost, to be sent when there is a
    /// connection again. It does so, and needs to: while others send it something again and again it
    /// never sends anything again by itself.
    lost: BTreeMap<(i64, i64), Notification>,
    /// Pairs between which nothing gets through.
    cut: BTreeSet<(i64, i64)>,
    lossy: bool,
    /// The last transaction that a quorum had.
    committed: Zxid,
    leaders: BTreeMap<Epoch, i64>,
    /// Members whose connection was refused, as each server knows.
    refused: BTreeSet<(i64, i64)>,
    messages: usize,
    upstream: BTreeSet<i64>,
}

impl Shape {
    fn members(&self) -> Members {
        let all = self.groups.iter().copied().flatten();
        let group = |group: &&[(i64, u64)]| group.iter().map(|(id, _)| ServerId(*id)).collect();
        Members {
            voters: (1..=self.voters).map(ServerId).collect(),
            observers: (self.voters + 1..=self.voters + self.observers).map(ServerId).collect(),
            groups: (1..).zip(self.groups.iter().map(group)).collect(),
            weights: all.map(|(id, weight)| (ServerId(*id), *weight)).collect(),
            ..Members::default()
        }
    }
}

impl Ensemble {
    fn new(seed: u64, shape: Shape) -> Self {
        let mut ensemble = Self {
            verifier: QuorumVerifier::new(&shape.members()),
            random: Prng::new(seed),
            now_ms: 0,
            shape,
            servers: BTreeMap::new(),
            links: BTreeMap::new(),
            lost: BTreeMap::new(),
            cut: BTreeSet::new(),
            lossy: false,
            committed: Zxid(0),
            leaders: BTreeMap::new(),
            refused: BTreeSet::new(),
            messages: 0,
            upstream: BTreeSet::new(),
        };
        for id in 1..=shape.voters + shape.observers {
            if ensemble.random.chance(shape.upstream) {
                ensemble.upstream.insert(id);
            }
            let server = Server {
                member: ensemble.member(id),
                up: false,
                observer: id > shape.voters,
                role: Role::Looking,
                zxid: Zxid(0),
                accepted: Epoch(0),
                current: Epoch(0),
            };
            ensemble.servers.insert(id, server);
        }
        ensemble
    }

    fn member(&self, id: i64) -> Member {
        let config = PeerConfig {
            notification_interval_max_ms: 1600,
            ..PeerConfig::new(ServerId(id), self.shape.members())
        };
        if self.upstream.contains(&id) {
            Member::Upstream(Box::new(Upstream::new(&config)))
        } else {
            Member::Ours(Box::new(Election::new(&config)))
        }
    }

    fn boot(&mut self, id: i64) {
        let member = self.member(id);
        let server = self.servers.get_mut(&id).unwrap();
        server.member = member;
        server.up = true;
        self.look(id);
    }

    fn stop(&mut self, id: i64) {
        self.servers.get_mut(&id).unwrap().up = false;
        self.links.retain(|&(from, to), _| from != id && to != id);
        self.lost.retain(|&(from, _), _| from != id);
        self.refused.retain(|&(at, _)| at != id);
    }

    fn look(&mut self, id: i64) {
        let server = self.servers.get_mut(&id).unwrap();
        server.role = Role::Looking;
        let standing = match (server.observer, server.has_data()) {
            (true, _) => Standing::Observer,
            (false, true) => Standing::Voter,
            (false, false) => Standing::Fresh,
        };
        let (zxid, epoch) = (server.zxid, server.current);
        match &mut server.member {
            Member::Ours(election) => election.start(self.now_ms, zxid, epoch, standing),
            Member::Upstream(election) => {
                election.start(self.now_ms, zxid, epoch, standing == Standing::Observer);
            }
        }
        self.pump(id);
    }

    /// Takes what a server has to send, and its decision.
    fn pump(&mut self, id: i64) {
        let now_ms = self.now_ms;
        let server = self.servers.get_mut(&id).unwrap();
        let decision = match &mut server.member {
            Member::Ours(election) => election.decision(),
            Member::Upstream(election) => election.decision(),
        };
        if let Some(vote) = decision {
            let leader = vote.leader.0;
            let (role, state) = if leader == id {
                (Role::Leading { since_ms: now_ms, established: false }, PeerState::Leading)
            } else {
                let role = Role::Learning { leader, since_ms: now_ms, established: false };
                (role, if server.observer { PeerState::Observing } else { PeerState::Following })
            };
            assert!(!(server.observer && leader == id));
            server.role = role;
            match &mut server.member {
                Member::Ours(election) => election.leave(state),
                Member::Upstream(election) => election.leave(state),
            }
        }
        loop {
            let next = match &mut self.servers.get_mut(&id).unwrap().member {
                Member::Ours(election) => election.poll_notification(),
                Member::Upstream(election) => election.poll_notification(),
            };
            let Some((to, told)) = next else { break };
            self.messages += 1;
            let to = to.0;
            self.lost.remove(&(id, to));
            if !self.transmit(id, to, &told) && self.upstream.contains(&id) {
                self.lost.insert((id, to), told);
            }
        }
    }

    /// Whether the message is on its way.
    fn transmit(&mut self, from: i64, to: i64, told: &Notification) -> bool {
        if self.cut.contains(&(from, to)) {
            return false;
        }
        if !self.servers[&to].up {
            self.refused.insert((from, to));
            self.tell_reachable(from, to, false);
            return false;
        }
        if self.refused.remove(&(from, to)) {
            self.tell_reachable(from, to, true);
        }
        if self.lossy && self.random.chance(20) {
            return false;
        }
        let delay_ms = 1 + i64::try_from(self.random.below(self.shape.delay_max_ms)).unwrap();
        let link = self.links.entry((from, to)).or_default();
        // A connection keeps its order.
        let after_ms = link.back().map_or(0, |(at_ms, _)| *at_ms);
        link.push_back((after_ms.max(self.now_ms + delay_ms), told.clone()));
        true
    }

    fn tell_reachable(&mut self, at: i64, server: i64, reachable: bool) {
        if let Member::Ours(election) = &mut self.servers.get_mut(&at).unwrap().member {
            election.on_reachable(self.now_ms, ServerId(server), reachable);
        }
    }

    /// To the next arrival, or the next tick.
    fn step(&mut self) {
        let arrivals = self.links.values().filter_map(VecDeque::front).map(|(at_ms, _)| *at_ms);
        let tick_ms = self.now_ms - self.now_ms % TICK_MS + TICK_MS;
        self.now_ms = arrivals.fold(tick_ms, i64::min);
        let now_ms = self.now_ms;
        self.links.retain(|_, messages| !messages.is_empty());
        for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
            while let Some((_, told)) = self
                .links
                .get_mut(&(from, to))
                .and_then(|link| link.pop_front_if(|(at_ms, _)| *at_ms <= now_ms))
            {
                match &mut self.servers.get_mut(&to).unwrap().member {
                    Member::Ours(election) => {
                        election.on_notification(now_ms, ServerId(from), &told);
                    }
                    Member::Upstream(election) => {
                        election.on_notification(now_ms, ServerId(from), &told);
                    }
                }
                self.pump(to);
            }
        }
        if now_ms % TICK_MS == 0 {
            for id in self.up() {
                match &mut self.servers.get_mut(&id).unwrap().member {
                    Member::Ours(election) => election.tick(now_ms),
                    Member::Upstream(election) => election.tick(now_ms),
                }
                self.pump(id);
            }
        }
        for id in self.up() {
            self.follow_up(id);
        }
        for ((from, to), told) in std::mem::take(&mut self.lost) {
            if !self.transmit(from, to, &told) {
                self.lost.insert((from, to), told);
            }
        }
    }

    fn up(&self) -> Vec<i64> {
        self.servers.iter().filter(|(_, server)| server.up).map(|(id, _)| *id).collect()
    }

    fn linked(&self, one: i64, other: i64) -> bool {
        self.servers[&one].up && self.servers[&other].up && !self.cut.contains(&(one, other))
    }

    /// Those whose link to this leader is there, itself among them.
    fn learners_of(&self, leader: i64) -> BTreeSet<i64> {
        self.servers
            .iter()
            .filter(|(id, server)| {
                let learns =
                    matches!(server.role, Role::Learning { leader: of, .. } if of == leader);
                **id == leader || (learns && self.linked(**id, leader))
            })
            .map(|(id, _)| *id)
            .collect()
    }

    fn is_quorum(&self, servers: &BTreeSet<i64>) -> bool {
        self.verifier.is_quorum(servers.iter().copied().map(ServerId))
    }

    fn deserted(&self, id: i64) -> bool {
        match &self.servers[&id].member {
            Member::Ours(election) => election.deserted(),
            Member::Upstream(_) => false,
        }
    }

    /// What a server does about its leader or its learners.
    fn follow_up(&mut self, id: i64) {
        let now_ms = self.now_ms;
        match self.servers[&id].role {
            Role::Looking => {}
            Role::Learning { leader, since_ms, established } => {
                let leads = match self.servers[&leader].role {
                    Role::Leading { established, .. } => Some(established),
                    Role::Looking | Role::Learning { .. } => None,
                };
                match leads {
                    Some(leads) if self.linked(id, leader) => {
                        if leads && !established {
                            self.join(id, leader);
                        } else if established && !leads {
                            self.look(id); // It leads again, but the link was of its former life.
                        } else if !established && self.deserted(id) {
                            self.look(id);
                        }
                    }
                    _ if established => self.look(id), // its leader has left
                    _ if self.deserted(id) || now_ms - since_ms > CONNECT_LIMIT_MS => self.look(id), // it never comes
                    _ => {} // it waits for its leader
                }
            }
            Role::Leading { since_ms, established } => {
                let quorum = self.learners_of(id);
                if established {
                    if !self.is_quorum(&quorum) {
                        self.look(id);
                    }
                } else if self.is_quorum(&quorum) {
                    self.establish(id, &quorum);
                } else if self.deserted(id) || now_ms - since_ms > INIT_LIMIT_MS {
                    self.look(id);
                }
            }
        }
    }

    /// Discovery and synchronization in one.
    fn establish(&mut self, id: i64, learners: &BTreeSet<i64>) {
        let history = |server: &Server| (server.current, server.zxid);
        let own = history(&self.servers[&id]);
        assert!(self.verifier.has_weight(ServerId(id)), "{id} leads without weight");
        let voters =
            learners.iter().filter(|learner| self.verifier.has_weight(ServerId(**learner)));
        if voters.clone().any(|voter| history(&self.servers[voter]) > own) {
            self.look(id);
            return;
        }
        let promised = voters.map(|voter| self.servers[voter].accepted).max().unwrap();
        let epoch = Epoch(promised.0 + 1);
        let zxid = self.servers[&id].zxid;
        assert!(zxid >= self.committed, "{id} leads without what was committed");
        assert_eq!(self.leaders.insert(epoch, id), None, "two leaders in {epoch}");
        let server = self.servers.get_mut(&id).unwrap();
        (server.accepted, server.current) = (epoch, epoch);
        server.role = Role::Leading { since_ms: self.now_ms, established: true };
        match &mut server.member {
            Member::Ours(election) => election.settle(PeerState::Leading, epoch),
            Member::Upstream(election) => election.settle(PeerState::Leading, epoch),
        }
        for learner in learners {
            if *learner != id {
                self.join(*learner, id);
            }
        }
        self.committed = self.servers[&id].zxid;
        self.pump(id);
    }

    fn join(&mut self, id: i64, leader: i64) {
        let (zxid, epoch) = (self.servers[&leader].zxid, self.servers[&leader].current);
        if self.servers[&id].accepted > epoch {
            // The leader steps down once, to pass the newcomer's epoch.
            self.servers.get_mut(&leader).unwrap().accepted = self.servers[&id].accepted;
            self.look(leader);
            return;
        }
        let server = self.servers.get_mut(&id).unwrap();
        (server.zxid, server.accepted, server.current) = (zxid, epoch, epoch);
        server.role = Role::Learning { leader, since_ms: self.now_ms, established: true };
        let state = if server.observer { PeerState::Observing } else { PeerState::Following };
        match &mut server.member {
            Member::Ours(election) => election.settle(state, epoch),
            Member::Upstream(election) => election.settle(state, epoch),
        }
        self.pump(id);
    }

    /// The leader, when everybody that is up is with it.
    fn agreed(&self) -> Option<i64> {
        let (id, _) = self.servers.iter().find(|(_, server)| {
            server.up && matches!(server.role, Role::Leading { established: true, .. })
        })?;
        self.servers
            .iter()
            .all(|(other, server)| {
                !server.up
                    || other == id
                    || matches!(server.role, Role::Learning { leader, established: true, .. } if leader == *id)
            })
            .then_some(*id)
    }

    /// A transaction, logged by some of those that follow the leader.
    fn write(&mut self) {
        let leader = self.servers.iter().find(|(_, server)| {
            server.up && matches!(server.role, Role::Leading { established: true, .. })
        });
        let Some((&leader, server)) = leader else { return };
        let zxid = match server.zxid.epoch() == server.current {
            true => server.zxid.next(),
            false => Zxid::new(server.current, 1),
        };
        let before = server.zxid;
        let learners: Vec<i64> = self
            .learners_of(leader)
            .into_iter()
            .filter(|id| {
                *id == leader
                    || matches!(self.servers[id].role, Role::Learning { established: true, .. })
            })
            .collect();
        let mut logged = BTreeSet::new();
        for id in learners {
            // Only who has all before it.
            if self.servers[&id].zxid == before && (id == leader || self.random.chance(70)) {
                self.servers.get_mut(&id).unwrap().zxid = zxid;
                logged.insert(id);
            }
        }
        if self.is_quorum(&logged) {
            self.committed = zxid;
        }
    }

    fn fault(&mut self) {
        let ids: Vec<i64> = self.servers.keys().copied().collect();
        let one = ids[self.random.index(ids.len())];
        let other = ids[self.random.index(ids.len())];
        match self.random.below(8) {
            0 | 1 if self.servers[&one].up => self.stop(one),
            0..=2 if !self.servers[&one].up => self.boot(one),
            3 => {
                self.cut.insert((one, other));
                self.cut.insert((other, one));
            }
            4 => self.cut.clear(),
            5 => self.lossy = !self.lossy,
            6 => self.lose_disk(one),
            _ => self.write(), // what is left, or cannot be done
        }
    }

    /// Takes a server's data away when everybody else's is complete: more cannot be survived.
    fn lose_disk(&mut self, id: i64) {
        let ours = matches!(self.servers[&id].member, Member::Ours(_));
        let complete = self
            .servers
            .iter()
            .filter(|(other, server)| {
                **other != id
                    && !server.observer
                    && server.zxid >= self.committed
                    && server.has_data()
            })
            .count();
        if !ours
            || self.shape.voters < 3
            || complete < usize::try_from(self.shape.voters).unwrap() - 1
        {
            return;
        }
        self.stop(id);
        let server = self.servers.get_mut(&id).unwrap();
        (server.zxid, server.accepted, server.current) = (Zxid(0), Epoch(0), Epoch(0));
        self.boot(id);
    }

    /// Runs until everybody that is up agrees; how long that took.
    fn until_agreed(&mut self, limit_ms: i64) -> i64 {
        let began_ms = self.now_ms;
        while self.agreed().is_none() {
            assert!(self.now_ms - began_ms < limit_ms, "no agreement: {self:#?}");
            self.step();
        }
        self.now_ms - began_ms
    }
}

/// Faults for a while, then none: everybody must come to agree. Returns how long the slowest took.
fn run(seeds: std::ops::Range<u64>, shape: Shape) -> i64 {
    let mut slowest_ms = 0;
    for seed in seeds {
        let mut ensemble = Ensemble::new(seed, shape);
        for id in ensemble.servers.keys().copied().collect::<Vec<_>>() {
            if ensemble.random.chance(70) {
                ensemble.boot(id);
            }
        }
        for _ in 0..40 {
            let until_ms = ensemble.now_ms + i64::try_from(ensemble.random.below(300)).unwrap();
            while ensemble.now_ms < until_ms {
                ensemble.step();
            }
            ensemble.fault();
        }
        ensemble.cut.clear();
        ensemble.lossy = false;
        for id in ensemble.servers.keys().copied().collect::<Vec<_>>() {
            if !ensemble.servers[&id].up {
                ensemble.boot(id);
            }
        }
        slowest_ms = slowest_ms.max(ensemble.until_agreed(30_000));
        let leader = &ensemble.servers[&ensemble.agreed().unwrap()];
        assert!(leader.zxid >= ensemble.committed);
        // And it lasts; once what was under way is answered, without a word.
        let mut messages = 0;
        let agreed_ms = ensemble.now_ms;
        while ensemble.now_ms < agreed_ms + 3000 {
            ensemble.step();
            assert!(ensemble.agreed().is_some(), "seed {seed}");
            if ensemble.now_ms < agreed_ms + 4 * i64::try_from(shape.delay_max_ms).unwrap() {
                messages = ensemble.messages;
            }
        }
        assert_eq!(ensemble.messages, messages, "seed {seed}");
    }
    slowest_ms
}

#[test]
fn random_ensembles_agree_when_faults_end() {
    for (voters, observers) in [(1, 1), (3, 0), (3, 2), (5, 1), (7, 0)] {
        let shape = Shape { voters, observers, upstream: 0, delay_max_ms: 20, groups: &[] };
        let slowest_ms = run(0..60, shape);
        // A link that works again is noticed by the next message: `maxNotificationInterval`.
        assert!(slowest_ms < 5000, "{shape:?}: {slowest_ms} ms");
    }
}

#[test]
fn votes_that_are_later_than_the_wait_do_no_lasting_harm() {
    let shape = Shape { voters: 5, observers: 1, upstream: 0, delay_max_ms: 400, groups: &[] };
    run(1000..1040, shape);
}

#[test]
fn random_ensembles_with_members_that_always_wait_agree_too() {
    for (voters, upstream) in [(3, 30), (3, 60), (5, 20), (5, 80)] {
        let shape = Shape { voters, observers: 1, upstream, delay_max_ms: 20, groups: &[] };
        run(2000..2040, shape);
    }
}

#[test]
fn a_dead_leader_is_replaced_without_any_wait() {
    for voters in [3, 5, 7] {
        for seed in 0..20 {
            let shape = Shape { voters, observers: 1, upstream: 0, delay_max_ms: 5, groups: &[] };
            let mut ensemble = Ensemble::new(seed, shape);
            // One after the other: each is refused by those that are not there yet.
            for id in 1..=voters + 1 {
                ensemble.boot(id);
            }
            ensemble.until_agreed(1000);
            ensemble.write();
            let leader = ensemble.agreed().unwrap();
            ensemble.stop(leader);
            let took_ms = ensemble.until_agreed(1000);
            assert!(took_ms <= 40, "seed {seed}: {took_ms} ms without the leader");
            ensemble.boot(leader);
            let took_ms = ensemble.until_agreed(1000);
            assert!(took_ms <= 40, "seed {seed}: {took_ms} ms until it is back");
            assert_ne!(ensemble.agreed(), Some(leader));
        }
    }
}

/// Those with the highest ids have no weight, so that they would win all elections if they could.
const GROUPS: [&[&[(i64, u64)]]; 3] = [
    &[&[(1, 1), (2, 1), (3, 1)], &[(4, 1), (5, 1), (6, 1)], &[(7, 1), (8, 1), (9, 1)]],
    &[&[(1, 1), (2, 1), (3, 1)], &[(4, 2), (5, 1)], &[(6, 0), (7, 0)]],
    &[&[(1, 1), (2, 3), (3, 1), (4, 1), (5, 0)]],
];

#[test]
fn groups_and_weights_decide_who_is_elected() {
    for groups in GROUPS {
        let voters = i64::try_from(groups.iter().copied().flatten().count()).unwrap();
        for upstream in [0, 40, 100] {
            let shape = Shape { voters, observers: 1, upstream, delay_max_ms: 20, groups };
            let slowest_ms = run(3000..3030, shape);
            assert!(upstream > 0 || slowest_ms < 5000, "{shape:?}: {slowest_ms} ms");
        }
    }
}
