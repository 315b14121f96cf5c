use std::fmt;

/// What a watch reports (`Watcher.Event.EventType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The state of the session changed.
    None,
    /// The znode was created.
    NodeCreated,
    /// It was deleted.
    NodeDeleted,
    /// Its data was set.
    NodeDataChanged,
    /// A child was created or deleted.
    NodeChildrenChanged,
    /// A data watch was removed on request.
    DataWatchRemoved,
    /// A child watch was removed on request.
    ChildWatchRemoved,
    /// A persistent watch was removed on request.
    PersistentWatchRemoved,
}

impl EventKind {
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        match code {
            -1 => Some(Self::None),
            1 => Some(Self::NodeCreated),
            2 => Some(Self::NodeDeleted),
            3 => Some(Self::NodeDataChanged),
            4 => Some(Self::NodeChildrenChanged),
            5 => Some(Self::DataWatchRemoved),
            6 => Some(Self::ChildWatchRemoved),
            7 => Some(Self::PersistentWatchRemoved),
            _ => None, // a server's number
        }
    }
}

/// The session's state in an event (`Watcher.Event.KeeperState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeeperState {
    /// The connection is lost; it is being tried again.
    Disconnected,
    /// Connected to a server of the quorum.
    SyncConnected,
    /// Authentication failed: the client is of no more use.
    AuthFailed,
    /// Connected to a server that only reads.
    ConnectedReadOnly,
    /// The session has expired: the client is of no more use.
    Expired,
    /// The client closed the session.
    Closed,
}

/// Upstream's names are those of the variants.
impl fmt::Display for KeeperState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Upstream's names are those of the variants.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A watch was triggered, or the session's state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedEvent {
    /// What happened.
    pub kind: EventKind,
    /// The session's state.
    pub state: KeeperState,
    /// The znode, below the client's root; `None` for the session's own events.
    pub path: Option<String>,
    /// The transaction that triggered it; −1 if there is none.
    pub zxid: i64,
}

/// The wording of `WatchedEvent.toString`.
impl fmt::Display for WatchedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_deref().unwrap_or("null");
        write!(
            f,
            "WatchedEvent state:{} type:{} path:{path} zxid: {}",
            self.state, self.kind, self.zxid
        )
    }
}

/// What the client is doing (`ZooKeeper.States`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Looking for a server.
    Connecting,
    /// Connected to a server of the quorum.
    Connected,
    /// Connected to a server that only reads.
    ConnectedReadOnly,
    /// Closed by [`crate::Client::close`], or the session has expired.
    Closed,
    /// Authentication failed.
    AuthFailed,
}

impl State {
    /// Whether there is, or may yet be, a connection.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match self {
            Self::Connecting | Self::Connected | Self::ConnectedReadOnly => true,
            Self::Closed | Self::AuthFailed => false,
        }
    }

    /// Whether requests can be answered now.
    #[must_use]
    pub fn is_connected(self) -> bool {
        match self {
            Self::Connected | Self::ConnectedReadOnly => true,
            Self::Connecting | Self::Closed | Self::AuthFailed => false,
        }
    }
}

/// Upstream's names.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "CONNECTING",
            Self::Connected => "CONNECTED",
            Self::ConnectedReadOnly => "CONNECTEDREADONLY",
            Self::Closed => "CLOSED",
            Self::AuthFailed => "AUTH_FAILED",
        })
    }
}
