"""Plays a step against one server, and says what came of it in a form that two servers have in common.

    Side(server)             one server and the connections to it
    side.play(step)          begins; `side.outcome()` is what came of it: a list of (connection, what, bytes)

What must differ is masked: session ids and passwords by the order in which they were given, times by the transaction they belong
to. A time that contradicts an earlier one of the same transaction is not masked but marked. Zxids are compared as they are: both
servers began empty and were asked the same.
"""

import itertools
import re
import socket
import struct
import time

from steps import AUTH, CHILDREN, CHILDREN2, CLOSE, CONNECTIONS, EPHEMERALS, EXISTS, GET_ACL, MULTI_READ, SUPER, WHO_AM_I
from steps import i32, i64, string
import jute

PATIENCE = 8.0  # seconds for what must come
QUIET = 0.4  # seconds until a request without an answer is taken for one that gets none
TIMEOUT_MS = 40000
MARK = 0x7D000000  # xids of the questions that end a step
HEADER = struct.Struct(">iqi")
NOTIFICATION = -1
UNIMPLEMENTED, AUTH_FAILED, REQUIRES_AUTH = -6, -115, -124
SERVED = {*range(1, 10), 11, 12, *range(14, 20), 21, 22, *range(100, 108), CLOSE}  # operations that are answered and go on


class Closed(Exception):
    pass


class Gone(Exception):
    """The server takes no connections any more."""


class Connection:
    def __init__(self, port):
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise Gone from error
        self.buffer = bytearray()
        self.open = True

    def send(self, data):
        try:
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(data)
        except OSError:
            pass  # what it had to say before it closed is still to be read

    def frame(self, patience):
        """The next one; None when none comes in time."""
        end = time.monotonic() + patience
        while True:
            if len(self.buffer) >= 4:
                length = struct.unpack_from(">i", self.buffer)[0]
                if length < 0:
                    raise Closed
                if len(self.buffer) >= 4 + length:
                    frame = bytes(self.buffer[4 : 4 + length])
                    del self.buffer[: 4 + length]
                    return frame
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(1 << 18)
            except TimeoutError:
                return None
            except OSError:
                part = b""
            if not part:
                self.close()
                raise Closed
            self.buffer += part

    def rest(self, patience):
        """All until the server closes; and whether it did."""
        end = time.monotonic() + patience
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(1 << 18)
            except TimeoutError:
                break
            except OSError:
                part = b""
            if not part:
                self.close()
                return bytes(self.buffer), True
            self.buffer += part
        return bytes(self.buffer), False

    def close(self):
        self.open = False
        self.socket.close()


class Session:
    def __init__(self, number, identity, password):
        self.number, self.identity, self.password = number, identity, password


def connect_request(step, session=0, password=bytes(16), seen=0):
    body = i32(step.get("protocol", 0)) + i64(seen) + i32(step.get("timeout", TIMEOUT_MS)) + i64(session)
    body += string(password)
    if "password_length" in step:
        body = body[:24] + i32(step["password_length"]) + body[28:]
    body += bytes.fromhex(step.get("last", "00"))
    body = body[: step.get("cut", len(body))]
    return i32(len(body)) + body


