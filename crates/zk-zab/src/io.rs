use bytes::Bytes;
use zk_proto::{Epoch, Zxid};

/// Names a write, so that its completion can be told. Tokens grow: a completion stands for every
/// write up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the peer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A transaction to agree on; only a leader is asked. Its zxid is the one after the last.
    Propose {
        /// The transaction's id.
        zxid: Zxid,
        /// Header, body and digest as they are logged.
        txn: Bytes,
    },
    /// All writes up to `token` are on disk.
    Persisted {
        /// The last of them.
        token: Token,
    },
}

/// A change of the durable stream. Writes take effect in the order they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A transaction behind the last one.
    Append {
        /// Its id.
        zxid: Zxid,
        /// Its bytes.
        txn: Bytes,
    },
    /// The highest epoch that the peer has promised to.
    AcceptedEpoch(Epoch),
    /// The epoch whose leader's history the peer has.
    CurrentEpoch(Epoch),
    /// Everything behind `Zxid` is void.
    Truncate(Zxid),
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put `write` behind the writes before it, then answer with [`Input::Persisted`].
    Persist {
        /// The write's name.
        token: Token,
        /// The write.
        write: Write,
    },
    /// Everything up to `zxid` is committed: apply it.
    Deliver {
        /// The last committed transaction.
        zxid: Zxid,
    },
}
