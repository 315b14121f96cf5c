//! An ensemble of peers in one thread: network, disks and clock are simulated, and every rule of the
//! protocol is checked whenever something happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use zk_proto::quorum::{Notification, PacketType, QuorumPacket};
use zk_proto::txn::{LoggedTxn, SetDataTxn, Txn, TxnHeader};
use zk_proto::{Epoch, OpCode, ServerId, SessionId, Xid, Zxid};
use zk_testkit::Prng;
use zk_zab::{
    Action, Durable, Input, LinkId, Members, Peer, PeerConfig, QuorumVerifier, ServingRole, Token,
    Write,
};

use crate::disk::{Disk, Queued, State};

pub(crate) const TICK_MS: i64 = 10;

/// What travels on a link.
#[derive(Debug, Clone)]
enum Frame {
    Packet(QuorumPacket),
    Snapshot(Zxid, State),
    /// The other side has hung up.
    End,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    server: usize,
    /// Which life of the server.
    life: u32,
    link: LinkId,
}

/// A connection: two ends, and what is on its way to each.
#[derive(Debug)]
struct Wire {
    ends: [End; 2],
    open: [bool; 2],
    /// What is on its way to each, in order, and when it arrives.
    queues: [VecDeque<(i64, Frame)>; 2],
}

#[derive(Debug, Clone)]
enum Event {
    Tick { server: usize, life: u32 },
    Notification { from: usize, to: usize, notification: Notification },
    Reachable { server: usize, life: u32, other: ServerId },
    Dial { end: End, to: usize },
    Refused { end: End },
    Wire { wire: usize, side: usize },
    Sync { server: usize, life: u32 },
    Restart { server: usize },
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) up: bool,
    pub(crate) life: u32,
    pub(crate) peer: Peer,
    pub(crate) disk: Disk,
    /// The tree.
    pub(crate) state: State,
    pub(crate) serving: Option<ServingRole>,
    staged: BTreeMap<LinkId, State>,
    paused_until_ms: i64,
    /// The configuration in its file.
    file: Option<Members>,
    /// What a file of upstream's says that was proposed.
    pub(crate) proposed: Option<Members>,
    /// The disk does not answer.
    pub(crate) wedged: bool,
    pub(crate) halted: Option<String>,
}

/// What may go wrong, and how slow everything is.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub(crate) delay_ms_max: u64,
    pub(crate) sync_ms_max: u64,
    /// How many transactions a leader proposes in a tick, in percent.
    pub(crate) proposals: u64,
    /// How often there is a fault, in one of so many ticks.
    pub(crate) fault_every: u64,
    pub(crate) checkpoint_every: u64,
    /// How often a leader changes the ensemble, in one of so many ticks; 0: never.
    pub(crate) reconfig_every: u64,
    /// Servers do not keep the configurations that they activate, and have to find them in their logs.
    pub(crate) forgets: bool,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) now_ms: i64,
    pub(crate) prng: Prng,
    pub(crate) servers: Vec<Server>,
    pub(crate) weather: Weather,
    pub(crate) config: PeerConfig,
    wires: Vec<Wire>,
    by_end: BTreeMap<End, (usize, usize)>,
    /// From whom to whom nothing gets through.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    events: BTreeMap<(i64, u64), Event>,
    next_event: u64,
    /// Everything that was ever delivered, in order.
    pub(crate) delivered: State,
    proposed: BTreeMap<Zxid, Bytes>,
    pub(crate) established: BTreeMap<Epoch, (usize, u32)>,
    pub(crate) seen: BTreeMap<&'static str, u64>,
    /// Nothing may change any more.
    pub(crate) calm: bool,
    pub(crate) trace: bool,
}

pub(crate) fn members(voters: usize, observers: usize) -> Members {
    let role = |index: usize| if index < voters { "participant" } else { "observer" };
    of_roles((0..voters + observers).map(|index| (index, role(index))), 0)
}

/// Members with these roles, by index.
pub(crate) fn of_roles<'r>(
    roles: impl IntoIterator<Item = (usize, &'r str)>,
    version: i64,
) -> Members {
    let mut text = String::new();
    for (index, role) in roles {
        writeln!(text, "server.{}=h{index}:2888:3888:{role};2181", index + 1).expect("a String");
    }
    Members { version, ..Members::from_text(&text) }
}

