//! What a standalone server has to answer, said as simply as possible: maps, lists, and no thought of
//! speed. Every connection's whole output is predicted, in its order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::connect::ConnectResponse;
use zk_proto::create_mode::{CONTAINER_OWNER, CreateMode, ExtendedTypes, OwnerKind};
use zk_proto::data::Stat;
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::proto::{
    Create2Response, CreateResponse, ErrorResponse, GetAclResponse, GetAllChildrenNumberResponse,
    GetChildren2Response, GetChildrenResponse, GetDataResponse, GetEphemeralsResponse, ReplyHeader,
    SetDataResponse, SetWatches2, SyncResponse, WatcherEvent,
};
use zk_proto::{Buffer, ErrorCode, OpCode, Record, Request, SessionId, Xid, Zxid, path};
use zk_session::password;

use crate::harness::{Message, TICK_MS};

const TYPES: ExtendedTypes = ExtendedTypes::Enabled;

#[derive(Debug, Clone)]
struct Node {
    data: Buffer,
    acl: Vec<Acl>,
    czxid: i64,
    mzxid: i64,
    pzxid: i64,
    ctime: i64,
    mtime: i64,
    version: i32,
    /// How many children were created.
    creates: i32,
    aversion: i32,
    owner: i64,
}

#[derive(Debug, Clone)]
struct Nodes(BTreeMap<String, Node>);

impl Nodes {
    fn new() -> Self {
        let node = |acl: Vec<Acl>, aversion| Node {
            data: Some(Bytes::new()),
            acl,
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            creates: 0,
            aversion,
            owner: 0,
        };
        let mut nodes = BTreeMap::new();
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            nodes.insert(path.to_owned(), node(Acl::open(), 0));
        }
        nodes.insert("/zookeeper/config".to_owned(), node(Acl::read_only(), -1));
        Self(nodes)
    }

    fn find(&self, path: &str) -> Result<&Node, ErrorCode> {
        // The root has two names.
        self.0.get(if path.is_empty() { "/" } else { path }).ok_or(ErrorCode::NO_NODE)
    }

    fn children(&self, path: &str) -> Vec<String> {
        let path = if path.is_empty() { "/" } else { path };
        let children = self.0.keys().filter(|other| *other != "/" && path::parent(other) == path);
        children.map(|child| path::name(child).to_owned()).collect()
    }

    fn stat(&self, path: &str) -> Stat {
        let node = self.find(path).expect("it exists");
        let num_children = i32::try_from(self.children(path).len()).unwrap();
        Stat {
            czxid: node.czxid,
            mzxid: node.mzxid,
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            cversion: 2 * node.creates - num_children,
            aversion: node.aversion,
            ephemeral_owner: match TYPES.kind(node.owner) {
                OwnerKind::Session(session) => session,
                OwnerKind::Void | OwnerKind::Container | OwnerKind::Ttl(_) => 0,
            },
            data_length: node.data.as_ref().map_or(0, |data| i32::try_from(data.len()).unwrap()),
            num_children,
            pzxid: node.pzxid,
        }
    }

    fn ephemerals(&self, session: SessionId) -> Vec<String> {
        let mine = self.0.iter().filter(|(_, node)| node.owner == session.0);
        mine.map(|(path, _)| path.clone()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Data,
    Child,
    Persistent,
    Recursive,
}

const CREATED: i32 = 1;
const DELETED: i32 = 2;
const DATA_CHANGED: i32 = 3;
const CHILDREN_CHANGED: i32 = 4;

/// Something happened to a znode, whose ACL (and its parent's) said this then.
#[derive(Debug, Clone)]
struct Happened {
    what: i32,
    path: String,
    acl: Vec<Acl>,
    parent_acl: Vec<Acl>,
}

/// A transaction, or what is in their order.
#[derive(Debug)]
struct Queued {
    /// `None`: no transaction.
    zxid: Option<i64>,
    /// The znodes afterwards.
    changes: Vec<(String, Option<Node>)>,
    happened: Vec<Happened>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Nothing,
    /// The connection's oldest pending request is answered.
    Reply {
        connection: usize,
        result: Result<Bytes, ErrorCode>,
    },
    Connected {
        connection: usize,
        session: SessionId,
    },
    SessionClosed {
        connection: Option<usize>,
        session: SessionId,
    },
}

#[derive(Debug)]
enum Pending {
    Write { xid: Xid, op: OpCode },
    Read { xid: Xid, request: Request, ids: Vec<Id> },
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: SessionId,
    ids: Vec<Id>,
    pending: VecDeque<Pending>,
    /// Nothing more is accepted.
    closing: bool,
    /// Nothing more comes out.
    pub(crate) closed: bool,
    connected: bool,
    pub(crate) expected: Vec<Message>,
}

#[derive(Debug)]
struct Session {
    heard_ms: i64,
    timeout_ms: i64,
    closing: bool,
    connection: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Model {
    /// With everything that is on its way.
    ahead: Nodes,
    applied: Nodes,
    applied_zxid: i64,
    proposed_zxid: i64,
    queue: VecDeque<Queued>,
    pub(crate) connections: Vec<Connection>,
    sessions: BTreeMap<SessionId, Session>,
    watches: BTreeSet<(usize, String, Kind)>,
    next_session: SessionId,
    pub(crate) mono_ms: i64,
    pub(crate) wall_ms: i64,
}

/// What one write has done so far to the znodes ahead.
struct Txn<'a> {
    nodes: &'a mut Nodes,
    changes: Vec<(String, Option<Node>)>,
    happened: Vec<Happened>,
    session: SessionId,
    ids: &'a [Id],
    zxid: i64,
    wall_ms: i64,
}

enum Done {
    Path(String),
    PathStat(String, Stat),
    Stat(Stat),
    Nothing,
}

fn may(acl: &[Acl], perms: Perms, ids: &[Id]) -> Result<(), ErrorCode> {
    let open = Id::new("world", "anyone");
    let allowed = acl.iter().any(|entry| {
        entry.perms.intersects(perms) && (entry.id == open || ids.contains(&entry.id))
    });
    if allowed { Ok(()) } else { Err(ErrorCode::NO_AUTH) }
}

/// `auth` becomes who asks; nothing else needs fixing that the tests ask for.
fn fixed(acl: &[Acl], ids: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    let mut fixed = Vec::new();
    for entry in acl {
        if entry.id.scheme == "auth" {
            let mine = ids.iter().filter(|id| id.scheme == "digest");
            fixed.extend(mine.map(|id| Acl { perms: entry.perms, id: id.clone() }));
        } else {
            fixed.push(entry.clone());
        }
    }
    if fixed.is_empty() { Err(ErrorCode::INVALID_ACL) } else { Ok(fixed) }
}

fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected == -1 || expected == current {
        Ok(current + 1)
    } else {
        Err(ErrorCode::BAD_VERSION)
    }
}

