//! Several threads at once, as the shell has them. What is asked is whether they end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use zk_processor::{Action, Client, Flow, Node, Now, Outbox};
use zk_proto::proto::RequestHeader;
use zk_proto::{Record, Request, SessionId, Xid};
use zk_tree::Database;
use zk_zab::Token;

use crate::harness::{START, config, connect_request, tree_config};
use crate::script::request;

#[derive(Debug, Default)]
struct Sink {
    bytes: Mutex<BytesMut>,
    resumed: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Handle(Arc<Sink>);

impl Outbox for Handle {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        let mut bytes = self.0.bytes.lock().unwrap();
        bytes.clear();
        write(&mut bytes);
    }

    fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    fn resume(&self) {
        self.0.resumed.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Store {
    last: Mutex<Option<Token>>,
    clock_us: AtomicU64,
}

impl Store {
    fn push(&self, action: Action) {
        let Action::Persist { token, .. } = action else {
            panic!("{action:?} of a standalone server")
        };
        let mut last = self.last.lock().unwrap();
        assert!(last.is_none_or(|last| last < token), "writes are handed out of order");
        *last = Some(token);
    }

    fn now(&self) -> Now {
        let us = self.clock_us.fetch_add(50, Ordering::Relaxed);
        let us = i64::try_from(us).unwrap();
        Now { mono_us: START.mono_us + us, wall_ms: START.wall_ms + us / 1000 }
    }
}

const ASKED: &[&str] = &[
    "create /x/a eph",
    "delete /x/a",
    "set /x y",
    "get /x w",
    "ls /x w",
    "exists /x/a w",
    "sync /",
    "addwatch / recursive",
    "multi set /x a | create /x/b eph | delete /x/b",
    "ping",
    "get /x",
    "create /x/s ephseq",
    "setwatches zxid=0 data=/x exist=/x child=/x",
    "count /",
    "rmwatch / recursive",
];

fn frames(from: usize, count: usize) -> VecDeque<Bytes> {
    (from..from + count)
        .map(|number| {
            let request = request(ASKED[number * 7 % ASKED.len()]);
            let mut frame = BytesMut::new();
            let xid = match &request {
                Request::Ping => Xid::PING,
                _ => Xid(1), // any number
            };
            RequestHeader { xid, op: request.op() }.encode(&mut frame);
            request.encode(&mut frame);
            frame.freeze()
        })
        .collect()
}

fn talk(node: &Node, store: &Store, rounds: usize, seed: usize) {
    for round in 0..rounds {
        let sink = Arc::new(Sink::default());
        let handle = Box::new(Handle(Arc::clone(&sink)));
        let client: Arc<Client> = node.open("127.0.0.1".into(), handle, store.now());
        let mut queue = VecDeque::from([connect_request(SessionId(0)).to_bytes()]);
        for batch in 0..20 {
            queue.append(&mut frames(seed + round * 31 + batch * 17, 8));
            while !queue.is_empty() && !sink.closed.load(Ordering::Acquire) {
                let served = node.on_frames(&client, &mut queue, store.now(), &mut |action| {
                    store.push(action);
                });
                match served.flow {
                    Flow::Continue => {}
                    Flow::Close(why) => panic!("{why}"),
                    Flow::Wait => {
                        while !sink.resumed.swap(false, Ordering::AcqRel)
                            && !sink.closed.load(Ordering::Acquire)
                        {
                            std::thread::yield_now();
                        }
                    }
                }
            }
        }
        node.on_closed(&client);
    }
}

#[test]
fn many_threads_end() {
    let config = zk_processor::NodeConfig { global_outstanding_limit: 20, ..config() };
    let db = Database::new(tree_config(&config));
    let node = Node::standalone(config, db, START);
    let store = Store::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talkers: Vec<_> = (0..3)
            .map(|seed| {
                let (node, store) = (&node, &store);
                scope.spawn(move || talk(node, store, 40, seed * 1000))
            })
            .collect();
        scope.spawn(|| {
            // The store thread; it stops when nothing can come any more.
            loop {
                let over = done.load(Ordering::Acquire);
                let token = store.last.lock().unwrap().take();
                match token {
                    Some(token) => {
                        node.on_persisted(token, store.now(), &mut |action| store.push(action));
                    }
                    None if over => return,
                    None => std::thread::yield_now(),
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                node.on_tick(store.now(), &mut |action| store.push(action));
                assert!(node.status().connections <= 3);
                drop(node.known_sessions());
                for client in node.clients() {
                    assert!(client.info().timeout_ms <= 10_000);
                }
                node.read(|db| db.watches.summary());
                std::thread::yield_now();
            }
        });
        for talker in talkers {
            talker.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let status = node.status();
    assert_eq!((status.connections, status.outstanding, status.outstanding_changes), (0, 0, 0));
    assert_eq!(node.stats().digest_mismatches.load(Ordering::Relaxed), 0);
    assert_eq!(node.read(|db| db.watches.count()), 0);
    assert!(status.zxid.0 > 1000);
}