/// A reconfiguration, as it is logged.
fn reconfiguration(zxid: Zxid, members: &Members) -> Bytes {
    let header =
        TxnHeader { client_id: SessionId(1), cxid: Xid(1), zxid, time: 1, op: OpCode::RECONFIG };
    let set = SetDataTxn {
        path: "/zookeeper/config".into(),
        data: Some(members.to_text().into()),
        version: -1,
    };
    let mut bytes = BytesMut::new();
    LoggedTxn { header, txn: Txn::SetData(set), digest: None }.encode(&mut bytes);
    bytes.freeze()
}

/// The members that a transaction brings.
fn brought(txn: &Bytes) -> Option<Members> {
    let LoggedTxn { txn: Txn::SetData(set), .. } = LoggedTxn::decode(txn).ok()? else {
        return None;
    };
    Some(Members::from_text(std::str::from_utf8(&set.data?).ok()?))
}

/// Voters in groups of so many, numbered on, with these weights.
pub(crate) fn grouped(groups: &[&[u64]], observers: usize) -> Members {
    let mut members = members(groups.iter().map(|group| group.len()).sum(), observers);
    let mut voters = members.voters.clone().into_iter();
    for (group, weights) in (1..).zip(groups) {
        for (weight, voter) in weights.iter().zip(&mut voters) {
            members.groups.entry(group).or_default().insert(voter);
            members.weights.insert(voter, *weight);
        }
    }
    members.text += &members.hierarchy_text();
    members
}

impl Cluster {
    pub(crate) fn new(members: Members, prng: Prng, weather: Weather) -> Self {
        let count = members.voters.len() + members.observers.len();
        let config = PeerConfig {
            tick_ms: 100,
            init_limit_ticks: 10,
            sync_limit_ticks: 5,
            connect_retry_ms: 20,
            notification_interval_min_ms: 50,
            notification_interval_max_ms: 400,
            finalize_wait_ms: 40,
            commit_log_count: 5,
            snapshot_size_factor: 0.6,
            early_commits: prng.clone().chance(50),
            ..PeerConfig::new(ServerId(1), members)
        };
        let mut cluster = Self {
            now_ms: 1000,
            prng,
            servers: Vec::new(),
            weather,
            config,
            wires: Vec::new(),
            by_end: BTreeMap::new(),
            blocked: BTreeSet::new(),
            events: BTreeMap::new(),
            next_event: 0,
            delivered: State::new(),
            proposed: BTreeMap::new(),
            established: BTreeMap::new(),
            seen: BTreeMap::new(),
            calm: false,
            trace: false,
        };
        for _ in 0..count {
            cluster.add_server();
        }
        cluster
    }

    pub(crate) fn start_all(&mut self) {
        for server in 0..self.servers.len() {
            self.start(server);
        }
    }

    fn note(&mut self, mark: &'static str) {
        *self.seen.entry(mark).or_default() += 1;
    }

