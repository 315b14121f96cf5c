//! The files that a reconfiguration writes: `zoo.cfg.dynamic.<version>` with the members, and `zoo.cfg`, which
//! names it (`QuorumPeerConfig.writeDynamicConfig`, `editStaticConfig`).
//!
//! Upstream also keeps a configuration that is only proposed, in `zoo.cfg.dynamic.next`. Here the transaction
//! log has it, and that file is never written. But one that upstream has left behind is read: its log may be
//! gone by then.

use std::path::{Path, PathBuf};

use zk_proto::membership::Member;
use zk_proto::properties::spans;

/// The name of the file with the members of this version, beside `zoo.cfg`.
#[must_use]
pub fn dynamic_file_path(config_file: &Path, version: i64) -> PathBuf {
    with_ending(config_file, &format!(".dynamic.{version:x}"))
}

/// Where upstream keeps a configuration that is only proposed.
#[must_use]
pub fn next_dynamic_file_path(config_file: &Path) -> PathBuf {
    with_ending(config_file, ".dynamic.next")
}

/// Where `zoo.cfg` is kept as the operator wrote it.
#[must_use]
pub fn backup_file_path(config_file: &Path) -> PathBuf {
    with_ending(config_file, ".bak")
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The text of the file with the members, of the lines that `/zookeeper/config` has: sorted as text, without
/// the version, which the name says, and without a line end behind the last.
#[must_use]
pub fn dynamic_file_text(membership: &str) -> String {
    let lines = membership.lines().map(str::trim);
    let mut lines: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("version")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// `zoo.cfg` when the members stand in `dynamic_file`, whose path is absolute: it is named, and what belongs
/// into it is gone, with the client ports that the line of this server names. Everything else stays as it
/// is, comments and order too; upstream's own rewriting loses them.
#[must_use]
pub fn edit_static_file(text: &str, dynamic_file: &Path, own: Option<&Member>) -> String {
    let has_client = own.is_some_and(|own| own.client.is_some());
    let has_secure_client = own.is_some_and(|own| own.secure_client.is_some());
    let moves_out = |key: &str| match key {
        // Upstream takes `clientPortListenBacklog` out as well, for the letters that it begins with.
        "clientPort" | "clientPortAddress" => has_client,
        "secureClientPort" | "secureClientPortAddress" => has_secure_client,
        "dynamicConfigFile" | "peerType" => true,
        _ => ["server.", "group.", "weight."].iter().any(|prefix| key.starts_with(prefix)),
    };
    // A backslash would be taken for an escape.
    let named = dynamic_file.display().to_string().replace('\\', "\\\\");
    let mut pointer = Some(format!("dynamicConfigFile={named}\n"));
    let mut edited = String::with_capacity(text.len());
    let mut kept_to = 0;
    for (key, span) in spans(text).into_iter().filter(|(key, _)| moves_out(key)) {
        edited.push_str(text.get(kept_to..span.start).unwrap_or_default());
        kept_to = span.end;
        if key == "dynamicConfigFile" {
            edited.extend(pointer.take());
        }
    }
    edited.push_str(text.get(kept_to..).unwrap_or_default());
    if let Some(pointer) = pointer {
        if !edited.is_empty() && !edited.ends_with(['\n', '\r']) {
            edited.push('\n');
        }
        edited.push_str(&pointer);
    }
    edited
}
