//! The ensemble: its members, and the settings between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use zk_proto::membership::{Member, Role};

/// The ids of a `group.N` value, as often as they stand there. Colons at the end mean nothing, as in
/// ZooKeeper.
pub(crate) fn parse_group(text: &str) -> Option<Vec<u64>> {
    let id = |id: &str| id.trim().parse().ok().filter(|id| i64::try_from(*id).is_ok());
    text.trim_end_matches(':').split(':').map(id).collect()
}

/// `zoo.cfg.dynamic.1000` is version 0x1000; without a hexadecimal ending there is none
/// (`QuorumPeerConfig.getVersionFromFilename`).
pub fn dynamic_file_version(file_name: &str) -> Option<u64> {
    let (_, ending) = file_name.rsplit_once('.')?;
    u64::from_str_radix(ending, 16).ok().filter(|version| i64::try_from(*version).is_ok())
}

/// Membership and the settings that only matter between members.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleConfig {
    /// The members by id.
    pub members: BTreeMap<u64, Member>,
    /// Groups of a hierarchical quorum by group id; empty for a majority quorum.
    pub groups: BTreeMap<u64, BTreeSet<u64>>,
    /// Weights of members; 1 for those not listed.
    pub weights: BTreeMap<u64, u64>,
    /// Version of the dynamic configuration, from its file name; 0 without.
    pub version: u64,
    /// The dynamic configuration file.
    pub dynamic_config_file: Option<PathBuf>,
    /// What upstream's server that had this `zoo.cfg` was last asked to agree to.
    pub proposed: Option<ProposedConfig>,
    /// A single member runs as a plain standalone server.
    pub standalone_enabled: bool,
    /// Dynamic reconfiguration is allowed.
    pub reconfig_enabled: bool,
    /// Ticks to connect and catch up.
    pub init_limit_ticks: u32,
    /// Ticks a member may lag.
    pub sync_limit_ticks: u32,
    /// Ticks to connect to the leader; equals `init_limit_ticks` unless set.
    pub connect_to_learner_master_limit_ticks: u32,
    /// Listen for members on all addresses.
    pub quorum_listen_on_all_ips: bool,
    /// The role by `peerType`; the server line of this member goes before it.
    pub peer_type: Role,
    /// Port on which followers feed observers.
    pub observer_master_port: Option<u16>,
    /// Longest random time before an observer reconnects.
    pub observer_reconnect_delay_ms: u64,
    /// Longest random time before an observer asks who leads.
    pub observer_election_delay_ms: u64,
    /// Sessions that only one member knows.
    pub local_sessions_enabled: bool,
    /// Local sessions become global when they must.
    pub local_sessions_upgrading_enabled: bool,
    /// File of the oracle that decides between two members.
    pub oracle_path: Option<PathBuf>,
    /// Several addresses for a member are allowed.
    pub multi_address_enabled: bool,
    /// Give up election connections that lead nowhere any more.
    pub multi_address_reachability_check_enabled: bool,
    /// After what was sent has not been acknowledged for so long.
    pub multi_address_reachability_check_timeout_ms: u32,
    /// TLS between members.
    pub ssl_quorum: bool,
    /// Accept plain and TLS connections of members.
    pub port_unification: bool,
    /// Reload the certificates of TLS between members.
    pub ssl_quorum_reload_cert_files: bool,
    /// SASL between members.
    pub quorum_sasl: QuorumSaslConfig,
    /// Time to connect for an election.
    pub cnx_timeout_ms: u32,
    /// Silence allowed on an election connection; none for `tickTime` x `syncLimit`.
    pub quorum_cnxn_timeout_ms: Option<u32>,
    /// Attempts to bind the election port; none for no end.
    pub election_port_bind_retry: Option<u32>,
    /// SO_KEEPALIVE between members.
    pub tcp_keep_alive: bool,
    /// Shortest time between votes.
    pub min_notification_interval_ms: u32,
    /// Longest time between votes.
    pub max_notification_interval_ms: u32,
    /// The leader accepts clients.
    pub leader_serves: bool,
    /// Followers fed a snapshot at once.
    pub leader_max_concurrent_snap_syncs: u32,
    /// Time between attempts to reach the leader.
    pub leader_connect_delay_during_retry_ms: u32,
    /// Recent transactions kept for members that lag.
    pub commit_log_count: u32,
    /// Share of the tree's size up to which a lagging member is fed from the log; below 0 never.
    pub snapshot_size_factor: f64,
    /// Always feed a whole snapshot.
    pub force_snapshot_sync: bool,
    /// `false`: a member that is empty must not vote unless a file `initialize` is in its data folder.
    pub db_autocreate: bool,
}

