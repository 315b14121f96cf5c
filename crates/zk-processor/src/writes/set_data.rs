//! setData.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::proto::SetDataRequest;
use zk_proto::txn::{SetDataTxn, Txn};

use super::{data_len, validate};
use crate::prep::{Prep, next_version};

pub(crate) fn prepare(prep: &mut Prep<'_>, request: SetDataRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    let SetDataRequest { path, data, version } = request;
    validate(&path)?;
    let view = prep.find(&path)?;
    prep.check_acl(view.acl(), Perms::WRITE)?;
    prep.check_quota(&path, 0, data_len(data.as_deref()) - data_len(view.data()))?;
    let version = next_version(view.stat().version, version)?;
    let mut node = prep.to_changed(&path, view);
    node.stat.version = version;
    node.stat.mzxid = prep.zxid.0;
    node.stat.mtime = prep.wall_ms;
    node.data = Some(data.clone());
    prep.put(&path, node);
    Ok(Txn::SetData(SetDataTxn { path, data, version }))
}
