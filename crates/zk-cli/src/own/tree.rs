//! `tree` and `find`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use zk_proto::create_mode::OwnerKind;
use zk_proto::path;

use super::progress::Count;
use super::walk::{Node, Walk, Want, kind_name};
use super::{Call, glob};
use crate::error::CliError;
use crate::output::stat_json;

fn depth(call: &Call) -> Result<usize, CliError> {
    let depth = call.flags.number("depth")?;
    Ok(depth.map_or(usize::MAX, |depth| usize::try_from(depth).unwrap_or(usize::MAX)))
}

fn node_json(node: &Node) -> Value {
    let mut line = json!({
        "path": node.path,
        "depth": node.depth,
        "kind": kind_name(node.kind()),
        "size": node.stat.data_length,
        "children": node.stat.num_children,
    });
    match node.kind() {
        OwnerKind::Session(owner) => line["owner"] = format!("0x{owner:x}").into(),
        OwnerKind::Ttl(ms) => line["ttl"] = ms.into(),
        OwnerKind::Void | OwnerKind::Container => {}
    }
    line
}

/// ` [ephemeral 0x1]`; nothing for what is persistent.
fn mark(kind: OwnerKind) -> String {
    match kind {
        OwnerKind::Void => String::new(),
        OwnerKind::Session(owner) => format!("  [ephemeral 0x{owner:x}]"),
        OwnerKind::Container => "  [container]".to_owned(),
        OwnerKind::Ttl(ms) => format!("  [ttl {ms} ms]"),
    }
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{}.{} KiB", bytes >> 10, ((bytes & 1023) * 10) >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 1_048_575) * 10) >> 20), // 1 MiB and more
    }
}

fn bytes_of(node: &Node) -> u64 {
    u64::try_from(node.stat.data_length).unwrap_or(0)
}

pub(super) async fn tree(call: &Call) -> Result<(), CliError> {
    let root = call.path(0)?;
    let max_depth = depth(call)?;
    let progress = call.progress();
    let draw = async {
        let mut walk = Walk::new(&call.client, root, Want::default(), max_depth);
        // Whether a line goes on below, for each level.
        let mut lines: Vec<bool> = Vec::new();
        let mut unreadable = Ok(());
        while let Some(node) = walk.next().await {
            let node = match node {
                Ok(node) => node,
                Err(error) => {
                    unreadable = Err(passed_over(call, error.into(), root)?);
                    continue;
                }
            };
            progress.add(Count::Read, 1);
            progress.add(Count::Bytes, bytes_of(&node));
            lines.truncate(node.depth.saturating_sub(1));
            let mut lead: String =
                lines.iter().map(|goes_on| if *goes_on { "│   " } else { "    " }).collect();
            if node.depth > 0 {
                lead.push_str(if node.last { "└── " } else { "├── " });
                lines.push(!node.last);
            }
            let whole = node.depth == 0 || call.flags.has("full-paths");
            let name = if whole { node.path.as_str() } else { path::name(&node.path) };
            let cut = node.depth == max_depth && node.stat.num_children > 0;
            call.out.stream(
                || node_json(&node),
                || {
                    let cut = if cut {
                        format!("  … {} children", node.stat.num_children)
                    } else {
                        String::new()
                    };
                    format!("{lead}{name}  {}{}{cut}", human(bytes_of(&node)), mark(node.kind()))
                },
            )?;
        }
        unreadable
    };
    call.until_signal(&progress, draw).await?;
    if !call.out.json {
        let (nodes, bytes) = (progress.get(Count::Read), progress.get(Count::Bytes));
        call.out.stream(|| Value::Null, || format!("\n{nodes} znodes, {}", human(bytes)))?;
    }
    Ok(())
}

/// A znode that cannot be read: said, and the command fails at its end. Without its root there is no result.
fn passed_over(call: &Call, error: CliError, root: &str) -> Result<CliError, CliError> {
    if error.path() == Some(root) {
        return Err(error);
    }
    call.out.error(&error);
    Ok(CliError::exit(error.exit, ""))
}

