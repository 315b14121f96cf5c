//! Links and election messages between members.

use super::*;

impl Ensemble {
    pub(super) fn latency(&mut self, from: usize, to: usize) -> i64 {
        let slow = self
            .members
            .get(from)
            .map_or(1, |member| member.slow)
            .max(self.members.get(to).map_or(1, |member| member.slow));
        (self.delay() * slow).min(LATENCY_MAX_US)
    }

    pub(super) fn delay(&mut self) -> i64 {
        let mut delay = self.network.base_us + self.within(self.network.jitter_us);
        if self.network.spike_permille > 0 && self.rng.below(1000) < self.network.spike_permille {
            delay += self.within(self.network.spike_us);
        }
        (delay * self.network.factor).min(LATENCY_MAX_US)
    }

    pub(super) fn send_notification(
        &mut self,
        from: usize,
        to: usize,
        notification: Box<Notification>,
    ) {
        if self.rng.below(1000) < self.network.loss_permille {
            return;
        }
        self.say(|| {
            format!(
                "m{} -> m{}: vote {:?} for {} ({}, epoch {}) in round {}",
                from + 1,
                to + 1,
                notification.state,
                notification.leader,
                notification.zxid,
                notification.peer_epoch,
                notification.round
            )
        });
        if self.network.is_cut(from, to) {
            self.unsent.insert((from, to), notification);
            return;
        }
        let latency = self.latency(from, to);
        let at_us = self.now_us() + latency;
        let last = self.last_notification_us.entry((from, to)).or_default();
        *last = at_us.max(*last);
        self.queue.push_at(*last, Event::Notify { from, to, notification });
    }

    pub(super) fn notified(&mut self, from: usize, to: usize, notification: Box<Notification>) {
        if self.network.is_cut(from, to) {
            self.unsent.insert((from, to), notification);
            return;
        }
        if !self.is_running(to) {
            let refused = self.members[to].power == Power::ProcessDown;
            if refused && self.is_running(from) && !self.network.is_cut(to, from) {
                let (delay, life) = (self.latency(to, from), self.members[from].life);
                let reachable = false;
                self.queue.push(delay, Event::Reachable { at: from, life, server: to, reachable });
            }
            return;
        }
        self.note(7, to, from as u64);
        let (from_id, to_id) = (self.members[from].id, self.members[to].id);
        if self.told[to][from] == Some(false) {
            self.told[to][from] = Some(true);
            self.call(to, |node, now, actions| node.on_reachable(from_id, true, now, actions));
        }
        if self.told[from][to] == Some(false) && self.is_running(from) && !self.members[from].paused
        {
            self.told[from][to] = Some(true);
            self.call(from, |node, now, actions| node.on_reachable(to_id, true, now, actions));
        }
        if notification.leader == to_id {
            let it = &mut self.members[to];
            it.claimed = it.claimed.max(notification.zxid);
        }
        self.call(to, |node, now, actions| {
            node.on_notification(from_id, *notification, now, actions);
        });
    }

    pub(super) fn told_reachable(&mut self, at: usize, life: u32, server: usize, reachable: bool) {
        // By now it may be there again.
        if !self.is_alive(at, life) || self.is_running(server) != reachable {
            return;
        }
        self.told[at][server] = Some(reachable);
        self.note(8, at, server as u64);
        self.say(|| format!("m{} hears that m{} refuses connections", at + 1, server + 1));
        let id = self.members[server].id;
        self.call(at, |node, now, actions| node.on_reachable(id, reachable, now, actions));
    }

    /// Ways are open again: what was held up flows.
    pub(crate) fn ways_opened(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        for ((from, to), notification) in unsent {
            if self.is_running(from) {
                self.send_notification(from, to, notification);
            }
        }
        for link in 0..self.links.len() {
            for end in 0..2 {
                if !self.links[link].pipes[end].is_empty() && !self.links[link].pipes[end].scheduled
                {
                    self.links[link].pipes[end].scheduled = true;
                    let delay = self.delay();
                    self.queue.push(delay, Event::Arrive(link, end));
                }
            }
        }
        for connection in 0..self.connections.len() {
            let it = &mut self.connections[connection];
            if !it.to_server.is_empty() && !it.to_server.scheduled {
                it.to_server.scheduled = true;
                self.queue.push(MS, Event::ToServer(connection));
            }
            let it = &mut self.connections[connection];
            if !it.to_client.is_empty() && !it.to_client.scheduled {
                it.to_client.scheduled = true;
                self.queue.push(MS, Event::ToClient(connection));
            }
        }
    }

