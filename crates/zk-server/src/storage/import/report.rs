//! A dry run of an import, and what it says.

use std::fmt::Write as _;

use serde_json::{Value, json};
use zk_config::ServerConfig;
use zk_proto::log_file::LogEnd;
use zk_storage::import::{ApacheFiles, ImportError};
use zk_storage::{Before, look};
use zk_tree::TreeConfig;

use super::{Import, Imported, Mismatch};
use crate::server::{extended_types, storage_config};

impl Imported {
    /// That the tree is another one than upstream had.
    #[must_use]
    pub fn mismatch(&self) -> Option<String> {
        let Mismatch { zxid, written, computed } = self.digests.first?;
        Some(format!(
            "the tree differs from the one that Apache ZooKeeper had: its digest after zxid {zxid} is \
             {computed:x}, and {written:x} was written down ({} of {} digests differ). Compare it with another \
             member's before relying on it",
            self.digests.differ, self.digests.compared
        ))
    }

    /// What else a person should look at, in sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for problem in &self.skipped {
            warnings.push(format!("{problem}; an older snapshot and the logs behind it serve"));
        }
        if self.mixed_up_to > self.last {
            warnings.push(format!(
                "the snapshot has parts of transactions up to zxid {}, and the logs end with {}: a leader \
                 has to send the rest",
                self.mixed_up_to, self.last
            ));
        }
        for log in self.logs.iter().filter(|log| log.rest) {
            let path = log.path.display();
            warnings.push(format!("{path}: something stands behind the zeros that end the log"));
        }
        if self.unknown_sessions > 0 {
            warnings.push(format!(
                "{} sessions own ephemeral znodes and are not among the sessions: they expire at once",
                self.unknown_sessions
            ));
        }
        if self.unknown_ttls > 0 {
            warnings.push(format!(
                "{} znodes have a TTL, and zookeeper.extendedTypesEnabled is off: they look like ephemeral \
                 znodes, and stay. Turn it on, as it was where they were made",
                self.unknown_ttls
            ));
        }
        warnings
    }
}

/// What a server with some configuration would do with the files it finds.
#[derive(Debug)]
pub enum Report {
    /// It would import them.
    Import(Box<Imported>),
    /// It has data of its own, and would not look at them; if it did, this is what it would find.
    HasOwn(Box<Imported>),
    /// There are none.
    Nothing,
    /// It would refuse to start.
    Refused(ImportError),
}

/// Reads everything and keeps nothing. Whether the server is a member decides how doubts about the last
/// transactions and about epochs are resolved.
#[must_use]
pub fn check(config: &ServerConfig, is_member: bool) -> Report {
    let storage = storage_config(config);
    let tree = TreeConfig { extended_types: extended_types(config), digest_enabled: true };
    let found = look(&storage).and_then(|before| match before {
        Before::Apache(files) => Ok(Some((files, false))),
        Before::Ours(made) => Ok(ApacheFiles::find(&storage)?.map(|files| (files, made.is_some()))),
    });
    match found {
        Ok(None) => Report::Nothing,
        Ok(Some((files, has_own))) => match Import::new(tree, is_member, None).run(&files) {
            Ok(imported) if has_own => Report::HasOwn(Box::new(imported)),
            Ok(imported) => Report::Import(Box::new(imported)),
            Err(error) => Report::Refused(error),
        },
        Err(error) => Report::Refused(error),
    }
}

