//! setData.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::proto::SetDataRequest;
use zk_proto::txn::{SetDataTxn, Txn};

use super::validate;
use crate::prep::{Prep, next_version};

pub(crate) fn prepare(prep: &mut Prep<'_>, request: &SetDataRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    validate(&request.path)?;
    let view = prep.find(&request.path)?;
    prep.check_acl(view.acl(), Perms::WRITE)?;
    let len = |data: Option<&[u8]>| {
        data.map_or(0, |data| i64::try_from(data.len()).unwrap_or(i64::MAX))
    };
    if prep.config.enforce_quota {
        prep.check_quota(&request.path, 0, len(request.data.as_deref()) - len(view.data()))?;
    }
    let version = next_version(view.stat().version, request.version)?;
    let mut node = view.to_changed();
    node.stat.version = version;
    node.stat.mzxid = prep.zxid.0;
    node.stat.mtime = prep.wall_ms;
    node.data = Some(request.data.clone());
    prep.put(&request.path, Some(node));
    Ok(Txn::SetData(SetDataTxn { path: request.path.clone(), data: request.data.clone(), version }))
}
