use serde_json::{Value, json};
use zk_client::{Client, ZkError};
use zk_proto::ErrorCode;
use zk_proto::acl::Acl;
use zk_proto::create_mode::CreateMode;

use super::{Context, checked, tree};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::quota::{BYTES, BYTES_HARD, COUNT, COUNT_HARD, Quota};

const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// The options, and what each limits.
const KEYS: [(&str, &str); 4] = [("n", COUNT), ("b", BYTES), ("N", COUNT_HARD), ("B", BYTES_HARD)];

fn limits_of(path: &str) -> String {
    format!("{ROOT}{path}/{LIMITS}")
}

fn stats_of(path: &str) -> String {
    format!("{ROOT}{path}/{STATS}")
}

async fn read(client: &Client, path: &str) -> Result<Quota, CliError> {
    let (data, _) = client.get_data(path, false).await?;
    let text = data.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    Quota::parse(&text).ok_or_else(|| CliError::failed(format!("{path} is not a quota: {text}")))
}

fn quota_json(quota: &Quota) -> Value {
    json!({
        "count": quota.get(COUNT),
        "bytes": quota.get(BYTES),
        "countHardLimit": quota.get(COUNT_HARD),
        "byteHardLimit": quota.get(BYTES_HARD),
    })
}

pub(super) async fn list(context: &Context, path: &str) -> Result<(), CliError> {
    let limits = limits_of(path);
    context.out.text_notice(&format!("absolute path is {limits}"));
    checked(&limits)?;
    let both = async {
        Ok((read(&context.client, &limits).await?, read(&context.client, &stats_of(path)).await?))
    };
    let (quota, usage) = match both.await {
        Ok(both) => both,
        Err(error) => return missing(path, error),
    };
    context.out.result(
        || {
            let usage = json!({"count": usage.get(COUNT), "bytes": usage.get(BYTES)});
            json!({"path": path, "quota": quota_json(&quota), "usage": usage})
        },
        |out| {
            out.line(&format!("Output quota for {path} {quota}"));
            out.line(&format!("Output stat for {path} {usage}"));
        },
    );
    Ok(())
}

fn missing(path: &str, error: CliError) -> Result<(), CliError> {
    if error.is(ErrorCode::NO_NODE) {
        return Err(CliError::failed(format!("quota for {path} does not exist.")));
    }
    Err(error)
}

pub(super) async fn delete(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let client = &context.client;
    let limits = limits_of(path);
    if client.exists(&limits, false).await?.is_none() {
        context.out.result(
            || json!({"path": path, "quota": null}),
            |out| out.line(&format!("Quota does not exist for {path}")),
        );
        return Ok(());
    }
    let selected = KEYS.iter().find(|(option, _)| arguments.has(option));
    let result = async {
        let Some((_, key)) = selected else {
            remove(client, path).await?;
            context.out.result(|| json!({"path": path, "quota": null}), |_| ());
            return Ok(());
        };
        let mut quota = read(client, &limits).await?;
        quota.set(key, -1);
        client.set_data(&limits, Some(quota.to_string().as_bytes()), -1).await?;
        context.out.result(|| json!({"path": path, "quota": quota_json(&quota)}), |_| ());
        Ok(())
    };
    match result.await {
        Ok(()) => Ok(()),
        Err(error) => missing(path, error),
    }
}

/// Deletes a quota's znodes and its ancestors that have nothing else below them.
async fn remove(client: &Client, path: &str) -> Result<(), ZkError> {
    let mut dir = format!("{ROOT}{path}");
    for child in client.get_children(&dir, false).await? {
        client.delete(&format!("{dir}/{child}"), -1).await?;
    }
    while dir != ROOT && client.get_children(&dir, false).await?.is_empty() {
        client.delete(&dir, -1).await?;
        dir = zk_proto::path::parent(&dir).to_owned();
    }
    Ok(())
}

