//! `org.apache.zookeeper.server.quorum`: packets between servers (facts, sections 3.1 to 3.4).

use zk_jute::{Buffer, records};

use crate::Zxid;
use crate::acl::Id;

records! {
    /// What travels on the quorum port, without a length before it.
    QuorumPacket { packet_type: i32, zxid: Zxid, data: Buffer, authinfo: Option<Vec<Id>> }
    /// FOLLOWERINFO's and OBSERVERINFO's data.
    LearnerInfo { server_id: i64, protocol_version: i32, config_version: i64 }
}
