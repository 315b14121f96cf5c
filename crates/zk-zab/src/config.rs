use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bytes::Bytes;
use zk_proto::membership::{Member, Role};
use zk_proto::{Epoch, ServerId, Zxid};

/// Who is in the ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Those who vote.
    pub voters: BTreeSet<ServerId>,
    /// Those who follow without a vote.
    pub observers: BTreeSet<ServerId>,
    /// The groups of hierarchical quorums by id; every voter is in one of them. None for majorities.
    pub groups: BTreeMap<i64, BTreeSet<ServerId>>,
    /// The weights of hierarchical quorums; that of a voter that is not listed is 1.
    pub weights: BTreeMap<ServerId, u64>,
    /// The membership as text, without its last line (facts, section 3.11): a `server.N=...` line for
    /// each, then those of the groups and weights, each with a line end.
    pub text: String,
    /// The version, which is the text's last line; 0 until there was a leader.
    pub version: i64,
}

impl Members {
    /// The ensemble of these servers; majorities decide where there are neither `groups` nor `weights`. It
    /// has version 0.
    #[must_use]
    pub fn new<'a>(
        servers: impl IntoIterator<Item = &'a Member>,
        groups: BTreeMap<i64, BTreeSet<ServerId>>,
        weights: BTreeMap<ServerId, u64>,
    ) -> Self {
        let mut members = Self { groups, weights, ..Self::default() };
        for server in servers {
            let id = ServerId(i64::try_from(server.id).unwrap_or(i64::MAX));
            match server.role {
                Role::Participant => members.voters.insert(id),
                Role::Observer => members.observers.insert(id),
            };
            // Writing into memory cannot fail.
            let _written = writeln!(members.text, "{}={server}", server.key());
        }
        members.text += &members.hierarchy_text();
        members
    }

    /// Its servers, by id. What is no line of a server is passed over.
    #[must_use]
    pub fn servers(&self) -> BTreeMap<ServerId, Member> {
        let lines =
            self.text.lines().filter_map(|line| line.strip_prefix("server.")?.split_once('='));
        let servers = lines.filter_map(|(id, spec)| {
            let id: u64 = id.trim().parse().ok()?;
            let member = Member::parse(id, spec, true).ok()?;
            Some((ServerId(i64::try_from(id).ok()?), member))
        });
        servers.collect()
    }

    /// Reads a membership as a member tells it in `NEWLEADER` or `/zookeeper/config`. What is no line
    /// of it is passed over.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut members = Self::default();
        let id = |text: &str| text.trim().parse().ok().map(ServerId);
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            if key == "version" {
                members.version = i64::from_str_radix(value.trim(), 16).unwrap_or_default();
            } else if let Some(server) = key.strip_prefix("server.").and_then(id) {
                let quorum_address = value.split(';').next().unwrap_or_default();
                if quorum_address.trim().to_ascii_lowercase().ends_with(":observer") {
                    members.observers.insert(server);
                } else {
                    members.voters.insert(server);
                }
            } else if let Some(group) = key.strip_prefix("group.")
                && let Ok(group) = group.trim().parse()
            {
                members.groups.insert(group, value.split(':').filter_map(id).collect());
            } else if let Some(server) = key.strip_prefix("weight.").and_then(id)
                && let Ok(weight) = value.trim().parse()
            {
                members.weights.insert(server, weight);
            }
            if key != "version" {
                members.text.push_str(line);
                members.text.push('\n');
            }
        }
        members
    }

    /// Whether both have the same members in the same parts, and so the same quorums.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        (&self.voters, &self.observers, &self.groups)
            == (&other.voters, &other.observers, &other.groups)
            && self.is_hierarchical() == other.is_hierarchical()
            && (self.voters.iter())
                .chain(self.groups.values().flatten())
                .all(|server| self.weight(*server) == other.weight(*server))
    }

    /// Whether both differ in their numbers at most.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.agrees(other) && self.servers() == other.servers()
    }

    /// Whether quorums are counted by groups and weights. As upstream has it, either makes them so.
    #[must_use]
    pub fn is_hierarchical(&self) -> bool {
        !self.groups.is_empty() || !self.weights.is_empty()
    }

    /// What a server weighs in its group.
    #[must_use]
    pub fn weight(&self, server: ServerId) -> u64 {
        let unlisted = u64::from(self.voters.contains(&server));
        self.weights.get(&server).copied().unwrap_or(unlisted)
    }

    /// The lines of the groups and weights, as they stand behind those of the servers. Every voter's
    /// weight is written, given or not.
    #[must_use]
    pub fn hierarchy_text(&self) -> String {
        let mut text = String::new();
        if !self.is_hierarchical() {
            return text;
        }
        // Writing into memory cannot fail.
        for (group, servers) in &self.groups {
            let servers: Vec<String> = servers.iter().map(|server| server.0.to_string()).collect();
            let _written = writeln!(text, "group.{group}={}", servers.join(":"));
        }
        for server in self.weights.keys().copied().collect::<BTreeSet<_>>().union(&self.voters) {
            let _written = writeln!(text, "weight.{}={}", server.0, self.weight(*server));
        }
        text
    }

    /// The whole text, as `NEWLEADER` and `/zookeeper/config` have it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}version={:x}", self.text, self.version)
    }
}

