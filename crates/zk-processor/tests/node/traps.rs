//! Traps that other servers of this protocol fell into, and some of our own.

use bytes::{BufMut, Bytes, BytesMut};
use zk_processor::NodeConfig;
use zk_proto::acl::Acl;
use zk_proto::create_mode::{CONTAINER_OWNER, ExtendedTypes};
use zk_proto::data::{Stat, StatPersisted};
use zk_proto::multi::{MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::proto::{Create2Response, CreateResponse, ExistsRequest, GetDataRequest};
use zk_proto::txn::Txn;
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Xid, Zxid};
use zk_session::first_id;
use zk_tree::Database;

use crate::harness::{Message, START, World, config, connect_request, first_session, tree_config};
use crate::script::request;

/// A world with one connection, `a`.
fn world_with(config: NodeConfig) -> World {
    let mut world = World::new(config);
    world.connect("a");
    world.persist_all();
    world.take("a");
    world
}

fn world() -> World {
    world_with(config())
}

fn stat(world: &mut World, path: &str) -> Stat {
    let exists = Request::Exists(ExistsRequest { path: path.into(), watch: false });
    let (header, body) = world.ask("a", &exists);
    assert_eq!(header.err, ErrorCode::OK, "{path}");
    Stat::decode(&body).unwrap()
}

fn ok(world: &mut World, text: &str) -> Bytes {
    let (header, body) = world.ask("a", &request(text));
    assert_eq!(header.err, ErrorCode::OK, "{text}");
    body
}

/// Paths of a megabyte each: the request is short, the reply would be as long as whoever asks likes.
#[test]
fn a_list_of_names_has_an_end() {
    let mut world = world();
    let parent = format!("/{}", "a".repeat(1 << 20));
    ok(&mut world, &format!("create {parent}"));
    for i in 0..65 {
        ok(&mut world, &format!("create {parent}/{i} eph"));
    }
    let all = request("ephemerals /");
    assert_eq!(world.ask("a", &all).0.err, ErrorCode::MARSHALLING_ERROR);
    for i in 0..3 {
        ok(&mut world, &format!("delete {parent}/{i}"));
    }
    let (header, body) = world.ask("a", &all);
    assert_eq!(header.err, ErrorCode::OK);
    assert!(body.len() > 62 << 20, "{} bytes", body.len());
    world.check();
}

#[test]
fn a_reconnect_keeps_the_session_or_says_that_it_is_gone() {
    let mut world = world();
    let session = world.connection("a").session;
    ok(&mut world, "create /e eph");
    world.lose("a");
    world.reconnect("b", session);
    assert!(
        matches!(&world.take("b")[..], [Message::Connected(response)] if response.session_id == session)
    );
    world.send("b", &Request::CloseSession);
    world.persist_all();
    world.reconnect("c", session);
    assert!(matches!(&world.take("c")[..], [Message::Expired(_), Message::Closed]));
    world.check();
}

/// What is on the disk of a server that ends here.
fn restarted(world: &World, config: NodeConfig) -> World {
    let tree = tree_config(&config);
    let copy = || {
        let mut copy = Database::new(tree);
        for txn in &world.log {
            copy.apply(txn, &mut |_, _| {});
        }
        copy
    };
    World::with_database(config, copy(), copy())
}

#[test]
fn a_start_gives_every_session_its_full_timeout() {
    let mut world = world();
    let session = world.connection("a").session;
    ok(&mut world, "create /e eph");
    let mut again = restarted(&world, config());
    again.pass(10_000);
    again.persist_all();
    assert!(again.node.read(|db| db.tree.find("/e").is_some()));
    again.reconnect("a", session);
    assert!(matches!(again.take("a")[..], [Message::Connected(_)]));
    again.lose("a");
    again.pass(12_000);
    again.persist_all();
    assert!(again.node.read(|db| db.tree.find("/e").is_none()), "it never expires");
    again.check();
}

#[test]
fn session_ids_go_on_after_a_start_within_the_same_millisecond() {
    let world = world();
    let session = world.connection("a").session;
    assert_eq!(session, first_session());
    let mut again = restarted(&world, config());
    again.connect("b");
    again.persist_all();
    // Those behind it may have been given, too, to sessions that are closed.
    assert_eq!(again.connection("b").session, SessionId((session.0 | 0xffff) + 1));
}

