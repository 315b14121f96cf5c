//! What confused and hostile peers do to a running ensemble, and what a server does that an operator set up
//! wrongly: nothing changes, nobody waits, little memory is used, and a log says what is the matter.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Child;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use zk_testkit::{Prng, free_port};

use crate::cluster::{self, Cluster, Mode, Plan, System, launch, write_config};
use crate::load::{Field, Load};
use crate::{addresses, alone, assert_sound, say, seed};

/// A sid that no configuration has.
const STRANGER: i64 = 99;

/// How long a peer's message may be claimed to be.
const TWO_GIGABYTES: i32 = i32::MAX;

/// FOLLOWERINFO, PROPOSAL, COMMIT and ACK, as numbers on the wire.
const FOLLOWER_INFO: i32 = 11;
const PROPOSAL: i32 = 2;
const COMMIT: i32 = 4;
const ACK: i32 = 3;

fn dial(port: u16) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    Some(stream)
}

/// The first message on an election connection.
fn hello(version: i64, sid: i64, len: i32, address: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend_from_slice(&sid.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(address);
    bytes
}

fn good_hello(sid: i64) -> Vec<u8> {
    let address = b"127.0.0.1:1"; // nobody is there to be dialled back
    hello(-65536, sid, i32::try_from(address.len()).unwrap(), address)
}

struct Vote {
    state: i32,
    leader: i64,
    zxid: i64,
    round: i64,
    epoch: i64,
    config_len: i32,
}

impl Vote {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.state.to_be_bytes().to_vec();
        for number in [self.leader, self.zxid, self.round, self.epoch] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&2_i32.to_be_bytes());
        bytes.extend_from_slice(&self.config_len.to_be_bytes());
        bytes
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = i32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// A quorum packet; `len` may lie about the data.
fn packet(kind: i32, zxid: i64, len: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend_from_slice(&zxid.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&(-1_i32).to_be_bytes()); // no authinfo
    bytes
}

fn follower_info(sid: i64, accepted_epoch: i64) -> Vec<u8> {
    let mut data = sid.to_be_bytes().to_vec();
    data.extend_from_slice(&0x10000_i32.to_be_bytes());
    data.extend_from_slice(&0_i64.to_be_bytes());
    packet(FOLLOWER_INFO, accepted_epoch << 32, i32::try_from(data.len()).unwrap(), &data)
}

/// Votes that no server sends.
fn bad_votes(prng: &mut Prng) -> Vec<Vec<u8>> {
    let fine = || Vote { state: 0, leader: 1, zxid: 0, round: 1, epoch: 0, config_len: 0 };
    let ahead = 0x7fff_0000;
    let short = |len: usize| fine().bytes()[..len].to_vec();
    vec![
        framed(&short(3)),
        framed(&short(27)),
        framed(&short(28)),
        framed(&short(40)),
        framed(&Vote { state: 77, ..fine() }.bytes()),
        framed(&Vote { config_len: -5, ..fine() }.bytes()),
        framed(&Vote { config_len: TWO_GIGABYTES, ..fine() }.bytes()),
        // A vote for somebody who does not exist, and is far ahead.
        framed(
            &Vote { leader: 1234, zxid: ahead << 32, epoch: ahead, round: ahead, ..fine() }.bytes(),
        ),
        framed(&Vote { leader: i64::MIN, zxid: i64::MIN, epoch: i64::MIN, ..fine() }.bytes()),
        framed(&Vote { state: 2, leader: STRANGER, epoch: ahead, round: 1, ..fine() }.bytes()),
        framed(&prng.bytes(200)),
    ]
}

/// One connection to an election port, and what is said on it.
fn election_attacks(target: i64, prng: &mut Prng) -> Vec<Vec<u8>> {
    let mut all = vec![
        prng.bytes(1),
        prng.bytes(20),
        prng.bytes(5000),
        hello(-65536, STRANGER, TWO_GIGABYTES, b"127.0.0.1"),
        hello(-65536, STRANGER, -1, b""),
        hello(-65536, STRANGER, 0, b""),
        hello(-65536, STRANGER, 9, b"\xff\xfe\xfd\xfc:\x00\x01:1"),
        hello(-65536, STRANGER, 9, b"nonsense!"),
        hello(-77, STRANGER, 4, b"a:1"),
        hello(-65535, STRANGER, 25, b"127.0.0.1:1|127.0.0.1:2|x:"),
        good_hello(target),
        good_hello(-5),
        good_hello(i64::MAX),
        good_hello(i64::MIN),
        4_i64.to_be_bytes().to_vec(),
    ];
    for vote in bad_votes(prng) {
        let mut bytes = good_hello(STRANGER);
        bytes.extend_from_slice(&vote);
        all.push(bytes);
    }
    for len in [TWO_GIGABYTES, -1, 0, 600_000] {
        let mut bytes = good_hello(STRANGER);
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&prng.bytes(3000));
        all.push(bytes);
    }
    // Somebody who says that he is a member.
    for sid in 1..=3 {
        for vote in bad_votes(prng) {
            let mut bytes = good_hello(sid);
            bytes.extend_from_slice(&vote);
            all.push(bytes);
        }
    }
    all
}

