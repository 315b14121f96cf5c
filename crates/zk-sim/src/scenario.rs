//! Scripts: what led to a known bug, fault by fault. Each passes without its bug, and with it something
//! is found.

use zk_proto::Request;
use zk_proto::proto::ReconfigRequest;
use zk_proto::quorum::{PacketType, PeerState};
use zk_session::LocalSessionMode;
use zk_zab::bugs::Bug;

use crate::check::Violation;
use crate::clock::{MS, SECOND};
use crate::ensemble::{Ensemble, Event, Power};
use crate::markers::Marker;
use crate::nemesis::Mend;
use crate::network::Item;
use crate::runner::{Outcome, drive};
use crate::swarm::{Scenario, server_line};
use crate::trace::Words;
use crate::workload::Client;

/// The checker of a script that does not come to its point.
pub const STUCK: &str = "a script comes to its point";

/// How long a script waits for anything, in µs.
const PATIENCE_US: i64 = 60 * SECOND;

/// Something was found: the script is over.
struct Over;

type Played = Result<(), Over>;

/// How often a script is played, each time with another seed: what it leaves open is drawn.
pub const VARIANTS: u64 = 5;

/// Plays the script of a bug.
#[must_use]
pub fn play(bug: Bug, variant: u64, words: Words) -> Outcome {
    let mut scenario = calm(1000 + variant);
    let script: fn(&mut Ensemble) -> Played = match bug {
        Bug::RetainedDatabase => the_last_proposals_of_a_leader_survive_it,
        Bug::EarlyAck => a_learner_with_a_slow_disk_catches_up,
        Bug::PartialAck => {
            scenario.sync_max = 1;
            a_learner_catches_up
        }
        Bug::EpochBeforeHistory => {
            scenario.sync_max = 1;
            a_learner_comes_to_the_next_leader
        }
        Bug::AckRace => {
            scenario.sync_max = 1;
            a_learner_comes_while_nothing_can_be_committed
        }
        Bug::CommitBehindNewLeader | Bug::LostInDiff => a_learner_catches_up_under_load,
        Bug::OutlivingWrites => {
            scenario.sync_limit = 20;
            the_leader_dies_while_a_disk_is_slow
        }
        Bug::HoleInMemory => {
            scenario.voters = 5;
            scenario.sync_limit = 20;
            who_caught_up_under_load_leads
        }
        Bug::InterruptedTruncate => a_truncation_is_interrupted,
        Bug::SnapshotInMemory => {
            snapshots_only(&mut scenario);
            the_leader_dies_behind_its_snapshot
        }
        Bug::HalfSnapshot => {
            snapshots_only(&mut scenario);
            a_member_with_a_log_gets_a_snapshot
        }
        Bug::EarlyNewLeader => {
            snapshots_only(&mut scenario);
            scenario.sync_max = 1;
            a_new_leader_sends_a_snapshot_and_more
        }
        Bug::DivergentTail | Bug::TruncateTooFar => a_deposed_leader_comes_back,
        Bug::FailedTruncate => a_deposed_leader_with_a_full_disk_comes_back,
        Bug::GapInLog => {
            scenario.voters = 5;
            scenario.commit_log_count = 3;
            scenario.keep = 0;
            scenario.snapshot_size_factor = 100.0;
            who_had_a_snapshot_leads
        }
        Bug::EmptyMemory => {
            scenario.snapshot_size_factor = 100.0;
            scenario.keep = 0;
            a_leader_with_nothing_in_memory
        }
        Bug::StaleEphemeral => sessions_end_while_a_member_is_away,
        Bug::OldQuorumDecides => {
            changing(&mut scenario);
            the_next_ensemble_hears_nothing_of_it
        }
        Bug::ForgottenReconfiguration => {
            changing(&mut scenario);
            the_ensemble_before_it_starts_again
        }
    };
    drive(scenario, words, |ensemble| {
        ensemble.clients_begin();
        if script(ensemble).is_ok() && ensemble.violation.is_none() {
            ensemble.operations_left = 0;
            ensemble.heal();
            ensemble.run();
        }
    })
}

