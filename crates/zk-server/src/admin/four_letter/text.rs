//! The words' answers as text, out of what was gathered: pure functions.
//!
//! Java's classes decide every byte of it; each function names its own.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};

use zk_processor::ClientInfo;
use zk_proto::{OpCode, SessionId};
use zk_tree::{WatchesSummary, ZxidDigest};

/// The lines of `text`, built up by `write!`, which cannot fail on a string.
macro_rules! line {
    ($text:expr) => { $text.push('\n') };
    ($text:expr, $($arg:tt)*) => {{
        // Writing into memory cannot fail.
        let _written = writeln!($text, $($arg)*);
    }};
}

/// What `srvr` and `stat` tell about the server.
#[derive(Debug, Clone)]
pub(super) struct ServerSummary {
    pub(super) version: &'static str,
    pub(super) min_latency_ms: u64,
    pub(super) avg_latency_ms: f64,
    pub(super) max_latency_ms: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) connections: usize,
    pub(super) outstanding: usize,
    pub(super) zxid: i64,
    pub(super) mode: &'static str,
    pub(super) read_only: bool,
    pub(super) node_count: usize,
    /// Last, least and most bytes of a leader's proposals.
    pub(super) proposal_sizes: Option<[i64; 3]>,
}

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) info: ClientInfo,
}

/// `StatCommand`: `srvr`, and with connections `stat`.
pub(super) fn server(summary: &ServerSummary, connections: Option<&[Connection]>) -> String {
    let ServerSummary { version, min_latency_ms, avg_latency_ms, max_latency_ms, .. } = summary;
    let mut text = String::new();
    line!(text, "Zookeeper version: {version}");
    if summary.read_only {
        line!(text, "READ-ONLY mode; serving only read-only clients");
    }
    if let Some(connections) = connections {
        line!(text, "Clients:");
        for connection in connections {
            connection_line(&mut text, connection, false);
        }
        line!(text);
    }
    line!(
        text,
        "Latency min/avg/max: {min_latency_ms}/{}/{max_latency_ms}",
        Double(*avg_latency_ms)
    );
    line!(text, "Received: {}", summary.received);
    line!(text, "Sent: {}", summary.sent);
    line!(text, "Connections: {}", summary.connections);
    line!(text, "Outstanding: {}", summary.outstanding);
    line!(text, "Zxid: 0x{:x}", summary.zxid);
    line!(text, "Mode: {}", summary.mode);
    line!(text, "Node count: {}", summary.node_count);
    if let Some([last, min, max]) = summary.proposal_sizes {
        line!(text, "Proposal sizes last/min/max: {last}/{min}/{max}");
    }
    text
}

/// `ConsCommand`.
pub(super) fn cons(connections: &[Connection]) -> String {
    let mut text = String::new();
    for connection in connections {
        connection_line(&mut text, connection, true);
    }
    line!(text);
    text
}

/// `ServerCnxn.dumpConnectionInfo`. The number in brackets is what the selector waits for, 1 for
/// something to read; upstream has taken out whoever sends a four-letter word.
fn connection_line(text: &mut String, Connection { peer, info }: &Connection, detailed: bool) {
    let has_session = info.session != SessionId(0);
    let mut line = format!(
        " {}[{}](queued={},recved={},sent={}",
        Peer(*peer),
        u8::from(has_session),
        info.queued,
        info.received,
        info.sent
    );
    if detailed && has_session {
        let mut field = |name: &str, value: &dyn Display| {
            line.push(',');
            line.push_str(name);
            line.push('=');
            line.push_str(&value.to_string());
        };
        field("sid", &Hex(info.session.0));
        field("lop", &last_operation(info.last_op));
        field("est", &info.established_ms);
        field("to", &info.timeout_ms);
        if info.last_cxid >= 0 {
            field("lcxid", &Hex(info.last_cxid.into()));
        }
        field("lzxid", &Hex(info.last_zxid.0));
        field("lresp", &info.last_response_ms);
        field("llat", &info.last_latency_ms);
        field("minlat", &info.min_latency_ms);
        field("avglat", &info.total_latency_ms.checked_div(info.latency_count).unwrap_or_default());
        field("maxlat", &info.max_latency_ms);
    }
    line!(text, "{line})");
}

