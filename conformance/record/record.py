"""Drives Apache ZooKeeper and its clients, and writes what they said as vector files. See `run`."""

import argparse
import collections
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

import jute
from sniff import Sniffer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TMP = pathlib.Path(os.environ["RECORD_TMP"])
SERVER = "Apache ZooKeeper 3.9.5"


def say(text):
    print(text, file=sys.stderr, flush=True)


class Vectors:
    """A vector file: sections of a title, named fields and hexadecimal bytes."""

    def __init__(self, heading):
        self.lines = [f"# {line}" for line in heading.strip().splitlines()]
        self.count = 0
        self.seen = collections.Counter()

    def add(self, kind, name, fields, data, limit_key=None, limit=1):
        if limit_key is not None:
            self.seen[limit_key] += 1
            if self.seen[limit_key] > limit:
                return
        self.count += 1
        self.lines += ["", f"{kind}: {name}"]
        self.lines += [f"  {field}: {text}" for field, text in fields]
        text = bytes(data).hex()
        self.lines += [f"  {text[at : at + 96]}" for at in range(0, len(text), 96)]

    def write(self, path):
        path.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        say(f"{path.name}: {self.count} vectors")


# ---------------------------------------------------------------------------------------------------- servers


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def four_letter(port, word):
    with socket.create_connection(("127.0.0.1", port), 2) as s:
        s.settimeout(5)
        s.sendall(word.encode())
        answer = b""
        while data := s.recv(65536):
            answer += data
    return answer.decode()


