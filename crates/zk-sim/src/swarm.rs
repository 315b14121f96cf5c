//! What a seed stands for: which ensemble, which clients, which faults.

use zk_proto::ServerId;
use zk_proto::create_mode::ExtendedTypes;
use zk_session::LocalSessionMode;
use zk_testkit::Prng;
use zk_zab::Members;

use crate::clock::{MS, SECOND};

/// Where [`Scenario::read_only`] is drawn from.
const READ_ONLY_STREAM: u64 = 0x0096_0000_0000_0000;

/// The same for commits before `UPTODATE`.
const EARLY_COMMITS_STREAM: u64 = 0x6561_726c_7943_6f6d;

/// And for followers that feed observers.
const OBSERVER_MASTERS_STREAM: u64 = 0x6f6d_506f_7274_0000;
/// And for reconfigurations.
const RECONFIG_STREAM: u64 = 0x7265_636f_6e66_6967;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed.
    Crash,
    /// A machine loses power.
    PowerLoss,
    /// All machines do.
    PowerLossOfAll,
    /// Members are split into two groups.
    Partition,
    /// A member reaches nobody, or is reached by nobody.
    Isolate,
    /// One direction between two members is cut.
    AsymmetricCut,
    /// A link between two members breaks.
    LinkReset,
    /// A process stands still.
    Pause,
    /// A disk does not answer.
    WedgedDisk,
    /// A sync fails.
    FsyncError,
    /// A disk is nearly full, or full.
    DiskFull,
    /// A wall clock jumps.
    ClockJump,
    /// A member's network and disk are slow.
    SlowMember,
    /// A member's disk is replaced by an empty one.
    LostData,
    /// Everything takes long.
    SlowNetwork,
    /// Election messages are lost.
    Loss,
    /// A client and a member are apart.
    ClientCut,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Crash,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::Partition,
        Self::Isolate,
        Self::AsymmetricCut,
        Self::LinkReset,
        Self::Pause,
        Self::WedgedDisk,
        Self::FsyncError,
        Self::DiskFull,
        Self::ClockJump,
        Self::SlowMember,
        Self::LostData,
        Self::SlowNetwork,
        Self::Loss,
        Self::ClientCut,
    ];
}

/// Everything that a seed draws before it begins.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Members with a vote.
    pub voters: usize,
    /// Members without one.
    pub observers: usize,
    /// Machines that are in no configuration at first, and know the others.
    pub spares: usize,
    /// Clients change the ensemble.
    pub reconfig: bool,
    /// Groups of voters, which are counted from 0, with their weights; none: a majority decides.
    pub groups: Vec<Vec<(usize, u64)>>,
    /// One member that knows of no ensemble.
    pub standalone: bool,
    /// Clients.
    pub clients: usize,
    /// What they ask for in all, about.
    pub operations: usize,
    /// How long faults happen, in µs.
    pub faults_us: i64,
    /// How long it is on average from one fault to the next, in µs.
    pub fault_gap_us: i64,
    /// Which faults happen.
    pub faults: Vec<Fault>,
    /// `tickTime`.
    pub tick_ms: i64,
    /// `initLimit`.
    pub init_limit: i64,
    /// `syncLimit`.
    pub sync_limit: i64,
    /// The longest time between two rounds of notifications, in ms.
    pub notification_max_ms: i64,
    /// How long a quorum of votes must stand, in ms.
    pub finalize_wait_ms: i64,
    /// `commitLogCount`.
    pub commit_log_count: usize,
    /// `snapshotSizeFactor`.
    pub snapshot_size_factor: f64,
    /// The last counter of an epoch.
    pub counter_limit: u32,
    /// How often a member that serves gets a tick, in µs.
    pub calm_tick_us: i64,
    /// How long a sync takes at least, in µs.
    pub sync_us: i64,
    /// How many writes one sync takes at most.
    pub sync_max: usize,
    /// How long it is from one checkpoint to the next, in µs.
    pub checkpoint_us: i64,
    /// Transactions kept behind a checkpoint.
    pub keep: usize,
    /// The usual latency of the network, in µs.
    pub latency_us: i64,
    /// How many messages in a thousand take much longer.
    pub spike_permille: u64,
    /// The shortest session timeout, in ms.
    pub timeout_min_ms: i32,
    /// The longest one, in ms.
    pub timeout_max_ms: i32,
    /// Whether new members are told that they are new.
    pub initialized: bool,
    /// How owner fields are read.
    pub extended_types: ExtendedTypes,
    /// Members without a quorum serve reads, and every other client is content with that.
    pub read_only: bool,
    /// Leaders send followers commits before `UPTODATE`, as upstream's do.
    pub early_commits: bool,
    /// Followers feed observers.
    pub observer_masters: bool,
    /// What becomes of new sessions.
    pub local_sessions: LocalSessionMode,
    /// Nothing happens by itself: members start, and faults happen, as a script says.
    pub scripted: bool,
}

