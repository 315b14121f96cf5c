use std::net::SocketAddr;

use tokio::task::JoinHandle;
use zk_proto::Zxid;
use zk_proto::quorum::{ElectionHello, PeerState};

use super::*;

/// Remembers what it was told.
#[derive(Default)]
struct Told {
    votes: Mutex<Vec<(ServerId, i64)>>,
    reachable: Mutex<Vec<(ServerId, bool)>>,
    changed: Notify,
}

impl Voter for Told {
    fn on_notification(self: Arc<Self>, from: ServerId, notification: Notification) {
        self.votes.lock().unwrap().push((from, notification.round));
        self.changed.notify_one();
    }

    fn on_reachable(self: Arc<Self>, server: ServerId, reachable: bool) {
        self.reachable.lock().unwrap().push((server, reachable));
        self.changed.notify_one();
    }
}

/// Fails rather than wait for ever.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what} never came"))
}

impl Told {
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        soon(what, async {
            while !is_so(self) {
                // More than one thing may have changed.
                drop(timeout(Duration::from_millis(20), self.changed.notified()).await);
            }
        })
        .await;
    }

    async fn vote(&self, from: i64, round: i64) {
        let wanted = (ServerId(from), round);
        self.until(&format!("{wanted:?}"), |told| told.votes.lock().unwrap().contains(&wanted))
            .await;
    }

    async fn reachable(&self, server: i64, reachable: bool) {
        let wanted = (ServerId(server), reachable);
        self.until(&format!("{wanted:?}"), |told| {
            told.reachable.lock().unwrap().last() == Some(&wanted)
        })
        .await;
    }
}

fn vote(round: i64) -> Notification {
    Notification {
        state: PeerState::Looking,
        leader: ServerId(1),
        zxid: Zxid(0),
        round,
        peer_epoch: 0,
        version: Notification::VERSION,
        config: Some("version=0".into()),
    }
}

fn at(address: SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: address.port() }
}

/// An election port, and what it says.
struct Member {
    elections: Arc<Elections>,
    told: Arc<Told>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Member {
    fn notify(&self, to: i64, round: i64) {
        let voter: Arc<dyn Voter> = Arc::clone(&self.told) as _;
        self.elections.notify(&voter, ServerId(to), &vote(round));
    }
}

async fn socket() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn start(id: i64, listener: TcpListener, others: &[(i64, SocketAddr)]) -> Member {
    let address = listener.local_addr().unwrap();
    let all = others.iter().copied().chain([(id, address)]);
    let config = ElectionConfig {
        id: ServerId(id),
        multi_address: false,
        connect_timeout: Duration::from_secs(5),
        handshake_timeout: Duration::from_millis(300),
        keep_alive: true,
        silence_max: Some(Duration::from_millis(300)),
    };
    let members = all.map(|(id, address)| (ServerId(id), vec![at(address)])).collect();
    let elections = Elections::new(config, members, Tasks::here());
    let told = Arc::new(Told::default());
    let voter: Arc<dyn Voter> = Arc::clone(&told) as _;
    let serving = tokio::spawn(Arc::clone(&elections).listen(voter, listener));
    Member { elections, told, address, serving }
}

/// A server played by the test.
struct Raw {
    stream: TcpStream,
    unread: BytesMut,
}

impl Raw {
    async fn dial(to: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(to).await.unwrap(), unread: BytesMut::new() }
    }

