//! `export` and `import`: a subtree as lines of JSON.
//!
//! The first line says what the file is, the last that it is whole; between them is one line for each znode, parents
//! first. Paths are relative to the subtree's root, which is `/`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter,
};
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::create_mode::{OwnerKind, TTL_MAX_MS};
use zk_proto::path;

use super::contend::make_parents;
use super::progress::Count;
use super::walk::{Node, Walk, Want, kind_name};
use super::write::{Change, Exists, Kind, Writer};
use super::{Call, reserved};
use crate::error::CliError;
use crate::output::{acl_json, data_json, stat_json};

/// In the first line: the format's version.
const FORMAT: &str = "paddock-export";
const VERSION: u64 = 1;

/// A path below `root`, seen from there.
pub(super) fn relative<'a>(root: &str, path: &'a str) -> &'a str {
    let rest = if root == "/" { path } else { &path[root.len()..] };
    if rest.is_empty() { "/" } else { rest }
}

/// The same path below another root.
pub(super) fn below(root: &str, relative: &str) -> String {
    match (root, relative) {
        (_, "/") => root.to_owned(),
        ("/", _) => relative.to_owned(),
        _ => format!("{root}{relative}"), // both start with a slash
    }
}

/// A server that does not let us administer a znode hides the hashes of its ACL: it cannot be made again from that.
pub(super) fn check_acl(node: &Node) -> Result<(), CliError> {
    let hidden =
        node.acl.iter().any(|entry| entry.id.scheme == "digest" && entry.id.id.ends_with(":x"));
    if hidden {
        return Err(CliError::failed(format!(
            "the server hides a digest in the ACL of {}: authenticate (--auth digest:user:password) as one who may \
             administer it, or leave ACLs aside with --no-acls",
            node.path
        )));
    }
    Ok(())
}

fn node_line(root: &str, node: &Node, acls: bool, stats: bool) -> Value {
    let mut line = json!({"path": relative(root, &node.path)});
    let (data, encoding) = data_json(node.data.as_deref());
    line["data"] = data;
    if encoding != "utf8" {
        line["encoding"] = encoding.into();
    }
    match node.kind() {
        OwnerKind::Void => {}
        kind => {
            line["kind"] = kind_name(kind).into();
            match kind {
                OwnerKind::Ttl(ms) => line["ttl"] = ms.into(),
                OwnerKind::Session(owner) => line["owner"] = format!("0x{owner:x}").into(),
                OwnerKind::Void | OwnerKind::Container => {}
            }
        }
    }
    if acls && node.acl != Acl::open() {
        line["acl"] = acl_json(&node.acl);
    }
    if stats {
        line["stat"] = stat_json(&node.stat);
    }
    line
}

pub(super) async fn export(call: &Call) -> Result<(), CliError> {
    let root = call.path(0)?;
    let file = call.flags.words.get(1).map(String::as_str).filter(|file| *file != "-");
    let progress = call.progress();
    // Under its name stands only what is whole.
    let partial = file.map(|file| format!("{file}.partial"));
    let failed = |error: std::io::Error| {
        let name = partial.as_deref().unwrap_or("standard output");
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return CliError::exit(super::signal_exit(13), "");
        }
        CliError::failed(format!("{name}: {error}"))
    };
    let write = async {
        let out: Box<dyn AsyncWrite + Unpin> = match &partial {
            Some(partial) => Box::new(tokio::fs::File::create(partial).await.map_err(failed)?),
            None => Box::new(tokio::io::stdout()),
        };
        let mut out = BufWriter::with_capacity(256 << 10, out);
        let acls = !call.flags.has("no-acls");
        let ephemerals = call.flags.has("ephemerals");
        let want = Want { data: true, acl: acls };
        let mut walk =
            Walk::new(&call.client, root, want, usize::MAX).skipping(reserved(&call.server));
        let header = json!({FORMAT: VERSION, "root": root});
        out.write_all(format!("{header}\n").as_bytes()).await.map_err(failed)?;
        let mut count = 0u64;
        while let Some(node) = walk.next().await {
            let node = node?;
            if matches!(node.kind(), OwnerKind::Session(_)) && !ephemerals {
                progress.add(Count::Ephemerals, 1);
                continue;
            }
            check_acl(&node)?;
            let line = node_line(root, &node, acls, call.flags.has("stats"));
            out.write_all(format!("{line}\n").as_bytes()).await.map_err(failed)?;
            count += 1;
            progress.add(Count::Read, 1);
            progress.add(Count::Bytes, node.data.as_ref().map_or(0, Bytes::len) as u64);
        }
        out.write_all(format!("{}\n", json!({"end": true, "znodes": count})).as_bytes())
            .await
            .map_err(failed)?;
        out.flush().await.map_err(failed)
    };
    let result = call.until_signal(&progress, write).await;
    if let (Some(partial), Some(file)) = (&partial, file) {
        match &result {
            Ok(()) => tokio::fs::rename(partial, file).await.map_err(failed)?,
            Err(_) => tokio::fs::remove_file(partial).await.unwrap_or(()), // may never have been made
        }
        result?;
        call.out
            .result(|| progress.json(), |out| out.line(&format!("{file}: {}", progress.summary())));
        return Ok(());
    }
    result
}

