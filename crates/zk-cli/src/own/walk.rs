//! Walks a subtree in order with many requests in flight and few znodes held.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::task::JoinHandle;
use zk_client::{Client, ErrorCode, ZkError};
use zk_proto::acl::Acl;
use zk_proto::create_mode::{ExtendedTypes, OwnerKind};
use zk_proto::data::Stat;
use zk_proto::{OpCode, path};

use super::write::back;

/// Znodes that are asked for, or held until their turn.
const WINDOW: usize = 256;
/// What they may take; the largest data seen so far are what is reckoned with.
const HELD_BYTES: usize = 64 << 20;
/// Times that a znode is asked for again after the connection was lost.
const TRIES: usize = 5;

/// What is read of each znode besides its stat.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want {
    pub(crate) data: bool,
    pub(crate) acl: bool,
}

/// A znode as the walk found it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) path: String,
    /// 0 for the root of the walk.
    pub(crate) depth: usize,
    /// The last of its parent's children.
    pub(crate) last: bool,
    pub(crate) stat: Stat,
    pub(crate) data: Option<Bytes>,
    pub(crate) acl: Vec<Acl>,
}

impl Node {
    pub(crate) fn kind(&self) -> OwnerKind {
        kind(&self.stat)
    }
}

/// What kind of znode it is, as far as the server tells: since 3.5.4 a client sees 0 for the owner of a container or of a
/// znode with a TTL (`DataNode.getClientEphemeralOwner`).
pub(crate) fn kind(stat: &Stat) -> OwnerKind {
    ExtendedTypes::Enabled.kind(stat.ephemeral_owner)
}

pub(crate) fn kind_name(kind: OwnerKind) -> &'static str {
    match kind {
        OwnerKind::Void => "persistent",
        OwnerKind::Session(_) => "ephemeral",
        OwnerKind::Container => "container",
        OwnerKind::Ttl(_) => "ttl",
    }
}

#[derive(Debug)]
struct Found {
    stat: Stat,
    data: Option<Bytes>,
    acl: Vec<Acl>,
    children: Vec<String>,
}

#[derive(Debug)]
struct Slot {
    path: String,
    depth: usize,
    last: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked(JoinHandle<Result<Found, ZkError>>),
    Found(Box<Result<Found, ZkError>>),
}

/// The walk's future, in order.
#[derive(Debug)]
enum Item {
    Slot(Slot),
    /// Children that have not been asked for yet.
    More {
        parent: String,
        depth: usize,
        names: std::vec::IntoIter<String>,
    },
}

/// A walk: parents before children, children by name.
#[derive(Debug)]
pub(crate) struct Walk {
    client: Client,
    want: Want,
    max_depth: usize,
    /// Left out, with all below it.
    skip: Option<String>,
    items: VecDeque<Item>,
    largest: usize,
}

impl Walk {
    pub(crate) fn new(client: &Client, root: &str, want: Want, max_depth: usize) -> Self {
        let root = Slot {
            path: root.to_owned(),
            depth: 0,
            last: true,
            state: State::Asked(ask(client.clone(), root.to_owned(), want, max_depth > 0)),
        };
        Self {
            client: client.clone(),
            want,
            max_depth,
            skip: None,
            items: VecDeque::from([Item::Slot(root)]),
            largest: 1,
        }
    }

    pub(crate) fn skipping(mut self, path: Option<String>) -> Self {
        self.skip = path;
        self
    }

    /// The next znode. After an error, which names its path, the walk goes on behind that znode.
    pub(crate) async fn next(&mut self) -> Option<Result<Node, ZkError>> {
        loop {
            self.fill().await;
            let slot = match self.items.pop_front()? {
                Item::Slot(slot) => slot,
                // Only if it is empty.
                Item::More { .. } => continue,
            };
            let Slot { path, depth, last, state } = slot;
            let mut found = match answer(state).await {
                Ok(found) => found,
                // Deleted since it was listed.
                Err(error) if error.code == ErrorCode::NO_NODE && depth > 0 => continue,
                Err(error) => return Some(Err(error)),
            };
            self.largest = self.largest.max(found.data.as_ref().map_or(0, Bytes::len));
            if let Some(more) = self.below(&path, depth, std::mem::take(&mut found.children)) {
                self.items.push_front(more);
            }
            let Found { stat, data, acl, .. } = found;
            return Some(Ok(Node { path, depth, last, stat, data, acl }));
        }
    }

