//! Random transactions, and a tree and watches as simple as can be to compare with.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses its part")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "small numbers, and a seed from the environment"
)]

use std::collections::{BTreeMap, BTreeSet};

use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::create_mode::{CONTAINER_OWNER, ExtendedTypes, OwnerKind};
use zk_proto::data::{Stat, StatPersisted};
use zk_proto::txn::{
    CheckVersionTxn, CloseSessionTxn, CreateContainerTxn, CreateSessionTxn, CreateTtlTxn,
    CreateTxn, DeleteTxn, ErrorTxn, LoggedTxn, SetAclTxn, SetDataTxn, Txn, TxnHeader,
};
use zk_proto::watch::{EventType, WatcherType};
use zk_proto::{Buffer, ErrorCode, OpCode, SessionId, Xid, Zxid};
use zk_testkit::Prng;
use zk_tree::{Outcome, StatsTrack, WatchKind, WatcherId, node_digest};

/// One of `items`, by value.
pub fn one_of<T: Copy>(random: &mut Prng, items: &[T]) -> T {
    *random.pick(items)
}

pub fn random_path(random: &mut Prng) -> String {
    match random.below(40) {
        0 => one_of(random, &["", "/", "//a", "a", "/a/", "/a//b", "//", "/a/b/"]).to_owned(),
        1..=3 => {
            let quota = one_of(random, &["/zookeeper", "/zookeeper/quota", "/zookeeper/config"]);
            quota.to_owned()
        }
        4..=11 => {
            let mut path = "/zookeeper/quota".to_owned();
            for _ in 0..=random.below(2) {
                path.push('/');
                path.push_str(one_of(random, &["a", "b"]));
            }
            path.push_str(one_of(random, &["", "/zookeeper_limits", "/zookeeper_stats"]));
            path
        }
        _ => {
            let mut path = String::new();
            for _ in 0..=random.below(4) {
                path.push('/');
                path.push_str(one_of(
                    random,
                    &["a", "b", "c", "a-b", "a.name-longer-than-fourteen-bytes"],
                ));
            }
            path
        }
    }
}

fn random_data(random: &mut Prng) -> Buffer {
    match random.below(8) {
        0 => None,
        1 => Some(Default::default()),
        2 => Some(vec![b'x'; random.below(3000) as usize].into()),
        3 => Some(format!("count={},bytes={}", random.below(9), random.below(9)).into()),
        _ => Some(vec![random.below(256) as u8; random.below(40) as usize].into()),
    }
}

fn random_acl(random: &mut Prng) -> Vec<Acl> {
    match random.below(4) {
        0 => Acl::open(),
        1 => Acl::read_only(),
        2 => Vec::new(),
        _ => {
            let id = Id::new("digest", &format!("user{}", random.below(20)));
            vec![Acl { perms: Perms(random.below(32) as i32), id }]
        }
    }
}

pub fn random_session(random: &mut Prng) -> SessionId {
    SessionId(0x0100_0000_0000_0000 + random.below(6) as i64)
}

