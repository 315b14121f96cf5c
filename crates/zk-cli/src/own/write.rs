//! Many writes: in bounded transactions, several on their way, each done once or accounted for.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use zk_client::{Client, ErrorCode, ZkError};
use zk_proto::OpCode;
use zk_proto::acl::Acl;
use zk_proto::create_mode::CreateMode;
use zk_proto::multi::{MultiOp, MultiResult};
use zk_proto::proto::{CreateRequest, CreateTtlRequest, DeleteRequest, SetDataRequest};

use super::progress::{Count, Progress};
use crate::error::CliError;

/// Changes of one transaction.
const BATCH: usize = 200;
/// Its bytes, well below the 1 MB that a server takes in one request.
const BATCH_BYTES: usize = 256 << 10;
/// Transactions on their way.
const FLIGHTS: usize = 8;
/// Times that a change is tried whose answer was lost.
const TRIES: usize = 5;

/// What is done about a znode that is to be made and is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exists {
    Fail,
    Skip,
    Overwrite,
}

/// The kinds of znodes that can be made to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Persistent,
    Container,
    /// With a time to live, in ms.
    Ttl(i64),
}

/// One write. Paths are the target's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Without an ACL it is open to all, and one that exists keeps its own.
    Create {
        path: String,
        data: Option<Bytes>,
        acl: Option<Vec<Acl>>,
        kind: Kind,
    },
    SetData {
        path: String,
        data: Option<Bytes>,
    },
    SetAcl {
        path: String,
        acl: Vec<Acl>,
    },
    Delete {
        path: String,
    },
}

type Results = Pin<Box<dyn Future<Output = Vec<Result<(), ZkError>>> + Send>>;
type Answer = Pin<Box<dyn Future<Output = Result<(), ZkError>> + Send>>;

impl Change {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::SetData { path, .. }
            | Self::SetAcl { path, .. }
            | Self::Delete { path } => path,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::SetData { .. } => "set",
            Self::SetAcl { .. } => "setAcl",
            Self::Delete { .. } => "delete",
        }
    }

    /// The bytes of its data.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Create { data, .. } | Self::SetData { data, .. } => {
                data.as_ref().map_or(0, Bytes::len)
            }
            Self::SetAcl { .. } | Self::Delete { .. } => 0,
        }
    }

    fn weight(&self) -> usize {
        self.size() + self.path().len() + 64
    }

    /// As part of a transaction; there is none for ACLs.
    fn op(&self) -> Option<MultiOp> {
        match self.clone() {
            Self::Create { path, data, acl, kind } => {
                let acl = acl.unwrap_or_else(Acl::open);
                let create = |op, mode: CreateMode, path, data, acl| MultiOp::Create {
                    op,
                    request: CreateRequest { path, data, acl, flags: mode.flag() },
                };
                Some(match kind {
                    Kind::Persistent => {
                        create(OpCode::CREATE, CreateMode::Persistent, path, data, acl)
                    }
                    Kind::Container => {
                        create(OpCode::CREATE_CONTAINER, CreateMode::Container, path, data, acl)
                    }
                    Kind::Ttl(ttl) => MultiOp::CreateTtl(CreateTtlRequest {
                        path,
                        data,
                        acl,
                        flags: CreateMode::PersistentWithTtl.flag(),
                        ttl,
                    }),
                })
            }
            Self::SetData { path, data } => {
                Some(MultiOp::SetData(SetDataRequest { path, data, version: -1 }))
            }
            Self::Delete { path } => Some(MultiOp::Delete(DeleteRequest { path, version: -1 })),
            Self::SetAcl { .. } => None,
        }
    }

    fn send(&self, client: &Client) -> Answer {
        match self {
            Self::Create { path, data, acl, kind } => {
                let acl = acl.clone().unwrap_or_else(Acl::open);
                let mode = match kind {
                    Kind::Persistent => CreateMode::Persistent,
                    Kind::Container => CreateMode::Container,
                    Kind::Ttl(ttl) => {
                        let mode = CreateMode::PersistentWithTtl;
                        let call = client.create_ttl(path, data.as_deref(), &acl, mode, *ttl);
                        return Box::pin(async move { call.await.map(|_| ()) });
                    }
                };
                let call = client.create(path, data.as_deref(), &acl, mode);
                Box::pin(async move { call.await.map(|_| ()) })
            }
            Self::SetData { path, data } => {
                let call = client.set_data(path, data.as_deref(), -1);
                Box::pin(async move { call.await.map(|_| ()) })
            }
            Self::SetAcl { path, acl } => {
                let call = client.set_acl(path, acl, -1);
                Box::pin(async move { call.await.map(|_| ()) })
            }
            Self::Delete { path } => Box::pin(client.delete(path, -1)),
        }
    }
}

