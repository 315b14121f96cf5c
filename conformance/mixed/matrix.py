"""The matrix of mixed ensembles and the rolling replacement; `run` calls it.

Each case leaves the ensemble as it found it: all members up, number 3 leading. One that fails is followed by the next in a new
ensemble, so that one fault does not hide another.
"""

import argparse
import fnmatch
import json
import os
import signal
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checks  # noqa: E402
import asks  # noqa: E402
import changes  # noqa: E402
import wire  # noqa: E402
from checks import Holder, Load  # noqa: E402
from ensemble import Broken, Mixed, learnt, loaded, sent, until  # noqa: E402
from servers import free_port, say  # noqa: E402
from wire import Client, Expired, Lost, Refused  # noqa: E402

JAVA, OURS = "apache", "paddock"
# The voters, of whom 3 leads, and the observer.
PLACEMENTS = {
    "paddock-leads-2-java": ((JAVA, JAVA, OURS), JAVA),
    "java-leads-2-paddock": ((OURS, OURS, JAVA), OURS),
    "paddock-leads-1-java": ((OURS, JAVA, OURS), OURS),
    "java-leads-1-paddock": ((JAVA, OURS, JAVA), JAVA),
}
# Those that are reconfigured; servers 5 and 6, one of each kind, join and leave.
CHANGING = {
    "reconfiguration-paddock-leads": ((JAVA, OURS, OURS), JAVA),
    "reconfiguration-java-leads": ((JAVA, OURS, JAVA), OURS),
}


# --- cases of a placement: (ensemble, root of its own) ---


def requests_through_every_member(ensemble, root):
    with Client(ensemble[1].port) as client:
        client.call(wire.create(root)).ok()
    for member in ensemble.members:
        asks.through(ensemble, member, f"{root}/{member.number}")
        asks.synced_reads(ensemble, member, f"{root}/sync-{member.number}")
    checks.agree(ensemble)


def sessions_move_between_members(ensemble, root):
    for first, second in ((1, 3), (3, 1), (2, 3), (3, 2), (1, 4), (4, 3)):
        asks.moved_session(ensemble, ensemble[first], ensemble[second], f"{root}-{first}-{second}")
    checks.agree(ensemble)