fn quorum_attacks(target: i64, prng: &mut Prng) -> Vec<Vec<u8>> {
    let mut huge = packet(FOLLOWER_INFO, 0, TWO_GIGABYTES, b"");
    huge.truncate(16);
    huge.extend_from_slice(&prng.bytes(200_000));
    let mut authinfo = packet(FOLLOWER_INFO, 0, 0, b"");
    authinfo.truncate(16);
    authinfo.extend_from_slice(&TWO_GIGABYTES.to_be_bytes());
    let mut after_info = follower_info(STRANGER, 0);
    after_info.extend_from_slice(&packet(PROPOSAL, 0x7fff_0000 << 32, 4, b"data"));
    after_info.extend_from_slice(&packet(ACK, 0x7fff_0000 << 32, -1, b""));
    vec![
        prng.bytes(1),
        prng.bytes(24),
        prng.bytes(5000),
        huge,
        authinfo,
        packet(FOLLOWER_INFO, 0, -7, b""),
        packet(FOLLOWER_INFO, 0, 3, b"abc"),
        packet(FOLLOWER_INFO, 0, -1, b""),
        packet(PROPOSAL, 0x7fff_0000 << 32, 4, b"data"),
        packet(COMMIT, 0x7fff_0000 << 32, -1, b""),
        packet(ACK, 0x7fff_0000 << 32, -1, b""),
        packet(12345, 0, 0, b""),
        follower_info(STRANGER, 0x7fff_0000),
        follower_info(target, 0),
        follower_info(-1, 0),
        follower_info(i64::MIN, 0),
        after_info,
    ]
}

/// Servers that wait long for each other: a busy machine must not look like what the test does.
fn patient() -> Plan {
    Plan { proxied: false, tick_ms: 300, sync_limit: 8, ..Plan::default() }
}

/// What must not change.
fn leader_and_epoch(cluster: &Cluster) -> (usize, i32) {
    let leader = cluster.await_leader();
    let status = cluster.status(leader).expect("it leads");
    (leader, status.zxid.epoch().0)
}

