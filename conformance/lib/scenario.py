"""What the scenarios of whole systems share: their JVMs, a driver that is asked line by line, the servers and their faults.

A scenario is a list of cases, each a step on what the ones before it left. One that fails ends the scenario: those behind
it count as failed for that reason.

    main(text, world, quick, full)   runs them as the command line says, and writes a line of JSON for each to --results
    Servers(kind, folder, members)   one server of ZooKeeper's kind, or an ensemble of three, and what is done to it
    Jvm(name, command, folder)       a process of the system under test
    Driver(command, folder)          a Jvm that answers each line with one that begins with `ok` or `error`
"""

import argparse
import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import traceback

import cases
from cases import Broken, Skipped
from network import Divisible
from servers import PATIENCE, Server, say, write_acknowledged


def until(what, condition, patience=120.0, every=0.2):
    return cases.until(what, condition, patience, every, again=Broken)


class Servers:
    """One server or three, and the faults that a system on top must bear.

    Followers give a leader up after five seconds (ten ticks). Sessions should be given longer: a leader that stood still
    for a session's whole time, and goes on, takes it for expired, and may tell its client so before it knows of the new leader.
    """

    LINES = ("tickTime=500", "maxSessionTimeout=60000")

    def __init__(self, kind, folder, members, ways=()):
        """`ways` are the processes that can be cut off from all three servers; each goes by `address_for` its name."""
        if members == 1:
            self.ensemble = None
            self.members = [Server(kind, os.path.join(folder, "1"), self.LINES)]
        else:
            self.ensemble = Divisible(kind, folder, self.LINES, ways=ways)
            self.ways = ways
            self.members = self.ensemble.members
        self.path = "/zookeeper"

    @property
    def address(self):
        return ",".join(member.address for member in self.members)

    def address_for(self, name):
        if self.ensemble and name in self.ways:
            return self.ensemble.address_for(name)
        return self.address

    def start(self):
        if self.ensemble:
            self.ensemble.start()
            self.ensemble.leader()
        else:
            self.members[0].start()

    def stop(self):
        for member in self.members:
            if member.process is not None and member.is_running:
                member.resume()
            member.stop()
        if self.ensemble:
            self.ensemble.close()

    def leader(self, without=None):
        if self.ensemble:
            return self.ensemble.leader(without)
        return self.members[0]

    def follower(self):
        leader = self.leader()
        return next(member for member in self.members if member is not leader)

    def bring_back(self, member):
        """Starts it, and returns when all are one ensemble again."""
        member.spawn()
        member.await_reply(self.path, time.monotonic())
        self.leader()

    def kill_and_bring_back(self, member, meanwhile=None):
        """kill -9; `meanwhile` runs while it is gone, if there are others to go on with."""
        member.kill()
        if self.ensemble:
            self.ensemble.leader(without=member)
            if meanwhile:
                meanwhile()
        self.bring_back(member)

    def rolling_restart(self, meanwhile=None):
        """Each in turn by SIGTERM, the leader last, as an operator would."""
        leader = self.leader()
        for member in sorted(self.members, key=lambda one: one is leader):
            member.stop()
            self.bring_back(member)
            if meanwhile:
                meanwhile()

    def suspend_leader(self):
        """It stands still with its connections open, as behind a partition, until the others have a leader; then it goes on."""
        leader = self.leader()
        others = [member for member in self.members if member is not leader]
        leader.suspend()
        try:
            end = time.monotonic() + PATIENCE
            while [member.mode() for member in others].count("leader") != 1:
                if time.monotonic() > end:
                    raise Broken("no new leader while the old one stood still")
                time.sleep(0.05)
        finally:
            leader.resume()
        self.leader()

    def owner(self, path, without=None):
        """The session that an ephemeral node belongs to, as the leader tells it."""
        session = None
        for line in self.leader(without).words("dump").splitlines():
            if found := re.match(r"(0x[0-9a-f]+):", line):
                session = found[1]
            elif line.strip() == path:
                return session
        raise Broken(f"{path} is not there, or not ephemeral")

    def serving(self, session, among=None):
        """The member that this session is connected to; None while there is none, or it does not serve."""
        for member in among or self.members:
            with contextlib.suppress(OSError):
                if re.search(rf"\bsid={session}\b", member.words("cons")):
                    return member
        return None

    def bring_to_leader(self, session):
        """A session goes elsewhere when its server is killed: until that is the leader."""
        for _ in range(20):
            server = until(f"{session} is connected", lambda: self.serving(session), PATIENCE)
            leader = self.leader()
            if self.serving(session) is leader:
                return leader
            self.kill_and_bring_back(server)
        raise Broken(f"{session} does not come to the leader")

    def cut_off_leader(self, path, meanwhile):
        """The leader loses the other two, but no client; the one that has the ephemeral node `path` is connected to it.

        The two go on with a new leader. The old one acknowledges nothing and steps down, the client moves with its session,
        and `meanwhile` runs; with the network whole again the old one follows.
        """
        self.ensemble.expect_network()
        session = self.owner(path)
        old = self.bring_to_leader(session)
        others = [member for member in self.members if member is not old]
        self.ensemble.cut_off(old)
        try:
            with contextlib.suppress(OSError):
                write_acknowledged(old.port, 2, old.host)
                raise Broken("the leader that was cut off acknowledged a write")
            self.ensemble.leader(without=old)
            until("the leader that was cut off has stepped down", lambda: old.mode() != "leader")
            until(f"{session} has moved to another server", lambda: self.serving(session, others))
            meanwhile()
            if self.owner(path, without=old) != session:
                raise Broken(f"{path} is no longer that of {session}")
        finally:
            self.ensemble.heal()
        if self.leader() is old:
            raise Broken("the one that was cut off leads again")

    @contextlib.contextmanager
    def cut_off_client(self, name):
        """It loses all three servers, without a word: packets are dropped. To the others nothing happens."""
        self.ensemble.cut_way(name)
        try:
            yield
        finally:
            self.ensemble.heal()


