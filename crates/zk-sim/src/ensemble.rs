//! The whole ensemble on one thread: production nodes, with everything around them simulated.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes, BytesMut};
use zk_processor::{Action, Client as Handle, Flow, Node, NodeConfig, Outbox};
use zk_proto::connect::ConnectResponse;
use zk_proto::quorum::{Notification, PacketType, PeerState, QuorumPacket};
use zk_proto::txn::Txn;
use zk_proto::{Epoch, Record, ServerId, SessionId, Xid, Zxid};
use zk_session::{SessionConfig, first_id};
use zk_testkit::Prng;
use zk_tree::{Checkpoint, Database, TreeConfig};
use zk_zab::{LinkId, Members, PeerConfig, Write};

use crate::check::leadership::Leadership;
use crate::check::log::Logged;
use crate::check::{Checks, Verdict, Violation, commit::Commits, durability, fail};
use crate::clock::{Clocks, MS, Queue, SECOND};
use crate::disk::{Disk, Image, Landed};
use crate::markers::{Marker, Markers};
use crate::nemesis::Mend;
use crate::network::{End, Frame, Item, Link, Network, Pipe};
use crate::swarm::Scenario;
use crate::trace::Trace;
use crate::workload::Client;

/// How long an ensemble may take, once nothing fails any more (L1), in µs.
pub(crate) const HEAL_MAX_US: i64 = 10 * SECOND;

/// How long it may take after that, and after the last request, until all members are the same, in µs.
const SETTLE_MAX_US: i64 = 10 * SECOND;

/// What takes longer than this is a cut, or a wedged disk: something that ends when all faults do.
const LATENCY_MAX_US: i64 = 1500 * MS;

/// The wall clock at simulated time 0, in ms since 1970.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// Packets handed over under one lock.
const PACKETS_MAX: usize = 64;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process starts.
    Boot(usize),
    Tick(usize, u32),
    /// A sync comes to its end.
    Synced(usize, u32),
    /// Something arrives at an end of a link.
    Arrive(usize, usize),
    /// A dialled member's kernel answers, or nobody does.
    Dialled(usize),
    DialFailed(usize),
    /// The dialled process learns of it.
    Accept(usize),
    Connected(usize),
    Notify { from: usize, to: usize, notification: Box<Notification> },
    Reachable { at: usize, life: u32, server: usize, reachable: bool },
    CheckpointBegins(usize, u32),
    CheckpointEnds(usize, u32),
    /// Something of a client's arrives at its server.
    ToServer(usize),
    /// And the other way round.
    ToClient(usize),
    /// A client does the next thing.
    Client(usize, u64),
    /// The next fault.
    Fault,
    /// A fault ends.
    Mend(Mend),
    /// All faults end.
    Heal,
    /// L1 is due.
    Deadline,
    /// Whether all members are the same.
    Settled,
}

/// Whether a machine and its process are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// The machine is there and refuses connections.
    ProcessDown,
    MachineDown,
}

#[derive(Debug, Default)]
struct OutboxState {
    bytes: BytesMut,
    closing: bool,
    resumed: bool,
    dirty: bool,
}

/// What the connections of one member have to send.
type Outboxes = Arc<Mutex<Vec<usize>>>;

#[derive(Debug)]
struct SimOutbox {
    connection: usize,
    state: Arc<Mutex<OutboxState>>,
    outboxes: Outboxes,
}

impl SimOutbox {
    fn touch(&self, change: impl FnOnce(&mut OutboxState)) {
        let mut state = self.state.lock().expect("nobody panics while holding it");
        change(&mut state);
        if !std::mem::replace(&mut state.dirty, true) {
            let mut outboxes = self.outboxes.lock().expect("nobody panics while holding it");
            outboxes.push(self.connection);
        }
    }
}

impl Outbox for SimOutbox {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        self.touch(|state| {
            if !state.closing {
                write(&mut state.bytes);
            }
        });
    }

    fn close(&self) {
        self.touch(|state| state.closing = true);
    }

    fn resume(&self) {
        self.touch(|state| state.resumed = true);
    }
}

/// A member: its machine, and the process on it.
pub(crate) struct Member {
    pub(crate) id: ServerId,
    pub(crate) voter: bool,
    pub(crate) power: Power,
    /// Counts its processes.
    pub(crate) life: u32,
    pub(crate) node: Option<Node>,
    pub(crate) disk: Disk,
    pub(crate) clocks: Clocks,
    pub(crate) paused: bool,
    /// What happened to it while it was paused.
    pub(crate) stash: Vec<Event>,
    /// Its network and disk take so many times as long.
    pub(crate) slow: i64,
    outboxes: Outboxes,
    links: BTreeMap<LinkId, (usize, usize)>,
    staged: BTreeMap<LinkId, Arc<Image>>,
    checkpoint: Option<Checkpoint>,
    /// Where its tree was when last looked at.
    pub(crate) applied: Zxid,
    /// The epochs that it asked its disk to keep.
    asked_accepted: Epoch,
    asked_current: Epoch,
    pub(crate) state: PeerState,
    pub(crate) serving: bool,
    /// When what it does last changed, in µs.
    pub(crate) since_us: i64,
    election_ms: Option<i64>,
    /// Its data was lost, and is not back yet.
    pub(crate) lost: bool,
    /// Since when its disk is wedged, in µs.
    pub(crate) wedged_us: Option<i64>,
    /// It led when it was paused.
    pub(crate) led_when_paused: Option<Epoch>,
    pub(crate) restart_pending: bool,
}

/// A connection of a client.
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) member: usize,
    life: u32,
    handle: Option<Arc<Handle>>,
    outbox: Arc<Mutex<OutboxState>>,
    held: VecDeque<Bytes>,
    waiting: bool,
    /// The server knows that it is over.
    server_closed: bool,
    greeted: bool,
    pub(crate) session: SessionId,
    to_server: Pipe<Frame>,
    to_client: Pipe<Frame>,
}

/// One run.
pub(crate) struct Ensemble {
    pub(crate) scenario: Rc<Scenario>,
    pub(crate) rng: Prng,
    pub(crate) queue: Queue<Event>,
    pub(crate) members: Vec<Member>,
    pub(crate) network: Network,
    links: Vec<Link>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) clients: Vec<Client>,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) markers: Markers,
    pub(crate) violation: Option<Violation>,
    /// `told[a][b]`: what `a`'s process was last told about reaching `b`.
    told: Vec<Vec<Option<bool>>>,
    /// Election messages that a cut holds up: the newest, as the sender's queue has it.
    unsent: BTreeMap<(usize, usize), Box<Notification>>,
    /// When the last election message on this way arrives.
    last_notification_us: BTreeMap<(usize, usize), i64>,
    /// When something last failed, or was mended, in µs.
    pub(crate) disturbed_us: i64,
    pub(crate) healed: bool,
    /// Clients ask for nothing more.
    pub(crate) quiet: bool,
    settle_by_us: i64,
    pub(crate) probe_done_us: Option<i64>,
    /// Members whose data was lost, ever.
    pub(crate) losses: usize,
    last_leader: Option<usize>,
    finished: bool,
    actions: Vec<Action>,
    landed: Vec<Landed>,
    /// Operations that clients may still ask for.
    pub(crate) operations_left: usize,
}

impl Ensemble {
    /// The ensemble of a seed, before anything happened.
    pub(crate) fn new(scenario: Scenario, trace: Trace) -> Self {
        let mut rng = Prng::new(scenario.seed);
        let count = scenario.members();
        let members = (0..count)
            .map(|index| Member {
                id: ServerId(i64::try_from(index).unwrap_or_default() + 1),
                voter: index < scenario.voters,
                power: Power::ProcessDown,
                life: 0,
                node: None,
                disk: Disk::new(scenario.initialized),
                clocks: Clocks {
                    mono_offset_us: i64::try_from(rng.below(1_000_000_000_000)).unwrap_or_default(),
                    wall_offset_ms: WALL_START_MS
                        + i64::try_from(rng.below(2000)).unwrap_or_default(),
                },
                paused: false,
                stash: Vec::new(),
                slow: 1,
                outboxes: Outboxes::default(),
                links: BTreeMap::new(),
                staged: BTreeMap::new(),
                checkpoint: None,
                applied: Zxid::ZERO,
                asked_accepted: Epoch(0),
                asked_current: Epoch(0),
                state: PeerState::Looking,
                serving: false,
                since_us: 0,
                election_ms: None,
                lost: false,
                wedged_us: None,
                led_when_paused: None,
                restart_pending: true,
            })
            .collect();
        // One more client: the probe.
        let clients = (0..=scenario.clients)
            .map(|index| Client::new(index == scenario.clients, &scenario, &mut rng))
            .collect::<Vec<_>>();
        let mut network = Network::new(count, clients.len());
        network.base_us = scenario.latency_us;
        network.jitter_us = scenario.latency_us;
        network.spike_permille = scenario.spike_permille;
        network.spike_us = 400 * MS;
        let mut ensemble = Self {
            rng,
            queue: Queue::default(),
            members,
            network,
            links: Vec::new(),
            connections: Vec::new(),
            clients,
            checks: Checks::default(),
            trace,
            markers: Markers::default(),
            violation: None,
            told: vec![vec![None; count]; count],
            unsent: BTreeMap::new(),
            last_notification_us: BTreeMap::new(),
            disturbed_us: 0,
            healed: false,
            quiet: false,
            settle_by_us: 0,
            probe_done_us: None,
            losses: 0,
            last_leader: None,
            finished: false,
            actions: Vec::new(),
            landed: Vec::new(),
            operations_left: scenario.operations,
            scenario: Rc::new(scenario),
        };
        ensemble.begin();
        ensemble
    }

