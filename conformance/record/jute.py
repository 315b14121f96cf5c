"""Reads ZooKeeper's records from bytes: a second reader, written apart from the Rust one, so that the expected values
in the vector files come from neither its encoder nor its decoder.

A record is a line of `name:type` pairs. Types: int long bool string string? buffer op err, a record's name, or [type].
`fields` gives the leaves as (name, text) pairs, the text as Rust's `Debug` writes the value.
"""

import re
import struct

SCHEMA = {
    "ConnectRequest": "protocol_version:int last_zxid_seen:long timeout_ms:int session_id:long password:buffer read_only:last",
    "ConnectResponse": "protocol_version:int timeout_ms:int session_id:long password:buffer read_only:last",
    "RequestHeader": "xid:int op:op",
    "ReplyHeader": "xid:int zxid:long err:err",
    "Id": "scheme:string id:string",
    "Acl": "perms:int id:Id",
    "Stat": "czxid:long mzxid:long ctime:long mtime:long version:int cversion:int aversion:int ephemeral_owner:long "
    "data_length:int num_children:int pzxid:long",
    "StatPersisted": "czxid:long mzxid:long ctime:long mtime:long version:int cversion:int aversion:int "
    "ephemeral_owner:long pzxid:long",
    "CreateRequest": "path:string data:buffer acl:[Acl] flags:int",
    "CreateTtlRequest": "path:string data:buffer acl:[Acl] flags:int ttl:long",
    "CreateResponse": "path:string",
    "Create2Response": "path:string stat:Stat",
    "DeleteRequest": "path:string version:int",
    "ExistsRequest": "path:string watch:bool",
    "ExistsResponse": "stat:Stat",
    "GetDataRequest": "path:string watch:bool",
    "GetDataResponse": "data:buffer stat:Stat",
    "SetDataRequest": "path:string data:buffer version:int",
    "SetDataResponse": "stat:Stat",
    "GetAclRequest": "path:string",
    "GetAclResponse": "acl:[Acl] stat:Stat",
    "SetAclRequest": "path:string acl:[Acl] version:int",
    "SetAclResponse": "stat:Stat",
    "GetChildrenRequest": "path:string watch:bool",
    "GetChildrenResponse": "children:[string]",
    "GetChildren2Request": "path:string watch:bool",
    "GetChildren2Response": "children:[string] stat:Stat",
    "SyncRequest": "path:string?",
    "SyncResponse": "path:string?",
    "CheckVersionRequest": "path:string version:int",
    "ReconfigRequest": "joining_servers:string? leaving_servers:string? new_members:string? cur_config_id:long",
    "CheckWatchesRequest": "path:string watcher_type:int",
    "RemoveWatchesRequest": "path:string watcher_type:int",
    "AddWatchRequest": "path:string mode:int",
    "ErrorResponse": "err:err",
    "SetWatches": "relative_zxid:long data_watches:[string] exist_watches:[string] child_watches:[string]",
    "SetWatches2": "relative_zxid:long data_watches:[string] exist_watches:[string] child_watches:[string] "
    "persistent_watches:[string] persistent_recursive_watches:[string]",
    "GetEphemeralsRequest": "prefix_path:string?",
    "GetEphemeralsResponse": "ephemerals:[string]",
    "GetAllChildrenNumberRequest": "path:string",
    "GetAllChildrenNumberResponse": "total_number:int",
    "ClientInfo": "auth_scheme:string user:string",
    "WhoAmIResponse": "client_info:[ClientInfo]",
    "AuthPacket": "auth_type:int scheme:string auth:buffer",
    "GetSaslRequest": "token:buffer",
    "SetSaslResponse": "token:buffer",
    "WatcherEvent": "event_type:int state:int path:string",
    "MultiHeader": "op:op done:bool err:err",
    "TxnHeader": "client_id:long cxid:int zxid:long time:long op:op",
    "TxnDigest": "version:int tree_digest:long",
    "CreateSessionTxn": "timeout_ms:int",
    "CloseSessionTxn": "paths_to_delete:[string]",
    "ErrorTxn": "err:err",
    "CreateTxn": "path:string data:buffer acl:[Acl] ephemeral:bool parent_cversion:int",
    "CreateContainerTxn": "path:string data:buffer acl:[Acl] parent_cversion:int",
    "CreateTtlTxn": "path:string data:buffer acl:[Acl] parent_cversion:int ttl:long",
    "DeleteTxn": "path:string",
    "SetDataTxn": "path:string data:buffer version:int",
    "SetAclTxn": "path:string acl:[Acl] version:int",
    "CheckVersionTxn": "path:string version:int",
    "SubTxn": "op:op body:buffer",
    "QuorumPacket": "packet_type:packet zxid:long data:buffer authinfo:ids",
    "LearnerInfo": "server_id:long protocol_version:int config_version:long",
    "FileHeader": "magic:int version:int dbid:long",
}

