//! The Zab peer is told what happened, and what it asks for is done, in its order.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use zk_proto::quorum::{Notification, PacketType, QuorumPacket};
use zk_proto::{ServerId, Zxid};
use zk_tree::Database;
use zk_zab::{Action as PeerAction, Input, LinkId, Members, ServingRole, Token, Write};

use crate::Now;
use crate::node::{Action, Node, Staged, Writer, sessions_of};
use crate::observers;
use crate::outstanding::OutstandingChanges;
use crate::role::{Leading, Learning, Role};
use crate::stats::Stats;

/// A packet without ids.
pub(crate) fn packet(packet_type: PacketType, zxid: Zxid, data: Option<Bytes>) -> QuorumPacket {
    QuorumPacket { packet_type, zxid, data, authinfo: None }
}

impl Writer {
    /// Tells the peer; [`Node::run`] does what follows from it.
    pub(crate) fn step(&mut self, now: Now, input: Input) {
        self.peer.step(now.mono_ms(), input, &*self.history);
    }

    /// Forgets a link's snapshot, unless it was asked for.
    fn unstage(&mut self, link: LinkId) {
        let mut index = 0;
        while let Some(staged) = self.staged.get(index) {
            if staged.link == link && !staged.installing {
                self.retired.push(self.staged.remove(index).db);
            } else {
                index += 1;
            }
        }
    }

    /// What is known about a link that is gone. Sessions keep it as their owner until somebody else
    /// claims them.
    fn forget_link(&mut self, link: LinkId) {
        self.unstage(link);
        match &mut self.role {
            Role::Leader(leading) => drop(leading.syncs.remove(&link)),
            Role::Learner(learning) => observers::forget(&mut learning.behind, link),
            Role::ReadOnly(_) | Role::Idle => {}
        }
    }
}

impl Node {
    /// All writes up to `token` are on disk.
    pub fn on_persisted(&self, token: Token, now: Now, actions: &mut dyn FnMut(Action)) {
        self.tell(now, actions, |writer| writer.step(now, Input::Persisted { token }));
    }

    /// Names a connection that was accepted on the quorum port, before [`Self::on_link_up`].
    #[must_use]
    pub fn accept_link(&self) -> LinkId {
        self.writer().peer.accept()
    }

    /// A link is there: one that was accepted, or the one that [`Action::Connect`] asked for.
    pub fn on_link_up(&self, link: LinkId, now: Now, actions: &mut dyn FnMut(Action)) {
        self.tell(now, actions, |writer| writer.step(now, Input::LinkUp { link }));
    }

    /// A link was accepted on the observer master port.
    pub fn on_observer_link_up(&self, link: LinkId, now: Now, actions: &mut dyn FnMut(Action)) {
        self.tell(now, actions, |writer| writer.step(now, Input::ObserverLinkUp { link }));
    }

    /// A link is gone, or the one that [`Action::Connect`] asked for could not be made. To be told once
    /// for each, except for those that [`Action::Close`] ended.
    pub fn on_link_down(&self, link: LinkId, now: Now, actions: &mut dyn FnMut(Action)) {
        self.tell(now, actions, |writer| {
            writer.forget_link(link);
            writer.step(now, Input::LinkDown { link });
        });
    }

    /// Packets came on a link, `SNAP` not among them: takes them all. How many they are is up to the
    /// shell: the writer's lock is held for all of them.
    pub fn on_packets(
        &self,
        link: LinkId,
        packets: &mut VecDeque<QuorumPacket>,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        let mut writer = self.writer();
        let (mut proposals, mut commits) = (0, 0);
        for packet in packets.drain(..) {
            match packet.packet_type {
                PacketType::PROPOSAL => proposals += 1,
                PacketType::COMMIT | PacketType::COMMIT_AND_ACTIVATE => commits += 1,
                PacketType::INFORM | PacketType::INFORM_AND_ACTIVATE => {
                    proposals += 1;
                    commits += 1;
                }
                _ => {} // a peer's number; others are not counted
            }
            writer.step(now, Input::Packet { link, packet });
            self.poll(&mut writer, now, actions);
        }
        self.run(&mut writer, now, actions);
        if proposals + commits > 0 {
            Stats::add(&self.stats.learner_proposals_received, proposals);
            Stats::add(&self.stats.learner_commits_received, commits);
        }
        self.release(writer);
    }

    /// A `SNAP` packet with `zxid` and the stream behind it came on `link`. It is staged on disk for
    /// [`Write::InstallSnapshot`], and this is what is in it.
    pub fn on_snapshot(
        &self,
        link: LinkId,
        zxid: Zxid,
        db: Database,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        self.tell(now, actions, |writer| {
            let members = db.config().map(Members::from_text);
            writer.staged.push(Staged { link, db, installing: false });
            writer.step(now, Input::SnapshotReceived { link, zxid, members });
        });
    }

