//! addWatch, checkWatches, removeWatches, setWatches, setWatches2.

use bytes::BytesMut;
use zk_proto::proto::{
    AddWatchRequest, CheckWatchesRequest, RemoveWatchesRequest, SetWatches, SetWatches2,
};
use zk_proto::watch::{AddWatchMode, EventType, WatcherType};
use zk_proto::{ErrorCode, Zxid};
use zk_tree::{WatchEvent, WatchKind};

use super::Read;
use crate::reply;

/// Any path will do, also one that does not exist or cannot.
pub(super) fn add(
    read: &Read<'_>,
    request: &AddWatchRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let mode = AddWatchMode::from_code(request.mode).ok_or(ErrorCode::MARSHALLING_ERROR)?;
    read.watch(
        &request.path,
        match mode {
            AddWatchMode::Persistent => WatchKind::Persistent,
            AddWatchMode::PersistentRecursive => WatchKind::PersistentRecursive,
        },
    );
    reply::error_body(body, ErrorCode::OK);
    Ok(())
}

pub(super) fn check(read: &Read<'_>, request: &CheckWatchesRequest) -> Result<(), ErrorCode> {
    let watcher_type =
        WatcherType::from_code(request.watcher_type).ok_or(ErrorCode::MARSHALLING_ERROR)?;
    if read.db.watches.contains(&request.path, read.client.id, watcher_type) {
        Ok(())
    } else {
        Err(ErrorCode::NO_WATCHER)
    }
}

pub(super) fn remove(read: &Read<'_>, request: &RemoveWatchesRequest) -> Result<(), ErrorCode> {
    let watcher_type =
        WatcherType::from_code(request.watcher_type).ok_or(ErrorCode::MARSHALLING_ERROR)?;
    if read.db.watches.remove(&request.path, read.client.id, watcher_type) {
        Ok(())
    } else {
        Err(ErrorCode::NO_WATCHER)
    }
}

/// Sets a client's watches again after it reconnected. What changed since it last heard fires at
/// once, ahead of the reply (facts, section 1.14). Gives the number of events.
pub(super) fn set(read: &Read<'_>, request: &SetWatches) -> u64 {
    let SetWatches { relative_zxid, data_watches, exist_watches, child_watches } = request;
    catch_up(read, *relative_zxid, data_watches, exist_watches, child_watches)
}

/// The same with persistent watches, which have nothing to catch up with.
pub(super) fn set2(read: &Read<'_>, request: &SetWatches2) -> u64 {
    let SetWatches2 {
        relative_zxid,
        data_watches,
        exist_watches,
        child_watches,
        persistent_watches,
        persistent_recursive_watches,
    } = request;
    let events = catch_up(read, *relative_zxid, data_watches, exist_watches, child_watches);
    for path in persistent_watches {
        read.watch(path, WatchKind::Persistent);
    }
    for path in persistent_recursive_watches {
        read.watch(path, WatchKind::PersistentRecursive);
    }
    events
}

fn catch_up(
    read: &Read<'_>,
    relative: Zxid,
    data: &[String],
    exist: &[String],
    child: &[String],
) -> u64 {
    let mut catch_up = CatchUp { read, relative, events: 0 };
    data.iter().for_each(|path| catch_up.data(path));
    exist.iter().for_each(|path| catch_up.exist(path));
    child.iter().for_each(|path| catch_up.child(path));
    catch_up.events
}

struct CatchUp<'a, 'r> {
    read: &'a Read<'r>,
    relative: Zxid,
    events: u64,
}

impl CatchUp<'_, '_> {
    fn data(&mut self, path: &str) {
        match self.read.db.tree.find(path) {
            None => self.fire(EventType::NodeDeleted, path),
            Some(znode) if znode.stat_persisted().mzxid > self.relative.0 => {
                self.fire(EventType::NodeDataChanged, path);
            }
            Some(_) => self.read.watch(path, WatchKind::Data),
        }
    }

    fn exist(&mut self, path: &str) {
        match self.read.db.tree.find(path) {
            None => self.read.watch(path, WatchKind::Data),
            Some(_) => self.fire(EventType::NodeCreated, path),
        }
    }

    fn child(&mut self, path: &str) {
        match self.read.db.tree.find(path) {
            None => self.fire(EventType::NodeDeleted, path),
            Some(znode) if znode.stat_persisted().pzxid > self.relative.0 => {
                self.fire(EventType::NodeChildrenChanged, path);
            }
            Some(_) => self.read.watch(path, WatchKind::Child),
        }
    }

    fn fire(&mut self, event_type: EventType, path: &str) {
        let event = WatchEvent { event_type, path, zxid: Zxid(-1), acl: &[] };
        self.read.client.outbox.push(&mut |out| reply::event(out, &event));
        self.events += 1;
    }
}
