//! `paddock import --check`: what a server would take over from Apache ZooKeeper's data.
//!
//! # Invariants
//!
//! - Nothing is written; the files may be in use, and are then read as far as they go.
//! - What it says is what a server would do: the same code reads the same files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use zk_config::{ServerConfig, Sources};
use zk_server::storage::import::check;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// dataDir; or a zoo.cfg, which also says where the logs are and whether the server is a member of an
    /// ensemble.
    data: PathBuf,
    /// Where the transaction logs are, if not in dataDir.
    #[arg(long, value_name = "DIR")]
    data_log_dir: Option<PathBuf>,
    /// Read everything and keep nothing: 0 it would be imported, 1 so it would and somebody should look, 2
    /// it would not. (To import it, start a server on it.)
    #[arg(long, required = true)]
    check: bool,
    /// One JSON object, for scripts.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
pub(crate) fn run(args: &ImportArgs) -> ExitCode {
    let (config, is_member) = match configure(args) {
        Ok(found) => found,
        Err(problem) => {
            eprintln!("paddock: {problem}");
            return ExitCode::from(2);
        }
    };
    let report = check(&config, is_member);
    if args.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_text());
    }
    ExitCode::from(report.exit_code())
}

fn configure(args: &ImportArgs) -> Result<(ServerConfig, bool), String> {
    if args.data.is_file() {
        let accepted = Sources::new().load_file(&args.data).accept(false);
        let (mut config, _) = accepted.map_err(|problems| problems.render())?;
        if let Some(folder) = &args.data_log_dir {
            config.data_log_dir.clone_from(folder);
        }
        let is_member = config.member_id().is_some();
        return Ok((config, is_member));
    }
    let mut config = ServerConfig::embedded_default(args.data.to_str());
    config.data_dir.clone_from(&args.data);
    config.data_log_dir.clone_from(args.data_log_dir.as_ref().unwrap_or(&args.data));
    // Nothing says whether it knows of TTLs; if it does not, that does no harm.
    config.tree.extended_types_enabled = true;
    let is_member = args.data.join("myid").exists();
    Ok((config, is_member))
}
