//! A member of an ensemble by itself: what its ports do with whoever comes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tempfile::TempDir;
use zk_config::{ServerConfig, Sources};
use zk_proto::quorum::{LearnerInfo, PacketType, QuorumPacket};
use zk_proto::{Record, ServerId, Zxid};
use zk_server::{Exit, Running};
use zk_testkit::free_port;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

struct Member {
    data: TempDir,
    ports: Vec<u16>,
    config: ServerConfig,
}

impl Member {
    /// Server 1 of three; the others are not there.
    fn alone(more: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("myid"), "1").unwrap();
        let ports: Vec<_> = (0..7).map(|_| free_port()).collect();
        let mut text = format!(
            "dataDir={}\nclientPort={}\ntickTime=100\ninitLimit=5\nsyncLimit=3\n4lw.commands.whitelist=*\n{more}\n",
            data.path().display(),
            ports[6],
        );
        for (id, pair) in (1..).zip(ports[..6].chunks(2)) {
            text.push_str(&format!("server.{id}=127.0.0.1:{}:{}\n", pair[0], pair[1]));
        }
        let file = data.path().join("zoo.cfg");
        std::fs::write(&file, text).unwrap();
        let loaded = Sources::new().load_file(&file);
        let (config, _) = loaded.accept(false).map_err(|wrong| wrong.render()).unwrap();
        Self { data, ports, config }
    }

    fn at(&self, index: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[index]).into()
    }

    fn quorum_port(&self) -> SocketAddr {
        self.at(0)
    }

    fn client_port(&self) -> SocketAddr {
        self.at(6)
    }

    fn start(&self) -> (tokio::runtime::Runtime, Running) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running = {
            let _within = runtime.enter();
            zk_server::start(self.config.clone()).unwrap()
        };
        (runtime, running)
    }
}

/// Connects, as soon as somebody listens.
fn dial(address: SocketAddr) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LONG)).unwrap();
                return stream;
            }
            Err(error) if begun.elapsed() > LONG => panic!("{address}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Everything that comes until the other side closes.
fn answer(mut stream: TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).unwrap();
    let mut all = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(len) => all.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

fn packet(packet_type: PacketType, data: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let data = Some(data.to_vec().into());
    QuorumPacket { packet_type, zxid: Zxid(0), data, authinfo: None }.encode(&mut out);
    out.to_vec()
}

fn follower_info(id: i64) -> Vec<u8> {
    let info = LearnerInfo {
        server_id: ServerId(id),
        protocol_version: zk_proto::quorum::PROTOCOL_VERSION,
        config_version: 0,
    };
    packet(PacketType::FOLLOWER_INFO, &info.to_bytes())
}

#[test]
fn without_a_quorum_words_are_answered_and_clients_turned_away() {
    let member = Member::alone("");
    let (runtime, running) = member.start();
    assert_eq!(answer(dial(member.client_port()), b"ruok"), b"imok");
    let srvr = answer(dial(member.client_port()), b"srvr");
    let srvr = String::from_utf8(srvr).unwrap();
    assert!(srvr.contains("not currently serving requests"), "{srvr}");
    // A connect request.
    let mut connect = vec![0, 0, 0, 45, 0, 0, 0, 0];
    connect.extend_from_slice(&[0; 41]);
    let begun = Instant::now();
    assert_eq!(answer(dial(member.client_port()), &connect), b"");
    assert!(begun.elapsed() < Duration::from_secs(5), "it has other servers to try");
    runtime.block_on(running.stop());
}

#[test]
fn hostile_learners_cost_their_own_connections() {
    let member = Member::alone("");
    let (runtime, running) = member.start();
    let port = member.quorum_port();
    let mut claim = follower_info(2);
    claim[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut ids = follower_info(2);
    let at = ids.len() - 4;
    ids[at..].copy_from_slice(&i32::MAX.to_be_bytes());
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n\r\n\r\n"[..],
        &[0xff; 64],
        &claim,
        &ids,
        &packet(PacketType::SNAP, b""),
        &packet(PacketType::FOLLOWER_INFO, &[7; 4096]),
    ] {
        assert_eq!(answer(dial(port), bytes), b"", "{bytes:x?}");
    }
    // One that says nothing, and one that stops in the middle: within tickTime x syncLimit.
    assert_eq!(answer(dial(port), b""), b"");
    assert_eq!(answer(dial(port), &follower_info(2)[..20]), b"");
    // A learner that comes too early waits, and is told when this server does not lead in time.
    let early = dial(port);
    early.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    (&early).write_all(&follower_info(2)).unwrap();
    let waits = (&early).read(&mut [0; 8]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "it may be about to lead");
    drop(early.shutdown(Shutdown::Both));
    assert_eq!(answer(dial(member.client_port()), b"ruok"), b"imok", "nothing else suffered");
    runtime.block_on(running.stop());
}

#[test]
fn a_taken_port_ends_the_server_and_says_why() {
    let member = Member::alone("");
    for taken in [0, 1] {
        let blocker = TcpListener::bind(member.at(taken)).unwrap();
        // Once: the default waits for the process that may be about to end.
        let mut config = member.config.clone();
        config.ensemble.election_port_bind_retry = Some(1);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let running = zk_server::start(config).unwrap();
            let (exit, why) = tokio::time::timeout(LONG, running.ended()).await.unwrap();
            assert_eq!(exit, Exit::QuorumPort);
            assert!(why.contains(&format!(":{} of server.1", member.ports[taken])), "{why}");
            running.stop().await;
        });
        drop(blocker);
    }
    assert!(member.data.path().join("paddock-log").exists());
}
