//! Watches of one client.

use std::collections::BTreeMap;

use zk_proto::Zxid;
use zk_proto::watch::EventType;

use super::model::{Event, Model};
use super::{Verdict, fail};

/// What a client watches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A znode that was there, once.
    Data,
    /// A znode that was not there, once.
    Exist,
    /// Children, once.
    Child,
    /// All of it, until removed.
    Persistent,
    /// The same with everything below, but for changes of children.
    Recursive,
}

impl Kind {
    fn wants(self, event_type: EventType) -> bool {
        match (self, event_type) {
            (Self::Data | Self::Exist | Self::Recursive, EventType::NodeChildrenChanged) => false,
            (Self::Data | Self::Exist | Self::Recursive, _) => true,
            (Self::Child, EventType::NodeChildrenChanged | EventType::NodeDeleted) => true,
            (Self::Child, EventType::NodeCreated | EventType::NodeDataChanged) => false,
            (Self::Persistent, _) => true,
        }
    }

    fn is_once(self) -> bool {
        matches!(self, Self::Data | Self::Exist | Self::Child)
    }
}

/// A watch: what for, and where.
pub type Watch = (Kind, String);

fn covers((kind, path): &Watch, event: &Event) -> bool {
    let place = match kind {
        Kind::Recursive => event
            .path
            .strip_prefix(path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        Kind::Data | Kind::Exist | Kind::Child | Kind::Persistent => **path == *event.path,
    };
    place && kind.wants(event.event_type)
}

/// The watches that a client has set on its connection. For each, from which zxid on it counts; for
/// those that stay, which of the model's events is the next that it may get.
#[derive(Debug, Default)]
pub struct Watches {
    since: BTreeMap<Watch, Zxid>,
    next: BTreeMap<Watch, usize>,
}

impl Watches {
    /// A watch is set, with a reply at `zxid`. One that is there already stays as it is.
    pub fn set(&mut self, model: &Model, watch: Watch, zxid: Zxid) {
        if watch.0.is_once() {
            // The table has one entry for both kinds of data watch.
            let other = match watch.0 {
                Kind::Data => Some(Kind::Exist),
                Kind::Exist => Some(Kind::Data),
                Kind::Child | Kind::Persistent | Kind::Recursive => None,
            };
            let twin = other.map(|other| (other, watch.1.clone()));
            if twin.is_none_or(|twin| !self.since.contains_key(&twin)) {
                self.since.entry(watch).or_insert(zxid);
            }
        } else {
            self.next.entry(watch).or_insert_with(|| model.events_above(zxid));
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Watch> {
        self.since.keys().chain(self.next.keys())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.since.len() + self.next.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection is gone, and with it what its server knew; `true`: so are the session and all
    /// watches.
    pub fn disconnected(&mut self, for_good: bool) -> Vec<Watch> {
        let all = self.all().cloned().collect();
        self.since.clear();
        self.next.clear();
        if for_good { Vec::new() } else { all }
    }

    /// W2, W4: an event is the next one that one of the watches waits for.
    ///
    /// # Errors
    /// None of them does, or it waits for another one first.
    pub fn an_event_is_the_next_that_is_waited_for(
        &mut self,
        model: &Model,
        event: &Event,
    ) -> Verdict {
        const CHECKER: &str = "W2 W4 an event is the next that is waited for";
        let mut wanted = false;
        let mut fired = Vec::new();
        for (watch, since) in &self.since {
            if !covers(watch, event) || event.zxid <= *since {
                continue;
            }
            let first = model.first_event(&watch.1, *since, |event_type| watch.0.wants(event_type));
            if first != Some(event) {
                return fail(
                    CHECKER,
                    format!("{watch:?} set at {since}: {event:?} instead of {first:?}"),
                );
            }
            wanted = true;
            fired.push(watch.clone());
        }
        for watch in fired {
            self.since.remove(&watch);
        }
        for (watch, next) in &mut self.next {
            if !covers(watch, event) {
                continue;
            }
            let coming = (*next..).zip(model.events.get(*next..).unwrap_or_default());
            let Some((place, found)) = coming.into_iter().find(|(_, event)| covers(watch, event))
            else {
                continue;
            };
            if found.zxid > event.zxid {
                continue; // another watch's
            }
            if found != event {
                return fail(CHECKER, format!("{watch:?}: {event:?} instead of {found:?}"));
            }
            wanted = true;
            *next = place + 1;
        }
        if !wanted {
            return fail(CHECKER, format!("{event:?} and nobody waits for it; watches: {self:?}"));
        }
        Ok(())
    }

    /// W1, W3: when a reply shows a state, all events up to it have come.
    ///
    /// # Errors
    /// One is missing.
    pub fn events_come_before_replies_that_show_the_change(
        &self,
        model: &Model,
        zxid: Zxid,
    ) -> Verdict {
        const CHECKER: &str = "W1 W3 events come before replies that show the change";
        for (watch, since) in &self.since {
            let first = model.first_event(&watch.1, *since, |event_type| watch.0.wants(event_type));
            if let Some(first) = first
                && first.zxid <= zxid
            {
                return fail(
                    CHECKER,
                    format!("a reply at {zxid}; {watch:?} set at {since} misses {first:?}"),
                );
            }
        }
        for (watch, next) in &self.next {
            let coming = model.events.get(*next..).unwrap_or_default();
            let due = coming.iter().take_while(|event| event.zxid <= zxid);
            if let Some(missing) = due.into_iter().find(|event| covers(watch, event)) {
                return fail(CHECKER, format!("a reply at {zxid}; {watch:?} misses {missing:?}"));
            }
        }
        Ok(())
    }

    /// W3: setting watches again, relative to a zxid, gives the events for what has changed since, and
    /// sets the others.
    ///
    /// # Errors
    /// Other events came.
    pub fn set_again(
        &mut self,
        model: &Model,
        watches: &[Watch],
        relative: Zxid,
        zxid: Zxid,
        mut came: Vec<(EventType, String)>,
    ) -> Verdict {
        let mut due = Vec::new();
        for watch in watches {
            let (kind, path) = watch;
            let znode = model.at(path, zxid);
            let event = match (kind, znode) {
                (Kind::Data | Kind::Child, None) => Some(EventType::NodeDeleted),
                (Kind::Data, Some(znode)) if znode.mzxid() > relative => {
                    Some(EventType::NodeDataChanged)
                }
                (Kind::Child, Some(znode)) if znode.pzxid() > relative => {
                    Some(EventType::NodeChildrenChanged)
                }
                (Kind::Exist, Some(_)) => Some(EventType::NodeCreated),
                (Kind::Data | Kind::Child, Some(_)) | (Kind::Exist, None) => None,
                (Kind::Persistent | Kind::Recursive, _) => None,
            };
            match event {
                Some(event) => due.push((event, path.clone())),
                None => self.set(model, watch.clone(), zxid),
            }
        }
        due.sort_unstable();
        came.sort_unstable();
        if due != came {
            return fail(
                "W3 setWatches catches up with what has changed",
                format!("relative to {relative} at {zxid}: {came:?} instead of {due:?}"),
            );
        }
        Ok(())
    }
}
