//! The plan: a pure function over the texts of the operator's files.

use std::collections::{BTreeMap, BTreeSet};

use zk_config::{
    Diagnostics, JvmFlags, Member, MemberAddress, Role, ServerConfig, Severity, Sources,
    parse_my_id,
};

/// A text and where it is from.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) text: String,
}

/// What is known of one server.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// The N that the operator gave.
    pub(super) id: Option<u64>,
    /// Its zoo.cfg, as the operator named it.
    pub(super) file: String,
    pub(super) text: String,
    /// What `dynamicConfigFile` names.
    pub(super) dynamic: Option<Named>,
    /// Its myid.
    pub(super) my_id: Option<Named>,
    /// What is given to `java`.
    pub(super) flags: Vec<Named>,
}

/// What the operator wants.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) in_place: bool,
    pub(super) config_path: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) leader: Option<u64>,
    pub(super) stop: String,
    pub(super) start: String,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Vec<String>);

/// What to do, in order.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) summary: String,
    pub(super) servers: Vec<Row>,
    /// What Paddock does otherwise with these files.
    pub(super) warnings: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// A server as the plan shows it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// `server.1`, or what a standalone server is called.
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) clients: String,
    pub(super) file: String,
    pub(super) data_dir: String,
}

/// One step.
#[derive(Debug, Clone, Default)]
pub(super) struct Step {
    /// `prepare`, `replace`, `finish` or `return`.
    pub(super) kind: &'static str,
    pub(super) server: Option<u64>,
    pub(super) title: String,
    pub(super) parts: Vec<Part>,
}

/// A sentence, and the commands that it is about.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// `do`, `check`, `failure` or `back`.
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) commands: Vec<String>,
}

impl Step {
    fn new(kind: &'static str, server: Option<u64>, title: String) -> Self {
        Self { kind, server, title, parts: Vec::new() }
    }

    fn part(&mut self, kind: &'static str, text: impl Into<String>, commands: &[String]) {
        self.parts.push(Part { kind, text: text.into(), commands: commands.to_vec() });
    }
}

impl Options {
    /// Where a server's zoo.cfg is on that server.
    fn path<'a>(&'a self, server: &'a Server<'_>) -> &'a str {
        self.config_path.as_deref().unwrap_or(&server.input.file)
    }
}

/// A server whose configuration Paddock takes.
#[derive(Debug)]
struct Server<'a> {
    input: &'a Input,
    /// None of a standalone server.
    id: Option<u64>,
    config: ServerConfig,
    diagnostics: Diagnostics,
}

/// Words of an Apache server that the checks of a plan need.
const WORDS: [&str; 3] = ["mntr", "conf", "hash"];

/// A list with which every check of a plan works, on both sides.
const WHITELIST: &str = "4lw.commands.whitelist=srvr,mntr,conf,hash,quor,ruok,isro";

/// Keys that are each server's own.
const OWN_KEYS: [&str; 10] = [
    "dataDir",
    "dataLogDir",
    "clientPort",
    "clientPortAddress",
    "secureClientPort",
    "secureClientPortAddress",
    "peerType",
    "dynamicConfigFile",
    "metricsProvider.httpPort",
    "admin.serverPort",
];

