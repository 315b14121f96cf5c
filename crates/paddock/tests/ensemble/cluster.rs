//! An ensemble of real server processes in folders of their own.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use zk_proto::acl::Acl;
use zk_proto::proto::CreateRequest;
use zk_proto::{ErrorCode, OpCode, Zxid};
use zk_testkit::{RawClient, free_port};

use crate::proxy::{Flow, Network, Real};
use crate::say;
use crate::small_disk::SmallDisk;

/// The binary under test.
const PADDOCK: &str = env!("CARGO_BIN_EXE_paddock");

/// What is run: Paddock, or Apache ZooKeeper to prove the harness with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Paddock,
    Apache,
}

impl System {
    /// `PADDOCK_ENSEMBLE_SERVER=apache` asks for the other one.
    pub(crate) fn chosen() -> Self {
        match std::env::var("PADDOCK_ENSEMBLE_SERVER").as_deref() {
            Err(_) | Ok("" | "paddock") => Self::Paddock,
            Ok("apache") => Self::Apache,
            Ok(other) => panic!("PADDOCK_ENSEMBLE_SERVER={other} is neither paddock nor apache"),
        }
    }

    /// The command that starts a server from a configuration file.
    fn command(self, config: &Path) -> Command {
        match self {
            Self::Paddock => {
                let binary = std::env::var("PADDOCK_ENSEMBLE_BIN");
                let mut command = Command::new(binary.as_deref().unwrap_or(PADDOCK));
                let level = std::env::var("PADDOCK_LOG").unwrap_or_else(|_| "info".into());
                command.arg("server").arg(config).env("PADDOCK_LOG", level);
                command
            }
            Self::Apache => {
                // What conformance/lib/apache.sh fetches.
                let cache = std::env::var("PADDOCK_CACHE").unwrap_or_else(|_| {
                    format!("{}/.cache/paddock", std::env::var("HOME").expect("a home"))
                });
                let lib = format!("{cache}/conformance/apache/3.9.5/lib");
                assert!(
                    Path::new(&lib).is_dir(),
                    "{lib} is not there: run a conformance suite once"
                );
                let settings =
                    concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/lib/apache-conf");
                let mut command = Command::new("/usr/bin/java");
                command.args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                command
                    .args(["-Dzookeeper.admin.enableServer=false", "-Dzookeeper.log.level=INFO"]);
                command.args(["-cp", &format!("{settings}:{lib}/*")]);
                // A property that its file cannot set.
                let text = fs::read_to_string(config).unwrap();
                let read_only = text.lines().find(|line| line.starts_with("readonlymode."));
                command.args(read_only.map(|line| format!("-D{line}")));
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
                command
            }
        }
    }
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Leader,
    Follower,
    Observer,
    Standalone,
    ReadOnly,
}

/// What `srvr` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) mode: Mode,
    pub(crate) zxid: Zxid,
}

/// What stands behind the address of a member that its `server.N` line has in front of the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// There is one address only.
    None,
    /// The member itself: directly, or, if links can be cut, by way of the proxy.
    Member,
    /// Nobody: connections are refused.
    Nobody,
    /// A machine that does not answer.
    Silence,
}

/// A pair of ports of a machine that does not answer: a connection is neither made nor refused.
#[derive(Debug)]
pub(crate) struct SilentPorts {
    ports: Real,
    /// The listeners, and what fills their queues.
    _held: Vec<(TcpListener, Vec<TcpStream>)>,
}

impl SilentPorts {
    fn take() -> Self {
        let mut held = Vec::new();
        let ports = Real::free();
        for port in [ports.quorum, ports.election] {
            use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let listening = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            bind(&listening, &address).unwrap();
            listen(&listening, 0).unwrap();
            let wait = Duration::from_millis(300);
            let connect = || TcpStream::connect_timeout(&address, wait);
            let waiting: Vec<TcpStream> = std::iter::from_fn(|| connect().ok()).take(8).collect();
            assert!((1..8).contains(&waiting.len()), "the queue of {address} does not fill up");
            held.push((TcpListener::from(listening), waiting));
        }
        Self { ports, _held: held }
    }
}