    fn begin(&mut self) {
        for member in 0..self.members.len() {
            let delay = self.within(500 * MS);
            self.queue.push(delay, Event::Boot(member));
        }
        for client in 0..self.scenario.clients {
            let delay = self.within(SECOND);
            self.queue.push(delay, Event::Client(client, 0));
        }
        if !self.scenario.faults.is_empty() {
            let delay = SECOND + self.within(self.scenario.fault_gap_us);
            self.queue.push(delay, Event::Fault);
        }
        self.queue.push(self.scenario.faults_us, Event::Heal);
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) {
        while !self.finished && self.violation.is_none() {
            let Some(event) = self.queue.pop() else { break };
            self.happen(event);
        }
    }

    pub(crate) fn now_us(&self) -> i64 {
        self.queue.now_us()
    }

    /// A time of up to `max_us`.
    pub(crate) fn within(&mut self, max_us: i64) -> i64 {
        let bound = u64::try_from(max_us).unwrap_or_default() + 1;
        i64::try_from(self.rng.below(bound)).unwrap_or_default()
    }

    pub(crate) fn say(&self, words: impl FnOnce() -> String) {
        if self.trace.wants_words() {
            self.trace.say(self.now_us(), &words());
        }
    }

    pub(crate) fn met(&mut self, marker: Marker) {
        self.markers.met(marker);
    }

