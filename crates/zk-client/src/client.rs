use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use zk_proto::acl::Acl;
use zk_proto::create_mode::CreateMode;
use zk_proto::data::{ClientInfo, Stat};
use zk_proto::multi::{MultiOp, MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::path::CONFIG;
use zk_proto::proto::{
    AddWatchRequest, CheckWatchesRequest, Create2Response, CreateRequest, CreateResponse,
    CreateTtlRequest, DeleteRequest, ErrorResponse, ExistsRequest, ExistsResponse, GetAclRequest,
    GetAclResponse, GetAllChildrenNumberRequest, GetAllChildrenNumberResponse, GetChildren2Request,
    GetChildren2Response, GetChildrenRequest, GetChildrenResponse, GetDataRequest, GetDataResponse,
    GetEphemeralsRequest, GetEphemeralsResponse, ReconfigRequest, RemoveWatchesRequest,
    SetAclRequest, SetAclResponse, SetDataRequest, SetDataResponse, SyncRequest, SyncResponse,
    WhoAmIResponse,
};
use zk_proto::watch::{AddWatchMode, WatcherType};
use zk_proto::{Buffer, ErrorCode, OpCode, Record, SessionId};

use crate::connection::{
    Command, Connection, Inner, Outgoing, Reply, Session, Shared, any_host, frame,
};
use crate::watches::{Kind, WatchChange};
use crate::{ConnectError, ConnectString, ConnectStringError, State, WatchedEvent, ZkError};

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The session timeout to ask for.
    pub timeout: Duration,
    /// Whether a server that only reads will do until one that writes is found.
    pub can_be_read_only: bool,
    /// A session to re-attach to: its id and password.
    pub session: Option<(SessionId, Bytes)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), can_be_read_only: false, session: None }
    }
}

/// A handle to a session; clones share it. Every method sends its request at once; see the crate's
/// documentation.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    chroot: Arc<str>,
    hosts: Arc<str>,
}

impl Client {
    /// Connects and waits for the session, for at most `timeout`, which is also the session timeout asked for.
    ///
    /// # Errors
    /// The connect string is none, or no server gave a session in time.
    pub async fn connect(
        hosts: &str,
        timeout: Duration,
        can_be_read_only: bool,
    ) -> Result<Self, ConnectError> {
        let client = Self::open(hosts, Options { timeout, can_be_read_only, session: None })?;
        client.wait_connected(timeout).await?;
        Ok(client)
    }