OPS = {
    0: "notification", 1: "create", 2: "delete", 3: "exists", 4: "getData", 5: "setData", 6: "getACL", 7: "setACL",
    8: "getChildren", 9: "sync", 11: "ping", 12: "getChildren2", 13: "check", 14: "multi", 15: "create2",
    16: "reconfig", 17: "checkWatches", 18: "removeWatches", 19: "createContainer", 20: "deleteContainer",
    21: "createTTL", 22: "multiRead", 100: "auth", 101: "setWatches", 102: "sasl", 103: "getEphemerals",
    104: "getAllChildrenNumber", 105: "setWatches2", 106: "addWatch", 107: "whoAmI", -10: "createSession",
    -11: "closeSession", -1: "error",
}  # fmt: skip

ERRORS = {
    0: "OK", -1: "SYSTEMERROR", -2: "RUNTIMEINCONSISTENCY", -5: "MARSHALLINGERROR", -6: "UNIMPLEMENTED",
    -8: "BADARGUMENTS", -13: "NEWCONFIGNOQUORUM", -14: "RECONFIGINPROGRESS", -101: "NONODE", -102: "NOAUTH",
    -103: "BADVERSION", -108: "NOCHILDRENFOREPHEMERALS", -110: "NODEEXISTS", -111: "NOTEMPTY",
    -112: "SESSIONEXPIRED", -114: "INVALIDACL", -115: "AUTHFAILED", -118: "SESSIONMOVED", -119: "NOTREADONLY",
    -120: "EPHEMERALONLOCALSESSION", -121: "NOWATCHER", -123: "RECONFIGDISABLED",
    -124: "SESSIONCLOSEDREQUIRESASLAUTH", -125: "QUOTAEXCEEDED", -127: "THROTTLEDOP",
}  # fmt: skip

PACKETS = {
    1: "REQUEST", 2: "PROPOSAL", 3: "ACK", 4: "COMMIT", 5: "PING", 6: "REVALIDATE", 7: "SYNC", 8: "INFORM",
    9: "COMMITANDACTIVATE", 10: "NEWLEADER", 11: "FOLLOWERINFO", 12: "UPTODATE", 13: "DIFF", 14: "TRUNC",
    15: "SNAP", 16: "OBSERVERINFO", 17: "LEADERINFO", 18: "ACKEPOCH", 19: "INFORMANDACTIVATE",
}  # fmt: skip

# Requests and replies by operation; what is not here has no body.
REQUESTS = {
    1: "CreateRequest", 2: "DeleteRequest", 3: "ExistsRequest", 4: "GetDataRequest", 5: "SetDataRequest",
    6: "GetAclRequest", 7: "SetAclRequest", 8: "GetChildrenRequest", 9: "SyncRequest", 12: "GetChildren2Request",
    13: "CheckVersionRequest", 15: "CreateRequest", 16: "ReconfigRequest", 17: "CheckWatchesRequest",
    18: "RemoveWatchesRequest", 19: "CreateRequest", 21: "CreateTtlRequest", 100: "AuthPacket", 101: "SetWatches",
    102: "GetSaslRequest", 103: "GetEphemeralsRequest", 104: "GetAllChildrenNumberRequest", 105: "SetWatches2",
    106: "AddWatchRequest",
}  # fmt: skip
REPLIES = {
    1: "CreateResponse", 3: "ExistsResponse", 4: "GetDataResponse", 5: "SetDataResponse", 6: "GetAclResponse",
    7: "SetAclResponse", 8: "GetChildrenResponse", 9: "SyncResponse", 12: "GetChildren2Response",
    15: "Create2Response", 16: "GetDataResponse", 19: "Create2Response", 21: "Create2Response",
    102: "SetSaslResponse", 103: "GetEphemeralsResponse", 104: "GetAllChildrenNumberResponse", 106: "ErrorResponse",
    107: "WhoAmIResponse",
}  # fmt: skip
TXNS = {
    -10: "CreateSessionTxn", -11: "CloseSessionTxn", -1: "ErrorTxn", 1: "CreateTxn", 15: "CreateTxn",
    19: "CreateContainerTxn", 21: "CreateTtlTxn", 2: "DeleteTxn", 20: "DeleteTxn", 5: "SetDataTxn", 16: "SetDataTxn",
    7: "SetAclTxn", 13: "CheckVersionTxn",
}  # fmt: skip


class Short(Exception):
    """The bytes end inside a value."""


