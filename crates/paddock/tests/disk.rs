//! A disk that is full, and one that fails.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{PADDOCK, Server, create, eventually, free_port, get_data, ok, set_data};
use tempfile::TempDir;
use zk_proto::proto::DeleteRequest;
use zk_proto::{ErrorCode, OpCode};
use zk_testkit::RawClient;

/// Bytes of the small disk: little above what the server keeps free.
const DISK_BYTES: u64 = 320 << 20;

/// Segments of a megabyte, so that a full disk is met soon.
const SMALL_SEGMENTS: &str = "-Dzookeeper.preAllocSize=1024";

/// A disk of its own, in a mount namespace that a process holds open.
struct SmallDisk {
    holder: Child,
    folder: TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where mounting is not allowed.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o size=$1 paddock-test $0 && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(folder.path()).arg(DISK_BYTES.to_string());
        let spawned =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut holder) = spawned else {
            eprintln!("skipped: there is no unshare");
            return None;
        };
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            eprintln!("skipped: a file system cannot be mounted in a namespace without root");
            holder.wait().unwrap();
            return None;
        }
        Some(Self { holder, folder })
    }

    /// Where the disk is seen from here.
    fn path(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(self.folder.path().strip_prefix("/").unwrap())
    }

    fn start(&self) -> Server {
        let port = free_port();
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.holder.id().to_string(),
            "-m",
            PADDOCK,
            "server",
            SMALL_SEGMENTS,
        ]);
        command.args(["-Dzookeeper.4lw.commands.whitelist=*", &port.to_string()]);
        command.arg(self.folder.path().join("data")).args(["3000", "0"]);
        Server::launch(&mut command, port)
    }

    /// Writes `len` bytes that are in the way, or as many as fit.
    fn fill(&self, len: u64) {
        let mut file = File::create(self.path().join("filler")).unwrap();
        drop(std::io::copy(&mut std::io::repeat(1).take(len), &mut file));
        drop(file.flush());
    }

    fn clear(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
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
    let mut server = disk.start();
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
    let server = disk.start();
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
    let mut server = disk.start();
    // From one moment to the next there is nothing left: what was preallocated is used up, or the
    // server sees in time how it stands.
    disk.fill(DISK_BYTES);
    let acknowledged = create_until_the_end(&server, &[1; 10_000]);
    println!("{acknowledged} creates were acknowledged on a full disk");
    eventually("the server says why", || {
        let log = server.log();
        (log.contains("the disk is nearly full") || log.contains("log cannot be written"))
            .then_some(())
    });
    server.kill();
    disk.clear();
    let server = disk.start();
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
