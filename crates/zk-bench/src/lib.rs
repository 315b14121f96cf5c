//! `paddock bench`: a load generator for servers that speak ZooKeeper's client protocol.
//!
//! It exists to compare servers on one machine, so it must be cheap: requests are encoded before the run
//! and copied with a new xid, replies are checked in place, reads and writes carry whole batches, and the
//! clock is read once a batch. What it costs is printed beside what the server costs.
//!
//! # Invariants
//!
//! - Every reply is checked: xid in order, error code, length, and that the data is the requested znode's.
//!   A server that answers wrongly ends the run with an error; it never counts as fast.
//! - An operation counts if its reply arrived inside the measured window; its latency runs from before its
//!   write to after its read.
//! - Nothing is allocated per operation.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts become ratios and back; a length from a server is cast only to be compared"
)]

mod canned;
mod connect_time;
mod histogram;
mod idle;
mod load;
mod options;
mod pipeline;
mod process;
mod report;
mod requests;
mod session;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

/// Why a run failed; the text is for the person who started it.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For `map_err`: an I/O error and what was being done.
    pub(crate) fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// Runs `paddock bench` with the arguments behind `bench`. Exit codes: 0 done, 1 the run failed, 2 usage.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = std::iter::once(OsString::from("paddock bench"));
    let cli = match options::Cli::try_parse_from(program.chain(args.iter().cloned())) {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok(); // nowhere left to complain
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match &cli.command {
        options::Command::GetData(o) => load::run("getData", requests::Mix::reads(100), o),
        options::Command::SetData(o) => load::run("setData", requests::Mix::reads(0), o),
        options::Command::Mixed(o) => {
            load::run("mixed", requests::Mix::reads(o.read_percent), &o.load)
        }
        options::Command::Create(o) => load::run("create", requests::Mix::Create, o),
        options::Command::Fill(o) => load::fill(o),
        options::Command::Idle(o) => idle::run(o),
        options::Command::ConnectTime(o) => connect_time::run(o),
        options::Command::Sockets(o) => canned::sockets(o, &own_command(args.len())),
        options::Command::Canned(o) => canned::serve(o),
    };
    match result {
        Ok(report) => {
            report.print(cli.json);
            ExitCode::SUCCESS
        }
        Err(Failure(text)) => {
            eprintln!("paddock bench: {text}");
            ExitCode::from(1)
        }
    }
}

/// How this process reached `run`: the binary and the arguments before ours, to start a sibling with.
fn own_command(ours: usize) -> Vec<OsString> {
    let all: Vec<OsString> = std::env::args_os().skip(1).collect();
    let before = all.len().saturating_sub(ours);
    let binary = std::env::current_exe().map_or_else(|_| "paddock".into(), OsString::from);
    std::iter::once(binary).chain(all.into_iter().take(before)).collect()
}
