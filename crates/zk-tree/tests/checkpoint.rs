//! Checkpoints while transactions go on: what storage is told adds up to the tree, exactly.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;

use common::{Model, ModelNode, assert_same_nodes, random_txn};
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::txn::{CreateTxn, DeleteTxn, LoggedTxn, Txn, TxnHeader};
use zk_proto::{OpCode, SessionId, Xid, Zxid};
use zk_testkit::property_of;
use zk_tree::{
    Checkpoint, CheckpointItem, DIGEST_LOG_INTERVAL, Database, LoadError, Outcome, TreeConfig,
    ZxidDigest,
};

#[derive(Debug, Clone, Default)]
struct Store {
    nodes: BTreeMap<String, ModelNode>,
    sessions: BTreeMap<SessionId, i32>,
}

impl Store {
    fn write(&mut self, items: Vec<CheckpointItem>) {
        for item in items {
            match item {
                CheckpointItem::PutZnode { path, data, acl, stat } => {
                    let data = data.map(Vec::from);
                    self.nodes.insert(path, ModelNode { data, acl: acl.to_vec(), stat });
                }
                CheckpointItem::DeleteZnode { path } => {
                    self.nodes.remove(&path);
                }
                CheckpointItem::PutSession(id, timeout_ms) => {
                    self.sessions.insert(id, timeout_ms);
                }
                CheckpointItem::DeleteSession(id) => {
                    self.sessions.remove(&id);
                }
            }
        }
    }

    fn load(&self, config: TreeConfig, zxid: Zxid) -> Result<Database, LoadError> {
        let mut database = Database::new(config);
        for (path, node) in &self.nodes {
            database.load_znode(path, node.data.as_deref(), &node.acl, &node.stat);
        }
        for (&id, &timeout_ms) in &self.sessions {
            database.load_session(id, timeout_ms);
        }
        database.finish_load(zxid)?;
        Ok(database)
    }
}

fn assert_ascending(items: &[CheckpointItem]) {
    let key = |item: &CheckpointItem| match item {
        CheckpointItem::PutZnode { path, .. } | CheckpointItem::DeleteZnode { path } => {
            (path.clone(), 0)
        }
        CheckpointItem::PutSession(id, _) | CheckpointItem::DeleteSession(id) => ("~".into(), id.0),
    };
    assert!(items.is_sorted_by(|a, b| key(a) < key(b)), "{items:?}");
}

/// Usage nodes may be counted afresh when a tree is loaded.
fn recounted(model: &Model) -> Model {
    let mut model = model.clone();
    for quota in model.quotas.clone() {
        model.count_usage(&quota);
    }
    model
}

fn contents(database: &Database) -> BTreeMap<String, ModelNode> {
    let node = |(path, node): (String, zk_tree::ZnodeRef<'_>)| {
        let data = node.data().map(Vec::from);
        (path, ModelNode { data, acl: node.acl().to_vec(), stat: node.stat_persisted() })
    };
    database.tree.iter().map(node).collect()
}

#[test]
fn a_checkpoint_is_the_tree_at_its_zxid() {
    let (done, failed) = (Cell::new(0), Cell::new(0));
    property_of("a checkpoint is the tree at its zxid", 32, |random| {
        let config = TreeConfig { extended_types: ExtendedTypes::Enabled, digest_enabled: true };
        let mut database = Database::new(config);
        let mut model = Model::new(config.extended_types);
        let mut store = Store::default();
        let mut running: Option<(Checkpoint, Model, Vec<CheckpointItem>)> = None;
        for zxid in 1..2500 {
            let txn = random_txn(random, zxid);
            model.apply(&txn);
            database.apply(&txn, &mut |_, _| {});
            match running.take() {
                None if random.chance(5) => {
                    let checkpoint = database.begin_checkpoint();
                    assert_eq!((database.tree.dirty_count(), database.tree.dirty_bytes()), (0, 0));
                    assert_eq!(checkpoint.zxid(), Zxid(zxid));
                    assert_eq!(checkpoint.digest(), model.digest());
                    running = Some((checkpoint, model.clone(), Vec::new()));
                }
                None => {}
                Some((mut checkpoint, then, mut items)) => {
                    let max = 1 + random.below(5) as usize;
                    let before = items.len();
                    let more = database.checkpoint_chunk(&mut checkpoint, max, &mut items);
                    assert!(items.len() <= before + max);
                    if random.chance(50) {
                        checkpoint.run_unlocked();
                    }
                    let fails = random.chance(2);
                    if fails {
                        // Some of it may have been written.
                        items.truncate(random.below(items.len() as u64 + 1) as usize);
                    }
                    if more && !fails {
                        running = Some((checkpoint, then, items));
                        continue;
                    }
                    assert_ascending(&items);
                    assert!(items.len() <= checkpoint.len_max());
                    let as_it_was = store.clone();
                    if !fails || random.chance(50) {
                        store.write(items);
                    }
                    drop(database.end_checkpoint(checkpoint, !fails));
                    if fails {
                        failed.set(failed.get() + 1);
                        if random.chance(50) {
                            store = as_it_was;
                        }
                        continue;
                    }
                    done.set(done.get() + 1);
                    assert_same_nodes(&store.nodes, &then.nodes);
                    assert_eq!(store.sessions, then.sessions);
                    let loaded = store.load(config, Zxid(then.zxid)).unwrap();
                    assert_same_nodes(&contents(&loaded), &recounted(&then).nodes);
                    assert_eq!(loaded.tree.digest(), then.digest());
                    assert_eq!(loaded.tree.last_zxid(), Zxid(then.zxid));
                }
            }
        }
    });
    assert!(done.get() > 5 && failed.get() > 5, "{done:?} done, {failed:?} failed");
}

