//! A real server process for tests.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod small_disk;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use zk_proto::acl::Acl;
use zk_proto::proto::{CreateRequest, GetDataRequest, GetDataResponse, SetDataRequest};
use zk_proto::{ErrorCode, OpCode};
use zk_testkit::{RawClient, Reply, free_port};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test.
pub(crate) const PADDOCK: &str = env!("CARGO_BIN_EXE_paddock");

/// A server, ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

/// Waits until `condition` gives something.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a server is started with, besides a port and a folder.
pub(crate) struct Options<'a> {
    pub(crate) tick_ms: u32,
    pub(crate) client_cnxns_max: u32,
    pub(crate) properties: &'a [&'a str],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { tick_ms: 200, client_cnxns_max: 0, properties: &[] }
    }
}

impl Server {
    /// Starts a server on `data` and waits until it answers.
    pub(crate) fn start(data: &Path, properties: &[&str]) -> Self {
        Self::start_with(data, &Options { properties, ..Options::default() })
    }

    /// The same, with more to say.
    pub(crate) fn start_with(data: &Path, options: &Options<'_>) -> Self {
        let port = free_port();
        let mut command = Command::new(PADDOCK);
        command.arg("server");
        command.args(options.properties.iter().map(|property| format!("-D{property}")));
        command.args([port.to_string(), data.display().to_string()]);
        command.args([options.tick_ms.to_string(), options.client_cnxns_max.to_string()]);
        Self::launch(command.env("PADDOCK_LOG", "warn"), port)
    }

    /// Runs a command that starts a server on `port`, and waits until it answers.
    pub(crate) fn launch(command: &mut Command, port: u16) -> Self {
        let mut server = Self::spawn(command, port);
        let deadline = Instant::now() + Duration::from_secs(30);
        while RawClient::connect(server.address).is_err() {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", server.errors());
            }
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Runs a command that may start a server, or fail.
    pub(crate) fn spawn(command: &mut Command, port: u16) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        // Somebody has to read: a server whose log is full waits.
        let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let log_reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { child, address, log, log_reader: Some(log_reader) }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What a crash of the process is.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the server to stop, and gives its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Waits for a server that ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.try_wait().unwrap())
    }

    /// What it wrote to standard error; after its end.
    pub(crate) fn errors(&mut self) -> String {
        if let Some(reader) = self.log_reader.take() {
            reader.join().unwrap();
        }
        self.log()
    }

    /// What it has written to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log says `text`.
    pub(crate) fn await_log(&self, text: &str) {
        eventually(text, || self.log().contains(text).then_some(()));
    }

    pub(crate) fn client(&self) -> RawClient {
        RawClient::with_session(self.address, 10_000).unwrap().0
    }

    /// What a four-letter word answers, asked as `echo WORD | nc` does: nothing more is sent.
    pub(crate) fn word(&self, word: &str) -> String {
        String::from_utf8(ask(self.address, word.as_bytes()).unwrap()).unwrap()
    }

    /// A number out of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.word("mntr");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        value.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    /// Its memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.errors();
            let tail = log.lines().rev().take(20).collect::<Vec<_>>();
            for line in tail.iter().rev() {
                eprintln!("server: {line}");
            }
        }
    }
}

/// Sends `bytes`, says that this was all, and reads to the end.
pub(crate) fn ask(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The body of a create that anybody may.
pub(crate) fn create(path: &str, data: &[u8], flags: i32) -> CreateRequest {
    let data = Some(Bytes::copy_from_slice(data));
    CreateRequest { path: path.into(), data, acl: Acl::open(), flags }
}

/// The body of a setData for any version.
pub(crate) fn set_data(path: &str, data: &[u8]) -> SetDataRequest {
    let data = Some(Bytes::copy_from_slice(data));
    SetDataRequest { path: path.into(), data, version: -1 }
}

/// The body of a getData.
pub(crate) fn get_data(path: &str) -> GetDataRequest {
    GetDataRequest { path: path.into(), watch: false }
}

/// A reply that must be a success.
#[track_caller]
pub(crate) fn ok(reply: std::io::Result<Reply>) -> Reply {
    let reply = reply.unwrap();
    assert_eq!(reply.header.err, ErrorCode::OK);
    reply
}

/// A folder whose files need no disk: timing must not depend on who else uses it.
fn in_memory() -> TempDir {
    const ENOUGH_BYTES: u64 = 1 << 30;
    let folder = "/dev/shm";
    match rustix::fs::statvfs(folder) {
        Ok(stat) if stat.f_bavail * stat.f_frsize > ENOUGH_BYTES => tempfile::tempdir_in(folder),
        _ => tempfile::tempdir(), // too little, or none
    }
    .unwrap()
}

/// A server, and a client of it that must not notice what others do.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) witness: RawClient,
    round: u32,
    /// Held for its end: the folder goes with it.
    pub(crate) data: TempDir,
}

impl Scene {
    /// A fresh server that answers every four-letter word.
    pub(crate) fn new(properties: &[&str]) -> Self {
        Self::with(&Options { tick_ms: 3000, properties, ..Options::default() })
    }

    pub(crate) fn with(options: &Options<'_>) -> Self {
        let data = in_memory();
        let mut properties = options.properties.to_vec();
        properties.extend(["zookeeper.4lw.commands.whitelist=*", "zookeeper.preAllocSize=4096"]);
        let server =
            Server::start_with(data.path(), &Options { properties: &properties, ..*options });
        let mut witness = RawClient::with_session(server.address, 60_000).unwrap().0;
        ok(witness.request(OpCode::CREATE, &create("/witness", b"", 0)));
        Self { server, witness, round: 0, data }
    }

    /// The server is well: the witness writes and reads, operators are answered.
    #[track_caller]
    pub(crate) fn check(&mut self) {
        self.round += 1;
        let value = self.round.to_string();
        ok(self.witness.request(OpCode::SET_DATA, &set_data("/witness", value.as_bytes())));
        let reply = ok(self.witness.request(OpCode::GET_DATA, &get_data("/witness")));
        assert_eq!(reply.body_as::<GetDataResponse>().data.as_deref(), Some(value.as_bytes()));
        assert_eq!(self.server.word("ruok"), "imok");
        let srvr = self.server.word("srvr");
        assert!(srvr.contains("\nMode: standalone\n"), "{srvr}");
    }

    /// A client with a session.
    pub(crate) fn client(&self) -> RawClient {
        RawClient::with_session(self.server.address, 60_000).unwrap().0
    }

    /// A client without one.
    pub(crate) fn stranger(&self) -> RawClient {
        RawClient::connect(self.server.address).unwrap()
    }
}
