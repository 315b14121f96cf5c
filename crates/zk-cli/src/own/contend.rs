//! The queue of contenders behind locks and elections: ephemeral sequential children, each of which watches only the one
//! before it.
//!
//! Names are those of Curator (`_c_UUID-lock-0000000007`) or kazoo (`HEX__lock__0000000007`). The random part comes
//! before the number so that a create whose answer was lost can be found again.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout_at};
use zk_client::{Client, EventKind, KeeperState, WatchedEvent, ZkError};
use zk_proto::acl::Acl;
use zk_proto::create_mode::CreateMode;
use zk_proto::data::Stat;
use zk_proto::{ErrorCode, path};

use super::connected_again;
use crate::error::CliError;

/// Exit code: not had in time, as of `timeout(1)`.
pub(crate) const TIMED_OUT: u8 = 124;
/// Exit code: lost while it was held.
pub(crate) const LOST: u8 = 125;

/// Whose names the znodes have. A client counts only the names that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Curator's locks and leader selector, and go-zk's locks.
    Curator,
    /// Curator's leader latch.
    CuratorLatch,
    /// Kazoo's locks and elections.
    Kazoo,
}

impl Layout {
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("curator", Self::Curator), ("curator-latch", Self::CuratorLatch), ("kazoo", Self::Kazoo)];

    pub(crate) fn named(name: &str) -> Result<Self, CliError> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, layout)| *layout).ok_or_else(
            || {
                CliError::usage(format!(
                    "--layout is curator, curator-latch or kazoo, not {name:?}"
                ))
            },
        )
    }

    /// What stands before the number.
    fn mark(self) -> &'static str {
        match self {
            Self::Curator => "lock-",
            Self::CuratorLatch => "latch-",
            Self::Kazoo => "__lock__",
        }
    }

    /// A name of our own, up to the number.
    fn prefix(self) -> String {
        let id = random_id();
        match self {
            Self::Curator | Self::CuratorLatch => format!("_c_{id}-{}", self.mark()),
            Self::Kazoo => format!("{}{}", id.replace('-', ""), self.mark()),
        }
    }
}

/// 128 random bits in the form of a UUID, which Curator looks for.
fn random_id() -> String {
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    let mut digits = String::new();
    for number in [random(), random() ^ u64::from(std::process::id())] {
        write!(digits, "{number:016x}").expect("a string takes all");
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// The layout and the number of a contender's name; `None` if it is no contender's.
fn place(name: &str) -> Option<(i64, Layout)> {
    Layout::ALL.iter().find_map(|(_, layout)| {
        let (_, number) = name.rsplit_once(layout.mark())?;
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Some((number.parse().ok()?, *layout)))?
    })
}

/// The contenders among a znode's children, in their order.
pub(crate) fn queue(children: Vec<String>) -> Vec<(i64, Layout, String)> {
    let mut queue: Vec<_> = children
        .into_iter()
        .filter_map(|name| place(&name).map(|(number, layout)| (number, layout, name)))
        .collect();
    queue.sort();
    queue
}

impl PartialOrd for Layout {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers of one parent are distinct: this is never asked.
impl Ord for Layout {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.mark().cmp(other.mark())
    }
}

/// A place in the queue.
pub(crate) struct Contender {
    client: Client,
    events: UnboundedReceiver<WatchedEvent>,
    /// Whose children the contenders are.
    pub(crate) root: String,
    layout: Layout,
    /// The layout was chosen by hand: who else contends is known.
    sure: bool,
    prefix: String,
    /// Our znode, once it is made.
    pub(crate) node: String,
    /// The zxid of its creation.
    pub(crate) token: i64,
}

/// What is held is held no longer, or may soon not be.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) why: String,
    /// When nothing may be done in its name any more.
    pub(crate) end: Instant,
}

