"""Servers on loopback for whoever measures or tests them from Python: one, or an ensemble of three.

A server is started from a configuration of its own in a folder of its own, and ended by its process id.

    Server(kind, folder, lines)      kind is `paddock` or `apache`; extra lines of zoo.cfg
    Ensemble(kind, folder, lines)    three of them; `leader()`, `kill`, `spawn`, `await_reply`

Apache's class path comes from lib.sh (Maven, cached). Environment: PADDOCK_BIN, PADDOCK_CACHE, APACHE_JVMFLAGS (none: the
JVM's defaults).
"""

import os
import random
import shlex
import socket
import struct
import subprocess
import sys
import time

LIB = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 120.0  # seconds that any server gets to start


def say(text):
    print(text, file=sys.stderr, flush=True)


def cache():
    return os.environ.get("PADDOCK_CACHE", os.path.expanduser("~/.cache/paddock"))


def paddock_bin():
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(cache(), "target"))
    return os.environ.get("PADDOCK_BIN", os.path.join(target, "release", "paddock"))


class Apache:
    """Where Apache's jars and its java are; asks conformance/lib once."""

    found = None

    @classmethod
    def command(cls, config):
        if cls.found is None:
            script = '. "$1/lib.sh" && . "$1/apache.sh" && apache_fetch >&2 && printf "%s\\n" "$APACHE_JAVA" && apache_classpath'
            out = subprocess.run(["bash", "-c", script, "servers", LIB], stdout=subprocess.PIPE, text=True, check=True).stdout
            cls.found = out.splitlines()
        java, class_path = cls.found
        flags = shlex.split(os.environ.get("APACHE_JVMFLAGS", ""))
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [java, *flags, "-Dzookeeper.log.level=WARN", "-cp", class_path, main, config]


# --- a client of a few lines, to see when a server serves ---


def receive(sock):
    length = b""
    while len(length) < 4:
        part = sock.recv(4 - len(length))
        if not part:
            raise ConnectionError("closed")
        length += part
    want, body = struct.unpack(">i", length)[0], b""
    while len(body) < want:
        part = sock.recv(want - len(body))
        if not part:
            raise ConnectionError("closed")
        body += part
    return body


