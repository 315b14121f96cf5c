//! One record of the log, as bytes (little endian, starting at a multiple of eight):
//!
//! | bytes | field | |
//! |---|---|---|
//! | 4 | length | of the payload |
//! | 1 | kind | [`Kind`]; 0 is where nothing was written |
//! | 3 | zeros | |
//! | 8 | zxid | for the epoch kinds, the epoch |
//! | 4 | durable | the log was known durable up to this offset of the segment when this was written |
//! | length | payload | |
//! | 0 to 7 | zeros | so that the next record starts at a multiple of eight |
//! | 4 | checksum | CRC-32, seeded with the segment's identity, of the four bytes in front of the record and all of the above |
//!
//! The four bytes in front of a record are the checksum of the one before it, so the records of a
//! segment form a chain, and yet each can be verified where it stands: that is how damage to
//! acknowledged data is told from a torn tail.

use crate::txn_log::error::Problem;

/// Length of the fields before the payload.
pub(crate) const HEADER_LEN: usize = 20;
/// Length of a checksum.
pub(crate) const CHECKSUM_LEN: usize = 4;

/// What a record says. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A writer starts here: first in each segment, and first after each opening of the log.
    Start = 1,
    /// A transaction.
    Txn = 2,
    /// The accepted epoch from here on.
    AcceptedEpoch = 3,
    /// The current epoch from here on.
    CurrentEpoch = 4,
    /// All transactions before this record and above its zxid are void.
    Truncate = 5,
    /// All transactions before this record are void: a snapshot of its zxid stands for them. The
    /// payload is the snapshot's id.
    Install = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Start,
            Self::Txn,
            Self::AcceptedEpoch,
            Self::CurrentEpoch,
            Self::Truncate,
            Self::Install,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The fields before the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_len: u32,
    pub(crate) kind: Kind,
    pub(crate) zxid: i64,
    pub(crate) durable: u32,
}

impl Header {
    /// `None` if no record can start with these bytes.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [l0, l1, l2, l3, kind, 0, 0, 0, z0, z1, z2, z3, z4, z5, z6, z7, d0, d1, d2, d3] =
            *bytes
        else {
            return None;
        };
        Some(Self {
            payload_len: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: Kind::from_byte(kind)?,
            zxid: i64::from_le_bytes([z0, z1, z2, z3, z4, z5, z6, z7]),
            durable: u32::from_le_bytes([d0, d1, d2, d3]),
        })
    }

    /// Length of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.payload_len as usize) as u64
    }
}

/// Length of a record with such a payload.
pub(crate) const fn record_len(payload_len: usize) -> usize {
    (HEADER_LEN + payload_len + CHECKSUM_LEN).next_multiple_of(8)
}

/// Appends a record. `out` already ends with the four bytes that stand in front of it in the file.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    seed: u32,
    kind: Kind,
    zxid: i64,
    durable: u32,
    payload: &[u8],
) {
    let covered_from = out.len() - CHECKSUM_LEN;
    let payload_len = u32::try_from(payload.len()).expect("a payload is far below 4 GiB");
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&payload_len.to_le_bytes());
    header[4] = kind as u8;
    header[8..16].copy_from_slice(&zxid.to_le_bytes());
    header[16..].copy_from_slice(&durable.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    let checksum_at = covered_from + record_len(payload.len());
    out.resize(checksum_at, 0);
    let checksum = checksum(seed, &out[covered_from..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Verifies one whole record with the four bytes in front of it.
pub(crate) fn verify(seed: u32, covered_and_checksum: &[u8]) -> Result<(), Problem> {
    let (covered, found) =
        covered_and_checksum.split_last_chunk().expect("a record holds its checksum");
    let (expected, found) = (checksum(seed, covered), u32::from_le_bytes(*found));
    if expected == found { Ok(()) } else { Err(Problem::Checksum { expected, found }) }
}

fn checksum(seed: u32, covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(covered);
    hasher.finalize()
}

/// Payload of a [`Kind::Start`] record; its zxid field is the last zxid of the log before it.
///
/// It ties a segment to the one before it, lets the log begin with any segment once earlier ones
/// are purged, and its nonce keeps what a torn write left behind the end of the log from ever
/// being read as a continuation of what is written there later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Where the record before this one ended, in its own segment; 0 at the very first.
    pub(crate) previous_end: u64,
    /// The checksum of the record before this one; 0 at the very first.
    pub(crate) previous_checksum: u32,
    pub(crate) accepted_epoch: i32,
    pub(crate) current_epoch: i32,
    /// Random, drawn at each opening of the log.
    pub(crate) nonce: u64,
}

impl Start {
    pub(crate) const LEN: usize = 28;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.previous_checksum.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.accepted_epoch.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.current_epoch.to_le_bytes());
        bytes[20..].copy_from_slice(&self.nonce.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (previous_end, rest) = bytes.split_first_chunk()?;
        let (previous_checksum, rest) = rest.split_first_chunk()?;
        let (accepted_epoch, rest) = rest.split_first_chunk()?;
        let (current_epoch, rest) = rest.split_first_chunk()?;
        Some(Self {
            previous_end: u64::from_le_bytes(*previous_end),
            previous_checksum: u32::from_le_bytes(*previous_checksum),
            accepted_epoch: i32::from_le_bytes(*accepted_epoch),
            current_epoch: i32::from_le_bytes(*current_epoch),
            nonce: u64::from_le_bytes(rest.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(seed: u32, front: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = front.to_vec();
        encode(&mut out, seed, Kind::Txn, 7, 4096, payload);
        out
    }

    #[test]
    fn a_record_fills_multiples_of_eight_and_reads_back() {
        for len in 0..64 {
            let payload = vec![b'x'; len];
            let out = encoded(1, [9; 4], &payload);
            assert_eq!((out.len() - 4, (out.len() - 4) % 8), (record_len(len), 0));
            let header = Header::parse(out[4..24].try_into().unwrap()).unwrap();
            let expected = Header {
                payload_len: u32::try_from(len).unwrap(),
                kind: Kind::Txn,
                zxid: 7,
                durable: 4096,
            };
            assert_eq!(header, expected);
            assert_eq!(header.record_len(), record_len(len) as u64);
            assert_eq!(out[24..24 + len], payload);
            assert_eq!(verify(1, &out), Ok(()));
        }
    }

    #[test]
    fn any_flipped_bit_another_front_and_another_segment_are_noticed() {
        let good = encoded(1, [9; 4], b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(1, &bad).is_err(), "bit {bit}");
        }
        assert!(verify(2, &good).is_err());
    }

    #[test]
    fn zeros_and_unknown_kinds_are_no_record() {
        assert_eq!(Header::parse(&[0; HEADER_LEN]), None);
        let mut bytes = [0; HEADER_LEN];
        bytes[4] = 7;
        assert_eq!(Header::parse(&bytes), None);
        bytes[4] = 2;
        assert!(Header::parse(&bytes).is_some());
        bytes[5] = 1;
        assert_eq!(Header::parse(&bytes), None);
    }

    #[test]
    fn a_start_reads_back() {
        let start = Start {
            previous_end: 1 << 40,
            previous_checksum: 2,
            accepted_epoch: 3,
            current_epoch: -4,
            nonce: 5,
        };
        assert_eq!(Start::from_bytes(&start.to_bytes()), Some(start));
        assert_eq!(Start::from_bytes(&start.to_bytes()[1..]), None);
    }
}
