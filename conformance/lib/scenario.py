"""What the scenarios of whole systems share: their JVMs, a driver that is asked line by line, the servers and their faults.

A scenario is a list of cases, each a step on what the ones before it left. One that fails ends the scenario: those behind
it count as failed for that reason.

    main(text, quick, full, world)   runs them as the command line says, and writes a line of JSON for each to --results
    Servers(kind, folder, members)   one server of ZooKeeper's kind, or an ensemble of three, and what is done to it
    Jvm(name, command, folder)       a process of the system under test
    Driver(command, folder)          a Jvm that answers each line with one that begins with `ok` or `error`
"""

import argparse
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time

import cases
from cases import Broken
from servers import PATIENCE, Ensemble, Server, say


def until(what, condition, patience=120.0, every=0.2):
    return cases.until(what, condition, patience, every, again=Broken)


class Servers:
    """One server or three, and the faults that a system on top must bear.

    Followers give a leader up after five seconds (ten ticks). Sessions should be given longer: a leader that stood still
    for a session's whole time, and goes on, takes it for expired, and may tell its client so before it knows of the new leader.
    """

    LINES = ("tickTime=500", "maxSessionTimeout=60000")

    def __init__(self, kind, folder, members):
        if members == 1:
            self.ensemble = None
            self.members = [Server(kind, os.path.join(folder, "1"), self.LINES)]
        else:
            self.ensemble = Ensemble(kind, folder, self.LINES)
            self.members = self.ensemble.members
        self.path = "/zookeeper"

    @property
    def address(self):
        return ",".join(member.address for member in self.members)

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


def main(text, quick, full, world, group=""):
    """Runs the cases of `quick` or `full` in a `world(args)` with start() and stop(); a case takes it, and raises Broken.

    `group` goes before the cases' names.
    """
    parser = argparse.ArgumentParser(description=text.split("\n", 1)[0])
    for name in ("--server", "--java", "--lib", "--classes", "--work", "--results"):
        parser.add_argument(name, required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    run(args, quick if args.quick else full, world(args), group)


def run(args, steps, world, group):
    # Asked to end, it ends all that it started as well; no case takes this for its own failure.
    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    broken = None
    with open(args.results, "w", encoding="utf-8") as results:
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
                    except (Broken, OSError, SystemExit) as error:
                        result, reason = "failed", str(error)
                        broken = f"{name} failed"
                say(f"  {name}: {result} in {time.monotonic() - begun:.1f} s {reason}")
                results.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")
        finally:
            world.stop()