/// Makes the plan.
///
/// # Errors
/// Every reason why there is none.
pub(super) fn plan(inputs: &[Input], options: &Options) -> Result<Plan, Refused> {
    let servers = servers(inputs)?;
    let mut problems = Vec::new();
    for server in &servers {
        let errors = server.diagnostics.iter().filter(|d| d.severity == Severity::Error);
        note(&mut problems, errors.map(ToString::to_string));
    }
    let distributed = servers.iter().filter(|server| server.id.is_some()).count();
    if distributed == 0 {
        if servers.len() > 1 {
            let files: Vec<&str> =
                servers.iter().map(|server| server.input.file.as_str()).collect();
            problems.push(format!(
                "{}: these are standalone servers, without each other in server.N lines: plan for one of them",
                files.join(", ")
            ));
        }
        return match servers.first() {
            Some(server) if problems.is_empty() => Ok(standalone(server, options)),
            Some(_) | None => Err(Refused(problems)),
        };
    }
    let members = members(&servers, &mut problems);
    voters(&members, &mut problems);
    if let Some(leader) = options.leader
        && members.get(&leader).is_none_or(|member| member.role == Role::Observer)
    {
        problems.push(format!("--leader {leader}: there is no participant server.{leader}"));
    }
    let wrong = |server: &&Server<'_>| server.diagnostics.count(Severity::Error) > 0;
    if inputs.len() == 1
        && servers.iter().any(|server| !wrong(&server))
        && servers.iter().any(|s| wrong(&s))
    {
        problems.push(format!(
            "{} stands for all servers here: where theirs differ, give each one's own, as N=FILE",
            inputs.first().map_or("", |input| &input.file)
        ));
    }
    if !problems.is_empty() {
        return Err(Refused(problems));
    }
    Ok(Ensemble { servers: &servers, members: &members, options }.plan())
}

/// Adds what is not there yet: one file may stand for many servers.
fn note(list: &mut Vec<String>, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        if !list.contains(&line) {
            list.push(line);
        }
    }
}

/// Loads every server's configuration, as the one with its number.
fn servers(inputs: &[Input]) -> Result<Vec<Server<'_>>, Refused> {
    let mut problems = Vec::new();
    let mut servers = Vec::new();
    for input in inputs {
        let sources = sources(input);
        // Without a number, only to see which there are.
        let first = sources.clone().my_id("myid", "0").load();
        let Some(config) = &first.config else {
            let errors = first.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            note(&mut problems, errors.map(ToString::to_string));
            continue;
        };
        let listed: Vec<u64> = config.ensemble.members.keys().copied().collect();
        if !config.ensemble.is_distributed() {
            let loaded = sources.load();
            if let Some(config) = loaded.config {
                servers.push(Server { input, id: None, config, diagnostics: loaded.diagnostics });
            }
            continue;
        }
        let ids = match numbers(input, inputs.len() == 1, &listed) {
            Ok(ids) => ids,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for id in ids {
            let name = format!("myid of server.{id}");
            let loaded = sources.clone().my_id(&name, &id.to_string()).load();
            if let Some(config) = loaded.config {
                let id = Some(id);
                servers.push(Server { input, id, config, diagnostics: loaded.diagnostics });
            }
        }
    }
    if problems.is_empty() { Ok(servers) } else { Err(Refused(problems)) }
}

fn sources(input: &Input) -> Sources {
    let mut sources = Sources::new().file(&input.file, &input.text);
    for flags in &input.flags {
        sources = sources.jvm_flags(&flags.name, &flags.text);
    }
    match &input.dynamic {
        Some(dynamic) => sources.dynamic_file(&dynamic.name, &dynamic.text),
        None => sources,
    }
}

/// Which servers a file is about.
fn numbers(input: &Input, alone: bool, listed: &[u64]) -> Result<Vec<u64>, String> {
    if let Some(id) = input.id {
        return Ok(vec![id]);
    }
    // One file for all: its own myid says only where it is from.
    if alone {
        return Ok(listed.to_vec());
    }
    match &input.my_id {
        Some(my_id) => match parse_my_id(&my_id.text) {
            Ok(id) => Ok(vec![id]),
            Err(error) => Err(format!("{}: {error}", my_id.name)),
        },
        None => Err(format!(
            "{file}: there is no myid in its dataDir or beside it: say which server it is, as N={file}",
            file = input.file
        )),
    }
}

