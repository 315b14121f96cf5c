//! The whole ensemble on one thread: production nodes, with everything around them simulated.

mod actions;
mod connections;
mod disks;
mod finish;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes, BytesMut};
use zk_processor::{Action, Client as Handle, Flow, Node, NodeConfig, Outbox, ReadOnlyMode};
use zk_proto::connect::ConnectResponse;
use zk_proto::quorum::{Notification, PacketType, PeerState, QuorumPacket};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{Epoch, OpCode, Record, ServerId, SessionId, Xid, Zxid};
use zk_session::{LocalSessionMode, SessionConfig, first_id};
use zk_testkit::Prng;
use zk_tree::{Checkpoint, Database, TreeConfig};
use zk_zab::{LearnerPort, LinkId, Members, PeerConfig, QuorumVerifier, Write};

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
    Notify {
        from: usize,
        to: usize,
        notification: Box<Notification>,
    },
    Reachable {
        at: usize,
        life: u32,
        server: usize,
        reachable: bool,
    },
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
    /// Whether it served when last looked at, and how often that has changed.
    serves: bool,
    pub(crate) roles: u64,
    /// What votes for it that came since its start claim for its log: it may have had that before.
    claimed: Zxid,
    election_ms: Option<i64>,
    /// Its data was lost, and is not back yet.
    pub(crate) lost: bool,
    /// Since when its disk is wedged, in µs.
    pub(crate) wedged_us: Option<i64>,
    /// It led when it was paused.
    pub(crate) led_when_paused: Option<Epoch>,
    pub(crate) restart_pending: bool,
    /// The configuration in its file.
    file: Option<Members>,
    /// The latest that its wall clock has shown, in ms since 1970.
    pub(crate) wall_max_ms: i64,
}

/// A connection of a client.
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) member: usize,
    pub(crate) life: u32,
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

/// The ensemble that a transaction makes.
fn brought(txn: &LoggedTxn) -> Option<Members> {
    let Txn::SetData(set) = &txn.txn else { return None };
    if txn.header.op != OpCode::RECONFIG {
        return None;
    }
    Some(Members::from_text(std::str::from_utf8(set.data.as_ref()?).ok()?))
}

