//! Random clients against the model, with writes completed in random batches.

use bytes::Bytes;
use zk_processor::NodeConfig;
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest};
use zk_proto::proto::{
    AddWatchRequest, AuthPacket, CheckVersionRequest, CheckWatchesRequest, CreateRequest,
    CreateTtlRequest, DeleteRequest, ExistsRequest, GetAclRequest, GetAllChildrenNumberRequest,
    GetChildren2Request, GetChildrenRequest, GetDataRequest, GetEphemeralsRequest, ReconfigRequest,
    RemoveWatchesRequest, SetAclRequest, SetDataRequest, SetWatches2, SyncRequest,
};
use zk_proto::txn::Txn;
use zk_proto::{Buffer, OpCode, Request, SessionId, Zxid};
use zk_testkit::{Prng, property_of};

use crate::harness::{FRAMES_MAX, Message, START, World, config, first_session};
use crate::model::Model;
use crate::script::message_text;

const PATHS: &[&str] = &[
    "/",
    "/a",
    "/b",
    "/a/a",
    "/a/b",
    "/a/a/a",
    "/b/a",
    "/a0000000000",
    "/a/s0000000001",
    "/zookeeper",
    "/zookeeper/config",
    "/no/where",
];

fn path(prng: &mut Prng) -> String {
    (*prng.pick(PATHS)).to_owned()
}

/// A path that a write has to look at more closely.
fn write_path(prng: &mut Prng) -> String {
    match prng.below(20) {
        0 => (*prng.pick(&[
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/a\0",
            "/\u{1}",
            "/zookeeper/quota",
        ]))
        .to_owned(),
        _ => path(prng), // mostly a good one
    }
}

fn data(prng: &mut Prng) -> Buffer {
    match prng.below(6) {
        0 => None,
        1 => Some(Bytes::new()),
        _ => {
            let len = prng.index(30);
            Some(Bytes::from(prng.bytes(len)))
        } // some
    }
}

fn version(prng: &mut Prng) -> i32 {
    *prng.pick(&[-1, -1, -1, 0, 0, 1, 2, 7])
}

fn acl(prng: &mut Prng) -> Vec<Acl> {
    match prng.below(12) {
        0 => Vec::new(),
        1 => Acl::creator_all(),
        2 => Acl::read_only(),
        3 => {
            let digest =
                Acl { perms: Perms::ALL, id: Id::new("digest", "me:016djjlksVQS5RgX3M7biBGyYwY=") };
            vec![Acl { perms: Perms(29), id: Id::new("world", "anyone") }, digest]
        }
        _ => Acl::open(), // as usual
    }
}

fn flags(prng: &mut Prng) -> i32 {
    *prng.pick(&[0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, -1])
}

fn create(prng: &mut Prng) -> CreateRequest {
    CreateRequest { path: write_path(prng), data: data(prng), acl: acl(prng), flags: flags(prng) }
}

fn create_ttl(prng: &mut Prng) -> CreateTtlRequest {
    let CreateRequest { path, data, acl, flags } = create(prng);
    let flags = if prng.chance(70) { 5 } else { flags };
    let ttl = *prng.pick(&[1, 1000, 5_000_000, 0, -1, 1 << 40, (1 << 40) - 1]);
    CreateTtlRequest { path, data, acl, flags, ttl }
}

fn delete(prng: &mut Prng) -> DeleteRequest {
    DeleteRequest { path: write_path(prng), version: version(prng) }
}

fn set_data(prng: &mut Prng) -> SetDataRequest {
    SetDataRequest { path: write_path(prng), data: data(prng), version: version(prng) }
}

fn multi(prng: &mut Prng) -> MultiRequest {
    let count = prng.index(5);
    let ops = (0..count).map(|_| match prng.below(8) {
        0..=2 => {
            let mut request = create(prng);
            // What upstream's decoder makes something else of is not of interest here.
            request.flags = *prng.pick(&[0, 1, 2, 3]);
            MultiOp::Create { op: *prng.pick(&[OpCode::CREATE, OpCode::CREATE2]), request }
        }
        3 => {
            let mut request = create(prng);
            request.flags = 4;
            MultiOp::Create { op: OpCode::CREATE_CONTAINER, request }
        }
        4 => {
            let mut request = create_ttl(prng);
            request.flags = *prng.pick(&[5, 6]);
            MultiOp::CreateTtl(request)
        }
        5 => MultiOp::Delete(delete(prng)),
        6 => MultiOp::SetData(set_data(prng)),
        _ => MultiOp::Check(CheckVersionRequest { path: write_path(prng), version: version(prng) }), // the last
    });
    MultiRequest::Write(ops.collect())
}