/// The members, if all files agree about them and each has one file.
fn members(servers: &[Server<'_>], problems: &mut Vec<String>) -> BTreeMap<u64, Member> {
    let mut files: BTreeMap<u64, &str> = BTreeMap::new();
    for server in servers {
        match server.id {
            None => problems.push(format!(
                "{}: it has no ensemble of server.N lines, other files have",
                server.input.file
            )),
            Some(id) => {
                if let Some(other) = files.insert(id, &server.input.file) {
                    problems.push(format!(
                        "{} and {other} are both server.{id}: every server needs a number of its own in its \
                         myid file",
                        server.input.file
                    ));
                }
            }
        }
    }
    let mut members: BTreeMap<u64, (Member, &str)> = BTreeMap::new();
    for server in servers.iter().filter(|server| server.id.is_some()) {
        let own = &server.config.ensemble.members;
        for (id, member) in own {
            match members.get_mut(id) {
                None => {
                    members.insert(*id, (member.clone(), &server.input.file));
                }
                Some((known, file)) => {
                    if !alike(known, member) {
                        note(
                            problems,
                            [format!(
                                "server.{id} is not the same in {file} ({known}) and {} ({member})",
                                server.input.file
                            )],
                        );
                    } else if is_any(&known.address().host) {
                        // As a server's own line often has it; the others know its host.
                        *known = member.clone();
                    }
                }
            }
        }
    }
    let all: BTreeSet<u64> = members.keys().copied().collect();
    for server in servers.iter().filter(|server| server.id.is_some()) {
        let own = &server.config.ensemble.members;
        let lacks: Vec<String> = all
            .iter()
            .filter(|id| !own.contains_key(id))
            .map(|id| format!("server.{id}"))
            .collect();
        if !lacks.is_empty() {
            let line =
                format!("{} lacks {}, which other files have", server.input.file, lacks.join(", "));
            note(problems, [line]);
        }
    }
    for (member, file) in members.values() {
        if is_any(&member.address().host) {
            let key = member.key();
            problems.push(format!(
                "{key} has no host in {file} but {}: give the files of the other servers too, which name it",
                member.address().host
            ));
        }
    }
    let missing: Vec<String> =
        all.iter().filter(|id| !files.contains_key(id)).map(|id| format!("server.{id}")).collect();
    if !missing.is_empty() {
        problems.push(format!(
            "there is no file of {}: give one for every server, or a single one for all",
            missing.join(", ")
        ));
    }
    members.into_iter().map(|(id, (member, _))| (id, member)).collect()
}

/// Whether two lines are about the same server: a host that means all addresses is as good as any.
fn alike(one: &Member, other: &Member) -> bool {
    let same = |one: &MemberAddress, other: &MemberAddress| {
        (one.quorum_port, one.election_port) == (other.quorum_port, other.election_port)
            && (one.host == other.host || is_any(&one.host) || is_any(&other.host))
    };
    one.role == other.role
        && one.addresses.len() == other.addresses.len()
        && one.addresses.iter().zip(&other.addresses).all(|(one, other)| same(one, other))
}

fn is_any(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0")
}

/// Whether the ensemble goes on while one server is away.
fn voters(members: &BTreeMap<u64, Member>, problems: &mut Vec<String>) {
    let voters = members.values().filter(|member| member.role == Role::Participant).count();
    if voters < 3 {
        let count = match voters {
            1 => "one participant".to_owned(),
            _ => format!("{voters} participants"), // none is refused before
        };
        problems.push(format!(
            "with {count} the ensemble stops whenever one of them does: it cannot be replaced one server at \
             a time. Grow it to three participants first."
        ));
    }
}

impl Server<'_> {
    /// `SERVER_JVMFLAGS=...` for what Paddock must know of Java's flags; with a blank behind it.
    fn environment(&self) -> String {
        let flags = self.input.flags.iter().map(|flags| JvmFlags::parse(&flags.text));
        let defines: Vec<String> = flags
            .flat_map(|flags| flags.defines)
            .map(|(name, value)| format!("-D{name}={value}"))
            .collect();
        if defines.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = defines
            .iter()
            .map(
                |define| {
                    if define.contains(' ') { format!("\"{define}\"") } else { define.clone() }
                },
            )
            .collect();
        format!("SERVER_JVMFLAGS='{}' ", quoted.join(" "))
    }

    fn data_dir(&self) -> String {
        self.config.data_dir.display().to_string()
    }

    /// Both folders of its data, if they are two.
    fn folders(&self) -> Vec<String> {
        let log = self.config.data_log_dir.display().to_string();
        let mut folders = vec![self.data_dir()];
        if log != folders[0] {
            folders.push(log);
        }
        folders
    }

    fn copies(&self) -> Vec<String> {
        self.folders().iter().map(|folder| format!("cp -a {folder} {folder}.apache")).collect()
    }

    fn client_port(&self) -> u16 {
        self.config.client_listener.as_ref().map_or(2181, |listener| listener.port)
    }

    /// Words that the checks need, and that this server would not answer.
    fn lacks_words(&self) -> Vec<&'static str> {
        WORDS.into_iter().filter(|word| !self.config.four_letter_words.allows(word)).collect()
    }
}

