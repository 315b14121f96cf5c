//! How the process ends. The numbers are upstream's (`ExitCode`).

use std::process::ExitCode;

/// Why a server did not start, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped because it was asked to.
    Normal,
    /// Anything that has no number of its own.
    Unexpected,
    /// Bad arguments or configuration.
    Invocation,
    /// The data cannot be reached or is not whole.
    DataDir,
    /// The admin server or the metrics endpoint cannot start.
    Admin,
    /// What the ensemble has decided cannot be reconciled with what is on disk here.
    Halted,
    /// A port between members cannot be bound.
    QuorumPort,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Normal => 0,
            Exit::Unexpected => 1,
            Exit::Invocation => 2,
            Exit::DataDir => 3,
            Exit::Admin => 4,
            Exit::Halted => 13,
            Exit::QuorumPort => 14,
        })
    }
}
