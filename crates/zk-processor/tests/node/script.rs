//! Scenarios as text: one command in a line, and what came of it as lines behind it.
//!
//! ```text
//! config ttl quota             (first, if at all)     open a timeout=9000 session=b
//! a create /x data eph         (a request of a)       a get /x w ; set /x 2   (two that arrive together)
//! a multi create /a 1 | delete /b v=0                 manual, persist 2, auto
//! +3000                        (time passes, in ms)   lose a, log, writes off
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use zk_processor::{Authenticator, NodeConfig};
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::create_mode::{CreateMode, ExtendedTypes};
use zk_proto::data::Stat;
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::proto::{
    AddWatchRequest, AuthPacket, CheckVersionRequest, CheckWatchesRequest, CreateRequest,
    CreateTtlRequest, DeleteRequest, ExistsRequest, GetAclRequest, GetAllChildrenNumberRequest,
    GetChildren2Request, GetChildrenRequest, GetDataRequest, GetEphemeralsRequest, GetSaslRequest,
    ReconfigRequest, RemoveWatchesRequest, SetAclRequest, SetDataRequest, SetSaslResponse,
    SetWatches, SetWatches2, SyncRequest, SyncResponse, WhoAmIResponse,
};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{Buffer, ErrorCode, Field, OpCode, Reader, Record, Request, SessionId, Zxid};

use crate::harness::{Message, START, World, config, connect_request, first_session};

/// `super:super`, as the administrator would configure it.
const SUPER_DIGEST: &str = "super:gG7s8t3oDEtIqF6DM9LlI/R+9Ss=";

/// Runs a script; what it prints.
pub(crate) fn run(script: &str) -> String {
    let mut runner =
        Runner { world: World::new(config()), manual: false, logged: 0, trace: String::new() };
    for line in script.lines() {
        if line.is_empty() || line.starts_with('#') {
            writeln!(runner.trace, "{line}").unwrap();
            continue;
        }
        writeln!(runner.trace, "> {line}").unwrap();
        runner.command(line);
        runner.show();
    }
    runner.world.persist_all();
    runner.world.check();
    runner.trace
}

struct Runner {
    world: World,
    manual: bool,
    logged: usize,
    trace: String,
}

impl Runner {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let arguments = Arguments::new(&words[1..]);
        match words[0] {
            "config" => self.world = World::new(configured(&words[1..])),
            "manual" => self.manual = true,
            "auto" => self.manual = false,
            "persist" => {
                let count = arguments.word(0).map_or(usize::MAX, |word| word.parse().unwrap());
                self.world.persist(count);
            }
            "open" => self.open(&arguments),
            "lose" => self.world.lose(arguments.word(0).expect("a name")),
            "writes" => self.world.node.accept_writes(arguments.word(0) == Some("on")),
            "log" => self.log(),
            "status" => {
                let status = self.world.node.status();
                writeln!(self.trace, "{status:?}").unwrap();
            }
            "watches" => {
                let (summary, count) =
                    self.world.node.read(|db| (db.watches.summary(), db.watches.count()));
                writeln!(self.trace, "{summary:?}, in both tables {count}").unwrap();
            }
            time if time.starts_with('+') => self.world.pass(time[1..].parse().expect("ms")),
            name => self.requests(name, line.trim_start_matches(name).trim()),
        }
        if !self.manual {
            self.world.persist_all();
        }
    }

    fn open(&mut self, arguments: &Arguments<'_>) {
        let name = arguments.word(0).expect("a name");
        let session = match arguments.get("session") {
            None => SessionId(0),
            Some("unknown") => SessionId(first_session().0 + 999),
            Some(other) => self.world.connection(other).session,
        };
        let mut request = connect_request(session);
        if let Some(password) = arguments.get("password") {
            request.password = bytes_of(password);
        }
        if let Some(timeout) = arguments.get("timeout") {
            request.timeout_ms = timeout.parse().unwrap();
        }
        if let Some(seen) = arguments.get("seen") {
            request.last_zxid_seen = Zxid(seen.parse().unwrap());
        }
        if arguments.flag("old") {
            request.read_only = None;
        }
        self.world.open(name, arguments.get("address").unwrap_or("127.0.0.1"));
        if !arguments.flag("silent") {
            self.world.send_frame(name, request.to_bytes());
        }
    }

    fn requests(&mut self, name: &str, text: &str) {
        let mut requests = Vec::new();
        for text in text.split(" ; ") {
            let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
            match words[0] {
                "raw" => {
                    let op = OpCode(words[1].parse().expect("a number"));
                    let body = words.get(2).map_or_else(Vec::new, |hex| unhex(hex));
                    self.world.send_raw(name, op, &body);
                }
                "frame" => {
                    let frame = words.get(1).map_or_else(Vec::new, |hex| unhex(hex));
                    self.world.send_frame(name, frame.into());
                }
                _ => requests.push(request(text)), // an operation's name
            }
        }
        self.world.send_all(name, &requests);
    }

    /// What was proposed since the last time.
    fn log(&mut self) {
        let txns: Vec<&LoggedTxn> =
            self.world.log.iter().chain(self.world.proposed()).skip(self.logged).collect();
        for txn in &txns {
            writeln!(self.trace, "{}", txn_text(txn)).unwrap();
        }
        self.logged += txns.len();
    }

    fn show(&mut self) {
        for name in self.world.names() {
            for message in self.world.take(&name) {
                writeln!(self.trace, "{name}: {}", message_text(&message)).unwrap();
            }
        }
    }
}

