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
    let (zxid, wall_ms) = (prep.zxid.0, prep.wall_ms);
    prep.change(&path, |node| {
        node.stat.version = version;
        node.stat.mzxid = zxid;
        node.stat.mtime = wall_ms;
        node.data = Some(data.clone());
    });
    Ok(Txn::SetData(SetDataTxn { path, data, version }))
}
