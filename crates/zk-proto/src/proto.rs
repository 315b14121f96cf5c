//! `org.apache.zookeeper.proto`: requests and responses of the client protocol.

use zk_jute::{Buffer, records};

use crate::acl::Acl;
use crate::data::{ClientInfo, Stat};
use crate::{ErrorCode, OpCode, Xid, Zxid};

records! {
    /// Before every request but the connect request.
    #[derive(Copy)]
    RequestHeader { xid: Xid, op: OpCode }
    /// Before every response but the connect response.
    #[derive(Copy)]
    ReplyHeader { xid: Xid, zxid: Zxid, err: ErrorCode }

    /// create, create2, createContainer. A null ACL list is not an empty one to us, but both are invalid.
    CreateRequest { path: String, data: Buffer, acl: Vec<Acl>, flags: i32 }
    /// createTTL; `ttl` in ms.
    CreateTtlRequest { path: String, data: Buffer, acl: Vec<Acl>, flags: i32, ttl: i64 }
    /// create
    CreateResponse { path: String }
    /// create2, createContainer, createTTL
    Create2Response { path: String, stat: Stat }
    /// delete
    DeleteRequest { path: String, version: i32 }
    /// deleteContainer: the path without a length check of its own.
    DeleteContainerRequest { path: Buffer }
    /// exists
    ExistsRequest { path: String, watch: bool }
    /// exists
    ExistsResponse { stat: Stat }
    /// getData
    GetDataRequest { path: String, watch: bool }
    /// getData, reconfig
    GetDataResponse { data: Buffer, stat: Stat }
    /// setData
    SetDataRequest { path: String, data: Buffer, version: i32 }
    /// setData
    SetDataResponse { stat: Stat }
    /// getACL
    GetAclRequest { path: String }
    /// getACL
    GetAclResponse { acl: Vec<Acl>, stat: Stat }
    /// setACL; `version` is the expected aversion.
    SetAclRequest { path: String, acl: Vec<Acl>, version: i32 }
    /// setACL
    SetAclResponse { stat: Stat }
    /// getChildren
    GetChildrenRequest { path: String, watch: bool }
    /// getChildren
    GetChildrenResponse { children: Vec<String> }
    /// getChildren2
    GetChildren2Request { path: String, watch: bool }
    /// getChildren2
    GetChildren2Response { children: Vec<String>, stat: Stat }
    /// sync; the path is echoed.
    SyncRequest { path: Option<String> }
    /// sync
    SyncResponse { path: Option<String> }
    /// check, only within a multi
    CheckVersionRequest { path: String, version: i32 }
    /// reconfig
    ReconfigRequest {
        joining_servers: Option<String>, leaving_servers: Option<String>,
        new_members: Option<String>, cur_config_id: i64,
    }
    /// checkWatches; `watcher_type` as in [`crate::watch::WatcherType`].
    CheckWatchesRequest { path: String, watcher_type: i32 }
    /// removeWatches
    RemoveWatchesRequest { path: String, watcher_type: i32 }
    /// addWatch; `mode` as in [`crate::watch::AddWatchMode`].
    AddWatchRequest { path: String, mode: i32 }
    /// addWatch, and a failed operation of a multi
    ErrorResponse { err: ErrorCode }
    /// setWatches; relative to the last zxid that the client has seen.
    SetWatches {
        relative_zxid: Zxid, data_watches: Vec<String>, exist_watches: Vec<String>,
        child_watches: Vec<String>,
    }
    /// setWatches2
    SetWatches2 {
        relative_zxid: Zxid, data_watches: Vec<String>, exist_watches: Vec<String>,
        child_watches: Vec<String>, persistent_watches: Vec<String>,
        persistent_recursive_watches: Vec<String>,
    }
    /// getEphemerals; a null prefix means all.
    GetEphemeralsRequest { prefix_path: Option<String> }
    /// getEphemerals
    GetEphemeralsResponse { ephemerals: Vec<String> }
    /// getAllChildrenNumber
    GetAllChildrenNumberRequest { path: String }
    /// getAllChildrenNumber
    GetAllChildrenNumberResponse { total_number: i32 }
    /// whoAmI
    WhoAmIResponse { client_info: Vec<ClientInfo> }
    /// auth; the type is always 0 and ignored.
    AuthPacket { auth_type: i32, scheme: String, auth: Buffer }
    /// sasl
    GetSaslRequest { token: Buffer }
    /// sasl
    SetSaslResponse { token: Buffer }
    /// A watch was triggered.
    WatcherEvent { event_type: i32, state: i32, path: String }
}
