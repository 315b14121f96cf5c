//! Faults, and their ends.

use zk_proto::quorum::PeerState;

use crate::clock::{MS, SECOND};
use crate::ensemble::{Ensemble, Event, Power};
use crate::markers::Marker;
use crate::swarm::Fault;

/// The end of a fault.
#[derive(Debug, Clone)]
pub(crate) enum Mend {
    /// These ways are open again.
    Ways(Vec<(usize, usize)>),
    Resume(usize, u32),
    Unwedge(usize),
    Room(usize),
    Speed(usize),
    Network,
    ClientWay(usize, usize),
}

impl Ensemble {
    /// A member; the leader more often than others.
    fn victim(&mut self) -> usize {
        let leader = self
            .members
            .iter()
            .position(|member| member.state == PeerState::Leading && member.power == Power::On);
        match leader {
            Some(leader) if self.rng.chance(35) => leader,
            Some(_) | None => self.rng.index(self.members.len()),
        }
    }

    fn duration(&mut self) -> i64 {
        let most = *self.rng.pick(&[300 * MS, 2 * SECOND, 8 * SECOND]);
        20 * MS + self.within(most)
    }

    /// The next fault.
    pub(crate) fn fault(&mut self) {
        if self.healed {
            return;
        }
        let gap = self.scenario.fault_gap_us;
        let delay = 1 + self.within(2 * gap);
        self.queue.push(delay, Event::Fault);
        let faults = self.scenario.faults.clone();
        let fault = *self.rng.pick(&faults);
        let victim = self.victim();
        self.disturbed_us = self.now_us();
        self.trace.step([self.now_us().cast_unsigned(), 13, fault as u64, victim as u64]);
        self.say(|| format!("FAULT {fault:?}, m{} if it concerns one", victim + 1));
        match fault {
            Fault::Crash => {
                let restart = self.restart_us();
                self.crash(victim, Power::ProcessDown, Some(restart));
            }
            Fault::PowerLoss => {
                let restart = 200 * MS + self.restart_us();
                self.crash(victim, Power::MachineDown, Some(restart));
            }
            Fault::PowerLossOfAll => {
                self.met(Marker::PowerLossOfAll);
                for member in 0..self.members.len() {
                    let restart = 200 * MS + self.restart_us();
                    self.crash(member, Power::MachineDown, Some(restart));
                }
            }
            Fault::Partition => self.partition(),
            Fault::Isolate => self.isolate(victim),
            Fault::AsymmetricCut => {
                let other = self.rng.index(self.members.len());
                if other != victim {
                    self.met(Marker::AsymmetricCut);
                    self.cut(vec![(victim, other)]);
                }
            }
            Fault::LinkReset => {
                if self.reset_link() {
                    self.met(Marker::LinkReset);
                }
            }
            Fault::Pause => self.pause(victim),
            Fault::WedgedDisk => self.wedge(victim),
            Fault::FsyncError => self.members[victim].disk.fails = true,
            Fault::DiskFull => self.fill(victim),
            Fault::ClockJump => {
                let jump = self.within(120_000) - 60_000;
                let jump = if self.rng.chance(50) { jump } else { jump / 60 };
                self.note_wall_clock(victim);
                self.members[victim].clocks.wall_offset_ms += jump;
                self.met(Marker::ClockJumped);
            }
            Fault::SlowMember => {
                self.members[victim].slow = i64::try_from(self.rng.below(40)).unwrap_or(1) + 2;
                let duration = self.duration();
                self.queue.push(duration, Event::Mend(Mend::Speed(victim)));
            }
            Fault::LostData => self.lose(victim),
            Fault::SlowNetwork => {
                self.network.factor = i64::try_from(self.rng.below(60)).unwrap_or(1) + 2;
                let duration = self.duration();
                self.queue.push(duration, Event::Mend(Mend::Network));
            }
            Fault::Loss => {
                self.network.loss_permille = self.rng.below(600);
                let duration = self.duration();
                self.queue.push(duration, Event::Mend(Mend::Network));
            }
            Fault::ClientCut => {
                let client = self.rng.index(self.clients.len());
                self.network.set_client_cut(client, victim, true);
                let duration = self.duration();
                self.queue.push(duration, Event::Mend(Mend::ClientWay(client, victim)));
            }
        }
    }

