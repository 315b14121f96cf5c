//! Operations that are answered from this server's tree, in session order.

mod multi_read;
mod session;
mod watches;
mod znode;

use bytes::BytesMut;
use zk_proto::acl::{Id, Perms};
use zk_proto::{ErrorCode, OpCode, Request, SessionId};
use zk_tree::{Database, WatchKind, ZnodeRef};

use crate::auth::Authenticator;
use crate::client::{Client, ClientState};

/// What a read looks at: the tree under its lock, and who asks.
pub(crate) struct Read<'a> {
    pub(crate) db: &'a Database,
    pub(crate) auth: &'a Authenticator,
    pub(crate) client: &'a Client,
    pub(crate) ids: &'a [Id],
    pub(crate) session: SessionId,
}

/// How many replies and events a read queued, by which the connection's counts go up.
pub(crate) struct Answer {
    pub(crate) err: ErrorCode,
    pub(crate) events: u64,
}

impl<'a> Read<'a> {
    pub(crate) fn new(
        db: &'a Database,
        auth: &'a Authenticator,
        client: &'a Client,
        state: &'a ClientState,
    ) -> Self {
        Self { db, auth, client, ids: &state.auth, session: state.session }
    }

    /// Appends the reply's body to `body`; with an error nothing is appended. Events that have to go
    /// out before the reply are pushed to the outbox.
    pub(crate) fn run(&self, request: &Request, body: &mut BytesMut) -> Answer {
        let mut events = 0;
        let result = match request {
            Request::Ping => Ok(()),
            Request::Exists(request) => znode::exists(self, request, body),
            Request::GetData(request) => znode::data(self, request, body),
            Request::GetAcl(request) => znode::acl(self, request, body),
            Request::GetChildren(request) => {
                znode::children(self, &request.path, request.watch, OpCode::GET_CHILDREN, body)
            }
            Request::GetChildren2(request) => {
                znode::children(self, &request.path, request.watch, OpCode::GET_CHILDREN2, body)
            }
            Request::GetAllChildrenNumber(request) => znode::all_children_number(self, request, body),
            Request::MultiRead(request) => multi_read::run(self, request, body),
            Request::GetEphemerals(request) => {
                session::ephemerals(self, request, body);
                Ok(())
            }
            Request::WhoAmI => {
                session::who_am_i(self, body);
                Ok(())
            }
            Request::AddWatch(request) => watches::add(self, request, body),
            Request::CheckWatches(request) => watches::check(self, request),
            Request::RemoveWatches(request) => watches::remove(self, request),
            Request::SetWatches(request) => {
                events = watches::set(self, request);
                Ok(())
            }
            Request::SetWatches2(request) => {
                events = watches::set2(self, request);
                Ok(())
            }
            Request::Create(_)
            | Request::Create2(_)
            | Request::CreateContainer(_)
            | Request::CreateTtl(_)
            | Request::Delete(_)
            | Request::SetData(_)
            | Request::SetAcl(_)
            | Request::Sync(_)
            | Request::Multi(_)
            | Request::Reconfig(_)
            | Request::CloseSession
            | Request::Auth(_)
            | Request::Sasl(_) => unreachable!("{} is no read", request.op()),
        };
        Answer { err: result.err().unwrap_or(ErrorCode::OK), events }
    }

    fn find(&self, path: &str) -> Result<ZnodeRef<'a>, ErrorCode> {
        self.db.tree.find(path).ok_or(ErrorCode::NO_NODE)
    }

    fn find_readable(&self, path: &str) -> Result<ZnodeRef<'a>, ErrorCode> {
        let znode = self.find(path)?;
        self.auth.check(znode.acl(), Perms::READ, self.ids)?;
        Ok(znode)
    }

    fn watch(&self, path: &str, kind: WatchKind) {
        self.db.watches.add(path, self.client.id, kind);
    }
}
