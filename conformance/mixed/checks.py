"""What must hold of an ensemble: equal trees and digests on every member, and every acknowledged write in each of them."""

import collections
import threading

import wire
from ensemble import Broken, until
from wire import Client, Expired, Lost, Session

AUTH = ("digest", b"reader:secret")
# Upstream's `hash` has the digest of every 128th transaction.
INTERVAL = 128


def dump(client):
    """Every path with its data, Stat and ACL."""
    found, level = {}, ["/"]
    while level:
        listed = client.all(wire.children(path) for path in level)
        read = client.all(wire.get(path) for path in level)
        lists = client.all(wire.get_acl(path) for path in level)
        after = []
        for path, children, data, acl in zip(level, listed, read, lists):
            content, stat = data.data()
            found[path] = (content, stat, acl.acl())
            base = "" if path == "/" else path
            after.extend(f"{base}/{name}" for name in children.children())
        level = after
    return found


def comparable(found):
    """The servers' own nodes have the times of their own start, and the members in any order."""
    tree = dict(found)
    for path in [path for path in tree if path.startswith("/zookeeper")]:
        data, stat, acl = tree[path]
        if path == "/zookeeper/config":
            data = tuple(sorted((data or b"").split(b"\n")))
        tree[path] = (data, stat.children, acl)
    return tree


def reader_of(member, patience=20.0):
    client = Client(member.port, patience=patience)
    client.add_auth(*AUTH)
    client.call(wire.sync()).ok()
    return client


def dumps(ensemble):
    """The dump of every member that runs, by member; all are equal."""
    found = {}
    for member in ensemble.running:
        with reader_of(member) as client:
            found[member] = dump(client)
    first, *others = found
    tree = comparable(found[first])
    for other in others:
        its = comparable(found[other])
        if its == tree:
            continue
        paths = [path for path in {**tree, **its} if tree.get(path) != its.get(path)]
        path = min(paths)
        raise Broken(
            f"{len(paths)} nodes differ between {first} and {other}; the first is {path}: {tree.get(path)} and {its.get(path)}"
        )
    return found


def mismatches(ensemble):
    """Digests that a member found not to be the leader's."""
    return {str(member): mismatched(member) - member.excused for member in ensemble.running}


def mismatched(member):
    return int(member.metrics()["digest_mismatches_count"])


def recorded(member, zxid):
    """The digest that the member has for this transaction, or None."""
    for line in member.words("hash").splitlines():
        at, _, digest = line.partition(": ")
        if int(at, 16) == zxid:
            return int(digest)
    return None


def compared(member, zxid):
    """A server of Java's says that the digest that came with this transaction is its own one's."""
    told = f"Digests are matching for Zxid: {zxid:x},"
    return any(told in line for line in member.log_from(max(0, member.log_size() - 200000)))


def digests(ensemble):
    """(zxid, digest) at which all members agree: one whose digest Apache keeps. The leader's came with the transaction."""
    members = ensemble.running
    for _ in range(5):
        with Client(members[0].port) as client:
            zxid = client.call(wire.set_data("/", b"digest")).ok().zxid
            count = -zxid % INTERVAL
            if count:
                zxid = client.all(wire.set_data("/", b"digest %d" % number) for number in range(count))[-1].ok().zxid
            if zxid % INTERVAL:
                continue  # somebody else wrote, too
            try:
                until("every member has it", lambda zxid=zxid: all((member.zxid() or 0) >= zxid for member in members), 30)
                found = {str(member): recorded(member, zxid) for member in members}
            except Broken:
                found = {str(member): f"at {member.zxid() or 0:x}" for member in members}
                raise Broken(f"not every member came to 0x{zxid:x}: {found}") from None
            if None in found.values():
                continue
        if len(set(found.values())) != 1:
            raise Broken(f"the digests at 0x{zxid:x} differ: {found}")
        for member in members:
            if member.is_java:
                until(f"member {member} has compared the digest of 0x{zxid:x}", lambda: compared(member, zxid), 10)  # noqa: B023
        return zxid, found[str(members[0])]
    raise Broken(f"no digest of the same transaction on all members: {found}")


def agree(ensemble):
    """Nothing is written meanwhile. The dumps by member."""
    trees = dumps(ensemble)
    zxid, _ = digests(ensemble)
    wrong = {member: count for member, count in mismatches(ensemble).items() if count}
    if wrong:
        raise Broken(f"digests that did not match were counted by 0x{zxid:x}: {wrong}")
    return trees


# --- a load whose every acknowledged write is known ---

Write = collections.namedtuple("Write", "kind paths data request")


