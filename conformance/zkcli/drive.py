#!/usr/bin/env python3
"""Types cases.txt into a shell and compares what it prints with the recording of the same against Apache ZooKeeper.

    drive.py --address HOST:PORT --ensemble KIND:FOLDER --cases cases.txt --recording recorded.txt --results FILE [--record]
             [--first-shell] -- SHELL ARGS...

SHELL ARGS... is the command that starts the shell; the options of `@shell` and `@once` are appended to it. The shell must
read commands from a pipe. Each command is followed by one that no shell knows, whose complaint marks where the command's
output ends; watch events, which another thread prints, are taken out and compared in order at the end of their case.

What `--ensemble` starts, when the first shell asks for it, are three servers of KIND that can be reconfigured.
"""

import argparse
import difflib
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from servers import Server, free_port  # noqa: E402

MARK = "endofcommand"
TIMEOUT = 30.0
EVENT = re.compile(r"WatchedEvent state:(\S+) type:(\S+) path:(\S+)")
DATE = re.compile(r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+ \d{4}\b")
# Log lines, and the frames of a Java stack trace, which say nothing about the server.
LOG = re.compile(r"^(\d\d:\d\d:\d\d\.\d+ (TRACE|DEBUG|INFO|WARN|ERROR) |\tat [\w.$/]+\(|\t\.\.\. \d+ more)")


class Names:
    """Stable stand-ins for values that differ from run to run: the n-th distinct zxid of a case is Zn."""

    def __init__(self):
        self.seen = {}

    def name(self, letter, value):
        table = self.seen.setdefault(letter, {})
        return table.setdefault(value, f"{letter}{len(table) + 1}")


class Places:
    """What the cases call the addresses of the servers, and the ensemble behind some of them."""

    FLAGS = (
        "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
        "-Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
    )  # fmt: skip

    def __init__(self, address, kind, folder):
        self.kind, self.folder, self.members = kind, folder, []
        self.names = {"HOSTPORT": address}

    def start(self):
        """The ensemble; server 3 leads it. Nobody listens at the addresses of servers 8 and 9."""
        self.members = [Server(self.kind, os.path.join(self.folder, str(number)), flags=self.FLAGS) for number in (1, 2, 3)]
        clients = [*(server.address for server in self.members), *(f"127.0.0.1:{free_port()}" for _ in (8, 9))]
        for number, client in zip((1, 2, 3, 8, 9), clients):
            self.names[f"CLIENT{number}"] = client
            self.names[f"SERVER{number}"] = f"127.0.0.1:{free_port()}:{free_port()}"
        lines = [self.fill(f"server.{number}=SERVER{number}:participant;CLIENT{number}") for number in (1, 2, 3)]
        for number, server in enumerate(self.members, 1):
            server.lines = (
                "tickTime=1000", "initLimit=20", "syncLimit=10", "reconfigEnabled=true", "standaloneEnabled=false", *lines,
            )  # fmt: skip
            server.configure()
            with open(os.path.join(server.data, "myid"), "w", encoding="ascii") as out:
                out.write(f"{number}\n")
        third = self.members[2]
        third.spawn()
        self.until(lambda: self.answers(third), "server 3 answers")
        for server in self.members[:2]:
            server.spawn()
        modes = ["follower", "follower", "leader"]
        self.until(lambda: [server.mode() for server in self.members] == modes, "server 3 leads the others")
        # The members as a file, one that names none, and one that is not there.
        for name, text in (("MEMBERSFILE", "\n".join(lines)), ("EMPTYFILE", ""), ("NOFILE", None)):
            self.names[name] = os.path.join(self.folder, name.lower())
            if text is not None:
                with open(self.names[name], "w", encoding="utf-8") as out:
                    out.write(text + "\n")

    @staticmethod
    def answers(server):
        try:
            return server.words("srvr")
        except OSError:
            return None

    def until(self, condition, what, patience=60.0):
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end:
                for server in self.members:
                    server.tail()
                sys.exit(f"the ensemble of {self.kind}: {what}: not within {patience:.0f} s")
            time.sleep(0.05)

    def fill(self, text):
        """The text with addresses in the place of their names."""
        if not self.members and re.search(r"CLIENT\d|SERVER\d", text):
            self.start()
        for name, value in self.names.items():
            text = text.replace(name, value)
        return text

    def unfill(self, text):
        for name, value in self.names.items():
            text = text.replace(value, name)
        return text

    def stop(self):
        for server in self.members:
            server.stop()


def normalise(line, names, places):
    line = places.unfill(line).rstrip()
    # The version of a configuration is the zxid that it was committed with.
    line = re.sub(r"^(version=)(?!0$)([0-9a-f]+)$", lambda m: m[1] + names.name("V", m[2]), line)
    # `config -c`: the addresses come in the order of a hash table of the shell's own.
    line = re.sub(
        r"^([0-9a-f]{9,}) (CLIENT\S+)$",
        lambda m: names.name("V", m[1]) + " " + ",".join(sorted(m[2].split(","))),
        line,
    )
    line = re.sub(r"^((?:c|m|p)Zxid = )(0x[0-9a-f]+)$", lambda m: m[1] + names.name("Z", m[2]), line)
    line = re.sub(
        r"^(ephemeralOwner = )(0x[0-9a-f]+)$",
        lambda m: m[0] if m[2] == "0x0" or m[2].startswith(("0x8", "0xff")) else m[1] + names.name("S", m[2]),
        line,
    )
    line = DATE.sub("DATE", line)
    line = re.sub(r"(ZooKeeper CLI version: ).*", r"\1VERSION", line)
    line = re.sub(r"(sessionid|session id)( ?[:=]? ?)0x[0-9a-f]+", r"\1\2SESSION", line)
    return line


class Shell:
    def __init__(self, command):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
        )
        self.lines = queue.Queue()
        self.marks = 0
        threading.Thread(target=self.read, daemon=True).start()
        # The banner, and the notice that the session is up. The first commands of a plain shell wait for it themselves.
        self.usage = None
        self.until_mark()
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            # Until the session is there commands fail or hang by chance; a session that comes up announces itself.
            if self.connected:
                break
            time.sleep(0.05)
            self.drain()

    connected = False
    ended = False

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def send(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def note(self, line):
        if "state:SyncConnected type:None" in line:
            self.connected = True

    def drain(self):
        taken = []
        while True:
            try:
                line = self.lines.get_nowait()
            except queue.Empty:
                return taken
            if line is None:
                self.lines.put(None)
                return taken
            self.note(line)
            taken.append(line)

    def until_mark(self):
        self.marks += 1
        mark = f"{MARK}{self.marks}"
        self.send(mark)
        taken = []
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                taken.append(f"(no answer within {TIMEOUT:.0f} s)")
                return taken
            if line is None:
                self.lines.put(None)
                taken.append("(the shell ended)")
                self.ended = True
                return taken
            self.note(line)
            if mark in line:
                break
            taken.append(line)
        # The complaint comes with the whole usage text, before it; the first one shows what that is.
        if self.usage is None:
            start = next((i for i, text in enumerate(taken) if text.startswith("ZooKeeper -server")), len(taken))
            self.usage = [text for text in taken[start:] if text.startswith(("ZooKeeper -server", "\t"))]
        if self.usage and taken[-len(self.usage) :] == self.usage:
            taken = taken[: -len(self.usage)]
        elif self.usage:
            # An event slipped in between: take the usage lines out one by one, from the end.
            left = list(self.usage)
            kept = []
            for text in reversed(taken):
                if left and text == left[-1]:
                    left.pop()
                else:
                    kept.append(text)
            taken = kept[::-1]
        return taken

    def stop(self):
        self.send("quit")
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def sort_list(line):
    if line.startswith("[") and line.endswith("]"):
        return "[" + ", ".join(sorted(line[1:-1].split(", "))) + "]"
    return line


def order_removals(events):
    """The client reports the watches that one request removed in the order of a hash table of its own."""
    ordered, removed = [], []
    for event in events:
        if "WatchRemoved" in event:
            removed.append(event)
        else:
            ordered += [*sorted(removed), event]
            removed = []
    return ordered + sorted(removed)


def sort_members(lines):
    """A configuration has its members in the order of a hash table of the server's."""
    ordered, members = [], []
    for line in lines:
        if re.match(r"server\.\d+=", line):
            members.append(line)
        else:
            ordered += [*sorted(members), line]
            members = []
    return ordered + sorted(members)


def split_events(lines):
    """Takes `WATCHER::`, the blank line and the event itself out of a command's output."""
    plain, events = [], []
    skip_blank = False
    for line in lines:
        if line == "WATCHER::":
            while plain and plain[-1] == "":
                plain.pop()
            skip_blank = True
            continue
        found = EVENT.search(line)
        if found:
            events.append(f"state {found[1]} type {found[2]} path {found[3]}")
            skip_blank = False
            rest = line[: found.start()]
            if rest.strip():
                plain.append(rest)
            continue
        if skip_blank and line == "":
            continue
        plain.append(line)
    while plain and plain[-1] == "":
        plain.pop()
    while plain and plain[0] == "":
        plain.pop(0)
    return plain, events


def read_cases(path):
    case, shell, cases = None, None, []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("#") or not line.strip():
                continue
            if line.startswith("@shell"):
                shell = (len(cases), shlex.split(line)[1:])
            elif line.startswith("[") and line.endswith("]"):
                case = {"name": line[1:-1], "shell": shell, "commands": []}
                cases.append(case)
            else:
                case["commands"].append(line)
    return cases


def once(command, places, names):
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=60
        )
    except subprocess.TimeoutExpired:
        return ["(no end within 60 s)"]
    out = []
    for stream, text in (("", done.stdout), ("error: ", done.stderr)):
        lines, _ = split_events([line for line in text.split("\n") if not LOG.match(line)])
        # The preamble differs by how the shell was built (with line editing or without).
        lines = [line for line in lines if not line.startswith(("Connecting to ", "Welcome to", "JLine support"))]
        out += [stream + line for line in sort_members(normalise(line, names, places) for line in lines)]
    return out + [f"exit {done.returncode}"]


