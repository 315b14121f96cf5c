use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use zk_client::{Client, ErrorCode, EventKind, KeeperState, WatchedEvent};
use zk_proto::watch::{AddWatchMode, WatcherType};

use super::contend::TIMED_OUT;
use super::{Call, connected_again};
use crate::error::CliError;
use crate::output::data_json;

pub(super) async fn run(call: &Call) -> Result<(), CliError> {
    let path = call.path(0)?;
    let limit = call.flags.duration("timeout")?;
    let stream = async {
        match limit {
            None => stream(call, path).await,
            Some(limit) => {
                tokio::time::timeout(limit, stream(call, path)).await.unwrap_or_else(|_| {
                    let text = format!("not so many changes within {} s", limit.as_secs_f64());
                    Err(CliError::exit(TIMED_OUT, text))
                })
            }
        }
    };
    let mut signals = call.signals.listen();
    let result = tokio::select! {
        result = stream => result,
        // Interrupting is how a stream ends.
        number = signals.next() => Err(CliError::exit(super::signal_exit(number), "")),
    };
    // A shell's session goes on without it.
    call.client.remove_watches(path, watcher_type(call), true).await.ok();
    result
}

fn watcher_type(call: &Call) -> WatcherType {
    if call.flags.has("recursive") {
        WatcherType::PersistentRecursive
    } else {
        WatcherType::Persistent
    }
}

/// Sets the watch, over as many connections as it takes.
pub(super) async fn set(client: &Client, path: &str, recursive: bool) -> Result<(), CliError> {
    let mode = if recursive { AddWatchMode::PersistentRecursive } else { AddWatchMode::Persistent };
    loop {
        match client.add_watch(path, mode).await {
            Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                connected_again(client).await?
            }
            Err(error) if error.code == ErrorCode::UNIMPLEMENTED => {
                return Err(CliError::failed(
                    "the server is older than 3.6 and has no watches that stay",
                ));
            }
            result => return Ok(result?),
        }
    }
}

/// Whether an event is about `root`, or with `recursive` about something below it.
pub(super) fn concerns(event: &WatchedEvent, root: &str, recursive: bool) -> bool {
    event.path.as_deref().is_some_and(|path| {
        let below =
            || root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        path == root || (recursive && below())
    })
}

async fn stream(call: &Call, path: &str) -> Result<(), CliError> {
    let recursive = call.flags.has("recursive");
    let mut left = call.flags.number("count")?;
    let mut client = call.client.clone();
    let mut last_zxid = -1;
    loop {
        let mut events = client.events();
        set(&client, path, recursive).await?;
        call.out.text_notice(&format!("watching {path}"));
        while let Some(event) = events.recv().await {
            match event.kind {
                EventKind::None => match event.state {
                    KeeperState::Disconnected => session(call, "Disconnected", last_zxid)?,
                    KeeperState::SyncConnected | KeeperState::ConnectedReadOnly => {
                        session(call, "Reconnected", last_zxid)?;
                    }
                    KeeperState::Expired => break,
                    KeeperState::AuthFailed | KeeperState::Closed => {
                        return Err(CliError::failed(format!("the session is {}", event.state)));
                    }
                },
                EventKind::NodeCreated
                | EventKind::NodeDeleted
                | EventKind::NodeDataChanged
                | EventKind::NodeChildrenChanged => {
                    last_zxid = last_zxid.max(event.zxid);
                    if !concerns(&event, path, recursive) {
                        continue;
                    }
                    change(call, &client, &event).await?;
                    left = left.map(|left| left.saturating_sub(1));
                    if left == Some(0) {
                        return Ok(());
                    }
                }
                EventKind::DataWatchRemoved
                | EventKind::ChildWatchRemoved
                | EventKind::PersistentWatchRemoved => {}
            }
        }
        session(call, "Expired", last_zxid)?;
        client = call.connect(&call.server, call.flags.value("auth")).await?;
        session(call, "NewSession", last_zxid)?;
    }
}

/// Says what the session goes through: in the stream for programs, beside it for people.
fn session(call: &Call, what: &str, last_zxid: i64) -> Result<(), CliError> {
    if call.out.json {
        return call
            .out
            .stream(|| json!({"type": what, "path": null, "zxid": last_zxid}), String::new);
    }
    call.out.notice(match what {
        "Disconnected" => "connection lost; reconnecting",
        "Expired" => "the session expired; opening a new one",
        _ => "connected again: what changed meanwhile was not reported", // by either way
    });
    Ok(())
}

async fn change(call: &Call, client: &Client, event: &WatchedEvent) -> Result<(), CliError> {
    let path = event.path.as_deref().unwrap_or_default();
    let has_data = match event.kind {
        EventKind::NodeCreated | EventKind::NodeDataChanged => call.flags.has("data"),
        EventKind::None
        | EventKind::NodeDeleted
        | EventKind::NodeChildrenChanged
        | EventKind::DataWatchRemoved
        | EventKind::ChildWatchRemoved
        | EventKind::PersistentWatchRemoved => false,
    };
    let found = match has_data {
        false => None,
        true => loop {
            match client.get_data(path, false).await {
                Ok((data, stat)) => break Some((data, stat)),
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                    connected_again(client).await?
                }
                // Gone again, or not for us.
                Err(_) => break None,
            }
        },
    };
    let data = found.as_ref().and_then(|(data, _)| data.as_deref());
    call.out.stream(
        || {
            let mut line =
                json!({"type": event.kind.to_string(), "path": path, "zxid": event.zxid});
            if has_data {
                let (data, encoding) = data_json(data);
                line["data"] = data;
                line["encoding"] = encoding.into();
                // Of a later change than this one's, if there was one.
                line["mzxid"] = found.as_ref().map_or(Value::Null, |(_, stat)| stat.mzxid.into());
            }
            line
        },
        || {
            let mut line = format!("{} {path} zxid=0x{:x}", event.kind, event.zxid);
            if has_data {
                line.push_str(&match data {
                    Some(data) => format!(" data={}", String::from_utf8_lossy(data)),
                    None => " data=null".to_owned(),
                });
            }
            line
        },
    )?;
    match call.flags.value("exec") {
        Some(line) => execute(call, line, event, data.unwrap_or_default()).await,
        None => Ok(()),
    }
}

async fn execute(
    call: &Call,
    line: &str,
    event: &WatchedEvent,
    data: &[u8],
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("cannot run sh: {error}"));
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", line])
        .env("PADDOCK_EVENT_TYPE", event.kind.to_string())
        .env("PADDOCK_EVENT_PATH", event.path.as_deref().unwrap_or_default())
        .env("PADDOCK_EVENT_ZXID", event.zxid.to_string())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(data).await.ok(); // it need not read it
    drop(stdin);
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        call.out.text_notice(&format!("{line}: {status}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_concerns_what_is_watched() {
        let event = |path: &str| WatchedEvent {
            kind: EventKind::NodeCreated,
            state: KeeperState::SyncConnected,
            path: Some(path.to_owned()),
            zxid: 1,
        };
        assert!(concerns(&event("/a"), "/a", false));
        assert!(!concerns(&event("/a/b"), "/a", false));
        assert!(concerns(&event("/a/b"), "/a", true));
        assert!(!concerns(&event("/ab"), "/a", true));
        assert!(concerns(&event("/ab"), "/", true));
    }
}
