//! The digest of the tree: one CRC-32 per znode, added up (facts, section 4.5); and what it was.

use std::collections::VecDeque;

use zk_proto::Zxid;
use zk_proto::data::StatPersisted;

/// The version of the formula, as [`zk_proto::txn::TxnDigest`] names it.
pub const DIGEST_VERSION: i32 = 2;

/// The digest after every zxid that this divides is remembered (`DataTree.DIGEST_LOG_INTERVAL`): the
/// same ones on every member, so that members can be compared while transactions go on.
pub const DIGEST_LOG_INTERVAL: i64 = 128;

/// So many digests are remembered (`DataTree.DIGEST_LOG_LIMIT`).
pub const DIGEST_LOG_LIMIT: usize = 1024;

/// Everything below this is left out: usage nodes change without transactions.
const EXCLUDED: &str = "/zookeeper/";

const STAT_LEN: usize = 60;

/// Short inputs are put together here: the CRC is several times faster over one buffer.
const BUFFER_LEN: usize = 512;

/// The digest that a tree had after a transaction (`DataTree.ZxidDigest`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZxidDigest {
    /// The transaction.
    pub zxid: Zxid,
    /// The digest; 0 where none is kept.
    pub digest: u64,
}

/// The digests that a tree had, oldest first.
#[derive(Debug, Default)]
pub(crate) struct DigestLog(VecDeque<ZxidDigest>);

impl DigestLog {
    /// The tree has `digest` after `zxid`.
    pub(crate) fn note(&mut self, zxid: Zxid, digest: u64) {
        if zxid.0 % DIGEST_LOG_INTERVAL != 0 {
            return;
        }
        if self.0.len() == DIGEST_LOG_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(ZxidDigest { zxid, digest });
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = ZxidDigest> {
        self.0.iter().copied()
    }
}

/// A znode's part in the digest of its tree; 0 below `/zookeeper/`.
#[must_use]
pub fn node_digest(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u64 {
    u64::from(node_digest32(path, data, stat))
}

pub(crate) fn node_digest32(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    if path.starts_with(EXCLUDED) {
        return 0;
    }
    // The root has two names; the digest knows the empty one.
    let path = if path == "/" { "" } else { path };
    let data = data.unwrap_or_default();
    let stat = stat_bytes(stat);
    let len = path.len() + data.len() + STAT_LEN;
    if len <= BUFFER_LEN {
        let mut buffer = [0; BUFFER_LEN];
        let (path_part, rest) = buffer.split_at_mut(path.len());
        let (data_part, rest) = rest.split_at_mut(data.len());
        path_part.copy_from_slice(path.as_bytes());
        data_part.copy_from_slice(data);
        rest[..STAT_LEN].copy_from_slice(&stat);
        return crc32fast::hash(&buffer[..len]);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(path.as_bytes());
    crc.update(data);
    crc.update(&stat);
    crc.finalize()
}

fn stat_bytes(stat: &StatPersisted) -> [u8; STAT_LEN] {
    let mut bytes = [0; STAT_LEN];
    let longs = [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime];
    let ints = [stat.version, stat.cversion, stat.aversion];
    let (long_part, rest) = bytes.split_at_mut(40);
    let (int_part, owner_part) = rest.split_at_mut(12);
    for (place, long) in long_part.chunks_exact_mut(8).zip(longs) {
        place.copy_from_slice(&long.to_be_bytes());
    }
    for (place, int) in int_part.chunks_exact_mut(4).zip(ints) {
        place.copy_from_slice(&int.to_be_bytes());
    }
    owner_part.copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut log = DigestLog::default();
        let epoch = 7 << 32;
        for counter in 1..=(DIGEST_LOG_INTERVAL * (DIGEST_LOG_LIMIT as i64 + 2) + 1) {
            log.note(Zxid(epoch | counter), counter.cast_unsigned() * 3);
        }
        assert_eq!(log.iter().len(), DIGEST_LOG_LIMIT);
        let third = epoch | (3 * DIGEST_LOG_INTERVAL);
        for (entry, zxid) in log.iter().zip((third..).step_by(128)) {
            let digest = (zxid - epoch).cast_unsigned() * 3;
            assert_eq!(entry, ZxidDigest { zxid: Zxid(zxid), digest });
        }
    }
}
