//! Links between a leader and its learners: the packets of the quorum port.
//!
//! The leader's port always listens; whether a link is wanted is for the core to say. A link exists
//! from [`Links::insert`] until whoever removes it: the core with a `Close`, or the link's end, which
//! the core is then told of. So each end comes once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::AbortHandle;
use zk_proto::quorum::QuorumPacket;
use zk_proto::{ServerId, Zxid};
use zk_zab::{LearnerPort, LinkId};

use super::address::{self, HostPort};
use super::link_outbox::LinkOutbox;
use super::listen::Port;
use super::packets::{self, Behind};
use super::snapshot;
use super::tasks::Tasks;
use crate::actions::Batch;
use crate::client::flush_touched;
use crate::context::Context;

/// Room made for one read: a batch of packets is what comes in one.
const READ_LEN: usize = 64 << 10;

/// Links that were accepted, at most. Each is a learner that said who it is.
pub(crate) const LINKS_MAX: usize = 1024;

/// How links are made.
#[derive(Debug, Clone)]
pub(crate) struct LinkConfig {
    /// At which port of the same hosts followers feed observers.
    pub(crate) observer_master_port: Option<u16>,
    /// How long a dial may take.
    pub(crate) connect_timeout: Duration,
    /// How long a learner may take to say who it is.
    pub(crate) handshake_timeout: Duration,
    pub(crate) keep_alive: bool,
    /// The longest data of a packet.
    pub(crate) data_max: usize,
}

/// The links that there are.
pub(crate) struct Links {
    pub(crate) config: LinkConfig,
    tasks: Tasks,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    up: HashMap<LinkId, Arc<LinkOutbox>>,
    dialling: HashMap<LinkId, AbortHandle>,
}