    async fn greet(to: SocketAddr, id: i64, own: SocketAddr) -> Self {
        let mut raw = Self::dial(to).await;
        raw.send(&hello::encode(ServerId(id), &[at(own)], false)).await;
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn send_vote(&mut self, round: i64) {
        let mut payload = BytesMut::new();
        vote(round).encode(&mut payload);
        self.send(&u32::try_from(payload.len()).unwrap().to_be_bytes()).await;
        self.send(&payload).await;
    }

    async fn hello(&mut self) -> Hello {
        soon("a hello", async {
            loop {
                if let Some(hello) = hello::take(&mut self.unread).unwrap() {
                    return hello;
                }
                assert!(self.stream.read_buf(&mut self.unread).await.unwrap() > 0);
            }
        })
        .await
    }

    async fn vote(&mut self) -> i64 {
        soon("a vote", async {
            let mut framing = Framing { max_len: FRAME_LEN_MAX };
            loop {
                if let Some(frame) = framing.decode(&mut self.unread).unwrap() {
                    return Notification::decode(&frame).unwrap().round;
                }
                assert!(self.stream.read_buf(&mut self.unread).await.unwrap() > 0, "closed");
            }
        })
        .await
    }

    /// Waits until the other side hangs up.
    async fn closed(mut self) {
        soon("the end", async {
            let mut sink = [0; 1024];
            while let Ok(1..) = self.stream.read(&mut sink).await {}
        })
        .await;
    }
}

#[tokio::test]
async fn three_servers_hear_each_other() {
    let mut sockets = Vec::new();
    for id in 1..=3 {
        sockets.push((id, socket().await));
    }
    let addresses: Vec<_> = sockets.iter().map(|(id, (_, address))| (*id, *address)).collect();
    let members: Vec<_> =
        sockets.into_iter().map(|(id, (listener, _))| start(id, listener, &addresses)).collect();
    for round in 1..=3 {
        for (own, member) in (1..).zip(&members) {
            for (other, _) in addresses.iter().filter(|(other, _)| *other != own) {
                member.notify(*other, round * 10 + own);
            }
        }
        for (own, member) in (1..).zip(&members) {
            for (other, _) in addresses.iter().filter(|(other, _)| *other != own) {
                member.told.vote(*other, round * 10 + other).await;
            }
            assert_eq!(member.elections.connected().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_dialer_with_the_smaller_id_is_dialled_back() {
    let ((listener, _), (own, own_address)) = (socket().await, socket().await);
    let member = start(2, listener, &[(1, own_address)]);
    let raw = Raw::greet(member.address, 1, own_address).await;
    raw.closed().await;
    let (stream, _) = soon("the dial", own.accept()).await.unwrap();
    let mut back = Raw { stream, unread: BytesMut::new() };
    assert_eq!(back.hello().await, Hello { id: ServerId(2), addresses: vec![at(member.address)] });
    back.send_vote(7).await;
    member.told.vote(1, 7).await;
    member.told.reachable(1, true).await;
    // The two have crossed: the one that stands is good enough.
    Raw::greet(member.address, 1, own_address).await.closed().await;
    member.notify(1, 8);
    assert_eq!(back.vote().await, 8);
}

#[tokio::test]
async fn the_newest_vote_is_what_is_sent_and_said_again() {
    let ((listener, _), (gone, nobody)) = (socket().await, socket().await);
    drop(gone);
    let member = start(1, listener, &[(3, nobody)]);
    for round in 1..=4 {
        member.notify(3, round);
    }
    member.told.reachable(3, false).await;
    let mut first = Raw::greet(member.address, 3, nobody).await;
    assert_eq!(first.vote().await, 4, "the others were replaced");
    member.told.reachable(3, true).await;
    // A new connection takes the place of the old one, and hears what was said last.
    let mut second = Raw::greet(member.address, 3, nobody).await;
    assert_eq!(second.vote().await, 4);
    first.closed().await;
    member.notify(3, 5);
    assert_eq!(second.vote().await, 5);
    second.send_vote(9).await;
    member.told.vote(3, 9).await;
}

#[tokio::test]
async fn a_lost_connection_tells_at_once_whether_the_server_is_there() {
    let ((listener, _), (other, other_address)) = (socket().await, socket().await);
    let member = start(3, listener, &[(1, other_address)]);
    member.notify(1, 1);
    let (stream, _) = soon("the dial", other.accept()).await.unwrap();
    let mut raw = Raw { stream, unread: BytesMut::new() };
    raw.hello().await;
    assert_eq!(raw.vote().await, 1);
    member.told.reachable(1, true).await;
    // It is dialled again though there is nothing to say.
    drop(raw);
    let (stream, _) = soon("the dial", other.accept()).await.unwrap();
    let mut raw = Raw { stream, unread: BytesMut::new() };
    raw.hello().await;
    assert_eq!(raw.vote().await, 1, "said again");
    drop(other);
    drop(raw);
    member.told.reachable(1, false).await;
}

#[tokio::test]
async fn observers_without_an_id_get_one() {
    let ((listener, _), (own, own_address)) = (socket().await, socket().await);
    let member = start(2, listener, &[]);
    Raw::greet(member.address, NAMELESS.0, own_address).await.closed().await;
    let (stream, _) = soon("the dial", own.accept()).await.unwrap();
    let mut back = Raw { stream, unread: BytesMut::new() };
    back.hello().await;
    back.send_vote(5).await;
    member.told.vote(-1, 5).await;
    member.notify(-1, 6);
    assert_eq!(back.vote().await, 6);
    drop(back);
    soon("its end", async {
        while !member.elections.servers().known.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn hostile_dialers_cost_their_own_connections() {
    let ((listener, _), (_own, own_address)) = (socket().await, socket().await);
    let member = start(2, listener, &[(3, own_address)]);
    let mut good = Raw::greet(member.address, 3, own_address).await;
    good.send_vote(1).await;
    member.told.vote(3, 1).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0; 64],
        &hello::encode(ServerId(2), &[at(own_address)], false), // its own id
        &hello::encode(ServerId(-7), &[at(own_address)], false),
    ] {
        let mut raw = Raw::dial(member.address).await;
        raw.send(bytes).await;
        raw.closed().await;
    }
    // One that says nothing, and one that stops in the middle.
    let silent = Raw::dial(member.address).await;
    let mut slow = Raw::dial(member.address).await;
    slow.send(&ElectionHello::V1.to_be_bytes()).await;
    silent.closed().await;
    slow.closed().await;
    // Frames that cannot be.
    for len in [0, -1, i32::MAX, 524_289] {
        let mut raw = Raw::greet(member.address, 9, own_address).await;
        raw.send(&len.to_be_bytes()).await;
        raw.closed().await;
    }
    // A frame that is no vote is ignored, as upstream does.
    good.send(&[0, 0, 0, 3, 1, 2, 3]).await;
    good.send_vote(2).await;
    member.told.vote(3, 2).await;
    assert_eq!(member.elections.connected(), [ServerId(3)]);
}

#[tokio::test]
async fn a_flood_of_silent_connections_keeps_nobody_out() {
    let ((listener, _), (_own, own_address)) = (socket().await, socket().await);
    let member = start(2, listener, &[(3, own_address)]);
    let mut flood = Vec::new();
    for _ in 0..3 * UNKNOWN_MAX {
        flood.push(Raw::dial(member.address).await);
    }
    let mut good = Raw::greet(member.address, 3, own_address).await;
    good.send_vote(1).await;
    member.told.vote(3, 1).await;
    flood.remove(0).closed().await;
    member.serving.abort();
}

#[tokio::test]
async fn strangers_are_counted() {
    let ((listener, _), (_own, own_address)) = (socket().await, socket().await);
    let member = start(2, listener, &[]);
    let mut strangers = Vec::new();
    for id in 0..STRANGERS_MAX {
        let id = 100 + i64::try_from(id).unwrap();
        let mut raw = Raw::greet(member.address, id, own_address).await;
        raw.send_vote(id).await;
        member.told.vote(id, id).await;
        strangers.push(raw);
    }
    Raw::greet(member.address, 999, own_address).await.closed().await;
    drop(strangers.pop());
    soon("a place", async {
        loop {
            let mut raw = Raw::greet(member.address, 998, own_address).await;
            raw.send_vote(998).await;
            let heard = timeout(Duration::from_millis(200), member.told.vote(998, 998)).await;
            if heard.is_ok() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn members_come_move_and_go() {
    let (listener, _) = socket().await;
    let ((first, first_address), (second, second_address)) = (socket().await, socket().await);
    let member = start(3, listener, &[]);
    let activate = |all: &[(i64, SocketAddr)]| {
        let members = all.iter().map(|(id, address)| (ServerId(*id), vec![at(*address)]));
        member.elections.activate(members.collect());
    };
    // Nobody knows where it is.
    member.notify(1, 1);
    activate(&[(3, member.address), (1, first_address)]);
    member.notify(1, 2);
    let (stream, _) = soon("the dial", first.accept()).await.unwrap();
    let mut raw = Raw { stream, unread: BytesMut::new() };
    raw.hello().await;
    assert_eq!(raw.vote().await, 2);
    // It moves, and so does this server: what stands stays, and says nothing of it.
    let moved: SocketAddr = "127.0.0.9:1".parse().unwrap();
    activate(&[(3, moved), (1, second_address)]);
    member.notify(1, 3);
    assert_eq!(raw.vote().await, 3);
    drop(raw);
    let (stream, _) = soon("the dial", second.accept()).await.unwrap();
    let mut raw = Raw { stream, unread: BytesMut::new() };
    assert_eq!(raw.hello().await.addresses, [at(moved)]);
    assert_eq!(raw.vote().await, 3, "said again");
    // It goes: it is hung up on, and not dialled any more. As a stranger it is heard again.
    activate(&[(3, moved)]);
    raw.closed().await;
    member.notify(1, 4);
    assert!(member.elections.connected().is_empty());
    Raw::greet(member.address, 1, second_address).await.closed().await;
    let (stream, _) = soon("the dial", second.accept()).await.unwrap();
    let mut raw = Raw { stream, unread: BytesMut::new() };
    raw.hello().await;
    raw.send_vote(5).await;
    member.told.vote(1, 5).await;
    // This server goes too; where it is stays what it says.
    activate(&[(1, second_address)]);
    drop(raw);
    let (stream, _) = soon("a member is dialled anew", second.accept()).await.unwrap();
    let mut raw = Raw { stream, unread: BytesMut::new() };
    assert_eq!(raw.hello().await.addresses, [at(moved)]);
}
