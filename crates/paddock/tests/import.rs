//! A real server on a data folder that Apache ZooKeeper wrote.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{PADDOCK, Server, create, eventually, get_data, ok, set_data};
use zk_proto::proto::{ExistsRequest, GetChildrenRequest, GetChildrenResponse, GetDataResponse};
use zk_proto::{ErrorCode, OpCode};
use zk_testkit::vectors::{self, Vector};
use zk_testkit::{RawClient, free_port};

/// Unpacks a recorded folder. The server's own tests compare the whole tree.
fn golden(name: &str, dir: &Path) -> Vec<Vector> {
    let path = format!("{}/../zk-server/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let vectors = vectors::read(path);
    vectors::write_files(&vectors, dir);
    vectors
}

fn apaches(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir.join("version-2")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn data(client: &mut RawClient, path: &str) -> GetDataResponse {
    ok(client.request(OpCode::GET_DATA, &get_data(path))).body_as()
}

fn exists(client: &mut RawClient, path: &str) -> bool {
    let request = ExistsRequest { path: path.to_owned(), watch: false };
    let reply = client.request(OpCode::EXISTS, &request).unwrap();
    assert!([ErrorCode::OK, ErrorCode::NO_NODE].contains(&reply.header.err), "{path}");
    reply.header.err == ErrorCode::OK
}

/// One run of the binary, to its end: exit code and output.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PADDOCK).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_server_takes_over_what_apache_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(run(&["import", "--check", path]).0, Some(2), "nothing is there");
    let vectors = golden("plain", dir.path());
    let files = apaches(dir.path());

    let (code, text) = run(&["import", "--check", path]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["snapshot.1b", "log.1c", "0x2b", "all are equal", "would be imported"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (code, json) = run(&["import", "--check", "--json", path]);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["last_zxid"], "2b");
    assert_eq!(report["sessions"], 2);
    assert_eq!(report["digests"]["differ"], 0);

    let properties = ["zookeeper.extendedTypesEnabled=true"];
    let mut server = Server::start(dir.path(), &properties);
    let mut client = server.client();
    for expected in vectors.iter().filter(|vector| vector.kind == "Znode") {
        // Nobody but its creator may read it.
        if expected.name.starts_with("/secret") {
            let reply = client.request(OpCode::GET_DATA, &get_data(&expected.name)).unwrap();
            assert_eq!(reply.header.err, ErrorCode::NO_AUTH);
            continue;
        }
        let found = data(&mut client, &expected.name);
        assert_eq!(found.data.unwrap_or_default(), expected.bytes, "{}", expected.name);
        let stat = expected.field("stat").unwrap();
        assert!(stat.starts_with(&format!("{} {} ", found.stat.czxid, found.stat.mzxid)), "{stat}");
    }
    // Nobody comes back for Apache's sessions: they expire, and their znodes go.
    assert!(exists(&mut client, "/live/leader") && exists(&mut client, "/live/member-0000000000"));
    eventually("the sessions expire", || {
        (!exists(&mut client, "/live/leader") && !exists(&mut client, "/live/member-0000000000"))
            .then_some(())
    });
    let request = GetChildrenRequest { path: "/live".to_owned(), watch: false };
    let reply = ok(client.request(OpCode::GET_CHILDREN, &request));
    assert_eq!(reply.body_as::<GetChildrenResponse>().children, Vec::<String>::new());

    // Sequential names go on where they were.
    let reply = ok(client.request(OpCode::CREATE, &create("/app/seq-", b"", 2)));
    let created: zk_proto::proto::CreateResponse = reply.body_as();
    assert_eq!(created.path, "/app/seq-0000000010");
    ok(client.request(OpCode::SET_DATA, &set_data("/app", b"ours")));
    server.kill();

    // The second start is from what is its own.
    let mut server = Server::start(dir.path(), &properties);
    let mut client = server.client();
    assert!(exists(&mut client, "/app/seq-0000000010") && !exists(&mut client, "/live/leader"));
    assert_eq!(data(&mut client, "/app").data.unwrap(), "ours");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(apaches(dir.path()), files, "Apache's files are as they were");
    assert_eq!(run(&["import", "--check", path]).0, Some(2), "there is a store already");

    // Apache went on with its files: that is said, and not followed.
    fs::write(dir.path().join("version-2/log.5000"), b"").unwrap();
    let server = Server::start(dir.path(), &properties);
    server.await_log("newer data of Apache ZooKeeper's, which is ignored");
    assert!(exists(&mut server.client(), "/app/seq-0000000010"));
}

#[test]
fn a_hole_keeps_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    golden("plain", dir.path());
    fs::remove_file(dir.path().join("version-2/snapshot.1b")).unwrap();
    fs::remove_file(dir.path().join("version-2/log.1")).unwrap();
    let port = free_port();
    let mut command = Command::new(PADDOCK);
    command.args(["server", &port.to_string(), dir.path().to_str().unwrap()]);
    let mut server = Server::spawn(&mut command, port);
    assert_eq!(server.wait().code(), Some(1));
    let errors = server.errors();
    for part in ["transactions are missing", "log.1c", "snapshot.0", "0x1c"] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
    let (code, text) = run(&["import", "--check", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(text.contains("log.1c"), "{text}");
}
