//! The shell without the rest of Paddock.

use std::process::ExitCode;

fn main() -> ExitCode {
    zk_cli::run(std::env::args_os().skip(1))
}
