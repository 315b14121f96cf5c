//! Paddock's own commands, which Apache's shell does not have: recipes, streams, and work on whole subtrees.

mod child;
mod contend;
mod copy;
mod elect;
mod flags;
mod glob;
mod lock;
mod progress;
mod signals;
mod transfer;
mod tree;
mod walk;
mod watch;
mod write;

use std::ops::RangeInclusive;

use zk_client::{Client, ConnectString, State};

pub(crate) use child::{GUARDED, run_guarded};
pub(crate) use flags::Flags;
pub(crate) use signals::Signals;

use crate::error::CliError;
use crate::output::Output;
use crate::path;
use flags::Flag;
use progress::Progress;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Cp,
    Elect,
    Export,
    Find,
    Import,
    Lock,
    Mirror,
    Tree,
    Watch,
}

/// One of Paddock's own commands.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) name: &'static str,
    usage: &'static str,
    about: &'static str,
    action: Action,
    words: RangeInclusive<usize>,
    /// What follows `--` is a command to run.
    takes_command: bool,
    flags: &'static [Flag],
    /// What its help says behind the options.
    more: &'static str,
}

const EVERYWHERE: &[Flag] = &[
    Flag::with("auth", "SCHEME:ID", "authenticate first, as addauth does: digest:user:password"),
    Flag::on("json", "one JSON object for each line of output; errors too"),
    Flag::on("help", "this text").short("h"),
];

const LONG_WORK: Flag = Flag::on("progress", "show progress even if standard error is no terminal");
const EPHEMERALS: Flag =
    Flag::on("ephemerals", "take ephemeral znodes, too; they become persistent ones");
const NO_ACLS: Flag = Flag::on("no-acls", "leave the ACLs aside: new znodes are open to all");
const TO: Flag = Flag::with("to", "HOST:PORT[/chroot]", "the ensemble of the second path");
const TO_AUTH: Flag = Flag::with("to-auth", "SCHEME:ID", "authenticate there");
const OVERWRITE: Flag = Flag::on("overwrite", "set data and ACL of znodes that exist");
const SKIP: Flag = Flag::on("skip-existing", "leave znodes that exist as they are");

const HELD_EXITS: &str = "\
The command's environment: PADDOCK_FENCING_TOKEN, the zxid that created the znode held (it only grows from holder to
holder: let what the command writes to refuse a smaller one), PADDOCK_LOCK_PATH and PADDOCK_LOCK_NODE.
When the session may be lost the command gets TERM when half of the session timeout has passed without an answer, and
KILL when three quarters have: before another can get in. Signals are passed on to it. It is a process group of its own
unless standard input is a terminal; if this process dies it is killed.

Exit codes: the command's own (128 + N when signal N ended it); 2 usage; 3 no server could be reached; 1 the server
refused; 124 not had within --timeout; 125 lost while it was held; 126 the command cannot be run; 127 no such command;
128 + N ended by signal N
";

const KINDS: &str = "\
Servers do not tell clients which znodes are containers or have a time to live: they look like persistent ones, and
copies of them are.

Exit codes: 0 done, 1 failed (the error says what was done so far), 2 usage, 3 no server could be reached, 128 + N ended
by signal N
";

const LONG_EXITS: &str = "\
Exit codes: 0 done, 1 failed (the error says what was done so far), 2 usage, 3 no server could be reached, 128 + N ended
by signal N
";

