//! The configuration of a ZooKeeper server: `zoo.cfg`, system properties, checks.
//!
//! An unmodified `zoo.cfg` gives the server it gives with Apache ZooKeeper, as far as Paddock has
//! the parts. Every key of ZooKeeper is known here: honoured, accepted with a word on why it has no
//! effect, or kept for a feature that comes later. What ZooKeeper accepts in silence, such as a
//! misspelt key, is reported with its line.
//!
//! ```
//! use zk_config::Sources;
//!
//! let text = "dataDir=/var/lib/zookeeper\nclientPort=2181\ntickTme=2000\n";
//! let flags = "-Djute.maxbuffer=4194304";
//! let loaded = Sources::new().file("zoo.cfg", text).jvm_flags("SERVER_JVMFLAGS", flags).load();
//! assert_eq!(
//!     loaded.diagnostics.render(),
//!     "zoo.cfg:3: warning: tickTme: unknown key, it has no effect - did you mean `tickTime`?\n\
//!      1 warning\n"
//! );
//! let (config, _) = loaded.accept(false).expect("a warning does not refuse a configuration");
//! assert_eq!(config.limits.jute_max_buffer_bytes, 4_194_304);
//! ```
//!
//! # Precedence
//! As in ZooKeeper, where reading `zoo.cfg` turns an unknown key `k` into the system property
//! `zookeeper.k`: the file goes before `-Dzookeeper.k`. Properties without the prefix
//! (`jute.maxbuffer`, `znode.container.*`, `readonlymode.enabled`) cannot be set by ZooKeeper's
//! file, so there `-D` goes before the file. Arguments go before both, the embedded default after
//! all.
//!
//! # Invariants
//! - One table, [`KEYS`], describes each key once; parser, checks, suggestions, defaults and
//!   documentation read it.
//! - A configuration with an error is never handed out by [`Loaded::accept`].
//! - A key that keeps somebody out is never ignored: while it is not honoured it is an error.
//! - Secrets appear neither in `Debug` output nor in [`ServerConfig::effective`]; the text of the
//!   file itself counts as one.
//! - Nothing here reads the environment, the clock or the network; one function reads files.

mod build;
mod diagnostic;
mod ensemble;
mod jvm_flags;
mod key;
mod load;
mod markdown;
mod my_id;
mod reconfig;
mod server_config;
mod settings;
mod suggest;
mod table;
mod value;

pub use diagnostic::{Diagnostic, Diagnostics, EXIT_INVALID_CONFIG, Severity};
pub use ensemble::{EnsembleConfig, ProposedConfig, QuorumSaslConfig, dynamic_file_version};
pub use jvm_flags::JvmFlags;
pub use key::{Feature, KeyInfo, Kind, Origin, Status, find_key};
pub use load::{Loaded, check};
pub use markdown::markdown_table;
pub use my_id::{MAX_EXTENDED_SERVER_ID, MyIdError, parse_my_id};
pub use reconfig::{
    backup_file_path, dynamic_file_path, dynamic_file_text, edit_static_file,
    next_dynamic_file_path,
};
pub use server_config::{
    AdminConfig, AuthConfig, AuthProvider, ClientAuth, ConnectionThrottle, FOUR_LETTER_WORDS,
    FourLetterWhitelist, ImportConfig, Limits, MetricsConfig, MetricsProvider, PADDOCK_WORDS,
    PROMETHEUS_PROVIDER, SaslConfig, Secret, ServerConfig, StorageConfig, StoreFile, TlsConfig,
    TlsEndpoint, TlsStores, TreeConfig,
};
pub use settings::{Source, Sources};
pub use table::KEYS;
pub use zk_proto::membership::{Listener, Member, MemberAddress, MemberError, Role};
pub use zk_proto::properties::{Properties, PropertiesProblem, Property};

#[cfg(test)]
mod tests;