/// How an ensemble is made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) voters: usize,
    pub(crate) observers: usize,
    pub(crate) tick_ms: u32,
    pub(crate) init_limit: u32,
    pub(crate) sync_limit: u32,
    /// Whether links can be cut; else servers dial each other directly.
    pub(crate) proxied: bool,
    /// Whether the others know a second address of every member.
    pub(crate) second_address: Second,
    /// A port at which followers feed observers. Members have different hosts then.
    pub(crate) observer_master_port: Option<u16>,
    /// More lines for every zoo.cfg.
    pub(crate) lines: Vec<String>,
}

impl Default for Plan {
    fn default() -> Self {
        // Fuzzy checkpoints, small segments: faults hit every part of the storage.
        let lines = ["snapCount=500", "preAllocSize=512", "autopurge.purgeInterval=0"];
        Self {
            voters: 3,
            observers: 0,
            tick_ms: 200,
            init_limit: 25,
            sync_limit: 5,
            proxied: true,
            second_address: Second::None,
            observer_master_port: None,
            lines: lines.map(str::to_owned).to_vec(),
        }
    }
}

/// One server of the ensemble, running or not.
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) client: u16,
    pub(crate) real: Real,
    pub(crate) folder: PathBuf,
    config: PathBuf,
    /// A disk of its own for its data.
    disk: Option<SmallDisk>,
    child: Option<Child>,
}

/// All of it. Servers are ended when it is dropped.
pub(crate) struct Cluster {
    pub(crate) system: System,
    pub(crate) plan: Plan,
    pub(crate) members: Vec<Member>,
    pub(crate) network: Option<Network>,
    /// Addresses where nobody answers, for each member.
    silent: Vec<SilentPorts>,
    /// Removed last.
    folder: Option<TempDir>,
}

impl Cluster {
    /// Makes the folders and starts nothing.
    pub(crate) fn prepare(plan: Plan) -> Self {
        let folder = in_memory();
        let count = plan.voters + plan.observers;
        let real: Vec<Real> = (0..count).map(|_| Real::free()).collect();
        let network = plan.proxied.then(|| Network::new(&real));
        let members = (0..count)
            .map(|index| Member {
                id: index as u64 + 1,
                client: free_port(),
                real: real[index],
                folder: folder.path().join(format!("{}", index + 1)),
                config: PathBuf::new(),
                disk: None,
                child: None,
            })
            .collect();
        let system = System::chosen();
        let silent = match plan.second_address {
            Second::Silence => (0..count).map(|_| SilentPorts::take()).collect(),
            Second::None | Second::Member | Second::Nobody => Vec::new(),
        };
        let mut cluster = Self { system, plan, members, network, silent, folder: Some(folder) };
        for index in 0..count {
            cluster.write_config(index);
        }
        cluster
    }

    /// Gives a server that was never started a disk of its own. `false`: that is not allowed here.
    pub(crate) fn give_small_disk(&mut self, index: usize) -> bool {
        self.members[index].disk = SmallDisk::mount();
        self.write_config(index);
        self.members[index].disk.is_some()
    }

    pub(crate) fn disk(&self, index: usize) -> &SmallDisk {
        self.members[index].disk.as_ref().expect("it has one")
    }

    /// A running ensemble, with a leader.
    pub(crate) fn start(plan: Plan) -> Self {
        let mut cluster = Self::prepare(plan);
        cluster.start_all();
        cluster.await_serving("the ensemble starts", Duration::from_secs(30));
        cluster
    }

    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// The `server.N` lines as `index` has them.
    pub(crate) fn server_lines(&self, index: usize) -> Vec<String> {
        let line = |(other, member): (usize, &Member)| {
            let port = match &self.network {
                Some(network) if other != index => network.ports(index, other),
                Some(_) | None => member.real,
            };
            let role = if other < self.plan.voters { "participant" } else { "observer" };
            let (id, real) = (member.id, member.real);
            let own_host = format!("127.0.0.{}", 10 + member.id);
            let (first, second) = match self.plan.second_address {
                Second::None if self.plan.observer_master_port.is_some() => {
                    ((real, own_host.as_str()), None)
                }
                Second::None => ((port, "127.0.0.1"), None),
                Second::Member => ((port, "127.0.0.1"), Some((real, "127.0.0.2"))),
                Second::Nobody if other == index => ((real, "127.0.0.1"), None),
                Second::Nobody => ((Real::free(), "127.0.0.1"), Some((real, "127.0.0.1"))),
                Second::Silence if other == index => ((real, "127.0.0.1"), None),
                Second::Silence => {
                    ((self.silent[other].ports, "127.0.0.1"), Some((real, "127.0.0.1")))
                }
            };
            let address =
                |(port, host): (Real, &str)| format!("{host}:{}:{}", port.quorum, port.election);
            let second = second.map(|second| format!("|{}", address(second))).unwrap_or_default();
            format!("server.{id}={}{second}:{role}", address(first))
        };
        self.members.iter().enumerate().map(line).collect()
    }