/// All of them, by name.
pub(crate) static COMMANDS: &[Own] = &[
    Own {
        name: "cp",
        usage: "[-r] SOURCE TARGET [--to HOST:PORT] [--overwrite | --skip-existing]",
        about: "copy a znode, or with -r a subtree, here or to another ensemble",
        action: Action::Cp,
        words: 2..=2,
        takes_command: false,
        flags: &[
            Flag::on("recursive", "everything below, too").short("r"),
            OVERWRITE,
            SKIP,
            TO,
            TO_AUTH,
            EPHEMERALS,
            NO_ACLS,
            LONG_WORK,
        ],
        more: KINDS,
    },
    Own {
        name: "elect",
        usage: "PATH [DATA] [--timeout TIME] [-- COMMAND...] | --observe PATH [--count N]",
        about: "be elected leader and stay it, or watch who leads",
        action: Action::Elect,
        words: 1..=2,
        takes_command: true,
        flags: &[
            Flag::on("observe", "print who leads, now and at each change"),
            Flag::with("count", "N", "with --observe: end after N lines"),
            Flag::with("timeout", "TIME", "give up when not elected by then; 0: do not wait"),
            Flag::with("layout", "NAME", "znodes as of curator-latch (default), curator or kazoo"),
        ],
        more: HELD_EXITS,
    },
    Own {
        name: "export",
        usage: "PATH [FILE]",
        about: "write a subtree as JSON, one znode a line",
        action: Action::Export,
        words: 1..=2,
        takes_command: false,
        flags: &[
            Flag::on("ephemerals", "ephemeral znodes, too"),
            Flag::on("no-acls", "leave the ACLs out"),
            Flag::on("stats", "with each znode's stat; import does not read it"),
            LONG_WORK,
        ],
        more: KINDS,
    },
    Own {
        name: "find",
        usage: "PATH [--name GLOB] [--type T] [--min-size SIZE] [--owner SESSION] ...",
        about: "print the paths of a subtree that pass all tests",
        action: Action::Find,
        words: 1..=1,
        takes_command: false,
        flags: &[
            Flag::with("name", "GLOB", "the last part of the path matches"),
            Flag::with("path", "GLOB", "the whole path matches; * matches a slash, too"),
            Flag::with("type", "T", "persistent or ephemeral"),
            Flag::with("owner", "SESSION", "ephemeral, of this session (0x...)"),
            Flag::with("min-size", "SIZE", "at least so many bytes of data (4k, 1M)"),
            Flag::with("max-size", "SIZE", "at most so many"),
            Flag::with("min-children", "N", "at least so many children"),
            Flag::on("empty", "no data and no children"),
            Flag::with("newer", "TIME", "data set within the last TIME (10m, 2h, 7d)"),
            Flag::with("older", "TIME", "data not set within the last TIME"),
            Flag::with("depth", "N", "at most so many levels below PATH"),
            Flag::on("count", "print only how many there are"),
            LONG_WORK,
        ],
        more: KINDS,
    },
    Own {
        name: "import",
        usage: "PATH [FILE] [--overwrite | --skip-existing]",
        about: "make a subtree at PATH of what export wrote",
        action: Action::Import,
        words: 1..=2,
        takes_command: false,
        flags: &[
            OVERWRITE,
            SKIP,
            EPHEMERALS,
            NO_ACLS,
            Flag::on("dry-run", "read and check the file, change nothing"),
            LONG_WORK,
        ],
        more: LONG_EXITS,
    },
    Own {
        name: "lock",
        usage: "PATH [--timeout TIME] [-- COMMAND...]",
        about: "hold a lock while a command runs, or until interrupted",
        action: Action::Lock,
        words: 1..=1,
        takes_command: true,
        flags: &[
            Flag::with("timeout", "TIME", "give up when not had by then (5s, 2m); 0: do not wait"),
            Flag::with("data", "TEXT", "the lock znode's data (host and process id)"),
            Flag::with("layout", "NAME", "znodes as of curator (default; go-zk, too) or kazoo"),
        ],
        more: HELD_EXITS,
    },
    Own {
        name: "mirror",
        usage: "SOURCE TARGET [--to HOST:PORT] [--delete] [--follow] [--dry-run]",
        about: "make TARGET like SOURCE, changing only what differs",
        action: Action::Mirror,
        words: 2..=2,
        takes_command: false,
        flags: &[
            TO,
            TO_AUTH,
            Flag::on("delete", "delete what SOURCE does not have"),
            Flag::on("follow", "go on: carry over each change until interrupted"),
            Flag::on("dry-run", "only print what would change"),
            Flag::on("verbose", "print each change").short("v"),
            Flag::with("resync", "TIME", "with --follow: compare everything so often (10m)"),
            EPHEMERALS,
            NO_ACLS,
            LONG_WORK,
        ],
        more: KINDS,
    },
    Own {
        name: "tree",
        usage: "PATH [--depth N]",
        about: "draw a subtree with sizes and kinds",
        action: Action::Tree,
        words: 0..=1,
        takes_command: false,
        flags: &[
            Flag::with("depth", "N", "at most so many levels below PATH"),
            Flag::on("full-paths", "print whole paths"),
        ],
        more: KINDS,
    },
    Own {
        name: "watch",
        usage: "PATH [--recursive] [--data] [--count N] [--exec LINE]",
        about: "print the changes of a znode, or of a subtree, as they happen",
        action: Action::Watch,
        words: 1..=1,
        takes_command: false,
        flags: &[
            Flag::on("recursive", "of everything below, too").short("r"),
            Flag::on("data", "with the data as they are after the change"),
            Flag::with("count", "N", "end after N changes"),
            Flag::with("timeout", "TIME", "end with 124 if that takes longer"),
            Flag::with("exec", "LINE", "run this by sh for each, one after the other"),
        ],
        more: "\
LINE's environment: PADDOCK_EVENT_TYPE, PADDOCK_EVENT_PATH, PADDOCK_EVENT_ZXID; with --data its standard input is the data.
Reconnects and a new session after an expiry are survived, and said: what changed meanwhile is not reported.

Exit codes: 0 after --count changes, 1 failed, 2 usage, 3 no server could be reached, 124 --timeout, 128 + N ended by
signal N
",
    },
];