    fn restart_us(&mut self) -> i64 {
        let most = *self.rng.pick(&[50 * MS, SECOND, 6 * SECOND]);
        5 * MS + self.within(most)
    }

    fn cut(&mut self, ways: Vec<(usize, usize)>) {
        for (from, to) in &ways {
            self.network.set_cut(*from, *to, true);
        }
        let duration = self.duration();
        self.queue.push(duration, Event::Mend(Mend::Ways(ways)));
    }

    fn partition(&mut self) {
        let count = self.members.len();
        let side: Vec<bool> = (0..count).map(|_| self.rng.chance(50)).collect();
        let ways: Vec<_> = (0..count)
            .flat_map(|from| (0..count).map(move |to| (from, to)))
            .filter(|(from, to)| side[*from] != side[*to])
            .collect();
        let leader = self.members.iter().position(|member| member.state == PeerState::Leading);
        if let Some(leader) = leader {
            let with = (0..count).filter(|member| side[*member] == side[leader]);
            if !self.verifier.is_quorum(with.map(|member| self.members[member].id)) {
                self.met(Marker::LeaderCutOff);
            }
        }
        self.cut(ways);
    }

    fn isolate(&mut self, victim: usize) {
        let others = (0..self.members.len()).filter(|other| *other != victim);
        let kind = self.rng.below(3);
        let ways: Vec<_> = others
            .flat_map(|other| [(victim, other), (other, victim)])
            .filter(|(from, _)| match kind {
                0 => true,
                1 => *from == victim,
                _ => *from != victim,
            })
            .collect();
        if kind > 0 && !ways.is_empty() {
            self.met(Marker::AsymmetricCut);
        }
        self.cut(ways);
    }

    fn pause(&mut self, victim: usize) {
        let it = &mut self.members[victim];
        if it.power != Power::On || it.paused {
            return;
        }
        it.paused = true;
        it.led_when_paused =
            (it.state == PeerState::Leading && it.serving).then_some(it.disk.current_epoch);
        let life = it.life;
        let duration = self.duration();
        self.queue.push(duration, Event::Mend(Mend::Resume(victim, life)));
    }

    fn resume(&mut self, member: usize) {
        let it = &mut self.members[member];
        if !std::mem::take(&mut it.paused) {
            return;
        }
        let led = it.led_when_paused.take();
        let mut stash = std::mem::take(&mut it.stash);
        if led.is_some_and(|epoch| self.checks.leadership.newest() > epoch) {
            self.met(Marker::PausedLeaderDeposed);
        }
        // What a process looks at first is up to its scheduler: timers, or its clients, or what came first.
        match self.rng.below(4) {
            0 => stash.sort_by_key(|event| !matches!(event, Event::Tick(..))),
            1 => stash.sort_by_key(|event| !matches!(event, Event::ToServer(..))),
            _ => {} // in order
        }
        for event in stash {
            self.queue.push(0, event);
        }
    }

    fn wedge(&mut self, victim: usize) {
        let now_us = self.now_us();
        let it = &mut self.members[victim];
        if it.disk.wedged {
            return;
        }
        it.disk.wedged = true;
        it.wedged_us = Some(now_us);
        let most = *self.rng.pick(&[SECOND, 12 * SECOND]);
        let duration = 20 * MS + self.within(most);
        self.queue.push(duration, Event::Mend(Mend::Unwedge(victim)));
    }

    fn unwedge(&mut self, member: usize) {
        let it = &mut self.members[member];
        it.disk.wedged = false;
        it.wedged_us = None;
        if std::mem::take(&mut it.disk.overdue) {
            let life = it.life;
            self.queue.push(0, Event::Synced(member, life));
        }
    }

