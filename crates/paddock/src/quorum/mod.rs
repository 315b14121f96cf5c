//! `paddock quorum status`: every member of an ensemble at a glance, from any of its servers.
//! `paddock quorum verify`: whether all of them have the same tree.
//!
//! # Invariants
//!
//! - They only ask: nothing they send changes a tree, and no session is opened where a four-letter word
//!   is enough. (`verify --advance` takes up zxids, with requests that change nothing.)
//! - Members that run Apache ZooKeeper are shown too, by the words that they answer.
//! - They never wait for one server longer than a few times `--timeout`, and for all of them at once.

mod admin;
mod compare;
mod probe;
mod report;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::task::JoinSet;
use zk_config::{Member, Role};
use zk_zab::{Members, QuorumVerifier};

use self::probe::{Answer, Reply, configuration, probe};
use self::report::{MemberReport, Report};

#[derive(Debug, Args)]
pub(crate) struct QuorumArgs {
    #[command(subcommand)]
    command: QuorumCommand,
}

#[derive(Debug, Subcommand)]
enum QuorumCommand {
    /// Every member with its role, epoch and lag: 0 all is well, 1 somebody is missing, 2 there is no
    /// quorum.
    Status(StatusArgs),
    /// Whether all members have the same tree: 0 they have, 1 they differ, 2 that could not be told.
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Client addresses, HOST:PORT; one is enough to find the others.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "localhost:2181")]
    server: Vec<String>,
    /// One JSON object, for scripts.
    #[arg(long)]
    json: bool,
    /// How long a server may take to answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    timeout: u64,
}

/// Runs the command.
#[allow(clippy::print_stderr, reason = "the answer of a command")]
pub(crate) fn run(args: &QuorumArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("paddock: {error}");
            return ExitCode::FAILURE;
        }
    };
    match &args.command {
        QuorumCommand::Status(args) => run_status(args, &runtime),
        QuorumCommand::Verify(args) => verify::run(args, &runtime),
    }
}

fn run_status(args: &StatusArgs, runtime: &tokio::runtime::Runtime) -> ExitCode {
    let timeout = Duration::from_millis(args.timeout.max(1));
    let found = runtime.block_on(status(&args.server, timeout));
    let told = found.map(|report| {
        let text = if args.json { format!("{}\n", report.to_json()) } else { report.to_text() };
        (text, report.verdict().exit_code())
    });
    let error = |error: String| serde_json::json!({ "verdict": "unknown", "error": error });
    tell(told, args.json, error, report::Verdict::NoQuorum.exit_code())
}

/// Prints what was found, with its exit code; or why nothing was: a line each, or as JSON.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
fn tell(
    found: Result<(String, ExitCode), Vec<String>>,
    json: bool,
    error: impl FnOnce(String) -> serde_json::Value,
    unknown: ExitCode,
) -> ExitCode {
    match found {
        Ok((text, code)) => {
            print!("{text}");
            code
        }
        Err(problems) => {
            if json {
                println!("{}", error(problems.join("; ")));
            } else {
                problems.iter().for_each(|problem| eprintln!("{problem}"));
            }
            unknown
        }
    }
}

/// Asks the servers at `given` addresses, and through them all the others.
///
/// # Errors
/// A line for each of them, when none could tell who the members are.
async fn status(given: &[String], timeout: Duration) -> Result<Report, Vec<String>> {
    let (ensemble, verifier, first) = match discover(given, timeout).await? {
        Discovery::Standalone { address, answer } => {
            return Ok(Report::standalone(&address, &answer));
        }
        Discovery::Ensemble { ensemble, verifier, first } => (ensemble, verifier, first),
    };
    let Ensemble { members, addresses } = ensemble;
    let unasked: Vec<(u64, String)> = addresses
        .iter()
        .filter_map(|(id, address)| Some((*id, address.clone()?)))
        .filter(|(_, address)| !first.contains_key(address))
        .collect();
    let mut replies = probe_all(unasked, timeout).await;
    let reports = members.values().map(|member| {
        let address = addresses.get(&member.id).cloned().flatten();
        let reply = match &address {
            None => Err(UNKNOWN_ADDRESS.to_owned()),
            Some(address) => match first.get(address) {
                Some(reply) => reply.clone(),
                None => replies.remove(&member.id).unwrap_or_else(|| Err("not asked".to_owned())),
            },
        };
        let reply = reply.and_then(|answer| answer.claimed_by(member.id));
        MemberReport { id: member.id, role: member.role, address, reply }
    });
    Ok(Report::judge(reports.collect(), &verifier))
}

const UNKNOWN_ADDRESS: &str = "its client address is not known; name it with --server";

/// Who the members are, and where they serve clients as far as that is known.
struct Ensemble {
    members: BTreeMap<u64, Member>,
    addresses: BTreeMap<u64, Option<String>>,
}