class Jvm:
    """A process of the system; its output goes to `NAME.log` in the folder."""

    def __init__(self, name, command, folder):
        self.name, self.command = name, command
        self.log = os.path.join(folder, f"{name}.log")
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def is_listening(self, port):
        self.expect_running()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    def expect_running(self):
        if not self.is_running:
            raise Broken(f"{self.name} ended with status {self.process.returncode}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=40):
        """The status it ended with after SIGTERM."""
        if self.process is None:
            return None
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken(f"{self.name} did not end within {seconds} s") from None

    def logged(self, text):
        """How many lines of its log have this text."""
        if not os.path.exists(self.log):
            return 0
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return sum(text in line for line in log)


class Driver(Jvm):
    """The system's own client, in a JVM that stays: one line asks, one answers."""

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        self.answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with open(self.log, "a", encoding="utf-8") as log:
            for line in self.process.stdout:
                if line.startswith(("ok", "error")):
                    self.answers.put(line.rstrip("\n"))
                else:
                    log.write(line)
        self.answers.put(None)

    def ask(self, *words, seconds=120.0):
        """What follows `ok` in the answer."""
        try:
            self.process.stdin.write(" ".join(str(word) for word in words) + "\n")
            self.process.stdin.flush()
            answer = self.answers.get(timeout=seconds)
        except queue.Empty:
            # The answer to this would be taken for that of the next.
            self.kill()
            raise Broken(f"the client did not answer `{words[0]}` within {seconds:.0f} s") from None
        except OSError as error:
            raise Broken(f"the client is gone: {error}") from None
        if answer is None:
            raise Broken("the client ended")
        if not answer.startswith("ok"):
            raise Broken(f"{' '.join(str(word) for word in words)}: {answer}")
        return answer[2:].strip()


def main(text, world, quick, full, alone, group=""):
    """Runs cases in a `world(args, members)` with start() and stop(); a case takes it, and raises Broken or Skipped.

    Those of `full` are for three servers; then those of `alone` for one, in a world of their own, their names after
    `one-server.`. Those of `quick` are for one as well. `group` goes before the names of all.
    """
    parser = argparse.ArgumentParser(description=text.split("\n", 1)[0])
    for name in ("--server", "--java", "--lib", "--classes", "--work", "--results"):
        parser.add_argument(name, required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    parts = [(1, "", quick)] if args.quick else [(3, "", full), (1, "one-server.", alone)]
    # Asked to end, it ends all that it started as well; no case takes this for its own failure.
    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    with open(args.results, "w", encoding="utf-8") as results:
        for members, part, steps in parts:
            folder = os.path.join(args.work, "one-server") if part else args.work
            os.makedirs(folder, exist_ok=True)
            run(steps, world(argparse.Namespace(**{**vars(args), "work": folder}), members), group + part, results)


def run(steps, world, group, results):
    broken = None
    try:
        world.start()
        for case in steps:
            name, result, reason = group + case.__name__.replace("_", "-"), "passed", ""
            begun = time.monotonic()
            if broken:
                result, reason = "failed", f"not tried: {broken}"
            else:
                try:
                    case(world)
                except Skipped as why:
                    result, reason = "skipped", str(why)
                except (Broken, OSError, SystemExit) as error:
                    result, reason = "failed", str(error)
                    broken = f"{name} failed"
                except Exception as error:  # a fault of the suite must not pass for the end of the steps
                    traceback.print_exc()
                    result, reason = "failed", repr(error)
                    broken = f"{name} failed"
            say(f"  {name}: {result} in {time.monotonic() - begun:.1f} s {reason}")
            results.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")
    finally:
        world.stop()