/// A line of the file.
#[derive(Debug, PartialEq)]
enum Line {
    Header,
    Node { path: String, data: Option<Bytes>, acl: Option<Vec<Acl>>, kind: Option<Kind> },
    End(u64),
}

fn read_line(text: &str) -> Result<Line, String> {
    let line: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    if let Some(version) = line.get(FORMAT) {
        return match version.as_u64() {
            Some(VERSION) => Ok(Line::Header),
            _ => Err(format!("version {version} of the format is not known here, only {VERSION}")), // a later one's
        };
    }
    if line.get("end").is_some() {
        return line["znodes"].as_u64().map(Line::End).ok_or("znodes is no number".to_owned());
    }
    let path = line["path"].as_str().ok_or("no path")?;
    crate::path::check(path)?;
    let data = match (&line["data"], line["encoding"].as_str().unwrap_or("utf8")) {
        (Value::Null, _) => None,
        (Value::String(text), "utf8") => Some(Bytes::copy_from_slice(text.as_bytes())),
        (Value::String(text), "base64") => {
            Some(BASE64_STANDARD.decode(text).map_err(|error| format!("data: {error}"))?.into())
        }
        (Value::String(_), encoding) => {
            return Err(format!("encoding is utf8 or base64, not {encoding:?}"));
        }
        _ => return Err("data is neither a string nor null".to_owned()), // another type of JSON
    };
    let kind = match line["kind"].as_str().unwrap_or("persistent") {
        "persistent" => Some(Kind::Persistent),
        "container" => Some(Kind::Container),
        "ephemeral" => None,
        "ttl" => {
            let ttl = line["ttl"].as_i64().filter(|ttl| (1..=TTL_MAX_MS).contains(ttl));
            Some(Kind::Ttl(ttl.ok_or(format!("ttl is a number of ms from 1 to {TTL_MAX_MS}"))?))
        }
        other => return Err(format!("kind {other:?} is not known")),
    };
    let acl = match &line["acl"] {
        Value::Null => None,
        Value::Array(entries) => Some(entries.iter().map(read_acl).collect::<Result<_, _>>()?),
        _ => return Err("acl is no list".to_owned()), // another type of JSON
    };
    Ok(Line::Node { path: path.to_owned(), data, acl, kind })
}

fn read_acl(entry: &Value) -> Result<Acl, String> {
    let field =
        |name: &str| entry[name].as_str().ok_or(format!("an entry of the acl has no {name}"));
    let mut perms = Perms(0);
    for letter in field("perms")?.chars() {
        perms = perms.or(match letter {
            'c' => Perms::CREATE,
            'd' => Perms::DELETE,
            'r' => Perms::READ,
            'w' => Perms::WRITE,
            'a' => Perms::ADMIN,
            other => return Err(format!("{other:?} is no permission")),
        });
    }
    Ok(Acl { perms, id: Id::new(field("scheme")?, field("id")?) })
}