    fn write_config(&mut self, index: usize) {
        let servers = self.server_lines(index);
        let member = &self.members[index];
        let (data, shown) = match &member.disk {
            None => (member.data(), member.data()),
            Some(disk) => (disk.folder().join("data"), disk.path().join("data")),
        };
        fs::create_dir_all(&shown).unwrap();
        fs::write(shown.join("myid"), format!("{}\n", member.id)).unwrap();
        let observer = index >= self.plan.voters;
        let folder = &member.folder;
        let config = write_config(&self.plan, folder, &data, member.client, &servers, observer);
        self.members[index].config = config;
    }

    pub(crate) fn start_all(&mut self) {
        for index in 0..self.count() {
            if !self.is_up(index) {
                self.start_member(index);
            }
        }
    }

    pub(crate) fn start_member(&mut self, index: usize) {
        let system = self.system;
        let member = &mut self.members[index];
        assert!(member.child.is_none(), "server {} runs", member.id);
        let wrapper = member.disk.as_ref().map(SmallDisk::enter).unwrap_or_default();
        let child = launch(system, &wrapper, &member.config, &member.folder.join("log"));
        member.child = Some(child);
        if let Some(network) = &self.network {
            network.set_up(index, true);
        }
    }

    pub(crate) fn is_up(&self, index: usize) -> bool {
        self.members[index].child.is_some()
    }

