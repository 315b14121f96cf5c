use bytes::{Bytes, BytesMut};
use zk_jute::{DecodeError, Reader, Record};

use crate::OpCode;
use crate::multi::MultiRequest;
use crate::proto::{
    AddWatchRequest, AuthPacket, CheckWatchesRequest, CreateRequest, CreateTtlRequest,
    DeleteRequest, ExistsRequest, GetAclRequest, GetAllChildrenNumberRequest, GetChildren2Request,
    GetChildrenRequest, GetDataRequest, GetEphemeralsRequest, GetSaslRequest, ReconfigRequest,
    RemoveWatchesRequest, SetAclRequest, SetDataRequest, SetWatches, SetWatches2, SyncRequest,
};

/// Why a request cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// No operation that a client may ask for: answered with `UNIMPLEMENTED`, then closed.
    UnknownOp(OpCode),
    /// The body is not of its operation's form: answered with `MARSHALLING_ERROR`.
    Body(DecodeError),
}

impl From<DecodeError> for RequestError {
    fn from(error: DecodeError) -> Self {
        Self::Body(error)
    }
}

macro_rules! requests {
    ($($(#[$meta:meta])* $name:ident $(($body:ty))? = $op:ident;)*) => {
        /// What a client asks for. Internal operations (createSession, deleteContainer) and `check`
        /// outside a multi are not among them: a client that sends one gets the answer to an unknown
        /// operation.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Request { $($(#[$meta])* $name $(($body))?,)* }

        impl Request {
            /// Decodes the body behind a request header. Bytes left over are ignored, as upstream does:
            /// some clients append fields of later versions.
            ///
            /// # Errors
            /// See [`RequestError`].
            pub fn decode(op: OpCode, body: &Bytes) -> Result<Self, RequestError> {
                let mut reader = Reader::new(body);
                let _ = &mut reader;
                match op {
                    $(OpCode::$op => Ok(Self::$name $((<$body as Record>::parse(&mut reader)?))?),)*
                    OpCode(_) => Err(RequestError::UnknownOp(op)),
                }
            }

            /// The operation's number.
            #[must_use]
            pub fn op(&self) -> OpCode {
                match self { $(requests!(@pattern $name $(($body))?) => OpCode::$op,)* }
            }

            /// Appends the body to `out`.
            pub fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name $((requests!(@bind body: $body)))? => {
                        $(<$body as Record>::encode(body, out);)?
                    })*
                }
            }
        }
    };
    (@pattern $name:ident ($body:ty)) => { Self::$name(_) };
    (@pattern $name:ident) => { Self::$name };
    (@bind $binding:ident: $body:ty) => { $binding };
}

requests! {
    /// create
    Create(CreateRequest) = CREATE;
    /// create2
    Create2(CreateRequest) = CREATE2;
    /// createContainer
    CreateContainer(CreateRequest) = CREATE_CONTAINER;
    /// createTTL
    CreateTtl(CreateTtlRequest) = CREATE_TTL;
    /// delete
    Delete(DeleteRequest) = DELETE;
    /// exists
    Exists(ExistsRequest) = EXISTS;
    /// getData
    GetData(GetDataRequest) = GET_DATA;
    /// setData
    SetData(SetDataRequest) = SET_DATA;
    /// getACL
    GetAcl(GetAclRequest) = GET_ACL;
    /// setACL
    SetAcl(SetAclRequest) = SET_ACL;
    /// getChildren
    GetChildren(GetChildrenRequest) = GET_CHILDREN;
    /// getChildren2
    GetChildren2(GetChildren2Request) = GET_CHILDREN2;
    /// sync
    Sync(SyncRequest) = SYNC;
    /// ping
    Ping = PING;
    /// multi
    Multi(MultiRequest) = MULTI;
    /// multiRead
    MultiRead(MultiRequest) = MULTI_READ;
    /// reconfig
    Reconfig(ReconfigRequest) = RECONFIG;
    /// checkWatches
    CheckWatches(CheckWatchesRequest) = CHECK_WATCHES;
    /// removeWatches
    RemoveWatches(RemoveWatchesRequest) = REMOVE_WATCHES;
    /// setWatches
    SetWatches(SetWatches) = SET_WATCHES;
    /// setWatches2
    SetWatches2(SetWatches2) = SET_WATCHES2;
    /// addWatch
    AddWatch(AddWatchRequest) = ADD_WATCH;
    /// getEphemerals
    GetEphemerals(GetEphemeralsRequest) = GET_EPHEMERALS;
    /// getAllChildrenNumber
    GetAllChildrenNumber(GetAllChildrenNumberRequest) = GET_ALL_CHILDREN_NUMBER;
    /// whoAmI
    WhoAmI = WHO_AM_I;
    /// closeSession
    CloseSession = CLOSE_SESSION;
    /// auth
    Auth(AuthPacket) = AUTH;
    /// sasl
    Sasl(GetSaslRequest) = SASL;
}