def run(places, cases, command):
    transcript = {}
    shell, shell_key = None, None
    for case in cases:
        out, events, names = [], [], Names()
        one_shot = all(line.startswith("@once") for line in case["commands"])
        if not one_shot and case["shell"] is not shell_key:
            if shell:
                shell.stop()
            shell_key = case["shell"]
            shell = Shell(command + [places.fill(text) for text in shell_key[1]])
            shell.drain()
        for line in case["commands"]:
            out.append("> " + line)
            if line.startswith("@wait"):
                time.sleep(float(line.split()[1]))
                continue
            if line.startswith("@once"):
                parts = [places.fill(text) for text in shlex.split(line)[1:]]
                out += once(command + parts, places, names)
                continue
            if shell.ended:
                # A command that ended the shell is on record as such; the next one gets a new shell.
                shell.stop()
                shell = Shell(command + [places.fill(text) for text in shell_key[1]])
                shell.drain()
            ordered = line.removeprefix("@sorted ")
            shell.send(places.fill(ordered))
            text, happened = split_events([text for text in shell.until_mark() if not LOG.match(text)])
            text = [one for one in text if MARK not in one]
            if ordered != line:
                text = sorted(sort_list(one) for one in text)
            out += sort_members(normalise(one, names, places) for one in text)
            events += happened
        if not one_shot:
            time.sleep(0.15)
            events += split_events(shell.drain())[1]
        if events:
            out.append("events:")
            out += order_removals(events)
        transcript[case["name"]] = out
    if shell:
        shell.stop()
    return transcript