fn random_single(random: &mut Prng, in_multi: bool) -> (OpCode, Txn) {
    let path = random_path(random);
    let parent_cversion = match random.below(4) {
        0 => -1,
        1 => random.below(5) as i32,
        _ => random.below(100) as i32,
    };
    match random.below(if in_multi { 17 } else { 22 }) {
        0..=3 => {
            let (data, acl) = (random_data(random), random_acl(random));
            let ephemeral = random.chance(33);
            let op = one_of(random, &[OpCode::CREATE, OpCode::CREATE2]);
            (op, Txn::Create(CreateTxn { path, data, acl, ephemeral, parent_cversion }))
        }
        4 | 5 => {
            let (data, acl) = (random_data(random), random_acl(random));
            let txn = CreateContainerTxn { path, data, acl, parent_cversion };
            (OpCode::CREATE_CONTAINER, Txn::CreateContainer(txn))
        }
        6 => {
            let (data, acl) = (random_data(random), random_acl(random));
            let ttl = random.below(100_000) as i64 + 1;
            let txn = CreateTtlTxn { path, data, acl, parent_cversion, ttl };
            (OpCode::CREATE_TTL, Txn::CreateTtl(txn))
        }
        7..=10 => {
            let op = one_of(random, &[OpCode::DELETE, OpCode::DELETE, OpCode::DELETE_CONTAINER]);
            (op, Txn::Delete(DeleteTxn { path }))
        }
        11..=15 => {
            let data = random_data(random);
            (
                OpCode::SET_DATA,
                Txn::SetData(SetDataTxn { path, data, version: random.below(50) as i32 - 1 }),
            )
        }
        16 => {
            (OpCode::CHECK, Txn::Check(CheckVersionTxn { path, version: random.below(5) as i32 }))
        }
        17 => {
            let acl = random_acl(random);
            (OpCode::SET_ACL, Txn::SetAcl(SetAclTxn { path, acl, version: random.below(9) as i32 }))
        }
        18 => {
            let timeout_ms = random.below(60_000) as i32;
            (OpCode::CREATE_SESSION, Txn::CreateSession(CreateSessionTxn { timeout_ms }))
        }
        19 => {
            let paths = (0..random.below(4)).map(|_| random_path(random)).collect();
            let paths = (!random.chance(33)).then_some(CloseSessionTxn { paths_to_delete: paths });
            (OpCode::CLOSE_SESSION, Txn::CloseSession(paths))
        }
        20 => (OpCode::ERROR, Txn::Error(ErrorTxn { err: ErrorCode::NO_NODE })),
        _ => (OpCode::CHECK, Txn::Check(CheckVersionTxn { path, version: 0 })),
    }
}

pub fn random_txn(random: &mut Prng, zxid: i64) -> LoggedTxn {
    let (op, txn) = if random.chance(12) {
        let mut txns: Vec<_> = (0..random.below(5)).map(|_| random_single(random, true)).collect();
        if random.chance(20) {
            let at = random.below(txns.len() as u64 + 1) as usize;
            txns.insert(at, (OpCode::ERROR, Txn::Error(ErrorTxn { err: ErrorCode::BAD_VERSION })));
        }
        (OpCode::MULTI, Txn::Multi(txns))
    } else {
        random_single(random, false)
    };
    let header = TxnHeader {
        client_id: random_session(random),
        cxid: Xid(7),
        zxid: Zxid(zxid),
        time: 1_700_000_000_000 + zxid,
        op,
    };
    LoggedTxn { header, txn, digest: None }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelNode {
    pub data: Option<Vec<u8>>,
    pub acl: Vec<Acl>,
    pub stat: StatPersisted,
}

/// Names the first path where the two differ.
pub fn assert_same_nodes(left: &BTreeMap<String, ModelNode>, right: &BTreeMap<String, ModelNode>) {
    for path in left.keys().chain(right.keys()) {
        let of = |nodes: &BTreeMap<String, ModelNode>| {
            let node = nodes.get(path)?;
            let text = node
                .data
                .as_deref()
                .map(String::from_utf8_lossy)
                .map(|text| (text.len(), text.chars().take(40).collect::<String>()));
            Some((text, node.acl.clone(), node.stat))
        };
        assert_eq!(of(left), of(right), "{path}");
    }
}

/// One trigger: the event, its ACL, and who hears of it, in order of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub event_type: EventType,
    pub path: String,
    pub acl: Vec<Acl>,
    pub watchers: Vec<WatcherId>,
}

const STANDARD: u8 = 1;
const PERSISTENT: u8 = 2;
const RECURSIVE: u8 = 4;

type ModelTable = BTreeMap<(String, WatcherId), u8>;

#[derive(Debug, Clone)]
pub struct Model {
    pub types: ExtendedTypes,
    pub nodes: BTreeMap<String, ModelNode>,
    pub quotas: BTreeSet<String>,
    pub sessions: BTreeMap<SessionId, i32>,
    pub zxid: i64,
    data_watches: ModelTable,
    child_watches: ModelTable,
    pub heard: Vec<Heard>,
    /// Something happened that upstream does differently, or does not survive.
    pub strange: bool,
}