    pub(super) fn dial(&mut self, member: usize, id: LinkId, server: ServerId, port: LearnerPort) {
        let Some(target) = self.members.iter().position(|member| member.id == server) else {
            return self.demand(fail("R6 a member dials members", format!("{server} is dialled")));
        };
        let it = &self.members[member];
        let link = self.links.len();
        let mut pipes: [Pipe<Item>; 2] = Default::default();
        // Nothing arrives before both ends know of it.
        pipes[0].scheduled = true;
        pipes[1].scheduled = true;
        self.links.push(Link {
            ends: [
                End { member, life: it.life, id: Some(id), open: true },
                End { member: target, life: self.members[target].life, id: None, open: true },
            ],
            pipes,
            epoch: Epoch(0),
            sync: None,
            up_to_date: false,
            acked: false,
            broken: false,
            to_observer_master: port == LearnerPort::ObserverMaster,
        });
        self.members[member].links.insert(id, (link, 0));
        self.say(|| format!("m{} dials m{}'s {port:?} port (link {link})", member + 1, target + 1));
        let delay = self.latency(member, target);
        if self.network.is_cut(member, target) || self.network.is_cut(target, member) {
            let timeout = self.scenario.tick_ms * 2 * MS;
            self.queue.push(timeout, Event::DialFailed(link));
        } else {
            self.queue.push(delay, Event::Dialled(link));
        }
    }

    pub(super) fn dialled(&mut self, link: usize) {
        let [dialer, target] = self.links[link].ends;
        let delay = self.latency(target.member, dialer.member);
        match self.members[target.member].power {
            Power::On => {
                self.links[link].ends[1].life = self.members[target.member].life;
                self.queue.push(0, Event::Accept(link));
                self.queue.push(delay, Event::Connected(link));
            }
            Power::ProcessDown => self.queue.push(delay, Event::DialFailed(link)),
            Power::MachineDown => {
                let timeout = self.scenario.tick_ms * 2 * MS;
                self.queue.push(timeout, Event::DialFailed(link));
            }
        }
    }

    pub(super) fn dial_failed(&mut self, link: usize) {
        let dialer = self.links[link].ends[0];
        self.links[link].ends[1].open = false;
        let Some(id) = dialer.id else { return };
        if !dialer.open || !self.is_alive(dialer.member, dialer.life) {
            return;
        }
        self.links[link].ends[0].open = false;
        self.members[dialer.member].links.remove(&id);
        self.say(|| format!("m{}: link {link} could not be made", dialer.member + 1));
        self.call(dialer.member, |node, now, actions| node.on_link_down(id, now, actions));
    }

    pub(super) fn accept(&mut self, link: usize) {
        let target = self.links[link].ends[1];
        if !self.is_alive(target.member, target.life) {
            return self.hang_up(link, 1);
        }
        let Some(node) = &self.members[target.member].node else { return };
        let id = node.accept_link();
        self.links[link].ends[1].id = Some(id);
        self.members[target.member].links.insert(id, (link, 1));
        let to_observer_master = self.links[link].to_observer_master;
        self.call(target.member, |node, now, actions| match to_observer_master {
            false => node.on_link_up(id, now, actions),
            true => node.on_observer_link_up(id, now, actions),
        });
        self.links[link].pipes[1].scheduled = false;
        self.schedule_pipe(link, 1);
    }

    pub(super) fn connected(&mut self, link: usize) {
        let dialer = self.links[link].ends[0];
        let Some(id) = dialer.id else { return };
        if !dialer.open || !self.is_alive(dialer.member, dialer.life) {
            return;
        }
        self.note(9, dialer.member, link as u64);
        self.call(dialer.member, |node, now, actions| node.on_link_up(id, now, actions));
        self.links[link].pipes[0].scheduled = false;
        self.schedule_pipe(link, 0);
    }

    pub(super) fn schedule_pipe(&mut self, link: usize, end: usize) {
        let pipe = &mut self.links[link].pipes[end];
        if !pipe.scheduled
            && let Some(at_us) = pipe.next_us()
        {
            pipe.scheduled = true;
            self.queue.push_at(at_us, Event::Arrive(link, end));
        }
    }

    pub(crate) fn push_item(&mut self, link: usize, to: usize, delay_us: i64, item: Item) {
        let at_us = self.now_us() + delay_us;
        self.links[link].pipes[to].push(at_us, item);
        self.schedule_pipe(link, to);
    }