class Reader:
    def __init__(self, data, at=0):
        self.data, self.at = bytes(data), at

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise Short(f"{count} bytes at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def left(self):
        return len(self.data) - self.at

    def unpack(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]

    def int(self):
        return self.unpack("i")

    def long(self):
        return self.unpack("q")

    def buffer(self):
        size = self.int()
        return None if size == -1 else self.take(size)

    def string(self):
        raw = self.buffer()
        return None if raw is None else raw.decode("utf-8", "replace")

    def fields(self, record):
        """The leaves of a record, as (name, text) pairs."""
        out = []
        for part in SCHEMA[record].split():
            name, kind = part.split(":", 1)
            self._field(out, name, kind)
        return out

    def _field(self, out, name, kind):
        if kind == "int":
            out.append((name, str(self.int())))
        elif kind == "long":
            out.append((name, str(self.long())))
        elif kind == "bool":
            out.append((name, "true" if self.take(1)[0] else "false"))
        elif kind == "last":  # a boolean that old clients leave out
            out.append((name, ("Some(true)" if self.take(1)[0] else "Some(false)") if self.left() else "None"))
        elif kind == "string":
            out.append((name, quote(self.string() or "")))
        elif kind == "string?":
            value = self.string()
            out.append((name, "None" if value is None else f"Some({quote(value)})"))
        elif kind == "buffer":
            out.append((name, quote_bytes(self.buffer())))
        elif kind == "op":
            out.append((name, op_name(self.int())))
        elif kind == "err":
            out.append((name, error_name(self.int())))
        elif kind == "packet":
            out.append((name, PACKETS[self.int()]))
        elif kind == "ids":
            count = self.int()
            if count < 0:
                out.append((name, "None"))
            for _ in range(count):
                out += self.fields("Id")
        elif kind == "[string]":
            count = self.int()
            out.append((name, "[" + ", ".join(quote(self.string()) for _ in range(count)) + "]"))
        elif kind.startswith("["):
            for _ in range(self.int()):
                out += self.fields(kind[1:-1])
        else:
            out += self.fields(kind)

    def multi_request(self):
        out = []
        while True:
            op, done, _ = self.int(), self.take(1)[0], self.int()
            if done:
                return out
            if op in (1, 15, 19):
                out.append(("op", op_name(op)))
            out += self.fields(REQUESTS[op])

    def multi_response(self):
        out = []
        while True:
            op, done, err = self.int(), self.take(1)[0], self.int()
            if done:
                return out
            if op == -1:
                assert self.int() == err
                out.append(("is", f"Error({error_name(err)})"))
            elif op == 1:
                out.append(("is", f"Create({quote(self.string())})"))
            elif op == 15:
                out.append(("is", f"Create2({quote(self.string())}, Stat {{"))
                out += self.fields("Stat")
            elif op == 5:
                out.append(("is", "SetData(Stat {"))
                out += self.fields("Stat")
            elif op == 4:
                out.append(("is", f"GetData({quote_bytes(self.buffer())}, Stat {{"))
                out += self.fields("Stat")
            elif op == 8:
                names = ", ".join(quote(self.string()) for _ in range(self.int()))
                out.append(("is", f"GetChildren([{names}])"))
            else:
                out.append(("is", {2: "Delete", 13: "Check"}[op]))

    def txn(self, op, bodiless=False):
        """A transaction's body; `bodiless`: closeSession was logged without its list."""
        if op == 14:
            out = []
            for _ in range(self.int()):
                sub, body = self.int(), self.buffer()
                out.append(("is", f"({op_name(sub)}, "))
                inner = Reader(body)
                out += inner.txn(sub)
                assert inner.left() == 0
            return out
        if op == -11 and bodiless:
            return [("is", "CloseSession(None)")]
        return self.fields(TXNS[op])

    def entry(self, bodiless=False):
        """A logged transaction: header, body, digest."""
        at = self.at
        out = self.fields("TxnHeader")
        op = struct.unpack_from(">i", self.data, at + 28)[0]
        out += self.txn(op, bodiless)
        if self.left():
            out += self.fields("TxnDigest")
        else:
            out.append(("digest", "None"))
        return out


def op_name(op):
    return OPS.get(op, f"opcode {op}")


def error_name(code):
    return f"{ERRORS[code]} ({code})" if code in ERRORS else str(code)


def quote(text):
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    return '"' + "".join(special.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def quote_bytes(raw):
    if raw is None:
        return "None"
    special = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0: "\\0"}
    text = "".join(special.get(b) or (chr(b) if 0x20 <= b < 0x7F else f"\\x{b:02x}") for b in raw)
    return f'Some(b"{text}")'


def frames(data):
    """Splits a stream of length-prefixed frames; returns (offset, payload) pairs."""
    at = 0
    while at + 4 <= len(data):
        size = struct.unpack_from(">i", data, at)[0]
        if at + 4 + size > len(data):
            break
        yield at, bytes(data[at + 4 : at + 4 + size])
        at += 4 + size


def first_text(fields):
    """A path or the like, to name a vector by."""
    for name, text in fields:
        found = re.fullmatch(r'"(.*)"', text)
        if found and name in ("path", "scheme", "prefix_path"):
            return found.group(1)
    return ""
