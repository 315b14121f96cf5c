"""What Apache ZooKeeper does to zoo.cfg, and writes beside it, as an ensemble is reconfigured. See `files`.

Each step has a folder, with one for each server: what is new or has changed of its files (before the first start:
`0-written`); and `config`, what /zookeeper/config has. Folders on this machine read `/zk`.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from servers import Apache, Server, free_port, say  # noqa: E402

TMP = pathlib.Path(os.environ["RECORD_TMP"])
os.environ["APACHE_JVMFLAGS"] = "-Xmx192m -XX:TieredStopAtLevel=1 -Dzookeeper.skipACL=yes"
COMMON = """# an operator's comment
tickTime=500
initLimit = 20
syncLimit:10
admin.enableServer=false
4lw.commands.whitelist=*
clientPortListenBacklog=50
reconfigEnabled=true
! another comment
"""


class Member(Server):
    """A server whose zoo.cfg is the test's own."""

    def __init__(self, folder, number, text, port):
        self.kind, self.dir, self.process = "apache", str(folder), None
        self.release, self.flags, self.level, self.port = None, (), "WARN", port
        self.data = os.path.join(self.dir, "data")
        os.makedirs(self.data)
        self.config = os.path.join(self.dir, "zoo.cfg")
        pathlib.Path(self.data, "myid").write_text(f"{number}\n")
        pathlib.Path(self.config).write_text(text.replace("DATA", self.data))
        self.number = number


class Case:
    def __init__(self, name, out):
        self.folder, self.out, self.members, self.steps, self.known = TMP / name, out / name, {}, 0, {}
        shutil.rmtree(self.out, ignore_errors=True)

    def add(self, number, text, port):
        self.members[number] = Member(self.folder / str(number), number, text, port)

    def config(self):
        """What clients read of the membership; waits for a server that serves."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for member in self.members.values():
                try:
                    text = member.words("conf")
                except OSError:
                    continue
                if "membership: \n" in text:
                    return text.split("membership: \n")[1].strip("\n")
            time.sleep(0.1)
        raise SystemExit("nobody serves")

    def keep(self, name):
        time.sleep(2)  # every server has written what it writes
        step = self.out / f"{self.steps}-{name}"
        for number, member in self.members.items():
            for path in pathlib.Path(member.dir).iterdir():
                text = path.read_text().replace(str(TMP), "/zk") if path.name.startswith("zoo.cfg") else None
                if text != self.known.get(path):
                    self.known[path] = text
                    (step / str(number)).mkdir(parents=True, exist_ok=True)
                    (step / str(number) / path.name).write_text(text)
        if self.steps:
            (step / "config").write_text(self.config())
        self.steps += 1
        say(f"  {self.out.name}: {name}")

    def start(self, *numbers):
        for number in numbers:
            self.members[number].spawn()

    def await_version(self, before):
        end = time.monotonic() + 60
        while (version := self.config().rpartition("version=")[2]) == before:
            if time.monotonic() > end:
                raise SystemExit("the reconfiguration did not come")
            time.sleep(0.1)
        return version

    def reconfig(self, *arguments):
        java, class_path = Apache.found[None]
        address = next(member.address for member in self.members.values() if member.is_running and member.mode())
        command = [java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dzookeeper.log.level=ERROR", "-cp", class_path]
        command += ["org.apache.zookeeper.ZooKeeperMain", "-server", address, "reconfig", *arguments]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        if "Committed new configuration" not in ended.stdout:
            raise SystemExit(ended.stdout)

    def stop(self):
        for member in self.members.values():
            member.stop()


def majority(out):
    """Server 1 has its client port in both places, 2 in its line, 3 in its file alone; 4 joins and leaves again."""
    case = Case("majority", out)
    clients = [free_port() for _ in range(5)]
    quorum = [f"127.0.0.1:{free_port()}:{free_port()}" for _ in range(4)]
    lines = [
        f"server.1={quorum[0]};127.0.0.1:{clients[0]}\n",
        f"server.2={quorum[1]}:participant;{clients[1]}\n",
        f"server.3={quorum[2]}\n",
    ]
    head = COMMON + "dataDir=DATA\n"
    case.add(1, f"{head}clientPort={clients[0]}\nclientPortAddress=127.0.0.1\n{''.join(lines)}peerType=participant\n", clients[0])
    case.add(2, f"{head}{''.join(lines)}# the end\n", clients[1])
    case.add(3, f"{head}clientPort={clients[2]}\n{''.join(lines)}", clients[2])
    joins = f"server.4={quorum[3]}:observer;127.0.0.1:{clients[3]}"
    dynamic = case.folder / "4" / "joining.dynamic"
    case.add(4, f"{head}peerType=observer\ndynamicConfigFile={dynamic}\n", clients[3])
    dynamic.write_text("".join(lines) + joins + "\n")
    try:
        case.keep("written")
        case.start(1, 2, 3)
        case.await_version("0")
        case.keep("started")
        case.start(4)
        case.members[4].await_reply("/zookeeper", time.monotonic())
        case.reconfig("-add", joins)
        case.keep("joined")
        case.reconfig("-remove", "4")
        case.members[4].stop()
        case.keep("left")
        case.reconfig("-add", f"server.2={quorum[1]}:participant;{clients[4]}")
        case.members[2].port = clients[4]
        case.keep("moved")
    finally:
        case.stop()


def hierarchical(out):
    case = Case("hierarchical", out)
    lines = "".join(f"server.{n}=127.0.0.1:{free_port()}:{free_port()}\n" for n in (1, 2, 10))
    lines += "group.1=1:2\ngroup.2=10\nweight.1=2\nweight.2=1\n"
    for number in (1, 2, 10):
        port = free_port()
        case.add(number, f"{COMMON}dataDir=DATA\nclientPort={port}\n{lines}", port)
    try:
        case.keep("written")
        case.start(1, 2, 10)
        case.await_version("0")
        case.keep("started")
    finally:
        case.stop()


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    Apache.command("", level="WARN")
    majority(target)
    hierarchical(target)
