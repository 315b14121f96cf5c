#!/usr/bin/env python3
"""The commands that `paddock cli` has and Apache's shell does not, from outside: lock, elect, watch, tree, find, cp, mirror,
export and import, against servers that are killed, fall silent or expire the session while they work.

    own.py --server paddock|apache --results FILE [--quick] [--only CASE]...

Every case has servers and files of its own. PADDOCK_CLI_BIN names another binary for the shell than for the server.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cases  # noqa: E402
from servers import Ensemble, Server, free_port, paddock_bin, receive  # noqa: E402

# A server of Java takes its time to come back on a busy machine: some sessions have to outlast that.
LINES = ("tickTime=500", "minSessionTimeout=1000", "maxSessionTimeout=120000", "snapCount=100000")
CASES = {}
LONG = 60.0


def case(name, quick=True):
    def add(function):
        CASES[name] = (function, quick)
        return function

    return add


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def equal(got, want, what=""):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def until(condition, what, seconds=30.0):
    return cases.until(what, condition, seconds, every=0.02, again=())


class World:
    """A case's folder, servers and processes."""

    def __init__(self, kind):
        self.kind = kind
        self.dir = tempfile.mkdtemp(prefix="paddock-own.")
        self.servers, self.processes = [], []

    def server(self, start=True):
        folder = os.path.join(self.dir, f"server{len(self.servers)}")
        one = Server(self.kind, folder, LINES)
        self.servers.append(one)
        if start:
            one.start()
        return one

    def ensemble(self):
        three = Ensemble(self.kind, os.path.join(self.dir, "ensemble"), LINES)
        self.servers += three.members
        three.start()
        return three

    def file(self, name, text=None):
        path = os.path.join(self.dir, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
        return path

    def command(self, server, words, timeout_ms=None):
        address = server if isinstance(server, str) else server.address
        timeout = [] if timeout_ms is None else ["-timeout", str(timeout_ms)]
        return [os.environ.get("PADDOCK_CLI_BIN") or paddock_bin(), "cli", "-server", address, *timeout, *words]

    def start(self, server, *words, timeout_ms=None, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen(self.command(server, words, timeout_ms), text=True, **options)
        self.processes.append(process)
        return process

    def run(self, server, *words, want=0, timeout_ms=None, stdin=None):
        done = subprocess.run(
            self.command(server, words, timeout_ms),
            capture_output=True,
            text=True,
            timeout=LONG,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
        )
        check(want is None or done.returncode == want, f"{words}: exit {done.returncode}, not {want}: {done.stderr.strip()}")
        return done

    def lines(self, server, *words, **options):
        return self.run(server, *words, **options).stdout.splitlines()

    def objects(self, server, *words, **options):
        return [json.loads(line) for line in self.lines(server, *words, **options)]

    def children(self, server, path):
        found = self.objects(server, "ls", path, "--json")
        return found[0]["children"]

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
        for server in self.servers:
            if server.is_running:
                server.kill()
        if os.environ.get("CONF_KEEP"):
            print(f"kept {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


class Lines:
    """What a process prints, line by line, without losing any."""

    def __init__(self, process):
        self.got = []
        self.thread = threading.Thread(target=self.read, args=(process.stdout,), daemon=True)
        self.thread.start()

    def read(self, stream):
        with contextlib.suppress(ValueError):
            for line in stream:
                self.got.append(line.rstrip("\n"))

    def await_count(self, count, seconds=30.0):
        until(lambda: len(self.got) >= count, f"{count} lines, have {self.got}", seconds)
        return self.got


def finish(process, want, seconds=LONG):
    out, err = process.communicate(timeout=seconds)
    check(process.returncode == want, f"exit {process.returncode}, not {want}: {out.strip()} {err.strip()}")
    return out, err


def read_text(path):
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as text:
        return text.read()
    return ""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


# --- lock ---


@case("lock: runs a command, which knows the lock, and passes its exit code on")
def _(world):
    server = world.server()
    done = world.run(
        server,
        *("lock", "/deep/down/lock", "--", "sh", "-c"),
        'echo "$PADDOCK_FENCING_TOKEN $PADDOCK_LOCK_PATH $PADDOCK_LOCK_NODE"; exit 7',
        want=7,
    )
    token, path, node = done.stdout.split()
    equal(path, "/deep/down/lock", "the path")
    pattern = r"/deep/down/lock/_c_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-lock-\d{10}"
    check(re.fullmatch(pattern, node), f"not a name of Curator's: {node}")
    check(int(token) > 0, "the token is a zxid")
    equal(world.children(server, path), [], "what is left")
    again = world.run(server, "lock", path, "--", "sh", "-c", "echo $PADDOCK_FENCING_TOKEN")
    check(int(again.stdout) > int(token), "a later holder has a greater token")
    done = world.run(server, "lock", path, "--layout", "kazoo", "--", "sh", "-c", "echo $PADDOCK_LOCK_NODE")
    check(re.fullmatch(r"/deep/down/lock/[0-9a-f]{32}__lock__\d{10}", done.stdout.strip()), done.stdout)


@case("lock: exit codes")
def _(world):
    server = world.server()
    nobody = f"127.0.0.1:{free_port()}"
    world.run(server, "lock", want=2)
    world.run(server, "lock", "no-slash", "--", "true", want=2)
    world.run(server, "lock", "/l", "--often", want=2)
    world.run(server, "lock", "/l", "--layout", "zkpython", "--", "true", want=2)
    world.run(nobody, "lock", "/l", "--", "true", want=3)
    world.run(server, "lock", "/l", "--", world.file("no such command"), want=127)
    world.run(server, "lock", "/l", "--", world.file("text", "no program"), want=126)
    world.run(server, "lock", "/l", "--", "sh", "-c", "kill -USR1 $$", want=128 + signal.SIGUSR1)
    holder = world.start(server, "lock", "/l", "--data", "the holder")
    node = Lines(holder).await_count(1)[0]
    done = world.run(server, "lock", "/l", "--timeout", "0", "--", "true", want=124)
    check(node in done.stderr and "the holder" in done.stderr, done.stderr)
    started = time.monotonic()
    done = world.run(server, "lock", "/l", "--timeout", "1", "--json", "--", "true", want=124)
    check(1 <= time.monotonic() - started < 5, "the timeout")
    check(node in json.loads(done.stderr)["error"], done.stderr)
    equal(len(world.children(server, "/l")), 1, "who gave up leaves the queue")


@case("lock: a signal ends the waiting and the holding, and reaches the command")
def _(world):
    server = world.server()
    holder = world.start(server, "lock", "/l")
    Lines(holder).await_count(1)
    waiter = world.start(server, "lock", "/l", "--", "true")
    until(lambda: len(world.children(server, "/l")) == 2, "two in the queue")
    waiter.terminate()
    finish(waiter, 128 + signal.SIGTERM)
    equal(len(world.children(server, "/l")), 1, "the waiter has left")
    holder.send_signal(signal.SIGINT)
    holder.wait(LONG)
    equal(holder.returncode, 128 + signal.SIGINT)
    equal(world.children(server, "/l"), [], "all have left")
    script = 'trap "echo caught; exit 3" TERM; echo ready; while :; do sleep 0.05; done'
    running = world.start(server, "lock", "/l", "--", "sh", "-c", script)
    printed = Lines(running)
    printed.await_count(1)
    running.terminate()
    equal(running.wait(LONG), 3, "the command's exit code")
    equal(printed.await_count(2), ["ready", "caught"])
    equal(world.children(server, "/l"), [], "released")


# Says when it is in and when it is out; who finds another inside leaves word of that.
CRITICAL = """
dir=$1
mkdir "$dir/inside" || { echo "$PADDOCK_FENCING_TOKEN found somebody inside" >> "$dir/violations"; exit 9; }
count=$(cat "$dir/count"); sleep 0.02; echo $((count + 1)) > "$dir/count"
echo "$PADDOCK_FENCING_TOKEN" >> "$dir/tokens"
rmdir "$dir/inside"
"""


def contend(world, server, contenders, rounds, disturb):
    folder = world.file("shared")
    os.mkdir(folder)
    world.file("shared/count", "0\n")
    script = world.file("critical.sh", CRITICAL)

    def work(results):
        for _ in range(rounds):
            # A server that is away when the session is opened is no failure of the lock.
            done = world.run(
                server, "-waitforconnection", "lock", "/l", "--", "sh", script, folder, want=None, timeout_ms=60000
            )
            results.append(done)

    results = [[] for _ in range(contenders)]
    threads = [threading.Thread(target=work, args=(results[number],)) for number in range(contenders)]
    for thread in threads:
        thread.start()
    disturb(lambda: len(read_text(f"{folder}/tokens").split()))
    for thread in threads:
        thread.join()
    all_done = [done for one in results for done in one]
    failed = [f"exit {done.returncode}: {done.stderr.strip()}" for done in all_done if done.returncode != 0]
    equal(read_text(f"{folder}/violations"), "", "two were inside at once")
    equal(failed, [], "what failed")
    tokens = [int(token) for token in read_text(f"{folder}/tokens").split()]
    equal(int(read_text(f"{folder}/count")), contenders * rounds, "the count that only the lock protects")
    check(tokens == sorted(set(tokens)), f"the tokens do not grow: {tokens}")


@case("lock: contenders are never inside together")
def _(world):
    contend(world, world.server(), 8, 6, lambda entered: None)


@case("lock: contenders are never inside together, over two deaths of the server")
def _(world):
    server = world.server()

    def disturb(entered):
        for after in (5, 20):
            until(lambda: entered() >= after, f"{after} have been inside", LONG)
            server.kill()
            time.sleep(0.3)
            server.start()

    contend(world, server, 8, 6, disturb)


@case("lock: contenders are never inside together, over the deaths of an ensemble's leaders", quick=False)
def _(world):
    ensemble = world.ensemble()

    def disturb(entered):
        for after in (5, 20):
            until(lambda: entered() >= after, f"{after} have been inside", LONG)
            leader = until(lambda: next((one for one in ensemble.members if one.mode() == "leader"), None), "a leader")
            leader.kill()
            time.sleep(1)
            leader.start()

    contend(world, ensemble, 8, 6, disturb)


# Ignores TERM; the times tell when it came and when KILL did.
STUBBORN = """
trap 'date +%s.%N >> "$1.term"' TERM
echo $$ > "$1.pid"
while :; do date +%s.%N > "$1.new" && mv "$1.new" "$1.last"; sleep 0.05; done
"""


@case("lock: a server that dies for good ends the command before the session can")
def _(world):
    server = world.server()
    script, name = world.file("stubborn.sh", STUBBORN), world.file("s")
    holder = world.start(server, "lock", "/l", "--", "sh", script, name, timeout_ms=4000)
    until(lambda: read_text(f"{name}.pid"), "it runs")
    time.sleep(1.0)
    server.kill()
    died = time.time()
    _, err = finish(holder, 125, 20)
    check("half of the session timeout" in err, err)
    term, last = float(read_text(f"{name}.term").split()[0]), float(read_text(f"{name}.last"))
    # At the latest: TERM at half of 4 s after the last answer, KILL at three quarters.
    check(0.5 < term - died < 2.3, f"TERM after {term - died:.2f} s")
    check(term < last < died + 3.3, f"still running {last - died:.2f} s after the death")
    check(not is_alive(int(read_text(f"{name}.pid"))), "it is gone")


@case("lock: a server that is back in time ends nothing")
def _(world):
    server = world.server()
    holder = world.start(server, "lock", "/l", "--", "sh", "-c", "echo in; sleep 4; echo out", timeout_ms=60000)
    printed = Lines(holder)
    printed.await_count(1)
    server.kill()
    time.sleep(0.5)
    server.start()
    equal(holder.wait(LONG), 0, "exit")
    equal(printed.await_count(2), ["in", "out"])
    equal(world.children(server, "/l"), [], "released")


@case("lock: who slept over its session gives way, and its command is ended")
def _(world):
    server = world.server()
    script, name = world.file("stubborn.sh", STUBBORN), world.file("s")
    holder = world.start(server, "lock", "/l", "--", "sh", script, name, timeout_ms=2000)
    until(lambda: read_text(f"{name}.pid"), "it runs")
    token = json.loads(world.run(server, "stat", f"/l/{world.children(server, '/l')[0]}", "--json").stdout)["stat"]["czxid"]
    holder.send_signal(signal.SIGSTOP)
    second = world.run(server, "lock", "/l", "--timeout", "20", "--", "sh", "-c", "echo $PADDOCK_FENCING_TOKEN")
    check(int(second.stdout) > token, f"the token tells the late from the new: {token}, {second.stdout}")
    holder.send_signal(signal.SIGCONT)
    _, err = finish(holder, 125, 20)
    check("lost: " in err, err)
    check(not is_alive(int(read_text(f"{name}.pid"))), "its command is gone")


@case("lock: a lock whose znode an operator deletes is lost")
def _(world):
    server = world.server()
    holder = world.start(server, "lock", "/l", "--", "sh", "-c", "echo $$; exec sleep 600")
    pid = int(Lines(holder).await_count(1)[0])
    world.run(server, "delete", f"/l/{world.children(server, '/l')[0]}")
    equal(holder.wait(20), 125)
    check(not is_alive(pid), "the command is gone")
    holder = world.start(server, "lock", "/l")
    Lines(holder).await_count(1)
    waiter = world.start(server, "lock", "/l", "--", "true")
    until(lambda: len(world.children(server, "/l")) == 2, "two in the queue")
    last = max(world.children(server, "/l"), key=lambda child: child[-10:])
    world.run(server, "delete", f"/l/{last}")
    holder.terminate()
    _, err = finish(waiter, 125)
    check(last in err, err)


@case("lock: a command does not outlive the process that holds its lock")
def _(world):
    server = world.server()
    holder = world.start(server, "lock", "/l", "--", "sh", "-c", "echo $$; exec sleep 600", timeout_ms=2000)
    pid = int(Lines(holder).await_count(1)[0])
    holder.kill()
    until(lambda: not is_alive(pid), "the command ends with it", 5)
    world.run(server, "lock", "/l", "--timeout", "20", "--", "true")


class CutProxy:
    """Passes a connection on, but cuts it instead of passing on the answer to the first create."""

    def __init__(self, server):
        self.server, self.cuts = server, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client):
        upstream = socket.create_connection(("127.0.0.1", self.server.port))
        creates = set()

        def pump(source, target, look):
            with contextlib.suppress(OSError):
                while True:
                    body = receive(source)
                    if look(body):
                        self.cuts += 1
                        break
                    target.sendall(struct.pack(">i", len(body)) + body)
            for sock in (source, target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        def request(body):
            if len(body) >= 8 and struct.unpack(">i", body[4:8])[0] in (1, 15) and b"-lock-" in body:
                creates.add(body[:4])
            return False

        threading.Thread(target=pump, args=(client, upstream, request), daemon=True).start()
        # What has no znode made yet (an error) is no answer to lose.
        pump(upstream, client, lambda body: self.cuts == 0 and body[:4] in creates and body[12:16] == b"\0\0\0\0")

    def close(self):
        self.listener.close()


@case("lock: a create whose answer is lost is found again")
def _(world):
    server = world.server()
    proxy = CutProxy(server)
    holder = world.start(f"127.0.0.1:{proxy.port}", "lock", "/l", "--json")
    held = json.loads(Lines(holder).await_count(1)[0])
    equal(proxy.cuts, 1, "answers lost")
    equal([f"/l/{child}" for child in world.children(server, "/l")], [held["node"]], "the queue")
    stat = json.loads(world.run(server, "stat", held["node"], "--json").stdout)["stat"]
    equal(held["token"], stat["czxid"], "the token")
    holder.terminate()
    holder.wait(LONG)
    equal(world.children(server, "/l"), [], "released")
    proxy.close()


@case("lock: contenders of a client that would not see ours are not raced")
def _(world):
    server = world.server()
    world.run(server, "create", "/l")
    name = "/l/0123456789abcdef0123456789abcdef__lock__"
    world.run(server, "create", "-s", name, "a kazoo client")
    done = world.run(server, "lock", "/l", "--timeout", "0", "--", "true", want=1)
    check("--layout kazoo" in done.stderr, done.stderr)
    done = world.run(server, "lock", "/l", "--timeout", "0", "--layout", "kazoo", "--", "true", want=124)
    check("a kazoo client" in done.stderr, done.stderr)
    world.run(server, "delete", f"{name}0000000000")
    world.run(server, "lock", "/l", "--timeout", "0", "--layout", "kazoo", "--", "true")


@case("lock: in the shell it leaves no znode behind in a session that goes on")
def _(world):
    server = world.server()
    done = world.run(server, stdin="lock /l -- echo held\nls /l\ntree /l\nlock\nquit\n", want=None)
    check("held" in done.stdout and "[]" in done.stdout and "\n1 znodes, 0 B" in done.stdout, done.stdout)
    check("Usage: lock PATH" in done.stderr, done.stderr)


# --- elect ---


@case("elect: the next takes over when the leader dies, and observers see it")
def _(world):
    server = world.server()
    observer = world.start(server, "elect", "/e", "--observe", "--json", "--count", "4")
    seen = Lines(observer)
    seen.await_count(1)
    first = world.start(server, "elect", "/e", "one", timeout_ms=2000)
    line = Lines(first).await_count(1)[0]
    check(re.fullmatch(r"leader one /e/_c_[0-9a-f-]{36}-latch-\d{10}", line), line)
    second = world.start(server, "elect", "/e", "two", "--json")
    heard = Lines(second)
    until(lambda: len(world.children(server, "/e")) == 2, "two in the queue")
    equal(heard.got, [], "the second is not leader yet")
    first.kill()
    leader = json.loads(heard.await_count(1)[0])
    equal((leader["election"], leader["leader"]), ("/e", "two"))
    second.terminate()
    equal(second.wait(LONG), 128 + signal.SIGTERM)
    equal(observer.wait(LONG), 0, "the observer ends after its four lines")
    leaders = [json.loads(line) for line in seen.await_count(4)]
    equal([one["leader"] for one in leaders], [None, "one", "two", None])
    check(leaders[1]["token"] < leaders[2]["token"], "tokens grow")


@case("elect: never two leaders, over the death of the server and of leaders")
def _(world):
    server = world.server()
    folder = world.file("shared")
    os.mkdir(folder)
    # Leads for ever; whoever finds a leader's process alive says so.
    script = world.file(
        "lead.sh",
        'other=$(cat "$1/pid" 2>/dev/null)\n'
        '[ -z "$other" ] || ! kill -0 "$other" 2>/dev/null || echo "$other leads still" >> "$1/violations"\n'
        'echo $$ > "$1/pid"; echo "$PADDOCK_FENCING_TOKEN" >> "$1/tokens"\nexec sleep 600\n',
    )
    led = lambda: len(read_text(f"{folder}/tokens").split())  # noqa: E731
    start = lambda: world.start(server, "elect", "/e", "--", "sh", script, folder, timeout_ms=3000)  # noqa: E731
    candidates = [start() for _ in range(4)]
    until(lambda: led() == 1, "a leader")
    for round_ in range(3):
        leader = next(one for one in candidates if str(one.pid) == world_parent(folder))
        if round_ == 1:
            # Nobody's session is lost: the leader stays.
            server.kill()
            server.start()
            time.sleep(1)
            equal(led(), round_ + 1, "leaders after a short absence of the server")
        leader.kill()
        candidates.remove(leader)
        until(lambda: led() == round_ + 2, "the next leader", 20)
    equal(read_text(f"{folder}/violations"), "", "two led")
    tokens = [int(token) for token in read_text(f"{folder}/tokens").split()]
    check(tokens == sorted(set(tokens)), f"the tokens do not grow: {tokens}")


def world_parent(folder):
    pid = until(lambda: read_text(f"{folder}/pid").strip(), "a leader's pid")
    return until(lambda: re.search(r"^PPid:\t(\d+)", read_text(f"/proc/{pid}/status"), re.M), "its parent")[1]


# --- watch ---


def watching(world, server, *words, **options):
    errors = world.file(f"watch{len(world.processes)}.err")
    process = world.start(server, "watch", *words, stderr=open(errors, "w", encoding="utf-8"), **options)
    return process, Lines(process), errors


@case("watch: a stream of JSON, with data, up to a count")
def _(world):
    server = world.server()
    world.run(server, "create", "/a")
    # Without its notice, which JSON leaves out, only the watch itself says that it is set.
    process, got, _ = watching(world, server, "/a", "--recursive", "--json", "--data", "--count", "5")
    until(lambda: int(server.metrics().get("watch_count", 0)) > 0, "the watch is set")
    world.run(server, "create", "/a/b", "grün")
    world.run(server, "set", "-b", "/a/b", base64.b64encode(b"\xff\0").decode())
    world.run(server, "create", "/ab")
    world.run(server, "create", "/a/b/c", "x")
    world.run(server, "delete", "/a/b/c")
    world.run(server, "set", "/a", "root")
    equal(process.wait(LONG), 0)
    events = [json.loads(line) for line in got.await_count(5)]
    brief = [(one["type"], one["path"], one.get("data"), one.get("encoding")) for one in events]
    want = [
        ("NodeCreated", "/a/b", "grün", "utf8"),
        ("NodeDataChanged", "/a/b", "/wA=", "base64"),
        ("NodeCreated", "/a/b/c", "x", "utf8"),
        ("NodeDeleted", "/a/b/c", None, None),
        ("NodeDataChanged", "/a", "root", "utf8"),
    ]
    # The data are those of now: what is gone by the time it is read has none.
    brief[2] = (*brief[2][:2], "x", "utf8")
    equal(brief, want, "events")
    zxids = [one["zxid"] for one in events]
    check(zxids == sorted(zxids) and zxids[0] > 0, f"zxids {zxids}")


@case("watch: one znode, its line, --exec, --timeout, and a reader that goes away")
def _(world):
    server = world.server()
    process, got, errors = watching(
        world, server, "/w", "--data", "--count", "3", "--exec", 'echo "ran $PADDOCK_EVENT_TYPE $(cat)"'
    )
    until(lambda: "watching /w" in read_text(errors), "the watch is set")
    world.run(server, "create", "/w", "1")
    got.await_count(2)
    world.run(server, "create", "/w/below")
    got.await_count(4)
    world.run(server, "set", "/w", "2")
    equal(process.wait(LONG), 0)
    plain = [re.sub(r"zxid=0x[0-9a-f]+", "zxid", line) for line in got.await_count(6)]
    equal(
        plain,
        [
            *("NodeCreated /w zxid data=1", "ran NodeCreated 1"),
            *("NodeChildrenChanged /w zxid", "ran NodeChildrenChanged "),
            *("NodeDataChanged /w zxid data=2", "ran NodeDataChanged 2"),
        ],
    )
    world.run(server, "watch", "/w", "--timeout", "0.5", want=124)
    process = world.start(server, "watch", "/w", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.readline()
    process.stdout.close()
    world.run(server, "set", "/w", "3")
    equal(process.wait(20), 128 + signal.SIGPIPE, "nobody reads")
    process.stdout = None


@case("watch: goes on over the server's restart and says so")
def _(world):
    server = world.server()
    process, got, errors = watching(world, server, "/w", "-r", "--json", "--count", "2", timeout_ms=60000)
    until(lambda: int(server.metrics().get("watch_count", 0)) > 0, "the watch is set")
    world.run(server, "create", "/w", "1")
    got.await_count(1)
    server.kill()
    got.await_count(2)
    server.start()
    got.await_count(3)
    until(lambda: int(server.metrics().get("watch_count", 0)) > 0, "the watch is set again")
    world.run(server, "create", "/w/x")
    equal(process.wait(LONG), 0)
    types = [json.loads(line)["type"] for line in got.await_count(4)]
    equal(types, ["NodeCreated", "Disconnected", "Reconnected", "NodeCreated"])


@case("watch: an expired session is replaced by another")
def _(world):
    server = world.server()
    process, got, errors = watching(world, server, "/w", "--count", "1", timeout_ms=1500)
    until(lambda: "watching /w" in read_text(errors), "the watch is set")
    process.send_signal(signal.SIGSTOP)
    until(lambda: int(server.metrics()["num_alive_connections"]) <= 1, "the session is expired")
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    until(lambda: read_text(errors).count("watching /w") == 2, "a new watch")
    check("the session expired; opening a new one" in read_text(errors), read_text(errors))
    world.run(server, "create", "/w")
    equal(process.wait(LONG), 0)
    check(got.await_count(1)[0].startswith("NodeCreated /w zxid=0x"), got.got)


# --- tree, find ---


def small_tree(world, server):
    world.run(server, "create", "/t", "root")
    world.run(server, "create", "/t/b", "x" * 2000)
    world.run(server, "create", "/t/a")
    world.run(server, "create", "/t/a/one", "1")
    world.run(server, "create", "/t/a/two", "22")
    world.run(server, "create", "/t/a-b", "beside")


@case("tree: draws what there is")
def _(world):
    server = world.server()
    small_tree(world, server)
    holder = world.start(server, "lock", "/t/lock", "--data", "me")
    node = Lines(holder).await_count(1)[0].rsplit("/", 1)[1]
    lines = world.run(server, "tree", "/t").stdout.splitlines()
    owner = json.loads(world.run(server, "stat", f"/t/lock/{node}", "--json").stdout)["stat"]["ephemeralOwner"]
    want = [
        "/t  4 B",
        "├── a  0 B",
        "│   ├── one  1 B",
        "│   └── two  2 B",
        "├── a-b  6 B",
        "├── b  1.9 KiB",
        "└── lock  0 B",
        f"    └── {node}  2 B  [ephemeral 0x{owner:x}]",
        "",
        "8 znodes, 1.9 KiB",
    ]
    equal(lines, want)
    shallow = world.lines(server, "tree", "/t", "--depth", "1")
    equal(shallow[1], "├── a  0 B  … 2 children")
    equal(len(shallow), 7)
    rows = world.objects(server, "tree", "/t", "--json")
    equal([row["path"] for row in rows][:4], ["/t", "/t/a", "/t/a/one", "/t/a/two"])
    equal(rows[-1]["owner"], f"0x{owner:x}")
    done = world.run(server, "tree", "/missing", want=1)
    check("/missing" in done.stderr, done.stderr)


@case("find: every test")
def _(world):
    server = world.server()
    small_tree(world, server)
    holder = world.start(server, "lock", "/t/lock")
    node = Lines(holder).await_count(1)[0]
    owner = json.loads(world.run(server, "stat", node, "--json").stdout)["stat"]["ephemeralOwner"]
    for words, want in (
        (["--name", "[ot]*"], ["/t", "/t/a/one", "/t/a/two"]),
        (["--path", "*/a/*"], ["/t/a/one", "/t/a/two"]),
        (["--min-size", "2", "--max-size", "1k"], ["/t", "/t/a/two", "/t/a-b", node]),
        (["--min-size", "1k"], ["/t/b"]),
        (["--type", "ephemeral"], [node]),
        (["--owner", f"0x{owner:x}"], [node]),
        (["--owner", "0x1"], []),
        (["--empty"], []),
        (["--min-children", "2"], ["/t", "/t/a"]),
        (["--depth", "0"], ["/t"]),
        (["--older", "1h"], []),
        (["--newer", "1h", "--depth", "1"], ["/t", "/t/a", "/t/a-b", "/t/b", "/t/lock"]),
        (["--count", "--type", "persistent"], ["7"]),
    ):
        equal(world.lines(server, "find", "/t", *words), want, " ".join(words))
    world.run(server, "find", "/t", "--type", "container", want=2)
    world.run(server, "find", "/t", "--min-size", "much", want=2)


# --- export, import, cp, mirror ---

SECRET = "digest:ann:secret"


def rich_tree(world, server):
    """Data that are no text, none at all, an ACL with a digest, an ephemeral znode. Returns the process that owns that."""
    small_tree(world, server)
    world.run(server, "set", "-b", "/t/a/one", base64.b64encode(bytes(range(256))).decode())
    world.run(server, "create", "/t/secret", "hidden")
    # The digest of ann:secret.
    shell = "addauth digest ann:secret\nsetAcl /t/secret auth::cdrwa\nquit\n"
    world.run(server, stdin=shell)
    holder = world.start(server, "lock", "/t/lock")
    Lines(holder).await_count(1)
    return holder


def content(world, server, root):
    """Path, data and ACL of every znode that lasts."""
    lines = world.objects(server, "export", root, "--auth", SECRET)
    return [(one["path"], one.get("data"), one.get("encoding"), json.dumps(one.get("acl"))) for one in lines[1:-1]]


@case("export and import: what goes out comes back, and again")
def _(world):
    server = world.server()
    rich_tree(world, server)
    file = world.file("out.jsonl")
    done = world.run(server, "export", "/t", file, want=1)
    check("/t/secret" in done.stderr, done.stderr)
    check(not os.path.exists(file) and not os.path.exists(f"{file}.partial"), "what is not whole has no name")
    world.run(server, "export", "/t", file, "--auth", SECRET)
    lines = [json.loads(line) for line in read_text(file).splitlines()]
    equal(lines[0], {"paddock-export": 1, "root": "/t"})
    equal(lines[-1], {"end": True, "znodes": 8})
    equal([one["path"] for one in lines[1:-1]][:4], ["/", "/a", "/a/one", "/a/two"])
    world.run(server, "import", "/new/place", file)
    equal(content(world, server, "/new/place"), content(world, server, "/t"))
    # Again: refused, then left, then set anew.
    done = world.run(server, "import", "/new/place", file, want=1)
    check("already exists: /new/place" in done.stderr and "--skip-existing" in done.stderr, done.stderr)
    world.run(server, "set", "/new/place/a/two", "changed")
    world.run(server, "delete", "/new/place/b")
    done = world.run(server, "import", "/new/place", file, "--skip-existing", "--json")
    equal(json.loads(done.stdout)["created"], 1)
    equal(world.objects(server, "get", "/new/place/a/two", "--json")[0]["data"], "changed")
    world.run(server, "import", "/new/place", file, "--overwrite", "--auth", SECRET)
    equal(content(world, server, "/new/place"), content(world, server, "/t"))
    # Ephemeral znodes when asked for; from standard input; without ACLs.
    out = world.run(server, "export", "/t", "--ephemerals", "--no-acls", "--auth", SECRET).stdout
    world.run(server, "import", "/third", "-", stdin=out)
    equal(world.children(server, "/third/lock"), [], "left out")
    world.run(server, "import", "/third", "-", "--ephemerals", "--skip-existing", stdin=out)
    equal(len(world.children(server, "/third/lock")), 1, "as a persistent znode")


@case("import: a file that was cut off or is none says where")
def _(world):
    server = world.server()
    small_tree(world, server)
    whole = world.run(server, "export", "/t").stdout
    lines = whole.splitlines(keepends=True)
    for name, text, word in (
        ("cut", "".join(lines[:-1]), "cut off after line 7"),
        ("half", whole[: len(whole) // 2], ":"),
        ("short", "".join([*lines[:3], lines[-1]]), "6 znodes were exported, but 2 are here"),
        ("other", '{"a":1}\n', "other:1: "),
        ("later", '{"paddock-export":2}\n', "later:1: version 2"),
        ("twice", whole + whole, "twice:9: "),
        ("empty", "", "empty"),
    ):
        file = world.file(name, text)
        done = world.run(server, "import", "/x", file, "--dry-run", want=1)
        check(word in done.stderr, f"{name}: {done.stderr}")
    world.run(server, "ls", "/x", want=1)
    world.run(server, "import", "/x", world.file("missing"), want=1)


def many(world, count):
    """An export of `count` znodes, a hundred below each parent."""
    lines, parent = [json.dumps({"paddock-export": 1, "root": "/x"}), '{"path":"/","data":null}'], 0
    for number in range(1, count):
        if number % 101 == 1:
            parent += 1
            lines.append(json.dumps({"path": f"/p{parent:05}", "data": None}))
        else:
            lines.append(json.dumps({"path": f"/p{parent:05}/n{number:07}", "data": f"data of {number}"}))
    lines.append(json.dumps({"end": True, "znodes": count}))
    return world.file("many.jsonl", "\n".join(lines) + "\n")


@case("import: goes on over deaths of the server, and nothing is lost or doubled")
def _(world):
    server = world.server()
    file = many(world, 30000)
    process = world.start(server, "import", "/x", file, timeout_ms=60000)
    for after in (3000, 15000):
        until(lambda: counted(world, server) >= after or process.poll() is not None, "it is under way")
        server.kill()
        server.start()
    out, err = process.communicate(timeout=LONG)
    if process.returncode != 0:
        # Told, and gone on with.
        check("so far: " in err and "--skip-existing" in err, err)
        world.run(server, "import", "/x", file, "--skip-existing")
    equal(world.lines(server, "find", "/x", "--count"), ["30000"])
    out = world.run(server, "export", "/x").stdout
    parsed = [json.loads(line) for line in out.splitlines()]
    equal(parsed[1:], [json.loads(line) for line in read_text(file).splitlines()][1:])


def counted(world, server):
    with contextlib.suppress(OSError, ValueError):
        return int(server.metrics()["znode_count"])
    return 0


@case("a hundred thousand znodes are imported, exported, copied and compared in seconds and little memory", quick=False)
def _(world):
    server = world.server()
    file = many(world, 100000)
    for words in (
        ("import", "/x", file, "--progress"),
        ("export", "/x", world.file("out.jsonl"), "--progress"),
        ("import", "/x", file, "--skip-existing", "--progress"),
        ("cp", "-r", "/x", "/y", "--progress"),
        ("mirror", "/x", "/y", "--delete", "--progress"),
    ):
        started = time.monotonic()
        process = world.start(server, *words)
        most = 0
        while process.poll() is None:
            found = re.search(r"^VmHWM:\s+(\d+)", read_text(f"/proc/{process.pid}/status"), re.M)
            most = max(most, int(found[1]) if found else 0)
            time.sleep(0.05)
        _, err = finish(process, 0)
        seconds = time.monotonic() - started
        check(seconds < 40, f"{words[0]} took {seconds:.1f} s")
        check(most < 150_000, f"{words[0]} took {most} kB")
        check("/s" in err, f"{words[0]}: no progress: {err}")
    parsed = [json.loads(line) for line in read_text(world.file("out.jsonl")).splitlines()]
    equal(parsed, [json.loads(line) for line in read_text(file).splitlines()])


@case("cp: a znode, a subtree, another ensemble")
def _(world):
    server, other = world.server(), world.server()
    rich_tree(world, server)
    world.run(server, "cp", "/t", "/one")
    equal(world.objects(server, "get", "/one", "--json")[0]["data"], "root")
    equal(world.children(server, "/one"), [])
    world.run(server, "cp", "-r", "/t", "/t/inside", want=2)
    world.run(server, "cp", "-r", "/t", "/t", want=2)
    done = world.run(server, "cp", "-r", "/missing", "/x", want=1)
    check("/missing" in done.stderr, done.stderr)
    done = world.run(server, "cp", "-r", "/t", "/one", "--auth", SECRET, want=1)
    check("already exists: /one" in done.stderr, done.stderr)
    equal(world.children(server, "/one"), [], "nothing is made where something is in the way")
    to = ("--to", other.address, "--auth", SECRET, "--to-auth", SECRET)
    world.run(server, "cp", "-r", "/t", "/far/away", *to)
    equal(content(world, other, "/far/away"), content(world, server, "/t"))
    world.run(other, "delete", "/far/away/a/two")
    world.run(other, "set", "/far/away/b", "changed")
    world.run(server, "cp", "-r", "/t", "/far/away", "--skip-existing", *to)
    equal(world.objects(other, "get", "/far/away/b", "--json")[0]["data"], "changed")
    world.run(server, "cp", "-r", "/t", "/far/away", "--overwrite", *to)
    equal(content(world, other, "/far/away"), content(world, server, "/t"))
    # A whole ensemble; its own configuration stays its own.
    world.run(server, "cp", "-r", "/", "/", "--skip-existing", *to)
    equal(content(world, other, "/t"), content(world, server, "/t"))
    world.run(server, "cp", "/t", "/x", "--to", f"127.0.0.1:{free_port()}", want=3, timeout_ms=1000)


@case("mirror: shows, changes and deletes what differs, and nothing else")
def _(world):
    server, other = world.server(), world.server()
    rich_tree(world, server)
    to = ("--to", other.address, "--auth", SECRET, "--to-auth", SECRET)
    world.run(other, "create", "/m")
    world.run(other, "create", "/m/old", "x")
    world.run(other, "create", "/m/old/older", "x")
    before = content(world, other, "/m")
    shown = world.lines(server, "mirror", "/t", "/m", "--delete", "--dry-run", *to)
    equal(content(world, other, "/m"), before, "a dry run changes nothing")
    equal(shown[0], "set /m 4 B")
    check("create /m/a/one 256 B" in shown, shown)
    equal(shown[-3:-1], ["delete /m/old/older", "delete /m/old"])
    equal(shown[-1].split(":")[0], "would be")
    world.run(server, "mirror", "/t", "/m", *to)
    equal(world.children(other, "/m/old"), ["older"], "deleted only when asked")
    world.run(server, "mirror", "/t", "/m", "--delete", *to)
    equal(content(world, other, "/m"), content(world, server, "/t"))
    again = world.objects(server, "mirror", "/t", "/m", "--delete", "--json", *to)
    equal(again[-1]["unchanged"], 8, "nothing is written a second time")
    check(not {"created", "overwritten", "deleted", "acls_set"} & set(again[-1]), again)
    world.run(server, "mirror", "/t", "/t/x", want=2)
    world.run(server, "mirror", "/t/a", "/t", want=2)
    done = world.run(server, "mirror", "/missing", "/m", "--delete", *to, want=1)
    check("/missing" in done.stderr, done.stderr)
    equal(content(world, other, "/m"), content(world, server, "/t"), "a source that is not there deletes nothing")


@case("mirror: follows changes, over deaths of both servers")
def _(world):
    server, other = world.server(), world.server()
    small_tree(world, server)
    errors = world.file("mirror.err")
    process = world.start(
        server,
        *("mirror", "/t", "/m", "--to", other.address, "--delete", "--follow", "--verbose"),
        stderr=open(errors, "w", encoding="utf-8"),
        timeout_ms=2000,
    )
    Lines(process)
    until(lambda: "in step" in read_text(errors), "the first comparison")
    same = lambda: content(world, other, "/m") == content(world, server, "/t")  # noqa: E731
    check(same(), "after the first comparison")
    world.run(server, "set", "/t/a/two", "changed")
    world.run(server, "create", "/t/new", "1")
    world.run(server, "create", "/t/new/below", "2")
    world.run(server, "deleteall", "/t/a")
    until(same, "changes are carried over", 10)
    server.kill()
    server.start()
    world.run(server, "-waitforconnection", "create", "/t/after", "death")
    until(same, "after the source's death", 20)
    other.kill()
    other.start()
    world.run(server, "create", "/t/after/that", "too")
    until(same, "after the target's death", 20)
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    world.run(server, "create", "/t/while", "it slept over its sessions")
    process.send_signal(signal.SIGCONT)
    until(same, "after the sessions' end", 20)
    check("the session is " in read_text(errors), read_text(errors))
    check(process.poll() is None, f"it goes on: {read_text(errors)}")
    process.terminate()
    equal(process.wait(LONG), 128 + signal.SIGTERM)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="paddock")
    parser.add_argument("--results", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    args = parser.parse_args()
    with open(args.results, "a", encoding="utf-8") as out:
        for name, (function, quick) in CASES.items():
            if args.only and name not in args.only:
                continue
            if args.quick and not quick:
                out.write(json.dumps({"name": name, "result": "skipped", "reason": "not part of a quick run"}) + "\n")
                continue
            world = World(args.server)
            started = time.monotonic()
            try:
                function(world)
                result, reason = "passed", ""
            except Exception as error:
                if os.environ.get("CONF_KEEP"):
                    traceback.print_exc()
                result, reason = "failed", f"{type(error).__name__}: {error}"
            finally:
                world.close()
            print(f"{time.monotonic() - started:6.1f} s  {result}  {name}  {reason}", file=sys.stderr, flush=True)
            out.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")


if __name__ == "__main__":
    main()
