//! Four-letter words: a connection whose first four bytes are one of them is answered with text and
//! closed.
//!
//! # Invariants
//!
//! - A word is recognised only as the first thing on a connection; any other four bytes are a length.
//! - Only what `4lw.commands.whitelist` names is answered; the rest is refused by name.
//! - Lines end in `\n`, whatever the asker sent. `ruok`, `isro`, `gtmk` and `stmk` answer without one.

mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::{Buf, BytesMut};
use zk_config::{FourLetterWhitelist, Role};
use zk_processor::{Client, GlobalSessions, KnownSessions};
use zk_proto::SessionId;
use zk_proto::quorum::PeerState;
use zk_tree::{WatcherId, ZxidDigest};
use zk_zab::PeerStatus;

use self::text::{Buckets, Conf, Connection, MemberConf, ServerSummary};
use super::process::{Process, folder_bytes};
use super::{metrics, quorum};
use crate::context::Context;
use crate::quorum::server_id;
use crate::version::BANNER;

pub(crate) use self::text::Double;

/// Bytes of a word.
const WORD_LEN: usize = 4;

/// What a member says of itself while it has no quorum (`AbstractFourLetterCommand.ZK_NOT_SERVING`).
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// What telnet sends when it closes: upstream counts it among the words to keep its logs clean.
const TELNET_CLOSE: [u8; WORD_LEN] = [0xff, 0xf4, 0xff, 0xfd];

/// A word, with what came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The configuration.
    Conf,
    /// The connections, in detail.
    Cons,
    /// Forget the connections' counts.
    Crst,
    /// How much disk the data takes.
    Dirs,
    /// Sessions, ephemerals and connections.
    Dump,
    /// The process's environment.
    Envi,
    /// The trace mask.
    Gtmk,
    /// Digests of the tree.
    Hash,
    /// Whether the server is read-only.
    Isro,
    /// Every metric.
    Mntr,
    /// What a member knows of its ensemble; a word that ZooKeeper does not have.
    Quor,
    /// Whether the server lives.
    Ruok,
    /// Forget the server's counts.
    Srst,
    /// The server.
    Srvr,
    /// The server and its connections.
    Stat,
    /// Set the trace mask to this.
    Stmk(i64),
    /// Watches by connection.
    Wchc,
    /// Watches by path.
    Wchp,
    /// How many watches there are.
    Wchs,
    /// Telnet's farewell.
    TelnetClose,
}

impl Word {
    /// How upstream calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conf => "conf",
            Self::Cons => "cons",
            Self::Crst => "crst",
            Self::Dirs => "dirs",
            Self::Dump => "dump",
            Self::Envi => "envi",
            Self::Gtmk => "gtmk",
            Self::Hash => "hash",
            Self::Isro => "isro",
            Self::Mntr => "mntr",
            Self::Quor => "quor",
            Self::Ruok => "ruok",
            Self::Srst => "srst",
            Self::Srvr => "srvr",
            Self::Stat => "stat",
            Self::Stmk(_) => "stmk",
            Self::Wchc => "wchc",
            Self::Wchp => "wchp",
            Self::Wchs => "wchs",
            Self::TelnetClose => "telnet close",
        }
    }

    /// Whether it is about a server that serves.
    fn needs_service(self) -> bool {
        match self {
            Self::Conf
            | Self::Cons
            | Self::Crst
            | Self::Dirs
            | Self::Dump
            | Self::Hash
            | Self::Isro
            | Self::Mntr
            | Self::Srst
            | Self::Srvr
            | Self::Stat
            | Self::Wchc
            | Self::Wchp
            | Self::Wchs => true,
            Self::Envi
            | Self::Gtmk
            | Self::Quor
            | Self::Ruok
            | Self::Stmk(_)
            | Self::TelnetClose => false,
        }
    }

    /// The word that four bytes are; `stmk` without its mask.
    fn parse(bytes: [u8; WORD_LEN]) -> Option<Self> {
        Some(match &bytes {
            b"conf" => Self::Conf,
            b"cons" => Self::Cons,
            b"crst" => Self::Crst,
            b"dirs" => Self::Dirs,
            b"dump" => Self::Dump,
            b"envi" => Self::Envi,
            b"gtmk" => Self::Gtmk,
            b"hash" => Self::Hash,
            b"isro" => Self::Isro,
            b"mntr" => Self::Mntr,
            b"quor" => Self::Quor,
            b"ruok" => Self::Ruok,
            b"srst" => Self::Srst,
            b"srvr" => Self::Srvr,
            b"stat" => Self::Stat,
            b"stmk" => Self::Stmk(0),
            b"wchc" => Self::Wchc,
            b"wchp" => Self::Wchp,
            b"wchs" => Self::Wchs,
            &TELNET_CLOSE => Self::TelnetClose,
            _ => return None, // the length of a frame
        })
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// Too few to tell.
    Incomplete,
    /// Not a word: the length of a frame.
    No,
    /// A word, which was taken from the buffer.
    Word(Word),
}