    /// What a crash of the process is.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if let Some(network) = &self.network {
            network.set_up(index, false);
        }
    }

    /// Asks the server to stop; kills it where it does not.
    pub(crate) fn terminate(&mut self, index: usize) {
        self.signal(index, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        let id = self.members[index].id;
        if let Some(child) = &mut self.members[index].child {
            while child.try_wait().unwrap().is_none() {
                if Instant::now() > deadline {
                    say(&format!("server {id} did not stop when asked"));
                    assert!(self.system != System::Paddock, "server {id} must stop when asked");
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill(index);
    }

    fn signal(&self, index: usize, signal: Signal) {
        if let Some(child) = &self.members[index].child {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    pub(crate) fn pause(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    pub(crate) fn resume(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    /// Starts a server again if it ended by itself; gives whether it had.
    pub(crate) fn revive(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        let ended = member.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
        if ended {
            member.child = None;
            self.start_member(index);
        }
        ended
    }

    /// Servers that ended although nobody ended them.
    pub(crate) fn assert_alive(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child
                && let Some(status) = child.try_wait().unwrap()
            {
                panic!(
                    "server {} ended by itself with {status}:\n{}",
                    member.id,
                    member.log_tail(40)
                );
            }
        }
    }

    pub(crate) fn status(&self, index: usize) -> Option<Status> {
        self.members[index].status()
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.count())
            .find(|index| self.status(*index).is_some_and(|status| status.mode == Mode::Leader))
    }

    /// The leader, once there is one.
    pub(crate) fn await_leader(&self) -> usize {
        self.await_that("there is a leader", Duration::from_secs(30), || self.leader())
    }

    /// Waits until every server that runs serves, and a write on a new session is acknowledged.
    pub(crate) fn await_serving(&mut self, what: &str, within: Duration) -> Duration {
        let began = Instant::now();
        let running: Vec<usize> = (0..self.count()).filter(|index| self.is_up(*index)).collect();
        self.assert_alive();
        self.await_that(what, within, || {
            let modes: Option<Vec<Mode>> =
                running.iter().map(|index| Some(self.status(*index)?.mode)).collect();
            let leaders = modes?.iter().filter(|mode| **mode == Mode::Leader).count();
            (leaders == 1).then_some(())
        });
        self.await_that(what, within, || self.writes_anywhere(&running).then_some(()));
        self.assert_alive();
        began.elapsed()
    }

    /// Whether any of these acknowledges a write on a new session.
    pub(crate) fn writes_anywhere(&self, members: &[usize]) -> bool {
        members.iter().any(|index| self.members[*index].acknowledges_a_write())
    }

    pub(crate) fn await_that<T>(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = condition() {
                return found;
            }
            if Instant::now() > deadline {
                let modes: Vec<_> =
                    self.members.iter().map(|member| (member.id, member.status())).collect();
                for member in &self.members {
                    eprintln!("--- server {}\n{}", member.id, member.log_tail(25));
                }
                panic!("not within {within:?}: {what}; {modes:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        if let Some(network) = &self.network {
            network.heal();
        }
        for index in 0..self.count() {
            self.resume(index);
        }
        self.start_all();
    }

    pub(crate) fn net(&self) -> &Network {
        self.network.as_ref().expect("a proxied ensemble")
    }

    /// Cuts, delays or resets everything between `group` and the rest.
    pub(crate) fn separate(&self, group: &[usize], flow: Flow) {
        for inside in group {
            for outside in (0..self.count()).filter(|outside| !group.contains(outside)) {
                self.net().set_both(*inside, outside, flow);
            }
        }
    }

    /// All members have the same zxid and the same digest of the tree.
    pub(crate) fn await_agreement(&self) -> Zxid {
        let zxid = self.await_that("all members reach one zxid", Duration::from_secs(15), || {
            let all: Option<Vec<Zxid>> =
                (0..self.count()).map(|index| Some(self.status(index)?.zxid)).collect();
            let all = all?;
            all.iter().all(|zxid| *zxid == all[0]).then_some(all[0])
        });
        let digests: Vec<_> = self.members.iter().map(Member::digests).collect();
        for (member, known) in self.members.iter().zip(&digests) {
            for (other, theirs) in self.members.iter().zip(&digests) {
                for (zxid, digest) in known {
                    let differs = theirs.iter().find(|(at, that)| at == zxid && that != digest);
                    assert!(
                        differs.is_none(),
                        "servers {} and {} differ at zxid {zxid}: {digest} and {differs:?}",
                        member.id,
                        other.id
                    );
                }
            }
        }
        if self.system == System::Paddock {
            // What the last client leaves behind, such as its session's end, may still come.
            let what = "all members tell their digest at one zxid";
            let present = self.await_that(what, Duration::from_secs(15), || {
                let all: Vec<_> = self.members.iter().map(Member::present_digest).collect();
                all.iter().all(|(zxid, _)| zxid.is_some() && *zxid == all[0].0).then_some(all)
            });
            let fine = present.iter().all(|one| one.1.is_some() && *one == present[0]);
            assert!(fine, "the members differ: {present:?}");
        }
        zxid
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                drop(child.kill());
                drop(child.wait());
            }
        }
        if std::thread::panicking() || std::env::var_os("PADDOCK_ENSEMBLE_KEEP").is_some() {
            let kept = self.folder.take().map(TempDir::keep);
            eprintln!("kept: {kept:?}");
        }
    }
}

/// A folder whose files need no disk, where there is room: the faults are of processes and links, and
/// timing must not depend on who else uses the disk.
fn in_memory() -> TempDir {
    const ENOUGH_BYTES: u64 = 2 << 30;
    let folder = "/dev/shm";
    match rustix::fs::statvfs(folder) {
        Ok(stat) if stat.f_bavail * stat.f_frsize > ENOUGH_BYTES => tempfile::tempdir_in(folder),
        _ => tempfile::tempdir(), // too little, or none
    }
    .unwrap()
}

/// Writes a server's configuration; gives its path.
pub(crate) fn write_config(
    plan: &Plan,
    folder: &Path,
    data: &Path,
    client: u16,
    servers: &[String],
    observer: bool,
) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let mut lines = vec![
        format!("tickTime={}", plan.tick_ms),
        format!("initLimit={}", plan.init_limit),
        format!("syncLimit={}", plan.sync_limit),
        format!("dataDir={}", data.display()),
        format!("clientPort={client}"),
        "clientPortAddress=127.0.0.1".to_owned(),
        "4lw.commands.whitelist=*".to_owned(),
        "admin.enableServer=false".to_owned(),
        "maxClientCnxns=0".to_owned(),
    ];
    if observer {
        lines.push("peerType=observer".to_owned());
    }
    lines.extend(plan.observer_master_port.map(|port| format!("observerMasterPort={port}")));
    lines.extend(plan.lines.iter().cloned());
    lines.extend(servers.iter().cloned());
    let config = folder.join("zoo.cfg");
    fs::write(&config, lines.join("\n") + "\n").unwrap();
    config
}

/// Starts a server, its output appended to a file.
pub(crate) fn launch(system: System, wrapper: &[String], config: &Path, log: &Path) -> Child {
    let inner = system.command(config);
    let mut command = match wrapper.split_first() {
        None => inner,
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(inner.get_program()).args(inner.get_args());
            for (name, value) in inner.get_envs() {
                if let Some(value) = value {
                    command.env(name, value);
                }
            }
            command
        }
    };
    let log: File = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let stdout = log.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(stdout).stderr(log).spawn().unwrap()
}

/// How long an operator's question may take: a paused server accepts and says nothing.
const WORD_PATIENCE: Duration = Duration::from_millis(600);

/// What a four-letter word answers.
pub(crate) fn word(port: u16, word: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, WORD_PATIENCE)?;
    stream.set_read_timeout(Some(WORD_PATIENCE))?;
    stream.write_all(word.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Member {
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.client).into()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its data is gone, as with a new disk; its myid is not.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.data()).unwrap();
        fs::create_dir_all(self.data()).unwrap();
        fs::write(self.data().join("myid"), format!("{}\n", self.id)).unwrap();
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.child.as_ref()?;
        status(self.client)
    }

    /// A number out of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = word(self.client, "mntr").ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        value?.parse().ok()
    }

    /// What `hash` knows: zxids with the digest of the tree.
    fn digests(&self) -> Vec<(String, String)> {
        let text = word(self.client, "hash").unwrap_or_default();
        let pair = |line: &str| {
            let (zxid, digest) = line.split_once(": ")?;
            Some((zxid.trim_start_matches("0x").to_owned(), digest.trim().to_owned()))
        };
        text.lines().filter_map(pair).collect()
    }

    /// The zxid and the digest that Paddock's `quor` tells.
    fn present_digest(&self) -> (Option<String>, Option<String>) {
        let text = word(self.client, "quor").unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let field = |name: &str| json[name].as_str().map(str::to_owned);
        (field("digest_zxid"), field("digest"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read(self.folder.join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How often its log says so.
    pub(crate) fn said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Whether its process has ended by itself, and nobody has taken note of that.
    pub(crate) fn has_ended(&self) -> bool {
        let pid = self.child.as_ref().expect("it was started").id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    }

    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Its memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Whether it acknowledges a write on a new session, within a moment.
    pub(crate) fn acknowledges_a_write(&self) -> bool {
        self.child.is_some() && acknowledges_a_write(self.address(), Duration::from_secs(1))
    }
}

/// What `srvr` says at this port.
pub(crate) fn status(port: u16) -> Option<Status> {
    let text = word(port, "srvr").ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mode = match value("Mode: ")? {
        "leader" => Mode::Leader,
        "follower" => Mode::Follower,
        "observer" => Mode::Observer,
        "standalone" => Mode::Standalone,
        "read-only" => Mode::ReadOnly,
        other => panic!("the mode {other}"),
    };
    let zxid = i64::from_str_radix(value("Zxid: 0x")?, 16).ok()?;
    Some(Status { mode, zxid: Zxid(zxid) })
}

/// A write that leaves nothing behind but its zxid: an ephemeral on a session that is closed.
pub(crate) fn acknowledges_a_write(address: SocketAddr, within: Duration) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut client = RawClient::connect(address)?;
        client.set_read_timeout(within)?;
        let response = client.handshake(&crate::load::connect_request(4000))?;
        if response.timeout_ms == 0 {
            return Ok(false);
        }
        let request = CreateRequest {
            path: "/probe-".into(),
            data: None,
            acl: Acl::open(),
            flags: 3, // ephemeral, sequential
        };
        let reply = client.request(OpCode::CREATE, &request)?;
        drop(client.close_session());
        Ok(reply.header.err == ErrorCode::OK)
    };
    attempt().unwrap_or(false)
}
