"""An ensemble on loopback whose members are of either kind, and what its logs say about how they were synchronised."""

import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cases  # noqa: E402
from cases import Broken  # noqa: E402, F401
from servers import Server, free_port  # noqa: E402

PATIENCE = 90.0
# A member's heap, and a JVM that starts fast. Containers and TTL nodes are looked for every second.
FLAGS = (
    "-Xmx256m", "-Xms64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
    "-Dznode.container.checkIntervalMs=1000", "-Dzookeeper.log.level.LearnerHandler=DEBUG",
    "-Dzookeeper.log.level.DataTree=DEBUG",
)  # fmt: skip
LINES = (
    "tickTime=1000", "initLimit=20", "syncLimit=10", "minSessionTimeout=2000", "maxSessionTimeout=60000",
    "extendedTypesEnabled=true",
)  # fmt: skip


def until(what, condition, patience=PATIENCE, every=0.02):
    return cases.until(what, condition, patience, every)


class Member(Server):
    def __init__(self, number, kind, folder, lines, release, flags, observer):
        super().__init__(kind, folder, lines, release=release, flags=flags, level="INFO")
        self.number, self.observer = number, observer
        self.excused = 0  # digests that did not match, and need not have
        with open(os.path.join(self.data, "myid"), "w", encoding="ascii") as out:
            out.write(f"{number}\n")

    def __str__(self):
        return f"{self.number} ({self.kind}{', observer' if self.observer else ''})"

    def spawn(self):
        self.excused = 0
        super().spawn()

    @property
    def is_java(self):
        return self.kind == "apache"

    def log_size(self):
        path = os.path.join(self.dir, "log")
        return os.path.getsize(path) if os.path.exists(path) else 0

    def log_from(self, mark):
        with open(os.path.join(self.dir, "log"), "rb") as log:
            log.seek(mark)
            return log.read().decode(errors="replace").splitlines()

    def stores(self, marker):
        """Whether these bytes are anywhere in its files."""
        for folder, _, names in os.walk(self.data):
            for name in names:
                try:
                    with open(os.path.join(folder, name), "rb") as stored:
                        if marker in stored.read():
                            return True
                except FileNotFoundError:
                    pass
        return False


# What a learner says when a synchronisation begins, and what a leader says.
JAVA_LEARNS = (
    ("Getting a diff from the leader", "DIFF"),
    ("Getting a snapshot from leader", "SNAP"),
    ("Truncating log to get in sync", "TRUNC"),
)
JAVA_SENDS = re.compile(r"LearnerHandler Sending (DIFF|TRUNC)\b.*peer sid: ?(\d+)")
JAVA_MEETS = re.compile(r"Synchronizing with Learner sid: ?(\d+)")
PADDOCK_LEARNS = re.compile(r'synchronizing leader=\d+ method="(\w+)"')
PADDOCK_SENDS = re.compile(r"(?:a learner|an observer) is brought up to date learner=(\d+) .*method=(Diff|Trunc|Snap)")


def learnt(member, mark):
    """How the member was synchronised since then, in order."""
    found = []
    for line in member.log_from(mark):
        for phrase, method in JAVA_LEARNS:
            if phrase in line:
                found.append(method)
        if match := PADDOCK_LEARNS.search(line):
            found.append(match[1])
    return found


def sent(leader, number, mark):
    """How the leader synchronised that learner since then."""
    found, meets = [], None
    for line in leader.log_from(mark):
        if match := JAVA_MEETS.search(line):
            meets = int(match[1])
        if match := JAVA_SENDS.search(line):
            if int(match[2]) == number:
                found.append(match[1])
        if "Sending snapshot last zxid of peer" in line and meets == number:
            found.append("SNAP")
        if (match := PADDOCK_SENDS.search(line)) and int(match[1]) == number:
            found.append(match[2].upper())
    return found


SNAPSHOT = re.compile(r"Reading snapshot \S*/snapshot\.([0-9a-f]+)")
SNAPSHOT_END = re.compile(r"digest in the snapshot .*zxid as 0x([0-9a-f]+)")