class Worker:
    """One session's writes, up to eight of them on their way at a time."""

    WINDOW, PAUSE = 8, 0.008

    def __init__(self, load, number):
        self.load, self.number = load, number
        self.root = f"{load.root}/{number}"
        self.session = Session(load.ports, 20000, seed=number)
        self.next, self.acked, self.unknown = 0, 0, 0
        self.zxid = 0  # of the last acknowledged one
        self.created = collections.OrderedDict()  # path -> (zxid, data): acknowledged and not deleted since
        self.deleted, self.refused = {}, []  # path -> zxid, or None if not known; paths of multis that failed
        self.maybe = set()
        self.counter = (0, 0)  # its last acknowledged value, and the zxid
        self.counter_sent = 0
        self.in_flight = collections.deque()
        self.idle = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def make(self):
        number, self.next = self.next, self.next + 1
        turn, path = number % 10, f"{self.root}/n{number:06d}"
        data = f"{self.number}-{number}".encode().ljust(100, b".")
        value = str(number).encode()
        if turn in (3, 5, 7) and self.created:
            path, _ = self.created.popitem(last=False)
            self.deleted[path] = None
            return Write("delete", (path,), None, wire.delete(path))
        if turn == 6:
            self.counter_sent = number
            return Write("count", (), number, wire.set_data(f"{self.root}/counter", value))
        if turn == 8:
            paths = (path, f"{path}-too")
            self.counter_sent = number
            parts = [*(wire.create(each, data) for each in paths), wire.set_data(f"{self.root}/counter", value)]
            return Write("multi", paths, data, wire.multi(*parts))
        if turn == 9:
            wrong = wire.delete(f"{self.root}/none") if number % 20 == 9 else wire.check(f"{self.root}/counter", 1 << 30)
            self.refused.append(path)
            return Write("refused", (path,), data, wire.multi(wire.create(path, data), wrong))
        return Write("create", (path,), data, wire.create(path, data))

    def settle(self, write, pending):
        try:
            reply = pending.wait(60)
        except Lost:
            self.unknown += 1
            if write.kind in ("create", "multi"):
                self.maybe.update(write.paths)
            raise
        if reply.error == wire.SESSION_MOVED:
            raise Lost("the session has moved")
        if write.kind == "refused":
            errors = reply.results()
            if not any(errors):
                raise Broken(f"a multi that cannot succeed did: {errors}")
            return
        if reply.error:
            raise Broken(f"{write.kind} of {write.paths} failed with error {reply.error}")
        if write.kind == "multi" and any(reply.results()):
            raise Broken(f"a multi failed: {reply.results()}")
        if reply.zxid <= self.zxid:
            raise Broken(f"zxid 0x{reply.zxid:x} was acknowledged after 0x{self.zxid:x}")
        self.zxid = reply.zxid
        self.acked += 1
        if write.kind == "delete":
            self.deleted[write.paths[0]] = reply.zxid
        for path in write.paths if write.kind in ("create", "multi") else ():
            self.created[path] = (reply.zxid, write.data)
        if write.kind == "count":
            self.counter = (write.data, reply.zxid)
        if write.kind == "multi":
            self.counter = (int(write.paths[0][-6:]), reply.zxid)

    def settle_all(self):
        """What is under way has its end. True if the connection is gone."""
        gone = False
        while self.in_flight:
            try:
                self.settle(*self.in_flight.popleft())
            except Lost:
                gone = True
        return gone

    def run(self):
        load = self.load
        try:
            client = self.session.connected(90)
            for path in (self.root, f"{self.root}/counter"):
                client.call(wire.create(path, b"0")).ok()
            while not load.ending.is_set():
                if load.paused.is_set():
                    self.settle_all()
                    self.idle.set()
                    load.changed.wait(0.05)
                    continue
                self.idle.clear()
                try:
                    client = self.session.connected(90)
                    write = self.make()
                    try:
                        pending = client.send(write.request)
                    except Lost:
                        # It may have been sent in part: as if the reply were lost.
                        pending = wire.Pending(0, 0)
                        pending.done.set()
                    self.in_flight.append((write, pending))
                    if len(self.in_flight) >= self.WINDOW:
                        self.settle(*self.in_flight.popleft())
                    load.ending.wait(self.PAUSE)
                except Lost:
                    self.settle_all()
                    client.drop()
            self.settle_all()
        except Expired as error:
            load.fail(f"worker {self.number}'s session 0x{self.session.id:x} was lost: {error}")
        except (Broken, Lost, wire.Refused) as error:
            load.fail(f"worker {self.number}: {error}")
        finally:
            self.idle.set()

    def verify(self, member, tree):
        """Every acknowledged write is in this dump, with its zxid."""
        here = f"member {member}:"
        for path, (zxid, data) in self.created.items():
            if path not in tree:
                raise Broken(f"{here} {path}, acknowledged with 0x{zxid:x}, is not there")
            content, stat, _ = tree[path]
            if (content, stat.czxid) != (data, zxid):
                raise Broken(f"{here} {path} is of 0x{stat.czxid:x}, and was acknowledged with 0x{zxid:x}")
        for path, zxid in self.deleted.items():
            if zxid is not None and path in tree:
                raise Broken(f"{here} {path} is there, and its deletion was acknowledged with 0x{zxid:x}")
        for path in self.refused:
            if path in tree:
                raise Broken(f"{here} {path} is there, and its multi was refused")
        known = {*self.created, *self.deleted, *self.maybe, f"{self.root}/counter"}
        for path in tree:
            if path.startswith(self.root + "/") and path not in known:
                raise Broken(f"{here} {path} is there, and was never written")
        value, zxid = self.counter
        content, stat, _ = tree[f"{self.root}/counter"]
        if int(content) < value or (self.counter_sent == value and zxid and stat.mzxid != zxid):
            raise Broken(f"{here} the counter is {content} of 0x{stat.mzxid:x}; {value} was acknowledged with 0x{zxid:x}")