pub(crate) fn find(name: &str) -> Option<&'static Own> {
    COMMANDS.iter().find(|own| own.name == name)
}

/// Name, usage and purpose of every command.
pub(crate) fn usages() -> String {
    COMMANDS.iter().map(|own| format!("  {} {}\n", own.name, own.usage)).collect()
}

impl Own {
    /// Reads its command line; the errors are those of wrong usage.
    pub(crate) fn parse(&self, line: &[String]) -> Result<Flags, CliError> {
        let usage = |text: &str| {
            CliError::usage(format!(
                "{text}\nUsage: {} {}\nTry: {} --help",
                self.name, self.usage, self.name
            ))
        };
        let flags = flags::parse(&[self.flags, EVERYWHERE], self.takes_command, line)
            .map_err(|text| usage(&format!("{}: {text}", self.name)))?;
        if flags.has("help") {
            return Ok(flags);
        }
        if !self.words.contains(&flags.words.len()) {
            let text = if flags.words.len() < *self.words.start() {
                "a path is missing".to_owned()
            } else {
                format!("{:?} is one word too many", flags.words[*self.words.end()])
            };
            return Err(usage(&format!("{}: {text}", self.name)));
        }
        Ok(flags)
    }

    pub(crate) fn help(&self) -> String {
        format!(
            "{} {}: {}\n\nOptions:\n{}\n{}",
            self.name,
            self.usage,
            self.about,
            flags::explain(&[self.flags, EVERYWHERE]),
            self.more
        )
    }
}

/// A command under way.
pub(crate) struct Call {
    pub(crate) client: Client,
    pub(crate) out: Output,
    /// The connect string.
    pub(crate) server: String,
    pub(crate) options: zk_client::Options,
    pub(crate) signals: Signals,
    pub(crate) flags: Flags,
}

impl Call {
    /// The word at this place, as a path.
    fn path(&self, at: usize) -> Result<&str, CliError> {
        let word = self.flags.words.get(at).map_or("/", String::as_str);
        path::check(word).map_err(CliError::usage)?;
        Ok(word)
    }

    /// Another session, as ready as the first.
    async fn connect(&self, server: &str, auth: Option<&str>) -> Result<Client, CliError> {
        let client = Client::open(server, self.options.clone())
            .map_err(|error| CliError::usage(error.to_string()))?;
        client
            .wait_connected(self.options.timeout)
            .await
            .map_err(|error| CliError::not_connected(error.to_string()))?;
        authenticate(&client, auth).await?;
        Ok(client)
    }