pub(super) async fn set(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    if path.starts_with(ROOT) {
        return Err(CliError::failed(format!("cannot set a quota under the path: {ROOT}")));
    }
    let mut wanted = Quota::default();
    for (_, key) in KEYS {
        wanted.set(key, -1);
    }
    let (option, key) =
        *KEYS.iter().find(|(option, _)| arguments.has(option)).expect("the parser requires one");
    let value: i64 = arguments.value(option).unwrap_or_default().parse().map_err(|_| {
        CliError::usage("NumberFormatException happens when parsing the option value")
    })?;
    if (key == COUNT || key == COUNT_HARD) && value <= 0 {
        return Err(CliError::usage("the num quota must be greater than zero"));
    }
    if value < 0 {
        return Err(CliError::usage("the bytes quota must be greater than or equal to zero"));
    }
    wanted.set(key, value);

    let client = &context.client;
    if client.exists(checked(path)?, false).await?.is_none() {
        return Err(CliError::failed(format!("{path} does not exist.")));
    }
    refuse_nested(client, path).await?;
    let mut dir = ROOT.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        dir = format!("{dir}/{name}");
        make(client, &dir, None).await?;
    }
    let (limits, stats) = (format!("{dir}/{LIMITS}"), format!("{dir}/{STATS}"));
    let quota = if client.exists(&limits, false).await?.is_none() {
        client
            .create(
                &limits,
                Some(wanted.to_string().as_bytes()),
                &Acl::open(),
                CreateMode::Persistent,
            )
            .await?;
        let mut usage = Quota::default();
        usage.set(COUNT, 0);
        usage.set(BYTES, 0);
        client
            .create(
                &stats,
                Some(usage.to_string().as_bytes()),
                &Acl::open(),
                CreateMode::Persistent,
            )
            .await?;
        // The server has counted by now.
        warn(context, &wanted, &read(client, &stats).await?);
        wanted
    } else {
        let mut quota = read(client, &limits).await?;
        quota.set(key, value);
        warn(context, &quota, &read(client, &stats).await?);
        client.set_data(&limits, Some(quota.to_string().as_bytes()), -1).await?;
        quota
    };
    context.out.result(|| json!({"path": path, "quota": quota_json(&quota)}), |_| ());
    Ok(())
}

async fn make(client: &Client, path: &str, data: Option<&[u8]>) -> Result<(), ZkError> {
    match client.create(path, data, &Acl::open(), CreateMode::Persistent).await {
        Err(error) if error.code != ErrorCode::NODE_EXISTS => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A quota above or below another one is refused.
async fn refuse_nested(client: &Client, path: &str) -> Result<(), CliError> {
    let own = format!("{ROOT}{path}");
    let mut below = Vec::new();
    match tree::visit(client, &own, false, &mut |path| below.push(path.to_owned())).await {
        Err(error) if error.code != ErrorCode::NO_NODE => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let own_limits = format!("{own}/{LIMITS}");
    for node in below.iter().filter(|node| **node != own_limits) {
        if let Some(child) = node.strip_suffix(LIMITS).and_then(|dir| dir.strip_suffix('/')) {
            let child = &child[ROOT.len()..];
            return Err(CliError::failed(format!("{path} has a child {child} which has a quota")));
        }
    }
    let mut parent = zk_proto::path::parent(path);
    while parent != "/" {
        if client.exists(&limits_of(parent), false).await?.is_some() {
            return Err(CliError::failed(format!(
                "{path} has a parent {parent} which has a quota"
            )));
        }
        parent = zk_proto::path::parent(parent);
    }
    Ok(())
}

fn warn(context: &Context, quota: &Quota, usage: &Quota) {
    for (what, soft, hard) in [("count", COUNT, COUNT_HARD), ("bytes", BYTES, BYTES_HARD)] {
        let used = usage.get(soft);
        let exceeded = |key| quota.get(key) > -1 && quota.get(key) < used;
        if exceeded(soft) || exceeded(hard) {
            let text = format!(
                "[Warning]: the {what} quota you create is less than the existing {what}:{used}"
            );
            if context.out.json { context.out.notice(&text) } else { context.out.line(&text) }
        }
    }
}
