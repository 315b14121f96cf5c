//! Keys and values of the state.
//!
//! | key | value |
//! |---|---|
//! | 1, path | znode: czxid, mzxid, ctime, mtime (8 bytes each), version, cversion, aversion (4 each), ephemeralOwner, pzxid (8 each), length of the data or -1 for null (4), data, ACL |
//! | 2, session id with its top bit flipped (8 bytes) | timeout in ms (4) |
//! | 3 | meta: format (4), store id (8), applied zxid (8), digest (8), time in ms (8) |
//!
//! Keys are big endian, so that they sort as their numbers do; values are little endian. The numbers
//! of the key types are on disk: never reuse one. Meta sorts last, so a checkpoint ends with it.

use zk_proto::data::StatPersisted;
use zk_proto::{SessionId, Zxid};

use crate::identity::StoreId;
use crate::state::Meta;

/// The first byte of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Znode = 1,
    Session = 2,
    Meta = 3,
}

impl KeyType {
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        let first = *key.first()?;
        [Self::Znode, Self::Session, Self::Meta].into_iter().find(|kind| *kind as u8 == first)
    }
}

/// What the state keeps of a znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZnodeValue<'a> {
    /// Null and empty differ.
    pub data: Option<&'a [u8]>,
    /// The encoded ACL, opaque here; the caller may let empty stand for a common one.
    pub acl: &'a [u8],
    /// As in ZooKeeper's own snapshots.
    pub stat: StatPersisted,
}

pub(crate) const META_KEY: [u8; 1] = [KeyType::Meta as u8];
const META_FORMAT: u32 = 1;

pub(crate) fn znode_key(path: &str, out: &mut Vec<u8>) {
    out.clear();
    out.push(KeyType::Znode as u8);
    out.extend_from_slice(path.as_bytes());
}

pub(crate) fn session_key(id: SessionId) -> [u8; 9] {
    let mut key = [KeyType::Session as u8; 9];
    key[1..].copy_from_slice(&(id.0 ^ i64::MIN).to_be_bytes());
    key
}

/// The path in a znode's key.
pub(crate) fn parse_znode_key(key: &[u8]) -> Option<&str> {
    str::from_utf8(key.get(1..)?).ok()
}

/// The id in a session's key.
pub(crate) fn parse_session_key(key: &[u8]) -> Option<SessionId> {
    let id = i64::from_be_bytes(key.get(1..)?.try_into().ok()?);
    Some(SessionId(id ^ i64::MIN))
}

pub(crate) fn encode_znode(znode: &ZnodeValue<'_>, out: &mut Vec<u8>) {
    let StatPersisted {
        czxid,
        mzxid,
        ctime,
        mtime,
        version,
        cversion,
        aversion,
        ephemeral_owner,
        pzxid,
    } = znode.stat;
    let data_len = znode.data.map_or(-1, |data| {
        i32::try_from(data.len()).expect("a znode's data fits a frame, which is below 2 GiB")
    });
    out.clear();
    out.reserve(64 + znode.data.map_or(0, <[u8]>::len) + znode.acl.len());
    for long in [czxid, mzxid, ctime, mtime] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    for int in [version, cversion, aversion] {
        out.extend_from_slice(&int.to_le_bytes());
    }
    for long in [ephemeral_owner, pzxid] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    out.extend_from_slice(&data_len.to_le_bytes());
    out.extend_from_slice(znode.data.unwrap_or_default());
    out.extend_from_slice(znode.acl);
}

pub(crate) fn parse_znode(value: &[u8]) -> Option<ZnodeValue<'_>> {
    let mut fields = Fields(value);
    let stat = StatPersisted {
        czxid: fields.i64()?,
        mzxid: fields.i64()?,
        ctime: fields.i64()?,
        mtime: fields.i64()?,
        version: fields.i32()?,
        cversion: fields.i32()?,
        aversion: fields.i32()?,
        ephemeral_owner: fields.i64()?,
        pzxid: fields.i64()?,
    };
    let data = match fields.i32()? {
        -1 => None,
        len => Some(fields.bytes(usize::try_from(len).ok()?)?),
    };
    Some(ZnodeValue { data, acl: fields.0, stat })
}

pub(crate) fn parse_session(value: &[u8]) -> Option<i32> {
    let mut fields = Fields(value);
    fields.i32().filter(|_| fields.0.is_empty())
}

pub(crate) fn encode_meta(store: StoreId, meta: &Meta) -> Vec<u8> {
    let mut out = META_FORMAT.to_le_bytes().to_vec();
    out.extend_from_slice(&store.0.to_le_bytes());
    out.extend_from_slice(&meta.applied.0.to_le_bytes());
    out.extend_from_slice(&meta.digest.to_le_bytes());
    out.extend_from_slice(&meta.time_ms.to_le_bytes());
    out
}

/// The store and the meta; `None` also for a later format.
pub(crate) fn parse_meta(value: &[u8]) -> Option<(StoreId, Meta)> {
    let mut fields = Fields(value);
    let format = u32::from_le_bytes(fields.array()?);
    let store = StoreId(u64::from_le_bytes(fields.array()?));
    let meta = Meta {
        applied: Zxid(fields.i64()?),
        digest: u64::from_le_bytes(fields.array()?),
        time_ms: fields.i64()?,
    };
    (format == META_FORMAT && fields.0.is_empty()).then_some((store, meta))
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> StatPersisted {
        StatPersisted {
            czxid: 1,
            mzxid: -2,
            ctime: 3,
            mtime: i64::MAX,
            version: 5,
            cversion: -6,
            aversion: 7,
            ephemeral_owner: i64::MIN,
            pzxid: 9,
        }
    }

    #[test]
    fn znodes_read_back_and_every_cut_is_noticed() {
        for data in [None, Some(&b""[..]), Some(b"data")] {
            for acl in [&b""[..], b"acl"] {
                let znode = ZnodeValue { data, acl, stat: stat() };
                let mut out = vec![1];
                encode_znode(&znode, &mut out);
                assert_eq!(parse_znode(&out), Some(znode));
                for len in 0..out.len() - acl.len() {
                    assert_eq!(parse_znode(&out[..len]), None, "{len}");
                }
            }
        }
    }

    #[test]
    fn keys_sort_by_type_then_path_or_id() {
        let mut keys = Vec::new();
        for path in ["/", "/a", "/a-b", "/a/b", "/ü"] {
            let mut key = Vec::new();
            znode_key(path, &mut key);
            assert_eq!(parse_znode_key(&key), Some(path));
            keys.push(key);
        }
        for id in [i64::MIN, -1, 0, 1, i64::MAX].map(SessionId) {
            assert_eq!(parse_session_key(&session_key(id)), Some(id));
            keys.push(session_key(id).to_vec());
        }
        keys.push(META_KEY.to_vec());
        assert!(keys.is_sorted());
        assert_eq!(KeyType::of(&keys[0]), Some(KeyType::Znode));
        assert_eq!((KeyType::of(&[4]), KeyType::of(&[])), (None, None));
    }

    #[test]
    fn meta_reads_back_and_another_format_does_not() {
        let meta = Meta { applied: Zxid(1 << 40), digest: u64::MAX, time_ms: -3 };
        let mut value = encode_meta(StoreId(9), &meta);
        assert_eq!(parse_meta(&value), Some((StoreId(9), meta)));
        value[0] = 2;
        assert_eq!(parse_meta(&value), None);
    }
}
