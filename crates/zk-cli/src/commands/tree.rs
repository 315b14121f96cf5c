//! Commands on subtrees, and `ls`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use serde_json::json;
use zk_client::{Client, ZkError};
use zk_proto::multi::{MultiOp, MultiResult};
use zk_proto::proto::DeleteRequest;
use zk_proto::{ErrorCode, path};

use super::{Context, number};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::output::stat_json;

/// Requests in flight while a tree is walked.
const WINDOW: usize = 64;

pub(super) async fn ls(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let watch = arguments.has("w");
    if arguments.has("R") {
        let out = context.out;
        visit(&context.client, path, watch, &mut |path| {
            out.result(|| json!({"path": path}), |out| out.line(path));
        })
        .await?;
        return Ok(());
    }
    let (mut children, stat) = context.client.get_children2(path, watch).await?;
    children.sort();
    context.out.result(
        || json!({"path": path, "children": children, "stat": stat_json(&stat)}),
        |out| {
            out.line(&format!("[{}]", children.join(", ")));
            if arguments.has("s") {
                out.stat(&stat);
            }
        },
    );
    Ok(())
}

/// Calls `each` for `root` and all below it: a znode's children first, then what is below each of them.
pub(super) async fn visit(
    client: &Client,
    root: &str,
    watch: bool,
    each: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ZkError> {
    client.get_data(root, watch).await?;
    each(root);
    match client.get_children(root, watch).await {
        Ok(children) => visit_below(client, root.to_owned(), children, watch, each).await,
        Err(error) if error.code == ErrorCode::NO_NODE => Ok(()),
        Err(error) => Err(error),
    }
}

fn visit_below<'a>(
    client: &'a Client,
    parent: String,
    mut children: Vec<String>,
    watch: bool,
    each: &'a mut (dyn FnMut(&str) + Send),
) -> Pin<Box<dyn Future<Output = Result<(), ZkError>> + Send + 'a>> {
    Box::pin(async move {
        children.sort();
        let paths: Vec<String> = children.iter().map(|child| path::join(&parent, child)).collect();
        for path in &paths {
            each(path);
        }
        for window in paths.chunks(WINDOW) {
            let lists: Vec<_> =
                window.iter().map(|path| client.get_children(path, watch)).collect();
            for (path, list) in window.iter().zip(lists) {
                match list.await {
                    Ok(children) if children.is_empty() => {}
                    Ok(children) => {
                        visit_below(client, path.clone(), children, watch, each).await?
                    }
                    // Deleted since it was listed.
                    Err(error) if error.code == ErrorCode::NO_NODE => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    })
}

/// `root` and all below it, parents before children.
async fn list(client: &Client, root: &str) -> Result<Vec<String>, ZkError> {
    let mut paths = vec![root.to_owned()];
    let mut pending = VecDeque::new();
    let (mut asked, mut answered) = (0, 0);
    while answered < paths.len() {
        while asked < paths.len() && pending.len() < WINDOW {
            pending.push_back(client.get_children(&paths[asked], false));
            asked += 1;
        }
        let children = pending.pop_front().expect("one was just asked for").await?;
        let parent = paths[answered].clone();
        answered += 1;
        paths.extend(children.iter().map(|child| path::join(&parent, child)));
    }
    Ok(paths)
}

pub(super) async fn delete_all(
    context: &Context,
    arguments: &Arguments,
    root: &str,
) -> Result<(), CliError> {
    /// Batches in flight.
    const BATCHES: usize = 10;
    let batch = number(arguments, "b", 1000i32, "an int")?;
    let mut paths = list(&context.client, root).await?;
    paths.reverse();
    let count = paths.len();
    let Some(batch) = usize::try_from(batch).ok().filter(|batch| *batch > 0) else {
        for path in &paths {
            context.client.delete(path, -1).await?;
        }
        context.out.result(|| json!({"path": root, "deleted": count}), |_| ());
        return Ok(());
    };
    let mut pending = VecDeque::new();
    let mut batches = paths.chunks(batch);
    let mut failed: Option<CliError> = None;
    loop {
        while failed.is_none() && pending.len() < BATCHES {
            let Some(paths) = batches.next() else { break };
            let delete =
                |path: &String| MultiOp::Delete(DeleteRequest { path: path.clone(), version: -1 });
            pending.push_back((paths, context.client.multi(paths.iter().map(delete).collect())));
        }
        let Some((paths, results)) = pending.pop_front() else { break };
        let error = match results.await {
            Err(error) => Some(error),
            Ok(results) => results.into_iter().zip(paths).find_map(|(result, path)| match result {
                MultiResult::Error(code)
                    if code != ErrorCode::OK && code != ErrorCode::RUNTIME_INCONSISTENCY =>
                {
                    Some(ZkError { code, op: zk_proto::OpCode::DELETE, path: Some(path.clone()) })
                }
                _ => None, // deleted, or not tried
            }),
        };
        if let Some(error) = error {
            failed.get_or_insert(error.into());
        }
    }
    match failed {
        None => {
            context.out.result(|| json!({"path": root, "deleted": count}), |_| ());
            Ok(())
        }
        Some(error) => {
            context.out.text_notice("Failed to delete some node(s) in the subtree!");
            Err(error)
        }
    }
}