/// A configuration that may be in force by now: `zoo.cfg.dynamic.next`
/// (`QuorumPeer.setLastSeenQuorumVerifier`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedConfig {
    /// Its version.
    pub version: u64,
    /// Its members, as [`EnsembleConfig::text`] has them.
    pub text: String,
}

/// SASL between members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumSaslConfig {
    /// Offer it.
    pub enabled: bool,
    /// Refuse members without it.
    pub server_required: bool,
    /// Demand it of the leader.
    pub learner_required: bool,
    /// JAAS section of the connecting side.
    pub learner_login_context: String,
    /// JAAS section of the accepting side.
    pub server_login_context: String,
    /// Kerberos principal of members.
    pub service_principal: String,
}

impl EnsembleConfig {
    /// Members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role == Role::Participant)
    }

    /// Whether ZooKeeper would run the quorum code: more than one voter, or one with
    /// standaloneEnabled=false.
    pub fn is_distributed(&self) -> bool {
        let voters = self.voters().count();
        voters > 1 || (voters > 0 && !self.standalone_enabled)
    }

    /// Whether quorums are counted by groups and weights: either makes them so.
    pub fn is_hierarchical(&self) -> bool {
        !self.groups.is_empty() || !self.weights.is_empty()
    }

    /// What a member weighs: 1 unless there is a line for it. None is for those that have no vote and
    /// no such line.
    pub fn weight(&self, id: u64) -> Option<u64> {
        let votes = || self.voters().any(|member| member.id == id).then_some(1);
        self.weights.get(&id).copied().or_else(votes)
    }

    /// How many participants may fail, whichever they are, so that a quorum is left; none when there
    /// is no quorum even with all of them.
    pub fn tolerated_failures(&self) -> Option<usize> {
        if !self.is_hierarchical() {
            return self.voters().count().checked_sub(1).map(|others| others / 2);
        }
        let voters: BTreeSet<u64> = self.voters().map(|member| member.id).collect();
        // How many must fail for each group to be lost, the heaviest first.
        let mut needed = Vec::new();
        for group in self.groups.values() {
            let weight = |id: &u64| u128::from(self.weight(*id).unwrap_or(0));
            let total: u128 = group.iter().map(weight).sum();
            let mut weights: Vec<u128> = group.intersection(&voters).map(weight).collect();
            weights.sort_unstable();
            let mut left: u128 = weights.iter().sum();
            let mut failures = 0;
            while left > total / 2 {
                left -= weights.pop().unwrap_or_default();
                failures += 1;
            }
            if total > 0 {
                needed.push(failures);
            }
        }
        needed.sort_unstable();
        // With so many groups lost there is no majority of them.
        let fatal = needed.len() - needed.len() / 2;
        needed.iter().take(fatal).sum::<usize>().checked_sub(1)
    }

    /// The membership as ZooKeeper writes it (facts, section 3.11), a line for each member by id, then
    /// for each group and each weight, each with a line end, without the version. A participant's
    /// weight is written even if it was not given.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> =
            self.members.values().map(|member| format!("{}={member}\n", member.key())).collect();
        if self.is_hierarchical() {
            lines.extend(self.groups.iter().map(|(group, ids)| {
                let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
                format!("group.{group}={}\n", ids.join(":"))
            }));
            let mut weights = self.weights.clone();
            for member in self.voters() {
                weights.entry(member.id).or_insert(1);
            }
            lines.extend(weights.iter().map(|(id, weight)| format!("weight.{id}={weight}\n")));
        }
        lines.concat()
    }

    /// Whether there is any other server to work with.
    pub fn has_peers(&self) -> bool {
        self.members.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_file_names() {
        for (name, version) in [
            ("zoo.cfg.dynamic.0", Some(0)),
            ("/c/zoo.cfg.dynamic.1001", Some(0x1001)),
            ("zoo.cfg.dynamic.ffffffff", Some(0xffff_ffff)),
            ("zoo.cfg.dynamic", None),
            ("plain", None),
            ("x.ffffffffffffffff", None),
        ] {
            assert_eq!(dynamic_file_version(name), version, "{name}");
        }
    }

    #[test]
    fn groups() {
        assert_eq!(parse_group("1:2: 3:"), Some(vec![1, 2, 3]));
        assert_eq!(parse_group("1:x"), None);
    }
}
