//! What a learner is missing, read from storage for it; and a snapshot from the leader, taken in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Builder;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::snapshot::{SnapshotAcls, SnapshotDecoder, SnapshotEncoder, SnapshotItem};
use zk_proto::{Record, Zxid};
use zk_storage::{
    LogError, LogHandle, Meta, Reader, StagedState, State, StateSnapshot, StorageError, ZnodeValue,
};
use zk_tree::{CheckpointItem, Database, TreeConfig};
use zk_zab::LinkId;

use super::learner_link::{progress, snapshot_received};
use super::link_outbox::{Expansion, LinkOutbox, PROGRESS};
use crate::context::Context;

/// Bytes handed to the socket at once.
const CHUNK: usize = 256 << 10;

/// Chunks read ahead of the socket, or received ahead of the decoder.
const CHUNKS_AHEAD: usize = 4;

/// Where snapshots are read from, and how the trees are configured that are made from them.
pub(crate) struct Snapshots {
    pub(crate) log: LogHandle,
    pub(crate) state: Arc<State>,
    pub(crate) tree: TreeConfig,
    /// As many snapshots are sent at once (`leader.maxConcurrentSnapSyncs`); others wait.
    pub(crate) sending: Arc<Semaphore>,
}

/// Encodes into chunks for an [`Expansion`].
struct Sink {
    out: BytesMut,
    chunks: mpsc::Sender<Result<Bytes, String>>,
}

impl Sink {
    fn pair() -> (Self, Expansion) {
        let (chunks, expansion) = mpsc::channel(CHUNKS_AHEAD);
        (Self { out: BytesMut::with_capacity(CHUNK), chunks }, expansion)
    }

    /// Hands a full chunk on; waits while the socket does not take them.
    fn flush_full(&mut self) -> Result<(), String> {
        if self.out.len() < CHUNK {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        let chunk = self.out.split().freeze();
        self.out.reserve(CHUNK);
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| "the link is closed".to_owned())
    }

    fn packet(&mut self, packet_type: PacketType, zxid: Zxid, data: Option<Bytes>) {
        QuorumPacket { packet_type, zxid, data, authinfo: None }.encode(&mut self.out);
    }

    /// Every transaction that the reader gives, as `PROPOSAL` and `COMMIT`.
    fn history(&mut self, history: Result<Reader, LogError>) -> Result<(), String> {
        for entry in history.map_err(|error| error.to_string())? {
            let (zxid, txn) = entry.map_err(|error| error.to_string())?;
            self.packet(PacketType::PROPOSAL, zxid, Some(txn));
            self.packet(PacketType::COMMIT, zxid, None);
            self.flush_full()?;
        }
        Ok(())
    }

    fn finish(mut self, result: Result<(), String>) {
        let result = result.and_then(|()| self.flush());
        if let Err(error) = result {
            // Nobody receives any more when the link is closed, which is no error then.
            drop(self.chunks.blocking_send(Err(error)));
        }
    }
}

/// Begins to read a part of the history for a learner.
pub(crate) fn send_history(context: &Arc<Context>, after: Zxid, to: Zxid) -> Expansion {
    let (mut sink, expansion) = Sink::pair();
    let quorum = context.quorum();
    // Now: what is purged from here on can be read all the same.
    let history = quorum.snapshots.log.read_range(after, to);
    quorum.tasks.runtime().spawn_blocking(move || {
        let result = sink.history(history);
        sink.finish(result);
    });
    expansion
}

/// Takes a picture of the stored state as it is now, and begins to send it, and the history from there
/// to `to`.
pub(crate) fn send(context: &Arc<Context>, link: LinkId, to: Zxid) -> Expansion {
    let (sink, expansion) = Sink::pair();
    let (taken, wait) = std::sync::mpsc::sync_channel(1);
    let context = Arc::clone(context);
    // A thread of its own: the picture borrows the state. Its number is that of learners.
    let spawned = Builder::new().name("snapshot".into()).spawn(move || {
        let snapshots = &context.quorum().snapshots;
        let snapshot = snapshots.state.snapshot();
        let zxid = snapshot.meta().map_or(Zxid::ZERO, |meta| meta.applied);
        // Now: while this one is sent, or waits for others, the log behind it may be purged.
        let history = snapshots.log.read_range(zxid, to);
        taken.send(()).expect("whoever asked waits for it");
        let sending = Arc::clone(&snapshots.sending).acquire_owned();
        let permit = context.quorum().tasks.runtime().block_on(sending);
        tracing::info!(link = link.0, %zxid, %to, "sending a snapshot");
        send_picture(snapshots.tree, &snapshot, history, link, sink);
        drop(permit);
    });
    match spawned {
        // From here on the state may go on: what is sent is as of this moment.
        Ok(_) => drop(wait.recv()),
        Err(error) => tracing::error!(%error, "no thread could be started to send a snapshot"),
    }
    expansion
}