fn for_config(command: &str, file: &str) -> String {
    command.replace("{config}", file)
}

/// The copy of a zoo.cfg with another folder.
fn new_file(file: &str) -> String {
    match file.strip_suffix(".cfg") {
        Some(stem) => format!("{stem}.paddock.cfg"),
        None => format!("{file}.paddock"),
    }
}

fn warnings(servers: &[Server<'_>]) -> Vec<String> {
    let mut list = Vec::new();
    for server in servers {
        let warnings = server.diagnostics.iter().filter(|d| d.severity == Severity::Warning);
        note(&mut list, warnings.map(ToString::to_string));
    }
    // What must be alike on all servers, and is not.
    let mut values: BTreeMap<&str, BTreeMap<Option<&str>, Vec<String>>> = BTreeMap::new();
    let keys: BTreeSet<&str> = servers
        .iter()
        .flat_map(|server| server.config.effective.keys())
        .map(String::as_str)
        .collect();
    for key in keys {
        if OWN_KEYS.contains(&key) || key.starts_with("server.") {
            continue;
        }
        for server in servers {
            let value = server.config.effective.get(key).map(String::as_str);
            let name = server.id.map_or_else(String::new, |id| format!("server.{id}"));
            values.entry(key).or_default().entry(value).or_default().push(name);
        }
    }
    for (key, by_value) in values.iter().filter(|(_, by_value)| by_value.len() > 1) {
        let said: Vec<String> = by_value
            .iter()
            .map(|(value, names)| format!("{} on {}", value.unwrap_or("not set"), names.join(", ")))
            .collect();
        list.push(format!("{key} is not the same everywhere: {}", said.join("; ")));
    }
    list
}

/// An ensemble that can be replaced.
struct Ensemble<'a> {
    servers: &'a [Server<'a>],
    members: &'a BTreeMap<u64, Member>,
    options: &'a Options,
}

