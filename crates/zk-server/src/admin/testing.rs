//! A server without disk and sockets, for the tests of what it tells about itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use zk_config::Sources;
use zk_processor::{Action, Client, Node, NodeConfig, Now, Outbox, ReadOnlyMode};
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::quorum::PeerState;
use zk_proto::{Epoch, OpCode, ServerId, SessionId, Zxid};
use zk_session::SessionConfig;
use zk_tree::{Database, TreeConfig};
use zk_zab::{
    Durable, LearnerPhase, LearnerStatus, LinkId, Members, NoHistory, PeerConfig, PeerStatus,
};

use crate::context::{Clock, Context, Counters, Ending};
use crate::membership::Membership;
use crate::storage::StoreQueue;

/// The first session of a test server, as the server makes it up.
pub(super) const FIRST_SESSION: SessionId = SessionId(0x0100_0000_0000_0010);

/// A server whose every write is durable at once.
pub(crate) fn context(zoo_cfg: &str) -> Arc<Context> {
    context_of(zoo_cfg, None, false)
}

/// One that is member `id` of an ensemble of three voters and an observer, as the configuration says;
/// its core is that of a standalone server, so tests say how it stands.
pub(super) fn member(zoo_cfg: &str, id: u64) -> Arc<Context> {
    context_of(&members(zoo_cfg), Some(id), false)
}

/// The same, read-only: its core has looked for a leader for a while.
pub(super) fn read_only_member(zoo_cfg: &str, id: u64) -> Arc<Context> {
    context_of(&members(zoo_cfg), Some(id), true)
}

fn members(zoo_cfg: &str) -> String {
    let members = "tickTime=500\ninitLimit=10\nsyncLimit=5\n\
                   server.1=127.0.0.1:27011:27021:participant;127.0.0.1:27001\n\
                   server.2=127.0.0.1:27012:27022\nserver.3=127.0.0.1:27013:27023\n\
                   server.4=127.0.0.1:27014:27024:observer\n";
    format!("{members}{zoo_cfg}")
}

fn context_of(zoo_cfg: &str, my_id: Option<u64>, read_only: bool) -> Arc<Context> {
    let port = if my_id == Some(1) { 27001 } else { 2181 };
    let text = format!("dataDir=/nowhere\nclientPort={port}\n{zoo_cfg}");
    let mut sources = Sources::new().file("zoo.cfg", &text);
    if let Some(id) = my_id {
        sources = sources.my_id("myid", &id.to_string());
    }
    let loaded = sources.load();
    let (config, _) = loaded.accept(false).map_err(|wrong| wrong.render()).unwrap();
    let clock = Clock::start();
    let session = SessionConfig {
        tick_ms: 2000,
        min_timeout_ms: 4000,
        max_timeout_ms: 40_000,
        first_id: FIRST_SESSION,
    };
    let tree = TreeConfig { extended_types: ExtendedTypes::Disabled, digest_enabled: true };
    let node = match my_id.filter(|_| read_only) {
        None => Node::standalone(NodeConfig::new(session), Database::new(tree), clock.now()),
        Some(id) => {
            without_a_quorum(NodeConfig::new(session), id, Database::new(tree), clock.now())
        }
    };
    Arc::new(Context {
        node,
        started_wall_ms: clock.now().wall_ms,
        membership: Membership::new(&config),
        client_address: Mutex::new(None),
        config,
        clock,
        counters: Counters::default(),
        queue: StoreQueue::default(),
        disk_low: AtomicBool::new(false),
        quorum: None,
        ending: Ending::default(),
    })
}

/// A member that has looked for a leader for as long as it takes to serve reads without one.
fn without_a_quorum(config: NodeConfig, id: u64, db: Database, now: Now) -> Node {
    let config = NodeConfig { read_only_mode: ReadOnlyMode::Enabled, ..config };
    let voters = [1, 2, 3].map(ServerId).into();
    let members = Members { voters, ..Members::default() };
    let peer = PeerConfig::new(ServerId(id.cast_signed()), members);
    let node = Node::member(config, peer, Durable::default(), db, Box::new(NoHistory), now);
    let later = Now { mono_us: now.mono_us + 2_000_000, ..now };
    node.on_tick(later, &mut |_| {});
    assert!(node.is_read_only());
    node
}