/// One run.
pub(crate) struct Ensemble {
    pub(crate) scenario: Rc<Scenario>,
    pub(crate) verifier: QuorumVerifier,
    pub(crate) rng: Prng,
    pub(crate) queue: Queue<Event>,
    pub(crate) members: Vec<Member>,
    pub(crate) network: Network,
    pub(crate) links: Vec<Link>,
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
    /// Every configuration that was in force, by version.
    configurations: BTreeMap<i64, String>,
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
                serves: false,
                roles: 0,
                claimed: Zxid::ZERO,
                election_ms: None,
                lost: false,
                wedged_us: None,
                led_when_paused: None,
                restart_pending: true,
                file: None,
                wall_max_ms: 0,
            })
            .collect();
        // One more client: the probe.
        let clients = (0..=scenario.clients)
            .map(|index| {
                let probe = index == scenario.clients;
                let content = scenario.read_only && index % 2 == 0 && !probe;
                Client::new(probe, content, &scenario, &mut rng)
            })
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
            checks: Checks::new(scenario.local_sessions),
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
            configurations: BTreeMap::new(),
            verifier: QuorumVerifier::new(&scenario.membership()),
            scenario: Rc::new(scenario),
        };
        ensemble.begin();
        ensemble
    }

    fn begin(&mut self) {
        if self.scenario.scripted {
            return;
        }
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

    /// The next thing happens, if nothing went wrong so far.
    pub(crate) fn step(&mut self) -> bool {
        if self.finished || self.violation.is_some() {
            return false;
        }
        let Some(event) = self.queue.pop() else { return false };
        self.happen(event);
        self.violation.is_none()
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
            Event::ToServer(connection) => self.server_receives(connection),
            Event::ToClient(connection) => self.deliver_to_client(connection),
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

    fn node_config(&self, member: usize) -> NodeConfig {
        let clocks = self.members[member].clocks;
        let mut config = NodeConfig::new(SessionConfig {
            tick_ms: self.scenario.tick_ms,
            min_timeout_ms: self.scenario.timeout_min_ms,
            max_timeout_ms: self.scenario.timeout_max_ms,
            first_id: first_id(self.members[member].id, clocks.now(self.now_us()).wall_ms),
        });
        config.extended_types = self.scenario.extended_types;
        if self.scenario.read_only {
            config.read_only_mode = ReadOnlyMode::Enabled;
        }
        config.local_sessions = self.scenario.local_sessions;
        if self.scenario.reconfig {
            config.reconfig.enabled = true;
            config.auth.skip_acl = true;
        }
        config
    }

    /// `stored`: the configuration in the tree on its disk.
    fn peer_config(&self, member: usize, stored: Option<Members>) -> PeerConfig {
        let scenario = &self.scenario;
        let known = self.members[member].file.clone().into_iter().chain(stored);
        let known = known.filter(|members| scenario.reconfig && members.version > 0);
        let newest = known.max_by_key(|members| members.version);
        let members = newest.unwrap_or_else(|| scenario.file_of(member));
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
            early_commits: scenario.early_commits,
            observer_masters: scenario.observer_masters,
            reconfig_enabled: scenario.reconfig,
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
        // Session ids are made of the wall clock at the start, as upstream's are. A clock that goes back
        // by itself changes none of them; a start before an earlier life of the same disk would give ids
        // again that ended sessions had, and no server could tell: an operator has to prevent it.
        let it = &mut self.members[member];
        let behind = it.wall_max_ms - it.clocks.now(now_us).wall_ms;
        if behind >= 0 {
            it.clocks.wall_offset_ms += behind + 1;
        }
        let config = self.node_config(member);
        let it = &mut self.members[member];
        it.power = Power::On;
        it.life += 1;
        it.paused = false;
        it.state = PeerState::Looking;
        it.serving = false;
        it.since_us = now_us;
        it.election_ms = None;
        it.claimed = Zxid::ZERO;
        it.asked_accepted = it.disk.accepted_epoch;
        it.asked_current = it.disk.current_epoch;
        let tree = TreeConfig {
            extended_types: config.extended_types,
            digest_enabled: config.digest_enabled,
        };
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
        let peer = self.peer_config(member, db.config().map(Members::from_text));
        let it = &mut self.members[member];
        let now = it.clocks.now(now_us);
        let life = it.life;
        let (id, accepted, current) = (it.id, durable.accepted_epoch, durable.current_epoch);
        let (applied, last) = (durable.applied, durable.last_logged());
        let node = if self.scenario.standalone {
            self.checks.ledger.forget_above(it.disk.durable_end());
            for (zxid, bytes) in &durable.tail {
                match LoggedTxn::decode(bytes) {
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
        let interval =
            if self.members[member].serving { self.scenario.calm_tick_us } else { 12 * MS };
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
            if status.state == PeerState::Leading && !self.scenario.standalone {
                // Who leads while the ensemble changes may be of the one before or the one behind.
                if !self.scenario.reconfig {
                    let verdict = Leadership::who_leads_has_weight(member, id, &self.verifier);
                    self.demand(verdict);
                }
                if serving {
                    self.leader_serves(member, status.current_epoch);
                }
            }
            if serving
                && status.state == PeerState::Following
                && self.verifier.is_voter(id)
                && !self.verifier.has_weight(id)
            {
                self.met(Marker::WeightlessFollowed);
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
        let serves = node.is_serving();
        let it = &mut self.members[member];
        if std::mem::replace(&mut it.serves, serves) != serves {
            it.roles += 1;
        }
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
                let verdict = self.checks.trees_at_the_same_zxid_are_equal(member, applied, digest);
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
        // A reconfiguration is agreed on by the members before it, and by those that it makes.
        let mut verifiers = vec![self.verifier.clone()];
        for zxid in &new {
            let Some(members) = self.checks.ledger.get(*zxid).and_then(|it| brought(&it.txn))
            else {
                continue;
            };
            self.markers.met(Marker::Reconfigured);
            if *zxid != last {
                verifiers.clear();
            }
            verifiers.push(QuorumVerifier::new(&members));
        }
        let changes = self.scenario.reconfig;
        let voters = self.members.iter().filter(|member| member.voter || changes);
        // What a lost disk had acknowledged still counts: that is the fault that is tolerated.
        let holders = voters
            .filter(|voter| voter.lost || voter.disk.has(last))
            .map(|voter| voter.id)
            .collect();
        let verdict = verifiers.iter().try_for_each(|verifier| {
            Commits::what_is_committed_is_on_the_disks_of_a_quorum(member, last, &holders, verifier)
        });
        if let Some(verifier) = verifiers.pop() {
            self.verifier = verifier;
        }
        if !self.scenario.groups.is_empty() {
            self.met(Marker::HierarchicalCommit);
            if holders.len() * 2 <= self.scenario.voters {
                self.met(Marker::CommittedByFew);
            }
        }
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
        if matches!(txn, Txn::CreateSession(_)) && checks.sessions.was_heard_of(header.client_id) {
            self.markers.met(Marker::SessionUpgraded);
        }
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
}
