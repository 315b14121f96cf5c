//! `org.apache.zookeeper.server.quorum`: what servers say to each other (facts, sections 3.1 to 3.4).
//!
//! The quorum port carries [`QuorumPacket`]s, without a length before them; their data depends on the
//! type, and has records here too. The election port carries one [`ElectionHello`] from the dialer,
//! then frames with [`Notification`]s in both directions; these two are no jute records upstream.

use std::fmt;

use bytes::{Bytes, BytesMut};
use zk_jute::{
    Buffer, DecodeError, DecodeErrorKind, Field, Reader, Record, put_buffer, put_long, records,
};

use crate::acl::Id;
use crate::{OpCode, ServerId, SessionId, Xid, Zxid};

macro_rules! packet_types {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// A quorum packet's type (constants of `Leader`); open, because peers send what they like.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct PacketType(pub i32);

        impl PacketType {
            $($(#[$meta])* pub const $name: Self = Self($code);)*

            /// Every type there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

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

packet_types! {
    /// Learner to leader: a client's write, as [`ForwardedRequest`].
    REQUEST = 1, "REQUEST";
    /// Leader to participant: a [`crate::txn::LoggedTxn`].
    PROPOSAL = 2, "PROPOSAL";
    /// Learner to leader: the transaction is on disk.
    ACK = 3, "ACK";
    /// Leader to participant: the proposal is committed.
    COMMIT = 4, "COMMIT";
    /// Both: alive. A learner's answer carries [`SessionTimeout`]s, without a count.
    PING = 5, "PING";
    /// A session moved: asked with a [`SessionTimeout`], answered with a [`SessionValid`].
    REVALIDATE = 6, "REVALIDATE";
    /// Leader to learner: its oldest sync is done.
    SYNC = 7, "SYNC";
    /// Leader to observer: a committed [`crate::txn::LoggedTxn`].
    INFORM = 8, "INFORM";
    /// [`Self::COMMIT`] of a reconfiguration; the data is the designated leader, a `long`.
    COMMIT_AND_ACTIVATE = 9, "COMMITANDACTIVATE";
    /// Leader to learner: the history is complete; the data is the leader's configuration, as text.
    NEW_LEADER = 10, "NEWLEADER";
    /// A follower's first packet: [`LearnerInfo`].
    FOLLOWER_INFO = 11, "FOLLOWERINFO";
    /// Leader to learner: serve.
    UP_TO_DATE = 12, "UPTODATE";
    /// Leader to learner: proposals and commits follow.
    DIFF = 13, "DIFF";
    /// Leader to learner: forget what is behind this zxid.
    TRUNC = 14, "TRUNC";
    /// Leader to learner: a snapshot follows, as a bare stream.
    SNAP = 15, "SNAP";
    /// An observer's first packet: [`LearnerInfo`].
    OBSERVER_INFO = 16, "OBSERVERINFO";
    /// Leader to learner: the epoch that it proposes; [`LeaderInfo`].
    LEADER_INFO = 17, "LEADERINFO";
    /// Learner to leader: the epoch is accepted; [`AckEpoch`].
    ACK_EPOCH = 18, "ACKEPOCH";
    /// [`Self::INFORM`] of a reconfiguration: the designated leader, a `long`, then the transaction.
    INFORM_AND_ACTIVATE = 19, "INFORMANDACTIVATE";
}

impl fmt::Debug for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "packet type {}", self.0),
        }
    }
}

crate::ids::field!(PacketType(i32));

/// The protocol version of [`LearnerInfo`] and [`LeaderInfo`]: learners below it know no epochs.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// What ends the snapshot behind a `SNAP` packet, as a string.
pub const SNAPSHOT_SIGNATURE: &str = "BenWasHere";

records! {
    /// What travels on the quorum port, without a length before it. Only `REQUEST` fills `authinfo`.
    QuorumPacket { packet_type: PacketType, zxid: Zxid, data: Buffer, authinfo: Option<Vec<Id>> }
    /// Data of `FOLLOWERINFO` and `OBSERVERINFO`. See [`LearnerInfo::decode_tolerantly`].
    #[derive(Copy)]
    LearnerInfo { server_id: ServerId, protocol_version: i32, config_version: i64 }
    /// Data of `LEADERINFO`.
    #[derive(Copy)]
    LeaderInfo { protocol_version: i32 }
    /// Data of `ACKEPOCH`; −1: this epoch was accepted before and does not count as an ack.
    #[derive(Copy)]
    AckEpoch { current_epoch: i32 }
    /// A session and its timeout in ms: data of a learner's `REVALIDATE`, and one of a `PING`'s.
    #[derive(Copy)]
    SessionTimeout { session_id: SessionId, timeout_ms: i32 }
    /// Data of the leader's `REVALIDATE`.
    #[derive(Copy)]
    SessionValid { session_id: SessionId, valid: bool }
    /// First part of the data of `COMMITANDACTIVATE` and `INFORMANDACTIVATE`.
    #[derive(Copy)]
    DesignatedLeader { designated_leader: ServerId }
}