#[test]
fn poison_requests_are_answered_and_can_be_replayed() {
    let mut world = world();
    // kazoo sends an empty multi; others send operations that cannot be.
    let body = ok(&mut world, "multi");
    assert_eq!(MultiResponse::decode(&body), Ok(MultiResponse(Vec::new())));
    for op in [0, 4, 8, 9, 14, 16, 20, 22, 100, -1, -10, -11, 99] {
        let mut body = BytesMut::new();
        body.put_i32(op);
        body.put_slice(&[0, 0xff, 0xff, 0xff, 0xff]);
        body.put_slice(&[0; 40]);
        world.send_raw("a", OpCode::MULTI, &body);
        world.persist_all();
        assert_eq!(world.reply("a").0.err, ErrorCode::MARSHALLING_ERROR, "{op}");
    }
    // The harness applied all of it to a second database; and from the beginning once more:
    restarted(&world, config()).connect("a");
    world.check();
}

/// What upstream's server says to the same bytes: it takes a zxid when it has read the body.
#[test]
fn what_cannot_be_read_has_a_zxid_only_where_upstream_gives_it_one() {
    const NULL: &[u8] = &[0xff; 4];
    const OPEN: &[u8] = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";
    const PATH: &[u8] = b"\0\0\0\x02/a";
    const ZERO: &[u8] = &[0; 4];
    const CREATE: &[u8] = b"\0\0\0\x01\0\xff\xff\xff\xff";
    const END: &[u8] = b"\xff\xff\xff\xff\x01\xff\xff\xff\xff";
    let marshalling = ErrorCode::MARSHALLING_ERROR;
    let mut world = world();
    ok(&mut world, "create /n");
    for (name, op, body, err, has_zxid) in [
        ("cut", OpCode::CREATE, vec![PATH], marshalling, false),
        ("null path", OpCode::CREATE, vec![NULL, NULL, OPEN, ZERO], marshalling, true),
        ("cut", OpCode::DELETE, vec![PATH], marshalling, false),
        ("null path", OpCode::DELETE, vec![NULL, ZERO], marshalling, true),
        ("cut", OpCode::SET_DATA, vec![PATH, NULL], marshalling, false),
        ("null path", OpCode::SET_DATA, vec![NULL, NULL, ZERO], ErrorCode::BAD_ARGUMENTS, true),
        ("null path", OpCode::SET_ACL, vec![NULL, OPEN, ZERO], ErrorCode::BAD_ARGUMENTS, true),
        ("cut", OpCode::MULTI, vec![CREATE, PATH], marshalling, true),
        ("null ACL", OpCode::MULTI, vec![CREATE, PATH, NULL, NULL, ZERO, END], marshalling, false),
        (
            "flag",
            OpCode::MULTI,
            vec![CREATE, PATH, NULL, OPEN, &[0, 0, 0, 5], END],
            marshalling,
            true,
        ),
        (
            "mode",
            OpCode::MULTI,
            vec![CREATE, PATH, NULL, NULL, &[0, 0, 0, 9], END],
            marshalling,
            true,
        ),
    ] {
        let before = ask_for_zxid(&mut world);
        world.send_raw("a", op, &body.concat());
        world.persist_all();
        let (header, rest) = world.reply("a");
        assert_eq!((header.err, rest.len()), (err, 0), "{op}: {name}");
        let after = Zxid(before.0 + i64::from(has_zxid));
        assert_eq!((header.zxid, ask_for_zxid(&mut world)), (after, after), "{op}: {name}");
    }
    world.check();
}

fn ask_for_zxid(world: &mut World) -> Zxid {
    let (header, _) = world.ask("a", &request("exists /"));
    header.zxid
}

#[test]
fn an_auth_packet_without_a_scheme_fails() {
    let mut world = world();
    world.send_raw("a", OpCode::AUTH, b"\0\0\0\0\xff\xff\xff\xff\0\0\0\x04u1:p");
    assert!(matches!(
        &world.take("a")[..],
        [Message::Reply { header, .. }, Message::Closed] if header.err == ErrorCode::AUTH_FAILED
    ));
}

#[test]
fn the_ttl_at_the_end_of_a_create_is_read() {
    let mut world = world_with(NodeConfig { extended_types: ExtendedTypes::Enabled, ..config() });
    let ttl = request("createTTL /t x ttl=123456789");
    world.send_all("a", &[ttl, request("get /t")]);
    world.persist_all();
    assert_eq!(world.take("a").len(), 2, "the stream is out of step");
    let txn = world.log.iter().find_map(|txn| match &txn.txn {
        Txn::CreateTtl(txn) => Some(txn.clone()),
        _ => None, // others
    });
    assert_eq!(txn.unwrap().ttl, 123_456_789);
}

