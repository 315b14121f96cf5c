//! The membership lines: `server.N`, `group.N`, `weight.N`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// A host and a port as written, not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address to listen on; none for all addresses.
    pub host: Option<String>,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl Listener {
    /// Whether it means every address of the machine.
    pub fn is_any_address(&self) -> bool {
        match self.host.as_deref() {
            None | Some("0.0.0.0" | "::" | "0:0:0:0:0:0:0:0") => true,
            Some(_) => false,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
            None => write!(f, "0.0.0.0:{}", self.port),
        }
    }
}

/// Whether a member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It votes.
    Participant,
    /// It follows without voting.
    Observer,
}

impl Role {
    /// As a server line has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Participant => "participant",
            Self::Observer => "observer",
        }
    }
}

/// One address of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberAddress {
    /// Host name or address.
    pub host: String,
    /// Port for followers.
    pub quorum_port: u16,
    /// Port for elections.
    pub election_port: u16,
}

/// One `server.N` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The N.
    pub id: u64,
    /// At least one; several only with multiAddress.enabled.
    pub addresses: Vec<MemberAddress>,
    /// Participant unless the line says otherwise.
    pub role: Role,
    /// Where it serves clients, when the line says so.
    pub client: Option<Listener>,
    /// Where it serves clients over TLS, when the line says so.
    pub secure_client: Option<Listener>,
}

/// Why a membership line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not `host:port:port`.
    #[error(
        "`{0}` does not have the form host:quorumPort:electionPort[:participant|:observer][;[host:]clientPort[;[host:]secureClientPort]]"
    )]
    Form(String),
    /// A port that is none.
    #[error("`{0}` is not a port; allowed: 1 to 65535")]
    Port(String),
    /// Both server ports are the same.
    #[error("the quorum port and the election port are both {0}; they must differ")]
    SamePort(u16),
    /// Neither participant nor observer.
    #[error("`{0}` is no role; allowed: participant, observer")]
    Role(String),
    /// Different roles for addresses of one member.
    #[error("all addresses of a member must have the same role")]
    MixedRoles,
    /// Several addresses without the feature.
    #[error("several addresses need multiAddress.enabled=true")]
    MultiAddress,
    /// `[` without `]`.
    #[error("`{0}` starts with `[` but has no matching `]:`")]
    Bracket(String),
}

impl Member {
    /// The key of its line, `server.N`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("server.{}", self.id)
    }

    /// Its address; of several the first.
    #[must_use]
    pub fn address(&self) -> &MemberAddress {
        self.addresses.first().expect("a line without an address does not parse")
    }

    /// Parses the value of `server.<id>`.
    ///
    /// # Errors
    /// When it does not have the form of [`Kind::Member`](crate::Kind::Member).
    pub fn parse(id: u64, text: &str, multi_address: bool) -> Result<Self, MemberError> {
        let form = || MemberError::Form(text.to_owned());
        let mut sections = text.split(';');
        let servers: Vec<&str> = sections.next().unwrap_or("").split('|').collect();
        let client = sections.next().map(|part| parse_client(part, text)).transpose()?.flatten();
        let secure_client =
            sections.next().map(|part| parse_client(part, text)).transpose()?.flatten();
        if sections.any(|rest| !rest.is_empty()) {
            return Err(form());
        }
        if servers.len() > 1 && !multi_address {
            return Err(MemberError::MultiAddress);
        }
        let mut addresses = Vec::new();
        let mut role = None;
        for server in servers {
            let parts = host_and_ports(server)?;
            let (host, quorum, election, word) = match parts.as_slice() {
                [host, quorum, election] => (host, quorum, election, None),
                [host, quorum, election, word] => (host, quorum, election, Some(word)),
                _ => return Err(form()),
            };
            if host.is_empty() {
                return Err(form());
            }
            let quorum_port = parse_port(quorum)?;
            let election_port = parse_port(election)?;
            if quorum_port == election_port {
                return Err(MemberError::SamePort(quorum_port));
            }
            if let Some(word) = word {
                let this = match word.trim().to_ascii_lowercase().as_str() {
                    "participant" => Role::Participant,
                    "observer" => Role::Observer,
                    _ => return Err(MemberError::Role((*word).to_owned())),
                };
                if *role.get_or_insert(this) != this {
                    return Err(MemberError::MixedRoles);
                }
            }
            addresses.push(MemberAddress { host: (*host).to_owned(), quorum_port, election_port });
        }
        Ok(Self { id, addresses, role: role.unwrap_or(Role::Participant), client, secure_client })
    }
}

/// The value of the line as ZooKeeper writes it (`QuorumServer.toString`), which every member must
/// write alike: the role is there, and a client address only if the line names one.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<&MemberAddress> = self.addresses.iter().collect();
        addresses.sort_by(|a, b| a.host.cmp(&b.host));
        for (index, address) in addresses.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "|" };
            write!(f, "{separator}{address}")?;
        }
        write!(f, ":{}", self.role.as_str())?;
        if let Some(client) = &self.client {
            write!(f, ";{client}")?;
        }
        if let Some(secure) = &self.secure_client {
            let separator = if self.client.is_none() { ";;" } else { ";" };
            write!(f, "{separator}{secure}")?;
        }
        Ok(())
    }
}

/// `host:quorumPort:electionPort`, an IPv6 address in brackets.
impl fmt::Display for MemberAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, quorum_port, election_port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{quorum_port}:{election_port}")
        } else {
            write!(f, "{host}:{quorum_port}:{election_port}")
        }
    }
}

