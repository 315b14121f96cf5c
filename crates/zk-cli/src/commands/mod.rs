//! The commands: their names, options and usage, and what they do.

mod acl;
mod admin;
mod data;
mod quota;
mod tree;
mod watch;

use std::io::IsTerminal as _;
use std::sync::atomic::AtomicBool;

use zk_client::Client;

use crate::arguments::{Arguments, Group, Opt};
use crate::error::CliError;
use crate::output::Output;
use crate::path;

/// What a command works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) out: Output,
    /// One call, or a shell: whose output nobody waits for line by line.
    pub(crate) single: bool,
    /// Something was made that ends with the session.
    pub(crate) ephemerals: AtomicBool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    AddAuth,
    AddWatch,
    Close,
    Config,
    Connect,
    Create,
    Delete,
    DeleteAll,
    DelQuota,
    Get,
    GetAcl,
    GetAllChildrenNumber,
    GetEphemerals,
    History,
    ListQuota,
    Ls,
    PrintWatches,
    Quit,
    Reconfig,
    Redo,
    RemoveWatches,
    Set,
    SetAcl,
    SetQuota,
    Stat,
    Sync,
    Version,
    WhoAmI,
}

/// A command of the shell.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) usage: &'static str,
    pub(crate) action: Action,
    options: &'static [Opt],
    group: Group,
    /// How many words it needs behind its name.
    words: usize,
    /// Whether its usage shows the options one by one.
    explains: bool,
    /// What a third word once meant.
    deprecated: Option<Deprecated>,
}

