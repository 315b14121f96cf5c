//! A disk that is full, and one that fails.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use common::small_disk::SmallDisk;
use common::{PADDOCK, Server, create, eventually, get_data, ok, set_data};
use zk_proto::proto::DeleteRequest;
use zk_proto::{ErrorCode, OpCode};
use zk_testkit::{RawClient, free_port};

/// Segments of a megabyte, so that a full disk is met soon.
const SMALL_SEGMENTS: &str = "-Dzookeeper.preAllocSize=1024";

/// Starts a server whose data is on the disk.
fn start(disk: &SmallDisk) -> Server {
    let port = free_port();
    let enter = disk.enter();
    let mut command = Command::new(&enter[0]);
    command.args(&enter[1..]).args([PADDOCK, "server", SMALL_SEGMENTS]);
    command.args(["-Dzookeeper.4lw.commands.whitelist=*", &port.to_string()]);
    command.arg(disk.folder().join("data")).args(["3000", "0"]);
    Server::launch(&mut command, port)
}

fn error_of(client: &mut RawClient, op: OpCode, body: &impl zk_proto::Record) -> ErrorCode {
    client.request(op, body).unwrap().header.err
}

fn session(server: &Server) -> RawClient {
    RawClient::with_session(server.address, 60_000).unwrap().0
}

#[test]
fn a_full_disk_refuses_writes_and_serves_the_rest() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut server = start(&disk);
    let mut client = session(&server);
    ok(client.request(OpCode::CREATE, &create("/before", b"kept", 0)));
    ok(client.request(OpCode::CREATE, &create("/goes", b"", 0)));
    ok(client.request(OpCode::CREATE, &create("/ephemeral", b"", 1)));

    disk.fill(100 << 20);
    server.await_log("the disk is nearly full");
    for (op, err) in [
        (OpCode::CREATE, error_of(&mut client, OpCode::CREATE, &create("/refused", b"", 0))),
        (OpCode::SET_DATA, error_of(&mut client, OpCode::SET_DATA, &set_data("/before", b"new"))),
    ] {
        assert_eq!(err, ErrorCode::SYSTEM_ERROR, "{op}");
    }
    // Reads, deletes and the end of sessions are served; operators are.
    ok(client.request(OpCode::GET_DATA, &get_data("/before")));
    ok(client.request(OpCode::DELETE, &DeleteRequest { path: "/goes".into(), version: -1 }));
    ok(client.close_session());
    assert_eq!(server.word("ruok"), "imok");
    let mut client = session(&server);
    assert_eq!(
        error_of(&mut client, OpCode::GET_DATA, &get_data("/ephemeral")),
        ErrorCode::NO_NODE
    );

    disk.clear();
    server.await_log("the disk has room again");
    ok(client.request(OpCode::CREATE, &create("/after", b"", 0)));
    assert_eq!(error_of(&mut client, OpCode::GET_DATA, &get_data("/refused")), ErrorCode::NO_NODE);
    assert_eq!(server.terminate(), Some(0));
    let server = start(&disk);
    let mut client = session(&server);
    ok(client.request(OpCode::GET_DATA, &get_data("/after")));
    assert_eq!(error_of(&mut client, OpCode::GET_DATA, &get_data("/goes")), ErrorCode::NO_NODE);
}

/// Creates znodes until the server is gone; gives how many were acknowledged.
fn create_until_the_end(server: &Server, data: &[u8]) -> usize {
    let Ok((mut client, _)) = RawClient::with_session(server.address, 60_000) else { return 0 };
    for n in 0..100_000 {
        match client.request(OpCode::CREATE, &create(&format!("/n{n}"), data, 0)) {
            Ok(reply) if reply.header.err == ErrorCode::OK => {}
            // Refused: the server has noticed that the disk is full. Deletes go on.
            Ok(reply) => {
                assert_eq!(reply.header.err, ErrorCode::SYSTEM_ERROR);
                return n;
            }
            Err(_) => return n,
        }
    }
    panic!("the disk never got full");
}

fn assert_all_there(server: &Server, count: usize) {
    let mut client = session(server);
    for n in 0..count {
        let reply = client.request(OpCode::GET_DATA, &get_data(&format!("/n{n}"))).unwrap();
        assert_eq!(reply.header.err, ErrorCode::OK, "/n{n} of {count} was acknowledged");
    }
}

#[test]
fn a_disk_without_a_byte_left_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut server = start(&disk);
    // From one moment to the next there is nothing left: what was preallocated is used up, or the
    // server sees in time how it stands.
    disk.leave(0);
    let acknowledged = create_until_the_end(&server, &[1; 10_000]);
    println!("{acknowledged} creates were acknowledged on a full disk");
    eventually("the server says why", || {
        let log = server.log();
        (log.contains("the disk is nearly full") || log.contains("log cannot be written"))
            .then_some(())
    });
    server.kill();
    disk.clear();
    let server = start(&disk);
    assert_all_there(&server, acknowledged);
    ok(session(&server).request(OpCode::CREATE, &create("/again", b"", 0)));
}

#[test]
fn a_sync_that_fails_ends_the_process() {
    let strace = Command::new("strace").arg("-V").output();
    if !strace.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no strace to make a sync fail with");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]);
    command.args([
        "-e",
        "inject=fdatasync:error=EIO:when=40+",
        PADDOCK,
        "server",
        &port.to_string(),
    ]);
    command.arg(data.path()).args(["3000", "0"]);
    let mut server = Server::launch(&mut command, port);
    let acknowledged = create_until_the_end(&server, b"data");
    let status = server.wait();
    let log = server.errors();
    assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{status}: {log}");
    assert!(log.contains("the transaction log cannot be written"), "{log}");
    assert!((1..40).contains(&acknowledged), "{acknowledged}");
    let server = Server::start(data.path(), &[]);
    assert_all_there(&server, acknowledged);
}
