"""A client of ZooKeeper's protocol that shows what libraries hide: the zxid of every reply, error codes, watch events as they
come, and sessions that go from one chosen server to another.

    Client(port)       one connection and its session; `call` waits for a reply, `send` does not
    Session(ports)     a session that outlives its connections
"""

import collections
import random
import select
import socket
import struct
import threading
import time

CREATE, DELETE, EXISTS, GET, SET, GET_ACL, SET_ACL, CHILDREN, SYNC, PING = 1, 2, 3, 4, 5, 6, 7, 8, 9, 11
CHILDREN2, CHECK, MULTI, CREATE2, CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL = 12, 13, 14, 15, 19, 20, 21
AUTH, SET_WATCHES, CLOSE = 100, 101, -11
EPHEMERAL, SEQUENCE, EPHEMERAL_SEQUENCE, CONTAINER, TTL, TTL_SEQUENCE = 1, 2, 3, 4, 5, 6

OK, NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = 0, -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, SESSION_EXPIRED, INVALID_ACL, SESSION_MOVED, UNIMPLEMENTED = -110, -111, -112, -114, -118, -6
RUNTIME_INCONSISTENCY, BAD_ARGUMENTS = -2, -8

CREATED, DELETED, CHANGED, CHILD = 1, 2, 3, 4  # events

OPEN = ((31, "world", "anyone"),)
NO_PASSWORD = bytes(16)

Stat = collections.namedtuple(
    "Stat", "czxid mzxid ctime mtime version cversion aversion owner length children pzxid"
)
STAT = struct.Struct(">qqqqiiiqiiq")


class Lost(ConnectionError):
    """The connection is gone; whether the request took effect is not known."""


class Expired(Exception):
    """The server says that there is no such session."""


class Refused(Exception):
    """A reply with an error where none was expected."""

    def __init__(self, error, what):
        super().__init__(f"{what} failed with error {error}")
        self.error = error


# --- records ---


def text(value):
    data = value.encode()
    return struct.pack(">i", len(data)) + data


def buffer(data):
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def acl_list(acl):
    return struct.pack(">i", len(acl)) + b"".join(struct.pack(">i", perms) + text(scheme) + text(who) for perms, scheme, who in acl)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value if len(value) > 1 else value[0]

    def int(self):
        return self.take(">i")

    def long(self):
        return self.take(">q")

    def buffer(self):
        length = self.int()
        if length < 0:
            return None
        self.at += length
        return bytes(self.data[self.at - length : self.at])

    def text(self):
        return (self.buffer() or b"").decode()

    def stat(self):
        stat = Stat(*STAT.unpack_from(self.data, self.at))
        self.at += STAT.size
        return stat

    def texts(self):
        return [self.text() for _ in range(max(0, self.int()))]

    def acl(self):
        return tuple((self.int(), self.text(), self.text()) for _ in range(max(0, self.int())))


# --- requests: (operation, body) ---


def create(path, data=b"", flags=0, acl=OPEN, ttl=None):
    body = text(path) + buffer(data) + acl_list(acl) + struct.pack(">i", flags)
    if ttl is not None:
        return CREATE_TTL, body + struct.pack(">q", ttl)
    return (CREATE_CONTAINER if flags == CONTAINER else CREATE2), body


def delete(path, version=-1):
    return DELETE, text(path) + struct.pack(">i", version)


def set_data(path, data, version=-1):
    return SET, text(path) + buffer(data) + struct.pack(">i", version)


def check(path, version):
    return CHECK, text(path) + struct.pack(">i", version)


def exists(path, watch=False):
    return EXISTS, text(path) + struct.pack(">?", watch)


def get(path, watch=False):
    return GET, text(path) + struct.pack(">?", watch)


def children(path, watch=False):
    return CHILDREN2, text(path) + struct.pack(">?", watch)


def get_acl(path):
    return GET_ACL, text(path)


def set_acl(path, acl, version=-1):
    return SET_ACL, text(path) + acl_list(acl) + struct.pack(">i", version)


def sync(path="/"):
    return SYNC, text(path)


# Servers before 3.8.2 do not know a create2 within a multi (ZOOKEEPER-4026).
CREATE_IN_MULTI = CREATE2


def multi(*requests):
    def part(op, body):
        return struct.pack(">i?i", CREATE_IN_MULTI if op == CREATE2 else op, False, -1) + body

    parts = b"".join(part(*request) for request in requests)
    return MULTI, parts + struct.pack(">i?i", -1, True, -1)


