//! Local sessions on real servers. `PADDOCK_ENSEMBLE_SERVER=apache` shows that upstream's do the same.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::proto::{CreateRequest, DeleteRequest, ExistsRequest};
use zk_proto::{ErrorCode, OpCode, Zxid};
use zk_testkit::RawClient;

use crate::cluster::{Cluster, Member, Mode, Plan};
use crate::{alone, say};

/// The shortest timeout that the servers grant: two ticks.
const TIMEOUT_MS: i32 = 1000;

fn begin(member: &Member) -> (RawClient, ConnectResponse) {
    RawClient::with_session(member.address(), TIMEOUT_MS).expect("a session begins")
}

/// Comes back to a session; the timeout in the answer is 0 if it is not there.
fn come_back(address: SocketAddr, session: &ConnectResponse) -> (RawClient, ConnectResponse) {
    let mut client = RawClient::connect(address).expect("the server listens");
    let response = client
        .handshake(&ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: TIMEOUT_MS,
            session_id: session.session_id,
            password: session.password.clone(),
            read_only: Some(false),
        })
        .expect("an answer");
    (client, response)
}

fn create(client: &mut RawClient, path: &str, ephemeral: bool) -> ErrorCode {
    let request = CreateRequest {
        path: path.to_owned(),
        data: Some(Bytes::new()),
        acl: Acl::open(),
        flags: i32::from(ephemeral),
    };
    client.request(OpCode::CREATE, &request).expect("a reply").header.err
}

fn exists(client: &mut RawClient, path: &str) -> bool {
    let request = ExistsRequest { path: path.to_owned(), watch: false };
    client.request(OpCode::EXISTS, &request).expect("a reply").header.err == ErrorCode::OK
}

fn sessions(member: &Member) -> (f64, f64) {
    let count = |name: &str| member.metric(name).unwrap_or_else(|| panic!("no {name}"));
    (count("zk_local_sessions"), count("zk_global_sessions"))
}

#[test]
fn sessions_are_local_until_they_own_something() {
    let _alone = alone();
    let mut plan = Plan { observers: 1, proxied: false, tick_ms: 500, ..Plan::default() };
    plan.lines.extend(
        ["localSessionsEnabled=true", "localSessionsUpgradingEnabled=true"].map(str::to_owned),
    );
    let mut cluster = Cluster::start(plan);
    cluster.await_that("sessions of the start are over", Duration::from_secs(20), || {
        cluster.members.iter().all(|member| sessions(member) == (0.0, 0.0)).then_some(())
    });
    for index in 0..cluster.count() {
        let member = &cluster.members[index];
        let other = &cluster.members[(index + 1) % cluster.count()];
        let mode = member.status().expect("it serves").mode;
        let at_rest = cluster.await_agreement();
        let (mut client, session) = begin(member);
        assert_eq!(sessions(member), (1.0, 0.0), "{mode:?}");
        assert_eq!(come_back(other.address(), &session).1.timeout_ms, 0, "it moved from {mode:?}");
        // It comes back where it was.
        drop(client);
        let response;
        (client, response) = come_back(member.address(), &session);
        assert_eq!(response.session_id, session.session_id);
        // All of this wrote nothing.
        assert_eq!(member.status().expect("it serves").zxid, at_rest);
        let path = format!("/from-{index}");
        assert_eq!(create(&mut client, &path, false), ErrorCode::OK);
        assert_eq!(cluster.await_agreement(), Zxid(at_rest.0 + 1), "a write, and nothing else");
        // The end of a local session is no write, by itself or not.
        client.close_session().expect("an answer");
        let (silent, gone) = begin(member);
        drop(silent);
        assert_eq!(come_back(member.address(), &session).1.timeout_ms, 0, "a closed session");
        cluster.await_that("a local session expires", Duration::from_secs(10), || {
            (sessions(member) == (0.0, 0.0)).then_some(())
        });
        assert_eq!(come_back(member.address(), &gone).1.timeout_ms, 0, "an expired session");
        assert_eq!(cluster.await_agreement(), Zxid(at_rest.0 + 1));
        // What is its own makes it global; both belong together.
        let (mut client, session) = begin(member);
        assert_eq!(create(&mut client, &format!("{path}/mine"), true), ErrorCode::OK);
        assert_eq!(cluster.await_agreement(), Zxid(at_rest.0 + 3), "a session and a znode");
        for member in &cluster.members {
            assert_eq!(sessions(member), (0.0, 1.0));
        }
        drop(client);
        let (mut moved, response) = come_back(other.address(), &session);
        assert_eq!(response.session_id, session.session_id);
        assert!(exists(&mut moved, &format!("{path}/mine")));
        drop(moved);
        cluster.await_that("a global session expires", Duration::from_secs(10), || {
            (sessions(member) == (0.0, 0.0)).then_some(())
        });
        let (mut client, _) = begin(other);
        assert!(!exists(&mut client, &format!("{path}/mine")));
        let request = DeleteRequest { path, version: -1 };
        let reply = client.request(OpCode::DELETE, &request).expect("a reply");
        assert_eq!(reply.header.err, ErrorCode::OK);
        client.close_session().expect("an answer");
        say(&format!("a {mode:?} keeps its clients' sessions to itself, until they own something"));
    }
    cluster.assert_alive();
    cluster.await_agreement();
    // A leader's end ends the local sessions of all, as upstream's does.
    let leader = cluster.leader().expect("one leads");
    let follower = (0..cluster.count())
        .find(|index| {
            cluster.members[*index].status().is_some_and(|status| status.mode == Mode::Follower)
        })
        .expect("one follows");
    let (client, session) = begin(&cluster.members[follower]);
    cluster.kill(leader);
    cluster.await_that("another one leads", Duration::from_secs(20), || {
        cluster.members[follower].acknowledges_a_write().then_some(())
    });
    drop(client);
    let address = cluster.members[follower].address();
    assert_eq!(come_back(address, &session).1.timeout_ms, 0, "a session of the last reign");
    cluster.start_member(leader);
    cluster.await_serving("all serve again", Duration::from_secs(25));
    cluster.await_agreement();
}
