use std::fmt;

/// A transaction id: the epoch in the high 32 bits, a counter within it in the low 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

/// The period of one leader. Accepted and current epochs are of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub i32);

/// A session's id; the top byte names the server that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

/// A server's number in its ensemble (`myid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServerId(pub i64);

/// A request's number, chosen by its client; negative ones are reserved (facts, section 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xid(pub i32);

impl Zxid {
    /// Before every transaction.
    pub const ZERO: Self = Self(0);

    /// The zxid of an epoch's `counter`th transaction.
    #[must_use]
    pub fn new(epoch: Epoch, counter: u32) -> Self {
        Self((i64::from(epoch.0) << 32) | i64::from(counter))
    }

    /// The epoch that it belongs to.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the high half is an i32")]
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as i32)
    }

    /// Its number within the epoch.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low half")]
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The one after it, in the same epoch.
    ///
    /// # Panics
    /// When the counter is used up: a leader must hand over before (ZOOKEEPER-1277).
    #[must_use]
    pub fn next(self) -> Self {
        assert!(self.counter() != u32::MAX, "the counter of zxid {self} is used up");
        Self(self.0 + 1)
    }
}

impl Xid {
    /// Header of a [`crate::proto::WatcherEvent`].
    pub const NOTIFICATION: Self = Self(-1);
    /// A ping and its reply.
    pub const PING: Self = Self(-2);
    /// An auth packet and its reply.
    pub const AUTH: Self = Self(-4);
    /// setWatches after a reconnect; its reply is in the client's FIFO.
    pub const SET_WATCHES: Self = Self(-8);
}

macro_rules! hex_display {
    ($($name:ident),*) => {$(
        /// In hexadecimal, as ZooKeeper prints it.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{:x}", self.0)
            }
        }
    )*};
}
hex_display!(Zxid, SessionId, Epoch);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! field {
    ($($name:ident($inner:ty)),*) => {$(
        impl zk_jute::Field for $name {
            const MIN_LEN: usize = <$inner as zk_jute::Field>::MIN_LEN;

            fn parse_field(
                reader: &mut zk_jute::Reader<'_>,
                field: &'static str,
            ) -> Result<Self, zk_jute::DecodeError> {
                <$inner as zk_jute::Field>::parse_field(reader, field).map(Self)
            }

            fn encode_field(&self, out: &mut bytes::BytesMut) {
                zk_jute::Field::encode_field(&self.0, out);
            }
        }
    )*};
}
field!(Zxid(i64), SessionId(i64), ServerId(i64), Xid(i32));
pub(crate) use field;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zxid_is_epoch_and_counter() {
        let zxid = Zxid::new(Epoch(3), 0xffff_fffe);
        assert_eq!((zxid.epoch(), zxid.counter()), (Epoch(3), 0xffff_fffe));
        assert_eq!(zxid.next().0, 0x3_ffff_ffff);
        assert_eq!(zxid.to_string(), "0x3fffffffe");
    }

    #[test]
    #[should_panic(expected = "used up")]
    fn the_counter_never_runs_into_the_epoch() {
        let _ = Zxid::new(Epoch(3), u32::MAX).next();
    }
}