#[test]
fn create2_does_what_create_does_and_says_more() {
    let mut world = world();
    let plain = CreateResponse::decode(&ok(&mut world, "create /a x")).unwrap();
    let more = Create2Response::decode(&ok(&mut world, "create2 /b x")).unwrap();
    assert_eq!((plain.path.as_str(), more.path.as_str()), ("/a", "/b"));
    assert_eq!(more.stat, stat(&mut world, "/b"));
    assert_eq!(stat(&mut world, "/a").data_length, more.stat.data_length);
}

#[test]
fn a_parents_stat_changes_with_its_children_and_not_with_their_data() {
    let mut world = world();
    ok(&mut world, "create /p x");
    let empty = stat(&mut world, "/p");
    ok(&mut world, "create /p/c x");
    let created = stat(&mut world, "/p");
    assert_eq!((created.cversion, created.num_children), (1, 1));
    assert_eq!(created.pzxid, empty.pzxid + 1);
    assert_eq!((created.version, created.mzxid, created.mtime), (0, empty.mzxid, empty.mtime));
    ok(&mut world, "set /p/c y");
    ok(&mut world, "setacl /p/c");
    assert_eq!(stat(&mut world, "/p"), created);
    ok(&mut world, "delete /p/c");
    let deleted = stat(&mut world, "/p");
    assert_eq!((deleted.cversion, deleted.num_children), (2, 0));
    assert_eq!(deleted.pzxid, created.pzxid + 3);
}

#[test]
fn sequential_names_count_all_creates() {
    let mut world = world();
    ok(&mut world, "create /q");
    ok(&mut world, "create /q/plain");
    ok(&mut world, "delete /q/plain");
    let name = |body| CreateResponse::decode(&body).unwrap().path;
    assert_eq!(name(ok(&mut world, "create /q/s seq")), "/q/s0000000001");
    ok(&mut world, "delete /q/s0000000001");
    assert_eq!(name(ok(&mut world, "create /q/other ephseq")), "/q/other0000000002");
}

#[test]
fn watches_on_children_do_not_hear_of_their_data() {
    let mut world = world();
    ok(&mut world, "create /p");
    ok(&mut world, "create /p/c");
    ok(&mut world, "ls /p w");
    ok(&mut world, "addwatch /p persistent");
    ok(&mut world, "set /p/c x"); // the reply is the only message
}

#[test]
fn watches_go_with_their_connection_and_are_counted_right() {
    let mut world = world();
    let count =
        |world: &World| world.node.read(|db| (db.watches.count(), db.watches.summary().watches));
    for text in ["addwatch /p persistent", "addwatch /p recursive", "addwatch /q persistent"] {
        ok(&mut world, text);
    }
    assert_eq!(world.ask_err("a", &request("exists /p w")), ErrorCode::NO_NODE);
    assert_eq!(count(&world), (4, 2));
    ok(&mut world, "rmwatch /p any");
    assert_eq!(count(&world), (2, 1));
    assert_eq!(world.ask_err("a", &request("rmwatch /p any")), ErrorCode::NO_WATCHER);
    assert_eq!(count(&world), (2, 1));
    let session = world.connection("a").session;
    // Moved: the old connection's watches are not the new one's.
    world.reconnect("b", session);
    assert_eq!(count(&world), (0, 0));
    world.take("b");
    assert_eq!(world.ask_err("b", &request("addwatch /r recursive")), ErrorCode::OK);
    // Expired while connected.
    world.pass(14_000);
    world.persist_all();
    assert_eq!(count(&world), (0, 0));
    world.check();
}

#[test]
fn nothing_of_a_session_follows_its_end() {
    let mut world = world();
    let requests =
        ["create /e1 eph", "close", "create /e2 eph", "create /p", "get /e1"].map(request);
    world.send_all("a", &requests);
    world.send("a", &request("create /e3 eph"));
    world.persist_all();
    let replies = world.take("a");
    assert!(
        matches!(
            &replies[..],
            [
                Message::Reply { op: OpCode::CREATE, .. },
                Message::Reply { op: OpCode::CLOSE_SESSION, .. },
                Message::Closed
            ]
        ),
        "{replies:?}"
    );
    assert_eq!(world.node.read(|db| (db.tree.node_count(), db.tree.ephemerals_count())), (5, 0));
    world.check();
}

