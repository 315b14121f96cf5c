"""What clients ask for, through members of either kind."""

import hashlib
import base64
import time

import wire
from checks import AUTH, reader_of
from ensemble import Broken, until
from wire import Client, Expired, Lost, Session

LARGE = bytes(range(256)) * 3600  # 900 kB: a request may have 1 MB
NO_OWNER = 0  # what clients see of a container or a TTL node
READER = "reader:" + base64.b64encode(hashlib.sha1(b"reader:secret").digest()).decode()


def expect(what, found, wanted):
    if found != wanted:
        raise Broken(f"{what}: {found!r}, where {wanted!r} was to be expected")


def through(ensemble, member, root):
    """Every kind of write through this member; each other one then has what came of it."""
    with Client(member.port, 20000) as client:

        def error(request):
            return client.call(request).error

        path, stat = client.call(wire.create(root, b"root")).created()
        expect("the created path", path, root)
        expect("czxid is of the reply", stat.czxid, client.last_zxid)
        expect("creating it again", error(wire.create(root)), wire.NODE_EXISTS)
        expect("creating below nothing", error(wire.create(f"{root}/no/such")), wire.NO_NODE)

        names = [client.call(wire.create(f"{root}/s-", b"", wire.SEQUENCE)).created()[0] for _ in range(3)]
        expect("sequential names", names, [f"{root}/s-{number:010d}" for number in range(3)])
        path, stat = client.call(wire.create(f"{root}/e", b"", wire.EPHEMERAL)).created()
        expect("an ephemeral's owner", stat.owner, client.session)
        expect("a child of an ephemeral", error(wire.create(f"{root}/e/c")), wire.NO_CHILDREN_FOR_EPHEMERALS)
        path, stat = client.call(wire.create(f"{root}/es-", b"", wire.EPHEMERAL_SEQUENCE)).created()
        expect("an ephemeral sequential's name", path, f"{root}/es-{4:010d}")
        expect("its owner", stat.owner, client.session)

        path, stat = client.call(wire.create(f"{root}/container", b"c", wire.CONTAINER)).created()
        expect("a container's owner", stat.owner, NO_OWNER)
        client.call(wire.create(f"{root}/container/child")).ok()
        path, stat = client.call(wire.create(f"{root}/ttl", b"t", wire.TTL, ttl=3600000)).created()
        expect("a TTL node's owner", stat.owner, NO_OWNER)
        path, stat = client.call(wire.create(f"{root}/ttl-", b"t", wire.TTL_SEQUENCE, ttl=3600000)).created()
        expect("a TTL sequential's name", path, f"{root}/ttl-{7:010d}")
        client.call(wire.create(f"{root}/short", b"t", wire.TTL, ttl=300)).ok()

        expect("setting data", client.call(wire.set_data(root, b"one", 0)).stat().version, 1)
        expect("setting with an old version", error(wire.set_data(root, b"two", 0)), wire.BAD_VERSION)
        expect("setting nothing", error(wire.set_data(f"{root}/none", b"")), wire.NO_NODE)
        expect("deleting a parent", error(wire.delete(root)), wire.NOT_EMPTY)
        expect("deleting nothing", error(wire.delete(f"{root}/none")), wire.NO_NODE)
        expect("deleting with a wrong version", error(wire.delete(names[0], 9)), wire.BAD_VERSION)
        expect("deleting", error(wire.delete(names[0], 0)), wire.OK)

        made = [wire.create(f"{root}/m{number}", b"m") for number in range(3)]
        others = (
            wire.create(f"{root}/m0/e", b"", wire.EPHEMERAL),
            wire.check(f"{root}/m0", 0),
            wire.set_data(f"{root}/m1", b"n", 0),
            wire.delete(f"{root}/m2"),
        )
        reply = client.call(wire.multi(*made, *others))
        expect("a multi", (reply.error, reply.results()), (0, [0] * 7))
        expect("zxid of what a multi made", client.call(wire.exists(f"{root}/m0")).stat().czxid, reply.zxid)
        refused = [
            (
                (wire.create(f"{root}/x"), wire.check(f"{root}/m0", 7), wire.create(f"{root}/y")),
                [0, wire.BAD_VERSION, wire.RUNTIME_INCONSISTENCY],
            ),
            ((wire.delete(f"{root}/none"), wire.create(f"{root}/x")), [wire.NO_NODE, wire.RUNTIME_INCONSISTENCY]),
            ((wire.set_data(f"{root}/m1", b"lost"), wire.create(f"{root}/m1")), [0, wire.NODE_EXISTS]),
            ((wire.check(f"{root}/none", 0),), [wire.NO_NODE]),
        ]
        for parts, errors in refused:
            reply = client.call(wire.multi(*parts))
            expect("a multi that fails", reply.results(), errors)
        expect("what a failed multi would have made", error(wire.exists(f"{root}/x")), wire.NO_NODE)
        expect("what a failed multi would have set", client.call(wire.get(f"{root}/m1")).data()[0], b"n")
        expect("a multi of nothing", client.call(wire.multi()).results(), [])

        expect("an ACL of nobody", error(wire.create(f"{root}/acl", b"", 0, ())), wire.INVALID_ACL)
        expect("auth without any", error(wire.create(f"{root}/acl", b"", 0, ((31, "auth", ""),))), wire.INVALID_ACL)
        with Client(member.port) as known:
            known.add_auth(*AUTH)
            known.call(wire.create(f"{root}/acl", b"secret", 0, ((31, "auth", ""),))).ok()
            expect("auth becomes the ids", known.call(wire.get_acl(f"{root}/acl")).acl(), ((31, "digest", READER),))
            expect("reading without a right", error(wire.get(f"{root}/acl")), wire.NO_AUTH)
            expect("writing without a right", error(wire.set_data(f"{root}/acl", b"")), wire.NO_AUTH)
            expect("setACL without a right", error(wire.set_acl(f"{root}/acl", wire.OPEN)), wire.NO_AUTH)
            reply = client.call(wire.multi(wire.create(f"{root}/x"), wire.set_data(f"{root}/acl", b"")))
            expect("a multi without a right", reply.results(), [0, wire.NO_AUTH])
            two = ((1, "world", "anyone"), (31, "digest", READER))
            expect("setACL", known.call(wire.set_acl(f"{root}/acl", two, 0)).stat().aversion, 1)
            expect("setACL with an old version", known.call(wire.set_acl(f"{root}/acl", two, 0)).error, wire.BAD_VERSION)
            expect("reading by the new ACL", client.call(wire.get(f"{root}/acl")).data()[0], b"secret")
            known.call(wire.create(f"{root}/acl/mine", b"", 0, ((31, "auth", ""),))).ok()

        client.call(wire.create(f"{root}/large", LARGE)).ok()
        client.call(wire.set_data(f"{root}/large", LARGE[::-1], 0)).ok()
        client.call(wire.create(f"{root}/null", None)).ok()
        client.call(wire.create(f"{root}/ünïcødé-日本", "é".encode())).ok()
        client.call(wire.delete(f"{root}/container/child")).ok()

        last = client.last_zxid
        for other in ensemble.members:
            with reader_of(other) as reader:
                expect(f"large data at {other}", reader.call(wire.get(f"{root}/large")).data()[0], LARGE[::-1])
                expect(f"no data at {other}", reader.call(wire.get(f"{root}/null")).data()[0] or b"", b"")
                expect(f"the ephemeral's owner at {other}", reader.call(wire.exists(f"{root}/e")).stat().owner, client.session)
                if reader.last_zxid < last:
                    raise Broken(f"member {other} is at 0x{reader.last_zxid:x} after sync, and 0x{last:x} was acknowledged")
                for path in ("container", "short"):
                    gone = lambda reader=reader, path=path: reader.call(wire.exists(f"{root}/{path}")).error == wire.NO_NODE  # noqa: E731
                    until(f"the leader deletes {path}, seen at {other}", gone, 30)

    # The session is closed; what it owned is gone everywhere.
    for other in ensemble.members:
        with reader_of(other) as reader:
            for path in ("e", f"es-{4:010d}", "m0/e"):
                error = reader.call(wire.exists(f"{root}/{path}")).error
                expect(f"an ephemeral of a closed session at {other}", error, wire.NO_NODE)