impl Ensemble<'_> {
    fn plan(&self) -> Plan {
        let observers =
            self.members.values().filter(|member| member.role == Role::Observer).count();
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let mut summary = format!("{} participants", self.members.len() - observers);
        if observers > 0 {
            summary.push_str(&format!(" and {observers} observer{}", plural(observers)));
        }
        summary.push_str(", replaced one at a time; ");
        summary.push_str(if self.options.in_place {
            "each takes over Apache's data folder (in place)"
        } else {
            "each starts empty in a new folder and is synced by the leader"
        });
        let order = self.order();
        let mut steps = vec![self.prepare()];
        steps.extend(order.iter().map(|server| self.replace(server)));
        steps.push(self.finish());
        steps.push(self.back(&order));
        let row = |server: &&Server<'_>| Row {
            name: self.name(server),
            role: self.member(server).role.as_str(),
            clients: self.clients(server),
            file: server.input.file.clone(),
            data_dir: server.data_dir(),
        };
        Plan {
            summary,
            servers: order.iter().map(row).collect(),
            warnings: warnings(self.servers),
            steps,
        }
    }

    fn member(&self, server: &Server<'_>) -> &Member {
        let id = server.id.expect("a standalone server is no part of an ensemble");
        self.members.get(&id).expect("a number without a line is refused")
    }

    fn name(&self, server: &Server<'_>) -> String {
        self.member(server).key()
    }

    fn host(&self, server: &Server<'_>) -> &str {
        &self.member(server).address().host
    }

    /// Where clients reach it.
    fn clients(&self, server: &Server<'_>) -> String {
        let (host, port) = (self.client_host(server), server.client_port());
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn client_host<'a>(&'a self, server: &'a Server<'_>) -> &'a str {
        let member = self.member(server);
        let listener = server.config.client_listener.as_ref().filter(|at| !at.is_any_address());
        // A line that names the address for clients gives it to everybody; clientPortAddress is its own.
        let named = member.client.as_ref().filter(|at| !at.is_any_address()).or(listener);
        named.and_then(|at| at.host.as_deref()).unwrap_or(&member.address().host)
    }

    fn all_clients(&self) -> String {
        let mut servers: Vec<&Server<'_>> = self.servers.iter().collect();
        servers.sort_by_key(|server| server.id);
        servers.iter().map(|server| self.clients(server)).collect::<Vec<_>>().join(",")
    }

    fn status(&self) -> String {
        format!("paddock quorum status --server {}", self.all_clients())
    }

    fn verify(&self) -> String {
        format!("paddock quorum verify --advance --wait 60 --server {}", self.all_clients())
    }

    /// Observers first; then participants, the leader last, as far as it is known.
    fn order(&self) -> Vec<&Server<'_>> {
        let mut order: Vec<&Server<'_>> = self.servers.iter().collect();
        order.sort_by_key(|server| {
            let votes = self.member(server).role == Role::Participant;
            (votes, votes && server.id == self.options.leader, server.id)
        });
        order
    }

    fn names(&self, ids: &[&Server<'_>]) -> String {
        let mut ids: Vec<Option<u64>> = ids.iter().map(|server| server.id).collect();
        ids.sort_unstable();
        let names: Vec<String> =
            ids.into_iter().flatten().map(|id| format!("server.{id}")).collect();
        if names.len() == self.servers.len() { "every server".to_owned() } else { names.join(", ") }
    }

    fn prepare(&self) -> Step {
        let mut step = Step::new("prepare", None, "Before the first server".to_owned());
        let versions: Vec<String> = self
            .servers
            .iter()
            .map(|server| {
                format!("echo srvr | nc {} {}", self.client_host(server), server.client_port())
            })
            .collect();
        step.part(
            "check",
            "Every server runs Apache ZooKeeper 3.6 or later (3.5 joins too, but has no digests to compare). \
             Replacing is tested with 3.8 and 3.9.5. Leave 3.9.3 first: it loses data.",
            &versions,
        );
        let deaf: Vec<&Server<'_>> =
            self.servers.iter().filter(|server| !server.lacks_words().is_empty()).collect();
        if !deaf.is_empty() {
            step.part(
                "do",
                format!(
                    "The checks need four-letter words that {} must answer. Put this line into zoo.cfg \
                     and restart Apache there, one server at a time:",
                    self.names(&deaf)
                ),
                &[WHITELIST.to_owned()],
            );
        }
        let disabled: Vec<&Server<'_>> =
            self.servers.iter().filter(|server| !server.config.storage.digest_enabled).collect();
        if !disabled.is_empty() {
            step.part(
                "do",
                format!(
                    "Digests are switched off on {}. Take digest.enabled=false away there and restart, one \
                     server at a time; without digests nobody can tell whether the trees are the same.",
                    self.names(&disabled)
                ),
                &[],
            );
        }
        step.part(
            "check",
            "The ensemble is whole and its trees are the same: both exit with 0. The first also shows who leads.",
            &[self.status(), self.verify()],
        );
        step.part(
            "check",
            "Clients know all servers, so that they move on when theirs is stopped: their connect string is",
            &[self.all_clients()],
        );
        if self.servers.iter().any(|server| server.input.dynamic.is_some()) {
            step.part(
                "do",
                "Nobody reconfigures the ensemble until the last server is replaced.",
                &[],
            );
        }
        let checks: BTreeSet<String> = self
            .servers
            .iter()
            .map(|server| format!("paddock check-config {}", self.options.path(server)))
            .collect();
        let checks: Vec<String> = checks.into_iter().collect();
        step.part(
            "check",
            "Install the binary `paddock` on every server. There it accepts the configuration: exit 0.",
            &checks,
        );
        step
    }

    fn replace(&self, server: &Server<'_>) -> Step {
        let name = self.name(server);
        let file = self.options.path(server);
        let role = self.member(server).role;
        let host = self.host(server);
        let mut step =
            Step::new("replace", server.id, format!("{name}, {} on {host}", role.as_str()));
        if role == Role::Participant && self.options.leader != server.id {
            step.part(
                "check",
                format!("If {name} leads now, do the other participants first and come back: the leader is the last."),
                &[self.status()],
            );
        }
        step.part("do", "Stop Apache.", &[for_config(&self.options.stop, file)]);
        let started = self.commands_of_start(server, &mut step);
        let seconds = u64::from(server.config.ensemble.init_limit_ticks)
            * u64::from(server.config.tick_time_ms)
            / 1000;
        step.part(
            "check",
            format!("{name} takes part, with a lag near 0, and has the same tree: both exit with 0; ask again while it is being synced. Not before that go on."),
            &[self.status(), self.verify()],
        );
        step.part(
            "failure",
            format!(
                "The process ends (exit 2: the configuration, 3: the data folder; its last log line says why), \
                 `status` shows {name} unreachable or `not serving` for longer than initLimit, {seconds} s, \
                 or `verify` exits with 1. The others go on without it meanwhile."
            ),
            &[],
        );
        let stop = format!("kill $(pgrep -f 'paddock server {started}$')");
        let mut back = vec![stop];
        back.push(for_config(&self.options.start, file));
        back.extend([self.status(), self.verify()]);
        step.part(
            "back",
            "Only while all others are in sync. Stop Paddock and start Apache on its own folder: its files in \
             version-2 are as they were when it was stopped, and the leader sends it what it missed (DIFF or SNAP).",
            &back,
        );
        step
    }

    /// The commands up to the running server; gives its configuration file.
    fn commands_of_start(&self, server: &Server<'_>, step: &mut Step) -> String {
        let file = self.options.path(server);
        let environment = server.environment();
        if self.options.in_place {
            step.part("do", "Keep a copy of its data.", &server.copies());
            step.part(
                "do",
                "Look at what would be imported (exit 0; 1 with warnings), and start Paddock with the same zoo.cfg: it imports \
                 version-2, which it does not change, into paddock-log and paddock-state beside it.",
                &[
                    format!("paddock import --check {file}"),
                    format!("{environment}paddock server {file}"),
                ],
            );
            return file.to_owned();
        }
        let old = server.data_dir();
        let new = self.options.data_dir.clone().unwrap_or_else(|| format!("{old}-paddock"));
        let new_file = new_file(file);
        let mut folders = new.clone();
        let mut edit = format!("-e 's|^ *dataDir *=.*|dataDir={new}|'");
        if let [_, log] = server.folders().as_slice() {
            folders.push_str(&format!(" {log}-paddock"));
            edit.push_str(&format!(" -e 's|^ *dataLogDir *=.*|dataLogDir={log}-paddock|'"));
        }
        step.part(
            "do",
            format!(
                "Start Paddock empty, in folders of its own: the leader sends it everything. What Apache has \
                 in {} stays as it is.",
                server.folders().join(" and ")
            ),
            &[
                format!("mkdir -p {folders} && cp {old}/myid {new}/myid"),
                format!("sed {edit} {file} > {new_file}"),
                format!("{environment}paddock server {new_file}"),
            ],
        );
        new_file
    }

    fn finish(&self) -> Step {
        let mut step = Step::new("finish", None, "After the last server".to_owned());
        step.part(
            "check",
            "The ensemble is whole and its trees are the same.",
            &[self.status(), self.verify()],
        );
        step.part(
            "do",
            "Put `paddock server` into the service manager of each server in the place of zkServer.sh: same \
             user, same environment; SIGTERM stops it, logs go to standard error.",
            &[],
        );
        step.part(
            "do",
            "Keep Apache's folders and packages as long as you may want to go back. They get stale: see below.",
            &[],
        );
        step
    }

    /// All of it, the other way round.
    fn back(&self, order: &[&Server<'_>]) -> Step {
        let mut step = Step::new("return", None, "The way back of the whole ensemble".to_owned());
        step.part(
            "do",
            "One server at a time, observers first and the leader last, as in `Back` of each step, with both \
             checks (exit 0) before the next one:",
            &order
                .iter()
                .map(|server| {
                    let start = for_config(&self.options.start, self.options.path(server));
                    format!("{}: stop Paddock; {start}; status; verify", self.name(server))
                })
                .collect::<Vec<_>>(),
        );
        step.part(
            "failure",
            "Never start Apache on its old folders on two servers at once, nor while another server is away or \
             behind: what those folders lack would be gone if they made up a majority.",
            &[],
        );
        step.part(
            "failure",
            if self.options.in_place {
                "Apache does not read Paddock's paddock-log and paddock-state. Before Paddock is started there \
                 once more, move both away: it would go on with them instead of importing what Apache wrote since."
            } else {
                "Never start Apache on Paddock's folder: it does not read it, and would be an empty server."
            },
            &[],
        );
        step
    }
}

/// One server alone: there is nobody to sync from.
fn standalone(server: &Server<'_>, options: &Options) -> Plan {
    let file = options.path(server);
    let environment = server.environment();
    let port = server.client_port();
    let look = format!("echo srvr | nc localhost {port}");
    let mut prepare = Step::new("prepare", None, "Before".to_owned());
    prepare.part(
        "check",
        "The server runs Apache ZooKeeper 3.5 or later. Clients lose their connection for one restart; their \
         sessions go on if it is over within their timeouts.",
        std::slice::from_ref(&look),
    );
    prepare.part(
        "check",
        "Paddock accepts the configuration: exit 0.",
        &[format!("paddock check-config {file}")],
    );
    let mut replace = Step::new("replace", None, "From Apache to Paddock".to_owned());
    replace.part(
        "do",
        "Write down Zxid and Node count, without clients that write, and stop Apache.",
        &[look.clone(), for_config(&options.stop, file)],
    );
    replace.part("do", "Keep a copy of its data.", &server.copies());
    replace.part(
        "do",
        "Look at what would be imported (exit 0; 1 with warnings), and start Paddock with the same zoo.cfg: it imports version-2, \
         which it does not change, into paddock-log and paddock-state beside it.",
        &[
            format!("paddock import --check {file}"),
            format!("{environment}paddock server {file}"),
        ],
    );
    replace.part(
        "check",
        "Zxid and Node count are those that were written down; the Zxid may be higher by the sessions since.",
        &[look],
    );
    replace.part(
        "failure",
        "The process ends: exit 2 for the configuration, 3 for the data folder; its last log line says why.",
        &[],
    );
    let mut back = Step::new("return", None, "The way back".to_owned());
    back.part(
        "back",
        "Stop Paddock and start Apache: its files in version-2 are as they were. What was written since is NOT in \
         them, and there is no other server that could send it: go back before clients write, or copy their data \
         with a client first.",
        &[format!("kill $(pgrep -f 'paddock server {file}$')"), for_config(&options.start, file)],
    );
    back.part(
        "failure",
        "Before Paddock is started there once more, move paddock-log and paddock-state away: it would go on with \
         them instead of importing what Apache wrote since.",
        &[],
    );
    let row = Row {
        name: "standalone".to_owned(),
        role: "-",
        clients: format!("localhost:{port}"),
        file: server.input.file.clone(),
        data_dir: server.data_dir(),
    };
    Plan {
        summary:
            "one standalone server: its data is imported in place, with the downtime of one restart"
                .to_owned(),
        servers: vec![row],
        warnings: warnings(std::slice::from_ref(server)),
        steps: vec![prepare, replace, back],
    }
}
