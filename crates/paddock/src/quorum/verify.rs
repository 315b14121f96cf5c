//! `paddock quorum verify`: asks every member for its digests, compares them, says what came of it.

mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use zk_client::{Client, ErrorCode, four_letter_word};
use zk_config::{Role, Severity, Sources};

use self::report::{Report, Verdict};
use super::admin;
use super::compare::Points;
use super::probe::{Answer, NOT_SERVING, probe, reason};
use super::{Discovery, Ensemble, UNKNOWN_ADDRESS, addresses, discover, probe_all, tell};

/// Between two rounds of asking.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What a session of `--advance` gets to come about: an election may be under way.
const SESSION_PATIENCE: Duration = Duration::from_secs(10);

/// What `--advance` waits for members to reach the new zxid when `--wait` says nothing.
const ADVANCE_PATIENCE: Duration = Duration::from_secs(10);

/// Zxids at which every member keeps its digest (`DataTree.DIGEST_LOG_INTERVAL`).
const INTERVAL: u64 = 128;

/// A znode that nobody has: deleting it fails, and takes up a zxid on every member.
const NOWHERE: &str = "/zookeeper/paddock-quorum-verify/none";

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Client addresses, HOST:PORT; one is enough to find the others. localhost:2181 when neither
    /// this nor --config is given.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    server: Vec<String>,
    /// A zoo.cfg that lists the members, instead of asking a server who they are.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask again for so long, until all members can be compared.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Compare as of now: take up zxids to the next multiple of 128, where every member notes its
    /// digest, with requests that change nothing (they delete a znode that does not exist).
    #[arg(long)]
    advance: bool,
    /// Where Apache's AdminServers listen, asked where `hash` is not allowed.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    admin_port: u16,
    /// One JSON object, for scripts.
    #[arg(long)]
    json: bool,
    /// How long a server may take to answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    timeout: u64,
}

/// A member, and what it answered.
#[derive(Debug, Clone)]
struct MemberAnswer {
    id: u64,
    role: Role,
    /// Where it was asked.
    address: Option<String>,
    /// What it says of itself; or why nothing.
    answer: Result<Answer, String>,
    /// Digests that were not the leader's since it started, by its own count.
    mismatches: Option<u64>,
    /// Its digests; or why there are none.
    digests: Result<Points, Silence>,
}

/// Why a member tells no digests.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Silence {
    /// It cannot be reached at all.
    Unreachable(String),
    /// It has no quorum.
    NotServing,
    /// `hash` is not allowed there, and its AdminServer does not help.
    NotAllowed { admin: String },
    /// A release that keeps none.
    TooOld(String),
    /// They are switched off there.
    Disabled,
    /// No zxid that 128 divides has come since it started.
    NoneYet,
    /// It answers something else.
    Odd(String),
}

/// Runs the command.
pub(super) fn run(args: &VerifyArgs, runtime: &Runtime) -> ExitCode {
    let told = runtime.block_on(verify(args)).map(|report| {
        let text = if args.json { format!("{}\n", report.to_json()) } else { report.to_text() };
        (text, report.verdict().exit_code())
    });
    tell(told, args.json, report::failed_json, Verdict::Unknown.exit_code())
}