/// Swallows what is sent.
#[derive(Debug)]
struct Nowhere;

impl Outbox for Nowhere {
    fn push(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        write(&mut BytesMut::new());
    }
    fn close(&self) {}
    fn resume(&self) {}
}

/// A connection from `peer`, without a session.
pub(super) fn connect(context: &Context, peer: &str) -> Arc<Client> {
    let peer: SocketAddr = peer.parse().unwrap();
    let client = context.node.open(peer.ip().to_string(), Box::new(Nowhere), context.clock.now());
    context.counters.peers.insert(client.id, peer);
    client
}

/// Gives it a session; a read-only server will do.
pub(super) fn establish(context: &Context, client: &Arc<Client>) {
    let mut frame = BytesMut::new();
    frame.put_i32(0); // protocol version
    frame.put_i64(0); // last zxid seen
    frame.put_i32(10_000); // timeout
    frame.put_i64(0); // session
    frame.put_i32(16);
    frame.put_bytes(0, 16);
    frame.put_u8(1);
    serve(context, client, frame.freeze());
    assert!(client.has_session());
}

/// Creates a znode, ephemeral or not.
pub(super) fn create(
    context: &Context,
    client: &Arc<Client>,
    path: &str,
    data: &str,
    ephemeral: bool,
) {
    let mut frame = request(1, OpCode::CREATE);
    put_string(&mut frame, path);
    put_string(&mut frame, data);
    frame.put_i32(1);
    frame.put_i32(31); // all permissions
    put_string(&mut frame, "world");
    put_string(&mut frame, "anyone");
    frame.put_i32(i32::from(ephemeral));
    serve(context, client, frame.freeze());
    assert!(context.node.read(|db| db.tree.find(path).is_some()), "{path}");
}

/// Reads a znode and watches it.
pub(super) fn watch(context: &Context, client: &Arc<Client>, path: &str) {
    let mut frame = request(2, OpCode::GET_DATA);
    put_string(&mut frame, path);
    frame.put_u8(1);
    serve(context, client, frame.freeze());
}

fn request(xid: i32, op: OpCode) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(xid);
    frame.put_i32(op.0);
    frame
}

fn put_string(frame: &mut BytesMut, text: &str) {
    frame.put_i32(i32::try_from(text.len()).unwrap());
    frame.put_slice(text.as_bytes());
}

fn serve(context: &Context, client: &Arc<Client>, frame: Bytes) {
    let mut frames = VecDeque::from([frame]);
    let mut actions = Vec::new();
    context
        .node
        .on_frames(client, &mut frames, context.clock.now(), &mut |action| actions.push(action));
    while let Some(Action::Persist { token, .. }) = actions.pop() {
        context.node.on_persisted(token, context.clock.now(), &mut |action| actions.push(action));
    }
}

/// A member of [`member`]'s ensemble that serves in this state; a leader has all the others behind it.
pub(super) fn standing(state: PeerState) -> PeerStatus {
    let zxid = Zxid(0x1_0000_0009);
    let id = match state {
        PeerState::Leading => 3,
        PeerState::Following | PeerState::Looking => 2,
        PeerState::Observing => 4,
    };
    let learner = |id: i64| LearnerStatus {
        id: ServerId(id),
        link: LinkId(id.unsigned_abs()),
        voter: id != 4,
        phase: LearnerPhase::Broadcast,
        acked: if id == 4 { Zxid(0) } else { zxid },
        heard_ms: 900,
    };
    let leading = state == PeerState::Leading;
    let looking = state == PeerState::Looking;
    PeerStatus {
        id: ServerId(id),
        state,
        serving: !looking,
        leader: (!looking).then_some(ServerId(3)),
        learner_master: (state == PeerState::Observing).then_some(ServerId(3)),
        accepted_epoch: Epoch(1),
        current_epoch: Epoch(1),
        round: 1,
        last_logged: zxid,
        committed: zxid,
        delivered: zxid,
        outstanding: 0,
        learners: if leading { [1, 2, 4].map(learner).to_vec() } else { Vec::new() },
        election_ms: Some(344),
        sync_ms: Some(21),
    }
}