/// An old form that Apache's shell still takes.
#[derive(Debug, Clone, Copy)]
enum Deprecated {
    /// `command path watch`: any word there means `-w`.
    Watch(&'static str),
    /// `delete path version`: the version is ignored.
    Version(&'static str),
}

impl Spec {
    const fn new(action: Action, name: &'static str, usage: &'static str, words: usize) -> Self {
        Self {
            name,
            usage,
            action,
            options: &[],
            group: Group::None,
            words,
            explains: false,
            deprecated: None,
        }
    }

    const fn options(mut self, options: &'static [Opt]) -> Self {
        self.options = options;
        self
    }

    const fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    const fn explains(mut self) -> Self {
        self.explains = true;
        self
    }

    const fn deprecated(mut self, deprecated: Deprecated) -> Self {
        self.deprecated = Some(deprecated);
        self
    }

    pub(crate) fn usage(&self) -> String {
        let mut text = format!("{} {}", self.name, self.usage);
        if self.explains {
            text.push('\n');
            text.push_str(&explain(self.options));
            text.push('\n');
        }
        text
    }

    /// Whether it does something with a session.
    pub(crate) fn needs_server(&self) -> bool {
        match self.action {
            Action::Connect
            | Action::History
            | Action::PrintWatches
            | Action::Quit
            | Action::Redo
            | Action::Version => false,
            Action::AddAuth
            | Action::AddWatch
            | Action::Close
            | Action::Config
            | Action::Create
            | Action::Delete
            | Action::DeleteAll
            | Action::DelQuota
            | Action::Get
            | Action::GetAcl
            | Action::GetAllChildrenNumber
            | Action::GetEphemerals
            | Action::ListQuota
            | Action::Ls
            | Action::Reconfig
            | Action::RemoveWatches
            | Action::Set
            | Action::SetAcl
            | Action::SetQuota
            | Action::Stat
            | Action::Sync
            | Action::WhoAmI => true,
        }
    }

    /// Reads its command line; the errors are those of wrong usage.
    pub(crate) fn parse(&self, line: &[String], out: Output) -> Result<Arguments, CliError> {
        match self.action {
            // Whatever follows is not looked at, as upstream.
            Action::Connect
            | Action::Close
            | Action::History
            | Action::PrintWatches
            | Action::Quit
            | Action::Redo
            | Action::WhoAmI => return Ok(Arguments::words_only(line)),
            _ => {} // the others have options or a number of words
        }
        let parse = |line: &[String]| {
            crate::arguments::parse(self.options, self.group, line).map_err(CliError::usage)
        };
        let mut arguments = parse(line)?;
        if self.action == Action::Ls && arguments.has("?") {
            out.line("usage: ls [options] path");
            out.line(&explain(self.options));
        }
        let given = arguments.words.len() - 1;
        let too_many = match self.action {
            Action::AddWatch => given > 1,
            Action::Version => given > 0,
            _ => false, // more words than needed are ignored
        };
        if given < self.words || too_many {
            return Err(CliError::usage(self.usage()));
        }
        if let Some(deprecated) = self.deprecated.filter(|_| given > 1) {
            match deprecated {
                Deprecated::Watch(instead) => {
                    out.notice(&format!(
                        "'{} path [watch]' has been deprecated. Please use '{instead}' instead.",
                        self.name
                    ));
                    let mut line = line.to_vec();
                    line[2] = "-w".to_owned();
                    arguments = parse(&line)?;
                    if arguments.words.len() < 2 {
                        return Err(CliError::usage(self.usage()));
                    }
                }
                Deprecated::Version(instead) => out.notice(&format!(
                    "'{} path [version]' has been deprecated. Please use '{instead}' instead.",
                    self.name
                )),
            }
        }
        Ok(arguments)
    }
}

/// A line for each option, as commons-cli's help formatter prints them.
fn explain(options: &[Opt]) -> String {
    let mut options = options.to_vec();
    options.sort_by_key(|opt| opt.name.to_lowercase());
    let lead = |opt: &Opt| format!(" -{}{}", opt.name, if opt.takes_value { " <arg>" } else { "" });
    let width = options.iter().map(|opt| lead(opt).len()).max().unwrap_or(0);
    let lines: Vec<String> =
        options.iter().map(|opt| format!("{:<width$}   {}", lead(opt), opt.about)).collect();
    lines.join("\n")
}

/// All commands, by name.
pub(crate) static COMMANDS: &[Spec] = &[
    Spec::new(
        Action::AddWatch,
        "addWatch",
        "[-m mode] path # optional mode is one of [PERSISTENT, PERSISTENT_RECURSIVE] - default is PERSISTENT_RECURSIVE",
        1,
    )
    .options(&[Opt::value("m", "")]),
    Spec::new(Action::AddAuth, "addauth", "scheme auth", 1),
    Spec::new(Action::Close, "close", "", 0),
    Spec::new(Action::Config, "config", "[-c] [-w] [-s]", 0).options(&[
        Opt::flag("s", "stats"),
        Opt::flag("w", "watch"),
        Opt::flag("c", "client connection string"),
    ]),
    Spec::new(Action::Connect, "connect", "host:port", 0),
    Spec::new(Action::Create, "create", "[-s] [-e] [-c] [-t ttl] path [data] [acl]", 1).options(&[
        Opt::flag("e", "ephemeral"),
        Opt::flag("s", "sequential"),
        Opt::flag("c", "container"),
        Opt::value("t", "ttl"),
    ]),
    Spec::new(Action::Delete, "delete", "[-v version] path", 1)
        .options(&[Opt::value("v", "version")])
        .deprecated(Deprecated::Version("delete [-v version] path")),
    Spec::new(Action::DeleteAll, "deleteall", "path [-b batch size]", 1).options(&[Opt::value("b", "batch size")]),
    Spec::new(Action::DelQuota, "delquota", "[-n|-b|-N|-B] path", 1).group(Group::Exclusive).options(&[
        Opt::flag("n", "num soft quota"),
        Opt::flag("b", "bytes soft quota"),
        Opt::flag("N", "num hard quota"),
        Opt::flag("B", "bytes hard quota"),
    ]),
    Spec::new(Action::Get, "get", "[-s] [-w] [-b] [-x] path", 1)
        .options(&[
            Opt::flag("s", "Print znode stats additionally"),
            Opt::flag("w", "Watch for changes on the znode"),
            Opt::flag("b", "Output data in base64 format"),
            Opt::flag("x", "Output data in hexdump format"),
        ])
        .explains()
        .deprecated(Deprecated::Watch("get [-s] [-w] path")),
    Spec::new(Action::GetAcl, "getAcl", "[-s] path", 1).options(&[Opt::flag("s", "stats")]),
    Spec::new(Action::GetAllChildrenNumber, "getAllChildrenNumber", "path", 1),
    Spec::new(Action::GetEphemerals, "getEphemerals", "path", 0),
    Spec::new(Action::History, "history", "", 0),
    Spec::new(Action::ListQuota, "listquota", "path", 1),
    Spec::new(Action::Ls, "ls", "[-s] [-w] [-R] path", 1)
        .options(&[
            Opt::flag("?", "help"),
            Opt::flag("s", "stat"),
            Opt::flag("w", "watch"),
            Opt::flag("R", "recurse"),
        ])
        .deprecated(Deprecated::Watch("ls [-w] path")),
    Spec::new(Action::PrintWatches, "printwatches", "on|off", 0),
    Spec::new(Action::Quit, "quit", "", 0),
    Spec::new(
        Action::Reconfig,
        "reconfig",
        "[-s] [-v version] [[-file path] | [-members serverID=host:port1:port2;port3[,...]*]] | \
         [-add serverId=host:port1:port2;port3[,...]]* [-remove serverId[,...]*]",
        0,
    )
    .options(&[
        Opt::flag("s", "stats"),
        Opt::value("v", "required current config version"),
        Opt::value("file", "path of config file to parse for membership"),
        Opt::value("members", "comma-separated list of config strings for non-incremental reconfig"),
        Opt::value("add", "comma-separated list of config strings for new servers"),
        Opt::value("remove", "comma-separated list of server IDs to remove"),
    ]),
    Spec::new(Action::Redo, "redo", "cmdno", 0),
    Spec::new(Action::RemoveWatches, "removewatches", "path [-c|-d|-a] [-l]", 1).options(&[
        Opt::flag("c", "child watcher type"),
        Opt::flag("d", "data watcher type"),
        Opt::flag("p", "persistent watcher type"),
        Opt::flag("r", "persistent recursive watcher type"),
        Opt::flag("a", "any watcher type"),
        Opt::flag("l", "remove locally when there is no server connection"),
    ]),
    Spec::new(Action::Set, "set", "path data [-s] [-v version] [-b]", 2)
        .options(&[
            Opt::flag("s", "Print znode stats additionally"),
            Opt::value("v", "Set with an expected version"),
            Opt::flag("b", "Supply data in base64 format"),
        ])
        .explains(),
    Spec::new(Action::SetAcl, "setAcl", "[-s] [-v version] [-R] path acl", 2).options(&[
        Opt::flag("s", "stats"),
        Opt::value("v", "version"),
        Opt::flag("R", "recursive"),
    ]),
    Spec::new(Action::SetQuota, "setquota", "-n|-b|-N|-B val path", 1).group(Group::Required).options(&[
        Opt::value("n", "num soft quota"),
        Opt::value("b", "bytes soft quota"),
        Opt::value("N", "num hard quota"),
        Opt::value("B", "bytes hard quota"),
    ]),
    Spec::new(Action::Stat, "stat", "[-w] path", 1)
        .options(&[Opt::flag("w", "watch")])
        .deprecated(Deprecated::Watch("stat [-w] path")),
    Spec::new(Action::Sync, "sync", "path", 1),
    Spec::new(Action::Version, "version", "", 0),
    Spec::new(Action::WhoAmI, "whoami", "", 0),
];

pub(crate) fn find(name: &str) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.name == name)
}