/// Looks for a word at the start of a connection, and takes it with the line end that humans and
/// scripts send after it, if that is there already. A word that is not in the whitelist is not waited
/// for any further: `stmk` is refused without its mask.
pub fn detect(unread: &mut BytesMut, whitelist: &FourLetterWhitelist) -> Detected {
    let Some(bytes) = unread.first_chunk::<WORD_LEN>() else { return Detected::Incomplete };
    let Some(mut word) = Word::parse(*bytes) else { return Detected::No };
    if let Word::Stmk(mask) = &mut word
        && whitelist.allows("stmk")
    {
        let Some(bytes) = unread.get(WORD_LEN..).and_then(<[u8]>::first_chunk) else {
            return Detected::Incomplete;
        };
        *mask = i64::from_be_bytes(*bytes);
        unread.advance(size_of::<i64>());
    }
    unread.advance(WORD_LEN);
    let line_end = match &unread[..] {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => 0, // any other byte, or none
    };
    unread.advance(line_end);
    Detected::Word(word)
}

/// What `stmk` sets and `gtmk` tells. Tools may keep what they like in it: it switches no logging,
/// which has levels of its own.
#[derive(Debug)]
pub struct TraceMask(AtomicI64);

impl Default for TraceMask {
    /// Upstream's: requests, server packets, sessions and warnings.
    fn default() -> Self {
        Self(AtomicI64::new((1 << 1) | (1 << 4) | (1 << 5) | (1 << 8)))
    }
}

/// The answer to a word; the connection is closed after it.
#[must_use]
pub fn answer(context: &Context, word: &Word) -> String {
    answer_as(context, word, quorum::standing(context).as_ref())
}

/// As [`answer`], of a member that stands like this.
fn answer_as(context: &Context, word: &Word, standing: Option<&PeerStatus>) -> String {
    let name = word.name();
    if !context.config.four_letter_words.allows(name) {
        tracing::debug!(word = name, "not executed: not in 4lw.commands.whitelist");
        return format!("{name} is not executed because it is not in the whitelist.\n");
    }
    tracing::debug!(word = name, "executing a four-letter word");
    let node = &context.node;
    let read_only = quorum::is_read_only(context, standing);
    if word.needs_service() && !read_only && !quorum::is_serving(standing) {
        return match word {
            Word::Isro => "null".into(),
            Word::Hash => NOT_SERVING.into(),
            _ => format!("{NOT_SERVING}\n"), // with a line end, as every other
        };
    }
    let mask = &context.counters.trace_mask.0;
    match *word {
        Word::Ruok => "imok".into(),
        Word::Isro if read_only => "ro".into(),
        Word::Isro => "rw".into(),
        Word::Srvr => text::server(&summary(context, standing), None),
        Word::Stat => text::server(&summary(context, standing), Some(&connections(context))),
        Word::Quor => quorum::quor(context, standing),
        Word::Cons => text::cons(&connections(context)),
        Word::Mntr => mntr(context, standing),
        Word::Conf => text::conf(&conf(context, read_only)),
        Word::Envi => text::envi(&environment()),
        Word::Dirs => {
            let bytes = [&context.config.data_dir, &context.config.data_log_dir]
                .map(|folder| folder_bytes(folder));
            format!("datadir_size: {}\nlogdir_size: {}\n", bytes[0], bytes[1])
        }
        Word::Dump => dump(context),
        Word::Wchs => text::wchs(node.read(|db| db.watches.summary())),
        Word::Wchc => {
            let sessions = Sessions::of(context);
            let watchers = node.read(|db| db.watches.by_watcher());
            let watchers: Vec<_> = watchers
                .into_iter()
                .filter_map(|(id, paths)| Some((sessions.get(id)?, paths)))
                .collect();
            text::wchc(&watchers)
        }
        Word::Wchp => {
            let sessions = Sessions::of(context);
            let paths = node.read(|db| db.watches.by_path());
            let of = |ids: Vec<_>| ids.into_iter().filter_map(|id| sessions.get(id)).collect();
            let paths: Vec<_> = paths.into_iter().map(|(path, ids)| (path, of(ids))).collect();
            text::wchp(&paths)
        }
        Word::Crst => {
            node.clients().iter().for_each(|client| client.reset_info());
            "Connection stats reset.\n".into()
        }
        Word::Srst => {
            reset(context);
            "Server stats reset.\n".into()
        }
        Word::Gtmk => mask.load(Ordering::Relaxed).to_string(),
        Word::Stmk(new) => {
            mask.store(new, Ordering::Relaxed);
            new.to_string()
        }
        Word::Hash => hash(context),
        Word::TelnetClose => String::new(),
    }
}

