use std::fmt;

macro_rules! error_codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// A result code on the wire (`KeeperException.Code`). The Java client throws on codes that
        /// it does not know, so a server uses these and no others.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct ErrorCode(pub i32);

        impl ErrorCode {
            $($(#[$meta])* pub const $name: Self = Self($code);)*

            /// Upstream's name for it.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($text),)*
                    _ => None, // a code from a peer, or from the future
                }
            }
        }
    };
}

error_codes! {
    /// Success.
    OK = 0, "OK";
    /// Marker: codes between this and `API_ERROR` are the system's.
    SYSTEM_ERROR = -1, "SYSTEMERROR";
    /// Operations of a multi behind the one that failed.
    RUNTIME_INCONSISTENCY = -2, "RUNTIMEINCONSISTENCY";
    /// Data is inconsistent.
    DATA_INCONSISTENCY = -3, "DATAINCONSISTENCY";
    /// Client side: the connection was lost.
    CONNECTION_LOSS = -4, "CONNECTIONLOSS";
    /// The body of a request could not be decoded.
    MARSHALLING_ERROR = -5, "MARSHALLINGERROR";
    /// Unknown or disabled operation.
    UNIMPLEMENTED = -6, "UNIMPLEMENTED";
    /// Client side: no answer in time.
    OPERATION_TIMEOUT = -7, "OPERATIONTIMEOUT";
    /// Bad path, flags or TTL.
    BAD_ARGUMENTS = -8, "BADARGUMENTS";
    /// The session is not known here.
    UNKNOWN_SESSION = -12, "UNKNOWNSESSION";
    /// reconfig: no synced quorum of the new configuration.
    NEW_CONFIG_NO_QUORUM = -13, "NEWCONFIGNOQUORUM";
    /// reconfig: another one is in progress.
    RECONFIG_IN_PROGRESS = -14, "RECONFIGINPROGRESS";
    /// Marker: this and below are the interface's own codes.
    API_ERROR = -100, "APIERROR";
    /// The znode does not exist.
    NO_NODE = -101, "NONODE";
    /// The ACL does not allow it.
    NO_AUTH = -102, "NOAUTH";
    /// The expected version is not the current one.
    BAD_VERSION = -103, "BADVERSION";
    /// Ephemeral znodes have no children.
    NO_CHILDREN_FOR_EPHEMERALS = -108, "NOCHILDRENFOREPHEMERALS";
    /// The znode exists.
    NODE_EXISTS = -110, "NODEEXISTS";
    /// The znode has children.
    NOT_EMPTY = -111, "NOTEMPTY";
    /// The session has expired or is closing.
    SESSION_EXPIRED = -112, "SESSIONEXPIRED";
    /// Client side: bad callback.
    INVALID_CALLBACK = -113, "INVALIDCALLBACK";
    /// The ACL is not valid.
    INVALID_ACL = -114, "INVALIDACL";
    /// Authentication failed; the connection is closed.
    AUTH_FAILED = -115, "AUTHFAILED";
    /// The session moved to another connection.
    SESSION_MOVED = -118, "SESSIONMOVED";
    /// A write was sent to a read-only server.
    NOT_READ_ONLY = -119, "NOTREADONLY";
    /// An ephemeral znode needs a global session.
    EPHEMERAL_ON_LOCAL_SESSION = -120, "EPHEMERALONLOCALSESSION";
    /// No such watch.
    NO_WATCHER = -121, "NOWATCHER";
    /// Client side: the request timed out.
    REQUEST_TIMEOUT = -122, "REQUESTTIMEOUT";
    /// reconfig is disabled.
    RECONFIG_DISABLED = -123, "RECONFIGDISABLED";
    /// The server requires SASL or another authentication.
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124, "SESSIONCLOSEDREQUIRESASLAUTH";
    /// A hard quota is reached.
    QUOTA_EXCEEDED = -125, "QUOTAEXCEEDED";
    /// The request waited too long and was not executed.
    THROTTLED_OP = -127, "THROTTLEDOP";
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for ErrorCode {}

crate::ids::field!(ErrorCode(i32));
