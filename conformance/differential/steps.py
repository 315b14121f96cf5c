"""The questions: sequences of steps that a seed draws. They are plain data, so a sequence can be written down, shortened and
played again; nothing in them depends on an answer.

    sequence(seed, config, length)     the steps
    describe(step)                     one line for people

A step is a dictionary. `do` is one of
    ask      a request on connection `at`: xid, op, body (hexadecimal); `zxid`, where it is there, says that the body begins with
             the zxid last heard of plus that number, which nobody can know beforehand
    burst    several of them at once
    drop     the connection is closed, the session lives
    move     the session of `at` comes back on another connection, while the old one stands if `keep`; `wrong`: with a password
             that is none; `ahead`: with a zxid seen that does not exist yet
    connect  a session for nothing but its beginning: the connect request has a shape of its own
    raw      bytes on a connection of their own, behind a connect request if `session`, then the sending half is closed
    word     a four-letter word
"""

import base64
import hashlib
import os
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for neighbour in ("mixed", "record", "lib"):
    sys.path.insert(0, os.path.join(HERE, "..", neighbour))
import jute  # noqa: E402

CONNECTIONS = 3
SUPER = ("super", "secret")

(CREATE, DELETE, EXISTS, GET, SET, GET_ACL, SET_ACL, CHILDREN, SYNC, PING, CHILDREN2, CHECK, MULTI, CREATE2, RECONFIG) = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16,
)  # fmt: skip
CHECK_WATCHES, REMOVE_WATCHES, CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, MULTI_READ = 17, 18, 19, 20, 21, 22
AUTH, SET_WATCHES, SASL, EPHEMERALS, ALL_CHILDREN, SET_WATCHES2, ADD_WATCH, WHO_AM_I = 100, 101, 102, 103, 104, 105, 106, 107
CREATE_SESSION, CLOSE = -10, -11

MAX32, MIN32, MAX64, MIN64 = 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)


def hashed(user, password, algorithm="sha1"):
    digest = hashlib.new(algorithm, f"{user}:{password}".encode()).digest()
    return f"{user}:{base64.b64encode(digest).decode()}"


# --- records; a value may be None (null) or bytes that are no UTF-8 ---


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def string(value):
    if value is None:
        return i32(-1)
    data = value if isinstance(value, bytes) else value.encode()
    return i32(len(data)) + data


def strings(values):
    return i32(-1) if values is None else i32(len(values)) + b"".join(map(string, values))


def acls(entries):
    if entries is None or isinstance(entries, int):
        return i32(-1 if entries is None else entries)
    return i32(len(entries)) + b"".join(i32(perms) + string(scheme) + string(who) for perms, scheme, who in entries)


# --- values ---

NAMES = ["/a", "/a", "/b", "/c", "/a/b", "/a/b", "/a/c", "/a/b/c", "/b/x", "/b/y", "/c/z", "/a/b/c/d"]
SYSTEM = [
    "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats", "/zookeeper/quota/b", "/zookeeper/quota/b/zookeeper_limits", "/zookeeper/new",
    "/zookeeper/quota/a/b", "/zookeeper/quota/a/b/zookeeper_limits", "/zookeepers",
]  # fmt: skip
ODD = [
    "", "a", "a/b", "/a/", "//", "//a", "/a//b", "/.", "/..", "/a/.", "/a/..", "/a/./b", "/a/../b", "/...", "/a/.b", "/a\0", "\0",
    "/\x01", "/a/\x1f", "/\x7f", "/\x9f", "/\xa0", "/é", "/\ud7ff", "/\ue000", "/\uf8ff", "/\uf900", "/\uffef", "/\ufff0", "/\uffff",
    "/a b", "/ ", " ", "/a/b/", "/" + "x" * 300, "/d" * 40, "/zookeeper/", "/zookeeper/..", "/zookeeper/quota/", "/😀", "/\ufeff",
    b"/\xff", b"/a\xc3", b"/\xed\xa0\x80", b"/\xed\xa0\xbd\xed\xb8\x80", b"/\xc0\xaf", b"/\xf0\x9f\x98", b"/a/\xe2\x82", b"\xff", None,
]  # fmt: skip
VERSIONS = [0, 1, 2, 3, -2, MAX32, MIN32]
LIMITS = [
    "count=2,bytes=10", "count=1,bytes=-1", "count=-1,bytes=5", "count=3,bytes=100=;byteHardLimit=20;countHardLimit=4",
    "count=-1,bytes=-1=;byteHardLimit=6;countHardLimit=3", "count=0,bytes=0", "junk", "", "count=a,bytes=b", "count=1",
    "bytes=5,count=2", "count=2,bytes=10=;countHardLimit=2", "count=2,bytes=10;byteHardLimit=3", "count=1,bytes=1,x=2",
    "count=99999999999,bytes=1", "count=1,bytes=99999999999", " count=1 , bytes=2 ", "count=1,bytes=2\n", "=", ",", "count=,bytes=",
]  # fmt: skip
WORDS = "ruok srvr stat conf cons crst dirs dump envi gtmk hash isro mntr srst wchc wchp wchs".split()
OPEN = [(31, "world", "anyone")]


