//! The tree against Apache ZooKeeper's own: `testdata/apache.txt` holds watches and transactions,
//! and what Apache 3.9.5's `DataTree` made of each.
//!
//! To make it anew, with Apache's jars in `$LIB`:
//!
//! ```text
//! cargo test --release -p zk-tree --test apache -- --ignored --nocapture | grep -E '^(watch|txn)' > script
//! cd crates/zk-tree/testdata && javac -cp "$LIB/*" -d /tmp ApacheDataTree.java
//! java -cp "/tmp:$LIB/*" -Dzookeeper.extendedTypesEnabled=true ApacheDataTree < script > apache.txt
//! ```

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use common::{Model, one_of, random_path, random_txn};
use zk_proto::acl::Acl;
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::data::Stat;
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode};
use zk_testkit::Prng;
use zk_tree::{Database, Outcome, TreeConfig, WatchKind, WatcherId};

const GOLDEN: &str = include_str!("../testdata/apache.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings take everything");
        text
    })
}

fn unhex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn acl_text(acls: &[Acl]) -> String {
    let text = |acl: &Acl| format!(",{}:{}:{}", acl.perms.0, acl.id.scheme, acl.id.id);
    "acl".to_owned() + &acls.iter().map(text).collect::<String>()
}

/// Apache answers a plain create without a stat.
fn outcome_text(op: OpCode, txn: &Txn, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done | Outcome::Error(ErrorCode::OK) => "ok".into(),
        Outcome::Stat(_) if op == OpCode::CREATE => "ok".into(),
        Outcome::Stat(stat) => {
            let &Stat { czxid, mzxid, ctime, mtime, version, cversion, aversion, .. } = stat;
            let &Stat { ephemeral_owner, data_length, num_children, pzxid, .. } = stat;
            format!(
                "stat {czxid} {mzxid} {ctime} {mtime} {version} {cversion} {aversion} {ephemeral_owner} \
                 {data_length} {num_children} {pzxid}"
            )
        }
        Outcome::Error(code) => format!("err {}", code.0),
        Outcome::Multi(outcomes) => {
            let Txn::Multi(txns) = txn else { panic!("{txn:?} has {outcome:?}") };
            let texts = txns.iter().zip(outcomes).map(|((op, txn), o)| outcome_text(*op, txn, o));
            texts.fold("multi".to_owned(), |text, sub| text + "; " + &sub)
        }
    }
}

fn event_name(event_type: EventType) -> &'static str {
    match event_type {
        EventType::NodeCreated => "NodeCreated",
        EventType::NodeDeleted => "NodeDeleted",
        EventType::NodeDataChanged => "NodeDataChanged",
        EventType::NodeChildrenChanged => "NodeChildrenChanged",
    }
}

fn run_watch(database: &Database, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let kind = match words[1] {
        "data" => WatchKind::Data,
        "child" => WatchKind::Child,
        "persistent" => WatchKind::Persistent,
        "recursive" => WatchKind::PersistentRecursive,
        other => panic!("{other}"),
    };
    database.watches.add(words[3], WatcherId(words[2].parse().expect("an id")), kind);
}

fn run_txn(database: &mut Database, line: &str) -> Vec<String> {
    let entry = unhex(line.split_once(' ').expect("two words").1);
    let txn = LoggedTxn::decode(&entry).expect("a transaction");
    let mut triggers: Vec<(String, BTreeSet<u64>)> = Vec::new();
    let outcome = database.apply(&txn, &mut |watcher, event| {
        let text = format!(
            "event {} {} {}",
            event_name(event.event_type),
            event.path,
            acl_text(event.acl)
        );
        let same =
            triggers.last_mut().filter(|(last, ids)| *last == text && !ids.contains(&watcher.0));
        match same {
            Some((_, ids)) => {
                ids.insert(watcher.0);
            }
            None => triggers.push((text, BTreeSet::from([watcher.0]))),
        }
    });
    let mut events: Vec<String> = triggers
        .iter()
        .map(|(text, ids)| format!("{text} {:?}", ids.iter().collect::<Vec<_>>()))
        .collect();
    if txn.header.op == OpCode::CLOSE_SESSION {
        events.sort_unstable();
    }
    let tree = &database.tree;
    let mut lines = vec![outcome_text(txn.header.op, &txn.txn, &outcome)];
    lines.append(&mut events);
    lines.push(format!(
        "tree {} {} {} {} {} {}",
        tree.digest(),
        tree.node_count(),
        tree.ephemerals_count(),
        tree.all_children_number("/a").unwrap_or(0),
        tree.last_zxid().0,
        database.watches.count(),
    ));
    lines
}

fn dump(database: &Database) -> Vec<String> {
    let mut lines: Vec<(Vec<String>, String)> = Vec::new();
    for (path, node) in database.tree.iter() {
        let data = node.data().map_or_else(|| "null".into(), |data| format!("hex{}", hex(data)));
        let s = node.stat_persisted();
        let text = format!(
            "node {path} {data} {} {} {} {} {} {} {} {} {} {}",
            acl_text(node.acl()),
            s.czxid,
            s.mzxid,
            s.ctime,
            s.mtime,
            s.version,
            s.cversion,
            s.aversion,
            s.ephemeral_owner,
            s.pzxid,
        );
        lines.push((
            path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            text,
        ));
    }
    lines.sort_unstable();
    lines.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn the_tree_does_what_apaches_does() {
    let config = TreeConfig { extended_types: ExtendedTypes::Enabled, digest_enabled: true };
    let mut database = Database::new(config);
    let mut lines = GOLDEN.lines().enumerate().peekable();
    let (mut txns, mut events) = (0, 0);
    while let Some((number, line)) = lines.next_if(|(_, line)| !line.starts_with("node ")) {
        if line.starts_with("watch ") {
            run_watch(&database, line);
            continue;
        }
        for ours in run_txn(&mut database, line) {
            let (_, theirs) = lines.next().expect("an outcome and the tree's totals");
            assert_eq!(ours, theirs, "line {}: {line}", number + 1);
            events += usize::from(theirs.starts_with("event "));
        }
        txns += 1;
    }
    let theirs: Vec<&str> = lines.map(|(_, line)| line).collect();
    assert_eq!(dump(&database), theirs);
    assert!(txns >= 500 && events > 150 && theirs.len() > 10, "{txns} {events} {}", theirs.len());
}

/// Prints a script of what both can do: Apache's tree does not survive malformed paths, and keeps
/// orphans when a znode with children is deleted.
#[test]
#[ignore = "makes the script that Apache runs"]
fn prints_a_script() {
    let random = &mut Prng::new(5);
    let mut model = Model::new(ExtendedTypes::Enabled);
    let mut zxid = 1;
    while zxid <= 600 {
        for _ in 0..random.below(3) {
            let path = random_path(random);
            let kind = one_of(random, &["data", "child", "persistent", "recursive"]);
            if zk_proto::path::is_valid(&path)
                && (kind != "child" || model.nodes.contains_key(&path))
            {
                println!("watch {kind} {} {path}", random.below(9));
            }
        }
        let txn = random_txn(random, zxid);
        let is_check = matches!(txn.txn, Txn::Check(_));
        let mut then = model.clone();
        then.apply(&txn);
        let mut entry = BytesMut::new();
        txn.encode(&mut entry);
        // A few large ones are enough.
        let is_large = entry.len() > 500 && !random.chance(7);
        if then.strange || is_check || is_large {
            continue;
        }
        model = then;
        zxid += 1;
        println!("txn {}", hex(&entry));
    }
}
