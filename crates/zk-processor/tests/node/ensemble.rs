//! Several servers in one process: their disks, links and clocks are queues here, and everything
//! happens when the test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use zk_processor::{Action, Flow, Node, NodeConfig, Now, ServerRole};
use zk_proto::connect::ConnectRequest;
use zk_proto::proto::ReplyHeader;
use zk_proto::quorum::{Notification, PacketType, QuorumPacket};
use zk_proto::txn::LoggedTxn;
use zk_proto::{Epoch, Record, Request, ServerId, SessionId, Xid, Zxid};
use zk_session::first_id;
use zk_tree::Database;
use zk_zab::{Durable, History, LearnerPort, LinkId, Members, PeerConfig, Token, Write};

use crate::harness::{
    Connection, FakeOutbox, Handle, Message, START, config, connect_request, tree_config,
};

/// Time between two ticks of a server, in ms.
const STEP_MS: i64 = 10;

type Log = Vec<(Zxid, Bytes)>;

/// A server's disk: the whole log since the first transaction.
#[derive(Debug, Default)]
struct Disk {
    log: Log,
    accepted: Epoch,
    current: Epoch,
    staged: BTreeMap<LinkId, Log>,
}

#[derive(Debug, Clone, Default)]
struct SharedDisk(Arc<Mutex<Disk>>);

impl SharedDisk {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("one thread")
    }
}

impl History for SharedDisk {
    fn begins(&self) -> Zxid {
        Zxid::ZERO
    }

    fn floor(&self, zxid: Zxid) -> Option<Zxid> {
        let disk = self.lock();
        let at = disk.log.partition_point(|(own, _)| *own <= zxid);
        Some(at.checked_sub(1).map_or(Zxid::ZERO, |at| disk.log[at].0))
    }

    fn bytes_after(&self, after: Zxid) -> u64 {
        let disk = self.lock();
        disk.log.iter().filter(|(zxid, _)| *zxid > after).map(|(_, txn)| txn.len() as u64).sum()
    }

    fn snapshot_bytes(&self) -> u64 {
        1 << 30
    }
}

impl Disk {
    fn write(&mut self, write: Write) {
        match write {
            Write::Append { zxid, txn } => {
                assert!(self.log.last().is_none_or(|(last, _)| *last < zxid));
                self.log.push((zxid, txn));
            }
            Write::AcceptedEpoch(epoch) => self.accepted = epoch,
            Write::CurrentEpoch(epoch) => self.current = epoch,
            Write::Truncate(zxid) => self.log.retain(|(own, _)| *own <= zxid),
            Write::InstallSnapshot { link, .. } => {
                self.log = self.staged.remove(&link).expect("it was staged");
            }
        }
    }
}

/// What is on its way over a link.
#[derive(Debug)]
enum Wire {
    Packet(QuorumPacket),
    Snapshot(Zxid, Log),
    Up,
    /// The same on an observer master port.
    ObserverUp,
    Down,
}

#[derive(Debug)]
struct Server {
    node: Node,
    disk: SharedDisk,
    writes: VecDeque<(Token, Write)>,
    /// Its writes wait: all, or from the first snapshot on.
    disk_held: bool,
    installs_held: bool,
    halted: Option<String>,
}

/// An end of a link.
type End = (i64, LinkId);

pub(crate) struct Ensemble {
    pub(crate) now: Now,
    config: NodeConfig,
    peers: BTreeMap<i64, PeerConfig>,
    servers: BTreeMap<i64, Server>,
    /// The other end of each.
    links: BTreeMap<End, End>,
    /// What comes in at each end.
    wires: BTreeMap<End, VecDeque<Wire>>,
    votes: VecDeque<(i64, i64, Notification)>,
    /// What one sends to the other waits.
    held: BTreeSet<(i64, i64)>,
    /// Every packet that was sent, if somebody looks.
    pub(crate) sent: Vec<(i64, i64, QuorumPacket)>,
    connections: BTreeMap<String, (i64, Connection)>,
    /// Disks of servers that do not run.
    disks: BTreeMap<i64, SharedDisk>,
}

impl Ensemble {
    /// Voters 1 to `voters`, and observers behind them. Established, if that can be.
    pub(crate) fn new(voters: i64, observers: i64) -> Self {
        Self::with(voters, observers, config(), |_| {})
    }

