"""An ensemble of any size, each server in a network namespace of its own, or all on loopback where there are none."""

import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cases  # noqa: E402
from cases import Broken  # noqa: E402, F401
from servers import Apache, Server, free_port, paddock_bin, say  # noqa: E402, F401

PATIENCE = 60.0
TICK = 500  # milliseconds
LINES = (f"tickTime={TICK}", "initLimit=20", "syncLimit=6", "minSessionTimeout=1000", "maxSessionTimeout=60000")
FLAGS = ("-Xmx256m", "-Xms64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


def until(what, condition, patience=PATIENCE, every=0.02):
    return cases.until(what, condition, patience, every)


class Member(Server):
    def __init__(self, number, kind, folder, lines, network):
        self.number, self.network, self.host = number, network, f"s{number}"
        super().__init__(kind, folder, lines, flags=FLAGS if kind == "apache" else ())
        if network:
            self.port = 2181
            self.configure()
        with open(os.path.join(self.data, "myid"), "w", encoding="ascii") as out:
            out.write(f"{number}\n")

    def configure(self):
        super().configure()
        if self.network:
            # Both its addresses: what the tests ask comes by the other one.
            with open(self.config, encoding="utf-8") as lines:
                kept = [line for line in lines if not line.startswith("clientPortAddress")]
            with open(self.config, "w", encoding="utf-8") as out:
                out.writelines(kept)

    @property
    def address(self):
        """Where clients find it."""
        return f"{self.network.data[self.host] if self.network else '127.0.0.1'}:{self.port}"

    @property
    def reach(self):
        """Where the tests find it."""
        return (self.network.control[self.host] if self.network else "127.0.0.1", self.port)

    def spawn(self):
        if self.kind == "apache":
            command = Apache.command(self.config, self.release, self.flags, self.level)
        else:
            command = [paddock_bin(), "server", self.config]
        before = self.network.inside(self.host) if self.network else []
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen([*before, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def words(self, word):
        with socket.create_connection(self.reach, 2) as sock:
            sock.settimeout(2)
            sock.sendall(word.encode())
            answer = b""
            while part := sock.recv(65536):
                answer += part
        return answer.decode(errors="replace")


class Ensemble:
    def __init__(self, kind, size, folder, network=None):
        self.kind, self.folder, self.network = kind, folder, network
        numbers = range(1, size + 1)
        if network:
            servers = [f"server.{n}={network.data[f's{n}']}:2888:3888" for n in numbers]
        else:
            servers = [f"server.{n}=127.0.0.1:{free_port()}:{free_port()}" for n in numbers]
        self.members = [
            Member(n, kind, os.path.join(folder, str(n)), [*LINES, *servers], network) for n in numbers
        ]  # fmt: skip

    @property
    def hosts(self):
        return ",".join(member.address for member in self.members)

    def start(self):
        for member in self.members:
            member.spawn()
        return self.led()

    def led(self, among=None, patience=PATIENCE):
        """The leader, once all of these members (all that run) take part."""
        among = among or [member for member in self.members if member.is_running]

        def stands():
            for member in among:
                if member.process.poll() is not None:
                    raise Broken(f"server {member.number} ended by itself with status {member.process.returncode}")
            modes = [member.mode() for member in among]
            if modes.count("leader") == 1 and modes.count("follower") == len(among) - 1:
                return among[modes.index("leader")]
            return None

        try:
            return until("one leader that all others follow", stands, patience, 0.05)
        except Broken as error:
            modes = {member.number: member.mode() for member in among if member.process.poll() is None}
            raise Broken(f"{error}: {modes}") from None

    def end(self):
        for member in self.members:
            if member.is_running:
                member.kill()