fn send_picture(
    tree: TreeConfig,
    snapshot: &StateSnapshot<'_>,
    history: Result<Reader, LogError>,
    link: LinkId,
    mut sink: Sink,
) {
    let zxid = snapshot.meta().map_or(Zxid::ZERO, |meta| meta.applied);
    sink.packet(PacketType::SNAP, zxid, None);
    let encoded = match snapshot.meta() {
        Some(_) => encode(snapshot, &mut sink),
        None => encode_new(tree, &mut sink),
    };
    let result = encoded.and_then(|()| sink.history(history));
    if let Err(why) = &result {
        tracing::warn!(link = link.0, %why, "the snapshot was not sent to its end");
    }
    sink.finish(result);
}

/// Reads the state twice: the ACLs and the sessions stand before the znodes in the stream.
fn encode(snapshot: &StateSnapshot<'_>, sink: &mut Sink) -> Result<(), String> {
    let mut acls = SnapshotAcls::default();
    let mut sessions = Vec::new();
    let mut gather = || {
        snapshot.scan_znodes(|_, value| {
            acls.insert_encoded(value.acl);
            Ok::<_, StorageError>(())
        })?;
        snapshot.scan_sessions(|id, timeout_ms| {
            sessions.push((id, timeout_ms));
            Ok::<_, StorageError>(())
        })
    };
    gather().map_err(|error| error.to_string())?;
    let mut encoder = SnapshotEncoder::new(sessions.len(), &acls, &mut sink.out);
    for (id, timeout_ms) in sessions {
        encoder.session(id, timeout_ms, &mut sink.out);
        sink.flush_full()?;
    }
    let scanned = snapshot.scan_znodes(|path, value| {
        let key = acls.key_of_encoded(value.acl).expect("the first reading saw it");
        encoder.znode(path, value.data, key, &value.stat, &mut sink.out);
        sink.flush_full().map_err(Stopped::Link)
    });
    scanned.map_err(|stopped: Stopped| match stopped {
        Stopped::Link(why) => why,
        Stopped::Storage(error) => error.to_string(),
    })?;
    encoder.finish(&mut sink.out);
    Ok(())
}

/// Why the state was not read to its end.
enum Stopped {
    Link(String),
    Storage(StorageError),
}

