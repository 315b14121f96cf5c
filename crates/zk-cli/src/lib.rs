//! `paddock cli`: the commands of `zkCli.sh`, with the same names, options and output lines.
//!
//! One command per call, or a shell when none is given. `--json` prints one JSON object for each result
//! line instead, and errors as JSON on standard error.
//!
//! Exit codes: 0 done, 1 the operation failed, 2 usage, 3 no server could be reached, 127 no such command.
//!
//! # Invariants
//!
//! - What a script may rely on stays as Apache's shell prints it: result lines on standard output, `Created
//!   ...`, notices and errors on standard error.
//! - A single call closes its session, unless it made an ephemeral znode: that one lives until the session
//!   expires, as with Apache's shell.
//! - An event is printed before the next command starts if the server sent it before answering the last.

mod arguments;
mod commands;
mod completion;
mod date;
mod error;
mod options;
mod output;
mod path;
mod quota;
mod shell;

use std::ffi::OsString;
use std::process::ExitCode;

use options::{Options, Parsed};

/// Runs `paddock cli` with the arguments behind `cli`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
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