/// The abbreviations of `FinalRequestProcessor`.
fn last_operation(op: Option<OpCode>) -> &'static str {
    const CODES: [(OpCode, &str); 29] = [
        (OpCode::CREATE_SESSION, "SESS"),
        (OpCode::CLOSE_SESSION, "CLOS"),
        (OpCode::PING, "PING"),
        (OpCode::MULTI, "MULT"),
        (OpCode::MULTI_READ, "MLTR"),
        (OpCode::CREATE, "CREA"),
        (OpCode::CREATE2, "CREA"),
        (OpCode::CREATE_TTL, "CREA"),
        (OpCode::CREATE_CONTAINER, "CREA"),
        (OpCode::DELETE, "DELE"),
        (OpCode::DELETE_CONTAINER, "DELE"),
        (OpCode::SET_DATA, "SETD"),
        (OpCode::RECONFIG, "RECO"),
        (OpCode::SET_ACL, "SETA"),
        (OpCode::SYNC, "SYNC"),
        (OpCode::CHECK, "CHEC"),
        (OpCode::EXISTS, "EXIS"),
        (OpCode::GET_DATA, "GETD"),
        (OpCode::SET_WATCHES, "SETW"),
        (OpCode::SET_WATCHES2, "STW2"),
        (OpCode::ADD_WATCH, "ADDW"),
        (OpCode::GET_ACL, "GETA"),
        (OpCode::GET_CHILDREN, "GETC"),
        (OpCode::GET_CHILDREN2, "GETC"),
        (OpCode::GET_ALL_CHILDREN_NUMBER, "GETACN"),
        (OpCode::CHECK_WATCHES, "CHKW"),
        (OpCode::REMOVE_WATCHES, "REMW"),
        (OpCode::WHO_AM_I, "HOMI"),
        (OpCode::GET_EPHEMERALS, "GETE"),
    ];
    CODES.iter().find(|(code, _)| Some(*code) == op).map_or("NA", |(_, text)| text)
}

/// What `conf` tells.
#[derive(Debug, Clone)]
pub(super) struct Conf {
    pub(super) client_port: i32,
    pub(super) secure_client_port: i32,
    pub(super) data_dir: String,
    pub(super) data_dir_bytes: u64,
    pub(super) data_log_dir: String,
    pub(super) data_log_bytes: u64,
    pub(super) tick_time_ms: u32,
    pub(super) max_client_cnxns: u32,
    pub(super) min_session_timeout_ms: u32,
    pub(super) max_session_timeout_ms: u32,
    pub(super) backlog: i64,
    pub(super) server_id: u64,
    /// What a member adds.
    pub(super) member: Option<MemberConf>,
}

/// What `conf` tells of a member of an ensemble.
#[derive(Debug, Clone)]
pub(super) struct MemberConf {
    pub(super) init_limit: u32,
    pub(super) sync_limit: u32,
    pub(super) election_port: u16,
    pub(super) quorum_port: u16,
    pub(super) observer: bool,
    /// A read-only server has none to tell (`ReadOnlyZooKeeperServer.dumpConf`).
    pub(super) membership: Option<String>,
}

/// `ZooKeeperServer.dumpConf`, and of a member `QuorumZooKeeperServer.dumpConf`.
pub(super) fn conf(conf: &Conf) -> String {
    let mut text = String::new();
    line!(text, "clientPort={}", conf.client_port);
    line!(text, "secureClientPort={}", conf.secure_client_port);
    line!(text, "dataDir={}", conf.data_dir);
    line!(text, "dataDirSize={}", conf.data_dir_bytes);
    line!(text, "dataLogDir={}", conf.data_log_dir);
    line!(text, "dataLogSize={}", conf.data_log_bytes);
    line!(text, "tickTime={}", conf.tick_time_ms);
    line!(text, "maxClientCnxns={}", conf.max_client_cnxns);
    line!(text, "minSessionTimeout={}", conf.min_session_timeout_ms);
    line!(text, "maxSessionTimeout={}", conf.max_session_timeout_ms);
    line!(text, "clientPortListenBacklog={}", conf.backlog);
    line!(text, "serverId={}", conf.server_id);
    if let Some(member) = &conf.member {
        line!(text, "initLimit={}", member.init_limit);
        line!(text, "syncLimit={}", member.sync_limit);
        line!(text, "electionAlg=3");
        line!(text, "electionPort={}", member.election_port);
        line!(text, "quorumPort={}", member.quorum_port);
        line!(text, "peerType={}", u8::from(member.observer));
        if let Some(membership) = &member.membership {
            line!(text, "membership: ");
            text.push_str(membership);
        }
    }
    text
}

/// `EnvCommand`.
pub(super) fn envi(entries: &[(&str, String)]) -> String {
    let mut text = String::from("Environment:\n");
    for (key, value) in entries {
        line!(text, "{key}={value}");
    }
    text
}

