//! What is known of a key.

use crate::table::KEYS;

/// Where ZooKeeper takes a key from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Only `zoo.cfg`: `QuorumPeerConfig` parses it, a system property of that name is never read.
    File,
    /// `zoo.cfg` as `k`, or the system property `zookeeper.k`.
    Property,
    /// Only the system property of exactly this name, which `zoo.cfg` cannot set in ZooKeeper
    /// (there it becomes `zookeeper.k`). Paddock takes it from both.
    Bare,
    /// As [`Origin::Property`], and the system property without the prefix too.
    PropertyOrBare,
}

/// What a key's value must look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// `yes` or `no`.
    YesNo,
    /// A whole number.
    Int {
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A decimal number.
    Float {
        /// Smallest allowed.
        min: f64,
        /// Largest allowed.
        max: f64,
    },
    /// Hours, or a number with `ms`, `s`, `m`, `h` or `d`.
    Interval,
    /// One of these words, in any case.
    OneOf(&'static [&'static str]),
    /// A comma-separated list.
    List,
    /// Any text.
    Text,
    /// Text that must not appear in logs.
    Secret,
    /// A file or folder.
    Path,
    /// A host name or address.
    Host,
    /// The name of a Java class.
    Class,
    /// `host:port:port[:role][;[host:]port[;[host:]port]]`.
    Member,
    /// Server ids joined by `:`.
    Group,
}

impl Kind {
    /// A short name for the documentation.
    pub fn label(self) -> String {
        match self {
            Self::Bool => "true, false".into(),
            Self::YesNo => "yes, no".into(),
            Self::Int { min, max } => format!("integer {}", range(min, max)).trim_end().into(),
            Self::Float { min, max } if min < -1e300 && max > 1e300 => "decimal".into(),
            Self::Float { min, max } => format!("decimal {min} to {max}"),
            Self::Interval => "interval".into(),
            Self::OneOf(words) => words.join(", "),
            Self::List => "list".into(),
            Self::Text => "text".into(),
            Self::Secret => "secret".into(),
            Self::Path => "path".into(),
            Self::Host => "host".into(),
            Self::Class => "class name".into(),
            Self::Member => "member".into(),
            Self::Group => "server ids".into(),
        }
    }
}

/// `min to max`, leaving out a bound that only says how wide the Java type is.
pub(crate) fn range(min: i64, max: i64) -> String {
    match (min, max) {
        (I32_MIN | i64::MIN, I32_MAX | i64::MAX) => String::new(),
        (min, I32_MAX | i64::MAX) => format!("{min} or more"),
        (min, max) => format!("{min} to {max}"),
    }
}

/// A part of ZooKeeper that Paddock gains in a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// TLS and SASL between members.
    QuorumSecurity,
    /// An oracle that decides between two members.
    Oracle,
    /// TLS for clients and x509 identities.
    Tls,
    /// SASL: DIGEST-MD5 and Kerberos.
    Sasl,
    /// The HTTP admin server.
    AdminServer,
    /// The audit log.
    Audit,
    /// TTL nodes of ZooKeeper 3.5.3, a beta of 2017.
    Ttl353,
}

impl Feature {
    /// What the key waits for, completing "has no effect yet: it comes with ...".
    pub fn comes_with(self) -> &'static str {
        match self {
            Self::QuorumSecurity => "TLS and SASL between members",
            Self::Oracle => "the oracle for two members",
            Self::Tls => "TLS",
            Self::Sasl => "SASL authentication",
            Self::AdminServer => "the AdminServer",
            Self::Audit => "the audit log",
            Self::Ttl353 => "reading the TTL nodes of ZooKeeper 3.5.3",
        }
    }
}

/// Whether Paddock acts on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does what it does in ZooKeeper.
    Honoured,
    /// Accepted and without effect, for this reason.
    NoEffect(&'static str),
    /// Read and kept; acted on when the feature arrives.
    Later(Feature),
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyInfo {
    /// As written in `zoo.cfg`; a trailing `.*` stands for any ending.
    pub name: &'static str,
    /// What the value must look like.
    pub kind: Kind,
    /// The value when the key is absent; empty for none.
    pub default: &'static str,
    /// Where ZooKeeper takes it from.
    pub origin: Origin,
    /// Whether Paddock acts on it.
    pub status: Status,
    /// One line for the documentation.
    pub doc: &'static str,
    /// Set away from its default the key closes the server to somebody, or asks for other quorums. While it is not honoured
    /// such a configuration is refused, because ignoring it would open what the operator wanted
    /// closed.
    pub restricts: bool,
    /// Start scripts set it by themselves and nothing is lost without it: worth a note, not a
    /// warning.
    pub aside: bool,
    /// It matters between members alone: a standalone server has no use for it.
    pub between_members: bool,
}

impl KeyInfo {
    /// The fixed part of a name that ends in `.*`, with the dot.
    pub fn prefix(&self) -> Option<&'static str> {
        self.name.strip_suffix('*')
    }

    /// The name of the system property ZooKeeper would read, when there is one.
    pub fn property_name(&self, key: &str) -> Option<String> {
        match self.origin {
            Origin::File => None,
            Origin::Property | Origin::PropertyOrBare => Some(format!("zookeeper.{key}")),
            Origin::Bare => Some(key.to_owned()),
        }
    }

    /// Whether a value must be masked where people can see it.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }
}

/// The row for `key`, given as written in `zoo.cfg`. An exact name goes before a pattern.
pub fn find_key(key: &str) -> Option<&'static KeyInfo> {
    let matches = |info: &&KeyInfo| {
        info.prefix().is_some_and(|prefix| key.len() > prefix.len() && key.starts_with(prefix))
    };
    KEYS.iter().find(|info| info.name == key).or_else(|| KEYS.iter().find(matches))
}

pub(crate) const I32_MIN: i64 = i32::MIN as i64;
pub(crate) const I32_MAX: i64 = i32::MAX as i64;
