"""Ensembles whose members change while they run: a client asks for another configuration, and every member takes it over."""

import os
import threading
import time

import checks
import wire
from checks import Load
from ensemble import FLAGS, LINES, Broken, Member, Mixed, sent, until
from servers import free_port, say
from wire import Client, Expired, Lost, Session

CONFIG = "/zookeeper/config"
SUPER = ("digest", b"super:test")
SUPER_FLAG = "-Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU="


class Node(Member):
    """A member whose addresses and part can change."""

    def __init__(self, number, kind, folder, release, flags, observer):
        super().__init__(number, kind, folder, (), release, flags, observer)
        self.move(client=False)
        self.configured = None  # zoo.cfg, as it was before the server wrote to it

    def move(self, client=True, quorum=True):
        """Other ports from now on."""
        if client:
            self.port = free_port()
        if quorum:
            self.quorum, self.election = free_port(), free_port()

    @property
    def spec(self):
        part = "observer" if self.observer else "participant"
        return f"server.{self.number}=127.0.0.1:{self.quorum}:{self.election}:{part};{self.address}"


class Changing(Mixed):
    """Like Mixed, with servers that may join. `members` are those of the configuration, `nodes` all of them."""

    def __init__(self, folder, kinds, release, observer=None, spares=(), lines=(), reconfig=True):
        self.folder = folder
        kinds = [*kinds, *([observer] if observer else [])]
        self.base = [*LINES, *([f"reconfigEnabled={str(reconfig).lower()}"]), *lines]
        self.nodes = [
            Node(number, kind, os.path.join(folder, str(number)), release, [*FLAGS, SUPER_FLAG], 3 < number <= len(kinds))
            for number, kind in enumerate([*kinds, *spares], 1)
        ]
        self.members = self.nodes[: len(kinds)]
        for node in self.members:
            self.provide(node)

    def __getitem__(self, number):
        return next(node for node in self.nodes if node.number == number)

    def provide(self, node):
        """Writes its zoo.cfg as an operator would: it and the members of now."""
        members = self.members if node in self.members else [*self.members, node]
        node.lines = (*self.base, *(member.spec for member in members))
        node.configure()
        node.configured = content(node.config)

    def end(self):
        for node in self.nodes:
            if node.is_running:
                node.kill()

    def keep_logs(self, folder):
        members, self.members = self.members, self.nodes
        super().keep_logs(folder)
        self.members = members

    def is_member(self, node, there):
        if there:
            self.members = sorted({*self.members, node}, key=lambda each: each.number)
        else:
            self.members = [member for member in self.members if member is not node]


def parsed(text):
    """(version, lines of servers) of a configuration."""
    lines = text.decode().split("\n")
    if not lines[-1].startswith("version="):
        raise Broken(f"the last line of {CONFIG} is not its version: {text!r}")
    return int(lines[-1][8:], 16), sorted(lines[:-1])


def config_of(member):
    with Client(member.port) as client:
        client.call(wire.sync()).ok()
        return parsed(client.call(wire.get(CONFIG)).data()[0])