/// Asks the members until they can be compared, or time is up.
///
/// # Errors
/// A line for each reason why nobody can be compared.
async fn verify(args: &VerifyArgs) -> Result<Report, Vec<String>> {
    let timeout = Duration::from_millis(args.timeout.max(1));
    let ensemble = find(args, timeout).await?;
    let asking = Asking { timeout, admin_port: args.admin_port };
    let mut deadline = Instant::now() + Duration::from_secs(args.wait);
    let mut target = None;
    let mut problem = None;
    if args.advance {
        match advance(&ask_all(&ensemble, asking).await, timeout).await {
            Ok(zxid) => target = Some(zxid),
            Err(error) => problem = Some(format!("--advance did not work: {error}")),
        }
        deadline = deadline.max(Instant::now() + ADVANCE_PATIENCE);
    }
    loop {
        let mut report = Report::judge(ask_all(&ensemble, asking).await, target);
        let over = Instant::now() + AGAIN_AFTER > deadline;
        if report.verdict() != Verdict::Unknown || over || !report.can_change() {
            report.warnings.extend(problem);
            return Ok(report);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Finds the members: in the file, or by asking.
async fn find(args: &VerifyArgs, timeout: Duration) -> Result<Ensemble, Vec<String>> {
    let given = &args.server;
    let Some(file) = &args.config else {
        let default = ["localhost:2181".to_owned()];
        let given = if given.is_empty() { &default } else { given.as_slice() };
        return match discover(given, timeout).await? {
            Discovery::Ensemble { ensemble, .. } => Ok(ensemble),
            Discovery::Standalone { address, .. } => Err(vec![format!(
                "{address} is a standalone server: there is no other one to compare it with"
            )]),
        };
    };
    let named = given.iter().map(|address| (address.clone(), address.clone()));
    let first = probe_all(named, timeout).await;
    let (members, port) = from_file(file)?;
    let addresses = addresses(&members, &first, &port);
    Ok(Ensemble { members, addresses })
}

/// The members that a zoo.cfg lists, and the address of a server with its `clientPort`.
fn from_file(file: &Path) -> Result<(BTreeMap<u64, zk_config::Member>, String), Vec<String>> {
    let loaded = Sources::new().load_file(file);
    let errors = || {
        let errors = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error);
        errors.map(ToString::to_string).collect()
    };
    // A file need not be this machine's own: that it has no myid file here does not matter.
    let Some(config) = &loaded.config else { return Err(errors()) };
    if config.ensemble.members.is_empty() {
        return Err(vec![format!("{}: it has no server.N lines", file.display())]);
    }
    let port = config.client_listener.as_ref().map(|listener| format!(":{}", listener.port));
    Ok((config.ensemble.members.clone(), port.unwrap_or_default()))
}

/// How servers are asked.
#[derive(Debug, Clone, Copy)]
struct Asking {
    timeout: Duration,
    admin_port: u16,
}

/// Asks all members at once.
async fn ask_all(ensemble: &Ensemble, asking: Asking) -> Vec<MemberAnswer> {
    let mut tasks = JoinSet::new();
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for member in ensemble.members.values() {
        let (id, role) = (member.id, member.role);
        let address = ensemble.addresses.get(&id).cloned().flatten();
        // The same server twice would agree with itself.
        let twice = address.as_ref().and_then(|address| taken.insert(address.clone(), id));
        tasks.spawn(async move {
            let heard = match (&address, twice) {
                (None, _) => Err(UNKNOWN_ADDRESS.to_owned()),
                (Some(_), Some(other)) => Err(format!(
                    "server.{other} has the same client address; name the right one with --server"
                )),
                (Some(address), None) => ask(address, id, asking).await,
            };
            let (answer, mismatches, digests) = match heard {
                Ok((answer, mismatches, digests)) => (Ok(answer), mismatches, digests),
                Err(error) => (Err(error.clone()), None, Err(Silence::Unreachable(error))),
            };
            MemberAnswer { id, role, address, answer, mismatches, digests }
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|answer| answer.id);
    answers
}

type Heard = (Answer, Option<u64>, Result<Points, Silence>);

/// Asks one member.
async fn ask(address: &str, id: u64, asking: Asking) -> Result<Heard, String> {
    let Asking { timeout, admin_port } = asking;
    let (answer, mntr, hash) = tokio::join!(
        probe(address, timeout),
        four_letter_word(address, "mntr", timeout),
        four_letter_word(address, "hash", timeout),
    );
    let answer = answer?.claimed_by(id)?;
    let mismatches = mntr.ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("zk_digest_mismatches_count\t"));
        line?.trim().parse().ok()
    });
    let mut digests = match hash {
        Ok(text) => read_hash(&text, answer.version.as_deref()),
        // A server that does not know the word may close the connection in either way.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            read_hash("", answer.version.as_deref())
        }
        Err(error) => Err(Silence::Odd(reason(&error, timeout))),
    };
    if matches!(digests, Err(Silence::NotAllowed { .. }))
        && let Some((host, client_port)) = address.rsplit_once(':')
    {
        digests = match admin::digests(host, admin_port, client_port, timeout).await {
            Ok(points) => checked(points),
            Err(admin) => Err(Silence::NotAllowed { admin }),
        };
    }
    // Ours tell the present digest too.
    if let Some((zxid, digest)) = answer.digest.filter(|_| answer.serving) {
        match &mut digests {
            Ok(points) => drop(points.insert(zxid, digest)),
            Err(Silence::NotAllowed { .. } | Silence::NoneYet) => {
                digests = Ok(Points::from([(zxid, digest)]));
            }
            Err(
                Silence::Unreachable(_)
                | Silence::NotServing
                | Silence::TooOld(_)
                | Silence::Disabled
                | Silence::Odd(_),
            ) => {}
        }
    }
    Ok((answer, mismatches, digests))
}