impl Report {
    /// 0: it would be imported, 1: so it would, and somebody should look, 2: it would not.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Import(imported) => {
                u8::from(imported.mismatch().is_some() || !imported.warnings().is_empty())
            }
            Self::HasOwn(_) | Self::Nothing | Self::Refused(_) => 2,
        }
    }

    /// One JSON object. Zxids are hexadecimal, as in names of files.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (verdict, imported) = match self {
            Self::Import(imported) => ("import", imported),
            Self::HasOwn(imported) => ("has-own-data", imported),
            Self::Nothing => return json!({ "verdict": "nothing" }),
            Self::Refused(error) => {
                return json!({ "verdict": "refused", "error": error.to_string() });
            }
        };
        let zxid = |zxid: zk_proto::Zxid| format!("{:x}", zxid.0);
        let logs: Vec<Value> = imported
            .logs
            .iter()
            .map(|log| {
                let torn_at = match log.end {
                    LogEnd::Clean => None,
                    LogEnd::Torn { offset } => Some(offset),
                };
                json!({
                    "file": log.path.display().to_string(), "bytes": log.len, "txns": log.txns,
                    "known_txns": log.known, "torn_at": torn_at,
                })
            })
            .collect();
        let digests = &imported.digests;
        json!({
            "verdict": verdict,
            "snapshot": imported.snapshot.as_ref().map(|file| json!({
                "file": file.path.display().to_string(), "zxid": zxid(file.zxid), "bytes": file.len,
                "mixed_up_to": zxid(imported.mixed_up_to),
            })),
            "logs": logs,
            "txns": imported.txns,
            "applied": zxid(imported.applied),
            "last_zxid": zxid(imported.last),
            "znodes": imported.znodes,
            "ephemerals": imported.ephemerals,
            "sessions": imported.sessions,
            "accepted_epoch": imported.epochs.accepted.0,
            "current_epoch": imported.epochs.current.0,
            "digests": json!({
                "compared": digests.compared, "differ": digests.differ,
                "first_differs_at": digests.first.map(|first| zxid(first.zxid)),
            }),
            "error": imported.mismatch(),
            "warnings": imported.warnings(),
        })
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let (imported, verdict) = match self {
            Self::Import(imported) => (imported, "would be imported"),
            Self::HasOwn(imported) => (
                imported,
                "would not be imported: there is a store of Paddock's own, paddock-log and paddock-state",
            ),
            Self::Nothing => {
                return "nothing to import: there is no data of Apache ZooKeeper's\n".to_owned();
            }
            Self::Refused(error) => return format!("cannot be imported: {error}\n"),
        };
        let mut line = |name: &str, what: &str| {
            writeln!(text, "{name:<11}{what}").expect("a string takes everything");
        };
        match &imported.snapshot {
            Some(file) => line(
                "snapshot",
                &format!("{}, zxid {}, {} bytes", file.path.display(), file.zxid, file.len),
            ),
            None => line("snapshot", "none; the log begins with the first transaction"),
        }
        for log in &imported.logs {
            let known = match log.known {
                0 => String::new(),
                known => format!(", {known} more are in the snapshot"),
            };
            let torn = match log.end {
                LogEnd::Clean => String::new(),
                LogEnd::Torn { offset } => {
                    format!(", ends at byte {offset} with a write that never completed")
                }
            };
            let (path, txns) = (log.path.display(), log.txns);
            line("log", &format!("{path}, {txns} transactions{known}{torn}"));
        }
        let behind = imported.last > imported.applied;
        line("last zxid", &imported.last.to_string());
        if behind {
            let applied = imported.applied;
            line("applied", &format!("{applied}; what is behind it, a quorum has to confirm"));
        }
        line("znodes", &format!("{}, {} ephemeral", imported.znodes, imported.ephemerals));
        line("sessions", &imported.sessions.to_string());
        let epochs = imported.epochs;
        line("epochs", &format!("accepted {}, current {}", epochs.accepted.0, epochs.current.0));
        line(
            "digests",
            &match (imported.digests.compared, imported.digests.differ) {
                (0, _) => "none to compare with".to_owned(),
                (compared, 0) => format!("{compared} compared, all are equal"),
                (compared, differ) => format!("{compared} compared, {differ} DIFFER"),
            },
        );
        for warning in imported.mismatch().iter().chain(&imported.warnings()) {
            line("warning", warning);
        }
        line("verdict", verdict);
        text
    }
}