class Side:
    def __init__(self, server, config):
        self.server, self.config = server, config
        self.connections = [None] * (CONNECTIONS + 1)  # the last one is the operator's
        self.sessions = [None] * (CONNECTIONS + 1)
        self.given = []  # every session of this server, in order
        self.times = {}
        self.last = 0  # the last zxid heard of
        self.marks = 0
        self.ops = {}
        self.told = []
        self.gone = False
        self.error = 0  # of the last reply
        self.requests = 0
        now = int(time.time() * 1000)
        self.window = (now - 60_000, now + 86_400_000)
        first = {struct.pack(">q", at)[:4] for at in self.window}
        self.pattern = re.compile(b"(?=(" + b"|".join(map(re.escape, first)) + b")....)", re.DOTALL)
        self.alter = None  # for the suite's own proof: changes what this server said

    # --- masks ---

    def mask(self, frame):
        """With sessions and times replaced; the frame is a reply or an event."""
        for session in self.given:
            name = i64(session.identity)
            if name in frame:
                frame = frame.replace(name, b"SESSION" + bytes([session.number & 0xFF]))
        return self.mask_times(frame)

    def mask_times(self, frame):
        at, out = 0, []
        for match in self.pattern.finditer(frame):
            where = match.start()
            if where < at or where + 16 > len(frame) or where < 16:
                continue
            czxid, mzxid, ctime, mtime = struct.unpack_from(">qqqq", frame, where - 16)
            if not all(self.window[0] < value < self.window[1] for value in (ctime, mtime)):
                # The root is as old as the server's folder: it has a time only once it was written to.
                continue
            good = self.times.setdefault(czxid, ctime) == ctime and self.times.setdefault(mzxid, mtime) == mtime
            out += [frame[at:where], b"<times of the>" if good else b"<OTHER times>"]
            at = where + 16
        # A node from before all transactions, written to since: its ctime is 0.
        frame = b"".join([*out, frame[at:]])
        out, at = [], 0
        for match in self.pattern.finditer(frame):
            where = match.start()
            if where < at or where + 8 > len(frame) or where < 24:
                continue
            value = struct.unpack_from(">q", frame, where)[0]
            mzxid, ctime = struct.unpack_from(">qq", frame, where - 16)
            if self.window[0] < value < self.window[1] and ctime == 0:
                good = self.times.setdefault(mzxid, value) == value
                out += [frame[at:where], b"<mtime>>" if good else b"<OTHER>>"]
                at = where + 8
        return b"".join([*out, frame[at:]])

    def tell(self, at, what, data=b""):
        self.told.append((at, what, data))

    def heard(self, at, frame):
        """A frame came in: notes it, and returns its xid."""
        if len(frame) < HEADER.size:
            self.tell(at, "frame", frame)
            return None
        xid, zxid, error = HEADER.unpack_from(frame)
        self.last = max(self.last, zxid)
        if xid == NOTIFICATION and len(frame) > 16 and self.ops.get((at, xid)) is None:
            self.tell(at, "event", self.mask(frame))
            return xid
        op = self.ops.get((at, xid))
        self.error = error
        body = frame[16:]
        if error == 0 and body:
            body = in_order(op, body)
        masked = self.mask(frame[:16] + body)
        self.tell(at, "mark" if xid >= MARK else "reply", masked)
        return xid

    # --- connections ---

    def connect(self, at, session=None):
        """A whole connect request: a new session, or one that comes back."""
        step = {}
        connection = Connection(self.server.port)
        if session is None:
            connection.send(connect_request(step))
        else:
            connection.send(connect_request(step, session.identity, session.password, self.last))
        return self.connected(at, connection, session)

    def connected(self, at, connection, session=None, keep=True):
        """Reads what the server says to a connect request; returns the session if there is one."""
        try:
            frame = connection.frame(PATIENCE)
        except Closed:
            self.tell(at, "closed instead of a connect response")
            return None
        if frame is None:
            connection.close()
            self.tell(at, "no answer to the connect request")
            return None
        if len(frame) < 36:
            self.tell(at, "connect response", frame)
            return None
        protocol, timeout, identity = struct.unpack_from(">iiq", frame)
        password, rest = frame[20:36], frame[36:]
        length = frame[16:20]
        if timeout <= 0:
            self.tell(at, "refused", frame)
            _, closed = connection.rest(PATIENCE)
            connection.close()
            self.tell(at, "closed" if closed else "left open")
            return None
        if session is None:
            session = Session(len(self.given), identity, password)
            self.given.append(session)
        same = "same" if (session.identity, session.password) == (identity, password) else "OTHER"
        self.tell(at, f"session {session.number} ({same} id and password)", struct.pack(">ii", protocol, timeout) + length + rest)
        if keep:
            self.connections[at] = connection
            self.sessions[at] = session
        return session

    def ensure(self, at):
        """A connection to ask on; a session that was lost comes back, one that ended is followed by a new one."""
        connection = self.connections[at]
        if connection is not None and connection.open:
            return connection
        if self.sessions[at] is not None and self.connect(at, self.sessions[at]):
            return self.connections[at]
        self.sessions[at] = None
        if self.connect(at) is None:
            return None
        if self.config.forces_auth:
            self.ask(at, -4, 100, i32(0) + string("digest") + string("u1:p1"))
            self.until(at, -4)
        return self.connections[at]

    def ask(self, at, xid, op, body):
        self.ops[at, xid] = op
        self.requests += 1
        self.connections[at].send(i32(8 + len(body)) + i32(xid) + i32(op) + body)

    def until(self, at, xid, patience=PATIENCE):
        """Reads until the reply to `xid`; False when it does not come."""
        connection = self.connections[at]
        end = time.monotonic() + patience
        try:
            while connection.open:
                frame = connection.frame(max(0.0, end - time.monotonic()))
                if frame is None:
                    return False
                if self.alter:
                    frame = self.alter(frame, self)
                    if frame is None:
                        continue
                if self.heard(at, frame) == xid:
                    return True
        except Closed:
            self.tell(at, "closed")
        return False

    # --- steps: `begin` sends, `finish` reads; both servers work at the same time ---

    def begin(self, step):
        self.told = []
        self.ops = {}
        at = step.get("at")
        do = step["do"]
        if do in ("ask", "burst"):
            if self.ensure(at) is None:
                return
            for request in step.get("requests", [step]):
                self.ask(at, request["xid"], request["op"], self.body(request))

    def body(self, request):
        body = bytes.fromhex(request["body"])
        if "zxid" in request and len(body) >= 8:
            body = i64(self.last + request["zxid"]) + body[8:]
        return body

    def finish(self, step):
        at = step.get("at")
        getattr(self, "do_" + step["do"])(at, step)

    def do_ask(self, at, step):
        connection = self.connections[at]
        if connection is None:
            return
        xid = -2 if step["op"] == 11 else step["xid"]
        if connection.open:
            got = self.until(at, xid, QUIET)
            # What it says before it closes; it does so some time after the reply.
            if got and (step["op"] == CLOSE or self.error in (AUTH_FAILED, REQUIRES_AUTH) or self.error == UNIMPLEMENTED and step["op"] not in SERVED):
                self.until(at, None, PATIENCE)
        if step["op"] == CLOSE and not connection.open:
            self.sessions[at] = None

    def do_burst(self, at, step):
        connection = self.connections[at]
        if connection is None:
            return
        for request in step["requests"]:
            if connection.open:
                self.until(at, -2 if request["op"] == 11 else request["xid"], QUIET)

    def do_drop(self, at, step):
        connection = self.connections[at]
        if connection is not None and connection.open:
            connection.close()

    def do_move(self, at, step):
        old, session = self.connections[at], self.sessions[at]
        if session is None:
            return
        if old is not None and old.open and not step["keep"]:
            old.close()
        password = session.password
        if "wrong" in step:
            password = None if step["wrong"] is None else bytes.fromhex(step["wrong"])
        connection = Connection(self.server.port)
        seen = self.last + (1000 if "ahead" in step else 0)
        connection.send(connect_request({}, session.identity, password, seen))
        if old is not None and old.open:
            self.connections[at] = None
        got = self.connected(at, connection, session)
        if old is not None and old.open:
            # An answer means that the server has dealt with the old one. Without one the old one may go on.
            if got:
                _, closed = old.rest(PATIENCE)
                self.tell(at, "the old connection is " + ("closed" if closed else "left open"))
                old.close()
            else:
                self.connections[at] = old

    def do_connect(self, at, step):
        connection = Connection(self.server.port)
        seen = {"ahead": self.last + 1000, "now": self.last}.get(step["seen"], step["seen"])
        password = None if step["password"] is None else bytes.fromhex(step["password"])
        connection.send(connect_request(step, step["session"], password, seen))
        session = self.connected(None, connection, keep=False)
        if session is None:
            connection.close()
            return
        self.connections.append(connection)
        place = len(self.connections) - 1
        self.ask(place, 1, CLOSE, b"")
        self.until(place, 1)
        _, closed = connection.rest(PATIENCE)
        self.tell(None, "closed" if closed else "left open")
        connection.close()
        self.connections.pop()

    def do_raw(self, at, step):
        connection = Connection(self.server.port)
        session = None
        if step["session"]:
            connection.send(connect_request({}))
            session = self.connected(None, connection, keep=False)
            if session is None:
                return
        connection.send(bytes.fromhex(step["bytes"]))
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        # A reply may be lost with a connection whose other half is closed: only the end is compared, and the state afterwards.
        _, closed = connection.rest(PATIENCE)
        self.tell(None, "closed" if closed else "left open")
        connection.close()
        if session is not None:
            self.end_session(None, session)

    def do_word(self, at, step):
        connection = Connection(self.server.port)
        connection.send(step["word"].encode())
        if len(step["word"]) < 4:
            connection.socket.shutdown(socket.SHUT_WR)
        # A word that is none is the length of a frame, which is too long or does not come.
        answer, closed = connection.rest(PATIENCE)
        connection.close()
        answer = answer.decode(errors="replace")
        self.tell(None, "answer" if closed else "answer, left open", in_words(step["word"], answer, self).encode())

    def unless_gone(self, phase, step):
        """A part of a step; a server that takes no connection any more ends the sequence."""
        if self.gone:
            return
        try:
            getattr(self, phase)(step)
            self.gone = phase == "collect" and not self.server.is_running
        except Gone:
            self.gone = True
        if self.gone:
            self.tell(None, "the server is gone")

    def marks_after(self, step):
        """A question on every connection: what came before its answer was caused by the step, on whichever connection."""
        self.marks += CONNECTIONS
        for at in range(CONNECTIONS):
            connection = self.connections[at]
            if connection is not None and connection.open:
                self.ask(at, MARK + self.marks + at, EXISTS, string("/") + b"\0")
                self.requests -= 1

    def collect(self, step):
        for at in range(CONNECTIONS):
            connection = self.connections[at]
            if connection is not None and connection.open and not self.until(at, MARK + self.marks + at) and connection.open:
                self.tell(at, "silent")
                connection.close()

    # --- the end of a sequence ---

    def end_session(self, at, session):
        """Closes a session whose connection may be gone."""
        self.connections.append(None)
        place = len(self.connections) - 1
        kept = self.sessions
        self.sessions = [None] * (place + 1)
        if self.connect(place, session):
            self.ask(place, 1, CLOSE, b"")
            self.until(place, 1)
            self.connections[place].rest(PATIENCE)
            self.connections[place].close()
        self.sessions = kept
        self.connections.pop()

    def end(self, step):
        """Ends every session of the sequence: an expiry would come at another time on each server."""
        self.told, self.ops = [], {}
        for at in range(CONNECTIONS):
            session, connection = self.sessions[at], self.connections[at]
            if connection is not None and connection.open:
                connection.close()
            if session is not None:
                self.end_session(at, session)
            self.sessions[at] = self.connections[at] = None

    def operate(self, op, body):
        """A request of the operator's: the super user where there is one. Returns the reply as it came."""
        at = CONNECTIONS
        if self.connections[at] is None or not self.connections[at].open:
            self.sessions[at] = None
            self.connect(at)
            if self.config.super_user:
                self.ask(at, -4, AUTH, i32(0) + string("digest") + string(":".join(SUPER)))
                self.until(at, -4)
        self.ask(at, 1, op, body)
        self.requests -= 1
        try:
            while (frame := self.connections[at].frame(PATIENCE)) is not None:
                if struct.unpack_from(">i", frame)[0] == 1:
                    self.last = max(self.last, HEADER.unpack_from(frame)[1])
                    return frame
        except Closed:
            pass
        return HEADER.pack(1, 0, -4)

    def outcome(self):
        # Between connections there is no order: one may be read before another.
        return calm(sorted(self.told, key=lambda entry: -1 if entry[0] is None else entry[0]))

    def close_all(self):
        for connection in self.connections:
            if connection is not None and connection.open:
                connection.close()


