//! The load generator without the rest of Paddock.

use std::process::ExitCode;

fn main() -> ExitCode {
    zk_bench::run(std::env::args_os().skip(1))
}