/// What expires when: a moment in ms of the wall clock, and what it is called.
pub(super) type Buckets = Vec<(i64, Vec<String>)>;

/// Sessions that all servers know.
pub(super) enum Global {
    /// A leader's.
    ByExpiry(Buckets),
    /// A learner's, with timeouts in ms.
    Timeouts(BTreeMap<SessionId, i32>),
}

/// `DumpCommand`: sessions and connections by the moment of their expiry, ephemerals by session.
pub(super) fn dump(
    local: Option<&Buckets>,
    global: &Global,
    ephemerals: &[(SessionId, Vec<String>)],
    connections: &Buckets,
) -> String {
    let mut text = String::from("SessionTracker dump:\n");
    // `LeaderSessionTracker.dumpSessions`, `LearnerSessionTracker.dumpSessions`
    if let Some(local) = local {
        buckets(&mut text, "Local Session", local);
    }
    match global {
        Global::ByExpiry(sessions) if local.is_some() => {
            buckets(&mut text, "Global Session", sessions);
        }
        Global::ByExpiry(sessions) => buckets(&mut text, "Session", sessions),
        Global::Timeouts(sessions) => {
            line!(text, "Global Sessions({}):", sessions.len());
            for (session, timeout_ms) in sessions {
                line!(text, "{}\t{timeout_ms}ms", Hex(session.0));
            }
        }
    }
    line!(text, "ephemeral nodes dump:");
    line!(text, "Sessions with Ephemerals ({}):", ephemerals.len());
    for (session, paths) in ephemerals {
        line!(text, "{}:", Hex(session.0));
        for path in paths {
            line!(text, "\t{path}");
        }
    }
    line!(text, "Connections dump:");
    buckets(&mut text, "Connections", connections);
    text
}

/// `ExpiryQueue.dump`.
fn buckets(text: &mut String, what: &str, buckets: &Buckets) {
    let elements: usize = buckets.iter().map(|(_, elements)| elements.len()).sum();
    line!(text, "{what} Sets ({})/({elements}):", buckets.len());
    for (at_ms, elements) in buckets {
        line!(text, "{} expire at {}:", elements.len(), Date(*at_ms));
        for element in elements {
            line!(text, "\t{element}");
        }
    }
}

/// A connection in `dump` (`NIOServerCnxn.toString`).
pub(super) fn dumped_connection(Connection { peer, info }: &Connection) -> String {
    format!("ip: {} sessionId: {}", Peer(*peer), Hex(info.session.0))
}

/// `DigestCommand`: both numbers as Java prints a `long`, signed in decimal and unsigned in hexadecimal.
pub(super) fn hash(log: &[ZxidDigest]) -> String {
    let mut text = String::new();
    for ZxidDigest { zxid, digest } in log {
        line!(text, "{:x}: {}", zxid.0, digest.cast_signed());
    }
    text
}

/// `WatchCommand`, `wchs`: the watches on data.
pub(super) fn wchs(summary: WatchesSummary) -> String {
    let WatchesSummary { connections, paths, watches } = summary;
    format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
}

/// `wchc`: paths by session.
pub(super) fn wchc(watchers: &[(SessionId, Vec<String>)]) -> String {
    let mut text = String::new();
    for (session, paths) in watchers {
        line!(text, "{}", Hex(session.0));
        for path in paths {
            line!(text, "\t{path}");
        }
    }
    line!(text);
    text
}

/// `wchp`: sessions by path.
pub(super) fn wchp(paths: &[(String, Vec<SessionId>)]) -> String {
    let mut text = String::new();
    for (path, sessions) in paths {
        line!(text, "{path}");
        for session in sessions {
            line!(text, "\t{}", Hex(session.0));
        }
    }
    line!(text);
    text
}

/// `Long.toHexString` behind `0x`.
struct Hex(i64);

impl Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A double, with at least one digit behind the point.
pub(crate) struct Double(pub(crate) f64);

impl Display for Double {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// An address as Java's `InetSocketAddress` shows one without a name: every group of an IPv6 address
/// is spelled out.
struct Peer(SocketAddr);

impl Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = self.0.port();
        match self.0.ip().to_canonical() {
            IpAddr::V4(ip) => write!(f, "/{ip}:{port}"),
            IpAddr::V6(ip) => {
                let groups = ip.segments().map(|group| format!("{group:x}")).join(":");
                write!(f, "/[{groups}]:{port}")
            }
        }
    }
}

/// A moment in ms since 1970 as Java's `Date` shows it, in UTC.
struct Date(i64);

