//! reconfig: another ensemble, as a change of `/zookeeper/config` (facts, sections 1.11 and 3.10).
//!
//! Whether a text that is wrong is a bad argument or could not be read is upstream's choice, which clients
//! know: what Java's number parsers throw is the latter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use tracing::{info, warn};
use zk_proto::acl::Perms;
use zk_proto::membership::{Listener, Member, Role};
use zk_proto::path::CONFIG;
use zk_proto::properties::Properties;
use zk_proto::proto::ReconfigRequest;
use zk_proto::txn::{SetDataTxn, Txn};
use zk_proto::{ErrorCode, ServerId};
use zk_zab::Members;

use crate::ReconfigConfig;
use crate::prep::Prep;

/// Its version never counts: configurations have one of their own.
const NO_VERSION: i32 = -1;

/// What is wrong with a request, for the log, and what its client is told.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(ErrorCode, String);

impl Refusal {
    fn bad(why: impl Into<String>) -> Self {
        Self(ErrorCode::BAD_ARGUMENTS, why.into())
    }

    fn unreadable(why: impl Into<String>) -> Self {
        Self(ErrorCode::MARSHALLING_ERROR, why.into())
    }
}

pub(crate) fn prepare(prep: &mut Prep<'_>, request: &ReconfigRequest) -> Result<Txn, ErrorCode> {
    if !prep.config.reconfig.enabled {
        return Err(ErrorCode::RECONFIG_DISABLED);
    }
    prep.check_session()?;
    if !prep.is_member {
        return Err(ErrorCode::UNIMPLEMENTED);
    }
    let members = next_members(prep, request).map_err(|Refusal(err, why)| {
        warn!(session = %prep.session, %err, "a reconfiguration is refused: {why}");
        err
    })?;
    let view = prep.find(CONFIG)?;
    prep.check_acl(view.acl(), Perms::WRITE)?;
    info!(session = %prep.session, members = %members.text, "a reconfiguration");
    let data = Some(Bytes::from(members.to_text()));
    let mut node = prep.to_changed(CONFIG, view);
    node.stat.version = NO_VERSION;
    node.stat.mzxid = prep.zxid.0;
    node.stat.mtime = prep.wall_ms;
    node.data = Some(data.clone());
    prep.put(CONFIG, node);
    Ok(Txn::SetData(SetDataTxn { path: CONFIG.to_owned(), data, version: NO_VERSION }))
}

/// The ensemble that is asked for, if it can be.
fn next_members(prep: &Prep<'_>, request: &ReconfigRequest) -> Result<Members, Refusal> {
    let current = prep.peer.members();
    if prep.peer.is_reconfiguring() {
        let why = "another one is under way; ask again when it is done";
        return Err(Refusal(ErrorCode::RECONFIG_IN_PROGRESS, why.into()));
    }
    let (asked, version) = (request.cur_config_id, current.version);
    if asked != -1 && asked != version {
        let why = format!("it is for version {asked:x}, and version {version:x} is in force");
        return Err(Refusal(ErrorCode::BAD_VERSION, why));
    }
    let config = prep.config.reconfig;
    let mut members = match &request.new_members {
        Some(list) => by_list(list, config)?,
        None => {
            let joining = request.joining_servers.as_deref().unwrap_or_default();
            let leaving = request.leaving_servers.as_deref().unwrap_or_default();
            incremental(current, joining, leaving, config)?
        }
    };
    members.version = prep.zxid.0;
    let needed = if config.standalone_enabled { 2 } else { 1 };
    if members.voters.len() < needed {
        return Err(Refusal::bad(format!("it leaves fewer than {needed} participants")));
    }
    if !prep.peer.is_synced_quorum(&members) {
        let why = "no quorum of it is connected to the leader and in sync";
        return Err(Refusal(ErrorCode::NEW_CONFIG_NO_QUORUM, why.into()));
    }
    Ok(members)
}

/// The parts of a list that commas separate.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn server_id(text: &str) -> Result<u64, Refusal> {
    let id = text.parse().ok().filter(|id| i64::try_from(*id).is_ok());
    id.ok_or_else(|| Refusal::unreadable(format!("`{text}` is no id of a server")))
}

fn member(id: u64, spec: &str, config: ReconfigConfig) -> Result<Member, Refusal> {
    Member::parse(id, spec, config.multi_address)
        .map_err(|err| Refusal::bad(format!("server.{id}: {err}")))
}