    pub(crate) fn with(
        voters: i64,
        observers: i64,
        config: NodeConfig,
        configure: impl Fn(&mut PeerConfig),
    ) -> Self {
        let text = (1..=voters + observers)
            .map(|id| {
                let kind = if id > voters { "observer" } else { "participant" };
                format!("server.{id}=h{id}:2888:3888:{kind}\n")
            })
            .collect();
        let members = Members {
            voters: (1..=voters).map(ServerId).collect(),
            observers: (voters + 1..=voters + observers).map(ServerId).collect(),
            text,
            ..Members::default()
        };
        let peer = |id| {
            let mut peer = PeerConfig::new(ServerId(id), members.clone());
            configure(&mut peer);
            peer
        };
        let mut ensemble = Self {
            now: START,
            config,
            peers: (1..=voters + observers).map(|id| (id, peer(id))).collect(),
            servers: BTreeMap::new(),
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            votes: VecDeque::new(),
            held: BTreeSet::new(),
            sent: Vec::new(),
            connections: BTreeMap::new(),
            disks: BTreeMap::new(),
        };
        for id in 1..=voters + observers {
            ensemble.start(id, SharedDisk::default(), true);
        }
        ensemble.establish();
        ensemble
    }

    fn start(&mut self, id: i64, disk: SharedDisk, initialized: bool) {
        let durable = {
            let disk = disk.lock();
            Durable {
                accepted_epoch: disk.accepted,
                current_epoch: disk.current,
                applied: Zxid::ZERO,
                tail: disk.log.clone(),
                initialized,
            }
        };
        let mut config = self.config.clone();
        config.session.first_id = first_id(ServerId(id), self.now.wall_ms);
        let db = Database::new(tree_config(&config));
        let peer = self.peers[&id].clone();
        let node = Node::member(config, peer, durable, db, Box::new(disk.clone()), self.now);
        let writes = VecDeque::new();
        let server =
            Server { node, disk, writes, disk_held: false, installs_held: false, halted: None };
        self.servers.insert(id, server);
    }

    /// The process ends: what is not on disk is gone.
    pub(crate) fn kill(&mut self, id: i64) {
        let server = self.servers.remove(&id).expect("it runs");
        self.disks.insert(id, server.disk);
        let ends: Vec<End> = self.links.keys().filter(|end| end.0 == id).copied().collect();
        for end in ends {
            self.hang_up(end);
        }
        self.votes.retain(|(from, to, _)| *from != id && *to != id);
        for (server, connection) in self.connections.values_mut() {
            connection.closed |= *server == id;
        }
        self.settle();
    }

    /// A new server, which knows those that are there and itself: it is to be added.
    pub(crate) fn join(&mut self, id: i64) {
        let leader = &self.servers[&self.leader()].node;
        let mut text = leader.read(|db| {
            let data = db.tree.find("/zookeeper/config").and_then(|znode| znode.data());
            String::from_utf8(data.expect("there is a leader").to_vec()).expect("it is text")
        });
        text.truncate(text.rfind("version=").expect("it has a version"));
        let (_, any) = self.peers.first_key_value().expect("there are some");
        let mut peer = PeerConfig { id: ServerId(id), ..any.clone() };
        peer.members =
            Members::from_text(&format!("{text}server.{id}=h{id}:2888:3888:participant\n"));
        self.peers.insert(id, peer);
        self.start(id, SharedDisk::default(), false);
    }

    /// A server comes back with what is on its disk.
    pub(crate) fn restart(&mut self, id: i64) {
        let disk = self.disks.remove(&id).expect("it was killed");
        self.start(id, disk, false);
    }

    /// A server comes back with an empty disk.
    pub(crate) fn start_empty(&mut self, id: i64) {
        self.start(id, SharedDisk::default(), false);
    }

    /// Lets time pass until all serve that run.
    pub(crate) fn establish(&mut self) {
        for _ in 0..3000 {
            self.step();
            if self.servers.values().all(|server| server.node.is_serving()) {
                // What leads is heard of by all.
                self.pass(1100);
                return;
            }
        }
        let roles: Vec<_> = self.servers.values().map(|one| one.node.quorum_status()).collect();
        panic!("not established: {roles:#?}");
    }