class Load:
    count = 0

    def __init__(self, ensemble, workers=3):
        Load.count += 1
        self.root = f"/load-{Load.count}"
        self.ensemble, self.ports = ensemble, ensemble.ports()
        self.ending, self.paused, self.changed = threading.Event(), threading.Event(), threading.Event()
        self.broken = None
        with Client(ensemble.running[0].port) as client:
            client.call(wire.create(self.root)).ok()
        self.workers = [Worker(self, number) for number in range(workers)]

    def __enter__(self):
        for worker in self.workers:
            worker.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for worker in self.workers:
            worker.thread.join(90)
        for worker in self.workers:
            if worker.session.client is not None:
                worker.session.client.drop()

    def fail(self, why):
        self.broken = self.broken or why

    def check(self):
        if self.broken:
            raise Broken(self.broken)

    @property
    def acked(self):
        return sum(worker.acked for worker in self.workers)

    @property
    def unknown(self):
        return sum(worker.unknown for worker in self.workers)

    def progress(self, count=30, patience=90.0):
        """So many more writes of every worker are acknowledged."""
        goals = [worker.acked + count for worker in self.workers]

        def reached():
            self.check()
            return all(worker.acked >= goal for worker, goal in zip(self.workers, goals))

        until("every worker's writes are acknowledged", reached, patience)

    def rest(self):
        """Nothing is under way; nothing is begun until `go`."""
        for worker in self.workers:
            worker.idle.clear()
        self.paused.set()
        until("the load comes to rest", lambda: all(worker.idle.is_set() for worker in self.workers), 120)
        self.check()

    def go(self):
        self.paused.clear()

    def verify(self):
        """At rest: all members agree, and have what was acknowledged."""
        self.check()
        trees = agree(self.ensemble)
        for member, tree in trees.items():
            for worker in self.workers:
                worker.verify(member, tree)
        return trees


class Holder:
    """A session with ephemerals and a watch that is to live through everything."""

    def __init__(self, ensemble, timeout_ms=30000):
        self.session = Session(ensemble.ports(), timeout_ms, seed=77)
        client = self.session.connected()
        client.call(wire.create("/hold")).ok()
        client.call(wire.create("/hold/watched", b"0")).ok()
        self.ephemerals = [client.call(wire.create("/hold/e-", b"held", wire.EPHEMERAL_SEQUENCE)).created()[0] for _ in range(5)]
        client.call(wire.get("/hold/watched", watch=True)).ok()
        self.ending, self.lost = threading.Event(), None
        self.id = self.session.id
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.lock = threading.Lock()
        self.seen = 0
        self.thread.start()

    def run(self):
        """Takes the session on whenever its connection ends, and says again what it watches."""
        while not self.ending.is_set():
            client = self.session.client
            if client.open:
                with client.changed:
                    client.changed.wait(0.1)
                    events, client.events = client.events, []
                with self.lock:
                    self.seen += events.count((wire.CHANGED, "/hold/watched"))
                continue
            try:
                client = self.session.connected(90)
                client.set_watches(client.last_zxid or self.session.last_zxid, data=["/hold/watched"]).wait()
            except Expired as error:
                self.lost = f"the held session was lost: {error}"
                return
            except Lost:
                pass

    def check(self, port, value):
        """The session's watch is told of a change, and set again."""
        with self.lock:
            before = self.seen
        with Client(port) as client:
            client.call(wire.set_data("/hold/watched", value)).ok()

        def told():
            if self.lost:
                raise Broken(self.lost)
            return self.seen > before

        until("the held watch is told of a change", told, 40)

        def again():
            try:
                self.session.client.call(wire.get("/hold/watched", watch=True)).ok()
                return True
            except Lost:
                return False

        until("the watch is set again", again, 40)
        if self.session.id != self.id:
            raise Broken(f"the session is 0x{self.session.id:x}, and was 0x{self.id:x}")

    def verify(self, trees):
        for member, tree in trees.items():
            for path in self.ephemerals:
                if path not in tree or tree[path][1].owner != self.id:
                    raise Broken(f"member {member}: {path} is not there, or not of session 0x{self.id:x}")

    def end(self, ensemble):
        """Closes the session; its ephemerals must be gone from every member."""
        self.ending.set()
        self.thread.join(5)
        self.session.close()
        for member in ensemble.running:
            with reader_of(member) as client:
                left = [path for path in self.ephemerals if client.call(wire.exists(path)).error == wire.OK]
                if left:
                    raise Broken(f"member {member} has {left} of a closed session")