/// The members in force without those that leave, and with those that join, which may be among them
/// already: then they change their part or their addresses.
fn incremental(
    current: &Members,
    joining: &str,
    leaving: &str,
    config: ReconfigConfig,
) -> Result<Members, Refusal> {
    if current.is_hierarchical() {
        return Err(Refusal::bad("with groups or weights all members must be listed"));
    }
    let mut servers: BTreeMap<u64, Member> =
        current.servers().into_values().map(|server| (server.id, server)).collect();
    for id in listed(leaving) {
        servers.remove(&server_id(id)?);
    }
    for joiner in listed(joining) {
        let form = || Refusal::bad(format!("`{joiner}` does not have the form server.N=..."));
        let mut parts = listed_by_equals(joiner);
        let (Some(key), Some(spec), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let id = server_id(key.rsplit('.').next().unwrap_or(key))?;
        let server = member(id, spec, config)?;
        if server.client.is_none() && server.secure_client.is_none() {
            return Err(Refusal::bad(format!(
                "server.{id} must say at which port it serves clients"
            )));
        }
        let own = addresses(&server);
        for other in servers.values().filter(|other| other.id != id) {
            if let Some((host, port)) = addresses(other).intersection(&own).next() {
                let why = format!("server.{id} and server.{} are both at {host}:{port}", other.id);
                return Err(Refusal::bad(why));
            }
        }
        servers.insert(id, server);
    }
    Ok(Members::new(servers.values(), BTreeMap::new(), BTreeMap::new()))
}

fn listed_by_equals(text: &str) -> impl Iterator<Item = &str> {
    text.split('=').map(str::trim).filter(|part| !part.is_empty())
}

/// Where nobody else may be. Loopback and wildcard addresses are each machine's own.
fn addresses(server: &Member) -> BTreeSet<(&str, u16)> {
    let own = server.addresses.iter().flat_map(|address| {
        let host = address.host.as_str();
        [(host, address.quorum_port), (host, address.election_port)]
    });
    let clients = [&server.client, &server.secure_client];
    let clients = clients
        .into_iter()
        .flatten()
        .filter_map(|Listener { host, port }| Some((host.as_deref()?, *port)));
    let is_shared = |host: &str| match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost",
    };
    own.chain(clients).filter(|(host, _)| !is_shared(host)).collect()
}

/// The members that a whole list names, in the syntax of the dynamic configuration file; commas stand
/// for line ends (`QuorumPeerConfig.parseDynamicConfig`).
fn by_list(list: &str, config: ReconfigConfig) -> Result<Members, Refusal> {
    let properties = Properties::parse(&list.replace(',', "\n"));
    let mut servers = BTreeMap::new();
    let mut groups: BTreeMap<i64, BTreeSet<ServerId>> = BTreeMap::new();
    let mut weights = BTreeMap::new();
    for entry in &properties.entries {
        let (key, value) = (entry.key.as_str(), entry.value.as_str());
        let suffix = key.split_once('.').map_or(key, |(_, suffix)| suffix);
        let id = |text: &str| Ok(ServerId(server_id(text)?.cast_signed()));
        if key.starts_with("server.") {
            let server = server_id(suffix)?;
            servers.insert(server, member(server, value, config)?);
        } else if key.starts_with("group") {
            let group = server_id(suffix)?.cast_signed();
            for server in value.split(':') {
                let server = id(server)?;
                if groups.values().any(|others| others.contains(&server)) {
                    return Err(Refusal::bad(format!("server.{server} is in several groups")));
                }
                groups.entry(group).or_default().insert(server);
            }
        } else if key.starts_with("weight") {
            let weight = value.parse::<i64>();
            let weight = weight.map_err(|_| Refusal::unreadable(format!("{key}: no number")))?;
            let weight = u64::try_from(weight);
            let weight = weight.map_err(|_| Refusal::bad(format!("{key}: no weight")))?;
            weights.insert(id(suffix)?, weight);
        } else if key != "version" {
            return Err(Refusal::bad(format!("`{key}` is no part of a configuration")));
        }
    }
    check_groups(&servers, &groups, &weights)?;
    let members = Members::new(servers.values(), groups, weights);
    let too_few = if config.standalone_enabled {
        !members.observers.is_empty() && members.voters.len() < 2
    } else {
        members.voters.is_empty()
    };
    if too_few {
        return Err(Refusal::unreadable("it has too few participants"));
    }
    Ok(members)
}

fn check_groups(
    servers: &BTreeMap<u64, Member>,
    groups: &BTreeMap<i64, BTreeSet<ServerId>>,
    weights: &BTreeMap<ServerId, u64>,
) -> Result<(), Refusal> {
    if groups.is_empty() && weights.is_empty() {
        return Ok(());
    }
    let votes = |id: &ServerId| {
        let server = servers.values().find(|server| server.id == id.0.cast_unsigned());
        server.is_some_and(|server| server.role == Role::Participant)
    };
    let grouped: BTreeSet<ServerId> = groups.values().flatten().copied().collect();
    for server in servers.values().filter(|server| server.role == Role::Participant) {
        if !grouped.contains(&ServerId(server.id.cast_signed())) {
            return Err(Refusal::bad(format!("server.{} is in no group", server.id)));
        }
    }
    match grouped.iter().find(|id| !votes(id) && !weights.contains_key(id)) {
        Some(id) => {
            Err(Refusal::unreadable(format!("server.{id} is in a group, and weighs nothing")))
        }
        None => Ok(()),
    }
}