class ConfigWatch:
    """A session that watches the configuration, and goes to the servers that it names."""

    def __init__(self, ensemble):
        self.session = Session(ensemble.ports(), 30000, seed=99)
        self.session.connected()
        self.id, self.seen, self.broken = self.session.id, [], None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        armed = None
        while not self.ending.is_set():
            try:
                client = self.session.connected()
                if armed is not client or client.events:
                    with client.changed:
                        client.events.clear()
                    armed = client
                    config = parsed(client.call(wire.get(CONFIG, watch=True)).data()[0])
                    # A server of Java's tells of a change before it counts it as processed, so its reply can have an older
                    # zxid than what it gives; with that the client would be let in where the change is not known yet.
                    while client.last_zxid < config[0]:
                        client.call(wire.exists(CONFIG))
                    self.note(config)
                with client.changed:
                    if not client.events and client.open:
                        client.changed.wait(0.2)
            except Lost:
                self.ending.wait(0.05)
            except (Expired, Broken, wire.Refused) as error:
                self.broken = f"the client that watches {CONFIG}: {error}"
                return

    def note(self, config):
        version, lines = config
        if self.seen and version < self.seen[-1]:
            port, zxid = self.session.client.port, self.session.client.last_zxid
            raise Broken(
                f"version {version:x} after {self.seen[-1]:x}, at port {port} and zxid {zxid:x}; "
                f"the client had seen {self.session.last_zxid:x}"
            )
        if not self.seen or version > self.seen[-1]:
            self.seen.append(version)
        ports = [int(line.rpartition(":")[2]) for line in lines]
        self.session.ports = ports
        if self.session.client.port not in ports:
            self.session.client.drop()  # that server is no member any more

    def saw(self, version):
        def there():
            if self.broken:
                raise Broken(self.broken)
            return self.seen and self.seen[-1] >= version

        until(f"the watch tells of configuration {version:x}", there, 40)
        if version not in self.seen:
            raise Broken(f"the watch did not tell of configuration {version:x}: {[f'{each:x}' for each in self.seen]}")
        if self.session.id != self.id:
            raise Broken(f"the watching session is 0x{self.session.id:x}, and was 0x{self.id:x}")

    def end(self):
        self.ending.set()
        self.thread.join(10)
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.ending.set()
        if kind is None:
            self.end()


def ask(ensemble, request, through, expected):
    """The reply's configuration. Who asks a server whose part changes may lose the connection before the reply."""
    try:
        with Client(through.port, 30000) as client:
            client.add_auth(*SUPER)
            reply = client.call(request, 60).ok()
            text, stat = reply.data()
            version, lines = parsed(text)
            if (version, stat.mzxid, stat.version) != (reply.zxid, reply.zxid, -1):
                raise Broken(f"configuration {version:x}, replied to with zxid {reply.zxid:x}, and its Stat is {stat}")
    except Lost:

        def known():
            for member in ensemble.members:
                try:
                    version, lines = config_of(member)
                    if lines == expected:
                        return version, lines
                except (OSError, wire.Refused):
                    pass
            return None

        version, lines = until("the configuration that was asked for", known, 60, 0.2)
    if lines != expected:
        raise Broken(f"the configuration is {lines}, and {expected} was asked for")
    return version


def change(ensemble, watch, through, how="incremental", joining=(), leaving=(), version=-1):
    """Asks for the configuration with these members, through that one, and checks that it is in force everywhere."""
    for node in joining:
        ensemble.is_member(node, True)
    for node in leaving:
        ensemble.is_member(node, False)
    specs = [member.spec for member in ensemble.members]
    if how == "incremental":
        joins = ",".join(node.spec for node in joining) or None
        leaves = ",".join(str(node.number) for node in leaving) or None
        request = wire.reconfig(joins, leaves, None, version)
    else:
        request = wire.reconfig(None, None, ",".join(specs), version)
    version = ask(ensemble, request, through, sorted(specs))
    in_force(ensemble, version)
    watch.saw(version)
    return version


def in_force(ensemble, version):
    """Every member that runs has it, in the tree and in its files; trees and digests are equal."""
    expected = sorted(member.spec for member in ensemble.members)
    ensemble.led()
    for member in ensemble.running:

        def has(member=member):
            try:
                return config_of(member) == (version, expected)
            except (OSError, wire.Refused):
                return False

        until(f"member {member} has configuration {version:x}", has, 40)
    check_files(ensemble, version)
    checks.agree(ensemble)