/// What is found behind given addresses.
enum Discovery {
    /// A server that is no member of anything.
    Standalone { address: String, answer: Answer },
    /// An ensemble, which of its members may decide, and what the servers at the given addresses answered.
    Ensemble { ensemble: Ensemble, verifier: QuorumVerifier, first: BTreeMap<String, Reply> },
}

/// Asks the servers at `given` addresses who the members are.
///
/// # Errors
/// A line for each of them, when none could tell.
async fn discover(given: &[String], timeout: Duration) -> Result<Discovery, Vec<String>> {
    let asked: BTreeSet<String> = given.iter().map(|address| address.trim().to_owned()).collect();
    let first =
        probe_all(asked.into_iter().map(|address| (address.clone(), address)), timeout).await;
    let mut failed = Vec::new();
    let mut membership = None;
    for (address, reply) in &first {
        let answer = match reply {
            Ok(answer) => answer,
            Err(error) => {
                failed.push(format!("{address}: {error}"));
                continue;
            }
        };
        if answer.is_standalone() {
            let (address, answer) = (address.clone(), answer.clone());
            return Ok(Discovery::Standalone { address, answer });
        }
        let told = match &answer.membership {
            Some(text) => Ok(text.clone()),
            None => configuration(address, timeout).await,
        };
        match told.and_then(|text| members_of(&text)) {
            Ok((members, verifier)) => {
                membership = Some((members, verifier, address.clone()));
                break;
            }
            Err(error) => failed.push(format!("{address}: {}; {error}", answer.mode)),
        }
    }
    let Some((members, verifier, told_by)) = membership else { return Err(failed) };
    let addresses = addresses(&members, &first, &told_by);
    Ok(Discovery::Ensemble { ensemble: Ensemble { members, addresses }, verifier, first })
}

/// Asks many servers at once; each has a name.
async fn probe_all<K: Ord + Send + 'static>(
    servers: impl IntoIterator<Item = (K, String)>,
    timeout: Duration,
) -> BTreeMap<K, Reply> {
    let mut tasks = JoinSet::new();
    for (name, address) in servers {
        tasks.spawn(async move { (name, probe(&address, timeout).await) });
    }
    tasks.join_all().await.into_iter().collect()
}

/// The members that a configuration text lists, and which of them may decide.
fn members_of(text: &str) -> Result<(BTreeMap<u64, Member>, QuorumVerifier), String> {
    let mut members = BTreeMap::new();
    for line in text.lines() {
        let Some((id, value)) = line.strip_prefix("server.").and_then(|line| line.split_once('='))
        else {
            continue;
        };
        let id = id.parse().map_err(|_| format!("server.{id} has no number"))?;
        let member = Member::parse(id, value, true).map_err(|e| format!("server.{id}: {e}"))?;
        members.insert(id, member);
    }
    if members.is_empty() {
        return Err("it tells no members".to_owned());
    }
    Ok((members, QuorumVerifier::new(&Members::from_text(text))))
}

/// Where each member serves clients: where it was found, where its line says, or else, as far as that
/// can be, at the port of the server that was asked.
fn addresses(
    members: &BTreeMap<u64, Member>,
    first: &BTreeMap<String, Reply>,
    told_by: &str,
) -> BTreeMap<u64, Option<String>> {
    let found: BTreeMap<u64, &String> = first
        .iter()
        .filter_map(|(address, reply)| Some((reply.as_ref().ok()?.id?, address)))
        .collect();
    let port = told_by.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let mut taken: BTreeSet<String> = found.values().map(|address| (*address).clone()).collect();
    let mut addresses = BTreeMap::new();
    for member in members.values() {
        let written = || {
            let client = member.client.as_ref()?;
            let own_host = member.address().host.as_str();
            let host = client.host.as_deref().filter(|_| !client.is_any_address());
            Some(host_port(host.unwrap_or(own_host), client.port))
        };
        let address = match found.get(&member.id) {
            Some(address) => Some((*address).clone()),
            None => written(),
        };
        if let Some(address) = &address {
            taken.insert(address.clone());
        }
        addresses.insert(member.id, address);
    }
    // Guesses come last: they must not take what belongs to another, nor choose among members of one
    // machine.
    let host = |id| members.get(&id).map_or("", |member: &Member| member.address().host.as_str());
    let unknown: Vec<u64> =
        addresses.iter().filter(|(_, address)| address.is_none()).map(|(id, _)| *id).collect();
    for id in &unknown {
        if unknown.iter().any(|other| other != id && host(*other) == host(*id)) {
            continue;
        }
        let guess = port.map(|port| host_port(host(*id), port));
        addresses.insert(*id, guess.filter(|guess| taken.insert(guess.clone())));
    }
    addresses
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Answer {
    /// The answer as that of member `id`; an error when another one gave it.
    fn claimed_by(self, id: u64) -> Reply {
        match self.id {
            Some(other) if other != id => Err(format!("server.{other} answers there")),
            Some(_) | None => Ok(self),
        }
    }
}

fn role_name(role: Role) -> &'static str {
    role.as_str()
}

#[cfg(test)]
mod tests;