fn parse_port(text: &str) -> Result<u16, MemberError> {
    text.trim()
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| MemberError::Port(text.to_owned()))
}

/// `[host:]port`, or nothing between two semicolons.
fn parse_client(part: &str, whole: &str) -> Result<Option<Listener>, MemberError> {
    if part.is_empty() {
        return Ok(None);
    }
    match host_and_ports(part)?.as_slice() {
        [port] => Ok(Some(Listener { host: None, port: parse_port(port)? })),
        [host, port] => {
            Ok(Some(Listener { host: Some((*host).to_owned()), port: parse_port(port)? }))
        }
        _ => Err(MemberError::Form(whole.to_owned())),
    }
}

/// Splits at colons; a host in brackets may contain some.
fn host_and_ports(text: &str) -> Result<Vec<&str>, MemberError> {
    let Some(inner) = text.strip_prefix('[') else {
        return Ok(text.split(':').collect());
    };
    let (host, rest) =
        inner.split_once("]:").ok_or_else(|| MemberError::Bracket(text.to_owned()))?;
    Ok(std::iter::once(host).chain(rest.split(':')).collect())
}

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
    /// Bytes a follower buffers for observers.
    pub observer_master_size_limit_bytes: u32,
    /// Sessions that only one member knows.
    pub local_sessions_enabled: bool,
    /// Local sessions become global when they must.
    pub local_sessions_upgrading_enabled: bool,
    /// File of the oracle that decides between two members.
    pub oracle_path: Option<PathBuf>,
    /// Several addresses for a member are allowed.
    pub multi_address_enabled: bool,
    /// Probe the addresses of a member.
    pub multi_address_reachability_check_enabled: bool,
    /// Longest such probe.
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

    fn listener(host: Option<&str>, port: u16) -> Option<Listener> {
        Some(Listener { host: host.map(str::to_owned), port })
    }

    fn parse(text: &str) -> Result<Member, MemberError> {
        Member::parse(1, text, false)
    }

    #[test]
    fn forms_of_a_member() {
        let plain = parse("zk1:2888:3888").unwrap();
        assert_eq!(
            plain.addresses,
            [MemberAddress { host: "zk1".into(), quorum_port: 2888, election_port: 3888 }]
        );
        assert_eq!(
            (plain.role, plain.client, plain.secure_client),
            (Role::Participant, None, None)
        );
        let docker = parse("localhost:2888:3888;2181").unwrap();
        assert_eq!(docker.client, listener(None, 2181));
        let strimzi = parse("0.0.0.0:2888:3888:participant;127.0.0.1:12181").unwrap();
        assert_eq!(strimzi.client, listener(Some("127.0.0.1"), 12181));
        let observer = parse("h:1:2:Observer;h2:3;h3:4").unwrap();
        assert_eq!(observer.role, Role::Observer);
        assert_eq!(
            (observer.client, observer.secure_client),
            (listener(Some("h2"), 3), listener(Some("h3"), 4))
        );
        let only_secure = parse("h:1:2;;2281").unwrap();
        assert_eq!((only_secure.client, only_secure.secure_client), (None, listener(None, 2281)));
        let v6 = parse("[2001:db8::1]:2888:3888:participant;[::1]:2181").unwrap();
        assert_eq!(v6.addresses.first().unwrap().host, "2001:db8::1");
        assert_eq!(v6.client, listener(Some("::1"), 2181));
        assert_eq!(parse("h:1:2;").unwrap().client, None);
        let two = Member::parse(1, "a:1:2|b:3:4:observer", true).unwrap();
        assert_eq!((two.addresses.len(), two.role), (2, Role::Observer));
    }

    #[test]
    fn what_is_refused() {
        for text in ["", "h", "h:1", "h:1:2:participant:x", ":1:2", "h:1:2;a:b:3", "h:1:2;3;4;5"] {
            assert!(matches!(parse(text), Err(MemberError::Form(_))), "{text}: {:?}", parse(text));
        }
        for text in ["h:x:2", "h:1:70000", "h:0:2", "h:1:2;port", "h:1:2;;-1"] {
            assert!(matches!(parse(text), Err(MemberError::Port(_))), "{text}");
        }
        assert_eq!(parse("h:1:1"), Err(MemberError::SamePort(1)));
        assert_eq!(parse("h:1:2:voter"), Err(MemberError::Role("voter".into())));
        assert_eq!(parse("a:1:2|b:1:2"), Err(MemberError::MultiAddress));
        assert_eq!(
            Member::parse(1, "a:1:2:observer|b:1:2:participant", true),
            Err(MemberError::MixedRoles)
        );
        assert!(matches!(parse("[::1:2888:3888"), Err(MemberError::Bracket(_))));
    }

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
    fn listeners() {
        for (host, text, any) in [
            (None, "0.0.0.0:1", true),
            (Some("::"), "[::]:1", true),
            (Some("0.0.0.0"), "0.0.0.0:1", true),
            (Some("127.0.0.1"), "127.0.0.1:1", false),
        ] {
            let listener = listener(host, 1).unwrap();
            assert_eq!((listener.to_string().as_str(), listener.is_any_address()), (text, any));
        }
        assert_eq!(parse_group("1:2: 3:"), Some(vec![1, 2, 3]));
        assert_eq!(parse_group("1:x"), None);
    }
}