/// Name and options of every command.
pub(crate) fn usages() -> Vec<String> {
    COMMANDS.iter().map(|spec| format!("{} {}", spec.name, spec.usage)).collect()
}

/// What an unknown command is answered with: the list of all, and a guess.
pub(crate) fn unknown(name: &str, out: Output) -> CliError {
    if !out.json {
        out.notice("ZooKeeper -server host:port -client-configuration properties-file cmd args");
        for usage in usages() {
            out.notice(&format!("\t{usage}"));
        }
        // For people only: programs get what Apache's shell prints.
        if std::io::stdin().is_terminal() {
            out.notice("Paddock's own (COMMAND --help says more):");
            out.notice(crate::own::usages().trim_end());
        }
    }
    // Apache's wording, which says it twice.
    let mut text = format!("Command not found: Command not found {name}");
    let known = COMMANDS
        .iter()
        .map(|spec| spec.name)
        .chain(crate::own::COMMANDS.iter().map(|own| own.name));
    let near =
        known.into_iter().find(|known| known.eq_ignore_ascii_case(name) || one_edit(known, name));
    if let Some(near) = near {
        text.push_str(&format!("\nDid you mean {near}?"));
    }
    CliError::not_found(text)
}

/// Whether two names differ by one letter that is wrong, missing or too many.
fn one_edit(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same..], &b[same..]);
    let rest = |list: &'_ [char], skip: usize| list.get(skip..).map(<[char]>::to_vec);
    match a.len().abs_diff(b.len()) {
        0 => rest(a, 1) == rest(b, 1) && !a.is_empty(),
        1 if a.len() > b.len() => rest(a, 1) == rest(b, 0),
        1 => rest(a, 0) == rest(b, 1),
        _ => false, // more than one letter
    }
}