/// Changes on their way.
struct Flight {
    changes: Vec<Change>,
    /// As one transaction: one that fails takes all with it.
    whole: bool,
    results: Results,
}

/// Takes changes in order; a parent's creation comes before its children's.
pub(crate) struct Writer {
    client: Client,
    exists: Exists,
    pub(crate) progress: Progress,
    batch: Vec<Change>,
    bytes: usize,
    flights: VecDeque<Flight>,
    /// Znodes were found that exist: a transaction would fail as a whole.
    singly: bool,
}

impl Writer {
    pub(crate) fn new(client: &Client, exists: Exists, progress: &Progress) -> Self {
        Self {
            client: client.clone(),
            exists,
            progress: progress.clone(),
            batch: Vec::new(),
            bytes: 0,
            flights: VecDeque::new(),
            singly: false,
        }
    }

    pub(crate) async fn push(&mut self, change: Change) -> Result<(), CliError> {
        self.bytes += change.weight();
        self.batch.push(change);
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.depart();
            while self.flights.len() >= FLIGHTS {
                self.land().await?;
            }
        }
        Ok(())
    }

    /// Waits until all is done.
    pub(crate) async fn finish(&mut self) -> Result<(), CliError> {
        self.depart();
        while !self.flights.is_empty() {
            self.land().await?;
        }
        Ok(())
    }

    /// Sends what has been collected.
    fn depart(&mut self) {
        let changes = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.launch(changes, !self.singly);
    }

    /// Sends changes; `together`: as one transaction if they can be one.
    fn launch(&mut self, changes: Vec<Change>, together: bool) {
        if changes.is_empty() {
            return;
        }
        let ops: Option<Vec<MultiOp>> = changes.iter().map(Change::op).collect();
        let (whole, results): (bool, Results) = match ops.filter(|ops| ops.len() > 1 && together) {
            Some(ops) => {
                let paths: Vec<String> =
                    changes.iter().map(|change| change.path().to_owned()).collect();
                let call = self.client.multi(ops);
                let results = Box::pin(async move {
                    let error = |code, path| ZkError { code, op: OpCode::MULTI, path: Some(path) };
                    match call.await {
                        Err(cause) => {
                            paths.into_iter().map(|path| Err(error(cause.code, path))).collect()
                        }
                        Ok(results) => paths
                            .into_iter()
                            .zip(results)
                            .map(|(path, result)| match result {
                                MultiResult::Error(code) => Err(error(code, path)),
                                _ => Ok(()), // what each kind of write answers
                            })
                            .collect(),
                    }
                });
                (true, results)
            }
            None => {
                let answers: Vec<Answer> =
                    changes.iter().map(|change| change.send(&self.client)).collect();
                let results = Box::pin(async move {
                    let mut results = Vec::with_capacity(answers.len());
                    for answer in answers {
                        results.push(answer.await);
                    }
                    results
                });
                (false, results)
            }
        };
        self.flights.push_back(Flight { changes, whole, results });
    }

    /// Waits for the oldest on its way; what it did not do is done one by one. After an error nothing more is started,
    /// and what was on its way is counted.
    async fn land(&mut self) -> Result<(), CliError> {
        let Some(Flight { changes, whole, results }) = self.flights.pop_front() else {
            return Ok(());
        };
        let results = results.await;
        match self.settle(changes, whole, results).await {
            Ok(()) => Ok(()),
            Err(error) => {
                for Flight { changes, results, .. } in std::mem::take(&mut self.flights) {
                    for (change, result) in changes.iter().zip(results.await) {
                        if result.is_ok() {
                            self.done(change);
                        }
                    }
                }
                Err(error.with_note(&format!("; so far: {}", self.progress.summary())))
            }
        }
    }

    fn done(&self, change: &Change) {
        let count = match change {
            Change::Create { .. } => Count::Created,
            Change::SetData { .. } => Count::Overwritten,
            Change::SetAcl { .. } => Count::AclsSet,
            Change::Delete { .. } => Count::Deleted,
        };
        self.progress.add(count, 1);
    }

    fn skipped(&self) {
        self.progress.add(Count::Skipped, 1);
    }

    async fn settle(
        &mut self,
        changes: Vec<Change>,
        whole: bool,
        results: Vec<Result<(), ZkError>>,
    ) -> Result<(), CliError> {
        let mut left: Vec<(Change, Result<(), ZkError>)> = Vec::new();
        for (change, result) in changes.into_iter().zip(results) {
            match result {
                Ok(()) => self.done(&change),
                Err(error) => left.push((change, Err(error))),
            }
        }
        if left.is_empty() {
            self.singly = false;
            return Ok(());
        }
        let lost = left.iter().any(|(_, result)| is(result, ErrorCode::CONNECTION_LOSS));
        // Nothing more is to be made then, not even what stood with it in its transaction.
        let refused = |result: &Result<(), ZkError>| {
            self.exists == Exists::Fail && is(result, ErrorCode::NODE_EXISTS)
        };
        if whole && !lost && left.iter().any(|(_, result)| refused(result)) {
            left.retain(|(_, result)| refused(result));
            let (_, result) = left.remove(0);
            return Ok(result?);
        }
        // A transaction that failed did nothing of what it holds.
        if whole || lost {
            left = self.again(left.into_iter().map(|(change, _)| change).collect(), lost).await?;
        }
        self.singly = left.iter().any(|(_, result)| is(result, ErrorCode::NODE_EXISTS));
        let mut overwrites = Vec::new();
        let mut failed = None;
        for (change, result) in left {
            match (result, change) {
                (Ok(()), change) => self.done(&change),
                // Somebody was faster.
                (Err(error), Change::Delete { .. }) if error.code == ErrorCode::NO_NODE => {}
                (Err(error), Change::Create { path, data, acl, .. })
                    if error.code == ErrorCode::NODE_EXISTS =>
                {
                    match self.exists {
                        Exists::Skip => self.skipped(),
                        Exists::Overwrite => {
                            overwrites.push(Change::SetData { path: path.clone(), data });
                            if let Some(acl) = acl {
                                overwrites.push(Change::SetAcl { path, acl });
                            }
                        }
                        // Made by ourselves, by a request whose answer was lost.
                        Exists::Fail if lost && self.has(&path, data.as_ref()).await? => {
                            self.done(&Change::Create { path, data, acl, kind: Kind::Persistent });
                        }
                        Exists::Fail => failed = failed.or(Some(error)),
                    }
                }
                (Err(error), _) => failed = failed.or(Some(error)),
            }
        }
        // After the others are counted.
        if let Some(error) = failed {
            return Err(error.into());
        }
        // Behind what is on its way already: nothing there is about the same znodes.
        self.launch(overwrites, true);
        Ok(())
    }

    /// Does changes one by one, all on their way at once, and repeats those whose answers are lost.
    async fn again(
        &self,
        mut changes: Vec<Change>,
        mut lost: bool,
    ) -> Result<Vec<(Change, Result<(), ZkError>)>, CliError> {
        let mut answered = Vec::with_capacity(changes.len());
        for tries in 1.. {
            if lost {
                back(&self.client).await?;
            }
            let answers: Vec<Answer> =
                changes.iter().map(|change| change.send(&self.client)).collect();
            let mut unanswered = Vec::new();
            for (change, answer) in changes.into_iter().zip(answers) {
                match answer.await {
                    Err(error) if error.code == ErrorCode::CONNECTION_LOSS && tries < TRIES => {
                        unanswered.push(change);
                    }
                    result => answered.push((change, result)),
                }
            }
            lost = !unanswered.is_empty();
            changes = unanswered;
            if changes.is_empty() {
                break;
            }
        }
        Ok(answered)
    }

    /// Whether the znode is as it was to be made.
    async fn has(&self, path: &str, data: Option<&Bytes>) -> Result<bool, CliError> {
        let (there, _) = self.client.get_data(path, false).await?;
        Ok(there.unwrap_or_default() == data.cloned().unwrap_or_default())
    }
}

fn is(result: &Result<(), ZkError>, code: ErrorCode) -> bool {
    result.as_ref().is_err_and(|error| error.code == code)
}

/// Waits for the connection, but not for ever: there is somebody who waits for the work.
pub(crate) async fn back(client: &Client) -> Result<(), CliError> {
    let limit = client.session_timeout();
    client
        .wait_connected(limit)
        .await
        .map_err(|error| CliError::not_connected(format!("the connection was lost: {error}")))
}