class Server:
    running = []

    def __init__(self, name, port, lines=(), myid=None):
        self.name, self.port, self.process = name, port, None
        self.dir = TMP / name
        self.data = self.dir / "data"
        self.data.mkdir(parents=True)
        if myid is not None:
            (self.data / "myid").write_text(str(myid))
        self.config = self.dir / "zoo.cfg"
        base = [f"dataDir={self.data}", "tickTime=1000", "admin.enableServer=false", "4lw.commands.whitelist=*"]
        self.config.write_text("\n".join([*base, *lines]) + "\n")

    def start(self, *flags):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(
                [os.environ["RECORD_JAVA"], "-Xmx256m", "-XX:TieredStopAtLevel=1", *flags,
                 "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        Server.running.append(self)
        return self

    def mode(self):
        try:
            for line in four_letter(self.port, "srvr").splitlines():
                if line.startswith("Mode: "):
                    return line[6:]
        except OSError:
            pass
        return None

    def wait(self, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if mode := self.mode():
                return mode
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"{self.name} does not serve; see {self.dir / 'log'}")

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.send(number)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self in Server.running:
            Server.running.remove(self)

    def files(self, prefix):
        return sorted((self.data / "version-2").glob(prefix + "*"), key=lambda p: int(p.suffix[1:], 16))


def java(*args, **options):
    return subprocess.Popen(
        [os.environ["RECORD_JAVA"], "-Xmx128m", "-XX:TieredStopAtLevel=1", "Recorded", *args],
        stdout=subprocess.PIPE, **options,
    )  # fmt: skip


def run_java(*args):
    process = java(*args)
    process.communicate(timeout=180)
    if process.returncode:
        raise SystemExit(f"the Java client failed: {args}")


# ---------------------------------------------------------------------------------------------------- clients


def run_kazoo(port):
    """What another client's frames look like."""
    from kazoo.client import KazooClient
    from kazoo.security import make_digest_acl

    zk = KazooClient(hosts=f"127.0.0.1:{port}", timeout=10, auth_data=[("digest", "user:secret")])
    zk.start()
    zk.create("/k", b"data", acl=[make_digest_acl("user", "secret", all=True)])
    zk.create("/k/c", b"", ephemeral=True, sequence=True, include_data=True)
    zk.create("/k/d", b"x", makepath=True)
    zk.set("/k", b"more")
    zk.get("/k", watch=lambda event: None)
    zk.exists("/k/none", watch=lambda event: None)
    zk.get_children("/k", watch=lambda event: None)
    zk.get_children("/k", include_data=True)
    zk.get_acls("/k")
    zk.set_acls("/k", [make_digest_acl("user", "secret", all=True)])
    zk.sync("/k")
    transaction = zk.transaction()
    transaction.check("/k", -1)
    transaction.create("/k/t", b"t", ephemeral=True)
    transaction.set_data("/k/t", b"u")
    transaction.delete("/k/t")
    transaction.commit()
    zk._connection._socket.shutdown(socket.SHUT_RDWR)
    time.sleep(3)
    zk.exists("/k")
    zk.stop()
    zk.close()


class Raw:
    """Frames made by hand: what no client sends, and what old ones sent."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)

    def send(self, payload):
        self.socket.sendall(struct.pack(">i", len(payload)) + payload)

    def receive(self):
        head = self.socket.recv(4, socket.MSG_WAITALL)
        return self.socket.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL) if head else None

    def connect(self, read_only=b""):
        self.send(struct.pack(">iqiqi", 0, 0, 10000, 0, 16) + bytes(16) + read_only)
        return self.receive()

    def ask(self, xid, op, body=b""):
        self.send(struct.pack(">ii", xid, op) + body)
        return self.receive()


def text(value):
    raw = value.encode()
    return struct.pack(">i", len(raw)) + raw


def run_raw(port):
    open_acl = struct.pack(">ii", 1, 31) + text("world") + text("anyone")
    old = Raw(port)
    old.connect()
    old.ask(-2, 11)
    old.ask(1, 1, text("/old") + text("x") + open_acl + struct.pack(">i", 0))
    old.ask(2, 1, text("/old")[:6])
    old.ask(3, 1, text("/old/") + text("x") + open_acl + struct.pack(">i", 0))
    old.ask(4, 1, text("/old/f") + text("x") + open_acl + struct.pack(">i", 99))
    old.ask(5, 103, struct.pack(">i", -1))
    old.ask(6, 9, struct.pack(">i", -1))
    old.ask(7, 17, text("/old") + struct.pack(">i", 3))
    old.ask(8, 106, text("/old") + struct.pack(">i", 9))
    old.ask(9, 102, text("token"))
    old.ask(10, 22, b"".join([
        struct.pack(">iBi", 4, 0, -1), text("/old"), b"\0",
        struct.pack(">iBi", 8, 0, -1), text("/none"), b"\0",
        struct.pack(">iBi", -1, 1, -1),
    ]))  # fmt: skip
    old.ask(11, 14, struct.pack(">iBi", 15, 0, -1) + text("/old/c2") + text("x") + open_acl
            + struct.pack(">i", 0) + struct.pack(">iBi", -1, 1, -1))  # fmt: skip
    old.ask(12, 14, struct.pack(">iBi", -1, 1, -1))
    old.ask(13, -11)
    for op, body in ((13, text("/old") + struct.pack(">i", -1)), (999, b"")):
        unknown = Raw(port)
        unknown.connect(b"\0")
        unknown.ask(1, op, body)
    reader = Raw(port)
    reader.connect(b"\1")
    reader.ask(1, -11)


# ---------------------------------------------------------------------------------------------------- client port


def client_frames(sniffer, origin, out, once=False):
    """Adds the frames of every client connection to the vector files in `out`."""

    def add(file, kind, name, fields, payload, key, limit=3):
        limit = 1 if once else limit
        out[file].add(kind, f"{name} ({origin})", fields, payload, (origin, file, kind) + key, limit)

    for to_server, to_client in sniffer.connections:
        if not to_server.data or to_server.data[:1].isalpha():
            continue  # a four-letter word
        operations = {}
        for number, (_, payload) in enumerate(jute.frames(to_server.data)):
            reader = jute.Reader(payload)
            if number == 0:
                fields = reader.fields("ConnectRequest")
                what = "new session" if dict(fields)["session_id"] == "0" else "session renewed"
                add("connect", "ConnectRequest", what, fields, payload, (what,), 2)
                continue
            fields = reader.fields("RequestHeader")
            xid, op = struct.unpack(">ii", payload[:8])
            operations[xid] = op
            file, name = "requests", jute.op_name(op)
            try:
                if op in (14, 22):
                    fields += reader.multi_request()
                    file = "multi"
                elif op in jute.REQUESTS:
                    fields += reader.fields(jute.REQUESTS[op])
                    name = f"{name} {jute.first_text(fields)}".strip()
                assert reader.left() == 0, (name, reader.left())
            except jute.Short:
                add("requests", "MalformedRequest", name, fields, payload, (op,))
                continue
            kind = "UnknownRequest" if op == 13 or op not in jute.OPS else "Request"
            add(file, kind, name, fields, payload, (op,), 1 if op == 11 else 6)
        for number, (_, payload) in enumerate(jute.frames(to_client.data)):
            reader = jute.Reader(payload)
            if number == 0:
                fields = reader.fields("ConnectResponse")
                what = "refused" if dict(fields)["timeout_ms"] == "0" else "accepted"
                add("connect", "ConnectResponse", what, fields, payload, (what, dict(fields)["read_only"]), 2)
                continue
            fields = reader.fields("ReplyHeader")
            xid, _, err = struct.unpack(">iqi", payload[:16])
            if xid == -1:
                fields += reader.fields("WatcherEvent")
                event = dict(fields)
                add("events", "WatcherEvent", f"type {event['event_type']}", fields, payload,
                    (event["event_type"], event["zxid"] == "-1"), 1)  # fmt: skip
                continue
            op = operations[xid]
            if op in (14, 22) and reader.left():
                fields += reader.multi_response()
                add("multi", "MultiResponse", jute.op_name(op), fields, payload, (op,), 5)
            elif reader.left():
                kind = jute.REPLIES[op]
                fields += reader.fields(kind)
                add("replies", kind, jute.op_name(op), fields, payload, (op, err), 3)
            else:
                name = f"{jute.op_name(op)}, {jute.error_name(err)}"
                add("replies", "ReplyHeader", name, fields, payload, (op, err), 1)
            assert reader.left() == 0, (jute.op_name(op), reader.left())


def record_client(out_dir):
    port = free_ports(1)[0]
    server = Server("standalone", port, [f"clientPort={port}", "clientPortAddress=127.0.0.1"])
    server.start("-Dzookeeper.extendedTypesEnabled=true", "-Dznode.container.checkIntervalMs=2000").wait()
    out = {
        name: Vectors(f"{title}\nRecorded by conformance/record between real clients and {SERVER}: bytes and values are theirs.")
        for name, title in {
            "connect": "The session handshake: the payloads of the first frames of both directions.",
            "requests": "Requests: RequestHeader and body.",
            "replies": "Replies: ReplyHeader and body.",
            "multi": "multi and multiRead: header and body of requests and replies.",
            "events": "Watch events: ReplyHeader and WatcherEvent.",
        }.items()
    }
    for origin, drive, once in (
        ("Java client 3.9.5", lambda: run_java("client", f"127.0.0.1:{port}"), False),
        ("kazoo 2.10.0", lambda: run_kazoo(port), True),
        ("by hand", lambda: run_raw(port), False),
    ):
        say(f"recording {origin}")
        with Sniffer([port]) as sniffer:
            drive()
        client_frames(sniffer, origin, out, once)
    for name, vectors in out.items():
        vectors.write(out_dir / f"{name}.txt")
    record_log(server, out_dir)


# ---------------------------------------------------------------------------------------------------- log and snapshot


def log_entries(path):
    """The entries of a log file: (offset, bytes with checksum, length and end mark; the entry itself)."""
    reader = jute.Reader(path.read_bytes())
    reader.take(16)
    while reader.left() > 12:
        at = reader.at
        checksum, size = reader.long(), reader.int()
        if checksum == 0 and size == 0:
            return
        entry = reader.take(size)
        assert reader.take(1) == b"B"
        yield at, reader.data[at : reader.at], entry


def add_log(server, vectors, limit, digest=True, bodiless=False):
    """`bodiless`: closeSession has no list of paths (closeSessionTxn.enabled=false)."""
    for path in server.files("log."):
        vectors.add("FileHeader", "of a log", jute.Reader(path.read_bytes()).fields("FileHeader"),
                    path.read_bytes()[:16], "header")  # fmt: skip
        for _, framed, entry in log_entries(path):
            op = struct.unpack_from(">i", entry, 28)[0]
            fields = jute.Reader(entry).entry(bodiless)
            if not digest:
                assert dict(fields).get("digest") == "None"
            if bodiless and digest and op != -11:
                continue
            name = f"{jute.op_name(op)} {jute.first_text(fields)}".strip()
            vectors.add("LoggedTxn", name, fields, entry, ("txn", op, digest, bodiless), limit)
            vectors.add("LogRecord", f"{name}, as in the file", [], framed, ("record", len(framed) > 150), 1)


def record_log(server, out_dir):
    say("recording the log")
    vectors = Vectors(
        f"Transactions as {SERVER} logs them: TxnHeader, body, TxnDigest.\n"
        "LogRecord is an entry with the checksum and length before it and the mark behind it."
    )
    server.stop()
    add_log(server, vectors, 2)
    snapshot = Vectors(f"Snapshot files of {SERVER}, whole.")
    server.start("-Dzookeeper.extendedTypesEnabled=true").wait()
    server.stop()
    latest = server.files("snapshot.")[-1]
    say(f"{latest.name}: {latest.stat().st_size} bytes")
    snapshot.add("Snapshot", "with digest and last zxid", [("file", latest.name)], latest.read_bytes())

    for name, digest in (("plain", False), ("bodiless", True)):
        port = free_ports(1)[0]
        other = Server(name, port, [f"clientPort={port}", "clientPortAddress=127.0.0.1"])
        flags = (
            f"-Dzookeeper.digest.enabled={str(digest).lower()}",
            "-Dzookeeper.closeSessionTxn.enabled=false",
            "-Dzookeeper.serializeLastProcessedZxid.enabled=false",
        )
        other.start(*flags).wait()
        raw = Raw(port)
        raw.connect(b"\0")
        open_acl = struct.pack(">ii", 1, 31) + text("world") + text("anyone")
        raw.ask(1, 1, text("/plain") + text("x") + open_acl + struct.pack(">i", 0))
        raw.ask(2, -11)
        other.stop()
        add_log(other, vectors, 1, digest, bodiless=True)
        other.start(*flags).wait()
        other.stop()
        latest = other.files("snapshot.")[-1]
        what = f"{'with' if digest else 'without'} digest, without last zxid"
        snapshot.add("Snapshot", what, [("file", latest.name)], latest.read_bytes())
    vectors.write(out_dir / "txn.txt")
    snapshot.write(out_dir / "snapshot.txt")


# ---------------------------------------------------------------------------------------------------- ensemble


def packets(data):
    """Splits a stream of quorum packets; behind SNAP a snapshot stands in the stream."""
    reader = jute.Reader(data)
    while reader.left():
        at = reader.at
        try:
            fields = reader.fields("QuorumPacket")
        except jute.Short:
            return
        yield fields, reader.data[at : reader.at]
        if fields[0][1] == "SNAP":
            signature = struct.pack(">i", 10) + b"BenWasHere"
            end = reader.data.find(signature, reader.at)
            if end < 0:
                return
            yield None, reader.data[reader.at : end]
            reader.at = end + len(signature)


def packet_body(kind, data, from_leader):
    """What a packet's data says, as fields."""
    if data is None:
        return []
    reader = jute.Reader(data)
    out = []
    if kind in ("FOLLOWERINFO", "OBSERVERINFO"):
        out = reader.fields("LearnerInfo")
    elif kind == "LEADERINFO":
        out = [("protocol_version", str(reader.int()))]
    elif kind == "ACKEPOCH":
        out = [("current_epoch", str(reader.int()))]
    elif kind in ("PROPOSAL", "INFORM"):
        out = reader.entry()
    elif kind in ("COMMITANDACTIVATE", "INFORMANDACTIVATE"):
        out = [("designated_leader", str(reader.long()))]
        if reader.left():
            out += reader.entry()
    elif kind == "REQUEST":
        out = [("session_id", str(reader.long())), ("cxid", str(reader.int()))]
        op = reader.int()
        out.append(("op", jute.op_name(op)))
        reader.take(reader.left())
    elif kind == "PING":
        while reader.left():
            out += [("session_id", str(reader.long())), ("timeout_ms", str(reader.int()))]
    elif kind == "REVALIDATE" and from_leader:
        out = [("session_id", str(reader.long())), ("valid", "true" if reader.take(1)[0] else "false")]
    elif kind == "REVALIDATE":
        out = [("session_id", str(reader.long())), ("timeout_ms", str(reader.int()))]
    elif kind == "NEWLEADER":
        reader.take(reader.left())
    assert reader.left() == 0, (kind, data)
    return out


def quorum_packets(sniffer, ports, vectors):
    for pair in sniffer.connections:
        if pair[0].target not in ports:
            continue
        for stream, from_leader in ((pair[0], False), (pair[1], True)):
            side = "leader to learner" if from_leader else "learner to leader"
            for fields, raw in packets(bytes(stream.data)):
                if fields is None:
                    vectors.add("SnapshotStream", "what follows SNAP", [], raw, "snapshot")
                    continue
                kind = fields[0][1]
                reader = jute.Reader(raw, 12)
                data = reader.buffer()
                # The hexadecimal says it already.
                shown = [field for field in fields if field[0] != "data" or field[1] == "None"]
                if data is not None:
                    shown += packet_body(kind, data, from_leader)
                detail = next((f" {v}" for f, v in shown if f == "op"), "")
                empty = data is not None and len(data) == 0
                vectors.add("QuorumPacket", f"{kind}{detail}, {side}", shown, raw,
                            (kind, detail, side, data is None, empty), 1)  # fmt: skip


STATES = {0: "Looking", 1: "Following", 2: "Leading", 3: "Observing"}


def election_messages(sniffer, ports, vectors):
    for pair in sniffer.connections:
        if pair[0].target not in ports or len(pair[0].data) < 20:
            continue
        reader = jute.Reader(pair[0].data)
        fields = [("protocol_version", str(reader.long())), ("server_id", str(reader.long()))]
        fields.append(("address", jute.quote(reader.string())))
        sid = fields[1][1]
        vectors.add("ElectionHello", f"from server {sid}", fields, pair[0].data[: reader.at], ("hello", sid))
        for data in (pair[0].data[reader.at :], pair[1].data):
            for _, payload in jute.frames(data):
                inner = jute.Reader(payload)
                state = inner.int()
                fields = [("state", STATES[state])]
                for name in ("leader", "zxid", "round", "peer_epoch"):
                    fields.append((name, str(inner.long())))
                fields.append(("version", str(inner.int())))
                config = inner.string()
                fields.append(("config", f"Some({jute.quote(config)})"))
                assert inner.left() == 0
                vectors.add("Notification", STATES[state], fields, payload, ("notification", state), 2)


def record_ensemble(out_dir):
    ports = free_ports(12)
    clients, quorums, elections = ports[:4], ports[4:8], ports[8:]
    members = []
    for i in range(4):
        role = "observer" if i == 3 else "participant"
        members.append(f"server.{i + 1}=127.0.0.1:{quorums[i]}:{elections[i]}:{role};127.0.0.1:{clients[i]}")
    base = ["initLimit=10", "syncLimit=5", "reconfigEnabled=true", "skipACL=yes", "standaloneEnabled=false", "clientPortAddress=127.0.0.1"]
    servers = []
    for i in range(4):
        lines = [*base, *members] + (["peerType=observer"] if i == 3 else [])
        lines.remove("clientPortAddress=127.0.0.1")
        servers.append(Server(f"member{i + 1}", clients[i], lines, i + 1))

    vectors = Vectors(
        f"The quorum port of an ensemble of {SERVER}: three participants and an observer.\n"
        "The fields of a packet's data follow its own; SnapshotStream is what stands behind SNAP."
    )
    election = Vectors(f"The election port of an ensemble of {SERVER}.")
    say("recording an ensemble")
    with Sniffer(quorums + elections) as sniffer:
        for server in servers:
            server.start("-Dzookeeper.skipACL=yes")
        modes = [server.wait() for server in servers]
        say(f"modes: {modes}")
        leader = servers[modes.index("leader")]
        followers = [s for s, mode in zip(servers, modes) if mode == "follower"]
        address = [f"127.0.0.1:{s.port}" for s in followers]
        run_java("ensemble", address[0], address[1])

        say("taking a server out and in again")
        out, rest = followers[0], [s for s in servers if s not in (followers[0],)]
        number = servers.index(out)
        run_java("reconfig", f"127.0.0.1:{rest[0].port}", str(number + 1), members[number])
        time.sleep(3)

        say("leaving a proposal that only the leader has")
        modes = [server.wait() for server in servers]
        leader = servers[modes.index("leader")]
        followers = [s for s, mode in zip(servers, modes) if mode == "follower"]
        writer = java("write", f"127.0.0.1:{leader.port}", "/lost", "unanswered", stdin=subprocess.PIPE)
        writer.stdout.readline()
        for server in followers:
            server.send(signal.SIGSTOP)
        writer.stdin.write(b"\n")
        writer.stdin.close()
        time.sleep(0.7)
        for server in followers:
            server.stop(signal.SIGKILL)
        leader.stop(signal.SIGKILL)
        writer.wait()
        for server in followers:
            server.start("-Dzookeeper.skipACL=yes")
        for server in followers:
            server.wait()
        leader.start("-Dzookeeper.skipACL=yes").wait()
        time.sleep(1)

        say("sending a snapshot")
        # Whoever leads next sends one: a learner that comes back then.
        for server in servers:
            server.stop()
        for server in servers[:3]:
            server.start("-Dzookeeper.skipACL=yes", "-Dzookeeper.forceSnapshotSync=true")
        for server in servers[:3]:
            server.wait()
        time.sleep(2)
    for server in servers:
        server.stop()
    quorum_packets(sniffer, quorums, vectors)
    election_messages(sniffer, elections, election)
    found = {line.split()[1].rstrip(",") for line in vectors.lines if line.startswith("QuorumPacket: ")}
    say(f"packet types not seen: {sorted(set(jute.PACKETS.values()) - found)}")
    vectors.write(out_dir / "quorum.txt")
    election.write(out_dir / "election.txt")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "crates/zk-proto/testdata")
    parser.add_argument("what", nargs="*", help="client, ensemble (both unless given)")
    options = parser.parse_args()
    if unknown := set(options.what) - {"client", "ensemble"}:
        parser.error(f"nothing to record is called {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        if not options.what or "client" in options.what:
            record_client(options.out)
        if not options.what or "ensemble" in options.what:
            record_ensemble(options.out)
    finally:
        for server in list(Server.running):
            server.stop(signal.SIGKILL)


if __name__ == "__main__":
    main()
