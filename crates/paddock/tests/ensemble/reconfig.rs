//! Ensembles of real servers that change while they serve. `PADDOCK_ENSEMBLE_SERVER=apache` shows that
//! upstream's do the same.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zk_proto::acl::Acl;
use zk_proto::proto::{
    CreateRequest, ExistsRequest, GetDataRequest, GetDataResponse, ReconfigRequest,
};
use zk_proto::{ErrorCode, OpCode};
use zk_testkit::{RawClient, free_port};

use crate::cluster::{Mode, System, acknowledges_a_write, launch, status, word};
use crate::{alone, say};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(40);

/// Sessions that are to stay say nothing while others come and go.
const SESSION_MS: i32 = 120_000;

/// One server, running or not.
struct Server {
    quorum: u16,
    election: u16,
    client: u16,
    folder: PathBuf,
    child: Option<Child>,
}

/// Servers that are in one ensemble, or will be.
struct Site {
    system: System,
    servers: BTreeMap<u64, Server>,
    folder: Option<TempDir>,
}

impl Site {
    /// Servers 1 to `count`; nothing is written or started.
    fn new(count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = |id: u64| Server {
            quorum: free_port(),
            election: free_port(),
            client: free_port(),
            folder: folder.path().join(id.to_string()),
            child: None,
        };
        let servers = (1..=count).map(|id| (id, server(id))).collect();
        Self { system: System::chosen(), servers, folder: Some(folder) }
    }

    /// A server as reconfigurations name it.
    fn line(&self, id: u64) -> String {
        let Server { quorum, election, client, .. } = &self.servers[&id];
        format!("server.{id}=127.0.0.1:{quorum}:{election}:participant;127.0.0.1:{client}")
    }

    fn zoo_cfg(&self, id: u64) -> PathBuf {
        self.servers[&id].folder.join("zoo.cfg")
    }

    fn text(&self, id: u64) -> String {
        fs::read_to_string(self.zoo_cfg(id)).unwrap()
    }