    /// One end hangs up.
    pub(crate) fn hang_up(&mut self, link: usize, end: usize) {
        if !std::mem::replace(&mut self.links[link].ends[end].open, false) {
            return;
        }
        self.disturbed_us = self.now_us();
        let [this, other] = [self.links[link].ends[end], self.links[link].ends[1 - end]];
        self.links[link].pipes[end].clear();
        if other.open {
            // What is under way may be lost, or not.
            let under_way = self.links[link].pipes[1 - end].len();
            let lost = if self.rng.chance(50) { self.rng.index(under_way + 1) } else { 0 };
            self.links[link].pipes[1 - end].drop_last(lost);
            let delay = self.latency(this.member, other.member);
            self.push_item(link, 1 - end, delay, Item::Down);
        }
    }

    /// What was to be sent from `end` cannot be: nothing more is sent, and both ends hear of it.
    pub(super) fn break_link(&mut self, link: usize, end: usize) {
        self.links[link].broken = true;
        let [this, other] = [self.links[link].ends[end], self.links[link].ends[1 - end]];
        self.push_item(link, end, 0, Item::Down);
        let delay = self.latency(this.member, other.member);
        self.push_item(link, 1 - end, delay, Item::Down);
    }

    /// A link breaks, for both ends.
    pub(crate) fn reset_link(&mut self) -> bool {
        let open: Vec<usize> = (0..self.links.len())
            .filter(|link| self.links[*link].ends.iter().all(|end| end.open && end.id.is_some()))
            .collect();
        if open.is_empty() {
            return false;
        }
        let link = *self.rng.pick(&open);
        for end in 0..2 {
            let under_way = self.links[link].pipes[end].len();
            let lost = self.rng.index(under_way + 1);
            self.links[link].pipes[end].drop_last(lost);
            self.push_item(link, end, 0, Item::Down);
        }
        self.say(|| format!("link {link} is reset"));
        true
    }

    pub(super) fn arrive(&mut self, link: usize, end: usize) {
        self.links[link].pipes[end].scheduled = false;
        let [this, other] = [self.links[link].ends[end], self.links[link].ends[1 - end]];
        if !this.open {
            self.links[link].pipes[end].clear();
            return;
        }
        if self.network.is_cut(other.member, this.member) {
            return; // until the way is open again
        }
        let Some(id) = this.id else { return };
        if !self.is_alive(this.member, this.life) {
            return;
        }
        let now_us = self.now_us();
        let mut packets = VecDeque::new();
        while packets.len() < PACKETS_MAX {
            match self.links[link].pipes[end].pop(now_us) {
                Some(Item::Packet(packet)) => packets.push_back(packet),
                Some(Item::Snapshot(zxid, bytes)) => {
                    self.hand_over(this.member, id, &mut packets);
                    self.received_snapshot(this.member, id, zxid, &bytes);
                }
                Some(Item::Down) => {
                    self.hand_over(this.member, id, &mut packets);
                    self.link_down(link, end);
                    return;
                }
                None => break,
            }
            if !self.links[link].ends[end].open {
                break;
            }
        }
        self.hand_over(this.member, id, &mut packets);
        if self.links[link].ends[end].open {
            self.schedule_pipe(link, end);
        }
    }

    pub(super) fn hand_over(
        &mut self,
        member: usize,
        id: LinkId,
        packets: &mut VecDeque<QuorumPacket>,
    ) {
        if packets.is_empty() || !self.members[member].links.contains_key(&id) {
            return;
        }
        self.note(10, member, packets.len() as u64);
        self.call(member, |node, now, actions| node.on_packets(id, packets, now, actions));
        packets.clear();
        if !self.members[member].serving
            && self.members[member].node.as_ref().is_some_and(Node::is_serving)
        {
            self.watch_role(member);
        }
    }

    pub(super) fn received_snapshot(
        &mut self,
        member: usize,
        id: LinkId,
        zxid: Zxid,
        bytes: &Bytes,
    ) {
        if !self.members[member].links.contains_key(&id) {
            return;
        }
        let config = self.node_config(member);
        let tree = TreeConfig {
            extended_types: config.extended_types,
            digest_enabled: config.digest_enabled,
        };
        let received: Result<(Image, Database), String> =
            Image::decode(zxid, bytes).and_then(|image| image.load(tree).map(|db| (image, db)));
        match received {
            Ok((mut image, db)) => {
                image.digest = db.tree.digest();
                self.members[member].staged.insert(id, Arc::new(image));
                self.call(member, |node, now, actions| {
                    node.on_snapshot(id, zxid, db, now, actions)
                });
            }
            Err(message) => self
                .violated(Violation { checker: "D7 what is received is what was stored", message }),
        }
    }

