use serde_json::json;
use zk_proto::watch::{AddWatchMode, WatcherType};

use super::{Context, find};
use crate::arguments::Arguments;
use crate::error::CliError;

pub(super) async fn add(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let (mode, name) = match arguments.value("m").map(str::to_uppercase).as_deref() {
        Some("PERSISTENT") => (AddWatchMode::Persistent, "PERSISTENT"),
        None | Some("PERSISTENT_RECURSIVE") => {
            (AddWatchMode::PersistentRecursive, "PERSISTENT_RECURSIVE")
        }
        Some(_) => return Err(CliError::usage(find("addWatch").expect("a command").usage())),
    };
    context.client.add_watch(path, mode).await?;
    context.out.result(|| json!({"path": path, "mode": name}), |_| ());
    Ok(())
}

pub(super) async fn remove(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let types = [
        ("c", WatcherType::Children),
        ("d", WatcherType::Data),
        ("p", WatcherType::Persistent),
        ("r", WatcherType::PersistentRecursive),
    ];
    let found = types.iter().find(|(option, _)| arguments.has(option));
    let watcher_type = found.map_or(WatcherType::Any, |(_, watcher_type)| *watcher_type);
    context.client.remove_watches(path, watcher_type, arguments.has("l")).await?;
    context.out.result(|| json!({"path": path, "removed": true}), |_| ());
    Ok(())
}