#[test]
fn errors_of_a_multi_are_in_its_results() {
    let mut world = world();
    let body = ok(&mut world, "multi create /a | delete /x | create /b");
    let errors = [ErrorCode::OK, ErrorCode::NO_NODE, ErrorCode::RUNTIME_INCONSISTENCY];
    assert_eq!(
        MultiResponse::decode(&body),
        Ok(MultiResponse(errors.map(MultiResult::Error).to_vec()))
    );
}

#[test]
fn timeouts_are_between_two_and_twenty_ticks() {
    let mut world = World::new(config());
    for (asked, given) in
        [(0, 4000), (-1, 4000), (4000, 4000), (30_000, 30_000), (i32::MAX, 40_000)]
    {
        let name = asked.to_string();
        world.open(&name, "127.0.0.1");
        let request = zk_proto::connect::ConnectRequest {
            timeout_ms: asked,
            ..connect_request(SessionId(0))
        };
        world.send_frame(&name, request.to_bytes());
        world.persist_all();
        assert!(
            matches!(&world.take(&name)[..], [Message::Connected(response)] if response.timeout_ms == given)
        );
    }
}

#[test]
fn a_read_does_not_wait_for_other_sessions() {
    let mut world = world();
    world.connect("b");
    world.persist_all();
    world.take("b");
    world.send("a", &request("create /x"));
    world.send("b", &request("get /x"));
    assert_eq!(world.reply("b").0.err, ErrorCode::NO_NODE);
    world.send("a", &request("get /x"));
    assert!(world.take("a").is_empty(), "it did not wait for its own");
    world.persist_all();
    assert_eq!(world.take("a").len(), 2);
}

#[test]
fn zxids_go_on_above_those_of_imported_data() {
    let high = Zxid(0x2a_0000_1234);
    let session = SessionId(0x0300_0000_0000_0007);
    let imported = || {
        let mut db = Database::new(tree_config(&config()));
        let stat =
            StatPersisted { czxid: high.0, ephemeral_owner: session.0, ..StatPersisted::default() };
        db.load_znode("/e", Some(b"x"), &Acl::open(), &stat);
        db.load_session(session, 10_000);
        db.finish_load(high).unwrap();
        db
    };
    let mut world = World::with_database(config(), imported(), imported());
    // Passwords derive from ids: who had a session there has it here.
    world.reconnect("a", session);
    assert!(matches!(world.take("a")[..], [Message::Connected(_)]));
    let (header, _) = world.ask("a", &request("create /x"));
    assert_eq!(header.zxid, Zxid(high.0 + 1));
    world.check();
}

#[test]
fn check_is_refused_outside_a_multi() {
    let mut world = world();
    ok(&mut world, "create /a");
    world.send_raw("a", OpCode::CHECK, b"\0\0\0\x02/a\xff\xff\xff\xff");
    let messages = world.take("a");
    assert!(matches!(
        &messages[..],
        [Message::Reply { header, .. }, Message::Closed] if header.err == ErrorCode::UNIMPLEMENTED
    ));
    assert_eq!(world.writes_waiting(), 0);
}