fn looks_like_a_path(path: &str) -> Result<(), ErrorCode> {
    if path.contains('/') && !path.contains('\0') { Ok(()) } else { Err(ErrorCode::BAD_ARGUMENTS) }
}

fn valid(path: &str) -> Result<(), ErrorCode> {
    if path::is_valid(path) { Ok(()) } else { Err(ErrorCode::BAD_ARGUMENTS) }
}

impl Txn<'_> {
    fn put(&mut self, path: &str, node: Option<Node>) {
        match &node {
            Some(node) => self.nodes.0.insert(path.to_owned(), node.clone()),
            None => self.nodes.0.remove(path),
        };
        self.changes.push((path.to_owned(), node));
    }

    fn happened(&mut self, what: i32, path: &str, acl: Vec<Acl>) {
        let parent_acl = self.nodes.find(path::parent(path)).unwrap().acl.clone();
        self.happened.push(Happened { what, path: path.to_owned(), acl, parent_acl });
    }

    fn create(
        &mut self,
        op: OpCode,
        path: &str,
        data: &Buffer,
        acl: &[Acl],
        flags: i32,
        ttl: i64,
    ) -> Result<Done, ErrorCode> {
        let mode = CreateMode::from_flag(flags).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let owner = match (op, mode.is_ttl()) {
            (OpCode::CREATE_TTL, true) => TYPES.ttl_owner(ttl).ok_or(ErrorCode::BAD_ARGUMENTS)?,
            (OpCode::CREATE_TTL, false) | (_, true) => return Err(ErrorCode::BAD_ARGUMENTS),
            (OpCode::CREATE_CONTAINER, false) => CONTAINER_OWNER,
            _ if mode.is_ephemeral() => self.session.0,
            _ => 0, // persistent
        };
        looks_like_a_path(path)?;
        let acl = fixed(acl, self.ids)?;
        let parent_path = path::parent(path).to_owned();
        let mut parent = self.nodes.find(&parent_path)?.clone();
        may(&parent.acl, Perms::CREATE, self.ids)?;
        let path = match mode.is_sequential() {
            true => format!("{path}{:010}", parent.creates),
            false => path.to_owned(),
        };
        valid(&path)?;
        if self.nodes.find(&path).is_ok() {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if matches!(TYPES.kind(parent.owner), OwnerKind::Session(_)) {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        parent.creates += 1;
        parent.pzxid = self.zxid;
        self.put(&parent_path, Some(parent));
        let node = Node {
            data: data.clone(),
            acl: acl.clone(),
            czxid: self.zxid,
            mzxid: self.zxid,
            pzxid: self.zxid,
            ctime: self.wall_ms,
            mtime: self.wall_ms,
            version: 0,
            creates: 0,
            aversion: 0,
            owner,
        };
        self.put(&path, Some(node));
        self.happened(CREATED, &path, acl);
        let stat = self.nodes.stat(&path);
        Ok(if op == OpCode::CREATE { Done::Path(path) } else { Done::PathStat(path, stat) })
    }

    fn remove(&mut self, path: &str) {
        let acl = self.nodes.find(path).unwrap().acl.clone();
        let parent_path = path::parent(path).to_owned();
        let mut parent = self.nodes.find(&parent_path).unwrap().clone();
        parent.pzxid = self.zxid;
        self.put(&parent_path, Some(parent));
        self.put(path, None);
        self.happened(DELETED, path, acl);
    }

    fn delete(&mut self, path: &str, version: i32) -> Result<Done, ErrorCode> {
        if ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"].contains(&path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        looks_like_a_path(path)?;
        may(&self.nodes.find(path::parent(path))?.acl, Perms::DELETE, self.ids)?;
        next_version(self.nodes.find(path)?.version, version)?;
        if !self.nodes.children(path).is_empty() {
            return Err(ErrorCode::NOT_EMPTY);
        }
        self.remove(path);
        Ok(Done::Nothing)
    }

    fn set_data(&mut self, path: &str, data: &Buffer, version: i32) -> Result<Done, ErrorCode> {
        valid(path)?;
        let mut node = self.nodes.find(path)?.clone();
        may(&node.acl, Perms::WRITE, self.ids)?;
        node.version = next_version(node.version, version)?;
        node.data = data.clone();
        node.mzxid = self.zxid;
        node.mtime = self.wall_ms;
        let acl = node.acl.clone();
        self.put(path, Some(node));
        self.happened(DATA_CHANGED, path, acl);
        Ok(Done::Stat(self.nodes.stat(path)))
    }

    fn set_acl(&mut self, path: &str, acl: &[Acl], version: i32) -> Result<Done, ErrorCode> {
        valid(path)?;
        let acl = fixed(acl, self.ids)?;
        let mut node = self.nodes.find(path)?.clone();
        may(&node.acl, Perms::ADMIN, self.ids)?;
        node.aversion = next_version(node.aversion, version)?;
        node.acl = acl;
        self.put(path, Some(node));
        Ok(Done::Stat(self.nodes.stat(path)))
    }

    fn one_of_multi(&mut self, op: &MultiOp) -> Result<MultiResult, ErrorCode> {
        let done = match op {
            MultiOp::Create { op, request } => {
                let (data, acl, flags) = (&request.data, &request.acl, request.flags);
                self.create(*op, &request.path, data, acl, flags, -1)?
            }
            MultiOp::CreateTtl(request) => {
                let (data, acl, flags) = (&request.data, &request.acl, request.flags);
                self.create(OpCode::CREATE_TTL, &request.path, data, acl, flags, request.ttl)?
            }
            MultiOp::Delete(request) => {
                self.delete(&request.path, request.version)?;
                return Ok(MultiResult::Delete);
            }
            MultiOp::SetData(request) => {
                self.set_data(&request.path, &request.data, request.version)?
            }
            MultiOp::Check(request) => {
                valid(&request.path)?;
                let node = self.nodes.find(&request.path)?;
                may(&node.acl, Perms::READ, self.ids)?;
                next_version(node.version, request.version)?;
                return Ok(MultiResult::Check);
            }
        };
        Ok(match done {
            Done::Path(path) => MultiResult::Create(path),
            Done::PathStat(path, stat) => MultiResult::Create2(path, stat),
            Done::Stat(stat) => MultiResult::SetData(stat),
            Done::Nothing => MultiResult::Delete,
        })
    }

    fn multi(&mut self, ops: &[MultiOp]) -> Bytes {
        let before = self.nodes.clone();
        let mut results = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            match self.one_of_multi(op) {
                Ok(result) => results.push(result),
                Err(err) => {
                    *self.nodes = before;
                    self.changes.clear();
                    self.happened.clear();
                    results = vec![MultiResult::Error(ErrorCode::OK); at];
                    results.push(MultiResult::Error(err));
                    let rest = MultiResult::Error(ErrorCode::RUNTIME_INCONSISTENCY);
                    results.resize(ops.len(), rest);
                    break;
                }
            }
        }
        MultiResponse(results).to_bytes()
    }

    fn write(&mut self, request: &Request) -> Result<Bytes, ErrorCode> {
        let done = match request {
            Request::Create(request) => {
                let (data, acl, flags) = (&request.data, &request.acl, request.flags);
                self.create(OpCode::CREATE, &request.path, data, acl, flags, -1)?
            }
            Request::Create2(request) => {
                let (data, acl, flags) = (&request.data, &request.acl, request.flags);
                self.create(OpCode::CREATE2, &request.path, data, acl, flags, -1)?
            }
            Request::CreateContainer(request) => {
                let (data, acl, flags) = (&request.data, &request.acl, request.flags);
                self.create(OpCode::CREATE_CONTAINER, &request.path, data, acl, flags, -1)?
            }
            Request::CreateTtl(request) => {
                let (data, acl, flags) = (&request.data, &request.acl, request.flags);
                self.create(OpCode::CREATE_TTL, &request.path, data, acl, flags, request.ttl)?
            }
            Request::Delete(request) => self.delete(&request.path, request.version)?,
            Request::SetData(request) => {
                self.set_data(&request.path, &request.data, request.version)?
            }
            Request::SetAcl(request) => {
                self.set_acl(&request.path, &request.acl, request.version)?
            }
            Request::Multi(MultiRequest::Write(ops)) => return Ok(self.multi(ops)),
            Request::Multi(MultiRequest::Read(_)) => return Err(ErrorCode::MARSHALLING_ERROR),
            Request::Reconfig(_) => return Err(ErrorCode::RECONFIG_DISABLED),
            other => panic!("{other:?} is no write"),
        };
        Ok(match done {
            Done::Path(path) => CreateResponse { path }.to_bytes(),
            Done::PathStat(path, stat) => Create2Response { path, stat }.to_bytes(),
            Done::Stat(stat) => SetDataResponse { stat }.to_bytes(),
            Done::Nothing => Bytes::new(),
        })
    }
}