    /// The session of the second path, and its connect string.
    async fn second(&self) -> Result<(Client, String), CliError> {
        match self.flags.value("to") {
            Some(server) => {
                Ok((self.connect(server, self.flags.value("to-auth")).await?, server.to_owned()))
            }
            None => Ok((self.client.clone(), self.server.clone())),
        }
    }

    fn progress(&self) -> Progress {
        Progress::new(self.flags.has("progress"))
    }

    /// Does `work` until a signal comes. Returns its result, or the error that says how far it was.
    async fn until_signal<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let mut signals = self.signals.listen();
        let shown = progress.show();
        let result = tokio::select! {
            result = work => result,
            number = signals.next() => Err(CliError::exit(
                signal_exit(number),
                format!("interrupted; so far: {}", progress.summary()),
            )),
        };
        drop(shown);
        result
    }
}

/// `scheme:id`, as `addauth scheme id`.
async fn authenticate(client: &Client, auth: Option<&str>) -> Result<(), CliError> {
    let Some(auth) = auth else { return Ok(()) };
    let (scheme, id) = auth.split_once(':').unwrap_or((auth, ""));
    client.add_auth(scheme, (!id.is_empty()).then_some(id.as_bytes())).await?;
    Ok(())
}

/// The system's own znodes, which belong to the ensemble and not to what is copied from it.
fn reserved(server: &str) -> Option<String> {
    let chroot = ConnectString::parse(server).map(|parsed| parsed.chroot).unwrap_or_default();
    chroot.is_empty().then(|| "/zookeeper".to_owned())
}

/// How a process exits that a signal ended.
fn signal_exit(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(255)
}

/// Waits for the connection to come back. Errors say that the session is over.
async fn connected_again(client: &Client) -> Result<(), CliError> {
    let mut states = client.states();
    let state = states.wait_for(|state| *state != State::Connecting).await.map(|state| *state);
    match state {
        Ok(state) if state.is_connected() => Ok(()),
        Ok(state) => Err(CliError::failed(format!("the session is over: {state}"))),
        Err(_) => Err(CliError::failed("the session is over")),
    }
}

/// Runs a command; its line has been read.
pub(crate) async fn run(own: &Own, call: &Call) -> Result<(), CliError> {
    authenticate(&call.client, call.flags.value("auth")).await?;
    match own.action {
        Action::Cp => Box::pin(copy::cp(call)).await,
        Action::Elect => Box::pin(elect::run(call)).await,
        Action::Export => Box::pin(transfer::export(call)).await,
        Action::Find => Box::pin(tree::find(call)).await,
        Action::Import => Box::pin(transfer::import(call)).await,
        Action::Lock => Box::pin(lock::run(call)).await,
        Action::Mirror => Box::pin(copy::mirror(call)).await,
        Action::Tree => Box::pin(tree::tree(call)).await,
        Action::Watch => Box::pin(watch::run(call)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted_and_none_is_apache_s() {
        assert!(COMMANDS.is_sorted_by_key(|own| own.name));
        assert!(COMMANDS.iter().all(|own| crate::commands::find(own.name).is_none()));
    }

    #[test]
    fn mistakes_show_the_usage() {
        let parse = |line: &str| {
            let line = crate::arguments::words(line);
            find(&line[0]).unwrap().parse(&line)
        };
        let error = parse("lock").unwrap_err();
        assert_eq!(error.exit, crate::error::USAGE);
        assert_eq!(
            error.text,
            "lock: a path is missing\nUsage: lock PATH [--timeout TIME] [-- COMMAND...]\nTry: lock --help"
        );
        assert!(parse("tree /a /b").unwrap_err().text.starts_with("tree: \"/b\" is one word too"));
        assert!(parse("cp --help").unwrap().has("help"));
    }

    #[test]
    fn help_names_options_and_exit_codes() {
        for own in COMMANDS {
            let help = own.help();
            assert!(help.contains("Exit codes: ") && help.contains("--json"), "{}", own.name);
        }
    }
}