def loaded(member, mark):
    """(first, last) zxid of each snapshot that a server of Java's loaded: while it was taken it was written to, if they differ."""
    found, first = [], None
    for line in member.log_from(mark):
        if match := SNAPSHOT.search(line):
            first = int(match[1], 16)
        if (match := SNAPSHOT_END.search(line)) and first is not None:
            found.append((first, int(match[1], 16)))
            first = None
    return found


class Mixed:
    """`kinds` are those of the voters 1, 2, 3; `observer` that of number 4, if there is one. With an `observer_master_port` followers
    feed observers, each at that port of its own host."""

    def __init__(self, folder, kinds, release, observer=None, flags=(), lines=(), observer_master_port=None, second_address=False):
        self.folder = folder
        kinds = [*kinds, *([observer] if observer else [])]
        if observer_master_port:
            lines = [*lines, f"observerMasterPort={observer_master_port}"]
        if second_address:
            lines = [*lines, "multiAddress.enabled=true"]

        def server(number):
            host = f"127.0.0.{10 + number}" if observer_master_port else "127.0.0.1"
            quorum, election = free_port(), free_port()
            second = f"|127.0.0.2:{quorum}:{election}" if second_address else ""
            return f"server.{number}={host}:{quorum}:{election}{second}{':observer' if number > 3 else ''}"

        servers = [server(number) for number in range(1, len(kinds) + 1)]
        self.members = []
        for number, kind in enumerate(kinds, 1):
            role = ["peerType=observer"] if number > 3 else []
            self.members.append(
                Member(
                    number, kind, os.path.join(folder, str(number)), [*LINES, *lines, *servers, *role], release,
                    [*FLAGS, *flags], number > 3,
                )  # fmt: skip
            )

    def __getitem__(self, number):
        return self.members[number - 1]

    @property
    def voters(self):
        return [member for member in self.members if not member.observer]

    @property
    def running(self):
        return [member for member in self.members if member.is_running]

    def ports(self, members=None):
        return [member.port for member in members or self.members]

    def start(self, leader=3):
        """All of them, so that this one leads: it has the highest id of the voters, and waits for the others."""
        self[leader].spawn()
        until(f"member {leader} answers", lambda: self.answers(self[leader]))
        for member in self.members:
            if member.number != leader:
                member.spawn()
        return self.heal(leader)

    def answers(self, member):
        self.alive(member)
        return member.words("srvr")

    def alive(self, member):
        if member.process is not None and member.process.poll() is not None and member.process.returncode != -9:
            tail = "\n".join(member.log_from(max(0, member.log_size() - 3000)))
            raise Broken(f"member {member} ended by itself with status {member.process.returncode}:\n{tail}")

    def led(self, patience=PATIENCE):
        """The leader, once every member that runs takes part."""

        def stands():
            running = self.running
            for member in self.members:
                self.alive(member)
            modes = [member.mode() for member in running]
            wanted = ["observer" if member.observer else "follower" for member in running]
            leaders = [member for member, mode in zip(running, modes) if mode == "leader"]
            if len(leaders) != 1:
                return None
            fine = all(mode in (want, "leader") for mode, want in zip(modes, wanted))
            return leaders[0] if fine else None

        try:
            return until("one leader that all others follow", stands, patience, 0.05)
        except Broken as error:
            modes = {str(member): member.mode() for member in self.running}
            raise Broken(f"{error}: {modes}") from None

    def heal(self, by=3):
        """Everybody runs, and this one leads."""
        for member in self.members:
            if not member.is_running:
                member.spawn()
        for _ in range(5):
            leader = self.led()
            if leader.number == by:
                return leader
            # Without transactions under way all logs are equal, and the highest id wins the next election.
            leader.kill()
            self.led()
            leader.spawn()
        raise Broken(f"member {by} does not come to lead")

    def back(self, member):
        """Starts it; the leader that took it in."""
        member.spawn()
        return self.led()

    def end(self):
        for member in self.members:
            if member.is_running:
                member.kill()

    def keep_logs(self, folder):
        os.makedirs(folder, exist_ok=True)
        for member in self.members:
            log = os.path.join(member.dir, "log")
            if os.path.exists(log):
                shutil.copy(log, os.path.join(folder, f"{member.number}-{member.kind}.log"))