impl Model {
    pub(crate) fn new(first_session: SessionId, mono_ms: i64, wall_ms: i64) -> Self {
        Self {
            ahead: Nodes::new(),
            applied: Nodes::new(),
            applied_zxid: 0,
            proposed_zxid: 0,
            queue: VecDeque::new(),
            connections: Vec::new(),
            sessions: BTreeMap::new(),
            watches: BTreeSet::new(),
            next_session: first_session,
            mono_ms,
            wall_ms,
        }
    }

    fn propose(&mut self, then: Then) -> &mut Queued {
        self.proposed_zxid += 1;
        let zxid = Some(self.proposed_zxid);
        self.queue.push_back(Queued { zxid, changes: Vec::new(), happened: Vec::new(), then });
        self.queue.back_mut().expect("just pushed")
    }

    /// A new connection with a connect request; its number.
    pub(crate) fn connect(&mut self, session: SessionId) -> usize {
        let number = self.connections.len();
        self.connections.push(Connection {
            session,
            ids: vec![Id::new("ip", "127.0.0.1")],
            pending: VecDeque::new(),
            closing: false,
            closed: false,
            connected: false,
            expected: Vec::new(),
        });
        let now_ms = self.mono_ms;
        if session == SessionId(0) {
            let session = self.next_session;
            self.next_session.0 += 1;
            self.connections[number].session = session;
            let (timeout_ms, connection) = (10_000, Some(number));
            let state = Session { heard_ms: now_ms, timeout_ms, closing: false, connection };
            self.sessions.insert(session, state);
            self.propose(Then::Connected { connection: number, session });
            return number;
        }
        let old = self.sessions.get_mut(&session).and_then(|session| session.connection.take());
        if let Some(old) = old {
            self.close(old);
        }
        match self.sessions.get_mut(&session).filter(|session| !session.closing) {
            None => {
                self.connections[number]
                    .expected
                    .push(Message::Expired(ConnectResponse::expired(Some(false))));
                self.close(number);
            }
            Some(state) => {
                state.heard_ms = now_ms;
                state.connection = Some(number);
                let then = Then::Connected { connection: number, session };
                let (changes, happened) = (Vec::new(), Vec::new());
                self.queue.push_back(Queued { zxid: None, changes, happened, then });
                self.settle();
            }
        }
        number
    }