/// A tree that is loaded goes on as the one that was stored would have, checkpoints included.
#[test]
fn a_loaded_tree_is_the_stored_tree() {
    property_of("a loaded tree is the stored tree", 16, |random| {
        let config = TreeConfig { extended_types: ExtendedTypes::Enabled, digest_enabled: true };
        let mut model = Model::new(config.extended_types);
        let mut database = Database::new(config);
        let mut store = Store::default();
        let mut zxid = 0;
        for _ in 0..8 {
            for _ in 0..200 {
                zxid += 1;
                let txn = random_txn(random, zxid);
                assert_eq!(model.apply(&txn), database.apply(&txn, &mut |_, _| {}), "{txn:?}");
            }
            let mut checkpoint = database.begin_checkpoint();
            let mut items = Vec::new();
            while database.checkpoint_chunk(&mut checkpoint, 100, &mut items) {
                checkpoint.run_unlocked();
            }
            drop(database.end_checkpoint(checkpoint, true));
            store.write(items);
            database = store.load(config, Zxid(zxid)).unwrap();
            model = recounted(&model);
            assert_same_nodes(&contents(&database), &model.nodes);
            assert_eq!(database.tree.digest(), model.digest());
            assert_eq!(database.tree.sessions(), &model.sessions);
            let changed = database.tree.quotas().count();
            // Usage that was counted afresh, and the four initial znodes' places.
            assert!(database.tree.dirty_count() <= changed + 4);
        }
    });
}

#[test]
fn what_is_no_tree_is_refused() {
    let load = |paths: &[&str]| {
        let mut database = Database::new(TreeConfig::default());
        for path in paths {
            database.load_znode(path, None, &[], &zk_proto::data::StatPersisted::default());
        }
        database.finish_load(Zxid(1))
    };
    assert_eq!(load(&["/", "/a", "/a/b", "/a-b"]), Ok(()));
    assert_eq!(load(&["/a", "/c/b", "/d/e"]), Err(LoadError::NoParent("/c/b".into())));
    for path in ["", "a", "/a/", "//a", "//"] {
        assert_eq!(load(&["/a", path]), Err(LoadError::BadPath(path.into())), "{path:?}");
    }
}

fn header(zxid: i64, op: OpCode) -> TxnHeader {
    TxnHeader { client_id: SessionId(1), cxid: Xid(1), zxid: Zxid(zxid), time: 0, op }
}

fn create(database: &mut Database, zxid: i64, path: &str, data: usize) {
    let txn = Txn::Create(CreateTxn {
        path: path.to_owned(),
        data: Some(vec![0; data].into()),
        acl: Vec::new(),
        ephemeral: false,
        parent_cversion: -1,
    });
    let txn = LoggedTxn { header: header(zxid, OpCode::CREATE), txn, digest: None };
    assert!(matches!(database.apply(&txn, &mut |_, _| {}), Outcome::Stat(_)));
}

fn delete(database: &mut Database, zxid: i64, path: &str) {
    let txn = Txn::Delete(DeleteTxn { path: path.to_owned() });
    let txn = LoggedTxn { header: header(zxid, OpCode::DELETE), txn, digest: None };
    assert_eq!(database.apply(&txn, &mut |_, _| {}), Outcome::Done);
}

#[test]
fn large_data_ends_a_portion_early() {
    let mut database = Database::new(TreeConfig::default());
    drop_all(&mut database);
    for i in 0..10 {
        create(&mut database, i, &format!("/big{i}"), 600_000);
    }
    assert!(database.tree.dirty_bytes() > 6_000_000);
    let mut checkpoint = database.begin_checkpoint();
    let mut portions = 0;
    let mut all = 0;
    loop {
        let mut items = Vec::new();
        let more = database.checkpoint_chunk(&mut checkpoint, 1000, &mut items);
        checkpoint.run_unlocked();
        assert!(items.len() <= 3);
        all += items.len();
        portions += usize::from(!items.is_empty());
        if !more {
            break;
        }
    }
    drop(database.end_checkpoint(checkpoint, true));
    assert!(portions >= 4, "{portions} portions");
    assert_eq!(all, 11, "ten znodes and their parent");
}