/// A server's line in a configuration.
pub(crate) fn server_line(server: usize, quorum_port: u16, role: &str) -> String {
    format!("server.{server}=s{server}:{quorum_port}:3888:{role};0.0.0.0:2181")
}

impl Scenario {
    /// What this seed stands for.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Prng::new(seed ^ 0x5eed_0000_0000_0000);
        let between = |rng: &mut Prng, low: i64, high: i64| {
            low + i64::try_from(rng.below((high - low).cast_unsigned() + 1)).unwrap_or_default()
        };
        let voters = *rng.pick(&[1, 3, 3, 3, 3, 3, 3, 5, 5, 5, 7]);
        let observers = *rng.pick(&[0, 0, 0, 1, 1, 2]);
        let standalone = voters == 1 && observers == 0;
        let tick_ms = *rng.pick(&[100, 200, 200, 400]);
        let clients = rng.index(6) + 2;
        let mut faults: Vec<Fault> = Fault::ALL.to_vec();
        // Swarm testing: most seeds know some kinds of fault only, so that one kind does not hide
        // what another one would bring to light.
        let chance = *rng.pick(&[10, 25, 50, 100]);
        faults.retain(|_| rng.chance(chance));
        let operations = usize::try_from(between(rng, 150, 500)).unwrap_or_default();
        let faults_us = between(rng, 8, 50) * SECOND;
        let mut scenario = Self {
            seed,
            voters,
            observers,
            spares: 0,
            reconfig: false,
            groups: Vec::new(),
            standalone,
            clients,
            operations,
            faults_us,
            fault_gap_us: between(rng, 300, 4000) * MS,
            faults,
            tick_ms,
            init_limit: between(rng, 5, 10),
            sync_limit: between(rng, 2, 5),
            notification_max_ms: *rng.pick(&[400, 1000, 2000]),
            finalize_wait_ms: *rng.pick(&[20, 200, 200]),
            commit_log_count: *rng.pick(&[0, 3, 20, 500]),
            snapshot_size_factor: *rng.pick(&[0.33, 0.33, 5.0, 5.0, 100.0, -1.0]),
            counter_limit: if rng.chance(20) {
                u32::try_from(between(rng, 5, 100)).unwrap_or_default()
            } else {
                u32::MAX
            },
            calm_tick_us: between(rng, 20, 50) * MS,
            sync_us: *rng.pick(&[50, 200, 1000, 5000, 20_000]),
            sync_max: *rng.pick(&[1, 4, 1000]),
            checkpoint_us: between(rng, 500, 15_000) * MS,
            keep: *rng.pick(&[0, 2, 10, 1000]),
            latency_us: *rng.pick(&[50, 200, 1000, 5000]),
            spike_permille: *rng.pick(&[0, 0, 5, 30]),
            timeout_min_ms: i32::try_from(tick_ms * 2).unwrap_or(i32::MAX),
            timeout_max_ms: i32::try_from(tick_ms * 20).unwrap_or(i32::MAX),
            initialized: rng.chance(50),
            extended_types: ExtendedTypes::Disabled,
            // From a stream of its own: all else that a seed stood for before this stays.
            read_only: Prng::new(seed ^ READ_ONLY_STREAM).chance(20),
            early_commits: Prng::new(seed ^ EARLY_COMMITS_STREAM).chance(50),
            observer_masters: Prng::new(seed ^ OBSERVER_MASTERS_STREAM).chance(50),
            scripted: false,
            // The same lot as that of the groups: either was the last one, and stays what it was.
            local_sessions: match rng.clone().below(20) {
                _ if standalone => LocalSessionMode::Disabled, // it has none
                0..3 => LocalSessionMode::Upgrading,
                3 => LocalSessionMode::Enabled,
                _ => LocalSessionMode::Disabled, // what most ensembles have
            },
        };
        // A lot that none of the fixed seeds draws, so that they stay what they were.
        if matches!(rng.below(100), 70..85) {
            scenario.draw_groups(rng);
        }
        let mut rng = Prng::new(seed ^ RECONFIG_STREAM);
        if scenario.groups.is_empty() && matches!(rng.below(100), 70..85) {
            scenario.draw_reconfigurations(&mut rng);
        }
        scenario
    }

    /// An ensemble that changes.
    fn draw_reconfigurations(&mut self, rng: &mut Prng) {
        self.reconfig = true;
        self.spares = rng.index(3);
        // One server that is an ensemble (`standaloneEnabled=false`), and may grow.
        self.standalone = false;
        // Which loss of data is tolerated depends on who votes, and that is about to change.
        self.faults.retain(|fault| *fault != Fault::LostData);
    }

    /// Hierarchical quorums, of more voters than there would have been.
    fn draw_groups(&mut self, rng: &mut Prng) {
        self.voters = 5 + rng.index(5);
        self.standalone = false;
        let count = *rng.pick(&[2, 3, 3, 3, 3, 4]);
        self.groups = vec![Vec::new(); count];
        let weights: &[u64] = match rng.below(4) {
            0 | 1 => &[1],
            2 => &[1, 1, 2, 3],
            _ => &[0, 1, 1, 5],
        };
        let even = rng.chance(50);
        for voter in 0..self.voters {
            // Nobody is alone by chance: the first ones are dealt out.
            let group = if even || voter < count { voter % count } else { rng.index(count) };
            self.groups[group].push((voter, *rng.pick(weights)));
        }
        if rng.chance(30) {
            // Far away: they follow and vote, and never count.
            for (_, weight) in &mut self.groups[0] {
                *weight = 0;
            }
        }
        // Somebody has to count.
        if self.groups.iter().flatten().all(|(_, weight)| *weight == 0) {
            self.groups[count - 1][0].1 = 1;
        }
    }

    /// Who is in the ensemble.
    #[must_use]
    pub fn membership(&self) -> Members {
        let id = |index: usize| ServerId(i64::try_from(index).unwrap_or_default() + 1);
        let mut members = Members::default();
        for index in 0..self.voters + self.observers {
            let (server, voter) = (id(index), index < self.voters);
            let role = if voter { "participant" } else { "observer" };
            members.text += &(server_line(index + 1, 2888, role) + "\n");
            let part = if voter { &mut members.voters } else { &mut members.observers };
            part.insert(server);
        }
        for (group, servers) in (1..).zip(&self.groups) {
            let servers = servers.iter().map(|(voter, weight)| (id(*voter), *weight));
            members.weights.extend(servers.clone());
            members.groups.insert(group, servers.map(|(server, _)| server).collect());
        }
        members.text += &members.hierarchy_text();
        members
    }

    /// What the file of a machine says that no configuration has reached yet.
    #[must_use]
    pub fn file_of(&self, index: usize) -> Members {
        let members = self.membership();
        if index < self.voters + self.observers {
            return members;
        }
        Members::from_text(&(members.text + &server_line(index + 1, 2888, "participant") + "\n"))
    }

    /// Machines in all.
    #[must_use]
    pub fn members(&self) -> usize {
        self.voters + self.observers + self.spares
    }
}

#[cfg(test)]
mod tests {
    use zk_zab::QuorumVerifier;

    use super::*;

    #[test]
    fn groups_are_drawn_now_and_then_and_can_always_decide() {
        let (mut grouped, mut weightless) = (0, 0);
        for seed in 0..600 {
            let scenario = Scenario::draw(seed);
            let members = scenario.membership();
            let verifier = QuorumVerifier::new(&members);
            assert!(verifier.contains_quorum(&members.voters), "{scenario:?}");
            assert_eq!(members.is_hierarchical(), !scenario.groups.is_empty());
            grouped += usize::from(members.is_hierarchical());
            weightless += usize::from(members.voters.iter().any(|it| !verifier.has_weight(*it)));
        }
        assert!((50..150).contains(&grouped) && weightless > 20, "{grouped} {weightless}");
    }
}