    fn log(&self, line: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:6} {}", self.now_ms, line());
        }
    }

    fn at(&mut self, delay_ms: i64, event: Event) {
        self.events.insert((self.now_ms + delay_ms, self.next_event), event);
        self.next_event += 1;
    }

    fn delay(&mut self) -> i64 {
        let max = self.weather.delay_ms_max;
        // Most are fast.
        let ms = if self.prng.chance(80) {
            self.prng.below(max / 4 + 1)
        } else {
            self.prng.below(max + 1)
        };
        i64::try_from(ms).expect("small")
    }

    pub(crate) fn start(&mut self, index: usize) {
        let now_ms = self.now_ms;
        self.log(|| format!("{}: starts", index + 1));
        let members = self.members_at_start(index);
        let proposed = self.servers[index].proposed.clone();
        let config = PeerConfig {
            id: self.servers[index].id,
            proposed: proposed.filter(|proposed| proposed.version > members.version),
            members,
            ..self.config.clone()
        };
        let server = &mut self.servers[index];
        assert!(!server.up);
        server.up = true;
        server.life += 1;
        server.wedged = false;
        server.staged.clear();
        server.serving = None;
        server.state = server.disk.stored.1.clone();
        server.paused_until_ms = 0;
        server.peer = Peer::member(config, server.disk.recover(), now_ms);
        let life = server.life;
        self.at(1, Event::Tick { server: index, life });
        self.drain(index);
    }

    /// What a server's files and its tree say when it starts. One that is no member yet has a file with
    /// the others and itself.
    fn members_at_start(&self, index: usize) -> Members {
        let stored = self.servers[index].disk.stored.1.iter().rev();
        let stored = stored.filter_map(|(_, txn)| brought(txn)).next();
        let known = stored.into_iter().chain(self.servers[index].file.clone());
        known.max_by_key(|members| members.version).unwrap_or_else(|| {
            let mut members = self.config.members.clone();
            if !members.servers().contains_key(&self.servers[index].id) {
                let own = format!("server.{}=h{index}:2888:3888:participant;2181\n", index + 1);
                members = Members::from_text(&(members.text + &own));
            }
            members
        })
    }

    /// One more server, which nobody knows.
    pub(crate) fn add_server(&mut self) -> usize {
        let index = self.servers.len();
        let id = ServerId(i64::try_from(index).expect("few") + 1);
        let config = PeerConfig { id, ..self.config.clone() };
        self.servers.push(Server {
            id,
            up: false,
            life: 0,
            peer: Peer::member(config, Durable::default(), self.now_ms),
            disk: Disk::default(),
            state: State::new(),
            serving: None,
            staged: BTreeMap::new(),
            paused_until_ms: 0,
            file: None,
            proposed: None,
            wedged: false,
            halted: None,
        });
        index
    }

    /// Kills a server; of what it has not synced, the first `keep` writes survive.
    pub(crate) fn crash(&mut self, index: usize, keep: usize) {
        self.log(|| format!("{}: crashes", index + 1));
        let server = &mut self.servers[index];
        assert!(server.up);
        server.up = false;
        server.serving = None;
        server.disk.crash(keep);
        let life = server.life;
        for wire in 0..self.wires.len() {
            for side in 0..2 {
                let end = self.wires[wire].ends[side];
                if self.wires[wire].open[side] && (end.server, end.life) == (index, life) {
                    self.hang_up(wire, side);
                }
            }
        }
    }

    /// One side closes: the other one hears of it, behind some of what is still on its way.
    fn hang_up(&mut self, wire: usize, side: usize) {
        self.wires[wire].open[side] = false;
        self.end(wire, 1 - side);
    }

    /// One side will see that the connection is gone.
    fn end(&mut self, wire: usize, side: usize) {
        if self.prng.chance(50) {
            let len = self.wires[wire].queues[side].len();
            let kept = self.prng.index(len + 1);
            // The first one stays: it has its event.
            self.wires[wire].queues[side].truncate(kept.max(1));
        }
        self.enqueue(wire, side, Frame::End);
    }

    fn enqueue(&mut self, wire: usize, side: usize, frame: Frame) {
        let last_ms = self.wires[wire].queues[side].back().map_or(0, |(at_ms, _)| *at_ms);
        let at_ms = (self.now_ms + self.delay()).max(last_ms);
        self.wires[wire].queues[side].push_back((at_ms, frame));
        if self.wires[wire].queues[side].len() == 1 {
            self.at(at_ms - self.now_ms, Event::Wire { wire, side });
        }
    }

    /// Runs until `until_ms`.
    pub(crate) fn run_until(&mut self, until_ms: i64) {
        while let Some((&(at_ms, _), _)) = self.events.first_key_value()
            && at_ms <= until_ms
        {
            let ((at_ms, _), event) = self.events.pop_first().expect("there is one");
            self.now_ms = self.now_ms.max(at_ms);
            self.take(event);
        }
        self.now_ms = self.now_ms.max(until_ms);
    }

    fn ready(&self, server: usize, life: u32) -> bool {
        let server = &self.servers[server];
        server.up && server.life == life
    }

    /// For an event of a server that stands still: later.
    fn postponed(&mut self, server: usize, event: &Event) -> bool {
        let until_ms = self.servers[server].paused_until_ms;
        if until_ms > self.now_ms {
            self.at(until_ms - self.now_ms, event.clone());
            return true;
        }
        false
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Tick { server, life } => {
                if !self.ready(*server, *life) || self.postponed(*server, &event) {
                    return;
                }
                self.at(TICK_MS, event.clone());
                self.step(*server, Input::Tick);
                self.work(*server);
            }
            Event::Notification { from, to, notification } => {
                if self.blocked.contains(&(*from, *to)) || !self.servers[*to].up {
                    return;
                }
                if self.postponed(*to, &event) {
                    return;
                }
                let from = self.servers[*from].id;
                self.step(*to, Input::Notification { from, notification: notification.clone() });
            }
            Event::Reachable { server, life, other } => {
                if self.ready(*server, *life) && !self.postponed(*server, &event) {
                    self.step(*server, Input::Reachable { server: *other, reachable: false });
                }
            }
            Event::Dial { end, to } => {
                if self.postponed(*to, &event) {
                    return;
                }
                let blocked = self.blocked.contains(&(end.server, *to))
                    || self.blocked.contains(&(*to, end.server));
                if !self.servers[*to].up || blocked || !self.ready(end.server, end.life) {
                    let delay = self.delay() + if blocked { 100 } else { 0 };
                    self.at(delay, Event::Refused { end: *end });
                    return;
                }
                let link = self.servers[*to].peer.accept();
                let other = End { server: *to, life: self.servers[*to].life, link };
                let wire = self.wires.len();
                self.wires.push(Wire {
                    ends: [*end, other],
                    open: [true, true],
                    queues: [VecDeque::new(), VecDeque::new()],
                });
                self.by_end.insert(*end, (wire, 0));
                self.by_end.insert(other, (wire, 1));
                self.step(*to, Input::LinkUp { link });
                if self.ready(end.server, end.life) && self.wires[wire].open[0] {
                    self.step(end.server, Input::LinkUp { link: end.link });
                }
            }
            Event::Refused { end } => {
                if self.ready(end.server, end.life) && !self.postponed(end.server, &event) {
                    self.step(end.server, Input::LinkDown { link: end.link });
                }
            }
            Event::Wire { wire, side } => {
                let (wire, side) = (*wire, *side);
                let end = self.wires[wire].ends[side];
                let from = self.wires[wire].ends[1 - side].server;
                if !self.wires[wire].open[side] || !self.ready(end.server, end.life) {
                    self.wires[wire].queues[side].clear();
                    return;
                }
                if self.postponed(end.server, &event) {
                    return;
                }
                if self.blocked.contains(&(from, end.server)) {
                    self.at(20, event.clone());
                    return;
                }
                let (_, frame) = self.wires[wire].queues[side].pop_front().expect("a frame");
                if let Some((at_ms, _)) = self.wires[wire].queues[side].front() {
                    self.at((at_ms - self.now_ms).max(0), event.clone());
                }
                let link = end.link;
                match frame {
                    Frame::Packet(packet) => {
                        self.step(end.server, Input::Packet { link, packet });
                    }
                    Frame::Snapshot(zxid, state) => {
                        let members = state.iter().rev().find_map(|(_, txn)| brought(txn));
                        self.servers[end.server].staged.insert(link, state);
                        self.step(end.server, Input::SnapshotReceived { link, zxid, members });
                    }
                    Frame::End => {
                        self.wires[wire].open[side] = false;
                        self.step(end.server, Input::LinkDown { link });
                    }
                }
            }
            Event::Sync { server, life } => {
                if !self.ready(*server, *life) || self.servers[*server].disk.queue.is_empty() {
                    return;
                }
                if self.servers[*server].wedged {
                    self.at(30, event.clone());
                    return;
                }
                if self.postponed(*server, &event) {
                    return;
                }
                // A batch, as a disk with group commit does it.
                let batch = 1 + self.prng.index(self.servers[*server].disk.queue.len());
                let mut token = Token(0);
                for _ in 0..batch {
                    token = self.servers[*server].disk.sync_one();
                }
                if !self.servers[*server].disk.queue.is_empty() {
                    self.sync_soon(*server);
                }
                self.step(*server, Input::Persisted { token });
            }
            Event::Restart { server } => {
                if !self.servers[*server].up {
                    self.start(*server);
                }
            }
        }
    }

    fn sync_soon(&mut self, server: usize) {
        let life = self.servers[server].life;
        let delay = i64::try_from(self.prng.below(self.weather.sync_ms_max + 1)).expect("small");
        self.at(delay, Event::Sync { server, life });
    }

    pub(crate) fn step(&mut self, index: usize, input: Input) {
        self.log(|| format!("{}: <- {}", index + 1, describe_input(&input)));
        let server = &mut self.servers[index];
        server.peer.step(self.now_ms, input, &server.disk);
        self.drain(index);
    }

    /// Proposes a transaction, if this server leads.
    pub(crate) fn propose(&mut self, index: usize) -> Option<Zxid> {
        let server = &self.servers[index];
        if !server.up || server.paused_until_ms > self.now_ms || !server.peer.may_propose() {
            return None;
        }
        assert_eq!(server.serving, Some(ServingRole::Leader));
        let zxid = server.peer.last_proposed().next();
        let txn = Bytes::from(format!("{zxid} by {} in life {}", server.id, server.life));
        self.propose_txn(index, zxid, txn)
    }

    fn propose_txn(&mut self, index: usize, zxid: Zxid, txn: Bytes) -> Option<Zxid> {
        let before = self.proposed.insert(zxid, txn.clone());
        assert_eq!(before, None, "{zxid} proposed twice");
        self.step(index, Input::Propose { zxid, txn });
        Some(zxid)
    }

    /// Proposes that the ensemble be these servers, if this server leads and may.
    pub(crate) fn reconfigure(&mut self, index: usize, roles: &[(usize, &str)]) -> Option<Zxid> {
        self.reconfigure_to(index, &of_roles(roles.iter().copied(), 0))
    }

    pub(crate) fn reconfigure_to(&mut self, index: usize, members: &Members) -> Option<Zxid> {
        let server = &self.servers[index];
        if !server.up || server.paused_until_ms > self.now_ms || !server.peer.may_propose() {
            return None;
        }
        let zxid = server.peer.last_proposed().next();
        let members = Members { version: zxid.0, ..members.clone() };
        if server.peer.is_reconfiguring() || !server.peer.is_synced_quorum(&members) {
            return None;
        }
        self.note("a reconfiguration was proposed");
        self.propose_txn(index, zxid, reconfiguration(zxid, &members))
    }

    /// Proposes some ensemble.
    fn reconfigure_somehow(&mut self, index: usize) {
        let mut roles = Vec::new();
        for server in 0..self.servers.len() {
            match self.prng.below(10) {
                0..6 => roles.push((server, "participant")),
                6..8 => roles.push((server, "observer")),
                _ => {}
            }
        }
        if roles.iter().any(|(_, role)| *role == "participant") {
            self.reconfigure(index, &roles);
        }
    }

    /// What a server's clients and its checkpoints do in a tick.
    fn work(&mut self, index: usize) {
        if self.prng.chance(self.weather.proposals) {
            for _ in 0..=self.prng.index(3) {
                self.propose(index);
            }
        }
        if self.weather.reconfig_every > 0 && self.prng.below(self.weather.reconfig_every) == 0 {
            self.reconfigure_somehow(index);
        }
        if self.weather.checkpoint_every > 0 && self.prng.below(self.weather.checkpoint_every) == 0
        {
            let purge = self.prng.chance(60);
            let server = &mut self.servers[index];
            let state = server.state.clone();
            server.disk.checkpoint(&state, purge);
        }
    }

    fn drain(&mut self, index: usize) {
        while self.servers[index].up {
            let Some(action) = self.servers[index].peer.poll_action() else { break };
            self.log(|| format!("{}: -> {}", index + 1, describe_action(&action)));
            self.act(index, action);
        }
        self.check(index);
    }

    fn act(&mut self, index: usize, action: Action) {
        let life = self.servers[index].life;
        match action {
            Action::Persist { token, write } => {
                if let Write::Append { zxid, txn } = &write {
                    assert_eq!(self.proposed.get(zxid), Some(txn), "{zxid} is another transaction");
                }
                let server = &mut self.servers[index];
                let state = match &write {
                    Write::InstallSnapshot { link, .. } => {
                        Some(server.staged.get(link).expect("it is staged").clone())
                    }
                    Write::Append { .. }
                    | Write::AcceptedEpoch(_)
                    | Write::CurrentEpoch(_)
                    | Write::Truncate(_) => None,
                };
                let idle = server.disk.queue.is_empty();
                server.disk.queue.push_back(Queued { token, write, state });
                if idle {
                    self.sync_soon(index);
                }
            }
            Action::Deliver { zxid, txn } => self.on_deliver(index, zxid, txn),
            Action::Propose { .. } => {} // everybody is reached by number
            Action::Activate { members } => {
                assert!(members.version > 0 && !members.voters.is_empty());
                // What no transaction has brought is nowhere else.
                let is_kept = !self.weather.forgets || Zxid(members.version).counter() == 0;
                let file = &mut self.servers[index].file;
                if is_kept || file.is_none() {
                    *file = Some(members);
                }
                self.note("a configuration was activated");
            }
            Action::SwitchTree { link, zxid } => {
                let server = &mut self.servers[index];
                assert_eq!(server.serving, None, "the tree is switched under its clients");
                let state = server.staged.remove(&link).expect("it is staged");
                assert_eq!(server.disk.stored.0, zxid, "the snapshot is not on disk");
                assert!(state.len() >= server.state.len(), "a tree goes back");
                assert_eq!(state.as_slice(), &self.delivered[..state.len()]);
                server.state = state;
                self.note("a tree was switched");
            }
            Action::Notify { to, notification } => {
                let Some(to) = self.servers.iter().position(|server| server.id == to) else {
                    return;
                };
                if !self.servers[to].up {
                    let other = self.servers[to].id;
                    let delay = self.delay();
                    self.at(delay, Event::Reachable { server: index, life, other });
                    return;
                }
                let delay = self.delay();
                self.at(delay, Event::Notification { from: index, to, notification });
            }
            Action::Connect { link, server: leader, .. } => {
                let to =
                    self.servers.iter().position(|server| server.id == leader).expect("a member");
                let delay = self.delay();
                self.at(delay, Event::Dial { end: End { server: index, life, link }, to });
            }
            Action::Close { link } => {
                let end = End { server: index, life, link };
                if let Some((wire, side)) = self.by_end.get(&end).copied() {
                    self.hang_up(wire, side);
                }
            }
            Action::Send { link, packet } => {
                self.check_sent(index, &packet);
                self.send(index, link, Frame::Packet(packet));
            }
            Action::SendHistory { link, after, to } => {
                let found = self.servers[index].disk.read(after, to);
                self.note("history was sent from disk");
                match found {
                    Some(history) => self.send_history(index, link, &history),
                    None => self.lose(index, link),
                }
            }
            Action::SendSnapshot { link, to } => {
                let server = &self.servers[index];
                let (zxid, state) = server.disk.stored.clone();
                assert!(zxid <= to, "the stored state is ahead");
                let history = server.disk.read(zxid, to).expect("the log begins at the state");
                self.note("a snapshot was sent");
                self.send(index, link, Frame::Snapshot(zxid, state));
                self.send_history(index, link, &history);
            }
            Action::Pass { link, packet } => {
                let learner = self.servers[index].serving != Some(ServingRole::Leader);
                if learner && packet.packet_type == PacketType::PING {
                    // As the request layer does.
                    let answer = QuorumPacket { data: Some(Bytes::new()), ..packet };
                    self.send(index, link, Frame::Packet(answer));
                }
            }
            Action::Serve { role } => self.on_serve(index, role),
            Action::StopServing { why } => {
                assert!(self.servers[index].serving.is_some());
                assert!(!self.calm, "{} stops serving although nothing is wrong: {why}", index + 1);
                self.servers[index].serving = None;
            }
            Action::Halt { why } => self.servers[index].halted = Some(why),
        }
    }

    fn lose(&mut self, index: usize, link: LinkId) {
        let end = End { server: index, life: self.servers[index].life, link };
        if let Some((wire, side)) = self.by_end.get(&end).copied()
            && self.wires[wire].open[side]
        {
            self.end(wire, side);
            self.end(wire, 1 - side);
        }
    }

    fn send_history(&mut self, index: usize, link: LinkId, history: &State) {
        for (zxid, txn) in history {
            let proposal = QuorumPacket {
                packet_type: PacketType::PROPOSAL,
                zxid: *zxid,
                data: Some(txn.clone()),
                authinfo: None,
            };
            let commit = QuorumPacket {
                packet_type: PacketType::COMMIT,
                zxid: *zxid,
                data: None,
                authinfo: None,
            };
            self.send(index, link, Frame::Packet(proposal));
            self.send(index, link, Frame::Packet(commit));
        }
    }

    fn send(&mut self, index: usize, link: LinkId, frame: Frame) {
        let end = End { server: index, life: self.servers[index].life, link };
        let Some(&(wire, side)) = self.by_end.get(&end) else { return };
        if !self.wires[wire].open[side] {
            return;
        }
        let other = 1 - side;
        self.enqueue(wire, other, frame);
    }

    // What must hold.

    fn on_deliver(&mut self, index: usize, zxid: Zxid, txn: Bytes) {
        let at = self.servers[index].state.len();
        match self.delivered.get(at) {
            Some(known) => assert_eq!(
                (zxid, &txn),
                (known.0, &known.1),
                "server {} delivers something else",
                index + 1
            ),
            None => {
                let last = self.delivered.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
                assert!(
                    zxid.0 == last.0 + 1 || zxid.epoch() > last.epoch() && zxid.counter() == 1,
                    "{zxid} delivered behind {last}"
                );
                let brought = brought(&txn);
                if brought.is_some() {
                    self.note("a reconfiguration was committed");
                }
                let before = self.delivered.iter().rev().find_map(|(_, txn)| self::brought(txn));
                let before = before.unwrap_or_else(|| self.config.members.clone());
                let holders = self.servers.iter().filter(|server| server.disk.has(zxid));
                let holders = holders.map(|server| server.id).collect();
                // A reconfiguration is agreed on by the members before it and by those behind it.
                for members in brought.iter().chain([&before]) {
                    assert!(
                        QuorumVerifier::new(members).contains_quorum(&holders),
                        "{zxid} is delivered, and on the disks of {holders:?}"
                    );
                }
                self.delivered.push((zxid, txn.clone()));
            }
        }
        assert!(self.servers[index].disk.has(zxid), "{zxid} is delivered before it is logged");
        self.servers[index].state.push((zxid, txn));
    }

    fn on_serve(&mut self, index: usize, role: ServingRole) {
        let server = &mut self.servers[index];
        assert_eq!(server.serving, None, "it serves already");
        server.serving = Some(role);
        if role == ServingRole::Leader {
            let members = &self.config.members;
            assert!(
                !members.is_hierarchical() || QuorumVerifier::new(members).has_weight(server.id),
                "{} leads without weight",
                server.id
            );
            let epoch = server.peer.last_proposed().epoch();
            let me = (index, server.life);
            assert_eq!(server.disk.current, epoch, "it leads in an epoch that is not on its disk");
            // A later leader may be established already, and this one cut off, without a quorum that
            // it could commit anything with.
            let earlier = self.delivered.iter().filter(|(zxid, _)| zxid.epoch() < epoch).count();
            assert!(
                server.state.len() >= earlier,
                "a leader of epoch {epoch} without {} delivered transactions",
                earlier - server.state.len()
            );
            let other = self.established.insert(epoch, me);
            assert_eq!(other, None, "a second leader of epoch {epoch}");
            self.note("a leader was established");
        }
    }

    fn check_sent(&mut self, index: usize, packet: &QuorumPacket) {
        let disk = &self.servers[index].disk;
        match packet.packet_type {
            PacketType::ACK if packet.zxid.counter() == 0 => {
                assert!(disk.current >= packet.zxid.epoch(), "NEWLEADER acknowledged too early");
            }
            PacketType::ACK => {
                assert!(disk.has(packet.zxid), "{} acknowledged too early", packet.zxid);
            }
            PacketType::ACK_EPOCH => {
                // With -1 it promises nothing.
                let counts = packet.data.as_deref() != Some(&[0xff; 4]);
                let promised = self.servers[index].peer.status().accepted_epoch;
                assert!(!counts || disk.accepted >= promised, "an epoch acknowledged too early");
            }
            PacketType::DIFF => self.note("DIFF"),
            PacketType::TRUNC => self.note("TRUNC"),
            _ => {} // nothing to be checked
        }
    }

    fn check(&self, index: usize) {
        let server = &self.servers[index];
        if !server.up {
            return;
        }
        let status = server.peer.status();
        let applied = server.state.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        // A snapshot counts before it takes the tree's place.
        let switching = server.serving.is_none() && !server.staged.is_empty();
        assert!(status.delivered == applied || switching && status.delivered > applied);
        assert!(status.delivered <= status.committed && status.committed <= status.last_logged);
        assert_eq!(server.peer.serving(), server.serving);
        assert_eq!(status.serving, server.serving.is_some());
    }

    // Faults.

    pub(crate) fn pause(&mut self, index: usize, for_ms: i64) {
        self.log(|| format!("{}: stands still for {for_ms} ms", index + 1));
        let until_ms = &mut self.servers[index].paused_until_ms;
        *until_ms = (*until_ms).max(self.now_ms + for_ms);
    }

    /// Breaks a connection, if there is one.
    pub(crate) fn reset_some_link(&mut self) {
        let open: Vec<usize> =
            (0..self.wires.len()).filter(|wire| self.wires[*wire].open == [true; 2]).collect();
        if open.is_empty() {
            return;
        }
        let wire = *self.prng.pick(&open);
        self.log(|| format!("link {wire} breaks"));
        self.end(wire, 0);
        self.end(wire, 1);
    }

    pub(crate) fn restart_later(&mut self, index: usize, after_ms: i64) {
        self.at(after_ms, Event::Restart { server: index });
    }

    pub(crate) fn fault(&mut self) {
        let count = self.servers.len();
        let index = self.prng.index(count);
        let other = self.prng.index(count);
        match self.prng.below(100) {
            0..20 => {
                if self.servers[index].up {
                    let keep = self.prng.index(4);
                    self.crash(index, keep);
                    let after = i64::try_from(self.prng.below(1500)).expect("small");
                    self.restart_later(index, after);
                }
            }
            20..25 => {
                // The power of everybody.
                for index in 0..count {
                    if self.servers[index].up {
                        let keep = self.prng.index(4);
                        self.crash(index, keep);
                    }
                    let after = i64::try_from(self.prng.below(400)).expect("small");
                    self.restart_later(index, after);
                }
            }
            25..40 => self.reset_some_link(),
            40..55 => {
                self.blocked.insert((index, other));
                if self.prng.chance(70) {
                    self.blocked.insert((other, index));
                }
            }
            55..75 => {
                let first = self.blocked.iter().next().copied();
                if self.prng.chance(50) {
                    self.blocked.clear();
                } else if let Some(pair) = first {
                    self.blocked.remove(&pair);
                }
            }
            75..82 => {
                let for_ms = i64::try_from(self.prng.below(900)).expect("small");
                self.pause(index, for_ms);
            }
            82..88 => self.servers[index].wedged = true,
            88..94 => self.servers[index].wedged = false,
            _ => {
                // The leader, whoever it is.
                if let Some(leader) = self.leader() {
                    let keep = self.prng.index(4);
                    self.crash(leader, keep);
                    self.restart_later(leader, 300);
                }
            }
        }
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.servers
            .iter()
            .position(|server| server.up && server.serving == Some(ServingRole::Leader))
    }

    /// Everything works again.
    pub(crate) fn heal(&mut self) {
        let pauses = self.servers.iter().map(|server| server.paused_until_ms).max();
        self.run_until(pauses.unwrap_or_default().max(self.now_ms));
        self.log(|| "everything heals".to_owned());
        self.blocked.clear();
        for index in 0..self.servers.len() {
            self.servers[index].wedged = false;
            if !self.servers[index].up {
                self.start(index);
            }
        }
    }

    pub(crate) fn all_serve(&self) -> bool {
        self.servers.iter().all(|server| server.up && server.serving.is_some())
    }

    /// Runs until everybody serves and has what the leader proposes now.
    pub(crate) fn progress(&mut self, within_ms: i64) -> Result<(), String> {
        let deadline_ms = self.now_ms + within_ms;
        let mut target = None;
        while self.now_ms < deadline_ms {
            self.run_until(self.now_ms + TICK_MS);
            if !self.all_serve() {
                target = None;
                continue;
            }
            let Some(leader) = self.leader() else { continue };
            let Some(zxid) = target else {
                target = self.propose(leader);
                continue;
            };
            let has = |server: &Server| server.state.iter().any(|(own, _)| *own == zxid);
            if self.servers.iter().all(has) {
                return Ok(());
            }
        }
        let status = self.servers.iter().map(|server| {
            let peer = &server.peer;
            let members = describe_members(peer.members());
            let changes = if peer.is_reconfiguring() { ", changing" } else { "" };
            format!("{}: {members}{changes}\n{:#?}\n", server.id, peer.status())
        });
        Err(format!("no progress within {within_ms} ms: {}", status.collect::<String>()))
    }
}