/// Locks come and go all day: what waits for the next checkpoint is bounded by what there is.
#[test]
fn what_comes_and_goes_does_not_pile_up() {
    let mut database = Database::new(TreeConfig::default());
    drop_all(&mut database);
    for i in 0..1000 {
        create(&mut database, 2 * i, &format!("/lock-{i}"), 10);
        delete(&mut database, 2 * i + 1, &format!("/lock-{i}"));
    }
    assert!(database.tree.dirty_count() <= 2, "{}", database.tree.dirty_count());
    let mut checkpoint = database.begin_checkpoint();
    let mut items = Vec::new();
    while database.checkpoint_chunk(&mut checkpoint, 1000, &mut items) {}
    drop(database.end_checkpoint(checkpoint, true));
    assert!(matches!(&items[..], [CheckpointItem::PutZnode { path, .. }] if path == "/"));
}

/// A snapshot from the leader takes the tree's place while a checkpoint is being taken.
#[test]
fn a_checkpoint_of_a_tree_that_was_replaced_is_void() {
    let mut database = Database::new(TreeConfig::default());
    for i in 0..10 {
        create(&mut database, i, &format!("/old{i}"), 10);
    }
    let mut checkpoint = database.begin_checkpoint();
    let mut items = Vec::new();
    assert!(database.checkpoint_chunk(&mut checkpoint, 3, &mut items));
    let mut new = Database::new(TreeConfig::default());
    create(&mut new, 100, "/new", 10);
    let old = database.replace(new);
    assert!(old.tree.find("/old0").is_some() && database.tree.find("/old0").is_none());
    assert!(!database.has_begun(&checkpoint));
    items.clear();
    assert!(!database.checkpoint_chunk(&mut checkpoint, 1000, &mut items));
    assert!(items.is_empty());
    let dirty = database.tree.dirty_count();
    drop(database.end_checkpoint(checkpoint, false));
    assert_eq!(database.tree.dirty_count(), dirty, "changes of another tree");
    drop_all(&mut database);
}

#[test]
fn the_configuration_is_set_outside_the_digest() {
    let mut database = Database::new(TreeConfig::default());
    create(&mut database, 1, "/a", 10);
    let digest = database.tree.digest();
    database.set_config("server.1=a:1:2:participant\nversion=100000000", 1 << 32, 77);
    assert_eq!(database.tree.digest(), digest);
    let config = database.tree.find("/zookeeper/config").unwrap();
    assert_eq!(config.data(), Some(&b"server.1=a:1:2:participant\nversion=100000000"[..]));
    let stat = config.stat_persisted();
    assert_eq!((stat.mzxid, stat.mtime, stat.version), (1 << 32, 77, -1));
    assert!(database.tree.dirty_count() > 0, "it is stored");
    database.set_config("server.1=a:1:2:participant\nversion=100000000", 1 << 32, 78);
    assert_eq!(database.tree.find("/zookeeper/config").unwrap().stat_persisted().mtime, 77);
}

fn drop_all(database: &mut Database) {
    let mut checkpoint = database.begin_checkpoint();
    while database.checkpoint_chunk(&mut checkpoint, 1000, &mut Vec::new()) {}
    drop(database.end_checkpoint(checkpoint, true));
}

/// Members are compared by what they remember: at zxids of whole transactions, and never of a tree that
/// another one has replaced.
#[test]
fn digests_of_the_past_are_those_of_this_tree() {
    let mut database = Database::new(TreeConfig::default());
    let mut expected = Vec::new();
    for zxid in 1..=300 {
        create(&mut database, zxid, &format!("/n{zxid}"), 3);
        if zxid % DIGEST_LOG_INTERVAL == 0 {
            expected.push(ZxidDigest { zxid: Zxid(zxid), digest: database.tree.digest() });
        }
    }
    let log = |database: &Database| database.tree.digest_log().collect::<Vec<_>>();
    assert_eq!(log(&database), expected);
    assert_eq!(expected.len(), 2);
    let mut store = Store::default();
    checkpoint_all(&mut database, &mut store);
    let loaded = store.load(TreeConfig::default(), Zxid(300)).unwrap();
    assert_eq!(loaded.tree.digest(), database.tree.digest());
    assert_eq!(log(&loaded), []);
    drop(database.replace(loaded));
    create(&mut database, 384, "/later", 3);
    let now = ZxidDigest { zxid: Zxid(384), digest: database.tree.digest() };
    assert_eq!(log(&database), [now]);
}

fn checkpoint_all(database: &mut Database, store: &mut Store) {
    let mut checkpoint = database.begin_checkpoint();
    loop {
        let mut items = Vec::new();
        let more = database.checkpoint_chunk(&mut checkpoint, 1000, &mut items);
        checkpoint.run_unlocked();
        store.write(items);
        if !more {
            break;
        }
    }
    drop(database.end_checkpoint(checkpoint, true));
}