/// A path that Apache's client would send.
fn checked(path: &str) -> Result<&str, CliError> {
    path::check(path).map_err(CliError::usage)?;
    Ok(path)
}

/// An option's number, or `default`.
fn number<T: std::str::FromStr>(
    arguments: &Arguments,
    option: &str,
    default: T,
    kind: &str,
) -> Result<T, CliError> {
    match arguments.value(option) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| CliError::usage(format!("-{option} argument must be {kind} value"))),
    }
}

/// Runs a command that needs a session.
pub(crate) async fn run(
    context: &Context,
    action: Action,
    arguments: &Arguments,
) -> Result<(), CliError> {
    // `Spec::parse` has checked that they are there.
    let path = arguments.word(0).unwrap_or_default();
    match action {
        Action::AddAuth => admin::add_auth(context, arguments).await,
        Action::AddWatch => watch::add(context, arguments, checked(path)?).await,
        Action::Config => admin::config(context, arguments).await,
        Action::Create => data::create(context, arguments, path).await,
        Action::Delete => data::delete(context, arguments, checked(path)?).await,
        Action::DeleteAll => tree::delete_all(context, arguments, checked(path)?).await,
        Action::DelQuota => quota::delete(context, arguments, checked(path)?).await,
        Action::Get => data::get(context, arguments, checked(path)?).await,
        Action::GetAcl => acl::get(context, arguments, checked(path)?).await,
        Action::GetAllChildrenNumber => data::all_children_number(context, checked(path)?).await,
        Action::GetEphemerals => {
            data::ephemerals(context, checked(arguments.word(0).unwrap_or("/"))?).await
        }
        Action::ListQuota => quota::list(context, path).await,
        Action::Ls => tree::ls(context, arguments, checked(path)?).await,
        Action::Reconfig => admin::reconfig(context, arguments).await,
        Action::RemoveWatches => watch::remove(context, arguments, checked(path)?).await,
        Action::Set => data::set(context, arguments, path).await,
        Action::SetAcl => acl::set(context, arguments, path).await,
        Action::SetQuota => quota::set(context, arguments, path).await,
        Action::Stat => data::stat(context, arguments, checked(path)?).await,
        Action::Sync => data::sync(context, checked(path)?).await,
        Action::Version => version(context.out),
        Action::WhoAmI => admin::who_am_i(context).await,
        Action::Close
        | Action::Connect
        | Action::History
        | Action::PrintWatches
        | Action::Quit
        | Action::Redo => {
            unreachable!("the shell does these itself")
        }
    }
}

pub(crate) use admin::version;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::words;

    const OUT: Output = Output { json: false };

    fn parse(line: &str) -> Result<Arguments, CliError> {
        let line = words(line);
        find(&line[0]).unwrap().parse(&line, OUT)
    }

    #[test]
    fn commands_are_sorted_as_apache_lists_them() {
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
    }

    #[test]
    fn usage_of_get_and_set_explains_the_options() {
        let error = parse("set /a").unwrap_err();
        assert_eq!(
            error.text,
            "set path data [-s] [-v version] [-b]\n -b         Supply data in base64 format\n -s         Print \
             znode stats additionally\n -v <arg>   Set with an expected version\n"
        );
        assert_eq!(error.exit, crate::error::USAGE);
        assert_eq!(parse("ls").unwrap_err().text, "ls [-s] [-w] [-R] path");
    }

    #[test]
    fn the_old_way_to_watch_still_watches() {
        let got = parse("get /a true").unwrap();
        assert!(got.has("w"));
        assert_eq!(got.word(0), Some("/a"));
        assert!(!parse("delete /a 3").unwrap().has("v"));
    }

    #[test]
    fn near_names_are_guessed() {
        let text = |name: &str| unknown(name, Output { json: true }).text;
        assert!(text("getacl").ends_with("Did you mean getAcl?"));
        assert!(text("creat").ends_with("Did you mean create?"));
        assert!(text("lss").ends_with("Did you mean ls?"));
        assert_eq!(text("frobnicate"), "Command not found: Command not found frobnicate");
    }
}
