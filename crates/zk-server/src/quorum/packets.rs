//! Packets of the quorum port: nothing stands before them that says how long they are.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{DecodeError, Reader, Record, Zxid};

const TYPE_AND_ZXID_LEN: usize = 4 + 8;
const LEN_LEN: usize = 4;

/// A client has shown this many ids at most: each is one authentication of its connection.
const IDS_MAX: usize = 1024;

/// The longest scheme or id.
const ID_LEN_MAX: usize = 64 << 10;

/// A learner's first packet is far below this (32 bytes of data at most).
pub(crate) const FIRST_PACKET_DATA_MAX: usize = 1024;

/// Why bytes are no packets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("a packet of type {packet_type} claims {len} bytes of {what}; {max} are allowed")]
    Length { packet_type: PacketType, what: &'static str, len: i32, max: usize },
    #[error("a packet cannot be read: {0}")]
    Malformed(#[from] DecodeError),
}

/// What stands behind the packets that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nothing, or the beginning of a packet.
    Packets,
    /// A `SNAP` packet was the last one, with this zxid: its stream follows.
    Snapshot(Zxid),
}

/// Takes every whole packet off the front of `unread`; a `SNAP` packet is taken, ends it, and is not
/// among `out`. Only what has really come is kept: a claimed length costs nothing.
///
/// # Errors
/// What is there cannot be a packet. Those before it are in `out`.
pub(crate) fn take(
    unread: &mut BytesMut,
    data_max: usize,
    out: &mut VecDeque<QuorumPacket>,
) -> Result<Behind, PacketError> {
    let mut end = 0;
    let mut bad = None;
    let mut snapshot = false;
    loop {
        let rest = &unread[end..];
        match packet_len(rest, data_max) {
            Ok(Some(len)) => {
                snapshot = type_of(rest) == Some(PacketType::SNAP);
                end += len;
                if snapshot {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                bad = Some(error);
                break;
            }
        }
    }
    if end > 0 {
        let whole: Bytes = unread.split_to(end).freeze();
        let mut reader = Reader::new(&whole);
        while reader.remaining() > 0 {
            out.push_back(QuorumPacket::parse(&mut reader)?);
        }
    }
    match bad {
        Some(error) => Err(error),
        None if snapshot => {
            let packet = out.pop_back().expect("the SNAP packet was decoded last");
            Ok(Behind::Snapshot(packet.zxid))
        }
        None => Ok(Behind::Packets),
    }
}

fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

fn type_of(bytes: &[u8]) -> Option<PacketType> {
    int_at(bytes, 0).map(PacketType)
}

/// How long the packet at the front is; `None` while too little of it has come to tell.
fn packet_len(bytes: &[u8], data_max: usize) -> Result<Option<usize>, PacketError> {
    let Some(packet_type) = type_of(bytes) else { return Ok(None) };
    let bounded = |len: i32, max: usize, what| match usize::try_from(len) {
        Ok(len) if len <= max => Ok(len),
        Err(_) if len == -1 => Ok(0), // null
        Ok(_) | Err(_) => Err(PacketError::Length { packet_type, what, len, max }),
    };
    let Some(data) = int_at(bytes, TYPE_AND_ZXID_LEN) else { return Ok(None) };
    let mut end = TYPE_AND_ZXID_LEN + LEN_LEN + bounded(data, data_max, "data")?;
    let Some(ids) = int_at(bytes, end) else { return Ok(None) };
    end += LEN_LEN;
    for _ in 0..2 * bounded(ids, IDS_MAX, "authinfo")? {
        let Some(text) = int_at(bytes, end) else { return Ok(None) };
        end += LEN_LEN + bounded(text, ID_LEN_MAX, "an id")?;
    }
    Ok((bytes.len() >= end).then_some(end))
}

#[cfg(test)]
mod tests {
    use zk_proto::acl::Id;

    use super::*;

    fn packet(packet_type: PacketType, zxid: i64, data: Option<&'static [u8]>) -> QuorumPacket {
        let data = data.map(Bytes::from_static);
        QuorumPacket { packet_type, zxid: Zxid(zxid), data, authinfo: None }
    }

    fn some() -> Vec<QuorumPacket> {
        let mut forwarded = packet(PacketType::REQUEST, -1, Some(b"request"));
        forwarded.authinfo = Some(vec![Id::new("ip", "127.0.0.1"), Id::new("digest", "u:p")]);
        let mut empty = packet(PacketType::REQUEST, -1, Some(b""));
        empty.authinfo = Some(vec![]);
        vec![
            packet(PacketType::PROPOSAL, 5, Some(b"a transaction")),
            packet(PacketType::COMMIT, 5, None),
            forwarded,
            packet(PacketType::PING, 6, Some(b"")),
            empty,
        ]
    }

    fn encoded(packets: &[QuorumPacket]) -> BytesMut {
        let mut out = BytesMut::new();
        for packet in packets {
            packet.encode(&mut out);
        }
        out
    }

    #[test]
    fn packets_come_whole_wherever_the_stream_is_cut() {
        let stream = encoded(&some());
        for cut in 0..=stream.len() {
            let (mut unread, mut out) = (BytesMut::from(&stream[..cut]), VecDeque::new());
            assert_eq!(take(&mut unread, 100, &mut out).unwrap(), Behind::Packets);
            unread.extend_from_slice(&stream[cut..]);
            assert_eq!(take(&mut unread, 100, &mut out).unwrap(), Behind::Packets);
            assert_eq!(out, some(), "cut at {cut}");
            assert!(unread.is_empty());
        }
    }

    #[test]
    fn what_follows_a_snap_packet_is_left_alone() {
        let mut stream = encoded(&[
            packet(PacketType::PROPOSAL, 5, Some(b"x")),
            packet(PacketType::SNAP, 9, None),
        ]);
        stream.extend_from_slice(b"\xff\xff\xff\xff whatever");
        let mut out = VecDeque::new();
        assert_eq!(take(&mut stream, 100, &mut out).unwrap(), Behind::Snapshot(Zxid(9)));
        assert_eq!(out, [packet(PacketType::PROPOSAL, 5, Some(b"x"))]);
        assert_eq!(&stream[..], b"\xff\xff\xff\xff whatever");
    }

    #[test]
    fn claims_beyond_the_limits_are_refused_before_their_bytes_come() {
        let good = encoded(&some()[..1]);
        let mut out = VecDeque::new();
        for (at, value) in
            [(12, 101), (12, -2), (12, i32::MAX), (12, i32::MIN), (good.len() - 4, 1025)]
        {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
            let mut unread = good.clone();
            unread.extend_from_slice(&bad);
            out.clear();
            assert!(take(&mut unread, 100, &mut out).is_err(), "{value} at {at}");
            assert_eq!(out.len(), 1, "what came before it is there");
        }
        let mut id = encoded(&some()[2..3]);
        let at = id.windows(2).position(|two| two == b"ip").unwrap() - 4;
        id[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(take(&mut id, 100, &mut out).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let stream = encoded(&some());
        for _ in 0..20_000 {
            let mut bytes = stream.clone();
            for _ in 0..=random() % 4 {
                let at = usize::try_from(random()).unwrap() % bytes.len();
                bytes[at] = u8::try_from(random() % 256).unwrap();
            }
            let mut out = VecDeque::new();
            if take(&mut bytes, 1 << 20, &mut out).is_ok() {
                assert!(out.len() <= 16);
            }
        }
    }
}