/// What `find` looks for.
struct Tests {
    name: Option<String>,
    path: Option<String>,
    ephemeral: Option<bool>,
    owner: Option<i64>,
    min_size: u64,
    max_size: u64,
    min_children: u64,
    empty: bool,
    /// Milliseconds of the epoch that the data were set at or after, and before.
    newer: i64,
    older: i64,
}

impl Tests {
    fn read(call: &Call) -> Result<Self, CliError> {
        let flags = &call.flags;
        let ephemeral = match flags.value("type") {
            None => None,
            Some("ephemeral") => Some(true),
            Some("persistent") => Some(false),
            Some(kind @ ("container" | "ttl")) => {
                return Err(CliError::usage(format!(
                    "--type {kind}: servers do not tell clients; such znodes look like persistent ones"
                )));
            }
            Some(kind) => {
                return Err(CliError::usage(format!(
                    "--type is persistent or ephemeral, not {kind:?}"
                )));
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = |name: &str, default: i64| -> Result<i64, CliError> {
            Ok(flags.duration(name)?.map_or(default, |age| {
                i64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(i64::MAX)
            }))
        };
        Ok(Self {
            name: flags.value("name").map(str::to_owned),
            path: flags.value("path").map(str::to_owned),
            ephemeral,
            owner: flags.session("owner")?,
            min_size: flags.size("min-size")?.unwrap_or(0),
            max_size: flags.size("max-size")?.unwrap_or(u64::MAX),
            min_children: flags.number("min-children")?.unwrap_or(0),
            empty: flags.has("empty"),
            newer: before("newer", i64::MIN)?,
            older: before("older", i64::MAX)?,
        })
    }

    fn pass(&self, node: &Node) -> bool {
        let matches = |pattern: &Option<String>, text| {
            pattern.as_ref().is_none_or(|p| glob::matches(p, text))
        };
        let size = bytes_of(node);
        matches(&self.name, path::name(&node.path))
            && matches(&self.path, &node.path)
            && self
                .ephemeral
                .is_none_or(|wanted| wanted == matches!(node.kind(), OwnerKind::Session(_)))
            && self.owner.is_none_or(|owner| node.kind() == OwnerKind::Session(owner))
            && (self.min_size..=self.max_size).contains(&size)
            && u64::try_from(node.stat.num_children).unwrap_or(0) >= self.min_children
            && (!self.empty || (size == 0 && node.stat.num_children == 0))
            && (self.newer..self.older).contains(&node.stat.mtime)
    }
}

pub(super) async fn find(call: &Call) -> Result<(), CliError> {
    let root = call.path(0)?;
    let tests = Tests::read(call)?;
    let max_depth = depth(call)?;
    let progress = call.progress();
    let counted = call.flags.has("count");
    let search = async {
        let mut walk = Walk::new(&call.client, root, Want::default(), max_depth);
        let (mut found, mut unreadable) = (0u64, Ok(()));
        while let Some(node) = walk.next().await {
            progress.add(Count::Read, 1);
            match node {
                Ok(node) if tests.pass(&node) => {
                    found += 1;
                    if !counted {
                        let json = || {
                            let mut line = node_json(&node);
                            line["stat"] = stat_json(&node.stat);
                            line
                        };
                        call.out.stream(json, || node.path.clone())?;
                    }
                }
                Ok(_) => {}
                Err(error) => unreadable = Err(passed_over(call, error.into(), root)?),
            }
        }
        if counted {
            call.out.stream(|| json!({"path": root, "count": found}), || found.to_string())?;
        }
        unreadable
    };
    call.until_signal(&progress, search).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(1 << 20), "1.0 MiB");
    }

    #[test]
    fn marks_say_the_kind() {
        assert_eq!(mark(OwnerKind::Void), "");
        assert_eq!(mark(OwnerKind::Session(0x10)), "  [ephemeral 0x10]");
        assert_eq!(mark(OwnerKind::Ttl(5)), "  [ttl 5 ms]");
    }
}
