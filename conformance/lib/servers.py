"""Servers on loopback for whoever measures or tests them from Python: one, or an ensemble of three.

A server is started from a configuration of its own in a folder of its own, and ended by its process id.

    Server(kind, folder, lines)      kind is `paddock` or `apache`; extra lines of zoo.cfg
    Ensemble(kind, folder, lines)    three of them; `leader()`, `kill`, `spawn`, `await_reply`

A server's `release` is Apache's (3.9.5 unless said), `flags` are -D properties and options of the JVM. What both take from a
Server that runs: `words`, `metrics`, `zxid`, `suspend`, `resume`; of one that does not: `wipe`, `reconfigure`.

Apache's class path comes from lib.sh (Maven, cached; 3.8 from Debian's package). Environment: PADDOCK_BIN, PADDOCK_CACHE,
APACHE_JVMFLAGS (none: the JVM's defaults).
"""

import os
import random
import shlex
import shutil
import signal
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
    """Where a release's jars and its java are; asks conformance/lib once for each."""

    found: dict = {}

    @classmethod
    def command(cls, config, release=None, flags=(), level="WARN"):
        if release not in cls.found:
            script = '. "$1/lib.sh" && . "$1/apache.sh" && apache_fetch >&2 && printf "%s\\n" "$APACHE_JAVA" && apache_classpath'
            environment = {**os.environ, **({"APACHE_VERSION": release} if release else {})}
            out = subprocess.run(
                ["bash", "-c", script, "servers", LIB], stdout=subprocess.PIPE, text=True, check=True, env=environment
            ).stdout
            cls.found[release] = out.splitlines()
        java, class_path = cls.found[release]
        flags = [*shlex.split(os.environ.get("APACHE_JVMFLAGS", "")), *flags]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [java, *flags, f"-Dzookeeper.log.level={level}", "-cp", class_path, main, config]


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


def first_reply(port, path, host="127.0.0.1"):
    """Connects, gets a session and the data of `path`; returns the error code of that."""
    with socket.create_connection((host, port), 10) as sock:
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


def write_acknowledged(port, patience, host="127.0.0.1"):
    """A new session whose write is acknowledged; raises while that cannot be."""
    with socket.create_connection((host, port), patience) as sock:
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
    # Another address, and what then comes before its command, for one in a network namespace (network.py).
    # `everywhere`: clients come by other addresses of it too.
    host, before, everywhere = "127.0.0.1", (), False

    def __init__(self, kind, directory, lines=("tickTime=2000",), release=None, flags=(), level="WARN"):
        self.kind, self.dir, self.process = kind, directory, None
        self.release, self.flags, self.level = release, tuple(flags), level
        self.data = os.path.join(directory, "data")
        self.lines = tuple(lines)
        os.makedirs(self.data)
        self.port = free_port()
        self.config = os.path.join(directory, "zoo.cfg")
        self.configure()

    def configure(self):
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(
                f"dataDir={self.data}\nclientPort={self.port}\n{'' if self.everywhere else f'clientPortAddress={self.host}'}\n"
                "maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
            )
            out.writelines(f"{line}\n" for line in self.lines)

    def reconfigure(self, kind, data=None):
        """The next start is of this kind, and on this data folder if one is named. A new one has the server's id alone."""
        self.kind = kind
        if data is not None:
            os.makedirs(data, exist_ok=True)
            if data != self.data and os.path.exists(os.path.join(self.data, "myid")):
                shutil.copy(os.path.join(self.data, "myid"), data)
            self.data = data
        self.configure()

    def wipe(self):
        """As a new disk would be; the server's id stays."""
        for name in os.listdir(self.data):
            path = os.path.join(self.data, name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif name != "myid":
                os.remove(path)

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def start(self, path="/zookeeper"):
        """Seconds from starting the process to its first reply about `path`."""
        started = time.monotonic()
        self.spawn()
        return self.await_reply(path, started)

    def spawn(self):
        environment = dict(os.environ)
        if self.kind == "apache":
            command = Apache.command(self.config, self.release, self.flags, self.level)
        else:
            command = [paddock_bin(), "server", self.config]
            properties = [flag for flag in self.flags if flag.startswith("-D") and ".log.level" not in flag]
            if properties:
                environment["SERVER_JVMFLAGS"] = shlex.join(properties)
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen([*self.before, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def await_reply(self, path, started):
        while True:
            try:
                error = first_reply(self.port, path, self.host)
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

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def suspend(self):
        """Returns when each of its threads has stopped: on a busy machine that is not at once."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = f"/proc/{self.pid}/task"
        while True:
            states = []
            for task in os.listdir(tasks):
                try:
                    with open(f"{tasks}/{task}/stat", encoding="utf-8", errors="replace") as stat:
                        states.append(stat.read().rpartition(") ")[2][0])
                except FileNotFoundError:
                    pass  # a thread that has ended
            if all(state in "TtZX" for state in states):
                return
            time.sleep(0.001)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def words(self, word):
        """The answer to a four-letter word; OSError while there is none."""
        with socket.create_connection((self.host, self.port), 5) as sock:
            sock.sendall(word.encode())
            answer = b""
            while part := sock.recv(65536):
                answer += part
        return answer.decode(errors="replace")

    def srvr(self):
        return self.words("srvr").splitlines()

    def metrics(self):
        """What `mntr` says, by name without `zk_`."""
        lines = (line.split("\t", 1) for line in self.words("mntr").splitlines() if "\t" in line)
        return {name.removeprefix("zk_"): value for name, value in lines}

    def zxid(self):
        """The last transaction that it has applied; None while it does not serve."""
        try:
            return next((int(line[6:], 16) for line in self.srvr() if line.startswith("Zxid: ")), None)
        except OSError:
            return None

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
    LIMITS = ("initLimit=20", "syncLimit=10")

    def __init__(self, kind, directory, lines=("tickTime=2000",), limits=LIMITS):
        self.kind, self.dir = kind, directory
        numbers = range(1, self.SIZE + 1)
        members = [f"server.{number}=127.0.0.1:{free_port()}:{free_port()}" for number in numbers]
        lines = [*lines, *limits, *members]
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