def write_recording(path, transcript):
    with open(path, "w", encoding="utf-8") as out:
        for name, lines in transcript.items():
            out.write(f"[{name}]\n")
            for line in lines:
                out.write("  " + line + "\n" if line else "\n")


def read_recording(path):
    transcript, lines = {}, None
    with open(path, encoding="utf-8") as text:
        for line in text:
            line = line.rstrip("\n")
            if line.startswith("[") and line.endswith("]"):
                lines = transcript.setdefault(line[1:-1], [])
            else:
                lines.append(line[2:] if line.startswith("  ") else line)
    return transcript


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--ensemble", required=True, metavar="KIND:FOLDER")
    parser.add_argument("--cases", required=True)
    parser.add_argument("--recording", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--transcript", default="")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--first-shell", action="store_true", help="stop where the cases want a second shell")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    places = Places(args.address, *args.ensemble.split(":", 1))
    try:
        compare(args, places)
    finally:
        places.stop()


def compare(args, places):
    cases = read_cases(args.cases)
    if args.first_shell:
        cases = [case for case in cases if case["shell"] is cases[0]["shell"]]
    transcript = run(places, cases, args.command)
    if args.transcript:
        write_recording(args.transcript, transcript)
    if args.record:
        write_recording(args.recording, transcript)
    recorded = read_recording(args.recording)
    # Events and the usage text come from different threads of a shell, and on a busy machine their lines can meet. What
    # differs is tried once more; what differs again counts.
    again = {} if args.record else {name for name, lines in transcript.items() if name in recorded and recorded[name] != lines}
    second = run(places, cases, args.command) if again else {}
    for name in again:
        if second.get(name) == recorded[name]:
            print(f"{name}: as recorded at the second try", file=sys.stderr)
            transcript[name] = second[name]
    with open(args.results, "w", encoding="utf-8") as out:
        for name, lines in transcript.items():
            if args.only and name not in args.only:
                continue
            want = recorded.get(name)
            if want is None:
                result, reason = "failed", "not in the recording: record it against Apache"
            elif want == lines:
                result, reason = "passed", ""
            else:
                difference = [
                    line
                    for line in difflib.unified_diff(want, lines, "apache", "here", lineterm="", n=0)
                    if not line.startswith(("---", "+++", "@@"))
                ]
                result, reason = "failed", " | ".join(difference[:12])
            out.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")


if __name__ == "__main__":
    main()