impl From<StorageError> for Stopped {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A server that has stored nothing yet began with the same tree as every other.
fn encode_new(tree: TreeConfig, sink: &mut Sink) -> Result<(), String> {
    let mut db = Database::new(tree);
    let mut checkpoint = db.begin_checkpoint();
    let mut items = Vec::new();
    while db.checkpoint_chunk(&mut checkpoint, usize::MAX, &mut items) {
        checkpoint.run_unlocked();
    }
    let mut acls = SnapshotAcls::default();
    for item in &items {
        if let CheckpointItem::PutZnode { acl, .. } = item {
            acls.insert(acl);
        }
    }
    let keys = acls.clone();
    let mut encoder = SnapshotEncoder::new(0, &keys, &mut sink.out);
    for item in &items {
        if let CheckpointItem::PutZnode { path, data, acl, stat } = item {
            encoder.znode(path, data.as_deref(), acls.insert(acl), stat, &mut sink.out);
        }
    }
    encoder.finish(&mut sink.out);
    Ok(())
}

/// Snapshots that came whole, and that nobody has asked to install yet.
#[derive(Default)]
pub(crate) struct StagedSnapshots(Mutex<HashMap<LinkId, StagedState>>);

impl StagedSnapshots {
    fn table(&self) -> MutexGuard<'_, HashMap<LinkId, StagedState>> {
        self.0.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// The snapshot that came on a link, to be installed.
    pub(crate) fn take(&self, link: LinkId) -> Option<StagedState> {
        self.table().remove(&link)
    }
}

/// The link is gone: what came on it counts for nothing, unless it is being installed.
pub(crate) fn forget(context: &Arc<Context>, link: LinkId) {
    if let Some(staged) = context.quorum().staged.take(link) {
        let context = Arc::clone(context);
        let discard = move || context.quorum().snapshots.state.discard(staged);
        tokio::task::spawn_blocking(discard);
    }
}

/// A snapshot that was taken in, and the bytes behind it.
struct Received {
    db: Database,
    staged: StagedState,
    rest: BytesMut,
}

/// Takes in the stream behind a `SNAP` packet, stages it, and tells the core. Returns the bytes behind
/// the stream.
///
/// # Errors
/// Why it could not be taken in; nothing of it counts then.
pub(crate) async fn receive(
    context: &Arc<Context>,
    outbox: &LinkOutbox,
    zxid: Zxid,
    reader: &mut OwnedReadHalf,
    unread: BytesMut,
) -> Result<BytesMut, String> {
    tracing::info!(link = outbox.id().0, %zxid, "receiving a snapshot");
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let mut job = {
        let context = Arc::clone(context);
        tokio::task::spawn_blocking(move || take_in(&context, zxid, unread, received))
    };
    let mut chunk = BytesMut::new();
    let mut told = Instant::now();
    // Bytes that were read when the snapshot had ended already.
    let mut behind = None;
    let taken = loop {
        if chunk.is_empty() {
            chunk.reserve(CHUNK);
        }
        tokio::select! {
            biased;
            taken = &mut job => break taken,
            read = reader.read_buf(&mut chunk), if behind.is_none() => match read {
                Ok(0) => return Err("it was closed in the middle of a snapshot".to_owned()),
                Ok(_) => {
                    if told.elapsed() >= PROGRESS {
                        told = Instant::now();
                        progress(context, outbox.id());
                    }
                    if let Err(refused) = chunks.send(chunk.split()).await {
                        behind = Some(refused.0);
                    }
                }
                Err(error) => return Err(error.to_string()),
            },
        }
    };
    let Received { db, staged, mut rest } = taken.map_err(|error| error.to_string())??;
    if let Some(behind) = behind {
        rest.unsplit(behind);
    }
    if outbox.is_closed() {
        context.quorum().snapshots.state.discard(staged);
        return Err("it was closed".to_owned());
    }
    context.quorum().staged.table().insert(outbox.id(), staged);
    snapshot_received(context, outbox.id(), zxid, db);
    Ok(rest)
}

/// Decodes the stream, builds its tree, and stages it.
fn take_in(
    context: &Context,
    zxid: Zxid,
    mut unread: BytesMut,
    mut chunks: mpsc::Receiver<BytesMut>,
) -> Result<Received, String> {
    let snapshots = &context.quorum().snapshots;
    let mut decoder = SnapshotDecoder::new(context.quorum().links.config.data_max);
    let mut db = Database::new(snapshots.tree);
    let mut staging = snapshots.state.stage().map_err(|error| error.to_string())?;
    loop {
        let item = decoder.decode(&mut unread).map_err(|error| error.to_string())?;
        match item {
            Some(SnapshotItem::Session(session)) => {
                db.load_session(session.session_id, session.timeout_ms);
                staging.put_session(session.session_id, session.timeout_ms)
            }
            Some(SnapshotItem::Znode(znode)) => {
                let acl = crate::storage::encode_acl(&znode.acl);
                let value = ZnodeValue { data: znode.data.as_deref(), acl: &acl, stat: znode.stat };
                db.load_znode(&znode.path, znode.data.as_deref(), &znode.acl, &znode.stat);
                staging.put_znode(&znode.path, &value)
            }
            Some(SnapshotItem::End) => break,
            None => {
                let more = chunks.blocking_recv().ok_or("the link is closed")?;
                unread.unsplit(more);
                Ok(())
            }
        }
        .map_err(|error| error.to_string())?;
    }
    // What comes from now on is kept by whoever reads the link.
    chunks.close();
    while let Ok(more) = chunks.try_recv() {
        unread.unsplit(more);
    }
    if decoder.missing_acls() > 0 {
        tracing::warn!(
            znodes = decoder.missing_acls(),
            "the leader's snapshot has znodes whose ACL it does not have; the transactions behind it set them"
        );
    }
    db.finish_load(zxid).map_err(|error| error.to_string())?;
    let meta =
        Meta { applied: zxid, digest: db.tree.digest(), time_ms: context.clock.now().wall_ms };
    let staged = staging.finish(meta).map_err(|error| error.to_string())?;
    tracing::info!(%zxid, znodes = db.tree.node_count(), sessions = db.tree.sessions().len(), "a snapshot was received");
    Ok(Received { db, staged, rest: unread })
}
