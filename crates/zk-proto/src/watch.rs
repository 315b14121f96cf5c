//! Numbers that watches speak in.

/// What happened to a znode (`Watcher.Event.EventType`). The server sends no others than these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// It was created.
    NodeCreated,
    /// It was deleted.
    NodeDeleted,
    /// Its data was set.
    NodeDataChanged,
    /// A child was created or deleted.
    NodeChildrenChanged,
}

impl EventType {
    /// Its number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::NodeCreated => 1,
            Self::NodeDeleted => 2,
            Self::NodeDataChanged => 3,
            Self::NodeChildrenChanged => 4,
        }
    }
}

/// The only keeper state in events of a server: SyncConnected.
pub const SYNC_CONNECTED: i32 = 3;

/// Which watches checkWatches and removeWatches mean (`Watcher.WatcherType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatcherType {
    /// Set by getChildren.
    Children,
    /// Set by getData or exists.
    Data,
    /// Every kind.
    Any,
    /// Persistent.
    Persistent,
    /// Persistent and recursive.
    PersistentRecursive,
}

impl WatcherType {
    /// The type with this number on the wire.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Children),
            2 => Some(Self::Data),
            3 => Some(Self::Any),
            4 => Some(Self::Persistent),
            5 => Some(Self::PersistentRecursive),
            _ => None, // a peer's number
        }
    }
}

/// How addWatch watches (`AddWatchMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddWatchMode {
    /// The znode and its children, until removed.
    Persistent,
    /// The znode and everything below it, until removed.
    PersistentRecursive,
}

impl AddWatchMode {
    /// The mode with this number on the wire.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Persistent),
            1 => Some(Self::PersistentRecursive),
            _ => None, // a peer's number
        }
    }
}
