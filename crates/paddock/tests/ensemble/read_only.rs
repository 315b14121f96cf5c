//! One of three is left, and serves reads (`readonlymode.enabled`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use zk_client::{Client, State};
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::create_mode::CreateMode;
use zk_proto::proto::{
    CreateRequest, GetDataRequest, GetDataResponse, SetDataRequest, SyncRequest,
};
use zk_proto::{ErrorCode, OpCode, Record, SessionId};
use zk_testkit::RawClient;

use crate::cluster::{Cluster, Plan, word};
use crate::load::connect_request;
use crate::{alone, say};

/// What an election and a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn plan() -> Plan {
    let mut plan = Plan { proxied: false, ..Plan::default() };
    let lines = ["readonlymode.enabled", "localSessionsEnabled", "localSessionsUpgradingEnabled"];
    plan.lines.extend(lines.map(|key| format!("{key}=true")));
    plan
}

/// A session at a server that may be read-only; an error if it gives none.
fn content(
    address: SocketAddr,
    session_id: SessionId,
) -> std::io::Result<(RawClient, ConnectResponse)> {
    let mut client = RawClient::connect(address)?;
    client.set_read_timeout(PATIENCE)?;
    let request = ConnectRequest { read_only: Some(true), session_id, ..connect_request(10_000) };
    let response = client.handshake(&request)?;
    Ok((client, response))
}

fn set(path: &str, data: &'static str) -> SetDataRequest {
    SetDataRequest { path: path.into(), data: Some(data.into()), version: -1 }
}

fn data(client: &mut RawClient, path: &str, watch: bool) -> String {
    let request = GetDataRequest { path: path.into(), watch };
    let reply = client.request(OpCode::GET_DATA, &request).unwrap();
    assert_eq!(reply.header.err, ErrorCode::OK);
    let response = GetDataResponse::decode(&reply.body).unwrap();
    String::from_utf8(response.data.unwrap_or_default().to_vec()).unwrap()
}

#[test]
fn a_member_without_a_quorum_serves_reads() {
    let _alone = alone();
    let mut cluster = Cluster::start(plan());
    let left = cluster.await_leader();
    let others = [(left + 1) % 3, (left + 2) % 3];
    let (address, port) = (cluster.members[left].address(), cluster.members[left].client);
    let session = {
        let (mut writer, response) = content(address, SessionId(0)).unwrap();
        assert_eq!(response.read_only, Some(false), "it has a quorum");
        let request = CreateRequest {
            path: "/kept".into(),
            data: Some("before".into()),
            acl: Acl::open(),
            flags: 0,
        };
        assert_eq!(writer.request(OpCode::CREATE, &request).unwrap().header.err, ErrorCode::OK);
        response.session_id
    };
    let began = Instant::now();
    others.iter().for_each(|index| cluster.kill(*index));
    let (mut reader, response) = cluster.await_that("reads are served", PATIENCE, || {
        // Until it has noticed that it is alone it serves as before.
        content(address, SessionId(0)).ok().filter(|(_, response)| response.read_only == Some(true))
    });
    say(&format!("reads are served {} ms after the others' end", began.elapsed().as_millis()));
    assert!(began.elapsed() >= Duration::from_secs(2), "sooner than after the time of grace");
    assert_eq!(data(&mut reader, "/kept", true), "before");
    let written = reader.request(OpCode::SET_DATA, &set("/kept", "lost")).unwrap();
    assert_eq!(written.header.err, ErrorCode::NOT_READ_ONLY);
    let synced = reader.request(OpCode::SYNC, &SyncRequest { path: Some("/".into()) }).unwrap();
    assert_eq!(synced.header.err, ErrorCode::NOT_READ_ONLY);
    assert_eq!(data(&mut reader, "/kept", true), "before");
    // Who wants to write is turned away without a word, and so is who comes back from the quorum.
    let mut other = RawClient::connect(address).unwrap();
    other.set_read_timeout(PATIENCE).unwrap();
    other.send_frame(&connect_request(10_000).to_bytes()).unwrap();
    assert!(other.is_closed().unwrap());
    if let Ok((_, response)) = content(address, session) {
        assert_eq!(response.timeout_ms, 0, "a session of the quorum, or of what served before");
    }
    assert_eq!(word(port, "isro").unwrap(), "ro");
    let srvr = word(port, "srvr").unwrap();
    assert!(srvr.contains("\nREAD-ONLY mode; serving only read-only clients\n"), "{srvr}");
    assert!(srvr.contains("\nMode: read-only\n"), "{srvr}");
    let mntr = word(port, "mntr").unwrap();
    assert!(mntr.contains("\nzk_server_state\tread-only\n"), "{mntr}");
    assert!(word(port, "conf").unwrap().trim_end().ends_with("peerType=0"));

    cluster.start_all();
    assert!(reader.is_closed().unwrap(), "it was told more than its connection's end");
    cluster.await_serving("the ensemble serves again", PATIENCE);
    let (mut writer, again) = content(address, SessionId(0)).unwrap();
    assert_eq!(again.read_only, Some(false));
    assert_ne!(again.session_id, response.session_id);
    let written = writer.request(OpCode::SET_DATA, &set("/kept", "after")).unwrap();
    assert_eq!(written.header.err, ErrorCode::OK);
    assert_eq!(data(&mut writer, "/kept", false), "after");
    assert_eq!(word(port, "isro").unwrap(), "rw");
    cluster.await_agreement();
    cluster.assert_alive();
}

/// A client that asks for it reads on without a quorum, and gets a session that can write as soon as
/// there is one.
#[test]
fn a_client_goes_on_from_a_read_only_server() {
    let _alone = alone();
    let mut cluster = Cluster::start(plan());
    let hosts: Vec<_> = cluster.members.iter().map(|member| member.address().to_string()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let hosts = hosts.join(",");
        let open = || Client::connect(&hosts, PATIENCE, true);
        let first = open().await.unwrap();
        let mode = CreateMode::Persistent;
        first.create("/kept", Some(b"before"), &Acl::open(), mode).await.unwrap();
        first.close().await;
        cluster.kill(0);
        cluster.kill(1);
        let client = open().await.unwrap();
        assert_eq!(client.state(), State::ConnectedReadOnly);
        let before = client.session().0;
        assert_eq!(client.get_data("/kept", false).await.unwrap().0.unwrap(), "before");
        let refused = client.set_data("/kept", Some(b"lost"), -1).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::NOT_READ_ONLY);
        let mut states = client.states();
        cluster.start_all();
        let back = states.wait_for(|state| *state == State::Connected);
        let back = tokio::time::timeout(PATIENCE, back).await;
        drop(back.expect("it finds a server that can write").expect("the client lives"));
        assert_ne!(client.session().0, before);
        client.set_data("/kept", Some(b"after"), -1).await.unwrap();
        client.close().await;
    });
    cluster.await_serving("the ensemble serves again", PATIENCE);
    cluster.await_agreement();
}
