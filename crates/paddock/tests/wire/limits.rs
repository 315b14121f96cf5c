//! How much a server takes of one client, and of all.

use std::time::{Duration, Instant};

use crate::common::{Options, Scene, eventually, get_data, ok, set_data};
use crate::{common, framed, new_session, request};
use zk_proto::proto::GetDataResponse;
use zk_proto::{OpCode, Record};
use zk_testkit::RawClient;

#[test]
fn connections_without_a_session_are_closed_in_time() {
    let timeout = Duration::from_millis(400);
    let mut scene = Scene::new(&["zookeeper.nio.sessionlessCnxnTimeout=400"]);
    let begun = Instant::now();
    let whole = framed(&new_session().to_bytes());
    let mut idle: Vec<_> = [0, 1, 3, 4, 20, whole.len() - 1]
        .map(|len| {
            let mut client = scene.stranger();
            client.send_bytes(&whole[..len]).unwrap();
            client
        })
        .into();
    let mut kept = scene.client();
    for client in &mut idle {
        assert!(client.is_closed().unwrap());
        assert!(begun.elapsed() >= timeout - Duration::from_millis(20), "closed early");
    }
    assert!(begun.elapsed() < timeout * 10, "closed late: {:?}", begun.elapsed());
    eventually("they are counted", || {
        (scene.server.metric("zk_sessionless_connections_expired") >= 6.0).then_some(())
    });
    ok(kept.request(OpCode::GET_DATA, &get_data("/witness")));
    scene.check();
}

#[test]
fn half_closed_and_silent_sockets_cost_nobody() {
    let mut scene = Scene::with(&Options { tick_ms: 100, ..Options::default() });
    let before = scene.server.metric("zk_num_alive_connections");
    // The client's end is closed in the middle of something.
    let whole = request(1, OpCode::GET_DATA, &get_data("/witness").to_bytes());
    for len in [0, 2, 4, 9, whole.len() - 1] {
        let mut client = scene.client();
        client.send_bytes(&whole[..len]).unwrap();
        client.shutdown_write().unwrap();
        assert!(client.is_closed().unwrap(), "half closed after {len} bytes");
    }
    // The client has vanished without a word: its session ends, and so does its connection.
    let (mut silent, session) = RawClient::with_session(scene.server.address, 300).unwrap();
    let begun = Instant::now();
    assert!(silent.is_closed().unwrap());
    let timeout = Duration::from_millis(u64::try_from(session.timeout_ms).unwrap());
    assert!(begun.elapsed() >= timeout - Duration::from_millis(50), "{:?}", begun.elapsed());
    eventually("their connections are gone", || {
        ok(scene.witness.ping());
        (scene.server.metric("zk_num_alive_connections") <= before).then_some(())
    });
    scene.check();
}

/// Opens sessions until one is refused.
fn sessions_until_full(scene: &Scene, most: usize) -> Vec<RawClient> {
    let mut clients = Vec::new();
    while clients.len() <= most {
        let Ok((client, _)) = RawClient::with_session(scene.server.address, 60_000) else { break };
        clients.push(client);
    }
    clients
}