    pub(crate) fn node(&self, id: i64) -> &Node {
        &self.servers[&id].node
    }

    pub(crate) fn role(&self, id: i64) -> ServerRole {
        self.node(id).status().role
    }

    pub(crate) fn leader(&self) -> i64 {
        let leads = |id: &&i64| self.role(**id) == ServerRole::Leader;
        *self.servers.keys().find(leads).expect("somebody leads")
    }

    /// A follower; the one with the least id.
    pub(crate) fn follower(&self) -> i64 {
        self.learners()[0]
    }

    pub(crate) fn learners(&self) -> Vec<i64> {
        let leads = |id: &i64| self.role(*id) != ServerRole::Leader;
        self.servers.keys().copied().filter(leads).collect()
    }

    /// What `from` sends to `to` waits.
    pub(crate) fn hold(&mut self, from: i64, to: i64) {
        self.held.insert((from, to));
    }

    /// It goes on.
    pub(crate) fn release(&mut self, from: i64, to: i64) {
        self.held.remove(&(from, to));
        self.settle();
    }

    /// A server's writes wait, or go on.
    pub(crate) fn hold_disk(&mut self, id: i64, held: bool) {
        self.servers.get_mut(&id).expect("it runs").disk_held = held;
        self.settle();
    }

    /// A server's writes wait from the first snapshot on, or go on.
    pub(crate) fn hold_installs(&mut self, id: i64, held: bool) {
        self.servers.get_mut(&id).expect("it runs").installs_held = held;
        self.settle();
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        for _ in 0..ms / STEP_MS {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now.mono_us += STEP_MS * 1000;
        self.now.wall_ms += STEP_MS;
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            self.act(id, |node, now, actions| node.on_tick(now, actions));
        }
        self.settle();
    }

    /// Does something with a server, and takes what it wants done.
    fn act(&mut self, id: i64, act: impl FnOnce(&Node, Now, &mut dyn FnMut(Action))) {
        let Some(server) = self.servers.get(&id).filter(|server| server.halted.is_none()) else {
            return;
        };
        let mut actions = Vec::new();
        act(&server.node, self.now, &mut |action| actions.push(action));
        for action in actions {
            self.perform(id, action);
        }
    }

    fn perform(&mut self, id: i64, action: Action) {
        let server = self.servers.get_mut(&id).expect("it acts");
        match action {
            Action::Persist { token, write } => server.writes.push_back((token, write)),
            Action::Notify { to, notification } => {
                self.votes.push_back((id, to.0, notification));
            }
            Action::Connect { link, server: other, port } => {
                let id_of_other = other.0;
                let Some(other) = self.servers.get(&id_of_other) else {
                    self.wires.insert((id, link), [Wire::Down].into());
                    return;
                };
                let (own, other) = ((id, link), (id_of_other, other.node.accept_link()));
                self.links.insert(own, other);
                self.links.insert(other, own);
                self.wires.insert(own, [Wire::Up].into());
                let accepted = match port {
                    LearnerPort::Quorum => Wire::Up,
                    LearnerPort::ObserverMaster => Wire::ObserverUp,
                };
                self.wires.insert(other, [accepted].into());
            }
            Action::Close { link } => self.hang_up((id, link)),
            Action::Send { link, packet } => self.send((id, link), Wire::Packet(packet)),
            Action::SendHistory { link, after, to } => {
                let log = server.disk.lock().log.clone();
                self.send_history((id, link), &log, after, to);
            }
            Action::SendSnapshot { link, to } => {
                let log = server.disk.lock().log.clone();
                // Not all of it, so that something is behind it.
                let applied = server.node.status().zxid;
                let upto = log.partition_point(|(zxid, _)| *zxid <= applied.min(to));
                let upto = upto.saturating_sub(1);
                let zxid = upto.checked_sub(1).map_or(Zxid::ZERO, |last| log[last].0);
                self.send((id, link), Wire::Snapshot(zxid, log[..upto].to_vec()));
                self.send_history((id, link), &log, zxid, to);
            }
            Action::Propose { .. } | Action::Activate { .. } => {}
            Action::Halt { why } => {
                server.halted.get_or_insert(why);
            }
        }
    }

