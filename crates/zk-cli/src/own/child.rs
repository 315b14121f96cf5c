//! A command that runs while something is held.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep_until};

use super::contend::{Contender, LOST};
use super::signal_exit;
use super::signals::Listener;
use crate::error::CliError;

/// The first word of the command line that a command is started through; see [`run_guarded`].
pub(crate) const GUARDED: &str = "run-with-parent";

const CANNOT_RUN: u8 = 126;
const NO_SUCH_COMMAND: u8 = 127;

/// Becomes the command `args[1..]`, to be killed by the system when the process `args[0]`, our parent, dies: nothing may
/// go on in the name of a lock that nobody renews.
pub(crate) fn run_guarded(args: &[OsString]) -> ExitCode {
    let Some((parent, [program, args @ ..])) = args.split_first() else {
        eprintln!("{GUARDED}: for internal use");
        return ExitCode::from(crate::error::USAGE);
    };
    #[cfg(target_os = "linux")]
    {
        let parent = parent.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        let guarded = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
        // It may have died before.
        if guarded && rustix::process::getppid() != parent {
            return ExitCode::from(LOST);
        }
    }
    #[cfg(not(target_os = "linux"))]
    drop(parent.clone());
    let error = std::process::Command::new(program).args(args).exec();
    eprintln!("cannot run {}: {error}", program.to_string_lossy());
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    ExitCode::from(if missing { NO_SUCH_COMMAND } else { CANNOT_RUN })
}

struct Child {
    process: tokio::process::Child,
    pid: Pid,
    /// It leads a process group of its own: what it starts gets its signals, too.
    leads: bool,
}

impl Child {
    fn spawn(command: &[String], environment: &[(&str, String)]) -> Result<Self, CliError> {
        let cannot = |error: std::io::Error| {
            CliError::exit(CANNOT_RUN, format!("cannot run {}: {error}", command[0]))
        };
        let mut start = std::process::Command::new(std::env::current_exe().map_err(cannot)?);
        // In a group of its own it could not read from the terminal.
        let leads = !std::io::stdin().is_terminal();
        start
            .arg0("paddock")
            .args(["cli", GUARDED, &std::process::id().to_string()])
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        if leads {
            start.process_group(0);
        }
        // By the main thread, which lives as long as the process: the system looks at the thread.
        let process = tokio::process::Command::from(start).spawn().map_err(cannot)?;
        let id = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { process, pid: id.expect("it has not been waited for"), leads })
    }

    fn signal(&self, signal: Signal) {
        // An error means that it has ended meanwhile.
        if self.leads {
            kill_process_group(self.pid, signal).ok();
        } else if self.process.id().is_some() {
            kill_process(self.pid, signal).ok();
        }
    }

    /// TERM, and KILL when the time is up; nothing of its group is left.
    async fn end(&mut self, until: Instant) {
        self.signal(Signal::TERM);
        tokio::select! {
            _ = self.process.wait() => {}
            () = sleep_until(until) => {}
        }
        self.signal(Signal::KILL);
        self.process.wait().await.ok(); // it has been killed: there is nothing to learn
    }
}

/// Runs a command for as long as it takes, or what is held is held. Returns how to exit.
pub(crate) async fn run(
    contender: &mut Contender,
    signals: &mut Listener,
    command: &[String],
) -> Result<u8, CliError> {
    let environment = [
        ("PADDOCK_FENCING_TOKEN", contender.token.to_string()),
        ("PADDOCK_LOCK_PATH", contender.root.clone()),
        ("PADDOCK_LOCK_NODE", contender.node.clone()),
    ];
    let mut child = Child::spawn(command, &environment)?;
    let mut lost = Box::pin(contender.lost());
    loop {
        tokio::select! {
            status = child.process.wait() => {
                return status.map(exit_of).map_err(|error| {
                    CliError::exit(CANNOT_RUN, format!("waiting for {}: {error}", command[0]))
                });
            }
            number = signals.next() => {
                // What the terminal's keys send has reached it already.
                let typed = !child.leads && number == Signal::INT.as_raw();
                if let Some(signal) = Signal::from_named_raw(number).filter(|_| !typed) {
                    child.signal(signal);
                }
            }
            loss = &mut lost => {
                child.end(loss.end).await;
                return Err(CliError::exit(LOST, format!("lost: {}; {} was ended", loss.why, command[0])));
            }
        }
    }
}

fn exit_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).expect("eight bits"),
        (None, Some(signal)) => signal_exit(signal),
        (None, None) => crate::error::FAILED,
    }
}