fn paths(prng: &mut Prng) -> Vec<String> {
    let count = prng.index(3);
    (0..count).map(|_| path(prng)).collect()
}

/// Any request, but those that end something.
fn request(prng: &mut Prng) -> Request {
    let watch = prng.chance(40);
    match prng.below(34) {
        0..=3 => Request::Create(create(prng)),
        4 | 5 => Request::Create2(create(prng)),
        6 => Request::CreateContainer(create(prng)),
        7 => Request::CreateTtl(create_ttl(prng)),
        8..=10 => Request::Delete(delete(prng)),
        11..=14 => Request::SetData(set_data(prng)),
        15 => Request::SetAcl(SetAclRequest {
            path: write_path(prng),
            acl: acl(prng),
            version: version(prng),
        }),
        16..=18 => Request::Multi(multi(prng)),
        19 => Request::Sync(SyncRequest { path: Some(path(prng)) }),
        20 => Request::Ping,
        21 => Request::GetAcl(GetAclRequest { path: path(prng) }),
        22 => Request::GetAllChildrenNumber(GetAllChildrenNumberRequest { path: path(prng) }),
        23 => Request::GetEphemerals(GetEphemeralsRequest {
            prefix_path: prng.chance(50).then(|| path(prng)),
        }),
        24 => Request::MultiRead(MultiRequest::Read(vec![
            MultiReadOp::GetData(GetDataRequest { path: path(prng), watch }),
            MultiReadOp::GetChildren(GetChildrenRequest { path: path(prng), watch }),
        ])),
        25 => {
            Request::AddWatch(AddWatchRequest { path: path(prng), mode: *prng.pick(&[0, 1, 1, 2]) })
        }
        26 => Request::CheckWatches(CheckWatchesRequest {
            path: path(prng),
            watcher_type: prng.index(7) as i32,
        }),
        27 => Request::RemoveWatches(RemoveWatchesRequest {
            path: path(prng),
            watcher_type: prng.index(7) as i32,
        }),
        28 => Request::SetWatches2(SetWatches2 {
            relative_zxid: Zxid(prng.below(60) as i64),
            data_watches: paths(prng),
            exist_watches: paths(prng),
            child_watches: paths(prng),
            persistent_watches: paths(prng),
            persistent_recursive_watches: paths(prng),
        }),
        29 => Request::GetChildren(GetChildrenRequest { path: path(prng), watch }),
        30 => Request::GetChildren2(GetChildren2Request { path: path(prng), watch }),
        31 if prng.chance(30) => Request::Auth(AuthPacket {
            auth_type: 0,
            scheme: "digest".into(),
            auth: Some(Bytes::from_static(b"me:secret")),
        }),
        31 if prng.chance(10) => Request::Reconfig(ReconfigRequest {
            joining_servers: None,
            leaving_servers: None,
            new_members: None,
            cur_config_id: 0,
        }),
        32 => Request::Exists(ExistsRequest { path: write_path(prng), watch }),
        _ => Request::GetData(GetDataRequest { path: path(prng), watch }), // what is asked most
    }
}

/// A world, its model, and which connection is which.
struct Both {
    world: World,
    model: Model,
    /// Connections of the world that the model knows by number.
    names: Vec<String>,
}

impl Both {
    fn new(config: NodeConfig) -> Self {
        let model = Model::new(first_session(), START.mono_us / 1000, START.wall_ms);
        Self { world: World::new(config), model, names: Vec::new() }
    }

    fn connect(&mut self, session: SessionId) {
        let name = format!("c{}", self.names.len());
        self.world.reconnect(&name, session);
        self.names.push(name);
        self.model.connect(session);
    }

    fn compare(&mut self) {
        for (number, name) in self.names.iter().enumerate() {
            let actual = self.world.take(name);
            let expected = std::mem::take(&mut self.model.connections[number].expected);
            let text = |messages: &[Message]| messages.iter().map(message_text).collect::<Vec<_>>();
            assert_eq!(text(&actual), text(&expected), "at {name}");
            assert_eq!(self.world.connection(name).closed, self.model.connections[number].closed);
        }
    }

    fn open_connections(&self) -> Vec<usize> {
        let numbers = 0..self.names.len();
        numbers.filter(|number| !self.model.connections[*number].closed).collect()
    }

    fn pass(&mut self, steps: u64) {
        for _ in 0..steps {
            let before = self.world.writes_waiting();
            self.world.pass(500);
            self.model.mono_ms += 500;
            self.model.wall_ms += 500;
            let expired: Vec<SessionId> = self
                .world
                .proposed()
                .skip(before)
                .filter(|txn| matches!(txn.txn, Txn::CloseSession(_)))
                .map(|txn| txn.header.client_id)
                .collect();
            self.model.expire(&expired);
            for txn in self.world.proposed().skip(before) {
                if let Txn::Delete(deleted) = &txn.txn {
                    self.model.reap(&deleted.path);
                }
            }
        }
    }

