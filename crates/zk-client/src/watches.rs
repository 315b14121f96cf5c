use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use zk_proto::proto::SetWatches2;
use zk_proto::watch::WatcherType;
use zk_proto::{ErrorCode, Record as _, Zxid};

use crate::EventKind;

/// A set of watches of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// On the data of a znode that exists.
    Data,
    /// On a znode that did not exist.
    Exist,
    Child,
    Persistent,
    Recursive,
}

/// What a request does to the watches once it is answered.
#[derive(Debug, Clone)]
pub(crate) enum WatchChange {
    /// getData, getChildren and addWatch: set if they succeed.
    Add(Kind, String),
    /// exists: on the data, or on the creation of what is not there.
    Exists(String),
    /// removeWatches; `local`: even if the server cannot be asked.
    Remove { path: String, watcher_type: WatcherType, local: bool },
}

/// The watches that the server keeps for us, by the paths that the server knows.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    sets: BTreeMap<Kind, BTreeSet<String>>,
}

impl Watches {
    fn take(&mut self, kind: Kind, path: &str) -> bool {
        self.sets.get_mut(&kind).is_some_and(|set| set.remove(path))
    }

    fn add(&mut self, kind: Kind, path: String) {
        self.sets.entry(kind).or_default().insert(path);
    }

    /// Applies a change after its reply. Returns the reply's error code, which may become another, and
    /// the events of removed watches.
    pub(crate) fn apply(
        &mut self,
        change: WatchChange,
        err: ErrorCode,
    ) -> (ErrorCode, Vec<(EventKind, String)>) {
        match change {
            WatchChange::Add(kind, path) => {
                if err == ErrorCode::OK {
                    self.add(kind, path);
                }
                (err, Vec::new())
            }
            WatchChange::Exists(path) => {
                if err == ErrorCode::OK {
                    self.add(Kind::Data, path);
                } else if err == ErrorCode::NO_NODE {
                    self.add(Kind::Exist, path);
                }
                (err, Vec::new())
            }
            WatchChange::Remove { path, watcher_type, local } => {
                let lost = err == ErrorCode::CONNECTION_LOSS && local;
                if err != ErrorCode::OK && !lost {
                    return (err, Vec::new());
                }
                let events = self.remove(&path, watcher_type);
                // The server removes what others of this connection set, too; we answer for our own.
                (if events.is_empty() { ErrorCode::NO_WATCHER } else { ErrorCode::OK }, events)
            }
        }
    }

    fn remove(&mut self, path: &str, watcher_type: WatcherType) -> Vec<(EventKind, String)> {
        let kinds: &[Kind] = match watcher_type {
            WatcherType::Children => &[Kind::Child],
            WatcherType::Data => &[Kind::Data, Kind::Exist],
            WatcherType::Persistent => &[Kind::Persistent],
            WatcherType::PersistentRecursive => &[Kind::Recursive],
            WatcherType::Any => {
                &[Kind::Child, Kind::Data, Kind::Exist, Kind::Persistent, Kind::Recursive]
            }
        };
        let mut events = Vec::new();
        for kind in kinds {
            let event = match kind {
                Kind::Child => EventKind::ChildWatchRemoved,
                Kind::Data | Kind::Exist => EventKind::DataWatchRemoved,
                Kind::Persistent | Kind::Recursive => EventKind::PersistentWatchRemoved,
            };
            let event = (event, path.to_owned());
            if self.take(*kind, path) && !events.contains(&event) {
                events.push(event);
            }
        }
        events
    }

    /// Forgets the watches that this event has used up.
    pub(crate) fn triggered(&mut self, kind: EventKind, path: &str) {
        let used: &[Kind] = match kind {
            EventKind::NodeCreated | EventKind::NodeDataChanged => &[Kind::Data, Kind::Exist],
            EventKind::NodeDeleted => &[Kind::Data, Kind::Exist, Kind::Child],
            EventKind::NodeChildrenChanged => &[Kind::Child],
            EventKind::None
            | EventKind::DataWatchRemoved
            | EventKind::ChildWatchRemoved
            | EventKind::PersistentWatchRemoved => &[],
        };
        for kind in used {
            self.take(*kind, path);
        }
    }