#[test]
fn nonsense_at_the_doors_changes_nothing() {
    /// What a server may grow by under it.
    const GROWTH_BYTES_MAX: u64 = 64 << 20;

    let _alone = alone();
    let seed = seed();
    say(&format!("bad input: PADDOCK_ENSEMBLE_SEED={seed}"));
    let mut prng = Prng::new(seed);
    let mut cluster = Cluster::start(patient());
    let field = Field::new(addresses(&cluster), 2000);
    let load = Load::start(field, 4, Duration::from_millis(5), seed);
    load.await_replies(400);
    let before = leader_and_epoch(&cluster);
    let memory: Vec<u64> = cluster.members.iter().map(cluster::Member::resident_bytes).collect();
    let losses = load.field.losses.load(Ordering::Relaxed);
    load.field.slowest_us.store(0, Ordering::Relaxed);
    let began = Instant::now();
    let (mut attacks, mut held, mut stalled) = (0, Vec::new(), Vec::new());
    while began.elapsed() < Duration::from_secs(3) || attacks < 300 {
        assert!(began.elapsed() < Duration::from_secs(30), "{attacks} attacks only");
        for member in &cluster.members {
            let target = i64::try_from(member.id).unwrap();
            let election = election_attacks(target, &mut prng);
            let quorum = quorum_attacks(target, &mut prng);
            let all = election
                .into_iter()
                .map(|bytes| (member.real.election, bytes))
                .chain(quorum.into_iter().map(|bytes| (member.real.quorum, bytes)));
            for (port, bytes) in all {
                // A follower's quorum port is closed: that is fine, too.
                let Some(mut stream) = dial(port) else { continue };
                attacks += 1;
                drop(stream.write_all(&bytes));
                match prng.below(4) {
                    // Half-open: the other side never hears of it again.
                    0 if held.len() < 300 => held.push(stream),
                    1 => drop(stream.shutdown(Shutdown::Write)),
                    2 => drop(stream.read(&mut [0; 64])),
                    _ => {}
                }
            }
            // Stalled before a byte, and in the middle of a handshake.
            for port in [member.real.election, member.real.quorum] {
                if stalled.len() < 300 {
                    stalled.extend(dial(port));
                    if let Some(mut stream) = dial(port) {
                        drop(stream.write_all(&good_hello(STRANGER)[..11]));
                        stalled.push(stream);
                    }
                }
            }
        }
        assert_eq!(leader_and_epoch(&cluster), before, "leader and epoch stay");
        cluster.assert_alive();
    }
    if cluster.system == System::Paddock {
        // A handshake may take as long as `syncLimit`; then whoever stalls is hung up on.
        let limit_ms = u64::from(cluster.plan.tick_ms * cluster.plan.sync_limit);
        let deadline = Instant::now() + Duration::from_millis(limit_ms) + Duration::from_secs(5);
        for stream in &mut stalled {
            assert!(is_hung_up(stream, deadline), "a stalled handshake is waited for");
        }
    }
    assert_eq!(leader_and_epoch(&cluster), before, "leader and epoch stay");
    let lost = load.field.losses.load(Ordering::Relaxed) - losses;
    let slowest_ms = load.field.slowest_us.load(Ordering::Relaxed) / 1000;
    let grown: Vec<i64> = cluster
        .members
        .iter()
        .zip(&memory)
        .map(|(member, before)| (member.resident_bytes() as i64 - *before as i64) >> 10)
        .collect();
    say(&format!(
        "{attacks} attacks, {} connections held, {} stalled: the slowest reply took {slowest_ms} ms, {lost} lost, \
         grown by {grown:?} KiB",
        held.len(),
        stalled.len()
    ));
    assert_eq!(lost, 0, "honest clients are not disturbed");
    assert!(slowest_ms < 1000, "honest clients do not wait");
    if cluster.system == System::Paddock {
        let limit = i64::try_from(GROWTH_BYTES_MAX >> 10).unwrap();
        assert!(grown.iter().all(|kib| *kib < limit), "{grown:?}");
        for member in &cluster.members {
            let log = member.log();
            for text in
                ["Two servers have the same number in their myid files", "did not say in time"]
            {
                assert!(log.contains(text), "server {} says nothing of {text:?}", member.id);
            }
        }
    }
    drop(held);
    // Members that were impersonated find each other again.
    for index in 0..cluster.count() {
        if index != before.0 {
            cluster.kill(index);
            cluster.start_member(index);
            cluster.await_serving("a follower comes back", Duration::from_secs(20));
        }
    }
    let servers = addresses(&cluster);
    let history = load.finish(&servers);
    cluster.await_agreement();
    assert_sound(&history, &cluster, 100);
}