/// `srst`. Upstream's default provider forgets all of its metrics here, its Prometheus provider none:
/// counters that a scraper sees must not go back, so only those of `srvr` do.
fn reset(context: &Context) {
    context.node.stats().reset();
    let counters = &context.counters;
    let sizes: [&AtomicU64; 3] =
        [&counters.last_response_bytes, &counters.min_response_bytes, &counters.max_response_bytes];
    sizes.iter().for_each(|size| size.store(0, Ordering::Relaxed));
}

fn summary(context: &Context, standing: Option<&PeerStatus>) -> ServerSummary {
    let stats = context.node.stats();
    let status = context.node.status();
    let latency = metrics::Summary::of_times(&stats.latency);
    let read_only = quorum::is_read_only(context, standing);
    ServerSummary {
        version: BANNER,
        min_latency_ms: latency.min_whole(),
        avg_latency_ms: latency.avg(),
        max_latency_ms: latency.max_whole(),
        received: stats.packets_received.load(Ordering::Relaxed),
        sent: stats.packets_sent.load(Ordering::Relaxed),
        connections: status.connections,
        outstanding: status.outstanding,
        zxid: status.zxid.0,
        mode: quorum::mode(standing, read_only),
        read_only,
        node_count: status.node_count,
        proposal_sizes: standing
            .filter(|status| status.state == PeerState::Leading)
            .map(|_| quorum::proposal_sizes(context)),
    }
}

fn connections(context: &Context) -> Vec<Connection> {
    context.node.clients().iter().map(|client| connection(context, client)).collect()
}

fn connection(context: &Context, client: &Arc<Client>) -> Connection {
    // A connection is known to the core an instant before its port is: then it is shown without.
    let unnamed = || {
        let ip = client.address.parse().unwrap_or_else(|_| std::net::Ipv4Addr::UNSPECIFIED.into());
        SocketAddr::new(ip, 0)
    };
    let peer = context.counters.peers.get(client.id).unwrap_or_else(unnamed);
    Connection { peer, info: client.info() }
}

fn conf(context: &Context, read_only: bool) -> Conf {
    let config = &context.config;
    let [data_dir, data_log_dir] = [&config.data_dir, &config.data_log_dir];
    let absolute = |folder| {
        let absolute =
            std::path::absolute(folder).unwrap_or_else(|_| std::path::PathBuf::clone(folder));
        absolute.display().to_string()
    };
    Conf {
        client_port: match (context.client_address(), &config.client_listener) {
            (Some(address), _) => address.port().into(),
            (None, Some(listener)) => listener.port.into(),
            (None, None) => -1,
        },
        secure_client_port: config
            .secure_client_listener
            .as_ref()
            .map_or(-1, |listener| listener.port.into()),
        data_dir: absolute(data_dir),
        data_dir_bytes: folder_bytes(data_dir),
        data_log_dir: absolute(data_log_dir),
        data_log_bytes: folder_bytes(data_log_dir),
        tick_time_ms: config.tick_time_ms,
        max_client_cnxns: config.limits.max_client_cnxns.unwrap_or(0),
        min_session_timeout_ms: config.min_session_timeout_ms,
        max_session_timeout_ms: config.max_session_timeout_ms,
        backlog: config.client_port_listen_backlog.map_or(-1, i64::from),
        // A standalone server has none, whatever its myid file says.
        server_id: config.member_id().unwrap_or_default(),
        member: config.member_id().and_then(|id| {
            let in_force = context.membership.current();
            let member =
                in_force.member(server_id(id)).or_else(|| config.ensemble.members.get(&id))?;
            Some(MemberConf {
                init_limit: config.ensemble.init_limit_ticks,
                sync_limit: config.ensemble.sync_limit_ticks,
                election_port: member.address().election_port,
                quorum_port: member.address().quorum_port,
                observer: member.role == Role::Observer,
                membership: (!read_only).then(|| in_force.members.to_text()),
            })
        }),
    }
}