    pub(super) fn link_down(&mut self, link: usize, end: usize) {
        let this = self.links[link].ends[end];
        self.links[link].ends[end].open = false;
        self.links[link].pipes[end].clear();
        let Some(id) = this.id else { return };
        if self.members[this.member].links.remove(&id).is_none() {
            return;
        }
        self.disturbed_us = self.now_us();
        self.note(11, this.member, link as u64);
        self.say(|| format!("m{}: link {link} is down", this.member + 1));
        self.call(this.member, |node, now, actions| node.on_link_down(id, now, actions));
    }

    pub(super) fn send(&mut self, member: usize, id: LinkId, packet: QuorumPacket) {
        let Some(&(link, end)) = self.members[member].links.get(&id) else { return };
        let verdict = self.inspect(member, link, end, &packet);
        self.demand(verdict);
        let other = self.links[link].ends[1 - end].member;
        self.say(|| {
            format!(
                "m{} -> m{}: {} {} {}",
                member + 1,
                other + 1,
                packet.packet_type,
                packet.zxid,
                packet
                    .data
                    .as_ref()
                    .map_or(String::new(), |data| format!("({} bytes)", data.len()))
            )
        });
        if !self.links[link].ends[1 - end].open || self.links[link].broken {
            return;
        }
        let delay = self.latency(member, other);
        if self.network.is_cut(member, other) {
            self.met(Marker::StalledPacketsArrived);
        }
        self.push_item(link, 1 - end, delay, Item::Packet(packet));
    }

    /// What a packet says must be so.
    pub(super) fn inspect(
        &mut self,
        member: usize,
        link: usize,
        end: usize,
        packet: &QuorumPacket,
    ) -> Verdict {
        let it = &self.members[member];
        let (life, zxid) = (it.life, packet.zxid);
        let data = packet.data.clone().unwrap_or_default();
        let from_leader = end == 1;
        match packet.packet_type {
            PacketType::LEADER_INFO => self.links[link].epoch = zxid.epoch(),
            PacketType::ACK_EPOCH => {
                let epoch = self.links[link].epoch;
                durability::an_epoch_is_promised_when_it_is_on_disk(member, epoch, &it.disk)?;
                durability::a_vote_speaks_of_the_own_log(member, zxid, it.disk.end())?;
            }
            PacketType::NEW_LEADER if self.links[link].to_observer_master => {
                // What a follower serves with: it has delivered all of the history before the epoch.
                if self.checks.leadership.history(zxid.epoch()).is_none() {
                    return fail(
                        "Z1 an observer master speaks for its leader",
                        format!("member {member} feeds an observer in epoch {}", zxid.epoch()),
                    );
                }
                match self.links[link].sync.take() {
                    Some((PacketType::SNAP, _)) => self.markers.met(Marker::ObserverMasterSnap),
                    Some((PacketType::DIFF, 1..)) => self.markers.met(Marker::ObserverMasterDiff),
                    Some(_) | None => {}
                }
            }
            PacketType::NEW_LEADER => {
                let first =
                    self.checks.leadership.one_leader_in_an_epoch_with_all_that_is_committed(
                        (member, life),
                        zxid.epoch(),
                        it.disk.end(),
                        self.checks.commits.last(),
                        &self.checks.ledger,
                    )?;
                if first && it.disk.end() > self.checks.commits.last() {
                    self.markers.met(Marker::LeaderChangedWithOutstanding);
                }
                let marker = match self.links[link].sync.take() {
                    Some((PacketType::DIFF, 0)) => Some(Marker::SyncEmptyDiff),
                    Some((PacketType::DIFF, _)) => Some(Marker::SyncDiff),
                    Some((PacketType::TRUNC, 0)) => Some(Marker::SyncTrunc),
                    Some((PacketType::TRUNC, _)) => Some(Marker::SyncTruncAndMore),
                    Some((PacketType::SNAP, _)) => Some(Marker::SyncSnap),
                    _ => None, // nothing that brings a learner up to date
                };
                if let Some(marker) = marker {
                    self.markers.met(marker);
                }
            }
            PacketType::DIFF | PacketType::TRUNC => {
                self.links[link].sync = Some((packet.packet_type, 0));
            }
            PacketType::PROPOSAL => {
                if let Some((_, count)) = &mut self.links[link].sync {
                    *count += 1;
                }
                self.checks.ledger.packets_carry_what_was_proposed(zxid, &data)?;
            }
            PacketType::INFORM => {
                self.checks.ledger.packets_carry_what_was_proposed(zxid, &data)?;
                let by_follower = self.links[link].to_observer_master;
                self.markers.met(match by_follower {
                    false => Marker::ObserverInformed,
                    true => Marker::ObserverInformedByFollower,
                });
                self.committed(member, zxid);
            }
            // Before it, a commit means: when this leader is established.
            PacketType::COMMIT if self.links[link].up_to_date => self.committed(member, zxid),
            PacketType::UP_TO_DATE => self.links[link].up_to_date = true,
            PacketType::ACK if !from_leader && zxid.counter() == 0 => {
                self.links[link].acked = true;
                durability::a_history_is_acknowledged_when_all_of_it_is_on_disk(
                    member,
                    zxid.epoch(),
                    self.checks.leadership.history(zxid.epoch()),
                    &it.disk,
                )?;
            }
            PacketType::ACK if !from_leader => {
                if !self.links[link].acked {
                    return fail(
                        "D2 NEWLEADER is acknowledged before any proposal",
                        format!("member {member} acknowledges {zxid} first"),
                    );
                }
                durability::a_proposal_is_acknowledged_when_it_is_on_disk(member, zxid, &it.disk)?;
            }
            PacketType::REQUEST => self.markers.met(match self.links[link].to_observer_master {
                false => Marker::RequestForwarded,
                true => Marker::RequestByObserverMaster,
            }),
            PacketType::SYNC if self.links[link].to_observer_master => {
                self.markers.met(Marker::SyncByObserverMaster);
            }
            PacketType::REVALIDATE if self.links[link].to_observer_master && from_leader => {
                self.markers.met(Marker::RevalidatedByObserverMaster);
            }
            _ => {} // nothing is promised with it
        }
        Ok(())
    }

