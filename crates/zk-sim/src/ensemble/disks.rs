//! Syncs, checkpoints, and what a crash leaves behind.

use super::*;

impl Ensemble {
    pub(crate) fn sync(&mut self, member: usize) {
        let max = if self.healed { usize::MAX } else { self.scenario.sync_max };
        let it = &mut self.members[member];
        if it.power != Power::On || !it.disk.begin_sync(max) {
            return;
        }
        let (life, slow) = (it.life, it.slow);
        let fast =
            if self.healed { self.scenario.sync_us.min(5 * MS) } else { self.scenario.sync_us };
        let mut delay = fast + self.within(fast);
        if self.rng.chance(2) {
            delay += self.within(20 * fast);
        }
        self.queue.push((delay * slow).min(LATENCY_MAX_US), Event::Synced(member, life));
    }

    pub(super) fn synced(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        let it = &mut self.members[member];
        if it.disk.wedged {
            it.disk.overdue = true;
            return;
        }
        if it.disk.fails {
            self.met(Marker::FsyncErrorStopped);
            self.say(|| format!("m{}: a sync failed", member + 1));
            let restart = self.within(2 * SECOND);
            return self.crash(member, Power::ProcessDown, Some(restart));
        }
        if it.disk.full && it.disk.is_appending() {
            self.met(Marker::DiskFullStopped);
            self.say(|| format!("m{}: the disk is full", member + 1));
            return self.crash(member, Power::ProcessDown, None);
        }
        let now_us = self.now_us();
        let mut landed = std::mem::take(&mut self.landed);
        let token = self.members[member].disk.end_sync(now_us, &mut landed);
        self.landed(member, &landed);
        landed.clear();
        self.landed = landed;
        if let Some(token) = token {
            self.note(4, member, token.0);
            self.say(|| format!("m{}: all writes up to {} are on disk", member + 1, token.0));
            self.call(member, |node, now, actions| node.on_persisted(token, now, actions));
        }
        self.sync(member);
    }

    /// What reached a disk.
    pub(super) fn landed(&mut self, member: usize, landed: &[Landed]) {
        for landed in landed {
            let verdict = match *landed {
                Landed::AcceptedEpoch(_) => Ok(()),
                Landed::Append(..) if self.scenario.standalone => Ok(()),
                Landed::Append(zxid, behind) => {
                    self.checks.ledger.a_log_on_disk_has_no_gap(member, zxid, behind)
                }
                Landed::CurrentEpoch(epoch) => {
                    if std::mem::take(&mut self.members[member].lost) {
                        self.met(Marker::LostDataMemberRejoined);
                    }
                    durability::an_epoch_is_written_behind_its_history(
                        member,
                        epoch,
                        self.checks.leadership.history(epoch),
                        &self.members[member].disk,
                    )
                }
                // Looked at when it was asked for: it may be another ensemble by now.
                Landed::Truncate(..) if self.scenario.reconfig => Ok(()),
                Landed::Truncate(kept, before) => self.what_counts_stays(member, kept, before),
                Landed::Install(snapshot, end, before) => {
                    self.met(Marker::SnapshotInstalled);
                    let it = &mut self.members[member];
                    // A checkpoint of the old tree must not get onto the new one.
                    it.checkpoint = None;
                    self.say(|| {
                        format!("m{} has the snapshot {snapshot}, and up to {end}", member + 1)
                    });
                    self.what_counts_stays(member, end, before)
                }
            };
            self.demand(verdict);
        }
    }

    pub(super) fn checkpoint_begins(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        let it = &mut self.members[member];
        if let Some(node) = &it.node
            && it.checkpoint.is_none()
            && node.is_serving()
        {
            it.checkpoint = node.begin_checkpoint();
        }
        let took = 5 * MS + self.within(300 * MS);
        self.queue.push(took, Event::CheckpointEnds(member, life));
    }