    /// Writes a server's files, which name these members in `zoo.cfg` itself or in a file of their own, and
    /// starts it.
    fn begin(&mut self, id: u64, members: &[u64], dynamic: bool, lines: &str) {
        let server = &self.servers[&id];
        let data = server.folder.join("data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("myid"), format!("{id}\n")).unwrap();
        let mut text = format!(
            "# server {id}\ntickTime=200\ninitLimit=25\nsyncLimit=10\ndataDir={}\nreconfigEnabled=true\n\
             maxSessionTimeout={SESSION_MS}\nskipACL=yes\n4lw.commands.whitelist=*\nadmin.enableServer=false\n{lines}",
            data.display()
        );
        let members: String = members.iter().map(|id| self.line(*id) + "\n").collect();
        if dynamic {
            let path = server.folder.join("zoo.cfg.dynamic");
            fs::write(&path, members).unwrap();
            text += &format!("dynamicConfigFile={}\n", path.display());
        } else {
            text += &members;
        }
        fs::write(self.zoo_cfg(id), text).unwrap();
        self.start(id);
    }

    fn start(&mut self, id: u64) {
        let (system, config) = (self.system, self.zoo_cfg(id));
        let server = self.servers.get_mut(&id).unwrap();
        assert!(server.child.is_none());
        server.child = Some(launch(system, &[], &config, &server.folder.join("log")));
    }

    fn kill(&mut self, id: u64) {
        let mut child = self.servers.get_mut(&id).unwrap().child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn address(&self, id: u64) -> SocketAddr {
        at(self.servers[&id].client)
    }

    fn mode(&self, id: u64) -> Option<Mode> {
        status(self.servers[&id].client).map(|status| status.mode)
    }

    fn await_that<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(found) = condition() {
                return found;
            }
            if Instant::now() > deadline {
                for (id, server) in &self.servers {
                    let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                    let lines: Vec<_> = log.lines().rev().take(25).collect();
                    eprintln!("--- server {id}");
                    lines.iter().rev().for_each(|line| eprintln!("{line}"));
                }
                panic!("not within {LONG:?}: {what}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The leader, once these are an ensemble, and each of them acknowledges writes.
    fn await_ensemble(&self, ids: &[u64]) -> u64 {
        let leader = self.await_that(&format!("{ids:?} are an ensemble"), || {
            let modes: Option<Vec<_>> = ids.iter().map(|id| Some((*id, self.mode(*id)?))).collect();
            let modes = modes?;
            let mut leaders = modes.iter().filter(|(_, mode)| *mode == Mode::Leader);
            leaders.next().filter(|_| leaders.next().is_none()).map(|(id, _)| *id)
        });
        for id in ids {
            self.await_that(&format!("server {id} takes writes"), || {
                acknowledges_a_write(self.address(*id), Duration::from_secs(2)).then_some(())
            });
        }
        leader
    }

    /// Another ensemble; asked again while those that join are not in sync yet, or the first configuration
    /// still gets its version. Gives the new one.
    fn reconfig(&self, via: u64, joining: &[String], leaving: &[u64]) -> String {
        let listed = |all: Vec<String>| (!all.is_empty()).then(|| all.join(","));
        let request = ReconfigRequest {
            joining_servers: listed(joining.to_vec()),
            leaving_servers: listed(leaving.iter().map(u64::to_string).collect()),
            new_members: None,
            cur_config_id: -1,
        };
        let text = self.await_that(&format!("{request:?} is done"), || {
            let mut client = RawClient::with_session(self.address(via), 4000).ok()?.0;
            client.set_read_timeout(Duration::from_secs(10)).unwrap();
            let reply = client.request(OpCode::RECONFIG, &request).ok()?;
            drop(client.close_session());
            match reply.header.err {
                ErrorCode::OK => {
                    let answer: GetDataResponse = reply.body_as();
                    Some(String::from_utf8(answer.data.unwrap().to_vec()).unwrap())
                }
                ErrorCode::NEW_CONFIG_NO_QUORUM | ErrorCode::RECONFIG_IN_PROGRESS => None,
                other => panic!("{request:?}: {other:?}"),
            }
        });
        say(&format!("in force: {}", text.replace('\n', " ")));
        text
    }

    /// What clients read of the membership there.
    fn config(&self, id: u64) -> Option<String> {
        let mut client = RawClient::with_session(self.address(id), 4000).ok()?.0;
        let request = GetDataRequest { path: "/zookeeper/config".into(), watch: false };
        let reply = client.request(OpCode::GET_DATA, &request).ok()?;
        drop(client.close_session());
        let answer: GetDataResponse = reply.body_as();
        Some(String::from_utf8(answer.data?.to_vec()).unwrap())
    }

    /// Waits until a server's files, its clients and its operator are told of this configuration.
    fn await_told(&self, id: u64, config: &str) {
        let (lines, version) = config.split_once("version=").unwrap();
        let folder = &self.servers[&id].folder;
        let name = format!("zoo.cfg.dynamic.{version}");
        let pointer = format!("dynamicConfigFile={}\n", folder.join(&name).display());
        self.await_that(&format!("server {id} has {version} in its files"), || {
            (self.text(id).ends_with(&pointer) || self.text(id).contains(&pointer)).then_some(())
        });
        let text = self.text(id);
        assert!(!text.contains("server.") && !text.contains("clientPort"), "{text}");
        let mut sorted: Vec<_> = lines.lines().collect();
        sorted.sort_unstable();
        assert_eq!(fs::read_to_string(folder.join(&name)).unwrap(), sorted.join("\n"));
        self.await_that(&format!("server {id} tells of {version}"), || {
            (self.config(id)? == config).then_some(())
        });
        let conf = word(self.servers[&id].client, "conf").unwrap();
        assert!(conf.contains(&format!("membership: \n{config}")), "{conf}");
        let client = self.servers[&id].client;
        assert!(conf.contains(&format!("clientPort={client}\n")), "{conf}");
        if self.system == System::Paddock {
            let voters = lines.lines().filter(|line| line.contains(":participant")).count();
            let quor: serde_json::Value =
                serde_json::from_str(&word(client, "quor").unwrap()).unwrap();
            assert_eq!(quor["quorum_size"], voters);
            assert_eq!(quor["membership"], config);
            let mntr = word(client, "mntr").unwrap();
            assert!(mntr.contains(&format!("zk_quorum_size\t{voters}\n")), "{mntr}");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in self.servers.values_mut().filter_map(|server| server.child.as_mut()) {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() || std::env::var_os("PADDOCK_ENSEMBLE_KEEP").is_some() {
            eprintln!("kept: {:?}", self.folder.take().map(TempDir::keep));
        }
    }
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn is_open(port: u16) -> bool {
    TcpStream::connect_timeout(&at(port), Duration::from_secs(1)).is_ok()
}

fn create(client: &mut RawClient, path: &str) -> ErrorCode {
    let request = CreateRequest { path: path.into(), data: None, acl: Acl::open(), flags: 1 };
    client.request(OpCode::CREATE, &request).expect("a reply").header.err
}

fn exists(client: &mut RawClient, path: &str) -> ErrorCode {
    let request = ExistsRequest { path: path.into(), watch: false };
    client.request(OpCode::EXISTS, &request).expect("a reply").header.err
}

/// A fourth member comes, the leader goes, and all of them are started anew from what they wrote.
#[test]
fn a_member_comes_the_leader_goes_and_all_start_again() {
    let _alone = alone();
    let mut site = Site::new(4);
    for id in 1..=3 {
        site.begin(id, &[1, 2, 3], false, "");
    }
    site.await_ensemble(&[1, 2, 3]);
    // The first configuration has a version by now.
    let first = site.config(1).unwrap();
    for id in 1..=3 {
        site.await_told(id, &first);
        let kept = fs::read_to_string(site.servers[&id].folder.join("zoo.cfg.bak")).unwrap();
        assert!(kept.contains(&site.line(1)), "{kept}");
    }
    site.begin(4, &[1, 2, 3, 4], true, "");
    let leader = site.await_ensemble(&[1, 2, 3, 4]);
    assert_eq!(site.config(4).unwrap(), first, "it follows, and is no member");
    if site.system == System::Paddock {
        // Upstream's would be refused: its files do not name it any more.
        site.kill(4);
        site.start(4);
        site.await_ensemble(&[1, 2, 3, 4]);
    }
    let four = site.reconfig(1, &[site.line(4)], &[]);
    assert!(four.contains(&site.line(4)), "{four}");
    for id in 1..=4 {
        site.await_told(id, &four);
    }
    // Two of four are no quorum any more: the fourth has a vote.
    let quiet: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &quiet {
        site.kill(*id);
    }
    site.await_that("two of four do not serve", || {
        [leader, 4].iter().all(|id| site.mode(*id).is_none()).then_some(())
    });
    for id in &quiet {
        site.start(*id);
    }
    let leader = site.await_ensemble(&[1, 2, 3, 4]);
    // It says of itself that it goes.
    let rest: Vec<u64> = (1..=4).filter(|id| *id != leader).collect();
    let three = site.reconfig(leader, &[], &[leader]);
    site.await_that("another one leads", || {
        rest.iter().any(|id| site.mode(*id) == Some(Mode::Leader)).then_some(())
    });
    site.await_ensemble(&rest);
    for id in &rest {
        site.await_told(*id, &three);
    }
    site.await_told(leader, &three);
    for id in 1..=4 {
        site.kill(id);
    }
    for id in &rest {
        site.start(*id);
    }
    site.await_ensemble(&rest);
    for id in &rest {
        site.await_told(*id, &three);
    }
    if site.system == System::Paddock {
        // Who was removed is told so, and does not begin with the members of before.
        site.start(leader);
        let log = site.servers[&leader].folder.join("log");
        site.await_that("the removed server says why it does not start", || {
            fs::read_to_string(&log).unwrap().contains("add its line to").then_some(())
        });
    }
}

#[test]
fn a_client_port_moves_and_sessions_stay() {
    let _alone = alone();
    let mut site = Site::new(3);
    for id in 1..=3 {
        let client = site.servers[&id].client;
        let lines = format!("clientPort={client}\nclientPortAddress=127.0.0.1\n");
        site.begin(id, &[1, 2, 3], false, &lines);
    }
    let leader = site.await_ensemble(&[1, 2, 3]);
    for id in [leader, leader % 3 + 1] {
        let (mut client, session) = RawClient::with_session(site.address(id), SESSION_MS).unwrap();
        let mine = format!("/mine-{id}");
        assert_eq!(create(&mut client, &mine), ErrorCode::OK);
        let old = site.servers[&id].client;
        site.servers.get_mut(&id).unwrap().client = free_port();
        // Upstream gives up when it cannot have the new port at once.
        let taken = (site.system == System::Paddock)
            .then(|| std::net::TcpListener::bind(site.address(id)).unwrap());
        let moved = site.reconfig(id % 3 + 1, &[site.line(id)], &[]);
        if let Some(taken) = taken {
            let log = site.servers[&id].folder.join("log");
            site.await_that("the server says what is wrong with the port", || {
                let log = fs::read_to_string(&log).unwrap();
                log.contains("cannot listen for clients where").then_some(())
            });
            assert!(acknowledges_a_write(at(old), LONG), "it serves where it did meanwhile");
            drop(taken);
        }
        site.await_told(id, &moved);
        site.await_that("the old port is closed", || (!is_open(old)).then_some(()));
        // The session goes on where it was, and can be taken up at the new port.
        assert_eq!(exists(&mut client, &mine), ErrorCode::OK);
        drop(client);
        let mut client = RawClient::connect(site.address(id)).unwrap();
        let request = zk_proto::connect::ConnectRequest {
            session_id: session.session_id,
            password: session.password,
            ..crate::load::connect_request(SESSION_MS)
        };
        assert_eq!(client.handshake(&request).unwrap().session_id, session.session_id);
        assert_eq!(exists(&mut client, &mine), ErrorCode::OK);
    }
    assert_eq!(site.await_ensemble(&[1, 2, 3]), leader, "nobody had to elect");
}

#[test]
fn a_followers_own_ports_move() {
    let _alone = alone();
    let mut site = Site::new(3);
    for id in 1..=3 {
        site.begin(id, &[1, 2, 3], false, "");
    }
    let leader = site.await_ensemble(&[1, 2, 3]);
    let follower = leader % 3 + 1;
    let server = site.servers.get_mut(&follower).unwrap();
    let old = [server.quorum, server.election];
    (server.quorum, server.election) = (free_port(), free_port());
    let moved = site.reconfig(leader, &[site.line(follower)], &[]);
    for id in 1..=3 {
        site.await_told(id, &moved);
    }
    let new = site.servers[&follower].election;
    site.await_that("it listens where it says", || is_open(new).then_some(()));
    site.await_that("and no more where it was", || (!is_open(old[1])).then_some(()));
    // An election finds it there, and it may win: the third server is not there.
    let third = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    site.kill(leader);
    site.await_ensemble(&[follower, third]);
    site.start(leader);
    site.await_ensemble(&[1, 2, 3]);
    // From the files, at once.
    for id in 1..=3 {
        site.kill(id);
    }
    for id in 1..=3 {
        site.start(id);
    }
    site.await_ensemble(&[1, 2, 3]);
    site.await_told(follower, &moved);
}

#[test]
fn one_server_grows_to_three_and_shrinks_again() {
    let _alone = alone();
    let mut site = Site::new(3);
    site.begin(1, &[1], false, "standaloneEnabled=false\n");
    assert_eq!(site.await_ensemble(&[1]), 1);
    let (mut client, _) = RawClient::with_session(site.address(1), SESSION_MS).unwrap();
    assert_eq!(create(&mut client, "/before"), ErrorCode::OK);
    site.begin(2, &[1, 2], true, "standaloneEnabled=false\n");
    site.await_ensemble(&[1, 2]);
    site.reconfig(1, &[site.line(2)], &[]);
    site.begin(3, &[1, 2, 3], true, "standaloneEnabled=false\n");
    site.await_ensemble(&[1, 2, 3]);
    let three = site.reconfig(2, &[site.line(3)], &[]);
    for id in 1..=3 {
        site.await_told(id, &three);
    }
    assert_eq!(exists(&mut client, "/before"), ErrorCode::OK);
    // Any two of them are enough now.
    drop(client);
    site.kill(1);
    site.await_ensemble(&[2, 3]);
    site.start(1);
    let leader = site.await_ensemble(&[1, 2, 3]);
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let one = site.reconfig(leader, &[], &rest);
    site.await_told(leader, &one);
    for id in &rest {
        site.kill(*id);
    }
    assert_eq!(site.await_ensemble(&[leader]), leader);
    site.kill(leader);
    site.start(leader);
    assert_eq!(site.await_ensemble(&[leader]), leader);
    site.await_told(leader, &one);
}
