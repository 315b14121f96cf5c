//! What one operation costs in the core: no sockets, no disk, one thread.
//!
//! `cargo run --release -p zk-processor --example node_bench [operations [only those with this name]]`

#![allow(clippy::disallowed_methods, reason = "it looks at its own time and arguments")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use zk_processor::{Action, Client, Flow, Node, NodeConfig, Now, Outbox};
use zk_proto::acl::Acl;
use zk_proto::connect::ConnectRequest;
use zk_proto::proto::{
    CreateRequest, ExistsRequest, GetDataRequest, RequestHeader, SetDataRequest,
};
use zk_proto::{Record, Request, ServerId, SessionId, Xid, Zxid};
use zk_session::{SessionConfig, first_id};
use zk_tree::{Database, TreeConfig};
use zk_zab::Token;

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ZNODES: usize = 1000;

/// Requests in one call, as a busy connection's task finds them.
const PIPELINE: usize = 128;

#[derive(Debug, Default)]
struct Sink(Mutex<BytesMut>);

#[derive(Debug)]
struct Handle(Arc<Sink>);

impl Outbox for Handle {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        write(&mut self.0.0.lock().expect("one thread"));
    }

    fn close(&self) {}

    fn resume(&self) {}
}

/// Time on a processor where Linux tells it, else what the clock says; in ns.
fn processor_ns(start: Instant) -> u128 {
    let schedule = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let own = schedule.split_whitespace().next().and_then(|text| text.parse().ok());
    own.unwrap_or_else(|| start.elapsed().as_nanos())
}

struct Bench {
    node: Node,
    client: Arc<Client>,
    sink: Arc<Sink>,
    last: Option<Token>,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let session = SessionConfig {
            tick_ms: 2000,
            min_timeout_ms: 4000,
            max_timeout_ms: 40_000,
            first_id: first_id(ServerId(1), 0),
        };
        let now = Now { mono_us: 0, wall_ms: 0 };
        let db = Database::new(TreeConfig::default());
        let node = Node::standalone(NodeConfig::new(session), db, now);
        let sink = Arc::new(Sink::default());
        let client = node.open("127.0.0.1".into(), Box::new(Handle(Arc::clone(&sink))), now);
        let mut bench = Self { node, client, sink, last: None, now };
        bench.serve(&mut VecDeque::from([connect_request()]));
        bench
    }

    /// Serves the frames and completes what they wrote. The bytes that came out.
    fn serve(&mut self, frames: &mut VecDeque<Bytes>) -> usize {
        while !frames.is_empty() {
            let last = &mut self.last;
            let served = self.node.on_frames(&self.client, frames, self.now, &mut |action| {
                *last = Some(token(&action));
            });
            assert!(!matches!(served.flow, Flow::Close(_)), "{served:?}");
            if let Some(token) = self.last.take() {
                self.now.mono_us += 100;
                self.node.on_persisted(token, self.now, &mut |_| {});
            }
        }
        let mut out = self.sink.0.lock().expect("one thread");
        let len = out.len();
        out.clear();
        len
    }

    fn run(&mut self, what: &str, operations: usize, mut request: impl FnMut(usize) -> Request) {
        if std::env::args().nth(2).is_some_and(|only| !what.contains(&only)) {
            return;
        }
        let frames: Vec<Bytes> = (0..PIPELINE * 8).map(|i| frame(&request(i))).collect();
        let rounds = operations / PIPELINE;
        let mut bytes = 0;
        let start = Instant::now();
        let begun = processor_ns(start);
        for round in 0..rounds {
            let from = round % 8 * PIPELINE;
            let mut batch = frames[from..from + PIPELINE].iter().cloned().collect();
            bytes += self.serve(&mut batch);
        }
        let count = rounds * PIPELINE;
        println!(
            "{what:28} {:6} ns per operation, {:5} bytes of replies each",
            (processor_ns(start) - begun) / count as u128,
            bytes / count
        );
    }
}

/// All that a standalone server does.
fn token(action: &Action) -> Token {
    match action {
        Action::Persist { token, .. } => *token,
        other => panic!("{other:?} of a standalone server"),
    }
}

fn connect_request() -> Bytes {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 40_000,
        session_id: SessionId(0),
        password: None,
        read_only: Some(false),
    };
    request.to_bytes()
}

fn frame(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    RequestHeader { xid: Xid(1), op: request.op() }.encode(&mut out);
    request.encode(&mut out);
    out.freeze()
}

fn path(i: usize) -> String {
    format!("/bench/node{:04}", i % ZNODES)
}

fn create(path: String, data: &Bytes) -> Request {
    Request::Create(CreateRequest { path, data: Some(data.clone()), acl: Acl::open(), flags: 0 })
}

/// Very many sessions expire at one tick, each with an ephemeral znode.
fn expiry(sessions: usize) {
    let mut bench = Bench::new();
    let data = Some(Bytes::new());
    let create = CreateRequest { path: "/e".into(), data, acl: Acl::open(), flags: 3 };
    for _ in 1..sessions {
        let handle = Box::new(Handle(Arc::clone(&bench.sink)));
        bench.client = bench.node.open("127.0.0.1".into(), handle, bench.now);
        bench.serve(&mut VecDeque::from([
            connect_request(),
            frame(&Request::Create2(create.clone())),
        ]));
        bench.node.on_closed(&bench.client);
    }
    let mut now = bench.now;
    now.mono_us += 60_000_000;
    let start = Instant::now();
    let mut last = None;
    bench.node.on_tick(now, &mut |action| {
        last = Some(token(&action));
    });
    let proposed = start.elapsed();
    bench.node.on_persisted(last.expect("something expires"), now, &mut |_| {});
    println!(
        "{sessions} sessions expire in {proposed:?}, and are gone after {:?}",
        start.elapsed()
    );
    assert_eq!(bench.node.status().sessions, 0);
}

fn main() {
    let operations =
        std::env::args().nth(1).map_or(2_000_000, |arg| arg.parse().expect("a number"));
    let mut bench = Bench::new();
    let small = Bytes::from(vec![b'x'; 100]);
    let large = Bytes::from(vec![b'x'; 1024]);
    let mut setup = VecDeque::from([frame(&create("/bench".into(), &small))]);
    setup.extend((0..ZNODES).map(|i| frame(&create(path(i), &small))));
    bench.serve(&mut setup);

    let get = |i| Request::GetData(GetDataRequest { path: path(i * 7), watch: false });
    bench.run("getData, 100 bytes", operations, get);
    bench.run("exists", operations, |i| {
        Request::Exists(ExistsRequest { path: path(i * 7), watch: false })
    });
    let set = |data: &Bytes| {
        let data = data.clone();
        move |i: usize| {
            let data = Some(data.clone());
            Request::SetData(SetDataRequest { path: path(i * 7), data, version: -1 })
        }
    };
    bench.run("setData, 100 bytes", operations, set(&small));
    bench.run("setData, 1 KiB", operations, set(&large));
    bench.run("getData, 1 KiB", operations, get);
    bench.run("setData and getData in turns", operations, |i| {
        if i % 2 == 0 { get(i) } else { set(&small)(i) }
    });
    bench.run("create of what exists", operations / 4, |i| create(path(i), &small));
    bench.run("ping", operations, |_| Request::Ping);
    expiry(100_000);
    let status = bench.node.status();
    println!("{status:?}");
    assert_eq!(status.outstanding_changes, 0);
}
