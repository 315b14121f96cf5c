//! `paddock cli`: the commands of `zkCli.sh`, with the same names, options and output lines.
//!
//! One command per call, or a shell when none is given. `--json` prints one JSON object for each result
//! line instead, and errors as JSON on standard error.
//!
//! Beside them stand commands of Paddock's own: `lock`, `elect`, `watch`, `tree`, `find`, `cp`, `mirror`, `export` and
//! `import`, whose options have two dashes.
//!
//! Exit codes: 0 done, 1 the operation failed, 2 usage, 3 no server could be reached, 127 no such command; `lock` and
//! `elect` pass their command's on and add a few, which their `--help` lists.
//!
//! # Invariants
//!
//! - What a script may rely on stays as Apache's shell prints it: result lines on standard output, `Created
//!   ...`, notices and errors on standard error.
//! - A single call closes its session, unless it made an ephemeral znode: that one lives until the session
//!   expires, as with Apache's shell.
//! - A command that holds a lock or an election is ended before the session can expire, and when this process dies.
//! - Work on a subtree holds a bounded number of znodes, whatever the subtree's size; what is kept of the rest are names.
//! - Standard output of Paddock's own commands has their results alone: no banner, no events of the session.
//! - An event is printed before the next command starts if the server sent it before answering the last.

mod arguments;
mod commands;
mod completion;
mod date;
mod error;
mod options;
mod output;
mod own;
mod path;
mod quota;
mod shell;

use std::ffi::OsString;
use std::process::ExitCode;

use options::{Options, Parsed};

/// Runs `paddock cli` with the arguments behind `cli`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Behind `cli`, which a program that is this shell alone hands on.
    let words =
        if args.first().is_some_and(|first| first == "cli") { &args[1..] } else { &args[..] };
    if let Some((first, rest)) = words.split_first()
        && first == own::GUARDED
    {
        return own::run_guarded(rest);
    }
    let args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match Options::parse(args) {
        Ok(Parsed::Run(options)) => shell::run(&options),
        Ok(Parsed::Help) => {
            print!("{}", options::help());
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}\nTry: paddock cli --help");
            ExitCode::from(error::USAGE)
        }
    }
}
