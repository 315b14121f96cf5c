//! One znode, packed: a million of them must fit.

use zk_proto::data::StatPersisted;

/// The `parent` of the root, and of a place that holds no znode.
pub(crate) const NO_PARENT: u32 = u32::MAX;

const SHORT_LEN: usize = 22;

/// A znode's name (its path's last segment), in place when it is short, as most are.
#[derive(Debug)]
pub(crate) enum Name {
    Short { len: u8, bytes: [u8; SHORT_LEN] },
    // Boxed twice to keep the whole at 24 bytes, and the discriminant in the first one.
    Long(Box<Box<[u8]>>),
}

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        let name = name.as_bytes();
        match u8::try_from(name.len()) {
            Ok(len) if name.len() <= SHORT_LEN => {
                let mut bytes = [0; SHORT_LEN];
                bytes[..name.len()].copy_from_slice(name);
                Self::Short { len, bytes }
            }
            Ok(_) | Err(_) => Self::Long(Box::new(name.into())),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("names are made from strings")
    }
}

/// Which checkpoint last took notice of a znode.
///
/// Time is counted in epochs: one ends where a checkpoint begins. `epoch` is the one in which the
/// znode last changed, 0 if it did not since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp(u32);

const PERSISTED_BIT: u32 = 1 << 31;

impl Stamp {
    /// A znode made in this epoch.
    pub(crate) fn born(epoch: u32) -> Self {
        Self(epoch)
    }

    /// An older znode that changes in this epoch: a checkpoint has seen its path.
    pub(crate) fn changed(epoch: u32) -> Self {
        Self(epoch | PERSISTED_BIT)
    }

    pub(crate) fn epoch(self) -> u32 {
        self.0 & !PERSISTED_BIT
    }

    /// Whether a checkpoint may have written this znode's path before the epoch that it last
    /// changed in.
    pub(crate) fn is_persisted(self) -> bool {
        self.0 & PERSISTED_BIT != 0
    }
}

/// A znode. Its path is spelled by walking up. Two cache lines: what a look-up needs is in the
/// first, the stat is spread over the second.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Znode {
    pub(crate) name: Name,
    pub(crate) parent: u32,
    /// Where the parent's list of children names this znode.
    pub(crate) at_parent: u32,
    pub(crate) data: Option<Box<[u8]>>,
    #[allow(
        clippy::box_collection,
        reason = "most znodes have no children: 8 bytes instead of 24"
    )]
    pub(crate) children: Option<Box<Vec<u32>>>,
    pub(crate) acl: u32,
    pub(crate) stamp: Stamp,

    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) pzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    pub(crate) owner: i64,
    pub(crate) version: i32,
    /// The number of children ever created.
    pub(crate) cversion: i32,
    pub(crate) aversion: i32,
    /// Its part in the tree's digest.
    pub(crate) digest: u32,
}

const _: () = assert!(size_of::<Znode>() == 128);

impl Default for Znode {
    fn default() -> Self {
        Self {
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            owner: 0,
            name: Name::Short { len: 0, bytes: [0; SHORT_LEN] },
            data: None,
            children: None,
            version: 0,
            cversion: 0,
            aversion: 0,
            parent: NO_PARENT,
            at_parent: 0,
            acl: 0,
            digest: 0,
            stamp: Stamp::default(),
        }
    }
}

impl Znode {
    pub(crate) fn children(&self) -> &[u32] {
        self.children.as_deref().map_or(&[], |children| children)
    }

    pub(crate) fn data_len(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.len())
    }

    pub(crate) fn stat(&self) -> StatPersisted {
        StatPersisted {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion,
            aversion: self.aversion,
            ephemeral_owner: self.owner,
            pzxid: self.pzxid,
        }
    }

    pub(crate) fn set_stat(&mut self, stat: &StatPersisted) {
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
        } = *stat;
        self.czxid = czxid;
        self.mzxid = mzxid;
        self.ctime = ctime;
        self.mtime = mtime;
        self.version = version;
        self.cversion = cversion;
        self.aversion = aversion;
        self.owner = ephemeral_owner;
        self.pzxid = pzxid;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_survive() {
        for len in [0, 1, 21, 22, 23, 24, 255, 256, 1000] {
            let name = "é".repeat(len / 2) + if len % 2 == 1 { "x" } else { "" };
            assert_eq!(Name::new(&name).as_str(), name);
        }
        assert_eq!(size_of::<Name>(), 24);
    }
}