def first_reply(port, path):
    """Connects, gets a session and the data of `path`; returns the error code of that."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect = struct.pack(">iqiqi16s?", 0, 0, 30000, 0, 16, b"", False)
        sock.sendall(struct.pack(">i", len(connect)) + connect)
        if struct.unpack(">i", receive(sock)[4:8])[0] <= 0:
            raise ConnectionError("no session")
        name = path.encode()
        get = struct.pack(">iii", 1, 4, len(name)) + name + b"\0"
        sock.sendall(struct.pack(">i", len(get)) + get)
        error = struct.unpack(">iqi", receive(sock)[:16])[2]
        close = struct.pack(">ii", 2, -11)
        sock.sendall(struct.pack(">i", len(close)) + close)
        receive(sock)
        return error


def write_acknowledged(port, patience):
    """A new session whose write is acknowledged; raises while that cannot be."""
    with socket.create_connection(("127.0.0.1", port), patience) as sock:
        sock.settimeout(patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect = struct.pack(">iqiqi16s?", 0, 0, 30000, 0, 16, b"", False)
        # SetData of / with any version, pipelined behind the connect request.
        name, data = b"/", b"x"
        write = struct.pack(">iii", 1, 5, len(name)) + name + struct.pack(">i", len(data)) + data + struct.pack(">i", -1)
        sock.sendall(struct.pack(">i", len(connect)) + connect)
        if struct.unpack(">i", receive(sock)[4:8])[0] <= 0:
            raise ConnectionError("no session")
        sock.sendall(struct.pack(">i", len(write)) + write)
        error = struct.unpack(">iqi", receive(sock)[:16])[2]
        if error != 0:
            raise ConnectionError(f"the write failed with error {error}")


# Below those that the system gives to outgoing connections: none is taken while its server is down.
PORTS = random.sample(range(12000, 21000), 1000)


def free_port():
    while True:
        port = PORTS.pop()
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Server:
    def __init__(self, kind, directory, lines=("tickTime=2000",)):
        self.kind, self.dir, self.process = kind, directory, None
        os.makedirs(os.path.join(directory, "data"))
        self.port = free_port()
        self.config = os.path.join(directory, "zoo.cfg")
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(
                f"dataDir={directory}/data\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
                "maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
            )
            out.writelines(f"{line}\n" for line in lines)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def start(self, path="/zookeeper"):
        """Seconds from starting the process to its first reply about `path`."""
        started = time.monotonic()
        self.spawn()
        return self.await_reply(path, started)

    def spawn(self):
        command = Apache.command(self.config) if self.kind == "apache" else [paddock_bin(), "server", self.config]
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def await_reply(self, path, started):
        while True:
            try:
                error = first_reply(self.port, path)
                elapsed = time.monotonic() - started
                if error != 0:
                    raise SystemExit(f"{self.kind}: reading {path} after the start failed with error {error}")
                return elapsed
            except OSError:
                pass
            if self.process.poll() is not None:
                self.tail()
                raise SystemExit(f"{self.kind} ended with status {self.process.returncode}")
            if time.monotonic() - started > PATIENCE:
                self.tail()
                raise SystemExit(f"{self.kind} did not serve within {PATIENCE:.0f} s")
            time.sleep(0.001)

    def tail(self):
        with open(os.path.join(self.dir, "log"), errors="replace") as log:
            say("".join(log.readlines()[-20:]))

    def memory(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) * 1024

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            say(f"  {self.kind} did not end within 60 s of SIGTERM: killed")
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self):
        """As the machine's end would be."""
        self.process.kill()
        self.process.wait()

    def srvr(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"srvr")
            answer = b""
            while part := sock.recv(4096):
                answer += part
        return answer.decode(errors="replace").splitlines()

    def version(self):
        return self.srvr()[0]

    def mode(self):
        """`leader`, `follower`, ...; None while it does not serve."""
        try:
            return next((line[6:] for line in self.srvr() if line.startswith("Mode: ")), None)
        except OSError:
            return None


class Ensemble:
    """Three servers on loopback that look like one to the load generator."""

    SIZE = 3

    def __init__(self, kind, directory, lines=("tickTime=2000",)):
        self.kind, self.dir = kind, directory
        numbers = range(1, self.SIZE + 1)
        members = [f"server.{number}=127.0.0.1:{free_port()}:{free_port()}" for number in numbers]
        lines = [*lines, "initLimit=20", "syncLimit=10", *members]
        self.members = []
        for number in numbers:
            folder = os.path.join(directory, str(number))
            self.members.append(Server(kind, folder, lines))
            with open(os.path.join(folder, "data", "myid"), "w", encoding="ascii") as out:
                out.write(f"{number}\n")

    @property
    def address(self):
        return ",".join(member.address for member in self.members)

    @property
    def pid(self):
        return ",".join(str(member.pid) for member in self.members)

    def start(self):
        """Seconds until every member has answered."""
        started = time.monotonic()
        for member in self.members:
            member.spawn()
        for member in self.members:
            member.await_reply("/zookeeper", started)
        return time.monotonic() - started

    def leader(self, without=None):
        """The member that leads; waits for one, and until the others (but `without`, which is down) follow."""
        members = [member for member in self.members if member is not without]
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            modes = [member.mode() for member in members]
            if modes.count("leader") == 1 and modes.count("follower") == len(members) - 1:
                return members[modes.index("leader")]
            time.sleep(0.05)
        self.tail()
        raise SystemExit(f"{self.kind}: no leader with followers within {PATIENCE:.0f} s")

    def tail(self):
        for member in self.members:
            member.tail()

    def stop(self):
        for member in self.members:
            member.stop()

    def version(self):
        return self.members[0].version()