    fn step(&mut self, prng: &mut Prng) {
        let open = self.open_connections();
        match prng.below(40) {
            0 | 1 if open.len() < 5 => self.connect(SessionId(0)),
            2 if !self.names.is_empty() => {
                let session = self.model.connections[prng.index(self.names.len())].session;
                self.connect(session);
            }
            3 if !open.is_empty() => {
                let number = *prng.pick(&open);
                self.world.lose(&self.names[number].clone());
                self.model.lose(number);
            }
            4 if !open.is_empty() => self.send(*prng.pick(&open), &[Request::CloseSession]),
            5 => {
                let steps = if prng.chance(20) { 25 } else { 1 };
                self.pass(steps);
            }
            6..=14 => {
                let count = 1 + prng.index(6);
                self.world.persist(count);
                self.model.persist(count);
            }
            _ if !open.is_empty() => {
                let count = 1 + prng.index(4);
                let requests: Vec<Request> = (0..count).map(|_| request(prng)).collect();
                self.send(*prng.pick(&open), &requests);
            }
            _ => {} // nobody is there
        }
        self.compare();
    }

    /// The node keeps what arrives before the session is established; the model does not.
    fn send(&mut self, number: usize, requests: &[Request]) {
        let name = &self.names[number];
        if self.world.connection(name).session == SessionId(0) {
            return;
        }
        let xids = self.world.send_all(&name.clone(), requests);
        for (xid, request) in xids.into_iter().zip(requests) {
            self.model.send(number, xid, request);
        }
        self.model.settle();
    }
}

fn config_with_ttl() -> NodeConfig {
    NodeConfig { extended_types: ExtendedTypes::Enabled, ..config() }
}

/// T1, T4 and T5 by the letter: each connection's output is the predicted one, message for message.
/// And what prep lets through applies, with the digest that it predicted: the harness sees to that.
#[test]
fn every_connection_hears_what_the_model_says() {
    property_of("the node and its model", 300, |prng| {
        let mut both = Both::new(config_with_ttl());
        for _ in 0..250 {
            both.step(prng);
        }
        both.world.persist_all();
        both.model.persist(usize::MAX);
        both.compare();
        // Nothing is left behind: neither of those who are gone nor of what was on its way.
        for number in both.open_connections() {
            both.world.lose(&both.names[number].clone());
            both.model.lose(number);
        }
        both.pass(100);
        both.world.persist_all();
        both.model.persist(usize::MAX);
        both.compare();
        both.world.check();
        let status = both.world.node.status();
        assert_eq!((status.sessions, status.connections), (0, 0));
        assert_eq!(both.world.node.read(|db| db.tree.ephemerals_count()), 0);
        assert_eq!(both.world.node.read(|db| db.watches.count()), 0);
    });
}

/// Limits on what may wait only change when something is answered, not what or in which order.
#[test]
fn crowds_are_served_in_order() {
    property_of("a crowded node and its model", 40, |prng| {
        let mut both = Both::new(NodeConfig { global_outstanding_limit: 5, ..config_with_ttl() });
        both.connect(SessionId(0));
        both.connect(SessionId(0));
        both.world.persist_all();
        both.model.persist(usize::MAX);
        both.compare();
        let mut asked = [Vec::new(), Vec::new()];
        for _ in 0..60 {
            let number = prng.index(2);
            // No watches: when an event comes depends on when a write is let in.
            let requests: Vec<Request> =
                (0..prng.index(12))
                    .map(|_| {
                        if prng.chance(50) {
                            Request::SetData(set_data(prng))
                        } else {
                            Request::Ping
                        }
                    })
                    .collect();
            let name = both.names[number].clone();
            asked[number].extend(both.world.send_all(&name, &requests));
            if prng.chance(50) {
                both.world.persist(1 + prng.index(9));
            }
            // Both may be let in while nothing of theirs is on its way.
            assert!(both.world.writes_waiting() <= 5 + 2 * FRAMES_MAX, "the limit is no limit");
        }
        both.world.persist_all();
        for (number, asked) in asked.iter().enumerate() {
            let name = &both.names[number];
            assert!(!both.world.connection(name).paused);
            let replies: Vec<_> = both
                .world
                .take(name)
                .iter()
                .map(|message| match message {
                    Message::Reply { header, .. } => header.xid,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(&replies, asked);
        }
        both.world.check();
    });
}