    /// Starts to connect, in a task of the current runtime, and does not wait for it.
    ///
    /// # Errors
    /// The connect string is none.
    pub fn open(hosts: &str, options: Options) -> Result<Self, ConnectStringError> {
        let ConnectString { hosts: servers, chroot } = ConnectString::parse(hosts)?;
        #[allow(
            clippy::disallowed_methods,
            reason = "a call sends at once and cannot wait: what is in flight is what its caller has not awaited"
        )]
        let (commands, receiver) = mpsc::unbounded_channel();
        let mut session = Session::none(options.timeout);
        let attached = options.session.is_some();
        if let Some((id, password)) = options.session {
            (session.id, session.password) = (id, password);
        }
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::Connecting),
            session: Mutex::new(session),
            subscribers: Mutex::new(Vec::new()),
            last_error: Mutex::new("not tried yet".to_owned()),
            confirmed: Mutex::new(None),
        });
        let connection = Connection {
            next_host: any_host(servers.len()),
            hosts: servers,
            chroot: chroot.clone(),
            requested_timeout: options.timeout,
            can_be_read_only: options.can_be_read_only,
            commands: receiver,
            shared: Arc::clone(&shared),
            inner: Inner::new(attached),
        };
        tokio::spawn(connection.run());
        Ok(Self { commands, shared, chroot: chroot.into(), hosts: hosts.into() })
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// There is none within `limit`, or there can be none any more.
    pub async fn wait_connected(&self, limit: Duration) -> Result<(), ConnectError> {
        let mut state = self.shared.state.subscribe();
        let reached =
            tokio::time::timeout(limit, state.wait_for(|state| *state != State::Connecting)).await;
        let state = reached.ok().and_then(Result::ok).map(|state| *state);
        match state {
            Some(state) if state.is_connected() => Ok(()),
            Some(state) => Err(ConnectError::Refused(state)),
            None => Err(ConnectError::Timeout {
                hosts: self.hosts.to_string(),
                waited: limit,
                last: self.shared.last_error.lock().expect("nobody panics with it").clone(),
            }),
        }
    }

    /// What the client is doing now.
    #[must_use]
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Follows the state.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// All events from now on: of watches, and of the session. Unbounded, so read it or drop it.
    #[must_use]
    pub fn events(&self) -> mpsc::UnboundedReceiver<WatchedEvent> {
        #[allow(
            clippy::disallowed_methods,
            reason = "an event must not be lost, and a slow subscriber must not hold up replies"
        )]
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.subscribers.lock().expect("nobody panics with it").push(sender);
        receiver
    }

    /// The session's id and password, to re-attach to it; the id is 0 before the first connection.
    #[must_use]
    pub fn session(&self) -> (SessionId, Bytes) {
        let session = self.shared.session.lock().expect("nobody panics with it");
        (session.id, session.password.clone())
    }

    /// The session timeout: as asked for until it is negotiated.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.shared.session.lock().expect("nobody panics with it").timeout
    }

    /// Until when the server certainly keeps the session if it hears nothing more from us: one session timeout
    /// after the newest request that it has answered was sent. `None` before the first connection.
    ///
    /// A server of an ensemble tells the leader of its sessions every half tick, so one that dies can take up to that
    /// much with it; who must not outlive the session stays a quarter of the timeout below this.
    #[must_use]
    pub fn alive_until(&self) -> Option<Instant> {
        let confirmed = *self.shared.confirmed.lock().expect("nobody panics with it");
        confirmed.map(|sent| sent + self.session_timeout())
    }

    /// The server that we are, or were last, connected to.
    #[must_use]
    pub fn server(&self) -> Option<std::net::SocketAddr> {
        self.shared.session.lock().expect("nobody panics with it").server
    }

    /// What the last failed attempt to connect met.
    #[must_use]
    pub fn last_connect_error(&self) -> String {
        self.shared.last_error.lock().expect("nobody panics with it").clone()
    }

    /// Closes the session: its ephemeral znodes go with it. Waits for the server to say so, if it can be reached.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            closed.await.ok(); // an error means that it is closed already
        }
    }

    fn server_path(&self, path: &str) -> String {
        match path {
            _ if self.chroot.is_empty() => path.to_owned(),
            "/" => self.chroot.to_string(),
            path => format!("{}{path}", self.chroot),
        }
    }

    fn client_path(&self, path: String) -> String {
        match path.strip_prefix(&*self.chroot) {
            Some("") => "/".to_owned(),
            Some(rest) => rest.to_owned(),
            None => path,
        }
    }

    fn submit(
        &self,
        op: OpCode,
        path: Option<&str>,
        body: impl FnOnce(&mut BytesMut),
        watch: Option<WatchChange>,
    ) -> Pending {
        let (done, reply) = oneshot::channel();
        let request = Outgoing { frame: frame(op, body), watch, done };
        // If the task has ended, the sender is dropped with the command and the receiver tells.
        drop(self.commands.send(Command::Request(request)));
        Pending { reply, op, path: path.map(str::to_owned), shared: Arc::clone(&self.shared) }
    }

    fn call<T, R, F>(
        &self,
        op: OpCode,
        path: Option<&str>,
        request: &R,
        watch: Option<WatchChange>,
        map: F,
    ) -> impl Future<Output = Result<T, ZkError>> + Send + use<T, R, F>
    where
        R: Record,
        F: FnOnce(Bytes) -> Result<T, zk_proto::DecodeError> + Send,
    {
        let pending = self.submit(op, path, |out| request.encode(out), watch);
        async move {
            let reply = pending.reply().await?;
            let (body, error) = pending_ok(reply)?;
            map(body).map_err(|_| ZkError { code: ErrorCode::MARSHALLING_ERROR, ..error })
        }
    }

    /// create, or createContainer for a container. Returns the path, with its number if it is sequential.
    ///
    /// # Errors
    /// [`ZkError`]; a mode with a TTL is for [`Client::create_ttl`] and refused here.
    pub fn create(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        mode: CreateMode,
    ) -> impl Future<Output = Result<String, ZkError>> + Send + use<> {
        let op =
            if mode == CreateMode::Container { OpCode::CREATE_CONTAINER } else { OpCode::CREATE };
        let client = self.clone();
        let request = self.create_request(path, data, acl, mode);
        self.call(op, Some(path), &request, None, move |body| {
            let path = if op == OpCode::CREATE {
                CreateResponse::decode(&body)?.path
            } else {
                Create2Response::decode(&body)?.path
            };
            Ok(client.client_path(path))
        })
    }

    /// create2, or createContainer for a container: path and stat.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub fn create2(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        mode: CreateMode,
    ) -> impl Future<Output = Result<(String, Stat), ZkError>> + Send + use<> {
        let op =
            if mode == CreateMode::Container { OpCode::CREATE_CONTAINER } else { OpCode::CREATE2 };
        let request = self.create_request(path, data, acl, mode);
        self.created(op, path, &request)
    }

    /// createTTL; `ttl` in ms, `mode` one of those with a TTL.
    ///
    /// # Errors
    /// [`ZkError`], `UNIMPLEMENTED` where the server has extended types disabled.
    pub fn create_ttl(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        mode: CreateMode,
        ttl: i64,
    ) -> impl Future<Output = Result<(String, Stat), ZkError>> + Send + use<> {
        let CreateRequest { path: server_path, data, acl, flags } =
            self.create_request(path, data, acl, mode);
        let request = CreateTtlRequest { path: server_path, data, acl, flags, ttl };
        self.created(OpCode::CREATE_TTL, path, &request)
    }

    fn create_request(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        mode: CreateMode,
    ) -> CreateRequest {
        CreateRequest {
            path: self.server_path(path),
            data: data.map(Bytes::copy_from_slice),
            acl: acl.to_vec(),
            flags: mode.flag(),
        }
    }

    fn created<R: Record>(
        &self,
        op: OpCode,
        path: &str,
        request: &R,
    ) -> impl Future<Output = Result<(String, Stat), ZkError>> + Send + use<R> {
        let client = self.clone();
        self.call(op, Some(path), request, None, move |body| {
            let response = Create2Response::decode(&body)?;
            Ok((client.client_path(response.path), response.stat))
        })
    }

    /// delete; `version` −1 means any.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn delete(
        &self,
        path: &str,
        version: i32,
    ) -> impl Future<Output = Result<(), ZkError>> + Send + use<> {
        let request = DeleteRequest { path: self.server_path(path), version };
        self.call(OpCode::DELETE, Some(path), &request, None, |_| Ok(()))
    }

    /// exists: the stat, or `None` if there is no such znode. With `watch`, its creation, deletion or change
    /// is reported once.
    ///
    /// # Errors
    /// [`ZkError`], but for `NO_NODE`.
    pub fn exists(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<Option<Stat>, ZkError>> + Send + use<> {
        let server_path = self.server_path(path);
        let change = watch.then(|| WatchChange::Exists(server_path.clone()));
        let request = ExistsRequest { path: server_path, watch };
        let call = self.call(OpCode::EXISTS, Some(path), &request, change, |body| {
            ExistsResponse::decode(&body).map(|response| response.stat)
        });
        async move {
            match call.await {
                Ok(stat) => Ok(Some(stat)),
                Err(error) if error.code == ErrorCode::NO_NODE => Ok(None),
                Err(error) => Err(error),
            }
        }
    }

    /// getData. With `watch`, its deletion or change is reported once.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_data(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<(Buffer, Stat), ZkError>> + Send + use<> {
        self.get_data_at(self.server_path(path), path, watch)
    }

    /// The ensemble's configuration: getData of its znode, which no chroot hides.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_config(
        &self,
        watch: bool,
    ) -> impl Future<Output = Result<(Buffer, Stat), ZkError>> + Send + use<> {
        // Whatever the chroot.
        self.get_data_at(CONFIG.to_owned(), CONFIG, watch)
    }

    fn get_data_at(
        &self,
        server_path: String,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<(Buffer, Stat), ZkError>> + Send + use<> {
        let change = watch.then(|| WatchChange::Add(Kind::Data, server_path.clone()));
        let request = GetDataRequest { path: server_path, watch };
        self.call(OpCode::GET_DATA, Some(path), &request, change, |body| {
            GetDataResponse::decode(&body).map(|response| (response.data, response.stat))
        })
    }

    /// setData; `version` −1 means any.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn set_data(
        &self,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
    ) -> impl Future<Output = Result<Stat, ZkError>> + Send + use<> {
        let data = data.map(Bytes::copy_from_slice);
        let request = SetDataRequest { path: self.server_path(path), data, version };
        self.call(OpCode::SET_DATA, Some(path), &request, None, |body| {
            SetDataResponse::decode(&body).map(|response| response.stat)
        })
    }

    /// getACL.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_acl(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<(Vec<Acl>, Stat), ZkError>> + Send + use<> {
        let request = GetAclRequest { path: self.server_path(path) };
        self.call(OpCode::GET_ACL, Some(path), &request, None, |body| {
            GetAclResponse::decode(&body).map(|response| (response.acl, response.stat))
        })
    }

    /// setACL; `version` is the expected ACL version, −1 means any.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn set_acl(
        &self,
        path: &str,
        acl: &[Acl],
        version: i32,
    ) -> impl Future<Output = Result<Stat, ZkError>> + Send + use<> {
        let request = SetAclRequest { path: self.server_path(path), acl: acl.to_vec(), version };
        self.call(OpCode::SET_ACL, Some(path), &request, None, |body| {
            SetAclResponse::decode(&body).map(|response| response.stat)
        })
    }

    /// getChildren: their names, in no order.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_children(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<Vec<String>, ZkError>> + Send + use<> {
        let server_path = self.server_path(path);
        let change = watch.then(|| WatchChange::Add(Kind::Child, server_path.clone()));
        let request = GetChildrenRequest { path: server_path, watch };
        self.call(OpCode::GET_CHILDREN, Some(path), &request, change, |body| {
            GetChildrenResponse::decode(&body).map(|response| response.children)
        })
    }

    /// getChildren2: with the parent's stat.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_children2(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<(Vec<String>, Stat), ZkError>> + Send + use<> {
        let server_path = self.server_path(path);
        let change = watch.then(|| WatchChange::Add(Kind::Child, server_path.clone()));
        let request = GetChildren2Request { path: server_path, watch };
        self.call(OpCode::GET_CHILDREN2, Some(path), &request, change, |body| {
            GetChildren2Response::decode(&body).map(|response| (response.children, response.stat))
        })
    }

    /// sync: the server has then seen every write that was committed when it was called.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn sync(&self, path: &str) -> impl Future<Output = Result<(), ZkError>> + Send + use<> {
        let request = SyncRequest { path: Some(self.server_path(path)) };
        self.call(OpCode::SYNC, Some(path), &request, None, |body| {
            SyncResponse::decode(&body).map(|_| ())
        })
    }

    /// multi: all or nothing. One result for each operation; if one failed they are all
    /// [`MultiResult::Error`], `OK` before it and `RUNTIME_INCONSISTENCY` behind it.
    ///
    /// # Errors
    /// [`ZkError`] if there are no results at all.
    pub fn multi(
        &self,
        mut ops: Vec<MultiOp>,
    ) -> impl Future<Output = Result<Vec<MultiResult>, ZkError>> + Send + use<> {
        for op in &mut ops {
            let path = match op {
                MultiOp::Create { request, .. } => &mut request.path,
                MultiOp::CreateTtl(request) => &mut request.path,
                MultiOp::Delete(request) => &mut request.path,
                MultiOp::SetData(request) => &mut request.path,
                MultiOp::Check(request) => &mut request.path,
            };
            *path = self.server_path(path);
        }
        self.multi_results(OpCode::MULTI, &MultiRequest::Write(ops))
    }

    /// multiRead: each read is answered for itself.
    ///
    /// # Errors
    /// [`ZkError`] if there are no results at all.
    pub fn multi_read(
        &self,
        mut ops: Vec<MultiReadOp>,
    ) -> impl Future<Output = Result<Vec<MultiResult>, ZkError>> + Send + use<> {
        for op in &mut ops {
            let path = match op {
                MultiReadOp::GetData(request) => &mut request.path,
                MultiReadOp::GetChildren(request) => &mut request.path,
            };
            *path = self.server_path(path);
        }
        self.multi_results(OpCode::MULTI_READ, &MultiRequest::Read(ops))
    }

    fn multi_results(
        &self,
        op: OpCode,
        request: &MultiRequest,
    ) -> impl Future<Output = Result<Vec<MultiResult>, ZkError>> + Send + use<> {
        let client = self.clone();
        let pending = self.submit(op, None, |out| request.encode(out), None);
        async move {
            let (reply, error) = pending.reply().await?;
            // A multi that failed may say so in its header, too; the results say more.
            if reply.err != ErrorCode::OK && reply.body.is_empty() {
                return Err(error);
            }
            let MultiResponse(mut results) = MultiResponse::decode(&reply.body)
                .map_err(|_| ZkError { code: ErrorCode::MARSHALLING_ERROR, ..error })?;
            for result in &mut results {
                if let MultiResult::Create(path) | MultiResult::Create2(path, _) = result {
                    *path = client.client_path(std::mem::take(path));
                }
            }
            Ok(results)
        }
    }

    /// reconfig: joining and leaving servers, or all members; `version` of the configuration it applies to, −1
    /// means any. Returns the new configuration.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn reconfig(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
        members: Option<&str>,
        version: i64,
    ) -> impl Future<Output = Result<(Buffer, Stat), ZkError>> + Send + use<> {
        let request = ReconfigRequest {
            joining_servers: joining.map(str::to_owned),
            leaving_servers: leaving.map(str::to_owned),
            new_members: members.map(str::to_owned),
            cur_config_id: version,
        };
        self.call(OpCode::RECONFIG, Some(""), &request, None, |body| {
            GetDataResponse::decode(&body).map(|response| (response.data, response.stat))
        })
    }

    /// checkWatches: whether such a watch is set on this connection.
    ///
    /// # Errors
    /// [`ZkError`], `NO_WATCHER` if there is none.
    pub fn check_watches(
        &self,
        path: &str,
        watcher_type: WatcherType,
    ) -> impl Future<Output = Result<(), ZkError>> + Send + use<> {
        let request = CheckWatchesRequest {
            path: self.server_path(path),
            watcher_type: watcher_code(watcher_type),
        };
        self.call(OpCode::CHECK_WATCHES, Some(path), &request, None, |_| Ok(()))
    }

    /// removeWatches: all watches of this kind on this path. `local`: also when the server cannot be asked.
    ///
    /// # Errors
    /// [`ZkError`], `NO_WATCHER` if there is none.
    pub fn remove_watches(
        &self,
        path: &str,
        watcher_type: WatcherType,
        local: bool,
    ) -> impl Future<Output = Result<(), ZkError>> + Send + use<> {
        let server_path = self.server_path(path);
        let change = WatchChange::Remove { path: server_path.clone(), watcher_type, local };
        let request =
            RemoveWatchesRequest { path: server_path, watcher_type: watcher_code(watcher_type) };
        self.call(OpCode::REMOVE_WATCHES, Some(path), &request, Some(change), |_| Ok(()))
    }

    /// addWatch: a watch that stays until it is removed.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn add_watch(
        &self,
        path: &str,
        mode: AddWatchMode,
    ) -> impl Future<Output = Result<(), ZkError>> + Send + use<> {
        let (kind, mode) = match mode {
            AddWatchMode::Persistent => (Kind::Persistent, 0),
            AddWatchMode::PersistentRecursive => (Kind::Recursive, 1),
        };
        let server_path = self.server_path(path);
        let change = WatchChange::Add(kind, server_path.clone());
        let request = AddWatchRequest { path: server_path, mode };
        self.call(OpCode::ADD_WATCH, Some(path), &request, Some(change), |body| {
            ErrorResponse::decode(&body).map(|_| ())
        })
    }

    /// getEphemerals: those of this session whose path starts with `prefix`; upstream ignores the chroot here.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_ephemerals(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<String>, ZkError>> + Send + use<> {
        let request = GetEphemeralsRequest { prefix_path: Some(prefix.to_owned()) };
        self.call(OpCode::GET_EPHEMERALS, None, &request, None, |body| {
            GetEphemeralsResponse::decode(&body).map(|response| response.ephemerals)
        })
    }

    /// getAllChildrenNumber: the number of all descendants.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn get_all_children_number(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<i32, ZkError>> + Send + use<> {
        let request = GetAllChildrenNumberRequest { path: self.server_path(path) };
        self.call(OpCode::GET_ALL_CHILDREN_NUMBER, Some(path), &request, None, |body| {
            GetAllChildrenNumberResponse::decode(&body).map(|response| response.total_number)
        })
    }

    /// whoAmI: the authentications of this connection.
    ///
    /// # Errors
    /// [`ZkError`].
    pub fn who_am_i(
        &self,
    ) -> impl Future<Output = Result<Vec<ClientInfo>, ZkError>> + Send + use<> {
        let pending = self.submit(OpCode::WHO_AM_I, None, |_| (), None);
        async move {
            let reply = pending.reply().await?;
            let (body, error) = pending_ok(reply)?;
            WhoAmIResponse::decode(&body)
                .map(|response| response.client_info)
                .map_err(|_| ZkError { code: ErrorCode::MARSHALLING_ERROR, ..error })
        }
    }

    /// Adds an authentication, now and on every later connection. `auth` is what the scheme wants; some want nothing.
    ///
    /// # Errors
    /// `AUTH_FAILED` if the server refuses it, after which the client is of no more use.
    pub fn add_auth(
        &self,
        scheme: &str,
        auth: Option<&[u8]>,
    ) -> impl Future<Output = Result<(), ZkError>> + Send + use<> {
        let (done, reply) = oneshot::channel();
        let auth = auth.map(Bytes::copy_from_slice);
        drop(self.commands.send(Command::Auth { scheme: scheme.to_owned(), auth, done }));
        let pending =
            Pending { reply, op: OpCode::AUTH, path: None, shared: Arc::clone(&self.shared) };
        async move { pending_ok(pending.reply().await?).map(|_| ()) }
    }
}