def synced_reads(ensemble, member, root, rounds=40):
    """A read behind sync has what another member acknowledged before."""
    leader = ensemble.led()
    # On a leader of Java's a sync of its own client waits for nothing, and what is committed may not be applied yet.
    others = [other for other in ensemble.members if other is not member and not (other is leader and other.is_java)]
    with Client(member.port) as writer:
        writer.call(wire.create(root, b"-1")).ok()
        readers = [Client(other.port) for other in others]
        try:
            for number in range(rounds):
                writer.call(wire.set_data(root, b"%d" % number)).ok()
                # Pipelined, as clients do it: the read waits for the sync before it.
                asked = [(reader.send(wire.sync(root)), reader.send(wire.get(root))) for reader in readers]
                for other, (synced, read) in zip(others, asked):
                    synced.wait().ok()
                    expect(f"a read behind sync at {other}", read.wait().data()[0], b"%d" % number)
        finally:
            for reader in readers:
                reader.close()


def taken_up(member, client, password=None):
    """The session of `client` at another member, once that one has what the client has seen."""

    def attempt():
        return Client(member.port, client.timeout_ms, client.session, password or client.password, client.last_zxid, xid=client.xid + 100)

    return until(f"member {member} takes the session up", attempt, 30)


def moved_session(ensemble, first, second, root, late=(wire.SESSION_MOVED,)):
    """A session goes to a member of the other kind, while its old connection is still there; `late` are the errors that a write by that
    one may get."""
    old = Client(first.port, 20000)
    new = None
    try:
        old.call(wire.create(root, b"", wire.EPHEMERAL)).ok()
        new = taken_up(second, old)
        expect("the session", (new.session, new.password, new.timeout_ms), (old.session, old.password, old.timeout_ms))
        expect("the ephemeral lives", new.call(wire.exists(root)).stat().owner, old.session)
        new.call(wire.set_data(root, b"new")).ok()
        try:
            error = old.call(wire.set_data(root, b"old"), 15).error
        except Lost:
            error = wire.SESSION_MOVED  # the connection was closed instead
        if error not in late:
            raise Broken(f"a write by the connection that was left: {error}, where one of {late} was to be expected")
        new.call(wire.sync()).ok()
        expect("its data", new.call(wire.get(root)).data()[0], b"new" if error else b"old")
        new.call(wire.set_data(root, b"still")).ok()
        # Back again, as a client does that lost this one, too.
        new.drop()
        old.drop()
        new = taken_up(first, new)
        new.call(wire.sync()).ok()
        expect("its data", new.call(wire.get(root)).data()[0], b"still")
        # Where the session's connection is, a wrong password would end that, as it does with Java alone.
        wrong = bytes(byte ^ 1 for byte in new.password)
        try:
            taken_up(second, new, wrong).drop()
            raise Broken(f"member {second} took a wrong password")
        except Expired:
            pass
        expect("the session lives on", new.call(wire.exists(root)).error, wire.OK)
    finally:
        old.drop()
        if new is not None:
            new.close()
    for member in (first, second):
        with reader_of(member) as reader:
            expect(f"its ephemeral, closed, at {member}", reader.call(wire.exists(root)).error, wire.NO_NODE)
        try:
            Client(member.port, 20000, new.session, new.password, 0).drop()
            raise Broken(f"member {member} took a closed session")
        except Expired:
            pass


