//! Commands on single znodes.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use zk_client::ZkError;
use zk_proto::acl::Acl;
use zk_proto::create_mode::{CreateMode, TTL_MAX_MS};
use zk_proto::{ErrorCode, OpCode};

use super::{Context, acl, checked, number};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::output::{data_json, hex_dump, stat_json};

pub(super) async fn create(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let [ephemeral, sequential, container, ttl] =
        ["e", "s", "c", "t"].map(|option| arguments.has(option));
    if container && (ephemeral || sequential) {
        return Err(CliError::usage(
            "-c cannot be combined with -s or -e. Containers cannot be ephemeral or sequential.",
        ));
    }
    let ttl_ms = number(arguments, "t", 0i64, "a long")?;
    if ttl && ephemeral {
        return Err(CliError::usage("TTLs cannot be used with Ephemeral znodes"));
    }
    if ttl && container {
        return Err(CliError::usage("TTLs cannot be used with Container znodes"));
    }
    let mode = match (ephemeral, sequential, ttl) {
        (true, true, _) => CreateMode::EphemeralSequential,
        (true, false, _) => CreateMode::Ephemeral,
        (false, true, true) => CreateMode::PersistentSequentialWithTtl,
        (false, true, false) => CreateMode::PersistentSequential,
        (false, false, _) if container => CreateMode::Container,
        (false, false, true) => CreateMode::PersistentWithTtl,
        (false, false, false) => CreateMode::Persistent,
    };
    if ttl && !(1..=TTL_MAX_MS).contains(&ttl_ms) {
        return Err(CliError::usage(format!(
            "ttl must be positive and cannot be larger than: {TTL_MAX_MS}"
        )));
    }
    let data = arguments.word(1).map(str::as_bytes);
    let acl = match arguments.word(2) {
        None => Acl::open(),
        Some(text) => acl::parse(text, context.out),
    };
    // What the number is appended to may end with a slash.
    let whole = if sequential { format!("{path}1") } else { path.to_owned() };
    checked(&whole)?;
    let created = if acl.is_empty() {
        Err(ZkError { code: ErrorCode::INVALID_ACL, op: OpCode::CREATE, path: None })
    } else if ttl {
        context.client.create_ttl(path, data, &acl, mode, ttl_ms).await.map(|(path, _)| path)
    } else {
        context.client.create(path, data, &acl, mode).await
    };
    let created = created.inspect_err(|error| match error.code {
        ErrorCode::EPHEMERAL_ON_LOCAL_SESSION => {
            context.out.text_notice("Unable to create ephemeral node on a local session");
        }
        ErrorCode::INVALID_ACL => context.out.text_notice(&error.to_string()),
        ErrorCode(_) => {}
    })?;
    context.ephemerals.fetch_or(mode.is_ephemeral(), Ordering::Relaxed);
    context.out.text_notice(&format!("Created {created}"));
    context.out.result(|| json!({"path": path, "created": created}), |_| ());
    Ok(())
}

pub(super) async fn delete(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let version = number(arguments, "v", -1, "an int")?;
    context.client.delete(path, version).await?;
    context.out.result(|| json!({"path": path, "deleted": true}), |_| ());
    Ok(())
}

pub(super) async fn get(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let (data, stat) = context.client.get_data(path, arguments.has("w")).await?;
    context.out.result(
        || {
            let (data, encoding) = if arguments.has("b") {
                (data.as_deref().map(|bytes| BASE64_STANDARD.encode(bytes)).into(), "base64")
            } else {
                data_json(data.as_deref())
            };
            json!({"path": path, "data": data, "encoding": encoding, "stat": stat_json(&stat)})
        },
        |out| {
            let data = data.as_deref().unwrap_or(b"null");
            out.line(&if arguments.has("x") {
                hex_dump(data)
            } else if arguments.has("b") {
                BASE64_STANDARD.encode(data)
            } else {
                String::from_utf8_lossy(data).into_owned()
            });
            if arguments.has("s") {
                out.stat(&stat);
            }
        },
    );
    Ok(())
}

pub(super) async fn set(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let text = arguments.word(1).unwrap_or_default();
    let data = if arguments.has("b") {
        BASE64_STANDARD
            .decode(text)
            .map_err(|error| CliError::usage(format!("data is not base64: {error}")))?
    } else {
        text.as_bytes().to_vec()
    };
    let version = number(arguments, "v", -1, "an int")?;
    let stat = context.client.set_data(checked(path)?, Some(&data), version).await?;
    context.out.result(
        || json!({"path": path, "stat": stat_json(&stat)}),
        |out| {
            if arguments.has("s") {
                out.stat(&stat);
            }
        },
    );
    Ok(())
}

pub(super) async fn stat(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let stat = context.client.exists(path, arguments.has("w")).await?;
    let missing =
        || ZkError { code: ErrorCode::NO_NODE, op: OpCode::EXISTS, path: Some(path.to_owned()) };
    let stat = stat.ok_or_else(missing)?;
    context.out.result(|| json!({"path": path, "stat": stat_json(&stat)}), |out| out.stat(&stat));
    Ok(())
}

pub(super) async fn sync(context: &Context, path: &str) -> Result<(), CliError> {
    match context.client.sync(path).await {
        Ok(()) => {
            context
                .out
                .result(|| json!({"path": path, "synced": true}), |out| out.line("Sync is OK"));
            Ok(())
        }
        Err(error) if context.out.json => Err(error.into()),
        Err(error) => {
            context.out.line(&format!("Sync has failed. rc={}", error.code.0));
            Err(CliError::told())
        }
    }
}

pub(super) async fn all_children_number(context: &Context, path: &str) -> Result<(), CliError> {
    let number = context.client.get_all_children_number(path).await?;
    context
        .out
        .result(|| json!({"path": path, "number": number}), |out| out.line(&number.to_string()));
    Ok(())
}

pub(super) async fn ephemerals(context: &Context, prefix: &str) -> Result<(), CliError> {
    let paths = context.client.get_ephemerals(prefix).await?;
    context.out.result(
        || json!({"prefix": prefix, "ephemerals": paths}),
        |out| out.line(&format!("[{}]", paths.join(", "))),
    );
    Ok(())
}
