//! closeSession: the session's ephemeral znodes go with it, in one transaction that names them.

use std::collections::BTreeSet;

use zk_proto::txn::{CloseSessionTxn, Txn};

use crate::prep::Prep;

pub(crate) fn prepare(prep: &mut Prep<'_>) -> Txn {
    let mut paths: BTreeSet<String> = prep.tree.ephemerals(prep.session).collect();
    prep.changes.amend_ephemerals(prep.session, &mut paths);
    for path in &paths {
        prep.delete(path);
    }
    Txn::CloseSession(Some(CloseSessionTxn { paths_to_delete: paths.into_iter().collect() }))
}