fn parent_of(path: &str) -> String {
    let at = path.rfind('/').expect("absolute");
    if at == 0 { "/".into() } else { path[..at].into() }
}

impl Model {
    pub fn new(types: ExtendedTypes) -> Self {
        let node = |acl, aversion| ModelNode {
            data: Some(Vec::new()),
            acl,
            stat: StatPersisted { aversion, ..StatPersisted::default() },
        };
        let nodes = [
            ("/", node(Acl::open(), 0)),
            ("/zookeeper", node(Acl::open(), 0)),
            ("/zookeeper/quota", node(Acl::open(), 0)),
            ("/zookeeper/config", node(Acl::read_only(), -1)),
        ];
        Self {
            types,
            nodes: nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect(),
            quotas: BTreeSet::new(),
            sessions: BTreeMap::new(),
            zxid: 0,
            data_watches: ModelTable::new(),
            child_watches: ModelTable::new(),
            heard: Vec::new(),
            strange: false,
        }
    }

    pub fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let below =
            self.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let names = below.map(|(path, _)| path[prefix.len()..].to_owned());
        names.filter(|name| !name.is_empty() && !name.contains('/')).collect()
    }

    pub fn stat(&self, path: &str) -> Stat {
        let ModelNode { data, stat, .. } = &self.nodes[path];
        let num_children = self.children(path).len() as i32;
        Stat {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            version: stat.version,
            cversion: stat.cversion * 2 - num_children,
            aversion: stat.aversion,
            ephemeral_owner: match self.types.kind(stat.ephemeral_owner) {
                OwnerKind::Session(session) => session,
                OwnerKind::Void | OwnerKind::Container | OwnerKind::Ttl(_) => 0,
            },
            data_length: data.as_ref().map_or(0, |data| data.len() as i32),
            num_children,
            pzxid: stat.pzxid,
        }
    }

    pub fn digest(&self) -> u64 {
        let digests = self.nodes.iter();
        let digests =
            digests.map(|(path, node)| node_digest(path, node.data.as_deref(), &node.stat));
        digests.fold(0, u64::wrapping_add)
    }

    fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.nodes.contains_key(path)
    }

    pub fn watch(&mut self, path: &str, id: WatcherId, kind: WatchKind) {
        let key = (path.to_owned(), id);
        match kind {
            WatchKind::Data => *self.data_watches.entry(key).or_default() |= STANDARD,
            WatchKind::Child => *self.child_watches.entry(key).or_default() |= STANDARD,
            WatchKind::Persistent => {
                *self.data_watches.entry(key.clone()).or_default() |= PERSISTENT;
                *self.child_watches.entry(key).or_default() |= PERSISTENT;
            }
            WatchKind::PersistentRecursive => {
                *self.data_watches.entry(key).or_default() |= RECURSIVE
            }
        }
    }

    fn masks(watcher_type: WatcherType) -> (u8, u8) {
        match watcher_type {
            WatcherType::Children => (0, STANDARD),
            WatcherType::Data => (STANDARD, 0),
            WatcherType::Any => (7, 7),
            WatcherType::Persistent => (PERSISTENT, PERSISTENT),
            WatcherType::PersistentRecursive => (RECURSIVE, 0),
        }
    }

    pub fn is_watched(&self, path: &str, id: WatcherId, watcher_type: WatcherType) -> bool {
        let (data, child) = Self::masks(watcher_type);
        let modes = |table: &ModelTable| table.get(&(path.to_owned(), id)).copied().unwrap_or(0);
        modes(&self.data_watches) & data != 0 || modes(&self.child_watches) & child != 0
    }

    pub fn unwatch(&mut self, path: &str, id: WatcherId, watcher_type: WatcherType) -> bool {
        let found = self.is_watched(path, id, watcher_type);
        let (data, child) = Self::masks(watcher_type);
        for (table, mask) in [(&mut self.data_watches, data), (&mut self.child_watches, child)] {
            table.entry((path.to_owned(), id)).and_modify(|modes| *modes &= !mask);
            table.retain(|_, modes| *modes != 0);
        }
        found
    }

    pub fn forget(&mut self, id: WatcherId) {
        self.data_watches.retain(|(_, watcher), _| *watcher != id);
        self.child_watches.retain(|(_, watcher), _| *watcher != id);
    }

    pub fn watch_count(&self) -> usize {
        self.data_watches.len() + self.child_watches.len()
    }

    pub fn data_watches_by_path(&self) -> Vec<(String, Vec<WatcherId>)> {
        let mut report: BTreeMap<String, Vec<WatcherId>> = BTreeMap::new();
        for (path, id) in self.data_watches.keys() {
            report.entry(path.clone()).or_default().push(*id);
        }
        report.into_iter().collect()
    }

    fn trigger(
        &mut self,
        child_table: bool,
        event_type: EventType,
        path: &str,
        acl: &[Acl],
        suppressed: &BTreeSet<WatcherId>,
    ) -> BTreeSet<WatcherId> {
        let table = if child_table { &mut self.child_watches } else { &mut self.data_watches };
        let mut heard = BTreeSet::new();
        for ((watched, id), modes) in table.iter_mut() {
            let below = watched == "/"
                || !watched.is_empty()
                    && path.strip_prefix(watched.as_str()).is_some_and(|r| r.starts_with('/'));
            if watched == path {
                *modes &= !STANDARD;
                heard.insert(*id);
            } else if below && *modes & RECURSIVE != 0 {
                heard.insert(*id);
            }
        }
        table.retain(|_, modes| *modes != 0);
        let watchers: Vec<WatcherId> = heard.difference(suppressed).copied().collect();
        if !watchers.is_empty() {
            let (path, acl) = (path.to_owned(), acl.to_vec());
            self.heard.push(Heard { event_type, path, acl, watchers });
        }
        heard
    }

    fn quota_of(&self, path: &str) -> Option<&String> {
        let is_in = |quota: &&String| path == *quota || path.starts_with(&format!("{quota}/"));
        self.quotas.iter().filter(is_in).max_by_key(|quota| quota.len())
    }

    fn add_usage(&mut self, path: &str, bytes: i64, count: i64) {
        let Some(quota) = self.quota_of(path) else { return };
        if let Some(node) = self.nodes.get_mut(&format!("/zookeeper/quota{quota}/zookeeper_stats"))
        {
            let mut track = StatsTrack::parse(node.data.as_deref().unwrap_or_default());
            track.bytes += bytes;
            track.count += count;
            node.data = Some(track.to_string().into_bytes());
        }
    }

    pub fn count_usage(&mut self, quota: &str) {
        let below = format!("{quota}/");
        let counted =
            self.nodes.iter().filter(|(path, _)| *path == quota || path.starts_with(&below));
        let sizes: Vec<i64> =
            counted.map(|(_, node)| node.data.as_ref().map_or(0, |d| d.len() as i64)).collect();
        let text = format!("count={},bytes={}", sizes.len(), sizes.iter().sum::<i64>());
        if let Some(node) = self.nodes.get_mut(&format!("/zookeeper/quota{quota}/zookeeper_stats"))
        {
            node.data = Some(text.into_bytes());
        }
    }

    fn raise_cversion(&mut self, path: &str, cversion: i32, zxid: i64) {
        let stat = &mut self.nodes.get_mut(path).expect("checked").stat;
        let cversion = if cversion == -1 { stat.cversion + 1 } else { cversion };
        if cversion > stat.cversion {
            stat.cversion = cversion;
            stat.pzxid = zxid;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn create(
        &mut self,
        header: &TxnHeader,
        op: OpCode,
        path: &str,
        data: &Buffer,
        acl: &[Acl],
        owner: i64,
        cversion: i32,
    ) -> Outcome {
        self.strange |= !zk_proto::path::is_valid(path) || path == "/";
        if path == "/" {
            return Outcome::Error(ErrorCode::NODE_EXISTS);
        }
        if !path.starts_with('/') || path.starts_with("//") {
            return Outcome::Error(ErrorCode::BAD_ARGUMENTS);
        }
        let parent = parent_of(path);
        if !self.nodes.contains_key(&parent) {
            return Outcome::Error(ErrorCode::NO_NODE);
        }
        if path.ends_with('/') {
            return Outcome::Error(ErrorCode::BAD_ARGUMENTS);
        }
        if let Some(existing) = self.nodes.get_mut(path) {
            existing.acl = acl.to_vec();
            if op == OpCode::CREATE {
                self.raise_cversion(&parent, cversion, header.zxid.0);
            }
            return Outcome::Error(ErrorCode::NODE_EXISTS);
        }
        self.raise_cversion(&parent, cversion, header.zxid.0);
        let (zxid, time) = (header.zxid.0, header.time);
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            ephemeral_owner: owner,
            ..StatPersisted::default()
        };
        let data = data.as_ref().map(|data| data.to_vec());
        let len = data.as_ref().map_or(0, |data| data.len() as i64);
        self.nodes.insert(path.to_owned(), ModelNode { data, acl: acl.to_vec(), stat });
        let stat = self.stat(path);
        if let Some(quota) = path.strip_prefix("/zookeeper/quota/") {
            if let Some(quota) = quota.strip_suffix("/zookeeper_limits") {
                self.quotas.insert(format!("/{quota}"));
            }
            if let Some(quota) = quota.strip_suffix("/zookeeper_stats") {
                self.count_usage(&format!("/{quota}"));
            }
        }
        self.add_usage(path, len, 1);
        let none = BTreeSet::new();
        self.trigger(false, EventType::NodeCreated, path, acl, &none);
        let parent_acl = self.nodes[&parent].acl.clone();
        self.trigger(true, EventType::NodeChildrenChanged, &parent, &parent_acl, &none);
        Outcome::Stat(stat)
    }

    fn delete(&mut self, path: &str, zxid: i64) -> Outcome {
        let special = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
        self.strange |= !zk_proto::path::is_valid(path) || special.contains(&path);
        if !path.starts_with('/') || special.contains(&path) {
            return Outcome::Error(ErrorCode::BAD_ARGUMENTS);
        }
        let below = format!("{path}/");
        let descendants = self.nodes.keys().filter(|path| path.starts_with(&below));
        let mut doomed: Vec<String> = descendants.cloned().collect();
        self.strange |= !doomed.is_empty();
        doomed.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in doomed {
            self.delete_leaf(&path, zxid);
        }
        self.delete_leaf(path, zxid)
    }

    fn delete_leaf(&mut self, path: &str, zxid: i64) -> Outcome {
        let parent = parent_of(path);
        let Some(parent_node) = self.nodes.get_mut(&parent) else {
            return Outcome::Error(ErrorCode::NO_NODE);
        };
        parent_node.stat.pzxid = parent_node.stat.pzxid.max(zxid);
        let parent_acl = parent_node.acl.clone();
        let Some(node) = self.nodes.remove(path) else { return Outcome::Error(ErrorCode::NO_NODE) };
        if let Some(quota) = path.strip_prefix("/zookeeper/quota/")
            && let Some(quota) = quota.strip_suffix("/zookeeper_limits")
        {
            self.quotas.remove(&format!("/{quota}"));
        }
        self.add_usage(path, -node.data.map_or(0, |data| data.len() as i64), -1);
        let none = BTreeSet::new();
        let heard = self.trigger(false, EventType::NodeDeleted, path, &node.acl, &none);
        self.trigger(true, EventType::NodeDeleted, path, &node.acl, &heard);
        self.trigger(true, EventType::NodeChildrenChanged, &parent, &parent_acl, &none);
        Outcome::Done
    }

    pub fn ephemerals(&self, session: SessionId) -> Vec<String> {
        let owned = self.nodes.iter().filter(|(_, node)| {
            self.types.kind(node.stat.ephemeral_owner) == OwnerKind::Session(session.0)
        });
        owned.map(|(path, _)| path.clone()).collect()
    }

    fn single(&mut self, header: &TxnHeader, op: OpCode, txn: &Txn) -> Outcome {
        let zxid = header.zxid.0;
        match txn {
            Txn::CreateSession(txn) => {
                self.sessions.insert(header.client_id, txn.timeout_ms);
                Outcome::Done
            }
            Txn::CloseSession(txn) => {
                for path in txn.iter().flat_map(|txn| &txn.paths_to_delete) {
                    self.delete(path, zxid);
                }
                for path in self.ephemerals(header.client_id) {
                    self.delete(&path, zxid);
                }
                self.sessions.remove(&header.client_id);
                Outcome::Done
            }
            Txn::Error(txn) => Outcome::Error(txn.err),
            Txn::Create(txn) => {
                let owner = if txn.ephemeral { header.client_id.0 } else { 0 };
                self.create(header, op, &txn.path, &txn.data, &txn.acl, owner, txn.parent_cversion)
            }
            Txn::CreateContainer(txn) => {
                let cversion = txn.parent_cversion;
                self.create(header, op, &txn.path, &txn.data, &txn.acl, CONTAINER_OWNER, cversion)
            }
            Txn::CreateTtl(txn) => {
                let owner = (0xff00_0000_0000_0000_u64 | txn.ttl as u64) as i64;
                self.create(header, op, &txn.path, &txn.data, &txn.acl, owner, txn.parent_cversion)
            }
            Txn::Delete(txn) => self.delete(&txn.path, zxid),
            Txn::SetData(txn) => {
                if !self.exists(&txn.path) {
                    return Outcome::Error(ErrorCode::NO_NODE);
                }
                let is_count = txn.data.as_ref().is_some_and(|data| data.starts_with(b"count="));
                self.strange |=
                    txn.path.ends_with("zookeeper_stats") && !is_count || txn.path.is_empty();
                let path = if txn.path.is_empty() { "/" } else { &txn.path };
                let node = self.nodes.get_mut(path).expect("checked");
                let old = node.data.as_ref().map_or(0, |data| data.len() as i64);
                node.data = txn.data.as_ref().map(|data| data.to_vec());
                let new = node.data.as_ref().map_or(0, |data| data.len() as i64);
                node.stat.version = txn.version;
                node.stat.mzxid = zxid;
                node.stat.mtime = header.time;
                let acl = node.acl.clone();
                let stat = self.stat(path);
                self.add_usage(path, new - old, 0);
                self.trigger(false, EventType::NodeDataChanged, path, &acl, &BTreeSet::new());
                Outcome::Stat(stat)
            }
            Txn::SetAcl(txn) => {
                if !self.exists(&txn.path) {
                    return Outcome::Error(ErrorCode::NO_NODE);
                }
                let path = if txn.path.is_empty() { "/" } else { &txn.path };
                let node = self.nodes.get_mut(path).expect("checked");
                node.acl.clone_from(&txn.acl);
                node.stat.aversion = txn.version;
                Outcome::Stat(self.stat(path))
            }
            Txn::Check(_) => Outcome::Done,
            Txn::Multi(txns) => {
                let failed = txns.iter().any(|(op, _)| *op == OpCode::ERROR);
                let mut after = false;
                let outcomes = txns.iter().map(|(op, txn)| match txn {
                    Txn::Error(txn) => {
                        after = true;
                        Outcome::Error(txn.err)
                    }
                    _ if failed && after => Outcome::Error(ErrorCode::RUNTIME_INCONSISTENCY),
                    _ if failed => Outcome::Error(ErrorCode::OK),
                    txn => self.single(header, *op, txn),
                });
                Outcome::Multi(outcomes.collect())
            }
        }
    }

    pub fn apply(&mut self, txn: &LoggedTxn) -> Outcome {
        let outcome = self.single(&txn.header, txn.header.op, &txn.txn);
        self.zxid = self.zxid.max(txn.header.zxid.0);
        outcome
    }
}