class Draw:
    def __init__(self, seed, config):
        self.random = random.Random(f"{config.name}/{seed}")
        self.config = config
        self.xids = [0] * CONNECTIONS
        # A sequence that is hostile all the time never gets far: most are so at times, some never.
        self.hostile = self.one(0, 0.3, 0.3, 1)

    def odd_chance(self, percent):
        return self.chance(percent * self.hostile)

    def chance(self, percent):
        return self.random.random() * 100 < percent

    def one(self, *choices):
        return self.random.choice(choices)

    def weighted(self, table):
        return self.random.choices([value for value, _ in table], [weight for _, weight in table])[0]

    def path(self, odd=6, system=5):
        at = self.random.random() * 100
        if self.odd_chance(odd):
            return self.one(*ODD)
        if at < system:
            return self.one(*SYSTEM)
        if at < system + 4:
            return "/"
        if at < system + 10:
            return self.one("/a/", "/", "/b/s", "/a/") + f"{self.one(0, 0, 1, 2, 3):010d}"
        return self.one(*NAMES)

    def version(self):
        return self.one(*VERSIONS) if self.chance(30) else -1

    def size(self):
        return self.one(*self.config.sizes)

    def data(self, path=None):
        if isinstance(path, str) and "zookeeper_" in path and self.chance(80):
            return self.one(*LIMITS)
        at = self.random.random() * 100
        if at < 8:
            return None
        if at < 20:
            return b""
        if at < 80:
            return self.one("x", "data", "0", "1234567", b"\0\xff")
        if at < 97:
            return b"d" * self.one(10, 100, 700)
        return b"L" * self.size()

    def who(self):
        user, password = self.one(("u1", "p1"), ("u2", "p2"), SUPER)
        return self.one(
            ("world", "anyone"), ("world", "anyone"), ("auth", ""), ("auth", ""), ("digest", hashed(user, password)),
            ("digest", hashed(user, password, self.config.digest)), ("digest", hashed("u1", "p1")), ("ip", "127.0.0.1"), ("ip", "127.0.0.0/8"),
        )  # fmt: skip

    def strange(self):
        return self.one(
            ("world", "nobody"), ("world", ""), ("world", None), ("auth", "x"), ("auth", None), ("digest", "u1"), ("digest", ""),
            ("digest", "a:b:c"), ("digest", ":"), ("digest", "a:"), ("digest", ":b"), ("digest", None), ("ip", "10.0.0.1"), ("ip", "300.1.1.1"),
            ("ip", "::1"), ("ip", "1.2.3"), ("ip", ""), ("ip", "127.0.0.1/33"), ("ip", "127.0.0.1/-1"), ("ip", "127.0.0.1/0"), ("ip", "127.0.0.1/"),
            ("ip", "127.0.0.1/8/8"), ("ip", "/8"), ("ip", "localhost"), ("ip", "127.0.0.1/x"), ("ip", "::1/64"), ("ip", "fe80::/10"), ("ip", None),
            ("ip", "::ffff:127.0.0.1"), ("ip", " 127.0.0.1"), ("ip", "127.0.0.1 "), ("ip", "0127.0.0.1"), ("ip", "127.1"), ("ip", "127.0.0.01"),
            ("sasl", "user"), ("x509", "CN=a"), ("super", "x"), ("unknown", "x"), ("", ""), (None, "anyone"), (None, None), ("World", "anyone"),
            ("key", "1"), ("ensemble", "x"), (b"\xff", "x"), ("digest", b"u\xff:x"),
        )  # fmt: skip

    def acl(self):
        if self.chance(70 if self.config.super_user else 88):
            return OPEN
        if self.odd_chance(12):
            return self.one([], None, -2, -MAX32)
        entries = []
        for _ in range(self.one(1, 1, 1, 2, 3)):
            scheme, who = self.strange() if self.odd_chance(25) else self.who()
            entries.append((self.one(31, 31, 1, 3, 5, 7, 15, 16, 30, 0, 32, -1, 1 << 30, 63), scheme, who))
        if self.chance(15):
            entries.append(self.one(*entries))
        return entries

    def flags(self):
        return self.one(4, 5, 6, 7, -1, 100, MAX32, MIN32) if self.chance(6) else self.one(0, 0, 0, 0, 1, 1, 2, 2, 3)

    def ttl(self):
        return self.one(1, 1000, 10**6, 0, -1, 2**39, 0xFF_FFFF_FFFE, 0xFF_FFFF_FFFF, 0x100_0000_0000, MAX64, MIN64, 1 << 47)

    def container_flags(self):
        return 4 if self.chance(92) else self.flags()

    def ttl_flags(self):
        return self.one(5, 5, 5, 6, 6) if not self.odd_chance(3) else self.flags()

    def parent_for_new(self):
        return self.path(odd=5, system=5)

    # Bodies of writes, as they are in a multi too.

    def create(self, op):
        path = self.parent_for_new()
        flags = {CREATE_CONTAINER: self.container_flags, CREATE_TTL: self.ttl_flags}.get(op, self.flags)()
        if flags in (2, 3, 6) and isinstance(path, str) and self.chance(60):
            path = path.rstrip("/") + self.one("/", "/s", "-")
        body = string(path) + string(self.data(path)) + acls(self.acl()) + i32(flags)
        return body + i64(self.ttl()) if op == CREATE_TTL else body

    def write(self, op):
        if op in (CREATE, CREATE2, CREATE_CONTAINER, CREATE_TTL):
            return self.create(op)
        path = self.path()
        if op in (DELETE, CHECK):
            return string(path) + i32(self.version())
        if op == SET:
            return string(path) + string(self.data(path)) + i32(self.version())
        return string(path) + acls(self.acl()) + i32(self.version())

    def multi(self, table, bad):
        parts = []
        for _ in range(self.one(0, 1, 1, 2, 2, 3, 3, 4, 6)):
            op = self.weighted(table)
            if self.odd_chance(bad):
                op = self.one(MULTI, MULTI_READ, GET, CHILDREN, SET, SET_ACL, EXISTS, SYNC, CLOSE, -1, 0, 99, CHECK, EPHEMERALS)
            header = struct.pack(">iBi", op, 0, self.one(-1, -1, -1, 0))
            if op in (MULTI, MULTI_READ):
                parts.append(header + (self.multi(table, 0) if self.chance(50) else b""))
            elif op in (GET, CHILDREN, EXISTS):
                parts.append(header + string(self.path()) + bytes([self.one(0, 0, 1)]))
            elif op in (SYNC, CLOSE, -1, 0, 99, EPHEMERALS):
                parts.append(header + string(self.path()))
            else:
                parts.append(header + self.write(op))
        end = struct.pack(">iBi", -1, 1, -1)
        if self.odd_chance(bad / 3):
            end = self.one(b"", struct.pack(">iBi", 0, 1, 0), end[:5], end + b"more", struct.pack(">iBi", -1, 2, -1), struct.pack(">iBi", -1, 0, -1))
        return b"".join(parts) + end

    def list_of_paths(self):
        if self.odd_chance(5):
            return None
        return [self.path(odd=4) for _ in range(self.one(0, 0, 1, 1, 2, 3))]

    def reconfig(self):
        def maybe(*texts):
            return None if self.chance(50) else self.one(*texts)

        member = "server.2=127.0.0.1:12888:13888:participant;12181"
        return (
            string(maybe("", member, "server.2=junk", "junk")) + string(maybe("", "2", "1", "x", "99"))
            + string(maybe("", member, "server.1=127.0.0.1:2888:3888;2181")) + i64(self.one(-1, -1, 0, 1, MAX64, 0x100000000))
        )  # fmt: skip

    def auth(self):
        scheme, auth = self.one(
            ("digest", "u1:p1"), ("digest", "u1:p1"), ("digest", "u2:p2"), ("digest", "u2:p2"), ("digest", ":".join(SUPER)),
            ("ip", ""), ("ip", "1.2.3.4"), ("ip", None),
        )  # fmt: skip
        if self.chance(25):
            scheme, auth = self.one(
                ("digest", "nocolon"), ("digest", ""), ("digest", None), ("digest", ":"), ("digest", "a:b:c"), ("digest", b"\xff:\xfe"),
                ("digest", "super:wrong"), ("world", "anyone"), ("world", ""), ("sasl", "x"), ("x509", "x"), ("unknown", "x"), ("", ""),
                (None, "x"), ("ensemble", "x"), ("ensemble", ""), ("super", ""), ("key", "1"), ("Digest", "u1:p1"), ("auth", ""),
            )  # fmt: skip
        return i32(self.one(0, 0, 0, 1, -1)) + string(scheme) + string(auth)

    OPS = [
        (CREATE, 13), (CREATE2, 8), (CREATE_CONTAINER, 3), (CREATE_TTL, 3), (DELETE, 9), (EXISTS, 6), (GET, 6), (SET, 8), (GET_ACL, 4),
        (SET_ACL, 4), (CHILDREN, 4), (CHILDREN2, 4), (ALL_CHILDREN, 3), (EPHEMERALS, 3), (SYNC, 2), (PING, 1), (MULTI, 9), (MULTI_READ, 3),
        (SET_WATCHES, 2), (SET_WATCHES2, 2), (ADD_WATCH, 4), (REMOVE_WATCHES, 3), (CHECK_WATCHES, 2), (AUTH, 4), (WHO_AM_I, 2),
        (RECONFIG, 0.7), (CLOSE, 0.7), (SASL, 0.3), (CHECK, 0.4), ("unknown", 0.5),
    ]  # fmt: skip
    IN_MULTI = [(CREATE, 5), (CREATE2, 3), (CREATE_CONTAINER, 1), (CREATE_TTL, 1), (DELETE, 4), (SET, 4), (CHECK, 3)]
    IN_MULTI_READ = [(GET, 5), (CHILDREN, 4)]

    def request(self, only=None):
        """An operation and its body."""
        op = self.weighted(only or self.OPS)
        extra = {}
        if op == "unknown":
            op = self.one(0, 10, 18_000, 23, 99, 108, 127, -1, -2, -3, MAX32, MIN32, 200, CREATE_SESSION, DELETE_CONTAINER)
            body = string(self.path())
        elif op in (CREATE, CREATE2, CREATE_CONTAINER, CREATE_TTL, DELETE, SET, SET_ACL, CHECK):
            body = self.write(op)
        elif op in (EXISTS, GET, CHILDREN, CHILDREN2):
            body = string(self.path()) + bytes([self.one(0, 0, 1, 1, 1, 2, 255)])
        elif op in (GET_ACL, ALL_CHILDREN, SYNC):
            body = string(self.path(odd=12))
        elif op == EPHEMERALS:
            body = string(self.one("/", "", None, " ", "/a", "/b", "/a/b", "a", "/a/"))
        elif op == MULTI:
            body = self.multi(self.IN_MULTI, 4)
        elif op == MULTI_READ:
            body = self.multi(self.IN_MULTI_READ, 4)
        elif op in (SET_WATCHES, SET_WATCHES2):
            if self.chance(70):
                extra["zxid"] = self.one(0, 0, -1, -2, -5, -20, 1, 1000)
            else:
                extra = {}
            lists = 3 if op == SET_WATCHES else 5
            body = i64(self.one(0, 0, 1, -1, MAX64)) + b"".join(strings(self.list_of_paths()) for _ in range(lists))
        elif op == ADD_WATCH:
            body = string(self.path()) + i32(self.one(0, 0, 1, 1, 1, 2, -1, 5))
        elif op in (REMOVE_WATCHES, CHECK_WATCHES):
            body = string(self.path()) + i32(self.one(1, 2, 3, 3, 4, 5, 0, 6, -1))
        elif op == AUTH:
            body = self.auth()
        elif op == RECONFIG:
            body = self.reconfig()
        elif op == SASL:
            body = string(self.one(b"", b"token", None))
        else:
            body = self.one(b"", b"", b"", b"rest")
        if self.odd_chance(5):
            body = self.damage(body)
        return op, body, extra

    def damage(self, body):
        how = self.one("cut", "cut", "more", "byte", "length", "vector")
        if how == "cut":
            return body[: self.random.randrange(len(body) + 1)]
        if how == "more":
            return body + bytes(self.random.randrange(256) for _ in range(self.one(1, 4, 8, 40)))
        if how == "byte" and body:
            at = self.random.randrange(len(body))
            return body[:at] + bytes([self.random.randrange(256)]) + body[at + 1 :]
        if len(body) >= 4:
            at = 0 if how == "length" else self.random.randrange(len(body) - 3)
            return body[:at] + i32(self.one(-1, -2, MIN32, MAX32, 0x7FFFFF, len(body), 0)) + body[at + 4 :]
        return body

    def xid(self, at, op):
        self.xids[at] += 1
        if op == AUTH:
            return self.one(-4, -4, -4, self.xids[at])
        if op == PING:
            return self.one(-2, -2, self.xids[at], -5)
        if op in (SET_WATCHES, SET_WATCHES2):
            return self.one(-8, -8, self.xids[at])
        if self.odd_chance(1.5):
            return self.one(0, -1, -3, -4, -8, -9, MAX32, MIN32, self.xids[at] - 1)
        return self.xids[at]

    def ask(self, at=None, only=None):
        at = self.random.randrange(CONNECTIONS) if at is None else at
        op, body, extra = self.request(only)
        return {"do": "ask", "at": at, "xid": self.xid(at, op), "op": op, "body": body.hex(), **extra}

    # What can stand behind each other without waiting: an auth packet is answered out of turn.
    PIPELINED = [entry for entry in OPS if entry[0] not in (AUTH, CLOSE, CHECK, SASL, "unknown", RECONFIG)]

    def burst(self):
        at = self.random.randrange(CONNECTIONS)
        requests = []
        for _ in range(self.one(2, 3, 5, 12)):
            request = self.ask(at, self.PIPELINED)
            request["xid"] = self.xids[at]
            # Java's server closes a connection on a frame that is too long without waiting for answers on their way.
            if len(request["body"]) // 2 + 8 <= self.config.max_buffer:
                requests.append(request)
        return {"do": "burst", "at": at, "requests": requests}

    def connect(self):
        """A connect request of any shape; what it has wrong is one thing, mostly."""
        step = {
            "do": "connect", "protocol": 0, "seen": 0, "timeout": 30000, "session": 0, "password": bytes(16).hex(), "last": "00",
        }  # fmt: skip
        for _ in range(self.one(1, 1, 2)):
            field, values = self.one(
                ("protocol", [1, -1, MAX32]), ("seen", ["ahead", "now", -1, MIN64, MAX64]), ("timeout", [0, -1, 1, 4000, 40000, 40001, MAX32, MIN32]),
                ("session", [1, -1, MAX64, 0x0100000000000000]), ("password", [None, "", "00", "ff" * 16, "00" * 15, "00" * 17, "00" * 100]),
                ("last", ["", "01", "02", "ff", "0000", "00" * 50]), ("cut", list(range(0, 45))), ("password_length", [-2, MIN32, MAX32, 17, 1000]),
            )  # fmt: skip
            step[field] = self.one(*values)
        return step

    def raw(self):
        limit = self.config.max_buffer
        length = self.one(0, 1, 4, 7, 8, -1, MIN32, MAX32, limit, limit + 1, 100, 4 * limit, 0x01000000)
        bytes_behind = self.one(0, 0, 1, 3, 4, 8, 12, 40)
        behind = bytes(self.random.randrange(256) for _ in range(bytes_behind))
        if self.chance(50):
            behind = struct.pack(">ii", 1, self.one(EXISTS, CREATE, PING, CLOSE, AUTH)) + string("/a")
        return {"do": "raw", "session": self.chance(60), "bytes": (i32(length) + behind)[: self.one(200, 200, 2)].hex()}

    def step(self):
        do = self.weighted(
            [("ask", 100), ("burst", 5), ("drop", 1.5), ("move", 3), ("connect", 1.2), ("raw", 0.8), ("word", self.config.words)]
        )
        if do == "ask":
            return self.ask()
        if do == "burst":
            return self.burst()
        if do == "drop":
            return {"do": "drop", "at": self.random.randrange(CONNECTIONS)}
        if do == "move":
            step = {"do": "move", "at": self.random.randrange(CONNECTIONS), "keep": self.chance(50)}
            if self.chance(15):
                step["wrong"] = self.one("ff" * 16, "", None, "00" * 16, "00")
            elif self.chance(10):
                step["ahead"] = True
            return step
        if do == "connect":
            return self.connect()
        if do == "raw":
            return self.raw()
        return {"do": "word", "word": self.one(*WORDS) if self.chance(90) else self.one("nope", "RUOK", "ruo", "reqs", "kill", "lead", "stmk")}