    pub(super) fn send_history(&mut self, member: usize, id: LinkId, after: Zxid, to: Zxid) {
        let Some(&(link, end)) = self.members[member].links.get(&id) else { return };
        let log = self.members[member].disk.log.clone();
        let entries: Vec<_> = log.lock().range(after, to).cloned().collect();
        let begins = zk_zab::History::begins(&log);
        let whole = entries.last().map_or(after, |(zxid, _)| *zxid) == to;
        if begins > after || self.rng.chance(1) {
            // Purged meanwhile.
            self.say(|| format!("m{}: the log no longer reaches back to {after}", member + 1));
            return self.break_link(link, end);
        }
        if !whole {
            return self.demand(fail(
                "R6 what is to be sent from the log is there",
                format!(
                    "member {member} is to send ({after}, {to}]; its log ends at {}",
                    log.lock().last()
                ),
            ));
        }
        self.met(Marker::HistoryFromDisk);
        for (zxid, bytes) in entries {
            let packet =
                |packet_type, data| QuorumPacket { packet_type, zxid, data, authinfo: None };
            self.send(member, id, packet(PacketType::PROPOSAL, Some(bytes)));
            self.send(member, id, packet(PacketType::COMMIT, None));
        }
    }

    pub(super) fn send_snapshot(&mut self, member: usize, id: LinkId, to: Zxid) {
        let Some(&(link, end)) = self.members[member].links.get(&id) else { return };
        let image = Arc::clone(&self.members[member].disk.image);
        if image.zxid > to {
            return self.demand(fail(
                "Z9 a snapshot is not ahead of what it is sent for",
                format!(
                    "member {member} has a tree at {} stored, and is to send up to {to}",
                    image.zxid
                ),
            ));
        }
        self.links[link].sync = Some((PacketType::SNAP, 0));
        let other = self.links[link].ends[1 - end].member;
        self.say(|| format!("m{} -> m{}: SNAP {}", member + 1, other + 1, image.zxid));
        if self.links[link].ends[1 - end].open {
            let delay = self.latency(member, other) + self.within(50 * MS);
            let bytes = image.encode();
            self.push_item(link, 1 - end, delay, Item::Snapshot(image.zxid, bytes));
        }
        if image.zxid < to {
            self.send_history(member, id, image.zxid, to);
        }
    }
}
