//! What clients asked for, and what they were told.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use zk_proto::create_mode::CreateMode;
use zk_proto::data::Stat;
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::proto::{
    Create2Response, CreateRequest, CreateResponse, DeleteRequest, ExistsResponse,
    GetChildren2Response, GetChildrenResponse, GetDataResponse, ReplyHeader, SetDataRequest,
    SetDataResponse, SyncResponse,
};
use zk_proto::txn::{Txn, TxnHeader};
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Xid, Zxid, path};
use zk_session::LocalSessionMode;

use super::model::{Model, Znode};
use super::{Verdict, Violation, fail};

/// What a write is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Error(ErrorCode),
    Done,
    Created(String, Option<Stat>),
    Stat(Option<Stat>),
    /// The ensemble that a reconfiguration makes.
    Config(Option<Bytes>),
    /// Errors of its operations, and paths of what they created.
    Multi(Vec<Result<Option<String>, ErrorCode>>),
}

#[derive(Debug)]
struct Operation {
    request: Rc<Request>,
    /// The last write that had been answered to anybody when this was asked for.
    floor: Zxid,
    /// What came of it.
    done: Option<(Zxid, Expected)>,
}

/// Every write that was asked for.
#[derive(Debug, Default)]
pub struct Clients {
    /// What becomes of new sessions.
    pub(super) local: LocalSessionMode,
    operations: BTreeMap<(SessionId, Xid), Operation>,
    /// The last write of each session that took effect.
    last: BTreeMap<SessionId, Xid>,
    /// The last write that was answered to anybody.
    answered: Zxid,
    /// The last sequence number handed out below each parent.
    sequences: BTreeMap<(String, Zxid), i32>,
}

/// The tree as prep sees it in the middle of a multi.
struct View<'a> {
    model: &'a Model,
    changed: BTreeMap<String, Option<Znode>>,
}

