//! What a seed stands for: which ensemble, which clients, which faults.

use zk_proto::create_mode::ExtendedTypes;
use zk_testkit::Prng;

use crate::clock::{MS, SECOND};

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
    /// Leaders send followers commits before `UPTODATE`, as upstream's do.
    pub early_commits: bool,
    /// Nothing happens by itself: members start, and faults happen, as a script says.
    pub scripted: bool,
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
        Self {
            seed,
            voters,
            observers,
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
            early_commits: rng.chance(50),
            scripted: false,
        }
    }

    /// Members in all.
    #[must_use]
    pub fn members(&self) -> usize {
        self.voters + self.observers
    }
}
