"""The arithmetic of quorums: how many of 3, 4 and 5 servers may be lost, and which side of a partition serves.

Through every server a session writes all the time. A write counts by when it was sent: what is sent after the majority is gone
must not be acknowledged. When all is whole again each server has the same nodes, every acknowledged write among them with the
zxid of its reply.
"""

import itertools
import os
import socket
import struct
import threading
import time

from ensemble import Broken, Ensemble, say, until
from servers import receive

SETTLED = 8.0  # seconds: more than the servers of a minority need to notice


def packet(body):
    return struct.pack(">i", len(body)) + body


def string(text):
    return struct.pack(">i", len(text)) + text.encode()


class Writer(threading.Thread):
    """A session at one server that creates node after node, and a new one when it ends."""

    def __init__(self, member, folder):
        super().__init__(daemon=True)
        self.member, self.folder = member, folder
        self.acknowledged, self.refused = {}, set()  # name: (time sent, zxid)
        self.ends = False
        self.start()

    def run(self):
        numbers = itertools.count()
        while not self.ends:
            try:
                with socket.create_connection(self.member.reach, 2) as sock:
                    sock.settimeout(2)
                    sock.sendall(packet(struct.pack(">iqiqi16s?", 0, 0, 4000, 0, 16, b"", False)))
                    if struct.unpack(">i", receive(sock)[4:8])[0] <= 0:
                        raise ConnectionError("no session")
                    while not self.ends:
                        self.write(sock, next(numbers))
                        time.sleep(0.04)
            except OSError:
                time.sleep(0.1)

    def write(self, sock, number):
        name = f"{self.member.number}-{number:06}"
        anyone = struct.pack(">ii", 1, 31) + string("world") + string("anyone")
        body = struct.pack(">ii", number + 1, 1) + string(f"{self.folder}/{name}") + string(name) + anyone + struct.pack(">i", 0)
        sent = time.monotonic()
        sock.sendall(packet(body))
        _, zxid, error = struct.unpack(">iqi", receive(sock)[:16])
        if error == 0:
            self.acknowledged[name] = (sent, zxid)
        else:
            self.refused.add(name)

    def since(self, moment):
        """How many writes sent after the moment have been acknowledged."""
        return sum(1 for sent, _ in list(self.acknowledged.values()) if sent > moment)


class Trial:
    """One ensemble with writers, for one case after the other."""

    def __init__(self, ensemble):
        self.ensemble, self.folders = ensemble, itertools.count()
        self.ensemble.start()

    def __getitem__(self, number):
        return self.ensemble.members[number - 1]

    def begin(self):
        from kazoo.client import KazooClient

        for member in self.ensemble.members:
            if not member.is_running:
                member.spawn()
        self.ensemble.led()
        self.folder = f"/history{next(self.folders)}"
        client = KazooClient("%s:%d" % self[1].reach, timeout=10)
        client.start(30)
        client.create(self.folder)
        client.stop()
        client.close()
        self.writers = {member.number: Writer(member, self.folder) for member in self.ensemble.members}
        self.all_serve(self.ensemble.members, time.monotonic(), "before")

    def all_serve(self, members, moment, when):
        def served():
            return all(self.writers[member.number].since(moment) for member in members)

        try:
            until("", served, 40, 0.05)
        except Broken:
            dumb = [member.number for member in members if not self.writers[member.number].since(moment)]
            raise Broken(f"{when}: no write through {', '.join(f'server {n}' for n in dumb)} was acknowledged in 40 s") from None
        return time.monotonic() - moment

    def none_serves(self, members, moment, when):
        """From the moment until they have noticed; they must have, then."""
        time.sleep(max(0.0, moment + SETTLED - time.monotonic()))
        for member in members:
            count = self.writers[member.number].since(moment)
            if count:
                raise Broken(f"{when}: {count} writes through server {member.number} were acknowledged")
            if mode := member.mode():
                raise Broken(f"{when}: server {member.number} still calls itself {mode}")

    def end(self):
        """All are whole again: one history."""
        for member in self.ensemble.members:
            if not member.is_running:
                member.spawn()
        self.ensemble.led()
        self.all_serve(self.ensemble.members, time.monotonic(), "when all are back")
        return self.compare()

    def drop(self):
        for writer in getattr(self, "writers", {}).values():
            writer.ends = True
        for writer in getattr(self, "writers", {}).values():
            writer.join()

    def compare(self):
        self.drop()
        trees = {member.number: self.nodes(member) for member in self.ensemble.members}
        first = trees[1]
        for number, tree in trees.items():
            if tree != first:
                odd = sorted(name for name in set(tree) | set(first) if tree.get(name) != first.get(name))
                raise Broken(f"servers 1 and {number} differ in {len(odd)} nodes: {odd[0]} {first.get(odd[0])} {tree.get(odd[0])}")
        if len({zxid for zxid, _ in first.values()}) != len(first):
            raise Broken("two nodes were created by one zxid")
        for writer in self.writers.values():
            for name, (_, zxid) in writer.acknowledged.items():
                if first.get(name) != (zxid, name.encode()):
                    raise Broken(f"{name} was acknowledged with zxid 0x{zxid:x}, and there is {first.get(name)}")
            if there := writer.refused & set(first):
                raise Broken(f"{sorted(there)[0]} was refused, and is there")
        return len(first)

    def nodes(self, member):
        from kazoo.client import KazooClient

        client = KazooClient("%s:%d" % member.reach, timeout=10)
        client.start(30)
        try:
            client.sync(self.folder)
            names = client.get_children(self.folder)
            replies = [(name, client.get_async(f"{self.folder}/{name}")) for name in names]
            return {name: (stat.czxid, data) for name, (data, stat) in ((name, reply.get(20)) for name, reply in replies)}
        finally:
            client.stop()
            client.close()


