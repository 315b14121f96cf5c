use serde_json::json;
use zk_client::{Client, ErrorCode, EventKind, KeeperState, State};
use zk_proto::path;
use zk_proto::watch::AddWatchMode;

use super::contend::{self, Contender, Layout};
use super::{Call, connected_again, lock};
use crate::error::CliError;
use crate::output::data_json;

pub(super) async fn run(call: &Call) -> Result<(), CliError> {
    let root = call.path(0)?;
    if call.flags.has("observe") {
        if !call.flags.command.is_empty() {
            return Err(CliError::usage("elect: --observe runs no command"));
        }
        let progress = call.progress();
        return call.until_signal(&progress, observe(call, root)).await;
    }
    let layout = call.flags.value("layout").map(Layout::named).transpose()?;
    let data = call.flags.words.get(1).cloned().unwrap_or_else(lock::who_we_are);
    let contender = Contender::new(&call.client, root, layout, Layout::CuratorLatch);
    lock::hold(call, contender, &data, |contender| {
        call.out.result(
            || {
                json!({
                    "election": contender.root, "leader": data, "node": contender.node, "token": contender.token
                })
            },
            |out| out.line(&format!("leader {data} {}", contender.node)),
        );
    })
    .await
}

/// The first in the queue and its data.
async fn leader(
    client: &Client,
    root: &str,
) -> Result<Option<(String, Option<Vec<u8>>, i64)>, zk_client::ZkError> {
    loop {
        let children = match client.get_children(root, false).await {
            Err(error) if error.code == ErrorCode::NO_NODE => return Ok(None),
            children => children?,
        };
        let Some((.., name)) = contend::queue(children).into_iter().next() else { return Ok(None) };
        let node = path::join(root, &name);
        match client.get_data(&node, false).await {
            Err(error) if error.code == ErrorCode::NO_NODE => {} // gone meanwhile: look again
            Err(error) => return Err(error),
            Ok((data, stat)) => {
                return Ok(Some((node, data.map(|data| data.to_vec()), stat.czxid)));
            }
        }
    }
}

/// Prints who leads, now and whenever it is another.
async fn observe(call: &Call, root: &str) -> Result<(), CliError> {
    let mut left = call.flags.number("count")?;
    let mut client = call.client.clone();
    let mut printed = None;
    'session: loop {
        let mut events = client.events();
        match client.add_watch(root, AddWatchMode::PersistentRecursive).await {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {
                connected_again(&client).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        loop {
            match leader(&client, root).await {
                Ok(now) => {
                    if printed.as_ref() != Some(&now) {
                        print(call, root, now.as_ref())?;
                        printed = Some(now);
                        left = left.map(|left| left.saturating_sub(1));
                        if left == Some(0) {
                            return Ok(());
                        }
                    }
                }
                Err(error) if error.code == ErrorCode::CONNECTION_LOSS => {}
                Err(error) if client.state() != State::Closed => return Err(error.into()),
                Err(_) => {} // expired: the event says it
            }
            // One look for all that has happened.
            let mut event = events.recv().await;
            while let Some(happened) = event {
                if happened.kind == EventKind::None {
                    match happened.state {
                        KeeperState::Disconnected => {
                            call.out.notice("connection lost; who leads may change unseen")
                        }
                        KeeperState::Expired => {
                            call.out.notice("the session expired; a new one is opened");
                            client = call.connect(&call.server, call.flags.value("auth")).await?;
                            continue 'session;
                        }
                        KeeperState::AuthFailed | KeeperState::Closed => {
                            return Err(CliError::failed(format!(
                                "the session is {}",
                                happened.state
                            )));
                        }
                        KeeperState::SyncConnected | KeeperState::ConnectedReadOnly => {}
                    }
                }
                event = events.try_recv().ok();
            }
        }
    }
}

fn print(
    call: &Call,
    root: &str,
    leader: Option<&(String, Option<Vec<u8>>, i64)>,
) -> Result<(), CliError> {
    let Some((node, data, token)) = leader else {
        return call
            .out
            .stream(|| json!({"election": root, "leader": null}), || "no leader".to_owned());
    };
    call.out.stream(
        || {
            let (data, encoding) = data_json(data.as_deref());
            json!({"election": root, "leader": data, "encoding": encoding, "node": node, "token": token})
        },
        || format!("leader {} {node}", String::from_utf8_lossy(data.as_deref().unwrap_or_default())),
    )
}
