//! Clients: raw frames, every operation, and every habit that clients have.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN};
use zk_proto::create_mode::CreateMode;
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest};
use zk_proto::proto::{
    AddWatchRequest, CheckVersionRequest, CreateRequest, DeleteRequest, ExistsRequest,
    GetChildren2Request, GetChildrenRequest, GetDataRequest, ReconfigRequest, ReplyHeader,
    RequestHeader, SetDataRequest, SetWatches2, SyncRequest, WatcherEvent,
};
use zk_proto::quorum::PeerState;
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, Reader, Record, Request, SessionId, Xid, Zxid};
use zk_session::LocalSessionMode;
use zk_testkit::Prng;

use crate::check::client::is_write;
use crate::check::model::Event as WatchEvent;
use crate::check::watch::{Kind, Watch, Watches};
use crate::check::{Violation, fail, session};
use crate::clock::{MS, SECOND};
use crate::ensemble::{Ensemble, Event};
use crate::markers::Marker;
use crate::network::Frame;
use crate::swarm::{Scenario, server_line};

/// Watches of one client.
const WATCHES_MAX: usize = 12;

/// Something that a client waits for.
#[derive(Debug)]
struct Asked {
    xid: Xid,
    request: Rc<Request>,
    /// What had been answered to anybody when it was asked.
    floor: Zxid,
    /// For setWatches: which, relative to which zxid, and what came so far.
    again: Option<(Vec<Watch>, Zxid)>,
}

/// A member, its life, and how often it had begun or ceased to serve.
type Home = (usize, u32, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away,
    Greeting,
    Open,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// It only shows that the ensemble is alive.
    probe: bool,
    /// A server without a quorum will do.
    content: bool,
    /// Its server has none, and its session is that server's own.
    read_only: bool,
    session: Option<(SessionId, Bytes)>,
    timeout_ms: i32,
    asked_timeout_ms: i32,
    last_zxid: Zxid,
    next_xid: i32,
    pub(crate) connection: Option<usize>,
    phase: Phase,
    /// It gave this password, and it was wrong.
    wrong_password: bool,
    outstanding: VecDeque<Asked>,
    watches: Watches,
    to_set: Vec<Watch>,
    caught_up: Vec<(EventType, String)>,
    heard_us: i64,
    sent_us: i64,
    /// How many requests it may have under way.
    pipeline: usize,
    think_us: i64,
    turn: u64,
    closing: bool,
    /// Writes whose replies were lost.
    lost: Vec<(SessionId, Xid)>,
    /// Sessions that it was refused.
    pub(crate) refused: Vec<SessionId>,
    versions: BTreeMap<String, i32>,
    server_before: Option<usize>,
    /// Where its session is, if that is a local one: the member, its process and its role.
    home: Option<Home>,
}

impl Client {
    pub(crate) fn new(probe: bool, content: bool, scenario: &Scenario, rng: &mut Prng) -> Self {
        let span = u64::try_from(scenario.timeout_max_ms).unwrap_or(1);
        let asked = i32::try_from(rng.below(span)).unwrap_or(1) + 1;
        Self {
            probe,
            content,
            read_only: false,
            session: None,
            timeout_ms: 0,
            asked_timeout_ms: if probe { scenario.timeout_max_ms } else { asked },
            last_zxid: Zxid::ZERO,
            next_xid: 1,
            connection: None,
            phase: Phase::Away,
            wrong_password: false,
            outstanding: VecDeque::new(),
            watches: Watches::default(),
            to_set: Vec::new(),
            caught_up: Vec::new(),
            heard_us: 0,
            sent_us: 0,
            pipeline: if probe { 1 } else { *rng.pick(&[1, 2, 8]) },
            think_us: i64::try_from(rng.below(400)).unwrap_or(1) * MS + MS,
            turn: 0,
            closing: false,
            lost: Vec::new(),
            refused: Vec::new(),
            versions: BTreeMap::new(),
            server_before: None,
            home: None,
        }
    }