def sessions_expire_everywhere(ensemble, root):
    failures = []

    def one(first, second):
        try:
            asks.expiring_session(ensemble, ensemble[first], ensemble[second], f"{root}-{first}")
        except (Broken, OSError, Refused, Expired) as error:
            failures.append(f"through {ensemble[first]}: {error}")

    threads = [threading.Thread(target=one, args=pair) for pair in ((1, 3), (3, 1), (2, 4), (4, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Broken("; ".join(failures))
    checks.agree(ensemble)


def watches_survive_failover(ensemble, root):
    asks.watches_over_failover(ensemble, ensemble[1], ensemble[2], f"{root}-follower")
    asks.watches_over_failover(ensemble, ensemble[3], ensemble[1], f"{root}-leader")
    ensemble.heal()
    asks.watches_over_failover(ensemble, ensemble[4], ensemble[3], f"{root}-observer")
    checks.agree(ensemble)


def writes(ensemble, root, count, size=100):
    with Client(ensemble.running[0].port) as client:
        if client.call(wire.exists(root)).error:
            client.call(wire.create(root)).ok()
        for reply in client.all(wire.create(f"{root}/n-", b"w" * size, wire.SEQUENCE) for _ in range(count)):
            reply.ok()


def synchronised(ensemble, member, wanted, marks):
    """The member took part again by this method, or one of these, as it and the leader say."""
    leader = ensemble.led()
    told = (learnt(member, marks[member]), sent(leader, member.number, marks[leader]))
    ways, among_java = ((wanted,) if isinstance(wanted, str) else wanted), member.is_java and leader.is_java
    # Among themselves Java's servers may begin again with what is left.
    took = told[0] if among_java else told[0][-1:]
    if not told[0] or told[0][-1:] != told[1][-1:] or not any(way in took for way in ways):
        raise Broken(f"member {member} says that it got {told[0]}, leader {leader} that it sent {told[1]}: not {wanted}")
    if "SNAP" in took and among_java:
        # Among themselves Java's servers count those of transactions that the snapshot had already, under load.
        member.excused = checks.mismatched(member)


def marks_of(ensemble):
    return {member: member.log_size() for member in ensemble.members}


def diff(ensemble, root, number):
    """Member `number` is down while the others write a little."""
    member = ensemble[number]
    writes(ensemble, root, 20)
    member.kill()
    ensemble.led()
    writes(ensemble, root, 50)
    marks = marks_of(ensemble)
    ensemble.back(member)
    synchronised(ensemble, member, "DIFF", marks)
    checks.agree(ensemble)
    ensemble.heal()


def diff_to_a_follower(ensemble, root):
    diff(ensemble, root, 1)


def diff_to_an_observer(ensemble, root):
    diff(ensemble, root, 4)


def diff_to_the_old_leader(ensemble, root):
    """The others lead meanwhile, and it has only what they have, too."""
    diff(ensemble, root, 3)


def outgrow(ensemble, root):
    """More transactions than a leader keeps in memory, and more bytes of log than its snapshot is worth reading them for."""
    with Client(ensemble.led().port) as client:
        client.call(wire.create(f"{root}/large")).ok()
        for reply in client.all((wire.set_data(f"{root}/large", b"x" * 20000) for _ in range(700)), 50):
            reply.ok()
        client.call(wire.delete(f"{root}/large")).ok()


def snap(ensemble, root, number):
    """Member `number` has nothing at all any more."""
    member = ensemble[number]
    writes(ensemble, root, 20)
    member.kill()
    ensemble.led()
    outgrow(ensemble, root)
    member.wipe()
    marks = marks_of(ensemble)
    ensemble.back(member)
    synchronised(ensemble, member, "SNAP", marks)
    checks.agree(ensemble)
    ensemble.heal()


def snap_to_an_empty_follower(ensemble, root):
    snap(ensemble, root, 1)


def snap_to_an_empty_observer(ensemble, root):
    snap(ensemble, root, 4)


def snap_to_the_old_leader_emptied(ensemble, root):
    snap(ensemble, root, 3)


def snap_to_a_follower_far_behind(ensemble, root):
    member = ensemble[1]
    writes(ensemble, root, 20)
    member.kill()
    ensemble.led()
    outgrow(ensemble, root)
    # Java does not count the log file in which the learner's last transaction is: another one is begun.
    leader = ensemble.led()
    leader.kill()
    ensemble.back(leader)
    outgrow(ensemble, root)
    marks = marks_of(ensemble)
    ensemble.back(member)
    synchronised(ensemble, member, "SNAP", marks)
    checks.agree(ensemble)
    ensemble.heal()


def truncate(ensemble, root, more):
    """The leader has logged what nobody else has, and finds another one leading when it comes back."""
    old = ensemble[3]
    writes(ensemble, root, 30)
    checks.digests(ensemble)
    client = Client(old.port, 30000)
    for member in ensemble.members:
        if member is not old:
            member.suspend()
    marker = f"lost-{os.urandom(8).hex()}"
    lost = [client.send(wire.create(f"{root}/{marker}-{number}", marker.encode())) for number in range(10)]
    until("the leader has logged what nobody else gets", lambda: old.stores(f"{marker}-9".encode()), 8)
    old.kill()
    client.drop()
    if any(pending.reply for pending in lost):
        raise Broken("a write was acknowledged that only the leader had")
    for member in ensemble.members:
        if member is not old:
            member.kill()
            member.spawn()
    leader = ensemble.led()
    if more:
        writes(ensemble, root, 25)
    marks = marks_of(ensemble)
    ensemble.back(old)
    # With transactions of a new epoch there, Java does not look for where the histories part.
    synchronised(ensemble, old, "SNAP" if more and leader.is_java else "TRUNC", marks)
    for member, tree in checks.agree(ensemble).items():
        left = [path for path in tree if marker in path]
        if left:
            raise Broken(f"member {member} has {len(left)} nodes that were truncated, {left[0]} for one")
    ensemble.heal()


def trunc_of_the_old_leader(ensemble, root):
    truncate(ensemble, root, more=False)


def trunc_and_more_of_the_old_leader(ensemble, root):
    truncate(ensemble, root, more=True)


def kills_under_load(ensemble, root, rounds):
    """`rounds`: whom to kill each time, a number or "leader"."""
    with Load(ensemble) as load:
        load.progress()
        for victim in rounds:
            member = ensemble.led() if victim == "leader" else ensemble[victim]
            was = member.mode()
            member.kill()
            begun = time.monotonic()
            leader = ensemble.led()
            load.progress()
            took = time.monotonic() - begun
            ensemble.back(member)
            load.progress()
            say(f"      {was} {member} killed: {leader} leads, writes after {took:.1f} s, {load.acked} acknowledged")
        load.rest()
        load.verify()
        say(f"      {load.acked} writes acknowledged, {load.unknown} without an answer")
    ensemble.heal()


def quick_kills_under_load(ensemble, root):
    kills_under_load(ensemble, root, ["leader", 1, "leader"])


def many_kills_under_load(ensemble, root):
    kills_under_load(ensemble, root, ["leader", 1, 3, "leader", 2, 4, "leader", 3, "leader", 1, "leader"])


def everybody_is_killed_under_load(ensemble, root):
    with Load(ensemble, workers=2) as load:
        load.progress()
        for order in ((1, 2, 3, 4), (3, 1, 4, 2)):
            for member in ensemble.members:
                member.kill()
            for number in order:
                ensemble[number].spawn()
            ensemble.led()
            load.progress()
        load.rest()
        load.verify()
    ensemble.heal()


STAGES = [  # (case, also in the quick form)
    (requests_through_every_member, True),
    (sessions_move_between_members, True),
    (sessions_expire_everywhere, True),
    (diff_to_a_follower, True),
    (diff_to_an_observer, True),
    (diff_to_the_old_leader, False),
    (snap_to_an_empty_follower, True),
    (snap_to_an_empty_observer, True),
    (snap_to_the_old_leader_emptied, False),
    (snap_to_a_follower_far_behind, False),
    (trunc_of_the_old_leader, True),
    (trunc_and_more_of_the_old_leader, True),
    (watches_survive_failover, True),
    (quick_kills_under_load, None),
    (many_kills_under_load, False),
    (everybody_is_killed_under_load, False),
]
QUICK_PLACEMENTS = ("paddock-leads-2-java", "java-leads-2-paddock")


# --- snapshots that Java takes while it is written to ---


def grow(client, root, count, size):
    """A tree whose snapshot takes a while."""
    client.call(wire.create(root)).ok()
    for reply in client.all(wire.create(f"{root}/n{number}", b"f" * size) for number in range(count)):
        reply.ok()


def fuzzy(ensemble, number, rounds, emptied):
    """Member `number`, of Java's, takes snapshots all the time, is killed under load and starts from one of them. Then those
    that are emptied get everything from the leader while it is written to."""
    member = ensemble[number]
    with Client(ensemble[1].port, 30000) as client:
        grow(client, "/fuzzy", 4000, 300)
    with Load(ensemble) as load:
        load.progress()
        snapshots, fuzzy_ones = [], []
        while len(snapshots) < rounds or not fuzzy_ones:
            if len(snapshots) > rounds + 6:
                raise Broken(f"no snapshot that {member} started from was taken while it was written to: {snapshots}")
            mark = member.log_size()
            taken = lambda mark=mark: sum("Snapshotting: 0x" in line for line in member.log_from(mark)) >= 2  # noqa: E731
            until(f"member {member} takes snapshots under load", taken)
            member.kill()
            ensemble.led()
            load.progress()
            mark = member.log_size()
            ensemble.back(member)
            load.progress()
            snapshots += loaded(member, mark)[:1] or [None]
            fuzzy_ones = [each for each in snapshots if each and each[0] < each[1]]
        told = ", ".join(f"{first:x}-{last:x}" for first, last in fuzzy_ones)
        say(f"      {len(fuzzy_ones)} of {len(snapshots)} restarts were from fuzzy snapshots: {told}")
        load.rest()
        load.verify()
        # The member itself leads, if it is the one that does so here.
        ensemble.heal()
        for other in (ensemble[number] for number in emptied):
            load.go()
            load.progress()
            other.kill()
            other.wipe()
            ensemble.led()
            load.progress()
            marks = marks_of(ensemble)
            ensemble.back(other)
            load.progress()
            load.rest()
            synchronised(ensemble, other, "SNAP", marks)
            load.verify()


# --- observers behind followers ---


def master_of(ensemble, observer):
    """The follower that feeds the observer, once both say so."""

    def stands():
        number = int(observer.metrics().get("observer_master_id", "0"))
        leader = ensemble.led()
        follower = ensemble[number] if 0 < number <= 3 and number != leader.number else None
        return follower if follower and follower.metrics().get("synced_observers") == "1" else None

    return until("the observer is behind a follower", stands)


def written(member, path):
    """The member takes a write, as soon as it has found its place again."""

    def attempt():
        try:
            with Client(member.port) as client:
                return client.call(wire.create(path)).error in (wire.OK, wire.NODE_EXISTS)
        except (Lost, Refused, Expired):
            return False

    until(f"{member} takes a write", attempt)


def observers_behind_followers(ensemble):
    observer = ensemble[4]
    follower = master_of(ensemble, observer)
    say(f"      observer {observer} is behind follower {follower}")
    asks.through(ensemble, observer, "/through")
    asks.synced_reads(ensemble, observer, "/synced")
    # The leader cannot tell an observer from its follower. Java's lets late writes pass, ours makes them fail.
    late = (wire.SESSION_MOVED, wire.OK if follower.is_java else wire.BAD_ARGUMENTS)
    for number, (first, second) in enumerate(((observer, follower), (follower, observer))):
        asks.moved_session(ensemble, first, second, f"/near-{number}", late)
    for number, (first, second) in enumerate(((observer, ensemble[3]), (ensemble[3], observer))):
        asks.moved_session(ensemble, first, second, f"/far-{number}")
    asks.expiring_session(ensemble, observer, ensemble[3], "/expiring")
    checks.agree(ensemble)
    # It comes back a little behind, and far behind.
    for count, methods in ((20, ("DIFF",)), (0, ("SNAP", "DIFF"))):
        observer.kill()
        if not count:
            observer.wipe()
        writes(ensemble, f"/behind-{count}", count + 5)
        marks = marks_of(ensemble)
        ensemble.back(observer)
        follower = master_of(ensemble, observer)
        told = (learnt(observer, marks[observer])[-1:], sent(follower, 4, marks[follower])[-1:])
        if told[0] != told[1] or told[0][0] not in methods:
            raise Broken(f"observer {observer} says that it got {told[0]}, follower {follower} that it sent {told[1]}: not {methods}")
        checks.agree(ensemble)
    follower.kill()
    ensemble.led()
    other = master_of(ensemble, observer)
    if other is follower:
        raise Broken(f"observer {observer} is behind {follower}, which is dead")
    written(observer, "/other")
    ensemble.heal()
    # Its leader goes, and with it the role of its follower.
    ensemble[3].kill()
    ensemble.led()
    written(observer, "/next")
    ensemble.heal()
    master_of(ensemble, observer)
    checks.agree(ensemble)


def one_of_two_addresses(ensemble):
    for member in ensemble.members:
        asks.through(ensemble, member, f"/through-{member.number}")
    for _ in range(2):
        ensemble.led().kill()
        ensemble.led()
        ensemble.heal()
    checks.agree(ensemble)


# --- replacement ---


def replace(ensemble, load, holder, member, kind, data, methods, step):
    leader = ensemble.led()
    say(f"      {'leader' if member is leader else 'follower'} {member} becomes {kind}")
    member.stop()
    ensemble.led()
    load.progress(10)
    member.reconfigure(kind, data)
    marks = marks_of(ensemble)
    ensemble.back(member)
    load.progress()
    holder.check(member.port, b"%d" % step)
    load.rest()
    synchronised(ensemble, member, methods, marks)
    holder.verify(load.verify())
    load.go()
    return member.log_from(marks[member])


IMPORTED = "imported the data of Apache ZooKeeper"


def in_apaches_folder(ensemble, load, holder, member, kind, step):
    """What is there is taken over, with the snapshots that were taken while it was written to. On its way back, Apache's server
    has what it had."""
    aside = [os.path.join(member.data, name) for name in ("paddock-log", "paddock-state")]
    imports = kind == OURS
    if imports:
        for path in aside:
            if os.path.exists(path):
                os.rename(path, f"{path}-{step}")
    log = replace(ensemble, load, holder, member, kind, None, ("DIFF", "SNAP"), step)
    if imports and not any(IMPORTED in line for line in log):
        raise Broken(f"member {member} says nothing of an import")


def rolling(ensemble, kinds, in_place=False, old_data=False):
    """Three servers of Java's become three of ours and go back, one at a time, the leader last. A new one is empty, or it starts on
    the data folder of the other kind (`in_place`), or, on the way back, on the one that it had (`old_data`)."""
    holder = Holder(ensemble)
    with Load(ensemble) as load:
        load.progress()
        step = 0
        for kind in kinds:
            left = set(ensemble.voters)
            while left:
                leader = ensemble.led()
                member = min((member for member in left if member is not leader), key=lambda member: member.number, default=leader)
                left.remove(member)
                step += 1
                if in_place:
                    in_apaches_folder(ensemble, load, holder, member, kind, step)
                    continue
                data, methods = os.path.join(member.dir, f"data-{step}"), "SNAP"
                if old_data and step > 3:
                    data, methods = os.path.join(member.dir, "data"), ("DIFF", "SNAP")
                replace(ensemble, load, holder, member, kind, data, methods, step)
        moves = holder.session.moves - 1
        say(f"      {load.acked} writes acknowledged, {load.unknown} without an answer; the session moved {moves} times")
    holder.end(ensemble)
    checks.agree(ensemble)


def expanded_by_hand(ensemble):
    """A fourth server, without any reconfiguration: each zoo.cfg is edited and its server restarted, the leader's last
    (ZOOKEEPER-3829). Then back to three."""
    with Load(ensemble) as load:
        load.progress()
        for there in (True, False):
            ensemble.is_member(ensemble[4], there)
            if there:
                ensemble.provide(ensemble[4])
                ensemble[4].spawn()
                until("server 4 follows", lambda: ensemble[4].mode() == "follower")
            else:
                ensemble[4].stop()
            left = {1, 2, 3}
            while left:
                leader = ensemble.led()
                member = ensemble[min((each for each in left if each != leader.number), default=leader.number)]
                left.discard(member.number)
                member.stop()
                ensemble.provide(member)
                if there:
                    ensemble.led()  # two of those that count four servers are no quorum
                ensemble.back(member)
                load.progress(10)
            say(f"      {len(ensemble.members)} servers, {ensemble.led()} leads")
        load.rest()
        load.verify()


def grown_from_one(ensemble, root):
    """A server that is alone becomes an ensemble of three, and is alone again."""
    with changes.ConfigWatch(ensemble) as watch:
        first = ensemble[1]
        for number in (2, 3):
            changes.started(ensemble, ensemble[number])
            changes.change(ensemble, watch, first, joining=[ensemble[number]])
            changes.used(ensemble, ensemble[number], f"{root}-{number}")
        for number in (2, 3):
            changes.change(ensemble, watch, first, leaving=[ensemble[number]])
            ensemble[number].stop()
        changes.used(ensemble, first, f"{root}-alone")


# --- running them ---


class Matrix:
    def __init__(self, args):
        self.args, self.rows = args, []
        self.count = 0
        self.ensemble = None

    def kinds(self, names):
        return [JAVA if self.args.server == "apache" else name for name in names]

    def new(self, kinds, observer=None, changing=False, **how):
        self.end()
        self.count += 1
        folder = os.path.join(self.args.work, f"ensemble-{self.count}")
        observer = self.kinds([observer])[0] if observer else None
        if changing:
            how["spares"] = self.kinds(how.get("spares", (JAVA, OURS)))
        self.ensemble = (changes.Changing if changing else Mixed)(folder, self.kinds(kinds), self.args.version, observer, **how)
        return self.ensemble

    def end(self):
        if self.ensemble is not None:
            self.ensemble.end()
        self.ensemble = None

    def wanted(self, name):
        return not self.args.only or any(
            fnmatch.fnmatchcase(name, pattern) or pattern in name for pattern in self.args.only
        )

    def case(self, name, act):
        say(f"  {name}")
        begun, result, reason = time.monotonic(), "passed", ""
        try:
            act()
        except (Broken, OSError, Refused, Expired, SystemExit) as error:
            result, reason = "failed", f"{type(error).__name__}: {error}" if not isinstance(error, Broken) else str(error)
        except Exception as error:  # what a case did not reckon with is its failure, and the others still run
            traceback.print_exc()
            result, reason = "failed", f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - begun
        say(f"    {result} in {seconds:.1f} s{': ' + reason if reason else ''}")
        self.rows.append((name, result, seconds, reason))
        with open(self.args.results, "a", encoding="utf-8") as results:
            results.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")
        if result == "failed" and self.ensemble is not None:
            logs = os.path.join(self.args.logs, name.replace("/", "-"))
            self.ensemble.keep_logs(logs)
            say(f"    logs: {logs}")
        return result == "passed"

    def placement(self, placement, placements=PLACEMENTS, stages=STAGES, **how):
        kinds, observer = placements[placement]
        quick = self.args.quick
        fresh = True
        for number, (stage, in_quick) in enumerate(stages):
            name = f"{placement}/{stage.__name__.replace('_', '-')}"
            if (quick and in_quick is False) or (not quick and in_quick is None) or not self.wanted(name):
                continue

            def act(stage=stage, number=number, fresh=fresh):
                if fresh:
                    self.new(kinds, observer, **how).start()
                else:
                    self.ensemble.heal()
                stage(self.ensemble, f"/c{number}")

            fresh = not self.case(name, act)
        self.end()

    def one(self, name, kinds, act, **how):
        if self.wanted(name):
            self.case(name, lambda: (self.new(kinds, **how).start(len(kinds)), act(self.ensemble)))
            self.end()

    def run(self):
        quick = self.args.quick
        for placement in PLACEMENTS:
            if not quick or placement in QUICK_PLACEMENTS or self.args.only:
                self.placement(placement)
        for placement in CHANGING:
            self.placement(placement, CHANGING, changes.STAGES, changing=True)
        for kind, others in ((OURS, (JAVA, OURS)), (JAVA, (OURS, JAVA))):
            self.one(
                f"reconfiguration-from-one/{kind}", (kind,), lambda ensemble: grown_from_one(ensemble, "/one"), changing=True,
                spares=others, lines=("standaloneEnabled=false",),
            )  # fmt: skip
        if not quick or self.args.only:
            for name, kinds in (("paddock-leads", (JAVA, JAVA, OURS)), ("java-leads", (OURS, OURS, JAVA))):
                self.one(
                    f"expansion-by-hand/{name}", kinds, lambda ensemble: expanded_by_hand(ensemble), changing=True, reconfig=False
                )  # fmt: skip
        rounds = 1 if quick else 3
        snapshots = {"lines": ("snapCount=300",)}
        self.one(
            "fuzzy-snapshots/java-leads", (OURS, OURS, JAVA),
            lambda ensemble: fuzzy(ensemble, 3, rounds, (1, 4)), observer=OURS, **snapshots,
        )  # fmt: skip
        if not quick or self.args.only:
            self.one(
                "fuzzy-snapshots/paddock-leads", (JAVA, OURS, OURS),
                lambda ensemble: fuzzy(ensemble, 1, rounds, (1, 4)), observer=JAVA, **snapshots,
            )  # fmt: skip
        for name, kinds, observer in (
            ("java-observer", (OURS, OURS, JAVA), JAVA),
            ("paddock-observer", (JAVA, JAVA, OURS), OURS),
        ):
            if quick and not self.args.only:
                continue
            self.one(f"observer-masters/{name}", kinds, observers_behind_followers, observer=observer, observer_master_port=free_port())
            # Java's servers take it from a system property alone.
            flags = ("-Dzookeeper.multiAddress.enabled=true",)
            self.one(f"several-addresses/{name}", kinds, one_of_two_addresses, observer=observer, second_address=True, flags=flags)
        there, back = self.kinds((OURS, JAVA))
        self.one("rolling-replacement/empty", (JAVA,) * 3, lambda ensemble: rolling(ensemble, (there, back)))
        compressed = "-Dzookeeper.snapshot.compression.method="
        self.one(
            "rolling-replacement/in-place", (JAVA,) * 3, lambda ensemble: rolling(ensemble, (there, back), in_place=True),
            flags=(compressed + "gz",), **snapshots,
        )  # fmt: skip
        if not quick or self.args.only:
            self.one(
                "rolling-replacement/back-to-the-old-data", (JAVA,) * 3,
                lambda ensemble: rolling(ensemble, (there, back), old_data=True),
            )  # fmt: skip
            self.one(
                "rolling-replacement/in-place-there-back-and-there", (JAVA,) * 3,
                lambda ensemble: rolling(ensemble, (there, back, there), in_place=True), flags=(compressed + "snappy",), **snapshots,
            )  # fmt: skip

    def table(self):
        width = max((len(name) for name, *_ in self.rows), default=0)
        for name, result, seconds, reason in self.rows:
            short = " ".join(reason.split())
            print(f"{name.ljust(width)}  {result}  {seconds:6.1f} s  {short[:150]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--server", choices=[OURS, JAVA], default=OURS, help="apache: every member is Apache's, to compare with")
    parser.add_argument("--version", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--logs", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    args = parser.parse_args()
    # Whoever stops the suite has its servers stopped, too. Not by SystemExit: of a case that is its failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.version == "3.8":
        wire.CREATE_IN_MULTI = wire.CREATE
    matrix = Matrix(args)
    begun = time.monotonic()
    try:
        matrix.run()
    finally:
        matrix.end()
    matrix.table()
    say(f"{len(matrix.rows)} cases in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
