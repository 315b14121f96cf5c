"""Network namespaces that can be cut off from one another: one for each host, all on a bridge.

    network = Network(["s1", "s2", "c1"])      a reason in `network.missing` when it cannot be had
    network.split([["s1"], ["s2", "c1"]])      packets between the sides are dropped without a word, as by a broken switch
    network.heal()
    Divisible("paddock", folder)               an ensemble that has such a network, and does without where there is none

A host has two addresses: `data[name]`, for servers and clients, which is what a split cuts, and `control[name]`, by which the
tests look at a server whatever the state of the network. `ways` names clients outside of the namespaces: each has a bridge of
its own to all hosts, by the addresses `way[name]`, and can lose it. Needs root, `ip` of iproute2 and a kernel with namespaces.
"""

import os
import random
import re
import shutil
import subprocess

from cases import Skipped
from servers import Ensemble


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    def __init__(self, hosts, ways=()):
        self.hosts, self.missing = list(hosts), ""
        self.lanes = {way: f"w{number}" for number, way in enumerate(ways)}
        self.tag = f"pd{os.getpid() % 36**3:x}"
        self.made = False
        if os.geteuid() != 0:
            self.missing = "needs root, for network namespaces"
        elif shutil.which("ip") is None:
            self.missing = "needs ip (iproute2), for network namespaces"
        else:
            self.sweep()
            try:
                self.make()
            except OSError as error:
                self.missing = f"network namespaces cannot be had: {error}"
                self.close()

    @staticmethod
    def sweep():
        """Removes what a run that was killed has left."""
        for line in ip("netns", "list", check=False).splitlines():
            found = re.match(r"paddock-(\d+)-", line)
            if found and not os.path.exists(f"/proc/{found[1]}"):
                ip("netns", "del", line.split()[0], check=False)

    def namespace(self, host):
        return f"paddock-{os.getpid()}-{host}"

    def make(self):
        self.made = True
        # Addresses set apart for tests of networks.
        taken = ip("-4", "addr", "show")
        third = next(n for n in random.sample(range(256), 256) if f"198.19.{n}." not in taken)
        self.data = {host: f"198.18.{third}.{n}" for n, host in enumerate(self.hosts, 1)}
        self.control = {host: f"198.19.{third}.{n}" for n, host in enumerate(self.hosts, 1)}
        # Of the second network, the lower half is for control and a sixteenth for each way.
        self.way = {}
        for bridge in ("c", "0", *self.lanes.values()):
            self.bridge(bridge)
        ip("addr", "add", f"198.19.{third}.126/25", "dev", f"{self.tag}-c")
        for number, (way, lane) in enumerate(self.lanes.items()):
            first = 128 + 16 * number
            self.way[way] = {host: f"198.19.{third}.{first + n}" for n, host in enumerate(self.hosts, 1)}
            ip("addr", "add", f"198.19.{third}.{first + 14}/28", "dev", f"{self.tag}-{lane}")
        for host in self.hosts:
            space = self.namespace(host)
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            for inside, outside, bridge, address in (
                ("data", f"{self.tag}{host}d", "0", f"{self.data[host]}/24"),
                ("control", f"{self.tag}{host}c", "c", f"{self.control[host]}/25"),
                *((lane, f"{self.tag}{host}{lane}", lane, f"{self.way[way][host]}/28") for way, lane in self.lanes.items()),
            ):
                ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
                ip("link", "set", outside, "master", f"{self.tag}-{bridge}", "up")
                ip("-n", space, "addr", "add", address, "dev", inside)
                ip("-n", space, "link", "set", inside, "up")

    def bridge(self, name):
        ip("link", "add", f"{self.tag}-{name}", "type", "bridge")
        ip("link", "set", f"{self.tag}-{name}", "up")

    def inside(self, host):
        """What comes before a command that is to run on that host; it becomes the command, and keeps its process id."""
        return ["ip", "netns", "exec", self.namespace(host)]

    def split(self, sides):
        """Each side on a bridge of its own; hosts that are not named stay on that of the last side."""
        for number, side in enumerate(sides[:-1], 1):
            if not os.path.exists(f"/sys/class/net/{self.tag}-{number}"):
                self.bridge(number)
            for host in side:
                ip("link", "set", f"{self.tag}{host}d", "master", f"{self.tag}-{number}")

    def cut_way(self, way):
        for host in self.hosts:
            ip("link", "set", f"{self.tag}{host}{self.lanes[way]}", "nomaster")

    def heal(self):
        for host in self.hosts:
            ip("link", "set", f"{self.tag}{host}d", "master", f"{self.tag}-0")
            for lane in self.lanes.values():
                ip("link", "set", f"{self.tag}{host}{lane}", "master", f"{self.tag}-{lane}")

    def close(self):
        """After the processes in it have ended."""
        if not self.made:
            return
        for host in self.hosts:
            ip("netns", "del", self.namespace(host), check=False)
            # The namespace may outlive its name for a moment, and its links with it.
            for kind in ("d", "c", *self.lanes.values()):
                ip("link", "del", f"{self.tag}{host}{kind}", check=False)
        for bridge in ("c", *map(str, range(len(self.hosts))), *self.lanes.values()):
            ip("link", "del", f"{self.tag}-{bridge}", check=False)
        self.made = False


class Divisible(Ensemble):
    """An ensemble whose members can be cut off from each other, and clients from all of them, where the machine allows it.

    Who has `address` reaches each member whatever the state of the network between them, as clients beside a server do; a
    client with a way of its own has `address_for(way)`.
    """

    def __init__(self, kind, directory, lines=("tickTime=2000",), limits=Ensemble.LIMITS, ways=()):
        super().__init__(kind, directory, lines, limits)
        hosts = [f"s{number}" for number in range(1, self.SIZE + 1)]
        self.network = network = Network(hosts, ways)
        if network.missing:
            return
        peers = [f"server.{number}={network.data[host]}:2888:3888" for number, host in enumerate(hosts, 1)]
        for host, member in zip(hosts, self.members):
            member.host, member.before, member.everywhere = network.control[host], network.inside(host), bool(ways)
            member.lines = (*(line for line in member.lines if not line.startswith("server.")), *peers)
            member.configure()

    def address_for(self, way):
        if self.network.missing:
            return self.address
        return ",".join(f"{host}:{member.port}" for host, member in zip(self.network.way[way].values(), self.members))

    def expect_network(self):
        if self.network.missing:
            raise Skipped(self.network.missing)

    def cut_off(self, member):
        """From the others, until `heal`."""
        self.expect_network()
        hosts = self.network.hosts
        alone = hosts[self.members.index(member)]
        self.network.split([[alone], [host for host in hosts if host != alone]])

    def cut_way(self, way):
        """Of a client to all members, until `heal`."""
        self.expect_network()
        self.network.cut_way(way)

    def heal(self):
        if not self.network.missing:
            self.network.heal()

    def close(self):
        """Stops the members too."""
        try:
            self.stop()
        finally:
            self.network.close()
