//! getEphemerals, whoAmI: what belongs to the session and the connection that ask.

use bytes::BytesMut;
use zk_proto::data::ClientInfo;
use zk_proto::proto::{GetEphemeralsRequest, WhoAmIResponse};
use zk_proto::{ErrorCode, Record};

use super::Read;
use crate::{auth, reply};

pub(super) fn ephemerals(
    read: &Read<'_>,
    request: &GetEphemeralsRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let prefix = request.prefix_path.as_deref().unwrap_or_default();
    let all = matches!(prefix.trim(), "" | "/");
    let mine = read.db.tree.ephemerals(read.session);
    reply::names(body, mine.filter(|path| all || path.starts_with(prefix)))
}

pub(super) fn who_am_i(read: &Read<'_>, body: &mut BytesMut) {
    let info = |id: &zk_proto::acl::Id| ClientInfo {
        auth_scheme: id.scheme.clone(),
        user: auth::display_name(id).to_owned(),
    };
    WhoAmIResponse { client_info: read.ids.iter().map(info).collect() }.encode(body);
}