    fn below(&self, path: &str, depth: usize, mut names: Vec<String>) -> Option<Item> {
        if let Some(skip) = &self.skip
            && path::parent(skip) == path
        {
            names.retain(|name| name != path::name(skip));
        }
        names.sort();
        (!names.is_empty()).then(|| Item::More {
            parent: path.to_owned(),
            depth: depth + 1,
            names: names.into_iter(),
        })
    }

    /// Asks for what comes next, including what is below the znodes that have been answered.
    async fn fill(&mut self) {
        let limit = WINDOW.min(HELD_BYTES / self.largest).max(4);
        let (mut at, mut held) = (0, 0);
        while at < self.items.len() && held < limit {
            match &mut self.items[at] {
                Item::Slot(slot) => {
                    let ready = matches!(&slot.state, State::Asked(task) if task.is_finished());
                    if ready {
                        let placeholder = State::Found(Box::new(Ok(Found {
                            stat: NO_STAT,
                            data: None,
                            acl: Vec::new(),
                            children: Vec::new(),
                        })));
                        let mut found =
                            answer(std::mem::replace(&mut slot.state, placeholder)).await;
                        let (path, depth) = (slot.path.clone(), slot.depth);
                        let children = found.as_mut().map_or_else(
                            |_| Vec::new(),
                            |found| std::mem::take(&mut found.children),
                        );
                        slot.state = State::Found(Box::new(found));
                        if let Some(more) = self.below(&path, depth, children) {
                            self.items.insert(at + 1, more);
                        }
                    }
                    held += 1;
                    at += 1;
                }
                Item::More { parent, depth, names } => match names.next() {
                    None => drop(self.items.remove(at)),
                    Some(name) => {
                        let (path, depth) = (path::join(parent, &name), *depth);
                        let last = names.len() == 0;
                        let state = State::Asked(ask(
                            self.client.clone(),
                            path.clone(),
                            self.want,
                            depth < self.max_depth,
                        ));
                        self.items.insert(at, Item::Slot(Slot { path, depth, last, state }));
                    }
                },
            }
        }
    }
}

const NO_STAT: Stat = Stat {
    czxid: 0,
    mzxid: 0,
    ctime: 0,
    mtime: 0,
    version: 0,
    cversion: 0,
    aversion: 0,
    ephemeral_owner: 0,
    data_length: 0,
    num_children: 0,
    pzxid: 0,
};

async fn answer(state: State) -> Result<Found, ZkError> {
    match state {
        State::Asked(task) => task.await.expect("it neither panics nor is it aborted"),
        State::Found(found) => *found,
    }
}

fn ask(
    client: Client,
    path: String,
    want: Want,
    deeper: bool,
) -> JoinHandle<Result<Found, ZkError>> {
    tokio::spawn(async move {
        let mut tries = 0;
        loop {
            match read(&client, &path, want, deeper).await {
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS && tries < TRIES => {
                    tries += 1;
                    if back(&client).await.is_err() {
                        return Err(ZkError { code: ErrorCode::SESSION_EXPIRED, ..error });
                    }
                }
                result => return result,
            }
        }
    })
}

/// Reads one znode; also used for a single one.
async fn read(client: &Client, path: &str, want: Want, deeper: bool) -> Result<Found, ZkError> {
    let acl = want.acl.then(|| client.get_acl(path));
    let (data, stat) = if want.data {
        client.get_data(path, false).await?
    } else {
        let missing = || ZkError {
            code: ErrorCode::NO_NODE,
            op: OpCode::EXISTS,
            path: Some(path.to_owned()),
        };
        (None, client.exists(path, false).await?.ok_or_else(missing)?)
    };
    let acl = match acl {
        Some(acl) => acl.await?.0,
        None => Vec::new(),
    };
    let children = if deeper && stat.num_children > 0 {
        client.get_children(path, false).await?
    } else {
        Vec::new()
    };
    Ok(Found { stat, data, acl, children })
}

/// One znode by itself; `None` if it is not there.
pub(crate) async fn single(
    client: &Client,
    path: &str,
    want: Want,
) -> Result<Option<Node>, ZkError> {
    match ask(client.clone(), path.to_owned(), want, false).await.expect("it does not panic") {
        Ok(Found { stat, data, acl, .. }) => {
            Ok(Some(Node { path: path.to_owned(), depth: 0, last: true, stat, data, acl }))
        }
        Err(error) if error.code == ErrorCode::NO_NODE => Ok(None),
        Err(error) => Err(error),
    }
}