struct Arguments<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Arguments<'a> {
    fn new(words: &[&'a str]) -> Self {
        let mut arguments = Self { words: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((name, value))
                    if name.chars().all(|c| c.is_ascii_lowercase()) && !name.is_empty() =>
                {
                    arguments.named.insert(name, value);
                }
                Some(_) | None => arguments.words.push(word),
            }
        }
        arguments
    }

    fn word(&self, at: usize) -> Option<&'a str> {
        self.words.get(at).copied()
    }

    fn flag(&self, name: &str) -> bool {
        self.words.contains(&name)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.get(name).copied()
    }

    fn int(&self, name: &str, default: i32) -> i32 {
        self.get(name).map_or(default, |value| value.parse().expect("a number"))
    }
}

fn configured(words: &[&str]) -> NodeConfig {
    let mut config = config();
    let arguments = Arguments::new(words);
    if arguments.flag("ttl") {
        config.extended_types = ExtendedTypes::Enabled;
    }
    if arguments.flag("ttl353") {
        config.extended_types = ExtendedTypes::Emulate353;
    }
    config.enforce_quota = arguments.flag("quota");
    config.reconfig.enabled = arguments.flag("reconfig");
    config.digest_enabled = !arguments.flag("nodigest");
    let names = |value: &str| value.split(',').map(str::to_owned).collect();
    config.auth = Authenticator {
        skip_acl: arguments.flag("skipacl"),
        digest_enabled: !arguments.flag("nodigestscheme"),
        super_digest: arguments.flag("super").then(|| SUPER_DIGEST.to_owned()),
        ensemble_names: arguments.get("ensemble").map(names),
        ..Authenticator::default()
    };
    config.enforce_auth_schemes = arguments.get("enforce").map_or_else(Vec::new, names);
    config.containers.max_never_used_ms = arguments.int("neverused", 0).into();
    if let Some(max) = arguments.get("perminute") {
        config.containers.max_per_minute = max.parse().unwrap();
    }
    config
}

