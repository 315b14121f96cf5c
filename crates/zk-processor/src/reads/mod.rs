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
use crate::client::Client;

/// What a read looks at: the tree under its lock, and who asks.
pub(crate) struct Read<'a> {
    pub(crate) db: &'a Database,
    pub(crate) auth: &'a Authenticator,
    pub(crate) client: &'a Client,
    pub(crate) ids: &'a [Id],
    pub(crate) session: SessionId,
}

impl<'a> Read<'a> {
    /// What goes out before the reply: the events that setWatches catches up with. Gives their number.
    pub(crate) fn catch_up(&self, request: &Request) -> u64 {
        match request {
            Request::SetWatches(request) => watches::set(self, request),
            Request::SetWatches2(request) => watches::set2(self, request),
            _ => 0, // anything else has no events of its own
        }
    }

    /// Appends the reply's body to `body`.
    ///
    /// # Errors
    /// What the client is told; what has been appended means nothing then.
    pub(crate) fn run(&self, request: &Request, body: &mut BytesMut) -> Result<(), ErrorCode> {
        match request {
            Request::Ping | Request::SetWatches(_) | Request::SetWatches2(_) => Ok(()),
            Request::Exists(request) => znode::exists(self, request, body),
            Request::GetData(request) => znode::data(self, request, body),
            Request::GetAcl(request) => znode::acl(self, request, body),
            Request::GetChildren(request) => {
                znode::children(self, &request.path, request.watch, OpCode::GET_CHILDREN, body)
            }
            Request::GetChildren2(request) => {
                znode::children(self, &request.path, request.watch, OpCode::GET_CHILDREN2, body)
            }
            Request::GetAllChildrenNumber(request) => {
                znode::all_children_number(self, request, body)
            }
            Request::MultiRead(request) => multi_read::run(self, request, body),
            Request::GetEphemerals(request) => session::ephemerals(self, request, body),
            Request::WhoAmI => {
                session::who_am_i(self, body);
                Ok(())
            }
            Request::AddWatch(request) => watches::add(self, request, body),
            Request::CheckWatches(request) => watches::check(self, request),
            Request::RemoveWatches(request) => watches::remove(self, request),
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
        }
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