/// `--overwrite` and `--skip-existing`.
pub(super) fn policy(call: &Call) -> Result<Exists, CliError> {
    match (call.flags.has("overwrite"), call.flags.has("skip-existing")) {
        (true, true) => Err(CliError::usage("--overwrite and --skip-existing exclude each other")),
        (true, false) => Ok(Exists::Overwrite),
        (false, true) => Ok(Exists::Skip),
        (false, false) => Ok(Exists::Fail),
    }
}

pub(super) async fn import(call: &Call) -> Result<(), CliError> {
    let exists = policy(call)?;
    let root = call.path(0)?;
    let file = call.flags.words.get(1).map_or("-", String::as_str);
    let progress = call.progress();
    let name = if file == "-" { "standard input" } else { file };
    let failed = |error: std::io::Error| CliError::failed(format!("{name}: {error}"));
    let work = async {
        let input: Box<dyn AsyncBufRead + Unpin> = match file {
            "-" => Box::new(BufReader::with_capacity(256 << 10, tokio::io::stdin())),
            file => {
                let file = tokio::fs::File::open(file).await.map_err(failed)?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
        };
        let dry = call.flags.has("dry-run");
        if !dry {
            make_parents(
                &call.client,
                path::parent(root),
                zk_proto::create_mode::CreateMode::Persistent,
            )
            .await?;
        }
        let mut writer = Writer::new(&call.client, exists, &progress);
        let mut lines = input.lines();
        let (mut number, mut whole) = (0u64, false);
        let mut nodes = 0u64;
        while let Some(text) = lines.next_line().await.map_err(failed)? {
            number += 1;
            if text.trim().is_empty() {
                continue;
            }
            let at = |what: &str| {
                CliError::failed(format!("{name}:{number}: {what}; so far: {}", progress.summary()))
            };
            let line = read_line(&text).map_err(|error| at(&error))?;
            match line {
                Line::Header if number == 1 => {}
                _ if number == 1 => return Err(at("the first line is not that of an export")), // whatever it is
                _ if whole => return Err(at("something follows the last line of the export")), // whatever it is
                Line::Header => return Err(at("a second export begins here")),
                Line::End(count) if count != nodes => {
                    return Err(at(&format!("{count} znodes were exported, but {nodes} are here")));
                }
                Line::End(_) => whole = true,
                Line::Node { path, data, acl, kind } => {
                    nodes += 1;
                    progress.add(Count::Read, 1);
                    let kind = match kind {
                        Some(kind) => kind,
                        None if call.flags.has("ephemerals") => Kind::Persistent,
                        None => {
                            progress.add(Count::Ephemerals, 1);
                            continue;
                        }
                    };
                    let acl = acl.filter(|_| !call.flags.has("no-acls"));
                    let path = below(root, &path);
                    let change = Change::Create { path, data, acl, kind };
                    if !dry {
                        push(&mut writer, change, exists)
                            .await
                            .map_err(|error| error.with_note(&resume(name, number, exists)))?;
                    }
                }
            }
        }
        writer.finish().await.map_err(|error| error.with_note(&resume(name, number, exists)))?;
        if !whole {
            let text = format!(
                "{name}: the last line of the export is missing: it was cut off after line {number}; so far: {}",
                progress.summary()
            );
            return Err(CliError::failed(text));
        }
        Ok(())
    };
    call.until_signal(&progress, work).await?;
    call.out.result(|| progress.json(), |out| out.line(&format!("{root}: {}", progress.summary())));
    Ok(())
}

/// A znode to be made; `/` is always there.
pub(super) async fn push(
    writer: &mut Writer,
    change: Change,
    exists: Exists,
) -> Result<(), CliError> {
    match change {
        Change::Create { path, data, acl, .. } if path == "/" => {
            if exists != Exists::Overwrite {
                return Ok(());
            }
            writer.push(Change::SetData { path: path.clone(), data }).await?;
            match acl {
                Some(acl) => writer.push(Change::SetAcl { path, acl }).await,
                None => Ok(()),
            }
        }
        change => writer.push(change).await,
    }
}

fn resume(name: &str, line: u64, exists: Exists) -> String {
    let how = match exists {
        Exists::Fail => "run it again with --skip-existing or --overwrite to go on",
        Exists::Skip | Exists::Overwrite => "run it again to go on",
    };
    format!(" ({name} was read up to line {line}); {how}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_between_roots() {
        for (root, path, seen) in
            [("/a", "/a", "/"), ("/a", "/a/b/c", "/b/c"), ("/", "/", "/"), ("/", "/x", "/x")]
        {
            assert_eq!(relative(root, path), seen);
            assert_eq!(below(root, seen), path);
        }
    }

    fn node(data: Option<&[u8]>, owner: i64, acl: Vec<Acl>) -> Node {
        let stat = zk_proto::data::Stat {
            czxid: 1,
            mzxid: 2,
            ctime: 3,
            mtime: 4,
            version: 5,
            cversion: 6,
            aversion: 7,
            ephemeral_owner: owner,
            data_length: 0,
            num_children: 0,
            pzxid: 9,
        };
        let data = data.map(Bytes::copy_from_slice);
        Node { path: "/r/ä b".to_owned(), depth: 1, last: true, stat, data, acl }
    }

    #[test]
    fn what_is_exported_is_read_again() {
        let secret =
            vec![Acl { perms: Perms::READ.or(Perms::ADMIN), id: Id::new("digest", "a:h=:") }];
        let ttl = zk_proto::create_mode::ExtendedTypes::Enabled.ttl_owner(5000).unwrap();
        for (data, owner, acl, kind) in [
            (Some(&b"text \"\n\xc3\xa4"[..]), 0, Acl::open(), Some(Kind::Persistent)),
            (Some(b"\xff\x00"), i64::MIN, secret.clone(), Some(Kind::Container)),
            (None, ttl, secret, Some(Kind::Ttl(5000))),
            (Some(b""), 0x1_0000_0000_0001, Acl::open(), None),
        ] {
            let node = node(data, owner, acl.clone());
            let line = node_line("/r", &node, true, true).to_string();
            let want = Line::Node {
                path: "/ä b".to_owned(),
                data: node.data.clone(),
                acl: (acl != Acl::open()).then_some(acl),
                kind,
            };
            assert_eq!(read_line(&line), Ok(want), "{line}");
        }
    }

    #[test]
    fn broken_lines_are_named() {
        for (line, error) in [
            ("{", "no JSON"),
            (r#"{"data":"x"}"#, "no path"),
            (r#"{"path":"x"}"#, "must start with /"),
            (r#"{"path":"/x","data":1}"#, "neither a string"),
            (r#"{"path":"/x","data":"*","encoding":"base64"}"#, "data: "),
            (r#"{"path":"/x","data":"a","encoding":"rot13"}"#, "rot13"),
            (r#"{"path":"/x","kind":"ttl"}"#, "ttl is a number"),
            (r#"{"path":"/x","kind":"odd"}"#, "odd"),
            (r#"{"path":"/x","acl":[{"scheme":"world","id":"anyone","perms":"q"}]}"#, "'q'"),
            (r#"{"paddock-export":2}"#, "version 2"),
        ] {
            let got = read_line(line).unwrap_err();
            assert!(got.contains(error), "{line}: {got}");
        }
        assert_eq!(read_line(r#"{"end":true,"znodes":7}"#), Ok(Line::End(7)));
    }

    #[test]
    fn hidden_digests_are_refused() {
        let hidden = vec![Acl { perms: Perms::ALL, id: Id::new("digest", "ann:x") }];
        assert!(check_acl(&node(None, 0, hidden)).unwrap_err().text.contains("/r/ä b"));
        assert!(check_acl(&node(None, 0, Acl::open())).is_ok());
    }
}