def calm(told):
    """Events of one transaction and one connection in one order: which of a session's ephemerals goes first is up to a hash
    table in Java."""
    out, at = [], 0
    while at < len(told):
        end = at
        while end < len(told) and told[end][1] == "event" and told[end][0] == told[at][0] and told[end][2][:16] == told[at][2][:16]:
            end += 1
        if end > at and told[at][2][4:12] != bytes(8) and told[at][2][4:5] != b"\xff":
            out += sorted(told[at:end], key=lambda entry: entry[2])
            at = end
        else:
            # Events that setWatches catches up with come in the order in which it names them.
            out += told[at : max(end, at + 1)]
            at = max(end, at + 1)
    return out


# --- lists that Java gives in the order of a hash table ---


class Records(jute.Reader):
    """Strings as they stand, with their lengths."""

    def string(self):
        begin = self.at
        self.buffer()
        return self.data[begin : self.at]

    def strings(self):
        count = self.int()
        return i32(count) + b"".join(sorted(self.string() for _ in range(count)))

    def acl(self):
        """Whoever a client has shown itself to be stands for `auth` in an ACL: entries with the same permissions, one after the other."""
        count = self.int()
        entries = [(self.take(4), self.string() + self.string()) for _ in range(count)]
        groups = (sorted(group) for _, group in itertools.groupby(entries, key=lambda entry: entry[0]))
        return i32(count) + b"".join(perms + identity for group in groups for perms, identity in group)

    def rest(self):
        return self.data[self.at :]


