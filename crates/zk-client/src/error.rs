use std::fmt;
use std::time::Duration;

use zk_proto::{ErrorCode, OpCode};

/// An operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ZkError {
    /// Why.
    pub code: ErrorCode,
    /// What was asked for.
    pub op: OpCode,
    /// The znode that it was about, as the caller named it.
    pub path: Option<String>,
}

/// The wording of `KeeperException`.
impl fmt::Display for ZkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeeperErrorCode = {}", code_message(self.code))?;
        match self.path.as_deref() {
            None | Some("") => Ok(()),
            Some(path) => write!(f, " for {path}"),
        }
    }
}

/// What `KeeperException` calls a code in its messages.
#[must_use]
pub fn code_message(code: ErrorCode) -> String {
    let text = match code {
        ErrorCode::OK => "ok",
        ErrorCode::SYSTEM_ERROR => "SystemError",
        ErrorCode::RUNTIME_INCONSISTENCY => "RuntimeInconsistency",
        ErrorCode::DATA_INCONSISTENCY => "DataInconsistency",
        ErrorCode::CONNECTION_LOSS => "ConnectionLoss",
        ErrorCode::MARSHALLING_ERROR => "MarshallingError",
        ErrorCode::NEW_CONFIG_NO_QUORUM => "NewConfigNoQuorum",
        ErrorCode::RECONFIG_IN_PROGRESS => "ReconfigInProgress",
        ErrorCode::UNIMPLEMENTED => "Unimplemented",
        ErrorCode::OPERATION_TIMEOUT => "OperationTimeout",
        ErrorCode::BAD_ARGUMENTS => "BadArguments",
        ErrorCode::API_ERROR => "APIError",
        ErrorCode::NO_NODE => "NoNode",
        ErrorCode::NO_AUTH => "NoAuth",
        ErrorCode::BAD_VERSION => "BadVersion",
        ErrorCode::NO_CHILDREN_FOR_EPHEMERALS => "NoChildrenForEphemerals",
        ErrorCode::NODE_EXISTS => "NodeExists",
        ErrorCode::INVALID_ACL => "InvalidACL",
        ErrorCode::AUTH_FAILED => "AuthFailed",
        ErrorCode::NOT_EMPTY => "Directory not empty",
        ErrorCode::SESSION_EXPIRED => "Session expired",
        ErrorCode::INVALID_CALLBACK => "Invalid callback",
        ErrorCode::SESSION_MOVED => "Session moved",
        ErrorCode::NOT_READ_ONLY => "Not a read-only call",
        ErrorCode::EPHEMERAL_ON_LOCAL_SESSION => "Ephemeral node on local session",
        ErrorCode::NO_WATCHER => "No such watcher",
        ErrorCode::RECONFIG_DISABLED => "Reconfig is disabled",
        ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH => {
            "Session closed because client failed to authenticate"
        }
        ErrorCode::QUOTA_EXCEEDED => "Quota has exceeded",
        ErrorCode::THROTTLED_OP => "Op throttled due to high load",
        ErrorCode(other) => {
            return format!(
                "Unknown error {}",
                code.name().map_or_else(|| other.to_string(), str::to_owned)
            );
        }
    };
    text.to_owned()
}

/// No session could be had in time.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The connect string is not one.
    #[error(transparent)]
    Hosts(#[from] crate::ConnectStringError),
    /// No server answered in time.
    #[error("no server of {hosts} gave a session within {} s: {last}", waited.as_secs_f64())]
    Timeout {
        /// The connect string.
        hosts: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// A server refused: the session to re-attach to has expired, or authentication failed.
    #[error("the session is {0}")]
    Refused(crate::State),
}