    fn send_history(&mut self, from: End, log: &Log, after: Zxid, to: Zxid) {
        for (zxid, txn) in log.iter().filter(|(zxid, _)| *zxid > after && *zxid <= to) {
            for (packet_type, data) in
                [(PacketType::PROPOSAL, Some(txn.clone())), (PacketType::COMMIT, None)]
            {
                let packet = QuorumPacket { packet_type, zxid: *zxid, data, authinfo: None };
                self.send(from, Wire::Packet(packet));
            }
        }
    }

    fn send(&mut self, from: End, wire: Wire) {
        let Some(to) = self.links.get(&from) else { return };
        if let Wire::Packet(packet) = &wire {
            // As it is read back on the other side.
            let packet = QuorumPacket::decode(&packet.to_bytes()).expect("it can be read");
            self.sent.push((from.0, to.0, packet));
        }
        self.wires.entry(*to).or_default().push_back(wire);
    }

    fn hang_up(&mut self, end: End) {
        self.wires.remove(&end);
        if let Some(other) = self.links.remove(&end) {
            self.links.remove(&other);
            self.wires.entry(other).or_default().push_back(Wire::Down);
        }
    }

    /// A link of this server breaks, if it has one: a learner's is that to its leader.
    pub(crate) fn cut(&mut self, server: i64) {
        let Some(end) = self.links.keys().find(|end| end.0 == server).copied() else { return };
        let other = self.links[&end];
        for end in [end, other] {
            self.links.remove(&end);
            self.wires.insert(end, [Wire::Down].into());
        }
        self.settle();
    }

