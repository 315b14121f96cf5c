//! `kill -9` at random moments under load: nothing that was acknowledged is lost, and nothing is half
//! applied.
//!
//! `PADDOCK_CRASHES` says how often (default 25); 200 and more before a release.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use common::Server;
use zk_proto::acl::Acl;
use zk_proto::multi::{MultiOp, MultiRequest};
use zk_proto::proto::{
    CreateRequest, DeleteRequest, GetChildrenRequest, GetChildrenResponse, GetDataRequest,
    GetDataResponse, SetDataRequest,
};
use zk_proto::{ErrorCode, OpCode, Record};
use zk_testkit::{Prng, RawClient};

const WRITERS: usize = 4;

/// Requests that a writer has on their way: what a crash leaves in doubt.
const WINDOW: u64 = 30;

/// Operations of one step.
const STEP: u64 = 3;

/// Small segments and frequent checkpoints, so that crashes hit every part of the storage.
const PROPERTIES: [&str; 2] = ["zookeeper.snapCount=300", "zookeeper.preAllocSize=256"];

/// A writer's `n`th operation. Step `i` is: create `a<i>` and `b<i>` in one multi; set the writer's
/// znode to `i`; delete `b<i>`.
fn operation(folder: &str, n: u64) -> (OpCode, Bytes) {
    let i = n / STEP;
    let create = |name: &str| MultiOp::Create {
        op: OpCode::CREATE,
        request: CreateRequest {
            path: format!("{folder}/{name}{i:08}"),
            data: Some(Bytes::from(vec![b'x'; 100])),
            acl: Acl::open(),
            flags: 0,
        },
    };
    match n % STEP {
        0 => (OpCode::MULTI, MultiRequest::Write(vec![create("a"), create("b")]).to_bytes()),
        1 => {
            let data = Some(Bytes::from(i.to_string()));
            let path = folder.to_owned();
            (OpCode::SET_DATA, SetDataRequest { path, data, version: -1 }.to_bytes())
        }
        _ => {
            let path = format!("{folder}/b{i:08}");
            (OpCode::DELETE, DeleteRequest { path, version: -1 }.to_bytes())
        }
    }
}

/// Writes operations from `first` on until the server is gone. Gives how many were acknowledged and
/// how many were sent, counted from the beginning of time.
fn write(address: SocketAddr, folder: &str, first: u64) -> (u64, u64) {
    let (mut acknowledged, mut sent) = (first, first);
    let Ok((mut client, _)) = RawClient::with_session(address, 10_000) else {
        return (acknowledged, sent);
    };
    loop {
        while sent < acknowledged + WINDOW {
            let (op, body) = operation(folder, sent);
            let xid = zk_proto::Xid(i32::try_from(sent % 1_000_000).unwrap() + 1);
            if client.send_as(xid, op, &body).is_err() {
                // Whether a part of it arrived is not known: it counts as sent.
                return (acknowledged, sent + 1);
            }
            sent += 1;
        }
        let Ok(reply) = client.read_reply() else { return (acknowledged, sent) };
        assert_eq!(reply.header.err, ErrorCode::OK, "operation {acknowledged} of {folder}");
        acknowledged += 1;
    }
}

/// What a writer's folder must be after `done` operations.
fn expected(done: u64) -> (BTreeSet<String>, Option<u64>) {
    let steps = |part: u64| (done + STEP - 1 - part) / STEP; // how many of that part were done
    let mut names: BTreeSet<_> = (0..steps(0)).map(|i| format!("a{i:08}")).collect();
    names.extend((steps(2)..steps(0)).map(|i| format!("b{i:08}")));
    (names, steps(1).checked_sub(1))
}

/// Looks which prefix of a writer's operations is there; it must be one between what was acknowledged
/// and what was sent.
fn survivors(client: &mut RawClient, folder: &str, acknowledged: u64, sent: u64) -> u64 {
    let request = GetChildrenRequest { path: folder.to_owned(), watch: false };
    let reply = client.request(OpCode::GET_CHILDREN, &request).unwrap();
    let names: BTreeSet<_> = reply.body_as::<GetChildrenResponse>().children.into_iter().collect();
    let request = GetDataRequest { path: folder.to_owned(), watch: false };
    let data =
        client.request(OpCode::GET_DATA, &request).unwrap().body_as::<GetDataResponse>().data;
    let value = data
        .filter(|data| !data.is_empty())
        .map(|data| String::from_utf8(data.to_vec()).unwrap().parse().unwrap());
    let found = (names, value);
    (acknowledged..=sent).find(|done| expected(*done) == found).unwrap_or_else(|| {
        panic!(
            "{folder}: {} names and the value {:?} are not what any prefix of {acknowledged} to {sent} \
             operations leaves",
            found.0.len(),
            found.1
        )
    })
}

#[test]
fn no_acknowledged_write_is_lost_by_kill_9() {
    let crashes: u32 =
        std::env::var("PADDOCK_CRASHES").map_or(25, |text| text.parse().expect("a number"));
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut prng = Prng::new(seed);
    let data = tempfile::tempdir().unwrap();
    let folders: Vec<String> = (0..WRITERS).map(|writer| format!("/w{writer}")).collect();
    let mut done = [0; WRITERS];
    let mut sessions = Vec::new();
    for crash in 0..=crashes {
        let mut server = Server::start(data.path(), &PROPERTIES);
        let mut client = server.client();
        if crash == 0 {
            for folder in &folders {
                let request =
                    CreateRequest { path: folder.clone(), data: None, acl: Acl::open(), flags: 0 };
                let reply = client.request(OpCode::CREATE, &request).unwrap();
                assert_eq!(reply.header.err, ErrorCode::OK);
            }
        } else {
            for ((folder, done), (acknowledged, sent)) in
                folders.iter().zip(&mut done).zip(sessions)
            {
                *done = survivors(&mut client, folder, acknowledged, sent);
            }
        }
        let writers: Vec<JoinHandle<(u64, u64)>> = folders
            .iter()
            .zip(done)
            .map(|(folder, first)| {
                let (folder, address) = (folder.clone(), server.address);
                std::thread::spawn(move || write(address, &folder, first))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(prng.below(150)));
        server.kill();
        sessions = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    }
    println!("{crashes} crashes, operations of each writer: {done:?}");
    assert!(done.iter().sum::<u64>() > u64::from(crashes), "the test wrote next to nothing");
}

#[test]
fn a_server_that_is_asked_to_stop_exits_with_0_and_keeps_everything() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path(), &[]);
    let mut client = server.client();
    let request = CreateRequest { path: "/kept".into(), data: None, acl: Acl::open(), flags: 0 };
    assert_eq!(client.request(OpCode::CREATE, &request).unwrap().header.err, ErrorCode::OK);
    assert_eq!(server.terminate(), Some(0));
    let server = Server::start(data.path(), &[]);
    let request = GetDataRequest { path: "/kept".into(), watch: false };
    let reply = server.client().request(OpCode::GET_DATA, &request).unwrap();
    assert_eq!(reply.header.err, ErrorCode::OK);
}