    /// The bodies of the setWatches2 requests after a reconnect: each well below the server's frame limit.
    pub(crate) fn set_again(&self, relative_zxid: Zxid) -> Vec<BytesMut> {
        const LIMIT: usize = 128 * 1024; // upstream's SET_WATCHES_MAX_LENGTH
        let mut all = self
            .sets
            .iter()
            .flat_map(|(kind, set)| set.iter().map(move |path| (*kind, path)))
            .peekable();
        let mut bodies = Vec::new();
        while all.peek().is_some() {
            let mut request = SetWatches2 {
                relative_zxid,
                data_watches: Vec::new(),
                exist_watches: Vec::new(),
                child_watches: Vec::new(),
                persistent_watches: Vec::new(),
                persistent_recursive_watches: Vec::new(),
            };
            let mut length = 0;
            while let Some((kind, path)) = all.next_if(|_| length < LIMIT) {
                length += path.len() + 4;
                let list = match kind {
                    Kind::Data => &mut request.data_watches,
                    Kind::Exist => &mut request.exist_watches,
                    Kind::Child => &mut request.child_watches,
                    Kind::Persistent => &mut request.persistent_watches,
                    Kind::Recursive => &mut request.persistent_recursive_watches,
                };
                list.push(path.clone());
            }
            let mut body = BytesMut::new();
            request.encode(&mut body);
            bodies.push(body);
        }
        bodies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_kept_until_its_event() {
        let mut watches = Watches::default();
        let path = || "/a".to_owned();
        watches.apply(WatchChange::Exists(path()), ErrorCode::NO_NODE);
        watches.apply(WatchChange::Add(Kind::Child, path()), ErrorCode::NO_NODE); // refused: not set
        watches.apply(WatchChange::Add(Kind::Recursive, path()), ErrorCode::OK);
        let again = |w: &Watches| -> Vec<SetWatches2> {
            w.set_again(Zxid(7))
                .into_iter()
                .map(|b| SetWatches2::decode(&b.freeze()).unwrap())
                .collect()
        };
        let set = &again(&watches)[0];
        assert_eq!(set.exist_watches, ["/a"]);
        assert_eq!(set.persistent_recursive_watches, ["/a"]);
        assert!(set.child_watches.is_empty() && set.data_watches.is_empty());
        watches.triggered(EventKind::NodeCreated, "/a");
        assert!(again(&watches)[0].exist_watches.is_empty());
        assert_eq!(
            again(&watches)[0].persistent_recursive_watches,
            ["/a"],
            "persistent watches stay"
        );
    }

    #[test]
    fn removal_answers_for_what_was_set() {
        let mut watches = Watches::default();
        watches.apply(WatchChange::Add(Kind::Data, "/a".into()), ErrorCode::OK);
        let remove =
            |watcher_type, local| WatchChange::Remove { path: "/a".into(), watcher_type, local };
        let (err, events) = watches.apply(remove(WatcherType::Children, false), ErrorCode::OK);
        assert_eq!((err, events.len()), (ErrorCode::NO_WATCHER, 0));
        let (err, _) = watches.apply(remove(WatcherType::Any, false), ErrorCode::CONNECTION_LOSS);
        assert_eq!(err, ErrorCode::CONNECTION_LOSS);
        let (err, events) =
            watches.apply(remove(WatcherType::Any, true), ErrorCode::CONNECTION_LOSS);
        assert_eq!(
            (err, events),
            (ErrorCode::OK, vec![(EventKind::DataWatchRemoved, "/a".to_owned())])
        );
    }

    #[test]
    fn many_watches_take_several_requests() {
        let mut watches = Watches::default();
        for number in 0..10_000 {
            watches.add(Kind::Data, format!("/a/long/enough/path/{number}"));
        }
        let bodies = watches.set_again(Zxid(1));
        assert!(bodies.len() > 1);
        let total: usize = bodies
            .into_iter()
            .map(|b| SetWatches2::decode(&b.freeze()).unwrap().data_watches.len())
            .sum();
        assert_eq!(total, 10_000);
    }
}