/// A server beside the ensemble, ended when dropped.
struct Odd {
    child: Child,
    folder: std::path::PathBuf,
}

impl Odd {
    /// Starts a server with these membership lines.
    fn start(cluster: &Cluster, name: &str, id: u64, client: u16, servers: &[String]) -> Self {
        let folder = cluster.members[0].folder.with_file_name(name);
        let data = folder.join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("myid"), format!("{id}\n")).unwrap();
        let config = write_config(&cluster.plan, &folder, &data, client, servers, false);
        let child = launch(cluster.system, &[], &config, &folder.join("log"));
        Self { child, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Waits until it has begun to look for a leader among the others.
    fn takes_part(&self, cluster: &Cluster) {
        if cluster.system == System::Paddock {
            cluster.await_that("the odd one takes part", Duration::from_secs(15), || {
                self.log().contains("LOOKING for a leader").then_some(())
            });
        }
    }

    fn ends(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the odd server\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// An ensemble at work that must not mind; `disturb` gives what is to be ended before the reckoning.
fn undisturbed<T>(disturb: impl FnOnce(&mut Cluster, &Load) -> T) {
    let mut cluster = Cluster::start(patient());
    let field = Field::new(addresses(&cluster), 2000);
    let load = Load::start(field, 4, Duration::from_millis(5), seed());
    let before = leader_and_epoch(&cluster);
    let disturbance = disturb(&mut cluster, &load);
    assert_eq!(leader_and_epoch(&cluster), before, "leader and epoch stay");
    cluster.assert_alive();
    drop(disturbance);
    cluster.await_serving("all serve", Duration::from_secs(20));
    let servers = addresses(&cluster);
    let history = load.finish(&servers);
    cluster.await_agreement();
    assert_sound(&history, &cluster, 100);
}

#[test]
fn a_second_server_with_the_same_myid_takes_nothing_over() {
    let _alone = alone();
    undisturbed(|cluster, load| {
        let leader = cluster.await_leader();
        let twin = (0..3).find(|index| *index != leader).expect("a follower");
        let id = cluster.members[twin].id;
        // The same lines as the other one: its ports are taken.
        let lines = cluster.server_lines(twin);
        let client = free_port();
        let mut copy = Odd::start(cluster, "copy", id, client, &lines);
        assert!(copy.ends(Duration::from_secs(15)), "it cannot serve at a port that is taken");
        if cluster.system == System::Paddock {
            let log = copy.log();
            assert!(log.contains("in use"), "it says why: {log}");
        }
        // Ports of its own: the others see two that say they are one.
        let (quorum, election) = (free_port(), free_port());
        let mut lines = cluster.server_lines(twin);
        lines[twin] = format!("server.{id}=127.0.0.1:{quorum}:{election}");
        let client = free_port();
        let twin = Odd::start(cluster, "twin", id, client, &lines);
        twin.takes_part(cluster);
        load.await_replies(1000);
        twin
    });
}

#[test]
fn a_server_with_a_wrong_list_harms_nobody() {
    let _alone = alone();
    undisturbed(|cluster, load| {
        // It believes in five servers, of which two are not there, and is none that the others know.
        let mut lines = cluster.server_lines(0);
        for id in 4..=5 {
            let (quorum, election) = (free_port(), free_port());
            lines.push(format!("server.{id}=127.0.0.1:{quorum}:{election}"));
        }
        let client = free_port();
        let fifth = Odd::start(cluster, "fifth", 5, client, &lines);
        // Its list has the others under each other's numbers.
        let mut swapped = cluster.server_lines(0);
        let address = |line: &str| line.split_once('=').expect("a server line").1.to_owned();
        let (one, two) = (address(&swapped[0]), address(&swapped[1]));
        swapped[0] = format!("server.1={two}");
        swapped[1] = format!("server.2={one}");
        let (quorum, election) = (free_port(), free_port());
        swapped.push(format!("server.6=127.0.0.1:{quorum}:{election}"));
        let client = free_port();
        let sixth = Odd::start(cluster, "sixth", 6, client, &swapped);
        // A myid that its list does not have.
        let client = free_port();
        let lines = cluster.server_lines(0);
        let mut lost = Odd::start(cluster, "lost", 9, client, &lines);
        if cluster.system == System::Paddock {
            assert!(lost.ends(Duration::from_secs(10)), "it is in no list, not even its own");
            let log = lost.log();
            assert!(log.contains("myid") && log.contains('9'), "it says why: {log}");
        }
        fifth.takes_part(cluster);
        sixth.takes_part(cluster);
        load.await_replies(1000);
        (fifth, sixth, lost)
    });
}

/// Whether the other side closes the connection before `deadline`.
fn is_hung_up(stream: &mut TcpStream, deadline: Instant) -> bool {
    while Instant::now() < deadline {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}

/// A server that claims to be a member, and to have promised an epoch far ahead: the leader may step aside
/// for it once, and then the ensemble goes on.
#[test]
fn an_epoch_far_ahead_does_not_stop_the_ensemble() {
    let _alone = alone();
    let mut cluster = Cluster::start(patient());
    let leader = cluster.await_leader();
    let follower = (0..3).find(|index| *index != leader).expect("a follower");
    let sid = i64::try_from(cluster.members[follower].id).unwrap();
    for epoch in [1000, 0x7fff_fffe] {
        let leader = cluster.await_leader();
        let mut stream = dial(cluster.members[leader].real.quorum).expect("the leader listens");
        stream.write_all(&follower_info(sid, epoch)).unwrap();
        // It is answered or hung up on.
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        drop(stream.read(&mut [0; 64]));
        drop(stream);
        let took = cluster.await_serving("it goes on", Duration::from_secs(20));
        let (_, now) = leader_and_epoch(&cluster);
        say(&format!(
            "after a false epoch {epoch}: well after {} ms, epoch {now}",
            took.as_millis()
        ));
        assert!(now < 100, "an epoch that nobody proved was believed: {now}");
    }
    cluster.await_agreement();
}

/// Acknowledged writes are on two servers. One of them loses its folder, the other one is away: the two
/// that are left have a majority, and must not use it.
#[test]
fn a_member_that_lost_its_data_does_not_vote_it_away() {
    let _alone = alone();
    let mut cluster = Cluster::start(patient());
    if cluster.system == System::Apache {
        say("skipped: Apache elects a leader without the data");
        return;
    }
    let leader = cluster.await_leader();
    let stale = (0..3).find(|index| *index != leader).expect("a follower");
    let holder = (0..3).find(|index| *index != leader && *index != stale).expect("the other one");
    cluster.kill(stale);
    let field = Field::new(addresses(&cluster), 2000);
    let load = Load::start(field, 2, Duration::from_millis(5), seed());
    load.await_replies(200);
    for index in [leader, holder] {
        cluster.kill(index);
    }
    let lost = leader;
    cluster.members[lost].wipe();
    cluster.start_member(lost);
    cluster.start_member(stale);
    cluster.await_that("it finds that it has no data", Duration::from_secs(15), || {
        (cluster.members[lost].said("this server has no data") > 0).then_some(())
    });
    // That something never happens can only be watched for a while: some elections long.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        for index in [lost, stale] {
            let serves = cluster.status(index).map(|status| status.mode);
            assert_eq!(
                serves, None,
                "server {} serves without the data",
                cluster.members[index].id
            );
        }
        sleep(Duration::from_millis(50));
    }
    cluster.start_member(holder);
    cluster.await_serving("the data is back", Duration::from_secs(20));
    assert!(cluster.status(lost).is_some_and(|status| status.mode != Mode::Leader));
    let servers = addresses(&cluster);
    let history = load.finish(&servers);
    cluster.await_agreement();
    assert_sound(&history, &cluster, 20);
}