    /// The server closes a connection.
    fn close(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if !connection.closed {
            connection.expected.push(Message::Closed);
            self.forget(number);
        }
    }

    fn forget(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.closed = true;
        connection.closing = true;
        connection.pending.clear();
        self.watches.retain(|(watcher, ..)| *watcher != number);
    }

    /// A connection breaks.
    pub(crate) fn lose(&mut self, number: usize) {
        self.forget(number);
        for session in self.sessions.values_mut() {
            session.connection = session.connection.filter(|own| *own != number);
        }
    }

    pub(crate) fn send(&mut self, number: usize, xid: Xid, request: &Request) {
        if self.connections[number].closing || !self.connections[number].connected {
            return;
        }
        let session = self.connections[number].session;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.heard_ms = self.mono_ms;
        }
        let op = request.op();
        match request {
            Request::Auth(packet) => {
                // user:hash is what the tests ask for
                let text = String::from_utf8(packet.auth.clone().unwrap().to_vec()).unwrap();
                let id = Id::new("digest", &digest_of(&text));
                let connection = &mut self.connections[number];
                if !connection.ids.contains(&id) {
                    connection.ids.push(id);
                }
                self.reply(number, xid, op, Zxid(0), Ok(Bytes::new()));
            }
            Request::Sync(request) => {
                let body = SyncResponse { path: request.path.clone() }.to_bytes();
                self.connections[number].pending.push_back(Pending::Write { xid, op });
                let then = Then::Reply { connection: number, result: Ok(body) };
                let (changes, happened) = (Vec::new(), Vec::new());
                self.queue.push_back(Queued { zxid: None, changes, happened, then });
            }
            Request::CloseSession => {
                self.connections[number].pending.push_back(Pending::Write { xid, op });
                self.connections[number].closing = true;
                self.close_session(Some(number), session);
            }
            request if is_write(request) => {
                self.connections[number].pending.push_back(Pending::Write { xid, op });
                let mut txn = Txn {
                    nodes: &mut self.ahead,
                    changes: Vec::new(),
                    happened: Vec::new(),
                    session,
                    ids: &self.connections[number].ids,
                    zxid: self.proposed_zxid + 1,
                    wall_ms: self.wall_ms,
                };
                let result = txn.write(request);
                let Txn { changes, happened, .. } = txn;
                let queued = self.propose(Then::Reply { connection: number, result });
                (queued.changes, queued.happened) = (changes, happened);
            }
            request => {
                let connection = &mut self.connections[number];
                let (request, ids) = (request.clone(), connection.ids.clone());
                connection.pending.push_back(Pending::Read { xid, request, ids });
                self.answer_reads(number);
            }
        }
    }

    fn close_session(&mut self, connection: Option<usize>, session: SessionId) {
        self.sessions.get_mut(&session).expect("it is live").closing = true;
        let mut txn = Txn {
            nodes: &mut self.ahead,
            changes: Vec::new(),
            happened: Vec::new(),
            session,
            ids: &[],
            zxid: self.proposed_zxid + 1,
            wall_ms: self.wall_ms,
        };
        for path in txn.nodes.ephemerals(session) {
            txn.remove(&path);
        }
        let Txn { changes, happened, .. } = txn;
        let queued = self.propose(Then::SessionClosed { connection, session });
        (queued.changes, queued.happened) = (changes, happened);
    }

    /// The sessions that expire now; in which order is said by `order`, which names all of them.
    pub(crate) fn expire(&mut self, order: &[SessionId]) {
        let now_ms = self.mono_ms;
        let is_due = |session: &Session| {
            let bucket = ((session.heard_ms + session.timeout_ms) / TICK_MS + 1) * TICK_MS;
            !session.closing && bucket <= now_ms
        };
        let due: BTreeSet<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_due(session))
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(due, order.iter().copied().collect(), "these expire");
        for session in order {
            if let Some(number) = self.sessions[session].connection {
                self.connections[number].closing = true;
            }
            self.close_session(None, *session);
        }
    }

    /// A container or TTL znode goes, which the server decided: it must be one whose time is over.
    pub(crate) fn reap(&mut self, path: &str) {
        let node = self.ahead.find(path).expect("it is there");
        let age_ms = self.wall_ms - node.mtime;
        let over = match TYPES.kind(node.owner) {
            OwnerKind::Container => node.creates > 0,
            OwnerKind::Ttl(ttl_ms) => age_ms > ttl_ms,
            OwnerKind::Void | OwnerKind::Session(_) => false,
        };
        assert!(over && self.ahead.children(path).is_empty(), "{path} is not to go");
        let mut txn = Txn {
            nodes: &mut self.ahead,
            changes: Vec::new(),
            happened: Vec::new(),
            session: SessionId(0),
            ids: &[],
            zxid: self.proposed_zxid + 1,
            wall_ms: self.wall_ms,
        };
        txn.remove(path);
        let Txn { changes, happened, .. } = txn;
        let queued = self.propose(Then::Nothing);
        (queued.changes, queued.happened) = (changes, happened);
    }

    /// Everything up to the `count`th transaction on its way is committed.
    pub(crate) fn persist(&mut self, mut count: usize) {
        while count > 0
            && let Some(queued) = self.queue.pop_front()
        {
            count -= usize::from(queued.zxid.is_some());
            self.apply(queued);
        }
        self.settle();
    }

    /// What is no transaction has its turn when nothing is before it; after all that came together.
    pub(crate) fn settle(&mut self) {
        while self.queue.front().is_some_and(|queued| queued.zxid.is_none()) {
            let queued = self.queue.pop_front().expect("there is a front");
            self.apply(queued);
        }
    }

    fn apply(&mut self, queued: Queued) {
        let Queued { zxid, changes, happened, then } = queued;
        for (path, node) in changes {
            match node {
                Some(node) => self.applied.0.insert(path, node),
                None => self.applied.0.remove(&path),
            };
        }
        for happened in happened {
            self.tell(&happened, zxid.expect("only transactions do something"));
        }
        self.applied_zxid = zxid.unwrap_or(self.applied_zxid);
        match then {
            Then::Nothing => {}
            Then::Reply { connection, result } => self.complete(connection, result),
            Then::Connected { connection: number, session } => {
                let connection = &mut self.connections[number];
                if !connection.closed && !connection.closing {
                    connection.connected = true;
                    connection.expected.push(Message::Connected(ConnectResponse {
                        protocol_version: 0,
                        timeout_ms: 10_000,
                        session_id: session,
                        password: Some(Bytes::copy_from_slice(&password(session))),
                        read_only: Some(false),
                    }));
                }
            }
            Then::SessionClosed { connection, session } => {
                if let Some(number) = connection {
                    self.complete(number, Ok(Bytes::new()));
                }
                let session = self.sessions.remove(&session).expect("closed once");
                if let Some(number) = session.connection {
                    self.close(number);
                }
            }
        }
    }

    fn complete(&mut self, number: usize, result: Result<Bytes, ErrorCode>) {
        match self.connections[number].pending.pop_front() {
            Some(Pending::Write { xid, op }) => {
                self.reply(number, xid, op, Zxid(self.applied_zxid), result);
                self.answer_reads(number);
            }
            None => assert!(self.connections[number].closed),
            Some(Pending::Read { .. }) => panic!("a read was not answered in time"),
        }
    }

    fn reply(
        &mut self,
        number: usize,
        xid: Xid,
        op: OpCode,
        zxid: Zxid,
        result: Result<Bytes, ErrorCode>,
    ) {
        let (err, body) = match result {
            Ok(body) => (ErrorCode::OK, body),
            Err(err) => (err, Bytes::new()),
        };
        let connection = &mut self.connections[number];
        if !connection.closed {
            let header = ReplyHeader { xid, zxid, err };
            connection.expected.push(Message::Reply { op, header, body });
        }
    }

    fn answer_reads(&mut self, number: usize) {
        while let Some(Pending::Read { .. }) = self.connections[number].pending.front() {
            let Some(Pending::Read { xid, request, ids }) =
                self.connections[number].pending.pop_front()
            else {
                unreachable!("it was looked at")
            };
            let result = self.read(number, &request, &ids);
            self.reply(number, xid, request.op(), Zxid(self.applied_zxid), result);
        }
    }

    fn readable(&self, path: &str, ids: &[Id]) -> Result<&Node, ErrorCode> {
        let node = self.applied.find(path)?;
        may(&node.acl, Perms::READ, ids)?;
        Ok(node)
    }

    fn watch(&mut self, number: usize, path: &str, kind: Kind) {
        self.watches.insert((number, path.to_owned(), kind));
    }

    fn read(&mut self, number: usize, request: &Request, ids: &[Id]) -> Result<Bytes, ErrorCode> {
        Ok(match request {
            Request::Ping => Bytes::new(),
            Request::Exists(request) => {
                if request.path.contains('\0') {
                    return Err(ErrorCode::BAD_ARGUMENTS);
                }
                // What is not there can be watched; what may not be read cannot.
                if self.readable(&request.path, ids).is_err_and(|err| err == ErrorCode::NO_AUTH) {
                    return Err(ErrorCode::NO_AUTH);
                }
                if request.watch {
                    self.watch(number, &request.path, Kind::Data);
                }
                self.applied.find(&request.path)?;
                self.applied.stat(&request.path).to_bytes()
            }
            Request::GetData(request) => {
                let data = self.readable(&request.path, ids)?.data.clone();
                if request.watch {
                    self.watch(number, &request.path, Kind::Data);
                }
                GetDataResponse { data, stat: self.applied.stat(&request.path) }.to_bytes()
            }
            Request::GetAcl(request) => {
                let node = self.applied.find(&request.path)?;
                may(&node.acl, Perms::READ.or(Perms::ADMIN), ids)?;
                let mut acl = node.acl.clone();
                if may(&acl, Perms::ADMIN, ids).is_err() {
                    for entry in acl.iter_mut().filter(|entry| entry.id.scheme == "digest") {
                        let user = entry.id.id.split(':').next().unwrap().to_owned();
                        entry.id.id = user + ":x";
                    }
                }
                GetAclResponse { acl, stat: self.applied.stat(&request.path) }.to_bytes()
            }
            Request::GetChildren(request) => {
                self.readable(&request.path, ids)?;
                if request.watch {
                    self.watch(number, &request.path, Kind::Child);
                }
                GetChildrenResponse { children: self.applied.children(&request.path) }.to_bytes()
            }
            Request::GetChildren2(request) => {
                self.readable(&request.path, ids)?;
                if request.watch {
                    self.watch(number, &request.path, Kind::Child);
                }
                let children = self.applied.children(&request.path);
                GetChildren2Response { children, stat: self.applied.stat(&request.path) }.to_bytes()
            }
            Request::GetAllChildrenNumber(request) => {
                self.readable(&request.path, ids)?;
                let below = format!("{}/", request.path.trim_end_matches('/'));
                let count = self
                    .applied
                    .0
                    .keys()
                    .filter(|path| path.len() > below.len() && path.starts_with(&below));
                let total_number = i32::try_from(count.count()).unwrap();
                GetAllChildrenNumberResponse { total_number }.to_bytes()
            }
            Request::GetEphemerals(request) => {
                let prefix = request.prefix_path.clone().unwrap_or_default();
                let mut ephemerals = self.applied.ephemerals(self.connections[number].session);
                ephemerals.retain(|path| prefix == "/" || path.starts_with(&prefix));
                GetEphemeralsResponse { ephemerals }.to_bytes()
            }
            Request::MultiRead(MultiRequest::Read(ops)) => {
                let one = |op: &MultiReadOp| match op {
                    MultiReadOp::GetData(request) => {
                        let data = self.readable(&request.path, ids)?.data.clone();
                        Ok(MultiResult::GetData(data, self.applied.stat(&request.path)))
                    }
                    MultiReadOp::GetChildren(request) => {
                        self.readable(&request.path, ids)?;
                        Ok(MultiResult::GetChildren(self.applied.children(&request.path)))
                    }
                };
                let results = ops.iter().map(|op| one(op).unwrap_or_else(MultiResult::Error));
                MultiResponse(results.collect()).to_bytes()
            }
            Request::AddWatch(request) => {
                let kind = match request.mode {
                    0 => Kind::Persistent,
                    1 => Kind::Recursive,
                    _ => return Err(ErrorCode::MARSHALLING_ERROR), // a number
                };
                self.watch(number, &request.path, kind);
                ErrorResponse { err: ErrorCode::OK }.to_bytes()
            }
            Request::CheckWatches(request) => {
                let kinds = kinds(request.watcher_type)?;
                let set =
                    |kind: &Kind| self.watches.contains(&(number, request.path.clone(), *kind));
                if !kinds.iter().any(set) {
                    return Err(ErrorCode::NO_WATCHER);
                }
                Bytes::new()
            }
            Request::RemoveWatches(request) => {
                let kinds = kinds(request.watcher_type)?;
                let before = self.watches.len();
                for kind in kinds {
                    self.watches.remove(&(number, request.path.clone(), *kind));
                }
                if self.watches.len() == before {
                    return Err(ErrorCode::NO_WATCHER);
                }
                Bytes::new()
            }
            Request::SetWatches2(request) => {
                self.set_watches(number, request);
                Bytes::new()
            }
            other => panic!("{other:?} is not asked for"),
        })
    }

    fn set_watches(&mut self, number: usize, request: &SetWatches2) {
        let relative = request.relative_zxid.0;
        let stats: BTreeMap<String, Node> = self.applied.0.clone();
        for path in &request.data_watches {
            match stats.get(path) {
                None => self.event(number, DELETED, path, -1),
                Some(node) if node.mzxid > relative => self.event(number, DATA_CHANGED, path, -1),
                Some(_) => self.watch(number, path, Kind::Data),
            }
        }
        for path in &request.exist_watches {
            match stats.get(path) {
                None => self.watch(number, path, Kind::Data),
                Some(_) => self.event(number, CREATED, path, -1),
            }
        }
        for path in &request.child_watches {
            match stats.get(path) {
                None => self.event(number, DELETED, path, -1),
                Some(node) if node.pzxid > relative => {
                    self.event(number, CHILDREN_CHANGED, path, -1)
                }
                Some(_) => self.watch(number, path, Kind::Child),
            }
        }
        for path in &request.persistent_watches {
            self.watch(number, path, Kind::Persistent);
        }
        for path in &request.persistent_recursive_watches {
            self.watch(number, path, Kind::Recursive);
        }
    }

    fn event(&mut self, number: usize, event_type: i32, path: &str, zxid: i64) {
        let event = WatcherEvent { event_type, state: 3, path: path.to_owned() };
        self.connections[number].expected.push(Message::Event { zxid: Zxid(zxid), event });
    }

    /// Who watches a path with one of these kinds; watches for once are gone.
    fn trigger(&mut self, path: &str, kinds: &[Kind]) -> BTreeSet<usize> {
        let hit = |(_, watched, kind): &(usize, String, Kind)| {
            let below = |watched: &str| {
                watched == "/" || path == watched || path.starts_with(&format!("{watched}/"))
            };
            kinds.contains(kind)
                && (watched == path || (*kind == Kind::Recursive && below(watched)))
        };
        let hits: Vec<_> = self.watches.iter().filter(|watch| hit(watch)).cloned().collect();
        for watch in &hits {
            if matches!(watch.2, Kind::Data | Kind::Child) {
                self.watches.remove(watch);
            }
        }
        hits.into_iter().map(|(number, ..)| number).collect()
    }

    fn tell(&mut self, happened: &Happened, zxid: i64) {
        let Happened { what, path, acl, parent_acl } = happened;
        let mut hear = self.trigger(path, &[Kind::Data, Kind::Persistent, Kind::Recursive]);
        if *what == DELETED {
            hear.extend(self.trigger(path, &[Kind::Child, Kind::Persistent]));
        }
        self.tell_who_may(&hear, *what, path, acl, zxid);
        if *what != DATA_CHANGED {
            let parent = path::parent(path);
            let hear = self.trigger(parent, &[Kind::Child, Kind::Persistent]);
            self.tell_who_may(&hear, CHILDREN_CHANGED, parent, parent_acl, zxid);
        }
    }

    fn tell_who_may(
        &mut self,
        hear: &BTreeSet<usize>,
        what: i32,
        path: &str,
        acl: &[Acl],
        zxid: i64,
    ) {
        for number in hear {
            if may(acl, Perms::READ, &self.connections[*number].ids).is_ok() {
                self.event(*number, what, path, zxid);
            }
        }
    }
}

fn kinds(watcher_type: i32) -> Result<&'static [Kind], ErrorCode> {
    Ok(match watcher_type {
        1 => &[Kind::Child],
        2 => &[Kind::Data],
        3 => &[Kind::Data, Kind::Child, Kind::Persistent, Kind::Recursive],
        4 => &[Kind::Persistent],
        5 => &[Kind::Recursive],
        _ => return Err(ErrorCode::MARSHALLING_ERROR), // a number
    })
}

fn is_write(request: &Request) -> bool {
    matches!(
        request,
        Request::Create(_)
            | Request::Create2(_)
            | Request::CreateContainer(_)
            | Request::CreateTtl(_)
            | Request::Delete(_)
            | Request::SetData(_)
            | Request::SetAcl(_)
            | Request::Multi(_)
            | Request::Reconfig(_)
    )
}

/// The ids that the tests authenticate with, computed elsewhere.
fn digest_of(text: &str) -> String {
    match text {
        "me:secret" => "me:016djjlksVQS5RgX3M7biBGyYwY=".to_owned(),
        other => panic!("{other} has no known digest"),
    }
}