/// Upstream's keys. There is no Java: what would be about it is upstream's own word for unknown.
fn environment() -> Vec<(&'static str, String)> {
    const UNKNOWN: &str = "<NA>";
    const MIB: u64 = 1 << 20;
    let variable = |name| std::env::var(name).unwrap_or_else(|_| UNKNOWN.into());
    let folder = |folder: std::io::Result<std::path::PathBuf>| {
        folder.map_or_else(|_| UNKNOWN.into(), |folder| folder.display().to_string())
    };
    let system = rustix::system::uname();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64", // as Java calls it
        arch => arch,
    };
    let process = Process::now();
    let mut entries = vec![
        ("zookeeper.version", BANNER.to_owned()),
        ("host.name", system.nodename().to_string_lossy().into_owned()),
    ];
    entries.extend(
        ["java.version", "java.vendor", "java.home", "java.class.path", "java.library.path"]
            .map(|key| (key, UNKNOWN.to_owned())),
    );
    entries.extend([
        ("java.io.tmpdir", folder(Ok(std::env::temp_dir()))),
        ("java.compiler", UNKNOWN.to_owned()),
        ("os.name", system.sysname().to_string_lossy().into_owned()),
        ("os.arch", arch.to_owned()),
        ("os.version", system.release().to_string_lossy().into_owned()),
        ("user.name", user_name().unwrap_or_else(|| variable("USER"))),
        ("user.home", variable("HOME")),
        ("user.dir", folder(std::env::current_dir())),
        ("os.memory.free", format!("{}MB", process.memory_free_bytes / MIB)),
        ("os.memory.max", format!("{}MB", process.memory_total_bytes / MIB)),
        ("os.memory.total", format!("{}MB", process.resident_bytes / MIB)),
    ]);
    entries
}

/// The name of the user that the process runs as, out of `/etc/passwd`.
fn user_name() -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut rows = users.lines().map(|line| line.split(':'));
    rows.find_map(|mut row| row.next().filter(|_| row.nth(1) == Some(&uid)).map(str::to_owned))
}

fn dump(context: &Context) -> String {
    let node = &context.node;
    let now = context.clock.now();
    let to_wall = |mono_ms: i64| now.wall_ms + (mono_ms - now.mono_ms());
    let KnownSessions { local, global } = node.known_sessions();
    let as_text = |expiry: &BTreeMap<i64, Vec<SessionId>>| -> Buckets {
        let ids = |ids: &Vec<SessionId>| ids.iter().map(|id| format!("0x{:x}", id.0)).collect();
        expiry.iter().map(|(at, these)| (to_wall(*at), ids(these))).collect()
    };
    let ephemerals: Vec<_> = node.read(|db| {
        let tree = &db.tree;
        tree.ephemeral_sessions().map(|id| (id, tree.ephemerals(id).collect())).collect()
    });
    // A connection goes when its session expires, or when none came in time.
    let led = match &global {
        GlobalSessions::ByExpiry(expiry) => Some(expiry),
        GlobalSessions::Timeouts(_) => None,
    };
    let expiry = local.iter().chain(led).flatten();
    let due: BTreeMap<SessionId, i64> =
        expiry.flat_map(|(at, ids)| ids.iter().map(|id| (*id, to_wall(*at)))).collect();
    let sessionless_ms = i64::from(context.config.sessionless_timeout_ms);
    let mut connections_due: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for connection in connections(context) {
        let at = due.get(&connection.info.session);
        let at = at.copied().unwrap_or(connection.info.established_ms + sessionless_ms);
        connections_due.entry(at).or_default().push(text::dumped_connection(&connection));
    }
    let local = local.as_ref().map(as_text);
    let global = match global {
        GlobalSessions::ByExpiry(expiry) => text::Global::ByExpiry(as_text(&expiry)),
        GlobalSessions::Timeouts(timeouts) => text::Global::Timeouts(timeouts),
    };
    text::dump(local.as_ref(), &global, &ephemerals, &connections_due.into_iter().collect())
}

/// `DigestCommand`: digests of the past, at the same zxids on every member. `quor` has the present one.
fn hash(context: &Context) -> String {
    // Copied, so that nothing is formatted while transactions wait.
    let log: Vec<ZxidDigest> = context.node.read(|db| db.tree.digest_log().collect());
    text::hash(&log)
}

/// `MonitorCommand` with the default metrics provider. What has been parsed for ages comes first:
/// collectd reads 4096 bytes and no more.
fn mntr(context: &Context, standing: Option<&PeerStatus>) -> String {
    let read_only = quorum::is_read_only(context, standing);
    let mode = quorum::mode(standing, read_only);
    let mut text = format!("zk_version\t{BANNER}\nzk_server_state\t{mode}\n");
    if let Some(status) = standing.filter(|_| !read_only) {
        text.push_str(&format!("zk_peer_state\t{}\n", quorum::peer_state(status)));
        if let (PeerState::Observing, Some(master)) = (status.state, status.learner_master) {
            text.push_str(&format!("zk_observer_master_id\t{}\n", master.0));
        }
    }
    metrics::render_mntr(&metrics::collect_as(context, standing), &mut text);
    text
}

/// The sessions of the connections.
struct Sessions(BTreeMap<WatcherId, SessionId>);

impl Sessions {
    fn of(context: &Context) -> Self {
        let clients = context.node.clients();
        Self(clients.iter().map(|client| (client.id, client.info().session)).collect())
    }

    fn get(&self, id: WatcherId) -> Option<SessionId> {
        self.0.get(&id).copied()
    }
}

#[cfg(test)]
mod tests;