fn describe_members(members: &Members) -> String {
    let ids = |servers: &BTreeSet<ServerId>| servers.iter().map(|id| id.0).collect::<Vec<_>>();
    let Members { voters, observers, version, .. } = members;
    format!("voters {:?} observers {:?} version {version:x}", ids(voters), ids(observers))
}

fn describe_txn(txn: &Bytes) -> String {
    brought(txn).as_ref().map_or_else(String::new, describe_members)
}

fn describe_packet(packet: &QuorumPacket) -> String {
    format!("{} {}", packet.packet_type, packet.zxid)
}

fn describe_vote(vote: &Notification) -> String {
    let Notification { state, leader, zxid, round, peer_epoch, config, .. } = vote;
    let config = config.as_deref().map(Members::from_text).unwrap_or_default();
    format!(
        "{state:?} {leader} {zxid} round {round} epoch {peer_epoch} config {:x}",
        config.version
    )
}

fn describe_input(input: &Input) -> String {
    match input {
        Input::Packet { link, packet } => format!("link {} {}", link.0, describe_packet(packet)),
        Input::Notification { from, notification } => {
            format!("{from} votes {}", describe_vote(notification))
        }
        Input::Propose { zxid, txn } => format!("Propose {zxid} {}", describe_txn(txn)),
        other => format!("{other:?}"),
    }
}

fn describe_action(action: &Action) -> String {
    match action {
        Action::Send { link, packet } => format!("link {} {}", link.0, describe_packet(packet)),
        Action::Notify { to, notification } => {
            format!("to {to}: {}", describe_vote(notification))
        }
        Action::Deliver { zxid, txn } => format!("Deliver {zxid} {}", describe_txn(txn)),
        Action::Persist { token, write: Write::Append { zxid, txn } } => {
            format!("Append {zxid} {} as {token:?}", describe_txn(txn))
        }
        Action::Propose { members } => format!("Propose {}", describe_members(members)),
        Action::Activate { members } => format!("Activate {}", describe_members(members)),
        other => format!("{other:?}"),
    }
}
