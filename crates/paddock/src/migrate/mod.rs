//! `paddock migrate plan`: how an operator's own Apache ZooKeeper servers become Paddock, and go back.
//!
//! # Invariants
//!
//! - It reads files and prints; it asks no server and changes nothing.
//! - A plan is printed only when Paddock would start with every one of the configurations, and when the
//!   ensemble goes on while one server is away; otherwise every reason against it is.
//! - At no step of a plan is more than one server away or behind the others.

mod env_file;
mod plan;
mod render;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use zk_config::Sources;

use self::plan::{Input, Named, Options, Refused};

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// The steps, checks and ways back for replacing Apache ZooKeeper by Paddock, one server at a
    /// time: 0 they are printed, 2 there are reasons against it.
    Plan(PlanArgs),
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// A zoo.cfg for each server, as `N=FILE` where the file alone does not say that it is that of
    /// server.N (dataDir/myid, or a file myid beside it, does). One file alone stands for all of
    /// them. A `java.env` or `zookeeper-env.sh` beside it is read too.
    #[arg(required = true, value_name = "[N=]FILE")]
    files: Vec<String>,
    /// More files that set SERVER_JVMFLAGS, JVMFLAGS or JAVA_OPTS, for all servers.
    #[arg(long, value_name = "FILE")]
    env: Vec<PathBuf>,
    /// Start on Apache's own data folders, which are imported. Without it servers start empty in
    /// new folders, and are synced by the leader.
    #[arg(long)]
    in_place: bool,
    /// Where zoo.cfg is on the servers, if these files are copies of it.
    #[arg(long, value_name = "PATH")]
    config_path: Option<String>,
    /// The new data folder; `<dataDir>-paddock` when absent.
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    data_dir: Option<String>,
    /// Who leads now, to be replaced last; `paddock quorum status` shows it.
    #[arg(long, value_name = "N")]
    leader: Option<u64>,
    /// The command that stops Apache on a server; `{config}` stands for its zoo.cfg.
    #[arg(long, value_name = "COMMAND", default_value = "zkServer.sh stop {config}")]
    stop: String,
    /// The command that starts Apache on a server.
    #[arg(long, value_name = "COMMAND", default_value = "zkServer.sh start {config}")]
    start: String,
    /// One JSON object, for scripts.
    #[arg(long)]
    json: bool,
}

/// Exit code of a plan that is refused: as of a configuration that is.
const REFUSED: u8 = 2;

/// Runs the command.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
pub(crate) fn run(args: &MigrateArgs) -> ExitCode {
    let MigrateCommand::Plan(args) = &args.command;
    let options = Options {
        in_place: args.in_place,
        config_path: args.config_path.clone(),
        data_dir: args.data_dir.clone(),
        leader: args.leader,
        stop: args.stop.clone(),
        start: args.start.clone(),
    };
    let planned = read(args).map_err(Refused).and_then(|inputs| plan::plan(&inputs, &options));
    match planned {
        Ok(plan) if args.json => println!("{}", render::json(&plan)),
        Ok(plan) => print!("{}", render::text(&plan)),
        Err(refused) => {
            if args.json {
                println!("{}", render::refused_json(&refused));
            } else {
                eprint!("{}", render::refused_text(&refused));
            }
            return ExitCode::from(REFUSED);
        }
    }
    ExitCode::SUCCESS
}

/// Reads every file of the command line, and those that belong to it.
fn read(args: &PlanArgs) -> Result<Vec<Input>, Vec<String>> {
    let mut problems = Vec::new();
    let mut flags = Vec::new();
    for file in &args.env {
        match read_text(file) {
            Ok(text) => flags.extend(flags_of(file, &text)),
            Err(error) => problems.push(cannot_read(file, &error)),
        }
    }
    let mut inputs = Vec::new();
    for named in &args.files {
        match read_server(named, &flags) {
            Ok(input) => inputs.push(input),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(inputs) } else { Err(problems) }
}

fn read_server(named: &str, flags: &[Named]) -> Result<Input, String> {
    let (id, file) = match named.split_once('=') {
        Some((id, file)) if id.bytes().all(|digit| digit.is_ascii_digit()) => {
            (Some(id.parse().map_err(|_| format!("{named}: `{id}` is no server number"))?), file)
        }
        Some(_) | None => (None, named),
    };
    let path = Path::new(file);
    let text = read_text(path).map_err(|error| cannot_read(path, &error))?;
    let mut flags = flags.to_vec();
    for name in ["java.env", "zookeeper-env.sh"] {
        let beside = path.with_file_name(name);
        match read_text(&beside) {
            Ok(text) => flags.extend(flags_of(&beside, &text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_read(&beside, &error)),
        }
    }
    let sources = Sources::new().file(file, &text);
    let dynamic = match sources.peek("dynamicConfigFile").filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            // Of a file that was copied from its server, the other one may lie beside it.
            let there = Path::new(&name);
            let beside = there.file_name().map(|name| path.with_file_name(name));
            let text = read_text(there)
                .or_else(|error| beside.as_deref().map_or(Err(error), read_text))
                .map_err(|error| {
                    format!("{file}: dynamicConfigFile={name} cannot be read: {error}")
                })?;
            Some(Named { name, text })
        }
    };
    let beside = path.with_file_name("myid");
    let data_dir = sources.peek("dataDir").unwrap_or_default();
    let my_id = [Path::new(&data_dir).join("myid"), beside].into_iter().find_map(|file| {
        let text = read_text(&file).ok()?;
        Some(Named { name: file.display().to_string(), text })
    });
    Ok(Input { id, file: file.to_owned(), text, dynamic, my_id, flags })
}

fn flags_of(file: &Path, text: &str) -> Vec<Named> {
    let name = file.display().to_string();
    let flags = env_file::java_flags(text).into_iter();
    flags.map(|(variable, text)| Named { name: format!("{name} ({variable})"), text }).collect()
}

fn read_text(path: &Path) -> io::Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("{}: cannot be read: {error}", path.display())
}

#[cfg(test)]
mod tests;