/// What an operator can set of the peer. Limits are in ticks, as upstream has them.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// This server (`myid`).
    pub id: ServerId,
    /// The ensemble.
    pub members: Members,
    /// The members that a file says may be in force by now, although no transaction here does.
    pub proposed: Option<Members>,
    /// `tickTime`, in ms.
    pub tick_ms: i64,
    /// `initLimit`.
    pub init_limit_ticks: i64,
    /// `syncLimit`.
    pub sync_limit_ticks: i64,
    /// `connectToLearnerMasterLimit`; 0: `initLimit`.
    pub connect_limit_ticks: i64,
    /// `leaderConnectDelayDuringRetryMs`.
    pub connect_retry_ms: i64,
    /// `fastleader.minNotificationInterval`.
    pub notification_interval_min_ms: i64,
    /// `fastleader.maxNotificationInterval`.
    pub notification_interval_max_ms: i64,
    /// How long a quorum of equal votes must stand while members that have not voted may still be
    /// there (upstream's `finalizeWait`).
    pub finalize_wait_ms: i64,
    /// `commitLogCount`: committed transactions kept in memory for learners that lag.
    pub commit_log_count: usize,
    /// `snapshotSizeFactor`; negative: never send from the log on disk.
    pub snapshot_size_factor: f64,
    /// `zookeeper.forceSnapshotSync`.
    pub force_snapshot_sync: bool,
    /// The last counter of an epoch: a leader that has used it steps down, so that a new epoch begins
    /// (ZOOKEEPER-1277). Everything but a simulation leaves it at the most that there is.
    pub counter_limit: u32,
    /// `reconfigEnabled`: configurations come from leaders, and learners that are in none may join.
    pub reconfig_enabled: bool,
    /// Whether a leader sends a follower what is committed between `NEWLEADER` and `UPTODATE`, as upstream's
    /// do. Upstream's followers before 3.9.3 leave when such a `COMMIT` comes (ZOOKEEPER-4394), and under load
    /// one always does: a server keeps it until `UPTODATE` is sent.
    pub early_commits: bool,
    /// Followers feed observers, and observers dial followers (`observerMasterPort`).
    pub observer_masters: bool,
    /// The longest random time before an observer dials the leader, or begins with the first of the
    /// observer masters again, in ms (`observer.reconnectDelayMs`).
    pub reconnect_delay_ms: i64,
    /// The longest random time before an observer that has lost its leader asks who leads, in ms
    /// (`observer.election.DelayMs`).
    pub election_delay_ms: i64,
}

impl PeerConfig {
    /// Upstream's defaults.
    #[must_use]
    pub fn new(id: ServerId, members: Members) -> Self {
        Self {
            id,
            members,
            proposed: None,
            tick_ms: 2000,
            init_limit_ticks: 10,
            sync_limit_ticks: 5,
            connect_limit_ticks: 0,
            connect_retry_ms: 100,
            notification_interval_min_ms: 200,
            notification_interval_max_ms: 2000,
            finalize_wait_ms: 200,
            commit_log_count: 500,
            snapshot_size_factor: 0.33,
            force_snapshot_sync: false,
            counter_limit: u32::MAX,
            reconfig_enabled: false,
            early_commits: true,
            observer_masters: false,
            reconnect_delay_ms: 0,
            election_delay_ms: 0,
        }
    }
}

/// What a server finds on its disk when it starts.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// The epoch that it has promised to.
    pub accepted_epoch: Epoch,
    /// The epoch of its history.
    pub current_epoch: Epoch,
    /// The zxid of the tree: it is committed.
    pub applied: Zxid,
    /// Every transaction in the log above `applied`, in order. Whether they are committed is not known.
    pub tail: Vec<(Zxid, Bytes)>,
    /// Whether an empty server may vote although others have data (upstream's file `initialize`):
    /// the operator says that it is new, and has not lost what it had.
    pub initialized: bool,
}

impl Durable {
    /// The last transaction in the log.
    #[must_use]
    pub fn last_logged(&self) -> Zxid {
        self.tail.last().map_or(self.applied, |(zxid, _)| *zxid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_from_upstreams_text() {
        let text = "server.1=127.0.0.1:33015:36983:participant;127.0.0.1:40903\n\
                    server.2=[::1]:1:2:participant;3\n\
                    server.4=127.0.0.1:34231:44827:observer;127.0.0.1:42653\nversion=100000000";
        let members = Members::from_text(text);
        assert_eq!(members.voters, [ServerId(1), ServerId(2)].into());
        assert_eq!(members.observers, [ServerId(4)].into());
        assert_eq!(members.version, 0x1_0000_0000);
        assert!(!members.is_hierarchical());
        assert_eq!(members.to_text(), text);
    }

    #[test]
    fn groups_and_weights_are_part_of_the_text() {
        let servers = "server.1=a:1:2:participant\nserver.2=b:1:2:participant\n\
                       server.3=c:1:2:observer\n";
        let groups = "group.1=1\ngroup.2=2\nweight.1=5\nweight.2=0\n";
        let members = Members::from_text(&format!("{servers}{groups}version=a"));
        assert_eq!(members.groups, [(1, [ServerId(1)].into()), (2, [ServerId(2)].into())].into());
        assert_eq!([1, 2, 3, 4].map(|id| members.weight(ServerId(id))), [5, 0, 0, 0]);
        assert_eq!(members.hierarchy_text(), groups);
        assert_eq!(members.to_text(), format!("{servers}{groups}version=a"));
        // What is not written is 1, but written out by everybody.
        let short = Members::from_text(&format!("{servers}group.1=1\ngroup.2=2\nweight.2=0\n"));
        assert_eq!(short.hierarchy_text(), "group.1=1\ngroup.2=2\nweight.1=1\nweight.2=0\n");
        assert!(!short.agrees(&members));
        let same = Members { weights: [(ServerId(1), 5), (ServerId(2), 0)].into(), ..short };
        assert!(same.agrees(&members));
        // Either makes it so, with different quorums than without.
        let majority = Members::from_text(servers);
        assert!(!majority.agrees(&same) && majority.hierarchy_text().is_empty());
    }
}
