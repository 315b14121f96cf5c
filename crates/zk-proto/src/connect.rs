//! The session handshake. Its last field came later: old clients neither send nor expect it.

use bytes::BytesMut;
use zk_jute::{Buffer, DecodeError, Field, Reader, Record};

use crate::{SessionId, Zxid};

/// The length of a session's password, in bytes.
pub const PASSWORD_LEN: usize = 16;

/// The first frame of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Always 0.
    pub protocol_version: i32,
    /// The highest zxid that the client has seen in a reply.
    pub last_zxid_seen: Zxid,
    /// The session timeout that it asks for, in ms.
    pub timeout_ms: i32,
    /// 0 for a new session.
    pub session_id: SessionId,
    /// The session's password.
    pub password: Buffer,
    /// Whether a read-only server will do. `None`: a client up to 3.3, which does not know the field.
    pub read_only: Option<bool>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Always 0.
    pub protocol_version: i32,
    /// The negotiated timeout in ms; 0 means that the session has expired.
    pub timeout_ms: i32,
    /// The session.
    pub session_id: SessionId,
    /// Its password.
    pub password: Buffer,
    /// Whether the server is read-only; left out for clients that did not send the field.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// "Your session has expired": all zero.
    #[must_use]
    pub fn expired(read_only: Option<bool>) -> Self {
        Self {
            protocol_version: 0,
            timeout_ms: 0,
            session_id: SessionId(0),
            password: Some(bytes::Bytes::from_static(&[0; PASSWORD_LEN])),
            read_only,
        }
    }
}

fn parse_last(reader: &mut Reader<'_>) -> Result<Option<bool>, DecodeError> {
    match reader.remaining() {
        0 => Ok(None),
        _ => reader.boolean("readOnly").map(Some), // one byte or more: the field is there
    }
}

fn encode_last(read_only: Option<bool>, out: &mut BytesMut) {
    if let Some(read_only) = read_only {
        read_only.encode_field(out);
    }
}

impl Record for ConnectRequest {
    const NAME: &'static str = "ConnectRequest";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol_version: reader.int("protocolVersion")?,
            last_zxid_seen: Zxid(reader.long("lastZxidSeen")?),
            timeout_ms: reader.int("timeOut")?,
            session_id: SessionId(reader.long("sessionId")?),
            password: reader.buffer("passwd")?,
            read_only: parse_last(reader)?,
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.protocol_version.encode_field(out);
        self.last_zxid_seen.encode_field(out);
        self.timeout_ms.encode_field(out);
        self.session_id.encode_field(out);
        self.password.encode_field(out);
        encode_last(self.read_only, out);
    }
}

impl Record for ConnectResponse {
    const NAME: &'static str = "ConnectResponse";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol_version: reader.int("protocolVersion")?,
            timeout_ms: reader.int("timeOut")?,
            session_id: SessionId(reader.long("sessionId")?),
            password: reader.buffer("passwd")?,
            read_only: parse_last(reader)?,
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.protocol_version.encode_field(out);
        self.timeout_ms.encode_field(out);
        self.session_id.encode_field(out);
        self.password.encode_field(out);
        encode_last(self.read_only, out);
    }
}