    pub(super) fn checkpoint_ends(&mut self, member: usize, life: u32) {
        if !self.is_alive(member, life) {
            return;
        }
        let delay = self.scenario.checkpoint_us / 2 + self.within(self.scenario.checkpoint_us);
        self.queue.push(delay, Event::CheckpointBegins(member, life));
        let keep = self.scenario.keep;
        let it = &mut self.members[member];
        let (Some(mut checkpoint), Some(node)) = (it.checkpoint.take(), &it.node) else { return };
        if !node.read(|db| db.has_begun(&checkpoint)) {
            return; // the tree is another one by now
        }
        let mut image = Image::clone(&it.disk.image);
        let mut items = Vec::new();
        loop {
            checkpoint.run_unlocked();
            let more = node.read(|db| db.checkpoint_chunk(&mut checkpoint, 16, &mut items));
            items.drain(..).for_each(|item| image.put(item));
            if !more {
                break;
            }
        }
        (image.zxid, image.digest) = (checkpoint.zxid(), checkpoint.digest());
        node.end_checkpoint(checkpoint, true);
        let begins = it.disk.log.lock().last();
        if image.zxid > begins {
            return self.demand(fail(
                "D5 memory is never ahead of the disk",
                format!(
                    "member {member} stores a tree at {}, and its log ends at {begins}",
                    image.zxid
                ),
            ));
        }
        let stored = it.disk.image.zxid;
        if image.zxid < stored {
            return self.demand(fail(
                "D5 a stored tree never goes back",
                format!("member {member}: from {stored} to {}", image.zxid),
            ));
        }
        let zxid = image.zxid;
        if self.members[member].disk.store(image, keep) {
            self.met(Marker::LogPurged);
        }
        self.met(Marker::CheckpointTaken);
        self.note(5, member, zxid.0.cast_unsigned());
        self.say(|| format!("m{} has a checkpoint at {zxid}", member + 1));
    }

    /// A process ends, or its machine does. `restart_us`: after which time it starts again.
    pub(crate) fn crash(&mut self, member: usize, power: Power, restart_us: Option<i64>) {
        if self.members[member].power != Power::On {
            return;
        }
        let now_us = self.now_us();
        self.disturbed_us = now_us;
        self.note(6, member, now_us.cast_unsigned());
        self.note_wall_clock(member);
        let flying = self.members[member].disk.in_flight();
        let keep = if self.scenario.scripted { 0 } else { self.rng.index(flying + 1) };
        if power == Power::MachineDown && keep < flying {
            self.met(Marker::PowerLossLostWrites);
        }
        if keep > 0 {
            self.met(Marker::PowerLossKeptSome);
        }
        self.say(|| {
            format!("m{} ends ({power:?}); of {flying} unsynced writes {keep} are kept", member + 1)
        });
        if self.members[member].disk.is_staging() {
            self.met(Marker::SnapshotDiscarded);
        }
        let mut landed = std::mem::take(&mut self.landed);
        let it = &mut self.members[member];
        it.disk.crash(keep, &mut landed);
        it.power = power;
        it.node = None;
        it.paused = false;
        let stash = std::mem::take(&mut it.stash);
        it.staged.clear();
        it.checkpoint = None;
        it.serving = false;
        it.state = PeerState::Looking;
        it.led_when_paused = None;
        it.disk.waiting_since_us = None;
        let links: Vec<_> = std::mem::take(&mut it.links).into_values().collect();
        self.landed(member, &landed);
        landed.clear();
        self.landed = landed;
        for (link, end) in links {
            if power == Power::ProcessDown {
                self.hang_up(link, end);
            } else {
                // Nobody says goodbye: the other end hears of it when it asks again.
                self.links[link].ends[end].open = false;
                let delay = 200 * MS + self.within(8 * SECOND);
                self.push_item(link, 1 - end, delay, Item::Down);
            }
        }
        for event in stash {
            if let Event::Accept(link) = event {
                self.hang_up(link, 1); // the kernel had answered
            }
        }
        for connection in 0..self.connections.len() {
            let it = &self.connections[connection];
            if it.member == member && !it.server_closed {
                self.connections[connection].server_closed = true;
                self.connections[connection].handle = None;
                self.connections[connection].to_server.clear();
                if power == Power::ProcessDown {
                    self.push_to_client(connection, Frame::Closed);
                }
            }
        }
        self.unsent.retain(|(from, _), _| *from != member);
        if power == Power::ProcessDown {
            for other in 0..self.members.len() {
                if other != member
                    && self.is_running(other)
                    && self.rng.chance(60)
                    && !self.network.is_cut(member, other)
                {
                    let (delay, life) = (self.latency(member, other), self.members[other].life);
                    self.queue.push(
                        delay,
                        Event::Reachable { at: other, life, server: member, reachable: false },
                    );
                }
            }
        }
        if let Some(restart_us) = restart_us {
            self.members[member].restart_pending = true;
            self.queue.push(restart_us, Event::Boot(member));
        }
    }

    /// To be called before a wall clock goes back, and at the end of a process.
    pub(crate) fn note_wall_clock(&mut self, member: usize) {
        let now_us = self.now_us();
        let it = &mut self.members[member];
        it.wall_max_ms = it.wall_max_ms.max(it.clocks.now(now_us).wall_ms);
    }
}
