//! closeSession: the session's ephemeral znodes go with it, in one transaction that names them.

use zk_proto::txn::{CloseSessionTxn, Txn};

use crate::prep::Prep;

pub(crate) fn prepare(prep: &mut Prep<'_>) -> Txn {
    let paths = prep.changes.ephemerals(prep.tree, prep.session);
    for path in &paths {
        prep.delete(path);
    }
    Txn::CloseSession(Some(CloseSessionTxn { paths_to_delete: paths.into_iter().collect() }))
}