/// Three members, six clients, and nothing that fails by itself.
fn calm(seed: u64) -> Scenario {
    Scenario {
        voters: 3,
        observers: 0,
        spares: 0,
        reconfig: false,
        groups: Vec::new(),
        standalone: false,
        clients: 6,
        operations: 0,
        faults: Vec::new(),
        tick_ms: 200,
        init_limit: 20,
        sync_limit: 5,
        notification_max_ms: 400,
        finalize_wait_ms: 200,
        commit_log_count: 500,
        snapshot_size_factor: 0.33,
        counter_limit: u32::MAX,
        calm_tick_us: 20 * MS,
        sync_us: 2000,
        sync_max: 1000,
        checkpoint_us: 1_000_000 * SECOND,
        keep: 1000,
        latency_us: 300,
        spike_permille: 0,
        initialized: true,
        read_only: false,
        // Some of the bugs are in what a learner does with them.
        early_commits: true,
        observer_masters: false,
        local_sessions: LocalSessionMode::Disabled,
        scripted: true,
        ..Scenario::draw(seed)
    }
}

/// Nothing is sent from the log on disk, and little from memory.
fn snapshots_only(scenario: &mut Scenario) {
    scenario.snapshot_size_factor = -1.0;
    scenario.commit_log_count = 5;
}

/// Two more machines, which may become members.
fn changing(scenario: &mut Scenario) {
    scenario.reconfig = true;
    scenario.spares = 2;
}

// ---- what scripts are made of

