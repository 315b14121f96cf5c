//! `cp` and `mirror`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, sleep_until};
use zk_client::{Client, ErrorCode, EventKind, KeeperState, WatchedEvent};
use zk_proto::acl::Acl;
use zk_proto::create_mode::{CreateMode, OwnerKind};
use zk_proto::path;

use super::contend::make_parents;
use super::progress::{Count, Progress};
use super::transfer::{below, check_acl, policy, push, relative};
use super::walk::{Node, Walk, Want, single};
use super::write::{Change, Exists, Kind, Writer};
use super::{Call, reserved, watch};
use crate::error::{CliError, NOT_CONNECTED};

/// Changes that are collected before they are carried over.
const SETTLE: Duration = Duration::from_millis(20);
/// More of them at once, and everything is compared instead.
const MANY: usize = 10_000;
const RESYNC: Duration = Duration::from_secs(600);

/// A subtree must not grow into itself, nor be deleted for not being in itself.
fn check_nested(call: &Call, both_ways: bool) -> Result<(), CliError> {
    let (source, target) = (call.path(0)?, call.path(1)?);
    let inside = |inner: &str, outer: &str| {
        inner == outer
            || outer == "/"
            || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    if call.flags.value("to").is_some_and(|to| to != call.server) {
        return Ok(());
    }
    if inside(target, source) || (both_ways && inside(source, target)) {
        return Err(CliError::usage(format!("{source} and {target} lie within each other")));
    }
    Ok(())
}

/// What a znode becomes at the target; `None`: an ephemeral one that is left out.
fn kind_of(node: &Node, ephemerals: bool) -> Option<Kind> {
    match node.kind() {
        OwnerKind::Void => Some(Kind::Persistent),
        OwnerKind::Container => Some(Kind::Container),
        OwnerKind::Ttl(ms) => Some(Kind::Ttl(ms)),
        OwnerKind::Session(_) => ephemerals.then_some(Kind::Persistent),
    }
}

fn finished(call: &Call, progress: &Progress) {
    call.out.result(|| progress.json(), |out| out.line(&progress.summary()));
}

pub(super) async fn cp(call: &Call) -> Result<(), CliError> {
    let exists = policy(call)?;
    let (source, target) = (call.path(0)?, call.path(1)?);
    let recursive = call.flags.has("recursive");
    if recursive {
        check_nested(call, false)?;
    }
    let progress = call.progress();
    let work = async {
        let (to, _) = call.second().await?;
        make_parents(&to, path::parent(target), CreateMode::Persistent).await?;
        let mut writer = Writer::new(&to, exists, &progress);
        let (ephemerals, acls) = (call.flags.has("ephemerals"), !call.flags.has("no-acls"));
        let depth = if recursive { usize::MAX } else { 0 };
        let mut walk = Walk::new(&call.client, source, Want { data: true, acl: acls }, depth)
            .skipping(reserved(&call.server));
        while let Some(node) = walk.next().await {
            let node = node.map_err(|error| {
                CliError::from(error).with_note(&format!("; so far: {}", progress.summary()))
            })?;
            progress.add(Count::Read, 1);
            progress.add(Count::Bytes, node.data.as_ref().map_or(0, bytes::Bytes::len) as u64);
            // One that is asked for by name is meant.
            let Some(kind) = kind_of(&node, ephemerals || !recursive) else {
                progress.add(Count::Ephemerals, 1);
                continue;
            };
            if acls {
                check_acl(&node)?;
            }
            let path = below(target, relative(source, &node.path));
            let change =
                Change::Create { path, data: node.data, acl: acls.then_some(node.acl), kind };
            push(&mut writer, change, exists).await?;
        }
        writer.finish().await
    };
    call.until_signal(&progress, work).await?;
    finished(call, &progress);
    Ok(())
}

/// Makes one subtree like another.
struct Mirror<'a> {
    call: &'a Call,
    source: &'a str,
    target: &'a str,
    to: Client,
    /// What of the target is the system's.
    reserved: Option<String>,
    progress: Progress,
    delete: bool,
    dry: bool,
    shown: bool,
    ephemerals: bool,
    want: Want,
}