    fn fill(&mut self, victim: usize) {
        let Some(node) = &self.members[victim].node else { return };
        // The guard sees it coming, or it does not.
        node.accept_writes(false);
        self.members[victim].disk.low = true;
        self.met(Marker::WritesRefused);
        if self.rng.chance(30) {
            self.members[victim].disk.full = true;
        }
        let duration = self.duration();
        self.queue.push(duration, Event::Mend(Mend::Room(victim)));
    }

    fn room(&mut self, member: usize) {
        self.members[member].disk.full = false;
        self.members[member].disk.low = false;
        if let Some(node) = &self.members[member].node {
            node.accept_writes(true);
        } else if !self.members[member].restart_pending {
            self.members[member].restart_pending = true;
            self.queue.push(100 * MS, Event::Boot(member));
        }
    }

    /// A disk is replaced. A quorum of voters must be left that are not without data, as are those that
    /// never had any.
    fn lose(&mut self, victim: usize) {
        let without = |disk: &crate::disk::Disk| disk.current_epoch.0 == 0;
        let it = &self.members[victim];
        let left = self
            .members
            .iter()
            .filter(|member| !(member.id == it.id || member.lost || without(&member.disk)));
        let tolerated = self.verifier.is_quorum(left.map(|member| member.id));
        let empty = it.disk.durable_end() == zk_proto::Zxid::ZERO && it.disk.accepted_epoch.0 == 0;
        if it.lost || empty || it.voter && !tolerated {
            return;
        }
        let restart = self.restart_us();
        if self.is_running(victim) {
            self.crash(victim, Power::ProcessDown, Some(restart));
        }
        self.losses += 1;
        let it = &mut self.members[victim];
        it.disk.lose();
        it.lost = true;
        self.say(|| format!("m{} has lost its data", victim + 1));
    }

    pub(crate) fn mend(&mut self, mend: Mend) {
        if self.healed {
            return;
        }
        self.disturbed_us = self.now_us();
        self.say(|| format!("MENDED {mend:?}"));
        match mend {
            Mend::Ways(ways) => {
                for (from, to) in ways {
                    self.network.set_cut(from, to, false);
                }
                self.ways_opened();
            }
            Mend::Resume(member, life) => {
                if self.members[member].life == life {
                    self.resume(member);
                }
            }
            Mend::Unwedge(member) => self.unwedge(member),
            Mend::Room(member) => self.room(member),
            Mend::Speed(member) => self.members[member].slow = 1,
            Mend::Network => {
                self.network.factor = 1;
                self.network.loss_permille = 0;
            }
            Mend::ClientWay(client, member) => {
                self.network.set_client_cut(client, member, false);
                self.ways_opened();
            }
        }
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.disturbed_us = self.now_us();
        self.say(|| "HEALED: nothing fails any more".to_owned());
        self.trace.step([self.now_us().cast_unsigned(), 14, 0, 0]);
        self.network.mend();
        self.network.base_us = self.network.base_us.min(MS);
        self.network.jitter_us = self.network.jitter_us.min(MS);
        for member in 0..self.members.len() {
            self.members[member].slow = 1;
            self.members[member].disk.full = false;
            self.members[member].disk.low = false;
            self.members[member].disk.fails = false;
            self.resume(member);
            self.unwedge(member);
            if let Some(node) = &self.members[member].node {
                node.accept_writes(true);
            } else {
                let delay = self.within(500 * MS);
                self.queue.push(delay, Event::Boot(member));
            }
        }
        self.ways_opened();
        self.begin_liveness();
    }
}

/// Faults for scripts.
impl Ensemble {
    /// A member is cut off from all others, or no longer.
    pub(crate) fn cut_off(&mut self, member: usize, cut: bool) {
        for other in 0..self.members.len() {
            self.network.set_cut(member, other, cut);
            self.network.set_cut(other, member, cut);
        }
        if !cut {
            self.ways_opened();
        }
    }
}