impl View<'_> {
    fn get(&self, path: &str) -> Option<&Znode> {
        match self.changed.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.model.now(path).map(|znode| &**znode),
        }
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Znode)) {
        if let Some(mut znode) = self.get(path).cloned() {
            change(&mut znode);
            self.changed.insert(path.to_owned(), Some(znode));
        }
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn create(view: &mut View<'_>, request: &CreateRequest) -> Result<String, ErrorCode> {
    let mode = CreateMode::from_flag(request.flags).ok_or(ErrorCode::BAD_ARGUMENTS)?;
    let parent_path = path::parent(&request.path).to_owned();
    let parent = view.get(&parent_path).ok_or(ErrorCode::NO_NODE)?;
    let path = if mode.is_sequential() {
        format!("{}{:010}", request.path, parent.creates)
    } else {
        request.path.clone()
    };
    let below_ephemeral = parent.owner != 0;
    if view.get(&path).is_some() {
        return Err(ErrorCode::NODE_EXISTS);
    }
    if below_ephemeral {
        return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
    }
    // Only what later operations of a multi look at has to be right.
    let mut znode = view.get("/").expect("the root is always there").clone();
    znode.children.clear();
    znode.creates = 0;
    znode.version = 0;
    znode.owner = i64::from(mode.is_ephemeral());
    view.changed.insert(path.clone(), Some(znode));
    view.change(&parent_path, |parent| {
        parent.creates += 1;
        parent.children.insert(name(&path).to_owned());
    });
    Ok(path)
}

fn check_version(znode: &Znode, version: i32) -> Result<(), ErrorCode> {
    if version != -1 && version != znode.version {
        return Err(ErrorCode::BAD_VERSION);
    }
    Ok(())
}

fn delete(view: &mut View<'_>, request: &DeleteRequest) -> Result<(), ErrorCode> {
    let znode = view.get(&request.path).ok_or(ErrorCode::NO_NODE)?;
    check_version(znode, request.version)?;
    if !znode.children.is_empty() {
        return Err(ErrorCode::NOT_EMPTY);
    }
    view.changed.insert(request.path.clone(), None);
    let parent = path::parent(&request.path).to_owned();
    view.change(&parent, |parent| {
        parent.children.remove(name(&request.path));
    });
    Ok(())
}

fn set_data(view: &mut View<'_>, request: &SetDataRequest) -> Result<i32, ErrorCode> {
    let znode = view.get(&request.path).ok_or(ErrorCode::NO_NODE)?;
    check_version(znode, request.version)?;
    let version = znode.version.wrapping_add(1);
    view.change(&request.path, |znode| znode.version = version);
    Ok(version)
}

/// One operation of a multi, or the only one: what it creates, and the transaction it must become.
fn one(view: &mut View<'_>, op: &MultiOp, txn: &Txn) -> Result<(Option<String>, bool), ErrorCode> {
    Ok(match op {
        MultiOp::Create { request, .. } => {
            let mode = CreateMode::from_flag(request.flags).ok_or(ErrorCode::BAD_ARGUMENTS)?;
            let path = create(view, request)?;
            let creates = view.get(path::parent(&path)).map_or(0, |parent| parent.creates);
            let fits = matches!(txn, Txn::Create(txn) if txn.path == path
                && txn.data == request.data
                && txn.ephemeral == mode.is_ephemeral()
                && txn.parent_cversion == creates);
            (Some(path), fits)
        }
        MultiOp::Delete(request) => {
            delete(view, request)?;
            (None, matches!(txn, Txn::Delete(txn) if txn.path == request.path))
        }
        MultiOp::SetData(request) => {
            let version = set_data(view, request)?;
            let fits = matches!(txn, Txn::SetData(txn) if txn.path == request.path
                && txn.data == request.data
                && txn.version == version);
            (None, fits)
        }
        MultiOp::Check(request) => {
            let znode = view.get(&request.path).ok_or(ErrorCode::NO_NODE)?;
            check_version(znode, request.version)?;
            (None, matches!(txn, Txn::Check(txn) if txn.path == request.path))
        }
        MultiOp::CreateTtl(_) => return Err(ErrorCode::UNIMPLEMENTED),
    })
}

/// Why a request was not looked at: its session has moved or is gone, or the leader's disk is nearly
/// full. A multi says so in its first operation. What comes late by way of an observer master is spoilt
/// there; clients here ask for nothing that is wrong in itself.
fn refused(txn: &Txn) -> Option<ErrorCode> {
    let error = match txn {
        Txn::Error(error) => error,
        Txn::Multi(txns) => match txns.first() {
            Some((_, Txn::Error(error))) => error,
            Some(_) | None => return None,
        },
        _ => return None, // it took effect
    };
    let refusals = [
        ErrorCode::SESSION_MOVED,
        ErrorCode::SESSION_EXPIRED,
        ErrorCode::SYSTEM_ERROR,
        ErrorCode::BAD_ARGUMENTS,
    ];
    refusals.contains(&error.err).then_some(error.err)
}

/// What a request must become, looking at everything before it.
fn expect(model: &Model, request: &Request, txn: &Txn) -> Result<Expected, String> {
    let mut view = View { model, changed: BTreeMap::new() };
    let wrong = |why: &str| Err(format!("{request:?} became {txn:?}: {why}"));
    let op = match request {
        Request::Create(request) => {
            MultiOp::Create { op: OpCode::CREATE, request: request.clone() }
        }
        Request::Create2(request) => {
            MultiOp::Create { op: OpCode::CREATE2, request: request.clone() }
        }
        Request::Delete(request) => MultiOp::Delete(request.clone()),
        Request::SetData(request) => MultiOp::SetData(request.clone()),
        Request::Multi(MultiRequest::Write(ops)) => {
            let Txn::Multi(txns) = txn else { return wrong("no multi") };
            if txns.len() != ops.len() {
                return wrong("another number of operations");
            }
            let mut results = Vec::new();
            let mut failed = false;
            for (op, (_, txn)) in ops.iter().zip(txns) {
                if failed {
                    results.push(Err(ErrorCode::RUNTIME_INCONSISTENCY));
                    continue;
                }
                match one(&mut view, op, txn) {
                    // What stood before the operation that fails is logged in one form or another.
                    Ok((created, _)) => results.push(Ok(created)),
                    Err(code) => {
                        failed = true;
                        results.iter_mut().for_each(|result| *result = Err(ErrorCode::OK));
                        results.push(Err(code));
                        if !matches!(txn, Txn::Error(error) if error.err == code) {
                            return wrong(&format!("{code} was due"));
                        }
                    }
                }
            }
            if !failed {
                // Again, now that it is known that all of them count.
                let mut view = View { model, changed: BTreeMap::new() };
                for (op, (_, txn)) in ops.iter().zip(txns) {
                    if !one(&mut view, op, txn).is_ok_and(|(_, fits)| fits) {
                        return wrong("an operation became another one");
                    }
                }
            }
            return Ok(Expected::Multi(results));
        }
        Request::CloseSession => {
            return if matches!(txn, Txn::CloseSession(_)) {
                Ok(Expected::Done)
            } else {
                wrong("no end of a session")
            };
        }
        // Whether it could be had depends on who was connected to the leader.
        Request::Reconfig(_) => {
            return match txn {
                Txn::SetData(set) if set.path == path::CONFIG => {
                    Ok(Expected::Config(set.data.clone()))
                }
                Txn::Error(error) => Ok(Expected::Error(error.err)),
                _ => wrong("no reconfiguration"), // of all that there are
            };
        }
        _ => return wrong("it is no write"), // the workload's requests are those above
    };
    match one(&mut view, &op, txn) {
        Ok((created, true)) => Ok(match (created, &op) {
            (Some(path), _) => Expected::Created(path, None),
            (None, MultiOp::SetData(_)) => Expected::Stat(None),
            (None, _) => Expected::Done, // a delete
        }),
        Ok((_, false)) => wrong("it does not fit"),
        Err(code) if matches!(txn, Txn::Error(error) if error.err == code) => {
            Ok(Expected::Error(code))
        }
        Err(code) => wrong(&format!("{code} was due")),
    }
}

impl Clients {
    /// A client asks for a write.
    pub fn asked(&mut self, session: SessionId, xid: Xid, request: Rc<Request>) {
        let operation = Operation { request, floor: self.answered, done: None };
        self.operations.insert((session, xid), operation);
    }

    /// The last write that was answered to anybody.
    #[must_use]
    pub fn answered(&self) -> Zxid {
        self.answered
    }

    /// C1, C2, C5, C8: a write is committed, before `model` has it.
    ///
    /// # Errors
    /// It is not what its client asked for, given everything before it; or not for the first time; or
    /// out of its session's order; or before something that was answered before it was asked for.
    pub fn a_write_takes_effect_once_in_order_as_it_was_asked_for(
        &mut self,
        model: &Model,
        header: &TxnHeader,
        txn: &Txn,
    ) -> Verdict {
        let TxnHeader { client_id: session, cxid, zxid, .. } = *header;
        if cxid == Xid(0) {
            return Ok(()); // nobody asked: a session begins or expires
        }
        let Some(operation) = self.operations.get_mut(&(session, cxid)) else {
            return fail(
                "C5 what takes effect was asked for",
                format!("{zxid} is request {} of session {session}, which there was not", cxid.0),
            );
        };
        if let Some((before, _)) = operation.done {
            return fail(
                "C5 a request takes effect at most once",
                format!("request {} of session {session} is {before} and {zxid}", cxid.0),
            );
        }
        if operation.floor >= zxid {
            return fail(
                "C1 writes are linearizable",
                format!(
                    "request {} of session {session} is {zxid}; {} was answered before it was sent",
                    cxid.0, operation.floor
                ),
            );
        }
        let expected = match refused(txn) {
            Some(err) => match txn {
                Txn::Multi(txns) => {
                    let rest = ErrorCode::RUNTIME_INCONSISTENCY;
                    let errors = (0..txns.len()).map(|at| Err(if at == 0 { err } else { rest }));
                    Expected::Multi(errors.collect())
                }
                _ => Expected::Error(err), // one operation
            },
            None => {
                let last = self.last.entry(session).or_default();
                if *last > cxid {
                    return fail(
                        "C2 S6 a session's requests take effect in order",
                        format!(
                            "request {} of session {session} ({zxid}) comes behind {}",
                            cxid.0, last.0
                        ),
                    );
                }
                *last = cxid;
                match expect(model, &operation.request, txn) {
                    Ok(expected) => expected,
                    Err(message) => {
                        return fail(
                            "C1 C6 a write becomes what it must, given everything before it",
                            format!("{zxid}: {message}"),
                        );
                    }
                }
            }
        };
        operation.done = Some((zxid, expected));
        self.sequence_names_increase(
            model,
            &operation_request(&self.operations, session, cxid),
            txn,
            zxid,
        )
    }

    fn sequence_names_increase(
        &mut self,
        model: &Model,
        request: &Request,
        txn: &Txn,
        zxid: Zxid,
    ) -> Verdict {
        let (Request::Create(asked) | Request::Create2(asked), Txn::Create(made)) = (request, txn)
        else {
            return Ok(());
        };
        if !CreateMode::from_flag(asked.flags).is_some_and(CreateMode::is_sequential) {
            return Ok(());
        }
        let number: i32 = made.path[asked.path.len()..].parse().unwrap_or(-1);
        let parent = path::parent(&made.path);
        // A parent that was deleted and created again counts from the beginning.
        let Some(born) = model.now(parent).map(|znode| Zxid(znode.stat().czxid)) else {
            return Ok(());
        };
        let last = self.sequences.insert((parent.to_owned(), born), number);
        if last.is_some_and(|last| last >= number) {
            return fail(
                "C8 sequence names are unique and increase",
                format!("{zxid} creates {}, after number {last:?}", made.path),
            );
        }
        Ok(())
    }

    /// Whether a write took effect.
    #[must_use]
    pub fn is_done(&self, session: SessionId, xid: Xid) -> bool {
        self.operations.get(&(session, xid)).is_some_and(|operation| operation.done.is_some())
    }

    /// The write is in `model` now: its reply is known.
    pub fn applied(&mut self, model: &Model, header: &TxnHeader) {
        let Some(operation) = self.operations.get_mut(&(header.client_id, header.cxid)) else {
            return;
        };
        let Some((zxid, expected)) = &mut operation.done else { return };
        match expected {
            Expected::Created(path, stat) => {
                *stat = model.at(path, *zxid).map(|znode| znode.stat());
            }
            Expected::Stat(stat) => {
                if let Request::SetData(request) = &*operation.request {
                    *stat = model.at(&request.path, *zxid).map(|znode| znode.stat());
                }
            }
            Expected::Error(_) | Expected::Done | Expected::Config(_) | Expected::Multi(_) => {}
        }
    }

    /// C1, C3, C5, C6, C7: a client is told what came of its request. `may_be_behind`: its server's
    /// leader has been deposed and need not know it yet, so that a sync may miss what the new one did (the
    /// gap that upstream's sync has, too).
    ///
    /// # Errors
    /// It is not that.
    pub fn a_reply_says_what_happened(
        &mut self,
        model: &Model,
        session: SessionId,
        request: &Request,
        header: ReplyHeader,
        body: &Bytes,
        floor: Zxid,
        may_be_behind: bool,
    ) -> Verdict {
        if is_write(request) {
            return self.a_write_is_answered_with_what_it_did(session, request, header, body);
        }
        let ReplyHeader { zxid, err, .. } = header;
        if matches!(request, Request::Sync(_))
            && err == ErrorCode::OK
            && zxid < floor
            && !may_be_behind
        {
            return fail(
                "C7 after sync, reads see every write that was answered before it",
                format!(
                    "a sync of session {session} is answered at {zxid}; {floor} was answered before it was sent"
                ),
            );
        }
        let found = read(model, request, zxid);
        let told = told(request, err, body).map_err(|why| Violation {
            checker: "C3 a reply can be read",
            message: format!("{request:?}: {why}"),
        })?;
        if found != told {
            return fail(
                "C3 C6 a read equals the state at its zxid",
                format!(
                    "{request:?} of session {session} at {zxid}: {told:?} instead of {found:?}"
                ),
            );
        }
        Ok(())
    }

    fn a_write_is_answered_with_what_it_did(
        &mut self,
        session: SessionId,
        request: &Request,
        header: ReplyHeader,
        body: &Bytes,
    ) -> Verdict {
        const CHECKER: &str = "C1 C5 a write is answered with what it did";
        let ReplyHeader { xid, zxid, err } = header;
        // An ensemble can be asked to become one that is none.
        let may_be_bad = matches!(request, Request::Reconfig(_));
        if err == ErrorCode::BAD_ARGUMENTS && !may_be_bad {
            return fail(
                "S6 only where a session was are its requests spoilt",
                format!(
                    "request {} of session {session} was asked for where the session is",
                    xid.0
                ),
            );
        }
        let operation = self.operations.get(&(session, xid));
        let done = operation.and_then(|operation| operation.done.as_ref());
        let Some((at, expected)) = done else {
            // Refused where the client is connected: it went nowhere.
            let local =
                [ErrorCode::SYSTEM_ERROR, ErrorCode::SESSION_EXPIRED, ErrorCode::SESSION_MOVED];
            if local.contains(&err) {
                return Ok(());
            }
            // The end of a local session is nobody else's business.
            let ends = matches!(request, Request::CloseSession) && err == ErrorCode::OK;
            if ends && self.local != LocalSessionMode::Disabled {
                return Ok(());
            }
            return fail(
                CHECKER,
                format!(
                    "request {} of session {session} is answered with {err} at {zxid}, and is not committed",
                    xid.0
                ),
            );
        };
        // What the leader takes for expired is local, and its server says so.
        let expired = Expected::Error(ErrorCode::SESSION_EXPIRED);
        let refused = Expected::Error(ErrorCode::EPHEMERAL_ON_LOCAL_SESSION);
        let stays_local = self.local == LocalSessionMode::Enabled && wants_ephemeral(request);
        let expected = if stays_local && *expected == expired { &refused } else { expected };
        let told = match written(request, err, body) {
            Ok(told) => told,
            Err(why) => return fail(CHECKER, format!("{request:?}: {why}")),
        };
        let fits = match (&told, expected) {
            // create has no stat in its answer.
            (Expected::Created(told, None), Expected::Created(path, _)) => told == path,
            (told, expected) => told == expected,
        };
        if *at != zxid || !fits {
            return fail(
                CHECKER,
                format!(
                    "request {} of session {session} ({request:?}) is {at}: {expected:?}; the answer at {zxid} is {told:?}",
                    xid.0
                ),
            );
        }
        self.answered = self.answered.max(zxid);
        Ok(())
    }
}

fn operation_request(
    operations: &BTreeMap<(SessionId, Xid), Operation>,
    session: SessionId,
    xid: Xid,
) -> Rc<Request> {
    Rc::clone(&operations[&(session, xid)].request)
}

fn wants_ephemeral(request: &Request) -> bool {
    let (Request::Create(request) | Request::Create2(request)) = request else { return false };
    CreateMode::from_flag(request.flags).is_some_and(CreateMode::is_ephemeral)
}

/// Whether it becomes a transaction.
#[must_use]
pub fn is_write(request: &Request) -> bool {
    matches!(
        request,
        Request::Create(_)
            | Request::Create2(_)
            | Request::Delete(_)
            | Request::SetData(_)
            | Request::Multi(_)
            | Request::CloseSession
            | Request::Reconfig(_)
    )
}

fn written(request: &Request, err: ErrorCode, body: &Bytes) -> Result<Expected, String> {
    if err != ErrorCode::OK {
        return Ok(Expected::Error(err));
    }
    let text = |error: zk_proto::DecodeError| error.to_string();
    Ok(match request {
        Request::Create(_) => {
            Expected::Created(CreateResponse::decode(body).map_err(text)?.path, None)
        }
        Request::Create2(_) => {
            let response = Create2Response::decode(body).map_err(text)?;
            Expected::Created(response.path, Some(response.stat))
        }
        Request::SetData(_) => {
            Expected::Stat(Some(SetDataResponse::decode(body).map_err(text)?.stat))
        }
        Request::Reconfig(_) => Expected::Config(GetDataResponse::decode(body).map_err(text)?.data),
        Request::Multi(_) => {
            let MultiResponse(results) = MultiResponse::decode(body).map_err(text)?;
            let result = |result| match result {
                MultiResult::Error(code) => Err(code),
                MultiResult::Create(path) | MultiResult::Create2(path, _) => Ok(Some(path)),
                _ => Ok(None), // what has no path
            };
            Expected::Multi(results.into_iter().map(result).collect())
        }
        _ => Expected::Done, // delete, closeSession
    })
}

/// What a read sees.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Error(ErrorCode),
    Nothing,
    Stat(Stat),
    Data(Option<Bytes>, Stat),
    Names(Vec<String>, Option<Stat>),
    Several(Vec<Result<(Option<Bytes>, Vec<String>), ErrorCode>>),
}