/// Connects until it succeeds, unless what is wrong is not the connection.
async fn persist<T, F>(connect: impl Fn() -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    loop {
        match connect().await {
            Err(error) if error.exit == NOT_CONNECTED => sleep(Duration::from_secs(1)).await,
            result => return result,
        }
    }
}

/// The order of a walk: parents first, children by name.
fn order(a: &str, b: &str) -> Ordering {
    // The root's only part is empty, before any name.
    a.split('/').cmp(b.split('/'))
}

pub(super) async fn mirror(call: &Call) -> Result<(), CliError> {
    let (source, target) = (call.path(0)?, call.path(1)?);
    check_nested(call, true)?;
    let (dry, follow) = (call.flags.has("dry-run"), call.flags.has("follow"));
    if dry && follow {
        return Err(CliError::usage("--dry-run and --follow exclude each other"));
    }
    let resync = call.flags.duration("resync")?.unwrap_or(RESYNC);
    let progress = call.progress();
    let work = async {
        let (to, to_server) = call.second().await?;
        let mut mirror = Mirror {
            call,
            source,
            target,
            to,
            reserved: reserved(&to_server),
            progress: progress.clone(),
            delete: call.flags.has("delete"),
            dry,
            shown: dry || call.flags.has("verbose"),
            ephemerals: call.flags.has("ephemerals"),
            want: Want { data: true, acl: !call.flags.has("no-acls") },
        };
        if follow { mirror.follow(resync).await } else { mirror.pass(&call.client, true).await }
    };
    call.until_signal(&progress, work).await?;
    if !dry || !call.out.json {
        let prefix = if dry { "would be: " } else { "" };
        call.out
            .result(|| progress.json(), |out| out.line(&format!("{prefix}{}", progress.summary())));
    }
    Ok(())
}