impl LearnerInfo {
    /// Reads as many fields as there are, as upstream does: each is missing in some older version.
    /// `None` when not even the id is there.
    #[must_use]
    pub fn decode_tolerantly(data: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(data);
        Some(Self {
            server_id: ServerId(reader.long("serverId").ok()?),
            protocol_version: reader.int("protocolVersion").unwrap_or_default(),
            config_version: reader.long("configVersion").unwrap_or_default(),
        })
    }
}

/// Data of `REQUEST`: whose request it is, and its body as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// The session.
    pub session_id: SessionId,
    /// The request's number within it.
    pub cxid: Xid,
    /// The operation.
    pub op: OpCode,
    /// Everything that is left.
    pub body: Bytes,
}

impl Record for ForwardedRequest {
    const NAME: &'static str = "ForwardedRequest";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            session_id: Field::parse_field(reader, "sessionId")?,
            cxid: Field::parse_field(reader, "cxid")?,
            op: Field::parse_field(reader, "type")?,
            body: reader.take_rest(),
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.session_id.encode_field(out);
        self.cxid.encode_field(out);
        self.op.encode_field(out);
        out.extend_from_slice(&self.body);
    }
}

/// The data of a learner's `PING`: the sessions it heard from, one behind the other.
///
/// # Errors
/// The last one is incomplete.
pub fn decode_touched_sessions(data: &Bytes) -> Result<Vec<SessionTimeout>, DecodeError> {
    let mut reader = Reader::new(data);
    let mut sessions = Vec::new();
    while reader.remaining() > 0 {
        sessions.push(SessionTimeout::parse(&mut reader)?);
    }
    Ok(sessions)
}

/// The longest address in an [`ElectionHello`], in bytes.
pub const HELLO_ADDRESS_LEN_MAX: i32 = 2048;

/// The dialer's first words on the election port: who it is, and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionHello {
    /// [`ElectionHello::V1`], or [`ElectionHello::V2`] with several addresses.
    pub protocol_version: i64,
    /// The dialer's id; `i64::MAX` for an observer that has none.
    pub server_id: ServerId,
    /// Its election address, `host:port`; in version 2 several, with `|` between them.
    pub address: String,
}

impl ElectionHello {
    /// One address.
    pub const V1: i64 = -65536;
    /// Several addresses (`multiAddress.enabled`).
    pub const V2: i64 = -65535;
}

impl Record for ElectionHello {
    const NAME: &'static str = "ElectionHello";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let protocol_version = reader.long("protocolVersion")?;
        if protocol_version != Self::V1 && protocol_version != Self::V2 {
            // 0 and above is an id, from servers before 3.5: they are not spoken to.
            let version = i32::try_from(protocol_version).unwrap_or(i32::MAX);
            return Err(DecodeError::new("protocolVersion", DecodeErrorKind::Unknown(version)));
        }
        let server_id = Field::parse_field(reader, "sid")?;
        let address = String::parse_field(reader, "address")?;
        match i32::try_from(address.len()) {
            Ok(1..=HELLO_ADDRESS_LEN_MAX) => Ok(Self { protocol_version, server_id, address }),
            Ok(len) => Err(DecodeError::new("address", DecodeErrorKind::Length(len))),
            Err(_) => Err(DecodeError::new("address", DecodeErrorKind::Length(i32::MAX))),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        put_long(out, self.protocol_version);
        self.server_id.encode_field(out);
        self.address.encode_field(out);
    }
}

/// What a server is doing, as its notifications say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerState {
    /// In an election.
    Looking,
    /// Behind a leader.
    Following,
    /// The leader.
    Leading,
    /// Behind a leader, without a vote.
    Observing,
}

impl PeerState {
    /// The state with this number on the wire.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Looking),
            1 => Some(Self::Following),
            2 => Some(Self::Leading),
            3 => Some(Self::Observing),
            _ => None, // a peer's number
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Looking => 0,
            Self::Following => 1,
            Self::Leading => 2,
            Self::Observing => 3,
        }
    }
}

/// A vote, in a frame on the election port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What the sender is doing.
    pub state: PeerState,
    /// Whom it proposes or follows; `i64::MIN` from an observer.
    pub leader: ServerId,
    /// That server's last logged zxid.
    pub zxid: Zxid,
    /// The sender's logical clock.
    pub round: i64,
    /// That server's current epoch.
    pub peer_epoch: i64,
    /// The format: 2 has a configuration, 0 was before there were versions.
    pub version: i32,
    /// The sender's configuration, as text; only from version 2 on.
    pub config: Option<String>,
}

impl Notification {
    /// The format that is sent.
    pub const VERSION: i32 = 2;