class Reply:
    def __init__(self, op, zxid, error, body):
        self.op, self.zxid, self.error, self.body = op, zxid, error, body

    def ok(self):
        if self.error != OK:
            raise Refused(self.error, f"operation {self.op}")
        return self

    def created(self):
        """The path and the Stat of a create2."""
        reader = Reader(self.ok().body)
        return reader.text(), reader.stat()

    def stat(self):
        return Reader(self.ok().body).stat()

    def data(self):
        reader = Reader(self.ok().body)
        return reader.buffer(), reader.stat()

    def children(self):
        return Reader(self.ok().body).texts()

    def acl(self):
        return Reader(self.ok().body).acl()

    def results(self):
        """Of a multi: the error of each part, 0 where it has none."""
        reader, errors = Reader(self.body), []
        while True:
            op, done, error = reader.take(">i?i")
            if done:
                return errors
            if op == -1:
                error = reader.int()
            elif op == CREATE:
                reader.text()
            elif op in (CREATE2, CREATE_CONTAINER, CREATE_TTL):
                reader.text()
                reader.stat()
            elif op == SET:
                reader.stat()
            errors.append(error if op == -1 else 0)


class Pending:
    def __init__(self, xid, op):
        self.xid, self.op, self.reply, self.done = xid, op, None, threading.Event()

    def wait(self, patience=30.0):
        if not self.done.wait(patience):
            raise Lost(f"no reply to operation {self.op} within {patience:.0f} s")
        if self.reply is None:
            raise Lost(f"the connection was lost before the reply to operation {self.op}")
        return self.reply