    /// Everything happens that can happen without time.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut idle = true;
            for id in self.servers.keys().copied().collect::<Vec<_>>() {
                idle &= !self.persist(id);
            }
            idle &= !self.deliver_votes();
            for end in self.wires.keys().copied().collect::<Vec<_>>() {
                idle &= !self.receive(end);
            }
            idle &= !self.serve_connections();
            if idle {
                return;
            }
        }
    }

    fn persist(&mut self, id: i64) -> bool {
        let server = self.servers.get_mut(&id).expect("it runs");
        if server.disk_held {
            return false;
        }
        let mut last = None;
        while let Some((token, write)) = server.writes.pop_front() {
            if server.installs_held && matches!(write, Write::InstallSnapshot { .. }) {
                server.writes.push_front((token, write));
                break;
            }
            server.disk.lock().write(write);
            last = Some(token);
        }
        let Some(last) = last else { return false };
        self.act(id, |node, now, actions| node.on_persisted(last, now, actions));
        true
    }

    fn deliver_votes(&mut self) -> bool {
        let votes: Vec<_> = self.votes.drain(..).collect();
        let any = !votes.is_empty();
        for (from, to, vote) in votes {
            if self.servers.contains_key(&to) {
                self.act(to, |node, now, actions| {
                    node.on_notification(ServerId(from), vote, now, actions);
                });
            } else {
                self.act(from, |node, now, actions| {
                    node.on_reachable(ServerId(to), false, now, actions);
                });
            }
        }
        any
    }

    fn receive(&mut self, end: End) -> bool {
        let (id, link) = end;
        if let Some((from, _)) = self.links.get(&end)
            && self.held.contains(&(*from, id))
        {
            return false;
        }
        let Some(wires) = self.wires.get_mut(&end) else { return false };
        let mut packets = VecDeque::new();
        while let Some(Wire::Packet(_)) = wires.front()
            && let Some(Wire::Packet(packet)) = wires.pop_front()
        {
            packets.push_back(packet);
        }
        if !packets.is_empty() {
            self.act(id, |node, now, actions| node.on_packets(link, &mut packets, now, actions));
            return true;
        }
        match wires.pop_front() {
            Some(Wire::Up) => {
                self.act(id, |node, now, actions| node.on_link_up(link, now, actions));
            }
            Some(Wire::ObserverUp) => {
                self.act(id, |node, now, actions| node.on_observer_link_up(link, now, actions));
            }
            Some(Wire::Down) => {
                self.wires.remove(&end);
                self.act(id, |node, now, actions| node.on_link_down(link, now, actions));
            }
            Some(Wire::Snapshot(zxid, log)) => {
                let mut db = Database::new(tree_config(&self.config));
                for (_, txn) in &log {
                    db.apply(&LoggedTxn::decode(txn).expect("it is a transaction"), &mut |_, _| {});
                }
                self.servers[&id].disk.lock().staged.insert(link, log);
                self.act(id, |node, now, actions| node.on_snapshot(link, zxid, db, now, actions));
            }
            Some(Wire::Packet(_)) | None => return false,
        }
        true
    }

    fn serve_connections(&mut self) -> bool {
        let mut any = false;
        for name in self.connections.keys().cloned().collect::<Vec<_>>() {
            let (server, connection) = self.connections.get_mut(&name).expect("listed");
            if connection.closed {
                continue;
            }
            let node = &self.servers[server].node;
            connection.take_messages();
            let mut state = connection.outbox.0.lock().expect("one thread");
            if state.closing {
                drop(state);
                connection.closed = true;
                connection.messages.push(Message::Closed);
                node.on_closed(&connection.client);
                any = true;
                continue;
            }
            if std::mem::take(&mut state.resumed) {
                connection.paused = false;
            }
            drop(state);
            any |= self.serve(&name);
        }
        any
    }

    fn serve(&mut self, name: &str) -> bool {
        let (server, connection) = self.connections.get_mut(name).expect("it exists");
        let id = *server;
        let node = &self.servers[&id].node;
        let mut actions = Vec::new();
        let mut any = false;
        while !connection.paused && !connection.closed && !connection.frames.is_empty() {
            any = true;
            let (client, frames) = (&connection.client, &mut connection.frames);
            let served =
                node.on_frames(client, frames, self.now, &mut |action| actions.push(action));
            match served.flow {
                Flow::Continue => {}
                Flow::Wait => connection.paused = true,
                Flow::Close(why) => {
                    connection.take_messages();
                    connection.messages.push(Message::Refused(why));
                    connection.closed = true;
                    node.on_closed(&connection.client);
                }
            }
        }
        for action in actions {
            self.perform(id, action);
        }
        any
    }

    fn open(&mut self, name: &str, server: i64, request: &ConnectRequest) {
        let outbox = Arc::new(FakeOutbox::default());
        let handle = Box::new(Handle(Arc::clone(&outbox)));
        let client = self.servers[&server].node.open("127.0.0.1".into(), handle, self.now);
        let mut connection = Connection::new(client, outbox);
        connection.frames.push_back(request.to_bytes());
        let old = self.connections.insert(name.to_owned(), (server, connection));
        assert!(old.is_none_or(|(_, old)| old.closed), "{name} is still open");
        self.settle();
    }

    /// Opens a connection to a server and begins a session.
    pub(crate) fn connect(&mut self, name: &str, server: i64) -> SessionId {
        self.open(name, server, &connect_request(SessionId(0)));
        match &self.take(name)[..] {
            [Message::Connected(response)] => response.session_id,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a connection to a server, which may not answer yet.
    pub(crate) fn try_connect(&mut self, name: &str, server: i64, request: &ConnectRequest) {
        self.open(name, server, request);
    }

    /// Opens a connection to a server and comes back to a session.
    pub(crate) fn reconnect(&mut self, name: &str, server: i64, session: SessionId) {
        self.open(name, server, &connect_request(session));
    }

    /// The connection breaks.
    pub(crate) fn lose(&mut self, name: &str) {
        let (server, connection) = self.connections.get_mut(name).expect("it exists");
        assert!(!connection.closed, "{name} is closed already");
        connection.closed = true;
        self.servers[server].node.on_closed(&connection.client);
    }

    pub(crate) fn open_connections(&self) -> Vec<String> {
        let open = self.connections.iter().filter(|(_, (_, connection))| !connection.closed);
        open.map(|(name, _)| name.clone()).collect()
    }

    /// The session of a connection, if it has begun.
    pub(crate) fn session(&self, name: &str) -> Option<SessionId> {
        Some(self.connections[name].1.session).filter(|session| session.0 != 0)
    }

    pub(crate) fn is_closed(&self, name: &str) -> bool {
        self.connections[name].1.closed
    }

    /// Sends requests that arrive together.
    pub(crate) fn send_all(&mut self, name: &str, requests: &[Request]) -> Vec<Xid> {
        let (_, connection) = self.connections.get_mut(name).expect("it exists");
        let xids = requests
            .iter()
            .map(|request| {
                let mut body = BytesMut::new();
                request.encode(&mut body);
                connection.ask(request.op(), &body)
            })
            .collect();
        self.settle();
        xids
    }

    /// Sends an operation with any body.
    pub(crate) fn send_raw(&mut self, name: &str, op: zk_proto::OpCode, body: &[u8]) {
        let (_, connection) = self.connections.get_mut(name).expect("it exists");
        connection.ask(op, body);
        self.settle();
    }

    /// Packets from a learner to its leader, or the other way, that arrive together.
    pub(crate) fn inject(
        &mut self,
        from: i64,
        to: i64,
        packets: impl IntoIterator<Item = QuorumPacket>,
    ) {
        let is_wanted = |(own, other): &(&End, &End)| own.0 == from && other.0 == to;
        let end = *self.links.iter().find(is_wanted).expect("a link").0;
        for packet in packets {
            self.send(end, Wire::Packet(packet));
        }
        self.settle();
    }

    /// What has come out of a connection since the last call.
    pub(crate) fn take(&mut self, name: &str) -> Vec<Message> {
        std::mem::take(&mut self.connections.get_mut(name).expect("it exists").1.messages)
    }

    /// Sends a request and gives the only thing that comes back.
    pub(crate) fn ask(&mut self, name: &str, request: &Request) -> (ReplyHeader, Bytes) {
        self.send_all(name, std::slice::from_ref(request));
        match &self.take(name)[..] {
            [Message::Reply { header, body, .. }] => (*header, body.clone()),
            other => panic!("one reply was expected at {name} to {request:?}: {other:?}"),
        }
    }

    /// The bytes of a server's log.
    pub(crate) fn log(&self, id: i64) -> Vec<LoggedTxn> {
        let disk = self.servers[&id].disk.lock();
        disk.log
            .iter()
            .map(|(_, txn)| LoggedTxn::decode(txn).expect("it is a transaction"))
            .collect()
    }

    pub(crate) fn halted(&self, id: i64) -> Option<&str> {
        self.servers[&id].halted.as_deref()
    }

    /// What must hold when everything has come to rest: all serve the same, and nothing is left over.
    pub(crate) fn check(&self) {
        let leader = self.leader();
        self.servers[&leader].node.read(|leads| {
            for (id, server) in &self.servers {
                assert_eq!(server.halted, None);
                let status = server.node.status();
                assert_eq!(status.outstanding, 0, "server {id}: {status:?}");
                assert_eq!((status.outstanding_changes, status.pending_syncs), (0, 0));
                let open = self.connections.values().filter(|(on, one)| on == id && !one.closed);
                assert_eq!(status.connections, open.clone().count(), "server {id}");
                for (_, connection) in open {
                    assert_eq!(connection.client.info().queued, 0, "something waits for nothing");
                    assert!(connection.frames.is_empty(), "frames wait for nothing");
                }
                let mismatches = &server.node.stats().digest_mismatches;
                assert_eq!(mismatches.load(std::sync::atomic::Ordering::Relaxed), 0);
                if *id == leader {
                    continue;
                }
                server.node.read(|db| {
                    assert_eq!(db.tree.last_zxid(), leads.tree.last_zxid(), "server {id}");
                    assert_eq!(db.tree.digest(), leads.tree.digest(), "server {id}");
                    assert_eq!(db.tree.sessions(), leads.tree.sessions(), "server {id}");
                    assert_eq!(db.tree.node_count(), leads.tree.node_count(), "server {id}");
                    for (path, znode) in leads.tree.iter() {
                        let own = db.tree.find(&path).unwrap_or_else(|| panic!("no {path}"));
                        assert_eq!((own.data(), own.acl()), (znode.data(), znode.acl()), "{path}");
                        // Everybody sets it by itself.
                        if path != "/zookeeper/config" {
                            assert_eq!(own.stat(), znode.stat(), "{path} at server {id}");
                        }
                    }
                });
            }
        });
    }
}
