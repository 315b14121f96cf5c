//! Who is in the ensemble: the configuration in force, for all that dial, listen and tell.
//!
//! The core says when another one is in force, in the order of the log. Taking its place here is all that
//! happens at that moment; listeners, and the files that a restart begins with, follow in their own tasks,
//! each with the newest there is.

mod files;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use zk_config::{EnsembleConfig, Listener, Member, ServerConfig};
use zk_proto::ServerId;
use zk_zab::Members;

pub(crate) use self::files::{ConfigFiles, back_up, keep_written};
use crate::quorum::{HostPort, Port, server_id};

/// A configuration, with its lines read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InForce {
    /// Who votes, who observes, and the version.
    pub members: Members,
    lines: BTreeMap<ServerId, Member>,
}

impl InForce {
    /// Reads the lines; those that make no sense, which none has that a leader has accepted, are left out.
    #[must_use]
    pub fn new(members: Members) -> Self {
        let lines = members.servers();
        let unread = members.voters.union(&members.observers).filter(|id| !lines.contains_key(id));
        for id in unread {
            tracing::warn!(%id, members = %members.text, "the line of a member cannot be read: it cannot be dialled");
        }
        Self { members, lines }
    }

    /// As it was configured.
    fn of(ensemble: &EnsembleConfig) -> Self {
        Self::new(numbered(ensemble.version, &ensemble.text()))
    }

    /// A member's line.
    #[must_use]
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.lines.get(&id)
    }

    /// Where the members listen for each other.
    fn addresses(&self, port: Port) -> BTreeMap<ServerId, Vec<HostPort>> {
        self.lines.iter().map(|(id, member)| (*id, port.addresses(member))).collect()
    }
}

/// The configuration in force, whichever it is.
#[derive(Debug)]
pub struct Membership {
    current: watch::Sender<Arc<InForce>>,
    /// What may be in force soon.
    proposed: Mutex<Option<InForce>>,
    /// What the files said at the start. A log can be older than they are: that of a member which was removed and
    /// is to come back, for whom an operator has written down where the others are by now.
    configured: Mutex<Option<Arc<InForce>>>,
    files: ConfigFiles,
}

