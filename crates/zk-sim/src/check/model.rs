//! A second opinion on what a tree is: every version of every znode, by zxid. It knows the meaning of
//! transactions from the protocol's description, and shares no code with `zk-tree`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use zk_proto::data::Stat;
use zk_proto::txn::{Txn, TxnHeader};
use zk_proto::watch::EventType;
use zk_proto::{OpCode, SessionId, Zxid, path};

/// A version of a znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Znode {
    /// Its data.
    pub data: Option<Bytes>,
    /// The names of its children.
    pub children: BTreeSet<String>,
    czxid: i64,
    mzxid: i64,
    pzxid: i64,
    ctime: i64,
    mtime: i64,
    /// Its version.
    pub version: i32,
    /// How many children were ever created.
    pub creates: i32,
    aversion: i32,
    /// Its session; 0: none.
    pub owner: i64,
}

impl Znode {
    /// What a client is told.
    #[must_use]
    pub fn stat(&self) -> Stat {
        let num_children = i32::try_from(self.children.len()).unwrap_or(i32::MAX);
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.creates * 2 - num_children,
            aversion: self.aversion,
            ephemeral_owner: self.owner,
            data_length: self
                .data
                .as_ref()
                .map_or(0, |data| i32::try_from(data.len()).unwrap_or(i32::MAX)),
            num_children,
            pzxid: self.pzxid,
        }
    }

    /// The last change of its data.
    #[must_use]
    pub fn mzxid(&self) -> Zxid {
        Zxid(self.mzxid)
    }

    /// The last change of its children.
    #[must_use]
    pub fn pzxid(&self) -> Zxid {
        Zxid(self.pzxid)
    }
}

/// Something that watches wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The transaction.
    pub zxid: Zxid,
    /// What happened.
    pub event_type: EventType,
    /// To which znode.
    pub path: Rc<str>,
}

/// Everything that was committed.
#[derive(Debug)]
pub struct Model {
    znodes: BTreeMap<String, Vec<(Zxid, Option<Rc<Znode>>)>>,
    ephemerals: BTreeMap<SessionId, BTreeSet<String>>,
    /// All events, in order.
    pub events: Vec<Event>,
    /// The places in `events` of those about a path.
    by_path: BTreeMap<Rc<str>, Vec<usize>>,
}

impl Default for Model {
    fn default() -> Self {
        let mut model = Self {
            znodes: BTreeMap::new(),
            ephemerals: BTreeMap::new(),
            events: Vec::new(),
            by_path: BTreeMap::new(),
        };
        let root = Znode {
            data: Some(Bytes::new()),
            children: ["zookeeper".to_owned()].into(),
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            creates: 0,
            aversion: 0,
            owner: 0,
        };
        model.znodes.insert("/".to_owned(), vec![(Zxid::ZERO, Some(Rc::new(root)))]);
        model
    }
}

impl Model {
    /// The znode as of `zxid`.
    #[must_use]
    pub fn at(&self, path: &str, zxid: Zxid) -> Option<&Rc<Znode>> {
        let versions = self.znodes.get(path)?;
        let after = versions.partition_point(|(version, _)| *version <= zxid);
        versions[..after].last()?.1.as_ref()
    }

    /// The znode as it is now.
    #[must_use]
    pub fn now(&self, path: &str) -> Option<&Rc<Znode>> {
        self.znodes.get(path)?.last()?.1.as_ref()
    }

