//! Access control lists: who may do what with a znode.

use bytes::BytesMut;
use zk_jute::{DecodeError, Field, Reader, Record, records};

/// A set of permissions (`ZooDefs.Perms`). Other bits than these are kept and mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Perms(pub i32);

impl Perms {
    /// Read data and children.
    pub const READ: Self = Self(1);
    /// Write data.
    pub const WRITE: Self = Self(2);
    /// Create children.
    pub const CREATE: Self = Self(4);
    /// Delete children.
    pub const DELETE: Self = Self(8);
    /// Change the ACL.
    pub const ADMIN: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// Both sets together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets share a permission.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

crate::ids::field!(Perms(i32));

/// Someone, in the terms of an authentication scheme. A null scheme or id is read as empty, which no
/// scheme accepts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// `world`, `auth`, `digest`, `ip`, `super`, ...
    pub scheme: String,
    /// What the scheme makes of it.
    pub id: String,
}

impl Id {
    /// The id `id` of `scheme`.
    #[must_use]
    pub fn new(scheme: &str, id: &str) -> Self {
        Self { scheme: scheme.to_owned(), id: id.to_owned() }
    }
}

impl Record for Id {
    const NAME: &'static str = "Id";

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            scheme: reader.string("scheme")?.unwrap_or_default(),
            id: reader.string("id")?.unwrap_or_default(),
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.scheme.encode_field(out);
        self.id.encode_field(out);
    }
}

impl Field for Id {
    const MIN_LEN: usize = 8;

    fn parse_field(reader: &mut Reader<'_>, _field: &'static str) -> Result<Self, DecodeError> {
        Self::parse(reader)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        self.encode(out);
    }
}

records! {
    /// One entry of an ACL.
    Acl { perms: Perms, id: Id }
}

impl Acl {
    /// `OPEN_ACL_UNSAFE`: everyone may do everything.
    #[must_use]
    pub fn open() -> Vec<Self> {
        vec![Self { perms: Perms::ALL, id: Id::new("world", "anyone") }]
    }

    /// `READ_ACL_UNSAFE`: everyone may read.
    #[must_use]
    pub fn read_only() -> Vec<Self> {
        vec![Self { perms: Perms::READ, id: Id::new("world", "anyone") }]
    }

    /// `CREATOR_ALL_ACL`: who created it may do everything.
    #[must_use]
    pub fn creator_all() -> Vec<Self> {
        vec![Self { perms: Perms::ALL, id: Id::new("auth", "") }]
    }
}