    /// Reads a frame's payload. Two older formats are told by their length: 28 bytes without the
    /// peer's epoch, and 40 bytes whose last four mean nothing. Bytes left over are ignored, as
    /// upstream does.
    ///
    /// # Errors
    /// The payload is too short, its state unknown, or its configuration longer than itself.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let state = reader.int("state")?;
        let leader = Field::parse_field(&mut reader, "leader")?;
        let zxid: Zxid = Field::parse_field(&mut reader, "zxid")?;
        let round = reader.long("electionEpoch")?;
        let (peer_epoch, version) = match payload.len() {
            28 => (i64::from(zxid.epoch().0), 0),
            40 => (reader.long("peerEpoch")?, 0),
            _ => (reader.long("peerEpoch")?, reader.int("version")?), // every length since 3.4.6
        };
        let config = match version {
            2.. => Some(String::parse_field(&mut reader, "config")?),
            _ => None, // older than configurations
        };
        let state = PeerState::from_code(state)
            .ok_or(DecodeError::new("state", DecodeErrorKind::Unknown(state)))?;
        Ok(Self { state, leader, zxid, round, peer_epoch, version, config })
    }

    /// Appends the payload to `out`, in the current format.
    pub fn encode(&self, out: &mut BytesMut) {
        self.state.code().encode_field(out);
        self.leader.encode_field(out);
        self.zxid.encode_field(out);
        put_long(out, self.round);
        put_long(out, self.peer_epoch);
        Self::VERSION.encode_field(out);
        put_buffer(out, Some(self.config.as_deref().unwrap_or_default().as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy(len: usize) -> Bytes {
        let mut out = BytesMut::new();
        PeerState::Leading.code().encode_field(&mut out);
        ServerId(3).encode_field(&mut out);
        Zxid(0x5_0000_0007).encode_field(&mut out);
        put_long(&mut out, 9);
        put_long(&mut out, 6);
        // What stood there in a 40-byte message was never a version.
        0x7fff.encode_field(&mut out);
        out.freeze().slice(..len)
    }

    #[test]
    fn older_notifications_are_told_by_their_length() {
        let oldest = Notification::decode(&legacy(28)).unwrap();
        assert_eq!((oldest.round, oldest.peer_epoch, oldest.version), (9, 5, 0));
        let old = Notification::decode(&legacy(40)).unwrap();
        assert_eq!((old.peer_epoch, old.version, old.config), (6, 0, None));
        for len in (0..40).filter(|&len| len != 28) {
            assert!(Notification::decode(&legacy(len)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn unknown_states_and_overlong_configurations_are_refused() {
        let good = Notification {
            state: PeerState::Looking,
            leader: ServerId(1),
            zxid: Zxid(0),
            round: 1,
            peer_epoch: 0,
            version: Notification::VERSION,
            config: Some("version=0".into()),
        };
        let mut out = BytesMut::new();
        good.encode(&mut out);
        assert_eq!(Notification::decode(&out.clone().freeze()), Ok(good));
        for (at, byte) in [(3, 4), (0, 0x80), (40, 0x7f), (40, 0xff), (43, 10)] {
            let mut bad = out.clone();
            bad[at] = byte;
            assert!(Notification::decode(&bad.freeze()).is_err(), "byte {at} = {byte}");
        }
    }

    #[test]
    fn a_hello_needs_a_known_version_and_an_address() {
        let hello = ElectionHello {
            protocol_version: ElectionHello::V2,
            server_id: ServerId(i64::MAX),
            address: "a:1|[::1]:2".into(),
        };
        assert_eq!(ElectionHello::decode(&hello.to_bytes()), Ok(hello.clone()));
        for bad in [
            ElectionHello { protocol_version: -65537, ..hello.clone() },
            ElectionHello { protocol_version: 1, ..hello.clone() },
            ElectionHello { address: String::new(), ..hello.clone() },
            ElectionHello { address: "x".repeat(2049), ..hello },
        ] {
            assert!(ElectionHello::decode(&bad.to_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn learner_info_may_end_early() {
        let info = LearnerInfo {
            server_id: ServerId(3),
            protocol_version: PROTOCOL_VERSION,
            config_version: 7,
        };
        let bytes = info.to_bytes();
        assert_eq!(LearnerInfo::decode_tolerantly(&bytes), Some(info));
        let old = LearnerInfo::decode_tolerantly(&bytes.slice(..12)).unwrap();
        assert_eq!((old.protocol_version, old.config_version), (PROTOCOL_VERSION, 0));
        let oldest = LearnerInfo::decode_tolerantly(&bytes.slice(..8)).unwrap();
        assert_eq!((oldest.server_id, oldest.protocol_version), (ServerId(3), 0));
        assert_eq!(LearnerInfo::decode_tolerantly(&bytes.slice(..7)), None);
    }
}