    pub(crate) fn demand(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violated(violation);
        }
    }

    pub(crate) fn violated(&mut self, violation: Violation) {
        self.say(|| format!("VIOLATION {}: {}", violation.checker, violation.message));
        self.violation.get_or_insert(violation);
    }

    fn note(&self, kind: u64, a: usize, b: u64) {
        self.trace.step([self.now_us().cast_unsigned(), kind, a as u64, b]);
    }

    fn happen(&mut self, event: Event) {
        if let Some(member) = Self::concerns(&event, self)
            && self.members[member].paused
        {
            self.members[member].stash.push(event);
            return;
        }
        match event {
            Event::Boot(member) => self.boot(member),
            Event::Tick(member, life) => self.tick(member, life),
            Event::Synced(member, life) => self.synced(member, life),
            Event::Arrive(link, end) => self.arrive(link, end),
            Event::Dialled(link) => self.dialled(link),
            Event::DialFailed(link) => self.dial_failed(link),
            Event::Accept(link) => self.accept(link),
            Event::Connected(link) => self.connected(link),
            Event::Notify { from, to, notification } => self.notified(from, to, notification),
            Event::Reachable { at, life, server, reachable } => {
                self.told_reachable(at, life, server, reachable);
            }
            Event::CheckpointBegins(member, life) => self.checkpoint_begins(member, life),
            Event::CheckpointEnds(member, life) => self.checkpoint_ends(member, life),
            Event::ToServer(connection) => self.to_server(connection),
            Event::ToClient(connection) => self.to_client(connection),
            Event::Client(client, turn) => self.client_turn(client, turn),
            Event::Fault => self.fault(),
            Event::Mend(mend) => self.mend(mend),
            Event::Heal => self.heal(),
            Event::Deadline => self.deadline(),
            Event::Settled => self.settled(),
        }
    }

    /// The member whose process would handle the event.
    fn concerns(event: &Event, ensemble: &Self) -> Option<usize> {
        match event {
            Event::Tick(member, _)
            | Event::Synced(member, _)
            | Event::CheckpointBegins(member, _)
            | Event::CheckpointEnds(member, _) => Some(*member),
            Event::Arrive(link, end) => Some(ensemble.links[*link].ends[*end].member),
            Event::Accept(link) => Some(ensemble.links[*link].ends[1].member),
            Event::DialFailed(link) | Event::Connected(link) => {
                Some(ensemble.links[*link].ends[0].member)
            }
            Event::Notify { to, .. } => Some(*to),
            Event::Reachable { at, .. } => Some(*at),
            Event::ToServer(connection) => Some(ensemble.connections[*connection].member),
            Event::Boot(_)
            | Event::Dialled(_)
            | Event::ToClient(_)
            | Event::Client(..)
            | Event::Fault
            | Event::Mend(_)
            | Event::Heal
            | Event::Deadline
            | Event::Settled => None,
        }
    }

    // ---- processes

    fn node_config(&self, member: usize) -> NodeConfig {
        let clocks = self.members[member].clocks;
        let mut config = NodeConfig::new(SessionConfig {
            tick_ms: self.scenario.tick_ms,
            min_timeout_ms: self.scenario.timeout_min_ms,
            max_timeout_ms: self.scenario.timeout_max_ms,
            first_id: first_id(self.members[member].id, clocks.now(self.now_us()).wall_ms),
        });
        config.extended_types = self.scenario.extended_types;
        config
    }

    fn peer_config(&self, member: usize) -> PeerConfig {
        let mut members = Members::default();
        for each in &self.members {
            let role = if each.voter { "participant" } else { "observer" };
            members.text += &format!("server.{0}=s{0}:2888:3888:{role};0.0.0.0:2181\n", each.id);
            if each.voter {
                members.voters.insert(each.id);
            } else {
                members.observers.insert(each.id);
            }
        }
        let scenario = &self.scenario;
        PeerConfig {
            tick_ms: scenario.tick_ms,
            init_limit_ticks: scenario.init_limit,
            sync_limit_ticks: scenario.sync_limit,
            notification_interval_min_ms: 200.min(scenario.notification_max_ms),
            notification_interval_max_ms: scenario.notification_max_ms,
            finalize_wait_ms: scenario.finalize_wait_ms,
            commit_log_count: scenario.commit_log_count,
            snapshot_size_factor: scenario.snapshot_size_factor,
            counter_limit: scenario.counter_limit,
            ..PeerConfig::new(self.members[member].id, members)
        }
    }

    fn boot(&mut self, member: usize) {
        self.members[member].restart_pending = false;
        if self.members[member].power == Power::On {
            return;
        }
        let now_us = self.now_us();
        self.disturbed_us = now_us;
        let config = self.node_config(member);
        let peer = self.peer_config(member);
        let it = &mut self.members[member];
        it.power = Power::On;
        it.life += 1;
        it.paused = false;
        it.state = PeerState::Looking;
        it.serving = false;
        it.since_us = now_us;
        it.election_ms = None;
        it.asked_accepted = it.disk.accepted_epoch;
        it.asked_current = it.disk.current_epoch;
        let tree =
            TreeConfig { extended_types: config.extended_types, digest_enabled: config.digest_enabled };
        let image = Arc::clone(&it.disk.image);
        let durable = it.disk.durable();
        let replays = image.zxid > Zxid::ZERO && !durable.tail.is_empty();
        let mut db = match image.load(tree) {
            Ok(db) => db,
            Err(message) => {
                return self.violated(Violation {
                    checker: "D5 what was stored is what was applied",
                    message,
                });
            }
        };
        let now = it.clocks.now(now_us);
        let life = it.life;
        let (id, accepted, current) = (it.id, durable.accepted_epoch, durable.current_epoch);
        let (applied, last) = (durable.applied, durable.last_logged());
        let node = if self.scenario.standalone {
            self.checks.ledger.forget_above(it.disk.durable_end());
            for (zxid, bytes) in &durable.tail {
                match zk_proto::txn::LoggedTxn::decode(bytes) {
                    Ok(txn) => drop(db.apply(&txn, &mut |_, _| {})),
                    Err(error) => panic!("{zxid} cannot be decoded: {error}"),
                }
            }
            Node::standalone(config, db, now)
        } else {
            Node::member(config, peer, durable, db, Box::new(it.disk.log.clone()), now)
        };
        it.node = Some(node);
        it.applied = Zxid::ZERO;
        for told in &mut self.told[member] {
            *told = None;
        }
        if replays {
            self.met(Marker::RestartReplayedLog);
        }
        self.note(1, member, u64::from(life));
        self.say(|| {
            format!(
                "m{id} starts, life {life}: accepted epoch {accepted}, current {current}, tree at {applied}, log to {last}"
            )
        });
        self.observe(member);
        let delay = self.within(20 * MS);
        self.queue.push(delay, Event::Tick(member, life));
        let delay = self.within(self.scenario.checkpoint_us);
        self.queue.push(delay, Event::CheckpointBegins(member, life));
    }

    /// Whether this is the process that is running now.
    fn is_alive(&self, member: usize, life: u32) -> bool {
        let member = &self.members[member];
        member.life == life && member.power == Power::On
    }

    pub(crate) fn is_running(&self, member: usize) -> bool {
        self.members[member].power == Power::On
    }

    /// Calls a node, and does what it asks for.
    fn call(
        &mut self,
        member: usize,
        input: impl FnOnce(&Node, zk_processor::Now, &mut dyn FnMut(Action)),
    ) {
        let now_us = self.now_us();
        let it = &self.members[member];
        let Some(node) = &it.node else { return };
        let mut actions = std::mem::take(&mut self.actions);
        input(node, it.clocks.now(now_us), &mut |action| actions.push(action));
        self.inspect_appends(member, &actions);
        for action in actions.drain(..) {
            if self.violation.is_none() {
                self.perform(member, action);
            }
        }
        self.actions = actions;
        self.observe(member);
    }

    fn tick(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        self.call(member, |node, now, actions| node.on_tick(now, actions));
        if !self.is_alive(member, life) {
            return;
        }
        self.watch_role(member);
        let interval = if self.members[member].serving { self.scenario.calm_tick_us } else { 12 * MS };
        self.queue.push(interval, Event::Tick(member, life));
    }

    /// What can be seen of a member from outside, now and then.
    fn watch_role(&mut self, member: usize) {
        let Some(node) = &self.members[member].node else { return };
        let status = node.quorum_status();
        let serving = node.is_serving();
        let now_us = self.now_us();
        let it = &mut self.members[member];
        let changed = (it.state, it.serving) != (status.state, serving);
        if changed {
            it.since_us = now_us;
        }
        let left = it.serving && !serving && it.disk.wedged && it.disk.waiting_since_us.is_some();
        let led = it.state == PeerState::Leading;
        (it.state, it.serving) = (status.state, serving);
        if left {
            self.markers.met(if led {
                Marker::WedgedLeaderSteppedDown
            } else {
                Marker::WedgedLearnerLeft
            });
        }
        let it = &mut self.members[member];
        if status.election_ms != it.election_ms {
            it.election_ms = status.election_ms;
            if status.election_ms.is_some_and(|took| took < self.scenario.finalize_wait_ms) {
                self.met(Marker::FastDecision);
            }
        }
        if changed {
            self.disturbed_us = now_us;
            self.note(2, member, status.state.code().unsigned_abs().into());
            let id = self.members[member].id;
            self.say(|| {
                format!(
                    "m{id} is {:?}{} in epoch {}, committed {}",
                    status.state,
                    if serving { ", serving," } else { "" },
                    status.current_epoch,
                    status.committed
                )
            });
            if serving && status.state == PeerState::Leading && !self.scenario.standalone {
                self.leader_serves(member, status.current_epoch);
            }
        }
        self.watch_wedged(member);
    }

    fn leader_serves(&mut self, member: usize, epoch: Epoch) {
        let verdict = self.checks.leadership.one_leader_serves_in_an_epoch(member, epoch);
        self.demand(verdict);
        self.met(Marker::LeaderServes);
        if self.last_leader.replace(member).is_some_and(|last| last != member) {
            self.met(Marker::LeaderChanged);
        }
    }

    /// L2: a leader whose disk does not answer steps down.
    fn watch_wedged(&mut self, member: usize) {
        let it = &self.members[member];
        let (Some(_), Some(waiting)) = (it.wedged_us, it.disk.waiting_since_us) else { return };
        let limit = (self.scenario.sync_limit + 2) * self.scenario.tick_ms * MS + 200 * MS;
        let late = self.now_us() - waiting.max(it.since_us) > limit;
        if late && !self.scenario.standalone && it.serving {
            self.demand(fail(
                "L2 a member with a wedged disk does not go on",
                format!("member {member} still serves as {:?} after {} ms", it.state, limit / MS),
            ));
        }
    }

    /// What a call made of a member's tree and its clients' outboxes.
    fn observe(&mut self, member: usize) {
        let Some(node) = &self.members[member].node else { return };
        let (applied, digest) = node.read(|db| (db.tree.last_zxid(), db.tree.digest()));
        let before = self.members[member].applied;
        if applied != before {
            self.members[member].applied = applied;
            self.note(3, member, applied.0.cast_unsigned());
            self.say(|| format!("m{} has applied {applied}", member + 1));
            if applied < before {
                return self.demand(fail(
                    "Z11 what is applied never goes back",
                    format!("the tree of member {member} goes from {before} to {applied}"),
                ));
            }
            if applied.counter() != 0 || self.scenario.standalone {
                self.committed(member, applied);
                let verdict = durability::memory_is_never_ahead_of_the_disk(
                    member,
                    applied,
                    &self.members[member].disk,
                );
                self.demand(verdict);
                let verdict =
                    self.checks.trees_at_the_same_zxid_are_equal(member, applied, digest);
                self.demand(verdict);
            }
        }
        let dirty = {
            let mut outboxes =
                self.members[member].outboxes.lock().expect("nobody panics while holding it");
            std::mem::take(&mut *outboxes)
        };
        for connection in dirty {
            self.drain_outbox(connection);
        }
    }

    /// A member treats everything up to `zxid` as committed.
    fn committed(&mut self, member: usize, zxid: Zxid) {
        let checks = &mut self.checks;
        let new = match checks.commits.committed_prefixes_agree(member, zxid, &checks.ledger) {
            Ok(new) => new,
            Err(violation) => return self.violated(violation),
        };
        let Some(&last) = new.last() else { return };
        let voters = self.members.iter().filter(|member| member.voter);
        // What a lost disk had acknowledged still counts: that is the fault that is tolerated.
        let holders = voters.filter(|voter| voter.lost || voter.disk.has(last)).count();
        let verdict = Commits::what_is_committed_is_on_the_disks_of_a_quorum(
            member,
            last,
            holders,
            self.scenario.voters,
        );
        self.demand(verdict);
        if !self.members[member].disk.has(last) {
            self.met(Marker::CommittedBeforeOwnDisk);
        }
        for zxid in new {
            self.apply_to_model(zxid);
        }
    }

    fn apply_to_model(&mut self, zxid: Zxid) {
        let checks = &mut self.checks;
        let Some(proposed) = checks.ledger.get(zxid) else { return };
        let (header, txn) = (proposed.txn.header, &proposed.txn.txn);
        let verdict = checks
            .sessions
            .sessions_begin_once_and_end_for_ever(&header, txn)
            .and_then(|()| {
                checks.clients.a_write_takes_effect_once_in_order_as_it_was_asked_for(
                    &checks.model,
                    &header,
                    txn,
                )
            })
            .and_then(|()| {
                checks.model.apply(&header, txn).map_err(|message| Violation {
                    checker: "S1 C1 what is committed can be applied, and a session takes along what it owns",
                    message: format!("{zxid}: {message}"),
                })
            });
        checks.clients.applied(&checks.model, &header);
        match txn {
            Txn::Multi(txns) => {
                let failed = txns.iter().any(|(_, txn)| matches!(txn, Txn::Error(_)));
                self.markers.met(if failed { Marker::MultiFailed } else { Marker::MultiApplied });
            }
            Txn::CloseSession(closed) if header.cxid == Xid(0) => {
                self.markers.met(Marker::SessionExpired);
                if closed.as_ref().is_some_and(|closed| !closed.paths_to_delete.is_empty()) {
                    self.markers.met(Marker::EphemeralsExpired);
                }
            }
            Txn::CloseSession(_) => self.markers.met(Marker::SessionClosed),
            Txn::Error(error) if error.err == zk_proto::ErrorCode::SESSION_MOVED => {
                self.markers.met(Marker::SessionMovedError);
            }
            _ => {} // nothing to note
        }
        if zxid.epoch() < self.checks.leadership.newest_offered() {
            self.met(Marker::OutstandingSurvived);
        }
        self.demand(verdict);
    }

    // ---- what nodes ask for

    fn perform(&mut self, member: usize, action: Action) {
        match action {
            Action::Persist { token, write } => self.persist(member, token, write),
            Action::Notify { to, notification } => {
                let to = usize::try_from(to.0 - 1).unwrap_or(usize::MAX);
                if to < self.members.len() {
                    self.send_notification(member, to, Box::new(notification));
                }
            }
            Action::Connect { link, leader } => self.dial(member, link, leader),
            Action::Close { link } => {
                if let Some((link, end)) = self.members[member].links.remove(&link) {
                    self.hang_up(link, end);
                }
            }
            Action::Send { link, packet } => self.send(member, link, packet),
            Action::SendHistory { link, after, to } => self.send_history(member, link, after, to),
            Action::SendSnapshot { link, to } => self.send_snapshot(member, link, to),
            Action::Halt { why } => {
                self.demand(fail("L1 no member halts", format!("member {member}: {why}")));
            }
        }
    }

    fn persist(&mut self, member: usize, token: zk_zab::Token, write: Write) {
        let verdict = match &write {
            Write::Append { .. } => Ok(()), // looked at before
            Write::AcceptedEpoch(epoch) => {
                let it = &mut self.members[member];
                let before = std::mem::replace(&mut it.asked_accepted, *epoch);
                Leadership::epochs_never_go_back(member, "accepted", before, *epoch, *epoch)
            }
            Write::CurrentEpoch(epoch) => {
                let it = &mut self.members[member];
                let before = std::mem::replace(&mut it.asked_current, *epoch);
                let accepted = it.asked_accepted;
                Leadership::epochs_never_go_back(member, "current", before, *epoch, accepted)
            }
            Write::Truncate(zxid) => {
                let end = self.members[member].disk.end();
                if end > *zxid {
                    self.met(Marker::OutstandingDiscarded);
                }
                self.checks.commits.committed_transactions_stay_on_a_disk(member, *zxid, end)
            }
            Write::InstallSnapshot { .. } => Ok(()),
        };
        self.demand(verdict);
        self.say(|| match &write {
            Write::Append { zxid, .. } => format!("m{} writes {zxid}", member + 1),
            other => format!("m{} writes {other:?}", member + 1),
        });
        let now_us = self.now_us();
        let it = &mut self.members[member];
        let staged = match &write {
            Write::InstallSnapshot { link, .. } => it.staged.get(link).cloned(),
            Write::Append { .. }
            | Write::AcceptedEpoch(_)
            | Write::CurrentEpoch(_)
            | Write::Truncate(_) => None,
        };
        it.disk.submit(token, write, staged, now_us);
        self.sync(member);
    }

    /// What a member appends to its log, before anything that it asks for in the same breath: a
    /// proposal may be sent first and appended then.
    fn inspect_appends(&mut self, member: usize, actions: &[Action]) {
        let mut end = self.members[member].disk.end();
        for action in actions {
            let Action::Persist { write, .. } = action else { continue };
            match write {
                Write::Append { zxid, txn } => {
                    let verdict = self.appended(member, end, *zxid, txn);
                    self.demand(verdict);
                    end = *zxid;
                }
                Write::Truncate(zxid) | Write::InstallSnapshot { zxid, .. } => end = *zxid,
                Write::AcceptedEpoch(_) | Write::CurrentEpoch(_) => {}
            }
        }
    }

    fn appended(&mut self, member: usize, before: Zxid, zxid: Zxid, txn: &Bytes) -> Verdict {
        let it = &self.members[member];
        let life = it.life;
        let leads = self.checks.ledger.get(zxid).is_none()
            && (self.scenario.standalone
                || it.node.as_ref().is_some_and(|node| {
                    node.quorum_status().state == PeerState::Leading
                })
                || self.checks.leadership.history(zxid.epoch()).is_some()
                    && self.checks.leadership.is_of(zxid.epoch(), member, life));
        let logged = self.checks.ledger.every_log_is_a_prefix_of_what_was_proposed(
            (member, life),
            leads,
            before,
            zxid,
            txn,
        )?;
        let Logged::Proposed { first } = logged else { return Ok(()) };
        if first && !self.scenario.standalone {
            let applied = it.node.as_ref().map_or(Zxid::ZERO, |node| {
                node.read(|db| db.tree.last_zxid())
            });
            Leadership::a_new_primary_has_delivered_what_was_before_it(
                member, zxid, before, applied,
            )?;
        }
        if zxid.counter() == self.scenario.counter_limit {
            self.markers.met(Marker::Rollover);
        }
        let Some(proposed) = self.checks.ledger.get(zxid) else { return Ok(()) };
        if matches!(proposed.txn.txn, Txn::CloseSession(_)) {
            let slack_us = (self.scenario.tick_ms + 300) * MS;
            self.checks.sessions.no_session_expires_before_its_timeout(
                &proposed.txn.header,
                self.now_us(),
                self.disturbed_us,
                slack_us,
            )?;
        }
        Ok(())
    }

    // ---- disks

    pub(crate) fn sync(&mut self, member: usize) {
        let max = if self.healed { usize::MAX } else { self.scenario.sync_max };
        let it = &mut self.members[member];
        if it.power != Power::On || !it.disk.begin_sync(max) {
            return;
        }
        let (life, slow) = (it.life, it.slow);
        let fast = if self.healed { self.scenario.sync_us.min(5 * MS) } else { self.scenario.sync_us };
        let mut delay = fast + self.within(fast);
        if self.rng.chance(2) {
            delay += self.within(20 * fast);
        }
        self.queue.push((delay * slow).min(LATENCY_MAX_US), Event::Synced(member, life));
    }

    fn synced(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        let it = &mut self.members[member];
        if it.disk.wedged {
            it.disk.overdue = true;
            return;
        }
        if it.disk.fails {
            self.met(Marker::FsyncErrorStopped);
            self.say(|| format!("m{}: a sync failed", member + 1));
            let restart = self.within(2 * SECOND);
            return self.crash(member, Power::ProcessDown, Some(restart));
        }
        if it.disk.full && it.disk.is_appending() {
            self.met(Marker::DiskFullStopped);
            self.say(|| format!("m{}: the disk is full", member + 1));
            return self.crash(member, Power::ProcessDown, None);
        }
        let now_us = self.now_us();
        let mut landed = std::mem::take(&mut self.landed);
        let token = self.members[member].disk.end_sync(now_us, &mut landed);
        self.landed(member, &landed);
        landed.clear();
        self.landed = landed;
        if let Some(token) = token {
            self.note(4, member, token.0);
            self.say(|| format!("m{}: all writes up to {} are on disk", member + 1, token.0));
            self.call(member, |node, now, actions| node.on_persisted(token, now, actions));
        }
        self.sync(member);
    }

    /// What reached a disk.
    fn landed(&mut self, member: usize, landed: &[Landed]) {
        for landed in landed {
            let verdict = match *landed {
                Landed::Append(_) | Landed::AcceptedEpoch(_) => Ok(()),
                Landed::CurrentEpoch(epoch) => {
                    if std::mem::take(&mut self.members[member].lost) {
                        self.met(Marker::LostDataMemberRejoined);
                    }
                    durability::an_epoch_is_written_behind_its_history(
                        member,
                        epoch,
                        self.checks.leadership.history(epoch),
                        &self.members[member].disk,
                    )
                }
                Landed::Truncate(kept, before) => {
                    self.checks.commits.committed_transactions_stay_on_a_disk(member, kept, before)
                }
                Landed::Install(snapshot, end, before) => {
                    self.met(Marker::SnapshotInstalled);
                    let it = &mut self.members[member];
                    // A checkpoint of the old tree must not get onto the new one.
                    it.checkpoint = None;
                    self.say(|| format!("m{} has the snapshot {snapshot}, and up to {end}", member + 1));
                    self.checks.commits.committed_transactions_stay_on_a_disk(member, end, before)
                }
            };
            self.demand(verdict);
        }
    }

    fn checkpoint_begins(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        let it = &mut self.members[member];
        if let Some(node) = &it.node
            && it.checkpoint.is_none()
            && node.is_serving()
        {
            it.checkpoint = node.begin_checkpoint();
        }
        let took = 5 * MS + self.within(300 * MS);
        self.queue.push(took, Event::CheckpointEnds(member, life));
    }

    fn checkpoint_ends(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        let delay = self.scenario.checkpoint_us / 2 + self.within(self.scenario.checkpoint_us);
        self.queue.push(delay, Event::CheckpointBegins(member, life));
        let keep = self.scenario.keep;
        let it = &mut self.members[member];
        let (Some(mut checkpoint), Some(node)) = (it.checkpoint.take(), &it.node) else { return };
        if !node.read(|db| db.has_begun(&checkpoint)) {
            return; // the tree is another one by now
        }
        let mut image = Image::clone(&it.disk.image);
        let mut items = Vec::new();
        loop {
            checkpoint.run_unlocked();
            let more = node.read(|db| db.checkpoint_chunk(&mut checkpoint, 16, &mut items));
            items.drain(..).for_each(|item| image.put(item));
            if !more {
                break;
            }
        }
        (image.zxid, image.digest) = (checkpoint.zxid(), checkpoint.digest());
        node.end_checkpoint(checkpoint, true);
        let begins = it.disk.log.lock().last();
        if image.zxid > begins {
            return self.demand(fail(
                "D5 memory is never ahead of the disk",
                format!("member {member} stores a tree at {}, and its log ends at {begins}", image.zxid),
            ));
        }
        let stored = it.disk.image.zxid;
        if image.zxid < stored {
            return self.demand(fail(
                "D5 a stored tree never goes back",
                format!("member {member}: from {stored} to {}", image.zxid),
            ));
        }
        let zxid = image.zxid;
        if self.members[member].disk.store(image, keep) {
            self.met(Marker::LogPurged);
        }
        self.met(Marker::CheckpointTaken);
        self.note(5, member, zxid.0.cast_unsigned());
        self.say(|| format!("m{} has a checkpoint at {zxid}", member + 1));
    }

    // ---- processes end

    /// A process ends, or its machine does. `restart_us`: after which time it starts again.
    pub(crate) fn crash(&mut self, member: usize, power: Power, restart_us: Option<i64>) {
        if self.members[member].power != Power::On {
            return;
        }
        let now_us = self.now_us();
        self.disturbed_us = now_us;
        self.note(6, member, now_us.cast_unsigned());
        let flying = self.members[member].disk.in_flight();
        let keep = self.rng.index(flying + 1);
        if power == Power::MachineDown && keep < flying {
            self.met(Marker::PowerLossLostWrites);
        }
        if keep > 0 {
            self.met(Marker::PowerLossKeptSome);
        }
        self.say(|| {
            format!("m{} ends ({power:?}); of {flying} unsynced writes {keep} are kept", member + 1)
        });
        if self.members[member].disk.is_staging() {
            self.met(Marker::SnapshotDiscarded);
        }
        let mut landed = std::mem::take(&mut self.landed);
        let it = &mut self.members[member];
        it.disk.crash(keep, &mut landed);
        it.power = power;
        it.node = None;
        it.paused = false;
        let stash = std::mem::take(&mut it.stash);
        it.staged.clear();
        it.checkpoint = None;
        it.serving = false;
        it.state = PeerState::Looking;
        it.led_when_paused = None;
        it.disk.waiting_since_us = None;
        let links: Vec<_> = std::mem::take(&mut it.links).into_values().collect();
        self.landed(member, &landed);
        landed.clear();
        self.landed = landed;
        for (link, end) in links {
            if power == Power::ProcessDown {
                self.hang_up(link, end);
            } else {
                // Nobody says goodbye: the other end hears of it when it asks again.
                self.links[link].ends[end].open = false;
                let delay = 200 * MS + self.within(8 * SECOND);
                self.push_item(link, 1 - end, delay, Item::Down);
            }
        }
        for event in stash {
            if let Event::Accept(link) = event {
                self.hang_up(link, 1); // the kernel had answered
            }
        }
        for connection in 0..self.connections.len() {
            let it = &self.connections[connection];
            if it.member == member && !it.server_closed {
                self.connections[connection].server_closed = true;
                self.connections[connection].handle = None;
                self.connections[connection].to_server.clear();
                if power == Power::ProcessDown {
                    self.push_to_client(connection, Frame::Closed);
                }
            }
        }
        self.unsent.retain(|(from, _), _| *from != member);
        if power == Power::ProcessDown {
            for other in 0..self.members.len() {
                if other != member
                    && self.is_running(other)
                    && self.rng.chance(60)
                    && !self.network.is_cut(member, other)
                {
                    let (delay, life) = (self.latency(member, other), self.members[other].life);
                    self.queue.push(
                        delay,
                        Event::Reachable { at: other, life, server: member, reachable: false },
                    );
                }
            }
        }
        if let Some(restart_us) = restart_us {
            self.members[member].restart_pending = true;
            self.queue.push(restart_us, Event::Boot(member));
        }
    }

    // ---- the network between members

    fn latency(&mut self, from: usize, to: usize) -> i64 {
        let slow = self.members.get(from).map_or(1, |member| member.slow)
            .max(self.members.get(to).map_or(1, |member| member.slow));
        (self.delay() * slow).min(LATENCY_MAX_US)
    }

    fn delay(&mut self) -> i64 {
        let mut delay = self.network.base_us + self.within(self.network.jitter_us);
        if self.network.spike_permille > 0 && self.rng.below(1000) < self.network.spike_permille {
            delay += self.within(self.network.spike_us);
        }
        (delay * self.network.factor).min(LATENCY_MAX_US)
    }

    fn send_notification(&mut self, from: usize, to: usize, notification: Box<Notification>) {
        if self.rng.below(1000) < self.network.loss_permille {
            return;
        }
        self.say(|| {
            format!(
                "m{} -> m{}: vote {:?} for {} ({}, epoch {}) in round {}",
                from + 1,
                to + 1,
                notification.state,
                notification.leader,
                notification.zxid,
                notification.peer_epoch,
                notification.round
            )
        });
        if self.network.is_cut(from, to) {
            self.unsent.insert((from, to), notification);
            return;
        }
        let latency = self.latency(from, to);
        let at_us = self.now_us() + latency;
        let last = self.last_notification_us.entry((from, to)).or_default();
        *last = at_us.max(*last);
        self.queue.push_at(*last, Event::Notify { from, to, notification });
    }

    fn notified(&mut self, from: usize, to: usize, notification: Box<Notification>) {
        if self.network.is_cut(from, to) {
            self.unsent.insert((from, to), notification);
            return;
        }
        if !self.is_running(to) {
            let refused = self.members[to].power == Power::ProcessDown;
            if refused && self.is_running(from) && !self.network.is_cut(to, from) {
                let (delay, life) = (self.latency(to, from), self.members[from].life);
                let reachable = false;
                self.queue.push(delay, Event::Reachable { at: from, life, server: to, reachable });
            }
            return;
        }
        self.note(7, to, from as u64);
        let (from_id, to_id) = (self.members[from].id, self.members[to].id);
        if self.told[to][from] == Some(false) {
            self.told[to][from] = Some(true);
            self.call(to, |node, now, actions| node.on_reachable(from_id, true, now, actions));
        }
        if self.told[from][to] == Some(false) && self.is_running(from) && !self.members[from].paused {
            self.told[from][to] = Some(true);
            self.call(from, |node, now, actions| node.on_reachable(to_id, true, now, actions));
        }
        self.call(to, |node, now, actions| {
            node.on_notification(from_id, *notification, now, actions);
        });
    }

    fn told_reachable(&mut self, at: usize, life: u32, server: usize, reachable: bool) {
        // By now it may be there again.
        if !self.is_alive(at, life) || self.is_running(server) != reachable {
            return;
        }
        self.told[at][server] = Some(reachable);
        self.note(8, at, server as u64);
        self.say(|| format!("m{} hears that m{} refuses connections", at + 1, server + 1));
        let id = self.members[server].id;
        self.call(at, |node, now, actions| node.on_reachable(id, reachable, now, actions));
    }

    /// Ways are open again: what was held up flows.
    pub(crate) fn ways_opened(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        for ((from, to), notification) in unsent {
            if self.is_running(from) {
                self.send_notification(from, to, notification);
            }
        }
        for link in 0..self.links.len() {
            for end in 0..2 {
                if !self.links[link].pipes[end].is_empty() && !self.links[link].pipes[end].scheduled {
                    self.links[link].pipes[end].scheduled = true;
                    let delay = self.delay();
                    self.queue.push(delay, Event::Arrive(link, end));
                }
            }
        }
        for connection in 0..self.connections.len() {
            let it = &mut self.connections[connection];
            if !it.to_server.is_empty() && !it.to_server.scheduled {
                it.to_server.scheduled = true;
                self.queue.push(MS, Event::ToServer(connection));
            }
            let it = &mut self.connections[connection];
            if !it.to_client.is_empty() && !it.to_client.scheduled {
                it.to_client.scheduled = true;
                self.queue.push(MS, Event::ToClient(connection));
            }
        }
    }

    fn dial(&mut self, member: usize, id: LinkId, leader: ServerId) {
        let Some(target) = self.members.iter().position(|member| member.id == leader) else {
            return self.demand(fail("R6 a member dials members", format!("{leader} is dialled")));
        };
        let it = &self.members[member];
        let link = self.links.len();
        let mut pipes: [Pipe<Item>; 2] = Default::default();
        // Nothing arrives before both ends know of it.
        pipes[0].scheduled = true;
        pipes[1].scheduled = true;
        self.links.push(Link {
            ends: [
                End { member, life: it.life, id: Some(id), open: true },
                End { member: target, life: self.members[target].life, id: None, open: true },
            ],
            pipes,
            epoch: Epoch(0),
            sync: None,
            up_to_date: false,
            broken: false,
        });
        self.members[member].links.insert(id, (link, 0));
        self.say(|| format!("m{} dials m{} (link {link})", member + 1, target + 1));
        let delay = self.latency(member, target);
        if self.network.is_cut(member, target) || self.network.is_cut(target, member) {
            let timeout = self.scenario.tick_ms * 2 * MS;
            self.queue.push(timeout, Event::DialFailed(link));
        } else {
            self.queue.push(delay, Event::Dialled(link));
        }
    }

    fn dialled(&mut self, link: usize) {
        let [dialer, target] = self.links[link].ends;
        let delay = self.latency(target.member, dialer.member);
        match self.members[target.member].power {
            Power::On => {
                self.links[link].ends[1].life = self.members[target.member].life;
                self.queue.push(0, Event::Accept(link));
                self.queue.push(delay, Event::Connected(link));
            }
            Power::ProcessDown => self.queue.push(delay, Event::DialFailed(link)),
            Power::MachineDown => {
                let timeout = self.scenario.tick_ms * 2 * MS;
                self.queue.push(timeout, Event::DialFailed(link));
            }
        }
    }

    fn dial_failed(&mut self, link: usize) {
        let dialer = self.links[link].ends[0];
        self.links[link].ends[1].open = false;
        let Some(id) = dialer.id else { return };
        if !dialer.open || !self.is_alive(dialer.member, dialer.life) {
            return;
        }
        self.links[link].ends[0].open = false;
        self.members[dialer.member].links.remove(&id);
        self.say(|| format!("m{}: link {link} could not be made", dialer.member + 1));
        self.call(dialer.member, |node, now, actions| node.on_link_down(id, now, actions));
    }

    fn accept(&mut self, link: usize) {
        let target = self.links[link].ends[1];
        if !self.is_alive(target.member, target.life) {
            return self.hang_up(link, 1);
        }
        let Some(node) = &self.members[target.member].node else { return };
        let id = node.accept_link();
        self.links[link].ends[1].id = Some(id);
        self.members[target.member].links.insert(id, (link, 1));
        self.call(target.member, |node, now, actions| node.on_link_up(id, now, actions));
        self.links[link].pipes[1].scheduled = false;
        self.schedule_pipe(link, 1);
    }

    fn connected(&mut self, link: usize) {
        let dialer = self.links[link].ends[0];
        let Some(id) = dialer.id else { return };
        if !dialer.open || !self.is_alive(dialer.member, dialer.life) {
            return;
        }
        self.note(9, dialer.member, link as u64);
        self.call(dialer.member, |node, now, actions| node.on_link_up(id, now, actions));
        self.links[link].pipes[0].scheduled = false;
        self.schedule_pipe(link, 0);
    }

    fn schedule_pipe(&mut self, link: usize, end: usize) {
        let pipe = &mut self.links[link].pipes[end];
        if !pipe.scheduled
            && let Some(at_us) = pipe.next_us()
        {
            pipe.scheduled = true;
            self.queue.push_at(at_us, Event::Arrive(link, end));
        }
    }

    fn push_item(&mut self, link: usize, to: usize, delay_us: i64, item: Item) {
        let at_us = self.now_us() + delay_us;
        self.links[link].pipes[to].push(at_us, item);
        self.schedule_pipe(link, to);
    }

    /// One end hangs up.
    pub(crate) fn hang_up(&mut self, link: usize, end: usize) {
        if !std::mem::replace(&mut self.links[link].ends[end].open, false) {
            return;
        }
        let [this, other] = [self.links[link].ends[end], self.links[link].ends[1 - end]];
        self.links[link].pipes[end].clear();
        if other.open {
            // What is under way may be lost, or not.
            let under_way = self.links[link].pipes[1 - end].len();
            let lost = if self.rng.chance(50) { self.rng.index(under_way + 1) } else { 0 };
            self.links[link].pipes[1 - end].drop_last(lost);
            let delay = self.latency(this.member, other.member);
            self.push_item(link, 1 - end, delay, Item::Down);
        }
    }

    /// What was to be sent from `end` cannot be: nothing more is sent, and both ends hear of it.
    fn break_link(&mut self, link: usize, end: usize) {
        self.links[link].broken = true;
        let [this, other] = [self.links[link].ends[end], self.links[link].ends[1 - end]];
        self.push_item(link, end, 0, Item::Down);
        let delay = self.latency(this.member, other.member);
        self.push_item(link, 1 - end, delay, Item::Down);
    }

    /// A link breaks, for both ends.
    pub(crate) fn reset_link(&mut self) -> bool {
        let open: Vec<usize> = (0..self.links.len())
            .filter(|link| self.links[*link].ends.iter().all(|end| end.open && end.id.is_some()))
            .collect();
        if open.is_empty() {
            return false;
        }
        let link = *self.rng.pick(&open);
        for end in 0..2 {
            let under_way = self.links[link].pipes[end].len();
            let lost = self.rng.index(under_way + 1);
            self.links[link].pipes[end].drop_last(lost);
            self.push_item(link, end, 0, Item::Down);
        }
        self.say(|| format!("link {link} is reset"));
        true
    }

    fn arrive(&mut self, link: usize, end: usize) {
        self.links[link].pipes[end].scheduled = false;
        let [this, other] = [self.links[link].ends[end], self.links[link].ends[1 - end]];
        if !this.open {
            self.links[link].pipes[end].clear();
            return;
        }
        if self.network.is_cut(other.member, this.member) {
            return; // until the way is open again
        }
        let Some(id) = this.id else { return };
        if !self.is_alive(this.member, this.life) {
            return;
        }
        let now_us = self.now_us();
        let mut packets = VecDeque::new();
        while packets.len() < PACKETS_MAX {
            match self.links[link].pipes[end].pop(now_us) {
                Some(Item::Packet(packet)) => packets.push_back(packet),
                Some(Item::Snapshot(zxid, bytes)) => {
                    self.hand_over(this.member, id, &mut packets);
                    self.received_snapshot(this.member, id, zxid, &bytes);
                }
                Some(Item::Down) => {
                    self.hand_over(this.member, id, &mut packets);
                    self.link_down(link, end);
                    return;
                }
                None => break,
            }
            if !self.links[link].ends[end].open {
                break;
            }
        }
        self.hand_over(this.member, id, &mut packets);
        if self.links[link].ends[end].open {
            self.schedule_pipe(link, end);
        }
    }

    fn hand_over(&mut self, member: usize, id: LinkId, packets: &mut VecDeque<QuorumPacket>) {
        if packets.is_empty() || !self.members[member].links.contains_key(&id) {
            return;
        }
        self.note(10, member, packets.len() as u64);
        self.call(member, |node, now, actions| node.on_packets(id, packets, now, actions));
        packets.clear();
        if !self.members[member].serving
            && self.members[member].node.as_ref().is_some_and(Node::is_serving)
        {
            self.watch_role(member);
        }
    }

    fn received_snapshot(&mut self, member: usize, id: LinkId, zxid: Zxid, bytes: &Bytes) {
        if !self.members[member].links.contains_key(&id) {
            return;
        }
        let config = self.node_config(member);
        let tree =
            TreeConfig { extended_types: config.extended_types, digest_enabled: config.digest_enabled };
        let received: Result<(Image, Database), String> = Image::decode(zxid, bytes)
            .and_then(|image| image.load(tree).map(|db| (image, db)));
        match received {
            Ok((mut image, db)) => {
                image.digest = db.tree.digest();
                self.members[member].staged.insert(id, Arc::new(image));
                self.call(member, |node, now, actions| node.on_snapshot(id, zxid, db, now, actions));
            }
            Err(message) => self.violated(Violation {
                checker: "D7 what is received is what was stored",
                message,
            }),
        }
    }

    fn link_down(&mut self, link: usize, end: usize) {
        let this = self.links[link].ends[end];
        self.links[link].ends[end].open = false;
        self.links[link].pipes[end].clear();
        let Some(id) = this.id else { return };
        if self.members[this.member].links.remove(&id).is_none() {
            return;
        }
        self.note(11, this.member, link as u64);
        self.say(|| format!("m{}: link {link} is down", this.member + 1));
        self.call(this.member, |node, now, actions| node.on_link_down(id, now, actions));
    }

    fn send(&mut self, member: usize, id: LinkId, packet: QuorumPacket) {
        let Some(&(link, end)) = self.members[member].links.get(&id) else { return };
        let verdict = self.inspect(member, link, end, &packet);
        self.demand(verdict);
        let other = self.links[link].ends[1 - end].member;
        self.say(|| {
            format!(
                "m{} -> m{}: {} {} {}",
                member + 1,
                other + 1,
                packet.packet_type,
                packet.zxid,
                packet.data.as_ref().map_or(String::new(), |data| format!("({} bytes)", data.len()))
            )
        });
        if !self.links[link].ends[1 - end].open || self.links[link].broken {
            return;
        }
        let delay = self.latency(member, other);
        if self.network.is_cut(member, other) {
            self.met(Marker::StalledPacketsArrived);
        }
        self.push_item(link, 1 - end, delay, Item::Packet(packet));
    }

    /// What a packet says must be so.
    fn inspect(&mut self, member: usize, link: usize, end: usize, packet: &QuorumPacket) -> Verdict {
        let it = &self.members[member];
        let (life, zxid) = (it.life, packet.zxid);
        let data = packet.data.clone().unwrap_or_default();
        let from_leader = end == 1;
        match packet.packet_type {
            PacketType::LEADER_INFO => self.links[link].epoch = zxid.epoch(),
            PacketType::ACK_EPOCH => {
                let epoch = self.links[link].epoch;
                durability::an_epoch_is_promised_when_it_is_on_disk(member, epoch, &it.disk)?;
            }
            PacketType::NEW_LEADER => {
                let first = self
                    .checks
                    .leadership
                    .one_leader_in_an_epoch_with_all_that_is_committed(
                        (member, life),
                        zxid.epoch(),
                        it.disk.end(),
                        self.checks.commits.last(),
                        &self.checks.ledger,
                    )?;
                if first && it.disk.end() > self.checks.commits.last() {
                    self.markers.met(Marker::LeaderChangedWithOutstanding);
                }
                let marker = match self.links[link].sync.take() {
                    Some((PacketType::DIFF, 0)) => Some(Marker::SyncEmptyDiff),
                    Some((PacketType::DIFF, _)) => Some(Marker::SyncDiff),
                    Some((PacketType::TRUNC, 0)) => Some(Marker::SyncTrunc),
                    Some((PacketType::TRUNC, _)) => Some(Marker::SyncTruncAndMore),
                    Some((PacketType::SNAP, _)) => Some(Marker::SyncSnap),
                    _ => None, // nothing that brings a learner up to date
                };
                if let Some(marker) = marker {
                    self.markers.met(marker);
                }
            }
            PacketType::DIFF | PacketType::TRUNC => {
                self.links[link].sync = Some((packet.packet_type, 0));
            }
            PacketType::PROPOSAL => {
                if let Some((_, count)) = &mut self.links[link].sync {
                    *count += 1;
                }
                self.checks.ledger.packets_carry_what_was_proposed(zxid, &data)?;
            }
            PacketType::INFORM => {
                self.checks.ledger.packets_carry_what_was_proposed(zxid, &data)?;
                self.markers.met(Marker::ObserverInformed);
                self.committed(member, zxid);
            }
            // Before it, a commit means: when this leader is established.
            PacketType::COMMIT if self.links[link].up_to_date => self.committed(member, zxid),
            PacketType::UP_TO_DATE => self.links[link].up_to_date = true,
            PacketType::ACK if !from_leader && zxid.counter() == 0 => {
                durability::a_history_is_acknowledged_when_all_of_it_is_on_disk(
                    member,
                    zxid.epoch(),
                    self.checks.leadership.history(zxid.epoch()),
                    &it.disk,
                )?;
            }
            PacketType::ACK if !from_leader => {
                durability::a_proposal_is_acknowledged_when_it_is_on_disk(member, zxid, &it.disk)?;
            }
            PacketType::REQUEST => self.markers.met(Marker::RequestForwarded),
            _ => {} // nothing is promised with it
        }
        Ok(())
    }

    fn send_history(&mut self, member: usize, id: LinkId, after: Zxid, to: Zxid) {
        let Some(&(link, end)) = self.members[member].links.get(&id) else { return };
        let log = self.members[member].disk.log.clone();
        let entries: Vec<_> = log.lock().range(after, to).cloned().collect();
        let begins = zk_zab::History::begins(&log);
        let whole = entries.last().map_or(after, |(zxid, _)| *zxid) == to;
        if begins > after || self.rng.chance(1) {
            // Purged meanwhile.
            self.say(|| format!("m{}: the log no longer reaches back to {after}", member + 1));
            return self.break_link(link, end);
        }
        if !whole {
            return self.demand(fail(
                "R6 what is to be sent from the log is there",
                format!(
                    "member {member} is to send ({after}, {to}]; its log ends at {}",
                    log.lock().last()
                ),
            ));
        }
        self.met(Marker::HistoryFromDisk);
        for (zxid, bytes) in entries {
            let packet = |packet_type, data| QuorumPacket { packet_type, zxid, data, authinfo: None };
            self.send(member, id, packet(PacketType::PROPOSAL, Some(bytes)));
            self.send(member, id, packet(PacketType::COMMIT, None));
        }
    }

    fn send_snapshot(&mut self, member: usize, id: LinkId, to: Zxid) {
        let Some(&(link, end)) = self.members[member].links.get(&id) else { return };
        let image = Arc::clone(&self.members[member].disk.image);
        if image.zxid > to {
            return self.demand(fail(
                "Z9 a snapshot is not ahead of what it is sent for",
                format!("member {member} has a tree at {} stored, and is to send up to {to}", image.zxid),
            ));
        }
        self.links[link].sync = Some((PacketType::SNAP, 0));
        let other = self.links[link].ends[1 - end].member;
        self.say(|| format!("m{} -> m{}: SNAP {}", member + 1, other + 1, image.zxid));
        if self.links[link].ends[1 - end].open {
            let delay = self.latency(member, other) + self.within(50 * MS);
            let bytes = image.encode();
            self.push_item(link, 1 - end, delay, Item::Snapshot(image.zxid, bytes));
        }
        if image.zxid < to {
            self.send_history(member, id, image.zxid, to);
        }
    }

    // ---- clients' connections

    /// A client connects; `None` if nobody answers.
    pub(crate) fn connect(&mut self, client: usize, member: usize) -> Option<usize> {
        if !self.is_running(member) || self.network.is_client_cut(client, member) {
            return None;
        }
        let connection = self.connections.len();
        self.connections.push(Connection {
            client,
            member,
            life: self.members[member].life,
            handle: None,
            outbox: Arc::default(),
            held: VecDeque::new(),
            waiting: false,
            server_closed: false,
            greeted: false,
            session: SessionId(0),
            to_server: Pipe::default(),
            to_client: Pipe::default(),
        });
        Some(connection)
    }

    pub(crate) fn push_to_server(&mut self, connection: usize, frame: Frame) {
        let delay = self.delay();
        let at_us = self.now_us() + delay;
        let it = &mut self.connections[connection];
        let at_us = it.to_server.push(at_us, frame);
        let cut = self.network.is_client_cut(it.client, it.member);
        if !it.to_server.scheduled && !cut {
            it.to_server.scheduled = true;
            self.queue.push_at(at_us, Event::ToServer(connection));
        }
    }

    fn push_to_client(&mut self, connection: usize, frame: Frame) {
        let delay = self.delay();
        let at_us = self.now_us() + delay;
        let it = &mut self.connections[connection];
        let at_us = it.to_client.push(at_us, frame);
        let cut = self.network.is_client_cut(it.client, it.member);
        if !it.to_client.scheduled && !cut {
            it.to_client.scheduled = true;
            self.queue.push_at(at_us, Event::ToClient(connection));
        }
    }

    fn to_server(&mut self, connection: usize) {
        let now_us = self.now_us();
        let it = &mut self.connections[connection];
        it.to_server.scheduled = false;
        let (client, member, life) = (it.client, it.member, it.life);
        if self.network.is_client_cut(client, member) || it.server_closed {
            return;
        }
        if !self.is_alive(member, life) {
            self.connections[connection].server_closed = true;
            return self.push_to_client(connection, Frame::Closed);
        }
        let mut closed = false;
        let it = &mut self.connections[connection];
        while let Some(frame) = it.to_server.pop(now_us) {
            match frame {
                Frame::Bytes(bytes) => it.held.push_back(bytes),
                Frame::Closed => closed = true,
            }
        }
        if let Some(at_us) = it.to_server.next_us() {
            it.to_server.scheduled = true;
            self.queue.push_at(at_us, Event::ToServer(connection));
        }
        let it = &self.connections[connection];
        if it.handle.is_none() {
            let outbox = SimOutbox {
                connection,
                state: Arc::clone(&it.outbox),
                outboxes: Arc::clone(&self.members[member].outboxes),
            };
            let now = self.members[member].clocks.now(now_us);
            if let Some(node) = &self.members[member].node {
                let handle = node.open(format!("10.0.0.{client}"), Box::new(outbox), now);
                self.connections[connection].handle = Some(handle);
            }
            self.observe(member);
        }
        self.feed(connection);
        if closed {
            self.server_forgets(connection);
        }
    }

    /// Gives a server what a client has sent.
    fn feed(&mut self, connection: usize) {
        loop {
            let it = &mut self.connections[connection];
            let member = it.member;
            if it.waiting || it.server_closed || it.held.is_empty() {
                return;
            }
            let Some(handle) = it.handle.clone() else { return };
            let mut frames = std::mem::take(&mut it.held);
            let session = it.session;
            self.note(12, member, connection as u64);
            if session != SessionId(0)
                && self.members[member].serving
                && self.clients[self.connections[connection].client].connection == Some(connection)
            {
                let now_us = self.now_us();
                self.checks.sessions.heard(session, now_us);
            }
            let before = frames.len();
            let mut served = None;
            self.call(member, |node, now, actions| {
                served = Some(node.on_frames(&handle, &mut frames, now, actions));
            });
            let progress = frames.len() < before;
            let it = &mut self.connections[connection];
            let later = std::mem::replace(&mut it.held, frames);
            it.held.extend(later);
            match served.map(|served| served.flow) {
                Some(Flow::Continue) if progress => {}
                Some(Flow::Continue) | None => return,
                Some(Flow::Wait) => {
                    it.waiting = true;
                    // It may have been resumed before it was known to wait.
                    self.drain_outbox(connection);
                    if self.connections[connection].waiting {
                        return;
                    }
                }
                Some(Flow::Close(why)) => {
                    self.say(|| format!("m{} closes a connection: {why}", member + 1));
                    if why.contains("zxid") {
                        self.met(Marker::ReconnectRefusedBehind);
                    }
                    self.server_forgets(connection);
                    return self.push_to_client(connection, Frame::Closed);
                }
            }
        }
    }

    fn server_forgets(&mut self, connection: usize) {
        let it = &mut self.connections[connection];
        let member = it.member;
        if std::mem::replace(&mut it.server_closed, true) {
            return;
        }
        it.to_server.clear();
        it.held.clear();
        if let Some(handle) = it.handle.take()
            && let Some(node) = &self.members[member].node
        {
            node.on_closed(&handle);
        }
    }

    fn drain_outbox(&mut self, connection: usize) {
        let it = &mut self.connections[connection];
        let (mut bytes, closing, resumed) = {
            let mut state = it.outbox.lock().expect("nobody panics while holding it");
            state.dirty = false;
            (state.bytes.split(), state.closing, std::mem::take(&mut state.resumed))
        };
        if it.server_closed {
            return;
        }
        while bytes.len() >= 4 {
            let len = usize::try_from(bytes.get_i32()).unwrap_or_default();
            let frame = bytes.split_to(len).freeze();
            if !std::mem::replace(&mut self.connections[connection].greeted, true)
                && let Ok(response) = ConnectResponse::decode(&frame)
            {
                self.connections[connection].session = response.session_id;
            }
            self.push_to_client(connection, Frame::Bytes(frame));
        }
        if resumed && std::mem::take(&mut self.connections[connection].waiting) {
            // The shell reads again, a moment later.
            let it = &mut self.connections[connection];
            if !it.to_server.scheduled {
                it.to_server.scheduled = true;
                self.queue.push(0, Event::ToServer(connection));
            }
        }
        if closing {
            self.server_forgets(connection);
            self.push_to_client(connection, Frame::Closed);
        }
    }

    fn to_client(&mut self, connection: usize) {
        let now_us = self.now_us();
        let it = &mut self.connections[connection];
        it.to_client.scheduled = false;
        if self.network.is_client_cut(it.client, it.member) {
            return;
        }
        while let Some(frame) = self.connections[connection].to_client.pop(now_us) {
            self.client_receives(connection, frame);
            if self.violation.is_some() {
                return;
            }
        }
        let it = &mut self.connections[connection];
        if let Some(at_us) = it.to_client.next_us() {
            it.to_client.scheduled = true;
            self.queue.push_at(at_us, Event::ToClient(connection));
        }
    }

    // ---- the end

    pub(crate) fn begin_liveness(&mut self) {
        self.queue.push(HEAL_MAX_US, Event::Deadline);
        let probe = self.clients.len() - 1;
        self.queue.push(0, Event::Client(probe, 0));
    }

    /// L1: a write on a new session, and so a leader.
    fn deadline(&mut self) {
        if self.probe_done_us.is_none() {
            let states: Vec<String> = self
                .members
                .iter()
                .map(|member| {
                    let status = member.node.as_ref().map(Node::quorum_status);
                    format!("m{}: {:?} serving {}: {status:?}", member.id, member.state, member.serving)
                })
                .collect();
            return self.demand(fail(
                "L1 without faults there is a leader, and writes are committed, within 10 seconds",
                states.join("\n    "),
            ));
        }
        self.quiet = true;
        self.settle_by_us = self.now_us() + SETTLE_MAX_US;
        self.queue.push(100 * MS, Event::Settled);
    }

    /// L1, Z13: all members come to the same zxid and the same tree.
    fn settled(&mut self) {
        let last = self.checks.commits.last();
        let all = self.members.iter().all(|member| {
            member.node.as_ref().is_some_and(|node| {
                let applied = node.read(|db| db.tree.last_zxid());
                (applied == last || self.checks.commits.floor(applied) == last) && node.is_serving()
            })
        });
        let idle = self.clients.iter().all(Client::is_idle);
        if !(all && idle) {
            if self.now_us() < self.settle_by_us {
                return self.queue.push(100 * MS, Event::Settled);
            }
            let states: Vec<String> = self
                .members
                .iter()
                .map(|member| {
                    let status = member.node.as_ref().map(Node::quorum_status);
                    format!("m{}: applied {}, {status:?}", member.id, member.applied)
                })
                .collect();
            let waiting: Vec<String> = self.clients.iter().filter_map(Client::waits_for).collect();
            return self.demand(fail(
                "L1 without faults all members come to the same state",
                format!("committed {last}\n    {}\n    clients: {waiting:?}", states.join("\n    ")),
            ));
        }
        for member in 0..self.members.len() {
            let verdict = self.the_tree_is_what_was_committed(member);
            self.demand(verdict);
        }
        for client in 0..self.clients.len() {
            let refused = std::mem::take(&mut self.clients[client].refused);
            for session in refused {
                if !self.checks.sessions.has_ended(session) {
                    self.demand(fail(
                        "S4 a session that lives is not refused",
                        format!("session {session} was refused and has not ended"),
                    ));
                }
            }
        }
        self.count_lost_replies();
        self.finished = true;
    }

    /// Z13, C3: what a member has in the end is what the model says, znode by znode.
    fn the_tree_is_what_was_committed(&self, member: usize) -> Verdict {
        const CHECKER: &str = "Z13 C3 a tree is what was committed";
        let Some(node) = &self.members[member].node else { return Ok(()) };
        node.read(|db| {
            let mut count = 0;
            for (path, znode) in db.tree.iter() {
                if path == "/" || path.is_empty() || path.starts_with("/zookeeper") {
                    continue;
                }
                count += 1;
                let expected = self.checks.model.now(&path);
                let same = expected.is_some_and(|expected| {
                    expected.stat() == znode.stat() && expected.data.as_deref() == znode.data()
                });
                if !same {
                    return fail(
                        CHECKER,
                        format!("member {member} has {path} with {:?}, not {expected:?}", znode.stat()),
                    );
                }
            }
            let expected = self.checks.model.all().count();
            if count != expected {
                return fail(CHECKER, format!("member {member} has {count} znodes, not {expected}"));
            }
            Ok(())
        })
    }
}