#[test]
fn connections_are_limited_for_each_address_and_in_all() {
    let each = Options { tick_ms: 3000, client_cnxns_max: 5, properties: &[] };
    let all = Options { client_cnxns_max: 0, properties: &["zookeeper.maxCnxns=5"], ..each };
    for (what, options) in [("each", each), ("all", all)] {
        let mut scene = Scene::with(&options);
        // Probes of the test itself end a moment later.
        let mut clients = eventually("four more fit in", || {
            let clients = sessions_until_full(&scene, 8);
            (clients.len() == 4).then_some(clients)
        });
        let mut refused = scene.stranger();
        drop(refused.send_bytes(b"ruok"));
        assert!(refused.is_closed().unwrap(), "limit for {what}");
        // Those who are in are served, and a place that is given up can be taken.
        ok(scene.witness.request(OpCode::GET_DATA, &get_data("/witness")));
        for client in &mut clients {
            ok(client.request(OpCode::GET_DATA, &get_data("/witness")));
        }
        ok(clients.pop().unwrap().close_session());
        let last = eventually("a place is free", || {
            RawClient::with_session(scene.server.address, 60_000).ok()
        });
        drop(last);
        drop(clients);
        eventually("words are answered again", || {
            let answer = common::ask(scene.server.address, b"ruok").unwrap_or_default();
            (answer == b"imok").then_some(())
        });
        assert!(scene.server.metric("zk_connection_rejected") >= 1.0);
        scene.check();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn connections_are_probed_if_asked_for() {
    // A socket's line in /proc/net/tcp: its own address, ..., the timer that runs; 02 is keepalive's.
    let timer = |server: &common::Server| {
        let local = format!("0100007F:{:04X}", server.address.port());
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
            .map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let line = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let own = fields.get(1).is_some_and(|address| address.ends_with(&local[8..]));
            (own && fields[3] == "01").then(|| fields[5][..2].to_owned())
        });
        line.unwrap()
    };
    let scene = Scene::new(&["zookeeper.clientTcpKeepAlive=true"]);
    eventually("the keepalive timer runs", || (timer(&scene.server) == "02").then_some(()));
    let scene = Scene::new(&[]);
    eventually("no timer runs", || (timer(&scene.server) == "00").then_some(()));
}

#[test]
fn sessions_begin_at_a_limited_rate() {
    let properties = [
        "zookeeper.connection_throttle_tokens=4",
        "zookeeper.connection_throttle_fill_time=3600000",
    ];
    // The witness has taken one.
    let mut scene = Scene::new(&properties);
    let mut clients = sessions_until_full(&scene, 8);
    assert_eq!(clients.len(), 3);
    for client in &mut clients {
        ok(client.request(OpCode::GET_DATA, &get_data("/witness")));
    }
    let mut refused = scene.stranger();
    refused.send_frame(&new_session().to_bytes()).unwrap();
    assert!(refused.is_closed().unwrap());
    assert_eq!(scene.server.metric("zk_connection_rejected"), 2.0);
    scene.check();
}

#[test]
fn large_requests_in_flight_are_limited() {
    let mut scene = Scene::new(&[
        "zookeeper.largeRequestThreshold=1000",
        "zookeeper.largeRequestMaxBytes=50000",
    ]);
    // One after another they never are too many.
    for _ in 0..100 {
        ok(scene.witness.request(OpCode::SET_DATA, &set_data("/witness", &[1; 20_000])));
    }
    // One that is too large for itself is refused before it has come.
    let mut client = scene.client();
    let bytes = request(1, OpCode::SET_DATA, &set_data("/witness", &[2; 60_000]).to_bytes());
    client.send_bytes(&bytes[..4]).unwrap();
    assert!(client.is_closed().unwrap());
    assert_eq!(scene.server.metric("zk_large_requests_rejected"), 1.0);
    // What came before it is answered.
    let mut client = scene.client();
    let mut bytes = request(1, OpCode::GET_DATA, &get_data("/witness").to_bytes());
    bytes.extend(request(2, OpCode::SET_DATA, &set_data("/witness", &[2; 60_000]).to_bytes()));
    drop(client.send_bytes(&bytes));
    assert_eq!(ok(client.read_reply()).body_as::<GetDataResponse>().data.unwrap(), [1; 20_000][..]);
    assert!(client.is_closed().unwrap());
    scene.check();
}

#[test]
fn replies_are_measured() {
    let mut scene = Scene::new(&[]);
    scene.server.word("srst");
    let data = vec![1; 10_000];
    ok(scene.witness.request(OpCode::SET_DATA, &set_data("/witness", &data)));
    let reply = ok(scene.witness.request(OpCode::GET_DATA, &get_data("/witness")));
    let len = (16 + reply.body.len()) as f64;
    assert_eq!(scene.server.metric("zk_max_client_response_size"), len);
    assert_eq!(scene.server.metric("zk_last_client_response_size"), len);
    ok(scene.witness.ping());
    assert_eq!(scene.server.metric("zk_min_client_response_size"), 16.0);
    assert_eq!(scene.server.metric("zk_last_client_response_size"), 16.0);
    assert_eq!(scene.server.metric("zk_max_client_response_size"), len);
}