impl Ensemble {
    fn clients_begin(&mut self) {
        for client in 0..self.scenario.clients {
            self.queue.push(100 * MS, Event::Client(client, 0));
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Played {
        let limit_us = self.now_us() + PATIENCE_US;
        while !done(self) {
            if !self.step() {
                return Err(Over);
            }
            if self.now_us() > limit_us {
                self.violated(Violation { checker: STUCK, message: what.to_owned() });
                return Err(Over);
            }
        }
        Ok(())
    }

    fn pass(&mut self, us: i64) -> Played {
        let until_us = self.now_us() + us;
        self.until("time passes", |it| it.now_us() >= until_us)
    }

    fn start(&mut self, members: &[usize]) -> Played {
        for member in members {
            self.queue.push(0, Event::Boot(*member));
        }
        self.pass(MS)
    }

    fn serve(&mut self, members: &[usize]) -> Played {
        let members = members.to_vec();
        self.until("they serve", |it| members.iter().all(|member| it.members[*member].serving))
    }

    fn leads(&self, member: usize) -> bool {
        let it = &self.members[member];
        it.serving && it.state == PeerState::Leading
    }

    fn end(&mut self, member: usize) {
        self.crash(member, Power::ProcessDown, None);
    }

    /// Clients ask until so many more transactions are committed.
    fn write(&mut self, count: usize) -> Played {
        let goal = self.checks.commits.len() + count;
        self.operations_left = usize::MAX;
        self.until("writes are committed", |it| it.checks.commits.len() >= goal)?;
        self.operations_left = 0;
        Ok(())
    }

    /// Some client asks for an ensemble of these members.
    fn reconfigure(&mut self, voters: &[usize]) -> Played {
        let lines: Vec<_> =
            voters.iter().map(|member| server_line(member + 1, 2888, "participant")).collect();
        let request = Request::Reconfig(ReconfigRequest {
            joining_servers: None,
            leaving_servers: None,
            new_members: Some(lines.join(",")),
            cur_config_id: -1,
        });
        let may_ask = |client: &Client| client.connection.is_some() && client.is_idle();
        let idle = |it: &Self| it.clients.iter().position(may_ask);
        self.until("a client can ask", |it| idle(it).is_some())?;
        let Some(client) = idle(self) else { return Err(Over) };
        self.ask(client, request);
        Ok(())
    }

    /// Everybody who serves has everything that is committed.
    fn calm_down(&mut self) -> Played {
        self.operations_left = 0;
        self.pass(300 * MS)?;
        self.until("all have the same", |it| {
            let serving = it.members.iter().filter(|member| member.serving);
            serving
                .into_iter()
                .all(|member| it.checks.commits.floor(member.applied) == it.checks.commits.last())
        })
    }

    /// Clients, but for the probe, and these members are apart, or together again.
    fn cut_clients(&mut self, members: &[usize], cut: bool) {
        for client in 0..self.scenario.clients {
            for member in members {
                self.network.set_client_cut(client, *member, cut);
            }
        }
        if !cut {
            self.ways_opened();
        }
    }

    fn wedge_disk(&mut self, member: usize) {
        self.members[member].disk.wedged = true;
    }

    fn unwedge_disk(&mut self, member: usize) {
        self.mend(Mend::Unwedge(member));
    }

    fn checkpoint(&mut self, member: usize) -> Played {
        self.calm_down()?;
        let applied = self.members[member].applied;
        self.queue.push(0, Event::CheckpointBegins(member, self.members[member].life));
        self.until("a checkpoint is taken", |it| it.members[member].disk.image.zxid >= applied)
    }

    /// Everything on the way to `member` behind the first item that is `last` is lost with its link.
    fn break_behind(&mut self, member: usize, last: impl Fn(&Item) -> bool) -> Played {
        let find = |it: &Self| {
            (0..it.links.len()).flat_map(|link| [(link, 0), (link, 1)]).find_map(|(link, end)| {
                let there = it.links[link].ends[end];
                let at = it.links[link].pipes[end].iter().position(&last)?;
                (there.open && there.member == member).then_some((link, end, at))
            })
        };
        self.until("it is on its way", |it| find(it).is_some())?;
        let Some((link, end, at)) = find(self) else { return Err(Over) };
        let behind = self.links[link].pipes[end].len() - at - 1;
        self.links[link].pipes[end].drop_last(behind);
        self.push_item(link, end, 0, Item::Down);
        self.push_item(link, 1 - end, 0, Item::Down);
        self.links[link].broken = true;
        Ok(())
    }

    /// Three members serve; member 2, with the highest id, leads.
    fn three(&mut self) -> Played {
        self.start(&[0, 1, 2])?;
        self.until("the highest id leads", |it| it.leads(2))?;
        self.serve(&[0, 1, 2])?;
        self.write(15)
    }

    /// The leader proposes what nobody hears of, and dies; the others have a leader and go on.
    fn deposed(&mut self) -> Played {
        self.three()?;
        self.cut_clients(&[0, 1], true);
        self.pass(5 * SECOND)?;
        self.calm_down()?;
        self.cut_off(2, true);
        self.operations_left = usize::MAX;
        self.until("the leader logs on its own", |it| {
            it.members[2].disk.durable_end().0 >= it.checks.commits.last().0 + 2
        })?;
        self.operations_left = 0;
        self.end(2);
        self.cut_clients(&[0, 1], false);
        self.until("another one leads", |it| it.leads(0) || it.leads(1))?;
        self.serve(&[0, 1])?;
        self.cut_off(2, false);
        Ok(())
    }
}

// ---- the scripts

/// Three of five machines are the ensemble; the leader and the other two are to be the next one. Those two
/// do not hear of it.
fn half_reconfigured(it: &mut Ensemble) -> Played {
    it.three()?;
    it.start(&[3, 4])?;
    it.serve(&[3, 4])?;
    it.calm_down()?;
    it.network.set_cut(2, 3, true);
    it.network.set_cut(2, 4, true);
    let before = it.checks.commits.last();
    it.reconfigure(&[2, 3, 4])?;
    it.until("the ensemble has it", |it| {
        it.members[..3].iter().all(|member| member.disk.durable_end() > before)
    })
}

fn the_next_ensemble_hears_nothing_of_it(it: &mut Ensemble) -> Played {
    half_reconfigured(it)?;
    it.pass(SECOND)?;
    it.network.set_cut(2, 3, false);
    it.network.set_cut(2, 4, false);
    it.ways_opened();
    it.serve(&[2, 3, 4])?;
    it.write(5)
}

fn the_ensemble_before_it_starts_again(it: &mut Ensemble) -> Played {
    half_reconfigured(it)?;
    for member in 0..5 {
        it.end(member);
    }
    it.network.set_cut(2, 3, false);
    it.network.set_cut(2, 4, false);
    it.start(&[0, 1])?;
    it.pass(5 * SECOND)?;
    it.start(&[2, 3, 4])?;
    it.serve(&[2, 3, 4])?;
    it.write(5)
}

fn the_last_proposals_of_a_leader_survive_it(it: &mut Ensemble) -> Played {
    it.three()?;
    it.calm_down()?;
    // What followers acknowledge does not arrive: they have it, and nobody knows.
    it.network.set_cut(0, 2, true);
    it.network.set_cut(1, 2, true);
    it.operations_left = usize::MAX;
    it.until("followers have what is not committed", |it| {
        let last = it.checks.commits.last();
        it.members[..2].iter().all(|member| member.disk.durable_end() > last)
    })?;
    it.operations_left = 0;
    it.end(2);
    it.network.set_cut(0, 2, false);
    it.network.set_cut(1, 2, false);
    it.ways_opened();
    it.until("another one leads", |it| it.leads(0) || it.leads(1))?;
    it.write(10)?;
    it.start(&[2])?;
    it.serve(&[0, 1, 2])
}

fn a_learner_catches_up(it: &mut Ensemble) -> Played {
    it.three()?;
    it.end(0);
    it.write(20)?;
    // A new leader, so that there is a history.
    it.end(2);
    it.pass(SECOND)?;
    it.start(&[2])?;
    it.serve(&[1, 2])?;
    it.start(&[0])?;
    it.serve(&[0, 1, 2])?;
    it.write(5)
}

fn a_learner_with_a_slow_disk_catches_up(it: &mut Ensemble) -> Played {
    it.three()?;
    it.end(0);
    it.write(20)?;
    it.start(&[0])?;
    it.wedge_disk(0);
    it.pass(500 * MS)?;
    // All lose power.
    for member in 0..3 {
        it.crash(member, Power::MachineDown, None);
    }
    it.unwedge_disk(0);
    it.start(&[0, 1])?;
    it.serve(&[0, 1])?;
    it.write(5)
}

fn a_learner_comes_to_the_next_leader(it: &mut Ensemble) -> Played {
    it.three()?;
    it.end(0);
    it.write(20)?;
    it.end(2);
    it.pass(SECOND)?;
    it.start(&[2])?;
    it.serve(&[1, 2])?;
    let epoch = it.members[1].disk.current_epoch;
    it.start(&[0])?;
    it.until("the epoch is on the disk", |it| it.members[0].disk.current_epoch == epoch)?;
    // With a short log it would win.
    it.end(0);
    it.end(2);
    it.start(&[0])?;
    it.serve(&[0, 1])?;
    it.write(5)
}

fn a_learner_comes_while_nothing_can_be_committed(it: &mut Ensemble) -> Played {
    it.three()?;
    it.calm_down()?;
    it.end(0);
    it.pass(100 * MS)?;
    it.network.set_cut(1, 2, true);
    it.operations_left = usize::MAX;
    it.until("something is proposed", |it| {
        it.members[2].disk.durable_end().0 >= it.checks.commits.last().0 + 2
    })?;
    it.operations_left = 0;
    it.start(&[0])?;
    it.serve(&[0])?;
    it.network.set_cut(1, 2, false);
    it.ways_opened();
    it.serve(&[0, 1, 2])?;
    it.write(5)
}

fn a_learner_catches_up_under_load(it: &mut Ensemble) -> Played {
    it.three()?;
    it.end(0);
    it.write(10)?;
    it.start(&[0])?;
    it.wedge_disk(0);
    it.pass(100 * MS)?;
    it.write(10)?;
    it.unwedge_disk(0);
    it.serve(&[0, 1, 2])?;
    it.write(10)
}

fn the_leader_dies_while_a_disk_is_slow(it: &mut Ensemble) -> Played {
    it.three()?;
    it.calm_down()?;
    // One write is being synced when the others come.
    it.wedge_disk(0);
    it.write(6)?;
    it.end(2);
    it.until("a follower promises the next epoch", |it| it.members[1].disk.accepted_epoch.0 >= 2)?;
    it.unwedge_disk(0);
    it.serve(&[0, 1])?;
    it.write(10)?;
    it.start(&[2])?;
    it.serve(&[0, 1, 2])
}

fn who_caught_up_under_load_leads(it: &mut Ensemble) -> Played {
    it.start(&[0, 1, 2, 3])?;
    it.until("the highest id leads", |it| it.leads(3))?;
    it.serve(&[0, 1, 2, 3])?;
    it.write(10)?;
    it.end(0);
    it.write(10)?;
    it.start(&[4])?;
    it.until("it has promised the epoch", |it| it.members[4].disk.accepted_epoch.0 > 0)?;
    it.wedge_disk(4);
    it.pass(100 * MS)?;
    it.write(10)?;
    it.unwedge_disk(4);
    it.serve(&[4])?;
    it.write(5)?;
    it.calm_down()?;
    it.end(3);
    it.until("who was late leads", |it| it.leads(4))?;
    it.serve(&[1, 2, 4])?;
    it.start(&[0])?;
    it.serve(&[0])?;
    it.write(5)
}

fn a_truncation_is_interrupted(it: &mut Ensemble) -> Played {
    it.deposed()?;
    it.write(5)?;
    it.start(&[2])?;
    let truncates = |item: &Item| matches!(item, Item::Packet(packet) if packet.packet_type == PacketType::TRUNC);
    it.break_behind(2, truncates)?;
    it.pass(SECOND)?;
    it.serve(&[0, 1, 2])?;
    it.write(10)
}

/// Member 0 is far behind; the others have a stored tree, and too little in memory.
fn far_behind(it: &mut Ensemble) -> Played {
    it.three()?;
    it.end(0);
    it.write(30)?;
    it.checkpoint(1)?;
    it.checkpoint(2)
}

fn the_leader_dies_behind_its_snapshot(it: &mut Ensemble) -> Played {
    far_behind(it)?;
    it.start(&[0])?;
    it.break_behind(0, |item| matches!(item, Item::Snapshot(..)))?;
    // The snapshot arrives, and then the leader is gone.
    it.cut_off(2, true);
    it.network.set_cut(2, 0, false);
    it.pass(200 * MS)?;
    it.end(2);
    it.cut_off(2, false);
    it.serve(&[0, 1])?;
    it.write(10)?;
    it.end(0);
    it.start(&[0])?;
    it.serve(&[0, 1])
}

fn a_member_with_a_log_gets_a_snapshot(it: &mut Ensemble) -> Played {
    far_behind(it)?;
    it.start(&[0])?;
    it.break_behind(0, |item| matches!(item, Item::Snapshot(..)))?;
    it.pass(SECOND)?;
    it.end(0);
    it.start(&[0])?;
    it.serve(&[0, 1, 2])
}

fn a_new_leader_sends_a_snapshot_and_more(it: &mut Ensemble) -> Played {
    far_behind(it)?;
    it.write(10)?;
    it.calm_down()?;
    it.end(1);
    it.end(2);
    it.start(&[0, 2])?;
    it.serve(&[0, 2])?;
    it.write(5)
}

fn a_deposed_leader_comes_back(it: &mut Ensemble) -> Played {
    it.deposed()?;
    it.write(5)?;
    it.start(&[2])?;
    it.serve(&[0, 1, 2])?;
    it.write(10)
}

fn a_deposed_leader_with_a_full_disk_comes_back(it: &mut Ensemble) -> Played {
    it.deposed()?;
    it.members[2].disk.low = true;
    it.start(&[2])?;
    it.serve(&[0, 1, 2])?;
    it.mend(Mend::Room(2));
    it.write(10)
}

fn who_had_a_snapshot_leads(it: &mut Ensemble) -> Played {
    it.start(&[0, 1, 2, 3, 4])?;
    it.until("the highest id leads", |it| it.leads(4))?;
    it.serve(&[0, 1, 2, 3, 4])?;
    it.write(10)?;
    it.calm_down()?;
    it.end(0);
    it.end(4);
    it.until("the next one leads", |it| it.leads(3))?;
    it.write(40)?;
    for member in 1..4 {
        it.checkpoint(member)?;
    }
    it.start(&[4])?;
    it.serve(&[1, 2, 3, 4])?;
    it.write(10)?;
    it.calm_down()?;
    it.end(3);
    it.until("who had a snapshot leads", |it| it.leads(4))?;
    it.start(&[0])?;
    it.serve(&[0])?;
    it.write(5)
}

fn a_leader_with_nothing_in_memory(it: &mut Ensemble) -> Played {
    far_behind(it)?;
    it.end(1);
    it.end(2);
    it.start(&[0, 2])?;
    it.serve(&[0, 2])?;
    it.write(5)
}

fn sessions_end_while_a_member_is_away(it: &mut Ensemble) -> Played {
    it.three()?;
    it.operations_left = usize::MAX;
    it.until("some session has ephemeral znodes", |it| {
        let mut live = it.checks.sessions.live();
        live.any(|session| it.checks.model.ephemerals(session).len() > 2)
    })?;
    it.end(0);
    let before = it.markers.count(Marker::EphemeralsExpired);
    it.cut_clients(&[0, 1, 2], true);
    it.until("a session with ephemeral znodes expires", |it| {
        it.markers.count(Marker::EphemeralsExpired) > before
    })?;
    it.operations_left = 0;
    it.cut_clients(&[0, 1, 2], false);
    it.start(&[0])?;
    it.serve(&[0, 1, 2])?;
    it.write(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a build with bugs none is active here.
    #[test]
    fn every_script_passes_without_its_bug() -> Result<(), String> {
        let mut failed = String::new();
        for bug in Bug::ALL {
            for variant in 0..VARIANTS {
                let outcome = play(*bug, variant, Words::Off);
                if let Some(Violation { checker, message }) = outcome.violation {
                    failed += &format!("{bug:?}, variant {variant}: {checker}: {message}\n");
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}
