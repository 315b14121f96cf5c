"""The recipes' programs at work on an ensemble of three, and what is done to it and to them meanwhile."""

import os
import time

from ensemble import Broken, Ensemble, say, until
from groups import RECIPES
from storage import Storage

SESSION = 6.0  # seconds: the session timeout of the programs
PATIENCE = 40.0  # for a recipe to be at work again


class Language:
    def __init__(self, name, command):
        self.name, self.command = name, command


def languages(args):
    here = os.path.dirname(os.path.abspath(__file__))
    java = [args.java, "-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", args.classpath]
    classes = {"workqueue": "WorkQueue"}
    return {
        "kazoo": Language("kazoo", lambda program: [args.python, os.path.join(here, "kazoo", f"{program}.py")]),
        "rust": Language("rust", lambda program: [os.path.join(args.rust, program)]),
        "curator": Language("curator", lambda program: [*java, classes.get(program, program.capitalize())]),
    }


class Campaign:
    def __init__(self, args, report, languages, recipes, network, folder):
        self.args, self.report, self.network, self.folder = args, report, network, folder
        self.ensemble = Ensemble(args.server, 3, os.path.join(folder, "ensemble"), network)
        self.groups = []
        for language in languages:
            for recipe in recipes[language.name]:
                kind = RECIPES[recipe]
                storage = None
                if kind.needs_storage:
                    storage = Storage(os.path.join(folder, f"{recipe}-{language.name}.sock"))
                self.groups.append(kind(language, self.ensemble, folder, storage))

    def run(self, faults):
        try:
            self.ensemble.start()
            for group in self.groups:
                group.start()
            # Programs in Java take a while to start; on a busy machine, sessions may end meanwhile.
            self.trouble = {}
            self.at_work("at the start", 120)
            self.case("calm", calm)
            for name in faults:
                self.case(name, FAULTS[name])
            self.the_end()
        finally:
            for group in self.groups:
                for process in group.processes.values():
                    process.kill()
            for group in self.groups:
                group.end()
                if group.storage:
                    group.storage.close()
            if self.network:
                self.network.heal()
            self.ensemble.end()

    def case(self, fault, inject, patience=PATIENCE):
        """One fault, and a case for each group: that it went on while it lasted, that it goes on after it, that nothing went wrong."""
        started = {}
        for group in self.groups:
            group.excused, group.hurt = set(), False
            started[group] = (len(group.lines), len(group.wrong()))
        self.trouble = {}
        begun = time.monotonic()
        broken = skipped = ""
        try:
            inject(self)
        except Skip as reason:
            skipped = str(reason)
        except (Broken, OSError) as error:
            broken = f"the ensemble: {error}"
        self.seconds = {}
        if not skipped:
            self.at_work("after it", patience, self.seconds)
        say(f"  {fault}: {time.monotonic() - begun:.1f} s {skipped or broken}")
        for group in self.groups:
            first, before = started[group]
            wrong = [problem for _, problem in group.wrong()[before:]]
            ended = group.ended()
            reason = skipped or "; ".join(filter(None, [*wrong[:2], ended, self.trouble.get(group, ""), broken]))
            self.report(f"{group.name}/{fault}", "skipped" if skipped else "failed" if reason else "passed", reason)
            if not skipped and reason and self.args.logs:
                self.keep(group, fault)

    def keep(self, group, fault):
        with open(os.path.join(self.args.logs, f"{group.name}-{fault}.txt".replace("/", "-")), "w", encoding="utf-8") as out:
            out.writelines(" ".join(line) + "\n" for line in list(group.lines))
            for name in group.processes:
                out.write(f"\n== {name} on standard error\n")
                with open(group.log(name), encoding="utf-8", errors="replace") as log:
                    out.writelines(log.readlines()[-200:])

    def at_work(self, when, patience=PATIENCE, seconds=None, without=None):
        """Waits until each group has made progress from now on; `without` names those of each that cannot."""
        without = without or {}
        waiting = {group: group.mark() for group in self.groups}
        begun = time.monotonic()
        while waiting and time.monotonic() - begun < patience:
            for group, mark in list(waiting.items()):
                if not group.missing(mark, without.get(group, ())):
                    del waiting[group]
                    if seconds is not None:
                        seconds[group] = time.monotonic() - begun
            time.sleep(0.05)
        for group, mark in waiting.items():
            missing = group.missing(mark, without.get(group, ()))
            if missing:
                self.trouble.setdefault(group, f"{when}, within {patience:.0f} s: {missing}")
        say(f"    at work {when} in {time.monotonic() - begun:.1f} s" + (f", without {len(waiting)} groups" if waiting else ""))

    def the_end(self):
        from kazoo.client import KazooClient
        from kazoo.exceptions import KazooException

        member = self.ensemble.members[0]
        client = KazooClient("%s:%d" % member.reach, timeout=10)
        client.start(30)
        try:
            for group in self.groups:
                client.sync(group.path)
                before = len(group.wrong())
                try:
                    reason, remark = group.in_the_end(client)
                except (Broken, OSError, KazooException) as error:
                    reason, remark = str(error) or type(error).__name__, ""
                wrong = group.wrong()[before:]
                reason = reason or (wrong[0][1] if wrong else "")
                say(f"    {group.name}: {reason or remark}")
                self.report(f"{group.name}/in-the-end", "failed" if reason else "passed", reason or remark)
                if reason and self.args.logs:
                    self.keep(group, "in-the-end")
        finally:
            client.stop()
            client.close()

    def hit(self, stop):
        """Stops one of each group, where it hurts if it can be had there. Returns whom, by group."""
        victims = {}
        for group in self.groups:
            for attempt in range(60):
                name = group.victim()
                if name is None:
                    time.sleep(0.01)
                    continue
                group.pause(name)
                time.sleep(0.02)
                if group.caught(name) or attempt >= 50:
                    group.hurt = group.caught(name)
                    break
                group.resume(name)
            else:
                name = group.alive()[0]
                group.pause(name)
            victims[group] = {name}
            if stop == "kill":
                group.kill(name)
        return victims


