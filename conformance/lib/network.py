"""Network namespaces that can be cut off from one another: one for each host, all on a bridge.

    network = Network(["s1", "s2", "c1"])      a reason in `network.missing` when it cannot be had
    network.split([["s1"], ["s2", "c1"]])      packets between the sides are dropped without a word, as by a broken switch
    network.heal()

A host has two addresses: `data[name]`, for servers and clients, which is what a split cuts, and `control[name]`, by which the
tests look at a server whatever the state of the network. Needs root, `ip` of iproute2 and a kernel with namespaces.
"""

import os
import random
import re
import shutil
import subprocess


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    def __init__(self, hosts):
        self.hosts, self.missing = list(hosts), ""
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
        for bridge in ("c", "0"):
            self.bridge(bridge)
        ip("addr", "add", f"198.19.{third}.254/24", "dev", f"{self.tag}-c")
        for host in self.hosts:
            space = self.namespace(host)
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            for inside, outside, bridge, address in (
                ("data", f"{self.tag}{host}d", "0", self.data[host]),
                ("control", f"{self.tag}{host}c", "c", self.control[host]),
            ):
                ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
                ip("link", "set", outside, "master", f"{self.tag}-{bridge}", "up")
                ip("-n", space, "addr", "add", f"{address}/24", "dev", inside)
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

    def heal(self):
        for host in self.hosts:
            ip("link", "set", f"{self.tag}{host}d", "master", f"{self.tag}-0")

    def close(self):
        """After the processes in it have ended."""
        if not self.made:
            return
        for host in self.hosts:
            ip("netns", "del", self.namespace(host), check=False)
            # The namespace may outlive its name for a moment, and its links with it.
            for kind in "dc":
                ip("link", "del", f"{self.tag}{host}{kind}", check=False)
        for bridge in ("c", *map(str, range(len(self.hosts)))):
            ip("link", "del", f"{self.tag}-{bridge}", check=False)
        self.made = False