fn watcher_code(watcher_type: WatcherType) -> i32 {
    match watcher_type {
        WatcherType::Children => 1,
        WatcherType::Data => 2,
        WatcherType::Any => 3,
        WatcherType::Persistent => 4,
        WatcherType::PersistentRecursive => 5,
    }
}

/// A request whose reply is awaited.
struct Pending {
    reply: oneshot::Receiver<Reply>,
    op: OpCode,
    path: Option<String>,
    shared: Arc<Shared>,
}

impl Pending {
    /// The reply, and the error that it would be.
    async fn reply(self) -> Result<(Reply, ZkError), ZkError> {
        let error = |code| ZkError { code, op: self.op, path: self.path };
        match self.reply.await {
            Ok(reply) => {
                let error = error(reply.err);
                Ok((reply, error))
            }
            // The task is gone, and the session with it.
            Err(_) => Err(error(match *self.shared.state.borrow() {
                State::AuthFailed => ErrorCode::AUTH_FAILED,
                State::Closed | State::Connecting | State::Connected | State::ConnectedReadOnly => {
                    ErrorCode::SESSION_EXPIRED
                }
            })),
        }
    }
}

fn pending_ok((reply, error): (Reply, ZkError)) -> Result<(Bytes, ZkError), ZkError> {
    if reply.err == ErrorCode::OK { Ok((reply.body, error)) } else { Err(error) }
}
