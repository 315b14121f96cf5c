use serde_json::{Value, json};
use zk_client::ZkError;
use zk_proto::ErrorCode;

/// Exit code: the operation failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Exit code: no server could be reached.
pub(crate) const NOT_CONNECTED: u8 = 3;
/// Exit code: no such command, as a shell says it.
pub(crate) const NOT_FOUND: u8 = 127;

/// Why a command ended without success.
#[derive(Debug, Clone)]
pub(crate) struct CliError {
    /// For standard error; empty if everything has been said.
    pub(crate) text: String,
    /// How the process exits if this was its only, or last, command.
    pub(crate) exit: u8,
    /// The server's word, if it was the server's.
    cause: Option<ZkError>,
}

impl CliError {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: FAILED, cause: None }
    }

    /// An end with an exit code of its own.
    pub(crate) fn exit(exit: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), exit, cause: None }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: USAGE, cause: None }
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: NOT_FOUND, cause: None }
    }

    pub(crate) fn not_connected(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: NOT_CONNECTED, cause: None }
    }

    /// The output has said it already.
    pub(crate) fn told() -> Self {
        Self::failed("")
    }

    /// The same error, with more to say.
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        if !self.text.is_empty() {
            self.text.push_str(note);
        }
        self
    }

    /// The znode that the server's word was about.
    pub(crate) fn path(&self) -> Option<&str> {
        self.cause.as_ref()?.path.as_deref()
    }

    /// Whether the server said this.
    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.code == code)
    }

    pub(crate) fn json(&self) -> Value {
        let code = self.cause.as_ref().map(|cause| cause.code);
        json!({
            "error": self.text,
            "code": code.map(|code| code.0),
            "name": code.and_then(ErrorCode::name),
            "path": self.cause.as_ref().and_then(|cause| cause.path.clone()),
        })
    }
}

/// The wording of `CliWrapperException`.
impl From<ZkError> for CliError {
    fn from(cause: ZkError) -> Self {
        let path = cause.path.as_deref().unwrap_or("null");
        let text = match cause.code {
            ErrorCode::NO_NODE => format!("Node does not exist: {path}"),
            ErrorCode::NO_CHILDREN_FOR_EPHEMERALS => format!("Ephemerals cannot have children: {path}"),
            ErrorCode::NODE_EXISTS => format!("Node already exists: {path}"),
            ErrorCode::NOT_EMPTY => format!("Node not empty: {path}"),
            ErrorCode::NOT_READ_ONLY => format!("Not a read-only call: {path}"),
            ErrorCode::INVALID_ACL => format!("Acl is not valid : {path}"),
            ErrorCode::NO_AUTH => format!("Insufficient permission : {path}"),
            ErrorCode::BAD_ARGUMENTS => format!("Arguments are not valid : {path}"),
            ErrorCode::BAD_VERSION => format!("version No is not valid : {path}"),
            ErrorCode::RECONFIG_IN_PROGRESS => {
                "Another reconfiguration is in progress -- concurrent reconfigs not supported (yet)".to_owned()
            }
            ErrorCode::NEW_CONFIG_NO_QUORUM => "No quorum of new config is connected and up-to-date with the \
                leader of last commmitted config - try invoking reconfiguration after new servers are connected \
                and synced"
                .to_owned(),
            ErrorCode::QUOTA_EXCEEDED => format!("Quota has exceeded : {path}"),
            ErrorCode(_) => cause.to_string(),
        };
        Self { text, exit: FAILED, cause: Some(cause) }
    }
}
