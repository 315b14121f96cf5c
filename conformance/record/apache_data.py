"""Data folders that Apache ZooKeeper leaves behind, as vector files, with what it then says of them. See `data`."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from servers import Apache, Ensemble, Server, say  # noqa: E402

VERSION = os.environ["APACHE_VERSION"]
TMP = pathlib.Path(os.environ["RECORD_TMP"])
# Small files, TTLs, and no word from the JVM.
FLAGS = "-Xmx256m -XX:TieredStopAtLevel=1 -Dzookeeper.preAllocSize=1 -Dzookeeper.extendedTypesEnabled=true"
LINES = ("tickTime=2000", "maxSessionTimeout=40000")


def flags(more=""):
    os.environ["APACHE_JVMFLAGS"] = f"{FLAGS} {more}"


def client_command(*arguments):
    java, class_path = Apache.found
    return [java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dzookeeper.log.level=ERROR",
            "-cp", f"{class_path}:{TMP}/classes", "ApacheData", *arguments]  # fmt: skip


def client(*arguments):
    return subprocess.run(client_command(*arguments), stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


def zxid_of(server):
    return next(line.split("0x")[1] for line in server.srvr() if line.startswith("Zxid: "))


def file_vector(path, name):
    """Zeros at the end, which space was made with, are only counted."""
    data = path.read_bytes()
    kept = data.rstrip(b"\0")
    lines = [f"File: {name}"]
    if len(data) > len(kept):
        lines.append(f"  zeros: {len(data) - len(kept)}")
    text = kept.hex()
    return lines + [f"  {text[at : at + 96]}" for at in range(0, len(text), 96)]


def collect(data, keep=lambda name: True):
    folder = data / "version-2"
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and keep(path.name))
    lines = []
    for name in names:
        lines += [*file_vector(folder / name, f"version-2/{name}"), ""]
    return lines


def dumped(folder, data):
    """What Apache itself makes of a copy of the data: a standalone server is started on it."""
    server = Server("apache", str(folder), LINES)
    shutil.copytree(data / "version-2", pathlib.Path(server.dir) / "data" / "version-2")
    server.spawn()
    wait(server)
    lines = [f"Server: Apache ZooKeeper {VERSION}", f'  zxid: {zxid_of(server)}', ""]
    lines.append(client("dump", server.address).rstrip())
    server.kill()
    return lines


def wait(server):
    """Until it answers, without a session, which would be one more transaction."""
    end = time.monotonic() + 60
    while server.mode() is None:
        if time.monotonic() > end or server.process.poll() is not None:
            server.tail()
            raise SystemExit("the server does not serve")
        time.sleep(0.1)


def write(out, name, heading, lines):
    heading = [f"# {line}" for line in [*heading, f"Apache ZooKeeper {VERSION}; made by conformance/record/data."]]
    path = out / f"{name}.txt"
    path.write_text("\n".join([*heading, "", *lines]) + "\n", encoding="utf-8")
    say(f"{path.name}: {path.stat().st_size} bytes")


def standalone(out, name, method=None, full=True):
    """Filled, started again (which writes a snapshot), written to with sessions open, killed."""
    flags(f"-Dzookeeper.snapshot.compression.method={method}" if method else "")
    server = Server("apache", str(TMP / name), LINES)
    data = pathlib.Path(server.dir) / "data"
    server.spawn()
    wait(server)
    client("fill", server.address)
    server.stop()
    server.spawn()
    wait(server)
    sessions = client("more", server.address).splitlines()
    server.kill()
    newest = max((path.name for path in (data / "version-2").glob("snapshot.*")), key=lambda name: int(name.split(".")[1], 16))
    first = min(int(path.name[4:], 16) for path in (data / "version-2").glob("log.*"))
    keep = (lambda name: True) if full else (lambda name: name == newest or (name.startswith("log.") and name != f"log.{first:x}"))
    lines = collect(data, keep)
    for line in sessions:
        _, number, timeout = line.split()
        lines += [f"Session: {number}", f"  timeout: {timeout}", ""]
    write(out, name, [f"A standalone server, killed while two sessions were open; snapshots are {method or 'plain'}."],
          lines + dumped(TMP / f"{name}-again", data))  # fmt: skip


def member(out, name):
    """The leader of three, killed with writes in its log that no follower has."""
    flags()
    ensemble = Ensemble("apache", str(TMP / name), LINES)
    for server in ensemble.members:
        server.spawn()
    leader = ensemble.leader()
    client("fill", leader.address)
    followers = [server for server in ensemble.members if server is not leader]
    zxid_before = zxid_of(leader)
    tail = subprocess.Popen(client_command("tail", leader.address), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert tail.stdout.readline() == "connected\n"
    committed = zxid_of(leader)
    assert int(committed, 16) > int(zxid_before, 16)
    for server in followers:
        server.process.send_signal(signal.SIGSTOP)
    tail.stdin.write("\n")
    tail.stdin.flush()
    assert tail.stdout.readline() == "sent\n"
    time.sleep(1.5)
    leader.kill()
    for server in followers:
        server.kill()
    tail.kill()
    tail.wait()
    data = pathlib.Path(leader.dir) / "data"
    lines = collect(data)
    lines += [f"Committed: {committed}", ""]
    write(out, name, ["The leader of three servers, killed when it had logged what no other had."],
          lines + dumped(TMP / f"{name}-again", data))  # fmt: skip


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    Apache.command("")
    wanted = sys.argv[2:]
    cases = {
        "plain": lambda name: standalone(out, name),
        "gz": lambda name: standalone(out, name, "gz", full=False),
        "snappy": lambda name: standalone(out, name, "snappy", full=False),
        "leader": lambda name: member(out, name),
        "before_3_9": lambda name: standalone(out, name, full=False),
    }
    for name, run in cases.items():
        if name in wanted:
            run(name)


main()