class Client:
    """A connection with a session: a new one, or the one whose id and password are given."""

    def __init__(self, port, timeout_ms=20000, session=0, password=NO_PASSWORD, last_zxid=0, patience=10.0, pings=True, xid=0):
        self.port, self.last_zxid, self.pings = port, last_zxid, pings
        self.events, self.changed = [], threading.Condition()
        # Goes on from the session's last connection: servers know requests of a session apart by it.
        self.pending, self.lock, self.xid = collections.deque(), threading.Lock(), xid
        self.sock = socket.create_connection(("127.0.0.1", port), patience)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connect = struct.pack(">iqiqi", 0, last_zxid, timeout_ms, session, len(password)) + password + b"\0"
            self.sock.sendall(struct.pack(">i", len(connect)) + connect)
            self.received = b""
            frame = None
            end = time.monotonic() + patience
            while frame is None:
                self.sock.settimeout(max(0.01, end - time.monotonic()))
                self.read()
                frame = self.frame()
        except OSError as error:
            self.sock.close()
            raise Lost(f"no session at port {port}: {error}") from None
        reader = Reader(frame)
        _, self.timeout_ms, self.session, self.password = reader.int(), reader.int(), reader.long(), reader.buffer()
        if self.timeout_ms <= 0:
            self.sock.close()
            raise Expired(f"port {port} does not know session 0x{session:x}")
        self.sock.settimeout(30)
        self.sent_at = time.monotonic()
        self.open = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    # Receiving: one thread, which also sends pings.

    def read(self):
        data = self.sock.recv(1 << 18)
        if not data:
            raise Lost("the server closed the connection")
        self.received += data

    def frame(self):
        if len(self.received) < 4:
            return None
        length = struct.unpack_from(">i", self.received)[0]
        if len(self.received) < 4 + length:
            return None
        frame, self.received = self.received[4 : 4 + length], self.received[4 + length :]
        return frame

    def frames(self):
        """All whole ones, without copying what is behind them again and again."""
        at, data = 0, self.received
        while len(data) - at >= 4:
            length = struct.unpack_from(">i", data, at)[0]
            if len(data) - at < 4 + length:
                break
            yield data[at + 4 : at + 4 + length]
            at += 4 + length
        self.received = data[at:]

    def run(self):
        period = self.timeout_ms / 3000
        heard = time.monotonic()
        try:
            while self.open:
                readable, _, _ = select.select([self.sock], [], [], min(0.2, period / 2))
                now = time.monotonic()
                if readable:
                    self.read()
                    heard = now
                    for frame in self.frames():
                        self.on_frame(frame)
                elif now - heard > max(2.5 * period, 2.0) and self.pings:
                    raise Lost("the server is silent")
                if self.pings and now - self.sent_at > period:
                    with self.lock:
                        self.write(-2, PING, b"")
        except (OSError, ValueError):
            pass
        self.end()

    def on_frame(self, frame):
        xid, zxid, error = struct.unpack_from(">iqi", frame)
        if xid == -2:
            return
        if xid == -1:
            reader = Reader(frame[16:])
            kind, _, path = reader.int(), reader.int(), reader.text()
            with self.changed:
                self.events.append((kind, path))
                self.changed.notify_all()
            return
        if zxid > 0:
            self.last_zxid = zxid
        with self.lock:
            if not self.pending:
                return
            pending = self.pending.popleft()
        if pending.xid != xid:
            raise Lost(f"a reply to xid {xid}, where {pending.xid} was next")
        pending.reply = Reply(pending.op, zxid, error, frame[16:])
        pending.done.set()

    def end(self):
        self.open = False
        with self.lock:
            left, self.pending = self.pending, collections.deque()
        for pending in left:
            pending.done.set()
        with self.changed:
            self.changed.notify_all()
        self.sock.close()

    # Sending.

    def write(self, xid, op, body):
        self.sent_at = time.monotonic()
        self.sock.sendall(struct.pack(">iii", 8 + len(body), xid, op) + body)

    def send(self, request, xid=None):
        op, body = request
        with self.lock:
            if not self.open:
                raise Lost("not connected")
            if xid is None:
                self.xid += 1
                xid = self.xid
            pending = Pending(xid, op)
            self.pending.append(pending)
            try:
                self.write(xid, op, body)
            except OSError as error:
                self.pending.pop()
                raise Lost(str(error)) from None
        return pending

    def call(self, request, patience=30.0):
        return self.send(request).wait(patience)

    def all(self, requests, window=400):
        """The replies to many, so many of them at a time on their way."""
        waiting, replies = collections.deque(), []
        for request in requests:
            if len(waiting) >= window:
                replies.append(waiting.popleft().wait())
            waiting.append(self.send(request))
        replies.extend(pending.wait() for pending in waiting)
        return replies

    def add_auth(self, scheme, credentials):
        self.send((AUTH, struct.pack(">i", 0) + text(scheme) + buffer(credentials)), xid=-4).wait().ok()

    def set_watches(self, zxid, data=(), missing=(), child=()):
        body = struct.pack(">q", zxid)
        for paths in (data, missing, child):
            body += struct.pack(">i", len(paths)) + b"".join(text(path) for path in paths)
        return self.send((SET_WATCHES, body), xid=-8)

    def await_event(self, event, patience=30.0):
        """Takes the event (kind, path) out of those that came."""
        end = time.monotonic() + patience
        with self.changed:
            while event not in self.events:
                left = end - time.monotonic()
                if left <= 0 or not self.open:
                    raise Lost(f"no event {event} within {patience:.0f} s; there were {self.events}")
                self.changed.wait(left)
            self.events.remove(event)

    def close(self):
        """Ends the session."""
        try:
            self.call((CLOSE, b""), 15)
        except Lost:
            pass
        self.drop()

    def drop(self):
        """Ends the connection alone."""
        self.open = False
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(5)
        self.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Session:
    """A session that goes to another of the ports when its connection is lost."""

    def __init__(self, ports, timeout_ms=20000, seed=0):
        self.ports, self.timeout_ms = list(ports), timeout_ms
        self.random = random.Random(seed)
        self.client, self.id, self.password, self.last_zxid, self.xid = None, 0, NO_PASSWORD, 0, 0
        self.moves = 0

    def connected(self, patience=60.0, ports=None):
        """The client; connects again if need be, so long as the session lives."""
        if self.client is not None and self.client.open:
            return self.client
        if self.client is not None:
            self.last_zxid = max(self.last_zxid, self.client.last_zxid)
            self.xid = self.client.xid
        end = time.monotonic() + patience
        ports = list(ports or self.ports)
        self.random.shuffle(ports)
        while True:
            for port in ports:
                try:
                    self.client = Client(port, self.timeout_ms, self.id, self.password, self.last_zxid, 3.0, xid=self.xid)
                except OSError as error:
                    why = error
                    continue
                self.moves += 1
                self.id, self.password = self.client.session, self.client.password
                return self.client
            if time.monotonic() > end:
                raise Lost(f"no server takes the session within {patience:.0f} s: {why}")
            time.sleep(0.02)

    def go_to(self, port, patience=60.0):
        if self.client is not None and self.client.open:
            self.client.drop()
        return self.connected(patience, [port])

    def close(self):
        self.connected().close()