def in_order(op, body):
    try:
        records = Records(body)
        if op in (CHILDREN, CHILDREN2, EPHEMERALS):
            return records.strings() + records.rest()
        if op == GET_ACL:
            return records.acl() + records.rest()
        if op == WHO_AM_I:
            count = records.int()
            return i32(count) + b"".join(sorted(records.string() + records.string() for _ in range(count))) + records.rest()
        if op == MULTI_READ:
            out = []
            while True:
                header = records.take(9)
                out.append(header)
                kind, done = struct.unpack_from(">i?", header)
                if done:
                    return b"".join(out) + records.rest()
                if kind == -1:
                    out.append(records.take(4))
                elif kind == 4:
                    out += [records.string(), records.take(68)]
                elif kind == 8:
                    out.append(records.strings())
                else:
                    return body
    except jute.Short:
        pass
    return body


# --- four-letter words: the shape and what does not depend on the machine ---

METRICS = """version server_state num_alive_connections outstanding_requests znode_count watch_count ephemerals_count global_sessions
local_sessions approximate_data_size""".split()


def in_words(word, answer, side):
    lines = answer.split("\n")
    if "not executed because" in answer or word in ("ruok", "isro", "crst", "srst", "gtmk", "wchs"):
        return answer
    for session in side.given:
        lines = [line.replace(f"0x{session.identity:x}", f"SESSION{session.number}") for line in lines]
    if word in ("srvr", "stat"):
        keep = []
        for line in lines:
            if line.startswith(" /"):
                keep.append(re.sub(r"queued=\d+,recved=\d+,sent=\d+", "queued=,recved=,sent=", re.sub(r":\d+\[\d+\]", ":port[]", line)))
            elif re.match(r"(Zookeeper version|Latency min/avg/max|Received|Sent|Connections):", line):
                keep.append(re.sub(r"[\d.]+", "N", line) if not line.startswith("Zookeeper") else line[:20])
            else:
                keep.append(line)
        return "\n".join(sorted(keep) if word == "stat" else keep)
    if word == "cons":
        fixed = []
        for line in lines:
            line = re.sub(r":\d+\[\d+\]", ":port[]", line)
            line = re.sub(r"(queued|recved|sent|est|llat|minlat|avglat|maxlat|lresp|lop|lcxid|lzxid|to)=[^,)]*", r"\1=", line)
            fixed.append(line)
        return "\n".join(sorted(set(fixed)))
    if word in ("wchc", "wchp"):
        groups, group = [], []
        for line in lines:
            if not line.startswith("\t") and group:
                groups.append(group)
                group = []
            group.append(line)
        groups.append(group)
        return "\n".join("\n".join([group[0], *sorted(group[1:])]) for group in sorted(groups))
    if word == "mntr":
        values = dict(line.split("\t", 1) for line in lines if "\t" in line)
        shown = {name: values.get("zk_" + name, "missing") for name in METRICS}
        shown["version"] = shown["version"][:5]
        shown["num_alive_connections"] = "N" if shown["num_alive_connections"].isdigit() else "?"
        return "\n".join(f"{name} {value}" for name, value in shown.items())
    if word in ("conf", "envi", "dirs"):
        values = []
        for line in lines:
            name, equals, value = line.partition("=")
            if word == "conf" and name not in ("clientPort", "dataDir", "dataDirSize", "dataLogDir", "dataLogSize"):
                values.append(line)
            elif word == "dirs":
                values.append(re.sub(r"\d+", "N", line))
            else:
                values.append(name + equals)
        return "\n".join(values)
    if word == "dump":
        # Buckets of expiry are each server's own; sessions and their ephemerals are not. Java goes on to list, and to count,
        # sessions whose ephemerals are all deleted.
        cut = answer.find("Connections dump:")
        body = answer[answer.find("ephemeral nodes dump:") : cut if cut >= 0 else len(answer)]
        for session in side.given:
            body = body.replace(f"0x{session.identity:x}", f"SESSION{session.number}")
        body = re.sub(r"\(\d+\):", "(N):", body)
        with_paths = []
        for line in body.split("\n"):
            if line.startswith("SESSION"):
                owner = line
            elif line.startswith("\t"):
                with_paths.append(owner + line)
            else:
                with_paths.append(line)
        return "\n".join(sorted(with_paths)) + ("\nConnections dump:" if cut >= 0 else "")
    if word == "hash":
        # The digest has the times in it.
        return "\n".join(re.sub(r": ?-?\d+", ": N", line) for line in lines)
    return answer