impl Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        const DAYS_IN_400_YEARS: i64 = 146_097;
        let seconds = self.0.div_euclid(1000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let weekday = usize::try_from(days.rem_euclid(7)).unwrap_or_default();
        // Years that begin in March have their leap day last: then months follow a formula.
        let since_march_0 = days + 719_468;
        let era = since_march_0.div_euclid(DAYS_IN_400_YEARS);
        let day_of_era = since_march_0.rem_euclid(DAYS_IN_400_YEARS);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_since_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
        let month = usize::try_from((months_since_march + 2) % 12).unwrap_or_default();
        let year = era * 400 + year_of_era + i64::from(month < 2);
        write!(
            f,
            "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
            WEEKDAYS.get(weekday).unwrap_or(&""),
            MONTHS.get(month).unwrap_or(&""),
            second / 3600,
            second / 60 % 60,
            second % 60,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zk_proto::Zxid;

    fn info() -> ClientInfo {
        ClientInfo {
            session: SessionId(0x0100_0000_0000_0001),
            timeout_ms: 30_000,
            queued: 2,
            received: 7,
            sent: 6,
            established_ms: 1_700_000_000_123,
            last_op: Some(OpCode::GET_DATA),
            last_cxid: 10,
            last_zxid: Zxid(0x1f),
            last_response_ms: 4711,
            last_latency_ms: 1,
            min_latency_ms: 0,
            max_latency_ms: 9,
            total_latency_ms: 13,
            latency_count: 6,
        }
    }

    fn connection(peer: &str, info: ClientInfo) -> Connection {
        Connection { peer: peer.parse().unwrap(), info }
    }

    fn asking() -> Connection {
        let fresh = ClientInfo { session: SessionId(0), queued: 0, received: 0, sent: 0, ..info() };
        connection("[::1]:5000", fresh)
    }

    fn summary() -> ServerSummary {
        ServerSummary {
            version: "3.9.5-x, built on 11/22/2026 00:00 UTC",
            min_latency_ms: 0,
            avg_latency_ms: 0.25,
            max_latency_ms: 5,
            received: 11,
            sent: 10,
            connections: 2,
            outstanding: 1,
            zxid: 0x1_0000_002a,
            mode: "standalone",
            read_only: false,
            node_count: 5,
            proposal_sizes: None,
        }
    }

    const SERVER: &str = "Latency min/avg/max: 0/0.25/5\nReceived: 11\nSent: 10\nConnections: 2\n\
        Outstanding: 1\nZxid: 0x10000002a\nMode: standalone\nNode count: 5\n";

    #[test]
    fn srvr_and_stat() {
        let version = "Zookeeper version: 3.9.5-x, built on 11/22/2026 00:00 UTC\n";
        assert_eq!(server(&summary(), None), format!("{version}{SERVER}"));
        let connections = [connection("127.0.0.1:4000", info()), asking()];
        assert_eq!(
            server(&summary(), Some(&connections)),
            format!(
                "{version}Clients:\n /127.0.0.1:4000[1](queued=2,recved=7,sent=6)\n \
                 /[0:0:0:0:0:0:0:1]:5000[0](queued=0,recved=0,sent=0)\n\n{SERVER}"
            )
        );
    }

    #[test]
    fn a_leader_tells_what_it_proposed() {
        let leader =
            ServerSummary { mode: "leader", proposal_sizes: Some([48, 48, 91]), ..summary() };
        let text = server(&leader, None);
        let end = "Mode: leader\nNode count: 5\nProposal sizes last/min/max: 48/48/91\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn cons_in_detail() {
        let never = ClientInfo { last_op: None, last_cxid: -1, latency_count: 0, ..info() };
        // As a socket of both families sees a client of the older one.
        let connections = [
            connection("127.0.0.1:4000", info()),
            connection("[::ffff:10.0.0.1]:4001", never),
            asking(),
        ];
        assert_eq!(
            cons(&connections),
            " /127.0.0.1:4000[1](queued=2,recved=7,sent=6,sid=0x100000000000001,lop=GETD,\
             est=1700000000123,to=30000,lcxid=0xa,lzxid=0x1f,lresp=4711,llat=1,minlat=0,avglat=2,\
             maxlat=9)\n \
             /10.0.0.1:4001[1](queued=2,recved=7,sent=6,sid=0x100000000000001,lop=NA,\
             est=1700000000123,to=30000,lzxid=0x1f,lresp=4711,llat=1,minlat=0,avglat=0,maxlat=9)\n \
             /[0:0:0:0:0:0:0:1]:5000[0](queued=0,recved=0,sent=0)\n\n"
        );
        assert_eq!(cons(&[]), "\n");
    }

    #[test]
    fn the_configuration() {
        let alone = Conf {
            client_port: 2181,
            secure_client_port: -1,
            data_dir: "/data".into(),
            data_dir_bytes: 100,
            data_log_dir: "/log".into(),
            data_log_bytes: 200,
            tick_time_ms: 2000,
            max_client_cnxns: 60,
            min_session_timeout_ms: 4000,
            max_session_timeout_ms: 40_000,
            backlog: -1,
            server_id: 0,
            member: None,
        };
        let text = conf(&alone);
        assert_eq!(
            text,
            "clientPort=2181\nsecureClientPort=-1\ndataDir=/data\ndataDirSize=100\n\
             dataLogDir=/log\ndataLogSize=200\ntickTime=2000\nmaxClientCnxns=60\n\
             minSessionTimeout=4000\nmaxSessionTimeout=40000\nclientPortListenBacklog=-1\n\
             serverId=0\n"
        );
        let membership = "server.1=a:2888:3888:participant\nversion=0";
        let member = MemberConf {
            init_limit: 10,
            sync_limit: 5,
            election_port: 3888,
            quorum_port: 2888,
            observer: true,
            membership: Some(membership.into()),
        };
        let member = conf(&Conf { member: Some(member), ..alone });
        assert_eq!(
            member.strip_prefix(&text).unwrap(),
            format!(
                "initLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3888\nquorumPort=2888\n\
                 peerType=1\nmembership: \n{membership}"
            )
        );
    }

    #[test]
    fn the_environment() {
        let text = envi(&[("zookeeper.version", "3.9.5-x".into()), ("user.name", "a b".into())]);
        assert_eq!(text, "Environment:\nzookeeper.version=3.9.5-x\nuser.name=a b\n");
    }

    #[test]
    fn dumps() {
        let id = |id: i64| SessionId(id);
        let connections = vec![(1_700_000_010_000, vec![dumped_connection(&asking())])];
        let text = dump(
            None,
            &Global::ByExpiry(vec![
                (1_700_000_000_000, vec!["0x1".into(), "0x2".into()]),
                (1_700_000_002_000, vec!["0x3".into()]),
            ]),
            &[(id(1), vec!["/a".into(), "/b".into()]), (id(-1), vec!["/c".into()])],
            &connections,
        );
        assert_eq!(
            text,
            "SessionTracker dump:\nSession Sets (2)/(3):\n\
             2 expire at Tue Nov 14 22:13:20 UTC 2023:\n\t0x1\n\t0x2\n\
             1 expire at Tue Nov 14 22:13:22 UTC 2023:\n\t0x3\n\
             ephemeral nodes dump:\nSessions with Ephemerals (2):\n0x1:\n\t/a\n\t/b\n\
             0xffffffffffffffff:\n\t/c\nConnections dump:\nConnections Sets (1)/(1):\n\
             1 expire at Tue Nov 14 22:13:30 UTC 2023:\n\
             \tip: /[0:0:0:0:0:0:0:1]:5000 sessionId: 0x0\n"
        );
    }

    #[test]
    fn watches() {
        let summary = WatchesSummary { connections: 1, paths: 2, watches: 3 };
        assert_eq!(wchs(summary), "1 connections watching 2 paths\nTotal watches:3\n");
        let id = SessionId(0xab);
        assert_eq!(wchc(&[(id, vec!["/a".into(), "/b".into()])]), "0xab\n\t/a\n\t/b\n\n");
        assert_eq!(wchp(&[("/a".into(), vec![id, id])]), "/a\n\t0xab\n\t0xab\n\n");
        assert_eq!((wchc(&[]), wchp(&[])), ("\n".into(), "\n".into()));
    }

    #[test]
    fn dates_are_java_s() {
        for (ms, text) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (-1, "Wed Dec 31 23:59:59 UTC 1969"),
            (951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000"),
            (951_868_800_000, "Wed Mar 01 00:00:00 UTC 2000"),
            (1_735_689_599_999, "Tue Dec 31 23:59:59 UTC 2024"),
            (4_107_542_400_000, "Mon Mar 01 00:00:00 UTC 2100"),
        ] {
            assert_eq!(Date(ms).to_string(), text);
        }
    }

    #[test]
    fn every_operation_has_its_abbreviation() {
        assert_eq!(last_operation(Some(OpCode::CREATE_TTL)), "CREA");
        assert_eq!(last_operation(Some(OpCode::GET_EPHEMERALS)), "GETE");
        assert_eq!(last_operation(Some(OpCode::AUTH)), "NA");
        assert_eq!(last_operation(Some(OpCode(12_345))), "NA");
    }
}
