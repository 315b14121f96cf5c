//! `org.apache.zookeeper.server.persistence`: the records of transaction logs and snapshots that are
//! no transactions (facts, sections 4.2 and 4.3).

use zk_jute::{Buffer, records};

use crate::acl::Acl;
use crate::data::StatPersisted;
use crate::{SessionId, Zxid};

records! {
    /// The first 16 bytes of a log or snapshot.
    #[derive(Copy)]
    FileHeader { magic: i32, version: i32, dbid: i64 }
    /// A session in a snapshot; the timeout in ms.
    #[derive(Copy)]
    SnapshotSession { session_id: SessionId, timeout_ms: i32 }
    /// An entry of a snapshot's table of ACLs.
    SnapshotAcl { key: i64, acl: Vec<Acl> }
    /// A znode in a snapshot, parents first; the root's path is empty. An ACL key of −1 is
    /// [`Acl::open`]. The path `/` ends the list and has nothing behind it.
    SnapshotNode { path: String, data: Buffer, acl_key: i64, stat: StatPersisted }
    /// The tree's digest, behind the first seal.
    #[derive(Copy)]
    SnapshotDigest { zxid: Zxid, version: i32, digest: i64 }
    /// A checksum of everything before it (Adler-32, of the bytes since the file's first), and `/`.
    Seal { checksum: i64, end: String }
}

impl FileHeader {
    /// "ZKLG"
    pub const LOG_MAGIC: i32 = 0x5a4b_4c47;
    /// "ZKSN"
    pub const SNAPSHOT_MAGIC: i32 = 0x5a4b_534e;
    /// The version of both formats.
    pub const VERSION: i32 = 2;

    /// The header of a transaction log.
    pub const LOG: Self = Self { magic: Self::LOG_MAGIC, version: Self::VERSION, dbid: 0 };
    /// The header of a snapshot.
    pub const SNAPSHOT: Self =
        Self { magic: Self::SNAPSHOT_MAGIC, version: Self::VERSION, dbid: -1 };
}

/// Begins the checksum that logs and seals use.
pub const ADLER32_START: u32 = 1;

/// Adds bytes to an Adler-32 checksum (RFC 1950), which starts as [`ADLER32_START`].
#[must_use]
pub fn adler32(checksum: u32, bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    // The most bytes after which the sums still fit 32 bits (zlib's NMAX).
    const CHUNK: usize = 5552;
    let (mut a, mut b) = (checksum & 0xffff, checksum >> 16);
    for chunk in bytes.chunks(CHUNK) {
        for &byte in chunk {
            a += u32::from(byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        assert_eq!(adler32(ADLER32_START, b""), 1);
        assert_eq!(adler32(ADLER32_START, b"Wikipedia"), 0x11e6_0398);
        // The sums are largest here: a chunk that is too long would overflow.
        assert_eq!(adler32(ADLER32_START, &[0xff; 100_000]), 0x149a_302c);
    }

    #[test]
    fn a_checksum_can_be_continued() {
        let whole: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        let (front, back) = whole.split_at(7777);
        assert_eq!(adler32(adler32(ADLER32_START, front), back), adler32(ADLER32_START, &whole));
    }
}