fn names(znode: &Znode) -> Vec<String> {
    znode.children.iter().cloned().collect()
}

fn read(model: &Model, request: &Request, zxid: Zxid) -> Seen {
    let at = |path: &str| model.at(path, zxid).map(|znode| &**znode).ok_or(ErrorCode::NO_NODE);
    let seen = match request {
        Request::Exists(request) => at(&request.path).map(|znode| Seen::Stat(znode.stat())),
        Request::GetData(request) => {
            at(&request.path).map(|znode| Seen::Data(znode.data.clone(), znode.stat()))
        }
        Request::GetChildren(request) => {
            at(&request.path).map(|znode| Seen::Names(names(znode), None))
        }
        Request::GetChildren2(request) => {
            at(&request.path).map(|znode| Seen::Names(names(znode), Some(znode.stat())))
        }
        Request::MultiRead(MultiRequest::Read(ops)) => {
            let one = |op: &MultiReadOp| match op {
                MultiReadOp::GetData(request) => {
                    at(&request.path).map(|znode| (znode.data.clone(), Vec::new()))
                }
                MultiReadOp::GetChildren(request) => {
                    at(&request.path).map(|znode| (None, names(znode)))
                }
            };
            Ok(Seen::Several(ops.iter().map(one).collect()))
        }
        _ => Ok(Seen::Nothing), // sync, ping, and those that set watches
    };
    seen.unwrap_or_else(Seen::Error)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

fn told(request: &Request, err: ErrorCode, body: &Bytes) -> Result<Seen, String> {
    if err != ErrorCode::OK {
        return Ok(Seen::Error(err));
    }
    let text = |error: zk_proto::DecodeError| error.to_string();
    Ok(match request {
        Request::Exists(_) => Seen::Stat(ExistsResponse::decode(body).map_err(text)?.stat),
        Request::GetData(_) => {
            let response = GetDataResponse::decode(body).map_err(text)?;
            Seen::Data(response.data, response.stat)
        }
        Request::GetChildren(_) => {
            Seen::Names(sorted(GetChildrenResponse::decode(body).map_err(text)?.children), None)
        }
        Request::GetChildren2(_) => {
            let response = GetChildren2Response::decode(body).map_err(text)?;
            Seen::Names(sorted(response.children), Some(response.stat))
        }
        Request::MultiRead(_) => {
            let MultiResponse(results) = MultiResponse::decode(body).map_err(text)?;
            let result = |result| match result {
                MultiResult::Error(code) => Err(code),
                MultiResult::GetData(data, _) => Ok((data, Vec::new())),
                MultiResult::GetChildren(names) => Ok((None, sorted(names))),
                _ => Ok((None, vec!["of another kind".to_owned()])), // a write's result
            };
            Seen::Several(results.into_iter().map(result).collect())
        }
        Request::Sync(_) => {
            SyncResponse::decode(body).map_err(text)?;
            Seen::Nothing
        }
        _ => Seen::Nothing, // ping, and those that set watches
    })
}