/// Reads the answer to `hash` of a server of this version.
fn read_hash(text: &str, version: Option<&str>) -> Result<Points, Silence> {
    if text.contains("is not executed because it is not in the whitelist") {
        return Err(Silence::NotAllowed { admin: String::new() });
    }
    if text.contains(NOT_SERVING) {
        return Err(Silence::NotServing);
    }
    if text.is_empty()
        && let Some(version) = version
        && release(version).is_some_and(|release| release < (3, 6))
    {
        return Err(Silence::TooOld(short_version(version).to_owned()));
    }
    let point = |line: &str| {
        let (zxid, digest) = line.split_once(": ")?;
        Some((u64::from_str_radix(zxid, 16).ok()?, digest.trim().parse().ok()?))
    };
    let points: Option<Points> = text.lines().map(point).collect();
    checked(points.ok_or_else(|| {
        Silence::Odd(text.lines().next().unwrap_or_default().chars().take(60).collect())
    })?)
}

/// Whether these are digests of anything.
fn checked(points: Points) -> Result<Points, Silence> {
    if points.is_empty() {
        return Err(Silence::NoneYet);
    }
    // What Apache notes when it does not compute them. No tree has this digest: the root counts.
    if points.values().all(|digest| *digest == 0) {
        return Err(Silence::Disabled);
    }
    Ok(points)
}

/// 3 and 9 of `3.9.5-...`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `3.9.5` of `3.9.5-<revision>, built on ...`.
fn short_version(version: &str) -> &str {
    version.split([',', '-', ' ']).next().unwrap_or(version)
}

/// Takes up zxids to the next one that 128 divides, which is returned.
///
/// # Errors
/// Nobody serves, or the requests did not come through.
async fn advance(members: &[MemberAnswer], timeout: Duration) -> Result<u64, String> {
    let serving = members.iter().filter_map(|member| {
        let answer = member.answer.as_ref().ok()?;
        answer.serving.then_some((member.address.as_deref()?, answer.zxid?))
    });
    let newest = serving.clone().map(|(_, zxid)| zxid).max().ok_or("nobody serves")?;
    let target = newest - newest % INTERVAL + INTERVAL;
    let mut last = String::new();
    for (address, _) in serving {
        match delete_nothing(address, target - newest, timeout).await {
            Ok(()) => return Ok(target),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Sends `count` requests that fail; a session's begin and end only add to them.
async fn delete_nothing(address: &str, count: u64, timeout: Duration) -> Result<(), String> {
    let client = Client::connect(address, timeout.max(SESSION_PATIENCE), false)
        .await
        .map_err(|error| error.to_string())?;
    // All are sent before the first answer is awaited.
    let calls: Vec<_> = (0..count).map(|_| client.delete(NOWHERE, -1)).collect();
    let mut result = Ok(());
    for call in calls {
        match call.await {
            Err(error) if error.code == ErrorCode::NO_NODE || error.code == ErrorCode::NO_AUTH => {}
            Err(error) => result = Err(error.to_string()),
            Ok(()) => result = Err(format!("there was a znode {NOWHERE}")),
        }
    }
    client.close().await;
    result
}

#[cfg(test)]
mod tests;