    /// A long transfer on a link goes on; to be told about every second.
    pub fn on_progress(&self, link: LinkId, now: Now, actions: &mut dyn FnMut(Action)) {
        self.tell(now, actions, |writer| writer.step(now, Input::Progress { link }));
    }

    /// An election message came from a server, as its connection said.
    pub fn on_notification(
        &self,
        from: ServerId,
        notification: Notification,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        let input = Input::Notification { from, notification };
        self.tell(now, actions, |writer| writer.step(now, input));
    }

    /// A member's election port can, or cannot, be reached.
    pub fn on_reachable(
        &self,
        server: ServerId,
        reachable: bool,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        let input = Input::Reachable { server, reachable };
        self.tell(now, actions, |writer| writer.step(now, input));
    }

    /// Tells the peer something, and does what follows.
    pub(crate) fn tell(
        &self,
        now: Now,
        actions: &mut dyn FnMut(Action),
        step: impl FnOnce(&mut Writer),
    ) {
        let mut writer = self.writer();
        step(&mut writer);
        self.run(&mut writer, now, actions);
        self.release(writer);
    }

    /// Lets go of the writer's lock, and of what may take a while to drop.
    fn release(&self, mut writer: MutexGuard<'_, Writer>) {
        let retired = std::mem::take(&mut writer.retired);
        drop(writer);
        drop(retired);
    }

    /// Does what the peer asks for, and gives what waits its turn. To be called after whatever was told
    /// to the peer, with the writer's lock alone.
    pub(crate) fn run(&self, writer: &mut Writer, now: Now, actions: &mut dyn FnMut(Action)) {
        loop {
            self.poll(writer, now, actions);
            if !self.apply_due(writer, now, actions) {
                break;
            }
        }
        self.note_outstanding(writer);
    }

    /// Does what the peer asks for. What is committed is put aside, to be applied together.
    pub(crate) fn poll(&self, writer: &mut Writer, now: Now, actions: &mut dyn FnMut(Action)) {
        self.maybe_end_read_only(writer);
        while let Some(action) = writer.peer.poll_action() {
            match action {
                PeerAction::Deliver { zxid, txn } if !writer.halted => {
                    writer.due.push_back((zxid, txn));
                }
                PeerAction::Deliver { .. } => {} // nothing is applied behind what cannot be
                PeerAction::Persist { token, write } => {
                    if let Write::InstallSnapshot { link, .. } = &write {
                        self.note_installing(writer, *link);
                    }
                    actions(Action::Persist { token, write });
                }
                PeerAction::Send { link, packet } => {
                    let (packet_type, zxid) = (packet.packet_type, packet.zxid);
                    actions(Action::Send { link, packet });
                    if let Role::Leader(leading) = &mut writer.role {
                        leading.sent(link, packet_type, zxid, actions);
                    }
                }
                PeerAction::Close { link } => {
                    writer.forget_link(link);
                    actions(Action::Close { link });
                }
                PeerAction::Notify { to, notification } => {
                    actions(Action::Notify { to, notification });
                }
                PeerAction::Connect { link, server, port } => {
                    actions(Action::Connect { link, server, port });
                }
                PeerAction::SendHistory { link, after, to } => {
                    actions(Action::SendHistory { link, after, to });
                }
                PeerAction::SendSnapshot { link, to } => {
                    actions(Action::SendSnapshot { link, to });
                }
                PeerAction::Propose { members } => actions(Action::Propose { members }),
                PeerAction::Activate { members } => {
                    self.apply_due(writer, now, actions); // the transaction among them
                    actions(Action::Activate { members });
                }
                PeerAction::Halt { why } => self.halt(writer, why, actions),
                PeerAction::Pass { link, packet } => self.pass(writer, link, packet, now, actions),
                PeerAction::SwitchTree { link, .. } => {
                    self.apply_due(writer, now, actions);
                    self.switch_tree(writer, link);
                }
                PeerAction::Serve { role } => {
                    self.apply_due(writer, now, actions);
                    self.serve_as(writer, role, now);
                }
                PeerAction::StopServing { .. } => {
                    self.apply_due(writer, now, actions);
                    self.stop_serving(writer);
                    self.unserved_since_ms.store(now.mono_ms(), Ordering::Relaxed);
                }
            }
        }
    }

    fn pass(
        &self,
        writer: &mut Writer,
        link: LinkId,
        packet: QuorumPacket,
        now: Now,
        actions: &mut dyn FnMut(Action),
    ) {
        let result = match &writer.role {
            Role::Leader(_) => self.on_learner_packet(writer, link, packet, now, actions),
            Role::Learner(learning) if learning.link == link => {
                // What was committed before it is seen before it.
                self.apply_due(writer, now, actions);
                self.on_leader_packet(writer, packet, actions)
            }
            Role::Learner(_) => self.on_observer_packet(writer, link, packet, now, actions),
            // Of a link that is not in use any more.
            Role::ReadOnly(_) | Role::Idle => Ok(()),
        };
        if result.is_err() {
            // Whoever sends what cannot be read is not listened to any further.
            actions(Action::Close { link });
            writer.forget_link(link);
            writer.step(now, Input::LinkDown { link });
        }
    }