impl Membership {
    /// As configured, until the core says otherwise.
    #[must_use]
    pub fn new(config: &ServerConfig) -> Self {
        let in_force = Arc::new(InForce::of(&config.ensemble));
        let files = ConfigFiles::new(config, in_force.members.version);
        Self {
            configured: Mutex::new(Some(Arc::clone(&in_force))),
            current: watch::Sender::new(in_force),
            proposed: Mutex::default(),
            files,
        }
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<InForce> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells of what comes; the newest counts.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<InForce>> {
        self.current.subscribe()
    }

    fn proposed(&self) -> MutexGuard<'_, Option<InForce>> {
        self.proposed.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    fn configured(&self) -> MutexGuard<'_, Option<Arc<InForce>>> {
        self.configured.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// Another configuration is in force. Called under the core's lock. `serving`: this server has heard of it
    /// in the ensemble, and the files are of the past.
    pub(crate) fn activate(&self, members: Members, serving: bool) {
        if serving {
            *self.configured() = None;
        }
        *self.proposed() = None;
        self.current.send_replace(Arc::new(InForce::new(members)));
    }

    /// These may be in force soon. Called under the core's lock.
    pub(crate) fn propose(&self, members: Members) {
        *self.proposed() = Some(InForce::new(members));
    }

    /// Where servers listen for each other: members, those that may be soon, and those that the files name. Of
    /// one that is about to move the place of now comes first.
    pub(crate) fn addresses(&self, port: Port) -> BTreeMap<ServerId, Vec<HostPort>> {
        let mut all = self.current().addresses(port);
        let proposed = self.proposed().as_ref().map(|next| next.addresses(port));
        let configured = self.configured().as_ref().map(|files| files.addresses(port));
        for (id, addresses) in proposed.into_iter().chain(configured).flatten() {
            let known = all.entry(id).or_default();
            let new: Vec<_> =
                addresses.into_iter().filter(|address| !known.contains(address)).collect();
            known.extend(new);
        }
        all
    }

    /// Writes the files of what is in force, unless they are there, or could not be written before.
    /// Blocks.
    pub(crate) fn write_files(&self) {
        self.files.write(&self.current());
    }
}

/// What `zoo.cfg.dynamic.next` says that may be in force by now.
pub(crate) fn proposed(config: &ServerConfig) -> Option<Members> {
    let ensemble = &config.ensemble;
    let proposed = ensemble.proposed.as_ref().filter(|_| ensemble.reconfig_enabled)?;
    Some(numbered(proposed.version, &proposed.text))
}

fn numbered(version: u64, text: &str) -> Members {
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    Members { version, ..Members::from_text(text) }
}

/// Where this server serves clients: what its line says goes before its own file.
pub(crate) fn client_listener(config: &ServerConfig, in_force: &InForce) -> Option<Listener> {
    let own = config.member_id().and_then(|id| in_force.member(server_id(id)));
    own.and_then(|own| own.client.clone()).or_else(|| config.client_listener.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_what_is_no_line_is_left_out() {
        let text = "server.1=a:1:2:participant;0.0.0.0:3\nserver.2=[::1]:1:2|b:3:4:observer\n\
                    server.3=nonsense\ngroup.1=1\nweight.1=1\n";
        let in_force = InForce::new(Members::from_text(&format!("{text}version=a")));
        assert_eq!(in_force.members.version, 10);
        let at = |host: &str, port| HostPort { host: host.into(), port };
        let expected =
            [(ServerId(1), vec![at("a", 2)]), (ServerId(2), vec![at("::1", 2), at("b", 4)])];
        assert_eq!(in_force.addresses(Port::Election), expected.into());
        assert_eq!(in_force.addresses(Port::Quorum)[&ServerId(2)], [at("::1", 1), at("b", 3)]);
        assert!(in_force.member(ServerId(3)).is_none());
    }

    #[test]
    fn those_that_may_come_are_reached_too() {
        let text = "dataDir=/nowhere\nclientPort=2181\ninitLimit=5\nsyncLimit=5\n\
                    server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";
        let loaded = zk_config::Sources::new().file("zoo.cfg", text).my_id("myid", "1").load();
        let (config, _) = loaded.accept(false).map_err(|wrong| wrong.render()).unwrap();
        let membership = Membership::new(&config);
        let at = |host: &str, port| HostPort { host: host.into(), port };
        let [a, b, c] = ["a", "b", "c"].map(|host| vec![at(host, 2)]);
        let now = [(ServerId(1), a.clone()), (ServerId(2), b.clone()), (ServerId(3), c)];
        assert_eq!(membership.addresses(Port::Election), now.clone().into());
        let next = "server.1=a:1:2\nserver.2=b:1:5\nserver.4=d:1:2\nversion=a";
        membership.propose(Members::from_text(next));
        let mut both: BTreeMap<_, _> = now.into();
        both.insert(ServerId(2), vec![at("b", 2), at("b", 5)]);
        both.insert(ServerId(4), vec![at("d", 2)]);
        assert_eq!(membership.addresses(Port::Election), both);
        assert_eq!(membership.current().members.version, 0);
        // As long as no server has answered the files may know better.
        membership.activate(Members::from_text(next), false);
        both.insert(ServerId(2), vec![at("b", 5), at("b", 2)]);
        assert_eq!(membership.addresses(Port::Election), both);
        assert_eq!(membership.current().members.version, 10);
        membership.activate(Members::from_text(next), true);
        let then =
            [(ServerId(1), a), (ServerId(2), vec![at("b", 5)]), (ServerId(4), vec![at("d", 2)])];
        assert_eq!(membership.addresses(Port::Election), then.into());
    }
}