impl Mirror<'_> {
    fn writer(&self) -> Writer {
        // What is made was not there a moment ago; if it is now, it is made like the source's.
        Writer::new(&self.to, Exists::Overwrite, &self.progress)
    }

    async fn change(&self, writer: &mut Writer, change: Change) -> Result<(), CliError> {
        if self.shown {
            let (name, path, size) = (change.name(), change.path(), change.size());
            self.call.out.stream(
                || json!({"change": name, "path": path, "size": size}),
                || match &change {
                    Change::Create { .. } | Change::SetData { .. } => {
                        format!("{name} {path} {size} B")
                    }
                    Change::SetAcl { .. } | Change::Delete { .. } => format!("{name} {path}"),
                },
            )?;
        }
        if self.dry {
            self.progress.add(
                match change {
                    Change::Create { .. } => Count::Created,
                    Change::SetData { .. } => Count::Overwritten,
                    Change::SetAcl { .. } => Count::AclsSet,
                    Change::Delete { .. } => Count::Deleted,
                },
                1,
            );
            return Ok(());
        }
        push(writer, change, Exists::Overwrite).await
    }

    /// Compares everything. `needed`: a source that is not there is an error, not an empty one.
    async fn pass(&self, from: &Client, needed: bool) -> Result<(), CliError> {
        let mut writer = self.writer();
        let mut ours = Walk::new(from, self.source, self.want, usize::MAX)
            .skipping(reserved(&self.call.server));
        let mut theirs =
            Walk::new(&self.to, self.target, self.want, usize::MAX).skipping(self.reserved.clone());
        let mut source = self.next(&mut ours, !needed).await?;
        let mut target = self.next(&mut theirs, true).await?;
        if target.is_none() && source.is_some() && !self.dry {
            make_parents(&self.to, path::parent(self.target), CreateMode::Persistent).await?;
        }
        // Children before parents, so at the end; only their paths are kept.
        let mut surplus = Vec::new();
        loop {
            let side = match (&source, &target) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(ours), Some(theirs)) => {
                    order(relative(self.source, &ours.path), relative(self.target, &theirs.path))
                }
            };
            let ours_now = if side == Ordering::Greater { None } else { source.take() };
            let theirs_now = if side == Ordering::Less { None } else { target.take() };
            if ours_now.is_some() {
                self.progress.add(Count::Read, 1);
            }
            self.compare(&mut writer, ours_now.as_ref(), theirs_now.as_ref(), &mut surplus).await?;
            if ours_now.is_some() {
                source = self.next(&mut ours, false).await?;
            }
            if theirs_now.is_some() {
                target = self.next(&mut theirs, false).await?;
            }
        }
        for path in surplus.into_iter().rev() {
            self.change(&mut writer, Change::Delete { path }).await?;
        }
        writer.finish().await
    }

    /// The next of a walk; `may_lack`: its root need not be there.
    async fn next(&self, walk: &mut Walk, may_lack: bool) -> Result<Option<Node>, CliError> {
        match walk.next().await {
            None => Ok(None),
            Some(Ok(node)) => Ok(Some(node)),
            Some(Err(error)) if may_lack && error.code == ErrorCode::NO_NODE => Ok(None),
            Some(Err(error)) => {
                Err(CliError::from(error)
                    .with_note(&format!("; so far: {}", self.progress.summary())))
            }
        }
    }

    async fn compare(
        &self,
        writer: &mut Writer,
        ours: Option<&Node>,
        theirs: Option<&Node>,
        surplus: &mut Vec<String>,
    ) -> Result<(), CliError> {
        let kind = ours.and_then(|ours| kind_of(ours, self.ephemerals));
        match (ours, kind, theirs) {
            (Some(ours), Some(kind), theirs) => {
                if self.want.acl {
                    check_acl(ours)?;
                }
                let path = below(self.target, relative(self.source, &ours.path));
                let acl = || self.want.acl.then(|| ours.acl.clone());
                match theirs {
                    None => {
                        let change =
                            Change::Create { path, data: ours.data.clone(), acl: acl(), kind };
                        self.change(writer, change).await
                    }
                    Some(theirs) => {
                        // Null and empty cannot be told apart by most clients.
                        let same_data = ours.data.as_deref().unwrap_or_default()
                            == theirs.data.as_deref().unwrap_or_default();
                        let same_acl = ours.acl == theirs.acl;
                        if same_data && same_acl {
                            self.progress.add(Count::Unchanged, 1);
                        }
                        if !same_data {
                            let change =
                                Change::SetData { path: path.clone(), data: ours.data.clone() };
                            self.change(writer, change).await?;
                        }
                        if !same_acl {
                            let acl: Vec<Acl> = ours.acl.clone();
                            self.change(writer, Change::SetAcl { path, acl }).await?;
                        }
                        Ok(())
                    }
                }
            }
            (ours, _, theirs) => {
                if ours.is_some() {
                    self.progress.add(Count::Ephemerals, 1);
                }
                match theirs {
                    // Another session's: it goes by itself.
                    Some(theirs) if matches!(theirs.kind(), OwnerKind::Session(_)) => {
                        self.progress.add(Count::Skipped, 1);
                    }
                    Some(theirs) if self.delete && theirs.path != "/" => {
                        surplus.push(theirs.path.clone())
                    }
                    Some(_) => self.progress.add(Count::Skipped, 1),
                    None => {}
                }
                Ok(())
            }
        }
    }

    /// Carries changes over for ever. Servers that are away are waited for, sessions that are over are replaced; each time
    /// everything is compared.
    async fn follow(&mut self, resync: Duration) -> Result<(), CliError> {
        let mut from = self.call.client.clone();
        let mut first = true;
        loop {
            let Err(error) = self.follow_sessions(&from, resync, &mut first).await else {
                continue;
            };
            let over = !from.state().is_alive() || !self.to.state().is_alive();
            if first || !(over || error.exit == NOT_CONNECTED) {
                return Err(error);
            }
            self.call.out.notice(&format!("{}; going on with what differs then", error.text));
            let call = self.call;
            let source = || call.connect(&call.server, call.flags.value("auth"));
            match (call.flags.has("to"), from.state().is_alive(), self.to.state().is_alive()) {
                (true, from_lives, to_lives) => {
                    if !from_lives {
                        from = persist(source).await?;
                    }
                    if !to_lives {
                        self.to = persist(|| call.second()).await?.0;
                    }
                }
                // One session is both.
                (false, true, true) => {}
                (false, ..) => {
                    from = persist(source).await?;
                    self.to = from.clone();
                }
            }
        }
    }

    async fn follow_sessions(
        &self,
        from: &Client,
        resync: Duration,
        first: &mut bool,
    ) -> Result<(), CliError> {
        // Before the first look, so that nothing falls between.
        let mut events = from.events();
        watch::set(from, self.source, true).await?;
        self.pass(from, *first).await?;
        if std::mem::take(first) {
            self.call.out.text_notice(&format!("in step; following {}", self.source));
        }
        let state = self.follow_session(from, &mut events, resync).await?;
        Err(CliError::failed(format!("the session is {state}")))
    }

    /// Until the session ends, whose last state is returned.
    async fn follow_session(
        &self,
        from: &Client,
        events: &mut UnboundedReceiver<WatchedEvent>,
        resync: Duration,
    ) -> Result<KeeperState, CliError> {
        let mut next_pass = Instant::now() + resync;
        loop {
            let mut dirty = BTreeSet::new();
            let mut everything = false;
            let mut event = tokio::select! {
                event = events.recv() => event,
                () = sleep_until(next_pass) => {
                    everything = true;
                    None
                }
            };
            if event.is_some() {
                sleep(SETTLE).await;
            }
            while let Some(happened) = event {
                match (happened.kind, happened.state) {
                    (EventKind::None, KeeperState::Disconnected) => {
                        self.call.out.notice("connection lost; reconnecting");
                    }
                    (
                        EventKind::None,
                        KeeperState::SyncConnected | KeeperState::ConnectedReadOnly,
                    ) => {
                        self.call.out.notice("connected again; comparing everything");
                        everything = true;
                    }
                    (EventKind::None, state) => return Ok(state),
                    _ => {
                        // Of a znode: read again, whatever it was.
                        if watch::concerns(&happened, self.source, true) {
                            dirty.extend(happened.path);
                        }
                    }
                }
                event = events.try_recv().ok();
            }
            let reserved = reserved(&self.call.server);
            dirty.retain(|path: &String| {
                reserved.as_ref().is_none_or(|reserved| !path.starts_with(reserved.as_str()))
            });
            let carried = if everything || dirty.len() > MANY {
                Err(CliError::failed("")) // as if it had failed: everything is compared
            } else {
                self.carry(from, dirty).await
            };
            if carried.is_err() {
                self.pass(from, false).await?;
                next_pass = Instant::now() + resync;
            }
        }
    }

    /// Carries over what happened to these znodes of the source.
    async fn carry(&self, from: &Client, dirty: BTreeSet<String>) -> Result<(), CliError> {
        const AT_ONCE: usize = 64;
        let mut dirty: Vec<String> = dirty.into_iter().collect();
        dirty.sort_by(|a, b| order(a, b));
        let mut writer = self.writer();
        let mut surplus = Vec::new();
        for paths in dirty.chunks(AT_ONCE) {
            let pairs: Vec<_> = paths
                .iter()
                .map(|path| {
                    let target = below(self.target, relative(self.source, path));
                    let (from, to, path, want) =
                        (from.clone(), self.to.clone(), path.clone(), self.want);
                    tokio::spawn(async move {
                        let ours = single(&from, &path, want).await?;
                        let theirs = single(&to, &target, want).await?;
                        Ok::<_, zk_client::ZkError>((ours, theirs))
                    })
                })
                .collect();
            for pair in pairs {
                let (ours, theirs) = pair.await.expect("it neither panics nor is it aborted")?;
                self.compare(&mut writer, ours.as_ref(), theirs.as_ref(), &mut surplus).await?;
            }
        }
        // What is below them was deleted, too; its own events may have come before or with this.
        let mut all = BTreeSet::new();
        for root in surplus {
            let mut walk = Walk::new(&self.to, &root, Want::default(), usize::MAX);
            while let Some(node) = self.next(&mut walk, true).await? {
                all.insert(node.path);
            }
        }
        for path in all.into_iter().rev() {
            self.change(&mut writer, Change::Delete { path }).await?;
        }
        writer.finish().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_a_walk() {
        // A dash sorts before a slash: as plain texts they would stand the other way round.
        let walk = ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/b"];
        for pair in walk.windows(2) {
            assert_eq!(order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(order("/a", "/a"), Ordering::Equal);
    }
}