def content(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def unwritten(member, version):
    """What is not in the member's files as Apache's server writes it: the file of the members beside zoo.cfg, whose last line
    names it and which says nothing of members and client ports itself any more, and zoo.cfg as it was. None when all is."""
    static = (content(member.config) or "").rstrip("\n").split("\n")
    if static[-1] != f"dynamicConfigFile={member.config}.dynamic.{version:x}":
        return f"the last line of {member.config} is {static[-1]}"
    configured = member.configured.rstrip("\n").split("\n")
    kept = [line for line in configured if not line.startswith(("server.", "clientPort", "peerType", "dynamicConfigFile"))]
    if sorted(static[:-1]) != sorted(kept):
        return f"{member.config} differs from what it was by {sorted({*static[:-1]} ^ {*kept})}"
    if content(f"{member.config}.bak") != member.configured:
        return f"{member.config}.bak is not what {member.config} was"
    if content(f"{member.config}.dynamic.next") is not None:
        return f"{member.config}.dynamic.next is there"
    return None


def check_files(ensemble, version):
    """Files of members are the same on all of them, those of earlier configurations too."""
    expected = {f"{version:x}": "\n".join(sorted(member.spec for member in ensemble.members))}
    for member in ensemble.running:
        try:
            until("the files", lambda member=member: unwritten(member, version) is None, 10, 0.1)
        except Broken:
            raise Broken(f"member {member}: {unwritten(member, version)}") from None
        for name in os.listdir(member.dir):
            if name.startswith("zoo.cfg.dynamic."):
                found, wanted = content(os.path.join(member.dir, name)), expected.setdefault(name[16:], None)
                if wanted is None:
                    expected[name[16:]] = found
                elif found != wanted:
                    raise Broken(f"member {member}: {name} is {found!r}, and should be {wanted!r}")


# --- cases: (ensemble, root of its own). Members 1 to 4 are there before and after, 5 and 6 are not; 3 leads. ---


def known(ensemble):
    """Of servers that follow, each kind if there are both."""
    leader = ensemble.led()
    others = [member for member in ensemble.voters if member is not leader]
    return list({member.kind: member for member in others}.values())


def started(ensemble, node, observer=False):
    """A server that is to join: it follows, and is no member."""
    node.observer = observer
    ensemble.provide(node)
    node.spawn()

    def follows():
        ensemble.alive(node)
        return node.mode() in ("follower", "observer")

    until(f"server {node}, which is no member, follows", follows)


def used(ensemble, member, root):
    """A write through it is seen through every other."""
    with Client(member.port) as client:
        client.call(wire.create(root, b"0")).ok()
        zxid = client.call(wire.set_data(root, b"%d" % member.number)).ok().zxid
    for other in ensemble.members:
        with checks.reader_of(other) as reader:
            data, stat = reader.call(wire.get(root)).data()
            if (data, stat.mzxid) != (b"%d" % member.number, zxid):
                raise Broken(f"member {other} has {data} of {stat.mzxid:x}, written through {member} as {zxid:x}")


def servers_join_and_leave(ensemble, root):
    """One of each kind, asked for through either kind."""
    with ConfigWatch(ensemble) as watch:
        for node, through in zip((ensemble[5], ensemble[6]), (ensemble[1], ensemble[2])):
            started(ensemble, node)
            change(ensemble, watch, through, joining=[node])
            used(ensemble, node, f"{root}-{node.number}")
        # Five voters now: the first two of them are not needed.
        for number in (1, 2):
            ensemble[number].kill()
        ensemble.led()
        used_by = [member for member in ensemble.running if not member.observer]
        with Client(used_by[0].port) as client:
            client.call(wire.create(f"{root}-without-two")).ok()
        for number in (1, 2):
            ensemble[number].spawn()
        ensemble.led()
        change(ensemble, watch, ensemble[1], leaving=[ensemble[5]])
        ensemble[5].stop()
        change(ensemble, watch, ensemble[2], leaving=[ensemble[6]])
        ensemble[6].stop()
    ensemble.heal()


def an_observer_joins_and_leaves(ensemble, root):
    with ConfigWatch(ensemble) as watch:
        for node in (ensemble[5], ensemble[6]):
            started(ensemble, node, observer=True)
        change(ensemble, watch, ensemble[3], joining=[ensemble[5], ensemble[6]])
        for node in (ensemble[5], ensemble[6]):
            used(ensemble, node, f"{root}-{node.number}")
        change(ensemble, watch, ensemble[4], leaving=[ensemble[5], ensemble[6]])
        for node in (ensemble[5], ensemble[6]):
            node.stop()


def parts_change(ensemble, root):
    """A follower of either kind becomes an observer and one again, and the observer a follower."""
    with ConfigWatch(ensemble) as watch:
        for number in (1, 2, 4):
            node = ensemble[number]
            was = node.observer
            for observer in (not was, was):
                node.observer = observer
                change(ensemble, watch, ensemble[3], joining=[node])
                used(ensemble, node, f"{root}-{number}-{observer}")


def the_leader_becomes_an_observer(ensemble, root):
    with ConfigWatch(ensemble) as watch:
        node = ensemble[3]
        for observer, through in ((True, ensemble[1]), (False, ensemble[2])):
            node.observer = observer
            change(ensemble, watch, through, joining=[node])
            used(ensemble, node, f"{root}-{observer}")
    ensemble.heal()


def the_leader_leaves(ensemble, root):
    """Asked for through itself; it comes back as it is, without a restart."""
    with ConfigWatch(ensemble) as watch:
        old = ensemble[3]
        change(ensemble, watch, old, leaving=[old])
        if ensemble.led() is old:
            raise Broken("it leads, and is no member")
        used(ensemble, ensemble.led(), f"{root}-without")
        change(ensemble, watch, ensemble[1], joining=[old])
        used(ensemble, old, f"{root}-with")
    ensemble.heal()


def client_ports_change(ensemble, root):
    with ConfigWatch(ensemble) as watch:
        for number in (1, 2, 3, 4):
            node, before = ensemble[number], ensemble[number].port
            through = ensemble[2 if number == 1 else 1]
            leader = ensemble.led()
            node.move(quorum=False)
            change(ensemble, watch, through, joining=[node])
            used(ensemble, node, f"{root}-{number}")
            if ensemble.led() is not leader:
                raise Broken(f"the client port of {node} changed, and with it the leader: {leader} was it")
            try:
                Client(before, patience=2.0).drop()
                raise Broken(f"member {node} still serves clients at its old port")
            except OSError:
                pass


def quorum_ports_change(ensemble, root):
    with ConfigWatch(ensemble) as watch:
        for number in (1, 2, 4, 3):
            node = ensemble[number]
            node.move(client=False)
            change(ensemble, watch, ensemble[2 if number == 1 else 1], joining=[node])
            used(ensemble, node, f"{root}-{number}")
    ensemble.heal()


def by_list_of_members(ensemble, root):
    """All but one, which goes on and is taken in again; then another one with a condition on the version."""
    with ConfigWatch(ensemble) as watch:
        version = -1
        for number in (1, 2):
            node = ensemble[number]
            version = change(ensemble, watch, ensemble[3], "list", leaving=[node], version=version)
            used(ensemble, ensemble[3], f"{root}-{number}-without")
            version = change(ensemble, watch, ensemble[4], "list", joining=[node], version=version)
            used(ensemble, node, f"{root}-{number}-with")


def refused_ones_change_nothing(ensemble, root):
    before = config_of(ensemble[3])
    version = before[0]
    nobody = [f"server.{number}=127.0.0.1:{free_port()}:{free_port()};127.0.0.1:{free_port()}" for number in (8, 9)]
    requests = (
        (wire.reconfig(nobody[0].replace(";", ":observer;")), wire.NO_AUTH, None),
        (wire.reconfig(nobody[0].replace(";", ":observer;"), version=version - 1), wire.BAD_VERSION, SUPER),
        (wire.reconfig("nonsense"), wire.BAD_ARGUMENTS, SUPER),
        (wire.reconfig(leaving="1,2,3"), wire.BAD_ARGUMENTS, SUPER),
        (wire.reconfig(leaving="x"), wire.MARSHALLING_ERROR, SUPER),
        (wire.reconfig(members=",".join([ensemble[3].spec, *nobody])), wire.NO_QUORUM_OF_NEW, SUPER),
    )
    for member in ensemble.members:
        for request, error, auth in requests:
            with Client(member.port) as client:
                if auth:
                    client.add_auth(*auth)
                found = client.call(request).error
                if found != error:
                    raise Broken(f"{request} through {member}: error {found}, where {error} was to be expected")
        used(ensemble, member, f"{root}-{member.number}")
    for member in ensemble.members:
        if config_of(member) != before:
            raise Broken(f"member {member} has {config_of(member)} after requests that were refused, and had {before}")
    in_force(ensemble, version)


def outlives_restarts(ensemble, root):
    """A member that was down takes over what the others agreed on, and all of them start from what they have written."""
    with ConfigWatch(ensemble) as watch:
        for number in (1, 2):
            ensemble[number].kill()
            ensemble.led()
            node = ensemble[4]
            node.move(quorum=False)
            version = change(ensemble, watch, ensemble[3], joining=[node])
            ensemble.back(ensemble[number])
            in_force(ensemble, version)
        for order in ((1, 2, 3, 4), (4, 3, 2, 1)):
            for member in ensemble.members:
                member.kill()
            for number in order:
                ensemble[number].spawn()
            in_force(ensemble, version)
            watch.saw(version)
        used(ensemble, ensemble.led(), root)
    ensemble.heal()


def changes_under_load(ensemble, root):
    """Everything at once, with the leader killed in between."""
    marks = {node: node.log_size() for node in ensemble.nodes}
    with ConfigWatch(ensemble) as watch, Load(ensemble) as load:
        load.progress()

        def then(what, through, **how):
            begun = time.monotonic()
            for node in (*how.get("joining", ()), *how.get("leaving", ())):
                ensemble.is_member(node, node in how.get("joining", ()))
            specs = sorted(member.spec for member in ensemble.members)
            joins = ",".join(node.spec for node in how.get("joining", ())) or None
            leaves = ",".join(str(node.number) for node in how.get("leaving", ())) or None
            version = ask(ensemble, wire.reconfig(joins, leaves), through, specs)
            ensemble.led()
            load.progress()
            took = time.monotonic() - begun
            watch.saw(version)
            say(f"      {what}: configuration {version:x}, writes after {took:.1f} s, {load.acked} acknowledged")
            return version

        for node in (ensemble[5], ensemble[6]):
            started(ensemble, node)
            then(f"{node} joins", ensemble[4], joining=[node])
        for number in (2, 1):
            ensemble[number].observer = True
            then(f"{ensemble[number]} observes", ensemble[4], joining=[ensemble[number]])
        leader = ensemble.led()
        leader.kill()
        ensemble.led()
        load.progress()
        ensemble.back(leader)
        for number in (1, 2):
            ensemble[number].observer = False
            then(f"{ensemble[number]} follows", ensemble[4], joining=[ensemble[number]])
        leader = ensemble.led()
        then(f"{leader}, which leads, leaves", ensemble[4], leaving=[leader])
        if leader.number < 5:
            then(f"{leader} comes back", ensemble[4], joining=[leader])
        for node in (ensemble[5], ensemble[6]):
            if node in ensemble.members:
                then(f"{node} leaves", ensemble[4], leaving=[node])
            node.stop()
        ensemble[3].move(client=False)
        version = then(f"{ensemble[3]} moves", ensemble[4], joining=[ensemble[3]])
        load.rest()
        for member in ensemble.members:
            # Among themselves Java's servers count digests of transactions that a snapshot had already, under load.
            others = [node for node in ensemble.nodes if node.is_java and node is not member]
            if member.is_java and any("SNAP" in sent(other, member.number, marks[other]) for other in others):
                member.excused = checks.mismatched(member)
        in_force(ensemble, version)
        load.verify()
        say(f"      {load.acked} writes acknowledged, {load.unknown} without an answer")
    ensemble.heal()


STAGES = [  # (case, also in the quick form)
    (servers_join_and_leave, True),
    (an_observer_joins_and_leaves, False),
    (parts_change, True),
    (the_leader_becomes_an_observer, False),
    (the_leader_leaves, True),
    (client_ports_change, True),
    (quorum_ports_change, False),
    (by_list_of_members, False),
    (refused_ones_change_nothing, True),
    (outlives_restarts, False),
    (changes_under_load, False),
]