def losses(survives):
    """The leader first, and then others: with `survives` gone they serve, with one more they do not."""

    def case(trial):
        trial.begin()
        gone = []
        while len(gone) < survives:
            victim = trial.ensemble.led()
            victim.kill()
            gone.append(victim)
            rest = [member for member in trial.ensemble.members if member not in gone]
            seconds = trial.all_serve(rest, time.monotonic(), f"without {len(gone)} of {len(trial.ensemble.members)}")
        yield "survive", f"writes after {seconds:.2f} s"
        victim = trial.ensemble.led(rest)
        victim.kill()
        moment = time.monotonic()
        rest.remove(victim)
        trial.none_serves(rest, moment, f"without {survives + 1} of {len(trial.ensemble.members)}")
        yield "not", f"none served; {trial.end()} nodes alike when all are back"

    return case


def partition(small, leader_with):
    """`small` of them are cut off from the others; the leader is on the side that is named."""

    def case(trial):
        trial.begin()
        members, network = trial.ensemble.members, trial.ensemble.network
        leader = trial.ensemble.led()
        others = [member for member in members if member is not leader]
        one = [leader, *others[: small - 1]] if leader_with == "minority" else others[:small]
        two = [member for member in members if member not in one]
        network.split([[member.host for member in one], [member.host for member in two]])
        moment = time.monotonic()
        try:
            if len(two) * 2 > len(members):
                seconds = trial.all_serve(two, moment, f"the side of {len(two)}")
                told = f"the side of {len(two)} wrote after {seconds:.2f} s, that of {small} not at all"
                trial.none_serves(one, moment, f"the side of {small}")
            else:
                told = "neither side wrote"
                trial.none_serves(members, moment, "half of them")
        finally:
            network.heal()
        yield "", f"{told}; {trial.end()} nodes alike when it is healed"

    return case


# size: name, case, whether it needs the network to be cut, whether it is of the quick run.
CASES = {
    3: [
        ("3-servers", losses(1), False, True),
        ("partition-1-2-leader-alone", partition(1, "minority"), True, False),
        ("partition-1-2-leader-with-the-majority", partition(1, "majority"), True, False),
    ],
    4: [
        ("4-servers", losses(1), False, False),
        ("partition-2-2", partition(2, "minority"), True, True),
    ],
    5: [
        ("5-servers", losses(2), False, False),
        ("partition-1-4-leader-alone", partition(1, "minority"), True, False),
        ("partition-1-4-leader-with-the-majority", partition(1, "majority"), True, False),
        ("partition-2-3-leader-with-the-two", partition(2, "minority"), True, True),
        ("partition-2-3-leader-with-the-three", partition(2, "majority"), True, False),
    ],
}


def names_of(size, name):
    """Of the cases that are reported: the losses are two."""
    if name.endswith("-servers"):
        survives = (size - 1) // 2
        return {"survive": f"quorum/{size}-survive-{survives}", "not": f"quorum/{size}-not-{survives + 1}"}
    return {"": f"quorum/{name}"}


def run(args, report, wanted, network):
    for size, cases in CASES.items():
        cases = [
            (names_of(size, name), case, cuts)
            for name, case, cuts, quick in cases
            if (quick or not args.quick) and any(map(wanted, names_of(size, name).values()))
        ]
        if not cases:
            continue
        say(f" {size} servers")
        chosen = None if network.missing else network
        folder = os.path.join(args.work, "quorum", str(size))
        ensemble = Ensemble(args.server, size, folder, chosen)
        try:
            trial = Trial(ensemble)
            for names, case, cuts in cases:
                if cuts and not chosen:
                    for name in names.values():
                        report(name, "skipped", network.missing)
                    continue
                todo, begun = dict(names), time.monotonic()
                try:
                    for part, remark in case(trial):
                        say(f"  {todo[part]}: {remark}, {time.monotonic() - begun:.1f} s")
                        report(todo.pop(part), "passed", remark)
                except Exception as error:  # noqa: BLE001: the rest is told of it
                    trial.drop()
                    for name in todo.values():
                        report(name, "failed", str(error) or type(error).__name__)
        except (Broken, OSError) as error:
            for names, _, _ in cases:
                for name in names.values():
                    report(name, "failed", f"the ensemble did not start: {error}")
        finally:
            ensemble.end()