    /// All znodes as they are now, but for the root.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Znode)> {
        let now = self.znodes.iter().filter_map(|(path, versions)| {
            versions.last()?.1.as_deref().map(|znode| (path.as_str(), znode))
        });
        now.filter(|(path, _)| *path != "/")
    }

    /// What belongs to a session now.
    #[must_use]
    pub fn ephemerals(&self, session: SessionId) -> BTreeSet<String> {
        self.ephemerals.get(&session).cloned().unwrap_or_default()
    }

    fn put(&mut self, path: &str, zxid: Zxid, znode: Option<Znode>) {
        let versions = self.znodes.entry(path.to_owned()).or_default();
        if versions.last().is_some_and(|(version, _)| *version == zxid) {
            versions.pop();
        }
        versions.push((zxid, znode.map(Rc::new)));
    }

    fn event(&mut self, zxid: Zxid, event_type: EventType, path: &str) {
        let path: Rc<str> = path.into();
        self.by_path.entry(Rc::clone(&path)).or_default().push(self.events.len());
        self.events.push(Event { zxid, event_type, path });
    }

    fn change_parent(&mut self, child: &str, zxid: Zxid, change: impl FnOnce(&mut Znode, &str)) {
        let parent = path::parent(child);
        let Some(mut znode) = self.now(parent).map(|znode| Znode::clone(znode)) else { return };
        let name = child.rsplit('/').next().unwrap_or_default();
        change(&mut znode, name);
        znode.pzxid = zxid.0;
        self.put(parent, zxid, Some(znode));
        self.event(zxid, EventType::NodeChildrenChanged, parent);
    }

    fn delete(&mut self, path: &str, zxid: Zxid) -> Result<(), String> {
        let Some(znode) = self.now(path).cloned() else {
            return Err(format!("{path} is deleted and does not exist"));
        };
        if !znode.children.is_empty() {
            return Err(format!("{path} is deleted and has children"));
        }
        if znode.owner != 0 {
            self.ephemerals.entry(SessionId(znode.owner)).or_default().remove(path);
        }
        self.put(path, zxid, None);
        self.event(zxid, EventType::NodeDeleted, path);
        self.change_parent(path, zxid, |parent, name| {
            parent.children.remove(name);
        });
        Ok(())
    }

    /// Applies a transaction.
    ///
    /// # Errors
    /// It cannot be applied: what prep accepted is impossible.
    pub fn apply(&mut self, header: &TxnHeader, txn: &Txn) -> Result<(), String> {
        let TxnHeader { client_id: session, zxid, time, .. } = *header;
        match txn {
            Txn::Multi(txns) => {
                if txns.iter().any(|(_, txn)| matches!(txn, Txn::Error(_))) {
                    return Ok(());
                }
                for (_, txn) in txns {
                    self.apply(header, txn)?;
                }
            }
            Txn::Error(_) | Txn::Check(_) | Txn::CreateSession(_) => {}
            Txn::CloseSession(txn) => {
                let listed = txn.as_ref().map(|txn| &txn.paths_to_delete);
                let owned = self.ephemerals(session);
                // S1: exactly what belongs to it.
                if let Some(listed) = listed {
                    let listed: BTreeSet<String> = listed.iter().cloned().collect();
                    if listed != owned {
                        return Err(format!(
                            "session {session} ends with {listed:?}, and owns {owned:?}"
                        ));
                    }
                }
                let order = listed.cloned().unwrap_or_else(|| owned.iter().cloned().collect());
                for path in order {
                    self.delete(&path, zxid)?;
                }
                self.ephemerals.remove(&session);
            }
            Txn::Create(txn) => {
                if self.now(&txn.path).is_some() {
                    return Err(format!("{} is created and exists", txn.path));
                }
                if self.now(path::parent(&txn.path)).is_none() {
                    return Err(format!("{} is created and has no parent", txn.path));
                }
                let znode = Znode {
                    data: txn.data.clone(),
                    children: BTreeSet::new(),
                    czxid: zxid.0,
                    mzxid: zxid.0,
                    pzxid: zxid.0,
                    ctime: time,
                    mtime: time,
                    version: 0,
                    creates: 0,
                    aversion: 0,
                    owner: if txn.ephemeral { session.0 } else { 0 },
                };
                if txn.ephemeral {
                    self.ephemerals.entry(session).or_default().insert(txn.path.clone());
                }
                self.put(&txn.path, zxid, Some(znode));
                self.event(zxid, EventType::NodeCreated, &txn.path);
                self.change_parent(&txn.path, zxid, |parent, name| {
                    parent.children.insert(name.to_owned());
                    parent.creates += 1;
                });
            }
            Txn::Delete(txn) => self.delete(&txn.path, zxid)?,
            // No client's to set, and not among those that are compared.
            Txn::SetData(txn) if txn.path == path::CONFIG => {}
            Txn::SetData(txn) => {
                let Some(mut znode) = self.now(&txn.path).map(|znode| Znode::clone(znode)) else {
                    return Err(format!("{} is set and does not exist", txn.path));
                };
                if txn.version != znode.version.wrapping_add(1) {
                    return Err(format!(
                        "{} goes from version {} to {}",
                        txn.path, znode.version, txn.version
                    ));
                }
                znode.data.clone_from(&txn.data);
                znode.version = txn.version;
                znode.mzxid = zxid.0;
                znode.mtime = time;
                self.put(&txn.path, zxid, Some(znode));
                self.event(zxid, EventType::NodeDataChanged, &txn.path);
            }
            Txn::SetAcl(txn) => {
                let Some(mut znode) = self.now(&txn.path).map(|znode| Znode::clone(znode)) else {
                    return Err(format!("{} gets an ACL and does not exist", txn.path));
                };
                znode.aversion = txn.version;
                self.put(&txn.path, zxid, Some(znode));
            }
            Txn::CreateContainer(_) | Txn::CreateTtl(_) => {
                return Err(format!("nobody asked for a {:?}", OpCode::CREATE_CONTAINER));
            }
        }
        Ok(())
    }

    /// The first event about `path` above `after` that `wanted` wants.
    #[must_use]
    pub fn first_event(
        &self,
        path: &str,
        after: Zxid,
        wanted: impl Fn(EventType) -> bool,
    ) -> Option<&Event> {
        let places = self.by_path.get(path)?;
        let from = places.partition_point(|place| self.events[*place].zxid <= after);
        let mut events = places[from..].iter().map(|place| &self.events[*place]);
        events.find(|event| wanted(event.event_type))
    }

    /// The place in `events` of the first one above `zxid`.
    #[must_use]
    pub fn events_above(&self, zxid: Zxid) -> usize {
        self.events.partition_point(|event| event.zxid <= zxid)
    }
}