class Skip(Exception):
    """Why a fault cannot be had here."""


def calm(_campaign):
    time.sleep(2)


def crash(campaign, member):
    member.kill()
    begun = time.monotonic()
    campaign.ensemble.led([other for other in campaign.ensemble.members if other is not member])
    say(f"    the others serve after {time.monotonic() - begun:.2f} s")
    campaign.at_work("with two servers")
    member.spawn()
    campaign.ensemble.led()


def kill_leader(campaign):
    crash(campaign, campaign.ensemble.led())


def kill_follower(campaign):
    leader = campaign.ensemble.led()
    crash(campaign, next(member for member in campaign.ensemble.members if member is not leader))


def rolling_restart(campaign):
    for member in campaign.ensemble.members:
        member.stop()
        campaign.ensemble.led()
        member.spawn()
        campaign.ensemble.led()


def partition_leader(campaign):
    """The leader is cut off, and with it a client of each group: of the first election, the one that is the master."""
    network, ensemble = campaign.network, campaign.ensemble
    if not network:
        raise Skip(campaign.args.no_network)
    leader = ensemble.led()
    election = next((group for group in campaign.groups if group.program == "election"), None)
    master = election.holder() if election else None
    digit = master[-1] if master else "1"
    far = {group: {name for name in group.alive() if name[-1] == digit} for group in campaign.groups}
    for group, names in far.items():
        # Who was connected to the old leader hears nothing more, and on a busy machine finds another too late for its session.
        group.excused |= set(group.alive()) if group.program in ("members", "config") else names
    rest = [member for member in ensemble.members if member is not leader]
    network.split([[leader.host, f"c{digit}"], [member.host for member in rest]])
    begun = time.monotonic()
    try:
        new = ensemble.led(rest)
        say(f"    the others serve after {time.monotonic() - begun:.2f} s, led by server {new.number}")
        # Long enough for the sessions on the far side to end.
        campaign.at_work("on the side of two", without=far)
        until("the old leader gives up", lambda: leader.mode() != "leader", 20)
        time.sleep(max(0.0, begun + SESSION + 4 - time.monotonic()))
    finally:
        network.heal()
    ensemble.led()


def pause_client(campaign):
    """One client of each group is stopped for longer than its session lives, and goes on."""
    victims = campaign.hit("pause")
    begun = time.monotonic()
    try:
        campaign.at_work("without those paused", without=victims)
        time.sleep(max(0.0, begun + SESSION + 2 - time.monotonic()))
    finally:
        for group, names in victims.items():
            for name in names:
                group.resume(name)


def kill_client(campaign):
    victims = campaign.hit("kill")
    campaign.at_work("without those killed", without=victims)
    for group, names in victims.items():
        for name in names:
            group.replace(name)


FAULTS = {
    "kill-leader": kill_leader,
    "kill-follower": kill_follower,
    "rolling-restart": rolling_restart,
    "partition-leader": partition_leader,
    "pause-client": pause_client,
    "kill-client": kill_client,
}