impl Links {
    pub(crate) fn new(config: LinkConfig, tasks: Tasks) -> Self {
        Self { config, tasks, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    pub(crate) fn len(&self) -> usize {
        self.table().up.len()
    }

    pub(crate) fn get(&self, link: LinkId) -> Option<Arc<LinkOutbox>> {
        self.table().up.get(&link).cloned()
    }

    pub(crate) fn insert(&self, outbox: &Arc<LinkOutbox>) {
        self.table().up.insert(outbox.id(), Arc::clone(outbox));
    }

    /// Removes a link that has ended; whether it was still there, so that the core is to be told.
    fn remove(&self, link: LinkId) -> bool {
        self.table().up.remove(&link).is_some()
    }

    /// Hangs up, or stops dialling; the core hears no more of the link.
    pub(crate) fn close(&self, link: LinkId) {
        let (outbox, dial) = {
            let mut table = self.table();
            (table.up.remove(&link), table.dialling.remove(&link))
        };
        if let Some(outbox) = outbox {
            outbox.close();
        }
        if let Some(dial) = dial {
            dial.abort();
        }
    }

    /// Dials a member. The core hears of it once, unless it closes the link before.
    pub(crate) fn connect(
        &self,
        context: &Arc<Context>,
        link: LinkId,
        server: ServerId,
        port: LearnerPort,
    ) {
        let addresses = context.membership.addresses(Port::Quorum).remove(&server);
        let mut addresses = addresses.unwrap_or_default();
        if let (LearnerPort::ObserverMaster, Some(port)) = (port, self.config.observer_master_port)
        {
            addresses = at_port(&addresses, port);
        }
        let (limit, keep_alive) = (self.config.connect_timeout, self.config.keep_alive);
        let mut table = self.table(); // until the handle is in it
        let context = Arc::clone(context);
        let dial = self.tasks.spawn(async move {
            let dialled = address::connect(&addresses, limit, keep_alive).await;
            // On its own: what ends the dial must not end what comes of it.
            context.quorum().links.dialled(&context, link, (server, port), dialled);
        });
        table.dialling.insert(link, dial);
    }

    fn dialled(
        &self,
        context: &Arc<Context>,
        link: LinkId,
        (server, port): (ServerId, LearnerPort),
        dialled: io::Result<TcpStream>,
    ) {
        let mut table = self.table();
        if table.dialling.remove(&link).is_none() {
            return; // closed meanwhile
        }
        match dialled {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                let outbox = LinkOutbox::new(link, writer);
                table.up.insert(link, Arc::clone(&outbox));
                drop(table);
                let context = Arc::clone(context);
                self.tasks.spawn(run(context, outbox, reader, Origin::Dialled));
            }
            Err(error) => {
                drop(table);
                match port {
                    LearnerPort::Quorum => {
                        tracing::info!(%server, %error, "the leader's quorum port does not answer");
                    }
                    LearnerPort::ObserverMaster => {
                        tracing::info!(%server, %error, "the observer master port does not answer");
                    }
                }
                link_down(context, link);
            }
        }
    }
}

/// The same hosts, each once, with another port.
pub(super) fn at_port(addresses: &[HostPort], port: u16) -> Vec<HostPort> {
    let mut found: Vec<HostPort> = Vec::new();
    for HostPort { host, .. } in addresses {
        let address = HostPort { host: host.clone(), port };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// How a link came about.
pub(crate) enum Origin {
    /// This server dialled: the other side is the leader, and may send a snapshot.
    Dialled,
    /// The other side dialled this port, and these are its first words.
    Accepted { port: LearnerPort, packets: VecDeque<QuorumPacket>, unread: BytesMut },
}

fn link_down(context: &Arc<Context>, link: LinkId) {
    let mut batch = Batch::new(context);
    context.node.on_link_down(link, context.clock.now(), &mut |action| batch.push(action));
    drop(batch);
    flush_touched(context);
}

/// Serves a link, which is in the table already, to its end.
pub(crate) async fn run(
    context: Arc<Context>,
    outbox: Arc<LinkOutbox>,
    reader: OwnedReadHalf,
    origin: Origin,
) {
    let link = outbox.id();
    let progress = {
        let context = Arc::clone(&context);
        move || progress(&context, link)
    };
    let mut batch = Batch::new(&context);
    let now = context.clock.now();
    match &origin {
        Origin::Dialled | Origin::Accepted { port: LearnerPort::Quorum, .. } => {
            context.node.on_link_up(link, now, &mut |action| batch.push(action));
        }
        Origin::Accepted { port: LearnerPort::ObserverMaster, .. } => {
            context.node.on_observer_link_up(link, now, &mut |action| batch.push(action));
        }
    }
    drop(batch);
    flush_touched(&context);
    let writer = Arc::clone(&outbox).run(progress);
    let reading = async {
        let why = read(&context, &outbox, reader, origin).await;
        outbox.close();
        why
    };
    // The writer ends when the link is closed.
    let (why, ()) = tokio::join!(reading, writer);
    snapshot::forget(&context, link);
    if context.quorum().links.remove(link) {
        match why {
            End::Closed => tracing::info!(link = link.0, "the other side closed the quorum link"),
            End::Failed(why) => tracing::warn!(link = link.0, %why, "quorum link lost"),
        }
        link_down(&context, link);
    }
}

/// Why a link ended.
enum End {
    Closed,
    Failed(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

async fn read(
    context: &Arc<Context>,
    outbox: &Arc<LinkOutbox>,
    mut reader: OwnedReadHalf,
    origin: Origin,
) -> End {
    let (mut packets, mut unread, is_leader) = match origin {
        Origin::Dialled => (VecDeque::new(), BytesMut::new(), true),
        Origin::Accepted { packets, unread, .. } => (packets, unread, false),
    };
    let data_max = context.quorum().links.config.data_max;
    let mut has_staged = false;
    loop {
        let behind = packets::take(&mut unread, data_max, &mut packets);
        give(context, outbox.id(), &mut packets);
        if outbox.is_closed() {
            return End::Closed;
        }
        if has_staged && context.node.is_serving() {
            // Either it was installed, or there was nothing new in it.
            has_staged = false;
            snapshot::forget(context, outbox.id());
        }
        match behind {
            Err(error) => return End::Failed(error.to_string()),
            Ok(Behind::Packets) => {}
            Ok(Behind::Snapshot(_)) if !is_leader => {
                return End::Failed("a learner sent a snapshot".to_owned());
            }
            Ok(Behind::Snapshot(zxid)) => {
                match snapshot::receive(context, outbox, zxid, &mut reader, unread).await {
                    Ok(rest) => (unread, has_staged) = (rest, true),
                    Err(why) => return End::Failed(why),
                }
                continue;
            }
        }
        unread.reserve(READ_LEN);
        match reader.read_buf(&mut unread).await {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

/// All packets of a batch under one hold of the core's lock.
fn give(context: &Arc<Context>, link: LinkId, packets: &mut VecDeque<QuorumPacket>) {
    if packets.is_empty() {
        return;
    }
    let mut batch = Batch::new(context);
    let now = context.clock.now();
    context.node.on_packets(link, packets, now, &mut |action| batch.push(action));
    drop(batch);
    flush_touched(context);
    packets.clear();
}

/// Tells the core that a long transfer goes on.
pub(crate) fn progress(context: &Arc<Context>, link: LinkId) {
    let mut batch = Batch::new(context);
    context.node.on_progress(link, context.clock.now(), &mut |action| batch.push(action));
}

/// Tells the core of a snapshot that is staged.
pub(crate) fn snapshot_received(
    context: &Arc<Context>,
    link: LinkId,
    zxid: Zxid,
    db: zk_tree::Database,
) {
    let mut batch = Batch::new(context);
    let now = context.clock.now();
    context.node.on_snapshot(link, zxid, db, now, &mut |action| batch.push(action));
    drop(batch);
    flush_touched(context);
}