impl Contender {
    pub(crate) fn new(
        client: &Client,
        root: &str,
        layout: Option<Layout>,
        default: Layout,
    ) -> Self {
        let chosen = layout.unwrap_or(default);
        Self {
            client: client.clone(),
            events: client.events(),
            root: root.to_owned(),
            layout: chosen,
            sure: layout.is_some(),
            prefix: chosen.prefix(),
            node: String::new(),
            token: 0,
        }
    }

    /// Repeats a read until the connection lasts for it.
    async fn read<T, F>(&self, read: impl Fn() -> F) -> Result<T, ZkError>
    where
        F: Future<Output = Result<T, ZkError>>,
    {
        loop {
            match read().await {
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                    if connected_again(&self.client).await.is_err() {
                        return Err(ZkError { code: ErrorCode::SESSION_EXPIRED, ..error });
                    }
                }
                result => return result,
            }
        }
    }

    /// Makes our znode; missing parents are made as containers, which go when nobody contends any more.
    pub(crate) async fn join(&mut self, data: &[u8]) -> Result<(), CliError> {
        let prefix = path::join(&self.root, &self.prefix);
        loop {
            let mode = CreateMode::EphemeralSequential;
            match self.client.create2(&prefix, Some(data), &Acl::open(), mode).await {
                Ok((node, stat)) => {
                    (self.node, self.token) = (node, stat.czxid);
                    return Ok(());
                }
                Err(error) if error.code == ErrorCode::NO_NODE => {
                    make_parents(&self.client, &self.root, CreateMode::Container).await?;
                }
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                    // It may have been made all the same.
                    connected_again(&self.client).await?;
                    if let Some((node, stat)) = self.find().await? {
                        (self.node, self.token) = (node, stat.czxid);
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Our znode, if there is one.
    async fn find(&self) -> Result<Option<(String, Stat)>, ZkError> {
        // The server that we are connected to now may be behind.
        self.read(|| self.client.sync(&self.root)).await?;
        let children = match self.read(|| self.client.get_children(&self.root, false)).await {
            Err(error) if error.code == ErrorCode::NO_NODE => return Ok(None),
            children => children?,
        };
        let Some(name) = children.iter().find(|name| name.starts_with(&self.prefix)) else {
            return Ok(None);
        };
        let node = path::join(&self.root, name);
        let stat = self.read(|| self.client.exists(&node, false)).await?;
        Ok(stat.map(|stat| (node, stat)))
    }

    /// Waits until we are the first. `until`: how long; the error names who is.
    pub(crate) async fn wait(&mut self, until: Option<Instant>) -> Result<(), CliError> {
        let ours = path::name(&self.node).to_owned();
        loop {
            let children = self.read(|| self.client.get_children(&self.root, false)).await?;
            let queue = queue(children);
            self.check_strangers(&queue)?;
            let Some(at) = queue.iter().position(|(.., name)| *name == ours) else {
                return Err(CliError::exit(
                    LOST,
                    format!("{} was deleted while it waited for its turn", self.node),
                ));
            };
            let Some(before) = at.checked_sub(1) else { return Ok(()) };
            let before = path::join(&self.root, &queue[before].2);
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(self.too_late(&queue[0].2).await);
            }
            // getData, not exists: no watch is left on a znode that is gone.
            match self.client.get_data(&before, true).await {
                Ok(_) => {}
                Err(error) if error.code == ErrorCode::NO_NODE => continue,
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                    connected_again(&self.client).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            while let Some(event) = self.next_event(until).await {
                match event.kind {
                    EventKind::None => match event.state {
                        KeeperState::SyncConnected | KeeperState::ConnectedReadOnly => break,
                        KeeperState::Disconnected => {}
                        KeeperState::AuthFailed | KeeperState::Expired | KeeperState::Closed => {
                            return Err(CliError::exit(
                                LOST,
                                format!(
                                    "the session is {}: the place in the queue is lost",
                                    event.state
                                ),
                            ));
                        }
                    },
                    EventKind::NodeDeleted if event.path.as_deref() == Some(&before) => break,
                    EventKind::NodeCreated
                    | EventKind::NodeDeleted
                    | EventKind::NodeDataChanged
                    | EventKind::NodeChildrenChanged
                    | EventKind::DataWatchRemoved
                    | EventKind::ChildWatchRemoved
                    | EventKind::PersistentWatchRemoved => {}
                }
            }
        }
    }

    /// The next event; `None` when the time is up or no more can come.
    async fn next_event(&mut self, until: Option<Instant>) -> Option<WatchedEvent> {
        match until {
            None => self.events.recv().await,
            Some(until) => timeout_at(until, self.events.recv()).await.ok().flatten(),
        }
    }

    async fn too_late(&self, holder: &str) -> CliError {
        let holder = path::join(&self.root, holder);
        let data = self.client.get_data(&holder, false).await.ok().and_then(|(data, _)| data);
        let data = data.map_or_else(String::new, |data| {
            format!(" ({})", String::from_utf8_lossy(&data).chars().take(80).collect::<String>())
        });
        CliError::exit(TIMED_OUT, format!("not had in time: {holder}{data} holds it"))
    }

    /// Two kinds of clients that do not see each other would both get in.
    fn check_strangers(&self, queue: &[(i64, Layout, String)]) -> Result<(), CliError> {
        let stranger = queue.iter().find(|(_, layout, _)| *layout != self.layout);
        match stranger {
            Some((_, layout, name)) if !self.sure => {
                let known = Layout::ALL.iter().find(|(_, known)| known == layout);
                let known = known.map_or("another", |(known, _)| *known);
                Err(CliError::failed(format!(
                    "{} has a contender with the names of another client: {name}. Clients that do not know each \
                     other's names would both get in: say --layout {known}, or --layout with your own if every client \
                     is set up to see all (kazoo: extra_lock_patterns)",
                    self.root
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns when what is held is lost, or will be soon.
    pub(crate) async fn lost(&mut self) -> Loss {
        type Beat = Pin<Box<dyn Future<Output = Result<Option<Stat>, ZkError>> + Send>>;
        let timeout = self.client.session_timeout();
        let now = |why: String| Loss { why, end: Instant::now() };
        let deleted = |node: &str| now(format!("{node} was deleted"));
        // Asked often, so that a connection that ends leaves most of the session timeout; it sets the watch, too.
        let mut beat: Option<Beat> = Some(Box::pin(self.client.exists(&self.node, true)));
        let mut next = Instant::now() + timeout / 6;
        loop {
            let Some(alive) = self.client.alive_until() else {
                return now("never connected".into());
            };
            if Instant::now() + timeout / 2 >= alive {
                return Loss {
                    why: format!(
                        "no server has answered for {} s, half of the session timeout: the session may end",
                        (timeout / 2).as_secs_f64()
                    ),
                    end: alive - timeout / 4,
                };
            }
            let wake =
                (alive - timeout / 2).min(next.max(Instant::now() + Duration::from_millis(5)));
            tokio::select! {
                event = self.events.recv() => match event {
                    None => return now("the client is closed".into()),
                    Some(WatchedEvent { kind: EventKind::None, state, .. }) => match state {
                        KeeperState::AuthFailed | KeeperState::Expired | KeeperState::Closed => {
                            return now(format!("the session is {state}"));
                        }
                        KeeperState::SyncConnected
                        | KeeperState::ConnectedReadOnly
                        | KeeperState::Disconnected => {}
                    },
                    Some(event) => {
                        if event.kind == EventKind::NodeDeleted && event.path.as_deref() == Some(&self.node) {
                            return deleted(&self.node);
                        }
                    }
                },
                answer = async { beat.as_mut().expect("checked").await }, if beat.is_some() => {
                    beat = None;
                    match answer {
                        Ok(Some(_)) | Err(_) => {} // errors show as events, or as silence
                        Ok(None) => return deleted(&self.node),
                    }
                }
                () = sleep_until(wake) => {
                    if next <= Instant::now() {
                        next = Instant::now() + timeout / 6;
                        if beat.is_none() && self.client.state().is_connected() {
                            beat = Some(Box::pin(self.client.exists(&self.node, true)));
                        }
                    }
                }
            }
        }
    }

    /// Gives the place up. Tried for as long as the session certainly lives: it ends with the session anyway.
    pub(crate) async fn leave(&self) -> Result<(), CliError> {
        let limit = self.client.alive_until().unwrap_or_else(Instant::now);
        timeout_at(limit, async {
            loop {
                // Also what was made by a create whose answer never came.
                let node = match (self.node.is_empty(), self.client.state().is_alive()) {
                    (_, false) => return,
                    (false, true) => self.node.clone(),
                    (true, true) => match self.find().await {
                        Ok(Some((node, _))) => node,
                        Ok(None) | Err(_) => return,
                    },
                };
                match self.client.delete(&node, -1).await {
                    Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                        if connected_again(&self.client).await.is_err() {
                            return;
                        }
                    }
                    Ok(()) | Err(_) => return,
                }
            }
        })
        .await
        .map_err(|_| {
            CliError::failed(format!(
                "{} could not be deleted: no server could be reached; it goes when its session expires",
                self.node
            ))
        })
    }
}

/// Makes a znode and those above it that are missing.
pub(crate) async fn make_parents(
    client: &Client,
    path: &str,
    mode: CreateMode,
) -> Result<(), CliError> {
    let ends = path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]);
    for end in ends.filter(|end| *end > 1) {
        let parent = &path[..end];
        let mut mode = mode;
        loop {
            match client.create(parent, Some(b""), &Acl::open(), mode).await {
                // Who may not create it may still find it there.
                Err(error) if error.code == ErrorCode::NO_AUTH => {
                    if client.exists(parent, false).await?.is_none() {
                        return Err(error.into());
                    }
                }
                Err(error)
                    if error.code == ErrorCode::UNIMPLEMENTED && mode == CreateMode::Container =>
                {
                    mode = CreateMode::Persistent; // before 3.5.1
                    continue;
                }
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                    connected_again(client).await?;
                    continue;
                }
                Err(error) if error.code != ErrorCode::NODE_EXISTS => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_clients_stand_in_one_queue() {
        let curator = "_c_5b5a1b5e-1f5a-4c6e-9d0a-0a1b2c3d4e5f-lock-0000000002";
        let go = "_c_ab12-lock-0000000001";
        let kazoo = "e1b9c3f2a4d54c8f9a6b7c8d9e0f1a2b__lock__0000000003";
        let latch = "_c_5b5a1b5e-1f5a-4c6e-9d0a-0a1b2c3d4e5f-latch-0000000000";
        let strangers = ["config", "leases", "x-lock-12", "x-lock-00000000a1", "lock-"];
        let all = [kazoo, curator, latch, go].into_iter().chain(strangers).map(str::to_owned);
        let names: Vec<String> = queue(all.collect()).into_iter().map(|(.., name)| name).collect();
        assert_eq!(names, [latch, go, curator, kazoo]);
        assert_eq!(place("lock--2147483648"), Some((-2_147_483_648, Layout::Curator)));
    }

    #[test]
    fn our_names_are_found_again_and_are_theirs() {
        for (_, layout) in Layout::ALL {
            let prefix = layout.prefix();
            assert_ne!(prefix, layout.prefix());
            assert_eq!(place(&format!("{prefix}0000000042")), Some((42, layout)));
        }
        let name = Layout::Curator.prefix();
        let parts: Vec<usize> = name.split('-').map(str::len).collect();
        assert_eq!(parts, [3 + 8, 4, 4, 4, 12, 4, 0], "{name}");
        assert_eq!(Layout::Kazoo.prefix().find("__lock__"), Some(32));
    }
}