def expiring_session(ensemble, first, second, root):
    """A session whose client is gone expires: its ephemerals go everywhere, watches tell of it, nobody takes it again."""
    with Client(second.port) as watcher:
        client = Client(first.port, 3000)
        expect("the timeout", client.timeout_ms, 3000)
        client.call(wire.create(root, b"")).ok()
        paths = [client.call(wire.create(f"{root}/e-", b"", wire.EPHEMERAL_SEQUENCE)).created()[0] for _ in range(3)]
        watcher.call(wire.sync()).ok()
        for path in paths:
            watcher.call(wire.exists(path, watch=True)).ok()
        # It lives by its pings alone for longer than its timeout.
        held = time.monotonic() + 4.5
        until("it is held by pings", lambda: time.monotonic() > held, 10, 0.1)
        expect("it is alive", client.call(wire.exists(paths[0])).error, wire.OK)
        if watcher.events:
            raise Broken(f"events while the session lived: {watcher.events}")
        client.drop()
        for path in paths:
            watcher.await_event((wire.DELETED, path), 30)
    for member in ensemble.running:
        with reader_of(member) as reader:
            expect(f"children at {member}", reader.call(wire.children(root)).children(), [])
        try:
            Client(member.port, 3000, client.session, client.password, 0).drop()
            raise Broken(f"member {member} took an expired session")
        except Expired:
            pass


def watches_over_failover(ensemble, first, second, root):
    """The member with the watches is killed; what changed meanwhile is told by the next one, and the other watches stay."""
    session = Session([second.port], 30000)
    client = session.go_to(first.port)
    third = next(member for member in ensemble.voters if member not in (first, second))
    for path in ("", "/data", "/gone", "/parent", "/quiet"):
        client.call(wire.create(root + path, b"0")).ok()
    for path in ("/data", "/gone", "/quiet"):
        client.call(wire.get(root + path, watch=True)).ok()
    client.call(wire.exists(f"{root}/missing", watch=True))
    client.call(wire.exists(f"{root}/later", watch=True))
    client.call(wire.children(f"{root}/parent", watch=True)).ok()
    session.last_zxid = client.last_zxid
    first.kill()
    ensemble.led()
    with Client(third.port) as writer:
        writer.call(wire.set_data(f"{root}/data", b"1")).ok()
        writer.call(wire.delete(f"{root}/gone")).ok()
        writer.call(wire.create(f"{root}/missing")).ok()
        writer.call(wire.create(f"{root}/parent/child")).ok()
        last = session.last_zxid
        client = session.go_to(second.port)
        client.call(wire.sync()).ok()
        data = [f"{root}/{name}" for name in ("data", "gone", "quiet")]
        missing = [f"{root}/{name}" for name in ("missing", "later")]
        client.set_watches(last, data, missing, child=[f"{root}/parent"]).wait().ok()
        for event in (
            (wire.CHANGED, f"{root}/data"),
            (wire.DELETED, f"{root}/gone"),
            (wire.CREATED, f"{root}/missing"),
            (wire.CHILD, f"{root}/parent"),
        ):
            client.await_event(event, 20)
        if client.events:
            raise Broken(f"more events than changes: {client.events}")
        writer.call(wire.set_data(f"{root}/quiet", b"1")).ok()
        writer.call(wire.create(f"{root}/later")).ok()
        client.await_event((wire.CHANGED, f"{root}/quiet"), 20)
        client.await_event((wire.CREATED, f"{root}/later"), 20)
    ensemble.back(first)
    # And on to the member that was killed.
    client = session.go_to(first.port)
    client.call(wire.sync()).ok()
    expect("its data", client.call(wire.get(f"{root}/data")).data()[0], b"1")
    session.close()
