//! Random transactions and watches: the database against the model, after every step.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

mod common;

use std::cell::Cell;

use common::{Heard, Model, one_of, random_path, random_txn};
use zk_proto::create_mode::{ExtendedTypes, OwnerKind};
use zk_proto::txn::LoggedTxn;
use zk_proto::watch::WatcherType;
use zk_proto::{SessionId, Zxid};
use zk_testkit::{Prng, property_of};
use zk_tree::{Database, Outcome, TreeConfig, WatchKind, WatcherId};

/// Applies, and groups what was heard by trigger.
fn apply(database: &mut Database, txn: &LoggedTxn) -> (Outcome, Vec<Heard>) {
    let mut heard: Vec<Heard> = Vec::new();
    let outcome = database.apply(txn, &mut |watcher, event| {
        assert_eq!(event.zxid, txn.header.zxid);
        let same = heard.last_mut().filter(|last| {
            (last.event_type, last.path.as_str(), &last.acl[..])
                == (event.event_type, event.path, event.acl)
                && !last.watchers.contains(&watcher)
        });
        match same {
            Some(last) => last.watchers.push(watcher),
            None => heard.push(Heard {
                event_type: event.event_type,
                path: event.path.to_owned(),
                acl: event.acl.to_vec(),
                watchers: vec![watcher],
            }),
        }
    });
    for trigger in &mut heard {
        trigger.watchers.sort_unstable();
    }
    (outcome, heard)
}

/// Neighbouring triggers that differ in nothing but who hears are one in [`apply`]'s eyes.
fn merged(heard: Vec<Heard>) -> Vec<Heard> {
    let mut merged: Vec<Heard> = Vec::new();
    for trigger in heard {
        match merged.last_mut() {
            Some(last)
                if (last.event_type, &last.path, &last.acl)
                    == (trigger.event_type, &trigger.path, &trigger.acl)
                    && trigger.watchers.iter().all(|id| !last.watchers.contains(id)) =>
            {
                last.watchers.extend(trigger.watchers);
                last.watchers.sort_unstable();
            }
            Some(_) | None => merged.push(trigger),
        }
    }
    merged
}