#[test]
fn surrogate_pairs_of_java_are_no_path_and_do_no_harm() {
    let mut world = world();
    // "/" and U+1F600 as Java writes it: two surrogates of three bytes each.
    let mut body = BytesMut::new();
    body.put_slice(b"\0\0\0\x07/\xed\xa0\xbd\xed\xb8\x80\0\0\0\0");
    body.put_slice(b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone\0\0\0\0");
    world.send_raw("a", OpCode::CREATE, &body);
    world.persist_all();
    assert_eq!(world.reply("a").0.err, ErrorCode::BAD_ARGUMENTS);
    assert_eq!(world.ask_err("a", &request("create /😀")), ErrorCode::BAD_ARGUMENTS);
    assert_eq!(world.ask_err("a", &request("get /😀")), ErrorCode::NO_NODE);
}

// Our own.

#[test]
fn a_client_that_lost_its_connection_sees_what_it_had_asked_for() {
    let mut world = world();
    let session = world.connection("a").session;
    world.send("a", &request("create /lock eph"));
    world.lose("a");
    world.reconnect("b", session);
    assert!(world.take("b").is_empty(), "connected before its writes were done");
    world.persist_all();
    world.take("b");
    assert_eq!(world.ask_err("b", &request("exists /lock")), ErrorCode::OK);
}

#[test]
fn ephemerals_of_unknown_sessions_go_after_a_start() {
    let orphaned = || {
        let mut db = Database::new(tree_config(&config()));
        let owned = |owner| StatPersisted { ephemeral_owner: owner, ..StatPersisted::default() };
        db.load_znode("/orphan", None, &Acl::open(), &owned(0x0100_0000_0000_0009));
        // A TTL znode, written while TTLs were enabled: it only looks like an orphan.
        let ttl = ExtendedTypes::Enabled.ttl_owner(1000).unwrap();
        db.load_znode("/ttl", None, &Acl::open(), &owned(ttl));
        db.load_znode("/container", None, &Acl::open(), &owned(CONTAINER_OWNER));
        db.finish_load(Zxid(7)).unwrap();
        db
    };
    let mut world = World::with_database(config(), orphaned(), orphaned());
    world.pass(2000);
    world.persist_all();
    assert!(world.node.read(|db| db.tree.find("/orphan").is_none()));
    assert!(
        world
            .node
            .read(|db| db.tree.find("/ttl").is_some() && db.tree.find("/container").is_some())
    );
    world.check();
}

#[test]
fn one_request_cannot_ask_for_gigabytes() {
    let mut world = world();
    ok(&mut world, "create /big *1000000");
    let ops =
        vec![MultiReadOp::GetData(GetDataRequest { path: "/big".into(), watch: false }); 60_000];
    let (header, _) = world.ask("a", &Request::MultiRead(MultiRequest::Read(ops)));
    assert_eq!(header.err, ErrorCode::MARSHALLING_ERROR);
    // Up to there it is answered.
    let ops = vec![MultiReadOp::GetData(GetDataRequest { path: "/big".into(), watch: false }); 60];
    let (header, body) = world.ask("a", &Request::MultiRead(MultiRequest::Read(ops)));
    assert_eq!(header.err, ErrorCode::OK);
    assert!(body.len() > 60_000_000);
}

/// The shell can send between calls: nothing piles up but what one call gives.
#[test]
fn a_batch_of_large_reads_is_served_in_parts() {
    let mut world = world();
    ok(&mut world, "create /big *1000000");
    let sink = std::sync::Arc::new(Sizes::default());
    let client = world.node.open(
        "127.0.0.1".into(),
        Box::new(Handle(std::sync::Arc::clone(&sink))),
        world.now,
    );
    let mut frames =
        std::collections::VecDeque::from([
            connect_request(world.connection("a").session).to_bytes()
        ]);
    for _ in 0..100 {
        let mut frame = BytesMut::new();
        zk_proto::proto::RequestHeader { xid: Xid(1), op: OpCode::GET_DATA }.encode(&mut frame);
        GetDataRequest { path: "/big".into(), watch: false }.encode(&mut frame);
        frames.push_back(frame.freeze());
    }
    let mut calls = 0;
    while !frames.is_empty() {
        sink.0.store(0, std::sync::atomic::Ordering::Relaxed);
        world.node.on_frames(&client, &mut frames, world.now, &mut |_| {});
        assert!(sink.0.load(std::sync::atomic::Ordering::Relaxed) < 3_000_000);
        calls += 1;
    }
    assert!((40..=101).contains(&calls), "{calls} calls");
}

#[derive(Debug, Default)]
struct Sizes(std::sync::atomic::AtomicUsize);

#[derive(Debug)]
struct Handle(std::sync::Arc<Sizes>);

impl zk_processor::Outbox for Handle {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        let mut bytes = BytesMut::new();
        write(&mut bytes);
        self.0.0.fetch_add(bytes.len(), std::sync::atomic::Ordering::Relaxed);
    }

    fn close(&self) {}

    fn resume(&self) {}
}

#[test]
fn two_starts_do_not_share_session_ids() {
    use zk_proto::ServerId;
    let early = first_id(ServerId(1), START.wall_ms);
    let late = first_id(ServerId(1), START.wall_ms + 1);
    // A thousand sessions in each millisecond, for as long as a server runs, would not do it.
    assert!(late.0 - early.0 > 1000);
}
