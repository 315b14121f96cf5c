//! `paddock`: the server, its shell and its tools in one binary.
//!
//! # Invariants
//!
//! - This crate parses arguments and calls; whatever can fail in an interesting way is in the crates
//!   below.
//! - Under the names `java`, `zkServer.sh` and `zkCli.sh` it takes the command lines that those take, so
//!   scripts and test suites that start ZooKeeper start Paddock unmodified ([`shim`]).

mod import;
mod migrate;
mod quorum;
mod server;
mod shim;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use zk_server::version;

/// Millions of small allocations live as long as the tree: they must be packed tightly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A coordination server that speaks ZooKeeper's protocols.
#[derive(Debug, Parser)]
#[command(name = "paddock", version = version::BANNER)]
struct Paddock {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a server and serve until SIGTERM.
    Server(ServerArgs),
    /// The commands of zkCli.sh, one-shot or interactive; `paddock cli -h` lists them.
    #[command(disable_help_flag = true)]
    Cli(Rest),
    /// Check a configuration file: 0 it is fine (perhaps with warnings), 2 it is not.
    CheckConfig(CheckConfigArgs),
    /// What a server would take over from the data of Apache ZooKeeper.
    Import(import::ImportArgs),
    /// How an ensemble is doing, seen from any of its servers.
    Quorum(quorum::QuorumArgs),
    /// From Apache ZooKeeper to Paddock, and back: the steps for an operator's own servers.
    Migrate(migrate::MigrateArgs),
    /// Put load on a server; `paddock bench --help` lists the workloads.
    #[command(disable_help_flag = true)]
    Bench(Rest),
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// A zoo.cfg; or as with ZooKeeper: PORT DATADIR, then TICKTIME and
    /// MAXCLIENTCNXNS if you like. Nothing: port 2181,
    /// data in ./paddock-data.
    arguments: Vec<String>,
    /// A system property as ZooKeeper has them, `zookeeper.KEY=VALUE`.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// Refuse to start with warnings.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Args)]
struct CheckConfigArgs {
    /// The file.
    file: PathBuf,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// One JSON object, for scripts.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let own_name = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    if let Some(exit) = shim::dispatch(&own_name, &rest) {
        return exit;
    }
    match Paddock::parse().command {
        Command::Server(args) => server::run(&server::Start {
            arguments: args.arguments,
            properties: args.properties,
            strict: args.strict,
        }),
        Command::Cli(rest) => zk_cli::run(rest.arguments),
        Command::CheckConfig(args) => check_config(&args),
        Command::Import(args) => import::run(&args),
        Command::Quorum(args) => quorum::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Bench(rest) => zk_bench::run(rest.arguments),
    }
}

#[allow(clippy::print_stdout, reason = "the answer of a command")]
fn check_config(args: &CheckConfigArgs) -> ExitCode {
    let diagnostics = zk_config::check(&args.file);
    if args.json {
        println!("{}", diagnostics.to_json());
    } else if diagnostics.is_empty() {
        println!("{}: no problems", args.file.display());
    } else {
        print!("{}", diagnostics.render());
    }
    ExitCode::from(u8::try_from(diagnostics.exit_code(args.strict)).unwrap_or(1))
}
