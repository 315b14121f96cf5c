use std::fmt;

macro_rules! opcodes {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// An operation's number (`ZooDefs.OpCode`); open, because peers send what they like.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct OpCode(pub i32);

        impl OpCode {
            $($(#[$meta])* pub const $name: Self = Self($code);)*

            /// Upstream's name for it.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($text),)*
                    _ => None, // a number from a peer
                }
            }
        }
    };
}

opcodes! {
    /// Server to client only.
    NOTIFICATION = 0, "notification";
    /// Creates a znode; answers with its path.
    CREATE = 1, "create";
    /// Deletes a znode.
    DELETE = 2, "delete";
    /// A znode's stat, if it exists.
    EXISTS = 3, "exists";
    /// A znode's data and stat.
    GET_DATA = 4, "getData";
    /// Replaces a znode's data.
    SET_DATA = 5, "setData";
    /// A znode's ACL and stat.
    GET_ACL = 6, "getACL";
    /// Replaces a znode's ACL.
    SET_ACL = 7, "setACL";
    /// The names of a znode's children.
    GET_CHILDREN = 8, "getChildren";
    /// Waits for the writes before it.
    SYNC = 9, "sync";
    /// Keeps the session alive.
    PING = 11, "ping";
    /// The names of a znode's children, and its stat.
    GET_CHILDREN2 = 12, "getChildren2";
    /// Checks a version; only within a multi.
    CHECK = 13, "check";
    /// Several writes as one transaction.
    MULTI = 14, "multi";
    /// Creates a znode; answers with its path and stat.
    CREATE2 = 15, "create2";
    /// Changes the ensemble's membership.
    RECONFIG = 16, "reconfig";
    /// Whether a watch is set.
    CHECK_WATCHES = 17, "checkWatches";
    /// Removes a watch.
    REMOVE_WATCHES = 18, "removeWatches";
    /// Creates a container.
    CREATE_CONTAINER = 19, "createContainer";
    /// Internal: removes an empty container or an expired TTL znode.
    DELETE_CONTAINER = 20, "deleteContainer";
    /// Creates a znode with a time to live.
    CREATE_TTL = 21, "createTTL";
    /// Several reads in one request.
    MULTI_READ = 22, "multiRead";
    /// Adds an authentication to the connection.
    AUTH = 100, "auth";
    /// Sets watches again after a reconnect.
    SET_WATCHES = 101, "setWatches";
    /// A SASL token.
    SASL = 102, "sasl";
    /// The ephemeral znodes of the session.
    GET_EPHEMERALS = 103, "getEphemerals";
    /// The number of all descendants.
    GET_ALL_CHILDREN_NUMBER = 104, "getAllChildrenNumber";
    /// [`Self::SET_WATCHES`] with persistent watches.
    SET_WATCHES2 = 105, "setWatches2";
    /// Adds a persistent watch.
    ADD_WATCH = 106, "addWatch";
    /// The connection's authentications.
    WHO_AM_I = 107, "whoAmI";
    /// Internal: a session begins.
    CREATE_SESSION = -10, "createSession";
    /// A session ends.
    CLOSE_SESSION = -11, "closeSession";
    /// A transaction that failed, and a failed operation of a multi.
    ERROR = -1, "error";
}

impl fmt::Debug for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "opcode {}", self.0),
        }
    }
}

crate::ids::field!(OpCode(i32));