fn assert_same(database: &Database, model: &Model) {
    let tree = &database.tree;
    assert_eq!(tree.node_count(), model.nodes.len() + 1);
    assert_eq!(tree.last_zxid(), Zxid(model.zxid));
    assert_eq!(tree.sessions(), &model.sessions);
    assert_eq!(tree.digest(), model.digest());
    let size: usize = model
        .nodes
        .iter()
        .map(|(path, node)| path.len() + node.data.as_ref().map_or(0, Vec::len))
        .sum();
    assert_eq!(tree.approximate_data_size(), size as u64);
    for (path, expected) in &model.nodes {
        let node = tree.find(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(node.data(), expected.data.as_deref(), "{path}");
        assert_eq!(node.acl(), &expected.acl[..], "{path}");
        assert_eq!(node.stat_persisted(), expected.stat, "{path}");
        assert_eq!(node.stat(), model.stat(path), "{path}");
        let mut children: Vec<&str> = node.children().collect();
        children.sort_unstable();
        assert_eq!(children, model.children(path), "{path}");
    }
    let mut paths: Vec<String> = tree.iter().map(|(path, _)| path).collect();
    paths.sort_unstable();
    assert!(paths.iter().eq(model.nodes.keys()));
    let of_kind = |wanted: fn(OwnerKind) -> bool| -> Vec<&String> {
        let nodes = model.nodes.iter();
        nodes
            .filter(|(_, node)| wanted(model.types.kind(node.stat.ephemeral_owner)))
            .map(|(path, _)| path)
            .collect()
    };
    let mut containers: Vec<String> = tree.containers().collect();
    containers.sort_unstable();
    assert!(containers.iter().eq(of_kind(|kind| kind == OwnerKind::Container)));
    let mut ttls: Vec<String> = tree.ttls().collect();
    ttls.sort_unstable();
    assert!(ttls.iter().eq(of_kind(|kind| matches!(kind, OwnerKind::Ttl(_)))));
    let ephemerals = of_kind(|kind| matches!(kind, OwnerKind::Session(_)));
    assert_eq!(tree.ephemerals_count(), ephemerals.len());
    let mut owned = 0;
    for session in tree.ephemeral_sessions() {
        let paths: Vec<String> = tree.ephemerals(session).collect();
        assert!(!paths.is_empty());
        assert_eq!(paths, model.ephemerals(session));
        owned += paths.len();
    }
    assert_eq!(owned, ephemerals.len());
    assert!(tree.quotas().map(|quota| quota.quota_path).eq(model.quotas.iter().cloned()));
    let mut acls: Vec<_> = model.nodes.values().map(|node| &node.acl).collect();
    acls.sort_unstable_by_key(|acl| format!("{acl:?}"));
    acls.dedup();
    assert_eq!(tree.acl_count(), acls.len());
}

const KINDS: [WatchKind; 4] =
    [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive];
const TYPES: [WatcherType; 5] = [
    WatcherType::Children,
    WatcherType::Data,
    WatcherType::Any,
    WatcherType::Persistent,
    WatcherType::PersistentRecursive,
];

fn change_watches(random: &mut Prng, database: &Database, model: &mut Model) {
    let id = WatcherId(random.below(12));
    let path = random_path(random);
    match random.below(20) {
        0 => {
            database.watches.remove_watcher(id);
            model.forget(id);
        }
        1..=3 => {
            let watcher_type = one_of(random, &TYPES);
            let removed = database.watches.remove(&path, id, watcher_type);
            assert_eq!(removed, model.unwatch(&path, id, watcher_type));
        }
        _ => {
            let kind = one_of(random, &KINDS);
            database.watches.add(&path, id, kind);
            model.watch(&path, id, kind);
        }
    }
    assert_eq!(database.watches.count(), model.watch_count());
    assert_eq!(database.watches.by_path(), model.data_watches_by_path());
    for watcher_type in TYPES {
        let found = database.watches.contains(&path, id, watcher_type);
        assert_eq!(found, model.is_watched(&path, id, watcher_type));
    }
}

#[test]
fn the_database_does_what_the_model_does() {
    let triggers = Cell::new(0);
    property_of("the database does what the model does", 24, |random| {
        let extended_types = one_of(random, &[ExtendedTypes::Disabled, ExtendedTypes::Enabled]);
        let config = TreeConfig { extended_types, digest_enabled: true };
        let mut database = Database::with_seed(config, random.next_u64());
        let mut model = Model::new(extended_types);
        for zxid in 1..1500 {
            for _ in 0..random.below(3) {
                change_watches(random, &database, &mut model);
            }
            // Replays and gaps, too.
            let zxid =
                if random.chance(5) { zxid - random.below(zxid as u64) as i64 } else { zxid };
            let txn = random_txn(random, zxid);
            model.heard.clear();
            model.strange = false;
            let expected = model.apply(&txn);
            let (outcome, mut heard) = apply(&mut database, &txn);
            assert_eq!(outcome, expected, "{txn:?}");
            let mut expected = merged(std::mem::take(&mut model.heard));
            triggers.set(triggers.get() + expected.len());
            if model.strange {
                // In which order a subtree goes is not promised, but for the leaves first.
                heard = one_by_one(heard);
                expected = one_by_one(expected);
            }
            assert_eq!(heard, expected, "{txn:?}");
            if zxid % 10 == 0 {
                assert_same(&database, &model);
            }
        }
        assert_same(&database, &model);
    });
    assert!(triggers.get() > 300, "only {} triggers", triggers.get());
}

/// Without order and without groups.
fn one_by_one(heard: Vec<Heard>) -> Vec<Heard> {
    let mut single: Vec<Heard> = heard
        .into_iter()
        .flat_map(|trigger| {
            let watchers = trigger.watchers.clone();
            watchers.into_iter().map(move |id| Heard { watchers: vec![id], ..trigger.clone() })
        })
        .collect();
    single.sort_unstable_by_key(|trigger| format!("{trigger:?}"));
    single
}

#[test]
fn paths_that_do_not_exist_are_not_found() {
    let mut database = Database::new(TreeConfig::default());
    let random = &mut Prng::new(1);
    let mut model = Model::new(ExtendedTypes::Disabled);
    for zxid in 1..200 {
        let txn = random_txn(random, zxid);
        model.apply(&txn);
        database.apply(&txn, &mut |_, _| {});
    }
    for _ in 0..20_000 {
        let path = random_path(random);
        assert_eq!(
            database.tree.find(&path).is_some(),
            path.is_empty() || model.nodes.contains_key(&path)
        );
        let count = database.tree.all_children_number(&path);
        let below = if path == "/" { path.clone() } else { format!("{path}/") };
        let expected = model
            .nodes
            .keys()
            .filter(|it| it.starts_with(&below) && (path.is_empty() || *it != "/"));
        let exists = path.is_empty() || model.nodes.contains_key(&path);
        assert_eq!(count, exists.then(|| expected.count() as i32), "{path:?}");
    }
    assert!(database.tree.ephemerals(SessionId(99)).next().is_none());
}