/// The request that a text stands for.
pub(crate) fn request(text: &str) -> Request {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let rest = text.trim_start().trim_start_matches(words[0]);
    let arguments = Arguments::new(&words[1..]);
    let path = arguments.word(0).map_or_else(String::new, path_of);
    let data = || arguments.word(1).map_or(Some(Bytes::new()), bytes_of);
    let watch = arguments.words.get(1..).is_some_and(|flags| flags.contains(&"w"));
    match words[0] {
        "create" => Request::Create(create(&arguments)),
        "create2" => Request::Create2(create(&arguments)),
        "createContainer" => Request::CreateContainer(CreateRequest {
            flags: arguments.int("flags", 4),
            ..create(&arguments)
        }),
        "createTTL" => Request::CreateTtl(create_ttl(&arguments)),
        "delete" => Request::Delete(DeleteRequest { path, version: arguments.int("v", -1) }),
        "set" => {
            Request::SetData(SetDataRequest { path, data: data(), version: arguments.int("v", -1) })
        }
        "setacl" => Request::SetAcl(SetAclRequest {
            path,
            acl: acl_of(arguments.get("acl").unwrap_or("open")),
            version: arguments.int("v", -1),
        }),
        "exists" => Request::Exists(ExistsRequest { path, watch }),
        "get" => Request::GetData(GetDataRequest { path, watch }),
        "getacl" => Request::GetAcl(GetAclRequest { path }),
        "ls" => Request::GetChildren(GetChildrenRequest { path, watch }),
        "ls2" => Request::GetChildren2(GetChildren2Request { path, watch }),
        "count" => Request::GetAllChildrenNumber(GetAllChildrenNumberRequest { path }),
        "sync" => Request::Sync(SyncRequest { path: Some(path) }),
        "ping" => Request::Ping,
        "close" => Request::CloseSession,
        "whoami" => Request::WhoAmI,
        "ephemerals" => {
            let prefix_path = arguments.word(0).map(path_of);
            Request::GetEphemerals(GetEphemeralsRequest { prefix_path })
        }
        "auth" => Request::Auth(AuthPacket { auth_type: 0, scheme: path, auth: data() }),
        "sasl" => {
            Request::Sasl(GetSaslRequest { token: bytes_of(arguments.word(0).unwrap_or("\"\"")) })
        }
        "addwatch" => Request::AddWatch(AddWatchRequest {
            path,
            mode: match arguments.word(1) {
                Some("persistent") => 0,
                Some("recursive") => 1,
                _ => arguments.int("mode", -1), // one that there is not
            },
        }),
        "checkwatch" => Request::CheckWatches(CheckWatchesRequest {
            path,
            watcher_type: watcher_type(arguments.word(1)),
        }),
        "rmwatch" => Request::RemoveWatches(RemoveWatchesRequest {
            path,
            watcher_type: watcher_type(arguments.word(1)),
        }),
        "setwatches" => set_watches(&arguments),
        "multi" => Request::Multi(MultiRequest::Write(
            parts(rest).map(|part| multi_op(&request(part))).collect(),
        )),
        "multiread" => Request::MultiRead(MultiRequest::Read(
            parts(rest).map(|part| multi_read_op(request(part))).collect(),
        )),
        // Within a multi; stands in for an operation that is no request of its own.
        "check" => Request::CheckWatches(CheckWatchesRequest {
            path,
            watcher_type: arguments.int("v", -1),
        }),
        "reconfig" => Request::Reconfig(ReconfigRequest {
            joining_servers: Some("server.2=h:1:2;3".into()),
            leaving_servers: None,
            new_members: None,
            cur_config_id: -1,
        }),
        other => panic!("no operation {other}"),
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(" | ").map(str::trim).filter(|part| !part.is_empty())
}

fn multi_op(request: &Request) -> MultiOp {
    match request.clone() {
        Request::Create(request) => MultiOp::Create { op: OpCode::CREATE, request },
        Request::Create2(request) => MultiOp::Create { op: OpCode::CREATE2, request },
        Request::CreateContainer(request) => {
            MultiOp::Create { op: OpCode::CREATE_CONTAINER, request }
        }
        Request::CreateTtl(request) => MultiOp::CreateTtl(request),
        Request::Delete(request) => MultiOp::Delete(request),
        Request::SetData(request) => MultiOp::SetData(request),
        // Stands for a check, which is no request of its own.
        Request::CheckWatches(CheckWatchesRequest { path, watcher_type }) => {
            MultiOp::Check(CheckVersionRequest { path, version: watcher_type })
        }
        other => panic!("{other:?} within a multi"),
    }
}

fn multi_read_op(request: Request) -> MultiReadOp {
    match request {
        Request::GetData(request) => MultiReadOp::GetData(request),
        Request::GetChildren(request) => MultiReadOp::GetChildren(request),
        other => panic!("{other:?} within a multiRead"),
    }
}

/// A path; `%00` stands for a byte that a script cannot hold, `""` for nothing.
fn path_of(word: &str) -> String {
    if word == "\"\"" { String::new() } else { word.replace("%00", "\0").replace("%01", "\u{1}") }
}

fn bytes_of(word: &str) -> Buffer {
    match word {
        "null" => None,
        "\"\"" => Some(Bytes::new()),
        _ if word.starts_with('\'') => Some(Bytes::copy_from_slice(&word.as_bytes()[1..])), // has a `=`
        _ => match word.strip_prefix('*').map(str::parse) {
            Some(Ok(len)) => Some(vec![b'x'; len].into()), // so many bytes
            Some(Err(_)) | None => Some(Bytes::copy_from_slice(word.as_bytes())),
        },
    }
}

fn create(arguments: &Arguments<'_>) -> CreateRequest {
    let mode = match arguments.words.get(1..).and_then(|words| words.last()) {
        Some(&"eph") => CreateMode::Ephemeral,
        Some(&"seq") => CreateMode::PersistentSequential,
        Some(&"ephseq") => CreateMode::EphemeralSequential,
        Some(_) | None => CreateMode::Persistent,
    };
    CreateRequest {
        path: arguments.word(0).map_or_else(String::new, path_of),
        data: match arguments.word(1) {
            None | Some("eph" | "seq" | "ephseq") => Some(Bytes::new()),
            Some(word) => bytes_of(word),
        },
        acl: acl_of(arguments.get("acl").unwrap_or("open")),
        flags: arguments.int("flags", mode.flag()),
    }
}

fn create_ttl(arguments: &Arguments<'_>) -> CreateTtlRequest {
    let sequential = arguments.words.last() == Some(&"seq");
    let CreateRequest { path, data, acl, .. } = create(arguments);
    let flags = arguments.int("flags", if sequential { 6 } else { 5 });
    let ttl = arguments.get("ttl").map_or(1000, |ttl| ttl.parse().unwrap());
    CreateTtlRequest { path, data, acl, flags, ttl }
}

/// `open`, `creator`, `none`, or entries like `rw,digest:u:hash` with a `+` between them.
fn acl_of(text: &str) -> Vec<Acl> {
    match text {
        "open" => Acl::open(),
        "creator" => Acl::creator_all(),
        "none" => Vec::new(),
        _ => text
            .split('+')
            .map(|entry| {
                let (perms, id) = entry.split_once(',').expect("perms,scheme:id");
                let (scheme, id) = id.split_once(':').expect("scheme:id");
                let bits = perms.chars().map(|c| 1 << "rwcda".find(c).expect("one of rwcda"));
                Acl { perms: Perms(bits.sum()), id: Id::new(scheme, id) }
            })
            .collect(),
    }
}

fn watcher_type(word: Option<&str>) -> i32 {
    match word {
        Some("children") => 1,
        Some("data") => 2,
        Some("any") => 3,
        Some("persistent") => 4,
        Some("recursive") => 5,
        Some(number) => number.trim_start_matches("v=").parse().expect("a type"),
        None => 0,
    }
}

fn set_watches(arguments: &Arguments<'_>) -> Request {
    let list = |name| {
        let paths = arguments.get(name).unwrap_or_default().split(',');
        paths.filter(|path| !path.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let relative_zxid = Zxid(arguments.get("zxid").map_or(0, |zxid| zxid.parse().unwrap()));
    let (data_watches, exist_watches, child_watches) = (list("data"), list("exist"), list("child"));
    if arguments.get("persistent").is_none() && arguments.get("recursive").is_none() {
        return Request::SetWatches(SetWatches {
            relative_zxid,
            data_watches,
            exist_watches,
            child_watches,
        });
    }
    Request::SetWatches2(SetWatches2 {
        relative_zxid,
        data_watches,
        exist_watches,
        child_watches,
        persistent_watches: list("persistent"),
        persistent_recursive_watches: list("recursive"),
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).expect("hex")).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Sessions are counted from the first one that the server makes.
fn session_text(id: SessionId) -> String {
    match id.0 - first_session().0 {
        number @ 0..1000 => format!("s{}", number + 1),
        _ => id.to_string(), // none of this server's
    }
}

fn data_text(data: Option<&[u8]>) -> String {
    match data {
        None => "null".to_owned(),
        Some(data) if data.len() > 80 => format!("{} bytes", data.len()),
        Some(data) => format!("{:?}", String::from_utf8_lossy(data)),
    }
}

fn stat_text(stat: &Stat) -> String {
    let Stat { czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, .. } = stat;
    let (created, modified) = (ctime - START.wall_ms, mtime - START.wall_ms);
    let time = |ms: i64| if ms < 0 { "before".to_owned() } else { format!("+{ms}") };
    let mut text = format!(
        "{{c{czxid} m{mzxid} p{pzxid} v{version} cv{cversion} av{aversion} {}/{} len{} kids{}",
        time(created),
        time(modified),
        stat.data_length,
        stat.num_children
    );
    if stat.ephemeral_owner != 0 {
        write!(text, " owner {}", session_text(SessionId(stat.ephemeral_owner))).unwrap();
    }
    text + "}"
}

fn acl_text(acl: &[Acl]) -> String {
    let entry = |acl: &Acl| {
        let perms = (0..5).filter(|bit| acl.perms.0 & (1 << bit) != 0);
        let perms: String = perms.filter_map(|bit| "rwcda".chars().nth(bit)).collect();
        format!("{perms},{}:{}", acl.id.scheme, acl.id.id)
    };
    acl.iter().map(entry).collect::<Vec<_>>().join(" + ")
}

fn err_text(err: ErrorCode) -> String {
    err.name().map_or_else(|| err.0.to_string(), str::to_owned)
}

pub(crate) fn message_text(message: &Message) -> String {
    match message {
        Message::Connected(response) => format!(
            "connected to {} for {} ms{}",
            session_text(response.session_id),
            response.timeout_ms,
            if response.read_only.is_some() { "" } else { ", as an old client" }
        ),
        Message::Expired(response) => {
            format!(
                "session expired{}",
                if response.timeout_ms == 0 { "" } else { " with a timeout" }
            )
        }
        Message::Event { zxid, event } => {
            let names =
                ["", "NodeCreated", "NodeDeleted", "NodeDataChanged", "NodeChildrenChanged"];
            assert_eq!(event.state, 3);
            let name = names[usize::try_from(event.event_type).unwrap()];
            format!("event {name} {} z{}", event.path, zxid.0)
        }
        Message::Reply { op, header, body } => {
            let number = header.xid.0;
            let err = err_text(header.err);
            let mut text = format!("#{number} {err} z{}", header.zxid.0);
            if header.err == ErrorCode::OK {
                let body = body_text(*op, body);
                if !body.is_empty() {
                    write!(text, " {body}").unwrap();
                }
            } else {
                assert!(body.is_empty(), "a body behind an error");
            }
            text
        }
        Message::Closed => "closed".to_owned(),
        Message::Refused(why) => format!("closed: {why}"),
    }
}

fn body_text(op: OpCode, body: &Bytes) -> String {
    let mut reader = Reader::new(body);
    let text = read_body(op, &mut reader);
    assert_eq!(reader.remaining(), 0, "bytes behind the reply to {op}");
    text
}

fn names_text(mut names: Vec<String>) -> String {
    names.sort();
    format!("[{}]", names.join(" "))
}

fn read_body(op: OpCode, reader: &mut Reader<'_>) -> String {
    let path = |reader: &mut Reader<'_>| reader.string("path").unwrap().expect("a path");
    let stat = |reader: &mut Reader<'_>| stat_text(&Stat::parse(reader).unwrap());
    match op {
        OpCode::CREATE => path(reader),
        OpCode::CREATE2 | OpCode::CREATE_CONTAINER | OpCode::CREATE_TTL => {
            let path = path(reader);
            format!("{path} {}", stat(reader))
        }
        OpCode::SET_DATA | OpCode::SET_ACL | OpCode::EXISTS => stat(reader),
        OpCode::GET_DATA => {
            let data = data_text(reader.buffer("data").unwrap().as_deref());
            format!("{data} {}", stat(reader))
        }
        OpCode::GET_ACL => {
            let acl = acl_text(&Vec::<Acl>::parse_field(reader, "acl").unwrap());
            format!("{acl} {}", stat(reader))
        }
        OpCode::GET_CHILDREN => names_text(Field::parse_field(reader, "children").unwrap()),
        OpCode::GET_CHILDREN2 => {
            let names = names_text(Field::parse_field(reader, "children").unwrap());
            format!("{names} {}", stat(reader))
        }
        OpCode::GET_ALL_CHILDREN_NUMBER => reader.int("number").unwrap().to_string(),
        OpCode::GET_EPHEMERALS => names_text(Field::parse_field(reader, "ephemerals").unwrap()),
        OpCode::SYNC => format!("{:?}", SyncResponse::parse(reader).unwrap().path.unwrap()),
        OpCode::ADD_WATCH => format!("body {}", reader.int("err").unwrap()),
        OpCode::WHO_AM_I => {
            let who = WhoAmIResponse::parse(reader).unwrap().client_info;
            let who = who.iter().map(|info| format!("{}:{}", info.auth_scheme, info.user));
            format!("[{}]", who.collect::<Vec<_>>().join(" "))
        }
        OpCode::SASL => data_text(SetSaslResponse::parse(reader).unwrap().token.as_deref()),
        OpCode::MULTI | OpCode::MULTI_READ => {
            let results = MultiResponse::parse(reader).unwrap().0;
            let results = results.iter().map(result_text).collect::<Vec<_>>().join(" | ");
            format!("<{results}>")
        }
        _ => String::new(), // a header alone
    }
}

fn result_text(result: &MultiResult) -> String {
    match result {
        MultiResult::Create(path) => format!("create {path}"),
        MultiResult::Create2(path, stat) => format!("create2 {path} {}", stat_text(stat)),
        MultiResult::Delete => "delete".to_owned(),
        MultiResult::Check => "check".to_owned(),
        MultiResult::SetData(stat) => format!("set {}", stat_text(stat)),
        MultiResult::GetData(data, stat) => {
            format!("{} {}", data_text(data.as_deref()), stat_text(stat))
        }
        MultiResult::GetChildren(names) => names_text(names.clone()),
        MultiResult::Error(err) => err_text(*err),
    }
}

fn txn_text(txn: &LoggedTxn) -> String {
    let header = &txn.header;
    format!(
        "z{} {} {} of {}#{}",
        header.zxid.0,
        header.op,
        sub_txn_text(&txn.txn),
        session_text(header.client_id),
        header.cxid.0
    )
}

fn sub_txn_text(txn: &Txn) -> String {
    match txn {
        Txn::CreateSession(txn) => format!("{} ms", txn.timeout_ms),
        Txn::CloseSession(None) => "without a list".to_owned(),
        Txn::CloseSession(Some(txn)) => format!("[{}]", txn.paths_to_delete.join(" ")),
        Txn::Error(txn) => err_text(txn.err),
        Txn::Create(txn) => format!(
            "{} {} {}{} parent cv{}",
            txn.path,
            data_text(txn.data.as_deref()),
            acl_text(&txn.acl),
            if txn.ephemeral { " ephemeral" } else { "" },
            txn.parent_cversion
        ),
        Txn::CreateContainer(txn) => format!("{} parent cv{}", txn.path, txn.parent_cversion),
        Txn::CreateTtl(txn) => {
            format!("{} {} ms parent cv{}", txn.path, txn.ttl, txn.parent_cversion)
        }
        Txn::Delete(txn) => txn.path.clone(),
        Txn::SetData(txn) => {
            format!("{} {} v{}", txn.path, data_text(txn.data.as_deref()), txn.version)
        }
        Txn::SetAcl(txn) => format!("{} {} av{}", txn.path, acl_text(&txn.acl), txn.version),
        Txn::Check(txn) => format!("{} v{}", txn.path, txn.version),
        Txn::Multi(txns) => {
            let txns = txns.iter().map(|(op, txn)| format!("{op} {}", sub_txn_text(txn)));
            format!("<{}>", txns.collect::<Vec<_>>().join(" | "))
        }
    }
}

/// The bytes of a request's body.
pub(crate) fn body_of(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    request.encode(&mut out);
    out.freeze()
}