    pub(crate) fn halt(&self, writer: &mut Writer, why: String, actions: &mut dyn FnMut(Action)) {
        writer.halted = true;
        writer.due.clear();
        actions(Action::Halt { why });
    }

    fn note_installing(&self, writer: &mut Writer, link: LinkId) {
        let staged = writer.staged.iter_mut().find(|staged| staged.link == link);
        staged.expect("what is installed was staged").installing = true;
        self.installing.fetch_add(1, Ordering::SeqCst);
    }

    /// The snapshot is the state on disk: from now on it is the tree.
    fn switch_tree(&self, writer: &mut Writer, link: LinkId) {
        // Who reads comes back, and finds the new one. Its watches were on the old one.
        self.end_read_only(writer);
        debug_assert!(matches!(writer.role, Role::Idle), "somebody is served");
        let index = writer.staged.iter().position(|staged| staged.link == link);
        let index = index.expect("what was installed was staged");
        // Those before it took the same way and were overtaken: the link broke, the next one brought
        // another.
        let overtaken = writer.staged.drain(..=index);
        let installing = overtaken.as_slice().iter().filter(|staged| staged.installing).count();
        let mut dbs: Vec<Database> = overtaken.map(|staged| staged.db).collect();
        let new = dbs.pop().expect("the range has an end");
        writer.retired.append(&mut dbs);
        let mut db = self.db_mut();
        writer.retired.push(db.replace(new));
        writer.is_fuzzy = true;
        self.installing.fetch_sub(installing, Ordering::SeqCst);
    }

    /// Opens for clients.
    fn serve_as(&self, writer: &mut Writer, role: ServingRole, now: Now) {
        debug_assert!(matches!(writer.role, Role::Idle), "a role ends before the next begins");
        // A snapshot that was not needed.
        let (kept, spare): (Vec<_>, _) =
            std::mem::take(&mut writer.staged).into_iter().partition(|staged| staged.installing);
        writer.staged = kept;
        writer.retired.extend(spare.into_iter().map(|staged: Staged| staged.db));
        writer.is_fuzzy = false;
        writer.epoch_start = Zxid::new(writer.peer.status().current_epoch, 0);
        let members = writer.peer.members();
        self.db_mut().set_config(&members.to_text(), members.version, now.wall_ms);
        match role {
            ServingRole::Leader => self.begin_leading(writer, now),
            ServingRole::Follower(link) => self.begin_learning(writer, link, false),
            ServingRole::Observer(link) => self.begin_learning(writer, link, true),
        }
    }

    /// Every session gets its full timeout from now on: nobody knows when it was last heard of.
    pub(crate) fn begin_leading(&self, writer: &mut Writer, now: Now) {
        let db = self.db();
        writer.sessions.clear();
        for (id, timeout_ms) in sessions_of(&db) {
            writer.sessions.track(id, timeout_ms, now.mono_ms());
        }
        let digest = self.config.digest_enabled.then(|| db.tree.digest());
        drop(db);
        writer.changes = OutstandingChanges::new(digest);
        self.begin(writer, Role::Leader(Leading::default()));
    }

    fn begin_learning(&self, writer: &mut Writer, link: LinkId, observer: bool) {
        let db = self.db();
        for id in db.tree.sessions().keys() {
            writer.sessions.skip_id(*id);
        }
        let learning = Learning::new(link, observer, db.tree.last_zxid());
        drop(db);
        self.begin(writer, Role::Learner(learning));
    }

    fn begin(&self, writer: &mut Writer, role: Role) {
        writer.role = role;
        writer.reign += 1;
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Closes for clients: every connection goes, and nothing that waits is answered. The tree stays.
    pub(crate) fn stop_serving(&self, writer: &mut Writer) {
        self.serving.store(false, Ordering::Relaxed);
        self.read_only.store(false, Ordering::Relaxed);
        writer.role = Role::Idle;
        writer.reign += 1;
        writer.in_flight.clear();
        writer.sessions.clear();
        writer.local.clear();
        writer.changes = OutstandingChanges::new(None);
        writer.by_session.clear();
        let db = self.db();
        let mut clients: Vec<_> = writer.clients.values().map(Arc::clone).collect();
        clients.sort_unstable_by_key(|client| client.id);
        for client in clients {
            client.hang_up();
            db.watches.remove_watcher(client.id);
        }
    }
}
