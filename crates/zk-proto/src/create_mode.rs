//! What kind of znode a create asks for, and how a znode's owner field says what it became.

/// The flags of a create request (`CreateMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateMode {
    /// Stays until it is deleted.
    Persistent,
    /// Goes with its session.
    Ephemeral,
    /// Persistent, with a number appended to its name.
    PersistentSequential,
    /// Ephemeral, with a number appended to its name.
    EphemeralSequential,
    /// Goes some time after its last child.
    Container,
    /// Goes when it was not modified for a time and has no children.
    PersistentWithTtl,
    /// The same, with a number appended to its name.
    PersistentSequentialWithTtl,
}

impl CreateMode {
    /// All modes, by flag.
    pub const ALL: [Self; 7] = [
        Self::Persistent,
        Self::Ephemeral,
        Self::PersistentSequential,
        Self::EphemeralSequential,
        Self::Container,
        Self::PersistentWithTtl,
        Self::PersistentSequentialWithTtl,
    ];

    /// The mode with this flag.
    #[must_use]
    pub fn from_flag(flag: i32) -> Option<Self> {
        Self::ALL.get(usize::try_from(flag).ok()?).copied()
    }

    /// Its number on the wire.
    #[must_use]
    pub fn flag(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral => 1,
            Self::PersistentSequential => 2,
            Self::EphemeralSequential => 3,
            Self::Container => 4,
            Self::PersistentWithTtl => 5,
            Self::PersistentSequentialWithTtl => 6,
        }
    }

    /// Whether the znode goes with its session.
    #[must_use]
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether a number is appended to the name.
    #[must_use]
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential
                | Self::EphemeralSequential
                | Self::PersistentSequentialWithTtl
        )
    }

    /// Whether it has a time to live.
    #[must_use]
    pub fn is_ttl(self) -> bool {
        matches!(self, Self::PersistentWithTtl | Self::PersistentSequentialWithTtl)
    }
}

/// The owner field of a container.
pub const CONTAINER_OWNER: i64 = i64::MIN;

/// The longest time to live, in ms: 40 bits.
pub const TTL_MAX_MS: i64 = (1 << 40) - 1;

const EXTENDED_MARK: u64 = 0xff << 56;
const EXTENDED_FEATURE: u64 = 0xffff << 40;

/// How owner fields are read. Extended types change the meaning of the bit patterns, so every
/// server of an ensemble must agree (`zookeeper.extendedTypesEnabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExtendedTypes {
    /// No TTL znodes: every owner but 0 and the container's is a session.
    #[default]
    Disabled,
    /// A top byte of 0xff marks an extended type; 0 in the two bytes after it means TTL.
    Enabled,
    /// The layout of 3.5.3: the sign bit marks a TTL of 63 bits (`zookeeper.emulate353TTLNodes`).
    Emulate353,
}

/// What a znode's owner field says about it (`EphemeralType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// Persistent.
    Void,
    /// Ephemeral: owned by this session.
    Session(i64),
    /// Container.
    Container,
    /// Time to live, in ms.
    Ttl(i64),
}

impl ExtendedTypes {
    /// Whether TTL znodes can be created.
    #[must_use]
    pub fn allows_ttl(self) -> bool {
        match self {
            Self::Disabled => false,
            Self::Enabled | Self::Emulate353 => true,
        }
    }

    /// Reads an owner field. An unknown extended feature is read as a session that does not exist:
    /// it came from a future server's disk and must not stop this one.
    #[must_use]
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "bit patterns")]
    pub fn kind(self, owner: i64) -> OwnerKind {
        let bits = owner as u64;
        match (owner, self) {
            (0, _) => OwnerKind::Void,
            (CONTAINER_OWNER, _) => OwnerKind::Container,
            (_, Self::Enabled) if bits >> 56 == 0xff && bits & EXTENDED_FEATURE == 0 => {
                OwnerKind::Ttl((bits & TTL_MAX_MS as u64) as i64)
            }
            (_, Self::Emulate353) if owner < 0 => OwnerKind::Ttl(owner & i64::MAX),
            (_, Self::Disabled | Self::Enabled | Self::Emulate353) => OwnerKind::Session(owner),
        }
    }

    /// The owner field of a znode with this time to live, in ms; `None` if it is out of range or
    /// TTL znodes are disabled.
    #[must_use]
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "bit patterns")]
    pub fn ttl_owner(self, ttl_ms: i64) -> Option<i64> {
        match self {
            Self::Disabled => None,
            Self::Enabled => ((1..=TTL_MAX_MS).contains(&ttl_ms))
                .then_some((EXTENDED_MARK | ttl_ms as u64) as i64),
            Self::Emulate353 => (ttl_ms > 0).then_some(ttl_ms | i64::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_round_trip() {
        for mode in CreateMode::ALL {
            assert_eq!(CreateMode::from_flag(mode.flag()), Some(mode));
        }
        assert_eq!(CreateMode::from_flag(7), None);
        assert_eq!(CreateMode::from_flag(-1), None);
    }

    #[test]
    fn ttl_owners_round_trip_only_when_enabled() {
        let owner = ExtendedTypes::Enabled.ttl_owner(5000).unwrap();
        assert_eq!(owner, 0xff00_0000_0000_1388_u64 as i64);
        assert_eq!(ExtendedTypes::Enabled.kind(owner), OwnerKind::Ttl(5000));
        assert_eq!(ExtendedTypes::Disabled.kind(owner), OwnerKind::Session(owner));
        assert_eq!(ExtendedTypes::Enabled.ttl_owner(TTL_MAX_MS + 1), None);
        assert_eq!(ExtendedTypes::Enabled.ttl_owner(0), None);
        let old = ExtendedTypes::Emulate353.ttl_owner(5000).unwrap();
        assert_eq!(ExtendedTypes::Emulate353.kind(old), OwnerKind::Ttl(5000));
    }

    #[test]
    fn containers_are_always_recognised() {
        for types in [ExtendedTypes::Disabled, ExtendedTypes::Enabled, ExtendedTypes::Emulate353] {
            assert_eq!(types.kind(CONTAINER_OWNER), OwnerKind::Container);
            assert_eq!(types.kind(0), OwnerKind::Void);
            assert_eq!(
                types.kind(0x0100_0000_0000_0001),
                OwnerKind::Session(0x0100_0000_0000_0001)
            );
        }
    }
}