def with_quota(draw):
    """The nodes that make up a quota: nobody draws them all by chance."""
    at = draw.random.randrange(CONNECTIONS)
    path = draw.one("/a", "/a", "/b", "/a/b")
    limits = draw.one(*LIMITS[:6])
    parts = [path[: end if end > 0 else None] for end in [path.find("/", 1), len(path)] if end != -1]
    nodes = [(part, b"") for part in dict.fromkeys(parts)]
    nodes += [(f"/zookeeper/quota{part}", b"") for part in dict.fromkeys(parts)]
    nodes += [(f"/zookeeper/quota{path}/zookeeper_limits", limits), (f"/zookeeper/quota{path}/zookeeper_stats", draw.one("count=1,bytes=0", "count=0,bytes=0"))]
    for node, data in nodes:
        body = string(node) + string(data) + acls(OPEN) + i32(0)
        yield {"do": "ask", "at": at, "xid": draw.xid(at, CREATE2), "op": CREATE2, "body": body.hex()}


def sequence(seed, config, length=90):
    draw = Draw(seed, config)
    steps = list(with_quota(draw)) if draw.chance(config.quotas) else []
    return steps + [draw.step() for _ in range(length - len(steps))]


def describe_request(step):
    body = bytes.fromhex(step["body"])
    reader = jute.Reader(body)
    op = step["op"]
    what = ""
    try:
        if op in (MULTI, MULTI_READ):
            fields = reader.multi_request()
        elif op in jute.REQUESTS:
            fields = reader.fields(jute.REQUESTS[op])
        else:
            fields = []
        what = " ".join(f"{name}={text if len(text) < 80 else text[:77] + '...'}" for name, text in fields)
        if reader.left():
            what += f" and {reader.left()} bytes more"
    except Exception:  # bytes of any kind may be no such record
        what = f"(not decodable, {len(body)} bytes)"
    if "zxid" in step:
        what = f"(relative zxid: the last one{step['zxid']:+d}) " + what
    return f"xid={step['xid']} {jute.op_name(op)} {what}".rstrip()


def describe(step):
    do = step["do"]
    if do == "ask":
        return f"[{step['at']}] {describe_request(step)}"
    if do == "burst":
        return f"[{step['at']}] at once: " + "; ".join(map(describe_request, step["requests"]))
    rest = " ".join(f"{key}={value}" for key, value in step.items() if key not in ("do", "at"))
    return (f"[{step['at']}] " if "at" in step else "") + f"{do} {rest}"