    /// Whether it waits for nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// What it waits for.
    pub(crate) fn waits_for(&self) -> Option<String> {
        self.outstanding.front().map(|asked| {
            format!(
                "{:?} of {:?}: {:?}",
                asked.xid,
                self.session.as_ref().map(|(id, _)| *id),
                asked.request
            )
        })
    }
}

fn encode(xid: Xid, request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    RequestHeader { xid, op: request.op() }.encode(&mut out);
    request.encode(&mut out);
    out.freeze()
}

impl Ensemble {
    fn wake(&mut self, client: usize, delay_us: i64) {
        let it = &mut self.clients[client];
        it.turn += 1;
        let turn = it.turn;
        self.queue.push(delay_us, Event::Client(client, turn));
    }

    pub(crate) fn client_turn(&mut self, client: usize, turn: u64) {
        if self.clients[client].turn != turn {
            return; // it was woken for something else
        }
        match self.clients[client].phase {
            Phase::Away => self.client_connects(client),
            Phase::Greeting => {
                self.client_drops(client, true);
                let delay = self.within(100 * MS);
                self.wake(client, delay);
            }
            Phase::Open => self.client_acts(client),
        }
    }

    fn client_connects(&mut self, client: usize) {
        if self.quiet && self.clients[client].session.is_none() {
            return;
        }
        let mut member = self.rng.index(self.members.len());
        // Elsewhere a local session is lost.
        if let Some((home, ..)) = self.clients[client].home
            && self.clients[client].session.is_some()
            && self.rng.chance(70)
        {
            member = home;
        }
        let Some(connection) = self.connect(client, member) else {
            let delay = 10 * MS + self.within(200 * MS);
            return self.wake(client, delay);
        };
        let wrong = self.clients[client].session.is_some() && !self.healed && self.rng.chance(2);
        let now_us = self.now_us();
        let it = &mut self.clients[client];
        let (session_id, password) = match &it.session {
            Some((id, password)) if !wrong => (*id, password.clone()),
            Some((id, _)) => (*id, Bytes::from_static(b"a wrong password")),
            None => (SessionId(0), Bytes::from_static(&[0; PASSWORD_LEN])),
        };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: it.last_zxid,
            timeout_ms: it.asked_timeout_ms,
            session_id,
            password: Some(password),
            read_only: Some(it.content),
        };
        it.wrong_password = wrong;
        it.connection = Some(connection);
        it.phase = Phase::Greeting;
        it.heard_us = now_us;
        it.sent_us = now_us;
        self.say(|| format!("c{client} connects to m{} with session {session_id}", member + 1));
        self.push_to_server(connection, Frame::Bytes(request.to_bytes()));
        let patience = 300 * MS + self.within(SECOND);
        self.wake(client, patience);
    }

    /// The client is without a connection from now on.
    fn client_drops(&mut self, client: usize, says_goodbye: bool) {
        let it = &mut self.clients[client];
        it.phase = Phase::Away;
        let connection = it.connection.take();
        let session = it.session.as_ref().map(|(id, _)| *id);
        let asked: Vec<_> = it.outstanding.drain(..).collect();
        for asked in asked {
            if let Some((watches, _)) = asked.again {
                it.to_set.extend(watches);
            } else if is_write(&asked.request)
                && let Some(session) = session
            {
                it.lost.push((session, asked.xid));
            }
        }
        it.caught_up.clear();
        let watches = it.watches.disconnected(false);
        it.to_set.extend(watches);
        it.to_set.sort();
        it.to_set.dedup();
        let given_up = it.read_only && !self.rng.chance(30);
        if self.clients[client].read_only && !says_goodbye {
            self.met(Marker::ReadOnlyEnded);
        }
        let it = &mut self.clients[client];
        if it.closing || given_up {
            // It has asked for the end, and does not come back; or nobody else knows the session.
            it.closing = false;
            self.client_forgets(client);
        }
        if let Some(connection) = connection
            && says_goodbye
        {
            self.push_to_server(connection, Frame::Closed);
        }
    }

    /// The session is over for the client.
    fn client_forgets(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.session = None;
        it.read_only = false;
        it.watches.disconnected(true);
        it.to_set.clear();
        it.next_xid = 1;
        it.last_zxid = Zxid::ZERO;
    }

    fn client_acts(&mut self, client: usize) {
        let now_us = self.now_us();
        let it = &self.clients[client];
        let timeout_us = i64::from(it.timeout_ms) * MS;
        if now_us - it.heard_us > timeout_us * 2 / 3 {
            self.say(|| format!("c{client} hears nothing"));
            self.client_drops(client, true);
            let delay = self.within(50 * MS);
            return self.wake(client, delay);
        }
        if !self.healed && !it.probe && self.client_has_a_habit(client) {
            return;
        }
        let it = &self.clients[client];
        let may_ask = it.outstanding.len() < it.pipeline && !self.quiet && !it.closing;
        if it.probe && self.probe_done_us.is_none() && may_ask {
            let request = create("/probe", CreateMode::PersistentSequential, b"");
            self.ask(client, request);
        } else if !it.probe && may_ask && self.operations_left > 0 {
            self.operations_left -= 1;
            let request = self.draw_request(client);
            self.ask(client, request);
        } else if now_us - it.sent_us > timeout_us / 4 {
            let connection = it.connection;
            self.clients[client].sent_us = now_us;
            if let Some(connection) = connection {
                self.push_to_server(connection, Frame::Bytes(encode(Xid::PING, &Request::Ping)));
            }
        }
        let it = &self.clients[client];
        let think = it.think_us;
        let pause = (1 + self.within(2 * think)).min(timeout_us / 8 + MS);
        self.wake(client, pause);
    }

    /// What clients do beside asking. Whether the turn is over with it.
    fn client_has_a_habit(&mut self, client: usize) -> bool {
        let habit = self.rng.below(1000);
        match habit {
            // It goes away and comes back, or comes back before the old connection is gone.
            0..15 => {
                if habit >= 8 {
                    self.met(Marker::SessionTakenOver);
                }
                self.client_drops(client, habit < 8);
                let delay = self.within(300 * MS);
                self.wake(client, delay);
            }
            // It closes its session.
            15..20 => {
                if self.clients[client].closing {
                    return false;
                }
                self.clients[client].closing = true;
                self.ask(client, Request::CloseSession);
                self.wake(client, SECOND);
            }
            // It stands still for longer than its session lives, or dies.
            20..26 => {
                self.client_drops(client, habit < 23);
                let timeout_us = i64::from(self.clients[client].timeout_ms) * MS;
                let delay = self.within(3 * timeout_us);
                self.wake(client, delay);
            }
            _ => return false, // none
        }
        true
    }

    pub(crate) fn ask(&mut self, client: usize, request: Request) {
        let now_us = self.now_us();
        let floor = self.checks.clients.answered();
        let it = &mut self.clients[client];
        let (Some(connection), Some((session, _))) = (it.connection, &it.session) else { return };
        let session = *session;
        let xid = Xid(it.next_xid);
        it.next_xid += 1;
        it.sent_us = now_us;
        let request = Rc::new(request);
        it.outstanding.push_back(Asked { xid, request: Rc::clone(&request), floor, again: None });
        self.say(|| format!("c{client} asks {} of {session}: {request:?}", xid.0));
        self.push_to_server(connection, Frame::Bytes(encode(xid, &request)));
        if is_write(&request) {
            self.checks.clients.asked(session, xid, request);
        }
    }

    fn draw_parent(&mut self) -> String {
        format!("/p{}", self.rng.index(4))
    }

    fn draw_path(&mut self) -> String {
        let parent = self.draw_parent();
        match self.rng.below(10) {
            0..2 => parent,
            2..7 => format!("{parent}/c{}", self.rng.index(4)),
            7 => format!("{parent}/e{}", self.rng.index(3)),
            8 => format!("{parent}/x"),
            _ => {
                // One that is there, if there is one: sequential ones have no other name.
                let children: Vec<String> = self
                    .checks
                    .model
                    .now(&parent)
                    .map(|znode| znode.children.iter().cloned().collect())
                    .unwrap_or_default();
                if children.is_empty() {
                    parent
                } else {
                    format!("{parent}/{}", self.rng.pick(&children))
                }
            }
        }
    }

    fn draw_version(&mut self, client: usize, path: &str) -> i32 {
        if self.rng.chance(50) {
            return -1;
        }
        let known = self.clients[client].versions.get(path).copied();
        known.unwrap_or_else(|| i32::try_from(self.rng.below(3)).unwrap_or_default())
    }

    fn draw_data(&mut self) -> Vec<u8> {
        let len = *self.rng.pick(&[0, 3, 10, 100]);
        self.rng.bytes(len)
    }

    /// Another ensemble: some machines vote, some observe, and now and then one is at another port.
    fn draw_reconfiguration(&mut self) -> Request {
        let mut lines = Vec::new();
        for server in 1..=self.members.len() {
            let role = match self.rng.below(10) {
                0..7 => "participant",
                7..9 => "observer",
                _ => continue, // not in it
            };
            let port = if self.rng.chance(5) { 2889 } else { 2888 };
            lines.push(server_line(server, port, role));
        }
        let mut request = ReconfigRequest {
            joining_servers: None,
            leaving_servers: None,
            new_members: None,
            cur_config_id: -1,
        };
        match self.rng.below(3) {
            0 => request.new_members = Some(lines.join(",")),
            1 => {
                let joining = self.rng.index(lines.len().max(1));
                request.joining_servers = lines.get(joining).cloned();
            }
            _ => {
                request.leaving_servers = Some((self.rng.index(self.members.len()) + 1).to_string())
            }
        }
        Request::Reconfig(request)
    }

    fn draw_request(&mut self, client: usize) -> Request {
        let at_will = self.scenario.reconfig && !self.scenario.scripted;
        if at_will && self.rng.chance(4) {
            return self.draw_reconfiguration();
        }
        let watch = self.rng.chance(40) && self.clients[client].watches.len() < WATCHES_MAX;
        match self.rng.below(100) {
            0..5 => create(&self.draw_parent(), CreateMode::Persistent, b""),
            5..17 => {
                let path = format!("{}/c{}", self.draw_parent(), self.rng.index(4));
                create(&path, CreateMode::Persistent, &self.draw_data())
            }
            17..25 => {
                let path = format!("{}/e{}", self.draw_parent(), self.rng.index(3));
                create(&path, CreateMode::Ephemeral, &self.draw_data())
            }
            25..31 => {
                let path = format!("{}/s-", self.draw_parent());
                let mode = *self
                    .rng
                    .pick(&[CreateMode::PersistentSequential, CreateMode::EphemeralSequential]);
                create(&path, mode, b"s")
            }
            31..47 => {
                let path = self.draw_path();
                let version = self.draw_version(client, &path);
                let data = Some(self.draw_data().into());
                Request::SetData(SetDataRequest { path, data, version })
            }
            47..56 => {
                let path = self.draw_path();
                let version = self.draw_version(client, &path);
                Request::Delete(DeleteRequest { path, version })
            }
            56..64 => self.draw_multi(client),
            64..76 => Request::GetData(GetDataRequest { path: self.draw_path(), watch }),
            76..82 => Request::Exists(ExistsRequest { path: self.draw_path(), watch }),
            82..86 => Request::GetChildren(GetChildrenRequest { path: self.draw_parent(), watch }),
            86..90 => {
                Request::GetChildren2(GetChildren2Request { path: self.draw_parent(), watch })
            }
            90..94 => {
                let parent = self.draw_parent();
                Request::MultiRead(MultiRequest::Read(vec![
                    MultiReadOp::GetData(GetDataRequest {
                        path: format!("{parent}/x"),
                        watch: false,
                    }),
                    MultiReadOp::GetData(GetDataRequest {
                        path: format!("{parent}/y"),
                        watch: false,
                    }),
                    MultiReadOp::GetChildren(GetChildrenRequest { path: parent, watch: false }),
                ]))
            }
            94..98 => Request::Sync(SyncRequest { path: Some(self.draw_path()) }),
            _ => {
                if self.clients[client].watches.len() >= WATCHES_MAX {
                    return Request::Sync(SyncRequest { path: None });
                }
                let mode = i32::from(self.rng.chance(50));
                Request::AddWatch(AddWatchRequest { path: self.draw_parent(), mode })
            }
        }
    }

    fn draw_multi(&mut self, client: usize) -> Request {
        let parent = self.draw_parent();
        let data: Bytes = self.draw_data().into();
        let mut ops = Vec::new();
        let set = |path: String| {
            MultiOp::SetData(SetDataRequest { path, data: Some(data.clone()), version: -1 })
        };
        let create = |path: String| MultiOp::Create {
            op: OpCode::CREATE,
            request: CreateRequest {
                path,
                data: Some(data.clone()),
                acl: Acl::open().to_vec(),
                flags: CreateMode::Persistent.flag(),
            },
        };
        let (x, y) = (format!("{parent}/x"), format!("{parent}/y"));
        match self.rng.below(5) {
            0 | 1 => ops.extend([set(x), set(y)]),
            2 => ops.extend([create(x), create(y)]),
            3 => {
                ops.push(MultiOp::Delete(DeleteRequest { path: x, version: -1 }));
                ops.push(MultiOp::Delete(DeleteRequest { path: y, version: -1 }));
            }
            _ => {
                let path = self.draw_path();
                let version = self.draw_version(client, &path);
                ops.push(MultiOp::Check(CheckVersionRequest { path: path.clone(), version }));
                ops.push(set(path));
                let path = self.draw_path();
                ops.push(MultiOp::Delete(DeleteRequest { path: path.clone(), version: -1 }));
                ops.push(create(path));
            }
        }
        // Only where it makes a difference: other seeds draw what they have always drawn.
        if self.scenario.local_sessions == LocalSessionMode::Upgrading && self.rng.chance(25) {
            let path = format!("{parent}/e{}", self.rng.index(3));
            ops.push(MultiOp::Create {
                op: OpCode::CREATE,
                request: CreateRequest {
                    path,
                    data: Some(Bytes::new()),
                    acl: Acl::open().to_vec(),
                    flags: CreateMode::Ephemeral.flag(),
                },
            });
        }
        Request::Multi(MultiRequest::Write(ops))
    }

    // ---- what comes back

    pub(crate) fn client_receives(&mut self, connection: usize, frame: Frame) {
        let client = self.connections[connection].client;
        if self.clients[client].connection != Some(connection) {
            return; // it has given this connection up
        }
        let now_us = self.now_us();
        self.clients[client].heard_us = now_us;
        let result = match (frame, self.clients[client].phase) {
            (Frame::Closed, _) => {
                self.say(|| format!("c{client} loses its connection"));
                self.client_drops(client, false);
                let delay = self.within(100 * MS);
                self.wake(client, delay);
                Ok(())
            }
            (Frame::Bytes(bytes), Phase::Greeting) => self.client_is_greeted(client, &bytes),
            (Frame::Bytes(bytes), Phase::Open) => {
                self.client_is_answered(client, connection, &bytes)
            }
            (Frame::Bytes(_), Phase::Away) => Ok(()),
        };
        self.demand(result);
    }

    fn client_is_greeted(&mut self, client: usize, frame: &Bytes) -> Result<(), Violation> {
        let now_us = self.now_us();
        let Ok(response) = ConnectResponse::decode(frame) else {
            return fail("C3 a reply can be read", "no connect response");
        };
        self.say(|| {
            format!(
                "c{client} is greeted: session {}, {} ms",
                response.session_id, response.timeout_ms
            )
        });
        let it = &mut self.clients[client];
        let asked = it.session.as_ref().map_or(SessionId(0), |(id, _)| *id);
        session::a_session_is_given_to_its_owner(
            asked,
            !it.wrong_password,
            response.session_id,
            response.timeout_ms,
        )?;
        if response.timeout_ms == 0 {
            if it.wrong_password {
                self.markers.met(Marker::WrongPasswordRefused);
                self.client_drops(client, true);
            } else {
                // Without a quorum a server cannot know; and what it knew alone ends with it.
                if !it.read_only && response.read_only != Some(true) {
                    let home = it.home;
                    let timeout_ms = it.timeout_ms;
                    if home.is_some() && home == self.home_of(client) {
                        self.checks
                            .sessions
                            .a_local_session_lives_for_its_timeout(asked, timeout_ms, now_us)?;
                    }
                    self.clients[client].refused.push(asked);
                    self.markers.met(Marker::SessionRefused);
                }
                self.client_drops(client, true);
                self.client_forgets(client);
            }
            let delay = self.within(100 * MS);
            self.wake(client, delay);
            return Ok(());
        }
        if asked == SessionId(0) {
            let local = self.scenario.local_sessions != LocalSessionMode::Disabled;
            let home = if local { self.home_of(client) } else { None };
            self.clients[client].home = home;
        } else if self.clients[client].home.is_some() && !self.checks.sessions.has_begun(asked) {
            self.markers.met(Marker::LocalSessionTakenUp);
        }
        let it = &mut self.clients[client];
        it.timeout_ms = response.timeout_ms;
        if response.read_only == Some(true) && asked != SessionId(0) {
            self.markers.met(Marker::ReadOnlySessionTakenUp);
        }
        it.read_only = response.read_only == Some(true);
        it.session = Some((response.session_id, response.password.unwrap_or_default()));
        it.phase = Phase::Open;
        let server = it.connection.map(|connection| self.connections[connection].member);
        let it = &mut self.clients[client];
        let before = std::mem::replace(&mut it.server_before, server);
        if asked != SessionId(0) && before != server {
            self.markers.met(Marker::SessionRevalidated);
        }
        self.client_sets_watches_again(client);
        self.wake(client, 0);
        Ok(())
    }

    /// Where a client is connected.
    fn home_of(&self, client: usize) -> Option<Home> {
        let connection = &self.connections[self.clients[client].connection?];
        let member = &self.members[connection.member];
        Some((connection.member, connection.life, member.roles))
    }

    fn client_sets_watches_again(&mut self, client: usize) {
        let it = &mut self.clients[client];
        let watches = std::mem::take(&mut it.to_set);
        let (Some(connection), false) = (it.connection, watches.is_empty()) else { return };
        let paths = |kind: Kind| {
            let these = watches.iter().filter(|(other, _)| *other == kind);
            these.map(|(_, path)| path.clone()).collect::<Vec<_>>()
        };
        let request = Request::SetWatches2(SetWatches2 {
            relative_zxid: it.last_zxid,
            data_watches: paths(Kind::Data),
            exist_watches: paths(Kind::Exist),
            child_watches: paths(Kind::Child),
            persistent_watches: paths(Kind::Persistent),
            persistent_recursive_watches: paths(Kind::Recursive),
        });
        let frame = encode(Xid::SET_WATCHES, &request);
        it.caught_up.clear();
        it.outstanding.push_back(Asked {
            xid: Xid::SET_WATCHES,
            request: Rc::new(request),
            floor: Zxid::ZERO,
            again: Some((watches, it.last_zxid)),
        });
        self.push_to_server(connection, Frame::Bytes(frame));
    }

    fn client_is_answered(
        &mut self,
        client: usize,
        connection: usize,
        frame: &Bytes,
    ) -> Result<(), Violation> {
        let mut reader = Reader::new(frame);
        let Ok(header) = ReplyHeader::parse(&mut reader) else {
            return fail("C3 a reply can be read", "no reply header");
        };
        let body = reader.take_rest();
        let member = self.connections[connection].member;
        if header.xid == Xid::NOTIFICATION {
            return self.client_is_notified(client, member, header, &body);
        }
        let it = &mut self.clients[client];
        if header.zxid < it.last_zxid {
            return fail(
                "C4 the zxid that a session sees never goes back",
                format!("client {client}: from {} to {}", it.last_zxid, header.zxid),
            );
        }
        let asked = if header.xid == Xid::PING { None } else { it.outstanding.pop_front() };
        let setting = asked.as_ref().is_some_and(|asked| asked.again.is_some());
        // While watches are being set again it is not known yet which there are.
        if !setting {
            it.watches
                .events_come_before_replies_that_show_the_change(&self.checks.model, header.zxid)?;
        }
        it.last_zxid = header.zxid;
        let Some(asked) = asked else {
            if header.xid == Xid::PING {
                return Ok(());
            }
            return fail(
                "C2 replies come in order",
                format!("client {client}: {header:?} to nothing"),
            );
        };
        if asked.xid != header.xid {
            return fail(
                "C2 replies come in order",
                format!("client {client}: a reply to {:?}, and {:?} is due", header.xid, asked.xid),
            );
        }
        self.say(|| {
            format!("c{client} is answered {}: {} at {}", header.xid.0, header.err, header.zxid)
        });
        if let Some((watches, relative)) = asked.again {
            let came = std::mem::take(&mut self.clients[client].caught_up);
            if !came.is_empty() {
                self.markers.met(Marker::WatchCaughtUp);
            }
            let it = &mut self.clients[client];
            return it.watches.set_again(&self.checks.model, &watches, relative, header.zxid, came);
        }
        let it = &mut self.clients[client];
        let Some((session, _)) = it.session.clone() else { return Ok(()) };
        if it.read_only && needs_a_quorum(&asked.request) {
            self.markers.met(Marker::ReadOnlyWriteRefused);
            return refused_without_a_quorum(&asked.request, header);
        }
        if it.read_only {
            self.markers.met(Marker::ReadOnlyRead);
        }
        if it.read_only && matches!(&*asked.request, Request::CloseSession) {
            self.after_reply(client, member, &asked, header);
            return Ok(());
        }
        let realm = self.members[member].disk.current_epoch;
        let deposed = asked.floor.epoch() > realm && !self.scenario.standalone;
        self.checks.clients.a_reply_says_what_happened(
            &self.checks.model,
            session,
            &asked.request,
            header,
            &body,
            asked.floor,
            deposed,
        )?;
        self.after_reply(client, member, &asked, header);
        Ok(())
    }

    fn after_reply(&mut self, client: usize, member: usize, asked: &Asked, header: ReplyHeader) {
        let ok = header.err == ErrorCode::OK;
        let learner = self.members[member].state != PeerState::Leading && !self.scenario.standalone;
        let model = &self.checks.model;
        let it = &mut self.clients[client];
        let zxid = header.zxid;
        let mut watch = |kind, path: &str| it.watches.set(model, (kind, path.to_owned()), zxid);
        match &*asked.request {
            Request::GetData(request) => {
                if ok && request.watch {
                    watch(Kind::Data, &request.path);
                }
                if let Some(znode) = model.at(&request.path, zxid) {
                    it.versions.insert(request.path.clone(), znode.version);
                }
            }
            Request::Exists(request) if request.watch => {
                watch(if ok { Kind::Data } else { Kind::Exist }, &request.path);
            }
            Request::GetChildren(request) if ok && request.watch => {
                watch(Kind::Child, &request.path)
            }
            Request::GetChildren2(request) if ok && request.watch => {
                watch(Kind::Child, &request.path)
            }
            Request::AddWatch(request) if ok => {
                let kind = if request.mode == 0 { Kind::Persistent } else { Kind::Recursive };
                watch(kind, &request.path);
            }
            Request::Sync(_) if learner => self.markers.met(Marker::SyncOnLearner),
            Request::Create(request) if ok => {
                if CreateMode::from_flag(request.flags).is_some_and(CreateMode::is_sequential) {
                    self.markers.met(Marker::SequentialCreated);
                }
                if it.probe {
                    self.probe_done_us.get_or_insert(self.queue.now_us());
                }
            }
            Request::CloseSession => {
                self.clients[client].closing = false;
                self.client_drops(client, true);
                self.client_forgets(client);
                let delay = self.within(SECOND);
                self.wake(client, delay);
            }
            _ => {} // nothing follows from it
        }
        if header.err == ErrorCode::EPHEMERAL_ON_LOCAL_SESSION {
            self.markers.met(Marker::EphemeralRefused);
        }
        if !is_write(&asked.request) && zxid < self.checks.commits.last() {
            self.markers.met(Marker::StaleRead);
        }
    }

    fn client_is_notified(
        &mut self,
        client: usize,
        member: usize,
        header: ReplyHeader,
        body: &Bytes,
    ) -> Result<(), Violation> {
        let Ok(event) = WatcherEvent::decode(body) else {
            return fail("C3 a reply can be read", "no event");
        };
        let types = [
            EventType::NodeCreated,
            EventType::NodeDeleted,
            EventType::NodeDataChanged,
            EventType::NodeChildrenChanged,
        ];
        let Some(event_type) = types.into_iter().find(|known| known.code() == event.event_type)
        else {
            return fail("W2 an event is of a known kind", format!("{event:?}"));
        };
        self.say(|| format!("c{client} hears of {event_type:?} {} at {}", event.path, header.zxid));
        let it = &mut self.clients[client];
        if header.zxid == Zxid(-1) {
            it.caught_up.push((event_type, event.path));
            return Ok(());
        }
        let leads = self.members[member].state == PeerState::Leading;
        self.markers.met(if leads {
            Marker::WatchFiredOnLeader
        } else {
            Marker::WatchFiredOnLearner
        });
        let event = WatchEvent { zxid: header.zxid, event_type, path: event.path.as_str().into() };
        if it.watches.all().any(|(kind, _)| matches!(kind, Kind::Persistent | Kind::Recursive)) {
            self.markers.met(Marker::PersistentWatchFired);
        }
        it.watches.an_event_is_the_next_that_is_waited_for(&self.checks.model, &event)
    }

    /// What became of writes whose replies were lost (C5: nobody may assume either).
    pub(crate) fn count_lost_replies(&mut self) {
        for client in 0..self.clients.len() {
            for (session, xid) in std::mem::take(&mut self.clients[client].lost) {
                let marker = if self.checks.clients.is_done(session, xid) {
                    Marker::LostReplyCommitted
                } else {
                    Marker::LostReplyNotCommitted
                };
                self.markers.met(marker);
            }
        }
    }
}

/// Whether a server without a quorum cannot do it.
fn needs_a_quorum(request: &Request) -> bool {
    match request {
        Request::CloseSession => false,
        Request::Sync(_) => true,
        request => is_write(request),
    }
}

/// R1: a server without a quorum takes no part in what others agree on.
///
/// # Errors
/// It said something else.
fn refused_without_a_quorum(request: &Request, header: ReplyHeader) -> Result<(), Violation> {
    if header.err == ErrorCode::NOT_READ_ONLY {
        return Ok(());
    }
    fail(
        "R1 without a quorum nothing is written",
        format!("{request:?} is answered with {} at {}", header.err, header.zxid),
    )
}

fn create(path: &str, mode: CreateMode, data: &[u8]) -> Request {
    Request::Create(CreateRequest {
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data)),
        acl: Acl::open().to_vec(),
        flags: mode.flag(),
    })
}
